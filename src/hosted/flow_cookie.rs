//! The cookie that binds an authorization to the browser that began it (RFC 9700, section 4.7; `__Host-`: RFC 6265bis,
//! section 4.1.3). It says nothing about who uses the browser, so that it stays the same when somebody signs in.

use http::{HeaderMap, header::COOKIE};
use sha2::{Digest as _, Sha256};

use crate::{
    config::PublicOrigin,
    secret::{self, ExposeSecret as _, SecretString},
};

/// Name of the cookie where it can be `Secure`.
const NAME: &str = "__Host-bondmcp-flow";

/// Name of the cookie on loopback over http.
const LOOPBACK_NAME: &str = "bondmcp-flow";

/// The value of the cookie: 256 random bits.
#[derive(Clone, Debug)]
pub struct FlowCookie(SecretString);

impl FlowCookie {
    pub fn new() -> Self {
        Self(secret::random())
    }

    /// Returns the cookie of the browser that sent these headers.
    pub fn of(headers: &HeaderMap, origin: &PublicOrigin) -> Option<Self> {
        let name = name(origin);
        let lines = headers.get_all(COOKIE).into_iter().filter_map(|line| line.to_str().ok());
        let pairs = lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
        let value = pairs.into_iter().find(|(found, _)| *found == name)?.1;
        Some(Self(value.into()))
    }

    /// Returns the value of `Set-Cookie`. Lax, since the app sends the browser here from another site.
    pub fn header(&self, origin: &PublicOrigin) -> String {
        let secure = if is_secure(origin) { "; Secure" } else { "" };
        format!("{}={}; Path=/; HttpOnly; SameSite=Lax{secure}", name(origin), self.0.expose_secret())
    }

    /// Returns what is stored to recognise the cookie.
    pub fn fingerprint(&self) -> Vec<u8> {
        Sha256::digest(self.0.expose_secret()).to_vec()
    }
}

fn is_secure(origin: &PublicOrigin) -> bool {
    origin.as_str().starts_with("https:")
}

fn name(origin: &PublicOrigin) -> &'static str {
    if is_secure(origin) { NAME } else { LOOPBACK_NAME }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(text: &str) -> PublicOrigin {
        text.parse().unwrap()
    }

    #[test]
    fn a_browser_sends_back_what_was_set() {
        for place in ["https://bond.example.com", "http://localhost:8787"].map(origin) {
            let cookie = FlowCookie::new();
            let header = cookie.header(&place);
            assert!(header.contains("; HttpOnly") && !header.contains("Domain"), "{place}");
            assert_eq!(header.contains("Secure"), header.starts_with("__Host-"), "{place}");
            let mut headers = HeaderMap::new();
            let pair = header.split(';').next().unwrap();
            headers.insert(COOKIE, format!("other=1; {pair}").parse().unwrap());
            assert_eq!(FlowCookie::of(&headers, &place).unwrap().fingerprint(), cookie.fingerprint());
        }
    }

    #[test]
    fn a_cookie_that_another_host_of_the_site_could_have_set_is_not_taken() {
        let mut headers = HeaderMap::new();
        headers.insert(COOKIE, "bondmcp-flow=planted".parse().unwrap());
        assert!(FlowCookie::of(&headers, &origin("https://bond.example.com")).is_none());
    }

    #[test]
    fn it_does_not_show_in_debug() {
        let cookie = FlowCookie("canary".into());
        assert!(!format!("{cookie:?}").contains("canary"));
    }
}
