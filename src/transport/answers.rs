//! Answers to requests in sessions. Each counts until its client has taken it, but not for longer than a call can take.

use std::{collections::BTreeMap, future::ready, sync::Arc, time::Duration};

use axum::body::Body;
use futures_util::StreamExt as _;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::shares::{Share, Shares};
use crate::account::Owner;

/// Longest time for which a request in a session is answered: longer than the deadline of a call.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_secs(90);

/// The answers that count.
#[derive(Debug)]
pub(super) struct Answers {
    shares: Shares,
    counted: Arc<Mutex<Counted>>,
}

/// By number, the oldest first.
#[derive(Debug, Default)]
struct Counted {
    next: u64,
    answers: BTreeMap<u64, (Instant, Share)>,
}

/// An answer, until it is dropped.
pub(super) struct Answer {
    number: u64,
    deadline: Instant,
    counted: Arc<Mutex<Counted>>,
}

impl Answers {
    pub fn new(overall: usize, per_person: usize) -> Self {
        Self { shares: Shares::new(overall, per_person), counted: Arc::default() }
    }

    /// Counts another answer; returns `None` if too many are counted, of the person or at all.
    pub fn begin(&self, owner: &Owner) -> Option<Answer> {
        let share = self.shares.try_take(owner, 1).or_else(|| {
            self.forget_late_ones();
            self.shares.try_take(owner, 1)
        })?;
        let deadline = Instant::now() + ANSWER_TIMEOUT;
        let mut counted = self.counted.lock();
        let number = counted.next;
        counted.next += 1;
        counted.answers.insert(number, (deadline, share));
        Some(Answer { number, deadline, counted: Arc::clone(&self.counted) })
    }

    /// Here, since a body is not polled while its client takes nothing of it.
    fn forget_late_ones(&self) {
        let now = Instant::now();
        let answers = &mut self.counted.lock().answers;
        while let Some(oldest) = answers.first_entry().filter(|oldest| oldest.get().0 <= now) {
            oldest.remove();
        }
    }
}

impl Answer {
    /// Returns the body for as long as the answer counts. A stream of rmcp's has an event every few seconds.
    pub fn bound(self, body: Body) -> Body {
        let counts = move |_: &Result<_, _>| {
            let answer = &self;
            ready(Instant::now() < answer.deadline)
        };
        Body::from_stream(body.into_data_stream().take_while(counts))
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.counted.lock().answers.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{FutureExt as _, stream};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_answer_counts_until_it_is_dropped_and_a_late_one_no_longer() {
        let (answers, ada) = (Answers::new(2, 1), Owner::Subject("ada".into()));
        let answer = answers.begin(&ada).unwrap();
        assert!(answers.begin(&ada).is_none());
        drop(answer);
        let late = answers.begin(&ada).unwrap();
        tokio::time::advance(ANSWER_TIMEOUT).await;
        let answer = answers.begin(&ada).unwrap();
        drop(late);
        assert!(answers.begin(&ada).is_none(), "the late one gives nothing back twice");
        drop(answer);
        assert!(answers.begin(&ada).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_ends_with_the_first_event_after_the_deadline() {
        let answers = Answers::new(1, 1);
        let answer = answers.begin(&Owner::Subject("ada".into())).unwrap();
        let events = stream::repeat("event").map(|event| Ok::<_, std::io::Error>(event.into()));
        let events: stream::BoxStream<'static, Result<axum::body::Bytes, _>> = Box::pin(events);
        let mut body = answer.bound(Body::from_stream(events)).into_data_stream();
        assert!(body.next().now_or_never().unwrap().is_some());
        assert!(answers.begin(&Owner::Subject("grace".into())).is_none(), "the body counts");
        tokio::time::advance(ANSWER_TIMEOUT).await;
        assert!(body.next().now_or_never().unwrap().is_none());
    }
}
