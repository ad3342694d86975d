//! Hosts as they were recorded: what each looks for, registers or publishes, what it sends to `/authorize`, `/token` and
//! `/mcp`, and when it refreshes. The recordings, with their sources, are in `tests/hosted/recorded_hosts`; here they are replayed to a hosted
//! server. The person's consent is given directly.

use std::{
    net::{IpAddr, Ipv4Addr},
    path::Path,
};

use crate::common::{
    hosted_server::{HostedServer, Setup, parameter, status_and_json},
    publisher::Publisher,
    secrets, within,
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use bondmcp_server::{
    clock::Clock,
    oauth::{ClientKind, Scopes},
    secret,
};
use chrono::TimeDelta;
use futures_util::future::join_all;
use serde_json::{Map, Value, json};
use sha2::Digest as _;

mod requests;

const HOSTS: [&str; 7] = ["claude_ai", "claude_code", "chatgpt", "cursor", "vs_code", "codex", "mcp_remote"];

const ASSERTION: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

fn recorded(host: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/hosted/recorded_hosts/{host}.json"));
    let host: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    assert!(!host["sources"].as_array().unwrap().is_empty(), "where it is from: {host}");
    host
}

fn list(value: &Value) -> &[Value] {
    value.as_array().unwrap_or_else(|| panic!("a list: {value}"))
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_else(|| panic!("{name} in {value}"))
}

/// Clients with so many addresses.
fn networks(addresses: u64) -> Vec<reqwest::Client> {
    let networks = (1..=u8::try_from(addresses).unwrap()).map(|last| {
        let address = IpAddr::V4(Ipv4Addr::new(127, 0, 0, last));
        // Elsewhere loopback has one address only.
        let address = cfg!(target_os = "linux").then_some(address);
        reqwest::Client::builder().local_address(address).build().unwrap()
    });
    networks.collect()
}

/// A hosted server whose clock stands still, and the documents that hosts publish.
struct World {
    server: HostedServer,
    publisher: Publisher,
}

/// A client of a host.
struct Recorded<'a> {
    world: &'a World,
    host: &'a Value,
    id: String,
    signs: bool,
    kind: ClientKind,
}

impl World {
    async fn new() -> Self {
        let publisher = Publisher::start().await;
        let clock = Clock::manual(chrono::Utc::now());
        let setup = Setup { network: publisher.network(), clock, ..Setup::default() };
        Self { server: HostedServer::start_with(setup).await, publisher }
    }

    /// Registers a recorded client, or publishes its document.
    async fn client<'a>(&'a self, host: &'a Value, client: &Value) -> Recorded<'a> {
        if let Some(document) = client.get("document") {
            let signs = document["token_endpoint_auth_method"] == "private_key_jwt";
            let id = self.publisher.publish(document);
            return Recorded { world: self, host, id, signs, kind: ClientKind::Document };
        }
        let server = &self.server;
        let registration = self.filled(&client["registration"]).to_string();
        let request = server.http.post(server.at("/register")).header("content-type", "application/json");
        let (status, registered) = status_and_json(server.send(request.body(registration)).await).await;
        assert_eq!(status, 201, "{registered}");
        let id = text(&registered, "client_id").to_owned();
        Recorded { world: self, host, id, signs: false, kind: ClientKind::Dynamic }
    }

    /// Returns what was recorded with the addresses of this server.
    fn filled(&self, recorded: &Value) -> Value {
        let resource = format!("{}/mcp", self.server.origin);
        serde_json::from_str(&recorded.to_string().replace("{resource}", &resource)).unwrap()
    }
}

impl Recorded<'_> {
    /// Sends a recorded authorization request and gives consent; returns the code's tokens.
    async fn connect(&self, authorization: &Value) -> Value {
        let (server, host) = (&self.world.server, text(self.host, "host"));
        let verifier = secrets::text(&secret::random()).to_owned();
        let challenge = URL_SAFE_NO_PAD.encode(sha2::Sha256::digest(verifier.as_bytes()));
        let mut query = json!({
            "response_type": "code", "client_id": self.id, "state": "the-state",
            "code_challenge": challenge, "code_challenge_method": "S256",
        });
        query.as_object_mut().unwrap().extend(self.world.filled(authorization).as_object().unwrap().clone());
        let query = form(query.as_object().unwrap());
        let response = server.get(&format!("/authorize?{query}")).await;
        assert_eq!(response.status(), 303, "{host}: {query}");
        assert!(response.headers()["location"].to_str().unwrap().starts_with("/authorize/"), "{host}");

        let request = server.server.authorization_request(&query).await.unwrap();
        assert_eq!((request.client.kind, request.scopes), (self.kind, Scopes::all()), "{host}");
        let (_, answer) = server.agree_to(&request, request.scopes).await;
        let redirect_uri = text(authorization, "redirect_uri");
        assert!(answer.as_str().starts_with(redirect_uri), "{host}: {answer}");
        assert_eq!(parameter(&answer, "state"), authorization["state"].as_str().unwrap_or("the-state"));
        assert_eq!(parameter(&answer, "iss"), server.origin);

        let (status, tokens) = self
            .ask(&json!({
                "grant_type": "authorization_code", "code": parameter(&answer, "code"),
                "redirect_uri": redirect_uri, "code_verifier": verifier,
            }))
            .await;
        assert_eq!(status, 200, "{host}: {tokens}");
        assert_eq!(tokens["scope"], "models health keys", "{host}");
        tokens
    }

    /// Sends a request to `/token` with what the host adds.
    async fn ask(&self, parameters: &Value) -> (u16, Value) {
        self.ask_from(&self.world.server.http, parameters).await
    }

    async fn ask_from(&self, http: &reqwest::Client, parameters: &Value) -> (u16, Value) {
        let server = &self.world.server;
        let added = if parameters.get("code").is_some() { "token" } else { "refresh" };
        let mut parameters = parameters.as_object().unwrap().clone();
        parameters.insert("client_id".into(), self.id.clone().into());
        parameters.extend(self.world.filled(&self.host[added]).as_object().unwrap().clone());
        if self.signs {
            let assertion = self.world.publisher.assertion(server, &self.id);
            parameters.insert("client_assertion_type".into(), ASSERTION.into());
            parameters.insert("client_assertion".into(), assertion.into());
        }
        let request =
            http.post(server.at("/token")).header("content-type", "application/x-www-form-urlencoded");
        status_and_json(server.send(request.body(form(&parameters))).await).await
    }

    async fn refresh(&self, token: &str) -> (u16, Value) {
        self.ask(&json!({"grant_type": "refresh_token", "refresh_token": token})).await
    }
}

fn form(parameters: &Map<String, Value>) -> String {
    let parameters = parameters.iter().map(|(name, value)| (name, value.as_str().unwrap()));
    url::form_urlencoded::Serializer::new(String::new()).extend_pairs(parameters).finish()
}

/// What hosts need to find before they come as they were recorded: Claude uses a document only where `none` is listed
/// too, `ChatGPT` signs only where `private_key_jwt` is.
#[tokio::test(flavor = "multi_thread")]
async fn the_metadata_leads_hosts_to_what_was_recorded() {
    let server = HostedServer::start().await;
    let metadata = server.json("/.well-known/oauth-authorization-server").await;
    assert_eq!(metadata["client_id_metadata_document_supported"], true);
    assert_eq!(metadata["authorization_response_iss_parameter_supported"], true);
    for (list_of, expected) in [
        ("token_endpoint_auth_methods_supported", "none"),
        ("token_endpoint_auth_methods_supported", "private_key_jwt"),
        ("token_endpoint_auth_signing_alg_values_supported", "RS256"),
        ("code_challenge_methods_supported", "S256"),
        ("grant_types_supported", "refresh_token"),
    ] {
        assert!(list(&metadata[list_of]).contains(&expected.into()), "{list_of}: {metadata}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_recorded_host_connects_calls_and_refreshes() {
    let world = World::new().await;
    for host in HOSTS.map(recorded) {
        for client in list(&host["clients"]) {
            let recorded = world.client(&host, client).await;
            let authorizations = client.get("authorizations").unwrap_or(&host["authorizations"]);
            for authorization in list(authorizations) {
                let tokens = recorded.connect(authorization).await;
                let models = world.server.call(text(&tokens, "access_token"), "list_models", json!({})).await;
                assert_eq!(models["count"], 3, "{authorization}");

                let (status, refreshed) = recorded.refresh(text(&tokens, "refresh_token")).await;
                assert_eq!(status, 200, "{authorization}: {refreshed}");
                assert_eq!(refreshed["scope"], "models health keys", "inherited: {authorization}");
                let models =
                    world.server.call(text(&refreshed, "access_token"), "list_models", json!({})).await;
                assert_eq!(models["count"], 3, "{authorization}");
            }
        }
    }
}

/// RFC 9700, section 4.14.2, as hosts need it: processes that share a stored token, and one that has slept meanwhile, do
/// not sign the person out.
#[tokio::test(flavor = "multi_thread")]
async fn no_host_is_signed_out_by_how_it_refreshes() {
    let world = World::new().await;
    for host in HOSTS.map(recorded) {
        let recorded = world.client(&host, &host["clients"][0]).await;
        let tokens = recorded.connect(&host["authorizations"][0]).await;
        let first = text(&tokens, "refresh_token");
        let (mut now, mut successors) = (0, Vec::new());
        for refresh in list(&host["refreshes"]) {
            let after = refresh["after_seconds"].as_i64().unwrap();
            world.server.clock.advance(TimeDelta::seconds(after - now));
            now = after;
            let times = 0..refresh["times"].as_u64().unwrap();
            successors.extend(within(join_all(times.map(|_| recorded.refresh(first)))).await);
        }
        for (status, tokens) in &successors {
            assert_eq!(*status, 200, "{}: {tokens}", host["host"]);
            assert_eq!(tokens["refresh_token"], successors[0].1["refresh_token"], "{}", host["host"]);
            let call = world.server.call(text(tokens, "access_token"), "list_models", json!({})).await;
            assert_eq!(call["count"], 3, "{}", host["host"]);
        }
        let (status, next) = recorded.refresh(text(&successors[0].1, "refresh_token")).await;
        assert_eq!(status, 200, "{}: {next}", host["host"]);
    }
}

/// One of Codex's processes has used the successor before the last one comes with the first token.
#[tokio::test(flavor = "multi_thread")]
async fn a_process_of_codex_that_comes_eight_minutes_late_comes_along() {
    let world = World::new().await;
    let host = recorded("codex");
    let codex = world.client(&host, &host["clients"][0]).await;
    let tokens = codex.connect(&host["authorizations"][0]).await;
    let first = text(&tokens, "refresh_token");
    let (_, second) = codex.refresh(first).await;
    let (_, third) = codex.refresh(text(&second, "refresh_token")).await;
    world.server.clock.advance(TimeDelta::seconds(465));
    let (status, late) = codex.refresh(first).await;
    assert_eq!((status, &late["refresh_token"]), (200, &third["refresh_token"]));
    // RFC 9700, section 4.14.2: whoever comes later still has copied it.
    world.server.clock.advance(TimeDelta::minutes(10));
    let (status, replayed) = codex.refresh(first).await;
    assert_eq!((status, &replayed["error"]), (400, &json!("invalid_grant")));
}

/// claude.ai and its proxy hold the same grant, and come from different networks within the same second.
#[tokio::test(flavor = "multi_thread")]
async fn claude_ai_comes_from_two_addresses() {
    let world = World::new().await;
    let (server, host) = (&world.server, recorded("claude_ai"));
    let claude = world.client(&host, &host["clients"][0]).await;
    let tokens = claude.connect(&host["authorizations"][0]).await;
    let networks = networks(host["egress_addresses"].as_u64().unwrap());
    assert_eq!(networks.len(), 2);
    let refresh = json!({"grant_type": "refresh_token", "refresh_token": tokens["refresh_token"]});
    let refreshed = within(join_all(networks.iter().map(|http| claude.ask_from(http, &refresh)))).await;
    for (status, tokens) in &refreshed {
        assert_eq!((*status, &tokens["refresh_token"]), (200, &refreshed[0].1["refresh_token"]), "{tokens}");
    }
    // A session is the grant's, whichever address and token of the grant it is used with.
    let initialize = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
        "protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "Anthropic", "version": "1"}}});
    let post = |http: &reqwest::Client, token: &str, message: &Value| {
        http.post(server.at("/mcp"))
            .bearer_auth(token)
            .header("accept", "application/json, text/event-stream")
            .header("content-type", "application/json")
            .body(message.to_string())
    };
    let opened = server.send(post(&networks[0], text(&tokens, "access_token"), &initialize)).await;
    assert_eq!(opened.status(), 200);
    let session = opened.headers()["mcp-session-id"].clone();
    for (id, (http, (_, tokens))) in (2..).zip(networks.iter().zip(&refreshed)) {
        let ping = json!({"jsonrpc": "2.0", "id": id, "method": "ping"});
        let request =
            post(http, text(tokens, "access_token"), &ping).header("mcp-session-id", session.clone());
        assert_eq!(server.send(request).await.status(), 200);
    }
}

/// RFC 7523, section 3: an assertion that is sent is verified, and its client is authenticated by nobody else's key.
#[tokio::test(flavor = "multi_thread")]
async fn chatgpt_signs_and_nobody_signs_for_it() {
    let world = World::new().await;
    let host = recorded("chatgpt");
    let chatgpt = world.client(&host, &host["clients"][1]).await;
    assert!(chatgpt.signs);
    let tokens = chatgpt.connect(&host["clients"][1]["authorizations"][0]).await;
    let refresh = |more: &[(&str, &str)]| {
        let pairs = [("grant_type", "refresh_token"), ("refresh_token", text(&tokens, "refresh_token"))];
        [&pairs, more]
            .concat()
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect::<Vec<_>>()
    };
    let ask = async |form: &[(String, String)]| {
        let form: Vec<_> = form.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        world.server.post_form("/token", &form).await
    };
    let signed = world.publisher.assertion(&world.server, &chatgpt.id);
    let assertion = refresh(&[("client_assertion_type", ASSERTION), ("client_assertion", &signed)]);
    let (status, refreshed) = ask(&assertion).await;
    assert_eq!(status, 200, "the assertion names the client: {refreshed}");
    let other = Publisher::start().await.assertion(&world.server, &chatgpt.id);
    for (what, form) in [
        ("the same assertion again", assertion),
        ("none", refresh(&[("client_id", &chatgpt.id)])),
        ("another key", refresh(&[("client_assertion_type", ASSERTION), ("client_assertion", &other)])),
        ("a secret", refresh(&[("client_id", &chatgpt.id), ("client_secret", "guessed")])),
    ] {
        let (status, refused) = ask(&form).await;
        assert_eq!((status, &refused["error"]), (401, &json!("invalid_client")), "{what}");
    }
    let (status, again) = chatgpt.refresh(text(&refreshed, "refresh_token")).await;
    assert_eq!(status, 200, "and nothing has ended: {again}");
}

/// `ChatGPT`'s stable document lists `none`, too: without a signature it is as good as any public client.
#[tokio::test(flavor = "multi_thread")]
async fn chatgpt_may_come_without_a_signature_where_its_document_says_so() {
    let world = World::new().await;
    let host = recorded("chatgpt");
    let client = Recorded { signs: false, ..world.client(&host, &host["clients"][0]).await };
    let tokens = client.connect(&host["authorizations"][0]).await;
    assert_eq!(client.refresh(text(&tokens, "refresh_token")).await.0, 200);
}

/// Claude's documents are answered with a challenge for browsers where its network distrusts the server's
/// (anthropics/claude-ai-mcp, issue 650). That is trouble, which passes, and no reason to sign anybody out.
#[tokio::test(flavor = "multi_thread")]
async fn a_document_behind_a_challenge_for_browsers_signs_nobody_out() {
    let world = World::new().await;
    let host = recorded("claude_ai");
    let claude = world.client(&host, &host["clients"][0]).await;
    let tokens = claude.connect(&host["authorizations"][0]).await;
    let path = "/oauth/mcp-oauth-client-metadata";
    world.publisher.answer(path, "403 Forbidden", "text/html", "<title>Just a moment...</title>");
    world.server.clock.advance(TimeDelta::hours(1));
    let (status, tokens) = claude.refresh(text(&tokens, "refresh_token")).await;
    assert_eq!(status, 200, "what was fetched within a day stands in: {tokens}");

    world.server.clock.advance(TimeDelta::hours(24));
    let (status, answer) = claude.refresh(text(&tokens, "refresh_token")).await;
    assert_eq!((status, &answer["error"]), (503, &json!("temporarily_unavailable")));
    let page = world.server.get(&format!("/authorize?response_type=code&client_id={}", claude.id)).await;
    assert!(page.headers().get("location").is_none());
    let html = within(page.text()).await.unwrap();
    assert!(html.starts_with("<!doctype html>") && !html.contains("Just a moment"), "{html}");

    claude.world.publisher.publish(&host["clients"][0]["document"]);
    world.server.clock.advance(TimeDelta::minutes(1));
    let (status, answer) = claude.refresh(text(&tokens, "refresh_token")).await;
    assert_eq!(status, 200, "{answer}");
}

/// mcp-remote asks for the page itself before it opens the browser, to see whether its registration still counts. What it
/// has asked for is nobody's, and takes nothing from the browser.
#[tokio::test(flavor = "multi_thread")]
async fn mcp_remote_looks_at_the_page_before_the_browser_does() {
    let world = World::new().await;
    let host = recorded("mcp_remote");
    let client = world.client(&host, &host["clients"][0]).await;
    let challenge = URL_SAFE_NO_PAD.encode(sha2::Sha256::digest(b"verifier"));
    let mut query = world.filled(&host["authorizations"][0]);
    for (name, value) in [
        ("response_type", "code"),
        ("client_id", &client.id),
        ("code_challenge", &challenge),
        ("code_challenge_method", "S256"),
    ] {
        query[name] = value.into();
    }
    let path = format!("/authorize?{}", form(query.as_object().unwrap()));
    let server = &world.server;
    let looked = server.send(server.http.get(server.at(&path)).header("accept", "application/json")).await;
    let opened = server.get(&path).await;
    assert_eq!((looked.status(), opened.status()), (opened.status(), reqwest::StatusCode::SEE_OTHER));
    assert_ne!(looked.headers()["location"], opened.headers()["location"]);
}
