//! Refusals by the upstream, read from its error bodies. A body is never shown as received, since it may echo the
//! request.

use std::time::Duration;

use http::{HeaderMap, StatusCode, header::RETRY_AFTER};
use serde_json::Value;

use super::quotable::Quotable;
use crate::{
    clock::Timestamp,
    config::BaseUrl,
    error::{Kind, UserFacingError, sentence},
    json_size::is_parsable,
    redact::Redactor,
};

/// Longest upstream message that is passed on, in characters.
const MAX_MESSAGE_CHARS: usize = 400;

const TRY_AGAIN_LATER: &str = "Try again later.";
const CHECK_BASE_URL: &str = "Check the base URL (--base-url or BONDMCP_BASE_URL).";

/// A refusal by the upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub status: u16,
    topic: Topic,
    /// The upstream's error code, such as `key_limit_reached`.
    pub code: Option<String>,
    /// The upstream's message, redacted and shortened.
    pub message: Option<String>,
    /// The wait from `Retry-After`, or after a 429 from `X-RateLimit-Reset`.
    pub retry_after: Option<Duration>,
    /// The host that answered.
    pub host: String,
    /// The base URL at which the API was expected.
    pub base_url: String,
}

/// What a refusal is about, as far as its words tell. The documented API has one status, 403, for an unverified e-mail,
/// for missing permissions and for the limit of keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Topic {
    /// It is not in BondMCP's format.
    Foreign,
    /// FastAPI's words for an unknown path.
    Path,
    Verification,
    KeyLimit,
    Other,
}

impl Refusal {
    /// Reads the answer to a request.
    pub(super) fn read(
        status: StatusCode,
        headers: &HeaderMap,
        body: &[u8],
        request: Quotable<'_>,
        now: Timestamp,
        redactor: &Redactor,
        base_url: &BaseUrl,
    ) -> Self {
        let body = is_parsable(body).then(|| serde_json::from_slice(body).ok()).flatten();
        let (code, message) = body.map_or((None, None), |body| code_and_message(&body));
        let words = message.as_deref().and_then(|message| request.without_quotes(message));
        let topic = Topic::of(code.as_deref(), message.as_deref(), words.as_deref());
        let presentable =
            |text: String| Some(redactor.excerpt(&request.without_quotes(&text)?, MAX_MESSAGE_CHARS));
        Self {
            status: status.as_u16(),
            topic,
            code: code.and_then(presentable),
            message: words.map(|words| redactor.excerpt(&words, MAX_MESSAGE_CHARS)),
            retry_after: retry_after(status, headers, now),
            host: base_url.host(),
            base_url: base_url.to_string(),
        }
    }

    /// Whether the plan allows no additional API key.
    pub(super) fn is_about_key_limit(&self) -> bool {
        self.status == 403 && self.topic == Topic::KeyLimit
    }

    /// Whether it may be about that: it names a limit, whichever.
    pub(super) fn may_be_about_key_limit(&self) -> bool {
        let names_a_limit = |text: &String| text.to_ascii_lowercase().contains("limit");
        self.status == 403
            && self.topic != Topic::Verification
            && [&self.code, &self.message].into_iter().flatten().any(names_a_limit)
    }

    /// Whether the upstream shed load: a 503 that says when to retry was sent instead of processing anything (RFC 9110,
    /// 15.6.4).
    pub(super) fn is_load_shed(&self) -> bool {
        self.status == 503 && self.retry_after.is_some()
    }

    /// Whether the body is in BondMCP's error format.
    pub(super) fn is_in_format(&self) -> bool {
        self.topic != Topic::Foreign
    }

    /// Whether a 404 does not concern an object at BondMCP.
    fn is_about_the_path(&self) -> bool {
        matches!(self.topic, Topic::Foreign | Topic::Path)
    }

    pub(super) fn kind(&self) -> Kind {
        match self.status {
            401 => Kind::InvalidCredentials,
            402 => Kind::InsufficientCredits,
            403 if self.topic == Topic::Verification => Kind::EmailNotVerified,
            403 => Kind::Forbidden,
            404 => Kind::NotFound,
            409 => Kind::Conflict,
            408 | 499 => Kind::Timeout,
            429 => Kind::RateLimited,
            400..=499 if self.is_in_format() => Kind::InvalidInput,
            _ => Kind::UpstreamUnavailable,
        }
    }
}

impl Topic {
    /// Reads it from the code and the message as they came, and from the message's own words: what it quotes says nothing.
    fn of(code: Option<&str>, message: Option<&str>, words: Option<&str>) -> Self {
        match (code, message) {
            (None, None) => return Self::Foreign,
            (None, Some(message)) if message.eq_ignore_ascii_case("not found") => return Self::Path,
            _ => {}
        }
        let [code, words] = [code, words].map(|text| text.unwrap_or_default().to_ascii_lowercase());
        // The code is the surer sign.
        for (text, is_key_limit) in
            [(&code, is_code_of_the_key_limit(&code)), (&words, names_the_key_limit(&words))]
        {
            if text.contains("verif") {
                return Self::Verification;
            }
            if is_key_limit {
                return Self::KeyLimit;
            }
        }
        Self::Other
    }
}

/// Whether a text in lower case names the limit of keys. Another limit, or one word alone, is not enough: rotating then
/// gives the key a new value, and the old one stops working at once.
fn names_the_key_limit(text: &str) -> bool {
    let has = |wanted: [&str; 2]| {
        text.split(|c: char| !c.is_ascii_alphanumeric()).any(|word| wanted.contains(&word))
    };
    has(["key", "keys"]) && has(["limit", "limits"]) && !has(["rate", "requests"])
}

/// The same for a code, which may be one word, such as `KeyLimitReached`.
fn is_code_of_the_key_limit(code: &str) -> bool {
    let has = |part: &str| code.contains(part);
    let is_another = ["limited", "rate", "request"].into_iter().any(has);
    names_the_key_limit(code) || has("key") && has("limit") && !is_another
}

impl From<&Refusal> for UserFacingError {
    fn from(refusal: &Refusal) -> Self {
        let Refusal { status, host, base_url, .. } = refusal;
        let kind = refusal.kind();
        let (happened, next) = match kind {
            Kind::InvalidCredentials => {
                ("BondMCP did not accept the credential".to_owned(), "Sign in again.")
            }
            Kind::InsufficientCredits => {
                ("The account does not have enough credits".to_owned(), "Top up the account, then try again.")
            }
            Kind::EmailNotVerified => (
                "The e-mail address is not verified yet".to_owned(),
                "Open the link in the e-mail from BondMCP, then try again.",
            ),
            Kind::Forbidden => {
                ("The account may not do this".to_owned(), "A higher plan or fewer API keys may be needed.")
            }
            Kind::NotFound if refusal.is_about_the_path() => {
                (format!("No BondMCP API at {base_url} (HTTP {status})"), CHECK_BASE_URL)
            }
            Kind::NotFound => ("Not found at BondMCP".to_owned(), "Check the id."),
            Kind::Conflict => ("Already exists at BondMCP".to_owned(), "Choose another name."),
            Kind::RateLimited => (
                "The plan's rate limit is reached".to_owned(),
                "Wait `retry_after_seconds`, or upgrade the plan.",
            ),
            Kind::Timeout => (format!("{host} did not answer in time"), "Try again in a moment."),
            Kind::InvalidInput => ("BondMCP refused the input".to_owned(), "Correct the input."),
            _ if refusal.is_in_format() => (format!("BondMCP server error (HTTP {status})"), TRY_AGAIN_LATER),
            _ => {
                let next = if *status >= 500 {
                    "Try again later; if it keeps failing, check the base URL."
                } else {
                    CHECK_BASE_URL
                };
                (format!("{host} answered with HTTP {status}; that is not BondMCP's format"), next)
            }
        };
        let message = match (&refusal.message, kind) {
            // BondMCP's message is enough.
            (Some(words), Kind::InvalidInput | Kind::Conflict) => quoted(words),
            (Some(words), Kind::NotFound) if !refusal.is_about_the_path() => quoted(words),
            (Some(words), Kind::Forbidden | Kind::UpstreamUnavailable) => {
                sentence(&format!("{happened}: {words}"))
            }
            _ => sentence(&happened),
        };
        Self::new(kind, message, next).of(refusal)
    }
}

/// Makes BondMCP's message a sentence. It may begin with the name of a field, so the first letter is not changed.
fn quoted(words: &str) -> String {
    format!("{}.", words.trim_end_matches('.'))
}

impl UserFacingError {
    /// Adds the status and the wait of a refusal.
    pub(super) fn of(self, refusal: &Refusal) -> Self {
        self.with_status(Some(refusal.status)).with_retry_after(refusal.retry_after)
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

/// Formats one entry of FastAPI's list: the place and the problem. Its `input` is left out, since it echoes the request.
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

/// `Retry-After` in seconds or as an HTTP date (RFC 9110, 10.2.3), else after a 429 `X-RateLimit-Reset` in epoch seconds
/// when nothing remains. Other answers have that header too, and it says nothing about them.
pub(super) fn retry_after(status: StatusCode, headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let text = |name: &str| headers.get(name)?.to_str().ok().map(str::trim);
    if let Some(value) = text(RETRY_AFTER.as_str()) {
        if let Ok(seconds) = value.parse() {
            return Some(Duration::from_secs(seconds));
        }
        if let Ok(date) = httpdate::parse_http_date(value) {
            return Some(until(date.into(), now));
        }
    }
    if status != StatusCode::TOO_MANY_REQUESTS || text("x-ratelimit-remaining")? != "0" {
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

    impl Refusal {
        /// Reads such an answer, at a second that is a round number.
        pub(in crate::bondmcp) fn answered(
            status: u16,
            headers: &[(&'static str, &str)],
            body: &str,
        ) -> Self {
            let headers = headers
                .iter()
                .map(|(name, value)| (http::HeaderName::from_static(name), value.parse().unwrap()))
                .collect();
            let redactor = Redactor::default();
            redactor.remember(&"canary-password".into());
            Self::read(
                StatusCode::from_u16(status).unwrap(),
                &headers,
                body.as_bytes(),
                Quotable::default(),
                Timestamp::from_timestamp(1_000_000, 0).unwrap(),
                &redactor,
                &"https://api.example.com/mcp".parse().unwrap(),
            )
        }
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
            assert_eq!(Refusal::answered(400, &[], body).message.as_deref(), message, "{body}");
        }
    }

    #[test]
    fn a_message_that_echoes_a_secret_is_redacted_and_cut() {
        let echo = format!(r#"{{"detail":"got canary-password {}"}}"#, "x".repeat(9000));
        let message = Refusal::answered(400, &[], &echo).message.unwrap();
        assert!(message.starts_with("got [redacted] xxx"));
        assert_eq!(message.chars().count(), MAX_MESSAGE_CHARS);
    }

    #[test]
    fn a_message_and_a_code_are_printable() {
        let body = r#"{"error":{"code":"\u001b]0;x\u0007c","message":"a\nb\u202ec\u200bd"}}"#;
        let refusal = Refusal::answered(400, &[], body);
        assert_eq!((refusal.code.as_deref(), refusal.message.as_deref()), (Some("]0;xc"), Some("abcd")));
    }

    #[test]
    fn a_403_about_verification_is_told_apart() {
        let kind = |body| UserFacingError::from(&Refusal::answered(403, &[], body)).kind;
        assert_eq!(kind(r#"{"detail":"Please verify your email"}"#), Kind::EmailNotVerified);
        assert_eq!(kind(r#"{"detail":"upgrade"}"#), Kind::Forbidden);
    }

    #[test]
    fn only_the_limit_of_keys_is_the_key_limit() {
        let is_about_it = |body| Refusal::answered(403, &[], body).is_about_key_limit();
        for body in [
            r#"{"error":{"code":"key_limit_reached","message":"Upgrade"}}"#,
            r#"{"error":{"code":"KeyLimitReached"}}"#,
            r#"{"error":{"code":"ApiKeyLimitExceeded","message":"Upgrade"}}"#,
            r#"{"error":{"code":"forbidden","message":"API key limit reached for your plan (5)"}}"#,
            r#"{"detail":"You have reached the limit of 5 API keys."}"#,
            r#"{"message":"API Keys: limit exceeded"}"#,
        ] {
            assert!(is_about_it(body), "{body}");
        }
        for body in [
            r#"{"error":{"code":"spend_limit_reached","message":"This key may not"}}"#,
            r#"{"error":{"code":"KeyRateLimitReached"}}"#,
            r#"{"error":{"code":"ApiKeyRequestLimit"}}"#,
            r#"{"error":{"code":"LimitedKey"}}"#,
            r#"{"detail":"Request limit reached"}"#,
            r#"{"detail":"The rate limit of this API key is reached"}"#,
            r#"{"detail":"This key has limited permissions"}"#,
            r#"{"detail":"Unlimited monkeys only"}"#,
            "",
        ] {
            assert!(!is_about_it(body), "{body}");
        }
        let elsewhere = Refusal::answered(400, &[], r#"{"error":{"code":"key_limit_reached"}}"#);
        assert!(!elsewhere.is_about_key_limit());
    }

    #[test]
    fn a_403_that_names_a_limit_may_be_the_key_limit() {
        let may_be = |status, body| Refusal::answered(status, &[], body).may_be_about_key_limit();
        for body in [
            r#"{"error":{"code":"KeyLimitReached"}}"#,
            r#"{"error":{"code":"PLAN_LIMIT","message":"Upgrade"}}"#,
            r#"{"detail":"You have reached your plan's limit (5)"}"#,
        ] {
            assert!(may_be(403, body), "{body}");
            assert!(!may_be(400, body), "{body}");
        }
        for body in [
            r#"{"detail":"Unverified accounts have a limit of 0 keys"}"#,
            r#"{"detail":"upgrade"}"#,
            "<html>Limit</html>",
        ] {
            assert!(!may_be(403, body), "{body}");
        }
    }

    #[test]
    fn the_wait_is_read_from_seconds_from_a_date_and_from_the_reset() {
        let wait = |headers| Refusal::answered(429, headers, "").retry_after;
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
