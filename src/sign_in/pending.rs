//! A pending sign-in as those see it who wait for it: its link, the code that the person compares, and how it stands.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::{sync::watch, time::Instant};
use uuid::Uuid;

use crate::secret::{ExposeSecret as _, SecretString};

/// Letters and digits that are not mistaken for each other.
const CODE_LETTERS: &[u8] = b"ACDEFHJKLMNPRTUVWXY3479";

/// How a sign-in stands.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub enum End {
    Declined,
    TimedOut,
    TooManyAttempts,
    /// The process that showed the page.
    Gone,
}

impl State {
    /// Whether it can still come to something.
    #[must_use]
    pub fn is_open(&self) -> bool {
        matches!(self, Self::Open | Self::Verifying { .. })
    }
}

/// A sign-in that somebody waits for.
#[derive(Debug)]
pub struct Pending {
    /// For the protocol; it opens nothing.
    name: String,
    url: SecretString,
    code: String,
    expires: Instant,
    state: watch::Sender<State>,
    /// Whether the browser was opened, or is another process's business.
    shown: AtomicBool,
}

impl Pending {
    pub(super) fn new(url: SecretString, lifetime: Duration) -> Self {
        Self {
            shown: AtomicBool::new(false),
            ..Self::elsewhere(Uuid::new_v4().to_string(), url, code(), lifetime)
        }
    }

    /// One whose page another process shows.
    pub(super) fn elsewhere(name: String, url: SecretString, code: String, lifetime: Duration) -> Self {
        Self {
            name,
            url,
            code,
            expires: Instant::now() + lifetime,
            state: watch::Sender::new(State::Open),
            shown: AtomicBool::new(true),
        }
    }

    /// Where the person signs in. It carries no secret of theirs and gives access to nothing by itself.
    #[must_use]
    pub fn url(&self) -> &str {
        self.url.expose_secret()
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
        self.state.borrow().is_open() && !self.expires_in().is_zero()
    }

    /// Waits for the end, at most so long; how it stands then.
    pub async fn finished(&self, at_most: Duration) -> State {
        let _ = tokio::time::timeout(at_most, self.ended()).await;
        self.state()
    }

    pub(super) async fn ended(&self) {
        // The sender lives as long as `self`, so waiting cannot fail.
        let _ = self.changes().wait_for(|state| !state.is_open()).await;
    }

    /// Ends it without anybody signing in, unless it has ended.
    pub fn end(&self, end: End) {
        self.becomes(State::Ended(end));
    }

    /// Whether this is the first time that somebody wants to open the browser.
    pub(super) fn is_first_look(&self) -> bool {
        !self.shown.swap(true, Ordering::SeqCst)
    }

    pub(super) fn changes(&self) -> watch::Receiver<State> {
        self.state.subscribe()
    }

    /// What has ended stays as it is, unless somebody has signed in after all.
    pub(super) fn becomes(&self, new: State) {
        self.state.send_if_modified(|state| {
            let counts = state.is_open() || matches!(new, State::SignedIn { .. });
            let changes = counts && *state != new;
            if changes {
                *state = new;
            }
            changes
        });
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
