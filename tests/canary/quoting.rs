//! An upstream that quotes the password and the token in every text, including the names and previews of keys: to hosts
//! with forms and URL elicitation, and to the person at the terminal.
#![allow(clippy::disallowed_types, reason = "a client's own handler takes them")]

use std::{process::Stdio, sync::Arc};

use bondmcp_server::secret::SecretString;
use rmcp::{
    ClientHandler, ErrorData, RoleClient, ServiceError,
    model::{
        ClientCapabilities, ClientConfig, ElicitRequestParams, ElicitResult, ElicitationAction,
        ElicitationCapability, FormElicitationCapability, Implementation, ProtocolVersion,
        ReadResourceRequestParams, UrlElicitationCapability,
    },
    service::{ClientLifecycleMode, ClientServiceExt as _, RequestContext, RunningService},
    transport::{StreamableHttpClientTransport, streamable_http_client::StreamableHttpClientTransportConfig},
};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::{
    common::{
        Place, Recorded, browser::Browser, hostile::Hostile, like_the_seed, request, sandbox, secrets, within,
    },
    hosts::{Host, HttpServer},
};

/// An upstream that quotes in several encodings, and a place that is not signed in.
async fn quoting() -> (Hostile, Place) {
    // Only the hostile upstream's account is used; the sandbox is needed to create a place.
    let sandbox = sandbox(like_the_seed()).await;
    let mut place = Place::new(&sandbox);
    let password = secrets::text(&place.password);
    let json = serde_json::to_string(password).unwrap();
    let twice = serde_json::to_string(&json).unwrap();
    let hexadecimal: String = password
        .chars()
        .flat_map(|c| format!("&#x{:x};", u32::from(c)).into_bytes())
        .map(char::from)
        .collect();
    let hostile = Hostile::start(&format!("ci {{token}}\n{password} {json} {twice} {hexadecimal}")).await;
    place.base_url.clone_from(&hostile.base_url);
    (hostile, place)
}

fn planted(hostile: &Hostile, place: &Place) -> Vec<SecretString> {
    let mut planted = hostile.tokens();
    assert!(!planted.is_empty());
    planted.extend([place.password.clone(), place.sealing_key.clone()]);
    planted
}

/// A host with forms and URL elicitation, whose person signs in and confirms everything.
struct Obliging {
    password: SecretString,
    asked: Arc<watch::Sender<Vec<String>>>,
}

impl ClientHandler for Obliging {
    fn get_info(&self) -> ClientConfig {
        let mut capabilities = ClientCapabilities::default();
        let elicitation = ElicitationCapability::new()
            .with_url(UrlElicitationCapability::new())
            .with_form(FormElicitationCapability::new());
        capabilities.elicitation = Some(elicitation);
        ClientConfig::new(capabilities, Implementation::new("a-host-of-the-tests", "1"))
            .with_protocol_version(ProtocolVersion::V_2025_11_25)
    }

    async fn create_elicitation(
        &self,
        question: ElicitRequestParams,
        _: RequestContext<RoleClient>,
    ) -> Result<ElicitResult, ErrorData> {
        self.asked.send_modify(|asked| asked.push(serde_json::to_string(&question).unwrap()));
        let answer = ElicitResult::new(ElicitationAction::Accept);
        match question {
            ElicitRequestParams::UrlElicitationParams { url, .. } => {
                Browser::open(&url).await.sign_in(&self.password).await;
                Ok(answer)
            }
            _ => Ok(answer.with_content(json!({ "confirm": true }))),
        }
    }
}

impl Obliging {
    fn of(place: &Place) -> Self {
        Self { password: place.password.clone(), asked: Arc::new(watch::Sender::new(Vec::new())) }
    }
}

fn lifecycles() -> [ClientLifecycleMode; 2] {
    let preferred_versions = vec![ProtocolVersion::V_2026_07_28];
    [ClientLifecycleMode::Initialize, ClientLifecycleMode::Discover { preferred_versions }]
}

/// Makes every call that repeats the upstream's texts; returns the messages to the host, one per line.
async fn everything(client: &RunningService<RoleClient, Obliging>, place: &Place) -> String {
    fn noted<T: Serialize>(answer: Result<T, ServiceError>) -> String {
        match answer {
            Ok(result) => json!({ "result": result }).to_string(),
            Err(error) => error.to_string(),
        }
    }
    let mut told = Vec::new();
    let key = |action: &str| json!({"action": action, "key_id": "key_1"});
    for (tool, arguments) in [
        ("list_models", json!({})),
        ("auth_status", json!({})),
        ("manage_api_keys", json!({ "action": "list" })),
        ("manage_api_keys", key("usage")),
        ("manage_api_keys", key("revoke")),
        ("manage_api_keys", key("rotate")),
        ("manage_api_keys", json!({"action": "create", "name": "one"})),
        ("health_analyze", json!({"prompt": "Why?", "analysis_type": "general"})),
        ("login", json!({ "email": secrets::text(&place.password) })),
        ("logout", json!({})),
    ] {
        told.push(noted(within(client.call_tool(request(tool, arguments))).await));
    }
    for uri in ["bondmcp://models", "bondmcp://account", "bondmcp://spending", "bondmcp://keys/key_1"] {
        told.push(noted(within(client.read_resource(ReadResourceRequestParams::new(uri))).await));
    }
    let asked = client.service().asked.borrow().clone();
    let about_keys = asked.iter().filter(|question| question.contains("BondMCP API key")).count();
    assert!(asked.len() == 3 && about_keys == 2, "a link and two forms: {asked:?}");
    told.extend(asked);
    told.join("\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_leaves_over_stdio_to_a_host_with_forms_and_links_in_either_revision() {
    for lifecycle in lifecycles() {
        let (hostile, place) = quoting().await;
        let mut command = place.command(&["--log", "trace", "stdio"]);
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let seen = Arc::default();
        let output = Recorded { input: child.stdout.take().unwrap(), seen: Arc::clone(&seen) };
        let mut log = Recorded { input: child.stderr.take().unwrap(), seen: Arc::clone(&seen) };
        let log = tokio::spawn(async move { tokio::io::copy(&mut log, &mut tokio::io::sink()).await });
        let transport = (output, child.stdin.take().unwrap());
        let serving = Obliging::of(&place).serve_with_lifecycle(transport, lifecycle);
        let client = within(serving).await.unwrap();
        let told = everything(&client, &place).await;
        within(client.cancel()).await.unwrap();
        assert!(within(child.wait()).await.unwrap().success());
        log.await.unwrap().unwrap();
        let seen = seen.lock().unwrap().clone();
        assert_nothing_quoted(&hostile, &place, &told, &seen);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_leaves_over_http_to_a_host_with_forms_and_links_in_either_revision() {
    for lifecycle in lifecycles() {
        let (hostile, place) = quoting().await;
        let server = HttpServer::start(&place).await;
        let config = StreamableHttpClientTransportConfig::with_uri(server.url.as_str())
            .auth_header(secrets::text(&server.token));
        let transport = StreamableHttpClientTransport::from_config(config);
        let serving = Obliging::of(&place).serve_with_lifecycle(transport, lifecycle);
        let client = within(serving).await.unwrap();
        let told = everything(&client, &place).await;
        within(client.cancel()).await.unwrap();
        let log = Host::Http(server).end().await;
        assert_nothing_quoted(&hostile, &place, &told, &log);
    }
}

fn assert_nothing_quoted(hostile: &Hostile, place: &Place, told: &str, seen: &[u8]) {
    assert!(told.contains("[redacted]"), "{told}");
    let planted = planted(hostile, place);
    secrets::assert_absent(&planted, told.as_bytes(), "what the host was told");
    secrets::assert_absent_apart(&planted, told.as_bytes());
    secrets::assert_absent(&planted, seen, "what the server wrote");
    secrets::assert_absent_apart(&planted, seen);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_leaves_on_the_terminal() {
    let (hostile, place) = quoting().await;
    place.sign_in().await;
    let commands: [&[&str]; 12] = [
        &["status"],
        &["status", "--json"],
        &["status", "--check"],
        &["doctor"],
        &["doctor", "--json"],
        &["keys", "list"],
        &["keys", "list", "--json"],
        &["keys", "usage", "key_1"],
        &["keys", "usage", "key_1", "--json"],
        &["keys", "revoke", "key_1", "--yes"],
        &["audit"],
        &["audit", "--json"],
    ];
    let mut told = Vec::new();
    for command in commands {
        let (_, out, log) = place.run(command).await;
        told.extend([out, log]);
    }
    let text = told.join("\n");
    assert!(text.contains("key_1") && text.contains("ci [redacted]"), "{text}");
    let planted = planted(&hostile, &place);
    secrets::assert_absent(&planted, text.as_bytes(), "the terminal");
    for json in told.iter().map(String::as_str).chain(text.lines()) {
        if let Ok(value) = serde_json::from_str::<Value>(json) {
            secrets::assert_absent_apart(&planted, value.to_string().as_bytes());
        }
    }
}
