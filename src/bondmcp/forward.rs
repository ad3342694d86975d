//! Requests of a program on this machine that are forwarded with the account's credential, so that the program need
//! not have one. They go below the base URL, once, and secrets are removed from the response.

use std::{borrow::Cow, time::Duration};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode,
    header::{
        ACCEPT_ENCODING, ALT_SVC, AUTHORIZATION, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, COOKIE,
        EXPECT, FORWARDED, HOST, IF_RANGE, LOCATION, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, RANGE,
        SET_COOKIE, STRICT_TRANSPORT_SECURITY, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
    },
};
use serde_json::Value;

use super::{Client, Error, exchange::authorization};
use crate::{json_size::is_parsable, secret::SecretString};

/// Longest time for one request and its whole response. It is longer than for calls of tools, as no host waits.
const TIMEOUT: Duration = Duration::from_mins(2);

/// Headers for one connection only (RFC 9110, 7.6.1).
const HOP_BY_HOP: [HeaderName; 9] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// Headers of a request that are set here, name another host, path or method, or hold a credential. Without `Accept-Encoding` the
/// response is not compressed, and without `Range` it is whole, so that it can be searched for secrets.
const NOT_SENT: [HeaderName; 18] = [
    ACCEPT_ENCODING,
    AUTHORIZATION,
    HeaderName::from_static("x-api-key"),
    CONTENT_LENGTH,
    COOKIE,
    EXPECT,
    FORWARDED,
    HOST,
    IF_RANGE,
    RANGE,
    HeaderName::from_static("x-forwarded-host"),
    HeaderName::from_static("x-forwarded-prefix"),
    HeaderName::from_static("x-host"),
    HeaderName::from_static("x-http-method"),
    HeaderName::from_static("x-http-method-override"),
    HeaderName::from_static("x-method-override"),
    HeaderName::from_static("x-original-url"),
    HeaderName::from_static("x-rewrite-url"),
];

/// Headers of a response that are for the upstream's own origin, or that no longer hold.
const NOT_RETURNED: [HeaderName; 6] =
    [ALT_SVC, CONTENT_ENCODING, CONTENT_LENGTH, LOCATION, SET_COOKIE, STRICT_TRANSPORT_SECURITY];

/// A request to forward.
#[derive(Debug)]
pub struct Forwarded {
    pub method: Method,
    /// Decoded segments of the path below the base URL.
    pub path: Vec<String>,
    pub query: Option<String>,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Client {
    /// Sends `request` with `bearer` in place of its own credential. It is not repeated, and a redirect is an error.
    pub async fn forward(&self, request: Forwarded, bearer: &SecretString) -> Result<Response<Bytes>, Error> {
        let answer = tokio::time::timeout(TIMEOUT, self.forward_untimed(request, bearer)).await;
        answer.unwrap_or_else(|_| Err(self.timeout()))
    }

    async fn forward_untimed(
        &self,
        request: Forwarded,
        bearer: &SecretString,
    ) -> Result<Response<Bytes>, Error> {
        self.redactor.remember(bearer);
        let path: Vec<&str> = request.path.iter().map(String::as_str).collect();
        let mut url = self.shared.base_url.endpoint(&path);
        url.set_query(request.query.as_deref());
        let mut headers = end_to_end(request.headers, &NOT_SENT);
        headers.insert(AUTHORIZATION, authorization(bearer)?);
        let outgoing = self.http().await?.request(request.method, url).headers(headers).body(request.body);
        let response = outgoing.send().await.map_err(|error| self.failure(&error))?;
        let status = response.status();
        if status.is_redirection() && status != StatusCode::NOT_MODIFIED {
            return Err(Error::Redirected { host: self.shared.base_url.host(), status: status.as_u16() });
        }
        if response.headers().get_all(CONTENT_ENCODING).iter().any(|encoding| encoding != "identity") {
            return Err(self.unreadable());
        }
        let headers = end_to_end(response.headers().clone(), &NOT_RETURNED);
        let body = self.capped_body(response).await?;
        let body = self.without_secrets(&body).ok_or_else(|| self.unreadable())?;
        let mut answer = Response::new(body);
        *answer.status_mut() = status;
        for (name, value) in &headers {
            if self.is_clean(name, value) {
                answer.headers_mut().append(name, value.clone());
            }
        }
        Ok(answer)
    }

    /// Returns `body` without secrets; `None` if it is not text and cannot be searched.
    fn without_secrets(&self, body: &[u8]) -> Option<Bytes> {
        let text = std::str::from_utf8(body).ok().filter(|text| is_parsable(text.as_bytes()))?;
        // An escape in a string could hide a secret from the search of the text.
        let mut text = Cow::Borrowed(text);
        if let Ok(value) = serde_json::from_str::<Value>(&text) {
            let mut clean = value.clone();
            self.redactor.redact_json(&mut clean);
            if clean != value {
                text = clean.to_string().into();
            }
        }
        Some(Bytes::copy_from_slice(self.redactor.redact(&text).as_bytes()))
    }

    /// Whether neither the name nor the value of a header holds a secret, nor both together.
    fn is_clean(&self, name: &HeaderName, value: &HeaderValue) -> bool {
        let is_clean = |text: &str| matches!(self.redactor.redact(text), Cow::Borrowed(_));
        value.to_str().is_ok_and(|value| is_clean(value) && is_clean(&format!("{name}{value}")))
    }
}

/// Returns `headers` without those for one connection and without `dropped`.
fn end_to_end(mut headers: HeaderMap, dropped: &[HeaderName]) -> HeaderMap {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|names| names.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in HOP_BY_HOP.iter().chain(&named).chain(dropped) {
        headers.remove(name);
    }
    headers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_of_one_connection_are_dropped_with_those_that_it_names() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "close, X-Private"),
            ("x-private", "1"),
            ("te", "trailers"),
            ("cookie", "a=b"),
            ("x-original-url", "/admin"),
            ("x-http-method-override", "TRACE"),
            ("range", "bytes=0-4"),
            ("if-range", "\"1\""),
            ("accept", "application/json"),
        ] {
            headers.insert(name.parse::<HeaderName>().unwrap(), HeaderValue::from_static(value));
        }
        let kept = end_to_end(headers, &NOT_SENT);
        let kept: Vec<&str> = kept.keys().map(HeaderName::as_str).collect();
        assert_eq!(kept, ["accept"]);
    }
}
