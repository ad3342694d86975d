//! Redirect URIs of clients (RFC 6749, section 3.1.2; native apps: RFC 8252, section 7; RFC 9700, section 2.1).

use url::Url;

/// Longest redirect URI, in bytes.
const MAX_URI_BYTES: usize = 512;

/// Hosts of the loopback interface on which a client may listen.
pub(crate) const LOOPBACK_HOSTS: [&str; 3] = ["localhost", "127.0.0.1", "[::1]"];

/// Private-use schemes without a dot. They belong to known hosts.
const KNOWN_SCHEMES: [&str; 4] = ["claude", "cursor", "vscode", "vscode-insiders"];

/// Whether a client may have this redirect URI: `https`, `http` on loopback, or a private-use scheme with a dot (RFC 8252,
/// section 7.1) or of a known host. It has no user name and no fragment.
pub fn is_acceptable(uri: &str) -> bool {
    let is_plain = uri.len() <= MAX_URI_BYTES
        && uri
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'#' | b'\\' | b'"' | b'<' | b'>'));
    let Some((scheme, rest)) = uri.split_once(':').filter(|_| is_plain) else { return false };
    if has_user_name(rest) {
        return false;
    }
    match scheme {
        // Browsers skip further slashes, people do not.
        "https" => rest.starts_with("//") && !rest.starts_with("///") && Url::parse(uri).is_ok(),
        "http" => Loopback::parse(uri).is_some(),
        _ => is_private_use(scheme) && rest.len() > 1 && Url::parse(uri).is_ok(),
    }
}

/// Returns the acceptable ones, each once. The others are left out: a host that sends several needs only one of them.
pub fn acceptable<'a>(uris: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    let mut kept: Vec<String> = Vec::new();
    for uri in uris {
        if is_acceptable(uri) && !kept.iter().any(|other| other == uri) {
            kept.push(uri.to_owned());
        }
    }
    kept
}

/// Whether a request's redirect URI is the registered one: byte by byte (RFC 9700, section 2.1), but for the port of a
/// loopback URI, which a native app chooses when it starts (RFC 8252, section 7.3).
pub fn matches(registered: &str, requested: &str) -> bool {
    registered == requested
        || Loopback::parse(registered).is_some_and(|loopback| Loopback::parse(requested) == Some(loopback))
}

/// A loopback redirect URI without its port. It is split by hand, so that nothing is decoded or normalised.
#[derive(PartialEq, Eq)]
struct Loopback<'a> {
    host: &'a str,
    /// Path and query, as they are written.
    rest: &'a str,
}

impl<'a> Loopback<'a> {
    fn parse(uri: &'a str) -> Option<Self> {
        let uri = uri.strip_prefix("http://")?;
        let (authority, rest) = uri.split_at(uri.find(['/', '?']).unwrap_or(uri.len()));
        let host = LOOPBACK_HOSTS.into_iter().find(|host| authority.starts_with(host))?;
        let (host, port) = authority.split_at(host.len());
        (port.is_empty() || is_port(port)).then_some(Self { host, rest })
    }
}

/// Whether the text is a colon and a port.
fn is_port(text: &str) -> bool {
    let digits = text.strip_prefix(':').unwrap_or_default();
    digits.bytes().all(|byte| byte.is_ascii_digit()) && digits.parse::<u16>().is_ok_and(|port| port != 0)
}

/// Whether there is a user name in what follows the scheme.
fn has_user_name(rest: &str) -> bool {
    let authority = rest.trim_start_matches('/').split(['/', '?']).next();
    rest.starts_with('/') && authority.is_some_and(|authority| authority.contains('@'))
}

fn is_private_use(scheme: &str) -> bool {
    let is_scheme = scheme.starts_with(|first: char| first.is_ascii_lowercase())
        && scheme.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'+' | b'-' | b'.'));
    is_scheme && (scheme.contains('.') || KNOWN_SCHEMES.contains(&scheme))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn harmless_redirect_uris_are_accepted() {
        for uri in [
            "https://claude.ai/api/mcp/auth_callback",
            "https://chatgpt.com/connector/oauth/abc_DEF-1",
            "https://vscode.dev/redirect",
            "https://www.cursor.com/agents/mcp/oauth/callback",
            "https://client.example:8443/cb?tenant=a@b",
            "http://localhost/callback",
            "http://127.0.0.1",
            "http://127.0.0.1:33418/",
            "http://[::1]:1/cb?x=1",
            "cursor://anysphere.cursor-mcp/oauth/callback",
            "vscode://vscode.github-authentication/did-authenticate",
            "vscode-insiders://x",
            "claude://oauth",
            "com.example.app:/oauth2redirect",
            "com.example.app://callback",
        ] {
            assert!(is_acceptable(uri), "{uri}");
        }
    }

    // RFC 9700, section 4.1; RFC 8252, section 8.4
    #[test]
    fn dangerous_redirect_uris_are_refused() {
        let long = format!("https://client.example/{}", "a".repeat(MAX_URI_BYTES));
        for uri in [
            "",
            ":",
            "https:",
            "https:client.example/cb",
            "https://",
            "https:///cb",
            "/cb",
            "//client.example/cb",
            "javascript:alert(1)",
            "JavaScript:alert(1)",
            "data:text/html,x",
            "file:///etc/passwd",
            "vbscript:x",
            "blob:https://client.example/x",
            "about:blank",
            "http://client.example/cb",
            "http://localhost.evil.test/cb",
            "http://127.0.0.1.evil.test/cb",
            "http://localhost:80.evil.test/cb",
            "http://localhost:80@evil.test/cb",
            "http://localhost@evil.test/cb",
            "http://127.1/cb",
            "http://2130706433/cb",
            "http://127.0.0.2/cb",
            "http://[::ffff:127.0.0.1]/cb",
            "http://[::1].evil.test/cb",
            "http://localhost:/cb",
            "http://localhost:0/cb",
            "http://localhost:65536/cb",
            "http://localhost:+80/cb",
            "http://0.0.0.0/cb",
            "HTTP://localhost/cb",
            "https://user@client.example/cb",
            "https://user:password@client.example/cb",
            "https:///user@client.example/cb",
            "https://client.example\\@evil.test/cb",
            "https://client.example/cb#fragment",
            "https://client.example/cb#",
            "https://client.example/c b",
            "https://client.example/cb\n",
            "https://cliént.example/cb",
            "https://client.example/\"onload=",
            "com.example.app:",
            "com.example.app://user@host/cb",
            "myapp://callback",
            "CURSOR://x",
            "1.a:/cb",
            "ftp://client.example/cb",
            &long,
        ] {
            assert!(!is_acceptable(uri), "{uri}");
        }
    }

    #[test]
    fn only_the_port_of_a_loopback_uri_may_differ() {
        for (registered, requested) in [
            ("http://127.0.0.1/callback", "http://127.0.0.1:49152/callback"),
            ("http://127.0.0.1:33418/", "http://127.0.0.1:50000/"),
            ("http://localhost:3334/oauth/callback", "http://localhost/oauth/callback"),
            ("http://[::1]:1/?x=1", "http://[::1]:2/?x=1"),
            ("https://claude.ai/api/mcp/auth_callback", "https://claude.ai/api/mcp/auth_callback"),
        ] {
            assert!(matches(registered, requested), "{registered} {requested}");
        }
    }

    // RFC 9700, section 4.1.3
    #[test]
    fn what_only_resembles_a_registered_uri_does_not_match() {
        for (registered, requested) in [
            ("https://client.example/cb", "https://client.example/cb/"),
            ("https://client.example/cb", "https://client.example/cb/../evil"),
            ("https://client.example/cb", "https://client.example/c%62"),
            ("https://client.example/cb", "https://client.example/CB"),
            ("https://client.example/cb", "https://CLIENT.example/cb"),
            ("https://client.example/cb", "https://client.example:443/cb"),
            ("https://client.example/cb", "https://client.example.evil.test/cb"),
            ("https://client.example/cb", "https://evil.test/https://client.example/cb"),
            ("https://client.example/cb", "https://user@client.example/cb"),
            ("https://client.example/cb", "https://client.example@evil.test/cb"),
            ("https://client.example/cb", "https://client.example/cb?x=1"),
            ("https://client.example/cb", "https://client.example/cb#x"),
            ("https://client.example/cb", "http://client.example/cb"),
            ("https://client.example/cb", " https://client.example/cb"),
            ("https://localhost:1/cb", "https://localhost:2/cb"),
            ("com.example.app://localhost:1/cb", "com.example.app://localhost:2/cb"),
            ("http://localhost:1/cb", "http://localhost:2/other"),
            ("http://localhost:1/cb", "http://localhost:2/cb/"),
            ("http://localhost:1/cb", "http://localhost:2/cb?x"),
            ("http://localhost:1/cb", "http://localhost:2/cb#x"),
            ("http://localhost:1/cb", "http://127.0.0.1:1/cb"),
            ("http://127.0.0.1:1/cb", "http://[::1]:1/cb"),
            ("http://[::1]:1/cb", "http://[0:0:0:0:0:0:0:1]:1/cb"),
            ("http://localhost:1/cb", "http://LOCALHOST:1/cb"),
            ("http://localhost:1/cb", "http://localhost.evil.test:1/cb"),
            ("http://127.0.0.1:1/cb", "http://127.0.0.1.evil.test:1/cb"),
            ("http://localhost:1/cb", "http://localhost:1@evil.test/cb"),
            ("http://localhost:1/cb", "http://user@localhost:1/cb"),
            ("http://localhost:1/cb", "http://localhost:1:2/cb"),
            ("http://localhost:1/cb", "http://localhost:1\\@evil.test/cb"),
            ("http://localhost:1/cb", "https://localhost:1/cb"),
        ] {
            assert!(!matches(registered, requested), "{registered} {requested}");
        }
    }

    fn registered() -> impl Strategy<Value = &'static str> {
        prop_oneof![
            Just("https://client.example/cb"),
            Just("http://localhost:33418/cb"),
            Just("http://127.0.0.1/"),
            Just("http://[::1]:8080/a/b?c=d"),
            Just("cursor://anysphere.cursor-mcp/oauth/callback"),
        ]
    }

    proptest! {
        #[test]
        fn no_edit_of_a_registered_uri_reaches_another_place(
            uri in registered(),
            at in any::<prop::sample::Index>(),
            removed in 0_usize..4,
            inserted in "[a-zA-Z0-9@:/?#%.\\\\\\[\\] -]{0,12}",
        ) {
            let start = at.index(uri.len() + 1);
            let end = (start + removed).min(uri.len());
            let edited = format!("{}{inserted}{}", &uri[..start], &uri[end..]);
            if matches(uri, &edited) {
                // Then they differ in the port alone, on the same loopback host.
                let (registered, edited) = (Url::parse(uri).unwrap(), Url::parse(&edited).unwrap());
                prop_assert_eq!(registered.scheme(), edited.scheme());
                prop_assert_eq!(registered.host_str(), edited.host_str());
                prop_assert_eq!(registered.path(), edited.path());
                prop_assert_eq!(registered.query(), edited.query());
                prop_assert_eq!(edited.fragment(), None);
                prop_assert_eq!(edited.username(), "");
                prop_assert!(registered.port() == edited.port() || registered.scheme() == "http");
            }
        }

        #[test]
        fn what_is_accepted_leads_where_it_says(uri in "(https|http|HTTPS|javascript|com\\.example|cursor)[:/]{1,3}[a-z0-9@:/?#%.\\\\\\[\\] -]{0,30}") {
            if is_acceptable(&uri) {
                let url = Url::parse(&uri).unwrap();
                prop_assert_eq!(url.username(), "");
                prop_assert_eq!(url.password(), None);
                prop_assert_eq!(url.fragment(), None);
                let is_loopback = url.host_str().is_some_and(|host| LOOPBACK_HOSTS.contains(&host));
                prop_assert!(url.scheme() != "http" || is_loopback);
                prop_assert_ne!(url.scheme(), "javascript");
                prop_assert!(matches(&uri, &uri));
            }
        }
    }
}
