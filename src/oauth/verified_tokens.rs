//! Access tokens whose signature was verified lately. Every request carries one, and to verify it costs more than the rest of
//! a call. What changes with time is not remembered: expiry, and whether the grant has ended, are checked each time.

use std::{sync::Arc, time::Duration};

use moka::sync::Cache;
use sha2::{Digest as _, Sha256};

use super::{Access, grant_states::GrantState};
use crate::secret::{ExposeSecret as _, SecretString};

/// Number of tokens that are remembered.
const CAPACITY: u64 = 50_000;

/// How long a token stays in memory that is not used.
const KEPT: Duration = Duration::from_mins(5);

/// The tokens, by their hashes.
#[derive(Debug)]
pub struct VerifiedTokens(Cache<[u8; 32], VerifiedToken>);

/// What a token allows, while its grant is live.
#[derive(Clone, Debug)]
pub struct VerifiedToken {
    pub access: Arc<Access>,
    pub grant: Arc<GrantState>,
}

impl VerifiedTokens {
    pub fn new() -> Self {
        Self(Cache::builder().max_capacity(CAPACITY).time_to_idle(KEPT).build())
    }

    /// Returns a token as it was verified; `verify` does that if the token is not known.
    pub async fn get_or<E, Verifying: Future<Output = Result<VerifiedToken, E>>>(
        &self,
        token: &SecretString,
        verify: impl FnOnce() -> Verifying,
    ) -> Result<VerifiedToken, E> {
        let hash = Sha256::digest(token.expose_secret()).into();
        if let Some(verified) = self.0.get(&hash) {
            return Ok(verified);
        }
        let verified = verify().await?;
        self.0.insert(hash, verified.clone());
        Ok(verified)
    }
}
