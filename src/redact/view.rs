//! A text with its escapes decoded: JSON, Python, Rust and Perl (`\"`, `\u00e4`, `\xe4`, `\u{e4}`, `\x{e4}`), C
//! (`\303\244`), HTML (`&quot;`, `&#34;`, `&#x22;`) and percent (`%22`, `%u20AC`), however deeply nested and mixed. It is
//! used for searching only. Each of its bytes is traced to its position in the text.

mod names;

use std::ops::Range;

use memchr::{memchr3, memchr3_iter, memrchr3};
use zeroize::Zeroizing;

use crate::text::is_format;

/// Number of decoding passes. Each encoder between the secret and the text needs one; backslashes that belong to the
/// secret may need a few more.
const MAX_LEVELS: usize = 16;

/// How white space is treated.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Blanks {
    Keep,
    /// White space is dropped before escapes are decoded, since a line break may split one.
    Drop,
}

/// Whether the byte is white space, a control character, or the plus sign that encodes a space in forms.
pub(super) const fn is_blank(byte: u8) -> bool {
    byte <= b' ' || byte == b'+' || byte == 0x7F
}

/// Whether the view of `text` may differ from `text` by more than blanks.
pub(super) fn is_worth_viewing(text: &str) -> bool {
    memchr3(b'\\', b'%', b'&', text.as_bytes()).is_some()
        || !text.is_ascii() && text.chars().any(|c| !c.is_ascii() && is_invisible(c))
}

fn is_invisible(c: char) -> bool {
    c.is_whitespace() || c.is_control() || is_format(c)
}

pub(super) struct View {
    blanks: Blanks,
    pub bytes: Zeroizing<Vec<u8>>,
    /// The position of each byte in the text.
    origins: Option<Vec<Origin>>,
}

type Origin = (u32, u32);

/// The character or byte that an escape encodes.
enum Unescaped {
    Byte(u8),
    Char(char),
}

impl View {
    pub fn of(text: &str, blanks: Blanks) -> Self {
        Self::build(text, blanks, None)
    }

    /// Builds the view with the origin of each byte. An origin has 32 bits: `text` must be shorter than 4 GiB.
    pub fn traced(text: &str, blanks: Blanks) -> Self {
        Self::build(text, blanks, Some(Vec::with_capacity(text.len())))
    }

    /// Returns the range of the text that `range` comes from, for a traced view.
    pub fn origin(&self, range: Range<usize>) -> Option<Range<usize>> {
        let origins = self.origins.as_ref()?.get(range)?;
        Some(origins.first()?.0 as usize..origins.last()?.1 as usize)
    }

    fn build(text: &str, blanks: Blanks, origins: Option<Vec<Origin>>) -> Self {
        let bytes = Zeroizing::new(Vec::with_capacity(text.len()));
        let mut view = Self { blanks, bytes, origins };
        let mut start = 0;
        for c in text.chars() {
            let end = start + c.len_utf8();
            view.push(c, (narrow(start), narrow(end)));
            start = end;
        }
        for _ in 0..MAX_LEVELS {
            match view.unescaped() {
                Some(next) => view = next.settled(),
                None => break,
            }
        }
        view
    }

    /// Decodes one level of escapes; `None` if there is none.
    fn unescaped(&self) -> Option<Self> {
        let mut from = 0;
        let mut next: Option<Self> = None;
        for at in memchr3_iter(b'\\', b'%', b'&', &self.bytes) {
            if at < from {
                continue;
            }
            let Some((length, unescaped)) = unescaped(&self.bytes[at..]) else { continue };
            let next = next.get_or_insert_with(|| self.empty());
            next.extend(self, from..at);
            from = at + length;
            let origin = self.origins.as_ref().map_or((0, 0), |all| (all[at].0, all[from - 1].1));
            match unescaped {
                Unescaped::Byte(part) => next.push_part(part, origin),
                Unescaped::Char(c) => next.push(c, origin),
            }
        }
        let mut next = next?;
        next.extend(self, from..self.bytes.len());
        Some(next)
    }

    /// Drops the unwanted characters whose bytes were decoded at different levels.
    fn settled(self) -> Self {
        let is_unwanted = |c: char| !c.is_ascii() && !self.is_wanted(c);
        if !self.bytes.utf8_chunks().any(|chunk| chunk.valid().chars().any(is_unwanted)) {
            return self;
        }
        let mut settled = self.empty();
        let mut at = 0;
        for chunk in self.bytes.utf8_chunks() {
            for c in chunk.valid().chars() {
                let range = at..at + c.len_utf8();
                at = range.end;
                if !is_unwanted(c) {
                    settled.extend(&self, range);
                }
            }
            let range = at..at + chunk.invalid().len();
            at = range.end;
            settled.extend(&self, range);
        }
        settled
    }

    /// Large enough for the next level: a decoded escape is never longer than the escape.
    fn empty(&self) -> Self {
        let origins = self.origins.as_ref().map(|origins| Vec::with_capacity(origins.len()));
        let bytes = Zeroizing::new(Vec::with_capacity(self.bytes.len()));
        Self { blanks: self.blanks, bytes, origins }
    }

    fn extend(&mut self, from: &Self, range: Range<usize>) {
        if let (Some(to), Some(from)) = (&mut self.origins, &from.origins) {
            to.extend_from_slice(&from[range.clone()]);
        }
        self.bytes.extend_from_slice(&from.bytes[range]);
    }

    fn push(&mut self, c: char, origin: Origin) {
        if self.is_wanted(c) {
            self.append(c.encode_utf8(&mut [0; 4]).as_bytes(), origin);
        }
    }

    /// Decodes a byte of a character that was escaped byte by byte.
    fn push_part(&mut self, part: u8, origin: Origin) {
        self.append(&[part], origin);
        let length = self.bytes.len();
        for start in (length.saturating_sub(4)..length).rev() {
            let last = std::str::from_utf8(&self.bytes[start..]).ok().and_then(|last| last.chars().next());
            if let Some(c) = last {
                if !self.is_wanted(c) {
                    self.bytes.truncate(start);
                    self.origins.iter_mut().for_each(|origins| origins.truncate(start));
                }
                return;
            }
        }
    }

    fn is_wanted(&self, c: char) -> bool {
        match u8::try_from(c) {
            Ok(byte) if byte.is_ascii() => self.blanks == Blanks::Keep || !is_blank(byte),
            _ => self.blanks == Blanks::Keep && c.is_whitespace() || !is_invisible(c),
        }
    }

    fn append(&mut self, bytes: &[u8], origin: Origin) {
        self.bytes.extend_from_slice(bytes);
        if let Some(origins) = &mut self.origins {
            origins.extend(bytes.iter().map(|_| origin));
        }
    }
}

fn narrow(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(u32::MAX)
}

/// Returns `text` without the escapes at its end that what follows may complete, such as `%4` or `\u00`.
pub(super) fn without_open_escapes(mut text: &[u8]) -> &[u8] {
    while let Some(at) = memrchr3(b'\\', b'%', b'&', text).filter(|&at| is_open(&text[at..])) {
        text = &text[..at];
    }
    text
}

/// Whether `tail` may be the start of a longer escape. Beginnings of HTML's names are not tried.
fn is_open(tail: &[u8]) -> bool {
    const ENDS: [&[u8]; 9] = [b"0", b"00", b"000", b"0000", b"00000000", b"}", b"0}", b";", b"0;"];
    const MAX_OPEN_BYTES: usize = 12;
    tail.len() <= MAX_OPEN_BYTES
        && ENDS.iter().any(|end| {
            let text = Zeroizing::new([tail, end].concat());
            unescaped(&text).is_some_and(|(length, _)| length > tail.len())
        })
}

/// Returns the length of the escape at the start of `text`, and its value.
fn unescaped(text: &[u8]) -> Option<(usize, Unescaped)> {
    use Unescaped::{Byte, Char};
    let byte = |digits: &[u8]| u8::try_from(number(digits, 16)?).ok().map(Byte);
    let code = |digits: &[u8]| char::from_u32(number(digits, 16)?).map(Char);
    match *text {
        [b'\\', b'u' | b'x', b'{', ..] => {
            let end = text.iter().take(10).position(|&b| b == b'}')?;
            Some((end + 1, code(&text[3..end])?))
        }
        [b'\\' | b'%', b'u', ..] => {
            code(text.get(2..6)?).map(|c| (6, c)).or_else(|| surrogates(text)).or_else(|| undecodable(text))
        }
        [b'%', high, low, ..] => Some((3, byte(&[high, low])?)),
        [b'\\', b'x', ..] => Some((4, byte(text.get(2..4)?)?)),
        [b'\\', a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', ..] => {
            Some((4, Byte((a & 7) << 6 | (b & 7) << 3 | c & 7)))
        }
        [b'\\', b'U', ..] => Some((10, code(text.get(2..10)?)?)),
        // This character may itself be escaped in another way.
        [b'\\', b'%' | b'&', ..] => None,
        [b'\\', meant, ..] if !meant.is_ascii() => Some((2, Byte(meant))),
        [b'\\', meant, ..] => {
            let meant = match meant {
                b'n' | b'r' => '\n',
                b't' | b'f' | b'v' => '\t',
                b'0' | b'a' | b'b' => '\0',
                other => char::from(other),
            };
            Some((2, Char(meant)))
        }
        [b'&', ..] => entity(text),
        _ => None,
    }
}

/// Decodes a surrogate pair such as `\ud83d\ude00` or `%uD83D%uDE00`.
fn surrogates(text: &[u8]) -> Option<(usize, Unescaped)> {
    let &[high, low] = text.get(..12)?.as_chunks::<6>().0 else { return None };
    let unit = |escape: [u8; 6]| {
        let digits = escape.starts_with(&text[..2]).then_some(&escape[2..])?;
        u16::try_from(number(digits, 16)?).ok()
    };
    let c = char::decode_utf16([unit(high)?, unit(low)?]).next()?.ok()?;
    Some((12, Unescaped::Char(c)))
}

/// Decodes a byte that was no text for Python: its `surrogateescape` writes the byte C3 as `\udcc3`.
fn undecodable(text: &[u8]) -> Option<(usize, Unescaped)> {
    let byte = u8::try_from(number(text.get(2..6)?, 16)?.checked_sub(0xDC00)?).ok()?;
    (!byte.is_ascii()).then_some((6, Unescaped::Byte(byte)))
}

fn entity(text: &[u8]) -> Option<(usize, Unescaped)> {
    const MAX_ENTITY_BYTES: usize = 2 + names::MAX_NAME_BYTES;
    let end = text.iter().take(MAX_ENTITY_BYTES).position(|&b| b == b';')?;
    let code = match &text[1..end] {
        [b'#', b'x' | b'X', digits @ ..] => number(digits, 16)?,
        [b'#', digits @ ..] => number(digits, 10)?,
        name => names::named(name)?,
    };
    Some((end + 1, Unescaped::Char(char::from_u32(code)?)))
}

fn number(digits: &[u8], radix: u32) -> Option<u32> {
    let digits = std::str::from_utf8(digits).ok().filter(|digits| !digits.starts_with('+'))?;
    u32::from_str_radix(digits, radix).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(text: &str) -> String {
        String::from_utf8_lossy(&View::of(text, Blanks::Drop).bytes).into_owned()
    }

    #[test]
    fn every_kind_of_escape_is_undone() {
        for (escaped, plain) in [
            (r#"a\"b\/c"#, r#"a"b/c"#),
            (r"\u00e4\u20AC\ud83d\ude00", "ä€😀"),
            (r"\xc3\xa4\x41\U0001F600\u{1f600}", "äA😀😀"),
            (r"\303\244\101\0", "äA"),
            (r"\x{f6}\x{20ac}\x{1F600}%u20AC%uD83D%uDE00", "ö€😀€😀"),
            (r"\udcc3\udcb6", "ö"),
            ("&quot;&#34;&#x22;&lt;&gt;&amp;&apos;", "\"\"\"<>&'"),
            ("&iexcl;G&auml;rtner&szlig;&yuml;&frac34;", "¡Gärtnerßÿ¾"),
            ("&alpha;&Omega;&sigmaf;&euro;&hellip;&thetasym;&zwnj;&Yuml;", "αΩς€…ϑŸ"),
            ("bcp&lowbar;&NewLine;&DiacriticalGrave;&QUOT;&lsqb;&hyphen;&bsol;", "bcp_`\"[‐\\"),
            ("%C3%a4%22", "ä\""),
            ("a b\tc\r\nd+e%20f\\ng\u{200b}h%E2%80%8Bi&nbsp;j", "abcdefghij"),
        ] {
            assert_eq!(seen(escaped), plain, "{escaped}");
        }
    }

    #[test]
    fn escapes_within_escapes_are_undone() {
        assert_eq!(seen(r#"\\\\\\\\\""#), r#"""#);
        assert_eq!(seen("%2525252541&amp;amp;lt;%5Cu0041&#x5c;x42%4%31%\n41"), "A<ABAA");
        // A line break within an escape, which is itself escaped.
        assert_eq!(seen(r"a%E2%8\n0%8Bb"), "ab");
    }

    #[test]
    fn what_is_no_escape_stays() {
        let text = r"100%;C:\users;&heart;&;%zz%uz\x{z}\u12";
        assert_eq!(seen(text), text);
    }

    #[test]
    fn escapes_that_may_go_on_are_taken_off_the_end() {
        for open in [
            r"\",
            "%",
            "%4",
            "%u",
            "%u20A",
            r"\x",
            r"\x4",
            r"\u",
            r"\u00e",
            r"\U0001F60",
            r"\u{",
            r"\x{1f6",
            r"\1",
            r"\30",
            "&#",
            "&#3",
            "&#x2",
            r"\%0",
            r"%\\\x4",
        ] {
            assert_eq!(without_open_escapes(format!("secret{open}").as_bytes()), b"secret", "{open}");
        }
        for closed in ["secret", "100%!", r"a\nb", "a%41", r"\x41", "&rain", "a&b", r"\8 %zz"] {
            assert_eq!(without_open_escapes(closed.as_bytes()), closed.as_bytes());
        }
    }

    #[test]
    fn what_is_found_is_traced_back() {
        let text = "ä \\u00e4 &#x5c;n%41. ";
        let view = View::traced(text, Blanks::Drop);
        assert_eq!(&view.bytes[..], "ääA.".as_bytes());
        let origin = |range| &text[view.origin(range).unwrap()];
        assert_eq!((origin(0..2), origin(2..4), origin(4..5)), ("ä", "\\u00e4", "%41"));
        assert_eq!(origin(2..6), "\\u00e4 &#x5c;n%41.");
    }
}
