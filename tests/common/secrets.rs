//! Searches bytes for secrets in the usual encodings. Written independently of the redactor, so that one cannot hide
//! the other's mistake.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bondmcp_server::secret::{ExposeSecret as _, SecretString};
use serde_json::Value;

/// Returns the plain text, for the test's own use.
pub fn text(secret: &SecretString) -> &str {
    secret.expose_secret()
}

/// Panics if `bytes` contain one of `secrets` in any encoding, even across lines.
pub fn assert_absent(secrets: &[SecretString], bytes: &[u8], place: &str) {
    Needles::of(secrets).assert_absent(bytes, place);
}

/// Panics if a message to a host contains one of `secrets`: in the text of a result, in its structure, in a question to
/// the person or elsewhere, each searched separately and without its own escapes.
pub fn assert_absent_apart(secrets: &[SecretString], seen: &[u8]) {
    let needles = Needles::of(secrets);
    for line in String::from_utf8_lossy(seen).lines() {
        let message = line.strip_prefix("data: ").unwrap_or(line);
        let Ok(message) = serde_json::from_str::<Value>(message) else { continue };
        let result = &message["result"];
        for block in result["content"].as_array().into_iter().flatten() {
            let text = block["text"].as_str().unwrap_or_default();
            needles.assert_absent(text.as_bytes(), "a text block");
            if let Ok(inner) = serde_json::from_str(text) {
                needles.assert_absent(leaves(&inner).as_bytes(), "what a text block says");
            }
        }
        needles.assert_absent(leaves(&result["structuredContent"]).as_bytes(), "a structured block");
        needles.assert_absent(leaves(&message).as_bytes(), "a message");
    }
}

/// Encodings and forms of secrets.
struct Needles(Vec<(&'static str, Vec<u8>)>);

impl Needles {
    fn of(secrets: &[SecretString]) -> Self {
        let forms = secrets.iter().flat_map(|secret| forms(text(secret)));
        Self(forms.map(|(encoding, form)| (encoding, without_white_space(&form))).collect())
    }

    /// White space is removed on both sides, so that wrapped secrets are found too.
    fn assert_absent(&self, bytes: &[u8], place: &str) {
        let bytes = without_white_space(bytes);
        for (encoding, form) in &self.0 {
            if let Some(at) = memchr::memmem::find(&bytes, form) {
                let around = &bytes[at.saturating_sub(200)..(at + form.len() + 50).min(bytes.len())];
                panic!("a secret stands in {place}, {encoding}: {}", String::from_utf8_lossy(around));
            }
        }
    }
}

fn without_white_space(bytes: &[u8]) -> Vec<u8> {
    bytes.split(u8::is_ascii_whitespace).flatten().copied().collect()
}

/// Collects every text, name and number in `value`, one per line.
fn leaves(value: &Value) -> String {
    fn collect(value: &Value, leaves: &mut Vec<String>) {
        match value {
            Value::Null | Value::Bool(_) => {}
            Value::Number(number) => leaves.push(number.to_string()),
            Value::String(text) => leaves.push(text.clone()),
            Value::Array(items) => items.iter().for_each(|item| collect(item, leaves)),
            Value::Object(fields) => {
                leaves.extend(fields.keys().cloned());
                fields.values().for_each(|value| collect(value, leaves));
            }
        }
    }
    let mut leaves = Vec::new();
    collect(value, &mut leaves);
    leaves.join("\n")
}

fn hex(secret: &str) -> String {
    secret.bytes().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"))
}

fn ascii(secret: &str, escape: fn(u32) -> String) -> String {
    secret.chars().map(|c| if c.is_ascii() { c.to_string() } else { escape(c.into()) }).collect()
}

fn forms(secret: &str) -> Vec<(&'static str, Vec<u8>)> {
    let percent = |keep: fn(u8) -> bool| -> String {
        secret
            .bytes()
            .map(|byte| if keep(byte) { (byte as char).to_string() } else { format!("%{byte:02X}") })
            .collect()
    };
    let unreserved = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    let json = serde_json::to_string(secret).unwrap();
    let mut forms = vec![
        ("plain", secret.to_owned()),
        ("as a JSON string", json[1..json.len() - 1].to_owned()),
        ("as a JSON string in a JSON string", {
            let twice = serde_json::to_string(&json[1..json.len() - 1]).unwrap();
            twice[1..twice.len() - 1].to_owned()
        }),
        ("in Debug", format!("{secret:?}").trim_matches('"').to_owned()),
        ("percent-encoded", percent(unreserved)),
        (
            "form-encoded",
            percent(|byte| byte.is_ascii_alphanumeric() || b"-_.*".contains(&byte)).replace("%20", "+"),
        ),
        ("in hex", hex(secret)),
        ("as an ASCII JSON string", ascii(secret, |code| format!("\\u{code:04x}"))),
        ("as Python's ascii", ascii(&secret.replace('\\', "\\\\"), |code| format!("\\x{code:02x}"))),
        (
            "in HTML",
            secret.replace('&', "&amp;").replace('"', "&quot;").replace('\'', "&#39;").replace('<', "&lt;"),
        ),
    ];
    if secret.starts_with("eyJ") {
        let parts = secret.split('.').skip(1).filter(|part| part.len() > 16);
        forms.extend(parts.map(|part| ("in parts", part.to_owned())));
    }
    // Base64 of the secret at each of the three alignments, without the characters that depend on its surroundings.
    for shift in 0..3 {
        let mut padded = vec![b'x'; shift];
        padded.extend_from_slice(secret.as_bytes());
        let encoded = STANDARD.encode(padded);
        let middle = encoded[4..encoded.len() - 4].to_owned();
        forms.push(("in base64", middle.clone()));
        forms.push(("in base64url", middle.replace('+', "-").replace('/', "_")));
    }
    forms.into_iter().map(|(encoding, form)| (encoding, form.into_bytes())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[should_panic(expected = "a secret stands in here, in base64")]
    fn an_encoded_secret_is_found() {
        let secret = SecretString::from("hunter2-hunter2");
        assert_absent(&[secret], STANDARD.encode("user:hunter2-hunter2").as_bytes(), "here");
    }
}
