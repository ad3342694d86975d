//! Codes, refresh tokens and signing keys on several replicas over one vault, in SQLite and in PostgreSQL.

use crate::common::{postgres, vault};
use bondmcp_server::{
    clock::Clock,
    config::VaultLocation,
    oauth::{Acceptance, AuthorizationServer, EndReason, Network, OAuthError, Settings, TokenResponse},
    secret::{ExposeSecret as _, SecretString},
};
use futures_util::future::join_all;
use serde_json::json;
use url::form_urlencoded::Serializer;

/// From RFC 7636, appendix B.
const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";

/// Several replicas that were started at once.
struct Replicas {
    servers: Vec<AuthorizationServer>,
    client: String,
}

impl Replicas {
    async fn start(location: VaultLocation) -> Self {
        let start = async || {
            let vault = vault(&location, &[1]).await.unwrap();
            let settings = Settings::new("https://bond.example.com".parse().unwrap());
            AuthorizationServer::open(vault, settings, Network::public(), Clock::system()).await.unwrap()
        };
        let servers = join_all([start(), start(), start()]).await;
        let registration = json!({ "redirect_uris": ["https://host.example/callback"] }).to_string();
        let answer = servers[0].clients().register(registration.as_bytes()).unwrap();
        let client = answer["client_id"].as_str().unwrap().to_owned();
        Self { servers, client }
    }

    fn form(&self, parameters: &[(&str, &str)]) -> String {
        let mut form = Serializer::new(String::new());
        form.append_pair("client_id", &self.client).extend_pairs(parameters);
        form.finish()
    }

    /// Returns the request that redeems the code of a new grant.
    async fn redemption(&self) -> String {
        let server = &self.servers[0];
        let query = self.form(&[
            ("response_type", "code"),
            ("code_challenge", CHALLENGE),
            ("code_challenge_method", "S256"),
        ]);
        let request = server.authorization_request(&query).await.unwrap();
        let subject = server.subject("user");
        let grant = server.create_grant(&subject, &request, request.scopes).await.unwrap();
        let answer = server.authorization_response(&request, &grant).await.unwrap();
        let code = answer.query_pairs().find(|(name, _)| name == "code").unwrap().1;
        let parameters =
            [("grant_type", "authorization_code"), ("code", &*code), ("code_verifier", VERIFIER)];
        self.form(&parameters)
    }

    fn renewal(&self, token: &SecretString) -> String {
        self.form(&[("grant_type", "refresh_token"), ("refresh_token", token.expose_secret())])
    }

    /// Sends the request to all replicas at once, four times each.
    async fn ask_all(&self, form: &str) -> Vec<Result<TokenResponse, OAuthError>> {
        join_all(self.servers.iter().cycle().take(12).map(|server| ask(server, form))).await
    }
}

async fn ask(server: &AuthorizationServer, form: &str) -> Result<TokenResponse, OAuthError> {
    server.token(None, form.as_bytes(), |_| async { Acceptance::Accepted }).await
}

fn refresh_token(tokens: &TokenResponse) -> &SecretString {
    &tokens.refresh_token
}

/// Makes a test for each store.
macro_rules! over_both {
    ($($name:ident)*) => {
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                let directory = tempfile::tempdir().unwrap();
                let location = super::VaultLocation::Sqlite(directory.path().join("data/vault.db"));
                super::$name(super::Replicas::start(location).await).await;
            })*
        }

        mod postgresql {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                let Some(database) = super::postgres::database() else { return };
                let location = super::VaultLocation::Postgres(database.url.parse().unwrap());
                super::$name(super::Replicas::start(location).await).await;
            })*
        }
    };
}

over_both! {
    replicas_that_start_at_once_accept_what_each_other_sign
    a_code_that_all_redeem_at_once_is_used_once_and_its_grant_ends
    a_token_that_all_refresh_at_once_has_one_successor
    an_end_counts_for_all
}

async fn replicas_that_start_at_once_accept_what_each_other_sign(replicas: Replicas) {
    for signer in &replicas.servers {
        let tokens = ask(signer, &replicas.redemption().await).await.unwrap();
        for verifier in &replicas.servers {
            verifier.verify(&tokens.access_token).await.unwrap();
        }
    }
    let keys = replicas.servers[0].jwks().await.unwrap();
    assert_eq!(keys["keys"].as_array().unwrap().len(), 1);
}

/// RFC 9700, section 4.5.
async fn a_code_that_all_redeem_at_once_is_used_once_and_its_grant_ends(replicas: Replicas) {
    let answers = replicas.ask_all(&replicas.redemption().await).await;
    assert!(answers.iter().filter(|answer| answer.is_ok()).count() <= 1);
    let errors: Vec<_> = answers.into_iter().filter_map(Result::err).collect();
    assert!(errors.iter().all(|error| error.code == "invalid_grant"), "{errors:?}");
    let ended: Vec<_> = errors.into_iter().filter_map(|error| error.ended).collect();
    assert_eq!(ended.len(), 1, "one request ends the grant");
    let grant = replicas.servers[1].grant(&ended[0]).await.unwrap().unwrap();
    assert_eq!(grant.ended.unwrap().1, EndReason::Replay);
}

async fn a_token_that_all_refresh_at_once_has_one_successor(replicas: Replicas) {
    let first = ask(&replicas.servers[0], &replicas.redemption().await).await.unwrap();
    let answers = replicas.ask_all(&replicas.renewal(refresh_token(&first))).await;
    let answers: Vec<_> = answers.into_iter().map(Result::unwrap).collect();
    for answer in &answers[1..] {
        assert_eq!(refresh_token(answer).expose_secret(), refresh_token(&answers[0]).expose_secret(),);
    }
}

async fn an_end_counts_for_all(replicas: Replicas) {
    let tokens = ask(&replicas.servers[0], &replicas.redemption().await).await.unwrap();
    let ends = replicas.form(&[("token", refresh_token(&tokens).expose_secret())]);
    let ended = join_all(replicas.servers.iter().map(|server| server.revoke(None, ends.as_bytes()))).await;
    assert_eq!(ended.into_iter().filter_map(Result::unwrap).count(), 1, "one request ends the grant");
    for server in &replicas.servers {
        assert!(server.verify(&tokens.access_token).await.is_err());
        let refused = ask(server, &replicas.renewal(refresh_token(&tokens))).await.unwrap_err();
        assert_eq!(refused.code, "invalid_grant");
    }
}
