//! Every operation of the BondMCP API, from a real MCP client or a person's command to the upstream and back. `cargo
//! test --test contract -- --nocapture` prints the table; the test checks the requests of each row.
#![allow(clippy::print_stdout, reason = "the table is for a reader")]

use std::{collections::BTreeSet, time::Duration};

use crate::common::{
    Place, Server,
    browser::{Browser, link, text},
    in_process, request, sandbox,
    services::SERVICES,
    within,
};
use bondmcp_server::{
    bondmcp::Timing,
    sandbox::{Fault, Plan, RunningSandbox, SandboxConfig},
};
use rmcp::ServiceExt as _;
use serde_json::json;

/// Operation, its request to the upstream, and what causes it here.
const ROWS: [(&str, &str, &str); 19] = [
    ("register", "POST /auth/register", "the sign-in page, started by the tool `register`"),
    ("verify email", "GET /auth/verify", "the link in the e-mail, opened by the person"),
    ("log in", "POST /auth/login", "the sign-in page; `login` in a terminal"),
    ("refresh", "POST /auth/refresh", "any tool, when the token has expired"),
    ("log out", "POST /auth/logout", "the tool `logout`"),
    ("who am I", "GET /auth/me", "the tool `auth_status`"),
    ("list models", "GET /health-ai/models", "the tool `list_models`"),
    ("list keys", "GET /auth/api-keys", "the tool `manage_api_keys`, action `list`"),
    ("create key", "POST /auth/api-keys", "the tool `manage_api_keys`, action `create`"),
    ("revoke key", "DELETE /auth/api-keys/{id}", "the tool `manage_api_keys`, action `revoke`"),
    (
        "regenerate key",
        "POST /api/v1/api-keys/{id}/regenerate",
        "the tool `manage_api_keys`, action `rotate`, when the plan allows no additional key",
    ),
    ("key usage", "GET /api/v1/api-keys/usage/{id}", "the tool `manage_api_keys`, action `usage`"),
    ("health risk", "POST /health-ai/risk-analysis", "the tool `health_risk_analysis`"),
    ("medication check", "POST /health-ai/medication-check", "the tool `medication_check`"),
    ("symptoms", "POST /health-ai/symptom-assessment", "the tool `symptom_assessment`"),
    ("treatment", "POST /health-ai/treatment-recommendations", "the tool `treatment_recommendations`"),
    ("extraction", "POST /health-ai/data-extraction", "the tool `clinical_data_extraction`"),
    ("analyse", "POST /health-ai/analyze", "the tool `health_analyze`"),
    ("service health", "GET /health", "any tool, before an upstream that had failed is asked again"),
];

#[tokio::test(flavor = "multi_thread")]
async fn every_operation_is_reached_end_to_end() {
    let sandbox = sandbox(SandboxConfig { plan: Plan::Professional, ..SandboxConfig::default() }).await;
    let place = Place::new(&sandbox);
    let server = Server::start(&place).await;

    // A new account, created on the page and verified by the link.
    let page = link(&server.ok("register", json!({})).await);
    let browser = Browser::open(&page).await;
    let fields = [("email", "new@example.com"), ("password", "a-new-password-1"), ("remember", "yes")];
    text(within(browser.post("create", &fields).send()).await.unwrap()).await;
    let mail = sandbox.verification_link("new@example.com").unwrap();
    within(reqwest::get(format!("http://{}{mail}", sandbox.address()))).await.unwrap();
    let signed_in = async {
        while !text(within(reqwest::get(&page)).await.unwrap()).await.contains("You are signed in") {}
    };
    within(signed_in).await;

    assert_eq!(server.ok("auth_status", json!({})).await["plan"]["plan"], "professional");
    assert_eq!(server.ok("list_models", json!({})).await["count"], 3);
    for (tool, _, arguments, cents) in SERVICES {
        let cost = server.ok(tool, arguments()).await["cost"].as_f64().unwrap();
        assert!((cost * 100.0 - f64::from(u32::try_from(cents).unwrap())).abs() < 1e-9, "{tool}");
    }
    let keys = async |arguments| server.ok("manage_api_keys", arguments).await;
    let made = keys(json!({"action": "create", "name": "ci"})).await;
    let id = &made["keys"][0]["id"];
    keys(json!({"action": "usage", "key_id": id})).await;
    sandbox.expire_tokens();
    assert_eq!(keys(json!({ "action": "list" })).await["keys"][0]["name"], "ci");
    // The plan allows twenty keys.
    for _ in 0..19 {
        keys(json!({"action": "create", "name": "another"})).await;
    }
    keys(json!({"action": "rotate", "key_id": id, "confirm": "ci"})).await;
    keys(json!({"action": "revoke", "key_id": id, "confirm": "ci"})).await;
    Box::pin(after_an_outage(&sandbox, &place)).await;
    server.ok("logout", json!({})).await;

    let asked: BTreeSet<String> = sandbox.counts().into_keys().collect();
    let documented: BTreeSet<String> = ROWS.map(|(_, endpoint, _)| endpoint.to_owned()).into();
    assert_eq!(asked, documented);
    for (operation, endpoint, way) in ROWS {
        println!("{operation:<17} {endpoint:<43} {way}");
    }
}

/// Runs in this process, where the pause after repeated failures can be short.
async fn after_an_outage(sandbox: &RunningSandbox, place: &Place) {
    let short = Duration::from_millis(1);
    let timing = Timing { open_for: short, first_wait: short, ..Timing::default() };
    let (server, _stopping) = in_process(place, timing);
    let (ours, theirs) = tokio::io::duplex(1 << 16);
    tokio::spawn(crate::common::serve(server, ours));
    let client = ().serve(theirs).await.unwrap();
    let works = async || {
        let result =
            within(client.call_tool(request("list_models", json!({ "refresh": true })))).await.unwrap();
        result.is_error != Some(true)
    };
    sandbox.faults().always("GET /health-ai/models", Fault::Drop);
    for _ in 0..5 {
        assert!(!works().await);
    }
    sandbox.faults().clear();
    within(async { while !works().await {} }).await;
}
