//! What the sandbox answers to health questions: samples. They depend on the input, so that one sees that it has
//! arrived, by arithmetic that means nothing; every text says that it is a sample.

use regex_lite::Regex;
use serde_json::{Map, Value, json};

use crate::bondmcp::wire::{
    Extra,
    health::{
        Analysis, AnalysisRequest, Extraction, ExtractionRequest, Interaction, MedicationCheck,
        MedicationCheckRequest, PossibleCondition, RiskAnalysis, RiskAnalysisRequest, RiskFactor, Severity,
        SymptomAssessment, SymptomAssessmentRequest, TreatmentPlan, TreatmentRecommendations,
        TreatmentRequest,
    },
};

/// Points up to 100: half the age, 2 for each kg/m² above 25, half of each mmHg above 120, a tenth of each mg/dL above
/// 200, 20 for smoking, 5 for each relative.
pub fn risk(asked: &RiskAnalysisRequest) -> RiskAnalysis {
    let patient = &asked.patient_data;
    let mut factors = vec![(format!("age {}", patient.age), f64::from(patient.age) / 2.0)];
    factors.extend(patient.bmi.map(|bmi| (format!("bmi {bmi}"), (bmi - 25.0).max(0.0) * 2.0)));
    factors.extend(patient.blood_pressure.as_ref().map(|given| {
        let systolic = systolic(given).unwrap_or_default();
        (format!("blood pressure {given}"), (f64::from(systolic) - 120.0).max(0.0) / 2.0)
    }));
    factors.extend(
        patient.cholesterol.map(|total| (format!("cholesterol {total}"), (total - 200.0).max(0.0) / 10.0)),
    );
    factors.extend((patient.smoking == Some(true)).then(|| ("smoking".to_owned(), 20.0)));
    for relative in patient.family_history.iter().flatten() {
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

/// Every pair interacts, every medication goes ill with every condition, and each pair takes 10 from 100.
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

/// Points up to 10: 1 for a mild symptom, 3 for a moderate one, 5 for a severe one, 2 where nothing is said.
pub fn symptoms(asked: &SymptomAssessmentRequest) -> SymptomAssessment {
    let points = asked.symptoms.iter().map(|symptom| match symptom.severity {
        Some(Severity::Mild) => 1.0,
        None => 2.0,
        Some(Severity::Moderate) => 3.0,
        Some(Severity::Severe) => 5.0,
    });
    let score = points.sum::<f64>().min(10.0);
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

/// The diagnosis and the names of the lab results come back.
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

/// For each field the word that follows its name in the text; without fields every number in it.
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

/// The number of words comes back.
pub fn analysis(asked: &AnalysisRequest) -> Analysis {
    let words = asked.prompt.split_whitespace().count();
    let told = format!("Sample analysis of kind {} of a prompt of {words} words", asked.analysis_type);
    Analysis {
        analysis: Some(told.into()),
        confidence_score: Some(0.5),
        recommendations: Some(vec!["Sample recommendation".into()]),
        cost: None,
        extra: Extra::new(),
    }
}

/// The first of two numbers with a slash between.
pub fn systolic(blood_pressure: &str) -> Option<u16> {
    let (systolic, diastolic) = blood_pressure.split_once('/')?;
    diastolic.parse::<u16>().ok()?;
    systolic.parse().ok()
}

fn level(score: f64, most: f64) -> &'static str {
    match score / most {
        share if share < 0.33 => "low",
        share if share < 0.66 => "moderate",
        _ => "high",
    }
}

/// The first group of every match.
fn captures(pattern: &str, text: &str) -> Vec<String> {
    let Ok(pattern) = Regex::new(pattern) else { return vec![] };
    pattern.captures_iter(text).map(|found| found[1].to_owned()).collect()
}
