//! Every tool against every way in which BondMCP may fail: what kind of failure the agent is told, how often BondMCP was
//! asked, that nothing hangs and that no secret leaves.
#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![recursion_limit = "256"]

mod common;

use std::time::{Duration, SystemTime};

use bondmcp_server::{
    bondmcp::Timing,
    sandbox::{Fault, RunningSandbox},
};
use common::{
    EMAIL, Place, Server, in_process, like_the_seed, request, sandbox, secrets, services::SERVICES, within,
};
use rmcp::{ServiceExt as _, model::CallToolResult};
use serde_json::{Value, json};

/// How a tool asks.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Manner {
    /// Asked again where that may help.
    Read,
    /// Changes something: asked once.
    Write,
    /// Costs money: asked again only when it was certainly not processed.
    Billed,
    /// Logs in first, with what the environment holds.
    LogIn,
    /// Works without the answer, which it only would be nice to have.
    Courtesy(u64),
}

struct Row {
    tool: &'static str,
    endpoint: &'static str,
    manner: Manner,
    /// From the id of a key named `ci`.
    arguments: Box<dyn Fn(&str) -> Value + Send + Sync>,
}

fn rows() -> Vec<Row> {
    let row = |tool, endpoint, manner, arguments: fn(&str) -> Value| Row {
        tool,
        endpoint,
        manner,
        arguments: Box::new(arguments),
    };
    let mut rows = vec![
        row("list_models", "GET /health-ai/models", Manner::Read, |_| json!({ "refresh": true })),
        row("manage_api_keys", "GET /auth/api-keys", Manner::Read, |_| json!({ "action": "list" })),
        row(
            "manage_api_keys",
            "GET /api/v1/api-keys/usage/{id}",
            Manner::Read,
            |id| json!({"action": "usage", "key_id": id}),
        ),
        row(
            "manage_api_keys",
            "POST /auth/api-keys",
            Manner::Write,
            |_| json!({"action": "create", "name": "another"}),
        ),
        row(
            "manage_api_keys",
            "DELETE /auth/api-keys/{id}",
            Manner::Write,
            |id| json!({"action": "revoke", "key_id": id, "confirm": "ci"}),
        ),
        row("login", "POST /auth/login", Manner::LogIn, |_| json!({})),
        row("register", "POST /auth/login", Manner::LogIn, |_| json!({})),
        row("auth_status", "GET /auth/me", Manner::Courtesy(3), |_| json!({})),
        row("logout", "POST /auth/logout", Manner::Courtesy(1), |_| json!({})),
    ];
    rows.extend(SERVICES.map(|(tool, endpoint, arguments, _)| Row {
        tool,
        endpoint,
        manner: Manner::Billed,
        arguments: Box::new(move |_| arguments()),
    }));
    rows
}

/// A fault, whether it lasts, and what comes of it: kind, and requests of a read, a change and a billed call.
type Column = (Fault, bool, &'static str, [u64; 3]);

fn columns() -> Vec<Column> {
    let in_an_hour = httpdate::fmt_http_date(SystemTime::now() + Duration::from_hours(1));
    let later = |seconds: &str| Some(seconds.to_owned());
    vec![
        (Fault::Status(401), false, "ok", [2, 2, 2]),
        (Fault::Status(401), true, "invalid_credentials", [2, 2, 2]),
        (Fault::Status(402), true, "insufficient_credits", [1, 1, 1]),
        (Fault::Status(403), true, "forbidden", [1, 1, 1]),
        (Fault::Status(404), true, "not_found", [1, 1, 1]),
        (Fault::Status(409), true, "conflict", [1, 1, 1]),
        (Fault::Status(422), true, "invalid_input", [1, 1, 1]),
        (Fault::TooMany(None), true, "rate_limited", [3, 1, 3]),
        (Fault::TooMany(later("1")), true, "rate_limited", [3, 1, 3]),
        (Fault::TooMany(later("3600")), true, "rate_limited", [1, 1, 1]),
        (Fault::TooMany(Some(in_an_hour)), true, "rate_limited", [1, 1, 1]),
        (Fault::Status(500), true, "upstream_unavailable", [3, 1, 1]),
        (Fault::Html(502), true, "upstream_unavailable", [3, 1, 1]),
        (Fault::Status(503), true, "upstream_unavailable", [3, 1, 1]),
        (Fault::Busy("1".to_owned()), true, "upstream_unavailable", [3, 1, 3]),
        (Fault::Busy("3600".to_owned()), true, "upstream_unavailable", [1, 1, 1]),
        (Fault::Drop, true, "upstream_unavailable", [3, 1, 1]),
        (Fault::DropMidBody, true, "upstream_unavailable", [3, 1, 1]),
        (Fault::NotJson, true, "upstream_unavailable", [1, 1, 1]),
        (Fault::OtherShape, true, "upstream_unavailable", [1, 1, 1]),
        (Fault::Oversize, true, "upstream_unavailable", [1, 1, 1]),
        (Fault::Echo, true, "invalid_input", [1, 1, 1]),
        (Fault::Redirect("http://127.0.0.1:9/".to_owned()), true, "upstream_unavailable", [1, 1, 1]),
    ]
}

/// What comes of a fault in a row, where that is not what its manner says.
fn expected(row: &Row, (fault, _, kind, requests): &Column) -> (&'static str, u64) {
    let requests = match row.manner {
        Manner::Read => requests[0],
        Manner::Write | Manner::LogIn => requests[1],
        Manner::Billed => requests[2],
        Manner::Courtesy(most) => requests[0].min(most),
    };
    match (row.manner, row.endpoint, fault) {
        (Manner::Courtesy(_), ..) => ("ok", requests),
        // A password that was refused is not tried again, so that no account is locked; and a key that is gone, or an
        // answer that says nothing that is needed, is as good as having ended it.
        (Manner::LogIn, _, Fault::Status(401))
        | (_, "DELETE /auth/api-keys/{id}", Fault::Status(404) | Fault::OtherShape) => ("ok", 1),
        _ => (kind, requests),
    }
}

fn kind(result: &CallToolResult) -> String {
    if result.is_error != Some(true) {
        return "ok".to_owned();
    }
    common::error_of(result)["kind"].as_str().unwrap().to_owned()
}

/// A person's computer with a key named `ci`, whose id is given.
async fn place(sandbox: &RunningSandbox, row: &Row) -> (Place, String) {
    let place = Place::new(sandbox);
    if row.manner == Manner::LogIn {
        return (place, String::new());
    }
    place.sign_in().await;
    assert_eq!(place.run(&["keys", "create", "--name", "ci"]).await.0, Some(0));
    (place, sandbox.live_keys(EMAIL)[0].0.clone())
}

/// One row; what is not as expected.
async fn row_problems(row: Row) -> Vec<String> {
    let mut problems = Vec::new();
    for column in columns() {
        let (fault, lasts, ..) = &column;
        let sandbox = sandbox(like_the_seed()).await;
        let (place, id) = place(&sandbox, &row).await;
        let mut command = place.command(&["--log", "trace", "stdio"]);
        if row.manner == Manner::LogIn {
            command.env("BONDMCP_EMAIL", EMAIL).env("BONDMCP_PASSWORD", secrets::text(&place.password));
        }
        let server = Server::spawn(&mut command).await;
        let before = sandbox.count(row.endpoint);
        if *lasts {
            sandbox.faults().always(row.endpoint, fault.clone());
        } else {
            sandbox.faults().next(row.endpoint, fault.clone());
        }
        let result = server.call(row.tool, (row.arguments)(&id)).await.unwrap();
        let seen = (kind(&result), sandbox.count(row.endpoint) - before);
        let (expected_kind, expected_requests) = expected(&row, &column);
        if (seen.0.as_str(), seen.1) != (expected_kind, expected_requests) {
            problems.push(format!(
                "{} {} × {fault:?}: {seen:?} and not {:?}: {}",
                row.tool,
                row.endpoint,
                (expected_kind, expected_requests),
                serde_json::to_string(&result).unwrap()
            ));
        }
        let mut planted = sandbox.secrets_issued();
        planted.extend([place.password.clone(), place.sealing_key.clone()]);
        secrets::assert_absent(&planted, &server.end().await, &format!("{} × {fault:?}", row.tool));
    }
    problems
}

#[tokio::test(flavor = "multi_thread")]
async fn every_tool_against_every_fault() {
    let rows = rows().into_iter().map(|row| tokio::spawn(row_problems(row)));
    let problems: Vec<String> =
        futures_util::future::join_all(rows).await.into_iter().flat_map(|row| row.unwrap()).collect();
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

/// In this process, where the deadlines can be short.
#[tokio::test(flavor = "multi_thread")]
async fn no_tool_hangs_when_bondmcp_does() {
    let timing = Timing {
        request: Duration::from_secs(1),
        billed: Duration::from_secs(1),
        deadline: Duration::from_secs(2),
        ..Timing::default()
    };
    for row in rows() {
        let sandbox = sandbox(like_the_seed()).await;
        let place = Place::new(&sandbox);
        let (server, stopping) = in_process(&place, timing);
        let (ours, theirs) = tokio::io::duplex(1 << 16);
        let serving = tokio::spawn(async move { server.serve(ours).await.unwrap().waiting().await });
        let client = ().serve(theirs).await.unwrap();
        let call = async |tool, arguments| within(client.call_tool(request(tool, arguments))).await.unwrap();
        let mut id = String::new();
        if row.manner != Manner::LogIn {
            let made = call("manage_api_keys", json!({"action": "create", "name": "ci"})).await;
            id = made.structured_content.unwrap()["keys"][0]["id"].as_str().unwrap().to_owned();
        }
        let before = sandbox.count(row.endpoint);
        sandbox.faults().always(row.endpoint, Fault::Hang);
        let result = call(row.tool, (row.arguments)(&id)).await;
        let (kind, requests) = (kind(&result), sandbox.count(row.endpoint) - before);
        match row.manner {
            Manner::Courtesy(_) => assert_eq!(kind, "ok", "{} {result:?}", row.tool),
            Manner::Read => {
                assert_eq!(kind, "timeout", "{} {result:?}", row.endpoint);
                assert!((1..=3).contains(&requests), "{} {requests}", row.endpoint);
            }
            Manner::Write if row.endpoint.starts_with("POST") => {
                assert_eq!((kind.as_str(), requests), ("upstream_unavailable", 1), "{result:?}");
            }
            _ => assert_eq!((kind.as_str(), requests), ("timeout", 1), "{} {result:?}", row.endpoint),
        }
        client.cancel().await.unwrap();
        stopping.cancel();
        serving.await.unwrap().unwrap();
    }
}
