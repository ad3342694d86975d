//! The person's side of a pending sign-in: the page's secrets, and what its forms may do with the account.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex as StdMutex, PoisonError},
    time::Duration,
};

use tokio::sync::{Mutex, MutexGuard};

use super::{End, Pending, Request, State, browser::RedirectFile, peer::Join};
use crate::{
    account::{Account, Error},
    bondmcp,
    error::{Kind, Report},
    secret::{self, ExposeSecret as _, SecretString},
};

/// Wrong passwords and keys that one sign-in forgives, so that an account is not locked from here.
const ATTEMPTS: u8 = 5;

/// What is typed into the page's forms for an account.
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
    /// The host's name for itself: a claim, not a fact.
    requested_by: Option<String>,
    /// What the form's e-mail field begins with.
    email: String,
    /// The last part of the page's path: 256 random bits, good for one sign-in.
    id: SecretString,
    /// Sent with the page's forms, so that no other page can send them.
    form_token: SecretString,
    /// What this process and its peers prove to each other that they know.
    peer_key: SecretString,
    /// The first wait before BondMCP is asked whether a new account's address is verified.
    verification_poll: Duration,
    /// Wrong passwords and keys so far. Held while one is tried, so that no more are tried at once than are forgiven.
    wrong: Mutex<u8>,
    /// Why BondMCP refused a new account in the end; the form says so.
    problem: StdMutex<Option<Report>>,
    /// The file by which the person's browser was opened, if it was.
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

    /// What went wrong since the form was sent.
    pub fn problem(&self) -> Option<Report> {
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

    /// Removes the file by which the browser was opened.
    pub fn forget_browser(&self) {
        self.redirect.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    /// One more dependent, of another process: the proof to answer with, or `None` for everybody else.
    pub fn join(&self, join: &Join) -> Option<String> {
        let (need, proof) = join.verified(&self.peer_key)?;
        self.pending.join(need).then_some(proof)
    }

    pub async fn sign_in(&self, login: Login) -> Result<(), Report> {
        let mut wrong = self.turn().await?;
        match self.account.sign_in(&login.email, login.password, login.remember).await {
            Ok(status) => {
                self.pending.set_state(State::SignedIn { email: status.email });
                Ok(())
            }
            Err(error) if is_unauthorized(&error) => {
                self.count(&mut wrong);
                Err(Report::new(
                    Kind::InvalidCredentials,
                    "Wrong e-mail or password.",
                    "Check both and try again.",
                ))
            }
            Err(error) => Err(Report::from(&error)),
        }
    }

    /// Creates an account; from then on BondMCP is asked now and then whether its address is verified.
    pub async fn create(self: &Arc<Self>, login: Login) -> Result<(), Report> {
        let _turn = self.turn().await?;
        self.account.register(&login.email, &login.password).await.map_err(|error| {
            let report = Report::from(&error);
            if report.kind == Kind::Conflict {
                return Report::new(
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

    pub async fn use_key(&self, key: SecretString) -> Result<(), Report> {
        let mut wrong = self.turn().await?;
        if self.pending.needs_session() {
            return Err(Report::new(
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
                Err(Report::new(
                    Kind::InvalidCredentials,
                    "BondMCP does not accept this API key.",
                    "Check it and try again.",
                ))
            }
            Err(error) => Err(Report::from(&error)),
        }
    }

    /// Waits for the forms that were sent before; one of them may have ended the sign-in.
    async fn turn(&self) -> Result<MutexGuard<'_, u8>, Report> {
        let wrong = self.wrong.lock().await;
        if self.pending.is_open() && self.pending.state() == State::Open {
            *self.problem.lock().unwrap_or_else(PoisonError::into_inner) = None;
            return Ok(wrong);
        }
        Err(Report::new(Kind::SignInRequired, "This sign-in is over.", "Ask your assistant for a new link."))
    }

    fn count(&self, wrong: &mut u8) {
        *wrong += 1;
        if *wrong >= ATTEMPTS {
            self.pending.end(End::TooManyAttempts);
        }
    }

    /// Signs in as soon as the address of a new account is verified. A refusal for another reason ends the attempts:
    /// the person has the form again, and sees why.
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
            let report = Report::from(&error);
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

/// Twice the wait before, up to fifteen times the first one, unless BondMCP asks for more.
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
