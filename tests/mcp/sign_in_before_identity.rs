//! Finding out who somebody is before there is a record.

use crate::common::{
    EMAIL, OTHER_EMAIL,
    hosted::{LOGIN, LOGOUT, World},
    secrets, within,
};
use bondmcp_server::{account::Error, bondmcp::wire::CreateApiKey, sandbox::Fault};
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn somebody_is_authenticated_without_a_record_and_ended_if_nobody_adopts_it() {
    let world = World::new().await;
    let somebody = world.authenticated(EMAIL).await;
    assert_eq!(somebody.email(), Some(EMAIL));
    assert!(somebody.user_id().is_some());
    assert!(!world.place.data_dir().join("vault.db").exists());
    assert!(world.place.last_token_works(&world.sandbox).await);

    drop(somebody);
    within(world.sandbox.faults().arrived(LOGOUT, 1)).await;
    within(world.accounts.close()).await;
    assert!(!world.place.last_token_works(&world.sandbox).await);
    let typed = secrets::text(&world.place.password);
    assert_eq!(world.accounts.redactor().redact(typed), typed, "nothing is left to look for");
    assert!(!world.place.data_dir().join("vault.db").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_leaves_before_bondmcp_answers_leaves_no_session() {
    let world = World::new().await;
    world.sandbox.faults().next(LOGIN, Fault::Hold);
    let authenticator = world.accounts.authenticator();
    let (password, faults) = (world.place.password.clone(), world.sandbox.faults());
    tokio::select! {
        _ = authenticator.with_password(EMAIL, password) => panic!("BondMCP has not answered"),
        () = within(faults.arrived(LOGIN, 1)) => {}
    }
    faults.release();
    within(faults.arrived(LOGOUT, 1)).await;
    within(world.accounts.close()).await;
    assert!(!world.place.last_token_works(&world.sandbox).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_adopts_who_was_authenticated() {
    let world = World::new().await;
    let account = world.subject("ada");
    let somebody = world.authenticated(EMAIL).await;
    let user = somebody.user_id().unwrap().to_owned();
    within(account.adopt(somebody, false)).await.unwrap();
    let status = account.status().await.unwrap();
    assert_eq!((status.email.as_deref(), status.user_id.as_deref()), (Some(EMAIL), Some(&*user)));
    assert_eq!(within(account.list_models(false)).await.unwrap().models.len(), 3);
    assert!(!world.subject("grace").status().await.unwrap().signed_in);
    within(world.accounts.close()).await;
    assert_eq!((world.sandbox.count(LOGIN), world.sandbox.count(LOGOUT)), (1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subject_adopts_its_own_user_only() {
    let world = World::new().await;
    let account = world.subject("ada");
    within(account.adopt(world.authenticated(EMAIL).await, false)).await.unwrap();

    let somebody_else = world.authenticated(OTHER_EMAIL).await;
    assert!(matches!(within(account.adopt(somebody_else, false)).await, Err(Error::AnotherUser)));
    within(world.sandbox.faults().arrived(LOGOUT, 1)).await;
    // Nobody can tell whose key it is.
    let wanted = CreateApiKey { name: "mine".to_owned(), description: None, permissions: vec![] };
    within(account.create_key(wanted)).await.unwrap();
    let key = world.sandbox.secrets_issued().pop().unwrap();
    assert!(matches!(within(account.use_own_key(key)).await, Err(Error::AnotherUser)));
    // BondMCP does not say who it is.
    let tokens = json!({"access_token": "a-token-of-nobody", "token_type": "bearer", "expires_in": 3600});
    world.sandbox.faults().next(LOGIN, Fault::Answer(tokens));
    let unknown = world.authenticated(EMAIL).await;
    assert_eq!(unknown.user_id(), None);
    assert!(matches!(within(account.adopt(unknown, false)).await, Err(Error::AnotherUser)));
    within(world.sandbox.faults().arrived(LOGOUT, 2)).await;

    assert_eq!(account.status().await.unwrap().email.as_deref(), Some(EMAIL));
    assert_eq!(within(account.list_models(true)).await.unwrap().models.len(), 3);
    // Signing out does not make the account anybody's.
    within(account.sign_out(true)).await.unwrap();
    let somebody_else = world.authenticated(OTHER_EMAIL).await;
    assert!(matches!(within(account.adopt(somebody_else, false)).await, Err(Error::AnotherUser)));
    within(account.adopt(world.authenticated(EMAIL).await, false)).await.unwrap();
    within(world.accounts.close()).await;
}

/// BondMCP does not say whose key it is.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_tested_without_a_name_and_adopted_by_a_profile_alone() {
    let world = World::new().await;
    let ada = world.subject("ada");
    within(ada.adopt(world.authenticated(EMAIL).await, false)).await.unwrap();
    let wanted = CreateApiKey { name: "mine".to_owned(), description: None, permissions: vec![] };
    within(ada.create_key(wanted)).await.unwrap();
    let key = world.sandbox.secrets_issued().pop().unwrap();
    let authenticator = world.accounts.authenticator();
    let with_key = async || within(authenticator.with_key(key.clone())).await.unwrap();
    assert_eq!((with_key().await.email(), with_key().await.user_id()), (None, None));
    let other = world.subject("grace");
    assert!(matches!(within(other.adopt(with_key().await, false)).await, Err(Error::AnotherUser)));
    assert!(!other.status().await.unwrap().signed_in);
    within(world.accounts.local().adopt(with_key().await, false)).await.unwrap();
    assert_eq!(within(world.accounts.local().list_models(false)).await.unwrap().models.len(), 3);
    assert!(within(authenticator.with_key("bm_of_nobody".into())).await.is_err());
    within(world.accounts.close()).await;
    assert_eq!(world.sandbox.count(LOGOUT), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_cannot_be_stored_is_ended() {
    let world = World::new().await;
    let somebody = world.authenticated(EMAIL).await;
    // The vault's directory cannot be made.
    std::fs::write(world.place.data_dir(), "a file").unwrap();
    assert!(matches!(within(world.subject("ada").adopt(somebody, false)).await, Err(Error::Vault(_))));
    within(world.sandbox.faults().arrived(LOGOUT, 1)).await;
    within(world.accounts.close()).await;
    assert!(!world.place.last_token_works(&world.sandbox).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_somebody_types_is_redacted_while_it_is_in_use_and_tells_owners_nothing() {
    let world = World::new().await;
    let typed = secrets::text(&world.place.password).to_owned();
    let (process, owner) = (world.accounts.redactor(), world.subject("grace"));
    assert_eq!(process.redact(&typed), typed);

    let somebody = world.authenticated(EMAIL).await;
    let token = secrets::text(&world.sandbox.secrets_issued().pop().unwrap()).to_owned();
    for secret in [&typed, &token] {
        assert_eq!(process.redact(&format!("a {secret} b")), "a [redacted] b");
    }
    assert_eq!(owner.redactor().redact(&typed), typed, "or a guess could be tested");

    within(world.subject("ada").adopt(somebody, false)).await.unwrap();
    assert_eq!(world.subject("ada").redactor().redact(&typed), "[redacted]");
}
