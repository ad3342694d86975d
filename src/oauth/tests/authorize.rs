//! Authorization requests.

use serde_json::json;

use super::*;

async fn page_error(hosting: &Hosting, others: &[(&str, &str)]) -> &'static str {
    match hosting.server.authorization_request(&hosting.query(others)).await {
        Err(RequestError::Page(text)) => text,
        other => panic!("{others:?}: {other:?}"),
    }
}

/// Returns the code of an error that is told to the client.
async fn redirect_error(hosting: &Hosting, query: &str) -> String {
    let Err(RequestError::Redirect { to: url, .. }) = hosting.server.authorization_request(query).await
    else {
        panic!("{query}");
    };
    assert!(url.as_str().starts_with("https://host.example/callback?"), "{url}");
    assert_eq!(parameter(&url, "iss").as_deref(), Some(ORIGIN));
    assert!(parameter(&url, "code").is_none());
    parameter(&url, "error").unwrap()
}

#[tokio::test]
async fn a_sound_request_is_read() {
    let hosting = Hosting::new().await;
    let request =
        hosting.request(&[("prompt", "consent"), ("nonce", "x"), ("response_mode", "fragment")]).await;
    assert_eq!(request.client.id, hosting.client);
    assert!(request.client.redirect_uris.is_empty(), "they would be stored at each step");
    assert_eq!((&*request.redirect_uri, &*request.code_challenge), (REDIRECT_URI, CHALLENGE));
    assert_eq!(request.state.as_deref(), Some("a state & more"));
    assert_eq!(request.redirect_host(), "host.example");
    assert_eq!(request.reference.len(), 8);
    assert!(!request.reference.contains(['I', 'O', '0', '1']), "{}", request.reference);
    assert_ne!(request.reference, hosting.request(&[]).await.reference);
}

#[tokio::test]
async fn scopes_are_reduced_to_ours_and_all_where_none_of_ours_was_asked_for() {
    let hosting = Hosting::new().await;
    for (asked, read) in [
        ("", "models health keys"),
        (" health offline_access", "health"),
        ("openid offline_access", "models health keys"),
        ("keys  models", "models keys"),
    ] {
        assert_eq!(hosting.request(&[("scope", asked)]).await.scopes.to_string(), read, "{asked}");
    }
}

#[tokio::test]
async fn the_resource_is_ours_or_absent() {
    let hosting = Hosting::new().await;
    for ours in ["", "https://bond.example.com", "https://bond.example.com/", "https://bond.example.com/mcp/"]
    {
        hosting.request(&[("resource", ours)]).await;
    }
    // RFC 8707, section 2: it may occur more than once.
    hosting.request(&[("resource", ORIGIN), ("resource", "https://bond.example.com/mcp")]).await;
    for other in ["https://other.example/mcp", "https://bond.example.com/other", "x"] {
        let query = hosting.query(&[("resource", ORIGIN), ("resource", other)]);
        assert_eq!(redirect_error(&hosting, &query).await, "invalid_target", "{other}");
    }
}

#[tokio::test]
async fn a_client_with_one_redirect_uri_need_not_name_it() {
    let hosting = Hosting::new().await;
    assert_eq!(hosting.request(&[("redirect_uri", "")]).await.redirect_uri, REDIRECT_URI);
}

/// RFC 6749, section 10.15, and RFC 9700, section 4.11.2: the server redirects to no address that is not the client's.
#[tokio::test]
async fn nothing_is_redirected_before_client_and_redirect_uri_are_known() {
    let hosting = Hosting::new().await;
    for redirect_uri in [
        "https://evil.test/callback",
        "https://host.example/callback/more",
        "https://host.example/callbac",
        "https://host.example/callback#x",
        "https://host.example/callback?x",
        "https://HOST.example/callback",
        "https://host.example@evil.test/callback",
        "https://host.example.evil.test/callback",
        "https://host.example/%63allback",
        "http://host.example/callback",
        "javascript:alert(1)",
        "//evil.test",
    ] {
        let text = page_error(&hosting, &[("redirect_uri", redirect_uri), ("response_type", "token")]).await;
        assert!(!text.contains(redirect_uri), "what was sent is not shown");
    }
    page_error(&hosting, &[("client_id", "")]).await;
    page_error(&hosting, &[("client_id", "unknown")]).await;
    page_error(&hosting, &[("client_id", &hosting.client), ("client_id", "other")]).await;
    page_error(&hosting, &[("redirect_uri", REDIRECT_URI), ("redirect_uri", "https://evil.test")]).await;
    page_error(&hosting, &[("state", &"x".repeat(9000))]).await;
}

#[tokio::test]
async fn an_error_of_the_client_is_told_to_it_with_state_and_issuer() {
    let hosting = Hosting::new().await;
    let query = hosting.query(&[("response_type", "token")]);
    let Err(RequestError::Redirect { to: url, .. }) = hosting.server.authorization_request(&query).await
    else {
        panic!()
    };
    assert_eq!(parameter(&url, "state").as_deref(), Some("a state & more"));
    assert_eq!(redirect_error(&hosting, &query).await, "unsupported_response_type");
    // RFC 9700, sections 2.1.1 and 4.8; RFC 7636, section 4.4.1: PKCE, and not `plain`.
    let long = "x".repeat(44);
    for wrong in [
        ("response_type", ""),
        ("code_challenge", ""),
        ("code_challenge", "short"),
        ("code_challenge", &*long),
        ("code_challenge", "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw+cM"),
        ("code_challenge_method", ""),
        ("code_challenge_method", "plain"),
        ("code_challenge_method", "s256"),
    ] {
        assert_eq!(redirect_error(&hosting, &hosting.query(&[wrong])).await, "invalid_request", "{wrong:?}");
    }
}

/// RFC 6749, section 3.1.
#[tokio::test]
async fn a_parameter_that_occurs_twice_is_refused() {
    let hosting = Hosting::new().await;
    for name in ["response_type", "state", "code_challenge", "code_challenge_method", "scope"] {
        let query = format!("{}&{name}=x&{name}=y", hosting.query(&[]));
        assert_eq!(redirect_error(&hosting, &query).await, "invalid_request", "{name}");
    }
}

#[tokio::test]
async fn an_answer_keeps_the_query_of_the_redirect_uri_and_names_the_issuer() {
    let hosting = Hosting::new().await;
    let redirect_uri = "https://host.example/callback?tenant=1";
    let client = register(&hosting.server, redirect_uri);
    let request = hosting.request(&[("client_id", &client), ("redirect_uri", redirect_uri)]).await;
    let denied = hosting.server.error_response(&request, AuthorizationErrorCode::AccessDenied);
    assert_eq!(
        denied.as_str(),
        "https://host.example/callback?tenant=1&error=access_denied&state=a+state+%26+more&iss=https%3A%2F%2Fbond.example.com"
    );
}

/// RFC 9207, section 4: the issuer tells a client which server answers (mix-up); Codex needs it left out.
#[tokio::test]
async fn the_issuer_is_named_and_advertised_unless_the_operator_stops_both() {
    let hosting = Hosting::new().await;
    let silent = hosting.replica_with(|settings| settings.sends_iss = false).await;
    let (request, grant) = hosting.grant().await;
    for (server, iss) in [(&hosting.server, Some(ORIGIN)), (&silent, None)] {
        let answer = server.authorization_response(&request, &grant).await.unwrap();
        assert_eq!(parameter(&answer, "iss").as_deref(), iss);
        let metadata = server.authorization_server_metadata();
        let advertised = metadata["authorization_response_iss_parameter_supported"].as_bool();
        assert_eq!(advertised, iss.map(|_| true));
    }
}

#[tokio::test]
async fn the_metadata_is_as_hosts_need_it() {
    let hosting = Hosting::new().await;
    let metadata = hosting.server.authorization_server_metadata();
    for (name, value) in [
        // RFC 8414, section 3.3: the issuer is compared byte by byte.
        ("issuer", json!("https://bond.example.com")),
        // claude.ai takes these three without looking.
        ("authorization_endpoint", json!("https://bond.example.com/authorize")),
        ("token_endpoint", json!("https://bond.example.com/token")),
        ("registration_endpoint", json!("https://bond.example.com/register")),
        // MCP: a client must not go on without it.
        ("code_challenge_methods_supported", json!(["S256"])),
        // Claude uses its metadata document only where both are said.
        ("client_id_metadata_document_supported", json!(true)),
        (
            "token_endpoint_auth_methods_supported",
            json!(["none", "client_secret_basic", "client_secret_post", "private_key_jwt"]),
        ),
        ("scopes_supported", json!(["models", "health", "keys"])),
    ] {
        assert_eq!(metadata[name], value, "{name}");
    }
    let resource = hosting.server.protected_resource_metadata();
    assert_eq!(resource["resource"], "https://bond.example.com/mcp");
    assert_eq!(resource["authorization_servers"], json!(["https://bond.example.com"]));
    hosting.server.check_ready().await.unwrap();
    assert_eq!(hosting.server.jwks().await.unwrap()["keys"].as_array().unwrap().len(), 1);
}
