//! `stdio --sandbox` over restarts: the person stays signed in, and processes at the same time do not disturb each other.

use crate::common::{
    Place, Server,
    browser::{Browser, text},
    like_the_seed, sandbox, within,
};
use serde_json::json;

async fn start(place: &Place) -> Server {
    Server::spawn(&mut place.command(&["stdio", "--sandbox"])).await
}

async fn use_demo_account(server: &Server) {
    let told = server.ok("login", json!({})).await;
    let browser = Browser::open(told["sign_in_url"].as_str().unwrap()).await;
    let page = text(within(browser.post("demo", &[]).send()).await.unwrap()).await;
    assert!(page.contains("Signed in as <strong>demo@example.com</strong>"), "{page}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sandbox_knows_its_accounts_and_keys_after_a_restart() {
    let unused = sandbox(like_the_seed()).await;
    let place = Place::new(&unused);
    let server = start(&place).await;
    use_demo_account(&server).await;
    let created = server.ok("manage_api_keys", json!({"action": "create", "name": "mine"})).await;
    let id = created["keys"][0]["id"].as_str().unwrap();
    server.end().await;
    let server = start(&place).await;
    assert_eq!(server.ok("list_models", json!({})).await["count"], 3);
    server.ok("manage_api_keys", json!({"action": "use", "key_id": id})).await;
    assert_eq!(server.ok("list_models", json!({"refresh": true})).await["count"], 3);
    // It is killed this time.
    server.kill().await;
    let server = start(&place).await;
    assert_eq!(server.ok("list_models", json!({})).await["count"], 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_processes_at_once_have_a_sandbox_each_and_both_last() {
    let unused = sandbox(like_the_seed()).await;
    let place = Place::new(&unused);
    let (one, two) = (start(&place).await, start(&place).await);
    use_demo_account(&one).await;
    assert_eq!(two.error("list_models", json!({})).await["kind"], "sign_in_required");
    use_demo_account(&two).await;
    one.end().await;
    two.end().await;
    let (one, two) = (start(&place).await, start(&place).await);
    for server in [one, two] {
        assert_eq!(server.ok("list_models", json!({})).await["count"], 3);
    }
}
