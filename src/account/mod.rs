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
mod forgotten;
mod grant;
mod health;
mod identity;
mod intent;
mod key_list;
mod keys;
mod ledger;
mod memory;
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
mod retries;
mod rotation;
mod rotation_age;
mod session;
mod shared_vault;
mod sign_in;
mod spending;
mod status;
mod store;
mod usd;

use std::{sync::Arc, time::Instant};

use parking_lot::{Mutex, RwLock};
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
    forgotten::Forgotten,
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
    audit::Audit, cache::Cache, memory::CachedRecord, renewal::Renewals, spending::Spending, store::Store,
};
use crate::{
    bondmcp::{
        Client,
        wire::{Model, Subscription},
    },
    clock::{Clock, Timestamp},
    config::{BaseUrl, EnvironmentCredentials, VaultLocation},
    redact::Redactor,
    vault::{KeySurvey, RecordId},
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

    /// Returns the command that signs in from a terminal, in backticks, with what it needs besides.
    #[must_use]
    pub fn login_command(&self, email: Option<&str>) -> String {
        self.command("login", email)
    }

    /// Returns the command that creates an account from a terminal, as [`Self::login_command`].
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

    /// The time of day.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.inner.clock.now()
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
        // The URL of PostgreSQL holds a password, so it is in no command.
        let needs = match self.inner.store.shared.location {
            VaultLocation::Sqlite(_) => "",
            VaultLocation::Postgres(_) => {
                " (with this server's BONDMCP_VAULT and sealing key in the environment)"
            }
        };
        format!("`{} {verb}{email}`{needs}", self.inner.command_line)
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
}
