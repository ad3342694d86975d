//! The tools, one file per family. All facts about a tool are in its [`ToolSpec`]; lists, sign-in, limits, audit and
//! the README's table are derived from it. Names, schemas and annotations are the contract with agents: snapshots in
//! `tests/` show every change.

mod api_keys;
mod health;
mod models;
mod schema;
mod session;

use std::{collections::BTreeMap, sync::Arc};

use futures_util::future::BoxFuture;
use rmcp::model::{JsonObject, Tool, ToolAnnotations};

#[cfg(test)]
pub(super) use self::schema::input_schema;
pub(super) use self::{
    api_keys::MANAGE_API_KEYS, health::MEDICATION_CHECK, health::SYMPTOM_ASSESSMENT, models::LIST_MODELS,
    session::AUTH_STATUS,
};
use super::{
    answer::{Content, Outcome, Source},
    call::Call,
    spending::Price,
    tool_error::ToolError,
};
use crate::account::RequiredCredential;

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
