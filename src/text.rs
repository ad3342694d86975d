//! Makes foreign text safe to display: without characters that move a cursor, reorder a line or are invisible. It does
//! not redact; see [`crate::redact`].

use std::{borrow::Cow, fmt::Write as _};

/// The longest name that is shown, in characters: of a host, of an app, or of an API key.
pub const MAX_NAME_CHARS: usize = 64;

/// Returns `text` without control and format characters; borrowed if there are none.
#[must_use]
pub fn printable(text: &str) -> Cow<'_, str> {
    if text.chars().any(is_unprintable) {
        text.chars().filter(|c| !is_unprintable(*c)).collect::<String>().into()
    } else {
        text.into()
    }
}

/// Returns at most `longest` printable characters of `text`, with an ellipsis for the rest.
#[must_use]
pub fn excerpt(text: &str, longest: usize) -> String {
    let mut letters = text.chars().filter(|c| !is_unprintable(*c));
    let mut start: String = letters.by_ref().take(longest).collect();
    if letters.next().is_some() {
        start.pop();
        start.push('…');
    }
    start
}

/// Quotes `word` for a POSIX shell, for command lines that are offered for pasting.
#[must_use]
pub fn shell_word(word: &str) -> Cow<'_, str> {
    // A word with a NUL cannot be passed to a shell.
    shlex::try_quote(word).unwrap_or_default()
}

/// Returns `line` with control and format characters as Rust escapes, so that it stays one line and nothing is hidden.
#[must_use]
pub fn escaped(line: &str) -> Cow<'_, str> {
    escape(line, is_unprintable, |out, c| out.extend(c.escape_default()))
}

/// Returns serialized JSON with control and format characters as JSON escapes: the same value, safe to display. Line
/// breaks occur only between tokens and stay.
#[must_use]
pub fn escaped_json(json: &str) -> Cow<'_, str> {
    let to_escape = |c| c != '\n' && is_unprintable(c);
    escape(json, to_escape, |out, c| {
        for unit in c.encode_utf16(&mut [0; 2]) {
            let _ = write!(out, "\\u{unit:04x}");
        }
    })
}

fn escape(
    text: &str,
    to_escape: impl Fn(char) -> bool,
    write_escape: impl Fn(&mut String, char),
) -> Cow<'_, str> {
    if !text.chars().any(&to_escape) {
        return text.into();
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if to_escape(c) { write_escape(&mut out, c) } else { out.push(c) }
    }
    out.into()
}

/// Whether the character is a control character (Cc) or a line or paragraph separator.
fn is_control(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}' | '\u{2029}')
}

/// Whether the character is an invisible format character (Cf): bidirectional controls, joiners, zero-width spaces,
/// tags and the like.
#[must_use]
pub fn is_format(c: char) -> bool {
    matches!(c,
        '\u{AD}' | '\u{600}'..='\u{605}' | '\u{61C}' | '\u{6DD}' | '\u{70F}' | '\u{890}' | '\u{891}' | '\u{8E2}'
        | '\u{180E}' | '\u{200B}'..='\u{200F}' | '\u{202A}'..='\u{202E}' | '\u{2060}'..='\u{206F}' | '\u{FEFF}'
        | '\u{FFF9}'..='\u{FFFB}' | '\u{110BD}' | '\u{110CD}' | '\u{13430}'..='\u{1343F}'
        | '\u{1BCA0}'..='\u{1BCA3}' | '\u{1D173}'..='\u{1D17A}' | '\u{E0001}' | '\u{E0020}'..='\u{E007F}')
}

fn is_unprintable(c: char) -> bool {
    is_control(c) || is_format(c)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escape_sequences_newlines_and_bidirectional_controls_are_dropped() {
        assert_eq!(printable("\u{1b}]0;owned\u{7}a\r\nb\u{202e}c\u{200b}d\u{2028}e"), "]0;ownedabcde");
        assert!(matches!(printable("Zoë’s key, “ci”"), Cow::Borrowed(_)));
    }

    #[test]
    fn an_escaped_line_is_one_line_and_shows_what_was_in_it() {
        assert_eq!(escaped("a\n\u{1b}[31mb\u{202e}c"), "a\\n\\u{1b}[31mb\\u{202e}c");
        assert!(matches!(escaped("Zoë \\n"), Cow::Borrowed(_)));
    }

    #[test]
    fn escaped_json_is_the_same_value() {
        let value = serde_json::json!({"\u{202e}k": ["\u{9b}\u{7f}\u{e0041}\r\nZoë", 1]});
        let json = serde_json::to_string_pretty(&value).unwrap();
        let escaped = escaped_json(&json);
        assert!(escaped.chars().all(|c| c == '\n' || !is_unprintable(c)), "{escaped}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&escaped).unwrap(), value);
    }

    #[test]
    fn an_excerpt_is_as_long_as_asked_for() {
        assert_eq!(excerpt("abc", 3), "abc");
        assert_eq!(excerpt("abcd", 3), "ab…");
        assert_eq!(excerpt("a\u{202e}bc", 3), "abc");
    }
}
