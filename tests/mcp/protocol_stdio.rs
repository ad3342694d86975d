//! MCP over stdio, byte by byte: the behaviour of rmcp and of this server, so that an upgrade that changes it is
//! noticed.

use crate::common::{
    Place, in_process, like_the_seed,
    raw::{Raw, call, initialize, modern},
    sandbox, signed_in, within,
};
use bondmcp_server::{bondmcp::Timing, sandbox::Fault, transport::stdio};
use serde_json::{Value, json};
use std::{
    collections::BTreeSet,
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, duplex},
    process::Child,
    time,
};
use tokio_util::sync::CancellationToken;

const MODELS: &str = "GET /health-ai/models";

fn is_ours(identity: &Value) {
    assert_eq!(identity["name"], "bondmcp-server");
    assert_eq!(identity["title"], "BondMCP");
    assert_eq!(identity["version"], env!("CARGO_PKG_VERSION"));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_older_version_is_served_under_our_own_name() {
    let (_sandbox, place) = signed_in().await;
    for version in ["2025-06-18", "2025-11-25"] {
        let mut raw = Raw::start(&place);
        let answer = raw.initialize(version).await;
        assert_eq!(answer["result"]["protocolVersion"], version);
        is_ours(&answer["result"]["serverInfo"]);
        assert!(answer["result"]["instructions"].as_str().unwrap().contains("never"));
        let answer = raw.ask(call(2, "list_models", json!({}))).await;
        assert_eq!(answer["result"]["structuredContent"]["count"], 3);
        assert!(answer["result"].get("resultType").is_none(), "{answer}");
        assert_eq!(raw.end().await, Some(0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_stateless_version_is_served_without_a_handshake() {
    let (_sandbox, place) = signed_in().await;
    let mut raw = Raw::start(&place);
    let answer = raw.ask(modern(1, "server/discover", json!({}))).await;
    is_ours(&answer["result"]["_meta"]["io.modelcontextprotocol/serverInfo"]);
    assert_eq!(answer["result"]["cacheScope"], "public");
    let answer = raw.ask(modern(2, "tools/list", json!({}))).await;
    is_ours(&answer["result"]["_meta"]["io.modelcontextprotocol/serverInfo"]);
    assert!(answer["result"]["ttlMs"].as_u64().unwrap() > 0);
    let answer = raw.ask(modern(3, "tools/call", json!({"name": "list_models", "arguments": {}}))).await;
    assert_eq!(answer["result"]["resultType"], "complete");
    assert_eq!(answer["result"]["structuredContent"]["count"], 3);
    assert_eq!(raw.end().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_only_probes_leaves_a_clean_exit() {
    let (_sandbox, place) = signed_in().await;
    let mut raw = Raw::start(&place);
    raw.ask(modern(1, "server/discover", json!({}))).await;
    assert_eq!(raw.end().await, Some(0));
    assert_eq!(Raw::start(&place).end().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_before_the_first_request_do_not_end_the_server() {
    let (_sandbox, place) = signed_in().await;
    let mut raw = Raw::start(&place);
    raw.send(r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#).await;
    raw.send(r#"{"jsonrpc":"2.0","id":9,"result":{}}"#).await;
    raw.initialize("2025-11-25").await;
    assert_eq!(raw.end().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_lines_are_answered_and_the_next_request_works() {
    let (_sandbox, place) = signed_in().await;
    let mut raw = Raw::start(&place);
    raw.initialize("2025-11-25").await;
    for (line, code) in [
        ("{malformed".to_owned(), -32700),
        (format!(r#"{{"jsonrpc":"2.0","id":5,"method":"{}"}}"#, "x".repeat(10_000_000)), -32600),
        (r#""just text""#.to_owned(), -32600),
        (r#"{"jsonrpc":"2.0","id":5}"#.to_owned(), -32600),
        ("[]".to_owned(), -32600),
    ] {
        raw.send(&line).await;
        let answer = raw.next().await;
        assert_eq!(answer["error"]["code"], code, "{answer}");
    }
    // It would take many times as much memory.
    let dense = json!(vec![json!({"": 0}); 100_000]);
    let answer = raw.ask(call(5, "list_models", dense.clone())).await;
    assert_eq!((&answer["id"], &answer["error"]["code"]), (&json!(5), &json!(-32600)), "{answer}");
    let ignored = json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"reason": dense}});
    raw.send(&ignored.to_string()).await;
    raw.send("").await;
    raw.send(r#"{"jsonrpc":"2.0","method":"notifications/of/somebody/else"}"#).await;
    let answer = raw.ask(call(6, "list_models", json!({}))).await;
    assert_eq!((answer["id"].as_u64(), answer["result"]["isError"].as_bool()), (Some(6), Some(false)));
    assert_eq!(raw.end().await, Some(0));
}

/// Its log is lost, and nothing else.
#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_does_not_read_stderr_is_served() {
    let (_sandbox, place) = signed_in().await;
    let mut raw = Raw::with_stderr(&place, Stdio::piped());
    raw.initialize("2025-11-25").await;
    for id in 2..1000 {
        let answer = raw.ask(call(id, "no_such_tool", json!({}))).await;
        assert_eq!(answer["error"]["code"], -32602, "{answer}");
    }
    let mut stderr = raw.child.stderr.take().unwrap();
    assert_eq!(raw.end().await, Some(0));
    let mut log = String::new();
    within(stderr.read_to_string(&mut log)).await.unwrap();
    assert!(log.len() > 50_000, "the pipe was filled: {} bytes", log.len());
}

/// A host that probes the server gives up and begins anew. Nothing of that is repeated on stderr.
#[tokio::test(flavor = "multi_thread")]
async fn notifications_between_a_probe_and_the_first_request_end_nothing() {
    let (_sandbox, place) = signed_in().await;
    let gone = json!({"jsonrpc": "2.0", "method": "notifications/cancelled",
        "params": {"requestId": 1, "reason": "hunter2-marker"}});
    let answer = json!({"jsonrpc": "2.0", "id": 7, "result": {"hunter2-marker": 1}});
    let mut of_the_future = modern(1, "tools/list", json!({}));
    of_the_future["params"]["_meta"]["io.modelcontextprotocol/protocolVersion"] = json!("2999-01-01");
    for probe in [
        json!({"jsonrpc": "2.0", "id": 1, "method": "ping"}),
        json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list"}),
        modern(1, "server/discover", json!({})),
        of_the_future,
    ] {
        let log = place.directory.path().join("stderr");
        let mut raw = Raw::with_stderr(&place, std::fs::File::create(&log).unwrap().into());
        assert_eq!(raw.ask(probe.clone()).await["id"], 1);
        raw.send(&gone.to_string()).await;
        raw.send(&answer.to_string()).await;
        raw.initialize("2025-11-25").await;
        let models = raw.ask(call(6, "list_models", json!({}))).await;
        assert_eq!(models["result"]["isError"], false, "{probe}: {models}");
        assert_eq!(raw.end().await, Some(0), "{probe}");
        let log = std::fs::read_to_string(log).unwrap();
        assert!(!log.is_empty() && !log.contains("hunter2-marker"), "{log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_tool_call_is_a_protocol_error() {
    let (_sandbox, place) = signed_in().await;
    let mut raw = Raw::start(&place);
    raw.initialize("2025-11-25").await;
    for (request, code) in [
        (call(2, "no_such_tool", json!({})), -32602),
        (call(3, "list_models", json!("text")), -32602),
        (call(4, "list_models", json!([1])), -32602),
        (json!({"jsonrpc": "2.0", "id": 5, "method": "tools/call", "params": {}}), -32602),
        (json!({"jsonrpc": "2.0", "id": 6, "method": "no/such/method"}), -32601),
        (json!({"jsonrpc": "2.0", "id": 7, "method": "tools/list", "params": {"cursor": "x"}}), -32602),
    ] {
        let id = request["id"].clone();
        let answer = raw.ask(request).await;
        assert_eq!((&answer["id"], &answer["error"]["code"]), (&id, &json!(code)), "{answer}");
    }
    assert_eq!(raw.end().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_arguments_are_a_result_that_names_them_and_repeats_nothing() {
    let (_sandbox, place) = signed_in().await;
    let mut raw = Raw::start(&place);
    raw.initialize("2025-11-25").await;
    for (tool, arguments, named) in [
        ("login", json!({"password": "hunter2-marker"}), "password"),
        ("list_models", json!({"refresh": "hunter2-marker"}), "refresh"),
        ("manage_api_keys", json!({"action": "hunter2-marker"}), "action"),
        ("manage_api_keys", json!({}), "action"),
        ("manage_api_keys", json!({"action": "create"}), "name"),
        ("manage_api_keys", json!({"action": "list", "name": "hunter2-marker"}), "name"),
        ("manage_api_keys", json!({"action": "create", "name": "x\nhunter2-marker"}), "name"),
        ("manage_api_keys", json!({"action": "revoke"}), "key_id"),
        ("login", json!({"email": "x; hunter2-marker"}), "email"),
    ] {
        let answer = raw.ask(call(2, tool, arguments)).await;
        let text = answer["result"]["content"][0]["text"].as_str().unwrap();
        let error = crate::common::json_of(text);
        assert_eq!(
            (&answer["result"]["isError"], &error["error"]["kind"]),
            (&json!(true), &json!("invalid_input"))
        );
        assert!(text.contains(named) && !answer.to_string().contains("hunter2"), "{answer}");
        assert!(error["error"]["solution"].as_str().unwrap().len() > 10);
    }
    assert_eq!(raw.end().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_call_cancels_its_upstream_request_and_is_not_answered() {
    let (sandbox, place) = signed_in().await;
    let mut raw = Raw::start(&place);
    raw.initialize("2025-11-25").await;
    sandbox.faults().next(MODELS, Fault::Hang);
    raw.send(&call(2, "list_models", json!({})).to_string()).await;
    within(sandbox.faults().arrived(MODELS, 1)).await;
    let cancel = json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 2}});
    raw.send(&cancel.to_string()).await;
    within(sandbox.faults().abandoned(MODELS, 1)).await;
    let answer = raw.ask(call(3, "list_models", json!({}))).await;
    assert_eq!(answer["id"], 3);
    assert_eq!(raw.end().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_stdin_ends_a_server_whose_call_hangs() {
    let (sandbox, place) = signed_in().await;
    let mut raw = Raw::start(&place);
    raw.initialize("2025-11-25").await;
    sandbox.faults().always(MODELS, Fault::Hang);
    raw.send(&call(2, "list_models", json!({})).to_string()).await;
    within(sandbox.faults().arrived(MODELS, 1)).await;
    raw.input.take();
    assert_eq!(within(raw.child.wait()).await.unwrap().code(), Some(0));
    within(sandbox.faults().abandoned(MODELS, 1)).await;
}

fn request(id: u64, method: &str) -> String {
    json!({"jsonrpc": "2.0", "id": id, "method": method}).to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_stdin_or_a_signal_ends_a_server_whose_answers_are_not_read() {
    let (sandbox, place) = signed_in().await;
    sandbox.faults().always(MODELS, Fault::Hang);
    for (count, signal) in [(1, None), (2, Some("TERM"))] {
        let mut raw = Raw::start(&place);
        raw.initialize("2025-11-25").await;
        // Together they are many times larger than the pipe.
        for id in 2..30 {
            raw.send(&request(id, "tools/list")).await;
        }
        // Requests are taken in their order.
        raw.send(&call(30, "list_models", json!({})).to_string()).await;
        within(sandbox.faults().arrived(MODELS, count)).await;
        match signal {
            Some(signal) => kill(&raw.child, signal),
            None => drop(raw.input.take()),
        }
        assert_eq!(within(raw.child.wait()).await.unwrap().code(), Some(0), "{signal:?}");
    }
}

/// Its requests wait in the pipe, so that the answers do not fill the memory. Once it reads, all are answered.
#[tokio::test]
async fn a_host_that_does_not_read_is_not_read() {
    let sandbox = sandbox(like_the_seed()).await;
    // Few large answers, and many small ones.
    for (method, last) in [("tools/list", 1000), ("ping", 20_000)] {
        let (server, _stopping) = in_process(&Place::new(&sandbox), Timing::default());
        let (mut output, theirs) = duplex(1 << 10);
        let (ours, answers) = duplex(1 << 16);
        let owner = server.local_owner();
        let serving = tokio::spawn(stdio::serve(server, owner, theirs, answers, CancellationToken::new()));
        let mut lines = BufReader::new(ours).lines();
        output.write_all(format!("{}\n", initialize("2025-11-25", json!({}))).as_bytes()).await.unwrap();
        within(lines.next_line()).await.unwrap().unwrap();
        // From here the clock moves only when nobody has anything left to do.
        time::pause();
        let sent = Arc::new(AtomicU64::new(1));
        let sending = tokio::spawn({
            let sent = Arc::clone(&sent);
            async move {
                for id in 2..=last {
                    output.write_all(format!("{}\n", request(id, method)).as_bytes()).await.unwrap();
                    sent.store(id, Ordering::Relaxed);
                }
            }
        });
        time::sleep(Duration::from_secs(1)).await;
        let taken = sent.load(Ordering::Relaxed);
        assert!(taken < last / 4 * 3, "{taken} requests were taken: {method}");
        let mut answered = BTreeSet::new();
        for _ in 2..=last {
            let line = within(lines.next_line()).await.unwrap().unwrap();
            answered.insert(serde_json::from_str::<Value>(&line).unwrap()["id"].as_u64().unwrap());
        }
        assert!(answered.into_iter().eq(2..=last));
        within(sending).await.unwrap();
        within(serving).await.unwrap().unwrap();
        time::resume();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_piped_in_at_once_are_answered_before_the_end() {
    let (_sandbox, place) = signed_in().await;
    let mut raw = Raw::start(&place);
    raw.send(&initialize("2025-11-25", json!({})).to_string()).await;
    raw.send(r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#).await;
    raw.send(&call(2, "list_models", json!({})).to_string()).await;
    raw.input.take();
    assert_eq!(raw.next().await["id"], 1);
    assert_eq!(raw.next().await["result"]["structuredContent"]["count"], 3);
    assert_eq!(within(raw.child.wait()).await.unwrap().code(), Some(0));
}

fn kill(child: &Child, signal: &str) {
    let pid = child.id().unwrap().to_string();
    assert!(std::process::Command::new("kill").args(["-s", signal, &pid]).status().unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_ends_the_server_with_a_call_in_flight() {
    let (sandbox, place) = signed_in().await;
    for (count, signal) in [(1, "TERM"), (2, "INT")] {
        let mut raw = Raw::start(&place);
        raw.initialize("2025-11-25").await;
        sandbox.faults().always(MODELS, Fault::Hang);
        raw.send(&call(2, "list_models", json!({})).to_string()).await;
        within(sandbox.faults().arrived(MODELS, count)).await;
        kill(&raw.child, signal);
        assert_eq!(within(raw.child.wait()).await.unwrap().code(), Some(0), "{signal}");
        within(sandbox.faults().abandoned(MODELS, count)).await;
    }
}

/// Every host keeps such a process, even if it is never used.
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_calls_has_one_thread_and_opens_no_vault() {
    let (_sandbox, place) = signed_in().await;
    let mut raw = Raw::start(&place);
    raw.initialize("2025-11-25").await;
    raw.ask(json!({"jsonrpc": "2.0", "id": 2, "method": "tools/list"})).await;
    let process = std::path::PathBuf::from(format!("/proc/{}", raw.child.id().unwrap()));
    let entries =
        |name: &str| std::fs::read_dir(process.join(name)).unwrap().map(|entry| entry.unwrap().path());
    assert_eq!(entries("task").count(), 1);
    for file in entries("fd").filter_map(|link| std::fs::read_link(link).ok()) {
        assert!(!file.starts_with(place.data_dir()), "{}", file.display());
    }
    assert_eq!(raw.end().await, Some(0));
}
