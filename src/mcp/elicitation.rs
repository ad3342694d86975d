//! Just-in-time sign-in: a call that needs an account and has none starts a sign-in and continues when the person has
//! signed in. How the person gets the link depends on the host: by URL elicitation where the host supports it, else in
//! an ordinary answer. Form elicitation is never used for a secret.

use std::{sync::Arc, time::Duration};

use rmcp::{
    ErrorData,
    model::{ElicitRequestParams, ElicitationAction, ProtocolVersion},
};

use super::{
    call::{Answer, Call},
    host::Host,
    input_required::{self, PendingInput},
    tool_error::ToolError,
};
use crate::{
    account::{self, RequiredCredential, SignInReason},
    error::{Kind, UserFacingError},
    sign_in::{End, Pending, Request, SignIn, SignInMethod, State},
};

/// Longest wait of a retry for the page: hosts abandon a call after a minute, and after ten rounds.
const ROUND_WAIT: Duration = Duration::from_secs(25);

/// The way in which the person gets the link.
enum LinkDelivery {
    /// 2026-07-28 with URL elicitation: the call is answered with the question, and the host repeats it.
    InputRequired,
    /// 2025-11-25 with URL elicitation: the host is asked while the call is open.
    WhileOpen,
    /// Every other host: the answer contains the link.
    InAnswer,
}

impl Call<'_> {
    /// Signs the person in if the call needs it: returns `None` if it can continue, otherwise an answer.
    pub(super) async fn sign_in_first(
        &self,
        asked: Option<&PendingInput>,
    ) -> Result<Option<Answer>, ErrorData> {
        let Some(sign_in) = &self.server.inner.sign_in else { return Ok(None) };
        let Some(need) = self.tool.credential else { return Ok(None) };
        match self.with_permit(self.account().bearer(need)).await {
            // The operator's credentials are wrong; the sign-in page cannot correct them.
            Err(account::Error::SignInRequired { why: SignInReason::EnvironmentRejected, .. }) => {
                return Ok(None);
            }
            Err(account::Error::SignInRequired { .. }) => {}
            // The tool would fail in the same way and try the password once more.
            Err(error) => return Ok(Some(ToolError::from(error).into())),
            Ok(_) => return Ok(None),
        }
        // Boxed: this future is large and rarely needed.
        Box::pin(self.sign_in(sign_in, need, asked)).await
    }

    async fn sign_in(
        &self,
        sign_in: &SignIn,
        need: RequiredCredential,
        asked: Option<&PendingInput>,
    ) -> Result<Option<Answer>, ErrorData> {
        let delivery = link_delivery(self.host);
        if let (LinkDelivery::InputRequired, Some(PendingInput::SignIn(name))) = (&delivery, asked) {
            return self.next_round(sign_in, name).await;
        }
        if let LinkDelivery::InAnswer = delivery
            && self.tool.explains_sign_in
        {
            return Ok(None);
        }
        let request = Request { requested_by: self.host.name(), ..Request::new(need) };
        let pending = match sign_in.begin(request).await {
            Ok(pending) => pending,
            Err(error) => return Ok(Some(ToolError::from(UserFacingError::from(&error)).into())),
        };
        match delivery {
            LinkDelivery::InputRequired => {
                let asked = PendingInput::SignIn(pending.name().to_owned());
                let question = elicitation(&pending, String::new());
                let states = &self.server.inner.request_states;
                states.ask(asked, question, self.request).map(|question| Some(question.into()))
            }
            LinkDelivery::WhileOpen => Ok(self.while_open(&pending).await),
            LinkDelivery::InAnswer => {
                sign_in.show().await;
                Ok(Some(self.in_words(&pending)))
            }
        }
    }

    /// 2025-11-25: the host is asked while the call stays open. At the call's deadline the agent gets the link: the
    /// page outlives the call.
    async fn while_open(&self, pending: &Pending) -> Option<Answer> {
        let asked = self.ask(self.signed_in_while_open(pending)).await;
        asked.unwrap_or_else(|failure| Some(failure.into()))
    }

    async fn signed_in_while_open(&self, pending: &Pending) -> Option<Answer> {
        let question = elicitation(pending, pending.name().to_owned());
        let Ok(mut question) = self.host.elicit(question).await else {
            return Some(self.in_words(pending));
        };
        let time = pending.expires_in().min(self.time_for_the_person());
        let _waiting = pending.waiting_call();
        let action = tokio::select! {
            answer = question.answered() => answer.map(|answer| answer.action),
            // The question ends with its link or with the call; the person may have signed in with the link elsewhere.
            _ = pending.finished(time) => {
                question.take_back().await;
                Some(ElicitationAction::Accept)
            }
        };
        match action {
            Some(ElicitationAction::Accept) => {}
            Some(_) => return declined(pending),
            None => return Some(self.in_words(pending)),
        }
        match waited(pending, self.time_for_the_person(), self.host).await {
            State::SignedIn { .. } => {
                if self.host.page_is_done(pending.name()).await.is_err() {
                    tracing::debug!("the host could not be notified that the elicitation is complete");
                }
                None
            }
            State::Ended(end) => Some(ended(end)),
            State::Open | State::Verifying { .. } if pending.is_open() => Some(self.in_words(pending)),
            State::Open | State::Verifying { .. } => Some(ended(End::TimedOut)),
        }
    }

    /// Answers a host without URL elicitation: the agent passes the link on.
    fn in_words(&self, pending: &Pending) -> Answer {
        let report = match pending.state() {
            State::Verifying { .. } => UserFacingError::new(
                Kind::EmailNotVerified,
                "The account is created, but its e-mail address is not verified yet.",
                "The person opens the link in the e-mail from BondMCP; then call again.",
            ),
            _ => UserFacingError::new(
                Kind::SignInRequired,
                "Not signed in to BondMCP.",
                link_in_words(pending, &self.account().login_command(None)),
            ),
        };
        ToolError::from(report).into()
    }

    /// Returns the sign-in for a tool that describes it in its own result; `None` if the person cannot reach a page.
    pub(super) async fn sign_in_page(
        &self,
        email: Option<String>,
        opens_on: SignInMethod,
    ) -> Result<Option<Arc<Pending>>, ToolError> {
        let Some(sign_in) = &self.server.inner.sign_in else { return Ok(None) };
        let need = RequiredCredential::Api;
        let request = Request { requested_by: self.host.name(), email, opens_on, ..Request::new(need) };
        let begun = sign_in.begin(request).await;
        let pending = begun.map_err(|error| UserFacingError::from(&error))?;
        sign_in.show().await;
        Ok(Some(pending))
    }

    /// Handles a retry after the person was asked. Waits for the page, then continues the call or asks for another
    /// round, without asking the person again.
    async fn next_round(&self, sign_in: &SignIn, name: &str) -> Result<Option<Answer>, ErrorData> {
        let Some(pending) = sign_in.named(name).await else { return Err(input_required::stale()) };
        if input_required::answer(self.request)
            .is_some_and(|answer| answer.action != ElicitationAction::Accept)
        {
            return Ok(declined(&pending));
        }
        let _waiting = pending.waiting_call();
        match waited(&pending, ROUND_WAIT.min(self.time_for_the_person()), self.host).await {
            State::SignedIn { .. } => Ok(None),
            State::Ended(end) => Ok(Some(ended(end))),
            State::Open | State::Verifying { .. } => {
                let asked = PendingInput::SignIn(name.to_owned());
                let states = &self.server.inner.request_states;
                states.continue_without_input(asked, self.request).map(|question| Some(question.into()))
            }
        }
    }
}

/// Handles a question that the person declined; other callers may still wait for the page.
fn declined(pending: &Pending) -> Option<Answer> {
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

fn link_delivery(host: &Host) -> LinkDelivery {
    match host.opens_links() {
        true if host.asks_in_rounds() => LinkDelivery::InputRequired,
        true if host.speaks(&ProtocolVersion::V_2025_11_25) => LinkDelivery::WhileOpen,
        _ => LinkDelivery::InAnswer,
    }
}

/// Waits for the end of the sign-in, at most `at_most`, and sends progress to a host that asked for it.
async fn waited(pending: &Pending, at_most: Duration, host: &Host) -> State {
    const PROGRESS_INTERVAL: Duration = Duration::from_secs(5);
    let began = tokio::time::Instant::now();
    let mut reports = 0.0;
    loop {
        let left = at_most.saturating_sub(began.elapsed());
        let state = pending.finished(left.min(PROGRESS_INTERVAL)).await;
        if !matches!(state, State::Open | State::Verifying { .. }) || left <= PROGRESS_INTERVAL {
            return state;
        }
        reports += 1.0;
        host.progress(reports, "waiting for the person to sign in").await;
    }
}

fn message(pending: &Pending) -> String {
    format!(
        "Sign in to BondMCP on a local page in your browser. Check that the page shows the code {}; if it doesn't match, close the page. Your assistant does not see what you type there.",
        pending.code()
    )
}

/// Describes the link and the command that signs in from a terminal.
pub(super) fn link_in_words(pending: &Pending, command: &str) -> String {
    let valid = match pending.expires_in().as_secs() {
        seconds @ ..120 => format!("{seconds} seconds"),
        seconds => format!("{} minutes", seconds.div_ceil(60)),
    };
    format!(
        "Give the person this link to open in a browser on this computer: {} (it shows the code {} and is valid for {valid}), or they run `{command}` in a terminal. They sign in there, never in the chat; then call again.",
        pending.url(),
        pending.code(),
    )
}

fn ended(end: End) -> Answer {
    let (message, solution) = match end {
        End::Declined => (
            "The person declined to sign in.",
            "Continue without BondMCP, or ask whether they want to sign in.",
        ),
        End::Gone => ("The process that served the sign-in page has ended.", "Call again for a new link."),
        End::TimedOut => (
            "The sign-in link expired before the person signed in.",
            "Ask the person, then call again for a new link.",
        ),
        End::TooManyAttempts => (
            "The sign-in ended after too many wrong passwords.",
            "Ask the person, then call again for a new link.",
        ),
    };
    ToolError::new(Kind::SignInRequired, message, solution).into()
}
