//! Encrypting records: XChaCha20-Poly1305 with a fresh 192-bit nonce. A record's place in the vault and its version are
//! associated data, so that no record can replace another or a newer one.
//!
//! | format | bytes |
//! |---|---|
//! | 2 | format, id of the key, nonce, ciphertext of identity and plaintext |
//! | 1 | format, nonce, ciphertext of the plaintext; only the record's owner and origin, which are not in it, open it |

use std::sync::Arc;

use chacha20poly1305::{
    XChaCha20Poly1305,
    aead::{AeadInOut as _, KeyInit as _},
};
use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::Zeroizing;

use super::{Error, RecordId, RecordKind, SealingKey};
use crate::secret::SecretBytes;

/// Format version: the first byte of every encrypted record.
const FORMAT: u8 = 2;

/// The format of this program's first version.
const FIRST_FORMAT: u8 = 1;

const NONCE_BYTES: usize = 24;

/// Names a key in what it sealed, without giving anything away about it.
pub type KeyId = [u8; 8];

/// A record's id in the database: a keyed hash of its identity.
pub type RecordKey = [u8; 32];

/// The place of the naming secret, which is no record.
const NAMING_SECRET: RecordKey = [0; 32];

/// What the vault's known text was before it held the naming secret.
const FIRST_KNOWN_TEXT: &[u8] = b"bondmcp-server";

/// Encrypts records with the vault's current key, opens them with every known one, and derives their ids, which do not
/// reveal their owners.
#[derive(Clone)]
pub struct Sealer {
    /// The keys, the current one first.
    keys: Vec<Arc<SealingKey>>,
    /// Key for the record ids. It belongs to the vault and survives a change of the sealing key.
    naming_key: Zeroizing<[u8; 32]>,
    /// The same, ready for use: every look at an account needs a record's id.
    naming: Hkdf<Sha256>,
}

impl Sealer {
    /// Makes the sealer of a new vault, which encrypts with the first of `keys`.
    pub fn new(keys: &[Arc<SealingKey>]) -> Result<Self, Error> {
        let mut naming_key = Zeroizing::new([0; 32]);
        getrandom::fill(&mut *naming_key).map_err(|_| Error::NoRandomness)?;
        Ok(Self::with_naming_key(keys.to_vec(), naming_key))
    }

    /// Makes the sealer of an existing vault from its known text. The key that opens it is the vault's current one.
    pub fn of_vault(known_text: &[u8], keys: &[Arc<SealingKey>]) -> Result<Self, Error> {
        let opened = if known_text.first() == Some(&FIRST_FORMAT) {
            let id =
                RecordId { kind: RecordKind::ACCOUNT, owner: String::new(), origin: "key check".to_owned() };
            let mut opened = keys.iter().map(|key| (key, open_first_format(key, &id, 0, known_text)));
            opened.find(|(_, opened)| opened.as_ref().is_ok_and(|text| &text[..] == FIRST_KNOWN_TEXT))
        } else {
            let id = key_id(known_text)?;
            let key = keys.iter().find(|key| key.id() == id);
            key.map(|key| (key, open(key, &NAMING_SECRET, 0, known_text)))
        };
        let (current, text) = opened.ok_or(Error::WrongKey)?;
        let naming_key = match text? {
            text if &text[..] == FIRST_KNOWN_TEXT => {
                Zeroizing::new(keyed_hash(current.expose(), b"bondmcp-server record names"))
            }
            text => Zeroizing::new(text[..].try_into().map_err(|_| Error::Tampered)?),
        };
        let others = keys.iter().filter(|key| key.id() != current.id());
        Ok(Self::with_naming_key(std::iter::once(current).chain(others).cloned().collect(), naming_key))
    }

    fn with_naming_key(keys: Vec<Arc<SealingKey>>, naming_key: Zeroizing<[u8; 32]>) -> Self {
        Self { keys, naming: Hkdf::new(None, &*naming_key), naming_key }
    }

    /// Returns the vault's known text: the naming secret, encrypted with the current key.
    pub fn known_text(&self) -> Result<Vec<u8>, Error> {
        seal(self.current()?, &NAMING_SECRET, 0, &[&*self.naming_key])
    }

    /// Returns the id of a record in the database.
    pub fn record_key(&self, id: &RecordId) -> RecordKey {
        expanded(&self.naming, &identity(id))
    }

    pub fn seal(&self, id: &RecordId, version: u64, plaintext: &[u8]) -> Result<Vec<u8>, Error> {
        seal(self.current()?, &self.record_key(id), version, &[&identity_part(id), plaintext])
    }

    /// Opens a record; [`Error::UnknownKey`] means that it was encrypted with none of the known keys.
    pub fn open(&self, id: &RecordId, version: u64, sealed: &[u8]) -> Result<SecretBytes, Error> {
        let (found, plaintext) =
            self.open_row(&self.record_key(id), version, sealed, std::slice::from_ref(id))?;
        if found == *id { Ok(plaintext) } else { Err(Error::Tampered) }
    }

    /// Opens a record that was found by its id in the database; returns its identity too. One of the first format does
    /// not contain it: `candidates` are the identities that it can have, and without the right one it is
    /// [`Error::Unnamed`].
    pub fn open_row(
        &self,
        key: &RecordKey,
        version: u64,
        sealed: &[u8],
        candidates: &[RecordId],
    ) -> Result<(RecordId, SecretBytes), Error> {
        if sealed.first() == Some(&FIRST_FORMAT) {
            let id = candidates.iter().find(|id| self.record_key(id) == *key).ok_or(Error::Unnamed)?;
            let mut opened = self.keys.iter().map(|key| open_first_format(key, id, version, sealed));
            let opened = opened.find(Result::is_ok).unwrap_or(Err(Error::Tampered))?;
            return Ok((id.clone(), opened.into()));
        }
        let sealed_with = key_id(sealed)?;
        let sealing_key = self.keys.iter().find(|key| key.id() == sealed_with).ok_or(Error::UnknownKey)?;
        split_identity(open(sealing_key, key, version, sealed)?).ok_or(Error::Tampered)
    }

    /// Whether the vault's current key encrypted the record.
    pub fn is_current(&self, sealed: &[u8]) -> bool {
        key_id(sealed).is_ok_and(|id| self.current_id() == Some(id))
    }

    /// Whether a known key encrypted the record. In the first format the key is not named.
    pub fn knows_key_of(&self, sealed: &[u8]) -> bool {
        sealed.first() == Some(&FIRST_FORMAT)
            || key_id(sealed).is_ok_and(|id| self.keys.iter().any(|key| key.id() == id))
    }

    pub fn known_keys(&self) -> usize {
        self.keys.len()
    }

    pub fn current_id(&self) -> Option<KeyId> {
        self.keys.first().map(|key| key.id())
    }

    /// Returns the sealer of the same vault once `keys` are known, of which the first is the current one.
    pub fn with_keys(&self, keys: &[Arc<SealingKey>]) -> Self {
        Self { keys: keys.to_vec(), ..self.clone() }
    }

    /// Derives a key for `info` from each known key; the vault's current key comes first.
    pub fn derived_keys(&self, info: &[u8]) -> Vec<Zeroizing<[u8; 32]>> {
        self.keys.iter().map(|key| Zeroizing::new(keyed_hash(key.expose(), info))).collect()
    }

    fn current(&self) -> Result<&SealingKey, Error> {
        self.keys.first().map(|key| &**key).ok_or(Error::WrongKey)
    }
}

impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sealer")
    }
}

/// Encrypts the `parts` of a plaintext.
pub fn seal(key: &SealingKey, place: &RecordKey, version: u64, parts: &[&[u8]]) -> Result<Vec<u8>, Error> {
    let mut nonce = [0; NONCE_BYTES];
    getrandom::fill(&mut nonce).map_err(|_| Error::NoRandomness)?;
    // Has room for the tag, since a growing buffer would leave a copy of the plaintext behind.
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let mut buffer = Zeroizing::new(Vec::with_capacity(length + 16));
    for part in parts {
        buffer.extend_from_slice(part);
    }
    let head = [&[FORMAT][..], &key.id()].concat();
    cipher(key)
        .encrypt_in_place(&nonce.into(), &associated(&head, place, version), &mut *buffer)
        .map_err(|_| Error::Tampered)?;
    Ok([&head, &nonce[..], &buffer[..]].concat())
}

pub fn open(
    key: &SealingKey,
    place: &RecordKey,
    version: u64,
    sealed: &[u8],
) -> Result<Zeroizing<Vec<u8>>, Error> {
    let (head, rest) = sealed.split_at_checked(1 + size_of::<KeyId>()).ok_or(Error::Tampered)?;
    decrypt(key, &associated(head, place, version), rest)
}

fn open_first_format(
    key: &SealingKey,
    id: &RecordId,
    version: u64,
    sealed: &[u8],
) -> Result<Zeroizing<Vec<u8>>, Error> {
    let (head, rest) = sealed.split_at_checked(1).ok_or(Error::Tampered)?;
    decrypt(key, &associated(head, &identity(id), version), rest)
}

fn decrypt(key: &SealingKey, associated: &[u8], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, Error> {
    let (nonce, ciphertext) = sealed.split_first_chunk::<NONCE_BYTES>().ok_or(Error::Tampered)?;
    let mut buffer = Zeroizing::new(ciphertext.to_vec());
    cipher(key).decrypt_in_place(nonce.into(), associated, &mut *buffer).map_err(|_| Error::Tampered)?;
    Ok(buffer)
}

/// Returns the id of the key that encrypted a record of the current format.
fn key_id(sealed: &[u8]) -> Result<KeyId, Error> {
    match sealed.split_first() {
        Some((&FORMAT, rest)) => rest.first_chunk().copied().ok_or(Error::Tampered),
        Some((&format, _)) if format > FORMAT => Err(Error::Newer),
        _ => Err(Error::Tampered),
    }
}

fn cipher(key: &SealingKey) -> XChaCha20Poly1305 {
    XChaCha20Poly1305::new(key.expose().into())
}

fn associated(head: &[u8], place: &[u8], version: u64) -> Vec<u8> {
    [head, place, &version.to_be_bytes()].concat()
}

/// Encodes each part with its length, so that no two records have the same encoding. An account has two parts, as every
/// record had before there were kinds.
fn identity(id: &RecordId) -> Vec<u8> {
    let mut data = Vec::new();
    let kind = (id.kind != RecordKind::ACCOUNT).then(|| id.kind.as_str());
    for part in kind.into_iter().chain([&*id.owner, &*id.origin]) {
        push_part(&mut data, part.as_bytes());
    }
    data
}

/// Returns what stands before a record's plaintext.
pub fn identity_part(id: &RecordId) -> Vec<u8> {
    let mut part = Vec::new();
    push_part(&mut part, &identity(id));
    part
}

/// Splits off what [`identity_part`] wrote.
pub fn split_identity(mut opened: Zeroizing<Vec<u8>>) -> Option<(RecordId, SecretBytes)> {
    let (identity, plaintext) = split_part(&opened)?;
    let (id, start) = (parse_identity(identity)?, opened.len() - plaintext.len());
    opened.drain(..start);
    Some((id, opened.into()))
}

fn parse_identity(data: &[u8]) -> Option<RecordId> {
    let (mut parts, mut rest) = (Vec::new(), data);
    while !rest.is_empty() {
        let (part, after) = split_part(rest)?;
        parts.push(String::from_utf8(part.to_vec()).ok()?);
        rest = after;
    }
    match <[String; 3]>::try_from(parts) {
        Ok([kind, owner, origin]) => Some(RecordId { kind: RecordKind(kind.into()), owner, origin }),
        Err(parts) => {
            let [owner, origin] = parts.try_into().ok()?;
            Some(RecordId { kind: RecordKind::ACCOUNT, owner, origin })
        }
    }
}

fn push_part(data: &mut Vec<u8>, part: &[u8]) {
    data.extend_from_slice(&(part.len() as u64).to_be_bytes());
    data.extend_from_slice(part);
}

/// Splits off what [`push_part`] wrote.
fn split_part(data: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = data.split_first_chunk()?;
    rest.split_at_checked(usize::try_from(u64::from_be_bytes(*length)).ok()?)
}

/// Computes HKDF-SHA256 (RFC 5869) of a random key, with `info` as context.
pub fn keyed_hash<const BYTES: usize>(key: &[u8; 32], info: &[u8]) -> [u8; BYTES] {
    expanded(&Hkdf::new(None, key), info)
}

fn expanded<const BYTES: usize>(key: &Hkdf<Sha256>, info: &[u8]) -> [u8; BYTES] {
    let mut hash = [0; BYTES];
    // Fails for outputs longer than 255 hashes only; this one is a single hash.
    let _ = key.expand(info, &mut hash);
    hash
}

/// Encrypts as this program's first version did.
#[cfg(test)]
pub fn seal_first_format(key: &SealingKey, id: &RecordId, version: u64, plaintext: &[u8]) -> Vec<u8> {
    let (nonce, mut buffer) = ([7; NONCE_BYTES], plaintext.to_vec());
    let associated = associated(&[FIRST_FORMAT], &identity(id), version);
    cipher(key).encrypt_in_place(&nonce.into(), &associated, &mut buffer).unwrap();
    [&[FIRST_FORMAT][..], &nonce, &buffer].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(owner: &str, origin: &str) -> RecordId {
        RecordId { kind: RecordKind::ACCOUNT, owner: owner.into(), origin: origin.into() }
    }

    fn keys(bytes: &[u8]) -> Vec<Arc<SealingKey>> {
        bytes.iter().map(|byte| Arc::new(SealingKey::from_bytes([*byte; 32]))).collect()
    }

    fn sealer(byte: u8) -> Sealer {
        Sealer::with_naming_key(keys(&[byte]), Zeroizing::new([byte; 32]))
    }

    #[test]
    fn what_is_sealed_opens_again_and_never_looks_the_same() {
        let (id, key) = (id("a", "b"), sealer(1));
        let one = key.seal(&id, 1, b"canary").unwrap();
        assert_eq!(&key.open(&id, 1, &one).unwrap()[..], b"canary");
        assert_ne!(one, key.seal(&id, 1, b"canary").unwrap());
        assert!(!one.windows(6).any(|window| window == b"canary"));
    }

    #[test]
    fn a_record_opens_under_its_own_identity_and_version_alone() {
        let sealed = sealer(1).seal(&id("ab", "c"), 2, b"x").unwrap();
        for (other, version) in [(id("a", "bc"), 2), (id("ab", "d"), 2), (id("ab", "c"), 3)] {
            assert_eq!(sealer(1).open(&other, version, &sealed).unwrap_err(), Error::Tampered);
        }
        assert_eq!(sealer(2).open(&id("ab", "c"), 2, &sealed).unwrap_err(), Error::UnknownKey);
    }

    #[test]
    fn a_record_key_depends_on_the_naming_key_and_on_the_whole_identity() {
        let known = sealer(1).record_key(&id("ab", "c"));
        assert_eq!(known, sealer(1).record_key(&id("ab", "c")));
        assert_ne!(known, [0; 32]);
        for other in [sealer(1).record_key(&id("a", "bc")), sealer(2).record_key(&id("ab", "c"))] {
            assert_ne!(known, other);
        }
    }

    #[test]
    fn a_kind_belongs_to_the_identity_and_accounts_keep_the_one_from_before_there_were_kinds() {
        let of_kind = |kind: &'static str| RecordId { kind: RecordKind::new(kind), ..id("a", "b") };
        let ids = [of_kind("account"), of_kind("other"), id("a", ""), id("other", "a")];
        for (at, one) in ids.iter().enumerate() {
            assert_eq!(parse_identity(&identity(one)).as_ref(), Some(one));
            for other in &ids[at + 1..] {
                assert_ne!(sealer(1).record_key(one), sealer(1).record_key(other));
                let sealed = sealer(1).seal(one, 1, b"x").unwrap();
                assert_eq!(sealer(1).open(other, 1, &sealed).unwrap_err(), Error::Tampered);
            }
        }
        assert_eq!(identity(&ids[0]), b"\0\0\0\0\0\0\0\x01a\0\0\0\0\0\0\0\x01b");
    }

    #[test]
    fn a_changed_bit_or_a_missing_byte_is_noticed() {
        let (id, key) = (id("a", "b"), sealer(1));
        let sealed = key.seal(&id, 1, b"some plaintext").unwrap();
        for at in 1..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            let error = key.open(&id, 1, &changed).unwrap_err();
            assert_eq!(error, if at <= size_of::<KeyId>() { Error::UnknownKey } else { Error::Tampered });
        }
        for length in 0..sealed.len() {
            assert_eq!(key.open(&id, 1, &sealed[..length]).unwrap_err(), Error::Tampered);
        }
    }

    #[test]
    fn a_newer_format_is_distinguished() {
        let (id, key) = (id("a", "b"), sealer(1));
        let mut sealed = key.seal(&id, 1, b"x").unwrap();
        sealed[0] = FORMAT + 1;
        assert_eq!(key.open(&id, 1, &sealed).unwrap_err(), Error::Newer);
    }

    #[test]
    fn the_first_format_still_opens_with_any_known_key() {
        let (id, keys) = (id("a", "b"), keys(&[1, 2]));
        let record = seal_first_format(&keys[1], &id, 3, b"an old record");
        let sealer = Sealer::with_naming_key(keys, Zeroizing::default());
        assert_eq!(&sealer.open(&id, 3, &record).unwrap()[..], b"an old record");
        assert_eq!(sealer.open(&id, 4, &record).unwrap_err(), Error::Tampered);
    }

    #[test]
    fn the_key_of_the_known_text_is_the_current_one_wherever_it_stands() {
        let vault = Sealer::new(&keys(&[1, 2])).unwrap();
        let known_text = vault.known_text().unwrap();
        for known in [&[1, 2][..], &[2, 1], &[3, 2, 1]] {
            let sealer = Sealer::of_vault(&known_text, &keys(known)).unwrap();
            assert_eq!(sealer.record_key(&id("a", "b")), vault.record_key(&id("a", "b")));
            let record = sealer.seal(&id("a", "b"), 1, b"x").unwrap();
            assert_eq!(key_id(&record).unwrap(), keys(&[1])[0].id());
        }
        for unknown in [&[][..], &[2, 3]] {
            assert_eq!(Sealer::of_vault(&known_text, &keys(unknown)).unwrap_err(), Error::WrongKey);
        }
    }

    #[test]
    fn a_vault_of_the_first_format_keeps_its_names() {
        let check = id("", "key check");
        let known_text = seal_first_format(&keys(&[1])[0], &check, 0, FIRST_KNOWN_TEXT);
        let sealer = Sealer::of_vault(&known_text, &keys(&[2, 1])).unwrap();
        let naming_key: [u8; 32] = keyed_hash(&[1; 32], b"bondmcp-server record names");
        let name: RecordKey = keyed_hash(&naming_key, &identity(&id("a", "b")));
        assert_eq!(sealer.record_key(&id("a", "b")), name);
        // With another key the vault keeps them too.
        let moved = Sealer { keys: keys(&[2]), ..sealer };
        let moved = Sealer::of_vault(&moved.known_text().unwrap(), &keys(&[2])).unwrap();
        assert_eq!(moved.record_key(&id("a", "b")), name);
        assert_eq!(Sealer::of_vault(&known_text, &keys(&[2])).unwrap_err(), Error::WrongKey);
    }

    #[test]
    fn derived_keys_differ_by_purpose_and_by_key() {
        let sealer = Sealer::of_vault(&sealer(2).known_text().unwrap(), &keys(&[1, 2])).unwrap();
        let one = sealer.derived_keys(b"one");
        assert_eq!(one[0], Zeroizing::new(keyed_hash(&[2; 32], b"one")));
        assert_eq!(one.len(), 2);
        assert_ne!(one[0], one[1]);
        assert_ne!(one[0], sealer.derived_keys(b"two")[0]);
    }
}
