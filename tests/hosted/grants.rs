//! The account of a grant: its own API key and limit, and what becomes of them when the grant ends.

use crate::common::{EMAIL, Place, like_the_seed, open, sandbox, settings, within};
use bondmcp_server::{
    account::{
        Account, Accounts, Authenticated, DailyLimit, Error, Leftovers, LimitSetBy, NewGrant, Owner,
        Settlement, Usd,
    },
    bondmcp::{
        Timing,
        wire::{CreateApiKey, Permission},
    },
    clock::Clock,
    error::UserFacingError,
    sandbox::{Fault, Plan, RunningSandbox},
};
use chrono::TimeDelta;
use std::time::Duration;

const LIST: &str = "GET /auth/api-keys";
const CREATE: &str = "POST /auth/api-keys";
const REVOKE: &str = "DELETE /auth/api-keys/{id}";
const LOGOUT: &str = "POST /auth/logout";
const MODELS: &str = "GET /health-ai/models";

const KEY_NAME: &str = "Claude (claude.ai) 2026-11-29 K7QM2RTX-01234567";

struct World {
    sandbox: RunningSandbox,
    place: Place,
    clock: Clock,
    accounts: Accounts,
}

impl World {
    async fn new() -> Self {
        let sandbox = sandbox(like_the_seed()).await;
        let place = Place::new(&sandbox);
        let clock = Clock::manual(chrono::Utc::now());
        let accounts = replica(&place, &clock);
        Self { sandbox, place, clock, accounts }
    }

    /// The accounts as another process has them.
    fn replica(&self) -> Accounts {
        replica(&self.place, &self.clock)
    }

    fn grant(&self, name: &str) -> Account {
        self.accounts.open(&owner(name))
    }

    async fn session(&self) -> Authenticated {
        let password = self.place.password.clone();
        within(self.accounts.authenticator().with_password(EMAIL, password)).await.unwrap()
    }

    async fn opened(&self, name: &str) -> Account {
        let grant = self.grant(name);
        within(grant.open_grant(self.session().await, new_grant(KEY_NAME))).await.unwrap();
        grant
    }

    /// Names of the keys that BondMCP accepts.
    fn keys(&self) -> Vec<String> {
        self.sandbox.live_keys(EMAIL).into_iter().map(|(_, name)| name).collect()
    }

    fn only_key(&self) -> String {
        let keys = self.sandbox.live_keys(EMAIL);
        assert_eq!(keys.len(), 1, "{keys:?}");
        keys[0].0.clone()
    }
}

fn owner(name: &str) -> Owner {
    Owner::Subject(format!("person.{name}"))
}

fn new_grant(key_name: &str) -> NewGrant {
    NewGrant {
        issuer: "https://mcp.example.com".to_owned(),
        key_name: key_name.to_owned(),
        permissions: vec![Permission::Read],
        daily_limit: Usd::cents(50),
    }
}

fn replica(place: &Place, clock: &Clock) -> Accounts {
    open(&settings(place, &[]), clock.clone(), Timing::default()).0
}

async fn models(account: &Account) -> Result<(), Error> {
    within(account.list_models(true)).await.map(|_| ())
}

/// Whether the account has nothing to call BondMCP with.
async fn is_locked(account: &Account) -> bool {
    matches!(models(account).await, Err(Error::GrantEnded))
}

#[tokio::test]
async fn a_grant_calls_with_a_key_of_its_own_whose_name_tells_whose_it_is() {
    let world = World::new().await;
    let grant = world.opened("one").await;
    assert_eq!(world.keys(), [KEY_NAME]);
    world.sandbox.expire_tokens();
    models(&grant).await.unwrap();
    models(&world.replica().open(&owner("one"))).await.unwrap();
    let status = grant.status().await.unwrap();
    assert_eq!(status.key_id, Some(world.only_key()));
    assert!(grant.has_live_session().await.unwrap(), "the session is kept for as long as it lives");
}

#[tokio::test]
async fn where_the_plan_allows_no_further_key_the_session_is_what_calls_are_made_with() {
    let world = World::new().await;
    world.sandbox.set_plan(EMAIL, Plan::Free);
    for name in ["one", "two"] {
        within(world.grant(name).open_grant(world.session().await, new_grant(name))).await.unwrap();
    }
    let third = world.opened("three").await;
    assert_eq!(world.keys().len(), 2);
    models(&third).await.unwrap();
    world.sandbox.expire_tokens();
    assert!(matches!(models(&third).await, Err(Error::SignInRequired { .. })));

    let left = within(third.release()).await.unwrap();
    assert!(left.is_empty(), "{left:?}");
    assert_eq!(world.keys().len(), 2, "no key of another grant is touched");
}

/// BondMCP may say so in other words than the documented ones.
#[tokio::test]
async fn a_grant_that_is_refused_a_key_for_some_limit_calls_with_the_session() {
    let world = World::new().await;
    for refusal in [
        serde_json::json!({"detail": "Plan limit reached"}),
        serde_json::json!({"error": {"code": "KeyLimitReached"}}),
    ] {
        world.sandbox.faults().next(CREATE, Fault::Refusal(403, refusal));
    }
    for name in ["one", "two"] {
        let grant = world.opened(name).await;
        models(&grant).await.unwrap();
        assert_eq!(grant.status().await.unwrap().key_id, None);
    }
    assert!(world.keys().is_empty());
    world.sandbox.faults().next(CREATE, Fault::Refusal(403, serde_json::json!({"detail": "Upgrade"})));
    let third = world.grant("three");
    let refused = within(third.open_grant(world.session().await, new_grant(KEY_NAME))).await;
    assert!(matches!(refused, Err(Error::Upstream(_))), "{refused:?}");
}

#[tokio::test]
async fn ending_a_grant_revokes_its_key_and_ends_its_session() {
    let world = World::new().await;
    let grant = world.opened("one").await;
    let other = world.opened("other").await;
    models(&grant).await.unwrap();
    let left = within(grant.release()).await.unwrap();
    assert!(left.is_empty(), "{left:?}");
    assert_eq!(world.keys().len(), 1);
    assert_eq!(world.sandbox.count(LOGOUT), 1);
    assert!(is_locked(&grant).await);
    within(grant.forget_grant(&Leftovers::default())).await.unwrap();
    assert!(is_locked(&grant).await, "it stays so for a while");
    assert!(is_locked(&world.replica().open(&owner("one"))).await);
    models(&other).await.unwrap();
    // As often as one likes.
    assert!(within(grant.release()).await.unwrap().is_empty());
    assert_eq!(world.keys().len(), 1);
}

#[tokio::test]
async fn while_bondmcp_is_down_the_key_is_deleted_here_and_revoked_later() {
    let world = World::new().await;
    let grant = world.opened("one").await;
    world.sandbox.faults().always(REVOKE, Fault::Status(503));
    within(grant.release()).await.unwrap_err();
    assert_eq!(world.keys(), [KEY_NAME]);
    assert!(is_locked(&grant).await);
    assert!(grant.stored_keys().await.unwrap().is_empty(), "its value is deleted");

    world.sandbox.faults().clear();
    let again = world.replica().open(&owner("one"));
    assert!(within(again.release()).await.unwrap().is_empty());
    assert!(world.keys().is_empty());
}

#[tokio::test]
async fn without_a_session_the_key_waits_for_the_persons_next_one() {
    let world = World::new().await;
    let grant = world.opened("one").await;
    world.sandbox.expire_tokens();
    let left = within(grant.release()).await.unwrap();
    assert_eq!(left.keys, [world.only_key()]);
    within(grant.forget_grant(&left)).await.unwrap();
    assert!(is_locked(&grant).await);

    let stored = serde_json::to_string(&left).unwrap();
    let next = world.grant("two");
    within(next.open_grant(world.session().await, new_grant("another name"))).await.unwrap();
    within(next.revoke_leftovers(serde_json::from_str(&stored).unwrap())).await.unwrap().1.unwrap();
    assert_eq!(world.keys(), ["another name"]);
    models(&next).await.unwrap();
}

#[tokio::test]
async fn a_key_whose_creation_was_never_answered_is_found_by_its_name_and_revoked() {
    let world = World::new().await;
    let other = world.grant("other");
    within(other.open_grant(world.session().await, new_grant("the other's"))).await.unwrap();

    let grant = world.grant("one");
    world.sandbox.faults().next(CREATE, Fault::ProcessThenDrop);
    within(grant.open_grant(world.session().await, new_grant(KEY_NAME))).await.unwrap_err();
    assert_eq!(grant.status().await.unwrap().key_id, None);
    assert_eq!(world.keys().len(), 2);
    // It is not known yet whether another process still makes it.
    within(grant.release()).await.unwrap_err();
    world.clock.advance(TimeDelta::minutes(3));
    world.place.end_leases().await;
    assert!(within(grant.release()).await.unwrap().is_empty());
    assert_eq!(world.keys(), ["the other's"]);
    models(&other).await.unwrap();
}

#[tokio::test]
async fn a_key_that_may_exist_waits_too_when_nobody_can_look() {
    let world = World::new().await;
    let grant = world.grant("one");
    world.sandbox.faults().next(CREATE, Fault::ProcessThenDrop);
    world.sandbox.faults().next(LIST, Fault::Answer(serde_json::json!({"api_keys": []})));
    world.sandbox.faults().next(LIST, Fault::Status(503));
    within(grant.open_grant(world.session().await, new_grant(KEY_NAME))).await.unwrap_err();
    world.sandbox.expire_tokens();
    world.clock.advance(TimeDelta::minutes(3));
    world.place.end_leases().await;
    let left = within(grant.release()).await.unwrap();
    assert!(!left.is_empty() && left.keys.is_empty(), "{left:?}");
    let next = world.grant("two");
    within(next.open_grant(world.session().await, new_grant("another name"))).await.unwrap();
    within(next.revoke_leftovers(left)).await.unwrap().1.unwrap();
    assert_eq!(world.keys(), ["another name"]);
}

#[tokio::test]
async fn what_is_made_while_the_grant_ends_is_revoked_too() {
    let world = World::new().await;
    let grant = world.opened("one").await;
    world.sandbox.faults().next(CREATE, Fault::Hold);
    let wanted = CreateApiKey { name: "late".into(), description: None, permissions: vec![] };
    let creating = {
        let grant = grant.clone();
        tokio::spawn(async move { grant.create_key(wanted).await })
    };
    within(world.sandbox.faults().arrived(CREATE, 2)).await;
    // The key that is being created is not known yet, whatever time it is there.
    let ahead = replica(&world.place, &Clock::manual(world.clock.now() + TimeDelta::minutes(59)));
    within(ahead.open(&owner("one")).release()).await.unwrap_err();
    world.sandbox.faults().release();
    assert!(matches!(within(creating).await.unwrap(), Err(Error::GrantEnded)));
    assert_eq!(world.keys().len(), 1);
    assert!(within(grant.release()).await.unwrap().is_empty());
    assert!(world.keys().is_empty());
}

/// The process that makes it was taken for dead.
#[tokio::test]
async fn a_key_that_comes_after_the_release_and_before_the_end_is_not_forgotten() {
    let world = World::new().await;
    let grant = world.opened("one").await;
    world.sandbox.faults().next(CREATE, Fault::ProcessThenHold);
    let wanted = CreateApiKey { name: "late".into(), description: None, permissions: vec![] };
    let creating = {
        let grant = grant.clone();
        tokio::spawn(async move { grant.create_key(wanted).await })
    };
    within(world.sandbox.faults().processed(CREATE, 1)).await;
    world.clock.advance(TimeDelta::minutes(3));
    world.place.end_leases().await;
    // It is listed only when it is stored.
    world.sandbox.faults().next(LIST, Fault::Answer(serde_json::json!({"api_keys": []})));
    let left = within(grant.release()).await.unwrap();
    assert!(left.is_empty(), "{left:?}");
    world.sandbox.faults().release();
    assert!(matches!(within(creating).await.unwrap(), Err(Error::GrantEnded)));
    let late = world.only_key();
    assert!(matches!(within(grant.forget_grant(&left)).await, Err(Error::Interrupted)));

    let left = within(grant.release()).await.unwrap();
    assert_eq!(left.keys, [late]);
    within(grant.forget_grant(&left)).await.unwrap();
    assert!(is_locked(&grant).await);
}

#[tokio::test]
async fn nothing_is_made_or_adopted_for_a_grant_that_has_ended() {
    let world = World::new().await;
    let grant = world.opened("one").await;
    within(grant.release()).await.unwrap();
    within(grant.forget_grant(&Leftovers::default())).await.unwrap();
    let session = world.session().await;
    assert!(world.place.last_token_works(&world.sandbox).await);
    assert!(matches!(within(grant.adopt(session, false)).await, Err(Error::GrantEnded)));
    world.accounts.close().await;
    assert!(
        !world.place.last_token_works(&world.sandbox).await,
        "the session of a sign-in that came too late is ended"
    );
    let replica = world.replica();
    let again = replica.open(&owner("one"));
    let outcome = within(again.open_grant(replica_session(&replica, &world).await, new_grant("again"))).await;
    assert!(matches!(outcome, Err(Error::GrantEnded)), "{outcome:?}");
    assert!(world.keys().is_empty());
}

/// "Disconnect all" or a sweep may come between the record of a grant and its account.
#[tokio::test]
async fn a_grant_that_ends_before_its_account_is_opened_makes_nothing() {
    let world = World::new().await;
    let grant = world.grant("one");
    assert!(within(grant.release()).await.unwrap().is_empty());
    within(grant.forget_grant(&Leftovers::default())).await.unwrap();
    for accounts in [&world.accounts, &world.replica()] {
        let session = replica_session(accounts, &world).await;
        let outcome = within(accounts.open(&owner("one")).open_grant(session, new_grant(KEY_NAME))).await;
        assert!(matches!(outcome, Err(Error::GrantEnded)), "{outcome:?}");
    }
    assert_eq!(world.sandbox.count(CREATE), 0);
}

async fn replica_session(accounts: &Accounts, world: &World) -> Authenticated {
    within(accounts.authenticator().with_password(EMAIL, world.place.password.clone())).await.unwrap()
}

#[tokio::test]
async fn the_grants_key_can_be_rotated_and_not_revoked() {
    let world = World::new().await;
    let grant = world.opened("one").await;
    let first = world.only_key();
    let refused = within(grant.revoke_key(&first)).await.unwrap_err();
    assert!(matches!(refused, Error::GrantKey { .. }));
    let told = UserFacingError::from(&refused);
    assert!(told.solution.contains("/connections"), "{told:?}");

    let second = within(Box::pin(grant.rotate_key(&first))).await.unwrap().id;
    assert_eq!(world.only_key(), second);
    assert!(matches!(within(grant.revoke_key(&second)).await, Err(Error::GrantKey { .. })));
    models(&grant).await.unwrap();
    assert!(within(grant.release()).await.unwrap().is_empty());
    assert!(world.keys().is_empty());
}

#[tokio::test]
async fn the_key_of_one_grant_cannot_be_ended_by_another_of_the_same_person() {
    let world = World::new().await;
    let one = world.opened("one").await;
    let first = world.only_key();
    let other = world.grant("other");
    let name = KEY_NAME.replace("K7QM2RTX", "B2B2B2B2");
    within(other.open_grant(world.session().await, new_grant(&name))).await.unwrap();
    let revoked = within(other.revoke_key(&first)).await.unwrap_err();
    let rotated = within(Box::pin(other.rotate_key(&first))).await.unwrap_err();
    for refused in [revoked, rotated] {
        assert!(matches!(refused, Error::OtherGrantKey { .. }), "{refused:?}");
        assert!(UserFacingError::from(&refused).solution.contains("/connections"));
    }
    models(&one).await.unwrap();
    // So is a key that its app has created, and its own app can end it.
    let wanted = || CreateApiKey { name: "laptop".into(), description: None, permissions: vec![] };
    let laptop = within(one.create_key(wanted())).await.unwrap();
    assert!(laptop.name.starts_with("laptop ") && laptop.name.ends_with(" K7QM2RTX-01234567"));
    let refused = within(other.revoke_key(&laptop.id)).await;
    assert!(matches!(refused, Err(Error::OtherGrantKey { .. })), "{refused:?}");
    within(one.revoke_key(&laptop.id)).await.unwrap();
    // A key of nobody's grant is the person's.
    let person = world.accounts.open(&Owner::Subject("somebody.else".into()));
    within(person.adopt(world.session().await, false)).await.unwrap();
    let laptop = within(person.create_key(wanted())).await.unwrap();
    assert_eq!(laptop.name, "laptop");
    within(other.revoke_key(&laptop.id)).await.unwrap();
}

/// Its app has chosen the key, and can choose another one: the grant goes on.
#[tokio::test]
async fn a_key_that_an_app_has_chosen_is_not_what_a_grant_depends_on() {
    let world = World::new().await;
    let grant = world.opened("one").await;
    assert!(!grant.uses_chosen_key().await.unwrap());
    let wanted = CreateApiKey { name: "ci".into(), description: None, permissions: vec![] };
    let chosen = within(grant.create_key(wanted)).await.unwrap();
    within(grant.use_key(Some(&chosen.id))).await.unwrap();
    assert!(grant.uses_chosen_key().await.unwrap());
    within(grant.use_key(None)).await.unwrap();
    assert!(!grant.uses_chosen_key().await.unwrap());
}

/// BondMCP refuses to revoke it, whyever.
#[tokio::test]
async fn a_key_that_cannot_be_revoked_keeps_no_other_one() {
    let world = World::new().await;
    let grant = world.opened("one").await;
    for name in ["ci", "laptop"] {
        let wanted = CreateApiKey { name: name.into(), description: None, permissions: vec![] };
        within(grant.create_key(wanted)).await.unwrap();
    }
    world.sandbox.faults().next(REVOKE, Fault::Status(409));
    within(grant.release()).await.unwrap_err();
    assert_eq!(world.keys().len(), 1);
    let asked = world.sandbox.count(REVOKE);
    assert!(within(grant.release()).await.unwrap().is_empty());
    assert!(world.keys().is_empty());
    assert_eq!(world.sandbox.count(REVOKE), asked + 1, "what is done is not repeated");
}

/// The app created it, and the answer was lost.
#[tokio::test]
async fn a_key_that_an_app_may_have_created_is_revoked_when_the_person_signs_in_next() {
    let world = World::new().await;
    let grant = world.opened("one").await;
    world.sandbox.faults().next(CREATE, Fault::ProcessThenDrop);
    world.sandbox.faults().next(LIST, Fault::Slow(Duration::ZERO));
    world.sandbox.faults().next(LIST, Fault::Status(400));
    let wanted = CreateApiKey { name: "ci".into(), description: None, permissions: vec![] };
    let lost = within(grant.create_key(wanted)).await;
    assert!(matches!(&lost, Err(Error::CreateLost { orphans, .. }) if orphans.is_empty()), "{lost:?}");
    world.sandbox.expire_tokens();
    world.clock.advance(TimeDelta::minutes(3));
    world.place.end_leases().await;
    let left = within(grant.release()).await.unwrap();
    assert_eq!(world.keys().len(), 2, "nobody is signed in");
    let next = world.grant("two");
    within(next.open_grant(world.session().await, new_grant("another name"))).await.unwrap();
    within(next.revoke_leftovers(left)).await.unwrap().1.unwrap();
    assert_eq!(world.keys(), ["another name"]);
}

#[tokio::test]
async fn an_app_can_revoke_a_key_whose_value_it_lost() {
    let world = World::new().await;
    let grant = world.opened("one").await;
    let first = world.only_key();
    world.sandbox.faults().next(CREATE, Fault::ProcessThenDrop);
    let outcome = within(Box::pin(grant.rotate_key(&first))).await;
    let Err(Error::CreateLost { orphans, .. }) = outcome else { panic!("{outcome:?}") };
    within(grant.revoke_key(&orphans[0])).await.unwrap();
    assert_eq!(world.only_key(), first);
    assert!(within(grant.list_keys()).await.unwrap().unfinished.is_empty());
}

/// The process loses the answer to the revocation, and then cannot list the keys either.
#[tokio::test]
async fn a_rotation_of_the_grants_key_that_lacks_its_last_step_is_finished() {
    let world = World::new().await;
    let grant = world.opened("one").await;
    let first = world.only_key();
    // The first list is that of the rotation.
    world.sandbox.faults().next(LIST, Fault::Slow(Duration::ZERO));
    world.sandbox.faults().next(LIST, Fault::Status(400));
    world.sandbox.faults().next(REVOKE, Fault::ProcessThenDrop);
    let outcome = within(Box::pin(grant.rotate_key(&first))).await;
    assert!(matches!(outcome, Err(Error::RotationUnfinished { .. })), "{outcome:?}");
    let second = world.only_key();
    assert_ne!(second, first);
    // It is the grant's key from the moment it was made.
    assert!(matches!(within(grant.revoke_key(&second)).await, Err(Error::GrantKey { .. })));
    assert!(within(grant.list_keys()).await.unwrap().unfinished.is_empty());
    within(grant.sign_out(false)).await.unwrap();
    within(grant.adopt(world.session().await, false)).await.unwrap();
    world.sandbox.expire_tokens();
    models(&grant).await.unwrap();
}

/// The person has revoked both at BondMCP. The one that calls are made with is the grant's, so that the grant ends with it.
#[tokio::test]
async fn a_rotation_whose_keys_are_both_gone_leaves_a_grant_that_depends_on_its_key() {
    let world = World::new().await;
    let grant = world.opened("one").await;
    let first = world.only_key();
    world.sandbox.faults().next(REVOKE, Fault::Status(500));
    let outcome = within(Box::pin(grant.rotate_key(&first))).await;
    assert!(matches!(outcome, Err(Error::RotationUnfinished { .. })), "{outcome:?}");
    let person = world.accounts.open(&Owner::Subject("somebody.else".into()));
    within(person.adopt(world.session().await, false)).await.unwrap();
    for (id, _) in world.sandbox.live_keys(EMAIL) {
        within(person.revoke_key(&id)).await.unwrap();
    }
    world.clock.advance(TimeDelta::minutes(3));
    assert!(within(grant.list_keys()).await.unwrap().unfinished.is_empty());
    assert!(!grant.uses_chosen_key().await.unwrap());
    assert!(models(&grant).await.unwrap_err().is_unauthorized());
}

#[tokio::test]
async fn keys_that_the_app_has_created_end_with_the_grant() {
    let world = World::new().await;
    let grant = world.opened("one").await;
    let wanted = CreateApiKey { name: "laptop".into(), description: None, permissions: vec![] };
    let created = within(grant.create_key(wanted)).await.unwrap();
    within(grant.use_key(Some(&created.id))).await.unwrap();
    assert!(within(grant.release()).await.unwrap().is_empty());
    assert!(world.keys().is_empty());
}

#[tokio::test]
async fn whoever_signs_out_and_in_again_has_the_grants_key_back() {
    let world = World::new().await;
    let grant = world.opened("one").await;
    within(grant.sign_out(false)).await.unwrap();
    assert!(matches!(models(&grant).await, Err(Error::SignInRequired { .. })));
    within(grant.adopt(world.session().await, false)).await.unwrap();
    world.sandbox.expire_tokens();
    models(&grant).await.unwrap();
}

#[tokio::test]
async fn the_smaller_limit_holds_and_the_refusal_says_who_can_change_it() {
    let world = World::new().await;
    let grant = world.opened("one").await;
    let limit = |operators| grant.daily_limit(operators);
    let own = DailyLimit { usd: Usd::cents(50), set_by: LimitSetBy::Person };
    assert_eq!(limit(None).await.unwrap(), Some(own));
    assert_eq!(limit(Some(Usd::cents(60))).await.unwrap(), Some(own));
    let operators = DailyLimit { usd: Usd::cents(40), set_by: LimitSetBy::Operator };
    assert_eq!(limit(Some(Usd::cents(40))).await.unwrap(), Some(operators));
    assert_eq!(world.accounts.local().daily_limit(None).await.unwrap(), None);

    grant.reserve(Usd::cents(45), own).await.unwrap().settle(Settlement::Spent(Usd::cents(45)));
    let refused = grant.reserve(Usd::cents(6), own).await.unwrap_err();
    assert!(UserFacingError::from(&refused).solution.contains("/connections"), "{refused}");
    let of_operator = DailyLimit { set_by: LimitSetBy::Operator, ..own };
    let refused = grant.reserve(Usd::cents(6), of_operator).await.unwrap_err();
    assert!(UserFacingError::from(&refused).solution.contains("--daily-spend"), "{refused}");

    grant.set_daily_limit(Usd::cents(51)).await.unwrap();
    let new = world.replica().open(&owner("one")).daily_limit(None).await.unwrap().unwrap();
    grant.reserve(Usd::cents(6), new).await.unwrap();
    assert_eq!(world.grant("other").usage_totals().await.unwrap().spent, Usd::default());
}

#[tokio::test]
async fn what_was_used_is_counted_over_processes_and_not_lost_at_a_shutdown() {
    let world = World::new().await;
    let grant = world.opened("one").await;
    let limit = grant.daily_limit(None).await.unwrap().unwrap();
    grant.reserve(Usd::cents(5), limit).await.unwrap().settle(Settlement::Spent(Usd::cents(4)));
    grant.count_call();
    grant.count_call();
    let totals = grant.usage_totals().await.unwrap();
    assert_eq!((totals.calls, totals.spent, totals.spent_today), (2, Usd::cents(4), Usd::cents(4)));
    grant.count_call();
    world.accounts.close().await;

    world.clock.advance(TimeDelta::days(1));
    let replica = world.replica();
    let totals = replica.open(&owner("one")).usage_totals().await.unwrap();
    assert_eq!((totals.calls, totals.spent, totals.spent_today), (3, Usd::cents(4), Usd::default()));
    assert_eq!(totals.last_used.unwrap().timestamp(), (world.clock.now() - TimeDelta::days(1)).timestamp());
    replica.local().count_call();
    assert_eq!(replica.local().usage_totals().await.unwrap().calls, 0, "for grants only");
}

#[tokio::test]
async fn a_grant_that_is_forgotten_leaves_nothing_that_it_has_spent() {
    let world = World::new().await;
    let grant = world.opened("one").await;
    grant.count_call();
    assert_eq!(grant.usage_totals().await.unwrap().calls, 1);
    within(grant.release()).await.unwrap();
    within(grant.forget_grant(&Leftovers::default())).await.unwrap();
    assert_eq!(grant.usage_totals().await.unwrap().calls, 0);
}

#[tokio::test]
async fn nobody_else_gets_the_account_of_a_grant() {
    let world = World::new().await;
    let grant = world.opened("one").await;
    let (eve, password) = ("eve@example.com", crate::common::random_password());
    world.sandbox.add_account(eve, &password, Plan::Unlimited, true);
    let session = within(world.accounts.authenticator().with_password(eve, password)).await.unwrap();
    assert!(matches!(within(grant.adopt(session, false)).await, Err(Error::AnotherUser)));
    assert_eq!(world.sandbox.count(MODELS), 0);
    models(&grant).await.unwrap();
}
