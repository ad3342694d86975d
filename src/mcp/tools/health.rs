//! The health services. Every call is billed, so none is marked read-only, and none is repeated automatically.

use futures_util::future::BoxFuture;

use super::{
    Effects, Outcome, ToolSpec, Toolset, no_action,
    schema::{input_schema, output_schema},
    unconfirmed,
};
use crate::{
    account::RequiredCredential,
    bondmcp::wire::health::{
        AnalysisRequest, ExtractionRequest, MedicationCheckRequest, RiskAnalysisRequest, Service,
        SymptomAssessmentRequest, TreatmentRequest,
    },
    mcp::{call::Call, spending::Price, tool_error::ToolError},
};

/// Prompts refer to these tools by name.
pub(in crate::mcp) const MEDICATION_CHECK: &str = "medication_check";
pub(in crate::mcp) const SYMPTOM_ASSESSMENT: &str = "symptom_assessment";

/// Returns the specification of the tool for the service `S`.
const fn service<S: Service>(
    name: &'static str,
    title: &'static str,
    description: &'static str,
    price: Price,
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
        input_schema: input_schema::<S>,
        output_schema: output_schema::<S::Answer>,
        run: run::<S>,
    }
}

fn run<'a, S: Service>(call: &'a Call<'a>) -> BoxFuture<'a, Result<Outcome, ToolError>> {
    Box::pin(async move {
        let wanted: S = call.arguments()?;
        call.billed(call.account().health_service(&wanted, call.sent)).await
    })
}

pub(super) const TOOLS: &[ToolSpec] = &[
    service::<RiskAnalysisRequest>(
        "health_risk_analysis",
        "Assess a health risk",
        "Estimates a cardiovascular, diabetes or general health risk, with its factors. Billed: $0.05 a call. Not a diagnosis.",
        Price::cents(5),
    ),
    service::<MedicationCheckRequest>(
        MEDICATION_CHECK,
        "Check medications",
        "Checks medications for interactions and contraindications. Billed: $0.03 a call. Not a diagnosis, nor advice to start or stop a medication.",
        Price::cents(3),
    ),
    service::<SymptomAssessmentRequest>(
        SYMPTOM_ASSESSMENT,
        "Assess symptoms",
        "Assesses how urgent symptoms are and lists possible causes. Billed: $0.04 a call. Not a diagnosis; in an emergency, tell the person to call for help first.",
        Price::cents(4),
    ),
    service::<TreatmentRequest>(
        "treatment_recommendations",
        "Recommend treatments",
        "Recommends treatments, monitoring and goals for a known diagnosis. Billed: $0.06 a call. Not a diagnosis or a prescription.",
        Price::cents(6),
    ),
    service::<ExtractionRequest>(
        "clinical_data_extraction",
        "Extract clinical data",
        "Extracts data from a clinical text, such as a doctor's letter. Billed: $0.08 a call. Not a diagnosis: compare the data with the text.",
        Price::cents(8),
    ),
    service::<AnalysisRequest>(
        "health_analyze",
        "Ask BondMCP",
        "Answers a health question where no other health tool fits. Billed; the answer states its cost. Not a diagnosis.",
        // BondMCP documents no price, so the lowest and the highest of the others apply.
        Price::between_cents(3, 8),
    ),
];

#[cfg(test)]
mod tests {
    use super::super::all;

    #[test]
    fn every_description_names_the_price() {
        for (name, tool) in all() {
            let Some(price) = tool.price else {
                assert!(!tool.description.contains("illed"), "{name}");
                continue;
            };
            let billed = if price.least == price.reserved {
                format!("Billed: ${:.2} a call.", price.least.to_f64())
            } else {
                "Billed; the answer states its cost.".to_owned()
            };
            assert!(tool.description.contains(&billed), "{name}: {billed}");
        }
    }
}
