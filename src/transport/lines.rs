//! JSON-RPC messages as lines (MCP 2026-07-28, "stdio"), in place of rmcp's `AsyncRwTransport`. That one (3.11) limits
//! a line as well, but answers neither a malformed nor an over-long one, refuses a request with wrong parameters
//! without its id, so that the host waits forever, and ends the server on a notification before the first request.

use std::io;

use rmcp::{
    ErrorData, RoleServer,
    model::{
        ClientRequest, ErrorCode, GetExtensions as _, GetMeta as _, JsonRpcMessage, ProtocolVersion,
        RequestId,
    },
    service::{RxJsonRpcMessage, TxJsonRpcMessage},
    transport::Transport,
};
use serde::{Deserialize, de::IgnoredAny};
use serde_json::{Value, error::Category};
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncWrite, BufReader};
use tokio_util::sync::CancellationToken;

use super::output::Output;
use crate::{account::Owner, json_size::is_parsable, oauth::Scopes};

/// Longest accepted line, in bytes.
pub(super) const MAX_LINE_BYTES: usize = 4 << 20;

/// Reads messages from `R` and writes messages to `W`, one per line.
pub(super) struct LineTransport<R, W> {
    /// The owner of all requests.
    owner: Owner,
    input: BufReader<R>,
    /// The line so far; it is kept when a `receive` is dropped.
    line: Vec<u8>,
    /// Whether the rest of an over-long line is being skipped.
    skipping: bool,
    /// What was read and is not handled yet; it is kept as well.
    ahead: Option<Read>,
    output: Output<W>,
    /// Whether a request was received with which rmcp's handshake ends: before that it accepts nothing but requests.
    opened: bool,
    /// Cancelled when the input ends.
    ended: CancellationToken,
}

/// The result of reading a line.
#[derive(Clone, Copy)]
enum Read {
    Line,
    TooLong,
    End,
}

impl<R, W> LineTransport<R, W>
where
    R: AsyncRead + Send + Unpin + 'static,
    W: AsyncWrite + Send + Unpin + 'static,
{
    pub fn new(owner: Owner, input: R, output: W, ended: CancellationToken) -> Self {
        Self {
            owner,
            input: BufReader::new(input),
            line: Vec::new(),
            skipping: false,
            ahead: None,
            output: Output::new(output),
            opened: false,
            ended,
        }
    }

    /// Fills `self.line` with the next line. Cancel-safe: there is no await between taking bytes and storing them.
    async fn read(&mut self) -> io::Result<Read> {
        loop {
            let available = self.input.fill_buf().await?;
            if available.is_empty() {
                return Ok(Read::End);
            }
            let newline = available.iter().position(|&byte| byte == b'\n');
            let taken = newline.map_or(available.len(), |at| at + 1);
            let fits = self.line.len() + taken <= MAX_LINE_BYTES;
            if fits && !self.skipping {
                self.line.extend_from_slice(&available[..taken]);
            }
            self.input.consume(taken);
            match (newline.is_some(), std::mem::take(&mut self.skipping)) {
                (true, true) => {}
                (false, true) => self.skipping = true,
                (true, false) if fits => return Ok(Read::Line),
                (false, false) if fits => {}
                (ended, false) => {
                    self.skipping = !ended;
                    return Ok(Read::TooLong);
                }
            }
        }
    }

    /// Refuses what was read. The write is not awaited, so that a dropped `receive` cannot leave a partial line on the
    /// output.
    fn refuse(&self, error: ErrorData, id: Option<RequestId>) {
        // The host is told. It may send many, and not read stderr.
        tracing::debug!(reason = %error.message, "a message on stdin was refused");
        tokio::spawn(self.output.send(&TxJsonRpcMessage::<RoleServer>::error(error, id)));
    }

    /// Parses the message in `self.line`; `None` if there is nothing to pass on.
    fn parse(&mut self) -> Option<RxJsonRpcMessage<RoleServer>> {
        let line = self.line.trim_ascii();
        if line.is_empty() {
            return None;
        }
        if !is_parsable(line) {
            self.refuse_dense(line);
            return None;
        }
        match serde_json::from_slice(line) {
            Ok(message) => Some(message),
            Err(error) if error.classify() == Category::Data => {
                self.refuse_shape();
                None
            }
            Err(_) => {
                self.refuse(ErrorData::parse_error("the line is not valid JSON", None), None);
                None
            }
        }
    }

    /// Refuses a message that is not parsed because of the memory that it would take; a notification is ignored.
    fn refuse_dense(&self, line: &[u8]) {
        #[derive(Deserialize)]
        struct Head {
            id: Option<RequestId>,
            method: Option<IgnoredAny>,
        }
        let head = serde_json::from_slice(line).unwrap_or(Head { id: None, method: None });
        if head.id.is_some() || head.method.is_none() {
            let reason = "the message has too many values";
            self.refuse(ErrorData::new(ErrorCode::INVALID_REQUEST, reason, None), head.id);
        }
    }

    /// Handles JSON that is not a known message: a request is refused under its id, a notification is ignored.
    fn refuse_shape(&self) {
        let value: Value = serde_json::from_slice(&self.line).unwrap_or_default();
        let id = value.get("id").and_then(|id| serde_json::from_value(id.clone()).ok());
        match (value.get("method").is_some(), id) {
            (true, None) => tracing::debug!("a notification that is not understood was ignored"),
            (true, id) => {
                self.refuse(ErrorData::invalid_params("invalid parameters", None), id);
            }
            (false, id) => {
                self.refuse(ErrorData::invalid_request("not a JSON-RPC 2.0 message", None), id);
            }
        }
    }
}

impl<R, W> Transport<RoleServer> for LineTransport<R, W>
where
    R: AsyncRead + Send + Unpin + 'static,
    W: AsyncWrite + Send + Unpin + 'static,
{
    type Error = io::Error;

    fn send(
        &mut self,
        message: TxJsonRpcMessage<RoleServer>,
    ) -> impl Future<Output = io::Result<()>> + Send + 'static {
        self.output.send(&message)
    }

    async fn receive(&mut self) -> Option<RxJsonRpcMessage<RoleServer>> {
        loop {
            let read = match self.ahead {
                Some(read) => read,
                None => self.read().await.unwrap_or(Read::End),
            };
            self.ahead = Some(read);
            if matches!(read, Read::End) {
                self.ended.cancel();
                return None;
            }
            // A host that does not read its answers is not read: its requests wait in the pipe. One line is read ahead,
            // so that the end of the input is noticed even then, unless more requests precede it.
            self.output.has_room().await;
            self.ahead = None;
            if matches!(read, Read::TooLong) {
                self.line.clear();
                let limit = format!("the line is longer than {} MiB", MAX_LINE_BYTES >> 20);
                self.refuse(ErrorData::new(ErrorCode::INVALID_REQUEST, limit, None), None);
                continue;
            }
            let mut message = self.parse();
            self.line.clear();
            match &mut message {
                Some(JsonRpcMessage::Request(request)) => {
                    // From here `mcp` takes whose request it is and what it may use.
                    request.request.extensions_mut().insert(self.owner.clone());
                    request.request.extensions_mut().insert(Scopes::all());
                    self.opened |= ends_handshake(&request.request);
                }
                Some(_) if self.opened => {}
                Some(_) => {
                    tracing::debug!("a message before the first request was ignored");
                    continue;
                }
                None => continue,
            }
            return message;
        }
    }

    async fn close(&mut self) -> io::Result<()> {
        self.output.close().await
    }
}

/// Whether rmcp takes this request as the first one of the host, and not as one that precedes it. All versions that it
/// knows are served.
fn ends_handshake(request: &ClientRequest) -> bool {
    match request {
        ClientRequest::InitializeRequest(_) => true,
        ClientRequest::PingRequest(_) | ClientRequest::DiscoverRequest(_) => false,
        request => {
            let meta = request.get_meta();
            let is_known = |version| ProtocolVersion::KNOWN_VERSIONS.contains(&version);
            meta.missing_required_keys(&ProtocolVersion::V_2026_07_28).is_empty()
                && meta.protocol_version().is_some_and(is_known)
        }
    }
}
