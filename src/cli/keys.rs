//! `bondmcp-server keys …`: the one place where a person's hand can take a key out, into a child's environment or
//! onto the terminal.

use anyhow::anyhow;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use std::{
    ffi::OsString,
    io::{self, IsTerminal as _},
};

use super::{App, Failed, prompt, say, say_json, tell};
use crate::{
    account::{Account, Key, Unfinished},
    bondmcp::wire::{CreateApiKey, KeyUsage, Permission},
    secret::ExposeSecret as _,
};

/// Variables of ours that a child has no business with.
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
        /// What the key is to be called
        #[arg(long)]
        name: String,
        /// What the key is for
        #[arg(long)]
        description: Option<String>,
        /// What the key may do; repeatable, BondMCP decides when absent
        #[arg(long, value_parser = permission())]
        permission: Vec<Permission>,
    },
    /// Replace a key by a new one, and revoke it once the new one works
    Rotate { id: String },
    /// End a key for every program that uses it
    Revoke { id: String },
    /// Make API calls with a key; without ID with the session again
    Use { id: Option<String> },
    /// Show how much a key was used
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
    /// Show a key on the terminal, after a yes
    Reveal { id: String },
}

fn permission() -> impl TypedValueParser<Value = Permission> {
    PossibleValuesParser::new(["read", "write"]).map(|word| match word.as_str() {
        "write" => Permission::Write,
        _ => Permission::Read,
    })
}

impl Command {
    pub async fn run(self, app: App) -> Result<(), Failed> {
        if let Self::Reveal { .. } = self
            && !(io::stdin().is_terminal() && io::stdout().is_terminal())
        {
            return Err(Failed::Usage(
                "a key is shown on a terminal only; to hand it to a program use `keys run ID -- CMD`"
                    .to_owned(),
            ));
        }
        let account = app.account();
        let outcome = self.with(&account).await;
        account.close().await;
        outcome
    }

    async fn with(self, account: &Account) -> Result<(), Failed> {
        match self {
            Self::List { json } => {
                let list = account.list_keys().await?;
                if json {
                    say_json(&serde_json::json!({ "keys": list.keys, "unfinished": list.unfinished }));
                } else {
                    print_keys(&list.keys, &list.unfinished);
                }
            }
            Self::Create { name, description, permission } => {
                let wanted = CreateApiKey { name, description, permissions: permission };
                let key = account.create_key(wanted).await?;
                say(format!("Created {} ({}); its value is stored in the vault.", key.id, key.name));
                say(format!("Use it: bondmcp-server keys run {} -- CMD", key.id));
            }
            Self::Rotate { id } => {
                let key = account.rotate_key(&id).await?;
                say(format!("{} replaces {id}, which is revoked.", key.id));
            }
            Self::Revoke { id } => {
                account.revoke_key(&id).await?;
                say(format!("{id} is revoked."));
            }
            Self::Use { id } => {
                account.use_key(id.as_deref()).await?;
                match id {
                    Some(id) => say(format!("API calls are made with {id}.")),
                    None => say("API calls are made with the session."),
                }
            }
            Self::Usage { id, json } => {
                let usage = account.key_usage(&id).await?;
                if json {
                    say_json(&usage);
                } else {
                    print_usage(&usage);
                }
            }
            Self::Run { id, command } => return run(account, &id, command).await,
            Self::Reveal { id } => return reveal(account, &id).await,
        }
        Ok(())
    }
}

async fn run(account: &Account, id: &str, command: Vec<OsString>) -> Result<(), Failed> {
    let mut words = command.into_iter();
    let program = words.next().unwrap_or_default();
    let secret = account.key_secret(id).await?;
    let mut child = tokio::process::Command::new(&program);
    for name in NOT_FOR_CHILDREN {
        child.env_remove(name);
    }
    child.args(words).env("BONDMCP_API_KEY", secret.expose_secret());
    let status = child.status().await.map_err(|error| {
        Failed::Other(anyhow!("{} cannot be run: {}.", program.to_string_lossy(), error.kind()))
    })?;
    match status.code() {
        Some(0) => Ok(()),
        Some(code) => Err(Failed::Child(u8::try_from(code).unwrap_or(1))),
        None => Err(Failed::Other(anyhow!("{} was ended by a signal.", program.to_string_lossy()))),
    }
}

async fn reveal(account: &Account, id: &str) -> Result<(), Failed> {
    let secret = account.key_secret(id).await?;
    tell(
        "The key will stand on this screen, for everybody who sees it and perhaps in the terminal's history.",
    );
    if prompt::line("Show it? Type yes: ")? != "yes" {
        return Err(Failed::Other(anyhow!("Not shown.")));
    }
    say(secret.expose_secret());
    Ok(())
}

fn print_keys(keys: &[Key], unfinished: &[Unfinished]) {
    if keys.is_empty() {
        say("No API keys.");
    } else {
        say(format!(
            "{:<36} {:<20} {:<16} {:<8} {:<8} {}",
            "ID", "NAME", "PREVIEW", "ACTIVE", "STORED", "IN USE"
        ));
    }
    let yes = |b: bool| if b { "yes" } else { "no" };
    for key in keys {
        say(format!(
            "{:<36} {:<20} {:<16} {:<8} {:<8} {}",
            key.id,
            key.name,
            key.preview.as_deref().unwrap_or("-"),
            yes(key.is_active),
            yes(key.stored),
            yes(key.in_use)
        ));
    }
    for unfinished in unfinished {
        say(format!("Interrupted: API key `{}`. {}", unfinished.name, unfinished.next));
    }
}

fn print_usage(usage: &KeyUsage) {
    say(format!(
        "requests  {} in all, {} today, {} this month",
        usage.usage_stats.total_requests,
        usage.usage_stats.requests_today,
        usage.usage_stats.requests_this_month
    ));
    if let Some(limit) = &usage.rate_limit {
        say(format!("limit     {} a minute, {} left", limit.limit, limit.remaining));
    }
    for endpoint in &usage.endpoints_used {
        say(format!("{:>8}  {}", endpoint.count, endpoint.endpoint));
    }
}
