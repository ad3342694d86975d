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
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::watch};

use crate::common::secrets;

/// The upstream in front of a sandbox.
#[derive(Clone)]
pub struct Upstream {
    http: reqwest::Client,
    address: SocketAddr,
    sandbox: SocketAddr,
    /// By e-mail address.
    accounts: Arc<BTreeMap<String, Account>>,
}

pub struct Account {
    password: SecretString,
    /// Requests a minute.
    limit: u64,
    /// Number of requests with a credential of the account.
    arrived: watch::Sender<u64>,
    issued: Mutex<Issued>,
}

/// The credentials of an account.
#[derive(Default)]
pub struct Issued {
    pub tokens: Vec<String>,
    pub keys: Vec<String>,
}

impl Issued {
    fn contains(&self, credential: &str) -> bool {
        self.tokens.iter().chain(&self.keys).any(|issued| issued == credential)
    }

    /// Returns the signatures of the tokens, and the keys without their prefix: secrets that do not have the shape of
    /// one, which would be redacted for everybody.
    fn without_shape(&self) -> Self {
        let tokens = self.tokens.iter().map(|token| token.rsplit_once('.').unwrap().1.to_owned());
        let keys = self.keys.iter().map(|key| key.split_once('_').unwrap().1.to_owned());
        Self { tokens: tokens.collect(), keys: keys.collect() }
    }
}

impl Account {
    pub fn new(password: SecretString, limit: u64) -> Self {
        Self { password, limit, arrived: watch::Sender::default(), issued: Mutex::default() }
    }
}

impl Upstream {
    pub async fn start(sandbox: &RunningSandbox, accounts: BTreeMap<String, Account>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, sandbox) = (listener.local_addr().unwrap(), sandbox.address());
        let upstream = Self { http: reqwest::Client::new(), address, sandbox, accounts: Arc::new(accounts) };
        let router = Router::new().fallback(answer).with_state(upstream.clone());
        tokio::spawn(async { axum::serve(listener, router).await });
        upstream
    }

    pub fn base_url(&self) -> String {
        format!("http://{}/mcp", self.address)
    }

    /// Waits until so many more requests with a credential of the account have arrived.
    pub fn arrived(&self, email: &str, more: u64) -> impl Future<Output = ()> + use<> {
        let mut arrived = self.accounts[email].arrived.subscribe();
        let wanted = *arrived.borrow() + more;
        async move {
            arrived.wait_for(|arrived| *arrived >= wanted).await.unwrap();
        }
    }

    /// Returns what was issued to the account, without what gives it the shape of a secret.
    pub fn issued(&self, email: &str) -> Issued {
        self.accounts[email].issued.lock().without_shape()
    }

    /// Records what an answer issues to the account.
    fn record(&self, email: &str, answer: &Value) {
        let mut issued = self.accounts[email].issued.lock();
        if let Some(token) = answer["access_token"].as_str() {
            issued.tokens.push(token.to_owned());
        }
        if let Some(key) = answer["api_key"].as_str() {
            issued.keys.push(key.to_owned());
        }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.sandbox)
    }

    /// Returns the account whose credential this is, if it is one.
    fn account(&self, headers: &HeaderMap) -> Option<(&String, &Account)> {
        let credential = headers.get(header::AUTHORIZATION)?.to_str().unwrap().strip_prefix("Bearer ")?;
        self.accounts.iter().find(|(_, account)| account.issued.lock().contains(credential))
    }
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
    let account = upstream.account(&headers);
    if let Some((_, account)) = account {
        account.arrived.send_modify(|arrived| *arrived += 1);
    }
    let request = upstream.http.request(method, upstream.url(path)).headers(forwarded).body(body.clone());
    let answer = request.send().await.unwrap();
    let (status, mut headers_back) = (answer.status(), answer.headers().clone());
    let mut bytes = answer.bytes().await.unwrap();
    if let Ok(content) = serde_json::from_slice::<Value>(&bytes)
        && let Some(email) = account.map(|(email, _)| email.as_str()).or(content["user"]["email"].as_str())
    {
        upstream.record(email, &content);
    }
    if status == StatusCode::OK
        && let Some((email, Account { password, limit, .. })) = account
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
