//! `audit`: filters, sums and following.

use std::process::Stdio;

use crate::common::{Place, Server, like_the_seed, sandbox, services::ANALYZE, within};
use bondmcp_server::sandbox::{Fault, RunningSandbox};
use chrono::{TimeDelta, Utc};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};

/// A place whose log has entries of several tools, outcomes and costs; one was possibly billed.
async fn with_entries() -> (RunningSandbox, Place) {
    let sandbox = sandbox(like_the_seed()).await;
    let place = Place::new(&sandbox);
    place.sign_in().await;
    let server = Server::start(&place).await;
    server.ok("list_models", json!({})).await;
    server.ok("clinical_data_extraction", json!({"clinical_text": "BP 120/80"})).await;
    server.ok("medication_check", json!({"medications": [{"name": "aspirin"}]})).await;
    let question = json!({"prompt": "Why?", "analysis_type": "general"});
    sandbox.faults().next(ANALYZE, Fault::Status(402));
    server.error("health_analyze", question.clone()).await;
    sandbox.faults().next(ANALYZE, Fault::Drop);
    server.error("health_analyze", question).await;
    server.end().await;
    assert_eq!(place.run(&["keys", "create", "ci"]).await.0, Some(0));
    (sandbox, place)
}

async fn tools(place: &Place, filters: &[&str]) -> Vec<String> {
    let (code, out, err) = place.run(&[&["audit", "--json"], filters].concat()).await;
    assert_eq!(code, Some(0), "{err}");
    out.lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["tool"].as_str().unwrap().into())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_are_filtered_by_tool_outcome_and_time() {
    let (_sandbox, place) = with_entries().await;
    let all = tools(&place, &[]).await;
    assert_eq!(all.len(), 6);
    let some = tools(&place, &["--tool", "keys,list_models"]).await;
    assert_eq!(some, ["list_models", "keys"]);
    assert_eq!(tools(&place, &["--outcome", "insufficient_credits"]).await, ["health_analyze"]);
    assert_eq!(tools(&place, &["--outcome", "failed"]).await, ["health_analyze", "health_analyze"]);
    assert_eq!(tools(&place, &["--outcome", "ok", "--tool", "health_analyze"]).await, [""; 0]);
    assert_eq!(tools(&place, &["--since", "1h"]).await, all);
    let tomorrow = (Utc::now() + TimeDelta::days(1)).to_rfc3339();
    assert_eq!(tools(&place, &["--since", &tomorrow]).await, [""; 0]);
    let (code, told, _) = place.run(&["audit", "--since", &tomorrow]).await;
    assert_eq!((code, told.as_str()), (Some(0), "No such entries.\n"));
    let (code, _, err) = place.run(&["audit", "--tool", "keys,medication_chek"]).await;
    assert!(code == Some(2) && err.contains("medication_chek; there are"), "{err}");
    for known in ["medication_check", "keys", "authorize", "grant"] {
        assert!(err.contains(known), "{known}: {err}");
    }
    assert_eq!(tools(&place, &["--outcome", "rate_limited,cancelled"]).await, [""; 0]);
    let (code, _, err) = place.run(&["audit", "--outcome", "rate_limit"]).await;
    assert!(code == Some(2) && err.contains("rate_limit; there are"), "{err}");
    for known in ["rate_limited", "ok", "failed", "cancelled", "replay"] {
        assert!(err.contains(known), "{known}: {err}");
    }
    let (code, _, err) = place.run(&["audit", "--since", "yesterday"]).await;
    assert!(code == Some(2) && err.contains("7d"), "{err}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_line_sums_what_was_asked_for() {
    let (_sandbox, place) = with_entries().await;
    let last = async |filters: &[&str]| {
        let (_, table, _) = place.run(&[&["audit"], filters].concat()).await;
        table.lines().last().unwrap().to_owned()
    };
    assert_eq!(last(&[]).await, "6 entries; cost $0.11, and 1 possibly billed without an answer");
    assert_eq!(last(&["--tool", "medication_check"]).await, "1 entry; cost $0.03");
    assert_eq!(last(&["--tool", "keys"]).await, "1 entry; cost $0.00");
    assert_eq!(last(&["--outcome", "ok", "--lines", "1"]).await, "4 entries, the newest 1 shown; cost $0.11");
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_are_followed_as_other_processes_write_them() {
    let (_sandbox, place) = with_entries().await;
    for json in [true, false] {
        let mut command = place.command(&["audit", "--follow", "--tool", "keys", "--lines", "0"]);
        if json {
            command.arg("--json");
        }
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut next = async || within(lines.next_line()).await.unwrap().unwrap();
        if json {
            // Nothing is printed before there is an entry, so the follower may not have started yet.
            let created = async || assert_eq!(place.run(&["keys", "create", "followed"]).await.0, Some(0));
            let line = async {
                loop {
                    tokio::select! {
                        line = next() => break line,
                        () = created() => {}
                    }
                }
            };
            let entry: Value = serde_json::from_str(&within(line).await).unwrap();
            assert_eq!((&entry["tool"], &entry["action"]), (&json!("keys"), &json!("create")));
        } else {
            assert!(next().await.starts_with("TIME (UTC)"));
            assert_eq!(place.run(&["keys", "use"]).await.0, Some(0));
            assert!(next().await.contains("keys use"));
            // It ends when nobody reads any more.
            drop(lines);
            let written = async {
                loop {
                    assert_eq!(place.run(&["keys", "use"]).await.0, Some(0));
                    if let Some(status) = child.try_wait().unwrap() {
                        break status;
                    }
                }
            };
            assert_eq!(within(written).await.code(), Some(0));
        }
    }
}
