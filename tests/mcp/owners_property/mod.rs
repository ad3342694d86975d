//! Whatever owners do, and in whatever order and at the same time, and whichever of two replicas answers: none gets
//! anything of another. Each owner's e-mail address, password, plan, models, keys, links, request states and costs are
//! their own and are looked for in everything that the others got; and what each gets follows from their own calls alone.

mod effects;
mod service;
mod upstream;

use crate::common::postgres;
use effects::Effects;
use futures_util::future::join_all;
use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};
use service::{Person, Service};
use tokio::runtime::Runtime;

/// Number of owners.
const OWNERS: usize = 3;

/// What an owner does next.
#[derive(Clone, Debug)]
enum Step {
    /// Signs in on the page that a call led to, and goes on with that call.
    SignIn,
    /// Makes a call that leads to a page, and leaves it there.
    LeaveSignInPending,
    SignOut,
    ListModels,
    ReadEverything,
    CreateKey,
    /// Makes calls with a key, or with the session again.
    UseKey(bool),
    /// Asks to revoke a key, and says yes or no or leaves the question open.
    RevokeKey(Option<bool>),
    /// The same with a new value for it.
    RotateKey(Option<bool>),
    /// Says yes to a question that was left open, whatever others have tried with it meanwhile.
    AnswerLater,
    /// Names a key of another owner wherever a key can be named.
    NameForeignKey(usize),
    Analyze,
    /// Sends the password of another owner, to learn from the answer whether it is known here.
    GuessPassword(usize),
    /// Goes on with a state that was altered, used before, invented, or made for another call.
    ForgeState(u16),
    /// Goes on with the call of another owner.
    StealState(usize),
    /// Asks their own sign-in page for that of another owner.
    SwapLink(usize),
    /// Leaves before the answer comes.
    CancelListing(u8),
    CancelBilled(u8),
    CancelCreation(u8),
    /// Leaves after the yes to a question.
    CancelRevocation(u8),
    /// Lists the models. The tokens of all owners expire as the round begins, so that all renew at the same time.
    ExpireTokens,
    /// Reads everything at the other replica, which answers from now on.
    ChangeReplica,
}

impl Step {
    fn cancels(&self) -> bool {
        matches!(
            self,
            Self::CancelListing(_)
                | Self::CancelBilled(_)
                | Self::CancelCreation(_)
                | Self::CancelRevocation(_)
        )
    }
}

fn step() -> impl Strategy<Value = Step> {
    let other = 1..OWNERS;
    prop_oneof![
        3 => Just(Step::SignIn),
        2 => Just(Step::LeaveSignInPending),
        1 => Just(Step::SignOut),
        2 => Just(Step::ListModels),
        2 => Just(Step::ReadEverything),
        2 => Just(Step::CreateKey),
        2 => any::<bool>().prop_map(Step::UseKey),
        2 => any::<Option<bool>>().prop_map(Step::RevokeKey),
        1 => any::<Option<bool>>().prop_map(Step::RotateKey),
        2 => Just(Step::AnswerLater),
        2 => other.clone().prop_map(Step::NameForeignKey),
        2 => Just(Step::Analyze),
        1 => other.clone().prop_map(Step::GuessPassword),
        1 => any::<u16>().prop_map(Step::ForgeState),
        2 => other.clone().prop_map(Step::StealState),
        2 => other.prop_map(Step::SwapLink),
        1 => any::<u8>().prop_map(Step::CancelListing),
        1 => any::<u8>().prop_map(Step::CancelBilled),
        1 => any::<u8>().prop_map(Step::CancelCreation),
        1 => any::<u8>().prop_map(Step::CancelRevocation),
        2 => Just(Step::ExpireTokens),
        2 => Just(Step::ChangeReplica),
    ]
}

/// Rounds of steps; in a round each owner takes one, at the same time.
fn rounds() -> impl Strategy<Value = Vec<[Step; OWNERS]>> {
    let round = [step(), step(), step()];
    proptest::collection::vec(round, 6..16)
}

/// Rounds in which each kind of step has its effect, for what is rare in random ones.
fn certain_rounds() -> Vec<[Step; OWNERS]> {
    use Step::*;
    vec![
        [LeaveSignInPending, LeaveSignInPending, LeaveSignInPending],
        [SwapLink(1), SwapLink(2), StealState(1)],
        [SignIn, SignIn, SignIn],
        [CreateKey, CreateKey, CreateKey],
        // Two questions of each owner are open.
        [RevokeKey(None), RotateKey(None), RevokeKey(None)],
        [RotateKey(None), RevokeKey(None), RotateKey(None)],
        [StealState(1), ForgeState(7), StealState(2)],
        [ForgeState(1000), StealState(1), ForgeState(30)],
        [ChangeReplica, NameForeignKey(1), GuessPassword(2)],
        [AnswerLater, AnswerLater, AnswerLater],
        [RevokeKey(Some(false)), RotateKey(Some(false)), UseKey(true)],
        [RotateKey(Some(true)), RevokeKey(Some(true)), ForgeState(3)],
        [CancelListing(9), CancelBilled(9), CancelCreation(9)],
        [CancelRevocation(9), SignOut, ExpireTokens],
    ]
}

/// Takes the steps on a new service.
async fn take(rounds: &[[Step; OWNERS]], vault: Option<&str>, effects: &Effects) {
    let mut service = Service::start(vault, effects).await;
    let mut left_calls = false;
    for round in rounds {
        // A renewal for a call that was left may still be under way. What it gets would expire before its first use, and
        // a call renews once.
        if !left_calls && round.iter().any(|step| matches!(step, Step::ExpireTokens)) {
            service.setting.expire_tokens();
        }
        left_calls = round.iter().any(Step::cancels);
        // What is shown to the others is what was there when the round began.
        let shown: Vec<_> = service.people.iter().map(Person::shown).collect();
        let (setting, people) = (&service.setting, &mut service.people);
        let steps = people.iter_mut().zip(round).enumerate().map(|(at, (person, step))| {
            let shown = &shown;
            let of = move |distance: &usize| &shown[(at + distance) % OWNERS];
            async move {
                match step {
                    Step::SignIn => person.sign_in(setting).await,
                    Step::LeaveSignInPending => person.leave_sign_in_pending(setting).await,
                    Step::SignOut => person.sign_out(setting).await,
                    Step::ListModels | Step::ExpireTokens => person.list_models(setting).await,
                    Step::ReadEverything => person.read_everything(setting).await,
                    Step::CreateKey => person.create_key(setting).await,
                    Step::UseKey(is_key) => person.use_key(setting, *is_key).await,
                    Step::RevokeKey(agrees) => person.revoke_key(setting, *agrees).await,
                    Step::RotateKey(agrees) => person.rotate_key(setting, *agrees).await,
                    Step::AnswerLater => person.answer_later(setting).await,
                    Step::NameForeignKey(other) => person.name_foreign_key(setting, of(other)).await,
                    Step::Analyze => person.analyze(setting).await,
                    Step::GuessPassword(other) => person.guess_password(setting, of(other)).await,
                    Step::ForgeState(how) => person.forge_state(setting, *how).await,
                    Step::StealState(other) => person.steal_state(setting, of(other)).await,
                    Step::SwapLink(other) => person.swap_link(setting, of(other)).await,
                    Step::CancelListing(after) => person.cancel_listing(setting, *after).await,
                    Step::CancelBilled(after) => person.cancel_billed(setting, *after).await,
                    Step::CancelCreation(after) => person.cancel_creation(setting, *after).await,
                    Step::CancelRevocation(after) => person.cancel_revocation(setting, *after).await,
                    Step::ChangeReplica => person.change_replica(setting).await,
                }
            }
        });
        crate::common::within(join_all(steps)).await;
    }
    service.finish().await;
}

fn run(cases: u32, vault: impl Fn() -> Option<postgres::Database>) {
    let runtime = Runtime::new().unwrap();
    let config = Config { cases, failure_persistence: None, max_shrink_iters: 64, ..Config::default() };
    let effects = Effects::default();
    let take = |rounds: &[[Step; OWNERS]]| {
        let database = vault();
        runtime.block_on(take(rounds, database.as_ref().map(|database| database.url.as_str()), &effects));
    };
    take(&certain_rounds());
    effects.assert_all();
    let outcome = TestRunner::new(config).run(&rounds(), |rounds| {
        take(&rounds);
        Ok(())
    });
    outcome.unwrap_or_else(|failure| panic!("{failure}"));
}

#[test]
fn no_owner_gets_anything_of_another_whose_records_are_in_sqlite() {
    run(8, || None);
}

#[test]
fn no_owner_gets_anything_of_another_whose_records_are_in_postgresql() {
    if postgres::database().is_none() {
        return;
    }
    run(8, postgres::database);
}
