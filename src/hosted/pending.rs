//! Authorizations in progress: what a client has asked for, bound to the browser that began it. The record lives for ten
//! minutes, and every step is a compare-and-swap, so that a form that is sent twice takes effect once.

use std::time::Duration;

use chrono::TimeDelta;
use serde::{Deserialize, Serialize};

use super::browser::Browser;
use crate::{
    clock::Timestamp,
    oauth::{AuthorizationRequest, GrantId},
    secret::{self, ExposeSecret as _, SecretString},
    vault::{self, RecordKind, Records, Versioned},
};

const KIND: RecordKind = RecordKind::new("authorization");

/// Time that a person has to sign in and to decide.
const LIFETIME: Duration = Duration::from_mins(10);

/// Age from which work on a decision is that of a process that has died.
const INTERRUPTED_AFTER: TimeDelta = TimeDelta::minutes(2);

/// An authorization in progress.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Pending {
    pub request: AuthorizationRequest,
    /// Binding of the browser that began it.
    browser: String,
    began_at: Timestamp,
    pub state: State,
    /// Binding of the sign-in with which the person agreed: who knew the browser's cookie before is not given the code. Nor
    /// is the browser after another sign-in in it, which begins with the app again; the grant is ended by a sweep.
    #[serde(default)]
    agreed_in: Option<String>,
    /// Id of the sign-in page that was shown last.
    #[serde(default)]
    sign_in: Option<String>,
}

/// How far an authorization is.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// The person has not decided yet.
    Asking,
    /// The person agreed; the grant is being made.
    Working {
        since: Timestamp,
    },
    /// The grant could not be made, and nothing of it is left. The text may quote BondMCP; it is redacted.
    Failed {
        problem: String,
    },
    /// The grant was not made, since the person has as many as one can have.
    TooManyApps,
    /// The grant is made; the client has no code yet.
    Allowed {
        grant: GrantId,
    },
    Denied,
    /// The client was answered.
    Answered,
}

/// An authorization as it was read or written last.
#[derive(Clone, Debug)]
pub struct PendingAuthorization {
    records: Records,
    id: String,
    pub pending: Pending,
    version: u64,
}

impl PendingAuthorization {
    /// Begins an authorization in this browser.
    pub async fn begin(
        records: &Records,
        request: AuthorizationRequest,
        browser: &Browser,
        now: Timestamp,
    ) -> Result<Self, vault::Error> {
        let pending = Pending {
            request,
            browser: browser.binding(),
            began_at: now,
            state: State::Asking,
            agreed_in: None,
            sign_in: None,
        };
        let id = secret::random().expose_secret().to_owned();
        let version = records.write(KIND, &id, None, &pending, Some(LIFETIME)).await?;
        Ok(Self { records: records.clone(), id, pending, version })
    }

    /// Finds the authorization `id` of this browser. One that expired, or was begun in another browser,
    /// is not found.
    pub async fn find(
        records: &Records,
        id: &str,
        browser: &Browser,
        now: Timestamp,
    ) -> Result<Option<Self>, vault::Error> {
        let Some(Versioned { value, version }) = records.read::<Pending>(KIND, id).await? else {
            return Ok(None);
        };
        let mut found = Self { records: records.clone(), id: id.to_owned(), pending: value, version };
        let agreed_in = found.pending.agreed_in.as_deref();
        let is_of_the_browser = secret::same_text(&found.pending.browser, &browser.binding())
            && agreed_in.is_none_or(|agreed_in| secret::same_text(agreed_in, &browser.sign_in_binding()));
        // Another replica's clock may be ahead of this one's.
        let is_in_time = (now - found.pending.began_at).to_std().unwrap_or_default() < LIFETIME;
        if let State::Working { since } = &found.pending.state
            && now - *since > INTERRUPTED_AFTER
        {
            let problem = "Connecting was interrupted.".to_owned();
            found.pending.state = State::Failed { problem };
        }
        Ok((is_of_the_browser && is_in_time).then_some(found))
    }

    /// Names it in logs and on its pages.
    pub fn reference(&self) -> &str {
        &self.pending.request.reference
    }

    /// Returns the path of its page.
    pub fn path(&self) -> String {
        format!("/authorize/{}", self.id)
    }

    /// Returns the id of the sign-in page that was shown last.
    pub fn sign_in(&self) -> Option<SecretString> {
        self.pending.sign_in.as_deref().map(Into::into)
    }

    /// Keeps the id of the sign-in page that is shown; `false` if the authorization was changed meanwhile.
    pub async fn set_sign_in(&mut self, id: &SecretString) -> Result<bool, vault::Error> {
        let sign_in = Some(id.expose_secret().to_owned());
        self.change(Pending { sign_in, ..self.pending.clone() }).await
    }

    /// Notes that the person agreed in `browser`; `false` if the authorization was changed meanwhile.
    pub async fn agree(&mut self, browser: &Browser, since: Timestamp) -> Result<bool, vault::Error> {
        let agreed_in = Some(browser.sign_in_binding());
        self.change(Pending { state: State::Working { since }, agreed_in, ..self.pending.clone() }).await
    }

    /// Changes the state; `false` if it was changed meanwhile.
    pub async fn set(&mut self, state: State) -> Result<bool, vault::Error> {
        // Whoever is asked again may have to sign in again.
        let agreed_in = self.pending.agreed_in.clone().filter(|_| state != State::Asking);
        self.change(Pending { state, agreed_in, ..self.pending.clone() }).await
    }

    async fn change(&mut self, pending: Pending) -> Result<bool, vault::Error> {
        match self.records.write(KIND, &self.id, Some(self.version), &pending, Some(LIFETIME)).await {
            Ok(version) => {
                (self.pending, self.version) = (pending, version);
                Ok(true)
            }
            Err(vault::Error::Conflict) => Ok(false),
            Err(error) => Err(error),
        }
    }
}
