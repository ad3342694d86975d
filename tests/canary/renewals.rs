//! After more tokens than are remembered, the password from the environment is still redacted.

use std::{
    collections::HashSet,
    net::Ipv4Addr,
    sync::{Arc, Mutex},
};

use axum::{
    Json, Router,
    extract::State,
    http::{HeaderMap, StatusCode},
    routing::{get, post},
};
use bondmcp_server::secret;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::common::{EMAIL, Place, Server, like_the_seed, sandbox, secrets};

/// Each renewal brings two tokens, and 1,024 replaced secrets are remembered.
const RENEWALS: usize = 600;

/// The state of an upstream whose tokens are valid for one request and which quotes the password.
#[derive(Default)]
struct Known {
    password: String,
    used: HashSet<String>,
    given: usize,
}

type Shared = State<Arc<Mutex<Known>>>;

fn tokens(known: &mut Known) -> Json<Value> {
    known.given += 1;
    let token = |kind: &str| format!("{kind}-token-{:08}", known.given);
    Json(json!({"access_token": token("access"), "refresh_token": token("refresh"), "expires_in": 3600}))
}

async fn log_in(State(known): Shared, Json(body): Json<Value>) -> Json<Value> {
    let mut known = known.lock().unwrap();
    body["password"].as_str().unwrap().clone_into(&mut known.password);
    tokens(&mut known)
}

async fn models(State(known): Shared, headers: HeaderMap) -> Result<Json<Value>, StatusCode> {
    let mut known = known.lock().unwrap();
    if known.used.insert(headers["authorization"].to_str().unwrap().to_owned()) {
        Ok(Json(json!([{"id": "m1", "name": known.password}])))
    } else {
        Err(StatusCode::UNAUTHORIZED)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_in_force_is_not_quoted_after_any_number_of_renewals() {
    let known = Arc::new(Mutex::new(Known::default()));
    let router = Router::new()
        .route("/auth/login", post(log_in))
        .route("/auth/refresh", post(async |State(known): Shared| tokens(&mut known.lock().unwrap())))
        .route("/health-ai/models", get(models))
        .with_state(Arc::clone(&known));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let base_url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });

    let sandbox = sandbox(like_the_seed()).await;
    let mut place = Place::new(&sandbox);
    place.base_url = base_url;
    let mut command = place.command(&["--log", "warn", "stdio"]);
    command.env("BONDMCP_EMAIL", EMAIL).env("BONDMCP_PASSWORD", secrets::text(&place.password));
    let server = Server::spawn(&mut command).await;
    for _ in 0..RENEWALS {
        let models = server.ok("list_models", json!({ "refresh": true })).await;
        assert_eq!(models["models"][0]["name"], "[redacted]", "{models}");
    }
    assert!(known.lock().unwrap().given >= RENEWALS, "each call had a new token");
    let in_force = [place.password.clone(), place.sealing_key.clone(), secret::random()];
    secrets::assert_absent(&in_force, &server.end().await, "what the host saw");
}
