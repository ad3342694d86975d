//! The sign-in page and its forms, without scripts. A GET changes nothing, so link scanners do no harm.

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
    End, SignInMethod, State,
    page_session::{Login, PageSession},
    peer::{JOIN_PATH, Join},
    protect,
};
use crate::{
    error::{Kind, UserFacingError},
    secret::SecretString,
};

pub fn router(session: Arc<PageSession>) -> Router {
    Router::new()
        .route("/{id}", get(show))
        .route("/{id}/sign-in", post(sign_in))
        .route("/{id}/create", post(create))
        .route("/{id}/key", post(use_key))
        .route("/style.css", get(style))
        .route(JOIN_PATH, post(join))
        .layer(middleware::from_fn_with_state(Arc::clone(&session), protect::guard))
        .with_state(session)
}

#[derive(Template)]
#[template(path = "form.html")]
struct FormPage<'a> {
    path: &'a str,
    form_token: &'a str,
    code: &'a str,
    profile: &'a str,
    upstream: &'a str,
    requested_by: Option<&'a str>,
    /// Description of where credentials are stored.
    vault_location: &'a str,
    /// Time after which the page reloads, to show that the link has expired.
    seconds_left: u64,
    method: SignInMethod,
    /// Whether an API key is sufficient for the pending calls.
    offers_key: bool,
    email: &'a str,
    remember: bool,
    problem: Option<&'a UserFacingError>,
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

/// The input that a form contains when it is shown again, without the password.
struct FormInput {
    email: String,
    remember: bool,
}

impl FormInput {
    /// Returns the initial input of a form.
    fn initial(session: &PageSession) -> Self {
        Self { email: session.email().to_owned(), remember: true }
    }

    fn of(login: &Login) -> Self {
        Self { email: login.email.clone(), remember: login.remember }
    }
}

async fn show(Shared(session): Shared<Arc<PageSession>>, Path(id): Path<String>) -> Response {
    if !session.is_path(&id) {
        return unknown();
    }
    match session.pending().state() {
        State::Open if session.pending().is_open() => {
            form(&session, session.opens_on(), &FormInput::initial(&session), session.problem().as_ref())
        }
        _ => status_page(&session),
    }
}

async fn sign_in(
    Shared(session): Shared<Arc<PageSession>>,
    Path(id): Path<String>,
    Form(given): Form<LoginForm>,
) -> Response {
    if let Some(refusal) = refusal(&session, &id, &given.form_token) {
        return refusal;
    }
    let login = given.login();
    let (input, page) = (FormInput::of(&login), Arc::clone(&session));
    let outcome = run_to_completion(async move { page.sign_in(login).await }).await;
    answer(&session, SignInMethod::SignIn, &input, outcome)
}

async fn create(
    Shared(session): Shared<Arc<PageSession>>,
    Path(id): Path<String>,
    Form(given): Form<LoginForm>,
) -> Response {
    if let Some(refusal) = refusal(&session, &id, &given.form_token) {
        return refusal;
    }
    let login = given.login();
    let (input, page) = (FormInput::of(&login), Arc::clone(&session));
    let outcome = run_to_completion(async move { page.create(login).await }).await;
    answer(&session, SignInMethod::CreateAccount, &input, outcome)
}

async fn use_key(
    Shared(session): Shared<Arc<PageSession>>,
    Path(id): Path<String>,
    Form(given): Form<OwnKey>,
) -> Response {
    if let Some(refusal) = refusal(&session, &id, &given.form_token) {
        return refusal;
    }
    let page = Arc::clone(&session);
    let outcome = run_to_completion(async move { page.use_key(given.key).await }).await;
    answer(&session, SignInMethod::ApiKey, &FormInput::initial(&session), outcome)
}

/// Answers another process of this account, not a browser.
async fn join(Shared(session): Shared<Arc<PageSession>>, Form(join): Form<Join>) -> Response {
    session.join(&join).map_or_else(|| StatusCode::FORBIDDEN.into_response(), IntoResponse::into_response)
}

/// Completes `work` even if the browser closes the connection, so that wrong passwords are counted and no sign-in is
/// lost.
async fn run_to_completion(
    work: impl Future<Output = Result<(), UserFacingError>> + Send + 'static,
) -> Result<(), UserFacingError> {
    tokio::spawn(work)
        .await
        .unwrap_or_else(|_| Err(UserFacingError::new(Kind::Internal, "Internal server error.", "Try again.")))
}

async fn style() -> impl IntoResponse {
    ([(CONTENT_TYPE, "text/css; charset=utf-8")], include_str!("templates/style.css"))
}

/// Returns the response to a form that is not accepted: from another sign-in or page, or of a sign-in that has ended.
fn refusal(session: &PageSession, id: &str, form_token: &SecretString) -> Option<Response> {
    if !session.is_path(id) || !session.is_form_token(form_token) {
        return Some(unknown());
    }
    let pending = session.pending();
    (pending.state() != State::Open || !pending.is_open()).then(|| status_page(session))
}

/// Shows the form again with the problem, while the sign-in is open.
fn answer(
    session: &PageSession,
    method: SignInMethod,
    input: &FormInput,
    outcome: Result<(), UserFacingError>,
) -> Response {
    match outcome {
        Err(problem) if session.pending().is_open() => form(session, method, input, Some(&problem)),
        _ => status_page(session),
    }
}

fn form(
    session: &PageSession,
    method: SignInMethod,
    input: &FormInput,
    problem: Option<&UserFacingError>,
) -> Response {
    let (pending, account) = (session.pending(), session.account());
    let page = FormPage {
        path: session.path(),
        form_token: session.form_token(),
        code: pending.code(),
        profile: account.profile(),
        upstream: account.upstream().as_str(),
        requested_by: session.requested_by(),
        vault_location: &account.vault_location(),
        seconds_left: pending.expires_in().as_secs() + 1,
        method,
        offers_key: !pending.needs_session(),
        email: &input.email,
        remember: input.remember,
        problem,
    };
    let status = if problem.is_some() { StatusCode::UNPROCESSABLE_ENTITY } else { StatusCode::OK };
    rendered(status, &page)
}

/// Returns the page when there is no form to fill in.
fn status_page(session: &PageSession) -> Response {
    let (title, text) = match session.pending().state() {
        State::Verifying { email } => {
            return rendered(StatusCode::OK, &VerifyPage { path: session.path(), email: &email });
        }
        State::SignedIn { email } => {
            let title = "You are signed in";
            let text = if session.pending().call_continues() {
                "You can close this tab. Your assistant continues by itself."
            } else {
                "You can close this tab. Return to your assistant and tell it you've signed in."
            };
            let who = Some(email.as_deref().unwrap_or("the owner of the API key"));
            return rendered(StatusCode::OK, &EndPage { title, text, who });
        }
        State::Ended(End::Declined) => ("Signing in was declined", ASK_FOR_NEW_LINK),
        State::Ended(End::TooManyAttempts) => ("Too many wrong passwords", ASK_FOR_NEW_LINK),
        State::Ended(End::TimedOut | End::Gone) | State::Open => {
            ("This sign-in link has expired", ASK_FOR_NEW_LINK)
        }
    };
    rendered(StatusCode::GONE, &EndPage { title, text, who: None })
}

const ASK_FOR_NEW_LINK: &str = "Ask your assistant for a new link.";

fn unknown() -> Response {
    let page = EndPage { title: "This link isn't valid", text: ASK_FOR_NEW_LINK, who: None };
    rendered(StatusCode::NOT_FOUND, &page)
}

fn rendered(status: StatusCode, page: &impl Template) -> Response {
    match page.render() {
        Ok(html) => (status, Html(html)).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}
