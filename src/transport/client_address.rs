//! Finds out for whom the limits count each request: see [`crate::client_address`].

use std::{net::Ipv4Addr, sync::Arc};

use axum::{
    Router,
    extract::{Request, State},
    middleware::{self, Next},
    response::Response,
};

use crate::{client_address::TrustedProxies, listener::Peer};

/// Gives each request of `router` a [`ClientAddress`](crate::client_address::ClientAddress) in its extensions.
pub fn with_client_addresses(router: Router, proxies: Arc<TrustedProxies>) -> Router {
    router.layer(middleware::from_fn_with_state(proxies, note_client))
}

async fn note_client(
    State(proxies): State<Arc<TrustedProxies>>,
    mut request: Request,
    next: Next,
) -> Response {
    let peer = request.extensions().get::<Peer>().map_or(Ipv4Addr::UNSPECIFIED.into(), |peer| peer.0.ip());
    let client = proxies.client(peer, request.headers());
    request.extensions_mut().insert(client);
    next.run(request).await
}
