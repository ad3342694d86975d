//! The measurements.

use std::{
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
    process::{Child, Command},
    task::JoinSet,
};

use super::{person::Person, postgres, upstream};

const STATIC_TOKEN: &str = "bench-0123456789abcdef";

/// Connections, each with a grant of its own at the hosted server.
const CONNECTIONS: usize = 16;

/// Rounds, and requests of each kind to each server in a round.
const ROUNDS: usize = 61;
const REQUESTS: usize = 1600;

/// Time-out of the whole run.
const DEADLINE: Duration = Duration::from_mins(5);

/// What the hosted server may cost, of the one with a static token.
const AIM: f64 = 1.15;

/// What the way from the authorization request to the tokens may take, in milliseconds.
const CONNECTING_AIM: f64 = 50.0;

pub fn main() -> Result<()> {
    if !std::env::args().any(|argument| argument == "--bench") {
        println!("nothing measured: run me as `cargo bench --bench hosting`");
        return Ok(());
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let measured = tokio::spawn(measure());
        tokio::time::timeout(DEADLINE, measured).await.context("the run took too long")??
    })
}

async fn measure() -> Result<()> {
    let began = Instant::now();
    let Some(database) = postgres::database() else {
        println!("PostgreSQL is not installed, so nothing is measured.");
        return Ok(());
    };
    let base_url = upstream::start().await?;
    let local = Server::start(&base_url, None).await?;
    let hosted = Server::start(&base_url, Some(&database.url)).await?;
    let (tokens, connecting) = connect_apps(&hosted.origin).await?;
    println!("{:<42} {:>11} {:>11}   ratio", "", "hosted", "static");
    for (what, arguments) in [("uncached call", json!({"refresh": true})), ("cached call", json!({}))] {
        let (mut ours, mut theirs) = (vec![], vec![]);
        let mut of_hosted = connections(&hosted, &tokens, &arguments).await?;
        let mut of_local = connections(&local, &[STATIC_TOKEN.to_owned()], &arguments).await?;
        for round in 0..=ROUNDS {
            // The first one in a round changes, so that neither always runs in the other's wake.
            let rates = if round % 2 == 0 {
                let hosted = load(&mut of_hosted).await?;
                (hosted, load(&mut of_local).await?)
            } else {
                let local = load(&mut of_local).await?;
                (load(&mut of_hosted).await?, local)
            };
            // The first round warms up.
            if round > 0 {
                ours.push(rates.0);
                theirs.push(rates.1);
            }
        }
        let ratio = median(theirs.iter().zip(&ours).map(|(theirs, ours)| theirs / ours).collect());
        let verdict = if ratio <= AIM { "met" } else { "MISSED" };
        let (ours, theirs) = (median(ours), median(theirs));
        println!("{what:<42} {ours:>9.0}/s {theirs:>9.0}/s   {ratio:.2} ≤ {AIM:.2} {verdict}");
    }
    let verdict = if connecting <= CONNECTING_AIM { "met" } else { "MISSED" };
    println!(
        "{:<42} {connecting:>8.1} ms                 ≤ {CONNECTING_AIM} ms {verdict}",
        "authorization request to tokens"
    );
    println!(
        "\nMedians. A ratio is the median over the rounds: how much more a request costs. {:.0} s.",
        began.elapsed().as_secs_f64()
    );
    Ok(())
}

/// Connects an app for each of the people, one after the other; returns the access tokens, and the median of the
/// milliseconds that it took.
async fn connect_apps(origin: &str) -> Result<(Vec<String>, f64)> {
    let client_id = Person::new(origin)?.register().await?;
    let (mut tokens, mut millis) = (vec![], vec![]);
    for number in 0..CONNECTIONS {
        let mut person = Person::new(origin)?;
        let (token, took) = person.connect(&client_id, &format!("person-{number}@example.com")).await?;
        tokens.push(token);
        millis.push(took.as_secs_f64() * 1e3);
    }
    Ok((tokens, median(millis)))
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// A running server.
struct Server {
    origin: String,
    _child: Child,
    _data_dir: tempfile::TempDir,
}

impl Server {
    /// Starts a hosted server over the PostgreSQL database at `vault`; without one, a server with a static token and SQLite.
    async fn start(base_url: &str, vault: Option<&str>) -> Result<Self> {
        // Free again once it is dropped; the public origin must be known before the start.
        let port = TcpListener::bind("127.0.0.1:0").await?.local_addr()?.port();
        let (origin, listen) = (format!("http://localhost:{port}"), format!("127.0.0.1:{port}"));
        let data_dir = tempfile::tempdir()?;
        let mut command = Command::new(env!("CARGO_BIN_EXE_bondmcp-server"));
        command.args(["http", "--listen", &listen]).env_clear();
        match vault {
            Some(url) => command.args(["--public-url", &origin]).env("BONDMCP_VAULT", url),
            None => command
                .env("BONDMCP_HTTP_TOKEN", STATIC_TOKEN)
                .env("BONDMCP_EMAIL", "bench@example.com")
                .env("BONDMCP_PASSWORD", "password-1"),
        };
        let command = command
            .env("BONDMCP_BASE_URL", base_url)
            // The server makes it, for its own user only.
            .env("BONDMCP_DATA_DIR", data_dir.path().join("data"))
            .env("BONDMCP_SEALING_KEY", "5a".repeat(32))
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let mut child = command.spawn()?;
        let mut stderr = BufReader::new(child.stderr.take().context("no stderr")?).lines();
        let first = stderr.next_line().await?.context("the server has ended")?;
        ensure!(first.starts_with("Serving MCP"), "{first}");
        // Read on, so that the server never waits.
        tokio::spawn(async move { while let Ok(Some(_)) = stderr.next_line().await {} });
        Ok(Self { origin, _child: child, _data_dir: data_dir })
    }
}

/// Connections that are ready for calls with these arguments, with the tokens in turn.
async fn connections(
    server: &Server,
    tokens: &[String],
    arguments: &serde_json::Value,
) -> Result<Vec<Connection>> {
    let mut connections = vec![];
    for token in tokens.iter().cycle().take(CONNECTIONS) {
        connections.push(Connection::open(&server.origin, token, arguments).await?);
    }
    Ok(connections)
}

/// Requests a second, spread over the connections.
async fn load(connections: &mut Vec<Connection>) -> Result<f64> {
    let mut tasks = JoinSet::new();
    let began = Instant::now();
    for mut connection in connections.drain(..) {
        tasks.spawn(async move {
            for _ in 0..REQUESTS / CONNECTIONS {
                connection.call().await?;
            }
            anyhow::Ok(connection)
        });
    }
    while let Some(done) = tasks.join_next().await {
        connections.push(done??);
    }
    #[expect(clippy::cast_precision_loss, reason = "a small number")]
    Ok(REQUESTS as f64 / began.elapsed().as_secs_f64())
}

/// A minimal HTTP/1.1 client, so that it hardly affects the figures.
struct Connection {
    stream: BufReader<TcpStream>,
    request: String,
}

impl Connection {
    async fn open(origin: &str, token: &str, arguments: &serde_json::Value) -> Result<Self> {
        let authority = origin.strip_prefix("http://").context("not http")?;
        let stream = TcpStream::connect(authority.replace("localhost", "127.0.0.1")).await?;
        stream.set_nodelay(true)?;
        let params = json!({"name": "list_models", "arguments": arguments, "_meta": {
            "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientInfo": {"name": "bench", "version": "1"},
            "io.modelcontextprotocol/clientCapabilities": {},
        }});
        let body = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}).to_string();
        let request = format!(
            "POST /mcp HTTP/1.1\r\nHost: {authority}\r\nAuthorization: Bearer {token}\r\n\
             Content-Type: application/json\r\nAccept: application/json, text/event-stream\r\n\
             MCP-Protocol-Version: 2026-07-28\r\nMcp-Method: tools/call\r\nMcp-Name: list_models\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        Ok(Self { stream: BufReader::new(stream), request })
    }

    async fn call(&mut self) -> Result<()> {
        self.stream.get_mut().write_all(self.request.as_bytes()).await?;
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            ensure!(self.stream.read_line(&mut head).await? > 0, "the connection was closed: {head}");
        }
        head.make_ascii_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
        let length = length.with_context(|| format!("no length: {head}"))?.trim().parse()?;
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).await?;
        let body = String::from_utf8(body)?;
        ensure!(body.contains("model-1") && !body.contains(r#""isError":true"#), "{head}{body}");
        Ok(())
    }
}
