//! Gives each request an id, which stands in the log lines about it and in the header `X-Request-Id` of its answer. A
//! person who reports trouble can name it.

use std::sync::Arc;

use axum::{
    Router,
    extract::{Request, State},
    middleware::{self, Next},
    response::Response,
};
use http::{HeaderName, HeaderValue};
use tracing::Instrument as _;

use crate::{client_address::TrustedProxies, listener::Peer, telemetry::RequestId};

/// De facto standard.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Gives each request of `router` a [`RequestId`]: the one that a trusted proxy has given, or a random one.
pub fn with_request_ids(router: Router, proxies: Arc<TrustedProxies>) -> Router {
    router.layer(middleware::from_fn_with_state(proxies, name_request))
}

async fn name_request(
    State(proxies): State<Arc<TrustedProxies>>,
    mut request: Request,
    next: Next,
) -> Response {
    let id = given(&request, &proxies).unwrap_or_else(RequestId::random);
    request.extensions_mut().insert(id.clone());
    // On at every level of the log. The path is left out: that of a sign-in page is known to its person only.
    let span = tracing::error_span!("http", request_id = id.as_str(), method = request.method().as_str());
    let mut response = next.run(request).instrument(span).await;
    if let Ok(value) = HeaderValue::from_str(id.as_str()) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    response
}

fn given(request: &Request, proxies: &TrustedProxies) -> Option<RequestId> {
    let Peer(peer) = request.extensions().get()?;
    let id = request.headers().get(REQUEST_ID)?.to_str().ok()?;
    RequestId::given(id).filter(|_| proxies.contain(peer.ip()))
}
