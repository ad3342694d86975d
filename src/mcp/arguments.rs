//! Reading a tool's arguments. An error names the argument and what was expected of it, and never repeats a value: an
//! agent may have put a secret or somebody's health there.

use std::fmt::Write as _;

use rmcp::{
    ErrorData,
    handler::server::{
        common::FromContextPart,
        tool::{ToolCallContext, schema_for_input},
    },
    model::JsonObject,
    schemars::JsonSchema,
};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::failure::Failure;
use crate::error::{Kind, Report};

/// The arguments of a tool, in place of rmcp's `Parameters`, whose errors repeat what was wrong.
#[derive(Debug)]
pub struct Arguments<T>(pub T);

impl<S, T> FromContextPart<ToolCallContext<'_, S>> for Arguments<T>
where
    T: DeserializeOwned + JsonSchema + 'static,
{
    fn from_context_part(context: &mut ToolCallContext<S>) -> Result<Self, ErrorData> {
        let arguments = context.arguments.take().unwrap_or_default();
        parse(arguments).map(Self).map_err(|report| Failure::from(report).into())
    }
}

fn parse<T: DeserializeOwned + JsonSchema + 'static>(arguments: JsonObject) -> Result<T, Report> {
    let schema = schema_for_input::<T>().unwrap_or_default();
    let none = JsonObject::new();
    let known = schema.get("properties").and_then(Value::as_object).unwrap_or(&none);
    if let Some(name) = arguments.keys().find(|name| !known.contains_key(*name)) {
        return Err(unknown(name, known));
    }
    let required = schema.get("required").and_then(Value::as_array).into_iter().flatten();
    if let Some(name) = required.filter_map(Value::as_str).find(|name| !arguments.contains_key(*name)) {
        return Err(Report::new(
            Kind::InvalidInput,
            format!("The argument `{name}` is missing."),
            expected(name, known, &schema),
        ));
    }
    serde_path_to_error::deserialize(Value::Object(arguments)).map_err(|error| {
        let path = error.path().to_string();
        let name = path.split(['.', '[']).next().unwrap_or_default();
        Report::new(
            Kind::InvalidInput,
            format!("The argument `{path}` does not fit."),
            expected(name, known, &schema),
        )
    })
}

/// An argument that no tool takes. Its name is the agent's, so it is repeated only where it looks like a name.
fn unknown(name: &str, known: &JsonObject) -> Report {
    let plain = name.len() <= 32 && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
    let shown = if plain { format!("`{name}`") } else { "given".to_owned() };
    let mut solution = String::from("Never put a password, token or API key into the chat or a tool call. ");
    if known.is_empty() {
        solution.push_str("This tool takes no arguments.");
    } else {
        let names: Vec<String> = known.keys().map(|name| format!("`{name}`")).collect();
        let _ = write!(solution, "This tool takes {}.", names.join(", "));
    }
    Report::new(Kind::InvalidInput, format!("There is no argument {shown}."), solution)
}

fn expected(name: &str, known: &JsonObject, schema: &JsonObject) -> String {
    let Some(property) = known.get(name) else { return "Read the tool's input schema.".to_owned() };
    match shape(property, schema) {
        Some(shape) => format!("Expected {shape}."),
        None => "Read the tool's input schema.".to_owned(),
    }
}

/// What a property's schema asks for, in words.
fn shape(property: &Value, schema: &JsonObject) -> Option<String> {
    if let Some(reference) = property["$ref"].as_str() {
        let name = reference.strip_prefix("#/$defs/")?;
        return shape(schema.get("$defs")?.get(name)?, schema);
    }
    if let Some(values) = property["enum"].as_array() {
        let values: Vec<String> = values.iter().filter(|v| !v.is_null()).map(ToString::to_string).collect();
        return Some(format!("one of {}", values.join(", ")));
    }
    for alternatives in ["anyOf", "oneOf"] {
        if let Some(alternatives) = property[alternatives].as_array() {
            return alternatives.iter().find_map(|alternative| shape(alternative, schema));
        }
    }
    let name = match &property["type"] {
        Value::Array(names) => names.iter().filter_map(Value::as_str).find(|name| *name != "null")?,
        name => name.as_str()?,
    };
    match name {
        "array" => Some(match shape(&property["items"], schema) {
            Some(item) => format!("an array, each entry {item}"),
            None => "an array".to_owned(),
        }),
        "null" => None,
        "integer" | "object" => Some(format!("an {name}")),
        _ => Some(format!("a {name}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rmcp::schemars;
    use serde::Deserialize;
    use serde_json::json;

    #[derive(Debug, Deserialize, JsonSchema)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only parsed")]
    struct Example {
        action: Action,
        name: Option<String>,
        tags: Option<Vec<Action>>,
    }

    #[derive(Debug, Deserialize, JsonSchema)]
    #[serde(rename_all = "snake_case")]
    enum Action {
        List,
        Create,
    }

    fn refusal(arguments: &Value) -> String {
        parse::<Example>(arguments.as_object().unwrap().clone()).unwrap_err().to_string()
    }

    #[test]
    fn an_error_names_the_argument_and_what_was_expected() {
        assert_eq!(
            refusal(&json!({})),
            r#"The argument `action` is missing. Expected one of "list", "create"."#
        );
        assert_eq!(
            refusal(&json!({"action": "list", "name": 7})),
            "The argument `name` does not fit. Expected a string."
        );
        assert_eq!(
            refusal(&json!({"action": "list", "tags": ["list", "x"]})),
            r#"The argument `tags[1]` does not fit. Expected an array, each entry one of "list", "create"."#
        );
    }

    #[test]
    fn an_error_never_repeats_a_value() {
        for arguments in [
            json!({"action": "canary"}),
            json!({"action": {"canary": 1}}),
            json!({"action": "list", "name": ["canary"]}),
            json!({"action": "list", "password": "canary"}),
            json!({"action": "list", "Canary42": ""}),
        ] {
            assert!(!refusal(&arguments).to_lowercase().contains("canary"), "{arguments}");
        }
    }

    #[test]
    fn a_password_is_refused_with_the_reason() {
        let refusal = refusal(&json!({"action": "list", "password": "x"}));
        assert!(refusal.contains("no argument `password`") && refusal.contains("Never put a password"));
    }
}
