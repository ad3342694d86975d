//! Counting requests and injecting faults.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    convert::Infallible,
    time::Duration,
};

use axum::{
    Json,
    body::{Body, Bytes, to_bytes},
    extract::{MatchedPath, Request, State},
    http::{
        HeaderMap, HeaderValue, StatusCode,
        header::{AUTHORIZATION, CONTENT_TYPE, LOCATION, RETRY_AFTER},
    },
    middleware::Next,
    response::{Html, IntoResponse, Response},
};
use base64::Engine as _;
use futures_util::stream;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::{BASE_PATH, Sandbox, answers};

/// An injected fault.
#[derive(Clone, Debug)]
pub enum Fault {
    /// This status, with BondMCP's error body.
    Status(u16),
    /// This status, with this JSON.
    Refusal(u16, Value),
    /// 429 with this `Retry-After`, or without.
    TooMany(Option<String>),
    /// 503 with this `Retry-After`.
    Busy(String),
    /// A gateway's page in place of JSON.
    Html(u16),
    /// The connection closes without an answer; the request is not processed.
    Drop,
    /// The connection closes in the middle of the answer.
    DropMidBody,
    /// The answer is delayed by this time.
    Slow(Duration),
    /// No answer ever; the request is not processed.
    Hang,
    /// The request waits for [`Faults::release`], then is processed.
    Hold,
    /// The request is processed, then the connection closes without an answer.
    ProcessThenDrop,
    /// The request is processed, then no answer ever.
    ProcessThenHang,
    /// The request is processed; the answer waits for [`Faults::release`].
    ProcessThenHold,
    /// A refusal that quotes the request's `Authorization` header and body.
    Echo,
    /// 200 with an answer of any endpoint that quotes the request's `Authorization` header, plain and in base64.
    EchoAsAnswer,
    /// 200 with text that is no JSON.
    NotJson,
    /// 200 with JSON of another shape.
    OtherShape,
    /// 200 with more bytes than any client should take.
    Oversize,
    /// 307 to this address.
    Redirect(String),
    /// The request is processed, then answered with this status, and a `Location`.
    ProcessThenStatus(u16),
    /// 200 with this JSON.
    Answer(Value),
    /// The request is processed; the fields of this object replace those of the answer.
    ProcessThenChange(Value),
}

/// The injected faults and the request counts.
#[derive(Debug)]
pub struct Faults {
    planned: Mutex<Planned>,
    /// Number of requests by endpoint.
    counts: watch::Sender<BTreeMap<String, u64>>,
    /// Number of requests that were processed and are not answered, by endpoint.
    processed: watch::Sender<BTreeMap<String, u64>>,
    /// Number of releases.
    released: watch::Sender<u64>,
    /// Number of requests whose client disconnected before the answer, by endpoint.
    abandoned: watch::Sender<BTreeMap<String, u64>>,
}

#[derive(Debug, Default)]
struct Planned {
    /// Faults for the next requests to an endpoint, one each.
    next: HashMap<String, VecDeque<Fault>>,
    /// Faults for every request to an endpoint.
    always: HashMap<String, Fault>,
}

impl Default for Faults {
    fn default() -> Self {
        Self {
            planned: Mutex::default(),
            counts: watch::Sender::new(BTreeMap::new()),
            processed: watch::Sender::new(BTreeMap::new()),
            released: watch::Sender::new(0),
            abandoned: watch::Sender::new(BTreeMap::new()),
        }
    }
}

impl Faults {
    /// Injects `fault` into the next request to `endpoint` that has no fault planned yet.
    pub fn next(&self, endpoint: &str, fault: Fault) {
        self.planned.lock().next.entry(endpoint.to_owned()).or_default().push_back(fault);
    }

    /// Injects `fault` into every request to `endpoint`.
    pub fn always(&self, endpoint: &str, fault: Fault) {
        self.planned.lock().always.insert(endpoint.to_owned(), fault);
    }

    /// Removes all faults.
    pub fn clear(&self) {
        *self.planned.lock() = Planned::default();
    }

    /// Waits until `endpoint` has had `count` requests.
    pub async fn arrived(&self, endpoint: &str, count: u64) {
        reached(&self.counts, endpoint, count).await;
    }

    /// Waits until `count` requests to `endpoint` were processed without being answered.
    pub async fn processed(&self, endpoint: &str, count: u64) {
        reached(&self.processed, endpoint, count).await;
    }

    /// Releases the held requests and answers.
    pub fn release(&self) {
        self.released.send_modify(|times| *times += 1);
    }

    /// Waits until `count` requests to `endpoint` were abandoned by their client.
    pub async fn abandoned(&self, endpoint: &str, count: u64) {
        reached(&self.abandoned, endpoint, count).await;
    }

    pub(super) fn counts(&self) -> BTreeMap<String, u64> {
        self.counts.borrow().clone()
    }

    fn take(&self, endpoint: &str) -> Option<Fault> {
        let mut planned = self.planned.lock();
        let next = planned.next.get_mut(endpoint).and_then(VecDeque::pop_front);
        next.or_else(|| planned.always.get(endpoint).cloned())
    }
}

async fn reached(counts: &watch::Sender<BTreeMap<String, u64>>, endpoint: &str, count: u64) {
    // The sender lives as long as the sandbox, so waiting cannot fail.
    let _ = counts.subscribe().wait_for(|counts| counts.get(endpoint).is_some_and(|&n| n >= count)).await;
}

fn increment(counts: &watch::Sender<BTreeMap<String, u64>>, endpoint: &str) {
    counts.send_modify(|counts| *counts.entry(endpoint.to_owned()).or_default() += 1);
}

/// Records a request that is dropped before it was answered.
struct Answering<'a> {
    faults: &'a Faults,
    endpoint: &'a str,
    answered: bool,
}

impl Drop for Answering<'_> {
    fn drop(&mut self) {
        if !self.answered {
            increment(&self.faults.abandoned, self.endpoint);
        }
    }
}

/// Counts a request and injects its planned fault.
pub(super) async fn apply(State(sandbox): State<Sandbox>, request: Request, next: Next) -> Response {
    let path = request.extensions().get::<MatchedPath>().map_or("(unknown)", MatchedPath::as_str);
    let endpoint = format!("{} {}", request.method(), path.strip_prefix(BASE_PATH).unwrap_or(path));
    let faults = sandbox.faults();
    let fault = faults.take(&endpoint);
    // Subscribed before the arrival is counted, so that no release is missed.
    let released = faults.released.subscribe();
    increment(&faults.counts, &endpoint);
    let mut answering = Answering { faults, endpoint: &endpoint, answered: false };
    let response = match fault {
        None => next.run(request).await,
        Some(fault) => fault.response(&endpoint, faults, released, request, next).await,
    };
    answering.answered = true;
    tracing::debug!(%endpoint, status = response.status().as_u16(), "sandbox");
    response
}

impl Fault {
    async fn response(
        self,
        endpoint: &str,
        faults: &Faults,
        mut released: watch::Receiver<u64>,
        request: Request,
        next: Next,
    ) -> Response {
        match self {
            Self::Status(status) => {
                let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
                answers::refusal(status, "injected", "This failure was asked for")
            }
            Self::Refusal(status, body) => {
                let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
                (status, Json(body)).into_response()
            }
            Self::TooMany(retry_after) => {
                let status = StatusCode::TOO_MANY_REQUESTS;
                later(answers::refusal(status, "rate_limit_exceeded", "Slow down"), retry_after)
            }
            Self::Busy(retry_after) => {
                let status = StatusCode::SERVICE_UNAVAILABLE;
                later(answers::refusal(status, "busy", "Come again"), Some(retry_after))
            }
            Self::Html(status) => {
                let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
                (status, Html("<html><body><h1>Bad Gateway</h1></body></html>")).into_response()
            }
            Self::Drop => broken(""),
            Self::DropMidBody => broken(r#"{"models": [{"id": "#),
            Self::Slow(time) => {
                tokio::time::sleep(time).await;
                next.run(request).await
            }
            Self::Hang => std::future::pending().await,
            Self::Hold => {
                let _ = released.changed().await;
                next.run(request).await
            }
            Self::ProcessThenDrop => {
                next.run(request).await;
                broken("")
            }
            Self::ProcessThenHang => {
                next.run(request).await;
                increment(&faults.processed, endpoint);
                std::future::pending().await
            }
            Self::ProcessThenHold => {
                let response = next.run(request).await;
                increment(&faults.processed, endpoint);
                let _ = released.changed().await;
                response
            }
            Self::Echo => echo(request).await,
            Self::EchoAsAnswer => echo_as_answer(&request),
            Self::NotJson => "all is well".into_response(),
            Self::OtherShape => Json(json!({"weather": ["sunny", 21]})).into_response(),
            Self::Oversize => oversize(),
            Self::Redirect(address) => {
                let location = HeaderValue::try_from(address).unwrap_or(HeaderValue::from_static("/"));
                (StatusCode::TEMPORARY_REDIRECT, [(LOCATION, location)]).into_response()
            }
            Self::ProcessThenStatus(status) => {
                let mut response = next.run(request).await;
                *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::SEE_OTHER);
                response.headers_mut().insert(LOCATION, HeaderValue::from_static("/elsewhere"));
                response
            }
            Self::Answer(body) => Json(body).into_response(),
            Self::ProcessThenChange(fields) => changed(next.run(request).await, fields).await,
        }
    }
}

fn later(mut response: Response, retry_after: Option<String>) -> Response {
    if let Some(value) = retry_after.and_then(|value| HeaderValue::try_from(value).ok()) {
        response.headers_mut().insert(RETRY_AFTER, value);
    }
    response
}

/// Returns `response` with `fields` in the place of its own.
async fn changed(response: Response, fields: Value) -> Response {
    let (parts, body) = response.into_parts();
    let body = to_bytes(body, 1 << 20).await.unwrap_or_default();
    let mut answer: Value = serde_json::from_slice(&body).unwrap_or_default();
    if let (Value::Object(answer), Value::Object(fields)) = (&mut answer, fields) {
        answer.extend(fields);
    }
    (parts.status, Json(answer)).into_response()
}

/// Returns an answer that breaks off after `start`.
fn broken(start: &'static str) -> Response {
    let pieces = [Ok(Bytes::from(start)), Err(std::io::Error::other("broken off on request"))];
    ([(CONTENT_TYPE, "application/json")], Body::from_stream(stream::iter(pieces))).into_response()
}

async fn echo(request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let authorization = authorization(&parts.headers);
    let body = to_bytes(body, 1 << 20).await.unwrap_or_default();
    let message = format!("Cannot process {authorization} {}", String::from_utf8_lossy(&body));
    answers::refusal(StatusCode::BAD_REQUEST, authorization, &message)
}

/// Returns a model list with a field of each health service's answer.
fn echo_as_answer(request: &Request) -> Response {
    let authorization = authorization(request.headers());
    let encoded = base64::engine::general_purpose::STANDARD.encode(authorization);
    let debug = json!({ authorization: encoded });
    Json(json!({
        "models": [{"id": "echo", "name": "Echo", "debug": debug}],
        "risk_score": 1,
        "safety_score": 1,
        "urgency_score": 1,
        "goals": {"debug": debug},
        "extracted_data": {"debug": debug},
        "analysis": debug,
        "debug": debug,
    }))
    .into_response()
}

fn authorization(headers: &HeaderMap) -> &str {
    headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or("")
}

/// Returns 8 MiB without a content length.
fn oversize() -> Response {
    let piece = Bytes::from(vec![b' '; 64 << 10]);
    let pieces = stream::iter((0..128).map(move |_| Ok::<_, Infallible>(piece.clone())));
    ([(CONTENT_TYPE, "application/json")], Body::from_stream(pieces)).into_response()
}
