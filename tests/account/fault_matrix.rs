//! Every tool with every injected fault of BondMCP: the kind of failure that the agent gets, the number of requests,
//! that nothing hangs and that no secret leaves.

use std::{
    collections::BTreeSet,
    pin::pin,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use crate::common::{
    EMAIL, Place, Recorded, Server, fast_time::fast, host, in_process, like_the_seed, request, sandbox,
    secrets, services::SERVICES, within,
};
use bondmcp_server::{
    bondmcp::Timing,
    sandbox::{Fault, RunningSandbox},
};
use futures_util::future::{Either, join_all, select};
use rmcp::{ServiceExt as _, model::CallToolResult};
use serde_json::{Value, json};

/// Threads that work on cases. Most cases wait most of the time.
const WORKERS: usize = 8;

/// The way in which a tool makes its requests.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Manner {
    /// A read: repeated if that may help.
    Read,
    /// A change: requested once.
    Write,
    /// A billed call: repeated only if it was certainly not processed.
    Billed,
    /// Logs in first, with the credentials in the environment.
    LogIn,
    /// Optional: the tool works without the answer.
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

/// A fault, whether it lasts, and the expected result: the kind, and the number of requests of a read, a change and a
/// billed call.
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
        (Fault::Hang, true, "timeout", [2, 1, 1]),
    ]
}

/// The expected result of a fault in a row, where it differs from that of its manner.
fn expected(row: &Row, (fault, _, kind, requests): &Column) -> (&'static str, u64) {
    let requests = match row.manner {
        Manner::Read => requests[0],
        Manner::Write | Manner::LogIn => requests[1],
        Manner::Billed => requests[2],
        Manner::Courtesy(most) => requests[0].min(most),
    };
    match (row.manner, row.endpoint, fault) {
        (Manner::Courtesy(_), _, Fault::Hang) => ("ok", 1),
        (Manner::Courtesy(_), ..) => ("ok", requests),
        // The client asks whether the key exists, and gets no answer.
        (Manner::Write, "POST /auth/api-keys", Fault::Hang) => ("upstream_unavailable", requests),
        // A rejected password is not tried again, so that no account is locked. A key that does not exist, or an answer
        // without required content, counts as a successful revocation.
        (Manner::LogIn, _, Fault::Status(401 | 403 | 422) | Fault::Echo)
        | (_, "DELETE /auth/api-keys/{id}", Fault::Status(404) | Fault::OtherShape) => ("ok", 1),
        _ => (kind, requests),
    }
}

fn kind(result: &CallToolResult) -> String {
    if result.is_error != Some(true) {
        return "ok".to_owned();
    }
    crate::common::error_of(result)["kind"].as_str().unwrap().to_owned()
}

/// One case: `row` against `column`.
struct Case<'a> {
    row: &'a Row,
    column: &'a Column,
    sandbox: RunningSandbox,
    place: Place,
}

impl<'a> Case<'a> {
    async fn new(row: &'a Row, column: &'a Column) -> Self {
        let sandbox = sandbox(like_the_seed()).await;
        let place = Place::new(&sandbox);
        Self { row, column, sandbox, place }
    }

    /// Injects the fault, makes the call and returns the deviations.
    async fn problem(&self, call: impl AsyncFnOnce(&'static str, Value) -> CallToolResult) -> Option<String> {
        let (row, (fault, lasts, ..)) = (self.row, self.column);
        let before = self.sandbox.count(row.endpoint);
        if *lasts {
            self.sandbox.faults().always(row.endpoint, fault.clone());
        } else {
            self.sandbox.faults().next(row.endpoint, fault.clone());
        }
        let id = self.sandbox.live_keys(EMAIL).first().map(|(id, _)| id.clone()).unwrap_or_default();
        let result = call(row.tool, (row.arguments)(&id)).await;
        let seen = (kind(&result), self.sandbox.count(row.endpoint) - before);
        let expected = expected(row, self.column);
        ((seen.0.as_str(), seen.1) != expected).then(|| {
            let result = serde_json::to_string(&result).unwrap();
            format!("{self}: {seen:?} and not {expected:?}: {result}")
        })
    }

    fn assert_no_secret(&self, written: &[u8]) {
        let mut planted = self.sandbox.secrets_issued();
        planted.extend([self.place.password.clone(), self.place.sealing_key.clone()]);
        secrets::assert_absent(&planted, written, &self.to_string());
    }
}

impl std::fmt::Display for Case<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {} × {:?}", self.row.tool, self.row.endpoint, self.column.0)
    }
}

/// One case in this process, where time runs fast.
async fn in_this_process(row: &Row, column: &Column) -> Option<String> {
    let case = Case::new(row, column).await;
    let (server, stopping) = in_process(&case.place, Timing::default());
    let (ours, theirs) = tokio::io::duplex(1 << 16);
    let serving = tokio::spawn(crate::common::serve(server, ours));
    let (input, output) = tokio::io::split(theirs);
    let seen = Arc::new(Mutex::new(Vec::new()));
    let client = host().serve((Recorded { input, seen: Arc::clone(&seen) }, output)).await.unwrap();
    let call = async |tool, arguments| client.call_tool(request(tool, arguments)).await.unwrap();
    if row.manner != Manner::LogIn {
        call("manage_api_keys", json!({"action": "create", "name": "ci"})).await;
    }
    let faults = case.sandbox.faults();
    let arrived = case.sandbox.count(row.endpoint) + 1;
    let call = async |tool, arguments| {
        // Until the first request to BondMCP only the vault is waited for, which takes real time.
        match select(pin!(call(tool, arguments)), pin!(faults.arrived(row.endpoint, arrived))).await {
            Either::Left((result, _)) => result,
            Either::Right(((), call)) => fast(call).await,
        }
    };
    let problem = case.problem(async |tool, arguments| Box::pin(within(call(tool, arguments))).await).await;
    client.cancel().await.unwrap();
    stopping.cancel();
    serving.await.unwrap().unwrap();
    case.assert_no_secret(&seen.lock().unwrap());
    problem
}

/// One case over the binary, whose log is searched as well.
async fn over_the_binary(row: &Row, column: &Column) -> Option<String> {
    let case = Case::new(row, column).await;
    let mut command = case.place.command(&["--log", "trace", "stdio"]);
    if row.manner == Manner::LogIn {
        command.env("BONDMCP_EMAIL", EMAIL).env("BONDMCP_PASSWORD", secrets::text(&case.place.password));
    } else {
        case.place.sign_in().await;
        assert_eq!(case.place.run(&["keys", "create", "--name", "ci"]).await.0, Some(0));
    }
    let server = Server::spawn(&mut command).await;
    let problem = case.problem(async |tool, arguments| server.call(tool, arguments).await.unwrap()).await;
    case.assert_no_secret(&server.end().await);
    problem
}

#[tokio::test(flavor = "multi_thread")]
async fn every_tool_has_a_row() {
    let sandbox = sandbox(like_the_seed()).await;
    let server = Server::start(&Place::new(&sandbox)).await;
    let tools = server.client.list_all_tools().await.unwrap();
    let listed: BTreeSet<&str> = tools.iter().map(|tool| tool.name.as_ref()).collect();
    assert_eq!(rows().iter().map(|row| row.tool).collect::<BTreeSet<_>>(), listed);
}

/// A case has one thread at a time, because only such a runtime's clock can run fast.
#[test]
fn every_tool_against_every_fault() {
    let (rows, columns) = (rows(), columns());
    let cases = Mutex::new(rows.iter().flat_map(|row| columns.iter().map(move |column| (row, column))));
    let work = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let next = || cases.lock().unwrap().next();
        std::iter::from_fn(next)
            .filter_map(|(row, column)| runtime.block_on(in_this_process(row, column)))
            .collect::<Vec<_>>()
    };
    let problems: Vec<String> = std::thread::scope(|threads| {
        let workers: Vec<_> = (0..WORKERS).map(|_| threads.spawn(work)).collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
    });
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

/// Every row and every column at least once, except the one that only a time-out ends.
#[tokio::test(flavor = "multi_thread")]
async fn a_diagonal_of_the_matrix_over_the_binary() {
    let (rows, mut columns) = (rows(), columns());
    columns.retain(|(fault, ..)| !matches!(fault, Fault::Hang));
    let cases = columns.iter().zip(rows.iter().cycle()).map(|(column, row)| over_the_binary(row, column));
    let problems: Vec<String> = join_all(cases).await.into_iter().flatten().collect();
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}
