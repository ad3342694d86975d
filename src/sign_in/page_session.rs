//! The page of a pending sign-in: its secrets, and what its forms do with the account.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex as StdMutex, PoisonError},
    time::Duration,
};

use tokio::sync::{Mutex, MutexGuard};

use super::{End, Pending, Request, SignInMethod, State, browser::RedirectFile, peer::Join};
use crate::{
    account::{Account, Error},
    bondmcp,
    error::{Kind, UserFacingError},
    secret::{self, ExposeSecret as _, SecretString},
};

/// Number of wrong passwords and keys that end a sign-in, so that the account is not locked.
const MAX_ATTEMPTS: u8 = 5;

/// The credentials from the page's forms.
pub struct Login {
    pub email: String,
    pub password: SecretString,
    /// Whether the person stays signed in on this computer.
    pub remember: bool,
}

/// The page of one sign-in, as its forms use it.
#[derive(Debug)]
pub struct PageSession {
    account: Account,
    pending: Arc<Pending>,
    address: SocketAddr,
    /// The name that the host gave itself; not verified.
    requested_by: Option<String>,
    /// Initial value of the e-mail field.
    email: String,
    opens_on: SignInMethod,
    /// Path segment of the page: 256 random bits, valid for one sign-in.
    id: SecretString,
    /// Token in the page's forms, so that other pages cannot submit them.
    form_token: SecretString,
    /// Key that this process and its peers prove to each other.
    peer_key: SecretString,
    /// The first wait before BondMCP is asked whether a new account's address is verified.
    verification_poll: Duration,
    /// Number of wrong passwords and keys. Held during an attempt, so that concurrent ones cannot exceed the limit.
    wrong: Mutex<u8>,
    /// BondMCP's final refusal of a new account, which the form shows.
    problem: StdMutex<Option<UserFacingError>>,
    /// The file that opened the person's browser, if one did.
    redirect: StdMutex<Option<RedirectFile>>,
}

impl PageSession {
    pub fn new(account: Account, address: SocketAddr, request: Request, options: super::Options) -> Self {
        let id = secret::random();
        let url = format!("http://{address}/{}", id.expose_secret());
        Self {
            account,
            pending: Arc::new(Pending::new(url.into(), options.lifetime, request.need)),
            address,
            requested_by: request.requested_by,
            email: request.email.unwrap_or_default(),
            opens_on: request.opens_on,
            id,
            form_token: secret::random(),
            peer_key: secret::random(),
            verification_poll: options.verification_poll,
            wrong: Mutex::new(0),
            problem: StdMutex::default(),
            redirect: StdMutex::default(),
        }
    }

    pub fn pending(&self) -> &Arc<Pending> {
        &self.pending
    }

    pub fn account(&self) -> &Account {
        &self.account
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn email(&self) -> &str {
        &self.email
    }

    /// Returns the form that the page opens on.
    pub fn opens_on(&self) -> SignInMethod {
        self.opens_on
    }

    pub fn requested_by(&self) -> Option<&str> {
        self.requested_by.as_deref()
    }

    pub fn peer_key(&self) -> &SecretString {
        &self.peer_key
    }

    pub fn is_path(&self, given: &str) -> bool {
        secret::same(&given.into(), &self.id)
    }

    pub fn is_form_token(&self, given: &SecretString) -> bool {
        secret::same(given, &self.form_token)
    }

    pub fn path(&self) -> &str {
        self.id.expose_secret()
    }

    pub fn form_token(&self) -> &str {
        self.form_token.expose_secret()
    }

    /// Returns the problem that occurred after the form was sent.
    pub fn problem(&self) -> Option<UserFacingError> {
        self.problem.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Opens the person's browser on the page, the first time.
    pub fn open_browser(&self) {
        let mut redirect = self.redirect.lock().unwrap_or_else(PoisonError::into_inner);
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
    pub fn forget_browser(&self) {
        self.redirect.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    /// Adds a dependent in another process. Returns the proof to answer with; `None` for a sender without the key.
    pub fn join(&self, join: &Join) -> Option<String> {
        let (need, proof) = join.verified(&self.peer_key)?;
        self.pending.join(need).then_some(proof)
    }

    pub async fn sign_in(&self, login: Login) -> Result<(), UserFacingError> {
        let mut wrong = self.turn().await?;
        match self.account.sign_in(&login.email, login.password, login.remember).await {
            Ok(status) => {
                self.pending.set_state(State::SignedIn { email: status.email });
                Ok(())
            }
            Err(error) if is_unauthorized(&error) => {
                self.count(&mut wrong);
                Err(UserFacingError::new(
                    Kind::InvalidCredentials,
                    "Wrong e-mail or password.",
                    "Check both and try again.",
                ))
            }
            Err(error) => Err(UserFacingError::from(&error)),
        }
    }

    /// Creates an account; its verification is then polled.
    pub async fn create(self: &Arc<Self>, login: Login) -> Result<(), UserFacingError> {
        let _turn = self.turn().await?;
        self.account.register(&login.email, &login.password).await.map_err(|error| {
            let report = UserFacingError::from(&error);
            if report.kind == Kind::Conflict {
                return UserFacingError::new(
                    Kind::Conflict,
                    "This e-mail already has an account.",
                    "Sign in instead.",
                );
            }
            report
        })?;
        self.pending.set_state(State::Verifying { email: login.email.clone() });
        tokio::spawn(Arc::clone(self).verify(login));
        Ok(())
    }

    pub async fn use_key(&self, key: SecretString) -> Result<(), UserFacingError> {
        let mut wrong = self.turn().await?;
        if self.pending.needs_session() {
            return Err(UserFacingError::new(
                Kind::SignInRequired,
                "Your assistant needs a signed-in account for this; an API key is not enough.",
                "Sign in or create an account.",
            ));
        }
        match self.account.use_own_key(key).await {
            Ok(()) => {
                self.pending.set_state(State::SignedIn { email: None });
                Ok(())
            }
            Err(error) if is_unauthorized(&error) => {
                self.count(&mut wrong);
                Err(UserFacingError::new(
                    Kind::InvalidCredentials,
                    "BondMCP does not accept this API key.",
                    "Check it and try again.",
                ))
            }
            Err(error) => Err(UserFacingError::from(&error)),
        }
    }

    /// Waits for earlier forms, one of which may have ended the sign-in.
    async fn turn(&self) -> Result<MutexGuard<'_, u8>, UserFacingError> {
        let wrong = self.wrong.lock().await;
        if self.pending.is_open() && self.pending.state() == State::Open {
            *self.problem.lock().unwrap_or_else(PoisonError::into_inner) = None;
            return Ok(wrong);
        }
        Err(UserFacingError::new(
            Kind::SignInRequired,
            "This sign-in is over.",
            "Ask your assistant for a new link.",
        ))
    }

    fn count(&self, wrong: &mut u8) {
        *wrong += 1;
        if *wrong >= MAX_ATTEMPTS {
            self.pending.end(End::TooManyAttempts);
        }
    }

    /// Signs in as soon as the address of a new account is verified. A refusal for another reason ends the polling, and
    /// the form shows it.
    async fn verify(self: Arc<Self>, login: Login) {
        let mut wait = self.verification_poll;
        loop {
            tokio::select! {
                () = self.pending.ended() => return,
                () = tokio::time::sleep(wait) => {}
            }
            let error = match self.account.sign_in(&login.email, login.password.clone(), login.remember).await
            {
                Ok(status) => return self.pending.set_state(State::SignedIn { email: status.email }),
                Err(error) => error,
            };
            let report = UserFacingError::from(&error);
            match report.kind {
                Kind::EmailNotVerified | Kind::RateLimited | Kind::UpstreamUnavailable | Kind::Timeout => {
                    let asked_for = report.retry_after_seconds.map(Duration::from_secs);
                    wait = next_wait(wait, self.verification_poll, asked_for);
                }
                _ => {
                    if is_unauthorized(&error) {
                        self.count(&mut *self.wrong.lock().await);
                    }
                    *self.problem.lock().unwrap_or_else(PoisonError::into_inner) = Some(report);
                    return self.pending.set_state(State::Open);
                }
            }
        }
    }
}

/// Doubles the wait, up to fifteen times the first one, unless BondMCP asks for more.
fn next_wait(wait: Duration, first: Duration, asked_for: Option<Duration>) -> Duration {
    (wait * 2).min(first * 15).max(asked_for.unwrap_or_default())
}

fn is_unauthorized(error: &Error) -> bool {
    matches!(error, Error::Upstream(error) if bondmcp::Error::is_unauthorized(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verification_backs_off_to_half_a_minute_and_obeys_retry_after() {
        let first = Duration::from_secs(2);
        let mut wait = first;
        let mut waits = vec![];
        while waits.len() < 6 {
            waits.push(wait.as_secs());
            wait = next_wait(wait, first, None);
        }
        assert_eq!(waits, [2, 4, 8, 16, 30, 30]);
        let asked_for = Duration::from_mins(2);
        assert_eq!(next_wait(first, first, Some(asked_for)), asked_for);
        assert_eq!(next_wait(first, first, Some(Duration::ZERO)).as_secs(), 4);
    }
}
