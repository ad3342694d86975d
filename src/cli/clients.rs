//! `bondmcp-server clients …`: the OAuth clients that an operator adds, for programs that cannot register themselves.

use anyhow::anyhow;
use serde::Serialize;

use super::{
    App, Error,
    operator::{Operator, PublicUrl},
    printer::{Printer, is_interactive, reveal_out},
    prompt,
};
use crate::{
    clock::Timestamp,
    oauth::{AddedClient, Client, ClientKind, Grant, NewClient},
};

pub(super) const EXAMPLES: &str = "Examples:
  bondmcp-server clients add 'Ward assistant' --redirect-uri https://ward.example.com/callback
  bondmcp-server clients list
  bondmcp-server clients revoke CLIENT_ID";

const ADD_EXAMPLES: &str = "Examples:
  bondmcp-server clients add Inspector --redirect-uri http://127.0.0.1/callback
  bondmcp-server clients add 'Ward assistant' --redirect-uri https://ward.example.com/callback --confidential";

const LIST_EXAMPLES: &str = "Examples:
  bondmcp-server clients list
  bondmcp-server clients list --public-url https://bond.example.com --json";

const REVOKE_EXAMPLES: &str = "Examples:
  bondmcp-server clients revoke CLIENT_ID
  bondmcp-server clients revoke CLIENT_ID --yes";

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Add a client, for a program that neither has a metadata document nor registers itself
    #[command(after_help = ADD_EXAMPLES)]
    Add(Add),
    /// List the clients that were added
    #[command(after_help = LIST_EXAMPLES)]
    List(List),
    /// Remove a client and revoke what people have allowed it
    #[command(after_help = REVOKE_EXAMPLES)]
    Revoke(Revoke),
}

#[derive(Debug, clap::Args)]
pub(super) struct Add {
    /// The name that people see when they are asked for their consent
    name: String,
    /// Redirect URI, which must match exactly, except for the port of a loopback address; repeatable
    #[arg(long = "redirect-uri", value_name = "URI", required = true)]
    redirect_uris: Vec<String>,
    /// Give the client a secret, which is shown once and on a terminal only
    #[arg(long)]
    confidential: bool,
    /// Print JSON
    #[arg(long, conflicts_with = "confidential")]
    json: bool,
    #[command(flatten)]
    public_url: PublicUrl,
}

#[derive(Debug, clap::Args)]
pub(super) struct List {
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    public_url: PublicUrl,
}

#[derive(Debug, clap::Args)]
pub(super) struct Revoke {
    /// The client's id
    #[arg(value_name = "ID")]
    id: String,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    public_url: PublicUrl,
}

impl Command {
    pub async fn run(self, app: App) -> Result<(), Error> {
        match self {
            Self::Add(args) => args.run(&app).await,
            Self::List(args) => args.run(&app).await,
            Self::Revoke(args) => args.run(&app).await,
        }
    }
}

/// A client in a list.
#[derive(Serialize)]
struct Row<'a> {
    client_id: &'a str,
    name: Option<&'a str>,
    redirect_uris: &'a [String],
    added_at: Timestamp,
}

impl<'a> Row<'a> {
    fn new(client: &'a Client, added_at: Timestamp) -> Self {
        let Client { id, name, redirect_uris, .. } = client;
        Self { client_id: id, name: name.as_deref(), redirect_uris, added_at }
    }

    fn cells(&self, printer: &Printer) -> [String; 4] {
        [
            self.client_id.to_owned(),
            printer.short(self.name.unwrap_or("-")),
            self.added_at.format("%Y-%m-%d").to_string(),
            self.redirect_uris.join(" "),
        ]
    }
}

impl Add {
    async fn run(self, app: &App) -> Result<(), Error> {
        if self.confidential && !is_interactive() {
            return Err(Error::Usage(
                "a client's secret is shown on a terminal only; run this command in one".to_owned(),
            ));
        }
        let new = NewClient {
            name: self.name,
            redirect_uris: self.redirect_uris,
            is_confidential: self.confidential,
        };
        let add = async |operator: &Operator| Ok(operator.server().clients().add(new).await?);
        let AddedClient { client, secret, created_at } = Operator::run(app, &self.public_url, add).await?;
        let printer = &app.printer;
        if self.json {
            printer.print_json(&Row::new(&client, created_at));
            return Ok(());
        }
        printer.print_out(format_args!("Client id: {}", client.id));
        for uri in &client.redirect_uris {
            printer.print_out(format_args!("Redirect URI: {uri}"));
        }
        if let Some(secret) = &secret {
            app.redactor.remember(secret);
            printer.print_out("Client secret, which is not shown again:");
            reveal_out(secret);
        }
        Ok(())
    }
}

impl List {
    async fn run(self, app: &App) -> Result<(), Error> {
        let list = async |operator: &Operator| Ok(operator.server().clients().registered().await?);
        let clients = Operator::run(app, &self.public_url, list).await?;
        let rows: Vec<_> = clients.iter().map(|(client, added_at)| Row::new(client, *added_at)).collect();
        let printer = &app.printer;
        if self.json {
            printer.print_json(&serde_json::json!({ "clients": rows }));
        } else if rows.is_empty() {
            let at = self.public_url.required()?;
            printer.print_out(format_args!("No client was added at {at}. Most apps register themselves."));
        } else {
            let head = ["CLIENT ID", "NAME", "ADDED", "REDIRECT URIS"].map(ToOwned::to_owned);
            printer.print_table(std::iter::once(head).chain(rows.iter().map(|row| row.cells(printer))));
        }
        Ok(())
    }
}

impl Revoke {
    async fn run(self, app: &App) -> Result<(), Error> {
        if !self.yes {
            prompt::refuse_without_answer()?;
        }
        Operator::run(app, &self.public_url, async |operator| self.revoke(app, operator).await).await
    }

    async fn revoke(&self, app: &App, operator: &Operator) -> Result<(), Error> {
        operator.check_upstream().await?;
        let server = operator.server();
        let clients = server.clients().registered().await?;
        let client = clients.iter().map(|(client, _)| client).find(|client| client.id == self.id);
        let granted = async || -> Result<Vec<Grant>, Error> {
            let all = server.all_grants().await?;
            Ok(all.into_iter().filter(|grant| grant.client_id == self.id).collect())
        };
        let grants = granted().await?;
        // One that was removed may have grants left, of a command that was interrupted.
        if client.is_none() && grants.is_empty() {
            return Err(Error::Failed(anyhow!(
                "No client {}. List them: `{}`",
                self.id,
                self.public_url.list_command(app, "clients")
            )));
        }
        if !self.yes {
            let name = client.and_then(|client| client.name.as_deref()).unwrap_or_default();
            app.printer.print_err(format_args!(
                "Revoke client `{}` ({})? It has {} connected.",
                app.printer.short(name),
                self.id,
                super::grants::people(&grants),
            ));
            prompt::confirm(&app.printer)?;
        }
        // First, so that nobody can allow a client that was added here anything any more.
        server.clients().remove(&self.id).await?;
        super::grants::revoke(app, operator, &granted().await?).await?;
        let registers_itself = grants.iter().any(|grant| grant.client_kind != ClientKind::Registered);
        let then = if registers_itself { " It was not added here: people can connect it again." } else { "" };
        app.printer.print_out(format_args!("Client {} is revoked.{then}", self.id));
        Ok(())
    }
}
