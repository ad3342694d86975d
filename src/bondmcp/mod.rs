//! The upstream client: one function an endpoint of the BondMCP API. It knows no account, no vault and no MCP, and it
//! tells the redactor of every secret that passes, so that whatever the upstream echoes is recognised.

mod api_keys;
mod auth;
mod budget;
mod circuit;
mod connection;
mod error;
mod exchange;
mod health;
mod models;
pub mod wire;

pub use self::{
    budget::Allowance,
    circuit::Open,
    connection::{ConnectFailure, SetupError},
    error::{Error, POSSIBLY_BILLED, Refusal},
    exchange::Timing,
};

use std::sync::Arc;

use tokio::sync::OnceCell;

use self::{budget::Budget, circuit::Circuit};
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
    budget: Arc<Budget>,
    circuit: Arc<Circuit>,
}

impl Client {
    #[must_use]
    pub fn new(base_url: BaseUrl, redactor: Redactor, clock: Clock, timing: Timing) -> Self {
        let (http, budget, circuit) = (Arc::default(), Arc::default(), Arc::new(Circuit::new(timing.pause)));
        Self { http, base_url, redactor, clock, timing, budget, circuit }
    }

    async fn http(&self) -> Result<&reqwest::Client, Error> {
        let make = || async {
            let (base_url, timing) = (self.base_url.clone(), self.timing);
            let made = tokio::task::spawn_blocking(move || connection::http_client(&base_url, timing)).await;
            made.unwrap_or(Err(SetupError::Client))
        };
        Ok(self.http.get_or_try_init(make).await?)
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
