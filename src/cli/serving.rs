//! The common part of `stdio` and `http`: the flags and the server behind the transport.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{App, Error, printer::Printer, sandboxed};
use crate::{
    account::{Accounts, Usd},
    clock::Clock,
    config::PublicOrigin,
    mcp::{BondMcp, Limits, Selection, Toolset},
    oauth::Scopes,
    sandbox::RunningSandbox,
    sign_in::{LIFETIME, Options},
};

#[derive(Debug, clap::Args)]
pub(super) struct ServingArgs {
    /// The port of the sign-in page, on loopback; 0 takes a free one
    #[arg(long, value_name = "PORT", default_value_t = 0)]
    sign_in_port: u16,
    /// How long a sign-in link stays valid, at most 600
    #[arg(long, value_name = "SECONDS", default_value_t = LIFETIME.as_secs(), value_parser = clap::value_parser!(u64).range(1..=LIFETIME.as_secs()))]
    sign_in_timeout: u64,
    /// Open the sign-in page in the browser when the host cannot show its link
    #[arg(long)]
    open_browser: bool,
    /// Serve only free, read-only tools
    #[arg(long)]
    read_only: bool,
    /// The sets of tools to serve [default: all]
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    toolsets: Vec<Toolset>,
    /// Single tools to serve, in addition to those of --toolsets
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    tools: Vec<String>,
    /// Refuse billed calls beyond this many US dollars, counted from the server's start
    #[arg(long, value_name = "USD", value_parser = usd)]
    max_spend: Option<Usd>,
    /// Refuse billed calls beyond this many US dollars a day (UTC), counted for each account across all its servers; with
    /// --public-url, for each connected app
    #[arg(long, value_name = "USD", value_parser = usd)]
    daily_spend: Option<Usd>,
    #[command(flatten)]
    sandbox: sandboxed::SandboxFlag,
}

/// What is needed for a server.
pub(super) struct Prepared {
    pub accounts: Accounts,
    pub clock: Clock,
    /// Options of the sign-in page.
    pub sign_in: Options,
    selection: Selection,
    limits: Limits,
    sandbox: Option<RunningSandbox>,
    /// Runs this program for the same account.
    command_line: String,
}

/// A running server with its resources.
pub(super) struct Serving {
    pub server: BondMcp,
    _sandbox: Option<RunningSandbox>,
}

impl ServingArgs {
    /// Whether the embedded BondMCP takes the place of the real one.
    pub fn is_sandboxed(&self) -> bool {
        self.sandbox.sandbox
    }

    /// Prepares a server, with the sandbox if it is wanted.
    pub async fn prepare(self, app: App) -> Result<Prepared, Error> {
        let selection = Selection { read_only: self.read_only, toolsets: self.toolsets, tools: self.tools };
        let (app, sandbox) = self.sandbox.apply(app).await?;
        let sign_in = Options {
            port: self.sign_in_port,
            lifetime: Duration::from_secs(self.sign_in_timeout),
            open_browser: self.open_browser,
            demo: sandbox.as_ref().map(sandboxed::demo),
            ..Options::default()
        };
        let limits = Limits { spend: self.max_spend, daily_spend: self.daily_spend, ..Limits::default() };
        let (accounts, command_line) = (app.accounts(), app.command_line());
        accounts.refuse_newer_vault().await?;
        Ok(Prepared { accounts, clock: app.clock, sign_in, selection, limits, sandbox, command_line })
    }
}

impl Prepared {
    /// Returns the scopes that the served tools need.
    pub fn scopes(&self) -> Result<Scopes, Error> {
        self.selection.scopes().map_err(|error| Error::Usage(error.to_string()))
    }

    /// Returns the most that the operator lets an account spend in a day.
    pub fn daily_spend(&self) -> Option<Usd> {
        self.limits.daily_spend
    }

    /// Tells a person how to sign in to the sandbox, if there is one, in a terminal.
    pub fn say_how_to_sign_in(&self, printer: &Printer) {
        if let Some(demo) = &self.sign_in.demo {
            printer.print_err(format_args!("Sign in: {} login {}", self.command_line, demo.email));
        }
    }

    /// Tells the operator how to look at the grants of the sandbox, if there is one: it has a base URL and data of its own.
    pub fn say_how_to_operate(&self, printer: &Printer, origin: &PublicOrigin) {
        if self.sandbox.is_some() {
            let Self { command_line, .. } = self;
            printer
                .print_err(format_args!("See the grants: {command_line} grants list --public-url {origin}"));
        }
    }

    /// Starts the server; with options for sign-in pages if the person can reach one. `stopping` ends its calls.
    pub fn start(self, sign_in: Option<Options>, stopping: CancellationToken) -> Result<Serving, Error> {
        let server = BondMcp::new(self.accounts, sign_in, &self.selection, self.limits, stopping)
            .map_err(|error| Error::Usage(error.to_string()))?;
        Ok(Serving { server, _sandbox: self.sandbox })
    }
}

fn usd(text: &str) -> Result<Usd, String> {
    match text.parse::<f64>() {
        Ok(amount) if (0.0..=1e6).contains(&amount) => Ok(Usd::from_f64(amount)),
        _ => Err("give an amount such as 5 or 0.50".to_owned()),
    }
}
