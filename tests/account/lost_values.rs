//! The value of a key exists once, in BondMCP's answer: what becomes of it when the vault fails, when the person has the
//! keys forgotten, or when another process has the wrong time.

use crate::common::{
    EMAIL, Place, accounts, fast_time::fast, like_the_seed, open, random_password, sandbox, settings, within,
};
use bondmcp_server::{
    account::{Account, Error, Key},
    bondmcp::{Client, Timing, wire::CreateApiKey},
    clock::Clock,
    error::UserFacingError,
    redact::Redactor,
    sandbox::{Fault, Plan, RunningSandbox},
};
use chrono::TimeDelta;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection as _, SqliteConnection};
use tokio::task::JoinHandle;

const CREATE: &str = "POST /auth/api-keys";
const LIST: &str = "GET /auth/api-keys";
const REGENERATE: &str = "POST /api/v1/api-keys/{id}/regenerate";
const LOGOUT: &str = "POST /auth/logout";
const SOMEBODY_ELSE: &str = "grace@example.com";

/// A change of keys whose request BondMCP holds.
struct Held {
    sandbox: RunningSandbox,
    place: Place,
    account: Account,
    change: JoinHandle<Result<Key, Error>>,
}

/// How writes to the vault fail.
#[derive(Clone, Copy)]
enum Failing {
    /// None takes effect for so many seconds, as on a full disk.
    For(u32),
    /// The first one takes effect and fails, as when its answer is lost. Only outside of a transaction.
    Once,
}

impl Held {
    async fn at(endpoint: &str) -> Self {
        Self::by(Fault::Hold, endpoint).await
    }

    async fn by(fault: Fault, endpoint: &str) -> Self {
        let sandbox = sandbox(like_the_seed()).await;
        let place = Place::new(&sandbox);
        place.sign_in().await;
        let account = accounts(&place).0.local();
        let is_create = endpoint == CREATE;
        if !is_create {
            for name in ["ci", "b", "c", "d", "e"] {
                account.create_key(wanted(name)).await.unwrap();
            }
            sandbox.set_plan(EMAIL, Plan::Starter);
        }
        sandbox.faults().next(endpoint, fault);
        let before = sandbox.count(endpoint);
        let change = {
            let (account, keys) = (account.clone(), sandbox.live_keys(EMAIL));
            tokio::spawn(async move {
                match keys.iter().find(|(_, name)| name == "ci") {
                    Some((id, _)) => account.rotate_key(id).await,
                    None => account.create_key(wanted("ci")).await,
                }
            })
        };
        within(sandbox.faults().arrived(endpoint, before + 1)).await;
        Self { sandbox, place, account, change }
    }

    /// Lets BondMCP answer; returns what became of the change.
    async fn outcome(&mut self) -> Result<Key, Error> {
        self.sandbox.faults().release();
        within(&mut self.change).await.unwrap()
    }

    /// The id of the key that was made or has got a new value.
    fn id(&self) -> String {
        self.id_of("ci")
    }

    /// The account as another process has it, whose clock is `ahead` by this much.
    fn elsewhere(&self, ahead: TimeDelta) -> Account {
        let clock = Clock::manual(chrono::Utc::now() + ahead);
        open(&settings(&self.place, &[]), clock, Timing::default()).0.local()
    }

    /// Ends the leases of the change and lets it take none any more, as when its process does not run.
    async fn lose_leases(&self) {
        let sql = "CREATE TABLE lost AS SELECT holder FROM leases;
             DELETE FROM leases;
             CREATE TRIGGER lose BEFORE INSERT ON leases WHEN NEW.holder IN (SELECT holder FROM lost) BEGIN
                 SELECT RAISE(ABORT, 'lost');
             END;";
        self.sql(sql.to_owned()).await;
    }

    async fn fail_writes(&self, failing: Failing) {
        self.sql(match failing {
            Failing::For(seconds) => format!(
                "CREATE TABLE failures (ends REAL);
                 INSERT INTO failures VALUES (julianday('now', '+{seconds} seconds'));
                 CREATE TABLE refused (value NOT NULL);
                 CREATE TRIGGER fails BEFORE UPDATE ON records WHEN julianday('now') < (SELECT ends FROM failures)
                 BEGIN
                     INSERT INTO refused VALUES (NULL);
                 END;"
            ),
            // What a statement has done when it fails is kept.
            Failing::Once => "CREATE TABLE failures (due INTEGER);
                 INSERT INTO failures VALUES (1);
                 CREATE TABLE refused (value NOT NULL);
                 CREATE TRIGGER fails AFTER UPDATE ON records WHEN (SELECT due FROM failures) > 0 BEGIN
                     UPDATE failures SET due = due - 1;
                     INSERT OR FAIL INTO refused VALUES (NULL);
                 END;"
                .to_owned(),
        })
        .await;
    }

    async fn sql(&self, sql: String) {
        let vault = self.place.data_dir().join("vault.db");
        let mut database = SqliteConnection::connect(&format!("sqlite://{}", vault.display())).await.unwrap();
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut database).await.unwrap();
        database.close().await.unwrap();
    }

    async fn value_works(&self) -> bool {
        let value = self.account.key_secret(&self.id()).await.unwrap();
        self.client().list_models(&value).await.is_ok()
    }

    /// The id of the key with this name at BondMCP.
    fn id_of(&self, name: &str) -> String {
        self.sandbox.live_keys(EMAIL).into_iter().find(|(_, known)| known == name).unwrap().0
    }

    fn client(&self) -> Client {
        let url = self.place.base_url.parse().unwrap();
        Client::new(url, Redactor::default(), Clock::system(), Timing::default())
    }
}

fn wanted(name: &str) -> CreateApiKey {
    CreateApiKey { name: name.to_owned(), description: None, permissions: vec![] }
}

/// The ids that an error names.
fn lost(outcome: &Result<Key, Error>) -> Vec<String> {
    match outcome {
        Err(Error::CreateLost { orphans, .. }) => orphans.clone(),
        Err(Error::RegenerationLost { id, .. }) => vec![id.clone()],
        _ => panic!("{outcome:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_value_of_a_key_is_stored_once_although_the_vault_fails_at_first() {
    for (endpoint, failing) in
        [(CREATE, Failing::For(1)), (CREATE, Failing::Once), (REGENERATE, Failing::For(1))]
    {
        let mut held = Held::at(endpoint).await;
        held.fail_writes(failing).await;
        let key = held.outcome().await.unwrap();
        assert_eq!(key.id, held.id());
        assert!(held.value_works().await, "{endpoint}");
        let stored = held.account.stored_keys().await.unwrap();
        assert_eq!(stored.iter().filter(|stored| stored.id == key.id).count(), 1, "{stored:?}");
        assert_eq!(held.account.list_keys().await.unwrap().unfinished, []);
    }
}

#[tokio::test]
async fn a_key_whose_value_the_vault_does_not_take_is_named_and_leaves_a_trace() {
    for endpoint in [CREATE, REGENERATE] {
        let mut held = Held::at(endpoint).await;
        held.fail_writes(Failing::For(3600)).await;
        let outcome = fast(held.outcome()).await;
        let id = held.id();
        assert_eq!(lost(&outcome), std::slice::from_ref(&id));
        let told = UserFacingError::from(&outcome.unwrap_err());
        assert!(told.message.contains("the vault cannot be used"), "{told:?}");
        assert!(told.solution.contains(&id), "{told:?}");
        held.sql("DROP TRIGGER fails".to_owned()).await;
        let unfinished = held.account.list_keys().await.unwrap().unfinished;
        assert_eq!(unfinished.len(), 1, "{unfinished:?}");
        assert_eq!(unfinished[0].lost_key_ids, [id]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_with_the_id_of_another_key_leaves_its_value_and_names_the_one_that_is_lost() {
    for (endpoint, is_listed) in [(CREATE, true), (CREATE, false), (REGENERATE, true), (REGENERATE, false)] {
        let mut held = Held::at(endpoint).await;
        let id = held.outcome().await.unwrap().id;
        held.sandbox.faults().next(endpoint, Fault::ProcessThenChange(json!({ "id": id })));
        let list_without_it = |keys: Value| {
            if !is_listed {
                held.sandbox.faults().next(LIST, Fault::Answer(json!({ "api_keys": keys })));
            }
        };
        let (outcome, other) = if endpoint == CREATE {
            list_without_it(json!([]));
            let outcome = held.account.create_key(wanted("other")).await;
            (outcome, held.id_of("other"))
        } else {
            let other = held.id_of("b");
            list_without_it(json!([{"id": other, "name": "b"}]));
            (held.account.rotate_key(&other).await, other)
        };
        assert_eq!(lost(&outcome), std::slice::from_ref(&other), "{endpoint}, listed: {is_listed}");
        let told = UserFacingError::from(&outcome.unwrap_err());
        assert!(told.message.contains(&id) && told.solution.contains(&other), "{told:?}");
        assert!(told.solution.ends_with(&format!("If calls with {id} fail, rotate it.")), "{told:?}");
        assert!(held.value_works().await, "{endpoint}, listed: {is_listed}");
        let unfinished = held.account.list_keys().await.unwrap().unfinished;
        assert_eq!(unfinished.len(), 1, "{unfinished:?}");
        assert_eq!(unfinished[0].lost_key_ids, [other]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_answer_does_not_replace_the_value_of_a_later_rotation() {
    for (fault, is_older) in [(Fault::ProcessThenHold, true), (Fault::Hold, false)] {
        let mut held = Held::by(fault, REGENERATE).await;
        if is_older {
            within(held.sandbox.faults().processed(REGENERATE, 1)).await;
        }
        held.lose_leases().await;
        let (here, id) = (held.elsewhere(TimeDelta::zero()), held.id());
        within(here.rotate_key(&id)).await.unwrap();

        let outcome = held.outcome().await;
        assert_eq!(lost(&outcome), std::slice::from_ref(&id));
        let told = UserFacingError::from(&outcome.unwrap_err());
        assert!(told.solution.contains(&format!("rotate {id} again")), "{told:?}");
        assert_eq!(held.value_works().await, is_older);
        let unfinished = here.list_keys().await.unwrap().unfinished;
        assert_eq!(unfinished.len(), 1, "{unfinished:?}");
        assert_eq!(unfinished[0].lost_key_ids, std::slice::from_ref(&id));

        within(here.rotate_key(&id)).await.unwrap();
        assert!(held.value_works().await);
        assert_eq!(here.list_keys().await.unwrap().unfinished, []);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_that_cannot_be_sent_is_not_stored_and_its_key_is_named() {
    for (endpoint, value) in [(CREATE, ""), (CREATE, "bcp_\n"), (REGENERATE, "")] {
        let mut held = Held::at(endpoint).await;
        held.outcome().await.unwrap();
        held.sandbox.faults().next(endpoint, Fault::ProcessThenChange(json!({ "api_key": value })));
        let (outcome, id) = if endpoint == CREATE {
            let outcome = held.account.create_key(wanted("other")).await;
            (outcome, held.id_of("other"))
        } else {
            (held.account.rotate_key(&held.id()).await, held.id())
        };
        assert_eq!(lost(&outcome), std::slice::from_ref(&id));
        let unfinished = held.account.list_keys().await.unwrap().unfinished;
        assert_eq!(unfinished.len(), 1, "{unfinished:?}");
        assert_eq!(unfinished[0].lost_key_ids, std::slice::from_ref(&id));
        let kept = held.account.key_secret(&id).await;
        assert!(endpoint == REGENERATE || matches!(kept, Err(Error::KeyNotStored)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_made_while_the_keys_are_forgotten_is_not_the_next_persons() {
    for endpoint in [CREATE, REGENERATE] {
        let mut held = Held::at(endpoint).await;
        let (here, password) = (held.elsewhere(TimeDelta::zero()), random_password());
        held.sandbox.add_account(SOMEBODY_ELSE, &password, Plan::Unlimited, true);
        let taken = async || {
            let outcome = here.sign_in(SOMEBODY_ELSE, password.clone(), false).await;
            matches!(outcome, Err(Error::ProfileTaken { email }) if email == EMAIL)
        };
        // The session still works, so that the request is processed.
        held.sandbox.faults().always(LOGOUT, Fault::Status(503));
        here.sign_out(true).await.unwrap();
        assert!(taken().await);

        let outcome = held.outcome().await;
        let id = held.id();
        assert_eq!(lost(&outcome), std::slice::from_ref(&id));
        assert!(matches!(here.key_secret(&id).await, Err(Error::KeyNotStored)));
        assert_eq!(here.stored_keys().await.unwrap(), []);
        assert!(taken().await);
        assert_eq!(here.sign_out(true).await.unwrap().ids, [id]);
        here.sign_in(SOMEBODY_ELSE, password.clone(), false).await.unwrap();
        let list = here.list_keys().await.unwrap();
        assert!(list.keys.is_empty() && list.unfinished.is_empty(), "{list:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_being_made_keeps_its_trace_whatever_time_it_is_elsewhere() {
    let mut held = Held::at(CREATE).await;
    let ahead = held.elsewhere(TimeDelta::minutes(59));
    ahead.list_keys().await.unwrap();
    let outcome = ahead.sign_in(SOMEBODY_ELSE, random_password(), false).await;
    assert!(matches!(outcome, Err(Error::ProfileTaken { .. })), "{outcome:?}");
    held.outcome().await.unwrap();
    assert!(held.value_works().await);
    assert_eq!(ahead.list_keys().await.unwrap().unfinished, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_made_after_its_answer_was_lost_keeps_its_trace_whatever_time_it_is_elsewhere() {
    let mut held = Held::at(CREATE).await;
    held.outcome().await.unwrap();
    held.sandbox.faults().next(CREATE, Fault::Drop);
    let outcome = held.account.create_key(wanted("late")).await;
    assert!(lost(&outcome).is_empty(), "{outcome:?}");
    let ahead = held.elsewhere(TimeDelta::minutes(59));
    ahead.list_keys().await.unwrap();

    let token = held.client().login(EMAIL, &held.place.password).await.unwrap().access_token;
    let late = held.client().create_api_key(&token, &wanted("late")).await.unwrap();
    for account in [&ahead, &held.account] {
        let unfinished = account.list_keys().await.unwrap().unfinished;
        assert_eq!(unfinished.len(), 1, "{unfinished:?}");
        assert_eq!(unfinished[0].lost_key_ids, std::slice::from_ref(&late.id));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_another_program_made_does_not_end_the_trace_of_one_that_may_still_be_made() {
    let mut held = Held::at(CREATE).await;
    held.outcome().await.unwrap();
    let token = held.client().login(EMAIL, &held.place.password).await.unwrap().access_token;
    let others = held.client().create_api_key(&token, &wanted("late")).await.unwrap();
    // It is made between the list and the request.
    let before = json!({"api_keys": [{"id": held.id(), "name": "ci"}]});
    held.sandbox.faults().next(LIST, Fault::Answer(before));
    held.sandbox.faults().next(CREATE, Fault::Drop);
    let outcome = held.account.create_key(wanted("late")).await;
    assert_eq!(lost(&outcome), [others.id]);

    for _ in 0..2 {
        assert_eq!(held.account.sign_out(true).await.unwrap().names, ["late"]);
    }
    held.place.end_leases().await;
    assert!(held.account.sign_out(true).await.unwrap().names.is_empty());
}

/// The clock of the process was wrong.
#[tokio::test(flavor = "multi_thread")]
async fn an_intent_with_a_date_in_the_future_ends_when_its_lease_does() {
    for has_ended in [false, true] {
        let mut held = Held::at(CREATE).await;
        held.outcome().await.unwrap();
        held.sandbox.faults().next(CREATE, Fault::Drop);
        let outcome = held.elsewhere(TimeDelta::minutes(59)).create_key(wanted("never")).await;
        assert!(lost(&outcome).is_empty(), "{outcome:?}");
        if has_ended {
            held.place.end_leases().await;
        }
        held.account.list_keys().await.unwrap();
        let names = held.account.sign_out(true).await.unwrap().names;
        assert_eq!(names.is_empty(), has_ended, "{names:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_ended_although_it_is_not_known_whether_it_was_deleted_here() {
    let held = Held::at(CREATE).await;
    held.fail_writes(Failing::For(3600)).await;
    let outcome = held.account.sign_out(false).await;
    assert!(matches!(outcome, Err(Error::Vault(_))), "{outcome:?}");
    assert_eq!(held.sandbox.count(LOGOUT), 1);
}
