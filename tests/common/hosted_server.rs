//! A hosted server in this process, as `http --public-url` runs it: its routes on a loopback listener, the sandbox as
//! BondMCP, and a vault that several replicas can share.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bondmcp_server::{
    account::{Accounts, Usd},
    bondmcp::Timing,
    clock::Clock,
    hosted::{self, Hosted},
    listener::Workers,
    mcp::{BondMcp, Limits, Selection},
    oauth::{self, AuthorizationRequest, AuthorizationServer, Grant, Network, Scopes},
    redact::Redactor,
    sandbox::{Plan, RunningSandbox, SandboxConfig},
    secret::SecretString,
    sign_in::Options,
    transport::{
        hosted::{Drain, HostedHttp},
        http::Protection,
    },
};
use reqwest::{RequestBuilder, Response, redirect::Policy};
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use url::Url;

use super::{
    EMAIL, OTHER_EMAIL, Place, like_the_seed, open, random_password, sandbox, secrets, settings, within,
};

/// A running replica. It stops when this is dropped.
pub struct HostedServer {
    pub sandbox: Arc<RunningSandbox>,
    pub place: Arc<Place>,
    /// The public origin, which all replicas share. The first one listens there.
    pub origin: String,
    /// Where this replica listens.
    pub address: SocketAddr,
    pub server: AuthorizationServer,
    pub accounts: Accounts,
    pub hosted: Hosted,
    pub redactor: Redactor,
    /// Follows no redirects.
    pub http: reqwest::Client,
    pub requested_to_stop: CancellationToken,
    pub serving: JoinHandle<()>,
    pub clock: Clock,
    /// `BONDMCP_VAULT`; SQLite in the place's directory without one.
    vault: Option<String>,
}

/// How a server is set up.
pub struct Setup {
    /// The public origin; where the server listens without one.
    pub origin: Option<String>,
    pub sandbox: SandboxConfig,
    /// `BONDMCP_VAULT`; SQLite in the place's directory without one.
    pub vault: Option<String>,
    pub network: Network,
    pub drain: Drain,
    pub clock: Clock,
    pub selection: Selection,
}

impl Default for Setup {
    fn default() -> Self {
        let drain = Drain { delay: Duration::ZERO, timeout: Duration::from_secs(5) };
        Self {
            origin: None,
            sandbox: like_the_seed(),
            vault: None,
            network: Network::public(),
            drain,
            clock: Clock::system(),
            selection: Selection::default(),
        }
    }
}

impl Drop for HostedServer {
    fn drop(&mut self) {
        self.requested_to_stop.cancel();
        self.serving.abort();
    }
}

impl HostedServer {
    pub async fn start() -> Self {
        Self::start_with(Setup::default()).await
    }

    /// Starts one with a second person, of [`OTHER_EMAIL`]; returns their password.
    pub async fn start_with_two() -> (Self, SecretString) {
        let (server, password) = (Self::start().await, random_password());
        server.sandbox.add_account(OTHER_EMAIL, &password, Plan::Unlimited, true);
        (server, password)
    }

    pub async fn start_with(setup: Setup) -> Self {
        let sandbox = Arc::new(sandbox(setup.sandbox).await);
        let place = Arc::new(Place::new(&sandbox));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let own = format!("http://localhost:{}", listener.local_addr().unwrap().port());
        let origin = setup.origin.unwrap_or(own);
        let Setup { vault, network, drain, clock, selection, .. } = setup;
        Self::run(sandbox, place, origin, listener, vault, network, drain, clock, selection).await
    }

    /// Starts another replica: with the same vault and origin, elsewhere.
    pub async fn replica(&self) -> Self {
        self.replica_at(self.clock.clone()).await
    }

    /// Starts another replica, with a clock of its own.
    pub async fn replica_at(&self, clock: Clock) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (sandbox, place) = (Arc::clone(&self.sandbox), Arc::clone(&self.place));
        let Setup { network, drain, .. } = Setup::default();
        let (origin, vault, selection) = (self.origin.clone(), self.vault.clone(), Selection::default());
        Self::run(sandbox, place, origin, listener, vault, network, drain, clock, selection).await
    }

    /// Returns a replica that is configured with another BondMCP. It serves nothing.
    pub async fn replica_for(&self, base_url: &str) -> Hosted {
        self.beside(base_url, &self.origin).await
    }

    /// Returns another server, with an origin of its own, that shares the vault and the BondMCP. It serves nothing.
    pub async fn neighbour(&self, origin: &str) -> Hosted {
        self.beside(&self.place.base_url, origin).await
    }

    async fn beside(&self, base_url: &str, origin: &str) -> Hosted {
        let clock = self.clock.clone();
        let (accounts, _) = opened(&self.place, base_url, self.vault.as_deref(), &clock);
        let vault = accounts.vault().await.unwrap();
        let origin: bondmcp_server::config::PublicOrigin = origin.parse().unwrap();
        let settings = oauth::Settings::new(origin.clone());
        let server = AuthorizationServer::open(vault, settings, Network::public(), clock).await.unwrap();
        Hosted::new(
            server,
            accounts,
            hosted::Settings { origin, default_daily_spend: Usd::default(), daily_spend: None, demo: None },
        )
    }

    #[allow(clippy::too_many_arguments, reason = "what replicas share and what they do not")]
    async fn run(
        sandbox: Arc<RunningSandbox>,
        place: Arc<Place>,
        origin: String,
        listener: TcpListener,
        vault: Option<String>,
        network: Network,
        drain: Drain,
        clock: Clock,
        selection: Selection,
    ) -> Self {
        let (accounts, redactor) = opened(&place, &place.base_url, vault.as_deref(), &clock);
        let vault_of_accounts = accounts.vault().await.unwrap();
        let public_origin: bondmcp_server::config::PublicOrigin = origin.parse().unwrap();
        let scopes = selection.scopes().unwrap();
        let settings = oauth::Settings { scopes, ..oauth::Settings::new(public_origin.clone()) };
        let server =
            AuthorizationServer::open(vault_of_accounts, settings, network, clock.clone()).await.unwrap();
        let settings = hosted::Settings {
            origin: public_origin,
            default_daily_spend: Usd::from_f64(5.0),
            daily_spend: None,
            demo: None,
        };
        let hosted = Hosted::new(server.clone(), accounts.clone(), settings);
        assert_eq!(hosted.bind(false).await.unwrap(), None);
        let (requested_to_stop, stopping) = (CancellationToken::new(), CancellationToken::new());
        let sign_in = Options {
            public: Some(hosted.sign_in_pages().clone()),
            connections: Some(hosted.connections_page().into()),
            ..Options::default()
        };
        let mcp =
            BondMcp::new(accounts.clone(), Some(sign_in), &selection, Limits::default(), stopping.clone());
        let mcp = mcp.unwrap();
        let http = HostedHttp::new(hosted.clone(), requested_to_stop.clone(), stopping);
        let router = http.router(&mcp, Protection::hosted(server.clone()));
        let address = listener.local_addr().unwrap();
        let serving = tokio::spawn(async move {
            http.serve(listener, router, Workers::current(), drain).await;
            mcp.close().await;
        });
        let client = reqwest::Client::builder().redirect(Policy::none()).build().unwrap();
        Self {
            sandbox,
            place,
            origin,
            address,
            server,
            accounts,
            hosted,
            redactor,
            http: client,
            requested_to_stop,
            serving,
            clock,
            vault,
        }
    }

    /// Returns the address of a path at this replica.
    pub fn at(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Sends a request as a proxy in front passes it on: with the public host.
    pub async fn send(&self, request: RequestBuilder) -> Response {
        let host = self.origin.strip_prefix("http://").unwrap();
        within(request.header("host", host).send()).await.unwrap()
    }

    pub async fn get(&self, path: &str) -> Response {
        self.send(self.http.get(self.at(path))).await
    }

    pub async fn json(&self, path: &str) -> Value {
        let response = self.get(path).await;
        assert_eq!(response.status(), 200, "{path}");
        serde_json::from_str(&within(response.text()).await.unwrap()).unwrap()
    }

    /// Posts a form, as clients do at `/token` and `/revoke`.
    pub async fn post_form(&self, path: &str, form: &[(&str, &str)]) -> (u16, Value) {
        let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
        let request = self
            .http
            .post(self.at(path))
            .header("content-type", "application/x-www-form-urlencoded")
            .body(body);
        status_and_json(self.send(request).await).await
    }

    /// Registers a client (RFC 7591); returns its id.
    pub async fn register(&self, redirect_uris: &[&str]) -> String {
        let body = json!({"client_name": "Test client", "redirect_uris": redirect_uris, "token_endpoint_auth_method": "none"});
        let request = self
            .http
            .post(self.at("/register"))
            .header("content-type", "application/json")
            .body(body.to_string());
        let (status, registered) = status_and_json(self.send(request).await).await;
        assert_eq!(status, 201, "{registered}");
        registered["client_id"].as_str().unwrap().to_owned()
    }

    /// A message to `/mcp` with an access token.
    pub fn mcp(&self, token: &str, message: &Value) -> RequestBuilder {
        self.http
            .post(self.at("/mcp"))
            .bearer_auth(token)
            .header("accept", "application/json, text/event-stream")
            .header("content-type", "application/json")
            .body(message.to_string())
    }

    /// A request of 2026-07-28.
    pub fn modern(&self, token: &str, method: &str, name: Option<&str>, params: Value) -> RequestBuilder {
        let message = super::raw::modern(1, method, params);
        let request = self
            .mcp(token, &message)
            .header("mcp-protocol-version", "2026-07-28")
            .header("mcp-method", method);
        match name {
            Some(name) => request.header("mcp-name", name),
            None => request,
        }
    }

    /// Makes a call with an access token; returns the structured result.
    pub async fn call(&self, token: &str, tool: &str, arguments: Value) -> Value {
        let params = json!({"name": tool, "arguments": arguments});
        let response = self.send(self.modern(token, "tools/call", Some(tool), params)).await;
        let (status, mut answer) = status_and_json(response).await;
        assert_eq!(status, 200, "{answer}");
        answer["result"]["structuredContent"].take()
    }

    /// Makes a grant without pages, as if the person had agreed to it, and signs its account in; returns it and the
    /// address at which the client receives the code.
    pub async fn agree(&self, authorization: &Authorization, scopes: Scopes) -> (Grant, Url) {
        let request = self.server.authorization_request(&authorization.query()).await.unwrap();
        self.agree_to(&request, scopes).await
    }

    pub async fn agree_to(&self, request: &AuthorizationRequest, scopes: Scopes) -> (Grant, Url) {
        let authenticator = self.accounts.authenticator();
        let signed_in = authenticator.with_password(EMAIL, self.place.password.clone()).await.unwrap();
        let subject = self.server.subject(signed_in.user_id().unwrap());
        let grant = self.server.create_grant(&subject, request, scopes).await.unwrap();
        self.accounts.open(&grant.owner()).adopt(signed_in, false).await.unwrap();
        let answer = self.server.authorization_response(request, &grant).await.unwrap();
        (grant, answer)
    }

    /// Gets tokens for a new grant with these scopes, without pages.
    pub async fn tokens(&self, scopes: &str) -> (Grant, Value) {
        let authorization = Authorization::of(self.register(&["http://127.0.0.1/callback"]).await);
        let (grant, answer) = self.agree(&authorization, Scopes::parse(scopes)).await;
        let (status, tokens) = self.redeem(&authorization, &parameter(&answer, "code")).await;
        assert_eq!(status, 200, "{tokens}");
        (grant, tokens)
    }

    /// Redeems a code.
    pub async fn redeem(&self, authorization: &Authorization, code: &str) -> (u16, Value) {
        let Authorization { client_id, redirect_uri, verifier, .. } = authorization;
        self.post_form(
            "/token",
            &[
                ("grant_type", "authorization_code"),
                ("code", code),
                ("client_id", client_id),
                ("redirect_uri", redirect_uri),
                ("code_verifier", verifier),
            ],
        )
        .await
    }
}

/// What a client asks for at `/authorize`.
pub struct Authorization {
    pub client_id: String,
    pub redirect_uri: String,
    pub verifier: String,
    pub state: String,
    pub scope: Option<String>,
}

impl Authorization {
    pub fn of(client_id: String) -> Self {
        let verifier = secrets::text(&bondmcp_server::secret::random()).to_owned();
        let redirect_uri = "http://127.0.0.1:3118/callback".to_owned();
        Self { client_id, redirect_uri, verifier, state: "the-state".to_owned(), scope: None }
    }

    /// Returns the query of the request.
    pub fn query(&self) -> String {
        use base64::Engine as _;
        use sha2::Digest as _;
        let digest = sha2::Sha256::digest(self.verifier.as_bytes());
        let challenge = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(digest);
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        query.extend_pairs([
            ("response_type", "code"),
            ("client_id", &self.client_id),
            ("redirect_uri", &self.redirect_uri),
            ("state", &self.state),
            ("code_challenge", &challenge),
            ("code_challenge_method", "S256"),
        ]);
        if let Some(scope) = &self.scope {
            query.append_pair("scope", scope);
        }
        query.finish()
    }
}

/// Returns a parameter of an address.
pub fn parameter(url: &Url, name: &str) -> String {
    let found = url.query_pairs().find(|(key, _)| key == name);
    found.unwrap_or_else(|| panic!("{name} in {url}")).1.into_owned()
}

pub async fn status_and_json(response: Response) -> (u16, Value) {
    let status = response.status().as_u16();
    let text = within(response.text()).await.unwrap();
    (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
}

fn opened(place: &Place, base_url: &str, vault: Option<&str>, clock: &Clock) -> (Accounts, Redactor) {
    let mut more = vec![("BONDMCP_BASE_URL", base_url)];
    more.extend(vault.map(|url| ("BONDMCP_VAULT", url)));
    open(&settings(place, &more), clock.clone(), Timing::default())
}
