//! rmcp's own client at a hosted server, in each way in which a server can know a client: from the challenge to calls,
//! refresh, step-up and revocation. The person signs in and agrees on the pages. `tests/oauth_clients` has the same over TLS
//! with a person in Chromium, but for the metadata document: the program fetches documents from public addresses only.
#![allow(clippy::disallowed_types, reason = "this is the host's side")]

use crate::common::{
    consent::Browser,
    hosted_server::{HostedServer, Setup, parameter},
    publisher::Publisher,
    request, secrets, within,
};
use bondmcp_server::oauth::{ClientKind, NewClient, Scopes};
use rmcp::{
    RoleClient, ServiceExt as _,
    model::{CallToolResult, ClientConfig},
    service::{RunningService, ServiceError},
    transport::{
        AuthClient, StreamableHttpClientTransport,
        auth::{AuthorizationRequest, OAuthState},
        streamable_http_client::StreamableHttpClientTransportConfig,
    },
};
use serde_json::{Value, json};
use url::Url;

const CALLBACK: &str = "http://127.0.0.1:3118/callback";

/// A client that a person has agreed to.
struct Connected<'a> {
    server: &'a HostedServer,
    client_id: String,
    auth: AuthClient<reqwest::Client>,
    client: RunningService<RoleClient, ClientConfig>,
}

impl<'a> Connected<'a> {
    /// Connects a client that asks for `scopes`, or for what the server offers.
    async fn new(
        server: &'a HostedServer,
        kind: ClientKind,
        scopes: &[&str],
        request: AuthorizationRequest,
    ) -> Self {
        let resource = format!("{}/mcp", server.origin);
        let mut state = OAuthState::new(&resource, None).await.unwrap();
        let request = request.with_scopes(scopes.iter().copied());
        within(Box::pin(state.start_authorization(request))).await.unwrap();
        let url: Url = within(state.get_authorization_url()).await.unwrap().parse().unwrap();
        assert_eq!(url.path(), "/authorize");
        let (asked, answer) = Box::pin(agree(server, &url)).await;
        assert_eq!(asked.client.kind, kind);
        let expected = if scopes.is_empty() { Scopes::all() } else { Scopes::parse(&scopes.join(" ")) };
        assert_eq!(asked.scopes, expected);
        within(Box::pin(state.handle_callback_url(answer.as_str()))).await.unwrap();
        within(Box::pin(state.refresh_token())).await.unwrap();

        let auth = AuthClient::new(reqwest::Client::new(), state.into_authorization_manager().unwrap());
        let config = StreamableHttpClientTransportConfig::with_uri(resource);
        let transport = StreamableHttpClientTransport::with_client(auth.clone(), config);
        let client = within(Box::pin(crate::common::host().serve(transport))).await.unwrap();
        Self { server, client_id: asked.client.id, auth, client }
    }

    async fn call(&self, tool: &'static str, arguments: Value) -> Result<CallToolResult, ServiceError> {
        within(self.client.call_tool(request(tool, arguments))).await
    }

    async fn count_models(&self) -> Value {
        self.call("list_models", json!({})).await.unwrap().structured_content.unwrap()["count"].take()
    }

    /// Revokes what the client has, as rmcp does not; then it must authorize again.
    async fn revoke(self, secret: Option<&str>) {
        let (_, tokens) = within(self.auth.auth_manager.lock().await.get_credentials()).await.unwrap();
        let tokens = serde_json::to_value(tokens).unwrap();
        let mut form = vec![
            ("token", tokens["refresh_token"].as_str().unwrap()),
            ("client_id", self.client_id.as_str()),
        ];
        form.extend(secret.map(|secret| ("client_secret", secret)));
        let (status, answer) = self.server.post_form("/revoke", &form).await;
        assert_eq!(status, 200, "{answer}");
        let error = self.call("list_models", json!({})).await.unwrap_err();
        assert!(error.is_authorization_required(), "{error}");
        let challenge = error.auth_challenge().unwrap();
        assert!(challenge.contains(r#"error="invalid_token""#), "{challenge}");
        within(self.client.cancel()).await.unwrap();
    }
}

/// Signs in and agrees to all that is asked for at `url`; returns that, and where the client receives the code.
async fn agree(server: &HostedServer, url: &Url) -> (bondmcp_server::oauth::AuthorizationRequest, Url) {
    let asked = server.server.authorization_request(url.query().unwrap()).await.unwrap();
    (asked, Browser::new(&[server]).allow_at(url.as_str()).await)
}

async fn registered(server: &HostedServer, is_confidential: bool) -> (String, Option<String>) {
    let new = NewClient { name: "rmcp".into(), redirect_uris: vec![CALLBACK.into()], is_confidential };
    let added = server.server.clients().add(new).await.unwrap();
    (added.client.id, added.secret.map(|secret| secrets::text(&secret).to_owned()))
}

/// RFC 7591.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_registers_itself() {
    let server = HostedServer::start().await;
    let request = AuthorizationRequest::new(CALLBACK).with_client_name("rmcp");
    let connected = Connected::new(&server, ClientKind::Dynamic, &[], request).await;
    let tools = within(connected.client.list_all_tools()).await.unwrap();
    assert!(tools.iter().any(|tool| tool.name == "health_analyze"));
    assert_eq!(connected.count_models().await, 3);
    connected.revoke(None).await;
}

/// OAuth Client ID Metadata Document.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_with_a_metadata_document() {
    let publisher = Publisher::start().await;
    let server = HostedServer::start_with(Setup { network: publisher.network(), ..Setup::default() }).await;
    let id = publisher.publish(&json!({
        "client_id": "https://rmcp.example/client.json", "client_name": "rmcp", "redirect_uris": [CALLBACK],
        "grant_types": ["authorization_code", "refresh_token"], "response_types": ["code"],
        "token_endpoint_auth_method": "none",
    }));
    // It has both, and the server's metadata says that documents are understood.
    let request = AuthorizationRequest::new(CALLBACK).with_client_name("rmcp").with_client_metadata_url(&id);
    let connected = Connected::new(&server, ClientKind::Document, &[], request).await;
    assert_eq!(connected.client_id, id);
    assert_eq!(connected.count_models().await, 3);
    connected.revoke(None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_the_operator_has_added() {
    let server = HostedServer::start().await;
    for is_confidential in [false, true] {
        let (id, secret) = registered(&server, is_confidential).await;
        let mut request = AuthorizationRequest::new(CALLBACK).with_preregistered_client(&id);
        if let Some(secret) = &secret {
            request = request.with_client_secret(secret);
        }
        let connected = Connected::new(&server, ClientKind::Registered, &[], request).await;
        assert_eq!((&connected.client_id, connected.count_models().await), (&id, json!(3)));
        connected.revoke(secret.as_deref()).await;
    }
}

/// MCP authorization, "Step-Up Authorization Flow".
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_needs_more_than_the_person_has_agreed_to() {
    let server = HostedServer::start().await;
    let (id, _) = registered(&server, false).await;
    let request = AuthorizationRequest::new(CALLBACK).with_preregistered_client(&id);
    let connected = Connected::new(&server, ClientKind::Registered, &["models"], request).await;
    assert_eq!(connected.count_models().await, 3);
    let question = json!({"prompt": "Why?", "analysis_type": "general"});
    let error = connected.call("health_analyze", question.clone()).await.unwrap_err();
    let challenge = error.auth_challenge().unwrap_or_else(|| panic!("{error:?}"));
    assert!(challenge.contains(r#"error="insufficient_scope""#), "{challenge}");
    let (_, scope) = challenge.split_once(r#"scope=""#).unwrap();
    let scope = scope.split_once('"').unwrap().0;
    assert_eq!(scope, "health");

    {
        let manager = connected.auth.auth_manager.lock().await;
        let url: Url = within(manager.request_scope_upgrade(scope)).await.unwrap().parse().unwrap();
        let (asked, answer) = agree(&server, &url).await;
        assert_eq!(asked.scopes, Scopes::parse("models health"));
        let [code, state, issuer] = ["code", "state", "iss"].map(|name| parameter(&answer, name));
        let exchange = manager.exchange_code_for_token_with_issuer(&code, &state, Some(&issuer));
        within(exchange).await.unwrap();
    }
    let answer = connected.call("health_analyze", question).await.unwrap();
    assert_ne!(answer.is_error, Some(true), "{answer:?}");
    assert_eq!(connected.count_models().await, 3);
    connected.revoke(None).await;
}
