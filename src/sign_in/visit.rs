//! The person's side of a pending sign-in: the page's secrets, and what its forms may do with the account.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio::sync::Mutex;

use super::{End, Pending, State};
use crate::{
    account::{Account, Error},
    bondmcp,
    error::{Kind, Report},
    secret::{self, ExposeSecret as _, SecretString},
};

/// Wrong passwords that one sign-in forgives, so that an account is not locked from here.
const ATTEMPTS: u8 = 5;

/// How often it is tried whether a new account's address is verified by now.
const VERIFICATION_POLL: Duration = Duration::from_secs(5);

/// What is typed into the page's forms for an account.
pub struct Login {
    pub email: String,
    pub password: SecretString,
    /// Whether the person stays signed in on this computer.
    pub remember: bool,
}

/// A page that a person may visit.
#[derive(Debug)]
pub struct Visit {
    account: Account,
    pending: Arc<Pending>,
    address: SocketAddr,
    /// What the host calls itself: a claim, not a fact.
    asked_by: Option<String>,
    /// The last part of the page's path: 256 random bits, good for one sign-in.
    id: SecretString,
    /// Sent with the page's forms, so that no other page can send them.
    form_token: SecretString,
    /// Held while one is tried, so that no more are tried at once than are forgiven.
    wrong_passwords: Mutex<u8>,
}

impl Visit {
    pub fn new(account: Account, address: SocketAddr, asked_by: Option<String>, lifetime: Duration) -> Self {
        let id = secret::random();
        let url = format!("http://{address}/{}", id.expose_secret());
        Self {
            account,
            pending: Arc::new(Pending::new(url.into(), lifetime)),
            address,
            asked_by,
            id,
            form_token: secret::random(),
            wrong_passwords: Mutex::new(0),
        }
    }

    pub fn pending(&self) -> &Arc<Pending> {
        &self.pending
    }

    pub fn account(&self) -> &Account {
        &self.account
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn asked_by(&self) -> Option<&str> {
        self.asked_by.as_deref()
    }

    pub fn is_path(&self, given: &str) -> bool {
        secret::same(&given.into(), &self.id)
    }

    pub fn is_form_token(&self, given: &SecretString) -> bool {
        secret::same(given, &self.form_token)
    }

    pub fn path(&self) -> &str {
        self.id.expose_secret()
    }

    pub fn form_token(&self) -> &str {
        self.form_token.expose_secret()
    }

    pub async fn sign_in(&self, login: Login) -> Result<(), Report> {
        let mut wrong = self.wrong_passwords.lock().await;
        self.still_open()?;
        match self.account.sign_in(&login.email, login.password, login.remember).await {
            Ok(status) => {
                self.pending.becomes(State::SignedIn { email: status.email });
                Ok(())
            }
            Err(error) => Err(self.refused(&error, &mut wrong)),
        }
    }

    /// Makes an account; from then on it is tried now and then whether its address is verified.
    pub async fn create(&self, login: Login) -> Result<(), Report> {
        self.account.register(&login.email, &login.password).await.map_err(|error| Report::from(&error))?;
        self.pending.becomes(State::Verifying { email: login.email.clone() });
        tokio::spawn(verified(self.account.clone(), Arc::clone(&self.pending), login));
        Ok(())
    }

    pub async fn use_key(&self, key: SecretString) -> Result<(), Report> {
        let mut wrong = self.wrong_passwords.lock().await;
        self.still_open()?;
        match self.account.use_own_key(key).await {
            Ok(()) => {
                self.pending.becomes(State::SignedIn { email: None });
                Ok(())
            }
            Err(error) => Err(self.refused(&error, &mut wrong)),
        }
    }

    /// While this one waited for its turn, another may have ended the sign-in.
    fn still_open(&self) -> Result<(), Report> {
        if self.pending.is_open() {
            return Ok(());
        }
        Err(Report::new(
            Kind::SignInRequired,
            "This sign-in is over.",
            "Ask your assistant again for a new one.",
        ))
    }

    fn refused(&self, error: &Error, wrong: &mut u8) -> Report {
        if matches!(error, Error::Upstream(error) if bondmcp::Error::is_unauthorized(error)) {
            *wrong += 1;
            if *wrong >= ATTEMPTS {
                self.pending.end(End::TooManyAttempts);
            }
        }
        Report::from(error)
    }
}

async fn verified(account: Account, pending: Arc<Pending>, login: Login) {
    while pending.is_open() {
        tokio::select! {
            () = pending.ended() => return,
            () = tokio::time::sleep(VERIFICATION_POLL) => {}
        }
        if let Ok(status) = account.sign_in(&login.email, login.password.clone(), login.remember).await {
            pending.becomes(State::SignedIn { email: status.email });
        }
    }
}
