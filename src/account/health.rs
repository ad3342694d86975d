//! The health services, each billed to the account. They run inside their caller: dropping it cancels the request, so
//! that no unread response is paid for.

use super::{Account, Error, RequiredCredential};
use crate::bondmcp::{
    Sent,
    wire::health::{
        Analysis, AnalysisRequest, Extraction, ExtractionRequest, MedicationCheck, MedicationCheckRequest,
        RiskAnalysis, RiskAnalysisRequest, SymptomAssessment, SymptomAssessmentRequest,
        TreatmentRecommendations, TreatmentRequest,
    },
};

impl Account {
    pub async fn risk_analysis(
        &self,
        wanted: &RiskAnalysisRequest,
        sent: &Sent,
    ) -> Result<RiskAnalysis, Error> {
        self.call(RequiredCredential::Api, |client, bearer| async move {
            client.risk_analysis(&bearer, wanted, sent).await
        })
        .await
    }

    pub async fn medication_check(
        &self,
        wanted: &MedicationCheckRequest,
        sent: &Sent,
    ) -> Result<MedicationCheck, Error> {
        self.call(RequiredCredential::Api, |client, bearer| async move {
            client.medication_check(&bearer, wanted, sent).await
        })
        .await
    }

    pub async fn symptom_assessment(
        &self,
        wanted: &SymptomAssessmentRequest,
        sent: &Sent,
    ) -> Result<SymptomAssessment, Error> {
        self.call(RequiredCredential::Api, |client, bearer| async move {
            client.symptom_assessment(&bearer, wanted, sent).await
        })
        .await
    }

    pub async fn treatment_recommendations(
        &self,
        wanted: &TreatmentRequest,
        sent: &Sent,
    ) -> Result<TreatmentRecommendations, Error> {
        self.call(RequiredCredential::Api, |client, bearer| async move {
            client.treatment_recommendations(&bearer, wanted, sent).await
        })
        .await
    }

    pub async fn data_extraction(
        &self,
        wanted: &ExtractionRequest,
        sent: &Sent,
    ) -> Result<Extraction, Error> {
        self.call(RequiredCredential::Api, |client, bearer| async move {
            client.data_extraction(&bearer, wanted, sent).await
        })
        .await
    }

    pub async fn analyze(&self, wanted: &AnalysisRequest, sent: &Sent) -> Result<Analysis, Error> {
        self.call(RequiredCredential::Api, |client, bearer| async move {
            client.analyze(&bearer, wanted, sent).await
        })
        .await
    }
}
