//! The schemas of arguments and results, in the subset of JSON Schema that every client supports. Hosts put the schemas
//! of arguments into every prompt, so they hold nothing that says nothing.

use std::sync::Arc;

use rmcp::{
    model::JsonObject,
    schemars::{JsonSchema, generate::SchemaSettings},
};
use serde_json::{Value, json};

/// Returns the schema of a tool's arguments. They must be an object, which a test over all tools checks.
pub(in crate::mcp) fn input_schema<T: JsonSchema>() -> Arc<JsonObject> {
    schema::<T>(SchemaSettings::draft2020_12())
}

/// Returns the schema of a tool's structured result. Its text is the same JSON, so the schema says only what that does
/// not: what may be missing, what else a word may be, and units.
pub(in crate::mcp) fn output_schema<T: JsonSchema>() -> Arc<JsonObject> {
    schema::<T>(SchemaSettings::draft2020_12().for_serialize())
}

/// Rewrites schemars' output. An optional field is omitted, never null, so `null` is removed from its types;
/// `"format": "uint64"`, `"double"` and the like are not JSON Schema formats; and a schema is open unless it says
/// otherwise. rmcp's own functions are not used because they keep two further copies of every schema for the life of the
/// process, a fifth of its memory.
fn schema<T: JsonSchema>(settings: SchemaSettings) -> Arc<JsonObject> {
    // The draft that is used is MCP's default.
    let settings = settings.with(|settings| settings.meta_schema = None);
    let Value::Object(mut schema) = Value::from(settings.into_generator().into_root_schema_for::<T>()) else {
        return Arc::default();
    };
    let definitions = schema.remove("$defs");
    schema.remove("title");
    schema.remove("description");
    let mut schema = Value::Object(schema);
    simplify(&mut schema, &definitions.unwrap_or_default());
    let Value::Object(schema) = schema else { return Arc::default() };
    Arc::new(schema)
}

/// Puts the definition in the place of a reference: the converters of some hosts read `$ref` as a value of any type, or
/// fail. The field says what it is; the description of its type says less.
fn inline(fields: &mut JsonObject, definitions: &Value) {
    let Some(Value::String(reference)) = fields.remove("$ref") else { return };
    let name = reference.trim_start_matches("#/$defs/");
    for (word, value) in definitions[name].as_object().into_iter().flatten() {
        if word != "description" {
            fields.entry(word).or_insert_with(|| value.clone());
        }
    }
}

fn simplify(schema: &mut Value, definitions: &Value) {
    match schema {
        Value::Object(fields) => {
            if let Some(Value::Array(types)) = fields.get_mut("type") {
                types.retain(|name| name != "null");
                if let [only] = &types[..] {
                    let only = only.clone();
                    fields.insert("type".to_owned(), only);
                }
            }
            inline(fields, definitions);
            while take_only_alternative(fields) {
                inline(fields, definitions);
            }
            if fields.get("type").is_some_and(|name| name == "integer" || name == "number") {
                fields.remove("format");
            }
            if fields.get("additionalProperties") == Some(&Value::Bool(true)) {
                fields.remove("additionalProperties");
            }
            if let Some(words) = fields.get("oneOf").and_then(words) {
                fields.remove("oneOf");
                fields.insert("type".to_owned(), "string".into());
                fields.insert("enum".to_owned(), words);
            }
            // Zero is the least of every unsigned integer, and a default is for those who leave the field out.
            if fields.get("minimum").is_some_and(|least| *least == 0) && !fields.contains_key("maximum") {
                fields.remove("minimum");
            }
            fields.remove("default");
            fields.retain(|word, value| word != "items" || *value != json!({}));
            fields.values_mut().for_each(|field| simplify(field, definitions));
        }
        Value::Array(items) => items.iter_mut().for_each(|item| simplify(item, definitions)),
        _ => {}
    }
}

/// Puts the alternative other than `null` in the place of an `anyOf`, if it is the only one.
fn take_only_alternative(fields: &mut JsonObject) -> bool {
    let Some(Value::Array(alternatives)) = fields.get_mut("anyOf") else { return false };
    alternatives.retain(|alternative| alternative["type"] != "null");
    let [Value::Object(only)] = &mut alternatives[..] else { return false };
    let only = std::mem::take(only);
    fields.remove("anyOf");
    fields.extend(only);
    true
}

/// The words that a string may be, where the alternatives are nothing else.
fn words(alternatives: &Value) -> Option<Value> {
    let mut words = Vec::new();
    for alternative in alternatives.as_array()? {
        match (alternative.get("const"), alternative.get("enum")) {
            (Some(word @ Value::String(_)), None) => words.push(word.clone()),
            (None, Some(Value::Array(several))) => words.extend(several.iter().cloned()),
            _ => return None,
        }
    }
    Some(Value::Array(words))
}
