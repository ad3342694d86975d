//! Refresh tokens (RFC 6749, section 1.5). To a client they are opaque: `grant.generation.secret`.
//!
//! The secret is 256 bits and a mark. The mark, a MAC over all the rest, tells a token of this server from one that
//! somebody made up, however old it is. The first secret of a family is random; each further one is a MAC over the token
//! before. So whoever presents a token again gets the same successor again, although the vault has nothing but the hash
//! of the current one; and nobody gets from a token to its successor without the server.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use zeroize::Zeroizing;

use super::{
    GrantId,
    server_keys::{Purpose, ServerKeys},
};
use crate::secret::{self, ExposeSecret as _, SecretString};

/// Length of the mark in characters of base64url: 128 bits.
const MARK_CHARS: usize = 22;

/// A refresh token of this server.
#[derive(Clone, Debug)]
pub struct RefreshToken {
    pub grant: GrantId,
    /// From 1, one more with each rotation.
    pub generation: u64,
    secret: SecretString,
}

impl RefreshToken {
    pub fn first(grant: &GrantId) -> Self {
        Self { grant: grant.clone(), generation: 1, secret: secret::random() }
    }

    /// Whether it is the first one of its grant.
    pub fn is_first(&self) -> bool {
        self.generation == 1
    }

    /// Reads a token; `None` if it is none of this server's.
    pub fn parse(keys: &ServerKeys, text: &SecretString) -> Option<Self> {
        let mut parts = text.expose_secret().split('.');
        let (Some(grant), Some(generation), Some(rest), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return None;
        };
        let (secret, _mark) = rest.split_at_checked(rest.len().checked_sub(MARK_CHARS)?)?;
        let (grant, generation) = (GrantId::given(grant), generation.parse().ok()?);
        let token = Self { grant, generation, secret: secret.into() };
        secret::same(&token.to_text(keys), text).then_some(token)
    }

    pub fn to_text(&self, keys: &ServerKeys) -> SecretString {
        let secret = self.secret.expose_secret();
        format!("{}.{}.{secret}{}", self.grant, self.generation, *self.mark(keys)).into()
    }

    pub fn successor(&self, keys: &ServerKeys) -> Self {
        let generation = self.generation + 1;
        let secret = keys.secret(Purpose::RefreshSuccessor, &self.parts(&generation.to_be_bytes()));
        Self { grant: self.grant.clone(), generation, secret }
    }

    /// Returns what the vault knows it by.
    pub fn hash(&self) -> String {
        secret::digest(self.secret.expose_secret())
    }

    fn mark(&self, keys: &ServerKeys) -> Zeroizing<String> {
        let mac = keys.mac(Purpose::RefreshMark, &self.parts(&self.generation.to_be_bytes()));
        Zeroizing::new(URL_SAFE_NO_PAD.encode(&mac[..16]))
    }

    fn parts<'a>(&'a self, generation: &'a [u8]) -> [&'a [u8]; 3] {
        [self.grant.as_str().as_bytes(), generation, self.secret.expose_secret().as_bytes()]
    }
}
