//! One HTTP exchange with the upstream: with [`super::forward`] the only place that opens connections to it and puts
//! credentials into headers. Redirects are refused, response sizes are capped, and only requests that are safe to
//! repeat are retried.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use backon::{ExponentialBuilder, Retryable as _};
use bytes::Bytes;
use futures_util::TryFutureExt as _;
use http::{
    HeaderValue, Method,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE},
};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::time;
use zeroize::Zeroizing;

use super::{
    Client,
    circuit_breaker::{Observed, Permit},
    connection::{BreakCause, ConnectFailure, causes},
    error::Error,
    proxy::Proxy,
    quotable::Quotable,
    refusal::Refusal,
};
use crate::{
    json_size::{MAX_PARSED_BYTES, is_parsable},
    metrics,
    secret::{ExposeSecret, SecretBytes, SecretString},
};

/// The largest response body that is read.
const MAX_RESPONSE_BYTES: usize = 4 << 20;

/// Time-outs and the retry policy.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// Time-out for establishing a connection.
    pub connect: Duration,
    /// Time-out for one request and its whole response.
    pub request: Duration,
    /// Time-out for one billed request and its whole response: models take long.
    pub billed: Duration,
    /// Time-out for a read with all its attempts and waits.
    pub deadline: Duration,
    /// Wait before the second attempt of a read; it doubles, with jitter.
    pub first_wait: Duration,
    /// How long the circuit breaker stays open after repeated failures.
    pub open_for: Duration,
    /// The longest `Retry-After` that is absorbed; a longer one is returned to the caller.
    pub longest_wait: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            request: Duration::from_secs(20),
            billed: Duration::from_secs(45),
            deadline: Duration::from_secs(40),
            first_wait: Duration::from_millis(200),
            open_for: Duration::from_secs(10),
            longest_wait: Duration::from_secs(2),
        }
    }
}

/// Time-out for the circuit breaker's probe.
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);

/// Attempts of a read, the first one included.
const MAX_ATTEMPTS: usize = 3;

/// Whether a billed request may have reached the upstream: set when it is sent, cleared when the upstream has certainly
/// not processed it. It outlives a call that is cancelled.
#[derive(Debug, Default)]
pub struct Sent {
    sent: AtomicBool,
    /// After this time no request is sent. `None` means that there is no limit.
    latest_start: Option<time::Instant>,
}

impl Sent {
    /// For requests that are sent at `latest_start` at the latest: one that is cut off may have been billed.
    #[must_use]
    pub fn by(latest_start: time::Instant) -> Self {
        Self { sent: AtomicBool::default(), latest_start: Some(latest_start) }
    }

    #[must_use]
    pub fn get(&self) -> bool {
        self.sent.load(Ordering::Relaxed)
    }

    pub(crate) fn set(&self, sent: bool) {
        self.sent.store(sent, Ordering::Relaxed);
    }

    /// Notes that a request is sent now, unless it is too late for that.
    fn begin(&self) -> Result<(), Error> {
        if self.latest_start.is_some_and(|latest| time::Instant::now() > latest) {
            return Err(Error::TooLate);
        }
        self.set(true);
        Ok(())
    }
}

/// What is asked of the upstream.
pub(super) struct Request<'a> {
    pub method: Method,
    /// Below the base URL.
    pub path: &'a [&'a str],
    pub bearer: Option<&'a SecretString>,
    pub body: Option<Bytes>,
    /// Set when the request is sent. It may say until when that is allowed.
    pub sent: Option<&'a Sent>,
}

impl<'a> Request<'a> {
    pub fn get(path: &'a [&'a str], bearer: &'a SecretString) -> Self {
        Self { method: Method::GET, path, bearer: Some(bearer), body: None, sent: None }
    }
}

impl Client {
    /// Sends a read, up to three times within the deadline.
    pub(super) async fn read<T: DeserializeOwned>(
        &self,
        path: &[&str],
        bearer: &SecretString,
    ) -> Result<T, Error> {
        let attempt = || self.attempt(self.shared.timing.request, Request::get(path, bearer));
        let permit = self.permit().await?;
        let answer = with_retry(self.shared.timing, attempt, Error::is_transient, None);
        let answer = time::timeout(self.shared.timing.deadline, answer).await;
        let answer = answer.unwrap_or_else(|_| Err(self.timeout()));
        settle(permit, &answer);
        answer
    }

    /// Sends a request that costs money; all of them go through here. It is retried only if the attempt before was
    /// certainly not processed; an error says whether it may have been. Dropping this cancels the request.
    pub(super) async fn billed<T>(
        &self,
        path: &[&str],
        bearer: &SecretString,
        body: SecretBytes,
        sent: &Sent,
        parse: impl Fn(Value) -> Option<T>,
    ) -> Result<T, Error> {
        let timing = self.shared.timing;
        let body = Bytes::from_owner(body);
        let attempt = || {
            let body = Some(body.clone());
            let request =
                Request { method: Method::POST, path, bearer: Some(bearer), body, sent: Some(sent) };
            let answer = self.attempt(timing.billed, request);
            // At once: the call may end while it waits for the next attempt.
            answer.inspect_err(|error| {
                if error.is_certainly_unprocessed() {
                    sent.set(false);
                }
            })
        };
        // Outside of what may be billed: a probe that fails bills nothing.
        let permit = self.permit().await?;
        // Each attempt has its full time, and no time-out holds for all of them: the last one may have been billed.
        let answer = with_retry(timing, attempt, Error::should_retry_billed, sent.latest_start).await;
        settle(permit, &answer);
        let answer = answer.and_then(|answer| parse(answer).ok_or_else(|| self.unreadable()));
        answer.map_err(
            |cause| if sent.get() { Error::PossiblyBilled { cause: Box::new(cause) } } else { cause },
        )
    }

    /// Sends a request once and parses the response as `T`.
    pub(super) async fn send_once<T: DeserializeOwned>(&self, request: Request<'_>) -> Result<T, Error> {
        let permit = self.permit().await?;
        let outcome = self.attempt(self.shared.timing.request, request).await;
        settle(permit, &outcome);
        outcome
    }

    /// Lets a call through; probes the upstream first if the circuit was open.
    async fn permit(&self) -> Result<Permit<'_>, Error> {
        let permit = self.circuit_breaker.acquire()?;
        if permit.is_probe() {
            let probe =
                Request { method: Method::GET, path: &["health"], bearer: None, body: None, sent: None };
            let outcome = self.attempt::<Value>(PROBE_TIMEOUT, probe).await;
            match outcome {
                Err(error) if error.is_outage() => {
                    permit.record(&Observed::Down(error.to_string()));
                    return Err(error);
                }
                // Any response means that the upstream is alive.
                _ => permit.close(),
            }
        }
        Ok(permit)
    }

    async fn attempt<T: DeserializeOwned>(&self, time: Duration, request: Request<'_>) -> Result<T, Error> {
        let (endpoint, began) = (endpoint(request.path), Instant::now());
        let answer = time::timeout(time, self.exchange(request)).await;
        let answer = answer.unwrap_or_else(|_| Err(self.timeout()));
        if let Some(status) = status_class(&answer) {
            metrics::upstream_request(endpoint, status, began.elapsed());
        }
        self.parsed(&answer?)
    }

    async fn exchange(&self, request: Request<'_>) -> Result<SecretBytes, Error> {
        let mut outgoing = self
            .http()
            .await?
            .request(request.method, self.shared.base_url.endpoint(request.path))
            .header(ACCEPT, "application/json");
        let mut admitted = None;
        if let Some(bearer) = request.bearer {
            admitted = Some(self.rate_limiter.admit().await?);
            self.redactor.remember(bearer);
            outgoing = outgoing.header(AUTHORIZATION, authorization(bearer)?);
        }
        if let Some(body) = request.body.clone() {
            outgoing = outgoing.header(CONTENT_TYPE, "application/json").body(body);
        }
        if let Some(sent) = request.sent {
            sent.begin()?;
        }
        let response = outgoing.send().await.map_err(|error| self.failure(&error))?;
        if admitted.is_some() {
            let now = self.shared.clock.now();
            self.rate_limiter.observe(response.status(), response.headers(), now);
        }
        drop(admitted);
        let quotable = Quotable { id: id_in(request.path), body: request.body.as_deref() };
        // Boxed, or the future of every call would have its size.
        Box::pin(self.body_of(response, quotable)).await
    }

    /// Reads the body of a response. A redirect is an error, and so is what the upstream refuses.
    pub(super) async fn body_of(
        &self,
        mut response: reqwest::Response,
        quotable: Quotable<'_>,
    ) -> Result<SecretBytes, Error> {
        let status = response.status();
        if status.is_redirection() {
            return Err(Error::Redirected { host: self.shared.base_url.host(), status: status.as_u16() });
        }
        let headers = std::mem::take(response.headers_mut());
        let body = self.capped_body(response).await?;
        if status.is_success() {
            return Ok(body);
        }
        let (now, redactor) = (self.shared.clock.now(), &self.redactor);
        let refusal = Refusal::read(status, &headers, &body, quotable, now, redactor, &self.shared.base_url);
        Err(Error::Refused(Box::new(refusal)))
    }

    /// Parses a body, unless that would take too much memory.
    pub(super) fn parsed<T: DeserializeOwned>(&self, body: &[u8]) -> Result<T, Error> {
        if !is_parsable(body) {
            return Err(self.oversize(MAX_PARSED_BYTES));
        }
        serde_json::from_slice(body).map_err(|_| self.unreadable())
    }

    pub(super) async fn capped_body(&self, mut response: reqwest::Response) -> Result<SecretBytes, Error> {
        let announced = usize::try_from(response.content_length().unwrap_or(0)).unwrap_or(usize::MAX);
        if announced > MAX_RESPONSE_BYTES {
            return Err(self.oversize(MAX_RESPONSE_BYTES));
        }
        let mut body = SecretBytes::with_capacity(announced);
        while let Some(chunk) = response.chunk().await.map_err(|error| self.failure(&error))? {
            if body.len() + chunk.len() > MAX_RESPONSE_BYTES {
                return Err(self.oversize(MAX_RESPONSE_BYTES));
            }
            body.append(&chunk);
        }
        Ok(body)
    }

    /// reqwest's own errors carry URLs and inner messages; only their class is kept, and the log has the rest.
    pub(super) fn failure(&self, error: &reqwest::Error) -> Error {
        let host = self.shared.base_url.host();
        tracing::debug!(host, causes = causes(error), "the connection failed");
        if error.is_connect() {
            let cause = ConnectFailure::of(error);
            match Proxy::of(&self.shared.base_url).filter(|_| cause.is_of_the_network()) {
                Some(proxy) => Error::ProxyUnreachable { host, proxy: proxy.host(), cause },
                None => Error::Unreachable { host, cause },
            }
        } else if error.is_timeout() {
            Error::Timeout { host }
        } else {
            Error::Broken { host, cause: BreakCause::of(error) }
        }
    }

    pub(super) fn oversize(&self, limit: usize) -> Error {
        Error::Oversize { host: self.shared.base_url.host(), limit }
    }

    pub(super) fn unreadable(&self) -> Error {
        Error::Unreadable { host: self.shared.base_url.host() }
    }

    pub(super) fn timeout(&self) -> Error {
        Error::Timeout { host: self.shared.base_url.host() }
    }
}

/// `attempt` until it works, at most three times, as long as `should_retry` says so. None begins after `latest_start`.
async fn with_retry<T, Answer: Future<Output = Result<T, Error>>>(
    timing: Timing,
    attempt: impl FnMut() -> Answer,
    should_retry: fn(&Error) -> bool,
    latest_start: Option<time::Instant>,
) -> Result<T, Error> {
    let waits = ExponentialBuilder::new()
        .with_min_delay(timing.first_wait)
        .with_max_delay(timing.longest_wait)
        .with_max_times(MAX_ATTEMPTS - 1)
        .with_jitter();
    let is_in_time =
        move |wait: &Duration| latest_start.is_none_or(|latest| time::Instant::now() + *wait <= latest);
    let tries = attempt.retry(waits).when(should_retry).adjust(move |error, wait| {
        let wait = match error.retry_after() {
            Some(asked) if asked > timing.longest_wait => None,
            Some(asked) => wait.map(|wait| wait.max(asked)),
            None => wait,
        };
        wait.filter(is_in_time)
    });
    tries.await
}

/// Returns the name in metrics of the endpoint at `path`, without the ids in it.
fn endpoint(path: &[&str]) -> &'static str {
    match path {
        ["health"] => "/health",
        ["auth", "register"] => "/auth/register",
        ["auth", "login"] => "/auth/login",
        ["auth", "refresh"] => "/auth/refresh",
        ["auth", "logout"] => "/auth/logout",
        ["auth", "me"] => "/auth/me",
        ["auth", "api-keys"] => "/auth/api-keys",
        ["auth", "api-keys", _] => "/auth/api-keys/{id}",
        ["api", "v1", "api-keys", "usage", _] => "/api/v1/api-keys/usage/{id}",
        ["api", "v1", "api-keys", _, "regenerate"] => "/api/v1/api-keys/{id}/regenerate",
        ["health-ai", "models"] => "/health-ai/models",
        ["health-ai", _] => "/health-ai/{service}",
        _ => "other",
    }
}

/// Returns the id in `path`.
fn id_in<'a>(path: &[&'a str]) -> Option<&'a str> {
    match path {
        ["auth", "api-keys", id]
        | ["api", "v1", "api-keys", "usage", id]
        | ["api", "v1", "api-keys", id, "regenerate"] => Some(id),
        _ => None,
    }
}

/// Returns the class of the status that BondMCP answered with; `failed` without an answer, `None` where nothing was
/// sent.
fn status_class<T>(answer: &Result<T, Error>) -> Option<&'static str> {
    match answer {
        Ok(_) => Some("2xx"),
        Err(Error::Redirected { .. }) => Some("3xx"),
        Err(error) => match error.status() {
            Some(500..) => Some("5xx"),
            Some(400..) => Some("4xx"),
            _ => error.was_sent().then_some("failed"),
        },
    }
}

/// Records the outcome of a call. One that was not sent says nothing about the upstream.
fn settle<T>(permit: Permit<'_>, outcome: &Result<T, Error>) {
    match outcome {
        Err(error) if error.is_outage() => permit.record(&Observed::Down(error.to_string())),
        Err(error) if !error.was_sent() => {}
        _ => permit.record(&Observed::Alive),
    }
}

/// `Authorization: Bearer …` (RFC 6750, 2.1), marked so that nobody prints it.
pub(super) fn authorization(bearer: &SecretString) -> Result<HeaderValue, Error> {
    let value = Zeroizing::new(format!("Bearer {}", bearer.expose_secret()));
    let mut value = HeaderValue::from_str(&value).map_err(|_| Error::InvalidCredential)?;
    value.set_sensitive(true);
    Ok(value)
}
