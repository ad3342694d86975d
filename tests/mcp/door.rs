//! Every message to the host is redacted in one place: results, failures and questions to the person, in both
//! revisions. And nothing that a caller wrote is echoed, so that secrets cannot be guessed.

use crate::common::{
    EMAIL, Place, Server,
    browser::{Browser, link},
    hostile::Hostile,
    like_the_seed,
    raw::{Raw, call, modern_as},
    request, run, sandbox, secrets,
};
use bondmcp_server::{
    sandbox::{Fault, Plan, RunningSandbox},
    secret::SecretString,
};
use serde_json::{Value, json};

const FORMS: fn() -> Value = || json!({"elicitation": {"form": {}, "url": {}}});

/// A place that is signed in to an upstream that writes `template` wherever it can, and the secrets involved.
async fn signed_in_at(template: &str) -> (Hostile, Place, Vec<SecretString>) {
    let hostile = Hostile::start(template).await;
    let sandbox = sandbox(like_the_seed()).await;
    let mut place = Place::new(&sandbox);
    place.base_url.clone_from(&hostile.base_url);
    place.sign_in().await;
    let mut planted = hostile.issued();
    planted.push(place.password.clone());
    (hostile, place, planted)
}

/// A call with a guess.
type Probe = fn(&str) -> (&'static str, Value);

fn revoke() -> Value {
    json!({"action": "revoke", "key_id": "key_1"})
}

/// Returns the question to a host with forms, in both revisions.
async fn questions(place: &Place) -> [Value; 2] {
    let mut raw = Raw::start(place);
    let params = json!({"name": "manage_api_keys", "arguments": revoke()});
    let modern = raw.ask(modern_as(1, "tools/call", params, FORMS())).await;
    let mut raw = Raw::start(place);
    raw.initialize_as("2025-11-25", FORMS()).await;
    let legacy = raw.ask(call(2, "manage_api_keys", revoke())).await;
    assert_eq!(legacy["method"], "elicitation/create", "{legacy}");
    [modern["result"]["inputRequests"]["person"]["params"].clone(), legacy["params"].clone()]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_to_the_person_holds_no_secret_in_either_revision() {
    let (_hostile, place, planted) = signed_in_at("ci {token} {password}").await;
    for question in questions(&place).await {
        let message = question["message"].as_str().unwrap();
        assert!(message.contains("revoke the BondMCP API key “ci [redacted]"), "{message}");
        secrets::assert_absent(&planted, question.to_string().as_bytes(), "the question");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_in_a_question_is_cut_to_64_printable_characters() {
    let template = format!("\u{202e}ci\n\u{1b}[2J{}", "x".repeat(200_000));
    let (_hostile, place, _) = signed_in_at(&template).await;
    for question in questions(&place).await {
        let message = question["message"].as_str().unwrap();
        let name = message.split(['“', '”']).nth(1).unwrap();
        assert!(name.starts_with("ci[2Jxxx"), "{name}");
        assert_eq!(name.chars().count(), 64);
        assert!(
            message.chars().count() < 400 && !message.contains(['\n', '\u{1b}', '\u{202e}']),
            "{message}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_names_of_keys_are_cut_to_64_printable_characters() {
    let template = format!("\u{202e}ci\n\u{1b}[2J{}", "x".repeat(20_000));
    let (_hostile, place, _) = signed_in_at(&template).await;
    let server = Server::start(&place).await;
    let list = server.ok("manage_api_keys", json!({ "action": "list" })).await;
    let asked = rmcp::model::ReadResourceRequestParams::new("bondmcp://keys/key_1");
    let read = server.client.read_resource(asked).await.unwrap();
    let rmcp::model::ResourceContents::TextResourceContents { text, .. } = &read.contents[0] else {
        panic!("{read:?}")
    };
    let read: Value = serde_json::from_str(text).unwrap();
    for key in [&list["keys"][0], &read] {
        let name = key["name"].as_str().unwrap();
        assert!(name.starts_with("ci[2Jxxx") && name.chars().count() == 64, "{name}");
        let all = key.to_string();
        assert!(all.len() < 2000 && !all.contains('\u{202e}') && !all.contains("\\u001b"), "{all}");
    }
    // It revokes no key, so this rotation cannot be finished.
    let rotate = json!({"action": "rotate", "key_id": "key_1", "confirm": list["keys"][0]["name"]});
    server.error("manage_api_keys", rotate).await;
    let status = server.ok("auth_status", json!({})).await;
    assert_eq!(status["unfinished"][0]["name"], list["keys"][0]["name"], "{status}");
}

/// The start of a secret is not recognised.
#[tokio::test(flavor = "multi_thread")]
async fn a_secret_is_redacted_before_a_text_is_cut() {
    let template = format!("{}{{password}}", "x".repeat(40));
    let (_hostile, place, _) = signed_in_at(&template).await;
    let server = Server::start(&place).await;
    let list = server.ok("manage_api_keys", json!({ "action": "list" })).await;
    let start: String = secrets::text(&place.password).chars().take(8).collect();
    let told = list.to_string();
    assert!(told.contains("x[redacted]") && !told.contains(&start) && !told.contains("Pw1"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_answer_holds_what_the_upstream_quotes() {
    let template = r#"{"echo": "{password}", "n": ["{token}"]} %7Btoken%7D {token}"#;
    let (hostile, place, mut planted) = signed_in_at(template).await;
    let server = Server::start(&place).await;
    for (tool, arguments) in [
        ("auth_status", json!({})),
        ("list_models", json!({ "refresh": true })),
        ("manage_api_keys", json!({ "action": "list" })),
        ("manage_api_keys", revoke()),
        ("health_analyze", json!({"prompt": "why", "analysis_type": "general"})),
    ] {
        let told = server.call(tool, arguments).await.unwrap();
        assert!(serde_json::to_string(&told).unwrap().contains("[redacted]"), "{tool}: {told:?}");
    }
    for uri in ["bondmcp://models", "bondmcp://account", "bondmcp://keys/key_1"] {
        let asked = rmcp::model::ReadResourceRequestParams::new(uri);
        let told = server.client.read_resource(asked).await.unwrap();
        assert!(serde_json::to_string(&told).unwrap().contains("[redacted]"), "{uri}: {told:?}");
    }
    planted.extend(hostile.issued());
    secrets::assert_absent(&planted, &server.end().await, "what the host saw");
}

/// Known, and stated in SECURITY.md.
#[tokio::test(flavor = "multi_thread")]
async fn a_password_that_is_not_stored_is_found_where_it_was_typed_alone() {
    let hostile = Hostile::start("it is {password}").await;
    let mut place = Place::new(&sandbox(like_the_seed()).await);
    place.base_url.clone_from(&hostile.base_url);
    let login = ["login", "--email", EMAIL, "--password-stdin", "--no-remember"];
    let password = secrets::text(&place.password);
    let (code, shown, told) = run(&mut place.command(&login), password).await;
    assert_eq!(code, Some(0), "{told}");
    secrets::assert_absent(std::slice::from_ref(&place.password), (shown + &told).as_bytes(), "the terminal");
    let server = Server::start(&place).await;
    let list = server.ok("manage_api_keys", json!({ "action": "list" })).await;
    assert_eq!(list["keys"][0]["name"], format!("it is {password}"));
}

/// The first one is right.
const GUESSES: [&str; 2] = ["canary_password1", "canary_password2"];

/// A server that is signed in with a password that is also valid as the name of an argument, an action, an id and the like.
async fn with_guessable_password() -> (RunningSandbox, Place, Server) {
    let sandbox = sandbox(like_the_seed()).await;
    let mut place = Place::new(&sandbox);
    place.password = GUESSES[0].into();
    let other = "ada.lovelace@canary.example";
    sandbox.add_account(other, &place.password, Plan::Unlimited, true);
    let mut command = place.command(&["stdio"]);
    command.env("BONDMCP_EMAIL", other).env("BONDMCP_PASSWORD", secrets::text(&place.password));
    let server = Server::spawn(&mut command).await;
    server.ok("list_models", json!({})).await;
    (sandbox, place, server)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_is_the_same_whether_a_guess_is_right_or_wrong() {
    let (_sandbox, _place, server) = with_guessable_password().await;
    let probes: [Probe; 9] = [
        |guess| ("login", json!({ guess: 1 })),
        |guess| ("login", json!({ "email": guess })),
        |guess| ("manage_api_keys", json!({ "action": guess })),
        |guess| ("manage_api_keys", json!({"action": "usage", "key_id": guess})),
        |guess| ("manage_api_keys", json!({"action": "use", "key_id": guess})),
        |guess| ("manage_api_keys", json!({"action": "rotate", "key_id": guess, "confirm": guess})),
        |guess| ("manage_api_keys", json!({"action": "revoke", "key_id": guess, "confirm": guess})),
        |guess| ("manage_api_keys", json!({"action": "list", "name": guess})),
        |guess| ("medication_check", json!({"medications": [{"name": "x", guess: "y"}]})),
    ];
    for probe in probes {
        let mut told = Vec::new();
        for guess in GUESSES {
            let (tool, arguments) = probe(guess);
            let result = server.call(tool, arguments).await.unwrap();
            assert_eq!(result.is_error, Some(true), "{guess}: {result:?}");
            told.push(serde_json::to_string(&result).unwrap());
        }
        assert_eq!(told[0], told[1]);
        assert!(!told[0].contains("canary") && !told[0].contains("redacted"), "{}", told[0]);
    }
    for guess in GUESSES {
        let error =
            server.client.call_tool(rmcp::model::CallToolRequestParams::new(guess)).await.unwrap_err();
        assert!(!error.to_string().contains("canary") && !error.to_string().contains("redacted"), "{error}");
    }
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_upstream_quotes_in_an_error_does_not_tell_whether_a_guess_is_right() {
    let (sandbox, _place, server) = with_guessable_password().await;
    let probes: [(&str, Probe); 2] = [
        ("POST /health-ai/analyze", |guess| {
            ("health_analyze", json!({"prompt": guess, "analysis_type": "general"}))
        }),
        ("POST /health-ai/medication-check", |guess| {
            ("medication_check", json!({"medications": [{"name": "x"}], "patient_conditions": [guess]}))
        }),
    ];
    for (endpoint, probe) in probes {
        let mut told = Vec::new();
        for guess in GUESSES {
            let (tool, arguments) = probe(guess);
            sandbox.faults().next(endpoint, Fault::Echo);
            let result = server.call(tool, arguments).await.unwrap();
            assert_eq!(result.is_error, Some(true), "{guess}: {result:?}");
            told.push(serde_json::to_string(&result).unwrap());
        }
        assert_eq!(told[0], told[1]);
        assert_eq!(sandbox.count(endpoint), 2);
    }
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_sign_in_the_next_answer_names_the_account() {
    let sandbox = sandbox(like_the_seed()).await;
    let place = Place::new(&sandbox);
    let server = Server::start(&place).await;
    let error = server.error("list_models", json!({})).await;
    Browser::open(&link(&error)).await.sign_in(&place.password).await;
    let next = server.call("list_models", json!({})).await.unwrap();
    assert_eq!(next.structured_content.as_ref().unwrap()["signed_in_as"], EMAIL);
    assert!(next.content[0].as_text().unwrap().text.contains(EMAIL));
    assert!(server.ok("list_models", json!({})).await.get("signed_in_as").is_none());

    // Another account signs in at the terminal.
    let other = "eve@example.com";
    sandbox.add_account(other, &place.password, Plan::Unlimited, true);
    let mut command = place.command(&["login", "--email", other, "--password-stdin"]);
    let (code, _, told) = crate::common::run(&mut command, secrets::text(&place.password)).await;
    assert_eq!(code, Some(0), "{told}");
    let asked = rmcp::model::ReadResourceRequestParams::new("bondmcp://models");
    let read = server.client.read_resource(asked).await.unwrap();
    assert!(serde_json::to_string(&read).unwrap().contains(other), "{read:?}");
    assert_eq!(server.ok("auth_status", json!({})).await["signed_in_as"], other);
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_account_is_named_in_a_failure_too() {
    let sandbox = sandbox(like_the_seed()).await;
    let place = Place::new(&sandbox);
    place.sign_in().await;
    let server = Server::start(&place).await;
    let arguments = json!({"action": "usage", "key_id": "key_none"});
    let failed = server.client.call_tool(request("manage_api_keys", arguments)).await.unwrap();
    let text = crate::common::json_of(&failed.content[0].as_text().unwrap().text);
    assert_eq!((&text["signed_in_as"], failed.is_error), (&json!(EMAIL), Some(true)));
    server.end().await;
}
