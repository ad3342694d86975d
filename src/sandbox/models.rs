//! `GET /health-ai/models`, in each of the formats that the API may use.

use axum::{Json, Router, extract::State, routing::get};
use serde_json::{Value, json};

use super::Sandbox;

/// The formats of the model list; which one the real API uses is not documented.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModelShape {
    /// `{"models": […]}`
    Models,
    /// `{"data": […]}`
    Data,
    /// `[…]`
    Array,
    /// `["id", …]`
    Names,
}

pub fn routes() -> Router<Sandbox> {
    Router::new().route("/health-ai/models", get(list))
}

async fn list(State(sandbox): State<Sandbox>) -> Json<Value> {
    let models = json!([
        {"id": "sandbox-general-1", "name": "Sandbox General", "category": "general", "context_window": 8192},
        {"id": "sandbox-cardio-1", "name": "Sandbox Cardio", "category": "cardiology", "context_window": 16384},
        {"id": "sandbox-clinical-1", "name": "Sandbox Clinical", "category": "extraction", "context_window": 32768},
    ]);
    Json(match sandbox.inner.config.model_shape {
        ModelShape::Models => json!({ "models": models }),
        ModelShape::Data => json!({ "data": models }),
        ModelShape::Array => models,
        ModelShape::Names => json!(["sandbox-general-1", "sandbox-cardio-1", "sandbox-clinical-1"]),
    })
}
