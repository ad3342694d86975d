//! The HTTP client: its trusted certificates, its resolver, and the reasons why a connection failed. The
//! reasons are enums, since error texts of other crates may quote anything; those texts are for the log.

use std::{error::Error as StdError, io, sync::Arc};

use chrono::NaiveDate;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use rustls::{CertificateError, ClientConfig, client::danger::ServerCertVerifier, pki_types::UnixTime};

use super::Timing;
use crate::{clock::Timestamp, config::BaseUrl};

/// The reason why the HTTP client cannot be set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SetupError {
    #[error("no trusted TLS certificates were found on this system")]
    NoTrustedCertificates,
    #[error("the HTTP client could not be set up")]
    Client,
}

/// The reason why a connection was not made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConnectFailure {
    #[error("DNS lookup failed")]
    Dns,
    #[error("connection refused")]
    Refused,
    #[error("timed out")]
    TimedOut,
    #[error("network unreachable")]
    NoRoute,
    #[error("the connection was closed at once")]
    Closed,
    #[error("its certificate expired on {0}")]
    CertificateExpired(NaiveDate),
    #[error("its certificate is not valid yet")]
    CertificateNotValidYet,
    #[error("its certificate is for another host name")]
    CertificateForAnotherName,
    #[error("its certificate is not from a trusted authority")]
    CertificateNotTrusted,
    #[error("TLS handshake failed")]
    Tls,
    #[error("the proxy asks for a user name and a password")]
    ProxyLogin,
    #[error("the proxy refused to connect to it")]
    ProxyRefused,
    #[error("no connection could be made")]
    Other,
}

/// The reason why a connection ended before the answer was complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BreakCause {
    #[error("closed before the answer was complete")]
    Closed,
    #[error("the server there does not speak HTTP")]
    NotHttp,
    #[error("the answer could not be read")]
    Other,
}

/// Creates a client for `base_url`, with what [`tls_config_for`] has made.
pub(super) fn http_client(
    base_url: &BaseUrl,
    timing: Timing,
    tls: Option<ClientConfig>,
) -> Result<reqwest::Client, SetupError> {
    builder(timing, tls)
        .user_agent(concat!(env!("CARGO_PKG_NAME"), "/", env!("CARGO_PKG_VERSION")))
        .https_only(base_url.is_https())
        .build()
        .map_err(|_| SetupError::Client)
}

/// Creates a client that examines the host of `base_url`: it sends no `User-Agent` of its own, and plain HTTP too.
pub(super) fn examining_client(base_url: &BaseUrl, timing: Timing) -> Result<reqwest::Client, SetupError> {
    builder(timing, tls_config_for(base_url)?).timeout(timing.request).build().map_err(|_| SetupError::Client)
}

fn builder(timing: Timing, tls: Option<ClientConfig>) -> reqwest::ClientBuilder {
    let http = reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(timing.connect)
        .dns_resolver(Resolver);
    match tls {
        Some(tls) => http.tls_backend_preconfigured(tls),
        // Plain HTTP is for loopback, which needs neither a proxy nor certificates; a proxy could read the credentials.
        None => http.no_proxy().tls_certs_only([]),
    }
}

/// Returns the TLS configuration for `base_url`, if it is HTTPS. It reads the system's trusted certificates, which takes a
/// moment.
pub(super) fn tls_config_for(base_url: &BaseUrl) -> Result<Option<ClientConfig>, SetupError> {
    base_url.is_https().then(|| tls_config(verifier()?)).transpose()
}

/// Returns the TLS configuration in which `verifier` decides about certificates.
pub(super) fn tls_config(verifier: Arc<dyn ServerCertVerifier>) -> Result<ClientConfig, SetupError> {
    Ok(ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|_| SetupError::Client)?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth())
}

/// Returns the operating system's own verifier of certificates.
#[cfg(not(all(unix, not(target_vendor = "apple"))))]
pub(super) fn verifier() -> Result<Arc<dyn ServerCertVerifier>, SetupError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = rustls_platform_verifier::Verifier::new(provider).map_err(|_| SetupError::Client)?;
    Ok(Arc::new(verifier))
}

/// Returns a verifier with the certificates that the operating system trusts, read once. reqwest would read the
/// distribution's bundle and then each of the single files beside it, which are the same certificates.
#[cfg(all(unix, not(target_vendor = "apple")))]
pub(super) fn verifier() -> Result<Arc<dyn ServerCertVerifier>, SetupError> {
    let mut trusted = rustls::RootCertStore::empty();
    trusted.add_parsable_certificates(system_certificates());
    if trusted.is_empty() {
        return Err(SetupError::NoTrustedCertificates);
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = rustls::client::WebPkiServerVerifier::builder_with_provider(Arc::new(trusted), provider);
    Ok(verifier.build().map_err(|_| SetupError::Client)?)
}

/// Reads the certificates that `SSL_CERT_FILE` and `SSL_CERT_DIR` name, otherwise the distribution's bundle, otherwise
/// those that are found. A bundle consists of the single files in its directory, so that directory is not read.
#[cfg(all(unix, not(target_vendor = "apple")))]
fn system_certificates() -> Vec<rustls::pki_types::CertificateDer<'static>> {
    use openssl_probe::{ENV_CERT_DIR, ENV_CERT_FILE};
    use rustls_native_certs::{load_certs_from_paths, load_native_certs};
    use std::{env, path::PathBuf};

    let directories = env::var_os(ENV_CERT_DIR).unwrap_or_default();
    let bundle = env::var_os(ENV_CERT_FILE).map(PathBuf::from);
    let bundle = bundle.or_else(|| openssl_probe::probe().cert_file.filter(|_| directories.is_empty()));
    let beside = bundle.as_deref().and_then(std::path::Path::parent);
    let mut found = load_certs_from_paths(bundle.as_deref(), None).certs;
    for directory in env::split_paths(&directories).filter(|directory| Some(directory.as_path()) != beside) {
        found.extend(load_certs_from_paths(None, Some(&directory)).certs);
    }
    if found.is_empty() { load_native_certs().certs } else { found }
}

/// The system's resolver, with an error type of its own.
struct Resolver;

#[derive(Debug, thiserror::Error)]
#[error("DNS lookup failed")]
struct DnsFailure;

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await.map_err(|_| DnsFailure)?;
            let addresses: Addrs = Box::new(found.collect::<Vec<_>>().into_iter());
            Ok(addresses)
        })
    }
}

impl ConnectFailure {
    /// Returns the reason for which `error` says that no connection was made.
    pub(super) fn of(error: &reqwest::Error) -> Self {
        let mut failure = if error.is_timeout() { Self::TimedOut } else { Self::Other };
        let mut next: Option<&(dyn StdError + 'static)> = error.source();
        while let Some(cause) = next {
            failure = Self::named_by(cause).unwrap_or(failure);
            next = inner(cause);
        }
        failure
    }

    fn named_by(cause: &(dyn StdError + 'static)) -> Option<Self> {
        if cause.is::<DnsFailure>() {
            return Some(Self::Dns);
        }
        if let Some(error) = cause.downcast_ref::<rustls::Error>() {
            return Some(Self::of_tls(error));
        }
        // hyper-util does not export the type of these two.
        match cause.to_string().as_str() {
            "tunnel error: proxy authorization required" => return Some(Self::ProxyLogin),
            "tunnel error: unsuccessful" => return Some(Self::ProxyRefused),
            _ => {}
        }
        Self::of_io(cause.downcast_ref()?)
    }

    /// Returns the reason that `error` names by its kind.
    pub(super) fn of_io(error: &io::Error) -> Option<Self> {
        Some(match error.kind() {
            io::ErrorKind::ConnectionRefused => Self::Refused,
            io::ErrorKind::TimedOut => Self::TimedOut,
            io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => Self::NoRoute,
            io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::UnexpectedEof => Self::Closed,
            _ => return None,
        })
    }

    /// Returns the reason why a TLS handshake failed with `error`.
    pub(super) fn of_handshake(error: &io::Error) -> Self {
        let tls = error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>());
        tls.map_or_else(|| Self::of_io(error).unwrap_or(Self::Tls), Self::of_tls)
    }

    fn of_tls(error: &rustls::Error) -> Self {
        let rustls::Error::InvalidCertificate(error) = error else { return Self::Tls };
        match error {
            CertificateError::ExpiredContext { not_after, .. } => {
                date(*not_after).map_or(Self::CertificateNotTrusted, Self::CertificateExpired)
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                Self::CertificateNotValidYet
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                Self::CertificateForAnotherName
            }
            _ => Self::CertificateNotTrusted,
        }
    }

    /// Whether the network failed, below TLS and the proxy's answers. Only such a failure may pass within seconds, and
    /// where there is a proxy, it is the connection to the proxy that failed.
    pub(super) fn is_of_the_network(self) -> bool {
        match self {
            Self::Dns | Self::Refused | Self::TimedOut | Self::NoRoute | Self::Closed | Self::Other => true,
            Self::CertificateExpired(_)
            | Self::CertificateNotValidYet
            | Self::CertificateForAnotherName
            | Self::CertificateNotTrusted
            | Self::ProxyLogin
            | Self::ProxyRefused
            | Self::Tls => false,
        }
    }

    /// Returns what the person can do.
    #[must_use]
    pub fn solution(self) -> &'static str {
        match self {
            Self::Dns => "Check the network and the host name in the base URL.",
            Self::Refused | Self::Closed => {
                "Check the host and the port in the base URL; if they are right, try again later."
            }
            Self::TimedOut | Self::NoRoute | Self::Other => {
                "Check the network, a firewall or a proxy in between, and the base URL; then try again."
            }
            Self::CertificateExpired(_) | Self::CertificateNotValidYet => {
                "Check this computer's clock; if it is right, the operator of that host must renew the certificate."
            }
            Self::CertificateForAnotherName => "Check the host name in the base URL.",
            Self::CertificateNotTrusted => {
                "Check the base URL. If a company's proxy inspects TLS, name its certificate with SSL_CERT_FILE."
            }
            Self::ProxyLogin => "Put the user name and the password of the proxy into HTTPS_PROXY.",
            Self::ProxyRefused => {
                "Ask whoever runs the proxy to allow that host, or name the host in NO_PROXY if it can be reached directly."
            }
            Self::Tls => {
                "Check the host and the port in the base URL: the server there does not speak TLS as BondMCP does."
            }
        }
    }
}

impl BreakCause {
    /// Returns the reason for which `error` says that the connection ended early.
    pub(super) fn of(error: &reqwest::Error) -> Self {
        let mut next: Option<&(dyn StdError + 'static)> = error.source();
        while let Some(cause) = next {
            if let Some(error) = cause.downcast_ref::<hyper::Error>() {
                if error.is_parse() {
                    return Self::NotHttp;
                }
                if error.is_incomplete_message() {
                    return Self::Closed;
                }
            }
            if cause.downcast_ref().and_then(ConnectFailure::of_io) == Some(ConnectFailure::Closed) {
                return Self::Closed;
            }
            next = inner(cause);
        }
        Self::Other
    }
}

/// Returns the messages of `error` and its causes, for the log, which is redacted.
pub(super) fn causes(error: &(dyn StdError + 'static)) -> String {
    let mut texts = vec![error.to_string()];
    let mut next = error.source();
    while let Some(cause) = next {
        texts.push(cause.to_string());
        next = inner(cause);
    }
    texts.dedup();
    texts.join(": ")
}

/// Returns the next error in the chain. An I/O error's own `source` skips the error that it wraps.
fn inner<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a (dyn StdError + 'static)> {
    match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        Some(wrapped) => Some(wrapped),
        None => error.source(),
    }
}

fn date(time: UnixTime) -> Option<NaiveDate> {
    let seconds = i64::try_from(time.as_secs()).ok()?;
    Some(Timestamp::from_timestamp(seconds, 0)?.date_naive())
}
