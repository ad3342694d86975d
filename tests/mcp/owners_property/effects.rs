//! How often each kind of step took effect: a step that finds nothing to work on proves nothing.

use std::{collections::BTreeMap, sync::Arc};

use parking_lot::Mutex;

/// Everything that is to take effect in a run.
const ALL: [&str; 36] = [
    "signed in on a page",
    "signed out",
    "left a sign-in pending",
    "listed the models",
    "made a key",
    "used a key",
    "used the session again",
    "revoked a key",
    "declined to revoke a key",
    "left open whether to revoke a key",
    "rotated a key",
    "declined to rotate a key",
    "left open whether to rotate a key",
    "named a key of another",
    "analyzed",
    "guessed the password of another",
    "guessed a token of another",
    "guessed a key of another",
    "altered a state",
    "used a state again",
    "swapped the states of two own calls",
    "sent the state of another's sign-in",
    "sent the state of another's confirmation",
    "answered a sign-in whose state was tried",
    "answered a confirmation whose state was tried",
    "swapped a link for one of the same replica",
    "swapped a link for one of the other replica",
    "left a listing",
    "left a billed call",
    "left the making of a key",
    "left a confirmation",
    "left a sign-in",
    "lost the tokens of several owners",
    "changed the replica",
    "compared an owner's redaction with a token of another",
    "compared an owner's redaction with a key of another",
];

/// Counts what took effect. Clones share the counts.
#[derive(Clone, Default)]
pub struct Effects(Arc<Mutex<BTreeMap<&'static str, u32>>>);

impl Effects {
    pub fn count(&self, effect: &'static str) {
        assert!(ALL.contains(&effect), "{effect}");
        *self.0.lock().entry(effect).or_default() += 1;
    }

    /// Everything took effect at least once.
    pub fn assert_all(&self) {
        let counts = self.0.lock();
        let missing: Vec<_> = ALL.into_iter().filter(|effect| !counts.contains_key(effect)).collect();
        assert!(missing.is_empty(), "without effect: {missing:?}");
    }
}
