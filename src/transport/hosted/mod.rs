//! The HTTP side of a hosted server: the metadata, the endpoints of the authorization server, the pages, `/mcp`, and the
//! probes of a load balancer. Only routes: what they do is in [`oauth`](crate::oauth) and [`hosted`](crate::hosted).

mod cors;
mod detached;
mod endpoints;
mod metadata;
mod middleware;
mod readiness;

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use axum::{
    Router,
    extract::{Request, State},
    response::{IntoResponse, Response},
    routing::{any, get, post},
};
use http::StatusCode;
use tokio::{net::TcpListener, time};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::Instrument as _;

use self::{
    detached::Detached,
    middleware::{Audience, Middleware},
    readiness::Readiness,
};
use super::{
    endpoint::Endpoint,
    http::{Protection, healthz},
    refusals::error,
};
use crate::{
    hosted::Hosted,
    listener::{self, Bounds, Workers},
    mcp::BondMcp,
    metrics,
    oauth::{AuthorizationServer, Grant, GrantId},
};

/// Limits on connections; silent ones are closed. A stream of a session is a connection.
const BOUNDS: Bounds = Bounds { connections: 4096, head_timeout: Duration::from_secs(30) };

/// Pause between two searches for what has expired or was left behind.
const SWEEP_INTERVAL: Duration = Duration::from_hours(1);

/// Time for the answers to calls that are ended because the server stops, and for what it does in the background.
const RESPONSE_GRACE_PERIOD: Duration = Duration::from_secs(2);

/// How the server stops.
#[derive(Clone, Copy, Debug)]
pub struct Drain {
    /// From the request to stop until connections are no longer accepted. Meanwhile `/readyz` fails, so that a load
    /// balancer sends its requests elsewhere.
    pub delay: Duration,
    /// From then on, the time for requests in flight.
    pub timeout: Duration,
}

/// The routes of a hosted server, and what runs beside them. Clones share everything.
#[derive(Clone, Debug)]
pub struct HostedHttp {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    hosted: Hosted,
    readiness: Readiness,
    /// The endpoint of the router, once there is one.
    endpoint: OnceLock<Arc<Endpoint>>,
    /// Releases of grants, which run to their end.
    tasks: TaskTracker,
    /// Token requests and revocations, which do, too.
    detached: Detached,
    /// Cancelled when the server was requested to stop.
    requested_to_stop: CancellationToken,
    /// Cancelled when connections are no longer accepted.
    draining: CancellationToken,
    /// Cancelled when calls in flight are ended.
    stopping: CancellationToken,
}

impl HostedHttp {
    /// Creates the routes of a server that ends its calls when `stopping` is cancelled. `requested_to_stop` begins the
    /// shutdown.
    #[must_use]
    pub fn new(hosted: Hosted, requested_to_stop: CancellationToken, stopping: CancellationToken) -> Self {
        let (readiness, tasks, draining) =
            (Readiness::default(), TaskTracker::new(), CancellationToken::new());
        let (endpoint, detached) = (OnceLock::new(), Detached::new(tasks.clone()));
        let inner =
            Inner { hosted, readiness, endpoint, tasks, detached, requested_to_stop, draining, stopping };
        Self { inner: Arc::new(inner) }
    }

    fn server(&self) -> &AuthorizationServer {
        self.inner.hosted.authorization_server()
    }

    /// Returns all routes.
    pub fn router(&self, server: &BondMcp, mut protection: Protection) -> Router {
        let middleware = Middleware::new(std::mem::take(&mut protection.trusted_proxies));
        let endpoint = Endpoint::new(server, protection, self.inner.draining.clone());
        let _ = self.inner.endpoint.set(Arc::clone(&endpoint));
        let for_programs = Router::new()
            .merge(metadata::routes())
            .route("/register", post(endpoints::register))
            .route("/token", post(endpoints::token))
            .route("/revoke", post(endpoints::revoke))
            .with_state(self.clone())
            .method_not_allowed_fallback(method_not_allowed)
            .fallback(not_found);
        let probes = Router::new()
            .route("/healthz", get(healthz))
            .route("/readyz", get(readiness::readyz))
            .with_state(self.clone());
        let mcp = Router::new().route("/mcp", any(mcp)).with_state((middleware.clone(), endpoint));
        let others = self.inner.hosted.router().merge(probes);
        middleware
            .wrap(Audience::Programs, for_programs)
            .merge(middleware.wrap(Audience::Others, others))
            .merge(mcp)
    }

    /// Serves the operator's metrics, until the server ends.
    pub async fn serve_metrics(&self, listener: TcpListener) {
        let this = self.clone();
        let look = move || {
            let this = this.clone();
            async move {
                metrics::set_ready(this.is_ready().await);
                if let Some(endpoint) = this.inner.endpoint.get() {
                    metrics::set_mcp_sessions(endpoint.open_sessions().await);
                }
            }
        };
        super::metrics::serve(listener, look, self.inner.stopping.clone()).await;
    }

    /// Whether requests should be sent here.
    async fn is_ready(&self) -> bool {
        !self.inner.requested_to_stop.is_cancelled() && self.inner.readiness.check(self.server()).await
    }

    /// Serves until the server is requested to stop, then drains.
    pub async fn serve(&self, listener: TcpListener, router: Router, workers: Workers, drain: Drain) {
        let sweeping = self.inner.tasks.spawn(self.clone().sweep());
        let inner = &*self.inner;
        let graceful = listener::serve(listener, router, BOUNDS, workers, inner.draining.cancelled());
        tokio::select! {
            () = graceful => {}
            () = self.stop(drain) => tracing::warn!("requests in flight were given up"),
        }
        sweeping.abort();
        inner.tasks.close();
        if time::timeout(RESPONSE_GRACE_PERIOD, inner.tasks.wait()).await.is_err() {
            tracing::warn!("grants that have ended are released at the next start");
        }
    }

    /// Stops step by step; completes when what is still in flight is given up.
    async fn stop(&self, drain: Drain) {
        let inner = &*self.inner;
        inner.requested_to_stop.cancelled().await;
        time::sleep(drain.delay).await;
        inner.draining.cancel();
        time::sleep(drain.timeout).await;
        inner.stopping.cancel();
        time::sleep(RESPONSE_GRACE_PERIOD).await;
    }

    /// Looks for what has expired or was left behind, now and every hour.
    async fn sweep(self) {
        loop {
            self.inner.hosted.sweep().await;
            time::sleep(SWEEP_INTERVAL).await;
        }
    }

    /// Gives back what an ended grant has at BondMCP, in the background: no client waits for that.
    fn release(&self, grant: Grant) {
        let hosted = self.inner.hosted.clone();
        self.inner.tasks.spawn(async move { hosted.ended(&grant).await }.in_current_span());
    }

    /// The same for a grant by its id. What fails here is done by the next sweep.
    fn release_by_id(&self, id: GrantId) {
        let this = self.clone();
        self.inner.tasks.spawn(async move {
            match this.server().grant(&id).await {
                Ok(Some(grant)) => this.inner.hosted.ended(&grant).await,
                Ok(None) => {}
                Err(error) => tracing::warn!(%error, "an ended grant could not be read"),
            }
        });
    }
}

/// Calls the middleware itself: axum copies and boxes each request for a layer, and this route is used most.
async fn mcp(
    State((middleware, endpoint)): State<(Middleware, Arc<Endpoint>)>,
    request: Request,
) -> Response {
    let answer = |request| Endpoint::answer(State(endpoint), request);
    middleware.handle(Audience::Programs, request, answer).await
}

/// Anything but the routes, in JSON: hosts look for documents that this server does not have.
async fn not_found() -> Response {
    let body = error(
        "not_found",
        "There is nothing here. MCP is served at /mcp: add that URL in the host. The apps that you have connected are at /connections.",
    );
    (StatusCode::NOT_FOUND, body).into_response()
}

/// A known address with another method. The router says in `Allow` which there are (RFC 9110, section 15.5.6).
async fn method_not_allowed() -> Response {
    let body = error(
        "method_not_allowed",
        "This method is not allowed here. The header `Allow` names those that are.",
    );
    (StatusCode::METHOD_NOT_ALLOWED, body).into_response()
}

/// The state of the handlers.
type Http = State<HostedHttp>;
