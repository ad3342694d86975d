//! Rate limits and outages: the errors that the agent gets, and that calls are paused rather than repeated.

use crate::common::{EMAIL, Server, signed_in};
use bondmcp_server::sandbox::{Fault, Plan};
use serde_json::json;

const MODELS: &str = "GET /health-ai/models";

#[tokio::test(flavor = "multi_thread")]
async fn the_models_are_listed_while_bondmcp_is_down_and_not_to_the_signed_out() {
    let (sandbox, place) = signed_in().await;
    let server = Server::start(&place).await;
    let listed = server.ok("list_models", json!({})).await;
    assert_eq!((&listed["from_cache"], &listed["note"]), (&json!(false), &json!(null)));
    for fault in [Fault::Status(500), Fault::Html(502), Fault::Drop] {
        sandbox.faults().always(MODELS, fault);
        let stale = server.ok("list_models", json!({ "refresh": true })).await;
        assert_eq!((&stale["from_cache"], &stale["models"]), (&json!(true), &listed["models"]));
        assert_eq!(stale["fetched_at"], listed["fetched_at"]);
        assert!(stale["note"].as_str().unwrap().contains(&sandbox.address().to_string()), "{stale}");
    }
    // A refusal is not an outage.
    sandbox.faults().always(MODELS, Fault::Status(403));
    assert_eq!(server.error("list_models", json!({ "refresh": true })).await["kind"], "forbidden");
    server.ok("logout", json!({})).await;
    sandbox.faults().always(MODELS, Fault::Status(500));
    assert_eq!(server.error("list_models", json!({})).await["kind"], "sign_in_required");
    place.sign_in().await;
    let server = Server::start(&place).await;
    assert_eq!(server.error("list_models", json!({})).await["kind"], "upstream_unavailable");
}

#[tokio::test(flavor = "multi_thread")]
async fn after_five_consecutive_failures_calls_are_paused() {
    let (sandbox, place) = signed_in().await;
    let server = Server::start(&place).await;
    sandbox.faults().always(MODELS, Fault::Status(500));
    for _ in 0..5 {
        assert_eq!(server.error("list_models", json!({})).await["status"], 500);
    }
    let asked = sandbox.counts();
    for (tool, arguments) in [("list_models", json!({})), ("manage_api_keys", json!({"action": "list"}))] {
        let error = server.error(tool, arguments).await;
        assert_eq!(error["kind"], "upstream_unavailable");
        assert!(error["message"].as_str().unwrap().contains("5 times"), "{error}");
        assert!((1..=10).contains(&error["retry_after_seconds"].as_u64().unwrap()), "{error}");
    }
    assert_eq!(sandbox.counts(), asked);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_beyond_the_rate_limit_is_not_sent() {
    let (sandbox, place) = signed_in().await;
    sandbox.set_plan(EMAIL, Plan::Free);
    let server = Server::start(&place).await;
    let error = loop {
        let result = server.call("list_models", json!({ "refresh": true })).await.unwrap();
        if result.is_error == Some(true) {
            break crate::common::error_of(&result);
        }
    };
    assert_eq!((&error["kind"], &error["status"]), (&json!("rate_limited"), &json!(null)));
    assert!((1..=60).contains(&error["retry_after_seconds"].as_u64().unwrap()), "{error}");
    // Signing in also requests the user.
    assert_eq!(sandbox.count(MODELS) + sandbox.count("GET /auth/me"), 10);
    assert_eq!(server.error("list_models", json!({ "refresh": true })).await["kind"], "rate_limited");
    assert_eq!(sandbox.count(MODELS) + sandbox.count("GET /auth/me"), 10);
    // Cached data needs no request.
    assert_eq!(server.ok("list_models", json!({})).await["from_cache"], true);
}
