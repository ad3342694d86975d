//! A person takes a share of what all requests have in common, with all their apps together, and leaves the rest to the
//! others.

use std::net::SocketAddr;

use crate::common::{EMAIL, Place, fast_time::fast, like_the_seed, raw, sandbox, services::ANALYZE, within};
use bondmcp_server::{
    account::{Accounts, Owner},
    listener::Workers,
    mcp::{BondMcp, Limits, Selection},
    sandbox::{Fault, RunningSandbox},
    transport::http::{self, Authentication, Protection},
};
use futures_util::{StreamExt as _, future::join_all, stream::FuturesUnordered};
use reqwest::{Client, RequestBuilder, Response};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};
use tokio_util::sync::CancellationToken;

const MODELS: &str = "GET /health-ai/models";

/// Five apps of Ada's, and one of each of the others. Their tokens are their names.
const APPS: [&str; 7] = ["ada.one", "ada.two", "ada.three", "ada.four", "ada.five", "grace.one", "eve.one"];

struct Service {
    address: SocketAddr,
    sandbox: RunningSandbox,
    place: Place,
    accounts: Accounts,
    client: Client,
    stopping: CancellationToken,
}

impl Drop for Service {
    fn drop(&mut self) {
        self.stopping.cancel();
    }
}

impl Service {
    async fn start(limits: Limits) -> Self {
        let sandbox = sandbox(like_the_seed()).await;
        let place = Place::new(&sandbox);
        let (accounts, _) = crate::common::accounts(&place);
        let stopping = CancellationToken::new();
        let selection = Selection::default();
        let server = BondMcp::new(accounts.clone(), None, &selection, limits, stopping.clone()).unwrap();
        let tokens = APPS.map(|app| (app.into(), owner(app)));
        let protection = Protection {
            max_sessions: 1,
            max_sessions_overall: 8,
            max_answers: 2,
            max_answers_overall: 3,
            ..Protection::new(Authentication::Tokens(tokens.into()))
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(http::serve(
            listener,
            http::router(&server, protection, &stopping),
            Workers::current(),
            stopping.clone(),
        ));
        Self { address, sandbox, place, accounts, client: Client::new(), stopping }
    }

    fn ask(&self, app: &str, message: &Value) -> RequestBuilder {
        self.client
            .post(format!("http://{}/mcp", self.address))
            .header("accept", "application/json, text/event-stream")
            .header("content-type", "application/json")
            .bearer_auth(app)
            .body(message.to_string())
    }

    async fn call(&self, app: &str, tool: &'static str) -> Value {
        let params = json!({"name": tool, "arguments": {}});
        let request = self
            .ask(app, &raw::modern(1, "tools/call", params))
            .header("mcp-protocol-version", "2026-07-28")
            .header("mcp-method", "tools/call")
            .header("mcp-name", tool);
        let text = within(send(request).await.text()).await.unwrap();
        serde_json::from_str(&text).unwrap()
    }

    /// Opens a session and returns its id.
    async fn session(&self, app: &str) -> String {
        let response = send(self.ask(app, &raw::initialize("2025-11-25", json!({})))).await;
        response.headers()["mcp-session-id"].to_str().unwrap().to_owned()
    }

    /// Sends a request in a session; the answer is a stream.
    async fn ask_in(&self, app: &str, session: &str, message: &Value) -> Response {
        let request = self.ask(app, message).header("mcp-session-id", session);
        send(request.header("mcp-protocol-version", "2025-11-25")).await
    }

    /// Opens a stream that waits for messages of a session.
    async fn stream(&self, app: &str, session: &str) -> Response {
        let request = self.client.get(format!("http://{}/mcp", self.address)).bearer_auth(app);
        let request = request.header("accept", "text/event-stream").header("mcp-session-id", session);
        send(request.header("mcp-protocol-version", "2025-11-25")).await
    }

    /// Begins a request that has no end.
    async fn stall(&self, app: &str, rest: &[u8]) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let head = format!(
            "POST /mcp HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {app}\r\ncontent-type: application/json\r\n\
             accept: application/json, text/event-stream\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(rest).await.unwrap();
        stream
    }
}

fn owner(app: &str) -> Owner {
    Owner::Subject(app.to_owned())
}

async fn send(request: RequestBuilder) -> Response {
    within(request.send()).await.unwrap()
}

/// Returns the answer's status and head.
async fn answer(mut stream: TcpStream) -> (u16, String) {
    let mut answer = Vec::new();
    // A connection may be closed with bytes that nobody has read.
    let _ = stream.read_to_end(&mut answer).await;
    let answer = String::from_utf8(answer).unwrap();
    let status = answer.split(' ').nth(1).unwrap_or_else(|| panic!("{answer:?}")).parse().unwrap();
    (status, answer.to_ascii_lowercase())
}

/// Returns the statuses of the answers, sorted.
async fn statuses(streams: Vec<TcpStream>) -> Vec<u16> {
    let answers = join_all(streams.into_iter().map(answer)).await;
    let mut statuses: Vec<_> = answers.into_iter().map(|(status, _)| status).collect();
    statuses.sort_unstable();
    statuses
}

#[tokio::test]
async fn large_requests_that_have_no_end_keep_nobody_else_out() {
    let service = Service::start(Limits::default()).await;
    // Of the largest, there is room for two of a person and for four at all.
    let largest = b"content-length: 4194303\r\n\r\n{";
    fast(async {
        let mut stalled = FuturesUnordered::new();
        for app in ["ada.one", "ada.two", "ada.one", "ada.two"] {
            stalled.push(answer(service.stall(app, largest).await));
        }
        let small = raw::initialize("2025-11-25", json!({}));
        let meta = json!({"_meta": {"title": "x".repeat(1 << 20)}});
        let large = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": meta});
        for (app, message) in [("ada.one", &small), ("grace.one", &small), ("eve.one", &large)] {
            assert_eq!(send(service.ask(app, message)).await.status(), 200, "{app}");
        }
        for _ in 0..2 {
            let (status, head) = stalled.next().await.unwrap();
            assert!(status == 503 && head.contains("\r\nretry-after: "), "{head}");
        }
        // Two are still waited for. What is refused is read, so that a client that is still sending sees the answer.
        let refused = send(service.ask("ada.two", &large)).await;
        assert_eq!(refused.status(), 503);
        assert_eq!(stalled.map(|(status, _)| status).collect::<Vec<_>>().await, [408; 2]);

        // As long as its length is not known, a body counts as one of the largest.
        let unknown = [b"transfer-encoding: chunked\r\n\r\n5000\r\n", &*vec![b' '; 0x5000], b"\r\n"].concat();
        let mut stalled = Vec::new();
        for app in ["ada.one", "grace.one", "eve.one"] {
            stalled.push(service.stall(app, largest).await);
            stalled.push(service.stall(app, &unknown).await);
        }
        assert_eq!(statuses(stalled).await, [408, 408, 408, 408, 503, 503]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_person_takes_the_sessions_of_the_others() {
    let service = Service::start(Limits::default()).await;
    // An app has one session here, and a person four.
    let sessions = join_all(APPS.map(async |app| {
        let opened = send(service.ask(app, &raw::initialize("2025-11-25", json!({})))).await;
        assert_eq!(opened.status(), 200, "{app}");
        (app, opened.headers().contains_key("mcp-session-id"))
    }))
    .await;
    let without: Vec<_> = sessions.iter().filter(|(_, has_one)| !has_one).collect();
    assert!(matches!(without[..], [(app, _)] if app.starts_with("ada.")), "{sessions:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_person_takes_the_streams_of_the_others() {
    let service = Service::start(Limits::default()).await;
    let (first, second) = (service.session("ada.one").await, service.session("ada.two").await);
    let mut open = Vec::new();
    for _ in 0..2 {
        let stream = service.stream("ada.one", &first).await;
        assert_eq!(stream.status(), 200);
        open.push(stream);
    }
    for (app, session) in [("ada.one", &first), ("ada.two", &second)] {
        let refused = service.stream(app, session).await;
        assert_eq!(refused.status(), 503, "{app}");
        assert!(refused.headers().contains_key("retry-after"));
    }
    let graces = service.session("grace.one").await;
    assert_eq!(service.stream("grace.one", &graces).await.status(), 200);
    open.pop();
    within(async { while service.stream("ada.two", &second).await.status() != 200 {} }).await;
}

#[tokio::test]
async fn no_person_takes_the_answers_of_the_others() {
    let service = Service::start(Limits::default()).await;
    let ada = service.accounts.open(&owner("ada.one"));
    ada.sign_in(EMAIL, service.place.password.clone(), false).await.unwrap();
    let (first, second) = (service.session("ada.one").await, service.session("ada.two").await);
    let graces = service.session("grace.one").await;
    let status = raw::call(2, "auth_status", json!({}));
    fast(async {
        service.sandbox.faults().always(MODELS, Fault::Hold);
        let mut open = Vec::new();
        for id in [3, 4] {
            let models = raw::call(id, "list_models", json!({ "refresh": true }));
            let answer = service.ask_in("ada.one", &first, &models).await;
            assert_eq!(answer.status(), 200);
            open.push(answer);
        }
        for (app, session) in [("ada.one", &first), ("ada.two", &second)] {
            let refused = service.ask_in(app, session, &status).await;
            assert_eq!(refused.status(), 503, "{app}");
            assert!(refused.headers().contains_key("retry-after"));
        }
        // What ends a request gets through.
        let cancelled =
            json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 9}});
        assert_eq!(service.ask_in("ada.one", &first, &cancelled).await.status(), 202);
        let answered = service.ask_in("grace.one", &graces, &status).await;
        assert_eq!(answered.status(), 200);
        service.sandbox.faults().clear();
        service.sandbox.faults().release();
        let ended = join_all(open.into_iter().map(Response::text)).await;
        let answers = ended.into_iter().filter(|text| text.as_ref().unwrap().contains("\"count\""));
        assert_eq!(answers.count(), 2);
        assert_eq!(service.ask_in("ada.two", &second, &status).await.status(), 200);
    })
    .await;
}

/// rmcp would answer on one of two streams whose requests have the same id, and keep the other one as long as the session.
#[tokio::test]
async fn an_id_is_not_taken_twice_until_its_call_ends() {
    let service = Service::start(Limits::default()).await;
    let ada = service.accounts.open(&owner("ada.one"));
    ada.sign_in(EMAIL, service.place.password.clone(), false).await.unwrap();
    let (session, other) = (service.session("ada.one").await, service.session("ada.two").await);
    fast(async {
        service.sandbox.faults().always(MODELS, Fault::Hold);
        let models = raw::call(7, "list_models", json!({ "refresh": true }));
        let answer = service.ask_in("ada.one", &session, &models).await;
        assert_eq!(answer.status(), 200);
        within(service.sandbox.faults().arrived(MODELS, 1)).await;
        let status = raw::call(7, "auth_status", json!({}));
        let refused = service.ask_in("ada.one", &session, &status).await;
        assert_eq!(refused.status(), 400);
        let refused: Value = serde_json::from_str(&refused.text().await.unwrap()).unwrap();
        assert_eq!((&refused["error"]["code"], refused.get("id")), (&json!(-32600), None), "{refused}");
        assert_eq!(service.ask_in("ada.two", &other, &status).await.status(), 200);
        // A call goes on when its client is gone.
        drop(answer);
        assert_eq!(service.ask_in("ada.one", &session, &status).await.status(), 400);
        service.sandbox.faults().clear();
        service.sandbox.faults().release();
        within(async { while service.ask_in("ada.one", &session, &status).await.status() != 200 {} }).await;
    })
    .await;
}

/// As long as a call takes, whether or not somebody waits for the answer.
#[tokio::test]
async fn a_large_request_counts_until_its_call_ends() {
    let service = Service::start(Limits::default()).await;
    let ada = service.accounts.open(&owner("ada.one"));
    ada.sign_in(EMAIL, service.place.password.clone(), false).await.unwrap();
    let session = service.session("ada.one").await;
    let arguments = json!({"prompt": "x".repeat(3 << 20), "analysis_type": "general"});
    fast(async {
        service.sandbox.faults().always(ANALYZE, Fault::Hold);
        for sent in 1..=2 {
            let call = raw::call(sent, "health_analyze", arguments.clone());
            drop(service.ask_in("ada.one", &session, &call).await);
            within(service.sandbox.faults().arrived(ANALYZE, sent.into())).await;
        }
        let call = raw::call(3, "health_analyze", arguments);
        let refused = service.ask_in("ada.one", &session, &call).await;
        assert_eq!(refused.status(), 503);
        assert!(refused.text().await.unwrap().contains("large requests"));
        service.sandbox.faults().clear();
        service.sandbox.faults().release();
        within(async { while service.ask_in("ada.one", &session, &call).await.status() != 200 {} }).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_person_takes_the_turns_of_the_others() {
    let service =
        Service::start(Limits { concurrent: 1, waiting: 0, owners_at_once: 2, ..Limits::default() }).await;
    let ada = service.accounts.open(&owner("ada.one"));
    ada.sign_in(EMAIL, service.place.password.clone(), false).await.unwrap();
    let faults = service.sandbox.faults();
    faults.always(MODELS, Fault::Hold);
    let others = async {
        within(faults.arrived(MODELS, 1)).await;
        let busy = service.call("ada.two", "auth_status").await.to_string();
        assert!(busy.contains("Too many calls are waiting."), "{busy}");
        let graces = service.call("grace.one", "auth_status").await;
        assert_eq!(graces["result"]["isError"], false, "{graces}");
        faults.clear();
        faults.release();
    };
    let (models, ()) = tokio::join!(service.call("ada.one", "list_models"), others);
    assert_eq!(models["result"]["structuredContent"]["count"], 3, "{models}");
}
