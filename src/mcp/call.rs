//! What every tool call runs inside: admitted → deadline → panic caught → arguments checked → signed in → confirmed →
//! tool → guard. Its name, outcome and duration are logged and audited; its arguments and its result never.

use std::{
    panic::AssertUnwindSafe,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::FutureExt as _;
use rmcp::{
    ErrorData,
    model::{CallToolRequestParams, CallToolResponse, JsonObject},
};
use serde::{Serialize, de::DeserializeOwned};
use tokio::{sync::TryAcquireError, time::Instant};
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use super::{
    OwnerServer, ServedTool,
    answer::{Answer, Content, Outcome},
    arguments,
    call_record::{CallOutcome, CallRecord, UNKNOWN},
    guard::Reply,
    host::Host,
    progress,
    spending::Price,
    tool_error::ToolError,
    tools::ToolSpec,
};
use crate::{
    account::{self, Account},
    bondmcp::{self, POSSIBLY_BILLED, Sent, wire::health},
    error::Kind,
};

/// What is left of a call's time when the person has been waited for, so that there is always an answer.
const ANSWER_RESERVE: Duration = Duration::from_secs(2);

/// Numbers calls, so that the log lines of one can be told from another's.
static CALLS: AtomicU64 = AtomicU64::new(1);

/// One call of a tool.
pub(super) struct Call<'a> {
    pub server: &'a Arc<OwnerServer>,
    pub host: &'a Host,
    pub tool: &'static ToolSpec,
    pub request: &'a CallToolRequestParams,
    /// The request's arguments as they were given.
    pub arguments: &'a JsonObject,
    deadline: Instant,
    /// Whether BondMCP may have been sent a request that it bills.
    pub sent: &'a Sent,
}

impl OwnerServer {
    /// Makes a call and answers it.
    pub(super) async fn call(
        self: &Arc<Self>,
        request: CallToolRequestParams,
        host: &Host,
    ) -> Reply<CallToolResponse> {
        let served = self.shared.tools.get(&*request.name);
        let id = CALLS.fetch_add(1, Ordering::Relaxed);
        let tool = served.map_or(UNKNOWN, |tool| tool.spec.name);
        let (owner, request_id) = (self.account.name(), host.request_id());
        let span = tracing::info_span!("call", id, tool, owner, request_id);
        #[cfg(feature = "otlp")]
        crate::telemetry::continue_trace(&span, host.trace_field("traceparent"));
        let limits = &self.shared.limits;
        let began = Instant::now();
        let sent = Sent::by(began + limits.deadline.saturating_sub(limits.billed));
        let deadline = began + limits.deadline;
        let answer =
            AssertUnwindSafe(self.answer_call(served, request, host, deadline, &sent)).catch_unwind();
        answer.instrument(span).await.unwrap_or_else(|_| self.guard.checked(Ok(bug(&sent).into())))
    }

    /// What is cut short is dropped, and with it its request to BondMCP.
    async fn answer_call(
        self: &Arc<Self>,
        served: Option<&ServedTool>,
        mut request: CallToolRequestParams,
        host: &Host,
        deadline: Instant,
        sent: &Sent,
    ) -> Reply<CallToolResponse> {
        let ignored = request.arguments.as_mut().map(arguments::take_host_arguments).unwrap_or_default();
        let none = JsonObject::new();
        let arguments = request.arguments.as_ref().unwrap_or(&none);
        let record = CallRecord::begin(self, served.map(|tool| tool.spec), arguments, host, sent);
        let Some(served) = served else {
            record.end(CallOutcome::named("refused"));
            let refusal = "there is no such tool; see tools/list";
            return Err(self.guard.error(ErrorData::invalid_params(refusal, None)));
        };
        // The transport has said so with a challenge, unless it could not tell what the request is.
        if !served.spec.scopes().are_within(host.scopes) {
            record.end(CallOutcome::named("refused"));
            let refusal = "the access token does not allow this tool; connect again and allow it";
            return Err(self.guard.error(ErrorData::invalid_request(refusal, None)));
        }
        let came = std::time::Instant::now();
        let call =
            Call { server: self, host, tool: served.spec, request: &request, arguments, deadline, sent };
        let (answer, aborted) = tokio::select! {
            // A call that need not wait for anything is not prepared for an abort.
            biased;
            answer = call.within_limits(&served.definition.input_schema) => (answer, None),
            (how, error) = self.aborted(host.cancelled()) => (Err(error), Some(how)),
        };
        self.account.count_call();
        // What the call did is on record whatever becomes of its answer.
        let (cost, key_id) = match &answer {
            Ok(Answer::Done(done)) => (done.cost, done.key_id.clone()),
            _ => (None, None),
        };
        let looked = match &answer {
            _ if aborted.is_some() => Ok(()),
            // The same answer has been sent before.
            Ok(Answer::Done(done)) if matches!(done.result, Content::Repeated(_)) => Ok(()),
            _ => tokio::select! {
                biased;
                looked = self.learn_secrets(came, deadline) => looked,
                () = self.shared.stopping.cancelled() => Err(account::Error::Interrupted),
            },
        };
        let answer = match looked {
            // What was billed is not lost for that.
            Err(error) if !sent.get() => Ok(ToolError::from(error).into()),
            _ => answer,
        };
        record.end(CallOutcome { cost, key_id, ..outcome(&answer, aborted, sent) });
        self.guard.answer(answer.map(|answer| self.naming_the_account(answer.with_ignored(ignored)))).await
    }

    /// `work` within the limits that hold for every request, as long as the host wants its answer.
    pub(super) async fn bounded<T>(
        &self,
        cancelled: &CancellationToken,
        work: impl Future<Output = Result<T, ErrorData>>,
    ) -> Result<T, ErrorData> {
        let Ok(_admitted) = self.admitted() else { return Err(too_busy().into_protocol_error()) };
        let came = std::time::Instant::now();
        let deadline = Instant::now() + self.shared.limits.deadline;
        let work = async {
            let outcome = tokio::time::timeout_at(deadline, self.with_permit(work)).await;
            let looked = self.learn_secrets(came, deadline).await;
            looked.map_err(|error| ToolError::from(error).into_protocol_error())?;
            outcome.unwrap_or_else(|_| Err(too_late(false).into_protocol_error()))
        };
        let work = async {
            tokio::select! {
                biased;
                outcome = work => outcome,
                (_, error) = self.aborted(cancelled) => Err(error),
            }
        };
        let work = AssertUnwindSafe(work).catch_unwind();
        let work = work.instrument(tracing::info_span!("request", owner = self.account.name()));
        work.await.unwrap_or_else(|_| Err(ToolError::bug().into_protocol_error()))
    }

    /// Waits until the host no longer wants an answer or the server stops. Returns how the request has ended, and the
    /// error to answer with.
    async fn aborted(&self, cancelled: &CancellationToken) -> (&'static str, ErrorData) {
        let (how, message) = tokio::select! {
            biased;
            () = cancelled.cancelled() => ("cancelled", "the request was cancelled"),
            () = self.shared.stopping.cancelled() => ("stopped", "the server is stopping"),
        };
        (how, ErrorData::internal_error(message, None))
    }

    /// Learns the secrets that another process has made since `came`, such as those of a renewed session, so that the
    /// guard finds them in the answer. It ends soon after `deadline`, as the host does not wait much longer.
    async fn learn_secrets(&self, came: std::time::Instant, deadline: Instant) -> Result<(), account::Error> {
        let left = (deadline + ANSWER_RESERVE).saturating_duration_since(Instant::now());
        self.account.refresh_if_changed(came, left).await
    }

    /// Admits a request of the owner, as long as neither the owner nor all owners together have too many.
    fn admitted(&self) -> Result<impl Sized, TryAcquireError> {
        Ok((self.permits.admit()?, self.shared.permits.admit()?))
    }

    /// `work`, when not too much runs already. The owner's turn comes first, so that what waits for it takes up nothing
    /// of the others'.
    async fn with_permit<T>(&self, work: impl Future<Output = T>) -> T {
        let _running = (self.permits.run().await, self.shared.permits.run().await);
        work.await
    }

    /// After somebody has signed in, the next answer says who: the person notices when it was somebody else.
    fn naming_the_account(&self, answer: Answer) -> Answer {
        let Some(identity) = self.account.identity() else { return answer };
        if !self.announce(identity.number) {
            return answer;
        }
        match answer {
            Answer::Done(outcome) => Answer::Done(outcome.with_field("signed_in_as", identity.name)),
            Answer::Failed(failure) => Answer::Failed(failure.signed_in_as(identity.name)),
            Answer::Ask(question) => {
                self.announce_again();
                Answer::Ask(question)
            }
        }
    }
}

impl Call<'_> {
    pub fn account(&self) -> &Account {
        &self.server.account
    }

    /// The arguments as the tool reads them.
    pub fn arguments<T: DeserializeOwned>(&self) -> Result<T, ToolError> {
        arguments::parse(self.arguments).map_err(Into::into)
    }

    /// One deadline holds from the start to the end, the questions to the person included.
    async fn within_limits(&self, schema: &JsonObject) -> Result<Answer, ErrorData> {
        let Ok(_admitted) = self.server.admitted() else { return Ok(too_busy().into()) };
        let work = AssertUnwindSafe(self.answer(schema)).catch_unwind();
        match tokio::time::timeout_at(self.deadline, work).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Ok(bug(self.sent).into()),
            Err(_) => Ok(too_late(self.sent.get()).into()),
        }
    }

    /// The person is not asked to sign in or to confirm for a call that cannot be made.
    async fn answer(&self, schema: &JsonObject) -> Result<Answer, ErrorData> {
        if let Err(report) = arguments::check(self.arguments, schema) {
            return Ok(ToolError::from(report).into());
        }
        let states = &self.server.shared.request_states;
        let asked = match states.asked(self.account(), self.request).await {
            Ok(asked) => asked,
            Err(error) => return error.answer(),
        };
        if let Some(answer) = self.sign_in_first(asked.as_ref()).await? {
            return Ok(answer);
        }
        if let Some(answer) = self.confirm(asked.as_ref()).await? {
            return Ok(answer);
        }
        // A billed request is begun only when it can end in time: one that is cut off may have been billed.
        if self.tool.price.is_some() && self.time_left() < self.server.shared.limits.billed {
            return match asked.filter(|_| self.host.asks_in_rounds()) {
                Some(asked) => states.continue_without_input(self.account(), asked, self.request).await,
                None => Ok(call_again().into()),
            };
        }
        let done = progress::during(self.host, self.with_permit((self.tool.run)(self))).await;
        Ok(done.map_or_else(Answer::Failed, Answer::Done))
    }

    /// `work` that asks BondMCP. Nobody waits for the person in here.
    pub async fn with_permit<T>(&self, work: impl Future<Output = T>) -> T {
        self.server.with_permit(work).await
    }

    /// A question to the person, while the call is open. Only so many are asked at once.
    pub async fn ask<T>(&self, question: impl Future<Output = T>) -> Result<T, ToolError> {
        let server = self.server;
        match (server.permits.ask(), server.shared.permits.ask()) {
            (Ok(_), Ok(_)) => Ok(question.await),
            _ => Err(too_busy()),
        }
    }

    pub fn time_left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    /// How long the person can be waited for.
    pub fn time_for_the_person(&self) -> Duration {
        self.time_left().saturating_sub(ANSWER_RESERVE)
    }

    /// Adds to an error where a person changes what this app may do.
    pub fn with_page(&self, error: account::Error) -> account::Error {
        let connections =
            self.server.shared.sign_in.as_ref().and_then(|options| options.connections.as_ref());
        match connections {
            Some(address) => error.with_page(address),
            None => error,
        }
    }

    /// Makes a billed request if it may still be paid for, and notes what it cost.
    pub async fn billed<T: health::Answer + Serialize>(
        &self,
        request: impl Future<Output = Result<T, account::Error>>,
    ) -> Result<Outcome, ToolError> {
        // Asked again: the call may have waited for its turn.
        if self.time_left() < self.server.shared.limits.billed {
            return Err(call_again());
        }
        let price = self.tool.price.unwrap_or(Price::cents(0));
        let mut billed = self.server.spending.begin(self.tool.name, price, self.sent)?;
        let limit = self.account().daily_limit(self.server.shared.limits.daily_spend).await?;
        if let Some(limit) = limit {
            let reserved = self.account().reserve(price.reserved, limit).await;
            billed = billed.with(reserved.map_err(|error| self.with_page(error))?);
            // The vault may have been slow.
            if self.time_left() < self.server.shared.limits.billed {
                return Err(call_again());
            }
        }
        match request.await {
            Ok(answer) => {
                let cost = billed.cost(answer.cost());
                Ok(Outcome::of(&answer)?.with_cost(cost))
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// Returns how a call ended: with `answer`, unless it was aborted.
fn outcome(answer: &Result<Answer, ErrorData>, aborted: Option<&'static str>, sent: &Sent) -> CallOutcome {
    match (answer, aborted) {
        (_, Some(how)) => CallOutcome::named(how).with_possibly_billed(sent.get()),
        (Ok(Answer::Done(_)), None) => CallOutcome::named("ok"),
        (Ok(Answer::Failed(failure)), None) => {
            CallOutcome::failed(failure.kind()).with_possibly_billed(failure.is_possibly_billed())
        }
        (Ok(Answer::Ask(_)), None) => CallOutcome::named("input_required"),
        (Err(_), None) => CallOutcome::named("refused"),
    }
}

fn bug(sent: &Sent) -> ToolError {
    if sent.get() { ToolError::billed_bug() } else { ToolError::bug() }
}

fn call_again() -> ToolError {
    account::Error::from(bondmcp::Error::TooLate).into()
}

fn too_busy() -> ToolError {
    ToolError::new(
        Kind::RateLimited,
        "Too many calls are waiting.",
        "Wait a second and make fewer calls at once.",
    )
}

fn too_late(billed: bool) -> ToolError {
    let message = "The call did not end in time.";
    if billed {
        ToolError::new(Kind::Timeout, message, POSSIBLY_BILLED).possibly_billed()
    } else {
        ToolError::new(Kind::Timeout, message, "Check whether it had an effect before you repeat it.")
    }
}

#[cfg(test)]
mod tests;
