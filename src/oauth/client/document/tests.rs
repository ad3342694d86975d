use serde_json::json;

use super::{
    super::{
        ClientError, Network,
        testing::{ISSUER, Server, World, form},
    },
    *,
};

const CLAUDE: &str = "https://claude.ai/oauth/mcp-oauth-client-metadata";

fn parsed(metadata: &Value) -> Result<ClientDocument, &'static str> {
    let url = metadata["client_id"].as_str().unwrap_or(CLAUDE);
    ClientDocument::parse(url, metadata.to_string().as_bytes())
}

fn with(field: &str, value: Value) -> Value {
    let mut metadata = json!({
        "client_id": CLAUDE,
        "client_name": "Claude",
        "redirect_uris": ["https://claude.ai/api/mcp/auth_callback"],
        "grant_types": ["authorization_code", "refresh_token"],
        "response_types": ["code"],
        "token_endpoint_auth_method": "none",
    });
    metadata[field] = value;
    metadata
}

#[test]
fn a_client_id_is_a_plain_https_url_with_a_path() {
    for id in [CLAUDE, "https://chatgpt.com/oauth/abc/client.json", "https://a.example:8443/c?tenant=1"] {
        assert_eq!(client_id_url(id).unwrap().as_str(), id);
    }
    let long = format!("https://a.example/{}", "c".repeat(MAX_ID_BYTES));
    for id in [
        "http://a.example/c",
        "https://a.example",
        "https://a.example/",
        "https://a.example/c#fragment",
        "https://user@a.example/c",
        "https://user:password@a.example/c",
        "https://a.example/./c",
        "https://a.example/b/../c",
        "https://a.example/b/%2e%2e/c",
        "https://A.example/c",
        "https://a.example:443/c",
        "https:a.example/c",
        "https:///a.example/c",
        "https://a.example\\c",
        "https://a.example/c d",
        " https://a.example/c",
        "https://2130706433/c",
        "https://",
        &long,
    ] {
        assert!(client_id_url(id).is_none(), "{id}");
    }
}

#[test]
fn a_document_describes_its_client() {
    let document = parsed(&with("logo_uri", json!("https://claude.ai/logo.png"))).unwrap();
    let client = document.client(CLAUDE);
    assert_eq!((client.kind, client.name.as_deref()), (ClientKind::Document, Some("Claude")));
    assert_eq!(client.redirect_uris, ["https://claude.ai/api/mcp/auth_callback"]);
    assert!(document.is_public && document.keys.is_none());
    assert!(parsed(&with("token_endpoint_auth_method", Value::Null)).unwrap().is_public);
}

#[test]
fn documents_of_hosts_are_understood() {
    for (id, registered, used, methods) in [
        (
            CLAUDE,
            "https://claude.ai/api/mcp/auth_callback",
            "https://claude.ai/api/mcp/auth_callback",
            json!(["none"]),
        ),
        (
            "https://claude.ai/oauth/claude-code-client-metadata",
            "http://localhost/callback",
            "http://localhost:54545/callback",
            Value::Null,
        ),
        (
            "https://chatgpt.com/oauth/68a1b2c3/client.json",
            "https://chatgpt.com/connector/oauth/68a1b2c3",
            "https://chatgpt.com/connector/oauth/68a1b2c3",
            json!(["none", "private_key_jwt"]),
        ),
        (
            "https://opencode.ai/oauth/opencode/client.json",
            "http://127.0.0.1/callback",
            "http://127.0.0.1:19876/callback",
            json!(["none"]),
        ),
        (
            "https://vscode.dev/oauth/client-metadata.json",
            "http://127.0.0.1:33418/",
            "http://127.0.0.1:50123/",
            Value::Null,
        ),
    ] {
        let mut metadata = with("client_id", json!(id));
        metadata["redirect_uris"] = json!([registered]);
        metadata["token_endpoint_auth_methods_supported"] = methods;
        metadata["jwks_uri"] = json!("https://chatgpt.com/oauth/jwks.json");
        metadata["application_type"] = json!("native");
        let client = parsed(&metadata).unwrap().client(id);
        assert!(client_id_url(id).is_some() && client.allows_redirect(used), "{id}");
    }
}

// draft-ietf-oauth-client-id-metadata-document, "Client Information Metadata Document"; MCP authorization, "Client ID Metadata
// Documents"; RFC 9700, section 4.1.3 (redirect URIs)
#[test]
fn an_unsound_document_is_refused() {
    for (field, value) in [
        ("redirect_uris", json!([])),
        ("redirect_uris", json!(["http://client.example/cb", "javascript:alert(1)"])),
        ("redirect_uris", json!("https://claude.ai/api/mcp/auth_callback")),
        ("client_secret", json!("x")),
        ("client_secret_expires_at", json!(0)),
        ("token_endpoint_auth_method", json!("client_secret_basic")),
        ("token_endpoint_auth_method", json!("client_secret_post")),
        ("token_endpoint_auth_method", json!("client_secret_jwt")),
        // Without keys.
        ("token_endpoint_auth_method", json!("private_key_jwt")),
        ("token_endpoint_auth_methods_supported", json!(["private_key_jwt", "tls_client_auth"])),
        ("token_endpoint_auth_methods_supported", json!([])),
    ] {
        assert!(parsed(&with(field, value.clone())).is_err(), "{field} {value}");
    }
    let array = json!([CLAUDE, "Claude", ["https://claude.ai/"], "none", ["none"], null, null, null, null])
        .to_string();
    for body in [&*array, "", "[]", "null", "{}", "<html>", "{\"client_id\": 7}"] {
        assert!(ClientDocument::parse(CLAUDE, body.as_bytes()).is_err(), "{body}");
    }
    for id in
        ["https://claude.ai/", "https://claude.ai/oauth/mcp-oauth-client-metadata/", "https://evil.test/c"]
    {
        let metadata = with("client_id", json!(id)).to_string();
        assert!(ClientDocument::parse(CLAUDE, metadata.as_bytes()).is_err(), "{id}");
    }
}

// ChatGPT: the single value is a preference, the list decides.
#[test]
fn the_list_of_methods_decides() {
    let keys = |metadata: &mut Value| metadata["jwks_uri"] = json!("https://chatgpt.com/oauth/jwks.json");
    let mut metadata = with("token_endpoint_auth_method", json!("private_key_jwt"));
    keys(&mut metadata);
    let document = parsed(&metadata).unwrap();
    assert!(!document.is_public && matches!(document.keys, Some(Keys::At(_))));

    metadata["token_endpoint_auth_methods_supported"] = json!(["none", "private_key_jwt"]);
    let document = parsed(&metadata).unwrap();
    assert!(document.is_public && matches!(document.keys, Some(Keys::At(_))));

    let mut metadata = with("token_endpoint_auth_methods_supported", json!(["private_key_jwt"]));
    keys(&mut metadata);
    assert!(!parsed(&metadata).unwrap().is_public);
    for unsound in [
        "http://chatgpt.com/jwks.json",
        "https://user:password@chatgpt.com/jwks.json",
        "https://chatgpt.com/jwks.json#1",
    ] {
        metadata["jwks_uri"] = json!(unsound);
        assert!(parsed(&metadata).is_err(), "{unsound}");
    }
}

#[tokio::test]
async fn a_client_is_found_by_its_document() {
    let server = Server::start().await;
    let world = World::new(server.network()).await;
    let id = server.url("/client.json");
    let publish = |uris: &Value| {
        let metadata = json!({"client_id": id, "client_name": "Client", "redirect_uris": uris});
        server.publish("/client.json", "cache-control: max-age=3600", &metadata);
    };
    publish(&json!(["http://localhost/callback"]));
    let client = world.clients.find(&id, Some("http://localhost:4000/callback")).await.unwrap();
    assert_eq!((client.id.as_str(), client.kind), (id.as_str(), ClientKind::Document));
    assert_eq!(world.clients.authenticate(None, &form(&[("client_id", &id)])).await.unwrap(), client);
    assert_eq!(server.requests(), 1);

    // A redirect URI that is not known yet has the document fetched again.
    publish(&json!(["http://localhost/callback", "https://client.example/new"]));
    world.clock.advance(chrono::TimeDelta::minutes(1));
    let client = world.clients.find(&id, Some("https://client.example/new")).await.unwrap();
    assert!(client.allows_redirect("https://client.example/new"));
    assert_eq!(server.requests(), 2);
    let client = world.clients.find(&id, Some("https://evil.test/")).await.unwrap();
    assert!(!client.allows_redirect("https://evil.test/"));
    assert_eq!(server.requests(), 2);
}

#[tokio::test]
async fn trouble_with_a_document_is_told_on_a_page_and_passes_at_the_token_endpoint() {
    let server = Server::start().await;
    let world = World::new(server.network()).await;
    let id = server.url("/client.json");
    server.withdraw("/client.json");
    assert!(matches!(world.clients.find(&id, None).await, Err(ClientError::Document(_))));
    let error = world.clients.authenticate(None, &form(&[("client_id", &id)])).await.unwrap_err();
    // Not `invalid_client`, at which a host forgets its registration.
    assert_eq!((error.status, error.code), (503, "temporarily_unavailable"));
    assert!(error.retry_after.is_some());
}

#[tokio::test]
async fn a_url_that_cannot_be_a_client_id_is_an_unknown_client() {
    let world = World::new(Network::public()).await;
    let ours = format!("{ISSUER}/authorize");
    for id in ["https://a.example", "https://user@a.example/c", "http://a.example/c", &ours] {
        assert!(matches!(world.clients.find(id, None).await, Err(ClientError::Unknown(_))), "{id}");
        let error = world.clients.authenticate(None, &form(&[("client_id", id)])).await.unwrap_err();
        assert_eq!((error.status, error.code), (401, "invalid_client"), "{id}");
    }
}
