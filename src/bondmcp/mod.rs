//! The upstream client: one function an endpoint of the BondMCP API. It knows no account, no vault and no MCP, and it
//! tells the redactor of every secret that passes, so that whatever the upstream echoes is recognised.

mod api_keys;
mod auth;
mod budget;
mod circuit;
mod error;
mod exchange;
mod health;
mod models;
pub mod wire;

pub use self::{
    budget::Allowance,
    error::{Error, POSSIBLY_BILLED, Refusal},
    exchange::Timing,
};

use std::sync::Arc;

use self::{budget::Budget, circuit::Circuit};
use crate::{clock::Clock, config::BaseUrl, redact::Redactor};

/// Talks to one upstream. Clones share its connections.
#[derive(Clone, Debug)]
pub struct Client {
    http: reqwest::Client,
    base_url: BaseUrl,
    redactor: Redactor,
    clock: Clock,
    timing: Timing,
    budget: Arc<Budget>,
    circuit: Arc<Circuit>,
}

/// The client could not be set up: the system's TLS certificates cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("the HTTP client cannot start; check the system's TLS certificates")]
pub struct SetupError(#[source] reqwest::Error);

impl Client {
    pub fn new(
        base_url: BaseUrl,
        redactor: Redactor,
        clock: Clock,
        timing: Timing,
    ) -> Result<Self, SetupError> {
        let mut http = reqwest::Client::builder()
            .user_agent(concat!(env!("CARGO_PKG_NAME"), "/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(timing.connect);
        if base_url.is_https() {
            http = http.https_only(true);
        } else {
            // Without TLS a proxy would read the credentials, and loopback needs none.
            http = http.no_proxy();
        }
        let http = http.build().map_err(SetupError)?;
        let (budget, circuit) = (Arc::default(), Arc::new(Circuit::new(timing.pause)));
        Ok(Self { http, base_url, redactor, clock, timing, budget, circuit })
    }

    /// Where requests go.
    #[must_use]
    pub fn base_url(&self) -> &BaseUrl {
        &self.base_url
    }

    /// The account's requests a minute, as the upstream told last.
    #[must_use]
    pub fn allowance(&self) -> Option<Allowance> {
        self.budget.allowance()
    }

    /// For another account, which has another budget.
    pub fn forget_allowance(&self) {
        self.budget.forget();
    }
}
