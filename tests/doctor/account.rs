//! Credentials that are missing or refused, interrupted key changes, and the port of the sign-in page.

use bondmcp_server::sandbox::{Fault, Plan};

use super::{
    Patient,
    common::{EMAIL, secrets},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_person_who_is_not_signed_in() {
    let (_sandbox, patient) = Patient::signed_out().await;
    let report = patient.examine().await;
    let check = report.failed("credential", "not signed in");
    assert_eq!(report.check("plan").status, "skip");
    // The command asks; here the answers are piped in.
    let login = format!("{} --email {EMAIL} --password-stdin", check.run);
    patient.paste(&login, secrets::text(&patient.place.password)).await;
    patient.assert_mended("credential").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_has_ended_and_cannot_be_renewed() {
    let (sandbox, mut patient) = Patient::signed_out().await;
    patient.unset("BONDMCP_SEALING_KEY");
    let mut command = patient.command(&["login", "--email", EMAIL, "--password-stdin", "--no-remember"]);
    let password = secrets::text(&patient.place.password);
    assert_eq!(super::common::run(&mut command, password).await.0, Some(0));
    sandbox.expire_tokens();
    let check = patient.examine().await.failed("credential", "expired and cannot be renewed");
    let login = format!("{} --email {EMAIL} --password-stdin", check.run);
    patient.paste(&login, password).await;
    patient.assert_mended("credential").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_key_in_use_that_was_revoked() {
    let (sandbox, patient) = Patient::signed_in().await;
    let run = async |arguments: &[&str]| super::common::run(&mut patient.command(arguments), "").await;
    assert_eq!(run(&["keys", "create", "--name", "ci"]).await.0, Some(0));
    let (id, _) = sandbox.live_keys(EMAIL).remove(0);
    assert_eq!(run(&["keys", "use", &id]).await.0, Some(0));
    patient.assert_mended("credential").await;
    sandbox.revoke_key(&id);
    let check = patient.examine().await.failed("credential", &id);
    patient.paste(&check.run, "").await;
    patient.assert_mended("credential").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_key_in_the_environment_that_is_none() {
    let (_sandbox, mut patient) = Patient::signed_in().await;
    patient.set("BONDMCP_API_KEY", "canary-of-the-environment");
    let report = patient.examine().await;
    let check = report.failed("credential", "BONDMCP_API_KEY");
    assert!(check.advice.contains("unset"), "{check:?}");
    assert!(!report.0.to_string().contains("canary"));
    patient.unset("BONDMCP_API_KEY");
    patient.assert_mended("credential").await;
}

/// The password is tried once, as by any call, and never again.
#[tokio::test(flavor = "multi_thread")]
async fn a_password_in_the_environment_that_is_wrong() {
    let (sandbox, mut patient) = Patient::signed_out().await;
    patient.set("BONDMCP_EMAIL", EMAIL);
    patient.set("BONDMCP_PASSWORD", "canary-of-the-environment");
    for _ in 0..3 {
        let report = patient.examine().await;
        let check = report.check("credential");
        assert!(check.status == "fail" && !check.run.is_empty(), "{check:?}");
        assert!(!report.0.to_string().contains("canary"));
    }
    assert_eq!(sandbox.count("POST /auth/login"), 1);
    let password = secrets::text(&patient.place.password).to_owned();
    patient.set("BONDMCP_PASSWORD", &password);
    patient.assert_mended("credential").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_whose_requests_are_used_up() {
    let (sandbox, patient) = Patient::signed_in().await;
    sandbox.set_plan(EMAIL, Plan::Free);
    let mut runs = 0;
    let check = loop {
        let report = patient.examine().await;
        if report.check("credential").status == "fail" {
            break report.failed("credential", "rate limit");
        }
        runs += 1;
        assert!(runs < 20, "{:#}", report.0);
    };
    assert!(check.advice.contains("Wait"), "{check:?}");
    sandbox.set_plan(EMAIL, Plan::Unlimited);
    patient.assert_mended("credential").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sign_in_port_that_is_in_use() {
    let (_sandbox, mut patient) = Patient::signed_in().await;
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    patient.flags = vec!["--sign-in-port".to_owned(), address.port().to_string()];
    let mut command = patient.command(&["doctor", "--json"]);
    let (code, out, _) = super::common::run(&mut command, "").await;
    assert_eq!(code, Some(1));
    let report = super::Report(serde_json::from_str(&out).unwrap());
    let check = report.failed("sign-in port", &format!("{address} is in use"));
    assert!(check.advice.contains("--sign-in-port"), "{check:?}");
    drop(taken);
    patient.assert_mended("sign-in port").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_whose_creation_was_interrupted() {
    let (sandbox, patient) = Patient::signed_in().await;
    sandbox.faults().next("POST /auth/api-keys", Fault::ProcessThenDrop);
    let mut create = patient.command(&["keys", "create", "--name", "ci"]);
    assert_eq!(super::common::run(&mut create, "").await.0, Some(1));
    let (id, _) = sandbox.live_keys(EMAIL).remove(0);
    let check = patient.examine().await.warned("API keys", "interrupted: `ci`");
    assert!(check.run.ends_with(&format!("keys revoke {id}")), "{check:?}");
    // It asks; here it is told not to.
    patient.paste(&format!("{} --yes", check.run), "").await;
    patient.assert_mended("API keys").await;
    assert!(sandbox.live_keys(EMAIL).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_whose_rotation_was_interrupted() {
    let (sandbox, patient) = Patient::signed_in().await;
    let run = async |arguments: &[&str]| super::common::run(&mut patient.command(arguments), "").await.0;
    assert_eq!(run(&["keys", "create", "--name", "ci"]).await, Some(0));
    let (id, _) = sandbox.live_keys(EMAIL).remove(0);
    sandbox.faults().next("DELETE /auth/api-keys/{id}", Fault::Status(500));
    assert_eq!(run(&["keys", "rotate", &id, "--yes"]).await, Some(1));
    let check = patient.examine().await.warned("API keys", "interrupted: `ci`");
    assert!(check.run.ends_with(&format!("keys rotate {id}")), "{check:?}");
    // It asks; here it is told not to.
    patient.paste(&format!("{} --yes", check.run), "").await;
    patient.assert_mended("API keys").await;
    assert_eq!(sandbox.live_keys(EMAIL).len(), 1);
}
