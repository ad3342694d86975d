//! The operator selects the tools; others are neither listed nor callable.

use crate::common::{Place, Server, signed_in, signed_out};
use rmcp::{model::ErrorCode, service::ServiceError};
use serde_json::json;

async fn served(place: &Place, flags: &[&str]) -> (Server, Vec<String>) {
    let mut command = place.command(&["stdio"]);
    let server = Server::spawn(command.args(flags)).await;
    let tools = server.client.list_all_tools().await.unwrap();
    let names = tools.into_iter().map(|tool| tool.name.into_owned()).collect();
    (server, names)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tool_that_was_not_chosen_does_not_exist() {
    let (sandbox, place) = signed_in().await;
    for (flags, served_ones, hidden_ones) in [
        (&["--read-only"][..], &["auth_status", "list_models"][..], &["login", "manage_api_keys"][..]),
        (&["--toolsets", "models,keys"], &["list_models", "manage_api_keys"], &["login", "auth_status"]),
        (
            &["--toolsets", "models", "--tools", "medication_check"],
            &["list_models", "medication_check"],
            &["symptom_assessment", "manage_api_keys"],
        ),
        (&["--tools", "login,auth_status"], &["auth_status", "login"], &["list_models", "register"]),
        (
            &["--read-only", "--toolsets", "keys,models"],
            &["list_models"],
            &["manage_api_keys", "auth_status"],
        ),
    ] {
        let (server, names) = served(&place, flags).await;
        let is_served = |name: &&str| names.iter().any(|served| served == *name);
        assert!(served_ones.iter().all(is_served), "{flags:?}: {names:?}");
        assert!(!hidden_ones.iter().any(is_served), "{flags:?}: {names:?}");
        for hidden in ["logout", "health_analyze", "no_such_tool"] {
            let Err(ServiceError::McpError(error)) = server.call(hidden, json!({})).await else { panic!() };
            assert_eq!(error.code, ErrorCode::INVALID_PARAMS, "{flags:?} {hidden}");
        }
        let info = server.client.peer_info().unwrap();
        let instructions = info.instructions.clone().unwrap();
        for (tool, word) in [("manage_api_keys", "keys run"), ("medication_check", "not a diagnosis")] {
            let there = names.iter().any(|name| name == tool);
            assert_eq!(instructions.contains(word), there, "{flags:?}: {instructions}");
        }
        let prompts = info.capabilities.prompts.is_some();
        assert_eq!(prompts, names.iter().any(|name| name == "medication_check"), "{flags:?}");
        if info.capabilities.resources.is_some() {
            let resources = server.client.list_all_resources().await.unwrap();
            let models = resources.iter().any(|resource| resource.uri == "bondmcp://models");
            assert_eq!(models, names.iter().any(|name| name == "list_models"), "{flags:?}");
        }
    }
    assert_eq!(sandbox.count("POST /auth/logout"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn read_only_can_still_sign_in_just_in_time() {
    let (_sandbox, place) = signed_out().await;
    let (server, _) = served(&place, &["--read-only"]).await;
    let error = server.error("list_models", json!({})).await;
    assert_eq!(error["kind"], "sign_in_required");
    crate::common::browser::Browser::open(&crate::common::browser::link(&error))
        .await
        .sign_in(&place.password)
        .await;
    assert_eq!(server.ok("list_models", json!({})).await["count"], 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_selection_that_makes_no_sense_is_wrong_usage() {
    let (_sandbox, place) = signed_in().await;
    for (flags, told) in [
        (&["stdio", "--toolsets", "other"][..], "session, models, keys, health"),
        (&["stdio", "--tools", "logon"], "login, logout"),
        (&["stdio", "--read-only", "--toolsets", "health"], "leaves no tool"),
        (&["stdio", "--max-spend=-1"], "amount such as"),
        (&["stdio", "--max-spend", "much"], "amount such as"),
        (&["stdio", "--sign-in-timeout", "601"], "1..=600"),
    ] {
        let (code, _, complaint) = place.run(flags).await;
        assert_eq!(code, Some(2), "{flags:?}: {complaint}");
        assert!(complaint.contains(told), "{flags:?}: {complaint}");
    }
}
