//! The authorization server as a whole, on two replicas over one vault.

mod access;
mod authorize;
mod codes;
mod documents;
mod grants;
mod refresh;
mod revocation;

use chrono::TimeDelta;
use url::Url;

use super::*;
use crate::{
    config::VaultLocation,
    secret::{ExposeSecret as _, SecretString},
    vault::Keyring,
};

const ORIGIN: &str = "https://bond.example.com";
const REDIRECT_URI: &str = "https://host.example/callback";

/// From RFC 7636, appendix B.
const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";

struct Hosting {
    directory: tempfile::TempDir,
    clock: Clock,
    server: AuthorizationServer,
    /// The id of a public client with one redirect URI.
    client: String,
}

impl Hosting {
    async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let clock = Clock::manual("2026-11-29T10:00:00Z".parse().unwrap());
        let server = open(&directory, &clock, Settings::new(ORIGIN.parse().unwrap())).await;
        let client = register(&server, REDIRECT_URI);
        Self { directory, clock, server, client }
    }

    /// Opens another replica.
    async fn replica(&self) -> AuthorizationServer {
        self.replica_with(|_| {}).await
    }

    async fn replica_with(&self, change: impl FnOnce(&mut Settings)) -> AuthorizationServer {
        let mut settings = Settings::new(ORIGIN.parse().unwrap());
        change(&mut settings);
        open(&self.directory, &self.clock, settings).await
    }

    /// Opens a replica that fetches documents over `network`.
    async fn replica_over(&self, network: Network) -> AuthorizationServer {
        let settings = Settings::new(ORIGIN.parse().unwrap());
        open_with(&self.directory, &self.clock, settings, network).await
    }

    fn wait(&self, time: TimeDelta) {
        self.clock.advance(time);
    }

    /// Returns the query of a sound authorization request, with some parameters in another way; without those that are
    /// empty.
    fn query(&self, others: &[(&str, &str)]) -> String {
        parameters(
            &[
                ("response_type", "code"),
                ("client_id", &self.client),
                ("redirect_uri", REDIRECT_URI),
                ("state", "a state & more"),
                ("code_challenge", CHALLENGE),
                ("code_challenge_method", "S256"),
                ("scope", "models health keys"),
                ("resource", "https://bond.example.com/mcp"),
            ],
            others,
        )
    }

    async fn request(&self, others: &[(&str, &str)]) -> AuthorizationRequest {
        self.server.authorization_request(&self.query(others)).await.unwrap()
    }

    async fn grant(&self) -> (AuthorizationRequest, Grant) {
        let request = self.request(&[]).await;
        let subject = self.server.subject("user");
        let grant = self.server.create_grant(&subject, &request, request.scopes).await.unwrap();
        (request, grant)
    }

    /// Returns a code, with the grant that it is for.
    async fn code(&self) -> (SecretString, Grant) {
        let (request, grant) = self.grant().await;
        let answer = self.server.authorization_response(&request, &grant).await.unwrap();
        (parameter(&answer, "code").unwrap().into(), grant)
    }

    fn redemption(&self, code: &SecretString, others: &[(&str, &str)]) -> String {
        parameters(
            &[
                ("grant_type", "authorization_code"),
                ("client_id", &self.client),
                ("code", code.expose_secret()),
                ("code_verifier", VERIFIER),
                ("redirect_uri", REDIRECT_URI),
                ("resource", "https://bond.example.com/mcp"),
            ],
            others,
        )
    }

    /// Returns tokens, with the grant that they are for.
    async fn tokens(&self) -> (TokenResponse, Grant) {
        let (code, grant) = self.code().await;
        (self.server.ask(&self.redemption(&code, &[])).await.unwrap(), grant)
    }

    fn renewal(&self, token: &SecretString, others: &[(&str, &str)]) -> String {
        parameters(
            &[
                ("grant_type", "refresh_token"),
                ("client_id", &self.client),
                ("refresh_token", token.expose_secret()),
            ],
            others,
        )
    }

    async fn renew(&self, token: &SecretString) -> Result<TokenResponse, OAuthError> {
        self.server.ask(&self.renewal(token, &[])).await
    }
}

impl AuthorizationServer {
    /// Asks `/token` while BondMCP accepts everything.
    async fn ask(&self, form: &str) -> Result<TokenResponse, OAuthError> {
        self.token(None, form.as_bytes(), |_| async { Acceptance::Accepted }).await
    }
}

impl TokenResponse {
    fn refresh(&self) -> &SecretString {
        &self.refresh_token
    }
}

async fn open(directory: &tempfile::TempDir, clock: &Clock, settings: Settings) -> AuthorizationServer {
    open_with(directory, clock, settings, Network::public()).await
}

/// Opens a replica that fetches documents over `network`.
async fn open_with(
    directory: &tempfile::TempDir,
    clock: &Clock,
    settings: Settings,
    network: Network,
) -> AuthorizationServer {
    let location = VaultLocation::Sqlite(directory.path().join("data/vault.db"));
    let vault = Vault::open(&location, Keyring::of(&[1])).await.unwrap();
    AuthorizationServer::open(vault, settings, network, clock.clone()).await.unwrap()
}

/// Registers a public client dynamically; returns its id.
fn register(server: &AuthorizationServer, redirect_uri: &str) -> String {
    let body = serde_json::json!({ "client_name": "A host", "redirect_uris": [redirect_uri] });
    let answer = server.clients().register(body.to_string().as_bytes()).unwrap();
    answer["client_id"].as_str().unwrap().to_owned()
}

/// Encodes parameters; `others` take the place of those with the same names, and empty ones are left out.
fn parameters(usual: &[(&str, &str)], others: &[(&str, &str)]) -> String {
    let is_other = |name: &str| others.iter().any(|(other, _)| *other == name);
    let kept = usual.iter().filter(|(name, _)| !is_other(name)).chain(others);
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    query.extend_pairs(kept.filter(|(_, value)| !value.is_empty()));
    query.finish()
}

fn parameter(url: &Url, name: &str) -> Option<String> {
    url.query_pairs().find(|(other, _)| other == name).map(|(_, value)| value.into_owned())
}
