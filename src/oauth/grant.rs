//! Grants: what a person has allowed a client. A grant has an account of its own, with its own API key and budget.

use std::{array, collections::HashSet, fmt, time::Duration};

use chrono::TimeDelta;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{AuthorizationRequest, AuthorizationServer, ClientKind, Scopes, server_keys::Purpose};
use crate::{
    account::Owner,
    clock::Timestamp,
    metrics,
    vault::{self, Next, RecordKind},
};

const GRANT: RecordKind = RecordKind::new("grant");
const PERSON: RecordKind = RecordKind::new("person");

/// Largest number of active grants of a person, so that pages can read all of them.
pub const MAX_GRANTS: usize = 100;

/// How long the record of a person without grants is kept. Were it deleted, its versions would begin anew, and a late change
/// by another replica would hit the next one.
const EMPTIED_FOR: Duration = Duration::from_hours(1);

/// A grant whose client has no tokens after so long never gets any: an authorization lasts ten minutes, and its code one
/// minute more.
const REDEEMED_WITHIN: TimeDelta = TimeDelta::minutes(15);

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

/// Why a grant is not made.
#[derive(Debug, thiserror::Error)]
pub enum CreateGrantError {
    #[error("the person has as many grants as one can have")]
    TooMany,
    #[error(transparent)]
    Store(#[from] vault::Error),
}

impl EndReason {
    /// Describes how a grant ended, for people.
    #[must_use]
    pub fn described(self) -> &'static str {
        match self {
            Self::Person => "ended by its owner",
            Self::Operator => "ended by an operator",
            Self::Client => "ended by its app",
            Self::Replay => "ended: a code or token was used again",
            Self::Expired => "ended: expired",
            Self::Refused => "ended: refused by BondMCP",
        }
    }

    /// Its name in metrics.
    fn name(self) -> &'static str {
        match self {
            Self::Person => "person",
            Self::Operator => "operator",
            Self::Client => "client",
            Self::Replay => "replay",
            Self::Expired => "expired",
            Self::Refused => "refused",
        }
    }
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
        Self::owner_of(&self.subject, &self.id)
    }

    /// Whether the client still has what it was allowed.
    pub(super) fn is_live_for(&self, client_id: &str) -> bool {
        self.ended.is_none() && self.client_id == client_id
    }

    pub(super) fn owner_of(subject: &Subject, id: &GrantId) -> Owner {
        Owner::Subject(format!("{}.{}", subject.0, id.0))
    }

    /// Returns the person and the grant that an owner stands for, if it is a grant's.
    pub(crate) fn ids_of(owner: &Owner) -> Option<(Subject, GrantId)> {
        let Owner::Subject(subject) = owner else { return None };
        let (person, grant) = subject.split_once('.')?;
        Some((Subject(person.to_owned()), GrantId(grant.to_owned())))
    }
}

/// The grants of a person.
#[derive(Debug, Default, Deserialize, Serialize)]
struct Person {
    grants: Vec<GrantId>,
}

impl Person {
    /// Whether there is no place for another grant, where those that are known to have `ended` take none.
    fn has_most_grants(&self, ended: &HashSet<GrantId>) -> bool {
        self.grants.iter().filter(|id| !ended.contains(id)).count() >= MAX_GRANTS
    }
}

impl AuthorizationServer {
    /// Returns the subject of a BondMCP user: half of an HMAC-SHA-256 (RFC 2104, section 5) whose random key is in the
    /// vault.
    #[must_use]
    pub fn subject(&self, user_id: &str) -> Subject {
        let hash = self.inner.server_keys.mac(Purpose::Subject, &[user_id.as_bytes()]);
        Subject(format!("{:032x}", u128::from_be_bytes(array::from_fn(|index| hash[index]))))
    }

    async fn person(&self, subject: &Subject) -> Result<Person, vault::Error> {
        let person = self.records().read::<Person>(PERSON, subject.as_str()).await?;
        Ok(person.map(|person| person.value).unwrap_or_default())
    }

    /// Returns the ids in the person's list whose grants have ended. Reads no grant while the list is so short that it does
    /// not matter. One that is not stored may be by now.
    async fn ended_grants(&self, person: &Person) -> Result<HashSet<GrantId>, vault::Error> {
        let mut ended = HashSet::new();
        if person.has_most_grants(&ended) {
            for id in &person.grants {
                if self.grant(id).await?.is_some_and(|grant| grant.ended.is_some()) {
                    ended.insert(id.clone());
                }
            }
        }
        Ok(ended)
    }

    /// Stores a new grant, unless the person has too many. `scopes` are those that the person agreed to.
    ///
    /// The list of the person's grants is written first, so that a crash leaves an id without a grant there, which only takes
    /// a place, and never a grant that the person does not see.
    pub async fn create_grant(
        &self,
        subject: &Subject,
        request: &AuthorizationRequest,
        scopes: Scopes,
    ) -> Result<Grant, CreateGrantError> {
        let grant = Grant {
            id: GrantId(Uuid::new_v4().simple().to_string()),
            subject: subject.clone(),
            client_id: request.client.id.clone(),
            client_name: request.client.name.clone(),
            client_kind: request.client.kind,
            redirect_host: request.redirect_host(),
            scopes,
            reference: request.reference.clone(),
            created_at: self.inner.clock.now(),
            ended: None,
        };
        let records = self.records();
        let ended = self.ended_grants(&self.person(subject).await?).await?;
        let add = |person: Option<Person>| {
            let mut person = person.unwrap_or_default();
            if person.has_most_grants(&ended) {
                return (Next::Keep, false);
            }
            person.grants.push(grant.id.clone());
            (Next::Write(person, None), true)
        };
        if !records.change(PERSON, subject.as_str(), add).await? {
            return Err(CreateGrantError::TooMany);
        }
        if let Err(error) = records.write(GRANT, grant.id.as_str(), None, &grant, None).await {
            // If it was written all the same, it ends as one that nobody uses.
            if let Err(error) = self.forget_grant(&grant).await {
                tracing::warn!(%error, "a grant that was not stored keeps its place");
            }
            return Err(error.into());
        }
        Ok(grant)
    }

    /// Returns the grant, ended or not.
    pub async fn grant(&self, id: &GrantId) -> Result<Option<Grant>, vault::Error> {
        Ok(self.records().read(GRANT, id.as_str()).await?.map(|found| found.value))
    }

    /// Returns the grant, unless it has ended.
    pub async fn live_grant(&self, id: &GrantId) -> Result<Option<Grant>, vault::Error> {
        Ok(self.grant(id).await?.filter(|grant| grant.ended.is_none()))
    }

    /// Returns the grants of a person, without those that have ended.
    pub async fn grants_of(&self, subject: &Subject) -> Result<Vec<Grant>, vault::Error> {
        let mut grants = Vec::new();
        for id in self.person(subject).await?.grants {
            let grant = self.live_grant(&id).await?;
            grants.extend(grant.filter(|grant| grant.subject == *subject));
        }
        Ok(grants)
    }

    /// Returns all grants, ended or not: for operators, and to revoke the keys of those that have ended.
    pub async fn all_grants(&self) -> Result<Vec<Grant>, vault::Error> {
        let grants = self.records().all::<Grant>(GRANT).await?;
        Ok(grants.into_iter().map(|(_, found)| found.value).collect())
    }

    /// Ends a grant: its tokens are refused at once by this process, and within 30 seconds by the others. Returns it if
    /// it had not ended yet.
    pub async fn end_grant(&self, id: &GrantId, reason: EndReason) -> Result<Option<Grant>, vault::Error> {
        let ended = Some((self.inner.clock.now(), reason));
        let end = |grant: Option<Grant>| {
            let owner = grant.as_ref().map(Grant::owner);
            match grant {
                Some(grant) if grant.ended.is_none() => {
                    let grant = Grant { ended, ..grant };
                    (Next::Write(grant.clone(), None), (owner, Some(grant)))
                }
                _ => (Next::Keep, (owner, None)),
            }
        };
        let (owner, grant) = self.records().change(GRANT, id.as_str(), end).await?;
        if let Some(owner) = &owner {
            self.inner.grant_states.of(owner).set_ended();
        }
        if let Some(grant) = &grant {
            tracing::info!(grant = %id, reference = grant.reference, ?reason, "a grant has ended");
            metrics::grant_ended(reason.name());
        }
        Ok(grant)
    }

    /// Ends the grants whose refresh tokens have expired, and those whose code was never redeemed; returns them.
    pub async fn end_expired_grants(&self) -> Result<Vec<Grant>, vault::Error> {
        let mut ended = Vec::new();
        for grant in self.all_grants().await? {
            let age = self.inner.clock.now() - grant.created_at;
            if grant.ended.is_none() && age > REDEEMED_WITHIN && !self.can_refresh(&grant.id).await? {
                ended.extend(self.end_grant(&grant.id, EndReason::Expired).await?);
            }
        }
        Ok(ended)
    }

    /// Deletes the record of an ended grant whose API key is revoked. It goes last, so that after a crash an ended grant
    /// is found again.
    pub async fn forget_grant(&self, grant: &Grant) -> Result<(), vault::Error> {
        let records = self.records();
        if self.live_grant(&grant.id).await?.is_some() {
            return Ok(());
        }
        self.forget_family(&grant.id).await?;
        let remove = |person: Option<Person>| {
            let Some(mut person) = person else { return (Next::Keep, ()) };
            person.grants.retain(|id| *id != grant.id);
            let lifetime = person.grants.is_empty().then_some(EMPTIED_FOR);
            (Next::Write(person, lifetime), ())
        };
        records.change(PERSON, grant.subject.as_str(), remove).await?;
        records.change(GRANT, grant.id.as_str(), |_: Option<Grant>| (Next::Delete, ())).await
    }
}
