//! What was fetched, in memory: for as long as its headers allow, and errors never. For each [`Asker`], one fetch of a URL
//! runs at a time, a URL whose fetch failed is left alone for a moment, and few fetches of a host are made: so nobody can make
//! this server flood a host, nor hold all its fetches. Where a fetch fails, what was fetched within the last day stands in,
//! unless its headers forbid that (RFC 9111, section 4.2.4): some hosts answer servers in data centres with a challenge for
//! browsers now and then, and that is no reason to stop everybody who uses them. Keys never stand in: a key that was
//! withdrawn must not count any more.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::{sync::OwnedMutexGuard, time::Instant};
use tracing::Instrument as _;
use url::Url;

use super::{
    fetch::{Asker, FetchError, Network},
    freshness,
};
use crate::clock::{Clock, Timestamp};

/// Largest number of URLs that are remembered.
const CAPACITY: u64 = 512;

/// Largest number of hosts whose fetches are counted.
const HOSTS: u64 = 4096;

/// Largest number of fetches of one host in [`WINDOW`]. They are counted for all clients of the host together, so that limit
/// is far above what one address may ask for; and far below what hurts a host.
const FETCHES_PER_HOST: u32 = 1200;

/// Time over which the fetches of a host are counted.
const WINDOW: Duration = Duration::from_mins(1);

/// Shortest time between two fetches of what is known and fresh, but lacks what was looked for.
const BETWEEN_FETCHES: Duration = Duration::from_secs(30);

/// Longest time after it was fetched for which a document stands in where it cannot be fetched again. No header extends it.
const STANDS_IN: Duration = Duration::from_hours(24);

/// The pause after a fetch that failed, as a multiple of its duration: a host that hangs has one of the fetches that run at
/// a time for a thirteenth of the time, and one that is down for a moment is asked again soon.
const PAUSE: u32 = 12;

/// The shortest pause.
const MIN_PAUSE: Duration = Duration::from_secs(1);

/// The longest pause.
const MAX_PAUSE: Duration = Duration::from_mins(1);

/// Something that is made from what was fetched.
pub trait Document: Sized {
    /// Reads it; the error is our own text for the person.
    fn parse(url: &str, body: &[u8]) -> Result<Self, &'static str>;

    /// Whether it may be used although it is no longer fresh, where it cannot be fetched again and its headers allow it.
    fn may_stand_in(&self) -> bool;
}

/// Documents of one kind, by their URLs.
pub struct Cache<T> {
    network: Network,
    hosts: Arc<Hosts>,
    clock: Clock,
    entries: moka::sync::Cache<String, Arc<Entry<T>>>,
}

/// What is known of a URL.
struct Entry<T> {
    /// The document that was fetched last. It is kept when fetches fail.
    obtained: Mutex<Option<Obtained<T>>>,
    for_anybody: Arc<Turn>,
    for_clients: Arc<Turn>,
}

/// Held during a fetch for one [`Asker`]. It tells how the latest one failed, if it did.
type Turn = tokio::sync::Mutex<Option<Failure>>;

/// A document that was fetched.
struct Obtained<T> {
    document: Arc<T>,
    fetched_at: Timestamp,
    fresh_until: Timestamp,
    stands_in_until: Timestamp,
}

/// A fetch that failed.
struct Failure {
    error: CacheError,
    /// When the URL may be fetched again.
    pause_ends: Timestamp,
}

/// Why there is no document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CacheError {
    Fetch(FetchError),
    /// The text is our own.
    Unsound(&'static str),
    /// Those of its host were fetched too often.
    TooOften,
}

impl<T: Document + Send + Sync + 'static> Cache<T> {
    pub fn new(network: Network, hosts: Arc<Hosts>, clock: Clock) -> Self {
        Self { network, hosts, clock, entries: moka::sync::Cache::new(CAPACITY) }
    }

    /// Returns the document at `url`. One that is known but does not suffice is fetched again, unless it was fetched a
    /// moment ago.
    pub async fn get(
        self: &Arc<Self>,
        url: &Url,
        asker: Asker,
        suffices: impl Fn(&T) -> bool,
    ) -> Result<Arc<T>, CacheError> {
        let entry = self.entries.get_with(url.as_str().to_owned(), Default::default);
        loop {
            let turn = Arc::clone(entry.turn(asker)).lock_owned().await;
            if let Some(answer) = entry.answer(turn.as_ref(), self.clock.now(), &suffices) {
                return answer;
            }
            // A task, since others may wait for the same when whoever has begun it is gone.
            let renewal = Arc::clone(self).renew(Arc::clone(&entry), url.clone(), asker, turn);
            let ended = tokio::spawn(renewal.in_current_span()).await;
            ended.map_err(|_| CacheError::Fetch(FetchError::Unreachable))?;
        }
    }

    /// Fetches a document anew, and notes in its entry what has come of that.
    async fn renew(
        self: Arc<Self>,
        entry: Arc<Entry<T>>,
        url: Url,
        asker: Asker,
        mut turn: OwnedMutexGuard<Option<Failure>>,
    ) {
        let (began, now) = (Instant::now(), self.clock.now());
        match self.fetch(&url, asker, now).await {
            Ok(obtained) => {
                *entry.obtained.lock() = Some(obtained);
                *turn = None;
            }
            Err(error) => {
                if let CacheError::Unsound(_) = error {
                    entry.forget_stale(now);
                }
                let now = self.clock.now();
                *turn = Some(Failure { error, pause_ends: now + pause_after(began.elapsed()) });
                // What was never obtained takes no place from what was. Those who wait for this fetch have the entry.
                if asker == Asker::Anybody && entry.is_void(now) {
                    self.entries.invalidate(url.as_str());
                }
            }
        }
    }

    async fn fetch(&self, url: &Url, asker: Asker, now: Timestamp) -> Result<Obtained<T>, CacheError> {
        if !self.hosts.admit(asker, url.host_str().unwrap_or_default(), now) {
            return Err(CacheError::TooOften);
        }
        let fetched = self.network.fetch(url, asker).await.map_err(CacheError::Fetch)?;
        let document = T::parse(url.as_str(), &fetched.body).map_err(CacheError::Unsound)?;
        let stands_in = document.may_stand_in() && freshness::may_be_used_stale(&fetched.headers);
        Ok(Obtained {
            document: Arc::new(document),
            fetched_at: now,
            fresh_until: now + freshness::lifetime(&fetched.headers),
            stands_in_until: if stands_in { now + STANDS_IN } else { now },
        })
    }
}

impl<T> Entry<T> {
    fn turn(&self, asker: Asker) -> &Arc<Turn> {
        match asker {
            Asker::Anybody => &self.for_anybody,
            Asker::Client => &self.for_clients,
        }
    }

    /// Returns what is to be answered; `None` if the document has to be fetched first.
    fn answer(
        &self,
        failure: Option<&Failure>,
        now: Timestamp,
        suffices: impl Fn(&T) -> bool,
    ) -> Option<Result<Arc<T>, CacheError>> {
        let obtained = self.obtained.lock();
        let fresh = obtained.as_ref().filter(|obtained| now < obtained.fresh_until);
        if let Some(Obtained { document, fetched_at, .. }) = fresh
            && (suffices(document) || now < *fetched_at + BETWEEN_FETCHES)
        {
            return Some(Ok(Arc::clone(document)));
        }
        let failure = failure.filter(|failure| now < failure.pause_ends)?;
        let stands_in =
            |obtained: &&Obtained<T>| now < obtained.stands_in_until && suffices(&obtained.document);
        // What is fresh stays as good as it was.
        let known = fresh.or_else(|| obtained.as_ref().filter(stands_in));
        Some(known.map(|known| Arc::clone(&known.document)).ok_or(failure.error))
    }

    /// What is published now counts, even if it cannot be used.
    fn forget_stale(&self, now: Timestamp) {
        self.obtained.lock().take_if(|obtained| obtained.fresh_until <= now);
    }

    /// Whether there is neither a document nor a fetch for a client, nor a pause after one.
    fn is_void(&self, now: Timestamp) -> bool {
        let has_pause =
            |failure: &Option<Failure>| failure.as_ref().is_some_and(|failure| now < failure.pause_ends);
        self.obtained.lock().is_none()
            && self.for_clients.try_lock().is_ok_and(|failure| !has_pause(&failure))
    }
}

impl<T> Default for Entry<T> {
    fn default() -> Self {
        Self { obtained: Mutex::default(), for_anybody: Arc::default(), for_clients: Arc::default() }
    }
}

/// Returns the pause after a fetch that failed and has taken so long.
fn pause_after(duration: Duration) -> Duration {
    duration.saturating_mul(PAUSE).clamp(MIN_PAUSE, MAX_PAUSE)
}

impl<T> std::fmt::Debug for Cache<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cache").field("network", &self.network).finish_non_exhaustive()
    }
}

/// Counts the fetches of each host, for each asker.
#[derive(Debug)]
pub struct Hosts {
    windows: moka::sync::Cache<(Asker, String), Arc<Mutex<Window>>>,
}

#[derive(Debug)]
struct Window {
    since: Timestamp,
    fetches: u32,
}

impl Hosts {
    pub fn new() -> Self {
        Self { windows: moka::sync::Cache::new(HOSTS) }
    }

    /// Counts a fetch; `false` if there were too many.
    fn admit(&self, asker: Asker, host: &str, now: Timestamp) -> bool {
        let new = || Arc::new(Mutex::new(Window { since: now, fetches: 0 }));
        let window = self.windows.get_with((asker, host.to_owned()), new);
        let mut window = window.lock();
        if now >= window.since + WINDOW {
            *window = Window { since: now, fetches: 0 };
        }
        window.fetches += 1;
        window.fetches <= FETCHES_PER_HOST
    }
}

#[cfg(test)]
mod tests;
