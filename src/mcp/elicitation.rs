//! Just-in-time sign-in: a call that needs an account and has none starts a sign-in and continues when the person has
//! signed in. How the person gets the link depends on the host: by URL elicitation where the host supports it, else in
//! an ordinary answer. Form elicitation is never used for a secret.

use std::{sync::Arc, time::Duration};

use rmcp::{
    ErrorData,
    model::{ElicitRequestParams, ElicitationAction},
};

use super::{
    answer::Answer,
    call::Call,
    host::Host,
    input_required::{self, PendingInput},
    tool_error::ToolError,
};
use crate::{
    account::{self, RequiredCredential, SignInReason},
    error::{Kind, UserFacingError},
    sign_in::{End, Pending, Request, SignIn, SignInMethod, State},
};

/// Longest wait of a retry for the page: hosts abandon a call after a minute.
const ROUND_WAIT: Duration = Duration::from_secs(25);

/// Longest wait for the page when the person has said that they are done with it.
const DONE_WAIT: Duration = Duration::from_secs(3);

/// Rounds until the agent gets the link: hosts abandon a call after ten.
const MOST_ROUNDS: u8 = 9;

/// The way in which the person gets the link.
enum LinkDelivery {
    /// 2026-07-28 with URL elicitation: the call is answered with the question, and the host repeats it.
    InputRequired,
    /// Earlier revisions with URL elicitation: the host is asked while the call is open. It came with 2025-11-25, but
    /// what a host declares counts: Codex speaks 2025-06-18.
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
        let Some(sign_in) = &self.server.sign_in else { return Ok(None) };
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
        if let (LinkDelivery::InputRequired, Some(PendingInput::SignIn { name, round })) = (&delivery, asked)
        {
            return self.next_round(sign_in, name, *round).await;
        }
        if let LinkDelivery::InAnswer = delivery
            && self.tool.explains_sign_in
        {
            return Ok(None);
        }
        let request = Request { requested_by: self.host.name(), ..Request::new(need) };
        let pending = match self.server.begin_sign_in(sign_in, request).await {
            Ok(pending) => pending,
            Err(error) => return Ok(Some(ToolError::from(UserFacingError::from(&error)).into())),
        };
        match delivery {
            LinkDelivery::InputRequired => self.ask_in_round(&pending, message(&pending), 1).await,
            LinkDelivery::WhileOpen => Ok(self.while_open(&pending).await),
            LinkDelivery::InAnswer => {
                sign_in.show().await;
                Ok(Some(self.in_words(&pending)))
            }
        }
    }

    /// Asks the person in the call's `round`.
    async fn ask_in_round(
        &self,
        pending: &Pending,
        message: String,
        round: u8,
    ) -> Result<Option<Answer>, ErrorData> {
        let asked = PendingInput::SignIn { name: pending.name().to_owned(), round };
        let question = elicitation(pending, message, String::new());
        let states = &self.server.shared.request_states;
        states.ask(self.account(), asked, question, self.request).await.map(Some)
    }

    /// Revisions before 2026-07-28: the host is asked while the call stays open. At the call's deadline the agent gets
    /// the link: the page outlives the call.
    async fn while_open(&self, pending: &Pending) -> Option<Answer> {
        let asked = self.ask(self.signed_in_while_open(pending)).await;
        asked.unwrap_or_else(|failure| Some(failure.into()))
    }

    /// The person may be done with the page before the host answers: some hosts wait for the completion notification,
    /// and the link may have been opened elsewhere.
    async fn signed_in_while_open(&self, pending: &Pending) -> Option<Answer> {
        let question = elicitation(pending, message(pending), pending.name().to_owned());
        let Ok(mut question) = self.host.elicit(question).await else {
            return Some(self.in_words(pending));
        };
        let time = pending.expires_in().min(self.time_for_the_person());
        let _waiting = pending.waiting_call();
        let action = tokio::select! {
            answer = question.answered() => answer.map(|answer| answer.action),
            // The question ends with its link or with the call.
            _ = pending.finished(time) => Some(ElicitationAction::Accept),
        };
        match action {
            Some(ElicitationAction::Accept) => {}
            Some(ElicitationAction::Decline) => return self.declined(pending),
            Some(_) => return self.cancelled(pending),
            None => return Some(self.in_words(pending)),
        }
        let state = waited(pending, self.time_for_the_person(), self.host).await;
        if let State::SignedIn { .. } = state
            && self.host.page_is_done(pending.name()).await.is_err()
        {
            tracing::debug!("the host could not be notified that the elicitation is complete");
        }
        question.take_back().await;
        match state {
            State::SignedIn { .. } => None,
            State::Ended(end) => Some(ended(end)),
            State::Open | State::Verifying { .. } if pending.is_open() => Some(self.in_words(pending)),
            State::Open | State::Verifying { .. } => Some(ended(End::TimedOut)),
        }
    }

    /// Answers a host without URL elicitation: the agent passes the link on.
    fn in_words(&self, pending: &Pending) -> Answer {
        self.not_signed_in(pending, self.host.may_be_one_shot())
    }

    /// `cancel`: nobody has decided anything. Hosts answer so when there is nobody to ask, as those do that were started
    /// by a script and end with their answer.
    fn cancelled(&self, pending: &Pending) -> Option<Answer> {
        match pending.state() {
            State::SignedIn { .. } => None,
            _ => Some(self.not_signed_in(pending, true)),
        }
    }

    /// `decline`: the person does not want it now, or the host has answered for them. The page stays good: other
    /// callers may wait for it, and the person may have its link from elsewhere.
    fn declined(&self, pending: &Pending) -> Option<Answer> {
        let next = if pending.is_public() {
            format!("they open {} in a browser", pending.url())
        } else {
            format!("they run {} in a terminal", self.account().login_command(None))
        };
        let failure = ToolError::new(
            Kind::SignInRequired,
            "Not signed in to BondMCP: the question to open the sign-in page was declined.",
            format!(
                "Continue without BondMCP. If the person was not asked or wants to sign in after all, {next}, outside the chat; then call again."
            ),
        );
        (!matches!(pending.state(), State::SignedIn { .. })).then(|| failure.into())
    }

    fn not_signed_in(&self, pending: &Pending, is_one_shot: bool) -> Answer {
        let report = match pending.state() {
            State::Verifying { .. } => UserFacingError::new(
                Kind::EmailNotVerified,
                "The account is created, but its e-mail address is not verified yet.",
                "Ask the person to open the link in the e-mail from BondMCP; then call again.",
            ),
            _ => UserFacingError::new(
                Kind::SignInRequired,
                "Not signed in to BondMCP.",
                link_in_words(pending, &self.account().login_command(None), is_one_shot),
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
        let Some(sign_in) = &self.server.sign_in else { return Ok(None) };
        let need = RequiredCredential::Api;
        let request = Request { requested_by: self.host.name(), email, opens_on, ..Request::new(need) };
        let begun = self.server.begin_sign_in(sign_in, request).await;
        let pending = begun.map_err(|error| UserFacingError::from(&error))?;
        sign_in.show().await;
        Ok(Some(pending))
    }

    /// Handles a retry after the person was asked. Waits for the page, then continues the call or asks for another
    /// round. The person is asked again only where their answer has taken the link away.
    async fn next_round(&self, sign_in: &SignIn, name: &str, round: u8) -> Result<Option<Answer>, ErrorData> {
        let pending = match sign_in.named(name).await {
            Ok(Some(pending)) => pending,
            Ok(None) => return Err(input_required::stale()),
            Err(error) => return Ok(Some(ToolError::from(UserFacingError::from(&error)).into())),
        };
        match input_required::answer(self.request).map(|answer| answer.action) {
            Some(ElicitationAction::Decline) => return Ok(self.declined(&pending)),
            Some(ElicitationAction::Cancel) => return Ok(self.cancelled(&pending)),
            _ => {}
        }
        let _waiting = pending.waiting_call();
        let is_link_gone = self.host.accepts_when_done();
        let wait = if is_link_gone { DONE_WAIT } else { ROUND_WAIT };
        match waited(&pending, wait.min(self.time_for_the_person()), self.host).await {
            State::SignedIn { .. } => Ok(None),
            State::Ended(end) => Ok(Some(ended(end))),
            State::Open | State::Verifying { .. } if round >= MOST_ROUNDS => {
                Ok(Some(self.in_words(&pending)))
            }
            State::Open | State::Verifying { .. } if is_link_gone => {
                self.ask_in_round(&pending, message_again(&pending), round + 1).await
            }
            State::Open | State::Verifying { .. } => {
                let asked = PendingInput::SignIn { name: name.to_owned(), round: round + 1 };
                let states = &self.server.shared.request_states;
                states.continue_without_input(self.account(), asked, self.request).await.map(Some)
            }
        }
    }
}

/// `id` is for revisions before 2026-07-28; later ones have none.
fn elicitation(pending: &Pending, message: String, id: String) -> ElicitRequestParams {
    ElicitRequestParams::UrlElicitationParams {
        meta: None,
        message,
        url: pending.url().to_owned(),
        elicitation_id: id,
    }
}

fn link_delivery(host: &Host) -> LinkDelivery {
    match host.opens_links() {
        true if host.asks_in_rounds() => LinkDelivery::InputRequired,
        true => LinkDelivery::WhileOpen,
        false => LinkDelivery::InAnswer,
    }
}

/// Waits for the end of the sign-in, at most `at_most`, and sends progress to a host that asked for it.
async fn waited(pending: &Pending, at_most: Duration, host: &Host) -> State {
    const PROGRESS_INTERVAL: Duration = Duration::from_secs(5);
    let began = tokio::time::Instant::now();
    loop {
        let left = at_most.saturating_sub(began.elapsed());
        let state = pending.finished(left.min(PROGRESS_INTERVAL)).await;
        if !matches!(state, State::Open | State::Verifying { .. }) || left <= PROGRESS_INTERVAL {
            return state;
        }
        host.progress("waiting for the person to sign in").await;
    }
}

/// The code comes first: terminals cut long questions.
fn message(pending: &Pending) -> String {
    format!(
        "Code {}: sign in to BondMCP on the {} that shows it. If the page shows another code, close it. Your assistant does not see what you type there.",
        pending.code(),
        kind_of_page(pending)
    )
}

fn message_again(pending: &Pending) -> String {
    format!(
        "Code {}: you are not signed in to BondMCP yet. Finish on the {} that shows the code, then answer here.",
        pending.code(),
        kind_of_page(pending)
    )
}

fn kind_of_page(pending: &Pending) -> &'static str {
    if pending.is_public() { "page" } else { "local page" }
}

/// Describes the link and, for a page on the person's own computer, the command that signs in from a terminal. The
/// command comes first where the host and with it the link may end with the answer.
pub(super) fn link_in_words(pending: &Pending, command: &str, is_one_shot: bool) -> String {
    let valid = match pending.expires_in().as_secs() {
        seconds @ ..120 => format!("{seconds} seconds"),
        seconds => format!("{} minutes", seconds.div_ceil(60)),
    };
    let (url, code) = (pending.url(), pending.code());
    if pending.is_public() {
        format!(
            "Give the person this link to open in a browser: {url} (it shows the code {code} and is valid for {valid}). They sign in there, never in the chat; then call again."
        )
    } else if is_one_shot {
        format!(
            "Ask the person to run {command} in a terminal, outside the chat; then call again. As long as this host runs, a link works too, for {valid}, in a browser on this computer: {url} (it shows the code {code})."
        )
    } else {
        format!(
            "Give the person this link to open in a browser on this computer: {url} (it shows the code {code} and is valid for {valid}, as long as this host runs), or they run {command} in a terminal. They sign in there, never in the chat; then call again."
        )
    }
}

fn ended(end: End) -> Answer {
    let (message, solution) = match end {
        End::Gone => ("The process that served the sign-in page has ended.", "Call again for a new link."),
        End::TimedOut => (
            "The sign-in link expired before the person signed in.",
            "Ask the person, then call again for a new link.",
        ),
        End::TooManyAttempts => (
            "The sign-in ended after too many failed attempts.",
            "Ask the person, then call again for a new link.",
        ),
    };
    ToolError::new(Kind::SignInRequired, message, solution).into()
}
