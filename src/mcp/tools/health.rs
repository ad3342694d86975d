//! The health services. Every call is billed, so none is marked read-only, and none is repeated automatically.

use std::sync::Arc;

use rmcp::model::JsonObject;

use super::{
    Effects, Handler, ToolSpec, Toolset, no_action,
    schema::{input_schema, output_schema},
    unconfirmed,
};
use crate::{
    account::RequiredCredential,
    bondmcp::wire::health::{
        Analysis, AnalysisRequest, Extraction, ExtractionRequest, MedicationCheck, MedicationCheckRequest,
        RiskAnalysis, RiskAnalysisRequest, SymptomAssessment, SymptomAssessmentRequest,
        TreatmentRecommendations, TreatmentRequest,
    },
    mcp::spending::Price,
};

/// Prompts refer to these tools by name.
pub(in crate::mcp) const MEDICATION_CHECK: &str = "medication_check";
pub(in crate::mcp) const SYMPTOM_ASSESSMENT: &str = "symptom_assessment";

type Schema = fn() -> Arc<JsonObject>;

/// Returns the specification of a health service.
const fn service(
    name: &'static str,
    title: &'static str,
    description: &'static str,
    price: Price,
    [input_schema, output_schema]: [Schema; 2],
    run: Handler,
) -> ToolSpec {
    ToolSpec {
        name,
        title,
        description,
        toolset: Toolset::Health,
        effects: Effects { read_only: false, destructive: false, idempotent: false },
        credential: Some(RequiredCredential::Api),
        explains_sign_in: false,
        price: Some(price),
        action: no_action,
        confirmation: unconfirmed,
        input_schema,
        output_schema,
        run,
    }
}

pub(super) const TOOLS: &[ToolSpec] = &[
    service(
        "health_risk_analysis",
        "Assess a health risk",
        "Estimates a cardiovascular, diabetes or general health risk, with its factors. Billed: $0.05 a call. Not a diagnosis.",
        Price::cents(5),
        [input_schema::<RiskAnalysisRequest>, output_schema::<RiskAnalysis>],
        |call| {
            Box::pin(async move {
                let wanted: RiskAnalysisRequest = call.arguments()?;
                call.billed(call.account().risk_analysis(&wanted, call.sent)).await
            })
        },
    ),
    service(
        MEDICATION_CHECK,
        "Check medications",
        "Checks medications for interactions and contraindications. Billed: $0.03 a call. Not a diagnosis, nor advice to start or stop a medication.",
        Price::cents(3),
        [input_schema::<MedicationCheckRequest>, output_schema::<MedicationCheck>],
        |call| {
            Box::pin(async move {
                let wanted: MedicationCheckRequest = call.arguments()?;
                call.billed(call.account().medication_check(&wanted, call.sent)).await
            })
        },
    ),
    service(
        SYMPTOM_ASSESSMENT,
        "Assess symptoms",
        "Assesses how urgent symptoms are and lists possible causes. Billed: $0.04 a call. Not a diagnosis; in an emergency the person calls for help first.",
        Price::cents(4),
        [input_schema::<SymptomAssessmentRequest>, output_schema::<SymptomAssessment>],
        |call| {
            Box::pin(async move {
                let wanted: SymptomAssessmentRequest = call.arguments()?;
                call.billed(call.account().symptom_assessment(&wanted, call.sent)).await
            })
        },
    ),
    service(
        "treatment_recommendations",
        "Recommend treatments",
        "Recommends treatments, monitoring and goals for a known diagnosis. Billed: $0.06 a call. Not a diagnosis or a prescription.",
        Price::cents(6),
        [input_schema::<TreatmentRequest>, output_schema::<TreatmentRecommendations>],
        |call| {
            Box::pin(async move {
                let wanted: TreatmentRequest = call.arguments()?;
                call.billed(call.account().treatment_recommendations(&wanted, call.sent)).await
            })
        },
    ),
    service(
        "clinical_data_extraction",
        "Extract clinical data",
        "Extracts data from a clinical text, such as a doctor's letter. Billed: $0.08 a call. Not a diagnosis: compare the data with the text.",
        Price::cents(8),
        [input_schema::<ExtractionRequest>, output_schema::<Extraction>],
        |call| {
            Box::pin(async move {
                let wanted: ExtractionRequest = call.arguments()?;
                call.billed(call.account().data_extraction(&wanted, call.sent)).await
            })
        },
    ),
    service(
        "health_analyze",
        "Ask BondMCP",
        "Answers a health question where no other health tool fits. Billed; the answer states its cost. Not a diagnosis.",
        // BondMCP documents no price, so the lowest and the highest of the others apply.
        Price::between_cents(3, 8),
        [input_schema::<AnalysisRequest>, output_schema::<Analysis>],
        |call| {
            Box::pin(async move {
                let wanted: AnalysisRequest = call.arguments()?;
                call.billed(call.account().analyze(&wanted, call.sent)).await
            })
        },
    ),
];
