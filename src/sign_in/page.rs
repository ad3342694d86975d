//! The routes of the sign-in page. A GET changes nothing, so link scanners do no harm. The page works without scripts.

use std::sync::Arc;

use axum::{
    Router,
    extract::{Form, FromRequestParts, Path, State as Shared},
    http::{StatusCode, header::CONTENT_TYPE, request::Parts},
    middleware,
    response::{IntoResponse, Redirect, Response},
    routing::{get, post},
};
use serde::Deserialize;

use super::{
    Pages, SignInMethod, State,
    page_session::{Login, PageSession},
    peer::{JOIN_PATH, Join},
    problem::{Field, Problem},
    protect::{self, ButtonForm},
    views,
};
use crate::secret::SecretString;

/// Returns the routes of `pages`.
pub fn router(pages: Pages) -> Router {
    let show =
        |method| get(move |Session(session): Session| std::future::ready(views::current(&session, method)));
    Router::new()
        .route("/{id}", show(None))
        .route("/{id}/sign-in", show(Some(SignInMethod::SignIn)).post(sign_in))
        .route("/{id}/create", show(Some(SignInMethod::CreateAccount)).post(create))
        .route("/{id}/key", show(Some(SignInMethod::ApiKey)).post(use_key))
        .route("/{id}/demo", show(None).post(use_demo))
        .route("/{id}/check", show(None).post(check))
        .route("/{id}/back", show(None).post(go_back))
        .route("/{id}/state", get(state))
        .route("/style.css", get(([(CONTENT_TYPE, "text/css; charset=utf-8")], views::STYLE)))
        .route("/mark.svg", get(([(CONTENT_TYPE, "image/svg+xml")], views::MARK)))
        .route(JOIN_PATH, post(join))
        .fallback(async |Shared(pages): Shared<Pages>| views::unknown(&pages))
        .layer(middleware::from_fn_with_state(Arc::clone(pages.place()), protect::guard))
        .with_state(pages)
}

/// The page whose id is in the path.
struct Session(Arc<PageSession>);

impl FromRequestParts<Pages> for Session {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, pages: &Pages) -> Result<Self, Response> {
        let id = Path::<String>::from_request_parts(parts, pages).await;
        let Path(id) = id.map_err(IntoResponse::into_response)?;
        pages.find(&id).map(Self).ok_or_else(|| views::unknown(pages))
    }
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

/// Answers the page's script, which compares the state with the one that the page shows.
async fn state(Session(session): Session) -> &'static str {
    views::state(&session)
}

async fn sign_in(pages: Shared<Pages>, Session(session): Session, Form(given): Form<LoginForm>) -> Response {
    if let Some(refusal) = refusal(&pages, &session, &given.form_token) {
        return refusal;
    }
    let (page, login) = (Arc::clone(&session), given.login());
    session.keep_input(&login);
    let outcome = run_to_completion(async move { page.sign_in(login).await }).await;
    answer(&session, SignInMethod::SignIn, outcome)
}

async fn create(pages: Shared<Pages>, Session(session): Session, Form(given): Form<LoginForm>) -> Response {
    if let Some(refusal) = refusal(&pages, &session, &given.form_token) {
        return refusal;
    }
    let (page, login) = (Arc::clone(&session), given.login());
    session.keep_input(&login);
    let outcome = run_to_completion(async move { page.create(login).await }).await;
    answer(&session, SignInMethod::CreateAccount, outcome)
}

async fn use_key(pages: Shared<Pages>, Session(session): Session, Form(given): Form<OwnKey>) -> Response {
    if let Some(refusal) = refusal(&pages, &session, &given.form_token) {
        return refusal;
    }
    let page = Arc::clone(&session);
    let outcome = run_to_completion(async move { page.use_key(given.key).await }).await;
    answer(&session, SignInMethod::ApiKey, outcome)
}

async fn use_demo(
    pages: Shared<Pages>,
    Session(session): Session,
    Form(given): Form<ButtonForm>,
) -> Response {
    if let Some(refusal) = refusal(&pages, &session, &given.form_token) {
        return refusal;
    }
    let page = Arc::clone(&session);
    let outcome = run_to_completion(async move { page.use_demo().await }).await;
    answer(&session, SignInMethod::SignIn, outcome)
}

/// Asks BondMCP whether the address is verified, without waiting for the next poll.
async fn check(pages: Shared<Pages>, Session(session): Session, Form(given): Form<ButtonForm>) -> Response {
    if !session.is_form_token(&given.form_token) {
        return views::unknown(&pages);
    }
    let page = Arc::clone(&session);
    match run_to_completion(async move { page.check().await }).await {
        Ok(()) => views::current(&session, None),
        Err(reason) => views::still_waiting(&session, &reason),
    }
}

/// Gives up waiting for the verification and returns to the form.
async fn go_back(pages: Shared<Pages>, Session(session): Session, Form(given): Form<ButtonForm>) -> Response {
    if !session.is_form_token(&given.form_token) {
        return views::unknown(&pages);
    }
    let page = Arc::clone(&session);
    let back = async move {
        page.go_back().await;
        Ok(())
    };
    match run_to_completion(back).await {
        Ok(()) => Redirect::to(&session.path()).into_response(),
        Err(problem) => views::still_waiting(&session, &problem),
    }
}

/// Answers another process of this account, not a browser.
async fn join(Shared(pages): Shared<Pages>, Form(join): Form<Join>) -> Response {
    let proof = pages.find_map(|session| session.join(&join));
    proof.map_or_else(|| StatusCode::FORBIDDEN.into_response(), IntoResponse::into_response)
}

/// Completes `work` even if the browser closes the connection, so that wrong passwords are counted and no sign-in is
/// lost.
async fn run_to_completion(
    work: impl Future<Output = Result<(), Problem>> + Send + 'static,
) -> Result<(), Problem> {
    let failed = |_| Err(Problem::new(Field::None, "Internal server error. Try again."));
    tokio::spawn(work).await.unwrap_or_else(failed)
}

/// Returns the response to a form that is not accepted: from another sign-in or page, or of a sign-in that has ended.
fn refusal(pages: &Pages, session: &PageSession, form_token: &SecretString) -> Option<Response> {
    if !session.is_form_token(form_token) {
        return Some(views::unknown(pages));
    }
    let pending = session.pending();
    (pending.state() != State::Open || !pending.is_open()).then(|| views::current(session, None))
}

/// Shows the form again with the problem, while the sign-in is open.
fn answer(session: &PageSession, method: SignInMethod, outcome: Result<(), Problem>) -> Response {
    match outcome {
        Ok(()) => views::current(session, Some(method)),
        Err(problem) => views::with_problem(session, method, &problem),
    }
}
