//! An authorization up to its sign-in page, through an edge with TLS, where browsers keep only a `__Host-` cookie.

use std::sync::{Arc, Mutex};

use axum::http::{HeaderValue, request::Parts};
use serde_json::json;

use super::{Answer, Edge, answer};

const CLIENT: &str = "client registration";
const REQUEST: &str = "authorization request";
const PAGE: &str = "sign-in page";

/// Which answer is broken: that to the sound request, which alone is a redirect; that at the address of the consent page;
/// or the sign-in page.
#[derive(Clone, Copy, PartialEq)]
enum At {
    Request,
    Consent,
    SignIn,
}

fn is_at(at: At, head: &Parts, found: &Answer) -> bool {
    let path = head.uri.path();
    match at {
        At::Request => path == "/authorize" && found.status == 303,
        At::Consent => path.starts_with("/authorize/"),
        At::SignIn => path.starts_with("/sign-in/"),
    }
}

/// Returns a fault of one answer.
fn at(
    at: At,
    change: impl Fn(&mut Answer) + Send + 'static,
) -> impl Fn(&Parts, &mut Answer) + Send + 'static {
    move |head, found| {
        if is_at(at, head, found) {
            change(found);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registration_that_the_firewall_refuses() {
    let edge = Edge::start().await;
    for (status, kind, body) in [
        (403, "text/html", "<h1>Forbidden</h1>"),
        (405, "application/json", "{}"),
        (201, "application/json", "{}"),
        (200, "text/html", "<h1>Welcome</h1>"),
    ] {
        let detail = format!("/register: status {status}");
        edge.finds(CLIENT, &detail, "POST requests with JSON to /register", move |head, found| {
            if head.uri.path() == "/register" {
                found.replace_by(answer(status, kind, body));
            }
        })
        .await;
    }
    edge.break_with(|head, found| {
        if head.uri.path() == "/register" {
            found.status = 403;
        }
    });
    let report = edge.examine().await;
    for name in [REQUEST, PAGE] {
        assert_eq!(report.check(name).status, "skip");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_that_the_proxy_rewrites() {
    let directory = tempfile::tempdir().unwrap();
    let (edge, _front) = Edge::start_with_tls(directory.path()).await;
    let without_tls = edge.origin.replace("https:", "http:");
    for broken in [At::Request, At::Consent] {
        for elsewhere in [&*without_tls, "https://bond.internal", "http://10.0.0.7:8787", "https://127.0.0.1"]
        {
            let to = elsewhere.to_owned();
            let fault = at(broken, move |found| {
                let path = found.header("location").to_owned();
                found.set("location", &format!("{to}{path}"));
            });
            let detail = format!("redirects to {elsewhere}, not to {}", edge.origin);
            edge.finds(REQUEST, &detail, "rewrite no redirects", fault).await;
        }
        // A proxy that signs people in itself.
        let fault = at(broken, |found| found.set("location", "/oauth2/start?rd=/authorize"));
        edge.finds(REQUEST, "not to a page of the server", "without a sign-in of its own", fault).await;
        let fault = at(broken, |found| found.remove("location"));
        edge.finds(REQUEST, "not to a page of the server", "rewrite no redirects", fault).await;
        let fault = at(broken, |found| found.replace_by(answer(200, "text/html", "<h1>Log in</h1>")));
        edge.finds(REQUEST, "status 200, an HTML page, not a redirect", "", fault).await;
    }
    // The whole address, as some proxies write it, is the same place.
    let origin = edge.origin.clone();
    edge.break_with(at(At::Request, move |found| {
        let path = found.header("location").to_owned();
        found.set("location", &format!("{origin}{path}"));
    }));
    assert_eq!(edge.examine().await.check(PAGE).status, "ok");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_does_not_arrive_whole() {
    let edge = Edge::start().await;
    let fault = at(At::Request, |found| {
        found.set("location", "http://127.0.0.1:33418/callback?error=invalid_request&state=x");
    });
    edge.finds(REQUEST, "the server refuses a valid request", "with its query", fault).await;
    let fault = at(At::Request, |found| found.replace_by(answer(400, "text/html", "<h1>Unknown app</h1>")));
    edge.finds(REQUEST, "/authorize: status 400, an HTML page", "with its query", fault).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cookie_that_a_browser_does_not_keep_or_send() {
    let directory = tempfile::tempdir().unwrap();
    let (edge, _front) = Edge::start_with_tls(directory.path()).await;
    for (from, to, detail) in [
        ("; Secure", "", "lacks secure"),
        ("; HttpOnly", "", "lacks httponly"),
        ("SameSite=Lax", "SameSite=Strict", "lacks samesite=lax"),
        ("SameSite=Lax", "SameSite=Lax; Domain=example.com", "has other attributes"),
        ("Path=/", "Path=/bond/", "lacks path=/"),
        ("__Host-", "", "the browser's cookie is missing"),
    ] {
        let fault = at(At::Request, move |found| {
            let changed = found.header("set-cookie").replacen(from, to, 1);
            found.set("set-cookie", &changed);
        });
        edge.finds(REQUEST, detail, "Set-Cookie", fault).await;
    }
    let fault = at(At::Request, |found| found.remove("set-cookie"));
    edge.finds(REQUEST, "the browser's cookie is missing", "Set-Cookie", fault).await;
    // What the server answers if the cookie does not come back.
    let fault =
        at(At::Consent, |found| found.replace_by(answer(404, "text/html", "<h1>This page isn't valid</h1>")));
    edge.finds(REQUEST, "status 404, an HTML page, not a redirect", "Cookie", fault).await;
    let fault = at(At::SignIn, |found| found.status = 403);
    edge.finds(PAGE, "the sign-in page: status 403", "Cookie", fault).await;
    // A load balancer's own cookie does no harm.
    edge.break_with(at(At::Request, |found| {
        let theirs = found.headers.remove("set-cookie").unwrap();
        found.set("set-cookie", "AWSALB=1; Path=/; Expires=Thu, 01 Jan 2099 00:00:00 GMT");
        found.headers.append("set-cookie", theirs);
    }));
    assert_eq!(edge.examine().await.check(PAGE).status, "ok");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cookie_without_tls() {
    let edge = Edge::start().await;
    let fault = at(At::Request, |found| {
        let changed = found.header("set-cookie").replace("; HttpOnly", "");
        found.set("set-cookie", &changed);
    });
    edge.finds(REQUEST, "lacks httponly", "Set-Cookie", fault).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_caches_the_redirect() {
    let edge = Edge::start().await;
    let cache: Mutex<Option<(String, HeaderValue)>> = Mutex::default();
    edge.finds(
        REQUEST,
        "one browser gets the authorization of another",
        "cache nothing",
        move |head, found| {
            if is_at(At::Request, head, found) {
                let (key, location) = (head.uri.to_string(), found.headers["location"].clone());
                let mut cache = cache.lock().unwrap();
                match &*cache {
                    Some((known, location)) if *known == key => {
                        found.set("location", location.to_str().unwrap());
                    }
                    _ => *cache = Some((key, location)),
                }
            }
        },
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_that_keeps_the_browser_from_going_on() {
    let edge = Edge::start().await;
    let add = |sources: &'static str| {
        move |found: &mut Answer| {
            let policy = found.header("content-security-policy").replace("; form-action 'self'", "");
            found.set("content-security-policy", &format!("{policy}; Form-Action {sources}"));
        }
    };
    // It holds for the redirect to the app, too.
    let fault = at(At::Consent, add("'self'"));
    edge.finds(REQUEST, "form-action: Chromium does not go back to the app", "headers of the pages", fault)
        .await;
    let fault = at(At::SignIn, add("'none'"));
    edge.finds(PAGE, "form-action without 'self': nobody can sign in", "headers of the pages", fault).await;
}

/// Also where the proxy puts all of it into its redirects.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_the_authorization_is_printed() {
    let edge = Edge::start().await;
    let seen: Arc<Mutex<Vec<String>>> = Arc::default();
    for broken in [None, Some(At::Request), Some(At::Consent), Some(At::SignIn)] {
        let notes = Arc::clone(&seen);
        edge.break_with(move |head, found| {
            let mut notes = notes.lock().unwrap();
            let query = head.uri.query().unwrap_or_default();
            let parameters = url::form_urlencoded::parse(query.as_bytes()).into_owned();
            let secret =
                parameters.filter(|(name, _)| ["state", "code_challenge", "client_id"].contains(&&**name));
            notes.extend(secret.map(|(_, value)| value).filter(|value| value != "of-doctor"));
            let cookie = found.header("set-cookie").split(';').next().unwrap().split_once('=');
            notes.extend(cookie.map(|(_, value)| value.to_owned()));
            if broken.is_some_and(|broken| is_at(broken, head, found)) {
                let all = notes.join("/");
                found.set("location", &format!("https://bond.internal/{all}?{query}#{all}"));
                found.edit_page(&all);
            }
        });
        let report = edge.examine().await.0.to_string();
        let seen = seen.lock().unwrap();
        assert!(seen.len() >= 4, "{seen:?}");
        for secret in &*seen {
            assert!(!report.contains(&**secret), "{secret}: {report}");
        }
    }
}

impl Answer {
    /// Answers with `text` in a JSON error instead of a page.
    fn edit_page(&mut self, text: &str) {
        if self.status == 200 {
            self.body = json!({"error": text}).to_string();
            self.set("content-type", "application/json");
        }
    }
}
