//! What all requests have in common, in shares: nobody can take all of it.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::account::{Owner, PerOwner};

/// A number of units, of which one person can have only so many at the same time, with all their grants together.
#[derive(Debug)]
pub(super) struct Shares {
    overall: Arc<Semaphore>,
    persons: PerOwner<Semaphore>,
    per_person: usize,
}

/// Some units, until it is dropped.
#[derive(Debug)]
pub(super) struct Share {
    persons: OwnedSemaphorePermit,
    overall: OwnedSemaphorePermit,
}

impl Shares {
    pub fn new(overall: usize, per_person: usize) -> Self {
        Self { overall: Arc::new(Semaphore::new(overall)), persons: PerOwner::default(), per_person }
    }

    /// Takes some units; returns `None` if fewer are left, of the person's or at all.
    pub fn try_take(&self, owner: &Owner, units: u32) -> Option<Share> {
        let persons = self.of_person(owner).try_acquire_many_owned(units).ok()?;
        let overall = Arc::clone(&self.overall).try_acquire_many_owned(units).ok()?;
        Some(Share { persons, overall })
    }

    /// Waits for some units. The semaphores are never closed, so this returns `Some`.
    pub async fn take(&self, owner: &Owner, units: u32) -> Option<Share> {
        let persons = self.of_person(owner).acquire_many_owned(units).await.ok()?;
        let overall = Arc::clone(&self.overall).acquire_many_owned(units).await.ok()?;
        Some(Share { persons, overall })
    }

    fn of_person(&self, owner: &Owner) -> Arc<Semaphore> {
        self.persons.get_or_open(&owner.person(), || Semaphore::new(self.per_person))
    }
}

impl Share {
    /// Gives back all but some units.
    pub fn shrink_to(&mut self, units: usize) {
        for permits in [&mut self.persons, &mut self.overall] {
            drop(permits.split(permits.num_permits().saturating_sub(units)));
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[test]
    fn a_person_has_a_share_and_all_have_the_whole() {
        let [one, two, other] =
            ["ada.one", "ada.two", "grace.one"].map(|name| Owner::Subject(name.to_owned()));
        let shares = Shares::new(4, 3);
        let take = |owner, units| shares.take(owner, units).now_or_never().flatten();
        let mut first = take(&one, 3).unwrap();
        assert!(shares.try_take(&two, 1).is_none());
        first.shrink_to(1);
        let second = take(&two, 2).unwrap();
        assert!(shares.try_take(&one, 1).is_none() && take(&other, 2).is_none());
        let third = shares.try_take(&other, 1).unwrap();
        assert!(shares.try_take(&other, 1).is_none(), "the whole is taken");
        drop((first, second, third));
        assert!(take(&other, 3).is_some());
    }
}
