//! Where the sign-in page stands: on loopback of the person's own computer, or under the public origin of a hosted
//! server. Its address and the requests that count as its own follow from that, never from what a request says.

use std::{net::SocketAddr, str::FromStr};

use url::{Host, Url};

/// Path under a public origin below which the pages are.
const PUBLIC_PATH: &str = "/sign-in";

/// The public origin of a server: `https`, or `http` on loopback for a trial.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicOrigin(String);

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a public origin is https:// and a host, with a port if it is not 443; http:// only on loopback")]
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

/// The place of a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Scheme, host and port, as browsers name them.
    origin: String,
    /// Path of the pages, without a slash at its end.
    path: &'static str,
    is_public: bool,
}

impl Place {
    /// Returns the place of a page that this computer's browsers reach at `address`.
    #[must_use]
    pub fn loopback(address: SocketAddr) -> Self {
        Self { origin: format!("http://{address}"), path: "", is_public: false }
    }

    /// Returns the place of the pages of a hosted server.
    #[must_use]
    pub fn public(PublicOrigin(origin): PublicOrigin) -> Self {
        Self { origin, path: PUBLIC_PATH, is_public: true }
    }

    /// Returns the scheme, host and port, as the `Origin` header has them.
    #[must_use]
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// Returns the host and port, as the `Host` header has them.
    #[must_use]
    pub fn authority(&self) -> &str {
        self.origin.split_once("://").map_or(&*self.origin, |(_, authority)| authority)
    }

    /// Returns the path of the pages, without a slash at its end; empty on loopback.
    #[must_use]
    pub fn path(&self) -> &'static str {
        self.path
    }

    /// Whether the page is on the internet rather than on the person's own computer.
    #[must_use]
    pub fn is_public(&self) -> bool {
        self.is_public
    }

    /// Returns the absolute address of the page `id`.
    #[must_use]
    pub fn url(&self, id: &str) -> String {
        format!("{}{}/{id}", self.origin, self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_origin_that_browsers_can_trust_is_public() {
        let origin = |text: &str| text.parse::<PublicOrigin>().map(|PublicOrigin(origin)| origin);
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

    #[test]
    fn a_place_names_its_host_as_browsers_do() {
        let public = Place::public("https://mcp.example.com:8443".parse().unwrap());
        assert_eq!(public.authority(), "mcp.example.com:8443");
        assert_eq!(public.url("id"), "https://mcp.example.com:8443/sign-in/id");
        let loopback = Place::loopback(([127, 0, 0, 1], 4711).into());
        assert_eq!(
            (loopback.authority(), &*loopback.url("id")),
            ("127.0.0.1:4711", "http://127.0.0.1:4711/id")
        );
    }
}
