//! What a redactor knows: the secrets that it searches for, whose they are, and for how long.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use parking_lot::RwLock;

use super::{Redactor, forms::forms, needles::Needles};
use crate::secret::{ExposeSecret as _, SecretString};

/// Number of replaced secrets that are remembered, newest first: a replaced secret may still occur in a response that
/// is in progress.
const MAX_REMEMBERED: usize = 1024;

/// Number of replaced secrets that are remembered for one of many owners.
const MAX_REMEMBERED_AMONG_MANY: usize = 128;

/// Locks are taken in the order of a scope's `known`, the process-wide `known`, `scoped`.
#[derive(Default)]
pub(super) struct Scope {
    known: RwLock<Known>,
    place: Place,
}

enum Place {
    ProcessWide {
        /// The search index of all scopes' secrets.
        scoped: RwLock<Index>,
    },
    Below {
        process_wide: Redactor,
        is_of_many: bool,
    },
}

#[derive(Default)]
struct Known {
    /// Secrets in force, by source.
    held: HashMap<&'static str, Vec<SecretString>>,
    /// Secrets that are not in force; oldest first.
    passed: VecDeque<SecretString>,
    /// Each secret is added once for each source or list that contains it.
    index: Index,
}

#[derive(Default)]
pub(super) struct Index {
    pub needles: Needles,
    pub revision: u64,
}

impl Default for Place {
    fn default() -> Self {
        Self::ProcessWide { scoped: RwLock::default() }
    }
}

impl Redactor {
    /// Makes a redactor under the process-wide one for the only owner of a process. The process-wide one knows its secrets
    /// until the process ends: a command prints its outcome when the account is closed.
    #[must_use]
    pub fn scope(&self) -> Self {
        self.scope_below(false)
    }

    /// Makes a redactor for one of many owners: it remembers fewer replaced secrets, and when the last clone is dropped
    /// all are forgotten, also by the process-wide redactor.
    #[must_use]
    pub fn scope_among_many(&self) -> Self {
        self.scope_below(true)
    }

    fn scope_below(&self, is_of_many: bool) -> Self {
        let process_wide = match &self.scope.place {
            Place::ProcessWide { .. } => self.clone(),
            Place::Below { process_wide, .. } => process_wide.clone(),
        };
        let place = Place::Below { process_wide, is_of_many };
        Self { scope: Arc::new(Scope { known: RwLock::default(), place }) }
    }

    /// Searches for `secret` until many newer ones have been remembered.
    pub fn remember(&self, secret: &SecretString) {
        if self.scope.known.read().knows(secret) {
            return;
        }
        let mut known = self.scope.known.write();
        if !known.knows(secret) {
            self.scope.add(&mut known.index, secret);
            self.pass_by(&mut known, secret.clone());
        }
    }

    /// Sets the secrets of `source` that are in force: they are searched for until `source` has others. Its previous
    /// ones are remembered like any replaced secret.
    pub fn hold<'a>(&self, source: &'static str, secrets: impl IntoIterator<Item = &'a SecretString>) {
        let secrets: Vec<&SecretString> = secrets.into_iter().collect();
        if self.scope.known.read().holds(source, &secrets) {
            return;
        }
        let mut known = self.scope.known.write();
        for secret in &secrets {
            self.scope.add(&mut known.index, secret);
        }
        let former = known.held.insert(source, secrets.into_iter().cloned().collect());
        for secret in former.into_iter().flatten() {
            if known.knows(&secret) {
                self.scope.remove(&mut known.index, &secret);
            } else {
                self.pass_by(&mut known, secret);
            }
        }
    }

    /// Remembers `secret`, which is indexed already, until many newer ones have been remembered.
    fn pass_by(&self, known: &mut Known, secret: SecretString) {
        known.passed.push_back(secret);
        if known.passed.len() > self.scope.place.max_remembered()
            && let Some(oldest) = known.passed.pop_front()
        {
            self.scope.remove(&mut known.index, &oldest);
        }
    }

    /// Calls `look` with the indexes of the secrets that this redactor finds.
    pub(super) fn search<T>(&self, look: impl FnOnce([&Index; 2]) -> T) -> T {
        let known = self.scope.known.read();
        match &self.scope.place {
            Place::ProcessWide { scoped } => look([&known.index, &scoped.read()]),
            Place::Below { process_wide, .. } => look([&known.index, &process_wide.scope.known.read().index]),
        }
    }
}

impl Scope {
    /// Adds `secret` to `index`, which is that of this scope, and to the process-wide one of all scopes.
    fn add(&self, index: &mut Index, secret: &SecretString) {
        let forms = forms(secret.expose_secret());
        self.place.change(|scoped| scoped.needles.add(&forms));
        index.change(|index| index.needles.add(&forms));
    }

    /// Reverts one [`Self::add`].
    fn remove(&self, index: &mut Index, secret: &SecretString) {
        let forms = forms(secret.expose_secret());
        self.place.change(|scoped| scoped.needles.remove(&forms));
        index.change(|index| index.needles.remove(&forms));
    }
}

impl Drop for Scope {
    fn drop(&mut self) {
        if !self.place.is_of_many() {
            return;
        }
        let known = self.known.get_mut();
        self.place.change(|scoped| scoped.needles.remove_all(&known.index.needles));
    }
}

impl Place {
    fn is_of_many(&self) -> bool {
        matches!(self, Self::Below { is_of_many: true, .. })
    }

    fn max_remembered(&self) -> usize {
        if self.is_of_many() { MAX_REMEMBERED_AMONG_MANY } else { MAX_REMEMBERED }
    }

    /// Changes the process-wide index of all scopes' secrets, if this is a scope.
    fn change(&self, change: impl FnOnce(&mut Index)) {
        if let Self::Below { process_wide, .. } = self
            && let Self::ProcessWide { scoped } = &process_wide.scope.place
        {
            scoped.write().change(change);
        }
    }
}

impl Index {
    fn change(&mut self, change: impl FnOnce(&mut Self)) {
        change(self);
        self.revision += 1;
    }
}

impl Known {
    fn knows(&self, wanted: &SecretString) -> bool {
        // The newest one is searched for most often.
        self.held.values().flatten().chain(self.passed.iter().rev()).any(|known| is_same(known, wanted))
    }

    fn holds(&self, source: &str, secrets: &[&SecretString]) -> bool {
        let held = self.held.get(source).map_or(&[][..], Vec::as_slice);
        held.len() == secrets.len() && held.iter().zip(secrets).all(|(held, given)| is_same(held, given))
    }
}

/// Compares two secrets, not in constant time: no attacker who could measure the time chooses both.
fn is_same(a: &SecretString, b: &SecretString) -> bool {
    a.expose_secret() == b.expose_secret()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redact::REDACTED;

    /// Remembers this many secrets.
    fn flood(redactor: &Redactor, count: usize) {
        for number in 0..count {
            redactor.remember(&format!("passing-secret-{number}").into());
        }
    }

    #[test]
    fn a_secret_in_force_stays_known_however_many_others_pass_by() {
        let redactor = Redactor::default();
        redactor.hold("environment", [&"environment-password".into()]);
        redactor.hold("record", [&"first-token".into(), &"record-password".into()]);
        flood(&redactor, 3 * MAX_REMEMBERED);
        for secret in ["environment-password", "first-token", "record-password"] {
            assert_eq!(redactor.redact(secret), REDACTED);
        }
    }

    #[test]
    fn a_secret_that_was_replaced_ages_out() {
        let redactor = Redactor::default();
        redactor.hold("record", [&"first-token".into(), &"record-password".into()]);
        redactor.hold("record", [&"other-token".into(), &"record-password".into()]);
        flood(&redactor, MAX_REMEMBERED - 1);
        assert_eq!(redactor.redact("first-token"), REDACTED);
        flood(&redactor, MAX_REMEMBERED + 1);
        assert_eq!(redactor.redact("first-token"), "first-token");
        assert_eq!(redactor.redact("record-password, other-token"), "[redacted], [redacted]");
    }

    #[test]
    fn an_owner_alone_remembers_as_much_as_the_process_and_one_of_many_less() {
        let process_wide = Redactor::default();
        for (scope, remembered) in [
            (process_wide.scope(), MAX_REMEMBERED),
            (process_wide.scope_among_many(), MAX_REMEMBERED_AMONG_MANY),
        ] {
            scope.remember(&"first-token".into());
            flood(&scope, remembered - 1);
            assert_eq!(scope.redact("first-token"), REDACTED);
            flood(&scope, remembered);
            assert_eq!(scope.redact("first-token"), "first-token");
        }
    }

    #[test]
    fn the_process_wide_redactor_knows_the_secrets_of_the_only_owner_to_the_end() {
        let process_wide = Redactor::default();
        for (scope, left) in
            [(process_wide.scope(), REDACTED), (process_wide.scope_among_many(), "battery staple")]
        {
            let secret = if left == REDACTED { "correct horse" } else { left };
            scope.remember(&secret.into());
            assert_eq!(process_wide.redact(secret), REDACTED);
            drop(scope);
            assert_eq!(process_wide.redact(secret), left);
        }
    }

    #[test]
    fn a_secret_of_two_sources_is_known_until_both_have_others() {
        let redactor = Redactor::default();
        redactor.hold("environment", [&"shared-password".into()]);
        redactor.hold("record", [&"shared-password".into()]);
        redactor.hold("record", []);
        flood(&redactor, 2 * MAX_REMEMBERED);
        assert_eq!(redactor.redact("shared-password"), REDACTED);
    }

    #[test]
    fn the_revision_changes_with_the_secrets_only() {
        let redactor = Redactor::default();
        redactor.remember(&"correct horse".into());
        let first = redactor.revision();
        redactor.remember(&"correct horse".into());
        redactor.hold("record", []);
        assert_eq!(redactor.revision(), first);
        redactor.hold("record", [&"battery staple".into()]);
        let second = redactor.revision();
        assert_ne!(second, first);
        redactor.hold("record", [&"battery staple".into()]);
        assert_eq!(redactor.revision(), second);
        redactor.remember(&"another one".into());
        assert_ne!(redactor.revision(), second);
    }
}
