//! A signed-in session: its tokens and their lifetime.

use chrono::TimeDelta;
use serde::Deserialize;

use crate::{
    bondmcp::wire::Tokens,
    clock::Timestamp,
    secret::{ExposeSecret, SecretString},
};

/// Lifetime of a token for which the upstream gives none: the documented one. A token that expires earlier is refused
/// and then renewed.
const DEFAULT_LIFETIME: TimeDelta = TimeDelta::hours(1);

/// Longest lifetime that is trusted; an earlier refusal renews the session all the same.
const MAX_LIFETIME: TimeDelta = TimeDelta::days(30);

/// Longest time that storing a new session takes, with all attempts.
const MAX_AGE_OF_NEW: TimeDelta = TimeDelta::seconds(60);

/// Longest time before expiry at which renewal starts.
const MAX_RENEWAL_MARGIN: TimeDelta = TimeDelta::seconds(60);

/// A session as it is stored.
#[derive(Clone, Debug, Deserialize)]
pub struct Session {
    pub access_token: SecretString,
    pub obtained_at: Timestamp,
    pub expires_at: Timestamp,
    /// `obtained_at` by the vault's clock, which all processes share: their own may differ.
    #[serde(default)]
    pub obtained_by_vault: Option<Timestamp>,
    #[serde(default)]
    pub refresh_token: Option<SecretString>,
}

impl Session {
    /// Creates the session for `tokens` received at `now`. A response to a refresh may omit the refresh token; then
    /// `earlier` remains valid.
    pub fn new(tokens: Tokens, now: Timestamp, earlier: Option<SecretString>) -> Self {
        let believed = |seconds| i64::try_from(seconds).ok().and_then(TimeDelta::try_seconds);
        let by_answer = tokens.expires_in.map(|seconds| believed(seconds).unwrap_or(MAX_LIFETIME));
        let life = [by_answer, by_token(&tokens.access_token, now)].into_iter().flatten().min();
        Self {
            expires_at: now + life.unwrap_or(DEFAULT_LIFETIME).min(MAX_LIFETIME),
            obtained_at: now,
            obtained_by_vault: None,
            access_token: tokens.access_token,
            refresh_token: tokens.refresh_token.or(earlier),
        }
    }

    /// Whether the token has not expired.
    pub fn is_usable(&self, now: Timestamp) -> bool {
        now < self.expires_at
    }

    /// Notes the vault's time of a session that this process has just obtained. The age of another one is not known: its
    /// time may be of a clock that differs.
    pub fn note_vault_time(&mut self, now: Timestamp, vault_now: Timestamp) {
        self.obtained_by_vault = Some(vault_now - (now - self.obtained_at));
    }

    /// Whether this process has just obtained the session, so that the vault's time of it is to be noted.
    pub fn is_new(&self, now: Timestamp) -> bool {
        let age = now - self.obtained_at;
        self.obtained_by_vault.is_none() && TimeDelta::zero() <= age && age < MAX_AGE_OF_NEW
    }

    /// Whether its times may be of a clock that differs from this process's: it has expired, or is from the future.
    pub fn is_doubtful(&self, now: Timestamp) -> bool {
        self.obtained_by_vault.is_some() && (now < self.obtained_at || !self.is_usable(now))
    }

    /// Moves the times to this process's clock, by which it is `now`; by the vault's it is `vault_now`.
    pub fn move_to_clock(&mut self, now: Timestamp, vault_now: Timestamp) {
        let Some(obtained) = self.obtained_by_vault else { return };
        let life = self.expires_at - self.obtained_at;
        self.obtained_at = now - (vault_now - obtained).max(TimeDelta::zero());
        self.expires_at = self.obtained_at + life;
    }

    /// Marks the session as ended, by any clock.
    pub fn end(&mut self, now: Timestamp) {
        self.expires_at = self.obtained_at.min(now);
    }

    /// Whether at most a tenth of the session's lifetime is left, and at most a minute: the session is then renewed
    /// early.
    pub fn is_ageing(&self, now: Timestamp) -> bool {
        let margin = ((self.expires_at - self.obtained_at) / 10).min(MAX_RENEWAL_MARGIN);
        now >= self.expires_at - margin
    }
}

/// Returns the lifetime from the token's own claims if it is a JWT (RFC 7519, 4.1.4). With `iat` it counts from now, so
/// that a wrong clock on either side does no harm. A token that had expired on arrival means that one of the clocks is
/// wrong, and its claims are ignored. The signature is not verified: only the upstream can do that.
fn by_token(token: &SecretString, now: Timestamp) -> Option<TimeDelta> {
    #[derive(Deserialize)]
    struct Claims {
        exp: f64,
        iat: Option<f64>,
    }
    let claims: Claims = jsonwebtoken::dangerous::insecure_decode_claims(token.expose_secret()).ok()?;
    #[expect(clippy::cast_precision_loss, reason = "seconds since the epoch fit")]
    let issued = claims.iat.unwrap_or(now.timestamp() as f64);
    #[expect(clippy::cast_possible_truncation, reason = "saturates; out of range is no life")]
    let life = TimeDelta::try_seconds((claims.exp - issued) as i64)?;
    (life > TimeDelta::zero()).then_some(life)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};
    use static_assertions::assert_not_impl_any;

    assert_not_impl_any!(Session: serde::Serialize, std::fmt::Display);

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_timestamp(seconds, 0).unwrap()
    }

    fn session(token: &str, expires_in: impl Into<Value>) -> Session {
        let tokens = json!({"access_token": token, "expires_in": expires_in.into()});
        Session::new(serde_json::from_value(tokens).unwrap(), at(1000), None)
    }

    fn jwt(claims: &Value) -> String {
        let key = jsonwebtoken::EncodingKey::from_secret(b"test");
        jsonwebtoken::encode(&jsonwebtoken::Header::default(), claims, &key).unwrap()
    }

    #[test]
    fn the_earlier_of_the_answers_and_the_tokens_end_counts() {
        assert_eq!(session("opaque", 3600).expires_at, at(4600));
        assert_eq!(session(&jwt(&json!({"exp": 1500})), 3600).expires_at, at(1500));
        assert_eq!(session(&jwt(&json!({"exp": 9999})), 60).expires_at, at(1060));
    }

    #[test]
    fn a_token_issued_by_a_clock_that_is_ahead_lives_as_long_as_it_says() {
        let ahead = jwt(&json!({"iat": 501_000, "exp": 501_120}));
        assert_eq!(session(&ahead, 3600).expires_at, at(1120));
    }

    #[test]
    fn the_margin_is_a_tenth_of_the_life_and_at_most_a_minute() {
        let short = session("opaque", 100);
        assert!(!short.is_ageing(at(1089)) && short.is_ageing(at(1090)));
        let long = session("opaque", 3600);
        assert!(!long.is_ageing(at(4539)) && long.is_ageing(at(4540)));
        assert!(long.is_usable(at(4599)) && !long.is_usable(at(4600)));
    }

    #[test]
    fn a_session_lives_as_long_by_a_clock_that_differs() {
        let mut stored = session("opaque", 3600);
        assert!(!stored.is_doubtful(at(9999)), "its age is not known");
        stored.note_vault_time(at(1002), at(50_002));
        for off in [-3600, 0, 3600] {
            let mut seen = stored.clone();
            seen.move_to_clock(at(1100 + off), at(50_100));
            assert!(!seen.is_doubtful(at(1100 + off)));
            assert_eq!((seen.obtained_at, seen.expires_at), (at(1000 + off), at(4600 + off)));
        }
        assert!(stored.is_doubtful(at(999)) && stored.is_doubtful(at(4600)));
        assert!(!stored.is_doubtful(at(1000)) && !stored.is_doubtful(at(4599)));
        let mut ended = stored;
        ended.end(at(2000));
        for now in [2000, 9999] {
            assert!(!ended.is_usable(at(now)));
            ended.move_to_clock(at(now), at(50_000));
            assert!(!ended.is_usable(at(now)), "by any clock");
        }
    }

    #[test]
    fn a_life_that_is_absurd_or_missing_gives_a_session_that_can_be_used() {
        let (hour, month) = (at(4600), at(1000) + MAX_LIFETIME);
        for (expires_in, end) in [
            (json!(0), hour),
            (json!(null), hour),
            (json!(-5), hour),
            (json!("3600"), hour),
            (json!(3600.0), hour),
            (json!(u64::MAX), month),
            (json!(i64::MAX), month),
            (json!(1e300), month),
        ] {
            assert_eq!(session("opaque", expires_in.clone()).expires_at, end, "{expires_in}");
        }
    }

    #[test]
    fn clocks_hours_apart_leave_a_session_that_can_be_used() {
        for hours in [-12, -1, 1, 12] {
            let issued = 100_000 + hours * 3600;
            for claims in [json!({"exp": issued + 3600}), json!({"iat": issued, "exp": issued + 3600})] {
                let tokens = json!({"access_token": jwt(&claims), "expires_in": 3600});
                let session = Session::new(serde_json::from_value(tokens).unwrap(), at(100_000), None);
                assert_eq!(session.expires_at, at(103_600), "{claims}");
            }
        }
    }
}
