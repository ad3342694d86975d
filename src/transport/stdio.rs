//! MCP over stdin and stdout, for a host on the same machine. It ends when stdin closes or shutdown is requested.

use std::{io, time::Duration};

use rmcp::{ServiceExt as _, service::ServerInitializeError};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;

use super::lines::LineTransport;
use crate::{account::Owner, mcp::BondMcp};

/// Time for which calls in flight may still answer after stdin has closed, as for requests from a pipe. rmcp (3.11) stops
/// sending answers after 5 s; a call that is ended here is still answered.
const SHUTDOWN_GRACE_PERIOD: Duration = Duration::from_secs(4);

/// Serves `server` to `owner` until `input` ends or `stopping` is cancelled; then calls in flight are ended.
pub async fn serve<R, W>(
    server: BondMcp,
    owner: Owner,
    input: R,
    output: W,
    stopping: CancellationToken,
) -> io::Result<()>
where
    R: AsyncRead + Send + Unpin + 'static,
    W: AsyncWrite + Send + Unpin + 'static,
{
    let ended = CancellationToken::new();
    let transport = LineTransport::new(owner, input, output, ended.clone());
    let stop = stopping.clone();
    let watch = tokio::spawn(async move {
        ended.cancelled().await;
        tokio::time::sleep(SHUTDOWN_GRACE_PERIOD).await;
        stop.cancel();
    });
    let serving = async {
        let running = tokio::select! {
            running = server.serve_with_ct(transport, stopping.clone()) => running,
            () = stopping.cancelled() => return Ok(()),
        };
        match running {
            Ok(running) => running.waiting().await.map(|_| ()).map_err(io::Error::other),
            // The host only probed the server, or it is stopped.
            Err(ServerInitializeError::ConnectionClosed(_) | ServerInitializeError::Cancelled) => Ok(()),
            Err(ServerInitializeError::TransportError { .. }) => {
                Err(io::Error::other("the host does not read what it asked for"))
            }
            // rmcp's own words would quote the message.
            Err(_) => Err(io::Error::other("the host did not begin with a valid MCP `initialize`")),
        }
    };
    let outcome = serving.await;
    watch.abort();
    outcome
}
