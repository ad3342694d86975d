//! The page of a pending sign-in: its secrets, and what its forms do with the account.

use std::{sync::Arc, time::Duration};

use parking_lot::{Mutex as StdMutex, MutexGuard as StdMutexGuard};
use tokio::sync::{Mutex, MutexGuard};

use super::{
    End, MAX_ATTEMPTS, Options, Pending, Place, Request, SignInMethod, State,
    browser::RedirectFile,
    demo::Demo,
    peer::Join,
    problem::{Field, Problem, attempts_left},
    verification::Verification,
};
use crate::{
    account::{Account, Error},
    error::UserFacingError,
    secret::{self, ExposeSecret as _, SecretString},
};

/// The credentials from the page's forms.
#[derive(Debug)]
pub struct Login {
    pub email: String,
    pub password: SecretString,
    /// Whether the person stays signed in on this computer.
    pub remember: bool,
}

/// What the page shows, apart from its state.
#[derive(Clone, Debug)]
pub struct View {
    /// The names that the hosts gave themselves; not verified.
    pub requested_by: Vec<String>,
    /// The form that the page opens on.
    pub opens_on: SignInMethod,
    /// Whether only a terminal shows the link.
    pub in_terminal: bool,
    /// The e-mail address that was typed last, or the one from the request.
    pub email: String,
    /// Whether the person typed the address, which then is not replaced.
    email_is_typed: bool,
    pub remember: bool,
    /// BondMCP's refusal after the form was sent, and the form that shows it.
    pub problem: Option<(SignInMethod, Problem)>,
}

/// The page of one sign-in, as its forms use it.
#[derive(Debug)]
pub struct PageSession {
    account: Account,
    pending: Arc<Pending>,
    place: Place,
    view: StdMutex<View>,
    /// The embedded sandbox, if that is the upstream.
    demo: Option<Demo>,
    /// Path segment of the page: 256 random bits, valid for one sign-in.
    id: SecretString,
    /// Token in the page's forms, so that other pages cannot submit them.
    form_token: SecretString,
    /// Key that this process and its peers prove to each other.
    peer_key: SecretString,
    /// The first wait before BondMCP is asked whether an account's address is verified.
    pub(super) verification_poll: Duration,
    /// The verification that was started last.
    pub(super) verification: StdMutex<Option<Arc<Verification>>>,
    /// Number of wrong passwords and keys. Held during an attempt, so that concurrent ones cannot exceed the limit.
    pub(super) wrong: Mutex<u8>,
    /// The file that opened the person's browser, if one did.
    redirect: StdMutex<Option<RedirectFile>>,
}

impl PageSession {
    pub fn new(account: Account, place: &Place, request: Request, options: &Options) -> Self {
        let id = secret::random();
        let url = place.url(id.expose_secret());
        let view = View {
            requested_by: request.requested_by.into_iter().collect(),
            opens_on: request.opens_on,
            in_terminal: request.in_terminal,
            email: request.email.unwrap_or_default(),
            email_is_typed: false,
            remember: true,
            problem: None,
        };
        Self {
            account,
            pending: Arc::new(Pending::new(url.into(), options.lifetime, request.need)),
            place: place.clone(),
            view: StdMutex::new(view),
            demo: options.demo.clone(),
            id,
            form_token: secret::random(),
            peer_key: secret::random(),
            verification_poll: options.verification_poll,
            verification: StdMutex::default(),
            wrong: Mutex::new(0),
            redirect: StdMutex::default(),
        }
    }

    pub fn pending(&self) -> &Arc<Pending> {
        &self.pending
    }

    pub fn account(&self) -> &Account {
        &self.account
    }

    pub fn place(&self) -> &Place {
        &self.place
    }

    pub fn demo(&self) -> Option<&Demo> {
        self.demo.as_ref()
    }

    pub fn peer_key(&self) -> &SecretString {
        &self.peer_key
    }

    pub fn has_id(&self, given: &SecretString) -> bool {
        secret::same(given, &self.id)
    }

    pub fn is_form_token(&self, given: &SecretString) -> bool {
        secret::same(given, &self.form_token)
    }

    /// Returns the path of the page.
    pub fn path(&self) -> String {
        format!("{}/{}", self.place.path(), self.id.expose_secret())
    }

    /// Whether an API key is good enough.
    pub fn takes_keys(&self) -> bool {
        !self.pending.needs_session()
    }

    pub fn form_token(&self) -> &str {
        self.form_token.expose_secret()
    }

    /// Returns what the page shows now.
    pub fn view(&self) -> View {
        self.view_mut().clone()
    }

    fn view_mut(&self) -> StdMutexGuard<'_, View> {
        self.view.lock()
    }

    /// Opens the page on another form than before.
    pub(super) fn open_on(&self, method: SignInMethod) {
        self.view_mut().opens_on = method;
    }

    /// Shows a problem that occurred after the form was sent.
    pub(super) fn show_problem(&self, method: SignInMethod, problem: Problem) {
        self.view_mut().problem = Some((method, problem));
    }

    /// Shows the forms as the person left them.
    pub fn keep_input(&self, login: &Login) {
        let mut view = self.view_mut();
        view.email.clone_from(&login.email);
        view.email_is_typed = true;
        view.remember = login.remember;
    }

    /// Opens the person's browser on the page, the first time.
    pub fn open_browser(&self) {
        let mut redirect = self.redirect.lock();
        if redirect.is_some() || !self.pending.is_open() {
            return;
        }
        match RedirectFile::write(self.account.data_dir(), self.pending.name(), self.pending.url()) {
            Ok(file) => {
                if let Err(error) = redirect.insert(file).open() {
                    tracing::warn!(%error, "cannot open the browser; the link is in the answer");
                }
            }
            Err(error) => tracing::warn!(%error, "cannot open the browser; the link is in the answer"),
        }
    }

    /// Removes the file that opened the browser.
    pub fn release(&self) {
        self.redirect.lock().take();
    }

    /// Adds a caller in this process; `false` if the sign-in has ended.
    pub fn join_here(&self, request: &Request) -> bool {
        if !self.pending.join(request.need) {
            return false;
        }
        let mut view = self.view_mut();
        view.in_terminal &= request.in_terminal;
        if let Some(host) = &request.requested_by
            && !view.requested_by.contains(host)
        {
            view.requested_by.push(host.clone());
        }
        if request.opens_on != SignInMethod::SignIn {
            view.opens_on = request.opens_on;
        }
        if let Some(email) = request.email.as_ref().filter(|_| !view.email_is_typed) {
            view.email.clone_from(email);
        }
        true
    }

    /// Adds a caller in another process. Returns the proof to answer with; `None` for a sender without the key.
    pub fn join(&self, join: &Join) -> Option<String> {
        let (need, proof) = join.verified(&self.peer_key)?;
        self.pending.join(need).then_some(proof)
    }

    pub async fn sign_in(self: &Arc<Self>, login: Login) -> Result<(), Problem> {
        let mut wrong = self.turn().await?;
        match self.try_login(&login).await {
            Ok(email) => {
                self.pending.set_state(State::SignedIn { email });
                Ok(())
            }
            Err(error) if error.is_unauthorized() => {
                let left = self.count(&mut wrong);
                Err(Problem::new(Field::Password, format!("Wrong e-mail or password. {left}")))
            }
            Err(error) if error.is_not_verified() => {
                self.await_verification(login, SignInMethod::SignIn);
                Ok(())
            }
            Err(error) => Err(Problem::with_account(&UserFacingError::from(&error))),
        }
    }

    /// Signs in; returns the e-mail address of the account.
    pub(super) async fn try_login(&self, login: &Login) -> Result<Option<String>, Error> {
        let Login { email, password, remember } = login;
        Ok(self.account.sign_in(email, password.clone(), *remember).await?.email)
    }

    /// Creates an account and waits for the verification of its address.
    pub async fn create(self: &Arc<Self>, login: Login) -> Result<(), Problem> {
        let _turn = self.turn().await?;
        let created = self.account.register(&login.email, &login.password).await;
        created.map_err(|error| Problem::with_account(&UserFacingError::from(&error)))?;
        self.await_verification(login, SignInMethod::CreateAccount);
        Ok(())
    }

    pub async fn use_key(&self, key: SecretString) -> Result<(), Problem> {
        let mut wrong = self.turn().await?;
        if !self.takes_keys() {
            return Err(Problem::new(
                Field::None,
                "Your assistant needs a signed-in account for this; an API key is not enough. Sign in or create an account.",
            ));
        }
        match self.account.use_own_key(key).await {
            Ok(()) => {
                self.pending.set_state(State::SignedIn { email: None });
                Ok(())
            }
            Err(error) if error.is_unauthorized() => {
                let left = self.count(&mut wrong);
                Err(Problem::new(Field::Key, format!("BondMCP does not accept this API key. {left}")))
            }
            Err(error) => Err(Problem::with_key(&UserFacingError::from(&error))),
        }
    }

    /// Signs in with the demo account of the embedded sandbox.
    pub async fn use_demo(self: &Arc<Self>) -> Result<(), Problem> {
        let Some(demo) = &self.demo else {
            return Err(Problem::new(Field::None, "There is no demo account."));
        };
        let login = Login { email: demo.email.to_owned(), password: demo.password.clone(), remember: true };
        self.sign_in(login).await
    }

    /// Waits for earlier forms, one of which may have ended the sign-in.
    async fn turn(&self) -> Result<MutexGuard<'_, u8>, Problem> {
        let wrong = self.wrong.lock().await;
        if self.pending.is_open() && self.pending.state() == State::Open {
            self.view_mut().problem = None;
            return Ok(wrong);
        }
        Err(Problem::new(Field::None, "This sign-in is over."))
    }

    /// Counts a wrong password or key; returns how many more are allowed, in words.
    pub(super) fn count(&self, wrong: &mut u8) -> String {
        *wrong += 1;
        let left = MAX_ATTEMPTS.saturating_sub(*wrong);
        if left == 0 {
            self.pending.end(End::TooManyAttempts);
        }
        attempts_left(left)
    }
}
