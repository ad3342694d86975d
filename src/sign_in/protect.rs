//! What every request to the sign-in page must satisfy, and what every answer forbids the browser.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    http::{
        HeaderMap, HeaderName, HeaderValue, Method, StatusCode,
        header::{
            CACHE_CONTROL, CONTENT_SECURITY_POLICY, HOST, ORIGIN, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
            X_FRAME_OPTIONS,
        },
    },
    middleware::Next,
    response::{IntoResponse as _, Response},
};

use super::Visit;

/// No scripts at all, and nothing from elsewhere.
const POLICY: &str =
    "default-src 'none'; style-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'";

const FORBIDDEN: [(HeaderName, &str); 5] = [
    (CONTENT_SECURITY_POLICY, POLICY),
    (X_FRAME_OPTIONS, "DENY"),
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (REFERRER_POLICY, "no-referrer"),
    (CACHE_CONTROL, "no-store"),
];

/// Refuses a name that was rebound to us, and forms that other pages send.
pub async fn guard(State(visit): State<Arc<Visit>>, request: Request, next: Next) -> Response {
    let own = visit.address().to_string();
    let headers = request.headers();
    let allowed = text(headers, &HOST) == Some(&own)
        && (request.method() != Method::POST || sent_by_our_page(headers, &own));
    let mut response = if allowed {
        next.run(request).await
    } else {
        (StatusCode::FORBIDDEN, "This page is for your own browser on this computer.").into_response()
    };
    for (name, value) in FORBIDDEN {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

/// Browsers say by `Sec-Fetch-Site` where a form comes from. They also send `Origin: null` then, because the page asks for
/// no referrer (Fetch, "serializing a request origin"); without `Sec-Fetch-Site` that could be anybody.
fn sent_by_our_page(headers: &HeaderMap, own: &str) -> bool {
    let own_origin = format!("http://{own}");
    match (text(headers, &HeaderName::from_static("sec-fetch-site")), text(headers, &ORIGIN)) {
        (Some("same-origin"), Some("null")) | (Some("same-origin") | None, None) => true,
        (Some("same-origin") | None, Some(origin)) => origin == own_origin,
        (Some(_), _) => false,
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name).map(|value| value.to_str().unwrap_or("not text"))
}
