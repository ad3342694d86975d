//! `bondmcp-server http`: MCP for clients that speak HTTP.

use anyhow::anyhow;
use std::net::SocketAddr;

use serde_json::json;
use tokio::net::TcpListener;

use super::{App, Failed, serving::ServingArgs, tell};
use crate::{
    secret::{self, ExposeSecret as _, SecretString},
    transport::http::{self, Protection},
};

/// Serves MCP over streamable HTTP at /mcp. Every request carries a bearer token: BONDMCP_HTTP_TOKEN, or one that is
/// made now and shown once.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Where to listen; put a TLS proxy in front of anything but loopback
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8787")]
    listen: SocketAddr,
    /// Take requests without a token; on loopback only
    #[arg(long)]
    no_auth: bool,
    /// A value of the Host header to serve besides loopback's, such as a proxy's public name; repeatable
    #[arg(long, value_name = "HOST")]
    allow_host: Vec<String>,
    /// A web origin that may call besides the server's own, such as https://inspector.example:443; repeatable
    #[arg(long, value_name = "ORIGIN")]
    allow_origin: Vec<String>,
    #[command(flatten)]
    serving: ServingArgs,
}

impl Args {
    pub async fn run(self, app: App) -> Result<(), Failed> {
        let given = token_from_environment()?;
        if self.no_auth && given.is_some() {
            return Err(Failed::Usage("--no-auth and BONDMCP_HTTP_TOKEN contradict each other".to_owned()));
        }
        if self.no_auth && !self.listen.ip().is_loopback() {
            return Err(Failed::Usage(
                "--no-auth is for loopback only; leave it out, or listen on 127.0.0.1".to_owned(),
            ));
        }
        let listener = TcpListener::bind(self.listen)
            .await
            .map_err(|error| Failed::Other(anyhow!("{} cannot be listened on: {error}.", self.listen)))?;
        let address = listener
            .local_addr()
            .map_err(|error| Failed::Other(anyhow!("The socket has no address: {error}.")))?;
        let token = (!self.no_auth).then(|| given.clone().unwrap_or_else(secret::random));
        if let Some(token) = &token {
            app.redactor.remember(token);
        }
        // A page on loopback is of use to a person on this machine only.
        let serving = self.serving.start(app, address.ip().is_loopback()).await?;
        announce(address, token.as_ref().filter(|_| given.is_none()));
        let protection = Protection {
            allowed_hosts: self.allow_host,
            allowed_origins: self.allow_origin.into_iter().chain(own_origins(address)).collect(),
            ..Protection::new(token)
        };
        let router = http::router(&serving.server, protection, &serving.stopping);
        http::serve(listener, router, serving.stopping.clone()).await;
        serving.end().await;
        Ok(())
    }
}

/// A page of our own would have one of these; there is none yet, but they are no foreign origins.
fn own_origins(address: SocketAddr) -> impl Iterator<Item = String> {
    let names =
        address.ip().is_loopback().then(|| [address.to_string(), format!("localhost:{}", address.port())]);
    names.into_iter().flatten().map(|name| format!("http://{name}"))
}

fn token_from_environment() -> Result<Option<SecretString>, Failed> {
    match std::env::var("BONDMCP_HTTP_TOKEN") {
        Ok(token) if token.is_empty() => Ok(None),
        Ok(token) if token.len() < 16 || !token.bytes().all(|b| b.is_ascii_graphic()) => Err(Failed::Usage(
            "BONDMCP_HTTP_TOKEN must have 16 characters or more, without spaces; make one with `openssl rand -hex 32`"
                .to_owned(),
        )),
        Ok(token) => Ok(Some(token.into())),
        Err(_) => Ok(None),
    }
}

/// Says where we are and, where the token was made just now, what to paste into a host: this once, on stderr only.
fn announce(address: SocketAddr, made: Option<&SecretString>) {
    tell(format!("Serving MCP at http://{address}/mcp"));
    if !address.ip().is_loopback() {
        tell("This address is not loopback and the connection is not encrypted: put a TLS proxy in front.");
    }
    if let Some(token) = made {
        let host = json!({"mcpServers": {"bondmcp": {
            "type": "http",
            "url": format!("http://{address}/mcp"),
            "headers": {"Authorization": format!("Bearer {}", token.expose_secret())}
        }}});
        tell(
            "A token was made for this run (set BONDMCP_HTTP_TOKEN to choose it). For the host's configuration:",
        );
        tell(format!("{host:#}"));
    }
}
