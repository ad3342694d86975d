//! What is kept of a call: that it was made, by whom and how it ended. Nothing of what it asked or was told.

use std::time::Duration;

use rmcp::{
    ErrorData, RoleServer,
    model::{CallToolRequestParams, CallToolResponse, CallToolResult},
    service::RequestContext,
};
use serde_json::Value;

use super::{BondMcp, tools};
use crate::account::AuditEntry;

/// What is known of a call before it is made.
pub(super) struct Call {
    /// `unknown` for a name that is the caller's invention.
    pub tool: String,
    host: Option<String>,
    action: Option<String>,
    key_id: Option<String>,
}

/// How a call ended.
pub(super) struct Ending {
    pub outcome: String,
    pub cost: Option<f64>,
    /// It was cut off, and a billed request may have been under way.
    pub possibly_billed: bool,
}

impl Call {
    pub fn of(
        server: &BondMcp,
        request: &CallToolRequestParams,
        context: &RequestContext<RoleServer>,
    ) -> Self {
        let tool = server.inner.tools.get(&request.name).map(|tool| tool.name.to_string());
        let arguments = request.arguments.as_ref().filter(|_| request.name == tools::MANAGE_API_KEYS);
        let argument = |name: &str| arguments?.get(name)?.as_str();
        Self {
            tool: tool.unwrap_or_else(|| "unknown".to_owned()),
            host: server.host_name(context),
            action: argument("action").filter(|action| tools::is_key_action(action)).map(ToOwned::to_owned),
            key_id: argument("key_id").map(ToOwned::to_owned),
        }
    }

    /// Its line in the audit file. The key's id stands in it once the call has shown that it is one.
    pub fn entry(
        self,
        server: &BondMcp,
        answer: &Result<CallToolResponse, ErrorData>,
        ending: &Ending,
        duration: Duration,
    ) -> AuditEntry {
        let made = match answer {
            Ok(CallToolResponse::Complete(CallToolResult { structured_content: Some(content), .. }))
                if self.action.as_deref() == Some("create") =>
            {
                content["keys"][0]["id"].as_str().map(ToOwned::to_owned)
            }
            _ => None,
        };
        AuditEntry {
            time: server.account().now(),
            owner: server.account().profile().to_owned(),
            host: self.host,
            tool: self.tool,
            action: self.action,
            outcome: ending.outcome.clone(),
            duration_ms: u64::try_from(duration.as_millis()).unwrap_or(u64::MAX),
            cost: ending.cost,
            possibly_billed: ending.possibly_billed,
            key_id: made.or(self.key_id.filter(|_| ending.outcome == "ok")),
        }
    }
}

impl Ending {
    pub fn of(tool: &str, answer: &Result<CallToolResponse, ErrorData>) -> Self {
        let (outcome, cost) = match answer {
            Ok(CallToolResponse::Complete(result)) if result.is_error == Some(true) => (kind(result), None),
            Ok(CallToolResponse::Complete(result)) => {
                let content = result.structured_content.as_ref().filter(|_| tools::is_billed(tool));
                ("ok".to_owned(), content.and_then(|content| content["cost"].as_f64()))
            }
            Ok(_) => ("input_required".to_owned(), None),
            Err(_) => ("refused".to_owned(), None),
        };
        Self { outcome, cost, possibly_billed: false }
    }

    pub fn cut(how: &str, possibly_billed: bool) -> Self {
        Self { outcome: how.to_owned(), cost: None, possibly_billed }
    }
}

/// The kind of a failure, out of its JSON.
fn kind(result: &CallToolResult) -> String {
    let text = result.content.first().and_then(|block| block.as_text());
    let told: Option<Value> = text.and_then(|text| serde_json::from_str(&text.text).ok());
    let kind = told.as_ref().and_then(|told| told["error"]["kind"].as_str());
    kind.unwrap_or("failed").to_owned()
}
