//! An operator's commands, beside a running server: clients, grants and the steps of authorizations.

use crate::common::{
    EMAIL, OTHER_EMAIL, Place,
    browser::json_of,
    files,
    hosted_process::Process,
    hosted_server::{Authorization, HostedServer, Setup, parameter},
    like_the_seed, run, sandbox, secrets, within,
};
use bondmcp_server::{
    account::{NewGrant, Usd},
    bondmcp::wire::Permission,
    mcp::{Selection, Toolset},
    oauth::{Grant, GrantId, Scopes},
    secret::SecretString,
};
use rexpect::session::{PtySession, spawn_command};
use serde_json::{Value, json};
use tokio::process::Command;

const TIMEOUT_MS: u64 = 60_000;

/// A name that a client claims, with characters that act on a terminal.
const HOSTILE_NAME: &str = "Evil\u{1b}[2J\u{202e}app";

/// A running server with two people, and the commands of its operator.
struct Operated {
    server: HostedServer,
    other_password: SecretString,
}

impl Operated {
    async fn new() -> Self {
        let (server, other_password) = HostedServer::start_with_two().await;
        Self { server, other_password }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.server.place.command(arguments);
        command.env("BONDMCP_PUBLIC_URL", &self.server.origin);
        command
    }

    async fn run(&self, arguments: &[&str]) -> (Option<i32>, String, String) {
        run(&mut self.command(arguments), "").await
    }

    /// Runs a command that must succeed; returns what it prints.
    async fn ok(&self, arguments: &[&str]) -> String {
        let (code, out, err) = self.run(arguments).await;
        assert_eq!(code, Some(0), "{err}");
        out
    }

    async fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.ok(&[arguments, &["--json"]].concat()).await).unwrap()
    }

    fn terminal(&self, arguments: &[&str]) -> PtySession {
        spawn_command(self.command(arguments).into_std(), Some(TIMEOUT_MS)).unwrap()
    }

    /// Connects an app, as if the person had agreed: its grant has an API key of its own.
    async fn connect(&self, client_id: &str, email: &str) -> Grant {
        let HostedServer { server, accounts, place, .. } = &self.server;
        let request = Authorization::of(client_id.to_owned()).query();
        let request = server.authorization_request(&request).await.unwrap();
        let password = if email == EMAIL { &place.password } else { &self.other_password };
        let person = within(accounts.authenticator().with_password(email, password.clone())).await.unwrap();
        let subject = server.subject(person.user_id().unwrap());
        let grant = server.create_grant(&subject, &request, Scopes::all()).await.unwrap();
        let new = NewGrant {
            issuer: self.server.origin.clone(),
            key_name: format!("key of {}", grant.id),
            permissions: vec![Permission::Read],
            daily_limit: Usd::cents(500),
        };
        within(accounts.open(&grant.owner()).open_grant(person, new)).await.unwrap();
        grant
    }

    async fn register(&self) -> String {
        self.server.register(&["http://127.0.0.1/callback"]).await
    }

    async fn is_active(&self, id: &GrantId) -> bool {
        self.server.server.grant(id).await.unwrap().is_some_and(|grant| grant.ended.is_none())
    }

    fn live_keys(&self, email: &str) -> usize {
        self.server.sandbox.live_keys(email).len()
    }
}

fn ids(list: &Value) -> Vec<&str> {
    list["grants"].as_array().unwrap().iter().map(|grant| grant["id"].as_str().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_is_added_listed_and_revoked() {
    let operated = Operated::new().await;
    let uri = "http://127.0.0.1/callback";
    let added = operated.json(&["clients", "add", "Inspector", "--redirect-uri", uri]).await;
    let id = added["client_id"].as_str().unwrap();
    assert_eq!(added["redirect_uris"][0], uri);
    let list = operated.json(&["clients", "list"]).await;
    assert_eq!(
        (&list["clients"][0]["client_id"], &list["clients"][0]["name"]),
        (&added["client_id"], &"Inspector".into())
    );
    let table = operated.ok(&["clients", "list"]).await;
    assert!(table.contains(id) && table.contains("Inspector"), "{table}");

    let grant = operated.connect(id, EMAIL).await;
    let other = operated.connect(&operated.register().await, EMAIL).await;
    assert_eq!(operated.live_keys(EMAIL), 2);
    operated.ok(&["clients", "revoke", id, "--yes"]).await;
    assert!(!operated.is_active(&grant.id).await && operated.is_active(&other.id).await);
    assert_eq!(operated.live_keys(EMAIL), 1);
    assert_eq!(operated.json(&["clients", "list"]).await["clients"], serde_json::json!([]));
    // Whoever holds its id gets nowhere.
    let request = Authorization::of(id.to_owned()).query();
    assert!(operated.server.server.authorization_request(&request).await.is_err());
    let (code, _, err) = operated.run(&["clients", "revoke", id, "--yes"]).await;
    assert!(code == Some(1) && err.contains("clients list"), "{err}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_uri_that_is_not_sound_is_refused() {
    let operated = Operated::new().await;
    for uri in ["javascript:alert(1)", "http://example.com/callback", "https://app.example/#here"] {
        let (code, _, err) = operated.run(&["clients", "add", "App", "--redirect-uri", uri]).await;
        assert!(code == Some(2) && err.contains("redirect URI"), "{uri}: {err}");
    }
    assert_eq!(operated.json(&["clients", "list"]).await["clients"], serde_json::json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clients_secret_is_shown_once_on_a_terminal_only() {
    let operated = Operated::new().await;
    let add = ["clients", "add", "Ward", "--redirect-uri", "https://ward.example/callback", "--confidential"];
    let (code, out, err) = operated.run(&add).await;
    assert!(code == Some(2) && out.is_empty() && err.contains("on a terminal only"), "{out} {err}");
    assert_eq!(operated.run(&[&add[..], &["--json"]].concat()).await.0, Some(2));
    assert_eq!(
        operated.json(&["clients", "list"]).await["clients"],
        serde_json::json!([]),
        "nothing is added"
    );

    let mut terminal = operated.terminal(&add);
    terminal.exp_string("Client id: ").unwrap();
    let id = terminal.read_line().unwrap().trim().to_owned();
    terminal.exp_string("not shown again:\r\n").unwrap();
    let secret = SecretString::from(terminal.read_line().unwrap().trim().to_owned());
    terminal.exp_eof().unwrap();
    assert_eq!(secrets::text(&secret).len(), 43, "256 bits");

    // It authenticates the client; a wrong one does not.
    let token = async |secret: &str| {
        let form = [
            ("grant_type", "authorization_code"),
            ("code", "unknown"),
            ("redirect_uri", "https://ward.example/callback"),
            ("code_verifier", "a-verifier-of-forty-three-characters-or-more-0"),
            ("client_id", &*id),
            ("client_secret", secret),
        ];
        operated.server.post_form("/token", &form).await
    };
    assert_eq!(token(secrets::text(&secret)).await.1["error"], "invalid_grant");
    assert_eq!(token("wrong").await.1["error"], "invalid_client");
    let list = operated.ok(&["clients", "list", "--json"]).await;
    let list = list + &operated.ok(&["--log", "trace", "clients", "list"]).await;
    secrets::assert_absent(std::slice::from_ref(&secret), list.as_bytes(), "the list");
    for (path, bytes) in files(&operated.server.place.data_dir()) {
        secrets::assert_absent(std::slice::from_ref(&secret), &bytes, &path.display().to_string());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn grants_are_listed_by_owner_and_client() {
    let operated = Operated::new().await;
    let (app, other_app) = (operated.register().await, operated.register().await);
    let first = operated.connect(&app, EMAIL).await;
    let second = operated.connect(&other_app, EMAIL).await;
    let others = operated.connect(&app, OTHER_EMAIL).await;
    let all = operated.json(&["grants", "list"]).await;
    assert_eq!(ids(&all), [first.id.as_str(), second.id.as_str(), others.id.as_str()]);
    let owner = first.subject.as_str();
    assert_eq!(
        ids(&operated.json(&["grants", "list", "--owner", owner]).await),
        [first.id.as_str(), second.id.as_str()]
    );
    assert_eq!(
        ids(&operated.json(&["grants", "list", "--client", &app]).await),
        [first.id.as_str(), others.id.as_str()]
    );
    let both = operated.json(&["grants", "list", "--client", &app, "--owner", owner]).await;
    assert_eq!(ids(&both), [first.id.as_str()]);
    let table = operated.ok(&["grants", "list"]).await;
    for part in [first.id.as_str(), owner, "127.0.0.1", "models,health,keys", &first.reference, "active"] {
        assert!(table.contains(part), "{part}: {table}");
    }
    // The operator learns no e-mail address.
    assert!(!table.contains('@') && !all.to_string().contains('@'), "{table}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_name_that_a_client_claims_does_not_act_on_the_terminal() {
    let operated = Operated::new().await;
    let body =
        serde_json::json!({"client_name": HOSTILE_NAME, "redirect_uris": ["http://127.0.0.1/callback"]});
    let register = operated.server.http.post(operated.server.at("/register"));
    let register = register.header("content-type", "application/json").body(body.to_string());
    let (_, client) =
        crate::common::hosted_server::status_and_json(operated.server.send(register).await).await;
    operated.connect(client["client_id"].as_str().unwrap(), EMAIL).await;
    let table = operated.ok(&["grants", "list"]).await;
    assert!(table.contains("Evil") && !table.contains(['\u{1b}', '\u{202e}']), "{table:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn grants_are_revoked_with_their_keys_and_nobody_elses() {
    let operated = Operated::new().await;
    let app = operated.register().await;
    let (first, second) = (operated.connect(&app, EMAIL).await, operated.connect(&app, EMAIL).await);
    let third = operated.connect(&app, EMAIL).await;
    let others = operated.connect(&app, OTHER_EMAIL).await;
    let (code, _, err) = operated.run(&["grants", "revoke", "--owner", first.subject.as_str()]).await;
    assert!(code == Some(2) && err.contains("--yes"), "{err}");
    let unknown = ["grants", "revoke", first.id.as_str(), "no-such-grant", "--yes"];
    let (code, _, err) = operated.run(&unknown).await;
    assert!(code == Some(1) && err.contains("grants list"), "{err}");
    assert_eq!(operated.live_keys(EMAIL), 3, "nothing was done");

    operated.ok(&["grants", "revoke", first.id.as_str(), "--yes"]).await;
    assert!(!operated.is_active(&first.id).await && operated.is_active(&second.id).await);
    assert_eq!(operated.live_keys(EMAIL), 2);

    let mut terminal = operated.terminal(&["grants", "revoke", second.id.as_str()]);
    terminal.exp_string("Revoke 1 grant of 1 person?").unwrap();
    terminal.exp_string("to continue: ").unwrap();
    terminal.send_line("no").unwrap();
    terminal.exp_string("Cancelled.").unwrap();
    terminal.exp_eof().unwrap();
    assert!(operated.is_active(&second.id).await);

    let told = operated.ok(&["grants", "revoke", "--owner", second.subject.as_str(), "--yes"]).await;
    assert!(told.contains(second.id.as_str()) && told.contains(third.id.as_str()), "{told}");
    assert_eq!((operated.live_keys(EMAIL), operated.live_keys(OTHER_EMAIL)), (0, 1));
    assert!(operated.is_active(&others.id).await);

    operated.ok(&["grants", "revoke", "--client", &app, "--yes"]).await;
    assert_eq!(operated.live_keys(OTHER_EMAIL), 0);
    let (_, audited, _) = operated.run(&["audit", "--tool", "grant", "--json"]).await;
    let entries: Vec<Value> = audited.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(entries.len(), 4, "{audited}");
    assert!(entries.iter().all(|entry| entry["action"] == "ended_by_operator"), "{audited}");
    assert!(entries.iter().any(|entry| entry["owner"] == others.owner().audit_name()), "{audited}");
}

/// A key of a grant is known under the address of BondMCP alone: whoever revokes with another one must not forget it.
#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_names_another_bondmcp_is_told_the_right_one_and_does_nothing() {
    let operated = Operated::new().await;
    let grant = operated.connect(&operated.register().await, EMAIL).await;
    let elsewhere = ["--base-url", "http://127.0.0.1:9", "grants", "revoke", grant.id.as_str(), "--yes"];
    let (code, _, err) = operated.run(&elsewhere).await;
    let flag = format!("--base-url {}", operated.server.place.base_url);
    assert!(code == Some(2) && err.contains(&flag), "{err}");
    assert!(operated.is_active(&grant.id).await);
    assert_eq!(operated.live_keys(EMAIL), 1);
}

/// In an incident, nobody must take a mistyped id for a revocation.
#[tokio::test(flavor = "multi_thread")]
async fn an_owner_or_client_without_grants_is_named() {
    let operated = Operated::new().await;
    operated.connect(&operated.register().await, EMAIL).await;
    for (flag, words) in [("--owner", "of owner nobody"), ("--client", "of client nobody")] {
        let (code, _, err) = operated.run(&["grants", "revoke", flag, "nobody", "--yes"]).await;
        assert!(code == Some(1) && err.contains(words) && err.contains("grants list --public-url"), "{err}");
        let list = operated.ok(&["grants", "list", flag, "nobody"]).await;
        assert_eq!(list, format!("No grants {words} at {}.\n", operated.server.origin));
    }
    let nameless = ["clients", "add", " ", "--redirect-uri", "http://127.0.0.1/callback"];
    let (code, _, err) = operated.run(&nameless).await;
    assert!(code == Some(2) && err.contains("a name"), "{err}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_steps_of_an_authorization_are_shown_by_its_reference() {
    let operated = Operated::new().await;
    let grant = operated.connect(&operated.register().await, EMAIL).await;
    let traces = operated.server.hosted.traces();
    for step in ["request checked", "signed in", "allowed", "code sent"] {
        traces.step(&grant.reference, step).await;
    }
    let told = operated.ok(&["auth", "trace", &grant.reference.to_lowercase()]).await;
    let at = |step| told.find(step).unwrap_or_else(|| panic!("{step}: {told}"));
    assert!(at("request checked") < at("signed in") && at("allowed") < at("code sent"));
    assert!(told.contains(&format!("Grant {}: active", grant.id)), "{told}");
    let json = operated.json(&["auth", "trace", &grant.reference]).await;
    assert_eq!(
        (&json["steps"][2]["step"], &json["grant"]["id"]),
        (&"allowed".into(), &grant.id.as_str().into())
    );
    let (code, _, err) = operated.run(&["auth", "trace", "ZZZZZZZZ"]).await;
    assert!(code == Some(1) && err.contains("a day"), "{err}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_hosted_server_must_be_named_and_have_a_vault() {
    let operated = Operated::new().await;
    let mut unnamed = operated.server.place.command(&["grants", "list"]);
    let (code, _, err) = run(&mut unnamed, "").await;
    assert!(code == Some(2) && err.contains("--public-url") && err.contains("BONDMCP_PUBLIC_URL"), "{err}");
    let mut wrong = operated.command(&["grants", "list"]);
    wrong.env("BONDMCP_PUBLIC_URL", "http://bond.example.com");
    let (code, _, err) = run(&mut wrong, "").await;
    assert!(code == Some(2) && err.contains("--public-url"), "{err}");
    let elsewhere = tempfile::tempdir().unwrap();
    let mut command = operated.command(&["grants", "list"]);
    command.env("BONDMCP_DATA_DIR", elsewhere.path().join("data"));
    let (code, _, err) = run(&mut command, "").await;
    assert!(code == Some(1) && err.contains("There is no vault"), "{err}");
    // Another server in the same vault has none of these.
    operated.connect(&operated.register().await, EMAIL).await;
    let other = ["grants", "list", "--public-url", "https://other.example.com"];
    assert_eq!(operated.ok(&other).await, "No grants at https://other.example.com.\n");
}

/// RFC 9728, section 2 (`scopes_supported`); MCP authorization, "Scope Selection Strategy".
#[tokio::test(flavor = "multi_thread")]
async fn apps_are_offered_what_the_operator_serves_and_allows() {
    let sandbox = sandbox(like_the_seed()).await;
    let place = Place::new(&sandbox);
    let flags = ["--read-only", "--daily-spend", "0.02", "--default-daily-spend", "10"];
    let process = Process::start(&place, &flags).await;
    for path in ["/.well-known/oauth-protected-resource", "/.well-known/oauth-authorization-server"] {
        let metadata = json_of(within(process.get(path).send()).await.unwrap()).await;
        assert_eq!(metadata["scopes_supported"], json!(["models"]), "{path}");
    }
    let refused = within(process.post("/mcp").body("{}").send()).await.unwrap();
    let challenge = refused.headers()["www-authenticate"].to_str().unwrap();
    assert!(challenge.ends_with(r#"scope="models""#), "{challenge}");
    let page = process.browser().await.consent(&process, &place).await;
    for part in [r#"value="models""#, r#"value="0.02""#, "at most $0.02 a day"] {
        assert!(page.contains(part), "{part}: {page}");
    }
    assert!(!page.contains(r#"value="health""#) && !page.contains(r#"value="keys""#), "{page}");
    process.end().await;

    let (code, _, told) = place
        .run(&[
            "http",
            "--public-url",
            "http://localhost:8787",
            "--listen",
            "127.0.0.1:0",
            "--toolsets",
            "session",
        ])
        .await;
    assert!(code == Some(2) && told.contains("--toolsets"), "{told}");
}

/// RFC 6749, section 5.1 (`expires_in`); RFC 9207, section 3 (the metadata says whether responses name the issuer).
#[tokio::test(flavor = "multi_thread")]
async fn the_lifetime_of_tokens_and_the_issuer_in_responses_are_the_operators() {
    let sandbox = sandbox(like_the_seed()).await;
    let place = Place::new(&sandbox);
    for (flags, lifetime, sends_iss) in
        [(&[][..], 900, true), (&["--access-token-lifetime", "60", "--no-iss"], 60, false)]
    {
        let process = Process::start(&place, flags).await;
        let path = "/.well-known/oauth-authorization-server";
        let metadata = json_of(within(process.get(path).send()).await.unwrap()).await;
        let told = metadata.get("authorization_response_iss_parameter_supported");
        assert_eq!(told == Some(&json!(true)), sends_iss, "{metadata}");
        let (client_id, answer) = process.answer(&place).await;
        let iss: Vec<_> = answer.query_pairs().filter(|(name, _)| name == "iss").collect();
        assert_eq!(iss.len(), usize::from(sends_iss), "{answer}");
        let tokens = json_of(process.redeem(&client_id, &parameter(&answer, "code")).await).await;
        assert_eq!(tokens["expires_in"], lifetime);
        process.end().await;
    }
}

/// A challenge for a scope that is not offered would send the host around in a circle.
#[tokio::test(flavor = "multi_thread")]
async fn a_tool_that_is_not_served_is_no_question_of_scopes() {
    let toolsets = vec![Toolset::Models, Toolset::Keys];
    let selection = Selection { toolsets, ..Selection::default() };
    let server = HostedServer::start_with(Setup { selection, ..Setup::default() }).await;
    let (_, tokens) = server.tokens("models").await;
    let token = tokens["access_token"].as_str().unwrap();
    let status = async |tool: &'static str| {
        let params = json!({"name": tool, "arguments": {}});
        server.send(server.modern(token, "tools/call", Some(tool), params)).await.status().as_u16()
    };
    assert_eq!(status("manage_api_keys").await, 403);
    assert_ne!(status("medication_check").await, 403);
}
