//! MCP over streamable HTTP, for one owner: every request to `/mcp` carries the bearer token, unless the operator said
//! otherwise on loopback. TLS is the business of a proxy in front.

use std::{sync::Arc, time::Duration};

use axum::{
    Json, Router,
    body::Body,
    extract::{Request, State},
    response::{IntoResponse, Response},
    routing::{any, get},
};
use http::{
    HeaderMap, Method, StatusCode,
    header::{AUTHORIZATION, CACHE_CONTROL, RETRY_AFTER, WWW_AUTHENTICATE},
};
use rmcp::transport::{
    StreamableHttpServerConfig, StreamableHttpService,
    streamable_http_server::session::local::LocalSessionManager,
};
use serde_json::json;
use tokio::{net::TcpListener, sync::Mutex};
use tokio_util::sync::CancellationToken;
use tower_http::timeout::TimeoutLayer;

use crate::{
    listener::{self, Bounds},
    mcp::BondMcp,
    secret::{self, SecretString},
};

/// The largest request body that is taken, in bytes.
pub const LARGEST_BODY: usize = 4 << 20;

/// For a request up to the head of its answer; a little more than a call may take.
const REQUEST_TIMEOUT: Duration = Duration::from_mins(1);

/// How long requests in flight may take after the server was told to stop.
const SHUTDOWN_GRACE_PERIOD: Duration = Duration::from_secs(5);

/// What the clients together may hold; silent connections are closed after a while.
const BOUNDS: Bounds = Bounds { connections: 512, head_timeout: Duration::from_secs(30) };

/// How the endpoint is protected.
#[derive(Clone, Debug)]
pub struct Protection {
    /// The bearer token that every request must carry; `None` takes every request.
    pub token: Option<SecretString>,
    /// Values of `Host` that are served besides loopback's.
    pub allowed_hosts: Vec<String>,
    /// Values of `Origin` that are served; none by default, as no browser needs to call.
    pub allowed_origins: Vec<String>,
    /// Sessions of the era before 2026-07-28 that may be open at once.
    pub max_sessions: usize,
}

impl Protection {
    /// Up to 64 sessions, no foreign host, no browser.
    #[must_use]
    pub fn new(token: Option<SecretString>) -> Self {
        Self { token, allowed_hosts: vec![], allowed_origins: vec![], max_sessions: 64 }
    }
}

/// The routes: `/mcp`, and `/healthz` for whoever watches the process.
pub fn router(server: &BondMcp, protection: Protection, stopping: &CancellationToken) -> Router {
    let loopback = ["localhost", "127.0.0.1", "::1"].map(ToOwned::to_owned);
    let config = StreamableHttpServerConfig::default()
        .with_json_response(true)
        .with_max_request_body_bytes(LARGEST_BODY)
        .with_allowed_hosts(loopback.into_iter().chain(protection.allowed_hosts))
        .with_allowed_origins(protection.allowed_origins)
        .enforce_origin_validation()
        .with_cancellation_token(stopping.child_token());
    let sessions = Arc::new(LocalSessionManager::default());
    let service = |config| {
        let server = server.clone();
        StreamableHttpService::new(move || Ok(server.clone()), Arc::clone(&sessions), config)
    };
    let endpoint = Endpoint {
        token: protection.token,
        stateless: service(config.clone().with_legacy_session_mode(false)),
        with_sessions: service(config),
        sessions,
        opening: Mutex::new(()),
        max_sessions: protection.max_sessions,
    };
    Router::new()
        .route("/mcp", any(Endpoint::answer))
        .with_state(Arc::new(endpoint))
        .route("/healthz", get(healthz))
        .layer(TimeoutLayer::with_status_code(StatusCode::GATEWAY_TIMEOUT, REQUEST_TIMEOUT))
}

/// Serves until `stopping` is cancelled, then lets what is in flight end.
pub async fn serve(listener: TcpListener, router: Router, stopping: CancellationToken) {
    let graceful = listener::serve(listener, router, BOUNDS, stopping.cancelled());
    tokio::select! {
        () = graceful => {}
        () = async { stopping.cancelled().await; tokio::time::sleep(SHUTDOWN_GRACE_PERIOD).await } => {}
    }
}

async fn healthz() -> impl IntoResponse {
    ([(CACHE_CONTROL, "no-store")], Json(json!({ "status": "ok" })))
}

fn bearer(headers: &HeaderMap) -> Option<SecretString> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim().into())
}

fn challenge(challenge: &'static str) -> Response {
    let solution = "send the server's token as `Authorization: Bearer TOKEN`; it is BONDMCP_HTTP_TOKEN, or was shown at the start";
    (StatusCode::UNAUTHORIZED, [(WWW_AUTHENTICATE, challenge)], Json(json!({ "error": solution })))
        .into_response()
}

/// `/mcp`: rmcp's service behind the token and the bound on sessions, which it leaves to us.
struct Endpoint {
    token: Option<SecretString>,
    /// For 2026-07-28 and later: it opens no session, whatever the body says.
    stateless: StreamableHttpService<BondMcp, LocalSessionManager>,
    /// For the older era.
    with_sessions: StreamableHttpService<BondMcp, LocalSessionManager>,
    sessions: Arc<LocalSessionManager>,
    /// Held while a session opens, so that they are counted one after the other.
    opening: Mutex<()>,
    max_sessions: usize,
}

impl Endpoint {
    async fn answer(State(endpoint): State<Arc<Self>>, request: Request) -> Response {
        if let Some(challenge) = endpoint.challenge(request.headers()) {
            return challenge;
        }
        if is_stateless(request.headers()) {
            return endpoint.stateless.handle(request).await.map(Body::new);
        }
        if !may_open_session(&request) {
            return endpoint.with_sessions.handle(request).await.map(Body::new);
        }
        let _opening = endpoint.opening.lock().await;
        if endpoint.sessions.sessions.read().await.len() >= endpoint.max_sessions {
            let full = json!({ "error": "too many sessions are open; close one or try again later" });
            return (StatusCode::SERVICE_UNAVAILABLE, [(RETRY_AFTER, "30")], Json(full)).into_response();
        }
        endpoint.with_sessions.handle(request).await.map(Body::new)
    }

    /// RFC 6750: 401 with a challenge where the token is missing or wrong.
    fn challenge(&self, headers: &HeaderMap) -> Option<Response> {
        let token = self.token.as_ref()?;
        match bearer(headers) {
            Some(given) if secret::same(&given, token) => None,
            Some(_) => Some(challenge(r#"Bearer realm="bondmcp-server", error="invalid_token""#)),
            None => Some(challenge(r#"Bearer realm="bondmcp-server""#)),
        }
    }
}

/// The versions are dates, so they compare as text.
fn is_stateless(headers: &HeaderMap) -> bool {
    headers.get("mcp-protocol-version").is_some_and(|version| version.as_bytes() >= &b"2026-07-28"[..])
}

/// A POST of the older era without a session: nothing else opens one.
fn may_open_session(request: &Request) -> bool {
    request.method() == Method::POST && !request.headers().contains_key("mcp-session-id")
}

#[cfg(test)]
mod tests {
    use super::*;
    use static_assertions::assert_not_impl_any;

    assert_not_impl_any!(Protection: serde::Serialize, std::fmt::Display);

    #[test]
    fn the_protection_does_not_show_its_token_in_debug() {
        assert!(!format!("{:?}", Protection::new(Some("canary-token".into()))).contains("canary"));
    }
}
