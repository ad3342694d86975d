//! The OS keychain.

use std::fmt::Debug;

use crate::secret::SecretString;

/// The operating system's store for the person's secrets.
pub trait Keychain: Debug + Send + Sync + 'static {
    /// Reads the entry; `None` if there is no entry, an error if no keychain answers.
    fn get(&self, account: &str) -> Result<Option<SecretString>, NoKeychain>;
    fn set(&self, account: &str, text: &str) -> Result<(), NoKeychain>;
}

/// No keychain answers.
pub struct NoKeychain;

#[derive(Debug)]
pub struct OsKeychain;

const SERVICE: &str = env!("CARGO_PKG_NAME");

impl Keychain for OsKeychain {
    fn get(&self, account: &str) -> Result<Option<SecretString>, NoKeychain> {
        let entry = keyring::v1::Entry::new(SERVICE, account).map_err(|_| NoKeychain)?;
        match entry.get_password() {
            Ok(text) => Ok(Some(text.into())),
            Err(keyring::v1::Error::NoEntry) => Ok(None),
            Err(_) => Err(NoKeychain),
        }
    }

    fn set(&self, account: &str, text: &str) -> Result<(), NoKeychain> {
        let entry = keyring::v1::Entry::new(SERVICE, account).map_err(|_| NoKeychain)?;
        entry.set_password(text).map_err(|_| NoKeychain)
    }
}

/// A machine without a keychain.
#[cfg(test)]
#[derive(Debug)]
pub struct Headless;

#[cfg(test)]
impl Keychain for Headless {
    fn get(&self, _: &str) -> Result<Option<SecretString>, NoKeychain> {
        Err(NoKeychain)
    }

    fn set(&self, _: &str, _: &str) -> Result<(), NoKeychain> {
        Err(NoKeychain)
    }
}
