//! The lines for the host. What it does not read waits in memory, within a limit.

use std::{io, sync::Arc, time::Duration};

use rmcp::{RoleServer, service::TxJsonRpcMessage};
use tokio::{
    io::{AsyncWrite, AsyncWriteExt as _},
    sync::{Mutex, watch},
};

/// Size of unwritten lines from which no more requests are taken. Hosts that read at all have far fewer.
const MAX_UNWRITTEN: usize = 8 << 20;

/// Memory that each line takes beside its bytes, for the task that writes it.
const TASK_SIZE: usize = 1 << 10;

/// Longest wait at the end for a host that does not read.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Writes messages to `W`, one per line.
pub(super) struct Output<W> {
    writer: Arc<Mutex<W>>,
    /// Size of the lines that are not written yet.
    unwritten: watch::Sender<usize>,
}

/// A line that is counted until it is written or dropped.
struct Line {
    bytes: Vec<u8>,
    unwritten: watch::Sender<usize>,
}

impl<W: AsyncWrite + Send + Unpin + 'static> Output<W> {
    pub fn new(writer: W) -> Self {
        Self { writer: Arc::new(Mutex::new(writer)), unwritten: watch::Sender::new(0) }
    }

    /// Counts a message at once; the future writes it.
    pub fn send(
        &self,
        message: &TxJsonRpcMessage<RoleServer>,
    ) -> impl Future<Output = io::Result<()>> + Send + use<W> {
        let line = Line::new(message, &self.unwritten);
        let writer = self.writer.clone();
        async move {
            let line = line?;
            let mut writer = writer.lock().await;
            writer.write_all(&line.bytes).await?;
            writer.flush().await
        }
    }

    /// Waits until another request may be taken. Cancel-safe.
    pub async fn has_room(&self) {
        // Answers that are ready are counted first.
        tokio::task::yield_now().await;
        // It fails only without a sender.
        let _ = self.unwritten.subscribe().wait_for(|total| *total < MAX_UNWRITTEN).await;
    }

    pub async fn close(&self) -> io::Result<()> {
        // Whoever writes to a host that does not read holds the lock.
        let flush = async { self.writer.lock().await.flush().await };
        tokio::time::timeout(CLOSE_TIMEOUT, flush).await?
    }
}

impl Line {
    fn new(message: &TxJsonRpcMessage<RoleServer>, unwritten: &watch::Sender<usize>) -> io::Result<Self> {
        let mut bytes = serde_json::to_vec(message)?;
        bytes.push(b'\n');
        let line = Self { bytes, unwritten: unwritten.clone() };
        unwritten.send_modify(|total| *total += line.size());
        Ok(line)
    }

    fn size(&self) -> usize {
        self.bytes.len() + TASK_SIZE
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.unwritten.send_modify(|total| *total -= self.size());
    }
}
