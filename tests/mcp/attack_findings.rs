//! Ways in which a secret, or a wrong word about the account, has once left by a side door.

use std::{
    net::Ipv4Addr,
    sync::{Arc, Mutex, OnceLock},
};

use crate::common::{
    EMAIL, Place, Server, account,
    browser::{Browser, link},
    hostile::Hostile,
    like_the_seed, sandbox, secrets, within,
};
use axum::{
    Json, Router,
    extract::State,
    response::IntoResponse as _,
    routing::{get, post},
};
use bondmcp_server::{account::Account, sandbox::Plan};
use rmcp::model::{ArgumentInfo, CompleteRequestParams, GetPromptRequestParams, Reference};
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// An upstream at which another process of the account signs in while it answers, and that quotes the new token.
#[derive(Default)]
struct Meanwhile {
    tokens: Mutex<Vec<String>>,
    password: Mutex<String>,
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
    assert_eq!(completed("key_").await, ["key_1", "key_2"]);
    let token = secrets::text(&hostile.issued()[0]).to_owned();
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

/// An upstream that names every API key after the newest token and the password, and accepts none of them.
async fn naming_keys_after_secrets() -> (String, Arc<Meanwhile>) {
    async fn log_in_with(State(state): State<Arc<Meanwhile>>, Json(body): Json<Value>) -> Json<Value> {
        body["password"].as_str().unwrap().clone_into(&mut state.password.lock().unwrap());
        log_in(State(state)).await
    }
    fn key(state: &Meanwhile, id: &str) -> Value {
        let token = state.tokens.lock().unwrap().last().cloned().unwrap();
        // Long enough for the token to be cut where names are.
        let name = format!("{:n<30} {token} {}", "", state.password.lock().unwrap());
        json!({"id": id, "name": name, "key_preview": name, "created_at": name, "api_key": "k".repeat(20)})
    }
    async fn keys(State(state): State<Arc<Meanwhile>>) -> Json<Value> {
        Json(json!({ "api_keys": [key(&state, "key_1")] }))
    }
    async fn created(State(state): State<Arc<Meanwhile>>) -> Json<Value> {
        Json(key(&state, "key_2"))
    }
    async fn models(
        State(state): State<Arc<Meanwhile>>,
        headers: axum::http::HeaderMap,
    ) -> axum::response::Response {
        if headers["authorization"] == format!("Bearer {}", "k".repeat(20)).as_str() {
            return axum::http::StatusCode::INTERNAL_SERVER_ERROR.into_response();
        }
        Json(json!([key(&state, "m1")])).into_response()
    }
    let state = Arc::new(Meanwhile::default());
    let router = Router::new()
        .route("/auth/login", post(log_in_with))
        .route("/auth/logout", post(async || Json(json!({}))))
        .route(
            "/auth/register",
            post(async |State(state): State<Arc<Meanwhile>>| {
                (axum::http::StatusCode::BAD_REQUEST, Json(json!({"detail": key(&state, "key_3")["name"]})))
            }),
        )
        .route("/auth/api-keys", get(keys).post(created))
        .route("/health-ai/models", get(models))
        .with_state(Arc::clone(&state));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let base_url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    (base_url, state)
}

/// A person who has signed in there, and the secrets in play.
async fn signed_in_there() -> (Place, Vec<bondmcp_server::secret::SecretString>) {
    let (base_url, state) = naming_keys_after_secrets().await;
    let sandbox = sandbox(like_the_seed()).await;
    let mut place = Place::new(&sandbox);
    place.base_url = base_url;
    place.sign_in().await;
    let token = state.tokens.lock().unwrap()[0].clone();
    // The beginning of a token is a part of the secret, too.
    let planted = vec![place.password.clone(), token[..20].into(), token.as_str().into()];
    (place, planted)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_in_a_name_is_not_printed_up_to_where_the_name_is_cut() {
    let (place, planted) = signed_in_there().await;
    let (code, told, _) = place.run(&["keys", "list"]).await;
    assert_eq!(code, Some(0), "{told}");
    secrets::assert_absent(&planted, told.as_bytes(), "the table of keys");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_left_of_a_key_after_signing_out_holds_no_secret() {
    let (place, planted) = signed_in_there().await;
    let (code, _, told) = place.run(&["keys", "rotate", "key_1", "--yes"]).await;
    assert_eq!(code, Some(1), "{told}");
    place.run(&["logout"]).await;
    for arguments in [&["status"][..], &["status", "--json"]] {
        let (_, told, _) = place.run(arguments).await;
        assert!(told.contains("key_2"), "{told}");
        secrets::assert_absent(&planted, told.as_bytes(), "the status");
    }
    let server = Server::start(&place).await;
    server.ok("auth_status", json!({})).await;
    secrets::assert_absent(&planted, &server.end().await, "what the host saw");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_with_an_api_key_in_its_environment_knows_the_secrets_in_the_vault_too() {
    let (place, planted) = signed_in_there().await;
    let mut command = place.command(&["stdio"]);
    let server = Server::spawn(command.env("BONDMCP_API_KEY", "canary-key-of-the-environment")).await;
    server.ok("list_models", json!({})).await;
    secrets::assert_absent(&planted, &server.end().await, "what the host saw");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_refusal_of_a_new_account_quotes_no_secret_of_the_one_that_is_signed_in() {
    let (place, planted) = signed_in_there().await;
    let mut command = place.command(&["register", "--email", "b@example.com", "--password-stdin"]);
    let (code, _, told) = crate::common::run(&mut command, "another-password-1").await;
    assert_eq!(code, Some(1), "{told}");
    secrets::assert_absent(&planted, told.as_bytes(), "the error");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_that_is_not_stored_is_known_for_as_long_as_it_opens_the_account() {
    let sandbox = sandbox(like_the_seed()).await;
    let place = Place::new(&sandbox);
    let (account, redactor) = account(&place);
    account.sign_in(EMAIL, place.password.clone(), false).await.unwrap();
    for number in 0..2000 {
        redactor.remember(&format!("a token of many renewals {number}").into());
    }
    assert_eq!(redactor.redact(secrets::text(&place.password)), "[redacted]");
}
