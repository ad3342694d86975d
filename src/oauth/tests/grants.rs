//! Grants.

use super::*;

#[tokio::test]
async fn a_subject_is_opaque_and_the_same_on_every_replica() {
    let hosting = Hosting::new().await;
    let subject = hosting.server.subject("usr_123");
    assert_eq!(subject, hosting.replica().await.subject("usr_123"));
    assert_ne!(subject, hosting.server.subject("usr_124"));
    assert_ne!(subject, Hosting::new().await.server.subject("usr_123"), "each server has its own");
    assert_eq!(subject.as_str().len(), 32);
    assert!(!subject.as_str().contains("123"));
}

#[tokio::test]
async fn a_person_has_the_grants_that_have_not_ended() {
    let hosting = Hosting::new().await;
    let ((_, one), (_, two)) = (hosting.grant().await, hosting.grant().await);
    let replica = hosting.replica().await;
    assert_eq!(replica.grants_of(&one.subject).await.unwrap(), [one.clone(), two.clone()]);
    assert!(replica.grants_of(&replica.subject("somebody else")).await.unwrap().is_empty());

    let ended = replica.end_grant(&one.id, EndReason::Person).await.unwrap().unwrap();
    assert_eq!(ended.ended.unwrap().1, EndReason::Person);
    assert_eq!(hosting.server.end_grant(&one.id, EndReason::Client).await.unwrap(), None);
    assert_eq!(replica.grants_of(&one.subject).await.unwrap(), std::slice::from_ref(&two));
    assert_eq!(replica.all_grants().await.unwrap().len(), 2);

    for _ in 0..2 {
        replica.forget_grant(&ended).await.unwrap();
        assert_eq!(replica.all_grants().await.unwrap(), std::slice::from_ref(&two));
        assert_eq!(replica.grant(&one.id).await.unwrap(), None);
    }
    replica.forget_grant(&two).await.unwrap();
    assert_eq!(replica.grants_of(&two.subject).await.unwrap(), [two], "it has not ended");
    assert_eq!(replica.end_grant(&one.id, EndReason::Person).await.unwrap(), None);
}

/// A replica that deletes or changes what it has read would hit a record of the same version.
#[tokio::test]
async fn the_versions_of_a_persons_grants_go_on_when_none_is_left() {
    let hosting = Hosting::new().await;
    let (_, grant) = hosting.grant().await;
    let version = async || {
        let records = hosting.server.records();
        let kind = crate::vault::RecordKind::new("person");
        records.read::<serde_json::Value>(kind, grant.subject.as_str()).await.unwrap().unwrap().version
    };
    let before = version().await;
    let ended = hosting.server.end_grant(&grant.id, EndReason::Person).await.unwrap().unwrap();
    hosting.server.forget_grant(&ended).await.unwrap();
    hosting.grant().await;
    assert_eq!(version().await, before + 2);
}

#[tokio::test]
async fn grants_that_are_made_at_once_are_all_listed() {
    let hosting = Hosting::new().await;
    let replica = hosting.replica().await;
    let request = hosting.request(&[]).await;
    let subject = hosting.server.subject("user");
    let (one, two, three) = tokio::join!(
        hosting.server.create_grant(&subject, &request, Scopes::all()),
        replica.create_grant(&subject, &request, Scopes::all()),
        replica.create_grant(&subject, &request, Scopes::all()),
    );
    for grant in [one.unwrap(), two.unwrap(), three.unwrap()] {
        assert!(replica.grants_of(&subject).await.unwrap().contains(&grant));
    }
}

/// Each is read for the pages that list them, and has an API key.
#[tokio::test]
async fn a_person_has_so_many_grants_and_no_more() {
    let hosting = Hosting::new().await;
    let replica = hosting.replica().await;
    let request = hosting.request(&[]).await;
    let subject = hosting.server.subject("user");
    for _ in 1..MAX_GRANTS {
        hosting.server.create_grant(&subject, &request, Scopes::all()).await.unwrap();
    }
    // The last place is taken once.
    let (one, two) = tokio::join!(
        hosting.server.create_grant(&subject, &request, Scopes::all()),
        replica.create_grant(&subject, &request, Scopes::all()),
    );
    let (made, refused) = if one.is_ok() { (one, two) } else { (two, one) };
    assert!(matches!(refused, Err(CreateGrantError::TooMany)), "{refused:?}");
    assert_eq!(replica.all_grants().await.unwrap().len(), MAX_GRANTS);
    let somebody_else = hosting.server.subject("somebody else");
    hosting.server.create_grant(&somebody_else, &request, Scopes::all()).await.unwrap();

    // Whoever ends one can make another, although its key is not revoked yet.
    replica.end_grant(&made.unwrap().id, EndReason::Person).await.unwrap().unwrap();
    hosting.server.create_grant(&subject, &request, Scopes::all()).await.unwrap();
    let refused = hosting.server.create_grant(&subject, &request, Scopes::all()).await;
    assert!(matches!(refused, Err(CreateGrantError::TooMany)), "{refused:?}");
}

#[tokio::test]
async fn grants_end_that_nobody_can_use_any_more() {
    let hosting = Hosting::new().await;
    let (_, unredeemed) = hosting.code().await;
    let (_, used) = hosting.tokens().await;
    assert!(hosting.server.end_expired_grants().await.unwrap().is_empty());
    hosting.wait(TimeDelta::minutes(16));
    let ended = |grants: Vec<Grant>| grants.into_iter().map(|grant| grant.id).collect::<Vec<_>>();
    assert_eq!(ended(hosting.server.end_expired_grants().await.unwrap()), [unredeemed.id]);
    hosting.wait(TimeDelta::days(30));
    assert_eq!(ended(hosting.replica().await.end_expired_grants().await.unwrap()), [used.id]);
}
