//! One HTTP exchange with the upstream: the only place that opens connections to it and puts credentials into
//! headers. Redirects are refused, answers are capped, and only reads are repeated.

use std::time::Duration;

use backon::{ExponentialBuilder, Retryable as _};
use bytes::Bytes;
use http::{
    HeaderValue, Method,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE},
};
use serde::de::DeserializeOwned;
use serde_json::Value;
use zeroize::Zeroizing;

use super::{
    Client,
    circuit::{Observed, Passage},
    connection::ConnectFailure,
    error::{Error, Refusal},
};
use crate::secret::{ExposeSecret, SecretBytes, SecretString};

/// The most bytes of an answer that are taken.
const LARGEST_ANSWER: usize = 4 << 20;

/// How long things may take, and how reads are repeated.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// For a connection to come about.
    pub connect: Duration,
    /// For one request and its whole answer.
    pub request: Duration,
    /// For one billed request and its whole answer: models think long.
    pub billed: Duration,
    /// For a read with all its tries and waits.
    pub deadline: Duration,
    /// Before the second try of a read; it doubles, with jitter.
    pub first_wait: Duration,
    /// For the upstream to be left alone in, after repeated failures.
    pub pause: Duration,
    /// The longest `Retry-After` that is waited for; a longer one is told to the caller instead.
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
            pause: Duration::from_secs(10),
            longest_wait: Duration::from_secs(2),
        }
    }
}

/// For the upstream to say that it is well.
const PROBE: Duration = Duration::from_secs(5);

/// Tries of a read, the first one included.
const TRIES: usize = 3;

/// What is asked of the upstream.
pub(super) struct Request<'a> {
    pub method: Method,
    /// Below the base URL.
    pub path: &'a [&'a str],
    pub bearer: Option<&'a SecretString>,
    pub body: Option<Bytes>,
}

impl<'a> Request<'a> {
    pub fn get(path: &'a [&'a str], bearer: &'a SecretString) -> Self {
        Self { method: Method::GET, path, bearer: Some(bearer), body: None }
    }
}

impl Client {
    /// A read: tried up to three times within the deadline.
    pub(super) async fn read<T: DeserializeOwned>(
        &self,
        path: &[&str],
        bearer: &SecretString,
    ) -> Result<T, Error> {
        let attempt = || self.attempt(self.timing.request, Request::get(path, bearer));
        self.repeated(self.timing.deadline, attempt, Error::is_transient).await
    }

    /// A request that costs money: the one place through which all of them go. It is repeated only when the one before
    /// was certainly not processed; a failure says whether it may have been. When this is dropped the request is
    /// cancelled.
    pub(super) async fn billed<T>(
        &self,
        path: &[&str],
        bearer: &SecretString,
        body: SecretBytes,
        understood: impl Fn(Value) -> Option<T>,
    ) -> Result<T, Error> {
        let time = self.timing.billed;
        let body = Bytes::from_owner(body);
        let attempt = || {
            let body = Some(body.clone());
            self.attempt(time, Request { method: Method::POST, path, bearer: Some(bearer), body })
        };
        let answer = self.repeated(time, attempt, Error::is_worth_repeating_billed).await;
        let answer = answer.and_then(|answer| understood(answer).ok_or_else(|| self.unreadable()));
        answer.map_err(|cause| {
            if cause.is_certainly_unprocessed() {
                cause
            } else {
                Error::PossiblyBilled { cause: Box::new(cause) }
            }
        })
    }

    /// One request, sent once, and its answer as `T`.
    pub(super) async fn once<T: DeserializeOwned>(&self, request: Request<'_>) -> Result<T, Error> {
        let passage = self.passage().await?;
        let outcome = self.attempt(self.timing.request, request).await;
        settle(passage, &outcome);
        outcome
    }

    /// `attempt` until it works, at most three times within `deadline`, as long as `again` finds it worth while.
    async fn repeated<T, Answer: Future<Output = Result<T, Error>>>(
        &self,
        deadline: Duration,
        attempt: impl FnMut() -> Answer,
        again: fn(&Error) -> bool,
    ) -> Result<T, Error> {
        let timing = self.timing;
        let passage = self.passage().await?;
        let waits = ExponentialBuilder::new()
            .with_min_delay(timing.first_wait)
            .with_max_delay(timing.longest_wait)
            .with_max_times(TRIES - 1)
            .with_jitter();
        let tries = attempt.retry(waits).when(again).adjust(move |error, wait| match error.retry_after() {
            Some(asked) if asked > timing.longest_wait => None,
            Some(asked) => wait.map(|wait| wait.max(asked)),
            None => wait,
        });
        let outcome = tokio::time::timeout(deadline, tries).await.unwrap_or_else(|_| Err(self.timeout()));
        settle(passage, &outcome);
        outcome
    }

    /// Lets a call through; asks the upstream first whether it is well, where it has been left alone for a while.
    async fn passage(&self) -> Result<Passage<'_>, Error> {
        let passage = self.circuit.enter()?;
        if passage.is_probe {
            let probe = Request { method: Method::GET, path: &["health"], bearer: None, body: None };
            let outcome = self.attempt::<Value>(PROBE, probe).await;
            match outcome {
                Err(error) if error.is_outage() => {
                    passage.record(Observed::Down);
                    return Err(error);
                }
                // Any answer is a sign of life.
                _ => passage.is_well(),
            }
        }
        Ok(passage)
    }

    async fn attempt<T: DeserializeOwned>(&self, time: Duration, request: Request<'_>) -> Result<T, Error> {
        let answer = tokio::time::timeout(time, self.exchange(request)).await;
        let body = answer.unwrap_or_else(|_| Err(self.timeout()))?;
        serde_json::from_slice(&body).map_err(|_| self.unreadable())
    }

    async fn exchange(&self, request: Request<'_>) -> Result<SecretBytes, Error> {
        let mut outgoing = self
            .http()
            .await?
            .request(request.method, self.base_url.endpoint(request.path))
            .header(ACCEPT, "application/json");
        let mut admitted = None;
        if let Some(bearer) = request.bearer {
            admitted = Some(self.budget.admit().await?);
            self.redactor.remember(bearer);
            outgoing = outgoing.header(AUTHORIZATION, authorization(bearer)?);
        }
        if let Some(body) = request.body {
            outgoing = outgoing.header(CONTENT_TYPE, "application/json").body(body);
        }
        let response = outgoing.send().await.map_err(|error| self.failure(&error))?;
        let status = response.status();
        let headers = response.headers().clone();
        if admitted.is_some() {
            self.budget.learn(status.as_u16(), &headers, self.clock.now());
        }
        drop(admitted);
        if status.is_redirection() {
            return Err(Error::Redirected { host: self.base_url.host(), status: status.as_u16() });
        }
        let body = self.capped_body(response).await?;
        if status.is_success() {
            return Ok(body);
        }
        let (now, redactor) = (self.clock.now(), &self.redactor);
        let refusal = Refusal::read(status, &headers, &body, now, redactor, &self.base_url);
        Err(Error::Refused(Box::new(refusal)))
    }

    async fn capped_body(&self, mut response: reqwest::Response) -> Result<SecretBytes, Error> {
        let oversize = || Error::Oversize { host: self.base_url.host(), limit: LARGEST_ANSWER };
        let announced = response.content_length().unwrap_or(0);
        if announced > LARGEST_ANSWER as u64 {
            return Err(oversize());
        }
        let mut body = Zeroizing::new(Vec::new());
        while let Some(chunk) = response.chunk().await.map_err(|error| self.failure(&error))? {
            if body.len() + chunk.len() > LARGEST_ANSWER {
                return Err(oversize());
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body.into())
    }

    /// reqwest's own errors carry URLs and inner messages; only their class is kept.
    fn failure(&self, error: &reqwest::Error) -> Error {
        let host = self.base_url.host();
        if error.is_connect() {
            Error::Unreachable { host, cause: ConnectFailure::of(error) }
        } else if error.is_timeout() {
            Error::Timeout { host }
        } else {
            Error::Broken { host }
        }
    }

    pub(super) fn unreadable(&self) -> Error {
        Error::Unreadable { host: self.base_url.host() }
    }

    fn timeout(&self) -> Error {
        Error::Timeout { host: self.base_url.host() }
    }
}

/// Tells the circuit what a call has shown. One that was not sent shows nothing.
fn settle<T>(passage: Passage<'_>, outcome: &Result<T, Error>) {
    match outcome {
        Err(error) if error.is_outage() => passage.record(Observed::Down),
        Err(error) if !error.was_sent() => {}
        _ => passage.record(Observed::Alive),
    }
}

/// `Authorization: Bearer …` (RFC 6750, 2.1), marked so that nobody prints it.
fn authorization(bearer: &SecretString) -> Result<HeaderValue, Error> {
    let value = Zeroizing::new(format!("Bearer {}", bearer.expose_secret()));
    let mut value = HeaderValue::from_str(&value).map_err(|_| Error::InvalidCredential)?;
    value.set_sensitive(true);
    Ok(value)
}
