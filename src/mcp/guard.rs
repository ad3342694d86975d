//! The egress guard: the last look at everything on its way to the host. Whatever the rooms below did, a known secret
//! or a secret's shape becomes `[redacted]` here.

use rmcp::{
    ErrorData,
    model::{CallToolResponse, CallToolResult, ContentBlock, JsonObject},
};
use serde_json::Value;

use crate::redact::Redactor;

/// Looks at what a call answers.
#[derive(Clone, Debug)]
pub struct Guard(Redactor);

impl Guard {
    #[must_use]
    pub fn new(redactor: Redactor) -> Self {
        Self(redactor)
    }

    /// The answer without secrets.
    pub fn pass(&self, answer: Result<CallToolResponse, ErrorData>) -> Result<CallToolResponse, ErrorData> {
        match answer {
            Ok(CallToolResponse::Complete(mut result)) => {
                self.clean_result(&mut result);
                Ok(CallToolResponse::Complete(result))
            }
            // A link to our own page and a signed state; neither is made of what the upstream says.
            Ok(CallToolResponse::InputRequired(result)) => Ok(CallToolResponse::InputRequired(result)),
            // No tool of ours answers with anything else; what cannot be looked at does not leave.
            Ok(_) => Err(ErrorData::internal_error("the answer is of a kind that is not served", None)),
            Err(mut error) => {
                error.message = self.0.redact(&error.message).into_owned().into();
                if let Some(data) = &mut error.data {
                    self.clean(data);
                }
                Err(error)
            }
        }
    }

    fn clean_result(&self, result: &mut CallToolResult) {
        if let Some(structured) = &mut result.structured_content {
            self.clean(structured);
        }
        for block in &mut result.content {
            match block {
                ContentBlock::Text(text) => text.text = self.0.redact(&text.text).into_owned(),
                other => *other = ContentBlock::text(crate::redact::REDACTED),
            }
        }
    }

    fn clean(&self, value: &mut Value) {
        match value {
            Value::String(text) => {
                if let std::borrow::Cow::Owned(clean) = self.0.redact(text) {
                    *text = clean;
                }
            }
            Value::Array(items) => items.iter_mut().for_each(|item| self.clean(item)),
            Value::Object(fields) => self.clean_fields(fields),
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    fn clean_fields(&self, fields: &mut JsonObject) {
        fields.values_mut().for_each(|value| self.clean(value));
        let names: Vec<String> =
            fields.keys().filter(|name| self.0.redact(name) != name.as_str()).cloned().collect();
        for name in names {
            if let Some(value) = fields.remove(&name) {
                fields.insert(self.0.redact(&name).into_owned(), value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn guard() -> Guard {
        let redactor = Redactor::default();
        redactor.remember(&"canary secret".into());
        Guard::new(redactor)
    }

    #[test]
    fn a_secret_leaves_neither_in_text_nor_in_structure_nor_as_a_name() {
        let leak = json!({
            "deep": [{"canary secret": 1, "url": "https://h/?p=canary%20secret"}],
            "base64": "Y2FuYXJ5IHNlY3JldA==",
            "jwt": "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJ1c3JfMSJ9.c2lnbmF0dXJl",
            "fine": "blood pressure",
        });
        let answer = guard().pass(Ok(CallToolResult::structured(leak).into()));
        let Ok(CallToolResponse::Complete(answer)) = answer else { panic!("no result") };
        let told = serde_json::to_string(&answer).unwrap();
        for secret in ["canary", "Y2FuYXJ5", "eyJ"] {
            assert!(!told.contains(secret), "{told}");
        }
        assert!(told.contains("blood pressure"));
    }

    #[test]
    fn a_protocol_error_is_looked_at_too() {
        let error = ErrorData::internal_error("canary secret", Some(json!(["canary secret"])));
        let told = format!("{:?}", guard().pass(Err(error)).unwrap_err());
        assert!(!told.contains("canary"), "{told}");
    }
}
