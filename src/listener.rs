//! Serves HTTP/1.1 with a limit on connections and a time-out for the head of each request, so that clients that
//! connect and stay silent cannot lock others out. `axum::serve` has neither.

mod connection;
mod workers;

use std::{io, net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use axum::Router;
use tokio::{net::TcpListener, sync::Notify, task::JoinSet};
use tokio_util::sync::CancellationToken;

use self::connection::{Connection, STALL_TIMEOUT};
pub use self::workers::Workers;

/// The limits on the clients of a listener.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Maximum number of open connections. Another one replaces a connection without a request; if there is none, it
    /// waits.
    pub connections: usize,
    /// Longest time from accepting a connection, or from its last response, to the end of the next request's head.
    pub head_timeout: Duration,
}

/// The address at the other end of a request's connection, which may be a proxy's. An extension of the request.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub SocketAddr);

/// An extension of a response that must not be lost, as it may have been billed: its connection is closed for another one
/// only when the client has taken nothing of it for some time.
#[derive(Clone, Copy, Debug)]
pub struct Keep;

/// Pause after the system failed to accept a connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// Serves `router` until `stopping` completes; then only requests in flight are answered. Dropping the future closes
/// every connection. Each connection stays with one of the `workers`, and so does what its requests start, except in a
/// session of MCP, which stays with the worker that opened it.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    bounds: Bounds,
    workers: Workers,
    stopping: impl Future<Output = ()>,
) {
    let stop = CancellationToken::new();
    let mut tasks = JoinSet::new();
    let mut connections: Vec<Arc<Connection>> = Vec::new();
    let freed = Arc::new(Notify::new());
    let mut stopping = pin!(stopping);
    loop {
        tokio::select! {
            () = &mut stopping => break,
            Some(_) = tasks.join_next() => connections.retain(Connection::is_open),
            // The others wait until one of those that are open closes. One that stalls gives no notice.
            _ = tokio::time::timeout(STALL_TIMEOUT, freed.notified()), if tasks.len() > bounds.connections => {
                make_room(&connections);
            }
            // One above the limit, to detect a client that waits for a slot.
            accepted = accept(&listener), if tasks.len() <= bounds.connections => match accepted {
                Ok((stream, peer)) => {
                    if tasks.len() >= bounds.connections {
                        evict_idle(&connections);
                    }
                    let connection = Arc::new(Connection::new(Arc::clone(&freed)));
                    connections.push(Arc::clone(&connection));
                    let peer = Peer(peer);
                    let served = connection.serve(stream, peer, router.clone(), bounds.head_timeout, stop.clone());
                    workers.spawn(&mut tasks, served);
                }
                Err(error) => {
                    // The process may have reached its limit of open files.
                    tracing::warn!(%error, "cannot accept a connection");
                    evict_idle(&connections);
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
    drop(listener);
    stop.cancel();
    while tasks.join_next().await.is_some() {}
}

/// Accepts a connection, for whichever runtime.
async fn accept(listener: &TcpListener) -> io::Result<(std::net::TcpStream, SocketAddr)> {
    let (stream, peer) = listener.accept().await?;
    // Answers are short: none waits for the client's acknowledgement of the one before.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "a connection keeps the system's delays");
    }
    Ok((stream.into_std()?, peer))
}

/// Closes a connection for the clients that wait, unless one is closing. The last one may have its first request on the
/// way, and stays until that is answered.
fn make_room(connections: &[Arc<Connection>]) {
    if connections.iter().any(|connection| connection.is_leaving()) {
        return;
    }
    match connections.split_last() {
        Some((last, others)) if !last.is_served() => evict_idle(others),
        _ => evict_idle(connections),
    }
}

/// Closes the oldest connection without a request.
fn evict_idle(connections: &[Arc<Connection>]) {
    if let Some(idle) = connections.iter().find(|connection| connection.is_idle()) {
        idle.evict();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use axum::{
        Extension,
        routing::{MethodRouter, get},
    };
    use bytes::Bytes;
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpStream,
        sync::oneshot,
    };

    /// Starts a listener with `bounds`; dropping the sender stops it.
    async fn listening(router: Router, bounds: Bounds) -> (SocketAddr, oneshot::Sender<()>, JoinSet<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let mut serving = JoinSet::new();
        serving.spawn(serve(listener, router, bounds, Workers::current(), async move {
            let _ = stopped.await;
        }));
        (address, stop, serving)
    }

    async fn send(stream: &mut TcpStream, bytes: &[u8]) {
        stream.write_all(bytes).await.unwrap();
    }

    /// Returns what the peer sends until it closes the connection.
    async fn rest(stream: &mut TcpStream) -> String {
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest).await;
        String::from_utf8(rest).unwrap()
    }

    const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";

    fn hello() -> Router {
        Router::new().route("/", get(|| async { "hello" }))
    }

    const LARGE: usize = 32 << 20;

    fn large() -> MethodRouter {
        get(|| async { (Extension(Keep), Bytes::from(vec![b'x'; LARGE])) })
    }

    /// Signals that a request has arrived, and answers it when released.
    fn held(arrived: &Arc<Notify>, release: &Arc<Notify>) -> Router {
        let held = (Arc::clone(arrived), Arc::clone(release));
        let answer = move || {
            let (arrived, release) = held.clone();
            async move {
                arrived.notify_one();
                release.notified().await;
                "hello"
            }
        };
        Router::new().route("/", get(answer))
    }

    #[tokio::test]
    async fn three_hundred_half_open_connections_do_not_block_others() {
        let bounds = Bounds { connections: 16, head_timeout: Duration::from_hours(1) };
        let (address, _stop, _serving) = listening(hello(), bounds).await;
        let mut half_open = Vec::new();
        for _ in 0..300 {
            let mut stream = TcpStream::connect(address).await.unwrap();
            send(&mut stream, b"GET / HTTP/1.1\r\nhost:").await;
            half_open.push(stream);
        }
        let mut client = TcpStream::connect(address).await.unwrap();
        send(&mut client, REQUEST).await;
        assert!(rest(&mut client).await.ends_with("hello"));
    }

    #[tokio::test]
    async fn requests_whose_bodies_never_end_keep_nobody_out() {
        let bounds = Bounds { connections: 16, head_timeout: Duration::from_hours(1) };
        let router = hello().route("/", axum::routing::post(|_: Bytes| async { "posted" }));
        let (address, _stop, _serving) = listening(router, bounds).await;
        let mut slow = Vec::new();
        for _ in 0..100 {
            let mut stream = TcpStream::connect(address).await.unwrap();
            send(&mut stream, b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\nslow").await;
            slow.push(stream);
        }
        let mut client = TcpStream::connect(address).await.unwrap();
        send(&mut client, REQUEST).await;
        let answered = tokio::time::timeout(Duration::from_secs(30), rest(&mut client)).await;
        assert!(answered.unwrap().ends_with("hello"));
        // The last ones still have their places.
        let mut last = slow.pop().unwrap();
        send(&mut last, b" body").await;
        let mut answer = [0; 12];
        last.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"HTTP/1.1 200");
    }

    #[tokio::test]
    async fn a_connection_that_sends_no_head_in_time_is_closed() {
        let bounds = Bounds { connections: 16, head_timeout: Duration::from_millis(10) };
        let (address, _stop, _serving) = listening(hello(), bounds).await;
        let mut client = TcpStream::connect(address).await.unwrap();
        send(&mut client, b"GET / HTTP/1.1\r\nhost:").await;
        assert!(!rest(&mut client).await.contains("hello"));
    }

    #[tokio::test]
    async fn a_request_in_flight_is_not_given_up_for_a_new_connection() {
        let (arrived, release) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let router = held(&arrived, &release);
        let bounds = Bounds { connections: 1, head_timeout: Duration::from_hours(1) };
        let (address, _stop, _serving) = listening(router, bounds).await;
        let mut first = TcpStream::connect(address).await.unwrap();
        send(&mut first, REQUEST).await;
        arrived.notified().await;
        let mut second = TcpStream::connect(address).await.unwrap();
        send(&mut second, REQUEST).await;
        arrived.notified().await;
        release.notify_waiters();
        assert!(rest(&mut first).await.ends_with("hello"));
        assert!(rest(&mut second).await.ends_with("hello"));
    }

    #[tokio::test]
    async fn a_place_that_becomes_free_is_given_at_once_to_whoever_waits() {
        let (arrived, release) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let router = held(&arrived, &release);
        let bounds = Bounds { connections: 1, head_timeout: Duration::from_hours(1) };
        let (address, _stop, _serving) = listening(router, bounds).await;
        // The first two are busy when they are accepted, and would stay open.
        let mut clients = Vec::new();
        for _ in 0..2 {
            let mut client = TcpStream::connect(address).await.unwrap();
            send(&mut client, b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
            arrived.notified().await;
            clients.push(client);
        }
        let mut waiting = TcpStream::connect(address).await.unwrap();
        send(&mut waiting, REQUEST).await;
        release.notify_one();
        let served = tokio::time::timeout(Duration::from_secs(30), arrived.notified()).await;
        assert!(served.is_ok(), "no place is freed");
        assert!(rest(&mut clients[0]).await.ends_with("hello"));
        release.notify_waiters();
        assert!(rest(&mut waiting).await.ends_with("hello"));
    }

    /// A billed answer would be lost.
    #[tokio::test]
    async fn an_answer_that_is_not_sent_yet_is_not_cut_for_a_new_connection() {
        let bounds = Bounds { connections: 1, head_timeout: Duration::from_hours(1) };
        let (address, _stop, _serving) = listening(hello().route("/large", large()), bounds).await;
        let mut slow = stalled(address).await;
        let mut other = TcpStream::connect(address).await.unwrap();
        send(&mut other, REQUEST).await;
        assert!(rest(&mut other).await.ends_with("hello"));
        slow.read_exact(&mut vec![0; LARGE]).await.unwrap();
    }

    /// Sends a request for an answer that does not fit into the buffers of the system, and reads only its head.
    async fn stalled(address: SocketAddr) -> TcpStream {
        let mut client = TcpStream::connect(address).await.unwrap();
        send(&mut client, b"GET /large HTTP/1.1\r\nhost: x\r\n\r\n").await;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(client.read_u8().await.unwrap());
        }
        client
    }

    #[tokio::test]
    async fn a_client_that_does_not_take_its_answer_keeps_nobody_out_for_long() {
        let bounds = Bounds { connections: 1, head_timeout: Duration::from_hours(10_000) };
        let (address, _stop, _serving) = listening(hello().route("/large", large()), bounds).await;
        let _stalled = [stalled(address).await, stalled(address).await];
        let mut waiting = TcpStream::connect(address).await.unwrap();
        send(&mut waiting, REQUEST).await;
        tokio::time::pause();
        let time_passes = async {
            // The system may take a little more of an answer in between.
            for _ in 0..1000 {
                tokio::time::advance(STALL_TIMEOUT).await;
            }
            panic!("no place is freed");
        };
        tokio::select! {
            answer = rest(&mut waiting) => assert!(answer.ends_with("hello")),
            () = time_passes => {}
        }
    }

    #[tokio::test]
    async fn whoever_takes_no_answer_that_anybody_can_have_keeps_nobody_out() {
        let bounds = Bounds { connections: 1, head_timeout: Duration::from_hours(1) };
        let anybodys = get(|| async { Bytes::from(vec![b'x'; LARGE]) });
        let (address, _stop, _serving) = listening(hello().route("/large", anybodys), bounds).await;
        let _stalled = [stalled(address).await, stalled(address).await];
        let mut other = TcpStream::connect(address).await.unwrap();
        send(&mut other, REQUEST).await;
        let answered = tokio::time::timeout(Duration::from_secs(30), rest(&mut other)).await;
        assert!(answered.expect("no place is freed").ends_with("hello"));
    }

    #[tokio::test]
    async fn one_above_the_limit_leaves_once_it_is_served() {
        let (arrived, release) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let router = held(&arrived, &release).route("/hello", get(|| async { "hello" }));
        let bounds = Bounds { connections: 1, head_timeout: Duration::from_hours(1) };
        let (address, _stop, _serving) = listening(router, bounds).await;
        let mut busy = TcpStream::connect(address).await.unwrap();
        send(&mut busy, REQUEST).await;
        arrived.notified().await;
        let mut above = TcpStream::connect(address).await.unwrap();
        send(&mut above, b"GET /hello HTTP/1.1\r\nhost: x\r\n\r\n").await;
        let served = tokio::time::timeout(Duration::from_secs(30), rest(&mut above)).await;
        assert!(served.expect("it stays open").ends_with("hello"));
        release.notify_waiters();
        assert!(rest(&mut busy).await.ends_with("hello"));
    }

    #[tokio::test]
    async fn stopping_answers_what_is_in_flight_and_closes_what_is_idle() {
        let (arrived, release) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let router = held(&arrived, &release);
        let bounds = Bounds { connections: 16, head_timeout: Duration::from_hours(1) };
        let (address, stop, mut serving) = listening(router, bounds).await;
        let mut idle = TcpStream::connect(address).await.unwrap();
        let mut client = TcpStream::connect(address).await.unwrap();
        send(&mut client, REQUEST).await;
        arrived.notified().await;
        drop(stop);
        assert_eq!(rest(&mut idle).await, "");
        release.notify_waiters();
        assert!(rest(&mut client).await.ends_with("hello"));
        serving.join_next().await.unwrap().unwrap();
    }
}
