//! Serves HTTP/1.1 with a limit on connections and a time-out for the head of each request, so that clients that
//! connect and stay silent cannot lock others out. `axum::serve` has neither.

use std::{
    convert::Infallible,
    net::SocketAddr,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    Router,
    body::{Body, HttpBody},
    extract::Request,
    response::Response,
};
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use hyper::{
    body::Incoming,
    server::conn::http1,
    service::{Service as _, service_fn},
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Notify,
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

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

/// Largest head of a request, in bytes, which is kept in memory before anybody is known.
const MAX_HEAD_BYTES: usize = 64 << 10;

/// Pause after the system failed to accept a connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// Serves `router` until `stopping` completes; then only requests in flight are answered. Dropping the future closes
/// every connection.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    bounds: Bounds,
    stopping: impl Future<Output = ()>,
) {
    let stop = CancellationToken::new();
    let mut tasks = JoinSet::new();
    let mut connections: Vec<Arc<Connection>> = Vec::new();
    let mut stopping = pin!(stopping);
    loop {
        tokio::select! {
            () = &mut stopping => break,
            Some(_) = tasks.join_next() => connections.retain(Connection::is_open),
            // One above the limit, to detect a client that waits for a slot.
            accepted = listener.accept(), if tasks.len() <= bounds.connections => match accepted {
                Ok((stream, peer)) => {
                    // Answers are short: none waits for the client's acknowledgement of the one before.
                    if let Err(error) = stream.set_nodelay(true) {
                        tracing::debug!(%error, "a connection keeps the system's delays");
                    }
                    if tasks.len() >= bounds.connections {
                        evict_idle(&mut connections);
                    }
                    let connection = Arc::new(Connection::default());
                    connections.push(Arc::clone(&connection));
                    let peer = Peer(peer);
                    tasks.spawn(connection.serve(stream, peer, router.clone(), bounds.head_timeout, stop.clone()));
                }
                Err(error) => {
                    // The process may have reached its limit of open files.
                    tracing::warn!(%error, "cannot accept a connection");
                    evict_idle(&mut connections);
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
    drop(listener);
    stop.cancel();
    while tasks.join_next().await.is_some() {}
}

/// Closes the oldest connection without a request.
fn evict_idle(connections: &mut Vec<Arc<Connection>>) {
    if let Some(idle) = connections.iter().position(|connection| !connection.is_busy()) {
        connections.remove(idle).evicted.notify_one();
    }
}

/// A connection, shared by the accepting loop and the connection's own task.
#[derive(Debug, Default)]
struct Connection {
    /// Whether a request has arrived completely and is in progress.
    busy: AtomicBool,
    /// Asks the task to close the connection, unless it is busy by then.
    evicted: Notify,
}

impl Connection {
    /// The task holds the other reference.
    fn is_open(this: &Arc<Self>) -> bool {
        Arc::strong_count(this) > 1
    }

    fn is_busy(&self) -> bool {
        self.busy.load(Ordering::Relaxed)
    }

    async fn serve(
        self: Arc<Self>,
        stream: TcpStream,
        peer: Peer,
        router: Router,
        head_timeout: Duration,
        stop: CancellationToken,
    ) {
        let router = TowerToHyperService::new(router);
        let service = service_fn(|mut request: Request<Incoming>| {
            request.extensions_mut().insert(peer);
            let in_flight = InFlight(Arc::clone(&self));
            let response = router.call(request.map(|body| RequestBody::new(body, Arc::clone(&self))));
            async move {
                let response: Response = response.await?;
                Ok::<_, Infallible>(response.map(|body| ResponseBody { body, _in_flight: in_flight }))
            }
        });
        let mut builder = http1::Builder::new();
        builder.timer(TokioTimer::new()).header_read_timeout(head_timeout).max_buf_size(MAX_HEAD_BYTES);
        let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
        let mut stopping = false;
        loop {
            // The connection does not run while the other branches are polled, so `busy` does not change there.
            tokio::select! {
                outcome = connection.as_mut() => {
                    if let Err(error) = outcome {
                        tracing::trace!(%error, "connection closed");
                    }
                    return;
                }
                () = stop.cancelled(), if !stopping => {
                    stopping = true;
                    if !self.is_busy() {
                        return;
                    }
                    connection.as_mut().graceful_shutdown();
                }
                () = self.evicted.notified() => if !self.is_busy() { return },
            }
        }
    }
}

/// Marks the connection as no longer busy when dropped.
struct InFlight(Arc<Connection>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.busy.store(false, Ordering::Relaxed);
    }
}

/// The body of a request. Its connection is busy once it has arrived completely, so that a client that never ends one
/// does not keep its place.
struct RequestBody {
    body: Incoming,
    connection: Arc<Connection>,
}

impl RequestBody {
    fn new(body: Incoming, connection: Arc<Connection>) -> Self {
        let this = Self { body, connection };
        this.note_the_end();
        this
    }

    fn note_the_end(&self) {
        if self.body.is_end_stream() {
            self.connection.busy.store(true, Ordering::Relaxed);
        }
    }
}

impl HttpBody for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        self.note_the_end();
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The body of a response; the connection is busy until it is sent.
struct ResponseBody {
    body: Body,
    _in_flight: InFlight,
}

impl HttpBody for ResponseBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use axum::routing::get;
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        sync::oneshot,
    };

    /// Starts a listener with `bounds`; dropping the sender stops it.
    async fn listening(router: Router, bounds: Bounds) -> (SocketAddr, oneshot::Sender<()>, JoinSet<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let mut serving = JoinSet::new();
        serving.spawn(serve(listener, router, bounds, async move {
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
