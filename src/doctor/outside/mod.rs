//! Examines a hosted server from outside, as hosts find it: over the network, through its proxies and firewalls, without
//! a credential. It begins authorizations, which nobody finishes and which expire.

mod authorization;
mod documents;
mod edge;
mod endpoint;
mod pages;
mod site;

use super::{Check, Findings, Fix, Status, network, presentation::Presentation, timing};
use crate::{
    bondmcp::{Client, ConnectFailure},
    clock::Clock,
    config::{BaseUrl, ConfigError, PublicOrigin},
    redact::Redactor,
};

use self::site::Site;

/// The hosted server that is examined.
#[derive(Debug)]
pub struct PublicServer {
    pub origin: PublicOrigin,
    pub redactor: Redactor,
    pub clock: Clock,
}

/// A finding that is not as it should be.
struct Problem {
    status: Status,
    detail: String,
    advice: String,
}

/// What a check found: what is right, or what is not and how to fix it.
type Outcome = Result<String, Problem>;

impl Problem {
    fn fail(detail: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { status: Status::Fail, detail: detail.into(), advice: advice.into() }
    }

    fn warn(detail: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { status: Status::Warn, ..Self::fail(detail, advice) }
    }

    /// Not examined, for this reason.
    fn skip(reason: &str) -> Self {
        Self { status: Status::Skip, ..Self::fail(reason, "") }
    }
}

fn check(name: &str, outcome: Outcome) -> Check {
    match outcome {
        Ok(detail) => Check::ok(name, detail),
        Err(Problem { status: Status::Skip, detail, .. }) => Check::skip(name, detail),
        Err(Problem { status, detail, advice }) => {
            Check { fix: Some(Fix::advice(advice)), ..Check::new(name, status, detail) }
        }
    }
}

/// Examines the server and passes each finding to `report`.
pub async fn examine(server: PublicServer, report: &mut dyn FnMut(Check)) -> Result<(), ConfigError> {
    let PublicServer { origin, redactor, clock } = server;
    let base_url: BaseUrl = origin.as_str().parse()?;
    let client = Client::new(base_url, redactor, clock.clone(), timing());
    let mut findings = Findings { presentation: Presentation::new(env!("CARGO_PKG_NAME")), report };
    let why = match network::connect(&client, &clock, &client.route(), solution, &mut findings).await {
        Err(failed) => format!("{failed} failed"),
        Ok(()) => match client.examining_client().await {
            Err(error) => error.to_string(),
            Ok(http) => {
                let site = Site::new(origin, http);
                if findings.add(check("HTTP", site.answers().await)) {
                    examine_site(&site, &clock, &mut findings).await;
                } else {
                    findings.skip(&[&NAMES[..], &HTTPS_NAMES].concat(), "HTTP failed");
                }
                return Ok(());
            }
        },
    };
    findings.skip(&[&["HTTP"][..], &NAMES, &HTTPS_NAMES].concat(), &why);
    Ok(())
}

/// The checks that need an answer of the server.
const NAMES: [&str; 16] = [
    "resource metadata",
    "server metadata",
    "signing keys",
    "challenge",
    "Authorization",
    "CORS",
    "unknown paths",
    "authorization page",
    "client registration",
    "authorization request",
    "sign-in page",
    "token endpoint",
    "host user agents",
    "forwarded headers",
    "metrics",
    "clock",
];

/// Those that need HTTPS, too.
const HTTPS_NAMES: [&str; 2] = ["HTTPS redirect", "HSTS"];

async fn examine_site(site: &Site, clock: &Clock, findings: &mut Findings<'_>) {
    let [registration, request, sign_in_page] = authorization::examine(site).await;
    let outcomes = [
        documents::resource(site).await,
        documents::server(site).await,
        documents::signing_keys(site).await,
        endpoint::challenge(site).await,
        endpoint::authorization_header(site).await,
        endpoint::cors(site).await,
        endpoint::unknown_paths(site).await,
        pages::authorization(site).await,
        registration,
        request,
        sign_in_page,
        pages::token(site).await,
        edge::user_agents(site).await,
        edge::forwarded_headers(site).await,
        endpoint::metrics(site).await,
        edge::clock(site, clock).await,
    ];
    for (name, outcome) in NAMES.iter().zip(outcomes) {
        findings.add(check(name, outcome));
    }
    if site.origin.is_trial() {
        return findings.skip(&HTTPS_NAMES, "plain HTTP on loopback, for a trial");
    }
    for (name, outcome) in HTTPS_NAMES.iter().zip([edge::https_redirect(site).await, edge::hsts(site).await])
    {
        findings.add(check(name, outcome));
    }
}

/// What the operator can do about a connection that fails.
fn solution(failure: ConnectFailure) -> &'static str {
    match failure {
        ConnectFailure::Dns => "Create a DNS record for the host of the public URL, or correct --public-url.",
        ConnectFailure::Refused | ConnectFailure::Closed => {
            "Start the server, and the TLS proxy in front of it, which listens on the port of the public URL."
        }
        ConnectFailure::TimedOut | ConnectFailure::NoRoute | ConnectFailure::Other => {
            "Let firewalls and security groups accept connections to the port of the public URL."
        }
        ConnectFailure::CertificateExpired(_) | ConnectFailure::CertificateNotValidYet => {
            "Renew the certificate of the TLS proxy, and reload the proxy; check this computer's clock too."
        }
        ConnectFailure::CertificateForAnotherName => {
            "Give the TLS proxy a certificate for the host of the public URL."
        }
        ConnectFailure::CertificateNotTrusted => {
            "Give the TLS proxy a certificate that hosts trust, with the certificates of its chain. For one of a private authority, name that with SSL_CERT_FILE here; hosts in the cloud do not accept it."
        }
        ConnectFailure::Tls => "Let the TLS proxy accept TLS 1.2 and 1.3 on the port of the public URL.",
        ConnectFailure::ProxyLogin | ConnectFailure::ProxyRefused => failure.solution(),
    }
}
