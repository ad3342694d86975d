//! Finds secrets in text that is about to leave: the ones this process holds, in every usual encoding, and whatever
//! has the shape of one. The egress guard, the log writer and the command line's errors all ask here.

use std::{
    borrow::Cow,
    collections::{BTreeSet, VecDeque},
    sync::{Arc, LazyLock, PoisonError, RwLock, RwLockReadGuard},
};

use base64::Engine as _;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use regex_lite::Regex;
use zeroize::Zeroizing;

use crate::secret::{ExposeSecret, SecretString};

/// What stands where a secret stood.
pub const REDACTED: &str = "[redacted]";

/// Shorter secrets are not searched for: they would occur by chance and a redaction would point at them.
const SHORTEST: usize = 6;

/// RFC 3986, 2.3: unreserved characters.
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// What ECMAScript's `encodeURIComponent` leaves alone.
const URI_COMPONENT: &AsciiSet =
    &UNRESERVED.remove(b'!').remove(b'\'').remove(b'(').remove(b')').remove(b'*');

/// `application/x-www-form-urlencoded`, but for the space.
const FORM: &AsciiSet = &NON_ALPHANUMERIC.remove(b'*').remove(b'-').remove(b'.').remove(b'_').remove(b' ');

/// A JWT (RFC 7519: `eyJ` begins the base64url of `{"`) and the prefixes of BondMCP keys.
static SHAPES: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(
        r"eyJ[A-Za-z0-9_-]{5,}\.[A-Za-z0-9_-]{5,}(?:\.[A-Za-z0-9_-]*)?|\b(?:sk|bcp)_[A-Za-z0-9_-]{12,}",
    )
    .ok()
});

/// So many secrets are remembered, the newest ones: a secret that was replaced may still be on its way through
/// somebody's answer, but not for ever.
const REMEMBERED: usize = 1024;

/// The secrets this process holds or has held lately. Clones share one memory.
#[derive(Clone, Default)]
pub struct Redactor {
    memory: Arc<RwLock<Memory>>,
}

#[derive(Default)]
struct Memory {
    needles: BTreeSet<Needle>,
    /// The secrets themselves, oldest first.
    order: VecDeque<SecretString>,
}

/// One encoding of one secret; longer ones sort first, so that no shorter one cuts them in half.
#[derive(PartialEq, Eq)]
struct Needle(Zeroizing<String>);

impl Needle {
    /// `str::contains` prepares itself for a long needle by looking at all of it, on every call; the first bytes alone
    /// are looked for at memory speed, and nearly always are not there.
    fn occurs_in(&self, text: &str) -> bool {
        const FIRST: usize = 16;
        let needle = self.0.as_str();
        let first = needle.get(..needle.floor_char_boundary(FIRST)).unwrap_or(needle);
        needle.len() <= text.len() && text.contains(first) && text.contains(needle)
    }
}

impl Ord for Needle {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (other.0.len(), &*self.0).cmp(&(self.0.len(), &*other.0))
    }
}

impl PartialOrd for Needle {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Redactor {
    /// From now on `secret` is looked for.
    pub fn remember(&self, secret: &SecretString) {
        if secret.expose_secret().len() < SHORTEST || self.read().knows(secret) {
            return;
        }
        let mut memory = self.memory.write().unwrap_or_else(PoisonError::into_inner);
        if memory.knows(secret) {
            return;
        }
        if memory.order.len() == REMEMBERED
            && let Some(oldest) = memory.order.pop_front()
        {
            for needle in encodings(oldest.expose_secret()) {
                memory.needles.remove(&needle);
            }
        }
        memory.needles.extend(encodings(secret.expose_secret()));
        memory.order.push_back(secret.clone());
    }

    /// `text` without secrets; borrowed when there was none.
    #[must_use]
    pub fn redact<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let mut text = Cow::Borrowed(text);
        for needle in &self.read().needles {
            if needle.occurs_in(&text) {
                text = Cow::Owned(text.replace(needle.0.as_str(), REDACTED));
            }
        }
        if !["eyJ", "sk_", "bcp_"].iter().any(|p| text.contains(p)) {
            return text;
        }
        match SHAPES.as_ref() {
            Some(shapes) if shapes.is_match(&text) => {
                Cow::Owned(shapes.replace_all(&text, REDACTED).into_owned())
            }
            Some(_) => text,
            None => Cow::Borrowed(REDACTED),
        }
    }

    fn read(&self) -> RwLockReadGuard<'_, Memory> {
        self.memory.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Memory {
    fn knows(&self, secret: &SecretString) -> bool {
        let raw = Needle(Zeroizing::new(secret.expose_secret().to_owned()));
        self.needles.contains(&raw)
    }
}

impl std::fmt::Debug for Redactor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Redactor")
    }
}

/// The secret itself and the forms in which programs usually pass text on.
fn encodings(secret: &str) -> Vec<Needle> {
    let mut forms = vec![secret.to_owned(), hex(secret, false), hex(secret, true)];
    if let Ok(json) = serde_json::to_string(secret) {
        forms.push(json[1..json.len() - 1].to_owned());
    }
    for set in [UNRESERVED, URI_COMPONENT, FORM, NON_ALPHANUMERIC] {
        let encoded = utf8_percent_encode(secret, set).to_string();
        forms.push(encoded.replace(' ', "+"));
        forms.push(lower_case_escapes(&encoded).replace(' ', "+"));
    }
    for offset in 0..3 {
        forms.extend(base64_at(secret.as_bytes(), offset));
    }
    forms.into_iter().filter(|form| form.len() >= SHORTEST).map(|form| Needle(Zeroizing::new(form))).collect()
}

fn hex(secret: &str, upper: bool) -> String {
    secret.bytes().map(|b| if upper { format!("{b:02X}") } else { format!("{b:02x}") }).collect()
}

fn lower_case_escapes(encoded: &str) -> String {
    let mut pieces = encoded.split('%');
    let mut out = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let (escape, rest) = piece.split_at(piece.len().min(2));
        out.push('%');
        out.push_str(&escape.to_ascii_lowercase());
        out.push_str(rest);
    }
    out
}

/// The characters of a base64 text that depend on the secret alone, when `offset` other bytes (modulo 3) stand before
/// it: `Basic dXNlcjpwYXNz` hides a password at any of the three.
fn base64_at(secret: &[u8], offset: usize) -> [String; 2] {
    let mut bytes = Zeroizing::new(vec![0_u8; offset]);
    bytes.extend_from_slice(secret);
    let first = (offset * 8).div_ceil(6);
    let last = bytes.len() * 8 / 6;
    [
        base64::engine::general_purpose::STANDARD_NO_PAD.encode(&*bytes)[first..last].to_owned(),
        base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(&*bytes)[first..last].to_owned(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
    use proptest::prelude::*;

    fn knowing(secret: &str) -> Redactor {
        let redactor = Redactor::default();
        redactor.remember(&secret.into());
        redactor
    }

    #[test]
    fn a_text_without_secrets_is_borrowed() {
        assert!(matches!(knowing("correct horse").redact("all is well"), Cow::Borrowed("all is well")));
    }

    #[test]
    fn shapes_are_redacted_without_being_known() {
        let redactor = Redactor::default();
        let jwt = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJ1c3JfMSJ9.c2lnbmF0dXJl";
        assert_eq!(
            redactor.redact(&format!("token {jwt}, key sk_live_0123456789abcdef!")),
            "token [redacted], key [redacted]!"
        );
    }

    #[test]
    fn words_that_end_like_a_prefix_are_no_keys() {
        let text = "cardiovascular_risk_assessment_v2 at risk_of_something_else";
        assert_eq!(Redactor::default().redact(text), text);
    }

    #[test]
    fn a_key_preview_is_no_secret() {
        let redactor = Redactor::default();
        assert_eq!(redactor.redact("bcp_ab12...9xyz"), "bcp_ab12...9xyz");
    }

    #[test]
    fn the_log_of_a_redactor_shows_nothing() {
        assert_eq!(format!("{:?}", knowing("correct horse")), "Redactor");
    }

    proptest! {
        #[test]
        fn no_encoding_of_a_known_secret_survives(
            secret in "[ -~äß€]{6,40}",
            before in "[a-z]{0,9}",
            after in "[a-z]{0,9}",
        ) {
            let redactor = knowing(&secret);
            let plain = format!("{before}{secret}{after}");
            let texts = [
                plain.clone(),
                serde_json::to_string(&plain).unwrap(),
                utf8_percent_encode(&plain, UNRESERVED).to_string(),
                utf8_percent_encode(&plain, URI_COMPONENT).to_string(),
                STANDARD.encode(&plain),
                URL_SAFE_NO_PAD.encode(&plain),
                hex(&plain, false),
            ];
            for text in texts {
                let redacted = redactor.redact(&text);
                prop_assert!(redacted.contains(REDACTED), "{text}");
                prop_assert_eq!(redactor.redact(&redacted), redacted.clone());
            }
        }
    }
}
