//! The sealing key is changed while four others read and write, and the change is interrupted after each of its steps:
//! over SQLite and over PostgreSQL nothing is lost, and the old key then opens nothing.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use crate::common::{postgres, vault as open, within};
use bondmcp_server::{
    config::VaultLocation,
    vault::{Error, Progress, RecordId, RecordKind, Rekey, Rekeyed, Vault},
};
use tokio::task::JoinSet;

/// More than are encrypted anew at once.
const RECORDS: u64 = 130;

const WORKERS: u64 = 4;

fn id(number: u64) -> RecordId {
    let owner = format!("subject:{number}");
    RecordId { kind: RecordKind::ACCOUNT, owner, origin: "https://api.example".to_owned() }
}

fn number(plaintext: &[u8]) -> u64 {
    std::str::from_utf8(plaintext).unwrap().parse().unwrap()
}

/// Adds one to the number in one record after the other until `stop`; returns how often.
async fn count_up(vault: Vault, first: u64, stop: Arc<AtomicBool>) -> u64 {
    let mut added = 0;
    while !stop.load(Ordering::Relaxed) {
        let id = id((first + added * 7) % RECORDS);
        loop {
            let record = vault.read(&id).await.unwrap().unwrap();
            let next = (number(&record.plaintext) + 1).to_string();
            match vault.write(&id, Some(record.version), next.as_bytes(), None).await {
                Err(Error::Conflict) => {}
                written => break assert_eq!(written.unwrap(), record.version + 1),
            }
        }
        added += 1;
    }
    vault.close().await;
    added
}

/// Changes the key in at most so many steps; returns whether it is done.
async fn change(location: &VaultLocation, keys: &[u8], steps: usize) -> (bool, Rekeyed) {
    let vault = open(location, keys).await.unwrap();
    let mut rekey = Rekey::new(vault.clone(), vec![]);
    let mut is_done = false;
    for _ in 0..steps {
        is_done = rekey.step().await.unwrap() == Progress::Done;
        if is_done {
            break;
        }
    }
    let outcome = rekey.outcome();
    drop(rekey);
    vault.close().await;
    (is_done, outcome)
}

async fn sum(vault: &Vault) -> u64 {
    let mut sum = 0;
    for record in 0..RECORDS {
        sum += number(&vault.read(&id(record)).await.unwrap().unwrap().plaintext);
    }
    sum
}

async fn nothing_is_lost_wherever_the_change_is_interrupted(location: VaultLocation) {
    let first = open(&location, &[1]).await.unwrap();
    for record in 0..RECORDS {
        first.write(&id(record), None, b"0", None).await.unwrap();
    }
    first.close().await;
    let mut expected = 0;
    for steps in 0.. {
        // Each time to another key, which all have beside the old one.
        let (new, old) = (u8::try_from(steps).unwrap() + 2, u8::try_from(steps).unwrap() + 1);
        let keys = [new, old];
        let stop = Arc::new(AtomicBool::new(false));
        let mut workers = JoinSet::new();
        for worker in 0..WORKERS {
            let vault = open(&location, &keys).await.unwrap();
            workers.spawn(count_up(vault, worker, Arc::clone(&stop)));
        }
        let (is_done, _) = within(change(&location, &keys, steps)).await;
        let (_, outcome) = within(change(&location, &keys, usize::MAX)).await;
        assert_eq!((outcome.unreadable, outcome.unnamed), (0, 0));
        stop.store(true, Ordering::Relaxed);
        expected += within(workers.join_all()).await.into_iter().sum::<u64>();

        assert_eq!(open(&location, &[old]).await.unwrap_err(), Error::WrongKey);
        let vault = open(&location, &[new]).await.unwrap();
        assert_eq!(sum(&vault).await, expected, "after {steps} steps");
        vault.close().await;
        if is_done {
            assert!(steps > 4, "{steps}");
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn on_sqlite_nothing_is_lost_wherever_the_change_is_interrupted() {
    let directory = tempfile::tempdir().unwrap();
    let location = VaultLocation::Sqlite(directory.path().join("data/vault.db"));
    nothing_is_lost_wherever_the_change_is_interrupted(location).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_postgresql_nothing_is_lost_wherever_the_change_is_interrupted() {
    let Some(database) = postgres::database() else { return };
    let location = VaultLocation::Postgres(database.url.parse().unwrap());
    nothing_is_lost_wherever_the_change_is_interrupted(location).await;
}
