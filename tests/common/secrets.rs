//! Looks for secrets in bytes, in the encodings in which they usually get out. Written apart from the redactor, so that
//! one cannot hide the other's mistake.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bondmcp_server::secret::{ExposeSecret as _, SecretString};

/// The clear text, for a test's own use.
pub fn text(secret: &SecretString) -> &str {
    secret.expose_secret()
}

/// Panics when one of `secrets` stands in `bytes` in any encoding.
pub fn assert_absent(secrets: &[SecretString], bytes: &[u8], place: &str) {
    for secret in secrets {
        for (encoding, form) in forms(text(secret)) {
            let found = bytes.windows(form.len()).position(|window| window == form);
            if let Some(at) = found {
                let around = &bytes[at.saturating_sub(200)..(at + form.len() + 50).min(bytes.len())];
                panic!("a secret stands in {place}, {encoding}: {}", String::from_utf8_lossy(around));
            }
        }
    }
}

fn hex(secret: &str) -> String {
    secret.bytes().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"))
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
    ];
    // Base64 of the secret with anything before it: the middle of three alignments.
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
