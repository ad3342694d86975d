//! The billed health services with valid arguments.

use serde_json::{Value, json};

pub const ANALYZE: &str = "POST /health-ai/analyze";

/// Tool, endpoint, valid arguments, price in cents.
pub type Service = (&'static str, &'static str, fn() -> Value, u64);

pub const SERVICES: [Service; 6] = [
    (
        "health_risk_analysis",
        "POST /health-ai/risk-analysis",
        || {
            json!({"analysis_type": "cardiovascular", "patient_data": {
                "age": 50, "gender": "female", "bmi": 31, "blood_pressure": "140/90", "cholesterol": 240,
                "smoking": true, "family_history": ["stroke"], "resting_heart_rate": 70}})
        },
        5,
    ),
    (
        "medication_check",
        "POST /health-ai/medication-check",
        || {
            json!({"medications": [{"name": "warfarin", "dosage": "5 mg"}, {"name": "aspirin"}],
                "patient_conditions": ["ulcer"]})
        },
        3,
    ),
    (
        "symptom_assessment",
        "POST /health-ai/symptom-assessment",
        || {
            json!({"symptoms": [{"description": "cough", "severity": "mild", "duration": "2 days"}],
                "patient_age": 7, "patient_gender": "male"})
        },
        4,
    ),
    (
        "treatment_recommendations",
        "POST /health-ai/treatment-recommendations",
        || {
            json!({"diagnosis": "type 2 diabetes", "patient_profile": {"age": 60, "weight_kg": 90},
                "lab_results": {"hba1c_percent": 8.1}})
        },
        6,
    ),
    (
        "clinical_data_extraction",
        "POST /health-ai/data-extraction",
        || json!({"clinical_text": "BP 140/90, heart rate: 88", "extract_fields": ["bp", "heart_rate", "weight"]}),
        8,
    ),
    (
        "health_analyze",
        ANALYZE,
        || json!({"prompt": "What explains a ferritin of 8?", "analysis_type": "general"}),
        5,
    ),
];
