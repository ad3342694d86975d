//! The sign-in pages of one place on loopback, found by their ids. Each has its own lifetime.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;

use super::{End, Place, page_session::PageSession};

/// Time for which a page is served after the end, so that the browser can show the outcome.
const GRACE_PERIOD: Duration = Duration::from_secs(10);

/// The pages of one place. Clones share them.
#[derive(Clone, Debug)]
pub struct Pages {
    place: Arc<Place>,
    sessions: Arc<Mutex<Vec<Arc<PageSession>>>>,
}

impl Pages {
    /// Creates a place without pages.
    #[must_use]
    pub fn new(place: Place) -> Self {
        Self { place: Arc::new(place), sessions: Arc::default() }
    }

    /// Returns the place of the pages.
    #[must_use]
    pub fn place(&self) -> &Arc<Place> {
        &self.place
    }

    /// Adds the page of `session`. The caller lets it [run](Self::run).
    pub(super) fn add(&self, session: Arc<PageSession>) {
        self.sessions.lock().push(session);
    }

    /// Waits for the end of `session` and ends it itself when its time is over; then removes its page.
    pub(super) async fn run(self, session: Arc<PageSession>) {
        let pending = session.pending();
        if tokio::time::timeout(pending.expires_in(), pending.ended()).await.is_err() {
            pending.end(End::TimedOut);
        }
        session.release();
        tokio::time::sleep(GRACE_PERIOD).await;
        self.remove(&session);
    }

    pub(super) fn remove(&self, session: &Arc<PageSession>) {
        self.sessions.lock().retain(|other| !Arc::ptr_eq(other, session));
    }

    /// Returns the page with the id `given`. All ids are compared, each in constant time.
    pub(super) fn find(&self, given: &str) -> Option<Arc<PageSession>> {
        let given = given.into();
        self.sessions.lock().iter().fold(None, |found, session| {
            if session.has_id(&given) { Some(Arc::clone(session)) } else { found }
        })
    }

    /// Returns what `of` gives for a page, if it gives something for one.
    pub(super) fn find_map<T>(&self, of: impl FnMut(&Arc<PageSession>) -> Option<T>) -> Option<T> {
        self.sessions.lock().iter().find_map(of)
    }

    /// Whether only terminals show the links of these pages.
    pub(super) fn are_in_terminals(&self) -> bool {
        let sessions = self.sessions.lock();
        !sessions.is_empty() && sessions.iter().all(|session| session.view().in_terminal)
    }
}
