//! OAuth clients: identified by a metadata document, registered dynamically, or added by the operator.

mod address;
mod assertion;
mod authentication;
mod cache;
mod document;
mod fetch;
mod freshness;
mod jwks;
mod redirect_uri;
mod registered;
mod registration;
#[cfg(test)]
pub(super) mod testing;

use std::sync::Arc;

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use url::Url;

pub use self::fetch::Network;
pub(crate) use self::redirect_uri::LOOPBACK_HOSTS;
use self::{
    cache::{Cache, Hosts},
    document::ClientDocument,
    fetch::Asker,
    jwks::KeySet,
    registered::{Registered, SecretHash},
    registration::Registrations,
};
use super::{Endpoints, OAuthError, server_keys::ServerKeys};
use crate::{
    clock::{Clock, Timestamp},
    secret::SecretString,
    text,
    vault::{self, Records},
};

/// A client, as an authorization request keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Client {
    pub id: String,
    pub kind: ClientKind,
    /// The name that the client claims; cleaned for display, not verified.
    pub name: Option<String>,
    pub redirect_uris: Vec<String>,
}

/// How a client is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ClientKind {
    /// By a metadata document at its id, whose host is a fact.
    Document,
    /// By dynamic registration (RFC 7591): everything about it is a claim.
    Dynamic,
    /// Added by the operator.
    Registered,
}

/// The clients of the server.
#[derive(Debug)]
pub struct Clients {
    records: Records,
    registered: Registered,
    registrations: Registrations,
    documents: Arc<Cache<ClientDocument>>,
    key_sets: Arc<Cache<KeySet>>,
    issuer: String,
    token_endpoint: String,
    clock: Clock,
}

/// A client that the operator adds.
#[derive(Clone, Debug)]
pub struct NewClient {
    pub name: String,
    pub redirect_uris: Vec<String>,
    /// Whether it gets a secret.
    pub is_confidential: bool,
}

/// A client that the operator has added. Its secret is shown once.
#[derive(Debug)]
pub struct AddedClient {
    pub client: Client,
    pub secret: Option<SecretString>,
    pub created_at: Timestamp,
}

/// Why a client is not usable. The texts are our own.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    /// There is no such client.
    #[error("{0}")]
    Unknown(&'static str),
    /// Its document could not be fetched, or is not sound.
    #[error("{0}")]
    Document(&'static str),
    /// It cannot be added like this.
    #[error("{0}")]
    Invalid(&'static str),
    #[error(transparent)]
    Store(#[from] vault::Error),
}

/// A client, with what it is authenticated by.
struct Known {
    client: Client,
    authentication: Authentication,
}

/// What authenticates a client.
enum Authentication {
    /// Nothing: it is public.
    None,
    /// A secret.
    Secret(SecretHash),
    /// What its metadata document says.
    Document(Arc<ClientDocument>),
}

impl Clients {
    #[must_use]
    pub fn new(
        records: Records,
        keys: &ServerKeys,
        endpoints: &Endpoints,
        network: Network,
        clock: Clock,
    ) -> Self {
        let hosts = Arc::new(Hosts::new());
        Self {
            registered: Registered::new(records.clone()),
            records,
            registrations: Registrations::new(keys),
            documents: Cache::new(network.clone(), hosts.clone(), clock.clone()).into(),
            key_sets: Cache::new(network, hosts, clock.clone()).into(),
            issuer: endpoints.issuer().to_owned(),
            token_endpoint: endpoints.token(),
            clock,
        }
    }

    /// Finds a client by its id, for anybody. `redirect_uri` is the one of the request: a document that is known without it is
    /// fetched again.
    pub async fn find(&self, id: &str, redirect_uri: Option<&str>) -> Result<Client, ClientError> {
        let suffices =
            |document: &ClientDocument| redirect_uri.is_none_or(|uri| document.allows_redirect(uri));
        Ok(self.known(id, Asker::Anybody, suffices).await?.client)
    }

    /// Finds a client. A document that is known but does not suffice is fetched again.
    async fn known(
        &self,
        id: &str,
        asker: Asker,
        suffices: impl Fn(&ClientDocument) -> bool,
    ) -> Result<Known, ClientError> {
        const UNKNOWN: ClientError = ClientError::Unknown(
            "This app is not known here. Remove the connection in the app that you came from, and add it again.",
        );

        if id.starts_with(registration::PREFIX) {
            let client = self.registrations.client(id).ok_or(UNKNOWN)?;
            return Ok(Known { client, authentication: Authentication::None });
        }
        if id.starts_with("https:") {
            let url = document::client_id_url(id).ok_or(UNKNOWN)?;
            // This server has no such document; looking there would make it ask itself.
            if url.origin().ascii_serialization() == self.issuer {
                return Err(UNKNOWN);
            }
            let found = self.documents.get(&url, asker, suffices).await;
            let found = found.map_err(|error| {
                tracing::info!(?error, "the metadata document of a client cannot be used");
                ClientError::Document(document::message(error))
            })?;
            return Ok(Known { client: found.client(id), authentication: Authentication::Document(found) });
        }
        let (client, secret) = self.registered.client(id).await?.ok_or(UNKNOWN)?;
        Ok(Known { client, authentication: secret.map_or(Authentication::None, Authentication::Secret) })
    }

    /// Registers a client dynamically (RFC 7591); returns the answer's body. Nothing is stored: the id is the sealed
    /// registration.
    pub fn register(&self, body: &[u8]) -> Result<serde_json::Value, OAuthError> {
        self.registrations.register(body, self.clock.now())
    }

    /// Adds a client for an operator.
    pub async fn add(&self, new: NewClient) -> Result<AddedClient, ClientError> {
        self.registered.add(new, &self.clock).await
    }

    /// Returns the clients that operators have added, the oldest first, with the time of their addition.
    pub async fn registered(&self) -> Result<Vec<(Client, Timestamp)>, vault::Error> {
        self.registered.all().await
    }

    /// Removes a client that an operator has added; `false` if there is none.
    pub async fn remove(&self, id: &str) -> Result<bool, vault::Error> {
        self.registered.remove(id).await
    }
}

impl ClientKind {
    /// Returns the host, with a port that is not the default one, whose document names the client with this id: a fact, unlike
    /// its name.
    #[must_use]
    pub fn verified_host(self, id: &str) -> Option<String> {
        let id = Url::parse(id).ok().filter(|_| self == Self::Document)?;
        let host = id.host_str()?;
        Some(id.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}")))
    }
}

impl Client {
    /// Whether the client may be answered at `redirect_uri`.
    #[must_use]
    pub fn allows_redirect(&self, redirect_uri: &str) -> bool {
        self.redirect_uris.iter().any(|registered| redirect_uri::matches(registered, redirect_uri))
    }
}

/// Reads client metadata, which is a JSON object (RFC 7591, section 2).
fn metadata<T: DeserializeOwned>(body: &[u8]) -> Option<T> {
    // A structure could be read from an array, too.
    let is_object = body.trim_ascii_start().starts_with(b"{");
    is_object.then(|| serde_json::from_slice(body).ok()).flatten()
}

/// Returns the name that a client claims, made safe to display; `None` if nothing of it is left.
fn display_name(claimed: &str) -> Option<String> {
    let name = text::excerpt(claimed.trim(), text::MAX_NAME_CHARS);
    (!name.trim().is_empty()).then_some(name)
}
