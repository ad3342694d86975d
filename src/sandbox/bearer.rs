//! Authentication by JWT or API key, and the account's rate limit.

use axum::{
    extract::{MatchedPath, Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header::AUTHORIZATION},
    middleware::Next,
    response::Response,
};

use super::{
    Sandbox, answers,
    plan::{Allowance, Plan},
};
use crate::{
    clock::{Timestamp, whole_seconds},
    secret::SecretString,
};

/// The authenticated caller of a request.
#[derive(Clone, Debug)]
pub struct Caller {
    /// Id of the account.
    pub account: String,
    /// Number of the access token; `None` for an API key.
    pub token: Option<u64>,
}

/// Returns the credential of the request, valid or not.
pub fn credential(headers: &HeaderMap) -> Option<SecretString> {
    let value = headers.get(AUTHORIZATION)?.to_str().ok()?;
    Some(value.strip_prefix("Bearer ")?.into())
}

/// Admits and counts a request with a valid credential.
pub async fn require(State(sandbox): State<Sandbox>, mut request: Request, next: Next) -> Response {
    let endpoint = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str).to_owned();
    let credential = credential(request.headers());
    let Some(caller) = credential.and_then(|credential| sandbox.caller(&credential, &endpoint)) else {
        return answers::detail(StatusCode::UNAUTHORIZED, "Invalid or expired token");
    };
    let (allowance, now) = sandbox.spend(&caller);
    let mut response = if allowance.exceeded {
        answers::refusal(StatusCode::TOO_MANY_REQUESTS, "rate_limit_exceeded", "Rate limit exceeded")
    } else {
        request.extensions_mut().insert(caller);
        next.run(request).await
    };
    announce(response.headers_mut(), &allowance, now);
    response
}

impl Sandbox {
    fn caller(&self, credential: &SecretString, endpoint: &str) -> Option<Caller> {
        let mut state = self.state();
        if let Some(claims) = self.inner.issuer.open(credential) {
            let known = state.account(&claims.sub).is_some() && !state.blacklist.contains(&claims.jti);
            return known.then_some(Caller { account: claims.sub, token: Some(claims.jti) });
        }
        let now = self.inner.config.clock.now();
        let key = state.key_by_value(credential)?;
        key.first_used.get_or_insert(now);
        key.last_used = Some(now);
        let path = endpoint.strip_prefix(super::BASE_PATH).unwrap_or(endpoint);
        *key.endpoints.entry(path.to_owned()).or_default() += 1;
        Some(Caller { account: key.account.clone(), token: None })
    }

    fn spend(&self, caller: &Caller) -> (Allowance, Timestamp) {
        let mut state = self.state();
        let plan = state.account(&caller.account).map_or(Plan::Free, |account| account.plan);
        let now = self.inner.config.clock.now();
        (state.minutes.entry(caller.account.clone()).or_default().spend(plan, now), now)
    }
}

fn announce(headers: &mut HeaderMap, allowance: &Allowance, now: Timestamp) {
    let mut set = |name: &'static str, value: String| {
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.insert(HeaderName::from_static(name), value);
        }
    };
    set("x-ratelimit-limit", allowance.limit.to_string());
    set("x-ratelimit-remaining", allowance.remaining.to_string());
    set("x-ratelimit-reset", allowance.resets_at.timestamp().to_string());
    if allowance.exceeded {
        let wait = (allowance.resets_at - now).to_std().unwrap_or_default();
        set("retry-after", whole_seconds(wait).to_string());
    }
}
