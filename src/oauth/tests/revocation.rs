//! Revocation (RFC 7009).

use super::*;

async fn revoke(hosting: &Hosting, client: &str, token: &SecretString) -> Result<Option<Grant>, OAuthError> {
    let form = parameters(&[("client_id", client), ("token", token.expose_secret())], &[]);
    hosting.server.revoke(None, form.as_bytes()).await
}

#[tokio::test]
async fn either_token_of_any_age_ends_the_grant() {
    let hosting = Hosting::new().await;
    for pick in [
        |first: &TokenResponse, _: &TokenResponse| first.refresh().clone(),
        |_: &TokenResponse, second: &TokenResponse| second.refresh().clone(),
        |first: &TokenResponse, _: &TokenResponse| first.access_token.clone(),
    ] {
        let (first, grant) = hosting.tokens().await;
        let second = hosting.renew(first.refresh()).await.unwrap();
        let ended = revoke(&hosting, &hosting.client, &pick(&first, &second)).await.unwrap().unwrap();
        assert_eq!((ended.id, ended.ended.unwrap().1), (grant.id, EndReason::Client));
        assert!(hosting.server.verify(&second.access_token).await.is_err());
        assert!(hosting.renew(second.refresh()).await.is_err());
        let again = revoke(&hosting, &hosting.client, &pick(&first, &second)).await.unwrap();
        assert_eq!(again, None);
    }
}

/// RFC 7009, sections 2.1 and 2.2; RFC 9700, section 4.14.2.
#[tokio::test]
async fn an_unknown_token_is_no_error_and_that_of_another_client_is_one() {
    let hosting = Hosting::new().await;
    for unknown in ["x", "a.1.b", "a.b.c"] {
        assert_eq!(revoke(&hosting, &hosting.client, &unknown.into()).await, Ok(None));
    }
    let (tokens, _) = hosting.tokens().await;
    let other = register(&hosting.server, REDIRECT_URI);
    for token in [tokens.refresh(), &tokens.access_token] {
        assert_eq!(revoke(&hosting, &other, token).await.unwrap_err().code, "invalid_grant");
    }
    assert_eq!(revoke(&hosting, "unknown", tokens.refresh()).await.unwrap_err().status, 401);
    assert_eq!(revoke(&hosting, &hosting.client, &"".into()).await.unwrap_err().code, "invalid_request");
    assert!(hosting.server.verify(&tokens.access_token).await.is_ok());
}
