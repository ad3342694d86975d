//! The vault does the same over SQLite and over PostgreSQL.

use std::time::Duration;

use crate::common::{postgres, vault, within};
use bondmcp_server::{
    config::VaultLocation,
    vault::{Error, ExportFile, Progress, RecordId, RecordKind, Rekey, TransferError, Vault, refuse_newer},
};
use chrono::TimeDelta;
use futures_util::future::join_all;
use sqlx::{Connection as _, Row as _, SqliteConnection};
use tempfile::TempDir;

const KIND: RecordKind = RecordKind::new("test");
const OWNER: &str = "environment:ada@example.com";
const ORIGIN: &str = "https://api.example";
const LONG: Duration = Duration::from_hours(1);

/// A place for a vault that there is not yet.
struct Place {
    location: VaultLocation,
    kept: Kept,
}

enum Kept {
    Directory(TempDir),
    Database(postgres::Database),
}

impl Place {
    #[expect(clippy::unnecessary_wraps, reason = "as the other, which may have no server")]
    fn sqlite() -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let location = VaultLocation::Sqlite(directory.path().join("data/vault.db"));
        Some(Self { location, kept: Kept::Directory(directory) })
    }

    #[track_caller]
    fn postgres() -> Option<Self> {
        let database = postgres::database()?;
        let location = VaultLocation::Postgres(database.url.parse().unwrap());
        Some(Self { location, kept: Kept::Database(database) })
    }

    /// Opens the vault as another process would.
    async fn open(&self) -> Vault {
        self.open_with(&[1]).await.unwrap()
    }

    async fn open_with(&self, keys: &[u8]) -> Result<Vault, Error> {
        vault(&self.location, keys).await
    }

    /// Runs SQL behind the vault's back; returns the rows with their columns as text, separated by `|`.
    async fn sql(&self, sql: &str) -> Vec<String> {
        match &self.kept {
            Kept::Database(database) => database.psql(sql),
            Kept::Directory(_) => {
                let mut database =
                    SqliteConnection::connect(&format!("sqlite://{}", self.location)).await.unwrap();
                let rows = sqlx::query(sqlx::AssertSqlSafe(sql)).fetch_all(&mut database).await.unwrap();
                // Otherwise its thread still removes files.
                database.close().await.unwrap();
                rows.iter().map(|row| row.get_unchecked::<String, _>(0)).collect()
            }
        }
    }

    /// Sets the end of all leases that there are, from now.
    async fn move_leases(&self, by: TimeDelta) {
        let seconds = by.num_seconds();
        self.sql(&match &self.kept {
            Kept::Database(_) => {
                format!("UPDATE leases SET expires = clock_timestamp() + interval '{seconds} s'")
            }
            Kept::Directory(_) => format!("UPDATE leases SET until = (unixepoch() + {seconds}) * 1000"),
        })
        .await;
    }

    async fn count(&self, table: &str) -> String {
        self.sql(&format!("SELECT CAST(count(*) AS TEXT) FROM {table}")).await.remove(0)
    }
}

/// Makes a test for each store from functions that take a place.
macro_rules! over_both {
    ($($name:ident)*) => {
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                super::$name(super::Place::sqlite().unwrap()).await;
            })*
        }

        mod postgresql {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                let Some(place) = super::Place::postgres() else { return };
                super::$name(place).await;
            })*
        }
    };
}

over_both! {
    a_record_has_versions_and_is_deleted
    many_writers_lose_no_write
    the_records_of_one_kind_are_listed_without_those_that_have_expired
    a_lease_is_held_by_one_and_runs_out
    who_waits_for_a_lease_goes_on_when_it_is_released_or_ends_or_the_record_is_written
    who_waits_for_a_change_goes_on_when_the_record_is_written_or_deleted_and_not_before
    what_is_used_once_is_used_by_one
    what_has_expired_is_not_there_and_is_deleted_by_whoever_comes_by
    a_thief_of_the_database_learns_kinds_and_nothing_else
    another_key_and_a_newer_schema_are_refused
    a_newer_schema_is_seen_without_opening_the_vault
    processes_that_start_at_once_make_one_vault
    a_changed_sealing_key_is_noticed_by_processes_that_know_it
    a_process_without_the_new_key_reads_and_writes_nothing
    a_damaged_import_adds_nothing
    what_is_imported_from_sqlite_expires_when_it_would_have
    what_is_imported_from_postgresql_expires_when_it_would_have
}

#[tokio::test]
async fn sqlite_is_purged_by_whoever_writes() {
    is_purged_by_whoever_writes(Place::sqlite().unwrap()).await;
}

#[tokio::test]
async fn postgresql_is_purged_by_whoever_writes() {
    let Some(place) = Place::postgres() else { return };
    is_purged_by_whoever_writes(place).await;
}

/// Without being opened anew.
async fn is_purged_by_whoever_writes(place: Place) {
    let vault = place.open().await;
    vault.write(&id("expired"), None, b"x", Some(Duration::ZERO)).await.unwrap();
    vault.write(&id("a"), None, b"x", None).await.unwrap();
    assert_eq!(place.count("records").await, "2", "not with each write");
    tokio::time::pause();
    tokio::time::advance(Duration::from_mins(11)).await;
    tokio::time::resume();
    vault.write(&id("b"), None, b"x", None).await.unwrap();
    assert_eq!(place.count("records").await, "2");
}

fn id(owner: &str) -> RecordId {
    RecordId { kind: KIND, owner: owner.to_owned(), origin: ORIGIN.to_owned() }
}

async fn a_record_has_versions_and_is_deleted(place: Place) {
    let (vault, id) = (place.open().await, id("o"));
    assert!(vault.read(&id).await.unwrap().is_none());
    assert_eq!(vault.write(&id, Some(1), b"x", None).await.unwrap_err(), Error::Conflict);
    assert_eq!(vault.write(&id, None, b"one", None).await.unwrap(), 1);
    assert_eq!(vault.write(&id, None, b"x", None).await.unwrap_err(), Error::Conflict);
    assert_eq!(vault.write(&id, Some(1), b"two", None).await.unwrap(), 2);
    for stale in [None, Some(1), Some(3)] {
        assert_eq!(vault.write(&id, stale, b"x", None).await.unwrap_err(), Error::Conflict);
    }
    let other = place.open().await;
    let record = other.read(&id).await.unwrap().unwrap();
    assert_eq!((record.version, &record.plaintext[..]), (2, &b"two"[..]));
    let of_other_kind = RecordId { kind: RecordKind::new("other"), ..id.clone() };
    assert!(vault.read(&of_other_kind).await.unwrap().is_none());

    assert_eq!(other.delete(&id, 1).await.unwrap_err(), Error::Conflict);
    for _ in 0..2 {
        other.delete(&id, 2).await.unwrap();
    }
    assert!(vault.read(&id).await.unwrap().is_none());
    assert_eq!(vault.write(&id, None, b"anew", None).await.unwrap(), 1);
}

async fn many_writers_lose_no_write(place: Place) {
    let id = id("o");
    let vaults = join_all((0..4).map(|_| place.open())).await;
    let writers = vaults.into_iter().map(|vault| {
        let id = id.clone();
        tokio::spawn(async move {
            for _ in 0..25 {
                loop {
                    let record = vault.read(&id).await.unwrap();
                    let count = record.as_ref().map_or(0, |record| record.plaintext[0]);
                    let version = record.map(|record| record.version);
                    match vault.write(&id, version, &[count + 1], None).await {
                        Ok(_) => break,
                        Err(error) => assert_eq!(error, Error::Conflict),
                    }
                }
            }
        })
    });
    for writer in join_all(writers).await {
        writer.unwrap();
    }
    let record = place.open().await.read(&id).await.unwrap().unwrap();
    assert_eq!((record.plaintext[0], record.version), (100, 100));
}

async fn the_records_of_one_kind_are_listed_without_those_that_have_expired(place: Place) {
    let vault = place.open().await;
    let of_kind = |kind: &'static str, owner: &str| RecordId { kind: RecordKind::new(kind), ..id(owner) };
    for number in 0..150 {
        vault.write(&id(&number.to_string()), None, b"content", None).await.unwrap();
    }
    vault.write(&of_kind("other", "o"), None, b"content", None).await.unwrap();
    vault.write(&id("expired"), None, b"content", Some(Duration::ZERO)).await.unwrap();
    vault.write(&id("later"), None, b"content", Some(LONG)).await.unwrap();
    vault.write(&id("7"), Some(1), b"changed", None).await.unwrap();

    let listed = place.open().await.list(&KIND).await.unwrap();
    assert_eq!(listed.len(), 151);
    let (_, seventh) = listed.iter().find(|(found, _)| *found == id("7")).unwrap();
    assert_eq!((seventh.version, &seventh.plaintext[..]), (2, &b"changed"[..]));
    assert_eq!(vault.list(&RecordKind::new("other")).await.unwrap()[0].0, of_kind("other", "o"));
    assert!(vault.list(&RecordKind::new("none")).await.unwrap().is_empty());

    let damage = "UPDATE records SET version = 9 WHERE version = 2";
    place.sql(damage).await;
    assert_eq!(vault.list(&KIND).await.unwrap().len(), 150, "a damaged record does not hide the others");
}

async fn a_lease_is_held_by_one_and_runs_out(place: Place) {
    let (vault, other, id) = (place.open().await, place.open().await, id("o"));
    assert!(!other.is_leased(&id).await.unwrap());
    assert!(vault.acquire_lease(&id, "a", LONG).await.unwrap());
    assert!(other.is_leased(&id).await.unwrap());
    assert!(!other.acquire_lease(&id, "b", LONG).await.unwrap());
    assert!(vault.acquire_lease(&id, "a", LONG).await.unwrap(), "its holder extends it");
    place.move_leases(TimeDelta::seconds(-1)).await;
    assert!(!other.is_leased(&id).await.unwrap());
    assert!(other.acquire_lease(&id, "b", LONG).await.unwrap(), "it has run out");
    vault.release_lease(&id, "a").await.unwrap();
    assert!(!vault.acquire_lease(&id, "a", LONG).await.unwrap(), "only its holder gives it back");
    other.release_lease(&id, "b").await.unwrap();
    assert!(vault.acquire_lease(&id, "a", LONG).await.unwrap());
    place.move_leases(TimeDelta::hours(3)).await;
    assert!(
        other.acquire_lease(&id, "b", LONG).await.unwrap(),
        "one from before the database's clock was set back blocks nobody"
    );
}

async fn who_waits_for_a_lease_goes_on_when_it_is_released_or_ends_or_the_record_is_written(place: Place) {
    let (vault, id) = (place.open().await, id("o"));
    within(vault.lease_wait(&id, 0, LONG)).await.unwrap();

    for is_released in [true, false] {
        assert!(vault.acquire_lease(&id, "holder", LONG).await.unwrap());
        let others = join_all((0..3).map(|_| place.open())).await;
        let waiting = others.into_iter().map(|other| {
            let id = id.clone();
            tokio::spawn(async move { other.lease_wait(&id, 0, LONG).await })
        });
        let waiting: Vec<_> = waiting.collect();
        // Nothing has changed, whoever looks.
        vault.lease_wait(&id, 0, Duration::from_millis(300)).await.unwrap();
        assert!(waiting.iter().all(|waiting| !waiting.is_finished()));
        if is_released {
            vault.release_lease(&id, "holder").await.unwrap();
        } else {
            vault.write(&id, None, b"x", None).await.unwrap();
        }
        for waiting in waiting {
            within(waiting).await.unwrap().unwrap();
        }
    }
    // Nobody releases it.
    assert!(vault.acquire_lease(&id, "holder", Duration::from_millis(50)).await.unwrap());
    within(vault.lease_wait(&id, 1, LONG)).await.unwrap();
    assert!(!vault.is_leased(&id).await.unwrap());
}

async fn who_waits_for_a_change_goes_on_when_the_record_is_written_or_deleted_and_not_before(place: Place) {
    let (vault, id) = (place.open().await, id("o"));
    let waiting = async |seen: u64| {
        let others = join_all((0..3).map(|_| place.open())).await;
        let waiting = others.into_iter().map(|other| {
            let id = id.clone();
            tokio::spawn(async move { other.change_wait(&id, seen, LONG).await })
        });
        let waiting: Vec<_> = waiting.collect();
        // Nothing has changed, whoever looks.
        vault.change_wait(&id, seen, Duration::from_millis(300)).await.unwrap();
        assert!(waiting.iter().all(|waiting| !waiting.is_finished()));
        waiting
    };
    let for_the_first = waiting(0).await;
    let version = vault.write(&id, None, b"x", None).await.unwrap();
    for waiting in for_the_first {
        within(waiting).await.unwrap().unwrap();
    }
    within(vault.change_wait(&id, 0, LONG)).await.unwrap();
    let for_the_end = waiting(version).await;
    vault.delete(&id, version).await.unwrap();
    for waiting in for_the_end {
        within(waiting).await.unwrap().unwrap();
    }
}

async fn what_is_used_once_is_used_by_one(place: Place) {
    let id = id("o");
    let vaults = join_all((0..4).map(|_| place.open())).await;
    let uses = vaults.iter().flat_map(|vault| (0..10).map(|_| vault.insert_once(&id, LONG)));
    let first = join_all(uses).await.into_iter().filter(|first| *first.as_ref().unwrap()).count();
    assert_eq!(first, 1);
}

async fn what_has_expired_is_not_there_and_is_deleted_by_whoever_comes_by(place: Place) {
    let vault = place.open().await;
    vault.write(&id("kept"), None, b"x", None).await.unwrap();
    vault.write(&id("later"), None, b"x", Some(LONG)).await.unwrap();
    vault.write(&id("past"), None, b"x", Some(Duration::ZERO)).await.unwrap();
    vault.acquire_lease(&id("past"), "holder", Duration::ZERO).await.unwrap();
    vault.acquire_lease(&id("kept"), "holder", LONG).await.unwrap();

    assert!(vault.read(&id("past")).await.unwrap().is_none());
    let stale = vault.write(&id("past"), Some(1), b"y", None).await;
    assert_eq!(stale.unwrap_err(), Error::Conflict, "there is no record to replace");
    // It makes way for a new one, and what was used before its expiry can be used again.
    assert_eq!(vault.write(&id("past"), None, b"z", Some(Duration::ZERO)).await.unwrap(), 1);
    assert!(vault.insert_once(&id("past"), Duration::ZERO).await.unwrap());

    assert_eq!((place.count("records").await, place.count("leases").await), ("3".into(), "2".into()));
    // Another process comes by.
    place.open().await;
    assert_eq!((place.count("records").await, place.count("leases").await), ("2".into(), "1".into()));
    for kept in ["kept", "later"] {
        assert!(vault.read(&id(kept)).await.unwrap().is_some());
    }
    vault.write(&id("later"), Some(1), b"x", Some(Duration::ZERO)).await.unwrap();
    vault.purge_expired().await.unwrap();
    assert_eq!(place.count("records").await, "1");
}

async fn a_thief_of_the_database_learns_kinds_and_nothing_else(place: Place) {
    let vault = place.open().await;
    let secret = "canary-of-the-record";
    for kind in ["account", "test"] {
        let id = RecordId { kind: RecordKind::new(kind), ..id(OWNER) };
        vault.write(&id, None, secret.as_bytes(), Some(LONG)).await.unwrap();
        vault.acquire_lease(&id, "1f0e8d6a", LONG).await.unwrap();
    }
    vault.close().await;

    let tables = match &place.kept {
        Kept::Database(_) => "SELECT tablename::text FROM pg_tables WHERE schemaname = 'public'",
        Kept::Directory(_) => "SELECT name FROM sqlite_schema WHERE type = 'table'",
    };
    let mut stolen = String::new();
    for table in place.sql(tables).await {
        stolen += &match &place.kept {
            // Bytes are shown as hex; text is compared in both forms below.
            Kept::Database(_) => place.sql(&format!("SELECT t::text FROM {table} t")).await.join("\n"),
            Kept::Directory(_) => String::new(),
        };
    }
    let mut stolen = stolen.into_bytes();
    if let Kept::Directory(directory) = &place.kept {
        for file in std::fs::read_dir(directory.path().join("data")).unwrap() {
            stolen.extend(std::fs::read(file.unwrap().path()).unwrap());
        }
    }
    let finds = |text: &str| {
        let hex = text.bytes().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"));
        [text.to_owned(), hex]
            .iter()
            .any(|form| stolen.windows(form.len()).any(|part| part == form.as_bytes()))
    };
    assert!(finds("account") && finds("1f0e8d6a"), "all of it is looked at");
    for private in [OWNER, "ada@", "example.com", ORIGIN, "api.example", "environment", secret] {
        assert!(!finds(private), "{private}");
    }
}

async fn another_key_and_a_newer_schema_are_refused(place: Place) {
    place.open().await.write(&id("o"), None, b"x", None).await.unwrap();
    assert_eq!(place.open_with(&[2]).await.unwrap_err(), Error::WrongKey);
    let success = if matches!(place.kept, Kept::Database(_)) { "true" } else { "1" };
    place
        .sql(&format!(
            "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
             VALUES (999, 'newer', {success}, '', 0)"
        ))
        .await;
    assert_eq!(place.open_with(&[1]).await.unwrap_err(), Error::Newer);
}

async fn a_newer_schema_is_seen_without_opening_the_vault(place: Place) {
    assert_eq!(refuse_newer(&place.location).await, Ok(()), "there is none");
    place.open().await.close().await;
    let newer = match &place.kept {
        Kept::Directory(_) => {
            // A vault from before the version was in the header gets it when it is opened.
            let noted = place.sql("PRAGMA user_version").await;
            place.sql("PRAGMA user_version = 0").await;
            place.open().await.close().await;
            assert_eq!(place.sql("PRAGMA user_version").await, noted);
            assert_eq!(place.sql("SELECT max(version) FROM _sqlx_migrations").await, noted);
            the_header_is_written_once_nobody_reads_an_older_state(&place).await;
            "PRAGMA user_version = 999"
        }
        Kept::Database(_) => {
            "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
             VALUES (999, 'newer', true, '', 0)"
        }
    };
    assert_eq!(refuse_newer(&place.location).await, Ok(()), "it is this version's");
    place.sql(newer).await;
    assert_eq!(refuse_newer(&place.location).await, Err(Error::Newer));
}

/// SQLite keeps it in the write-ahead log until then, where an older binary does not look.
async fn the_header_is_written_once_nobody_reads_an_older_state(place: &Place) {
    let VaultLocation::Sqlite(path) = &place.location else { panic!() };
    let in_the_file = || std::fs::read(path).unwrap()[60..64].to_vec();
    let noted = in_the_file();
    place.sql("PRAGMA user_version = 0").await;
    let mut reader = SqliteConnection::connect(&format!("sqlite://{}", path.display())).await.unwrap();
    let mut reading = reader.begin().await.unwrap();
    sqlx::query("SELECT * FROM meta").fetch_all(&mut *reading).await.unwrap();
    place.open().await.close().await;
    assert_ne!(in_the_file(), noted);
    reading.rollback().await.unwrap();
    place.open().await.close().await;
    assert_eq!(in_the_file(), noted);
    reader.close().await.unwrap();
}

/// A record without a purge of its own, such as the session of a browser.
#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_record_leaves_the_files_with_what_has_expired() {
    let place = Place::sqlite().unwrap();
    let vault = place.open().await;
    vault.write(&id("o"), None, &[7; 64], None).await.unwrap();
    let hex = place.sql("SELECT hex(sealed) FROM records").await.remove(0);
    let byte = |at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
    let sealed: Vec<u8> = (0..hex.len()).step_by(2).map(byte).collect();
    let is_left = || {
        let Kept::Directory(directory) = &place.kept else { return false };
        std::fs::read_dir(directory.path().join("data")).unwrap().any(|file| {
            let bytes = std::fs::read(file.unwrap().path()).unwrap();
            bytes.windows(sealed.len()).any(|part| part == sealed)
        })
    };
    assert!(is_left());
    vault.delete(&id("o"), 1).await.unwrap();
    assert!(is_left());
    vault.purge_expired().await.unwrap();
    assert!(!is_left());
}

async fn processes_that_start_at_once_make_one_vault(place: Place) {
    let vaults = join_all((0..8).map(|_| place.open())).await;
    vaults[0].write(&id("o"), None, b"x", None).await.unwrap();
    for vault in &vaults {
        assert_eq!(&vault.read(&id("o")).await.unwrap().unwrap().plaintext[..], b"x");
    }
}

async fn a_changed_sealing_key_is_noticed_by_processes_that_know_it(place: Place) {
    let expires = Some(LONG);
    place.open().await.write(&id("a"), None, b"1", expires).await.unwrap();
    let other = place.open_with(&[2, 1]).await.unwrap();
    other.write(&id("b"), None, b"1", None).await.unwrap();

    let mut rekey = Rekey::new(place.open_with(&[2, 1]).await.unwrap(), vec![]);
    while rekey.step().await.unwrap() != Progress::Done {}
    assert_eq!(rekey.outcome().records, 2);
    // This process encrypted with the old key so far. The database refuses that.
    other.write(&id("c"), None, b"1", None).await.unwrap();
    other.write(&id("b"), Some(1), b"2", None).await.unwrap();

    assert_eq!(place.open_with(&[1]).await.unwrap_err(), Error::WrongKey);
    let vault = place.open_with(&[2]).await.unwrap();
    for (owner, version) in [("a", 1), ("b", 2), ("c", 1)] {
        assert_eq!(vault.read(&id(owner)).await.unwrap().unwrap().version, version);
    }
    vault.purge_expired().await.unwrap();
    assert_eq!(place.count("records").await, "3");
}

async fn a_process_without_the_new_key_reads_and_writes_nothing(place: Place) {
    let old = place.open().await;
    old.write(&id("a"), None, b"1", None).await.unwrap();
    let mut rekey = Rekey::new(place.open_with(&[2, 1]).await.unwrap(), vec![]);
    while rekey.step().await.unwrap() != Progress::Done {}
    assert_eq!(old.read(&id("a")).await.unwrap_err(), Error::UnknownKey);
    for (owner, version) in [("a", Some(1)), ("b", None)] {
        let refused = old.write(&id(owner), version, b"lost?", None).await;
        assert_eq!(refused.unwrap_err(), Error::UnknownKey, "{owner}");
    }
    assert_eq!(place.count("records").await, "1");
    let new = place.open_with(&[2]).await.unwrap();
    assert_eq!(&new.read(&id("a")).await.unwrap().unwrap().plaintext[..], b"1");
}

async fn a_damaged_import_adds_nothing(place: Place) {
    let source = Place::sqlite().unwrap();
    let from = source.open().await;
    for number in 0..120 {
        from.write(&id(&number.to_string()), None, b"x", None).await.unwrap();
    }
    let (directory, passphrase) = (tempfile::tempdir().unwrap(), "a passphrase".into());
    let file = directory.path().join("export");
    from.export(&file, &passphrase, &[]).await.unwrap();
    let whole = std::fs::read(&file).unwrap();
    std::fs::write(&file, &whole[..whole.len() - 1]).unwrap();
    let vault = place.open().await;
    let import = vault.import(ExportFile::open(&file, &passphrase).unwrap()).await;
    assert_eq!(import.unwrap_err(), TransferError::Damaged);
    assert_eq!(place.count("records").await, "0");
    std::fs::write(&file, &whole).unwrap();
    assert_eq!(vault.import(ExportFile::open(&file, &passphrase).unwrap()).await.unwrap(), 120);
}

#[tokio::test(flavor = "multi_thread")]
async fn on_sqlite_a_process_that_waits_writes_nothing() {
    let place = Place::sqlite().unwrap();
    let (vault, other) = (place.open().await, place.open().await);
    vault.acquire_lease(&id("o"), "holder", LONG).await.unwrap();
    let before = vault.change_marker(&id("o")).unwrap();
    // Long enough to look several times.
    other.lease_wait(&id("o"), 0, Duration::from_millis(350)).await.unwrap();
    other.is_leased(&id("o")).await.unwrap();
    assert_eq!(vault.change_marker(&id("o")).unwrap(), before);
}

async fn what_is_imported_from_sqlite_expires_when_it_would_have(place: Place) {
    what_is_imported_expires_when_it_would_have(&Place::sqlite().unwrap(), &place).await;
}

async fn what_is_imported_from_postgresql_expires_when_it_would_have(place: Place) {
    let Some(other) = Place::postgres() else { return };
    what_is_imported_expires_when_it_would_have(&other, &place).await;
}

/// With another key later.
async fn what_is_imported_expires_when_it_would_have(other: &Place, place: &Place) {
    let source = other.open().await;
    source.write(&id("goes"), None, b"the one that goes", Some(LONG)).await.unwrap();
    // More than are read at once.
    for number in 0..120 {
        source.write(&id(&number.to_string()), None, number.to_string().as_bytes(), None).await.unwrap();
    }
    source.write(&id("gone"), None, b"x", Some(Duration::ZERO)).await.unwrap();
    let (directory, passphrase) = (tempfile::tempdir().unwrap(), "a passphrase".into());
    let file = directory.path().join("vault.export");
    assert_eq!(source.export(&file, &passphrase, &[]).await.unwrap(), 121);
    let vault = place.open().await;
    assert_eq!(vault.import(ExportFile::open(&file, &passphrase).unwrap()).await.unwrap(), 121);
    for (owner, content) in [("goes", "the one that goes"), ("0", "0"), ("119", "119")] {
        let record = vault.read(&id(owner)).await.unwrap().unwrap();
        assert_eq!(&record.plaintext[..], content.as_bytes());
    }
    let within = match &place.kept {
        Kept::Database(_) => "expires BETWEEN now() + interval '30 min' AND now() + interval '60 min'",
        Kept::Directory(_) => "expires / 1000 BETWEEN unixepoch() + 30 * 60 AND unixepoch() + 60 * 60",
    };
    let expiring = format!("SELECT CAST(count(*) AS TEXT) FROM records WHERE {within}");
    assert_eq!((place.sql(&expiring).await, place.count("records").await), (vec!["1".into()], "121".into()));
    let mut rekey = Rekey::new(place.open_with(&[2, 1]).await.unwrap(), vec![]);
    while rekey.step().await.unwrap() != Progress::Done {}
    assert_eq!((place.sql(&expiring).await, place.count("records").await), (vec!["1".into()], "121".into()));
}
