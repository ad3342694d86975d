//! What a grant has at BondMCP: an API key of its own, or a session where the plan allows no further key.

use chrono::TimeDelta;

use super::{
    Hosted,
    audit::AuditedEvent,
    browser::Browser,
    consent::{Consent, key_name},
    pending::{PendingAuthorization, State},
    person::Person,
    trouble,
};
use crate::{
    account::{self, Authenticated, NewGrant},
    bondmcp::wire::Permission,
    clock::Timestamp,
    error::UserFacingError,
    oauth::{Acceptance, CreateGrantError, EndReason, Grant, Scope, Scopes},
    vault,
};

/// How long an answer of BondMCP shows that it accepts the credential of a grant.
const ACCEPTED_FOR: TimeDelta = TimeDelta::minutes(1);

/// Why a grant could not be made. Nothing of it is left.
#[derive(Debug)]
pub(super) enum AllowError {
    /// Nobody is signed in in the browser any more.
    SignedOut,
    /// The person has as many apps as one can have.
    TooManyApps,
    /// The words are for the person.
    Failed(String),
}

impl From<CreateGrantError> for AllowError {
    fn from(error: CreateGrantError) -> Self {
        match error {
            CreateGrantError::TooMany => Self::TooManyApps,
            CreateGrantError::Store(error) => unavailable(error),
        }
    }
}

impl Hosted {
    /// Makes the grant that the person has agreed to, with its account: the account adopts the session that was opened in
    /// the browser, and creates its API key with it. Whatever fails, nothing is left of the grant.
    pub(super) async fn allow(
        &self,
        authorization: &PendingAuthorization,
        browser: &Browser,
        person: &Person,
        consent: Consent,
    ) -> Result<Grant, AllowError> {
        let (server, request) = (&self.inner.server, &authorization.pending.request);
        // Before the session is taken: whoever has too many apps stays signed in, to disconnect one.
        let grant = server.create_grant(&person.subject, request, consent.scopes).await?;
        let session = match self.session_for(&grant, browser).await {
            Ok(session) => session,
            Err(error) => {
                self.abandon(&grant).await;
                return Err(error);
            }
        };
        let account = self.inner.accounts.open(&grant.owner());
        let new = NewGrant {
            issuer: server.endpoints().issuer().to_owned(),
            key_name: key_name(request, &grant.id, self.now().date_naive()),
            permissions: permissions(consent.scopes),
            daily_limit: consent.daily_limit,
        };
        let opened = account.open_grant(session, new).await;
        // It may have been ended meanwhile, by the operator or on the page of connections.
        let is_live = async { Ok(server.live_grant(&grant.id).await?.is_some()) };
        match (opened, is_live.await) {
            (Ok(()), Ok(true)) => {
                self.audit(AuditedEvent::Allowed { grant: &grant });
                self.step_of(&grant, "credential stored").await;
                Ok(grant)
            }
            (Ok(()) | Err(account::Error::GrantEnded), Ok(false)) => {
                self.abandon(&grant).await;
                Err(AllowError::Failed("The connection was ended while it was being made.".to_owned()))
            }
            (Err(error), _) => {
                self.step_of(&grant, "BondMCP refused").await;
                tracing::warn!(%error, reference = grant.reference, "a grant could not be made");
                self.abandon(&grant).await;
                let report = UserFacingError::from(&error);
                let message = trouble::message(&report);
                Err(AllowError::Failed(
                    message.unwrap_or_else(|| format!("BondMCP did not give access: {}", report.message)),
                ))
            }
            (Ok(()), Err(error)) => {
                self.abandon(&grant).await;
                Err(unavailable(error))
            }
        }
    }

    /// Takes the session that the person of the grant has opened in the browser.
    async fn session_for(&self, grant: &Grant, browser: &Browser) -> Result<Authenticated, AllowError> {
        let taken = self.inner.browsers.take_session(browser).await.map_err(unavailable)?;
        let taken = taken.filter(|(person, _)| person.subject == grant.subject);
        taken.map(|(_, session)| session).ok_or(AllowError::SignedOut)
    }

    /// Stores what has come of a decision. A grant that nobody hears of is ended.
    pub(super) async fn finish(
        &self,
        mut authorization: PendingAuthorization,
        state: State,
    ) -> Result<(), vault::Error> {
        let made = match &state {
            State::Allowed { grant } => Some(grant.clone()),
            _ => None,
        };
        let outcome = authorization.set(state).await;
        if let (Some(id), Ok(false) | Err(_)) = (made, &outcome)
            && let Err(error) = self.end(&[id], EndReason::Refused).await
        {
            tracing::warn!(%error, "a grant that nobody hears of was not ended yet");
        }
        outcome.map(|_| ())
    }

    /// Ends a grant that has just been made. What cannot be done now is done by a sweep.
    async fn abandon(&self, grant: &Grant) {
        match self.inner.server.end_grant(&grant.id, EndReason::Refused).await {
            Ok(_) => {
                self.release(grant).await;
            }
            Err(error) => tracing::warn!(%error, reference = grant.reference, "a grant was not ended yet"),
        }
    }

    /// Whether BondMCP still accepts what the grant calls it with: as it said in the last minute, or as it says now. Some
    /// hosts refresh several times in a second.
    pub async fn acceptance(&self, grant: &Grant) -> Acceptance {
        let account = self.inner.accounts.open(&grant.owner());
        let mut models = account.list_models(false).await;
        if models.as_ref().is_ok_and(|models| self.now() - models.fetched_at > ACCEPTED_FOR) {
            models = account.list_models(true).await;
        }
        match models {
            Ok(models) if models.outage.is_none() => Acceptance::Accepted,
            Ok(_) => Acceptance::Unknown,
            // The key that was made for the grant may be as good as ever.
            Err(error) if error.is_unauthorized() && account.uses_chosen_key().await.unwrap_or(false) => {
                Acceptance::Accepted
            }
            Err(error) => acceptance_after(&error),
        }
    }

    pub(super) async fn step_of(&self, grant: &Grant, step: &'static str) {
        self.inner.traces.step(&grant.reference, step).await;
    }

    pub(super) fn now(&self) -> Timestamp {
        self.inner.accounts.now()
    }
}

/// What a failure of a free request says about the credential.
fn acceptance_after(error: &account::Error) -> Acceptance {
    match error {
        account::Error::GrantEnded => Acceptance::Refused,
        // The person can sign in again, by the link that the next call shows.
        account::Error::SignInRequired { .. } => Acceptance::Accepted,
        error if error.is_unauthorized() => Acceptance::Refused,
        error if error.is_outage() => Acceptance::Unknown,
        // BondMCP has looked at the request, and asks to wait, or to pay.
        account::Error::Upstream(_) => Acceptance::Accepted,
        _ => Acceptance::Unknown,
    }
}

/// Returns the least permissions that the scopes need: the health services are called by POST.
fn permissions(scopes: Scopes) -> Vec<Permission> {
    if scopes.contains(Scope::Health) {
        vec![Permission::Read, Permission::Write]
    } else {
        vec![Permission::Read]
    }
}

#[expect(clippy::needless_pass_by_value, reason = "it maps errors")]
fn unavailable(error: vault::Error) -> AllowError {
    tracing::error!(%error, "a grant could not be stored");
    AllowError::Failed("The server cannot reach its database. Wait a moment, then try again.".to_owned())
}
