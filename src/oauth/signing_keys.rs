//! The keys that sign access tokens: Ed25519, in the vault, rotated, and kept as long as a token that they signed lives.
//!
//! A private key is 32 random bytes (RFC 8032, section 5.1.5). Its `kid` is the thumbprint of the public key (RFC 7638).

use std::{fmt, sync::Arc};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use chrono::TimeDelta;
use jsonwebtoken::{
    Algorithm, DecodingKey, EncodingKey, Header, Validation,
    jwk::{Jwk, KeyAlgorithm, PublicKeyUse, ThumbprintHash},
};
use parking_lot::RwLock;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::sync::Mutex;
use zeroize::Zeroizing;

use super::AccessError;
use crate::{
    clock::{Clock, Timestamp},
    secret::{self, ExposeSecret as _, SecretString},
    vault::{self, RecordKind, Records, Versioned},
};

const SIGNING_KEYS: RecordKind = RecordKind::new("signing-keys");

/// A key signs for so long. Every process then changes to the next one by itself, so none has to be told.
const SIGNS_FOR: TimeDelta = TimeDelta::days(30);

/// A key verifies for so long: for the longest lifetime of a token, a day, after its last signature, and a day more.
const VERIFIES_FOR: TimeDelta = TimeDelta::days(32);

/// A process that meets a key which it does not know reads the vault again, at most this often, when no new key is expected.
const READ_INTERVAL: TimeDelta = TimeDelta::seconds(5);

/// How far the clock of another process may be ahead.
const CLOCK_DIFFERENCE: TimeDelta = TimeDelta::seconds(5);

/// What stands before a private key in its encoding (RFC 8410, section 7).
const PKCS8_HEAD: [u8; 16] =
    [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];

/// The keys as this process knows them.
pub struct SigningKeys {
    records: Records,
    clock: Clock,
    keys: RwLock<Arc<Known>>,
    /// When the vault was last read for an unknown key.
    unknown_read_at: Mutex<Timestamp>,
    /// When it was last read for those who want all keys. Whoever asks for them must not delay the former.
    public_read_at: Mutex<Timestamp>,
    validation: Validation,
}

struct Known {
    /// The newest key, which signs, first.
    keys: Vec<Key>,
    version: u64,
}

struct Key {
    id: String,
    created_at: Timestamp,
    encoding: EncodingKey,
    decoding: DecodingKey,
    public: Jwk,
}

#[derive(Deserialize)]
struct Stored {
    keys: Vec<StoredKey>,
}

#[derive(Deserialize)]
struct StoredKey {
    private: SecretString,
    created_at: Timestamp,
}

/// [`Stored`] with its secrets exposed; used only for encryption.
#[derive(Serialize)]
struct StoredView<'a> {
    keys: Vec<StoredKeyView<'a>>,
}

#[derive(Serialize)]
struct StoredKeyView<'a> {
    private: &'a str,
    created_at: Timestamp,
}

impl SigningKeys {
    /// Reads the keys, and makes one if there is none or the newest one is too old.
    pub async fn open(records: Records, clock: Clock) -> Result<Self, vault::Error> {
        let mut validation = Validation::new(Algorithm::EdDSA);
        // The claims are checked by the caller, against the injected clock.
        validation.required_spec_claims.clear();
        (validation.validate_exp, validation.validate_aud) = (false, false);
        let keys = Self {
            records,
            keys: RwLock::new(Arc::new(Known { keys: Vec::new(), version: 0 })),
            unknown_read_at: Mutex::new(clock.now()),
            public_read_at: Mutex::new(clock.now()),
            clock,
            validation,
        };
        keys.fit_at(keys.clock.now()).await?;
        Ok(keys)
    }

    /// Signs a token of the type `typ`.
    pub async fn sign<C: Serialize>(&self, typ: &str, claims: &C) -> Result<SecretString, vault::Error> {
        let known = self.fit_at(self.clock.now()).await?;
        let key = known.keys.first().ok_or(vault::Error::Damaged)?;
        let mut header = Header::new(Algorithm::EdDSA);
        header.typ = Some(typ.to_owned());
        header.kid = Some(key.id.clone());
        let token = jsonwebtoken::encode(&header, claims, &key.encoding);
        token.map(SecretString::from).map_err(|_| vault::Error::Damaged)
    }

    /// Verifies the type and the signature of a token; returns its claims, which are to be checked. The key is one of
    /// ours and says the algorithm; of the header only the name of the key is believed.
    pub async fn verify<C: DeserializeOwned + Clone>(
        &self,
        typ: &str,
        token: &SecretString,
    ) -> Result<C, AccessError> {
        let token = token.expose_secret();
        let header = jsonwebtoken::decode_header(token).map_err(|_| AccessError::Invalid("malformed"))?;
        if header.typ.as_deref() != Some(typ) {
            return Err(AccessError::Invalid("another type"));
        }
        let id = header.kid.ok_or(AccessError::Invalid("no key named"))?;
        let known = self.knowing(&id).await?;
        let key = known.keys.iter().find(|key| key.id == id).ok_or(AccessError::Invalid("unknown key"))?;
        match jsonwebtoken::decode(token, &key.decoding, &self.validation) {
            Ok(decoded) => Ok(decoded.claims),
            Err(_) => Err(AccessError::Invalid("bad signature or claims")),
        }
    }

    /// Returns the keys that verify tokens (RFC 7517).
    pub async fn public(&self) -> Result<Vec<Jwk>, vault::Error> {
        self.read_lately(&self.public_read_at, |_| false).await?;
        Ok(self.known().keys.iter().map(|key| key.public.clone()).collect())
    }

    /// Whether the vault has a key.
    pub async fn check(&self) -> Result<(), vault::Error> {
        let found = self.records.read::<Stored>(SIGNING_KEYS, "").await?;
        if found.is_some_and(|found| !found.value.keys.is_empty()) {
            Ok(())
        } else {
            Err(vault::Error::Damaged)
        }
    }

    fn known(&self) -> Arc<Known> {
        self.keys.read().clone()
    }

    /// Returns the keys, of which the first is fit to sign at that time; makes it if need be.
    async fn fit_at(&self, time: Timestamp) -> Result<Arc<Known>, vault::Error> {
        let is_fit = |known: &Known| known.keys.first().is_some_and(|key| time - key.created_at < SIGNS_FOR);
        if is_fit(&self.known()) {
            return Ok(self.known());
        }
        let stored = self.read().await?;
        if is_fit(&self.known()) {
            return Ok(self.known());
        }
        match self.rotate(stored).await {
            // Another process was faster; its key is as good.
            Err(vault::Error::Conflict) => self.read().await.map(|_| ())?,
            rotated => rotated?,
        }
        Ok(self.known())
    }

    /// Adds a new key to the `stored` ones and leaves out those whose tokens have all expired.
    async fn rotate(&self, stored: Option<Versioned<Stored>>) -> Result<(), vault::Error> {
        let now = self.clock.now();
        // The version is that of these keys, so that none which was added meanwhile is lost.
        let (stored, version) = stored.map(|found| (found.value.keys, found.version)).unzip();
        let new = StoredKey { private: secret::random(), created_at: now };
        let kept = stored.into_iter().flatten().filter(|key| now - key.created_at < VERIFIES_FOR);
        let keys: Vec<_> = std::iter::once(new).chain(kept).collect();
        let view = StoredView { keys: keys.iter().map(StoredKey::view).collect() };
        let version = self.records.write(SIGNING_KEYS, "", version, &view, None).await?;
        tracing::info!("a new key signs access tokens");
        self.keep(&keys, version)
    }

    async fn read(&self) -> Result<Option<Versioned<Stored>>, vault::Error> {
        let found = self.records.read::<Stored>(SIGNING_KEYS, "").await?;
        if let Some(found) = &found {
            self.keep(&found.value.keys, found.version)?;
        }
        Ok(found)
    }

    fn keep(&self, keys: &[StoredKey], version: u64) -> Result<(), vault::Error> {
        let keys = keys.iter().map(Key::of).collect::<Option<_>>().ok_or(vault::Error::Damaged)?;
        let mut known = self.keys.write();
        if known.version < version {
            *known = Arc::new(Known { keys, version });
        }
        Ok(())
    }

    /// Returns the keys; reads them again if the key `id` is not among them, unless that was done a moment ago. When the
    /// next key is due, another process may have made it, however lately they were read. It is made here if not, so that
    /// made-up ids cause one such read and not one each.
    async fn knowing(&self, id: &str) -> Result<Arc<Known>, vault::Error> {
        if !self.known().has(id) {
            self.fit_at(self.clock.now() + CLOCK_DIFFERENCE).await?;
            self.read_lately(&self.unknown_read_at, |known| known.has(id)).await?;
        }
        Ok(self.known())
    }

    /// Reads the keys unless that was done a moment ago, or what was read meanwhile is `enough`. Those who wait for the
    /// same read do not repeat it.
    async fn read_lately(
        &self,
        read_at: &Mutex<Timestamp>,
        enough: impl Fn(&Known) -> bool,
    ) -> Result<(), vault::Error> {
        let mut read_at = read_at.lock().await;
        let now = self.clock.now();
        // A clock that was set back must not prevent it.
        let is_due = (now - *read_at).abs() >= READ_INTERVAL;
        if is_due && !enough(&self.known()) {
            self.read().await?;
            *read_at = now;
        }
        Ok(())
    }
}

impl Known {
    fn has(&self, id: &str) -> bool {
        self.keys.iter().any(|key| key.id == id)
    }
}

impl Key {
    fn of(stored: &StoredKey) -> Option<Self> {
        let private = Zeroizing::new(URL_SAFE_NO_PAD.decode(stored.private.expose_secret()).ok()?);
        let encoded = Zeroizing::new([&PKCS8_HEAD[..], &private].concat());
        let encoding = EncodingKey::from_ed_der(&encoded);
        let mut public = Jwk::from_encoding_key(&encoding, Algorithm::EdDSA).ok()?;
        let id = public.thumbprint(ThumbprintHash::SHA256).ok()?;
        public.common.key_id = Some(id.clone());
        public.common.public_key_use = Some(PublicKeyUse::Signature);
        public.common.key_algorithm = Some(KeyAlgorithm::EdDSA);
        let decoding = DecodingKey::from_jwk(&public).ok()?;
        Some(Self { id, created_at: stored.created_at, encoding, decoding, public })
    }
}

impl StoredKey {
    fn view(&self) -> StoredKeyView<'_> {
        StoredKeyView { private: self.private.expose_secret(), created_at: self.created_at }
    }
}

impl fmt::Debug for SigningKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKeys").field("version", &self.known().version).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
