//! The six health services. Each call is billed, so all of them go through [`Client::billed`], and a billed response is
//! not discarded because one of its fields is not as documented.

use serde_json::{Map, Value};

use super::{
    Client, Error,
    exchange::Sent,
    wire::health::{Answer, Service},
};
use crate::secret::{SecretString, to_secret_json};

impl Client {
    /// `POST /health-ai/{service}`.
    pub async fn health_service<S: Service>(
        &self,
        bearer: &SecretString,
        wanted: &S,
        sent: &Sent,
    ) -> Result<S::Answer, Error> {
        let body = to_secret_json(wanted).map_err(|_| self.unreadable())?;
        self.billed(&["health-ai", S::PATH], bearer, body, sent, parse).await
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
    use crate::bondmcp::wire::health::RiskAnalysis;
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
