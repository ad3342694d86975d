//! Signing in with the three kinds of host, each simulated by rmcp's client: 2026-07-28 and 2025-11-25 with URL
//! elicitation, and hosts without it. Every kind handles every behaviour of the person.
#![allow(clippy::disallowed_types, reason = "this is the host's side")]

use std::{
    process::Stdio,
    sync::{Arc, Mutex},
};

use crate::common::{
    EMAIL, Place, Recorded,
    browser::{Browser, link, text},
    error_of, like_the_seed,
    raw::{Raw, modern_as},
    request, sandbox, secrets, within,
};
use bondmcp_server::{
    sandbox::{Plan, RunningSandbox},
    secret::SecretString,
};
use reqwest::StatusCode;
use rmcp::{
    ClientHandler, RoleClient,
    model::{
        CallToolResult, ClientCapabilities, ClientConfig, ElicitRequestParams, ElicitResult,
        ElicitationAction, ElicitationCapability, Implementation, ProtocolVersion, UrlElicitationCapability,
    },
    service::{ClientLifecycleMode, ClientServiceExt as _, RequestContext, RunningService},
};
use serde_json::json;
use tokio::{
    process::{Child, Command},
    sync::watch,
};

/// The kind of host.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Rounds,
    WhileOpen,
    Answer,
}

const KINDS: [Kind; 3] = [Kind::Rounds, Kind::WhileOpen, Kind::Answer];

/// The person's behaviour on getting a link.
#[derive(Clone, Debug)]
enum Person {
    SignsIn(SecretString),
    /// A wrong password first.
    Mistypes(SecretString),
    /// Creates an account whose address this sandbox verifies meanwhile.
    IsUnverified(SecretString, Arc<RunningSandbox>),
    Declines,
    Cancels,
    /// Agrees to open the page, and then does something else.
    WalksAway,
    /// Ignores the question.
    Hesitates,
}

impl Person {
    async fn visits(&self, url: &str) -> ElicitationAction {
        match self {
            Self::SignsIn(password) => {
                assert_eq!(Browser::open(url).await.sign_in(password).await.status(), StatusCode::OK);
            }
            Self::Mistypes(password) => {
                let browser = Browser::open(url).await;
                let refused = browser.sign_in(&"wrong-password-1".into()).await;
                assert_eq!(refused.status(), StatusCode::UNPROCESSABLE_ENTITY);
                assert_eq!(browser.sign_in(password).await.status(), StatusCode::OK);
            }
            Self::IsUnverified(password, sandbox) => {
                let browser = Browser::open(url).await;
                assert!(text(browser.sign_in(password).await).await.contains("Check your e-mail"));
                sandbox.verify(EMAIL);
                let checked = browser.post("check", &[]).send().await.unwrap();
                assert!(text(checked).await.contains("You are signed in"));
            }
            Self::Declines => return ElicitationAction::Decline,
            Self::Cancels => return ElicitationAction::Cancel,
            Self::WalksAway => {}
            Self::Hesitates => std::future::pending().await,
        }
        ElicitationAction::Accept
    }
}

struct Handler {
    kind: Kind,
    person: Person,
    links: Links,
}

/// The links that the person was given.
type Links = Arc<watch::Sender<Vec<String>>>;

impl ClientHandler for Handler {
    fn get_info(&self) -> ClientConfig {
        let mut capabilities = ClientCapabilities::default();
        if self.kind != Kind::Answer {
            let url = ElicitationCapability::new().with_url(UrlElicitationCapability::new());
            capabilities.elicitation = Some(url);
        }
        ClientConfig::new(capabilities, Implementation::new("a-host-of-the-tests", "1"))
            .with_protocol_version(ProtocolVersion::V_2025_11_25)
    }

    async fn create_elicitation(
        &self,
        request: ElicitRequestParams,
        _: RequestContext<RoleClient>,
    ) -> Result<ElicitResult, rmcp::ErrorData> {
        let ElicitRequestParams::UrlElicitationParams { url, message, .. } = request else {
            panic!("a form was asked for");
        };
        if let Person::SignsIn(_) = self.person {
            let page = text(reqwest::get(&url).await.unwrap()).await;
            let code = message.strip_prefix("Code ").unwrap();
            assert!(page.contains(&code[..7]) && page.contains("a-host-of-the-tests"), "{message}: {page}");
        }
        self.links.send_modify(|links| links.push(url.clone()));
        Ok(ElicitResult::new(self.person.visits(&url).await))
    }
}

/// A host with the server that it has started.
struct Host {
    client: RunningService<RoleClient, Handler>,
    child: Child,
    links: Links,
    kind: Kind,
    person: Person,
    seen: Arc<Mutex<Vec<u8>>>,
}

impl Host {
    async fn start(place: &Place, kind: Kind, person: Person) -> Self {
        Self::spawn(&mut place.command(&["stdio"]), kind, person).await
    }

    async fn spawn(command: &mut Command, kind: Kind, person: Person) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (seen, links) = (Arc::default(), Links::new(watch::Sender::new(vec![])));
        let handler = Handler { kind, person: person.clone(), links: Arc::clone(&links) };
        let lifecycle = match kind {
            Kind::Rounds => {
                ClientLifecycleMode::Discover { preferred_versions: vec![ProtocolVersion::V_2026_07_28] }
            }
            _ => ClientLifecycleMode::Initialize,
        };
        let output = Recorded { input: child.stdout.take().unwrap(), seen: Arc::clone(&seen) };
        let transport = (output, child.stdin.take().unwrap());
        let client = within(handler.serve_with_lifecycle(transport, lifecycle)).await.unwrap();
        Self { client, child, links, kind, person, seen }
    }

    /// `list_models`; a host that cannot show links passes one on, and calls again when the person is done.
    async fn list_models(&self) -> CallToolResult {
        let call = || within(self.client.call_tool(request("list_models", json!({}))));
        let result = call().await.unwrap();
        let told = serde_json::to_value(&result).unwrap();
        if self.kind != Kind::Answer || !told.to_string().contains("http://127.0.0.1:") {
            return result;
        }
        let url = link(&told);
        self.links.send_modify(|links| links.push(url.clone()));
        self.person.visits(&url).await;
        call().await.unwrap()
    }

    fn links(&self) -> Vec<String> {
        self.links.borrow().clone()
    }

    /// Waits until the person has this many links.
    async fn asked(&self, times: usize) {
        within(self.links.subscribe().wait_for(|links| links.len() >= times)).await.unwrap();
    }

    async fn end(mut self) -> Vec<u8> {
        within(self.client.cancel()).await.unwrap();
        assert!(within(self.child.wait()).await.unwrap().success());
        self.seen.lock().unwrap().clone()
    }
}

fn count(result: &CallToolResult) -> &serde_json::Value {
    assert_ne!(result.is_error, Some(true), "{result:?}");
    &result.structured_content.as_ref().unwrap()["count"]
}

/// Each has a separate place, so that nothing is shared.
async fn place() -> (Arc<RunningSandbox>, Place) {
    let sandbox = sandbox(like_the_seed()).await;
    let place = Place::new(&sandbox);
    (Arc::new(sandbox), place)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_original_call_is_finished_once_the_person_has_signed_in() {
    for kind in KINDS {
        let (_sandbox, place) = place().await;
        let host = Host::start(&place, kind, Person::SignsIn(place.password.clone())).await;
        assert_eq!(count(&host.list_models().await), 3, "{kind:?}");
        assert_eq!(host.links().len(), 1, "{kind:?}");
        secrets::assert_absent(std::slice::from_ref(&place.password), &host.end().await, "what the host saw");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_and_an_unverified_address_are_sorted_out_on_the_page() {
    for kind in KINDS {
        let (_sandbox, place) = place().await;
        let host = Host::start(&place, kind, Person::Mistypes(place.password.clone())).await;
        assert_eq!(count(&host.list_models().await), 3, "{kind:?}");

        let sandbox = Arc::new(sandbox(like_the_seed()).await);
        let place = Place { base_url: sandbox.base_url(), ..place };
        sandbox.add_account(EMAIL, &place.password, Plan::Unlimited, false);
        let person = Person::IsUnverified(place.password.clone(), Arc::clone(&sandbox));
        let host = Host::start(&place, kind, person).await;
        assert_eq!(count(&host.list_models().await), 3, "{kind:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn declining_and_cancelling_end_the_call_and_leave_the_page() {
    for kind in [Kind::Rounds, Kind::WhileOpen] {
        for person in [Person::Declines, Person::Cancels] {
            let (_sandbox, place) = place().await;
            let host = Host::start(&place, kind, person.clone()).await;
            for _ in 0..2 {
                let error = error_of(&host.list_models().await);
                assert_eq!(error["kind"], "sign_in_required");
                let solution = error["solution"].as_str().unwrap();
                assert!(solution.contains("login` in a terminal"), "{kind:?} {person:?} {error}");
            }
            let links = host.links();
            assert!(links.len() == 2 && links.iter().all(|link| *link == links[0]), "{links:?}");
            Browser::open(&links[0]).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sign_in_that_expires_is_reported_and_the_next_call_gets_a_new_page() {
    let runs_out = async |kind| {
        let (_sandbox, place) = place().await;
        let mut command = place.command(&["stdio", "--sign-in-timeout", "1"]);
        let host = Host::spawn(&mut command, kind, Person::WalksAway).await;
        if kind == Kind::Answer {
            host.list_models().await;
            let url = host.links()[0].clone();
            // The page reloads by itself at the end, as this does. It may have ended before the second call, which has
            // then begun another one in its place.
            let http = reqwest::Client::new();
            let open =
                async || http.get(&url).send().await.is_ok_and(|page| page.status() != StatusCode::GONE);
            within(async { while open().await {} }).await;
        } else {
            let error = error_of(&host.list_models().await);
            assert!(error["message"].as_str().unwrap().contains("link expired"), "{kind:?} {error}");
        }
        host.list_models().await;
        let links = host.links();
        assert_ne!(links.first(), links.last(), "{kind:?}");
    };
    tokio::join!(runs_out(Kind::Rounds), runs_out(Kind::WhileOpen), runs_out(Kind::Answer));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_ends_with_its_link() {
    let (_sandbox, place) = place().await;
    let mut command = place.command(&["stdio", "--sign-in-timeout", "1"]);
    let host = Host::spawn(&mut command, Kind::WhileOpen, Person::Hesitates).await;
    let error = error_of(&host.list_models().await);
    assert!(error["message"].as_str().unwrap().contains("link expired"), "{error}");
    let seen = String::from_utf8(host.seen.lock().unwrap().clone()).unwrap();
    assert!(seen.contains("notifications/cancelled"), "{seen}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_ends_when_the_person_signs_in_with_its_link() {
    let (_sandbox, place) = place().await;
    let host = Host::start(&place, Kind::WhileOpen, Person::Hesitates).await;
    let person = async {
        host.asked(1).await;
        Browser::open(&host.links()[0]).await.sign_in(&place.password).await.status()
    };
    let (result, signed_in) = tokio::join!(host.list_models(), within(person));
    assert_eq!((count(&result), signed_in), (&json!(3), StatusCode::OK));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_calls_at_once_share_one_page() {
    for kind in [Kind::Rounds, Kind::WhileOpen] {
        let (_sandbox, place) = place().await;
        let host = Host::start(&place, kind, Person::WalksAway).await;
        let person = async {
            host.asked(2).await;
            let links = host.links();
            assert_eq!(links[0], links[1]);
            Browser::open(&links[0]).await.sign_in(&place.password).await.status()
        };
        let (one, two, signed_in) = tokio::join!(host.list_models(), host.list_models(), within(person));
        assert_eq!((count(&one), count(&two), signed_in), (&json!(3), &json!(3), StatusCode::OK), "{kind:?}");
    }
}

/// Concurrently, since each of them waits for the killed process's lease to expire.
#[tokio::test(flavor = "multi_thread")]
async fn after_a_kill_every_host_gets_a_new_page() {
    tokio::join!(
        the_next_call_starts_afresh(Kind::Rounds),
        the_next_call_starts_afresh(Kind::WhileOpen),
        the_next_call_starts_afresh(Kind::Answer),
        a_host_whose_page_is_anothers_gets_a_new_one()
    );
}

async fn the_next_call_starts_afresh(kind: Kind) {
    let (_sandbox, place) = place().await;
    let mut host = Host::start(&place, kind, Person::WalksAway).await;
    let waiting = async { host.list_models().await };
    if kind == Kind::Answer {
        waiting.await;
    } else {
        tokio::select! {
            result = waiting => panic!("{result:?}"),
            () = host.asked(1) => {}
        }
    }
    host.child.kill().await.unwrap();

    let next = Host::start(&place, kind, Person::SignsIn(place.password.clone())).await;
    assert_eq!(count(&next.list_models().await), 3, "{kind:?}");
    assert_ne!(next.links(), host.links(), "{kind:?}");
}

async fn a_host_whose_page_is_anothers_gets_a_new_one() {
    let (_sandbox, place) = place().await;
    let mut one = Host::start(&place, Kind::Answer, Person::WalksAway).await;
    one.list_models().await;
    let two = Host::start(&place, Kind::Rounds, Person::WalksAway).await;
    let killed = async {
        two.asked(1).await;
        one.child.kill().await.unwrap();
    };
    let (result, ()) = tokio::join!(two.list_models(), killed);
    assert!(error_of(&result)["message"].as_str().unwrap().contains("has ended"), "{result:?}");
    tokio::select! {
        result = two.list_models() => panic!("{result:?}"),
        () = two.asked(2) => {}
    }
    let links = two.links();
    assert_ne!(links[0], links[1]);
    Browser::open(&links[1]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hosts_share_one_page_for_one_profile() {
    let (sandbox, place) = place().await;
    let one = Host::start(&place, Kind::Rounds, Person::WalksAway).await;
    let two = Host::start(&place, Kind::WhileOpen, Person::WalksAway).await;
    let three = Host::start(&place, Kind::Answer, Person::WalksAway).await;
    let person = async {
        one.asked(1).await;
        two.asked(1).await;
        three.list_models().await;
        let links = [one.links(), two.links(), three.links()];
        assert!(links.iter().all(|seen| *seen == links[0]), "{links:?}");
        Browser::open(&links[0][0]).await.sign_in(&place.password).await.status()
    };
    let (first, second, signed_in) = tokio::join!(one.list_models(), two.list_models(), within(person));
    assert_eq!((count(&first), count(&second), signed_in), (&json!(3), &json!(3), StatusCode::OK));
    assert_eq!(count(&three.list_models().await), 3);
    assert_eq!(sandbox.count("POST /auth/login"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_is_good_for_one_round() {
    let (_sandbox, place) = place().await;
    let mut raw = Raw::start(&place);
    let round = |id: u32, state: Option<&str>| {
        let mut params = json!({"name": "list_models", "arguments": {}});
        if let Some(state) = state {
            params["requestState"] = state.into();
            params["inputResponses"] = json!({"person": {"action": "accept"}});
        }
        modern_as(id, "tools/call", params, json!({"elicitation": {"url": {}}}))
    };
    let first = raw.ask(round(1, None)).await;
    let url = first["result"]["inputRequests"]["person"]["params"]["url"].as_str().unwrap();
    Browser::open(url).await.sign_in(&place.password).await;
    let state = first["result"]["requestState"].as_str();
    assert_eq!(raw.ask(round(2, state)).await["result"]["structuredContent"]["count"], 3);
    assert_eq!(raw.ask(round(3, state)).await["error"]["code"], -32602);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fixed_port_that_is_taken_is_said_to_be() {
    let (_sandbox, place) = place().await;
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    for kind in KINDS {
        let mut command = place.command(&["stdio", "--sign-in-port", &port]);
        let host = Host::spawn(&mut command, kind, Person::WalksAway).await;
        let told = error_of(&host.client.call_tool(request("list_models", json!({}))).await.unwrap());
        assert!(told["message"].as_str().unwrap().contains(&port), "{told}");
        assert!(told["solution"].as_str().unwrap().contains("--sign-in-port"), "{told}");
    }
    drop(taken);
    let mut command = place.command(&["stdio", "--sign-in-port", &port]);
    let host = Host::spawn(&mut command, Kind::Answer, Person::SignsIn(place.password.clone())).await;
    assert_eq!(count(&host.list_models().await), 3);
    assert!(host.links()[0].contains(&format!(":{port}/")));
}

/// Uses a program in place of the browser that records what it should open.
#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn the_browser_is_opened_once_and_only_when_the_operator_wants_it() {
    let opened = async |flag: Option<&str>, kind, opened| {
        let (_sandbox, place) = place().await;
        let (path, note) = browser_that_notes(&place);
        let mut command = place.command(&["stdio"]);
        command.args(flag).env("PATH", path);
        let host = Host::spawn(&mut command, kind, Person::Declines).await;
        host.list_models().await;
        host.list_models().await;
        if opened {
            noted(&note).await;
        }
        host.end().await;
        assert_eq!(note.exists(), opened, "{flag:?} {kind:?}");
        if opened {
            assert_eq!(std::fs::read_to_string(&note).unwrap().matches("the end").count(), 1);
        }
    };
    tokio::join!(
        opened(Some("--open-browser"), Kind::Answer, true),
        opened(None, Kind::Answer, false),
        opened(Some("--open-browser"), Kind::WhileOpen, false)
    );
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn the_browser_learns_the_link_from_a_private_file_and_inherits_nothing() {
    use std::os::unix::fs::PermissionsExt as _;

    let (_sandbox, place) = place().await;
    let (path, note) = browser_that_notes(&place);
    let mut command = place.command(&["stdio", "--open-browser"]);
    command.env("PATH", path).env("LANG", "de_CH.UTF-8");
    let host = Host::spawn(&mut command, Kind::Answer, Person::WalksAway).await;
    host.list_models().await;
    let link = host.links()[0].clone();
    let noted = noted(&note).await;
    let (argument, environment) = noted.split_once('\n').unwrap();
    assert!(!argument.contains("http"), "{argument}");
    assert!(environment.contains("LANG=de_CH.UTF-8") && !environment.contains("BONDMCP_"), "{environment}");
    secrets::assert_absent(std::slice::from_ref(&place.sealing_key), noted.as_bytes(), "the browser's start");
    let file = std::path::Path::new(argument);
    assert!(std::fs::read_to_string(file).unwrap().contains(&format!("0; url={link}\"")));
    assert_eq!(std::fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600);
    // The file is removed with the sign-in.
    Browser::open(&link).await.sign_in(&place.password).await;
    let removed = async {
        while file.exists() {
            tokio::task::yield_now().await;
        }
    };
    within(removed).await;
}

/// A `PATH` with a program in place of the browser, and the file in which that records its argument and its
/// environment.
#[cfg(unix)]
fn browser_that_notes(place: &Place) -> (String, std::path::PathBuf) {
    use std::os::unix::fs::PermissionsExt as _;

    let (bin, note) = (place.directory.path().join("bin"), place.directory.path().join("opened"));
    std::fs::create_dir(&bin).unwrap();
    let browser = bin.join("xdg-open");
    let script = format!("#!/bin/sh\n{{ echo \"$1\"; env; echo the end; }} >> '{}'\n", note.display());
    std::fs::write(&browser, script).unwrap();
    std::fs::set_permissions(&browser, std::fs::Permissions::from_mode(0o755)).unwrap();
    (format!("{}:/usr/bin:/bin", bin.display()), note)
}

#[cfg(unix)]
async fn noted(note: &std::path::Path) -> String {
    let read = async {
        loop {
            match std::fs::read_to_string(note) {
                Ok(noted) if noted.ends_with("the end\n") => return noted,
                _ => tokio::task::yield_now().await,
            }
        }
    };
    within(read).await
}
