//! `/auth/…`: registering, logging in and out, refreshing, and the owner of a token.

use bytes::Bytes;
use http::Method;
use serde::Serialize;
use serde_json::Value;

use super::{
    Client, Error,
    exchange::Request,
    wire::{Me, Registered, Tokens},
};
use crate::secret::{ExposeSecret, SecretBytes, SecretString, to_secret_json};

impl Client {
    /// `POST /auth/register`. The address must be verified before the account can log in.
    pub async fn register(&self, email: &str, password: &SecretString) -> Result<Registered, Error> {
        let registered = self.send_once(self.with_password(&["auth", "register"], email, password)?).await;
        registered.map_err(|error| match error {
            Error::Refused(refusal) if refusal.status == 409 => Error::AccountExists(refusal),
            other => other,
        })
    }

    /// `POST /auth/login`.
    pub async fn login(&self, email: &str, password: &SecretString) -> Result<Tokens, Error> {
        let answer = self.send_once(self.with_password(&["auth", "login"], email, password)?).await;
        let tokens = answer.map_err(|error| match error {
            Error::Refused(refusal) if refusal.status == 401 => Error::LoginRejected(refusal),
            other => other,
        })?;
        Ok(self.remembered(tokens))
    }

    /// `POST /auth/refresh`, with the refresh token as bearer.
    pub async fn refresh(&self, refresh_token: &SecretString) -> Result<Tokens, Error> {
        let tokens = self.send_once(post(&["auth", "refresh"], refresh_token)).await?;
        Ok(self.remembered(tokens))
    }

    /// `POST /auth/logout`: the access token is refused afterwards.
    pub async fn logout(&self, access_token: &SecretString) -> Result<(), Error> {
        self.send_once::<Value>(post(&["auth", "logout"], access_token)).await?;
        Ok(())
    }

    /// `GET /auth/me`.
    pub async fn me(&self, access_token: &SecretString) -> Result<Me, Error> {
        self.read(&["auth", "me"], access_token).await
    }

    fn with_password<'a>(
        &self,
        path: &'a [&'a str],
        email: &str,
        password: &SecretString,
    ) -> Result<Request<'a>, Error> {
        self.redactor.remember(password);
        let body = Some(Bytes::from_owner(credentials(email, password)?));
        Ok(Request { method: Method::POST, path, bearer: None, body, sent: None })
    }

    fn remembered(&self, tokens: Tokens) -> Tokens {
        self.redactor.remember(&tokens.access_token);
        if let Some(refresh_token) = &tokens.refresh_token {
            self.redactor.remember(refresh_token);
        }
        tokens
    }
}

fn post<'a>(path: &'a [&'a str], bearer: &'a SecretString) -> Request<'a> {
    Request { method: Method::POST, path, bearer: Some(bearer), body: None, sent: None }
}

/// Serializes `{email, password}` into bytes that are wiped after they were sent.
fn credentials(email: &str, password: &SecretString) -> Result<SecretBytes, Error> {
    #[derive(Serialize)]
    struct Body<'a> {
        email: &'a str,
        password: &'a str,
    }
    let password = password.expose_secret();
    to_secret_json(&Body { email, password }).map_err(|_| Error::InvalidCredential)
}
