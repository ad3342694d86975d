//! The cost of this server compared with a bare rmcp server that makes the same upstream request with a fixed token,
//! and with a tool of that server that does nothing (the floor). Start, memory, latency over stdio, throughput over
//! HTTP in each revision of MCP. All run on this machine in one run, turn by turn, against one embedded sandbox, so the
//! ratios mean something; the absolute figures are this machine's. The bare server is this executable, started again.
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

use anyhow::{Context as _, Result, ensure};
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
/// Calls before the second measurement of memory.
const CALLS_IN_USE: usize = 100;
/// Latency over stdio: rounds, and calls of each server in a round. Every round has processes of its own, because how
/// the scheduler places a process's threads stays with it for life, and weighs more than what is compared.
const STDIO: (usize, usize) = (31, 300);
/// Throughput over HTTP: rounds, with processes of their own, and requests of each kind to each server in a round.
const HTTP: (usize, usize) = (15, 1600);
const CONNECTIONS: usize = 16;
/// Memory is settled when it stays the same over so many looks, one every `MEMORY_POLL_INTERVAL`.
const SETTLED: usize = 15;
const MEMORY_POLL_INTERVAL: Duration = Duration::from_millis(20);
/// Time-out of the whole run.
const DEADLINE: Duration = Duration::from_mins(6);

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
    println!("{:<46} {:>11} {:>11} {:>11}   ratio        aim", "", "ours", "bare", "floor");
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
        "\nMedians. A ratio is the median over the rounds. \"of bare\" says how much more ours costs (of requests a \
         second,\nhow many fewer it serves), \"of the floor\" how many of its requests a second ours serves. Private \
         memory is what\nis no unchanged page of a file. {cores} cores, {:.0} s.",
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

/// The measurements.
#[derive(Default)]
struct Samples {
    ours: Vec<f64>,
    bare: Vec<f64>,
    floor: Vec<f64>,
}

impl Samples {
    fn push(&mut self, server: Server, value: f64) {
        match server {
            Server::Ours => self.ours.push(value),
            Server::Bare => self.bare.push(value),
        }
    }

    /// How much more ours costs than the bare server: at most `aim`.
    fn row(self, what: impl Into<String>, unit: &'static str, aim: Option<f64>) -> Row {
        let ratio = median_ratio(&self.ours, &self.bare);
        self.with(what.into(), unit, Ratio { value: ratio, of: "of bare", aim, at_least: false })
    }

    /// Requests a second; the ratio says how much more a request costs.
    fn rate_row(self, what: impl Into<String>, aim: f64) -> Row {
        let ratio = median_ratio(&self.bare, &self.ours);
        self.with(what.into(), "/s", Ratio { value: ratio, of: "of bare", aim: Some(aim), at_least: false })
    }

    /// Requests a second, of the floor's: at least `aim`.
    fn floor_row(self, what: impl Into<String>, aim: f64) -> Row {
        let ratio = median_ratio(&self.ours, &self.floor);
        self.with(
            what.into(),
            "/s",
            Ratio { value: ratio, of: "of the floor", aim: Some(aim), at_least: true },
        )
    }

    fn with(self, what: String, unit: &'static str, ratio: Ratio) -> Row {
        let median = |values| quantile(values, 0.5);
        Row { what, unit, values: [self.ours, self.bare, self.floor].map(median), ratio }
    }
}

/// The median of the rounds' own ratios: what disturbs a round disturbs both.
fn median_ratio(above: &[f64], below: &[f64]) -> f64 {
    quantile(above.iter().zip(below).map(|(above, below)| above / below).collect(), 0.5)
}

struct Ratio {
    value: f64,
    of: &'static str,
    aim: Option<f64>,
    at_least: bool,
}

struct Row {
    what: String,
    unit: &'static str,
    /// Ours, bare and the floor; not a number where it was not measured.
    values: [f64; 3],
    ratio: Ratio,
}

impl Row {
    fn print(&self) {
        let [ours, bare, floor] = self.values.map(|value| match value {
            value if value.is_nan() => String::new(),
            value if value >= 1000.0 => format!("{value:.0} {:<3}", self.unit),
            value => format!("{value:.2} {:<3}", self.unit),
        });
        let Ratio { value, of, aim, at_least } = self.ratio;
        let aim = aim.map_or(String::new(), |bound| {
            let met = if at_least { value >= bound } else { value <= bound };
            let sign = if at_least { "≥" } else { "≤" };
            format!("{sign} {bound:.2} {}", if met { "met" } else { "MISSED" })
        });
        println!("{:<46} {ours:>11} {bare:>11} {floor:>11}   {value:.2} {of:<12} {aim}", self.what);
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
    /// Token that the bare server sends.
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
    Ok([samples.row("cold start to the tools/list answer, p50", "ms", Some(0.9))])
}

async fn memory(world: &World) -> Result<Vec<Row>> {
    let mut samples: [(&str, Memory<Samples>); 2] =
        [("idle after the start", Memory::default()), ("after 100 calls", Memory::default())];
    for round in 0..MEMORY_ROUNDS {
        for server in turns(round) {
            let mut session = Session::start(world, server).await?;
            for (n, (_, samples)) in samples.iter_mut().enumerate() {
                for _ in 0..n * CALLS_IN_USE {
                    session.call().await?;
                }
                let memory = session.settled_memory().await?;
                samples.private.push(server, memory.private);
                samples.resident.push(server, memory.resident);
            }
            session.end().await?;
        }
    }
    let rows = samples.map(|(when, Memory { private, resident })| {
        let what = |kind| format!("{kind} memory, {when}");
        [private.row(what("private"), "MiB", Some(1.3)), resident.row(what("resident"), "MiB", Some(1.6))]
    });
    Ok(rows.into_iter().flatten().collect())
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
        p50.row("uncached call over stdio, p50", "µs", Some(1.05)),
        p99.row("uncached call over stdio, p99", "µs", None),
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

    /// Once it does not change any more.
    async fn settled_memory(&self) -> Result<Memory<f64>> {
        let (mut last, mut same) = (Memory::default(), 0);
        while same < SETTLED {
            tokio::time::sleep(MEMORY_POLL_INTERVAL).await;
            let now = Memory::of(&self.child)?;
            same = if now == last { same + 1 } else { 0 };
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

/// Memory in MiB.
#[derive(Default, PartialEq)]
struct Memory<T> {
    /// What is this process's alone: not the unchanged pages of files, which all its like share.
    private: T,
    resident: T,
}

impl Memory<f64> {
    fn of(child: &Child) -> Result<Self> {
        let smaps = std::fs::read_to_string(proc(child)?.join("smaps_rollup")).context("this needs Linux")?;
        let mebibytes = |name: &str| -> Result<f64> {
            let line =
                smaps.lines().find_map(|line| line.strip_prefix(name)).context("not in smaps_rollup")?;
            Ok(line.trim().trim_end_matches(" kB").parse::<f64>()? / 1024.0)
        };
        Ok(Self { private: mebibytes("Anonymous:")?, resident: mebibytes("Rss:")? })
    }
}

/// What the process's threads have spent so far, in nanoseconds.
fn cpu_time(child: &Child) -> Result<u64> {
    let mut sum = 0;
    for task in std::fs::read_dir(proc(child)?.join("task"))? {
        // A thread may end during the measurement.
        let Ok(spent) = std::fs::read_to_string(task?.path().join("schedstat")) else { continue };
        sum += spent.split(' ').next().context("no schedstat")?.parse::<u64>()?;
    }
    Ok(sum)
}

/// Duration in microseconds.
#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn per_call(nanos: u64, calls: usize) -> f64 {
    nanos as f64 / 1e3 / calls as f64
}

fn proc(child: &Child) -> Result<std::path::PathBuf> {
    let id = child.id().context("the server has ended")?;
    Ok(Path::new("/proc").join(id.to_string()))
}

// Throughput: over HTTP, in each way in which a host may speak it.

/// The revision of MCP, and whether the host keeps a session.
#[derive(Clone, Copy, PartialEq)]
enum Mode {
    Stateless,
    Session,
    WithoutSession,
}

impl Mode {
    const ALL: [Self; 3] = [Self::Stateless, Self::Session, Self::WithoutSession];

    fn name(self) -> &'static str {
        match self {
            Self::Stateless => "2026-07-28",
            Self::Session => "2025-11-25, session",
            Self::WithoutSession => "2025-11-25, no session",
        }
    }

    fn revision(self) -> &'static str {
        if self == Self::Stateless { "2026-07-28" } else { "2025-11-25" }
    }
}

/// The call that is measured.
#[derive(Clone, Copy, PartialEq)]
enum Call {
    /// `list_models`, from the upstream.
    Uncached,
    /// `list_models`, from ours' memory.
    Cached,
    /// The bare server's tool that does nothing.
    Nothing,
}

impl Call {
    fn tool(self) -> &'static str {
        if self == Self::Nothing { "nothing" } else { "list_models" }
    }

    fn check(self, answer: &str) -> Result<()> {
        if self == Self::Nothing {
            ensure!(
                answer.contains(r#""result""#) && !answer.contains(r#""isError":true"#),
                "refused: {answer}"
            );
            return Ok(());
        }
        expect_models(answer)
    }
}

async fn over_http(world: &World) -> Result<Vec<Row>> {
    let mut samples =
        Mode::ALL.map(|mode| (mode, Samples::default(), Samples::default(), Samples::default()));
    let (rounds, requests) = HTTP;
    for round in 0..rounds {
        for server in turns(round) {
            let target = Listening::start(world, server).await?;
            for (mode, uncached, cached, cpu) in &mut samples {
                let mut connections = target.connect(server, *mode).await?;
                load(&mut connections, Call::Uncached, requests / 5).await?;
                let (before, spent) = (world.upstream_calls(), cpu_time(&target.child)?);
                let rate = load(&mut connections, Call::Uncached, requests).await?;
                cpu.push(server, per_call(cpu_time(&target.child)? - spent, requests));
                world.expect_calls(before, requests)?;
                uncached.push(server, rate);
                let before = world.upstream_calls();
                match server {
                    Server::Ours => cached.ours.push(load(&mut connections, Call::Cached, requests).await?),
                    Server::Bare => {
                        let rate = load(&mut connections, Call::Nothing, requests).await?;
                        cached.floor.push(rate);
                        uncached.floor.push(rate);
                    }
                }
                world.expect_calls(before, 0)?;
            }
            target.end().await?;
        }
    }
    let rows = samples.map(|(mode, uncached, cached, cpu)| {
        let name = mode.name();
        [
            uncached.rate_row(format!("uncached call, {name}"), 1.05),
            cpu.row("  processor time of the server, a call", "µs", None),
            cached.floor_row(format!("cached call, {name}"), 0.75),
        ]
    });
    Ok(rows.into_iter().flatten().collect())
}

/// Requests a second, spread over the connections.
async fn load(connections: &mut Vec<Connection>, call: Call, requests: usize) -> Result<f64> {
    let each = requests / connections.len();
    let mut tasks = JoinSet::new();
    let began = Instant::now();
    for mut connection in connections.drain(..) {
        tasks.spawn(async move {
            let request = connection.request_for(call);
            for _ in 0..each {
                call.check(&connection.ask(&request).await?.1)?;
            }
            anyhow::Ok(connection)
        });
    }
    while let Some(done) = tasks.join_next().await {
        connections.push(done??);
    }
    Ok(1e6 / per_call(u64::try_from(began.elapsed().as_nanos())?, requests))
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

    /// Connections that are ready for calls.
    async fn connect(&self, server: Server, mode: Mode) -> Result<Vec<Connection>> {
        // rmcp serves without sessions where it is told so only.
        let without_session = (server, mode) == (Server::Bare, Mode::WithoutSession);
        let path = if without_session { "/without-session" } else { "/mcp" };
        let mut connections = vec![];
        for _ in 0..CONNECTIONS {
            connections.push(Connection::open(&self.address, path, mode).await?);
        }
        Ok(connections)
    }
}

/// A minimal HTTP/1.1 client, so that it hardly affects the figures.
struct Connection {
    stream: BufReader<TcpStream>,
    /// Every request's head, but for what the call decides.
    head: String,
    mode: Mode,
}

impl Connection {
    async fn open(address: &str, path: &str, mode: Mode) -> Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {HTTP_TOKEN}\r\n\
             Content-Type: application/json\r\nAccept: application/json, text/event-stream\r\n\
             MCP-Protocol-Version: {}\r\n",
            mode.revision()
        );
        let mut connection = Self { stream: BufReader::new(stream), head, mode };
        if mode == Mode::Session {
            let client = json!({"name": "bench", "version": "1"});
            let params =
                json!({"protocolVersion": mode.revision(), "capabilities": {}, "clientInfo": client});
            let body = json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params});
            let (head, _) = connection.ask(&connection.request("", &body.to_string())).await?;
            let session = head.lines().find_map(|line| line.strip_prefix("mcp-session-id:"));
            let session = session.with_context(|| format!("no session: {head}"))?;
            write!(connection.head, "Mcp-Session-Id:{session}\r\n")?;
            let body = json!({"jsonrpc": "2.0", "method": "notifications/initialized"});
            connection.ask(&connection.request("", &body.to_string())).await?;
        }
        Ok(connection)
    }

    fn request(&self, more: &str, body: &str) -> String {
        format!("{}{more}Content-Length: {}\r\n\r\n{body}", self.head, body.len())
    }

    fn request_for(&self, call: Call) -> String {
        let tool = call.tool();
        let arguments = if call == Call::Uncached { json!({"refresh": true}) } else { json!({}) };
        let mut params = json!({"name": tool, "arguments": arguments});
        let mut more = String::new();
        if self.mode == Mode::Stateless {
            params["_meta"] = json!({
                "io.modelcontextprotocol/protocolVersion": "2026-07-28",
                "io.modelcontextprotocol/clientInfo": {"name": "bench", "version": "1"},
                "io.modelcontextprotocol/clientCapabilities": {},
            });
            more = format!("Mcp-Method: tools/call\r\nMcp-Name: {tool}\r\n");
        }
        let body = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}).to_string();
        self.request(&more, &body)
    }

    /// The response's head, in small letters, and body.
    async fn ask(&mut self, request: &str) -> Result<(String, String)> {
        self.stream.get_mut().write_all(request.as_bytes()).await?;
        let mut head = String::new();
        loop {
            let start = head.len();
            ensure!(self.stream.read_line(&mut head).await? > 0, "the connection was closed: {head}");
            if head[start..].trim_end().is_empty() {
                break;
            }
        }
        head.make_ascii_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
        let mut body = vec![];
        if let Some(length) = length {
            body.resize(length.trim().parse()?, 0);
            self.stream.read_exact(&mut body).await?;
        } else {
            while self.chunk(&mut body).await? {}
        }
        let body = String::from_utf8(body)?;
        ensure!(head.starts_with("http/1.1 20"), "refused: {head}{body}");
        Ok((head, body))
    }

    /// Adds the next chunk; whether another one follows.
    async fn chunk(&mut self, body: &mut Vec<u8>) -> Result<bool> {
        let mut size = String::new();
        self.stream.read_line(&mut size).await?;
        let size = usize::from_str_radix(size.trim(), 16).with_context(|| format!("no chunk: {size}"))?;
        let start = body.len();
        // Includes the line end.
        body.resize(start + size + 2, 0);
        self.stream.read_exact(&mut body[start..]).await?;
        body.truncate(start + size);
        Ok(size > 0)
    }
}

/// A minimal rmcp server: one HTTP client, one fixed token, and an additional tool that does nothing.
#[allow(clippy::disallowed_types, reason = "it has no guard")]
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

        #[tool(description = "Does nothing.")]
        async fn nothing(&self) {}

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
        use axum::serve::ListenerExt as _;

        let bare = Bare::new()?;
        let config = StreamableHttpServerConfig::default().with_json_response(true);
        let sessions = Arc::new(LocalSessionManager::default());
        let service = |config| {
            let bare = bare.clone();
            StreamableHttpService::new(move || Ok(bare.clone()), Arc::clone(&sessions), config)
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        eprintln!("http://{}/mcp", listener.local_addr()?);
        let router = axum::Router::new()
            .route_service("/mcp", service(config.clone()))
            .route_service("/without-session", service(config.with_legacy_session_mode(false)));
        Ok(axum::serve(listener.tap_io(|stream| drop(stream.set_nodelay(true))), router).await?)
    }
}
