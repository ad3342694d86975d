//! rmcp's client as a program of its own, for a person with a browser: `rmcp_client URL [CLIENT_ID]`. It shows the address to
//! open, takes the code on loopback, calls a tool before and after a refresh, and revokes what it has. With the id of a client
//! that the operator has added, it asks for the scope `models` first, and for more when a call needs it.
#![allow(clippy::print_stdout, reason = "what it shows is looked at")]
#![allow(clippy::disallowed_types, reason = "this is the host's side")]

use std::collections::HashMap;

use anyhow::{Context as _, Result, ensure};
use axum::{Router, http::Uri, routing::get};
use rmcp::{
    RoleClient, ServiceExt as _,
    model::{CallToolRequestParams, ClientCapabilities, ClientConfig, Implementation},
    service::RunningService,
    transport::{
        AuthClient, StreamableHttpClientTransport,
        auth::{AuthorizationRequest, OAuthState},
        streamable_http_client::StreamableHttpClientTransportConfig,
    },
};
use serde_json::json;
use tokio::{net::TcpListener, sync::mpsc};
use url::{
    Url,
    form_urlencoded::{self, Serializer},
};

#[tokio::main]
async fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let url = arguments.next().context("usage: rmcp_client URL [CLIENT_ID]")?;
    let client_id = arguments.next();
    let http = http_client()?;
    let (redirect_uri, mut callbacks) = callback().await?;
    let mut state = OAuthState::new(&url, Some(http.clone())).await?;
    let request = AuthorizationRequest::new(&redirect_uri);
    let request = match &client_id {
        Some(id) => request.with_preregistered_client(id).with_scopes(["models"]),
        None => request.with_client_name("rmcp"),
    };
    state.start_authorization(request).await?;
    println!("{}", state.get_authorization_url().await?);
    let query = callbacks.recv().await.context("no callback")?;
    state.handle_callback_url(&format!("{redirect_uri}?{query}")).await?;

    let manager = state.into_authorization_manager().context("not authorized")?;
    let auth = AuthClient::new(http.clone(), manager);
    let config = StreamableHttpClientTransportConfig::with_uri(url.clone());
    let transport = StreamableHttpClientTransport::with_client(auth.clone(), config);
    let host = ClientConfig::new(ClientCapabilities::default(), Implementation::new("rmcp_client", "1"));
    let client = host.serve(transport).await?;
    println!("{}", models(&client).await?);
    auth.auth_manager.lock().await.refresh_token().await?;
    println!("{}", models(&client).await?);
    if client_id.is_some() {
        println!("{}", analyzed(&client, &auth, &mut callbacks).await?);
    }

    let (client_id, tokens) = auth.auth_manager.lock().await.get_credentials().await?;
    let tokens = serde_json::to_value(tokens)?;
    let token = tokens["refresh_token"].as_str().context("no refresh token")?;
    let form = Serializer::new(String::new())
        .append_pair("token", token)
        .append_pair("client_id", &client_id)
        .finish();
    let request = http.post(url.parse::<Url>()?.join("/revoke")?);
    let request = request.header("content-type", "application/x-www-form-urlencoded");
    request.body(form).send().await?.error_for_status()?;
    ensure!(models(&client).await.is_err(), "a revoked token still works");
    println!("revoked");
    Ok(())
}

/// Makes a call that needs more than the person has agreed to, asks for that, and makes the call again.
async fn analyzed(
    client: &RunningService<RoleClient, ClientConfig>,
    auth: &AuthClient<reqwest::Client>,
    callbacks: &mut mpsc::Receiver<String>,
) -> Result<String> {
    let question = json!({"prompt": "Why do we sleep?", "analysis_type": "general"});
    let question = question.as_object().cloned().unwrap_or_default();
    let call = || CallToolRequestParams::new("health_analyze").with_arguments(question.clone());
    let refused = client.call_tool(call()).await.err().context("the call was not refused")?;
    let challenge = refused.auth_challenge().context("no challenge")?;
    let scope = challenge.split_once(r#"scope=""#).and_then(|(_, rest)| rest.split_once('"'));
    let (scope, _) = scope.context("the challenge names no scope")?;
    let manager = auth.auth_manager.lock().await;
    println!("{}", manager.request_scope_upgrade(scope).await?);
    let query = callbacks.recv().await.context("no callback")?;
    let answer: HashMap<_, _> = form_urlencoded::parse(query.as_bytes()).into_owned().collect();
    let (code, state) = (&answer["code"], &answer["state"]);
    let issuer = answer.get("iss").map(String::as_str);
    manager.exchange_code_for_token_with_issuer(code, state, issuer).await?;
    drop(manager);
    Ok(client.call_tool(call()).await?.structured_content.context("no analysis")?.to_string())
}

/// A client that trusts the authority in `SSL_CERT_FILE`, too.
fn http_client() -> Result<reqwest::Client> {
    let mut client = reqwest::Client::builder();
    if let Some(file) = std::env::var_os("SSL_CERT_FILE") {
        client = client.add_root_certificate(reqwest::Certificate::from_pem(&std::fs::read(file)?)?);
    }
    Ok(client.build()?)
}

/// Serves a redirect URI on loopback; returns it, and the queries of the requests to it.
async fn callback() -> Result<(String, mpsc::Receiver<String>)> {
    let (queries, callbacks) = mpsc::channel(1);
    let answer = move |uri: Uri| {
        let queries = queries.clone();
        async move {
            let _ = queries.send(uri.query().unwrap_or_default().to_owned()).await;
            "Back in the app"
        }
    };
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let redirect_uri = format!("http://{}/callback", listener.local_addr()?);
    tokio::spawn(async { axum::serve(listener, Router::new().route("/callback", get(answer))).await });
    Ok((redirect_uri, callbacks))
}

async fn models(client: &RunningService<RoleClient, ClientConfig>) -> Result<String> {
    let listed = client.call_tool(CallToolRequestParams::new("list_models")).await?;
    Ok(listed.structured_content.context("no models")?.to_string())
}
