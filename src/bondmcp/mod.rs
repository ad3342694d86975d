//! The upstream client: one function an endpoint of the BondMCP API. It knows no account, no vault and no MCP, and it
//! tells the redactor of every secret that passes, so that whatever the upstream echoes is recognised.

mod api_keys;
mod auth;
mod circuit_breaker;
mod connection;
mod error;
mod exchange;
mod health;
mod models;
mod rate_limiter;
pub mod wire;

pub use self::{
    circuit_breaker::Open,
    connection::{ConnectFailure, SetupError},
    error::{Error, POSSIBLY_BILLED, Refusal},
    exchange::{Sent, Timing},
    rate_limiter::Allowance,
};

use std::sync::Arc;

use tokio::sync::OnceCell;

use self::{circuit_breaker::CircuitBreaker, rate_limiter::RateLimiter};
use crate::{clock::Clock, config::BaseUrl, redact::Redactor};

/// Talks to one upstream. Clones share its connections.
#[derive(Clone, Debug)]
pub struct Client {
    /// Made when it is first needed: a start without a request does not read the system's certificates.
    http: Arc<OnceCell<reqwest::Client>>,
    base_url: BaseUrl,
    redactor: Redactor,
    clock: Clock,
    timing: Timing,
    rate_limiter: Arc<RateLimiter>,
    circuit_breaker: Arc<CircuitBreaker>,
}

impl Client {
    #[must_use]
    pub fn new(base_url: BaseUrl, redactor: Redactor, clock: Clock, timing: Timing) -> Self {
        let (http, rate_limiter) = Default::default();
        let circuit_breaker = Arc::new(CircuitBreaker::new(timing.open_for));
        Self { http, base_url, redactor, clock, timing, rate_limiter, circuit_breaker }
    }

    async fn http(&self) -> Result<&reqwest::Client, Error> {
        let make = || async {
            let (base_url, timing) = (self.base_url.clone(), self.timing);
            let made = tokio::task::spawn_blocking(move || connection::http_client(&base_url, timing)).await;
            made.unwrap_or(Err(SetupError::Client))
        };
        Ok(self.http.get_or_try_init(make).await?)
    }

    /// The base URL that requests go to.
    #[must_use]
    pub fn base_url(&self) -> &BaseUrl {
        &self.base_url
    }

    /// The account's rate limit, as the upstream's headers last said.
    #[must_use]
    pub fn allowance(&self) -> Option<Allowance> {
        self.rate_limiter.allowance()
    }

    /// Forgets the rate limit, which is another account's from now on.
    pub fn forget_allowance(&self) {
        self.rate_limiter.reset();
    }
}
