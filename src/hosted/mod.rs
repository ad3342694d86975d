//! The pages and the grants of a hosted server: signing in, consent, connections; and the API key at BondMCP that each
//! grant has. Everything that outlives a request is in the vault, so that every replica answers every request.

mod audit;
mod authorize;
mod browser;
mod connections;
mod ending;
mod grants;
mod page;
mod person;
mod sign_in_page;
mod trace;

use std::sync::Arc;

use axum::Router;

pub use self::{
    browser::Browsers,
    trace::{Trace, TraceStep, Traces},
};
use crate::{
    account::{Accounts, Usd},
    config::PublicOrigin,
    oauth::{AuthorizationServer, Records},
};

/// The operator's settings.
#[derive(Clone, Debug)]
pub struct Settings {
    pub origin: PublicOrigin,
    /// Suggested on the consent page.
    pub default_daily_spend: Usd,
}

/// The hosted server without its transport. Clones share everything.
#[derive(Clone, Debug)]
pub struct Hosted {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    settings: Settings,
    server: AuthorizationServer,
    accounts: Accounts,
    browsers: Browsers,
    traces: Traces,
}

impl Hosted {
    #[must_use]
    pub fn new(server: AuthorizationServer, accounts: Accounts, settings: Settings) -> Self {
        let records: &Records = server.records();
        let browsers = Browsers::new(records.clone(), accounts.authenticator());
        let traces = Traces::new(records.clone(), server.clock().clone());
        Self { inner: Arc::new(Inner { settings, server, accounts, browsers, traces }) }
    }

    #[must_use]
    pub fn authorization_server(&self) -> &AuthorizationServer {
        &self.inner.server
    }

    #[must_use]
    pub fn traces(&self) -> &Traces {
        &self.inner.traces
    }

    /// Returns the routes of the pages: `/authorize`, `/sign-in`, `/connections`.
    pub fn router(&self) -> Router {
        Router::new()
            .merge(self.authorize_routes())
            .merge(self.sign_in_routes())
            .merge(self.connections_routes())
    }
}
