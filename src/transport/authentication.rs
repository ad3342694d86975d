//! Whose request it is, and what it may use. Only the HTTP headers of the request are looked at, never its address or
//! its body: a token in the query is none (RFC 6750, section 2.3; OAuth 2.1), and the body is the agent's.

use std::borrow::Cow;

use http::{HeaderMap, header::AUTHORIZATION};

use crate::{
    account::Owner,
    oauth::{self, AccessError, AuthorizationServer, Scopes},
    secret::{self, SecretString},
};

/// How the owner of a request is found.
#[derive(Clone, Debug)]
pub enum Authentication {
    /// Every request is this owner's, whoever sends it; on loopback only.
    Open(Owner),
    /// A bearer token says who the owner is. Every request carries one.
    Tokens(Vec<(SecretString, Owner)>),
    /// An access token says which grant's the request is. Every request carries one.
    Grants(AuthorizationServer),
}

/// Whose a request is, and what it may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    pub owner: Owner,
    pub scopes: Scopes,
}

/// Why a request is not served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rejection {
    /// The token is missing or wrong: 401 with this value of `WWW-Authenticate` (RFC 6750).
    Challenge(Cow<'static, str>),
    /// It is not known whether the token is good: 503, never 401, or the host would sign in again.
    Unavailable,
}

impl Authentication {
    /// Returns whose the request with these headers is, or what it is answered with instead.
    pub async fn verify(&self, headers: &HeaderMap) -> Result<Caller, Rejection> {
        match self {
            Self::Open(owner) => Ok(Caller::operators(owner)),
            Self::Tokens(tokens) => owner_of(tokens, headers).map(Caller::operators),
            // Boxed, or the future of every request would have its size.
            Self::Grants(server) => Box::pin(granted(server, headers)).await,
        }
    }
}

impl Caller {
    /// A caller that the operator has configured may use everything.
    fn operators(owner: &Owner) -> Self {
        Self { owner: owner.clone(), scopes: Scopes::all() }
    }
}

fn owner_of<'a>(tokens: &'a [(SecretString, Owner)], headers: &HeaderMap) -> Result<&'a Owner, Rejection> {
    let challenge = |challenge| Rejection::Challenge(Cow::Borrowed(challenge));
    let given = bearer(headers).ok_or(challenge(r#"Bearer realm="bondmcp-server""#))?;
    // All are compared, so that the time tells nothing about any of them.
    let mut verified = None;
    for (token, owner) in tokens {
        if secret::same(&given, token) {
            verified = Some(owner);
        }
    }
    verified.ok_or(challenge(r#"Bearer realm="bondmcp-server", error="invalid_token""#))
}

async fn granted(server: &AuthorizationServer, headers: &HeaderMap) -> Result<Caller, Rejection> {
    let challenge =
        |error| Rejection::Challenge(oauth::challenge(server.endpoints(), error, server.scopes()).into());
    let token = bearer(headers).ok_or_else(|| challenge(None))?;
    match server.verify(&token).await {
        Ok(access) => Ok(Caller { owner: access.owner.clone(), scopes: access.scopes }),
        Err(AccessError::Invalid(reason)) => {
            tracing::info!(reason, "an access token was not accepted");
            Err(challenge(Some("invalid_token")))
        }
        Err(AccessError::Store(error)) => {
            tracing::error!(%error, "access tokens cannot be checked");
            Err(Rejection::Unavailable)
        }
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

    fn challenge(verified: Result<Caller, Rejection>) -> Cow<'static, str> {
        match verified {
            Err(Rejection::Challenge(challenge)) => challenge,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn a_token_names_its_owner_and_no_other() {
        let tokens = [("token-of-ada", "ada"), ("token-of-grace", "grace")];
        let tokens = tokens.map(|(token, owner)| (token.into(), subject(owner)));
        let authentication = Authentication::Tokens(tokens.into());
        for owner in ["ada", "grace"] {
            let given = headers(&format!("bearer  token-of-{owner}"));
            let caller = Caller { owner: subject(owner), scopes: Scopes::all() };
            assert_eq!(authentication.verify(&given).await, Ok(caller));
        }
        for wrong in ["Bearer token-of-ad", "Bearer token-of-ada,token-of-grace", "Bearer "] {
            let challenge = challenge(authentication.verify(&headers(wrong)).await);
            assert!(challenge.contains("invalid_token"), "{wrong}");
        }
        for none in [HeaderMap::new(), headers("Basic token-of-ada"), headers("token-of-ada")] {
            let challenge = challenge(authentication.verify(&none).await);
            assert!(!challenge.contains("error"), "{challenge}");
        }
        assert!(Authentication::Tokens(vec![]).verify(&headers("Bearer x")).await.is_err());
    }

    #[test]
    fn a_token_does_not_show_in_debug() {
        let authentication = Authentication::Tokens(vec![("canary-token".into(), subject("ada"))]);
        assert!(!format!("{authentication:?}").contains("canary"));
    }
}
