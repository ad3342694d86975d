//! The page itself: three ways to sign in, without a script. A GET changes nothing, so that a link scanner does no harm.

use std::sync::Arc;

use askama::Template;
use axum::{
    Router,
    extract::{Form, Path, State as Shared},
    http::{StatusCode, header::CONTENT_TYPE},
    middleware,
    response::{Html, IntoResponse, Response},
    routing::{get, post},
};
use serde::Deserialize;

use super::{
    End, State,
    peer::{JOIN_PATH, Join},
    protect,
    visit::{Login, Visit},
};
use crate::{
    error::{Kind, Report},
    secret::SecretString,
};

pub fn router(visit: Arc<Visit>) -> Router {
    Router::new()
        .route("/{id}", get(show))
        .route("/{id}/sign-in", post(sign_in))
        .route("/{id}/create", post(create))
        .route("/{id}/key", post(use_key))
        .route("/style.css", get(style))
        .route(JOIN_PATH, post(join))
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
    /// Whether a key is enough for what the assistant wants to do.
    offers_key: bool,
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
        State::Open if visit.pending().is_open() => {
            form(&visit, Way::SignIn, &Kept::default(), visit.problem().as_ref())
        }
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
    let (kept, page) = (Kept::of(&login), Arc::clone(&visit));
    let outcome = to_the_end(async move { page.sign_in(login).await }).await;
    answer(&visit, Way::SignIn, &kept, outcome)
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
    let (kept, page) = (Kept::of(&login), Arc::clone(&visit));
    let outcome = to_the_end(async move { page.create(login).await }).await;
    answer(&visit, Way::Create, &kept, outcome)
}

async fn use_key(
    Shared(visit): Shared<Arc<Visit>>,
    Path(id): Path<String>,
    Form(given): Form<OwnKey>,
) -> Response {
    if let Some(refusal) = refusal(&visit, &id, &given.form_token) {
        return refusal;
    }
    let page = Arc::clone(&visit);
    let outcome = to_the_end(async move { page.use_key(given.key).await }).await;
    answer(&visit, Way::Key, &Kept::default(), outcome)
}

/// For another process of this account, not for a browser.
async fn join(Shared(visit): Shared<Arc<Visit>>, Form(join): Form<Join>) -> Response {
    visit.join(&join).map_or_else(|| StatusCode::FORBIDDEN.into_response(), IntoResponse::into_response)
}

/// Does `work` to its end, though the browser may go away: a wrong password counts, and a sign-in is not lost.
async fn to_the_end(work: impl Future<Output = Result<(), Report>> + Send + 'static) -> Result<(), Report> {
    tokio::spawn(work).await.unwrap_or_else(|_| {
        Err(Report::new(Kind::Internal, "The server has met a bug of its own.", "Try again."))
    })
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
        offers_key: !pending.needs_session(),
        email: &kept.email,
        remember: kept.remember,
        problem,
    };
    let status = if problem.is_some() { StatusCode::UNPROCESSABLE_ENTITY } else { StatusCode::OK };
    rendered(status, &page)
}

/// What there is to see when there is no form.
fn standing(visit: &Visit) -> Response {
    let (title, text) = match visit.pending().state() {
        State::Verifying { email } => {
            return rendered(StatusCode::OK, &VerifyPage { path: visit.path(), email: &email });
        }
        State::SignedIn { email } => {
            let title = "You are signed in";
            let text = "You can close this tab. Return to your assistant and tell it you've signed in.";
            let who = Some(email.as_deref().unwrap_or("the owner of the API key"));
            return rendered(StatusCode::OK, &EndPage { title, text, who });
        }
        State::Ended(End::Declined) => ("Signing in was declined", AGAIN),
        State::Ended(End::TooManyAttempts) => ("Too many wrong passwords", AGAIN),
        State::Ended(End::TimedOut | End::Gone) | State::Open => ("This sign-in link has expired", AGAIN),
    };
    rendered(StatusCode::GONE, &EndPage { title, text, who: None })
}

const AGAIN: &str = "Ask your assistant for a new link.";

fn unknown() -> Response {
    let page = EndPage { title: "This link isn't valid", text: AGAIN, who: None };
    rendered(StatusCode::NOT_FOUND, &page)
}

fn rendered(status: StatusCode, page: &impl Template) -> Response {
    match page.render() {
        Ok(html) => (status, Html(html)).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}
