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

use super::{
    End, State, protect,
    visit::{Login, Visit},
};
use crate::{error::Report, secret::SecretString};

/// The largest form that is taken, in bytes.
const LARGEST_FORM: usize = 16 << 10;

pub fn router(visit: Arc<Visit>) -> Router {
    Router::new()
        .route("/{id}", get(show))
        .route("/{id}/sign-in", post(sign_in))
        .route("/{id}/create", post(create))
        .route("/{id}/key", post(use_key))
        .route("/style.css", get(style))
        .layer(DefaultBodyLimit::max(LARGEST_FORM))
        .layer(middleware::from_fn_with_state(Arc::clone(&visit), protect::guard))
        .with_state(visit)
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
    /// Where "keep me signed in" keeps things.
    kept_in: &'a str,
    /// After which the page looks again, and finds that it has run out.
    seconds_left: u64,
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
struct LoginForm {
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

impl LoginForm {
    fn login(self) -> Login {
        Login {
            email: self.email.trim().to_owned(),
            password: self.password,
            remember: self.remember.is_some(),
        }
    }
}

/// What a form keeps when it is shown again; never the password.
struct Kept {
    email: String,
    remember: bool,
}

impl Default for Kept {
    fn default() -> Self {
        Self { email: String::new(), remember: true }
    }
}

impl Kept {
    fn of(login: &Login) -> Self {
        Self { email: login.email.clone(), remember: login.remember }
    }
}

async fn show(Shared(visit): Shared<Arc<Visit>>, Path(id): Path<String>) -> Response {
    if !visit.is_path(&id) {
        return unknown();
    }
    match visit.pending().state() {
        State::Open if visit.pending().is_open() => form(&visit, Way::SignIn, &Kept::default(), None),
        _ => standing(&visit),
    }
}

async fn sign_in(
    Shared(visit): Shared<Arc<Visit>>,
    Path(id): Path<String>,
    Form(given): Form<LoginForm>,
) -> Response {
    if let Some(refusal) = refusal(&visit, &id, &given.form_token) {
        return refusal;
    }
    let login = given.login();
    let kept = Kept::of(&login);
    answer(&visit, Way::SignIn, &kept, visit.sign_in(login).await)
}

async fn create(
    Shared(visit): Shared<Arc<Visit>>,
    Path(id): Path<String>,
    Form(given): Form<LoginForm>,
) -> Response {
    if let Some(refusal) = refusal(&visit, &id, &given.form_token) {
        return refusal;
    }
    let login = given.login();
    let kept = Kept::of(&login);
    answer(&visit, Way::Create, &kept, visit.create(login).await)
}

async fn use_key(
    Shared(visit): Shared<Arc<Visit>>,
    Path(id): Path<String>,
    Form(given): Form<OwnKey>,
) -> Response {
    if let Some(refusal) = refusal(&visit, &id, &given.form_token) {
        return refusal;
    }
    answer(&visit, Way::Key, &Kept::default(), visit.use_key(given.key).await)
}

async fn style() -> impl IntoResponse {
    ([(CONTENT_TYPE, "text/css; charset=utf-8")], include_str!("templates/style.css"))
}

/// Why a form is not taken, if it is not: another sign-in's, another page's, or one that is over.
fn refusal(visit: &Visit, id: &str, form_token: &SecretString) -> Option<Response> {
    if !visit.is_path(id) || !visit.is_form_token(form_token) {
        return Some(unknown());
    }
    let pending = visit.pending();
    (pending.state() != State::Open || !pending.is_open()).then(|| standing(visit))
}

/// The form again with what went wrong, while there is something to do about it.
fn answer(visit: &Visit, way: Way, kept: &Kept, outcome: Result<(), Report>) -> Response {
    match outcome {
        Err(problem) if visit.pending().is_open() => form(visit, way, kept, Some(&problem)),
        _ => standing(visit),
    }
}

fn form(visit: &Visit, way: Way, kept: &Kept, problem: Option<&Report>) -> Response {
    let (pending, account) = (visit.pending(), visit.account());
    let page = FormPage {
        path: visit.path(),
        form_token: visit.form_token(),
        code: pending.code(),
        profile: account.profile(),
        upstream: account.upstream().as_str(),
        asked_by: visit.asked_by(),
        kept_in: &account.kept_in(),
        seconds_left: pending.expires_in().as_secs() + 1,
        way,
        email: &kept.email,
        remember: kept.remember,
        problem,
    };
    let status = if problem.is_some() { StatusCode::UNPROCESSABLE_ENTITY } else { StatusCode::OK };
    rendered(status, &page)
}

/// What there is to see when there is no form.
fn standing(visit: &Visit) -> Response {
    let (status, title, text, who) = match visit.pending().state() {
        State::Verifying { email } => {
            return rendered(StatusCode::OK, &VerifyPage { path: visit.path(), email: &email });
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
        State::Ended(End::TimedOut | End::Gone) | State::Open => {
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
