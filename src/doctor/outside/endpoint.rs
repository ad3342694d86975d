//! `/mcp` without a token: its challenge, and what reaches it through the proxy; and the paths that nobody else may see.

use http::{Method, header::AUTHORIZATION};

use super::{
    Outcome, Problem,
    site::{Answer, RESOURCE_METADATA, Site, send},
};

/// An origin that asks as a web page does.
const WEB_PAGE: &str = "https://inspector.example";

/// RFC 9728, section 5.1: the challenge names the metadata.
pub(super) async fn challenge(site: &Site) -> Outcome {
    let answer = send(site.initialize()).await?;
    let challenge = expect_challenge(site, &answer)?;
    if challenge.contains("error=") {
        let detail = "a request without a token is answered as one with a bad token";
        return Err(Problem::fail(detail, "Let the proxy send no Authorization header of its own."));
    }
    Ok("401 names the metadata".to_owned())
}

/// A token reaches the server, which says that it is none of its own.
pub(super) async fn authorization_header(site: &Site) -> Outcome {
    let answer = send(site.initialize().header(AUTHORIZATION, "Bearer of-doctor")).await?;
    if expect_challenge(site, &answer)?.contains(r#"error="invalid_token""#) {
        return Ok("reaches the server".to_owned());
    }
    let detail = "the server does not see the Authorization header";
    Err(Problem::fail(detail, "Let the proxy pass the Authorization header, and check no tokens itself."))
}

fn expect_challenge<'a>(site: &Site, answer: &'a Answer) -> Result<&'a str, Problem> {
    let problem = |advice: &str| answer.problem("/mcp", advice);
    match answer.status.as_u16() {
        401 => {}
        200..=299 => return Err(problem("It serves without a token: start every server with --public-url.")),
        300..=399 => return Err(problem("Let the proxy serve /mcp without a redirect.")),
        403 => {
            return Err(problem(
                "Let the proxy pass the Host header as it is, and let no firewall refuse JSON-RPC in a POST.",
            ));
        }
        _ => return Err(problem("Let the proxy pass POST requests to /mcp to the server.")),
    }
    if answer.header("x-amzn-remapped-www-authenticate").is_some() {
        let detail = "the gateway renames WWW-Authenticate to x-amzn-remapped-www-authenticate";
        return Err(Problem::fail(
            detail,
            "Use a load balancer instead of Amazon API Gateway's REST API, or map the header back.",
        ));
    }
    let found = answer.header("www-authenticate").unwrap_or_default();
    let expected = format!(r#"resource_metadata="{}""#, site.at(RESOURCE_METADATA));
    if found.starts_with("Bearer ") && found.contains(&expected) && found.contains("scope=") {
        Ok(found)
    } else {
        let detail = format!("the challenge of /mcp lacks {expected}");
        let advice = format!(
            "Start every server with --public-url {}, and let the proxy pass WWW-Authenticate as it is.",
            site.origin
        );
        Err(Problem::fail(detail, advice))
    }
}

/// Hosts in a browser, such as the Inspector, may ask and may read the challenge.
pub(super) async fn cors(site: &Site) -> Outcome {
    let advice =
        "Let the proxy pass OPTIONS requests to the server and its CORS headers as they are, and add none.";
    for path in ["/mcp", "/token", "/register", "/revoke", RESOURCE_METADATA] {
        let method = if path == RESOURCE_METADATA { "GET" } else { "POST" };
        let request = site
            .request(Method::OPTIONS, &site.at(path))
            .header("origin", WEB_PAGE)
            .header("access-control-request-method", method)
            .header("access-control-request-headers", "authorization,content-type,mcp-protocol-version");
        let answer = send(request).await?;
        let names = answer.lower("access-control-allow-headers");
        let allows =
            ["authorization", "content-type", "mcp-protocol-version"].iter().all(|name| names.contains(name));
        if !answer.status.is_success() || !is_open(&answer) || !allows {
            let detail = format!("web pages cannot call {path}: {} to OPTIONS", answer.shown());
            return Err(Problem::fail(detail, advice));
        }
    }
    let answer = send(site.initialize().header("origin", WEB_PAGE)).await?;
    let exposed = answer.lower("access-control-expose-headers");
    if !is_open(&answer) || !["www-authenticate", "mcp-session-id"].iter().all(|name| exposed.contains(name))
    {
        return Err(Problem::fail("a web page may not read the challenge of /mcp", advice));
    }
    Ok("web pages can call it, without cookies".to_owned())
}

/// One header that allows every origin, and no cookies. Browsers refuse two.
fn is_open(answer: &Answer) -> bool {
    let origins: Vec<_> = answer.headers.get_all("access-control-allow-origin").iter().collect();
    origins.len() == 1 && origins[0] == "*" && answer.header("access-control-allow-credentials").is_none()
}

/// A host that asks for a document that does not exist wants JSON: an HTML page ends its search.
pub(super) async fn unknown_paths(site: &Site) -> Outcome {
    for path in ["/.well-known/of-doctor", "/of-doctor"] {
        let answer = site.get(path).await?;
        if answer.status.as_u16() != 404 || answer.json().is_none() {
            let detail = format!("{path}: {}, not 404 with JSON", answer.shown());
            return Err(Problem::fail(
                detail,
                "Let the proxy pass every path to the server, and serve no error pages of its own.",
            ));
        }
    }
    Ok("404 with JSON".to_owned())
}

pub(super) async fn metrics(site: &Site) -> Outcome {
    let answer = site.get("/metrics").await?;
    if answer.status.is_success() {
        let advice = "Let no proxy lead to the address of --metrics-listen.";
        return Err(Problem::fail("/metrics is public", advice));
    }
    Ok("not public".to_owned())
}
