//! The daily limit on an owner's spending, over all processes and replicas: what a call may cost is reserved in the
//! [`Ledger`] before the call, and settled after it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use schemars::JsonSchema;
use serde::Serialize;
use tokio::{runtime::Handle, sync::OwnedMutexGuard};
use tokio_util::task::{TaskTracker, task_tracker::TaskTrackerToken};
use tracing::Instrument as _;
use uuid::Uuid;

use super::{
    Error, Usd,
    budget::DailyLimit,
    ledger::{self, Ledger, LimitReached, Settlement, State},
    retries::Retries,
    shared_vault::SharedVault,
};
use crate::{
    clock::{Clock, Timestamp},
    vault::{self, RecordId, RecordKind},
};

/// The kind of the ledger's record.
const KIND: RecordKind = RecordKind::new("spending");

/// Time for which calls are counted before the count is stored.
const COUNTING_TIME: Duration = Duration::from_secs(30);

/// What an owner may still spend today.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, JsonSchema)]
pub struct DailySpending {
    pub limit_usd: f64,
    /// Not spent, nor reserved for calls in progress.
    pub left_usd: f64,
    /// When the limit resets.
    pub resets_at: Timestamp,
}

/// What a call in progress may cost. One that is dropped was not used.
#[derive(Debug)]
pub struct Reservation {
    spending: Arc<Spending>,
    id: String,
    /// Whether the ledger may have it.
    is_written: AtomicBool,
    settlement: Settlement,
    /// A shutdown waits until it is settled.
    _token: TaskTrackerToken,
}

/// The spending of one owner, as this process takes part in it.
#[derive(Debug)]
pub(super) struct Spending {
    vault: Arc<SharedVault>,
    id: RecordId,
    clock: Clock,
    tasks: TaskTracker,
    /// A random id of this process and owner, for the ids of reservations.
    process: Uuid,
    reservations: AtomicU64,
    /// Held by the one who reads or changes the ledger, so that the callers of this process do not conflict with each
    /// other. Holds the last failure.
    turn: Arc<tokio::sync::Mutex<Option<(Instant, Error)>>>,
    /// Reservations that have ended; the ledger does not know yet.
    ended: Mutex<Vec<(String, Settlement)>>,
    /// Calls that the ledger does not know yet.
    counted: Mutex<Counted>,
}

/// Calls that are counted and not stored yet.
#[derive(Clone, Copy, Debug, Default)]
struct Counted {
    calls: u64,
    last: Option<Timestamp>,
    /// Whether a task waits to store them.
    is_scheduled: bool,
}

type Turn = OwnedMutexGuard<Option<(Instant, Error)>>;

impl Reservation {
    /// Ends the reservation. Nobody waits for it to be stored.
    pub fn settle(mut self, settlement: Settlement) {
        self.settlement = settlement;
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if !self.is_written.load(Ordering::Relaxed) {
            return;
        }
        self.spending.ended.lock().push((std::mem::take(&mut self.id), self.settlement));
        // Without a runtime the process is ending; what is reserved counts.
        if let Ok(runtime) = Handle::try_current() {
            let spending = self.spending.clone();
            let work = async move { spending.store_news().await }.in_current_span();
            self.spending.tasks.spawn_on(work, &runtime);
        }
    }
}

impl Spending {
    /// Creates the spending of the owner of `account`, a record in the vault.
    pub fn new(vault: Arc<SharedVault>, account: &RecordId, clock: Clock, tasks: TaskTracker) -> Self {
        let id = RecordId { kind: KIND, ..account.clone() };
        Self {
            vault,
            id,
            clock,
            tasks,
            process: Uuid::new_v4(),
            reservations: AtomicU64::default(),
            turn: Arc::default(),
            ended: Mutex::default(),
            counted: Mutex::default(),
        }
    }

    pub async fn reserve(self: &Arc<Self>, usd: Usd, limit: DailyLimit) -> Result<Reservation, Error> {
        let turn = self.turn().await?;
        let reservation = Reservation {
            spending: self.clone(),
            id: format!("{}-{}", self.process, self.reservations.fetch_add(1, Ordering::Relaxed)),
            is_written: AtomicBool::default(),
            settlement: Settlement::Released,
            _token: self.tasks.token(),
        };
        // To its end even when the caller is gone, so that it is known whether there is something to release.
        let work = async move {
            let change = |ledger: &mut Ledger, now| {
                ledger.reserve(&reservation.id, usd, limit.usd, now)?;
                reservation.is_written.store(true, Ordering::Relaxed);
                Ok(())
            };
            match reservation.spending.change(turn, change).await? {
                Ok(()) => Ok(reservation),
                Err(LimitReached { taken, resets_at, .. }) => {
                    Err(Error::DailyLimit { price: usd, taken, limit, resets_at, page: None })
                }
            }
        };
        self.tasks.spawn(work.in_current_span()).await.unwrap_or(Err(Error::Interrupted))
    }

    pub async fn state(self: &Arc<Self>) -> Result<State, Error> {
        let mut turn = self.turn().await?;
        if !self.has_news() {
            let read = self.read().await;
            *turn = failure(&read);
            return Ok(read?.0.state(self.clock.now()));
        }
        let spending = self.clone();
        // To its end even when the caller is gone, so that no call is counted again.
        let work = async move { spending.change(turn, |ledger, now| ledger.state(now)).await };
        self.tasks.spawn(work.in_current_span()).await.unwrap_or(Err(Error::Interrupted))
    }

    /// Counts a call. It is stored with the next change, or some time later.
    pub fn count_call(self: &Arc<Self>) {
        let mut counted = self.counted.lock();
        counted.calls += 1;
        counted.last = Some(self.clock.now());
        if !counted.is_scheduled
            && let Ok(runtime) = Handle::try_current()
        {
            counted.is_scheduled = true;
            let spending = self.clone();
            // A shutdown does not wait for this task; it stores what is counted itself.
            runtime.spawn(async move {
                tokio::time::sleep(COUNTING_TIME).await;
                spending.counted.lock().is_scheduled = false;
                spending.store_news().await;
            });
        }
    }

    /// Whether something has happened that the ledger does not know yet.
    fn has_news(&self) -> bool {
        !self.ended.lock().is_empty() || self.counted.lock().calls > 0
    }

    /// Stores what has ended and what was counted. While the vault cannot be used, this is tried again, since there may be
    /// no next change that stores it: an owner who does nothing more is forgotten. A shutdown waits for one attempt.
    pub async fn store_news(&self) {
        let mut retries = Retries::begin();
        while let Err(error) = self.try_store_news().await {
            tracing::warn!(%error, "the cost of a call is not stored yet; until then the reserved amount counts");
            if self.tasks.is_closed() || !retries.may_follow(&error) {
                return;
            }
            retries.pause().await;
        }
    }

    async fn try_store_news(&self) -> Result<(), Error> {
        // Another one's turn may have stored it.
        if !self.has_news() {
            return Ok(());
        }
        let turn = self.turn().await?;
        if !self.has_news() {
            return Ok(());
        }
        self.change(turn, |_, _| ()).await
    }

    /// Waits for the others of this process. If one of them fails meanwhile, so would the caller.
    async fn turn(&self) -> Result<Turn, Error> {
        let came = Instant::now();
        let turn = self.turn.clone().lock_owned().await;
        match &*turn {
            Some((failed, error)) if *failed >= came => Err(error.clone()),
            _ => Ok(turn),
        }
    }

    /// Changes the ledger, and stores what has ended and what was counted. `change` runs again if another process wrote meanwhile.
    async fn change<T>(
        &self,
        mut turn: Turn,
        change: impl Fn(&mut Ledger, Timestamp) -> T,
    ) -> Result<T, Error> {
        // Forgotten once it is stored, since that may fail. Meanwhile others only add to it.
        let ended = self.ended.lock().clone();
        let counted = *self.counted.lock();
        let outcome = self.write(&ended, counted, change).await;
        *turn = failure(&outcome);
        if outcome.is_ok() {
            self.ended.lock().drain(..ended.len());
            self.counted.lock().calls -= counted.calls;
        }
        outcome
    }

    async fn write<T>(
        &self,
        ended: &[(String, Settlement)],
        counted: Counted,
        change: impl Fn(&mut Ledger, Timestamp) -> T,
    ) -> Result<T, Error> {
        loop {
            let (before, version) = self.read().await?;
            let (mut ledger, now) = (before.clone(), self.clock.now());
            for (id, settlement) in ended {
                ledger.settle(id, *settlement);
            }
            if let Counted { calls: calls @ 1.., last: Some(last), .. } = counted {
                ledger.count(calls, last);
            }
            let abandoned = ledger.settle_abandoned(now);
            let outcome = change(&mut ledger, now);
            if ledger == before {
                return Ok(outcome);
            }
            let bytes = serde_json::to_vec(&ledger).map_err(|_| Error::RecordUnreadable)?;
            match self.vault.open().await?.write(&self.id, version, &bytes, Some(ledger::KEPT)).await {
                Ok(_) => {
                    if abandoned > 0 {
                        tracing::warn!(
                            calls = abandoned,
                            "calls of a process that died may have been billed"
                        );
                    }
                    return Ok(outcome);
                }
                Err(vault::Error::Conflict) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Returns the ledger and its version; an empty one if there is none yet. Reading does not create a vault.
    async fn read(&self) -> Result<(Ledger, Option<u64>), Error> {
        if !self.vault.exists() {
            return Ok((Ledger::default(), None));
        }
        match self.vault.open().await?.read(&self.id).await? {
            None => Ok((Ledger::default(), None)),
            Some(record) => {
                let ledger =
                    serde_json::from_slice(&record.plaintext).map_err(|_| Error::RecordUnreadable)?;
                Ok((ledger, Some(record.version)))
            }
        }
    }

    /// Deletes the ledger.
    pub async fn forget(&self) -> Result<(), Error> {
        let mut turn = self.turn().await?;
        // What is stored later would make the ledger anew.
        self.ended.lock().clear();
        self.counted.lock().calls = 0;
        let outcome = self.delete().await;
        *turn = failure(&outcome);
        outcome
    }

    async fn delete(&self) -> Result<(), Error> {
        loop {
            let (_, Some(version)) = self.read().await? else { return Ok(()) };
            match self.vault.open().await?.delete(&self.id, version).await {
                Err(vault::Error::Conflict) => {}
                outcome => return Ok(outcome?),
            }
        }
    }
}

/// What those who wait for their turn learn of its outcome.
fn failure<T>(outcome: &Result<T, Error>) -> Option<(Instant, Error)> {
    outcome.as_ref().err().map(|error| (Instant::now(), error.clone()))
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, future::poll_fn, path::Path, pin::pin, task::Poll, time::Duration};

    use chrono::TimeDelta;
    use futures_util::{FutureExt as _, future::join_all};
    use sqlx::{Connection as _, SqliteConnection};

    use super::*;
    use crate::{
        account::LimitSetBy,
        config::{Flags, Settings},
    };

    const PRICE: Usd = Usd::cents(5);
    const LIMIT: DailyLimit = DailyLimit { usd: Usd::cents(50), set_by: LimitSetBy::Operator };

    /// An owner's spending in one process of several that use the vault below `directory`.
    fn process(directory: &Path, clock: &Clock) -> Arc<Spending> {
        let flags = Flags { data_dir: Some(directory.join("data")), ..Flags::default() };
        let sealing_key = |name: &str| (name == "BONDMCP_SEALING_KEY").then(|| "07".repeat(32).into());
        let settings = Settings::load(flags, None, sealing_key).unwrap();
        let account = RecordId {
            kind: RecordKind::ACCOUNT,
            owner: "profile:test".into(),
            origin: "https://api.example".into(),
        };
        let vault = Arc::new(SharedVault::new(&settings));
        Arc::new(Spending::new(vault, &account, clock.clone(), TaskTracker::new()))
    }

    /// A time that is not over by the database's clock.
    fn noon() -> Clock {
        Clock::manual("2126-11-24T12:00:00Z".parse().unwrap())
    }

    async fn taken(spending: &Arc<Spending>) -> Usd {
        spending.state().await.unwrap().today.taken
    }

    /// Ends the process like a shutdown.
    async fn end(spending: &Spending) {
        spending.tasks.close();
        spending.tasks.wait().await;
        spending.vault.close().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn concurrent_processes_reserve_no_more_than_the_limit() {
        let directory = tempfile::tempdir().unwrap();
        let processes: Vec<_> = (0..4).map(|_| process(directory.path(), &noon())).collect();
        let calls = (0..200).map(|number| processes[number % 4].reserve(PRICE, LIMIT));
        let (granted, refused): (Vec<_>, Vec<_>) = join_all(calls).await.into_iter().partition(Result::is_ok);
        assert_eq!(granted.len(), 10);
        for refusal in refused {
            assert!(
                matches!(refusal, Err(Error::DailyLimit { taken, .. }) if taken == LIMIT.usd),
                "{refusal:?}"
            );
        }
        let granted: Vec<Reservation> = granted.into_iter().map(Result::unwrap).collect();
        assert_eq!(granted.iter().map(|reservation| &reservation.id).collect::<BTreeSet<_>>().len(), 10);
        for (number, reservation) in granted.into_iter().enumerate() {
            reservation.settle(match number {
                0 => Settlement::Released,
                1 => Settlement::PossiblySpent,
                _ => Settlement::Spent(Usd::cents(1)),
            });
        }
        for spending in &processes {
            end(spending).await;
        }
        assert_eq!(taken(&process(directory.path(), &noon())).await, Usd::cents(5 + 8));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn whoever_gives_up_at_any_time_leaves_nothing_reserved() {
        let directory = tempfile::tempdir().unwrap();
        let spending = process(directory.path(), &noon());
        // Each is cut off at another step, whichever it is.
        for delay in 0..100 {
            let _ =
                tokio::time::timeout(Duration::from_micros(20 * delay), spending.reserve(PRICE, LIMIT)).await;
        }
        spending.reserve(PRICE, LIMIT).await.unwrap();
        end(&spending).await;
        let other = process(directory.path(), &noon());
        assert_eq!(taken(&other).await, Usd::default());
    }

    #[tokio::test]
    async fn a_shutdown_waits_for_what_is_reserved() {
        let directory = tempfile::tempdir().unwrap();
        let spending = process(directory.path(), &noon());
        let reservation = spending.reserve(PRICE, LIMIT).await.unwrap();
        spending.tasks.close();
        let mut shutdown = pin!(spending.tasks.wait());
        assert!(shutdown.as_mut().now_or_never().is_none());
        reservation.settle(Settlement::Spent(Usd::cents(4)));
        shutdown.await;
        assert!(spending.ended.lock().is_empty());
        assert_eq!(taken(&spending).await, Usd::cents(4));
    }

    #[tokio::test]
    async fn a_vault_that_fails_refuses_everybody_who_waits_and_keeps_what_has_ended() {
        let directory = tempfile::tempdir().unwrap();
        let spending = process(directory.path(), &noon());
        let reservation = spending.reserve(PRICE, LIMIT).await.unwrap();
        spending.vault.close().await;
        reservation.settle(Settlement::Spent(Usd::cents(4)));
        let outcomes = join_all((0..3).map(|_| spending.reserve(PRICE, LIMIT))).await;
        assert!(outcomes.iter().all(|outcome| matches!(outcome, Err(Error::Vault(_)))), "{outcomes:?}");
        end(&spending).await;
        assert_eq!(spending.ended.lock().len(), 1, "what was never written is not kept");

        // The same process, with its vault back.
        let back = process(directory.path(), &noon());
        back.ended.lock().append(&mut spending.ended.lock());
        drop(back.reserve(PRICE, LIMIT).await.unwrap());
        end(&back).await;
        assert_eq!(taken(&process(directory.path(), &noon())).await, Usd::cents(4));
    }

    #[tokio::test]
    async fn what_has_ended_while_the_vault_failed_is_stored_although_the_owner_does_nothing_more() {
        let directory = tempfile::tempdir().unwrap();
        let spending = process(directory.path(), &noon());
        let reservation = spending.reserve(PRICE, LIMIT).await.unwrap();
        let file = directory.path().join("data/vault.db");
        let mut database = SqliteConnection::connect(&format!("sqlite://{}", file.display())).await.unwrap();
        let trigger = "CREATE TRIGGER fails BEFORE UPDATE ON records BEGIN SELECT RAISE(ABORT, 'no'); END";
        sqlx::query(trigger).execute(&mut database).await.unwrap();
        let (tasks, turn) = (spending.tasks.clone(), spending.turn.clone());
        reservation.settle(Settlement::Released);
        drop(spending);
        // Until it has failed.
        while turn.lock().await.is_none() {
            tokio::task::yield_now().await;
        }
        sqlx::query("DROP TRIGGER fails").execute(&mut database).await.unwrap();
        while !tasks.is_empty() {
            tokio::task::yield_now().await;
        }
        assert_eq!(taken(&process(directory.path(), &noon())).await, Usd::default());
    }

    /// Polls `work` at most so many times.
    async fn give_up_after<T>(polls: usize, work: impl Future<Output = T>) -> Option<T> {
        let (mut work, mut polled) = (pin!(work), 0);
        poll_fn(|context| {
            polled += 1;
            if polled > polls { Poll::Ready(None) } else { work.as_mut().poll(context).map(Some) }
        })
        .await
    }

    #[tokio::test]
    async fn whoever_asks_what_is_left_and_gives_up_at_any_time_counts_no_call_twice() {
        let directory = tempfile::tempdir().unwrap();
        let spending = process(directory.path(), &noon());
        drop(spending.reserve(PRICE, LIMIT).await.unwrap());
        // Each gives up at another step, also when the database has stored the call and the answer has not been looked at.
        for polls in (0..20).cycle().take(200) {
            spending.count_call();
            give_up_after(polls, spending.state()).await;
        }
        spending.store_news().await;
        end(&spending).await;
        let state = process(directory.path(), &noon()).state().await.unwrap();
        assert_eq!(state.totals.calls, 200);
    }

    #[tokio::test]
    async fn a_clock_that_is_years_off_has_one_budget_and_takes_none_from_others() {
        let directory = tempfile::tempdir().unwrap();
        let right = process(directory.path(), &Clock::system());
        right.reserve(LIMIT.usd, LIMIT).await.unwrap().settle(Settlement::Spent(LIMIT.usd));
        end(&right).await;
        let wrong = process(directory.path(), &Clock::manual("1970-01-01T00:00:00Z".parse().unwrap()));
        wrong.reserve(LIMIT.usd, LIMIT).await.unwrap().settle(Settlement::Spent(LIMIT.usd));
        assert!(matches!(wrong.reserve(PRICE, LIMIT).await, Err(Error::DailyLimit { .. })));
        assert_eq!(taken(&process(directory.path(), &Clock::system())).await, LIMIT.usd);
    }

    #[tokio::test]
    async fn whoever_asks_what_is_left_and_gives_up_loses_nothing_that_has_ended() {
        let directory = tempfile::tempdir().unwrap();
        let spending = process(directory.path(), &noon());
        let reservation = spending.reserve(PRICE, LIMIT).await.unwrap();
        let turn = spending.turn().await.unwrap();
        reservation.settle(Settlement::Spent(Usd::cents(1)));
        // The one who asks comes first, and is gone once it has begun to store.
        let mut asks = Box::pin(spending.state());
        assert!(asks.as_mut().now_or_never().is_none());
        drop(turn);
        assert!(asks.as_mut().now_or_never().is_none());
        drop(asks);
        end(&spending).await;
        assert_eq!(taken(&process(directory.path(), &noon())).await, Usd::cents(1));
    }

    #[tokio::test]
    async fn around_midnight_a_clock_that_is_an_hour_off_has_no_second_budget() {
        let directory = tempfile::tempdir().unwrap();
        let clock = Clock::manual("2126-11-24T23:30:00Z".parse().unwrap());
        let ahead = Clock::manual("2126-11-25T00:30:00Z".parse().unwrap());
        let (right, wrong) = (process(directory.path(), &clock), process(directory.path(), &ahead));
        let spend = async |spending: &Arc<Spending>| {
            let reservation = spending.reserve(LIMIT.usd, LIMIT).await?;
            reservation.settle(Settlement::Spent(LIMIT.usd));
            Ok::<_, Error>(())
        };
        spend(&right).await.unwrap();
        spend(&wrong).await.unwrap();
        for now in 0..2 {
            for spending in [&right, &wrong] {
                let Err(Error::DailyLimit { resets_at, .. }) = spend(spending).await else { panic!("{now}") };
                assert_eq!(resets_at.to_rfc3339(), "2126-11-26T00:00:00+00:00");
            }
            clock.advance(TimeDelta::hours(2));
            ahead.advance(TimeDelta::hours(2));
        }
    }
}
