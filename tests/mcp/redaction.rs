//! Properties of the search for secrets, for any secret, surrounding text and encoding.
#![allow(clippy::format_collect, reason = "it reads better, and is fast enough")]

use std::borrow::Cow;

use base64::{Engine as _, engine::general_purpose};
use bondmcp_server::redact::{REDACTED, Redactor};
use proptest::prelude::*;
use serde_json::{Value, json};
use unicode_normalization::UnicodeNormalization as _;

/// An encoding by which programs pass text on.
#[derive(Clone, Copy, Debug)]
enum Step {
    Json,
    /// Python's `json.dumps`.
    JsonAscii,
    /// Python's `repr` of a string, and of its bytes.
    Repr,
    ReprOfBytes,
    /// Python's `ascii`.
    Ascii,
    HtmlNames,
    /// HTML 5's names of all punctuation.
    HtmlNames5,
    HtmlDecimal,
    HtmlHex,
    Percent,
    Form,
    /// ECMAScript's `escape`.
    JsEscape,
    Perl,
    /// Python's `ascii` of a text whose bytes it could not decode.
    SurrogateEscape,
    Wrap,
}

/// The names of ASCII punctuation in HTML 5.
const NAMES: [(char, &str); 31] = [
    ('!', "excl"),
    ('"', "quot"),
    ('#', "num"),
    ('$', "dollar"),
    ('%', "percnt"),
    ('&', "amp"),
    ('\'', "apos"),
    ('(', "lpar"),
    (')', "rpar"),
    ('*', "ast"),
    ('+', "plus"),
    (',', "comma"),
    ('.', "period"),
    ('/', "sol"),
    (':', "colon"),
    (';', "semi"),
    ('<', "lt"),
    ('=', "equals"),
    ('>', "gt"),
    ('?', "quest"),
    ('@', "commat"),
    ('[', "lbrack"),
    ('\\', "bsol"),
    (']', "rbrack"),
    ('^', "Hat"),
    ('_', "lowbar"),
    ('`', "grave"),
    ('{', "lbrace"),
    ('|', "VerticalLine"),
    ('}', "rbrace"),
    ('\n', "NewLine"),
];

impl Step {
    fn apply(self, text: &str) -> String {
        let each = |escaped: &dyn Fn(char) -> String| text.chars().map(escaped).collect::<String>();
        let utf16 = |c: char| -> String {
            c.encode_utf16(&mut [0; 2]).iter().map(|u| format!("\\u{u:04x}")).collect()
        };
        let byte = |escape: &'static str| move |b: u8| format!("{escape}{b:02x}");
        let bytes = |c: char, escape| c.to_string().bytes().map(byte(escape)).collect::<String>();
        let kept = |c: char| c.is_ascii_graphic() || c == ' ';
        let quoted = |c: char| match c {
            '\\' | '\'' => format!("\\{c}"),
            '\n' => "\\n".to_owned(),
            c => c.to_string(),
        };
        match self {
            Self::Json => serde_json::to_string(text).unwrap(),
            Self::JsonAscii => {
                let json = serde_json::to_string(text).unwrap();
                json.chars().map(|c| if c.is_ascii() { c.to_string() } else { utf16(c) }).collect()
            }
            Self::Repr => format!("'{}'", each(&quoted)),
            Self::ReprOfBytes => {
                let escaped = |c| if kept(c) || c == '\n' { quoted(c) } else { bytes(c, "\\x") };
                format!("b'{}'", each(&escaped))
            }
            Self::Ascii => each(&|c| match u32::from(c) {
                _ if kept(c) || c == '\n' => quoted(c),
                code @ ..=0xFF => format!("\\x{code:02x}"),
                code @ ..=0xFFFF => format!("\\u{code:04x}"),
                code => format!("\\U{code:08x}"),
            }),
            Self::HtmlNames => each(&|c| match c {
                '&' => "&amp;".to_owned(),
                '<' => "&lt;".to_owned(),
                '>' => "&gt;".to_owned(),
                '"' => "&quot;".to_owned(),
                '\'' => "&#39;".to_owned(),
                c => c.to_string(),
            }),
            Self::HtmlNames5 => each(&|c| match NAMES.iter().find(|(named, _)| *named == c) {
                Some((_, name)) => format!("&{name};"),
                None => c.to_string(),
            }),
            Self::HtmlDecimal => each(&|c| {
                if c.is_ascii_alphanumeric() { c.to_string() } else { format!("&#{};", u32::from(c)) }
            }),
            Self::HtmlHex => each(&|c| format!("&#x{:X};", u32::from(c))),
            Self::Percent => each(&|c| {
                if c.is_ascii_alphanumeric() { c.to_string() } else { bytes(c, "%").to_uppercase() }
            }),
            Self::Form => url::form_urlencoded::byte_serialize(text.as_bytes()).collect(),
            Self::JsEscape => each(&|c| match u32::from(c) {
                _ if c.is_ascii_alphanumeric() || "@*_+-./".contains(c) => c.to_string(),
                code @ ..=0xFF => format!("%{code:02X}"),
                _ => utf16(c).replace("\\u", "%u"),
            }),
            Self::Perl => each(&|c| match c {
                '\\' | '"' => format!("\\{c}"),
                c if c.is_ascii() => c.to_string(),
                c => format!("\\x{{{:x}}}", u32::from(c)),
            }),
            Self::SurrogateEscape => each(&|c| if c.is_ascii() { quoted(c) } else { bytes(c, "\\udc") }),
            Self::Wrap => {
                let chars: Vec<char> = text.chars().collect();
                let lines: Vec<String> = chars.chunks(64).map(|line| line.iter().collect()).collect();
                lines.join("\n")
            }
        }
    }
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    use Step::{
        Ascii, Form, HtmlDecimal, HtmlHex, HtmlNames, HtmlNames5, JsEscape, Json, JsonAscii, Percent, Perl,
        Repr, ReprOfBytes, SurrogateEscape, Wrap,
    };
    let all = [
        Json,
        JsonAscii,
        Repr,
        ReprOfBytes,
        Ascii,
        HtmlNames,
        HtmlNames5,
        HtmlDecimal,
        HtmlHex,
        Percent,
        Form,
        JsEscape,
        Perl,
        SurrogateEscape,
        Wrap,
    ];
    prop::collection::vec(prop::sample::select(all.to_vec()), 0..=3)
}

/// An encoding that cannot be decoded without knowing where it starts, or another spelling.
fn encoding() -> impl Strategy<Value = fn(&str) -> String> {
    prop_oneof![
        4 => Just((|text| text.to_owned()) as fn(&str) -> String),
        1 => Just((|text| general_purpose::STANDARD.encode(text)) as fn(&str) -> String),
        1 => Just((|text| general_purpose::URL_SAFE_NO_PAD.encode(text)) as fn(&str) -> String),
        1 => Just((|text| general_purpose::STANDARD.encode(Step::JsonAscii.apply(text))) as fn(&str) -> String),
        1 => Just((|text| general_purpose::STANDARD.encode(Step::Form.apply(text))) as fn(&str) -> String),
        1 => Just((|text| text.bytes().map(|b| format!("{b:02x}")).collect()) as fn(&str) -> String),
        1 => Just((|text| text.bytes().map(|b| format!("{b:02X}")).collect()) as fn(&str) -> String),
        // Read as Latin-1, normalized, and within quotes.
        1 => Just((|text| text.bytes().map(char::from).collect()) as fn(&str) -> String),
        1 => Just((|text| text.nfd().collect()) as fn(&str) -> String),
        1 => Just((|text| text.replace('"', "\"\"")) as fn(&str) -> String),
        1 => Just((|text| text.replace('\'', "''")) as fn(&str) -> String),
    ]
}

/// A password of which enough remains even if parts are taken for an escape, a token or a key. No character that JSON
/// may escape follows a backslash: if that was encoded for HTML before, it may be taken for the beginning of that escape.
fn secret() -> impl Strategy<Value = String> {
    let is_told_apart =
        |secret: &String| !secret.split('\\').skip(1).any(|after| after.starts_with(|c: char| !c.is_ascii()));
    prop_oneof![
        "[ -~äßøé€😀\u{200b}]{0,20}[A-Za-z0-9]{10}[ -~äÜ€]{0,9}".prop_filter("told apart", is_told_apart),
        "eyJ[A-Za-z0-9_-]{17,60}\\.[A-Za-z0-9_-]{20,200}\\.[A-Za-z0-9_-]{43}",
        "bcp_[A-Za-z0-9_-]{43}",
    ]
}

fn knowing(secret: &str) -> Redactor {
    let redactor = Redactor::default();
    redactor.remember(&secret.into());
    redactor
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_secret_is_found_however_it_was_passed_on(
        secret in secret(),
        (encode, steps) in (encoding(), steps()),
        (before, after) in ("[a-z:\" ]{0,9}", "[a-z,\" ]{0,9}"),
    ) {
        let redactor = knowing(&secret);
        let plain = encode(&format!("{before}{secret}{after}"));
        let text = steps.iter().fold(plain, |text, step| step.apply(&text));
        let redacted = redactor.redact(&text);
        prop_assert!(redacted.contains(REDACTED), "{steps:?}: {text}");
        prop_assert_eq!(redactor.redact(&redacted), &*redacted, "a second time");

        let mut structure = json!({"a": [&text, {&text: 1}]});
        redactor.redact_json(&mut structure);
        prop_assert_eq!(structure["a"][0].as_str().unwrap(), &*redacted);
        prop_assert_eq!(structure["a"][1].as_object().unwrap().keys().next().unwrap(), &*redacted);
    }

    #[test]
    fn a_text_without_secrets_is_borrowed_and_stays_as_it_is(
        secret in secret(),
        text in r#"([ -~äÜ€😀\n\u{200b}]|\\[nu"x]|%[0-9A-F]{2}|&(amp|quot|#39);|bcp_[a-z0-9]{4}\.\.\.|blood pressure ){0,200}"#,
    ) {
        prop_assert!(matches!(knowing(&secret).redact(&text), Cow::Borrowed(same) if same == text));
    }
}

#[test]
fn a_password_is_found_as_programs_spell_it() {
    let (composed, decomposed) = ("corr\u{e9}ct\"h\u{f6}rse'€uro", "corre\u{301}ct\"ho\u{308}rse'€uro");
    let redactor = knowing(composed);
    for text in [
        // Read as Latin-1, and as Windows-1252.
        "corrÃ©ct\"hÃ¶rse'â\u{82}¬uro",
        "corrÃ©ct\"hÃ¶rse'â‚¬uro",
        decomposed,
        // Within quotes in CSV, in SQL, and in a shell.
        "corréct\"\"hörse'€uro",
        "corréct\"hörse''€uro",
        r#"corréct"hörse'\''€uro"#,
        r#"corréct"hörse'"'"'€uro"#,
        "corr%E9ct%22h%F6rse%27%u20ACuro",
        r#"corr\x{e9}ct\"h\x{f6}rse'\x{20ac}uro"#,
        r#"corr\udcc3\udca9ct"h\udcc3\udcb6rse\'\udce2\udc82\udcacuro"#,
    ] {
        assert_eq!(redactor.redact(&format!("it is {text}, and")), "it is [redacted], and", "{text}");
    }
    assert_eq!(knowing(decomposed).redact(composed), REDACTED);
    let latin1 = general_purpose::STANDARD.encode(b"ada:corr\xE9ct-h\xF6rse");
    assert!(knowing("corréct-hörse").redact(&latin1).contains(REDACTED));
}

/// Known, and stated in SECURITY.md.
#[test]
fn a_secret_that_was_changed_or_cut_is_not_found() {
    let password = "corréct-hörse-ﬁve";
    let redactor = knowing(password);
    for text in [
        password.to_uppercase(),
        password.replace(|c: char| !c.is_ascii(), "?"),
        password.encode_utf16().map(|unit| format!("{unit:04x}")).collect(),
        format!("{:?}", password.as_bytes()),
        password.bytes().map(|b| format!("{b:02x}:")).collect(),
        "corr\\e9 ct-h\\f6 rse-\\fb01 ve".to_owned(),
        "corréct-hörse-&filig;ve".to_owned(),
        password.nfkc().collect(),
        password.bytes().map(char::from).collect::<String>().bytes().map(char::from).collect(),
        password.chars().skip(1).collect(),
    ] {
        assert_eq!(redactor.redact(&text), text);
    }
}

#[test]
fn a_key_is_found_without_its_prefix_and_in_long_parts() {
    let random = "7232Zk_9Qw-3xT5vB1nM8sLp0aYc6RdEhGjFiKoUq4t";
    for prefix in ["bcp_", "sk_"] {
        let redactor = knowing(&format!("{prefix}{random}"));
        assert_eq!(redactor.redact(&format!("key {random}, and")), "key [redacted], and");
        let hex: String = random.bytes().map(|b| format!("{b:02x}")).collect();
        for text in [general_purpose::STANDARD.encode(format!("ada:{random}")), hex] {
            assert!(redactor.redact(&text).contains(REDACTED), "{text}");
        }
        for part in random.as_bytes().windows(19) {
            let part = str::from_utf8(part).unwrap();
            let redacted = redactor.redact(part);
            assert!(redacted.contains(REDACTED) && redacted.len() <= REDACTED.len() + 6, "{redacted}");
        }
        for preview in [format!("{prefix}7232...Uq4t"), random[..12].to_owned()] {
            assert_eq!(redactor.redact(&preview), preview);
        }
    }
}

#[test]
fn a_password_that_is_sent_as_a_number_is_found() {
    for (password, number) in [
        ("123456.7000", "123456.7000"),
        ("1234567e3", "1234567e3"),
        ("1234567e3", "1234567000"),
        ("12345678901234567890123", "12345678901234567890123"),
        ("00123456.7000", "123456.7"),
        ("0012345678", "12345678"),
    ] {
        let mut value: Value = serde_json::from_str(&format!(r#"{{"number": {number}}}"#)).unwrap();
        knowing(password).redact_json(&mut value);
        assert_eq!(value, json!({ "number": REDACTED }), "{password}");
    }
}
