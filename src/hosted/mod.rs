//! The pages and the grants of a hosted server: signing in, consent, connections; and the API key at BondMCP that each
//! grant has. Everything that outlives a request is in the vault, so that every replica answers every request.

mod attempts;
mod audit;
mod authorize;
mod authorize_views;
mod browser;
mod connections;
mod consent;
mod ending;
mod grants;
mod pending;
mod person;
mod protect;
mod release;
mod sign_in_page;
mod sweep;
mod trace;
mod trouble;
mod upstream;

use std::sync::Arc;

use axum::{Router, middleware};

pub use self::{
    attempts::{Attempt, AttemptRefused, Attempts},
    audit::AUDITED_AS,
    browser::{Browser, Browsers},
    person::Person,
    release::Released,
    trace::{Trace, TraceStep, Traces},
};
use crate::{
    account::{Accounts, PerOwner, Usd},
    config::PublicOrigin,
    oauth::AuthorizationServer,
    sign_in::{Demo, public::PublicPages},
    vault::Records,
};

/// The operator's settings.
#[derive(Clone, Debug)]
pub struct Settings {
    pub origin: PublicOrigin,
    /// Suggested on the consent page.
    pub default_daily_spend: Usd,
    /// The most that the operator lets each app spend in a day, whatever the person allows.
    pub daily_spend: Option<Usd>,
    /// The embedded sandbox, if the operator chose it as the upstream.
    pub demo: Option<Demo>,
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
    sign_in_pages: PublicPages,
    browsers: Browsers,
    attempts: Attempts,
    traces: Traces,
    /// One per person, held while that person's pending revocations are carried out.
    settling: PerOwner<release::Turn>,
}

impl Hosted {
    #[must_use]
    pub fn new(server: AuthorizationServer, accounts: Accounts, settings: Settings) -> Self {
        let records: &Records = server.records();
        let demo = settings.demo.clone();
        let sign_in_pages =
            PublicPages::new(records.clone(), &settings.origin, accounts.authenticator(), demo);
        let browsers = Browsers::new(records.clone(), sign_in_pages.clone());
        let attempts = Attempts::new(records.clone(), server.clock().clone());
        let traces = Traces::new(records.clone(), server.clock().clone());
        let settling = PerOwner::default();
        let inner = Inner { settings, server, accounts, sign_in_pages, browsers, attempts, traces, settling };
        Self { inner: Arc::new(inner) }
    }

    /// Returns the sign-in pages, which the MCP server sends owners to as well.
    #[must_use]
    pub fn sign_in_pages(&self) -> &PublicPages {
        &self.inner.sign_in_pages
    }

    #[must_use]
    pub fn browsers(&self) -> &Browsers {
        &self.inner.browsers
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
            .layer(middleware::from_fn(protect::complete_forms))
    }
}
