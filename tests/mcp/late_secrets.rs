//! Before an answer leaves, the server looks for secrets that another process has stored meanwhile. Here it cannot.

use crate::common::{
    Place, like_the_seed,
    raw::{Raw, call},
    sandbox,
    services::{ANALYZE, SERVICES},
    within,
};
use bondmcp_server::sandbox::{Fault, RunningSandbox};
use serde_json::{Value, json};
use sqlx::{Connection as _, SqliteConnection};

/// Makes a call, and the account's record unreadable before BondMCP answers.
async fn call_without_record(tool: &str, arguments: Value, endpoint: &str) -> (RunningSandbox, Value) {
    let sandbox = sandbox(like_the_seed()).await;
    let place = Place::new(&sandbox);
    place.sign_in().await;
    let mut host = Raw::start(&place);
    host.initialize("2025-11-25").await;
    let before = sandbox.count(endpoint);
    sandbox.faults().next(endpoint, Fault::Hold);
    host.send(&call(2, tool, arguments).to_string()).await;
    within(sandbox.faults().arrived(endpoint, before + 1)).await;
    let vault = place.data_dir().join("vault.db");
    let mut database = SqliteConnection::connect(vault.to_str().unwrap()).await.unwrap();
    // The first bytes name the key; the database refuses others.
    let damage =
        "UPDATE records SET version = version + 1, sealed = CAST(substr(sealed, 1, 9) || x'00' AS BLOB)";
    sqlx::raw_sql(damage).execute(&mut database).await.unwrap();
    database.close().await.unwrap();
    sandbox.faults().release();
    let answer = host.next().await;
    assert_eq!(host.end().await, Some(0));
    (sandbox, answer)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_cannot_be_searched_for_the_newest_secrets_is_not_sent() {
    let (_sandbox, answer) =
        call_without_record("list_models", json!({"refresh": true}), "GET /health-ai/models").await;
    assert_eq!(answer["result"]["isError"], true, "{answer}");
    assert!(answer.to_string().contains("vault"), "{answer}");
    assert!(!answer.to_string().contains("sandbox-general-1"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_was_billed_is_sent_all_the_same() {
    let (sandbox, answer) = call_without_record("health_analyze", (SERVICES[5].2)(), ANALYZE).await;
    assert_eq!(answer.pointer("/result/structuredContent/cost"), Some(&json!(0.05)), "{answer}");
    assert_eq!(sandbox.count(ANALYZE), 1);
}
