//! The public origin of a hosted server: scheme, host and port, without a path.

use std::{fmt, str::FromStr};

use url::{Host, Url};

/// The public origin of a server: `https`, or `http` on loopback for a trial.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicOrigin(String);

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "give https:// and a host, with a port if it is not 443 and without a path; http:// only on loopback"
)]
pub struct PublicOriginError;

impl FromStr for PublicOrigin {
    type Err = PublicOriginError;

    fn from_str(text: &str) -> Result<Self, PublicOriginError> {
        let url = Url::parse(text).map_err(|_| PublicOriginError)?;
        let is_loopback = match url.host().ok_or(PublicOriginError)? {
            Host::Ipv4(address) => address.is_loopback(),
            Host::Ipv6(address) => address.is_loopback(),
            Host::Domain(name) => name == "localhost",
        };
        let has_a_good_scheme = url.scheme() == "https" || url.scheme() == "http" && is_loopback;
        let origin = url.origin().ascii_serialization();
        // A path, a query, a fragment or a user name would be left out without a word.
        let is_an_origin = url.as_str().strip_suffix('/') == Some(&origin);
        if has_a_good_scheme && is_an_origin { Ok(Self(origin)) } else { Err(PublicOriginError) }
    }
}

impl PublicOrigin {
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is without TLS, and so on loopback, for a trial.
    #[must_use]
    pub fn is_trial(&self) -> bool {
        self.0.starts_with("http://")
    }

    /// Returns the port, which is that of the scheme if none is named.
    #[must_use]
    pub fn port(&self) -> u16 {
        let named = self.authority().rsplit_once(':').and_then(|(_, port)| port.parse().ok());
        named.unwrap_or(if self.is_trial() { 80 } else { 443 })
    }

    /// Returns the host and port, as the `Host` header has them.
    #[must_use]
    pub fn authority(&self) -> &str {
        self.0.split_once("://").map_or(&*self.0, |(_, authority)| authority)
    }
}

impl fmt::Display for PublicOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_origin_that_browsers_can_trust_is_public() {
        let origin = |text: &str| text.parse::<PublicOrigin>().map(|origin| origin.to_string());
        assert_eq!(origin("https://mcp.example.com").unwrap(), "https://mcp.example.com");
        assert_eq!(origin("https://MCP.example.com:443/").unwrap(), "https://mcp.example.com");
        assert_eq!(origin("https://mcp.example.com:8443").unwrap(), "https://mcp.example.com:8443");
        assert_eq!(origin("http://localhost:8787").unwrap(), "http://localhost:8787");
        assert_eq!(origin("http://[::1]:8787").unwrap(), "http://[::1]:8787");
        for wrong in [
            "http://mcp.example.com",
            "http://localhost.example.com",
            "https://mcp.example.com/path",
            "https://mcp.example.com/?query",
            "https://mcp.example.com/#fragment",
            "https://user@mcp.example.com",
            "ftp://mcp.example.com",
            "mcp.example.com",
            "https://",
            "",
        ] {
            assert_eq!(origin(wrong), Err(PublicOriginError), "{wrong}");
        }
    }
}
