//! The command line on a pseudo-terminal: a password is never echoed, and a key is printed only there and only after a
//! confirmation.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use bondmcp_server::sandbox::RunningSandbox;
use common::{EMAIL, Place, like_the_seed, sandbox, secrets};
use rexpect::session::{PtySession, spawn_command};

const TIMEOUT_MS: u64 = 60_000;

async fn signed_in() -> (RunningSandbox, Place, String) {
    let sandbox = sandbox(like_the_seed()).await;
    let place = Place::new(&sandbox);
    place.sign_in().await;
    assert_eq!(place.run(&["keys", "create", "--name", "ci"]).await.0, Some(0));
    let (id, _) = sandbox.live_keys(EMAIL).remove(0);
    (sandbox, place, id)
}

fn terminal(place: &Place, arguments: &[&str]) -> PtySession {
    let command = place.command(arguments).into_std();
    spawn_command(command, Some(TIMEOUT_MS)).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn login_asks_and_does_not_echo_the_password() {
    let sandbox = sandbox(like_the_seed()).await;
    let place = Place::new(&sandbox);
    let mut terminal = terminal(&place, &["login"]);
    terminal.exp_string("E-mail: ").unwrap();
    terminal.send_line(EMAIL).unwrap();
    terminal.exp_string("Password: ").unwrap();
    terminal.send_line(secrets::text(&place.password)).unwrap();
    let shown = terminal.exp_eof().unwrap();
    assert!(shown.contains("Signed in as ada@example.com"), "{shown}");
    secrets::assert_absent(std::slice::from_ref(&place.password), shown.as_bytes(), "the terminal");
}

#[tokio::test(flavor = "multi_thread")]
async fn register_asks_for_the_password_twice() {
    let sandbox = sandbox(like_the_seed()).await;
    let place = Place::new(&sandbox);
    let mut terminal = terminal(&place, &["register", "--email", "new@example.com"]);
    terminal.exp_string("Password: ").unwrap();
    terminal.send_line("a-good-password-1").unwrap();
    terminal.exp_string("Password again: ").unwrap();
    terminal.send_line("another-password-2").unwrap();
    assert!(terminal.exp_eof().unwrap().contains("differ"));
    assert_eq!(sandbox.count("POST /auth/register"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn reveal_prints_a_key_after_a_confirmation() {
    let (sandbox, place, id) = signed_in().await;
    let mut terminal = terminal(&place, &["keys", "reveal", &id]);
    terminal.exp_string("Type yes: ").unwrap();
    terminal.send_line("yes").unwrap();
    let shown = terminal.exp_eof().unwrap();
    assert!(sandbox.secrets_issued().iter().any(|secret| shown.contains(secrets::text(secret))));
}

#[tokio::test(flavor = "multi_thread")]
async fn reveal_prints_nothing_without_a_confirmation() {
    let (sandbox, place, id) = signed_in().await;
    let mut terminal = terminal(&place, &["keys", "reveal", &id]);
    terminal.exp_string("Type yes: ").unwrap();
    terminal.send_line("y").unwrap();
    let shown = terminal.exp_eof().unwrap();
    secrets::assert_absent(&sandbox.secrets_issued(), shown.as_bytes(), "the terminal");
}

#[tokio::test(flavor = "multi_thread")]
async fn reveal_refuses_a_pipe() {
    let (sandbox, place, id) = signed_in().await;
    let (code, out, err) = place.run(&["keys", "reveal", &id]).await;
    assert_eq!((code, out.as_str()), (Some(2), ""));
    assert!(err.contains("to a terminal only"), "{err}");
    secrets::assert_absent(&sandbox.secrets_issued(), err.as_bytes(), "stderr");
}

#[tokio::test(flavor = "multi_thread")]
async fn run_passes_the_key_to_the_child_alone_and_returns_its_exit_code() {
    let (sandbox, place, id) = signed_in().await;
    let script = r#"echo "$BONDMCP_API_KEY $BONDMCP_SEALING_KEY"; exit 3"#;
    let (code, out, _) = place.run(&["keys", "run", &id, "--", "/bin/sh", "-c", script]).await;
    assert_eq!(code, Some(3));
    assert!(sandbox.secrets_issued().iter().any(|secret| secrets::text(secret) == out.trim()));
    assert!(!out.contains(secrets::text(&place.sealing_key)));
}

#[tokio::test(flavor = "multi_thread")]
async fn status_shows_who_is_signed_in_and_exit_codes_are_as_documented() {
    let (_sandbox, place, id) = signed_in().await;
    let (code, out, _) = place.run(&["status", "--json"]).await;
    let status: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(
        (code, status["email"].as_str(), status["signed_in"].as_bool()),
        (Some(0), Some(EMAIL), Some(true))
    );
    assert_eq!(place.run(&["keys", "revoke", "key_unknown", "--yes"]).await.0, Some(1));
    assert_eq!(place.run(&["keys", "usage", &id, "--json"]).await.0, Some(0));
    assert_eq!(place.run(&["keys", "frobnicate"]).await.0, Some(2));
    assert_eq!(place.run(&["logout"]).await.0, Some(0));
    assert_eq!(place.run(&["keys", "list"]).await.0, Some(1));
}
