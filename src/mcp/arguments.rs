//! Reading a tool's arguments. They are validated against the schema that the agent was given, ranges and lengths
//! included, before a sign-in is started and anything is billed. An error names the argument by its path and the
//! expected value. It never repeats what the caller wrote, names included: an agent may have put a secret or health
//! data there, and a redacted echo would confirm a guess.

use std::fmt::Write as _;

use regex_lite::Regex;
use rmcp::model::JsonObject;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::error::{Kind, UserFacingError};

/// Validated arguments fit the type, except for rules that a schema cannot express.
pub(super) fn parse<T: DeserializeOwned>(arguments: &JsonObject) -> Result<T, UserFacingError> {
    serde_path_to_error::deserialize(arguments)
        .map_err(|error| refusal("Invalid", &error.path().to_string(), None))
}

/// Arguments that hosts add to the calls of every tool, for themselves: Gemini CLI's orders calls. None of them can
/// hold a secret.
const HOST_ARGUMENTS: [&str; 1] = ["wait_for_previous"];

/// Parts of names that suggest a secret.
const SECRET_NAMES: [&str; 8] = ["pass", "pwd", "secret", "token", "key", "cred", "auth", "jwt"];

/// Takes out the arguments that the host added for itself; returns their names.
pub(super) fn take_host_arguments(arguments: &mut JsonObject) -> Vec<&'static str> {
    HOST_ARGUMENTS.into_iter().filter(|name| arguments.remove(*name).is_some()).collect()
}

/// Validates `arguments` against `schema`.
pub(super) fn check(arguments: &JsonObject, schema: &JsonObject) -> Result<(), UserFacingError> {
    check_object("", arguments, schema)
}

/// Validates for the keywords that our schemas use. They refer to no other schema.
fn check_object(path: &str, given: &JsonObject, schema: &JsonObject) -> Result<(), UserFacingError> {
    let none = JsonObject::new();
    let known = schema.get("properties").and_then(Value::as_object).unwrap_or(&none);
    if schema.get("additionalProperties").is_some_and(|others| *others == false) {
        let unknown: Vec<&String> = given.keys().filter(|name| !known.contains_key(*name)).collect();
        if !unknown.is_empty() {
            return Err(refuse_unknown(path, &unknown, known));
        }
    }
    let below = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    let required: Vec<&str> = schema
        .get("required")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    if let Some(name) = required.iter().find(|name| !given.contains_key(**name)) {
        let property = known.get(*name).unwrap_or(&Value::Null);
        return Err(refusal("Missing", &below(name), shape(property)));
    }
    for (name, property) in known {
        match given.get(name) {
            // Some hosts send null for omitted arguments.
            Some(Value::Null) if !required.contains(&name.as_str()) => {}
            Some(value) => check_value(&below(name), value, property)?,
            None => {}
        }
    }
    Ok(())
}

fn check_value(path: &str, given: &Value, schema: &Value) -> Result<(), UserFacingError> {
    let fits = match given {
        Value::String(text) => has_type(schema, "string") && fits_text(text, schema),
        Value::Number(number) => {
            let whole = number.is_i64() || number.is_u64();
            let typed = has_type(schema, "number") || whole && has_type(schema, "integer");
            typed && within(number.as_f64(), schema, "minimum", "maximum")
        }
        Value::Bool(_) => has_type(schema, "boolean"),
        Value::Null => has_type(schema, "null"),
        Value::Array(entries) => {
            has_type(schema, "array") && fits_length(entries.len(), schema, "minItems", "maxItems")
        }
        Value::Object(_) => has_type(schema, "object"),
    };
    let listed = schema["enum"].as_array().is_none_or(|values| values.contains(given));
    let named = schema.get("const").is_none_or(|value| value == given);
    let one_of = ["oneOf", "anyOf"].iter().filter_map(|word| schema[*word].as_array()).all(|alternatives| {
        alternatives.iter().any(|alternative| check_value(path, given, alternative).is_ok())
    });
    if !(fits && listed && named && one_of) {
        return Err(refusal("Invalid", path, shape(schema)));
    }
    match given {
        Value::Object(fields) => {
            schema.as_object().map_or(Ok(()), |schema| check_object(path, fields, schema))
        }
        Value::Array(entries) => entries
            .iter()
            .enumerate()
            .try_for_each(|(at, entry)| check_value(&format!("{path}[{at}]"), entry, &schema["items"])),
        _ => Ok(()),
    }
}

/// Describes what a schema expects.
fn shape(schema: &Value) -> Option<String> {
    if let Some(values) = schema["enum"].as_array() {
        let values: Vec<String> = values.iter().map(ToString::to_string).collect();
        return Some(format!("one of {}", values.join(", ")));
    }
    if let Some(alternatives) = schema["oneOf"].as_array() {
        let values: Vec<String> = alternatives
            .iter()
            .filter_map(|alternative| Some(alternative.get("const")?.to_string()))
            .collect();
        return (!values.is_empty()).then(|| format!("one of {}", values.join(", ")));
    }
    if let Some(alternatives) = schema["anyOf"].as_array() {
        let shapes: Vec<String> = alternatives.iter().filter_map(shape).collect();
        return Some(shapes.join(" or "));
    }
    match schema["type"].as_str()? {
        "integer" => Some(format!("an integer{}", bounds(schema, "minimum", "maximum", ""))),
        "number" => Some(format!("a number{}", bounds(schema, "minimum", "maximum", ""))),
        "string" => Some(match (&schema["pattern"], &schema["examples"][0]) {
            (Value::String(_), Value::String(example)) => format!("a string such as \"{example}\""),
            _ => format!("a string{}", bounds(schema, "minLength", "maxLength", " characters")),
        }),
        "array" => {
            let array = format!("an array{}", bounds(schema, "minItems", "maxItems", " items"));
            Some(match shape(&schema["items"]) {
                Some(entry) => format!("{array}, each item {entry}"),
                None => array,
            })
        }
        "object" => Some("an object".to_owned()),
        other => Some(format!("a {other}")),
    }
}

/// Whether a schema accepts values of this type; one without a type accepts any.
fn has_type(schema: &Value, name: &str) -> bool {
    schema["type"].as_str().is_none_or(|known| known == name)
}

fn fits_text(text: &str, schema: &Value) -> bool {
    fits_length(text.chars().count(), schema, "minLength", "maxLength")
        && schema["pattern"]
            .as_str()
            .and_then(|pattern| Regex::new(pattern).ok())
            .is_none_or(|pattern| pattern.is_match(text))
}

fn fits_length(length: usize, schema: &Value, least: &str, most: &str) -> bool {
    let length = u64::try_from(length).unwrap_or(u64::MAX);
    schema[least].as_u64().is_none_or(|least| length >= least)
        && schema[most].as_u64().is_none_or(|most| length <= most)
}

fn within(number: Option<f64>, schema: &Value, least: &str, most: &str) -> bool {
    let Some(number) = number else { return false };
    schema[least].as_f64().is_none_or(|least| number >= least)
        && schema[most].as_f64().is_none_or(|most| number <= most)
}

/// ` from 0 to 130`, ` of 1 to 200 characters`, or nothing without limits.
fn bounds(schema: &Value, least: &str, most: &str, unit: &str) -> String {
    let from = if unit.is_empty() { "from" } else { "of" };
    match (&schema[least], &schema[most]) {
        (Value::Number(least), Value::Number(most)) => format!(" {from} {least} to {most}{unit}"),
        (Value::Number(least), _) if least.as_u64() == Some(1) => {
            format!(" of at least 1{}", unit.trim_end_matches('s'))
        }
        (Value::Number(least), _) => format!(" of at least {least}{unit}"),
        (_, Value::Number(most)) => format!(" of at most {most}{unit}"),
        _ => String::new(),
    }
}

/// Describes the problem with the argument at `path`, and the expected value if the schema gives a short one.
fn refusal(problem: &str, path: &str, expected: Option<String>) -> UserFacingError {
    let expected = expected.map(|shape| format!(": expected {shape}")).unwrap_or_default();
    let message = format!("{problem} argument `{path}`{expected}.");
    UserFacingError::new(Kind::InvalidInput, message, "Read the tool's input schema, then call again.")
}

/// Refuses unknown arguments. `path` and `known` come from the schema; `names` come from the caller and are not
/// repeated.
fn refuse_unknown(path: &str, names: &[&String], known: &JsonObject) -> UserFacingError {
    let (message, taker) = match path {
        "" => ("An unknown argument was given.".to_owned(), "This tool".to_owned()),
        _ => (format!("An unknown argument was given in `{path}`."), format!("`{path}`")),
    };
    let mut solution = String::new();
    if names.iter().any(|name| suggests_secret(name)) {
        solution.push_str("Never put a password, token or API key into the chat or a tool call. ");
    }
    if known.is_empty() {
        let _ = write!(solution, "{taker} takes no arguments.");
    } else {
        let names: Vec<String> = known.keys().map(|name| format!("`{name}`")).collect();
        let _ = write!(solution, "{taker} takes {}.", names.join(", "));
    }
    UserFacingError::new(Kind::InvalidInput, message, solution)
}

fn suggests_secret(name: &str) -> bool {
    let name = name.to_lowercase();
    SECRET_NAMES.iter().any(|part| name.contains(part))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rmcp::{schemars, schemars::JsonSchema};
    use serde::Deserialize;
    use serde_json::json;

    #[derive(Debug, Deserialize, JsonSchema)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only parsed")]
    struct Example {
        action: Action,
        name: Option<String>,
        tags: Option<Vec<Action>>,
        part: Option<Part>,
    }

    #[derive(Debug, Deserialize, JsonSchema)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only parsed")]
    struct Part {
        #[schemars(range(min = 0, max = 130))]
        age: u8,
        #[schemars(range(max = 1.5))]
        share: Option<f64>,
        #[schemars(regex(pattern = "^[0-9]+/[0-9]+$"), example = "140/90")]
        pressure: Option<String>,
        #[schemars(length(min = 1, max = 2), inner(length(min = 1, max = 3)))]
        words: Option<Vec<String>>,
    }

    #[derive(Debug, Deserialize, JsonSchema)]
    #[serde(rename_all = "snake_case")]
    enum Action {
        List,
        Create,
    }

    /// Returns the outcome of validation and parsing; arguments that pass the one must pass the other.
    fn outcome(arguments: &Value) -> Result<(), UserFacingError> {
        let arguments = arguments.as_object().unwrap();
        check(arguments, &crate::mcp::tools::input_schema::<Example>())?;
        parse::<Example>(arguments).unwrap();
        Ok(())
    }

    fn message(arguments: &Value) -> String {
        outcome(arguments).unwrap_err().to_string()
    }

    #[test]
    fn an_error_names_the_argument_and_what_was_expected() {
        let message = |arguments| outcome(&arguments).unwrap_err().message;
        assert_eq!(message(json!({})), r#"Missing argument `action`: expected one of "list", "create"."#);
        assert_eq!(
            message(json!({"action": "list", "name": 7})),
            "Invalid argument `name`: expected a string."
        );
        assert_eq!(
            message(json!({"action": "list", "tags": ["list", "x"]})),
            r#"Invalid argument `tags[1]`: expected one of "list", "create"."#
        );
    }

    #[test]
    fn what_the_schema_says_of_ranges_and_lengths_is_checked_wherever_it_stands() {
        for (part, message) in [
            (json!({}), "`part.age`: expected an integer from 0 to 130."),
            (json!({"age": 131}), "`part.age`: expected an integer from 0 to 130."),
            (json!({"age": -1}), "`part.age`: expected an integer from 0 to 130."),
            (json!({"age": 7.5}), "`part.age`: expected an integer from 0 to 130."),
            (json!({"age": null}), "`part.age`: expected an integer from 0 to 130."),
            (json!({"age": 7, "share": 1.6}), "`part.share`: expected a number of at most 1.5."),
            (
                json!({"age": 7, "pressure": "high"}),
                r#"`part.pressure`: expected a string such as "140/90"."#,
            ),
            (
                json!({"age": 7, "words": []}),
                "`part.words`: expected an array of 1 to 2 items, each item a string of 1 to 3 characters.",
            ),
            (
                json!({"age": 7, "words": ["äöü", ""]}),
                "`part.words[1]`: expected a string of 1 to 3 characters.",
            ),
        ] {
            let told = outcome(&json!({"action": "list", "part": part})).unwrap_err().message;
            assert!(told.ends_with(&format!(" argument {message}")), "{told}");
        }
        let told = message(&json!({"action": "list", "part": {"age": 7, "mood": "good"}}));
        assert!(told.starts_with("An unknown argument was given in `part`."), "{told}");
    }

    #[test]
    fn what_fits_is_let_through() {
        let part = json!({"age": 130, "share": 1, "pressure": "140/90", "words": ["a", "b"]});
        for arguments in [
            json!({"action": "list", "part": part}),
            json!({"action": "create", "name": null, "tags": [], "part": {"age": 0, "words": null}}),
        ] {
            outcome(&arguments).unwrap();
        }
    }

    #[test]
    fn an_error_never_repeats_what_the_caller_wrote() {
        for arguments in [
            json!({"action": "canary"}),
            json!({"action": {"canary": 1}}),
            json!({"action": "list", "name": ["canary"]}),
            json!({"action": "list", "password": "canary"}),
            json!({"action": "list", "Canary42": ""}),
            json!({"action": "list", "canary": ""}),
            json!({"action": "list", "part": {"age": "canary"}}),
            json!({"action": "list", "part": {"age": 1, "canary": ""}}),
            json!({"action": "list", "part": {"age": 1, "pressure": "canary"}}),
        ] {
            assert!(!message(&arguments).to_lowercase().contains("canary"), "{arguments}");
        }
    }

    #[test]
    fn what_may_be_a_secret_by_its_name_is_refused_with_the_reason() {
        for (name, is_warned_of) in
            [("password", true), ("API-Key", true), ("accessToken", true), ("limit", false), ("mood", false)]
        {
            let told = message(&json!({"action": "list", name: "x"}));
            assert!(told.contains("unknown argument"), "{told}");
            assert_eq!(told.contains("Never put a password"), is_warned_of, "{name}: {told}");
        }
    }

    #[test]
    fn what_a_host_adds_for_itself_is_taken_out_and_named() {
        let mut arguments = json!({"action": "list", "wait_for_previous": true}).as_object().unwrap().clone();
        assert_eq!(take_host_arguments(&mut arguments), ["wait_for_previous"]);
        assert_eq!(json!(arguments), json!({"action": "list"}));
        assert!(take_host_arguments(&mut arguments).is_empty());
    }
}
