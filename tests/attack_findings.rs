//! Ways in which a secret, or a wrong word about the account, has once left by a side door.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::{
    net::Ipv4Addr,
    sync::{Arc, Mutex, OnceLock},
};

use axum::{
    Json, Router,
    extract::State,
    routing::{get, post},
};
use bondmcp_server::{account::Account, sandbox::Plan};
use common::{
    EMAIL, Place, Server, account,
    browser::{Browser, link},
    hostile::Hostile,
    like_the_seed, sandbox, secrets, within,
};
use rmcp::model::{ArgumentInfo, CompleteRequestParams, GetPromptRequestParams, Reference};
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// An upstream at which another process of the account signs in while it answers, and that quotes the new token.
#[derive(Default)]
struct Meanwhile {
    tokens: Mutex<Vec<String>>,
    other: OnceLock<(Account, bondmcp_server::secret::SecretString)>,
}

async fn log_in(State(state): State<Arc<Meanwhile>>) -> Json<Value> {
    let token = format!("opaque.{}", uuid::Uuid::new_v4());
    state.tokens.lock().unwrap().push(token.clone());
    Json(json!({"access_token": token, "expires_in": 3600, "user": {"id": "usr_1", "email": EMAIL}}))
}

async fn models(State(state): State<Arc<Meanwhile>>) -> Json<Value> {
    if let Some((other, password)) = state.other.get() {
        other.sign_in(EMAIL, password.clone(), true).await.unwrap();
    }
    let newest = state.tokens.lock().unwrap().last().cloned().unwrap();
    Json(json!([{"id": "m1", "name": format!("{newest} of {EMAIL}")}]))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_another_process_was_given_during_a_call_does_not_leave_with_its_answer() {
    let state = Arc::new(Meanwhile::default());
    let router = Router::new()
        .route("/auth/login", post(log_in))
        .route("/auth/logout", post(async || Json(json!({}))))
        .route("/health-ai/models", get(models))
        .with_state(Arc::clone(&state));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let sandbox = sandbox(like_the_seed()).await;
    let mut place = Place::new(&sandbox);
    place.base_url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    place.sign_in().await;
    let server = Server::start(&place).await;
    server.ok("list_models", json!({})).await;
    assert!(state.other.set((account(&place).0, place.password.clone())).is_ok());
    for _ in 0..3 {
        server.ok("list_models", json!({ "refresh": true })).await;
        let read = rmcp::model::ReadResourceRequestParams::new("bondmcp://models");
        within(server.client.read_resource(read)).await.unwrap();
    }
    let given: Vec<_> = state.tokens.lock().unwrap().iter().map(|token| token.as_str().into()).collect();
    assert!(given.len() > 3);
    secrets::assert_absent(&given, &server.end().await, "what the host saw");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prompt_is_the_same_whether_a_guess_in_it_is_right_or_wrong() {
    let sandbox = sandbox(like_the_seed()).await;
    let mut place = Place::new(&sandbox);
    place.password = "canary-password-1".into();
    sandbox.add_account("other@example.com", &place.password, Plan::Unlimited, true);
    let mut command = place.command(&["stdio"]);
    command.env("BONDMCP_EMAIL", "other@example.com").env("BONDMCP_PASSWORD", secrets::text(&place.password));
    let server = Server::spawn(&mut command).await;
    server.ok("list_models", json!({})).await;
    let mut told = Vec::new();
    for guess in ["canary-password-1", "canary-password-2"] {
        let arguments = json!({ "medications": guess }).as_object().cloned().unwrap();
        let request = GetPromptRequestParams::new("medication_review").with_arguments(arguments);
        let prompt = within(server.client.get_prompt(request)).await.unwrap();
        told.push(serde_json::to_string(&prompt).unwrap().replace(guess, "GUESS"));
    }
    assert_eq!(told[0], told[1]);
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_completion_does_not_spell_out_a_secret_that_stands_in_a_keys_name() {
    let hostile = Hostile::start("{token}").await;
    let sandbox = sandbox(like_the_seed()).await;
    let mut place = Place::new(&sandbox);
    place.base_url.clone_from(&hostile.base_url);
    place.sign_in().await;
    let server = Server::start(&place).await;
    let completed = async |begun: &str| {
        let request = CompleteRequestParams::new(
            Reference::for_resource("bondmcp://keys/{key_id}"),
            ArgumentInfo::new("key_id", begun),
        );
        within(server.client.complete(request)).await.unwrap().completion.values
    };
    assert_eq!(completed("key_").await, ["key_1"]);
    let token = secrets::text(&hostile.tokens()[0]).to_owned();
    for length in [1, 10, token.len()] {
        assert!(completed(&token[..length]).await.is_empty(), "{length}");
    }
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_with_a_key_that_somebody_brought_are_not_said_to_be_for_the_one_who_signed_in() {
    let sandbox = sandbox(like_the_seed()).await;
    let place = Place::new(&sandbox);
    let stranger = "eve@example.com";
    sandbox.add_account(stranger, &place.password, Plan::Unlimited, true);
    // A key of somebody else.
    let elsewhere = Place {
        directory: tempfile::tempdir().unwrap(),
        base_url: place.base_url.clone(),
        password: place.password.clone(),
        sealing_key: place.sealing_key.clone(),
    };
    let (eve, _) = account(&elsewhere);
    eve.sign_in(stranger, place.password.clone(), false).await.unwrap();
    let made = eve.create_key(serde_json::from_value(json!({ "name": "k" })).unwrap()).await.unwrap();
    let key = eve.key_secret(&made.id).await.unwrap();

    let server = Server::start(&place).await;
    let error = server.error("list_models", json!({})).await;
    let page = Browser::open(&link(&error)).await;
    // The person signs in at a terminal, and the page is still open.
    place.sign_in().await;
    assert_eq!(server.ok("list_models", json!({})).await["signed_in_as"], EMAIL);
    within(page.post("key", &[("key", secrets::text(&key))]).send()).await.unwrap();
    let answer = server.ok("list_models", json!({ "refresh": true })).await;
    assert_eq!(answer["signed_in_as"], "the owner of an API key", "{answer}");
    let status = server.ok("auth_status", json!({})).await;
    assert_eq!((&status["credential"], &status["email"]), (&json!("api_key"), &Value::Null), "{status}");
    server.end().await;
}
