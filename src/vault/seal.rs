//! Sealing records: XChaCha20-Poly1305 with a fresh 192-bit nonce. The format, the record's identity and its version
//! are associated data, so that no record passes for another or for a newer one.

use chacha20poly1305::{
    XChaCha20Poly1305,
    aead::{AeadInOut as _, KeyInit as _},
};
use zeroize::Zeroizing;

use super::{Error, RecordId, SealingKey};
use crate::secret::SecretBytes;

/// The first byte of everything sealed.
const FORMAT: u8 = 1;

const NONCE: usize = 24;

#[derive(Clone)]
pub struct Sealer(XChaCha20Poly1305);

impl Sealer {
    #[expect(clippy::needless_pass_by_value, reason = "the key ends here")]
    pub fn new(key: SealingKey) -> Self {
        Self(XChaCha20Poly1305::new(key.expose().into()))
    }

    /// Format, nonce, then ciphertext and tag.
    pub fn seal(&self, id: &RecordId, version: u64, plaintext: &[u8]) -> Result<Vec<u8>, Error> {
        let mut nonce = [0; NONCE];
        getrandom::fill(&mut nonce).map_err(|_| Error::NoRandomness)?;
        // With room for the tag, so that the plaintext is not left behind by a growing buffer.
        let mut buffer = Zeroizing::new(Vec::with_capacity(plaintext.len() + 16));
        buffer.extend_from_slice(plaintext);
        self.0
            .encrypt_in_place(&nonce.into(), &associated(id, version), &mut *buffer)
            .map_err(|_| Error::Tampered)?;
        Ok([&[FORMAT], &nonce[..], &buffer[..]].concat())
    }

    pub fn open(&self, id: &RecordId, version: u64, sealed: &[u8]) -> Result<SecretBytes, Error> {
        let (&format, rest) = sealed.split_first().ok_or(Error::Tampered)?;
        if format > FORMAT {
            return Err(Error::Newer);
        }
        let (nonce, ciphertext) = rest.split_first_chunk::<NONCE>().ok_or(Error::Tampered)?;
        let mut buffer = Zeroizing::new(ciphertext.to_vec());
        self.0
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

/// Each part behind its length, so that no two records have the same.
fn associated(id: &RecordId, version: u64) -> Vec<u8> {
    let mut data = vec![FORMAT];
    for part in [&id.owner, &id.origin] {
        data.extend_from_slice(&(part.len() as u64).to_be_bytes());
        data.extend_from_slice(part.as_bytes());
    }
    data.extend_from_slice(&version.to_be_bytes());
    data
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
    fn a_newer_format_is_told_apart() {
        let (id, key) = (id("a", "b"), sealer(1));
        let mut sealed = key.seal(&id, 1, b"x").unwrap();
        sealed[0] = FORMAT + 1;
        assert_eq!(key.open(&id, 1, &sealed).unwrap_err(), Error::Newer);
    }
}
