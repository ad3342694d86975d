//! One value for each owner: opened on demand, the same for all who use it at the same time, and let go some time after
//! its last use. The number of values that nobody uses is bounded.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, OnceLock, Weak},
    time::Duration,
};

use moka::{policy::EvictionPolicy, sync::Cache};
use parking_lot::{Mutex, RwLock};
use tokio::runtime::Handle;

use super::Owner;

/// Number of values that are kept although nobody uses them.
const CAPACITY: u64 = 1024;

/// Time for which a value is kept although nobody uses it. A process that nobody asks keeps it a little longer.
const IDLE_TIME: Duration = Duration::from_mins(10);

/// Number of entries below which the registry is not searched for values that are gone.
const SMALL: usize = 64;

/// The values of all owners.
pub struct PerOwner<T> {
    /// A profile's value stays: the operator's own profiles are few, and what counts for them counts from the start of
    /// the process.
    profiles: RwLock<HashMap<Owner, Arc<T>>>,
    /// The subjects' values that were used recently. Finding one here takes no lock.
    /// Made for the first one: a local server has none.
    recent: OnceLock<Arc<Recent<T>>>,
    open: Mutex<Open<T>>,
    idle_time: Duration,
}

type Recent<T> = Cache<Owner, Arc<T>>;

/// The subjects' values that are in use, so that none is opened twice.
struct Open<T> {
    values: HashMap<Owner, Weak<T>>,
    /// Number of entries at which those whose values are gone are removed.
    full: usize,
}

impl<T: Send + Sync + 'static> PerOwner<T> {
    /// Returns the owner's value; `open` makes it if there is none. `open` must not use this registry.
    pub fn get_or_open(&self, owner: &Owner, open: impl FnOnce() -> T) -> Arc<T> {
        match owner {
            Owner::Profile(_) => self.of_profile(owner, open),
            Owner::Subject(_) => self.of_subject(owner, open),
        }
    }

    fn of_profile(&self, profile: &Owner, open: impl FnOnce() -> T) -> Arc<T> {
        if let Some(value) = self.profiles.read().get(profile) {
            return Arc::clone(value);
        }
        let mut profiles = self.profiles.write();
        Arc::clone(profiles.entry(profile.clone()).or_insert_with(|| Arc::new(open())))
    }

    fn of_subject(&self, subject: &Owner, open: impl FnOnce() -> T) -> Arc<T> {
        let recent = self.recent();
        if let Some(value) = recent.get(subject) {
            return value;
        }
        let value = self.find_or_open(subject, open);
        recent.insert(subject.clone(), Arc::clone(&value));
        value
    }

    fn recent(&self) -> &Recent<T> {
        self.recent.get_or_init(|| {
            let recent = Cache::builder().max_capacity(CAPACITY).time_to_idle(self.idle_time);
            let recent = Arc::new(recent.eviction_policy(EvictionPolicy::lru()).build());
            if let Ok(runtime) = Handle::try_current() {
                runtime.spawn(let_go_of_idle(Arc::downgrade(&recent), self.idle_time));
            }
            recent
        })
    }

    fn find_or_open(&self, subject: &Owner, open: impl FnOnce() -> T) -> Arc<T> {
        let mut all = self.open.lock();
        if let Some(value) = all.values.get(subject).and_then(Weak::upgrade) {
            return value;
        }
        let value = Arc::new(open());
        all.values.insert(subject.clone(), Arc::downgrade(&value));
        all.forget_what_is_gone();
        value
    }

    /// Returns all values that are in use or kept.
    pub fn opened(&self) -> Vec<Arc<T>> {
        let profiles = self.profiles.read().values().cloned().collect();
        let subjects: Vec<_> = self.open.lock().values.values().filter_map(Weak::upgrade).collect();
        [profiles, subjects].concat()
    }
}

impl<T> Open<T> {
    /// Removes the entries of values that are gone. The registry is searched each time it has doubled, so that opening
    /// a value takes constant time on average.
    fn forget_what_is_gone(&mut self) {
        if self.values.len() >= self.full {
            self.values.retain(|_, value| value.strong_count() > 0);
            self.values.shrink_to(self.values.len() * 2);
            self.full = (self.values.len() * 2).max(SMALL);
        }
    }
}

/// Lets go of the values whose time is over. moka does so only while it is used.
async fn let_go_of_idle<T: Send + Sync + 'static>(recent: Weak<Recent<T>>, interval: Duration) {
    loop {
        tokio::time::sleep(interval).await;
        let Some(recent) = recent.upgrade() else { return };
        recent.run_pending_tasks();
        // moka frees what it has removed with a later run.
        tokio::task::yield_now().await;
        recent.run_pending_tasks();
    }
}

impl<T> Default for PerOwner<T> {
    fn default() -> Self {
        let open = Mutex::new(Open { values: HashMap::new(), full: SMALL });
        Self { profiles: RwLock::default(), recent: OnceLock::new(), open, idle_time: IDLE_TIME }
    }
}

impl<T> fmt::Debug for PerOwner<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PerOwner")
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    impl<T: Send + Sync + 'static> PerOwner<T> {
        /// Number of values that are kept although nobody uses them.
        pub const KEPT: u64 = CAPACITY;

        /// Lets go now what is let go at some time.
        pub fn settle(&self) {
            self.recent().run_pending_tasks();
        }
    }

    fn subject(number: u64) -> Owner {
        Owner::Subject(number.to_string())
    }

    #[test]
    fn a_value_in_use_is_never_opened_twice_however_many_other_owners_come() {
        let values = PerOwner::default();
        let used = values.get_or_open(&subject(0), || 0);
        for other in 1..=2 * CAPACITY {
            values.get_or_open(&subject(other), || other);
        }
        values.recent().run_pending_tasks();
        assert!(!values.recent().contains_key(&subject(0)));
        assert!(Arc::ptr_eq(&used, &values.get_or_open(&subject(0), || panic!("it is open"))));
    }

    #[tokio::test]
    async fn a_value_that_nobody_uses_is_let_go_though_no_other_is_asked_for() {
        let values = PerOwner { idle_time: Duration::from_millis(1), ..PerOwner::default() };
        let (kept, gone) = tokio::sync::oneshot::channel::<()>();
        values.get_or_open(&subject(0), || kept);
        let ended = tokio::time::timeout(Duration::from_mins(1), gone).await.unwrap();
        assert!(ended.is_err(), "it was let go");
    }

    #[test]
    fn callers_at_once_get_one_value() {
        let (values, opened) = (PerOwner::default(), AtomicU64::new(0));
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| values.get_or_open(&subject(0), || opened.fetch_add(1, Ordering::Relaxed)));
            }
        });
        assert_eq!(opened.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn what_nobody_uses_is_bounded_and_so_is_what_is_known_of_it() {
        let values = PerOwner::default();
        for owner in 0..10_000 {
            values.get_or_open(&subject(owner), || owner);
        }
        values.recent().run_pending_tasks();
        assert!(values.recent().entry_count() <= CAPACITY);
        let known = values.open.lock().values.len();
        assert!(known <= 4 * usize::try_from(CAPACITY).unwrap(), "{known}");
    }

    #[test]
    fn a_profile_is_kept() {
        let values = PerOwner::default();
        let profile = Owner::Profile("work".parse().unwrap());
        values.get_or_open(&profile, || u64::MAX);
        for owner in 0..2 * CAPACITY {
            values.get_or_open(&subject(owner), || owner);
        }
        assert_eq!(*values.get_or_open(&profile, || panic!("it is open")), u64::MAX);
        assert!(values.opened().iter().any(|value| **value == u64::MAX));
    }
}
