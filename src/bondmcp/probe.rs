//! The connection to the upstream, step by step, for diagnosis: name, connection, proxy, TLS, HTTP, and whether BondMCP
//! answers. The steps send no credential. The last ones use the client that calls use.

use std::{io, net::SocketAddr, sync::Arc};

use http::{
    Method, Request, StatusCode,
    header::{ACCEPT, DATE, HOST, PROXY_AUTHORIZATION},
};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use rustls::{
    DigitallySignedStruct, ProtocolVersion, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use serde_json::Value;
use tokio::{io::AsyncRead, io::AsyncWrite, net::TcpStream};
use tokio_rustls::TlsConnector;

use super::{
    Client, ConnectFailure, Error,
    certificate::Certificate,
    connection::{self, SetupError},
    proxy::Proxy,
    quotable::Quotable,
};
use crate::clock::Timestamp;

/// A connection to the upstream, before TLS.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// The route to the upstream.
#[derive(Clone, Debug)]
pub struct Route {
    /// Host name and port of the upstream.
    pub upstream: (String, u16),
    pub is_https: bool,
    /// The proxy in between.
    pub proxy: Option<ProxyRoute>,
}

/// A proxy in the environment.
#[derive(Clone, Debug)]
pub struct ProxyRoute {
    /// Host and port, for messages.
    pub name: String,
    /// Host name and port to connect to; `None` for a proxy whose protocol is not tried step by step.
    pub address: Option<(String, u16)>,
}

/// The certificate that the upstream presented, and whether it was accepted.
#[derive(Debug)]
pub struct Handshake {
    pub certificate: Option<Certificate>,
    /// The version of TLS that was agreed on.
    pub version: Option<&'static str>,
    pub outcome: Result<(), ConnectFailure>,
}

/// The upstream's answer to a request without a credential.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    /// The upstream's clock.
    pub date: Option<Timestamp>,
    /// Whether the body is JSON in the format of the endpoint.
    outcome: Result<Value, Error>,
}

impl Answer {
    /// Returns the version that `GET /health` reports.
    #[must_use]
    pub fn version(&self) -> Option<&str> {
        self.outcome.as_ref().ok()?.get("version")?.as_str()
    }

    /// Whether BondMCP reports that it works.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        self.outcome.as_ref().is_ok_and(|body| body.get("status").is_some_and(Value::is_string))
    }
}

impl Client {
    /// Returns the route that requests take.
    #[must_use]
    pub fn route(&self) -> Route {
        let url = self.shared.base_url.endpoint(&[]);
        let proxy = Proxy::of(&self.shared.base_url).map(|proxy| ProxyRoute {
            name: proxy.host(),
            address: proxy.http_address().map(|(host, port)| (host.to_owned(), port)),
        });
        Route {
            upstream: (
                url.host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned(),
                url.port_or_known_default().unwrap_or_default(),
            ),
            is_https: self.shared.base_url.is_https(),
            proxy,
        }
    }

    /// Resolves a host name.
    pub async fn resolve(&self, (host, port): &(String, u16)) -> Result<Vec<SocketAddr>, ConnectFailure> {
        let lookup = tokio::net::lookup_host((host.as_str(), *port));
        match tokio::time::timeout(self.shared.timing.connect, lookup).await {
            Ok(Ok(found)) => {
                let found: Vec<_> = found.collect();
                if found.is_empty() { Err(ConnectFailure::Dns) } else { Ok(found) }
            }
            Ok(Err(error)) => {
                tracing::debug!(host, causes = connection::causes(&error), "the name was not resolved");
                Err(ConnectFailure::Dns)
            }
            Err(_) => Err(ConnectFailure::TimedOut),
        }
    }

    /// Connects to one of `addresses`.
    pub async fn connect(&self, addresses: &[SocketAddr]) -> Result<TcpStream, ConnectFailure> {
        self.in_time(TcpStream::connect(addresses)).await
    }

    /// Asks the HTTP proxy at the other end of `stream` for a connection to the upstream.
    pub async fn tunnel(&self, stream: TcpStream) -> Result<Box<dyn Stream>, ConnectFailure> {
        let (host, port) = self.route().upstream;
        let authority =
            if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
        let mut request = Request::builder().method(Method::CONNECT).uri(&authority).header(HOST, &authority);
        if let Some(login) = Proxy::of(&self.shared.base_url).as_ref().and_then(Proxy::authorization) {
            request = request.header(PROXY_AUTHORIZATION, login);
        }
        let request = request.body(String::new()).map_err(|_| ConnectFailure::Other)?;
        let ask = async {
            let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
            // Ends with the stream.
            tokio::spawn(connection.with_upgrades());
            let answer = sender.send_request(request).await?;
            let status = answer.status();
            if !status.is_success() {
                return Ok(Err(if status == StatusCode::PROXY_AUTHENTICATION_REQUIRED {
                    ConnectFailure::ProxyLogin
                } else {
                    ConnectFailure::ProxyRefused
                }));
            }
            let stream = hyper::upgrade::on(answer).await?;
            Ok(Ok(Box::new(TokioIo::new(stream)) as Box<dyn Stream>))
        };
        match tokio::time::timeout(self.shared.timing.connect, ask).await {
            Ok(outcome) => outcome.map_err(|error: hyper::Error| {
                tracing::debug!(causes = connection::causes(&error), "the proxy did not answer");
                ConnectFailure::Closed
            })?,
            Err(_) => Err(ConnectFailure::TimedOut),
        }
    }

    /// Does the TLS handshake over `stream`.
    pub async fn handshake(&self, stream: impl Stream) -> Result<Handshake, SetupError> {
        let made = tokio::task::spawn_blocking(connection::verifier).await;
        let verifier = Arc::new(Witness::of(made.unwrap_or(Err(SetupError::Client))?));
        let connector = TlsConnector::from(Arc::new(connection::tls_config(verifier.clone())?));
        let name = ServerName::try_from(self.route().upstream.0).map_err(|_| SetupError::Client)?;
        let handshake =
            tokio::time::timeout(self.shared.timing.connect, connector.connect(name, stream)).await;
        let mut version = None;
        let outcome = match handshake {
            Ok(Ok(stream)) => {
                version = match stream.get_ref().1.protocol_version() {
                    Some(ProtocolVersion::TLSv1_2) => Some("TLS 1.2"),
                    Some(ProtocolVersion::TLSv1_3) => Some("TLS 1.3"),
                    _ => None,
                };
                Ok(())
            }
            Ok(Err(error)) => {
                tracing::debug!(causes = connection::causes(&error), "the TLS handshake failed");
                Err(ConnectFailure::of_handshake(&error))
            }
            Err(_) => Err(ConnectFailure::TimedOut),
        };
        Ok(Handshake { certificate: verifier.certificate(), version, outcome })
    }

    /// Returns an HTTP client for other requests to the host: it follows no redirect and sends no `User-Agent`.
    pub async fn examining_client(&self) -> Result<reqwest::Client, SetupError> {
        let (base_url, timing) = (self.shared.base_url.clone(), self.shared.timing);
        let made = tokio::task::spawn_blocking(move || connection::examining_client(&base_url, timing)).await;
        made.unwrap_or(Err(SetupError::Client))
    }

    /// Makes the request `GET /health`, which is free and needs no credential.
    pub async fn ask_health(&self) -> Result<Answer, Error> {
        self.ask(&["health"]).await
    }

    /// Makes sure that BondMCP answers: asked who the caller is without a credential, it refuses in its format.
    pub async fn ask_identity(&self) -> Result<(), Error> {
        match self.ask(&["auth", "me"]).await?.outcome {
            Err(Error::Refused(refusal)) if matches!(refusal.status, 401 | 403) && refusal.is_in_format() => {
                Ok(())
            }
            Err(error) => Err(error),
            Ok(_) => Err(self.unreadable()),
        }
    }

    async fn ask(&self, path: &[&str]) -> Result<Answer, Error> {
        let exchange = async {
            let url = self.shared.base_url.endpoint(path);
            let sent = self.http().await?.get(url).header(ACCEPT, "application/json").send().await;
            let response = sent.map_err(|error| self.failure(&error))?;
            let status = response.status().as_u16();
            let date = response.headers().get(DATE).and_then(|date| date.to_str().ok());
            let date = date.and_then(|date| httpdate::parse_http_date(date).ok()).map(Timestamp::from);
            let outcome = match self.body_of(response, Quotable::default()).await {
                Ok(body) => self.parsed(&body),
                Err(refused @ Error::Refused(_)) => Err(refused),
                Err(error) => return Err(error),
            };
            Ok(Answer { status, date, outcome })
        };
        tokio::time::timeout(self.shared.timing.request, exchange)
            .await
            .unwrap_or_else(|_| Err(self.timeout()))
    }

    async fn in_time<T>(&self, work: impl Future<Output = io::Result<T>>) -> Result<T, ConnectFailure> {
        match tokio::time::timeout(self.shared.timing.connect, work).await {
            Ok(outcome) => outcome.map_err(|error| {
                tracing::debug!(causes = connection::causes(&error), "the connection failed");
                ConnectFailure::of_io(&error).unwrap_or(ConnectFailure::Other)
            }),
            Err(_) => Err(ConnectFailure::TimedOut),
        }
    }
}

/// A verifier that leaves the decision to another one and remembers the certificate.
#[derive(Debug)]
struct Witness {
    verifier: Arc<dyn ServerCertVerifier>,
    seen: Mutex<Option<CertificateDer<'static>>>,
}

impl Witness {
    fn of(verifier: Arc<dyn ServerCertVerifier>) -> Self {
        Self { verifier, seen: Mutex::default() }
    }

    fn certificate(&self) -> Option<Certificate> {
        let seen = self.seen.lock();
        Certificate::parse(seen.as_ref()?)
    }
}

impl ServerCertVerifier for Witness {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let copy = certificate.clone().into_owned();
        *self.seen.lock() = Some(copy);
        self.verifier.verify_server_cert(certificate, intermediates, name, ocsp, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }
}
