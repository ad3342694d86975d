//! Sample answers to health questions. They are computed from the input by meaningless arithmetic, which shows that the
//! input arrived; every text says that it is a sample.

use regex_lite::Regex;
use serde_json::{Map, Value, json};

use crate::bondmcp::wire::{
    Extra,
    health::{
        Analysis, AnalysisRequest, Either, Extraction, ExtractionRequest, Interaction, MedicationCheck,
        MedicationCheckRequest, PossibleCondition, RiskAnalysis, RiskAnalysisRequest, RiskFactor,
        SymptomAssessment, SymptomAssessmentRequest, TextOrList, TextOrNumber, TreatmentPlan,
        TreatmentRecommendations, TreatmentRequest,
    },
};

/// Points up to 100: half the age, 2 for each kg/m² above 25, half of each mmHg above 120, a tenth of each mg/dL above
/// 200, 20 for smoking, 5 for each relative.
pub fn risk(asked: &RiskAnalysisRequest) -> RiskAnalysis {
    let patient = &asked.patient_data;
    let mut factors = vec![(format!("age {}", words(&patient.age)), points(&patient.age) / 2.0)];
    let mut add =
        |name: &str, given: &Option<TextOrNumber>, normal: f64, weight: f64| {
            factors.extend(given.as_ref().map(|given| {
                (format!("{name} {}", words(given)), (points(given) - normal).max(0.0) * weight)
            }));
        };
    add("bmi", &patient.bmi, 25.0, 2.0);
    add("blood pressure", &patient.blood_pressure, 120.0, 0.5);
    add("cholesterol", &patient.cholesterol, 200.0, 0.1);
    let smokes = matches!(&patient.smoking, Some(Either::This(true) | Either::That(_)));
    factors.extend(smokes.then(|| ("smoking".to_owned(), 20.0)));
    for relative in list(patient.family_history.as_ref()) {
        factors.push((format!("{relative} in the family"), 5.0));
    }
    let score = factors.iter().map(|(_, points)| points).sum::<f64>().min(100.0);
    let factor = |(name, points): (String, f64)| RiskFactor {
        factor: Some(format!("Sample factor for {name}")),
        impact: Some(points.into()),
        recommendation: Some(format!("Sample recommendation for {name}")),
        extra: Extra::new(),
    };
    RiskAnalysis {
        risk_level: Some(level(score, 100.0).to_owned()),
        risk_score: Some(score),
        factors: Some(factors.into_iter().map(factor).collect()),
        recommendations: Some(vec![json!(format!("Sample recommendation, {:?}", asked.analysis_type))]),
        cost: None,
        extra: Extra::new(),
    }
}

/// Every pair interacts, every medication is contraindicated in every condition, and each pair takes 10 from a score of
/// 100.
pub fn medications(asked: &MedicationCheckRequest) -> MedicationCheck {
    let names: Vec<&str> = asked.medications.iter().map(|medication| medication.name.as_str()).collect();
    let pairs =
        names.iter().enumerate().flat_map(|(i, one)| names[i + 1..].iter().map(move |two| (one, two)));
    let interactions: Vec<Interaction> = pairs
        .map(|(one, two)| Interaction {
            severity: Some("sample".to_owned()),
            drugs: Some(vec![(*one).to_owned(), (*two).to_owned()]),
            interaction: Some(format!("Sample interaction of {one} and {two}")),
            recommendation: Some("Sample recommendation".to_owned()),
            extra: Extra::new(),
        })
        .collect();
    let conditions = asked.patient_conditions.iter().flatten();
    let against = conditions.flat_map(|condition| {
        names.iter().map(move |name| json!(format!("Sample contraindication of {name} with {condition}")))
    });
    MedicationCheck {
        contraindications: Some(against.collect()),
        safety_score: Some(interactions.iter().fold(100.0, |score: f64, _| (score - 10.0).max(0.0))),
        interactions: Some(interactions),
        cost: None,
        extra: Extra::new(),
    }
}

/// Points up to 10: 1 for a mild symptom, 3 for a moderate one, 5 for a severe one, a number as it is, 2 for anything
/// else.
pub fn symptoms(asked: &SymptomAssessmentRequest) -> SymptomAssessment {
    let severity = asked.symptoms.iter().map(|symptom| match &symptom.severity {
        Some(Either::This(word)) if word == "mild" => 1.0,
        Some(Either::This(word)) if word == "moderate" => 3.0,
        Some(Either::This(word)) if word == "severe" => 5.0,
        Some(given @ Either::That(_)) => points(given),
        _ => 2.0,
    });
    let score = severity.sum::<f64>().min(10.0);
    let conditions = asked.symptoms.iter().map(|symptom| PossibleCondition {
        condition: Some(format!("Sample condition for {}", symptom.description)),
        probability: Some("sample".into()),
        reasoning: Some("Sample reasoning".to_owned()),
        extra: Extra::new(),
    });
    SymptomAssessment {
        urgency: Some(level(score, 10.0).to_owned()),
        urgency_score: Some(score),
        possible_conditions: Some(conditions.collect()),
        recommended_actions: Some(vec!["Sample action".into()]),
        triage_level: Some("sample".into()),
        cost: None,
        extra: Extra::new(),
    }
}

/// The answer repeats the diagnosis and the names of the lab results.
pub fn treatment(asked: &TreatmentRequest) -> TreatmentRecommendations {
    let diagnosis = &asked.diagnosis;
    let results: Vec<&String> = asked.lab_results.iter().flat_map(Map::keys).collect();
    TreatmentRecommendations {
        treatment_plan: Some(TreatmentPlan {
            pharmacological: Some(vec![json!(format!("Sample medication for {diagnosis}"))]),
            non_pharmacological: Some(vec![json!(format!("Sample measure for {diagnosis}"))]),
            monitoring: Some(
                results.iter().map(|name| json!(format!("Sample monitoring of {name}"))).collect(),
            ),
            extra: Extra::new(),
        }),
        goals: Some(
            results.iter().map(|name| ((*name).clone(), json!(format!("Sample goal for {name}")))).collect(),
        ),
        cost: None,
        extra: Extra::new(),
    }
}

/// Extracts for each field the word that follows its name in the text; without fields every number.
pub fn extraction(asked: &ExtractionRequest) -> Extraction {
    let text = &asked.clinical_text;
    let Some(fields) = &asked.extract_fields else {
        let numbers = captures(r"([0-9]+(?:[./][0-9]+)*)", text);
        return extracted(Map::from_iter([("numbers".to_owned(), json!(numbers))]), 1, 1);
    };
    let found: Map<String, Value> = fields
        .iter()
        .filter_map(|field| {
            let name = regex_lite::escape(&field.replace('_', " "));
            let word = captures(&format!(r"(?i){name}[\s:=]+([\w./%-]*\w)"), text).into_iter().next()?;
            Some((field.clone(), word.into()))
        })
        .collect();
    let count = found.len();
    extracted(found, count, fields.len())
}

fn extracted(found: Map<String, Value>, count: usize, of: usize) -> Extraction {
    let share = |n: usize| u32::try_from(n).map_or(0.0, f64::from);
    Extraction {
        extracted_data: Some(found),
        confidence_score: Some(share(count) / share(of.max(1))),
        cost: None,
        extra: Extra::new(),
    }
}

/// The answer states the number of words.
pub fn analysis(asked: &AnalysisRequest) -> Analysis {
    let words = asked.prompt.split_whitespace().count();
    let text = format!("Sample analysis of kind {} of a prompt of {words} words", asked.analysis_type);
    Analysis {
        analysis: Some(text.into()),
        confidence_score: Some(0.5),
        recommendations: Some(vec!["Sample recommendation".into()]),
        cost: None,
        extra: Extra::new(),
    }
}

fn words(given: &TextOrNumber) -> String {
    match given {
        Either::This(text) => text.clone(),
        Either::That(number) => number.to_string(),
    }
}

/// Reads a number, or the one at the start of a text: of a blood pressure the systolic one.
fn points(given: &TextOrNumber) -> f64 {
    let text = words(given);
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    text[..end].parse().unwrap_or_default()
}

fn list(given: Option<&TextOrList>) -> Vec<&str> {
    match given {
        Some(Either::This(text)) => vec![text],
        Some(Either::That(entries)) => entries.iter().map(String::as_str).collect(),
        None => vec![],
    }
}

fn level(score: f64, most: f64) -> &'static str {
    match score / most {
        share if share < 0.33 => "low",
        share if share < 0.66 => "moderate",
        _ => "high",
    }
}

/// Returns the first group of every match.
fn captures(pattern: &str, text: &str) -> Vec<String> {
    let Ok(pattern) = Regex::new(pattern) else { return vec![] };
    pattern.captures_iter(text).map(|found| found[1].to_owned()).collect()
}
