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
        let vault = Vault::open(&location, Keyring::of(&[1])).await.unwrap();
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

#[tokio::test]
async fn without_a_key_it_is_not_ready() {
    let vaults = Vaults::new().await;
    let (keys, records) = (vaults.replica().await, &vaults.records);
    keys.check().await.unwrap();
    let version = records.read::<Value>(SIGNING_KEYS, "").await.unwrap().unwrap().version;
    let version = records.write(SIGNING_KEYS, "", Some(version), &json!({ "keys": [] }), None).await.unwrap();
    assert!(matches!(keys.check().await, Err(vault::Error::Damaged)));
    records.delete(SIGNING_KEYS, "", version).await.unwrap();
    assert!(matches!(keys.check().await, Err(vault::Error::Damaged)));
}
