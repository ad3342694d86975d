//! The forms of a secret that are searched for. Escapes are decoded in the text (see [`super::view`]), so the forms are
//! the secret, its parts, other spellings, and encodings that cannot be decoded because their start is unknown.

mod spellings;

use std::{iter, sync::Arc};

use base64::{Engine as _, engine::general_purpose};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Number;
use zeroize::Zeroizing;

use self::spellings::spellings;
use super::{
    shapes,
    view::{Blanks, View, is_blank, without_open_escapes},
};
use crate::secret::to_secret_json;

/// Length below which secrets are not searched for: they would occur by chance, and a redaction would reveal them.
pub const MIN_SECRET_BYTES: usize = 6;

/// Length above which only the last bytes of a secret are searched for, so that huge tokens cannot exhaust the memory.
/// No header carries a token of that size, and a token without its end is useless.
const MAX_SECRET_BYTES: usize = 4096;

/// Length below which the parts of a JWT or a key are not searched for. The pieces of a key
/// have this length.
const MIN_PART_BYTES: usize = 16;

/// A piece of a key is searched for at every so many bytes of it. So 19 bytes of a key hold a piece wherever they begin,
/// and at most three are left on either side.
const PIECE_STEP: usize = 4;

/// RFC 3986, 2.3: unreserved characters.
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// Characters that ECMAScript's `encodeURIComponent` does not escape.
const URI_COMPONENT: &AsciiSet =
    &UNRESERVED.remove(b'!').remove(b'\'').remove(b'(').remove(b')').remove(b'*');

pub(super) type Form = Zeroizing<Vec<u8>>;

/// Returns every form that reveals `secret`, without blanks; none if the secret is too short.
pub(super) fn forms(secret: &str) -> Vec<Arc<Form>> {
    let mut forms = Forms::default();
    if secret.starts_with("eyJ") {
        // All tokens of an issuer share one header.
        for part in secret.split('.').skip(1).filter(|part| part.len() >= MIN_PART_BYTES) {
            forms.add(end(part).as_bytes());
        }
    }
    // The prefix of a key is public.
    let key = shapes::after_prefix(secret).map(end).filter(|key| key.len() >= MIN_PART_BYTES);
    if let Some(key) = key {
        for piece in without_blanks(key.as_bytes()).windows(MIN_PART_BYTES).step_by(PIECE_STEP) {
            forms.add(piece);
        }
    }
    let secret = end(secret);
    if without_blanks(secret.as_bytes()).len() < MIN_SECRET_BYTES {
        return forms.shared();
    }
    let spellings = spellings(secret);
    let texts = || iter::once(secret).chain(spellings.iter().map(|spelling| spelling.as_str()));
    let mut written = escaped(secret);
    written.extend(texts().chain(key).map(|text| Zeroizing::new(text.as_bytes().to_vec())));
    written.push(one_byte_characters(secret.as_bytes()));
    written.sort_by(|a, b| a.cmp(b));
    written.dedup();
    for text in &written {
        forms.add_encoded(text);
    }
    for text in texts() {
        forms.add_viewed(text);
    }
    if secret.bytes().all(|b| b.is_ascii_digit()) {
        // The secret as a number.
        forms.add(secret.trim_start_matches('0').as_bytes());
    }
    if let Some(number) = read_as_number(secret) {
        forms.add(&number);
    }
    forms.shared()
}

/// Returns the secret with its special characters escaped. An escape may begin before the secret and end within it, so
/// that decoding it alters the secret; and what is in base64 or hex may have been escaped before.
fn escaped(secret: &str) -> Vec<Form> {
    let mut escaped = vec![form_urlencoded(secret)];
    if let Ok(json) = to_secret_json(&secret) {
        let json = &json[1..json.len() - 1];
        escaped.push(Zeroizing::new(json.to_vec()));
        // As Python's `json.dumps` and PHP's `json_encode` write it.
        escaped.extend([false, true].map(|escapes_slash| ascii_json(json, escapes_slash)));
    }
    for set in [UNRESERVED, URI_COMPONENT] {
        escaped.extend([percent(secret, set, false), percent(secret, set, true)]);
    }
    escaped
}

/// Returns the secret as our JSON parser writes it after reading it as a number: `123456.7000` as `123456.7`.
fn read_as_number(secret: &str) -> Option<Form> {
    let texts = [secret, secret.trim_start_matches('0')];
    let number = texts.into_iter().find_map(|text| serde_json::from_str::<Number>(text).ok())?;
    let number = Zeroizing::new(number.to_string());
    // Others write a whole number without its fraction.
    let number = number.strip_suffix(".0").unwrap_or(&number);
    Some(Zeroizing::new(number.as_bytes().to_vec()))
}

fn end(secret: &str) -> &str {
    &secret[secret.ceil_char_boundary(secret.len().saturating_sub(MAX_SECRET_BYTES))..]
}

#[derive(Default)]
struct Forms(Vec<Form>);

impl Forms {
    fn add(&mut self, form: &[u8]) {
        let form = without_blanks(form);
        if form.len() >= MIN_SECRET_BYTES && !self.0.contains(&form) {
            self.0.push(form);
        }
    }

    /// Adds the text, and its encodings in hex and base64.
    fn add_encoded(&mut self, text: &[u8]) {
        self.add(text);
        self.add(&hex(text, b"0123456789abcdef"));
        self.add(&hex(text, b"0123456789ABCDEF"));
        for offset in 0..3 {
            let [standard, url_safe] = base64_at(text, offset);
            self.add(&standard);
            self.add(&url_safe);
        }
    }

    /// Adds what the view of a text holds in place of `text`. What follows it there may complete an escape at its end.
    fn add_viewed(&mut self, text: &str) {
        self.add_view(text);
        let closed = without_open_escapes(text.as_bytes()).len();
        if closed < text.len() {
            self.add_view(&text[..closed]);
        }
    }

    fn add_view(&mut self, text: &str) {
        let view = View::of(text, Blanks::Drop).bytes;
        for view in [&view, without_open_escapes(&view)] {
            self.add(&one_byte_characters(view));
            self.add(view);
        }
    }

    /// Wraps each form so that several sets of needles share it.
    fn shared(self) -> Vec<Arc<Form>> {
        self.0.into_iter().map(Arc::new).collect()
    }
}

fn without_blanks(bytes: &[u8]) -> Form {
    let mut rest = Zeroizing::new(Vec::with_capacity(bytes.len()));
    rest.extend(bytes.iter().filter(|byte| !is_blank(**byte)));
    rest
}

/// Escapes in a JSON string what is not ASCII, and the slash if `escapes_slash`.
fn ascii_json(json: &[u8], escapes_slash: bool) -> Form {
    let mut ascii = Zeroizing::new(Vec::with_capacity(6 * json.len()));
    for c in json.utf8_chunks().flat_map(|chunk| chunk.valid().chars()) {
        match c {
            '/' if escapes_slash => ascii.extend(b"\\/"),
            c if c.is_ascii() => ascii.push(c as u8),
            c => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    ascii.extend(b"\\u");
                    ascii.extend_from_slice(&hex(&unit.to_be_bytes(), b"0123456789abcdef"));
                }
            }
        }
    }
    ascii
}

fn percent(secret: &str, set: &'static AsciiSet, lower: bool) -> Form {
    let mut encoded = Zeroizing::new(String::with_capacity(3 * secret.len()));
    for piece in utf8_percent_encode(secret, set) {
        if lower && piece.starts_with('%') {
            encoded.extend(piece.chars().map(|c| c.to_ascii_lowercase()));
        } else {
            encoded.push_str(piece);
        }
    }
    Zeroizing::new(std::mem::take(&mut *encoded).into_bytes())
}

fn form_urlencoded(secret: &str) -> Form {
    let mut encoded = Zeroizing::new(Vec::with_capacity(3 * secret.len()));
    for piece in url::form_urlencoded::byte_serialize(secret.as_bytes()) {
        encoded.extend_from_slice(piece.as_bytes());
    }
    encoded
}

fn hex(bytes: &[u8], digits: &[u8; 16]) -> Form {
    let mut hex = Zeroizing::new(Vec::with_capacity(2 * bytes.len()));
    for byte in bytes {
        hex.extend([digits[usize::from(byte >> 4)], digits[usize::from(byte & 0xF)]]);
    }
    hex
}

/// Returns the base64 characters that depend on the secret alone, when `offset` other bytes (modulo 3) precede it:
/// `Basic dXNlcjpwYXNz` can hold a password at any of the three offsets.
fn base64_at(secret: &[u8], offset: usize) -> [Form; 2] {
    let mut bytes = Zeroizing::new(Vec::with_capacity(offset + secret.len()));
    bytes.resize(offset, 0);
    bytes.extend_from_slice(secret);
    let first = (offset * 8).div_ceil(6);
    let last = bytes.len() * 8 / 6;
    [general_purpose::STANDARD_NO_PAD, general_purpose::URL_SAFE_NO_PAD].map(|engine| {
        let encoded = Zeroizing::new(engine.encode(&*bytes));
        Zeroizing::new(encoded.as_bytes()[first..last].to_vec())
    })
}

/// Encodes as in `'\xe4'`, where the view has the two bytes of `ä`.
fn one_byte_characters(view: &[u8]) -> Form {
    let mut bytes = Zeroizing::new(Vec::with_capacity(view.len()));
    for chunk in view.utf8_chunks() {
        for c in chunk.valid().chars() {
            match u8::try_from(c) {
                Ok(byte) => bytes.push(byte),
                Err(_) => bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        bytes.extend_from_slice(chunk.invalid());
    }
    bytes
}
