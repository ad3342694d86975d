//! What a connection has at BondMCP: an API key with the permissions that it needs, or the session where the plan allows
//! no further key; and what becomes of it when BondMCP no longer accepts that.

use crate::common::{
    EMAIL,
    consent::{Browser, form_token, text},
    hosted_server::{Authorization, HostedServer, Setup, parameter, status_and_json},
    like_the_seed, raw, secrets, within,
};
use bondmcp_server::{
    account::Owner,
    bondmcp::wire::Permission,
    clock::Clock,
    oauth::Grant,
    sandbox::{Fault, Plan, SandboxConfig},
    secret::SecretString,
};
use chrono::TimeDelta;
use reqwest::Response;
use serde_json::{Value, json};

const MODELS: &str = "GET /health-ai/models";

const GRACE: &str = "grace@example.com";

/// BondMCP's sessions last an hour.
const A_SESSION: TimeDelta = TimeDelta::minutes(61);

/// A connection of Ada's.
struct Connection {
    owner: Owner,
    client_id: String,
    tokens: Value,
}

/// Connects an app to Ada's account, over sign-in and consent.
async fn connect(server: &HostedServer, scopes: &str) -> Connection {
    let authorization = Authorization {
        scope: Some(scopes.to_owned()),
        ..Authorization::of(server.register(&["http://127.0.0.1/callback"]).await)
    };
    let before = grants(server).await;
    let answer = Browser::new(&[server]).allow(&authorization).await;
    let grant = grants(server).await.into_iter().find(|grant| !before.contains(grant)).unwrap();
    let (status, tokens) = server.redeem(&authorization, &parameter(&answer, "code")).await;
    assert_eq!(status, 200, "{tokens}");
    Connection { owner: grant.owner(), client_id: authorization.client_id, tokens }
}

/// A server whose clock stands still.
async fn at_a_time() -> HostedServer {
    HostedServer::start_with(Setup { clock: Clock::manual(chrono::Utc::now()), ..Setup::default() }).await
}

/// The same where BondMCP gives refresh tokens.
async fn with_refresh_tokens() -> HostedServer {
    HostedServer::start_with(Setup {
        sandbox: SandboxConfig { refresh_tokens: true, ..like_the_seed() },
        clock: Clock::manual(chrono::Utc::now()),
        ..Setup::default()
    })
    .await
}

async fn grants(server: &HostedServer) -> Vec<Grant> {
    server.server.all_grants().await.unwrap()
}

impl Connection {
    fn access_token(&self) -> &str {
        self.tokens["access_token"].as_str().unwrap_or_else(|| panic!("{}", self.tokens))
    }

    /// Calls a tool as a host that can open links; returns the result.
    async fn call(&self, server: &HostedServer, tool: &str, arguments: Value) -> Value {
        let params = json!({"name": tool, "arguments": arguments});
        let message = raw::modern_as(1, "tools/call", params, json!({"elicitation": {"url": {}}}));
        let request = server
            .mcp(self.access_token(), &message)
            .header("mcp-protocol-version", "2026-07-28")
            .header("mcp-method", "tools/call")
            .header("mcp-name", tool);
        let (status, mut answer) = status_and_json(server.send(request).await).await;
        assert_eq!(status, 200, "{answer}");
        answer["result"].take()
    }

    /// Refreshes the tokens.
    async fn refresh(&mut self, server: &HostedServer) -> (u16, Value) {
        let token = self.tokens["refresh_token"].as_str().unwrap_or_else(|| panic!("{}", self.tokens));
        let form =
            [("grant_type", "refresh_token"), ("refresh_token", token), ("client_id", &self.client_id)];
        let (status, answer) = server.post_form("/token", &form).await;
        if status == 200 {
            self.tokens = answer.clone();
        }
        (status, answer)
    }
}

/// Returns the address at which the person is asked to sign in.
fn sign_in_url(result: &Value) -> &str {
    let params = &result["inputRequests"]["person"]["params"];
    assert_eq!(params["mode"], "url", "{result}");
    params["url"].as_str().unwrap_or_else(|| panic!("{result}"))
}

/// Signs somebody in on the page at `url`; returns the answer.
async fn sign_in(server: &HostedServer, url: &str, email: &str, password: &SecretString) -> (u16, String) {
    let browser = Browser::new(&[server]);
    let token = form_token(&text(browser.get(url).await).await);
    let fields = [("form_token", &*token), ("email", email), ("password", secrets::text(password))];
    let answer = browser.post(&format!("{url}/sign-in"), &fields).await;
    (answer.status().as_u16(), text(answer).await)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_key_of_a_connection_has_the_least_permissions_that_its_scopes_need() {
    let server = HostedServer::start().await;
    for (scopes, permissions) in [
        ("models", &[Permission::Read][..]),
        ("keys", &[Permission::Read]),
        ("models keys", &[Permission::Read]),
        ("models health", &[Permission::Read, Permission::Write]),
        ("models health keys", &[Permission::Read, Permission::Write]),
    ] {
        let connection = connect(&server, scopes).await;
        let keys = within(server.accounts.open(&connection.owner).list_keys()).await.unwrap().keys;
        let key = keys.iter().find(|key| key.in_use).unwrap_or_else(|| panic!("{keys:?}"));
        assert_eq!(key.permissions, permissions, "{scopes}");
    }
}

/// MCP, "URL mode elicitation": whoever completes the page must be who was asked.
#[tokio::test(flavor = "multi_thread")]
async fn without_a_further_key_the_session_is_used_and_its_owner_alone_renews_it() {
    let server = at_a_time().await;
    let graces_password = crate::common::random_password();
    server.sandbox.add_account(GRACE, &graces_password, Plan::Unlimited, true);
    let mut with_a_key = connect(&server, "models keys").await;
    connect(&server, "models").await;
    server.sandbox.set_plan(EMAIL, Plan::Free);
    let mut without = connect(&server, "models keys").await;
    assert_eq!(server.sandbox.live_keys(EMAIL).len(), 2, "the plan allows no third");
    server.sandbox.set_plan(EMAIL, Plan::Unlimited);
    let models = without.call(&server, "list_models", json!({})).await;
    assert_eq!(models["structuredContent"]["count"], 3, "{models}");

    server.clock.advance(A_SESSION);
    server.sandbox.expire_tokens();
    assert_eq!(without.refresh(&server).await.0, 200, "an app stays connected");
    let asked = without.call(&server, "list_models", json!({})).await;
    let url = sign_in_url(&asked);
    let (status, told) = sign_in(&server, url, GRACE, &graces_password).await;
    assert!(status == 422 && told.contains("belongs to another BondMCP user"), "{told}");
    let still = without.call(&server, "list_models", json!({})).await;
    assert_eq!(sign_in_url(&still), url, "the page of the same owner");
    assert_eq!(sign_in(&server, url, EMAIL, &server.place.password).await.0, 200);
    let models = without.call(&server, "list_models", json!({})).await;
    assert_eq!(models["structuredContent"]["count"], 3, "{models}");

    // Managing keys takes a session, also where there is a key.
    let list = json!({"action": "list"});
    let listed = without.call(&server, "manage_api_keys", list.clone()).await;
    assert_eq!(listed["structuredContent"]["keys"].as_array().map(Vec::len), Some(2), "{listed}");
    server.clock.advance(A_SESSION);
    for connection in [&mut without, &mut with_a_key] {
        assert_eq!(connection.refresh(&server).await.0, 200);
    }
    let one = without.call(&server, "manage_api_keys", list.clone()).await;
    let other = with_a_key.call(&server, "manage_api_keys", list).await;
    assert!(sign_in_url(&one).starts_with(&server.origin));
    assert_ne!(sign_in_url(&one), sign_in_url(&other), "each connection has a page of its own");
    let models = with_a_key.call(&server, "list_models", json!({})).await;
    assert_eq!(models["structuredContent"]["count"], 3, "the key works on: {models}");
}

/// Where BondMCP gives refresh tokens, nobody is asked to sign in again: any replica renews the session.
#[tokio::test(flavor = "multi_thread")]
async fn without_a_further_key_a_session_with_a_refresh_token_is_renewed() {
    let server = with_refresh_tokens().await;
    connect(&server, "models").await;
    connect(&server, "models").await;
    server.sandbox.set_plan(EMAIL, Plan::Free);
    let mut without = connect(&server, "models keys").await;
    assert_eq!(server.sandbox.live_keys(EMAIL).len(), 2, "the plan allows no third");
    server.sandbox.set_plan(EMAIL, Plan::Unlimited);
    let replica = server.replica().await;
    for server in [&server, &replica, &server] {
        server.clock.advance(A_SESSION);
        server.sandbox.expire_tokens();
        assert_eq!(without.refresh(server).await.0, 200);
        let models = without.call(server, "list_models", json!({})).await;
        assert_eq!(models["structuredContent"]["count"], 3, "{models}");
        let listed = without.call(server, "manage_api_keys", json!({"action": "list"})).await;
        assert_eq!(listed["structuredContent"]["keys"].as_array().map(Vec::len), Some(2), "{listed}");
    }
    assert_eq!(server.sandbox.count("POST /auth/login"), 3, "one for each connection");
}

/// The key of a connection that ends long after its session is revoked with the refresh token.
#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_token_revokes_the_key_of_a_connection_that_ends_later() {
    let server = with_refresh_tokens().await;
    let mut connection = connect(&server, "models").await;
    assert_eq!(server.sandbox.live_keys(EMAIL).len(), 1);
    server.clock.advance(A_SESSION);
    server.sandbox.expire_tokens();
    assert_eq!(connection.refresh(&server).await.0, 200);
    let token = connection.tokens["refresh_token"].as_str().unwrap();
    let form = [("token", token), ("client_id", &connection.client_id)];
    assert_eq!(server.post_form("/revoke", &form).await.0, 200);
    within(async {
        while !server.sandbox.live_keys(EMAIL).is_empty() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// What a host of 2025-11-25 hears while its call is open: server-sent events.
struct Events {
    response: Response,
    read: String,
}

impl Events {
    /// Returns the next message.
    async fn next(&mut self) -> Value {
        loop {
            while let Some(end) = self.read.find("\n\n") {
                let event: String = self.read.drain(..end + 2).collect();
                let data: String = event.lines().filter_map(|line| line.strip_prefix("data:")).collect();
                // The first event has an id alone.
                if let Ok(message) = serde_json::from_str(&data) {
                    return message;
                }
            }
            let chunk = within(self.response.chunk()).await.unwrap();
            let chunk = chunk.unwrap_or_else(|| panic!("it ended: {}", self.read));
            self.read += std::str::from_utf8(&chunk).unwrap();
        }
    }
}

/// MCP 2025-11-25, "URL mode elicitation": the host is asked in its session, while the call is open; and whoever completes
/// the page must be who was asked.
#[tokio::test(flavor = "multi_thread")]
async fn a_host_of_2025_11_25_is_asked_in_its_session() {
    let server = at_a_time().await;
    let graces_password = crate::common::random_password();
    server.sandbox.add_account(GRACE, &graces_password, Plan::Unlimited, true);
    let mut connection = connect(&server, "models keys").await;
    let initialize = raw::initialize("2025-11-25", json!({"elicitation": {"url": {}}}));
    let opened = server.send(server.mcp(connection.access_token(), &initialize)).await;
    assert_eq!(opened.status(), 200);
    let session = opened.headers()["mcp-session-id"].clone();
    let post = async |connection: &Connection, message: Value| {
        let request = server.mcp(connection.access_token(), &message);
        let request = request.header("mcp-session-id", session.clone());
        server.send(request.header("mcp-protocol-version", "2025-11-25")).await
    };
    let initialized = json!({"jsonrpc": "2.0", "method": "notifications/initialized"});
    assert_eq!(post(&connection, initialized).await.status(), 202);

    server.clock.advance(A_SESSION);
    assert_eq!(connection.refresh(&server).await.0, 200);
    let response = post(&connection, raw::call(2, "manage_api_keys", json!({"action": "list"}))).await;
    assert_eq!(response.status(), 200);
    let mut events = Events { response, read: String::new() };
    let asked = events.next().await;
    assert_eq!((&asked["method"], &asked["params"]["mode"]), (&json!("elicitation/create"), &json!("url")));
    let url = asked["params"]["url"].as_str().unwrap_or_else(|| panic!("{asked}"));
    assert!(url.starts_with(&format!("{}/", server.origin)), "{url}");
    let accepted = json!({"jsonrpc": "2.0", "id": asked["id"], "result": {"action": "accept"}});
    assert_eq!(post(&connection, accepted).await.status(), 202);

    let (status, told) = sign_in(&server, url, GRACE, &graces_password).await;
    assert!(status == 422 && told.contains("belongs to another BondMCP user"), "{told}");
    assert_eq!(sign_in(&server, url, EMAIL, &server.place.password).await.0, 200);
    let answer = within(async {
        loop {
            let message = events.next().await;
            if message["id"] == 2 && message.get("method").is_none() {
                return message;
            }
        }
    })
    .await;
    let keys = &answer["result"]["structuredContent"]["keys"];
    assert_eq!(keys.as_array().map(Vec::len), Some(1), "{answer}");
}

/// The call that learns of it has been sent; the next one asks.
#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_bondmcp_ends_early_is_noticed_by_a_call_and_asked_for_by_the_next() {
    let server = HostedServer::start().await;
    let connection = connect(&server, "models keys").await;
    server.sandbox.expire_tokens();
    let list = json!({"action": "list"});
    let noticed = connection.call(&server, "manage_api_keys", list.clone()).await;
    assert!(noticed["isError"] == true && noticed.to_string().contains("sign_in_required"), "{noticed}");
    let asked = connection.call(&server, "manage_api_keys", list).await;
    assert!(sign_in_url(&asked).starts_with(&server.origin));
}

/// A tool call that BondMCP has just answered shows that it accepts the key; for a minute.
#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_with_a_key_that_was_revoked_at_bondmcp_is_refused_after_a_minute() {
    let server = at_a_time().await;
    let mut connection = connect(&server, "models").await;
    let models = connection.call(&server, "list_models", json!({})).await;
    assert_eq!(models["structuredContent"]["count"], 3, "{models}");
    server.clock.advance(TimeDelta::seconds(61));
    for _ in 0..2 {
        assert_eq!(connection.refresh(&server).await.0, 200);
    }
    assert_eq!(server.sandbox.count(MODELS), 2, "the second refresh does not ask again");

    server.sandbox.revoke_key(&server.sandbox.live_keys(EMAIL)[0].0);
    server.clock.advance(TimeDelta::seconds(61));
    let (status, told) = connection.refresh(&server).await;
    assert_eq!((status, &told["error"]), (400, &json!("invalid_grant")));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_bondmcp_refuses_for_good_ends_the_grant_and_an_outage_does_not() {
    let server = HostedServer::start().await;
    let mut connection = connect(&server, "models").await;
    server.sandbox.faults().always(MODELS, Fault::Status(503));
    let (status, told) = connection.refresh(&server).await;
    assert_eq!((status, &told["error"]), (503, &json!("temporarily_unavailable")));
    server.sandbox.faults().clear();
    server.sandbox.revoke_key(&server.sandbox.live_keys(EMAIL)[0].0);
    let (status, told) = connection.refresh(&server.replica().await).await;
    assert_eq!((status, &told["error"]), (400, &json!("invalid_grant")));
}

/// BondMCP answers 401 to the key of an account that is gone.
#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_for_an_account_that_is_gone_is_refused_and_ends_the_grant() {
    let server = HostedServer::start().await;
    let mut connection = connect(&server, "models").await;
    server.sandbox.faults().always(MODELS, Fault::Status(401));
    let (status, told) = connection.refresh(&server).await;
    assert_eq!((status, &told["error"]), (400, &json!("invalid_grant")));
    assert!(grants(&server).await.iter().all(|grant| grant.ended.is_some()));
    // For good, whatever BondMCP says later.
    server.sandbox.faults().clear();
    let (status, told) = connection.refresh(&server).await;
    assert_eq!((status, &told["error"]), (400, &json!("invalid_grant")));
    let list = raw::modern(1, "tools/list", json!({}));
    assert_eq!(server.send(server.mcp(connection.access_token(), &list)).await.status(), 401);
}
