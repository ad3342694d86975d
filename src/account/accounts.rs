//! What the accounts of all owners share, and the accounts that are open. What belongs to one owner is in [`Account`].

use std::{sync::Arc, time::Duration};

use parking_lot::{Mutex, RwLock};
use tokio::sync::Notify;
use tokio_util::task::TaskTracker;

use super::{
    Account, AuditEntry, AuditReader, Authenticator, Error, Inner, Owner, PerOwner, audit::Audit,
    cache::Cache, renewal::Renewals, shared_vault::SharedVault, spending::Spending, store::Store,
};
use crate::{
    bondmcp::Client,
    clock::{Clock, Timestamp},
    config::{EnvironmentCredentials, Profile, Settings},
    redact::Redactor,
    vault::{RecordId, RecordKind, Vault},
};

/// Longest wait of a shutdown for work that must not be interrupted.
const SHUTDOWN_GRACE_PERIOD: Duration = Duration::from_secs(5);

/// The accounts of all owners. Clones share everything.
#[derive(Clone, Debug)]
pub struct Accounts {
    shared: Arc<Shared>,
    /// Apart from what the accounts share, or they would keep each other.
    open: Arc<PerOwner<Inner>>,
}

/// What all accounts share.
#[derive(Debug)]
struct Shared {
    /// The operator's own profile: nobody else uses the credentials in the environment.
    profile: Profile,
    environment: EnvironmentCredentials,
    /// The command line that runs this program for the operator's profile in a terminal.
    command_line: Arc<str>,
    client: Client,
    clock: Clock,
    redactor: Redactor,
    vault: Arc<SharedVault>,
    audit: Arc<Audit>,
    /// Tasks that run to their end even when their caller is gone.
    tasks: TaskTracker,
}

impl Accounts {
    /// Creates the accounts as `settings` say. Nothing is opened and no request is made before it is needed.
    #[must_use]
    pub fn new(
        settings: &Settings,
        command_line: String,
        client: Client,
        clock: Clock,
        redactor: Redactor,
    ) -> Self {
        let sealing_keys: Vec<_> = settings.sealing_key.secrets().collect();
        redactor.hold(
            "environment",
            settings.environment.secrets().chain(&sealing_keys).chain(settings.vault.secrets()),
        );
        let shared = Shared {
            profile: settings.profile.clone(),
            environment: settings.environment.clone(),
            command_line: command_line.into(),
            client,
            clock,
            redactor,
            vault: Arc::new(SharedVault::new(settings)),
            audit: Arc::new(Audit::new(settings.data_dir.clone())),
            tasks: TaskTracker::new(),
        };
        Self { shared: Arc::new(shared), open: Arc::default() }
    }

    /// Returns the owner's account: the same one for all who use it at the same time.
    #[must_use]
    pub fn open(&self, owner: &Owner) -> Account {
        Account { inner: self.open.get_or_open(owner, || self.shared.account(owner)) }
    }

    /// Returns the account of the operator's own profile.
    #[must_use]
    pub fn local(&self) -> Account {
        self.open(&self.local_owner())
    }

    /// Returns the owner of whatever is requested on the operator's own behalf.
    #[must_use]
    pub fn local_owner(&self) -> Owner {
        Owner::Profile(self.shared.profile.clone())
    }

    /// Returns what finds out who somebody is whose account is not known yet. What that person types is known to the
    /// process-wide redactor as long as it is in use, and to no owner's, nor to another stranger's.
    #[must_use]
    pub fn authenticator(&self) -> Authenticator {
        let Shared { client, clock, tasks, .. } = &*self.shared;
        Authenticator::for_strangers(client.for_stranger(), clock.clone(), tasks.clone())
    }

    /// Returns the vault, and opens it if it is not open yet.
    pub async fn vault(&self) -> Result<Vault, Error> {
        Ok(self.shared.vault.open().await?.clone())
    }

    /// Refuses a vault that a newer version of this program has migrated. Neither opens nor creates it.
    pub async fn refuse_newer_vault(&self) -> Result<(), Error> {
        self.shared.vault.refuse_newer().await
    }

    /// The time of day.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.shared.clock.now()
    }

    /// Returns a reader of the audit log: the entries of all owners and processes.
    #[must_use]
    pub fn audit_reader(&self) -> AuditReader {
        self.shared.audit.reader()
    }

    /// Records something that no tool call has done.
    pub fn audit(&self, entry: &AuditEntry) {
        self.shared.audit.note(entry);
    }

    /// Returns the process-wide redactor. It finds the secrets of all owners: what it has redacted is for the operator,
    /// never for an owner.
    #[must_use]
    pub fn redactor(&self) -> &Redactor {
        &self.shared.redactor
    }

    /// Waits for work that must not be interrupted, of all owners, then closes the vault. The wait is short, since hosts
    /// do not wait long; the next start finds an unfinished API key change by its intent.
    pub async fn close(&self) {
        for account in self.open.opened() {
            self.shared.tasks.spawn(async move { account.spending.store_news().await });
        }
        self.shared.tasks.close();
        if tokio::time::timeout(SHUTDOWN_GRACE_PERIOD, self.shared.tasks.wait()).await.is_err() {
            tracing::warn!("shutdown: a request to BondMCP did not end in time and was abandoned");
        }
        self.shared.vault.close().await;
        self.shared.audit.close();
    }
}

impl Shared {
    fn account(&self, owner: &Owner) -> Inner {
        let (environment, redactor) = match owner {
            Owner::Profile(profile) if *profile == self.profile => {
                (self.environment.clone(), self.redactor.scope())
            }
            Owner::Profile(_) | Owner::Subject(_) => {
                (EnvironmentCredentials::default(), self.redactor.scope_among_many())
            }
        };
        let origin = self.client.base_url().as_str().to_owned();
        let id = RecordId { kind: RecordKind::ACCOUNT, owner: record_owner(owner, &environment), origin };
        let spending = Spending::new(self.vault.clone(), &id, self.clock.clone(), self.tasks.clone());
        Inner {
            owner: owner.clone(),
            name: owner.audit_name(),
            environment,
            command_line: Arc::clone(&self.command_line),
            client: self.client.for_owner(redactor.clone(), &owner.person().to_string()),
            clock: self.clock.clone(),
            redactor,
            store: Store { shared: Arc::clone(&self.vault), id, clock: self.clock.clone() },
            memory: RwLock::new(None),
            loading: tokio::sync::Mutex::new(()),
            outage: Mutex::default(),
            renewals: Renewals::default(),
            models: Cache::default(),
            plan: Cache::default(),
            spending: Arc::new(spending),
            audit: Arc::clone(&self.audit),
            was_read: Notify::new(),
            tasks: self.tasks.clone(),
        }
    }
}

/// Returns the name of an owner's record. Credentials from the environment have a separate record, so that they do not
/// change the person's.
fn record_owner(owner: &Owner, environment: &EnvironmentCredentials) -> String {
    match &environment.login {
        Some(login) => format!("environment:{}", login.email.to_lowercase()),
        None => owner.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::{bondmcp::Timing, config::Flags, secret::SecretString};

    /// Longest wait; the test does not depend on timing.
    const SAFETY_NET: Duration = Duration::from_secs(20);

    /// Accounts of a vault that is never opened.
    fn accounts() -> Accounts {
        let sealing_key = |name: &str| (name == "BONDMCP_SEALING_KEY").then(|| "07".repeat(32).into());
        let flags = Flags { data_dir: Some("never-made".into()), ..Flags::default() };
        let settings = Settings::load(flags, None, sealing_key).unwrap();
        let (redactor, clock) = (Redactor::default(), Clock::system());
        let base_url = settings.base_url.clone();
        let client = Client::new(base_url, redactor.clone(), clock.clone(), Timing::default());
        Accounts::new(&settings, "bondmcp-server".to_owned(), client, clock, redactor)
    }

    #[test]
    fn an_account_that_is_let_go_takes_its_secrets_along() {
        let accounts = accounts();
        let subject = |number: u64| Owner::Subject(number.to_string());
        let [used, unused, newest] =
            ["used", "unused", "newest"].map(|who| format!("canary-of-the-{who}-one"));
        let open = |owner: &Owner, secret: &String| {
            let account = accounts.open(owner);
            account.redactor().hold("record", [&SecretString::from(secret.clone())]);
            account.redactor().remember(&SecretString::from(format!("former-{secret}")));
            account
        };
        let finds = |secret: &String| {
            let former = format!("former-{secret}");
            [secret, &former].map(|text| accounts.redactor().redact(text) != *text)
        };
        let assert_found = |expected: [[bool; 2]; 3]| {
            let (found, began) = (|| [&used, &unused, &newest].map(finds), Instant::now());
            // What is removed is dropped as soon as no other thread can be reading it.
            while found() != expected && began.elapsed() < SAFETY_NET {
                accounts.open.settle();
                std::thread::yield_now();
            }
            assert_eq!(found(), expected);
        };
        let in_use = open(&subject(0), &used);
        drop(open(&subject(1), &unused));
        assert_found([[true; 2], [true; 2], [false; 2]]);

        for number in 2..=PerOwner::<Inner>::KEPT + 1 {
            drop(accounts.open(&subject(number)));
        }
        drop(open(&subject(u64::MAX), &newest));
        assert_found([[true; 2], [false; 2], [true; 2]]);

        drop(in_use);
        assert_found([[false; 2], [false; 2], [true; 2]]);
    }
}
