//! The HTML of the connections page. Askama escapes every value.

use askama::Template;
use axum::{http::StatusCode, response::Response};
use url::Url;

use super::SignedIn;
use crate::{
    account::{UsageTotals, Usd},
    clock::Timestamp,
    hosted::{Hosted, authorize_views::rendered},
    oauth::{ClientKind, Grant, GrantId, LOOPBACK_HOSTS, Scope},
    secret::ExposeSecret as _,
};

/// An app that is connected.
#[derive(Debug)]
pub(super) struct App {
    pub grant: Grant,
    /// What it may spend a day.
    pub budget: Usd,
    pub totals: UsageTotals,
}

/// What was just done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Notice {
    Saved,
    Disconnected,
}

impl Notice {
    /// Returns the query with which the page says so.
    pub fn query(self) -> &'static str {
        match self {
            Self::Saved => "done=saved",
            Self::Disconnected => "done=disconnected",
        }
    }

    pub fn of_query(query: &str) -> Option<Self> {
        [Self::Saved, Self::Disconnected].into_iter().find(|notice| notice.query() == query)
    }

    fn text(self) -> &'static str {
        match self {
            Self::Saved => "The budget is saved.",
            Self::Disconnected => "Disconnected.",
        }
    }
}

#[derive(Template)]
#[template(path = "connections.html")]
struct ListPage<'a> {
    authority: &'a str,
    resource: &'a str,
    form_token: &'a str,
    email: &'a str,
    notice: Option<&'a str>,
    apps: Vec<AppView<'a>>,
}

#[derive(Template)]
#[template(path = "disconnect.html")]
struct DisconnectPage<'a> {
    authority: &'a str,
    form_token: &'a str,
    action: &'a str,
    apps: Vec<(&'a str, String)>,
}

struct AppView<'a> {
    id: &'a str,
    name: &'a str,
    /// Whether nobody has verified the name.
    is_claim: bool,
    host: String,
    /// Host of the client's document, which is a fact.
    published_by: Option<String>,
    scopes: Vec<&'static str>,
    since: String,
    last_used: String,
    calls: u64,
    spent_today: Usd,
    spent: Usd,
    budget: String,
    problem: Option<&'static str>,
}

impl DisconnectPage<'_> {
    fn heading(&self) -> String {
        match &*self.apps {
            [(name, _)] => format!("Disconnect {name}?"),
            apps => format!("Disconnect {} apps?", apps.len()),
        }
    }
}

impl<'a> AppView<'a> {
    fn new(app: &'a App) -> Self {
        let App { grant, budget, totals } = app;
        Self {
            id: grant.id.as_str(),
            name: name(grant),
            is_claim: grant.client_name.is_some() && grant.client_kind != ClientKind::Registered,
            host: host(grant),
            published_by: published_by(grant),
            scopes: grant.scopes.iter().map(allows).collect(),
            since: time(grant.created_at),
            last_used: totals.last_used.map_or_else(|| "never".to_owned(), time),
            calls: totals.calls,
            spent_today: totals.spent_today,
            spent: totals.spent,
            budget: budget.to_string().trim_start_matches('$').to_owned(),
            problem: None,
        }
    }
}

/// Returns the name of the app, as it calls itself.
fn name(grant: &Grant) -> &str {
    grant.client_name.as_deref().unwrap_or(&grant.redirect_host)
}

/// Returns where the app is answered.
fn host(grant: &Grant) -> String {
    let host = &*grant.redirect_host;
    if LOOPBACK_HOSTS.contains(&host) {
        format!("{host}, an app on your own computer")
    } else {
        host.to_owned()
    }
}

fn published_by(grant: &Grant) -> Option<String> {
    let document =
        (grant.client_kind == ClientKind::Document).then(|| Url::parse(&grant.client_id).ok())??;
    document.host_str().map(ToOwned::to_owned)
}

fn time(time: Timestamp) -> String {
    time.format("%-d %B %Y, %H:%M UTC").to_string()
}

fn allows(scope: Scope) -> &'static str {
    match scope {
        Scope::Models => "see what BondMCP offers",
        Scope::Health => "use the billed health services",
        Scope::Keys => "manage API keys",
    }
}

/// Returns the list of apps. `wrong` is the one whose new budget is not an amount.
pub(super) fn list(
    hosted: &Hosted,
    signed_in: &SignedIn,
    apps: &[App],
    done: Option<Notice>,
    wrong: Option<&GrantId>,
) -> Response {
    let form_token = hosted.inner.browsers.form_token(&signed_in.browser);
    let mut views: Vec<_> = apps.iter().map(AppView::new).collect();
    for view in &mut views {
        view.problem = wrong
            .filter(|wrong| wrong.as_str() == view.id)
            .map(|_| "Give an amount such as 5 or 0.50; 0 allows nothing that is billed.");
    }
    let page = ListPage {
        authority: hosted.inner.settings.origin.authority(),
        resource: &hosted.authorization_server().endpoints().resource(),
        form_token: form_token.expose_secret(),
        email: &signed_in.person.email,
        notice: done.map(Notice::text),
        apps: views,
    };
    let status = if wrong.is_some() { StatusCode::UNPROCESSABLE_ENTITY } else { StatusCode::OK };
    rendered(status, &page)
}

/// Returns the question whether to disconnect apps, whose form goes to `action`.
pub(super) fn disconnect(hosted: &Hosted, signed_in: &SignedIn, action: &str, grants: &[Grant]) -> Response {
    let form_token = hosted.inner.browsers.form_token(&signed_in.browser);
    let page = DisconnectPage {
        authority: hosted.inner.settings.origin.authority(),
        form_token: form_token.expose_secret(),
        action,
        apps: grants.iter().map(|grant| (name(grant), host(grant))).collect(),
    };
    rendered(StatusCode::OK, &page)
}
