//! What single hosts need, each seen with the host itself in `tests/hosts`.
#![allow(clippy::disallowed_types, reason = "this is the host's side")]

use crate::common::{
    Server,
    browser::{Browser, text},
    error_of,
    fast_time::fast,
    in_process_with_page,
    raw::{Raw, call, initialize, modern, modern_as},
    request, services, signed_in, signed_out,
};
use bondmcp_server::mcp::Limits;
use rmcp::{
    ClientHandler, RoleClient,
    model::{
        ClientCapabilities, ClientConfig, ElicitRequestParams, ElicitResult, ElicitationAction,
        ElicitationCapability, Implementation, ProtocolVersion, UrlElicitationCapability,
    },
    service::{ClientLifecycleMode, ClientServiceExt as _, RequestContext},
};
use serde_json::{Value, json};

fn text_of(answer: &Value) -> &str {
    answer["result"]["content"][0]["text"].as_str().unwrap()
}

fn links() -> Value {
    json!({"elicitation": {"url": {}}})
}

/// `list_models` of a 2026-07-28 host with this name, in a round that answers `previous` with `action`.
fn round(id: u32, host: &str, previous: Option<(&Value, &str)>) -> Value {
    let mut params = json!({"name": "list_models", "arguments": {}});
    if let Some((previous, action)) = previous {
        params["requestState"] = previous["result"]["requestState"].clone();
        params["inputResponses"] = json!({"person": {"action": action}});
    }
    let mut request = modern_as(id, "tools/call", params, links());
    request["params"]["_meta"]["io.modelcontextprotocol/clientInfo"] = json!({"name": host, "version": "1"});
    request
}

fn question(asked: &Value) -> &Value {
    assert_eq!(asked["result"]["resultType"], "input_required", "{asked}");
    &asked["result"]["inputRequests"]["person"]["params"]
}

/// Initializes as a host of 2025-06-18 with this name.
async fn initialize_as(raw: &mut Raw, host: &str, capabilities: Value) {
    let mut request = initialize("2025-06-18", capabilities);
    request["params"]["clientInfo"]["name"] = host.into();
    raw.ask(request).await;
    raw.send(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"}).to_string()).await;
}

/// Gemini CLI takes a text that is JSON for the structured result, holds it against the output schema, and hides it.
#[tokio::test(flavor = "multi_thread")]
async fn the_text_of_a_failure_is_a_sentence_before_it_is_json() {
    let (_sandbox, place) = signed_out().await;
    let mut raw = Raw::start(&place);
    raw.initialize("2025-06-18").await;
    for (tool, arguments) in
        [("list_models", json!({})), ("login", json!({"password": "x"})), ("manage_api_keys", json!({}))]
    {
        let answer = raw.ask(call(2, tool, arguments)).await;
        assert_eq!(answer["result"]["isError"], true, "{answer}");
        assert!(answer["result"].get("structuredContent").is_none(), "{answer}");
        let text = text_of(&answer);
        assert!(serde_json::from_str::<Value>(text).is_err(), "{text}");
        let (sentence, json) = text.split_once('\n').unwrap();
        let report: Value = serde_json::from_str(json).unwrap();
        assert_eq!(report["error"]["message"], sentence);
        assert!(report["error"]["kind"].is_string() && report["error"]["solution"].is_string(), "{json}");
    }
}

/// Claude Code cuts a question at the width of the terminal.
#[tokio::test(flavor = "multi_thread")]
async fn the_first_words_of_the_question_are_the_code_on_the_page() {
    let (_sandbox, place) = signed_out().await;
    let mut raw = Raw::start(&place);
    let asked = raw.ask(round(1, "a-host", None)).await;
    let message = question(&asked)["message"].as_str().unwrap();
    let (code, _) = message.strip_prefix("Code ").unwrap().split_once(':').unwrap();
    let page = reqwest::get(question(&asked)["url"].as_str().unwrap()).await.unwrap();
    assert!(text(page).await.contains(code), "{message}");
}

/// Claude Code answers when the person says that they are done, and shows the link no longer.
#[tokio::test(flavor = "multi_thread")]
async fn a_person_who_is_done_too_early_is_asked_again_with_the_link() {
    let (_sandbox, place) = signed_out().await;
    let mut raw = Raw::start(&place);
    let first = raw.ask(round(1, "claude-code", None)).await;
    let again = raw.ask(round(2, "claude-code", Some((&first, "accept")))).await;
    assert_eq!(question(&again)["url"], question(&first)["url"]);
    let message = question(&again)["message"].as_str().unwrap();
    assert!(message.starts_with("Code ") && message.contains("not signed in"), "{message}");
    let url = question(&again)["url"].as_str().unwrap();
    Browser::open(url).await.sign_in(&place.password).await;
    let done = raw.ask(round(3, "claude-code", Some((&again, "accept")))).await;
    assert_eq!(done["result"]["structuredContent"]["count"], 3, "{done}");
}

/// A host whose person says at once that they are done with each page.
struct Hasty;

impl ClientHandler for Hasty {
    fn get_info(&self) -> ClientConfig {
        let url = ElicitationCapability::new().with_url(UrlElicitationCapability::new());
        let mut capabilities = ClientCapabilities::default();
        capabilities.elicitation = Some(url);
        ClientConfig::new(capabilities, Implementation::new("claude-code", "1"))
    }

    async fn create_elicitation(
        &self,
        _: ElicitRequestParams,
        _: RequestContext<RoleClient>,
    ) -> Result<ElicitResult, rmcp::ErrorData> {
        Ok(ElicitResult::new(ElicitationAction::Accept))
    }
}

/// Hosts give up after ten rounds, in words of their own.
#[tokio::test]
async fn a_person_who_is_never_done_leaves_the_agent_with_the_link() {
    let (_sandbox, place) = signed_out().await;
    let (server, stopping) = in_process_with_page(&place, Limits::default());
    let result = fast(async move {
        let (ours, theirs) = tokio::io::duplex(1 << 16);
        let serving = tokio::spawn(crate::common::serve(server, ours));
        let modern =
            ClientLifecycleMode::Discover { preferred_versions: vec![ProtocolVersion::V_2026_07_28] };
        let client = Hasty.serve_with_lifecycle(theirs, modern).await.unwrap();
        let result = client.call_tool(request("list_models", json!({}))).await.unwrap();
        client.cancel().await.unwrap();
        stopping.cancel();
        serving.await.unwrap().unwrap();
        result
    });
    let error = error_of(&result.await);
    assert_eq!(error["kind"], "sign_in_required");
    assert!(error["solution"].as_str().unwrap().contains("Give the person this link"), "{error}");
}

/// The Inspector's page answers when it hears that the page is done.
#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_waits_for_the_completion_to_answer_hears_of_it() {
    let (_sandbox, place) = signed_out().await;
    let mut raw = Raw::start(&place);
    raw.initialize_as("2025-11-25", links()).await;
    let asked = raw.ask(call(2, "list_models", json!({}))).await;
    let url = asked["params"]["url"].as_str().unwrap();
    let page = text(Browser::open(url).await.sign_in(&place.password).await).await;
    assert!(page.contains("You are signed in"), "{page}");
    let complete = raw.next().await;
    assert_eq!(complete["method"], "notifications/elicitation/complete");
    assert_eq!(complete["params"]["elicitationId"], asked["params"]["elicitationId"]);
    // Then the question is taken back, for hosts that do not know the notification.
    let taken_back = raw.next().await;
    assert_eq!(taken_back["params"]["requestId"], asked["id"], "{taken_back}");
    assert_eq!(raw.next().await["result"]["structuredContent"]["count"], 3);
}

/// Codex declares links and speaks 2025-06-18, which has none.
#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_declares_links_is_asked_whatever_revision_it_speaks() {
    let (_sandbox, place) = signed_out().await;
    let mut raw = Raw::start(&place);
    initialize_as(&mut raw, "codex-mcp-client", json!({"elicitation": {"form": {}, "url": {}}})).await;
    let asked = raw.ask(call(2, "list_models", json!({}))).await;
    assert_eq!((&asked["method"], &asked["params"]["mode"]), (&json!("elicitation/create"), &json!("url")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_may_end_with_its_answer_is_told_the_command_first() {
    let (_sandbox, place) = signed_out().await;
    for (host, is_one_shot) in [("gemini-cli-mcp-client", true), ("mcp", true), ("cursor-vscode", false)] {
        let mut raw = Raw::start(&place);
        initialize_as(&mut raw, host, json!({})).await;
        for tool in ["list_models", "login", "register"] {
            let answer = raw.ask(call(2, tool, json!({}))).await;
            let text = text_of(&answer);
            let (link, command) = (text.find("in a browser").unwrap(), text.find("in a terminal").unwrap());
            assert_eq!(command < link, is_one_shot, "{host} {tool}: {text}");
            assert!(text.to_lowercase().contains("as long as this host runs"), "{text}");
        }
        assert_eq!(raw.end().await, Some(0));
    }
}

/// Gemini CLI's model orders calls with it.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_host_adds_to_a_call_is_ignored_and_named() {
    let (sandbox, place) = signed_in().await;
    let server = Server::start(&place).await;
    let (tool, endpoint, arguments, _) = services::SERVICES[1];
    let mut arguments = arguments();
    arguments["wait_for_previous"] = true.into();
    let answer = server.ok(tool, arguments).await;
    assert_eq!(answer["ignored_arguments"], json!(["wait_for_previous"]));
    assert_eq!(sandbox.count(endpoint), 1);
    assert!(server.ok("list_models", json!({})).await.get("ignored_arguments").is_none());
    // Nothing else is ignored, and only what may be a secret is warned of.
    for (name, is_warned_of) in [("wait_for_next", false), ("apiKey", true)] {
        let refused = server.error("list_models", json!({name: "hunter2"})).await;
        assert_eq!(refused["kind"], "invalid_input");
        let solution = refused["solution"].as_str().unwrap();
        assert_eq!(solution.contains("Never put a password"), is_warned_of, "{solution}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hints_for_caches_are_given_where_the_revision_knows_them() {
    let (_sandbox, place) = signed_in().await;
    let (mut old, mut new) = (Raw::start(&place), Raw::start(&place));
    old.initialize("2025-11-25").await;
    for (method, params) in [
        ("tools/list", json!({})),
        ("prompts/list", json!({})),
        ("resources/list", json!({})),
        ("resources/templates/list", json!({})),
        ("resources/read", json!({"uri": "bondmcp://account"})),
    ] {
        let answer = old.ask(json!({"jsonrpc": "2.0", "id": 2, "method": method, "params": params})).await;
        assert!(answer["result"].is_object(), "{answer}");
        for hint in ["ttlMs", "cacheScope"] {
            assert!(answer["result"].get(hint).is_none(), "{method}: {hint}");
        }
        let answer = new.ask(modern(2, method, params)).await;
        assert!(answer["result"]["ttlMs"].is_u64() && answer["result"]["cacheScope"].is_string(), "{answer}");
    }
}

/// Qwen Code compares the text with the structured result as JavaScript writes it.
#[tokio::test(flavor = "multi_thread")]
async fn whole_numbers_are_written_as_javascript_writes_them() {
    let (_sandbox, place) = signed_in().await;
    let mut raw = Raw::start(&place);
    raw.initialize("2025-11-25").await;
    let (tool, _, arguments, _) = services::SERVICES[0];
    for (tool, arguments) in [("auth_status", json!({})), (tool, arguments())] {
        let answer = raw.ask(call(2, tool, arguments)).await;
        let text = text_of(&answer);
        assert!(text.contains(r#""total_usd":0}"#) || text.contains(r#""risk_score":76,"#), "{text}");
        assert_eq!(serde_json::from_str::<Value>(text).unwrap(), answer["result"]["structuredContent"]);
    }
}

/// A host without a terminal answers the form for the person.
#[tokio::test(flavor = "multi_thread")]
async fn a_confirmation_that_nobody_gives_leaves_the_command() {
    let (_sandbox, place) = signed_in().await;
    let (code, _, told) = place.run(&["keys", "create", "--name", "ci"]).await;
    assert_eq!(code, Some(0), "{told}");
    let id = place.keys().await["keys"][0]["id"].as_str().unwrap().to_owned();
    let mut raw = Raw::start(&place);
    raw.initialize_as("2025-11-25", json!({"elicitation": {"form": {}}})).await;
    let asked = raw.ask(call(2, "manage_api_keys", json!({"action": "revoke", "key_id": id}))).await;
    let answer = json!({"jsonrpc": "2.0", "id": asked["id"], "result": {"action": "cancel"}});
    let told = raw.ask(answer).await;
    assert!(text_of(&told).contains(&format!("keys revoke {id}` in a terminal")), "{told}");
    assert_eq!(place.keys().await["keys"].as_array().unwrap().len(), 1);
}
