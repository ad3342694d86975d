//! Authorization codes at `/token`.

use super::*;

async fn refused(hosting: &Hosting, form: &str) -> OAuthError {
    hosting.server.ask(form).await.expect_err(form)
}

#[tokio::test]
async fn a_code_gets_tokens_on_any_replica() {
    let hosting = Hosting::new().await;
    let (code, grant) = hosting.code().await;
    let replica = hosting.replica().await;
    let tokens = replica.ask(&hosting.redemption(&code, &[])).await.unwrap();
    assert_eq!((tokens.expires_in, tokens.scope, &tokens.reference), (900, Scopes::all(), &grant.reference));
    let access = hosting.server.verify(&tokens.access_token).await.unwrap();
    assert_eq!((&access.owner, &access.grant), (&grant.owner(), &grant.id));
    assert_eq!((&access.client_id, access.scopes), (&hosting.client, Scopes::all()));
}

#[tokio::test]
async fn a_redirect_uri_and_a_resource_that_are_absent_are_not_missed() {
    let hosting = Hosting::new().await;
    let (code, _) = hosting.code().await;
    let form = hosting.redemption(&code, &[("redirect_uri", ""), ("resource", "")]);
    hosting.server.ask(&form).await.unwrap();
}

/// RFC 9700, sections 2.1.1 and 4.5; RFC 7636, section 4.6; RFC 6749, section 4.1.3. None of it uses the code up.
#[tokio::test]
async fn a_code_is_good_for_what_it_is_bound_to_alone() {
    let hosting = Hosting::new().await;
    let other_client = register(&hosting.server, REDIRECT_URI);
    let (code, _) = hosting.code().await;
    for (wrong, error) in [
        (("client_id", &*other_client), "invalid_grant"),
        (("redirect_uri", "https://host.example/other"), "invalid_grant"),
        (("redirect_uri", "https://host.example/callback/"), "invalid_grant"),
        (("code_verifier", ""), "invalid_request"),
        (("code_verifier", CHALLENGE), "invalid_grant"),
        (("code_verifier", "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXl"), "invalid_grant"),
        (("code", ""), "invalid_request"),
        (("code", "guessed"), "invalid_grant"),
        (("resource", "https://other.example"), "invalid_target"),
        (("grant_type", ""), "invalid_request"),
        (("grant_type", "password"), "unsupported_grant_type"),
        (("client_id", "unknown"), "invalid_client"),
    ] {
        let refusal = refused(&hosting, &hosting.redemption(&code, &[wrong])).await;
        assert_eq!((refusal.code, refusal.ended), (error, None), "{wrong:?}");
    }
    let twice = format!("{}&code_verifier=x", hosting.redemption(&code, &[]));
    assert_eq!(refused(&hosting, &twice).await.code, "invalid_request");
    hosting.server.ask(&hosting.redemption(&code, &[])).await.unwrap();
}

/// RFC 6749, section 4.1.2, and RFC 9700, section 4.5.
#[tokio::test]
async fn a_code_that_is_used_again_ends_its_grant() {
    let hosting = Hosting::new().await;
    let (code, grant) = hosting.code().await;
    let form = hosting.redemption(&code, &[]);
    let tokens = hosting.server.ask(&form).await.unwrap();
    let replay = refused(&hosting, &form).await;
    assert_eq!((replay.code, replay.ended), ("invalid_grant", Some(grant.id)));
    assert!(matches!(hosting.server.verify(&tokens.access_token).await, Err(AccessError::Invalid(_))));
    assert_eq!(hosting.renew(tokens.refresh()).await.unwrap_err().code, "invalid_grant");
    assert_eq!(refused(&hosting, &form).await.ended, None, "it has ended already");
}

#[tokio::test]
async fn of_several_uses_at_once_on_several_replicas_at_most_one_succeeds() {
    let hosting = Hosting::new().await;
    let replica = hosting.replica().await;
    let (code, grant) = hosting.code().await;
    let form = hosting.redemption(&code, &[]);
    let (one, two, three) = tokio::join!(hosting.server.ask(&form), replica.ask(&form), replica.ask(&form));
    let answers = [one, two, three];
    assert!(answers.iter().filter(|answer| answer.is_ok()).count() <= 1);
    for error in answers.into_iter().filter_map(Result::err) {
        assert_eq!(error.code, "invalid_grant");
    }
    let (_, reason) = hosting.server.grant(&grant.id).await.unwrap().unwrap().ended.unwrap();
    assert_eq!(reason, EndReason::Replay);
}

#[tokio::test]
async fn a_code_expires_by_our_clock() {
    let hosting = Hosting::new().await;
    let (code, _) = hosting.code().await;
    hosting.wait(TimeDelta::seconds(60));
    let refusal = refused(&hosting, &hosting.redemption(&code, &[])).await;
    assert_eq!((refusal.code, refusal.ended), ("invalid_grant", None));
}

#[tokio::test]
async fn a_code_of_a_grant_that_has_ended_is_refused() {
    let hosting = Hosting::new().await;
    let (code, grant) = hosting.code().await;
    hosting.server.end_grant(&grant.id, EndReason::Person).await.unwrap();
    assert_eq!(refused(&hosting, &hosting.redemption(&code, &[])).await.code, "invalid_grant");
}

/// Trouble is never `invalid_grant`: a host would sign the person out.
#[tokio::test]
async fn trouble_with_the_vault_is_told_as_such() {
    let hosting = Hosting::new().await;
    let (code, _) = hosting.code().await;
    let (tokens, _) = hosting.tokens().await;
    hosting.server.records().vault().close().await;
    for form in [hosting.redemption(&code, &[]), hosting.renewal(tokens.refresh(), &[])] {
        let trouble = refused(&hosting, &form).await;
        assert_eq!((trouble.status, trouble.code), (503, "temporarily_unavailable"));
        assert!(trouble.retry_after.is_some());
    }
    hosting.wait(TimeDelta::seconds(31));
    assert!(matches!(hosting.server.verify(&tokens.access_token).await, Err(AccessError::Store(_))));
    assert!(hosting.server.check_ready().await.is_err());
}
