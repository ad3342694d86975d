//! Error messages for an unreachable BondMCP or another server in its place: they name the cause and the host. The
//! binary runs with a clean environment against listeners that misbehave.

use std::{net::SocketAddr, path::Path, sync::Arc};

use crate::common::{EMAIL, Place, Server, random_password, signed_out, tls, within};
use bondmcp_server::sandbox::Fault;
use serde_json::json;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

const LOGIN: &str = "POST /auth/login";

/// A place whose upstream is `base_url`.
fn place_at(base_url: &str) -> Place {
    Place {
        directory: tempfile::tempdir().unwrap(),
        base_url: base_url.to_owned(),
        password: random_password(),
        sealing_key: bondmcp_server::secret::random(),
    }
}

/// Runs `login` with the certificates in `trusted`; returns its stderr.
async fn told(place: &Place, trusted: Option<&Path>) -> String {
    let mut command = place.command(&["--log", "off", "login", "--email", EMAIL, "--password-stdin"]);
    if let Some(trusted) = trusted {
        command.env("SSL_CERT_FILE", trusted);
    }
    let (code, _, told) =
        crate::common::run(&mut command, crate::common::secrets::text(&place.password)).await;
    assert_eq!(code, Some(1), "{told}");
    told
}

/// Starts a TLS listener with its own certificate for 127.0.0.1; returns its address and the certificate as PEM.
async fn tls_server(directory: &Path, expired: bool) -> (SocketAddr, std::path::PathBuf) {
    let mut parameters = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    if expired {
        parameters.not_before = rcgen::date_time_ymd(2020, 1, 1);
        parameters.not_after = rcgen::date_time_ymd(2021, 2, 3);
    }
    let (tls, certificate) = tls::identity(&parameters);
    let pem = directory.join("certificate.pem");
    std::fs::write(&pem, certificate.pem()).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(tls));
    tokio::spawn(async move {
        loop {
            let (connection, _) = listener.accept().await.unwrap();
            // The handshake fails, which the client must report.
            let _ = acceptor.accept(connection).await;
        }
    });
    (address, pem)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_connection_and_an_unknown_name_are_reported_with_the_host() {
    let (free, _held) = crate::common::refusing_port();
    let refused = told(&place_at(&format!("http://{free}/mcp")), None).await;
    assert!(refused.contains(&format!("Cannot connect to {free}: connection refused.")), "{refused}");
    let unknown = told(&place_at("https://bondmcp.invalid/mcp"), None).await;
    assert!(unknown.contains("Cannot connect to bondmcp.invalid: DNS lookup failed."), "{unknown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_an_unknown_and_a_foreign_certificate_are_distinguished() {
    let directory = tempfile::tempdir().unwrap();
    let (expired, certificate) = tls_server(directory.path(), true).await;
    let at = |address: SocketAddr| place_at(&format!("https://{address}/mcp"));
    let message = told(&at(expired), Some(&certificate)).await;
    let expected = format!("Cannot connect to {expired}: its certificate expired on 2021-02-03.");
    assert!(message.contains(&expected), "{message}");

    let (good, certificate) = tls_server(directory.path(), false).await;
    let message = told(&at(good), None).await;
    let expected = format!("Cannot connect to {good}: its certificate is not from a trusted authority.");
    assert!(message.contains(&expected), "{message}");

    let message =
        told(&place_at(&format!("https://localhost:{}/mcp", good.port())), Some(&certificate)).await;
    assert!(message.contains("its certificate is for another host name."), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_without_tls_is_reported() {
    let (sandbox, _) = signed_out().await;
    let message = told(&place_at(&format!("https://{}/mcp", sandbox.address())), None).await;
    let expected = format!("Cannot connect to {}: TLS handshake failed.", sandbox.address());
    assert!(message.contains(&expected), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_bondmcp_is_reported_with_the_host_and_its_status() {
    let (sandbox, place) = signed_out().await;
    let host = sandbox.address();
    sandbox.faults().next(LOGIN, Fault::Html(501));
    let message = told(&place, None).await;
    let expected = format!("{host} answered with HTTP 501; that is not BondMCP's format.");
    assert!(message.contains(&expected), "{message}");
    sandbox.faults().next(LOGIN, Fault::Html(200));
    let message = told(&place, None).await;
    assert!(message.contains(&format!("The response from {host} is not in BondMCP's format.")), "{message}");
    sandbox.faults().next(LOGIN, Fault::Html(404));
    let missing = format!("No BondMCP API at {} (HTTP 404). Check the base URL", place.base_url);
    assert!(told(&place, None).await.contains(&missing));
    // Another API, with FastAPI's own 404.
    let elsewhere = place_at(&format!("http://{host}/mcp/v2"));
    let message = told(&elsewhere, None).await;
    assert!(message.contains(&format!("No BondMCP API at http://{host}/mcp/v2 (HTTP 404).")), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_log_in_says_wrong_e_mail_or_password_and_nothing_of_api_keys() {
    let (_sandbox, mut place) = signed_out().await;
    place.password = random_password();
    let message = told(&place, None).await;
    assert!(message.contains("Wrong e-mail or password."), "{message}");
    assert!(!message.contains("key"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn registering_an_address_that_has_an_account_says_to_sign_in() {
    let (_sandbox, place) = signed_out().await;
    let (code, _, told) = place.run_with_password("register").await;
    assert_eq!(code, Some(1));
    assert!(told.contains("This e-mail already has an account. Sign in instead."), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_certificate_is_read_before_a_request_needs_one_and_a_missing_one_is_reported_then() {
    let place = place_at("https://bondmcp.invalid/mcp");
    let mut command = place.command(&["stdio"]);
    command.env("SSL_CERT_FILE", place.directory.path().join("missing.pem"));
    command.env("BONDMCP_API_KEY", "key-of-a-test");
    // The server starts, answers `initialize` and lists its tools.
    let server = Server::spawn(&mut command).await;
    assert!(!within(server.client.list_all_tools()).await.unwrap().is_empty());
    let error = server.error("list_models", json!({})).await;
    assert_eq!(error["message"], "No trusted TLS certificates were found on this system.");
    assert!(error["solution"].as_str().unwrap().contains("SSL_CERT_FILE"), "{error}");
}

/// Listens, and answers every connection with `answer`.
async fn answering(answer: &'static str) -> SocketAddr {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut connection, _) = listener.accept().await.unwrap();
            let _ = connection.read(&mut [0; 4096]).await;
            let _ = connection.write_all(answer.as_bytes()).await;
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_breaks_is_reported_with_the_host_and_the_reason() {
    let (sandbox, place) = signed_out().await;
    let host = sandbox.address();
    for fault in [Fault::Drop, Fault::DropMidBody] {
        sandbox.faults().next(LOGIN, fault);
        let message = told(&place, None).await;
        let expected = format!("The connection to {host} broke: closed before the answer was complete.");
        assert!(message.contains(&expected), "{message}");
    }
    let other = answering("220 mail.example.com ESMTP ready\r\n").await;
    let message = told(&place_at(&format!("http://{other}")), None).await;
    let expected = format!("The connection to {other} broke: the server there does not speak HTTP.");
    assert!(message.contains(&expected), "{message}");
}

/// Runs `login` at a host behind `proxy`; returns its stderr.
async fn told_behind(proxy: &str) -> String {
    let place = place_at("https://bondmcp.invalid/mcp");
    let mut command = place.command(&["--log", "debug", "login", "--email", EMAIL, "--password-stdin"]);
    command.env("HTTPS_PROXY", proxy);
    let (code, _, told) =
        crate::common::run(&mut command, crate::common::secrets::text(&place.password)).await;
    assert_eq!(code, Some(1), "{told}");
    told
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_fails_is_named_and_its_password_is_not() {
    let (free, _held) = crate::common::refusing_port();
    let message = told_behind(&format!("http://ada:canary-password@{free}")).await;
    let expected = format!(
        "Cannot connect to the proxy {free}, through which requests to bondmcp.invalid go: connection refused."
    );
    assert!(message.contains(&expected) && !message.contains("canary"), "{message}");
    let asking = answering("HTTP/1.1 407 Proxy Authentication Required\r\n\r\n").await;
    let message = told_behind(&format!("http://{asking}")).await;
    let expected = "Cannot connect to bondmcp.invalid: the proxy asks for a user name and a password.";
    assert!(message.contains(expected), "{message}");
    let refusing = answering("HTTP/1.1 403 Forbidden\r\n\r\n").await;
    let message = told_behind(&format!("http://{refusing}")).await;
    let expected = "Cannot connect to bondmcp.invalid: the proxy refused to connect to it.";
    assert!(message.contains(expected), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_debug_log_has_the_causes_of_a_failed_connection() {
    let (free, _held) = crate::common::refusing_port();
    let place = place_at(&format!("http://{free}"));
    let mut command = place.command(&["--log", "debug", "login", "--email", EMAIL, "--password-stdin"]);
    let (_, _, log) = crate::common::run(&mut command, crate::common::secrets::text(&place.password)).await;
    assert!(log.contains("the connection failed") && log.contains("tcp connect error: "), "{log}");
    crate::common::secrets::assert_absent(std::slice::from_ref(&place.password), log.as_bytes(), "the log");

    let mut command = place.command(&["--log", "debug", "stdio"]);
    let server = Server::spawn(command.env("BONDMCP_API_KEY", "canary-key-of-a-test")).await;
    let error = server.error("list_models", json!({})).await;
    assert_eq!(error["message"], format!("Cannot connect to {free}: connection refused."));
    let (_, log) = server.end_apart().await;
    let log = String::from_utf8(log).unwrap();
    assert!(log.contains("tcp connect error: ") && !log.contains("canary"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_are_paused_name_the_host_and_the_cause_too() {
    let (free, _held) = crate::common::refusing_port();
    let place = place_at(&format!("http://{free}"));
    let server = Server::spawn(place.command(&["stdio"]).env("BONDMCP_API_KEY", "key-of-a-test")).await;
    let paused = loop {
        let error = server.error("list_models", json!({})).await;
        if error["message"].as_str().unwrap().contains("calls are paused") {
            break error;
        }
    };
    let expected = format!(
        "BondMCP failed 5 times in a row (cannot connect to {free}: connection refused); calls are paused."
    );
    assert_eq!(paused["message"], expected);
}
