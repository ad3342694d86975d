//! The schemas of arguments and results, in the subset of JSON Schema that every client supports.

use std::sync::Arc;

use rmcp::{
    model::JsonObject,
    schemars::{JsonSchema, generate::SchemaSettings},
};
use serde_json::Value;

/// Returns the schema of a tool's arguments. They must be an object, which a test over all tools checks.
pub(in crate::mcp) fn input_schema<T: JsonSchema>() -> Arc<JsonObject> {
    schema::<T>(SchemaSettings::draft2020_12())
}

/// Returns the schema of a tool's structured result.
pub(in crate::mcp) fn output_schema<T: JsonSchema>() -> Arc<JsonObject> {
    schema::<T>(SchemaSettings::draft2020_12().for_serialize())
}

/// Rewrites schemars' output. An optional field is omitted, never null, so `null` is removed from its types; and
/// `"format": "uint64"`, `"double"` and the like are not JSON Schema formats. rmcp's own functions are not used because
/// they keep two further copies of every schema for the life of the process, a fifth of its memory.
fn schema<T: JsonSchema>(settings: SchemaSettings) -> Arc<JsonObject> {
    let mut schema = Value::from(settings.into_generator().into_root_schema_for::<T>());
    simplify(&mut schema);
    let Value::Object(mut schema) = schema else { return Arc::default() };
    schema.remove("title");
    schema.remove("description");
    Arc::new(schema)
}

fn simplify(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            if let Some(Value::Array(types)) = fields.get_mut("type") {
                types.retain(|name| name != "null");
                if let [only] = &types[..] {
                    let only = only.clone();
                    fields.insert("type".to_owned(), only);
                }
            }
            if let Some(Value::Array(alternatives)) = fields.get_mut("anyOf") {
                alternatives.retain(|alternative| alternative["type"] != "null");
                if let [Value::Object(only)] = &alternatives[..] {
                    let only = only.clone();
                    fields.remove("anyOf");
                    fields.extend(only);
                }
            }
            if fields.get("type").is_some_and(|name| name == "integer" || name == "number") {
                fields.remove("format");
            }
            fields.values_mut().for_each(simplify);
        }
        Value::Array(items) => items.iter_mut().for_each(simplify),
        _ => {}
    }
}
