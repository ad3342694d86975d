//! What can go wrong between us and the upstream, and how the bodies of its refusals are read. An upstream body is
//! never shown as it came: it may echo what was sent.

use std::time::Duration;

use http::{HeaderMap, StatusCode, header::RETRY_AFTER};
use serde_json::Value;

use crate::{
    clock::Timestamp,
    error::{Kind, Report, sentence},
    redact::Redactor,
};

/// The most of an upstream's message that is passed on, in characters.
const LONGEST_MESSAGE: usize = 400;

/// What to do after a billed request whose outcome is not known.
pub const POSSIBLY_BILLED: &str =
    "The request may have been processed and billed: ask the person before repeating it.";

/// What can go wrong in a call to the upstream.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It answered, and said no.
    #[error("BondMCP refused the request with status {}", .0.status)]
    Refused(Refusal),
    /// No connection came about, so nothing was processed.
    #[error("BondMCP cannot be reached")]
    Unreachable,
    /// The connection broke; the request may have been processed.
    #[error("the connection to BondMCP broke")]
    Broken,
    /// No answer in time; the request may have been processed.
    #[error("BondMCP did not answer in time")]
    Timeout,
    /// It answered with a redirect, which is not followed because credentials would travel along.
    #[error("BondMCP answered with a redirect, which is not followed")]
    Redirected,
    /// More bytes than the client takes.
    #[error("BondMCP's answer is larger than {} MiB", super::exchange::LARGEST_ANSWER >> 20)]
    Oversize,
    /// A success that is no JSON, or JSON of another shape.
    #[error("BondMCP's answer could not be understood")]
    Unreadable,
    /// The account's requests of this minute are used up; nothing was sent.
    #[error("the account's requests of this minute are used up")]
    OverBudget { retry_after: Duration },
    /// It has failed so often that it is left alone for a while; nothing was sent.
    #[error("BondMCP has failed {failures} times in a row, so it is not asked just now")]
    CircuitOpen { failures: u32, retry_after: Duration },
    /// A billed request that failed and may have been processed all the same.
    #[error("{cause}")]
    PossiblyBilled { cause: Box<Error> },
    /// An id that cannot be an id; nothing was sent.
    #[error("that is not an API key id")]
    InvalidId,
    /// A credential that cannot travel in a header; nothing was sent.
    #[error("the credential holds characters that an HTTP header cannot carry")]
    InvalidCredential,
}

/// A refusal as the upstream gave it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub status: u16,
    /// The upstream's own code for it, such as `key_limit_reached`.
    pub code: Option<String>,
    /// The upstream's own words, redacted and cut.
    pub message: Option<String>,
    /// How long to wait, from `Retry-After` or `X-RateLimit-Reset`.
    pub retry_after: Option<Duration>,
}

impl Error {
    /// The credential was not accepted (401).
    #[must_use]
    pub fn is_unauthorized(&self) -> bool {
        matches!(self, Self::Refused(r) if r.status == 401)
    }

    /// The plan allows no further API key: one status, 403, is documented for that and for missing permissions.
    #[must_use]
    pub fn is_about_key_limit(&self) -> bool {
        matches!(self, Self::Refused(r) if r.status == 403 && r.mentions("limit"))
    }

    /// There is no such thing (404).
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Refused(r) if r.status == 404)
    }

    /// Whether it is certain that the upstream did not do what it was asked.
    #[must_use]
    pub fn is_certainly_unprocessed(&self) -> bool {
        match self {
            Self::Refused(refusal) => refusal.status < 500 || refusal.is_turned_away(),
            Self::Unreachable
            | Self::Redirected
            | Self::OverBudget { .. }
            | Self::CircuitOpen { .. }
            | Self::InvalidId
            | Self::InvalidCredential => true,
            Self::Broken
            | Self::Timeout
            | Self::Oversize
            | Self::Unreadable
            | Self::PossiblyBilled { .. } => false,
        }
    }

    /// Whether a read may succeed when it is simply made again.
    pub(super) fn is_transient(&self) -> bool {
        match self {
            Self::Refused(refusal) => matches!(refusal.status, 429 | 500 | 502 | 503 | 504),
            Self::Unreachable | Self::Broken | Self::Timeout => true,
            _ => false,
        }
    }

    /// Whether a billed request may be made again: the upstream has certainly not processed it, and may do so soon.
    pub(super) fn is_worth_repeating_billed(&self) -> bool {
        match self {
            Self::Refused(refusal) => refusal.status == 429 || refusal.is_turned_away(),
            Self::Unreachable => true,
            _ => false,
        }
    }

    /// Whether the upstream is down, as far as can be told from here.
    #[must_use]
    pub fn is_outage(&self) -> bool {
        match self {
            Self::Refused(refusal) => refusal.status >= 500,
            Self::Unreachable | Self::Broken | Self::Timeout | Self::CircuitOpen { .. } => true,
            Self::PossiblyBilled { cause } => cause.is_outage(),
            _ => false,
        }
    }

    /// How long to wait, where that is known.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused(refusal) => refusal.retry_after,
            Self::OverBudget { retry_after } | Self::CircuitOpen { retry_after, .. } => Some(*retry_after),
            Self::PossiblyBilled { cause } => cause.retry_after(),
            _ => None,
        }
    }
}

impl Refusal {
    pub(super) fn read(
        status: StatusCode,
        headers: &HeaderMap,
        body: &[u8],
        now: Timestamp,
        redactor: &Redactor,
    ) -> Self {
        let (code, message) = match serde_json::from_slice(body) {
            Ok(body) => code_and_message(&body),
            Err(_) => (None, None),
        };
        let presentable = |text: String| {
            let printable: String = text.chars().filter(|c| !c.is_control()).collect();
            redactor.redact(&printable).chars().take(LONGEST_MESSAGE).collect()
        };
        Self {
            status: status.as_u16(),
            code: code.map(presentable),
            message: message.map(presentable),
            retry_after: retry_after(headers, now),
        }
    }

    /// A 503 that says when to come again was given instead of processing anything (RFC 9110, 15.6.4).
    fn is_turned_away(&self) -> bool {
        self.status == 503 && self.retry_after.is_some()
    }

    fn kind(&self) -> Kind {
        match self.status {
            401 => Kind::InvalidCredentials,
            402 => Kind::InsufficientCredits,
            403 if self.is_about_verification() => Kind::EmailNotVerified,
            403 => Kind::Forbidden,
            404 => Kind::NotFound,
            409 => Kind::Conflict,
            408 => Kind::Timeout,
            429 => Kind::RateLimited,
            400..=499 => Kind::InvalidInput,
            _ => Kind::UpstreamUnavailable,
        }
    }

    /// The documented API has one status, 403, for an unverified e-mail and for missing permissions.
    fn is_about_verification(&self) -> bool {
        self.mentions("verif")
    }

    fn mentions(&self, word: &str) -> bool {
        let texts = [&self.code, &self.message].into_iter().flatten();
        texts.map(|text| text.to_ascii_lowercase()).any(|text| text.contains(word))
    }
}

impl From<&Error> for Report {
    fn from(error: &Error) -> Self {
        match error {
            Error::Refused(refusal) => refusal.into(),
            Error::Unreachable | Error::Broken => Self::new(
                Kind::UpstreamUnavailable,
                sentence(&error.to_string()),
                "Try again in a moment; if it stays so, check the network and the base URL.",
            ),
            Error::Timeout => Self::new(
                Kind::Timeout,
                sentence(&error.to_string()),
                "Try again in a moment; a change may have been made all the same, so look before repeating it.",
            ),
            Error::Redirected => Self::new(
                Kind::UpstreamUnavailable,
                sentence(&error.to_string()),
                "The operator must set BONDMCP_BASE_URL to the address that it redirects to, if that is to be trusted.",
            ),
            Error::Oversize | Error::Unreadable => Self::new(
                Kind::UpstreamUnavailable,
                sentence(&error.to_string()),
                "Check that the base URL points at the BondMCP API; otherwise try again later.",
            ),
            Error::OverBudget { retry_after } => Self::new(
                Kind::RateLimited,
                "The plan's rate limit is reached.",
                "Wait as long as said, or upgrade the plan.",
            )
            .with_retry_after(Some(*retry_after)),
            Error::CircuitOpen { failures, retry_after } => Self::new(
                Kind::UpstreamUnavailable,
                format!("BondMCP has failed {failures} times in a row, so it is not asked just now."),
                "Wait as long as said; the next call then tries whether it works again.",
            )
            .with_retry_after(Some(*retry_after)),
            Error::PossiblyBilled { cause } => {
                Self { solution: POSSIBLY_BILLED.to_owned(), ..cause.as_ref().into() }
            }
            Error::InvalidId => Self::new(
                Kind::InvalidInput,
                "That is not an API key id.",
                "List the keys and give the id of one of them.",
            ),
            Error::InvalidCredential => Self::new(
                Kind::InvalidCredentials,
                sentence(&error.to_string()),
                "Copy it again, without line breaks or spaces.",
            ),
        }
    }
}

impl From<&Refusal> for Report {
    fn from(refusal: &Refusal) -> Self {
        let kind = refusal.kind();
        let (happened, next) = match kind {
            Kind::InvalidCredentials => {
                ("BondMCP did not accept the credential", "Sign in again or check the API key.")
            }
            Kind::InsufficientCredits => {
                ("The account has not enough credits", "Top up the account, then try again.")
            }
            Kind::EmailNotVerified => (
                "The e-mail address is not verified yet",
                "Open the link in the mail from BondMCP, then try again.",
            ),
            Kind::Forbidden => (
                "The account may not do this",
                "Read the message; a higher plan or fewer API keys may be needed.",
            ),
            Kind::NotFound => ("BondMCP does not know that", "Check the id; list to see what there is."),
            Kind::Conflict => ("BondMCP has that already", "Use the one there is, or choose another name."),
            Kind::RateLimited => {
                ("The plan's rate limit is reached", "Wait as long as said, or upgrade the plan.")
            }
            Kind::Timeout => ("BondMCP did not answer in time", "Try again in a moment."),
            Kind::InvalidInput => ("BondMCP refused the input", "Read the message and correct the input."),
            _ => ("BondMCP has a problem of its own", "Try again later."),
        };
        let message = match &refusal.message {
            Some(words) => format!("{happened}; it says: {}.", words.trim_end_matches('.')),
            None => format!("{happened}."),
        };
        Self::new(kind, message, next).with_status(Some(refusal.status)).with_retry_after(refusal.retry_after)
    }
}

/// Reads the three shapes that occur: `{"error": {"code", "message"}}`, FastAPI's `{"detail": …}`, and a plain
/// `{"message": …}` or `{"error": "…"}`.
fn code_and_message(body: &Value) -> (Option<String>, Option<String>) {
    let text = |value: &Value| value.as_str().map(ToOwned::to_owned);
    match (&body["error"], &body["detail"]) {
        (Value::Object(error), _) => (error.get("code").and_then(text), error.get("message").and_then(text)),
        (Value::String(message), _) | (_, Value::String(message)) => (None, Some(message.clone())),
        (_, Value::Array(problems)) => {
            let problems: Vec<String> = problems.iter().filter_map(validation_problem).collect();
            (None, (!problems.is_empty()).then(|| problems.join("; ")))
        }
        _ => (body.get("code").and_then(text), body.get("message").and_then(text)),
    }
}

/// One entry of FastAPI's list: where, and what is wrong there. Its `input` is left out: it echoes what was sent.
fn validation_problem(problem: &Value) -> Option<String> {
    let message = problem["msg"].as_str()?;
    let place: Vec<String> = problem["loc"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|step| step.as_str().map_or_else(|| step.to_string(), ToOwned::to_owned))
        .collect();
    Some(if place.is_empty() { message.to_owned() } else { format!("{}: {message}", place.join(".")) })
}

/// `Retry-After` in seconds or as an HTTP date (RFC 9110, 10.2.3), else `X-RateLimit-Reset` in epoch seconds when
/// nothing remains.
pub(super) fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let text = |name: &str| headers.get(name)?.to_str().ok().map(str::trim);
    if let Some(value) = text(RETRY_AFTER.as_str()) {
        if let Ok(seconds) = value.parse() {
            return Some(Duration::from_secs(seconds));
        }
        if let Ok(date) = httpdate::parse_http_date(value) {
            return Some(until(date.into(), now));
        }
    }
    if text("x-ratelimit-remaining")? != "0" {
        return None;
    }
    let reset = Timestamp::from_timestamp(text("x-ratelimit-reset")?.parse().ok()?, 0)?;
    Some(until(reset, now))
}

fn until(moment: Timestamp, now: Timestamp) -> Duration {
    (moment - now).to_std().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(status: u16, headers: &[(&'static str, &str)], body: &str) -> Refusal {
        let headers = headers
            .iter()
            .map(|(name, value)| (http::HeaderName::from_static(name), value.parse().unwrap()))
            .collect();
        let redactor = Redactor::default();
        redactor.remember(&"canary-password".into());
        Refusal::read(
            StatusCode::from_u16(status).unwrap(),
            &headers,
            body.as_bytes(),
            Timestamp::from_timestamp(1_000_000, 0).unwrap(),
            &redactor,
        )
    }

    #[test]
    fn every_documented_body_shape_gives_its_message() {
        for (body, message) in [
            (r#"{"error":{"code":"x","message":"no","details":{}}}"#, Some("no")),
            (r#"{"error":"no"}"#, Some("no")),
            (r#"{"message":"no"}"#, Some("no")),
            (r#"{"detail":"no"}"#, Some("no")),
            (
                r#"{"detail":[{"loc":["body","email"],"msg":"not an e-mail","type":"v"},{"loc":["body",0],"msg":"b"}]}"#,
                Some("body.email: not an e-mail; body.0: b"),
            ),
            ("<html><h1>502 Bad Gateway</h1></html>", None),
            ("", None),
            ("[1]", None),
        ] {
            assert_eq!(refusal(400, &[], body).message.as_deref(), message, "{body}");
        }
    }

    #[test]
    fn a_message_that_echoes_a_secret_is_redacted_and_cut() {
        let echo = format!(r#"{{"detail":"got canary-password {}"}}"#, "x".repeat(9000));
        let message = refusal(400, &[], &echo).message.unwrap();
        assert!(message.starts_with("got [redacted] xxx"));
        assert_eq!(message.chars().count(), LONGEST_MESSAGE);
    }

    #[test]
    fn a_403_about_verification_is_told_apart() {
        let kind = |body| Report::from(&refusal(403, &[], body)).kind;
        assert_eq!(kind(r#"{"detail":"Please verify your email"}"#), Kind::EmailNotVerified);
        assert_eq!(kind(r#"{"detail":"upgrade"}"#), Kind::Forbidden);
    }

    #[test]
    fn the_wait_is_read_from_seconds_from_a_date_and_from_the_reset() {
        let wait = |headers| refusal(429, headers, "").retry_after;
        assert_eq!(wait(&[("retry-after", "7")]), Some(Duration::from_secs(7)));
        assert_eq!(wait(&[("retry-after", "Mon, 12 Jan 1970 13:46:45 GMT")]), Some(Duration::from_secs(5)));
        assert_eq!(
            wait(&[("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "1000009")]),
            Some(Duration::from_secs(9))
        );
        assert_eq!(wait(&[("x-ratelimit-remaining", "3"), ("x-ratelimit-reset", "1000009")]), None);
        assert_eq!(wait(&[("retry-after", "soon")]), None);
    }
}
