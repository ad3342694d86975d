//! Finding out who somebody is at BondMCP, before any record is touched: a page can authenticate a person whose account
//! is not known yet. The outcome is then adopted by an account, or its session is ended at BondMCP.

use serde::{Deserialize, Serialize};
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;

use super::{Account, Error, Inner, Leftovers, Registration, record::SessionView, session::Session};
use crate::{
    bondmcp::{Client, wire::User},
    clock::{Clock, Timestamp},
    config::BaseUrl,
    error::UserFacingError,
    metrics,
    secret::SecretString,
};

/// Authenticates people at one upstream. What was typed is redacted by the redactor of its client. Clones share
/// everything.
#[derive(Clone, Debug)]
pub struct Authenticator {
    client: Client,
    clock: Clock,
    /// Tasks that run to their end even when their caller is gone.
    tasks: TaskTracker,
    /// Whether it authenticates people who are strangers to each other.
    for_strangers: bool,
}

/// Somebody who has proved who they are. Dropped before an account has adopted it, its session is ended at BondMCP.
#[derive(Debug)]
pub struct Authenticated {
    authenticator: Authenticator,
    /// `None` once it was adopted.
    proof: Option<Proof>,
}

/// What somebody has proved.
#[derive(Debug)]
pub(super) enum Proof {
    /// BondMCP has accepted the password.
    Session(NewSession),
    /// BondMCP accepts the API key. It does not say whose key it is.
    Key(SecretString),
}

/// A session that BondMCP has just opened.
#[derive(Debug)]
pub(super) struct NewSession {
    pub email: String,
    /// What was typed; `None` for a session that was kept in a record meanwhile.
    pub password: Option<SecretString>,
    /// The user, if the upstream says who it is.
    pub user: Option<User>,
    pub session: Session,
}

/// A session that waits in a record for an account to adopt it. It has no password.
#[derive(Debug, Deserialize)]
pub struct KeptSession {
    email: String,
    user: Option<User>,
    session: Session,
}

/// [`KeptSession`] with its secrets exposed; used only for encryption.
#[derive(Serialize)]
#[expect(missing_debug_implementations, reason = "it would show the secrets")]
pub struct KeptSessionView<'a> {
    email: &'a str,
    user: Option<&'a User>,
    session: SessionView<'a>,
}

impl Authenticator {
    pub(super) fn new(client: Client, clock: Clock, tasks: TaskTracker) -> Self {
        Self { client, clock, tasks, for_strangers: false }
    }

    /// Makes one for people who are strangers to each other: what one types and the limits of their plan are no other's.
    pub(super) fn for_strangers(client: Client, clock: Clock, tasks: TaskTracker) -> Self {
        Self { for_strangers: true, ..Self::new(client, clock, tasks) }
    }

    /// Returns the authenticator for one person.
    fn for_one(&self) -> Self {
        let client = if self.for_strangers { self.client.for_stranger() } else { self.client.clone() };
        Self { client, for_strangers: false, ..self.clone() }
    }

    /// Base URL that requests go to.
    #[must_use]
    pub fn upstream(&self) -> &BaseUrl {
        self.client.base_url()
    }

    /// Creates a BondMCP account. It can sign in once the person has opened the link in the e-mail.
    pub async fn register(&self, email: &str, password: &SecretString) -> Result<Registration, Error> {
        let registered = self.for_one().client.register(email, password).await?;
        Ok(Registration { user_id: registered.user_id, email: registered.email })
    }

    /// Opens a session with an e-mail address and a password.
    pub async fn with_password(&self, email: &str, password: SecretString) -> Result<Authenticated, Error> {
        let (this, email) = (self.for_one(), email.to_owned());
        self.run_to_completion(async move {
            let answer = this.client.login(&email, &password).await;
            let outcome = |error| UserFacingError::from(error).kind.name();
            metrics::sign_in(answer.as_ref().map_or_else(outcome, |_| "ok"));
            let tokens = answer?;
            let told = tokens.user.clone();
            let session = Session::new(tokens, this.clock.now(), None);
            let user = match told {
                Some(user) => Some(user),
                // Some versions of the API do not say who logged in; signing in does not fail because of that.
                None => this.client.me(&session.access_token).await.ok().map(|me| User {
                    id: me.id,
                    email: Some(me.email),
                    name: me.name,
                }),
            };
            let proof = Proof::Session(NewSession { email, password: Some(password), user, session });
            Ok(Authenticated { authenticator: this, proof: Some(proof) })
        })
        .await
    }

    /// Tests an API key that the person entered instead of signing in.
    pub async fn with_key(&self, key: SecretString) -> Result<Authenticated, Error> {
        let this = self.for_one();
        this.client.list_models(&key).await?;
        Ok(Authenticated { authenticator: this, proof: Some(Proof::Key(key)) })
    }

    /// Takes a session out of the record that kept it.
    #[must_use]
    pub fn restore(&self, kept: KeptSession) -> Authenticated {
        let KeptSession { email, user, session } = kept;
        let proof = Proof::Session(NewSession { email, password: None, user, session });
        Authenticated { authenticator: self.for_one(), proof: Some(proof) }
    }

    /// Revokes API keys of grants that have ended, with a session that a record keeps.
    pub async fn revoke_leftovers(
        &self,
        kept: &KeptSession,
        left: &Leftovers,
    ) -> (Leftovers, Result<(), Error>) {
        let (client, token) = (self.for_one().client, &kept.session.access_token);
        let list = async { Ok(client.list_api_keys(token).await?) };
        let revoke = |id: String| {
            let client = &client;
            async move { Ok(client.revoke_api_key(token, &id).await?) }
        };
        left.revoke(list, revoke).await
    }

    /// The time of day.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Runs `work` to its end even when the caller is gone: a session that nobody receives must be ended.
    async fn run_to_completion<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, Error>> + Send + 'static,
    ) -> Result<T, Error> {
        self.tasks.spawn(work.in_current_span()).await.unwrap_or(Err(Error::Interrupted))
    }

    /// Ends `session` at BondMCP, in the background.
    fn end(&self, session: Session) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let client = self.client.clone();
        self.tasks.spawn_on(
            async move {
                if let Err(error) = client.logout(&session.access_token).await {
                    tracing::warn!(%error, "a session that is not used could not be ended at BondMCP; it expires by itself");
                }
            },
            &runtime,
        );
    }
}

impl Authenticated {
    /// Returns the id of the user at BondMCP; `None` where BondMCP does not tell, as for an API key.
    #[must_use]
    pub fn user_id(&self) -> Option<&str> {
        self.session().and_then(|new| new.user.as_ref()).map(|user| &*user.id)
    }

    /// Returns the e-mail address that was signed in with; `None` for an API key.
    #[must_use]
    pub fn email(&self) -> Option<&str> {
        self.session().map(|new| &*new.email)
    }

    fn session(&self) -> Option<&NewSession> {
        match &self.proof {
            Some(Proof::Session(new)) => Some(new),
            _ => None,
        }
    }

    /// Returns the session for a record that keeps it; `None` for an API key. Once it is written, the session is
    /// [kept](Self::keep) open.
    #[must_use]
    pub fn to_be_kept(&self) -> Option<KeptSessionView<'_>> {
        self.session().map(|new| KeptSessionView {
            email: &new.email,
            user: new.user.as_ref(),
            session: SessionView::of(&new.session),
        })
    }

    pub(super) fn proof(&self) -> Option<&Proof> {
        self.proof.as_ref()
    }

    /// Keeps the session open: an account has adopted it, or a record keeps it.
    pub fn keep(mut self) {
        self.proof = None;
    }
}

impl Drop for Authenticated {
    fn drop(&mut self) {
        if let Some(Proof::Session(new)) = self.proof.take() {
            self.authenticator.end(new.session);
        }
    }
}

impl Account {
    /// Returns what authenticates people for this account. Whoever signs in on the page of a subject may be another
    /// person, whose password the account's redactor must not know: it would tell whether a guess at it is right.
    pub(super) fn authenticator(&self) -> Authenticator {
        let Inner { client, clock, tasks, .. } = &*self.inner;
        let new = if self.belongs_to_a_subject() { Authenticator::for_strangers } else { Authenticator::new };
        new(client.clone(), clock.clone(), tasks.clone())
    }
}
