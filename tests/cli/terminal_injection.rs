//! Foreign text cannot control the person's terminal: an upstream whose every answer contains escape sequences, line
//! breaks, bidirectional controls and the caller's own credentials.

use std::{
    net::Ipv4Addr,
    sync::{Arc, Mutex},
};

use crate::common::{Place, random_password, secrets};
use axum::{
    Json, Router,
    extract::State,
    http::{HeaderMap, StatusCode},
    routing::{get, post},
};
use bondmcp_server::secret::SecretString;
use rexpect::session::spawn_command;
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// A title, a bell, a forged line, a reordered word, an invisible letter, a C1 control and a deleted character.
const HOSTILE: &str = "x\u{1b}]0;owned\u{7}\r\nerror: forged\u{202e}drow\u{200b}\u{9b}31m\u{7f}";
const TOKEN: &str = "opaque-session-token-0123456789";
const KEY: &str = "opaque-key-value-9876543210";

/// The password that was sent, for the upstream to echo.
type Seen = Arc<Mutex<String>>;

/// `HOSTILE`, and the caller's secrets that the upstream knows.
fn hostile(seen: &Seen) -> String {
    format!("{HOSTILE} {TOKEN} {}", seen.lock().unwrap())
}

async fn log_in(State(seen): State<Seen>, Json(body): Json<Value>) -> Json<Value> {
    body["password"].as_str().unwrap().clone_into(&mut seen.lock().unwrap());
    let user = json!({"id": "usr_1", "email": hostile(&seen), "name": hostile(&seen)});
    Json(json!({"access_token": TOKEN, "expires_in": 3600, "token_type": "bearer", "user": user}))
}

async fn list(State(seen): State<Seen>) -> Json<Value> {
    let text = hostile(&seen);
    Json(json!({"api_keys": [
        {"id": "key_1", "name": text, "description": text, "key_preview": text, "created_at": text, "is_active": true}
    ]}))
}

async fn create(State(seen): State<Seen>, Json(body): Json<Value>) -> (StatusCode, Json<Value>) {
    let name = hostile(&seen);
    let key = if body["name"] == "ci" { KEY.to_owned() } else { format!("{KEY}\u{1b}[31m\u{202e}") };
    (StatusCode::CREATED, Json(json!({"id": "key_2", "name": name, "api_key": key})))
}

async fn usage(State(seen): State<Seen>) -> Json<Value> {
    let text = hostile(&seen);
    let stats = json!({"total_requests": 1, "last_used": text});
    Json(
        json!({"key_id": "key_1", "name": text, "usage_stats": stats, "endpoints_used": [{"endpoint": text, "count": 1}]}),
    )
}

async fn refuse(State(seen): State<Seen>, headers: HeaderMap) -> (StatusCode, Json<Value>) {
    let bearer = headers.get("authorization").and_then(|value| value.to_str().ok()).unwrap_or("-");
    let message = format!("{} {bearer}", hostile(&seen));
    (StatusCode::BAD_REQUEST, Json(json!({"error": {"code": message, "message": message}})))
}

/// A place that is signed in to the hostile upstream.
async fn signed_in() -> Place {
    let routes = Router::new()
        .route("/auth/login", post(log_in))
        .route("/auth/api-keys", get(list).post(create))
        .route("/api/v1/api-keys/usage/{id}", get(usage))
        .fallback(refuse)
        .with_state(Seen::default());
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let place = Place {
        directory: tempfile::tempdir().unwrap(),
        base_url: format!("http://{}", listener.local_addr().unwrap()),
        password: random_password(),
        sealing_key: bondmcp_server::secret::random(),
    };
    tokio::spawn(async move { axum::serve(listener, routes).await });
    place.sign_in().await;
    place
}

/// Checks that nothing in `shown` can control a terminal, forge a line or reveal a secret.
fn assert_harmless(place: &Place, shown: &str, what: &str) {
    for c in shown.chars().filter(|c| *c != '\n') {
        let invisible = c.is_control() || matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}');
        assert!(!invisible, "{what} shows {c:?}: {shown:?}");
    }
    assert!(!shown.lines().any(|line| line.starts_with("error: forged")), "{what}: {shown}");
    let known = [place.password.clone(), SecretString::from(TOKEN)];
    secrets::assert_absent(&known, shown.as_bytes(), what);
}

async fn assert_command_harmless(place: &Place, arguments: &[&str]) -> String {
    let (_, out, err) = place.run(arguments).await;
    let what = arguments.join(" ");
    assert_harmless(place, &out, &what);
    assert_harmless(place, &err, &what);
    out
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_upstream_wrote_reaches_the_terminal_printable_and_redacted() {
    let place = signed_in().await;
    let listed = assert_command_harmless(&place, &["keys", "list"]).await;
    assert!(listed.contains("key_1"), "{listed}");
    assert_command_harmless(&place, &["keys", "create", "--name", "ci"]).await;
    let usage = assert_command_harmless(&place, &["keys", "usage", "key_1"]).await;
    assert!(usage.contains("[redacted]"), "{usage}");
    assert_command_harmless(&place, &["status"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn json_output_is_printable_redacted_and_still_says_what_the_upstream_wrote() {
    let place = signed_in().await;
    assert_command_harmless(&place, &["status", "--json"]).await;
    assert_command_harmless(&place, &["keys", "list", "--json"]).await;
    let usage = assert_command_harmless(&place, &["keys", "usage", "key_1", "--json"]).await;
    let usage: Value = serde_json::from_str(&usage).unwrap();
    let endpoint = usage["endpoints_used"][0]["endpoint"].as_str().unwrap();
    assert!(endpoint.contains('\u{202e}') && endpoint.contains("[redacted]"), "{endpoint:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_forges_no_line_on_stderr() {
    let place = signed_in().await;
    let (code, _, err) = place.run(&["--log", "trace", "keys", "revoke", "key_1", "--yes"]).await;
    assert_eq!(code, Some(1));
    assert_harmless(&place, &err, "stderr");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_audit_table_shows_a_hosts_name_printable_and_redacted() {
    let place = signed_in().await;
    let entry = json!({
        "time": "2026-01-01T00:00:00Z", "owner": HOSTILE, "host": format!("sk_live_0123456789abcdef {HOSTILE}"), "tool": HOSTILE,
        "action": HOSTILE, "outcome": HOSTILE, "duration_ms": 1, "key_id": HOSTILE,
    });
    std::fs::write(place.data_dir().join("audit.jsonl"), format!("{entry}\n")).unwrap();
    for arguments in [vec!["audit"], vec!["audit", "--json"]] {
        let (code, out, err) = place.run(&arguments).await;
        assert_eq!(code, Some(0), "{err}");
        assert!(out.contains("owned") && out.contains("[redacted]"), "{out}");
        // The vault is not opened for the audit log, so no secret is known there: only shapes are redacted.
        for c in out.chars().filter(|c| *c != '\n') {
            assert!(!c.is_control() && c != '\u{202e}', "{out:?}");
        }
        assert!(!out.lines().any(|line| line.starts_with("error: forged")), "{out}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_with_control_characters_is_not_stored() {
    let place = signed_in().await;
    let (code, out, err) = place.run(&["keys", "create", "--name", "other"]).await;
    assert_eq!(code, Some(1), "{out}");
    assert_harmless(&place, &err, "stderr");
    assert!(err.contains("not in BondMCP's format") && !err.contains(KEY), "{err}");
    let list = place.keys().await;
    assert!(list["keys"].as_array().unwrap().iter().all(|key| key["stored"] == false), "{list}");
}

/// A vault may hold such a key from the time when it was stored.
#[tokio::test(flavor = "multi_thread")]
async fn reveal_shows_the_key_without_control_characters() {
    let place = signed_in().await;
    assert_eq!(place.run(&["keys", "create", "--name", "ci"]).await.0, Some(0));
    let (vault, id) = (place.vault().await, place.account_record_id());
    let stored = vault.read(&id).await.unwrap().unwrap();
    let mut record: Value = serde_json::from_slice(&stored.plaintext).unwrap();
    record["keys"][0]["secret"] = json!(format!("{KEY}\u{1b}[31m\u{202e}"));
    vault.write(&id, Some(stored.version), record.to_string().as_bytes(), None).await.unwrap();

    let command = place.command(&["keys", "reveal", "key_2"]).into_std();
    let mut terminal = spawn_command(command, Some(60_000)).unwrap();
    terminal.exp_string("to continue: ").unwrap();
    terminal.send_line("yes").unwrap();
    let shown = terminal.exp_eof().unwrap();
    assert!(shown.contains(KEY), "{shown:?}");
    // The terminal returns bytes as characters.
    let bytes: Vec<u8> = shown.chars().map(|c| u8::try_from(c).unwrap()).collect();
    let shown = String::from_utf8(bytes).unwrap();
    assert!(!shown.contains('\u{1b}') && !shown.contains('\u{202e}'), "{shown:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_offered_for_pasting_is_quoted() {
    let sandbox = crate::common::sandbox(crate::common::like_the_seed()).await;
    let mut place = Place::new(&sandbox);
    place.directory = tempfile::Builder::new().prefix("a b;$(id)'\\").tempdir().unwrap();
    place.sign_in().await;
    let directory = place.data_dir();
    let directory = directory.to_str().unwrap();
    let (_, created, _) = place.run(&["keys", "create", "--name", "ci"]).await;
    let (_, signed_out, _) = place.run(&["--profile", "other", "status"]).await;
    for (out, start) in [(&created, "Use it: "), (&signed_out, "Run: `")] {
        let command = out.split_once(start).unwrap().1.lines().next().unwrap().trim_end_matches('`');
        let words = shlex::split(command).unwrap();
        assert!(words.windows(2).any(|pair| pair == ["--data-dir", directory]), "{command}");
    }
}
