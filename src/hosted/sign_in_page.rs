//! `/sign-in`: the sign-in pages, which every replica serves. A GET changes nothing, so link scanners do no harm. The
//! pages work without scripts.

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
use tracing::Instrument as _;

use super::{
    Attempt, AttemptRefused, Hosted,
    audit::AuditedEvent,
    browser::{Browser, with_cookie},
    person::Person,
    trouble,
};
use crate::{
    account::{self, Owner},
    client_address::ClientAddress,
    error::{Kind, UserFacingError},
    secret::{self, SecretString},
    sign_in::{
        Field, Problem, SignInMethod, State, attempts_left,
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

/// Why somebody is not signed in.
enum Failure {
    Account(account::Error),
    /// BondMCP does not say who it is.
    Nobody,
    Vault(vault::Error),
}

impl From<account::Error> for Failure {
    fn from(error: account::Error) -> Self {
        match error {
            account::Error::Vault(error) => Self::Vault(error),
            error => Self::Account(error),
        }
    }
}

impl From<vault::Error> for Failure {
    fn from(error: vault::Error) -> Self {
        Self::Vault(error)
    }
}

impl From<LoginForm> for Login {
    fn from(form: LoginForm) -> Self {
        Self { email: form.email.trim().to_owned(), password: form.password }
    }
}

async fn sign_in(request: PageRequest, Form(given): Form<LoginForm>) -> Response {
    match request.refusal(&given.form_token) {
        Some(refusal) => refusal,
        None => run_to_completion(request.sign_in(given.into())).await,
    }
}

async fn create(request: PageRequest, Form(given): Form<LoginForm>) -> Response {
    match request.refusal(&given.form_token) {
        Some(refusal) => refusal,
        None => run_to_completion(request.create(given.into())).await,
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
    run_to_completion(request.sign_in(login)).await
}

async fn go_back(request: PageRequest, Form(given): Form<ButtonForm>) -> Response {
    match request.refusal(&given.form_token) {
        Some(refusal) => refusal,
        None => run_to_completion(request.go_back()).await,
    }
}

/// Completes `work` even if the browser closes the connection, so that no sign-in is lost.
async fn run_to_completion(work: impl Future<Output = Response> + Send + 'static) -> Response {
    tokio::spawn(work.in_current_span())
        .await
        .unwrap_or_else(|_| StatusCode::INTERNAL_SERVER_ERROR.into_response())
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

    /// Every attempt passes here before BondMCP is asked. Returns the answer to one that there is no more of.
    async fn begin_attempt(&mut self, method: SignInMethod, email: &str) -> Result<(), Response> {
        match self.hosted.inner.attempts.begin(email, self.client).await {
            Ok(attempt) => self.attempt = Some(attempt),
            Err(AttemptRefused::Limited(wait)) => return Err(self.limited(method, email, wait)),
            Err(AttemptRefused::Store(error)) => return Err(self.hosted.unavailable(&error)),
        }
        match self.page.begin_attempt().await {
            Ok(true) => Ok(()),
            Ok(false) => {
                self.take_back().await;
                Err(self.show(None))
            }
            Err(error) => Err(self.hosted.unavailable(&error)),
        }
    }

    /// The attempt in progress was no guess at a password.
    async fn take_back(&mut self) {
        if let Some(attempt) = self.attempt.take() {
            attempt.take_back().await;
        }
    }

    /// BondMCP has not decided about the attempt in progress.
    async fn undecided(&mut self) -> Result<(), vault::Error> {
        self.take_back().await;
        self.page.attempt_was_undecided().await
    }

    /// Answers an attempt that is one too many for its e-mail address or its client.
    fn limited(&self, method: SignInMethod, email: &str, wait: Duration) -> Response {
        let minutes = wait.as_secs().div_ceil(60);
        let unit = if minutes == 1 { "minute" } else { "minutes" };
        let message = format!(
            "There were too many attempts with this e-mail address or from your network. Try again in {minutes} {unit}."
        );
        let mut answer = self.problem(method, email, &Problem::new(Field::None, message));
        *answer.status_mut() = StatusCode::TOO_MANY_REQUESTS;
        answer.headers_mut().insert(RETRY_AFTER, wait.as_secs().into());
        answer
    }

    async fn sign_in(mut self, login: Login) -> Response {
        // The address that is being verified is the one to sign in with.
        let email = match self.page.state() {
            State::Verifying { email } => email.clone(),
            _ => login.email,
        };
        if let Err(refusal) = self.begin_attempt(SignInMethod::SignIn, &email).await {
            return refusal;
        }
        let outcome = self.admitted(&email, login.password).await;
        let step = step_of(&outcome);
        if let Purpose::Browser { next, .. } = self.page.purpose() {
            self.hosted.step_at(next, &self.browser, step).await;
        }
        match outcome {
            Ok(answer) => {
                self.take_back().await;
                answer
            }
            Err(failure) => match self.failed(&email, failure).await {
                Ok(problem) => self.problem(SignInMethod::SignIn, &email, &problem),
                Err(error) => self.hosted.unavailable(&error),
            },
        }
    }

    /// Signs in; returns the answer to the browser.
    async fn admitted(&mut self, email: &str, password: SecretString) -> Result<Response, Failure> {
        match self.page.purpose().clone() {
            Purpose::Owner { subject, .. } => {
                let account = self.hosted.inner.accounts.open(&Owner::Subject(subject));
                let status = account.sign_in(email, password, false).await?;
                self.page.set_state(State::SignedIn { email: status.email }).await?;
                Ok(self.show(None))
            }
            Purpose::Browser { next, .. } => {
                let authenticator = self.hosted.sign_in_pages().authenticator();
                let authenticated = authenticator.with_password(email, password).await?;
                let user = authenticated.user_id().ok_or(Failure::Nobody)?;
                let subject = self.hosted.inner.server.subject(user);
                let person = Person { subject, email: email.to_owned() };
                let browsers = &self.hosted.inner.browsers;
                let cookie = browsers.sign_in(&self.browser, self.page.id(), &person, authenticated).await?;
                self.hosted.audit(AuditedEvent::SignedIn { person: &person });
                self.page.set_state(State::SignedIn { email: Some(person.email) }).await?;
                Ok(with_cookie(Redirect::to(&next).into_response(), Some(&cookie)))
            }
        }
    }

    /// Notes what became of an attempt; returns what the person is told.
    async fn failed(&mut self, email: &str, failure: Failure) -> Result<Problem, vault::Error> {
        let error = match failure {
            Failure::Account(error) => error,
            Failure::Nobody => {
                self.undecided().await?;
                return Ok(Problem::new(Field::None, NOBODY));
            }
            Failure::Vault(error) => return Err(error),
        };
        if error.is_unauthorized() {
            let left = self.page.attempt_was_wrong().await?;
            return Ok(Problem::new(
                Field::Password,
                format!("Wrong e-mail or password. {}", attempts_left(left)),
            ));
        }
        if matches!(error, account::Error::AnotherUser) {
            self.take_back().await;
            self.page.attempt_was_wrong().await?;
            return Ok(problem_of(&error));
        }
        self.undecided().await?;
        if error.is_not_verified() {
            if let Purpose::Browser { .. } = self.page.purpose() {
                self.page.set_state(State::Verifying { email: email.to_owned() }).await?;
            }
            return Ok(Problem::new(Field::None, UNVERIFIED));
        }
        Ok(problem_of(&error))
    }

    /// Creates a BondMCP account. Its password is not kept: the person types it again when the address is verified.
    async fn create(mut self, login: Login) -> Response {
        if let Purpose::Owner { .. } = self.page.purpose() {
            return self.notice(Notice::Unknown);
        }
        let Login { email, password } = login;
        if let Err(refusal) = self.begin_attempt(SignInMethod::CreateAccount, &email).await {
            return refusal;
        }
        let registered = self.hosted.sign_in_pages().authenticator().register(&email, &password).await;
        let noted = match &registered {
            // Or addresses could be tried until one has an account.
            Err(error) if UserFacingError::from(error).kind == Kind::Conflict => {
                self.page.attempt_was_wrong().await.map(drop)
            }
            Err(_) => self.undecided().await,
            Ok(_) => self.now_verifying(&email).await,
        };
        match (noted, registered) {
            (Err(error), _) => self.hosted.unavailable(&error),
            // The form was sent twice.
            (Ok(()), Err(_)) if self.is_verifying(&email) => self.show(None),
            (Ok(()), Err(error)) => self.problem(SignInMethod::CreateAccount, &email, &problem_of(&error)),
            (Ok(()), Ok(_)) => self.show(None),
        }
    }

    fn is_verifying(&self, address: &str) -> bool {
        matches!(self.page.state(), State::Verifying { email } if email == address)
    }

    /// The attempt stays counted for its client and its address: BondMCP sends an e-mail for each account.
    async fn now_verifying(&mut self, email: &str) -> Result<(), vault::Error> {
        self.page.attempt_was_undecided().await?;
        self.page.set_state(State::Verifying { email: email.to_owned() }).await
    }

    /// Returns from the verification to the form.
    async fn go_back(mut self) -> Response {
        match self.page.go_back().await {
            Ok(()) => Redirect::to(&format!("{}/create", self.page.path())).into_response(),
            Err(error) => self.hosted.unavailable(&error),
        }
    }
}

/// Describes an error for the person; the cause of trouble is for the operator.
fn problem_of(error: &account::Error) -> Problem {
    let report = UserFacingError::from(error);
    let Some(message) = trouble::message(&report) else { return Problem::with_account(&report) };
    tracing::warn!(%error, "a person cannot sign in or create an account");
    Problem::new(Field::None, message)
}

const NOBODY: &str = "BondMCP does not tell this server which account this is, so it cannot be connected. Tell whoever runs this server.";

const UNVERIFIED: &str = "BondMCP has not confirmed the e-mail address yet. Open the link in the e-mail from BondMCP, then sign in again.";

/// Describes how an attempt ended, for the trace of the authorization that it is for.
fn step_of(outcome: &Result<Response, Failure>) -> &'static str {
    match outcome {
        Ok(_) => "signed in",
        Err(Failure::Account(error)) if error.is_unauthorized() => {
            "sign-in refused: wrong e-mail or password"
        }
        Err(Failure::Account(error)) if error.is_not_verified() => "sign-in refused: e-mail not verified",
        Err(Failure::Account(_)) => "sign-in failed at BondMCP",
        Err(Failure::Nobody) => "sign-in refused: BondMCP does not tell the account",
        Err(Failure::Vault(_)) => "sign-in failed: no database",
    }
}

impl Hosted {
    /// Returns the page for a vault that cannot be used now.
    fn unavailable(&self, error: &vault::Error) -> Response {
        tracing::warn!(%error, "a sign-in page cannot be served");
        views::notice(self.sign_in_pages(), Notice::Unavailable)
    }
}
