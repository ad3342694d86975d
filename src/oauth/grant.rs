//! Grants: what a person has allowed a client. A grant has an account of its own, with its own API key and budget.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{AuthorizationRequest, AuthorizationServer, ClientKind, Scopes};
use crate::{account::Owner, clock::Timestamp, vault};

/// A person: an opaque id, the same for all grants of one BondMCP user.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Deserialize, Serialize)]
pub struct Subject(String);

/// The random id of a grant. It is no secret.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Deserialize, Serialize)]
pub struct GrantId(String);

/// What a person has allowed a client.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Grant {
    pub id: GrantId,
    pub subject: Subject,
    pub client_id: String,
    /// The name that the client claims; not verified.
    pub client_name: Option<String>,
    pub client_kind: ClientKind,
    /// Host of the redirect URI that was used, or its scheme.
    pub redirect_host: String,
    pub scopes: Scopes,
    /// Names the authorization in logs and on its pages.
    pub reference: String,
    pub created_at: Timestamp,
    /// When and why it ended; its API key is then to be revoked. The record is deleted once that is done.
    pub ended: Option<(Timestamp, EndReason)>,
}

/// Why a grant ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum EndReason {
    /// By the person, on the page of connections.
    Person,
    /// By the operator.
    Operator,
    /// By the client, at `/revoke`.
    Client,
    /// A code or a refresh token was used again (RFC 9700, section 4.14).
    Replay,
    /// The refresh token was not used for too long, or the grant is too old.
    Expired,
    /// BondMCP no longer accepts the key or the account.
    Refused,
}

impl Subject {
    #[must_use]
    pub fn new(id: String) -> Self {
        Self(id)
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl GrantId {
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Reads an id that somebody wrote, such as an operator or a form.
    #[must_use]
    pub fn given(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl fmt::Display for GrantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Grant {
    /// Returns the owner of the requests that are made under this grant.
    #[must_use]
    pub fn owner(&self) -> Owner {
        Owner::Subject(format!("{}.{}", self.subject.0, self.id.0))
    }
}

impl AuthorizationServer {
    /// Returns the subject of a BondMCP user: a keyed hash, whose random key is in the vault.
    pub async fn subject(&self, user_id: &str) -> Result<Subject, vault::Error> {
        todo!("{user_id}")
    }

    /// Stores a new grant. `scopes` are those that the person agreed to.
    pub async fn create_grant(
        &self,
        subject: &Subject,
        request: &AuthorizationRequest,
        scopes: Scopes,
    ) -> Result<Grant, vault::Error> {
        todo!("{subject:?} {request:?} {scopes:?}")
    }

    /// Returns the grant, ended or not.
    pub async fn grant(&self, id: &GrantId) -> Result<Option<Grant>, vault::Error> {
        todo!("{id:?}")
    }

    /// Returns the grants of a person, without those that have ended.
    pub async fn grants_of(&self, subject: &Subject) -> Result<Vec<Grant>, vault::Error> {
        todo!("{subject:?}")
    }

    /// Returns all grants, ended or not: for operators, and to revoke the keys of those that have ended.
    pub async fn all_grants(&self) -> Result<Vec<Grant>, vault::Error> {
        todo!()
    }

    /// Ends a grant: its tokens are refused at once by this process, and within 30 seconds by the others. Returns it if
    /// it had not ended yet.
    pub async fn end_grant(&self, id: &GrantId, reason: EndReason) -> Result<Option<Grant>, vault::Error> {
        todo!("{id:?} {reason:?}")
    }

    /// Deletes the record of an ended grant whose API key is revoked.
    pub async fn forget_grant(&self, grant: &Grant) -> Result<(), vault::Error> {
        todo!("{grant:?}")
    }
}
