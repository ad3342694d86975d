//! The keys that this process knows: from the environment, the OS keychain, or a key file where no keychain answers.
//! There are several while the vault's key is being changed. Which of them encrypts, the vault says.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use super::{
    Error, SealingKey, files,
    keychain::{Keychain, NoKeychain, OsKeychain},
    seal::{KeyId, Sealer},
};
use crate::{
    config::{SealingKeySource, VaultLocation, keys_in},
    secret::{ExposeSecret as _, SecretString},
};

/// Longest wait for the keychain, which may itself wait for the person to unlock it.
const KEYCHAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// A keychain that gave no answer, in [`Error::Keychain`].
const SILENT: &str = "does not answer";

/// The keychain as the place of a key, in [`Error::KeyFormat`].
const KEYCHAIN: &str = "in the OS keychain";

/// The known keys; the first one is the newest.
#[derive(Clone, Debug)]
pub struct Keyring {
    keys: Keys,
    source: SealingKeySource,
    place: Place,
    origin: KeyOrigin,
}

type Keys = Vec<Arc<SealingKey>>;

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
    /// A key file beside the key in the keychain. The vault may have either key.
    pub hidden: Option<PathBuf>,
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

impl Keyring {
    /// Loads the keys from `source`; generates one if there is neither a key nor a vault yet.
    pub async fn load(
        source: &SealingKeySource,
        data_dir: &Path,
        location: &VaultLocation,
    ) -> Result<(Self, KeyOrigin), Error> {
        let (keys, origin) = match source {
            SealingKeySource::Given(text) => (parse(text, "in BONDMCP_SEALING_KEY")?, KeyOrigin::Environment),
            SealingKeySource::File(path) => (from_operator(path)?, KeyOrigin::KeyFile(path.clone())),
            SealingKeySource::KeychainOrFile => {
                let VaultLocation::Sqlite(vault) = location else { return Err(Error::KeyNotGiven) };
                return Self::in_place(Place::of(data_dir), vault).await;
            }
        };
        let (source, place) = (source.clone(), Place::of(data_dir));
        Ok((Self { keys, source, place, origin: origin.clone() }, origin))
    }

    /// Loads the keys that this program made for a data directory.
    async fn in_place(place: Place, vault: &Path) -> Result<(Self, KeyOrigin), Error> {
        let vault = vault.to_owned();
        let (keys, origin) = place.run(move |place| place.find_or_make(&vault)).await?;
        let source = SealingKeySource::KeychainOrFile;
        Ok((Self { keys, source, place, origin: origin.clone() }, origin))
    }

    /// Loads the keys again, since another process may have added one; never makes one.
    pub(super) async fn reload(&self) -> Result<Self, Error> {
        Ok(match &self.source {
            SealingKeySource::Given(_) => self.clone(),
            SealingKeySource::File(path) => Self { keys: from_operator(path)?, ..self.clone() },
            SealingKeySource::KeychainOrFile => match self.place.run(Place::find).await? {
                Some((keys, origin)) => Self { keys, origin, ..self.clone() },
                None => self.clone(),
            },
        })
    }

    /// Loads the keys of the key file, which those in the keychain hide: they may be another data directory's, of the same
    /// path, or the keychain did not answer when the file was made.
    pub(super) async fn hidden_keys(&self) -> Result<Option<Self>, Error> {
        if self.origin != KeyOrigin::Keychain {
            return Ok(None);
        }
        let origin = KeyOrigin::KeyFile(self.place.key_file());
        let keys = self.place.run(Place::in_file).await?;
        Ok(keys.map(|keys| Self { keys, origin, ..self.clone() }))
    }

    /// Whether this program makes the keys, rather than the operator.
    pub(super) fn makes_keys(&self) -> bool {
        matches!(self.source, SealingKeySource::KeychainOrFile)
    }

    /// Makes a new key and puts it first, where this program makes the keys and a change of keys has not yet begun.
    /// Otherwise the first key is the new one already.
    pub(super) async fn with_new_key(&self) -> Result<Self, Error> {
        if !self.makes_keys() {
            return self.reload().await;
        }
        let origin = self.origin.clone();
        let keys = self.place.run(move |place| place.renew(&origin)).await?;
        Ok(Self { keys, ..self.clone() })
    }

    /// Makes a new key and puts it before `used`, unless another process has put one there. Only for a keyring of keys
    /// that this program makes.
    pub(super) async fn with_key_before(&self, used: KeyId) -> Result<Self, Error> {
        let origin = self.origin.clone();
        let keys = self.place.run(move |place| place.add_before(&origin, used)).await?;
        Ok(Self { keys, ..self.clone() })
    }

    /// Deletes the keys with these ids, where this program made them.
    pub(super) async fn without(&self, old: Vec<KeyId>) -> Result<Self, Error> {
        if !self.makes_keys() {
            return Ok(self.clone());
        }
        let origin = self.origin.clone();
        let keys = self.place.run(move |place| place.delete(&origin, &old)).await?;
        Ok(Self { keys, ..self.clone() })
    }

    /// Finds out where the key from `source` lives, and waits at most `timeout` for the keychain. Creates nothing; whether
    /// a file holds a key is not checked.
    pub async fn locate(source: &SealingKeySource, data_dir: &Path, timeout: Duration) -> KeyPlace {
        let elsewhere =
            |origin| KeyPlace { keychain: KeychainAnswer::NotAsked, origin: Some(origin), hidden: None };
        match source {
            SealingKeySource::Given(_) => elsewhere(KeyOrigin::Environment),
            SealingKeySource::File(path) => elsewhere(KeyOrigin::KeyFile(path.clone())),
            SealingKeySource::KeychainOrFile => Place::of(data_dir).locate(timeout).await,
        }
    }

    /// Whether the vault with this known text has one of the keys. A known text that is damaged is no other key's.
    pub(super) fn opens(&self, known_text: &[u8]) -> bool {
        !matches!(Sealer::of_vault(known_text, &self.keys), Err(Error::WrongKey))
    }

    pub(super) fn keys(&self) -> &[Arc<SealingKey>] {
        &self.keys
    }

    /// Loads the keys that this program made for a vault, as on a machine without a keychain.
    #[cfg(test)]
    pub(super) async fn in_key_file(vault: &VaultLocation) -> Result<Self, Error> {
        let VaultLocation::Sqlite(vault) = vault else { return Err(Error::KeyNotGiven) };
        let data_dir = vault.parent().unwrap_or(Path::new("")).to_owned();
        let place = Place::new(data_dir, Arc::new(super::keychain::Headless));
        Ok(Self::in_place(place, vault).await?.0)
    }

    /// Returns a keyring of keys that live nowhere.
    #[cfg(test)]
    pub(crate) fn of(bytes: &[u8]) -> Self {
        Self::of_keys(bytes.iter().map(|byte| Arc::new(SealingKey::from_bytes([*byte; 32]))).collect())
    }

    #[cfg(test)]
    pub(super) fn of_keys(keys: Vec<Arc<SealingKey>>) -> Self {
        let source = SealingKeySource::Given(SecretString::default());
        Self { keys, source, place: Place::of(Path::new("")), origin: KeyOrigin::Environment }
    }
}

/// The data directory that keys belong to: the place of the keys that this program made.
#[derive(Clone, Debug)]
struct Place {
    data_dir: PathBuf,
    keychain: Arc<dyn Keychain>,
    /// Cancelled when nobody waits for the work in the place any more.
    abandoned: CancellationToken,
}

impl Place {
    fn of(data_dir: &Path) -> Self {
        Self::new(data_dir.to_owned(), Arc::new(OsKeychain))
    }

    fn new(data_dir: PathBuf, keychain: Arc<dyn Keychain>) -> Self {
        Self { data_dir, keychain, abandoned: CancellationToken::new() }
    }

    /// Runs `work`, which may ask the keychain, and waits no longer than a keychain may take. Only one process at a time
    /// is at work in a place, so that all agree on its keys.
    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        files::prepare_directory(&self.data_dir)?;
        let place = Self { abandoned: CancellationToken::new(), ..self.clone() };
        let _waiting = place.abandoned.clone().drop_guard();
        let blocking = tokio::task::spawn_blocking(move || {
            let _lock = files::lock(&place.data_dir.join("sealing.lock"))?;
            work(&place)
        });
        match tokio::time::timeout(KEYCHAIN_TIMEOUT, blocking).await {
            Ok(outcome) => outcome.unwrap_or(Err(Error::Keychain("failed"))),
            Err(_) => Err(Error::Keychain(SILENT)),
        }
    }

    async fn locate(self, timeout: Duration) -> KeyPlace {
        // What a broken link led to may be on a volume that is not mounted.
        let file = Some(self.key_file()).filter(|file| file.exists() || file.is_symlink());
        let ask = tokio::task::spawn_blocking(move || match self.keychain.get(&self.account()) {
            Ok(Some(_)) => KeychainAnswer::HasKey,
            Ok(None) => KeychainAnswer::NoKey,
            Err(NoKeychain) => KeychainAnswer::NoKeychain,
        });
        let keychain = match tokio::time::timeout(timeout, ask).await {
            Ok(answer) => answer.unwrap_or(KeychainAnswer::NoKeychain),
            Err(_) => KeychainAnswer::Silent,
        };
        let (origin, hidden) = match keychain {
            KeychainAnswer::HasKey => (Some(KeyOrigin::Keychain), file),
            _ => (file.map(KeyOrigin::KeyFile), None),
        };
        KeyPlace { keychain, origin, hidden }
    }

    fn find(&self) -> Result<Option<Found>, Error> {
        self.find_beside(&self.keychain.get(&self.account()))
    }

    /// Finds the keys, given what the keychain answered.
    fn find_beside(&self, answer: &Result<Option<SecretString>, NoKeychain>) -> Result<Option<Found>, Error> {
        if let Ok(Some(text)) = answer {
            return Ok(Some((parse(text, KEYCHAIN)?, KeyOrigin::Keychain)));
        }
        Ok(self.in_file()?.map(|keys| (keys, KeyOrigin::KeyFile(self.key_file()))))
    }

    fn in_file(&self) -> Result<Option<Keys>, Error> {
        match from_file(&self.key_file()) {
            Err(Error::Unusable { reason: io::ErrorKind::NotFound, .. }) => Ok(None),
            keys => keys.map(Some),
        }
    }

    fn find_or_make(&self, vault: &Path) -> Result<Found, Error> {
        let answer = self.keychain.get(&self.account());
        if let Some(found) = self.find_beside(&answer)? {
            return Ok(found);
        }
        if files::has_content(vault)? {
            return Err(Error::KeyMissing { path: self.key_file() });
        }
        let keys = vec![Arc::new(SealingKey::random()?)];
        // A keychain that could not be read may hold the key of another vault, which a new one would replace.
        if answer.is_ok() && self.keep_in_keychain(&keys)? {
            return Ok((keys, KeyOrigin::Keychain));
        }
        self.refuse_abandoned()?;
        self.write_file(&to_text(&keys))?;
        Ok((keys, KeyOrigin::NewKeyFile(self.key_file())))
    }

    /// Stores the first key in the keychain; returns whether it keeps that.
    fn keep_in_keychain(&self, keys: &[Arc<SealingKey>]) -> Result<bool, Error> {
        self.refuse_abandoned()?;
        let text = to_text(keys);
        if self.keychain.set(&self.account(), &text).is_err() {
            return Ok(false);
        }
        match self.keychain.get(&self.account()) {
            Ok(Some(stored)) if stored.expose_secret() == text.as_str() => Ok(true),
            // It keeps nothing.
            Ok(None) => Ok(false),
            // What it has would be found first at the next start.
            Ok(Some(_)) | Err(NoKeychain) => Err(not_stored(NoKeychain)),
        }
    }

    fn renew(&self, origin: &KeyOrigin) -> Result<Keys, Error> {
        self.add_where(origin, |keys| keys.len() == 1)
    }

    fn add_before(&self, origin: &KeyOrigin, used: KeyId) -> Result<Keys, Error> {
        self.add_where(origin, |keys| keys.first().is_some_and(|first| first.id() == used))
    }

    /// Puts a new key before the others where these are as expected.
    fn add_where(
        &self,
        origin: &KeyOrigin,
        are_expected: impl FnOnce(&[Arc<SealingKey>]) -> bool,
    ) -> Result<Keys, Error> {
        let mut keys = self.existing(origin)?;
        if are_expected(&keys) {
            keys.insert(0, Arc::new(SealingKey::random()?));
            self.store(origin, &keys)?;
        }
        Ok(keys)
    }

    fn delete(&self, origin: &KeyOrigin, old: &[KeyId]) -> Result<Keys, Error> {
        let mut keys = self.existing(origin)?;
        let before = keys.len();
        keys.retain(|key| !old.contains(&key.id()));
        if keys.len() < before {
            self.store(origin, &keys)?;
        }
        Ok(keys)
    }

    /// Returns the keys that are where this vault's were found.
    fn existing(&self, origin: &KeyOrigin) -> Result<Keys, Error> {
        let keys = if *origin == KeyOrigin::Keychain {
            let text = self.keychain.get(&self.account()).map_err(|NoKeychain| Error::Keychain(SILENT))?;
            text.map(|text| parse(&text, KEYCHAIN)).transpose()?
        } else {
            self.in_file()?
        };
        keys.ok_or_else(|| Error::KeyMissing { path: self.key_file() })
    }

    /// Replaces the stored keys. Nothing is encrypted with a key before it is certain that it was stored.
    fn store(&self, origin: &KeyOrigin, keys: &[Arc<SealingKey>]) -> Result<(), Error> {
        self.refuse_abandoned()?;
        let text = to_text(keys);
        if *origin != KeyOrigin::Keychain {
            return self.write_file(&text);
        }
        self.keychain.set(&self.account(), &text).map_err(not_stored)?;
        match self.keychain.get(&self.account()).map_err(not_stored)? {
            Some(stored) if stored.expose_secret() == text.as_str() => Ok(()),
            _ => Err(not_stored(NoKeychain)),
        }
    }

    /// Writes the key file. What an interrupted write left may hold a key that is deleted now, and it is nobody else's,
    /// since one process at a time is at work here.
    fn write_file(&self, text: &str) -> Result<(), Error> {
        let path = self.key_file();
        for left in files::unfinished(&path)? {
            files::remove(&left)?;
        }
        files::write_private(&path, text.as_bytes())
    }

    /// Refuses to write for somebody who has been told that the keychain does not answer.
    fn refuse_abandoned(&self) -> Result<(), Error> {
        if self.abandoned.is_cancelled() { Err(Error::Keychain(SILENT)) } else { Ok(()) }
    }

    /// Returns the name of this data directory's keys in the keychain.
    fn account(&self) -> String {
        let path = self.data_dir.canonicalize().unwrap_or_else(|_| self.data_dir.clone());
        format!("sealing key of {}", path.display())
    }

    fn key_file(&self) -> PathBuf {
        self.data_dir.join("sealing.key")
    }
}

fn not_stored(_: NoKeychain) -> Error {
    Error::Keychain("did not store the sealing key")
}

/// Keys, and where they were found.
type Found = (Keys, KeyOrigin);

/// Reads a file of this program's own.
fn from_file(path: &Path) -> Result<Keys, Error> {
    files::refuse_exposed(path, "600")?;
    read(path)
}

/// Reads a file that the operator provides.
fn from_operator(path: &Path) -> Result<Keys, Error> {
    files::refuse_exposed_secret(path)?;
    read(path)
}

fn read(path: &Path) -> Result<Keys, Error> {
    let text = std::fs::read_to_string(path).map_err(|error| files::unusable(path, &error))?;
    parse(&text.into(), &format!("in {}", path.display()))
}

/// Parses one or several keys, separated by commas or white space.
fn parse(text: &SecretString, place: &str) -> Result<Keys, Error> {
    let keys = keys_in(text.expose_secret()).map(|text| SealingKey::parse(text, place).map(Arc::new));
    let keys = keys.collect::<Result<Vec<_>, _>>()?;
    if keys.is_empty() { Err(Error::KeyFormat(place.to_owned())) } else { Ok(keys) }
}

fn to_text(keys: &[Arc<SealingKey>]) -> Zeroizing<String> {
    let texts: Vec<_> = keys.iter().map(|key| key.to_text()).collect();
    let mut text = Zeroizing::new(String::with_capacity(texts.iter().map(|text| text.len() + 1).sum()));
    for (index, key) in texts.iter().enumerate() {
        text.push_str(if index == 0 { "" } else { "," });
        text.push_str(key);
    }
    text
}

#[cfg(test)]
mod tests;
