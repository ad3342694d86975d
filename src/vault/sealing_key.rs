//! A key that encrypts the vault, and how it is written.

use base64::{
    Engine as _,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use zeroize::Zeroizing;

use super::{
    Error,
    seal::{KeyId, keyed_hash},
};

const KEY_BYTES: usize = 32;

/// The 256-bit key; wiped when dropped.
pub struct SealingKey(Zeroizing<[u8; KEY_BYTES]>);

impl SealingKey {
    pub(super) fn from_bytes(bytes: [u8; KEY_BYTES]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    pub(super) fn expose(&self) -> &[u8; KEY_BYTES] {
        &self.0
    }

    /// Returns what names the key in the records that it encrypted.
    pub(super) fn id(&self) -> KeyId {
        keyed_hash(&self.0, b"bondmcp-server key id")
    }

    pub(super) fn random() -> Result<Self, Error> {
        let mut key = Zeroizing::new([0; KEY_BYTES]);
        getrandom::fill(&mut *key).map_err(|_| Error::NoRandomness)?;
        Ok(Self(key))
    }

    /// Parses 32 bytes in base64 (either alphabet, padded or not) or in hex.
    pub(super) fn parse(text: &str, place: &str) -> Result<Self, Error> {
        let bytes = if text.len() == 2 * KEY_BYTES { from_hex(text) } else { from_base64(text) };
        let bytes = Zeroizing::new(bytes.ok_or_else(|| Error::KeyFormat(place.to_owned()))?);
        let key = <[u8; KEY_BYTES]>::try_from(&bytes[..]).map_err(|_| Error::KeyFormat(place.to_owned()))?;
        Ok(Self::from_bytes(key))
    }

    pub(super) fn to_text(&self) -> Zeroizing<String> {
        Zeroizing::new(base64::engine::general_purpose::STANDARD.encode(*self.0))
    }
}

impl std::fmt::Debug for SealingKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SealingKey")
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

    assert_not_impl_any!(SealingKey: serde::Serialize, std::fmt::Display, Clone);

    #[test]
    fn a_key_is_read_in_every_usual_writing() {
        let key = [0xfb_u8; KEY_BYTES];
        for text in [
            base64::engine::general_purpose::STANDARD.encode(key),
            base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(key),
            "fb".repeat(KEY_BYTES),
            "FB".repeat(KEY_BYTES),
        ] {
            assert_eq!(SealingKey::parse(&text, "here").unwrap().expose(), &key, "{text}");
        }
    }

    #[test]
    fn a_key_of_another_length_is_refused_without_being_repeated() {
        for text in ["", "canary", &"ab".repeat(31), &"zz".repeat(KEY_BYTES), &"A".repeat(40)] {
            let error = SealingKey::parse(text, "here").unwrap_err();
            assert_eq!(error, Error::KeyFormat("here".into()));
        }
    }
}
