//! `/token` (RFC 6749), `/revoke` (RFC 7009) and `/register` (RFC 7591).

use axum::{
    Json,
    body::{Body, Bytes},
    extract::Request,
    response::{IntoResponse, Response},
};
use http::{
    HeaderMap, HeaderValue, StatusCode,
    header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, PRAGMA, RETRY_AFTER, WWW_AUTHENTICATE},
};
use serde::Serialize;

use super::Http;
use crate::{
    clock::whole_seconds,
    oauth::{OAuthError, TokenResponse},
    secret::{ExposeSecret as _, to_secret_json},
    transport::{refusals::error, request_body::read_body},
};

/// Largest form, or registration, in bytes.
const MAX_BODY_BYTES: usize = 64 << 10;

/// Answers a token request, to its end even when the client is gone: what it has used up must not be lost half-way.
pub(super) async fn token(http: Http, request: Request) -> Result<Response, Response> {
    let (headers, form) = parts(request).await?;
    let detached = http.inner.detached.clone();
    let work = async move {
        let hosted = &http.inner.hosted;
        let authorization = authorization(&headers);
        let accepted = |grant| async move { hosted.acceptance(&grant).await };
        match hosted.authorization_server().token(authorization, &form, accepted).await {
            Ok(tokens) => {
                if tokens.are_first {
                    hosted.traces().step(&tokens.reference, "code redeemed").await;
                }
                tokens_response(&tokens)
            }
            Err(failure) => {
                if let Some(grant) = &failure.ended {
                    http.release_by_id(grant.clone());
                }
                failed(&failure, &headers)
            }
        }
    };
    Ok(detached.answer(work).await)
}

/// Answers a revocation, to its end even when the client is gone: an ended grant is to be released. An unknown token is
/// no error.
pub(super) async fn revoke(http: Http, request: Request) -> Result<Response, Response> {
    let (headers, form) = parts(request).await?;
    let detached = http.inner.detached.clone();
    let work = async move {
        match http.server().revoke(authorization(&headers), &form).await {
            Ok(ended) => {
                if let Some(grant) = ended {
                    http.release(grant);
                }
                not_stored(StatusCode::OK)
            }
            Err(failure) => failed(&failure, &headers),
        }
    };
    Ok(detached.answer(work).await)
}

/// Registers a client.
pub(super) async fn register(http: Http, request: Request) -> Result<Response, Response> {
    let (headers, body) = parts(request).await?;
    let client = http.server().clients().register(&body).map_err(|failure| failed(&failure, &headers))?;
    Ok(not_stored((StatusCode::CREATED, Json(client))))
}

async fn parts(request: Request) -> Result<(HeaderMap, Bytes), Response> {
    let (head, body) = request.into_parts();
    match read_body(body, MAX_BODY_BYTES).await {
        Ok(body) => Ok((head.headers, body)),
        Err((status, reason)) => Err((status, error("invalid_request", reason)).into_response()),
    }
}

/// The header, if it is text; other values are no credentials.
fn authorization(headers: &HeaderMap) -> Option<&str> {
    headers.get(AUTHORIZATION)?.to_str().ok()
}

/// RFC 6749, section 5.1.
fn tokens_response(tokens: &TokenResponse) -> Response {
    #[derive(Serialize)]
    struct Tokens<'a> {
        access_token: &'a str,
        token_type: &'static str,
        expires_in: u64,
        refresh_token: &'a str,
        scope: String,
    }
    let body = to_secret_json(&Tokens {
        access_token: tokens.access_token.expose_secret(),
        token_type: "Bearer",
        expires_in: tokens.expires_in,
        refresh_token: tokens.refresh_token.expose_secret(),
        scope: tokens.scope.to_string(),
    });
    match body {
        Ok(body) => {
            let body = Body::from(Bytes::from_owner(body));
            not_stored(([(CONTENT_TYPE, "application/json")], body))
        }
        Err(_) => unavailable(),
    }
}

/// RFC 6749, section 5.2. A client that tried to authenticate by the header is told the scheme.
fn failed(failure: &OAuthError, headers: &HeaderMap) -> Response {
    let status = StatusCode::from_u16(failure.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    tracing::info!(error = failure.code, reason = failure.description, "an OAuth request was refused");
    let mut response = not_stored((status, error(failure.code, failure.description)));
    if let Some(wait) = failure.retry_after {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(whole_seconds(wait)));
    }
    if status == StatusCode::UNAUTHORIZED && headers.contains_key(AUTHORIZATION) {
        let scheme = HeaderValue::from_static(r#"Basic realm="bondmcp-server""#);
        response.headers_mut().insert(WWW_AUTHENTICATE, scheme);
    }
    response
}

/// The answer when the vault does not answer, or there is too much to do.
pub(super) fn unavailable() -> Response {
    let body = error("temporarily_unavailable", "The server cannot answer now. Try again in a few seconds.");
    not_stored((StatusCode::SERVICE_UNAVAILABLE, [(RETRY_AFTER, "5")], body))
}

fn not_stored(response: impl IntoResponse) -> Response {
    let mut response = response.into_response();
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response.headers_mut().insert(PRAGMA, HeaderValue::from_static("no-cache"));
    response
}
