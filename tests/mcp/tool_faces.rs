//! The tools as agents see them. Each tool has a snapshot, so that changes are visible in review; rules for all tools
//! are tests over all tools.

use crate::common::{Place, Server, like_the_seed, sandbox};
use rmcp::model::Tool;
use serde_json::{Value, json};

async fn tools() -> Vec<Tool> {
    let sandbox = sandbox(like_the_seed()).await;
    let server = Server::start(&Place::new(&sandbox)).await;
    server.client.list_all_tools().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_face_is_as_it_was_reviewed() {
    for tool in tools().await {
        insta::assert_json_snapshot!(tool.name.to_string(), tool);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_tool_keeps_the_rules() {
    let tools = tools().await;
    let names: Vec<_> = tools.iter().map(|tool| tool.name.as_ref()).collect();
    assert!(names.is_sorted(), "{names:?}");
    for tool in &tools {
        let name = &tool.name;
        assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_') && name.len() <= 32, "{name}");
        assert!(tool.title.as_ref().is_some_and(|title| !title.is_empty()), "{name}");
        assert!(tool.description.as_ref().is_some_and(|text| text.len() > 40), "{name}");
        let hints = tool.annotations.as_ref().unwrap();
        for hint in
            [hints.read_only_hint, hints.destructive_hint, hints.idempotent_hint, hints.open_world_hint]
        {
            assert!(hint.is_some(), "{name} says all four hints");
        }
        assert_eq!(tool.input_schema["type"], "object", "{name}");
        assert_eq!(tool.input_schema["additionalProperties"], false, "{name} is closed");
        assert_eq!(tool.output_schema.as_ref().unwrap()["type"], "object", "{name}");
        for (argument, schema) in
            tool.input_schema.get("properties").and_then(Value::as_object).into_iter().flatten()
        {
            asks_for_no_secret(name, argument, schema);
        }
        let input = Value::Object(tool.input_schema.as_ref().clone());
        enforced(name, &input);
        said(name, &input);
        let schemas = [&tool.input_schema, tool.output_schema.as_ref().unwrap()];
        for schema in schemas {
            strict(name, &Value::Object(schema.as_ref().clone()));
        }
    }
}

/// Hosts put names, descriptions and input schemas into every prompt. The bounds in bytes stand for 2,000 tokens of these
/// and 4,500 of the whole list, which `tests/hosts/weight.mjs` counts.
#[tokio::test(flavor = "multi_thread")]
async fn the_tools_are_light() {
    let tools = tools().await;
    let given: usize = tools
        .iter()
        .map(|tool| json!({"name": tool.name, "description": tool.description, "inputSchema": tool.input_schema}))
        .map(|given| given.to_string().len())
        .sum();
    let all: usize = tools.iter().map(|tool| serde_json::to_string(tool).unwrap().len()).sum();
    assert!(given <= 8_000 && all <= 18_000, "{given} and {all} bytes");
}

fn asks_for_no_secret(tool: &str, argument: &str, schema: &Value) {
    assert!(schema["description"].is_string(), "{tool}: {argument} is described");
    for word in ["password", "token", "secret", "credential", "api_key", "passphrase"] {
        let description = schema["description"].as_str().unwrap().to_lowercase();
        assert!(
            !argument.contains(word) && !description.contains(word),
            "{tool}: {argument} asks for a {word}"
        );
    }
}

/// An input schema uses only keywords that the validation of arguments supports.
fn enforced(tool: &str, schema: &Value) {
    let Value::Object(fields) = schema else { return };
    for (word, value) in fields {
        match word.as_str() {
            "const" | "description" | "enum" | "maxItems" | "maxLength" | "maximum" | "minItems"
            | "minLength" | "minimum" | "required" | "type" => {}
            "additionalProperties" => assert!(value.is_boolean(), "{tool}: {schema}"),
            "pattern" => assert!(regex_lite::Regex::new(value.as_str().unwrap()).is_ok(), "{tool}: {schema}"),
            "properties" => {
                value.as_object().unwrap().values().for_each(|part| enforced(tool, part));
            }
            "anyOf" | "oneOf" => value.as_array().unwrap().iter().for_each(|part| enforced(tool, part)),
            "items" => enforced(tool, value),
            _ => panic!("{tool}: `{word}` is not enforced"),
        }
    }
}

/// Some hosts drop these keywords, so the description says the same.
fn said(tool: &str, schema: &Value) {
    for (argument, schema) in schema["properties"].as_object().into_iter().flatten() {
        let description = schema["description"].as_str().unwrap_or_default();
        let says = |words: &str| assert!(description.contains(words), "{tool}: {argument}: {description}");
        for schema in [schema, &schema["items"]] {
            for (word, value) in schema.as_object().into_iter().flatten() {
                match (word.as_str(), value.as_u64()) {
                    ("minLength", Some(1)) => says("empty"),
                    ("minItems", Some(1)) => says("at least one"),
                    ("pattern" | "examples", _) => panic!("{tool}: {argument} has a `{word}`"),
                    ("minLength" | "minItems" | "minimum" | "maxLength" | "maxItems" | "maximum", _) => {
                        says(&value.to_string());
                    }
                    _ => {}
                }
            }
            said(tool, schema);
        }
    }
}

/// One type each, only standard formats, no references: the converters of some hosts know none.
fn strict(tool: &str, schema: &Value) {
    match schema {
        Value::Object(fields) => {
            let kind = &schema["type"];
            assert!(!kind.is_array(), "{tool}: {schema}");
            assert!(kind != "integer" || schema["format"].is_null(), "{tool}: {schema}");
            assert!(schema["$ref"].is_null(), "{tool}: {schema}");
            fields.values().for_each(|field| strict(tool, field));
        }
        Value::Array(items) => items.iter().for_each(|item| strict(tool, item)),
        _ => {}
    }
}
