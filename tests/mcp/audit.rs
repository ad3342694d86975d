//! The audit log: it records callers, tools and outcomes, and no arguments or results.

use crate::common::{Place, Server, request, secrets, services::ANALYZE, signed_in, within};
use bondmcp_server::sandbox::Fault;
use rmcp::{
    model::{CallToolRequest, ClientRequest},
    service::PeerRequestOptions,
};
use serde_json::{Value, json};

fn file(place: &Place) -> String {
    std::fs::read_to_string(place.data_dir().join("audit.jsonl")).unwrap()
}

fn entries(place: &Place) -> Vec<Value> {
    file(place).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_call_has_its_line_and_nothing_of_its_content() {
    let (sandbox, place) = signed_in().await;
    let server = Server::start(&place).await;
    let made = server.ok("manage_api_keys", json!({"action": "create", "name": "marker-name"})).await;
    let id = made["keys"][0]["id"].as_str().unwrap();
    server.ok("medication_check", json!({"medications": [{"name": "marker-drug"}]})).await;
    server.error("login", json!({ "markerargument": "marker-value" })).await;
    server.call("marker-tool", json!({})).await.unwrap_err();
    server.error("manage_api_keys", json!({"action": "marker-action"})).await;
    server.error("manage_api_keys", json!({"action": "usage", "key_id": "marker-id"})).await;
    sandbox.faults().next("POST /health-ai/analyze", Fault::Status(402));
    server.error("health_analyze", json!({"prompt": "marker-prompt", "analysis_type": "general"})).await;
    let confirm = json!({"action": "revoke", "key_id": id, "confirm": "marker-name"});
    server.ok("manage_api_keys", confirm).await;
    let mut planted = sandbox.secrets_issued();
    planted.push(place.password.clone());
    server.end().await;

    let entries = entries(&place);
    let told: Vec<[&Value; 5]> =
        entries.iter().map(|e| [&e["tool"], &e["action"], &e["outcome"], &e["cost"], &e["key_id"]]).collect();
    let none = Value::Null;
    let expected = [
        [json!("manage_api_keys"), json!("create"), json!("ok"), none.clone(), json!(id)],
        [json!("medication_check"), none.clone(), json!("ok"), json!(0.03), none.clone()],
        [json!("login"), none.clone(), json!("invalid_input"), none.clone(), none.clone()],
        [json!("unknown"), none.clone(), json!("refused"), none.clone(), none.clone()],
        [json!("manage_api_keys"), none.clone(), json!("invalid_input"), none.clone(), none.clone()],
        [json!("manage_api_keys"), json!("usage"), json!("not_found"), none.clone(), none.clone()],
        [json!("health_analyze"), none.clone(), json!("insufficient_credits"), none.clone(), none.clone()],
        [json!("manage_api_keys"), json!("revoke"), json!("ok"), none.clone(), json!(id)],
    ];
    assert_eq!(told, expected.each_ref().map(<[Value; 5]>::each_ref));
    for entry in &entries {
        assert_eq!((&entry["owner"], &entry["host"]), (&json!("default"), &json!("test-host")));
        assert!(entry["time"].is_string() && entry["duration_ms"].is_u64());
    }
    let text = file(&place);
    assert!(!text.contains("marker"), "{text}");
    secrets::assert_absent(&planted, text.as_bytes(), "the audit file");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_that_bondmcp_makes_of_a_secret_is_not_written() {
    let (sandbox, place) = signed_in().await;
    let key = "a-key-of-no-known-shape.0123456789";
    let made = json!({"id": key, "name": "ci", "api_key": key, "is_active": true});
    let server = Server::start(&place).await;
    sandbox.faults().next("POST /auth/api-keys", Fault::Answer(made));
    server.ok("manage_api_keys", json!({"action": "create", "name": "ci"})).await;
    server.end().await;
    assert_eq!(entries(&place)[0]["key_id"], "[redacted]");
    secrets::assert_absent(&[key.into()], file(&place).as_bytes(), "the audit file");
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn the_file_is_for_the_owner_alone() {
    use std::os::unix::fs::PermissionsExt as _;

    let (_sandbox, place) = signed_in().await;
    let server = Server::start(&place).await;
    server.ok("auth_status", json!({})).await;
    server.end().await;
    let path = place.data_dir().join("audit.jsonl");
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    // A log that others can read is not written to, and the calls continue.
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    let server = Server::start(&place).await;
    server.ok("auth_status", json!({})).await;
    let (_, log) = server.end_apart().await;
    assert!(String::from_utf8(log).unwrap().contains("calls continue unaudited"));
    assert_eq!(entries(&place).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn processes_that_write_at_once_write_whole_lines() {
    const CALLS: usize = 100;
    let (_sandbox, place) = signed_in().await;
    let servers = futures_util::future::join_all((0..4).map(|_| Server::start(&place))).await;
    futures_util::future::join_all(servers.iter().map(|server| async {
        for _ in 0..CALLS {
            server.ok("list_models", json!({})).await;
        }
    }))
    .await;
    for server in servers {
        server.end().await;
    }
    assert_eq!(entries(&place).len(), 4 * CALLS);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_prints_the_newest_as_a_table_or_as_json() {
    let (_sandbox, place) = signed_in().await;
    let (code, told, _) = place.run(&["audit"]).await;
    assert_eq!((code, told.as_str()), (Some(0), "No tool has been called yet.\n"));
    let server = Server::start(&place).await;
    server.ok("auth_status", json!({})).await;
    server.ok("clinical_data_extraction", json!({"clinical_text": "BP 120/80"})).await;
    server.ok("manage_api_keys", json!({ "action": "list" })).await;
    server.end().await;
    let (_, table, _) = place.run(&["audit", "--lines", "2"]).await;
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines.len(), 4, "{table}");
    assert_eq!(lines[3], "3 entries, the newest 2 shown; cost $0.08");
    assert!(lines[0].starts_with("TIME (UTC)") && lines[1].contains("clinical_data_extraction"), "{table}");
    assert!(lines[1].contains("$0.08") && lines[2].contains("manage_api_keys list"), "{table}");
    let (_, json, _) = place.run(&["audit", "--json"]).await;
    let tools: Vec<Value> =
        json.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["tool"].take()).collect();
    assert_eq!(tools, ["auth_status", "clinical_data_extraction", "manage_api_keys"]);
}

fn question() -> Value {
    json!({"prompt": "Why?", "analysis_type": "general"})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_billed_answer_is_possibly_billed() {
    let (sandbox, place) = signed_in().await;
    let server = Server::start(&place).await;
    for fault in [Fault::Drop, Fault::DropMidBody, Fault::Status(500), Fault::Status(402)] {
        sandbox.faults().next(ANALYZE, fault);
        server.error("health_analyze", question()).await;
    }
    server.end().await;
    let entries = entries(&place);
    let billed: Vec<bool> = entries.iter().map(|entry| entry["possibly_billed"] == true).collect();
    assert_eq!(billed, [true, true, true, false], "{entries:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_is_cancelled_before_it_is_sent_is_not_possibly_billed() {
    let (sandbox, place) = signed_in().await;
    let server = Server::start(&place).await;
    server.ok("list_models", json!({})).await;
    let before = sandbox.count("POST /auth/login");
    // The token is refused, which bills nothing, and the log-in does not come to an end.
    sandbox.expire_tokens();
    sandbox.faults().always("POST /auth/login", Fault::Hold);
    let call = ClientRequest::CallToolRequest(CallToolRequest::new(request("health_analyze", question())));
    let call = within(server.client.send_cancellable_request(call, PeerRequestOptions::no_options()));
    let call = call.await.unwrap();
    within(sandbox.faults().arrived("POST /auth/login", before + 1)).await;
    call.cancel(None).await.unwrap();
    let spent = server.ok("auth_status", json!({})).await["spent"].clone();
    assert_eq!(spent["by_tool"], json!({}), "{spent}");
    sandbox.faults().release();
    server.end().await;
    let line = entries(&place).into_iter().find(|entry| entry["tool"] == "health_analyze").unwrap();
    assert_eq!((&line["outcome"], line.get("possibly_billed")), (&json!("cancelled"), None));
}
