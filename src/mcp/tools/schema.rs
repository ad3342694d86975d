//! The schemas of arguments and results, in the part of JSON Schema that every client understands.

use std::sync::Arc;

use rmcp::{
    handler::server::tool::{schema_for_input, schema_for_output},
    model::JsonObject,
    schemars::JsonSchema,
};
use serde_json::Value;

/// The schema of a tool's arguments. A type that is no object cannot be a tool's arguments; its schema is then empty,
/// which the test over the registry refuses.
pub(in crate::mcp) fn input_schema<T: JsonSchema + 'static>() -> Arc<JsonObject> {
    portable(schema_for_input::<T>().unwrap_or_default())
}

/// The schema of a tool's structured result.
pub(in crate::mcp) fn output_schema<T: JsonSchema + 'static>() -> Arc<JsonObject> {
    portable(schema_for_output::<T>())
}

/// Rewrites what schemars writes. An optional field is left out, never null, so `null` is dropped from its types; and
/// `"format": "uint64"`, `"double"` and their kin are no formats of JSON Schema.
fn portable(schema: Arc<JsonObject>) -> Arc<JsonObject> {
    let mut schema = Value::Object(Arc::unwrap_or_clone(schema));
    simplify(&mut schema);
    match schema {
        Value::Object(schema) => Arc::new(schema),
        _ => Arc::default(),
    }
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
