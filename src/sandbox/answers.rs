//! Error responses in the formats of the real API: BondMCP's own and FastAPI's two.

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

/// `{"detail": [{loc, msg, type}]}` with 422. `field` is a path such as `symptoms[0].severity`.
pub fn invalid(field: &str, message: &str) -> Response {
    let steps = field.split(['.', '[', ']']).filter(|step| !step.is_empty());
    let steps = steps.map(|step| step.parse::<u64>().map_or_else(|_| json!(step), Value::from));
    let place: Vec<Value> = std::iter::once(json!("body")).chain(steps).collect();
    let problem = json!({"loc": place, "msg": message, "type": "value_error"});
    (StatusCode::UNPROCESSABLE_ENTITY, Json(json!({ "detail": [problem] }))).into_response()
}

pub async fn unknown_path() -> Response {
    detail(StatusCode::NOT_FOUND, "Not Found")
}

/// Parses a JSON body as `T`; 422 if that fails.
pub fn body<T: DeserializeOwned>(body: &Bytes) -> Result<T, Response> {
    let value: Value = serde_json::from_slice(body).map_err(|_| invalid("", "JSON decode error"))?;
    serde_path_to_error::deserialize(value).map_err(|error| {
        let (path, message) = (error.path().to_string(), error.inner().to_string());
        let path = path.trim_start_matches('.');
        // Serde names a missing field only in its message.
        match message.strip_prefix("missing field `").and_then(|rest| rest.split('`').next()) {
            Some(missing) => invalid(&format!("{path}.{missing}"), "Field required"),
            None => invalid(path, "Input of the wrong type or out of range"),
        }
    })
}
