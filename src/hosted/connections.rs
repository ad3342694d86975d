//! `/connections`: the apps that a person has connected, with what each has used. A person changes an app's budget and
//! disconnects apps. A GET changes nothing; every form has the token of its browser.

mod views;

use std::sync::Arc;

use axum::{
    Router,
    extract::{Form, FromRequestParts, Path, RawQuery, State},
    http::{StatusCode, request::Parts},
    middleware,
    response::{IntoResponse, Redirect, Response},
    routing::{get, post},
};
use serde::Deserialize;

use self::views::App;
use super::{
    Hosted,
    authorize_views::Notice as Page,
    browser::{Browser, with_cookie},
    person::Person,
};
use crate::{
    account,
    oauth::{EndReason, Grant, GrantId},
    secret::SecretString,
    sign_in::protect::{self, ButtonForm},
    vault,
};

/// Path of the page.
pub(super) const PATH: &str = "/connections";

/// Query of the page that says whose budget was saved, before the id of the grant.
const SAVED: &str = "saved=";

impl Hosted {
    pub(super) fn connections_routes(&self) -> Router {
        let place = Arc::clone(self.sign_in_pages().place());
        Router::new()
            .route(PATH, get(list))
            .route("/connections/revoke", get(confirm_all).post(revoke_all))
            .route("/connections/sign-out", post(sign_out))
            .route("/connections/{grant}/budget", post(set_budget))
            .route("/connections/{grant}/revoke", get(confirm).post(revoke))
            .layer(middleware::from_fn_with_state(place, protect::guard))
            .with_state(self.clone())
    }

    /// Returns the address of the page.
    #[must_use]
    pub fn connections_page(&self) -> String {
        format!("{}{PATH}", self.inner.settings.origin)
    }

    /// Returns the app with the grant `id`, if it is one of the person's; a page otherwise.
    async fn own_grant(&self, person: &Person, id: &str) -> Result<Grant, Refusal> {
        let grant = self.inner.server.live_grant(&GrantId::given(id)).await?;
        grant.filter(|grant| grant.subject == person.subject).ok_or(Refusal::NotFound)
    }

    async fn app(&self, grant: Grant) -> Result<App, Refusal> {
        let account = self.inner.accounts.open(&grant.owner());
        let budget = account.own_daily_limit().await?.unwrap_or_default();
        Ok(App { budget, totals: account.usage_totals().await?, grant })
    }

    /// Returns the apps of a person, the newest first.
    async fn apps(&self, person: &Person) -> Result<Vec<App>, Refusal> {
        let mut grants = self.inner.server.grants_of(&person.subject).await?;
        grants.sort_by_key(|grant| std::cmp::Reverse(grant.created_at));
        let mut apps = Vec::new();
        for grant in grants {
            apps.push(self.app(grant).await?);
        }
        Ok(apps)
    }
}

/// Who has signed in in the browser. Whoever has not is sent to the list, and from there to the sign-in page: that is a
/// record, so only one path makes it, whose requests are limited more strictly.
struct SignedIn {
    browser: Browser,
    person: Person,
}

impl FromRequestParts<Hosted> for SignedIn {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, hosted: &Hosted) -> Result<Self, Response> {
        let browsers = &hosted.inner.browsers;
        let (browser, new_cookie) = browsers.known_or_new(browsers.of(&parts.headers));
        let refused = |error: vault::Error| Refusal::from(error).page(hosted);
        if let Some(person) = browsers.person(&browser).await.map_err(refused)? {
            return Ok(Self { browser, person });
        }
        if parts.uri.path() != PATH {
            return Err(Redirect::to(PATH).into_response());
        }
        let page = browsers.begin_sign_in(&browser, PATH, None).await.map_err(refused)?;
        Err(with_cookie(Redirect::to(&page.path()).into_response(), new_cookie.as_deref()))
    }
}

/// Why something is not done.
#[derive(Debug)]
enum Refusal {
    /// There is no such app, or it is somebody else's.
    NotFound,
    /// The form is not one of this browser.
    Form,
    /// The vault fails.
    Unavailable,
}

impl From<vault::Error> for Refusal {
    fn from(error: vault::Error) -> Self {
        tracing::warn!(%error, "the connections page is not available");
        Self::Unavailable
    }
}

impl From<account::Error> for Refusal {
    fn from(error: account::Error) -> Self {
        tracing::warn!(%error, "the connections page is not available");
        Self::Unavailable
    }
}

impl Refusal {
    fn page(self, hosted: &Hosted) -> Response {
        let (status, title, text) = match self {
            Self::NotFound => {
                (StatusCode::NOT_FOUND, "This app isn't connected", "It may have been disconnected already.")
            }
            Self::Form => (
                StatusCode::FORBIDDEN,
                "This form has expired",
                "Nothing was changed. Open the page again and repeat what you did.",
            ),
            Self::Unavailable => {
                (StatusCode::SERVICE_UNAVAILABLE, "This page isn't available now", "Try again in a minute.")
            }
        };
        said(hosted, status, title, text)
    }
}

#[derive(Deserialize)]
struct BudgetForm {
    form_token: SecretString,
    budget: String,
}

impl SignedIn {
    fn check(&self, hosted: &Hosted, form_token: &SecretString) -> Result<(), Refusal> {
        let is_ours = hosted.inner.browsers.is_form_token(&self.browser, form_token);
        if is_ours { Ok(()) } else { Err(Refusal::Form) }
    }
}

async fn list(State(hosted): State<Hosted>, signed_in: SignedIn, RawQuery(query): RawQuery) -> Response {
    hosted.settle_in_background(&signed_in.browser);
    match hosted.apps(&signed_in.person).await {
        Ok(apps) => {
            let saved = query.as_deref().and_then(|query| query.strip_prefix(SAVED));
            let saved = saved.and_then(|id| apps.iter().find(|app| app.grant.id.as_str() == id));
            let done = saved.map(|app| format!("The budget of {} is saved.", views::name(&app.grant)));
            views::list(&hosted, &signed_in, &apps, done, None)
        }
        Err(refusal) => refusal.page(&hosted),
    }
}

async fn set_budget(
    State(hosted): State<Hosted>,
    signed_in: SignedIn,
    Path(id): Path<String>,
    Form(given): Form<BudgetForm>,
) -> Response {
    let outcome = async {
        signed_in.check(&hosted, &given.form_token)?;
        let grant = hosted.own_grant(&signed_in.person, &id).await?;
        let Ok(budget) = given.budget.trim().parse() else {
            let apps = hosted.apps(&signed_in.person).await?;
            return Ok(views::list(&hosted, &signed_in, &apps, None, Some((&grant.id, &given.budget))));
        };
        hosted.inner.accounts.open(&grant.owner()).set_daily_limit(budget).await?;
        Ok::<_, Refusal>(Redirect::to(&format!("{PATH}?{SAVED}{}", grant.id)).into_response())
    };
    outcome.await.unwrap_or_else(|refusal| refusal.page(&hosted))
}

async fn confirm(State(hosted): State<Hosted>, signed_in: SignedIn, Path(id): Path<String>) -> Response {
    match hosted.own_grant(&signed_in.person, &id).await {
        Ok(grant) => views::disconnect(&hosted, &signed_in, &format!("{PATH}/{id}/revoke"), &[grant]),
        Err(refusal) => refusal.page(&hosted),
    }
}

async fn revoke(
    State(hosted): State<Hosted>,
    signed_in: SignedIn,
    Path(id): Path<String>,
    Form(given): Form<ButtonForm>,
) -> Response {
    let outcome = async {
        signed_in.check(&hosted, &given.form_token)?;
        let grant = hosted.own_grant(&signed_in.person, &id).await?;
        hosted.disconnect(&signed_in, vec![grant]).await
    };
    outcome.await.unwrap_or_else(|refusal| refusal.page(&hosted))
}

async fn confirm_all(State(hosted): State<Hosted>, signed_in: SignedIn) -> Response {
    match hosted.inner.server.grants_of(&signed_in.person.subject).await {
        Ok(grants) if grants.is_empty() => Redirect::to(PATH).into_response(),
        Ok(grants) => views::disconnect(&hosted, &signed_in, &format!("{PATH}/revoke"), &grants),
        Err(error) => Refusal::from(error).page(&hosted),
    }
}

async fn revoke_all(
    State(hosted): State<Hosted>,
    signed_in: SignedIn,
    Form(given): Form<ButtonForm>,
) -> Response {
    let outcome = async {
        signed_in.check(&hosted, &given.form_token)?;
        let grants = hosted.inner.server.grants_of(&signed_in.person.subject).await?;
        if grants.is_empty() {
            return Ok(Redirect::to(PATH).into_response());
        }
        hosted.disconnect(&signed_in, grants).await
    };
    outcome.await.unwrap_or_else(|refusal| refusal.page(&hosted))
}

async fn sign_out(
    State(hosted): State<Hosted>,
    signed_in: SignedIn,
    Form(given): Form<ButtonForm>,
) -> Response {
    let outcome = async {
        signed_in.check(&hosted, &given.form_token)?;
        hosted.inner.browsers.sign_out(&signed_in.browser).await?;
        Ok::<_, Refusal>(said(&hosted, StatusCode::OK, "You are signed out", "Your apps stay connected."))
    };
    outcome.await.unwrap_or_else(|refusal| refusal.page(&hosted))
}

impl Hosted {
    /// Ends grants for their owner. Answers with the list, since nothing that a redirect leads to knows what an ended grant
    /// was called.
    async fn disconnect(&self, signed_in: &SignedIn, grants: Vec<Grant>) -> Result<Response, Refusal> {
        let done = match &*grants {
            [grant] => format!("{} is disconnected.", views::name(grant)),
            grants => format!("{} apps are disconnected.", grants.len()),
        };
        let ids: Vec<GrantId> = grants.into_iter().map(|grant| grant.id).collect();
        self.end(&ids, EndReason::Person).await?;
        let apps = self.apps(&signed_in.person).await?;
        Ok(views::list(self, signed_in, &apps, Some(done), None))
    }
}

/// Returns a page that only says something, with a link to the list.
fn said(hosted: &Hosted, status: StatusCode, title: &str, text: &str) -> Response {
    let authority = hosted.inner.settings.origin.authority();
    let is_problem = !status.is_success();
    Page { authority, title, text, is_problem, connections: Some(PATH), ..Page::default() }.response(status)
}
