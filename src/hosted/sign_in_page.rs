//! `/sign-in`: the sign-in pages, which every replica serves. A GET changes nothing, so link scanners do no harm. The
//! pages work without scripts.

mod attempt;

use std::time::Duration;

use axum::{
    Router,
    extract::{Form, FromRequestParts, Path},
    middleware,
    response::{IntoResponse as _, Redirect, Response},
    routing::get,
};
use http::{
    StatusCode,
    header::{CONTENT_TYPE, RETRY_AFTER},
    request::Parts,
};
use serde::Deserialize;

use super::{
    Attempt, Hosted,
    browser::{Browser, with_cookie},
};
use crate::{
    client_address::ClientAddress,
    clock::whole_seconds,
    secret::{self, SecretString},
    sign_in::{
        Field, Problem, SignInMethod, State,
        protect::{self, ButtonForm},
        public::{
            PublicPage, Purpose,
            views::{self, Notice},
        },
    },
    vault,
};

impl Hosted {
    pub(super) fn sign_in_routes(&self) -> Router {
        let show = |method| get(move |request: PageRequest| std::future::ready(request.show(method)));
        let file =
            |kind, content: &'static str| get(move || std::future::ready(([(CONTENT_TYPE, kind)], content)));
        let place = std::sync::Arc::clone(self.sign_in_pages().place());
        Router::new()
            .route("/sign-in/{id}", show(None))
            .route("/sign-in/{id}/sign-in", show(Some(SignInMethod::SignIn)).post(sign_in))
            .route("/sign-in/{id}/create", show(Some(SignInMethod::CreateAccount)).post(create))
            .route("/sign-in/{id}/demo", show(None).post(use_demo))
            .route("/sign-in/{id}/back", show(None).post(go_back))
            .route("/sign-in/style.css", file("text/css; charset=utf-8", views::STYLE))
            .route("/sign-in/mark.svg", file("image/svg+xml", views::MARK))
            .layer(middleware::from_fn_with_state(place, protect::guard))
            .with_state(self.clone())
    }
}

#[derive(Deserialize)]
struct LoginForm {
    form_token: SecretString,
    email: String,
    password: SecretString,
}

/// What was typed, or the demo account.
struct Login {
    email: String,
    password: SecretString,
}

impl From<LoginForm> for Login {
    fn from(form: LoginForm) -> Self {
        Self { email: form.email.trim().to_owned(), password: form.password }
    }
}

async fn sign_in(request: PageRequest, Form(given): Form<LoginForm>) -> Response {
    match request.refusal(&given.form_token) {
        Some(refusal) => refusal,
        None => request.sign_in(given.into()).await,
    }
}

async fn create(request: PageRequest, Form(given): Form<LoginForm>) -> Response {
    match request.refusal(&given.form_token) {
        Some(refusal) => refusal,
        None => request.create(given.into()).await,
    }
}

async fn use_demo(request: PageRequest, Form(given): Form<ButtonForm>) -> Response {
    let Some(demo) = request.hosted.sign_in_pages().demo().cloned() else {
        return request.notice(Notice::Unknown);
    };
    if let Some(refusal) = request.refusal(&given.form_token) {
        return refusal;
    }
    let login = Login { email: demo.email.to_owned(), password: demo.password };
    request.sign_in(login).await
}

async fn go_back(request: PageRequest, Form(given): Form<ButtonForm>) -> Response {
    match request.refusal(&given.form_token) {
        Some(refusal) => refusal,
        None => request.go_back().await,
    }
}

/// A browser on a page.
struct PageRequest {
    hosted: Hosted,
    page: PublicPage,
    browser: Browser,
    form_token: SecretString,
    /// The cookie of a browser that had none.
    new_cookie: Option<String>,
    client: ClientAddress,
    /// The attempt in progress.
    attempt: Option<Attempt>,
}

impl FromRequestParts<Hosted> for PageRequest {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, hosted: &Hosted) -> Result<Self, Response> {
        let pages = hosted.sign_in_pages();
        let id = Path::<SecretString>::from_request_parts(parts, hosted).await;
        let Path(id) = id.map_err(|_| views::notice(pages, Notice::Unknown))?;
        let page = match pages.find(&id).await {
            Ok(Some(page)) => page,
            Ok(None) => return Err(views::notice(pages, Notice::Unknown)),
            Err(error) => return Err(hosted.unavailable(&error)),
        };
        let browsers = &hosted.inner.browsers;
        let known = browsers.of(&parts.headers);
        // Who began a sign-in in one browser must not finish it in somebody else's (login CSRF; RFC 9700, section 4.7).
        if let Purpose::Browser { browser, .. } = page.purpose()
            && known.as_ref().map(Browser::binding).as_ref() != Some(browser)
        {
            return Err(views::notice(pages, Notice::OtherBrowser));
        }
        let (browser, new_cookie) = browsers.known_or_new(known);
        let form_token = browsers.form_token(&browser);
        let client = ClientAddress::of(&parts.extensions);
        Ok(Self { hosted: hosted.clone(), page, browser, form_token, new_cookie, client, attempt: None })
    }
}

impl PageRequest {
    /// Shows the page as it is now: while it is open, the form of `method` or that for signing in.
    fn show(&self, method: Option<SignInMethod>) -> Response {
        let answer = match (self.page.purpose(), self.page.state()) {
            (_, State::Open) if self.page.is_open() => {
                views::form(&self.page, &self.form_token, method.unwrap_or(SignInMethod::SignIn), None)
            }
            (_, State::Verifying { email }) if self.page.is_open() => {
                views::verification(&self.page, &self.form_token, email, None)
            }
            (Purpose::Browser { next, .. }, State::SignedIn { .. }) => Redirect::to(next).into_response(),
            _ => views::end(&self.page),
        };
        with_cookie(answer, self.new_cookie.as_deref())
    }

    /// Shows the form that was sent again, with what was wrong with it.
    fn problem(&self, method: SignInMethod, email: &str, problem: &Problem) -> Response {
        match self.page.state() {
            State::Open if self.page.is_open() => {
                views::form(&self.page, &self.form_token, method, Some((problem, email)))
            }
            State::Verifying { email } if self.page.is_open() => {
                views::verification(&self.page, &self.form_token, email, Some(&problem.message))
            }
            _ => self.show(None),
        }
    }

    fn notice(&self, notice: Notice) -> Response {
        views::notice(self.hosted.sign_in_pages(), notice)
    }

    /// Returns the answer to a form that is not accepted: from another page, or of a sign-in that has ended.
    fn refusal(&self, form_token: &SecretString) -> Option<Response> {
        let is_ours = secret::same(&self.form_token, form_token);
        match (self.page.purpose(), self.page.state()) {
            // The form was sent twice: the browser has lost the first answer, and with it its new cookie.
            (Purpose::Browser { .. }, State::SignedIn { .. }) => (!is_ours).then(|| self.show(None)),
            _ if !is_ours => Some(self.notice(Notice::Unknown)),
            _ => (!self.page.is_open()).then(|| self.show(None)),
        }
    }

    /// Answers an attempt that is one too many for its e-mail address or its client.
    fn limited(&self, method: SignInMethod, email: &str, wait: Duration) -> Response {
        let seconds = whole_seconds(wait);
        let minutes = seconds.div_ceil(60);
        let unit = if minutes == 1 { "minute" } else { "minutes" };
        let message = format!(
            "There were too many attempts with this e-mail address or from your network. Try again in {minutes} {unit}."
        );
        let mut answer = self.problem(method, email, &Problem::new(Field::None, message));
        *answer.status_mut() = StatusCode::TOO_MANY_REQUESTS;
        answer.headers_mut().insert(RETRY_AFTER, seconds.into());
        answer
    }

    /// Returns from the verification to the form.
    async fn go_back(mut self) -> Response {
        match self.page.go_back().await {
            Ok(()) => Redirect::to(&format!("{}/create", self.page.path())).into_response(),
            Err(error) => self.hosted.unavailable(&error),
        }
    }
}

impl Hosted {
    /// Returns the page for a vault that cannot be used now.
    fn unavailable(&self, error: &vault::Error) -> Response {
        tracing::warn!(%error, "a sign-in page cannot be served");
        views::notice(self.sign_in_pages(), Notice::Unavailable)
    }
}
