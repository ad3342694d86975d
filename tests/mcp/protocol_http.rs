//! MCP over HTTP on the real router: authorization, refused requests, and both protocol revisions.

use std::{net::SocketAddr, time::Duration};

use crate::common::{
    EMAIL, Place, browser::json_of, fast_time::fast, in_process, in_process_within, like_the_seed, sandbox,
    within,
};
use bondmcp_server::{
    account::Owner,
    bondmcp::Timing,
    config::Profile,
    listener::Workers,
    mcp::{BondMcp, Limits},
    sandbox::{Fault, RunningSandbox},
    transport::http::{self, Authentication, MAX_BODY_BYTES, Protection},
};
use reqwest::{RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};
use tokio_util::sync::CancellationToken;

const TOKEN: &str = "the-token-of-this-test";

/// The default profile is the owner of what carries the token.
fn protection() -> Protection {
    let owner = Owner::Profile(Profile::default());
    Protection::new(Authentication::Tokens(vec![(TOKEN.into(), owner)]))
}

/// The router on a port of its own, signed in; it stops when this is dropped.
struct Http {
    address: SocketAddr,
    stopping: CancellationToken,
    client: reqwest::Client,
    _place: Place,
    sandbox: RunningSandbox,
}

impl Drop for Http {
    fn drop(&mut self) {
        self.stopping.cancel();
    }
}

impl Http {
    async fn start(protection: Protection) -> Self {
        let sandbox = sandbox(like_the_seed()).await;
        let place = Place::new(&sandbox);
        let (server, stopping) = in_process(&place, Timing::default());
        Self::serve(sandbox, place, protection, server, stopping).await
    }

    async fn serve(
        sandbox: RunningSandbox,
        place: Place,
        protection: Protection,
        server: BondMcp,
        stopping: CancellationToken,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = http::router(&server, protection, &stopping);
        tokio::spawn(http::serve(listener, router, Workers::current(), stopping.clone()));
        Self { address, stopping, client: reqwest::Client::new(), _place: place, sandbox }
    }

    async fn open() -> Self {
        Self::start(protection()).await
    }

    /// A POST to `/mcp` without a token.
    fn bare(&self, body: &Value) -> RequestBuilder {
        self.client
            .post(format!("http://{}/mcp", self.address))
            .header("accept", "application/json, text/event-stream")
            .header("content-type", "application/json")
            .body(body.to_string())
    }

    fn post(&self, body: &Value) -> RequestBuilder {
        self.bare(body).bearer_auth(TOKEN)
    }

    /// A request of 2026-07-28.
    fn modern(&self, method: &str, name: Option<&str>, mut params: Value) -> RequestBuilder {
        params["_meta"]["io.modelcontextprotocol/protocolVersion"] = json!("2026-07-28");
        params["_meta"]["io.modelcontextprotocol/clientCapabilities"] = json!({});
        let body = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
        let request =
            self.post(&body).header("mcp-protocol-version", "2026-07-28").header("mcp-method", method);
        match name {
            Some(name) => request.header("mcp-name", name),
            None => request,
        }
    }

    async fn initialize(&self) -> Response {
        let body = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
            "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "raw", "version": "1"}}});
        send(self.post(&body)).await
    }

    /// A connection whose request has a body that never ends; the server is reading it.
    async fn endless_body(&self) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let head = format!(
            "POST /mcp HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {TOKEN}\r\nContent-Length: 100\r\n\
             Content-Type: application/json\r\nAccept: application/json, text/event-stream\r\n\
             Expect: 100-continue\r\n\r\n",
            self.address
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        assert!(head_of(&mut stream).await.starts_with("HTTP/1.1 100 "));
        stream
    }
}

/// Reads the next response head.
async fn head_of(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

async fn send(request: RequestBuilder) -> Response {
    within(request.send()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_without_the_token_is_challenged() {
    let http = Http::open().await;
    let list = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list"});
    for request in [
        http.bare(&list),
        http.bare(&list).bearer_auth("the-token-of-this-tesT"),
        http.bare(&list).bearer_auth(""),
        http.bare(&list).basic_auth(TOKEN, None::<&str>),
        http.client.get(format!("http://{}/mcp", http.address)),
        http.client.post(format!("http://{}/mcp?access_token={TOKEN}", http.address)).body(list.to_string()),
        http.client.delete(format!("http://{}/mcp", http.address)),
    ] {
        let response = send(request).await;
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
        assert!(response.headers()["www-authenticate"].to_str().unwrap().starts_with("Bearer realm="));
        assert!(!within(response.text()).await.unwrap().contains(TOKEN));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_origin_or_host_is_refused() {
    let http = Http::open().await;
    let list = || http.modern("tools/list", None, json!({}));
    assert_eq!(send(list()).await.status(), StatusCode::OK);
    let origins = ["https://evil.example", "null", "http://127.0.0.1:1"].map(|origin| ("origin", origin));
    let hosts = ["evil.example", "127.0.0.1.evil.example", "evil.example:80"].map(|host| ("host", host));
    for (header, value) in origins.into_iter().chain(hosts) {
        let refused = send(list().header(header, value)).await;
        assert_eq!(refused.status(), StatusCode::FORBIDDEN, "{value}");
        let told = json_of(refused).await.to_string();
        assert!(told.contains(&format!("`--allow-{header}`")) && !told.contains("evil"), "{told}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_named_origin_and_host_are_served() {
    let mut protection = protection();
    protection.allowed_hosts = vec!["mcp.example".to_owned()];
    protection.allowed_origins = vec!["https://app.example:443".to_owned()];
    let http = Http::start(protection).await;
    let request = http.modern("tools/list", None, json!({}));
    let response = send(request.header("host", "mcp.example").header("origin", "https://app.example")).await;
    assert_eq!(response.status(), StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stateless_request_gets_plain_json_and_no_session() {
    let http = Http::open().await;
    let call = json!({"name": "list_models", "arguments": {}});
    let response = send(http.modern("tools/call", Some("list_models"), call)).await;
    assert_eq!(response.headers()["content-type"], "application/json");
    assert!(response.headers().get("mcp-session-id").is_none());
    assert_eq!(json_of(response).await["result"]["structuredContent"]["count"], 3);
    let discovered = json_of(send(http.modern("server/discover", None, json!({}))).await).await;
    let identity = &discovered["result"]["_meta"]["io.modelcontextprotocol/serverInfo"];
    assert_eq!(identity["name"], "bondmcp-server");
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_that_contradict_the_body_are_refused() {
    let http = Http::open().await;
    let call = json!({"name": "logout", "arguments": {}});
    let response = send(http.modern("tools/call", Some("list_models"), call)).await;
    assert_eq!(response.status(), StatusCode::BAD_REQUEST);
    let error = json_of(response).await["error"].take();
    assert_eq!(error["code"], -32020);
    let message = error["message"].as_str().unwrap();
    assert!(!message.contains("logout") && !message.contains("list_models"), "{message}");
}

/// A text that is redacted where a guess is right would tell that it is.
#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_quotes_neither_headers_nor_the_body() {
    let http = Http::open().await;
    let session = http.initialize().await.headers()["mcp-session-id"].to_str().unwrap().to_owned();
    let list = json!({"jsonrpc": "2.0", "id": 2, "method": "tools/list"});
    let initialize = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
        "protocolVersion": "guess", "capabilities": {}, "clientInfo": {"name": "raw", "version": "1"}}});
    let version = |request: RequestBuilder| request.header("mcp-protocol-version", "2025-guess");
    for request in [
        http.modern("tools/list", None, json!({})).header("mcp-method", "guess"),
        http.modern("guess", None, json!({})),
        version(http.post(&list)),
        version(http.post(&list).header("mcp-session-id", &session)),
        version(http.post(&initialize)),
        http.post(&list).header("host", "guess"),
        http.post(&list).header("origin", "https://guess"),
        http.post(&list).header("mcp-session-id", "guess"),
        http.post(&json!({"guess": "guess"})),
        http.post(&json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {"protocolVersion": ["guess"]}})),
    ] {
        let refused = send(request).await;
        let status = refused.status();
        let told = within(refused.text()).await.unwrap();
        assert!(status.is_client_error() && !told.contains("guess"), "{status} {told}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_is_no_message_is_refused_in_the_same_way_in_every_revision() {
    const NO_JSON: (i32, &str) = (-32700, "not valid JSON");
    const NO_MESSAGE: (i32, &str) = (-32600, "not an MCP message");
    let http = Http::open().await;
    for (body, (code, reason)) in [
        ("", NO_JSON),
        ("guess", NO_JSON),
        ("{guess", NO_JSON),
        (r#"{"jsonrpc": "2.0", "id": 1, "method": "guess"#, NO_JSON),
        ("[]", NO_MESSAGE),
        (r#"{"guess": "guess"}"#, NO_MESSAGE),
        (r#"{"jsonrpc": "2.0", "id": {}, "method": "ping"}"#, NO_MESSAGE),
    ] {
        let modern = http.modern("ping", None, json!({})).body(body);
        for request in [http.post(&json!({})).body(body), modern] {
            let refused = send(request).await;
            let status = refused.status();
            let told = within(refused.text()).await.unwrap();
            assert!(status == StatusCode::BAD_REQUEST && told.contains(reason), "{body} {told}");
            let error = serde_json::from_str::<Value>(&told).unwrap()["error"].take();
            assert_eq!(error["code"], code, "{body} {told}");
            assert!(!told.contains("guess"), "{told}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn legacy_mode_gets_a_session_and_no_more_of_them_than_allowed() {
    let http = Http::start(Protection { max_sessions: 2, ..protection() }).await;
    let first = http.initialize().await;
    assert_eq!(first.status(), StatusCode::OK);
    let session = first.headers()["mcp-session-id"].to_str().unwrap().to_owned();
    assert!(within(first.text()).await.unwrap().contains("bondmcp-server"));
    assert_eq!(http.initialize().await.status(), StatusCode::OK);
    // Beyond the bound there are answers, but no sessions.
    let third = http.initialize().await;
    assert_eq!((third.status(), third.headers().get("mcp-session-id")), (StatusCode::OK, None));
    assert!(within(third.text()).await.unwrap().contains("bondmcp-server"));

    // The header of a stateless request does not get past the bound.
    let initialize = json!({"protocolVersion": "2025-11-25", "capabilities": {},
        "clientInfo": {"name": "raw", "version": "1"}});
    let smuggled = send(http.modern("initialize", None, initialize)).await;
    assert!(smuggled.headers().get("mcp-session-id").is_none(), "{smuggled:?}");

    // Neither a stateless request nor an open session is refused.
    assert_eq!(send(http.modern("tools/list", None, json!({}))).await.status(), StatusCode::OK);
    let list = json!({"jsonrpc": "2.0", "id": 2, "method": "tools/list"});
    assert_eq!(send(http.post(&list).header("mcp-session-id", &session)).await.status(), StatusCode::OK);

    let delete = http.client.delete(format!("http://{}/mcp", http.address)).bearer_auth(TOKEN);
    assert!(send(delete.header("mcp-session-id", &session)).await.status().is_success());
    assert!(http.initialize().await.headers().contains_key("mcp-session-id"));
}

#[tokio::test(flavor = "multi_thread")]
async fn only_initialize_opens_a_session() {
    let http = Http::start(Protection { max_sessions: 1, ..protection() }).await;
    let list = json!({"jsonrpc": "2.0", "id": 2, "method": "tools/list"});
    let call = json!({"jsonrpc": "2.0", "id": 3, "method": "tools/call",
        "params": {"name": "list_models", "arguments": {}}});
    for (request, answers_with) in [(list, "/result/tools/0/name"), (call, "/result/structuredContent/count")]
    {
        let response = send(http.post(&request).header("mcp-protocol-version", "2025-11-25")).await;
        assert_eq!(response.status(), StatusCode::OK);
        assert!(response.headers().get("mcp-session-id").is_none());
        let answer = json_of(response).await;
        assert!(answer.pointer(answers_with).is_some(), "{answer}");
    }
    assert!(
        http.initialize().await.headers().contains_key("mcp-session-id"),
        "none of them took the only one"
    );
}

/// Served without a session, its confirmations would be skipped.
#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_asks_the_person_is_not_served_without_a_session() {
    let http = Http::start(Protection { max_sessions: 0, ..protection() }).await;
    assert_eq!(http.initialize().await.status(), StatusCode::OK);
    let initialize = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
        "protocolVersion": "2025-11-25", "capabilities": {"elicitation": {"form": {}}},
        "clientInfo": {"name": "asks", "version": "1"}}});
    let refused = send(http.post(&initialize)).await;
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(refused.headers().contains_key("retry-after"));
}

/// Its `initialize` is forgotten, and nobody else's name stands for it.
#[tokio::test(flavor = "multi_thread")]
async fn a_host_without_a_session_has_no_name_in_the_audit_log() {
    let sandbox = sandbox(like_the_seed()).await;
    let place = Place::new(&sandbox);
    let audit = place.data_dir().join("audit.jsonl");
    let (server, stopping) = in_process(&place, Timing::default());
    let http = Http::serve(sandbox, place, protection(), server.clone(), stopping).await;
    let call = json!({"jsonrpc": "2.0", "id": 3, "method": "tools/call",
        "params": {"name": "auth_status", "arguments": {}}});
    let response = send(http.post(&call).header("mcp-protocol-version", "2025-11-25")).await;
    assert_eq!(response.status(), StatusCode::OK);
    server.close().await;
    let line: Value = serde_json::from_str(&std::fs::read_to_string(audit).unwrap()).unwrap();
    assert_eq!((&line["tool"], line.get("host")), (&json!("auth_status"), None), "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_body_holds_up_no_initialize() {
    let http = Http::open().await;
    let _slow = within(http.endless_body()).await;
    assert_eq!(http.initialize().await.status(), StatusCode::OK);
}

#[tokio::test]
async fn a_body_that_does_not_arrive_is_given_up() {
    let http = Http::open().await;
    let mut slow = within(http.endless_body()).await;
    let head = within(fast(head_of(&mut slow))).await;
    assert!(head.starts_with("HTTP/1.1 408 "), "{head}");
}

/// Not even one that takes longer than any real call.
#[tokio::test]
async fn a_call_that_may_be_billed_is_never_cut_by_the_transport() {
    let sandbox = sandbox(like_the_seed()).await;
    let place = Place::new(&sandbox);
    let long = Duration::from_secs(70);
    let timing = Timing { billed: long, ..Timing::default() };
    let (server, stopping) =
        in_process_within(&place, timing, Limits { deadline: long, ..Limits::default() });
    let http = Http::serve(sandbox, place, protection(), server, stopping).await;
    http.sandbox.faults().always(ANALYZE, Fault::ProcessThenHang);
    let call = json!({"name": "health_analyze", "arguments": {"prompt": "Why?", "analysis_type": "general"}});
    let call = http.modern("tools/call", Some("health_analyze"), call).send();
    let response = fast(call).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    let text = within(response.text()).await.unwrap();
    assert!(text.contains("billed"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_session_is_not_found() {
    let http = Http::open().await;
    let list = json!({"jsonrpc": "2.0", "id": 2, "method": "tools/list"});
    let response =
        send(http.post(&list).header("mcp-session-id", "00000000-0000-4000-8000-000000000000")).await;
    assert_eq!(response.status(), StatusCode::NOT_FOUND);
    assert!(json_of(response).await["error"].as_str().unwrap().contains("`initialize`"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_is_too_large_or_no_json_is_refused() {
    let http = Http::open().await;
    let large = json!({"jsonrpc": "2.0", "id": 1, "method": "x".repeat(MAX_BODY_BYTES + 1)});
    assert_eq!(send(http.post(&large)).await.status(), StatusCode::PAYLOAD_TOO_LARGE);
    // Small, but not once it is parsed.
    let dense = json!({"jsonrpc": "2.0", "id": 1, "method": "x", "params": vec![json!({"": 0}); 100_000]});
    assert_eq!(send(http.post(&dense)).await.status(), StatusCode::PAYLOAD_TOO_LARGE);
    // rmcp keeps it as long as the session.
    let mut initialize = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
        "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "raw", "version": "1"}}});
    initialize["params"]["clientInfo"]["title"] = "x".repeat(64 << 10).into();
    assert_eq!(send(http.post(&initialize)).await.status(), StatusCode::PAYLOAD_TOO_LARGE);
    let response = send(http.post(&json!(null)).body("{malformed")).await;
    assert!(response.status().is_client_error(), "{response:?}");
    assert_eq!(send(http.modern("no/such/method", None, json!({}))).await.status(), StatusCode::NOT_FOUND);
}

const ANALYZE: &str = "POST /health-ai/analyze";

/// A billed call that asks for progress.
fn question() -> Value {
    json!({
        "name": "health_analyze",
        "arguments": {"prompt": "Why?", "analysis_type": "general"},
        "_meta": {"progressToken": "p-1"},
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_billed_call_that_takes_its_time_tells_of_its_progress_before_it_answers() {
    let http = Http::open().await;
    http.sandbox.faults().next(ANALYZE, Fault::Hold);
    // The head of the answer comes with the first progress.
    let response = send(http.modern("tools/call", Some("health_analyze"), question())).await;
    http.sandbox.faults().release();
    let told = within(response.text()).await.unwrap();
    let (progress, answer) =
        (told.find("waiting for BondMCP").unwrap(), told.find("structuredContent").unwrap());
    assert!(progress < answer && told.contains(r#""progressToken":"p-1""#), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_billed_call_whose_host_goes_away_is_cancelled_upstream() {
    let http = Http::open().await;
    http.sandbox.faults().next(ANALYZE, Fault::Hang);
    let call = tokio::spawn(http.modern("tools/call", Some("health_analyze"), question()).send());
    within(http.sandbox.faults().arrived(ANALYZE, 1)).await;
    call.abort();
    within(http.sandbox.faults().abandoned(ANALYZE, 1)).await;
    assert_eq!(http.sandbox.credits(EMAIL), Some(500));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_whose_host_goes_away_is_cancelled_upstream() {
    const KEYS: &str = "GET /auth/api-keys";
    let sandbox = sandbox(like_the_seed()).await;
    let place = Place::new(&sandbox);
    // Nothing else ends it while the test waits.
    let long = Duration::from_mins(5);
    let timing = Timing { request: long, deadline: long, ..Timing::default() };
    let (server, stopping) =
        in_process_within(&place, timing, Limits { deadline: long, ..Limits::default() });
    let http = Http::serve(sandbox, place, protection(), server, stopping).await;
    http.sandbox.faults().next(KEYS, Fault::Hang);
    let uri = "bondmcp://keys/key_1";
    let read = tokio::spawn(http.modern("resources/read", Some(uri), json!({ "uri": uri })).send());
    within(http.sandbox.faults().arrived(KEYS, 1)).await;
    read.abort();
    within(http.sandbox.faults().abandoned(KEYS, 1)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn health_needs_no_token() {
    let http = Http::open().await;
    let response = send(http.client.get(format!("http://{}/healthz", http.address))).await;
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(json_of(response).await, json!({"status": "ok"}));
}

/// Hosts take a challenge for OAuth's, and show its user what the registration of a client was answered with.
#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_looks_for_oauth_is_told_what_to_configure() {
    let http = Http::open().await;
    let unauthorized = within(http.bare(&json!({})).send()).await.unwrap();
    assert_eq!(unauthorized.status(), StatusCode::UNAUTHORIZED);
    let register = http.client.post(format!("http://{}/register", http.address));
    let document = format!("http://{}/.well-known/oauth-protected-resource/mcp", http.address);
    let [register, document] = [register, http.client.get(document)].map(|request| within(request.send()));
    let (register, document) = (register.await.unwrap(), document.await.unwrap());
    assert_eq!([register.status(), document.status()], [StatusCode::NOT_FOUND; 2]);
    for response in [unauthorized, register, document] {
        let body = json_of(response).await;
        assert!(
            body["error_description"].as_str().unwrap().contains("`Authorization: Bearer TOKEN`"),
            "{body}"
        );
        assert!(!body.to_string().contains(TOKEN));
    }
}
