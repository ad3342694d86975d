//! Several owners on one router: each has an account of their own, and nothing of one reaches another.

use std::net::SocketAddr;

use crate::common::{
    EMAIL, Place,
    browser::{Browser, json_of, link, text},
    host, like_the_seed, random_password, request, sandbox, secrets,
    services::ANALYZE,
    within,
};
use bondmcp_server::{
    account::{Accounts, Owner},
    bondmcp::Timing,
    listener::Workers,
    mcp::{BondMcp, Limits, Selection},
    redact::Redactor,
    sandbox::{Fault, Plan, RunningSandbox},
    secret::SecretString,
    sign_in::Options,
    transport::{
        http::{self, Authentication, Protection},
        stdio,
    },
};
use futures_util::{StreamExt as _, future::join_all};
use reqwest::{Client, RequestBuilder, Response, StatusCode};
use rmcp::ServiceExt as _;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

const MODELS: &str = "GET /health-ai/models";
const CREATE_KEY: &str = "POST /auth/api-keys";
const GRACE: &str = "grace@example.com";

/// A server for Ada, Grace and Eve, who each have a token, at an upstream where Ada and Grace have accounts.
struct Service {
    address: SocketAddr,
    sandbox: RunningSandbox,
    place: Place,
    server: BondMcp,
    accounts: Accounts,
    redactor: Redactor,
    graces_password: SecretString,
    client: Client,
    stopping: CancellationToken,
}

impl Drop for Service {
    fn drop(&mut self) {
        self.stopping.cancel();
    }
}

fn owner(name: &str) -> Owner {
    Owner::Subject(name.to_owned())
}

/// More owners than a server remembers when they are gone.
fn strangers() -> impl Iterator<Item = String> {
    (0..1200).map(|number| format!("stranger {number}"))
}

impl Service {
    async fn start() -> Self {
        Self::within(Limits::default()).await
    }

    async fn within(limits: Limits) -> Self {
        let sandbox = sandbox(like_the_seed()).await;
        let place = Place::new(&sandbox);
        let graces_password = random_password();
        sandbox.add_account(GRACE, &graces_password, Plan::Unlimited, true);
        let (accounts, redactor) = crate::common::accounts(&place);
        let (page, stopping) = (Some(Options::default()), CancellationToken::new());
        let selection = Selection::default();
        let server = BondMcp::new(accounts.clone(), page, &selection, limits, stopping.clone()).unwrap();
        let names = ["ada", "grace", "eve", "eve.one", "eve.two"]
            .map(ToOwned::to_owned)
            .into_iter()
            .chain(strangers());
        let tokens = names.map(|name| (token(&name).into(), owner(&name))).collect();
        let protection = Protection {
            max_sessions: 2,
            max_sessions_overall: 8,
            ..Protection::new(Authentication::Tokens(tokens))
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(http::serve(
            listener,
            http::router(&server, protection, &stopping),
            Workers::current(),
            stopping.clone(),
        ));
        let client = Client::new();
        Self { address, sandbox, place, server, accounts, redactor, graces_password, client, stopping }
    }

    /// A service where Ada and Grace are signed in.
    async fn signed_in() -> Self {
        let service = Self::start().await;
        service.sign_in("ada", EMAIL, &service.place.password).await;
        service.sign_in("grace", GRACE, &service.graces_password).await;
        service
    }

    async fn sign_in(&self, name: &str, email: &str, password: &SecretString) {
        self.accounts.open(&owner(name)).sign_in(email, password.clone(), false).await.unwrap();
    }

    fn post(&self, name: &str, body: &Value) -> RequestBuilder {
        self.client
            .post(format!("http://{}/mcp", self.address))
            .header("accept", "application/json, text/event-stream")
            .header("content-type", "application/json")
            .bearer_auth(token(name))
            .body(body.to_string())
    }

    /// A request of 2026-07-28, which has no session, by a host that can show forms and links.
    fn modern(&self, name: &str, method: &str, mut params: Value) -> RequestBuilder {
        params["_meta"]["io.modelcontextprotocol/protocolVersion"] = json!("2026-07-28");
        params["_meta"]["io.modelcontextprotocol/clientCapabilities"] =
            json!({"elicitation": {"form": {}, "url": {}}});
        let what = params.get("name").or(params.get("uri")).and_then(Value::as_str).map(ToOwned::to_owned);
        let body = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
        let request =
            self.post(name, &body).header("mcp-protocol-version", "2026-07-28").header("mcp-method", method);
        match what {
            Some(what) => request.header("mcp-name", what),
            None => request,
        }
    }

    async fn ask(&self, name: &str, method: &str, params: Value) -> Value {
        json_of(send(self.modern(name, method, params)).await).await
    }

    async fn call(&self, name: &str, tool: &str, arguments: Value) -> Value {
        self.ask(name, "tools/call", json!({"name": tool, "arguments": arguments})).await
    }

    /// The structured result of a call that works.
    async fn ok(&self, name: &str, tool: &str, arguments: Value) -> Value {
        let answer = self.call(name, tool, arguments).await;
        assert_eq!(answer["result"]["isError"], false, "{answer}");
        answer["result"]["structuredContent"].clone()
    }

    async fn read(&self, name: &str, uri: &str) -> Value {
        let answer = self.ask(name, "resources/read", json!({"uri": uri})).await;
        let content = answer["result"]["contents"][0]["text"].as_str();
        content.map_or_else(|| answer.clone(), |content| serde_json::from_str(content).unwrap())
    }

    /// Opens a session of 2025-11-25 and returns its id, or the status of an answer without one.
    async fn session(&self, name: &str) -> Result<String, StatusCode> {
        let body = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
            "protocolVersion": "2025-11-25", "capabilities": {},
            "clientInfo": {"name": name, "version": "1"}}});
        let response = send(self.post(name, &body)).await;
        match response.headers().get("mcp-session-id") {
            Some(id) => Ok(id.to_str().unwrap().to_owned()),
            None => Err(response.status()),
        }
    }

    /// A call of `auth_status` in a session.
    fn in_session(&self, name: &str, session: &str) -> RequestBuilder {
        let call = json!({"jsonrpc": "2.0", "id": 2, "method": "tools/call",
            "params": {"name": "auth_status", "arguments": {}}});
        self.post(name, &call).header("mcp-session-id", session)
    }
}

fn token(name: &str) -> String {
    format!("the-token-of-{name}-in-this-test")
}

async fn send(request: RequestBuilder) -> Response {
    within(request.send()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_is_signed_in_by_nobody_else() {
    let service = Service::start().await;
    service.sign_in("ada", EMAIL, &service.place.password).await;
    assert_eq!(service.ok("ada", "auth_status", json!({})).await["email"], EMAIL);
    assert_eq!(service.ok("ada", "list_models", json!({})).await["count"], 3);
    for name in ["grace", "eve"] {
        let status = service.ok(name, "auth_status", json!({})).await;
        assert_eq!((&status["signed_in"], status.get("email")), (&json!(false), None), "{status}");
        assert_eq!(status["profile"], format!("subject:{name}"));
        let asked = service.call(name, "list_models", json!({})).await;
        assert_eq!(asked["result"]["resultType"], "input_required", "{asked}");
        for uri in ["bondmcp://models", "bondmcp://account", "bondmcp://usage", "bondmcp://keys/any"] {
            let read = service.read(name, uri).await.to_string();
            assert!(!read.contains(EMAIL) && !read.contains("\"models\""), "{uri}: {read}");
        }
    }
    // One owner's sign-out is nobody else's.
    service.ok("eve", "logout", json!({})).await;
    assert_eq!(service.ok("ada", "list_models", json!({})).await["count"], 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_a_host_or_an_agent_says_chooses_the_owner() {
    let service = Service::signed_in().await;
    let params = json!({"name": "auth_status", "arguments": {}, "owner": "grace",
        "_meta": {"owner": {"Subject": "grace"}, "io.modelcontextprotocol/clientInfo": {"name": "grace", "version": "1"}}});
    let request = service.modern("ada", "tools/call", params);
    let spoofed = ["owner", "x-owner", "x-forwarded-user", "mcp-owner", "subject"]
        .into_iter()
        .fold(request, |request, name| request.header(name, "subject:grace"));
    let answer = json_of(send(spoofed).await).await;
    assert_eq!(answer["result"]["structuredContent"]["email"], EMAIL, "{answer}");
    let refused = service.call("ada", "auth_status", json!({"owner": "subject:grace"})).await;
    assert_eq!(refused["result"]["isError"], true, "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn cached_models_serve_the_owner_who_asked_for_them() {
    let service = Service::signed_in().await;
    for (name, from_cache, requests) in
        [("ada", false, 1), ("ada", true, 1), ("grace", false, 2), ("grace", true, 2), ("ada", true, 2)]
    {
        let list = service.ok(name, "list_models", json!({})).await;
        assert_eq!((&list["from_cache"], service.sandbox.count(MODELS)), (&json!(from_cache), requests));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rate_limit_of_one_owner_holds_no_other_back() {
    let service = Service::signed_in().await;
    service.sandbox.faults().next(MODELS, Fault::TooMany(Some("120".to_owned())));
    let refused = service.call("ada", "list_models", json!({})).await.to_string();
    assert!(refused.contains("rate_limited"), "{refused}");
    let asked = service.sandbox.count(MODELS);
    let refused = service.call("ada", "list_models", json!({})).await.to_string();
    assert!(refused.contains("rate_limited"), "{refused}");
    assert_eq!(service.sandbox.count(MODELS), asked, "Ada's second call is not sent");
    service.ok("grace", "list_models", json!({})).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_for_one_owner_pause_no_other() {
    let service = Service::signed_in().await;
    service.sandbox.faults().always(MODELS, Fault::Status(503));
    for _ in 0..5 {
        service.call("ada", "list_models", json!({})).await;
    }
    service.sandbox.faults().clear();
    let paused = service.call("ada", "list_models", json!({})).await.to_string();
    assert!(paused.contains("calls are paused"), "{paused}");
    service.ok("grace", "list_models", json!({})).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_for_two_apps_of_one_person_pause_no_other_person() {
    let service = Service::signed_in().await;
    for app in ["eve.one", "eve.two"] {
        service.sign_in(app, EMAIL, &service.place.password).await;
    }
    service.sandbox.faults().always(MODELS, Fault::Status(503));
    for app in ["eve.one", "eve.two"] {
        for _ in 0..4 {
            service.call(app, "list_models", json!({})).await;
        }
    }
    service.sandbox.faults().clear();
    service.ok("grace", "list_models", json!({})).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_for_several_owners_pause_all() {
    let service = Service::signed_in().await;
    service.sign_in("eve", EMAIL, &service.place.password).await;
    service.sandbox.faults().always(MODELS, Fault::Status(503));
    for name in ["ada", "ada", "ada", "grace", "grace"] {
        service.call(name, "list_models", json!({})).await;
    }
    service.sandbox.faults().clear();
    let paused = service.call("eve", "list_models", json!({})).await.to_string();
    assert!(paused.contains("calls are paused"), "{paused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_owner_is_told_once_who_they_are_signed_in_as() {
    let service = Service::signed_in().await;
    for (name, named) in
        [("ada", json!(EMAIL)), ("grace", json!(GRACE)), ("ada", Value::Null), ("grace", Value::Null)]
    {
        assert_eq!(service.ok(name, "list_models", json!({})).await["signed_in_as"], named, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owners_keys_are_listed_read_completed_and_ended_by_that_owner_alone() {
    let service = Service::signed_in().await;
    let create = json!({"action": "create", "name": "ci"});
    let made = service.ok("ada", "manage_api_keys", create).await;
    let id = made["keys"][0]["id"].as_str().unwrap().to_owned();
    let uri = format!("bondmcp://keys/{id}");
    let complete = json!({"ref": {"type": "ref/resource", "uri": "bondmcp://keys/{key_id}"},
        "argument": {"name": "key_id", "value": ""}});
    for (name, has_it) in [("ada", true), ("grace", false)] {
        let list = service.ok(name, "manage_api_keys", json!({"action": "list"})).await;
        assert_eq!(list.to_string().contains(&id), has_it, "{list}");
        assert_eq!(service.read(name, &uri).await["id"] == *id, has_it);
        let completed = service.ask(name, "completion/complete", complete.clone()).await;
        assert_eq!(completed["result"]["completion"]["values"].to_string().contains(&id), has_it);
    }

    // A question to Ada is answered by Ada.
    let revoke = json!({"action": "revoke", "key_id": id});
    let asked = service.call("ada", "manage_api_keys", revoke.clone()).await;
    let state = &asked["result"]["requestState"];
    assert!(state.is_string(), "{asked}");
    let answer = json!({"name": "manage_api_keys", "arguments": revoke, "requestState": state,
        "inputResponses": {"person": {"action": "accept", "content": {"confirm": true}}}});
    let stolen = service.ask("grace", "tools/call", answer.clone()).await;
    assert_eq!(stolen["error"]["code"], -32602, "{stolen}");
    let list = service.ok("ada", "manage_api_keys", json!({"action": "list"})).await;
    assert!(list.to_string().contains(&id), "{list}");
    let done = service.ask("ada", "tools/call", answer).await;
    assert_eq!(done["result"]["isError"], false, "{done}");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_owner_signs_in_on_a_page_of_their_own() {
    let service = Service::start().await;
    let told = |asked: Value| asked["result"]["inputRequests"]["person"]["params"]["url"].clone();
    let adas = service.call("ada", "list_models", json!({})).await;
    let (adas_link, graces_link) =
        (told(adas.clone()), told(service.call("grace", "list_models", json!({})).await));
    assert!(adas_link.is_string() && graces_link.is_string() && adas_link != graces_link);

    // Another owner cannot go on with Ada's call.
    let stolen = json!({"name": "list_models", "arguments": {}, "requestState": adas["result"]["requestState"],
        "inputResponses": {"person": {"action": "accept"}}});
    let answer = service.ask("grace", "tools/call", stolen.clone()).await;
    assert_eq!(answer["error"]["code"], -32602, "{answer}");

    let browser = Browser::open(&link(&graces_link)).await;
    let password = secrets::text(&service.graces_password);
    let fields = [("email", GRACE), ("password", password)];
    assert_eq!(send(browser.post("sign-in", &fields)).await.status(), StatusCode::OK);
    assert_eq!(service.ok("grace", "auth_status", json!({})).await["email"], GRACE);
    assert_eq!(service.ok("ada", "auth_status", json!({})).await["signed_in"], false);

    let browser = Browser::open(&link(&adas_link)).await;
    assert_eq!(browser.sign_in(&service.place.password).await.status(), StatusCode::OK);
    let answer = service.ask("ada", "tools/call", stolen).await;
    assert_eq!(answer["result"]["structuredContent"]["count"], 3, "{answer}");
}

/// MCP "Security Best Practices" 2025-11-25, "Session Hijacking".
#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_its_owners_and_for_anybody_else_there_is_none() {
    let service = Service::signed_in().await;
    let (adas, graces) = (service.session("ada").await.unwrap(), service.session("grace").await.unwrap());
    for (name, session, email) in [("ada", &adas, EMAIL), ("grace", &graces, GRACE)] {
        let answer = text(send(service.in_session(name, session)).await).await;
        assert!(answer.contains(email), "{answer}");
    }
    let url = format!("http://{}/mcp", service.address);
    let foreign = async |session: &str| {
        let listen = service.client.get(&url).header("accept", "text/event-stream");
        let end = service.client.delete(&url);
        let others = [listen, end]
            .map(|request| request.bearer_auth(token("grace")).header("mcp-session-id", session));
        let mut answers = Vec::new();
        for request in std::iter::once(service.in_session("grace", session)).chain(others) {
            let response = send(request).await;
            assert!(response.headers().get("www-authenticate").is_none());
            answers.push((response.status(), text(response).await));
        }
        answers
    };
    let of_ada = foreign(&adas).await;
    assert!(of_ada.iter().all(|(status, _)| *status == StatusCode::NOT_FOUND), "{of_ada:?}");
    // Nobody learns which sessions others have.
    assert_eq!(foreign("00000000-0000-4000-8000-000000000000").await, of_ada);
    // And it goes on.
    assert!(text(send(service.in_session("ada", &adas)).await).await.contains(EMAIL));
}

#[tokio::test(flavor = "multi_thread")]
async fn no_owner_takes_the_sessions_of_the_others() {
    let service = Service::start().await;
    for name in ["ada", "grace"] {
        // Whoever has taken all of theirs is served without one.
        for expected in [None, None, Some(StatusCode::OK)] {
            assert_eq!(service.session(name).await.err(), expected, "{name}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_owner_takes_the_turns_of_the_others() {
    let limits = Limits { concurrent: 1, waiting: 0, owners_at_once: 2, ..Limits::default() };
    let service = Service::within(limits).await;
    service.sign_in("ada", EMAIL, &service.place.password).await;
    service.sign_in("grace", GRACE, &service.graces_password).await;
    service.sandbox.faults().always(MODELS, Fault::Hold);
    let refresh = json!({"refresh": true});
    let busy = |answer: &Value| answer.to_string().contains("Too many calls are waiting.");
    let others = async {
        within(service.sandbox.faults().arrived(MODELS, 1)).await;
        let second = service.call("ada", "auth_status", json!({})).await;
        assert!(busy(&second), "{second}");
        assert_eq!(service.ok("grace", "auth_status", json!({})).await["email"], GRACE);
        let both = async {
            within(service.sandbox.faults().arrived(MODELS, 2)).await;
            // Two owners at once have taken all turns.
            let third = service.call("eve", "auth_status", json!({})).await;
            assert!(busy(&third), "{third}");
            service.sandbox.faults().clear();
            service.sandbox.faults().release();
        };
        tokio::join!(service.ok("grace", "list_models", refresh.clone()), both).0
    };
    let (adas, graces) = tokio::join!(service.ok("ada", "list_models", refresh.clone()), others);
    assert_eq!((&adas["count"], &graces["count"]), (&json!(3), &json!(3)));
    assert_eq!(service.ok("eve", "auth_status", json!({})).await["signed_in"], false);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_learns_nothing_of_anothers_password_and_the_log_shows_none() {
    let service = Service::signed_in().await;
    for (password, owner, other) in
        [(&service.place.password, "ada", "grace"), (&service.graces_password, "grace", "ada")]
    {
        let guess = json!({"action": "create", "name": secrets::text(password)});
        let name = async |name| {
            let made = service.ok(name, "manage_api_keys", guess.clone()).await;
            made["keys"][0]["name"].as_str().unwrap().to_owned()
        };
        assert_eq!(name(owner).await, "[redacted]");
        // Were it redacted, the guess would be known to be right.
        let others = name(other).await;
        assert_eq!(others, secrets::text(password));
        assert_eq!(service.redactor.redact(&others), "[redacted]");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_audit_log_says_whose_call_it_was() {
    let service = Service::signed_in().await;
    let calls = [("ada", "list_models"), ("grace", "auth_status"), ("eve", "auth_status")];
    for (name, tool) in calls {
        service.ok(name, tool, json!({})).await;
    }
    service.server.close().await;
    let entries = service.accounts.audit_reader().read().unwrap();
    let told: Vec<_> = entries.iter().map(|entry| (&*entry.owner, &*entry.tool)).collect();
    let expected = calls.map(|(name, tool)| (format!("subject:{name}"), tool));
    assert_eq!(told, expected.each_ref().map(|(name, tool)| (&**name, *tool)));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_owner_has_spent_is_not_reported_to_another() {
    let service = Service::signed_in().await;
    let question = json!({"prompt": "Why?", "analysis_type": "general"});
    service.ok("ada", "health_analyze", question).await;
    assert_eq!(service.sandbox.count(ANALYZE), 1);
    for (name, has_spent) in [("ada", true), ("grace", false), ("eve", false)] {
        let status = service.ok(name, "auth_status", json!({})).await;
        assert_eq!(status["spent"]["total_usd"].as_f64().unwrap() > 0.0, has_spent, "{name}: {status}");
        let usage = service.read(name, "bondmcp://usage").await;
        assert_eq!(usage["spent"]["by_tool"].to_string().contains("health_analyze"), has_spent);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn at_the_end_every_owners_page_is_closed() {
    let service = Service::start().await;
    let mut links = Vec::new();
    for name in ["ada", "grace", "eve"] {
        links.push(link(&service.call(name, "list_models", json!({})).await));
    }
    for answer in join_all(links.iter().map(|link| service.client.get(link).send())).await {
        assert_eq!(answer.unwrap().status(), StatusCode::OK);
    }
    within(service.server.close()).await;
    for answer in join_all(links.iter().map(|link| Client::new().get(link).send())).await {
        assert!(answer.unwrap_err().is_connect());
    }
    // The vault is closed too: its write-ahead log is gone.
    let files: Vec<_> =
        crate::common::files(&service.place.data_dir()).into_iter().map(|(path, _)| path).collect();
    assert!(!files.iter().any(|path| path.to_string_lossy().ends_with("-wal")), "{files:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn at_the_end_the_work_of_every_owner_is_awaited() {
    let service = Service::signed_in().await;
    service.sandbox.faults().always(CREATE_KEY, Fault::Hold);
    for (number, name) in (1..).zip(["ada", "grace"]) {
        let account = service.accounts.open(&owner(name));
        let wanted = serde_json::from_value(json!({ "name": name })).unwrap();
        let creating = tokio::spawn(async move { account.create_key(wanted).await });
        within(service.sandbox.faults().arrived(CREATE_KEY, number)).await;
        creating.abort();
    }
    service.sandbox.faults().clear();
    let closing = tokio::spawn({
        let server = service.server.clone();
        async move { server.close().await }
    });
    service.sandbox.faults().release();
    within(closing).await.unwrap();
    let (later, _) = crate::common::accounts(&service.place);
    for name in ["ada", "grace"] {
        let list = later.open(&owner(name)).list_keys().await.unwrap();
        let keys: Vec<_> = list.keys.iter().map(|key| (&*key.name, key.stored)).collect();
        assert_eq!(keys, [(name, true)]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_in_the_environment_serve_the_operators_own_profile_alone() {
    let sandbox = sandbox(like_the_seed()).await;
    let place = Place::new(&sandbox);
    let (server, _stopping) = crate::common::in_process(&place, Timing::default());
    let operator = server.local_owner();
    let others = [Owner::Profile("work".parse().unwrap()), owner("ada"), owner("default")];
    for (owner, signed_in) in std::iter::once((operator, true)).chain(others.map(|other| (other, false))) {
        let (ours, theirs) = tokio::io::duplex(1 << 16);
        let (input, output) = tokio::io::split(ours);
        let ended = CancellationToken::new();
        tokio::spawn(stdio::serve(server.clone(), owner.clone(), input, output, ended));
        let client = within(host().serve(theirs)).await.unwrap();
        let status = within(client.call_tool(request("auth_status", json!({})))).await.unwrap();
        assert_eq!(status.structured_content.unwrap()["signed_in"], signed_in, "{owner}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pending_sign_in_is_not_lost_however_many_other_owners_come() {
    let service = Service::start().await;
    let adas = link(&service.call("ada", "list_models", json!({})).await);
    let strangers =
        strangers().map(async |name| service.ask(&name, "resources/templates/list", json!({})).await);
    let lists = futures_util::stream::iter(strangers).buffer_unordered(16).collect::<Vec<_>>().await;
    assert!(lists.iter().all(|list| list["result"]["resourceTemplates"].is_array()));
    assert_eq!(link(&service.call("ada", "list_models", json!({})).await), adas);
    within(service.server.close()).await;
    assert!(Client::new().get(adas).send().await.unwrap_err().is_connect());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_the_transport_gave_no_owner_is_refused() {
    let service = Service::signed_in().await;
    let (ours, theirs) = tokio::io::duplex(1 << 16);
    let server = service.server.clone();
    tokio::spawn(async move { server.serve(ours).await.unwrap().waiting().await });
    let client = within(host().serve(theirs)).await.unwrap();
    let error = client.call_tool(request("auth_status", json!({}))).await.unwrap_err().to_string();
    assert!(error.contains("the request has no owner"), "{error}");
    let error = client.list_tools(None).await.unwrap_err().to_string();
    assert!(error.contains("the request has no owner"), "{error}");
}
