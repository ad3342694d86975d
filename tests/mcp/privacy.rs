//! Health data is private: the arguments and results of a whole session are in neither the log at `trace`, the audit
//! log, the server's own resources nor the vault.

use crate::common::{Place, Server, services::SERVICES, signed_in};
use bondmcp_server::sandbox::Fault;
use rmcp::model::{GetPromptRequestParams, ReadResourceRequestParams};
use serde_json::{Value, json};

/// A marker in every argument; the sandbox's answers quote the arguments.
const MARKER: &str = "Zebrafish";

fn marked(value: Value) -> Value {
    match value {
        Value::String(text) => format!("{text} {MARKER}").into(),
        Value::Array(items) => items.into_iter().map(marked).collect(),
        Value::Object(fields) => {
            let plain = ["analysis_type", "severity", "gender", "patient_gender", "blood_pressure"];
            let fields = fields.into_iter().map(|(name, value)| {
                let value = if plain.contains(&name.as_str()) { value } else { marked(value) };
                (name, value)
            });
            Value::Object(fields.collect())
        }
        other => other,
    }
}

fn assert_unmarked(bytes: &[u8], place: &str) {
    let text = String::from_utf8_lossy(bytes).to_lowercase();
    let marker = MARKER.to_lowercase();
    assert!(!text.contains(&marker), "health data stands in {place}: {text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_a_session_is_kept_or_logged() {
    let (sandbox, place) = signed_in().await;
    let server = Server::start(&place).await;
    for (tool, endpoint, arguments, _) in SERVICES {
        let arguments = marked(arguments());
        assert!(arguments.to_string().contains(MARKER), "{arguments}");
        server.ok(tool, arguments.clone()).await;
        for fault in
            [Fault::Echo, Fault::EchoAsAnswer, Fault::Status(500), Fault::Html(502), Fault::DropMidBody]
        {
            sandbox.faults().next(endpoint, fault);
            server.call(tool, arguments.clone()).await.unwrap();
            // A successful call, so that the circuit stays closed.
            server.ok("list_models", json!({ "refresh": true })).await;
        }
        let mut wrong = arguments;
        wrong[MARKER] = MARKER.into();
        server.error(tool, wrong).await;
    }
    let prompt = json!({ "symptoms": format!("an itch {MARKER}") });
    let prompt = GetPromptRequestParams::new("triage").with_arguments(prompt.as_object().unwrap().clone());
    server.client.get_prompt(prompt).await.unwrap();
    server.client.read_resource(ReadResourceRequestParams::new(MARKER)).await.unwrap_err();

    let mut about_itself = server.ok("auth_status", json!({})).await.to_string();
    for uri in ["bondmcp://usage", "bondmcp://account"] {
        let read = server.client.read_resource(ReadResourceRequestParams::new(uri)).await.unwrap();
        about_itself.push_str(&serde_json::to_string(&read).unwrap());
    }
    assert!(about_itself.contains("medication_check"), "{about_itself}");
    assert_unmarked(about_itself.as_bytes(), "what the server tells about itself");

    let (seen, log) = server.end_apart().await;
    assert!(String::from_utf8(seen).unwrap().contains(MARKER), "the host was answered");
    assert!(String::from_utf8_lossy(&log).contains("tool call"));
    assert_unmarked(&log, "the log");
    let files = crate::common::files(place.directory.path());
    assert!(files.iter().any(|(path, _)| path.ends_with("audit.jsonl")));
    for (path, bytes) in files {
        assert_unmarked(&bytes, &path.display().to_string());
    }
    assert_unmarked(&vault_record(&place).await, "the vault's record");
}

/// Returns the account's decrypted record.
async fn vault_record(place: &Place) -> Vec<u8> {
    let record = place.vault().await.read(&place.account_record_id()).await.unwrap().unwrap();
    let record = record.plaintext.to_vec();
    assert!(String::from_utf8_lossy(&record).contains(crate::common::EMAIL));
    record
}
