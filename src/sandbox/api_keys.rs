//! API keys: shown once, stored as hashes, managed with a session only.

use axum::{
    Extension, Json, Router,
    body::Bytes,
    extract::{Path, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{delete, get, post},
};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    Sandbox, answers,
    bearer::Caller,
    state::{self, StoredKey},
};
use crate::{
    bondmcp::wire::{ApiKey, ApiKeyList, CreateApiKey, EndpointUsage, KeyUsage, RateLimit, UsageStats},
    secret::{self, ExposeSecret as _, SecretString},
};

pub fn routes() -> Router<Sandbox> {
    Router::new()
        .route("/auth/api-keys", get(list).post(create))
        .route("/auth/api-keys/{id}", delete(revoke))
        .route("/api/v1/api-keys/{id}/regenerate", post(regenerate))
        .route("/api/v1/api-keys/usage/{id}", get(usage))
}

async fn list(
    State(sandbox): State<Sandbox>,
    Extension(caller): Extension<Caller>,
) -> Result<Response, Response> {
    session_only(&caller)?;
    let state = sandbox.state();
    let api_keys: Vec<ApiKey> = state.keys_of(&caller.account).map(listed).collect();
    let total = api_keys.len();
    let mut answer = json!(ApiKeyList { api_keys });
    answer["total"] = total.into();
    Ok(Json(answer).into_response())
}

async fn create(
    State(sandbox): State<Sandbox>,
    Extension(caller): Extension<Caller>,
    body: Bytes,
) -> Result<Response, Response> {
    session_only(&caller)?;
    let wanted: CreateApiKey = answers::body(&body)?;
    if wanted.name.trim().is_empty() {
        return Err(answers::invalid("name", "String should have at least 1 character"));
    }
    let mut state = sandbox.state();
    let limit = state.account(&caller.account).map_or(0, |account| account.plan.keys());
    if state.keys_of(&caller.account).count() >= limit {
        let message = format!("API key limit reached for your plan ({limit})");
        return Err(answers::refusal(StatusCode::FORBIDDEN, "key_limit_reached", &message));
    }
    let value = new_value();
    let key = StoredKey {
        id: format!("key_{}", Uuid::new_v4().simple()),
        account: caller.account,
        name: wanted.name,
        description: wanted.description,
        permissions: wanted.permissions,
        hash: state::hash(&value),
        preview: preview(&value),
        created_at: sandbox.inner.config.clock.now(),
        first_used: None,
        last_used: None,
        endpoints: std::collections::BTreeMap::new(),
    };
    let answer = shown_once(&sandbox, &key, &value);
    state.keys.push(key);
    sandbox.keep(&state);
    Ok((StatusCode::CREATED, Json(answer)).into_response())
}

async fn revoke(
    State(sandbox): State<Sandbox>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<Response, Response> {
    session_only(&caller)?;
    let mut state = sandbox.state();
    state.key_mut(&caller.account, &id).ok_or_else(unknown_key)?;
    state.keys.retain(|key| key.id != id);
    sandbox.keep(&state);
    let deleted_at = sandbox.inner.config.clock.now();
    Ok(Json(json!({"message": "API key deleted", "key_id": id, "deleted_at": deleted_at})).into_response())
}

async fn regenerate(
    State(sandbox): State<Sandbox>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<Response, Response> {
    session_only(&caller)?;
    let mut state = sandbox.state();
    let key = state.key_mut(&caller.account, &id).ok_or_else(unknown_key)?;
    let value = new_value();
    key.hash = state::hash(&value);
    key.preview = preview(&value);
    let mut answer = shown_once(&sandbox, key, &value);
    answer["regenerated_at"] = json!(sandbox.inner.config.clock.now());
    sandbox.keep(&state);
    Ok(Json(answer).into_response())
}

async fn usage(
    State(sandbox): State<Sandbox>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<Response, Response> {
    session_only(&caller)?;
    let mut state = sandbox.state();
    let limit = state.account(&caller.account).map_or(0, |account| account.plan.requests_a_minute());
    let key = state.key_mut(&caller.account, &id).ok_or_else(unknown_key)?;
    let total: u64 = key.endpoints.values().sum();
    let text = |moment: Option<crate::clock::Timestamp>| moment.map(|moment| moment.to_rfc3339());
    Ok(Json(KeyUsage {
        key_id: id,
        name: Some(key.name.clone()),
        usage_stats: UsageStats {
            total_requests: total,
            requests_today: total,
            requests_this_month: total,
            last_used: text(key.last_used),
            first_used: text(key.first_used),
        },
        rate_limit: Some(RateLimit { limit, remaining: limit, reset_at: None }),
        endpoints_used: key
            .endpoints
            .iter()
            .map(|(endpoint, &count)| EndpointUsage { endpoint: endpoint.clone(), count })
            .collect(),
    })
    .into_response())
}

fn session_only(caller: &Caller) -> Result<(), Response> {
    match caller.token {
        Some(_) => Ok(()),
        None => Err(answers::detail(StatusCode::FORBIDDEN, "API keys cannot manage API keys")),
    }
}

fn unknown_key() -> Response {
    answers::refusal(StatusCode::NOT_FOUND, "key_not_found", "API key not found")
}

fn new_value() -> SecretString {
    format!("bcp_{}", secret::random().expose_secret()).into()
}

/// Returns the first and last characters, which are enough to distinguish keys.
fn preview(value: &SecretString) -> String {
    let value = value.expose_secret();
    format!("{}...{}", &value[..8], &value[value.len() - 4..])
}

fn listed(key: &StoredKey) -> ApiKey {
    ApiKey {
        id: key.id.clone(),
        name: key.name.clone(),
        description: key.description.clone(),
        key_preview: Some(key.preview.clone()),
        created_at: Some(key.created_at.to_rfc3339()),
        last_used: key.last_used.map(|moment| moment.to_rfc3339()),
        is_active: true,
        permissions: Some(key.permissions.clone()),
    }
}

fn shown_once(sandbox: &Sandbox, key: &StoredKey, value: &SecretString) -> Value {
    let mut answer = json!(listed(key));
    answer["api_key"] = sandbox.hand_out(value).into();
    answer["warning"] = "Store this key now; it is not shown again".into();
    answer
}
