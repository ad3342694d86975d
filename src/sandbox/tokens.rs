//! Access tokens as JWTs, signed with a key that exists as long as the process.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};

use crate::{
    clock::Clock,
    secret::{self, ExposeSecret as _, SecretString},
};

pub struct Issuer {
    clock: Clock,
    lifetime: Duration,
    encoding: EncodingKey,
    decoding: DecodingKey,
    next: AtomicU64,
    /// Number below which tokens are refused.
    oldest: AtomicU64,
}

/// The claims of a token.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Claims {
    /// Id of the account.
    pub sub: String,
    pub email: String,
    pub iat: i64,
    pub exp: i64,
    /// Number of the token.
    pub jti: u64,
}

impl Issuer {
    pub fn new(clock: Clock, lifetime: Duration) -> Self {
        let key = secret::random();
        Self {
            clock,
            lifetime,
            encoding: EncodingKey::from_secret(key.expose_secret().as_bytes()),
            decoding: DecodingKey::from_secret(key.expose_secret().as_bytes()),
            next: AtomicU64::new(1),
            oldest: AtomicU64::new(0),
        }
    }

    /// Issues a token; returns it with its number.
    pub fn issue(&self, account: &str, email: &str) -> Option<(SecretString, u64)> {
        let iat = self.clock.now().timestamp();
        let jti = self.next.fetch_add(1, Ordering::SeqCst);
        let claims = Claims {
            sub: account.to_owned(),
            email: email.to_owned(),
            iat,
            exp: iat + self.lifetime_seconds(),
            jti,
        };
        let token = jsonwebtoken::encode(&Header::default(), &claims, &self.encoding).ok()?;
        Some((token.into(), jti))
    }

    /// Returns the claims of a valid token.
    pub fn open(&self, token: &SecretString) -> Option<Claims> {
        let mut validation = Validation::new(Algorithm::HS256);
        // The library uses the system's clock; the sandbox may have another one.
        validation.validate_exp = false;
        let claims =
            jsonwebtoken::decode::<Claims>(token.expose_secret(), &self.decoding, &validation).ok()?.claims;
        let holds =
            self.clock.now().timestamp() < claims.exp && claims.jti >= self.oldest.load(Ordering::SeqCst);
        holds.then_some(claims)
    }

    pub fn expire_all(&self) {
        self.oldest.store(self.next.load(Ordering::SeqCst), Ordering::SeqCst);
    }

    pub fn lifetime_seconds(&self) -> i64 {
        i64::try_from(self.lifetime.as_secs()).unwrap_or(i64::MAX / 2)
    }
}
