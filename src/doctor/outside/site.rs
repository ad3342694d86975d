//! Requests to the server that is examined, and its answers.

use http::{HeaderMap, StatusCode, header::CONTENT_TYPE};
use reqwest::{Client, RequestBuilder};
use serde_json::{Value, json};

use super::{Outcome, Problem};
use crate::config::PublicOrigin;

/// Most of a body that is read, in bytes.
const MAX_BODY_BYTES: usize = 256 << 10;

/// The metadata document that most hosts ask for first.
pub(super) const RESOURCE_METADATA: &str = "/.well-known/oauth-protected-resource/mcp";

pub(super) struct Site {
    pub origin: PublicOrigin,
    http: Client,
}

/// An answer of whatever answers at the public URL.
#[derive(Debug)]
pub(super) struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

/// Why there is no answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Silence(pub &'static str);

impl From<Silence> for Problem {
    fn from(Silence(why): Silence) -> Self {
        Self::fail(why, "See what the proxy in front of the server logs, and whether the server runs.")
    }
}

impl Site {
    pub fn new(origin: PublicOrigin, http: Client) -> Self {
        Self { origin, http }
    }

    /// Returns the address of a path of the server.
    pub fn at(&self, path: &str) -> String {
        format!("{}{path}", self.origin)
    }

    pub fn request(&self, method: http::Method, url: &str) -> RequestBuilder {
        self.http.request(method, url)
    }

    pub async fn get(&self, path: &str) -> Result<Answer, Silence> {
        send(self.request(http::Method::GET, &self.at(path))).await
    }

    /// Returns the first request of a host, without a token.
    pub fn initialize(&self) -> RequestBuilder {
        let body = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
            "protocolVersion": "2025-11-25", "capabilities": {},
            "clientInfo": {"name": "bondmcp-server doctor", "version": env!("CARGO_PKG_VERSION")}}});
        self.request(http::Method::POST, &self.at("/mcp"))
            .header("accept", "application/json, text/event-stream")
            .header(CONTENT_TYPE, "application/json")
            .body(body.to_string())
    }

    /// Returns a token request of a client that nobody knows.
    pub fn token_request(&self) -> RequestBuilder {
        self.request(http::Method::POST, &self.at("/token"))
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body("grant_type=authorization_code&code=of-doctor&client_id=of-doctor")
    }

    /// Returns a registration that the server must refuse, as it has no redirect URI.
    pub fn empty_registration(&self) -> RequestBuilder {
        self.request(http::Method::POST, &self.at("/register"))
            .header(CONTENT_TYPE, "application/json")
            .body(r#"{"client_name": "bondmcp-server doctor", "redirect_uris": []}"#)
    }

    /// Makes sure that something answers that may be the server.
    pub async fn answers(&self) -> Outcome {
        let answer = self.get(RESOURCE_METADATA).await?;
        let shown = answer.shown();
        if answer.status.is_server_error() {
            let advice =
                "See what the proxy in front of the server logs, and whether it reaches a server that runs.";
            return Err(Problem::fail(shown, advice));
        }
        Ok(format!("{} answers", self.origin))
    }
}

/// Sends a request and reads the answer.
pub(super) async fn send(request: RequestBuilder) -> Result<Answer, Silence> {
    let why = |error: reqwest::Error| {
        Silence(match () {
            () if error.is_timeout() => "no answer in time",
            () if error.is_connect() => "no connection",
            () => "the connection was closed before the answer was complete",
        })
    };
    let mut response = request.send().await.map_err(why)?;
    let (status, headers) = (response.status(), response.headers().clone());
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(why)? {
        body.extend_from_slice(&chunk);
        if body.len() > MAX_BODY_BYTES {
            break;
        }
    }
    Ok(Answer { status, headers, body })
}

impl Answer {
    /// Returns a header in lower case, empty if there is none.
    pub fn lower(&self, name: &str) -> String {
        self.header(name).unwrap_or_default().to_ascii_lowercase()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// Returns the body if the answer is JSON and says so.
    pub fn json(&self) -> Option<Value> {
        let is_json = self.lower("content-type").starts_with("application/json");
        is_json.then(|| serde_json::from_slice(&self.body).ok())?
    }

    pub fn is_html(&self) -> bool {
        self.lower("content-type").starts_with("text/html")
    }

    /// Whether nothing on the way may store the answer.
    pub fn is_private(&self) -> bool {
        self.lower("cache-control").contains("no-store")
    }

    /// Whether it is an error of the server's OAuth endpoints (RFC 6749, section 5.2; RFC 7591, section 3.2.2). With 429 the
    /// request has reached the server, and the limit of its address there.
    pub fn is_oauth_error(&self) -> bool {
        matches!(self.status.as_u16(), 400 | 401 | 429)
            && self.json().is_some_and(|body| body["error"].is_string())
    }

    /// Returns the problem that `what` has this answer.
    pub fn problem(&self, what: &str, advice: &str) -> Problem {
        let advice = match self.status {
            StatusCode::TOO_MANY_REQUESTS => {
                "This address has sent too many requests: wait a minute, and try again."
            }
            _ => advice,
        };
        Problem::fail(format!("{what}: {}", self.shown()), advice)
    }

    /// Describes the answer in words of our own.
    pub fn shown(&self) -> String {
        let kind = match () {
            () if self.is_html() => ", an HTML page",
            () if self.json().is_some() => ", JSON",
            () => "",
        };
        let challenged =
            if self.header("cf-mitigated").is_some() { ", a challenge of Cloudflare" } else { "" };
        format!("status {}{kind}{challenged}", self.status.as_u16())
    }
}
