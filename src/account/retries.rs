//! Storing what exists nowhere else, such as the value of a new key: while the vault cannot be used, it is tried again.

use std::time::Duration;

use tokio::time::Instant;

use super::Error;
use crate::vault;

/// How long it is tried again. PostgreSQL restarts in less, and another process's write to SQLite ends sooner.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Wait after the first failure, and the longest one.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const MAX_PAUSE: Duration = Duration::from_secs(2);

/// The attempts to store something.
#[derive(Debug)]
pub struct Retries {
    began: Instant,
    pause: Duration,
}

impl Retries {
    pub fn begin() -> Self {
        Self { began: Instant::now(), pause: FIRST_PAUSE }
    }

    /// Whether it is tried again after this failure.
    pub fn may_follow(&self, error: &Error) -> bool {
        matches!(error, Error::Vault(error) if may_pass(error)) && self.began.elapsed() < TIMEOUT
    }

    /// Waits before the next attempt, longer each time.
    pub async fn pause(&mut self) {
        tokio::time::sleep(self.pause).await;
        self.pause = (2 * self.pause).min(MAX_PAUSE);
    }
}

/// Whether the same write may succeed later.
fn may_pass(error: &vault::Error) -> bool {
    matches!(
        error,
        vault::Error::Database(_)
            | vault::Error::Keychain(_)
            | vault::Error::KeyChanged
            | vault::Error::Locked
            | vault::Error::Server(_)
    )
}
