//! `keys run --proxy`: the program uses the API and never has the key.

use std::{
    net::Ipv4Addr,
    process::Stdio,
    sync::{Arc, Mutex},
};

use crate::common::{EMAIL, Place, like_the_seed, sandbox, secrets, within};
use axum::{
    Json, Router,
    extract::Request,
    http::StatusCode,
    response::{IntoResponse as _, Response},
    routing::{get, post},
};
use bondmcp_server::secret::SecretString;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpListener,
    process::Child,
};

/// A program that runs behind the proxy until its stdin closes; the test sends the requests in its place.
struct Program {
    child: Child,
    token: String,
    base_url: String,
    http: reqwest::Client,
}

impl Program {
    async fn start(place: &Place, key: &str) -> Self {
        let script = "echo \"$BONDMCP_API_KEY $BONDMCP_BASE_URL\"; read line; env";
        let run = ["--log", "trace", "keys", "run", key, "--proxy", "--", "/bin/sh", "-c", script];
        let mut command = place.command(&run);
        let log = std::fs::File::options().append(true).create(true).open(log(place)).unwrap();
        command.env("NO_PROXY", "example.com").stderr(log);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.as_mut().unwrap()).lines();
        let told = within(lines.next_line()).await.unwrap().unwrap();
        let (token, base_url) = told.split_once(' ').unwrap();
        let http = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none());
        Self { token: token.into(), base_url: base_url.into(), child, http: http.build().unwrap() }
    }

    fn get(&self, path: &str) -> reqwest::RequestBuilder {
        self.http.get(format!("{}{path}", self.base_url)).bearer_auth(&self.token)
    }

    /// Closes the program's stdin; returns its environment and its exit code.
    async fn end(mut self) -> (Vec<u8>, Option<i32>) {
        drop(self.child.stdin.take());
        let output = within(self.child.wait_with_output()).await.unwrap();
        (output.stdout, output.status.code())
    }
}

/// What the proxies of `place` wrote to stderr.
fn log(place: &Place) -> std::path::PathBuf {
    place.directory.path().join("log")
}

async fn answer(request: reqwest::RequestBuilder) -> (u16, Value) {
    let response = within(request.send()).await.unwrap();
    let status = response.status().as_u16();
    (status, within(response.json()).await.unwrap_or_default())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_program_calls_the_api_without_the_key() {
    let sandbox = sandbox(like_the_seed()).await;
    let place = Place::new(&sandbox);
    place.sign_in().await;
    assert_eq!(place.run(&["keys", "create", "ci"]).await.0, Some(0));
    let program = Program::start(&place, "ci").await;
    assert!(program.base_url.starts_with("http://127.0.0.1:") && program.base_url.ends_with("/mcp"));
    let (status, models) = answer(program.get("/health-ai/models")).await;
    assert!(status == 200 && models["models"].is_array(), "{models}");
    let body = json!({"prompt": "Why?", "analysis_type": "general"});
    let ask = program.http.post(format!("{}/health-ai/analyze", program.base_url));
    let (status, analysis) = answer(ask.bearer_auth(&program.token).json(&body)).await;
    assert!(status == 200 && analysis["cost"].is_number(), "{analysis}");
    let (id, _) = sandbox.live_keys(EMAIL).remove(0);
    let (_, usage, _) = place.run(&["keys", "usage", &id, "--json"]).await;
    let usage: Value = serde_json::from_str(&usage).unwrap();
    assert_eq!(usage["usage_stats"]["total_requests"], 2);

    let (port, http) = (program.base_url.clone(), program.http.clone());
    let (environment, code) = program.end().await;
    assert_eq!(code, Some(0));
    let lines = String::from_utf8(environment.clone()).unwrap();
    assert!(
        lines.contains("NO_PROXY=example.com,127.0.0.1\n")
            && lines.contains("no_proxy=example.com,127.0.0.1\n")
    );
    secrets::assert_absent(&sandbox.secrets_issued(), &environment, "the program's environment");
    secrets::assert_absent(
        std::slice::from_ref(&place.sealing_key),
        &environment,
        "the program's environment",
    );
    let log = std::fs::read(log(&place)).unwrap();
    assert!(!log.is_empty());
    secrets::assert_absent(&sandbox.secrets_issued(), &log, "the log");
    assert!(
        within(http.get(&port).send()).await.unwrap_err().is_connect(),
        "the port is closed with the run"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_token_is_for_one_run_and_the_paths_are_those_of_the_api() {
    let sandbox = sandbox(like_the_seed()).await;
    let place = Place::new(&sandbox);
    place.sign_in().await;
    assert_eq!(place.run(&["keys", "create", "ci"]).await.0, Some(0));
    let (one, two) = (Program::start(&place, "ci").await, Program::start(&place, "ci").await);
    let before = sandbox.counts();
    let models = format!("{}/health-ai/models", one.base_url);
    for request in [
        one.http.get(&models),
        one.http.get(&models).bearer_auth(&two.token),
        one.http.get(&models).basic_auth("x", Some(&one.token)),
    ] {
        assert_eq!(answer(request).await.0, 401);
    }
    let origin = one.base_url.trim_end_matches("/mcp");
    for path in ["/", "/mcpx/health-ai/models", "/mcp/a%2F..%2Fb"] {
        assert_eq!(
            answer(one.http.get(format!("{origin}{path}")).bearer_auth(&one.token)).await.0,
            404,
            "{path}"
        );
    }
    let options = one.http.request(http::Method::OPTIONS, &models).bearer_auth(&one.token);
    assert_eq!(answer(options).await.0, 405);
    let large = one.http.post(&models).bearer_auth(&one.token).body(vec![b' '; (4 << 20) + 1]);
    assert_eq!(answer(large).await.0, 413);
    assert_eq!(sandbox.counts(), before, "nothing was forwarded");
    one.end().await;
    two.end().await;
}

/// Sends what no HTTP library sends; returns the status of the first answer and how many answers there are.
async fn raw(program: &Program, request: &str) -> (String, usize) {
    let address = program.base_url.strip_prefix("http://").unwrap().split('/').next().unwrap();
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = request.replace("TOKEN", &program.token).replace('\n', "\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    within(stream.read_to_string(&mut answer)).await.unwrap();
    (answer.split(' ').nth(1).unwrap_or_default().to_owned(), answer.matches("HTTP/1.1 ").count())
}

#[tokio::test(flavor = "multi_thread")]
async fn no_request_leaves_the_base_url() {
    const HEAD: &str = "host: evil.example\nauthorization: Bearer TOKEN\nconnection: close\n";
    let (base_url, seen) = upstream("a-key-of-no-known-shape/0123456789").await;
    let sandbox = sandbox(like_the_seed()).await;
    let place = Place { base_url, ..Place::new(&sandbox) };
    place.sign_in().await;
    assert_eq!(place.run(&["keys", "create", "ci"]).await.0, Some(0));
    let program = Program::start(&place, "ci").await;
    for line in [
        "CONNECT evil.example:443 HTTP/1.1",
        "GET /api/.%09./admin HTTP/1.1",
        "GET /api/..;/admin HTTP/1.1",
        "GET //evil.example/api/x HTTP/1.1",
        "GET http://evil.example/admin HTTP/1.1",
        "OPTIONS * HTTP/1.1",
        "TRACE /api/x HTTP/1.1",
    ] {
        let (status, _) = raw(&program, &format!("{line}\n{HEAD}\n")).await;
        assert!(["404", "405", "400"].contains(&status.as_str()), "{line}: {status}");
    }
    // Two lengths: what follows the body must not become a request.
    let smuggled = "content-length: 4\ntransfer-encoding: chunked\n\n0\n\nGET /admin HTTP/1.1\nhost: x\n\n";
    assert_eq!(raw(&program, &format!("POST /api/x HTTP/1.1\n{HEAD}{smuggled}")).await.1, 1);
    seen.lock().unwrap().clear();
    let (status, _) = raw(&program, &format!("GET http://evil.example/api/x?u=//y HTTP/1.1\n{HEAD}\n")).await;
    assert_eq!(status, "418");
    let sent = seen.lock().unwrap().pop().unwrap();
    assert_eq!(sent.uri().to_string(), "/api/x?u=//y");
    assert_eq!(format!("http://{}/api", sent.headers()["host"].to_str().unwrap()), place.base_url);
    assert!(seen.lock().unwrap().is_empty());
    program.end().await;
}

/// The requests that reached [`upstream`].
type Seen = Arc<Mutex<Vec<Request>>>;

/// An upstream that issues one session and one key, redirects, and otherwise repeats the credential in every way.
async fn upstream(key: &'static str) -> (String, Seen) {
    let seen = Seen::default();
    let noted = Arc::clone(&seen);
    let repeat = async move |request: Request| -> Response {
        let credential = request.headers()["authorization"].to_str().unwrap().to_owned();
        let hex = key.bytes().fold("x-".to_owned(), |hex, byte| hex + &format!("{byte:02x}"));
        let (start, rest) = key.split_at(8);
        let escaped = key.bytes().fold(String::new(), |escaped, byte| escaped + &format!("\\u{byte:04x}"));
        let path = request.uri().path().to_owned();
        noted.lock().unwrap().push(request);
        match path.as_str() {
            "/api/moved" => (StatusCode::FOUND, [("location", "http://127.0.0.1:9/")]).into_response(),
            "/api/packed" => ([("content-encoding", "gzip")], "anything").into_response(),
            "/api/packed/secretly" => {
                ([("content-encoding", "gzip"), ("connection", "content-encoding")], "anything")
                    .into_response()
            }
            "/api/bytes" => vec![0xff, 0xfe].into_response(),
            _ => {
                let body = format!(
                    r#"{{"sent": "{credential}", "escaped": "{escaped}", "{key}": ["{key}"], "kept": 1.50}}"#
                );
                let headers = [
                    ("content-type", "application/json"),
                    ("x-sent", credential.as_str()),
                    (&hex, "1"),
                    (start, rest),
                    ("x-other", "bcp_0123456789abcdef"),
                    ("x-ratelimit-remaining", "7"),
                    ("set-cookie", "a=b"),
                    ("connection", "x-hop"),
                    ("x-hop", "1"),
                ];
                (StatusCode::IM_A_TEAPOT, headers, body).into_response()
            }
        }
    };
    let made = json!({"id": "key_1", "name": "ci", "api_key": key, "is_active": true});
    let router = Router::new()
        .route(
            "/api/auth/login",
            post(async || Json(json!({"access_token": "opaque.session-token", "expires_in": 3600}))),
        )
        .route("/api/auth/me", get(async || Json(json!({"id": "usr_1", "email": EMAIL}))))
        .route(
            "/api/auth/api-keys",
            get(async || Json(json!({ "api_keys": [] }))).post(async move || Json(made.clone())),
        )
        .fallback(repeat);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let base_url = format!("http://{}/api", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    (base_url, seen)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hostile_upstream_cannot_hand_the_key_to_the_program() {
    let key = "a-key-of-no-known-shape/0123456789";
    let (base_url, seen) = upstream(key).await;
    let sandbox = sandbox(like_the_seed()).await;
    let place = Place { base_url, ..Place::new(&sandbox) };
    place.sign_in().await;
    let (code, _, err) = place.run(&["keys", "create", "ci"]).await;
    assert_eq!(code, Some(0), "{err}");
    let program = Program::start(&place, "ci").await;

    let request = program.get("/echo/%2541?q=1&q=%2F").header("x-api-key", &program.token);
    let request = request.header("cookie", "a=b").header("x-custom", "yes").header("te", "trailers");
    let response = within(request.send()).await.unwrap();
    assert_eq!(response.status().as_u16(), 418);
    let headers = response.headers().clone();
    assert_eq!(headers["x-ratelimit-remaining"], "7");
    for name in ["x-sent", "x-other", "set-cookie", "x-hop", &key[..8]] {
        assert!(!headers.contains_key(name), "{name}");
    }
    assert!(headers.keys().all(|name| name.as_str().len() < 2 * key.len()), "{headers:?}");
    let body = within(response.text()).await.unwrap();
    secrets::assert_absent(&[SecretString::from(key)], body.as_bytes(), "the response");
    let body: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((&body["escaped"], &body["kept"]), (&json!("[redacted]"), &json!(1.5)));

    let sent = seen.lock().unwrap().pop().unwrap();
    assert_eq!(sent.uri().to_string(), "/api/echo/%2541?q=1&q=%2F");
    assert_eq!(sent.headers()["authorization"], format!("Bearer {key}"));
    assert_eq!(sent.headers()["x-custom"], "yes");
    for name in ["x-api-key", "cookie", "te", "accept-encoding"] {
        assert!(!sent.headers().contains_key(name), "{name}");
    }
    for path in ["/moved", "/packed", "/packed/secretly", "/bytes"] {
        assert_eq!(answer(program.get(path)).await.0, 502, "{path}");
    }
    let (token, log_path) = (SecretString::from(program.token.as_str()), log(&place));
    program.end().await;
    let log = std::fs::read(log_path).unwrap();
    secrets::assert_absent(&[SecretString::from(key), token], &log, "the log");
}
