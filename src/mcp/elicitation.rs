//! Just-in-time sign-in: a call that needs an account and finds none starts a sign-in and, when the person is done, goes
//! on. How the person gets the link depends on the host: by URL elicitation where it can, else in an ordinary answer.
//! Form elicitation is never used for a secret.

use std::{sync::Arc, time::Duration};

use rmcp::{
    ErrorData,
    model::{ElicitRequestParams, ElicitResult, ElicitationAction, ProtocolVersion},
};
use url::Url;

use super::{
    call::{Answer, Call},
    failure::Failure,
    host::Host,
    rounds::{self, Asked},
};
use crate::{
    account::{self, SignInReason},
    error::{Kind, Report},
    sign_in::{End, Pending, SignIn, State},
};

/// A retry waits so long for the page: hosts give up a call after a minute, and after ten rounds.
const ROUND: Duration = Duration::from_secs(25);

/// Which way the person gets the link.
enum Way {
    /// 2026-07-28 with URL elicitation: in rounds.
    Rounds,
    /// 2025-11-25 with URL elicitation: while the call is open.
    WhileOpen,
    /// Everybody else: in the answer.
    Answer,
}

impl Call<'_> {
    /// Signs the person in where the call needs it: `None` when it can go on, an answer when it cannot.
    pub(super) async fn sign_in_first(&self, asked: Option<&Asked>) -> Result<Option<Answer>, ErrorData> {
        let Some(sign_in) = &self.server.inner.sign_in else { return Ok(None) };
        let Some(need) = self.tool.credential else { return Ok(None) };
        match self.at_work(self.account().bearer(need)).await {
            // The operator's credentials are wrong; a page would not mend them.
            Err(account::Error::SignInRequired { why: SignInReason::EnvironmentRejected, .. }) => {
                return Ok(None);
            }
            Err(account::Error::SignInRequired { .. }) => {}
            // The tool would meet it again, and try the password once more.
            Err(error) => return Ok(Some(Failure::from(error).into())),
            Ok(_) => return Ok(None),
        }
        // Seldom, and much to remember for a call that does not need it.
        Box::pin(self.sign_in(sign_in, asked)).await
    }

    async fn sign_in(&self, sign_in: &SignIn, asked: Option<&Asked>) -> Result<Option<Answer>, ErrorData> {
        let way = way(self.host);
        if let (Way::Rounds, Some(Asked::SignIn(name))) = (&way, asked) {
            return self.next_round(sign_in, name).await;
        }
        if let Way::Answer = way
            && self.tool.explains_sign_in
        {
            return Ok(None);
        }
        let pending = match sign_in.begin(self.host.name()).await {
            Ok(pending) => pending,
            Err(error) => return Ok(Some(Failure::from(Report::from(&error)).into())),
        };
        match way {
            Way::Rounds => {
                let asked = Asked::SignIn(pending.name().to_owned());
                self.server
                    .inner
                    .rounds
                    .ask(asked, elicitation(&pending), self.request)
                    .map(|question| Some(question.into()))
            }
            Way::WhileOpen => self.while_open(&pending).await,
            Way::Answer => {
                sign_in.show(&pending);
                Ok(Some(self.in_words(&pending)))
            }
        }
    }

    /// 2025-11-25: the host is asked while the call stays open.
    async fn while_open(&self, pending: &Pending) -> Result<Option<Answer>, ErrorData> {
        let url: Url = pending
            .url()
            .parse()
            .map_err(|_| ErrorData::internal_error("the sign-in page has no address", None))?;
        let time = self.time_for_the_person().min(pending.expires_in());
        let asked = self.ask(self.host.opens_page(&message(pending), url, pending.name(), time)).await;
        match asked {
            Err(failure) => return Ok(Some(failure.into())),
            Ok(Ok(ElicitationAction::Accept)) => {}
            Ok(Ok(_)) => {
                pending.end(End::Declined);
                return Ok(Some(ended(End::Declined)));
            }
            Ok(Err(_)) => return Ok(Some(self.in_words(pending))),
        }
        match waited(pending, self.time_for_the_person(), self.host).await {
            State::SignedIn { .. } => {
                if self.host.page_is_done(pending.name()).await.is_err() {
                    tracing::debug!("the host was not told that the elicitation is complete");
                }
                Ok(None)
            }
            State::Ended(end) => Ok(Some(ended(end))),
            State::Open | State::Verifying { .. } => Ok(Some(self.in_words(pending))),
        }
    }

    /// For hosts without URL elicitation: the agent passes the link on.
    fn in_words(&self, pending: &Pending) -> Answer {
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
        Failure::from(report).into()
    }

    /// The sign-in page for a tool that tells of it in its own words; `None` where the person can reach none.
    pub(super) async fn sign_in_page(&self, email: Option<String>) -> Result<Option<Arc<Pending>>, Failure> {
        let _ = email;
        let Some(sign_in) = &self.server.inner.sign_in else { return Ok(None) };
        let pending = sign_in.begin(self.host.name()).await.map_err(|error| Report::from(&error))?;
        sign_in.show(&pending);
        Ok(Some(pending))
    }

    /// A retry: the person has been asked. Waits a while for the page, then lets the call go on or asks for another
    /// round, without asking the person again.
    async fn next_round(&self, sign_in: &SignIn, name: &str) -> Result<Option<Answer>, ErrorData> {
        let Some(pending) = sign_in.named(name).await else { return Err(rounds::stale()) };
        if let Some(ElicitResult { action: ElicitationAction::Decline | ElicitationAction::Cancel, .. }) =
            rounds::answer(self.request)
        {
            pending.end(End::Declined);
        }
        match waited(&pending, ROUND, self.host).await {
            State::SignedIn { .. } => Ok(None),
            State::Ended(end) => Ok(Some(ended(end))),
            State::Open | State::Verifying { .. } => self
                .server
                .inner
                .rounds
                .go_on(Asked::SignIn(name.to_owned()), self.request)
                .map(|question| Some(question.into())),
        }
    }
}

fn elicitation(pending: &Pending) -> ElicitRequestParams {
    ElicitRequestParams::UrlElicitationParams {
        meta: None,
        message: message(pending),
        url: pending.url().to_owned(),
        elicitation_id: String::new(),
    }
}

fn way(host: &Host) -> Way {
    match host.opens_links() {
        true if host.asks_in_rounds() => Way::Rounds,
        true if host.speaks(&ProtocolVersion::V_2025_11_25) => Way::WhileOpen,
        _ => Way::Answer,
    }
}

/// Waits for the end of the sign-in, at most so long, and tells a host that wants to know that it is still waited.
async fn waited(pending: &Pending, at_most: Duration, host: &Host) -> State {
    const TICK: Duration = Duration::from_secs(5);
    let began = tokio::time::Instant::now();
    let mut ticks = 0.0;
    loop {
        let left = at_most.saturating_sub(began.elapsed());
        let state = pending.finished(left.min(TICK)).await;
        if !matches!(state, State::Open | State::Verifying { .. }) || left <= TICK {
            return state;
        }
        ticks += 1.0;
        host.progress(ticks, "waiting for the person to sign in").await;
    }
}

fn message(pending: &Pending) -> String {
    format!(
        "Sign in to BondMCP on a page of your own computer. It shows the code {}; if it shows another, close it. What you type there is not seen by the assistant.",
        pending.code()
    )
}

/// The link and, for a person who likes a terminal better, the command that does the same.
pub(super) fn link_in_words(pending: &Pending, command: &str) -> String {
    format!(
        "Give the person this link to open in the browser of this computer: {} (it shows the code {}, and holds for {} minutes), or they run `{command}` in a terminal. They sign in there, never in the chat; then call again. A host with URL elicitation is safer, as it shows the link itself.",
        pending.url(),
        pending.code(),
        pending.expires_in().as_secs().div_ceil(60)
    )
}

fn ended(end: End) -> Answer {
    let (message, solution) = match end {
        End::Declined => {
            ("The person declined to sign in.", "Go on without BondMCP, or ask them whether they want to.")
        }
        End::Gone => ("The program that showed the sign-in page has ended.", "Call again for a new link."),
        End::TimedOut => ("Nobody signed in in time.", "Ask the person, then call again for a new link."),
        End::TooManyAttempts => (
            "The sign-in ended after too many wrong passwords.",
            "Call again when the person has the right one.",
        ),
    };
    Failure::new(Kind::SignInRequired, message, solution).into()
}
