//! The measurements. Memory is measured in processes of this executable, started again.

use std::{
    ops::RangeInclusive,
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use axum::{
    Json, Router,
    http::{HeaderMap, StatusCode, header::AUTHORIZATION},
    routing::{get, post},
};
use bondmcp_server::{
    account::{Accounts, Owner},
    bondmcp::{Client, Timing},
    clock::Clock,
    config::{Flags, Settings},
    mcp::{BondMcp, Limits, Selection},
    redact::Redactor,
    secret::{self, ExposeSecret as _},
    transport::stdio,
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpListener,
    process::Command,
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use super::postgres;

const FEW: usize = 10;
const MANY: usize = 10_000;
/// Owners of the smaller measurement of memory: about three times as many as are kept open, since fewer do not fill it.
const SOME: usize = 3000;

/// How many sign in at the same time.
const AT_ONCE: usize = 16;

/// Rounds, in each of which `FEW` accounts are opened in each of the vaults.
const ROUNDS: usize = 60;

/// Time-out of the whole run.
const DEADLINE: Duration = Duration::from_mins(6);

const VARIABLES: [&str; 4] = ["BONDMCP_BASE_URL", "BONDMCP_DATA_DIR", "BONDMCP_SEALING_KEY", "BONDMCP_VAULT"];

pub fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let outcome = match arguments.first().map(String::as_str) {
        Some("serve") => runtime.block_on(serve_owners(arguments[1].parse()?)),
        _ if arguments.iter().any(|argument| argument == "--bench") => runtime.block_on(async {
            let measured = tokio::spawn(measure());
            tokio::time::timeout(DEADLINE, measured).await.context("the run took too long")??
        }),
        _ => {
            println!("nothing measured: run me as `cargo bench --bench owners`");
            Ok(())
        }
    };
    runtime.shutdown_background();
    outcome
}

async fn measure() -> Result<()> {
    let began = Instant::now();
    println!("{:<58} {:>11} {:>11}   ratio", "", "many", "few");
    let base_url = upstream().await?;
    // Every database goes with this value.
    let databases = || Some([postgres::database()?, postgres::database()?]);
    let mut missed = store("SQLite", Place::new(&base_url, None)?, Place::new(&base_url, None)?).await?;
    if let Some([few, many]) = databases() {
        let place = |database: &postgres::Database| Place::new(&base_url, Some(&database.url));
        missed += store("PostgreSQL", place(&few)?, place(&many)?).await?;
    } else {
        println!("PostgreSQL is not installed, so it is not measured.");
    }
    println!("\nMedians. {:.0} s.", began.elapsed().as_secs_f64());
    ensure!(missed == 0, "aims missed: {missed}");
    Ok(())
}

/// Measures one store; returns the number of aims that were missed.
async fn store(name: &str, few: Place, many: Place) -> Result<usize> {
    few.sign_in(FEW).await?;
    many.sign_in(MANY).await?;
    let met = [opening(name, &few, &many).await?, memory(name, &many).await?];
    Ok(met.into_iter().filter(|met| !met).count())
}

/// Opening an account: reading and decrypting its record, and learning its secrets. Returns whether the aim was met.
async fn opening(name: &str, few: &Place, many: &Place) -> Result<bool> {
    let served = many.accounts()?;
    for owner in 0..MANY {
        open(&served, owner).await?;
    }
    let (mut of_few, mut of_many, mut of_served) = (vec![], vec![], vec![]);
    for round in 0..ROUNDS {
        of_few.extend(open_afresh(few, 0).await?);
        // Others each time; in `served` those that it let go long ago.
        let first = round * FEW;
        of_many.extend(open_afresh(many, first).await?);
        for owner in first..first + FEW {
            of_served.push(open(&served, owner).await?);
        }
    }
    served.close().await;
    let few = median(of_few);
    let met = row(
        &format!("opening one of 10,000 owners and of 10, {name}"),
        "µs",
        median(of_many),
        few,
        Some(0.8..=1.2),
    );
    // It lets another one go each time, so this is more work.
    row(&format!("  in a process that has served 10,000, {name}"), "µs", median(of_served), few, None);
    Ok(met)
}

/// Opens some accounts, from `first` on, each for the first time.
async fn open_afresh(place: &Place, first: usize) -> Result<Vec<f64>> {
    let accounts = place.accounts()?;
    // Opens the vault.
    open(&accounts, usize::MAX).await?;
    let mut micros = Vec::with_capacity(FEW);
    for owner in first..first + FEW {
        micros.push(open(&accounts, owner).await?);
    }
    accounts.close().await;
    Ok(micros)
}

/// Opens the owner's account; returns the microseconds it took. Nobody has the last number.
async fn open(accounts: &Accounts, owner: usize) -> Result<f64> {
    let began = Instant::now();
    let status = accounts.open(&subject(owner)).status().await?;
    let took = began.elapsed().as_secs_f64() * 1e6;
    ensure!(status.signed_in == (owner != usize::MAX), "{status:?}");
    Ok(took)
}

/// The memory of a process; returns whether the aim was met.
async fn memory(name: &str, many: &Place) -> Result<bool> {
    let (none, some, all) = (many.memory(0).await?, many.memory(SOME).await?, many.memory(MANY).await?);
    let met = row(
        &format!("resident memory after serving 10,000 and 3,000, {name}"),
        "MiB",
        all,
        some,
        Some(0.0..=1.25),
    );
    println!("  ({none:.1} MiB before the first)");
    Ok(met)
}

/// Prints a row; returns whether the aim was met, if there is one.
fn row(what: &str, unit: &str, many: f64, few: f64, aim: Option<RangeInclusive<f64>>) -> bool {
    let (ratio, unit) = (many / few, format!("{unit:<3}"));
    let met = aim.as_ref().is_none_or(|aim| aim.contains(&ratio));
    let aim = aim.map_or(String::new(), |aim| {
        let outcome = if met { "met" } else { "MISSED" };
        format!("{:.2} to {:.2} {outcome}", aim.start(), aim.end())
    });
    println!("{what:<58} {many:>7.1} {unit} {few:>7.1} {unit}   {ratio:.2} {aim}");
    met
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn subject(number: usize) -> Owner {
    Owner::Subject(format!("subject-{number}"))
}

/// A vault, and what a process needs to use it.
struct Place {
    base_url: String,
    data_dir: tempfile::TempDir,
    sealing_key: String,
    vault: Option<String>,
}

impl Place {
    fn new(base_url: &str, vault: Option<&str>) -> Result<Self> {
        Ok(Self {
            base_url: base_url.to_owned(),
            data_dir: tempfile::tempdir()?,
            sealing_key: "5a".repeat(32),
            vault: vault.map(ToOwned::to_owned),
        })
    }

    fn variable(&self, name: &str) -> Option<String> {
        match name {
            "BONDMCP_BASE_URL" => Some(self.base_url.clone()),
            "BONDMCP_DATA_DIR" => Some(self.data_dir.path().join("data").to_str()?.to_owned()),
            "BONDMCP_SEALING_KEY" => Some(self.sealing_key.clone()),
            "BONDMCP_VAULT" => self.vault.clone(),
            _ => None,
        }
    }

    fn accounts(&self) -> Result<Accounts> {
        accounts(|name| self.variable(name))
    }

    /// Signs in the first `count` owners.
    async fn sign_in(&self, count: usize) -> Result<()> {
        let accounts = self.accounts()?;
        let mut signing_in = JoinSet::new();
        for owner in 0..count {
            if signing_in.len() == AT_ONCE {
                signing_in.join_next().await.context("none")???;
            }
            let account = accounts.open(&subject(owner));
            let email = format!("person-{owner}@example.com");
            signing_in.spawn(async move { account.sign_in(&email, secret::random(), false).await.map(drop) });
        }
        while let Some(outcome) = signing_in.join_next().await {
            outcome??;
        }
        accounts.close().await;
        Ok(())
    }

    /// Returns the MiB of a process after it has served so many owners.
    async fn memory(&self, owners: usize) -> Result<f64> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["serve", &owners.to_string()]).env_clear().stdin(Stdio::null()).kill_on_drop(true);
        command.envs(VARIABLES.iter().filter_map(|name| Some((name, self.variable(name)?))));
        let output = command.stderr(Stdio::inherit()).output().await?;
        ensure!(output.status.success(), "serving {owners} owners failed");
        Ok(String::from_utf8(output.stdout)?.trim().parse()?)
    }
}

fn accounts(variable: impl Fn(&str) -> Option<String>) -> Result<Accounts> {
    let settings = Settings::load(Flags::default(), None, |name| variable(name).map(Into::into))?;
    let (redactor, clock) = (Redactor::default(), Clock::system());
    let client = Client::new(settings.base_url.clone(), redactor.clone(), clock.clone(), Timing::default());
    Ok(Accounts::new(&settings, "bondmcp-server".to_owned(), client, clock, redactor))
}

/// Serves each of the first owners one call, then prints the resident MiB.
async fn serve_owners(count: usize) -> Result<()> {
    let accounts = accounts(|name| std::env::var(name).ok())?;
    let stopping = CancellationToken::new();
    let server =
        BondMcp::new(accounts.clone(), None, &Selection::default(), Limits::default(), stopping.clone())?;
    for owner in 0..count {
        serve_owner(&server, owner).await.with_context(|| format!("owner {owner}"))?;
    }
    println!("{:.2}", resident_mebibytes()?);
    Ok(())
}

/// A session of one owner, who lists the models.
async fn serve_owner(server: &BondMcp, owner: usize) -> Result<()> {
    let (ours, theirs) = tokio::io::duplex(1 << 16);
    let (input, output) = tokio::io::split(theirs);
    let serving = stdio::serve(server.clone(), subject(owner), input, output, CancellationToken::new());
    let serving = tokio::spawn(serving);
    let (answers, mut requests) = tokio::io::split(ours);
    let mut answers = BufReader::new(answers).lines();
    let client = json!({"name": "bench", "version": "1"});
    let params = json!({"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": client});
    let initialize = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params});
    requests.write_all(format!("{initialize}\n").as_bytes()).await?;
    answers.next_line().await?.context("no answer")?;
    let initialized = json!({"jsonrpc": "2.0", "method": "notifications/initialized"});
    let call = json!({"jsonrpc": "2.0", "id": 2, "method": "tools/call",
        "params": {"name": "list_models", "arguments": {}}});
    requests.write_all(format!("{initialized}\n{call}\n").as_bytes()).await?;
    let answer = answers.next_line().await?.context("no answer")?;
    ensure!(answer.contains("model-1") && !answer.contains(r#""isError":true"#), "{answer}");
    drop((requests, answers));
    serving.await??;
    Ok(())
}

fn resident_mebibytes() -> Result<f64> {
    let status = std::fs::read_to_string("/proc/self/status").context("this needs Linux")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<f64>()? / 1024.0)
}

/// A BondMCP that takes any password: hashing 10,000 of them would take longer than everything that is measured.
async fn upstream() -> Result<String> {
    let router = Router::new().route("/auth/login", post(log_in)).route("/auth/me", get(me)).route(
        "/health-ai/models",
        get(async || Json(json!({"models": [{"id": "model-1", "name": "One"}]}))),
    );
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let base_url = format!("http://{}", listener.local_addr()?);
    tokio::spawn(async { axum::serve(listener, router).await });
    Ok(base_url)
}

async fn log_in(Json(asked): Json<Value>) -> Json<Value> {
    let email = asked["email"].as_str().unwrap_or_default();
    // Random at its end, as a signature is.
    let token = format!("{email}-has-{}", secret::random().expose_secret());
    let user = user(email);
    Json(json!({"access_token": token, "token_type": "bearer", "expires_in": 86400, "user": user}))
}

async fn me(headers: HeaderMap) -> Result<Json<Value>, StatusCode> {
    let token = headers.get(AUTHORIZATION).and_then(|token| token.to_str().ok()?.strip_prefix("Bearer "));
    let (email, _) = token.and_then(|token| token.split_once("-has-")).ok_or(StatusCode::UNAUTHORIZED)?;
    Ok(Json(user(email)))
}

fn user(email: &str) -> Value {
    json!({"id": email.replace("@example.com", ""), "email": email})
}
