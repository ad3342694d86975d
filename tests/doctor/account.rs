//! Credentials that are missing or refused, interrupted key changes, and the port of the sign-in page.

use bondmcp_server::sandbox::{Fault, Plan};

use super::{
    Installation,
    common::{EMAIL, secrets},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_person_who_is_not_signed_in() {
    let (_sandbox, installation) = Installation::signed_out().await;
    let report = installation.examine().await;
    let check = report.failed("credential", "not signed in");
    assert_eq!(report.check("plan").status, "skip");
    // The command asks; here the answers are piped in.
    let login = format!("{} --email {EMAIL} --password-stdin", check.run);
    installation.paste(&login, secrets::text(&installation.place.password)).await;
    installation.assert_fixed("credential").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_has_ended_and_cannot_be_renewed() {
    let (sandbox, mut installation) = Installation::signed_out().await;
    installation.unset("BONDMCP_SEALING_KEY");
    let mut command = installation.command(&["login", "--email", EMAIL, "--password-stdin", "--no-remember"]);
    let password = secrets::text(&installation.place.password);
    assert_eq!(super::common::run(&mut command, password).await.0, Some(0));
    sandbox.expire_tokens();
    let check = installation.examine().await.failed("credential", "expired and cannot be renewed");
    let login = format!("{} --email {EMAIL} --password-stdin", check.run);
    installation.paste(&login, password).await;
    installation.assert_fixed("credential").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_key_in_use_that_was_revoked() {
    let (sandbox, installation) = Installation::signed_in().await;
    let run = async |arguments: &[&str]| super::common::run(&mut installation.command(arguments), "").await;
    assert_eq!(run(&["keys", "create", "--name", "ci"]).await.0, Some(0));
    let (id, _) = sandbox.live_keys(EMAIL).remove(0);
    assert_eq!(run(&["keys", "use", &id]).await.0, Some(0));
    installation.assert_fixed("credential").await;
    sandbox.revoke_key(&id);
    let check = installation.examine().await.failed("credential", &id);
    installation.paste(&check.run, "").await;
    installation.assert_fixed("credential").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_key_in_the_environment_that_is_none() {
    let (_sandbox, mut installation) = Installation::signed_in().await;
    installation.set("BONDMCP_API_KEY", "canary-of-the-environment");
    let report = installation.examine().await;
    let check = report.failed("credential", "BONDMCP_API_KEY");
    assert!(check.advice.contains("unset"), "{check:?}");
    assert!(!report.0.to_string().contains("canary"));
    installation.unset("BONDMCP_API_KEY");
    installation.assert_fixed("credential").await;
}

/// The password is tried once, as by any call, and never again.
#[tokio::test(flavor = "multi_thread")]
async fn a_password_in_the_environment_that_is_wrong() {
    let (sandbox, mut installation) = Installation::signed_out().await;
    installation.set("BONDMCP_EMAIL", EMAIL);
    installation.set("BONDMCP_PASSWORD", "canary-of-the-environment");
    for _ in 0..3 {
        let report = installation.examine().await;
        let check = report.check("credential");
        assert!(check.status == "fail" && !check.run.is_empty(), "{check:?}");
        assert!(!report.0.to_string().contains("canary"));
    }
    assert_eq!(sandbox.count("POST /auth/login"), 1);
    let password = secrets::text(&installation.place.password).to_owned();
    installation.set("BONDMCP_PASSWORD", &password);
    installation.assert_fixed("credential").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_whose_requests_are_used_up() {
    let (sandbox, installation) = Installation::signed_in().await;
    sandbox.set_plan(EMAIL, Plan::Free);
    let mut runs = 0;
    let check = loop {
        let report = installation.examine().await;
        if report.check("credential").status == "fail" {
            break report.failed("credential", "rate limit");
        }
        runs += 1;
        assert!(runs < 20, "{:#}", report.0);
    };
    assert!(check.advice.contains("Wait"), "{check:?}");
    sandbox.set_plan(EMAIL, Plan::Unlimited);
    installation.assert_fixed("credential").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sign_in_port_that_is_in_use() {
    let (_sandbox, mut installation) = Installation::signed_in().await;
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    installation.flags = vec!["--sign-in-port".to_owned(), address.port().to_string()];
    let mut command = installation.command(&["doctor", "--json"]);
    let (code, out, _) = super::common::run(&mut command, "").await;
    assert_eq!(code, Some(1));
    let report = super::Report(serde_json::from_str(&out).unwrap());
    let check = report.failed("sign-in port", &format!("{address} is in use"));
    assert!(check.advice.contains("--sign-in-port"), "{check:?}");
    drop(taken);
    installation.assert_fixed("sign-in port").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_whose_creation_was_interrupted() {
    let (sandbox, installation) = Installation::signed_in().await;
    sandbox.faults().next("POST /auth/api-keys", Fault::ProcessThenDrop);
    let mut create = installation.command(&["keys", "create", "--name", "ci"]);
    assert_eq!(super::common::run(&mut create, "").await.0, Some(1));
    let (id, _) = sandbox.live_keys(EMAIL).remove(0);
    let check = installation.examine().await.warned("API keys", "interrupted: `ci`");
    assert!(check.run.ends_with(&format!("keys revoke {id}")), "{check:?}");
    // It asks; here it is told not to.
    installation.paste(&format!("{} --yes", check.run), "").await;
    installation.assert_fixed("API keys").await;
    assert!(sandbox.live_keys(EMAIL).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_whose_rotation_was_interrupted() {
    let (sandbox, installation) = Installation::signed_in().await;
    let run = async |arguments: &[&str]| super::common::run(&mut installation.command(arguments), "").await.0;
    assert_eq!(run(&["keys", "create", "--name", "ci"]).await, Some(0));
    let (id, _) = sandbox.live_keys(EMAIL).remove(0);
    sandbox.faults().next("DELETE /auth/api-keys/{id}", Fault::Status(500));
    assert_eq!(run(&["keys", "rotate", &id, "--yes"]).await, Some(1));
    let check = installation.examine().await.warned("API keys", "interrupted: `ci`");
    assert!(check.run.ends_with(&format!("keys rotate {id}")), "{check:?}");
    // It asks; here it is told not to.
    installation.paste(&format!("{} --yes", check.run), "").await;
    installation.assert_fixed("API keys").await;
    assert_eq!(sandbox.live_keys(EMAIL).len(), 1);
}
