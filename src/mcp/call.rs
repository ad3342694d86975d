//! What every tool call runs inside: limiter → deadline → panic caught → tool → guard. Its name, outcome and duration
//! are logged; its arguments and its result never.

use std::{panic::AssertUnwindSafe, time::Instant};

use futures_util::FutureExt as _;
use rmcp::{
    ErrorData, RoleServer,
    handler::server::tool::ToolCallContext,
    model::{CallToolRequestParams, CallToolResponse},
    service::RequestContext,
};

use super::{BondMcp, failure::Failure};
use crate::error::Kind;

impl BondMcp {
    pub(super) async fn guarded_call(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        // An unknown name is the caller's text, so it is not logged.
        let tool = self.inner.tools.get(&request.name).map(|tool| tool.name.clone());
        let cancelled = context.ct.clone();
        let began = Instant::now();
        let answer = tokio::select! {
            answer = self.limited(request, context) => answer,
            () = cancelled.cancelled() => Err(ErrorData::internal_error("the call was cancelled", None)),
            () = self.inner.stopping.cancelled() => Err(ErrorData::internal_error("the server is stopping", None)),
        };
        let answer = self.inner.guard.pass(answer);
        tracing::info!(
            tool = tool.as_deref().unwrap_or("unknown"),
            outcome = outcome(&answer),
            duration_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
            "tool call"
        );
        answer
    }

    async fn limited(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let Ok(_admitted) = self.inner.admitted.try_acquire() else {
            return Ok(too_busy().into_result().into());
        };
        let call = async {
            // Never closed, so acquiring cannot fail.
            let _running = self.inner.running.acquire().await;
            self.caught(request, context).await
        };
        tokio::time::timeout(self.inner.limits.deadline, call)
            .await
            .unwrap_or_else(|_| Ok(too_late().into_result().into()))
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

fn outcome(answer: &Result<CallToolResponse, ErrorData>) -> &'static str {
    match answer {
        Ok(CallToolResponse::Complete(result)) if result.is_error == Some(true) => "failed",
        Ok(_) => "ok",
        Err(_) => "refused",
    }
}

fn too_busy() -> Failure {
    Failure::new(
        Kind::RateLimited,
        "Too many calls are waiting.",
        "Wait a second and make fewer calls at once.",
    )
}

fn too_late() -> Failure {
    Failure::new(
        Kind::Timeout,
        "The call did not end in time.",
        "Look whether it had an effect before you repeat it.",
    )
}

fn bug() -> Failure {
    Failure::new(
        Kind::Internal,
        "The server has met a bug of its own.",
        "Try something else; the person can report it with the server's log.",
    )
}
