//! The tools, one file a family. Their names, schemas and annotations are the contract with agents: golden files in
//! `tests/` show every change.

mod api_keys;
mod models;
mod session;

use std::sync::Arc;

use rmcp::{
    handler::server::{
        router::tool::ToolRouter,
        tool::{schema_for_input, schema_for_output},
    },
    model::JsonObject,
    schemars::JsonSchema,
};
use serde_json::Value;

use super::BondMcp;

impl BondMcp {
    pub(super) fn tools() -> ToolRouter<Self> {
        Self::session_tools() + Self::model_tools() + Self::api_key_tools()
    }
}

/// The schema of a tool's arguments. A type that is no object cannot be a tool's arguments; its schema is then empty,
/// which the test over the registry refuses.
fn input_schema<T: JsonSchema + 'static>() -> Arc<JsonObject> {
    schema_for_input::<T>().unwrap_or_default()
}

/// The schema of a tool's structured result.
fn output_schema<T: JsonSchema + 'static>() -> Arc<JsonObject> {
    let mut schema = Arc::unwrap_or_clone(schema_for_output::<T>());
    schema.values_mut().for_each(without_integer_formats);
    Arc::new(schema)
}

/// Drops schemars' `"format": "uint64"` and its kin: they are no formats of JSON Schema, and strict clients refuse them.
fn without_integer_formats(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            if fields.get("type").is_some_and(|kind| kind == "integer") {
                fields.remove("format");
            }
            fields.values_mut().for_each(without_integer_formats);
        }
        Value::Array(items) => items.iter_mut().for_each(without_integer_formats),
        _ => {}
    }
}
