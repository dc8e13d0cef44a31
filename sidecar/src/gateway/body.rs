//! Reads a request's body, whole and within limits: it must be there to be sent again.

use std::sync::Arc;
use std::time::Duration;

use http_body::Body;
use http_body_util::BodyExt;
use hyper::body::{Bytes, Incoming};
use hyper::{HeaderMap, header};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::http::discard::{BODY_WITHIN, discard};
use crate::http::{ApiError, BODY_BYTES_MAX};

/// When there is probably room for another body: most are sent on within milliseconds.
const ROOM_SOON: Duration = Duration::from_secs(1);

/// A body, with the room that it takes among those of all requests.
#[derive(Debug)]
pub struct Held {
    /// The bytes.
    pub bytes: Bytes,
    /// Given back when the body is no more needed.
    pub room: Option<OwnedSemaphorePermit>,
}

/// Reads to the end. Bodies of known length that came with their head take no timer.
pub async fn read(headers: &HeaderMap, mut body: Incoming, room: &Arc<Semaphore>) -> Result<Held, ApiError> {
    if body.is_end_stream() {
        return Ok(Held { bytes: Bytes::new(), room: None });
    }
    let announced = body.size_hint().exact();
    let outcome = match announced {
        Some(length) if length > BODY_BYTES_MAX as u64 => Err(ApiError::BodyTooLarge),
        _ => match tokio::time::timeout(BODY_WITHIN, whole(&mut body, announced, room)).await {
            Ok(outcome) => outcome,
            Err(_) => return Err(ApiError::BodyTooSlow),
        },
    };
    // A client that waits for our consent has not begun to write.
    if outcome.is_err() && !headers.contains_key(header::EXPECT) {
        discard(body).await;
    }
    outcome
}

async fn whole(body: &mut Incoming, announced: Option<u64>, room: &Arc<Semaphore>) -> Result<Held, ApiError> {
    let mut taken = announced.map(|bytes| take(room, bytes)).transpose()?;
    let mut first = Bytes::new();
    let mut rest = Vec::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|_| ApiError::BodyUnreadable)?.into_data() else { continue };
        if first.len() + rest.len() + data.len() > BODY_BYTES_MAX {
            return Err(ApiError::BodyTooLarge);
        }
        if announced.is_none() {
            let more = take(room, data.len() as u64)?;
            match &mut taken {
                Some(taken) => taken.merge(more),
                None => taken = Some(more),
            }
        }
        if first.is_empty() {
            first = data;
        } else {
            rest.extend_from_slice(&data);
        }
    }
    if rest.is_empty() {
        return Ok(Held { bytes: first, room: taken });
    }
    Ok(Held { bytes: Bytes::from([&first, rest.as_slice()].concat()), room: taken })
}

fn take(room: &Arc<Semaphore>, bytes: u64) -> Result<OwnedSemaphorePermit, ApiError> {
    let kib = u32::try_from(bytes.div_ceil(1 << 10)).unwrap_or(u32::MAX);
    let full =
        |_| ApiError::QueueFull { which: "bytes of all requests at the gateway", retry_after: ROOM_SOON };
    room.clone().try_acquire_many_owned(kib).map_err(full)
}
