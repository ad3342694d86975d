//! Other spellings of a secret, which programs give it without being asked: read in the wrong encoding, normalized
//! (Unicode Standard Annex 15), or with its quotes doubled or escaped within quotes.

use unicode_normalization::UnicodeNormalization as _;
use zeroize::Zeroizing;

pub(super) type Spelling = Zeroizing<String>;

/// How many bytes a spelling has at most for each byte of the secret.
const MAX_GROWTH: usize = 5;

/// The characters that the bytes 80 to 9F mean in Windows-1252 (WHATWG Encoding Standard); other bytes are Latin-1.
const WINDOWS_1252: [char; 32] = [
    '€', '\u{81}', '‚', 'ƒ', '„', '…', '†', '‡', 'ˆ', '‰', 'Š', '‹', 'Œ', '\u{8D}', 'Ž', '\u{8F}', '\u{90}',
    '‘', '’', '“', '”', '•', '–', '—', '˜', '™', 'š', '›', 'œ', '\u{9D}', 'ž', 'Ÿ',
];

/// How a quote is written within quotes: in CSV and SQL, in SQL and YAML, and in a shell in two ways.
const QUOTES: [(char, &str); 4] = [('"', "\"\""), ('\'', "''"), ('\'', r"'\''"), ('\'', r#"'"'"'"#)];

pub(super) fn spellings(secret: &str) -> Vec<Spelling> {
    let mut all = Vec::new();
    if !secret.is_ascii() {
        let bytes = secret.bytes();
        all.push(collected(secret, bytes.clone().map(char::from)));
        all.push(collected(secret, bytes.map(windows_1252)));
        all.push(collected(secret, secret.nfc()));
        all.push(collected(secret, secret.nfd()));
    }
    let quotes = QUOTES.iter().filter(|(quote, _)| secret.contains(*quote));
    all.extend(quotes.map(|(quote, written)| with_quotes(secret, *quote, written)));
    all
}

fn windows_1252(byte: u8) -> char {
    byte.checked_sub(0x80)
        .and_then(|at| WINDOWS_1252.get(usize::from(at)).copied())
        .unwrap_or_else(|| char::from(byte))
}

fn collected(secret: &str, chars: impl Iterator<Item = char>) -> Spelling {
    let mut spelling = buffer_for(secret);
    spelling.extend(chars);
    spelling
}

fn with_quotes(secret: &str, quote: char, written: &str) -> Spelling {
    let mut spelling = buffer_for(secret);
    for (at, part) in secret.split(quote).enumerate() {
        if at > 0 {
            spelling.push_str(written);
        }
        spelling.push_str(part);
    }
    spelling
}

/// A spelling must not grow, which would leave a copy behind.
fn buffer_for(secret: &str) -> Spelling {
    Zeroizing::new(String::with_capacity(MAX_GROWTH * secret.len()))
}
