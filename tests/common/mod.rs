//! Shared parts of the black-box tests: a sandbox, a place with a vault, the real binary on pipes with rmcp's client,
//! and a search for secrets that is independent of the code under test.
#![allow(dead_code, reason = "each test file uses its share")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::missing_panics_doc)]

pub mod browser;
pub mod consent;
pub mod hosted;
pub mod hosted_process;
pub mod hosted_server;
pub mod hostile;
pub mod own_process;
#[cfg(unix)]
pub mod postgres;
pub mod publisher;
pub mod raw;
pub mod secrets;
pub mod services;
pub mod tls;

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    pin::Pin,
    process::Stdio,
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::Duration,
};

use bondmcp_server::{
    config::VaultLocation,
    sandbox::{Plan, RunningSandbox, Sandbox, SandboxConfig},
    secret::SecretString,
    vault::{RecordId, RecordKind, Vault},
};
use rmcp::{
    RoleClient, ServiceExt as _,
    model::{CallToolRequestParams, CallToolResult, ClientCapabilities, ClientConfig, Implementation},
    service::{RunningService, ServiceError},
};
use serde_json::Value;
use sqlx::{Connection as _, SqliteConnection};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, BufReader, ReadBuf},
    net::TcpSocket,
    process::{Child, Command},
};

pub use own_process::*;

pub const EMAIL: &str = "ada@example.com";

/// Somebody else, with an account of their own.
pub const OTHER_EMAIL: &str = "grace@example.com";

/// Longest wait of a test; no test depends on timing.
pub const SAFETY_NET: Duration = Duration::from_mins(1);

pub async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(SAFETY_NET, future).await.expect("ends before the safety net")
}

/// Returns an address that refuses connections for as long as the socket is kept: no other test can listen there.
pub fn refusing_port() -> (SocketAddr, TcpSocket) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    (socket.local_addr().unwrap(), socket)
}

pub async fn sandbox(config: SandboxConfig) -> RunningSandbox {
    Sandbox::start(config, SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await.unwrap()
}

/// A sandbox configuration without refresh tokens, so that a renewal is a log-in, and without limits.
pub fn like_the_seed() -> SandboxConfig {
    SandboxConfig { refresh_tokens: false, plan: Plan::Unlimited, ..SandboxConfig::default() }
}

/// A sandbox, and a place that is not signed in.
pub async fn signed_out() -> (RunningSandbox, Place) {
    let sandbox = sandbox(like_the_seed()).await;
    let place = Place::new(&sandbox);
    (sandbox, place)
}

/// A sandbox, and a place that is signed in.
pub async fn signed_in() -> (RunningSandbox, Place) {
    let (sandbox, place) = signed_out().await;
    place.sign_in().await;
    (sandbox, place)
}

/// A person's computer: a data directory, a sealing key, and an account at a sandbox.
pub struct Place {
    pub directory: TempDir,
    pub base_url: String,
    pub password: SecretString,
    pub sealing_key: SecretString,
}

impl Place {
    /// Creates a place with a verified account at `sandbox`, not signed in.
    pub fn new(sandbox: &RunningSandbox) -> Self {
        let place = Self {
            directory: tempfile::tempdir().unwrap(),
            base_url: sandbox.base_url(),
            password: random_password(),
            sealing_key: bondmcp_server::secret::random(),
        };
        sandbox.add_account(EMAIL, &place.password, Plan::Unlimited, true);
        place
    }

    /// Returns the binary with only this place's configuration in its environment.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_bondmcp-server"));
        command
            .env_clear()
            .env("BONDMCP_BASE_URL", &self.base_url)
            .env("BONDMCP_DATA_DIR", self.data_dir())
            .env("BONDMCP_SEALING_KEY", secrets::text(&self.sealing_key))
            .args(arguments)
            .kill_on_drop(true);
        command
    }

    pub fn data_dir(&self) -> std::path::PathBuf {
        self.directory.path().join("data")
    }

    /// Opens the vault in the data directory, beside the processes that have it open.
    pub async fn vault(&self) -> Vault {
        let location = VaultLocation::Sqlite(self.data_dir().join("vault.db"));
        open_vault(&location, self.sealing_key.clone()).await.unwrap()
    }

    /// Returns the id of the record of the default profile's account.
    pub fn account_record_id(&self) -> RecordId {
        RecordId {
            kind: RecordKind::ACCOUNT,
            owner: "profile:default".to_owned(),
            origin: self.base_url.clone(),
        }
    }

    /// Whether BondMCP still takes the token that it issued last.
    pub async fn last_token_works(&self, sandbox: &RunningSandbox) -> bool {
        let issued = sandbox.secrets_issued();
        // A token is a JWT; API keys begin differently.
        let token = issued.iter().rfind(|secret| secrets::text(secret).starts_with("ey")).unwrap();
        let me = reqwest::Client::new().get(format!("{}/auth/me", self.base_url));
        within(me.bearer_auth(secrets::text(token)).send()).await.unwrap().status().is_success()
    }

    /// Ends all leases of the vault, as time does.
    pub async fn end_leases(&self) {
        let vault = format!("sqlite://{}", self.data_dir().join("vault.db").display());
        let mut database = SqliteConnection::connect(&vault).await.unwrap();
        sqlx::query("DELETE FROM leases").execute(&mut database).await.unwrap();
        database.close().await.unwrap();
    }

    /// Signs in as `login` does, without a process of its own.
    pub async fn sign_in(&self) {
        let (accounts, _) = accounts(self);
        within(accounts.local().sign_in(EMAIL, self.password.clone(), true)).await.unwrap();
        accounts.close().await;
    }

    /// Runs a command that takes e-mail and password; returns its exit code, stdout and stderr.
    pub async fn run_with_password(&self, verb: &str) -> (Option<i32>, String, String) {
        let mut command = self.command(&[verb, "--email", EMAIL, "--password-stdin"]);
        run(&mut command, secrets::text(&self.password)).await
    }

    /// Runs a command; returns its exit code, stdout and stderr.
    pub async fn run(&self, arguments: &[&str]) -> (Option<i32>, String, String) {
        run(&mut self.command(arguments), "").await
    }

    /// Runs `keys list --json`.
    pub async fn keys(&self) -> Value {
        let (code, list, told) = self.run(&["keys", "list", "--json"]).await;
        assert_eq!(code, Some(0), "{told}");
        serde_json::from_str(&list).unwrap()
    }
}

pub fn random_password() -> SecretString {
    format!("Pw1 \"ä/{}", secrets::text(&bondmcp_server::secret::random())).into()
}

pub async fn run(command: &mut Command, input: &str) -> (Option<i32>, String, String) {
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // A command that reads nothing may have ended already.
    let _ = stdin.write_all(input.as_bytes()).await;
    drop(stdin);
    let output = within(child.wait_with_output()).await.unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

/// Waits until `bondmcp-server http` says in its log where it serves MCP; returns the URL. The rest of the log is read too,
/// so that the server never blocks on it.
pub async fn served_at(log: impl AsyncRead + Unpin + Send + 'static) -> String {
    let mut lines = BufReader::new(log).lines();
    let url = loop {
        let line = within(lines.next_line()).await.unwrap().expect("the server serves");
        if let Some((_, url)) = line.split_once("Serving MCP at ") {
            break url.to_owned();
        }
    };
    tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
    url
}

/// `bondmcp-server stdio` with rmcp's client on its pipes; everything it writes is recorded.
pub struct Server {
    pub client: RunningService<RoleClient, ClientConfig>,
    pub child: Child,
    pub seen: Arc<Mutex<Vec<u8>>>,
    log: tokio::task::JoinHandle<Vec<u8>>,
}

impl Server {
    pub async fn start(place: &Place) -> Self {
        Self::spawn(&mut place.command(&["--log", "trace", "stdio"])).await
    }

    pub async fn spawn(command: &mut Command) -> Self {
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (stdin, stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let mut stderr = child.stderr.take().unwrap();
        let log = tokio::spawn(async move {
            let mut log = Vec::new();
            let _ = stderr.read_to_end(&mut log).await;
            log
        });
        let client = host().serve((Recorded { input: stdout, seen: Arc::clone(&seen) }, stdin));
        Self { client: within(client).await.unwrap(), child, seen, log }
    }

    pub async fn call(&self, tool: &'static str, arguments: Value) -> Result<CallToolResult, ServiceError> {
        within(self.client.call_tool(request(tool, arguments))).await
    }

    /// Makes a call that must succeed; returns the structured result.
    pub async fn ok(&self, tool: &'static str, arguments: Value) -> Value {
        let result = self.call(tool, arguments).await.unwrap();
        assert_ne!(result.is_error, Some(true), "{result:?}");
        result.structured_content.unwrap()
    }

    /// Makes a call that must fail; returns the error.
    pub async fn error(&self, tool: &'static str, arguments: Value) -> Value {
        error_of(&self.call(tool, arguments).await.unwrap())
    }

    /// Closes stdin and waits for the end; returns stdout and stderr.
    pub async fn end_apart(mut self) -> (Vec<u8>, Vec<u8>) {
        within(self.client.cancel()).await.unwrap();
        assert!(within(self.child.wait()).await.unwrap().success());
        let log = within(self.log).await.unwrap();
        let seen = self.seen.lock().unwrap().clone();
        (seen, log)
    }

    /// Closes stdin and waits for the end; returns everything that was written.
    pub async fn end(self) -> Vec<u8> {
        let (mut seen, log) = self.end_apart().await;
        seen.extend(log);
        seen
    }

    /// Kills the process, as a power failure would end it.
    pub async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }
}

pub fn host() -> ClientConfig {
    ClientConfig::new(ClientCapabilities::default(), Implementation::new("test-host", "1"))
}

#[expect(clippy::needless_pass_by_value, reason = "reads better where it is called")]
pub fn request(tool: &'static str, arguments: Value) -> CallToolRequestParams {
    let mut request = CallToolRequestParams::new(tool);
    request.arguments = arguments.as_object().cloned();
    request
}

pub fn error_of(result: &CallToolResult) -> Value {
    assert_eq!(result.is_error, Some(true), "{result:?}");
    json_of(&result.content[0].as_text().unwrap().text)["error"].take()
}

/// Returns the JSON of a failure's text: its last line.
pub fn json_of(text: &str) -> Value {
    serde_json::from_str(text.lines().last().unwrap()).unwrap()
}

/// A reader that records its input.
pub struct Recorded<R> {
    pub input: R,
    pub seen: Arc<Mutex<Vec<u8>>>,
}

impl<R: AsyncRead + Unpin> AsyncRead for Recorded<R> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let before = buffer.filled().len();
        let outcome = Pin::new(&mut self.input).poll_read(context, buffer);
        self.seen.lock().unwrap().extend_from_slice(&buffer.filled()[before..]);
        outcome
    }
}

/// Returns the bytes of every file below `directory`, with its path.
pub fn files(directory: &Path) -> Vec<(std::path::PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push((path.clone(), std::fs::read(&path).unwrap()));
        }
    }
    found
}

/// Makes two tests of each function: over SQLite and over PostgreSQL. Its argument is a world that is made by `over` with
/// the URL of the vault, or `None` for SQLite.
#[allow(unused_macros, reason = "each test file uses its share")]
macro_rules! on_both_stores {
    ($(async fn $name:ident($world:ident: $type:ident) $body:block)*) => {$(
        mod $name {
            use super::*;

            async fn body($world: $type) $body

            #[tokio::test(flavor = "multi_thread")]
            async fn sqlite() {
                body($type::over(None).await).await;
            }

            #[cfg(unix)]
            #[tokio::test(flavor = "multi_thread")]
            async fn postgresql() {
                if let Some(database) = crate::common::postgres::database() {
                    body($type::over(Some(database.url.clone())).await).await;
                }
            }
        }
    )*};
}
#[allow(unused_imports, reason = "as above")]
pub(crate) use on_both_stores;

pub mod fast_time;
