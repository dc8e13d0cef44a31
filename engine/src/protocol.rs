//! Frames between the handle and the worker: a length of four bytes (little endian), then one postcard value.
//! The socket is the child's standard input, used in both directions; its end means that the other side is gone.
//! Knows bytes and limits; must not know what a frame is for.

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::io::{Read, Write};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::request::{EngineStats, Event, Generation, LoadFailure, ModelFacts, Token};

/// The largest frame. A prompt of ten million tokens (three bytes each) and a text of 16 MiB still fit.
pub const FRAME_BYTES_MAX: usize = 32 << 20;

/// From the handle to the worker. Ids are chosen by the handle and never used twice.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum ToWorker {
    /// Run this generation.
    Start {
        /// Names the sequence in every later frame.
        id: u64,
        /// What to generate.
        generation: Generation,
    },
    /// Stop that sequence; unknown ids are ignored, since the end may have crossed this frame.
    Cancel {
        /// Which sequence.
        id: u64,
    },
    /// Turn text into tokens.
    Tokenize {
        /// Names the answer.
        id: u64,
        /// The text.
        text: String,
        /// Whether the text of a control token becomes that token.
        parse_special: bool,
    },
    /// Turn tokens into text.
    Detokenize {
        /// Names the answer.
        id: u64,
        /// The tokens.
        tokens: Vec<Token>,
    },
}

/// From the worker to the handle.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum FromWorker {
    /// The model is being loaded.
    Loading {
        /// 0..=100.
        percent: u8,
    },
    /// The model is loaded; everything before this frame was `Loading`.
    Ready(ModelFacts),
    /// The model can never be loaded. The worker exits after this frame.
    Failed(LoadFailure),
    /// What one step of the loop brought for all its sequences.
    Step {
        /// Outputs, in the order in which they happened.
        outputs: Vec<(u64, Output)>,
        /// The counters after this step, from time to time and whenever a sequence ends.
        stats: Option<EngineStats>,
    },
    /// Answer to `Tokenize`.
    Tokens {
        /// Of the question.
        id: u64,
        /// The tokens.
        tokens: Vec<Token>,
    },
    /// Answer to `Detokenize`.
    Text {
        /// Of the question.
        id: u64,
        /// The text; bytes that are no UTF-8 are replaced.
        text: String,
    },
    /// Answer to a call that cannot be served.
    Refused {
        /// Of the question.
        id: u64,
        /// Why.
        why: String,
    },
}

/// One thing that happened to one sequence.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Output {
    /// Progress or end.
    Event(Event),
    /// It was never begun.
    Rejected(String),
}

/// Why a frame could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The other side closed the socket between two frames.
    #[error("the other side closed the connection")]
    Closed,
    /// The frame would be, or claims to be, larger than allowed.
    #[error("a frame of {bytes} bytes exceeds the limit of {FRAME_BYTES_MAX}")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// The bytes are not a value of this protocol.
    #[error("a frame cannot be decoded")]
    Malformed(#[from] postcard::Error),
    /// The socket failed.
    #[error("the connection failed")]
    Io(#[from] std::io::Error),
}

/// One frame with its length in front.
pub fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, FrameError> {
    let mut bytes = postcard::to_extend(value, vec![0u8; 4])?;
    let length = bytes.len() - 4;
    bytes[..4].copy_from_slice(&checked_length(length)?.to_le_bytes());
    Ok(bytes)
}

/// The value of a frame's body.
pub fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T, FrameError> {
    Ok(postcard::from_bytes(body)?)
}

/// Reads one frame; blocks.
pub fn read_frame<T: DeserializeOwned>(source: &mut impl Read) -> Result<T, FrameError> {
    let mut prefix = [0u8; 4];
    source.read_exact(&mut prefix).map_err(closed_or_io)?;
    let mut body = vec![0u8; allowed_length(prefix)?];
    source.read_exact(&mut body).map_err(closed_or_io)?;
    decode(&body)
}

/// Writes one frame; blocks.
pub fn write_frame<T: Serialize>(sink: &mut impl Write, value: &T) -> Result<(), FrameError> {
    Ok(sink.write_all(&encode(value)?)?)
}

/// Reads one frame. Not safe to cancel half way: a reader that gives up must close the connection.
pub async fn receive<T: DeserializeOwned>(source: &mut (impl AsyncRead + Unpin)) -> Result<T, FrameError> {
    let mut prefix = [0u8; 4];
    source.read_exact(&mut prefix).await.map_err(closed_or_io)?;
    let mut body = vec![0u8; allowed_length(prefix)?];
    source.read_exact(&mut body).await.map_err(closed_or_io)?;
    decode(&body)
}

/// Writes one frame.
pub async fn send<T: Serialize>(sink: &mut (impl AsyncWrite + Unpin), value: &T) -> Result<(), FrameError> {
    Ok(sink.write_all(&encode(value)?).await?)
}

fn checked_length(bytes: usize) -> Result<u32, FrameError> {
    if bytes > FRAME_BYTES_MAX {
        return Err(FrameError::TooLarge { bytes });
    }
    Ok(u32::try_from(bytes).expect("the limit is far below four GiB"))
}

fn allowed_length(prefix: [u8; 4]) -> Result<usize, FrameError> {
    let bytes = u32::from_le_bytes(prefix) as usize;
    if bytes > FRAME_BYTES_MAX { Err(FrameError::TooLarge { bytes }) } else { Ok(bytes) }
}

fn closed_or_io(error: std::io::Error) -> FrameError {
    match error.kind() {
        std::io::ErrorKind::UnexpectedEof | std::io::ErrorKind::ConnectionReset => FrameError::Closed,
        _ => FrameError::Io(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_frame_survives_the_way_there_and_back() {
        let frame = ToWorker::Tokenize { id: 7, text: "a river".into(), parse_special: true };
        let bytes = encode(&frame).unwrap();
        assert_eq!(read_frame::<ToWorker>(&mut bytes.as_slice()).unwrap(), frame);
    }

    #[test]
    fn a_length_above_the_limit_is_refused_before_memory_is_taken() {
        let bytes = u32::MAX.to_le_bytes();
        let result = read_frame::<ToWorker>(&mut bytes.as_slice());
        assert!(matches!(result, Err(FrameError::TooLarge { bytes }) if bytes == u32::MAX as usize));
    }

    #[test]
    fn the_end_of_the_connection_is_told_from_a_broken_one() {
        assert!(matches!(read_frame::<ToWorker>(&mut [].as_slice()), Err(FrameError::Closed)));
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode::<ToWorker>(&bytes);
            let _ = decode::<FromWorker>(&bytes);
        }
    }
}
