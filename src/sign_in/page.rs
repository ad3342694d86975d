//! The page itself: three ways to sign in, without a script. A GET changes nothing, so that a link scanner does no harm.

use std::sync::Arc;

use askama::Template;
use axum::{
    Router,
    extract::{DefaultBodyLimit, Form, Path, State as Shared},
    http::{StatusCode, header::CONTENT_TYPE},
    middleware,
    response::{Html, IntoResponse, Response},
    routing::{get, post},
};
use serde::Deserialize;

use super::{End, Pending, State, protect};
use crate::{error::Report, secret::SecretString};

/// The largest form that is taken, in bytes.
const LARGEST_FORM: usize = 16 << 10;

pub fn router(pending: Arc<Pending>) -> Router {
    Router::new()
        .route("/{id}", get(show))
        .route("/{id}/sign-in", post(sign_in))
        .route("/{id}/create", post(create))
        .route("/{id}/key", post(use_key))
        .route("/style.css", get(style))
        .layer(DefaultBodyLimit::max(LARGEST_FORM))
        .layer(middleware::from_fn_with_state(Arc::clone(&pending), protect::guard))
        .with_state(pending)
}

/// Which of the three ways stands open.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    SignIn,
    Create,
    Key,
}

#[derive(Template)]
#[template(path = "form.html")]
struct FormPage<'a> {
    path: &'a str,
    form_token: &'a str,
    code: &'a str,
    profile: &'a str,
    upstream: &'a str,
    asked_by: Option<&'a str>,
    way: Way,
    email: &'a str,
    remember: bool,
    problem: Option<&'a Report>,
}

#[derive(Template)]
#[template(path = "verify.html")]
struct VerifyPage<'a> {
    path: &'a str,
    email: &'a str,
}

#[derive(Template)]
#[template(path = "end.html")]
struct EndPage<'a> {
    title: &'a str,
    text: &'a str,
    who: Option<&'a str>,
}

#[derive(Deserialize)]
struct Account {
    form_token: SecretString,
    email: String,
    password: SecretString,
    remember: Option<String>,
}

#[derive(Deserialize)]
struct OwnKey {
    form_token: SecretString,
    key: SecretString,
}

async fn show(Shared(pending): Shared<Arc<Pending>>, Path(id): Path<String>) -> Response {
    if !pending.is_path(&id) {
        return unknown();
    }
    match pending.state() {
        State::Open if pending.is_open() => form(&pending, &id, Way::SignIn, "", true, None),
        _ => standing(&pending),
    }
}

async fn sign_in(
    Shared(pending): Shared<Arc<Pending>>,
    Path(id): Path<String>,
    Form(given): Form<Account>,
) -> Response {
    if let Some(refusal) = refusal(&pending, &id, &given.form_token) {
        return refusal;
    }
    let remember = given.remember.is_some();
    match pending.sign_in(given.email.trim(), given.password, remember).await {
        Err(problem) if pending.is_open() => {
            form(&pending, &id, Way::SignIn, &given.email, remember, Some(&problem))
        }
        _ => standing(&pending),
    }
}

async fn create(
    Shared(pending): Shared<Arc<Pending>>,
    Path(id): Path<String>,
    Form(given): Form<Account>,
) -> Response {
    if let Some(refusal) = refusal(&pending, &id, &given.form_token) {
        return refusal;
    }
    let remember = given.remember.is_some();
    match pending.create(given.email.trim().to_owned(), given.password, remember).await {
        Err(problem) => form(&pending, &id, Way::Create, &given.email, remember, Some(&problem)),
        Ok(()) => standing(&pending),
    }
}

async fn use_key(
    Shared(pending): Shared<Arc<Pending>>,
    Path(id): Path<String>,
    Form(given): Form<OwnKey>,
) -> Response {
    if let Some(refusal) = refusal(&pending, &id, &given.form_token) {
        return refusal;
    }
    match pending.use_key(given.key).await {
        Err(problem) if pending.is_open() => form(&pending, &id, Way::Key, "", true, Some(&problem)),
        _ => standing(&pending),
    }
}

async fn style() -> impl IntoResponse {
    ([(CONTENT_TYPE, "text/css; charset=utf-8")], include_str!("templates/style.css"))
}

/// Why a form is not taken, if it is not: another sign-in's, another page's, or one that is over.
fn refusal(pending: &Pending, id: &str, form_token: &SecretString) -> Option<Response> {
    if !pending.is_path(id) || !pending.is_form_token(form_token) {
        return Some(unknown());
    }
    (pending.state() != State::Open || !pending.is_open()).then(|| standing(pending))
}

fn form(
    pending: &Pending,
    path: &str,
    way: Way,
    email: &str,
    remember: bool,
    problem: Option<&Report>,
) -> Response {
    let page = FormPage {
        path,
        form_token: pending.form_token(),
        code: pending.code(),
        profile: pending.profile(),
        upstream: pending.upstream().as_str(),
        asked_by: pending.asked_by(),
        way,
        email,
        remember,
        problem,
    };
    let status = if problem.is_some() { StatusCode::UNPROCESSABLE_ENTITY } else { StatusCode::OK };
    rendered(status, &page)
}

/// What there is to see when there is no form.
fn standing(pending: &Pending) -> Response {
    let (status, title, text, who) = match pending.state() {
        State::Verifying { email } => {
            return rendered(StatusCode::OK, &VerifyPage { path: pending.path(), email: &email });
        }
        State::SignedIn { email } => {
            (StatusCode::OK, "You are signed in", "Go back to your assistant; it goes on by itself.", email)
        }
        State::Ended(End::Declined) => (StatusCode::GONE, "Signing in was declined", AGAIN, None),
        State::Ended(End::TooManyAttempts) => (
            StatusCode::GONE,
            "Too many attempts",
            "Ask your assistant again when you have the right password.",
            None,
        ),
        State::Ended(End::TimedOut) | State::Open => {
            (StatusCode::GONE, "This sign-in has run out", AGAIN, None)
        }
    };
    rendered(status, &EndPage { title, text, who: who.as_deref() })
}

const AGAIN: &str = "Ask your assistant again for a new one.";

fn unknown() -> Response {
    let page = EndPage { title: "There is no such sign-in", text: AGAIN, who: None };
    rendered(StatusCode::NOT_FOUND, &page)
}

fn rendered(status: StatusCode, page: &impl Template) -> Response {
    match page.render() {
        Ok(html) => (status, Html(html)).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}
