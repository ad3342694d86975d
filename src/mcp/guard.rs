//! The egress guard: the last look at everything on its way to the host. Whatever the rooms below did, a known secret
//! or a secret's shape becomes `[redacted]` here.

use rmcp::{
    ErrorData,
    model::{
        CallToolResponse, CallToolResult, CompleteResult, ContentBlock, JsonObject, ReadResourceResult,
        ResourceContents,
    },
};
use serde_json::Value;

use crate::redact::Redactor;

/// The most of a name that somebody gives themselves, in characters.
const LONGEST_NAME: usize = 64;

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
            Err(error) => Err(self.pass_error(error)),
        }
    }

    /// A name that somebody gives themselves, fit to be shown and kept.
    pub fn name(&self, name: &str) -> String {
        let printable: String = name.chars().filter(|c| !c.is_control()).collect();
        self.0.redact(&printable).chars().take(LONGEST_NAME).collect()
    }

    pub fn pass_resource(
        &self,
        read: Result<ReadResourceResult, ErrorData>,
    ) -> Result<ReadResourceResult, ErrorData> {
        let mut read = read.map_err(|error| self.pass_error(error))?;
        for content in &mut read.contents {
            match content {
                ResourceContents::TextResourceContents { text, uri, .. } => {
                    self.pass_text(text);
                    self.pass_text(uri);
                }
                // No resource of ours is of another kind; what cannot be looked at does not leave.
                other => *other = ResourceContents::text(crate::redact::REDACTED, ""),
            }
        }
        Ok(read)
    }

    pub fn pass_completion(
        &self,
        completed: Result<CompleteResult, ErrorData>,
    ) -> Result<CompleteResult, ErrorData> {
        let mut completed = completed.map_err(|error| self.pass_error(error))?;
        completed.completion.values.iter_mut().for_each(|value| self.pass_text(value));
        Ok(completed)
    }

    fn pass_text(&self, text: &mut String) {
        if let std::borrow::Cow::Owned(clean) = self.0.redact(text) {
            *text = clean;
        }
    }

    fn pass_error(&self, mut error: ErrorData) -> ErrorData {
        error.message = self.0.redact(&error.message).into_owned().into();
        if let Some(data) = &mut error.data {
            self.clean(data);
        }
        error
    }

    fn clean_result(&self, result: &mut CallToolResult) {
        if let Some(structured) = &mut result.structured_content {
            self.clean(structured);
        }
        for block in &mut result.content {
            match block {
                ContentBlock::Text(text) => self.pass_text(&mut text.text),
                other => *other = ContentBlock::text(crate::redact::REDACTED),
            }
        }
    }

    fn clean(&self, value: &mut Value) {
        match value {
            Value::String(text) => self.pass_text(text),
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
    use proptest::prelude::*;
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

    /// JSON of any shape with `canary secret` planted in its texts and names, here and there encoded.
    fn leaky() -> impl Strategy<Value = Value> {
        let planted = prop_oneof![
            Just("canary secret"),
            Just("canary%20secret"),
            Just("canary+secret"),
            Just("Y2FuYXJ5IHNlY3JldA"),
            Just("63616e61727920736563726574"),
            Just("blood pressure"),
        ];
        let text = ("[a-z{}\"\\\\ ]{0,6}", planted, "[a-z{}\"\\\\ ]{0,6}")
            .prop_map(|(before, planted, after)| format!("{before}{planted}{after}"));
        let leaf = prop_oneof![text.clone().prop_map(Value::from), any::<i32>().prop_map(Value::from)];
        leaf.prop_recursive(4, 24, 4, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map(text.clone(), inner, 0..4).prop_map(|fields| json!(fields)),
            ]
        })
    }

    proptest! {
        #[test]
        fn nothing_planted_passes_and_a_second_pass_changes_nothing(value in leaky()) {
            let pass = |value: &Value| {
                let answer = CallToolResult::structured(value.clone());
                let Ok(CallToolResponse::Complete(answer)) = guard().pass(Ok(answer.into())) else { panic!() };
                answer
            };
            let once = pass(&value);
            let told = serde_json::to_string(&once).unwrap();
            for form in ["canary", "Y2FuYXJ5", "63616e617279"] {
                prop_assert!(!told.contains(form), "{}", told);
            }
            let structured = once.structured_content.unwrap();
            prop_assert_eq!(pass(&structured).structured_content.unwrap(), structured);
        }
    }
}
