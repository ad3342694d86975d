//! Credentials from the environment are sent to their own base URL only.

use crate::common::{EMAIL, Place, Server, like_the_seed, sandbox, secrets};
use serde_json::json;
use std::process::Stdio;
use tokio::process::Command;

/// The variables that hold a credential.
fn with_credentials<'a>(command: &'a mut Command, place: &Place) -> &'a mut Command {
    command
        .env("BONDMCP_EMAIL", EMAIL)
        .env("BONDMCP_PASSWORD", secrets::text(&place.password))
        .env("BONDMCP_API_KEY", "sk_live_operators_own_key_0123456789")
}

async fn output(command: &mut Command) -> (Option<i32>, String) {
    let output = crate::common::within(command.stdin(Stdio::null()).output()).await.unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_from_the_environment_are_refused_for_another_base_url() {
    let (own, other) = (sandbox(like_the_seed()).await, sandbox(like_the_seed()).await);
    let place = Place::new(&own);
    let elsewhere = other.base_url();
    for arguments in [["--base-url", &elsewhere, "keys", "list"], ["--base-url", &elsewhere, "keys", "use"]] {
        let mut command = place.command(&arguments);
        let (code, err) = output(with_credentials(&mut command, &place)).await;
        assert_eq!(code, Some(2), "{err}");
        assert!(err.contains("BONDMCP_BASE_URL") && err.contains("--base-url"), "{err}");
    }
    assert_eq!((own.count("POST /auth/login"), other.count("POST /auth/login")), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_base_url_in_the_environment_its_credentials_belong_to_the_default() {
    let sandbox = sandbox(like_the_seed()).await;
    let place = Place::new(&sandbox);
    let elsewhere = sandbox.base_url();
    let mut command = place.command(&["--base-url", &elsewhere, "keys", "list"]);
    let (code, err) = output(with_credentials(&mut command, &place).env_remove("BONDMCP_BASE_URL")).await;
    assert_eq!(code, Some(2), "{err}");
    assert_eq!(sandbox.count("POST /auth/login"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_base_url_in_flag_and_environment_is_no_other() {
    let sandbox = sandbox(like_the_seed()).await;
    let place = Place::new(&sandbox);
    let same = format!("{}/", sandbox.base_url());
    let mut command = place.command(&["--base-url", &same, "keys", "list"]);
    let (code, err) = output(with_credentials(&mut command, &place)).await;
    assert_eq!(code, Some(0), "{err}");
    assert_eq!(sandbox.count("POST /auth/login"), 1);
}

/// The text is for whoever runs the command, not for a host.
#[tokio::test(flavor = "multi_thread")]
async fn status_names_the_variable_with_the_key_and_what_to_do_about_it() {
    let own = sandbox(like_the_seed()).await;
    let place = Place::new(&own);
    let mut command = place.command(&["status", "--check"]);
    let (code, told, _) = crate::common::run(command.env("BONDMCP_API_KEY", "bcp_x"), "").await;
    assert_eq!(code, Some(1), "{told}");
    assert!(told.starts_with("Calls use an API key; nobody is signed in.\n"), "{told}");
    assert!(told.contains("the key in BONDMCP_API_KEY\n"), "{told}");
    assert!(told.contains("Correct the variable, or unset it.\n") && !told.contains("restart"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sandbox_gets_no_credential_from_the_environment_and_says_so_in_one_line() {
    let own = sandbox(like_the_seed()).await;
    let place = Place::new(&own);
    let mut command = place.command(&["--log", "trace", "stdio", "--sandbox"]);
    let server = Server::spawn(with_credentials(&mut command, &place)).await;
    let status = server.ok("auth_status", json!({})).await;
    assert_eq!(status["signed_in"], false, "{status}");
    let refused = server.error("list_models", json!({})).await;
    assert_eq!(refused["kind"], "sign_in_required", "{refused}");
    let (seen, log) = server.end_apart().await;
    let log = String::from_utf8(log).unwrap();
    let lines = log.lines().filter(|line| line.contains("BONDMCP_PASSWORD")).count();
    assert_eq!(lines, 1, "{log}");
    for text in [String::from_utf8(seen).unwrap(), log] {
        assert!(!text.contains("sk_live_operators"), "{text}");
        secrets::assert_absent(std::slice::from_ref(&place.password), text.as_bytes(), "the output");
    }
}
