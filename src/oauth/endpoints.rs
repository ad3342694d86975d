//! The addresses of the server. All of them come from the public origin, never from a request.

use crate::config::PublicOrigin;

/// Path of the MCP endpoint.
const RESOURCE_PATH: &str = "/mcp";

#[derive(Clone, Debug)]
pub struct Endpoints {
    origin: PublicOrigin,
}

impl Endpoints {
    #[must_use]
    pub fn new(origin: &PublicOrigin) -> Self {
        Self { origin: origin.clone() }
    }

    /// The issuer (RFC 8414): the origin, without a slash at its end.
    #[must_use]
    pub fn issuer(&self) -> &str {
        self.origin.as_str()
    }

    /// The host and port, as the `Host` header of a request to it has them.
    #[must_use]
    pub fn authority(&self) -> &str {
        self.origin.authority()
    }

    /// The protected resource (RFC 9728), which is the audience of access tokens.
    #[must_use]
    pub fn resource(&self) -> String {
        self.at(RESOURCE_PATH)
    }

    #[must_use]
    pub fn authorize(&self) -> String {
        self.at("/authorize")
    }

    #[must_use]
    pub fn token(&self) -> String {
        self.at("/token")
    }

    #[must_use]
    pub fn register(&self) -> String {
        self.at("/register")
    }

    #[must_use]
    pub fn revoke(&self) -> String {
        self.at("/revoke")
    }

    #[must_use]
    pub fn jwks(&self) -> String {
        self.at("/jwks")
    }

    /// The metadata document that a challenge names (RFC 9728, section 5.1).
    #[must_use]
    pub fn resource_metadata(&self) -> String {
        self.at("/.well-known/oauth-protected-resource/mcp")
    }

    fn at(&self, path: &str) -> String {
        format!("{}{path}", self.origin)
    }

    /// Whether a request that names this `resource` (RFC 8707) is for this server: a slash at the end does not count,
    /// and the origin alone means the resource.
    #[must_use]
    pub fn is_resource(&self, given: &str) -> bool {
        let given = given.strip_suffix('/').unwrap_or(given);
        given.strip_suffix(RESOURCE_PATH).unwrap_or(given) == self.origin.as_str()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_resource_is_named_exactly_but_for_a_final_slash() {
        let endpoints = Endpoints::new(&"https://bond.example.com".parse().unwrap());
        for ours in ["", "/", "/mcp", "/mcp/"] {
            assert!(endpoints.is_resource(&format!("https://bond.example.com{ours}")), "{ours}");
        }
        for other in [
            "",
            "https://bond.example.com/mcp//",
            "https://bond.example.com/mcp/mcp",
            "https://bond.example.com.evil.test/mcp",
            "http://bond.example.com/mcp",
            "https://BOND.example.com/mcp",
            "https://bond.example.com/mcp?x",
        ] {
            assert!(!endpoints.is_resource(other), "{other}");
        }
    }
}
