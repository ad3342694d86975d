//! Whom a page signs in: the owner of an account, or somebody who is not known yet.

use std::sync::{Mutex, PoisonError};

use tokio::sync::oneshot;

use super::page_session::Login;
use crate::{
    account::{Account, Authenticated, Authenticator, Error},
    config::BaseUrl,
    secret::SecretString,
};

/// Whom a page signs in.
#[derive(Debug)]
pub enum Applicant {
    /// The owner of the account, which adopts who has signed in.
    Owner(Account),
    /// Nobody who is known: whoever waits for the sign-in learns who it is.
    Unknown { authenticator: Authenticator, waiting: Mutex<Option<oneshot::Sender<Authenticated>>> },
}

impl Applicant {
    /// Returns an applicant who is not known yet, and what learns who it is.
    pub fn unknown(authenticator: Authenticator) -> (Self, oneshot::Receiver<Authenticated>) {
        let (waiting, outcome) = oneshot::channel();
        (Self::Unknown { authenticator, waiting: Mutex::new(Some(waiting)) }, outcome)
    }

    pub fn upstream(&self) -> &BaseUrl {
        match self {
            Self::Owner(account) => account.upstream(),
            Self::Unknown { authenticator, .. } => authenticator.upstream(),
        }
    }

    /// The account, if it is known.
    pub fn account(&self) -> Option<&Account> {
        match self {
            Self::Owner(account) => Some(account),
            Self::Unknown { .. } => None,
        }
    }

    /// Signs in; returns the e-mail address of the account.
    pub async fn sign_in(&self, login: &Login) -> Result<Option<String>, Error> {
        let Login { email, password, remember } = login;
        match self {
            Self::Owner(account) => Ok(account.sign_in(email, password.clone(), *remember).await?.email),
            Self::Unknown { authenticator, .. } => {
                self.hand_over(authenticator.with_password(email, password.clone()).await?)?;
                Ok(Some(email.clone()))
            }
        }
    }

    pub async fn use_key(&self, key: SecretString) -> Result<(), Error> {
        match self {
            Self::Owner(account) => account.use_own_key(key).await,
            Self::Unknown { authenticator, .. } => self.hand_over(authenticator.with_key(key).await?),
        }
    }

    /// Creates a BondMCP account.
    pub async fn register(&self, login: &Login) -> Result<(), Error> {
        match self {
            Self::Owner(account) => account.register(&login.email, &login.password).await,
            Self::Unknown { authenticator, .. } => {
                authenticator.register(&login.email, &login.password).await
            }
        }
        .map(|_| ())
    }

    /// Tells whoever waits who it is. If nobody waits any more, the sign-in has failed and its session is ended.
    fn hand_over(&self, authenticated: Authenticated) -> Result<(), Error> {
        let waiting = self.take_waiting().ok_or(Error::Interrupted)?;
        // Dropped when it comes back: that ends the session.
        waiting.send(authenticated).map_err(|_| Error::Interrupted)
    }

    /// Lets nobody wait any longer: the sign-in has ended.
    pub fn release(&self) {
        self.take_waiting();
    }

    fn take_waiting(&self) -> Option<oneshot::Sender<Authenticated>> {
        match self {
            Self::Owner(_) => None,
            Self::Unknown { waiting, .. } => waiting.lock().unwrap_or_else(PoisonError::into_inner).take(),
        }
    }
}
