//! What every tool call runs inside: arguments checked → signed in → limiter → deadline → panic caught → tool → guard.
//! Its name, outcome and duration are logged and audited; its arguments and its result never.

use std::{
    panic::AssertUnwindSafe,
    sync::atomic::{AtomicBool, Ordering},
    time::Instant,
};

use futures_util::FutureExt as _;
use rmcp::{
    ErrorData, RoleServer,
    handler::server::tool::ToolCallContext,
    model::{CallToolRequestParams, CallToolResponse, JsonObject},
    service::RequestContext,
};

use super::{
    BondMcp, arguments,
    audited::{Call, Ending},
    failure::Failure,
    progress::Progress,
    tools,
};
use crate::{bondmcp::POSSIBLY_BILLED, error::Kind};

impl BondMcp {
    pub(super) async fn guarded_call(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let call = Call::of(self, &request, &context);
        // Once set, a billed request may be under way.
        let billing = AtomicBool::new(false);
        let cancelled = context.ct.clone();
        let began = Instant::now();
        let cut = |how, message| (Err(ErrorData::internal_error(message, None)), Some(how));
        // What is cut is dropped, and with it its request to the upstream.
        let (answer, cut) = tokio::select! {
            answer = self.answered(request, context, &billing) => (answer, None),
            () = cancelled.cancelled() => cut("cancelled", "the call was cancelled"),
            () = self.inner.stopping.cancelled() => cut("stopped", "the server is stopping"),
        };
        let answer = self.inner.guard.pass(answer);
        let ending = match cut {
            Some(how) => Ending::cut(how, billing.load(Ordering::Relaxed)),
            None => Ending::of(&call.tool, &answer),
        };
        let duration = began.elapsed();
        tracing::info!(
            tool = call.tool,
            outcome = ending.outcome,
            possibly_billed = ending.possibly_billed.then_some(true),
            duration_ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX),
            "tool call"
        );
        self.account().audit(&call.entry(self, &answer, &ending, duration));
        answer
    }

    /// The person's time does not count: only when they have signed in and confirmed, where that is needed, the call
    /// begins. They are not asked to for a call that cannot be made.
    async fn answered(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
        billing: &AtomicBool,
    ) -> Result<CallToolResponse, ErrorData> {
        let none = JsonObject::new();
        let given = request.arguments.as_ref().unwrap_or(&none);
        if let Some(tool) = self.inner.tools.get(&request.name)
            && let Err(report) = arguments::check(given, &tool.input_schema)
        {
            return Ok(Failure::from(report).into_result().into());
        }
        let asked = self.inner.request_states.asked(&request)?;
        if let Some(answer) = self.signed_in_first(&request, asked.as_ref(), &context).await? {
            return Ok(answer);
        }
        if let Some(answer) = self.confirmed_first(&request, asked.as_ref(), &context).await? {
            return Ok(answer);
        }
        if tools::is_billed(&request.name) {
            billing.store(true, Ordering::Relaxed);
            // Boxed, or every call would carry its size.
            let progress = Progress::of(&context);
            return Box::pin(progress.during(self.limited(request, context))).await;
        }
        self.limited(request, context).await
    }

    async fn limited(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let billed = tools::is_billed(&request.name);
        let bounded = self.bounded(billed, self.caught(request, context)).await;
        bounded.unwrap_or_else(|failure| Ok(failure.into_result().into()))
    }

    /// `work` within the limits: not too many at once, and each only so long.
    pub(super) async fn bounded<T>(&self, billed: bool, work: impl Future<Output = T>) -> Result<T, Failure> {
        let Ok(_admitted) = self.inner.admitted.try_acquire() else { return Err(too_busy()) };
        let work = async {
            // Never closed, so acquiring cannot fail.
            let _running = self.inner.running.acquire().await;
            work.await
        };
        tokio::time::timeout(self.inner.limits.deadline, work).await.map_err(|_| too_late(billed))
    }

    async fn caught(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let call = self.inner.tools.call(ToolCallContext::new(self, request, context));
        match AssertUnwindSafe(call).catch_unwind().await {
            Ok(Err(error)) => match Failure::carried(&error) {
                Some(result) => Ok(result.into()),
                None => Err(error),
            },
            Ok(answer) => answer,
            Err(_) => Ok(bug().into_result().into()),
        }
    }
}

fn too_busy() -> Failure {
    Failure::new(
        Kind::RateLimited,
        "Too many calls are waiting.",
        "Wait a second and make fewer calls at once.",
    )
}

fn too_late(billed: bool) -> Failure {
    let next = if billed { POSSIBLY_BILLED } else { "Look whether it had an effect before you repeat it." };
    Failure::new(Kind::Timeout, "The call did not end in time.", next)
}

fn bug() -> Failure {
    Failure::new(
        Kind::Internal,
        "The server has met a bug of its own.",
        "Try something else; the person can report it with the server's log.",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    use rmcp::{
        ServiceExt as _,
        handler::server::router::tool::ToolRoute,
        model::{CallToolResult, Tool},
    };
    use tokio_util::sync::CancellationToken;

    use crate::{
        account::Account,
        bondmcp::{Client, Timing},
        clock::Clock,
        config::{Flags, Settings},
        mcp::{Limits, Selection},
        redact::Redactor,
    };

    /// A server with two tools of the test's own, nobody's account behind it.
    fn server(limits: Limits) -> BondMcp {
        let data_dir = tempfile::tempdir().unwrap().path().to_owned();
        let flags = Flags { data_dir: Some(data_dir), ..Flags::default() };
        let settings = Settings::load(flags, None, |_| None).unwrap();
        let redactor = Redactor::default();
        let base_url = settings.base_url.clone();
        let client = Client::new(base_url, redactor.clone(), Clock::system(), Timing::default()).unwrap();
        let account =
            Account::new(&settings, "bondmcp-server".into(), client, Clock::system(), redactor.clone());
        let selection = Selection::default();
        let mut server =
            BondMcp::new(account, None, redactor, &selection, limits, CancellationToken::new()).unwrap();
        let tool = |name| Tool::new(name, "of a test", JsonObject::new());
        let inner = std::sync::Arc::get_mut(&mut server.inner).unwrap();
        inner
            .tools
            .add_route(ToolRoute::new_dyn(tool("panics"), |_| Box::pin(async { panic!("canary-panic") })));
        inner.tools.add_route(ToolRoute::new_dyn(tool("hangs"), |_| Box::pin(std::future::pending())));
        server
    }

    /// The texts that answer `calls`, all made at once.
    async fn answers(server: BondMcp, calls: &[&'static str]) -> Vec<String> {
        let (ours, theirs) = tokio::io::duplex(1 << 16);
        let serving = tokio::spawn(async move { server.serve(ours).await.unwrap().waiting().await });
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
    async fn a_tool_that_hangs_is_answered_at_the_deadline() {
        let limits = Limits { deadline: Duration::from_millis(20), ..Limits::default() };
        let told = answers(server(limits), &["hangs"]).await;
        assert!(told[0].contains(r#""kind":"timeout""#), "{told:?}");
    }

    #[tokio::test]
    async fn one_call_too_many_is_refused_at_once() {
        let limits = Limits { concurrent: 1, waiting: 1, deadline: Duration::from_secs(1), spend: None };
        let told = answers(server(limits), &["hangs", "hangs", "hangs"]).await;
        let refused = told.iter().filter(|text| text.contains(r#""kind":"rate_limited""#)).count();
        assert_eq!(refused, 1, "{told:?}");
    }
}
