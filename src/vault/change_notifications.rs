//! The changes of records that PostgreSQL notifies of on a connection of its own (LISTEN/NOTIFY).

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

/// What a process was notified of. Clones share it; the connection ends with the last one.
#[derive(Clone, Debug)]
pub struct ChangeNotifications(Arc<Connection>);

#[derive(Debug)]
struct Connection {
    received: Arc<Received>,
    task: AbortHandle,
}

#[derive(Debug)]
struct Received {
    /// Number of the connection that is open; 0 while there is none.
    connection: AtomicU64,
    buckets: Vec<Bucket>,
}

#[derive(Debug, Default)]
struct Bucket {
    changes: AtomicU64,
    changed: Notify,
}

impl ChangeNotifications {
    pub fn listen(options: PgConnectOptions) -> Self {
        let buckets = std::iter::repeat_with(Bucket::default).take(BUCKETS).collect();
        let received = Arc::new(Received { connection: AtomicU64::new(0), buckets });
        let task = tokio::spawn(Arc::clone(&received).keep_listening(options)).abort_handle();
        Self(Arc::new(Connection { received, task }))
    }

    /// Whether a change would be noticed now.
    pub fn is_listening(&self) -> bool {
        self.0.received.connection.load(Ordering::Acquire) > 0
    }

    /// Returns the marker of a record's changes; `None` while there is no connection. Markers of different connections
    /// differ, since a change between them was missed.
    pub fn marker(&self, id: &RecordKey) -> Option<ChangeMarker> {
        let received = &self.0.received;
        let changes = received.bucket(id).changes.load(Ordering::Acquire);
        let connection = received.connection.load(Ordering::Acquire);
        (connection > 0).then_some(ChangeMarker::Notified { connection, changes })
    }

    /// Waits for a change of the record, or of the connection, from this call on.
    pub fn next(&self, id: &RecordKey) -> impl Future<Output = ()> + Send + 'static {
        let received = Arc::clone(&self.0.received);
        let index = index(id);
        let before = received.buckets[index].changes.load(Ordering::Acquire);
        async move {
            let bucket = &received.buckets[index];
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
        self.0.received.disconnected();
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Received {
    async fn keep_listening(self: Arc<Self>, options: PgConnectOptions) {
        for number in 1.. {
            let was_refused = self.listen(number, &options).await.is_err();
            self.disconnected();
            tracing::debug!(was_refused, "changes of the vault are not notified of for now");
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
                Ok(Ok(Some(notification))) => self.notify(notification.payload()),
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
    fn notify(&self, payload: &str) {
        let index = payload.get(..4).and_then(|start| u16::from_str_radix(start, 16).ok());
        match index {
            Some(start) => self.buckets[usize::from(start) % BUCKETS].change(),
            None => self.buckets.iter().for_each(Bucket::change),
        }
    }

    /// Everything may have changed meanwhile: notify before changes count as noticed again.
    fn connected(&self, number: u64) {
        self.buckets.iter().for_each(Bucket::change);
        self.connection.store(number, Ordering::Release);
    }

    /// From now on there are no notifications, so those who wait look themselves.
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
