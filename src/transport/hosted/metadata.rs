//! The metadata documents. Hosts look for them under several addresses: with the path of the resource (RFC 8414,
//! section 3.1; RFC 9728, section 3.1) and without, and as `OpenID` Connect Discovery has them.

use axum::{
    Json, Router,
    response::{IntoResponse, Response},
    routing::get,
};
use http::header::CACHE_CONTROL;

use super::{HostedHttp, Http, endpoints};

/// How long the documents may be kept. A change of the operator's flags, or of the keys, is then seen soon.
const MAX_AGE: &str = "public, max-age=300";

pub(super) fn routes() -> Router<HostedHttp> {
    let of_resource = get(protected_resource);
    let of_server = get(authorization_server);
    Router::new()
        .route("/.well-known/oauth-protected-resource", of_resource.clone())
        .route("/.well-known/oauth-protected-resource/mcp", of_resource)
        .route("/.well-known/oauth-authorization-server", of_server.clone())
        .route("/.well-known/oauth-authorization-server/mcp", of_server.clone())
        .route("/.well-known/openid-configuration", of_server.clone())
        .route("/.well-known/openid-configuration/mcp", of_server)
        .route("/jwks", get(jwks))
}

async fn protected_resource(http: Http) -> impl IntoResponse {
    ([(CACHE_CONTROL, MAX_AGE)], Json(http.server().protected_resource_metadata()))
}

async fn authorization_server(http: Http) -> impl IntoResponse {
    ([(CACHE_CONTROL, MAX_AGE)], Json(http.server().authorization_server_metadata()))
}

async fn jwks(http: Http) -> Response {
    match http.server().jwks().await {
        Ok(keys) => ([(CACHE_CONTROL, MAX_AGE)], Json(keys)).into_response(),
        Err(error) => {
            tracing::error!(%error, "the signing keys cannot be read");
            endpoints::unavailable()
        }
    }
}
