//! A text for display. Other servers' entries often hold tokens, so only keys and known values are shown.

use super::Format;

/// Stands for what is not shown.
const MASK: &str = "…";

/// Longest number that is shown; longer ones may be secrets.
const MAX_DIGITS: usize = 6;

impl Format {
    /// Returns `text` with its keys, and with those of its values that are in `shown`; comments and other values are
    /// replaced.
    #[must_use]
    pub fn masked(self, text: &str, shown: &[String]) -> String {
        match self {
            Self::Json | Self::JsonWithComments | Self::Jsonc => {
                Masking { rest: text, shown, comment: "//" }.run()
            }
            Self::Toml => by_line(text, shown, toml_key),
            Self::Yaml => by_line(text, shown, yaml_key),
        }
    }
}

/// A line's beginning up to its value, if it can be told that the line has a key.
type Key = fn(&str) -> Option<usize>;

fn by_line(text: &str, shown: &[String], key: Key) -> String {
    let mut result = String::with_capacity(text.len());
    let mut continuing: Option<Continuing> = None;
    for line in text.split_inclusive('\n') {
        let content = line.trim_end_matches(['\n', '\r']);
        let indent = content.len() - content.trim_start().len();
        continuing = continuing.filter(|value| !value.ends_before(content, indent));
        let value_at =
            if continuing.is_some() || content[indent..].starts_with('#') { None } else { key(content) };
        match (value_at, &continuing) {
            (Some(at), _) => {
                result.push_str(&content[..at]);
                // A plain text of YAML may have several words.
                if shown.iter().any(|text| text == content[at..].trim()) {
                    result.push_str(&content[at..]);
                } else {
                    result.push_str(&Masking { rest: &content[at..], shown, comment: "#" }.run());
                }
                continuing = Continuing::after(&content[at..], indent);
            }
            (None, value) => {
                let is_last = value.as_ref().is_some_and(|value| value.ends_in(content));
                let mask = if content.trim().is_empty() { "" } else { MASK };
                result.extend([&content[..indent], mask]);
                continuing = continuing.filter(|_| !is_last);
            }
        }
        result.push_str(&line[content.len()..]);
    }
    result
}

/// A value that goes on in the next lines.
enum Continuing {
    /// A string of TOML, up to its three quotes.
    Until(&'static str),
    /// A block of YAML, as long as lines are indented deeper.
    Deeper(usize),
}

impl Continuing {
    fn after(value: &str, indent: usize) -> Option<Self> {
        let quotes = ["\"\"\"", "'''"].into_iter().find(|quotes| value.matches(quotes).count() == 1);
        let is_block = value.trim_start().starts_with(['|', '>']);
        quotes.map(Self::Until).or(is_block.then_some(Self::Deeper(indent)))
    }

    fn ends_before(&self, line: &str, indent: usize) -> bool {
        matches!(self, Self::Deeper(parent) if indent <= *parent && !line.trim().is_empty())
    }

    fn ends_in(&self, line: &str) -> bool {
        matches!(self, Self::Until(quotes) if line.contains(quotes))
    }
}

fn toml_key(line: &str) -> Option<usize> {
    if line.trim_start().starts_with('[') && line.contains(']') {
        return Some(line.rfind(']')? + 1);
    }
    let at = line.find('=')?;
    is_key(&line[..at]).then_some(at + 1)
}

fn yaml_key(line: &str) -> Option<usize> {
    let at = line.find(": ").or_else(|| line.len().checked_sub(1).filter(|_| line.ends_with(':')))?;
    is_key(line[..at].trim_start().trim_start_matches("- ")).then_some(at + 1)
}

fn is_key(text: &str) -> bool {
    let plain =
        |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | ' ' | '"' | '\'' | '$' | '/' | '@');
    !text.trim().is_empty() && text.chars().all(plain)
}

/// Values, and for JSON keys too, on their way to the display.
struct Masking<'a> {
    rest: &'a str,
    shown: &'a [String],
    comment: &'static str,
}

impl<'a> Masking<'a> {
    fn run(mut self) -> String {
        let mut result = String::with_capacity(self.rest.len());
        while let Some(first) = self.rest.chars().next() {
            match first {
                _ if self.rest.starts_with(self.comment) => {
                    self.take(self.rest.find('\n').unwrap_or(self.rest.len()));
                    result.extend([self.comment, " ", MASK]);
                }
                '/' if self.rest.starts_with("/*") => {
                    self.take(self.rest.find("*/").map_or(self.rest.len(), |at| at + 2));
                    result.extend(["/* ", MASK, " */"]);
                }
                '"' | '\'' => {
                    let literal = self.take(string_length(self.rest, first));
                    let is_key = self.rest.trim_start().starts_with(':') && self.comment == "//";
                    let quote = &literal[..1];
                    if is_key || self.is_shown(literal) {
                        result.push_str(literal);
                    } else {
                        result.extend([quote, MASK, quote]);
                    }
                }
                _ if is_punctuation(first) => result.push_str(self.take(first.len_utf8())),
                _ => {
                    let end = self.rest.find(|c| is_punctuation(c) || c == '"').unwrap_or(self.rest.len());
                    let word = self.take(end);
                    result.push_str(if self.is_shown(word) { word } else { MASK });
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

    fn is_shown(&self, literal: &str) -> bool {
        let is_number = literal.len() <= MAX_DIGITS && literal.parse::<f64>().is_ok();
        let inner = literal.get(1..literal.len().saturating_sub(1)).unwrap_or_default();
        is_number
            || matches!(literal, "true" | "false" | "null")
            || self.shown.iter().any(|text| {
                literal == text
                    || literal == super::json::quoted(text)
                    || (literal.starts_with(['\'', '"']) && inner == text && !text.is_empty())
            })
    }
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
        let text = "# s3cret\n[s.x] # s3cret\ncommand = '/opt/bin/server'\nargs = [\"stdio\", \"s3cret\"]\nkey = \"\"\"\ns3cret = 1\n\"\"\"\nt = s3cret # s3cret\n\"s3cret\",\nU2VjcmV0+x==\n";
        assert_eq!(
            masked(Format::Toml, text),
            "…\n[s.x] # …\ncommand = '/opt/bin/server'\nargs = [\"stdio\", \"…\"]\nkey = \"…\"\"…\"\n…\n…\nt = … # …\n…\n…\n"
        );
    }

    #[test]
    fn yaml_shows_keys_and_known_values() {
        let text = "# s3cret\ns:\n  - name: s3cret\n    cmd: /opt/bin/server\n    args: [stdio, s3cret]\n    on: true\n    key: |\n      s3cret: 1\n\n      s3cret\n  - s3cret\nurl: http://s3cret\nlong: \"a\n  s3cret\"\n";
        assert_eq!(
            masked(Format::Yaml, text),
            "…\ns:\n  - name: …\n    cmd: /opt/bin/server\n    args: [stdio, …]\n    on: true\n    key: …\n      …\n\n      …\n  …\nurl: …:…\nlong: \"…\"\n  …\n"
        );
    }
}
