//! Revoking or rotating an API key is confirmed: by the person in a form of the host, or by naming the key.

use crate::common::{
    EMAIL, Place, Server, like_the_seed,
    raw::{Raw, call, modern_as},
    sandbox,
};
use bondmcp_server::sandbox::{Fault, RunningSandbox};
use serde_json::{Value, json};

/// Signed in, with a key named `ci`.
async fn with_key() -> (RunningSandbox, Place, String) {
    let sandbox = sandbox(like_the_seed()).await;
    let place = Place::new(&sandbox);
    place.sign_in().await;
    assert_eq!(place.run(&["keys", "create", "--name", "ci"]).await.0, Some(0));
    let id = sandbox.live_keys(EMAIL)[0].0.clone();
    (sandbox, place, id)
}

fn forms() -> Value {
    json!({"elicitation": {"form": {}}})
}

fn revoke(id: u32, key: &str, more: &Value) -> Value {
    let mut params = json!({"name": "manage_api_keys", "arguments": {"action": "revoke", "key_id": key}});
    for (name, value) in more.as_object().unwrap() {
        params[name] = value.clone();
    }
    modern_as(id, "tools/call", params, forms())
}

fn said(first: &Value, answer: &Value) -> Value {
    json!({"requestState": first["result"]["requestState"], "inputResponses": {"person": answer}})
}

#[tokio::test(flavor = "multi_thread")]
async fn without_forms_the_agent_must_name_the_key() {
    let (sandbox, place, id) = with_key().await;
    let server = Server::start(&place).await;
    for action in ["revoke", "rotate"] {
        for confirm in [json!(null), json!("other"), json!("ci "), json!(id)] {
            let mut arguments = json!({"action": action, "key_id": id});
            if confirm.is_string() {
                arguments["confirm"] = confirm;
            }
            let error = server.error("manage_api_keys", arguments).await;
            assert_eq!(error["kind"], "invalid_input");
            let message = error["message"].as_str().unwrap();
            assert!(message.contains("`confirm`") && message.contains("“ci” (bcp_"), "{message}");
        }
    }
    let error = server.error("manage_api_keys", json!({"action": "list", "confirm": "ci"})).await;
    assert!(error["message"].as_str().unwrap().contains("is not valid with"), "{error}");
    assert_eq!(sandbox.live_keys(EMAIL), [(id.clone(), "ci".to_owned())]);

    let rotated =
        server.ok("manage_api_keys", json!({"action": "rotate", "key_id": id, "confirm": "ci"})).await;
    let new = rotated["keys"][0]["id"].as_str().unwrap();
    server.ok("manage_api_keys", json!({"action": "revoke", "key_id": new, "confirm": "ci"})).await;
    assert!(sandbox.live_keys(EMAIL).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_looked_up_is_not_ended() {
    let (sandbox, place, id) = with_key().await;
    let server = Server::start(&place).await;
    sandbox.faults().always("GET /auth/api-keys", Fault::Status(500));
    let arguments = json!({"action": "revoke", "key_id": id, "confirm": "ci"});
    assert_eq!(server.error("manage_api_keys", arguments).await["kind"], "upstream_unavailable");
    assert_eq!(sandbox.count("DELETE /auth/api-keys/{id}"), 0);
    sandbox.faults().clear();
    let arguments = json!({"action": "revoke", "key_id": "key_none"});
    assert_eq!(server.error("manage_api_keys", arguments).await["kind"], "not_found");
    // BondMCP may know a key all the same: under another spelling of its id, or since it does not list all of them.
    sandbox.faults().always("GET /auth/api-keys", Fault::Answer(json!({ "api_keys": [] })));
    let arguments = json!({"action": "revoke", "key_id": id});
    sandbox.faults().next("DELETE /auth/api-keys/{id}", Fault::Answer(json!({})));
    // What is stored here is listed as gone, and has to be confirmed.
    assert_eq!(server.error("manage_api_keys", arguments).await["kind"], "invalid_input");
    let arguments = json!({"action": "revoke", "key_id": "key_unlisted"});
    assert_eq!(server.error("manage_api_keys", arguments).await["kind"], "not_found");
    assert_eq!(sandbox.count("DELETE /auth/api-keys/{id}"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn in_rounds_the_person_sees_the_key_and_decides() {
    let (sandbox, place, id) = with_key().await;
    let mut raw = Raw::start(&place);
    for no in [
        json!({"action": "decline"}),
        json!({"action": "cancel"}),
        json!({"action": "accept", "content": {"confirm": false}}),
        json!({"action": "accept"}),
        json!({"action": "accept", "content": {"confirm": "ci"}}),
    ] {
        let first = raw.ask(revoke(1, &id, &json!({}))).await;
        let asked = &first["result"]["inputRequests"]["person"]["params"];
        assert!(
            asked["message"].as_str().unwrap().contains("revoke the BondMCP API key “ci” (bcp_"),
            "{first}"
        );
        assert_eq!(asked["requestedSchema"]["properties"]["confirm"]["type"], "boolean", "{first}");
        let answer = raw.ask(revoke(2, &id, &said(&first, &no))).await;
        assert!(answer["result"]["content"].to_string().contains("did not confirm"), "{no}: {answer}");
    }
    let yes = json!({"action": "accept", "content": {"confirm": true}});
    // An answer without a state is ignored.
    let forged = raw.ask(revoke(3, &id, &json!({"inputResponses": {"person": yes}}))).await;
    assert_eq!(forged["result"]["resultType"], "input_required", "{forged}");
    // So is an answer for another key, or a repeated one.
    let first = raw.ask(revoke(4, &id, &json!({}))).await;
    let other = raw.ask(revoke(5, "key_other", &said(&first, &yes))).await;
    assert_eq!(other["error"]["code"], -32602, "{other}");
    assert_eq!(sandbox.live_keys(EMAIL).len(), 1);
    let done = raw.ask(revoke(6, &id, &said(&first, &yes))).await;
    assert_ne!(done["result"]["isError"], true, "{done}");
    assert!(sandbox.live_keys(EMAIL).is_empty());
    let again = raw.ask(revoke(7, &id, &said(&first, &yes))).await;
    assert_eq!(again["error"]["code"], -32602, "{again}");
}

#[tokio::test(flavor = "multi_thread")]
async fn older_hosts_are_asked_while_the_call_is_open() {
    let (sandbox, place, id) = with_key().await;
    // An empty declaration means forms (2025-06-18).
    for (version, capabilities) in [("2025-06-18", json!({"elicitation": {}})), ("2025-11-25", forms())] {
        let mut raw = Raw::start(&place);
        raw.initialize_as(version, capabilities).await;
        // The agent's `confirm` does not replace the person's answer.
        let arguments = json!({"action": "revoke", "key_id": id, "confirm": "ci"});
        let asked = raw.ask(call(2, "manage_api_keys", arguments)).await;
        assert_eq!(asked["method"], "elicitation/create", "{asked}");
        assert!(asked["params"]["message"].as_str().unwrap().contains("“ci”"), "{asked}");
        let no = json!({"jsonrpc": "2.0", "id": asked["id"], "result": {"action": "decline"}});
        assert!(raw.ask(no).await.to_string().contains("did not confirm"));
    }
    assert_eq!(sandbox.live_keys(EMAIL).len(), 1);
    let mut raw = Raw::start(&place);
    raw.initialize_as("2025-11-25", forms()).await;
    let asked = raw.ask(call(2, "manage_api_keys", json!({"action": "rotate", "key_id": id}))).await;
    let yes = json!({"jsonrpc": "2.0", "id": asked["id"], "result": {"action": "accept", "content": {"confirm": true}}});
    let done = raw.ask(yes).await;
    assert_eq!(done["result"]["structuredContent"]["keys"][0]["name"], "ci", "{done}");
    assert_ne!(sandbox.live_keys(EMAIL)[0].0, id);
}
