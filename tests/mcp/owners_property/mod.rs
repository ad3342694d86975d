//! Whatever owners do, and in whatever order and at the same time, and whichever of two replicas answers: none gets
//! anything of another. Each owner's e-mail address, password, plan, models, keys, links, request states and costs are
//! their own and are looked for in everything that the others got; and what each gets follows from their own calls alone.

mod attacks;
mod effects;
mod person;
mod service;
mod steps;
mod upstream;

use crate::common::postgres;
use effects::Effects;
use futures_util::future::join_all;
use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};
use service::Service;
use tokio::runtime::Runtime;

/// Number of owners.
const OWNERS: usize = 3;

/// Random cases that start signed in, and as many that start signed out. Each takes every step.
const CASES: u32 = 1;

/// What an owner does next. What a step needs of the owner's own is made first: a sign-in, a key, a question.
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
    /// Names a key of another owner wherever a key can be named.
    NameForeignKey(usize),
    Analyze,
    /// Sends the secrets of another owner, to learn from the answer whether they are known here.
    GuessSecrets(usize),
    /// Goes on with a state that was altered, used before, or made for another call.
    ForgeState(u16),
    /// Goes on with the calls of another owner.
    StealState(usize),
    /// Goes on with a call whose state was tried so.
    AnswerTried,
    /// Asks their own sign-in page for that of another owner.
    SwapLink(usize),
    /// Leaves before the answer comes.
    CancelListing(u8),
    CancelBilled(u8),
    CancelCreation(u8),
    CancelRound(u8),
    /// Lists the models. The tokens of all owners expire as the round begins, so that all renew at the same time.
    ExpireTokens,
    /// Reads everything at the other replica, which answers from now on.
    ChangeReplica,
}

use Step::{
    Analyze, AnswerTried, CancelBilled, CancelCreation, CancelListing, CancelRound, ChangeReplica, CreateKey,
    ExpireTokens, ForgeState, GuessSecrets, LeaveSignInPending, ListModels, NameForeignKey, ReadEverything,
    RevokeKey, RotateKey, SignIn, SignOut, StealState, SwapLink, UseKey,
};

impl Step {
    fn cancels(&self) -> bool {
        matches!(self, CancelListing(_) | CancelBilled(_) | CancelCreation(_) | CancelRound(_))
    }
}

/// In a round each owner takes a step, at the same time.
type Round = [Step; OWNERS];

/// What seldom happens by chance, so that everything takes effect in each run. All are signed in at first. An owner is the
/// first after the last one.
const SEQUENCE: [Round; 13] = [
    [RevokeKey(None), RotateKey(Some(false)), Analyze],
    [ListModels, ForgeState(7), StealState(1)],
    [AnswerTried, AnswerTried, NameForeignKey(2)],
    [AnswerTried, UseKey(true), GuessSecrets(1)],
    [UseKey(true), RotateKey(Some(true)), RevokeKey(Some(true))],
    [ExpireTokens, ExpireTokens, ExpireTokens],
    [UseKey(false), RevokeKey(Some(false)), RotateKey(None)],
    [CancelListing(0), CancelBilled(0), CancelCreation(0)],
    [CancelRound(0), ReadEverything, ForgeState(9)],
    [CancelRound(1), ChangeReplica, SignOut],
    [LeaveSignInPending, LeaveSignInPending, LeaveSignInPending],
    [SwapLink(2), SwapLink(1), ReadEverything],
    [SignIn, CreateKey, CancelRound(200)],
];

/// Every step at least once, in any order.
fn steps() -> impl Strategy<Value = Vec<Step>> {
    let other = 1..OWNERS;
    let agrees = any::<Option<bool>>();
    let after = any::<u8>();
    vec![
        Just(SignIn).boxed(),
        Just(LeaveSignInPending).boxed(),
        Just(SignOut).boxed(),
        Just(ListModels).boxed(),
        Just(ReadEverything).boxed(),
        Just(CreateKey).boxed(),
        any::<bool>().prop_map(UseKey).boxed(),
        agrees.clone().prop_map(RevokeKey).boxed(),
        agrees.prop_map(RotateKey).boxed(),
        other.clone().prop_map(NameForeignKey).boxed(),
        Just(Analyze).boxed(),
        other.clone().prop_map(GuessSecrets).boxed(),
        any::<u16>().prop_map(ForgeState).boxed(),
        other.clone().prop_map(StealState).boxed(),
        other.clone().prop_map(StealState).boxed(),
        Just(AnswerTried).boxed(),
        Just(AnswerTried).boxed(),
        other.prop_map(SwapLink).boxed(),
        after.prop_map(CancelListing).boxed(),
        after.prop_map(CancelBilled).boxed(),
        after.prop_map(CancelCreation).boxed(),
        after.prop_map(CancelRound).boxed(),
        Just(ExpireTokens).boxed(),
        Just(ChangeReplica).boxed(),
    ]
    .prop_shuffle()
}

fn rounds() -> impl Strategy<Value = Vec<Round>> {
    let owners: [_; OWNERS] = std::array::from_fn(|_| steps());
    owners.prop_map(|owners| {
        let rounds = 0..owners[0].len();
        rounds.map(|at| owners.each_ref().map(|steps| steps[at].clone())).collect()
    })
}

/// Takes the steps on a new service.
async fn take(rounds: &[Round], is_signed_in: bool, vault: Option<&str>, effects: Effects) {
    let mut service = Service::start(vault, effects).await;
    if is_signed_in {
        crate::common::within(service.sign_everybody_in()).await;
    }
    let mut left_calls = false;
    for round in rounds {
        // A renewal for a call that was left may still be under way. What it gets would expire before its first use, and
        // a call renews once.
        if !left_calls && round.iter().any(|step| matches!(step, ExpireTokens)) {
            service.expire_tokens();
        }
        left_calls = round.iter().any(Step::cancels);
        // What is shown to the others is what was there when the round began.
        let shown: Vec<_> = service.people.iter().map(|person| person.shown(&service.setting)).collect();
        let (setting, people) = (&service.setting, &mut service.people);
        let steps = people.iter_mut().zip(round).enumerate().map(|(at, (person, step))| {
            let shown = &shown;
            let of = move |distance: &usize| &shown[(at + distance) % OWNERS];
            async move {
                match step {
                    SignIn => person.sign_in(setting).await,
                    LeaveSignInPending => person.leave_sign_in_pending(setting).await,
                    SignOut => person.sign_out(setting).await,
                    ListModels | ExpireTokens => person.list_models(setting).await,
                    ReadEverything => person.read_everything(setting).await,
                    CreateKey => drop(person.create_key(setting).await),
                    UseKey(is_key) => person.use_key(setting, *is_key).await,
                    RevokeKey(agrees) => person.end_key(setting, "revoke", *agrees).await,
                    RotateKey(agrees) => person.end_key(setting, "rotate", *agrees).await,
                    NameForeignKey(other) => person.name_foreign_key(setting, of(other)).await,
                    Analyze => person.analyze(setting).await,
                    GuessSecrets(other) => person.guess_secrets(setting, of(other)).await,
                    ForgeState(how) => person.forge_state(setting, *how).await,
                    StealState(other) => person.steal_state(setting, of(other)).await,
                    AnswerTried => person.answer_tried(setting).await,
                    SwapLink(other) => person.swap_link(setting, of(other)).await,
                    CancelListing(after) => person.cancel_listing(setting, *after).await,
                    CancelBilled(after) => person.cancel_billed(setting, *after).await,
                    CancelCreation(after) => person.cancel_creation(setting, *after).await,
                    CancelRound(after) => person.cancel_round(setting, *after).await,
                    ChangeReplica => person.change_replica(setting).await,
                }
            }
        });
        crate::common::within(join_all(steps)).await;
    }
    service.finish().await;
}

fn run(vault: impl Fn() -> Option<postgres::Database>) {
    let (runtime, effects) = (Runtime::new().unwrap(), Effects::default());
    let take = |rounds: &[Round], is_signed_in| {
        let database = vault();
        let url = database.as_ref().map(|database| database.url.as_str());
        runtime.block_on(take(rounds, is_signed_in, url, effects.clone()));
    };
    take(&SEQUENCE, true);
    for is_signed_in in [true, false] {
        let config =
            Config { cases: CASES, failure_persistence: None, max_shrink_iters: 64, ..Config::default() };
        let outcome = TestRunner::new(config).run(&rounds(), |rounds| {
            take(&rounds, is_signed_in);
            Ok(())
        });
        outcome.unwrap_or_else(|failure| panic!("{failure}"));
    }
    effects.assert_all();
}

#[test]
fn no_owner_gets_anything_of_another_whose_records_are_in_sqlite() {
    run(|| None);
}

#[test]
fn no_owner_gets_anything_of_another_whose_records_are_in_postgresql() {
    if postgres::database().is_none() {
        return;
    }
    run(postgres::database);
}
