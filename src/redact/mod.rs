//! Finds secrets in outgoing text: the secrets that this process has or recently had, in every usual encoding and
//! escaping, and text that has the shape of a secret. The egress guard, the log writer and the command line use it.
//!
//! A secret of fewer than six bytes, blanks not counted, is not searched for: it would occur by chance. Text that was
//! encoded to evade the search (reversed, compressed, base85) is not decoded. Copies of secrets made here are wiped
//! when dropped.

mod forms;
mod known;
mod needles;
mod shapes;
mod view;

use std::{borrow::Cow, ops::Range, sync::Arc};

use memchr::memmem;
use serde_json::{Map, Value};
use zeroize::Zeroizing;

pub use self::forms::MIN_SECRET_BYTES;
use self::{
    known::{Index, Scope},
    needles::{Needles, TooMuchWork},
    view::{Blanks, View},
};
use crate::text::excerpt;

/// The replacement for a secret.
pub const REDACTED: &str = "[redacted]";

/// Maximum number of passes. The text around a secret may form another one with its replacement; a text that is not
/// clean after this many passes was crafted.
const MAX_PASSES: usize = 8;

/// Of a longer text, in bytes, only the beginning is searched for the few characters of it that are shown.
const MAX_EXCERPTED_BYTES: usize = 16 << 10;

/// What is shown of such a text if a secret was found in it. Another one may have been cut.
const TOO_LONG: &str = "[too long to show]";

/// The secrets that this process, or one of its owners, has or recently had. Clones share them.
///
/// The process-wide redactor ([`Redactor::default`]) finds its own secrets and those of all scopes: it is for logs and
/// the terminal, which belong to the operator. A scope finds its own and the process-wide ones. If it found those of
/// other owners, somebody could test a guess at another's secret by whether it is redacted.
#[derive(Clone, Default)]
pub struct Redactor {
    scope: Arc<Scope>,
}

impl Redactor {
    /// Returns a number that changes with the set of secrets. Text that was clean at one revision need not be searched
    /// again before the next; read the revision before cleaning.
    #[must_use]
    pub fn revision(&self) -> u64 {
        // Both numbers only grow, so their sum changes with each.
        self.search(|indexes| indexes.into_iter().map(|index| index.revision).sum())
    }

    /// Returns `text` without secrets; borrowed if there was none. Clean text is unchanged.
    #[must_use]
    pub fn redact<'a>(&self, text: &'a str) -> Cow<'a, str> {
        self.search(|indexes| {
            let mut clean = Cow::Borrowed(text);
            for _ in 0..MAX_PASSES {
                match secrets_in(&clean, indexes) {
                    Ok(found) if found.is_empty() => return clean,
                    Ok(found) => clean = Cow::Owned(replaced(&clean, &found)),
                    Err(TooMuchWork) => break,
                }
            }
            Cow::Borrowed(REDACTED)
        })
    }

    /// Returns at most `longest` printable characters of `text` without secrets, in little time however long it is. It
    /// is searched before it is shortened, since the start of a secret is not recognised.
    #[must_use]
    pub fn excerpt(&self, text: &str, longest: usize) -> String {
        if text.len() <= MAX_EXCERPTED_BYTES {
            return excerpt(&self.redact(text), longest);
        }
        let start = excerpt(text, MAX_EXCERPTED_BYTES / 4);
        match self.redact(&start) {
            Cow::Borrowed(start) => excerpt(start, longest),
            Cow::Owned(_) => TOO_LONG.to_owned(),
        }
    }

    /// Removes secrets from the strings, names and numbers anywhere in `value`.
    pub fn redact_json(&self, value: &mut Value) {
        // Most values hold none, and one text is searched faster than its many parts.
        let text = joined(value);
        if view::is_worth_viewing(&text) || !self.is_clean(&text) {
            self.redact_parts(value);
        }
    }

    fn redact_parts(&self, value: &mut Value) {
        match value {
            Value::String(text) => {
                if let Cow::Owned(clean) = self.redact(text) {
                    *text = clean;
                }
            }
            Value::Number(number) => {
                if !self.is_clean(&number.to_string()) {
                    *value = REDACTED.into();
                }
            }
            Value::Array(items) => items.iter_mut().for_each(|item| self.redact_parts(item)),
            Value::Object(fields) => self.redact_fields(fields),
            Value::Null | Value::Bool(_) => {}
        }
    }

    fn redact_fields(&self, fields: &mut Map<String, Value>) {
        fields.values_mut().for_each(|value| self.redact_parts(value));
        if !fields.keys().all(|name| self.is_clean(name)) {
            let named = std::mem::take(fields).into_iter();
            fields.extend(named.map(|(name, value)| (self.redact(&name).into_owned(), value)));
        }
    }

    fn is_clean(&self, text: &str) -> bool {
        self.search(|indexes| secrets_in(text, indexes).is_ok_and(|found| found.is_empty()))
    }
}

/// Returns the strings, names and numbers in `value`, each on a line. Whatever is found in one of them is found in this
/// text, unless it is hidden by escapes: those at the end of a line would take in the next one.
fn joined(value: &Value) -> Zeroizing<String> {
    // It must not grow, which would leave a copy behind.
    let mut text = Zeroizing::new(String::with_capacity(joined_length(value)));
    join(value, &mut text);
    text
}

fn join(value: &Value, text: &mut String) {
    match value {
        Value::String(part) => push_line(text, part),
        Value::Number(number) => push_line(text, &number.to_string()),
        Value::Array(items) => items.iter().for_each(|item| join(item, text)),
        Value::Object(fields) => {
            for (name, value) in fields {
                push_line(text, name);
                join(value, text);
            }
        }
        Value::Null | Value::Bool(_) => {}
    }
}

fn push_line(text: &mut String, line: &str) {
    text.push_str(line);
    text.push('\n');
}

fn joined_length(value: &Value) -> usize {
    /// Of a number and a line break.
    const MAX_NUMBER_BYTES: usize = 32;
    match value {
        Value::String(part) => part.len() + 1,
        Value::Number(_) => MAX_NUMBER_BYTES,
        Value::Array(items) => items.iter().map(joined_length).sum(),
        Value::Object(fields) => {
            fields.iter().map(|(name, value)| name.len() + 1 + joined_length(value)).sum()
        }
        Value::Null | Value::Bool(_) => 0,
    }
}

/// Returns the ranges of secrets in `text`: ordered, disjoint, and without existing replacements.
fn secrets_in(text: &str, indexes: [&Index; 2]) -> Result<Vec<Range<usize>>, TooMuchWork> {
    // A traced view has 32-bit positions.
    if u32::try_from(text.len()).is_err() {
        return Err(TooMuchWork);
    }
    let needles = indexes.map(|index| &index.needles);
    let mut found = Vec::new();
    needles::find(needles, text.as_bytes(), &mut found)?;
    shapes::find(text.as_bytes(), &mut found);
    if view::is_worth_viewing(text) {
        secrets_behind_escapes(text, needles, &mut found)?;
    }
    if !found.is_empty() {
        found = in_order(text, found);
    }
    Ok(found)
}

fn secrets_behind_escapes(
    text: &str,
    needles: [&Needles; 2],
    found: &mut Vec<Range<usize>>,
) -> Result<(), TooMuchWork> {
    let view = View::of(text, Blanks::Drop);
    let mut hits = Vec::new();
    needles::find(needles, &view.bytes, &mut hits)?;
    if !hits.is_empty() {
        let view = View::traced(text, Blanks::Drop);
        found.extend(hits.drain(..).filter_map(|hit| view.origin(hit)));
    }
    if shapes::prefixes(&view.bytes).next().is_some() {
        // Without blanks, separate words would be joined.
        let view = View::traced(text, Blanks::Keep);
        shapes::find(&view.bytes, &mut hits);
        found.extend(hits.drain(..).filter_map(|hit| view.origin(hit)));
    }
    Ok(())
}

/// Sorts `found` and joins overlaps, without ranges inside a [`REDACTED`].
fn in_order(text: &str, mut found: Vec<Range<usize>>) -> Vec<Range<usize>> {
    let whole =
        |range: Range<usize>| text.floor_char_boundary(range.start)..text.ceil_char_boundary(range.end);
    let marks: Vec<Range<usize>> =
        memmem::find_iter(text.as_bytes(), REDACTED).map(|at| at..at + REDACTED.len()).collect();
    let first_mark = |range: &Range<usize>| marks.partition_point(|mark| mark.end <= range.start);
    found.retain(|range| {
        marks.get(first_mark(range)).is_none_or(|mark| range.start < mark.start || mark.end < range.end)
    });
    found.sort_unstable_by_key(|range| range.start);
    let mut apart: Vec<Range<usize>> = Vec::with_capacity(found.len());
    for range in found.into_iter().map(whole) {
        // A replacement that overlaps is included.
        let start = marks.get(first_mark(&range)).map_or(range.start, |mark| mark.start.min(range.start));
        let last = marks.partition_point(|mark| mark.start < range.end).checked_sub(1);
        let end = last.map_or(range.end, |last| marks[last].end.max(range.end));
        match apart.last_mut() {
            Some(before) if start < before.end => before.end = before.end.max(end),
            _ => apart.push(start..end),
        }
    }
    apart
}

fn replaced(text: &str, found: &[Range<usize>]) -> String {
    let mut clean = String::with_capacity(text.len());
    let mut from = 0;
    for range in found {
        clean.push_str(&text[from..range.start]);
        clean.push_str(REDACTED);
        from = range.end;
    }
    clean.push_str(&text[from..]);
    clean
}

impl std::fmt::Debug for Redactor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Redactor")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::{collection::vec, prelude::*, sample::select};
    use serde_json::json;

    /// Secrets, parts of secrets, and what begins or ends an escape.
    const FRAGMENTS: [&str; 19] = [
        r"correct|horse\",
        "correct",
        "|",
        "%7C",
        "&#124;",
        "horse",
        r"h\u006frse",
        "%68orse",
        r"\",
        "%5C",
        "%",
        "5",
        "&",
        "amp;",
        "\n",
        " ",
        "eyJhbGciOiJIUzI1NiJ9",
        ".eyJzdWIiOiJ1c3JfMSJ9",
        "sk_0123456789abcdef",
    ];

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
        for text in [
            format!("token {jwt}, key sk_live_0123456789abcdef!"),
            format!("token {}, key sk_live_0123456789\\u0061bcdef!", jwt.replace('.', "%2E")),
        ] {
            assert_eq!(redactor.redact(&text), "token [redacted], key [redacted]!");
        }
        assert_eq!(redactor.redact("\\nbcp_0123456789abcdef is it"), "\\n[redacted] is it");
    }

    #[test]
    fn words_that_end_like_a_prefix_are_no_keys() {
        let text = "cardiovascular_risk_assessment_v2 at risk_of_something_else";
        assert_eq!(Redactor::default().redact(text), text);
    }

    #[test]
    fn a_key_preview_is_no_secret() {
        let redactor = knowing("bcp_ab12cdefghijklmnopqrstuvwxyz9xyz");
        assert_eq!(redactor.redact("bcp_ab12...9xyz"), "bcp_ab12...9xyz");
    }

    #[test]
    fn a_secret_is_found_whose_end_forms_an_escape_with_what_follows() {
        let ends = [r"\%0", "%u20", r"\u00", "&#6", r"%\4", r"\1"];
        for secret in ends.map(|end| format!("correct horse{end}")) {
            let text = format!("{secret}1abc; is it");
            let text = (0..3).fold(text, |text, _| json!(text).to_string());
            assert!(knowing(&secret).redact(&text).contains(REDACTED), "{text}");
        }
    }

    #[test]
    fn the_log_of_a_redactor_shows_nothing() {
        assert_eq!(format!("{:?}", knowing("correct horse")), "Redactor");
    }

    #[test]
    fn structures_are_cleaned_in_strings_names_and_numbers() {
        let redactor = knowing("0123456789");
        let mut value = json!({"a": [{"0123456789": 1}], "b": 123_456_789, "c": -123_456_789.5, "d": "01 23456789", "e": 12345});
        redactor.redact_json(&mut value);
        assert_eq!(
            value,
            json!({"a": [{REDACTED: 1}], "b": REDACTED, "c": REDACTED, "d": REDACTED, "e": 12345})
        );
    }

    proptest! {
        /// What hides a secret from the search of the whole must not hide it from the answer.
        #[test]
        fn a_structure_is_searched_as_its_parts_are(
            parts in vec(vec(select(&FRAGMENTS[..]), 0..6), 1..6),
            number in any::<i32>(),
        ) {
            let redactor = knowing(r"correct|horse\");
            let parts: Vec<String> = parts.iter().map(|fragments| fragments.concat()).collect();
            let mut whole = json!([number, parts, {&parts[0]: parts.last()}]);
            let mut apart = whole.clone();
            redactor.redact_json(&mut whole);
            redactor.redact_parts(&mut apart);
            prop_assert_eq!(whole, apart);
        }
    }

    /// Known, and stated in SECURITY.md.
    #[test]
    fn a_secret_that_was_disguised_on_purpose_is_not_found() {
        let reversed: String = "correct horse".chars().rev().collect();
        assert_eq!(knowing("correct horse").redact(&reversed), reversed);
    }

    #[test]
    fn a_token_is_found_in_parts_and_wrapped() {
        let (header, payload, signature) =
            ("eyJhbGciOiJIUzI1NiJ9", "c1VyIn".repeat(15), "Xa4-_9Qz".repeat(5));
        let token = format!("{header}.{payload}.{signature}");
        let redactor = knowing(&token);
        for (text, clean) in [
            (format!("{payload} and {signature}"), "[redacted] and [redacted]"),
            (format!("token: {}\r\n {}\nend", &token[..64], &token[64..]), "token: [redacted]\nend"),
            (format!("{:?} end", format!("{}\n{}", &token[..64], &token[64..])), "\"[redacted]\" end"),
        ] {
            assert_eq!(redactor.redact(&text), clean);
        }
    }

    #[test]
    fn a_huge_token_is_found_by_its_end() {
        let token = (0..100_000).map(|number| number.to_string()).collect::<Vec<_>>().join("-");
        let clean = knowing(&token).redact(&token).into_owned();
        assert!(clean.ends_with("[redacted]") && !clean.contains("-99999"));
    }

    #[test]
    fn what_surrounds_a_secret_stays() {
        let redactor = knowing("Pw1 \"ä/correct+horse");
        for (text, clean) in [
            ("say Pw1 \"ä/correct+horse twice", "say [redacted] twice"),
            (r#"{"p": "Pw1 \"ä\/correct+horse", "q": 1}"#, r#"{"p": "[redacted]", "q": 1}"#),
            (r#"b'{"p": "Pw1 \\"\xc3\xa4/correct+horse"}' "#, r#"b'{"p": "[redacted]"}' "#),
            ("?p=Pw1+%22%C3%A4%2Fcorrect%2Bhorse&q=1", "?p=[redacted]&q=1"),
            ("Pw1&nbsp;&quot;&#xE4;/correct+horse &amp;", "[redacted] &amp;"),
        ] {
            assert_eq!(redactor.redact(text), clean);
        }
    }

    #[test]
    fn what_stands_for_a_secret_is_no_secret() {
        let redactor = Redactor::default();
        redactor.hold("record", [&"redacted".into(), &"ted]abc".into()]);
        assert_eq!(redactor.redact("a [redacted] b"), "a [redacted] b");
        assert_eq!(redactor.redact("a redacted b [redacted]abc c"), "a [redacted] b [redacted] c");
    }

    #[test]
    fn a_text_is_redacted_before_it_is_shortened_and_a_long_one_is_not_searched_to_its_end() {
        let redactor = knowing("correct horse battery staple");
        let text = format!("{}correct horse battery staple", "x".repeat(50));
        assert_eq!(redactor.excerpt(&text, 64), format!("{}[redacted]", "x".repeat(50)));
        let long = "x".repeat(MAX_EXCERPTED_BYTES);
        assert_eq!(redactor.excerpt(&long, 3), "xx…");
        assert_eq!(redactor.excerpt(&(long.clone() + "x"), 3), "xx…");
        assert_eq!(redactor.excerpt(&("correct horse battery staple".to_owned() + &long), 3), TOO_LONG);
    }

    #[test]
    fn a_text_that_is_made_to_be_slow_is_not_let_through() {
        let redactor = knowing(&"a".repeat(1000));
        assert_eq!(redactor.redact(&"a".repeat(100_000)), REDACTED);
        // Every search would pass all the blanks.
        assert_eq!(redactor.redact(&(" ".repeat(100_000) + &"a".repeat(999))), REDACTED);
        assert_eq!(redactor.redact(&"a".repeat(200)), "a".repeat(200));
    }
}
