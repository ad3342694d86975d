//! What the commands of a hosted server's operator share. They work on the vault, beside running servers.

use super::{App, Error};
use crate::{
    account::{Accounts, Usd},
    config::PublicOrigin,
    hosted::{self, Hosted},
    oauth::{self, AuthorizationServer, ClientError, Network},
};

/// The variable that names a hosted server. An empty one is an error, or `http` would serve one account to all.
pub(super) const PUBLIC_URL: &str = "BONDMCP_PUBLIC_URL";

/// Names the hosted server, since one vault may have the records of several.
#[derive(Debug, clap::Args)]
pub(super) struct PublicUrl {
    /// The public URL of the hosted server [default: BONDMCP_PUBLIC_URL]
    #[arg(long, value_name = "URL", env = PUBLIC_URL, hide_env = true)]
    public_url: Option<PublicOrigin>,
}

impl PublicUrl {
    /// Returns the command that lists what there is.
    pub fn list_command(&self, app: &App, of: &str) -> String {
        let url = self.public_url.as_ref().map(PublicOrigin::as_str).unwrap_or_default();
        app.command(&[of, "list", "--public-url", url])
    }

    /// Returns the URL; an error if none is given.
    pub fn required(&self) -> Result<&PublicOrigin, Error> {
        self.public_url.as_ref().ok_or_else(|| {
            Error::Usage(format!("name the hosted server with --public-url URL or {PUBLIC_URL}"))
        })
    }
}

/// The records of a hosted server, opened for one command.
pub(super) struct Operator {
    pub hosted: Hosted,
    pub accounts: Accounts,
    origin: PublicOrigin,
}

impl Operator {
    /// Does `work` with the records of the server at `url`, opened for it and closed afterwards; an error if there is no
    /// vault.
    pub async fn run<T>(
        app: &App,
        url: &PublicUrl,
        work: impl AsyncFnOnce(&Self) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let operator = Self::open(app, url).await?;
        let outcome = work(&operator).await;
        operator.accounts.close().await;
        outcome
    }

    async fn open(app: &App, url: &PublicUrl) -> Result<Self, Error> {
        let origin = url.required()?.clone();
        let location = &app.settings.vault;
        if !location.exists() {
            return Err(Error::no_vault(location));
        }
        let accounts = app.accounts();
        let settings = oauth::Settings::new(origin.clone());
        let (vault, clock) = (accounts.vault().await?, app.clock.clone());
        let server = AuthorizationServer::open(vault, settings, Network::public(), clock).await?;
        let settings = hosted::Settings {
            origin: origin.clone(),
            default_daily_spend: Usd::default(),
            daily_spend: None,
            demo: None,
        };
        let hosted = Hosted::new(server, accounts.clone(), settings);
        Ok(Self { hosted, accounts, origin })
    }

    /// Checks that API keys can be revoked: those of the grants are found under the address of their BondMCP alone.
    pub async fn check_upstream(&self) -> Result<(), Error> {
        let Some(other) = self.hosted.bound_elsewhere().await? else { return Ok(()) };
        let origin = &self.origin;
        Err(Error::Usage(format!(
            "what people have connected at {origin} belongs to BondMCP at {other}; add --base-url {other}"
        )))
    }

    pub fn server(&self) -> &AuthorizationServer {
        self.hosted.authorization_server()
    }
}

impl From<ClientError> for Error {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::Invalid(message) => Self::Usage(message.to_owned()),
            ClientError::Unknown(message) | ClientError::Document(message) => {
                Self::Failed(anyhow::anyhow!(message))
            }
            ClientError::Store(error) => error.into(),
        }
    }
}
