//! End-to-end tests of the billed health services: every tool, requests that must not be sent or repeated, and calls
//! that fail, are cancelled or are slow.

use crate::common::{
    EMAIL, Place, Server, like_the_seed,
    raw::{Raw, call},
    sandbox,
    services::{ANALYZE, SERVICES},
    signed_in, within,
};
use bondmcp_server::sandbox::{Fault, RunningSandbox};
use rmcp::{
    model::{CallToolRequest, ClientRequest},
    service::PeerRequestOptions,
};
use serde_json::{Value, json};

fn question() -> Value {
    (SERVICES[5].2)()
}

/// A signed-in place and its server.
async fn started() -> (RunningSandbox, Place, Server) {
    let (sandbox, place) = signed_in().await;
    let server = Server::start(&place).await;
    (sandbox, place, server)
}

fn of(answer: &Value, pointer: &str) -> Value {
    answer.pointer(pointer).cloned().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_service_answers_with_a_marked_sample_and_what_it_cost() {
    let (sandbox, _place, server) = started().await;
    let expected: [&[(&str, Value)]; 6] = [
        &[
            // 25 for the age, 12 for the bmi, 10 for the pressure, 4 for the cholesterol, 20 and 5.
            ("/risk_score", json!(76)),
            ("/risk_level", json!("high")),
            ("/factors/1/factor", json!("Sample factor for bmi 31")),
        ],
        &[
            ("/interactions/0/drugs", json!(["warfarin", "aspirin"])),
            ("/contraindications/1", json!("Sample contraindication of aspirin with ulcer")),
            ("/safety_score", json!(90)),
        ],
        &[
            ("/urgency", json!("low")),
            ("/possible_conditions/0/condition", json!("Sample condition for cough")),
        ],
        &[("/goals/hba1c_percent", json!("Sample goal for hba1c_percent"))],
        &[
            ("/extracted_data", json!({"bp": "140/90", "heart_rate": "88"})),
            ("/confidence_score", json!(2.0 / 3.0)),
        ],
        &[("/analysis", json!("Sample analysis of kind general of a prompt of 6 words"))],
    ];
    for ((tool, endpoint, arguments, cents), expected) in SERVICES.into_iter().zip(expected) {
        sandbox.set_credits(EMAIL, cents + 1);
        let answer = server.ok(tool, arguments()).await;
        for (pointer, value) in expected {
            assert_eq!(of(&answer, pointer), *value, "{tool} {pointer}: {answer}");
        }
        let price = f64::from(u32::try_from(cents).unwrap()) / 100.0;
        assert_eq!((&answer["cost"], &answer["sample"]), (&json!(price), &json!(true)), "{tool}");
        assert!(answer["notice"].as_str().unwrap().contains("not medical advice"), "{tool}");
        assert_eq!((sandbox.count(endpoint), sandbox.credits(EMAIL)), (1, Some(1)), "{tool}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_fit_is_neither_sent_nor_asks_anybody_to_sign_in() {
    let sandbox = sandbox(like_the_seed()).await;
    let server = Server::start(&Place::new(&sandbox)).await;
    let patient = |field: &str, value: Value| {
        let mut arguments = (SERVICES[0].2)();
        arguments["patient_data"][field] = value;
        arguments
    };
    for (tool, arguments, message) in [
        (
            "health_risk_analysis",
            patient("age", json!([54])),
            "Invalid argument `patient_data.age`: expected a string or a number.",
        ),
        (
            "health_risk_analysis",
            patient("smoking", json!(7)),
            "Invalid argument `patient_data.smoking`: expected a boolean or a string.",
        ),
        (
            "health_risk_analysis",
            patient("family_history", json!({})),
            "Invalid argument `patient_data.family_history`: expected a string or an array, each item a string.",
        ),
        (
            "health_risk_analysis",
            json!({"analysis_type": "general", "patient_data": {"age": 7}}),
            "Missing argument `patient_data.gender`: expected a string.",
        ),
        (
            "medication_check",
            json!({ "medications": [] }),
            "Invalid argument `medications`: expected an array of at least 1 item, each item an object.",
        ),
        (
            "symptom_assessment",
            json!({"symptoms": [{"description": "cough"}, {"description": "fever", "severity": true}]}),
            "Invalid argument `symptoms[1].severity`: expected a string or a number.",
        ),
        (
            "health_analyze",
            json!({"prompt": "", "analysis_type": "general"}),
            "Invalid argument `prompt`: expected a string of at least 1 character.",
        ),
    ] {
        let error = server.error(tool, arguments).await;
        assert_eq!((&error["kind"], &error["message"]), (&json!("invalid_input"), &json!(message)));
    }
    let error = server.error("medication_check", json!({"medications": [{"name": "x", "route": "y"}]})).await;
    assert_eq!(error["message"], "An unknown argument was given in `medications[0]`.");
    assert_eq!(sandbox.counts().len(), 0);
    assert_eq!(server.error("health_analyze", question()).await["kind"], "sign_in_required");
}

#[tokio::test(flavor = "multi_thread")]
async fn where_the_api_names_no_values_and_no_types_none_are_refused() {
    let (sandbox, _place, server) = started().await;
    for patient in [
        json!({"age": "6 months", "gender": "intersex", "bmi": "27,5", "blood_pressure": "high",
            "smoking": "former", "family_history": "father: stroke at 60"}),
        json!({"age": 131, "gender": "F", "bmi": 4.9, "blood_pressure": 140, "smoking": false}),
    ] {
        server.ok("health_risk_analysis", json!({"analysis_type": "general", "patient_data": patient})).await;
    }
    let symptoms = json!([{"description": "fever", "severity": 7, "duration": 2}, {"description": "cough", "severity": "awful"}]);
    let arguments = json!({"symptoms": symptoms, "patient_age": "7", "patient_gender": "x"});
    server.ok("symptom_assessment", arguments).await;
    let profile = json!({"age": 60.5, "allergies": "none known"});
    let arguments = json!({"diagnosis": "E11.9", "patient_profile": profile});
    server.ok("treatment_recommendations", arguments).await;
    assert_eq!(sandbox.credits(EMAIL), Some(500 - 2 * 5 - 4 - 6));
    // The three kinds of risk are documented.
    let arguments = json!({"analysis_type": "renal", "patient_data": {"age": 1, "gender": "f"}});
    assert_eq!(server.error("health_risk_analysis", arguments).await["kind"], "invalid_input");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_upstream_refuses_costs_nothing_and_says_why() {
    let (sandbox, _place, server) = started().await;
    sandbox.set_credits(EMAIL, 4);
    let error = server.error("health_analyze", question()).await;
    assert_eq!((&error["kind"], &error["status"]), (&json!("insufficient_credits"), &json!(402)));
    // A blank has a length, so the upstream refuses it.
    let error = server.error("health_analyze", json!({"prompt": " ", "analysis_type": "general"})).await;
    assert_eq!((&error["kind"], &error["status"]), (&json!("invalid_input"), &json!(422)));
    assert!(error["message"].as_str().unwrap().contains("body.prompt"), "{error}");
    assert_eq!((sandbox.credits(EMAIL), sandbox.count(ANALYZE)), (Some(4), 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_field_is_kept_without_the_secret_in_it() {
    let (sandbox, _place, server) = started().await;
    for (tool, endpoint, arguments, _) in SERVICES {
        sandbox.faults().next(endpoint, Fault::EchoAsAnswer);
        let answer = server.ok(tool, arguments()).await;
        assert!(answer["debug"].to_string().contains("[redacted]"), "{tool}: {answer}");
        assert!(answer.get("cost").is_none(), "{tool}: {answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_billed_request_is_sent_once_and_a_lost_answer_may_have_been_billed() {
    let (sandbox, _place, server) = started().await;
    for (fault, kind) in [
        (Fault::Drop, "upstream_unavailable"),
        (Fault::DropMidBody, "upstream_unavailable"),
        (Fault::ProcessThenDrop, "upstream_unavailable"),
        (Fault::Status(101), "upstream_unavailable"),
        (Fault::Status(500), "upstream_unavailable"),
        (Fault::Html(502), "upstream_unavailable"),
        (Fault::NotJson, "upstream_unavailable"),
        (Fault::OtherShape, "upstream_unavailable"),
    ] {
        let before = sandbox.count(ANALYZE);
        sandbox.faults().next(ANALYZE, fault.clone());
        let error = server.error("health_analyze", question()).await;
        assert_eq!(error["kind"], kind, "{fault:?}: {error}");
        assert!(error["solution"].as_str().unwrap().contains("processed and billed"), "{fault:?}: {error}");
        assert_eq!(sandbox.count(ANALYZE) - before, 1, "{fault:?}");
        // A successful call, so that the circuit does not open.
        server.ok("list_models", json!({ "refresh": true })).await;
    }
    // If it was certainly not processed, the error does not say that it may have been.
    for fault in [Fault::Status(402), Fault::Status(422), Fault::TooMany(Some("3600".to_owned()))] {
        sandbox.faults().next(ANALYZE, fault.clone());
        let error = server.error("health_analyze", question()).await;
        assert!(!error["solution"].as_str().unwrap().contains("billed"), "{fault:?}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_was_refused_is_renewed_and_the_call_is_paid_for_once() {
    let (sandbox, _place, server) = started().await;
    sandbox.expire_tokens();
    assert_eq!(server.ok("health_analyze", question()).await["cost"], 0.05);
    assert_eq!((sandbox.count(ANALYZE), sandbox.credits(EMAIL)), (2, Some(495)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_call_is_cancelled_upstream_and_logged_as_such() {
    let (sandbox, _place, server) = started().await;
    sandbox.faults().next(ANALYZE, Fault::Hang);
    let request = ClientRequest::CallToolRequest(CallToolRequest::new(crate::common::request(
        "health_analyze",
        question(),
    )));
    let call = server.client.send_cancellable_request(request, PeerRequestOptions::no_options());
    let call = within(call).await.unwrap();
    within(sandbox.faults().arrived(ANALYZE, 1)).await;
    call.cancel(None).await.unwrap();
    within(sandbox.faults().abandoned(ANALYZE, 1)).await;
    assert_eq!(sandbox.credits(EMAIL), Some(500));
    let (_, log) = server.end_apart().await;
    let log = String::from_utf8(log).unwrap();
    let line = log.lines().find(|line| line.contains("cancelled") && line.contains("tool call")).unwrap();
    assert!(line.contains("INFO") && line.contains("health_analyze"), "{line}");
    assert!(line.contains("possibly_billed=true"), "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_takes_its_time_tells_of_its_progress() {
    let (sandbox, place) = signed_in().await;
    let mut host = Raw::start(&place);
    host.initialize("2025-11-25").await;
    sandbox.faults().next(ANALYZE, Fault::Hold);
    let mut message = call(2, "health_analyze", question());
    message["params"]["_meta"] = json!({ "progressToken": "p-1" });
    let told = host.ask(message).await;
    assert_eq!(
        told,
        json!({"jsonrpc": "2.0", "method": "notifications/progress",
            "params": {"progressToken": "p-1", "progress": 1.0, "message": "waiting for BondMCP"}})
    );
    sandbox.faults().release();
    let answer = loop {
        let next = host.next().await;
        if next["id"] == 2 {
            break next;
        }
    };
    assert_eq!(of(&answer, "/result/structuredContent/cost"), json!(0.05));
    assert_eq!(host.end().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn spending_is_reported_by_tool_and_the_limit_holds() {
    let (sandbox, place) = signed_in().await;
    let mut command = place.command(&["stdio", "--max-spend", "0.20"]);
    let server = Server::spawn(&mut command).await;
    let spent = async || server.ok("auth_status", json!({})).await["spent"].clone();
    assert_eq!(spent().await, json!({"total_usd": 0, "limit_usd": 0.2, "by_tool": {}}));
    let (check, _, medications, _) = SERVICES[1];
    server.ok(check, medications()).await;
    server.ok("health_analyze", question()).await;
    sandbox.faults().next(ANALYZE, Fault::Drop);
    server.error("health_analyze", question()).await;
    // Refused by BondMCP, so not spent.
    sandbox.faults().next("POST /health-ai/symptom-assessment", Fault::Status(402));
    assert_eq!(server.error(SERVICES[2].0, (SERVICES[2].2)()).await["kind"], "insufficient_credits");
    let told = spent().await;
    assert_eq!(
        told["by_tool"][check],
        json!({"calls": 1, "usd": 0.03, "possibly_billed_calls": 0, "possibly_usd": 0})
    );
    assert_eq!(
        told["by_tool"]["health_analyze"],
        json!({"calls": 1, "usd": 0.05, "possibly_billed_calls": 1, "possibly_usd": 0.08})
    );
    // 0.16 of 0.20 are spent: a call for 0.04 is allowed and one for 0.05 is not.
    let (risk, endpoint, arguments, _) = SERVICES[0];
    let refused = server.error(risk, arguments()).await;
    assert_eq!(refused["kind"], "spend_limit");
    assert!(
        refused["message"].as_str().unwrap().contains("your calls took $0.16 of its limit of $0.20"),
        "{refused}"
    );
    assert_eq!(sandbox.count(endpoint), 0);
    server.ok(SERVICES[2].0, (SERVICES[2].2)()).await;
    assert_eq!(server.error(check, medications()).await["kind"], "spend_limit");
    // Free calls still work.
    server.ok("list_models", json!({})).await;
}
