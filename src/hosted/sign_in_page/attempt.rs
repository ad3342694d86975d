//! Attempts to sign in and to create an account: what BondMCP is asked, and what becomes of its answer.

use axum::response::{IntoResponse as _, Redirect, Response};

use super::{Login, PageRequest};
use crate::{
    account::{self, Owner},
    error::{Kind, UserFacingError},
    hosted::{AttemptRefused, audit::AuditedEvent, browser::with_cookie, person::Person, trouble},
    secret::SecretString,
    sign_in::{
        Field, Problem, SignInMethod, State, attempts_left,
        public::{Purpose, views::Notice},
    },
    vault,
};

const NOBODY: &str = "BondMCP does not tell this server which account this is, so it cannot be connected. Tell whoever runs this server.";

const UNVERIFIED: &str = "BondMCP has not confirmed the e-mail address yet. Open the link in the e-mail from BondMCP, then sign in again.";

/// Why somebody is not signed in.
enum Failure {
    Account(account::Error),
    /// BondMCP does not say who it is.
    Nobody,
    Vault(vault::Error),
}

impl From<account::Error> for Failure {
    fn from(error: account::Error) -> Self {
        match error {
            account::Error::Vault(error) => Self::Vault(error),
            error => Self::Account(error),
        }
    }
}

impl From<vault::Error> for Failure {
    fn from(error: vault::Error) -> Self {
        Self::Vault(error)
    }
}

impl PageRequest {
    /// Every attempt passes here before BondMCP is asked. Returns the answer to one that there is no more of.
    async fn begin_attempt(&mut self, method: SignInMethod, email: &str) -> Result<(), Response> {
        match self.hosted.inner.attempts.begin(email, self.client).await {
            Ok(attempt) => self.attempt = Some(attempt),
            Err(AttemptRefused::Limited(wait)) => return Err(self.limited(method, email, wait)),
            Err(AttemptRefused::Store(error)) => return Err(self.hosted.unavailable(&error)),
        }
        match self.page.begin_attempt().await {
            Ok(true) => Ok(()),
            Ok(false) => {
                self.take_back().await;
                Err(self.show(None))
            }
            Err(error) => Err(self.hosted.unavailable(&error)),
        }
    }

    /// The attempt in progress was no guess at a password.
    async fn take_back(&mut self) {
        if let Some(attempt) = self.attempt.take() {
            attempt.take_back().await;
        }
    }

    /// BondMCP has not decided about the attempt in progress.
    async fn undecided(&mut self) -> Result<(), vault::Error> {
        self.take_back().await;
        self.page.attempt_was_undecided().await
    }

    pub(super) async fn sign_in(mut self, login: Login) -> Response {
        // The address that is being verified is the one to sign in with.
        let email = match self.page.state() {
            State::Verifying { email } => email.clone(),
            _ => login.email,
        };
        if let Err(refusal) = self.begin_attempt(SignInMethod::SignIn, &email).await {
            return refusal;
        }
        let outcome = self.admitted(&email, login.password).await;
        let step = step_of(&outcome);
        if let Purpose::Browser { next, .. } = self.page.purpose() {
            self.hosted.step_at(next, &self.browser, step).await;
        }
        match outcome {
            Ok(answer) => {
                self.take_back().await;
                answer
            }
            Err(failure) => match self.failed(&email, failure).await {
                Ok(problem) => self.problem(SignInMethod::SignIn, &email, &problem),
                Err(error) => self.hosted.unavailable(&error),
            },
        }
    }

    /// Signs in; returns the answer to the browser.
    async fn admitted(&mut self, email: &str, password: SecretString) -> Result<Response, Failure> {
        match self.page.purpose().clone() {
            Purpose::Owner { subject, .. } => {
                let account = self.hosted.inner.accounts.open(&Owner::Subject(subject));
                let status = account.sign_in(email, password, false).await?;
                self.page.set_state(State::SignedIn { email: status.email }).await?;
                Ok(self.show(None))
            }
            Purpose::Browser { next, .. } => {
                let authenticator = self.hosted.sign_in_pages().authenticator();
                let authenticated = authenticator.with_password(email, password).await?;
                let user = authenticated.user_id().ok_or(Failure::Nobody)?;
                let subject = self.hosted.inner.server.subject(user);
                let person = Person { subject, email: email.to_owned() };
                let browsers = &self.hosted.inner.browsers;
                let cookie = browsers.sign_in(&self.browser, self.page.id(), &person, authenticated).await?;
                self.hosted.audit(AuditedEvent::SignedIn { person: &person });
                self.page.set_state(State::SignedIn { email: Some(person.email) }).await?;
                Ok(with_cookie(Redirect::to(&next).into_response(), Some(&cookie)))
            }
        }
    }

    /// Notes what became of an attempt; returns what the person is told.
    async fn failed(&mut self, email: &str, failure: Failure) -> Result<Problem, vault::Error> {
        let error = match failure {
            Failure::Account(error) => error,
            Failure::Nobody => {
                self.undecided().await?;
                return Ok(Problem::new(Field::None, NOBODY));
            }
            Failure::Vault(error) => return Err(error),
        };
        if error.is_unauthorized() {
            let left = self.page.attempt_was_wrong().await?;
            return Ok(Problem::new(
                Field::Password,
                format!("Wrong e-mail or password. {}", attempts_left(left)),
            ));
        }
        if matches!(error, account::Error::AnotherUser) {
            self.take_back().await;
            self.page.attempt_was_wrong().await?;
            return Ok(problem_of(&error));
        }
        self.undecided().await?;
        if error.is_not_verified() {
            if let Purpose::Browser { .. } = self.page.purpose() {
                self.page.set_state(State::Verifying { email: email.to_owned() }).await?;
            }
            return Ok(Problem::new(Field::None, UNVERIFIED));
        }
        Ok(problem_of(&error))
    }

    /// Creates a BondMCP account. Its password is not kept: the person types it again when the address is verified.
    pub(super) async fn create(mut self, login: Login) -> Response {
        if let Purpose::Owner { .. } = self.page.purpose() {
            return self.notice(Notice::Unknown);
        }
        let Login { email, password } = login;
        if let Err(refusal) = self.begin_attempt(SignInMethod::CreateAccount, &email).await {
            return refusal;
        }
        let registered = self.hosted.sign_in_pages().authenticator().register(&email, &password).await;
        let noted = match &registered {
            // Or addresses could be tried until one has an account.
            Err(error) if UserFacingError::from(error).kind == Kind::Conflict => {
                self.page.attempt_was_wrong().await.map(drop)
            }
            Err(_) => self.undecided().await,
            Ok(_) => self.now_verifying(&email).await,
        };
        match (noted, registered) {
            (Err(error), _) => self.hosted.unavailable(&error),
            // The form was sent twice.
            (Ok(()), Err(_)) if self.is_verifying(&email) => self.show(None),
            (Ok(()), Err(error)) => self.problem(SignInMethod::CreateAccount, &email, &problem_of(&error)),
            (Ok(()), Ok(_)) => self.show(None),
        }
    }

    fn is_verifying(&self, address: &str) -> bool {
        matches!(self.page.state(), State::Verifying { email } if email == address)
    }

    /// The attempt stays counted for its client and its address: BondMCP sends an e-mail for each account.
    async fn now_verifying(&mut self, email: &str) -> Result<(), vault::Error> {
        self.page.attempt_was_undecided().await?;
        self.page.set_state(State::Verifying { email: email.to_owned() }).await
    }
}

/// Describes an error for the person; the cause of trouble is for the operator.
fn problem_of(error: &account::Error) -> Problem {
    let report = UserFacingError::from(error);
    let Some(message) = trouble::message(&report) else { return Problem::with_account(&report) };
    tracing::warn!(%error, "a person cannot sign in or create an account");
    Problem::new(Field::None, message)
}

/// Describes how an attempt ended, for the trace of the authorization that it is for.
fn step_of(outcome: &Result<Response, Failure>) -> &'static str {
    match outcome {
        Ok(_) => "signed in",
        Err(Failure::Account(error)) if error.is_unauthorized() => {
            "sign-in refused: wrong e-mail or password"
        }
        Err(Failure::Account(error)) if error.is_not_verified() => "sign-in refused: e-mail not verified",
        Err(Failure::Account(_)) => "sign-in failed at BondMCP",
        Err(Failure::Nobody) => "sign-in refused: BondMCP does not tell the account",
        Err(Failure::Vault(_)) => "sign-in failed: no database",
    }
}
