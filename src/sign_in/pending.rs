//! One pending sign-in: its secret path, the code that the person compares, how it stands, and what the page may do
//! with the account.

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicU8, Ordering},
    time::Duration,
};

use tokio::{sync::watch, time::Instant};
use uuid::Uuid;

use super::LIFETIME;
use crate::{
    account::{Account, Error},
    bondmcp,
    config::BaseUrl,
    error::Report,
    secret::{self, ExposeSecret as _, SecretString},
};

/// Wrong passwords that one sign-in forgives, so that an account is not locked from here.
const ATTEMPTS: u8 = 5;

/// How often it is tried whether a new account's address is verified by now.
const VERIFICATION_POLL: Duration = Duration::from_secs(5);

/// Letters and digits that are not mistaken for each other.
const CODE_LETTERS: &[u8] = b"ACDEFHJKLMNPRTUVWXY3479";

/// How a sign-in stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// The person has the page, or has not opened it yet.
    Open,
    /// The account is made; its e-mail address is not verified yet.
    Verifying {
        email: String,
    },
    /// Done; who, where that is known.
    SignedIn {
        email: Option<String>,
    },
    Ended(End),
}

/// Why a sign-in ended without anybody signing in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Declined,
    TimedOut,
    TooManyAttempts,
}

/// A sign-in that somebody waits for.
#[derive(Debug)]
pub struct Pending {
    account: Account,
    address: SocketAddr,
    /// What the host calls itself: a claim, not a fact.
    asked_by: Option<String>,
    /// For the protocol; it opens nothing.
    name: String,
    /// The last part of the page's path: 122 random bits, good for one sign-in.
    id: SecretString,
    /// Sent with the page's forms, so that no other page can send them.
    form_token: SecretString,
    code: String,
    expires: Instant,
    state: watch::Sender<State>,
    wrong_passwords: AtomicU8,
}

impl Pending {
    pub(super) fn new(account: Account, address: SocketAddr, asked_by: Option<String>) -> Self {
        Self {
            account,
            address,
            asked_by,
            name: Uuid::new_v4().to_string(),
            id: secret::random(),
            form_token: secret::random(),
            code: code(),
            expires: Instant::now() + LIFETIME,
            state: watch::Sender::new(State::Open),
            wrong_passwords: AtomicU8::new(0),
        }
    }

    /// Where the person signs in. It carries no secret of theirs and gives access to nothing by itself.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}/{}", self.address, self.id.expose_secret())
    }

    /// Shown by the host and by the page, for the person to compare.
    #[must_use]
    pub fn code(&self) -> &str {
        &self.code
    }

    /// What the protocol calls it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    #[must_use]
    pub fn expires_in(&self) -> Duration {
        self.expires.saturating_duration_since(Instant::now())
    }

    #[must_use]
    pub fn state(&self) -> State {
        self.state.borrow().clone()
    }

    /// Whether the person can still use the page.
    #[must_use]
    pub fn is_open(&self) -> bool {
        matches!(*self.state.borrow(), State::Open | State::Verifying { .. }) && !self.expires_in().is_zero()
    }

    /// Waits for the end, at most so long; how it stands then.
    pub async fn finished(&self, at_most: Duration) -> State {
        let _ = tokio::time::timeout(at_most, self.ended()).await;
        self.state()
    }

    pub(super) async fn ended(&self) {
        let over = |state: &State| matches!(state, State::SignedIn { .. } | State::Ended(_));
        // The sender lives as long as `self`, so waiting cannot fail.
        let _ = self.state.subscribe().wait_for(over).await;
    }

    /// Ends it without anybody signing in, unless it has ended.
    pub fn end(&self, end: End) {
        self.state.send_if_modified(|state| {
            let open = matches!(state, State::Open | State::Verifying { .. });
            if open {
                *state = State::Ended(end);
            }
            open
        });
    }

    pub(super) fn is_path(&self, given: &str) -> bool {
        secret::same(&given.into(), &self.id)
    }

    pub(super) fn is_form_token(&self, given: &SecretString) -> bool {
        secret::same(given, &self.form_token)
    }

    pub(super) fn path(&self) -> &str {
        self.id.expose_secret()
    }

    pub(super) fn form_token(&self) -> &str {
        self.form_token.expose_secret()
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(super) fn asked_by(&self) -> Option<&str> {
        self.asked_by.as_deref()
    }

    pub(super) fn upstream(&self) -> &BaseUrl {
        self.account.upstream()
    }

    pub(super) fn profile(&self) -> &str {
        self.account.profile()
    }

    pub(super) async fn sign_in(
        &self,
        email: &str,
        password: SecretString,
        remember: bool,
    ) -> Result<(), Report> {
        match self.account.sign_in(email, password, remember).await {
            Ok(status) => {
                self.state.send_replace(State::SignedIn { email: status.email });
                Ok(())
            }
            Err(error) => Err(self.refused(&error)),
        }
    }

    /// Makes an account; from then on it is tried now and then whether its address is verified.
    pub(super) async fn create(
        self: &std::sync::Arc<Self>,
        email: String,
        password: SecretString,
        remember: bool,
    ) -> Result<(), Report> {
        self.account.register(&email, &password).await.map_err(|error| Report::from(&error))?;
        self.state.send_replace(State::Verifying { email: email.clone() });
        let pending = std::sync::Arc::clone(self);
        tokio::spawn(async move {
            while pending.is_open() {
                tokio::select! {
                    () = pending.ended() => return,
                    () = tokio::time::sleep(VERIFICATION_POLL) => {}
                }
                if let Ok(status) = pending.account.sign_in(&email, password.clone(), remember).await {
                    pending.state.send_replace(State::SignedIn { email: status.email });
                }
            }
        });
        Ok(())
    }

    pub(super) async fn use_key(&self, key: SecretString) -> Result<(), Report> {
        match self.account.use_own_key(key).await {
            Ok(()) => {
                self.state.send_replace(State::SignedIn { email: None });
                Ok(())
            }
            Err(error) => Err(self.refused(&error)),
        }
    }

    fn refused(&self, error: &Error) -> Report {
        if matches!(error, Error::Upstream(error) if bondmcp::Error::is_unauthorized(error))
            && self.wrong_passwords.fetch_add(1, Ordering::SeqCst) + 1 >= ATTEMPTS
        {
            self.end(End::TooManyAttempts);
        }
        Report::from(error)
    }
}

/// Two groups of three letters: enough to compare at a glance.
fn code() -> String {
    let random = Uuid::new_v4().into_bytes();
    let letters: String = random
        .iter()
        .take(6)
        .map(|byte| char::from(CODE_LETTERS[usize::from(*byte) % CODE_LETTERS.len()]))
        .collect();
    format!("{}-{}", &letters[..3], &letters[3..])
}
