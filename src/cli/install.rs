//! `bondmcp-server install` and `uninstall`: this server's entry in the files of MCP hosts. A change is shown, asked for
//! and only then written.

use std::path::PathBuf;

use anyhow::anyhow;
use clap::{
    ValueEnum,
    builder::{PossibleValue, PossibleValuesParser, TypedValueParser},
};
use similar::TextDiff;

use super::{App, Error, printer::is_interactive, prompt};
use crate::{
    config::{BaseUrl, DEFAULT_BASE_URL, Profile, default_data_dir},
    hosts::{self, Change, ENTRY_NAME, Environment, HOSTS, Host, Launch, Server, TOKEN_VARIABLE},
    mcp::Toolset,
};

/// A question that shows that everything works, and which needs no health data and costs nothing.
const FIRST_QUESTION: &str = "Which BondMCP models are there?";

/// What a host does not know that is started from somewhere else.
const NOT_PASSED_ON: [&str; 6] = [
    "BONDMCP_API_KEY",
    "BONDMCP_EMAIL",
    "BONDMCP_PASSWORD",
    "BONDMCP_SEALING_KEY",
    "BONDMCP_SEALING_KEY_FILE",
    "BONDMCP_VAULT",
];

const NO_TERMINAL: &str =
    "there is no terminal to ask on; give --yes to make the changes, or --print to see them";

/// Add this server to MCP hosts: shows the change of each host's file, asks, and keeps a copy of the file.
#[derive(Debug, clap::Args)]
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
    /// The server at the URL of --http takes no token
    #[arg(long, requires = "http")]
    no_auth: bool,
    /// Let the host serve only free, read-only tools
    #[arg(long, conflicts_with = "http")]
    read_only: bool,
    /// The sets of tools to serve [default: all]
    #[arg(long, value_name = "LIST", value_delimiter = ',', conflicts_with = "http")]
    toolsets: Vec<Toolset>,
    /// Use the embedded BondMCP with its demo account
    #[arg(long, conflicts_with = "http")]
    sandbox: bool,
}

/// Remove this server from MCP hosts: undoes what `install` did.
#[derive(Debug, clap::Args)]
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

/// How the person agrees to a change.
#[derive(Clone, Copy, Debug, clap::Args)]
struct Consent {
    /// Only show what would be changed
    #[arg(long, conflicts_with = "yes")]
    print: bool,
    /// Make the changes without asking
    #[arg(long, short)]
    yes: bool,
}

fn host() -> impl TypedValueParser<Value = &'static Host> {
    PossibleValuesParser::new(HOSTS.iter().map(|host| host.name))
        .try_map(|name| Host::named(&name).ok_or("no such host"))
}

impl Install {
    pub fn run(self, app: &App) -> Result<(), Error> {
        let environment = environment()?;
        if self.list {
            list(app, &environment);
            return Ok(());
        }
        let server = self.server(app, &environment)?;
        let hosts = if self.all { found(app, &environment) } else { self.hosts };
        self.consent.check()?;
        note_what_is_not_passed_on(app, &server);
        let mut changes = Changes { app, consent: self.consent, written: 0, declined: 0, failed: 0 };
        for host in hosts {
            let planned = hosts::install(host, &environment, &server);
            let already = format!("{}: {} is installed already, as wanted.", host.title, server.name);
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
        Ok(Server { name: entry_name(&app.settings.profile), launch })
    }

    /// Returns the arguments with which a host starts this server for the same account as this command.
    fn arguments(&self, app: &App) -> Result<Vec<String>, Error> {
        let settings = &app.settings;
        let mut arguments = vec!["stdio".to_owned()];
        let mut flag = |name: &str, value: String| arguments.extend([name.to_owned(), value]);
        if settings.profile != Profile::default() {
            flag("--profile", settings.profile.to_string());
        }
        if settings.base_url.as_str() != DEFAULT_BASE_URL {
            flag("--base-url", settings.base_url.to_string());
        }
        if Some(&settings.data_dir) != default_data_dir().as_ref() {
            // A host starts the server in a directory of its own.
            let path = std::path::absolute(&settings.data_dir).map_err(|error| failed(&error))?;
            flag("--data-dir", utf8(path)?);
        }
        if !self.toolsets.is_empty() {
            let names: Vec<_> = self.toolsets.iter().filter_map(ValueEnum::to_possible_value).collect();
            flag("--toolsets", names.iter().map(PossibleValue::get_name).collect::<Vec<_>>().join(","));
        }
        let switches = [(self.read_only, "--read-only"), (self.sandbox, "--sandbox")];
        arguments.extend(switches.into_iter().filter(|(is_set, _)| *is_set).map(|(_, name)| name.to_owned()));
        Ok(arguments)
    }
}

impl Uninstall {
    pub fn run(self, app: &App) -> Result<(), Error> {
        let environment = environment()?;
        self.consent.check()?;
        let name = entry_name(&app.settings.profile);
        let mut changes = Changes { app, consent: self.consent, written: 0, declined: 0, failed: 0 };
        let hosts = if self.all { HOSTS.iter().collect() } else { self.hosts };
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

impl Consent {
    fn check(self) -> Result<(), Error> {
        if self.print || self.yes || is_interactive() {
            return Ok(());
        }
        Err(Error::Usage(NO_TERMINAL.to_owned()))
    }
}

/// The changes of one command, each shown before it is made. A host that fails does not keep others from being changed.
struct Changes<'a> {
    app: &'a App,
    consent: Consent,
    written: usize,
    declined: usize,
    failed: usize,
}

impl Changes<'_> {
    fn is_empty(&self) -> bool {
        self.written + self.declined + self.failed == 0
    }

    /// Shows a planned change and makes it if the person agrees; returns whether it was made. Without one `already`
    /// is printed.
    fn make(
        &mut self,
        planned: Result<Option<Change>, hosts::Error>,
        already: &str,
        question: &str,
    ) -> Result<bool, Error> {
        let printer = &self.app.printer;
        let change = match planned {
            Ok(Some(change)) => change,
            Ok(None) => {
                printer.print_out(already);
                return Ok(false);
            }
            Err(error) => {
                self.failed += 1;
                printer.print_error(error);
                return Ok(false);
            }
        };
        print_diff(self.app, &change);
        if self.consent.print {
            return Ok(false);
        }
        let question = format!("{question} {}? [y/N] ", change.path().display());
        if !self.consent.yes && !is_yes(&prompt::line(printer, &question, NO_TERMINAL)?) {
            self.declined += 1;
            printer.print_out(format_args!("{} is as it was.", change.path().display()));
            return Ok(false);
        }
        match change.write() {
            Ok(backup) => {
                self.written += 1;
                let done = if change.removes_file() { "Removed" } else { "Wrote" };
                printer.print_out(format_args!("{done} {}.", change.path().display()));
                if let Some(backup) = backup {
                    printer.print_out(format_args!("A copy of the file as it was: {}", backup.display()));
                }
                Ok(true)
            }
            Err(error) => {
                self.failed += 1;
                printer.print_error(error);
                Ok(false)
            }
        }
    }

    fn outcome(&self) -> Result<(), Error> {
        match (self.failed, self.written, self.declined) {
            (0, 0, declined) if declined > 0 => Err(Error::Cancelled),
            (0, ..) => Ok(()),
            (1, ..) => Err(Error::Failed(anyhow!("One host was not changed; see above."))),
            (failed, ..) => Err(Error::Failed(anyhow!("{failed} hosts were not changed; see above."))),
        }
    }
}

fn is_yes(answer: &str) -> bool {
    matches!(answer.to_lowercase().as_str(), "y" | "yes")
}

fn print_diff(app: &App, change: &Change) {
    let path = change.path().display().to_string();
    let [before, after] = change.shown();
    let name = |side: &Option<String>| if side.is_some() { path.clone() } else { "/dev/null".to_owned() };
    let (old_name, new_name) = (name(&before), name(&after));
    let (before, after) = (before.unwrap_or_default(), after.unwrap_or_default());
    let diff = TextDiff::from_lines(&before, &after);
    for line in
        diff.unified_diff().header(&old_name, &new_name).missing_newline_hint(false).to_string().lines()
    {
        // A tab would be dropped as a control character.
        app.printer.print_out(line.replace('\t', "    "));
    }
}

fn print_next(app: &App, host: &Host, server: &Server) {
    let printer = &app.printer;
    if matches!(server.launch, Launch::Http { token: true, .. }) {
        if host.passes_token() {
            printer.print_out(format_args!(
                "The entry refers to {TOKEN_VARIABLE}: set it to the server's token in the environment of {}.",
                host.title
            ));
        } else {
            printer.print_out(format_args!(
                "{} takes no token from a variable. Add the header Authorization to the entry yourself.",
                host.title
            ));
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

fn found(app: &App, environment: &Environment) -> Vec<&'static Host> {
    let hosts: Vec<_> = HOSTS.iter().filter(|host| host.is_found(environment)).collect();
    if hosts.is_empty() {
        app.printer.print_out("No host was found. `install --list` shows where they were looked for.");
    }
    hosts
}

fn entry_name(profile: &Profile) -> String {
    if *profile == Profile::default() {
        return ENTRY_NAME.to_owned();
    }
    // Some hosts accept no dot in a server's name.
    format!("{ENTRY_NAME}-{}", profile.as_str().replace('.', "-"))
}

/// Returns the absolute path of this program, since hosts with windows are started with another `PATH` than a shell's.
/// The place in `PATH` comes first: it often is a link that outlives updates, while the program it leads to is replaced
/// by another one.
fn own_path(environment: &Environment) -> Result<String, Error> {
    let program = std::env::current_exe().map_err(|error| failed(&error))?;
    let on_path = environment
        .program(env!("CARGO_PKG_NAME"))
        .filter(|path| path.canonicalize().ok() == program.canonicalize().ok());
    utf8(on_path.unwrap_or(program))
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
