//! One connection of a listener, and whether it may be closed for another one.

use std::{
    convert::Infallible,
    io::{self, IoSlice},
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
use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    sync::Notify,
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::{Keep, Peer};

/// Largest head of a request, in bytes, which is kept in memory before anybody is known.
const MAX_HEAD_BYTES: usize = 64 << 10;

/// How long a client may take nothing of an answer that waits to be sent. Then its connection may be closed for another.
/// The system tells of progress only in steps of about a megabyte, for which a slow client needs a minute.
pub(super) const STALL_TIMEOUT: Duration = Duration::from_mins(2);

/// A connection, shared by the accepting loop and the connection's own task.
#[derive(Debug)]
pub(super) struct Connection {
    /// Whether a request has arrived completely and is in progress.
    busy: AtomicBool,
    /// Whether an answer is complete, but not sent: hyper drops its body as soon as it has all of it.
    unsent: AtomicBool,
    /// Whether such an answer is one to [`Keep`].
    keeps: AtomicBool,
    /// Whether a request was answered.
    served: AtomicBool,
    /// Since when the client has taken nothing of what waits to be sent.
    blocked_since: Mutex<Option<Instant>>,
    /// Whether the task was asked to close the connection.
    leaving: AtomicBool,
    /// Asks the task to close the connection, unless it is busy by then.
    evicted: Notify,
    /// Tells the accepting loop that a connection is idle.
    freed: Arc<Notify>,
}

impl Connection {
    pub fn new(freed: Arc<Notify>) -> Self {
        let [busy, unsent, keeps, served, leaving] = Default::default();
        let blocked_since = Mutex::default();
        Self { busy, unsent, keeps, served, blocked_since, leaving, evicted: Notify::new(), freed }
    }

    /// The task holds the other reference.
    pub fn is_open(this: &Arc<Self>) -> bool {
        Arc::strong_count(this) > 1
    }

    pub fn is_leaving(&self) -> bool {
        self.leaving.load(Ordering::Relaxed)
    }

    /// Whether it can be evicted, and is not yet.
    pub fn is_idle(&self) -> bool {
        !self.is_busy() && !self.is_leaving()
    }

    /// Whether its client has had an answer, or does not take it.
    pub fn is_served(&self) -> bool {
        self.served.load(Ordering::Relaxed) || self.is_stalled()
    }

    pub fn evict(&self) {
        self.leaving.store(true, Ordering::Relaxed);
        self.evicted.notify_one();
    }

    /// Whether it is not to be closed for another one. An answer to anybody does not count: who takes none of it would
    /// keep others out.
    fn is_busy(&self) -> bool {
        let has_work = self.busy.load(Ordering::Relaxed) || self.keeps.load(Ordering::Relaxed);
        has_work && !self.is_stalled()
    }

    /// Whether a request is in progress, or its answer is not sent.
    fn has_work(&self) -> bool {
        self.busy.load(Ordering::Relaxed) || self.unsent.load(Ordering::Relaxed)
    }

    fn is_stalled(&self) -> bool {
        let blocked_since = *self.blocked_since.lock();
        blocked_since.is_some_and(|since| since.elapsed() >= STALL_TIMEOUT)
    }

    /// Notes whether the client takes what is sent.
    fn note_write(&self, written: &Poll<io::Result<usize>>) {
        let mut blocked_since = self.blocked_since.lock();
        if written.is_ready() {
            *blocked_since = None;
        } else {
            blocked_since.get_or_insert_with(Instant::now);
        }
    }

    pub async fn serve(
        self: Arc<Self>,
        stream: std::net::TcpStream,
        peer: Peer,
        router: Router,
        head_timeout: Duration,
        stop: CancellationToken,
    ) {
        let stream = match TcpStream::from_std(stream) {
            Ok(stream) => stream,
            Err(error) => {
                tracing::warn!(%error, "cannot serve a connection");
                return;
            }
        };
        let router = TowerToHyperService::new(router);
        let service = service_fn(|mut request: Request<Incoming>| {
            request.extensions_mut().insert(peer);
            let mut in_flight = InFlight { connection: Arc::clone(&self), keeps: false };
            let response = router.call(request.map(|body| RequestBody::new(body, Arc::clone(&self))));
            async move {
                let response: Response = response.await?;
                in_flight.keeps = response.extensions().get::<Keep>().is_some();
                Ok::<_, Infallible>(response.map(|body| ResponseBody { body, _in_flight: in_flight }))
            }
        });
        let mut builder = http1::Builder::new();
        builder.timer(TokioTimer::new()).header_read_timeout(head_timeout).max_buf_size(MAX_HEAD_BYTES);
        let mut connection = pin!(
            builder.serve_connection(TokioIo::new(Socket { stream, connection: Arc::clone(&self) }), service)
        );
        let mut stopping = false;
        loop {
            // The connection does not run while the other branches are polled, so it does not become busy there.
            tokio::select! {
                outcome = connection.as_mut() => {
                    if let Err(error) = outcome {
                        tracing::trace!(%error, "connection closed");
                    }
                    return;
                }
                () = stop.cancelled(), if !stopping => {
                    stopping = true;
                    if !self.has_work() {
                        return;
                    }
                    connection.as_mut().graceful_shutdown();
                }
                () = self.evicted.notified() => {
                    if !self.is_busy() {
                        return;
                    }
                    self.leaving.store(false, Ordering::Relaxed);
                    // Another one may be idle.
                    self.freed.notify_one();
                }
            }
        }
    }
}

/// Marks the request as answered when dropped.
struct InFlight {
    connection: Arc<Connection>,
    keeps: bool,
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let connection = &self.connection;
        connection.unsent.store(true, Ordering::Relaxed);
        // Those before it may not be sent either.
        connection.keeps.fetch_or(self.keeps, Ordering::Relaxed);
        connection.served.store(true, Ordering::Relaxed);
        connection.busy.store(false, Ordering::Relaxed);
        if !connection.is_busy() {
            connection.freed.notify_one();
        }
    }
}

/// The stream of a connection, which notes whether the client takes what is sent, and when everything is.
struct Socket {
    stream: TcpStream,
    connection: Arc<Connection>,
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.connection.note_write(&written);
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, bytes);
        self.connection.note_write(&written);
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    /// hyper flushes once it has written all that it has.
    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        if flushed.is_ready() && self.connection.unsent.swap(false, Ordering::Relaxed) {
            self.connection.keeps.store(false, Ordering::Relaxed);
            self.connection.freed.notify_one();
        }
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
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

/// The body of a response, until hyper has all of it.
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
