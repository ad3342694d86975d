//! The sandbox's state: accounts, keys and refresh tokens, with all secrets hashed. It can be saved to a file.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use super::plan::{Minute, Plan};
use crate::{
    bondmcp::wire::Permission,
    clock::Timestamp,
    secret::{ExposeSecret as _, SecretString},
};

/// The reasons for not using a state file, which is then left unchanged.
#[derive(Debug, thiserror::Error)]
pub enum StateFileError {
    #[error("the sandbox's state file {path} cannot be read: {source}")]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("the sandbox's state file {path} is not one; move it away or name another")]
    Garbled { path: PathBuf },
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct State {
    pub accounts: Vec<Account>,
    pub keys: Vec<StoredKey>,
    /// Refresh tokens by their hashes.
    pub grants: HashMap<String, Grant>,
    /// Numbers of access tokens that were revoked by a log-out or a refresh.
    #[serde(skip)]
    pub blacklist: HashSet<u64>,
    #[serde(skip)]
    pub minutes: HashMap<String, Minute>,
}

#[derive(Debug, Deserialize, Serialize)]
pub struct Account {
    pub id: String,
    pub email: String,
    pub name: Option<String>,
    pub password_hash: String,
    pub plan: Plan,
    pub verified: bool,
    /// Code in the verification link.
    pub verification: String,
    pub created_at: Timestamp,
    /// Remaining credits for health services, in cents.
    #[serde(default = "first_credits")]
    pub credits: u64,
}

/// Initial credits of an account, and those of an account that was saved without any: 5 dollars.
const fn first_credits() -> u64 {
    500
}

/// A refresh token's account and last access token.
#[derive(Debug, Deserialize, Serialize)]
pub struct Grant {
    pub account: String,
    /// Number of the access token that it last issued.
    #[serde(skip)]
    pub access: u64,
}

#[derive(Debug, Deserialize, Serialize)]
pub struct StoredKey {
    pub id: String,
    pub account: String,
    pub name: String,
    pub description: Option<String>,
    /// Permissions of the key; a key that was saved without permissions has none.
    #[serde(default)]
    pub permissions: Vec<Permission>,
    pub hash: String,
    pub preview: String,
    pub created_at: Timestamp,
    pub first_used: Option<Timestamp>,
    pub last_used: Option<Timestamp>,
    pub endpoints: BTreeMap<String, u64>,
}

impl State {
    pub fn load(path: &Path) -> Result<Self, StateFileError> {
        match std::fs::read(path) {
            Ok(bytes) => {
                serde_json::from_slice(&bytes).map_err(|_| StateFileError::Garbled { path: path.to_owned() })
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(source) => Err(StateFileError::Unreadable { path: path.to_owned(), source }),
        }
    }

    /// Writes the file under a temporary name, which is nobody else's, and then renames it. A missing directory is created.
    pub fn save(&self, path: &Path) -> io::Result<()> {
        if let Some(directory) = path.parent() {
            let mut builder = std::fs::DirBuilder::new();
            #[cfg(unix)]
            std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
            builder.recursive(true).create(directory)?;
        }
        let directory = path.parent().filter(|directory| !directory.as_os_str().is_empty());
        let mut file = tempfile::NamedTempFile::new_in(directory.unwrap_or(Path::new(".")))?;
        file.write_all(&serde_json::to_vec(self)?)?;
        file.as_file().sync_all()?;
        file.persist(path)?;
        Ok(())
    }

    pub fn add_account(
        &mut self,
        email: &str,
        name: Option<String>,
        password_hash: String,
        plan: Plan,
        verified: bool,
        created_at: Timestamp,
    ) -> &Account {
        self.accounts.push(Account {
            id: format!("usr_{}", Uuid::new_v4().simple()),
            email: email.to_owned(),
            name,
            password_hash,
            plan,
            verified,
            verification: Uuid::new_v4().simple().to_string(),
            created_at,
            credits: first_credits(),
        });
        &self.accounts[self.accounts.len() - 1]
    }

    pub fn account(&self, id: &str) -> Option<&Account> {
        self.accounts.iter().find(|account| account.id == id)
    }

    pub fn account_by_email(&self, email: &str) -> Option<&Account> {
        self.accounts.iter().find(|account| account.email.eq_ignore_ascii_case(email))
    }

    pub fn account_by_email_mut(&mut self, email: &str) -> Option<&mut Account> {
        self.accounts.iter_mut().find(|account| account.email.eq_ignore_ascii_case(email))
    }

    /// Takes `cents` from an account's credits; `false` if they do not suffice.
    pub fn charge(&mut self, account: &str, cents: u64) -> bool {
        let Some(account) = self.accounts.iter_mut().find(|known| known.id == account) else { return false };
        let left = account.credits.checked_sub(cents);
        account.credits = left.unwrap_or(account.credits);
        left.is_some()
    }

    pub fn keys_of<'a>(&'a self, account: &'a str) -> impl Iterator<Item = &'a StoredKey> {
        self.keys.iter().filter(move |key| key.account == account)
    }

    pub fn key_mut(&mut self, account: &str, id: &str) -> Option<&mut StoredKey> {
        self.keys.iter_mut().find(|key| key.account == account && key.id == id)
    }

    /// Returns the key with this value.
    pub fn key_by_value(&mut self, value: &SecretString) -> Option<&mut StoredKey> {
        let hash = hash(value);
        self.keys.iter_mut().find(|key| key.hash == hash)
    }
}

/// Hashes a random secret; a plain hash suffices because it cannot be guessed.
pub fn hash(secret: &SecretString) -> String {
    STANDARD_NO_PAD.encode(Sha256::digest(secret.expose_secret()))
}
