//! The keys that a client signs its assertions with (JWK sets: RFC 7517, section 5).

use jsonwebtoken::{
    Algorithm, DecodingKey,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, PublicKeyUse},
};
use serde::Deserialize;
use serde_json::Value;

use super::cache::Document;

/// Largest number of keys that are kept.
const MAX_KEYS: usize = 16;

/// The keys of a client that this server understands.
#[derive(Clone, Debug)]
pub struct KeySet {
    keys: Vec<Jwk>,
}

impl KeySet {
    /// Reads a JWK set, without the keys that are not understood.
    pub fn of(set: &Value) -> Option<Self> {
        let keys = set.get("keys")?.as_array()?.iter();
        let keys =
            keys.filter_map(|key| Jwk::deserialize(key).ok()).filter(|key| algorithm_of(key).is_some());
        Some(Self { keys: keys.take(MAX_KEYS).collect() })
    }

    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Returns the keys that may have signed with this algorithm, and with the id `kid` if the signature names one.
    pub fn for_signature(&self, algorithm: Algorithm, kid: Option<&str>) -> Vec<DecodingKey> {
        let fits = |key: &&Jwk| {
            (kid.is_none() || key.common.key_id.as_deref() == kid)
                && algorithm_of(key).is_some_and(|fitting| fitting.contains(&algorithm))
        };
        self.keys.iter().filter(fits).filter_map(|key| DecodingKey::from_jwk(key).ok()).collect()
    }
}

impl Document for KeySet {
    fn parse(_url: &str, body: &[u8]) -> Result<Self, &'static str> {
        let set = serde_json::from_slice(body).ok();
        set.as_ref().and_then(Self::of).ok_or("The app's keys are not a JWK set.")
    }

    fn may_stand_in(&self) -> bool {
        false
    }
}

/// Returns the algorithms that a key may sign with; `None` if none, above all for symmetric keys and keys for encryption.
fn algorithm_of(key: &Jwk) -> Option<Vec<Algorithm>> {
    let possible: &[Algorithm] = match &key.algorithm {
        AlgorithmParameters::RSA(_) => &[Algorithm::RS256, Algorithm::PS256],
        AlgorithmParameters::EllipticCurve(parameters) if parameters.curve == EllipticCurve::P256 => {
            &[Algorithm::ES256]
        }
        AlgorithmParameters::OctetKeyPair(parameters) if parameters.curve == EllipticCurve::Ed25519 => {
            &[Algorithm::EdDSA]
        }
        _ => &[],
    };
    if key.common.public_key_use.as_ref().is_some_and(|usage| *usage != PublicKeyUse::Signature) {
        return None;
    }
    let stated = key.common.key_algorithm;
    let fits = |algorithm: &Algorithm| stated.is_none_or(|stated| stated == KeyAlgorithm::from(*algorithm));
    let fitting: Vec<_> = possible.iter().copied().filter(fits).collect();
    (!fitting.is_empty()).then_some(fitting)
}
