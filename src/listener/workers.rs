//! The threads that serve the connections of a listener. Each has a runtime of its own, so that the steps of a request
//! wake no other thread and take no memory from another thread's allocator.

use std::{io, sync::Arc, thread};

use tokio::runtime::{Builder, Handle};
use tokio_util::sync::{CancellationToken, DropGuard};

/// Runtimes that serve connections in turn. Clones share the threads, which end with the last clone, and with whatever
/// still runs on them.
#[derive(Clone, Debug)]
pub struct Workers {
    runtimes: Arc<[Handle]>,
    _at_end: Option<Arc<DropGuard>>,
}

impl Workers {
    /// Starts a thread for each processor.
    pub fn start() -> io::Result<Self> {
        let end = CancellationToken::new();
        let at_end = end.clone().drop_guard();
        let mut runtimes = Vec::new();
        for number in 1..=thread::available_parallelism()?.get() {
            let runtime = Builder::new_current_thread().enable_all().build()?;
            runtimes.push(runtime.handle().clone());
            let end = end.clone();
            thread::Builder::new().name(format!("worker {number}")).spawn(move || {
                runtime.block_on(end.cancelled());
                // What blocks a thread must not delay the exit.
                runtime.shutdown_background();
            })?;
        }
        Ok(Self { runtimes: runtimes.into(), _at_end: Some(Arc::new(at_end)) })
    }

    /// The runtime of the caller, without further threads.
    #[must_use]
    pub fn current() -> Self {
        Self { runtimes: Arc::new([Handle::current()]), _at_end: None }
    }

    /// Returns the runtimes of the connections, one after the other.
    pub(super) fn in_turn(&self) -> impl Iterator<Item = &Handle> {
        self.runtimes.iter().cycle()
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, time::Duration};

    use axum::{Router, routing::get};
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::{TcpListener, TcpStream},
        task::JoinSet,
    };

    use super::{
        super::{Bounds, serve},
        *,
    };

    fn thread_name() -> String {
        thread::current().name().unwrap_or_default().to_owned()
    }

    #[tokio::test]
    async fn each_connection_stays_on_one_thread_and_they_take_turns() {
        let both =
            || async { [thread_name(), tokio::spawn(async { thread_name() }).await.unwrap()].join("|") };
        let router = Router::new().route("/", get(both));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (workers, bounds) =
            (Workers::start().unwrap(), Bounds { connections: 64, head_timeout: Duration::from_hours(1) });
        let threads = workers.runtimes.len().min(32);
        let mut serving = JoinSet::new();
        serving.spawn(serve(listener, router, bounds, workers, std::future::pending()));
        let mut names = HashSet::new();
        for _ in 0..threads {
            let mut client = TcpStream::connect(address).await.unwrap();
            client.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
            let mut answer = String::new();
            client.read_to_string(&mut answer).await.unwrap();
            let (own, spawned) = answer.rsplit_once('\n').unwrap().1.split_once('|').unwrap();
            assert!(own.starts_with("worker ") && own == spawned, "{answer}");
            names.insert(own.to_owned());
        }
        assert_eq!(names.len(), threads);
    }
}
