//! Changing the sealing key while other processes use the vault. The change is a sequence of steps after each of which
//! it can be interrupted and begun again.
//!
//! 1. The new key is stored beside the old one, so that every process can find it.
//! 2. The vault's known text is encrypted with the new key, which makes that the current one: from now on the database
//!    refuses records that another key encrypted, and a process that is refused looks for the new key.
//! 3. The records are encrypted anew, in batches, each by compare-and-swap. Their versions stay.
//! 4. What the old key can open is removed from the vault's files.
//! 5. The old key is deleted, unless a record still needs it.
//!
//! Where a record still needs an old key, the change is complete once a pass finds nothing to encrypt anew. Whoever then
//! asks for another change gets another new key.

use std::sync::Arc;

use super::{
    Error, Keyring, Keys, RecordId, Vault,
    database::{BATCH, Resealed, Row},
    seal::{KeyId, RecordKey, Sealer},
};

/// A change of the sealing key.
#[derive(Debug)]
pub struct Rekey {
    vault: Vault,
    /// Identities that records of this program's first version can have, since those do not contain it.
    candidates: Vec<RecordId>,
    next: Step,
    outcome: Rekeyed,
    /// The keys that the change makes useless.
    old: Vec<KeyId>,
    total: u64,
    seen: u64,
}

#[derive(Debug)]
enum Step {
    AddKey,
    /// A change that had ended when this one began has left more than one key, of which this is the current one.
    AddKeyBefore(KeyId),
    Switch,
    Reseal {
        after: Option<RecordKey>,
        changed: u64,
    },
    Purge,
    DeleteOldKey,
    Done,
}

/// How far the change is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    Records {
        done: u64,
        total: u64,
    },
    /// Something else was done.
    Step,
    Done,
}

/// What a change of the sealing key did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rekeyed {
    /// Whether the vault's current key became another one.
    pub switched: bool,
    /// Number of records that were encrypted anew.
    pub records: u64,
    /// Records of this program's first version of which the identity is not known. They need the old key.
    pub unnamed: u64,
    /// Records that no known key opens, or that are damaged.
    pub unreadable: u64,
    /// Whether this program keeps the keys, rather than the operator.
    pub keeps_keys: bool,
    /// Number of keys that are known now.
    pub known_keys: usize,
}

impl Rekey {
    #[must_use]
    pub fn new(vault: Vault, candidates: Vec<RecordId>) -> Self {
        let (next, outcome) = (Step::AddKey, Rekeyed::default());
        Self { vault, candidates, next, outcome, old: Vec::new(), total: 0, seen: 0 }
    }

    /// Whether the operator has put a new key beside the old one, so that the other processes need both.
    #[must_use]
    pub fn changes_operators_key(&self) -> bool {
        let keyring = self.vault.keyring();
        !keyring.makes_keys() && keyring.keys().len() > 1
    }

    #[must_use]
    pub fn outcome(&self) -> Rekeyed {
        self.outcome
    }

    /// Does the next step. After an error, and whenever the process ends, the change can be begun again.
    pub async fn step(&mut self) -> Result<Progress, Error> {
        self.next = match self.next {
            Step::AddKey => {
                let keyring = self.vault.keyring().with_new_key().await?;
                self.use_new_key(keyring)
            }
            Step::AddKeyBefore(used) => {
                let keyring = self.vault.keyring().with_key_before(used).await?;
                self.use_new_key(keyring)
            }
            Step::Switch => self.switch().await?,
            Step::Reseal { after, changed } => self.reseal(after, changed).await?,
            Step::Purge => self.purge().await?,
            Step::DeleteOldKey => self.delete_old_key().await?,
            Step::Done => Step::Done,
        };
        Ok(match self.next {
            Step::Reseal { .. } => Progress::Records { done: self.seen, total: self.total },
            Step::Done => Progress::Done,
            _ => Progress::Step,
        })
    }

    fn use_new_key(&mut self, keyring: Keyring) -> Step {
        self.outcome.keeps_keys = keyring.makes_keys();
        self.outcome.known_keys = keyring.keys().len();
        self.old = keyring.keys().iter().skip(1).map(|key| key.id()).collect();
        let sealer = self.vault.sealer();
        self.vault.set_keys(Keys { keyring, sealer });
        Step::Switch
    }

    async fn switch(&mut self) -> Result<Step, Error> {
        let keyring = self.vault.keyring();
        let database = &self.vault.database;
        let known_text = database.key_check().await?;
        let mut sealer = Sealer::of_vault(&known_text, keyring.keys())?;
        if sealer.current_id() != keyring.keys().first().map(|key| key.id())
            || !sealer.is_current(&known_text)
        {
            sealer = sealer.with_keys(keyring.keys());
            if !database.replace_key_check(&known_text, &sealer.known_text()?).await? {
                // Another change of keys was faster.
                return Err(Error::KeyChanged);
            }
            self.outcome.switched = true;
        }
        self.vault.set_keys(Keys { keyring, sealer: Arc::new(sealer) });
        self.total = database.count().await?;
        Ok(Step::Reseal { after: None, changed: 0 })
    }

    /// Encrypts a batch anew. Others can write between two batches. Whatever is written meanwhile is encrypted with the new key; that a pass over all records
    /// found nothing to do shows that it was so.
    async fn reseal(&mut self, after: Option<RecordKey>, changed: u64) -> Result<Step, Error> {
        if after.is_none() {
            (self.seen, self.outcome.unnamed, self.outcome.unreadable) = (0, 0, 0);
        }
        let rows = self.vault.database.rows_after(after.as_ref(), BATCH).await?;
        let Some(last) = rows.last().map(|row| row.key) else {
            return Ok(if changed > 0 {
                Step::Reseal { after: None, changed: 0 }
            } else {
                self.key_of_complete_change().map_or(Step::Purge, Step::AddKeyBefore)
            });
        };
        self.seen += rows.len() as u64;
        self.total = self.total.max(self.seen);
        let sealer = self.vault.sealer();
        let mut resealed = Vec::new();
        for row in rows.into_iter().filter(|row| !sealer.is_current(&row.sealed)) {
            match seal_anew(&sealer, &row, &self.candidates) {
                Ok(new) => resealed.push(Resealed { row, new }),
                Err(Error::Unnamed) => self.outcome.unnamed += 1,
                Err(Error::Tampered | Error::UnknownKey) => self.outcome.unreadable += 1,
                Err(error) => return Err(error),
            }
        }
        if !resealed.is_empty() {
            self.outcome.records += self.vault.database.replace_sealed(&resealed).await?;
        }
        Ok(Step::Reseal { after: Some(last), changed: changed + resealed.len() as u64 })
    }

    /// Returns the vault's current key if this run has only found that an earlier change had done all it could, but left
    /// the old key to records that need it. Otherwise the current key could never be changed again.
    fn key_of_complete_change(&self) -> Option<KeyId> {
        let is_complete = !self.outcome.switched && self.outcome.records == 0 && self.needs_old_key();
        if is_complete && self.outcome.keeps_keys { self.vault.sealer().current_id() } else { None }
    }

    fn needs_old_key(&self) -> bool {
        self.outcome.unnamed + self.outcome.unreadable > 0
    }

    async fn purge(&mut self) -> Result<Step, Error> {
        self.vault.purge().await?;
        Ok(Step::DeleteOldKey)
    }

    async fn delete_old_key(&mut self) -> Result<Step, Error> {
        if !self.needs_old_key() {
            let keyring = self.vault.keyring().without(self.old.clone()).await?;
            self.outcome.known_keys = keyring.keys().len();
            let known_text = self.vault.database.key_check().await?;
            self.vault.set_keys(Keys::of_vault(&known_text, keyring).await?);
        }
        Ok(Step::Done)
    }
}

fn seal_anew(sealer: &Sealer, row: &Row, candidates: &[RecordId]) -> Result<Vec<u8>, Error> {
    let (id, plaintext) = sealer.open_row(&row.key, row.version, &row.sealed, candidates)?;
    sealer.seal(&id, row.version, &plaintext)
}

impl Vault {
    fn keyring(&self) -> Keyring {
        self.keys.read().keyring.clone()
    }

    fn set_keys(&self, keys: Keys) {
        *self.keys.write() = keys;
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::{
        config::VaultLocation,
        vault::{RecordKind, database::New},
    };

    /// More than a batch.
    const RECORDS: u64 = 130;

    fn id(number: u64) -> RecordId {
        RecordId {
            kind: RecordKind::ACCOUNT,
            owner: format!("profile:{number}"),
            origin: "https://api.example".into(),
        }
    }

    fn location(directory: &Path) -> VaultLocation {
        VaultLocation::Sqlite(directory.join("data/vault.db"))
    }

    /// Opens the vault as a process does that starts now.
    async fn started(location: &VaultLocation) -> Vault {
        Vault::open(location, Keyring::in_key_file(location).await.unwrap()).await.unwrap()
    }

    async fn fill(vault: &Vault) {
        for number in 0..RECORDS {
            vault.write(&id(number), None, number.to_string().as_bytes(), None).await.unwrap();
        }
    }

    /// Checks that every record is there, writes some, and returns the version that all have now.
    async fn use_all(vault: &Vault, version: u64) -> u64 {
        for number in 0..RECORDS {
            let record = vault.read(&id(number)).await.unwrap().unwrap();
            assert_eq!((record.version, &record.plaintext[..]), (version, number.to_string().as_bytes()));
        }
        for number in 0..RECORDS {
            let text = number.to_string();
            let written = vault.write(&id(number), Some(version), text.as_bytes(), None).await.unwrap();
            assert_eq!(written, version + 1);
        }
        version + 1
    }

    fn copy(from: &Path, to: &Path) {
        let to = to.join("data");
        crate::vault::files::prepare_directory(&to).unwrap();
        for file in std::fs::read_dir(from.join("data")).unwrap() {
            let file = file.unwrap();
            std::fs::copy(file.path(), to.join(file.file_name())).unwrap();
        }
    }

    async fn run(rekey: &mut Rekey) -> Rekeyed {
        while rekey.step().await.unwrap() != Progress::Done {}
        rekey.outcome()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn interrupted_after_any_step_nothing_is_lost_and_the_next_run_completes_it() {
        let original = tempfile::tempdir().unwrap();
        let vault = started(&location(original.path())).await;
        fill(&vault).await;
        vault.close().await;
        let mut interrupted_after = 0;
        loop {
            let directory = tempfile::tempdir().unwrap();
            copy(original.path(), directory.path());
            let location = location(directory.path());
            let old = Keyring::of_keys(Keyring::in_key_file(&location).await.unwrap().keys().to_vec());
            let earlier = started(&location).await;
            let vault = started(&location).await;
            let mut rekey = Rekey::new(vault.clone(), vec![]);
            let mut is_done = false;
            for _ in 0..interrupted_after {
                is_done = rekey.step().await.unwrap() == Progress::Done;
            }
            drop(rekey);
            vault.close().await;

            // A process that has known the old key alone goes on, and so does one that starts now.
            let version = use_all(&earlier, 1).await;
            let later = started(&location).await;
            let version = use_all(&later, version).await;

            let outcome = run(&mut Rekey::new(later.clone(), vec![])).await;
            assert_eq!((outcome.unreadable, outcome.unnamed, outcome.known_keys), (0, 0, 1));
            use_all(&earlier, version).await;
            earlier.close().await;
            later.close().await;
            assert_eq!(Vault::open(&location, old.clone()).await.unwrap_err(), Error::WrongKey);
            let new = started(&location).await;
            let rows = new.database.rows_after(None, 1000).await.unwrap();
            assert_eq!(rows.len() as u64, RECORDS);
            let with_old = new.sealer().with_keys(old.keys());
            for row in rows {
                let opened = with_old.open_row(&row.key, row.version, &row.sealed, &[]);
                assert_eq!(opened.unwrap_err(), Error::UnknownKey);
            }
            new.close().await;
            if is_done {
                break;
            }
            interrupted_after += 1;
        }
        assert!(interrupted_after > 8, "{interrupted_after}");
    }

    #[tokio::test]
    async fn what_the_old_key_opened_is_no_longer_in_the_files() {
        let directory = tempfile::tempdir().unwrap();
        let location = location(directory.path());
        let vault = started(&location).await;
        fill(&vault).await;
        let old: Vec<_> =
            vault.database.rows_after(None, 1000).await.unwrap().into_iter().map(|row| row.sealed).collect();
        let key_check = vault.database.key_check().await.unwrap();
        run(&mut Rekey::new(vault.clone(), vec![])).await;
        for file in std::fs::read_dir(directory.path().join("data")).unwrap() {
            let path = file.unwrap().path();
            let bytes = std::fs::read(&path).unwrap();
            // The nonce is followed by the ciphertext.
            let heads: std::collections::HashSet<&[u8]> = bytes.windows(24).collect();
            for sealed in old.iter().chain([&key_check]) {
                assert!(!heads.contains(&sealed[33..57]), "{}", path.display());
            }
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn writers_that_know_only_the_old_key_lose_no_write_while_it_is_changed() {
        let directory = tempfile::tempdir().unwrap();
        let location = location(directory.path());
        let vault = started(&location).await;
        fill(&vault).await;
        let mut processes = tokio::task::JoinSet::new();
        for writer in 0..4_u64 {
            let vault = started(&location).await;
            processes.spawn(async move {
                let mut writes = 0_u64;
                for round in 0..60_u64 {
                    let id = id((round * 7 + writer) % 10);
                    loop {
                        let record = vault.read(&id).await.unwrap().unwrap();
                        match vault.write(&id, Some(record.version), &record.plaintext, None).await {
                            Err(Error::Conflict) => {}
                            written => break assert_eq!(written.unwrap(), record.version + 1),
                        }
                    }
                    writes += 1;
                }
                writes
            });
        }
        for _ in 0..3 {
            let outcome = run(&mut Rekey::new(vault.clone(), vec![])).await;
            assert!(outcome.switched && outcome.known_keys == 1, "{outcome:?}");
        }
        let writes: u64 = processes.join_all().await.into_iter().sum();
        let mut versions = 0;
        for number in 0..10 {
            versions += vault.read(&id(number)).await.unwrap().unwrap().version - 1;
        }
        assert_eq!(versions, writes);
    }

    #[tokio::test]
    async fn with_keys_of_the_operator_the_first_one_becomes_current_and_a_process_without_it_writes_nothing()
    {
        let directory = tempfile::tempdir().unwrap();
        let location = location(directory.path());
        let open = async |keys: &[u8]| Vault::open(&location, Keyring::of(keys)).await;
        let replica = open(&[1]).await.unwrap();
        fill(&replica).await;
        // Replicas are restarted one after the other; until the change they all use the old key.
        let restarted = open(&[2, 1]).await.unwrap();
        use_all(&restarted, 1).await;
        use_all(&replica, 2).await;

        let outcome = run(&mut Rekey::new(restarted.clone(), vec![])).await;
        let expected = Rekeyed {
            switched: true,
            records: RECORDS,
            known_keys: 2,
            keeps_keys: false,
            ..Rekeyed::default()
        };
        assert_eq!(outcome, expected);
        assert_eq!(replica.read(&id(0)).await.unwrap_err(), Error::UnknownKey);
        assert_eq!(replica.write(&id(0), Some(3), b"lost?", None).await.unwrap_err(), Error::UnknownKey);
        assert_eq!(replica.write(&id(999), None, b"lost?", None).await.unwrap_err(), Error::UnknownKey);
        use_all(&restarted, 3).await;
        assert_eq!(open(&[1]).await.unwrap_err(), Error::WrongKey);
        let again = run(&mut Rekey::new(open(&[2]).await.unwrap(), vec![])).await;
        assert_eq!(again, Rekeyed { known_keys: 1, ..Rekeyed::default() });
    }

    #[tokio::test]
    async fn a_damaged_record_keeps_its_key_and_the_current_key_can_be_changed_again() {
        let directory = tempfile::tempdir().unwrap();
        let location = location(directory.path());
        let vault = started(&location).await;
        fill(&vault).await;
        let row = vault.database.rows_after(None, 1).await.unwrap().remove(0);
        let mut new = row.sealed.clone();
        *new.last_mut().unwrap() ^= 1;
        assert_eq!(vault.database.replace_sealed(&[Resealed { row, new }]).await.unwrap(), 1);

        let mut before = vault.keyring().keys().to_vec();
        for known_keys in 2..5 {
            let vault = started(&location).await;
            let outcome = run(&mut Rekey::new(vault.clone(), vec![])).await;
            let records = RECORDS - 1;
            let expected = Rekeyed {
                switched: true,
                records,
                unreadable: 1,
                keeps_keys: true,
                known_keys,
                ..Rekeyed::default()
            };
            assert_eq!(outcome, expected);
            let old = vault.sealer().with_keys(&before);
            let rows = vault.database.rows_after(None, 1000).await.unwrap();
            let opened = rows.iter().map(|row| old.open_row(&row.key, row.version, &row.sealed, &[]));
            let refusals: Vec<_> = opened.map(Result::unwrap_err).collect();
            assert_eq!(refusals.iter().filter(|error| **error == Error::UnknownKey).count() as u64, records);
            before = vault.keyring().keys().to_vec();
        }
    }

    #[tokio::test]
    async fn the_old_key_stays_while_a_record_of_the_first_format_cannot_be_named() {
        let directory = tempfile::tempdir().unwrap();
        let location = location(directory.path());
        let vault = started(&location).await;
        let key = vault.keyring().keys()[0].clone();
        let database = &vault.database;
        // A vault of the first format has no current key.
        let check = RecordId { kind: RecordKind::ACCOUNT, owner: String::new(), origin: "key check".into() };
        let first = crate::vault::seal::seal_first_format(&key, &check, 0, b"bondmcp-server");
        let known_text = database.key_check().await.unwrap();
        assert!(database.replace_key_check(&known_text, &first).await.unwrap());
        vault.refreshed_keys().await.unwrap();
        for number in 0..2 {
            let sealed = crate::vault::seal::seal_first_format(&key, &id(number), 1, b"an old record");
            let (key, kind) = (vault.sealer().record_key(&id(number)), "account".to_owned());
            assert!(
                database
                    .write(&New { key, kind, version: 1, sealed, lifetime: None, forgets: false })
                    .await
                    .unwrap()
            );
        }

        let outcome = run(&mut Rekey::new(vault.clone(), vec![id(0)])).await;
        assert_eq!((outcome.records, outcome.unnamed, outcome.known_keys), (1, 1, 2));
        let vault = started(&location).await;
        for number in 0..2 {
            assert_eq!(&vault.read(&id(number)).await.unwrap().unwrap().plaintext[..], b"an old record");
        }
        let outcome = run(&mut Rekey::new(vault.clone(), vec![id(1)])).await;
        assert_eq!((outcome.records, outcome.unnamed, outcome.known_keys), (1, 0, 1));
        for number in 0..2 {
            assert_eq!(&vault.read(&id(number)).await.unwrap().unwrap().plaintext[..], b"an old record");
        }
    }
}
