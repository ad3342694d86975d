//! The metrics of a hosted server: what they count, where they are served, and what never stands in them.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use common::{
    EMAIL, Place,
    hosted_process::{Process, password},
    like_the_seed, sandbox, within,
};

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
