//! The HTML of a hosted server's sign-in pages.

use askama::Template;
use axum::{http::StatusCode, response::Response};

use super::{PublicPage, PublicPages, Purpose};
pub use crate::sign_in::views::{MARK, STYLE};
use crate::{
    secret::{ExposeSecret as _, SecretString},
    sign_in::{
        End, Problem, SignInMethod, State,
        protect::Nonce,
        views::{EndPage, FormPage, Frame, rendered, time, upstream_kind, with_status},
    },
};

#[derive(Template)]
#[template(path = "public_verify.html")]
struct VerifyPage<'a> {
    frame: Frame<'a>,
    form_token: &'a str,
    email: &'a str,
    /// The link in the e-mail, where no e-mail is sent.
    link: Option<&'a str>,
    seconds_left: u64,
    /// Why the person could not be signed in.
    message: Option<&'a str>,
}

impl VerifyPage<'_> {
    fn time_left(&self) -> String {
        time(self.seconds_left)
    }
}

/// Returns the form of `method`; with the problem that its last use had, and the address that was typed.
#[must_use]
pub fn form(
    page: &PublicPage,
    form_token: &SecretString,
    method: SignInMethod,
    problem: Option<(&Problem, &str)>,
) -> Response {
    let pages = &page.pages;
    let upstream = pages.authenticator().upstream().as_str();
    let (account, requested_by, code) = match page.purpose() {
        Purpose::Owner { account, requested_by, .. } => {
            (account.as_deref(), &**requested_by, Some(&*page.page.code))
        }
        Purpose::Browser { .. } => (None, &[][..], None),
    };
    // Whoever owns an account has one.
    let offers_account = matches!(page.purpose(), Purpose::Browser { .. });
    let method = if offers_account { method } else { SignInMethod::SignIn };
    with_status(&FormPage {
        frame: frame(page, true),
        form_token: form_token.expose_secret(),
        code,
        account,
        profile: None,
        upstream,
        upstream_kind: upstream_kind(upstream, pages.demo().is_some()),
        requested_by,
        vault_location: None,
        seconds_left: page.expires_in().as_secs(),
        method,
        offers_account,
        // Nobody can tell whose key it is.
        offers_key: false,
        email: problem.map_or(&page.page.email, |(_, email)| email),
        remember: false,
        problem: problem.map(|(problem, _)| problem),
    })
}

/// Returns the page that waits for the verification of an address, with the reason why it still does.
#[must_use]
pub fn verification(
    page: &PublicPage,
    form_token: &SecretString,
    email: &str,
    message: Option<&str>,
) -> Response {
    let link = page.pages.demo().and_then(|demo| (demo.verification_link)(email));
    let view = VerifyPage {
        frame: frame(page, true),
        form_token: form_token.expose_secret(),
        email,
        link: link.as_deref(),
        seconds_left: page.expires_in().as_secs(),
        message,
    };
    let status = if message.is_some() { StatusCode::UNPROCESSABLE_ENTITY } else { StatusCode::OK };
    rendered(status, view.frame.nonce.clone(), &view)
}

/// Returns the page of a sign-in that has ended.
#[must_use]
pub fn end(page: &PublicPage) -> Response {
    let frame = frame(page, false);
    let (status, title, text, who) = match page.state() {
        State::SignedIn { email } => (
            StatusCode::OK,
            "You are signed in",
            "You can close this tab. If your assistant does not continue by itself, tell it that you have signed in.",
            email.as_deref(),
        ),
        State::Ended(End::TooManyAttempts) => {
            (StatusCode::GONE, "Too many wrong passwords", frame.for_a_new_link(), None)
        }
        _ => (StatusCode::GONE, "This sign-in link has expired", frame.for_a_new_link(), None),
    };
    rendered(status, frame.nonce.clone(), &EndPage { frame, title, text, who })
}

/// A page in place of a sign-in page.
#[derive(Clone, Copy, Debug)]
pub enum Notice {
    /// The link leads nowhere, or the form is not of this page.
    Unknown,
    /// The page belongs to another browser.
    OtherBrowser,
    /// The vault cannot be used now.
    Unavailable,
}

/// Returns a page that says why there is no sign-in page.
#[must_use]
pub fn notice(pages: &PublicPages, notice: Notice) -> Response {
    let (status, title, text) = match notice {
        Notice::Unknown => (
            StatusCode::NOT_FOUND,
            "This link isn't valid",
            "It may have expired. Start again from your assistant, or from the app that you are connecting.",
        ),
        Notice::OtherBrowser => (
            StatusCode::FORBIDDEN,
            "This page belongs to another browser",
            "Somebody began to sign in in another browser, or cookies are blocked here. Start again from the app that you are connecting, in this browser. If you did not begin it, close this page.",
        ),
        Notice::Unavailable => (
            StatusCode::SERVICE_UNAVAILABLE,
            "This server cannot sign you in at the moment",
            "Load the page again in a minute.",
        ),
    };
    let frame = Frame::plain(pages.place(), false, false);
    rendered(status, frame.nonce.clone(), &EndPage { frame, title, text, who: None })
}

fn frame(page: &PublicPage, has_script: bool) -> Frame<'_> {
    let reference = match page.purpose() {
        Purpose::Browser { reference, .. } => reference.as_deref(),
        Purpose::Owner { .. } => None,
    };
    Frame {
        place: page.pages.place(),
        path: page.path(),
        nonce: Nonce::random(),
        has_script,
        watched: None,
        in_terminal: false,
        has_account: matches!(page.purpose(), Purpose::Owner { .. }),
        reference,
    }
}
