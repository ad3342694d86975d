//! Work that runs to its end even when the client is gone, since what it has used up must not be lost half-way. Clients
//! can hang up at once and send the next request, so the work that nobody waits for is bounded, too.

use std::sync::Arc;

use axum::response::Response;
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;

use super::endpoints::unavailable;

/// Requests that are worked on at once: more than one client can have under way by its own limit, of about 1000. Each may
/// have a body of 64 KiB.
const CAPACITY: usize = 2048;

#[derive(Clone, Debug)]
pub(super) struct Detached {
    /// Waited for when the server stops.
    tasks: TaskTracker,
    permits: Arc<Semaphore>,
}

impl Detached {
    pub fn new(tasks: TaskTracker) -> Self {
        Self::with_capacity(tasks, CAPACITY)
    }

    fn with_capacity(tasks: TaskTracker, capacity: usize) -> Self {
        Self { tasks, permits: Arc::new(Semaphore::new(capacity)) }
    }

    /// Does the work and returns its answer; 503 where there is too much work already.
    pub async fn answer(&self, work: impl Future<Output = Response> + Send + 'static) -> Response {
        let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() else {
            tracing::info!("a request was refused: too many others are worked on");
            return unavailable();
        };
        let work = async move {
            let answer = work.await;
            drop(permit);
            answer
        };
        self.tasks.spawn(work.in_current_span()).await.unwrap_or_else(|_| unavailable())
    }
}

#[cfg(test)]
mod tests {
    use axum::response::IntoResponse as _;
    use futures_util::FutureExt as _;
    use http::{StatusCode, header::RETRY_AFTER};
    use tokio::sync::oneshot;

    use super::*;

    // RFC 9700, sections 4.5 and 4.14.2: a refresh or a code counts as used whether its client waits for the answer or not.
    #[tokio::test]
    async fn work_of_a_client_that_has_hung_up_goes_on_and_counts() {
        let detached = Detached::with_capacity(TaskTracker::new(), 1);
        let (goes_on, waits) = oneshot::channel();
        let (is_done, done) = oneshot::channel();
        let work = async move {
            waits.await.unwrap();
            is_done.send(()).unwrap();
            StatusCode::OK.into_response()
        };
        assert!(detached.answer(work).now_or_never().is_none());
        let refused = detached.answer(async { StatusCode::OK.into_response() }).await;
        assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert!(refused.headers().contains_key(RETRY_AFTER));
        goes_on.send(()).unwrap();
        done.await.unwrap();
        tokio::task::yield_now().await;
        let answered = detached.answer(async { StatusCode::OK.into_response() }).await;
        assert_eq!(answered.status(), StatusCode::OK);
    }
}
