//! A pending sign-in for those who wait for it: its link, the code that the person compares, and its state.

use std::{
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::{sync::watch, time::Instant};
use uuid::Uuid;

use crate::{
    account::RequiredCredential,
    secret::{ExposeSecret as _, SecretString},
};

/// Letters and digits that are not easily confused.
const CODE_LETTERS: &[u8] = b"ACDEFHJKLMNPRTUVWXY3479";

/// The state of a sign-in.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub enum State {
    /// The sign-in is pending, whether or not the page was opened.
    Open,
    /// The account is created; its e-mail address is not verified yet.
    Verifying {
        email: String,
    },
    /// Done; `email` is the account, `None` with an API key alone.
    SignedIn {
        email: Option<String>,
    },
    Ended(End),
}

/// The reasons why a sign-in ended without success.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub enum End {
    TimedOut,
    TooManyAttempts,
    /// The process that served the page has ended.
    Gone,
}

impl State {
    /// Whether the sign-in is still pending.
    #[must_use]
    pub fn is_open(&self) -> bool {
        matches!(self, Self::Open | Self::Verifying { .. })
    }
}

/// A pending sign-in.
#[derive(Debug)]
pub struct Pending {
    /// Identifier in the protocol; it gives no access to the page.
    name: String,
    url: SecretString,
    /// Whether the page is on the internet rather than on the person's own computer.
    is_public: bool,
    code: String,
    expires: Instant,
    state: watch::Sender<State>,
    /// Whether a caller needs a session, so that an API key is not sufficient.
    needs_session: AtomicBool,
    /// Number of calls that wait for the end and then continue.
    waiting_calls: AtomicUsize,
    /// Whether a call was waiting when the person signed in.
    call_continues: AtomicBool,
}

/// A call that waits for the sign-in and continues by itself as soon as the person has signed in. The call waits until
/// this is dropped.
#[derive(Debug)]
pub struct WaitingCall<'a>(&'a Pending);

impl Drop for WaitingCall<'_> {
    fn drop(&mut self) {
        self.0.waiting_calls.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Pending {
    /// Creates a sign-in whose page this process serves on loopback.
    pub(super) fn new(url: SecretString, lifetime: Duration, need: RequiredCredential) -> Self {
        Self::elsewhere(Uuid::new_v4().to_string(), (url, false), code(), lifetime, need)
    }

    /// Creates a sign-in whose page another process serves, or every process of a hosted server.
    pub(super) fn elsewhere(
        name: String,
        (url, is_public): (SecretString, bool),
        code: String,
        lifetime: Duration,
        need: RequiredCredential,
    ) -> Self {
        Self {
            name,
            url,
            is_public,
            code,
            expires: Instant::now() + lifetime,
            state: watch::Sender::new(State::Open),
            needs_session: AtomicBool::new(need == RequiredCredential::Session),
            waiting_calls: AtomicUsize::new(0),
            call_continues: AtomicBool::new(false),
        }
    }

    /// Returns the link to the page. It contains none of the person's secrets and gives no access by itself.
    #[must_use]
    pub fn url(&self) -> &str {
        self.url.expose_secret()
    }

    /// Whether the page is on the internet rather than on the person's own computer.
    #[must_use]
    pub fn is_public(&self) -> bool {
        self.is_public
    }

    /// Returns the code that host and page show for the person to compare.
    #[must_use]
    pub fn code(&self) -> &str {
        &self.code
    }

    /// Returns the identifier in the protocol.
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
        self.state.borrow().is_open() && !self.expires_in().is_zero()
    }

    /// Waits for the end, at most `at_most`; returns the state.
    pub async fn finished(&self, at_most: Duration) -> State {
        let _ = tokio::time::timeout(at_most, self.ended()).await;
        self.state()
    }

    /// Registers a call that waits for the end and then continues without the person, so that the page can say so. A
    /// call that only passes the link on is not registered: the person tells the assistant that they have signed in.
    #[must_use]
    pub fn waiting_call(&self) -> WaitingCall<'_> {
        self.waiting_calls.fetch_add(1, Ordering::SeqCst);
        WaitingCall(self)
    }

    /// Whether a call of this process was waiting when the person signed in.
    pub(super) fn call_continues(&self) -> bool {
        self.call_continues.load(Ordering::SeqCst)
    }

    pub(super) async fn ended(&self) {
        // The sender lives as long as `self`, so waiting cannot fail.
        let _ = self.changes().wait_for(|state| !state.is_open()).await;
    }

    /// Adds a caller that is about to give the link to the person; `false` if the sign-in has ended.
    pub(super) fn join(&self, need: RequiredCredential) -> bool {
        let joined = self.is_open();
        if joined && need == RequiredCredential::Session {
            self.needs_session.store(true, Ordering::SeqCst);
        }
        joined
    }

    /// Whether a caller needs a session rather than an API key.
    pub(super) fn needs_session(&self) -> bool {
        self.needs_session.load(Ordering::SeqCst)
    }

    /// Ends the sign-in without success, unless it has ended.
    pub fn end(&self, end: End) {
        self.set_state(State::Ended(end));
    }

    pub(super) fn changes(&self) -> watch::Receiver<State> {
        self.state.subscribe()
    }

    /// An end is final, unless the person has signed in after all.
    pub(super) fn set_state(&self, new: State) {
        self.state.send_if_modified(|state| {
            let is_signed_in = matches!(new, State::SignedIn { .. });
            let counts = state.is_open() || is_signed_in;
            let changes = counts && *state != new;
            if changes {
                // Those who wait have not learnt of the change yet.
                let is_awaited = self.waiting_calls.load(Ordering::SeqCst) > 0;
                self.call_continues.store(is_signed_in && is_awaited, Ordering::SeqCst);
                *state = new;
            }
            changes
        });
    }
}

/// Generates two groups of three letters, which can be compared at a glance.
pub(super) fn code() -> String {
    let random = Uuid::new_v4().into_bytes();
    let letters: String = random
        .iter()
        .take(6)
        .map(|byte| char::from(CODE_LETTERS[usize::from(*byte) % CODE_LETTERS.len()]))
        .collect();
    format!("{}-{}", &letters[..3], &letters[3..])
}
