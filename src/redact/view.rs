//! A text with its escapes decoded: JSON, Python and Rust (`\"`, `\u00e4`, `\xe4`, `\u{e4}`), C (`\303\244`), HTML
//! (`&quot;`, `&#34;`, `&#x22;`) and percent (`%22`), however deeply nested and mixed. It is used for searching only. Each
//! of its bytes is traced to its position in the text.

use std::ops::Range;

use memchr::{memchr3, memchr3_iter};
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
                Some(next) => view = next,
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

    /// Has room for the next level: a decoded escape is never longer than the escape.
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

/// Returns the length of the escape at the start of `text`, and its value.
fn unescaped(text: &[u8]) -> Option<(usize, Unescaped)> {
    use Unescaped::{Byte, Char};
    let byte = |digits: &[u8]| u8::try_from(number(digits, 16)?).ok().map(Byte);
    let code = |digits: &[u8]| char::from_u32(number(digits, 16)?).map(Char);
    match *text {
        [b'%', high, low, ..] => Some((3, byte(&[high, low])?)),
        [b'\\', b'x', ..] => Some((4, byte(text.get(2..4)?)?)),
        [b'\\', a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', ..] => {
            Some((4, Byte((a & 7) << 6 | (b & 7) << 3 | c & 7)))
        }
        [b'\\', b'u', b'{', ..] => {
            let end = text.iter().take(10).position(|&b| b == b'}')?;
            Some((end + 1, code(&text[3..end])?))
        }
        [b'\\', b'u', ..] => code(text.get(2..6)?).map(|c| (6, c)).or_else(|| surrogates(text)),
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

/// Decodes a surrogate pair such as `\ud83d\ude00`.
fn surrogates(text: &[u8]) -> Option<(usize, Unescaped)> {
    let &[high, low] = text.get(..12)?.as_chunks::<6>().0 else { return None };
    let unit = |escape: [u8; 6]| {
        let digits = escape.starts_with(b"\\u").then_some(&escape[2..])?;
        u16::try_from(number(digits, 16)?).ok()
    };
    let c = char::decode_utf16([unit(high)?, unit(low)?]).next()?.ok()?;
    Some((12, Unescaped::Char(c)))
}

/// HTML's names of U+00A0 to U+00FF (HTML 4, 24.2.1): some encoders name all characters that have a name.
const LATIN1: [&str; 96] = [
    "nbsp", "iexcl", "cent", "pound", "curren", "yen", "brvbar", "sect", "uml", "copy", "ordf", "laquo",
    "not", "shy", "reg", "macr", "deg", "plusmn", "sup2", "sup3", "acute", "micro", "para", "middot",
    "cedil", "sup1", "ordm", "raquo", "frac14", "frac12", "frac34", "iquest", "Agrave", "Aacute", "Acirc",
    "Atilde", "Auml", "Aring", "AElig", "Ccedil", "Egrave", "Eacute", "Ecirc", "Euml", "Igrave", "Iacute",
    "Icirc", "Iuml", "ETH", "Ntilde", "Ograve", "Oacute", "Ocirc", "Otilde", "Ouml", "times", "Oslash",
    "Ugrave", "Uacute", "Ucirc", "Uuml", "Yacute", "THORN", "szlig", "agrave", "aacute", "acirc", "atilde",
    "auml", "aring", "aelig", "ccedil", "egrave", "eacute", "ecirc", "euml", "igrave", "iacute", "icirc",
    "iuml", "eth", "ntilde", "ograve", "oacute", "ocirc", "otilde", "ouml", "divide", "oslash", "ugrave",
    "uacute", "ucirc", "uuml", "yacute", "thorn", "yuml",
];

/// HTML's names of U+03B1 to U+03C9 (HTML 4, 24.3). With a capital they are those of U+0391 to U+03A9.
const GREEK: [&str; 25] = [
    "alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa", "lambda", "mu",
    "nu", "xi", "omicron", "pi", "rho", "sigmaf", "sigma", "tau", "upsilon", "phi", "chi", "psi", "omega",
];

/// HTML's other names of characters that are not in ASCII (HTML 4, 24.3 and 24.4).
const OTHERS: [(u32, &str); 103] = [
    (0x152, "OElig"),
    (0x153, "oelig"),
    (0x160, "Scaron"),
    (0x161, "scaron"),
    (0x178, "Yuml"),
    (0x192, "fnof"),
    (0x2C6, "circ"),
    (0x2DC, "tilde"),
    (0x3D1, "thetasym"),
    (0x3D2, "upsih"),
    (0x3D6, "piv"),
    (0x2002, "ensp"),
    (0x2003, "emsp"),
    (0x2009, "thinsp"),
    (0x200C, "zwnj"),
    (0x200D, "zwj"),
    (0x200E, "lrm"),
    (0x200F, "rlm"),
    (0x2013, "ndash"),
    (0x2014, "mdash"),
    (0x2018, "lsquo"),
    (0x2019, "rsquo"),
    (0x201A, "sbquo"),
    (0x201C, "ldquo"),
    (0x201D, "rdquo"),
    (0x201E, "bdquo"),
    (0x2020, "dagger"),
    (0x2021, "Dagger"),
    (0x2022, "bull"),
    (0x2026, "hellip"),
    (0x2030, "permil"),
    (0x2032, "prime"),
    (0x2033, "Prime"),
    (0x2039, "lsaquo"),
    (0x203A, "rsaquo"),
    (0x203E, "oline"),
    (0x2044, "frasl"),
    (0x20AC, "euro"),
    (0x2111, "image"),
    (0x2118, "weierp"),
    (0x211C, "real"),
    (0x2122, "trade"),
    (0x2135, "alefsym"),
    (0x2190, "larr"),
    (0x2191, "uarr"),
    (0x2192, "rarr"),
    (0x2193, "darr"),
    (0x2194, "harr"),
    (0x21B5, "crarr"),
    (0x21D0, "lArr"),
    (0x21D1, "uArr"),
    (0x21D2, "rArr"),
    (0x21D3, "dArr"),
    (0x21D4, "hArr"),
    (0x2200, "forall"),
    (0x2202, "part"),
    (0x2203, "exist"),
    (0x2205, "empty"),
    (0x2207, "nabla"),
    (0x2208, "isin"),
    (0x2209, "notin"),
    (0x220B, "ni"),
    (0x220F, "prod"),
    (0x2211, "sum"),
    (0x2212, "minus"),
    (0x2217, "lowast"),
    (0x221A, "radic"),
    (0x221D, "prop"),
    (0x221E, "infin"),
    (0x2220, "ang"),
    (0x2227, "and"),
    (0x2228, "or"),
    (0x2229, "cap"),
    (0x222A, "cup"),
    (0x222B, "int"),
    (0x2234, "there4"),
    (0x223C, "sim"),
    (0x2245, "cong"),
    (0x2248, "asymp"),
    (0x2260, "ne"),
    (0x2261, "equiv"),
    (0x2264, "le"),
    (0x2265, "ge"),
    (0x2282, "sub"),
    (0x2283, "sup"),
    (0x2284, "nsub"),
    (0x2286, "sube"),
    (0x2287, "supe"),
    (0x2295, "oplus"),
    (0x2297, "otimes"),
    (0x22A5, "perp"),
    (0x22C5, "sdot"),
    (0x2308, "lceil"),
    (0x2309, "rceil"),
    (0x230A, "lfloor"),
    (0x230B, "rfloor"),
    (0x2329, "lang"),
    (0x232A, "rang"),
    (0x25CA, "loz"),
    (0x2660, "spades"),
    (0x2663, "clubs"),
    (0x2665, "hearts"),
    (0x2666, "diams"),
];

/// Returns the character that HTML 4 names.
fn named(name: &[u8]) -> Option<u32> {
    let position = |names: &[&str], wanted: &[u8]| {
        names.iter().position(|known| known.as_bytes() == wanted).and_then(|at| u32::try_from(at).ok())
    };
    if let Some(at) = position(&LATIN1, name) {
        return Some(0xA0 + at);
    }
    let (small, is_capital) = (name.to_ascii_lowercase(), name.first()?.is_ascii_uppercase());
    if let Some(at) = position(&GREEK, &small).filter(|_| small[1..] == name[1..]) {
        return Some(if is_capital { 0x391 } else { 0x3B1 } + at);
    }
    OTHERS.iter().find(|(_, known)| known.as_bytes() == name).map(|(code, _)| *code)
}

fn entity(text: &[u8]) -> Option<(usize, Unescaped)> {
    const MAX_ENTITY_BYTES: usize = 12;
    let end = text.iter().take(MAX_ENTITY_BYTES).position(|&b| b == b';')?;
    let code = match &text[1..end] {
        b"amp" => u32::from('&'),
        b"lt" => u32::from('<'),
        b"gt" => u32::from('>'),
        b"quot" => u32::from('"'),
        b"apos" => u32::from('\''),
        [b'#', b'x' | b'X', digits @ ..] => number(digits, 16)?,
        [b'#', digits @ ..] => number(digits, 10)?,
        name => named(name)?,
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
            ("&quot;&#34;&#x22;&lt;&gt;&amp;&apos;", "\"\"\"<>&'"),
            ("&iexcl;G&auml;rtner&szlig;&yuml;&frac34;", "¡Gärtnerßÿ¾"),
            ("&alpha;&Omega;&sigmaf;&euro;&hellip;&thetasym;&zwnj;&Yuml;", "αΩς€…ϑŸ"),
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
    }

    #[test]
    fn what_is_no_escape_stays() {
        let text = r"100%;C:\users;&heart;&;%zz\u12";
        assert_eq!(seen(text), text);
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
