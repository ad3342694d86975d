//! The upstream client, with one function per endpoint of the BondMCP API. It depends on neither the account, the vault
//! nor MCP. It registers every secret that it sends or receives with the redactor, so that echoes are recognised.

mod api_keys;
mod auth;
mod certificate;
mod circuit_breaker;
mod connection;
mod error;
mod exchange;
mod forward;
mod health;
mod models;
mod probe;
mod proxy;
mod quotable;
mod rate_limiter;
mod refusal;
pub mod wire;

pub use self::{
    certificate::Certificate,
    circuit_breaker::Open,
    connection::{BreakCause, ConnectFailure, SetupError},
    error::{Error, POSSIBLY_BILLED},
    exchange::{Sent, Timing},
    forward::Forwarded,
    probe::{Answer, Handshake, ProxyRoute, Route, Stream},
    rate_limiter::Allowance,
    refusal::Refusal,
};

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;
use rustls::ClientConfig;
use tokio::{
    runtime::{self, Handle},
    sync::OnceCell,
};

use self::{circuit_breaker::CircuitBreaker, rate_limiter::RateLimiter};
use crate::{clock::Clock, config::BaseUrl, redact::Redactor};

/// Stands for whoever is not known yet.
const STRANGERS: &str = "strangers";

/// A client of one upstream, for one owner. Clones share everything; the clients of all owners share the connections.
#[derive(Clone, Debug)]
pub struct Client {
    shared: Arc<Shared>,
    redactor: Redactor,
    rate_limiter: Arc<RateLimiter>,
    circuit_breaker: Arc<CircuitBreaker>,
}

#[derive(Debug)]
struct Shared {
    /// One for each runtime, whose thread serves its connections. Created when first needed.
    http: Mutex<HashMap<runtime::Id, reqwest::Client>>,
    /// Made when first needed: a start without a request does not read the system's certificates.
    tls: OnceCell<Option<ClientConfig>>,
    base_url: BaseUrl,
    /// The process-wide redactor, for the secrets of the connections.
    redactor: Redactor,
    clock: Clock,
    timing: Timing,
}

impl Client {
    /// Makes a client with the process-wide redactor.
    #[must_use]
    pub fn new(base_url: BaseUrl, redactor: Redactor, clock: Clock, timing: Timing) -> Self {
        let (http, tls, rate_limiter) = Default::default();
        let circuit_breaker = Arc::new(CircuitBreaker::new(timing.open_for));
        let shared = Arc::new(Shared { http, tls, base_url, redactor: redactor.clone(), clock, timing });
        Self { shared, redactor, rate_limiter, circuit_breaker }
    }

    /// Makes the client of one owner, with that owner's redactor. It has a rate limit and a circuit of its own;
    /// connections are shared, and so is the circuit that failures for several persons open.
    #[must_use]
    pub fn for_owner(&self, redactor: Redactor, person: &str) -> Self {
        Self {
            shared: self.shared.clone(),
            redactor,
            rate_limiter: Arc::default(),
            circuit_breaker: Arc::new(self.circuit_breaker.for_owner(person)),
        }
    }

    /// Makes the client of a further person who is not known yet: it knows no secret of others, and has limits of its own.
    /// The failures for all strangers count as one's, since each of them may be the same person.
    #[must_use]
    pub fn for_stranger(&self) -> Self {
        self.for_owner(self.redactor.scope_among_many(), STRANGERS)
    }

    async fn http(&self) -> Result<reqwest::Client, Error> {
        let Shared { http, tls, base_url, timing, .. } = &*self.shared;
        let runtime = Handle::current().id();
        if let Some(http) = http.lock().get(&runtime) {
            return Ok(http.clone());
        }
        let tls = tls.get_or_try_init(|| self.tls()).await?;
        let made = connection::http_client(base_url, *timing, tls.clone())?;
        Ok(http.lock().entry(runtime).or_insert(made).clone())
    }

    async fn tls(&self) -> Result<Option<ClientConfig>, SetupError> {
        let base_url = self.shared.base_url.clone();
        let proxy = proxy::Proxy::of(&base_url);
        self.shared.redactor.hold("proxy", &proxy.and_then(|proxy| proxy.password()));
        let made = tokio::task::spawn_blocking(move || connection::tls_config_for(&base_url)).await;
        made.unwrap_or(Err(SetupError::Client))
    }

    /// Returns the base URL that requests go to.
    #[must_use]
    pub fn base_url(&self) -> &BaseUrl {
        &self.shared.base_url
    }

    /// Returns the owner's rate limit from the upstream's latest headers.
    #[must_use]
    pub fn allowance(&self) -> Option<Allowance> {
        self.rate_limiter.allowance()
    }

    /// Resets the rate limit, for another account.
    pub fn reset_rate_limit(&self) {
        self.rate_limiter.reset();
    }
}
