//! What the commands of a hosted server's operator share. They work on the vault, beside running servers.

use std::env::VarError;

use super::{App, Error, vault};
use crate::{
    account::{Accounts, Usd},
    config::PublicOrigin,
    hosted::{self, Hosted},
    oauth::{self, AuthorizationServer, ClientError, Network},
    vault::Vault,
};

/// Names the hosted server, since one vault may have the records of several.
#[derive(Debug, clap::Args)]
pub(super) struct PublicUrl {
    /// The public URL of the hosted server [default: BONDMCP_PUBLIC_URL]
    #[arg(long, value_name = "URL")]
    public_url: Option<PublicOrigin>,
}

impl PublicUrl {
    /// Returns the URL of the flag or the environment; `None` if neither names one.
    pub fn given(&self) -> Result<Option<PublicOrigin>, Error> {
        if let Some(origin) = &self.public_url {
            return Ok(Some(origin.clone()));
        }
        match std::env::var("BONDMCP_PUBLIC_URL") {
            Ok(url) if url.is_empty() => Ok(None),
            Ok(url) => match url.parse() {
                Ok(origin) => Ok(Some(origin)),
                Err(error) => Err(Error::Usage(format!("BONDMCP_PUBLIC_URL: {error}"))),
            },
            Err(VarError::NotPresent) => Ok(None),
            Err(VarError::NotUnicode(_)) => {
                Err(Error::Usage("BONDMCP_PUBLIC_URL is not valid UTF-8".to_owned()))
            }
        }
    }

    /// Returns the URL; an error if none is given.
    pub fn required(&self) -> Result<PublicOrigin, Error> {
        self.given()?.ok_or_else(|| {
            Error::Usage("name the hosted server with --public-url URL or BONDMCP_PUBLIC_URL".to_owned())
        })
    }
}

/// The records of a hosted server, opened for one command.
pub(super) struct Operator {
    pub hosted: Hosted,
    accounts: Accounts,
    vault: Vault,
}

impl Operator {
    /// Opens the records of the server at `url`; an error if there is no vault.
    pub async fn open(app: &App, url: &PublicUrl) -> Result<Self, Error> {
        let origin = url.required()?;
        let vault = vault::open_existing(app).await?;
        let settings = oauth::Settings::new(origin.clone());
        let server =
            AuthorizationServer::open(vault.clone(), settings, Network::public(), app.clock.clone()).await?;
        let accounts = app.accounts();
        let settings = hosted::Settings { origin, default_daily_spend: Usd::default(), demo: None };
        Ok(Self { hosted: Hosted::new(server, accounts.clone(), settings), accounts, vault })
    }

    pub fn server(&self) -> &AuthorizationServer {
        self.hosted.authorization_server()
    }

    /// Closes what was opened, after `outcome`.
    pub async fn close<T>(self, outcome: Result<T, Error>) -> Result<T, Error> {
        self.accounts.close().await;
        self.vault.close().await;
        outcome
    }
}

impl From<ClientError> for Error {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::Unknown(message)
            | ClientError::Document(message)
            | ClientError::Invalid(message) => Self::Failed(anyhow::anyhow!(message)),
            ClientError::Store(error) => error.into(),
        }
    }
}
