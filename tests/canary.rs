//! Must show 2: whole sessions, recorded byte for byte, hold none of the secrets that were in play: over stdio and over
//! HTTP, with everything logged, through success, every kind of error and every fault of the upstream.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::{
    process::Stdio,
    sync::{Arc, Mutex},
};

use bondmcp_server::{
    sandbox::{Fault, Plan, RunningSandbox, SandboxConfig},
    secret::{self, SecretString},
};
use common::{EMAIL, Place, Recorded, Server, like_the_seed, sandbox, secrets, within};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::Child,
};

/// A host that keeps everything it sees.
enum Host {
    Stdio(Server),
    Http(HttpServer),
}

struct HttpServer {
    child: Child,
    url: String,
    token: SecretString,
    client: reqwest::Client,
    seen: Arc<Mutex<Vec<u8>>>,
}

impl Host {
    async fn call(&self, tool: &'static str, arguments: Value) -> Value {
        match self {
            Self::Stdio(server) => match server.call(tool, arguments).await {
                Ok(result) => serde_json::to_value(result).unwrap(),
                Err(error) => json!({ "refused": error.to_string() }),
            },
            Self::Http(server) => server.call(tool, arguments).await,
        }
    }

    async fn end(self) -> Vec<u8> {
        match self {
            Self::Stdio(server) => server.end().await,
            Self::Http(mut server) => {
                let pid = server.child.id().unwrap().to_string();
                assert!(std::process::Command::new("kill").arg(pid).status().unwrap().success());
                assert!(within(server.child.wait()).await.unwrap().success());
                server.seen.lock().unwrap().clone()
            }
        }
    }

    fn pid(&self) -> u32 {
        match self {
            Self::Stdio(server) => server.child.id().unwrap(),
            Self::Http(server) => server.child.id().unwrap(),
        }
    }
}

impl HttpServer {
    async fn start(place: &Place) -> Self {
        let token = secret::random();
        let mut child = place
            .command(&["--log", "trace", "--log-format", "json", "http", "--listen", "127.0.0.1:0"])
            .env("BONDMCP_HTTP_TOKEN", secrets::text(&token))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let mut stdout = Recorded { input: child.stdout.take().unwrap(), seen: Arc::clone(&seen) };
        let stderr = Recorded { input: child.stderr.take().unwrap(), seen: Arc::clone(&seen) };
        tokio::spawn(async move { tokio::io::copy(&mut stdout, &mut tokio::io::sink()).await });
        let mut lines = BufReader::new(stderr).lines();
        let url = loop {
            let line = within(lines.next_line()).await.unwrap().unwrap();
            if let Some((_, url)) = line.split_once("Serving MCP at ") {
                break url.to_owned();
            }
        };
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Self { child, url, token, client: reqwest::Client::new(), seen }
    }

    async fn call(&self, tool: &str, arguments: Value) -> Value {
        let request = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {
            "name": tool,
            "arguments": arguments,
            "_meta": {
                "io.modelcontextprotocol/protocolVersion": "2026-07-28",
                "io.modelcontextprotocol/clientCapabilities": {},
            },
        }});
        let response = self
            .client
            .post(&self.url)
            .bearer_auth(secrets::text(&self.token))
            .header("accept", "application/json, text/event-stream")
            .header("content-type", "application/json")
            .header("mcp-protocol-version", "2026-07-28")
            .header("mcp-method", "tools/call")
            .header("mcp-name", tool)
            .body(request.to_string());
        let response = within(response.send()).await.unwrap();
        let head = format!("{} {:?}", response.status(), response.headers());
        let body = within(response.text()).await.unwrap();
        self.seen.lock().unwrap().extend_from_slice(format!("{head}\n{body}\n").as_bytes());
        serde_json::from_str::<Value>(&body).unwrap_or_default()["result"].take()
    }
}

/// Endpoint, and a tool with arguments that ask it.
type Asked = (&'static str, &'static str, fn() -> Value);

const ENDPOINTS: [Asked; 6] = [
    ("GET /health-ai/models", "list_models", || json!({ "refresh": true })),
    ("GET /auth/api-keys", "manage_api_keys", || json!({ "action": "list" })),
    ("POST /auth/api-keys", "manage_api_keys", || json!({"action": "create", "name": "canary"})),
    ("DELETE /auth/api-keys/{id}", "manage_api_keys", || json!({"action": "revoke", "key_id": "key_none"})),
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

/// A session with everything in it; the kinds of error that occurred.
async fn session(host: &Host, place: &Place, sandbox: &RunningSandbox) -> Vec<String> {
    let mut kinds = Vec::new();
    let mut note = |result: &Value| {
        let text = result["content"][0]["text"].as_str().unwrap_or_default();
        let told: Value = serde_json::from_str(text).unwrap_or_default();
        kinds.extend(told["error"]["kind"].as_str().map(ToOwned::to_owned));
    };
    let password = secrets::text(&place.password);

    for tool in ["auth_status", "login", "register", "logout", "list_models"] {
        note(&host.call(tool, json!({})).await);
    }
    // An agent that has got hold of the password tries to hand it over.
    for arguments in [json!({ "password": password }), json!({ "email": password }), json!({ password: 1 })] {
        note(&host.call("login", arguments).await);
    }
    note(&host.call("manage_api_keys", json!({ "action": password })).await);

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
        note(&host.call("manage_api_keys", arguments).await);
    }
    note(&host.call("manage_api_keys", json!({ "action": "list" })).await);
    note(&host.call("list_models", json!({ "refresh": true })).await);
    note(&host.call("manage_api_keys", json!({ "action": "use" })).await);
    note(&host.call("manage_api_keys", json!({"action": "revoke", "key_id": "../../auth/me"})).await);

    for fault in faults() {
        for (endpoint, tool, arguments) in ENDPOINTS {
            sandbox.faults().always(endpoint, fault.clone());
            note(&host.call(tool, arguments()).await);
            sandbox.faults().clear();
            // A sign of life, so that the circuit lets the next fault happen.
            host.call("list_models", json!({ "refresh": true })).await;
        }
    }
    for (email_plan, tool, arguments) in [
        (Plan::Free, "manage_api_keys", json!({"action": "create", "name": "one too many"})),
        (Plan::Unlimited, "list_models", json!({ "refresh": true })),
    ] {
        sandbox.set_plan(EMAIL, email_plan);
        note(&host.call(tool, arguments).await);
    }

    // Renewals that go wrong, the last one for good.
    for fault in [Fault::Echo, Fault::Status(403), Fault::Html(502), Fault::Oversize, Fault::Status(401)] {
        sandbox.expire_tokens();
        sandbox.faults().always("POST /auth/refresh", fault.clone());
        sandbox.faults().always("POST /auth/login", fault);
        note(&host.call("list_models", json!({ "refresh": true })).await);
        note(&host.call("auth_status", json!({})).await);
        sandbox.faults().clear();
    }
    note(&host.call("logout", json!({})).await);
    kinds
}

async fn nothing_leaks(place: Place, sandbox: RunningSandbox, host: Host) {
    let kinds = session(&host, &place, &sandbox).await;
    let arguments = std::fs::read(format!("/proc/{}/cmdline", host.pid())).unwrap_or_default();
    let mut secrets = sandbox.secrets_issued();
    assert!(secrets.len() > 5, "tokens and keys were in play: {kinds:?}");
    secrets.extend([place.password.clone(), place.sealing_key.clone()]);
    if let Host::Http(server) = &host {
        secrets.push(server.token.clone());
    }
    let seen = host.end().await;

    // The session was what it should be, or its silence proves nothing.
    for kind in [
        "conflict",
        "forbidden",
        "insufficient_credits",
        "invalid_input",
        "not_found",
        "rate_limited",
        "sign_in_required",
        "upstream_unavailable",
    ] {
        assert!(kinds.iter().any(|seen| seen == kind), "{kind} occurred: {kinds:?}");
    }
    let text = String::from_utf8_lossy(&seen);
    assert!(text.contains("tool call") && text.contains("[redacted]") && text.contains("sandbox-general-1"));

    secrets::assert_absent(&secrets, &seen, "what the host saw");
    secrets::assert_absent(&secrets, &arguments, "the process's arguments");
    let files = common::files(place.directory.path());
    assert!(files.iter().any(|(path, bytes)| path.ends_with("vault.db") && bytes.len() > 4096));
    for (path, bytes) in files {
        secrets::assert_absent(&secrets, &bytes, &path.display().to_string());
    }
}

/// One gives refresh tokens, like BondMCP's reference, one none, like the seed: the remembered password is then used.
fn config(refresh_tokens: bool) -> SandboxConfig {
    SandboxConfig { refresh_tokens, ..like_the_seed() }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_leaves_over_stdio() {
    let sandbox = sandbox(config(false)).await;
    let place = Place::new(&sandbox);
    let host = Host::Stdio(Server::start(&place).await);
    nothing_leaks(place, sandbox, host).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_leaves_over_http() {
    let sandbox = sandbox(config(true)).await;
    let place = Place::new(&sandbox);
    let host = Host::Http(HttpServer::start(&place).await);
    nothing_leaks(place, sandbox, host).await;
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
    sandbox.faults().next("DELETE /auth/api-keys/{id}", Fault::Hang);
    let error = server.error("manage_api_keys", json!({"action": "revoke", "key_id": "key_any"})).await;
    assert_eq!(error["kind"], "timeout");
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
