use super::*;

use rmcp::{
    ServiceExt as _,
    model::{CallToolResult, Tool},
};
use tokio_util::sync::CancellationToken;

use crate::{
    account::{Accounts, Usd},
    bondmcp::{Client, Timing},
    clock::Clock,
    config::{Flags, Settings},
    mcp::{BondMcp, Limits, Selection, ServedTool, tools},
    redact::Redactor,
    transport,
};

static PANICS: ToolSpec = ToolSpec {
    name: "panics",
    credential: None,
    run: |_| Box::pin(async { panic!("canary-panic") }),
    ..tools::TEMPLATE
};

/// Panics where nothing of the call is under way yet.
static PANICS_FIRST: ToolSpec = ToolSpec {
    name: "panics_first",
    credential: None,
    action: |_| panic!("canary-panic"),
    ..tools::TEMPLATE
};

static DONE: ToolSpec = ToolSpec {
    name: "done",
    credential: None,
    run: |_| Box::pin(async { Outcome::of(&JsonObject::new()) }),
    ..tools::TEMPLATE
};

static HANGS: ToolSpec = ToolSpec {
    name: "hangs",
    credential: None,
    run: |_| Box::pin(std::future::pending()),
    ..tools::TEMPLATE
};

/// Keeps the only place for twenty seconds.
static BUSY: ToolSpec = ToolSpec {
    name: "busy",
    credential: None,
    run: |_| {
        Box::pin(async {
            tokio::time::sleep(Duration::from_secs(20)).await;
            Err(ToolError::bug())
        })
    },
    ..tools::TEMPLATE
};

static BILLED: ToolSpec = ToolSpec {
    name: "billed",
    credential: None,
    price: Some(Price::cents(3)),
    run: |call| Box::pin(call.billed(async { Err::<health::Analysis, _>(account::Error::Interrupted) })),
    ..tools::TEMPLATE
};

static BILLED_PANICS: ToolSpec = ToolSpec {
    name: "billed_panics",
    run: |call| {
        Box::pin(call.billed(async {
            call.sent.set(true);
            panic!("canary-panic") as Result<health::Analysis, account::Error>
        }))
    },
    ..BILLED
};

/// Panics before it sends anything.
static BILLED_PANICS_EARLY: ToolSpec = ToolSpec {
    name: "billed_panics_early",
    run: |call| {
        Box::pin(call.billed(async { panic!("canary-panic") as Result<health::Analysis, account::Error> }))
    },
    ..BILLED
};

static BILLED_HANGS: ToolSpec = ToolSpec {
    name: "billed_hangs",
    run: |call| Box::pin(call.billed(std::future::pending::<Result<health::Analysis, account::Error>>())),
    ..BILLED
};

/// A server with tools of this test and no account.
fn server(limits: Limits) -> BondMcp {
    server_in(tempfile::tempdir().unwrap().path(), limits)
}

fn server_in(directory: &std::path::Path, limits: Limits) -> BondMcp {
    server_with(directory, None, limits)
}

/// With a vault of its own unless `vault` names one.
fn server_with(directory: &std::path::Path, vault: Option<&str>, limits: Limits) -> BondMcp {
    let flags = Flags { data_dir: Some(directory.join("data")), ..Flags::default() };
    let variable = |name: &str| match name {
        "BONDMCP_SEALING_KEY" => Some("07".repeat(32).into()),
        "BONDMCP_VAULT" => vault.map(Into::into),
        _ => None,
    };
    let settings = Settings::load(flags, None, variable).unwrap();
    let redactor = Redactor::default();
    let base_url = settings.base_url.clone();
    let client = Client::new(base_url, redactor.clone(), Clock::system(), Timing::default());
    let accounts = Accounts::new(&settings, "bondmcp-server".into(), client, Clock::system(), redactor);
    let selection = Selection::default();
    let mut server = BondMcp::new(accounts, None, &selection, limits, CancellationToken::new()).unwrap();
    let shared = Arc::get_mut(&mut server.shared).unwrap();
    for spec in [
        &PANICS,
        &PANICS_FIRST,
        &DONE,
        &HANGS,
        &BUSY,
        &BILLED,
        &BILLED_PANICS,
        &BILLED_PANICS_EARLY,
        &BILLED_HANGS,
    ] {
        let definition = Tool::new(spec.name, "of a test", JsonObject::new());
        shared.tools.insert(spec.name, ServedTool { spec, definition });
    }
    server
}

/// Makes `calls` concurrently and returns the texts of their answers.
async fn answers(server: BondMcp, calls: &[&'static str]) -> Vec<String> {
    let (ours, theirs) = tokio::io::duplex(1 << 16);
    let (input, output) = tokio::io::split(ours);
    let (owner, ended) = (server.local_owner(), CancellationToken::new());
    let serving = tokio::spawn(transport::stdio::serve(server, owner, input, output, ended));
    let client = ().serve(theirs).await.unwrap();
    let calls = calls.iter().map(|name| client.call_tool(CallToolRequestParams::new(*name)));
    let results: Vec<CallToolResult> =
        futures_util::future::join_all(calls).await.into_iter().map(Result::unwrap).collect();
    client.cancel().await.unwrap();
    serving.await.unwrap().unwrap();
    results.into_iter().map(|result| result.content[0].as_text().unwrap().text.clone()).collect()
}

#[tokio::test]
async fn a_panic_in_a_tool_is_answered_and_not_repeated() {
    let told = answers(server(Limits::default()), &["panics", "panics"]).await;
    assert!(told.iter().all(|text| text.contains("internal") && !text.contains("canary")), "{told:?}");
}

#[tokio::test]
async fn a_panic_outside_of_the_tool_is_answered_and_audited_too() {
    let directory = tempfile::tempdir().unwrap();
    let server = server_in(directory.path(), Limits::default());
    let told = answers(server.clone(), &["panics_first"]).await;
    assert!(told[0].contains("internal") && !told[0].contains("canary"), "{told:?}");
    let audit = server.shared.accounts.audit_reader();
    server.close().await;
    let entries = { audit }.read().unwrap();
    let ended: Vec<_> = entries.iter().map(|entry| (&*entry.tool, &*entry.outcome)).collect();
    assert_eq!(ended, [("panics_first", "internal")]);
}

/// A database that accepts connections and says nothing.
#[tokio::test(start_paused = true)]
async fn a_vault_that_hangs_does_not_keep_an_answer_beyond_the_deadline_and_the_audit_log_says_how_it_ended()
{
    let directory = tempfile::tempdir().unwrap();
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let vault = format!("postgres://test@{}/vault", silent.local_addr().unwrap());
    let began = Instant::now();
    for (tool, text) in [("done", "does not answer"), ("hangs", "does not answer")] {
        let server = server_with(directory.path(), Some(&vault), Limits::default());
        let told = answers(server.clone(), &[tool]).await;
        assert!(told[0].contains(r#""kind":"internal""#) && told[0].contains(text), "{told:?}");
        let audit = server.shared.accounts.audit_reader();
        server.close().await;
        let entries = { audit }.read().unwrap();
        let last = entries.last().unwrap();
        assert_eq!((&*last.tool, &*last.outcome), (tool, "internal"));
    }
    // The first call asks the vault at once, the second one when its time is over.
    let (refresh, deadline) = (Duration::from_secs(5), Limits::default().deadline);
    assert!(began.elapsed() < refresh + deadline + ANSWER_RESERVE + Duration::from_secs(1));
}

#[tokio::test]
async fn a_tool_that_hangs_is_answered_at_the_deadline() {
    let limits = Limits { deadline: Duration::from_millis(20), ..Limits::default() };
    let told = answers(server(limits), &["hangs"]).await;
    assert!(told[0].contains(r#""kind":"timeout""#), "{told:?}");
}

#[tokio::test(start_paused = true)]
async fn one_call_too_many_is_refused_at_once() {
    let limits = Limits { concurrent: 1, waiting: 1, deadline: Duration::from_secs(1), ..Limits::default() };
    let told = answers(server(limits), &["hangs", "hangs", "hangs"]).await;
    let refused = told.iter().filter(|text| text.contains(r#""kind":"rate_limited""#)).count();
    assert_eq!(refused, 1, "{told:?}");
}

#[tokio::test(start_paused = true)]
async fn a_billed_request_is_not_begun_when_waiting_for_its_turn_has_used_up_its_time() {
    let limits = Limits { concurrent: 1, ..Limits::default() };
    let told = answers(server(limits), &["busy", "billed"]).await;
    assert!(told[1].contains("nothing was billed"), "{told:?}");
}

#[tokio::test]
async fn a_panic_while_a_request_is_under_way_that_may_be_billed_says_so() {
    let told = answers(server(Limits::default()), &["billed_panics"]).await;
    assert!(told[0].contains("billed") && !told[0].contains("canary"), "{told:?}");
}

#[tokio::test]
async fn however_a_billed_call_ends_its_part_of_the_daily_limit_is_settled() {
    let directory = tempfile::tempdir().unwrap();
    let limit = Some(Usd::cents(6));
    let limits = Limits { daily_spend: limit, billed: Duration::ZERO, ..Limits::default() };
    let server = server_in(directory.path(), limits);
    let hasty = server_in(directory.path(), Limits { deadline: Duration::from_millis(500), ..limits });
    // As the process sees it that made the call: it waits for its own settlements.
    let left = async |server: &BondMcp| {
        let today = server.shared.accounts.local().daily_spending(limit).await.unwrap().unwrap();
        Usd::from_f64(today.left_usd)
    };
    for (server, unsent) in [(&server, "billed"), (&server, "billed_panics_early"), (&hasty, "billed_hangs")]
    {
        let told = answers(server.clone(), &[unsent]).await;
        assert!(told[0].contains("error"), "{told:?}");
        assert_eq!(left(server).await, Usd::cents(6), "{unsent}");
    }
    answers(server.clone(), &["billed_panics"]).await;
    assert_eq!(left(&server).await, Usd::cents(3));
    answers(server.clone(), &["billed_panics"]).await;
    let told = answers(server.clone(), &["billed"]).await;
    assert!(told[0].contains(r#""kind":"spend_limit""#), "{told:?}");
    server.close().await;
    hasty.close().await;
}
