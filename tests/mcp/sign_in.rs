//! Signing in outside the chat: the page in a browser without scripts, and the three ways in which a host gives the
//! person the link.

use std::{process::Stdio, time::Duration};

use crate::common::{
    EMAIL, Place, Server, accounts,
    browser::{Browser, link, text},
    error_of, host,
    raw::{Raw, call, modern_as},
    request, secrets, signed_in, signed_out, within,
};
use bondmcp_server::{
    mcp::{BondMcp, Limits, Selection},
    sandbox::Fault,
    sign_in::Options,
};
use reqwest::{RequestBuilder, StatusCode};
use rmcp::{RoleClient, ServiceExt as _, model::ClientConfig, service::RunningService};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio_util::sync::CancellationToken;

const LOGIN: &str = "POST /auth/login";

/// A server in this process with a page, and a host without elicitation.
async fn with_page(place: &Place, options: Options) -> RunningService<RoleClient, ClientConfig> {
    let (accounts, _) = accounts(place);
    let (selection, limits, stopping) = (Selection::default(), Limits::default(), CancellationToken::new());
    let server = BondMcp::new(accounts, Some(options), &selection, limits, stopping).unwrap();
    let (ours, theirs) = tokio::io::duplex(1 << 16);
    tokio::spawn(crate::common::serve(server, ours));
    within(host().serve(theirs)).await.unwrap()
}

fn url_elicitation() -> Value {
    json!({"elicitation": {"url": {}}})
}

/// A `list_models` of 2026-07-28 by a host that can open links, with more in its parameters.
fn round(id: u32, more: &Value) -> Value {
    let mut params = json!({"name": "list_models", "arguments": {}});
    for (name, value) in more.as_object().unwrap() {
        params[name] = value.clone();
    }
    modern_as(id, "tools/call", params, url_elicitation())
}

fn retry(id: u32, first: &Value, action: &str) -> Value {
    let state = &first["result"]["requestState"];
    round(id, &json!({"requestState": state, "inputResponses": {"person": {"action": action}}}))
}

fn asked_url(first: &Value) -> String {
    assert_eq!(first["result"]["resultType"], "input_required", "{first}");
    let asked = &first["result"]["inputRequests"]["person"];
    assert_eq!((&asked["method"], &asked["params"]["mode"]), (&json!("elicitation/create"), &json!("url")));
    asked["params"]["url"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_without_elicitation_passes_the_link_on() {
    let (_sandbox, place) = signed_out().await;
    let server = Server::start(&place).await;
    let told = server.ok("login", json!({})).await;
    assert_eq!(told["status"], "sign_in_required");
    assert!(told["next"].as_str().unwrap().contains(" login` in a terminal"), "{told}");
    let error = server.error("list_models", json!({})).await;
    assert_eq!(
        (&error["kind"], link(&error)),
        (&json!("sign_in_required"), told["sign_in_url"].as_str().unwrap().into())
    );

    let browser = Browser::open(&link(&told)).await;
    assert!(text(browser.sign_in(&place.password).await).await.contains("You are signed in"));
    assert_eq!(server.ok("list_models", json!({})).await["count"], 3);
    assert_eq!(server.ok("login", json!({})).await["account"], EMAIL);
    let seen = server.end().await;
    secrets::assert_absent(std::slice::from_ref(&place.password), &seen, "what the host saw");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_with_the_request_state_finishes_the_original_call() {
    let (_sandbox, place) = signed_out().await;
    let mut raw = Raw::start(&place);
    let first = raw.ask(round(1, &json!({}))).await;
    let browser = Browser::open(&asked_url(&first)).await;
    raw.send(&retry(2, &first, "accept").to_string()).await;
    assert_eq!(browser.sign_in(&place.password).await.status(), StatusCode::OK);
    let answer = raw.next().await;
    assert_eq!((&answer["id"], &answer["result"]["structuredContent"]["count"]), (&json!(2), &json!(3)));
    assert_eq!(raw.end().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn in_2025_11_25_the_host_is_asked_while_the_call_is_open() {
    let (_sandbox, place) = signed_out().await;
    let mut raw = Raw::start(&place);
    raw.initialize_as("2025-11-25", url_elicitation()).await;
    let asked = raw.ask(call(2, "list_models", json!({}))).await;
    assert_eq!((&asked["method"], &asked["params"]["mode"]), (&json!("elicitation/create"), &json!("url")));
    let browser = Browser::open(asked["params"]["url"].as_str().unwrap()).await;
    raw.send(&json!({"jsonrpc": "2.0", "id": asked["id"], "result": {"action": "accept"}}).to_string()).await;
    browser.sign_in(&place.password).await;
    let complete = raw.next().await;
    assert_eq!(complete["method"], "notifications/elicitation/complete");
    assert_eq!(complete["params"]["elicitationId"], asked["params"]["elicitationId"]);
    assert_eq!(raw.next().await["result"]["structuredContent"]["count"], 3);
    assert_eq!(raw.end().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn declining_and_cancelling_leave_the_page_and_name_the_command() {
    for (action, has_link) in [("decline", false), ("cancel", true)] {
        let (_sandbox, place) = signed_out().await;
        let mut raw = Raw::start(&place);
        let first = raw.ask(round(1, &json!({}))).await;
        let browser = Browser::open(&asked_url(&first)).await;
        let answer = raw.ask(retry(2, &first, action)).await;
        let told = answer["result"]["content"][0]["text"].as_str().unwrap();
        assert!(
            answer["result"]["isError"] == true && told.starts_with("Not signed in to BondMCP"),
            "{answer}"
        );
        assert!(told.contains("login` in a terminal"), "{told}");
        assert_eq!(told.contains(&asked_url(&first)), has_link, "{told}");
        let again = raw.ask(round(3, &json!({}))).await;
        assert_eq!(asked_url(&again), asked_url(&first));
        assert_eq!(browser.sign_in(&place.password).await.status(), StatusCode::OK);

        let place = Place { directory: tempfile::tempdir().unwrap(), ..place };
        let mut raw = Raw::start(&place);
        raw.initialize_as("2025-11-25", url_elicitation()).await;
        let asked = raw.ask(call(2, "list_models", json!({}))).await;
        let response = json!({"jsonrpc": "2.0", "id": asked["id"], "result": {"action": action}});
        let told = raw.ask(response).await.to_string();
        assert!(told.contains("login` in a terminal"), "{told}");
        assert_eq!(told.contains(asked["params"]["url"].as_str().unwrap()), has_link, "{told}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_that_was_changed_or_belongs_to_another_call_is_refused() {
    let (_sandbox, place) = signed_out().await;
    let mut raw = Raw::start(&place);
    let first = raw.ask(round(1, &json!({}))).await;
    let state = first["result"]["requestState"].as_str().unwrap();
    let mut changed = state.to_owned();
    let last = changed.pop().unwrap();
    changed.push(if last == 'A' { 'B' } else { 'A' });
    for (name, arguments, state) in [
        ("list_models", json!({}), changed.as_str()),
        ("list_models", json!({}), "nonsense"),
        ("list_models", json!({ "refresh": true }), state),
        ("login", json!({}), state),
    ] {
        let params = json!({"name": name, "arguments": arguments, "requestState": state});
        let answer = raw.ask(modern_as(2, "tools/call", params, url_elicitation())).await;
        assert_eq!(answer["error"]["code"], -32602, "{answer}");
    }
    // None of that has used it up, and another process accepts it.
    let mut other = Raw::start(&place);
    assert!(other.ask(retry(2, &first, "decline")).await.to_string().contains("declined"));
    for process in [&mut other, &mut raw] {
        assert_eq!(process.ask(retry(3, &first, "decline")).await["error"]["code"], -32602, "replayed");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_at_once_share_one_page() {
    let (sandbox, place) = signed_out().await;
    let mut raw = Raw::start(&place);
    let one = raw.ask(round(1, &json!({}))).await;
    let two = raw.ask(round(2, &json!({}))).await;
    assert_eq!(asked_url(&one), asked_url(&two));
    raw.send(&retry(3, &one, "accept").to_string()).await;
    raw.send(&retry(4, &two, "accept").to_string()).await;
    Browser::open(&asked_url(&one)).await.sign_in(&place.password).await;
    for _ in 0..2 {
        assert_eq!(raw.next().await["result"]["structuredContent"]["count"], 3);
    }
    assert_eq!(sandbox.count(LOGIN), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_is_shown_on_the_page_and_allowed_four_times() {
    let (sandbox, place) = signed_out().await;
    let server = Server::start(&place).await;
    let told = server.ok("login", json!({})).await;
    let browser = Browser::open(&link(&told)).await;
    for _ in 0..4 {
        let refused = browser.sign_in(&"wrong-password-1".into()).await;
        assert_eq!(refused.status(), StatusCode::UNPROCESSABLE_ENTITY);
        let page = text(refused).await;
        assert!(page.contains(r#"role="alert""#) && page.contains(EMAIL) && !page.contains("wrong-password"));
    }
    assert_eq!(browser.sign_in(&"wrong-password-1".into()).await.status(), StatusCode::GONE);
    assert_eq!(browser.sign_in(&place.password).await.status(), StatusCode::GONE);
    assert_eq!(sandbox.count(LOGIN), 5);
    assert_ne!(link(&server.ok("login", json!({})).await), link(&told));
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_passwords_at_once_are_not_tried_more_often_than_one_by_one() {
    let (sandbox, place) = signed_out().await;
    let server = Server::start(&place).await;
    let browser = Browser::open(&link(&server.ok("login", json!({})).await)).await;
    let wrong = "wrong-password-1".into();
    futures_util::future::join_all((0..20).map(|_| browser.sign_in(&wrong))).await;
    assert_eq!(sandbox.count(LOGIN), 5);
}

/// Runs in this process, where the polling interval can be short.
#[tokio::test(flavor = "multi_thread")]
async fn a_new_account_waits_for_its_mail_and_goes_on_by_itself() {
    let (sandbox, place) = signed_out().await;
    let options = Options { verification_poll: Duration::from_millis(5), ..Options::default() };
    let client = with_page(&place, options).await;
    let call = async |tool| within(client.call_tool(request(tool, json!({})))).await.unwrap();
    let told = call("register").await.structured_content.unwrap();
    let browser = Browser::open(told["sign_in_url"].as_str().unwrap()).await;
    let fields = [("email", "new@example.com"), ("password", "a-new-password-1"), ("remember", "yes")];
    let page = text(within(browser.post("create", &fields).send()).await.unwrap()).await;
    assert!(page.contains("Check your e-mail") && page.contains("new@example.com"));
    within(sandbox.faults().arrived(LOGIN, 1)).await;
    for tool in ["register", "login"] {
        assert_eq!(call(tool).await.structured_content.unwrap()["status"], "verification_required");
    }
    assert_eq!(error_of(&call("list_models").await)["kind"], "email_not_verified");
    sandbox.verify("new@example.com");
    // The page reloads by itself, as this does.
    let looks = async {
        while !text(browser.http.get(&browser.url).send().await.unwrap()).await.contains("You are signed in")
        {
        }
    };
    within(looks).await;
    assert_eq!(call("list_models").await.structured_content.unwrap()["count"], 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn declining_one_of_two_prompts_ends_that_call_alone() {
    let (_sandbox, place) = signed_out().await;
    let mut raw = Raw::start(&place);
    let one = raw.ask(round(1, &json!({}))).await;
    let two = raw.ask(round(2, &json!({}))).await;
    assert!(raw.ask(retry(3, &one, "decline")).await.to_string().contains("declined"));
    raw.send(&retry(4, &two, "accept").to_string()).await;
    let signed_in = Browser::open(&asked_url(&two)).await.sign_in(&place.password).await;
    assert_eq!(signed_in.status(), StatusCode::OK);
    assert_eq!(raw.next().await["result"]["structuredContent"]["count"], 3);

    let place = Place { directory: tempfile::tempdir().unwrap(), ..place };
    let mut raw = Raw::start(&place);
    raw.initialize_as("2025-11-25", url_elicitation()).await;
    let one = raw.ask(call(2, "list_models", json!({}))).await;
    let two = raw.ask(call(3, "list_models", json!({}))).await;
    let answer =
        |asked: &Value, action| json!({"jsonrpc": "2.0", "id": asked["id"], "result": {"action": action}});
    assert!(raw.ask(answer(&one, "cancel")).await.to_string().contains("Not signed in"));
    raw.send(&answer(&two, "accept").to_string()).await;
    let browser = Browser::open(two["params"]["url"].as_str().unwrap()).await;
    assert_eq!(browser.sign_in(&place.password).await.status(), StatusCode::OK);
    assert_eq!(raw.next().await["method"], "notifications/elicitation/complete");
    assert_eq!(raw.next().await["result"]["structuredContent"]["count"], 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn declining_leaves_the_page_to_those_who_only_showed_its_link() {
    let (_sandbox, place) = signed_out().await;
    let mut raw = Raw::start(&place);
    let asked = raw.ask(round(1, &json!({}))).await;
    let url = asked_url(&asked);
    let shown = Server::start(&place).await;
    assert_eq!(link(&shown.ok("login", json!({})).await), url);
    assert!(raw.ask(retry(2, &asked, "decline")).await.to_string().contains("declined"));
    assert_eq!(Browser::open(&url).await.sign_in(&place.password).await.status(), StatusCode::OK);
    assert_eq!(shown.ok("list_models", json!({})).await["count"], 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_is_cancelled_takes_its_question_back() {
    let (_sandbox, place) = signed_out().await;
    let mut raw = Raw::start(&place);
    raw.initialize_as("2025-11-25", url_elicitation()).await;
    let asked = raw.ask(call(2, "list_models", json!({}))).await;
    let cancelled = |id: &Value| json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": id}});
    let taken_back = raw.ask(cancelled(&json!(2))).await;
    assert_eq!(
        (&taken_back["method"], &taken_back["params"]["requestId"]),
        (&json!("notifications/cancelled"), &asked["id"])
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_serves_in_place_of_an_account_and_cannot_manage_keys() {
    let (sandbox, place) = signed_in().await;
    assert_eq!(place.run(&["keys", "create", "--name", "mine"]).await.0, Some(0));
    let key = sandbox.secrets_issued().pop().unwrap();

    let elsewhere = Place { directory: tempfile::tempdir().unwrap(), ..place };
    let server = Server::start(&elsewhere).await;
    let browser = Browser::open(&link(&server.ok("login", json!({})).await)).await;
    let wrong = within(browser.post("key", &[("key", "bcp_wrong")]).send()).await.unwrap();
    assert_eq!(wrong.status(), StatusCode::UNPROCESSABLE_ENTITY);
    let page = text(within(browser.post("key", &[("key", secrets::text(&key))]).send()).await.unwrap()).await;
    assert!(page.contains("You are signed in"));
    assert_eq!(server.ok("list_models", json!({})).await["count"], 3);
    assert_eq!(server.ok("auth_status", json!({})).await["credential"], "api_key");
    let error = server.error("manage_api_keys", json!({ "action": "list" })).await;
    assert_eq!(error["kind"], "sign_in_required");
    secrets::assert_absent(&[key], &server.end().await, "what the host saw");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_can_use_the_page_too() {
    let (_sandbox, place) = signed_out().await;
    let mut command = place.command(&["login", "--web"]);
    // No browser is found.
    command.env("PATH", place.directory.path());
    let mut child = command.stdout(Stdio::piped()).stdin(Stdio::null()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let told = within(lines.next_line()).await.unwrap().unwrap();
    let browser = Browser::open(told.rsplit_once(' ').unwrap().1).await;
    browser.sign_in(&place.password).await;
    assert!(within(child.wait()).await.unwrap().success());
    let mut rest = String::new();
    while let Some(line) = within(lines.next_line()).await.unwrap() {
        rest.push_str(&line);
    }
    assert!(rest.contains("Signed in as ada@example.com"), "{rest}");
}

/// Another user of the machine, who answers every request on a free port.
async fn takes_over(link: &str) -> tokio::task::JoinHandle<()> {
    let address = link.split('/').nth(2).unwrap().to_owned();
    let listener = tokio::net::TcpListener::bind(address).await.unwrap();
    let anything = axum::Router::new().fallback(async |body: String| body);
    tokio::spawn(async move { axum::serve(listener, anything).await.unwrap() })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_processs_link_is_not_handed_out_though_another_user_owns_its_port() {
    let (_sandbox, place) = signed_out().await;
    let [killed, joined, other] =
        [Server::start(&place).await, Server::start(&place).await, Server::start(&place).await];
    let shown = async |server: &Server| link(&server.ok("login", json!({})).await);
    let old = shown(&killed).await;
    // This process gave the link out before the kill, the other one did not.
    assert_eq!(shown(&joined).await, old);
    killed.kill().await;
    let impostor = takes_over(&old).await;
    let (one, two) = tokio::join!(shown(&joined), shown(&other));
    assert_eq!(one, two);
    assert_ne!(one, old);
    impostor.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn attacks_on_the_page_come_to_nothing() {
    let (sandbox, place) = signed_out().await;
    let server = Server::start(&place).await;
    let url = link(&server.ok("login", json!({})).await);
    let browser = Browser::open(&url).await;
    let password = secrets::text(&place.password);
    let fields = [("email", EMAIL), ("password", password)];
    let sign_in = || browser.form("sign-in", &fields);
    let status = |request: RequestBuilder| async { within(request.send()).await.unwrap().status() };

    assert_eq!(status(sign_in()).await, StatusCode::FORBIDDEN, "from nowhere");
    for (name, value) in [
        ("origin", "https://evil.example"),
        ("origin", "null"),
        ("sec-fetch-site", "cross-site"),
        ("host", "evil.example"),
        ("host", "localhost.evil.example:80"),
    ] {
        assert_eq!(status(sign_in().header(name, value)).await, StatusCode::FORBIDDEN, "{name}: {value}");
    }
    let framed = sign_in().header("origin", "https://evil.example").header("sec-fetch-site", "same-origin");
    assert_eq!(status(framed).await, StatusCode::FORBIDDEN);
    let guessed = url.replace(&url[url.len() - 10..], "AAAAAAAAAA");
    assert_eq!(status(browser.http.get(&guessed)).await, StatusCode::NOT_FOUND);
    let forged = Browser { http: reqwest::Client::new(), url: url.clone(), form_token: "guessed".into() };
    assert_eq!(status(forged.post("sign-in", &fields)).await, StatusCode::NOT_FOUND);
    let huge = "x".repeat(10 << 20);
    let refused = within(browser.post("sign-in", &[("email", EMAIL), ("password", &huge)]).send()).await;
    assert!(refused.is_err() || refused.unwrap().status() == StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(sandbox.count(LOGIN), 0);

    let markup = [("email", "\"><script>alert(1)</script>@example.com"), ("password", "wrong-password-1")];
    let page = text(within(browser.post("sign-in", &markup).send()).await.unwrap()).await;
    assert!(!page.contains("<script>") && page.contains("&#60;script"), "{page}");

    // Neither scanners nor the failures above invalidated the link; signing in does, for every browser.
    let page = within(browser.http.get(&url).send()).await.unwrap();
    for (name, value) in [
        ("x-frame-options", "DENY"),
        ("cross-origin-resource-policy", "same-origin"),
        ("cache-control", "no-store"),
        ("referrer-policy", "no-referrer"),
        ("x-content-type-options", "nosniff"),
    ] {
        assert_eq!(page.headers()[name], value);
    }
    let policy = page.headers()["content-security-policy"].to_str().unwrap();
    assert!(policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"));
    // Browsers send this from a page without a referrer.
    let ours = sign_in().header("origin", "null").header("sec-fetch-site", "same-origin");
    assert!(status(ours).await.is_success());
    let replayed = Browser { http: reqwest::Client::new(), ..browser }.sign_in(&place.password).await;
    assert!(!text(replayed).await.contains("form"));
    assert_eq!(sandbox.count(LOGIN), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_is_shown_on_the_page_and_the_form_is_kept() {
    let (sandbox, place) = signed_out().await;
    let server = Server::start(&place).await;
    let browser = Browser::open(&link(&server.ok("login", json!({})).await)).await;
    sandbox.faults().next(LOGIN, Fault::Echo);
    let page = text(browser.sign_in(&place.password).await).await;
    secrets::assert_absent(std::slice::from_ref(&place.password), page.as_bytes(), "the page");
    assert!(page.contains(r#"role="alert""#) && page.contains(EMAIL));
    assert!(browser.sign_in(&place.password).await.status().is_success());
}
