//! The HTML of the sign-in page. Askama escapes every value.

use askama::Template;
use axum::{
    http::StatusCode,
    response::{Html, IntoResponse, Response},
};

use super::{
    End, Pages, Place, SignInMethod, State,
    page_session::{PageSession, View},
    problem::{Field, Problem},
    protect::Nonce,
};
use crate::config::DEFAULT_BASE_URL;

pub const STYLE: &str = include_str!("templates/style.css");
pub const MARK: &str = include_str!("templates/mark.svg");

/// The frame of every page.
pub(super) struct Frame<'a> {
    pub place: &'a Place,
    /// Path of the page.
    pub path: String,
    pub nonce: Nonce,
    pub has_script: bool,
    /// The state that the page's script compares with the current one; `None` where it does not.
    pub watched: Option<&'static str>,
    pub in_terminal: bool,
    /// Whether the page signs in to an account that is known, so that whoever asked for it has its link and its code.
    pub has_account: bool,
    /// Names what the sign-in is for, for whoever helps the person.
    pub reference: Option<&'a str>,
}

impl<'a> Frame<'a> {
    /// Returns the frame of a page that belongs to no sign-in.
    pub fn plain(place: &'a Place, in_terminal: bool, has_account: bool) -> Self {
        Self {
            place,
            path: String::new(),
            nonce: Nonce::random(),
            has_script: false,
            watched: None,
            in_terminal,
            has_account,
            reference: None,
        }
    }

    /// Whatever shows the link and the code.
    fn shown_by(&self) -> &'static str {
        if self.in_terminal { "Your terminal" } else { "Your assistant" }
    }

    pub fn for_a_new_link(&self) -> &'static str {
        if self.in_terminal {
            "Run the command again for a new link."
        } else if !self.has_account {
            "Start again from the app that you are connecting."
        } else {
            "Ask your assistant for a new link."
        }
    }
}

/// The kind of address that requests go to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum UpstreamKind {
    Standard,
    Custom,
    Sandbox,
}

#[derive(Template)]
#[template(path = "form.html")]
pub(super) struct FormPage<'a> {
    pub frame: Frame<'a>,
    pub form_token: &'a str,
    /// The code to compare; whoever signs in to an account that is not known yet has been shown none.
    pub code: Option<&'a str>,
    /// The account that is signed in to, in words that tell nobody whose it is.
    pub account: Option<&'a str>,
    /// Name of the profile on the person's own computer.
    pub profile: Option<&'a str>,
    pub upstream: &'a str,
    pub upstream_kind: UpstreamKind,
    pub requested_by: &'a [String],
    /// Description of where credentials are stored on the person's own computer.
    pub vault_location: Option<String>,
    pub seconds_left: u64,
    pub method: SignInMethod,
    /// Whether somebody without a BondMCP account can use the page.
    pub offers_account: bool,
    /// Whether an API key is sufficient for the pending calls.
    pub offers_key: bool,
    pub email: &'a str,
    pub remember: bool,
    pub problem: Option<&'a Problem>,
}

impl FormPage<'_> {
    fn heading(&self) -> &'static str {
        match self.method {
            SignInMethod::SignIn => "Sign in to BondMCP",
            SignInMethod::CreateAccount => "Create a BondMCP account",
            SignInMethod::ApiKey => "Use a BondMCP API key",
        }
    }

    fn action(&self) -> &'static str {
        match self.method {
            SignInMethod::SignIn => "sign-in",
            SignInMethod::CreateAccount => "create",
            SignInMethod::ApiKey => "key",
        }
    }

    fn time_left(&self) -> String {
        time(self.seconds_left)
    }

    fn offers_other_ways(&self) -> bool {
        self.method != SignInMethod::SignIn || self.offers_account || self.offers_key
    }

    /// Returns the problem with `field`.
    fn message(&self, field: Field) -> Option<&str> {
        self.problem.filter(|problem| problem.field == field).map(|problem| problem.message.as_str())
    }

    /// Returns the attributes of the input of `field`: its descriptions, and the focus if it is wrong.
    fn attributes(&self, field: Field) -> &'static str {
        let is_new = self.method == SignInMethod::CreateAccount;
        match (field, self.message(field).is_some()) {
            (Field::Email, true) => r#"aria-invalid="true" aria-describedby="email-error" autofocus"#,
            (Field::Password, true) if is_new => {
                r#"aria-invalid="true" aria-describedby="password-error password-hint" autofocus"#
            }
            (Field::Password, true) => r#"aria-invalid="true" aria-describedby="password-error" autofocus"#,
            (Field::Password, false) if is_new => r#"aria-describedby="password-hint""#,
            (Field::Key, true) => r#"aria-invalid="true" aria-describedby="key-error key-hint" autofocus"#,
            (Field::Key, false) => r#"aria-describedby="key-hint""#,
            _ => "",
        }
    }
}

#[derive(Template)]
#[template(path = "verify.html")]
struct VerifyPage<'a> {
    frame: Frame<'a>,
    form_token: &'a str,
    email: &'a str,
    /// The link in the e-mail, where no e-mail is sent.
    link: Option<&'a str>,
    seconds_left: u64,
    /// The outcome of a check that the person asked for.
    message: Option<&'a str>,
}

impl VerifyPage<'_> {
    fn time_left(&self) -> String {
        time(self.seconds_left)
    }
}

#[derive(Template)]
#[template(path = "end.html")]
pub(super) struct EndPage<'a> {
    pub frame: Frame<'a>,
    pub title: &'a str,
    pub text: &'a str,
    pub who: Option<&'a str>,
}

/// Returns the page for the current state of the sign-in: while it is open, the form of `method` or the one that the
/// page opens on.
pub fn current(session: &PageSession, method: Option<SignInMethod>) -> Response {
    let view = session.view();
    match (session.pending().state(), session.pending().is_open()) {
        (State::Open, true) => {
            let shown = view.problem.as_ref().map(|(method, _)| *method);
            let method = method.or(shown).unwrap_or(view.opens_on);
            let problem = view.problem.as_ref().filter(|(of, _)| *of == method).map(|(_, problem)| problem);
            form(session, &view, method, problem)
        }
        (State::Verifying { email }, true) => verification(session, &view, &email, None),
        (state, _) => end(session, &view, &state),
    }
}

/// Returns the form of `method` with a problem, or the end if the problem ended the sign-in.
pub fn with_problem(session: &PageSession, method: SignInMethod, problem: &Problem) -> Response {
    match session.pending().state() {
        State::Open if session.pending().is_open() => form(session, &session.view(), method, Some(problem)),
        _ => current(session, None),
    }
}

/// Returns the page that waits for the verification, with the reason why it still does.
pub fn still_waiting(session: &PageSession, reason: &Problem) -> Response {
    match session.pending().state() {
        State::Verifying { email } if session.pending().is_open() => {
            verification(session, &session.view(), &email, Some(&reason.message))
        }
        _ => current(session, None),
    }
}

/// Returns the page of a link that leads nowhere.
pub fn unknown(pages: &Pages) -> Response {
    let frame = Frame::plain(pages.place(), pages.are_in_terminals(), true);
    let page = EndPage { text: frame.for_a_new_link(), frame, title: "This link isn't valid", who: None };
    rendered(StatusCode::NOT_FOUND, page.frame.nonce.clone(), &page)
}

/// Returns the name of the current state, for the page's script.
pub fn state(session: &PageSession) -> &'static str {
    match (session.pending().state(), session.pending().is_open()) {
        (State::Open, true) => "open",
        (State::Verifying { .. }, true) => "verifying",
        (State::SignedIn { .. }, _) => "signed-in",
        _ => "ended",
    }
}

fn form(session: &PageSession, view: &View, method: SignInMethod, problem: Option<&Problem>) -> Response {
    let (pending, account) = (session.pending(), session.account());
    let upstream = account.upstream().as_str();
    let page = FormPage {
        frame: frame(session, view, Some(state(session))),
        form_token: session.form_token(),
        code: Some(pending.code()),
        account: None,
        profile: Some(account.name()),
        upstream,
        upstream_kind: upstream_kind(upstream, session.demo().is_some()),
        requested_by: &view.requested_by,
        vault_location: Some(account.vault_location()),
        seconds_left: pending.expires_in().as_secs(),
        method,
        offers_account: true,
        offers_key: session.takes_keys(),
        email: &view.email,
        remember: view.remember,
        problem,
    };
    with_status(&page)
}

pub(super) fn upstream_kind(upstream: &str, is_sandbox: bool) -> UpstreamKind {
    match is_sandbox {
        true => UpstreamKind::Sandbox,
        false if upstream == DEFAULT_BASE_URL => UpstreamKind::Standard,
        false => UpstreamKind::Custom,
    }
}

/// Renders a form.
pub(super) fn with_status(page: &FormPage) -> Response {
    let status = if page.problem.is_some() { StatusCode::UNPROCESSABLE_ENTITY } else { StatusCode::OK };
    rendered(status, page.frame.nonce.clone(), page)
}

fn verification(session: &PageSession, view: &View, email: &str, message: Option<&str>) -> Response {
    let link = session.demo().and_then(|demo| (demo.verification_link)(email));
    let page = VerifyPage {
        frame: frame(session, view, Some(state(session))),
        form_token: session.form_token(),
        email,
        link: link.as_deref(),
        seconds_left: session.pending().expires_in().as_secs(),
        message,
    };
    rendered(StatusCode::OK, page.frame.nonce.clone(), &page)
}

/// Returns the page of a sign-in that has ended.
fn end(session: &PageSession, view: &View, state: &State) -> Response {
    let frame = frame(session, view, None);
    let (title, text, who) = match state {
        State::SignedIn { email } => {
            let next = if session.pending().call_continues() {
                "You can close this tab. Your assistant continues by itself."
            } else if frame.in_terminal {
                "You can close this tab and return to your terminal."
            } else {
                "You can close this tab. Then tell your assistant that you have signed in."
            };
            ("You are signed in", next, Some(email.as_deref().unwrap_or("the owner of the API key")))
        }
        State::Ended(End::TooManyAttempts) => ("Too many failed attempts", frame.for_a_new_link(), None),
        _ => ("This sign-in link has expired", frame.for_a_new_link(), None),
    };
    let status = if who.is_some() { StatusCode::OK } else { StatusCode::GONE };
    let page = EndPage { frame, title, text, who };
    rendered(status, page.frame.nonce.clone(), &page)
}

fn frame<'a>(session: &'a PageSession, view: &View, watched: Option<&'static str>) -> Frame<'a> {
    Frame {
        place: session.place(),
        path: session.path(),
        nonce: Nonce::random(),
        has_script: watched.is_some(),
        watched,
        in_terminal: view.in_terminal,
        has_account: true,
        reference: None,
    }
}

/// Formats the remaining time as the page's script does.
pub(super) fn time(seconds: u64) -> String {
    if seconds > 90 {
        format!("{} minutes", seconds.div_ceil(60))
    } else {
        format!("{} seconds", seconds.div_ceil(10) * 10)
    }
}

pub(super) fn rendered(status: StatusCode, nonce: Nonce, page: &impl Template) -> Response {
    match page.render() {
        Ok(html) => (status, axum::Extension(nonce), Html(html)).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}
