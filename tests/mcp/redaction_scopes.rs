//! The redactors of several owners: each finds its own secrets and the process-wide ones, and nothing tells it what
//! others hold; the process-wide redactor finds all.

use std::{collections::BTreeMap, thread};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bondmcp_server::{
    redact::Redactor,
    secret::{ExposeSecret as _, SecretString},
};
use proptest::prelude::*;

/// Owners by number; 0 is the process.
const OWNERS: usize = 4;
const SOURCES: [&str; 2] = ["record", "environment"];

#[derive(Clone, Debug)]
enum Step {
    Remember(usize, usize),
    Hold(usize, usize, Vec<usize>),
    /// The owner's last clone is dropped; a new owner takes the place.
    Leave(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        (0..OWNERS, 0..SECRETS).prop_map(|(owner, secret)| Step::Remember(owner, secret)),
        (0..OWNERS, 0..SOURCES.len(), prop::collection::vec(0..SECRETS, 0..3))
            .prop_map(|(owner, source, secrets)| Step::Hold(owner, source, secrets)),
        (1..OWNERS).prop_map(Step::Leave),
    ];
    prop::collection::vec(step, 1..24)
}

const SECRETS: usize = 8;

/// One of a few secrets: passwords, one with characters that are escaped, one that another contains, and a token.
fn secret(number: usize) -> SecretString {
    match number {
        0 => r#"correct "horse" battery"#.into(),
        1 => "staple/battery+horse".into(),
        2 => "aaaaaaaaaaaaaaaaaaaaaaaa".into(),
        3 => "battery".into(),
        4 => format!("{}.{}.{}", "eyJhbGciOiJIUzI1NiJ9", "cGF5bG9hZA".repeat(4), "c2lnbmF0dXJl".repeat(3))
            .into(),
        other => format!("password of number {other}").into(),
    }
}

fn give(redactor: &Redactor, step: &Step) {
    match step {
        Step::Remember(_, number) => redactor.remember(&secret(*number)),
        Step::Hold(_, source, numbers) => {
            let secrets: Vec<_> = numbers.iter().map(|number| secret(*number)).collect();
            redactor.hold(SOURCES[*source], &secrets);
        }
        Step::Leave(_) => {}
    }
}

/// Texts with each secret, in several encodings, and one that is made to be slow.
fn texts() -> Vec<String> {
    let mut texts = vec!["all is well".to_owned(), "a".repeat(4000), "aaaaaaaaaaaaaaaaaaaaaaab".repeat(20)];
    for number in 0..SECRETS {
        let secret = secret(number);
        let secret = secret.expose_secret();
        texts.push(format!("it is {secret}, and"));
        texts.push(format!("Basic {}", STANDARD.encode(format!("ada:{secret}"))));
        texts.push(serde_json::to_string(&serde_json::to_string(secret).unwrap()).unwrap());
    }
    texts
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// A redactor of an owner answers like one that stands alone with the owner's secrets and the process-wide ones.
    #[test]
    fn an_owner_learns_nothing_of_the_others_and_the_process_knows_all(steps in steps()) {
        let process = Redactor::default();
        let mut owners: Vec<Redactor> = (0..OWNERS).map(|_| process.scope_among_many()).collect();
        owners[0] = process.clone();
        let mut given: BTreeMap<usize, Vec<Step>> = BTreeMap::new();
        for step in steps {
            match &step {
                Step::Leave(owner) => {
                    owners[*owner] = process.scope_among_many();
                    given.remove(owner);
                }
                Step::Remember(owner, _) | Step::Hold(owner, ..) => {
                    give(&owners[*owner], &step);
                    given.entry(*owner).or_default().push(step);
                }
            }
        }
        let alone = |owners: &[usize]| {
            let redactor = Redactor::default();
            for step in owners.iter().flat_map(|owner| given.get(owner).into_iter().flatten()) {
                remember(&redactor, step);
            }
            redactor
        };
        let everything = alone(&(0..OWNERS).collect::<Vec<_>>());
        let by_itself: Vec<Redactor> = (0..OWNERS).map(|owner| alone(&[0, owner])).collect();
        for text in texts() {
            for owner in 1..OWNERS {
                prop_assert_eq!(owners[owner].redact(&text), by_itself[owner].redact(&text), "{}", owner);
            }
            prop_assert_eq!(process.redact(&text), everything.redact(&text));
        }
    }
}

/// Nothing ages out in these tests, so what was held once is known from then on.
fn remember(redactor: &Redactor, step: &Step) {
    match step {
        Step::Remember(_, number) => redactor.remember(&secret(*number)),
        Step::Hold(_, _, numbers) => numbers.iter().for_each(|number| redactor.remember(&secret(*number))),
        Step::Leave(_) => {}
    }
}

#[test]
fn a_scope_of_a_scope_is_one_of_the_process() {
    let process = Redactor::default();
    let (one, secret) = (process.scope_among_many(), SecretString::from("correct horse"));
    let other = one.scope_among_many();
    one.remember(&secret);
    assert_eq!(other.redact("correct horse"), "correct horse");
    process.remember(&"process-wide".into());
    assert_eq!(other.redact("process-wide"), "[redacted]");
}

#[test]
fn a_secret_leaves_the_process_with_the_last_clone_of_its_owner() {
    let process = Redactor::default();
    let (one, other) = (process.scope_among_many(), process.scope_among_many());
    let clone = one.clone();
    for owner in [&one, &other] {
        owner.hold("record", [&"shared secret".into()]);
        owner.remember(&"shared secret".into());
    }
    one.remember(&"secret of one".into());
    drop(one);
    assert_eq!(process.redact("shared secret, secret of one"), "[redacted], [redacted]");
    drop(clone);
    assert_eq!(process.redact("shared secret, secret of one"), "[redacted], secret of one");
    drop(other);
    assert_eq!(process.redact("shared secret"), "shared secret");
}

#[test]
fn the_revision_of_an_owner_changes_with_its_own_secrets_and_the_process_wide_ones_only() {
    let process = Redactor::default();
    let (one, other) = (process.scope_among_many(), process.scope_among_many());
    let revisions = || (process.revision(), one.revision(), other.revision());
    let mut before = revisions();
    let mut changed = |change: &dyn Fn()| {
        change();
        let after = revisions();
        let changed = (before.0 != after.0, before.1 != after.1, before.2 != after.2);
        before = after;
        changed
    };
    assert_eq!(changed(&|| one.remember(&"secret of one".into())), (true, true, false));
    assert_eq!(changed(&|| one.remember(&"secret of one".into())), (false, false, false));
    assert_eq!(changed(&|| other.hold("record", [&"secret of other".into()])), (true, false, true));
    assert_eq!(changed(&|| process.remember(&"process-wide".into())), (true, true, true));
}

#[test]
fn many_replaced_secrets_of_an_owner_age_out_everywhere() {
    let process = Redactor::default();
    let (one, other) = (process.scope_among_many(), process.scope_among_many());
    one.hold("record", [&"secret in force".into()]);
    other.remember(&"secret of other".into());
    one.remember(&"old secret".into());
    for number in 0..1024 {
        one.remember(&format!("passing-secret-{number}").into());
    }
    for redactor in [&process, &one] {
        assert_eq!(redactor.redact("old secret, secret in force"), "old secret, [redacted]");
    }
    assert_eq!(process.redact("secret of other"), "[redacted]");
}

#[test]
fn owners_that_come_and_go_at_once_leave_nothing_behind() {
    let process = Redactor::default();
    thread::scope(|threads| {
        for thread in 0..4 {
            let process = &process;
            threads.spawn(move || {
                for number in 0..200 {
                    let owner = process.scope_among_many();
                    let own = format!("secret-{thread}-{number}");
                    owner.hold("record", [&own.as_str().into(), &"common secret".into()]);
                    let text = format!("{own} {own}");
                    assert_eq!(owner.redact(&text), "[redacted] [redacted]");
                    assert_eq!(process.redact(&text), "[redacted] [redacted]");
                    process.remember(&format!("process-wide-{}", number % 7).into());
                    assert_eq!(owner.redact("process-wide-0"), "[redacted]");
                }
            });
        }
    });
    let leftover = process.redact("common secret").into_owned()
        + &(0..200)
            .map(|number| process.redact(&format!("secret-1-{number}")).into_owned())
            .collect::<String>();
    assert!(!leftover.contains("[redacted]"), "{leftover}");
}
