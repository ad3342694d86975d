//! Refresh tokens at `/token`.

use super::*;

#[tokio::test]
async fn a_refresh_gets_new_tokens_on_any_replica() {
    let hosting = Hosting::new().await;
    let (tokens, grant) = hosting.tokens().await;
    hosting.wait(TimeDelta::minutes(15));
    let replica = hosting.replica().await;
    let renewed = replica.ask(&hosting.renewal(tokens.refresh(), &[])).await.unwrap();
    assert!(!crate::secret::same(renewed.refresh(), tokens.refresh()));
    assert_eq!((renewed.scope, &renewed.reference), (Scopes::all(), &grant.reference));
    assert!(hosting.server.verify(&tokens.access_token).await.is_ok(), "within the leeway");
    assert_eq!(hosting.server.verify(&renewed.access_token).await.unwrap().grant, grant.id);
}

#[tokio::test]
async fn refreshes_at_once_on_several_replicas_get_the_same_token() {
    let hosting = Hosting::new().await;
    let replica = hosting.replica().await;
    let (tokens, _) = hosting.tokens().await;
    let form = hosting.renewal(tokens.refresh(), &[]);
    let (one, two, three) = tokio::join!(hosting.server.ask(&form), replica.ask(&form), replica.ask(&form));
    let (one, two, three) = (one.unwrap(), two.unwrap(), three.unwrap());
    for other in [&two, &three, &replica.ask(&form).await.unwrap()] {
        assert!(crate::secret::same(one.refresh(), other.refresh()));
    }
}

/// RFC 9700, section 4.14.2.
#[tokio::test]
async fn an_old_token_ends_the_grant() {
    let hosting = Hosting::new().await;
    let (first, grant) = hosting.tokens().await;
    let second = hosting.renew(first.refresh()).await.unwrap();
    let third = hosting.renew(second.refresh()).await.unwrap();
    hosting.wait(TimeDelta::minutes(10));
    let replay = hosting.renew(first.refresh()).await.unwrap_err();
    assert_eq!((replay.code, replay.ended), ("invalid_grant", Some(grant.id)));
    assert!(hosting.server.verify(&third.access_token).await.is_err());
    assert_eq!(hosting.renew(third.refresh()).await.unwrap_err().code, "invalid_grant");
}

/// RFC 9700, section 4.14.2; RFC 6749, sections 6 and 10.4.
#[tokio::test]
async fn a_token_is_good_for_its_client_and_its_scopes_alone() {
    let hosting = Hosting::new().await;
    let request = hosting.request(&[("scope", "models health")]).await;
    let subject = hosting.server.subject("user");
    let grant = hosting.server.create_grant(&subject, &request, request.scopes).await.unwrap();
    let answer = hosting.server.authorization_response(&request, &grant).await.unwrap();
    let code = parameter(&answer, "code").unwrap().into();
    let tokens = hosting.server.ask(&hosting.redemption(&code, &[])).await.unwrap();

    let other_client = register(&hosting.server, REDIRECT_URI);
    for (wrong, error) in [
        (("client_id", &*other_client), "invalid_grant"),
        (("scope", "models keys"), "invalid_scope"),
        (("resource", "https://other.example"), "invalid_target"),
        (("refresh_token", "a.1.b"), "invalid_grant"),
        (("refresh_token", ""), "invalid_request"),
    ] {
        let form = hosting.renewal(tokens.refresh(), &[wrong]);
        let refusal = hosting.server.ask(&form).await.unwrap_err();
        assert_eq!((refusal.code, refusal.ended), (error, None), "{wrong:?}");
    }
    for (asked, given) in [
        ("health", "health"),
        ("", "models health"),
        ("offline_access", "models health"),
        ("models", "models"),
    ] {
        let form = hosting.renewal(tokens.refresh(), &[("scope", asked)]);
        let renewed = hosting.server.ask(&form).await.unwrap();
        assert_eq!(renewed.scope.to_string(), given, "{asked}");
        assert_eq!(hosting.server.verify(&renewed.access_token).await.unwrap().scopes, renewed.scope);
    }
}

#[tokio::test]
async fn what_bondmcp_refuses_ends_and_what_cannot_be_asked_goes_on() {
    let hosting = Hosting::new().await;
    let (tokens, grant) = hosting.tokens().await;
    let form = hosting.renewal(tokens.refresh(), &[]);
    let ask = async |acceptance| hosting.server.token(None, form.as_bytes(), |_| async { acceptance }).await;
    let unknown = ask(Acceptance::Unknown).await.unwrap_err();
    assert_eq!((unknown.status, unknown.code, unknown.ended), (503, "temporarily_unavailable", None));
    ask(Acceptance::Accepted).await.unwrap();
    let refused = ask(Acceptance::Refused).await.unwrap_err();
    assert_eq!((refused.code, refused.ended), ("invalid_grant", Some(grant.id)));
    assert_eq!(ask(Acceptance::Accepted).await.unwrap_err().code, "invalid_grant");
}

#[tokio::test]
async fn a_token_that_expires_ends_its_grant() {
    let hosting = Hosting::new().await;
    let (idle, grant) = hosting.tokens().await;
    hosting.wait(TimeDelta::days(29));
    let renewed = hosting.renew(idle.refresh()).await.unwrap();
    hosting.wait(TimeDelta::days(30));
    let expired = hosting.renew(renewed.refresh()).await.unwrap_err();
    assert_eq!((expired.code, expired.ended), ("invalid_grant", Some(grant.id)));

    let (forgotten, grant) = hosting.tokens().await;
    hosting.server.forget_family(&grant.id).await.unwrap();
    let expired = hosting.renew(forgotten.refresh()).await.unwrap_err();
    assert_eq!((expired.code, expired.ended), ("invalid_grant", Some(grant.id)));
}

#[tokio::test]
async fn a_token_ends_with_its_family_however_often_it_is_used() {
    let hosting = Hosting::new().await;
    let (mut tokens, grant) = hosting.tokens().await;
    for _ in 0..8 {
        hosting.wait(TimeDelta::days(20));
        tokens = hosting.renew(tokens.refresh()).await.unwrap();
    }
    hosting.wait(TimeDelta::days(20));
    let expired = hosting.renew(tokens.refresh()).await.unwrap_err();
    assert_eq!((expired.code, expired.ended), ("invalid_grant", Some(grant.id)));
}

#[tokio::test]
async fn a_grant_is_refreshed_so_often_and_no_more() {
    let hosting = Hosting::new().await;
    let ((tokens, grant), (others, _)) = (hosting.tokens().await, hosting.tokens().await);
    // Somebody else's requests do not count.
    let other_client = register(&hosting.server, REDIRECT_URI);
    for _ in 0..60 {
        let form = hosting.renewal(tokens.refresh(), &[("client_id", &other_client)]);
        assert_eq!(hosting.server.ask(&form).await.unwrap_err().code, "invalid_grant");
    }
    for _ in 0..60 {
        hosting.renew(tokens.refresh()).await.unwrap();
    }
    let refusal = hosting.renew(tokens.refresh()).await.unwrap_err();
    assert_eq!((refusal.status, refusal.code, refusal.ended), (429, "temporarily_unavailable", None));
    assert_eq!(refusal.retry_after, Some(std::time::Duration::from_secs(1)));
    // Before the client is authenticated, which may store a record.
    let unknown = hosting.renewal(tokens.refresh(), &[("client_id", "unknown")]);
    assert_eq!(hosting.server.ask(&unknown).await.unwrap_err().status, 429);
    hosting.renew(others.refresh()).await.unwrap();

    hosting.wait(TimeDelta::seconds(1));
    let renewed = hosting.renew(tokens.refresh()).await.unwrap();
    assert_eq!(hosting.renew(tokens.refresh()).await.unwrap_err().status, 429);
    assert_eq!(hosting.server.verify(&renewed.access_token).await.unwrap().grant, grant.id);
}
