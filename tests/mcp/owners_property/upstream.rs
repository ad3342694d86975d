//! BondMCP as it could be at its worst: the models, the plan and the limit are the account's own, the name of a model
//! quotes the account's secrets, and an answer quotes the question and says with whose model it was made.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::State,
    http::{HeaderMap, Method, StatusCode, Uri, header},
    response::Response,
};
use bondmcp_server::{sandbox::RunningSandbox, secret::SecretString};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::common::secrets;

/// The upstream in front of a sandbox.
#[derive(Clone)]
pub struct Upstream {
    http: reqwest::Client,
    sandbox: SocketAddr,
    /// By e-mail address.
    accounts: Arc<BTreeMap<String, Account>>,
}

pub struct Account {
    pub password: SecretString,
    /// Requests a minute.
    pub limit: u64,
}

impl Upstream {
    /// Starts it; returns its base URL.
    pub async fn start(sandbox: &RunningSandbox, accounts: BTreeMap<String, Account>) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base_url = format!("http://{}/mcp", listener.local_addr().unwrap());
        let upstream =
            Self { http: reqwest::Client::new(), sandbox: sandbox.address(), accounts: Arc::new(accounts) };
        let router = Router::new().fallback(answer).with_state(upstream);
        tokio::spawn(async { axum::serve(listener, router).await });
        base_url
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.sandbox)
    }

    /// Returns the e-mail address of the account whose credential this is, if it is one.
    async fn account(&self, headers: &HeaderMap) -> Option<String> {
        let me = self.http.get(self.url("/mcp/auth/me")).headers(only_authorization(headers));
        let me: Value = serde_json::from_slice(&me.send().await.unwrap().bytes().await.unwrap()).unwrap();
        me["email"].as_str().map(ToOwned::to_owned)
    }
}

fn only_authorization(headers: &HeaderMap) -> HeaderMap {
    headers
        .iter()
        .filter(|(name, _)| *name == header::AUTHORIZATION)
        .map(|(k, v)| (k.clone(), v.clone()))
        .collect()
}

/// The id of a model that only this account has.
pub fn model(email: &str) -> String {
    format!("model-of-{}", email.split('@').next().unwrap())
}

/// The name of a plan that only this account has.
pub fn plan(email: &str) -> String {
    format!("plan-of-{}", email.split('@').next().unwrap())
}

async fn answer(
    State(upstream): State<Upstream>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let mut forwarded = headers.clone();
    forwarded.remove(header::HOST);
    forwarded.remove(header::CONTENT_LENGTH);
    let path = uri.path_and_query().unwrap().as_str();
    // Asked before: a log-out ends the credential.
    let account = upstream.account(&headers).await;
    let account = account.as_ref().map(|email| (email, &upstream.accounts[email]));
    let request = upstream.http.request(method, upstream.url(path)).headers(forwarded).body(body.clone());
    let answer = request.send().await.unwrap();
    let (status, mut headers_back) = (answer.status(), answer.headers().clone());
    let mut bytes = answer.bytes().await.unwrap();
    if status == StatusCode::OK
        && let Some((email, Account { password, limit })) = account
        && let Ok(mut content) = serde_json::from_slice::<Value>(&bytes)
    {
        headers_back.insert("x-ratelimit-limit", (*limit).into());
        if path.ends_with("/health-ai/models") {
            let credential = headers[header::AUTHORIZATION].to_str().unwrap();
            let quoted = format!("{credential} {}", secrets::text(password));
            let own = json!({"id": model(email), "name": quoted, "category": "general"});
            content["models"].as_array_mut().unwrap().push(own);
        } else if path.ends_with("/auth/me") {
            content["subscription"]["plan"] = plan(email).into();
        } else if path.ends_with("/health-ai/analyze") {
            let asked: Value = serde_json::from_slice(&body).unwrap();
            let prompt = asked["prompt"].as_str().unwrap_or_default();
            content["analysis"] = format!("{prompt} (by {})", model(email)).into();
        }
        bytes = serde_json::to_vec(&content).unwrap().into();
    } else {
        headers_back.remove("x-ratelimit-limit");
    }
    headers_back.remove(header::CONTENT_LENGTH);
    headers_back.remove(header::TRANSFER_ENCODING);
    let mut response = Response::new(Body::from(bytes));
    *response.status_mut() = status;
    *response.headers_mut() = headers_back;
    response
}
