//! `/auth/…` and `/health`: accounts, their verification, and sessions.

use axum::{
    Extension, Json, Router,
    body::Bytes,
    extract::{Query, State},
    http::{HeaderMap, StatusCode, header::HOST},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    Sandbox, answers,
    bearer::{self, Caller},
    passwords, state,
    state::Grant,
};
use crate::{
    secret::{self, SecretString},
    text::printable,
};

pub fn public_routes() -> Router<Sandbox> {
    Router::new()
        .route("/auth/register", post(register))
        .route("/auth/verify", get(verify))
        .route("/auth/login", post(login))
        .route("/auth/refresh", post(refresh))
        .route("/health", get(health))
}

pub fn authenticated_routes() -> Router<Sandbox> {
    Router::new().route("/auth/logout", post(logout)).route("/auth/me", get(me))
}

#[derive(Deserialize)]
struct Credentials {
    email: String,
    password: SecretString,
    name: Option<String>,
}

async fn register(
    State(sandbox): State<Sandbox>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Response> {
    let Credentials { email, password, name } = answers::body(&body)?;
    let looks_right =
        email.split_once('@').is_some_and(|(local, domain)| !local.is_empty() && domain.contains('.'));
    if !looks_right {
        return Err(answers::invalid("email", "value is not a valid email address"));
    }
    if passwords::is_weak(&password) {
        let rules = "Password needs at least 8 characters, a letter and a digit";
        return Err(answers::refusal(StatusCode::BAD_REQUEST, "weak_password", rules));
    }
    if sandbox.state().account_by_email(&email).is_some() {
        return Err(answers::refusal(StatusCode::CONFLICT, "email_exists", "Email already registered"));
    }
    let hash = hashed(password).await;
    let config = &sandbox.inner.config;
    let mut state = sandbox.state();
    let account = state.add_account(&email, name, hash, config.plan, config.auto_verify, config.clock.now());
    let answer = json!({"message": "Registration successful", "user_id": account.id, "email": account.email});
    sandbox.keep(&state);
    drop(state);
    if config.print_links
        && let Some(link) = sandbox.verification_link(&email)
    {
        let host = headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
        let mail = format!("E-mail to {email}: open http://{host}{link} to verify the address");
        #[expect(
            clippy::print_stderr,
            reason = "in place of the e-mail, for the person who runs the sandbox"
        )]
        {
            eprintln!("{}", printable(&mail));
        }
    }
    Ok((StatusCode::CREATED, Json(answer)).into_response())
}

#[derive(Deserialize)]
struct Verification {
    code: String,
}

async fn verify(
    State(sandbox): State<Sandbox>,
    Query(Verification { code }): Query<Verification>,
) -> Response {
    let mut state = sandbox.state();
    match state.accounts.iter_mut().find(|account| account.verification == code) {
        None => answers::detail(StatusCode::NOT_FOUND, "Unknown verification link"),
        Some(account) => {
            account.verified = true;
            sandbox.keep(&state);
            Json(json!({ "message": "Email verified" })).into_response()
        }
    }
}

async fn login(State(sandbox): State<Sandbox>, body: Bytes) -> Result<Response, Response> {
    let Credentials { email, password, .. } = answers::body(&body)?;
    let known = sandbox.state().account_by_email(&email).map(|account| account.password_hash.clone());
    // An unknown address takes as long as a wrong password and gets the same response.
    let right =
        tokio::task::spawn_blocking(move || passwords::matches(&password, &known.unwrap_or_default()))
            .await
            .unwrap_or(false);
    if !right {
        return Err(answers::detail(StatusCode::UNAUTHORIZED, "Invalid email or password"));
    }
    let mut state = sandbox.state();
    let Some(account) = state.account_by_email(&email).filter(|account| account.verified) else {
        let message = "Please verify your email before logging in";
        return Err(answers::refusal(StatusCode::FORBIDDEN, "email_not_verified", message));
    };
    let account_id = account.id.clone();
    let user = json!({"id": account.id, "email": account.email, "name": account.name});
    let Some((token, number)) = sandbox.inner.issuer.issue(&account.id, &account.email) else {
        return Err(answers::detail(StatusCode::INTERNAL_SERVER_ERROR, "No token could be issued"));
    };
    let mut answer = session(&sandbox, &token);
    answer["user"] = user;
    if sandbox.inner.config.refresh_tokens {
        let refresh_token = secret::random();
        answer["refresh_token"] = sandbox.hand_out(&refresh_token).into();
        state.grants.insert(state::hash(&refresh_token), Grant { account: account_id, access: number });
        sandbox.keep(&state);
    }
    Ok(Json(answer).into_response())
}

/// Refreshes a session; the old access token is refused afterwards.
async fn refresh(State(sandbox): State<Sandbox>, headers: HeaderMap) -> Result<Response, Response> {
    let invalid = || answers::detail(StatusCode::UNAUTHORIZED, "Invalid refresh token");
    let presented = bearer::credential(&headers).ok_or_else(invalid)?;
    let mut state = sandbox.state();
    let hash = state::hash(&presented);
    let account =
        state.grants.get(&hash).and_then(|grant| state.account(&grant.account)).ok_or_else(invalid)?;
    let (token, number) = sandbox.inner.issuer.issue(&account.id, &account.email).ok_or_else(invalid)?;
    if let Some(grant) = state.grants.get_mut(&hash) {
        let old = std::mem::replace(&mut grant.access, number);
        state.blacklist.insert(old);
    }
    Ok(Json(session(&sandbox, &token)).into_response())
}

async fn logout(State(sandbox): State<Sandbox>, Extension(caller): Extension<Caller>) -> Response {
    let Some(token) = caller.token else {
        return answers::detail(StatusCode::FORBIDDEN, "An API key has no session");
    };
    let mut state = sandbox.state();
    state.blacklist.insert(token);
    state.grants.retain(|_, grant| grant.access != token);
    sandbox.keep(&state);
    Json(json!({"message": "Logged out", "token_blacklisted": true})).into_response()
}

async fn me(State(sandbox): State<Sandbox>, Extension(caller): Extension<Caller>) -> Response {
    let state = sandbox.state();
    match state.account(&caller.account) {
        None => answers::detail(StatusCode::NOT_FOUND, "Unknown account"),
        Some(account) => Json(json!({
            "id": account.id,
            "email": account.email,
            "name": account.name,
            "created_at": account.created_at,
            "updated_at": account.created_at,
            "subscription": {"plan": account.plan.name(), "status": "active", "expires_at": null},
        }))
        .into_response(),
    }
}

async fn health() -> Json<Value> {
    Json(json!({"status": "healthy", "version": env!("CARGO_PKG_VERSION"), "service": "bondmcp-sandbox"}))
}

fn session(sandbox: &Sandbox, token: &SecretString) -> Value {
    json!({
        "access_token": sandbox.hand_out(token),
        "token_type": "bearer",
        "expires_in": sandbox.inner.issuer.lifetime_seconds(),
    })
}

async fn hashed(password: SecretString) -> String {
    tokio::task::spawn_blocking(move || passwords::hash(&password)).await.unwrap_or_default()
}
