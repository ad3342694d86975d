//! The proxy in the environment (`HTTPS_PROXY`, `ALL_PROXY`, `NO_PROXY`), chosen as the HTTP client chooses it. Its URL
//! may hold a password, which is never shown.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hyper_util::client::proxy::matcher::{Intercept, Matcher};
use zeroize::Zeroizing;

use crate::{config::BaseUrl, secret::SecretString};

/// A proxy from the environment, through which HTTPS requests go.
#[derive(Clone)]
pub struct Proxy(Intercept);

impl Proxy {
    /// Returns the proxy for `base_url`, chosen as the HTTP client chooses it.
    pub fn of(base_url: &BaseUrl) -> Option<Self> {
        if !base_url.is_https() {
            return None;
        }
        Some(Self(Matcher::from_system().intercept(&base_url.as_str().parse().ok()?)?))
    }

    /// Returns the host and port for messages, without the user name and password that the URL may have.
    pub fn host(&self) -> String {
        let uri = self.0.uri();
        let port = uri.port().map(|port| format!(":{port}")).unwrap_or_default();
        format!("{}{port}", uri.host().unwrap_or_default())
    }

    /// Returns the host name and the port to connect to; `None` for a proxy that does not speak plain HTTP.
    pub fn http_address(&self) -> Option<(&str, u16)> {
        let uri = self.0.uri();
        let is_http = uri.scheme_str() == Some("http");
        uri.host().filter(|_| is_http).map(|host| (host, uri.port_u16().unwrap_or(80)))
    }

    /// Returns the password in the proxy's URL.
    pub fn password(&self) -> Option<SecretString> {
        let login = self.authorization()?.as_bytes().strip_prefix(b"Basic ")?;
        let login = Zeroizing::new(STANDARD.decode(login).ok()?);
        let (_, password) = std::str::from_utf8(&login).ok()?.split_once(':')?;
        Some(password.into())
    }

    /// Returns the value of the `Proxy-Authorization` header, marked as sensitive.
    pub fn authorization(&self) -> Option<&http::HeaderValue> {
        self.0.basic_auth()
    }
}
