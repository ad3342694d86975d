//! Whole sessions, recorded byte by byte, contain none of the secrets involved: over stdio and over HTTP, at the most
//! detailed log level, with success, every kind of error and every fault of the upstream; with hosts that ask the
//! person, upstreams that quote secrets, and more renewals than are remembered; and on the terminal.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "../common/mod.rs"]
mod common;
mod hosts;
mod quoting;
mod renewals;

use std::time::Duration;

use bondmcp_server::{
    bondmcp::{Timing, wire::CreateApiKey},
    sandbox::{Fault, Plan, RunningSandbox, SandboxConfig},
    secret::{self, SecretString},
};
use common::{EMAIL, Place, Server, like_the_seed, sandbox, secrets, within};
use futures_util::future::join_all;
use hosts::{Host, HttpServer};
use rmcp::ServiceExt as _;
use serde_json::{Value, json};

/// Number of servers of each kind that share the faults, since a server waits between attempts.
const SERVERS: usize = 7;

const REVOKE: &str = "DELETE /auth/api-keys/{id}";

/// Endpoint, and a tool with arguments that calls it.
type Asked = (&'static str, &'static str, fn() -> Value);

const ENDPOINTS: [Asked; 6] = [
    ("GET /health-ai/models", "list_models", || json!({ "refresh": true })),
    ("GET /auth/api-keys", "manage_api_keys", || json!({ "action": "list" })),
    ("POST /auth/api-keys", "manage_api_keys", || json!({"action": "create", "name": "canary"})),
    (REVOKE, "manage_api_keys", || json!({"action": "revoke", "confirm": "spare"})),
    ("POST /health-ai/analyze", "health_analyze", || json!({"prompt": "Why?", "analysis_type": "general"})),
    (
        "POST /health-ai/medication-check",
        "medication_check",
        || json!({ "medications": [{"name": "warfarin"}] }),
    ),
];

fn faults() -> Vec<Fault> {
    let statuses = [400, 401, 402, 403, 404, 409, 422, 500, 502, 503];
    let mut faults: Vec<Fault> = statuses.into_iter().map(Fault::Status).collect();
    faults.extend([
        Fault::TooMany(None),
        Fault::TooMany(Some("1".to_owned())),
        Fault::Html(502),
        Fault::Drop,
        Fault::DropMidBody,
        Fault::ProcessThenDrop,
        Fault::Echo,
        Fault::EchoAsAnswer,
        Fault::NotJson,
        Fault::OtherShape,
        Fault::Oversize,
        Fault::Redirect("http://127.0.0.1:9/elsewhere".to_owned()),
    ]);
    faults
}

/// The kinds of error that occurred.
#[derive(Default)]
struct Kinds(Vec<String>);

impl Kinds {
    fn note(&mut self, result: &Value) {
        let text = result["content"][0]["text"].as_str().unwrap_or_default();
        let json = text.lines().last().unwrap_or_default();
        let told: Value = serde_json::from_str(json).unwrap_or_default();
        self.0.extend(told["error"]["kind"].as_str().map(ToOwned::to_owned));
    }

    /// Checks that a session went as intended; otherwise the absence of secrets proves nothing.
    fn assert_seen(&self, expected: &[&str]) {
        for kind in expected {
            assert!(self.0.iter().any(|seen| seen == kind), "{kind} occurred: {:?}", self.0);
        }
    }
}

/// A session with everything except faults.
async fn session(host: &Host, place: &Place, sandbox: &RunningSandbox) -> Kinds {
    let mut kinds = Kinds::default();
    let password = secrets::text(&place.password);

    for tool in ["auth_status", "login", "register", "logout", "list_models"] {
        kinds.note(&host.call(tool, json!({})).await);
    }
    // An agent that knows the password tries to pass it as an argument.
    for arguments in [json!({ "password": password }), json!({ "email": password }), json!({ password: 1 })] {
        kinds.note(&host.call("login", arguments).await);
    }
    kinds.note(&host.call("manage_api_keys", json!({ "action": password })).await);

    let (code, told, log) = place.run_with_password("login").await;
    assert_eq!(code, Some(0));
    secrets::assert_absent(std::slice::from_ref(&place.password), (told + &log).as_bytes(), "the terminal");

    for tool in ["auth_status", "login", "register", "list_models"] {
        assert_eq!(host.call(tool, json!({})).await["isError"], json!(false), "{tool}");
    }
    let made = host.call("manage_api_keys", json!({"action": "create", "name": "one"})).await;
    let id = made["structuredContent"]["keys"][0]["id"].as_str().unwrap().to_owned();
    for action in ["use", "usage", "rotate", "rotate"] {
        let mut arguments = json!({"action": action, "key_id": id});
        if action == "rotate" {
            arguments["confirm"] = "one".into();
        }
        kinds.note(&host.call("manage_api_keys", arguments).await);
    }
    kinds.note(&host.call("manage_api_keys", json!({ "action": "list" })).await);
    kinds.note(&host.call("list_models", json!({ "refresh": true })).await);
    kinds.note(&host.call("manage_api_keys", json!({ "action": "use" })).await);
    kinds.note(&host.call("manage_api_keys", json!({"action": "revoke", "key_id": "../../auth/me"})).await);

    // Renewals that fail, the last one permanently.
    for fault in [Fault::Echo, Fault::Status(403), Fault::Html(502), Fault::Oversize, Fault::Status(401)] {
        // A rejected password has been deleted.
        place.sign_in().await;
        sandbox.expire_tokens();
        sandbox.faults().always("POST /auth/refresh", fault.clone());
        sandbox.faults().always("POST /auth/login", fault);
        kinds.note(&host.call("list_models", json!({ "refresh": true })).await);
        kinds.note(&host.call("auth_status", json!({})).await);
        sandbox.faults().clear();
    }
    place.sign_in().await;
    host.call("auth_status", json!({})).await;
    sandbox.faults().next("POST /auth/api-keys", Fault::Status(403));
    kinds.note(&host.call("manage_api_keys", json!({"action": "create", "name": "one too many"})).await);
    kinds.note(&host.call("list_models", json!({ "refresh": true })).await);
    kinds.note(&host.call("logout", json!({})).await);
    kinds
}

/// A session of a signed-in person, with every fault at some of the endpoints.
async fn faulty_session(host: &Host, place: &Place, sandbox: &RunningSandbox, share: usize) -> Kinds {
    let mut kinds = Kinds::default();
    place.sign_in().await;
    let all = faults().into_iter().flat_map(|fault| ENDPOINTS.map(|asked| (fault.clone(), asked)));
    for (fault, (endpoint, tool, arguments)) in all.skip(share).step_by(SERVERS) {
        let mut arguments = arguments();
        if endpoint == REVOKE {
            let made = host.call("manage_api_keys", json!({"action": "create", "name": "spare"})).await;
            arguments["key_id"] = made["structuredContent"]["keys"][0]["id"].clone();
        }
        let before = sandbox.count(endpoint);
        sandbox.faults().always(endpoint, fault);
        kinds.note(&host.call(tool, arguments).await);
        assert!(sandbox.count(endpoint) > before, "{endpoint} was asked");
        sandbox.faults().clear();
        // A successful call, so that the circuit stays closed for the next fault.
        host.call("list_models", json!({ "refresh": true })).await;
    }
    kinds
}

async fn nothing_leaked(place: Place, sandbox: RunningSandbox, host: Host) {
    let arguments = std::fs::read(format!("/proc/{}/cmdline", host.pid())).unwrap_or_default();
    let mut secrets = sandbox.secrets_issued();
    assert!(!secrets.is_empty(), "tokens and keys were in play");
    secrets.extend([place.password.clone(), place.sealing_key.clone()]);
    if let Host::Http(server) = &host {
        secrets.push(server.token.clone());
    }
    let seen = host.end().await;
    let text = String::from_utf8_lossy(&seen);
    assert!(text.contains("tool call") && text.contains("sandbox-general-1"));

    secrets::assert_absent(&secrets, &seen, "what the host saw");
    secrets::assert_absent_apart(&secrets, &seen);
    secrets::assert_absent(&secrets, &arguments, "the process's arguments");
    let files = common::files(place.directory.path());
    assert!(files.iter().any(|(path, bytes)| path.ends_with("vault.db") && bytes.len() > 4096));
    for (path, bytes) in files {
        secrets::assert_absent(&secrets, &bytes, &path.display().to_string());
    }
}

/// One sandbox issues refresh tokens, like BondMCP's reference; one does not, so that the stored password is used.
fn config(refresh_tokens: bool) -> SandboxConfig {
    SandboxConfig { refresh_tokens, ..like_the_seed() }
}

async fn sandbox_and_host(over_http: bool) -> (RunningSandbox, Place, Host) {
    let sandbox = sandbox(config(over_http)).await;
    let place = Place::new(&sandbox);
    let host = if over_http {
        Host::Http(HttpServer::start(&place).await)
    } else {
        Host::Stdio(Server::start(&place).await)
    };
    (sandbox, place, host)
}

async fn no_secret_leaves(over_http: bool) {
    let (sandbox, place, host) = sandbox_and_host(over_http).await;
    let kinds = session(&host, &place, &sandbox).await;
    kinds.assert_seen(&["forbidden", "invalid_input", "sign_in_required"]);
    nothing_leaked(place, sandbox, host).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_leaves_over_stdio() {
    no_secret_leaves(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_leaves_over_http() {
    no_secret_leaves(true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_fault_of_the_upstream_lets_a_secret_leave() {
    let share = async |over_http, share| {
        let (sandbox, place, host) = sandbox_and_host(over_http).await;
        let kinds = faulty_session(&host, &place, &sandbox, share).await;
        nothing_leaked(place, sandbox, host).await;
        kinds
    };
    let shares = (0..2 * SERVERS).map(|number| share(number % 2 == 0, number / 2));
    let kinds = Kinds(join_all(shares).await.into_iter().flat_map(|kinds| kinds.0).collect());
    kinds.assert_seen(&[
        "conflict",
        "forbidden",
        "insufficient_credits",
        "invalid_input",
        "not_found",
        "rate_limited",
        "upstream_unavailable",
    ]);
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_from_the_environment_are_used_and_leave_no_trace() {
    let sandbox = sandbox(config(true)).await;
    let place = Place::new(&sandbox);
    let key = SecretString::from(format!("bcp_{}", secrets::text(&secret::random())));
    let login = [("BONDMCP_EMAIL", EMAIL), ("BONDMCP_PASSWORD", secrets::text(&place.password))];
    let mut command = place.command(&["--log", "trace", "stdio"]);
    let server = Server::spawn(command.envs(login)).await;
    server.ok("list_models", json!({})).await;
    server.ok("manage_api_keys", json!({"action": "create", "name": "env"})).await;
    let mut seen = server.end().await;

    let mut command = place.command(&["--log", "trace", "stdio"]);
    command.envs(login).env("BONDMCP_SEALING_KEY", secrets::text(&secret::random()));
    let server = Server::spawn(&mut command).await;
    assert_eq!(server.error("list_models", json!({})).await["kind"], "internal");
    seen.extend(server.end().await);

    sandbox.add_account("new@example.com", &place.password, Plan::Unlimited, false);
    let mut command = place.command(&["--log", "trace", "stdio"]);
    let server = Server::spawn(command.envs(login).env("BONDMCP_EMAIL", "new@example.com")).await;
    assert_eq!(server.error("list_models", json!({})).await["kind"], "email_not_verified");
    seen.extend(server.end().await);

    let mut command = place.command(&["--log", "trace", "stdio"]);
    let server = Server::spawn(command.env("BONDMCP_API_KEY", secrets::text(&key))).await;
    let error = server.error("list_models", json!({})).await;
    assert_eq!(error["kind"], "invalid_credentials");
    sandbox.faults().always("GET /health-ai/models", Fault::EchoAsAnswer);
    let echoed = server.ok("list_models", json!({})).await;
    assert!(echoed.to_string().contains("[redacted]"));
    seen.extend(server.end().await);

    let mut secrets = sandbox.secrets_issued();
    secrets.extend([place.password.clone(), place.sealing_key.clone(), key]);
    secrets::assert_absent(&secrets, &seen, "what the host saw");
    for (path, bytes) in common::files(place.directory.path()) {
        secrets::assert_absent(&secrets, &bytes, &path.display().to_string());
    }
}

/// Runs in this process, where time-outs can be short.
#[tokio::test(flavor = "multi_thread")]
async fn no_secret_leaves_when_the_upstream_never_answers() {
    let sandbox = sandbox(config(true)).await;
    let place = Place::new(&sandbox);
    let (accounts, _) = common::accounts(&place);
    within(accounts.local().sign_in(EMAIL, place.password.clone(), true)).await.unwrap();
    let wanted = CreateApiKey { name: "any".into(), description: None, permissions: vec![] };
    let key = within(accounts.local().create_key(wanted)).await.unwrap();
    accounts.close().await;
    let timing = Timing { request: Duration::from_millis(100), ..Timing::default() };
    let (server, stopping) = common::in_process(&place, timing);
    let (ours, theirs) = tokio::io::duplex(1 << 16);
    let serving = tokio::spawn(common::serve(server, ours));
    let client = common::host().serve(theirs).await.unwrap();
    sandbox.faults().next(REVOKE, Fault::Hang);
    let arguments = json!({"action": "revoke", "key_id": key.id, "confirm": key.name});
    let result = within(client.call_tool(common::request("manage_api_keys", arguments))).await.unwrap();
    assert_eq!(common::error_of(&result)["kind"], "timeout");
    let seen = serde_json::to_vec(&result).unwrap();
    secrets::assert_absent(&sandbox.secrets_issued(), &seen, "what the host saw");
    secrets::assert_absent(&[place.password, place.sealing_key], &seen, "what the host saw");
    stopping.cancel();
    client.cancel().await.unwrap();
    serving.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn neither_arguments_nor_results_are_logged_at_trace() {
    let sandbox = sandbox(config(true)).await;
    let place = Place::new(&sandbox);
    place.sign_in().await;
    let server = Server::start(&place).await;
    server.ok("manage_api_keys", json!({"action": "create", "name": "marker-of-an-argument"})).await;
    server.ok("list_models", json!({})).await;
    let question = json!({"prompt": "marker-of-an-illness", "analysis_type": "marker-of-a-kind"});
    server.ok("health_analyze", question).await;
    server
        .error("medication_check", json!({"medications": [{"name": "marker-of-a-drug", "dosage": [7]}]}))
        .await;
    server.error("login", json!({ "markerargument": "marker-of-a-value" })).await;
    server.call("marker-of-a-tool", json!({})).await.unwrap_err();
    let (seen, log) = server.end_apart().await;
    let (seen, log) = (String::from_utf8(seen).unwrap(), String::from_utf8(log).unwrap());
    assert!(seen.contains("marker-of-an-argument") && seen.contains("sandbox-general-1"));
    assert!(log.contains("tool call"));
    assert!(
        !log.contains("marker") && !log.contains("sandbox-general-1") && !log.contains("Sample"),
        "{log}"
    );
}
