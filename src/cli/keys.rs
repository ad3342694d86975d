//! `bondmcp-server keys …`: the only commands that release a key's value, to a child process's environment or to the
//! terminal.

use anyhow::anyhow;
use std::{ffi::OsString, io::ErrorKind};

use clap::builder::{PossibleValuesParser, TypedValueParser};

use super::{
    App, Error,
    printer::{Printer, is_interactive, reveal_out},
    prompt, shell_word,
};
use crate::{
    account::{Account, Key, Unfinished},
    bondmcp::wire::{CreateApiKey, KeyUsage, Permission},
    secret::ExposeSecret as _,
};

/// Variables that are not passed to a child process.
const NOT_FOR_CHILDREN: [&str; 5] = [
    "BONDMCP_EMAIL",
    "BONDMCP_PASSWORD",
    "BONDMCP_SEALING_KEY",
    "BONDMCP_SEALING_KEY_FILE",
    "BONDMCP_HTTP_TOKEN",
];

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// List the account's API keys
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Create a key; its value is stored in the vault and not shown
    Create {
        /// The name of the key
        #[arg(long)]
        name: String,
        /// What the key is for
        #[arg(long)]
        description: Option<String>,
        /// What the key may do; repeatable [default: BondMCP's]
        #[arg(long, value_parser = permission())]
        permission: Vec<Permission>,
    },
    /// Replace a key with a new one; the old one is revoked once the new one works
    Rotate { id: String },
    /// Revoke a key; programs using it stop working
    Revoke { id: String },
    /// Use a key for API calls; omit ID to go back to the session
    Use { id: Option<String> },
    /// Show the usage of a key
    Usage {
        id: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Run a program with the key as BONDMCP_API_KEY in its environment, and nowhere else
    Run {
        id: String,
        /// The program and its arguments, after `--`
        #[arg(last = true, required = true, value_name = "CMD")]
        command: Vec<OsString>,
    },
    /// Print a key to the terminal (asks first)
    Reveal { id: String },
}

fn permission() -> impl TypedValueParser<Value = Permission> {
    PossibleValuesParser::new(["read", "write"]).map(|word| match word.as_str() {
        "write" => Permission::Write,
        _ => Permission::Read,
    })
}

impl Command {
    pub async fn run(self, app: App) -> Result<(), Error> {
        if matches!(self, Self::Reveal { .. }) && !is_interactive() {
            return Err(Error::Usage(
                "a key is printed to a terminal only; to pass it to a program use `keys run ID -- CMD`"
                    .to_owned(),
            ));
        }
        let account = app.account();
        let outcome = self.with(&account, &app).await;
        account.close().await;
        outcome
    }

    async fn with(self, account: &Account, app: &App) -> Result<(), Error> {
        let printer = &app.printer;
        match self {
            Self::List { json } => {
                let list = account.list_keys().await?;
                if json {
                    printer
                        .print_json(&serde_json::json!({ "keys": list.keys, "unfinished": list.unfinished }));
                } else {
                    print_keys(printer, &list.keys, &list.unfinished);
                }
            }
            Self::Create { name, description, permission } => {
                let wanted = CreateApiKey { name, description, permissions: permission };
                let key = account.create_key(wanted).await?;
                printer.print_out(format_args!(
                    "Created {} ({}); its value is stored in the vault.",
                    key.id,
                    printer.short(&key.name)
                ));
                let run = format!("{} keys run {} -- CMD", app.command_line(), shell_word(&key.id));
                printer.print_out(format_args!("Use it: {run}"));
            }
            Self::Rotate { id } => {
                let key = account.rotate_key(&id).await.map_err(|error| Error::about_key(&id, error))?;
                printer.print_out(format_args!("{} replaces {id}, which is revoked.", key.id));
            }
            Self::Revoke { id } => {
                account.revoke_key(&id).await.map_err(|error| Error::about_key(&id, error))?;
                printer.print_out(format_args!("{id} is revoked."));
            }
            Self::Use { id } => {
                account.use_key(id.as_deref()).await?;
                match id {
                    Some(id) => printer.print_out(format_args!("API calls use {id}.")),
                    None => printer.print_out("API calls use the session."),
                }
            }
            Self::Usage { id, json } => {
                let usage = account.key_usage(&id).await.map_err(|error| Error::about_key(&id, error))?;
                if json {
                    printer.print_json(&usage);
                } else {
                    print_usage(printer, &usage);
                }
            }
            Self::Run { id, command } => return run(account, &id, command).await,
            Self::Reveal { id } => return reveal(account, printer, &id).await,
        }
        Ok(())
    }
}

async fn run(account: &Account, id: &str, command: Vec<OsString>) -> Result<(), Error> {
    let mut words = command.into_iter();
    let program = words.next().unwrap_or_default();
    let secret = account.key_secret(id).await?;
    let mut child = tokio::process::Command::new(&program);
    for name in NOT_FOR_CHILDREN {
        child.env_remove(name);
    }
    child.args(words).env("BONDMCP_API_KEY", secret.expose_secret());
    let program = program.to_string_lossy();
    let status = child.status().await.map_err(|error| {
        Error::Failed(match error.kind() {
            ErrorKind::NotFound => anyhow!("{program}: command not found"),
            kind => anyhow!("{program}: {kind}"),
        })
    })?;
    match status.code() {
        Some(0) => Ok(()),
        Some(code) => Err(Error::Child(u8::try_from(code).unwrap_or(1))),
        None => Err(Error::Failed(anyhow!("{program} was terminated by a signal."))),
    }
}

async fn reveal(account: &Account, printer: &Printer, id: &str) -> Result<(), Error> {
    let secret = account.key_secret(id).await?;
    printer.print_err("This prints the key on screen and may leave it in your scrollback.");
    if prompt::line(printer, "Print it? Type yes: ")? != "yes" {
        return Err(Error::Cancelled);
    }
    reveal_out(&secret);
    Ok(())
}

fn print_keys(printer: &Printer, keys: &[Key], unfinished: &[Unfinished]) {
    if keys.is_empty() {
        printer.print_out("No API keys.");
    } else {
        let head = ["ID", "NAME", "PREVIEW", "ACTIVE", "STORED", "IN USE"].map(ToOwned::to_owned);
        printer.print_table(std::iter::once(head).chain(keys.iter().map(|key| row(printer, key))));
    }
    print_unfinished(printer, unfinished);
}

/// Prints the changes that were interrupted, with what to do about them.
pub(super) fn print_unfinished(printer: &Printer, unfinished: &[Unfinished]) {
    for Unfinished { name, next, .. } in unfinished {
        printer.print_out(format_args!("Interrupted: API key `{}`. {next}", printer.short(name)));
    }
}

fn row(printer: &Printer, key: &Key) -> [String; 6] {
    let yes = |b: bool| if b { "yes" } else { "no" }.to_owned();
    let preview = key.preview.as_deref().map_or_else(|| "-".to_owned(), |preview| printer.short(preview));
    [key.id.clone(), printer.short(&key.name), preview, yes(key.is_active), yes(key.stored), yes(key.in_use)]
}

fn print_usage(printer: &Printer, usage: &KeyUsage) {
    let stats = &usage.usage_stats;
    let requests = format!(
        "{} in all, {} today, {} this month",
        stats.total_requests, stats.requests_today, stats.requests_this_month
    );
    let limit = usage
        .rate_limit
        .as_ref()
        .map(|limit| format!("{} per minute, {} left", limit.limit, limit.remaining));
    let endpoints =
        usage.endpoints_used.iter().map(|used| [printer.short(&used.endpoint), used.count.to_string()]);
    let totals = [["requests".to_owned(), requests]].into_iter();
    let limit = limit.map(|limit| ["limit".to_owned(), limit]);
    printer.print_table(totals.chain(limit).chain(endpoints));
}
