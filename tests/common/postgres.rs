//! PostgreSQL for tests: a private cluster, or the server that `BONDMCP_TEST_POSTGRES` names.
//!
//! A test that gets `None` returns at once: there is no PostgreSQL here, and that the test did not run is recorded for
//! `tests/zz_not_run.rs`. In CI that is a failure.
//!
//! The cluster is in a temporary directory and listens on a Unix socket there and on a loopback port. A shell watches a
//! pipe from this process and ends the cluster with it, also when a test panics or this process is killed.
//!
//! This file uses nothing of its parent module.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use bondmcp_server::secret::{self, ExposeSecret as _, SecretString};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, Row as _, ValueRef as _};
use tempfile::TempDir;

/// Names the server to use instead of a private cluster: a URL of a role that may create databases.
pub const SERVER: &str = "BONDMCP_TEST_POSTGRES";

/// Its value for running as if PostgreSQL were not installed.
pub const NONE: &str = "none";

/// The role of the tests' databases. It owns them and may do nothing else.
const ROLE: &str = "bondmcp";

/// The superuser of a private cluster, on its socket only.
const SUPERUSER: &str = "tests";

/// The user that runs the cluster when root runs the tests, since PostgreSQL refuses root: `nobody`.
const UNPRIVILEGED: u32 = 65534;

/// What a cluster takes at most, with the databases of the tests that run at once.
const MAX_CLUSTER_BYTES: u64 = 1 << 30;

/// Longest wait for an answer of the server.
const SAFETY_NET: Duration = Duration::from_mins(1);

/// Names of databases are unique in this process and, with random digits, among processes at one server.
static DATABASES: AtomicU32 = AtomicU32::new(0);

/// Returns a fresh, empty database on the server that all tests of this process share.
#[track_caller]
pub fn database() -> Option<Database> {
    static SHARED: OnceLock<Option<Server>> = OnceLock::new();
    let shared = SHARED.get_or_init(|| match std::env::var(SERVER) {
        Ok(url) if url != NONE => Some(Server::Given(url)),
        _ => Cluster::start().map(Server::Private),
    });
    match shared {
        Some(Server::Given(url)) => Some(Database::create(url, url)),
        Some(Server::Private(cluster)) => Some(cluster.database()),
        None => not_run("PostgreSQL"),
    }
}

/// Returns a cluster for this test alone, which it may restart.
#[track_caller]
pub fn cluster() -> Option<Cluster> {
    if let Some(cluster) = Cluster::start() { Some(cluster) } else { not_run("PostgreSQL's programs") }
}

enum Server {
    Given(String),
    Private(Cluster),
}

/// How a server is stopped.
#[derive(Debug, Clone, Copy)]
pub enum Stop {
    /// Connections are closed, and everything is written.
    Fast,
    /// As in a crash: the next start recovers from the write-ahead log.
    Immediate,
}

/// An empty database of its own; it is dropped with this value.
#[derive(Debug)]
pub struct Database {
    /// A URL with the password of the role that owns the database.
    pub url: String,
    name: String,
    /// A URL of the role that made the database.
    maintenance: String,
}

impl Database {
    /// Creates a database as `maintenance`; `owner` is a URL of the role that gets it.
    fn create(maintenance: &str, owner: &str) -> Self {
        let number = DATABASES.fetch_add(1, Ordering::Relaxed);
        let random = uuid::Uuid::new_v4().simple().to_string();
        let name = format!("bondmcp_test_{number}_{}", &random[..12]);
        let mut url = url::Url::parse(owner).expect("a URL");
        let role = percent_encoding::percent_decode_str(url.username()).decode_utf8_lossy().into_owned();
        url.set_path(&name);
        let create = format!(r#"CREATE DATABASE "{name}" TEMPLATE template0 OWNER "{role}""#);
        ask(maintenance, &create).expect("the server creates databases");
        Self { url: url.into(), name, maintenance: maintenance.to_owned() }
    }

    /// Runs SQL as the database's owner; returns the rows as `psql --no-align --tuples-only` prints them.
    pub fn psql(&self, sql: &str) -> Vec<String> {
        ask(&self.url, sql).unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    /// Ends all connections to the database, as a failing network would.
    pub fn disconnect(&self) {
        let others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() \
                      AND pid <> pg_backend_pid() AND usename = current_user";
        self.psql(others);
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        // The server may have been stopped by the test.
        let _ = ask(&self.maintenance, &format!(r#"DROP DATABASE "{}" WITH (FORCE)"#, self.name));
    }
}

/// A private cluster. It ends, and its directory is removed, with this value or with this process.
#[derive(Debug)]
pub struct Cluster {
    directory: PathBuf,
    programs: PathBuf,
    port: u16,
    password: SecretString,
    /// Removes the cluster when its standard input ends.
    watch: Child,
}

impl Cluster {
    /// Starts a cluster, or returns `None` if PostgreSQL is not installed.
    fn start() -> Option<Self> {
        let programs = programs()?;
        let directory = new_directory();
        let mut cluster = Self {
            watch: watch(&programs, &directory),
            port: free_port(),
            password: format!("p @:/%{}", secret::random().expose_secret()).into(),
            directory,
            programs,
        };
        let authentication = ["--auth-local=trust", "--auth-host=scram-sha-256", "-U", SUPERUSER];
        let form = ["-E", "UTF8", "--no-locale", "--no-sync", "--wal-segsize=1"];
        cluster.run("initdb", &[&authentication[..], &form].concat());
        cluster.configure();
        // Another process may have taken the port in the meantime.
        while !cluster.try_start() {
            assert!(cluster.log().contains("could not bind"), "{}", cluster.log());
            cluster.port = free_port();
            cluster.configure();
        }
        let password = cluster.password.expose_secret();
        let role = format!("CREATE ROLE {ROLE} LOGIN PASSWORD '{password}'");
        cluster.psql(&role);
        Some(cluster)
    }

    /// Creates an empty database.
    pub fn database(&self) -> Database {
        let password = self.password.expose_secret();
        let password = percent_encoding::utf8_percent_encode(password, percent_encoding::NON_ALPHANUMERIC);
        let owner = format!("postgres://{ROLE}:{password}@127.0.0.1:{}", self.port);
        Database::create(&self.superuser(), &owner)
    }

    /// Returns a URL of `database` on the Unix socket, without a password.
    pub fn socket_url(&self, database: &Database) -> String {
        let (directory, port) = (self.directory.display(), self.port);
        format!("postgres://{ROLE}@localhost:{port}/{}?host={directory}", database.name)
    }

    /// Runs SQL as the superuser.
    pub fn psql(&self, sql: &str) -> Vec<String> {
        ask(&self.superuser(), sql).unwrap_or_else(|error| panic!("{error}"))
    }

    /// The directory that has everything that the server writes, its log included.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Stops the server; `start_again` starts it.
    pub fn stop(&self, how: Stop) {
        let how = match how {
            Stop::Fast => "fast",
            Stop::Immediate => "immediate",
        };
        self.run("pg_ctl", &["stop", "-w", "-s", "-m", how]);
    }

    /// Starts a stopped server; returns when it accepts connections.
    pub fn start_again(&self) {
        assert!(self.try_start(), "{}", self.log());
    }

    /// Stops the server and starts it again.
    pub fn restart(&self, how: Stop) {
        self.stop(how);
        self.start_again();
    }

    fn superuser(&self) -> String {
        let (directory, port) = (self.directory.display(), self.port);
        format!("postgres://{SUPERUSER}@localhost:{port}/postgres?host={directory}")
    }

    fn configure(&self) {
        let (directory, port) = (self.directory.display(), self.port);
        // Durability is for what is kept; here even the memory is small.
        let settings = format!(
            "listen_addresses = '127.0.0.1'\nport = {port}\nunix_socket_directories = '{directory}'\n\
             fsync = off\nfull_page_writes = off\nshared_buffers = 16MB\n\
             wal_level = minimal\nmax_wal_senders = 0\nmin_wal_size = 2MB\nmax_connections = 500\n"
        );
        fs::write(self.data().join("postgresql.auto.conf"), settings).expect("a writable directory");
    }

    fn try_start(&self) -> bool {
        let log = self.directory.join("log");
        let log = log.to_str().expect("a path in UTF-8");
        self.command("pg_ctl", &["start", "-w", "-s", "-l", log]).status().expect("pg_ctl runs").success()
    }

    fn run(&self, program: &str, arguments: &[&str]) {
        let output = self.command(program, arguments).stdout(Stdio::null()).stderr(Stdio::piped()).output();
        let output = output.expect("PostgreSQL's programs run");
        assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    }

    fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = unprivileged(self.programs.join(program));
        command.args(arguments).arg("-D").arg(self.data()).current_dir(&self.directory);
        // A server that inherited a pipe of the test run would keep it open.
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    }

    fn data(&self) -> PathBuf {
        self.directory.join("data")
    }

    fn log(&self) -> String {
        fs::read_to_string(self.directory.join("log")).unwrap_or_default()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        drop(self.watch.stdin.take());
        let _ = self.watch.wait();
    }
}

/// Returns the directory of `initdb` and `pg_ctl`: in `PATH`, or Debian's newest.
fn programs() -> Option<PathBuf> {
    if std::env::var_os(SERVER).is_some_and(|value| value == NONE) {
        return None;
    }
    let has_programs =
        |directory: &PathBuf| directory.join("initdb").exists() && directory.join("pg_ctl").exists();
    let path = std::env::var_os("PATH").unwrap_or_default();
    if let Some(directory) = std::env::split_paths(&path).find(has_programs) {
        return Some(directory);
    }
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let version = |directory: &PathBuf| directory.parent()?.file_name()?.to_str()?.parse::<u32>().ok();
    versions.map(|entry| entry.path().join("bin")).filter(has_programs).max_by_key(version)
}

/// In memory where there is room: a database is 300 files, and on a disk most of the time goes into making and deleting them.
fn parent_directory() -> PathBuf {
    let memory = PathBuf::from("/dev/shm");
    let has_room =
        rustix::fs::statvfs(&memory).is_ok_and(|fs| fs.f_bavail * fs.f_frsize >= MAX_CLUSTER_BYTES);
    match memory {
        memory if has_room => memory,
        _ if is_root() => "/tmp".into(),
        _ => std::env::temp_dir(),
    }
}

/// Creates a directory that the server's user owns and nobody else enters. Its path is short, as a socket's must be.
fn new_directory() -> PathBuf {
    let directory =
        tempfile::Builder::new().prefix("bondmcp-pg").tempdir_in(parent_directory()).map(TempDir::keep);
    let directory = directory.expect("a temporary directory");
    if is_root() {
        let owner = Some(UNPRIVILEGED);
        std::os::unix::fs::chown(&directory, owner, owner).expect("root may give directories away");
    }
    directory
}

/// Starts the shell that ends the cluster in `directory` when its standard input ends: with this process at the latest.
fn watch(programs: &Path, directory: &Path) -> Child {
    use std::os::unix::process::CommandExt as _;
    // It outlives an interrupt from the terminal, which goes to the whole process group.
    const SCRIPT: &str = r#"
        trap '' HUP INT TERM
        cat
        "$1/pg_ctl" stop -w -s -m immediate -D "$2/data"
        rm -rf "$2""#;
    let mut command = unprivileged("/bin/sh".into());
    command.args(["-c", SCRIPT, "watch"]).args([programs, directory]).current_dir(directory).process_group(0);
    let command = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().expect("a shell")
}

/// Returns a port that is free now. It is below those that systems give to outgoing connections, so that it stays free
/// while the server restarts.
fn free_port() -> u16 {
    let is_free = |port: &u16| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok();
    let random =
        || 20_000 + u16::from_ne_bytes(*uuid::Uuid::new_v4().as_bytes().first_chunk().unwrap()) % 12_000;
    std::iter::repeat_with(random).find(is_free).expect("one of them is free")
}

/// Returns `program` as a command with an almost empty environment, for a user that is not root.
fn unprivileged(program: PathBuf) -> Command {
    use std::os::unix::process::CommandExt as _;
    let mut command = Command::new(program);
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default()).env("LC_ALL", "C");
    if is_root() {
        command.uid(UNPRIVILEGED).gid(UNPRIVILEGED);
    }
    command
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Runs SQL at `url`, also from within an asynchronous test.
fn ask(url: &str, sql: &str) -> Result<Vec<String>, sqlx::Error> {
    let rows = async {
        let mut connection = PgConnection::connect(url).await?;
        let rows = sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).fetch_all(&mut connection).await?;
        connection.close().await?;
        Ok::<_, sqlx::Error>(rows)
    };
    // On a thread of its own: the caller may be within a runtime.
    let outcome = std::thread::scope(|scope| {
        let asking = scope.spawn(|| {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async { tokio::time::timeout(SAFETY_NET, rows).await })
        });
        asking.join().expect("asking does not panic")
    });
    let rows = outcome.map_err(|_| sqlx::Error::PoolTimedOut)??;
    let text = |row: &sqlx::postgres::PgRow, column| -> String {
        let value = row.try_get_raw(column).expect("a column");
        if value.is_null() { String::new() } else { value.as_str().expect("text").to_owned() }
    };
    Ok(rows
        .iter()
        .map(|row| (0..row.len()).map(|column| text(row, column)).collect::<Vec<_>>().join("|"))
        .collect())
}

/// Records that the current test did not run, for want of `what`; in CI it fails.
#[track_caller]
fn not_run<T>(what: &str) -> Option<T> {
    let current = std::thread::current();
    // With one thread for all tests, they run on the main thread.
    let test = match current.name() {
        Some(name) if name != "main" => name.to_owned(),
        _ => std::panic::Location::caller().to_string(),
    };
    assert!(std::env::var_os("CI").is_none(), "{test} needs {what}");
    let executable = std::env::current_exe().expect("a path");
    let binary =
        executable.file_name().and_then(|name| name.to_str()?.rsplit_once('-')).expect("a test's binary").0;
    let records = not_run_records();
    fs::create_dir_all(&records).expect("a writable target directory");
    let record = fs::OpenOptions::new().create(true).append(true).open(records.join(binary));
    // One write, so that lines of tests that run at the same time stay whole.
    let line = format!("{binary}: {test} (needs {what})\n");
    record.and_then(|mut record| record.write_all(line.as_bytes())).expect("a writable record");
    None
}

/// Returns the tests of this run that did not run, and removes the records.
pub fn take_not_run() -> Vec<String> {
    let directory = not_run_records();
    let records = fs::read_dir(&directory).into_iter().flatten().flatten();
    let texts = records.map(|record| fs::read_to_string(record.path()).expect("a readable record"));
    let lines: std::collections::BTreeSet<String> =
        texts.flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>()).collect();
    let _ = fs::remove_dir_all(directory);
    lines.into_iter().collect()
}

/// Returns the directory of this run's records of tests that did not run: beside the test binaries, named after the
/// `cargo` that started them.
fn not_run_records() -> PathBuf {
    let executable = std::env::current_exe().expect("a path");
    let profile = executable.parent().and_then(Path::parent).expect("a target directory");
    let cargo = std::os::unix::process::parent_id();
    // Numbers of processes are used again; with the time of the start, where the system tells it, they are not.
    let stat = fs::read_to_string(format!("/proc/{cargo}/stat")).unwrap_or_default();
    let started = stat.rsplit_once(')').and_then(|(_, fields)| fields.split(' ').nth(20)).unwrap_or_default();
    profile.join("not-run").join(format!("{cargo}-{started}"))
}
