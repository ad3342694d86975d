//! Bodies of requests, read within limits of size and time.

use std::time::Duration;

use axum::body::{Body, BodyDataStream, Bytes, HttpBody as _, to_bytes};
use bytes::BytesMut;
use futures_util::StreamExt as _;
use http::StatusCode;
use tokio::time::timeout;

use super::shares::{Share, Shares};
use crate::{
    account::Owner,
    json_size::{MAX_PARSED_BYTES, parsed_bytes, parsed_bytes_at_most},
};

/// Largest accepted body of a request to `/mcp`, in bytes.
pub const MAX_BODY_BYTES: usize = 4 << 20;

/// Largest body that is not counted, in bytes: most requests are smaller. Connections are limited.
const FREE_BYTES: usize = 16 << 10;

/// The unit in which the others are counted, in bytes.
const UNIT_BYTES: usize = 16 << 10;

/// Limits on the bodies of all requests in work, and of those of one person, in units: four of the largest, and two.
const UNITS: usize = 4 * MAX_BODY_BYTES / UNIT_BYTES;
const UNITS_PER_PERSON: usize = UNITS / 2;

/// How many bytes a body may take once it is parsed for each byte that it counts.
const PARSED_PER_BYTE: usize = 8;

/// Longest wait for units.
const UNITS_TIMEOUT: Duration = Duration::from_secs(10);

/// Longest wait for a complete body. There is no time-out afterwards: a call has its own deadline, and an aborted response
/// would not say whether the call was billed.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// Longest wait for the rest of a body that is not kept: short, as anybody can send one.
const DISCARD_TIMEOUT: Duration = Duration::from_secs(5);

/// Why a body was not accepted.
pub(super) type Refusal = (StatusCode, &'static str);

const TOO_LARGE: Refusal = (StatusCode::PAYLOAD_TOO_LARGE, "the request's body is too large");
const TOO_DENSE: Refusal = (StatusCode::PAYLOAD_TOO_LARGE, "the request has too many values");
const TOO_SLOW: Refusal = (StatusCode::REQUEST_TIMEOUT, "the request's body took too long");
const INCOMPLETE: Refusal = (StatusCode::BAD_REQUEST, "the request's body is incomplete");
const TOO_MANY: Refusal =
    (StatusCode::SERVICE_UNAVAILABLE, "too many large requests are in work; try again later");

/// The memory for bodies of requests.
#[derive(Debug)]
pub(super) struct BodyMemory(Shares);

/// A body, and its share of the memory, which is to be kept until the request is answered.
#[derive(Debug)]
pub(super) struct CountedBody {
    pub bytes: Bytes,
    pub share: Option<Share>,
}

impl BodyMemory {
    pub fn new() -> Self {
        Self(Shares::new(UNITS, UNITS_PER_PERSON))
    }

    /// Reads the body of a request of `owner`. Its share of the memory is taken before it fills that. As long as its
    /// length is not known, it counts as one of the largest.
    pub async fn read(&self, owner: &Owner, body: Body) -> Result<CountedBody, Refusal> {
        let CountedBody { bytes, share } = self.read_any(owner, body).await?;
        let is_free = |parsed: usize| parsed / PARSED_PER_BYTE <= bytes.len().max(FREE_BYTES);
        if is_free(parsed_bytes_at_most(&bytes)) {
            return Ok(CountedBody { bytes, share });
        }
        let parsed = parsed_bytes(&bytes);
        if parsed > MAX_PARSED_BYTES {
            return Err(TOO_DENSE);
        }
        // A body that is many times as large once it is parsed counts for more.
        if is_free(parsed) {
            return Ok(CountedBody { bytes, share });
        }
        drop(share);
        // Without a wait: from here the connection is busy, and each of a person's would be while it waits.
        let units = units_of(parsed / PARSED_PER_BYTE).ok_or(TOO_LARGE)?;
        let share = Some(self.0.try_take(owner, units).ok_or(TOO_MANY)?);
        Ok(CountedBody { bytes, share })
    }

    async fn read_any(&self, owner: &Owner, body: Body) -> Result<CountedBody, Refusal> {
        let size = body.size_hint().exact().map(|size| usize::try_from(size).unwrap_or(usize::MAX));
        // Most bodies: they are not copied.
        if size.is_some_and(|size| size <= FREE_BYTES) {
            let bytes = timeout(BODY_TIMEOUT, to_bytes(body, FREE_BYTES)).await.map_err(|_| TOO_SLOW)?;
            return Ok(CountedBody { bytes: bytes.map_err(|_| INCOMPLETE)?, share: None });
        }
        let mut chunks = body.into_data_stream();
        let read = timeout(BODY_TIMEOUT, self.read_counted(owner, size, &mut chunks)).await;
        match read {
            Ok(Ok(body)) => Ok(body),
            Ok(Err(refusal)) => {
                discard(chunks, MAX_BODY_BYTES).await;
                Err(refusal)
            }
            Err(_) => Err(TOO_SLOW),
        }
    }

    async fn read_counted(
        &self,
        owner: &Owner,
        size: Option<usize>,
        chunks: &mut BodyDataStream,
    ) -> Result<CountedBody, Refusal> {
        let (mut read, mut share) = (BytesMut::new(), None);
        if let Some(size) = size.filter(|size| *size > FREE_BYTES) {
            share = Some(self.take(owner, size).await?);
        }
        while let Some(chunk) = chunks.next().await {
            read.extend_from_slice(&chunk.map_err(|_| INCOMPLETE)?);
            if read.len() > MAX_BODY_BYTES {
                return Err(TOO_LARGE);
            }
            if read.len() > FREE_BYTES && share.is_none() {
                share = Some(self.take(owner, MAX_BODY_BYTES).await?);
            }
        }
        if let Some(share) = &mut share {
            share.shrink_to(read.len().div_ceil(UNIT_BYTES));
        }
        Ok(CountedBody { bytes: read.freeze(), share })
    }

    async fn take(&self, owner: &Owner, bytes: usize) -> Result<Share, Refusal> {
        let units = units_of(bytes).ok_or(TOO_LARGE)?;
        timeout(UNITS_TIMEOUT, self.0.take(owner, units)).await.ok().flatten().ok_or(TOO_MANY)
    }
}

/// Returns how many units a body counts for, or `None` if it is too large.
fn units_of(bytes: usize) -> Option<u32> {
    u32::try_from(bytes.div_ceil(UNIT_BYTES)).ok().filter(|_| bytes <= MAX_BODY_BYTES)
}

/// Reads a small body.
pub(super) async fn read_body(body: Body, max_bytes: usize) -> Result<Bytes, Refusal> {
    match timeout(BODY_TIMEOUT, to_bytes(body, max_bytes)).await {
        Ok(Ok(body)) => Ok(body),
        // Or the client has disconnected and does not receive this.
        Ok(Err(_)) => Err(TOO_LARGE),
        Err(_) => Err(TOO_SLOW),
    }
}

/// Reads a body without keeping it, before its request is refused: a connection whose request was not read is closed, and
/// a client that is still sending sees that and not the answer. Returns `false` if the body is larger than `max_bytes`,
/// takes too long or is incomplete.
pub(super) async fn discard(mut chunks: BodyDataStream, max_bytes: usize) -> bool {
    let reading = async {
        let mut left = max_bytes;
        while let Some(chunk) = chunks.next().await {
            let Some(rest) = chunk.ok().and_then(|chunk| left.checked_sub(chunk.len())) else { return false };
            left = rest;
        }
        true
    };
    timeout(DISCARD_TIMEOUT, reading).await.unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    fn objects(count: usize) -> String {
        format!("[{}0]", r#"{"":0},"#.repeat(count))
    }

    #[tokio::test]
    async fn a_body_counts_for_what_it_takes_once_it_is_parsed() {
        let (memory, owner) = (BodyMemory::new(), Owner::Subject("ada".into()));
        let read = async |text: String| memory.read(&owner, Body::from(text)).await;
        assert!(read("x".repeat(FREE_BYTES)).await.unwrap().share.is_none());
        assert!(read(objects(10)).await.unwrap().share.is_none());
        // Less than is free, but not once it is parsed.
        assert!(read(objects(2000)).await.unwrap().share.is_some());
        assert_eq!(read(objects(100_000)).await.unwrap_err(), TOO_DENSE);
    }

    /// Their connections are busy, and would be as long as they waited.
    #[tokio::test]
    async fn complete_bodies_of_one_person_wait_for_nothing() {
        let (memory, owner) = (BodyMemory::new(), Owner::Subject("ada".into()));
        let read = |text: String| memory.read(&owner, Body::from(text)).now_or_never().unwrap();
        let held: Vec<_> = (0..2).map(|_| read("x".repeat(MAX_BODY_BYTES)).unwrap()).collect();
        for _ in 0..10 {
            assert_eq!(read(objects(2000)).unwrap_err(), TOO_MANY);
        }
        drop(held);
        assert!(read(objects(2000)).unwrap().share.is_some());
    }
}
