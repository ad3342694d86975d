//! The six billed health services. They answer with marked samples and charge the account's credits for every processed
//! request.

use axum::{
    Extension, Json, Router,
    body::Bytes,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::post,
};
use serde::Serialize;
use serde_json::json;

use super::{Sandbox, answers, bearer::Caller, samples};
use crate::bondmcp::wire::health::{
    AnalysisRequest, ExtractionRequest, MedicationCheckRequest, RiskAnalysisRequest,
    SymptomAssessmentRequest, TreatmentRequest,
};

/// Prices in cents. The price of `analyze` is not documented; the sandbox has its own.
const RISK_ANALYSIS: u32 = 5;
const MEDICATION_CHECK: u32 = 3;
const SYMPTOM_ASSESSMENT: u32 = 4;
const TREATMENT: u32 = 6;
const EXTRACTION: u32 = 8;
const ANALYSIS: u32 = 5;

const NOTICE: &str = "Sample answer of the sandbox, computed from the input; not medical advice.";

pub fn routes() -> Router<Sandbox> {
    Router::new()
        .route("/health-ai/risk-analysis", post(risk_analysis))
        .route("/health-ai/medication-check", post(medication_check))
        .route("/health-ai/symptom-assessment", post(symptom_assessment))
        .route("/health-ai/treatment-recommendations", post(treatment_recommendations))
        .route("/health-ai/data-extraction", post(data_extraction))
        .route("/health-ai/analyze", post(analyze))
}

async fn risk_analysis(
    State(sandbox): State<Sandbox>,
    Extension(caller): Extension<Caller>,
    body: Bytes,
) -> Result<Response, Response> {
    let asked: RiskAnalysisRequest = answers::body(&body)?;
    charged(&sandbox, &caller, RISK_ANALYSIS, samples::risk(&asked))
}

async fn medication_check(
    State(sandbox): State<Sandbox>,
    Extension(caller): Extension<Caller>,
    body: Bytes,
) -> Result<Response, Response> {
    let asked: MedicationCheckRequest = answers::body(&body)?;
    not_empty("medications", asked.medications.len(), "List should have at least 1 item")?;
    charged(&sandbox, &caller, MEDICATION_CHECK, samples::medications(&asked))
}

async fn symptom_assessment(
    State(sandbox): State<Sandbox>,
    Extension(caller): Extension<Caller>,
    body: Bytes,
) -> Result<Response, Response> {
    let asked: SymptomAssessmentRequest = answers::body(&body)?;
    not_empty("symptoms", asked.symptoms.len(), "List should have at least 1 item")?;
    charged(&sandbox, &caller, SYMPTOM_ASSESSMENT, samples::symptoms(&asked))
}

async fn treatment_recommendations(
    State(sandbox): State<Sandbox>,
    Extension(caller): Extension<Caller>,
    body: Bytes,
) -> Result<Response, Response> {
    let asked: TreatmentRequest = answers::body(&body)?;
    text("diagnosis", &asked.diagnosis)?;
    charged(&sandbox, &caller, TREATMENT, samples::treatment(&asked))
}

async fn data_extraction(
    State(sandbox): State<Sandbox>,
    Extension(caller): Extension<Caller>,
    body: Bytes,
) -> Result<Response, Response> {
    let asked: ExtractionRequest = answers::body(&body)?;
    text("clinical_text", &asked.clinical_text)?;
    charged(&sandbox, &caller, EXTRACTION, samples::extraction(&asked))
}

async fn analyze(
    State(sandbox): State<Sandbox>,
    Extension(caller): Extension<Caller>,
    body: Bytes,
) -> Result<Response, Response> {
    let asked: AnalysisRequest = answers::body(&body)?;
    text("prompt", &asked.prompt)?;
    text("analysis_type", &asked.analysis_type)?;
    charged(&sandbox, &caller, ANALYSIS, samples::analysis(&asked))
}

/// Charges the account and returns the marked sample.
fn charged(
    sandbox: &Sandbox,
    caller: &Caller,
    cents: u32,
    sample: impl Serialize,
) -> Result<Response, Response> {
    let mut state = sandbox.state();
    if !state.charge(&caller.account, cents.into()) {
        let message = "Insufficient credits for this request";
        return Err(answers::refusal(StatusCode::PAYMENT_REQUIRED, "insufficient_credits", message));
    }
    sandbox.keep(&state);
    let mut answer = json!(sample);
    answer["cost"] = (f64::from(cents) / 100.0).into();
    answer["sample"] = true.into();
    answer["notice"] = NOTICE.into();
    Ok(Json(answer).into_response())
}

fn text(field: &str, given: &str) -> Result<(), Response> {
    not_empty(field, given.trim().len(), "String should have at least 1 character")
}

fn not_empty(field: &str, length: usize, message: &str) -> Result<(), Response> {
    if length == 0 { Err(answers::invalid(field, message)) } else { Ok(()) }
}
