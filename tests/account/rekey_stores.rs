//! The sealing key is changed while four other processes read and write, and the change is interrupted after each of its
//! steps: nothing is lost, and the old key then opens nothing. So it is over SQLite, with keys that the program keeps, and
//! over PostgreSQL, with keys of the operator. The processes are this test binary: a test that finds itself started by
//! another is such a process.

use std::{
    fs::Permissions, io::Write as _, os::unix::fs::PermissionsExt as _, path::PathBuf, process::Stdio,
};

use crate::common::{open_vault, postgres, within};
use bondmcp_server::{
    config::{Flags, Settings},
    secret::{self, ExposeSecret as _},
    vault::{Error, Keyring, Progress, RecordId, RecordKind, Rekey, Rekeyed, Vault},
};
use futures_util::{FutureExt as _, future::join_all};
use tempfile::{NamedTempFile, TempDir};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines},
    process::{Child, ChildStdout, Command},
};

/// More than are encrypted anew at once.
const RECORDS: u64 = 130;

const WORKERS: u64 = 4;

/// The first record of a process that reads and writes.
const FIRST: &str = "REKEY_FIRST";

/// What such a process prints before the number of its writes.
const WRITES: &str = "it has written ";

/// A vault, and the keys that all processes have.
struct World {
    directory: TempDir,
    /// The URL of a database whose operator keeps the keys; `None` for SQLite, where the program does.
    database: Option<String>,
}

impl World {
    /// Makes a vault. Its key is there before it, so that no keychain of this machine gets one.
    async fn new(database: Option<&str>) -> Self {
        let private = Permissions::from_mode(0o700);
        let directory = tempfile::Builder::new().permissions(private).tempdir().unwrap();
        let world = Self { directory, database: database.map(ToOwned::to_owned) };
        world.write_keys(secret::random().expose_secret());
        let vault = world.open().await;
        for record in 0..RECORDS {
            vault.write(&id(record), None, b"0", None).await.unwrap();
        }
        vault.close().await;
        world
    }

    fn has_operator(&self) -> bool {
        self.database.is_some()
    }

    fn key_file(&self) -> PathBuf {
        self.directory.path().join(if self.has_operator() { "keys" } else { "sealing.key" })
    }

    fn keys(&self) -> String {
        std::fs::read_to_string(self.key_file()).unwrap()
    }

    /// Writes the key file atomically, since the processes may read it at any time.
    fn write_keys(&self, keys: &str) {
        let mut file = NamedTempFile::new_in(self.directory.path()).unwrap();
        file.write_all(keys.as_bytes()).unwrap();
        file.persist(self.key_file()).unwrap();
    }

    fn variable(&self, name: &str) -> Option<String> {
        match name {
            "BONDMCP_DATA_DIR" => Some(self.directory.path().to_str().unwrap().to_owned()),
            "BONDMCP_SEALING_KEY_FILE" if self.has_operator() => {
                Some(self.key_file().to_str().unwrap().to_owned())
            }
            "BONDMCP_VAULT" => self.database.clone(),
            _ => None,
        }
    }

    fn settings(&self) -> Settings {
        settings(|name| self.variable(name))
    }

    async fn open(&self) -> Vault {
        open(&self.settings()).await
    }

    /// Starts a process of `test` that reads and writes.
    fn worker(&self, test: &str, first: u64) -> Worker {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["--exact", &format!("rekey_stores::{test}"), "--nocapture"])
            .env_clear()
            .env(FIRST, first.to_string())
            .kill_on_drop(true);
        for name in ["BONDMCP_DATA_DIR", "BONDMCP_SEALING_KEY_FILE", "BONDMCP_VAULT"] {
            command.envs(self.variable(name).map(|value| (name, value)));
        }
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Worker { child, lines }
    }

    /// Changes the key in at most so many steps; returns whether it is done.
    async fn change(&self, steps: usize) -> (bool, Rekeyed) {
        let vault = self.open().await;
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

    /// Returns the sum of the numbers in all records.
    async fn sum(&self) -> u64 {
        let vault = self.open().await;
        let mut sum = 0;
        for record in 0..RECORDS {
            sum += number(&vault.read(&id(record)).await.unwrap().unwrap().plaintext);
        }
        vault.close().await;
        sum
    }
}

/// A process that reads and writes until its standard input ends.
struct Worker {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Worker {
    /// Waits for a write that begins after this call.
    async fn next_write(&mut self) {
        self.child.stdin.as_mut().unwrap().write_all(b"\n").await.unwrap();
        self.writes().await;
    }

    /// Ends the process; returns how often it has written.
    async fn end(mut self) -> u64 {
        drop(self.child.stdin.take());
        let writes = self.writes().await;
        assert!(self.child.wait().await.unwrap().success());
        writes
    }

    /// Waits until the process says how often it has written.
    async fn writes(&mut self) -> u64 {
        loop {
            let line = self.lines.next_line().await.unwrap().unwrap();
            if let Some((_, writes)) = line.split_once(WRITES) {
                return writes.parse().unwrap();
            }
        }
    }
}

fn settings(variable: impl Fn(&str) -> Option<String>) -> Settings {
    Settings::load(Flags::default(), None, |name| variable(name).map(Into::into)).unwrap()
}

async fn open(settings: &Settings) -> Vault {
    let (keyring, _) =
        Keyring::load(&settings.sealing_key, &settings.data_dir, &settings.vault).await.unwrap();
    Vault::open(&settings.vault, keyring).await.unwrap()
}

fn id(number: u64) -> RecordId {
    let owner = format!("subject:{number}");
    RecordId { kind: RecordKind::ACCOUNT, owner, origin: "https://api.example".to_owned() }
}

fn number(plaintext: &[u8]) -> u64 {
    std::str::from_utf8(plaintext).unwrap().parse().unwrap()
}

/// If this process was started as one that reads and writes, does so and returns `true`.
async fn is_worker() -> bool {
    let Ok(first) = std::env::var(FIRST) else { return false };
    let vault = open(&settings(|name| std::env::var(name).ok())).await;
    count_up(&vault, first.parse().unwrap()).await;
    vault.close().await;
    true
}

/// Adds one to the number in one record after the other until standard input ends. Prints how often at the end, and after
/// the next write for each line of standard input.
#[expect(clippy::print_stdout, reason = "the other process reads it")]
async fn count_up(vault: &Vault, first: u64) {
    let mut asks = BufReader::new(tokio::io::stdin()).lines();
    let mut writes = 0;
    loop {
        let ask = asks.next_line().now_or_never().map(Result::unwrap);
        if ask == Some(None) {
            break;
        }
        add_one(vault, &id((first + writes * 7) % RECORDS)).await;
        writes += 1;
        if ask.is_some() {
            println!("{WRITES}{writes}");
        }
    }
    println!("{WRITES}{writes}");
}

async fn add_one(vault: &Vault, id: &RecordId) {
    loop {
        let record = vault.read(id).await.unwrap().unwrap();
        let next = (number(&record.plaintext) + 1).to_string();
        match vault.write(id, Some(record.version), next.as_bytes(), None).await {
            Err(Error::Conflict) => {}
            written => return assert_eq!(written.unwrap(), record.version + 1),
        }
    }
}

/// Waits until each process has written.
async fn all_write(workers: &mut [Worker]) {
    within(join_all(workers.iter_mut().map(Worker::next_write))).await;
}

async fn nothing_is_lost_wherever_the_change_is_interrupted(test: &str, world: World) {
    let mut workers: Vec<_> = (0..WORKERS).map(|first| world.worker(test, first)).collect();
    all_write(&mut workers).await;
    for steps in 0.. {
        let (old, new) = (world.keys(), secret::random());
        if world.has_operator() {
            world.write_keys(&format!("{},{old}", new.expose_secret()));
        }
        let (is_done, _) = within(world.change(steps)).await;
        all_write(&mut workers).await;
        let ((_, outcome), ()) = tokio::join!(within(world.change(usize::MAX)), all_write(&mut workers));
        assert_eq!((outcome.unreadable, outcome.unnamed), (0, 0), "after {steps} steps");
        if world.has_operator() {
            world.write_keys(new.expose_secret());
        }
        let with_old = open_vault(&world.settings().vault, old.into()).await;
        assert_eq!(with_old.unwrap_err(), Error::WrongKey, "after {steps} steps");
        if is_done {
            assert!(steps > 4, "{steps}");
            break;
        }
    }
    all_write(&mut workers).await;
    let writes = within(join_all(workers.into_iter().map(Worker::end))).await;
    assert_eq!(world.sum().await, writes.into_iter().sum::<u64>());
}

#[tokio::test(flavor = "multi_thread")]
async fn on_sqlite_nothing_is_lost_wherever_the_change_is_interrupted() {
    if !is_worker().await {
        let test = "on_sqlite_nothing_is_lost_wherever_the_change_is_interrupted";
        nothing_is_lost_wherever_the_change_is_interrupted(test, World::new(None).await).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn on_postgresql_nothing_is_lost_wherever_the_change_is_interrupted() {
    if !is_worker().await {
        let Some(database) = postgres::database() else { return };
        let test = "on_postgresql_nothing_is_lost_wherever_the_change_is_interrupted";
        let world = World::new(Some(&database.url)).await;
        nothing_is_lost_wherever_the_change_is_interrupted(test, world).await;
    }
}
