//! Client assertions: a client authenticates with a JWT that it has signed (RFC 7523, sections 2.2 and 3).

use std::time::Duration;

use jsonwebtoken::{Algorithm, Validation, decode, decode_header};
use serde::Deserialize;

use super::jwks::KeySet;
use crate::{
    clock::Timestamp,
    secret::{ExposeSecret as _, SecretString},
};

/// The value of `client_assertion_type`.
pub const TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// Algorithms of signatures. Neither `none` nor one with a shared secret is among them.
const ALGORITHMS: [Algorithm; 4] = [Algorithm::RS256, Algorithm::PS256, Algorithm::ES256, Algorithm::EdDSA];

/// Largest id of an assertion, in bytes: it is stored.
const MAX_ID_BYTES: usize = 256;

/// Longest time for which an assertion is accepted, as its id is kept for so long. A client makes one for each request.
const MAX_VALIDITY: Duration = Duration::from_mins(5);

/// Largest difference between the client's clock and ours.
const LEEWAY: Duration = Duration::from_mins(1);

/// An assertion whose signature is not verified yet.
pub struct Assertion<'a> {
    jwt: &'a SecretString,
    algorithm: Algorithm,
    /// The id of the key that signed it.
    kid: Option<String>,
}

/// A verified assertion.
#[derive(Debug)]
pub struct Verified {
    /// Its id, which is to be used once.
    pub id: String,
    /// How long it would be accepted again, if it were not for its id.
    pub remaining: Duration,
}

#[derive(Deserialize)]
struct Claims {
    iss: String,
    sub: String,
    aud: Audience,
    exp: i64,
    nbf: Option<i64>,
    iat: Option<i64>,
    jti: String,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Several(Vec<String>),
}

impl<'a> Assertion<'a> {
    /// Reads the header; `None` if it is no JWT that could be accepted.
    pub fn read(jwt: &'a SecretString) -> Option<Self> {
        let header = decode_header(jwt.expose_secret()).ok()?;
        // An extension that must be understood is not (RFC 7515, section 4.1.11).
        let is_understood = ALGORITHMS.contains(&header.alg) && header.crit.is_none();
        is_understood.then_some(Self { jwt, algorithm: header.alg, kid: header.kid })
    }

    /// Returns the client that it claims to be of; not verified.
    pub fn claimed_client(&self) -> Option<String> {
        #[derive(Deserialize)]
        struct Claimed {
            sub: String,
        }
        let claimed = jsonwebtoken::dangerous::insecure_decode::<Claimed>(self.jwt.expose_secret()).ok()?;
        Some(claimed.claims.sub)
    }

    /// Whether there is a key that may have signed it.
    pub fn is_for(&self, keys: &KeySet) -> bool {
        !keys.for_signature(self.algorithm, self.kid.as_deref()).is_empty()
    }

    /// Verifies that the client has signed it, for one of `audiences`, and that it is valid now. Its id is still to be used.
    pub fn verify(
        &self,
        keys: &KeySet,
        client_id: &str,
        audiences: &[&str],
        now: Timestamp,
    ) -> Option<Verified> {
        // Times are judged by our own clock, and the rest below.
        let mut validation = Validation::new(self.algorithm);
        validation.required_spec_claims.clear();
        (validation.validate_exp, validation.validate_aud) = (false, false);
        let keys = keys.for_signature(self.algorithm, self.kid.as_deref());
        let jwt = self.jwt.expose_secret();
        let verified = keys.iter().find_map(|key| decode::<Claims>(jwt, key, &validation).ok())?;
        verified.claims.check(client_id, audiences, now)
    }
}

impl Claims {
    fn check(self, client_id: &str, audiences: &[&str], now: Timestamp) -> Option<Verified> {
        let (leeway, longest) = (LEEWAY.as_secs().cast_signed(), MAX_VALIDITY.as_secs().cast_signed());
        let now = now.timestamp();
        let has_begun = |time: Option<i64>| time.is_none_or(|time| time <= now.saturating_add(leeway));
        // One that says when it was made may say that it is valid for longer, and is not accepted for longer.
        let expires = self.iat.map_or(self.exp, |iat| self.exp.min(iat.saturating_add(longest)));
        let remaining = expires.saturating_add(leeway).saturating_sub(now);
        let is_valid = self.iss == client_id
            && self.sub == client_id
            && self.aud.is_only(audiences)
            && has_begun(self.nbf)
            && has_begun(self.iat)
            && remaining > 0
            && remaining <= longest + 2 * leeway
            && (1..=MAX_ID_BYTES).contains(&self.jti.len());
        let remaining = Duration::from_secs(remaining.try_into().ok()?);
        is_valid.then_some(Verified { id: self.jti, remaining })
    }
}

impl Audience {
    /// Whether it is for us, and for nobody else who could use it here.
    fn is_only(&self, audiences: &[&str]) -> bool {
        let ours = |audience: &String| audiences.contains(&&**audience);
        match self {
            Self::One(one) => ours(one),
            Self::Several(several) => !several.is_empty() && several.iter().all(ours),
        }
    }
}
