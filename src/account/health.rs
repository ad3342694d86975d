//! The health services, each billed to the account. They run inside their caller: dropping it cancels the request, so
//! that no unread response is paid for.

use super::{Account, Error, Need};
use crate::bondmcp::wire::health::{
    Analysis, AnalysisRequest, Extraction, ExtractionRequest, MedicationCheck, MedicationCheckRequest,
    RiskAnalysis, RiskAnalysisRequest, SymptomAssessment, SymptomAssessmentRequest, TreatmentRecommendations,
    TreatmentRequest,
};

impl Account {
    pub async fn risk_analysis(&self, wanted: &RiskAnalysisRequest) -> Result<RiskAnalysis, Error> {
        self.call(Need::Api, |client, bearer| async move { client.risk_analysis(&bearer, wanted).await })
            .await
    }

    pub async fn medication_check(&self, wanted: &MedicationCheckRequest) -> Result<MedicationCheck, Error> {
        self.call(Need::Api, |client, bearer| async move { client.medication_check(&bearer, wanted).await })
            .await
    }

    pub async fn symptom_assessment(
        &self,
        wanted: &SymptomAssessmentRequest,
    ) -> Result<SymptomAssessment, Error> {
        self.call(Need::Api, |client, bearer| async move { client.symptom_assessment(&bearer, wanted).await })
            .await
    }

    pub async fn treatment_recommendations(
        &self,
        wanted: &TreatmentRequest,
    ) -> Result<TreatmentRecommendations, Error> {
        self.call(Need::Api, |client, bearer| async move {
            client.treatment_recommendations(&bearer, wanted).await
        })
        .await
    }

    pub async fn data_extraction(&self, wanted: &ExtractionRequest) -> Result<Extraction, Error> {
        self.call(Need::Api, |client, bearer| async move { client.data_extraction(&bearer, wanted).await })
            .await
    }

    pub async fn analyze(&self, wanted: &AnalysisRequest) -> Result<Analysis, Error> {
        self.call(Need::Api, |client, bearer| async move { client.analyze(&bearer, wanted).await }).await
    }
}
