//! Cross-origin requests of programs that run in web pages (Fetch standard, "CORS protocol"). Every origin may make
//! them, as none carries anything that a browser adds by itself: no cookies, no credentials.

use axum::extract::Request;
use http::{
    HeaderMap, HeaderValue, Method,
    header::{
        ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
        ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD,
    },
};

/// `*` stands for all others, such as `Mcp-Param-…` (MCP 2026-07-28), but never for `Authorization`. Browsers that do not
/// know it need the names.
const HEADERS: &str = "Authorization, Content-Type, Mcp-Protocol-Version, Mcp-Session-Id, Mcp-Method, Mcp-Name, Last-Event-ID, *";

/// Whether a browser asks which requests it may make.
pub(super) fn is_preflight(request: &Request) -> bool {
    request.method() == Method::OPTIONS && request.headers().contains_key(ACCESS_CONTROL_REQUEST_METHOD)
}

/// Adds the headers of an answer, or of one to a preflight.
pub(super) fn allow_every_origin(headers: &mut HeaderMap, is_preflight: bool) {
    let mut set = |name, value| headers.insert(name, HeaderValue::from_static(value));
    set(ACCESS_CONTROL_ALLOW_ORIGIN, "*");
    if is_preflight {
        set(ACCESS_CONTROL_ALLOW_METHODS, "GET, HEAD, POST, DELETE");
        set(ACCESS_CONTROL_ALLOW_HEADERS, HEADERS);
        // Two hours: no browser keeps it longer.
        set(ACCESS_CONTROL_MAX_AGE, "7200");
    } else {
        set(ACCESS_CONTROL_EXPOSE_HEADERS, "WWW-Authenticate, Mcp-Session-Id, Retry-After");
    }
}
