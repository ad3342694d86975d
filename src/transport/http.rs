//! MCP over streamable HTTP: every request to `/mcp` carries a bearer token, which says whose it is, unless the operator
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
    header::{CACHE_CONTROL, RETRY_AFTER, WWW_AUTHENTICATE},
    request::Parts,
};
use rmcp::transport::{
    StreamableHttpServerConfig, StreamableHttpService,
    streamable_http_server::session::local::LocalSessionManager,
};
use serde::Deserialize;
use serde_json::json;
use tokio::{net::TcpListener, time::timeout};
use tokio_util::sync::CancellationToken;

pub use super::authentication::{Authentication, Challenge};
use super::sessions::Sessions;
use crate::{
    account::Owner,
    listener::{self, Bounds},
    mcp::BondMcp,
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
    /// How the owner of a request is found.
    pub authentication: Authentication,
    /// Values of `Host` that are accepted besides loopback's.
    pub allowed_hosts: Vec<String>,
    /// Values of `Origin` that are accepted; none by default, as no browser needs access.
    pub allowed_origins: Vec<String>,
    /// Maximum number of open sessions of one owner (of revisions before 2026-07-28).
    pub max_sessions: usize,
}

impl Protection {
    /// Allows up to 64 sessions, loopback hosts only and no browser.
    #[must_use]
    pub fn new(authentication: Authentication) -> Self {
        Self { authentication, allowed_hosts: vec![], allowed_origins: vec![], max_sessions: 64 }
    }
}

/// Returns the routes: `/mcp`, and `/healthz` for monitoring.
pub fn router(server: &BondMcp, protection: Protection, stopping: &CancellationToken) -> Router {
    Router::new()
        .route("/mcp", any(Endpoint::answer))
        .with_state(Arc::new(Endpoint::new(server, protection, stopping)))
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

/// What is wrong when a host sends no token or looks for OAuth, as hosts do that get a challenge. They show it as the
/// description of an OAuth error.
const TOKEN_WANTED: &str = "This server takes a fixed token and has no OAuth: configure the header `Authorization: Bearer TOKEN` for it in the host. TOKEN is BONDMCP_HTTP_TOKEN, or was printed to stderr at startup.";

fn challenge(Challenge(challenge): Challenge) -> Response {
    let body = Json(json!({ "error": "invalid_token", "error_description": TOKEN_WANTED }));
    (StatusCode::UNAUTHORIZED, [(WWW_AUTHENTICATE, challenge)], body).into_response()
}

/// Anything but the routes: what hosts ask for are the documents and the registration of OAuth.
async fn not_found() -> Response {
    let body = Json(json!({ "error": "invalid_request", "error_description": TOKEN_WANTED }));
    (StatusCode::NOT_FOUND, body).into_response()
}

/// The `/mcp` endpoint: rmcp's service behind the authentication and the owners of sessions, which rmcp lacks.
struct Endpoint {
    authentication: Authentication,
    /// The service that opens no sessions.
    stateless: StreamableHttpService<BondMcp, LocalSessionManager>,
    /// The service that opens a session for each `initialize`.
    with_sessions: StreamableHttpService<BondMcp, LocalSessionManager>,
    sessions: Sessions,
}

impl Endpoint {
    fn new(server: &BondMcp, protection: Protection, stopping: &CancellationToken) -> Self {
        let loopback = ["localhost", "127.0.0.1", "::1"].map(ToOwned::to_owned);
        let config = StreamableHttpServerConfig::default()
            .with_json_response(true)
            .with_max_request_body_bytes(MAX_BODY_BYTES)
            .with_allowed_hosts(loopback.into_iter().chain(protection.allowed_hosts))
            .with_allowed_origins(protection.allowed_origins)
            .enforce_origin_validation()
            .with_cancellation_token(stopping.child_token());
        let sessions = Sessions::new(protection.max_sessions);
        let service = |config| {
            let server = server.clone();
            StreamableHttpService::new(move || Ok(server.clone()), Arc::clone(&sessions.manager), config)
        };
        Self {
            authentication: protection.authentication,
            stateless: service(config.clone().with_legacy_session_mode(false)),
            with_sessions: service(config),
            sessions,
        }
    }

    async fn answer(State(endpoint): State<Arc<Self>>, request: Request) -> Response {
        let owner = match endpoint.authentication.verify(request.headers()) {
            Ok(owner) => owner,
            // RFC 6750: 401 with a challenge where the token is missing or wrong.
            Err(error) => return challenge(error),
        };
        let (mut head, body) = request.into_parts();
        // Read before any lock is taken, so that a slow body blocks no other request.
        let body = match timeout(BODY_TIMEOUT, to_bytes(body, MAX_BODY_BYTES)).await {
            Ok(Ok(body)) => body,
            // Or the client has disconnected and does not receive this.
            Ok(Err(_)) => return refusal(StatusCode::PAYLOAD_TOO_LARGE, "the request's body is too large"),
            Err(_) => return refusal(StatusCode::REQUEST_TIMEOUT, "the request's body took too long"),
        };
        let route = Route::of(&head, &body);
        // From here `mcp` takes whose request it is.
        head.extensions.insert(owner.clone());
        let request = Request::from_parts(head, Body::from(body));
        match route {
            Route::Stateless => endpoint.stateless.handle(request).await.map(Body::new),
            Route::Session if endpoint.sessions.is_theirs(&owner, request.headers()) => {
                endpoint.with_sessions.handle(request).await.map(Body::new)
            }
            // Not 401, or the host would sign in again; and the same for a session of somebody else as for none.
            Route::Session => refusal(StatusCode::NOT_FOUND, "there is no such session"),
            Route::NewSession => {
                // To its end even when the client is gone, or the session would be nobody's and not counted.
                let opening = tokio::spawn(async move { endpoint.open_session(&owner, request).await });
                opening.await.unwrap_or_else(|_| {
                    refusal(StatusCode::INTERNAL_SERVER_ERROR, "the session cannot be opened")
                })
            }
        }
    }

    async fn open_session(&self, owner: &Owner, request: Request) -> Response {
        let Some(opening) = self.sessions.open(owner).await else {
            let full = "too many sessions are open; close one or try again later";
            let refusal = refusal(StatusCode::SERVICE_UNAVAILABLE, full);
            return ([(RETRY_AFTER, "30")], refusal).into_response();
        };
        let response = self.with_sessions.handle(request).await.map(Body::new);
        opening.opened(response.headers());
        response
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
    use futures_util::FutureExt as _;

    use super::*;
    use crate::{
        account::Accounts,
        bondmcp::{Client, Timing},
        clock::Clock,
        config::{Flags, Settings},
        mcp::{Limits, Selection},
        redact::Redactor,
    };

    /// Returns an endpoint where an owner can have one session, and the server behind it.
    fn endpoint(directory: &std::path::Path) -> Arc<Endpoint> {
        let flags = Flags { data_dir: Some(directory.to_owned()), ..Flags::default() };
        let settings = Settings::load(flags, None, |_| None).unwrap();
        let (redactor, clock) = (Redactor::default(), Clock::system());
        let client =
            Client::new(settings.base_url.clone(), redactor.clone(), clock.clone(), Timing::default());
        let accounts = Accounts::new(&settings, "bondmcp-server".into(), client, clock, redactor);
        let stopping = CancellationToken::new();
        let server =
            BondMcp::new(accounts, None, &Selection::default(), Limits::default(), stopping.clone()).unwrap();
        let tokens = ["ada", "eve"].map(|name| (name.into(), Owner::Subject(name.into())));
        let protection =
            Protection { max_sessions: 1, ..Protection::new(Authentication::Tokens(tokens.into())) };
        Arc::new(Endpoint::new(&server, protection, &stopping))
    }

    fn initialize(name: &str) -> Request {
        let body = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
            "protocolVersion": "2025-11-25", "capabilities": {},
            "clientInfo": {"name": name, "version": "1"}}});
        let request = Request::builder().method(Method::POST).uri("/mcp").header("host", "localhost");
        let request = request.header("authorization", format!("Bearer {name}"));
        let request = request.header("content-type", "application/json");
        let request = request.header("accept", "application/json, text/event-stream");
        request.body(Body::from(body.to_string())).unwrap()
    }

    #[tokio::test]
    async fn whoever_opens_sessions_and_is_gone_takes_none_of_the_others() {
        let directory = tempfile::tempdir().unwrap();
        // They are gone at another step each time, whichever it is.
        for steps in 0..30 {
            let endpoint = endpoint(directory.path());
            for _ in 0..10 {
                let mut opening = Box::pin(Endpoint::answer(State(Arc::clone(&endpoint)), initialize("eve")));
                for _ in 0..steps {
                    if opening.as_mut().now_or_never().is_some() {
                        break;
                    }
                    tokio::task::yield_now().await;
                }
            }
            let response = Endpoint::answer(State(Arc::clone(&endpoint)), initialize("ada")).await;
            assert_eq!(response.status(), StatusCode::OK, "{steps}");
        }
    }
}
