//! MCP over streamable HTTP, for one owner: every request to `/mcp` carries the bearer token, unless the operator
//! disabled that on loopback. TLS is left to a proxy in front.

use std::{borrow::Cow, sync::Arc, time::Duration};

use axum::{
    Json, Router,
    body::{Body, to_bytes},
    extract::{Request, State},
    response::{IntoResponse, Response},
    routing::{any, get},
};
use http::{
    HeaderMap, Method, StatusCode,
    header::{AUTHORIZATION, CACHE_CONTROL, RETRY_AFTER, WWW_AUTHENTICATE},
    request::Parts,
};
use rmcp::transport::{
    StreamableHttpServerConfig, StreamableHttpService,
    streamable_http_server::session::local::LocalSessionManager,
};
use serde::Deserialize;
use serde_json::json;
use tokio::{net::TcpListener, sync::Mutex, time::timeout};
use tokio_util::sync::CancellationToken;

use crate::{
    listener::{self, Bounds},
    mcp::BondMcp,
    secret::{self, SecretString},
};

/// Largest accepted request body, in bytes.
pub const MAX_BODY_BYTES: usize = 4 << 20;

/// Longest wait for a complete request body. There is no time-out afterwards: a call has its own deadline, and an
/// aborted response would not say whether the call was billed.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// Time for which requests in flight may run after shutdown was requested.
const SHUTDOWN_GRACE_PERIOD: Duration = Duration::from_secs(5);

/// Limits on connections; silent ones are closed.
const BOUNDS: Bounds = Bounds { connections: 512, head_timeout: Duration::from_secs(30) };

/// The protection of the endpoint.
#[derive(Clone, Debug)]
pub struct Protection {
    /// The bearer token that every request must carry; `None` accepts every request.
    pub token: Option<SecretString>,
    /// Values of `Host` that are accepted besides loopback's.
    pub allowed_hosts: Vec<String>,
    /// Values of `Origin` that are accepted; none by default, as no browser needs access.
    pub allowed_origins: Vec<String>,
    /// Maximum number of open sessions (of revisions before 2026-07-28).
    pub max_sessions: usize,
}

impl Protection {
    /// Allows up to 64 sessions, loopback hosts only and no browser.
    #[must_use]
    pub fn new(token: Option<SecretString>) -> Self {
        Self { token, allowed_hosts: vec![], allowed_origins: vec![], max_sessions: 64 }
    }
}

/// Returns the routes: `/mcp`, and `/healthz` for monitoring.
pub fn router(server: &BondMcp, protection: Protection, stopping: &CancellationToken) -> Router {
    let loopback = ["localhost", "127.0.0.1", "::1"].map(ToOwned::to_owned);
    let config = StreamableHttpServerConfig::default()
        .with_json_response(true)
        .with_max_request_body_bytes(MAX_BODY_BYTES)
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
        .fallback(not_found)
}

/// Serves until `stopping` is cancelled, then lets requests in flight end.
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

/// What is wrong when a host sends no token or looks for OAuth, as hosts do that get a challenge. They show it as the
/// description of an OAuth error.
const TOKEN_WANTED: &str = "This server takes a fixed token and has no OAuth: configure the header `Authorization: Bearer TOKEN` for it in the host. TOKEN is BONDMCP_HTTP_TOKEN, or was printed to stderr at startup.";

fn challenge(challenge: &'static str) -> Response {
    let body = Json(json!({ "error": "invalid_token", "error_description": TOKEN_WANTED }));
    (StatusCode::UNAUTHORIZED, [(WWW_AUTHENTICATE, challenge)], body).into_response()
}

/// Anything but the routes: what hosts ask for are the documents and the registration of OAuth.
async fn not_found() -> Response {
    let body = Json(json!({ "error": "invalid_request", "error_description": TOKEN_WANTED }));
    (StatusCode::NOT_FOUND, body).into_response()
}

/// The `/mcp` endpoint: rmcp's service behind the token and the limit on sessions, which rmcp lacks.
struct Endpoint {
    token: Option<SecretString>,
    /// The service that opens no sessions.
    stateless: StreamableHttpService<BondMcp, LocalSessionManager>,
    /// The service that opens a session for each `initialize`.
    with_sessions: StreamableHttpService<BondMcp, LocalSessionManager>,
    sessions: Arc<LocalSessionManager>,
    /// Held while a session opens, so that sessions are counted one at a time.
    opening: Mutex<()>,
    max_sessions: usize,
}

impl Endpoint {
    async fn answer(State(endpoint): State<Arc<Self>>, request: Request) -> Response {
        if let Some(challenge) = endpoint.challenge(request.headers()) {
            return challenge;
        }
        let (head, body) = request.into_parts();
        // Read before any lock is taken, so that a slow body blocks no other request.
        let body = match timeout(BODY_TIMEOUT, to_bytes(body, MAX_BODY_BYTES)).await {
            Ok(Ok(body)) => body,
            // Or the client has disconnected and does not receive this.
            Ok(Err(_)) => return refusal(StatusCode::PAYLOAD_TOO_LARGE, "the request's body is too large"),
            Err(_) => return refusal(StatusCode::REQUEST_TIMEOUT, "the request's body took too long"),
        };
        let route = Route::of(&head, &body);
        let request = Request::from_parts(head, Body::from(body));
        match route {
            Route::Stateless => endpoint.stateless.handle(request).await.map(Body::new),
            Route::Session => endpoint.with_sessions.handle(request).await.map(Body::new),
            Route::NewSession => endpoint.open_session(request).await,
        }
    }

    async fn open_session(&self, request: Request) -> Response {
        let _opening = self.opening.lock().await;
        if self.sessions.sessions.read().await.len() >= self.max_sessions {
            let full = "too many sessions are open; close one or try again later";
            let refusal = refusal(StatusCode::SERVICE_UNAVAILABLE, full);
            return ([(RETRY_AFTER, "30")], refusal).into_response();
        }
        self.with_sessions.handle(request).await.map(Body::new)
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

fn refusal(status: StatusCode, reason: &str) -> Response {
    (status, Json(json!({ "error": reason }))).into_response()
}

/// Returns the service for a request.
enum Route {
    Stateless,
    Session,
    NewSession,
}

impl Route {
    /// Only `initialize` opens a session. Hosts of older revisions without a session are served too.
    fn of(head: &Parts, body: &[u8]) -> Self {
        if is_stateless(&head.headers) {
            Self::Stateless
        } else if head.method != Method::POST || head.headers.contains_key("mcp-session-id") {
            Self::Session
        } else if is_initialize(body) {
            Self::NewSession
        } else {
            Self::Stateless
        }
    }
}

/// The versions are dates, so they compare as text.
fn is_stateless(headers: &HeaderMap) -> bool {
    headers.get("mcp-protocol-version").is_some_and(|version| version.as_bytes() >= &b"2026-07-28"[..])
}

/// Whether the body is an `initialize` request. An unreadable body is not one and opens no session.
fn is_initialize(body: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Message<'a> {
        #[serde(borrow)]
        method: Cow<'a, str>,
    }
    serde_json::from_slice::<Message>(body).is_ok_and(|message| message.method == "initialize")
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
