//! Where the sign-in page stands: on loopback of the person's own computer, or under the public origin of a hosted
//! server. Its address and the requests that count as its own follow from that, never from what a request says.

use std::net::SocketAddr;

use crate::config::PublicOrigin;

/// Path under a public origin below which the pages are.
const PUBLIC_PATH: &str = "/sign-in";

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
    pub fn public(origin: &PublicOrigin) -> Self {
        Self { origin: origin.as_str().to_owned(), path: PUBLIC_PATH, is_public: true }
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
    fn a_place_names_its_host_as_browsers_do() {
        let public = Place::public(&"https://mcp.example.com:8443".parse().unwrap());
        assert_eq!(public.authority(), "mcp.example.com:8443");
        assert_eq!(public.url("id"), "https://mcp.example.com:8443/sign-in/id");
        let loopback = Place::loopback(([127, 0, 0, 1], 4711).into());
        assert_eq!(
            (loopback.authority(), &*loopback.url("id")),
            ("127.0.0.1:4711", "http://127.0.0.1:4711/id")
        );
    }
}
