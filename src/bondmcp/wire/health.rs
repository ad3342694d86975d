//! The six billed health services. Requests are described with units and examples, since agents read these
//! descriptions. Where the API's reference gives no type or no values, the schema accepts whatever BondMCP may accept.
//! All fields of responses are optional: a missing list is not an empty one, and this server must not claim "no
//! interactions".

use std::{borrow::Cow, collections::BTreeSet, sync::LazyLock};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema, schema_for};
use serde::{Deserialize, Deserializer, Serialize, de};
use serde_json::{Map, Number, Value};

use super::Extra;

/// A response with a list of its documented fields.
pub trait Answer: de::DeserializeOwned + Serialize + JsonSchema + Send {
    const FIELDS: &'static [&'static str];

    /// Cost of the call in US dollars.
    fn cost(&self) -> Option<f64>;
}

/// The request of a service: the body of `POST /health-ai/{PATH}`.
pub trait Service: de::DeserializeOwned + Serialize + JsonSchema + Send + Sync + 'static {
    const PATH: &'static str;
    type Answer: Answer;
}

/// Declares a service: its path, its request, its answer and the documented fields of the answer.
macro_rules! service {
    ($path:literal, $request:ty, $answer:ty, $fields:expr) => {
        impl Service for $request {
            const PATH: &'static str = $path;
            type Answer = $answer;
        }

        impl Answer for $answer {
            const FIELDS: &'static [&'static str] = &$fields;

            fn cost(&self) -> Option<f64> {
                self.cost
            }
        }
    };
}

service!(
    "risk-analysis",
    RiskAnalysisRequest,
    RiskAnalysis,
    ["risk_level", "risk_score", "factors", "recommendations", "cost"]
);
service!(
    "medication-check",
    MedicationCheckRequest,
    MedicationCheck,
    ["interactions", "contraindications", "safety_score", "cost"]
);
service!(
    "symptom-assessment",
    SymptomAssessmentRequest,
    SymptomAssessment,
    ["urgency", "urgency_score", "possible_conditions", "recommended_actions", "triage_level", "cost"]
);
service!(
    "treatment-recommendations",
    TreatmentRequest,
    TreatmentRecommendations,
    ["treatment_plan", "goals", "cost"]
);
service!("data-extraction", ExtractionRequest, Extraction, ["extracted_data", "confidence_score", "cost"]);
service!("analyze", AnalysisRequest, Analysis, ["analysis", "confidence_score", "recommendations", "cost"]);

/// Returns the names of all fields of all requests.
#[must_use]
pub fn documented_names() -> &'static BTreeSet<String> {
    static NAMES: LazyLock<BTreeSet<String>> = LazyLock::new(|| {
        let mut names = BTreeSet::new();
        for schema in [
            schema_for!(RiskAnalysisRequest),
            schema_for!(MedicationCheckRequest),
            schema_for!(SymptomAssessmentRequest),
            schema_for!(TreatmentRequest),
            schema_for!(ExtractionRequest),
            schema_for!(AnalysisRequest),
        ] {
            add_names(schema.as_value(), &mut names);
        }
        names
    });
    &NAMES
}

fn add_names(schema: &Value, names: &mut BTreeSet<String>) {
    match schema {
        Value::Object(keywords) => {
            if let Some(Value::Object(properties)) = keywords.get("properties") {
                names.extend(properties.keys().cloned());
            }
            keywords.values().for_each(|keyword| add_names(keyword, names));
        }
        Value::Array(schemas) => schemas.iter().for_each(|schema| add_names(schema, names)),
        _ => {}
    }
}

/// The schema of a value of undocumented type. It is an object without keywords; not every client supports `true`.
struct Anything;

impl JsonSchema for Anything {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Anything".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({})
    }
}

// A value of undocumented type, in either of its two likely forms. A doc comment would appear in the schemas.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(untagged)]
#[schemars(inline)]
pub enum Either<A, B> {
    This(A),
    That(B),
}

/// Such as `54` or `"6 months"`.
pub type TextOrNumber = Either<String, Number>;

/// Such as `["stroke"]` or `"father: stroke at 60"`.
pub type TextOrList = Either<String, Vec<String>>;

/// Body of `POST /health-ai/risk-analysis`.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RiskAnalysisRequest {
    /// Known facts; other fields are passed on.
    pub patient_data: PatientData,
    /// Risk to estimate.
    pub analysis_type: RiskKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum RiskKind {
    Cardiovascular,
    Diabetes,
    General,
}

/// The known facts about a patient whose risk is estimated.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
pub struct PatientData {
    /// Age in years.
    pub age: TextOrNumber,
    /// Female, male or another word.
    pub gender: String,
    /// Body mass index in kg/m².
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bmi: Option<TextOrNumber>,
    /// In mmHg, such as 140/90.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blood_pressure: Option<TextOrNumber>,
    /// Total cholesterol in mg/dL (mmol/L times 38.67).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cholesterol: Option<TextOrNumber>,
    /// Whether they smoke, or a word such as former.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub smoking: Option<Either<bool, String>>,
    /// Diseases of close relatives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub family_history: Option<TextOrList>,
    #[serde(flatten)]
    pub extra: Extra,
}

/// Answer to `POST /health-ai/risk-analysis`.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
pub struct RiskAnalysis {
    /// Such as `low`, `moderate` or `high`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub risk_level: Option<String>,
    #[serde(default, deserialize_with = "number", skip_serializing_if = "Option::is_none")]
    pub risk_score: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub factors: Option<Vec<RiskFactor>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Vec<Anything>>")]
    pub recommendations: Option<Vec<Value>>,
    /// Cost in US dollars.
    #[serde(default, deserialize_with = "number", skip_serializing_if = "Option::is_none")]
    pub cost: Option<f64>,
    #[serde(flatten)]
    pub extra: Extra,
}

/// A factor that raises or lowers a risk.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
pub struct RiskFactor {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub factor: Option<String>,
    /// A word or a number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Anything>")]
    pub impact: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recommendation: Option<String>,
    #[serde(flatten)]
    pub extra: Extra,
}

/// Body of `POST /health-ai/medication-check`.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MedicationCheckRequest {
    /// All that the patient takes, at least one.
    #[schemars(length(min = 1))]
    pub medications: Vec<Medication>,
    /// Conditions, none empty.
    #[schemars(inner(length(min = 1)))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub patient_conditions: Option<Vec<String>>,
}

/// One medication.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Medication {
    /// Drug or substance, not empty.
    #[schemars(length(min = 1))]
    pub name: String,
    /// Dose with its unit, such as 5 mg.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dosage: Option<TextOrNumber>,
    /// Frequency, such as once daily.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub frequency: Option<TextOrNumber>,
}

/// Answer to `POST /health-ai/medication-check`.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
pub struct MedicationCheck {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interactions: Option<Vec<Interaction>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Vec<Anything>>")]
    pub contraindications: Option<Vec<Value>>,
    #[serde(default, deserialize_with = "number", skip_serializing_if = "Option::is_none")]
    pub safety_score: Option<f64>,
    /// Cost in US dollars.
    #[serde(default, deserialize_with = "number", skip_serializing_if = "Option::is_none")]
    pub cost: Option<f64>,
    #[serde(flatten)]
    pub extra: Extra,
}

/// An interaction of drugs.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
pub struct Interaction {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub severity: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drugs: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interaction: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recommendation: Option<String>,
    #[serde(flatten)]
    pub extra: Extra,
}

/// Body of `POST /health-ai/symptom-assessment`.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SymptomAssessmentRequest {
    /// The symptoms, at least one.
    #[schemars(length(min = 1))]
    pub symptoms: Vec<Symptom>,
    /// Age in years.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub patient_age: Option<TextOrNumber>,
    /// Female, male or another word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub patient_gender: Option<String>,
}

/// One symptom.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Symptom {
    /// In plain language, not empty.
    #[schemars(length(min = 1))]
    pub description: String,
    /// A word such as mild, or a number up to 10.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub severity: Option<TextOrNumber>,
    /// Duration with its unit, such as 2 days.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration: Option<TextOrNumber>,
    /// Onset, such as sudden.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub onset: Option<String>,
}

/// Answer to `POST /health-ai/symptom-assessment`.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
pub struct SymptomAssessment {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub urgency: Option<String>,
    #[serde(default, deserialize_with = "number", skip_serializing_if = "Option::is_none")]
    pub urgency_score: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub possible_conditions: Option<Vec<PossibleCondition>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Vec<Anything>>")]
    pub recommended_actions: Option<Vec<Value>>,
    /// A word or a number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Anything>")]
    pub triage_level: Option<Value>,
    /// Cost in US dollars.
    #[serde(default, deserialize_with = "number", skip_serializing_if = "Option::is_none")]
    pub cost: Option<f64>,
    #[serde(flatten)]
    pub extra: Extra,
}

/// A possible cause of the symptoms.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
pub struct PossibleCondition {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub condition: Option<String>,
    /// A word or a number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Anything>")]
    pub probability: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reasoning: Option<String>,
    #[serde(flatten)]
    pub extra: Extra,
}

/// Body of `POST /health-ai/treatment-recommendations`.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TreatmentRequest {
    /// Not empty, such as type 2 diabetes (E11.9).
    #[schemars(length(min = 1))]
    pub diagnosis: String,
    /// Known facts; other fields are passed on.
    pub patient_profile: PatientProfile,
    /// By test, with units, such as `{"hba1c_percent": 8.1}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lab_results: Option<Map<String, Value>>,
}

/// The known facts about a patient who will be treated.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
pub struct PatientProfile {
    /// Age in years.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub age: Option<TextOrNumber>,
    /// Female, male or another word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gender: Option<String>,
    /// Other diseases.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conditions: Option<TextOrList>,
    /// Such as metformin 500 mg twice daily.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub medications: Option<TextOrList>,
    /// Substances not to be given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allergies: Option<TextOrList>,
    #[serde(flatten)]
    pub extra: Extra,
}

/// Answer to `POST /health-ai/treatment-recommendations`.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
pub struct TreatmentRecommendations {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub treatment_plan: Option<TreatmentPlan>,
    /// Targets of the treatment, by name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub goals: Option<Map<String, Value>>,
    /// Cost in US dollars.
    #[serde(default, deserialize_with = "number", skip_serializing_if = "Option::is_none")]
    pub cost: Option<f64>,
    #[serde(flatten)]
    pub extra: Extra,
}

/// A treatment plan.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
pub struct TreatmentPlan {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Vec<Anything>>")]
    pub pharmacological: Option<Vec<Value>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Vec<Anything>>")]
    pub non_pharmacological: Option<Vec<Value>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Vec<Anything>>")]
    pub monitoring: Option<Vec<Value>>,
    #[serde(flatten)]
    pub extra: Extra,
}

/// Body of `POST /health-ai/data-extraction`.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExtractionRequest {
    /// Text to read, not empty. Leave out what identifies the patient.
    #[schemars(length(min = 1))]
    pub clinical_text: String,
    /// Such as `blood_pressure`, none empty; BondMCP decides if absent.
    #[schemars(inner(length(min = 1)))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extract_fields: Option<Vec<String>>,
}

/// Answer to `POST /health-ai/data-extraction`.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
pub struct Extraction {
    /// Extracted data, by field.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extracted_data: Option<Map<String, Value>>,
    #[serde(default, deserialize_with = "number", skip_serializing_if = "Option::is_none")]
    pub confidence_score: Option<f64>,
    /// Cost in US dollars.
    #[serde(default, deserialize_with = "number", skip_serializing_if = "Option::is_none")]
    pub cost: Option<f64>,
    #[serde(flatten)]
    pub extra: Extra,
}

/// Body of `POST /health-ai/analyze`.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AnalysisRequest {
    /// Question with all that the answer needs, not empty.
    #[schemars(length(min = 1))]
    pub prompt: String,
    /// One word, not empty, such as `general` or `lab_results`; BondMCP documents no list.
    #[schemars(length(min = 1))]
    pub analysis_type: String,
}

/// Answer to `POST /health-ai/analyze`.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
pub struct Analysis {
    /// A text or a structured value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Anything>")]
    pub analysis: Option<Value>,
    #[serde(default, deserialize_with = "number", skip_serializing_if = "Option::is_none")]
    pub confidence_score: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Vec<Anything>>")]
    pub recommendations: Option<Vec<Value>>,
    /// Cost in US dollars.
    #[serde(default, deserialize_with = "number", skip_serializing_if = "Option::is_none")]
    pub cost: Option<f64>,
    #[serde(flatten)]
    pub extra: Extra,
}

/// A number, or a text that is one: `0.05`, `"0.05"`, `"$0.05"`.
fn number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<f64>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Given {
        Number(f64),
        Text(String),
    }
    match Option::<Given>::deserialize(deserializer)? {
        None => Ok(None),
        Some(Given::Number(number)) => Ok(Some(number)),
        Some(Given::Text(text)) => {
            let digits = text.trim().trim_start_matches('$');
            let number = digits.parse().ok().filter(|number: &f64| number.is_finite());
            number.map(Some).ok_or_else(|| de::Error::custom("not a number"))
        }
    }
}
