//! An upstream that quotes the password and the token in every text, including the names and previews of keys: to hosts
//! with forms and URL elicitation, and to the person at the terminal.
#![allow(clippy::disallowed_types, reason = "a client's own handler takes them")]

use std::{process::Stdio, sync::Arc};

use bondmcp_server::secret::SecretString;
use rmcp::{
    ClientHandler, ErrorData, RoleClient,
    model::{
        ClientCapabilities, ClientConfig, ElicitRequestParams, ElicitResult, ElicitationAction,
        ElicitationCapability, FormElicitationCapability, Implementation, ProtocolVersion,
        ReadResourceRequestParams, UrlElicitationCapability,
    },
    service::{ClientLifecycleMode, ClientServiceExt as _, RequestContext, RunningService},
    transport::{StreamableHttpClientTransport, streamable_http_client::StreamableHttpClientTransportConfig},
};
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::{
    common::{
        EMAIL, Place, Recorded,
        browser::Browser,
        hostile::{ADDITIONAL_KEYS, Hostile},
        like_the_seed, request, run, sandbox, secrets, within,
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
    let hostile =
        Hostile::start(&format!("ci {{token}} {{key}}\n{password} {json} {twice} {hexadecimal}")).await;
    place.base_url.clone_from(&hostile.base_url);
    (hostile, place)
}

fn planted(hostile: &Hostile, place: &Place) -> Vec<SecretString> {
    let mut planted = hostile.issued();
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

/// How a call ends.
#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    /// It works, and nothing of the upstream's is told.
    Works,
    /// It works, and what the upstream quoted is redacted.
    WorksQuoting,
    /// The upstream refuses it, and what it quoted is redacted.
    FailsQuoting,
    /// It fails, and nothing of the upstream's is told.
    Fails,
}
use End::{Fails, FailsQuoting, Works, WorksQuoting};

impl End {
    fn of(works: bool, told: &str) -> Self {
        match (works, told.contains("[redacted]")) {
            (true, false) => Works,
            (true, true) => WorksQuoting,
            (false, true) => FailsQuoting,
            (false, false) => Fails,
        }
    }
}

/// Makes every call that repeats the upstream's texts; returns the messages to the host, one per line.
async fn everything(client: &RunningService<RoleClient, Obliging>, place: &Place) -> String {
    let mut told = Vec::new();
    let key = |action: &str, id: &str| json!({"action": action, "key_id": id});
    let create = || json!({"action": "create", "name": "one"});
    for (tool, arguments, end) in [
        ("list_models", json!({}), WorksQuoting),
        ("auth_status", json!({}), WorksQuoting),
        ("manage_api_keys", json!({ "action": "list" }), WorksQuoting),
        // The session is refreshed: in vain, then with success.
        ("manage_api_keys", key("usage", "key_1"), FailsQuoting),
        ("manage_api_keys", key("usage", "key_1"), WorksQuoting),
        ("manage_api_keys", key("revoke", "key_1"), FailsQuoting),
        ("manage_api_keys", create(), WorksQuoting),
        // The new key works; the old one is not revoked.
        ("manage_api_keys", key("rotate", "key_1"), Fails),
        // The plan allows no more keys.
        ("manage_api_keys", create(), FailsQuoting),
        ("manage_api_keys", key("rotate", "key_2"), WorksQuoting),
        ("manage_api_keys", json!({ "action": "list" }), WorksQuoting),
        ("health_analyze", json!({"prompt": "Why?", "analysis_type": "general"}), WorksQuoting),
        ("login", json!({ "email": secrets::text(&place.password) }), Fails),
    ] {
        told.push(called(client, tool, arguments, end).await);
    }
    for (uri, end) in [
        ("bondmcp://models", WorksQuoting),
        ("bondmcp://account", WorksQuoting),
        ("bondmcp://usage", Works),
        ("bondmcp://keys/key_1", WorksQuoting),
    ] {
        let asked = client.read_resource(ReadResourceRequestParams::new(uri));
        let read = json!({ "result": within(asked).await.unwrap() }).to_string();
        assert_eq!(End::of(true, &read), end, "{uri}: {read}");
        told.push(read);
    }
    told.push(called(client, "logout", json!({}), Works).await);
    let asked = client.service().asked.borrow().clone();
    let about_keys = asked.iter().filter(|question| question.contains("BondMCP API key")).count();
    assert!(asked.len() == 4 && about_keys == 3, "a link and three forms: {asked:?}");
    told.extend(asked);
    told.join("\n")
}

/// Makes a call that ends as expected; returns the message to the host.
async fn called(
    client: &RunningService<RoleClient, Obliging>,
    tool: &'static str,
    arguments: Value,
    end: End,
) -> String {
    let result = within(client.call_tool(request(tool, arguments.clone()))).await.unwrap();
    let told = json!({ "result": result }).to_string();
    assert_eq!(End::of(result.is_error != Some(true), &told), end, "{tool} {}: {told}", arguments["action"]);
    told
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
    assert_eq!(hostile.refreshed_and_created(), (2, ADDITIONAL_KEYS));
    let planted = planted(hostile, place);
    secrets::assert_absent(&planted, told.as_bytes(), "what the host was told");
    secrets::assert_absent_apart(&planted, told.as_bytes());
    secrets::assert_absent(&planted, seen, "what the server wrote");
    secrets::assert_absent_apart(&planted, seen);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_leaves_on_the_terminal() {
    let (hostile, place) = quoting().await;
    let commands: [(&[&str], End); 25] = [
        (&["register", "--password-stdin", EMAIL], WorksQuoting),
        (&["login", "--password-stdin", "grace@example.com"], FailsQuoting),
        (&["login", "--password-stdin", EMAIL], Works),
        (&["register", "--password-stdin", EMAIL], WorksQuoting),
        (&["login", "--password-stdin", "grace@example.com"], FailsQuoting),
        (&["status"], Works),
        (&["status", "--json"], Works),
        (&["status", "--check"], Works),
        (&["doctor"], WorksQuoting),
        (&["doctor", "--json"], WorksQuoting),
        // The session is refreshed: in vain, then with success.
        (&["keys", "usage", "key_1"], FailsQuoting),
        (&["keys", "usage", "key_1"], WorksQuoting),
        (&["keys", "usage", "key_1", "--json"], WorksQuoting),
        (&["keys", "revoke", "key_1", "--yes"], FailsQuoting),
        (&["keys", "create", "one"], WorksQuoting),
        // The new key works; the old one is not revoked.
        (&["keys", "rotate", "key_1", "--yes"], Fails),
        // The plan allows no more keys.
        (&["keys", "create", "two"], FailsQuoting),
        (&["keys", "rotate", "key_2", "--yes"], Works),
        (&["keys", "list"], WorksQuoting),
        (&["keys", "list", "--json"], WorksQuoting),
        // They name the key whose rotation was interrupted.
        (&["status"], WorksQuoting),
        (&["status", "--json"], WorksQuoting),
        (&["doctor"], WorksQuoting),
        (&["audit"], Works),
        (&["audit", "--json"], Works),
    ];
    let mut told = Vec::new();
    for (command, end) in commands {
        let (code, out, log) = run(&mut place.command(command), secrets::text(&place.password)).await;
        assert_eq!(End::of(code == Some(0), &format!("{out}{log}")), end, "{command:?}: {out}{log}");
        told.extend([out, log]);
    }
    assert_eq!(hostile.refreshed_and_created(), (2, ADDITIONAL_KEYS));
    let text = told.join("\n");
    let planted = planted(&hostile, &place);
    secrets::assert_absent(&planted, text.as_bytes(), "the terminal");
    for json in told.iter().map(String::as_str).chain(text.lines()) {
        if let Ok(value) = serde_json::from_str::<Value>(json) {
            secrets::assert_absent_apart(&planted, value.to_string().as_bytes());
        }
    }
}
