//! The keys that sign access tokens: Ed25519, in the vault, rotated, and kept as long as a token that they signed lives.
//!
//! A private key is 32 random bytes (RFC 8032, section 5.1.5). Its `kid` is the thumbprint of the public key (RFC 7638).

use std::{
    fmt,
    sync::{Arc, PoisonError, RwLock},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use chrono::TimeDelta;
use jsonwebtoken::{
    Algorithm, DecodingKey, EncodingKey, Header, Validation,
    jwk::{Jwk, KeyAlgorithm, PublicKeyUse, ThumbprintHash},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::sync::Mutex;
use zeroize::Zeroizing;

use super::{AccessError, Records, Versioned};
use crate::{
    clock::{Clock, Timestamp},
    secret::{self, ExposeSecret as _, SecretString},
    vault::{self, RecordKind},
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
        self.keys.read().unwrap_or_else(PoisonError::into_inner).clone()
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
        let mut known = self.keys.write().unwrap_or_else(PoisonError::into_inner);
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
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::{
        config::VaultLocation,
        vault::{Keyring, Vault},
    };

    struct Vaults {
        _directory: tempfile::TempDir,
        records: Records,
        clock: Clock,
    }

    impl Vaults {
        async fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            let location = VaultLocation::Sqlite(directory.path().join("data/vault.db"));
            let key = SecretString::from("ab".repeat(32));
            let source = crate::config::SealingKeySource::Given(key);
            let (keyring, _) = Keyring::load(&source, directory.path(), &location).await.unwrap();
            let vault = Vault::open(&location, keyring).await.unwrap();
            let records = Records::new(vault, "https://bond.example.com".to_owned());
            let clock = Clock::manual("2026-11-29T10:00:00Z".parse().unwrap());
            Self { _directory: directory, records, clock }
        }

        async fn replica(&self) -> SigningKeys {
            self.replica_at(&self.clock).await
        }

        /// Opens a replica with a clock of its own.
        async fn replica_at(&self, clock: &Clock) -> SigningKeys {
            SigningKeys::open(self.records.clone(), clock.clone()).await.unwrap()
        }
    }

    async fn token(keys: &SigningKeys) -> SecretString {
        keys.sign("typ", &json!({ "x": 1 })).await.unwrap()
    }

    async fn verify(keys: &SigningKeys, token: &SecretString) -> Result<Value, AccessError> {
        keys.verify("typ", token).await
    }

    #[tokio::test]
    async fn replicas_that_start_at_once_end_with_one_key() {
        let vaults = Vaults::new().await;
        let (one, other) = tokio::join!(vaults.replica(), vaults.replica());
        let keys = one.public().await.unwrap();
        assert_eq!((keys.len(), &keys), (1, &other.public().await.unwrap()));
        assert_eq!(verify(&other, &token(&one).await).await.unwrap(), json!({ "x": 1 }));
    }

    #[tokio::test]
    async fn keys_are_rotated_and_the_old_ones_kept_as_long_as_tokens_live() {
        let vaults = Vaults::new().await;
        let (one, other) = (vaults.replica().await, vaults.replica().await);
        let first = token(&one).await;
        vaults.clock.advance(TimeDelta::days(30));
        let (second, by_the_other) = tokio::join!(token(&one), token(&other));
        assert_eq!(one.public().await.unwrap().len(), 2);
        for keys in [&one, &other, &vaults.replica().await] {
            for token in [&first, &second, &by_the_other] {
                assert!(verify(keys, token).await.is_ok());
            }
        }
        vaults.clock.advance(TimeDelta::days(30));
        let third = token(&other).await;
        assert_eq!(other.public().await.unwrap().len(), 2);
        assert!(verify(&other, &third).await.is_ok() && verify(&other, &second).await.is_ok());
        assert_eq!(verify(&other, &first).await, Err(AccessError::Invalid("unknown key")));
    }

    #[tokio::test]
    async fn the_next_key_is_known_at_once_whatever_others_ask_for() {
        let vaults = Vaults::new().await;
        let (one, other, third) = (vaults.replica().await, vaults.replica().await, vaults.replica().await);
        let ahead = Clock::manual(vaults.clock.now());
        let early = vaults.replica_at(&ahead).await;
        ahead.advance(SIGNS_FOR);
        vaults.clock.advance(SIGNS_FOR - CLOCK_DIFFERENCE);
        for keys in [&one, &other] {
            keys.public().await.unwrap();
            assert_eq!(verify(keys, &made_up_key("typ")).await, Err(AccessError::Invalid("unknown key")));
        }
        for token in [token(&early).await, token(&one).await] {
            for keys in [&one, &other, &third] {
                assert!(verify(keys, &token).await.is_ok());
            }
        }
        assert_eq!(vaults.replica().await.public().await.unwrap().len(), 2);
    }

    #[tokio::test]
    async fn an_unknown_key_is_looked_up_at_most_every_few_seconds() {
        let vaults = Vaults::new().await;
        let (asked, polled) = (vaults.replica().await, vaults.replica().await);
        vaults.clock.advance(READ_INTERVAL);
        assert_eq!(verify(&asked, &made_up_key("typ")).await, Err(AccessError::Invalid("unknown key")));
        polled.public().await.unwrap();
        // Much too early, since its clock is wrong.
        let wrong = Clock::manual(vaults.clock.now() + SIGNS_FOR);
        let token = token(&vaults.replica_at(&wrong).await).await;
        assert_eq!(verify(&asked, &token).await, Err(AccessError::Invalid("unknown key")));
        assert!(verify(&polled, &token).await.is_ok());
        vaults.clock.advance(READ_INTERVAL);
        assert!(verify(&asked, &token).await.is_ok());
    }

    fn made_up_key(typ: &str) -> SecretString {
        let stored = StoredKey { private: secret::random(), created_at: Timestamp::UNIX_EPOCH };
        let key = Key::of(&stored).unwrap();
        let mut header = Header::new(Algorithm::EdDSA);
        (header.typ, header.kid) = (Some(typ.to_owned()), Some(key.id.clone()));
        jsonwebtoken::encode(&header, &json!({ "x": 1 }), &key.encoding).unwrap().into()
    }

    #[tokio::test]
    async fn the_public_keys_have_no_private_part_and_debug_output_no_key() {
        let vaults = Vaults::new().await;
        let keys = vaults.replica().await;
        let public = serde_json::to_value(keys.public().await.unwrap()).unwrap();
        let names: Vec<_> = public[0].as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(names, ["alg", "crv", "kid", "kty", "use", "x"]);
        assert_eq!((&public[0]["alg"], &public[0]["crv"]), (&json!("EdDSA"), &json!("Ed25519")));
        assert_eq!(format!("{keys:?}"), "SigningKeys { version: 1, .. }");
        keys.check().await.unwrap();
    }
}
