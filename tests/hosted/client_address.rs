//! Each request of a hosted server has an id, in its answer and in the log. Only a proxy that the operator trusts says
//! which, and for whom a request is.

use crate::common::{Place, hosted_process::Process, like_the_seed, sandbox, within};
use serde_json::Value;

/// Sends a request with an id; returns that of the answer.
async fn answered_id(process: &Process, given: Option<&str>) -> String {
    let request = process.post("/mcp").bearer_auth("not-a-token");
    let request = match given {
        Some(given) => request.header("x-request-id", given),
        None => request,
    };
    let response = within(request.send()).await.unwrap();
    response.headers()["x-request-id"].to_str().unwrap().to_owned()
}

/// Whether a line of the log is about the request `id`.
fn names(log: &str, id: &str) -> bool {
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.into_iter().any(|line| line["span"]["request_id"] == id && line["span"]["name"] == "http")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_found_in_the_log_by_the_id_of_its_answer() {
    let sandbox = sandbox(like_the_seed()).await;
    let process = Process::start(&Place::new(&sandbox), &[]).await;
    let id = answered_id(&process, None).await;
    assert_ne!(answered_id(&process, None).await, id);
    // Nobody but a proxy chooses an id.
    let forged = answered_id(&process, Some("forged-id")).await;
    assert_ne!(forged, "forged-id");
    let log = process.end().await;
    assert!(names(&log, &id) && names(&log, &forged) && !log.contains("forged-id"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trusted_proxy_gives_ids_that_are_plain_words() {
    let sandbox = sandbox(like_the_seed()).await;
    let process = Process::start(&Place::new(&sandbox), &["--trusted-proxy", "127.0.0.1"]).await;
    assert_eq!(answered_id(&process, Some("4bf92f3577b34da6")).await, "4bf92f3577b34da6");
    for strange in ["a b", "\"}{\"", &"a".repeat(65)] {
        assert_ne!(answered_id(&process, Some(strange)).await, strange);
    }
    let log = process.end().await;
    assert!(names(&log, "4bf92f3577b34da6"), "{log}");
}
