//! What protects the pages of an authorization: the security headers of every answer, and the checks on every form.

use std::time::Duration;

use axum::{
    body::to_bytes,
    extract::Request,
    http::{
        HeaderName, HeaderValue, StatusCode,
        header::{
            CACHE_CONTROL, CONTENT_SECURITY_POLICY, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
        },
    },
    middleware::Next,
    response::Response,
};

use crate::{config::PublicOrigin, sign_in::sent_by_our_page};

/// Largest accepted form, in bytes.
const MAX_FORM_BYTES: usize = 16 << 10;

/// Longest wait for a complete form.
const FORM_TIMEOUT: Duration = Duration::from_secs(10);

/// Nothing but our own style. Without `form-action`: browsers apply it to all redirects after a form (Chromium), and the
/// last one leads to the client.
const POLICY: &str =
    "default-src 'none'; style-src 'self'; img-src 'self'; frame-ancestors 'none'; base-uri 'none'";

const HEADERS: [(HeaderName, &str); 6] = [
    (CONTENT_SECURITY_POLICY, POLICY),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    (X_FRAME_OPTIONS, "DENY"),
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (REFERRER_POLICY, "no-referrer"),
    (CACHE_CONTROL, "no-store"),
];

/// Adds the security headers.
pub async fn headers(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    for (name, value) in HEADERS {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

/// Reads the fields of a form that one of our pages has sent.
pub async fn form(request: Request, origin: &PublicOrigin) -> Result<Vec<(String, String)>, StatusCode> {
    if !sent_by_our_page(request.headers(), origin.as_str()) {
        return Err(StatusCode::FORBIDDEN);
    }
    match tokio::time::timeout(FORM_TIMEOUT, to_bytes(request.into_body(), MAX_FORM_BYTES)).await {
        Ok(Ok(body)) => Ok(url::form_urlencoded::parse(&body).into_owned().collect()),
        Ok(Err(_)) => Err(StatusCode::PAYLOAD_TOO_LARGE),
        Err(_) => Err(StatusCode::REQUEST_TIMEOUT),
    }
}
