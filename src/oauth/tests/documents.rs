//! Clients that have their metadata in a document (OAuth Client ID Metadata Document).

use serde_json::json;

use super::{super::client::testing::Server, *};

#[tokio::test]
async fn a_document_is_fetched_only_for_whoever_has_a_code_or_a_token_of_this_server() {
    let published = Server::start().await;
    let mut hosting = Hosting::new().await;
    hosting.server = open_with(
        &hosting.directory,
        &hosting.clock,
        Settings::new(ORIGIN.parse().unwrap()),
        published.network(),
    )
    .await;
    hosting.client = published.url("/client.json");
    for at in 0..20 {
        let made_up: SecretString = format!("made.{at}.up").into();
        let refused = hosting.server.ask(&hosting.redemption(&made_up, &[])).await;
        assert_eq!(refused.unwrap_err().code, "invalid_grant");
        assert_eq!(hosting.renew(&made_up).await.unwrap_err().code, "invalid_grant");
        let revocation = parameters(&[("client_id", &hosting.client), ("token", "made.up")], &[]);
        assert_eq!(hosting.server.revoke(None, revocation.as_bytes()).await, Ok(None));
    }
    assert_eq!(published.connections(), 0);

    let document = json!({
        "client_id": hosting.client,
        "client_name": "A host",
        "redirect_uris": [REDIRECT_URI],
        "token_endpoint_auth_method": "none",
    });
    published.publish("/client.json", "", &document);
    let (tokens, grant) = hosting.tokens().await;
    hosting.renew(tokens.refresh()).await.unwrap();
    assert!(published.requests() > 0);
    // Another replica has no document yet.
    let replica = open_with(
        &hosting.directory,
        &hosting.clock,
        Settings::new(ORIGIN.parse().unwrap()),
        published.network(),
    )
    .await;
    let revocation =
        parameters(&[("client_id", &hosting.client), ("token", tokens.access_token.expose_secret())], &[]);
    let ended = replica.revoke(None, revocation.as_bytes()).await.unwrap();
    assert_eq!(ended.unwrap().id, grant.id);
}
