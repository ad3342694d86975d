//! Finding out who somebody is before there is a record: by its own, and on a page for people who are not known yet.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::{sync::Arc, time::Duration};

use bondmcp_server::{
    account::Error,
    bondmcp::wire::CreateApiKey,
    sandbox::Fault,
    sign_in::{self, LIFETIME, Options, Pages, Place as PagePlace, UnknownSignIn},
};
use common::{
    EMAIL, Place, accounts,
    hosted::{Hosted, LOCAL_WORDS, LOGIN, LOGOUT, ORIGIN_OF_PAGES, OTHER_EMAIL, World, request},
    like_the_seed, sandbox, secrets, within,
};
use reqwest::{StatusCode, header::ORIGIN};
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn somebody_is_authenticated_without_a_record_and_ended_if_nobody_adopts_it() {
    let world = World::new().await;
    let somebody = world.authenticated(EMAIL).await;
    assert_eq!(somebody.email(), Some(EMAIL));
    assert!(somebody.user_id().is_some());
    assert!(!world.place.data_dir().join("vault.db").exists());
    assert!(world.last_token_works().await);

    drop(somebody);
    within(world.sandbox.faults().arrived(LOGOUT, 1)).await;
    within(world.accounts.close()).await;
    assert!(!world.last_token_works().await);
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
    assert!(!world.last_token_works().await);
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

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_cannot_be_stored_is_ended() {
    let world = World::new().await;
    let somebody = world.authenticated(EMAIL).await;
    // The vault's directory cannot be made.
    std::fs::write(world.place.data_dir(), "a file").unwrap();
    assert!(matches!(within(world.subject("ada").adopt(somebody, false)).await, Err(Error::Vault(_))));
    within(world.sandbox.faults().arrived(LOGOUT, 1)).await;
    within(world.accounts.close()).await;
    assert!(!world.last_token_works().await);
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

#[tokio::test(flavor = "multi_thread")]
async fn a_page_for_nobody_hands_over_who_has_signed_in() {
    let hosted = Hosted::new().await;
    let unknown = hosted.begin_unknown();
    let pending = Arc::clone(&unknown.pending);
    let page = hosted.page(pending.url()).await;
    // Nothing has shown the person a code to compare.
    assert!(!page.contains(pending.code()) && !page.contains("compare"), "{page}");
    for word in LOCAL_WORDS {
        assert!(!page.contains(word), "{word}");
    }
    let wrong =
        hosted.form(pending.url(), &hosted.form_token(pending.url()).await, EMAIL, &"wrong-one-1".into());
    let wrong = within(wrong.header(ORIGIN, ORIGIN_OF_PAGES).send()).await.unwrap();
    assert_eq!(wrong.status(), StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(hosted.sign_in(pending.url(), EMAIL).await.status(), StatusCode::OK);
    let somebody = within(unknown.outcome()).await.unwrap();
    assert_eq!(somebody.email(), Some(EMAIL));
    assert!(!hosted.world.place.data_dir().join("vault.db").exists(), "there is no record yet");

    let account = hosted.world.subject(somebody.user_id().unwrap());
    within(account.adopt(somebody, false)).await.unwrap();
    assert!(account.status().await.unwrap().signed_in);
    within(hosted.world.accounts.close()).await;
    assert_eq!(hosted.world.sandbox.count(LOGOUT), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn somebody_new_creates_an_account_on_a_page_for_nobody() {
    let hosted = Hosted::new().await;
    let unknown = hosted.begin_unknown();
    let url = unknown.pending.url().to_owned();
    let token = hosted.form_token(&url).await;
    let form = hosted.form_to("create", &url, &token, "new@example.com", &"a-new-password-1".into());
    let answer = within(form.header(ORIGIN, ORIGIN_OF_PAGES).send()).await.unwrap();
    let page = answer.text().await.unwrap();
    assert!(page.contains("Check your e-mail"), "{page}");
    hosted.world.sandbox.verify("new@example.com");
    assert_eq!(within(unknown.outcome()).await.unwrap().email(), Some("new@example.com"));
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_signed_in_when_nobody_waits_any_more() {
    let hosted = Hosted::new().await;
    let unknown = hosted.begin_unknown();
    let pending = Arc::clone(&unknown.pending);
    drop(unknown);
    let answer = hosted.sign_in(pending.url(), EMAIL).await;
    assert_eq!(answer.status(), StatusCode::UNPROCESSABLE_ENTITY);
    assert!(!answer.text().await.unwrap().contains("You are signed in"));
    within(hosted.world.sandbox.faults().arrived(LOGOUT, 1)).await;
    assert!(!hosted.world.last_token_works().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_bondmcp_says_of_what_somebody_typed_is_shown_without_it() {
    let hosted = Hosted::new().await;
    let unknown = hosted.begin_unknown();
    hosted.world.sandbox.faults().next(LOGIN, Fault::Echo);
    let answer = hosted.sign_in(unknown.pending.url(), EMAIL).await;
    assert_eq!(answer.status(), StatusCode::UNPROCESSABLE_ENTITY);
    let page = answer.text().await.unwrap();
    assert!(page.contains("[redacted]"), "{page}");
    let password = std::slice::from_ref(&hosted.world.place.password);
    secrets::assert_absent(password, page.as_bytes(), "the page");
}

#[tokio::test(flavor = "multi_thread")]
async fn five_wrong_passwords_end_a_page_for_nobody_too() {
    let hosted = Hosted::new().await;
    let unknown = hosted.begin_unknown();
    let url = unknown.pending.url().to_owned();
    let token = hosted.form_token(&url).await;
    for _ in 0..5 {
        let form = hosted.form(&url, &token, EMAIL, &"wrong-password-1".into());
        within(form.header(ORIGIN, ORIGIN_OF_PAGES).send()).await.unwrap();
    }
    assert!(within(unknown.outcome()).await.is_none());
    assert_eq!(hosted.get(&url).await.status(), StatusCode::GONE);
}

#[tokio::test(start_paused = true)]
async fn pages_for_nobody_are_bounded_and_each_ends_by_itself() {
    let sandbox = sandbox(like_the_seed()).await;
    let (accounts, _) = accounts(&Place::new(&sandbox));
    let pages = Pages::new(PagePlace::public(ORIGIN_OF_PAGES.parse().unwrap()));
    let begin = |lifetime| {
        let options = Options { public: Some(pages.clone()), lifetime, ..Options::default() };
        UnknownSignIn::begin(&pages, accounts.authenticator(), request(), &options)
    };
    let short = begin(Duration::from_mins(1)).unwrap();
    let mut long = vec![];
    loop {
        match begin(LIFETIME) {
            Ok(page) => long.push(page),
            Err(sign_in::Error::TooManyPages) => break,
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!(long.len(), 511);
    assert!(short.outcome().await.is_none());
    // It is shown for a little longer.
    tokio::time::sleep(Duration::from_secs(11)).await;
    long.push(begin(LIFETIME).unwrap());
    assert!(matches!(begin(LIFETIME), Err(sign_in::Error::TooManyPages)));
    for page in long {
        assert!(page.outcome().await.is_none());
    }
    tokio::time::sleep(Duration::from_secs(11)).await;
    assert!(begin(LIFETIME).is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_opens_all_pages_for_nobody_keeps_no_owner_from_theirs() {
    let hosted = Hosted::new().await;
    let unknown: Vec<_> = (0..512).map(|_| hosted.begin_unknown()).collect();
    let (sign_in, pending) = hosted.begin("ada").await;
    assert!(hosted.page(pending.url()).await.contains(pending.code()));
    assert!(hosted.page(unknown[511].pending.url()).await.contains("Sign in to BondMCP"));
    within(sign_in.close()).await;
    assert_eq!(hosted.get(pending.url()).await.status(), StatusCode::NOT_FOUND);
}
