//! Password hashing with Argon2id. The cost is low, since tests wait for it and the sandbox protects nothing.

use argon2::{Algorithm, Argon2, Params, Version};
use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD};

use crate::secret::{ExposeSecret as _, SecretString};

/// Hashes a password to `salt$hash` in base64.
pub fn hash(password: &SecretString) -> String {
    let salt = uuid::Uuid::new_v4().into_bytes();
    format!("{}${}", STANDARD_NO_PAD.encode(salt), digest(password, &salt))
}

pub fn matches(password: &SecretString, hash: &str) -> bool {
    let Some((salt, expected)) = hash.split_once('$') else { return false };
    STANDARD_NO_PAD.decode(salt).is_ok_and(|salt| digest(password, &salt) == expected)
}

/// Whether a new password meets the API's rules.
pub fn is_weak(password: &SecretString) -> bool {
    let password = password.expose_secret();
    password.chars().count() < 8
        || !password.chars().any(char::is_alphabetic)
        || !password.chars().any(|c| c.is_ascii_digit())
}

fn digest(password: &SecretString, salt: &[u8]) -> String {
    let params = Params::new(1024, 1, 1, None).unwrap_or_default();
    let mut digest = [0; 32];
    let hashed = Argon2::new(Algorithm::Argon2id, Version::V0x13, params).hash_password_into(
        password.expose_secret().as_bytes(),
        salt,
        &mut digest,
    );
    match hashed {
        Ok(()) => STANDARD_NO_PAD.encode(digest),
        // A malformed hash matches no password.
        Err(_) => String::new(),
    }
}
