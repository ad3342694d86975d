//! What was fetched, in memory: for as long as its headers allow, and errors never. One fetch of a URL runs at a time, and
//! few fetches of a host, so that nobody can make this server flood one. Where a fetch fails, what was fetched within
//! the last day stands in, unless its headers forbid that (RFC 9111, section 4.2.4): some hosts answer servers in data
//! centres with a challenge for browsers now and then, and that is no reason to stop everybody who uses them. Keys never
//! stand in: a key that was withdrawn must not count any more.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use url::Url;

use super::{
    fetch::{FetchError, Network},
    freshness,
};
use crate::clock::{Clock, Timestamp};

/// Largest number of URLs that are remembered.
const CAPACITY: u64 = 512;

/// Largest number of hosts whose fetches are counted.
const HOSTS: u64 = 4096;

/// Largest number of fetches of one host in [`WINDOW`], of URLs that never had a document. They are counted for all clients
/// of the host together, so that limit is far above what one address may ask for; and far below what hurts a host.
const FETCHES_PER_HOST: u32 = 1200;

/// Time over which the fetches of a host are counted.
const WINDOW: Duration = Duration::from_mins(1);

/// Shortest time between two fetches of what is known and fresh, but lacks what was looked for.
const BETWEEN_FETCHES: Duration = Duration::from_secs(30);

/// Longest time after it was fetched for which a document stands in where it cannot be fetched again. No header extends it.
const STANDS_IN: Duration = Duration::from_hours(24);

/// Time between two attempts to fetch what another document stands in for.
const BETWEEN_ATTEMPTS: Duration = Duration::from_mins(1);

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

struct Entry<T> {
    /// Number of fetches that have ended.
    ended: AtomicU64,
    /// Held during a fetch.
    latest: tokio::sync::Mutex<Option<Latest<T>>>,
}

/// The outcome of the latest fetch.
struct Latest<T> {
    outcome: Result<Arc<T>, CacheError>,
    fetched_at: Timestamp,
    fresh_until: Timestamp,
    /// The document that was fetched last, and until when it may stand in. It is kept when fetches fail.
    obtained: Option<(Arc<T>, Timestamp)>,
}

/// What a fetch has obtained.
struct Obtained<T> {
    document: Arc<T>,
    is_fresh_for: Duration,
    stands_in_for: Duration,
}

/// Why there is no document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CacheError {
    Fetch(FetchError),
    /// The text is our own.
    Unsound(&'static str),
    /// It, or others of its host, were fetched too often.
    TooOften,
}

impl<T: Document + Send + Sync + 'static> Cache<T> {
    pub fn new(network: Network, hosts: Arc<Hosts>, clock: Clock) -> Self {
        Self { network, hosts, clock, entries: moka::sync::Cache::new(CAPACITY) }
    }

    /// Returns the document at `url`. One that is known but does not suffice is fetched again, unless it was fetched a
    /// moment ago.
    pub async fn get(&self, url: &Url, suffices: impl Fn(&T) -> bool) -> Result<Arc<T>, CacheError> {
        let entry = self.entries.get_with(url.as_str().to_owned(), Default::default);
        let ended = entry.ended.load(Ordering::Acquire);
        let mut latest = entry.latest.lock().await;
        let now = self.clock.now();
        let known = match &*latest {
            // A fetch that this request has waited for.
            Some(latest) if entry.ended.load(Ordering::Acquire) != ended => return latest.outcome.clone(),
            Some(Latest { outcome: Ok(document), fetched_at, fresh_until, .. }) if now < *fresh_until => {
                if suffices(document) || now < *fetched_at + BETWEEN_FETCHES {
                    return Ok(document.clone());
                }
                Some((document.clone(), *fresh_until))
            }
            _ => None,
        };
        // Not taken: a request that is given up must lose nothing.
        let mut obtained = latest.as_ref().and_then(|latest| latest.obtained.clone());
        let stands_in = obtained.as_ref().and_then(|(document, until)| {
            let stands_in = now < *until && suffices(document);
            stands_in.then(|| (document.clone(), *until.min(&(now + BETWEEN_ATTEMPTS))))
        });
        let fetched = self.fetch(url, now, obtained.is_some()).await;
        entry.ended.fetch_add(1, Ordering::Release);
        let (outcome, fresh_until) = match (fetched, known, stands_in) {
            (Ok(Obtained { document, is_fresh_for, stands_in_for }), ..) => {
                obtained = Some((document.clone(), now + stands_in_for));
                (Ok(document), now + is_fresh_for)
            }
            // What is known stays as good as it was.
            (Err(_), Some((document, fresh_until)), _) => (Ok(document), fresh_until),
            // What is published now counts, even if it cannot be used.
            (Err(error @ CacheError::Unsound(_)), None, _) => {
                obtained = None;
                (Err(error), now)
            }
            (Err(_), None, Some((document, until))) => (Ok(document), until),
            (Err(error), None, None) => (Err(error), now),
        };
        if obtained.is_none() {
            // What was never obtained takes no place from what was. Those who wait for this fetch have the entry.
            self.entries.invalidate(url.as_str());
        }
        latest.insert(Latest { outcome, fetched_at: now, fresh_until, obtained }).outcome.clone()
    }

    /// Fetches a document. One that was obtained before is not limited by what others ask the host for.
    async fn fetch(&self, url: &Url, now: Timestamp, was_obtained: bool) -> Result<Obtained<T>, CacheError> {
        if !was_obtained && !self.hosts.admit(url.host_str().unwrap_or_default(), now) {
            return Err(CacheError::TooOften);
        }
        let fetched = self.network.fetch(url, was_obtained).await.map_err(CacheError::Fetch)?;
        let document = T::parse(url.as_str(), &fetched.body).map_err(CacheError::Unsound)?;
        let stands_in = document.may_stand_in() && freshness::may_be_used_stale(&fetched.headers);
        Ok(Obtained {
            document: Arc::new(document),
            is_fresh_for: freshness::lifetime(&fetched.headers),
            stands_in_for: if stands_in { STANDS_IN } else { Duration::ZERO },
        })
    }
}

impl<T> Default for Entry<T> {
    fn default() -> Self {
        Self { ended: AtomicU64::new(0), latest: tokio::sync::Mutex::new(None) }
    }
}

impl<T> std::fmt::Debug for Cache<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cache").field("network", &self.network).finish_non_exhaustive()
    }
}

/// Counts the fetches of each host.
#[derive(Debug)]
pub struct Hosts {
    windows: moka::sync::Cache<String, Arc<Mutex<Window>>>,
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
    fn admit(&self, host: &str, now: Timestamp) -> bool {
        let new = || Arc::new(Mutex::new(Window { since: now, fetches: 0 }));
        let window = self.windows.get_with(host.to_owned(), new);
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
