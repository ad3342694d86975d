//! The tools, one file a family. Their names, schemas and annotations are the contract with agents: golden files in
//! `tests/` show every change.

mod api_keys;
mod health;
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

use super::{BondMcp, selection::Toolset};
use crate::account::Need;

/// Besides a tool, resources and completions depend on it.
pub(super) const MANAGE_API_KEYS: &str = "manage_api_keys";

impl BondMcp {
    pub(super) fn tools() -> ToolRouter<Self> {
        Self::session_tools() + Self::model_tools() + Self::api_key_tools() + Self::health_tools()
    }
}

/// What a tool needs of the account before it can begin.
pub(super) fn need(tool: &str) -> Option<Need> {
    match tool {
        "list_models" | "login" | "register" => Some(Need::Api),
        MANAGE_API_KEYS => Some(Need::Session),
        _ if is_billed(tool) => Some(Need::Api),
        _ => None,
    }
}

/// Whether `manage_api_keys` knows this action.
pub(super) fn is_key_action(action: &str) -> bool {
    api_keys::ACTIONS.contains(&action)
}

/// Which tools a tool belongs to.
pub(super) fn toolset(tool: &str) -> Toolset {
    match tool {
        "list_models" => Toolset::Models,
        MANAGE_API_KEYS => Toolset::Keys,
        _ if is_billed(tool) => Toolset::Health,
        _ => Toolset::Session,
    }
}

/// Whether a call of this tool costs money.
pub(super) fn is_billed(tool: &str) -> bool {
    health::PRICES.iter().any(|(name, _)| *name == tool)
}

/// Whether a tool's own result says how to sign in.
pub(super) fn tells_how_to_sign_in(tool: &str) -> bool {
    matches!(tool, "login" | "register")
}

/// The schema of a tool's arguments. A type that is no object cannot be a tool's arguments; its schema is then empty,
/// which the test over the registry refuses.
pub(super) fn input_schema<T: JsonSchema + 'static>() -> Arc<JsonObject> {
    portable(schema_for_input::<T>().unwrap_or_default())
}

/// The schema of a tool's structured result.
fn output_schema<T: JsonSchema + 'static>() -> Arc<JsonObject> {
    portable(schema_for_output::<T>())
}

/// Says what schemars says in words that every client understands. An optional field is left out, never null, so `null`
/// is dropped from its types; and `"format": "uint64"`, `"double"` and their kin are no formats of JSON Schema.
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
