//! The health services. Every call is billed, so none of them is a mere read, and none is made twice by itself.

use rmcp::{handler::server::wrapper::Json, tool, tool_router};

use super::super::{BondMcp, arguments::Arguments, failure::Failure, spending::Usd};
use crate::account;
use crate::bondmcp;
use crate::bondmcp::wire::health::{
    Analysis, AnalysisRequest, Answer, Extraction, ExtractionRequest, MedicationCheck,
    MedicationCheckRequest, RiskAnalysis, RiskAnalysisRequest, SymptomAssessment, SymptomAssessmentRequest,
    TreatmentRecommendations, TreatmentRequest,
};

/// The tools of this file, and what a call costs in US dollars. BondMCP documents no price for `health_analyze`; the
/// highest one is reckoned with until the answer tells.
pub(super) const PRICES: [(&str, f64); 6] = [
    (EXTRACTION, 0.08),
    (ANALYSIS, 0.08),
    (RISK, 0.05),
    (MEDICATION, 0.03),
    (SYMPTOMS, 0.04),
    (TREATMENT, 0.06),
];

const EXTRACTION: &str = "clinical_data_extraction";
const ANALYSIS: &str = "health_analyze";
const RISK: &str = "health_risk_analysis";
const MEDICATION: &str = "medication_check";
const SYMPTOMS: &str = "symptom_assessment";
const TREATMENT: &str = "treatment_recommendations";

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
        self.paid(RISK, self.account().risk_analysis(&wanted)).await
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
        self.paid(MEDICATION, self.account().medication_check(&wanted)).await
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
        self.paid(SYMPTOMS, self.account().symptom_assessment(&wanted)).await
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
        self.paid(TREATMENT, self.account().treatment_recommendations(&wanted)).await
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
        self.paid(EXTRACTION, self.account().data_extraction(&wanted)).await
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
        self.paid(ANALYSIS, self.account().analyze(&wanted)).await
    }
}

impl BondMcp {
    /// Makes `call` if it may still be paid for, and notes what it cost.
    async fn paid<T: Answer>(
        &self,
        tool: &'static str,
        call: impl Future<Output = Result<T, account::Error>>,
    ) -> Result<Json<T>, Failure> {
        let price = PRICES.iter().find(|(name, _)| *name == tool).map_or(0.0, |(_, price)| *price);
        let billed = self.inner.spending.begin(tool, Usd::from_f64(price))?;
        match call.await {
            Ok(answer) => {
                billed.cost(answer.cost());
                Ok(Json(answer))
            }
            Err(error) => {
                if !matches!(error, account::Error::Upstream(bondmcp::Error::PossiblyBilled { .. })) {
                    billed.nothing();
                }
                Err(error.into())
            }
        }
    }
}
