//! MCP over streamable HTTP: every request to `/mcp` carries a bearer token, which says whose it is, unless the operator
//! disabled that on loopback. TLS is left to a proxy in front. What a hosted server serves besides is in
//! [`hosted`](super::hosted).

use std::time::Duration;

use axum::{
    Json, Router,
    response::{IntoResponse, Response},
    routing::{any, get},
};
use http::{StatusCode, Uri, header::CACHE_CONTROL};
use serde_json::json;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::endpoint::Endpoint;
pub use super::{
    authentication::{Authentication, Caller, Rejection},
    request_body::MAX_BODY_BYTES,
};
use crate::{
    client_address::TrustedProxies,
    listener::{self, Bounds, Workers},
    mcp::BondMcp,
    oauth::AuthorizationServer,
};

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
    /// Values of `Origin` that are accepted; none by default, as no browser needs access. With grants all are: no
    /// browser sends an access token by itself, so a web page can call only with one that it was given.
    pub allowed_origins: Vec<String>,
    /// Maximum number of open sessions of one owner (of revisions before 2026-07-28).
    pub max_sessions: usize,
    /// Maximum number of open sessions of all owners together.
    pub max_sessions_overall: usize,
    /// Maximum number of requests in sessions of one person that are being answered.
    pub max_answers: usize,
    /// Maximum number of requests in sessions of all owners together that are being answered.
    pub max_answers_overall: usize,
    /// Who may say for whom a request of a hosted server is forwarded; nobody by default.
    pub trusted_proxies: TrustedProxies,
}

impl Protection {
    /// Allows up to 64 sessions an owner, loopback hosts only and no browser.
    #[must_use]
    pub fn new(authentication: Authentication) -> Self {
        Self {
            authentication,
            allowed_hosts: vec![],
            allowed_origins: vec![],
            max_sessions: 64,
            max_sessions_overall: 256,
            max_answers: 256,
            max_answers_overall: 256,
            trusted_proxies: TrustedProxies::default(),
        }
    }

    /// For many people, each with grants of their own: up to 16 sessions a grant, the public host, and every web page.
    #[must_use]
    pub fn hosted(server: AuthorizationServer) -> Self {
        Self {
            allowed_hosts: vec![server.endpoints().authority().to_owned()],
            authentication: Authentication::Grants(server),
            allowed_origins: vec![],
            max_sessions: 16,
            max_sessions_overall: 4096,
            max_answers: 256,
            max_answers_overall: 1024,
            trusted_proxies: TrustedProxies::default(),
        }
    }
}

/// Returns the routes: `/mcp`, and `/healthz` for monitoring.
pub fn router(server: &BondMcp, protection: Protection, stopping: &CancellationToken) -> Router {
    let endpoint = Endpoint::new(server, protection, stopping.clone());
    Router::new()
        .route("/mcp", any(Endpoint::answer))
        .with_state(endpoint)
        .route("/healthz", get(healthz))
        .fallback(not_found)
}

/// Serves until `stopping` is cancelled, then lets requests in flight end.
pub async fn serve(listener: TcpListener, router: Router, workers: Workers, stopping: CancellationToken) {
    let graceful = listener::serve(listener, router, BOUNDS, workers, stopping.cancelled());
    tokio::select! {
        () = graceful => {}
        () = async { stopping.cancelled().await; tokio::time::sleep(SHUTDOWN_GRACE_PERIOD).await } => {}
    }
}

pub(super) async fn healthz() -> impl IntoResponse {
    ([(CACHE_CONTROL, "no-store")], Json(json!({ "status": "ok" })))
}

/// What is wrong when a host sends no token or looks for OAuth, as hosts do that get a challenge. They show it as the
/// description of an OAuth error.
pub(super) const TOKEN_WANTED: &str = "This server takes a fixed token and has no OAuth: configure the header `Authorization: Bearer TOKEN` for it in the host. TOKEN is BONDMCP_HTTP_TOKEN, or was printed to stderr at startup.";

/// Anything but the routes. Hosts ask for the documents and the registration of OAuth, people forget the path.
async fn not_found(uri: Uri) -> Response {
    let is_of_oauth = uri.path().starts_with("/.well-known/") || uri.path() == "/register";
    let reason = if is_of_oauth { TOKEN_WANTED } else { "MCP is served at /mcp: add that to the URL." };
    let body = Json(json!({ "error": "invalid_request", "error_description": reason }));
    (StatusCode::NOT_FOUND, body).into_response()
}
