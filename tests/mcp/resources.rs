//! Resources, completions and prompts through rmcp's client.

use std::time::Duration;

use crate::common::{
    EMAIL, Place, Server, in_process_within, like_the_seed,
    raw::{self, Raw, modern},
    sandbox, secrets, serve, signed_in, signed_out, within,
};
use bondmcp_server::{bondmcp::Timing, mcp::Limits, sandbox::Fault};
use rmcp::{
    ServiceExt as _,
    model::{
        ArgumentInfo, ClientRequest, CompleteRequest, CompleteRequestParams, CompleteResult,
        GetPromptRequestParams, ReadResourceRequest, ReadResourceRequestParams, Reference, ResourceContents,
    },
    service::{PeerRequestOptions, ServiceError},
};
use serde_json::{Value, json};

const KEYS: &str = "GET /auth/api-keys";

async fn read(server: &Server, uri: &str) -> Value {
    let result = within(server.client.read_resource(ReadResourceRequestParams::new(uri))).await.unwrap();
    let [ResourceContents::TextResourceContents { text, mime_type, .. }] = &result.contents[..] else {
        panic!("{result:?}")
    };
    assert_eq!(mime_type.as_deref(), Some("application/json"));
    serde_json::from_str(text).unwrap()
}

async fn refusal(server: &Server, uri: &str) -> String {
    let outcome = within(server.client.read_resource(ReadResourceRequestParams::new(uri))).await;
    outcome.unwrap_err().to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_listed_resource_is_what_its_tool_tells() {
    let (_sandbox, place) = signed_in().await;
    let server = Server::start(&place).await;
    let made = server.ok("manage_api_keys", json!({"action": "create", "name": "ci"})).await;
    let listed = server.client.list_all_resources().await.unwrap();
    let uris: Vec<&str> = listed.iter().map(|resource| resource.uri.as_str()).collect();
    assert_eq!(uris, ["bondmcp://models", "bondmcp://account", "bondmcp://usage"]);

    assert_eq!(read(&server, uris[0]).await["models"], server.ok("list_models", json!({})).await["models"]);
    assert_eq!(read(&server, uris[1]).await["email"], EMAIL);
    let usage = read(&server, uris[2]).await;
    assert_eq!(usage["spent"]["total_usd"].as_f64(), Some(0.0));
    assert!(usage["rate_limit"]["remaining"].is_u64());

    let templates = server.client.list_all_resource_templates().await.unwrap();
    assert_eq!(templates[0].uri_template, "bondmcp://keys/{key_id}");
    let id = made["keys"][0]["id"].as_str().unwrap();
    assert_eq!(read(&server, &format!("bondmcp://keys/{id}")).await["name"], "ci");
    // The same for all: what was asked for is not repeated, redacted or not.
    let secret = secrets::text(&place.password).to_owned();
    let first = refusal(&server, "bondmcp://keys/key_none").await;
    assert!(first.contains("no such resource"), "{first}");
    for unknown in
        ["bondmcp://elsewhere", "file:///etc/passwd", "bondmcp://keys/", &format!("bondmcp://{secret}")]
    {
        assert_eq!(refusal(&server, unknown).await, first);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_read_is_the_accounts_own_and_soon_stale() {
    let (_sandbox, place) = signed_in().await;
    let mut raw = Raw::start(&place);
    for (method, params) in [
        ("resources/list", json!({})),
        ("resources/templates/list", json!({})),
        ("resources/read", json!({"uri": "bondmcp://account"})),
    ] {
        let answer = raw.ask(modern(1, method, params)).await;
        assert_eq!(answer["result"]["cacheScope"], "private", "{method} {answer}");
        assert!(answer["result"]["ttlMs"].is_u64(), "{method} {answer}");
    }
    let answer = raw.ask(modern(2, "prompts/list", json!({}))).await;
    assert_eq!(answer["result"]["cacheScope"], "public", "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn results_say_who_answers_where_no_handshake_has() {
    let (_sandbox, place) = signed_in().await;
    let (mut modern, mut older) = (Raw::start(&place), Raw::start(&place));
    older.initialize("2025-11-25").await;
    for (method, params) in [
        ("tools/list", json!({})),
        ("prompts/list", json!({})),
        ("prompts/get", json!({"name": "triage", "arguments": {"symptoms": "headache"}})),
        ("resources/list", json!({})),
        ("resources/templates/list", json!({})),
        ("resources/read", json!({"uri": "bondmcp://account"})),
        (
            "completion/complete",
            json!({"ref": {"type": "ref/prompt", "name": "triage"}, "argument": {"name": "age", "value": "4"}}),
        ),
    ] {
        let request = json!({"jsonrpc": "2.0", "id": 2, "method": method, "params": params});
        let answer = older.ask(request).await;
        assert!(answer["result"].is_object() && answer["result"].get("_meta").is_none(), "{method} {answer}");
        let answer = modern.ask(raw::modern(3, method, params)).await;
        let named = &answer["result"]["_meta"]["io.modelcontextprotocol/serverInfo"]["name"];
        assert_eq!(named, "bondmcp-server", "{method} {answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resource_that_needs_an_account_says_how_to_sign_in() {
    let (_sandbox, place) = signed_out().await;
    let server = Server::start(&place).await;
    assert!(refusal(&server, "bondmcp://models").await.contains(" login`"));
    assert_eq!(read(&server, "bondmcp://account").await["signed_in"], false);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resource_passes_the_guard() {
    let (sandbox, place) = signed_in().await;
    let server = Server::start(&place).await;
    sandbox.faults().always("GET /health-ai/models", Fault::EchoAsAnswer);
    assert!(read(&server, "bondmcp://models").await.to_string().contains("[redacted]"));
    sandbox.faults().always(KEYS, Fault::Echo);
    refusal(&server, "bondmcp://keys/key_any").await;
    let mut planted = sandbox.secrets_issued();
    planted.push(place.password.clone());
    secrets::assert_absent(&planted, &server.end().await, "what the host saw");
}

async fn completed(
    server: &Server,
    reference: Reference,
    name: &str,
    value: &str,
) -> Result<CompleteResult, ServiceError> {
    let argument = ArgumentInfo::new(name, value);
    within(server.client.complete(CompleteRequestParams::new(reference, argument))).await
}

#[tokio::test]
async fn a_read_and_a_completion_end_with_their_request_and_with_the_server() {
    let sandbox = sandbox(like_the_seed()).await;
    let place = Place::new(&sandbox);
    // Nothing else ends them while the test waits.
    let long = Duration::from_mins(5);
    let timing = Timing { request: long, deadline: long, ..Timing::default() };
    let limits = Limits { deadline: long, ..Limits::default() };
    let (server, stopping) = in_process_within(&place, timing, limits);
    let (ours, theirs) = tokio::io::duplex(1 << 16);
    let serving = tokio::spawn(serve(server, ours));
    let client = within(().serve(theirs)).await.unwrap();
    sandbox.faults().always(KEYS, Fault::Hang);
    let read = ReadResourceRequestParams::new("bondmcp://keys/key_1");
    let read = ClientRequest::ReadResourceRequest(ReadResourceRequest::new(read));
    let key_id = Reference::for_resource("bondmcp://keys/{key_id}");
    let complete = CompleteRequestParams::new(key_id, ArgumentInfo::new("key_id", ""));
    let complete = ClientRequest::CompleteRequest(CompleteRequest::new(complete));
    for (count, request, stops) in [(1, read.clone(), false), (2, complete, false), (3, read, true)] {
        let options = PeerRequestOptions::no_options();
        let request = client.send_cancellable_request(request, options).await.unwrap();
        within(sandbox.faults().arrived(KEYS, count)).await;
        if stops {
            stopping.cancel();
            let refused = within(request.await_response()).await.unwrap_err().to_string();
            assert!(refused.contains("the server is stopping"), "{refused}");
        } else {
            request.cancel(None).await.unwrap();
        }
        within(sandbox.faults().abandoned(KEYS, count)).await;
    }
    client.cancel().await.unwrap();
    within(serving).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_arguments_of_prompts_have_no_suggestions() {
    let (_sandbox, place) = signed_in().await;
    let server = Server::start(&place).await;
    let complete =
        async |prompt: &str, name: &str| completed(&server, Reference::for_prompt(prompt), name, "4").await;
    for (prompt, name) in [("triage", "symptoms"), ("triage", "age"), ("medication_review", "conditions")] {
        assert!(complete(prompt, name).await.unwrap().completion.values.is_empty(), "{prompt} {name}");
    }
    complete("triage", "conditions").await.unwrap_err();
    complete("other", "symptoms").await.unwrap_err();
}

#[tokio::test(flavor = "multi_thread")]
async fn key_ids_are_completed_by_the_beginning_of_id_or_name() {
    let (_sandbox, place) = signed_in().await;
    let server = Server::start(&place).await;
    let mut ids = vec![];
    for name in ["laptop", "lab"] {
        let made = server.ok("manage_api_keys", json!({"action": "create", "name": name})).await;
        ids.push(made["keys"][0]["id"].as_str().unwrap().to_owned());
    }
    let complete = async |uri: &str, name: &str, value: &str| {
        completed(&server, Reference::for_resource(uri), name, value).await
    };
    let template = "bondmcp://keys/{key_id}";
    assert_eq!(complete(template, "key_id", "lapt").await.unwrap().completion.values, ids[..1]);
    assert_eq!(complete(template, "key_id", "la").await.unwrap().completion.values.len(), 2);
    assert_eq!(complete(template, "key_id", &ids[1]).await.unwrap().completion.values, ids[1..]);
    assert!(complete(template, "key_id", "other").await.unwrap().completion.values.is_empty());
    complete(template, "name", "").await.unwrap_err();
    complete("bondmcp://models", "key_id", "").await.unwrap_err();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prompt_leads_to_its_tool_with_what_the_person_filled_in() {
    let (_sandbox, place) = signed_in().await;
    let server = Server::start(&place).await;
    let get = async |name: &str, arguments: Value| {
        let request =
            GetPromptRequestParams::new(name).with_arguments(arguments.as_object().unwrap().clone());
        within(server.client.get_prompt(request)).await
    };
    for (name, arguments, tool) in [
        (
            "medication_review",
            json!({"medications": "warfarin 5 mg", "conditions": "fibrillation"}),
            "medication_check",
        ),
        ("triage", json!({"symptoms": "headache since Monday", "age": "44"}), "symptom_assessment"),
    ] {
        let told = serde_json::to_string(&get(name, arguments.clone()).await.unwrap()).unwrap();
        for word in arguments.as_object().unwrap().values().map(|value| value.as_str().unwrap()) {
            assert!(told.contains(word), "{told}");
        }
        assert!(told.contains(tool) && told.contains("not a diagnosis") && told.contains("billed"), "{told}");
        get(name, json!({})).await.unwrap_err();
        get(name, json!({"medications": 7, "symptoms": []})).await.unwrap_err();
        let mut more = arguments;
        more["password"] = "x".into();
        get(name, more).await.unwrap_err();
    }
    get("other", json!({})).await.unwrap_err();
    // Neither left out nor taken for something else.
    for (arguments, named) in [
        (json!({"symptoms": "headache", "age": 4711}), "`age` must be a text"),
        (json!({"symptoms": ["hunter2"]}), "`symptoms` must be a text"),
        (json!({"symptoms": null}), "`symptoms` is missing"),
    ] {
        let refused = get("triage", arguments).await.unwrap_err().to_string();
        assert!(refused.contains("-32602") && refused.contains(named), "{refused}");
        assert!(!refused.contains("4711") && !refused.contains("hunter2"), "{refused}");
    }
    get("triage", json!({"symptoms": "headache", "age": null})).await.unwrap();
    let listed = server.client.list_all_prompts().await.unwrap();
    assert_eq!(
        listed.iter().map(|prompt| prompt.name.as_str()).collect::<Vec<_>>(),
        ["medication_review", "triage"]
    );
}
