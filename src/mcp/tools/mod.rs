//! The tools, one file per family. All facts about a tool are in its [`ToolSpec`]; lists, sign-in, limits, audit and
//! the README's table are derived from it. Names, schemas and annotations are the contract with agents: snapshots in
//! `tests/` show every change.

mod api_keys;
mod health;
mod models;
mod schema;
mod session;

use std::{any::Any, collections::BTreeMap, sync::Arc};

use futures_util::future::BoxFuture;
use rmcp::model::{JsonObject, Tool, ToolAnnotations};
use serde::Serialize;
use serde_json::{Number, Value};

#[cfg(test)]
pub(super) use self::schema::input_schema;
pub(super) use self::{
    api_keys::MANAGE_API_KEYS, health::MEDICATION_CHECK, health::SYMPTOM_ASSESSMENT, models::LIST_MODELS,
    session::AUTH_STATUS,
};
use super::{call::Call, guard::Repeated, spending::Price, tool_error::ToolError};
use crate::account::{RequiredCredential, Usd};

/// Tools that belong together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Toolset {
    /// Signing in and out.
    Session,
    /// What BondMCP offers.
    Models,
    /// API keys.
    Keys,
    /// The billed health services.
    Health,
}

/// The effects of a tool: MCP's hints except `openWorldHint`, which is true for all tools.
#[derive(Clone, Copy, Debug)]
pub(super) struct Effects {
    pub read_only: bool,
    pub destructive: bool,
    pub idempotent: bool,
}

/// A change that the person confirms first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct KeyChange {
    pub ending: KeyEnding,
    pub key_id: String,
}

/// How a key stops working.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KeyEnding {
    Rotate,
    Revoke,
}

impl KeyEnding {
    /// Returns its name as an action of the tool and a command.
    pub fn name(self) -> &'static str {
        match self {
            Self::Rotate => "rotate",
            Self::Revoke => "revoke",
        }
    }
}

/// The handler of a tool: makes one call.
pub(super) type Handler = for<'a> fn(&'a Call<'a>) -> BoxFuture<'a, Result<Outcome, ToolError>>;

/// The specification of one tool.
#[derive(Clone, Copy, Debug)]
pub(super) struct ToolSpec {
    pub name: &'static str,
    pub title: &'static str,
    pub description: &'static str,
    pub toolset: Toolset,
    pub effects: Effects,
    /// Credential that a call needs; a sign-in is started if there is none.
    pub credential: Option<RequiredCredential>,
    /// Whether the tool's own result says how to sign in, for hosts that cannot ask the person.
    pub explains_sign_in: bool,
    /// Price of a call; `None` for a free tool.
    pub price: Option<Price>,
    /// Extracts the action from the arguments, for the audit log.
    pub action: fn(&JsonObject) -> Option<&'static str>,
    /// Extracts the change that the person must confirm before the call is made.
    pub confirmation: fn(&JsonObject) -> Option<KeyChange>,
    pub input_schema: fn() -> Arc<JsonObject>,
    pub output_schema: fn() -> Arc<JsonObject>,
    pub run: Handler,
}

impl ToolSpec {
    /// Returns the tool's description for hosts.
    pub fn definition(&self) -> Tool {
        let Effects { read_only, destructive, idempotent } = self.effects;
        let hints =
            ToolAnnotations::from_raw(None, Some(read_only), Some(destructive), Some(idempotent), Some(true));
        Tool::new(self.name, self.description, (self.input_schema)())
            .with_title(self.title)
            .with_raw_output_schema((self.output_schema)())
            .with_annotations(hints)
    }
}

/// The result of a call that worked.
#[derive(Debug)]
pub(super) enum Content {
    /// The structured result; the text block is made of it.
    Fresh(JsonObject),
    /// The same, made of nothing but this value: what the guard has made of it can be sent again.
    Repeatable(JsonObject, Source),
    /// What the guard has made of it earlier.
    Repeated(Repeated),
}

impl Content {
    /// The structured result.
    pub fn into_object(self) -> JsonObject {
        match self {
            Self::Fresh(result) | Self::Repeatable(result, _) => result,
            Self::Repeated(answer) => answer.into_object(),
        }
    }
}

/// The value that a repeatable result is made of.
pub(super) type Source = Arc<dyn Any + Send + Sync>;

/// What a call that worked has brought.
#[derive(Debug)]
pub(super) struct Outcome {
    pub result: Content,
    /// What the call was counted as.
    pub cost: Option<Usd>,
    /// Id of the API key that the call concerned.
    pub key_id: Option<String>,
}

impl Outcome {
    /// Creates an outcome with `result`, which must serialize to a JSON object.
    pub fn of(result: &impl Serialize) -> Result<Self, ToolError> {
        let Ok(Value::Object(mut result)) = serde_json::to_value(result) else {
            return Err(ToolError::bug());
        };
        result.values_mut().for_each(write_numbers_plainly);
        Ok(Content::Fresh(result).into())
    }

    /// Adds a field to the result.
    pub fn with_field(self, name: &str, value: impl Into<Value>) -> Self {
        let mut result = self.result.into_object();
        result.insert(name.to_owned(), value.into());
        Self { result: Content::Fresh(result), ..self }
    }

    pub fn with_cost(self, cost: Usd) -> Self {
        Self { cost: Some(cost), ..self }
    }

    pub fn with_key(self, id: impl Into<String>) -> Self {
        Self { key_id: Some(id.into()), ..self }
    }
}

impl From<Content> for Outcome {
    fn from(result: Content) -> Self {
        Self { result, cost: None, key_id: None }
    }
}

/// Writes whole numbers as integers: `0`, not `0.0`. A host in JavaScript writes the structured result so, compares it
/// with the text, and shows both if they differ (Qwen Code).
fn write_numbers_plainly(value: &mut Value) {
    /// Beyond it a float does not hold every integer.
    const LARGEST: f64 = 9_007_199_254_740_992.0;
    match value {
        #[expect(clippy::cast_possible_truncation, reason = "it is whole and small enough")]
        Value::Number(number) if number.is_f64() => {
            let whole = number.as_f64().filter(|float| float.fract() == 0.0 && float.abs() <= LARGEST);
            if let Some(whole) = whole {
                *number = Number::from(whole as i64);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(write_numbers_plainly),
        Value::Object(fields) => fields.values_mut().for_each(write_numbers_plainly),
        _ => {}
    }
}

const FAMILIES: [&[ToolSpec]; 4] = [session::TOOLS, models::TOOLS, api_keys::TOOLS, health::TOOLS];

/// All tools, by name.
pub(super) fn all() -> BTreeMap<&'static str, &'static ToolSpec> {
    FAMILIES.into_iter().flatten().map(|tool| (tool.name, tool)).collect()
}

/// Returns the tool with this name.
pub(super) fn named(name: &str) -> Option<&'static ToolSpec> {
    FAMILIES.into_iter().flatten().find(|tool| tool.name == name)
}

/// The `action` of tools whose arguments name none.
fn no_action(_: &JsonObject) -> Option<&'static str> {
    None
}

/// The `confirmation` of tools that need none.
fn unconfirmed(_: &JsonObject) -> Option<KeyChange> {
    None
}

/// A tool for tests of code that calls tools.
#[cfg(test)]
pub(super) const TEMPLATE: ToolSpec = session::TOOLS[0];
