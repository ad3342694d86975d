//! `list_models`: what BondMCP offers.

use rmcp::{handler::server::wrapper::Json, schemars, schemars::JsonSchema, tool, tool_router};
use serde::{Deserialize, Serialize};

use super::super::{BondMcp, arguments::Arguments, failure::Failure};
use crate::{bondmcp::wire::Model, clock::Timestamp};

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ListModelsArguments {
    /// Ask BondMCP again instead of taking a list that is up to five minutes old.
    refresh: Option<bool>,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(in crate::mcp) struct ListModelsResult {
    models: Vec<Model>,
    count: usize,
    /// When BondMCP gave this list (RFC 3339).
    fetched_at: Timestamp,
    /// It was not asked anew.
    from_cache: bool,
    /// Why this is an older list.
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<String>,
}

#[tool_router(router = model_tools, vis = "pub(super)")]
impl BondMcp {
    #[tool(
        title = "List BondMCP models",
        description = "Lists the health-AI models that BondMCP offers to the signed-in account. Free of charge.",
        annotations(read_only_hint = true, destructive_hint = false, idempotent_hint = true, open_world_hint = true),
        output_schema = super::output_schema::<ListModelsResult>(),
        input_schema = super::input_schema::<ListModelsArguments>()
    )]
    async fn list_models(
        &self,
        Arguments(arguments): Arguments<ListModelsArguments>,
    ) -> Result<Json<ListModelsResult>, Failure> {
        Ok(Json(self.models(arguments.refresh.unwrap_or(false)).await?))
    }

    pub(in crate::mcp) async fn models(&self, refresh: bool) -> Result<ListModelsResult, Failure> {
        let list = self.account().list_models(refresh).await?;
        Ok(ListModelsResult {
            count: list.models.len(),
            models: list.models,
            fetched_at: list.fetched_at,
            from_cache: list.from_cache,
            note: list.outage.map(|outage| format!("{outage}; this is the list as it was at `fetched_at`.")),
        })
    }
}
