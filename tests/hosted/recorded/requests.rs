//! What hosts send to `/mcp`: what they look for before anybody has signed in, and connections from the first request to
//! the end.

use reqwest::{Method, RequestBuilder, Response};
use serde_json::{Value, json};

use super::{HOSTS, World, list, networks, recorded, text};
use crate::common::{hosted_server::status_and_json, within};

const SESSION_ID: &str = "mcp-session-id";

/// A request to a path with recorded headers.
fn request(http: &reqwest::Client, method: Method, url: String, headers: &[&Value]) -> RequestBuilder {
    let headers = headers.iter().filter_map(|headers| headers.as_object()).flatten();
    headers.fold(http.request(method, url), |request, (name, value)| {
        request.header(name, value.as_str().unwrap_or_else(|| panic!("{name}: {value}")))
    })
}

fn header<'a>(response: &'a Response, name: &str) -> &'a str {
    response.headers().get(name).map_or("", |value| value.to_str().unwrap())
}

/// Looks for what a host looks for; hosts understand JSON alone, in errors as well.
async fn look(world: &World, host: &str, asked: &Value) {
    let (server, path, finds) = (&world.server, text(asked, "path"), text(asked, "finds"));
    if let Some(endpoint) = finds.strip_suffix("_endpoint") {
        // It is guessed where no document is read.
        let metadata = server.json("/.well-known/oauth-authorization-server").await;
        assert_eq!(metadata[finds], format!("{}{path}", server.origin), "{host}: {endpoint}");
        assert_ne!(server.get(path).await.status(), 404, "{host}: {path}");
        return;
    }
    let method = text(asked, "method").parse().unwrap();
    let request = request(&server.http, method, server.at(path), &[&asked["headers"]]);
    let request = match asked.get("message") {
        Some(message) => request.body(message.to_string()),
        None => request,
    };
    let response = server.send(request).await;
    assert_eq!(header(&response, "content-type"), "application/json", "{host}: {asked}");
    let challenge = header(&response, "www-authenticate").to_owned();
    let (status, found) = status_and_json(response).await;
    let origin = &server.origin;
    match finds {
        "challenge" => {
            let document = format!("{origin}/.well-known/oauth-protected-resource/mcp");
            let expected = format!("Bearer resource_metadata=\"{document}\", scope=\"models health keys\"");
            assert_eq!((status, challenge), (401, expected), "{host}: {asked}");
            assert!(found["error"].is_string(), "{host}: {found}");
        }
        "resource" => {
            assert_eq!((status, &found["resource"]), (200, &json!(format!("{origin}/mcp"))), "{host}");
            assert_eq!(found["authorization_servers"], json!([origin]), "{host}");
        }
        "server" => assert_eq!((status, &found["issuer"]), (200, &json!(origin)), "{host}: {path}"),
        "nothing" => assert_eq!(status, 404, "{host}: {path}"),
        other => panic!("{host}: {other}"),
    }
}

/// A connection of a host, with the token of its grant.
struct Connection<'a> {
    world: &'a World,
    host: &'a str,
    recorded: &'a Value,
    token: &'a str,
    /// From where the requests come, in turn.
    networks: &'a [reqwest::Client],
    requests: usize,
    next_id: u64,
    /// Since `initialize` was answered.
    is_initialized: bool,
    session: Option<String>,
}

impl<'a> Connection<'a> {
    fn new(
        world: &'a World,
        host: &'a Value,
        recorded: &'a Value,
        token: &'a str,
        networks: &'a [reqwest::Client],
    ) -> Self {
        let (host, next_id) = (text(host, "host"), recorded["first_id"].as_u64().unwrap());
        let (requests, is_initialized, session) = (0, false, None);
        Self { world, host, recorded, token, networks, requests, next_id, is_initialized, session }
    }

    /// A request with the headers that were recorded for its method.
    fn request(&mut self, method: Method) -> RequestBuilder {
        let http = &self.networks[self.requests % self.networks.len()];
        self.requests += 1;
        let of_method = &self.recorded[method.as_str().to_ascii_lowercase()];
        let afterwards = if self.is_initialized { &self.recorded["afterwards"] } else { &Value::Null };
        let url = self.world.server.at("/mcp");
        let request = request(http, method, url, &[&self.recorded["headers"], of_method, afterwards]);
        let request = request.bearer_auth(self.token);
        match &self.session {
            Some(session) if self.recorded["forgets_session"] != true => request.header(SESSION_ID, session),
            _ => request,
        }
    }

    async fn send(&self, request: RequestBuilder) -> Response {
        let response = self.world.server.send(request).await;
        // Without these a browser keeps the answer from the page that asked.
        if self.recorded["headers"].get("origin").is_some() {
            assert_eq!(header(&response, "access-control-allow-origin"), "*", "{}", self.host);
            let exposed = header(&response, "access-control-expose-headers");
            assert!(exposed.contains("Mcp-Session-Id"), "{}: {exposed}", self.host);
        }
        response
    }

    /// Sends a request of JSON-RPC; returns the answer and its result, which the host accepts.
    async fn ask(&mut self, method: &str, params: &Value) -> (Response, Value) {
        let id = self.next_id;
        self.next_id += 1;
        let message = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
        let mut request = self.request(Method::POST);
        if self.recorded.get("meta").is_some() {
            request = request.header("mcp-protocol-version", "2026-07-28").header("mcp-method", method);
            if let Some(name) = params["name"].as_str() {
                request = request.header("mcp-name", name);
            }
        }
        let mut response = self.send(request.body(message.to_string())).await;
        let what = format!("{}: {message}: {:?}", self.host, response.headers());
        assert_eq!(response.status(), 200, "{what}");
        let mut body = Vec::new();
        while let Some(chunk) = within(response.chunk()).await.unwrap() {
            body.extend_from_slice(&chunk);
        }
        let body = String::from_utf8(body).unwrap();
        let messages: Vec<Value> = match header(&response, "content-type") {
            "application/json" => vec![serde_json::from_str(&body).unwrap()],
            "text/event-stream" => body
                .lines()
                .filter_map(|line| line.strip_prefix("data:"))
                .filter_map(|data| serde_json::from_str(data.trim()).ok())
                .collect(),
            other => panic!("{other}: {what}"),
        };
        let answer = messages.iter().find(|message| message["id"] == id);
        let answer = answer.unwrap_or_else(|| panic!("no answer in {body}: {what}"));
        assert_eq!((&answer["jsonrpc"], answer.get("error")), (&json!("2.0"), None), "{what}: {answer}");
        (response, answer["result"].clone())
    }

    /// Sends the recorded requests.
    async fn work(&mut self) {
        for request in list(&self.recorded["requests"]) {
            let method = text(request, "method");
            let mut params = request.get("params").cloned().unwrap_or_else(|| json!({}));
            if let Some(meta) = self.recorded["meta"].as_object() {
                let mut meta = meta.clone();
                meta.extend(params["_meta"].as_object().cloned().unwrap_or_default());
                params["_meta"] = meta.into();
            }
            let (response, result) = self.ask(method, &params).await;
            let what = format!("{}: {method}: {result}", self.host);
            if self.recorded.get("meta").is_some() {
                assert_eq!(
                    (header(&response, SESSION_ID), &result["resultType"]),
                    ("", &json!("complete")),
                    "{what}"
                );
            }
            match method {
                "server/discover" => {
                    assert!(list(&result["supportedVersions"]).contains(&json!("2026-07-28")), "{what}");
                }
                "tools/list" => {
                    assert!(
                        list(&result["tools"]).iter().any(|tool| tool["name"] == "list_models"),
                        "{what}"
                    );
                }
                "tools/call" => {
                    assert_eq!(
                        (&result["structuredContent"]["count"], result["isError"] == true),
                        (&json!(3), false),
                        "{what}"
                    );
                    // Hosts that know no structured content read the same in the text.
                    let content: Value = serde_json::from_str(text(&result["content"][0], "text")).unwrap();
                    assert_eq!(content, result["structuredContent"], "{what}");
                }
                _ => assert!(result.is_object(), "{what}"),
            }
        }
    }

    /// A connection of 2025-11-25 or before.
    async fn with_handshake(&mut self) {
        if self.recorded["asks_for_stream_first"] == true {
            let request = self.request(Method::GET);
            let response = self.send(request).await;
            assert_eq!(
                (response.status().as_u16(), header(&response, "allow")),
                (405, "POST"),
                "{}",
                self.host
            );
        }
        let initialize = &self.recorded["initialize"];
        let (response, result) = self.ask("initialize", initialize).await;
        let what = format!("{}: {result}", self.host);
        assert_eq!(result["protocolVersion"], initialize["protocolVersion"], "{what}");
        assert_eq!(result["serverInfo"]["name"], "bondmcp-server", "{what}");
        assert!(result["capabilities"]["tools"].is_object(), "{what}");
        let session = header(&response, SESSION_ID);
        self.session = (!session.is_empty()).then(|| session.to_owned());
        self.is_initialized = true;

        let is_early = self.recorded["opens_stream_early"] == true;
        let mut stream = None;
        if is_early {
            stream = self.stream().await;
        }
        let initialized = json!({"jsonrpc": "2.0", "method": "notifications/initialized"});
        let session = self.session.clone();
        if self.recorded["notifies_without_session"] == true {
            self.session = None;
        }
        let request = self.request(Method::POST).body(initialized.to_string());
        self.session = session;
        let response = self.send(request).await;
        assert_eq!(response.status(), 202, "{}", self.host);
        assert_eq!(within(response.text()).await.unwrap(), "", "{}", self.host);
        if !is_early {
            stream = self.stream().await;
        }
        self.work().await;
        drop(stream);
        if self.recorded.get("delete").is_some() {
            assert!(self.session.is_some(), "{}", self.host);
            let request = self.request(Method::DELETE);
            assert!(self.send(request).await.status().is_success(), "{}", self.host);
            let ping = json!({"jsonrpc": "2.0", "id": self.next_id, "method": "ping"});
            let request = self.request(Method::POST).body(ping.to_string());
            assert_eq!(self.send(request).await.status(), 404, "{}: the session has ended", self.host);
        }
    }

    /// Opens the stream of a host that has one; it stays open as long as what is returned.
    async fn stream(&mut self) -> Option<Response> {
        self.recorded.get("get")?;
        assert!(self.session.is_some(), "{}", self.host);
        let request = self.request(Method::GET);
        let response = self.send(request).await;
        let found = (response.status().as_u16(), header(&response, "content-type"));
        assert_eq!(found, (200, "text/event-stream"), "{}", self.host);
        Some(response)
    }
}

/// MCP authorization, "Protected Resource Metadata Discovery Requirements" and "Authorization Server Metadata Discovery".
#[tokio::test(flavor = "multi_thread")]
async fn each_host_finds_what_it_looks_for_before_anybody_signs_in() {
    let world = World::new().await;
    for host in HOSTS.map(recorded) {
        for asked in list(&host["discovery"]) {
            look(&world, text(&host, "host"), asked).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_host_connects_works_and_leaves_as_it_does() {
    let world = World::new().await;
    for host in HOSTS.map(recorded) {
        let client = &host["clients"][0];
        let authorizations = client.get("authorizations").unwrap_or(&host["authorizations"]);
        let tokens = world.client(&host, client).await.connect(&authorizations[0]).await;
        let networks = networks(host["egress_addresses"].as_u64().unwrap_or(1));
        for recorded in list(&host["connections"]) {
            for _ in 0..recorded["times"].as_u64().unwrap_or(1) {
                let token = text(&tokens, "access_token");
                let mut connection = Connection::new(&world, &host, recorded, token, &networks);
                if recorded.get("meta").is_some() {
                    connection.work().await;
                } else {
                    connection.with_handshake().await;
                }
            }
        }
    }
}
