//! A hosted server over HTTP: discovery, registration, tokens, tools by scope, refresh and revocation, by raw requests;
//! and how it stops. Pages have tests of their own: here the person's consent is given directly.

use std::{collections::BTreeSet, time::Duration};

#[cfg(unix)]
use crate::common::postgres;
use crate::common::{
    EMAIL,
    hosted_server::{Authorization, HostedServer, Setup, parameter, status_and_json},
    secrets, within,
};
use bondmcp_server::{
    oauth::{Grant, Scopes},
    sandbox::Fault,
    transport::hosted::Drain,
};
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

const WELL_KNOWN: [&str; 6] = [
    "/.well-known/oauth-protected-resource",
    "/.well-known/oauth-protected-resource/mcp",
    "/.well-known/oauth-authorization-server",
    "/.well-known/oauth-authorization-server/mcp",
    "/.well-known/openid-configuration",
    "/.well-known/openid-configuration/mcp",
];

fn header(response: &reqwest::Response, name: &str) -> String {
    response.headers().get(name).map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default()
}

fn text_of<'a>(tokens: &'a Value, name: &str) -> &'a str {
    tokens[name].as_str().unwrap_or_else(|| panic!("{name} in {tokens}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn every_host_finds_the_metadata_where_it_looks_for_it() {
    let server = HostedServer::start().await;
    let origin = &server.origin;
    for path in WELL_KNOWN {
        let document = server.json(path).await;
        if path.contains("protected-resource") {
            assert_eq!(document["resource"], format!("{origin}/mcp"), "{path}");
            assert_eq!(document["authorization_servers"], json!([origin]), "{path}");
        } else {
            assert_eq!(document["issuer"], json!(origin), "{path}");
            for (field, at) in [
                ("authorization_endpoint", "/authorize"),
                ("token_endpoint", "/token"),
                ("registration_endpoint", "/register"),
                ("revocation_endpoint", "/revoke"),
                ("jwks_uri", "/jwks"),
            ] {
                assert_eq!(document[field], format!("{origin}{at}"), "{path}");
            }
        }
        let head = server.send(server.http.head(server.at(path))).await;
        assert_eq!(
            (head.status().as_u16(), header(&head, "content-type").as_str()),
            (200, "application/json")
        );
    }
    assert!(server.json("/jwks").await["keys"][0]["kid"].is_string());
    // ChatGPT leaves the path out when it looks for documents, others add theirs.
    for nothing in ["/", "/.well-known/other", "/mcp/.well-known/openid-configuration", "/favicon.ico"] {
        let response = server.get(nothing).await;
        assert_eq!(header(&response, "content-type"), "application/json", "{nothing}");
        assert_eq!(response.status(), 404, "{nothing}");
    }
    // A known address with another method (RFC 9110, section 15.5.6).
    for (method, path, allowed) in [
        (Method::GET, "/token", "POST"),
        (Method::GET, "/register", "POST"),
        (Method::PUT, "/revoke", "POST"),
        (Method::POST, "/jwks", "GET,HEAD"),
        (Method::POST, WELL_KNOWN[0], "GET,HEAD"),
    ] {
        let response = server.send(server.http.request(method.clone(), server.at(path))).await;
        assert_eq!(header(&response, "allow"), allowed, "{method} {path}");
        assert_eq!(header(&response, "access-control-allow-origin"), "*", "{method} {path}");
        let (status, answer) = status_and_json(response).await;
        assert_eq!((status, &answer["error"]), (405, &json!("method_not_allowed")), "{method} {path}");
    }
}

/// RFC 9700, sections 2.6, 4.4 (mix-up) and 4.13 (reverse proxies): what a request says about where it came to is not
/// believed.
#[tokio::test(flavor = "multi_thread")]
async fn addresses_come_from_the_operator_whatever_a_request_says() {
    let server = HostedServer::start().await;
    let origin = server.origin.clone();
    let spoofed = |request: reqwest::RequestBuilder| {
        ["x-forwarded-host", "x-forwarded-server", "x-original-host", "forwarded"]
            .into_iter()
            .fold(request, |request, name| request.header(name, "host=evil.test"))
            .header("x-forwarded-proto", "https")
            .header("host", "evil.test")
    };
    for path in WELL_KNOWN {
        let response = within(spoofed(server.http.get(server.at(path))).send()).await.unwrap();
        let (status, document) = status_and_json(response).await;
        assert_eq!(status, 200);
        assert!(
            !document.to_string().contains("evil") && document.to_string().contains(&origin),
            "{document}"
        );
    }
    let response = within(spoofed(server.http.post(server.at("/mcp"))).send()).await.unwrap();
    assert_eq!(response.status(), 401);
    let challenge = header(&response, "www-authenticate");
    assert!(
        challenge.contains(&format!("{origin}/.well-known/")) && !challenge.contains("evil"),
        "{challenge}"
    );
}

/// RFC 6750, sections 2.3 and 3; MCP authorization, "Access Token Usage": tokens stand in the header alone, and those
/// of others are not taken.
#[tokio::test(flavor = "multi_thread")]
async fn without_a_good_token_there_is_a_challenge_and_nothing_else() {
    let server = HostedServer::start().await;
    let (_, tokens) = server.tokens("models health keys").await;
    let token = text_of(&tokens, "access_token");
    let metadata = format!("{}/.well-known/oauth-protected-resource/mcp", server.origin);
    let rest = format!(r#"resource_metadata="{metadata}", scope="models health keys""#);
    for method in [Method::GET, Method::POST, Method::DELETE, Method::HEAD] {
        let response = server.send(server.http.request(method, server.at("/mcp"))).await;
        assert_eq!(response.status(), 401);
        assert_eq!(header(&response, "www-authenticate"), format!("Bearer {rest}"));
    }
    let bondmcp_token = secrets::text(&server.sandbox.secrets_issued().pop().unwrap()).to_owned();
    let refresh_token = text_of(&tokens, "refresh_token");
    let message = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list"});
    for wrong in ["x", &token[..token.len() - 2], &bondmcp_token, refresh_token] {
        let response = server.send(server.mcp(wrong, &message)).await;
        assert_eq!(response.status(), 401);
        assert_eq!(header(&response, "www-authenticate"), format!(r#"Bearer error="invalid_token", {rest}"#));
    }
    let in_query = server.http.post(server.at(&format!("/mcp?access_token={token}")));
    assert_eq!(server.send(in_query.body(message.to_string())).await.status(), 401);
    let in_body = server.http.post(server.at("/mcp")).body(format!("access_token={token}"));
    assert_eq!(server.send(in_body).await.status(), 401);
    assert_eq!(server.send(server.mcp(token, &message)).await.status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_goes_from_discovery_to_tools_to_revocation() {
    let server = HostedServer::start().await;
    let client_id = server.register(&["http://127.0.0.1/callback"]).await;
    let authorization =
        Authorization { scope: Some(" models health".into()), ..Authorization::of(client_id) };
    let (grant, answer) = server.agree(&authorization, Scopes::parse("models health")).await;
    assert_eq!(answer.origin().ascii_serialization(), "http://127.0.0.1:3118");
    assert_eq!(parameter(&answer, "state"), "the-state");
    assert_eq!(parameter(&answer, "iss"), server.origin);
    let code = parameter(&answer, "code");

    let (status, tokens) = server.redeem(&authorization, &code).await;
    assert_eq!(status, 200, "{tokens}");
    assert_eq!((&tokens["token_type"], &tokens["scope"]), (&json!("Bearer"), &json!("models health")));
    let status = server.call(text_of(&tokens, "access_token"), "auth_status", json!({})).await;
    assert_eq!(status["email"], EMAIL, "{status}");
    assert_eq!(server.call(text_of(&tokens, "access_token"), "list_models", json!({})).await["count"], 3);

    let refresh = [
        ("grant_type", "refresh_token"),
        ("refresh_token", text_of(&tokens, "refresh_token")),
        ("client_id", &authorization.client_id),
    ];
    let (status, refreshed) = server.post_form("/token", &refresh).await;
    assert_eq!(status, 200, "{refreshed}");
    let token = text_of(&refreshed, "access_token");
    assert_eq!(server.call(token, "list_models", json!({})).await["count"], 3);

    let revoke = [("token", text_of(&refreshed, "refresh_token")), ("client_id", &authorization.client_id)];
    assert_eq!(server.post_form("/revoke", &revoke).await.0, 200);
    let message = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list"});
    assert_eq!(server.send(server.mcp(token, &message)).await.status(), 401);
    // The grant is released in the background.
    within(async {
        while server.server.grant(&grant.id).await.unwrap().is_some() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    // An unknown token is no error (RFC 7009, section 2.2).
    let unknown = [("token", "unknown"), ("client_id", authorization.client_id.as_str())];
    assert_eq!(server.post_form("/revoke", &unknown).await.0, 200);
}

fn refresh(server: &HostedServer, grant: &Grant, tokens: &Value) -> RequestBuilder {
    let form = url::form_urlencoded::Serializer::new(String::new())
        .extend_pairs([
            ("grant_type", "refresh_token"),
            ("refresh_token", text_of(tokens, "refresh_token")),
            ("client_id", &grant.client_id),
        ])
        .finish();
    let request = server.http.post(server.at("/token")).body(form);
    request.header("content-type", "application/x-www-form-urlencoded")
}

/// RFC 6749, sections 5.1 and 5.2.
#[tokio::test(flavor = "multi_thread")]
async fn answers_of_the_endpoints_are_not_stored_and_errors_name_what_is_wrong() {
    let server = HostedServer::start().await;
    let (grant, tokens) = server.tokens("models").await;
    let response = server.send(refresh(&server, &grant, &tokens)).await;
    assert_eq!((response.status().as_u16(), header(&response, "cache-control").as_str()), (200, "no-store"));
    let client = server.register(&["http://127.0.0.1/callback"]).await;
    for (path, form, status, error) in [
        ("/token", "grant_type=authorization_code&client_id=unknown&code=x", 401, "invalid_client"),
        ("/token", "grant_type=password&client_id=CLIENT", 400, "unsupported_grant_type"),
        ("/token", "client_id=CLIENT", 400, "invalid_request"),
        ("/token", "grant_type=refresh_token&client_id=CLIENT&refresh_token=canary", 400, "invalid_grant"),
        ("/revoke", "token=x&client_id=unknown", 401, "invalid_client"),
    ] {
        let form = form.replace("CLIENT", &client);
        let request = server.http.post(server.at(path)).body(form.clone());
        let response = server.send(request.header("content-type", "application/x-www-form-urlencoded")).await;
        assert_eq!(header(&response, "cache-control"), "no-store");
        let (given, body) = status_and_json(response).await;
        assert_eq!((given, &body["error"]), (status, &json!(error)), "{form}: {body}");
        assert!(!body.to_string().contains("canary"), "{body}");
    }
    let basic = server.http.post(server.at("/token")).basic_auth("unknown", Some("x")).body("grant_type=x");
    let response = server.send(basic.header("content-type", "application/x-www-form-urlencoded")).await;
    assert_eq!(response.status(), 401);
    assert!(header(&response, "www-authenticate").starts_with("Basic "));
    let large = server.http.post(server.at("/register")).body(" ".repeat(1 << 20));
    assert_eq!(server.send(large).await.status(), 413);
}

/// The Fetch standard; no credentials of a browser are ever involved.
#[tokio::test(flavor = "multi_thread")]
async fn programs_in_web_pages_may_call_and_read_what_they_need() {
    let server = HostedServer::start().await;
    for path in WELL_KNOWN.into_iter().chain(["/register", "/token", "/revoke", "/mcp", "/.well-known/other"])
    {
        let preflight = server
            .http
            .request(Method::OPTIONS, server.at(path))
            .header("origin", "https://app.example")
            .header("access-control-request-method", "POST")
            .header("access-control-request-headers", "authorization,content-type,mcp-protocol-version");
        let response = server.send(preflight).await;
        assert_eq!(response.status(), 204, "{path}");
        assert_eq!(header(&response, "access-control-allow-origin"), "*");
        assert_eq!(header(&response, "access-control-allow-credentials"), "");
        let allowed = header(&response, "access-control-allow-headers");
        assert!(allowed.contains("Authorization") && allowed.contains("Mcp-Session-Id"), "{allowed}");
        let methods = header(&response, "access-control-allow-methods");
        for method in ["GET", "POST", "DELETE"] {
            assert!(methods.split(", ").any(|allowed| allowed == method), "{path}: {methods}");
        }
    }
    let (_, tokens) = server.tokens("models").await;
    let request = server.modern(text_of(&tokens, "access_token"), "tools/list", None, json!({}));
    let response = server.send(request.header("origin", "https://app.example")).await;
    assert_eq!(response.status(), 200);
    assert_eq!(header(&response, "access-control-allow-origin"), "*");
    let response = server.send(server.http.post(server.at("/mcp"))).await;
    let exposed = header(&response, "access-control-expose-headers");
    assert!(exposed.contains("WWW-Authenticate") && exposed.contains("Mcp-Session-Id"), "{exposed}");
    // No page of another origin may read the pages of a person.
    assert_eq!(header(&server.get("/connections").await, "access-control-allow-origin"), "");
}

/// Names of the listed tools.
fn names(list: &Value) -> Vec<&str> {
    list["result"]["tools"].as_array().unwrap().iter().map(|tool| tool["name"].as_str().unwrap()).collect()
}

/// MCP authorization, "Scope Challenge Handling"; "Security Best Practices", scopes are checked by the server.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_beyond_the_scopes_is_hidden_and_refused() {
    let server = HostedServer::start().await;
    let (_, tokens) = server.tokens("models").await;
    let token = text_of(&tokens, "access_token");
    let ask = async |method: &str, name: Option<&str>, params: Value| {
        server.send(server.modern(token, method, name, params)).await
    };
    let (_, list) = status_and_json(ask("tools/list", None, json!({})).await).await;
    assert_eq!(list["result"]["cacheScope"], "private");
    let listed = async |scopes: &str| -> BTreeSet<String> {
        let (_, tokens) = server.tokens(scopes).await;
        let listing = server.modern(text_of(&tokens, "access_token"), "tools/list", None, json!({}));
        names(&status_and_json(server.send(listing).await).await.1)
            .into_iter()
            .map(ToOwned::to_owned)
            .collect()
    };
    let (models, health, keys) = (listed("models").await, listed("health").await, listed("keys").await);
    let of_no_scope = &models & &health;
    assert!(&models & &keys == of_no_scope && &health & &keys == of_no_scope, "a tool has two scopes");
    for tool in ["list_models", "health_analyze", "manage_api_keys"] {
        assert!(!of_no_scope.contains(tool), "{of_no_scope:?}");
    }
    assert_eq!(&(&models | &health) | &keys, listed("models health keys").await);
    let (_, prompts) = status_and_json(ask("prompts/list", None, json!({})).await).await;
    assert_eq!(prompts["result"]["prompts"], json!([]));
    let (_, templates) = status_and_json(ask("resources/templates/list", None, json!({})).await).await;
    assert_eq!(templates["result"]["resourceTemplates"], json!([]));
    let of_key = json!({"ref": {"type": "ref/resource", "uri": "bondmcp://keys/{key_id}"},
        "argument": {"name": "key_id", "value": ""}});
    let (_, completed) = status_and_json(ask("completion/complete", None, of_key).await).await;
    assert!(completed.get("result").is_none(), "{completed}");
    let (_, of_health) = server.tokens("health").await;
    let listing = server.modern(text_of(&of_health, "access_token"), "resources/list", None, json!({}));
    let (_, resources) = status_and_json(server.send(listing).await).await;
    assert!(!resources.to_string().contains("bondmcp://models"), "{resources}");
    assert_eq!(server.call(token, "list_models", json!({})).await["count"], 3);
    for (method, what, scope) in [
        ("tools/call", "health_analyze", "health"),
        ("tools/call", "manage_api_keys", "keys"),
        ("prompts/get", "triage", "health"),
        ("resources/read", "bondmcp://keys/key_1", "keys"),
    ] {
        let params = json!({"name": what, "uri": what, "arguments": {}});
        let response = ask(method, Some(what), params).await;
        assert_eq!(response.status(), 403, "{what}");
        let challenge = header(&response, "www-authenticate");
        assert!(
            challenge.starts_with(r#"Bearer error="insufficient_scope", resource_metadata=""#),
            "{challenge}"
        );
        assert!(challenge.ends_with(&format!(r#", scope="{scope}""#)), "{challenge}");
    }
    assert_eq!(server.sandbox.count("POST /health-ai/analyze"), 0);
}

/// The header `Mcp-Name` is the client's word: a body that says something else is refused, encoded or not (MCP 2026-07-28,
/// "Standard Request Headers"; MCP authorization, "Scope Challenge Handling").
#[tokio::test(flavor = "multi_thread")]
async fn a_lie_about_the_tool_does_not_widen_the_scopes() {
    let server = HostedServer::start().await;
    let (_, tokens) = server.tokens("models").await;
    let token = text_of(&tokens, "access_token");
    let params = json!({"name": "health_analyze", "arguments": {"prompt": "x", "analysis_type": "general"}});
    let lie = server.modern(token, "tools/call", Some("list_models"), params.clone());
    assert_eq!(server.send(lie).await.status(), 400);
    // "health_analyze" in base64.
    let encoded = Some("=?base64?aGVhbHRoX2FuYWx5emU=?=");
    let encoded = server.modern(token, "tools/call", encoded, params.clone());
    assert_eq!(server.send(encoded).await.status(), 403);
    // As a request of an earlier revision, which has no such header, in a session and without one.
    let legacy = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params});
    let request =
        server.mcp(token, &legacy).header("mcp-name", "list_models").header("mcp-method", "tools/list");
    assert_eq!(server.send(request).await.status(), 403);
    let session = open_session(&server, token).await;
    let request = server.mcp(token, &legacy).header("mcp-session-id", session);
    assert_eq!(server.send(request).await.status(), 403);
    // What the transport reads in another way than rmcp is refused where it is answered.
    let twice = r#"{"jsonrpc": "2.0", "id": 1, "method": "ping", "method": "tools/call", "params": {"name": "health_analyze", "arguments": {}}}"#;
    let response = server.send(server.mcp(token, &Value::Null).body(twice)).await;
    let (_, answer) = status_and_json(response).await;
    assert!(answer.get("result").is_none(), "{answer}");
    assert_eq!(server.sandbox.count("POST /health-ai/analyze"), 0);
}

async fn open_session(server: &HostedServer, token: &str) -> String {
    let initialize = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
        "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "raw", "version": "1"}}});
    let response = server.send(server.mcp(token, &initialize)).await;
    assert_eq!(response.status(), 200);
    header(&response, "mcp-session-id")
}

/// MCP "Security Best Practices" 2025-11-25, "Session Hijacking": a session id is no credential.
#[tokio::test(flavor = "multi_thread")]
async fn a_session_of_another_grant_is_none() {
    let server = HostedServer::start().await;
    let (_, adas) = server.tokens("models").await;
    // The same person's other app is somebody else, too.
    let (_, other) = server.tokens("models").await;
    let session = open_session(&server, text_of(&adas, "access_token")).await;
    let ping = json!({"jsonrpc": "2.0", "id": 2, "method": "ping"});
    for method in [Method::POST, Method::GET, Method::DELETE] {
        let request = server
            .http
            .request(method, server.at("/mcp"))
            .bearer_auth(text_of(&other, "access_token"))
            .header("accept", "application/json, text/event-stream")
            .header("content-type", "application/json")
            .header("mcp-session-id", &session)
            .body(ping.to_string());
        assert_eq!(server.send(request).await.status(), 404);
    }
    let theirs = server.mcp(text_of(&adas, "access_token"), &ping).header("mcp-session-id", &session);
    assert_eq!(server.send(theirs).await.status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_replica_began_another_finishes() {
    begins_here_and_finishes_there(&HostedServer::start().await).await;
}

/// In an outage of the database, a client is told to try again and loses nothing.
#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn replicas_share_nothing_but_postgresql_and_outlast_its_outage() {
    let Some(cluster) = postgres::cluster() else { return };
    let database = cluster.database();
    let vault = Some(format!("{}?sslmode=disable", database.url));
    let server = HostedServer::start_with(Setup { vault, ..Setup::default() }).await;
    begins_here_and_finishes_there(&server).await;
    let authorization = Authorization::of(server.register(&["http://127.0.0.1/callback"]).await);
    let (_, answer) = server.agree(&authorization, Scopes::all()).await;
    let (_, tokens) = server.redeem(&authorization, &parameter(&answer, "code")).await;
    let refresh = [
        ("grant_type", "refresh_token"),
        ("refresh_token", text_of(&tokens, "refresh_token")),
        ("client_id", &authorization.client_id),
    ];

    cluster.stop(postgres::Stop::Immediate);
    let message = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list"});
    let response = server.send(server.mcp(text_of(&tokens, "access_token"), &message)).await;
    assert_eq!((response.status().as_u16(), header(&response, "retry-after").as_str()), (503, "5"));
    let (status, failed) = server.post_form("/token", &refresh).await;
    assert_eq!((status, &failed["error"]), (503, &json!("temporarily_unavailable")));
    assert_eq!(server.get("/readyz").await.status(), 503);

    cluster.start_again();
    within(async { while server.get("/readyz").await.status() != 200 {} }).await;
    let (status, refreshed) = server.post_form("/token", &refresh).await;
    assert_eq!(status, 200, "{refreshed}");
    assert_eq!(server.call(text_of(&refreshed, "access_token"), "list_models", json!({})).await["count"], 3);
}

async fn begins_here_and_finishes_there(first: &HostedServer) {
    let second = first.replica().await;
    let authorization = Authorization::of(first.register(&["http://127.0.0.1/callback"]).await);
    let (_, answer) = first.agree(&authorization, Scopes::all()).await;
    let (status, tokens) = second.redeem(&authorization, &parameter(&answer, "code")).await;
    assert_eq!(status, 200, "{tokens}");
    for replica in [first, &second] {
        assert_eq!(
            replica.call(text_of(&tokens, "access_token"), "list_models", json!({})).await["count"],
            3
        );
    }
}

/// Trouble of ours never looks like a token that is no longer good: the host would sign the person out.
#[tokio::test(flavor = "multi_thread")]
async fn trouble_with_the_store_is_a_reason_to_try_again() {
    let server = HostedServer::start().await;
    let (grant, tokens) = server.tokens("models").await;
    assert_eq!(server.get("/readyz").await.status(), 200);
    let other = server.replica().await;
    other.accounts.close().await;
    let response = other.send(refresh(&other, &grant, &tokens)).await;
    assert_eq!(
        (header(&response, "retry-after").as_str(), header(&response, "cache-control").as_str()),
        ("5", "no-store")
    );
    let (status, failed) = status_and_json(response).await;
    assert_eq!((status, &failed["error"]), (503, &json!("temporarily_unavailable")));
    let message = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list"});
    let response = other.send(other.mcp(text_of(&tokens, "access_token"), &message)).await;
    assert_eq!((response.status().as_u16(), header(&response, "retry-after").as_str()), (503, "5"));
    assert_eq!(other.get("/readyz").await.status(), 503);
    assert_eq!(other.get("/healthz").await.status(), 200);
    assert_eq!(server.get("/readyz").await.status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_to_stop_says_so_first_and_then_lets_calls_end() {
    let drain = Drain { delay: Duration::from_secs(5), timeout: Duration::from_mins(1) };
    let mut server = HostedServer::start_with(Setup { drain, ..Setup::default() }).await;
    let (_, tokens) = server.tokens("models").await;
    let token = text_of(&tokens, "access_token").to_owned();
    let session = open_session(&server, &token).await;
    let stream = server.http.get(server.at("/mcp")).bearer_auth(&token).header("mcp-session-id", session);
    let stream = server.send(stream.header("accept", "text/event-stream")).await;
    assert_eq!(stream.status(), 200);
    server.sandbox.faults().next("GET /health-ai/models", Fault::Hold);
    let params = json!({"name": "list_models", "arguments": {}});
    let call = server.modern(&token, "tools/call", Some("list_models"), params);
    let call = tokio::spawn(call.header("host", server.origin.replace("http://", "")).send());
    within(server.sandbox.faults().arrived("GET /health-ai/models", 1)).await;

    server.requested_to_stop.cancel();
    assert_eq!(server.get("/readyz").await.status(), 503);
    assert_eq!(server.get("/healthz").await.status(), 200);
    // The stream ends by itself when the server drains, long before calls would be given up.
    within(stream.bytes()).await.unwrap();
    server.sandbox.faults().release();
    let (status, answer) = status_and_json(within(call).await.unwrap().unwrap()).await;
    assert_eq!((status, &answer["result"]["structuredContent"]["count"]), (200, &json!(3)));
    within(&mut server.serving).await.unwrap();
}
