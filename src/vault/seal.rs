//! Encrypting records: XChaCha20-Poly1305 with a fresh 192-bit nonce. The format, the record's identity and its version
//! are associated data, so that no record can replace another or a newer one.

use chacha20poly1305::{
    XChaCha20Poly1305,
    aead::{AeadInOut as _, KeyInit as _},
};
use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::Zeroizing;

use super::{Error, RecordId, SealingKey};
use crate::secret::SecretBytes;

/// Format version: the first byte of every encrypted record.
const FORMAT: u8 = 1;

const NONCE_BYTES: usize = 24;

/// Encrypts records and derives their ids, which do not reveal their owners.
#[derive(Clone)]
pub struct Sealer {
    cipher: XChaCha20Poly1305,
    /// Key for the record ids, derived so that the sealing key itself has one use.
    naming_key: Zeroizing<[u8; 32]>,
}

/// A record's id in the database: a keyed hash of its owner and origin.
pub type RecordKey = [u8; 32];

impl Sealer {
    #[expect(clippy::needless_pass_by_value, reason = "takes the key, which is wiped when this returns")]
    pub fn new(key: SealingKey) -> Self {
        let naming_key = keyed_hash(key.expose(), b"bondmcp-server record names");
        Self { cipher: XChaCha20Poly1305::new(key.expose().into()), naming_key: Zeroizing::new(naming_key) }
    }

    /// Returns the id of a record in the database.
    pub fn record_key(&self, id: &RecordId) -> RecordKey {
        keyed_hash(&self.naming_key, &identity(id))
    }

    /// Encrypts a record: format, nonce, ciphertext and tag.
    pub fn seal(&self, id: &RecordId, version: u64, plaintext: &[u8]) -> Result<Vec<u8>, Error> {
        let mut nonce = [0; NONCE_BYTES];
        getrandom::fill(&mut nonce).map_err(|_| Error::NoRandomness)?;
        // Has room for the tag, since a growing buffer would leave a copy of the plaintext behind.
        let mut buffer = Zeroizing::new(Vec::with_capacity(plaintext.len() + 16));
        buffer.extend_from_slice(plaintext);
        self.cipher
            .encrypt_in_place(&nonce.into(), &associated(id, version), &mut *buffer)
            .map_err(|_| Error::Tampered)?;
        Ok([&[FORMAT], &nonce[..], &buffer[..]].concat())
    }

    pub fn open(&self, id: &RecordId, version: u64, sealed: &[u8]) -> Result<SecretBytes, Error> {
        let (&format, rest) = sealed.split_first().ok_or(Error::Tampered)?;
        if format > FORMAT {
            return Err(Error::Newer);
        }
        let (nonce, ciphertext) = rest.split_first_chunk::<NONCE_BYTES>().ok_or(Error::Tampered)?;
        let mut buffer = Zeroizing::new(ciphertext.to_vec());
        self.cipher
            .decrypt_in_place(nonce.into(), &associated(id, version), &mut *buffer)
            .map_err(|_| Error::Tampered)?;
        Ok(buffer.into())
    }
}

impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sealer")
    }
}

fn associated(id: &RecordId, version: u64) -> Vec<u8> {
    [&[FORMAT], &identity(id)[..], &version.to_be_bytes()].concat()
}

/// Encodes each part with its length, so that no two records have the same encoding.
fn identity(id: &RecordId) -> Vec<u8> {
    let mut data = Vec::new();
    for part in [&id.owner, &id.origin] {
        data.extend_from_slice(&(part.len() as u64).to_be_bytes());
        data.extend_from_slice(part.as_bytes());
    }
    data
}

/// Computes HKDF-SHA256 (RFC 5869) of a random key, with `info` as context.
fn keyed_hash(key: &[u8; 32], info: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    // Fails for outputs longer than 255 hashes only; this one is a single hash.
    let _ = Hkdf::<Sha256>::new(None, key).expand(info, &mut hash);
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(owner: &str, origin: &str) -> RecordId {
        RecordId { owner: owner.into(), origin: origin.into() }
    }

    fn sealer(byte: u8) -> Sealer {
        Sealer::new(SealingKey::from_bytes([byte; 32]))
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
        assert_eq!(sealer(2).open(&id("ab", "c"), 2, &sealed).unwrap_err(), Error::Tampered);
    }

    #[test]
    fn a_record_key_depends_on_the_sealing_key_and_on_the_whole_identity() {
        let known = sealer(1).record_key(&id("ab", "c"));
        assert_eq!(known, sealer(1).record_key(&id("ab", "c")));
        assert_ne!(known, [0; 32]);
        for other in [sealer(1).record_key(&id("a", "bc")), sealer(2).record_key(&id("ab", "c"))] {
            assert_ne!(known, other);
        }
    }

    #[test]
    fn a_changed_bit_or_a_missing_byte_is_noticed() {
        let (id, key) = (id("a", "b"), sealer(1));
        let sealed = key.seal(&id, 1, b"some plaintext").unwrap();
        for at in 1..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert_eq!(key.open(&id, 1, &changed).unwrap_err(), Error::Tampered);
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
}
