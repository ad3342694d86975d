//! Ids of users and API keys. They are shown, offered for pasting into a shell and put into URL paths, so they may
//! contain plain characters only: a response with another id is not BondMCP's.

use serde::{Deserialize as _, Deserializer, de};

const MAX_CHARS: usize = 128;

/// Whether `text` is a valid id: `[A-Za-z0-9_.:-]{1,128}`, but not dots alone, which could leave the URL path.
#[must_use]
pub fn is_id(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"_.:-".contains(&b);
    (1..=MAX_CHARS).contains(&text.len()) && text.bytes().all(plain) && text.bytes().any(|b| b != b'.')
}

/// Deserializes an id; for `#[serde(deserialize_with)]`.
pub(super) fn id<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let text = String::deserialize(deserializer)?;
    if is_id(&text) { Ok(text) } else { Err(de::Error::custom("not an id")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_has_nothing_but_plain_characters() {
        for id in ["key_1-a", "usr:1.2", "a", &"x".repeat(128)] {
            assert!(is_id(id), "{id}");
        }
        let hostile =
            ["", ".", "..", "a/b", "a?b", "a%2Fb", "a b", "key_1;curl x|sh #", "a\n", "\u{1b}[2J", "ä"];
        for id in hostile.into_iter().chain([&*"x".repeat(129)]) {
            assert!(!is_id(id), "{id:?}");
        }
    }
}
