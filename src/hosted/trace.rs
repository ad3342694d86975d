//! Authorization references: which steps an authorization took, for an operator who helps a person. No step has
//! personal data.

use std::{borrow::Cow, time::Duration};

use serde::{Deserialize, Serialize};

use super::{Hosted, browser::Browser, pending::PendingAuthorization};
use crate::{
    clock::{Clock, Timestamp},
    metrics,
    vault::{self, Next, RecordKind, Records},
};

const KIND: RecordKind = RecordKind::new("trace");

/// How long a trace is kept after its last step.
const KEPT: Duration = Duration::from_hours(24);

/// Largest number of steps that are kept. An authorization has about ten, with one more for each wrong password.
const MAX_STEPS: usize = 40;

/// How long one is kept in which nobody has signed in. Anybody can begin one: it costs hardly more than the authorization.
const KEPT_OF_NOBODY: Duration = Duration::from_mins(30);

/// The steps of authorizations, kept for a day.
#[derive(Clone, Debug)]
pub struct Traces {
    records: Records,
    clock: Clock,
}

/// The steps of one authorization, in the order in which they happened.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct Trace {
    pub steps: Vec<TraceStep>,
    /// Number of the oldest steps that were dropped.
    #[serde(default)]
    pub dropped: usize,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct TraceStep {
    pub time: Timestamp,
    /// What happened, with its outcome: words of this program.
    pub step: Cow<'static, str>,
}

impl Trace {
    fn push(&mut self, step: TraceStep) {
        if self.steps.len() >= MAX_STEPS {
            self.steps.remove(0);
            self.dropped += 1;
        }
        self.steps.push(step);
    }

    /// Whether nobody has signed in or tried to.
    fn is_nobodys(&self) -> bool {
        self.steps.iter().all(|step| matches!(&*step.step, "request checked" | "sign-in shown"))
    }
}

impl Traces {
    #[must_use]
    pub fn new(records: Records, clock: Clock) -> Self {
        Self { records, clock }
    }

    /// Notes a step, here and in the log. Never fails: what cannot be stored is logged only.
    pub async fn step(&self, reference: &str, step: &'static str) {
        tracing::info!(reference, step, "authorization");
        metrics::authorization_step(step);
        if let Err(error) = self.store(reference, step).await {
            tracing::warn!(reference, %error, "a step of an authorization is in the log only");
        }
    }

    /// Returns the trace of an authorization; `None` if its reference is unknown or its last step is more than a day
    /// ago.
    pub async fn find(&self, reference: &str) -> Result<Option<Trace>, vault::Error> {
        let stored = self.records.read(KIND, reference).await?;
        Ok(stored.map(|stored| stored.value))
    }

    async fn store(&self, reference: &str, step: &'static str) -> Result<(), vault::Error> {
        let step = TraceStep { time: self.clock.now(), step: step.into() };
        let add = |trace: Option<Trace>| {
            let mut trace = trace.unwrap_or_default();
            trace.push(step.clone());
            let kept = if trace.is_nobodys() { KEPT_OF_NOBODY } else { KEPT };
            (Next::Write(trace, Some(kept)), ())
        };
        self.records.change(KIND, reference, add).await
    }
}

impl Hosted {
    /// Notes a step of the authorization that this browser has begun and whose page is at `path`; of none if there is none.
    pub(super) async fn step_at(&self, path: &str, browser: &Browser, step: &'static str) {
        let Some(id) = path.strip_prefix("/authorize/") else { return };
        let records = self.inner.server.records();
        if let Ok(Some(found)) = PendingAuthorization::find(records, id, browser, self.now()).await {
            self.traces().step(found.reference(), step).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;
    use crate::{
        config::VaultLocation,
        vault::{Keyring, Vault},
    };

    struct Place {
        _directory: tempfile::TempDir,
        clock: Clock,
        traces: Traces,
    }

    impl Place {
        async fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            let location = VaultLocation::Sqlite(directory.path().join("data/vault.db"));
            let vault = Vault::open(&location, Keyring::of(&[1])).await.unwrap();
            let clock = Clock::manual(Timestamp::UNIX_EPOCH);
            let traces = Traces::new(Records::new(vault, "https://bond.example".into()), clock.clone());
            Self { _directory: directory, clock, traces }
        }

        async fn steps(&self, reference: &str) -> Vec<String> {
            let trace = self.traces.find(reference).await.unwrap().unwrap();
            trace.steps.into_iter().map(|step| step.step.into_owned()).collect()
        }
    }

    #[tokio::test]
    async fn the_steps_of_an_authorization_are_kept_in_their_order() {
        let place = Place::new().await;
        assert_eq!(place.traces.find("ABCD2345").await.unwrap(), None);
        place.traces.step("ABCD2345", "request checked").await;
        place.clock.advance(TimeDelta::seconds(5));
        place.traces.step("ABCD2345", "signed in").await;
        place.traces.step("WXYZ6789", "request checked").await;
        assert_eq!(place.steps("ABCD2345").await, ["request checked", "signed in"]);
        let trace = place.traces.find("ABCD2345").await.unwrap().unwrap();
        assert_eq!(trace.steps[1].time - trace.steps[0].time, TimeDelta::seconds(5));
    }

    #[tokio::test]
    async fn a_trace_does_not_grow_without_end() {
        let place = Place::new().await;
        for _ in 0..MAX_STEPS {
            place.traces.step("ABCD2345", "sign-in refused").await;
        }
        place.traces.step("ABCD2345", "signed in").await;
        let trace = place.traces.find("ABCD2345").await.unwrap().unwrap();
        assert_eq!((trace.steps.len(), trace.dropped), (MAX_STEPS, 1));
        assert_eq!(trace.steps.last().unwrap().step, "signed in");
    }

    #[tokio::test]
    async fn steps_that_replicas_note_at_once_are_all_kept() {
        let place = Place::new().await;
        let steps = (0..6).map(|_| place.traces.step("ABCD2345", "code redeemed"));
        futures_util::future::join_all(steps).await;
        assert_eq!(place.steps("ABCD2345").await.len(), 6);
    }
}
