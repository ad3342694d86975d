//! Traces reach a collector when the process ends, as part of the caller's trace, and without secrets.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::{
    net::Ipv4Addr,
    process::Stdio,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{Router, body::Bytes, extract::State, http::HeaderMap, routing::post};
use bondmcp_server::listener::{self, Bounds, Workers};
use common::{EMAIL, Place, like_the_seed, raw::modern, sandbox, secrets, within};
use serde_json::json;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpListener,
};

type Received = Arc<Mutex<Vec<u8>>>;

/// Starts a collector; returns its base URL and what it receives.
async fn collector() -> (String, Received) {
    let received = Received::default();
    let receive = async |State(received): State<Received>, headers: HeaderMap, body: Bytes| {
        assert_eq!(headers["content-type"], "application/x-protobuf");
        received.lock().unwrap().extend_from_slice(&body);
    };
    let router = Router::new().route("/v1/traces", post(receive)).with_state(Arc::clone(&received));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let bounds = Bounds { connections: 16, head_timeout: Duration::from_secs(10) };
    tokio::spawn(listener::serve(listener, router, bounds, Workers::current(), std::future::pending()));
    (url, received)
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

/// Makes two calls, with a trace and with something that is none, and ends the server.
async fn calls_with_a_collector_at(url: &str) -> Place {
    let sandbox = sandbox(like_the_seed()).await;
    let place = Place::new(&sandbox);
    let mut child = place
        .command(&["stdio"])
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", url)
        // Nothing on this computer is asked through it.
        .env("HTTP_PROXY", "http://127.0.0.1:9")
        .env("BONDMCP_EMAIL", EMAIL)
        .env("BONDMCP_PASSWORD", secrets::text(&place.password))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut call = modern(1, "tools/call", json!({"name": "list_models", "arguments": {}}));
    call["params"]["_meta"]["traceparent"] = json!("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
    let arguments = json!({"symptoms": ["canary-symptom"], "canary": "canary-value"});
    let mut other = modern(2, "tools/call", json!({"name": "symptom_assessment", "arguments": arguments}));
    other["params"]["_meta"]["traceparent"] = json!("canary-trace");
    let (mut stdin, stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    stdin.write_all(format!("{call}\n{other}\n").as_bytes()).await.unwrap();
    let mut answers = BufReader::new(stdout).lines();
    for _ in 0..2 {
        within(answers.next_line()).await.unwrap().unwrap();
    }
    drop(stdin);
    assert!(within(child.wait()).await.unwrap().success());
    place
}

#[tokio::test]
async fn a_call_is_a_span_of_the_callers_trace_without_what_it_was_about() {
    let (url, received) = collector().await;
    let place = calls_with_a_collector_at(&url).await;
    let received = received.lock().unwrap();
    let (trace, parent) = (0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c_u128, 0xb7ad_6b71_6920_3331_u64);
    assert!(contains(&received, &trace.to_be_bytes()) && contains(&received, &parent.to_be_bytes()));
    for told in ["bondmcp-server", "call", "list_models", "symptom_assessment"] {
        assert!(contains(&received, told.as_bytes()), "{told}");
    }
    for secret in [secrets::text(&place.password), "canary", "eyJ"] {
        assert!(!contains(&received, secret.as_bytes()), "{secret}");
    }
}

#[tokio::test]
async fn a_collector_that_is_down_or_misnamed_changes_nothing() {
    for url in ["http://127.0.0.1:9", "not a url"] {
        calls_with_a_collector_at(url).await;
    }
}

/// The same for a hosted server, whose HTTP requests have spans of their own.
#[cfg(unix)]
mod hosted {
    use super::{common::hosted_process::Process, *};

    /// Returns the fields with that number in an encoded message of Protocol Buffers.
    fn fields(mut message: &[u8], number: u64) -> Vec<Vec<u8>> {
        let mut found = Vec::new();
        while !message.is_empty() {
            let key = varint(&mut message);
            let length = match key & 7 {
                0 => {
                    varint(&mut message);
                    0
                }
                1 => 8,
                2 => usize::try_from(varint(&mut message)).unwrap(),
                5 => 4,
                other => panic!("wire type {other}"),
            };
            let content = message.split_off(..length).unwrap();
            if key >> 3 == number {
                found.push(content.to_vec());
            }
        }
        found
    }

    fn varint(message: &mut &[u8]) -> u64 {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = *message.split_off_first().unwrap();
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                break;
            }
        }
        value
    }

    /// Follows nested messages by the numbers of their fields (opentelemetry/proto/trace/v1/trace.proto).
    fn nested(message: &[u8], numbers: &[u64]) -> Vec<Vec<u8>> {
        numbers.iter().fold(vec![message.to_vec()], |messages, number| {
            messages.iter().flat_map(|message| fields(message, *number)).collect()
        })
    }

    /// The number of a span's field.
    const TRACE_ID: u64 = 1;
    const SPAN_ID: u64 = 2;
    const PARENT_SPAN_ID: u64 = 4;
    const NAME: u64 = 5;
    const LINKS: u64 = 13;

    /// Its HTTP request is in no trace of the caller's, but found from the call.
    #[tokio::test(flavor = "multi_thread")]
    async fn over_http_too() {
        let (url, received) = collector().await;
        let sandbox = sandbox(like_the_seed()).await;
        let place = Place::new(&sandbox);
        let process =
            Process::start_with(&place, &[], &[("OTEL_EXPORTER_OTLP_ENDPOINT", url.as_str())]).await;
        let (_, tokens) = process.connect(&place).await;
        let mut call = modern(1, "tools/call", json!({"name": "list_models", "arguments": {}}));
        let answer = process.send(&tokens, "list_models", &call).await;
        assert_eq!(answer["result"]["structuredContent"]["count"], 3, "{answer}");
        call["params"]["_meta"]["traceparent"] =
            json!("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
        let answer = process.send(&tokens, "list_models", &call).await;
        assert_eq!(answer["result"]["structuredContent"]["count"], 3, "{answer}");
        process.terminate();
        assert!(within(process.ended()).await.0.success());

        let received = received.lock().unwrap();
        // Messages that follow each other are one that has the fields of all.
        let spans = nested(&received, &[1, 2, 2]);
        let named = |name: &str| {
            let of_name = spans.iter().filter(|span| fields(span, NAME) == [name.as_bytes()]);
            of_name.collect::<Vec<_>>()
        };
        let requests = named("http");
        let context = |span: &[u8]| (fields(span, TRACE_ID), fields(span, SPAN_ID));
        let trace = 0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c_u128.to_be_bytes();
        let parent = 0xb7ad_6b71_6920_3331_u64.to_be_bytes();
        let (of_caller, without): (Vec<_>, Vec<_>) =
            named("call").into_iter().partition(|span| fields(span, TRACE_ID) == [trace.as_slice()]);
        assert_eq!((of_caller.len(), without.len()), (1, 1));
        assert_eq!(fields(of_caller[0], PARENT_SPAN_ID), [parent.as_slice()]);
        let links = fields(of_caller[0], LINKS);
        assert_eq!(links.len(), 1);
        assert!(requests.iter().any(|request| context(request) == context(&links[0])));
        // Without a trace of the caller's, the call is part of its request.
        let within_request = (fields(without[0], TRACE_ID), fields(without[0], PARENT_SPAN_ID));
        assert!(requests.iter().any(|request| context(request) == within_request));

        let access_token = tokens["access_token"].as_str().unwrap();
        for secret in [access_token, EMAIL, secrets::text(&place.password), "eyJ"] {
            assert!(!contains(&received, secret.as_bytes()), "{secret}");
        }
    }
}
