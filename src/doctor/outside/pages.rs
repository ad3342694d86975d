//! What the authorization page and the token endpoint must refuse, and the headers of all pages.

use http::header::CONTENT_SECURITY_POLICY;

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
    check_headers("the page", &answer)?;
    without_form_action(&answer)?;
    Ok("refuses an unknown client on a page".to_owned())
}

/// Chromium applies `form-action` to redirects after a form too, and would not go back to the app after consent.
pub(super) fn without_form_action(answer: &Answer) -> Result<(), Problem> {
    if policies(answer).iter().any(|policy| policy.contains("form-action")) {
        return Err(changed(
            "its Content-Security-Policy has form-action: Chromium does not go back to the app",
        ));
    }
    Ok(())
}

/// The page has the policy of the server and no other, as all policies apply together (CSP Level 3, "The effect of multiple
/// policies"), and nothing on the way may store it.
pub(super) fn check_headers(what: &str, answer: &Answer) -> Result<(), Problem> {
    let policies = policies(answer);
    if policies.len() > 1 {
        return Err(changed(format!("{what} has {} Content-Security-Policies", policies.len())));
    }
    if !policies.iter().any(|policy| policy.contains("frame-ancestors 'none'")) {
        return Err(changed(format!("{what} may be framed by others: its Content-Security-Policy is gone")));
    }
    if !answer.is_private() {
        return Err(changed(format!("{what} may be stored: its Cache-Control is gone")));
    }
    Ok(())
}

pub(super) fn policies(answer: &Answer) -> Vec<String> {
    let values = answer.headers.get_all(CONTENT_SECURITY_POLICY).iter();
    let values = values.filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::to_ascii_lowercase).collect()
}

pub(super) fn changed(detail: impl Into<String>) -> Problem {
    Problem::fail(detail, "Let the proxy pass the headers of the pages as they are, and add none.")
}

/// RFC 6749, sections 5.1 and 5.2.
pub(super) async fn token(site: &Site) -> Outcome {
    let answer = send(site.token_request()).await?;
    if !answer.is_oauth_error() {
        return Err(Problem::fail(
            format!("/token: {}, not an OAuth error", answer.shown()),
            "Let the proxy pass POST requests to /token, and serve no error pages of its own.",
        ));
    }
    if !answer.is_private() {
        let advice =
            "Let the proxy pass Cache-Control as it is, and cache nothing but what the server allows.";
        return Err(Problem::fail("answers of /token may be stored", advice));
    }
    Ok("answers with an error of OAuth, which is not stored".to_owned())
}
