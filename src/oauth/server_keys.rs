//! The server's symmetric keys: all of them come from one random secret in the vault, so that they survive a change of
//! the sealing key and are the same on every replica.

use std::fmt;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use hkdf::Hkdf;
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::{
    secret::{self, ExposeSecret as _, SecretString},
    vault::{self, RecordKind, Records},
};

const SERVER_SECRET: RecordKind = RecordKind::new("server-secret");

/// What a key is for; no two uses share one.
#[derive(Clone, Copy, Debug)]
pub enum Purpose {
    /// Sealing dynamic registrations.
    Registration,
    /// Making subjects of BondMCP's user ids.
    Subject,
    /// Recognising refresh tokens of this server.
    RefreshMark,
    /// Making the next refresh token from the one before.
    RefreshSuccessor,
}

#[derive(Clone)]
pub struct ServerKeys {
    secret: Hkdf<Sha256>,
}

#[derive(Deserialize)]
struct Stored {
    secret: SecretString,
}

/// [`Stored`] with its secret exposed; used only for encryption.
#[derive(Serialize)]
struct StoredView<'a> {
    secret: &'a str,
}

impl ServerKeys {
    /// Reads the secret, and makes one if there is none. Servers that start at the same time end with the same one.
    pub async fn open(records: &Records) -> Result<Self, vault::Error> {
        if let Some(found) = Self::read(records).await? {
            return Ok(found);
        }
        let new = secret::random();
        let view = StoredView { secret: new.expose_secret() };
        match records.write(SERVER_SECRET, "", None, &view, None).await {
            Ok(_) => Ok(Self::of(&new)),
            Err(vault::Error::Conflict) => Self::read(records).await?.ok_or(vault::Error::Conflict),
            Err(error) => Err(error),
        }
    }

    async fn read(records: &Records) -> Result<Option<Self>, vault::Error> {
        let found = records.read::<Stored>(SERVER_SECRET, "").await?;
        Ok(found.map(|found| Self::of(&found.value.secret)))
    }

    pub fn of(secret: &SecretString) -> Self {
        Self { secret: Hkdf::new(None, secret.expose_secret().as_bytes()) }
    }

    /// Returns the [MAC](secret::mac) of `parts` by the key for `purpose`.
    pub fn mac(&self, purpose: Purpose, parts: &[&[u8]]) -> Zeroizing<[u8; 32]> {
        let mut key = Zeroizing::new([0; 32]);
        // Fails for outputs longer than 255 hashes only; this one is a single hash.
        let _ = self.secret.expand(purpose.name(), &mut *key);
        secret::mac(&*key, parts)
    }

    /// As [`mac`](Self::mac), in base64url.
    pub fn secret(&self, purpose: Purpose, parts: &[&[u8]]) -> SecretString {
        URL_SAFE_NO_PAD.encode(*self.mac(purpose, parts)).into()
    }
}

impl Purpose {
    fn name(self) -> &'static [u8] {
        match self {
            Self::Registration => b"registration",
            Self::Subject => b"subject",
            Self::RefreshMark => b"refresh mark",
            Self::RefreshSuccessor => b"refresh successor",
        }
    }
}

impl fmt::Debug for ServerKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ServerKeys")
    }
}
