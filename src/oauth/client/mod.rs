//! OAuth clients: identified by a metadata document, registered dynamically, or added by the operator.

use serde::{Deserialize, Serialize};

use super::{Endpoints, OAuthError, records::Records};
use crate::{
    clock::{Clock, Timestamp},
    secret::SecretString,
    vault,
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
pub struct Clients {}

/// How documents of clients are fetched: from public addresses, or, for tests, from anywhere.
#[derive(Clone, Debug)]
pub struct Network {}

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

/// Why a client is not usable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientError {
    /// There is no such client. The text is our own.
    Unknown(&'static str),
    /// Its document could not be fetched, or is not sound. The text is our own.
    Document(&'static str),
    Store(vault::Error),
}

impl Network {
    /// Public addresses only.
    #[must_use]
    pub fn public() -> Self {
        todo!()
    }
}

impl Clients {
    pub fn new(records: Records, endpoints: &Endpoints, network: Network, clock: Clock) -> Self {
        todo!("{records:?} {endpoints:?} {network:?} {clock:?}")
    }

    /// Finds a client by its id. `redirect_uri` is the one of the request: a document that is known without it is
    /// fetched again.
    pub async fn find(&self, id: &str, redirect_uri: Option<&str>) -> Result<Client, ClientError> {
        todo!("{id} {redirect_uri:?}")
    }

    /// Registers a client dynamically (RFC 7591); returns the answer's body. Nothing is stored: the id is the sealed
    /// registration.
    pub fn register(&self, body: &[u8]) -> Result<serde_json::Value, OAuthError> {
        todo!("{body:?}")
    }

    /// Authenticates the client of a request to `/token` or `/revoke` (RFC 6749, section 2.3; RFC 7523). `form` are the
    /// decoded parameters.
    pub async fn authenticate(
        &self,
        authorization: Option<&str>,
        form: &[(String, SecretString)],
    ) -> Result<Client, OAuthError> {
        todo!("{authorization:?} {form:?}")
    }

    /// Adds a client for an operator.
    pub async fn add(&self, new: NewClient) -> Result<AddedClient, ClientError> {
        todo!("{new:?}")
    }

    /// Returns the clients that operators have added, with the time of their addition.
    pub async fn registered(&self) -> Result<Vec<(Client, Timestamp)>, vault::Error> {
        todo!()
    }

    /// Removes a client that an operator has added; `false` if there is none.
    pub async fn remove(&self, id: &str) -> Result<bool, vault::Error> {
        todo!("{id}")
    }
}

impl Client {
    /// Whether the client may be answered at `redirect_uri`.
    #[must_use]
    pub fn allows_redirect(&self, redirect_uri: &str) -> bool {
        todo!("{redirect_uri}")
    }
}
