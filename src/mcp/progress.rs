//! Progress notifications while a call waits for BondMCP. They carry no content of the call.

use std::{convert::Infallible, time::Duration};

use tokio::time::{Instant, MissedTickBehavior, interval_at};

use super::host::Host;

/// Time after which a call sends its first progress notification.
const FIRST_PROGRESS: Duration = Duration::from_secs(1);

const PROGRESS_INTERVAL: Duration = Duration::from_secs(2);

/// Runs `work` and sends progress concurrently, so that a host that reads slowly does not delay it.
pub(super) async fn during<T>(host: &Host, work: impl Future<Output = T>) -> T {
    if !host.wants_progress() {
        return work.await;
    }
    tokio::select! {
        biased;
        outcome = work => outcome,
        never = report(host) => match never {},
    }
}

async fn report(host: &Host) -> Infallible {
    let mut ticks = interval_at(Instant::now() + FIRST_PROGRESS, PROGRESS_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        host.progress("waiting for BondMCP").await;
    }
}
