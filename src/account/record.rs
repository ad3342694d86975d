//! The account's record in the vault. In memory its secrets are typed; serialized it exists only while it is encrypted
//! or decrypted.

use std::iter;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::{grant::GrantState, intent::Intent, session::Session};
use crate::{
    bondmcp::wire::Permission,
    clock::Timestamp,
    config::EnvironmentLogin,
    secret::{self, ExposeSecret, SecretBytes, SecretString},
};

/// One account: an identity at one upstream, its credentials and the API keys created here.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Record {
    pub email: Option<String>,
    pub user_id: Option<String>,
    /// Incremented by every sign-in and sign-out, so that a renewal that started earlier can detect it.
    pub generation: u64,
    pub session: Option<Session>,
    /// Stored because the person chose to stay signed in.
    pub password: Option<SecretString>,
    /// The environment's e-mail and password that the upstream rejected, as a fingerprint.
    pub rejected: Option<Fingerprint>,
    /// An API key that the person entered instead of signing in.
    pub own_key: Option<SecretString>,
    pub keys: Vec<ManagedKey>,
    /// Id of the key that API calls use instead of the session.
    pub active_key: Option<String>,
    /// Key changes that have started and not finished.
    pub intents: Vec<Intent>,
    /// Only where the account is a grant's.
    pub grant: Option<Box<GrantState>>,
}

/// An API key that was created here.
#[derive(Clone, Debug, Deserialize)]
pub struct ManagedKey {
    pub id: String,
    pub name: String,
    pub preview: Option<String>,
    pub created_at: Option<String>,
    /// The description given at creation; its replacement gets the same one.
    #[serde(default)]
    pub permissions: Vec<Permission>,
    pub secret: SecretString,
}

/// A salted hash that recognises rejected credentials without storing them.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub struct Fingerprint {
    salt: String,
    digest: Vec<u8>,
}

impl Record {
    /// Returns every secret in the record.
    pub fn secrets(&self) -> impl Iterator<Item = &SecretString> {
        let session = self.session.iter();
        let tokens = session.flat_map(|s| iter::once(&s.access_token).chain(&s.refresh_token));
        tokens.chain(&self.password).chain(&self.own_key).chain(self.keys.iter().map(|key| &key.secret))
    }

    pub fn key(&self, id: &str) -> Option<&ManagedKey> {
        self.keys.iter().find(|key| key.id == id)
    }

    pub fn active(&self) -> Option<&ManagedKey> {
        self.key(self.active_key.as_deref()?)
    }

    /// Whether API calls are made with a key that was pasted on the sign-in page. Its owner is not known, and need not be
    /// the account that is signed in.
    pub fn uses_own_key(&self) -> bool {
        self.own_key.is_some() && self.active().is_none()
    }

    /// Deletes the credentials that sign the account in. API keys stay, as their values exist nowhere else.
    pub fn sign_out(&mut self) {
        self.generation += 1;
        self.session = None;
        self.password = None;
        self.own_key = None;
        self.active_key = None;
    }

    pub fn forget_key(&mut self, id: &str) {
        self.keys.retain(|key| key.id != id);
        if self.active_key.as_deref() == Some(id) {
            self.active_key = None;
        }
    }

    /// Returns a number that is another one for each sign-in, and for a key that was pasted, which may be somebody else's.
    pub fn identity(&self) -> u64 {
        self.generation * 2 + u64::from(self.uses_own_key())
    }

    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok()
    }

    pub fn to_bytes(&self) -> Result<SecretBytes, serde_json::Error> {
        secret::to_secret_json(&RecordView {
            email: self.email.as_deref(),
            user_id: self.user_id.as_deref(),
            generation: self.generation,
            session: self.session.as_ref().map(SessionView::of),
            password: self.password.as_ref().map(ExposeSecret::expose_secret),
            rejected: self.rejected.as_ref(),
            own_key: self.own_key.as_ref().map(ExposeSecret::expose_secret),
            keys: self.keys.iter().map(ManagedKeyView::of).collect(),
            active_key: self.active_key.as_deref(),
            intents: &self.intents,
            grant: self.grant.as_deref(),
        })
    }
}

impl Fingerprint {
    pub fn of(login: &EnvironmentLogin) -> Self {
        let salt = secret::random().expose_secret().to_owned();
        Self { digest: Self::digest(&salt, login), salt }
    }

    pub fn matches(&self, login: &EnvironmentLogin) -> bool {
        self.digest == Self::digest(&self.salt, login)
    }

    fn digest(salt: &str, login: &EnvironmentLogin) -> Vec<u8> {
        let mut hash = Sha256::new();
        for part in [salt, &login.email, login.password.expose_secret()] {
            hash.update(part.len().to_be_bytes());
            hash.update(part);
        }
        hash.finalize().to_vec()
    }
}

/// [`Record`] with its secrets exposed; used only for encryption.
#[derive(Serialize)]
struct RecordView<'a> {
    email: Option<&'a str>,
    user_id: Option<&'a str>,
    generation: u64,
    session: Option<SessionView<'a>>,
    password: Option<&'a str>,
    rejected: Option<&'a Fingerprint>,
    own_key: Option<&'a str>,
    keys: Vec<ManagedKeyView<'a>>,
    active_key: Option<&'a str>,
    intents: &'a [Intent],
    #[serde(skip_serializing_if = "Option::is_none")]
    grant: Option<&'a GrantState>,
}

/// [`Session`] with its secrets exposed; used only for encryption.
#[derive(Serialize)]
pub struct SessionView<'a> {
    access_token: &'a str,
    obtained_at: Timestamp,
    expires_at: Timestamp,
    obtained_by_vault: Option<Timestamp>,
    refresh_token: Option<&'a str>,
}

impl<'a> SessionView<'a> {
    pub fn of(session: &'a Session) -> Self {
        Self {
            access_token: session.access_token.expose_secret(),
            obtained_at: session.obtained_at,
            expires_at: session.expires_at,
            obtained_by_vault: session.obtained_by_vault,
            refresh_token: session.refresh_token.as_ref().map(ExposeSecret::expose_secret),
        }
    }
}

#[derive(Serialize)]
struct ManagedKeyView<'a> {
    id: &'a str,
    name: &'a str,
    preview: Option<&'a str>,
    created_at: Option<&'a str>,
    permissions: &'a [Permission],
    secret: &'a str,
}

impl<'a> ManagedKeyView<'a> {
    fn of(key: &'a ManagedKey) -> Self {
        Self {
            id: &key.id,
            name: &key.name,
            preview: key.preview.as_deref(),
            created_at: key.created_at.as_deref(),
            permissions: &key.permissions,
            secret: key.secret.expose_secret(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use static_assertions::assert_not_impl_any;

    assert_not_impl_any!(Record: Serialize, std::fmt::Display);
    assert_not_impl_any!(ManagedKey: Serialize, std::fmt::Display);

    fn record() -> Record {
        Record {
            email: Some("a@b.c".into()),
            user_id: Some("usr_1".into()),
            generation: 3,
            session: Some(Session {
                access_token: "canary-access".into(),
                obtained_at: Timestamp::UNIX_EPOCH,
                expires_at: Timestamp::UNIX_EPOCH,
                obtained_by_vault: Some(Timestamp::UNIX_EPOCH),
                refresh_token: Some("canary-refresh".into()),
            }),
            password: Some("canary-password".into()),
            rejected: None,
            own_key: Some("canary-own-key".into()),
            keys: vec![ManagedKey {
                id: "key_1".into(),
                name: "laptop".into(),
                preview: None,
                created_at: None,
                permissions: vec![],
                secret: "canary-key".into(),
            }],
            active_key: Some("key_1".into()),
            intents: vec![],
            grant: None,
        }
    }

    #[test]
    fn a_record_survives_its_bytes() {
        let record = record();
        let bytes = record.to_bytes().unwrap();
        let again = Record::from_bytes(&bytes).unwrap();
        assert_eq!(&again.to_bytes().unwrap()[..], &bytes[..]);
        assert_eq!(again.active().unwrap().secret.expose_secret(), "canary-key");
        assert_eq!(again.generation, 3);
    }

    #[test]
    fn a_record_does_not_show_its_secrets_in_debug() {
        assert!(!format!("{:?}", record()).contains("canary"));
    }

    #[test]
    fn signing_out_forgets_the_credentials_and_keeps_the_keys() {
        let mut record = record();
        record.sign_out();
        assert!(record.session.is_none() && record.password.is_none() && record.active().is_none());
        assert_eq!(record.keys.len(), 1);
        assert_eq!(record.generation, 4);
    }

    #[test]
    fn a_pasted_key_is_another_identity_and_so_is_each_sign_in() {
        let mut record = record();
        let (managed, id) = (record.identity(), record.keys[0].id.clone());
        record.own_key = Some("pasted".into());
        assert_eq!(record.identity(), managed, "it is not what calls are made with");
        record.forget_key(&id);
        let pasted = record.identity();
        record.sign_out();
        let identities = [managed, pasted, record.identity()];
        assert!((1..3).all(|at| !identities[..at].contains(&identities[at])), "{identities:?}");
    }

    #[test]
    fn a_fingerprint_knows_its_login_and_no_other() {
        let login =
            |email: &str, password: &str| EnvironmentLogin { email: email.into(), password: password.into() };
        let fingerprint = Fingerprint::of(&login("a", "bc"));
        assert!(fingerprint.matches(&login("a", "bc")));
        assert!(!fingerprint.matches(&login("ab", "c")));
    }
}
