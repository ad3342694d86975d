//! An account and its use cases: registering, signing in and out, the credential for a call, API keys. This module
//! manages the credentials and selects the one that a call uses; it depends on neither MCP nor the command line.

mod accounts;
mod announcement;
mod audit;
mod authenticate;
mod bearer;
mod budget;
mod cache;
mod error;
mod grant;
mod health;
mod identity;
mod intent;
mod key_list;
mod keys;
mod ledger;
mod models;
mod owner;
mod per_owner;
mod plan;
mod reconcile;
mod record;
mod regeneration;
mod release;
mod renewal;
mod request_state;
mod rotation;
mod rotation_age;
mod session;
mod shared_vault;
mod sign_in;
mod spending;
mod status;
mod store;
mod usd;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::{Mutex, MutexGuard, RwLock};
use tokio::sync::Notify;
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;

pub use self::{
    accounts::Accounts,
    audit::{AuditEntry, AuditReader, KEYS_COMMAND},
    authenticate::{Authenticated, Authenticator, KeptSession, KeptSessionView},
    bearer::{Bearer, CredentialSource, RequiredCredential},
    budget::{DailyLimit, LimitSetBy, UsageTotals},
    error::{Error, SignInReason},
    grant::{NewGrant, grant_key_name},
    identity::Identity,
    key_list::{Key, KeyList, Unfinished},
    ledger::Settlement,
    models::Models,
    owner::Owner,
    per_owner::PerOwner,
    record::ManagedKey,
    release::Leftovers,
    rotation_age::{AgedKey, parsed_time},
    sign_in::Registration,
    spending::{DailySpending, Reservation},
    status::{Credential, Renewal, Status},
    usd::Usd,
};
use self::{
    audit::Audit,
    cache::Cache,
    record::Record,
    renewal::Renewals,
    spending::Spending,
    store::{Store, Versioned},
};
use crate::{
    bondmcp::{
        Client,
        wire::{Model, Subscription},
    },
    clock::Clock,
    config::{BaseUrl, EnvironmentCredentials},
    redact::Redactor,
    vault::{self, ChangeMarker, KeySurvey, RecordId},
};

/// One owner's account: everything that is the owner's own. Clones share everything. [`Accounts`] opens it.
#[derive(Clone, Debug)]
pub struct Account {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    owner: Owner,
    /// The owner's name in logs and in the audit log.
    name: String,
    /// What the environment holds for this owner.
    environment: EnvironmentCredentials,
    /// The command line that runs this program for this account in a terminal.
    command_line: Arc<str>,
    client: Client,
    clock: Clock,
    /// Knows the owner's secrets and those of the process.
    redactor: Redactor,
    store: Store,
    memory: RwLock<Option<Arc<CachedRecord>>>,
    /// Held during the first read of the record, so that concurrent calls read it once.
    loading: tokio::sync::Mutex<()>,
    /// The last failure of the vault's server.
    outage: Mutex<Option<(Instant, Error)>>,
    renewals: Renewals,
    models: Cache<Arc<Vec<Model>>>,
    plan: Cache<Option<Subscription>>,
    spending: Arc<Spending>,
    audit: Arc<Audit>,
    /// Notified when the record was read.
    was_read: Notify,
    /// Tasks that run to their end even when their caller is gone.
    tasks: TaskTracker,
}

/// How long a look at the vault's files is good for. It serves the steps of one call; another process's change is
/// noticed by the next one.
const CONFIRMATION_LIFETIME: Duration = Duration::from_millis(1);

/// How long storing what exists nowhere else is retried. PostgreSQL restarts in less, and another process's write to
/// SQLite ends sooner.
const STORE_TIMEOUT: Duration = Duration::from_secs(30);

/// Wait after the first failure to store it, and the longest one.
const STORE_PAUSE: Duration = Duration::from_millis(100);
const MAX_STORE_PAUSE: Duration = Duration::from_secs(2);

/// Longest wait for the newest secrets before a response.
const REFRESH_TIMEOUT: Duration = Duration::from_secs(5);

/// The record as this process last saw it.
#[derive(Debug)]
struct CachedRecord {
    record: Record,
    version: u64,
    /// State of the vault just before the record was read; `None` where it is unknown.
    marker: Option<ChangeMarker>,
    /// When the vault was last seen in that state.
    confirmed: Mutex<Instant>,
}

impl Account {
    /// Finds out which keys the records in the vault need, those of all accounts.
    pub async fn survey_keys(&self) -> Result<KeySurvey, Error> {
        Ok(self.inner.store.vault().await?.survey_keys().await?)
    }

    /// Returns the identities that the account's records had in this program's first version, which did not store them.
    #[must_use]
    pub fn first_version_records(&self) -> Vec<RecordId> {
        self.inner.store.first_version_records()
    }

    /// Whether the owner can run this program in a terminal. Whoever uses a hosted server cannot.
    #[must_use]
    pub fn has_terminal(&self) -> bool {
        self.subject().is_none()
    }

    /// Returns the command that signs in from a terminal.
    #[must_use]
    pub fn login_command(&self, email: Option<&str>) -> String {
        self.command("login", email)
    }

    /// Returns the command that creates an account from a terminal.
    #[must_use]
    pub fn register_command(&self, email: Option<&str>) -> String {
        self.command("register", email)
    }

    /// Name of the owner, for people and logs: that of the profile.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// Returns the redactor that knows the owner's secrets and those of the process, and nobody else's.
    #[must_use]
    pub fn redactor(&self) -> &Redactor {
        &self.inner.redactor
    }

    /// Name of the owner, under which the vault stores the account.
    #[must_use]
    pub fn owner_name(&self) -> &str {
        &self.inner.store.id.owner
    }

    /// Returns the verified subject whose account it is; `None` for a profile.
    #[must_use]
    pub fn subject(&self) -> Option<&str> {
        match &self.inner.owner {
            Owner::Subject(subject) => Some(subject),
            Owner::Profile(_) => None,
        }
    }

    /// Base URL that requests go to.
    #[must_use]
    pub fn upstream(&self) -> &BaseUrl {
        self.inner.client.base_url()
    }

    /// Describes where credentials are stored, for the person who decides about storing them.
    #[must_use]
    pub fn vault_location(&self) -> String {
        self.inner.store.shared.location.to_string()
    }

    /// Directory of this program's private files.
    #[must_use]
    pub fn data_dir(&self) -> &std::path::Path {
        &self.inner.store.shared.data_dir
    }

    /// Returns the command that does something with an API key from a terminal; `verb` is `revoke`, `rotate` or `run`.
    #[must_use]
    pub fn key_command(&self, verb: &str, id: &str) -> String {
        format!("{} keys {verb} {id}", self.inner.command_line)
    }

    fn command(&self, verb: &str, email: Option<&str>) -> String {
        let email = email.map(|email| format!(" {email}")).unwrap_or_default();
        format!("{} {verb}{email}", self.inner.command_line)
    }

    /// Whether the environment can sign in by itself, whatever the vault holds.
    #[must_use]
    pub fn has_environment_credentials(&self) -> bool {
        self.inner.environment.secrets().next().is_some()
    }

    /// Runs `work` to its end even when the caller is gone, such as creating a key or storing a session.
    async fn run_to_completion<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, Error>> + Send + 'static,
    ) -> Result<T, Error> {
        self.inner.tasks.spawn(work.in_current_span()).await.unwrap_or(Err(Error::Interrupted))
    }

    fn sign_in_required(&self, why: SignInReason) -> Error {
        Error::SignInRequired { why, command: self.has_terminal().then(|| self.login_command(None)) }
    }

    /// Reads the record again if another process has changed it, so that the redactor knows the newest secrets. Cheap
    /// enough to run before every response. `came` is when the request came, and `longest` how long it may still take. While
    /// it fails, the redactor may not know them.
    pub async fn refresh_if_changed(&self, came: Instant, longest: Duration) -> Result<(), Error> {
        let limit = longest.min(REFRESH_TIMEOUT);
        let look = tokio::time::timeout(limit, self.record_as_of(Duration::ZERO, came));
        let late = |_| Err(self.inner.store.shared.silent().into());
        let looked = look.await.unwrap_or_else(late);
        looked.inspect_err(|error| tracing::warn!(%error, "the account could not be read again")).map(|_| ())
    }

    /// Returns the current record: from memory while the vault is unchanged, so that no call uses a key that another
    /// process has deselected.
    async fn record(&self) -> Result<Arc<CachedRecord>, Error> {
        self.record_as_of(CONFIRMATION_LIFETIME, Instant::now()).await
    }

    /// Returns the record as it was at most `age` ago, for a caller who came at `came`.
    async fn record_as_of(&self, age: Duration, came: Instant) -> Result<Arc<CachedRecord>, Error> {
        if let Some(memory) = self.current(age) {
            return Ok(memory);
        }
        let _guard = self.inner.loading.lock().await;
        if let Some(memory) = self.current(age) {
            return Ok(memory);
        }
        self.refuse_in_outage(came)?;
        Box::pin(self.reread()).await
    }

    /// Returns the record from memory if the vault is unchanged since it was read.
    /// A look at its files less than `age` ago is good enough.
    fn current(&self, age: Duration) -> Option<Arc<CachedRecord>> {
        let memory = self.remembered()?;
        let mut confirmed = memory.confirmed.lock();
        if confirmed.elapsed() >= age {
            let seen_at = Instant::now();
            let marker = self.inner.store.change_marker();
            if marker.is_none() || marker != memory.marker {
                return None;
            }
            *confirmed = seen_at;
        }
        drop(confirmed);
        Some(memory)
    }

    /// Reads the record from the vault.
    async fn reread(&self) -> Result<Arc<CachedRecord>, Error> {
        let marker = self.inner.store.change_marker();
        match self.inner.store.read().await {
            Ok(read) => Ok(self.remember(read, marker)),
            Err(error) => {
                if let Error::Vault(vault::Error::Server(_)) = &error {
                    *self.outage() = Some((Instant::now(), error.clone()));
                }
                Err(error)
            }
        }
    }

    /// Fails if the vault's server has failed since `came`: one wait for it is enough for all steps of a call, and for all
    /// calls that wait together.
    fn refuse_in_outage(&self, came: Instant) -> Result<(), Error> {
        match &*self.outage() {
            Some((failed, error)) if *failed >= came => Err(error.clone()),
            _ => Ok(()),
        }
    }

    fn outage(&self) -> MutexGuard<'_, Option<(Instant, Error)>> {
        self.inner.outage.lock()
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

    /// Changes the record for what exists nowhere else, such as the value of a new key: while the vault cannot be used,
    /// this is tried again. The answer to a change that was made may be lost, so `change` may find its own work.
    async fn update_persistently<T>(
        &self,
        mut change: impl FnMut(&mut Record) -> Result<T, Error>,
    ) -> Result<(T, Arc<CachedRecord>), Error> {
        let (began, mut pause) = (tokio::time::Instant::now(), STORE_PAUSE);
        loop {
            match self.update(&mut change).await {
                Err(Error::Vault(error)) if may_pass(&error) && began.elapsed() < STORE_TIMEOUT => {
                    tracing::warn!(%error, "what BondMCP has just issued is not stored yet; this is tried again");
                    tokio::time::sleep(pause).await;
                    pause = (2 * pause).min(MAX_STORE_PAUSE);
                }
                outcome => return outcome,
            }
        }
    }

    fn remembered(&self) -> Option<Arc<CachedRecord>> {
        self.inner.memory.read().clone()
    }

    /// Caches what was read or written, unless the cache has a newer version.
    fn remember(
        &self,
        Versioned { record, version }: Versioned,
        marker: Option<ChangeMarker>,
    ) -> Arc<CachedRecord> {
        let seen = Arc::new(CachedRecord { record, version, marker, confirmed: Mutex::new(Instant::now()) });
        self.inner.was_read.notify_one();
        let mut memory = self.inner.memory.write();
        match &*memory {
            Some(newer) if newer.version > seen.version => newer.clone(),
            _ => {
                self.inner.redactor.hold("record", seen.record.secrets());
                memory.insert(seen).clone()
            }
        }
    }
}

/// Whether the same write may succeed later.
fn may_pass(error: &vault::Error) -> bool {
    matches!(
        error,
        vault::Error::Database(_)
            | vault::Error::Keychain(_)
            | vault::Error::KeyChanged
            | vault::Error::Locked
            | vault::Error::Server(_)
    )
}
