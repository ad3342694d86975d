//! What our server costs beside a bare rmcp server that makes the same upstream request with a fixed token: start,
//! memory, latency over stdio, throughput over HTTP. Both run on this machine in one run, turn by turn, against one
//! embedded sandbox, so the ratios mean something; the absolute figures are this machine's. The bare server is this
//! very executable, started again.
//!
//! `cargo bench --bench overhead`
#![allow(clippy::disallowed_types, reason = "the bare server is an ordinary rmcp server")]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "the table is what it is run for")]

use std::{
    fmt::Write as _,
    path::Path,
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use bondmcp_server::{
    bondmcp::{Client, Timing},
    clock::Clock,
    redact::Redactor,
    sandbox::{Plan, RunningSandbox, Sandbox, SandboxConfig},
    secret::{ExposeSecret as _, SecretString},
};
use serde_json::json;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, Lines},
    net::TcpStream,
    process::{Child, ChildStderr, ChildStdin, ChildStdout, Command},
    task::JoinSet,
};

const STARTS: usize = 40;
const MEMORY_ROUNDS: usize = 7;
/// Calls before the second look at the memory.
const CALLS_IN_USE: usize = 100;
/// Latency over stdio: rounds, and calls of each server in a round. Every round has processes of its own, because how
/// the scheduler places a process's threads stays with it for life, and weighs more than what is compared.
const STDIO: (usize, usize) = (31, 300);
/// Throughput over HTTP: rounds, with processes of their own, and requests to each server in a round.
const HTTP: (usize, usize) = (41, 1600);
const CONNECTIONS: usize = 16;
/// Memory is settled when it stays the same over so many looks, one every `LOOK`.
const SETTLED: usize = 15;
const LOOK: Duration = Duration::from_millis(20);
/// For the whole run.
const DEADLINE: Duration = Duration::from_mins(3);

const EMAIL: &str = "bench@example.com";
const HTTP_TOKEN: &str = "bench-0123456789abcdef";

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let outcome = match arguments.first().map(String::as_str) {
        Some("bare-stdio") => runtime.block_on(bare::stdio()),
        Some("bare-http") => runtime.block_on(bare::http()),
        _ if arguments.iter().any(|argument| argument == "--bench") => runtime.block_on(async {
            // On a worker, so that no wake-up has to cross threads.
            let measured = tokio::spawn(measure());
            tokio::time::timeout(DEADLINE, measured).await.context("the run took too long")??
        }),
        _ => {
            println!("nothing measured: run me as `cargo bench --bench overhead`");
            Ok(())
        }
    };
    runtime.shutdown_background();
    outcome
}

async fn measure() -> Result<()> {
    let began = Instant::now();
    let world = World::new().await?;
    println!("{:<40} {:>11} {:>11} {:>7}   aim", "", "ours", "bare", "ratio");
    for row in cold_start(&world)
        .await?
        .into_iter()
        .chain(memory(&world).await?)
        .chain(over_stdio(&world).await?)
        .chain(over_http(&world).await?)
    {
        row.print();
    }
    let cores = std::thread::available_parallelism()?;
    println!(
        "\nMedians. A ratio is the median over the rounds and says how much more ours costs (of requests a second, how \
         many\nfewer it serves). {cores} cores, {:.0} s.",
        began.elapsed().as_secs_f64()
    );
    Ok(())
}

/// The two servers that are compared.
#[derive(Clone, Copy, PartialEq)]
enum Server {
    Ours,
    Bare,
}

/// Both, the first one changing with the round, so that neither always runs in the other's wake.
fn turns(round: usize) -> [Server; 2] {
    if round.is_multiple_of(2) { [Server::Ours, Server::Bare] } else { [Server::Bare, Server::Ours] }
}

/// What was measured of both.
#[derive(Default)]
struct Samples {
    ours: Vec<f64>,
    bare: Vec<f64>,
}

impl Samples {
    fn push(&mut self, server: Server, value: f64) {
        match server {
            Server::Ours => self.ours.push(value),
            Server::Bare => self.bare.push(value),
        }
    }

    fn row(self, what: &'static str, unit: &'static str, aim: Option<f64>) -> Row {
        let ratios = self.ours.iter().zip(&self.bare).map(|(ours, bare)| ours / bare).collect();
        Row {
            what,
            unit,
            ours: quantile(self.ours, 0.5),
            bare: quantile(self.bare, 0.5),
            ratio: quantile(ratios, 0.5),
            aim,
        }
    }
}

struct Row {
    what: &'static str,
    unit: &'static str,
    ours: f64,
    bare: f64,
    /// The median of the rounds' own ratios: what disturbs a round disturbs both.
    ratio: f64,
    aim: Option<f64>,
}

impl Row {
    fn print(&self) {
        let ratio = self.ratio;
        let value = |value: f64| {
            let digits = if value >= 1000.0 { 0 } else { 2 };
            format!("{value:.digits$} {:<3}", self.unit)
        };
        let mut aim = String::new();
        if let Some(bound) = self.aim {
            let _ = write!(aim, "{bound:.2} {}", if ratio <= bound { "met" } else { "MISSED" });
        }
        println!("{:<40} {:>11} {:>11} {ratio:>7.2}   {aim}", self.what, value(self.ours), value(self.bare));
    }
}

/// The value below which the part `q` of `values` lies.
fn quantile(mut values: Vec<f64>, q: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
    let at = (q * values.len().saturating_sub(1) as f64).round() as usize;
    values.get(at).copied().unwrap_or(f64::NAN)
}

/// The upstream, and what the servers need to reach it.
struct World {
    sandbox: RunningSandbox,
    password: SecretString,
    sealing_key: SecretString,
    /// What the bare server sends.
    access_token: SecretString,
    data_dir: tempfile::TempDir,
}

impl World {
    async fn new() -> Result<Self> {
        let sandbox = Sandbox::start(SandboxConfig::default(), ([127, 0, 0, 1], 0).into()).await?;
        let password: SecretString = "bench-password-1".into();
        sandbox.add_account(EMAIL, &password, Plan::Unlimited, true);
        let base_url = sandbox.base_url().parse()?;
        let client = Client::new(base_url, Redactor::default(), Clock::system(), Timing::default());
        let access_token = client.login(EMAIL, &password).await?.access_token;
        let data_dir = tempfile::tempdir()?;
        Ok(Self { sandbox, password, sealing_key: "5a".repeat(32).into(), access_token, data_dir })
    }

    fn command(&self, server: Server, transport: &str) -> Result<Command> {
        let mut command = match server {
            Server::Ours => {
                let mut command = Command::new(env!("CARGO_BIN_EXE_bondmcp-server"));
                command.arg(transport);
                command
            }
            Server::Bare => {
                let mut command = Command::new(std::env::current_exe()?);
                command.arg(format!("bare-{transport}"));
                command
            }
        };
        if (server, transport) == (Server::Ours, "http") {
            command.args(["--listen", "127.0.0.1:0"]);
        }
        command
            .env_clear()
            .env("BONDMCP_BASE_URL", self.sandbox.base_url())
            .env("BONDMCP_EMAIL", EMAIL)
            .env("BONDMCP_PASSWORD", self.password.expose_secret())
            // Ours makes it, for its own user only.
            .env("BONDMCP_DATA_DIR", self.data_dir.path().join("data"))
            .env("BONDMCP_SEALING_KEY", self.sealing_key.expose_secret())
            .env("BONDMCP_HTTP_TOKEN", HTTP_TOKEN)
            .env("BARE_TOKEN", self.access_token.expose_secret())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true);
        Ok(command)
    }

    /// How often the upstream was asked for the models.
    fn upstream_calls(&self) -> u64 {
        self.sandbox.count("GET /health-ai/models")
    }

    /// Every call must have gone upstream, or what was measured is not what the table says.
    fn expect_calls(&self, before: u64, calls: usize) -> Result<()> {
        let made = self.upstream_calls() - before;
        ensure!(made == calls as u64, "{calls} calls went upstream {made} times");
        Ok(())
    }
}

// Start, memory and latency: over stdio.

async fn cold_start(world: &World) -> Result<[Row; 1]> {
    // The first start makes the vault and brings both executables into the page cache.
    for server in turns(0) {
        let mut session = Session::start(world, server).await?;
        session.call().await?;
        session.end().await?;
    }
    let mut samples = Samples::default();
    for round in 0..STARTS {
        for server in turns(round) {
            let began = Instant::now();
            let session = Session::start(world, server).await?;
            samples.push(server, began.elapsed().as_secs_f64() * 1e3);
            session.end().await?;
        }
    }
    Ok([samples.row("cold start to the tools/list answer, p50", "ms", Some(1.5))])
}

async fn memory(world: &World) -> Result<[Row; 2]> {
    let (mut idle, mut in_use) = (Samples::default(), Samples::default());
    for round in 0..MEMORY_ROUNDS {
        for server in turns(round) {
            let mut session = Session::start(world, server).await?;
            idle.push(server, session.settled_memory().await?);
            for _ in 0..CALLS_IN_USE {
                session.call().await?;
            }
            in_use.push(server, session.settled_memory().await?);
            session.end().await?;
        }
    }
    Ok([
        idle.row("resident memory, idle after the start", "MiB", Some(1.5)),
        in_use.row("resident memory, after 100 calls", "MiB", Some(1.5)),
    ])
}

async fn over_stdio(world: &World) -> Result<[Row; 3]> {
    let (mut p50, mut p99, mut cpu) = (Samples::default(), Samples::default(), Samples::default());
    let (rounds, calls) = STDIO;
    for round in 0..rounds {
        for server in turns(round) {
            let mut session = Session::start(world, server).await?;
            for _ in 0..calls / 5 {
                session.call().await?;
            }
            let (before, spent) = (world.upstream_calls(), cpu_time(&session.child)?);
            let mut micros = Vec::with_capacity(calls);
            for _ in 0..calls {
                micros.push(session.call().await?.as_secs_f64() * 1e6);
            }
            cpu.push(server, per_call(cpu_time(&session.child)? - spent, calls));
            world.expect_calls(before, calls)?;
            p50.push(server, quantile(micros.clone(), 0.5));
            p99.push(server, quantile(micros, 0.99));
            session.end().await?;
        }
    }
    Ok([
        p50.row("list_models over stdio, p50", "µs", Some(1.15)),
        p99.row("list_models over stdio, p99", "µs", None),
        cpu.row("  processor time of the server, a call", "µs", None),
    ])
}

/// A server over stdio.
struct Session {
    child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

impl Session {
    /// Starts the server and waits for its answer to `tools/list`.
    async fn start(world: &World, server: Server) -> Result<Self> {
        let mut child = world.command(server, "stdio")?.spawn()?;
        let input = child.stdin.take().context("no stdin")?;
        let output = BufReader::new(child.stdout.take().context("no stdout")?).lines();
        let mut session = Self { child, input, output };
        let client = json!({"name": "bench", "version": "1"});
        let params = json!({"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": client});
        let initialize = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params});
        session.ask(&format!("{initialize}\n")).await?;
        let initialized = json!({"jsonrpc": "2.0", "method": "notifications/initialized"});
        let list = json!({"jsonrpc": "2.0", "id": 2, "method": "tools/list"});
        let answer = session.ask(&format!("{initialized}\n{list}\n")).await?;
        ensure!(answer.contains(r#""list_models""#), "not a list of tools: {answer}");
        Ok(session)
    }

    /// One call of `list_models`, and how long it took.
    async fn call(&mut self) -> Result<Duration> {
        const CALL: &str = concat!(
            r#"{"jsonrpc":"2.0","id":3,"method":"tools/call","#,
            r#""params":{"name":"list_models","arguments":{"refresh":true}}}"#,
            "\n"
        );
        let began = Instant::now();
        let answer = self.ask(CALL).await?;
        let took = began.elapsed();
        expect_models(&answer)?;
        Ok(took)
    }

    async fn ask(&mut self, lines: &str) -> Result<String> {
        self.input.write_all(lines.as_bytes()).await?;
        self.output.next_line().await?.context("the server has gone")
    }

    /// `VmRSS` in MiB, once it does not change any more.
    async fn settled_memory(&self) -> Result<f64> {
        let (mut last, mut same) = (0.0, 0);
        while same < SETTLED {
            tokio::time::sleep(LOOK).await;
            let now = resident(&self.child)?;
            same = if (now - last).abs() < f64::EPSILON { same + 1 } else { 0 };
            last = now;
        }
        Ok(last)
    }

    async fn end(mut self) -> Result<()> {
        drop(self.input);
        ensure!(self.child.wait().await?.success(), "the server failed");
        Ok(())
    }
}

fn expect_models(answer: &str) -> Result<()> {
    let served = answer.contains("sandbox-cardio-1") && !answer.contains(r#""isError":true"#);
    ensure!(served, "not a list of models: {answer}");
    Ok(())
}

fn resident(child: &Child) -> Result<f64> {
    let status = std::fs::read_to_string(proc(child)?.join("status")).context("this needs Linux's /proc")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<f64>()? / 1024.0)
}

/// What the process's threads have spent so far, in nanoseconds.
fn cpu_time(child: &Child) -> Result<u64> {
    let mut sum = 0;
    for task in std::fs::read_dir(proc(child)?.join("task"))? {
        // A thread may end while we look.
        let Ok(spent) = std::fs::read_to_string(task?.path().join("schedstat")) else { continue };
        sum += spent.split(' ').next().context("no schedstat")?.parse::<u64>()?;
    }
    Ok(sum)
}

/// In microseconds.
#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn per_call(nanos: u64, calls: usize) -> f64 {
    nanos as f64 / 1e3 / calls as f64
}

fn proc(child: &Child) -> Result<std::path::PathBuf> {
    let id = child.id().context("the server has ended")?;
    Ok(Path::new("/proc").join(id.to_string()))
}

// Throughput: over HTTP, 2026-07-28, where every request stands for itself.

async fn over_http(world: &World) -> Result<[Row; 2]> {
    let (mut rate, mut cpu) = (Samples::default(), Samples::default());
    let (rounds, requests) = HTTP;
    for round in 0..rounds {
        for server in turns(round) {
            let target = Listening::start(world, server).await?;
            target.load(requests / 5).await?;
            let (before, spent) = (world.upstream_calls(), cpu_time(&target.child)?);
            let took = target.load(requests).await?;
            cpu.push(server, per_call(cpu_time(&target.child)? - spent, requests));
            world.expect_calls(before, requests)?;
            rate.push(server, 1e6 / per_call(u64::try_from(took.as_nanos())?, requests));
            target.end().await?;
        }
    }
    let rate = rate.row("list_models over HTTP, 16 connections", "/s", Some(1.15));
    Ok([
        Row { ratio: rate.ratio.recip(), ..rate },
        cpu.row("  processor time of the server, a call", "µs", None),
    ])
}

/// A server that listens.
struct Listening {
    child: Child,
    address: String,
    /// Held open: the server may still log.
    _stderr: BufReader<ChildStderr>,
}

impl Listening {
    async fn start(world: &World, server: Server) -> Result<Self> {
        let mut child = world.command(server, "http")?.stderr(Stdio::piped()).spawn()?;
        let mut stderr = BufReader::new(child.stderr.take().context("no stderr")?);
        let mut line = String::new();
        stderr.read_line(&mut line).await?;
        let (_, address) = line.trim_end().split_once("http://").with_context(|| line.clone())?;
        let address = address.strip_suffix("/mcp").context("not at /mcp")?.to_owned();
        Ok(Self { child, address, _stderr: stderr })
    }

    async fn end(mut self) -> Result<()> {
        Ok(self.child.kill().await?)
    }

    /// So many requests, spread over the connections.
    async fn load(&self, requests: usize) -> Result<Duration> {
        let request = self.request();
        let mut connections = vec![];
        for _ in 0..CONNECTIONS {
            connections.push(Connection::open(&self.address).await?);
        }
        let began = Instant::now();
        let mut tasks = JoinSet::new();
        for mut connection in connections {
            let request = request.clone();
            tasks.spawn(async move {
                for _ in 0..requests / CONNECTIONS {
                    connection.call(&request).await?;
                }
                anyhow::Ok(())
            });
        }
        while let Some(done) = tasks.join_next().await {
            done??;
        }
        Ok(began.elapsed())
    }

    fn request(&self) -> String {
        let meta = json!({
            "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientInfo": {"name": "bench", "version": "1"},
            "io.modelcontextprotocol/clientCapabilities": {},
        });
        let params = json!({"name": "list_models", "arguments": {"refresh": true}, "_meta": meta});
        let body = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}).to_string();
        format!(
            "POST /mcp HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {HTTP_TOKEN}\r\n\
             Content-Type: application/json\r\nAccept: application/json, text/event-stream\r\n\
             MCP-Protocol-Version: 2026-07-28\r\nMcp-Method: tools/call\r\nMcp-Name: list_models\r\n\
             Content-Length: {}\r\n\r\n{body}",
            self.address,
            body.len()
        )
    }
}

/// As little HTTP/1.1 as it takes, so that the client weighs little in the figures.
struct Connection(BufReader<TcpStream>);

impl Connection {
    async fn open(address: &str) -> Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self(BufReader::new(stream)))
    }

    async fn call(&mut self, request: &str) -> Result<()> {
        self.0.get_mut().write_all(request.as_bytes()).await?;
        let (mut head, mut length) = (String::new(), None);
        loop {
            let start = head.len();
            ensure!(self.0.read_line(&mut head).await? > 0, "the connection was closed: {head}");
            let line = head[start..].trim_end().to_ascii_lowercase();
            if line.is_empty() {
                break;
            }
            if let Some(value) = line.strip_prefix("content-length:") {
                length = Some(value.trim().parse::<usize>()?);
            }
        }
        let Some(length) = length else { bail!("an answer without a length: {head}") };
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).await?;
        let body = String::from_utf8(body)?;
        ensure!(head.starts_with("HTTP/1.1 200 "), "refused: {head}{body}");
        expect_models(&body)
    }
}

/// The least that does the job with rmcp: one tool, one HTTP client, one fixed token.
mod bare {
    use std::sync::Arc;

    use anyhow::Result;
    use rmcp::{
        ServerHandler, ServiceExt as _,
        handler::server::{router::tool::ToolRouter, wrapper::Json},
        schemars::{self, JsonSchema},
        tool, tool_handler, tool_router,
        transport::{
            StreamableHttpServerConfig, StreamableHttpService, stdio as standard_streams,
            streamable_http_server::session::local::LocalSessionManager,
        },
    };
    use serde::{Deserialize, Serialize};

    #[derive(Clone)]
    struct Bare {
        http: reqwest::Client,
        models: String,
        token: String,
        tools: ToolRouter<Self>,
    }

    #[derive(Deserialize, Serialize, JsonSchema)]
    struct Models {
        models: Vec<serde_json::Map<String, serde_json::Value>>,
    }

    #[tool_router]
    impl Bare {
        fn new() -> Result<Self> {
            Ok(Self {
                http: reqwest::Client::new(),
                models: format!("{}/health-ai/models", std::env::var("BONDMCP_BASE_URL")?),
                token: std::env::var("BARE_TOKEN")?,
                tools: Self::tool_router(),
            })
        }

        #[tool(description = "Lists the models.")]
        async fn list_models(&self) -> Result<Json<Models>, String> {
            self.fetch().await.map(Json).map_err(|error| error.to_string())
        }

        async fn fetch(&self) -> Result<Models> {
            let answer = self.http.get(&self.models).bearer_auth(&self.token).send().await?;
            Ok(serde_json::from_slice(&answer.error_for_status()?.bytes().await?)?)
        }
    }

    #[tool_handler(router = self.tools)]
    impl ServerHandler for Bare {}

    pub async fn stdio() -> Result<()> {
        Bare::new()?.serve(standard_streams()).await?.waiting().await?;
        Ok(())
    }

    pub async fn http() -> Result<()> {
        let bare = Bare::new()?;
        let config = StreamableHttpServerConfig::default().with_json_response(true);
        let sessions = Arc::new(LocalSessionManager::default());
        let mcp = StreamableHttpService::new(move || Ok(bare.clone()), sessions, config);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        eprintln!("http://{}/mcp", listener.local_addr()?);
        Ok(axum::serve(listener, axum::Router::new().route_service("/mcp", mcp)).await?)
    }
}
