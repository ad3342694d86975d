//! What the steps have really done: a step whose owner is not prepared for it does something else.

use std::{collections::BTreeSet, sync::Arc};

use parking_lot::Mutex;

/// The effects that there must be.
const ALL: [&str; 16] = [
    "a password was guessed",
    "a billed call was left",
    "a confirmed revocation was left",
    "a creation was left",
    "a forged state was sent",
    "a key was revoked",
    "a key was rotated",
    "a key was used",
    "a listing was left",
    "a question was answered after others had tried to",
    "a question was declined",
    "a used state was sent again",
    "another's confirmation was sent",
    "another's key was named",
    "another's link was asked for",
    "the state of another call was sent",
];

/// The effects that there were. Clones share them.
#[derive(Clone, Default)]
pub struct Effects(Arc<Mutex<BTreeSet<&'static str>>>);

impl Effects {
    pub fn note(&self, effect: &'static str) {
        assert!(ALL.contains(&effect), "{effect}");
        self.0.lock().insert(effect);
    }

    pub fn assert_all(&self) {
        let seen = self.0.lock();
        let missing: Vec<_> = ALL.iter().filter(|effect| !seen.contains(**effect)).collect();
        assert!(missing.is_empty(), "{missing:?}");
    }
}
