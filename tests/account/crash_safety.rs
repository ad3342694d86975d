//! The process is killed at each step of creating and rotating a key. The upstream stops in the middle of a request,
//! before or after processing it; between two requests the process writes its vault in one transaction, so these are
//! all the states that a crash can leave.

use std::process::Stdio;

use crate::common::{EMAIL, Place, Server, like_the_seed, sandbox, within};
use bondmcp_server::{
    bondmcp::{Client, Timing},
    clock::Clock,
    redact::Redactor,
    sandbox::{Fault, Plan, RunningSandbox},
    secret::SecretString,
};
use futures_util::future::join_all;
use serde_json::{Value, json};

const LIST: &str = "GET /auth/api-keys";
const CREATE: &str = "POST /auth/api-keys";
const VERIFY: &str = "GET /health-ai/models";
const REVOKE: &str = "DELETE /auth/api-keys/{id}";

/// Runs a command that meets `fault` at `endpoint`, and kills it there.
async fn killed_at(
    sandbox: &RunningSandbox,
    place: &Place,
    arguments: &[&str],
    endpoint: &str,
    fault: Fault,
) {
    let before = sandbox.count(endpoint);
    sandbox.faults().next(endpoint, fault.clone());
    let mut command = place.command(arguments);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    within(sandbox.faults().arrived(endpoint, before + 1)).await;
    if let Fault::ProcessThenHang = fault {
        within(sandbox.faults().processed(endpoint, 1)).await;
    }
    child.kill().await.unwrap();
}

/// Every active key at the upstream is stored here or reported, and every stored active key works.
async fn all_accounted_for(sandbox: &RunningSandbox, place: &Place) -> Value {
    let list = place.keys().await;
    let reported = |id: &str| {
        let unfinished = list["unfinished"].as_array().unwrap();
        unfinished
            .iter()
            .any(|entry| entry["lost_key_ids"].as_array().is_some_and(|ids| ids.contains(&json!(id))))
    };
    for (id, _) in sandbox.live_keys(EMAIL) {
        let stored = entry(&list, &id).is_some_and(|key| key["stored"] == true);
        assert!(stored != reported(&id), "{id} must be stored or reported: {list}");
        if stored {
            assert!(works(place, &id).await, "{id} must work: {list}");
        }
    }
    list
}

fn entry<'a>(list: &'a Value, id: &str) -> Option<&'a Value> {
    list["keys"].as_array().unwrap().iter().find(|key| key["id"] == id)
}

/// Makes a request with the value in the vault.
async fn works(place: &Place, id: &str) -> bool {
    let (code, value, told) =
        place.run(&["keys", "run", id, "--", "/usr/bin/printenv", "BONDMCP_API_KEY"]).await;
    assert_eq!(code, Some(0), "{told}");
    let client =
        Client::new(place.base_url.parse().unwrap(), Redactor::default(), Clock::system(), Timing::default());
    client.list_models(&SecretString::from(value.trim())).await.is_ok()
}

/// A later start reports the interrupted change, to the agent too.
async fn reported_to_the_agent(place: &Place) -> Vec<Value> {
    let server = Server::start(place).await;
    server.ok("manage_api_keys", json!({ "action": "list" })).await;
    let status = server.ok("auth_status", json!({})).await;
    server.end().await;
    status["unfinished"].as_array().cloned().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_at_any_step_of_create_leaves_no_key_without_a_trace() {
    for (endpoint, fault) in [(LIST, Fault::Hang), (CREATE, Fault::Hang), (CREATE, Fault::ProcessThenHang)] {
        let sandbox = sandbox(like_the_seed()).await;
        let place = Place::new(&sandbox);
        place.sign_in().await;
        killed_at(&sandbox, &place, &["keys", "create", "--name", "ci"], endpoint, fault.clone()).await;

        all_accounted_for(&sandbox, &place).await;
        let unfinished = reported_to_the_agent(&place).await;
        let orphans: Vec<_> = sandbox.live_keys(EMAIL).into_iter().map(|(id, _)| id).collect();
        assert_eq!(orphans.len(), usize::from(matches!(fault, Fault::ProcessThenHang)));
        assert_eq!(unfinished.len(), orphans.len());
        for orphan in orphans {
            assert_eq!(unfinished[0]["lost_key_ids"], json!([orphan]));
            assert_eq!(place.run(&["keys", "revoke", &orphan, "--yes"]).await.0, Some(0));
        }
        assert_eq!(place.run(&["keys", "create", "--name", "ci"]).await.0, Some(0));
        let list = all_accounted_for(&sandbox, &place).await;
        assert_eq!(list["unfinished"], json!([]));
        assert_eq!(list["keys"].as_array().unwrap().len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_at_any_step_of_rotate_leaves_a_key_that_works() {
    // At once: after a kill the rotation's lease has to run out.
    let steps = [
        (LIST, Fault::Hang),
        (CREATE, Fault::Hang),
        (CREATE, Fault::ProcessThenHang),
        (VERIFY, Fault::Hang),
        (VERIFY, Fault::ProcessThenHang),
        (REVOKE, Fault::Hang),
        (REVOKE, Fault::ProcessThenHang),
    ];
    join_all(steps.map(|(endpoint, fault)| async move {
        let sandbox = sandbox(like_the_seed()).await;
        let place = Place::new(&sandbox);
        place.sign_in().await;
        assert_eq!(place.run(&["keys", "create", "--name", "ci"]).await.0, Some(0));
        let (old, _) = sandbox.live_keys(EMAIL).remove(0);
        assert_eq!(place.run(&["keys", "use", &old]).await.0, Some(0));
        killed_at(&sandbox, &place, &["keys", "rotate", &old, "--yes"], endpoint, fault).await;

        let list = all_accounted_for(&sandbox, &place).await;
        let in_use = list["keys"].as_array().unwrap().iter().find(|key| key["in_use"] == true);
        let in_use = in_use.unwrap_or_else(|| panic!("a key is in use: {list}"));
        assert!(works(&place, in_use["id"].as_str().unwrap()).await, "{endpoint}: {list}");

        finish(&sandbox, &place, &old).await;
    }))
    .await;
}

/// Follows the given advice and ends with one active key that is stored and in use.
async fn finish(sandbox: &RunningSandbox, place: &Place, old: &str) {
    for entry in reported_to_the_agent(place).await {
        for lost in entry["lost_key_ids"].as_array().into_iter().flatten() {
            assert_eq!(place.run(&["keys", "revoke", lost.as_str().unwrap(), "--yes"]).await.0, Some(0));
        }
    }
    // Where the old one is revoked already, to list the keys has finished the rotation.
    if sandbox.live_keys(EMAIL).iter().any(|(id, _)| id == old) {
        let (code, _, told) = place.run(&["keys", "rotate", old, "--yes"]).await;
        assert_eq!(code, Some(0), "{told}");
    }
    let list = all_accounted_for(sandbox, place).await;
    assert_eq!(list["unfinished"], json!([]), "{list}");
    let [key] = &list["keys"].as_array().unwrap()[..] else { panic!("one key: {list}") };
    assert_eq!((&key["in_use"], &key["stored"], &key["name"]), (&json!(true), &json!(true), &json!("ci")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_whose_last_answer_is_lost_is_finished_at_once() {
    let sandbox = sandbox(like_the_seed()).await;
    let place = Place::new(&sandbox);
    place.sign_in().await;
    assert_eq!(place.run(&["keys", "create", "--name", "ci"]).await.0, Some(0));
    let (old, _) = sandbox.live_keys(EMAIL).remove(0);
    assert_eq!(place.run(&["keys", "use", &old]).await.0, Some(0));
    sandbox.faults().next(REVOKE, Fault::ProcessThenDrop);
    let (code, _, told) = place.run(&["keys", "rotate", &old, "--yes"]).await;
    assert_eq!(code, Some(0), "{told}");
    finish(&sandbox, &place, &old).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_create_whose_answer_is_lost_reports_the_key_at_once() {
    let sandbox = sandbox(like_the_seed()).await;
    let place = Place::new(&sandbox);
    place.sign_in().await;
    let server = Server::start(&place).await;
    // A name may look like a secret, so that it is redacted where the keys are listed.
    for (made, name) in [(0, "ci"), (1, " sk_0123456789abcdef")] {
        sandbox.faults().next(CREATE, Fault::ProcessThenDrop);
        let known: Vec<_> = sandbox.live_keys(EMAIL);
        let error = server.error("manage_api_keys", json!({"action": "create", "name": name})).await;
        let (orphan, _) = sandbox.live_keys(EMAIL).into_iter().find(|key| !known.contains(key)).unwrap();
        assert_eq!(error["kind"], "upstream_unavailable");
        assert!(error["solution"].as_str().unwrap().contains(&orphan), "{name}: {error}");
        assert_eq!(sandbox.count(CREATE), made + 1);
    }
}

/// Nothing here knows of them afterwards.
#[tokio::test(flavor = "multi_thread")]
async fn signing_out_names_the_keys_that_it_forgets() {
    let sandbox = sandbox(like_the_seed()).await;
    let place = Place::new(&sandbox);
    place.sign_in().await;
    let server = Server::start(&place).await;
    let made = server.ok("manage_api_keys", json!({"action": "create", "name": "stored"})).await;
    let stored = made["keys"][0]["id"].as_str().unwrap();
    sandbox.faults().next(CREATE, Fault::ProcessThenDrop);
    server.error("manage_api_keys", json!({"action": "create", "name": "lost"})).await;
    server.end().await;
    let (lost, _) = sandbox.live_keys(EMAIL).into_iter().find(|(_, name)| name == "lost").unwrap();
    let (code, _, told) = place.run(&["logout", "--forget-keys"]).await;
    assert_eq!(code, Some(0), "{told}");
    assert!(told.contains(stored) && told.contains(&lost) && told.contains("stay valid"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn signing_out_names_a_key_that_is_stored_after_the_keys_were_listed() {
    let sandbox = sandbox(like_the_seed()).await;
    let place = Place::new(&sandbox);
    place.sign_in().await;
    for name in ["kept", "revoked"] {
        assert_eq!(place.run(&["keys", "create", "--name", name]).await.0, Some(0));
    }
    let id_of = |name: &str| sandbox.live_keys(EMAIL).into_iter().find(|(_, known)| known == name).unwrap().0;
    let (kept, revoked) = (id_of("kept"), id_of("revoked"));
    let client =
        Client::new(place.base_url.parse().unwrap(), Redactor::default(), Clock::system(), Timing::default());
    let token = client.login(EMAIL, &place.password).await.unwrap().access_token;
    client.revoke_api_key(&token, &revoked).await.unwrap();

    sandbox.faults().next(LIST, Fault::ProcessThenHold);
    let create = async {
        within(sandbox.faults().processed(LIST, 1)).await;
        assert_eq!(place.run(&["keys", "create", "--name", "late"]).await.0, Some(0));
        sandbox.faults().release();
    };
    let ((code, _, told), ()) = tokio::join!(place.run(&["logout", "--forget-keys"]), create);
    assert_eq!(code, Some(0), "{told}");
    assert!(told.contains(&kept) && told.contains(&id_of("late")) && !told.contains(&revoked), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn signing_out_names_a_key_that_may_yet_be_found() {
    let sandbox = sandbox(like_the_seed()).await;
    let place = Place::new(&sandbox);
    place.sign_in().await;
    killed_at(&sandbox, &place, &["keys", "create", "killed"], CREATE, Fault::ProcessThenHang).await;
    sandbox.faults().always(LIST, Fault::Status(503));
    let (code, _, told) = place.run(&["logout", "--forget-keys"]).await;
    assert!(code == Some(0) && told.contains("`killed` may exist at BondMCP"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_create_is_finished_all_the_same() {
    let sandbox = sandbox(like_the_seed()).await;
    let place = Place::new(&sandbox);
    place.sign_in().await;
    let server = Server::start(&place).await;
    sandbox.faults().next(LIST, Fault::Hold);
    let call = server
        .client
        .send_cancellable_request(
            rmcp::model::ClientRequest::CallToolRequest(rmcp::model::Request::new(crate::common::request(
                "manage_api_keys",
                json!({"action": "create", "name": "ci"}),
            ))),
            rmcp::service::PeerRequestOptions::default(),
        )
        .await
        .unwrap();
    within(sandbox.faults().arrived(LIST, 1)).await;
    call.cancel(None).await.unwrap();
    sandbox.faults().release();
    // The process finishes the work before it ends.
    server.end().await;
    let list = all_accounted_for(&sandbox, &place).await;
    assert_eq!((&list["keys"][0]["name"], &list["keys"][0]["stored"]), (&json!("ci"), &json!(true)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_key_that_does_not_work_leaves_the_old_one_in_use() {
    let sandbox = sandbox(like_the_seed()).await;
    let place = Place::new(&sandbox);
    place.sign_in().await;
    let server = Server::start(&place).await;
    let made = server.ok("manage_api_keys", json!({"action": "create", "name": "ci"})).await;
    let old = made["keys"][0]["id"].as_str().unwrap().to_owned();
    server.ok("manage_api_keys", json!({"action": "use", "key_id": old})).await;
    sandbox.faults().next(VERIFY, Fault::Status(401));
    let error =
        server.error("manage_api_keys", json!({"action": "rotate", "key_id": old, "confirm": "ci"})).await;
    assert!(error["solution"].as_str().unwrap().contains("Rotate"), "{error}");
    let status = server.ok("auth_status", json!({})).await;
    assert_eq!(status["key_id"], json!(old));
    assert_eq!(status["unfinished"][0]["rotating_key_id"], json!(old));
    server.ok("list_models", json!({ "refresh": true })).await;
    finish(&sandbox, &place, &old).await;
}

const REGENERATE: &str = "POST /api/v1/api-keys/{id}/regenerate";

/// A place with five keys on a plan that allows five.
async fn at_the_limit() -> (RunningSandbox, Place, String) {
    let sandbox = sandbox(like_the_seed()).await;
    let place = Place::new(&sandbox);
    place.sign_in().await;
    for name in ["ci", "b", "c", "d", "e"] {
        assert_eq!(place.run(&["keys", "create", "--name", name]).await.0, Some(0));
    }
    sandbox.set_plan(EMAIL, Plan::Starter);
    let (id, _) = sandbox.live_keys(EMAIL).into_iter().find(|(_, name)| name == "ci").unwrap();
    assert_eq!(place.run(&["keys", "use", &id]).await.0, Some(0));
    (sandbox, place, id)
}

#[tokio::test(flavor = "multi_thread")]
async fn where_the_plan_allows_no_further_key_rotating_gives_the_key_a_new_value() {
    let (sandbox, place, id) = at_the_limit().await;
    let (_, before, _) = place.run(&["keys", "run", &id, "--", "/usr/bin/printenv", "BONDMCP_API_KEY"]).await;
    assert_eq!(place.run(&["keys", "rotate", &id, "--yes"]).await.0, Some(0));
    let (_, after, _) = place.run(&["keys", "run", &id, "--", "/usr/bin/printenv", "BONDMCP_API_KEY"]).await;
    assert_ne!(before, after);
    assert!(works(&place, &id).await);
    let list = all_accounted_for(&sandbox, &place).await;
    assert_eq!(entry(&list, &id).unwrap()["in_use"], true);
    assert_eq!(list["unfinished"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_while_a_key_gets_a_new_value_is_reported_and_repaired_by_rotating_again() {
    for fault in [Fault::Hang, Fault::ProcessThenHang] {
        let (sandbox, place, id) = at_the_limit().await;
        killed_at(&sandbox, &place, &["keys", "rotate", &id, "--yes"], REGENERATE, fault.clone()).await;
        let list = place.keys().await;
        let told = &list["unfinished"][0];
        assert_eq!(told["lost_key_ids"], json!([id]), "{fault:?} {list}");
        assert!(told["next"].as_str().unwrap().contains(&format!("rotate {id} again")), "{list}");
        sandbox.faults().clear();
        assert_eq!(place.run(&["keys", "rotate", &id, "--yes"]).await.0, Some(0));
        assert!(works(&place, &id).await);
        assert_eq!(all_accounted_for(&sandbox, &place).await["unfinished"], json!([]));
    }
    // The refusal changes nothing.
    let (sandbox, place, id) = at_the_limit().await;
    sandbox.faults().next(REGENERATE, Fault::Status(403));
    assert_eq!(place.run(&["keys", "rotate", &id, "--yes"]).await.0, Some(1));
    assert!(works(&place, &id).await);
    assert_eq!(all_accounted_for(&sandbox, &place).await["unfinished"], json!([]));
}
