//! What stands in front of the server: firewalls that know user agents, redirects, headers and clocks.

use http::{Method, StatusCode, header::USER_AGENT};

use super::{
    Outcome, Problem, network,
    site::{Answer, RESOURCE_METADATA, Silence, Site, send},
};
use crate::clock::{Clock, Timestamp};

/// How hosts name themselves; `None` is a request without the header. Seen in the logs of servers:
/// anthropics/claude-ai-mcp issues 49 and 923, anthropics/claude-code issue 47390, openai/codex issue 12859,
/// microsoft/vscode issue 264502.
const USER_AGENTS: [(&str, Option<&str>); 10] = [
    ("claude.ai", Some("Claude-User")),
    ("claude.ai and Python", Some("python-httpx/0.28.1")),
    ("Claude Code", Some("claude-code/2.1.330 (cli)")),
    ("ChatGPT, discovery", Some("Python/3.14 aiohttp/3.13.5")),
    ("ChatGPT, tokens", Some("openai-connectors-oauth/1.0")),
    ("ChatGPT", Some("openai-mcp/1.0.0 (ChatGPT)")),
    ("Codex", Some("codex-mcp-client/0.161.0")),
    ("VS Code and mcp-remote", Some("node")),
    ("Cursor", Some("Cursor/3.1.0 (linux x64)")),
    ("the sign-in of several hosts", None),
];

/// Tells an answer of the server from one of what stands in front of it.
type IsOfServer = fn(&Answer) -> bool;

/// Every host gets the answers that a browser gets, from its apps and from its back end. One after the other, since a
/// firewall may take many requests at once for an attack.
pub(super) async fn user_agents(site: &Site) -> Outcome {
    let mut refused = Vec::new();
    let mut is_challenge = false;
    for (host, user_agent) in USER_AGENTS {
        let requests: [(_, _, IsOfServer); 4] = [
            (RESOURCE_METADATA, site.request(Method::GET, &site.at(RESOURCE_METADATA)), |answer| {
                answer.status == StatusCode::OK
            }),
            ("/mcp", site.initialize(), |answer| answer.status == StatusCode::UNAUTHORIZED),
            ("/token", site.token_request(), Answer::is_oauth_error),
            ("/register", site.empty_registration(), Answer::is_oauth_error),
        ];
        for (path, request, is_of_server) in requests {
            let request = match user_agent {
                Some(user_agent) => request.header(USER_AGENT, user_agent),
                None => request,
            };
            let why = match send(request).await {
                Ok(answer) if is_of_server(&answer) => continue,
                Ok(answer) => {
                    is_challenge |= answer.header("cf-mitigated").is_some();
                    answer.shown()
                }
                Err(Silence(why)) => why.to_owned(),
            };
            refused.push(format!("{} ({host}) at {path}: {why}", user_agent.unwrap_or("no User-Agent")));
            break;
        }
    }
    if refused.is_empty() {
        return Ok(format!("{} pass to the metadata, /mcp, /token and /register", USER_AGENTS.len()));
    }
    let cloudflare = if is_challenge { "This is Cloudflare. " } else { "" };
    let advice = format!(
        "{cloudflare}Let the firewall pass every User-Agent, and none, to all paths of this host. At Cloudflare turn off \"Block AI bots\" and Bot Fight Mode for it; at AWS WAF exclude NoUserAgent_HEADER and the bot control rules."
    );
    Err(Problem::fail(format!("refused: {}", refused.join("; ")), advice))
}

/// The server believes `--public-url` and nothing else.
pub(super) async fn forwarded_headers(site: &Site) -> Outcome {
    let plain = site.get(RESOURCE_METADATA).await?;
    let request = site
        .request(Method::GET, &site.at(RESOURCE_METADATA))
        .header("x-forwarded-host", "of-doctor.invalid")
        .header("x-forwarded-proto", "http")
        .header("forwarded", "host=of-doctor.invalid;proto=http");
    let answer = send(request).await?;
    if answer.status != plain.status || answer.body != plain.body {
        let detail = "X-Forwarded-Host from anybody changes the metadata";
        let advice = "Let the proxy replace X-Forwarded-Host, X-Forwarded-Proto and Forwarded, and let it build no answers or redirects from them.";
        return Err(Problem::fail(detail, advice));
    }
    Ok("change nothing".to_owned())
}

pub(super) async fn clock(site: &Site, clock: &Clock) -> Outcome {
    let answer = site.get(RESOURCE_METADATA).await?;
    let theirs = answer.header("date").and_then(|date| httpdate::parse_http_date(date).ok());
    let Some(theirs) = theirs.map(Timestamp::from) else {
        return Err(Problem::warn("the answer has no date", "Let the proxy pass or add the Date header."));
    };
    let Some(minutes) = network::clock_difference(theirs, clock.now()) else {
        return Ok("agrees with this computer's to within a minute".to_owned());
    };
    let way = if minutes > 0 { "ahead of" } else { "behind" };
    let detail = format!("the server's clock is {} min {way} this computer's", minutes.abs());
    let advice = "Let the operating system set the clocks, of the servers first: tokens expire by them.";
    Err(Problem::warn(detail, advice))
}

/// Asks on port 80, where people arrive who type the name.
pub(super) async fn https_redirect(site: &Site) -> Outcome {
    let authority = site.origin.authority();
    if authority.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok()) {
        return Ok("not examined: the public URL has a port of its own".to_owned());
    }
    let plain = site.request(Method::POST, &format!("http://{authority}/mcp"));
    redirected(site, send(plain).await)
}

fn redirected(site: &Site, answer: Result<Answer, Silence>) -> Outcome {
    let Ok(answer) = answer else { return Ok("port 80 does not answer".to_owned()) };
    let location = answer.header("location").unwrap_or_default();
    let advice = format!("On port 80 let the proxy only redirect: 308 to {}/…", site.origin);
    match answer.status.as_u16() {
        301 | 308
            if location.strip_prefix(site.origin.as_str()).is_some_and(|rest| rest.starts_with('/')) =>
        {
            Ok("port 80 redirects to HTTPS".to_owned())
        }
        302 | 303 | 307 if location.starts_with(site.origin.as_str()) => {
            Err(Problem::warn("port 80 redirects to HTTPS, but not permanently", advice))
        }
        300..=399 => Err(Problem::fail("port 80 redirects, but not to the public URL", advice)),
        400..=499 if !answer.headers.contains_key("www-authenticate") => {
            Ok(format!("port 80 refuses: status {}", answer.status.as_u16()))
        }
        _ => Err(Problem::fail(format!("port 80 serves without TLS: {}", answer.shown()), advice)),
    }
}

/// Shortest time for which browsers should remember to use HTTPS, in seconds: half a year.
const MIN_HSTS_AGE: u64 = 182 * 24 * 60 * 60;

/// RFC 6797.
pub(super) async fn hsts(site: &Site) -> Outcome {
    let answer = site.get(RESOURCE_METADATA).await?;
    let value = answer.lower("strict-transport-security");
    let age = value
        .split(';')
        .find_map(|part| part.trim().strip_prefix("max-age=")?.trim_matches('"').parse::<u64>().ok());
    if age.is_some_and(|age| age >= MIN_HSTS_AGE) {
        return Ok("browsers keep to HTTPS".to_owned());
    }
    let detail = if age.is_some() { "is for less than half a year" } else { "is not sent" };
    let advice = "Let the TLS proxy send `Strict-Transport-Security: max-age=31536000`.";
    Err(Problem::warn(format!("Strict-Transport-Security {detail}"), advice))
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::*;

    /// Says whether port 80 is as it should be, and what was found.
    fn port_80(status: u16, header: Option<(&'static str, &'static str)>) -> (bool, String) {
        let site = Site::new("https://bond.example.com".parse().unwrap(), reqwest::Client::new());
        let headers: HeaderMap =
            header.into_iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
        let answer = Answer { status: StatusCode::from_u16(status).unwrap(), headers, body: vec![] };
        match redirected(&site, Ok(answer)) {
            Ok(detail) => (true, detail),
            Err(problem) => (false, problem.detail),
        }
    }

    #[test]
    fn port_80_may_only_redirect_to_the_public_url() {
        let to = |status, location| port_80(status, Some(("location", location)));
        assert!(to(308, "https://bond.example.com/mcp").0);
        assert!(to(301, "https://bond.example.com/").0);
        assert!(port_80(404, None).0);
        assert!(!to(302, "https://bond.example.com/mcp").0);
        assert!(!to(308, "https://bond.example.com.evil.test/").0);
        assert!(!to(301, "http://bond.example.com/mcp").0);
        assert!(!to(308, "/mcp").0);
        assert!(!port_80(200, None).0);
        assert!(!port_80(401, Some(("www-authenticate", "Bearer"))).0);
        let site = Site::new("https://bond.example.com".parse().unwrap(), reqwest::Client::new());
        assert!(redirected(&site, Err(Silence("no connection"))).is_ok());
    }
}
