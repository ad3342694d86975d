//! A text for display. Other servers' entries often hold tokens, so only keys and known values are shown.

use std::ops::Range;

use super::{Format, toml, yaml};

/// Stands for what is not shown.
const MASK: &str = "…";

/// Longest number that is shown; longer ones may be secrets.
const MAX_DIGITS: usize = 6;

impl Format {
    /// Returns `text` with its keys, and with those of its values that are in `shown`; comments and other values are
    /// replaced. A text that cannot be parsed is not shown.
    #[must_use]
    pub fn masked(self, text: &str, shown: &[String]) -> String {
        let scalars = match self {
            Self::Json | Self::JsonWithComments | Self::Jsonc => return Masking { rest: text, shown }.run(),
            Self::Toml => toml::scalars(text),
            Self::Yaml => yaml::scalars(text),
        };
        scalars.map_or_else(|| MASK.to_owned(), |scalars| by_scalars(text, scalars, shown))
    }
}

/// A key or a value without parts, at its place in a text.
pub(super) struct Scalar {
    pub range: Range<usize>,
    pub is_key: bool,
}

/// Shows keys, and the values that are in `shown`. Where a value ends is known from the parser: lines do not tell, as
/// those of a long value may look like keys.
fn by_scalars(text: &str, mut scalars: Vec<Scalar>, shown: &[String]) -> String {
    scalars.sort_by_key(|scalar| scalar.range.start);
    let mut result = String::with_capacity(text.len());
    let mut at = 0;
    for Scalar { range, is_key } in scalars {
        let (Some(between), Some(literal)) = (text.get(at..range.start), text.get(range.clone())) else {
            return MASK.to_owned();
        };
        push_between(&mut result, between);
        at = range.end;
        let content = literal.trim_end();
        match content.chars().next() {
            _ if is_key || is_shown(content, shown) => result.push_str(content),
            Some(quote @ ('"' | '\'')) => result.extend([quote, '…', quote]),
            Some(_) => result.push_str(MASK),
            None => {}
        }
        result.push_str(&literal[content.len()..]);
    }
    push_between(&mut result, &text[at..]);
    result
}

/// Shows what stands between keys and values, but for comments, and for words such as the anchors of YAML.
fn push_between(result: &mut String, text: &str) {
    for line in text.split_inclusive('\n') {
        let (marks, comment) = line.split_at(line.find('#').unwrap_or(line.len()));
        let mut is_masked = false;
        for c in marks.chars() {
            let is_mark = c.is_whitespace() || "[]{},.:=-?".contains(c);
            if is_mark {
                result.push(c);
            } else if !is_masked {
                result.push_str(MASK);
            }
            is_masked = !is_mark;
        }
        if !comment.is_empty() {
            let is_alone = result.rsplit('\n').next().is_none_or(|before| before.trim().is_empty());
            result.push_str(if is_alone { MASK } else { "# …" });
            result.push_str(&comment[comment.trim_end_matches(['\r', '\n']).len()..]);
        }
    }
}

/// A text of JSON on its way to the display.
struct Masking<'a> {
    rest: &'a str,
    shown: &'a [String],
}

impl<'a> Masking<'a> {
    fn run(mut self) -> String {
        let mut result = String::with_capacity(self.rest.len());
        while let Some(first) = self.rest.chars().next() {
            match first {
                _ if self.rest.starts_with("//") => {
                    self.take(self.rest.find('\n').unwrap_or(self.rest.len()));
                    result.extend(["// ", MASK]);
                }
                '/' if self.rest.starts_with("/*") => {
                    self.take(self.rest.find("*/").map_or(self.rest.len(), |at| at + 2));
                    result.extend(["/* ", MASK, " */"]);
                }
                '"' | '\'' => {
                    let literal = self.take(string_length(self.rest, first));
                    let is_key = self.rest.trim_start().starts_with(':');
                    let quote = &literal[..1];
                    if is_key || is_shown(literal, self.shown) {
                        result.push_str(literal);
                    } else {
                        result.extend([quote, MASK, quote]);
                    }
                }
                _ if is_punctuation(first) => result.push_str(self.take(first.len_utf8())),
                _ => {
                    let end = self.rest.find(|c| is_punctuation(c) || c == '"').unwrap_or(self.rest.len());
                    let word = self.take(end);
                    result.push_str(if is_shown(word, self.shown) { word } else { MASK });
                }
            }
        }
        result
    }

    fn take(&mut self, length: usize) -> &'a str {
        let (taken, rest) = self.rest.split_at(length);
        self.rest = rest;
        taken
    }
}

fn is_shown(literal: &str, shown: &[String]) -> bool {
    let is_number = literal.len() <= MAX_DIGITS && literal.parse::<f64>().is_ok();
    let inner = literal.get(1..literal.len().saturating_sub(1)).unwrap_or_default();
    is_number
        || matches!(literal, "true" | "false" | "null")
        || shown.iter().any(|text| {
            literal == text
                || literal == super::json::quoted(text)
                || (literal.starts_with(['\'', '"']) && inner == text && !text.is_empty())
        })
}

fn is_punctuation(c: char) -> bool {
    c.is_whitespace() || matches!(c, '{' | '}' | '[' | ']' | ':' | ',' | '=')
}

/// Returns the length of the string at the start of `text`; to the end of the text if it is not closed.
fn string_length(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' if quote == '"' => escaped = true,
            _ if c == quote => return at + 1,
            _ => {}
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn masked(format: Format, text: &str) -> String {
        format.masked(text, &["/opt/bin/server".to_owned(), "stdio".to_owned(), "C:\\b".to_owned()])
    }

    #[test]
    fn json_shows_keys_and_known_values() {
        let text = "{\n  // TOKEN s3cret\n  \"s\": {\"x\": {\"command\": \"/opt/bin/server\", \"args\": [\"stdio\", \"--t=s3cret\"], \"env\": {\"A\": \"s3\\\"cret\", \"n\": 8080, \"pin\": 12345678}}} /* s3cret */\n}\n";
        assert_eq!(
            masked(Format::Jsonc, text),
            "{\n  // …\n  \"s\": {\"x\": {\"command\": \"/opt/bin/server\", \"args\": [\"stdio\", \"…\"], \"env\": {\"A\": \"…\", \"n\": 8080, \"pin\": …}}} /* … */\n}\n"
        );
        assert_eq!(masked(Format::Json, "{\"a\": \"C:\\\\b\"}"), "{\"a\": \"C:\\\\b\"}");
        assert_eq!(masked(Format::Json, "{\"a\": \"s3cret"), "{\"a\": \"…\"");
    }

    #[test]
    fn toml_shows_keys_and_known_values() {
        let text = "# s3cret\n[s.x] # [s3cret]\ncommand = '/opt/bin/server' # s3cret\nargs = [\"stdio\", \"s3cret\"]\nkey = \"\"\"\ns3cret = 1\n\"\"\"\non = true\n[s.\"y\"]\nt = 2026-01-31\n";
        assert_eq!(
            masked(Format::Toml, text),
            "…\n[s.x] # …\ncommand = '/opt/bin/server' # …\nargs = [\"stdio\", \"…\"]\nkey = \"…\"\non = true\n[s.\"y\"]\nt = …\n"
        );
    }

    #[test]
    fn yaml_shows_keys_and_known_values() {
        let text = "# s3cret\ns:\n  - name: s3cret\n    cmd: /opt/bin/server # s3cret\n    args: [stdio, s3cret]\n    on: true\n    key: |\n      s3cret: 1\n\n      s3cret\n  - s3cret\nurl: http://s3cret\nlong: \"a\n  s3cret\"\n";
        assert_eq!(
            masked(Format::Yaml, text),
            "…\ns:\n  - name: …\n    cmd: /opt/bin/server # …\n    args: [stdio, …]\n    on: true\n    key: …\n      …\n  - …\nurl: …\nlong: \"…\"\n"
        );
    }

    /// Lines of values that look like keys, tables or comments.
    #[test]
    fn no_value_passes_for_something_else() {
        for text in [
            "args = [\n  \"--key\",\n  \"s3cret==\",\n  's3cret=a',\n]\n",
            "args = [\n  [\"s3cret\"], [\n  \"s3cret\"]\n]\n",
            "[a] # [s3cret]\n",
            "a = [\"\"\"x\"\"\", \"\"\"\ns3cret = 1\n\"\"\"]\n",
            "a = '''\n\"\"\"\n'''\nb = '''\ns3cret = 1'''\n",
            "a = { b = \"s3cret = #\", c = 's3cret' } # s3cret\n",
            "[[a]]\nb = [{ c = \"s3cret\" }, \"s3cret\"]\n[d.e]\nf.g = 's3cret'\n[d]\nf = 's3cret'\n",
        ] {
            let shown = masked(Format::Toml, text);
            assert!(!shown.contains("s3cret"), "{text}: {shown}");
        }
        for text in [
            "a: \"b\n  s3cret: c\n  s3cret: c\"\n",
            "a: 'b\n\n  s3cret: c'\n",
            "a: b\n  s3cret\n  s3cret\n",
            "a: >-\n    s3cret: c\n  # no comment\n",
            "- |2\n  s3cret: c\n\n- s3cret\n",
            "a: |\n  b\n\n  s3cret: c\nd: 1 # s3cret\n",
            "a: &s3cret b\nc: !s3cret d\n",
            "a: {b: s3cret, c: [s3cret, \"s3cret: d\"]}\n",
            "? [s3cret, b]\n: s3cret\n",
            "ü: \"ö\"\na: s3cret\n# s3cret: ä\nb: 's3cret'\n",
            "%YAML 1.2\n---\na: |\n s3cret: b\n...\n# s3cret\n",
        ] {
            let shown = masked(Format::Yaml, text);
            assert!(!shown.contains("s3cret"), "{text}: {shown}");
        }
    }

    /// A syntax error is printed with the line's number, never with the line.
    #[test]
    fn an_error_does_not_quote_a_value() {
        for (format, text) in [
            (Format::Json, "{\"a\": s3cret}"),
            (Format::Json, "{\"a\": \"s3cret\n\"}"),
            (Format::Json, "{\"a\": \"s3cret\\x\"}"),
            (Format::Json, "\"s3cret\""),
            (Format::Jsonc, "{\"a\": \"s3cret\" \"b\": 1}"),
            (Format::Toml, "a = s3cret"),
            (Format::Toml, "a = [s3cret]"),
            (Format::Toml, "a = \"s3cret\\x\""),
            (Format::Toml, "a = 's3cret"),
            (Format::Toml, "a = \"s3cret\" s3cret"),
            (Format::Toml, "[a]\nb = 1\n[a.b.c]\nd = 's3cret'"),
            (Format::Yaml, "a: \"s3cret"),
            (Format::Yaml, "a: *s3cret"),
            (Format::Yaml, "a: [s3cret"),
            (Format::Yaml, "a: !s3cret! b"),
            (Format::Yaml, "%s3cret s3cret\n---\n- a: b: s3cret\n"),
            (Format::Yaml, "a: \"s3cret\\q\""),
            (Format::Yaml, "- s3cret"),
        ] {
            let error = format.parse(text).expect_err(text);
            assert!(!error.message.contains("s3cret"), "{text}: {error:?}");
        }
    }
}
