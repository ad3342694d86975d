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
    /// Returns the form token, and what was typed.
    fn split(self) -> (SecretString, Login) {
        let login = Login {
            email: self.email.trim().to_owned(),
            password: self.password,
            remember: self.remember.is_some(),
        };
        (self.form_token, login)
    }
}

/// Answers the page's script, which compares the state with the one that the page shows.
async fn state(Session(session): Session) -> &'static str {
    views::state(&session)
}

async fn sign_in(pages: Shared<Pages>, Session(session): Session, Form(given): Form<LoginForm>) -> Response {
    let page = Arc::clone(&session);
    let (form_token, login) = given.split();
    let work = async move {
        page.keep_input(&login);
        page.sign_in(login).await
    };
    submit(&pages, &session, &form_token, SignInMethod::SignIn, work).await
}

async fn create(pages: Shared<Pages>, Session(session): Session, Form(given): Form<LoginForm>) -> Response {
    let page = Arc::clone(&session);
    let (form_token, login) = given.split();
    let work = async move {
        page.keep_input(&login);
        page.create(login).await
    };
    submit(&pages, &session, &form_token, SignInMethod::CreateAccount, work).await
}

async fn use_key(pages: Shared<Pages>, Session(session): Session, Form(given): Form<OwnKey>) -> Response {
    let page = Arc::clone(&session);
    let work = async move { page.use_key(given.key).await };
    submit(&pages, &session, &given.form_token, SignInMethod::ApiKey, work).await
}

async fn use_demo(
    pages: Shared<Pages>,
    Session(session): Session,
    Form(given): Form<ButtonForm>,
) -> Response {
    let page = Arc::clone(&session);
    let work = async move { page.use_demo().await };
    submit(&pages, &session, &given.form_token, SignInMethod::SignIn, work).await
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

/// Does `work`, and shows the form of `method` again with its problem while the sign-in is open. A form from another
/// sign-in or page, or of a sign-in that has ended, is refused before `work` begins.
async fn submit(
    pages: &Pages,
    session: &PageSession,
    form_token: &SecretString,
    method: SignInMethod,
    work: impl Future<Output = Result<(), Problem>> + Send + 'static,
) -> Response {
    if !session.is_form_token(form_token) {
        return views::unknown(pages);
    }
    let pending = session.pending();
    if pending.state() != State::Open || !pending.is_open() {
        return views::current(session, None);
    }
    match run_to_completion(work).await {
        Ok(()) => views::current(session, Some(method)),
        Err(problem) => views::with_problem(session, method, &problem),
    }
}

/// Completes `work` even if the browser closes the connection, so that wrong passwords are counted and no sign-in is
/// lost.
async fn run_to_completion(
    work: impl Future<Output = Result<(), Problem>> + Send + 'static,
) -> Result<(), Problem> {
    let failed = |_| Err(Problem::new(Field::None, "Internal server error. Try again."));
    tokio::spawn(work).await.unwrap_or_else(failed)
}
