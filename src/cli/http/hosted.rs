//! `http --public-url`: a server for many people, each with an account of their own.

use std::{
    io::ErrorKind,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use tokio::net::TcpSocket;
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use super::{listen, workers};
use crate::{
    account::{self, Usd},
    cli::{
        App, Error,
        printer::Printer,
        serving::{Prepared, ServingArgs},
        stop,
    },
    client_address::{TrustedProxies, TrustedProxy},
    config::PublicOrigin,
    hosted::{self, Hosted},
    oauth::{self, AuthorizationServer, Network},
    secret::SecretString,
    sign_in,
    transport::{
        hosted::{Drain, HostedHttp},
        http::Protection,
    },
};

/// The flags of a hosted server.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Options with --public-url")]
pub(super) struct HostedArgs {
    /// The daily budget, in US dollars, that the consent page suggests; each person can change it for each app
    #[arg(long, value_name = "USD", default_value = "5", requires = "public_url")]
    default_daily_spend: Usd,
    /// How long an access token is good for; raise it for hosts that lose access when one expires
    #[arg(long, value_name = "SECONDS", default_value_t = 900, value_parser = clap::value_parser!(u64).range(60..=86_400), requires = "public_url")]
    access_token_lifetime: u64,
    /// After how many days without use an app must be connected again
    #[arg(long, value_name = "DAYS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=365), requires = "public_url")]
    refresh_idle_days: u64,
    /// After how many days an app must be connected again, however often it is used
    #[arg(long, value_name = "DAYS", default_value_t = 180, value_parser = clap::value_parser!(u64).range(1..=3650), requires = "public_url")]
    refresh_absolute_days: u64,
    /// Leave the issuer out of authorization responses, for hosts that fail on it (Codex 0.143 to 0.146)
    #[arg(long, requires = "public_url")]
    no_iss: bool,
    /// On a signal to stop, how long /readyz fails before connections are refused [default: 5; 0 on loopback]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(0..=600), requires = "public_url")]
    drain_delay: Option<u64>,
    /// After --drain-delay, how long requests in flight may take
    #[arg(long, value_name = "SECONDS", default_value_t = 15, value_parser = clap::value_parser!(u64).range(0..=600), requires = "public_url")]
    drain_timeout: u64,
    /// Network of the reverse proxy whose X-Forwarded-For is trusted, such as 10.0.0.0/8; repeatable. Without it, all
    /// requests through a proxy count as one client against the limits
    #[arg(long, value_name = "CIDR", requires = "public_url")]
    trusted_proxy: Vec<TrustedProxy>,
    /// Serve metrics for Prometheus at /metrics on this address, apart from everything else; keep it private
    #[arg(long, value_name = "ADDR", requires = "public_url")]
    metrics_listen: Option<SocketAddr>,
}

/// Refuses what is one account's in a server for many.
pub(super) fn check_environment(app: &App, http_token: Option<&SecretString>) -> Result<(), Error> {
    if app.settings.environment.secrets().next().is_some() {
        return Err(Error::Usage(
            "BONDMCP_EMAIL, BONDMCP_PASSWORD and BONDMCP_API_KEY are one person's, and with --public-url everybody signs in for themselves; unset them"
                .to_owned(),
        ));
    }
    if http_token.is_some() {
        return Err(Error::Usage(
            "BONDMCP_HTTP_TOKEN has no meaning with --public-url, where hosts get tokens of their own; unset it"
                .to_owned(),
        ));
    }
    Ok(())
}

/// Takes the port of the other address that `localhost` stands for, so that no other user of this computer gets what is
/// sent to the origin. Nothing is served there: a browser then tries the address that is.
fn reserve_localhost(origin: &PublicOrigin, address: SocketAddr) -> Result<Option<TcpSocket>, Error> {
    if !origin.is_trial() || !origin.authority().starts_with("localhost") {
        return Ok(None);
    }
    let other: SocketAddr = match address {
        SocketAddr::V4(_) => (Ipv6Addr::LOCALHOST, address.port()).into(),
        SocketAddr::V6(_) => (Ipv4Addr::LOCALHOST, address.port()).into(),
    };
    let socket = if other.is_ipv6() { TcpSocket::new_v6() } else { TcpSocket::new_v4() };
    match socket.and_then(|socket| socket.bind(other).map(|()| socket)) {
        Ok(socket) => Ok(Some(socket)),
        Err(error) if error.kind() == ErrorKind::AddrInUse => Err(Error::Usage(format!(
            "another program listens on {other}, and browsers would send it what is meant for {origin}; stop it, or choose another port"
        ))),
        // This computer has no IPv6.
        Err(_) => Ok(None),
    }
}

/// Refuses to serve a trial to other computers.
fn check_address(origin: &PublicOrigin, address: SocketAddr) -> Result<(), Error> {
    if origin.is_trial() && !address.ip().is_loopback() {
        return Err(Error::Usage(format!(
            "{origin} is for a trial on this computer; leave out --listen, or give an https:// URL"
        )));
    }
    Ok(())
}

/// Returns the pages and grants, which are for the BondMCP that they were first used with.
async fn bound(
    server: AuthorizationServer,
    prepared: &Prepared,
    origin: &PublicOrigin,
    default_daily_spend: Usd,
) -> Result<Hosted, Error> {
    let settings = hosted::Settings {
        origin: origin.clone(),
        default_daily_spend,
        daily_spend: prepared.daily_spend(),
        demo: prepared.sign_in.demo.clone(),
    };
    let hosted = Hosted::new(server, prepared.accounts.clone(), settings);
    // A sandbox has another port each time.
    let rebinds = prepared.sign_in.demo.is_some();
    match hosted.bind(rebinds).await.map_err(account::Error::from)? {
        None => Ok(hosted),
        Some(other) => Err(Error::Usage(format!(
            "what people have connected at {origin} belongs to BondMCP at {other}; correct --base-url, or use another --public-url"
        ))),
    }
}

impl HostedArgs {
    pub async fn run(
        self,
        origin: PublicOrigin,
        address: SocketAddr,
        serving: ServingArgs,
        app: App,
    ) -> Result<(), Error> {
        let mut settings = self.settings(&origin)?;
        check_address(&origin, address)?;
        let (listener, address) = listen(address, "--listen").await?;
        let workers = workers()?;
        let _reserved = reserve_localhost(&origin, address)?;
        let metrics_listener = match self.metrics_listen {
            Some(address) => Some(listen(address, "--metrics-listen").await?),
            None => None,
        };
        let printer = app.printer.clone();
        let (requested_to_stop, stopping) = (CancellationToken::new(), CancellationToken::new());
        stop::on_signal(requested_to_stop.clone());
        let prepared = serving.prepare(app).await?;
        settings.scopes = prepared.scopes()?;
        if settings.scopes.is_empty() {
            return Err(Error::Usage(
                "with --public-url an app is connected for its tools, and none of those selected needs a connection; choose others with --toolsets or --tools".to_owned(),
            ));
        }
        let vault = prepared.accounts.vault().await?;
        let server = AuthorizationServer::open(vault, settings, Network::public(), prepared.clock.clone());
        let server = server.await.map_err(account::Error::from)?;
        let hosted = bound(server.clone(), &prepared, &origin, self.default_daily_spend).await?;
        let sign_in = sign_in::Options {
            public: Some(hosted.sign_in_pages().clone()),
            connections: Some(hosted.connections_page().into()),
            ..prepared.sign_in.clone()
        };
        prepared.say_how_to_operate(&printer, &origin);
        let serving = prepared.start(Some(sign_in), stopping.clone())?;
        let trusted_proxies = TrustedProxies::new(self.trusted_proxy.clone());
        let protection = Protection { trusted_proxies, ..Protection::hosted(server) };
        let http = HostedHttp::new(hosted, requested_to_stop, stopping);
        let router = http.router(&serving.server, protection);
        announce(&printer, &origin, address);
        if !origin.is_trial() && self.trusted_proxy.is_empty() {
            printer.print_err(
                "Without --trusted-proxy, everybody behind the TLS proxy counts as one client against the limits.",
            );
        }
        let _serving_metrics = metrics_listener.map(|(listener, address)| {
            printer.print_err(format_args!("Serving metrics at http://{address}/metrics"));
            let http = http.clone();
            AbortOnDropHandle::new(tokio::spawn(async move { http.serve_metrics(listener).await }))
        });
        http.serve(listener, router, workers.clone(), self.drain(&origin)).await;
        serving.server.close().await;
        Ok(())
    }

    fn settings(&self, origin: &PublicOrigin) -> Result<oauth::Settings, Error> {
        if self.refresh_idle_days > self.refresh_absolute_days {
            return Err(Error::Usage(
                "--refresh-idle-days must not be more than --refresh-absolute-days".to_owned(),
            ));
        }
        let days = |days: u64| Duration::from_hours(24 * days);
        Ok(oauth::Settings {
            access_token_lifetime: Duration::from_secs(self.access_token_lifetime),
            refresh_idle: days(self.refresh_idle_days),
            refresh_absolute: days(self.refresh_absolute_days),
            sends_iss: !self.no_iss,
            ..oauth::Settings::new(origin.clone())
        })
    }

    fn drain(&self, origin: &PublicOrigin) -> Drain {
        // A trial on loopback has no load balancer that must notice.
        let delay = self.drain_delay.unwrap_or(if origin.is_trial() { 0 } else { 5 });
        Drain { delay: Duration::from_secs(delay), timeout: Duration::from_secs(self.drain_timeout) }
    }
}

/// Prints where the server listens and what to add in a host, on stderr.
fn announce(printer: &Printer, origin: &PublicOrigin, address: SocketAddr) {
    printer.print_err(format_args!("Serving MCP at {origin}/mcp, listening on {address}"));
    printer.print_err("Add it to a host; the host opens the page on which you sign in and agree:");
    printer.print_err(format_args!("  claude mcp add --transport http bondmcp {origin}/mcp"));
    if origin.is_trial() {
        printer.print_err("This is a trial: only hosts on this computer can reach it.");
        let port = origin.port();
        if port != address.port() {
            let listen = SocketAddr::new(address.ip(), port);
            printer.print_err(format_args!(
                "Nothing listens on port {port} unless a proxy does: start the server with `--listen {listen}`."
            ));
        }
    } else {
        printer.print_err(format_args!(
            "  claude.ai, ChatGPT and others: add a custom connector with the URL {origin}/mcp"
        ));
    }
}
