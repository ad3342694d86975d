//! Telling a host that a call is still at work. It says that we wait, and nothing of what for.

use std::{convert::Infallible, time::Duration};

use rmcp::{
    Peer, RoleServer,
    model::{ProgressNotificationParam, ProgressToken},
    service::RequestContext,
};
use tokio::time::{Instant, MissedTickBehavior, interval_at};

/// A call that is quicker needs no progress.
const FIRST: Duration = Duration::from_secs(1);

const EVERY: Duration = Duration::from_secs(2);

/// Tells the host that made a call, where it wants to know.
pub(super) struct Progress {
    peer: Peer<RoleServer>,
    token: Option<ProgressToken>,
}

impl Progress {
    pub fn of(context: &RequestContext<RoleServer>) -> Self {
        Self { peer: context.peer.clone(), token: context.meta.get_progress_token() }
    }

    /// Runs `call`; beside it, so that a host that reads slowly does not hold it up, its progress is told.
    pub async fn during<T>(self, call: impl Future<Output = T>) -> T {
        let Some(token) = self.token else { return call.await };
        tokio::select! {
            biased;
            outcome = call => outcome,
            never = tell(&self.peer, &token) => match never {},
        }
    }
}

async fn tell(peer: &Peer<RoleServer>, token: &ProgressToken) -> Infallible {
    let mut ticks = interval_at(Instant::now() + FIRST, EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut count = 0.0;
    loop {
        ticks.tick().await;
        count += 1.0;
        let progress =
            ProgressNotificationParam::new(token.clone(), count).with_message("waiting for BondMCP");
        // A host that has gone is noticed elsewhere.
        let _ = peer.notify_progress(progress).await;
    }
}
