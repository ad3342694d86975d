use proptest::prelude::*;

use super::*;

const SLOT: Slot<'static> = Slot { section: Section { key: "s", named_by: None }, name: "bondmcp" };

const IN_LIST: Slot<'static> =
    Slot { section: Section { key: "s", named_by: Some("name") }, name: "bondmcp" };

fn entry(command: &str) -> Value {
    let args = Value::List(vec![Value::text("stdio"), Value::text("--profile")]);
    let name = ("name".to_owned(), Value::text("bondmcp"));
    Value::Map(vec![name, ("command".to_owned(), Value::text(command)), ("args".to_owned(), args)])
}

/// Sets an entry, checks that every line of `text` is still there (but for a comma or an empty map behind it), and
/// returns the text with the entry.
fn set(format: Format, slot: Slot<'_>, text: &str, command: &str) -> String {
    let edited = format.set(text, slot, &entry(command)).unwrap_or_else(|_| panic!("{text}"));
    let parsed = format.parse(&edited).unwrap_or_else(|error| panic!("{error:?}\n{edited}"));
    assert_eq!(slot.entry(&parsed), Some(&entry(command)), "{edited}");
    assert_eq!(slot.emptied(&parsed), slot.emptied(&format.parse(text).unwrap()), "{edited}");
    edited
}

/// Checks that an entry can be set and removed, and that the text is the same again.
fn is_restored(format: Format, slot: Slot<'_>, text: &str) {
    let edited = set(format, slot, text, "/opt/b m/\"x\"");
    for comment in text.lines().filter_map(|line| line.split_once(['#', '/'])) {
        assert!(edited.contains(comment.1), "{edited}");
    }
    assert_eq!(format.remove(&edited, slot).as_deref(), Ok(text), "{edited}");
}

#[test]
fn json_is_as_before_without_the_entry() {
    for text in [
        "{\n  \"s\": {}\n}\n",
        "{\"s\":{}}",
        "{\"s\":{\"x\":1},\"b\":2}\n",
        "{\n  \"s\": { \"x\": {} }\n}",
        "{\n\t\"s\": {\n\t\t\"x\": {\n\t\t\t\"a\": [1, 2.50, 1e3]\n\t\t}\n\t}\n}\n",
        "{\r\n    \"s\": {\r\n        \"x\": {}\r\n    }\r\n}\r\n",
        "{\n  \"s\": {\n    \"x\": {}\r\n  }\n}",
    ] {
        is_restored(Format::Json, SLOT, text);
        is_restored(Format::Jsonc, SLOT, text);
    }
    for text in [
        "{\n  \"s\": []\n}\n",
        "{\n  \"s\": [\n    { \"name\": \"x\" } // why\n  ],\n  \"b\": 1\n}\n",
        "{\n  \"s\": [\n    {\n      \"name\": \"x\",\n    },\n    // last\n  ],\n}\n",
    ] {
        is_restored(Format::Jsonc, IN_LIST, text);
    }
    for text in [
        "// c\n{\n  // first\n  \"a\": 1, // one\n  \"s\": {\n    \"x\": {\"c\": \"y\"}, // why\n    // last\n  },\n  /* end */\n}\n",
        "\u{feff}{\n  \"s\": {\n    \"x\": {} // no comma\n  }\n}",
        "{\n  \"s\": {\n    // none yet\n  }\n}",
    ] {
        is_restored(Format::Jsonc, SLOT, text);
    }
}

#[test]
fn toml_is_as_before_without_the_entry() {
    for text in [
        "",
        "a = 1\n",
        "# c\na = 1 # one\n\n[s.x]\ncommand = \"y\" # why\n\n# tail\n[t]\nb = 2\n# end\n",
        "s = { x = { command = \"y\" } }\n",
        "[s]\nx = 1\n",
        "a = 1\r\n[s.x]\r\nb = 2\r\n",
        "[[t]]\na=1\n[s.x]\nc=1979-05-27\n[s.x.env]\nd=0x1F\n[z]\n",
    ] {
        is_restored(Format::Toml, SLOT, text);
    }
}

#[test]
fn yaml_is_as_before_without_the_entry() {
    for text in [
        "a: 1\ns: {}\n",
        "a: 1\ns: {} # none\nb: 2\n",
        "s:\n  # why\n  x:\n    c: 1 # one\n\n  y: {a: b}\n# end\nb: |\n  text\n\n",
        "s: {x: {c: 1}}\n",
        "a: 1\r\ns:\r\n    x:\r\n        c: 1\r\n",
        "---\na: &q\n  - 1\ns:\n  x: *q\n",
        "s:\n  x: |\n    block\n    more\nt: 1\n",
    ] {
        is_restored(Format::Yaml, SLOT, text);
    }
    for text in [
        "a: 1\ns: []\nb: 2\n",
        "s:\n- name: x # why\n  command: y\nb: 2\n",
        "s:\n    # why\n    -   name: x\n        args:\n            - \"-y\"\n",
    ] {
        is_restored(Format::Yaml, IN_LIST, text);
    }
}

#[test]
fn a_section_is_added_to_a_text_without_one() {
    for (format, slot, text) in [
        (Format::Json, SLOT, ""),
        (Format::Json, SLOT, " \n"),
        (Format::Json, SLOT, "{}"),
        (Format::Json, SLOT, "{\"a\":1}"),
        (Format::Jsonc, SLOT, "{\n\t\"a\": 1, // one\n}\n"),
        (Format::Json, IN_LIST, "{\"a\":1}"),
        (Format::Json, IN_LIST, "{\n  \"a\": 1\n}"),
        (Format::Toml, SLOT, "a = 1"),
        (Format::Yaml, SLOT, ""),
        (Format::Yaml, SLOT, "# only\n"),
        (Format::Yaml, SLOT, "a: 1"),
        (Format::Yaml, SLOT, "a: 1\ns:\n"),
        (Format::Yaml, SLOT, "s: null # none\n"),
        (Format::Yaml, IN_LIST, "a: 1\ns:\nb: 2\n"),
    ] {
        let edited = set(format, slot, text, "x");
        assert!(!text.contains('#') || edited.contains("# "), "{edited}");
        assert!(format.remove(&edited, slot).is_ok(), "{edited}");
    }
}

#[test]
fn an_entry_is_replaced_where_it_stands() {
    let json = "{\n  \"s\": {\n    \"bondmcp\": {\n      // mine\n      \"name\": \"bondmcp\",\n      \"command\": \"old\",\n      \"args\": [\"stdio\", \"--profile\"] // args\n    },\n    \"x\": {}\n  }\n}\n";
    assert_eq!(set(Format::Jsonc, SLOT, json, "new"), json.replace("old", "new"));
    let toml = "[s.bondmcp]\nname = \"bondmcp\"\ncommand = \"old\"\n# args\nargs = [\"stdio\", \"--profile\"]\n\n[s.x]\n";
    assert_eq!(set(Format::Toml, SLOT, toml, "new"), toml.replace("old", "new"));
    let yaml = "s:\n  a: 1\n  bondmcp:\n    name: bondmcp\n    command: old\n    args: [stdio, \"--profile\"]\n  x: 1 # one\n";
    assert_eq!(set(Format::Yaml, SLOT, yaml, "new"), yaml.replace("old", "new"));
}

#[test]
fn an_error_names_its_line() {
    for (format, text, line) in [
        (Format::Json, "{\n  \"a\": 1,\n  b\n}", 3),
        (Format::Json, "{\n  \"a\": 1, // one\n  \"b\": 2\n}", 2),
        (Format::Json, "{\n  \"a\": 1,\n}", 2),
        (Format::JsonWithComments, "{ // one\n  \"a\": 1,\n}", 2),
        (Format::Json, "{\n  \"a\": 1,\n  \"a\": 2\n}", 3),
        (Format::Json, "\n[]", 2),
        (Format::Jsonc, "{\n  \"a\": 'x'\n}", 2),
        (Format::Toml, "a = 1\nb = \n", 2),
        (Format::Toml, "a = 1\n\na = 2\n", 3),
        (Format::Yaml, "a: 1\nb: [1\nc: 2\n", 3),
        (Format::Yaml, "a: 1\na: 2\n", 2),
        (Format::Yaml, "- 1\n", 1),
        (Format::Yaml, "a: 1\n---\nb: 2\n", 2),
    ] {
        assert_eq!(format.parse(text).map_err(|error| error.line), Err(line), "{text}");
    }
}

#[test]
fn what_cannot_be_edited_is_refused() {
    for (format, text) in [
        (Format::Json, "{\"s\": []}"),
        (Format::Json, "{\"s\": null}"),
        (Format::Toml, "s = 1\n"),
        (Format::Yaml, "{a: 1}\n"),
        (Format::Yaml, "s: text\n"),
        (Format::Yaml, "a: &x {}\ns: *x\n"),
    ] {
        assert_eq!(format.set(text, SLOT, &entry("x")), Err(NotEditable), "{text}");
    }
}

#[test]
fn an_error_does_not_repeat_the_text() {
    for (format, text) in [
        (Format::Json, "{\"a\": s3cret}"),
        (Format::Json, "{\"a\": \"s3cret\" \"s3cret\"}"),
        (Format::Json, "{\"a\": \"s3cret\n\"}"),
        (Format::Toml, "a = s3cret\n"),
        (Format::Toml, "a = \"s3cret\" s3cret\n"),
        (Format::Toml, "a = \"s3cret\n"),
        (Format::Yaml, "a: \"s3cret\" s3cret\n"),
        (Format::Yaml, "a: s3cret\n b: s3cret\n"),
        (Format::Yaml, "a: \"s3cret\n"),
    ] {
        let error = format.parse(text).unwrap_err();
        assert!(!error.message.contains("s3cret"), "{text}: {error:?}");
    }
}

#[test]
fn a_text_that_expands_or_nests_without_end_is_no_danger() {
    let level = |level| format!("a{level}: &x{level} [*x{}, *x{}]\n", level - 1, level - 1);
    let bomb: String = std::iter::once("a0: &x0 [1, 1]\n".to_owned()).chain((1..64).map(level)).collect();
    assert!(Format::Yaml.set(&bomb, SLOT, &entry("x")).is_ok());
    for (format, text) in [
        (Format::Json, format!("{{\"a\": {}", "[".repeat(100_000))),
        (Format::Toml, format!("a = {}", "[".repeat(100_000))),
        (Format::Yaml, format!("a: {}", "[".repeat(100_000))),
        (Format::Yaml, format!("a: {}", "- ".repeat(100_000))),
    ] {
        assert!(format.parse(&text).is_err());
    }
}

proptest! {
    #[test]
    fn no_text_makes_an_edit_panic(text in "([a-z\"':=#{}\\[\\],|>&*/\\\\ -]|\n|\r\n|s: |\n  |é|[0-9]){0,60}") {
        for format in
            [Format::Json, Format::JsonWithComments, Format::Jsonc, Format::Toml, Format::Yaml]
        {
            let _ = format.masked(&text, &["a".to_owned()]);
            let Ok(before) = format.parse(&text) else { continue };
            let Ok(edited) = format.set(&text, SLOT, &entry("x")) else { continue };
            let Ok(after) = format.parse(&edited) else { continue };
            if SLOT.entry(&after) == Some(&entry("x")) && SLOT.emptied(&after) == SLOT.emptied(&before) {
                let _ = format.remove(&edited, SLOT);
            }
        }
    }
}
