//! The key that encrypts the vault: from the environment, the OS keychain, or a key file where no keychain answers.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use base64::{
    Engine as _,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use zeroize::Zeroizing;

use super::{Error, files};
use crate::{
    config::{SealingKeySource, VaultLocation},
    secret::{ExposeSecret as _, SecretString},
};

const KEY_BYTES: usize = 32;

/// Longest wait for the keychain, which may itself wait for the person to unlock it.
const KEYCHAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// The 256-bit key; wiped when dropped.
pub struct SealingKey(Zeroizing<[u8; KEY_BYTES]>);

/// The origin of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyOrigin {
    Environment,
    Keychain,
    KeyFile(PathBuf),
    /// A key file that was just created.
    NewKeyFile(PathBuf),
}

/// What the OS keychain answered when it was asked for a sealing key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeychainAnswer {
    /// It was not asked, since the operator named another place.
    NotAsked,
    HasKey,
    NoKey,
    /// There is no keychain, or it refused.
    NoKeychain,
    /// It did not answer in time: it may be locked.
    Silent,
}

/// Where a sealing key lives, as far as it can be told without creating anything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyPlace {
    pub keychain: KeychainAnswer,
    /// Origin of the key; `None` where no key was found.
    pub origin: Option<KeyOrigin>,
}

impl KeyOrigin {
    /// Returns a notice for the person where a fallback was used.
    #[must_use]
    pub fn warning(&self) -> Option<String> {
        let Self::NewKeyFile(path) = self else { return None };
        Some(format!(
            "no OS keychain answered, so the vault's sealing key is stored in {}: it protects copies of the vault alone, \
             not against other processes running as your user or backups that hold both files",
            path.display()
        ))
    }
}

impl SealingKey {
    /// Loads the key from `source`; generates one if there is neither a key nor a vault yet.
    pub async fn load(
        source: &SealingKeySource,
        data_dir: &Path,
        location: &VaultLocation,
    ) -> Result<(Self, KeyOrigin), Error> {
        match source {
            SealingKeySource::Given(text) => {
                Ok((Self::parse(text, "in BONDMCP_SEALING_KEY")?, KeyOrigin::Environment))
            }
            SealingKeySource::File(path) => Ok((Self::from_file(path)?, KeyOrigin::KeyFile(path.clone()))),
            SealingKeySource::KeychainOrFile => {
                let VaultLocation::Sqlite(vault) = location;
                let place = Place { data_dir: data_dir.to_owned(), vault: vault.clone() };
                place.find_or_make(Arc::new(OsKeychain)).await
            }
        }
    }

    /// Finds out where the key from `source` lives, and waits at most `timeout` for the keychain. Creates nothing; whether
    /// a file holds a key is not checked.
    pub async fn locate(source: &SealingKeySource, data_dir: &Path, timeout: Duration) -> KeyPlace {
        let elsewhere = |origin| KeyPlace { keychain: KeychainAnswer::NotAsked, origin: Some(origin) };
        match source {
            SealingKeySource::Given(_) => elsewhere(KeyOrigin::Environment),
            SealingKeySource::File(path) => elsewhere(KeyOrigin::KeyFile(path.clone())),
            SealingKeySource::KeychainOrFile => {
                let place = Place { data_dir: data_dir.to_owned(), vault: PathBuf::new() };
                let account = place.account();
                let ask = tokio::task::spawn_blocking(move || match OsKeychain.get(&account) {
                    Ok(Some(_)) => KeychainAnswer::HasKey,
                    Ok(None) => KeychainAnswer::NoKey,
                    Err(NoKeychain) => KeychainAnswer::NoKeychain,
                });
                let keychain = match tokio::time::timeout(timeout, ask).await {
                    Ok(answer) => answer.unwrap_or(KeychainAnswer::NoKeychain),
                    Err(_) => KeychainAnswer::Silent,
                };
                let file = place.key_file();
                let origin = if keychain == KeychainAnswer::HasKey {
                    Some(KeyOrigin::Keychain)
                } else {
                    file.exists().then_some(KeyOrigin::KeyFile(file))
                };
                KeyPlace { keychain, origin }
            }
        }
    }

    pub(super) fn from_bytes(bytes: [u8; KEY_BYTES]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    pub(super) fn expose(&self) -> &[u8; KEY_BYTES] {
        &self.0
    }

    fn random() -> Result<Self, Error> {
        let mut key = Zeroizing::new([0; KEY_BYTES]);
        getrandom::fill(&mut *key).map_err(|_| Error::NoRandomness)?;
        Ok(Self(key))
    }

    fn from_file(path: &Path) -> Result<Self, Error> {
        files::refuse_exposed(path, "600")?;
        let text = std::fs::read_to_string(path).map_err(|error| files::unusable(path, &error))?;
        Self::parse(&text.into(), &format!("in {}", path.display()))
    }

    /// Parses 32 bytes in base64 (either alphabet, padded or not) or in hex.
    fn parse(text: &SecretString, place: &str) -> Result<Self, Error> {
        let text = text.expose_secret().trim();
        let bytes = if text.len() == 2 * KEY_BYTES { from_hex(text) } else { from_base64(text) };
        let bytes = Zeroizing::new(bytes.ok_or_else(|| Error::KeyFormat(place.to_owned()))?);
        let key = <[u8; KEY_BYTES]>::try_from(&bytes[..]).map_err(|_| Error::KeyFormat(place.to_owned()))?;
        Ok(Self::from_bytes(key))
    }

    fn to_text(&self) -> Zeroizing<String> {
        Zeroizing::new(base64::engine::general_purpose::STANDARD.encode(*self.0))
    }
}

impl std::fmt::Debug for SealingKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SealingKey")
    }
}

/// The operating system's store for the person's secrets.
trait Keychain: Send + Sync + 'static {
    /// Reads the entry; `None` if there is no entry, an error if no keychain answers.
    fn get(&self, account: &str) -> Result<Option<SecretString>, NoKeychain>;
    fn set(&self, account: &str, text: &str) -> Result<(), NoKeychain>;
}

/// No keychain answers.
struct NoKeychain;

struct OsKeychain;

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

/// The data directory and vault that a key belongs to.
struct Place {
    data_dir: PathBuf,
    vault: PathBuf,
}

impl Place {
    async fn find_or_make(self, keychain: Arc<dyn Keychain>) -> Result<(SealingKey, KeyOrigin), Error> {
        files::prepare_directory(&self.data_dir)?;
        let blocking = tokio::task::spawn_blocking(move || {
            // Two processes that start concurrently must agree on one key.
            let _lock = files::lock(&self.data_dir.join("sealing.lock"))?;
            let account = self.account();
            if let Ok(Some(text)) = keychain.get(&account) {
                return Ok((SealingKey::parse(&text, "in the OS keychain")?, KeyOrigin::Keychain));
            }
            match SealingKey::from_file(&self.key_file()) {
                Err(Error::Unusable { reason: io::ErrorKind::NotFound, .. }) => {}
                outcome => return Ok((outcome?, KeyOrigin::KeyFile(self.key_file()))),
            }
            if files::has_content(&self.vault)? {
                return Err(Error::KeyMissing { path: self.key_file() });
            }
            let key = SealingKey::random()?;
            if keychain.set(&account, &key.to_text()).is_ok() {
                return Ok((key, KeyOrigin::Keychain));
            }
            files::write_private(&self.key_file(), key.to_text().as_bytes())?;
            Ok((key, KeyOrigin::NewKeyFile(self.key_file())))
        });
        match tokio::time::timeout(KEYCHAIN_TIMEOUT, blocking).await {
            Ok(outcome) => outcome.unwrap_or(Err(Error::Database("the keychain failed"))),
            Err(_) => Err(Error::Database("the OS keychain does not answer; unlock it")),
        }
    }

    /// Returns the name of this data directory's key in the keychain.
    fn account(&self) -> String {
        let path = self.data_dir.canonicalize().unwrap_or_else(|_| self.data_dir.clone());
        format!("sealing key of {}", path.display())
    }

    fn key_file(&self) -> PathBuf {
        self.data_dir.join("sealing.key")
    }
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> =
        text.chars().map(|c| c.to_digit(16).and_then(|digit| u8::try_from(digit).ok())).collect();
    Some(digits?.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}

fn from_base64(text: &str) -> Option<Vec<u8>> {
    let lenient = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let text = Zeroizing::new(text.replace('-', "+").replace('_', "/"));
    GeneralPurpose::new(&base64::alphabet::STANDARD, lenient).decode(text.as_bytes()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use static_assertions::assert_not_impl_any;
    use std::{
        collections::HashMap,
        sync::{Mutex, PoisonError},
    };

    assert_not_impl_any!(SealingKey: serde::Serialize, std::fmt::Display, Clone);

    #[derive(Default)]
    struct MemoryKeychain(Mutex<HashMap<String, String>>);

    impl Keychain for MemoryKeychain {
        fn get(&self, account: &str) -> Result<Option<SecretString>, NoKeychain> {
            let entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            Ok(entries.get(account).map(|text| text.as_str().into()))
        }

        fn set(&self, account: &str, text: &str) -> Result<(), NoKeychain> {
            let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            entries.insert(account.to_owned(), text.to_owned());
            Ok(())
        }
    }

    struct Headless;

    impl Keychain for Headless {
        fn get(&self, _: &str) -> Result<Option<SecretString>, NoKeychain> {
            Err(NoKeychain)
        }

        fn set(&self, _: &str, _: &str) -> Result<(), NoKeychain> {
            Err(NoKeychain)
        }
    }

    async fn find_or_make(
        data_dir: &Path,
        keychain: Arc<dyn Keychain>,
    ) -> Result<(SealingKey, KeyOrigin), Error> {
        let place = Place { data_dir: data_dir.join("data"), vault: data_dir.join("data/vault.db") };
        place.find_or_make(keychain).await
    }

    #[test]
    fn a_key_is_read_in_every_usual_writing() {
        let key = [0xfb_u8; KEY_BYTES];
        for text in [
            base64::engine::general_purpose::STANDARD.encode(key),
            base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(key),
            "fb".repeat(KEY_BYTES),
            format!("{}\n", "FB".repeat(KEY_BYTES)),
        ] {
            assert_eq!(SealingKey::parse(&text.as_str().into(), "here").unwrap().expose(), &key, "{text}");
        }
    }

    #[test]
    fn a_key_of_another_length_is_refused_without_being_repeated() {
        for text in ["", "canary", &"ab".repeat(31), &"zz".repeat(KEY_BYTES), &"A".repeat(40)] {
            let error = SealingKey::parse(&text.into(), "here").unwrap_err();
            assert_eq!(error, Error::KeyFormat("here".into()));
        }
    }

    #[tokio::test]
    async fn the_keychain_keeps_the_key_and_no_file_is_made() {
        let directory = tempfile::tempdir().unwrap();
        let keychain = Arc::new(MemoryKeychain::default());
        let (made, origin) = find_or_make(directory.path(), keychain.clone()).await.unwrap();
        let (found, _) = find_or_make(directory.path(), keychain).await.unwrap();
        assert_eq!(made.expose(), found.expose());
        assert_eq!((origin.warning(), origin), (None, KeyOrigin::Keychain));
        assert!(!directory.path().join("data/sealing.key").exists());
    }

    #[tokio::test]
    async fn without_a_keychain_a_private_file_keeps_the_key_and_says_so_once() {
        let directory = tempfile::tempdir().unwrap();
        let (made, origin) = find_or_make(directory.path(), Arc::new(Headless)).await.unwrap();
        assert!(origin.warning().unwrap().contains("sealing.key"));
        let (found, origin) = find_or_make(directory.path(), Arc::new(Headless)).await.unwrap();
        assert_eq!(made.expose(), found.expose());
        assert_eq!(origin.warning(), None);
        files::refuse_exposed(&directory.path().join("data/sealing.key"), "600").unwrap();
    }

    #[tokio::test]
    async fn a_key_file_goes_on_being_used_when_a_keychain_appears() {
        let directory = tempfile::tempdir().unwrap();
        let (made, _) = find_or_make(directory.path(), Arc::new(Headless)).await.unwrap();
        let (found, _) = find_or_make(directory.path(), Arc::new(MemoryKeychain::default())).await.unwrap();
        assert_eq!(made.expose(), found.expose());
    }

    #[tokio::test]
    async fn a_vault_whose_key_is_gone_gets_no_new_key() {
        let directory = tempfile::tempdir().unwrap();
        find_or_make(directory.path(), Arc::new(MemoryKeychain::default())).await.unwrap();
        std::fs::write(directory.path().join("data/vault.db"), "sealed").unwrap();
        let lost = find_or_make(directory.path(), Arc::new(Headless)).await;
        assert!(matches!(lost, Err(Error::KeyMissing { .. })));
        assert!(!directory.path().join("data/sealing.key").exists());
    }

    #[tokio::test]
    async fn two_that_start_at_once_agree_on_one_key() {
        let directory = tempfile::tempdir().unwrap();
        let (one, two) = tokio::join!(
            find_or_make(directory.path(), Arc::new(Headless)),
            find_or_make(directory.path(), Arc::new(Headless)),
        );
        assert_eq!(one.unwrap().0.expose(), two.unwrap().0.expose());
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn a_key_file_that_others_can_read_is_refused_with_the_command_that_fixes_it() {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        std::fs::write(&path, "ab".repeat(KEY_BYTES)).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        let error = SealingKey::from_file(&path).unwrap_err();
        let report = crate::error::UserFacingError::from(&error);
        assert!(report.solution.contains("chmod 600"), "{report}");
    }
}
