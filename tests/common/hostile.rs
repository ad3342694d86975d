//! A hostile upstream: it quotes the password and the token in every text field.

use std::{
    net::Ipv4Addr,
    sync::{Arc, Mutex},
};

use axum::{
    Json, Router,
    extract::State,
    http::HeaderMap,
    routing::{delete, get, post},
};
use bondmcp_server::secret::SecretString;
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// A hostile upstream; it runs until the test ends.
#[derive(Clone)]
pub struct Hostile {
    pub base_url: String,
    state: Arc<Mutex<Known>>,
}

#[derive(Default)]
struct Known {
    password: String,
    tokens: Vec<String>,
    /// The text that it writes, with `{password}` and `{token}` replaced.
    template: String,
}

impl Hostile {
    /// Starts an upstream that writes `template` wherever it can.
    pub async fn start(template: &str) -> Self {
        let state = Arc::new(Mutex::new(Known { template: template.to_owned(), ..Known::default() }));
        let router = Router::new()
            .route("/auth/login", post(log_in))
            .route("/auth/logout", post(async || Json(json!({ "message": "bye" }))))
            .route("/auth/me", get(me))
            .route("/auth/api-keys", get(keys))
            .route("/auth/api-keys/{id}", delete(refuse))
            .route("/health-ai/models", get(models))
            .route("/health-ai/{service}", post(health))
            .with_state(Arc::clone(&state));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let base_url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { base_url, state }
    }

    /// Returns the tokens that it has issued.
    pub fn tokens(&self) -> Vec<SecretString> {
        self.state.lock().unwrap().tokens.iter().map(|token| token.as_str().into()).collect()
    }
}

impl Known {
    fn written(&self) -> String {
        let token = self.tokens.last().map(String::as_str).unwrap_or_default();
        self.template.replace("{password}", &self.password).replace("{token}", token)
    }
}

type Shared = State<Arc<Mutex<Known>>>;

async fn log_in(State(state): Shared, Json(body): Json<Value>) -> Json<Value> {
    let mut known = state.lock().unwrap();
    body["password"].as_str().unwrap().clone_into(&mut known.password);
    let token = format!("opaque.{}", uuid::Uuid::new_v4());
    known.tokens.push(token.clone());
    Json(json!({"access_token": token, "token_type": "bearer", "expires_in": 3600}))
}

async fn me(State(state): Shared) -> Json<Value> {
    let written = state.lock().unwrap().written();
    Json(
        json!({"id": "usr_1", "email": "ada@example.com", "name": written, "subscription": {"plan": written}}),
    )
}

async fn keys(State(state): Shared) -> Json<Value> {
    let written = state.lock().unwrap().written();
    Json(json!({"total": 1, "api_keys": [
        {"id": "key_1", "name": written, "description": written, "key_preview": written, "created_at": written}]}))
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

async fn refuse(State(state): Shared, headers: HeaderMap) -> (axum::http::StatusCode, Json<Value>) {
    let written = state.lock().unwrap().written();
    let authorization = headers["authorization"].to_str().unwrap().to_owned();
    (
        axum::http::StatusCode::CONFLICT,
        Json(json!({"error": {"message": format!("{written} {authorization}")}})),
    )
}
