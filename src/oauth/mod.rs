//! The authorization server of a hosted server, without HTTP: clients, authorization requests, codes, grants, refresh
//! and access tokens, and the metadata. One file per artefact of a specification. Everything lives in the vault, so that
//! every replica answers every request; nothing is kept in memory but what can be read again.

mod access_token;
mod authorization_request;
mod challenge;
mod client;
mod code;
mod endpoints;
mod error;
mod family;
mod form;
mod grant;
mod grant_states;
mod metadata;
mod refresh_limit;
mod refresh_token;
mod revocation;
mod scope;
mod server_keys;
mod signing_keys;
mod token_request;
mod verified_tokens;

#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

pub(crate) use self::client::LOOPBACK_HOSTS;
pub use self::{
    access_token::{Access, AccessError},
    authorization_request::{AuthorizationRequest, RequestError},
    challenge::challenge,
    client::{AddedClient, Client, ClientError, ClientKind, Clients, Network, NewClient},
    endpoints::Endpoints,
    error::{AuthorizationErrorCode, OAuthError},
    grant::{CreateGrantError, EndReason, Grant, GrantId, MAX_GRANTS, Subject},
    scope::{Scope, Scopes},
    token_request::{Acceptance, TokenResponse},
};
use self::{
    grant_states::GrantStates, refresh_limit::RefreshLimit, server_keys::ServerKeys,
    signing_keys::SigningKeys, verified_tokens::VerifiedTokens,
};
use crate::{
    clock::Clock,
    config::PublicOrigin,
    vault::{self, Records, Vault},
};

/// The operator's settings.
#[derive(Clone, Debug)]
pub struct Settings {
    pub origin: PublicOrigin,
    /// Lifetime of an access token, at most a day.
    pub access_token_lifetime: Duration,
    /// A refresh token that is not used for so long ends.
    pub refresh_idle: Duration,
    /// A grant ends after so long, however often it is refreshed.
    pub refresh_absolute: Duration,
    /// Whether authorization responses name the issuer (RFC 9207), and the metadata says so.
    pub sends_iss: bool,
    /// The scopes that clients are offered: those that a served tool needs.
    pub scopes: Scopes,
}

impl Settings {
    #[must_use]
    pub fn new(origin: PublicOrigin) -> Self {
        Self {
            origin,
            access_token_lifetime: Duration::from_mins(15),
            refresh_idle: Duration::from_hours(30 * 24),
            refresh_absolute: Duration::from_hours(180 * 24),
            sends_iss: true,
            scopes: Scopes::all(),
        }
    }
}

/// The authorization server. Clones share everything.
#[derive(Clone, Debug)]
pub struct AuthorizationServer {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    settings: Settings,
    endpoints: Endpoints,
    records: Records,
    clients: Clients,
    server_keys: ServerKeys,
    signing_keys: SigningKeys,
    grant_states: GrantStates,
    verified_tokens: VerifiedTokens,
    refresh_limit: RefreshLimit,
    clock: Clock,
}

impl AuthorizationServer {
    /// Opens the server over `vault`; makes a signing key if there is none. `network` is how documents of clients are
    /// fetched.
    pub async fn open(
        vault: Vault,
        settings: Settings,
        network: Network,
        clock: Clock,
    ) -> Result<Self, vault::Error> {
        let records = Records::new(vault, settings.origin.to_string());
        let server_keys = ServerKeys::open(&records).await?;
        let signing_keys = SigningKeys::open(records.clone(), clock.clone()).await?;
        let (grant_states, verified_tokens) = (GrantStates::default(), VerifiedTokens::new());
        let endpoints = Endpoints::new(&settings.origin);
        let clients = Clients::new(records.clone(), &server_keys, &endpoints, network, clock.clone());
        let inner = Inner {
            settings,
            endpoints,
            records,
            clients,
            server_keys,
            signing_keys,
            grant_states,
            verified_tokens,
            refresh_limit: RefreshLimit::new(),
            clock,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    #[must_use]
    pub fn endpoints(&self) -> &Endpoints {
        &self.inner.endpoints
    }

    /// Returns the scopes that clients are offered.
    #[must_use]
    pub fn scopes(&self) -> Scopes {
        self.inner.settings.scopes
    }

    #[must_use]
    pub fn records(&self) -> &Records {
        &self.inner.records
    }

    #[must_use]
    pub fn clients(&self) -> &Clients {
        &self.inner.clients
    }

    #[must_use]
    pub fn clock(&self) -> &Clock {
        &self.inner.clock
    }
}
