//! How the process of a hosted server stops.

use std::time::Duration;

use crate::common::{
    EMAIL, Place,
    browser::json_of,
    hosted_process::{ORIGIN, Process},
    hosted_server::{Authorization, parameter},
    like_the_seed, raw, sandbox, within,
};
use bondmcp_server::{
    clock::Clock,
    oauth::{self, AuthorizationServer, Network, Scopes},
    sandbox::Fault,
};
use reqwest::RequestBuilder;
use serde_json::{Value, json};

const MODELS: &str = "GET /health-ai/models";

/// Longest time from the signal to the end of the process: much less than the deadline of a call.
const LONGEST_STOP: Duration = Duration::from_secs(40);

/// Connects an app, as if the person had agreed, beside the process; returns its access token.
async fn connect(process: &Process, place: &Place) -> String {
    let (accounts, _) = crate::common::accounts(place);
    let settings = oauth::Settings::new(ORIGIN.parse().unwrap());
    let vault = accounts.vault().await.unwrap();
    let opened = AuthorizationServer::open(vault, settings, Network::public(), Clock::system());
    let server = within(opened).await.unwrap();
    let authorization = Authorization::of(process.register("http://127.0.0.1/callback").await);
    let request = server.authorization_request(&authorization.query()).await.unwrap();
    let person = within(accounts.authenticator().with_password(EMAIL, place.password.clone())).await.unwrap();
    let subject = server.subject(person.user_id().unwrap());
    let grant = server.create_grant(&subject, &request, Scopes::all()).await.unwrap();
    accounts.open(&grant.owner()).adopt(person, false).await.unwrap();
    let answer = server.authorization_response(&request, &grant).await.unwrap();
    let form = [
        ("grant_type", "authorization_code"),
        ("code", &parameter(&answer, "code")),
        ("client_id", &authorization.client_id),
        ("redirect_uri", &authorization.redirect_uri),
        ("code_verifier", &authorization.verifier),
    ];
    let mut tokens = json_of(within(process.post_form("/token", &form).send()).await.unwrap()).await;
    accounts.close().await;
    match tokens["access_token"].take() {
        Value::String(token) => token,
        _ => panic!("{tokens}"),
    }
}

fn ask(process: &Process, token: &str, method: &str, params: Value) -> RequestBuilder {
    let request = process
        .post("/mcp")
        .bearer_auth(token)
        .header("accept", "application/json, text/event-stream")
        .header("content-type", "application/json")
        .header("mcp-protocol-version", "2026-07-28")
        .header("mcp-method", method)
        .header("mcp-name", "list_models");
    request.body(raw::modern(1, method, params).to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn on_sigterm_it_drains_and_ends_by_itself_although_a_call_hangs() {
    let sandbox = sandbox(like_the_seed()).await;
    let place = Place::new(&sandbox);
    // Time for a busy machine to see that requests are still answered.
    let process = Process::start(&place, &["--drain-delay", "15", "--drain-timeout", "1"]).await;
    let token = connect(&process, &place).await;
    sandbox.faults().always(MODELS, Fault::Hold);
    let call = json!({"name": "list_models", "arguments": {}});
    let hanging = tokio::spawn(ask(&process, &token, "tools/call", call).send());
    within(sandbox.faults().arrived(MODELS, 1)).await;
    assert_eq!(within(process.get("/readyz").send()).await.unwrap().status(), 200);

    process.terminate();
    within(async { while process.get("/readyz").send().await.unwrap().status() == 200 {} }).await;
    let listed = within(ask(&process, &token, "tools/list", json!({})).send()).await.unwrap();
    assert_eq!(listed.status(), 200, "requests are answered until the load balancer has noticed");
    assert!(json_of(listed).await["result"]["tools"].is_array());
    assert!(!hanging.is_finished());

    let (status, log) = tokio::time::timeout(LONGEST_STOP, process.ended()).await.unwrap();
    assert!(status.success(), "{status}: {log}");
    let answer = within(hanging).await.unwrap().unwrap();
    let answer = json_of(answer).await;
    assert_eq!(answer["error"]["message"], "the server is stopping", "{answer}");
}
