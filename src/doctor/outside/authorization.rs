//! An authorization, as a host and a browser begin it: the registration of a client (RFC 7591), its request (RFC 6749,
//! section 4.1.1), and the redirects to the sign-in page.
//!
//! Nobody signs in, so the consent page and the redirect from there to the app are not reached. Of consent, its address is
//! examined, whose redirect to the sign-in page has the headers of the consent page. A proxy that changes only pages, or
//! only what is posted, may still break consent.
//!
//! The server stores no registration. The authorizations, the sign-in page and their traces expire within half an hour.

use http::{
    Method, StatusCode,
    header::{CONTENT_TYPE, COOKIE, SET_COOKIE},
};
use serde_json::json;
use url::{Url, form_urlencoded};

use super::{
    Outcome, Problem,
    pages::{changed, check_headers, policies, without_form_action},
    site::{Answer, Site, send},
};
use crate::{
    doctor::presentation::shown,
    secret::{self, ExposeSecret as _},
};

/// Where the client would be answered; nobody asks there. Programs on a computer register such addresses, and firewalls
/// that take a URL for an attack refuse these first (OWASP Core Rule Set, rule 931100).
const REDIRECT_URI: &str = "http://127.0.0.1:33418/callback";

/// Returns the outcomes of the registration, the request and the sign-in page.
pub(super) async fn examine(site: &Site) -> [Outcome; 3] {
    let client_id = match register(site).await {
        Ok(client_id) => client_id,
        Err(problem) => {
            let skipped = || Err(Problem::skip("client registration failed"));
            return [Err(problem), skipped(), skipped()];
        }
    };
    let registered = Ok("a client can register".to_owned());
    match request(site, &client_id).await {
        Ok(page) => {
            let requested = Ok("leads to the sign-in page, with a cookie that browsers keep".to_owned());
            [registered, requested, sign_in_page(site, &page).await]
        }
        Err(problem) => [registered, Err(problem), Err(Problem::skip("authorization request failed"))],
    }
}

/// Registers a public client; returns its id.
async fn register(site: &Site) -> Result<String, Problem> {
    let body = json!({"client_name": "bondmcp-server doctor", "redirect_uris": [REDIRECT_URI],
        "grant_types": ["authorization_code", "refresh_token"], "response_types": ["code"],
        "token_endpoint_auth_method": "none"});
    let request = site.request(Method::POST, &site.at("/register"));
    let answer = send(request.header(CONTENT_TYPE, "application/json").body(body.to_string())).await?;
    let registered = answer.json().filter(|_| answer.status == StatusCode::CREATED);
    let client_id = registered.and_then(|client| client["client_id"].as_str().map(ToOwned::to_owned));
    client_id.ok_or_else(|| {
        let advice = "Let the proxy and its firewall pass POST requests with JSON to /register, including those that contain URLs: hosts register there.";
        answer.problem("/register", advice)
    })
}

/// A page, and the cookies that the browser sends there.
struct Page {
    url: String,
    cookies: String,
}

/// Asks for authorization; returns the page that the browser is led to.
async fn request(site: &Site, client_id: &str) -> Result<Page, Problem> {
    // Random, so that no answer to another request is found in a cache. Nobody knows the verifier of this challenge.
    let (state, challenge) = (secret::random(), secret::random());
    let query = form_urlencoded::Serializer::new(String::new())
        .extend_pairs([
            ("response_type", "code"),
            ("client_id", client_id),
            ("redirect_uri", REDIRECT_URI),
            ("state", state.expose_secret()),
            ("code_challenge", challenge.expose_secret()),
            ("code_challenge_method", "S256"),
            ("resource", &site.at("/mcp")),
            ("scope", "models offline_access"),
        ])
        .finish();
    let path = format!("/authorize?{query}");
    let answer = site.get(&path).await?;
    let advice = "Let the proxy and its firewall pass /authorize with its query to the server, even if the query contains URLs.";
    let consent = target(site, "/authorize", &answer, advice)?;
    check_headers("the redirect of /authorize", &answer)?;
    let cookies = cookies(site, &answer)?;
    if target(site, "/authorize", &site.get(&path).await?, advice)? == consent {
        let advice =
            "Let the proxy cache nothing but what Cache-Control allows, and no answer with Set-Cookie.";
        return Err(Problem::fail(
            "/authorize is cached: one browser gets the authorization of another",
            advice,
        ));
    }
    let answer = send(site.request(Method::GET, &consent).header(COOKIE, &cookies)).await?;
    let url = target(site, "the address of the consent page", &answer, PASS_COOKIES)?;
    check_headers("the address of the consent page", &answer)?;
    without_form_action(&answer)?;
    Ok(Page { url, cookies })
}

const PASS_COOKIES: &str = "Let the proxy pass the headers Set-Cookie and Cookie as they are.";

/// Returns where a redirect leads, which must be a page of the server.
fn target(site: &Site, what: &str, answer: &Answer, advice: &str) -> Result<String, Problem> {
    if !answer.status.is_redirection() {
        let Problem { detail, advice, .. } = answer.problem(what, advice);
        return Err(Problem::fail(format!("{detail}, not a redirect to the sign-in page"), advice));
    }
    let location = answer.header("location").unwrap_or_default();
    if location.starts_with(REDIRECT_URI) {
        return Err(Problem::fail(format!("{what}: the server refuses a valid request"), advice));
    }
    let target = Url::parse(site.origin.as_str()).and_then(|origin| origin.join(location));
    let detail = match target {
        Ok(url) if url.origin().ascii_serialization() != site.origin.as_str() => {
            let theirs = url.origin().ascii_serialization();
            format!("{what} redirects to {}, not to {}", shown(&theirs), site.origin)
        }
        Ok(url) if ["/authorize/", "/sign-in/"].iter().any(|pages| url.path().starts_with(pages)) => {
            return Ok(url.into());
        }
        _ => format!("{what} redirects, but not to a page of the server"),
    };
    let advice = "Let the proxy rewrite no redirects, and pass every path of the host to the server, without a sign-in of its own.";
    Err(Problem::fail(detail, advice))
}

/// Returns the cookies that a browser would send back. The server's own must have the attributes that the server gives
/// it: browsers drop a `__Host-` cookie with a domain or another path (RFC 6265bis, section 4.1.3.2), and do not send one
/// with `SameSite=Strict` when another site has led there.
fn cookies(site: &Site, answer: &Answer) -> Result<String, Problem> {
    let (name, expected) = if site.origin.is_trial() {
        ("bondmcp", &["path=/", "httponly", "samesite=lax"][..])
    } else {
        ("__Host-bondmcp", &["path=/", "httponly", "samesite=lax", "secure"][..])
    };
    let cookies = answer.headers.get_all(SET_COOKIE).iter().filter_map(|cookie| cookie.to_str().ok());
    let cookies: Vec<_> = cookies.map(|cookie| cookie.split_once(';').unwrap_or((cookie, ""))).collect();
    let problem = |detail: String| Problem::fail(detail, PASS_COOKIES);
    let own = cookies.iter().find(|(pair, _)| pair.split('=').next() == Some(name));
    let Some((_, attributes)) = own else {
        return Err(problem("the browser's cookie is missing: nobody can sign in".to_owned()));
    };
    let attributes = attributes.to_ascii_lowercase();
    let attributes: Vec<_> = attributes.split(';').map(str::trim).collect();
    if let Some(missing) = expected.iter().find(|attribute| !attributes.contains(attribute)) {
        return Err(problem(format!("the cookie of the browser lacks {missing}")));
    }
    if attributes.len() > expected.len() {
        return Err(problem("the cookie of the browser has other attributes than the server's".to_owned()));
    }
    Ok(cookies.iter().map(|(pair, _)| *pair).collect::<Vec<_>>().join("; "))
}

/// A proxy may add headers to answers with status 200 alone, and pass no cookies.
async fn sign_in_page(site: &Site, page: &Page) -> Outcome {
    let answer = send(site.request(Method::GET, &page.url).header(COOKIE, &page.cookies)).await?;
    if answer.status != StatusCode::OK || !answer.is_html() {
        return Err(answer.problem("the sign-in page", PASS_COOKIES));
    }
    check_headers("the sign-in page", &answer)?;
    // Its form is posted to the server, which redirects to a page of its own.
    let policies = policies(&answer);
    let mut directives = policies.iter().flat_map(|policy| policy.split(';')).map(str::trim);
    let form_action = directives.find_map(|directive| directive.strip_prefix("form-action"));
    if form_action.is_some_and(|sources| !sources.split_whitespace().any(|source| source == "'self'")) {
        let detail = "its Content-Security-Policy has form-action without 'self': nobody can sign in";
        return Err(changed(detail));
    }
    Ok("is shown with its headers".to_owned())
}
