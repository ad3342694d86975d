//! The types for secrets, and their hashes and MACs. A secret is created at the edge of the program, and exposed only
//! where it is passed to the upstream, the vault or a child process. Never implement `Display`, `Serialize` or a
//! revealing `Debug` for a type that holds one.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit as _, Mac as _};
pub use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

/// Bytes that contain a secret in plain text, wiped when dropped.
#[derive(Default)]
pub struct SecretBytes(Zeroizing<Vec<u8>>);

impl SecretBytes {
    #[must_use]
    pub fn with_capacity(capacity: usize) -> Self {
        Self(Zeroizing::new(Vec::with_capacity(capacity)))
    }

    /// Appends `bytes`. When the buffer grows, the former one is wiped.
    pub fn append(&mut self, bytes: &[u8]) {
        let length = self.len() + bytes.len();
        if length > self.0.capacity() {
            let mut larger = Self::with_capacity(length.next_power_of_two());
            larger.0.extend_from_slice(self);
            *self = larger;
        }
        self.0.extend_from_slice(bytes);
    }
}

impl From<Zeroizing<Vec<u8>>> for SecretBytes {
    fn from(bytes: Zeroizing<Vec<u8>>) -> Self {
        Self(bytes)
    }
}

impl std::ops::Deref for SecretBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl AsRef<[u8]> for SecretBytes {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl std::fmt::Debug for SecretBytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SecretBytes")
    }
}

/// Serializes `value` into bytes that are wiped when dropped. `value` is a private view made for this one call:
/// the types that own secrets are not `Serialize`.
///
/// # Errors
/// When `value` cannot be JSON (a map whose keys are not strings); no value in this crate can fail.
pub fn to_secret_json(value: &impl Serialize) -> Result<SecretBytes, serde_json::Error> {
    // The size is computed first, since a growing buffer would leave copies of the secret behind.
    let mut counter = ByteCounter(0);
    serde_json::to_writer(&mut counter, value)?;
    let mut bytes = Zeroizing::new(Vec::with_capacity(counter.0));
    serde_json::to_writer(&mut *bytes, value)?;
    Ok(bytes.into())
}

/// Compares two secrets in constant time.
#[must_use]
pub fn same(a: &SecretString, b: &SecretString) -> bool {
    same_text(a.expose_secret(), b.expose_secret())
}

/// Compares two texts in constant time, such as the hashes of secrets.
#[must_use]
pub fn same_text(a: &str, b: &str) -> bool {
    a.as_bytes().ct_eq(b.as_bytes()).into()
}

/// Generates a secret of 256 random bits, in base64url.
///
/// # Panics
/// When the operating system provides no randomness; nothing can be secured then.
#[must_use]
#[expect(clippy::expect_used, reason = "without randomness no secret can be made")]
pub fn random() -> SecretString {
    let mut bytes = Zeroizing::new([0_u8; 32]);
    getrandom::fill(&mut *bytes).expect("the operating system gives randomness");
    URL_SAFE_NO_PAD.encode(*bytes).into()
}

/// Returns the HMAC-SHA-256 of `parts`, each with its length, so that no two lists have the same one.
#[must_use]
#[expect(
    clippy::expect_used,
    clippy::missing_panics_doc,
    reason = "HMAC takes a key of any length (RFC 2104)"
)]
pub fn mac(key: &[u8], parts: &[&[u8]]) -> Zeroizing<[u8; 32]> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("a key of any length");
    for part in parts {
        mac.update(&(part.len() as u64).to_be_bytes());
        mac.update(part);
    }
    Zeroizing::new(mac.finalize().into_bytes().into())
}

/// Returns the SHA-256 of `text` in base64url, by which a token is stored, and which is also PKCE's S256 (RFC 7636,
/// section 4.2). Tokens have 256 random bits, so they need neither a salt nor a slow hash.
#[must_use]
pub fn digest(text: &str) -> String {
    URL_SAFE_NO_PAD.encode(Sha256::digest(text))
}

struct ByteCounter(usize);

impl std::io::Write for ByteCounter {
    fn write(&mut self, buffer: &[u8]) -> std::io::Result<usize> {
        self.0 += buffer.len();
        Ok(buffer.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use static_assertions::assert_not_impl_any;

    assert_not_impl_any!(SecretString: Serialize, std::fmt::Display, Into<String>);
    // OWASP ASVS 5.0, 11.2.4: `==` would tell by its time how much of a guess is right; `same` does not.
    assert_not_impl_any!(SecretString: PartialEq<SecretString>, PartialEq<str>, PartialEq<String>);
    assert_not_impl_any!(SecretBytes: PartialEq<SecretBytes>, PartialEq<[u8]>, PartialEq<Vec<u8>>);
    assert_not_impl_any!(SecretBytes: Serialize, std::fmt::Display, Clone, Into<String>, Into<Vec<u8>>);

    #[test]
    fn a_secret_does_not_show_in_debug() {
        let secret = SecretString::from("hunter2-canary");
        assert!(!format!("{secret:?}").contains("hunter2"));
        let bytes = SecretBytes::from(Zeroizing::new(vec![104, 117]));
        assert_eq!(format!("{bytes:?}"), "SecretBytes");
    }

    #[test]
    fn bytes_are_appended_in_order_whatever_room_there_is() {
        for capacity in [0, 3, 64] {
            let mut bytes = SecretBytes::with_capacity(capacity);
            for part in ["", "hunter2", "-", "canary"] {
                bytes.append(part.as_bytes());
            }
            assert_eq!(&bytes[..], b"hunter2-canary");
        }
    }

    #[test]
    fn secret_json_is_written_without_growing_its_buffer() {
        let bytes = to_secret_json(&serde_json::json!({ "password": "hunter2-canary" })).unwrap();
        assert_eq!(bytes.0.capacity(), bytes.len());
        assert_eq!(&bytes[..], br#"{"password":"hunter2-canary"}"#);
    }

    #[test]
    fn random_secrets_differ() {
        assert!(!same(&random(), &random()));
    }

    #[test]
    fn a_mac_is_that_of_the_parts_with_their_lengths() {
        // HMAC-SHA-256 of eight bytes of length and the part, as Python's `hmac` computes it.
        let expected = "qelCLVZUhufyLp6jK0BSsmW9lXOExCQHfW7CxFpok-8";
        assert_eq!(URL_SAFE_NO_PAD.encode(*mac(b"key", &[b"one", b"two"])), expected);
        assert_ne!(mac(b"key", &[b"one", b"two"]), mac(b"key", &[b"onet", b"wo"]));
    }

    #[test]
    fn a_digest_is_the_challenge_of_rfc_7636_appendix_b() {
        let challenge = digest("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk");
        assert_eq!(challenge, "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM");
    }
}
