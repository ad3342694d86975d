//! The `/mcp` endpoint: rmcp's service behind the authentication, the scopes and the owners of sessions, which rmcp
//! lacks.

use std::sync::Arc;

use axum::{
    body::Body,
    extract::{Request, State},
    response::{IntoResponse, Response},
};
use futures_util::StreamExt as _;
use http::{
    HeaderMap, HeaderValue, Method, StatusCode,
    header::{ALLOW, CONNECTION, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE},
    request::Parts,
};
use rmcp::{
    model::RequestId,
    transport::{StreamableHttpServerConfig, StreamableHttpService},
};
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::Instrument as _;

use super::{
    answers::Answers,
    authentication::{Authentication, Caller, Rejection},
    http::{Protection, TOKEN_WANTED},
    message::{Message, is_small_object, may_ask},
    refusals::{NO_SUCH_SESSION, busy, error, in_fixed_words, invalid_message, refusal},
    request_body::{BodyMemory, CountedBody, MAX_BODY_BYTES, Refusal, discard},
    session_manager::SessionManager,
    sessions::Sessions,
    shares::Shares,
    uninterrupted::Uninterrupted,
};
use crate::{
    account::Owner,
    listener::Keep,
    mcp::{BondMcp, required_scopes, scopes_required_by_headers},
    oauth::{self, Scopes},
    telemetry::span_of_request,
};

/// Largest body of a request without a good token that is read, in bytes.
const MAX_REJECTED_BYTES: usize = 64 << 10;

/// What a request is told whose access token is missing or no longer good.
const CONNECT: &str = "Connect this server in the host: it opens a page on which you sign in and agree.";

/// The answer to a request in a session whose id belongs to another unanswered request.
const SAME_ID: Refusal = (
    StatusCode::BAD_REQUEST,
    "A request with this id is not answered yet. Give each request of a session an id of its own.",
);

/// What a request is told when access tokens cannot be checked.
const UNAVAILABLE: &str = "The server cannot check access tokens now. Try again in a few seconds.";

/// What a request is told whose access token does not allow what it asks for.
const NOT_ALLOWED: &str = "The access token does not allow this. Connect again in the host and allow it.";

/// The endpoint.
pub(super) struct Endpoint {
    authentication: Authentication,
    /// The service that opens no sessions.
    stateless: StreamableHttpService<BondMcp, SessionManager>,
    /// The service that opens a session for each `initialize`.
    with_sessions: StreamableHttpService<BondMcp, SessionManager>,
    sessions: Sessions,
    /// For streams that wait for messages of a session: rmcp allows several to each, and they must leave connections for requests.
    streams: Shares,
    /// For requests in sessions: each is answered by a stream.
    answers: Answers,
    body_memory: BodyMemory,
    /// Ends the streams that wait for messages of a session; they would keep the server from stopping.
    draining: CancellationToken,
    /// Ends the sessions with the endpoint. Not before: when the server stops, calls in flight are answered.
    _sessions_end: DropGuard,
}

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Endpoint").field("sessions", &self.sessions).finish_non_exhaustive()
    }
}

impl Endpoint {
    /// `draining` ends what would go on for ever. `server` ends calls.
    pub fn new(server: &BondMcp, protection: Protection, draining: CancellationToken) -> Arc<Self> {
        let end = CancellationToken::new();
        // rmcp tries them in this order.
        let loopback = ["127.0.0.1", "localhost", "::1"].map(ToOwned::to_owned);
        let config = StreamableHttpServerConfig::default()
            .with_json_response(true)
            .with_max_request_body_bytes(MAX_BODY_BYTES)
            .with_allowed_hosts(protection.allowed_hosts.into_iter().chain(loopback))
            .with_cancellation_token(end.clone());
        let config = match protection.authentication {
            Authentication::Grants(_) => config,
            Authentication::Open(_) | Authentication::Tokens(_) => {
                config.with_allowed_origins(protection.allowed_origins).enforce_origin_validation()
            }
        };
        let sessions = Sessions::new(protection.max_sessions, protection.max_sessions_overall);
        let service = |config| {
            let server = server.clone();
            StreamableHttpService::new(move || Ok(server.clone()), Arc::clone(&sessions.manager), config)
        };
        Arc::new(Self {
            authentication: protection.authentication,
            stateless: service(config.clone().with_legacy_session_mode(false)),
            with_sessions: service(config),
            sessions,
            streams: Shares::new(protection.max_sessions_overall / 2, protection.max_sessions * 2),
            answers: Answers::new(protection.max_answers_overall, protection.max_answers),
            body_memory: BodyMemory::new(),
            draining,
            _sessions_end: end.drop_guard(),
        })
    }

    pub async fn answer(State(endpoint): State<Arc<Self>>, request: Request) -> Response {
        let span = span_of_request(request.extensions());
        match endpoint.admitted(request).instrument(span).await {
            Ok(admitted) => {
                let mut response = endpoint.answer_admitted(admitted).await;
                response.extensions_mut().insert(Keep);
                response
            }
            Err(refused) => refused,
        }
    }

    async fn answer_admitted(self: Arc<Self>, admitted: (Owner, Parts, CountedBody)) -> Response {
        let (owner, head, CountedBody { bytes, share }) = admitted;
        let is_read =
            head.method == Method::POST && !(is_stateless(&head.headers) && is_small_object(&bytes));
        let message = match is_read.then(|| Message::read(&bytes)).transpose() {
            Ok(message) => message,
            Err(refusal) => return invalid_message(refusal),
        };
        let route = Route::of(&head, message.as_ref(), &bytes);
        let id = message.and_then(Message::into_request_id);
        let mut request = Request::from_parts(head, Body::from(bytes));
        if let Some(share) = share {
            // `mcp` keeps the request for as long as the call takes, whether or not somebody waits for the answer.
            request.extensions_mut().insert(Arc::new(share));
        }
        // Outside of the span, which all tasks of rmcp would enter with every step. `mcp` enters it where it logs.
        match route {
            Route::Stateless => served(&self.stateless, request).await,
            Route::Session if self.sessions.is_theirs(&owner, request.headers()) => {
                match (request.method(), id) {
                    (&Method::GET, _) => self.stream(&owner, request).await,
                    (_, Some(id)) => self.answer_in_session(&owner, request, id).await,
                    // The person's answer to a question, or a cancellation, must get through: it ends a request.
                    _ => served(&self.with_sessions, request).await,
                }
            }
            // 405, as MCP demands of whoever has no stream for such a request: some hosts ask so before `initialize`, or
            // after they have forgotten their session, and take every other status for a broken server.
            Route::NoSession => {
                let mut refused = refusal(
                    StatusCode::METHOD_NOT_ALLOWED,
                    "no session is named; open one with `initialize`",
                );
                refused.headers_mut().insert(ALLOW, HeaderValue::from_static("POST"));
                refused
            }
            Route::Session => refusal(StatusCode::NOT_FOUND, NO_SUCH_SESSION),
            Route::NewSession { asks } => {
                // To its end even when the client is gone, or the session would be nobody's and not counted.
                Uninterrupted::new(async move { self.open_session(&owner, request, asks).await }).await
            }
        }
    }

    /// Answers with a stream that waits for messages of a session.
    async fn stream(&self, owner: &Owner, request: Request) -> Response {
        let Some(share) = self.streams.try_take(owner, 1) else {
            return busy("too many streams are open; try again later");
        };
        let draining = self.draining.clone().cancelled_owned();
        served(&self.with_sessions, request).await.map(|body| {
            let held = move |frame| {
                let _ = &share;
                frame
            };
            Body::from_stream(body.into_data_stream().take_until(draining).map(held))
        })
    }

    /// Answers a request in a session with a stream.
    async fn answer_in_session(
        self: Arc<Self>,
        owner: &Owner,
        mut request: Request,
        id: RequestId,
    ) -> Response {
        let Some(counted) = self.answers.begin(owner) else {
            return busy("too many requests are being answered; try again later");
        };
        let Some(unanswered) = self.sessions.begin(request.headers(), id) else {
            return invalid_message(SAME_ID);
        };
        request.extensions_mut().insert(unanswered);
        // To its end even when the client is gone, or rmcp would keep a stream that no request ends.
        let answering = async move {
            let response = served(&self.with_sessions, request).await;
            if is_stream(&response) { response.map(|body| counted.bound(body)) } else { response }
        };
        Uninterrupted::new(answering).await
    }

    /// Returns whose a request is, and the request, once it is read; or the answer to one that is refused.
    async fn admitted(&self, request: Request) -> Result<(Owner, Parts, CountedBody), Response> {
        let Caller { owner, scopes } = match self.authentication.verify(request.headers()).await {
            Ok(caller) => caller,
            Err(rejection) => {
                let is_read = discard(request.into_body().into_data_stream(), MAX_REJECTED_BYTES).await;
                let mut response = self.rejected(rejection);
                if !is_read {
                    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                }
                return Err(response);
            }
        };
        let (mut head, body) = request.into_parts();
        // Read before any lock is taken, so that a slow body blocks no other request.
        let body = self.body_memory.read(&owner, body).await;
        let body = body.map_err(|(status, reason)| refusal(status, reason))?;
        if let Some(refused) = self.beyond_scopes(scopes, &head.headers, &body.bytes) {
            return Err(refused);
        }
        // From here `mcp` takes whose request it is and what it may use.
        head.extensions.insert(owner.clone());
        head.extensions.insert(scopes);
        Ok((owner, head, body))
    }

    /// Returns the number of open sessions.
    pub async fn open_sessions(&self) -> usize {
        self.sessions.manager.local.sessions.read().await.len()
    }

    fn rejected(&self, rejection: Rejection) -> Response {
        let description = match self.authentication {
            Authentication::Grants(_) => CONNECT,
            Authentication::Open(_) | Authentication::Tokens(_) => TOKEN_WANTED,
        };
        match rejection {
            // RFC 6750: 401 with a challenge where the token is missing or wrong.
            Rejection::Challenge(challenge) => {
                let body = error("invalid_token", description);
                (StatusCode::UNAUTHORIZED, [(WWW_AUTHENTICATE, &*challenge)], body).into_response()
            }
            Rejection::Unavailable => {
                let body = error("temporarily_unavailable", UNAVAILABLE);
                (StatusCode::SERVICE_UNAVAILABLE, [(RETRY_AFTER, "5")], body).into_response()
            }
        }
    }

    /// Refuses a request for more than its scopes (RFC 6750, section 3.1; MCP authorization, "Scope Challenge
    /// Handling").
    fn beyond_scopes(&self, scopes: Scopes, headers: &HeaderMap, body: &[u8]) -> Option<Response> {
        let Authentication::Grants(server) = &self.authentication else { return None };
        if scopes == Scopes::all() {
            return None;
        }
        let by_headers = is_stateless(headers).then(|| scopes_required_by_headers(headers)).flatten();
        let required = by_headers.unwrap_or_else(|| required_scopes(body));
        // A tool that needs another scope is not served, with any token.
        let required = required.intersection(server.scopes());
        (!required.are_within(scopes)).then(|| {
            tracing::info!(%scopes, %required, "a request was beyond its scopes");
            let challenge = oauth::challenge(server.endpoints(), Some("insufficient_scope"), required);
            let body = error("insufficient_scope", NOT_ALLOWED);
            (StatusCode::FORBIDDEN, [(WWW_AUTHENTICATE, challenge)], body).into_response()
        })
    }

    /// Opens a session; whoever has too many of them is served without one, unless the host `asks` the person questions.
    async fn open_session(&self, owner: &Owner, request: Request, asks: bool) -> Response {
        let Some(opening) = self.sessions.open(owner).await else {
            if asks {
                return busy("too many sessions are open; close one or try again later");
            }
            // Hosts that forget their session after each request, and begin anew with the next one, need none.
            return served(&self.stateless, request).await;
        };
        let response = served(&self.with_sessions, request).await;
        opening.opened(response.headers());
        response
    }
}

fn is_stream(response: &Response) -> bool {
    response.headers().get(CONTENT_TYPE).is_some_and(|media_type| media_type == "text/event-stream")
}

/// Boxed: axum moves the future of a request several times.
async fn served(service: &StreamableHttpService<BondMcp, SessionManager>, request: Request) -> Response {
    in_fixed_words(Box::pin(service.handle(request)).await.map(Body::new)).await
}

/// Returns the service for a request.
enum Route {
    Stateless,
    Session,
    NewSession {
        /// Whether the host can ask the person: without a session there would be no confirmation.
        asks: bool,
    },
    /// None: a request for a session that names none.
    NoSession,
}

impl Route {
    /// Only `initialize` opens a session. Hosts of older revisions without a session are served too.
    fn of(head: &Parts, message: Option<&Message>, body: &[u8]) -> Self {
        if is_stateless(&head.headers) {
            Self::Stateless
        } else if head.headers.contains_key("mcp-session-id") {
            Self::Session
        } else if head.method != Method::POST {
            Self::NoSession
        } else if message.is_some_and(Message::is_initialize) {
            Self::NewSession { asks: may_ask(body) }
        } else {
            Self::Stateless
        }
    }
}

/// The versions are dates, so they compare as text.
fn is_stateless(headers: &HeaderMap) -> bool {
    headers.get("mcp-protocol-version").is_some_and(|version| version.as_bytes() >= &b"2026-07-28"[..])
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::FutureExt as _;
    use serde_json::{Value, json};

    use super::{super::answers::ANSWER_TIMEOUT, *};
    use crate::{
        account::Accounts,
        bondmcp::{Client, Timing},
        clock::Clock,
        config::{Flags, Settings},
        mcp::{Limits, Selection},
        redact::Redactor,
    };

    /// Returns an endpoint where an owner can have one session, with one answer at a time.
    fn endpoint(directory: &std::path::Path) -> Arc<Endpoint> {
        let flags = Flags { data_dir: Some(directory.to_owned()), ..Flags::default() };
        let settings = Settings::load(flags, None, |_| None).unwrap();
        let (redactor, clock) = (Redactor::default(), Clock::system());
        let client =
            Client::new(settings.base_url.clone(), redactor.clone(), clock.clone(), Timing::default());
        let accounts = Accounts::new(&settings, "bondmcp-server".into(), client, clock, redactor);
        let stopping = CancellationToken::new();
        let server =
            BondMcp::new(accounts, None, &Selection::default(), Limits::default(), stopping.clone()).unwrap();
        let tokens = ["ada", "eve"].map(|name| (name.into(), Owner::Subject(name.into())));
        let protection = Protection {
            max_sessions: 1,
            max_sessions_overall: 4,
            max_answers: 1,
            ..Protection::new(Authentication::Tokens(tokens.into()))
        };
        Endpoint::new(&server, protection, stopping)
    }

    fn initialize(name: &str) -> Request {
        let params = json!({"protocolVersion": "2025-11-25", "capabilities": {},
            "clientInfo": {"name": name, "version": "1"}});
        post(name, 1, "initialize", &params)
    }

    fn post(name: &str, id: u32, method: &str, params: &Value) -> Request {
        let body = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
        let request = Request::builder().method(Method::POST).uri("/mcp").header("host", "localhost");
        let request = request.header("authorization", format!("Bearer {name}"));
        let request = request.header("content-type", "application/json");
        let request = request.header("accept", "application/json, text/event-stream");
        request.body(Body::from(body.to_string())).unwrap()
    }

    #[tokio::test]
    async fn whoever_opens_sessions_and_is_gone_takes_none_of_the_others() {
        let directory = tempfile::tempdir().unwrap();
        // They are gone at another step each time, whichever it is.
        for steps in 0..30 {
            let endpoint = endpoint(directory.path());
            for _ in 0..10 {
                let mut opening = Box::pin(Endpoint::answer(State(Arc::clone(&endpoint)), initialize("eve")));
                for _ in 0..steps {
                    if opening.as_mut().now_or_never().is_some() {
                        break;
                    }
                    tokio::task::yield_now().await;
                }
            }
            let response = Endpoint::answer(State(Arc::clone(&endpoint)), initialize("ada")).await;
            assert!(response.headers().contains_key("mcp-session-id"), "{steps}");
        }
    }

    #[tokio::test]
    async fn an_answer_counts_until_its_client_has_it_but_for_a_while_only() {
        let directory = tempfile::tempdir().unwrap();
        let endpoint = endpoint(directory.path());
        let opened = Endpoint::answer(State(Arc::clone(&endpoint)), initialize("ada")).await;
        let session = &opened.headers()["mcp-session-id"];
        let ask = |id| {
            let mut request = post("ada", id, "tools/list", &json!({}));
            request.headers_mut().insert("mcp-session-id", session.clone());
            Endpoint::answer(State(Arc::clone(&endpoint)), request)
        };
        tokio::time::pause();
        // As long as its client takes nothing, hyper does not poll the body.
        let _untaken = ask(2).await;
        assert_eq!(ask(3).await.status(), StatusCode::SERVICE_UNAVAILABLE);
        tokio::time::sleep(ANSWER_TIMEOUT + Duration::from_secs(1)).await;
        assert_eq!(ask(4).await.status(), StatusCode::OK);
        tokio::task::yield_now().await;
        assert_eq!(ask(5).await.status(), StatusCode::OK, "nobody waits for the last answer");
    }
}
