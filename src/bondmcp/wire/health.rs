//! The six billed health services. Requests are described with units and examples, since agents read these
//! descriptions. Where the API's reference gives no type or no values, the schema accepts whatever BondMCP may accept.
//! All fields of responses are optional: a missing list is not an empty one, and this server must not claim "no
//! interactions".

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, de};
use serde_json::{Map, Number, Value, json};

use super::Extra;

/// A response with a list of its documented fields.
pub trait Answer: de::DeserializeOwned {
    const FIELDS: &'static [&'static str];

    /// Cost of the call in US dollars.
    fn cost(&self) -> Option<f64>;
}

/// The schema of a value of undocumented type, in keywords that every client supports; the schema `true` is not
/// supported by all.
struct Anything;

impl JsonSchema for Anything {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Anything".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let one = [json!({"type": "string"}), json!({"type": "number"}), json!({"type": "boolean"})];
        let object = json!({"type": "object", "additionalProperties": true});
        let one: Vec<Value> = one.into_iter().chain([object]).collect();
        let several = json!({"type": "array", "items": {"anyOf": one}});
        json_schema!({"anyOf": one.iter().chain([&several]).collect::<Vec<_>>()})
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
    /// The known facts about the patient. Additional fields are passed on.
    pub patient_data: PatientData,
    /// The risk to estimate.
    pub analysis_type: RiskKind,
}

/// A kind of risk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum RiskKind {
    Cardiovascular,
    Diabetes,
    General,
}

/// The known facts about a patient whose risk is estimated. Additional fields are passed on.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
pub struct PatientData {
    /// Age in years.
    #[schemars(example = 54)]
    pub age: TextOrNumber,
    /// The patient's gender.
    #[schemars(example = &"female", example = &"male")]
    pub gender: String,
    /// Body mass index in kg/m².
    #[schemars(example = 27.5)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bmi: Option<TextOrNumber>,
    /// Systolic over diastolic pressure in mmHg.
    #[schemars(example = "140/90")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blood_pressure: Option<TextOrNumber>,
    /// Total cholesterol in mg/dL (mmol/L times 38.67).
    #[schemars(example = 210)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cholesterol: Option<TextOrNumber>,
    /// Whether the patient smokes.
    #[schemars(example = true, example = &"former")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub smoking: Option<Either<bool, String>>,
    /// Diseases of close relatives.
    #[schemars(example = ["heart disease"])]
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
    /// Cost of the call in US dollars.
    #[serde(default, deserialize_with = "number", skip_serializing_if = "Option::is_none")]
    pub cost: Option<f64>,
    #[serde(flatten)]
    pub extra: Extra,
}

impl Answer for RiskAnalysis {
    const FIELDS: &'static [&'static str] =
        &["risk_level", "risk_score", "factors", "recommendations", "cost"];

    fn cost(&self) -> Option<f64> {
        self.cost
    }
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
    /// Everything the patient takes or will take, one medication per entry.
    #[schemars(length(min = 1))]
    pub medications: Vec<Medication>,
    /// The patient's conditions, one per entry.
    #[schemars(inner(length(min = 1)), example = ["hypertension"])]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub patient_conditions: Option<Vec<String>>,
}

/// One medication.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Medication {
    /// Name of the drug, or of its substance.
    #[schemars(length(min = 1), example = &"warfarin")]
    pub name: String,
    /// A dose with its unit.
    #[schemars(example = "5 mg")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dosage: Option<TextOrNumber>,
    /// How often the medication is taken.
    #[schemars(example = "once daily")]
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
    /// Cost of the call in US dollars.
    #[serde(default, deserialize_with = "number", skip_serializing_if = "Option::is_none")]
    pub cost: Option<f64>,
    #[serde(flatten)]
    pub extra: Extra,
}

impl Answer for MedicationCheck {
    const FIELDS: &'static [&'static str] = &["interactions", "contraindications", "safety_score", "cost"];

    fn cost(&self) -> Option<f64> {
        self.cost
    }
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
    /// The patient's symptoms, one per entry.
    #[schemars(length(min = 1))]
    pub symptoms: Vec<Symptom>,
    /// Age in years.
    #[schemars(example = 54)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub patient_age: Option<TextOrNumber>,
    /// The patient's gender.
    #[schemars(example = &"female", example = &"male")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub patient_gender: Option<String>,
}

/// One symptom.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Symptom {
    /// The symptom in plain language.
    #[schemars(length(min = 1), example = "chest pain on exertion")]
    pub description: String,
    /// Severity of the symptom, as a word or on a scale to 10.
    #[schemars(example = &"mild", example = &"severe", example = 7)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub severity: Option<TextOrNumber>,
    /// Duration of the symptom, with its unit.
    #[schemars(example = "2 days")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration: Option<TextOrNumber>,
    /// Onset of the symptom.
    #[schemars(example = &"sudden")]
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
    /// Cost of the call in US dollars.
    #[serde(default, deserialize_with = "number", skip_serializing_if = "Option::is_none")]
    pub cost: Option<f64>,
    #[serde(flatten)]
    pub extra: Extra,
}

impl Answer for SymptomAssessment {
    const FIELDS: &'static [&'static str] =
        &["urgency", "urgency_score", "possible_conditions", "recommended_actions", "triage_level", "cost"];

    fn cost(&self) -> Option<f64> {
        self.cost
    }
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
    /// The diagnosis in plain language, optionally with a code such as ICD-10.
    #[schemars(length(min = 1), example = "type 2 diabetes (E11.9)")]
    pub diagnosis: String,
    /// The known facts about the patient. Additional fields are passed on.
    pub patient_profile: PatientProfile,
    /// Results by the name of the test, with the unit in the name or in the value.
    #[schemars(example = serde_json::json!({"hba1c_percent": 8.1, "creatinine": "0.9 mg/dL"}))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lab_results: Option<Map<String, Value>>,
}

/// The known facts about a patient who will be treated. Additional fields are passed on.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
pub struct PatientProfile {
    /// Age in years.
    #[schemars(example = 54)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub age: Option<TextOrNumber>,
    /// The patient's gender.
    #[schemars(example = &"female", example = &"male")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gender: Option<String>,
    /// Other diseases.
    #[schemars(example = ["hypertension"])]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conditions: Option<TextOrList>,
    /// Current medications.
    #[schemars(example = ["metformin 500 mg twice daily"])]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub medications: Option<TextOrList>,
    /// Substances that the patient must not be given.
    #[schemars(example = ["penicillin"])]
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
    /// Cost of the call in US dollars.
    #[serde(default, deserialize_with = "number", skip_serializing_if = "Option::is_none")]
    pub cost: Option<f64>,
    #[serde(flatten)]
    pub extra: Extra,
}

impl Answer for TreatmentRecommendations {
    const FIELDS: &'static [&'static str] = &["treatment_plan", "goals", "cost"];

    fn cost(&self) -> Option<f64> {
        self.cost
    }
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
    /// The text to read. Leave out what identifies the patient.
    #[schemars(length(min = 1), example = "BP 140/90, HR 88. Started lisinopril 10 mg daily.")]
    pub clinical_text: String,
    /// Fields to extract; BondMCP decides if absent.
    #[schemars(inner(length(min = 1)), example = ["blood_pressure", "medications"])]
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
    /// Cost of the call in US dollars.
    #[serde(default, deserialize_with = "number", skip_serializing_if = "Option::is_none")]
    pub cost: Option<f64>,
    #[serde(flatten)]
    pub extra: Extra,
}

impl Answer for Extraction {
    const FIELDS: &'static [&'static str] = &["extracted_data", "confidence_score", "cost"];

    fn cost(&self) -> Option<f64> {
        self.cost
    }
}

/// Body of `POST /health-ai/analyze`.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AnalysisRequest {
    /// The question, with everything needed to answer it.
    #[schemars(length(min = 1), example = "What may explain fatigue with a ferritin of 8 ng/mL?")]
    pub prompt: String,
    /// The kind of analysis, in one word. BondMCP does not document the accepted words.
    #[schemars(length(min = 1), example = &"general", example = &"lab_results")]
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
    /// Cost of the call in US dollars.
    #[serde(default, deserialize_with = "number", skip_serializing_if = "Option::is_none")]
    pub cost: Option<f64>,
    #[serde(flatten)]
    pub extra: Extra,
}

impl Answer for Analysis {
    const FIELDS: &'static [&'static str] = &["analysis", "confidence_score", "recommendations", "cost"];

    fn cost(&self) -> Option<f64> {
        self.cost
    }
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
