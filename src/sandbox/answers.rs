//! Refusals in the body shapes that occur at the real API: BondMCP's own and FastAPI's two.

use axum::{
    Json,
    body::Bytes,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// `{"error": {code, message, details}}`.
pub fn refusal(status: StatusCode, code: &str, message: &str) -> Response {
    (status, Json(json!({"error": {"code": code, "message": message, "details": {}}}))).into_response()
}

/// `{"detail": "…"}`.
pub fn detail(status: StatusCode, message: &str) -> Response {
    (status, Json(json!({ "detail": message }))).into_response()
}

/// `{"detail": [{loc, msg, type}]}` with 422.
pub fn invalid(field: &str, message: &str) -> Response {
    let problem = json!({"loc": ["body", field], "msg": message, "type": "value_error"});
    (StatusCode::UNPROCESSABLE_ENTITY, Json(json!({ "detail": [problem] }))).into_response()
}

pub async fn unknown_path() -> Response {
    detail(StatusCode::NOT_FOUND, "Not Found")
}

/// A JSON body as `T`, or 422.
pub fn body<T: DeserializeOwned>(body: &Bytes) -> Result<T, Response> {
    let value: Value = serde_json::from_slice(body).map_err(|_| invalid("", "JSON decode error"))?;
    serde_json::from_value(value).map_err(|_| invalid("", "Field required or of the wrong type"))
}
