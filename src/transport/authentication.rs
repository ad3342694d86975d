//! Whose request it is. Only the HTTP headers of the request are looked at, never its body: that is the agent's.

use http::{HeaderMap, header::AUTHORIZATION};

use crate::{
    account::Owner,
    secret::{self, SecretString},
};

/// How the owner of a request is found.
#[derive(Clone, Debug)]
pub enum Authentication {
    /// Every request is this owner's, whoever sends it; on loopback only.
    Open(Owner),
    /// A bearer token says who the owner is. Every request carries one.
    Tokens(Vec<(SecretString, Owner)>),
}

/// The challenge of a 401 (RFC 6750): the value of `WWW-Authenticate`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Challenge(pub &'static str);

impl Authentication {
    /// Returns the owner of a request with these headers, or what it is answered with instead.
    pub fn verify(&self, headers: &HeaderMap) -> Result<Owner, Challenge> {
        let tokens = match self {
            Self::Open(owner) => return Ok(owner.clone()),
            Self::Tokens(tokens) => tokens,
        };
        let given = bearer(headers).ok_or(Challenge(r#"Bearer realm="bondmcp-server""#))?;
        // All are compared, so that the time tells nothing about any of them.
        let mut verified = None;
        for (token, owner) in tokens {
            if secret::same(&given, token) {
                verified = Some(owner);
            }
        }
        verified.cloned().ok_or(Challenge(r#"Bearer realm="bondmcp-server", error="invalid_token""#))
    }
}

fn bearer(headers: &HeaderMap) -> Option<SecretString> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim().into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use static_assertions::assert_not_impl_any;

    assert_not_impl_any!(Authentication: serde::Serialize, std::fmt::Display);

    fn subject(id: &str) -> Owner {
        Owner::Subject(id.to_owned())
    }

    fn headers(authorization: &str) -> HeaderMap {
        HeaderMap::from_iter([(AUTHORIZATION, authorization.parse().unwrap())])
    }

    #[test]
    fn a_token_names_its_owner_and_no_other() {
        let tokens = [("token-of-ada", "ada"), ("token-of-grace", "grace")];
        let tokens = tokens.map(|(token, owner)| (token.into(), subject(owner)));
        let authentication = Authentication::Tokens(tokens.into());
        for owner in ["ada", "grace"] {
            let given = headers(&format!("bearer  token-of-{owner}"));
            assert_eq!(authentication.verify(&given), Ok(subject(owner)));
        }
        for wrong in ["Bearer token-of-ad", "Bearer token-of-ada,token-of-grace", "Bearer "] {
            let Challenge(challenge) = authentication.verify(&headers(wrong)).unwrap_err();
            assert!(challenge.contains("invalid_token"), "{wrong}");
        }
        for none in [HeaderMap::new(), headers("Basic token-of-ada"), headers("token-of-ada")] {
            let Challenge(challenge) = authentication.verify(&none).unwrap_err();
            assert!(!challenge.contains("error"), "{challenge}");
        }
        assert!(Authentication::Tokens(vec![]).verify(&headers("Bearer x")).is_err());
    }

    #[test]
    fn a_token_does_not_show_in_debug() {
        let authentication = Authentication::Tokens(vec![("canary-token".into(), subject("ada"))]);
        assert!(!format!("{authentication:?}").contains("canary"));
    }
}
