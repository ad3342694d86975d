//! Just-in-time sign-in: a call that needs an account and finds none starts a sign-in and continues when the person has
//! signed in. How the person gets the link depends on the host: by URL elicitation where the host supports it, else in an
//! ordinary answer. Form elicitation is never used for a secret.

use std::{sync::Arc, time::Duration};

use rmcp::{
    ErrorData, RoleServer,
    model::{
        CallToolRequestParams, CallToolResponse, ClientResult, CustomNotification, ElicitRequest,
        ElicitRequestParams, ElicitationAction, ProtocolVersion, ServerNotification, ServerRequest,
    },
    service::{PeerRequestOptions, RequestContext, RequestHandle, ServiceError},
};
use serde_json::json;

use super::{
    BondMcp,
    failure::Failure,
    input_required::{self, PendingInput},
    tools,
};
use crate::{
    account::{self, Need, SignInReason},
    error::{Kind, Report},
    sign_in::{End, Pending, SignIn, State},
};

/// How long a retry waits for the page: hosts give up a call after a minute, and after ten rounds.
const ROUND_WAIT: Duration = Duration::from_secs(25);

/// How the person gets the link.
enum LinkDelivery {
    /// 2026-07-28 with URL elicitation: the call is answered with the question, and made again.
    InputRequired,
    /// 2025-11-25 with URL elicitation: the host is asked while the call is open.
    WhileOpen,
    /// Every other host: the answer contains the link.
    InAnswer,
}

impl BondMcp {
    /// Signs the person in where `request` needs it: `None` when the call can go on, an answer when it cannot.
    pub(super) async fn signed_in_first(
        &self,
        request: &CallToolRequestParams,
        asked: Option<&PendingInput>,
        context: &RequestContext<RoleServer>,
    ) -> Result<Option<CallToolResponse>, ErrorData> {
        let Some(sign_in) = &self.inner.sign_in else { return Ok(None) };
        let Some(need) = tools::need(&request.name) else { return Ok(None) };
        match self.account().bearer(need).await {
            // The operator's credentials are wrong; signing in on a page would not correct them.
            Err(account::Error::SignInRequired { why: SignInReason::EnvironmentRejected, .. }) => {
                return Ok(None);
            }
            Err(account::Error::SignInRequired { .. }) => {}
            // The tool would meet it again, and try the password once more.
            Err(error) => return Ok(Some(Failure::from(error).into_result().into())),
            Ok(_) => return Ok(None),
        }
        // Boxed: this future is large and rarely needed.
        Box::pin(self.sign_in(sign_in, need, request, asked, context)).await
    }

    async fn sign_in(
        &self,
        sign_in: &SignIn,
        need: Need,
        request: &CallToolRequestParams,
        asked: Option<&PendingInput>,
        context: &RequestContext<RoleServer>,
    ) -> Result<Option<CallToolResponse>, ErrorData> {
        let delivery = link_delivery(context);
        if let (LinkDelivery::InputRequired, Some(PendingInput::SignIn(name))) = (&delivery, asked) {
            return self.next_round(sign_in, name, request, context).await;
        }
        if let LinkDelivery::InAnswer = delivery
            && tools::tells_how_to_sign_in(&request.name)
        {
            return Ok(None);
        }
        let pending = match sign_in.begin(self.host_name(context), need).await {
            Ok(pending) => pending,
            Err(error) => return Ok(Some(Failure::from(Report::from(&error)).into_result().into())),
        };
        match delivery {
            LinkDelivery::InputRequired => {
                let asked = PendingInput::SignIn(pending.name().to_owned());
                self.inner.request_states.ask(asked, elicitation(&pending, String::new()), request).map(Some)
            }
            LinkDelivery::WhileOpen => self.while_open(&pending, context).await,
            LinkDelivery::InAnswer => {
                sign_in.show().await;
                Ok(Some(self.in_words(&pending)))
            }
        }
    }

    /// 2025-11-25: the host is asked while the call stays open.
    async fn while_open(
        &self,
        pending: &Pending,
        context: &RequestContext<RoleServer>,
    ) -> Result<Option<CallToolResponse>, ErrorData> {
        let Ok(mut elicitation) = Elicitation::send(pending, context).await else {
            return Ok(Some(self.in_words(pending)));
        };
        let action = tokio::select! {
            action = elicitation.answered() => action,
            // The question ends with its link; somebody may have signed in by it.
            _ = pending.finished(pending.expires_in()) => {
                elicitation.take_back().await;
                Some(ElicitationAction::Accept)
            }
        };
        match action {
            Some(ElicitationAction::Accept) => {}
            Some(_) => return Ok(declined(pending)),
            None => return Ok(Some(self.in_words(pending))),
        }
        match waited(pending, pending.expires_in(), context).await {
            State::SignedIn { .. } => {
                let params = Some(json!({ "elicitationId": pending.name() }));
                let complete = CustomNotification::new("notifications/elicitation/complete", params);
                if context
                    .peer
                    .send_notification(ServerNotification::CustomNotification(complete))
                    .await
                    .is_err()
                {
                    tracing::debug!("the host was not told that the elicitation is complete");
                }
                Ok(None)
            }
            State::Ended(end) => Ok(Some(ended(end))),
            State::Open | State::Verifying { .. } => Ok(Some(ended(End::TimedOut))),
        }
    }

    /// For hosts without URL elicitation: the agent passes the link on.
    fn in_words(&self, pending: &Pending) -> CallToolResponse {
        let report = match pending.state() {
            State::Verifying { .. } => Report::new(
                Kind::EmailNotVerified,
                "The account is made, and its e-mail address is not verified yet.",
                "The person opens the link in the mail from BondMCP; then call again.",
            ),
            _ => Report::new(
                Kind::SignInRequired,
                "Nobody is signed in to BondMCP.",
                link_in_words(pending, &self.account().login_command(None)),
            ),
        };
        Failure::from(report).into_result().into()
    }

    /// The sign-in page for a tool that tells of it in its own words; `None` where the person can reach none.
    pub(super) async fn sign_in_page(
        &self,
        context: &RequestContext<RoleServer>,
    ) -> Result<Option<Arc<Pending>>, Failure> {
        let Some(sign_in) = &self.inner.sign_in else { return Ok(None) };
        let begun = sign_in.begin(self.host_name(context), Need::Api).await;
        let pending = begun.map_err(|error| Report::from(&error))?;
        sign_in.show().await;
        Ok(Some(pending))
    }

    /// A retry: the person has been asked. Waits a while for the page, then lets the call go on or asks for another
    /// round, without asking the person again.
    async fn next_round(
        &self,
        sign_in: &SignIn,
        name: &str,
        request: &CallToolRequestParams,
        context: &RequestContext<RoleServer>,
    ) -> Result<Option<CallToolResponse>, ErrorData> {
        let Some(pending) = sign_in.named(name).await else { return Err(input_required::stale()) };
        if input_required::answer(request).is_some_and(|answer| answer.action != ElicitationAction::Accept) {
            return Ok(declined(&pending));
        }
        match waited(&pending, ROUND_WAIT, context).await {
            State::SignedIn { .. } => Ok(None),
            State::Ended(end) => Ok(Some(ended(end))),
            State::Open | State::Verifying { .. } => self
                .inner
                .request_states
                .continue_without_input(PendingInput::SignIn(name.to_owned()), request)
                .map(Some),
        }
    }
}

/// Why a question is taken back.
const NOT_WAITED_FOR: &str = "the sign-in is not waited for any longer";

/// A question that a host of 2025-11-25 has been asked. It ends with its call: dropped before it is answered, it is taken back.
struct Elicitation(Option<RequestHandle<RoleServer>>);

impl Elicitation {
    async fn send(pending: &Pending, context: &RequestContext<RoleServer>) -> Result<Self, ServiceError> {
        let params = elicitation(pending, pending.name().to_owned());
        let request = ServerRequest::ElicitRequest(ElicitRequest::new(params));
        let options = PeerRequestOptions::no_options();
        Ok(Self(Some(context.peer.send_cancellable_request(request, options).await?)))
    }

    /// What the person decided; `None` when the host could not ask them.
    async fn answered(&mut self) -> Option<ElicitationAction> {
        let answer = (&mut self.0.as_mut()?.rx).await;
        self.0 = None;
        match answer {
            Ok(Ok(ClientResult::ElicitResult(answer))) => Some(answer.action),
            _ => None,
        }
    }

    async fn take_back(mut self) {
        if let Some(handle) = self.0.take() {
            let _ = handle.cancel(Some(NOT_WAITED_FOR.to_owned())).await;
        }
    }
}

impl Drop for Elicitation {
    fn drop(&mut self) {
        // At the very end of the process nobody is left to tell.
        if let (Some(handle), Ok(runtime)) = (self.0.take(), tokio::runtime::Handle::try_current()) {
            runtime.spawn(handle.cancel(Some(NOT_WAITED_FOR.to_owned())));
        }
    }
}

/// The person declined what this call asked; others may still wait for the page.
fn declined(pending: &Pending) -> Option<CallToolResponse> {
    pending.decline();
    match pending.state() {
        State::SignedIn { .. } => None,
        _ => Some(ended(End::Declined)),
    }
}

/// `id` is for 2025-11-25; later revisions have none.
fn elicitation(pending: &Pending, id: String) -> ElicitRequestParams {
    ElicitRequestParams::UrlElicitationParams {
        meta: None,
        message: message(pending),
        url: pending.url().to_owned(),
        elicitation_id: id,
    }
}

fn link_delivery(context: &RequestContext<RoleServer>) -> LinkDelivery {
    let can = context
        .client_capabilities()
        .and_then(|capabilities| capabilities.elicitation)
        .is_some_and(|elicitation| elicitation.url.is_some());
    let version = context.protocol_version();
    let at_least =
        |newest: ProtocolVersion| version.as_ref().is_some_and(|version| version.as_str() >= newest.as_str());
    match can {
        true if at_least(ProtocolVersion::V_2026_07_28) => LinkDelivery::InputRequired,
        true if at_least(ProtocolVersion::V_2025_11_25) => LinkDelivery::WhileOpen,
        _ => LinkDelivery::InAnswer,
    }
}

/// Waits for the end of the sign-in, at most `at_most`, and reports progress to a host that asked for it.
async fn waited(pending: &Pending, at_most: Duration, context: &RequestContext<RoleServer>) -> State {
    const PROGRESS_INTERVAL: Duration = Duration::from_secs(5);
    let token = context.meta.get_progress_token();
    let began = tokio::time::Instant::now();
    let mut reports = 0.0;
    loop {
        let left = at_most.saturating_sub(began.elapsed());
        let state = pending.finished(left.min(PROGRESS_INTERVAL)).await;
        if !matches!(state, State::Open | State::Verifying { .. }) || left <= PROGRESS_INTERVAL {
            return state;
        }
        if let Some(token) = &token {
            reports += 1.0;
            let progress = rmcp::model::ProgressNotificationParam::new(token.clone(), reports)
                .with_message("waiting for the person to sign in");
            let _ = context.peer.notify_progress(progress).await;
        }
    }
}

fn message(pending: &Pending) -> String {
    format!(
        "Sign in to BondMCP on a local page in your browser. Check that the page shows the code {}; if it doesn't match, close the page. Your assistant does not see what you type there.",
        pending.code()
    )
}

/// The link and, for a person who likes a terminal better, the command that does the same.
pub(super) fn link_in_words(pending: &Pending, command: &str) -> String {
    let valid = match pending.expires_in().as_secs() {
        seconds @ ..120 => format!("{seconds} seconds"),
        seconds => format!("{} minutes", seconds.div_ceil(60)),
    };
    format!(
        "Give the person this link to open in a browser on this computer: {} (it shows the code {} and is valid for {valid}), or they run `{command}` in a terminal. They sign in there, never in the chat; then call again. A host with URL elicitation is safer, as it shows the link itself.",
        pending.url(),
        pending.code(),
    )
}

fn ended(end: End) -> CallToolResponse {
    let (message, solution) = match end {
        End::Declined => (
            "The person declined to sign in.",
            "Continue without BondMCP, or ask whether they want to sign in.",
        ),
        End::Gone => ("The process that served the sign-in page has ended.", "Call again for a new link."),
        End::TimedOut => (
            "The sign-in link expired; nobody signed in in time.",
            "Ask the person, then call again for a new link.",
        ),
        End::TooManyAttempts => (
            "The sign-in ended after too many wrong passwords.",
            "Call again when the person has the right one.",
        ),
    };
    Failure::new(Kind::SignInRequired, message, solution).into_result().into()
}
