//! Clients that have their metadata in a document (OAuth Client ID Metadata Document).

use serde_json::json;

use super::{super::client::testing::Server, *};

#[tokio::test]
async fn a_document_is_fetched_only_for_whoever_has_a_code_or_a_token_of_its_client() {
    let published = Server::start().await;
    let mut hosting = Hosting::new().await;
    let (another_code, _) = hosting.code().await;
    let (another, _) = hosting.tokens().await;
    hosting.server = hosting.replica_over(published.network()).await;
    hosting.client = published.url("/client.json");
    for at in 0..20 {
        let made_up: SecretString = format!("made.{at}.up").into();
        let refused = hosting.server.ask(&hosting.redemption(&made_up, &[])).await;
        assert_eq!(refused.unwrap_err().code, "invalid_grant");
        assert_eq!(hosting.renew(&made_up).await.unwrap_err().code, "invalid_grant");
        let revocation = parameters(&[("client_id", &hosting.client), ("token", "made.up")], &[]);
        assert_eq!(hosting.server.revoke(None, revocation.as_bytes()).await, Ok(None));
    }
    // What another client was given is as good as made up, and stays good for that one.
    for code in [&another_code, another.refresh(), &another.access_token] {
        let refused = hosting.server.ask(&hosting.redemption(code, &[])).await;
        assert_eq!(refused.unwrap_err().code, "invalid_grant");
        assert_eq!(hosting.renew(code).await.unwrap_err().code, "invalid_grant");
        let revocation = parameters(&[("client_id", &hosting.client), ("token", code.expose_secret())], &[]);
        assert_eq!(hosting.server.revoke(None, revocation.as_bytes()).await, Ok(None));
    }
    assert!(hosting.server.verify(&another.access_token).await.is_ok());
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
    let replica = hosting.replica_over(published.network()).await;
    let revocation =
        parameters(&[("client_id", &hosting.client), ("token", tokens.access_token.expose_secret())], &[]);
    let ended = replica.revoke(None, revocation.as_bytes()).await.unwrap();
    assert_eq!(ended.unwrap().id, grant.id);
    // Nor is it fetched for what has ended.
    let requests = published.requests();
    let replica = hosting.replica_over(published.network()).await;
    let refused = replica.ask(&hosting.renewal(tokens.refresh(), &[])).await;
    assert_eq!(refused.unwrap_err().code, "invalid_grant");
    assert_eq!(replica.revoke(None, revocation.as_bytes()).await, Ok(None));
    assert_eq!(published.requests(), requests);
}

/// RFC 9700, section 4.5: whoever sends a used code, its grant ends.
#[tokio::test]
async fn a_used_code_ends_its_grant_whatever_document_is_named() {
    let published = Server::start().await;
    let mut hosting = Hosting::new().await;
    hosting.server = hosting.replica_over(published.network()).await;
    let (code, grant) = hosting.code().await;
    hosting.server.ask(&hosting.redemption(&code, &[])).await.unwrap();
    hosting.client = published.url("/client.json");
    let replayed = hosting.server.ask(&hosting.redemption(&code, &[])).await.unwrap_err();
    assert_eq!((replayed.code, replayed.ended), ("invalid_grant", Some(grant.id)));
    assert_eq!(published.connections(), 0);
}
