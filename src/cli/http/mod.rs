//! `bondmcp-server http`: MCP for clients that speak HTTP, with one account for all of them or, under a public URL, for
//! everybody's own.

mod hosted;

use anyhow::anyhow;
use std::{env::VarError, net::SocketAddr};

use serde_json::json;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::{
    App, Error,
    operator::PUBLIC_URL,
    printer::{Printer, reveal_err},
    process,
    serving::ServingArgs,
    stop,
};
use crate::{
    config::PublicOrigin,
    listener::Workers,
    secret::{self, ExposeSecret as _, SecretString},
    transport::http::{self, Authentication, Protection},
};

pub(super) const EXAMPLES: &str = "Examples:
  bondmcp-server http
  bondmcp-server http --listen 127.0.0.1:9000 --read-only
  bondmcp-server http --sandbox --no-auth
  bondmcp-server http --sandbox --public-url http://localhost:8787
  bondmcp-server http --public-url https://bond.example.com --default-daily-spend 2
  bondmcp-server http --public-url https://bond.example.com --trusted-proxy 10.0.0.0/8 --metrics-listen 127.0.0.1:9464";

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Where to listen; put a TLS proxy in front of anything but loopback
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8787")]
    listen: SocketAddr,
    /// Host the server for many people under this origin, such as https://bond.example.com; http:// for a trial on
    /// loopback [default: BONDMCP_PUBLIC_URL]
    #[arg(long, value_name = "URL", env = PUBLIC_URL, hide_env = true, conflicts_with_all = ["no_auth", "allow_host", "allow_origin", "sign_in_port", "sign_in_timeout", "open_browser", "max_spend"])]
    public_url: Option<PublicOrigin>,
    /// Accept requests without a token; on loopback only
    #[arg(long)]
    no_auth: bool,
    /// A Host header to accept besides loopback's, such as a proxy's public name; repeatable
    #[arg(long, value_name = "HOST")]
    allow_host: Vec<String>,
    /// A web origin to accept besides the server's own, such as https://inspector.example:443; repeatable
    #[arg(long, value_name = "ORIGIN")]
    allow_origin: Vec<String>,
    #[command(flatten)]
    serving: ServingArgs,
    /// Last, as its heading holds for all flags that follow.
    #[command(flatten)]
    hosted: hosted::HostedArgs,
}

impl Args {
    pub fn is_sandboxed(&self) -> bool {
        self.serving.is_sandboxed()
    }

    /// Whether everybody has an account of their own.
    pub fn is_hosted(&self) -> bool {
        self.public_url.is_some()
    }

    pub async fn run(self, app: App) -> Result<(), Error> {
        let given = token_from_environment()?;
        if let Some(origin) = self.public_url {
            hosted::check_environment(&app, given.as_ref())?;
            return self.hosted.run(origin, self.listen, self.serving, app).await;
        }
        if self.no_auth && given.is_some() {
            return Err(Error::Usage("--no-auth and BONDMCP_HTTP_TOKEN contradict each other".to_owned()));
        }
        if self.no_auth && !self.listen.ip().is_loopback() {
            return Err(Error::Usage(
                "--no-auth is for loopback only; leave it out, or listen on 127.0.0.1".to_owned(),
            ));
        }
        if !self.no_auth && given.is_none() && !self.listen.ip().is_loopback() {
            return Err(Error::Usage(
                "set BONDMCP_HTTP_TOKEN: a generated one is for loopback only, as it is printed and may stay in a log; make one with `openssl rand -hex 32`"
                    .to_owned(),
            ));
        }
        let (listener, address) = listen(self.listen, "--listen").await?;
        let workers = workers()?;
        let token = (!self.no_auth).then(|| given.clone().unwrap_or_else(secret::random));
        app.redactor.hold("HTTP token", &token);
        // Only a person on this machine can open a page on loopback, so a remote server has none.
        let printer = app.printer.clone();
        let stopping = CancellationToken::new();
        stop::on_signal(stopping.clone());
        let prepared = self.serving.prepare(app).await?;
        prepared.say_how_to_sign_in(&printer);
        let sign_in = address.ip().is_loopback().then(|| prepared.sign_in.clone());
        let serving = prepared.start(sign_in, stopping.clone())?;
        announce(&printer, address, token.as_ref().filter(|_| given.is_none()));
        let owner = serving.server.local_owner();
        let authentication = match token {
            Some(token) => Authentication::Tokens(vec![(token, owner)]),
            None => Authentication::Open(owner),
        };
        let protection = Protection {
            allowed_hosts: self.allow_host,
            allowed_origins: self.allow_origin.into_iter().chain(own_origins(address)).collect(),
            ..Protection::new(authentication)
        };
        let router = http::router(&serving.server, protection, &stopping);
        http::serve(listener, router, workers.clone(), stopping).await;
        serving.server.close().await;
        Ok(())
    }
}

/// Starts the threads that serve connections. The caller keeps them until what requests have started is over.
fn workers() -> Result<Workers, Error> {
    process::allow_many_connections();
    Workers::start().map_err(|error| Error::Failed(anyhow!("Threads cannot be started: {error}.")))
}

/// Listens on an address that `flag` names.
async fn listen(address: SocketAddr, flag: &str) -> Result<(TcpListener, SocketAddr), Error> {
    let listener =
        TcpListener::bind(address).await.map_err(|error| Error::listening(address, flag, &error))?;
    let address = listener
        .local_addr()
        .map_err(|error| Error::Failed(anyhow!("The socket has no address: {error}.")))?;
    Ok((listener, address))
}

/// Returns the origins of this server.
fn own_origins(address: SocketAddr) -> impl Iterator<Item = String> {
    let names =
        address.ip().is_loopback().then(|| [address.to_string(), format!("localhost:{}", address.port())]);
    names.into_iter().flatten().map(|name| format!("http://{name}"))
}

fn token_from_environment() -> Result<Option<SecretString>, Error> {
    match std::env::var("BONDMCP_HTTP_TOKEN") {
        Ok(token) if token.is_empty() => Ok(None),
        Ok(token) if token.len() < 16 || !token.bytes().all(|b| b.is_ascii_graphic()) => Err(Error::Usage(
            "BONDMCP_HTTP_TOKEN must have 16 characters or more, without spaces; make one with `openssl rand -hex 32`"
                .to_owned(),
        )),
        Ok(token) => Ok(Some(token.into())),
        Err(VarError::NotPresent) => Ok(None),
        Err(VarError::NotUnicode(_)) => Err(Error::Usage("BONDMCP_HTTP_TOKEN is not valid UTF-8".to_owned())),
    }
}

/// Prints where the server listens and, for a generated token, the configuration to paste into a host: once, and on
/// stderr only.
fn announce(printer: &Printer, address: SocketAddr, generated: Option<&SecretString>) {
    printer.print_err(format_args!("Serving MCP at http://{address}/mcp"));
    if !address.ip().is_loopback() {
        printer.print_err(
            "This address is not loopback and the connection is not encrypted: put a TLS proxy in front.",
        );
    }
    if let Some(token) = generated {
        let host = json!({"mcpServers": {"bondmcp": {
            "type": "http",
            "url": format!("http://{address}/mcp"),
            "headers": {"Authorization": format!("Bearer {}", token.expose_secret())}
        }}});
        printer.print_err(
            "A token was generated for this run (set BONDMCP_HTTP_TOKEN to choose it). For the host's configuration:",
        );
        reveal_err(&format!("{host:#}").into());
    }
}
