//! The sandbox behaves like BondMCP's documented API.

use crate::common::{EMAIL, sandbox, within};
use bondmcp_server::{
    clock::{Clock, Timestamp},
    sandbox::{Plan, RunningSandbox, Sandbox, SandboxConfig, SandboxError},
};
use chrono::TimeDelta;
use reqwest::Method;
use serde_json::{Value, json};

const PASSWORD: &str = "correct-horse-1";

/// Status and body of a request; with the headers as text where they matter.
async fn ask(
    sandbox: &RunningSandbox,
    method: Method,
    path: &str,
    bearer: &str,
    body: Value,
) -> (u16, Value) {
    let url = format!("{}{path}", sandbox.base_url());
    let mut request = reqwest::Client::new().request(method, url);
    if !bearer.is_empty() {
        request = request.bearer_auth(bearer);
    }
    if !body.is_null() {
        request = request.header("content-type", "application/json").body(body.to_string());
    }
    let response = within(request.send()).await.unwrap();
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let mut body: Value = serde_json::from_str(&response.text().await.unwrap()).unwrap();
    for name in ["x-ratelimit-limit", "x-ratelimit-remaining", "retry-after"] {
        if let (Some(value), Some(body)) = (headers.get(name), body.as_object_mut()) {
            body.insert(name.to_owned(), value.to_str().unwrap().into());
        }
    }
    (status, body)
}

async fn post(sandbox: &RunningSandbox, path: &str, bearer: &str, body: Value) -> (u16, Value) {
    ask(sandbox, Method::POST, path, bearer, body).await
}

async fn get(sandbox: &RunningSandbox, path: &str, bearer: &str) -> (u16, Value) {
    ask(sandbox, Method::GET, path, bearer, Value::Null).await
}

fn credentials() -> Value {
    json!({"email": EMAIL, "password": PASSWORD})
}

async fn with_account(config: SandboxConfig, plan: Plan) -> (RunningSandbox, Value) {
    let sandbox = sandbox(config).await;
    sandbox.add_account(EMAIL, &PASSWORD.into(), plan, true);
    let (status, session) = post(&sandbox, "/auth/login", "", credentials()).await;
    assert_eq!(status, 200);
    (sandbox, session)
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap()
}

#[tokio::test]
async fn the_seeds_journey_works() {
    let sandbox = sandbox(SandboxConfig::default()).await;
    let (status, registered) = post(&sandbox, "/auth/register", "", credentials()).await;
    assert_eq!((status, text(&registered, "email")), (201, EMAIL));
    assert!(text(&registered, "user_id").starts_with("usr_"));
    assert_eq!(post(&sandbox, "/auth/login", "", credentials()).await.0, 403);
    let link = sandbox.verification_link(EMAIL).unwrap();
    assert_eq!(get(&sandbox, link.strip_prefix("/mcp").unwrap(), "").await.0, 200);
    let (status, session) = post(&sandbox, "/auth/login", "", credentials()).await;
    assert_eq!(
        (status, &session["token_type"], &session["expires_in"]),
        (200, &json!("bearer"), &json!(3600))
    );
    let (status, models) = get(&sandbox, "/health-ai/models", text(&session, "access_token")).await;
    assert_eq!((status, models["models"].as_array().unwrap().len()), (200, 3));
}

#[tokio::test]
async fn registering_has_its_rules() {
    let sandbox = sandbox(SandboxConfig::default()).await;
    for (body, status) in [
        (json!({"email": EMAIL, "password": "short1"}), 400),
        (json!({"email": EMAIL, "password": "no-digits-here"}), 400),
        (json!({"email": "nobody", "password": PASSWORD}), 422),
        (json!({ "email": EMAIL }), 422),
        (json!("text"), 422),
        (credentials(), 201),
        (credentials(), 409),
    ] {
        let (given, answer) = post(&sandbox, "/auth/register", "", body).await;
        assert_eq!(given, status, "{answer}");
        assert!(!answer.to_string().contains(PASSWORD));
    }
}

#[tokio::test]
async fn a_wrong_password_and_an_unknown_address_are_answered_alike() {
    let (sandbox, _) = with_account(SandboxConfig::default(), Plan::Free).await;
    let wrong = post(&sandbox, "/auth/login", "", json!({"email": EMAIL, "password": "wrong-1234"})).await;
    let unknown = post(&sandbox, "/auth/login", "", json!({"email": "x@y.z", "password": PASSWORD})).await;
    assert_eq!((wrong.0, &wrong), (401, &unknown));
}

#[tokio::test]
async fn a_token_ends_with_its_life_its_refresh_and_its_logout() {
    let clock = Clock::manual(Timestamp::from_timestamp(1_800_000_000, 0).unwrap());
    let config = SandboxConfig { clock: clock.clone(), ..SandboxConfig::default() };
    let (sandbox, first) = with_account(config, Plan::Unlimited).await;
    let (_, second) = post(&sandbox, "/auth/refresh", text(&first, "refresh_token"), Value::Null).await;
    assert_eq!(get(&sandbox, "/auth/me", text(&first, "access_token")).await.0, 401);
    assert_eq!(get(&sandbox, "/auth/me", text(&second, "access_token")).await.1["email"], EMAIL);
    clock.advance(TimeDelta::hours(1));
    assert_eq!(get(&sandbox, "/auth/me", text(&second, "access_token")).await.0, 401);

    let (_, third) = post(&sandbox, "/auth/refresh", text(&first, "refresh_token"), Value::Null).await;
    let (status, answer) = post(&sandbox, "/auth/logout", text(&third, "access_token"), Value::Null).await;
    assert_eq!((status, &answer["token_blacklisted"]), (200, &json!(true)));
    assert_eq!(get(&sandbox, "/auth/me", text(&third, "access_token")).await.0, 401);
    assert_eq!(post(&sandbox, "/auth/refresh", text(&first, "refresh_token"), Value::Null).await.0, 401);
}

#[tokio::test]
async fn a_key_is_shown_once_works_and_dies_when_revoked() {
    let (sandbox, session) = with_account(SandboxConfig::default(), Plan::Unlimited).await;
    let token = text(&session, "access_token");
    let wanted = json!({"name": "ci", "permissions": ["read"]});
    let (status, made) = post(&sandbox, "/auth/api-keys", token, wanted).await;
    assert_eq!((status, &made["permissions"]), (201, &json!(["read"])));
    let (id, key) = (text(&made, "id"), text(&made, "api_key"));
    assert_eq!(get(&sandbox, "/health-ai/models", key).await.0, 200);
    let (_, listed) = get(&sandbox, "/auth/api-keys", token).await;
    assert_eq!((&listed["total"], &listed["api_keys"][0]["id"]), (&json!(1), &json!(id)));
    assert_eq!(listed["api_keys"][0]["permissions"], json!(["read"]));
    assert!(!listed.to_string().contains(key));
    assert_eq!(get(&sandbox, "/auth/api-keys", key).await.0, 403);
    let (_, usage) = get(&sandbox, &format!("/api/v1/api-keys/usage/{id}"), token).await;
    assert_eq!(usage["usage_stats"]["total_requests"], 2);
    let revoke = format!("/auth/api-keys/{id}");
    assert_eq!(ask(&sandbox, Method::DELETE, &revoke, token, Value::Null).await.0, 200);
    assert_eq!(get(&sandbox, "/health-ai/models", key).await.0, 401);
    assert_eq!(ask(&sandbox, Method::DELETE, &revoke, token, Value::Null).await.0, 404);
}

#[tokio::test]
async fn a_plan_bounds_keys_and_requests() {
    let clock = Clock::manual(Timestamp::from_timestamp(1_800_000_000, 0).unwrap());
    let config = SandboxConfig { clock: clock.clone(), ..SandboxConfig::default() };
    let (sandbox, session) = with_account(config, Plan::Free).await;
    let token = text(&session, "access_token");
    for (number, status) in [(1, 201), (2, 201), (3, 403)] {
        let (given, answer) =
            post(&sandbox, "/auth/api-keys", token, json!({ "name": format!("key {number}") })).await;
        assert_eq!(given, status, "{answer}");
    }
    for remaining in (0..7).rev() {
        let (status, models) = get(&sandbox, "/health-ai/models", token).await;
        assert_eq!((status, text(&models, "x-ratelimit-remaining")), (200, remaining.to_string().as_str()));
    }
    let (status, refused) = get(&sandbox, "/health-ai/models", token).await;
    assert_eq!((status, text(&refused, "x-ratelimit-limit")), (429, "10"));
    assert_eq!((text(&refused, "retry-after"), text(&refused, "x-ratelimit-remaining")), ("60", "0"));
    clock.advance(TimeDelta::minutes(1));
    assert_eq!(get(&sandbox, "/health-ai/models", token).await.0, 200);
}

#[tokio::test]
async fn requests_are_counted_by_endpoint() {
    let (sandbox, session) = with_account(SandboxConfig::default(), Plan::Free).await;
    let token = text(&session, "access_token");
    get(&sandbox, "/api/v1/api-keys/usage/key_x", token).await;
    get(&sandbox, "/api/v1/api-keys/usage/key_y", token).await;
    assert_eq!(get(&sandbox, "/no/such/path", token).await.0, 404);
    assert_eq!(get(&sandbox, "/health", "").await.1["status"], "healthy");
    assert_eq!(sandbox.count("GET /api/v1/api-keys/usage/{id}"), 2);
    assert_eq!((sandbox.count("POST /auth/login"), sandbox.count("GET /health")), (1, 1));
}

#[tokio::test]
async fn a_state_file_outlives_the_run_and_holds_no_credential() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state.json");
    let config =
        SandboxConfig { state_file: Some(path.clone()), auto_verify: true, ..SandboxConfig::default() };
    let first = sandbox(config.clone()).await;
    post(&first, "/auth/register", "", credentials()).await;
    let (_, session) = post(&first, "/auth/login", "", credentials()).await;
    let (_, made) =
        post(&first, "/auth/api-keys", text(&session, "access_token"), json!({ "name": "ci" })).await;
    drop(first);
    let kept = std::fs::read_to_string(&path).unwrap();
    for secret in [PASSWORD, text(&made, "api_key"), text(&session, "refresh_token")] {
        assert!(!kept.contains(secret));
    }

    let second = sandbox(config.clone()).await;
    assert_eq!(get(&second, "/health-ai/models", text(&made, "api_key")).await.0, 200);
    assert_eq!(post(&second, "/auth/refresh", text(&session, "refresh_token"), Value::Null).await.0, 200);
    drop(second);
    std::fs::write(&path, "garbled").unwrap();
    assert!(matches!(
        Sandbox::start(config, "127.0.0.1:0".parse().unwrap()).await,
        Err(SandboxError::State(_))
    ));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "garbled");
}

#[cfg(unix)]
#[tokio::test]
async fn saving_the_state_changes_no_other_file() {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    let directory = tempfile::tempdir().unwrap();
    let (path, other) = (directory.path().join("accounts.json"), directory.path().join("other"));
    std::fs::write(&other, "mine").unwrap();
    symlink(&other, directory.path().join("accounts.new")).unwrap();
    let config =
        SandboxConfig { state_file: Some(path.clone()), auto_verify: true, ..SandboxConfig::default() };
    post(&sandbox(config).await, "/auth/register", "", credentials()).await;
    assert_eq!(std::fs::read_to_string(&other).unwrap(), "mine");
    let written = std::fs::symlink_metadata(&path).unwrap();
    assert_eq!((written.is_file(), written.permissions().mode() & 0o777), (true, 0o600));
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 3);
}

#[tokio::test]
async fn health_services_take_a_key_or_a_token_and_charge_for_what_they_process() {
    let (sandbox, session) = with_account(SandboxConfig::default(), Plan::Unlimited).await;
    let token = text(&session, "access_token");
    let (_, made) = post(&sandbox, "/auth/api-keys", token, json!({ "name": "ci" })).await;
    let pair = json!({"medications": [{"name": "a"}, {"name": "b"}, {"name": "c"}]});
    sandbox.set_credits(EMAIL, 8);
    for (bearer, left) in [(token, 5), (text(&made, "api_key"), 2)] {
        let (status, answer) = post(&sandbox, "/health-ai/medication-check", bearer, pair.clone()).await;
        assert_eq!((status, &answer["cost"], &answer["sample"]), (200, &json!(0.03), &json!(true)));
        assert_eq!(answer["interactions"].as_array().unwrap().len(), 3);
        assert_eq!(sandbox.credits(EMAIL), Some(left));
    }
    let (status, refused) = post(&sandbox, "/health-ai/medication-check", token, pair.clone()).await;
    assert_eq!((status, &refused["error"]["code"]), (402, &json!("insufficient_credits")));
    assert_eq!(post(&sandbox, "/health-ai/medication-check", "", pair).await.0, 401);
    assert_eq!(sandbox.credits(EMAIL), Some(2));
    assert_eq!(sandbox.credits("nobody@example.com"), None);
}

#[tokio::test]
async fn a_health_question_that_does_not_fit_is_refused_by_field_and_free_of_charge() {
    let (sandbox, session) = with_account(SandboxConfig::default(), Plan::Unlimited).await;
    let token = text(&session, "access_token");
    let patient =
        |age: Value| json!({"analysis_type": "general", "patient_data": {"age": age, "gender": "male"}});
    for (service, body, place) in [
        ("risk-analysis", patient(json!([54])), json!(["body", "patient_data", "age"])),
        ("medication-check", json!({ "medications": [] }), json!(["body", "medications"])),
        ("symptom-assessment", json!({"symptoms": [{}]}), json!(["body", "symptoms", 0, "description"])),
        ("treatment-recommendations", json!({"diagnosis": "x"}), json!(["body", "patient_profile"])),
        ("data-extraction", json!({"clinical_text": " "}), json!(["body", "clinical_text"])),
        ("analyze", json!({"analysis_type": "x"}), json!(["body", "prompt"])),
    ] {
        let (status, answer) = post(&sandbox, &format!("/health-ai/{service}"), token, body).await;
        assert_eq!((status, &answer["detail"][0]["loc"]), (422, &place), "{service}");
    }
    assert_eq!(sandbox.credits(EMAIL), Some(500));
}

#[tokio::test]
async fn credits_outlive_the_run_and_an_account_from_before_them_has_its_first() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state.json");
    let config =
        SandboxConfig { state_file: Some(path.clone()), auto_verify: true, ..SandboxConfig::default() };
    let first = sandbox(config.clone()).await;
    post(&first, "/auth/register", "", credentials()).await;
    let (_, session) = post(&first, "/auth/login", "", credentials()).await;
    let question = json!({"prompt": "Why?", "analysis_type": "general"});
    post(&first, "/health-ai/analyze", text(&session, "access_token"), question).await;
    drop(first);
    assert_eq!(sandbox(config.clone()).await.credits(EMAIL), Some(495));
    let mut kept: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    kept["accounts"][0].as_object_mut().unwrap().remove("credits");
    std::fs::write(&path, kept.to_string()).unwrap();
    assert_eq!(sandbox(config).await.credits(EMAIL), Some(500));
}

#[tokio::test]
async fn it_serves_loopback_only() {
    let outcome = Sandbox::start(SandboxConfig::default(), "0.0.0.0:0".parse().unwrap()).await;
    assert!(matches!(outcome, Err(SandboxError::NotLoopback(_))));
}
