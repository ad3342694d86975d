//! The pages that people see, and the token endpoint, asked what it must refuse.

use http::{
    Method, StatusCode,
    header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE, COOKIE},
};

use super::{
    Outcome, Problem,
    site::{Answer, Site, send},
};

/// An authorization request of a client that nobody knows.
const REQUEST: &str = "/authorize?response_type=code&client_id=of-doctor&state=of-doctor&code_challenge_method=S256\
                       &code_challenge=E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM\
                       &redirect_uri=https%3A%2F%2Fof-doctor.invalid%2Fcallback";

/// An unknown client is told on a page: a redirect would lead anywhere (RFC 9700, section 4.11).
pub(super) async fn authorization(site: &Site) -> Outcome {
    let answer = site.get(REQUEST).await?;
    if let Some(location) = answer.header("location") {
        let detail = if location.contains("of-doctor.invalid") {
            "an unknown client is redirected to: an open redirect"
        } else {
            "it redirects instead of showing a page"
        };
        return Err(Problem::fail(
            detail,
            "Let the proxy pass /authorize to the server, without a sign-in of its own.",
        ));
    }
    if !answer.status.is_client_error() || !answer.is_html() {
        let detail = format!("/authorize: {}, not a page that refuses an unknown client", answer.shown());
        return Err(Problem::fail(detail, "Let the proxy pass /authorize with its query to the server."));
    }
    check_headers(&answer)?;
    // Chromium applies it to redirects after a form too, and would not go back to the app after consent.
    if policies(&answer).iter().any(|policy| policy.contains("form-action")) {
        return Err(changed(
            "its Content-Security-Policy has form-action: Chromium does not go back to the app",
        ));
    }
    Ok("refuses an unknown client on a page".to_owned())
}

/// The sign-in page: a proxy may add headers to answers with status 200 alone (nginx, `add_header`), and pass no cookies.
/// This begins a sign-in, which expires.
pub(super) async fn sign_in(site: &Site) -> Outcome {
    let sent = site.get("/connections").await?;
    let location = sent.header("location").unwrap_or_default();
    let path = location.strip_prefix(site.origin.as_str()).unwrap_or(location);
    if !sent.status.is_redirection() || !path.starts_with('/') {
        let detail = format!("/connections: {}, not a redirect to the sign-in page", sent.shown());
        let advice = "Let the proxy pass every path of the host to the server, and rewrite no redirects.";
        return Err(Problem::fail(detail, advice));
    }
    let cookies = "Let the proxy pass the headers Set-Cookie and Cookie as they are.";
    let Some(cookie) = sent.header("set-cookie").and_then(|cookie| cookie.split(';').next()) else {
        return Err(Problem::fail("the cookie of the browser is gone: nobody can sign in", cookies));
    };
    let answer = send(site.request(Method::GET, &site.at(path)).header(COOKIE, cookie)).await?;
    if answer.status != StatusCode::OK || !answer.is_html() {
        return Err(Problem::fail(format!("the sign-in page: {}", answer.shown()), cookies));
    }
    check_headers(&answer)?;
    Ok("is shown with its headers".to_owned())
}

/// The page has the policy of the server and no other, as all policies apply together (CSP Level 3, "The effect of multiple
/// policies"), and nothing on the way may store it.
fn check_headers(answer: &Answer) -> Result<(), Problem> {
    let policies = policies(answer);
    if policies.len() > 1 {
        return Err(changed(format!("the page has {} Content-Security-Policies", policies.len())));
    }
    if !policies.iter().any(|policy| policy.contains("frame-ancestors 'none'")) {
        return Err(changed("the page may be framed by others: its Content-Security-Policy is gone"));
    }
    if !answer.is_private() {
        return Err(changed("the page may be stored: its Cache-Control is gone"));
    }
    Ok(())
}

fn policies(answer: &Answer) -> Vec<String> {
    let values = answer.headers.get_all(CONTENT_SECURITY_POLICY).iter();
    let values = values.filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::to_ascii_lowercase).collect()
}

fn changed(detail: impl Into<String>) -> Problem {
    Problem::fail(detail, "Let the proxy pass the headers of the pages as they are, and add none.")
}

/// RFC 6749, sections 5.1 and 5.2.
pub(super) async fn token(site: &Site) -> Outcome {
    let request = site
        .request(Method::POST, &site.at("/token"))
        .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
        .body("grant_type=authorization_code&code=of-doctor&client_id=of-doctor");
    let answer = send(request).await?;
    let is_error = answer.json().is_some_and(|body| body["error"].is_string());
    if !matches!(answer.status.as_u16(), 400 | 401) || !is_error {
        let detail = format!("/token: {}, not an error of OAuth", answer.shown());
        return Err(Problem::fail(
            detail,
            "Let the proxy pass POST requests to /token, and serve no error pages of its own.",
        ));
    }
    if !answer.is_private() {
        let advice =
            "Let the proxy pass Cache-Control as it is, and cache nothing but what the server allows.";
        return Err(Problem::fail("answers of /token may be stored", advice));
    }
    Ok("refuses an unknown client, and nothing is stored".to_owned())
}
