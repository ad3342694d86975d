//! `bondmcp-server grants …`: what people have allowed the apps that they connected.

use std::collections::HashSet;

use anyhow::anyhow;

use super::{
    App, Error,
    operator::{Operator, PublicUrl},
    printer::Printer,
    prompt,
};
use crate::{
    hosted::Released,
    oauth::{EndReason, Grant, GrantId},
};

pub(super) const EXAMPLES: &str = "Examples:
  bondmcp-server grants list
  bondmcp-server grants revoke GRANT_ID
  bondmcp-server grants revoke --owner SUBJECT";

const LIST_EXAMPLES: &str = "Examples:
  bondmcp-server grants list
  bondmcp-server grants list --owner SUBJECT --json
  bondmcp-server grants list --client https://claude.ai/oauth/mcp-oauth-client-metadata";

const REVOKE_EXAMPLES: &str = "Examples:
  bondmcp-server grants revoke GRANT_ID
  bondmcp-server grants revoke --owner SUBJECT
  bondmcp-server grants revoke --client CLIENT_ID --yes";

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// List the grants: who has connected which app, and since when
    ///
    /// The owner of a grant is an opaque id, the same for all grants of one BondMCP user. A grant that has ended is listed
    /// until its API key is revoked at BondMCP.
    #[command(after_help = LIST_EXAMPLES)]
    List(List),
    /// Revoke grants: their apps lose access within 30 seconds, and their API keys are revoked at BondMCP
    ///
    /// A key that BondMCP does not let us revoke now is revoked by a running server, at the latest when its owner signs in
    /// again. It cannot be used through this server any more.
    #[command(after_help = REVOKE_EXAMPLES)]
    Revoke(Revoke),
}

#[derive(Debug, clap::Args)]
pub(super) struct List {
    /// Only those of this owner
    #[arg(long, value_name = "SUBJECT")]
    owner: Option<String>,
    /// Only those of the client with this id
    #[arg(long, value_name = "ID")]
    client: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    public_url: PublicUrl,
}

#[derive(Debug, clap::Args)]
pub(super) struct Revoke {
    /// The grants' ids
    #[arg(
        value_name = "ID",
        required_unless_present_any = ["owner", "client"],
        conflicts_with_all = ["owner", "client"]
    )]
    ids: Vec<String>,
    /// Those of this owner
    #[arg(long, value_name = "SUBJECT")]
    owner: Option<String>,
    /// Those of the client with this id
    #[arg(long, value_name = "ID")]
    client: Option<String>,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    public_url: PublicUrl,
}

impl Command {
    pub async fn run(self, app: App) -> Result<(), Error> {
        match self {
            Self::List(args) => args.run(&app).await,
            Self::Revoke(args) => args.run(&app).await,
        }
    }
}

impl List {
    async fn run(self, app: &App) -> Result<(), Error> {
        let list = async |operator: &Operator| Ok(operator.server().all_grants().await?);
        let mut grants = Operator::run(app, &self.public_url, list).await?;
        retain(&mut grants, self.owner.as_deref(), self.client.as_deref());
        grants.sort_by_key(|grant| grant.created_at);
        let printer = &app.printer;
        if self.json {
            printer.print_json(&serde_json::json!({ "grants": grants }));
        } else if grants.is_empty() {
            let chosen = chosen(self.owner.as_deref(), self.client.as_deref());
            // So that a mistyped URL does not look like an empty list.
            printer.print_out(format_args!("No grants{chosen} at {}.", self.public_url.required()?));
        } else {
            let head = HEAD.map(ToOwned::to_owned);
            printer.print_table(std::iter::once(head).chain(grants.iter().map(|grant| row(printer, grant))));
        }
        Ok(())
    }
}

const HEAD: [&str; 8] = ["ID", "OWNER", "APP", "HOST", "SCOPES", "SINCE (UTC)", "REFERENCE", "STATE"];

fn row(printer: &Printer, grant: &Grant) -> [String; 8] {
    [
        grant.id.to_string(),
        grant.subject.as_str().to_owned(),
        printer.short(grant.client_name.as_deref().unwrap_or("-")),
        printer.short(&grant.redirect_host),
        grant.scopes.to_string().replace(' ', ","),
        grant.created_at.format("%Y-%m-%d %H:%M").to_string(),
        grant.reference.clone(),
        state(grant).to_owned(),
    ]
}

/// Returns whether a grant is active, or why it ended.
pub(super) fn state(grant: &Grant) -> &'static str {
    grant.ended.map_or("active", |(_, reason)| reason.described())
}

/// Keeps the grants of the owner and of the client, where these are given.
fn retain(grants: &mut Vec<Grant>, owner: Option<&str>, client: Option<&str>) {
    grants.retain(|grant| {
        owner.is_none_or(|owner| grant.subject.as_str() == owner)
            && client.is_none_or(|client| grant.client_id == client)
    });
}

/// Says whose grants are meant, for the end of a sentence.
fn chosen(owner: Option<&str>, client: Option<&str>) -> String {
    let owner = owner.map(|owner| format!(" of owner {owner}"));
    let client = client.map(|client| format!(" of client {client}"));
    [owner, client].into_iter().flatten().collect()
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
        let grants = self.chosen(app, operator).await?;
        if grants.is_empty() {
            let chosen = chosen(self.owner.as_deref(), self.client.as_deref());
            let list = self.public_url.list_command(app, "grants");
            return Err(Error::Failed(anyhow!("No grants{chosen}. List all: `{list}`")));
        }
        if !self.yes {
            app.printer.print_err(format_args!("Revoke {}?", people(&grants)));
            prompt::confirm(&app.printer)?;
        }
        revoke(app, operator, &grants).await
    }

    /// Returns the grants that are meant; an error if one of them does not exist.
    async fn chosen(&self, app: &App, operator: &Operator) -> Result<Vec<Grant>, Error> {
        let server = operator.server();
        if self.ids.is_empty() {
            let mut grants = server.all_grants().await?;
            retain(&mut grants, self.owner.as_deref(), self.client.as_deref());
            return Ok(grants);
        }
        let mut grants = Vec::new();
        for id in &self.ids {
            let grant = server.grant(&GrantId::given(id)).await?.ok_or_else(|| {
                let list = self.public_url.list_command(app, "grants");
                Error::Failed(anyhow!("No grant {id}. List them: `{list}`"))
            })?;
            grants.push(grant);
        }
        Ok(grants)
    }
}

/// Describes how many grants of how many people there are.
pub(super) fn people(grants: &[Grant]) -> String {
    let owners = grants.iter().map(|grant| &grant.subject).collect::<HashSet<_>>().len();
    let of = |count: usize, one, many| format!("{count} {}", if count == 1 { one } else { many });
    format!("{} of {}", of(grants.len(), "grant", "grants"), of(owners, "person", "people"))
}

/// Ends the grants and revokes their API keys. All are ended before the first key is revoked, since BondMCP may be slow.
pub(super) async fn revoke(app: &App, operator: &Operator, grants: &[Grant]) -> Result<(), Error> {
    let (server, hosted) = (operator.server(), &operator.hosted);
    let mut ended = Vec::new();
    for grant in grants {
        match server.end_grant(&grant.id, EndReason::Operator).await? {
            Some(grant) => {
                hosted.note_end(&grant).await;
                ended.push(grant);
            }
            // It had ended before, and may have a key that is still to be revoked.
            None => ended.extend(server.grant(&grant.id).await?),
        }
    }
    for grant in &ended {
        // The account is found under the address of BondMCP alone. With another one than the server's, its key would be
        // taken for revoked.
        let is_here = operator.accounts.open(&grant.owner()).own_daily_limit().await?.is_some();
        let released = if is_here { hosted.release(grant).await } else { Released::Not };
        let then = match released {
            Released::Entirely => "",
            Released::UntilSignIn => " Its API key is revoked at BondMCP when its owner signs in again.",
            Released::Not => {
                " Its API key is not revoked at BondMCP yet; a running server does that within the hour."
            }
        };
        app.printer.print_out(format_args!("Grant {} is revoked.{then}", grant.id));
    }
    Ok(())
}
