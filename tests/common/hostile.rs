//! A hostile upstream: it quotes the password, the token and the latest API key in every text field.

use std::{
    net::Ipv4Addr,
    sync::{Arc, Mutex},
};

use axum::{
    Json, Router,
    extract::{Path, State},
    http::{HeaderMap, StatusCode},
    routing::{delete, get, post},
};
use bondmcp_server::secret::SecretString;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::EMAIL;

/// Number of keys that the plan allows in addition to the listed ones. After them a rotation gives a key a new value.
pub const ADDITIONAL_KEYS: usize = 2;

/// A hostile upstream; it runs until the test ends. It lists `key_1` and `key_2` and revokes none. Only `EMAIL` can log
/// in. The usage of a key needs a token from a refresh, and the first refresh fails.
#[derive(Clone)]
pub struct Hostile {
    pub base_url: String,
    state: Arc<Mutex<Known>>,
}

#[derive(Default)]
struct Known {
    password: String,
    /// Every token and API key that it has issued.
    issued: Vec<String>,
    token: String,
    key: String,
    created: usize,
    refreshes: usize,
    /// The text that it writes, with `{password}`, `{token}` and `{key}` replaced.
    template: String,
}

impl Hostile {
    /// Starts an upstream that writes `template` wherever it can.
    pub async fn start(template: &str) -> Self {
        let state = Arc::new(Mutex::new(Known { template: template.to_owned(), ..Known::default() }));
        let router = Router::new()
            .route("/health", get(report))
            .route("/auth/register", post(register))
            .route("/auth/login", post(log_in))
            .route("/auth/refresh", post(refresh))
            .route("/auth/logout", post(async || Json(json!({ "message": "bye" }))))
            .route("/auth/me", get(me))
            .route("/auth/api-keys", get(keys).post(create))
            .route("/auth/api-keys/{id}", delete(revoke))
            .route("/api/v1/api-keys/usage/{id}", get(usage))
            .route("/api/v1/api-keys/{id}/regenerate", post(regenerate))
            .route("/health-ai/models", get(models))
            .route("/health-ai/{service}", post(health))
            .with_state(Arc::clone(&state));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let base_url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { base_url, state }
    }

    /// Returns the tokens and API keys that it has issued.
    pub fn issued(&self) -> Vec<SecretString> {
        self.state.lock().unwrap().issued.iter().map(|secret| secret.as_str().into()).collect()
    }

    /// Returns how often a session was refreshed, and how many keys were created.
    pub fn refreshed_and_created(&self) -> (usize, usize) {
        let known = self.state.lock().unwrap();
        (known.refreshes, known.created)
    }
}

impl Known {
    fn written(&self) -> String {
        let text = self.template.replace("{password}", &self.password);
        text.replace("{token}", &self.token).replace("{key}", &self.key)
    }

    fn issue(&mut self, kind: &str) -> String {
        let secret = format!("{kind}.{}", uuid::Uuid::new_v4());
        self.issued.push(secret.clone());
        secret
    }

    fn session(&mut self) -> Value {
        self.token = self.issue("opaque");
        let (token, refresh_token) = (&self.token.clone(), self.issue("renewing"));
        json!({"access_token": token, "token_type": "bearer", "expires_in": 3600, "refresh_token": refresh_token})
    }

    /// The answer that shows a key's value, which its texts quote already.
    fn new_key(&mut self, id: &str) -> Value {
        self.key = self.issue("bcp_");
        let written = self.written();
        json!({"id": id, "name": written, "description": written, "key_preview": written, "created_at": written,
            "regenerated_at": written, "api_key": self.key})
    }

    fn refusal(&self, status: StatusCode, headers: &HeaderMap, why: &str) -> (StatusCode, Json<Value>) {
        let bearer = headers.get("authorization").map_or("", |bearer| bearer.to_str().unwrap());
        (status, Json(json!({"error": {"message": format!("{why}{} {bearer}", self.written())}})))
    }
}

type Shared = State<Arc<Mutex<Known>>>;
type Answer = Result<Json<Value>, (StatusCode, Json<Value>)>;

async fn register(State(state): Shared, Json(body): Json<Value>) -> (StatusCode, Json<Value>) {
    let mut known = state.lock().unwrap();
    body["password"].as_str().unwrap().clone_into(&mut known.password);
    let written = known.written();
    (StatusCode::CREATED, Json(json!({"message": written, "user_id": "usr_2", "email": written})))
}

async fn log_in(State(state): Shared, headers: HeaderMap, Json(body): Json<Value>) -> Answer {
    let mut known = state.lock().unwrap();
    body["password"].as_str().unwrap().clone_into(&mut known.password);
    if body["email"] != EMAIL {
        return Err(known.refusal(StatusCode::CONFLICT, &headers, ""));
    }
    Ok(Json(known.session()))
}

async fn refresh(State(state): Shared, headers: HeaderMap) -> Answer {
    let mut known = state.lock().unwrap();
    known.refreshes += 1;
    if known.refreshes == 1 {
        return Err(known.refusal(StatusCode::INTERNAL_SERVER_ERROR, &headers, ""));
    }
    Ok(Json(known.session()))
}

/// The version is the token alone, since `doctor` does not show a long one.
async fn report(State(state): Shared) -> Json<Value> {
    let known = state.lock().unwrap();
    Json(json!({"status": known.written(), "version": known.token}))
}

async fn me(State(state): Shared, headers: HeaderMap) -> Answer {
    let known = state.lock().unwrap();
    if !headers.contains_key("authorization") {
        return Err(known.refusal(StatusCode::UNAUTHORIZED, &headers, ""));
    }
    let written = known.written();
    Ok(Json(
        json!({"id": "usr_1", "email": EMAIL, "name": written, "subscription": {"plan": written, "status": known.token}}),
    ))
}

async fn keys(State(state): Shared) -> Json<Value> {
    let written = state.lock().unwrap().written();
    let key = |id: &str| json!({"id": id, "name": written, "description": written, "key_preview": written, "created_at": written});
    Json(json!({"total": 2, "api_keys": [key("key_1"), key("key_2")]}))
}

async fn create(State(state): Shared, headers: HeaderMap) -> Answer {
    let mut known = state.lock().unwrap();
    if known.created == ADDITIONAL_KEYS {
        return Err(known.refusal(StatusCode::FORBIDDEN, &headers, "key limit: "));
    }
    known.created += 1;
    let id = format!("key_new_{}", known.created);
    Ok(Json(known.new_key(&id)))
}

async fn regenerate(State(state): Shared, Path(id): Path<String>) -> Json<Value> {
    Json(state.lock().unwrap().new_key(&id))
}

async fn revoke(State(state): Shared, headers: HeaderMap) -> (StatusCode, Json<Value>) {
    state.lock().unwrap().refusal(StatusCode::CONFLICT, &headers, "")
}

async fn usage(State(state): Shared, Path(id): Path<String>, headers: HeaderMap) -> Answer {
    let known = state.lock().unwrap();
    if known.refreshes < 2 {
        return Err(known.refusal(StatusCode::UNAUTHORIZED, &headers, ""));
    }
    let written = known.written();
    Ok(Json(json!({
        "key_id": id,
        "name": written,
        "usage_stats": {"total_requests": 1, "last_used": written, "first_used": written},
        "rate_limit": {"limit": 1, "remaining": 1, "reset_at": written},
        "endpoints_used": [{"endpoint": written, "count": 1}],
    })))
}

async fn models(State(state): Shared) -> Json<Value> {
    let written = state.lock().unwrap().written();
    let mut model = json!({"id": "m1", "name": written});
    model[&written] = json!([written]);
    Json(json!([model]))
}

async fn health(State(state): Shared) -> Json<Value> {
    let written = state.lock().unwrap().written();
    Json(json!({"analysis": written, "cost": 0.05, written.as_str(): {"deep": written}}))
}
