//! Text that somebody else wrote, made fit to be shown: without characters that move a cursor, reorder a line or stay
//! invisible. Redaction is not done here; see [`crate::redact`].

use std::borrow::Cow;

/// `text` without control and format characters; borrowed when there are none.
#[must_use]
pub fn printable(text: &str) -> Cow<'_, str> {
    if text.chars().any(is_unprintable) {
        text.chars().filter(|c| !is_unprintable(*c)).collect::<String>().into()
    } else {
        text.into()
    }
}

/// At most `longest` printable characters of `text`, with an ellipsis for the rest.
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

/// Unicode's control characters (Cc), line and paragraph separators.
fn is_control(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}' | '\u{2029}')
}

/// Unicode's format characters (Cf): bidirectional controls, joiners, zero-width spaces, tags and their kin. None of
/// them can be seen.
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
    fn an_excerpt_is_as_long_as_asked_for() {
        assert_eq!(excerpt("abc", 3), "abc");
        assert_eq!(excerpt("abcd", 3), "ab…");
        assert_eq!(excerpt("a\u{202e}bc", 3), "abc");
    }
}
