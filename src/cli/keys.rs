//! `bondmcp-server keys …`: the only commands that release a key's value: to a child process's environment, to the
//! terminal, or into a private file.

mod child;
mod choose;
mod env_file;
mod examples;
mod list;
mod proxy;

use std::{ffi::OsString, path::PathBuf, time::Instant};

use clap::builder::{PossibleValuesParser, TypedValueParser};

use self::{
    choose::{Choice, confirm},
    env_file::EnvFile,
};
pub(super) use self::{examples::KEYS as EXAMPLES, list::print_unfinished};
use super::{
    App, Error,
    printer::{has_terminal, is_interactive, reveal_out},
    progress::requesting,
    prompt,
};
use crate::{
    account::{Account, AgedKey, AuditEntry, Credential, KEYS_COMMAND},
    bondmcp::wire::{CreateApiKey, Permission},
    clock::whole_milliseconds,
};

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// List the account's API keys
    #[command(after_help = examples::LIST)]
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Create a key; its value is stored in the vault and not shown
    #[command(after_help = examples::CREATE)]
    Create {
        /// The name of the key
        #[arg(required_unless_present = "name_flag")]
        name: Option<String>,
        /// The same as NAME
        #[arg(long = "name", value_name = "NAME", hide = true, conflicts_with = "name")]
        name_flag: Option<String>,
        /// What the key is for
        #[arg(long, value_name = "TEXT")]
        description: Option<String>,
        /// What the key may do; repeatable [default: BondMCP's]
        #[arg(long, value_parser = permission())]
        permission: Vec<Permission>,
    },
    /// Replace a key with a new one; the old one is revoked once the new one works (asks first)
    #[command(after_help = examples::ROTATE)]
    Rotate {
        /// Id of the key, or its name if that is unique
        key: String,
        /// Do not ask
        #[arg(long, short)]
        yes: bool,
    },
    /// Revoke a key; programs using it stop working (asks first)
    #[command(after_help = examples::REVOKE)]
    Revoke {
        /// Id of the key, or its name if that is unique
        key: String,
        /// Do not ask
        #[arg(long, short)]
        yes: bool,
    },
    /// Use a key for API calls; omit KEY to go back to the session
    #[command(after_help = examples::USE)]
    Use {
        /// Id of the key, or its name if that is unique
        key: Option<String>,
    },
    /// Show the usage of a key
    #[command(after_help = examples::USAGE)]
    Usage {
        /// Id of the key, or its name if that is unique
        key: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Run a program with the key as BONDMCP_API_KEY in its environment, and nowhere else
    ///
    /// BONDMCP_BASE_URL is set too, and no other BONDMCP_ variable is passed on. The exit code is the program's; 127 if it was not found, 126 if it cannot be run.
    #[command(after_help = examples::RUN)]
    Run {
        /// Id of the key, or its name if that is unique
        key: String,
        /// Keep the key from the program too: it gets a token for a proxy on loopback that adds the key to its requests
        #[arg(long)]
        proxy: bool,
        /// The program and its arguments, after `--`
        #[arg(last = true, required = true, value_name = "CMD")]
        command: Vec<OsString>,
    },
    /// Print a key to the terminal (asks first)
    #[command(after_help = examples::REVEAL)]
    Reveal {
        /// Id of the key, or its name if that is unique
        key: String,
        /// Write the key to stdout, also into a pipe or a file; the question is asked on the terminal
        #[arg(long)]
        stdout: bool,
    },
    /// Write a key as BONDMCP_API_KEY into a file for programs that read one, such as .env
    ///
    /// The key becomes the first line, followed by BONDMCP_BASE_URL if the file sets one or the API is not the default. Other lines stay, and only you can read the file. A file that mentions either variable in any other way, or that git would add to a commit, is refused.
    #[command(after_help = examples::WRITE)]
    Write {
        /// Id of the key, or its name if that is unique
        key: String,
        /// The file; it is created if it does not exist
        #[arg(long, value_name = "FILE")]
        env_file: PathBuf,
    },
}

fn permission() -> impl TypedValueParser<Value = Permission> {
    PossibleValuesParser::new(["read", "write"]).map(|word| match word.as_str() {
        "write" => Permission::Write,
        _ => Permission::Read,
    })
}

impl Command {
    pub async fn run(self, app: App) -> Result<(), Error> {
        self.refuse_what_cannot_be_asked(&app)?;
        let accounts = app.accounts();
        let account = accounts.local();
        let outcome = Keys { app: &app, account: &account }.run(self).await;
        accounts.close().await;
        outcome
    }

    /// Refuses a command that has to ask and cannot, before anything is opened.
    fn refuse_what_cannot_be_asked(&self, app: &App) -> Result<(), Error> {
        let run = |key: &str| {
            format!("to pass it to a program, run: `{} -- CMD`", app.command(&["keys", "run", key]))
        };
        match self {
            Self::Reveal { key, stdout: false } if !is_interactive() => Err(Error::Usage(format!(
                "a key is printed to a terminal only, or into a pipe with --stdout; {}",
                run(key)
            ))),
            Self::Reveal { key, stdout: true } if !has_terminal() => {
                Err(Error::Usage(format!("there is no terminal to ask on; {}", run(key))))
            }
            Self::Rotate { yes: false, .. } | Self::Revoke { yes: false, .. } => {
                prompt::refuse_without_answer()
            }
            _ => Ok(()),
        }
    }
}

/// The keys of an account.
#[derive(Clone, Copy)]
struct Keys<'a> {
    app: &'a App,
    account: &'a Account,
}

impl Keys<'_> {
    async fn run(self, command: Command) -> Result<(), Error> {
        let printer = &self.app.printer;
        match command {
            Command::List { json } => {
                let list = self.requesting(self.account.list_keys()).await?;
                if json {
                    printer
                        .print_json(&serde_json::json!({ "keys": list.keys, "unfinished": list.unfinished }));
                } else {
                    list::print_keys(printer, &list);
                }
                Ok(())
            }
            Command::Create { name, name_flag, description, permission } => {
                let name = name.or(name_flag).unwrap_or_default();
                self.create(CreateApiKey { name, description, permissions: permission }).await
            }
            Command::Rotate { key, yes } => self.rotate(self.any(&key).await?, yes).await,
            Command::Revoke { key, yes } => self.revoke(self.any(&key).await?, yes).await,
            Command::Use { key: Some(key) } => self.use_key(Some(self.stored(&key).await?)).await,
            Command::Use { key: None } => self.use_key(None).await,
            Command::Usage { key, json } => {
                let key = self.any(&key).await?;
                let usage = self.requesting(self.account.key_usage(&key.id)).await;
                let usage = usage.map_err(|error| self.about(&key, error))?;
                if json {
                    printer.print_json(&usage);
                } else {
                    list::print_usage(printer, &usage);
                }
                Ok(())
            }
            Command::Run { key, proxy, command } => {
                child::run(self, self.stored(&key).await?, proxy, command).await
            }
            Command::Reveal { key, stdout } => self.reveal(self.stored(&key).await?, stdout).await,
            Command::Write { key, env_file } => self.write(self.stored(&key).await?, &env_file).await,
        }
    }

    async fn create(self, wanted: CreateApiKey) -> Result<(), Error> {
        let create = async { Ok(self.requesting(self.account.create_key(wanted)).await?) };
        let key = self.audited("create", None, create, |key| Some(&key.id)).await?;
        let printer = &self.app.printer;
        printer.print_out(format_args!(
            "Created {} ({}); its value is stored in the vault.",
            key.id,
            printer.short(&key.name)
        ));
        printer.print_out(format_args!("Use it: {} -- CMD", self.app.command(&["keys", "run", &key.id])));
        Ok(())
    }

    async fn rotate(self, key: Choice, yes: bool) -> Result<(), Error> {
        // Boxed, as the future of a rotation is large.
        let rotate = Box::pin(async {
            if !yes {
                confirm(
                    &self.app.printer,
                    "Rotate",
                    "Programs that hold its value must get the new one.",
                    &key,
                )?;
            }
            let rotated = self.requesting(self.account.rotate_key(&key.id)).await;
            rotated.map_err(|error| self.about(&key, error))
        });
        let new = self.audited("rotate", Some(&key), rotate, |new| Some(&new.id)).await?;
        self.app.printer.print_out(if new.id == key.id {
            format!("{} has a new value; the old one no longer works.", new.id)
        } else {
            format!("{} replaces {}, which is revoked.", new.id, key.id)
        });
        Ok(())
    }

    async fn revoke(self, key: Choice, yes: bool) -> Result<(), Error> {
        let revoke = async {
            if !yes {
                confirm(&self.app.printer, "Revoke", "Programs that use it stop working.", &key)?;
            }
            let revoked = self.requesting(self.account.revoke_key(&key.id)).await;
            revoked.map_err(|error| self.about(&key, error))
        };
        self.audited("revoke", Some(&key), revoke, |()| None).await?;
        self.app.printer.print_out(format_args!("{} is revoked.", key.id));
        if key.in_use {
            self.app.printer.print_out("API calls no longer use an API key.");
        }
        Ok(())
    }

    async fn use_key(self, key: Option<Choice>) -> Result<(), Error> {
        let id = key.as_ref().map(|key| key.id.as_str());
        let select = async { Ok(self.account.use_key(id).await?) };
        self.audited("use", key.as_ref(), select, |()| None).await?;
        let status = self.account.status().await?;
        let printer = &self.app.printer;
        match (status.credential, &status.key_id) {
            (Some(Credential::ApiKey), Some(id)) => printer.print_out(format_args!("API calls use {id}.")),
            (Some(Credential::ApiKey), None) if self.app.settings.environment.api_key.is_some() => {
                let then = id.unwrap_or("the session");
                printer.print_out(format_args!(
                    "API calls use BONDMCP_API_KEY as long as it is set, otherwise {then}."
                ));
            }
            (Some(Credential::ApiKey), None) => printer.print_out(format_args!(
                "API calls use the API key that was entered on the sign-in page. For a session, run: `{}`",
                self.app.command(&["login"])
            )),
            (Some(Credential::Session), _) => printer.print_out("API calls use the session."),
            (None, _) => printer.print_out(format_args!(
                "No API key is selected, and you are not signed in. Run: `{}`",
                self.app.command(&["login"])
            )),
        }
        Ok(())
    }

    async fn reveal(self, key: Choice, to_stdout: bool) -> Result<(), Error> {
        let printer = &self.app.printer;
        let reveal = async {
            let secret = self.account.key_secret(&key.id).await?;
            let question = "Print it? Type \"yes\" to continue: ";
            let answer = if to_stdout {
                let warning = format!("This writes the key {} to stdout.", key.shown(printer));
                printer.ask_on_terminal(&[&warning, question]).map_err(|_| choose::no_terminal())?
            } else {
                printer.print_err("This prints the key on screen and may leave it in your scrollback.");
                prompt::line(printer, question, prompt::NO_TERMINAL)?
            };
            if answer != "yes" {
                return Err(Error::Cancelled);
            }
            reveal_out(&secret);
            Ok(())
        };
        self.audited("reveal", Some(&key), reveal, |()| None).await
    }

    async fn write(self, key: Choice, file: &std::path::Path) -> Result<(), Error> {
        let write = async {
            let file = EnvFile::open(file)?;
            let secret = self.account.key_secret(&key.id).await?;
            file.write(&secret, &self.app.settings.base_url)
        };
        self.audited("write", Some(&key), write, |()| None).await?;
        self.app.printer.print_out(format_args!(
            "{} is in {} as BONDMCP_API_KEY; only you can read that file.",
            key.id,
            file.display()
        ));
        Ok(())
    }

    async fn requesting<T>(self, work: impl Future<Output = T>) -> T {
        requesting(&self.app.printer, self.account.upstream(), work).await
    }

    /// Runs `work` on `key` and records in the audit log that `action` was done. `made` gives the id of a new key.
    async fn audited<T>(
        self,
        action: &str,
        key: Option<&Choice>,
        work: impl Future<Output = Result<T, Error>>,
        made: impl Fn(&T) -> Option<&str>,
    ) -> Result<T, Error> {
        let began = Instant::now();
        let outcome = work.await;
        let made = outcome.as_ref().ok().and_then(made);
        let name = outcome.as_ref().map_or_else(Error::outcome, |_| "ok");
        self.account.audit(AuditEntry {
            action: Some(action.to_owned()),
            duration_ms: whole_milliseconds(began.elapsed()),
            key_id: made.or(key.map(|key| key.id.as_str())).map(ToOwned::to_owned),
            ..AuditEntry::new(self.account.now(), self.account.name(), KEYS_COMMAND, name)
        });
        outcome
    }
}

/// Prints which keys should be rotated.
pub(super) fn print_reminders(app: &App, keys: &[AgedKey]) {
    for key in keys {
        app.printer.print_out(format_args!(
            "API key `{}` is {} days old. Rotate it: `{}`",
            app.printer.short(&key.name),
            key.age_days,
            app.command(&["keys", "rotate", &key.id])
        ));
    }
}
