//! The six health services. Each call is billed, so all of them go through [`Client::billed`], and a billed response is
//! not discarded because one of its fields is not as documented.

use serde::Serialize;
use serde_json::{Map, Value};

use super::{
    Client, Error,
    exchange::Sent,
    wire::health::{
        Analysis, AnalysisRequest, Answer, Extraction, ExtractionRequest, MedicationCheck,
        MedicationCheckRequest, RiskAnalysis, RiskAnalysisRequest, SymptomAssessment,
        SymptomAssessmentRequest, TreatmentRecommendations, TreatmentRequest,
    },
};
use crate::secret::{SecretString, to_secret_json};

impl Client {
    /// `POST /health-ai/risk-analysis`.
    pub async fn risk_analysis(
        &self,
        bearer: &SecretString,
        wanted: &RiskAnalysisRequest,
        sent: &Sent,
    ) -> Result<RiskAnalysis, Error> {
        self.health_service("risk-analysis", bearer, wanted, sent).await
    }

    /// `POST /health-ai/medication-check`.
    pub async fn medication_check(
        &self,
        bearer: &SecretString,
        wanted: &MedicationCheckRequest,
        sent: &Sent,
    ) -> Result<MedicationCheck, Error> {
        self.health_service("medication-check", bearer, wanted, sent).await
    }

    /// `POST /health-ai/symptom-assessment`.
    pub async fn symptom_assessment(
        &self,
        bearer: &SecretString,
        wanted: &SymptomAssessmentRequest,
        sent: &Sent,
    ) -> Result<SymptomAssessment, Error> {
        self.health_service("symptom-assessment", bearer, wanted, sent).await
    }

    /// `POST /health-ai/treatment-recommendations`.
    pub async fn treatment_recommendations(
        &self,
        bearer: &SecretString,
        wanted: &TreatmentRequest,
        sent: &Sent,
    ) -> Result<TreatmentRecommendations, Error> {
        self.health_service("treatment-recommendations", bearer, wanted, sent).await
    }

    /// `POST /health-ai/data-extraction`.
    pub async fn data_extraction(
        &self,
        bearer: &SecretString,
        wanted: &ExtractionRequest,
        sent: &Sent,
    ) -> Result<Extraction, Error> {
        self.health_service("data-extraction", bearer, wanted, sent).await
    }

    /// `POST /health-ai/analyze`.
    pub async fn analyze(
        &self,
        bearer: &SecretString,
        wanted: &AnalysisRequest,
        sent: &Sent,
    ) -> Result<Analysis, Error> {
        self.health_service("analyze", bearer, wanted, sent).await
    }

    async fn health_service<T: Answer>(
        &self,
        service: &str,
        bearer: &SecretString,
        wanted: &impl Serialize,
        sent: &Sent,
    ) -> Result<T, Error> {
        let body = to_secret_json(wanted).map_err(|_| self.unreadable())?;
        self.billed(&["health-ai", service], bearer, body, sent, parse).await
    }
}

/// Parses the response as `T`. A field that is not as documented is kept as `…_as_given`; at least one must be as
/// documented, otherwise the response is not BondMCP's.
fn parse<T: Answer>(answer: Value) -> Option<T> {
    let Value::Object(mut fields) = answer else { return None };
    while has_one_of(&fields, T::FIELDS) {
        let error = match serde_path_to_error::deserialize(Value::Object(fields.clone())) {
            Ok(answer) => return Some(answer),
            Err(error) => error,
        };
        let path = error.path().to_string();
        let field = path.split(['.', '[']).next().unwrap_or_default();
        let given = fields.remove(field)?;
        fields.insert(format!("{field}_as_given"), given);
    }
    None
}

fn has_one_of(fields: &Map<String, Value>, names: &[&str]) -> bool {
    names.iter().any(|name| fields.contains_key(*name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(answer: Value) -> Option<Value> {
        parse::<RiskAnalysis>(answer).map(|answer| json!(answer))
    }

    #[test]
    fn unknown_fields_are_kept_and_absent_ones_are_not_made_up() {
        let answer = json!({"risk_score": 12.5, "model": "m", "factors": [{"factor": "bmi", "weight": 2}]});
        assert_eq!(read(answer.clone()), Some(answer));
    }

    #[test]
    fn a_cost_is_a_number_or_a_text_that_is_one() {
        for (given, cost) in
            [(json!(0.05), json!(0.05)), (json!("0.05"), json!(0.05)), (json!("$0.05"), json!(0.05))]
        {
            assert_eq!(read(json!({ "cost": given })).unwrap()["cost"], cost);
        }
    }

    #[test]
    fn an_answer_that_was_paid_for_survives_a_field_of_another_shape() {
        let answer =
            json!({"risk_level": "low", "risk_score": "n/a", "factors": [{"factor": 7}], "cost": "free"});
        let kept = json!({
            "risk_level": "low", "risk_score_as_given": "n/a", "factors_as_given": [{"factor": 7}],
            "cost_as_given": "free",
        });
        assert_eq!(read(answer), Some(kept));
    }

    #[test]
    fn another_shape_is_no_answer() {
        for answer in [json!([1]), json!("fine"), json!({}), json!({"weather": 1}), json!({"cost": []})] {
            assert_eq!(read(answer.clone()), None, "{answer}");
        }
    }
}
