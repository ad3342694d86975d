//! Properties that hold for any input from an agent and any speed of the upstream, tested with generated cases.

use std::{collections::BTreeSet, time::Duration};

use crate::common::{EMAIL, Place, Server, like_the_seed, sandbox, secrets};
use bondmcp_server::{
    bondmcp::{Client, Timing},
    clock::Clock,
    redact::Redactor,
    sandbox::Fault,
    secret,
};
use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};
use serde_json::{Value, json};
use tokio::{net::TcpListener, runtime::Runtime};

/// All endpoints of the documented API.
const ENDPOINTS: [&str; 16] = [
    "POST /auth/register",
    "POST /auth/login",
    "POST /auth/refresh",
    "POST /auth/logout",
    "GET /auth/me",
    "GET /health-ai/models",
    "GET /auth/api-keys",
    "POST /auth/api-keys",
    "DELETE /auth/api-keys/{id}",
    "GET /api/v1/api-keys/usage/{id}",
    "POST /health-ai/risk-analysis",
    "POST /health-ai/medication-check",
    "POST /health-ai/symptom-assessment",
    "POST /health-ai/treatment-recommendations",
    "POST /health-ai/data-extraction",
    "POST /health-ai/analyze",
];

fn cases(cases: u32) -> TestRunner {
    TestRunner::new(Config { cases, failure_persistence: None, ..Config::default() })
}

/// Text that would redirect a request if it were used as a URL, a path or a header. `HOST` is replaced by a listener's
/// address.
fn tempting_text() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("../../auth/me".to_owned()),
        Just("..%2f..%2fhealth".to_owned()),
        Just("http://HOST/steal".to_owned()),
        Just("//HOST/x".to_owned()),
        Just("@HOST".to_owned()),
        Just("\\\\HOST\\x".to_owned()),
        Just("?x=y#z".to_owned()),
        Just("key\r\nHost: HOST".to_owned()),
        Just(".".to_owned()),
        Just("%00".to_owned()),
        "\\PC{0,20}",
    ]
}

fn tempting_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        tempting_text().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<bool>().prop_map(Value::from),
        Just(Value::Null),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("[a-z_]{1,12}", inner, 0..4).prop_map(|fields| json!(fields)),
        ]
    })
}

/// One of `tools` and arguments: none, arbitrary ones, or valid ones with such text.
fn call(tools: Vec<&'static str>) -> impl Strategy<Value = (&'static str, Value)> {
    let text = tempting_text;
    prop_oneof![
        prop::sample::select(tools.clone()).prop_map(|tool| (tool, json!({}))),
        (prop::sample::select(tools), prop::collection::btree_map("[a-z_]{1,12}", tempting_json(), 0..4))
            .prop_map(|(tool, fields)| (tool, json!(fields))),
        (prop::sample::select(vec!["rotate", "revoke", "use", "usage"]), text()).prop_map(
            |(action, key_id)| (
                "manage_api_keys",
                json!({"action": action, "key_id": key_id, "confirm": key_id})
            )
        ),
        text().prop_map(|name| ("manage_api_keys", json!({"action": "create", "name": name}))),
        text().prop_map(|email| ("login", json!({ "email": email }))),
        (text(), text())
            .prop_map(|(prompt, kind)| ("health_analyze", json!({"prompt": prompt, "analysis_type": kind}))),
        text().prop_map(|text| ("clinical_data_extraction", json!({ "clinical_text": text }))),
        text().prop_map(|name| ("medication_check", json!({ "medications": [{ "name": name }] }))),
    ]
}

#[test]
fn no_arguments_lead_to_another_host_or_path() {
    let runtime = Runtime::new().unwrap();
    let (sandbox, elsewhere, server) = runtime.block_on(async {
        let sandbox = sandbox(like_the_seed()).await;
        let place = Place::new(&sandbox);
        let elsewhere = TcpListener::bind("127.0.0.1:0").await.unwrap();
        // Signed in by the environment, so that a call after `logout` has a session again.
        let mut command = place.command(&["--log", "trace", "stdio"]);
        command.env("BONDMCP_EMAIL", EMAIL).env("BONDMCP_PASSWORD", secrets::text(&place.password));
        let server = Server::spawn(&mut command).await;
        (sandbox, elsewhere, (server, place))
    });
    let listed = runtime.block_on(server.0.client.list_all_tools()).unwrap();
    let tools: Vec<&'static str> = listed.into_iter().map(|tool| &*tool.name.into_owned().leak()).collect();
    assert!(tools.contains(&"logout"), "{tools:?}");
    let host = elsewhere.local_addr().unwrap().to_string();
    let made = cases(60).run(&prop::collection::vec(call(tools), 1..6), |calls| {
        for (tool, arguments) in calls {
            let arguments: Value =
                serde_json::from_str(&arguments.to_string().replace("HOST", &host)).unwrap();
            // Either outcome is accepted: the test checks where requests go.
            let _ = runtime.block_on(server.0.call(tool, arguments));
        }
        let asked: BTreeSet<String> = sandbox.counts().into_keys().collect();
        let documented = ENDPOINTS.map(ToOwned::to_owned).into_iter().collect();
        prop_assert!(asked.is_subset(&documented), "{asked:?}");
        Ok(())
    });
    made.unwrap();
    assert!(sandbox.count("POST /auth/api-keys") > 0, "the calls did something: {:?}", sandbox.counts());
    let visited = runtime.block_on(async {
        tokio::select! {
            biased;
            visitor = elsewhere.accept() => Some(visitor.unwrap().1),
            () = std::future::ready(()) => None,
        }
    });
    assert_eq!(visited, None);
}

/// Faults of a read, repeated.
fn fault() -> impl Strategy<Value = Fault> {
    prop_oneof![
        Just(Fault::Status(500)),
        Just(Fault::Hang),
        Just(Fault::Drop),
        (0_u32..100).prop_map(|seconds| Fault::TooMany(Some(seconds.to_string()))),
        Just(Fault::TooMany(None)),
    ]
}

fn timing() -> impl Strategy<Value = Timing> {
    let span = |longest: u64| (1..longest).prop_map(Duration::from_millis);
    (span(60_000), span(60_000), span(10_000), span(10_000)).prop_map(
        |(request, deadline, first_wait, longest_wait)| Timing {
            request,
            deadline,
            first_wait,
            longest_wait,
            ..Timing::default()
        },
    )
}

/// Uses a clock that jumps to the next timer when the runtime is idle.
#[test]
fn the_tries_of_a_read_end_within_its_deadline() {
    let made = cases(64).run(&(timing(), fault()), |(timing, fault)| {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        let (took, tries) = runtime.block_on(async {
            let sandbox = sandbox(like_the_seed()).await;
            sandbox.faults().always("GET /health-ai/models", fault);
            let base_url = sandbox.base_url().parse().unwrap();
            let client = Client::new(base_url, Redactor::default(), Clock::system(), timing);
            let began = tokio::time::Instant::now();
            client.list_models(&secret::random()).await.unwrap_err();
            (began.elapsed(), sandbox.count("GET /health-ai/models"))
        });
        // A timer counts whole milliseconds.
        prop_assert!(took <= timing.deadline + Duration::from_millis(1), "{took:?} {timing:?}");
        prop_assert!(tries <= 3);
        Ok(())
    });
    made.unwrap();
}
