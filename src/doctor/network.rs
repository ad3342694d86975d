//! The connection to BondMCP, step by step, with times. Each step needs the one before it.

use std::net::SocketAddr;

use chrono::TimeDelta;
use tokio::time::Instant;

use super::{Check, Findings, Fix, presentation::shown};
use crate::{
    bondmcp::{self, Answer, Client, ConnectFailure, Handshake, ProxyRoute, Route, Stream},
    clock::{Clock, Timestamp},
};

/// Clock difference from which a warning is given. Sessions tolerate more, and so do most certificates; hosts that are
/// strict refuse tokens and assertions from there on.
const MAX_CLOCK_DIFFERENCE: TimeDelta = TimeDelta::minutes(1);

/// Remaining validity of a certificate below which its expiry is reported.
const SOON: TimeDelta = TimeDelta::days(7);

/// Examines the connection; returns whether BondMCP answers.
pub(super) async fn examine(client: &Client, clock: &Clock, findings: &mut Findings<'_>) -> bool {
    let route = client.route();
    let later = ["HTTP", "BondMCP", "clock"];
    let solution = |failure: ConnectFailure| failure.solution();
    if let Err(failed) = connect(client, clock, &route, solution, findings).await {
        findings.skip(&later, &format!("{failed} failed"));
        return false;
    }
    let began = Instant::now();
    let answer = match client.ask_health().await {
        Ok(answer) => answer,
        Err(error) => {
            findings.add(Check::failed("HTTP", &error).since(began));
            findings.skip(&later[1..], "HTTP failed");
            return false;
        }
    };
    findings.add(Check::ok("HTTP", format!("GET /health: status {}", answer.status)).since(began));
    let began = Instant::now();
    let is_bondmcp = findings.add(identity(client, &answer).await.since(began));
    findings.add(time(&answer, clock));
    is_bondmcp
}

/// Tries name, connection, proxy and TLS; returns the name of the step that failed. `solution` says what to do about a
/// failure.
pub(super) async fn connect(
    client: &Client,
    clock: &Clock,
    route: &Route,
    solution: impl Fn(ConnectFailure) -> &'static str,
    findings: &mut Findings<'_>,
) -> Result<(), &'static str> {
    let target = match &route.proxy {
        None => &route.upstream,
        Some(ProxyRoute { address: Some(address), .. }) => address,
        Some(ProxyRoute { name, address: None }) => {
            let reason = format!("the proxy {name} does not speak plain HTTP");
            findings.skip(&["DNS", "TCP", "proxy", "TLS"], &reason);
            return Ok(());
        }
    };
    let (host, port) = target;
    let note = if route.proxy.is_some() { " (the proxy from the environment)" } else { "" };
    let began = Instant::now();
    let found = client.resolve(target).await;
    let shown = |addresses: &Vec<SocketAddr>| {
        addresses.iter().map(|address| address.ip().to_string()).collect::<Vec<_>>().join(", ")
    };
    let check = step(
        "DNS",
        &format!("{host}{note}"),
        found.as_ref().map(shown).map_err(|failure| *failure),
        &solution,
    );
    findings.add(check.since(began));
    let Ok(addresses) = found else {
        findings.skip(&["TCP", "TLS"], "DNS failed");
        return Err("DNS");
    };
    let began = Instant::now();
    let connected = client.connect(&addresses).await;
    let check = step("TCP", &format!("{host}:{port}{note}"), outcome(&connected), &solution);
    findings.add(check.since(began));
    let Ok(stream) = connected else {
        findings.skip(&["TLS"], "TCP failed");
        return Err("TCP");
    };
    let stream: Box<dyn Stream> = if route.proxy.is_some() {
        let (host, port) = &route.upstream;
        let began = Instant::now();
        let tunnelled = client.tunnel(stream).await;
        findings.add(step("proxy", &format!("{host}:{port}"), outcome(&tunnelled), &solution).since(began));
        let Ok(stream) = tunnelled else {
            findings.skip(&["TLS"], "the proxy failed");
            return Err("the proxy");
        };
        stream
    } else {
        Box::new(stream)
    };
    if !route.is_https {
        findings.add(Check::skip("TLS", "plain HTTP on loopback"));
        return Ok(());
    }
    let began = Instant::now();
    let check = match client.handshake(stream).await {
        Ok(handshake) => tls(handshake, clock, &solution),
        Err(error) => Check::failed("TLS", &bondmcp::Error::from(error)),
    };
    if findings.add(check.since(began)) { Ok(()) } else { Err("TLS") }
}

/// Reports one step towards `target`.
fn step(
    name: &'static str,
    target: &str,
    outcome: Result<String, ConnectFailure>,
    solution: &impl Fn(ConnectFailure) -> &'static str,
) -> Check {
    match outcome {
        Ok(reached) => Check::ok(name, format!("{target}: {reached}")),
        Err(failure) => Check::fail(name, format!("{target}: {failure}"), Fix::advice(solution(failure))),
    }
}

fn outcome<T>(connected: &Result<T, ConnectFailure>) -> Result<String, ConnectFailure> {
    connected.as_ref().map(|_| "connected".to_owned()).map_err(|failure| *failure)
}

fn tls(
    Handshake { certificate, version, outcome }: Handshake,
    clock: &Clock,
    solution: &impl Fn(ConnectFailure) -> &'static str,
) -> Check {
    let shown = certificate.as_ref().map(|certificate| {
        format!(
            "certificate from {}, valid until {}",
            shown(&certificate.issuer),
            certificate.valid_until.format("%Y-%m-%d")
        )
    });
    let shown = shown.unwrap_or_else(|| "no certificate that could be read".to_owned());
    let shown = version.map(|version| format!("{version}, {shown}")).unwrap_or(shown);
    match (outcome, certificate) {
        (Err(failure), _) => {
            Check::fail("TLS", format!("{failure}; {shown}"), Fix::advice(solution(failure)))
        }
        (Ok(()), Some(certificate)) if certificate.valid_until - clock.now() < SOON => Check::warn(
            "TLS",
            shown,
            Fix::advice("The operator of that host must renew the certificate before it expires."),
        ),
        (Ok(()), _) => Check::ok("TLS", shown),
    }
}

/// Checks that BondMCP answers, and not something in its place.
async fn identity(client: &Client, health: &Answer) -> Check {
    let base_url = client.base_url();
    match client.ask_identity().await {
        Err(error) => Check::failed("BondMCP", &error),
        Ok(()) if health.is_healthy() => {
            let version =
                health.version().map(|version| format!(", version {}", shown(version))).unwrap_or_default();
            Check::ok("BondMCP", format!("{base_url} is BondMCP{version}"))
        }
        Ok(()) => Check::warn(
            "BondMCP",
            format!("{base_url} is BondMCP, but GET /health answered with status {}", health.status),
            Fix::advice("If calls fail, try again later: BondMCP may be down in part."),
        ),
    }
}

fn time(answer: &Answer, clock: &Clock) -> Check {
    let Some(theirs) = answer.date else {
        return Check::skip("clock", "the answer had no date");
    };
    let Some(minutes) = clock_difference(clock.now(), theirs) else {
        return Check::ok("clock", "agrees with BondMCP's to within a minute");
    };
    let way = if minutes > 0 { "ahead of" } else { "behind" };
    let minutes = minutes.abs();
    let check = format!("this computer's clock is {minutes} min {way} BondMCP's");
    let fix = Fix::advice("Let the operating system set the clock.");
    Check::warn(
        "clock",
        check,
        match std::env::consts::OS {
            "linux" => fix.or_run("sudo timedatectl set-ntp true"),
            "macos" => fix.or_run("sudo sntp -sS time.apple.com"),
            "windows" => fix.or_run("w32tm /resync"),
            _ => fix,
        },
    )
}

/// Returns by how many minutes the clock that shows `ours` is ahead of the one that shows `theirs`, negative if it is
/// behind; `None` if they agree to within a minute.
pub(super) fn clock_difference(ours: Timestamp, theirs: Timestamp) -> Option<i64> {
    let difference = ours - theirs;
    (difference.abs() > MAX_CLOCK_DIFFERENCE).then(|| difference.num_minutes())
}
