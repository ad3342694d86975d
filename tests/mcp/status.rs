//! `status`: what it knows, what it has tried, and its exit code.

use crate::common::{EMAIL, Place, like_the_seed, sandbox};
use bondmcp_server::sandbox::{Fault, RunningSandbox};
use serde_json::Value;

async fn place() -> (RunningSandbox, Place) {
    let sandbox = sandbox(like_the_seed()).await;
    let place = Place::new(&sandbox);
    (sandbox, place)
}

async fn status(place: &Place, flags: &[&str]) -> (Option<i32>, Value) {
    let arguments = [&["status", "--json"], flags].concat();
    let (code, out, told) = place.run(&arguments).await;
    assert_eq!(told, "");
    (code, serde_json::from_str(&out).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn it_names_vault_key_store_and_version_and_makes_no_request_unless_asked() {
    let (sandbox, mut place) = place().await;
    place.sign_in().await;
    let before = sandbox.counts();
    let (code, known) = status(&place, &[]).await;
    assert_eq!((code, known["email"].as_str()), (Some(0), Some(EMAIL)));
    assert_eq!(known["vault"], place.data_dir().join("vault.db").to_str().unwrap());
    assert_eq!(known["key_store"], "BONDMCP_SEALING_KEY");
    assert_eq!(known["version"], env!("CARGO_PKG_VERSION"));
    assert!(known["accepted"].is_null(), "{known}");
    let (_, shown, _) = place.run(&["status"]).await;
    assert!(shown.contains("no; to ask BondMCP, run: `") && shown.contains(" status --check`"), "{shown}");
    assert_eq!(sandbox.counts(), before);

    let (code, tried) = status(&place, &["--check"]).await;
    assert_eq!((code, &tried["accepted"]), (Some(0), &true.into()));
    assert_eq!(sandbox.count("GET /health-ai/models"), 1);

    sandbox.faults().always("GET /health-ai/models", Fault::Status(401));
    let (code, tried) = status(&place, &["--check"]).await;
    assert_eq!((code, &tried["accepted"]), (Some(1), &false.into()));
    assert!(tried["error"].as_str().unwrap().contains("did not accept the credential"), "{tried}");

    // At another upstream nobody is signed in.
    place.base_url = "http://127.0.0.1:1/mcp".to_owned();
    let (code, known) = status(&place, &["--check"]).await;
    assert_eq!((code, &known["signed_in"]), (Some(1), &false.into()));
    assert!(known["accepted"].is_null(), "there is nothing to try: {known}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_of_an_upstream_that_is_down_names_host_and_cause() {
    let (sandbox, place) = place().await;
    place.sign_in().await;
    let address = sandbox.address();
    drop(sandbox);
    let (code, out, _) = place.run(&["status", "--check"]).await;
    assert_eq!(code, Some(1));
    assert!(out.contains(&format!("Cannot connect to {address}: connection refused.")), "{out}");
}

#[tokio::test(flavor = "multi_thread")]
async fn signed_out_it_exits_with_1_and_creates_nothing() {
    let (_sandbox, place) = place().await;
    let mut command = place.command(&["status"]);
    command.env_remove("BONDMCP_SEALING_KEY");
    let (code, out, told) = crate::common::run(&mut command, "").await;
    assert_eq!((code, told.as_str()), (Some(1), ""));
    assert!(out.starts_with("You are not signed in. Run: `") && out.contains("none yet"), "{out}");
    assert!(!place.data_dir().exists());
    place.sign_in().await;
    assert_eq!(place.run(&["status"]).await.0, Some(0));
    assert_eq!(place.run(&["logout"]).await.0, Some(0));
    assert_eq!(place.run(&["status"]).await.0, Some(1));
}
