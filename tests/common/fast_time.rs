//! Fast time for in-process tests: tokio's clock runs twenty times as fast as the wall clock.
//!
//! A paused clock alone is not enough: it jumps to the next deadline whenever the runtime is idle, so deadlines pass
//! while a socket or SQLite's thread is still at work. Here it never jumps. It moves by one step after a millisecond,
//! once the runtime has gone through its ready tasks; so a busy machine slows it down as well.

use std::time::Duration;

use tokio::{sync::mpsc, task, time};

/// Length of one step of the clock.
const STEP: Duration = Duration::from_millis(20);

/// Shortest real time between two steps.
const TICK: Duration = Duration::from_millis(1);

/// Runs `work` while the clock of the single-threaded runtime runs fast.
pub async fn fast<T>(work: impl Future<Output = T>) -> T {
    let (ticks, mut ticked) = mpsc::channel(1);
    // As long as a blocking task runs, tokio does not advance a paused clock by itself.
    let ticking = task::spawn_blocking(move || {
        while ticks.blocking_send(()).is_ok() {
            std::thread::sleep(TICK);
        }
    });
    time::pause();
    tokio::pin!(work);
    let done = loop {
        tokio::select! {
            done = &mut work => break done,
            _ = ticked.recv() => time::advance(STEP).await,
        }
    };
    time::resume();
    drop(ticked);
    ticking.await.unwrap();
    done
}
