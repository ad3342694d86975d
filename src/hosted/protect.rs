//! What protects the pages: work that goes on when the browser hangs up; and for those of an authorization the security
//! headers of every answer, and the checks on every form.

use axum::{
    extract::Request,
    http::{HeaderValue, Method, StatusCode, header::CONTENT_SECURITY_POLICY},
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use tracing::Instrument as _;

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

/// Completes what a form begins even if the browser closes the connection: nothing is left half-way, such as a session that
/// was taken out of its record and not ended yet.
pub async fn complete_forms(request: Request, next: Next) -> Response {
    if request.method() != Method::POST {
        return next.run(request).await;
    }
    let work = tokio::spawn(next.run(request).in_current_span());
    work.await.unwrap_or_else(|_| StatusCode::INTERNAL_SERVER_ERROR.into_response())
}

/// Reads the fields of a form that one of our pages has sent.
pub async fn form(request: Request, origin: &PublicOrigin) -> Result<Vec<(String, String)>, StatusCode> {
    if !sent_by_our_page(request.headers(), origin.as_str()) {
        return Err(StatusCode::FORBIDDEN);
    }
    let body = whole_body(request.into_body()).await?;
    Ok(url::form_urlencoded::parse(&body).into_owned().collect())
}
