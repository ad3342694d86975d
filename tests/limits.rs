//! The number and the duration of concurrent calls are limited for any caller.
#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![allow(clippy::disallowed_types, reason = "this is the host's side")]

mod common;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bondmcp_server::mcp::Limits;
use common::{Place, error_of, in_process_with_page, like_the_seed, request, sandbox, within};
use rmcp::{
    ClientHandler, ErrorData, RoleClient, ServiceExt as _,
    model::{
        ClientCapabilities, ClientConfig, ElicitRequestParams, ElicitResult, ElicitationCapability,
        Implementation, UrlElicitationCapability,
    },
    service::{ClientLifecycleMode, ClientServiceExt as _, RequestContext},
};
use serde_json::json;

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

#[tokio::test(flavor = "multi_thread")]
async fn questions_to_the_person_are_bounded_in_number_and_end_with_the_call() {
    let sandbox = sandbox(like_the_seed()).await;
    let place = Place::new(&sandbox);
    let limits = Limits { concurrent: 2, waiting: 20, deadline: Duration::from_secs(4), ..Limits::default() };
    let (server, stopping) = in_process_with_page(&place, limits);
    let (ours, theirs) = tokio::io::duplex(1 << 16);
    let serving = tokio::spawn(async move { server.serve(ours).await.unwrap().waiting().await });
    let host = Unanswered::default();
    let client = host.clone().serve_with_lifecycle(theirs, ClientLifecycleMode::Initialize).await.unwrap();
    let calls = (0..12).map(|_| client.call_tool(request("list_models", json!({}))));
    let answers = within(futures_util::future::join_all(calls)).await;
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
    let again = within(client.call_tool(request("list_models", json!({})))).await.unwrap();
    assert_eq!(error_of(&again)["kind"], "sign_in_required");
    client.cancel().await.unwrap();
    stopping.cancel();
    serving.await.unwrap().unwrap();
}
