//! `list_models`: what BondMCP offers.

use rmcp::{schemars, schemars::JsonSchema};
use serde::{Deserialize, Serialize};

use super::{
    Content, Effects, Outcome, Source, ToolSpec, Toolset, no_action,
    schema::{input_schema, output_schema},
    unconfirmed,
};
use crate::{
    account::RequiredCredential,
    bondmcp::wire::Model,
    clock::Timestamp,
    mcp::{OwnerServer, tool_error::ToolError},
};

pub(super) const TOOLS: &[ToolSpec] = &[ToolSpec {
    name: LIST_MODELS,
    title: "List BondMCP models",
    description: "Lists the health-AI models of BondMCP. Free of charge.",
    toolset: Toolset::Models,
    effects: Effects { read_only: true, destructive: false, idempotent: true },
    credential: Some(RequiredCredential::Api),
    explains_sign_in: false,
    price: None,
    action: no_action,
    confirmation: unconfirmed,
    input_schema: input_schema::<ListModelsArguments>,
    output_schema: output_schema::<ListModelsResult<'_>>,
    run: |call| {
        Box::pin(async move {
            let arguments: ListModelsArguments = call.arguments()?;
            call.server.models(arguments.refresh.unwrap_or(false)).await
        })
    },
}];

/// Besides the tool, a resource depends on it.
pub(in crate::mcp) const LIST_MODELS: &str = "list_models";

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ListModelsArguments {
    /// Whether to ask BondMCP again; else the list is up to five minutes old.
    refresh: Option<bool>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct ListModelsResult<'a> {
    models: &'a [Model],
    count: usize,
    /// When BondMCP gave this list.
    fetched_at: Timestamp,
    /// Whether the list was taken from memory.
    from_cache: bool,
    /// Why this is an older list.
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<String>,
}

impl OwnerServer {
    pub(in crate::mcp) async fn models(&self, refresh: bool) -> Result<Outcome, ToolError> {
        let list = self.account.list_models(refresh).await?;
        // Agents ask for the list often, and it is the same for minutes.
        let repeats = list.from_cache && list.outage.is_none();
        let source: Source = list.models.clone();
        if repeats && let Some(answer) = self.guard.repeated(&source) {
            return Ok(Content::Repeated(answer).into());
        }
        let outcome = Outcome::of(&ListModelsResult {
            count: list.models.len(),
            models: &list.models,
            fetched_at: list.fetched_at,
            from_cache: list.from_cache,
            note: list.outage.map(|outage| format!("{outage}; this is the list as of `fetched_at`.")),
        })?;
        Ok(match outcome.result {
            Content::Fresh(result) if repeats => Content::Repeatable(result, source).into(),
            result => result.into(),
        })
    }
}
