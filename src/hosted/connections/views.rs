//! The HTML of the connections page. Askama escapes every value.

use askama::Template;
use axum::{http::StatusCode, response::Response};

use super::SignedIn;
use crate::{
    account::{UsageTotals, Usd},
    clock::Timestamp,
    hosted::{
        Hosted,
        authorize_views::rendered,
        consent::{Destination, Problem},
    },
    oauth::{ClientKind, Grant, GrantId, Scope},
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

#[derive(Template)]
#[template(path = "connections.html")]
struct ListPage<'a> {
    authority: &'a str,
    resource: &'a str,
    form_token: &'a str,
    email: &'a str,
    /// What was just done.
    notice: Option<String>,
    /// The most that the server lets an app spend in a day.
    daily_spend: Option<Usd>,
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

impl ListPage<'_> {
    fn has_problem(&self) -> bool {
        self.apps.iter().any(|app| app.problem.is_some())
    }
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
            published_by: grant.client_kind.verified_host(&grant.client_id),
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
pub(super) fn name(grant: &Grant) -> &str {
    grant.client_name.as_deref().unwrap_or(&grant.redirect_host)
}

/// Returns where the app is answered.
fn host(grant: &Grant) -> String {
    match Destination::at(grant.redirect_host.clone()) {
        Destination::Loopback(host) => format!("{host}, an app on your own computer"),
        Destination::App(scheme) => format!("{scheme}, an app on your device"),
        Destination::Host(host) => host,
    }
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

/// Returns the list of apps. `wrong` is the one whose new budget is not an amount, with what was typed.
pub(super) fn list(
    hosted: &Hosted,
    signed_in: &SignedIn,
    apps: &[App],
    done: Option<String>,
    wrong: Option<(&GrantId, &str)>,
) -> Response {
    let form_token = hosted.inner.browsers.form_token(&signed_in.browser);
    let mut views: Vec<_> = apps.iter().map(AppView::new).collect();
    if let Some((wrong, typed)) = wrong
        && let Some(view) = views.iter_mut().find(|view| view.id == wrong.as_str())
    {
        view.problem = Some(Problem::DailyLimit.message());
        typed.clone_into(&mut view.budget);
    }
    let page = ListPage {
        authority: hosted.inner.settings.origin.authority(),
        resource: &hosted.authorization_server().endpoints().resource(),
        form_token: form_token.expose_secret(),
        email: &signed_in.person.email,
        notice: done,
        daily_spend: hosted.inner.settings.daily_spend,
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
