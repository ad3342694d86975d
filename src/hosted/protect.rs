//! What protects the pages of an authorization: the security headers of every answer, and the checks on every form.

use axum::{
    extract::Request,
    http::{HeaderValue, StatusCode, header::CONTENT_SECURITY_POLICY},
    middleware::Next,
    response::Response,
};

use crate::{
    config::PublicOrigin,
    sign_in::{
        protect::{HEADERS, whole_body},
        sent_by_our_page,
    },
};

/// Nothing but our own style. Without `form-action`: browsers apply it to all redirects after a form (Chromium), and the
/// last one leads to the client.
const POLICY: &str =
    "default-src 'none'; style-src 'self'; img-src 'self'; frame-ancestors 'none'; base-uri 'none'";

/// Adds the security headers.
pub async fn headers(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    for (name, value) in HEADERS.into_iter().chain([(CONTENT_SECURITY_POLICY, POLICY)]) {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

/// Reads the fields of a form that one of our pages has sent.
pub async fn form(request: Request, origin: &PublicOrigin) -> Result<Vec<(String, String)>, StatusCode> {
    if !sent_by_our_page(request.headers(), origin.as_str()) {
        return Err(StatusCode::FORBIDDEN);
    }
    let body = whole_body(request.into_body()).await?;
    Ok(url::form_urlencoded::parse(&body).into_owned().collect())
}
