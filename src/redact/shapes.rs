//! Finds text that has the shape of a secret: JWTs (RFC 7519: `eyJ` begins the base64url of `{"`) and keys with
//! BondMCP's prefixes.

use std::ops::Range;

use memchr::memchr2_iter;

const PREFIXES: [&[u8]; 3] = [b"eyJ", b"sk_", b"bcp_"];
/// Index of the JWT prefix in `PREFIXES`.
const JWT: usize = 0;

/// Shorter runs after a prefix are words or key previews.
const MIN_PART: usize = 5;
const MIN_KEY: usize = 12;

/// Length of a token's part on a line from which the line counts as wrapped.
const MIN_WRAPPED_LINE: usize = 40;

/// Finds the ranges that have the shape of a secret.
pub(super) fn find(text: &[u8], found: &mut Vec<Range<usize>>) {
    // A match of the same kind within an examined token ends with it; a match of another kind may be longer.
    let mut from = [0; PREFIXES.len()];
    for (kind, start) in prefixes(text) {
        if start < from[kind] {
            continue;
        }
        from[kind] = start + token(&text[start..]);
        let end = if kind == JWT { jwt(text, start) } else { key(text, start, PREFIXES[kind]) };
        if let Some(end) = end {
            found.push(start..end);
            from[kind] = end;
        }
    }
}

/// Returns the prefixes in `text` with their positions.
pub(super) fn prefixes(text: &[u8]) -> impl Iterator<Item = (usize, usize)> {
    // Each prefix ends with one of these bytes.
    memchr2_iter(b'J', b'_', text).filter_map(|last| {
        let until = &text[..=last];
        let kind = PREFIXES.iter().position(|prefix| until.ends_with(prefix))?;
        Some((kind, until.len() - PREFIXES[kind].len()))
    })
}

/// Returns what follows the prefix of a key.
pub(super) fn after_prefix(key: &str) -> Option<&str> {
    let prefix = PREFIXES[JWT + 1..].iter().find(|prefix| key.as_bytes().starts_with(prefix))?;
    key.get(prefix.len()..)
}

/// Returns the length of the base64url run at the start of `text`.
fn token(text: &[u8]) -> usize {
    text.iter().take_while(|byte| is_token(**byte)).count()
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')
}

/// Returns the end of the key that begins at `start`.
fn key(text: &[u8], start: usize, prefix: &[u8]) -> Option<usize> {
    let is_word = start > 0 && (text[start - 1].is_ascii_alphanumeric() || text[start - 1] == b'_');
    let length = token(&text[start..]);
    (!is_word && length >= prefix.len() + MIN_KEY).then_some(start + length)
}

/// Returns the end of the JWT that begins at `start`: a header, a payload and usually a signature.
fn jwt(text: &[u8], start: usize) -> Option<usize> {
    let header = token(&text[start..]);
    let payload = token(text[start + header..].strip_prefix(b".")?);
    if header < PREFIXES[JWT].len() + MIN_PART || payload < MIN_PART {
        return None;
    }
    let mut end = start + header + 1 + payload;
    if let Some(signature) = text[end..].strip_prefix(b".") {
        end += 1 + token(signature);
    }
    let mut line = start;
    while end - line >= MIN_WRAPPED_LINE
        && let Some((next, last)) = continued(text, end)
    {
        (line, end) = (next, last);
    }
    Some(end)
}

/// Returns the line after `end`, if a wrapped token fills it alone.
fn continued(text: &[u8], end: usize) -> Option<(usize, usize)> {
    let rest = &text[end..];
    let next = rest.strip_prefix(b"\r\n").or_else(|| rest.strip_prefix(b"\n"))?;
    let length = next.iter().take_while(|byte| is_token(**byte) || **byte == b'.').count();
    let alone = next.get(length).is_none_or(|byte| matches!(byte, b'\r' | b'\n' | b'"' | b'\''));
    let start = text.len() - next.len();
    (length > 0 && alone).then_some((start, start + length))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn redacted(text: &str) -> String {
        let mut found = Vec::new();
        find(text.as_bytes(), &mut found);
        let mut rest = text.to_owned();
        for range in found.into_iter().rev() {
            rest.replace_range(range, "*");
        }
        rest
    }

    #[test]
    fn a_wrapped_token_is_one_and_the_text_after_it_is_not() {
        let (header, payload, signature) = ("eyJhbGciOiJIUzI1NiJ9", "x".repeat(100), "s".repeat(43));
        let jwt = format!("{header}.{payload}.{signature}");
        let lines: Vec<&str> = [0..64, 64..128, 128..jwt.len()].map(|range| &jwt[range]).to_vec();
        assert_eq!(redacted(&format!("a\n{}\nThe rest.", lines.join("\n"))), "a\n*\nThe rest.");
        assert_eq!(redacted(&format!("\"{}\"", lines.join("\r\n"))), "\"*\"");
        assert_eq!(redacted(&format!("{jwt}\nThe rest.")), "*\nThe rest.");
    }

    #[test]
    fn a_secret_within_what_looks_like_another_is_found() {
        let jwt = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJ1c3JfMSJ9.c2lnbmF0dXJl";
        let mut found = Vec::new();
        find(format!("sk_{jwt}").as_bytes(), &mut found);
        assert!(found.contains(&(3..3 + jwt.len())), "{found:?}");
        assert_eq!(redacted("eyJabc-bcp_0123456789abcdef"), "eyJabc-*");
    }

    #[test]
    fn what_is_too_short_or_a_part_of_a_word_is_no_secret() {
        for text in ["eyJ.eyJ.eyJ", "eyJhbGci", "bcp_ab12...9xyz", "risk_of_something_else", "sk_short"] {
            assert_eq!(redacted(text), text);
        }
    }
}
