//! A failed call as MCP specifies it: a tool result with `isError`. Its text is a sentence for people and, on the last
//! line, JSON that an agent can act on. A text that was JSON alone would be taken for the tool's structured result by
//! some hosts (Gemini CLI), which hold it against the output schema and then hide it.

use rmcp::{ErrorData, model::JsonObject};
use serde_json::{Value, json};

use crate::{
    account,
    bondmcp::POSSIBLY_BILLED,
    error::{Kind, UserFacingError},
};

/// Returns the text of a failure: its message, then `json` on a line of its own. `report` is what `json` was made of.
pub(super) fn text(report: &Value, json: &str) -> String {
    format!("{}\n{json}", report["error"]["message"].as_str().unwrap_or("The call failed."))
}

/// The failure of a call.
#[derive(Debug)]
pub struct ToolError {
    report: UserFacingError,
    possibly_billed: bool,
    /// The account that signed in since the previous answer.
    signed_in_as: Option<String>,
}

impl ToolError {
    pub fn new(kind: Kind, message: impl Into<String>, solution: impl Into<String>) -> Self {
        UserFacingError::new(kind, message, solution).into()
    }

    /// Returns the failure for a bug in this server.
    pub fn bug() -> Self {
        Self::new(
            Kind::Internal,
            "Internal server error.",
            "This is a bug; the person can report it with the server's log.",
        )
    }

    /// A bug of ours while BondMCP may have billed the call.
    pub fn billed_bug() -> Self {
        Self::new(Kind::Internal, Self::bug().report.message, POSSIBLY_BILLED).possibly_billed()
    }

    pub fn kind(&self) -> Kind {
        self.report.kind
    }

    /// Whether BondMCP may have billed the call.
    pub fn is_possibly_billed(&self) -> bool {
        self.possibly_billed
    }

    /// Adds that BondMCP may have billed the call.
    pub fn possibly_billed(self) -> Self {
        Self { possibly_billed: true, ..self }
    }

    pub fn signed_in_as(self, name: String) -> Self {
        Self { signed_in_as: Some(name), ..self }
    }

    /// `{"error": {kind, message, solution, …}}`.
    pub fn to_json(&self) -> JsonObject {
        let mut content = JsonObject::new();
        content.insert("error".to_owned(), json!(self.report));
        if let Some(name) = &self.signed_in_as {
            content.insert("signed_in_as".to_owned(), name.as_str().into());
        }
        content
    }

    /// Converts the failure for requests whose results cannot report one.
    pub fn into_protocol_error(self) -> ErrorData {
        let words = format!("{} {}", self.report.message, self.report.solution);
        ErrorData::internal_error(words, Some(Value::Object(self.to_json())))
    }
}

impl From<UserFacingError> for ToolError {
    fn from(report: UserFacingError) -> Self {
        Self { report, possibly_billed: false, signed_in_as: None }
    }
}

impl From<account::Error> for ToolError {
    fn from(error: account::Error) -> Self {
        Self { possibly_billed: error.is_possibly_billed(), ..UserFacingError::from(&error).into() }
    }
}
