//! Cross-origin requests of programs that run in web pages (Fetch standard, "CORS protocol"). Every origin may make
//! them, as none carries anything that a browser adds by itself: no cookies, no credentials.

use axum::{
    extract::Request,
    middleware::Next,
    response::{IntoResponse, Response},
};
use http::{
    HeaderMap, HeaderValue, Method, StatusCode,
    header::{
        ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
        ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD,
    },
};

/// `*` stands for all others, such as `Mcp-Param-…` (MCP 2026-07-28), but never for `Authorization`. Browsers that do not
/// know it need the names.
const HEADERS: &str = "Authorization, Content-Type, Mcp-Protocol-Version, Mcp-Session-Id, Mcp-Method, Mcp-Name, Last-Event-ID, *";

/// Adds the answers of CORS, and answers preflights.
pub(super) async fn allow_every_origin(request: Request, next: Next) -> Response {
    let is_preflight =
        request.method() == Method::OPTIONS && request.headers().contains_key(ACCESS_CONTROL_REQUEST_METHOD);
    let mut response =
        if is_preflight { StatusCode::NO_CONTENT.into_response() } else { next.run(request).await };
    let headers = response.headers_mut();
    let mut set = |name, value| HeaderMap::insert(headers, name, HeaderValue::from_static(value));
    set(ACCESS_CONTROL_ALLOW_ORIGIN, "*");
    if is_preflight {
        set(ACCESS_CONTROL_ALLOW_METHODS, "GET, HEAD, POST, DELETE");
        set(ACCESS_CONTROL_ALLOW_HEADERS, HEADERS);
        // Two hours: no browser keeps it longer.
        set(ACCESS_CONTROL_MAX_AGE, "7200");
    } else {
        set(ACCESS_CONTROL_EXPOSE_HEADERS, "WWW-Authenticate, Mcp-Session-Id, Retry-After");
    }
    response
}
