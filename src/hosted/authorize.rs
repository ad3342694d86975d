//! `/authorize`: from a client's request to its code, over signing in and consent (RFC 6749, section 4.1.1). Consent is
//! asked every time. The authorization is bound to the browser that began it: another one can neither see nor finish it
//! (RFC 9700, section 4.7). The client is answered by a redirect from a GET.

use axum::{
    Router,
    extract::{Path, RawQuery, Request, State as Shared},
    http::{HeaderMap, StatusCode, header::LOCATION},
    middleware,
    response::{IntoResponse as _, Redirect, Response},
    routing::{get, post},
};
use url::Url;

use super::{
    Hosted,
    audit::AuditedEvent,
    authorize_views::{self as views, Notice},
    browser::{Browser, with_cookie},
    connections,
    consent::{Consent, ConsentForm, Destination},
    grants::AllowError,
    pending::{PendingAuthorization, State},
    person::Person,
    protect,
};
use crate::{
    metrics,
    oauth::{AuthorizationErrorCode, MAX_GRANTS, RequestError},
    secret::{ExposeSecret as _, SecretString},
    vault,
};

/// What a browser is told about a page that it may not see, whatever the reason.
const NOT_FOUND: &str =
    "It has expired, or it was opened in another browser. Start again from the app that you want to connect.";

impl Hosted {
    pub(super) fn authorize_routes(&self) -> Router {
        Router::new()
            .route("/authorize", get(authorize))
            .route("/authorize/{id}", get(show).post(decide))
            .route("/authorize/{id}/account", post(change_account))
            .route("/authorize/{id}/retry", post(retry))
            .route("/authorize/{id}/done", get(done))
            .layer(middleware::from_fn(protect::headers))
            .with_state(self.clone())
    }

    /// Returns the authorization `id`, if this browser has begun it.
    async fn authorization(
        &self,
        id: &str,
        headers: &HeaderMap,
    ) -> Result<(PendingAuthorization, Browser), Failure> {
        let browser = self.inner.browsers.of(headers).ok_or(Failure::NotFound)?;
        let records = self.inner.server.records();
        let found = PendingAuthorization::find(records, id, &browser, self.now()).await?;
        Ok((found.ok_or(Failure::NotFound)?, browser))
    }

    /// Returns the authorization that a form is about, and its fields. The form must come from a page of this browser.
    async fn submitted(
        &self,
        id: &str,
        request: Request,
    ) -> Result<(PendingAuthorization, Browser, ConsentForm), Failure> {
        let headers = request.headers().clone();
        let fields = protect::form(request, &self.inner.settings.origin).await.map_err(Failure::Form)?;
        let form = ConsentForm::of(fields);
        let (authorization, browser) = self.authorization(id, &headers).await?;
        if self.inner.browsers.is_form_token(&browser, &form.form_token) {
            Ok((authorization, browser, form))
        } else {
            Err(Failure::NotFound)
        }
    }

    /// Sends the browser to the sign-in page, and from there back to the authorization. While the page can be used, a
    /// reload finds it again.
    async fn sign_in_first(
        &self,
        authorization: &mut PendingAuthorization,
        browser: &Browser,
    ) -> Result<Response, Failure> {
        let browsers = &self.inner.browsers;
        if let Some(id) = authorization.sign_in()
            && let Some(page) = browsers.open_sign_in(&id).await?
        {
            return Ok(see_other(&page.path()));
        }
        let path = authorization.path();
        let page = browsers.begin_sign_in(browser, &path, Some(authorization.reference())).await?;
        if !authorization.set_sign_in(page.id()).await? {
            // Another tab has opened one.
            page.withdraw().await?;
            return Ok(see_other(&path));
        }
        self.step(authorization, "sign-in shown").await;
        Ok(see_other(&page.path()))
    }

    async fn step(&self, authorization: &PendingAuthorization, step: &'static str) {
        self.inner.traces.step(authorization.reference(), step).await;
    }

    fn notice<'a>(&'a self, title: &'a str, text: &'a str) -> Notice<'a> {
        Notice { authority: self.inner.settings.origin.authority(), title, text, ..Notice::default() }
    }

    fn failed(&self, failure: &Failure) -> Response {
        let (status, title, text) = match failure {
            Failure::NotFound => (StatusCode::NOT_FOUND, "This page isn't valid", NOT_FOUND),
            Failure::Form(status) => {
                (*status, "This form isn't valid", "Go back, reload the page and try again.")
            }
            Failure::Vault(_) => (
                StatusCode::SERVICE_UNAVAILABLE,
                "This isn't available right now",
                "The server cannot reach its database. Wait a moment, then reload the page.",
            ),
        };
        if let Failure::Vault(error) = failure {
            tracing::error!(%error, "a page of an authorization cannot be served");
        }
        Notice { is_problem: true, ..self.notice(title, text) }.response(status)
    }
}

/// Why a page cannot be served.
#[derive(Debug)]
enum Failure {
    NotFound,
    Form(StatusCode),
    Vault(vault::Error),
}

impl From<vault::Error> for Failure {
    fn from(error: vault::Error) -> Self {
        Self::Vault(error)
    }
}

/// Begins an authorization. An error that concerns the client or its redirect URI is told to the person; others to the
/// client (RFC 6749, section 4.1.2.1).
async fn authorize(
    Shared(hosted): Shared<Hosted>,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Response {
    let server = &hosted.inner.server;
    let request = match server.authorization_request(&query.unwrap_or_default()).await {
        Ok(request) => request,
        Err(RequestError::Redirect { to, reason }) => {
            note_refusal(reason);
            return hosted.answer_unsound(&to);
        }
        Err(RequestError::Store(error)) => return hosted.failed(&error.into()),
        Err(RequestError::Page(text)) => {
            note_refusal(text);
            let text =
                format!("{text} Start again from the app; if that doesn't help, tell whoever made it.");
            let notice = Notice { is_problem: true, ..hosted.notice("This app can't be connected", &text) };
            return notice.response(StatusCode::BAD_REQUEST);
        }
    };
    let browsers = &hosted.inner.browsers;
    let (browser, cookie) = browsers.known_or_new(browsers.of(&headers));
    match PendingAuthorization::begin(server.records(), request, &browser, hosted.now()).await {
        Ok(authorization) => {
            hosted.step(&authorization, "request checked").await;
            with_cookie(see_other(&authorization.path()), cookie.as_deref())
        }
        Err(error) => hosted.failed(&error.into()),
    }
}

/// Notes that a request to `/authorize` was refused. It has no reference, and the reason has none of its words.
fn note_refusal(reason: &'static str) {
    tracing::info!(reason, "an authorization request was refused");
    metrics::authorization_step("request refused");
}

/// Shows the page for the state of an authorization.
async fn show(Shared(hosted): Shared<Hosted>, Path(id): Path<String>, headers: HeaderMap) -> Response {
    let shown = async {
        let (mut authorization, browser) = hosted.authorization(&id, &headers).await?;
        if authorization.pending.state != State::Asking {
            return Ok(see_other(&format!("{}/done", authorization.path())));
        }
        let browsers = &hosted.inner.browsers;
        let Some(person) = browsers.person(&browser).await? else {
            return hosted.sign_in_first(&mut authorization, &browser).await;
        };
        hosted.settle_in_background(&browser);
        hosted.step(&authorization, "consent shown").await;
        let viewer = (&person, &browsers.form_token(&browser));
        Ok(views::consent(&hosted.inner.settings, &authorization, viewer, None))
    };
    shown.await.unwrap_or_else(|failure| hosted.failed(&failure))
}

/// Takes the person's decision. Whatever comes of it is on the page that the browser is sent to.
async fn decide(Shared(hosted): Shared<Hosted>, Path(id): Path<String>, request: Request) -> Response {
    let decided = async {
        let (authorization, browser, form) = hosted.submitted(&id, request).await?;
        let done = see_other(&format!("{}/done", authorization.path()));
        if authorization.pending.state != State::Asking {
            return Ok(done);
        }
        if !form.allows {
            hosted.deny(authorization, &browser).await?;
            return Ok(done);
        }
        let browsers = &hosted.inner.browsers;
        let person = browsers.person(&browser).await?.filter(|person| form.has_shown(&person.subject));
        let Some(person) = person else {
            // Somebody else has signed in since, or nobody is any more: the page is shown anew.
            return Ok(see_other(&authorization.path()));
        };
        match form.consent(authorization.pending.request.scopes) {
            Ok(consent) => {
                hosted.agree(authorization, &browser, &person, consent).await?;
                Ok(done)
            }
            Err(problem) => {
                let viewer = (&person, &browsers.form_token(&browser));
                let sent = Some((&form, problem));
                Ok(views::consent(&hosted.inner.settings, &authorization, viewer, sent))
            }
        }
    };
    decided.await.unwrap_or_else(|failure| hosted.failed(&failure))
}

/// "Not you?": signs out in this browser, so that somebody else can sign in.
async fn change_account(
    Shared(hosted): Shared<Hosted>,
    Path(id): Path<String>,
    request: Request,
) -> Response {
    let changed = async {
        let (authorization, browser, _) = hosted.submitted(&id, request).await?;
        hosted.inner.browsers.sign_out(&browser).await?;
        Ok(see_other(&authorization.path()))
    };
    changed.await.unwrap_or_else(|failure| hosted.failed(&failure))
}

/// Asks again when no grant was made.
async fn retry(Shared(hosted): Shared<Hosted>, Path(id): Path<String>, request: Request) -> Response {
    let again = async {
        let (mut authorization, _, _) = hosted.submitted(&id, request).await?;
        if let State::Failed { .. } | State::TooManyApps = authorization.pending.state {
            authorization.set(State::Asking).await?;
        }
        Ok(see_other(&authorization.path()))
    };
    again.await.unwrap_or_else(|failure| hosted.failed(&failure))
}

/// Takes the answer to the client: once. The code is made here, so that its minute begins when the browser leaves.
async fn done(Shared(hosted): Shared<Hosted>, Path(id): Path<String>, headers: HeaderMap) -> Response {
    let answered = async {
        let (mut authorization, browser) = hosted.authorization(&id, &headers).await?;
        let reference = authorization.reference().to_owned();
        let reference = Some(&*reference);
        match authorization.pending.state.clone() {
            State::Asking => Ok(see_other(&authorization.path())),
            State::Working { .. } => {
                let text = "This takes a few seconds.";
                let notice = hosted.notice("Connecting…", text);
                Ok(Notice { reload_after: Some(1), reference, ..notice }.response(StatusCode::OK))
            }
            State::Failed { problem } => {
                Ok(hosted.not_connected(&authorization, &browser, (StatusCode::BAD_GATEWAY, &problem), None))
            }
            State::TooManyApps => {
                let text = format!(
                    "You have connected {MAX_GRANTS} apps, which is the maximum. Disconnect one that you no longer \
                     use, then try again here."
                );
                let connections = Some(connections::PATH);
                Ok(hosted.not_connected(&authorization, &browser, (StatusCode::CONFLICT, &text), connections))
            }
            State::Denied => {
                let denied = AuthorizationErrorCode::AccessDenied;
                let to = hosted.inner.server.error_response(&authorization.pending.request, denied);
                Ok(hosted.answer_client(&authorization, &to))
            }
            State::Allowed { grant } => {
                let found = hosted.inner.server.live_grant(&grant).await?.ok_or(Failure::NotFound)?;
                let request = &authorization.pending.request;
                let to = hosted.inner.server.authorization_response(request, &found).await?;
                // After the code was made: until there is one, whoever comes back gets one. One that nobody is told expires.
                if !authorization.set(State::Answered).await? {
                    return Ok(see_other(&format!("{}/done", authorization.path())));
                }
                hosted.step(&authorization, "code sent").await;
                Ok(hosted.answer_client(&authorization, &to))
            }
            State::Answered => {
                let text = "You can close this tab. If the app is still waiting, start again there.";
                let notice = hosted.notice("You have returned to the app", text);
                Ok(Notice { reference, ..notice }.response(StatusCode::OK))
            }
        }
    };
    answered.await.unwrap_or_else(|failure| hosted.failed(&failure))
}

impl Hosted {
    async fn deny(
        &self,
        mut authorization: PendingAuthorization,
        browser: &Browser,
    ) -> Result<(), vault::Error> {
        if authorization.set(State::Denied).await? {
            self.step(&authorization, "denied").await;
            if let Some(person) = self.inner.browsers.person(browser).await? {
                let client_name = authorization.pending.request.client.name.clone();
                self.audit(AuditedEvent::Denied { person: &person, client_name });
            }
        }
        Ok(())
    }

    /// Makes the grant that the person has agreed to.
    async fn agree(
        &self,
        mut authorization: PendingAuthorization,
        browser: &Browser,
        person: &Person,
        consent: Consent,
    ) -> Result<(), vault::Error> {
        // Of two forms at once, one goes on.
        if !authorization.agree(browser, self.now()).await? {
            return Ok(());
        }
        self.step(&authorization, "allowed").await;
        let state = match self.allow(&authorization, browser, person, consent).await {
            Ok(grant) => State::Allowed { grant: grant.id },
            Err(AllowError::SignedOut) => State::Asking,
            Err(AllowError::TooManyApps) => {
                self.step(&authorization, "too many apps").await;
                State::TooManyApps
            }
            Err(AllowError::Failed(problem)) => State::Failed { problem },
        };
        self.finish(authorization, state).await
    }

    /// Returns the page that says why no grant was made, with a button that tries again, and a link to the list of apps where
    /// that helps.
    fn not_connected(
        &self,
        authorization: &PendingAuthorization,
        browser: &Browser,
        (status, problem): (StatusCode, &str),
        connections: Option<&str>,
    ) -> Response {
        let form_token = self.inner.browsers.form_token(browser);
        let retry = Some((format!("{}/retry", authorization.path()), form_token.expose_secret()));
        let reference = Some(authorization.reference());
        let notice = self.notice("The app was not connected", problem);
        Notice { is_problem: true, connections, retry, reference, ..notice }.response(status)
    }

    /// Answers the client. An app of the device is opened by a page, as browsers leave the last page standing then.
    fn answer_client(&self, authorization: &PendingAuthorization, to: &Url) -> Response {
        if Destination::of(&authorization.pending.request).is_on_the_web() {
            return to_client(to);
        }
        let text = "Your browser opens the app. If it doesn't, use the link.";
        let link = SecretString::from(to.as_str());
        let notice = self.notice("Return to the app", text);
        let reference = Some(authorization.reference());
        Notice { link: Some(link.expose_secret()), opens_link: true, reference, ..notice }
            .response(StatusCode::OK)
    }

    /// Tells a client that its request is not sound. Anybody can register a client, and nobody has signed in yet, so only
    /// a program on the person's own computer is answered without a click (RFC 9700, section 4.11.2).
    fn answer_unsound(&self, to: &Url) -> Response {
        // Redirect URIs with this scheme are those of loopback.
        if to.scheme() == "http" {
            return to_client(to);
        }
        let text =
            "The app sent a request that this server cannot accept. Continue only if you came from that app.";
        let notice = self.notice("This app can't be connected", text);
        Notice { is_problem: true, link: Some(to.as_str()), ..notice }.response(StatusCode::BAD_REQUEST)
    }
}

/// Sends the browser to a path of this server, by GET.
fn see_other(path: &str) -> Response {
    Redirect::to(path).into_response()
}

/// Sends the browser to a client. Never 307, which would repeat a form (RFC 9700, section 4.12).
fn to_client(to: &Url) -> Response {
    (StatusCode::FOUND, [(LOCATION, to.as_str())]).into_response()
}
