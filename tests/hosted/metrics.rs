//! The metrics of a hosted server: what they count, where they are served, and what never stands in them.

use crate::common::{
    EMAIL, Place,
    hosted_process::{ORIGIN, Process, REDIRECT_URI, password},
    like_the_seed, sandbox, within,
};
use bondmcp_server::sandbox::SandboxConfig;
use serde_json::{Value, json};

#[tokio::test(flavor = "multi_thread")]
async fn the_figures_tell_an_operator_what_happens_and_nothing_about_anybody() {
    let sandbox = sandbox(like_the_seed()).await;
    let place = Place::new(&sandbox);
    let process = Process::start(&place, &[]).await;
    let browser = process.browser().await;
    let wrong = browser.sign_in(&process, EMAIL, "a wrong canary");
    within(wrong.send()).await.unwrap();
    let right = browser.sign_in(&process, EMAIL, password(&place));
    assert_eq!(within(right.send()).await.unwrap().status(), 303);
    let form = [("grant_type", "refresh_token"), ("refresh_token", "canary"), ("client_id", "canary")];
    within(process.post_form("/token", &form).send()).await.unwrap();

    let figures = process.figures().await;
    for (name, least) in [
        (r#"bondmcp_sign_ins_total{outcome="ok"}"#, 1.0),
        (r#"bondmcp_sign_ins_total{outcome="invalid_credentials"}"#, 1.0),
        (r#"bondmcp_upstream_request_duration_seconds_count{endpoint="/auth/login",status="2xx"}"#, 1.0),
        (r#"bondmcp_upstream_request_duration_seconds_count{endpoint="/auth/login",status="4xx"}"#, 1.0),
        (r#"bondmcp_store_operation_duration_seconds_count{operation="write",outcome="ok"}"#, 3.0),
        ("bondmcp_ready", 1.0),
        ("bondmcp_mcp_sessions", 0.0),
    ] {
        assert!(figures.get(name).is_some_and(|value| *value >= least), "{name}: {figures:#?}");
    }
    let text = process.metrics_text().await;
    for never in [EMAIL, "canary", "127.0.0.1", "client.example", &*sandbox.base_url()] {
        assert!(!text.contains(never), "{never}: {text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_is_seen_in_the_figures_and_in_the_log_by_its_reference() {
    let sandbox = sandbox(like_the_seed()).await;
    let place = Place::new(&sandbox);
    let process = Process::start(&place, &[]).await;
    let (client_id, tokens) = process.connect(&place).await;
    let called = process.call(&tokens, "list_models", json!({})).await;
    assert_eq!(called["result"]["structuredContent"]["count"], 3, "{called}");
    let refresh = [
        ("grant_type", "refresh_token"),
        ("refresh_token", tokens["refresh_token"].as_str().unwrap()),
        ("client_id", &client_id),
    ];
    assert_eq!(within(process.post_form("/token", &refresh).send()).await.unwrap().status(), 200);

    let figures = process.figures().await;
    for (name, value) in [
        (r#"bondmcp_tool_calls_total{tool="list_models",outcome="ok"}"#, 1.0),
        (r#"bondmcp_token_requests_total{outcome="ok"}"#, 2.0),
        (r#"bondmcp_authorization_steps_total{step="request checked"}"#, 1.0),
        (r#"bondmcp_authorization_steps_total{step="sign-in shown"}"#, 1.0),
        (r#"bondmcp_authorization_steps_total{step="signed in"}"#, 1.0),
        (r#"bondmcp_authorization_steps_total{step="allowed"}"#, 1.0),
        (r#"bondmcp_authorization_steps_total{step="credential stored"}"#, 1.0),
        (r#"bondmcp_authorization_steps_total{step="code sent"}"#, 1.0),
    ] {
        assert_eq!(figures.get(name), Some(&value), "{name}: {figures:#?}");
    }

    let log = process.end().await;
    let lines: Vec<Value> = log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    // What the call logs stands in the span of its HTTP request.
    let ended = lines.iter().find(|line| line["fields"]["message"] == "tool call ended");
    let ended = ended.unwrap_or_else(|| panic!("{log}"));
    assert_eq!((&ended["spans"][0]["name"], &ended["span"]["name"]), (&"http".into(), &"call".into()));
    assert_eq!(ended["spans"][0]["request_id"], ended["span"]["request_id"], "{ended}");
    let steps: Vec<_> = lines.iter().filter(|line| line["fields"]["step"].is_string()).collect();
    let reference = &steps.first().unwrap_or_else(|| panic!("{log}"))["fields"]["reference"];
    assert_eq!(reference.as_str().map(str::len), Some(8));
    for line in &steps {
        assert_eq!(&line["fields"]["reference"], reference, "{line}");
        assert!(line["span"]["request_id"].is_string(), "{line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_renewal_of_a_session_is_counted_once() {
    let sandbox = sandbox(SandboxConfig { refresh_tokens: true, ..like_the_seed() }).await;
    let place = Place::new(&sandbox);
    let process = Process::start(&place, &[]).await;
    let (_, tokens) = process.connect(&place).await;
    let name = r#"bondmcp_session_renewals_total{outcome="ok"}"#;
    assert_eq!(process.figures().await.get(name), None);
    sandbox.expire_tokens();
    // The first call meets the end of the session, the second finds a new one.
    for _ in 0..2 {
        let called = process.call(&tokens, "manage_api_keys", json!({"action": "list"})).await;
        assert_eq!(
            called["result"]["structuredContent"]["keys"].as_array().map(Vec::len),
            Some(1),
            "{called}"
        );
    }
    let figures = process.figures().await;
    let renewals: Vec<_> =
        figures.iter().filter(|(name, _)| name.starts_with("bondmcp_session_renewals_total")).collect();
    assert_eq!(renewals, [(&name.to_owned(), &1.0)]);
}

/// RFC 9700, section 2.1.1 and RFC 6749, section 4.1.2: a code that is used twice was stolen, and the operator sees that.
#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn a_code_that_is_used_again_is_counted_audited_and_traced() {
    let sandbox = sandbox(like_the_seed()).await;
    let place = Place::new(&sandbox);
    let process = Process::start(&place, &[]).await;
    let (client_id, code) = process.code(&place).await;
    let tokens = process.redeem(&client_id, &code).await;
    assert_eq!(
        (tokens.status().as_u16(), &tokens.headers()["cache-control"]),
        (200, &"no-store".parse().unwrap())
    );
    assert_eq!(process.redeem(&client_id, &code).await.status(), 400);
    within(async {
        while !sandbox.live_keys(EMAIL).is_empty() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let figures = process.figures().await;
    let name = r#"bondmcp_grants_ended_total{reason="replay"}"#;
    assert_eq!(figures.get(name), Some(&1.0), "{figures:#?}");

    // At the end everything is in the audit log.
    process.terminate();
    let (_, log) = process.ended().await;
    let mut lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let reference = lines.find_map(|line| line["fields"]["reference"].as_str().map(ToOwned::to_owned));
    let reference = reference.unwrap_or_else(|| panic!("{log}"));
    let (code, out, err) = place.run(&["auth", "trace", &reference, "--json", "--public-url", ORIGIN]).await;
    assert_eq!(code, Some(0), "{err}");
    let trace: Value = serde_json::from_str(&out).unwrap();
    let steps: Vec<_> =
        trace["steps"].as_array().unwrap().iter().map(|step| step["step"].as_str().unwrap()).collect();
    let expected = [
        "request checked",
        "sign-in shown",
        "signed in",
        "consent shown",
        "allowed",
        "credential stored",
        "code sent",
        "code redeemed",
        "ended: a code or token was used again",
        "ended; its key is revoked",
    ];
    assert_eq!(steps, expected);
    let (_, audit, _) = place.run(&["audit", "--json"]).await;
    let entries = audit.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let ends: Vec<_> = entries.filter(|entry| entry["action"] == "ended_by_replay").collect();
    assert!(ends.len() == 1 && ends[0]["outcome"] == "replay", "{audit}");
}

/// Nobody has a reference for a request that was refused at once.
#[tokio::test(flavor = "multi_thread")]
async fn a_refused_authorization_is_counted_and_logged_with_a_reason_of_ours() {
    let sandbox = sandbox(like_the_seed()).await;
    let process = Process::start(&Place::new(&sandbox), &[]).await;
    let client_id = process.register(REDIRECT_URI).await;
    let told_to_the_client =
        format!("client_id={client_id}&redirect_uri={REDIRECT_URI}&response_type=canary&state=canary");
    for query in ["client_id=canary&redirect_uri=https://canary.example/", &told_to_the_client] {
        let answer = within(process.get(&format!("/authorize?{query}")).send()).await.unwrap();
        assert_eq!(answer.status(), 400, "{query}");
    }
    let figures = process.figures().await;
    let name = r#"bondmcp_authorization_steps_total{step="request refused"}"#;
    assert_eq!(figures.get(name), Some(&2.0), "{figures:#?}");
    let log = process.end().await;
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let refusals: Vec<_> = lines.filter(|line| line["fields"]["reason"].is_string()).collect();
    assert_eq!(refusals.len(), 2, "{log}");
    assert!(refusals.iter().all(|line| line["span"]["request_id"].is_string()), "{refusals:?}");
    assert_eq!(refusals[1]["fields"]["reason"], "response_type must be code.");
    assert!(!log.contains("canary"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_are_on_their_own_listener_alone() {
    let sandbox = sandbox(like_the_seed()).await;
    let process = Process::start(&Place::new(&sandbox), &[]).await;
    assert_eq!(within(process.get("/metrics").send()).await.unwrap().status(), 404);
    let elsewhere = format!("http://{}/mcp", process.metrics);
    assert_eq!(within(reqwest::get(elsewhere)).await.unwrap().status(), 404);
}

#[tokio::test]
async fn the_flags_are_for_a_hosted_server() {
    let sandbox = sandbox(like_the_seed()).await;
    let place = Place::new(&sandbox);
    for (flags, told) in [
        (&["--metrics-listen", "127.0.0.1:0"][..], "--public-url"),
        (&["--trusted-proxy", "10.0.0.0/8"], "--public-url"),
        (&["--public-url", "https://bond.example.com", "--trusted-proxy", "proxy.example"], "CIDR notation"),
    ] {
        let (code, _, error) = place.run(&[&["http"], flags].concat()).await;
        assert!(code == Some(2) && error.contains(told), "{error}");
    }
}
