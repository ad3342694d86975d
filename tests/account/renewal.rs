//! Any number of callers share one renewal.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
    time::Instant,
};

use crate::common::{EMAIL, Place, Server, like_the_seed, open, sandbox, secrets, settings, within};
use bondmcp_server::{
    account::{Account, Accounts, CredentialSource, Error, RequiredCredential, SignInReason},
    bondmcp::Timing,
    clock::{Clock, Timestamp},
    redact::{REDACTED, Redactor},
    sandbox::{Fault, RunningSandbox, SandboxConfig},
};
use chrono::TimeDelta;
use futures_util::future::join_all;
use serde_json::json;
use sqlx::{Connection as _, SqliteConnection};

const LOGIN: &str = "POST /auth/login";

fn account(place: &Place, clock: &Clock) -> Account {
    account_with(place, clock, &[])
}

/// The account of `place` in this process, with more variables in its environment.
fn account_with(place: &Place, clock: &Clock, more: &[(&str, &str)]) -> Account {
    accounts_and_redactor(place, clock, more).0.local()
}

fn accounts_and_redactor(place: &Place, clock: &Clock, more: &[(&str, &str)]) -> (Accounts, Redactor) {
    open(&settings(place, more), clock.clone(), Timing::default())
}

async fn sandbox_with(clock: &Clock) -> RunningSandbox {
    sandbox(SandboxConfig { clock: clock.clone(), ..like_the_seed() }).await
}

/// An account that has signed in at noon, and everything around it.
async fn signed_in(remember: bool) -> (Clock, RunningSandbox, Place, Account) {
    let clock = noon();
    let sandbox = sandbox_with(&clock).await;
    let place = Place::new(&sandbox);
    let account = account(&place, &clock);
    account.sign_in(EMAIL, place.password.clone(), remember).await.unwrap();
    (clock, sandbox, place, account)
}

fn noon() -> Clock {
    Clock::manual(Timestamp::from_timestamp(1_800_000_000, 0).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_calls_on_a_refused_token_make_one_login() {
    let sandbox = sandbox(like_the_seed()).await;
    let place = Place::new(&sandbox);
    place.sign_in().await;
    let server = Server::start(&place).await;
    server.ok("list_models", json!({})).await;
    sandbox.expire_tokens();
    let calls = (0..1000).map(|_| server.ok("list_models", json!({ "refresh": true })));
    assert_eq!(join_all(calls).await.len(), 1000);
    assert_eq!(sandbox.count(LOGIN), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_token_that_cannot_be_sent_does_not_keep_the_password_from_renewing() {
    let clock = noon();
    let sandbox = sandbox_with(&clock).await;
    let place = Place::new(&sandbox);
    let account = account(&place, &clock);
    for token in ["", "a\nb", "é"] {
        sandbox.faults().next(LOGIN, Fault::ProcessThenChange(json!({ "refresh_token": token })));
        account.sign_in(EMAIL, place.password.clone(), true).await.unwrap();
        clock.advance(TimeDelta::hours(2));
        account.list_models(true).await.unwrap();
    }
    assert_eq!((sandbox.count(LOGIN), sandbox.count("POST /auth/refresh")), (6, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_calls_on_an_expired_token_make_one_login() {
    let (clock, sandbox, _place, account) = signed_in(true).await;
    clock.advance(TimeDelta::hours(2));
    for outcome in join_all((0..1000).map(|_| account.list_models(true))).await {
        outcome.unwrap();
    }
    assert_eq!(sandbox.count(LOGIN), 2);
    assert_eq!(sandbox.count("GET /health-ai/models"), 1000);
}

#[tokio::test(flavor = "multi_thread")]
async fn eight_processes_with_one_vault_make_one_login() {
    let sandbox = sandbox(like_the_seed()).await;
    let place = Place::new(&sandbox);
    place.sign_in().await;
    let servers = join_all((0..8).map(|_| Server::start(&place))).await;
    sandbox.expire_tokens();
    let calls = servers
        .iter()
        .flat_map(|server| (0..50).map(|_| server.ok("list_models", json!({ "refresh": true }))));
    assert_eq!(join_all(calls).await.len(), 400);
    assert_eq!(sandbox.count(LOGIN), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewing_process_that_is_killed_does_not_block_others_for_ever() {
    let sandbox = sandbox(like_the_seed()).await;
    let place = Place::new(&sandbox);
    place.sign_in().await;
    sandbox.expire_tokens();
    sandbox.faults().next(LOGIN, Fault::Hang);
    let doomed = Server::start(&place).await;
    let call = doomed.client.peer().clone();
    let call =
        tokio::spawn(async move { call.call_tool(crate::common::request("list_models", json!({}))).await });
    within(sandbox.faults().arrived(LOGIN, 2)).await;
    doomed.kill().await;
    assert!(within(call).await.unwrap().is_err());

    // The dead process's lease is still in the vault; it expires by itself.
    let server = Server::start(&place).await;
    server.ok("list_models", json!({})).await;
    assert_eq!(sandbox.count(LOGIN), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_holders_lease_delays_the_others_by_its_length_and_no_more() {
    let (clock, sandbox, place, account) = signed_in(true).await;
    clock.advance(TimeDelta::hours(2));
    let (vault, id) = (place.vault().await, place.account_record_id());
    // As long as the account's: a longer one counts as taken before the clock was set back.
    let lease = Duration::from_secs(5);
    assert!(vault.acquire_lease(&id, "dead", lease).await.unwrap());

    let mut waiting = tokio::spawn(async move { account.list_models(true).await });
    // The account's clock, which was moved past the lease's end, does not decide.
    assert!(!vault.acquire_lease(&id, "somebody", lease).await.unwrap());
    assert_eq!(sandbox.count(LOGIN), 1);
    let file = place.data_dir().join("vault.db");
    let mut database = SqliteConnection::connect(&format!("sqlite://{}", file.display())).await.unwrap();
    sqlx::query("UPDATE leases SET until = 0").execute(&mut database).await.unwrap();
    within(&mut waiting).await.unwrap().unwrap();
    assert_eq!(sandbox.count(LOGIN), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_renewed_ahead_of_its_end_while_calls_go_on() {
    let (clock, sandbox, _place, account) = signed_in(true).await;
    clock.advance(TimeDelta::seconds(3600 - 30));
    sandbox.faults().next(LOGIN, Fault::Hang);
    // The renewal hangs, and the call does not wait for it.
    within(account.list_models(true)).await.unwrap();
    within(sandbox.faults().arrived(LOGIN, 2)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_token_spares_the_password() {
    let clock = noon();
    let sandbox =
        sandbox(SandboxConfig { clock: clock.clone(), refresh_tokens: true, ..like_the_seed() }).await;
    let place = Place::new(&sandbox);
    let account = account(&place, &clock);
    account.sign_in(EMAIL, place.password.clone(), false).await.unwrap();
    for hours in 1..4 {
        clock.advance(TimeDelta::hours(hours));
        account.list_models(true).await.unwrap();
    }
    assert_eq!((sandbox.count(LOGIN), sandbox.count("POST /auth/refresh")), (1, 3));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_refresh_token_and_password_the_person_must_sign_in() {
    let (clock, sandbox, _place, account) = signed_in(false).await;
    clock.advance(TimeDelta::hours(2));
    let error = account.list_models(true).await.unwrap_err();
    assert!(matches!(error, Error::SignInRequired { why: SignInReason::SessionEnded, .. }), "{error:?}");
    assert_eq!(sandbox.count(LOGIN), 1);
}

/// BondMCP's refusals of a log-in that the same password meets again.
const REFUSALS: [u16; 4] = [400, 401, 403, 422];

#[tokio::test(flavor = "multi_thread")]
async fn a_rejected_password_is_never_tried_again_until_the_person_signs_in_anew() {
    for status in REFUSALS {
        let (clock, sandbox, place, first) = signed_in(true).await;
        clock.advance(TimeDelta::hours(2));
        sandbox.faults().always(LOGIN, Fault::Status(status));
        for account in [first.clone(), first.clone(), account(&place, &clock)] {
            let error = account.list_models(true).await.unwrap_err();
            assert!(matches!(error, Error::SignInRequired { .. }), "{status}: {error:?}");
        }
        assert_eq!(sandbox.count(LOGIN), 2, "{status}");

        sandbox.faults().clear();
        first.sign_in(EMAIL, place.password.clone(), true).await.unwrap();
        first.list_models(true).await.unwrap();
    }
}

/// Lets the vault refuse all records, as it does where a process has not been given its new key.
async fn refuse_records(place: &Place) {
    let file = place.data_dir().join("vault.db");
    let mut database = SqliteConnection::connect(&format!("sqlite://{}", file.display())).await.unwrap();
    let triggers = "CREATE TRIGGER no_insert BEFORE INSERT ON records BEGIN SELECT RAISE(ABORT, 'no'); END;
                    CREATE TRIGGER no_update BEFORE UPDATE ON records BEGIN SELECT RAISE(ABORT, 'no'); END;";
    sqlx::raw_sql(triggers).execute(&mut database).await.unwrap();
    database.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rejected_password_is_not_tried_again_though_the_vault_does_not_store_that() {
    let (clock, sandbox, place, stored) = signed_in(true).await;
    clock.advance(TimeDelta::hours(2));
    refuse_records(&place).await;
    sandbox.faults().always(LOGIN, Fault::Status(401));
    let wrong = [("BONDMCP_EMAIL", EMAIL), ("BONDMCP_PASSWORD", "wrong-password-1")];
    let environment = account_with(&place, &clock, &wrong);
    for (account, reason, logins) in
        [(stored, SignInReason::PasswordRejected, 2), (environment, SignInReason::EnvironmentRejected, 3)]
    {
        let error = account.list_models(true).await.unwrap_err();
        assert!(matches!(error, Error::Vault(_)), "{error:?}");
        for _ in 0..2 {
            let error = account.list_models(true).await.unwrap_err();
            assert!(matches!(error, Error::SignInRequired { why, .. } if why == reason), "{error:?}");
        }
        assert_eq!(sandbox.count(LOGIN), logins);
    }
}

/// A refusal that may pass is not met again at once.
#[tokio::test(flavor = "multi_thread")]
async fn another_refusal_pauses_renewals_and_keeps_the_password() {
    let refusals = [404, 405, 409, 410, 423].map(Fault::Status).into_iter().chain([Fault::TooMany(None)]);
    for fault in refusals {
        let (clock, sandbox, place, first) = signed_in(true).await;
        clock.advance(TimeDelta::hours(2));
        sandbox.faults().always(LOGIN, fault);
        for _ in 0..3 {
            first.list_models(true).await.unwrap_err();
        }
        assert_eq!(sandbox.count(LOGIN), 2);
        sandbox.faults().clear();
        account(&place, &clock).list_models(true).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_does_not_pause_the_renewals_of_whoever_signs_in_next() {
    let (clock, sandbox, place, account) = signed_in(true).await;
    clock.advance(TimeDelta::hours(2));
    sandbox.faults().next(LOGIN, Fault::TooMany(Some("3600".to_owned())));
    account.list_models(true).await.unwrap_err();
    account.sign_in(EMAIL, place.password.clone(), true).await.unwrap();
    clock.advance(TimeDelta::hours(2));
    account.list_models(true).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_refresh_falls_back_to_the_password_whatever_its_status() {
    for status in [400, 401, 403, 404, 405, 409, 410, 422, 423] {
        let clock = noon();
        let config = SandboxConfig { clock: clock.clone(), refresh_tokens: true, ..like_the_seed() };
        let sandbox = sandbox(config).await;
        let place = Place::new(&sandbox);
        let account = account(&place, &clock);
        account.sign_in(EMAIL, place.password.clone(), true).await.unwrap();
        clock.advance(TimeDelta::hours(2));
        sandbox.faults().always("POST /auth/refresh", Fault::Status(status));
        account.list_models(true).await.unwrap();
        assert_eq!((sandbox.count("POST /auth/refresh"), sandbox.count(LOGIN)), (1, 2), "{status}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rejected_password_in_the_environment_is_tried_once_by_all_processes_together() {
    for status in REFUSALS {
        let clock = noon();
        let sandbox = sandbox_with(&clock).await;
        let place = Place::new(&sandbox);
        sandbox.faults().next(LOGIN, Fault::Status(status));
        let wrong = [("BONDMCP_EMAIL", EMAIL), ("BONDMCP_PASSWORD", "wrong-password-1")];
        for _ in 0..3 {
            let error = account_with(&place, &clock, &wrong).list_models(true).await.unwrap_err();
            let why = SignInReason::EnvironmentRejected;
            assert!(matches!(error, Error::SignInRequired { why: given, .. } if given == why), "{error:?}");
        }
        assert_eq!(sandbox.count(LOGIN), 1, "{status}");

        let right = [("BONDMCP_EMAIL", EMAIL), ("BONDMCP_PASSWORD", secrets::text(&place.password))];
        account_with(&place, &clock, &right).list_models(true).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewal_is_not_made_before_retry_after_has_passed() {
    let (clock, sandbox, _place, account) = signed_in(true).await;
    clock.advance(TimeDelta::hours(2));
    for fault in [Fault::TooMany(Some("3600".to_owned())), Fault::Busy("3600".to_owned())] {
        sandbox.faults().next(LOGIN, fault);
    }
    for _ in 0..3 {
        let error = account.list_models(true).await.unwrap_err();
        let report = bondmcp_server::error::UserFacingError::from(&error);
        assert!((3500..=3600).contains(&report.retry_after_seconds.unwrap()), "{report:?}");
    }
    assert_eq!(sandbox.count(LOGIN), 2);
}

/// An upstream that knows log-ins and models; the log-in's answer has this `expires_in`, or none. Counts log-ins.
async fn upstream_with_lifetime(expires_in: Option<serde_json::Value>) -> (String, Arc<AtomicU32>) {
    use axum::{Json, Router, routing};
    let logins = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&logins);
    let login = move || async move {
        let number = counted.fetch_add(1, Ordering::SeqCst);
        let mut answer = json!({"access_token": format!("opaque-{number}"), "token_type": "bearer"});
        if let Some(expires_in) = expires_in {
            answer["expires_in"] = expires_in;
        }
        Json(answer)
    };
    let router = Router::new()
        .route("/auth/login", routing::post(login))
        .route("/health-ai/models", routing::get(|| async { Json(json!({"models": []})) }));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base_url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async { axum::serve(listener, router).await });
    (base_url, logins)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lifetime_in_any_writing_or_none_makes_one_login_and_refuses_none() {
    for expires_in in [
        Some(json!(3600)),
        Some(json!("3600")),
        Some(json!(3600.0)),
        Some(json!(0)),
        Some(json!(u64::MAX)),
        Some(json!(1e300)),
        Some(json!(null)),
        None,
    ] {
        let (base_url, logins) = upstream_with_lifetime(expires_in.clone()).await;
        let place = Place {
            directory: tempfile::tempdir().unwrap(),
            base_url,
            password: crate::common::random_password(),
            sealing_key: bondmcp_server::secret::random(),
        };
        let login = [("BONDMCP_EMAIL", EMAIL), ("BONDMCP_PASSWORD", secrets::text(&place.password))];
        let account = account_with(&place, &noon(), &login);
        for _ in 0..3 {
            account.list_models(true).await.unwrap();
        }
        assert_eq!(logins.load(Ordering::SeqCst), 1, "{expires_in:?}");
    }
}

/// The first holder loses its lease during its request, as after a long sleep of the machine.
#[tokio::test(flavor = "multi_thread")]
async fn of_two_holders_that_renew_at_once_one_session_wins_and_both_use_it() {
    const REFRESH: &str = "POST /auth/refresh";
    let clock = noon();
    let config = SandboxConfig { clock: clock.clone(), refresh_tokens: true, ..like_the_seed() };
    let sandbox = sandbox(config).await;
    let place = Place::new(&sandbox);
    let (one, other) = (account(&place, &clock), account(&place, &clock));
    one.sign_in(EMAIL, place.password.clone(), false).await.unwrap();
    clock.advance(TimeDelta::hours(2));
    for _ in 0..2 {
        sandbox.faults().next(REFRESH, Fault::Hold);
    }
    let bearer = |account: &Account| {
        let account = account.clone();
        tokio::spawn(async move { account.bearer(RequiredCredential::Session).await })
    };
    let first = bearer(&one);
    within(sandbox.faults().arrived(REFRESH, 1)).await;
    let second = bearer(&other);
    let vault = place.data_dir().join("vault.db");
    let mut database = SqliteConnection::connect(&format!("sqlite://{}", vault.display())).await.unwrap();
    while sandbox.count(REFRESH) < 2 {
        sqlx::query("UPDATE leases SET until = 0").execute(&mut database).await.unwrap();
        tokio::task::yield_now().await;
    }
    sandbox.faults().release();
    let (first, second) = (within(first).await.unwrap().unwrap(), within(second).await.unwrap().unwrap());
    assert_eq!(secrets::text(&first.secret), secrets::text(&second.secret));
    for account in [&one, &other] {
        account.list_models(true).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_during_renewal_forgets_nothing() {
    let (clock, sandbox, _place, account) = signed_in(true).await;
    clock.advance(TimeDelta::hours(2));
    sandbox.faults().next(LOGIN, Fault::Status(503));
    assert!(matches!(account.list_models(true).await, Err(Error::Upstream(_))));
    account.list_models(true).await.unwrap();
}

/// Waits until what an earlier call saw is not good enough for the next one.
async fn next_call() {
    let earlier = Instant::now();
    while earlier.elapsed() <= Duration::from_millis(1) {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn signing_out_in_one_process_is_noticed_by_another() {
    let clock = noon();
    let sandbox = sandbox_with(&clock).await;
    let place = Place::new(&sandbox);
    let (one, other) = (account(&place, &clock), account(&place, &clock));
    one.sign_in(EMAIL, place.password.clone(), true).await.unwrap();
    other.list_models(true).await.unwrap();
    one.sign_out(false).await.unwrap();
    next_call().await;
    let asked = sandbox.count("GET /health-ai/models");
    let error = other.list_models(true).await.unwrap_err();
    assert!(matches!(error, Error::SignInRequired { why: SignInReason::NotSignedIn, .. }), "{error:?}");
    assert_eq!((sandbox.count(LOGIN), sandbox.count("GET /health-ai/models")), (1, asked));
}

/// What a call is made with; `None` if somebody has to sign in.
async fn source(account: &Account) -> Option<CredentialSource> {
    match account.bearer(RequiredCredential::Api).await {
        Ok(bearer) => Some(bearer.source),
        Err(Error::SignInRequired { .. }) => None,
        Err(error) => panic!("{error:?}"),
    }
}

/// Another process chooses keys and signs out. PostgreSQL tells that a moment later; a file is looked at by each call.
async fn no_call_uses_what_another_process_has_deselected(vault: Option<&str>) {
    let clock = noon();
    let sandbox = sandbox_with(&clock).await;
    let place = Place::new(&sandbox);
    let variable = vault.map(|url| ("BONDMCP_VAULT", url));
    let account = || account_with(&place, &clock, variable.as_slice());
    let (one, other) = (account(), account());
    let assert_noticed = async |expected: Option<CredentialSource>| {
        next_call().await;
        let told = async {
            while vault.is_some() && source(&other).await != expected {
                next_call().await;
            }
        };
        within(told).await;
        assert_eq!(source(&other).await, expected);
    };
    one.sign_in(EMAIL, place.password.clone(), true).await.unwrap();
    let mut ids = Vec::new();
    for name in ["a", "b"] {
        let wanted = serde_json::from_value(json!({ "name": name })).unwrap();
        ids.push(one.create_key(wanted).await.unwrap().id);
    }
    for id in ids.iter().chain(&ids) {
        one.use_key(Some(id)).await.unwrap();
        assert_noticed(Some(CredentialSource::ManagedKey(id.clone()))).await;
    }
    one.use_key(None).await.unwrap();
    assert_noticed(Some(CredentialSource::Session)).await;
    one.sign_out(false).await.unwrap();
    assert_noticed(None).await;
    let asked = sandbox.count("GET /health-ai/models");
    assert!(matches!(other.list_models(true).await, Err(Error::SignInRequired { .. })));
    assert_eq!(sandbox.count("GET /health-ai/models"), asked);
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_sign_out_or_another_choice_of_key_in_another_process_no_call_uses_the_old_one() {
    no_call_uses_what_another_process_has_deselected(None).await;
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn on_postgresql_a_sign_out_or_another_choice_of_key_in_another_process_is_noticed_by_calls() {
    let Some(database) = crate::common::postgres::database() else { return };
    no_call_uses_what_another_process_has_deselected(Some(&database.url)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_another_process_has_just_stored_is_known_before_an_answer_leaves() {
    let clock = noon();
    let sandbox = sandbox_with(&clock).await;
    let place = Place::new(&sandbox);
    let (other, redactor) = accounts_and_redactor(&place, &clock, &[]);
    let other = other.local();
    assert!(!other.status().await.unwrap().signed_in);
    account(&place, &clock).sign_in(EMAIL, place.password.clone(), true).await.unwrap();
    let answer = secrets::text(&place.password);
    assert!(!redactor.redact(answer).contains(REDACTED));
    other.refresh_if_changed(Instant::now(), Duration::MAX).await.unwrap();
    assert!(redactor.redact(answer).contains(REDACTED));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_key_in_the_environment_needs_no_vault_and_manages_no_keys() {
    let clock = noon();
    let sandbox = sandbox_with(&clock).await;
    let place = Place::new(&sandbox);
    let signed_in = account(&place, &clock);
    signed_in.sign_in(EMAIL, place.password.clone(), false).await.unwrap();
    let wanted = serde_json::from_value(json!({ "name": "ci" })).unwrap();
    let key = signed_in.create_key(wanted).await.unwrap();
    let value = signed_in.key_secret(&key.id).await.unwrap();

    let elsewhere = Place {
        directory: tempfile::tempdir().unwrap(),
        base_url: place.base_url.clone(),
        password: place.password.clone(),
        sealing_key: place.sealing_key.clone(),
    };
    let key = [("BONDMCP_API_KEY", secrets::text(&value))];
    // The key may be somebody else's, whoever is signed in.
    let both = account_with(&place, &clock, &key);
    both.list_models(true).await.unwrap();
    assert_eq!(both.status().await.unwrap().email, None);
    assert_eq!(both.identity().unwrap().name, "the owner of an API key");
    let (accounts, _) = accounts_and_redactor(&elsewhere, &clock, &key);
    let account = accounts.local();
    account.list_models(true).await.unwrap();
    assert!(!elsewhere.data_dir().exists());
    let error = account.list_keys().await.unwrap_err();
    assert!(matches!(error, Error::SignInRequired { why: SignInReason::KeysNeedSession, .. }), "{error:?}");
    assert!(within(account.ensure_signed_in()).await.unwrap().signed_in);
    within(accounts.close()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewals_log_lines_carry_the_id_of_the_call_that_needed_it() {
    let sandbox = sandbox(like_the_seed()).await;
    let place = Place::new(&sandbox);
    place.sign_in().await;
    let server = Server::spawn(&mut place.command(&["--log", "debug", "stdio"])).await;
    server.ok("list_models", json!({})).await;
    sandbox.expire_tokens();
    server.ok("list_models", json!({ "refresh": true })).await;
    let (_, log) = server.end_apart().await;
    let log = String::from_utf8(log).unwrap();
    let line = log.lines().find(|line| line.contains("session") && line.contains("renew")).unwrap();
    assert!(line.contains("call{id=2 tool=\"list_models\" owner=\"default\"}"), "{line}");
}
