//! A body that nobody wants.

use std::time::Duration;

use axum::body::Bytes;
use http_body::Body;
use http_body_util::BodyExt;

use super::BODY_BYTES_MAX;

/// A body of the largest size over a slow line of 2 Mbit/s takes half of this.
pub const BODY_WITHIN: Duration = Duration::from_secs(60);

/// Reads a body for nothing: a client that is still writing when the connection closes never sees the answer. Bodies
/// far beyond the limit are not worth that.
pub async fn discard<B: Body<Data = Bytes> + Unpin>(mut body: B) {
    let reading = async {
        let mut bytes = 0;
        while let Some(Ok(frame)) = body.frame().await {
            bytes += frame.data_ref().map_or(0, Bytes::len);
            if bytes > BODY_BYTES_MAX {
                break;
            }
        }
    };
    // Whether it came in time makes no difference to what is answered.
    drop(tokio::time::timeout(BODY_WITHIN, reading).await);
}
