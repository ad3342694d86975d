//! The checks on every request to the sign-in page, and the security headers of every answer.

use std::{sync::Arc, time::Duration};

use axum::{
    body::{Body, Bytes, to_bytes},
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
use serde::Deserialize;

use super::Place;
use crate::secret::{self, ExposeSecret as _, SecretString};

/// Largest accepted form, in bytes.
const MAX_FORM_BYTES: usize = 16 << 10;

/// Longest wait for a complete form.
const FORM_TIMEOUT: Duration = Duration::from_secs(10);

/// Content security policy without scripts: nothing from other origins.
const POLICY: &str = "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; \
                      frame-ancestors 'none'; base-uri 'none'";

/// Headers of every page. Other sites can load nothing of it, not even its pictures, which would tell them that it is
/// open.
pub const HEADERS: [(HeaderName, &str); 5] = [
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    (X_FRAME_OPTIONS, "DENY"),
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (REFERRER_POLICY, "no-referrer"),
    (CACHE_CONTROL, "no-store"),
];

/// Refuses requests after DNS rebinding, forms from other pages, and bodies that are too large or too slow.
pub async fn guard(State(place): State<Arc<Place>>, request: Request, next: Next) -> Response {
    let headers = request.headers();
    let allowed = text(headers, &HOST) == Some(place.authority())
        && (request.method() != Method::POST || sent_by_our_page(headers, place.origin()));
    let mut response = if allowed {
        match with_whole_body(request).await {
            Ok(request) => next.run(request).await,
            Err(status) => status.into_response(),
        }
    } else {
        (StatusCode::FORBIDDEN, refusal(&place)).into_response()
    };
    for (name, value) in HEADERS {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    let policy = match response.extensions().get() {
        Some(Nonce(nonce)) => HeaderValue::try_from(format!(
            "{POLICY}; connect-src 'self'; script-src 'nonce-{}'",
            nonce.expose_secret()
        )),
        None => Ok(HeaderValue::from_static(POLICY)),
    };
    // A nonce is base64url, which every header can carry.
    let policy = policy.unwrap_or(HeaderValue::from_static(POLICY));
    response.headers_mut().insert(CONTENT_SECURITY_POLICY, policy);
    response
}

fn refusal(place: &Place) -> String {
    if place.is_public() {
        format!("This page is served at {} only.", place.origin())
    } else {
        "This page is for your own browser on this computer.".to_owned()
    }
}

/// The random value that marks the script of one response as ours. A response carries it as an extension.
#[derive(Clone, Debug)]
pub struct Nonce(SecretString);

impl Nonce {
    #[must_use]
    pub fn random() -> Self {
        Self(secret::random())
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.expose_secret()
    }
}

/// A form with nothing but its button.
#[derive(Debug, Deserialize)]
pub struct ButtonForm {
    pub form_token: SecretString,
}

async fn with_whole_body(request: Request) -> Result<Request, StatusCode> {
    let (parts, body) = request.into_parts();
    Ok(Request::from_parts(parts, Body::from(whole_body(body).await?)))
}

/// Reads the body of a form, which must be neither too large nor too slow.
pub async fn whole_body(body: Body) -> Result<Bytes, StatusCode> {
    match tokio::time::timeout(FORM_TIMEOUT, to_bytes(body, MAX_FORM_BYTES)).await {
        Ok(Ok(body)) => Ok(body),
        Ok(Err(_)) => Err(StatusCode::PAYLOAD_TOO_LARGE),
        Err(_) => Err(StatusCode::REQUEST_TIMEOUT),
    }
}

/// Whether a form comes from this page. Browsers send `Sec-Fetch-Site`, `Origin` or both; a form with neither is
/// refused. With `Sec-Fetch-Site` they send `Origin: null`, because the page asks for no referrer (Fetch, "serializing
/// a request origin"); without it, `null` could be any page.
#[must_use]
pub fn sent_by_our_page(headers: &HeaderMap, own_origin: &str) -> bool {
    match (text(headers, &HeaderName::from_static("sec-fetch-site")), text(headers, &ORIGIN)) {
        (Some("same-origin"), None | Some("null")) => true,
        (Some("same-origin") | None, Some(origin)) => origin == own_origin,
        _ => false,
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name).map(|value| value.to_str().unwrap_or("not text"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_form_that_never_ends_is_given_up() {
        let endless = Body::from_stream(futures_util::stream::pending::<Result<Vec<u8>, std::io::Error>>());
        assert_eq!(whole_body(endless).await, Err(StatusCode::REQUEST_TIMEOUT));
    }
}
