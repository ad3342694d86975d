//! The threads that serve the connections of a listener. Each has a runtime of its own, so that the steps of a request
//! wake no other thread and take no memory from another thread's allocator.

use std::{io, sync::Arc, thread};

use tokio::{
    runtime::{Builder, Handle},
    task::JoinSet,
};
use tokio_util::sync::{CancellationToken, DropGuard};

/// Runtimes that serve connections. Clones share the threads, which end with the last clone, and with whatever still runs
/// on them.
#[derive(Clone, Debug)]
pub struct Workers {
    all: Arc<[Worker]>,
    _at_end: Option<Arc<DropGuard>>,
}

#[derive(Debug)]
struct Worker {
    runtime: Handle,
    /// Each of its connections has a reference.
    load: Arc<()>,
}

impl Workers {
    /// Starts a thread for each processor, or as many as the system allows.
    pub fn start() -> io::Result<Self> {
        let end = CancellationToken::new();
        let at_end = end.clone().drop_guard();
        let mut all = Vec::new();
        for number in 1..=thread::available_parallelism()?.get() {
            match Worker::start(number, end.clone()) {
                Ok(worker) => all.push(worker),
                Err(error) if all.is_empty() => return Err(error),
                Err(error) => {
                    tracing::warn!(%error, threads = all.len(), "no more threads can be started");
                    break;
                }
            }
        }
        Ok(Self { all: all.into(), _at_end: Some(Arc::new(at_end)) })
    }

    /// The runtime of the caller, without further threads.
    #[must_use]
    pub fn current() -> Self {
        Self { all: Arc::new([Worker::of(Handle::current())]), _at_end: None }
    }

    /// Serves a connection on the worker with the fewest, the first one if several have. So a client that connects anew for
    /// each request finds the connection to BondMCP open.
    pub(super) fn spawn(
        &self,
        tasks: &mut JoinSet<()>,
        connection: impl Future<Output = ()> + Send + 'static,
    ) {
        if let Some(Worker { runtime, load }) = self.all.iter().min_by_key(|worker| worker.connections()) {
            let load = Arc::clone(load);
            let served = async move {
                connection.await;
                drop(load);
            };
            tasks.spawn_on(served, runtime);
        }
    }
}

impl Worker {
    fn of(runtime: Handle) -> Self {
        Self { runtime, load: Arc::new(()) }
    }

    fn start(number: usize, end: CancellationToken) -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let this = Self::of(runtime.handle().clone());
        thread::Builder::new().name(format!("worker {number}")).spawn(move || {
            runtime.block_on(end.cancelled());
            // What blocks a thread must not delay the exit.
            runtime.shutdown_background();
        })?;
        Ok(this)
    }

    fn connections(&self) -> usize {
        Arc::strong_count(&self.load) - 1
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, time::Duration};

    use axum::{Router, routing::get};
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::{TcpListener, TcpStream},
    };

    use super::{
        super::{Bounds, serve},
        *,
    };

    fn thread_name() -> String {
        thread::current().name().unwrap_or_default().to_owned()
    }

    /// Asks which thread serves a connection; the request is answered when the connection is to end.
    async fn served_by(client: &mut TcpStream) -> String {
        client.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"!") {
            answer.push(client.read_u8().await.unwrap());
        }
        let answer = String::from_utf8(answer).unwrap();
        let (own, spawned) =
            answer.trim_end_matches('!').rsplit_once('\n').unwrap().1.split_once('|').unwrap();
        assert!(own.starts_with("worker ") && own == spawned, "{answer}");
        own.to_owned()
    }

    #[tokio::test]
    async fn each_connection_stays_on_one_thread_and_a_new_one_takes_that_with_the_fewest() {
        let threads = || async {
            format!("{}|{}!", thread_name(), tokio::spawn(async { thread_name() }).await.unwrap())
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let workers = Workers::start().unwrap();
        let bounds = Bounds { connections: 64, head_timeout: Duration::from_hours(1) };
        let mut serving = JoinSet::new();
        let router = Router::new().route("/", get(threads));
        serving.spawn(serve(listener, router, bounds, workers.clone(), std::future::pending()));
        let (mut clients, mut names) = (Vec::new(), HashSet::new());
        for _ in 0..workers.all.len().min(32) {
            let mut client = TcpStream::connect(address).await.unwrap();
            names.insert(served_by(&mut client).await);
            assert!(names.contains(&served_by(&mut client).await));
            clients.push(client);
        }
        assert_eq!(names.len(), clients.len());
        clients.clear();
        while workers.all.iter().any(|worker| worker.connections() > 0) {
            tokio::task::yield_now().await;
        }
        for _ in 0..3 {
            let mut client = TcpStream::connect(address).await.unwrap();
            assert_eq!(served_by(&mut client).await, "worker 1");
            drop(client);
            while workers.all[0].connections() > 0 {
                tokio::task::yield_now().await;
            }
        }
    }
}
