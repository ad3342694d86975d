//! The HTML of an authorization. Askama escapes every value.

use askama::Template;
use axum::{
    http::StatusCode,
    response::{Html, IntoResponse as _, Response},
};

use super::{
    Settings,
    consent::{ConsentForm, Destination, OfferedScope, Problem},
    pending::PendingAuthorization,
    person::Person,
};
use crate::{
    account::Usd,
    oauth::ClientKind,
    secret::{ExposeSecret as _, SecretString},
};

#[derive(Template)]
#[template(path = "consent.html")]
struct ConsentPage<'a> {
    authority: &'a str,
    path: String,
    form_token: &'a str,
    client_name: Option<&'a str>,
    destination: Destination,
    verified_host: Option<String>,
    is_registered: bool,
    email: &'a str,
    shown: &'a str,
    scopes: Vec<OfferedScope>,
    daily_limit: String,
    /// The most that the server lets an app spend in a day.
    daily_spend: Option<Usd>,
    problem: Option<&'static str>,
    limit_is_wrong: bool,
    reference: &'a str,
}

/// A page without a decision.
#[derive(Default, Template)]
#[template(path = "notice.html")]
pub struct Notice<'a> {
    pub authority: &'a str,
    pub title: &'a str,
    pub text: &'a str,
    pub is_problem: bool,
    /// Address of the app, which the page offers as a link.
    pub link: Option<&'a str>,
    /// Whether the page also opens that address by itself.
    pub opens_link: bool,
    /// Path of the list of connected apps, which the page links to.
    pub connections: Option<&'a str>,
    /// Path and form token of the button that tries again.
    pub retry: Option<(String, &'a str)>,
    /// Seconds after which the page asks again.
    pub reload_after: Option<u32>,
    pub reference: Option<&'a str>,
}

impl Notice<'_> {
    pub fn response(&self, status: StatusCode) -> Response {
        rendered(status, self)
    }
}

/// Returns the consent page. `sent` is the form that had a problem.
pub fn consent(
    settings: &Settings,
    authorization: &PendingAuthorization,
    (person, form_token): (&Person, &SecretString),
    sent: Option<(&ConsentForm, Problem)>,
) -> Response {
    let request = &authorization.pending.request;
    let ticked = sent.map_or(request.scopes, |(form, _)| form.scopes);
    let scopes = request.scopes.iter().map(|scope| OfferedScope::new(scope, ticked.contains(scope)));
    let Settings { origin, default_daily_spend, daily_spend, .. } = settings;
    let suggested = || {
        let possible = daily_spend.map_or(*default_daily_spend, |most| most.min(*default_daily_spend));
        possible.whole_cents().to_string().trim_start_matches('$').to_owned()
    };
    let page = ConsentPage {
        authority: origin.authority(),
        path: authorization.path(),
        form_token: form_token.expose_secret(),
        client_name: request.client.name.as_deref(),
        destination: Destination::of(request),
        verified_host: request.client.kind.verified_host(&request.client.id),
        is_registered: request.client.kind == ClientKind::Registered,
        email: &person.email,
        shown: person.subject.as_str(),
        scopes: scopes.collect(),
        daily_limit: sent.map_or_else(suggested, |(form, _)| form.daily_limit.clone()),
        daily_spend: *daily_spend,
        problem: sent.map(|(_, problem)| problem.message()),
        limit_is_wrong: sent.is_some_and(|(_, problem)| problem == Problem::DailyLimit),
        reference: &request.reference,
    };
    let status = if sent.is_some() { StatusCode::UNPROCESSABLE_ENTITY } else { StatusCode::OK };
    rendered(status, &page)
}

pub fn rendered(status: StatusCode, page: &impl Template) -> Response {
    match page.render() {
        Ok(html) => (status, Html(html)).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}
