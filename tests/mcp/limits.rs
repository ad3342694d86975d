//! The number and the duration of concurrent calls are limited for any caller.
#![allow(clippy::disallowed_types, reason = "this is the host's side")]

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use crate::common::{
    Place, accounts, browser::Browser, error_of, fast_time::fast, in_process_with_page, in_process_within,
    like_the_seed, request, sandbox, services::ANALYZE, within,
};
use bondmcp_server::{bondmcp::Timing, mcp::Limits, sandbox::Fault, secret::SecretString};
use rmcp::{
    ClientHandler, ErrorData, RoleClient,
    model::{
        CallToolRequest, ClientCapabilities, ClientConfig, ClientRequest, ElicitRequestParams, ElicitResult,
        ElicitationAction, ElicitationCapability, Implementation, ProgressNotificationParam, ProtocolVersion,
        UrlElicitationCapability,
    },
    service::{
        ClientLifecycleMode, ClientServiceExt as _, NotificationContext, PeerRequestOptions, RequestContext,
    },
};
use serde_json::{Value, json};

/// A host of 2025-11-25 whose person never answers; it counts the questions that were open at the same time.
#[derive(Clone, Default)]
struct Unanswered {
    open: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
}

impl ClientHandler for Unanswered {
    fn get_info(&self) -> ClientConfig {
        let mut capabilities = ClientCapabilities::default();
        capabilities.elicitation =
            Some(ElicitationCapability::new().with_url(UrlElicitationCapability::default()));
        ClientConfig::new(capabilities, Implementation::new("unanswered", "1"))
    }

    async fn create_elicitation(
        &self,
        _: ElicitRequestParams,
        context: RequestContext<RoleClient>,
    ) -> Result<ElicitResult, ErrorData> {
        let open = self.open.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(open, Ordering::SeqCst);
        context.ct.cancelled().await;
        self.open.fetch_sub(1, Ordering::SeqCst);
        Err(ErrorData::internal_error("cancelled", None))
    }
}

/// Creates the vault, which takes the disk's time and not that of the fast clock.
async fn with_vault(place: &Place) {
    let (accounts, _) = accounts(place);
    within(accounts.vault()).await.unwrap();
}

#[tokio::test]
async fn questions_to_the_person_are_bounded_in_number_and_end_with_the_call() {
    let sandbox = sandbox(like_the_seed()).await;
    let place = Place::new(&sandbox);
    let limits =
        Limits { concurrent: 2, waiting: 20, deadline: Duration::from_secs(30), ..Limits::default() };
    with_vault(&place).await;
    let (server, stopping) = in_process_with_page(&place, limits);
    let (ours, theirs) = tokio::io::duplex(1 << 16);
    let serving = tokio::spawn(crate::common::serve(server, ours));
    let host = Unanswered::default();
    let client = host.clone().serve_with_lifecycle(theirs, ClientLifecycleMode::Initialize).await.unwrap();
    let calls = (0..12).map(|_| client.call_tool(request("list_models", json!({}))));
    let answers = fast(within(futures_util::future::join_all(calls))).await;
    let mut kinds: Vec<String> = answers
        .into_iter()
        .map(|answer| error_of(&answer.unwrap())["kind"].as_str().unwrap().to_owned())
        .collect();
    kinds.sort();
    let (busy, asked) = kinds.split_at(10);
    assert!(busy.iter().all(|kind| kind == "rate_limited"), "{kinds:?}");
    assert!(asked.iter().all(|kind| kind == "sign_in_required"), "{kinds:?}");
    assert_eq!(host.most.load(Ordering::SeqCst), 2);
    // The questions were cancelled, so that they do not stay on the person's screen.
    within(async {
        while host.open.load(Ordering::SeqCst) > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    // There is room for new ones.
    let again = Box::pin(client.call_tool(request("list_models", json!({}))));
    let again = fast(within(again)).await.unwrap();
    assert_eq!(error_of(&again)["kind"], "sign_in_required");
    client.cancel().await.unwrap();
    stopping.cancel();
    serving.await.unwrap().unwrap();
}

/// A host whose person agrees to open the page at once and signs in twelve seconds later.
struct Slow {
    password: SecretString,
    /// The progress that it was told, with the texts.
    progress: Arc<Mutex<Vec<(f64, String)>>>,
}

impl Slow {
    fn at(place: &Place) -> Self {
        Self { password: place.password.clone(), progress: Arc::default() }
    }
}

impl ClientHandler for Slow {
    fn get_info(&self) -> ClientConfig {
        Unanswered::default().get_info().with_protocol_version(ProtocolVersion::V_2025_11_25)
    }

    async fn create_elicitation(
        &self,
        question: ElicitRequestParams,
        _: RequestContext<RoleClient>,
    ) -> Result<ElicitResult, ErrorData> {
        let ElicitRequestParams::UrlElicitationParams { url, .. } = question else { panic!() };
        let password = self.password.clone();
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_secs(12)).await;
            Browser::open(&url).await.sign_in(&password).await;
        });
        Ok(ElicitResult::new(ElicitationAction::Accept))
    }

    async fn on_progress(&self, told: ProgressNotificationParam, _: NotificationContext<RoleClient>) {
        self.progress.lock().unwrap().push((told.progress, told.message.unwrap_or_default()));
    }
}

/// What a billed call is answered with, again and again until it works; and the outcomes that were audited.
async fn billed_call_of_a_slow_person(lifecycle: ClientLifecycleMode) -> (Vec<Value>, Vec<Value>, u64) {
    let sandbox = sandbox(like_the_seed()).await;
    let place = Place::new(&sandbox);
    with_vault(&place).await;
    let (server, stopping) = in_process_with_page(&place, Limits::default());
    let answers = fast(async {
        let (ours, theirs) = tokio::io::duplex(1 << 16);
        let serving = tokio::spawn(crate::common::serve(server, ours));
        let client = Slow::at(&place).serve_with_lifecycle(theirs, lifecycle).await.unwrap();
        let mut answers = Vec::new();
        loop {
            let arguments = json!({"prompt": "Why?", "analysis_type": "general"});
            let answer = client.call_tool(request("health_analyze", arguments)).await.unwrap();
            let done = answer.is_error != Some(true);
            answers.push(serde_json::to_value(answer).unwrap());
            if done {
                break;
            }
        }
        client.cancel().await.unwrap();
        stopping.cancel();
        serving.await.unwrap().unwrap();
        answers
    })
    .await;
    let audit = within(async {
        loop {
            let lines = std::fs::read_to_string(place.data_dir().join("audit.jsonl")).unwrap_or_default();
            let entries: Vec<Value> =
                lines.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
            if entries.last().is_some_and(|entry| entry["outcome"] == "ok") {
                break entries;
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
    (answers, audit, sandbox.count(ANALYZE))
}

#[tokio::test]
async fn a_round_that_waited_for_the_person_lets_the_billed_work_start_in_the_next() {
    let lifecycle = ClientLifecycleMode::Discover { preferred_versions: vec![ProtocolVersion::V_2026_07_28] };
    let (answers, audit, requests) = billed_call_of_a_slow_person(lifecycle).await;
    let outcomes: Vec<&Value> = audit.iter().map(|entry| &entry["outcome"]).collect();
    // Asked, waited, worked. On a busy machine the person's answer takes more rounds.
    let (worked, asked) = outcomes.split_last().unwrap();
    assert!(
        *worked == "ok" && asked.len() >= 2 && asked.iter().all(|outcome| **outcome == "input_required"),
        "{outcomes:?}"
    );
    assert_eq!((answers.len(), requests), (1, 1), "{answers:?}");
}

#[tokio::test]
async fn a_call_that_waited_for_the_person_while_open_begins_no_billed_work_that_cannot_end_in_time() {
    let (answers, _, requests) = billed_call_of_a_slow_person(ClientLifecycleMode::Initialize).await;
    assert_eq!((answers.len(), requests), (2, 1), "{answers:?}");
    let told = answers[0]["content"][0]["text"].as_str().unwrap();
    assert!(told.contains("nothing was billed") && told.contains("Call again now"), "{told}");
}

/// MCP demands it for each token, whatever is waited for.
#[tokio::test]
async fn progress_increases_while_first_the_person_and_then_bondmcp_is_waited_for() {
    let sandbox = sandbox(like_the_seed()).await;
    let place = Place::new(&sandbox);
    with_vault(&place).await;
    sandbox.faults().always("GET /health-ai/models", Fault::Slow(Duration::from_secs(5)));
    let (server, stopping) = in_process_with_page(&place, Limits::default());
    let host = Slow::at(&place);
    let progress = Arc::clone(&host.progress);
    fast(async {
        let (ours, theirs) = tokio::io::duplex(1 << 16);
        let serving = tokio::spawn(crate::common::serve(server, ours));
        let client = host.serve_with_lifecycle(theirs, ClientLifecycleMode::Initialize).await.unwrap();
        let answer = client.call_tool(request("list_models", json!({}))).await.unwrap();
        assert_ne!(answer.is_error, Some(true), "{answer:?}");
        client.cancel().await.unwrap();
        stopping.cancel();
        serving.await.unwrap().unwrap();
    })
    .await;
    let told = progress.lock().unwrap();
    for text in ["waiting for the person to sign in", "waiting for BondMCP"] {
        assert!(told.iter().any(|(_, message)| message == text), "{told:?}");
    }
    assert!(told.is_sorted_by(|(one, _), (next, _)| one < next), "{told:?}");
}

fn question() -> Value {
    json!({"prompt": "Why?", "analysis_type": "general"})
}

#[tokio::test]
async fn a_billed_request_is_not_sent_again_when_the_renewal_has_used_up_its_time() {
    let sandbox = sandbox(like_the_seed()).await;
    let place = Place::new(&sandbox);
    with_vault(&place).await;
    let timing = Timing { request: Duration::from_mins(1), ..Timing::default() };
    // It must be sent within 25 s.
    let limits = Limits { deadline: Duration::from_secs(70), ..Limits::default() };
    let (server, stopping) = in_process_within(&place, timing, limits);
    fast(async {
        let (ours, theirs) = tokio::io::duplex(1 << 16);
        let serving = tokio::spawn(crate::common::serve(server, ours));
        let client =
            Slow::at(&place).serve_with_lifecycle(theirs, ClientLifecycleMode::Initialize).await.unwrap();
        client.call_tool(request("list_models", json!({}))).await.unwrap();
        sandbox.expire_tokens();
        sandbox.faults().next("POST /auth/login", Fault::Slow(Duration::from_secs(30)));
        let refused = error_of(&client.call_tool(request("health_analyze", question())).await.unwrap());
        assert_eq!(refused["kind"], "timeout", "{refused}");
        let told = (refused["message"].as_str().unwrap(), refused["solution"].as_str().unwrap());
        assert!(told.0.contains("nothing was billed") && told.1.contains("Call again now"), "{refused}");
        assert_eq!(sandbox.count(ANALYZE), 1);
        let status = client.call_tool(request("auth_status", json!({}))).await.unwrap();
        assert_eq!(status.structured_content.unwrap()["spent"]["by_tool"], json!({}));
        client.cancel().await.unwrap();
        stopping.cancel();
        serving.await.unwrap().unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_call_that_is_cancelled_while_it_waits_after_a_refusal_is_not_possibly_billed() {
    let sandbox = sandbox(like_the_seed()).await;
    let place = Place::new(&sandbox);
    with_vault(&place).await;
    let timing = Timing { longest_wait: Duration::from_mins(1), ..Timing::default() };
    let limits = Limits { deadline: Duration::from_mins(2), ..Limits::default() };
    let (server, stopping) = in_process_within(&place, timing, limits);
    sandbox.faults().next(ANALYZE, Fault::TooMany(Some("50".to_owned())));
    fast(async {
        let (ours, theirs) = tokio::io::duplex(1 << 16);
        let serving = tokio::spawn(crate::common::serve(server.clone(), ours));
        let client =
            Slow::at(&place).serve_with_lifecycle(theirs, ClientLifecycleMode::Initialize).await.unwrap();
        let call =
            ClientRequest::CallToolRequest(CallToolRequest::new(request("health_analyze", question())));
        let call = client.send_cancellable_request(call, PeerRequestOptions::no_options()).await.unwrap();
        sandbox.faults().arrived(ANALYZE, 1).await;
        // By the fast clock: the refusal has come, and the wait that it asks for is not over.
        tokio::time::sleep(Duration::from_secs(10)).await;
        call.cancel(None).await.unwrap();
        let status = client.call_tool(request("auth_status", json!({}))).await.unwrap();
        assert_eq!(status.structured_content.unwrap()["spent"]["by_tool"], json!({}));
        client.cancel().await.unwrap();
        stopping.cancel();
        serving.await.unwrap().unwrap();
    })
    .await;
    server.close().await;
    assert_eq!(sandbox.count(ANALYZE), 1);
    let audit = std::fs::read_to_string(place.data_dir().join("audit.jsonl")).unwrap();
    let entries = audit.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let ended = entries.into_iter().find(|entry| entry["tool"] == "health_analyze").unwrap();
    assert_eq!((&ended["outcome"], ended.get("possibly_billed")), (&json!("cancelled"), None), "{ended}");
}
