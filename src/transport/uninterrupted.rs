//! Work that goes on when its client is gone, without a task of its own as long as the client is there.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use tokio::runtime::Handle;

/// A future that is completed by a task if it is dropped before its end.
pub(super) struct Uninterrupted<Output: Send + 'static> {
    future: Option<Pin<Box<dyn Future<Output = Output> + Send>>>,
}

impl<Output: Send + 'static> Uninterrupted<Output> {
    pub fn new(future: impl Future<Output = Output> + Send + 'static) -> Self {
        Self { future: Some(Box::pin(future)) }
    }
}

impl<Output: Send + 'static> Future for Uninterrupted<Output> {
    type Output = Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Output> {
        // Taken out meanwhile: a future that has panicked is not polled again.
        let Some(mut future) = self.future.take() else { return Poll::Pending };
        let poll = future.as_mut().poll(context);
        if poll.is_pending() {
            self.future = Some(future);
        }
        poll
    }
}

impl<Output: Send + 'static> Drop for Uninterrupted<Output> {
    fn drop(&mut self) {
        if let Some(future) = self.future.take()
            && let Ok(runtime) = Handle::try_current()
        {
            runtime.spawn(future);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn work_goes_on_when_it_is_dropped() {
        let (goes_on, waits) = oneshot::channel::<()>();
        let (done, is_done) = oneshot::channel();
        let mut work = Uninterrupted::new(async move {
            waits.await.unwrap();
            done.send(()).unwrap();
        });
        assert!((&mut work).now_or_never().is_none());
        drop(work);
        goes_on.send(()).unwrap();
        is_done.await.unwrap();
    }

    #[tokio::test]
    async fn work_that_is_never_polled_is_done_too() {
        let (done, is_done) = oneshot::channel();
        drop(Uninterrupted::new(async move { done.send(()).unwrap() }));
        is_done.await.unwrap();
    }
}
