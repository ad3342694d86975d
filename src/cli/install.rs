//! `bondmcp-server install` and `uninstall`: this server's entry in the files of MCP hosts. A change is shown, asked for
//! and only then written.

mod changes;

use std::path::PathBuf;

use anyhow::anyhow;
use clap::{
    ValueEnum,
    builder::{PossibleValue, PossibleValuesParser, TypedValueParser},
};

use self::changes::{Changes, Consent};
use super::{App, Error};
use crate::{
    config::{BaseUrl, DEFAULT_BASE_URL, Profile, default_data_dir},
    hosts::{self, Environment, HOSTS, Host, Launch, Server, TOKEN_VARIABLE, TokenSource},
    mcp::Toolset,
};

/// A question that shows that everything works, and which needs no health data and costs nothing.
const FIRST_QUESTION: &str = "Which BondMCP models are there?";

/// Variables that a host does not inherit if it is started elsewhere.
const NOT_PASSED_ON: [&str; 6] = [
    "BONDMCP_API_KEY",
    "BONDMCP_EMAIL",
    "BONDMCP_PASSWORD",
    "BONDMCP_SEALING_KEY",
    "BONDMCP_SEALING_KEY_FILE",
    "BONDMCP_VAULT",
];

/// Adds this server to MCP hosts: shows the change of each host's file, asks, and keeps a copy of the file.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  bondmcp-server install claude-desktop
  bondmcp-server install --all
  bondmcp-server install cursor --profile work
  bondmcp-server install codex --http http://127.0.0.1:8787/mcp")]
pub(super) struct Install {
    /// The hosts to add the server to
    #[arg(value_name = "HOST", value_parser = host(), required_unless_present_any = ["all", "list"])]
    hosts: Vec<&'static Host>,
    /// Add the server to every host that is found on this computer
    #[arg(long, conflicts_with = "hosts")]
    all: bool,
    /// List the hosts, whether they are found, and whether they have an entry
    #[arg(long, conflicts_with_all = ["hosts", "all", "print", "yes", "http"])]
    list: bool,
    #[command(flatten)]
    consent: Consent,
    /// Add a server that runs already, over streamable HTTP, such as http://127.0.0.1:8787/mcp
    #[arg(long, value_name = "URL")]
    http: Option<String>,
    /// The server at the URL of --http takes no fixed token: it is hosted with --public-url, or runs with --no-auth
    #[arg(long, requires = "http")]
    no_auth: bool,
    #[command(flatten)]
    serving: Serving,
}

/// What the server that the host starts serves.
#[derive(Debug, clap::Args)]
struct Serving {
    /// Serve only free, read-only tools
    #[arg(long, conflicts_with = "http")]
    read_only: bool,
    /// The sets of tools to serve [default: all]
    #[arg(long, value_name = "LIST", value_delimiter = ',', conflicts_with = "http")]
    toolsets: Vec<Toolset>,
    /// Use the embedded BondMCP with its demo account
    #[arg(long, conflicts_with = "http")]
    sandbox: bool,
}

/// Removes this server from MCP hosts: undoes what `install` did.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  bondmcp-server uninstall claude-desktop")]
pub(super) struct Uninstall {
    /// The hosts to remove the server from
    #[arg(value_name = "HOST", value_parser = host(), required_unless_present = "all")]
    hosts: Vec<&'static Host>,
    /// Remove the server from every host
    #[arg(long, conflicts_with = "hosts")]
    all: bool,
    #[command(flatten)]
    consent: Consent,
}

fn host() -> impl TypedValueParser<Value = &'static Host> {
    PossibleValuesParser::new(HOSTS.iter().map(|host| host.name))
        .try_map(|name| Host::named(&name).ok_or("no such host"))
}

impl Install {
    pub fn is_sandboxed(&self) -> bool {
        self.serving.sandbox
    }

    pub fn run(self, app: &App) -> Result<(), Error> {
        let environment = environment()?;
        if self.list {
            list(app, &environment);
            return Ok(());
        }
        let server = self.server(app, &environment)?;
        let hosts = if self.all { found(app, &environment)? } else { self.hosts };
        self.consent.check()?;
        note_what_is_not_passed_on(app, &server);
        let mut changes = Changes::new(app, self.consent, hosts.len());
        for host in hosts {
            let planned = hosts::install(host, &environment, &server);
            let already = format!("{}: {} is already installed; nothing to change.", host.title, server.name);
            if changes.make(planned, &already, "Write this change to")? {
                print_next(app, host, &server);
            }
        }
        if changes.written > 0 {
            let printer = &app.printer;
            printer.print_out("");
            printer.print_out(format_args!("Then ask the assistant: {FIRST_QUESTION}"));
            if matches!(server.launch, Launch::Stdio { .. }) {
                printer
                    .print_out("When it needs your account, it gives you a link to a page on this computer.");
            }
        }
        changes.outcome()
    }

    fn server(&self, app: &App, environment: &Environment) -> Result<Server, Error> {
        let launch = match &self.http {
            Some(url) => {
                let url: BaseUrl = url.parse().map_err(|_| {
                    Error::Usage(
                        "--http takes an https URL, or http on loopback, without user name, password and query"
                            .to_owned(),
                    )
                })?;
                Launch::Http { url: url.to_string(), token: !self.no_auth }
            }
            None => Launch::Stdio { command: own_path(environment)?, arguments: self.arguments(app)? },
        };
        Ok(Server { name: hosts::entry_name(&app.settings.profile), launch })
    }

    /// Returns the arguments with which a host starts this server for the same account as this command.
    fn arguments(&self, app: &App) -> Result<Vec<String>, Error> {
        let settings = &app.settings;
        let mut arguments = vec!["stdio".to_owned()];
        let mut flag = |name: &str, value: String| arguments.extend([name.to_owned(), value]);
        if settings.profile != Profile::default() {
            flag("--profile", settings.profile.to_string());
        }
        // The sandbox takes the place of that of the environment.
        if settings.base_url.as_str() != DEFAULT_BASE_URL && !self.serving.sandbox {
            flag("--base-url", settings.base_url.to_string());
        }
        if Some(&settings.data_dir) != default_data_dir().as_ref() {
            // A host starts the server in a directory of its own.
            let path = std::path::absolute(&settings.data_dir).map_err(|error| failed(&error))?;
            flag("--data-dir", utf8(path)?);
        }
        if !self.serving.toolsets.is_empty() {
            let names: Vec<_> =
                self.serving.toolsets.iter().filter_map(ValueEnum::to_possible_value).collect();
            flag("--toolsets", names.iter().map(PossibleValue::get_name).collect::<Vec<_>>().join(","));
        }
        let switches = [(self.serving.read_only, "--read-only"), (self.serving.sandbox, "--sandbox")];
        arguments.extend(switches.into_iter().filter(|(is_set, _)| *is_set).map(|(_, name)| name.to_owned()));
        Ok(arguments)
    }
}

impl Uninstall {
    pub fn run(self, app: &App) -> Result<(), Error> {
        let environment = environment()?;
        self.consent.check()?;
        let name = hosts::entry_name(&app.settings.profile);
        let hosts: Vec<_> = if self.all { HOSTS.iter().collect() } else { self.hosts };
        let mut changes = Changes::new(app, self.consent, hosts.len());
        for host in hosts {
            let planned = hosts::uninstall(host, &environment, &name);
            if self.all && matches!(planned, Ok(None)) {
                continue;
            }
            let already = format!("{}: {name} is not installed.", host.title);
            if changes.make(planned, &already, "Remove the entry from")? {
                app.printer
                    .print_out(format_args!("Restart {}, so that it stops using the server.", host.title));
            }
        }
        if changes.is_empty() && self.all {
            app.printer.print_out(format_args!("No host has an entry {name}."));
        }
        changes.outcome()
    }
}

fn print_next(app: &App, host: &Host, server: &Server) {
    let printer = &app.printer;
    if matches!(server.launch, Launch::Http { token: true, .. }) {
        let title = host.title;
        match host.token_source() {
            TokenSource::Variable => printer.print_out(format_args!(
                "The entry refers to {TOKEN_VARIABLE}: set it to the server's token in the environment of {title}."
            )),
            TokenSource::Prompt { .. } => printer.print_out(format_args!(
                "{title} asks for the server's token when it starts the server for the first time."
            )),
            TokenSource::Nowhere => printer.print_out(format_args!(
                "{title} takes no token from a variable. Add the header Authorization to the entry yourself."
            )),
        }
    }
    printer.print_out(format_args!("Next: {}", host.next.replace("{name}", &server.name)));
}

fn note_what_is_not_passed_on(app: &App, server: &Server) {
    let is_set = |name: &&str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let names: Vec<_> = NOT_PASSED_ON.into_iter().filter(|name| is_set(name)).collect();
    if !names.is_empty() && matches!(server.launch, Launch::Stdio { .. }) {
        app.printer.print_err(format_args!(
            "note: {} is set here but is not written to any file; a host that is started elsewhere does not have it.",
            names.join(", ")
        ));
    }
}

fn list(app: &App, environment: &Environment) {
    let configured = hosts::configured(environment);
    let head = ["HOST", "NAME", "FOUND", "ENTRIES", "FILE"].map(ToOwned::to_owned);
    let rows = HOSTS.iter().map(|host| {
        let is_broken = configured.errors.iter().any(|(broken, _)| broken.name == host.name);
        let entries: Vec<_> = configured
            .entries
            .iter()
            .filter(|entry| entry.host == host.name)
            .map(|entry| entry.name.as_str())
            .collect();
        let entries = match entries.as_slice() {
            _ if is_broken => "unreadable".to_owned(),
            [] => "-".to_owned(),
            entries => entries.join(", "),
        };
        let found = if host.is_found(environment) { "yes" } else { "no" }.to_owned();
        let file = host.path(environment).display().to_string();
        [host.name.to_owned(), host.title.to_owned(), found, entries, file]
    });
    app.printer.print_table(std::iter::once(head).chain(rows));
    for (_, error) in &configured.errors {
        app.printer.print_error(error);
    }
}

fn found(app: &App, environment: &Environment) -> Result<Vec<&'static Host>, Error> {
    let hosts: Vec<_> = HOSTS.iter().filter(|host| host.is_found(environment)).collect();
    if hosts.is_empty() {
        return Err(Error::Failed(anyhow!(
            "No host was found. Name one, as in `{}`; `{}` shows all.",
            app.command(&["install", "claude-desktop"]),
            app.command(&["install", "--list"])
        )));
    }
    Ok(hosts)
}

/// Returns the absolute path of this program, since desktop hosts are started with another `PATH` than a shell's.
/// The place in `PATH` comes first: it often is a link that outlives updates, while the program it leads to is replaced
/// by another one.
fn own_path(environment: &Environment) -> Result<String, Error> {
    let program = std::env::current_exe().map_err(|error| failed(&error))?;
    let on_path = environment
        .program(env!("CARGO_PKG_NAME"))
        .filter(|path| path.canonicalize().ok() == program.canonicalize().ok());
    let path = on_path.unwrap_or(program);
    hosts::refuse_replaceable(&path).map_err(|error| Error::Failed(error.into()))?;
    utf8(path)
}

fn utf8(path: PathBuf) -> Result<String, Error> {
    path.into_os_string().into_string().map_err(|path| {
        Error::Failed(anyhow!("{} is not UTF-8 and cannot be written into a host's file.", path.display()))
    })
}

fn failed(error: &std::io::Error) -> Error {
    Error::Failed(anyhow!("The path of this program cannot be determined: {}.", error.kind()))
}

fn environment() -> Result<Environment, Error> {
    Environment::current().ok_or_else(|| Error::Usage("there is no home directory; set HOME".to_owned()))
}
