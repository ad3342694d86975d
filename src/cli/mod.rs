//! The command line: one file a subcommand. Here are the flags they share and what every one of them is made of.
#![allow(
    clippy::doc_markdown,
    reason = "doc comments of arguments are help texts, where backticks would show"
)]

mod audit;
mod demo;
mod http;
mod keys;
mod login;
mod logout;
mod prompt;
mod register;
mod sandbox;
mod sandboxed;
mod serving;
mod status;
mod stdio;
mod stop;

use std::{io::Write as _, path::PathBuf, pin::Pin, process::ExitCode};

use clap::{Parser, Subcommand};
use tracing::level_filters::LevelFilter;

use crate::{
    account::{self, Account},
    bondmcp::{Client, Timing},
    clock::Clock,
    config::{ConfigError, DEFAULT_BASE_URL, Flags, Settings, default_data_dir},
    error::Report,
    redact::Redactor,
    telemetry::{self, LogFormat},
};

/// Plug BondMCP, a health-AI API, into Claude Desktop, Claude Code, Cursor or any other MCP host. You sign in once,
/// here, outside the chat; the agent gets results and never sees a password, a token or an API key.
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
  bondmcp-server demo                  see it at work, offline
  bondmcp-server login                 sign in (the password is asked for, never echoed)
  bondmcp-server stdio                 what a host runs; see mcp.json.example
  bondmcp-server stdio --sandbox       the same against an embedded BondMCP, offline

Environment: BONDMCP_BASE_URL, BONDMCP_API_KEY, BONDMCP_EMAIL and BONDMCP_PASSWORD, BONDMCP_PROFILE,
BONDMCP_DATA_DIR, BONDMCP_LOG, BONDMCP_VAULT, BONDMCP_SEALING_KEY or BONDMCP_SEALING_KEY_FILE,
BONDMCP_HTTP_TOKEN. Flags outrank them. Exit codes: 0 fine, 1 failed, 2 wrong usage.";

#[derive(Debug, clap::Args)]
struct Global {
    /// The local account to use, so that one person can have several [default: default]
    #[arg(long, global = true, value_name = "NAME")]
    profile: Option<String>,
    /// The BondMCP API; https, or http on loopback
    #[arg(long, global = true, value_name = "URL", long_help = base_url_help())]
    base_url: Option<String>,
    /// Where the vault is kept [default: the platform's data directory]
    #[arg(long, global = true, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// What is logged to stderr: off, error, warn, info, debug or trace [default: warn]
    #[arg(long, global = true, value_name = "LEVEL")]
    log: Option<LevelFilter>,
    /// How it is logged
    #[arg(long, global = true, value_enum, default_value_t)]
    log_format: LogFormat,
}

fn base_url_help() -> String {
    format!("The BondMCP API; https, or http on loopback [default: {DEFAULT_BASE_URL}]")
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve MCP over stdin and stdout, for a host on this machine
    Stdio(stdio::Args),
    /// Serve MCP over streamable HTTP
    Http(http::Args),
    /// Sign in to BondMCP
    Login(login::Args),
    /// Create a BondMCP account
    Register(register::Args),
    /// Sign out, and forget the credentials
    Logout(logout::Args),
    /// Tell who is signed in, how and until when
    Status(status::Args),
    /// Tell which tools were called, by whom and how that ended
    Audit(audit::Args),
    /// List, create, rotate, revoke, choose and use API keys
    #[command(subcommand)]
    Keys(keys::Command),
    /// Serve an embedded BondMCP API on loopback
    Sandbox(sandbox::Args),
    /// See everything at work offline, with a real MCP client
    Demo(demo::Args),
}

impl Command {
    /// Whether it does without a data directory, and so without a home.
    fn keeps_nothing(&self) -> bool {
        matches!(self, Self::Sandbox(_) | Self::Demo(_))
    }
}

/// Why a command ends with another code than 0.
#[derive(Debug)]
enum Failed {
    /// Wrong usage or configuration.
    Usage(String),
    /// It did not work out.
    Other(anyhow::Error),
    /// A child ended with this code.
    Child(u8),
}

impl From<account::Error> for Failed {
    fn from(error: account::Error) -> Self {
        Self::Other(Report::from(&error).into())
    }
}

impl From<ConfigError> for Failed {
    fn from(error: ConfigError) -> Self {
        Self::Usage(error.to_string())
    }
}

/// What a command works with.
struct App {
    settings: Settings,
    redactor: Redactor,
    clock: Clock,
}

impl Cli {
    /// Whether the command serves many clients at once. One client's calls wait for the network, not for a processor,
    /// and every further thread costs each host's process memory.
    #[must_use]
    pub fn serves_many(&self) -> bool {
        matches!(self.command, Command::Http(_) | Command::Sandbox(_))
    }

    /// Runs the command and gives the process's exit code.
    pub async fn run(self) -> ExitCode {
        let redactor = Redactor::default();
        match self.start(redactor.clone()).await {
            Ok(()) => ExitCode::SUCCESS,
            Err(Failed::Child(code)) => code.into(),
            Err(Failed::Usage(message)) => complain(&redactor, &message, 2),
            Err(Failed::Other(error)) => complain(&redactor, &error.to_string(), 1),
        }
    }

    async fn start(self, redactor: Redactor) -> Result<(), Failed> {
        telemetry::init(self.global.log_level()?, self.global.log_format, redactor.clone());
        let settings = self.global.settings(self.command.keeps_nothing())?;
        let app = App { settings, redactor, clock: Clock::system() };
        // Boxed, or the type of this one future would hold those of them all.
        let command: Pin<Box<dyn Future<Output = Result<(), Failed>>>> = match self.command {
            Command::Stdio(args) => Box::pin(args.run(app)),
            Command::Http(args) => Box::pin(args.run(app)),
            Command::Login(args) => Box::pin(args.run(app)),
            Command::Register(args) => Box::pin(args.run(app)),
            Command::Logout(args) => Box::pin(args.run(app)),
            Command::Status(args) => Box::pin(args.run(app)),
            Command::Audit(args) => Box::pin(async move { args.run(&app) }),
            Command::Keys(command) => Box::pin(command.run(app)),
            Command::Sandbox(args) => Box::pin(args.run(app)),
            Command::Demo(args) => Box::pin(args.run(app)),
        };
        command.await
    }
}

impl Global {
    fn log_level(&self) -> Result<LevelFilter, Failed> {
        match (self.log, std::env::var("BONDMCP_LOG")) {
            (Some(level), _) => Ok(level),
            (None, Ok(level)) if !level.is_empty() => level.parse().map_err(|_| {
                Failed::Usage("BONDMCP_LOG must be off, error, warn, info, debug or trace".to_owned())
            }),
            _ => Ok(LevelFilter::WARN),
        }
    }

    fn settings(&self, keeps_nothing: bool) -> Result<Settings, ConfigError> {
        let flags = Flags {
            base_url: self.base_url.clone(),
            profile: self.profile.clone(),
            data_dir: self.data_dir.clone().or_else(|| keeps_nothing.then(std::env::temp_dir)),
        };
        Settings::load(flags, default_data_dir(), |name| std::env::var_os(name))
    }
}

impl App {
    fn account(&self) -> Result<Account, Failed> {
        let client = Client::new(
            self.settings.base_url.clone(),
            self.redactor.clone(),
            self.clock.clone(),
            Timing::default(),
        )
        .map_err(|error| Failed::Other(error.into()))?;
        Ok(Account::new(
            &self.settings,
            command_line(&self.settings),
            client,
            self.clock.clone(),
            self.redactor.clone(),
        ))
    }
}

/// Looks into what an earlier process has left unfinished while the server is already answering.
fn reconcile_in_background(account: &Account) {
    let account = account.clone();
    tokio::spawn(async move {
        if let Err(error) = account.reconcile_once_used().await {
            tracing::info!(%error, "unfinished API key changes were not looked into");
        }
    });
}

/// How this program is called for the same account from a terminal.
fn command_line(settings: &Settings) -> String {
    let program = std::env::args_os().next().unwrap_or_else(|| env!("CARGO_PKG_NAME").into());
    let mut words = vec![program.to_string_lossy().into_owned()];
    if settings.profile.as_str() != "default" {
        words.push(format!("--profile {}", settings.profile));
    }
    if settings.base_url.as_str() != DEFAULT_BASE_URL {
        words.push(format!("--base-url {}", settings.base_url));
    }
    if Some(&settings.data_dir) != default_data_dir().as_ref() {
        words.push(format!("--data-dir {}", quoted(&settings.data_dir.to_string_lossy())));
    }
    words.join(" ")
}

/// A word for a POSIX shell.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "/._-+:~\\".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

fn complain(redactor: &Redactor, message: &str, code: u8) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "error: {}", redactor.redact(message));
    code.into()
}

/// A line on stdout. That nobody reads it any more is no error.
fn say(line: impl std::fmt::Display) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

fn say_json(value: &impl serde::Serialize) {
    match serde_json::to_string_pretty(value) {
        Ok(json) => say(json),
        Err(error) => tell(error),
    }
}

/// A line on stderr for the person, in commands whose stdout is not theirs.
fn tell(line: impl std::fmt::Display) {
    let _ = writeln!(std::io::stderr(), "{line}");
}
