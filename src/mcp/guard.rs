//! The egress guard: the last look at everything on its way to the host. Whatever the layers below did, a known secret
//! or a secret's shape becomes `[redacted]` here. [`Guarded`] is made nowhere else, and nothing else is sent.

use std::{borrow::Cow, collections::BTreeMap, sync::Arc};

use parking_lot::Mutex;
use rmcp::{
    ErrorData,
    model::{
        CallToolResponse, CallToolResult, ContentBlock, ElicitRequestParams, ElicitationSchema,
        GetPromptResult, InputRequest, InputRequiredResult, ReadResourceResult, ResourceContents,
    },
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use super::{
    answer::{Answer, Content, Repeated, Source},
    tool_error,
};
use crate::{
    redact::{REDACTED, Redactor},
    text::MAX_NAME_CHARS,
};

/// The media type of what resources hold.
pub(super) const JSON: &str = "application/json";

/// A result with more text than this, in bytes, takes a while to look at.
const LARGE: usize = 64 << 10;

/// A message without secrets.
#[derive(Debug)]
pub(super) struct Guarded<T>(T);

impl<T> Guarded<T> {
    pub fn into_inner(self) -> T {
        self.0
    }
}

/// What every request is answered with.
pub(super) type Reply<T> = Result<Guarded<T>, Guarded<ErrorData>>;

/// Looks at what leaves for the host.
#[derive(Clone, Debug)]
pub(super) struct Guard {
    redactor: Redactor,
    repeat: Arc<Mutex<Option<Repeat>>>,
}

/// The last answer that can be sent again.
#[derive(Debug)]
struct Repeat {
    source: Source,
    /// The redactor's revision with which it was searched.
    revision: u64,
    answer: CallToolResult,
}

impl Guard {
    pub fn new(redactor: Redactor) -> Self {
        Self { redactor, repeat: Arc::default() }
    }

    /// The answer that was made of `source`, unless there are other secrets to look for by now.
    pub fn repeated(&self, source: &Source) -> Option<Repeated> {
        let repeat = self.repeat.lock();
        let repeat = repeat.as_ref().filter(|repeat| Arc::ptr_eq(&repeat.source, source))?;
        let Repeat { revision, answer, .. } = repeat;
        (*revision == self.redactor.revision())
            .then(|| Repeated { revision: *revision, answer: answer.clone() })
    }

    /// A structured result and the text that is made of it.
    fn structured(&self, content: Content) -> Guarded<CallToolResult> {
        let (result, source) = match content {
            Content::Fresh(result) => (result, None),
            Content::Repeatable(result, source) => (result, Some(source)),
            Content::Repeated(repeated) if repeated.revision == self.redactor.revision() => {
                return Guarded(repeated.answer);
            }
            // Other secrets have become known since.
            Content::Repeated(repeated) => (repeated.into_object(), None),
        };
        // Read first, so that a secret that comes to be known meanwhile makes the answer obsolete.
        let revision = self.redactor.revision();
        let (structured, text) = self.cleaned(Value::Object(result));
        let mut answer = CallToolResult::success(vec![ContentBlock::text(text)]);
        answer.structured_content = Some(structured);
        if let Some(source) = source {
            let repeat = Repeat { source, revision, answer: answer.clone() };
            *self.repeat.lock() = Some(repeat);
        }
        Guarded(answer)
    }

    /// The answer to a tool call. A large one is looked at apart from the async workers, which others wait for.
    pub async fn answer(&self, answer: Result<Answer, ErrorData>) -> Reply<CallToolResponse> {
        if !matches!(&answer, Ok(Answer::Done(outcome)) if self.is_large(&outcome.result)) {
            return self.checked(answer);
        }
        let guard = self.clone();
        tokio::task::spawn_blocking(move || guard.checked(answer))
            .await
            .unwrap_or_else(|_| Err(self.error(ErrorData::internal_error("the result cannot be sent", None))))
    }

    pub fn checked(&self, answer: Result<Answer, ErrorData>) -> Reply<CallToolResponse> {
        match answer {
            Ok(Answer::Done(outcome)) => Ok(Guarded(self.structured(outcome.result).into_inner().into())),
            Ok(Answer::Failed(failure)) => {
                let (report, json) = self.cleaned(Value::Object(failure.to_json()));
                let text = tool_error::text(&report, &json);
                Ok(Guarded(CallToolResult::error(vec![ContentBlock::text(text)]).into()))
            }
            Ok(Answer::Ask(question)) => self.questions(question).map(|question| Guarded(question.into())),
            Err(error) => Err(self.error(error)),
        }
    }

    /// Any other result: as it is, unless it holds a secret.
    pub fn result<T: Serialize + DeserializeOwned>(&self, result: Result<T, ErrorData>) -> Reply<T> {
        let result = result.map_err(|error| self.error(error))?;
        let unreadable = |_| self.error(ErrorData::internal_error("the result cannot be sent", None));
        let before = serde_json::to_value(&result).map_err(unreadable)?;
        let (after, _) = self.cleaned(before.clone());
        if after == before {
            return Ok(Guarded(result));
        }
        serde_json::from_value(after).map(Guarded).map_err(unreadable)
    }

    /// A list that is made of our own words alone. It is scanned as text, since trees of it would cost much memory.
    pub fn listing<T: Serialize + DeserializeOwned>(&self, list: T) -> Reply<T> {
        match serde_json::to_string(&list) {
            Ok(text) if matches!(self.redactor.redact(&text), Cow::Borrowed(_)) => Ok(Guarded(list)),
            _ => self.result(Ok(list)),
        }
    }

    /// What the resource at `uri` holds. It may be large, so it is looked at apart from the async workers.
    pub async fn resource(&self, uri: &str, content: Result<Value, ErrorData>) -> Reply<ReadResourceResult> {
        let (guard, uri) = (self.clone(), uri.to_owned());
        let look = move || {
            // Cleaned before it becomes text, as tool results are.
            let text = content.map(|content| guard.cleaned(content).1);
            let contents = text.map(|text| ResourceContents::text(text, uri).with_mime_type(JSON));
            guard.result(contents.map(|contents| ReadResourceResult::new(vec![contents])))
        };
        tokio::task::spawn_blocking(look)
            .await
            .unwrap_or_else(|_| Err(self.error(ErrorData::internal_error("the result cannot be sent", None))))
    }

    /// A prompt is made of our words and of the caller's, which go back to nobody but the caller. They are not redacted:
    /// that would tell that a guess at a secret was right.
    pub fn prompt(&self, prompt: Result<GetPromptResult, ErrorData>) -> Reply<GetPromptResult> {
        prompt.map(Guarded).map_err(|error| self.error(error))
    }

    pub fn error(&self, mut error: ErrorData) -> Guarded<ErrorData> {
        error.message = self.text(&error.message).into();
        if let Some(data) = &mut error.data {
            self.redactor.redact_json(data);
        }
        Guarded(error)
    }

    pub fn text(&self, text: &str) -> String {
        self.redactor.redact(text).into_owned()
    }

    /// A name from elsewhere, fit to be shown and stored.
    pub fn name(&self, name: &str) -> String {
        self.redactor.excerpt(name, MAX_NAME_CHARS)
    }

    /// A question to the person. Its link leads to our own page, and it is not made of what somebody else wrote.
    pub fn elicitation(&self, mut elicitation: ElicitRequestParams) -> Guarded<ElicitRequestParams> {
        match &mut elicitation {
            ElicitRequestParams::FormElicitationParams { message, .. }
            | ElicitRequestParams::UrlElicitationParams { message, .. } => *message = self.text(message),
            // None of ours; what cannot be looked at does not leave.
            other => {
                *other = ElicitRequestParams::FormElicitationParams {
                    meta: None,
                    message: REDACTED.to_owned(),
                    requested_schema: ElicitationSchema::new(BTreeMap::default()),
                };
            }
        }
        Guarded(elicitation)
    }

    /// Questions that are asked in the answer. The state is signed by us, and would not survive a change.
    fn questions(&self, mut asked: InputRequiredResult) -> Result<InputRequiredResult, Guarded<ErrorData>> {
        for request in asked.input_requests.iter_mut().flat_map(|requests| requests.values_mut()) {
            let InputRequest::Elicitation(elicitation) = request else {
                return Err(self.error(ErrorData::internal_error("the question cannot be sent", None)));
            };
            elicitation.params = self.elicitation(elicitation.params.clone()).into_inner();
        }
        Ok(asked)
    }

    /// Whether there is much text to search.
    fn is_large(&self, content: &Content) -> bool {
        let length = match content {
            Content::Fresh(object) | Content::Repeatable(object, _) => object.values().map(text_length).sum(),
            Content::Repeated(repeated) if repeated.revision == self.redactor.revision() => 0,
            Content::Repeated(repeated) => repeated.answer.structured_content.as_ref().map_or(0, text_length),
        };
        length > LARGE
    }

    /// Returns the value without secrets, and the text that is made of it. Every string is scanned by itself: in the
    /// text, what JSON escapes may hide a secret.
    pub fn cleaned(&self, mut value: Value) -> (Value, String) {
        self.redactor.redact_json(&mut value);
        // Faster than `Display`, which validates every piece.
        let text = serde_json::to_string(&value).unwrap_or_default();
        (value, text)
    }
}

fn text_length(value: &Value) -> usize {
    /// What a value without text counts as.
    const SCALAR: usize = 8;
    match value {
        Value::String(text) => text.len(),
        Value::Array(items) => items.iter().map(text_length).sum(),
        Value::Object(fields) => fields.iter().map(|(name, value)| name.len() + text_length(value)).sum(),
        Value::Null | Value::Bool(_) | Value::Number(_) => SCALAR,
    }
}

#[cfg(test)]
mod tests {
    use std::pin::{Pin, pin};

    use super::*;
    use crate::{
        error::Kind,
        mcp::{answer::Outcome, tool_error::ToolError},
    };
    use futures_util::FutureExt as _;
    use proptest::prelude::*;
    use rmcp::model::{ElicitRequest, InputRequests};
    use serde_json::json;

    fn guard() -> Guard {
        let redactor = Redactor::default();
        redactor.remember(&"canary secret".into());
        Guard::new(redactor)
    }

    fn pass(result: &Value) -> CallToolResult {
        let outcome = Outcome::of(result).unwrap();
        match guard().checked(Ok(Answer::Done(outcome))).unwrap().into_inner() {
            CallToolResponse::Complete(result) => result,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_secret_leaves_neither_in_text_nor_in_structure_nor_as_a_name() {
        let leak = json!({
            "deep": [{"canary secret": 1, "url": "https://h/?p=canary%20secret"}],
            "base64": "Y2FuYXJ5IHNlY3JldA==",
            "jwt": "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJ1c3JfMSJ9.c2lnbmF0dXJl",
            "fine": "blood pressure",
        });
        let told = serde_json::to_string(&pass(&leak)).unwrap();
        for secret in ["canary", "Y2FuYXJ5", "eyJ"] {
            assert!(!told.contains(secret), "{told}");
        }
        assert!(told.contains("blood pressure"));
    }

    #[test]
    fn the_text_block_is_made_of_the_cleaned_structure() {
        let redactor = Redactor::default();
        redactor.remember(&r#"pass"word\one"#.into());
        let inner = json!({"echo": r#"pass"word\one"#}).to_string();
        let outcome = Outcome::of(&json!({ "message": inner })).unwrap();
        let answer = Guard::new(redactor).checked(Ok(Answer::Done(outcome))).unwrap().into_inner();
        let CallToolResponse::Complete(answer) = answer else { panic!() };
        let text = &answer.content[0].as_text().unwrap().text;
        assert!(!text.contains("word"), "{text}");
        assert_eq!(serde_json::from_str::<Value>(text).unwrap(), answer.structured_content.unwrap());
    }

    #[test]
    fn a_repeatable_answer_is_looked_at_again_when_another_secret_is_known() {
        let (redactor, source): (_, Source) = (Redactor::default(), Arc::new(1));
        let guard = Guard::new(redactor.clone());
        let text =
            |answer: Guarded<CallToolResult>| answer.into_inner().content[0].as_text().unwrap().text.clone();
        let content =
            || Content::Repeatable(json!({"a": "first one"}).as_object().unwrap().clone(), source.clone());
        assert!(guard.repeated(&source).is_none());
        let repeated = || Content::Repeated(guard.repeated(&source).unwrap());
        assert!(text(guard.structured(content())).contains("first one"));
        assert!(text(guard.structured(repeated())).contains("first one"));
        let other: Source = Arc::new(1);
        assert!(guard.repeated(&other).is_none());
        let before = repeated();
        redactor.remember(&"first one".into());
        assert!(!text(guard.structured(before)).contains("first one"));
        assert!(guard.repeated(&source).is_none());
        assert!(!text(guard.structured(content())).contains("first one"));
        assert!(!text(guard.structured(repeated())).contains("first one"));
    }

    #[test]
    fn what_is_large_and_what_a_resource_holds_is_looked_at_apart_from_the_async_workers() {
        let runtime = tokio::runtime::Builder::new_current_thread().max_blocking_threads(1).build().unwrap();
        runtime.block_on(async {
            let (release, released) = std::sync::mpsc::channel::<()>();
            let busy = tokio::task::spawn_blocking(move || released.recv());
            let guard = guard();
            // Other secrets have become known since it was searched.
            let text = ContentBlock::text("");
            let mut repeated = Repeated { revision: 0, answer: CallToolResult::success(vec![text]) };
            repeated.answer.structured_content = Some(json!({"text": "x".repeat(LARGE + 1)}));
            let repeated =
                Outcome { result: Content::Repeated(repeated), ..Outcome::of(&json!({})).unwrap() };
            let answer = |result: &Value| guard.answer(Ok(Answer::Done(Outcome::of(result).unwrap())));
            assert!(answer(&json!({"text": "short"})).now_or_never().is_some());
            let mut waiting = [
                pin!(answer(&json!({"text": "blood pressure ".repeat(LARGE / 10)})).map(drop))
                    as Pin<&mut dyn Future<Output = ()>>,
                pin!(answer(&json!({"numbers": vec![1; LARGE]})).map(drop)),
                pin!(guard.answer(Ok(Answer::Done(repeated))).map(drop)),
                pin!(guard.resource("bondmcp://models", Ok(json!({"a": 1}))).map(drop)),
            ];
            for one in &mut waiting {
                assert!(one.now_or_never().is_none());
            }
            drop(release);
            for one in waiting {
                one.await;
            }
            busy.await.unwrap().unwrap_err();
        });
    }

    #[tokio::test]
    async fn a_large_result_is_looked_at_too() {
        let text = "blood pressure ".repeat(LARGE / 10);
        let outcome = Outcome::of(&json!({"text": text, "leak": "canary secret"})).unwrap();
        let guard = guard();
        assert!(guard.is_large(&outcome.result));
        let answer = guard.answer(Ok(Answer::Done(outcome))).await.unwrap().into_inner();
        let CallToolResponse::Complete(answer) = answer else { panic!() };
        assert_eq!(answer.structured_content.unwrap()["leak"], "[redacted]");
    }

    #[test]
    fn failures_protocol_errors_and_other_results_are_looked_at_too() {
        let guard = guard();
        let error = ErrorData::internal_error("canary secret", Some(json!(["canary secret"])));
        let told = format!("{:?}", guard.error(error));
        assert!(!told.contains("canary"), "{told}");
        let failure = ToolError::new(Kind::Internal, "canary secret", "canary%20secret");
        let told = format!("{:?}", guard.checked(Ok(Answer::Failed(failure))));
        assert!(!told.contains("canary"), "{told}");
        let told = guard.result(Ok(json!({"canary secret": "canary secret"}))).unwrap().into_inner();
        assert!(!told.to_string().contains("canary"), "{told}");
        let fine = json!({"a": 1});
        assert_eq!(guard.result(Ok(fine.clone())).unwrap().into_inner(), fine);
    }

    #[test]
    fn a_question_is_redacted_and_keeps_its_link_and_state() {
        let url = "http://127.0.0.1:9/page";
        let elicitation = ElicitRequestParams::UrlElicitationParams {
            meta: None,
            message: "the key “canary secret”".to_owned(),
            url: url.to_owned(),
            elicitation_id: String::new(),
        };
        let request = InputRequest::Elicitation(ElicitRequest::new(elicitation));
        let requests = InputRequests::from([("person".to_owned(), request)]);
        let question = InputRequiredResult::new(Some(requests), Some("state".to_owned()));
        let told = serde_json::to_value(guard().questions(question).unwrap()).unwrap();
        let params = &told["inputRequests"]["person"]["params"];
        assert_eq!(params["message"], "the key “[redacted]”");
        assert_eq!((&params["url"], &told["requestState"]), (&json!(url), &json!("state")));
    }

    #[test]
    fn a_name_is_cut_to_printable_characters() {
        let name = guard().name(&format!("\u{1b}[2Jcanary secret\u{202e}\n{}", "x".repeat(2000)));
        assert!(name.starts_with("[2J[redacted]xxx"), "{name}");
        assert_eq!(name.chars().count(), MAX_NAME_CHARS);
    }

    /// JSON objects with `canary secret` planted in texts and names, here and there encoded.
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
        let value = leaf.prop_recursive(4, 24, 4, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map(text.clone(), inner, 0..4).prop_map(|fields| json!(fields)),
            ]
        });
        value.prop_map(|value| json!({ "value": value }))
    }

    proptest! {
        #[test]
        fn a_secret_is_found_in_a_structure_whatever_stands_around_it(
            secret in "[ -~äß€]{8,24}",
            before in r#"[\\%&x"u0-9a-f ;+]{0,4}"#,
            after in r#"[\\%&x"u0-9a-f ;+]{0,4}"#,
        ) {
            let found_by_itself = |redactor: &Redactor, text: &str| matches!(redactor.redact(text), Cow::Owned(_));
            let redactor = Redactor::default();
            redactor.remember(&secret.as_str().into());
            let plain = format!("{before}{secret}{after}");
            let nested = json!({ "echo": plain }).to_string();
            for text in [plain, nested] {
                if found_by_itself(&redactor, &text) {
                    let result = json!({"deep": [{"text": text}]});
                    let (structured, told) = Guard::new(redactor.clone()).cleaned(result);
                    prop_assert!(structured.to_string().contains(REDACTED), "{}", structured);
                    prop_assert_eq!(structured.to_string(), told);
                }
            }
        }

        #[test]
        fn nothing_planted_passes_and_a_second_pass_changes_nothing(value in leaky()) {
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
