//! The metadata: RFC 9728 for the resource, RFC 8414 for the authorization server, and its keys.

use serde_json::{Value, json};

use super::{
    Outcome, Problem,
    site::{RESOURCE_METADATA, Site},
};
use crate::doctor::presentation::shown;

/// Where hosts look: each asks for another one first.
const RESOURCE: [&str; 2] = [RESOURCE_METADATA, "/.well-known/oauth-protected-resource"];
const SERVER: [&str; 4] = [
    "/.well-known/oauth-authorization-server",
    "/.well-known/oauth-authorization-server/mcp",
    "/.well-known/openid-configuration",
    "/.well-known/openid-configuration/mcp",
];

/// Longest time for which a document may be kept, in seconds: hosts follow a change within a day.
const MAX_AGE: u64 = 24 * 60 * 60;

/// RFC 9728, section 3.3: the resource is the one whose metadata was asked for.
pub(super) async fn resource(site: &Site) -> Outcome {
    for path in RESOURCE {
        let document = read(site, path).await?;
        expect(site, path, &document, "resource", &json!(site.at("/mcp")))?;
        expect(site, path, &document, "authorization_servers", &json!([site.origin.as_str()]))?;
    }
    Ok(format!("{} documents name {}", RESOURCE.len(), site.at("/mcp")))
}

/// RFC 8414, section 3.3: the issuer is equal to the one that was asked, byte by byte.
pub(super) async fn server(site: &Site) -> Outcome {
    for path in SERVER {
        let document = read(site, path).await?;
        expect(site, path, &document, "issuer", &json!(site.origin.as_str()))?;
        for (name, endpoint) in [
            ("authorization_endpoint", "/authorize"),
            ("token_endpoint", "/token"),
            ("registration_endpoint", "/register"),
            ("revocation_endpoint", "/revoke"),
            ("jwks_uri", "/jwks"),
        ] {
            expect(site, path, &document, name, &json!(site.at(endpoint)))?;
        }
        expect(site, path, &document, "code_challenge_methods_supported", &json!(["S256"]))?;
        expect(site, path, &document, "client_id_metadata_document_supported", &json!(true))?;
        let methods = &document["token_endpoint_auth_methods_supported"];
        if !methods.as_array().is_some_and(|methods| methods.contains(&json!("none"))) {
            let detail = format!("{path} does not list `none` in token_endpoint_auth_methods_supported");
            return Err(Problem::fail(detail, rewritten(site)));
        }
    }
    Ok(format!("{} documents name the issuer {}", SERVER.len(), site.origin))
}

/// RFC 7517: public keys only.
pub(super) async fn signing_keys(site: &Site) -> Outcome {
    let document = read(site, "/jwks").await?;
    let keys = document["keys"].as_array().filter(|keys| !keys.is_empty());
    let Some(keys) = keys else {
        return Err(Problem::fail("/jwks has no keys", rewritten(site)));
    };
    if keys.iter().any(|key| key.get("d").is_some() || key.get("k").is_some()) {
        let advice = "Take the server off the network and report it: SECURITY.md.";
        return Err(Problem::fail("/jwks publishes a private key", advice));
    }
    Ok(format!("{} published", keys.len()))
}

/// Reads a document that every host may read and keep for a while.
async fn read(site: &Site, path: &str) -> Result<Value, Problem> {
    let answer = site.get(path).await?;
    let problem = |advice: &str| answer.problem(path, advice);
    if answer.status.is_redirection() {
        return Err(problem("Let the proxy serve this path without a redirect."));
    }
    let document = answer.json().filter(|_| answer.status.is_success());
    let document = document.ok_or_else(|| {
        problem("Let the proxy pass every path of the host to the server, not /mcp alone, and answer none itself.")
    })?;
    let age = answer.lower("cache-control");
    let age = age.split(',').find_map(|part| part.trim().strip_prefix("max-age=")?.parse::<u64>().ok());
    if age.is_some_and(|age| age > MAX_AGE) {
        let advice =
            "Let the proxy leave Cache-Control as the server sends it: hosts would miss a change for days.";
        return Err(Problem::fail(format!("{path} may be kept for more than a day"), advice));
    }
    Ok(document)
}

fn expect(site: &Site, path: &str, document: &Value, name: &str, expected: &Value) -> Result<(), Problem> {
    let found = &document[name];
    if found == expected {
        return Ok(());
    }
    let text = found.to_string();
    let detail = format!("{path} has {name} {}, not {expected}", shown(&text));
    Err(Problem::fail(detail, rewritten(site)))
}

fn rewritten(site: &Site) -> String {
    format!(
        "Start every server with --public-url {}, run the same version everywhere, and let no proxy rewrite answers.",
        site.origin
    )
}
