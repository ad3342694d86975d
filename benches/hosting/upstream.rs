//! A BondMCP that answers at once and takes any password: what is measured is the server's own time.

use anyhow::Result;
use axum::{
    Json, Router,
    http::{HeaderMap, StatusCode, header::AUTHORIZATION},
    routing::{get, post},
};
use bondmcp_server::secret::{self, ExposeSecret as _};
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// Starts it; returns its base URL.
pub async fn start() -> Result<String> {
    let models = async || Json(json!({"models": [{"id": "model-1", "name": "One"}]}));
    let router = Router::new()
        .route("/auth/login", post(log_in))
        .route("/auth/me", get(me))
        .route("/auth/api-keys", get(async || Json(json!({"api_keys": [], "total": 0}))).post(create_key))
        .route("/health-ai/models", get(models));
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let base_url = format!("http://{}", listener.local_addr()?);
    tokio::spawn(async { axum::serve(listener, router).await });
    Ok(base_url)
}

async fn log_in(Json(asked): Json<Value>) -> Json<Value> {
    let email = asked["email"].as_str().unwrap_or_default();
    let token = format!("{email}-has-{}", secret::random().expose_secret());
    Json(json!({"access_token": token, "token_type": "bearer", "expires_in": 86400, "user": user(email)}))
}

async fn me(headers: HeaderMap) -> Result<Json<Value>, StatusCode> {
    let token = headers.get(AUTHORIZATION).and_then(|token| token.to_str().ok()?.strip_prefix("Bearer "));
    let (email, _) = token.and_then(|token| token.split_once("-has-")).ok_or(StatusCode::UNAUTHORIZED)?;
    Ok(Json(user(email)))
}

async fn create_key(Json(asked): Json<Value>) -> (StatusCode, Json<Value>) {
    let (id, key) = (secret::random(), secret::random());
    let (id, key) = (format!("key_{}", &id.expose_secret()[..12]), format!("bond_{}", key.expose_secret()));
    let answer =
        json!({"id": id, "name": asked["name"], "api_key": key, "key_preview": "bond_…", "is_active": true});
    (StatusCode::CREATED, Json(answer))
}

fn user(email: &str) -> Value {
    json!({"id": email.replace("@example.com", ""), "email": email})
}
