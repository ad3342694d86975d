//! The changes of records that PostgreSQL tells on a connection of its own (LISTEN/NOTIFY).

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use sqlx::postgres::{PgConnectOptions, PgListener, PgPoolOptions};
use tokio::{
    sync::Notify,
    task::AbortHandle,
    time::{sleep, timeout},
};

use super::{ChangeMarker, seal::RecordKey};

/// The channel that the triggers notify.
const CHANNEL: &str = "bondmcp_vault";

/// Number of counters. Records that share one only cost a needless read.
const BUCKETS: usize = 1024;

/// Longest wait for a connection, and for its sign of life.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// Interval at which a quiet connection is asked for a sign of life: one that hangs tells nothing, and looks as one does
/// on which nothing happens.
const CHECK_INTERVAL: Duration = Duration::from_secs(5);

/// Wait before a lost connection is made again.
const RECONNECT_INTERVAL: Duration = Duration::from_millis(200);

/// What a process has heard. Clones share it; the connection ends with the last one.
#[derive(Clone, Debug)]
pub struct ChangesTold(Arc<Connection>);

#[derive(Debug)]
struct Connection {
    heard: Arc<Heard>,
    task: AbortHandle,
}

#[derive(Debug)]
struct Heard {
    /// Number of the connection that is open; 0 while there is none.
    connection: AtomicU64,
    buckets: Vec<Bucket>,
}

#[derive(Debug, Default)]
struct Bucket {
    changes: AtomicU64,
    changed: Notify,
}

impl ChangesTold {
    pub fn listen(options: PgConnectOptions) -> Self {
        let buckets = std::iter::repeat_with(Bucket::default).take(BUCKETS).collect();
        let heard = Arc::new(Heard { connection: AtomicU64::new(0), buckets });
        let task = tokio::spawn(Arc::clone(&heard).keep_listening(options)).abort_handle();
        Self(Arc::new(Connection { heard, task }))
    }

    /// Whether changes are heard of now.
    pub fn are_heard(&self) -> bool {
        self.0.heard.connection.load(Ordering::Acquire) > 0
    }

    /// Returns the marker of a record's changes; `None` while there is no connection. Markers of different connections
    /// differ, since a change between them was not heard.
    pub fn marker(&self, id: &RecordKey) -> Option<ChangeMarker> {
        let heard = &self.0.heard;
        let changes = heard.bucket(id).changes.load(Ordering::Acquire);
        let connection = heard.connection.load(Ordering::Acquire);
        (connection > 0).then_some(ChangeMarker::Told { connection, changes })
    }

    /// Waits for a change of the record, or of the connection, from this call on.
    pub fn next(&self, id: &RecordKey) -> impl Future<Output = ()> + Send + 'static {
        let heard = Arc::clone(&self.0.heard);
        let index = index(id);
        let before = heard.buckets[index].changes.load(Ordering::Acquire);
        async move {
            let bucket = &heard.buckets[index];
            loop {
                let changed = bucket.changed.notified();
                tokio::pin!(changed);
                changed.as_mut().enable();
                if bucket.changes.load(Ordering::Acquire) != before {
                    return;
                }
                changed.await;
            }
        }
    }

    /// Ends the connection.
    pub fn stop(&self) {
        self.0.task.abort();
        self.0.heard.disconnected();
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Heard {
    async fn keep_listening(self: Arc<Self>, options: PgConnectOptions) {
        for number in 1.. {
            let was_refused = self.listen(number, &options).await.is_err();
            self.disconnected();
            tracing::debug!(was_refused, "changes of the vault are not heard of for now");
            sleep(RECONNECT_INTERVAL).await;
        }
    }

    /// Listens until the connection is lost.
    async fn listen(&self, number: u64, options: &PgConnectOptions) -> Result<(), sqlx::Error> {
        let pool = PgPoolOptions::new().max_connections(1).acquire_timeout(ANSWER_TIMEOUT);
        let pool = pool.test_before_acquire(false).idle_timeout(None).max_lifetime(None);
        let mut listener = PgListener::connect_with(&pool.connect_lazy_with(options.clone())).await?;
        listener.eager_reconnect(false);
        timeout(ANSWER_TIMEOUT, listener.listen(CHANNEL)).await.map_err(|_| sqlx::Error::PoolTimedOut)??;
        self.connected(number);
        loop {
            match timeout(CHECK_INTERVAL, listener.try_recv()).await {
                Ok(Ok(Some(notification))) => self.tell(notification.payload()),
                Ok(Ok(None)) => return Ok(()),
                Ok(Err(error)) => return Err(error),
                Err(_) => {
                    let alive = sqlx::query("SELECT 1").execute(&mut listener);
                    timeout(ANSWER_TIMEOUT, alive).await.map_err(|_| sqlx::Error::PoolTimedOut)??;
                }
            }
        }
    }

    /// Counts a change of the record whose id, in hex, is `payload`. What is not one may be any record's.
    fn tell(&self, payload: &str) {
        let index = payload.get(..4).and_then(|start| u16::from_str_radix(start, 16).ok());
        match index {
            Some(start) => self.buckets[usize::from(start) % BUCKETS].change(),
            None => self.buckets.iter().for_each(Bucket::change),
        }
    }

    /// Everything may have changed meanwhile: told before changes count as heard of again.
    fn connected(&self, number: u64) {
        self.buckets.iter().for_each(Bucket::change);
        self.connection.store(number, Ordering::Release);
    }

    /// From now on nothing is heard, so those who wait look themselves.
    fn disconnected(&self) {
        self.connection.store(0, Ordering::Release);
        self.buckets.iter().for_each(Bucket::change);
    }

    fn bucket(&self, id: &RecordKey) -> &Bucket {
        &self.buckets[index(id)]
    }
}

impl Bucket {
    fn change(&self) {
        self.changes.fetch_add(1, Ordering::AcqRel);
        self.changed.notify_waiters();
    }
}

fn index(id: &RecordKey) -> usize {
    usize::from(u16::from_be_bytes([id[0], id[1]])) % BUCKETS
}
