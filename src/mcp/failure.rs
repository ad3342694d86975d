//! A failed call as MCP wants it: a tool result with `isError`, whose text is JSON that an agent can act on.

use rmcp::{
    ErrorData,
    model::{CallToolResult, ContentBlock, IntoContents},
};
use serde_json::json;

use crate::{
    account,
    error::{Kind, Report},
};

/// Why a call failed. As the error of a tool it becomes `{"error": {kind, message, solution, …}}`.
#[derive(Debug)]
pub struct Failure(Report);

impl Failure {
    pub fn new(kind: Kind, message: impl Into<String>, solution: impl Into<String>) -> Self {
        Self(Report::new(kind, message, solution))
    }

    pub fn into_result(self) -> CallToolResult {
        CallToolResult::error(self.into_contents())
    }

    /// For requests whose results cannot say that they failed.
    pub fn into_protocol_error(self) -> ErrorData {
        let words = format!("{} {}", self.0.message, self.0.solution);
        ErrorData::internal_error(words, Some(json!({ "error": self.0 })))
    }

    /// The failure that travelled through rmcp's router as an error.
    pub fn carried(error: &ErrorData) -> Option<CallToolResult> {
        let failure = error.data.as_ref().filter(|data| data.get("error").is_some())?;
        Some(CallToolResult::error(vec![ContentBlock::text(failure.to_string())]))
    }
}

impl From<Report> for Failure {
    fn from(report: Report) -> Self {
        Self(report)
    }
}

impl From<account::Error> for Failure {
    fn from(error: account::Error) -> Self {
        Self(Report::from(&error))
    }
}

impl From<Failure> for ErrorData {
    fn from(Failure(report): Failure) -> Self {
        Self::invalid_params(report.message.clone(), Some(json!({ "error": report })))
    }
}

impl IntoContents for Failure {
    fn into_contents(self) -> Vec<ContentBlock> {
        vec![ContentBlock::text(json!({ "error": self.0 }).to_string())]
    }
}
