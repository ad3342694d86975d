//! An account and its use-cases: register, sign in and out, a bearer for this call, API keys. It holds the credentials
//! and decides which of them a call uses; it knows neither MCP nor the command line.

mod audit;
mod bearer;
mod cache;
mod error;
mod health;
mod identity;
mod keys;
mod models;
mod notice;
mod plan;
mod reconcile;
mod record;
mod regeneration;
mod renewal;
mod rotation;
mod session;
mod sign_in;
mod status;
mod store;

use std::{
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use tokio::sync::{Notify, OnceCell};
use tokio_util::task::TaskTracker;

use self::{
    audit::Audit,
    cache::Cache,
    record::Record,
    renewal::Renewals,
    store::{Store, Versioned},
};
pub use self::{
    audit::AuditEntry,
    bearer::{Bearer, Need, Source},
    error::{Error, SignInReason},
    identity::Identity,
    keys::{Key, KeyList, Unfinished},
    models::Models,
    record::ManagedKey,
    sign_in::Registration,
    status::{Credential, Renewal, Status},
};
use crate::{
    bondmcp::{
        Client,
        wire::{Model, Subscription},
    },
    clock::Clock,
    config::{BaseUrl, EnvironmentCredentials, Profile, Settings},
    redact::Redactor,
    vault::{ChangeMarker, RecordId},
};

/// How long a shutdown waits for work that must not be cut in half.
const SHUTDOWN_GRACE_PERIOD: Duration = Duration::from_secs(5);

/// One account, for one process. Clones share everything.
#[derive(Clone, Debug)]
pub struct Account {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    profile: Profile,
    environment: EnvironmentCredentials,
    /// How a person calls this program in a terminal, with the flags that name this account.
    command_line: String,
    client: Client,
    clock: Clock,
    redactor: Redactor,
    store: Store,
    memory: RwLock<Option<Arc<CachedRecord>>>,
    /// Held while the record is first read, so that a burst of calls reads it once.
    loading: tokio::sync::Mutex<()>,
    renewals: Renewals,
    models: Cache<Vec<Model>>,
    plan: Cache<Option<Subscription>>,
    audit: Audit,
    /// Told when the record was read, by whomever.
    was_read: Notify,
    /// Work that is finished even when its caller has gone.
    tasks: TaskTracker,
}

/// The record as this process last saw it.
#[derive(Debug)]
struct CachedRecord {
    record: Record,
    version: u64,
    /// The state of the vault just before the record was read; `None` where that could not be told.
    marker: Option<ChangeMarker>,
}

impl Account {
    /// The account that `settings` name. Nothing is opened and nobody is called before it is needed.
    #[must_use]
    pub fn new(
        settings: &Settings,
        command_line: String,
        client: Client,
        clock: Clock,
        redactor: Redactor,
    ) -> Self {
        // An e-mail from the environment has a record of its own: it must not disturb the person's.
        let owner = match &settings.environment.login {
            Some(login) => format!("environment:{}", login.email.to_lowercase()),
            None => format!("profile:{}", settings.profile),
        };
        let store = Store {
            location: settings.vault.clone(),
            sealing_key: settings.sealing_key.clone(),
            data_dir: settings.data_dir.clone(),
            id: RecordId { owner, origin: settings.base_url.as_str().to_owned() },
            clock: clock.clone(),
            vault: OnceCell::new(),
        };
        redactor.hold("environment", settings.environment.secrets());
        Self {
            inner: Arc::new(Inner {
                profile: settings.profile.clone(),
                environment: settings.environment.clone(),
                command_line,
                client,
                clock,
                redactor,
                store,
                memory: RwLock::new(None),
                loading: tokio::sync::Mutex::new(()),
                renewals: Renewals::default(),
                models: Cache::default(),
                plan: Cache::default(),
                audit: Audit::new(settings.data_dir.clone()),
                was_read: Notify::new(),
                tasks: TaskTracker::new(),
            }),
        }
    }

    /// What a person types in a terminal to sign in.
    #[must_use]
    pub fn login_command(&self, email: Option<&str>) -> String {
        self.command("login", email)
    }

    /// What a person types in a terminal to create an account.
    #[must_use]
    pub fn register_command(&self, email: Option<&str>) -> String {
        self.command("register", email)
    }

    /// The name of this account.
    #[must_use]
    pub fn profile(&self) -> &str {
        self.inner.profile.as_str()
    }

    /// Where its requests go.
    #[must_use]
    pub fn upstream(&self) -> &BaseUrl {
        self.inner.client.base_url()
    }

    /// Where its credentials are kept, for the person who decides about them.
    #[must_use]
    pub fn kept_in(&self) -> String {
        self.inner.store.location.to_string()
    }

    /// Where this program's private files are.
    #[must_use]
    pub fn data_dir(&self) -> &std::path::Path {
        &self.inner.store.data_dir
    }

    fn command(&self, verb: &str, email: Option<&str>) -> String {
        let email = email.map(|email| format!(" --email {email}")).unwrap_or_default();
        format!("{} {verb}{email}", self.inner.command_line)
    }

    /// Whether the environment can sign in by itself, whatever the vault holds.
    #[must_use]
    pub fn has_environment_credentials(&self) -> bool {
        self.inner.environment.secrets().next().is_some()
    }

    /// Waits for work that must not be cut in half, then closes the vault. A host does not wait long for the process to
    /// end; an API key change that is still unfinished then is found by its intent at the next start.
    pub async fn close(&self) {
        self.inner.tasks.close();
        if tokio::time::timeout(SHUTDOWN_GRACE_PERIOD, self.inner.tasks.wait()).await.is_err() {
            tracing::warn!("shutdown: a request to BondMCP did not end in time and was abandoned");
        }
        self.inner.store.close().await;
        self.inner.audit.close();
    }

    /// Runs `work` to its end even when the caller goes away: a key being made, a session being stored.
    async fn to_the_end<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, Error>> + Send + 'static,
    ) -> Result<T, Error> {
        self.inner.tasks.spawn(work).await.unwrap_or(Err(Error::Interrupted))
    }

    fn sign_in_required(&self, why: SignInReason) -> Error {
        Error::SignInRequired { why, command: self.login_command(None) }
    }

    /// Looks whether another process has changed the account, so that the newest secrets are known. Cheap where nothing
    /// was written: for every answer on its way out.
    pub async fn refresh_if_changed(&self) {
        if let Err(error) = self.record().await {
            tracing::warn!(%error, "the account could not be read again");
        }
    }

    /// The record as it is now: from memory while nobody has written to the vault, so that no call is made with a key
    /// that another process has put out of use.
    async fn record(&self) -> Result<Arc<CachedRecord>, Error> {
        if let Some(memory) = self.current() {
            return Ok(memory);
        }
        let _guard = self.inner.loading.lock().await;
        match self.current() {
            Some(memory) => Ok(memory),
            None => Box::pin(self.reread()).await,
        }
    }

    /// The record from memory, if nobody has written to the vault since it was read.
    fn current(&self) -> Option<Arc<CachedRecord>> {
        let memory = self.remembered()?;
        let marker = self.inner.store.change_marker();
        (marker.is_some() && marker == memory.marker).then_some(memory)
    }

    /// The record as it is in the vault now.
    async fn reread(&self) -> Result<Arc<CachedRecord>, Error> {
        let marker = self.inner.store.change_marker();
        Ok(self.remember(self.inner.store.read().await?, marker))
    }

    /// Changes the record in the vault and in memory.
    async fn update<T>(
        &self,
        change: impl FnMut(&mut Record) -> Result<T, Error>,
    ) -> Result<(T, Arc<CachedRecord>), Error> {
        let marker = self.inner.store.change_marker();
        let (outcome, written) = self.inner.store.update(change).await?;
        Ok((outcome, self.remember(written, marker)))
    }

    fn remembered(&self) -> Option<Arc<CachedRecord>> {
        self.inner.memory.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Keeps what was read or written, unless memory has something newer by now.
    fn remember(
        &self,
        Versioned { record, version }: Versioned,
        marker: Option<ChangeMarker>,
    ) -> Arc<CachedRecord> {
        let seen = Arc::new(CachedRecord { record, version, marker });
        self.inner.was_read.notify_one();
        let mut memory = self.inner.memory.write().unwrap_or_else(PoisonError::into_inner);
        match &*memory {
            Some(newer) if newer.version > seen.version => newer.clone(),
            _ => {
                self.inner.redactor.hold("record", seen.record.secrets());
                memory.insert(seen).clone()
            }
        }
    }
}
