//! What a tool call is answered with: a result, a failure or a question to the person.

use std::{any::Any, sync::Arc};

use rmcp::model::{CallToolResult, InputRequiredResult, JsonObject};
use serde::Serialize;
use serde_json::{Number, Value};

use super::tool_error::ToolError;
use crate::account::Usd;

/// What a call is answered with.
pub(super) enum Answer {
    Done(Outcome),
    Failed(ToolError),
    /// The person is asked something first.
    Ask(InputRequiredResult),
}

impl Answer {
    /// Adds the names of the arguments that were ignored, as hosts add them and not agents.
    pub fn with_ignored(self, names: Vec<&'static str>) -> Self {
        match self {
            Self::Done(outcome) if !names.is_empty() => {
                Self::Done(outcome.with_field("ignored_arguments", names))
            }
            other => other,
        }
    }
}

impl From<ToolError> for Answer {
    fn from(failure: ToolError) -> Self {
        Self::Failed(failure)
    }
}

impl From<InputRequiredResult> for Answer {
    fn from(question: InputRequiredResult) -> Self {
        Self::Ask(question)
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

/// An answer that was sent before.
#[derive(Debug)]
pub(super) struct Repeated {
    /// The redactor's revision with which it was searched.
    pub revision: u64,
    pub answer: CallToolResult,
}

impl Repeated {
    /// The structured result.
    pub fn into_object(self) -> JsonObject {
        match self.answer.structured_content {
            Some(Value::Object(result)) => result,
            _ => JsonObject::new(),
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
    const MAX_INTEGER: f64 = 9_007_199_254_740_992.0;
    match value {
        #[expect(clippy::cast_possible_truncation, reason = "it is whole and small enough")]
        Value::Number(number) if number.is_f64() => {
            let whole = number.as_f64().filter(|float| float.fract() == 0.0 && float.abs() <= MAX_INTEGER);
            if let Some(whole) = whole {
                *number = Number::from(whole as i64);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(write_numbers_plainly),
        Value::Object(fields) => fields.values_mut().for_each(write_numbers_plainly),
        _ => {}
    }
}
