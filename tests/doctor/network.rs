//! Broken ways to BondMCP, and a binary that hosts do not find.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use axum::{Json, Router, response::Html};
use bondmcp_server::sandbox::{Fault, RunningSandbox};
use serde_json::json;

use super::{
    Installation,
    upstreams::{self, Front},
};

/// A installation behind TLS that is silent.
async fn behind_tls() -> (RunningSandbox, Installation, Front) {
    let (sandbox, mut installation) = Installation::signed_out().await;
    let front = Front::start(sandbox.address(), &installation.home()).await;
    installation.place.base_url = front.base_url();
    (sandbox, installation, front)
}

fn trust(installation: &mut Installation, certificate: &Path) {
    installation.set("SSL_CERT_FILE", certificate.to_str().unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_binary_that_is_not_on_path() {
    let (_sandbox, installation) = Installation::signed_in().await;
    let check = installation.examine().await.warned("binary", "is not on PATH");
    let again =
        format!("{}; {} doctor | grep '^ok *binary'", check.run, env!("CARGO_BIN_EXE_bondmcp-server"));
    installation.paste(&again, "").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_binary_that_another_one_hides() {
    let (_sandbox, mut installation) = Installation::signed_in().await;
    let other = installation.home().join("bin/bondmcp-server");
    std::fs::create_dir(other.parent().unwrap()).unwrap();
    std::fs::copy("/bin/true", &other).unwrap();
    let directory = PathBuf::from(env!("CARGO_BIN_EXE_bondmcp-server"));
    let directory = directory.parent().unwrap().display();
    installation.set("PATH", &format!("{}:{directory}:/usr/bin:/bin", other.parent().unwrap().display()));
    let check = installation.examine().await.warned("binary", "another file first: ~/bin/bondmcp-server");
    let again =
        format!("{}; {} doctor | grep '^ok *binary'", check.run, env!("CARGO_BIN_EXE_bondmcp-server"));
    installation.paste(&again, "").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_is_not_found() {
    let (sandbox, mut installation) = Installation::signed_out().await;
    installation.place.base_url = "https://bondmcp.invalid/mcp".to_owned();
    let report = installation.examine().await;
    let check = report.failed("DNS", "bondmcp.invalid: DNS lookup failed");
    assert!(check.advice.contains("host name in the base URL"), "{check:?}");
    for name in ["TCP", "TLS", "HTTP", "BondMCP", "clock"] {
        assert_eq!(report.check(name).status, "skip");
    }
    installation.place.base_url = sandbox.base_url();
    installation.assert_fixed("DNS").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_is_refused() {
    let (sandbox, mut installation) = Installation::signed_out().await;
    let (free, _held) = crate::common::refusing_port();
    installation.place.base_url = format!("http://{free}/mcp");
    let check = installation.examine().await.failed("TCP", &format!("{free}: connection refused"));
    assert!(check.advice.contains("port in the base URL"), "{check:?}");
    installation.place.base_url = sandbox.base_url();
    installation.assert_fixed("TCP").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_is_silent() {
    let (_sandbox, mut installation, front) = behind_tls().await;
    let check = installation.examine_fast().await.failed("TLS", "timed out");
    assert!(check.advice.contains("firewall"), "{check:?}");
    let certificate = front.present(false);
    trust(&mut installation, &certificate);
    installation.assert_fixed("TLS").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_has_expired() {
    let (_sandbox, mut installation, front) = behind_tls().await;
    let certificate = front.present(true);
    trust(&mut installation, &certificate);
    let check = installation.examine().await.failed("TLS", "its certificate expired on 2021-02-03");
    assert!(check.detail.contains("from Test Authority") && check.advice.contains("clock"), "{check:?}");
    let renewed = front.present(false);
    trust(&mut installation, &renewed);
    let report = installation.examine().await;
    let check = report.check("TLS");
    assert_eq!(
        (check.status.as_str(), check.detail.contains("valid until 2090-04-05")),
        ("ok", true),
        "{check:?}"
    );
    assert_eq!(report.check("BondMCP").status, "ok");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_from_nobody_that_is_trusted() {
    let (_sandbox, mut installation, front) = behind_tls().await;
    let certificate = front.present(false);
    let check = installation.examine().await.failed("TLS", "not from a trusted authority");
    assert!(
        check.detail.contains("from Test Authority") && check.advice.contains("SSL_CERT_FILE"),
        "{check:?}"
    );
    trust(&mut installation, &certificate);
    installation.assert_fixed("TLS").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_for_another_name() {
    let (_sandbox, mut installation, front) = behind_tls().await;
    let certificate = front.present(false);
    trust(&mut installation, &certificate);
    installation.place.base_url = format!("https://localhost:{}/mcp", front.address.port());
    let check = installation.examine().await.failed("TLS", "for another host name");
    assert_eq!(check.advice, "Check the host name in the base URL.");
    installation.place.base_url = front.base_url();
    installation.assert_fixed("TLS").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_without_tls() {
    let (sandbox, mut installation) = Installation::signed_out().await;
    installation.place.base_url = format!("https://{}/mcp", sandbox.address());
    let check = installation.examine().await.failed("TLS", "TLS handshake failed");
    assert!(check.advice.contains("port in the base URL"), "{check:?}");
    installation.place.base_url = sandbox.base_url();
    installation.assert_fixed("HTTP").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_base_url_with_a_wrong_path() {
    let (sandbox, mut installation) = Installation::signed_out().await;
    installation.place.base_url = format!("http://{}/mpc", sandbox.address());
    let detail = format!("No BondMCP API at http://{}/mpc (HTTP 404)", sandbox.address());
    let check = installation.examine().await.failed("BondMCP", &detail);
    assert!(check.advice.contains("--base-url"), "{check:?}");
    installation.place.base_url = sandbox.base_url();
    installation.assert_fixed("BondMCP").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn something_that_is_not_bondmcp() {
    let (sandbox, mut installation) = Installation::signed_in().await;
    let page = upstreams::serve(Router::new().fallback(async || Html("<h1>It works!</h1>"))).await;
    let other = upstreams::serve(Router::new().fallback(async || Json(json!({"status": "ok"})))).await;
    for url in [page, other] {
        installation.place.base_url = url;
        let report = installation.examine().await;
        let check = report.failed("BondMCP", "not in BondMCP's format");
        assert!(check.advice.contains("base URL"), "{check:?}");
    }
    installation.place.base_url = sandbox.base_url();
    installation.assert_fixed("BondMCP").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_would_take_many_times_its_length_in_memory() {
    let (sandbox, installation) = Installation::signed_out().await;
    let dense = vec![json!({"": 0}); 100_000];
    sandbox.faults().always("GET /health", Fault::Answer(json!({"status": "healthy", "more": dense})));
    installation.examine().await.warned("BondMCP", "GET /health answered with status 200");
    sandbox.faults().clear();
    installation.assert_fixed("BondMCP").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_credential_is_not_sent_to_what_is_not_bondmcp() {
    let (sandbox, installation) = Installation::signed_in().await;
    sandbox.faults().always("GET /auth/me", Fault::Html(200));
    let report = installation.examine().await;
    report.failed("BondMCP", "not in BondMCP's format");
    assert_eq!(report.check("credential").status, "skip");
    assert_eq!(sandbox.count("GET /health-ai/models"), 0);
    sandbox.faults().clear();
    installation.assert_fixed("credential").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_an_hour_off() {
    let seconds = Arc::new(Mutex::new(-3600));
    let (_sandbox, mut installation) = Installation::signed_out().await;
    installation.place.base_url = upstreams::with_clock_off_by(Arc::clone(&seconds)).await;
    let check = installation.examine().await.warned("clock", "ahead of BondMCP's");
    assert!(check.advice.contains("clock"), "{check:?}");
    *seconds.lock().unwrap() = 3600;
    installation.examine().await.warned("clock", "behind BondMCP's");
    // What `timedatectl set-ntp true` does, seen from here.
    *seconds.lock().unwrap() = 0;
    installation.assert_fixed("clock").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_is_down_refuses_or_wants_a_password() {
    let (_sandbox, mut installation, front) = behind_tls().await;
    let certificate = front.present(false);
    trust(&mut installation, &certificate);
    let (free, _held) = crate::common::refusing_port();
    installation.set("HTTPS_PROXY", &format!("http://{free}"));
    let down =
        installation.examine().await.failed("TCP", "(the proxy from the environment): connection refused");
    assert!(down.detail.contains(&free.to_string()), "{down:?}");

    let refusing = upstreams::proxy("403 Forbidden").await;
    installation.set("HTTPS_PROXY", &format!("http://{refusing}"));
    let check = installation.examine().await.failed("proxy", "the proxy refused to connect to it");
    assert!(check.advice.contains("NO_PROXY"), "{check:?}");

    let asking = upstreams::proxy("407 Proxy Authentication Required").await;
    installation.set("HTTPS_PROXY", &format!("http://ada:canary-password@{asking}"));
    let report = installation.examine().await;
    assert!(report.failed("proxy", "asks for a user name").advice.contains("HTTPS_PROXY"));
    assert!(!report.0.to_string().contains("canary"));

    let working = upstreams::proxy("200 OK").await;
    installation.set("HTTPS_PROXY", &format!("http://{working}"));
    for name in ["TCP", "proxy", "TLS", "HTTP", "BondMCP"] {
        installation.assert_fixed(name).await;
    }
    installation.set("HTTPS_PROXY", &format!("http://{free}"));
    installation.set("NO_PROXY", "127.0.0.1");
    installation.assert_fixed("BondMCP").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_base_url_that_is_none() {
    let (sandbox, mut installation) = Installation::signed_out().await;
    installation.place.base_url = "http://api.example.com/mcp".to_owned();
    let report = installation.examine().await;
    let check = report.failed("configuration", "must begin with https://");
    assert!(check.advice.contains("loopback"), "{check:?}");
    assert_eq!(report.check("BondMCP").status, "skip");
    installation.place.base_url = sandbox.base_url();
    installation.assert_fixed("configuration").await;
}
