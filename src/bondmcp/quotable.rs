//! What an answer may quote of its request.

use std::{borrow::Cow, cmp::Reverse};

use serde_json::Value;

use super::wire::health::documented_names;
use crate::{redact::MIN_SECRET_BYTES, text::printable};

/// A message with more bytes is not compared with the request, and not passed on.
const MAX_COMPARED_BYTES: usize = 16 << 10;

/// Of a request with more texts no message is passed on.
const MAX_COMPARED_TEXTS: usize = 4096;

/// The parts of a request that its sender chose.
#[derive(Clone, Copy, Default)]
pub(super) struct Quotable<'a> {
    /// The id in its path.
    pub id: Option<&'a str>,
    pub body: Option<&'a [u8]>,
}

impl Quotable<'_> {
    /// Returns the printable characters of `message` without what it quotes word for word; `None` if that would take long.
    /// If only secrets were replaced, an agent would see which of its guesses is one.
    pub fn without_quotes(&self, message: &str) -> Option<String> {
        let mut message = printable(message).into_owned();
        if message.len() > MAX_COMPARED_BYTES {
            return None;
        }
        let body = self.body.and_then(|body| serde_json::from_slice(body).ok());
        let mut texts: Vec<Cow<'_, str>> = self.id.into_iter().map(printable).collect();
        if let Some(Value::Object(fields)) = &body {
            // The names of the fields are BondMCP's.
            fields.values().for_each(|value| add_texts(value, &mut texts));
        }
        texts.retain(|text| text.len() >= MIN_SECRET_BYTES && text.len() <= message.len());
        if texts.len() > MAX_COMPARED_TEXTS {
            return None;
        }
        // The longest first: others may be parts of it.
        texts.sort_unstable_by_key(|text| Reverse(text.len()));
        for text in texts {
            if message.contains(&*text) {
                message = message.replace(&*text, "…");
            }
        }
        Some(message)
    }
}

/// Adds the strings, numbers and undocumented names in `value`. No request is nested deeply.
fn add_texts<'a>(value: &'a Value, texts: &mut Vec<Cow<'a, str>>) {
    match value {
        Value::String(text) => texts.push(printable(text)),
        Value::Number(number) => texts.push(number.to_string().into()),
        Value::Array(items) => items.iter().for_each(|item| add_texts(item, texts)),
        Value::Object(fields) => {
            for (name, value) in fields {
                if !documented_names().contains(name) {
                    texts.push(printable(name));
                }
                add_texts(value, texts);
            }
        }
        Value::Bool(_) | Value::Null => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_a_message_quotes_of_the_request_is_not_passed_on() {
        let body = json!({
            "prompt": "canary-password", "patient_data": {"canary-name": ["canary-passw0rd"], "age": 52}, "severity": "high"
        });
        let body = body.to_string();
        let request = Quotable { id: Some("key_canary"), body: Some(body.as_bytes()) };
        let told = "patient_data.canary-name: canary-passw0rd? canary-password? high, key_canary of auth";
        let cleaned = "patient_data.…: …? …? high, … of auth";
        assert_eq!(request.without_quotes(told).unwrap(), cleaned);
        assert_eq!(request.without_quotes(&"x".repeat(MAX_COMPARED_BYTES + 1)), None);
        let body = json!({ "lab_results": vec!["canary"; MAX_COMPARED_TEXTS + 1] }).to_string();
        assert_eq!(Quotable { body: Some(body.as_bytes()), ..request }.without_quotes(told), None);
    }

    #[test]
    fn documented_names_stay() {
        let body =
            json!({"symptoms": [{"name": "headache", "severity": "canary"}], "extra": {"numbers": 481_516}});
        let request = Quotable { id: None, body: Some(body.to_string().as_bytes()) }
            .without_quotes("body.symptoms.0.severity: canary is no severity of a headache; 481516");
        assert_eq!(request.unwrap(), "body.symptoms.0.severity: … is no severity of a …; …");
    }

    #[test]
    fn a_quote_with_characters_that_are_not_printed_is_left_out_too() {
        let body = json!({"prompt": "canary\u{200b}-1\nfor"}).to_string();
        let request = Quotable { id: None, body: Some(body.as_bytes()) };
        assert_eq!(request.without_quotes("no canary\u{200b}-1\nfor you").unwrap(), "no … you");
    }
}
