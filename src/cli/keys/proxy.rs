//! `keys run --proxy`: the API on a loopback port for one program, with the key added on the way. The program holds a
//! token that is good for this run and this port only, and the key reaches it in no response.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use anyhow::anyhow;
use axum::{
    Json, Router,
    body::{Body, to_bytes},
    extract::{Request, State},
    response::{IntoResponse as _, Response},
};
use http::{HeaderMap, Method, StatusCode, header::AUTHORIZATION};
use percent_encoding::percent_decode_str;
use serde_json::json;
use tokio::{net::TcpListener, time::timeout};

use super::Error;
use crate::{
    bondmcp::{Client, Forwarded},
    error::UserFacingError,
    listener::{self, Bounds, Keep, Workers},
    secret::{self, SecretString},
};

/// Largest request body that is forwarded.
const MAX_BODY_BYTES: usize = 4 << 20;

/// Longest wait for a complete request body.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// Limits on connections.
const BOUNDS: Bounds = Bounds { connections: 64, head_timeout: Duration::from_secs(30) };

/// The methods of the API.
const METHODS: [Method; 6] =
    [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE];

pub(super) struct Proxy {
    listener: TcpListener,
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    client: Client,
    key: SecretString,
    token: SecretString,
}

impl Proxy {
    pub async fn listen(client: Client, key: SecretString) -> Result<Self, Error> {
        let broken = |error| Error::Failed(anyhow!("The proxy cannot listen on loopback: {error}."));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(broken)?;
        let address = listener.local_addr().map_err(broken)?;
        Ok(Self { listener, address, shared: Arc::new(Shared { client, key, token: secret::random() }) })
    }

    /// The token that the program sends as its API key.
    pub fn token(&self) -> &SecretString {
        &self.shared.token
    }

    /// The base URL for the program: the upstream's path on this port.
    pub fn base_url(&self) -> String {
        format!("http://{}{}", self.address, self.shared.base_path())
    }

    /// Serves for as long as this is polled.
    pub async fn serve(self) {
        let router = Router::new().fallback(answer).with_state(self.shared);
        listener::serve(self.listener, router, BOUNDS, Workers::current(), std::future::pending()).await;
    }
}

async fn answer(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    if !shared.is_authorized(request.headers()) {
        return refusal(StatusCode::UNAUTHORIZED, "send this run's BONDMCP_API_KEY as the bearer token");
    }
    let Some(path) = shared.path(request.uri().path()) else {
        return refusal(StatusCode::NOT_FOUND, "this path is not below BONDMCP_BASE_URL");
    };
    if !METHODS.contains(request.method()) {
        return refusal(StatusCode::METHOD_NOT_ALLOWED, "this method is not forwarded");
    }
    let (head, body) = request.into_parts();
    let body = match timeout(BODY_TIMEOUT, to_bytes(body, MAX_BODY_BYTES)).await {
        Ok(Ok(body)) => body,
        Ok(Err(_)) => {
            return refusal(StatusCode::PAYLOAD_TOO_LARGE, "a request body may have up to 4 MiB");
        }
        Err(_) => return refusal(StatusCode::REQUEST_TIMEOUT, "the request body did not arrive in time"),
    };
    let query = head.uri.query().map(ToOwned::to_owned);
    let request = Forwarded { method: head.method, path, query, headers: head.headers, body };
    match shared.client.forward(request, &shared.key).await {
        Ok(answer) => {
            tracing::debug!(status = answer.status().as_u16(), "a request was forwarded");
            let mut answer = answer.map(Body::from);
            answer.extensions_mut().insert(Keep);
            answer
        }
        Err(error) => refusal(StatusCode::BAD_GATEWAY, &UserFacingError::from(&error).message),
    }
}

impl Shared {
    fn is_authorized(&self, headers: &HeaderMap) -> bool {
        let bearer = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()?.split_once(' '));
        bearer.is_some_and(|(scheme, token)| {
            scheme.eq_ignore_ascii_case("bearer") && secret::same(&token.trim().into(), &self.token)
        })
    }

    fn base_path(&self) -> String {
        self.client.base_url().endpoint(&[]).path().trim_end_matches('/').to_owned()
    }

    /// Returns the decoded segments of `path` below the base URL's; `None` if it is elsewhere or could lead elsewhere.
    fn path(&self, path: &str) -> Option<Vec<String>> {
        let below = path.strip_prefix(self.base_path().as_str())?;
        let segments = match below.strip_prefix('/') {
            Some(below) => below.split('/'),
            None if below.is_empty() => return Some(vec![]),
            None => return None,
        };
        let decoded = segments.map(|segment| {
            let segment = percent_decode_str(segment).decode_utf8().ok()?;
            // A server may take an escaped slash or backslash for a separator, and drop control characters or what
            // follows a semicolon.
            let is_plain = !segment.contains(['/', '\\']) && !segment.contains(char::is_control);
            let name = segment.split(';').next().unwrap_or_default();
            (is_plain && !matches!(name, "." | "..")).then(|| segment.into_owned())
        });
        decoded.collect()
    }
}

fn refusal(status: StatusCode, detail: &str) -> Response {
    (status, Json(json!({ "detail": detail }))).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{bondmcp::Timing, clock::Clock, redact::Redactor};

    fn shared(base_url: &str) -> Shared {
        let base_url = base_url.parse().unwrap();
        let client = Client::new(base_url, Redactor::default(), Clock::system(), Timing::default());
        Shared { client, key: "key".into(), token: "token".into() }
    }

    #[test]
    fn only_paths_below_the_base_url_are_forwarded() {
        let shared = shared("https://api.example/mcp");
        assert_eq!(shared.path("/mcp").unwrap(), [""; 0]);
        assert_eq!(shared.path("/mcp/health-ai/models").unwrap(), ["health-ai", "models"]);
        assert_eq!(shared.path("/mcp/a%20b/").unwrap(), ["a b", ""]);
        for path in [
            "/",
            "/mcpx/models",
            "/other",
            "/mcp/../admin",
            "/mcp/%2e%2e/admin",
            "/mcp/%2E./admin",
            "/mcp/a%2F..%2F..%2Fadmin",
            "/mcp/..%5cadmin",
            // URL parsers drop these characters and then see `..`.
            "/mcp/.%09./admin",
            "/mcp/.%0a%2e%0d/admin",
            "/mcp/a%00b",
            // Some servers drop what follows a semicolon and then see `..`.
            "/mcp/..;/admin",
            "/mcp/..%3Bx/admin",
            "/mcp/%ff",
        ] {
            assert_eq!(shared.path(path), None, "{path}");
        }
    }

    #[test]
    fn a_base_url_without_a_path_has_all_of_them() {
        assert_eq!(shared("https://api.example").path("/health-ai/models").unwrap(), ["health-ai", "models"]);
    }
}
