//! The model list is cached for one sign-in, and concurrent callers share one request.

use crate::common::{EMAIL, OTHER_EMAIL, Place, accounts, random_password, signed_out, within};
use bondmcp_server::{
    account::Accounts,
    sandbox::{Fault, Plan, RunningSandbox},
};
use futures_util::future::join_all;

const MODELS: &str = "GET /health-ai/models";
const ME: &str = "GET /auth/me";

/// A sandbox with an account that is signed in.
async fn signed_in() -> (RunningSandbox, Place, Accounts) {
    let (sandbox, place) = signed_out().await;
    let (accounts, _) = accounts(&place);
    accounts.local().sign_in(EMAIL, place.password.clone(), false).await.unwrap();
    (sandbox, place, accounts)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_was_asked_for_before_somebody_else_signed_in_is_not_kept_for_them() {
    let (sandbox, _place, accounts) = signed_in().await;
    let account = accounts.local();
    let password = random_password();
    sandbox.add_account(OTHER_EMAIL, &password, Plan::Unlimited, true);
    // The first account's token stays valid, so that the list is read with it.
    sandbox.faults().next("POST /auth/logout", Fault::Status(500));
    sandbox.faults().next(MODELS, Fault::Hold);
    let sign_in = async {
        within(sandbox.faults().arrived(MODELS, 1)).await;
        account.sign_in(OTHER_EMAIL, password, false).await.unwrap();
        sandbox.faults().release();
    };
    let (first, ()) = tokio::join!(account.list_models(false), sign_in);
    first.unwrap();
    assert_eq!(sandbox.count(MODELS), 1);
    assert!(!account.list_models(false).await.unwrap().from_cache);
    assert_eq!(sandbox.count(MODELS), 2);
    accounts.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_cold_callers_ask_for_the_models_and_the_plan_once() {
    let (sandbox, _place, accounts) = signed_in().await;
    let account = accounts.local();
    let before = sandbox.count(ME);
    let lists = join_all((0..1000).map(|_| account.list_models(false))).await;
    assert!(lists.iter().all(|list| list.as_ref().unwrap().models.len() == 3));
    let plans = join_all((0..1000).map(|_| account.plan())).await;
    assert!(plans.iter().all(Option::is_some));
    assert_eq!((sandbox.count(MODELS), sandbox.count(ME) - before), (1, 1));
    accounts.close().await;
}
