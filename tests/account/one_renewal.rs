//! A thousand callers in each of eight processes share one renewal, whichever process holds the lease, dies or has the
//! wrong time, and also when the database restarts meanwhile; so do processes that come one after the other. The processes are this test binary: a test that finds
//! itself started by another is such a process.

use std::{collections::BTreeSet, process::Stdio};

use crate::common::{
    EMAIL, Place, like_the_seed, open,
    postgres::{self, Stop},
    sandbox, secrets, within,
};
use bondmcp_server::{
    account::{Account, Accounts, RequiredCredential},
    bondmcp::Timing,
    clock::{Clock, Timestamp},
    config::{Flags, Settings},
    sandbox::{Fault, RunningSandbox, SandboxConfig},
};
use chrono::TimeDelta;
use futures_util::future::join_all;
use sha2::{Digest as _, Sha256};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader, Lines},
    process::{Child, ChildStdout, Command},
};

const LOGIN: &str = "POST /auth/login";

const PROCESSES: usize = 8;
const WAITERS: usize = 1000;

/// Lifetime of a session, which BondMCP documents. The clocks of two processes differ by as much.
const LIFETIME: TimeDelta = TimeDelta::hours(1);

/// Time that passes before the waiters come.
const PAUSE: TimeDelta = TimeDelta::hours(3);

/// When the person signed in, by the clock of a process of waiters, in seconds since the epoch.
const TIME: &str = "ONE_RENEWAL_TIME";

/// What a process of waiters prints before the session that all of them got.
const SESSION: &str = "they all have ";

/// A person who has signed in, whose session has expired by now.
struct World {
    sandbox: RunningSandbox,
    place: Place,
    vault: Option<String>,
    signed_in_at: Timestamp,
}

impl World {
    async fn new(vault: Option<&str>) -> Self {
        let config = SandboxConfig { token_lifetime: LIFETIME.to_std().unwrap(), ..like_the_seed() };
        let sandbox = sandbox(config).await;
        let place = Place::new(&sandbox);
        let (vault, signed_in_at) = (vault.map(ToOwned::to_owned), Clock::system().now());
        let world = Self { sandbox, place, vault, signed_in_at };
        let accounts = accounts(|name| world.variable(name), Clock::manual(signed_in_at));
        accounts.local().sign_in(EMAIL, world.place.password.clone(), true).await.unwrap();
        accounts.close().await;
        world
    }

    fn variable(&self, name: &str) -> Option<String> {
        match name {
            "BONDMCP_BASE_URL" => Some(self.place.base_url.clone()),
            "BONDMCP_DATA_DIR" => Some(self.place.data_dir().to_str().unwrap().to_owned()),
            "BONDMCP_SEALING_KEY" => Some(secrets::text(&self.place.sealing_key).to_owned()),
            "BONDMCP_VAULT" => self.vault.clone(),
            _ => None,
        }
    }

    /// Starts a process of `test` with its waiters. Its clock is `off` by this much.
    fn process(&self, test: &str, off: TimeDelta) -> Process {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["--exact", &format!("one_renewal::{test}"), "--nocapture"])
            .env_clear()
            .kill_on_drop(true);
        for name in ["BONDMCP_BASE_URL", "BONDMCP_DATA_DIR", "BONDMCP_SEALING_KEY", "BONDMCP_VAULT"] {
            command.envs(self.variable(name).map(|value| (name, value)));
        }
        let signed_in_at = self.signed_in_at + off;
        command.env(TIME, signed_in_at.timestamp().to_string()).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Process { child, lines, log: String::new() }
    }

    /// Starts the processes, of which two have a clock that is an hour off; returns when one of them renews and all others
    /// wait for it. The renewing one is the first.
    async fn waiting(&self, test: &str) -> Vec<Process> {
        let off = |at| {
            TimeDelta::hours(if at == 0 {
                1
            } else if at == 1 {
                -1
            } else {
                0
            })
        };
        let mut processes: Vec<_> = (0..PROCESSES).map(|at| self.process(test, off(at))).collect();
        let renews = join_all(processes.iter_mut().map(Process::renews)).await;
        assert_eq!(renews.iter().filter(|renews| **renews).count(), 1, "{renews:?}");
        let holder = renews.iter().position(|renews| *renews).unwrap();
        processes.swap(0, holder);
        processes
    }
}

/// A process with a thousand callers who wait for a session.
struct Process {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    log: String,
}

impl Process {
    /// Reads on until a line has one of `marks`; returns the line.
    async fn line_with(&mut self, marks: &[&str]) -> String {
        let looking = async {
            loop {
                let Some(line) = self.lines.next_line().await.unwrap() else {
                    panic!("the process ended: {}", self.log)
                };
                self.log.extend([&line, "\n"]);
                if marks.iter().any(|mark| line.contains(mark)) {
                    return line;
                }
            }
        };
        within(looking).await
    }

    /// Waits until the process renews or waits for another; returns whether it renews.
    async fn renews(&mut self) -> bool {
        let renews = "this process holds the lease";
        self.line_with(&[renews, "another process is renewing"]).await.contains(renews)
    }

    /// Waits until all callers have a session; returns what tells sessions apart.
    async fn session(&mut self) -> String {
        let line = self.line_with(&[SESSION]).await;
        line.split_once(SESSION).unwrap().1.to_owned()
    }
}

fn accounts(variable: impl Fn(&str) -> Option<String>, clock: Clock) -> Accounts {
    let settings = Settings::load(Flags::default(), None, |name| variable(name).map(Into::into)).unwrap();
    open(&settings, clock, Timing::default()).0
}

/// If this process was started as one of waiters, waits, prints the session and returns `true`.
#[expect(clippy::print_stdout, reason = "the other process reads it")]
async fn is_process_of_waiters() -> bool {
    let Ok(seconds) = std::env::var(TIME) else { return false };
    tracing_subscriber::fmt().with_max_level(tracing::Level::DEBUG).with_ansi(false).init();
    let clock = Clock::manual(Timestamp::from_timestamp(seconds.parse().unwrap(), 0).unwrap());
    clock.advance(PAUSE);
    let accounts = accounts(|name| std::env::var(name).ok(), clock);

    let mut sessions = wait_all(&accounts.local()).await;
    sessions.extend(wait_all(&accounts.local()).await);
    assert_eq!(sessions.len(), 1, "all have the same session");
    println!("{SESSION}{}", sessions.first().unwrap());
    true
}

/// Returns the sessions that a thousand concurrent callers got.
async fn wait_all(account: &Account) -> BTreeSet<String> {
    let callers = (0..WAITERS).map(|_| account.bearer(RequiredCredential::Session));
    let bearers = join_all(callers).await.into_iter().map(|bearer| bearer.unwrap().secret);
    bearers.map(|token| format!("{:x?}", &Sha256::digest(secrets::text(&token))[..8])).collect()
}

/// The sessions of the processes, each once.
async fn sessions(processes: &mut [Process]) -> BTreeSet<String> {
    join_all(processes.iter_mut().map(Process::session)).await.into_iter().collect()
}

async fn all_share_one_renewal(test: &str, vault: Option<&str>) {
    let world = World::new(vault).await;
    world.sandbox.faults().next(LOGIN, Fault::Hold);
    let mut processes = world.waiting(test).await;
    world.sandbox.faults().release();
    assert_eq!(sessions(&mut processes).await.len(), 1);
    assert_eq!(world.sandbox.count(LOGIN), 2);
}

async fn a_killed_holder_is_succeeded_by_one(test: &str, vault: Option<&str>) {
    let world = World::new(vault).await;
    world.sandbox.faults().next(LOGIN, Fault::Hang);
    let mut processes = world.waiting(test).await;
    within(world.sandbox.faults().arrived(LOGIN, 2)).await;
    within(processes.remove(0).child.kill()).await.unwrap();
    assert_eq!(sessions(&mut processes).await.len(), 1);
    assert_eq!(world.sandbox.count(LOGIN), 3);
}

async fn those_who_come_later_need_no_other_one(test: &str, vault: Option<&str>) {
    let world = World::new(vault).await;
    let mut all = BTreeSet::new();
    for hours in [-1, 0, 1, 0, -1] {
        all.insert(world.process(test, TimeDelta::hours(hours)).session().await);
    }
    assert_eq!(all.len(), 1);
    assert_eq!(world.sandbox.count(LOGIN), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn on_sqlite_all_share_one_renewal() {
    if !is_process_of_waiters().await {
        all_share_one_renewal("on_sqlite_all_share_one_renewal", None).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn on_sqlite_a_killed_holder_is_succeeded_by_one() {
    if !is_process_of_waiters().await {
        a_killed_holder_is_succeeded_by_one("on_sqlite_a_killed_holder_is_succeeded_by_one", None).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn on_sqlite_those_who_come_later_need_no_other_one() {
    if !is_process_of_waiters().await {
        let test = "on_sqlite_those_who_come_later_need_no_other_one";
        those_who_come_later_need_no_other_one(test, None).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn on_postgresql_those_who_come_later_need_no_other_one() {
    if !is_process_of_waiters().await {
        let Some(database) = postgres::database() else { return };
        let test = "on_postgresql_those_who_come_later_need_no_other_one";
        those_who_come_later_need_no_other_one(test, Some(&database.url)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn on_postgresql_all_share_one_renewal() {
    if !is_process_of_waiters().await {
        let Some(database) = postgres::database() else { return };
        all_share_one_renewal("on_postgresql_all_share_one_renewal", Some(&database.url)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn on_postgresql_a_killed_holder_is_succeeded_by_one() {
    if !is_process_of_waiters().await {
        let Some(database) = postgres::database() else { return };
        let test = "on_postgresql_a_killed_holder_is_succeeded_by_one";
        a_killed_holder_is_succeeded_by_one(test, Some(&database.url)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn postgresql_restarts_during_the_one_renewal() {
    if is_process_of_waiters().await {
        return;
    }
    let Some(cluster) = postgres::cluster() else { return };
    for how in [Stop::Fast, Stop::Immediate] {
        let database = cluster.database();
        let world = World::new(Some(&database.url)).await;
        world.sandbox.faults().next(LOGIN, Fault::Hold);
        let mut processes = world.waiting("postgresql_restarts_during_the_one_renewal").await;
        within(world.sandbox.faults().arrived(LOGIN, 2)).await;
        cluster.restart(how);
        world.sandbox.faults().release();
        assert_eq!(sessions(&mut processes).await.len(), 1, "{how:?}");
        assert_eq!(world.sandbox.count(LOGIN), 2, "{how:?}");
    }
}
