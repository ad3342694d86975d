//! The daily spending limit holds over all processes that use one vault, whichever store it is in, and whatever becomes
//! of the processes.

use std::process::Stdio;

use crate::common::{
    EMAIL, Place, like_the_seed,
    postgres::{self, Stop},
    run, sandbox, secrets, served_at,
    services::{SERVICES, Service},
    within,
};
use bondmcp_server::{
    account::Usd,
    sandbox::{Fault, RunningSandbox},
};
use chrono::{DateTime, NaiveTime, Utc};
use futures_util::{StreamExt as _, stream::FuturesUnordered};
use serde_json::{Value, json};
use tokio::process::{Child, Command};

/// Costs 3 cents.
const CHECK: Service = SERVICES[1];

/// A signed-in place whose vault is in one of the stores.
struct World {
    sandbox: RunningSandbox,
    place: Place,
    vault: Option<String>,
}

impl World {
    /// Without a URL the vault is in SQLite.
    async fn new(vault: Option<&str>) -> Self {
        let sandbox = sandbox(like_the_seed()).await;
        let world = Self { place: Place::new(&sandbox), sandbox, vault: vault.map(ToOwned::to_owned) };
        world.sign_in("default").await;
        world
    }

    async fn sign_in(&self, profile: &str) {
        let mut login = self.command(&["--profile", profile, "login", "--email", EMAIL, "--password-stdin"]);
        let (code, _, told) = run(&mut login, secrets::text(&self.place.password)).await;
        assert_eq!(code, Some(0), "{told}");
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.place.command(arguments);
        command.envs(self.vault.iter().map(|url| ("BONDMCP_VAULT", url)));
        command
    }

    async fn process(&self, profile: &str, options: &[&str]) -> Process {
        let arguments = ["--profile", profile, "http", "--listen", "127.0.0.1:0", "--no-auth"];
        let mut command = self.command(&[&arguments, options].concat());
        let mut child = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let url = served_at(child.stderr.take().unwrap()).await;
        Process { child, host: Host { url, client: reqwest::Client::new() } }
    }

    /// What `status` prints as JSON.
    async fn status(&self) -> Value {
        let (code, told, errors) = run(&mut self.command(&["status", "--json"]), "").await;
        assert_eq!(code, Some(0), "{errors}");
        serde_json::from_str(&told).unwrap()
    }

    fn requests(&self) -> u64 {
        self.sandbox.count(CHECK.1)
    }
}

/// `bondmcp-server http`.
struct Process {
    child: Child,
    host: Host,
}

/// A host of one process.
#[derive(Clone)]
struct Host {
    url: String,
    client: reqwest::Client,
}

impl std::ops::Deref for Process {
    type Target = Host;

    fn deref(&self) -> &Host {
        &self.host
    }
}

impl Host {
    async fn request(&self, method: &str, name: &str, mut params: Value) -> Value {
        params["_meta"]["io.modelcontextprotocol/protocolVersion"] = json!("2026-07-28");
        params["_meta"]["io.modelcontextprotocol/clientCapabilities"] = json!({});
        let body = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
        let request = self.client.post(&self.url).header("accept", "application/json, text/event-stream");
        let request = request.header("content-type", "application/json");
        let request = request.header("mcp-protocol-version", "2026-07-28").header("mcp-method", method);
        let answer = within(request.header("mcp-name", name).body(body.to_string()).send()).await.unwrap();
        let text = within(answer.text()).await.unwrap();
        let json = text.lines().find_map(|line| line.strip_prefix("data: ")).unwrap_or(&text);
        serde_json::from_str(json).unwrap_or_else(|_| panic!("{text}"))
    }

    /// Calls the billed tool; gives the kind and message of a failure.
    async fn check(&self) -> Result<Value, (String, String)> {
        let arguments = (CHECK.2)();
        let answer =
            self.request("tools/call", CHECK.0, json!({"name": CHECK.0, "arguments": arguments})).await;
        let result = &answer["result"];
        if result["isError"] == true {
            let error =
                crate::common::json_of(result["content"][0]["text"].as_str().unwrap())["error"].take();
            let text = |name: &str| error[name].as_str().unwrap().to_owned();
            return Err((text("kind"), text("message") + " " + &text("solution")));
        }
        assert!(result["structuredContent"].is_object(), "{answer}");
        Ok(result["structuredContent"].clone())
    }

    /// What `auth_status` and `bondmcp://usage` say of today.
    async fn today(&self) -> Value {
        let call = json!({"name": "auth_status", "arguments": {}});
        let status = self.request("tools/call", "auth_status", call).await;
        let status = &status["result"]["structuredContent"]["spent"]["today"];
        let usage =
            self.request("resources/read", "bondmcp://usage", json!({"uri": "bondmcp://usage"})).await;
        let usage: Value =
            serde_json::from_str(usage["result"]["contents"][0]["text"].as_str().unwrap()).unwrap();
        let told = |today: &Value| {
            (today["left_usd"].as_f64(), today["limit_usd"].as_f64(), today["resets_at"].clone())
        };
        assert_eq!(told(&usage["spent"]["today"]), told(status));
        status.clone()
    }

    async fn left(&self) -> Usd {
        Usd::from_f64(self.today().await["left_usd"].as_f64().unwrap())
    }
}

/// Returns the failure's kind.
fn kind(outcome: &Result<Value, (String, String)>) -> &str {
    match outcome {
        Ok(_) => "none",
        Err((kind, _)) => kind,
    }
}

/// The end of this day (UTC).
fn next_midnight() -> DateTime<Utc> {
    let tomorrow = Utc::now().date_naive().succ_opt().unwrap();
    tomorrow.and_time(NaiveTime::MIN).and_utc()
}

async fn two_hundred_calls_of_four_processes_against_a_budget_for_ten(vault: Option<&str>) {
    let world = World::new(vault).await;
    let mut processes = vec![];
    for _ in 0..4 {
        processes.push(world.process("default", &["--daily-spend", "0.30"]).await);
    }
    // Whoever gets through waits until all others have been refused.
    world.sandbox.faults().always(CHECK.1, Fault::Hold);
    let mut calls: FuturesUnordered<_> = (0..200).map(|number| processes[number % 4].check()).collect();
    for _ in 0..190 {
        let (kind, told) = within(calls.next()).await.unwrap().unwrap_err();
        assert_eq!(kind, "spend_limit", "{told}");
        assert!(told.contains("today's limit of $0.30, $0.30 are spent or reserved"), "{told}");
        assert!(told.contains("00:00 UTC"), "{told}");
    }
    within(world.sandbox.faults().arrived(CHECK.1, 10)).await;
    world.sandbox.faults().clear();
    world.sandbox.faults().release();
    while let Some(outcome) = within(calls.next()).await {
        assert_eq!(outcome.unwrap()["cost"], 0.03);
    }
    drop(calls);
    assert_eq!(world.requests(), 10);
    for process in &processes {
        let earliest = next_midnight();
        let today = process.today().await;
        assert_eq!((today["left_usd"].as_f64(), &today["limit_usd"]), (Some(0.0), &json!(0.3)), "{today}");
        let resets_at: DateTime<Utc> = serde_json::from_value(today["resets_at"].clone()).unwrap();
        assert!((earliest..=next_midnight()).contains(&resets_at), "{today}");
        assert_eq!(kind(&process.check().await), "spend_limit");
    }
    assert_eq!(world.status().await["spending_today"]["left_usd"].as_f64(), Some(0.0));
    // A process that starts later has no other budget.
    drop(processes);
    let later = world.process("default", &["--daily-spend", "0.32"]).await;
    assert_eq!((kind(&later.check().await), later.left().await), ("spend_limit", Usd::cents(2)));
    assert_eq!(world.requests(), 10);
}

async fn a_process_that_is_killed_in_a_billed_call_may_have_spent(vault: Option<&str>) {
    let world = World::new(vault).await;
    let mut dying = world.process("default", &["--daily-spend", "0.08"]).await;
    let other = world.process("default", &["--daily-spend", "0.08"]).await;
    world.sandbox.faults().next(CHECK.1, Fault::ProcessThenHang);
    let host = dying.host.clone();
    let calling = tokio::spawn(async move { host.check().await });
    within(world.sandbox.faults().processed(CHECK.1, 1)).await;
    within(dying.child.kill()).await.unwrap();
    within(calling).await.unwrap_err();
    assert_eq!(other.left().await, Usd::cents(5));
    other.check().await.unwrap();
    assert_eq!(kind(&other.check().await), "spend_limit");
    assert_eq!(world.requests(), 2);
}

async fn only_what_may_have_been_billed_counts(vault: Option<&str>) {
    let world = World::new(vault).await;
    let process = world.process("default", &["--daily-spend", "0.10"]).await;
    assert_eq!(process.left().await, Usd::cents(10));
    let faults = world.sandbox.faults();
    // Refused, so not processed.
    faults.next(CHECK.1, Fault::Status(402));
    assert_eq!(kind(&process.check().await), "insufficient_credits");
    assert_eq!(process.left().await, Usd::cents(10));
    // The connection broke: the documented price counts.
    faults.next(CHECK.1, Fault::ProcessThenDrop);
    process.check().await.unwrap_err();
    assert_eq!(process.left().await, Usd::cents(7));
    // A cost without bounds counts as a dollar at most, and one below the price as the price.
    faults.next(CHECK.1, Fault::Answer(json!({"safety_score": 1, "cost": 0})));
    process.check().await.unwrap();
    assert_eq!(process.left().await, Usd::cents(4));
    faults.next(CHECK.1, Fault::Answer(json!({"safety_score": 1, "cost": 1e9})));
    process.check().await.unwrap();
    assert_eq!(process.left().await, Usd::cents(0));
    // Another owner has a budget of its own, and no limit where there is none.
    world.sign_in("work").await;
    let work = world.process("work", &["--daily-spend", "1.02"]).await;
    assert_eq!(work.left().await, Usd::cents(102));
    work.check().await.unwrap();
    assert_eq!(work.left().await, Usd::cents(99));
    let unlimited = world.process("default", &[]).await;
    unlimited.check().await.unwrap();
    assert!(unlimited.today().await.is_null());
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_of_two_hundred_concurrent_calls_are_made_with_sqlite() {
    two_hundred_calls_of_four_processes_against_a_budget_for_ten(None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_of_two_hundred_concurrent_calls_are_made_with_postgresql() {
    let Some(database) = postgres::database() else { return };
    two_hundred_calls_of_four_processes_against_a_budget_for_ten(Some(&database.url)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_process_may_have_spent_with_sqlite() {
    a_process_that_is_killed_in_a_billed_call_may_have_spent(None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_process_may_have_spent_with_postgresql() {
    let Some(database) = postgres::database() else { return };
    a_process_that_is_killed_in_a_billed_call_may_have_spent(Some(&database.url)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_may_have_been_billed_counts_with_sqlite() {
    only_what_may_have_been_billed_counts(None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_may_have_been_billed_counts_with_postgresql() {
    let Some(database) = postgres::database() else { return };
    only_what_may_have_been_billed_counts(Some(&database.url)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_database_nothing_is_billed_under_a_daily_limit() {
    let Some(cluster) = postgres::cluster() else { return };
    let database = cluster.database();
    let world = World::new(Some(&database.url)).await;
    let process = world.process("default", &["--daily-spend", "0.06"]).await;
    process.check().await.unwrap();
    // While a call is in progress, the database goes away.
    world.sandbox.faults().next(CHECK.1, Fault::Hold);
    let host = process.host.clone();
    let calling = tokio::spawn(async move { host.check().await });
    within(world.sandbox.faults().arrived(CHECK.1, 2)).await;
    cluster.stop(Stop::Fast);
    world.sandbox.faults().release();
    within(calling).await.unwrap().unwrap();
    let (kind, told) = process.check().await.unwrap_err();
    assert_eq!(kind, "internal", "{told}");
    assert_eq!(world.requests(), 2, "{told}");
    cluster.start_again();
    assert_eq!(process.left().await, Usd::cents(0));
    assert_eq!(self::kind(&process.check().await), "spend_limit");
    assert_eq!(world.requests(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_of_zero_serves_what_is_free() {
    let world = World::new(None).await;
    let process = world.process("default", &["--daily-spend", "0"]).await;
    assert_eq!(kind(&process.check().await), "spend_limit");
    assert_eq!((process.left().await, world.requests()), (Usd::cents(0), 0));
    let list = process.request("tools/call", "list_models", json!({"name": "list_models"})).await;
    assert_ne!(list["result"]["isError"], true, "{list}");
}
