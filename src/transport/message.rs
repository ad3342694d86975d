//! What the transport must know of a JSON-RPC message before rmcp takes it.

use std::borrow::Cow;

use http::StatusCode;
use rmcp::model::RequestId;
use serde::{Deserialize, de::IgnoredAny};
use serde_json::Value;

use super::request_body::Refusal;
use crate::json_size::parsed_bytes;

/// Longest id and longest progress token of a request, in bytes: rmcp keeps them and writes the token into each
/// notification of progress.
const MAX_NAME_BYTES: usize = 256;

/// Longest request without a session that is left to rmcp unread.
const MAX_UNREAD_BYTES: usize = 4 << 10;

/// Largest `initialize` request, in bytes, and once it is parsed: rmcp keeps it as long as the session. Real ones have a
/// few kilobytes.
const MAX_INITIALIZE_BYTES: usize = 64 << 10;
const MAX_PARSED_INITIALIZE_BYTES: usize = 256 << 10;

pub(super) const NO_JSON: Refusal = (
    StatusCode::BAD_REQUEST,
    "The body is not valid JSON. Send one JSON-RPC message as a JSON object, in UTF-8.",
);
pub(super) const NO_MESSAGE: Refusal =
    (StatusCode::BAD_REQUEST, "The body is not an MCP message. Send one JSON-RPC message as a JSON object.");
const LONG_NAME: Refusal =
    (StatusCode::BAD_REQUEST, "The id and the progress token of a request may have at most 256 bytes each.");
const LARGE_INITIALIZE: Refusal = (
    StatusCode::PAYLOAD_TOO_LARGE,
    "The `initialize` request is too large or has too many values: it may have 64 KiB, and a few thousand values. Leave out what is not needed.",
);

/// A message, as far as it was read.
#[derive(Debug, Deserialize)]
pub(super) struct Message<'a> {
    id: Option<RequestId>,
    #[serde(borrow)]
    method: Option<Cow<'a, str>>,
    params: Option<Params>,
}

#[derive(Debug, Deserialize)]
struct Params {
    #[serde(rename = "_meta")]
    meta: Option<Meta>,
}

#[derive(Debug, Deserialize)]
struct Meta {
    #[serde(rename = "progressToken")]
    progress_token: Option<Value>,
}

impl<'a> Message<'a> {
    /// Reads a message. What is not read here is refused, or rmcp could read it in another way.
    pub fn read(body: &'a [u8]) -> Result<Self, Refusal> {
        // serde takes a list for an object.
        if body.trim_ascii_start().first() != Some(&b'{') {
            return Err(not_a_message(body));
        }
        let message: Self = serde_json::from_slice(body).map_err(|_| not_a_message(body))?;
        if message.has_long_name() {
            return Err(LONG_NAME);
        }
        let is_large =
            || body.len() > MAX_INITIALIZE_BYTES || parsed_bytes(body) > MAX_PARSED_INITIALIZE_BYTES;
        if message.is_initialize() && is_large() {
            return Err(LARGE_INITIALIZE);
        }
        Ok(message)
    }

    pub fn is_initialize(&self) -> bool {
        self.method.as_deref() == Some("initialize")
    }

    /// The id of a request, which has an answer; a notification and an answer have none.
    pub fn into_request_id(self) -> Option<RequestId> {
        self.id.filter(|_| self.method.is_some())
    }

    fn has_long_name(&self) -> bool {
        let meta = self.params.as_ref().and_then(|params| params.meta.as_ref());
        let token = meta.and_then(|meta| meta.progress_token.as_ref()).and_then(Value::as_str);
        let id = match &self.id {
            Some(RequestId::String(id)) => Some(&**id),
            Some(RequestId::Number(_)) | None => None,
        };
        [id, token].into_iter().flatten().any(|name| name.len() > MAX_NAME_BYTES)
    }
}

fn not_a_message(body: &[u8]) -> Refusal {
    let is_json = serde_json::from_slice::<IgnoredAny>(body).is_ok();
    if is_json { NO_MESSAGE } else { NO_JSON }
}

/// Whether a request without a session may be left to rmcp, which keeps nothing of it.
pub(super) fn is_small_object(body: &[u8]) -> bool {
    body.len() <= MAX_UNREAD_BYTES && body.first() == Some(&b'{')
}

/// Whether the host that sends this `initialize` request can ask the person, as far as it can be read.
pub(super) fn may_ask(body: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Initialize {
        params: Params,
    }
    #[derive(Deserialize)]
    struct Params {
        capabilities: Capabilities,
    }
    #[derive(Deserialize)]
    struct Capabilities {
        elicitation: Option<IgnoredAny>,
    }
    let initialize = serde_json::from_slice::<Initialize>(body);
    initialize.map_or(true, |initialize| initialize.params.capabilities.elicitation.is_some())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn refused(message: &Value) -> Option<Refusal> {
        Message::read(message.to_string().as_bytes()).err()
    }

    #[test]
    fn only_a_request_has_an_id_to_answer() {
        for (message, id) in [
            (json!({"jsonrpc": "2.0", "id": 1.0, "method": "ping"}), Some(RequestId::Number(1))),
            (
                json!({"id": "1", "method": "ping", "params": {"_meta": null}}),
                Some(RequestId::String("1".into())),
            ),
            (json!({"method": "notifications/cancelled", "params": {"requestId": 1}}), None),
            (json!({"id": 1, "result": {}}), None),
        ] {
            let text = message.to_string();
            assert_eq!(Message::read(text.as_bytes()).unwrap().into_request_id(), id, "{message}");
        }
    }

    #[test]
    fn what_rmcp_could_read_in_another_way_is_refused() {
        for text in ["", "guess", "{", r#"{"id": 1, "method": "ping"} x"#] {
            assert_eq!(Message::read(text.as_bytes()).err(), Some(NO_JSON), "{text}");
        }
        for text in [
            "null",
            r#"[1, "ping"]"#,
            r#"{"id": 1, "id": 2, "method": "ping"}"#,
            r#"{"id": 1, "\u0069d": 2, "method": "ping"}"#,
            r#"{"id": {}, "method": "ping"}"#,
            r#"{"id": 1, "method": "ping", "params": {"_meta": {}, "_meta": {}}}"#,
        ] {
            assert_eq!(Message::read(text.as_bytes()).err(), Some(NO_MESSAGE), "{text}");
        }
    }

    #[test]
    fn what_rmcp_keeps_is_bounded() {
        let named = |id: usize, token: usize| {
            let meta = json!({"progressToken": "t".repeat(token)});
            json!({"id": "i".repeat(id), "method": "tools/call", "params": {"_meta": meta}})
        };
        assert_eq!(refused(&named(256, 256)), None);
        assert_eq!([refused(&named(257, 1)), refused(&named(1, 257))], [Some(LONG_NAME); 2]);
        let initialize = |experimental: Value| {
            let capabilities = json!({"experimental": experimental});
            json!({"id": 1, "method": "initialize", "params": {"capabilities": capabilities}})
        };
        assert_eq!(refused(&initialize(json!({"text": "x".repeat(60 << 10)}))), None);
        assert_eq!(refused(&initialize(json!({"text": "x".repeat(64 << 10)}))), Some(LARGE_INITIALIZE));
        // Small, but not once it is parsed.
        assert_eq!(refused(&initialize(vec![json!({}); 1000].into())), Some(LARGE_INITIALIZE));
    }
}
