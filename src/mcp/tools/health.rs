//! The health services. Every call is billed, so none of them is a mere read, and none is made twice by itself.

use rmcp::{handler::server::wrapper::Json, tool, tool_router};

use super::super::{BondMcp, arguments::Arguments, failure::Failure};
use crate::bondmcp::wire::health::{
    Analysis, AnalysisRequest, Extraction, ExtractionRequest, MedicationCheck, MedicationCheckRequest,
    RiskAnalysis, RiskAnalysisRequest, SymptomAssessment, SymptomAssessmentRequest, TreatmentRecommendations,
    TreatmentRequest,
};

/// The tools of this file.
pub(super) const BILLED: [&str; 6] = [
    "clinical_data_extraction",
    "health_analyze",
    "health_risk_analysis",
    "medication_check",
    "symptom_assessment",
    "treatment_recommendations",
];

#[tool_router(router = health_tools, vis = "pub(super)")]
impl BondMcp {
    #[tool(
        title = "Assess a health risk",
        description = "Estimates a patient's cardiovascular, diabetes or general health risk, with the factors behind it. Billed: $0.05 a call. Not a diagnosis.",
        annotations(read_only_hint = false, destructive_hint = false, idempotent_hint = false, open_world_hint = true),
        output_schema = super::output_schema::<RiskAnalysis>(),
        input_schema = super::input_schema::<RiskAnalysisRequest>()
    )]
    async fn health_risk_analysis(
        &self,
        Arguments(wanted): Arguments<RiskAnalysisRequest>,
    ) -> Result<Json<RiskAnalysis>, Failure> {
        Ok(Json(self.account().risk_analysis(&wanted).await?))
    }

    #[tool(
        title = "Check medications",
        description = "Checks medications for interactions with each other and for contraindications in a patient's conditions. Billed: $0.03 a call. Not a diagnosis, and no leave to start or stop a medication.",
        annotations(read_only_hint = false, destructive_hint = false, idempotent_hint = false, open_world_hint = true),
        output_schema = super::output_schema::<MedicationCheck>(),
        input_schema = super::input_schema::<MedicationCheckRequest>()
    )]
    async fn medication_check(
        &self,
        Arguments(wanted): Arguments<MedicationCheckRequest>,
    ) -> Result<Json<MedicationCheck>, Failure> {
        Ok(Json(self.account().medication_check(&wanted).await?))
    }

    #[tool(
        title = "Assess symptoms",
        description = "Tells how urgent symptoms are and what they may come from. Billed: $0.04 a call. Not a diagnosis; in an emergency the person calls for help first.",
        annotations(read_only_hint = false, destructive_hint = false, idempotent_hint = false, open_world_hint = true),
        output_schema = super::output_schema::<SymptomAssessment>(),
        input_schema = super::input_schema::<SymptomAssessmentRequest>()
    )]
    async fn symptom_assessment(
        &self,
        Arguments(wanted): Arguments<SymptomAssessmentRequest>,
    ) -> Result<Json<SymptomAssessment>, Failure> {
        Ok(Json(self.account().symptom_assessment(&wanted).await?))
    }

    #[tool(
        title = "Recommend treatments",
        description = "Recommends treatments, monitoring and goals for a diagnosis that has been made, for a clinician to judge. Billed: $0.06 a call. Not a diagnosis and not a prescription.",
        annotations(read_only_hint = false, destructive_hint = false, idempotent_hint = false, open_world_hint = true),
        output_schema = super::output_schema::<TreatmentRecommendations>(),
        input_schema = super::input_schema::<TreatmentRequest>()
    )]
    async fn treatment_recommendations(
        &self,
        Arguments(wanted): Arguments<TreatmentRequest>,
    ) -> Result<Json<TreatmentRecommendations>, Failure> {
        Ok(Json(self.account().treatment_recommendations(&wanted).await?))
    }

    #[tool(
        title = "Extract clinical data",
        description = "Reads a clinical text, such as a doctor's letter, and answers with the data in it, by field. Billed: $0.08 a call. Not a diagnosis: compare the data with the text.",
        annotations(read_only_hint = false, destructive_hint = false, idempotent_hint = false, open_world_hint = true),
        output_schema = super::output_schema::<Extraction>(),
        input_schema = super::input_schema::<ExtractionRequest>()
    )]
    async fn clinical_data_extraction(
        &self,
        Arguments(wanted): Arguments<ExtractionRequest>,
    ) -> Result<Json<Extraction>, Failure> {
        Ok(Json(self.account().data_extraction(&wanted).await?))
    }

    #[tool(
        title = "Ask BondMCP",
        description = "Answers a health question in free words, where no other health tool fits. Billed; the answer says what it cost. Not a diagnosis.",
        annotations(read_only_hint = false, destructive_hint = false, idempotent_hint = false, open_world_hint = true),
        output_schema = super::output_schema::<Analysis>(),
        input_schema = super::input_schema::<AnalysisRequest>()
    )]
    async fn health_analyze(
        &self,
        Arguments(wanted): Arguments<AnalysisRequest>,
    ) -> Result<Json<Analysis>, Failure> {
        Ok(Json(self.account().analyze(&wanted).await?))
    }
}
