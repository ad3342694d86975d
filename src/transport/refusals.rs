//! Answers of the endpoint to requests that it does not serve. None holds what the caller wrote.

use axum::{
    Json,
    body::{Body, to_bytes},
    response::{IntoResponse, Response},
};
use http::{
    HeaderValue, StatusCode,
    header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER},
    response::Parts,
};
use rmcp::model::{ErrorCode, ErrorData, JsonRpcError};
use serde_json::{Value, json};

use super::{
    message::{NO_JSON, NO_MESSAGE},
    request_body::{MAX_BODY_BYTES, Refusal},
};

/// The body of an OAuth error.
pub(super) fn error(code: &str, description: &str) -> impl IntoResponse {
    let body = json!({ "error": code, "error_description": description });
    ([(CACHE_CONTROL, "no-store")], Json(body))
}

pub(super) fn busy(reason: &str) -> Response {
    refusal(StatusCode::SERVICE_UNAVAILABLE, reason)
}

pub(super) fn refusal(status: StatusCode, reason: &str) -> Response {
    let mut response = (status, Json(json!({ "error": reason }))).into_response();
    if status == StatusCode::SERVICE_UNAVAILABLE {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("30"));
    }
    response
}

/// Refuses a message. The answer has no id: it would stand for the answer to another request with the same one.
pub(super) fn invalid_message(refusal: Refusal) -> Response {
    let code = if refusal == NO_JSON { ErrorCode::PARSE_ERROR } else { ErrorCode::INVALID_REQUEST };
    let (status, reason) = refusal;
    (status, Json(JsonRpcError::new(None, ErrorData::new(code, reason, None)))).into_response()
}

/// Replaces the text of rmcp's refusals with fixed text: rmcp quotes headers and names from the body. Other answers are
/// left unchanged.
pub(super) async fn in_fixed_words(response: Response) -> Response {
    if !(response.status().is_client_error() || response.status().is_server_error()) {
        return response;
    }
    let (head, body) = response.into_parts();
    // A quoted name may be as long as the request, and escaped.
    let body = to_bytes(body, 8 * MAX_BODY_BYTES).await.unwrap_or_default();
    let is_json = head.headers.get(CONTENT_TYPE).is_some_and(|media_type| media_type == "application/json");
    match serde_json::from_slice::<JsonRpcError>(&body) {
        Ok(mut answer) if is_json => {
            state(&mut answer.error);
            with_body(head, &json!(answer))
        }
        _ => refused_in_words(head, &String::from_utf8_lossy(&body)),
    }
}

/// The answer to a request that rmcp has refused with `text`.
fn refused_in_words(head: Parts, text: &str) -> Response {
    match text.strip_prefix("fail to deserialize request body") {
        // serde_json says where JSON is malformed. rmcp looks at the shape of a message when it is parsed.
        Some(error) if error.contains(" at line ") => invalid_message(NO_JSON),
        Some(_) => invalid_message(NO_MESSAGE),
        None => {
            let reason = reason(head.status, text);
            with_body(head, &json!({ "error": reason }))
        }
    }
}

fn with_body(mut head: Parts, body: &Value) -> Response {
    head.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Response::from_parts(head, Body::from(body.to_string()))
}

/// Takes what rmcp quotes out of an error. What the handler says is in words of its own.
fn state(error: &mut ErrorData) {
    match error.code {
        ErrorCode::HEADER_MISMATCH => {
            error.message = "The headers MCP-Protocol-Version, Mcp-Method, Mcp-Name and Mcp-Param-* must be sent where MCP requires them, and must match the body.".into();
        }
        ErrorCode::INVALID_REQUEST => {
            error.message = "The header MCP-Protocol-Version of `initialize` must equal `params.protocolVersion`, and a response must be sent in the session of its request.".into();
        }
        // MCP demands the version that was asked for.
        ErrorCode::UNSUPPORTED_PROTOCOL_VERSION => {
            if let Some(Value::Object(data)) = &mut error.data
                && !data.get("requested").and_then(Value::as_str).is_some_and(is_version)
            {
                data.remove("requested");
            }
        }
        _ => {}
    }
}

/// Whether a text looks like a version.
fn is_version(text: &str) -> bool {
    let digits = text.strip_prefix('v').unwrap_or(text);
    digits.len() <= 16 && digits.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'.' | b'-'))
}

/// Returns what is wrong with a request that rmcp has refused with `text`.
fn reason(status: StatusCode, text: &str) -> &'static str {
    match status {
        StatusCode::BAD_REQUEST if text.contains("Unsupported MCP-Protocol-Version") => {
            "the header MCP-Protocol-Version names a version that this server does not know; send the one that `initialize` was answered with"
        }
        StatusCode::BAD_REQUEST => {
            "the request is not valid; check the headers Host, MCP-Protocol-Version and Mcp-Session-Id, and the parameters of `initialize`"
        }
        StatusCode::FORBIDDEN if text.contains("Origin") => {
            "requests from this web page are not allowed; the operator allows its origin with `--allow-origin`"
        }
        StatusCode::FORBIDDEN => {
            "the header Host names none of this server's hosts; the operator allows one with `--allow-host`, or sets the public one with `--public-url`"
        }
        StatusCode::NOT_FOUND => NO_SUCH_SESSION,
        StatusCode::METHOD_NOT_ALLOWED => {
            "this method is not allowed here; the header `Allow` names those that are"
        }
        StatusCode::NOT_ACCEPTABLE => "the header Accept must name application/json and text/event-stream",
        StatusCode::UNSUPPORTED_MEDIA_TYPE => {
            "send one message of MCP, with the header Content-Type: application/json"
        }
        _ => "the request cannot be answered; open another session with `initialize` and try again",
    }
}

/// Answered with 404, not 401, or the host would sign in again; the same for somebody else's session as for none.
pub(super) const NO_SUCH_SESSION: &str = "there is no such session; open one with `initialize`";

#[cfg(test)]
mod tests {
    use super::*;

    const GUESS: &str = "hunter2-guess";

    async fn stated(status: StatusCode, media_type: &'static str, body: String) -> (StatusCode, Value) {
        let response = (status, [(CONTENT_TYPE, media_type)], body).into_response();
        let stated = in_fixed_words(response).await;
        let status = stated.status();
        (status, serde_json::from_slice(&to_bytes(stated.into_body(), 4096).await.unwrap()).unwrap())
    }

    #[tokio::test]
    async fn rmcps_refusals_quote_nothing_and_keep_their_codes() {
        for code in
            [ErrorCode::HEADER_MISMATCH, ErrorCode::INVALID_REQUEST, ErrorCode::UNSUPPORTED_PROTOCOL_VERSION]
        {
            let data = json!({"requested": GUESS, "supported": ["2026-07-28"]});
            let message = match code {
                ErrorCode::UNSUPPORTED_PROTOCOL_VERSION => "Unsupported protocol version".to_owned(),
                _ => format!("header `{GUESS}` does not match"),
            };
            let body =
                json!({"jsonrpc": "2.0", "id": 7, "error": {"code": code, "message": message, "data": data}});
            let (status, answer) =
                stated(StatusCode::BAD_REQUEST, "application/json", body.to_string()).await;
            assert_eq!((status, &answer["id"]), (StatusCode::BAD_REQUEST, &json!(7)));
            assert_eq!(answer["error"]["code"], json!(code));
            assert_eq!(answer["error"]["data"]["supported"][0], "2026-07-28");
            if code == ErrorCode::UNSUPPORTED_PROTOCOL_VERSION {
                assert!(!answer.to_string().contains(GUESS), "{answer}");
            } else {
                assert!(!answer["error"]["message"].as_str().unwrap().contains(GUESS), "{answer}");
            }
        }
        let texts = [
            (400, "Bad Request: Unsupported MCP-Protocol-Version: "),
            (500, "Encounter an error when "),
            (403, ""),
        ];
        for (status, text) in texts {
            let status = StatusCode::from_u16(status).unwrap();
            let (told, answer) = stated(status, "text/plain", format!("{text}{GUESS}")).await;
            assert_eq!(told, status);
            assert!(!answer.to_string().contains(GUESS), "{answer}");
        }
    }

    #[tokio::test]
    async fn an_unsupported_version_is_named_as_mcp_demands() {
        for version in ["v999.0.0", "1900-01-01"] {
            let error = json!({"code": -32022, "message": "Unsupported protocol version", "data": {"requested": version}});
            let body = json!({"jsonrpc": "2.0", "id": 1, "error": error});
            let (_, answer) = stated(StatusCode::BAD_REQUEST, "application/json", body.to_string()).await;
            assert_eq!(answer["error"]["data"]["requested"], version);
        }
    }
}
