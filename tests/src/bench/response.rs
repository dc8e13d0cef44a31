//! Reads an HTTP/1.1 response as it arrives, without keeping it: only what a measurement needs is noted.

use anyhow::{Context as _, Result, bail, ensure};

/// Longest head that is read, in bytes; routers add a handful of headers to a handful.
const HEAD_BYTES_MAX: usize = 8 * 1024;

/// How many of the last bytes of a body are kept: enough for `data: [DONE]\n\n`.
const TAIL_BYTES: usize = 14;

/// A response being read.
#[derive(Debug, Default)]
pub struct Response {
    state: State,
    line: Vec<u8>,
    status: u16,
    payload_bytes: u64,
    tail: Vec<u8>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    #[default]
    Head,
    /// So many bytes of a body of known length, or of a chunk, are left.
    Body(u64),
    ChunkSize,
    Chunk(u64),
    ChunkEnd,
    Trailers,
    Done,
}

impl Response {
    /// Takes the next bytes.
    ///
    /// # Errors
    /// What is not HTTP, and bytes after the response's end.
    pub fn feed(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            match self.state {
                State::Done => bail!("{} bytes after the response's end", bytes.len()),
                State::Body(left) | State::Chunk(left) => {
                    let taken = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
                    self.keep(&bytes[..taken]);
                    bytes = &bytes[taken..];
                    self.state = self.after_payload(left - taken as u64);
                }
                State::Head | State::ChunkSize | State::ChunkEnd | State::Trailers => {
                    let (line_part, is_whole) = match bytes.iter().position(|byte| *byte == b'\n') {
                        Some(end) => (&bytes[..=end], true),
                        None => (bytes, false),
                    };
                    self.line.extend_from_slice(line_part);
                    ensure!(self.line.len() <= HEAD_BYTES_MAX, "a head of more than {HEAD_BYTES_MAX} bytes");
                    bytes = &bytes[line_part.len()..];
                    if is_whole {
                        self.end_of_line()?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Whether the response has ended.
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// The status; 0 until the head has been read.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// Bytes of the body so far, without its framing.
    pub fn payload_bytes(&self) -> u64 {
        self.payload_bytes
    }

    /// Whether the body so far ends as a complete stream of events does.
    pub fn ends_with_done(&self) -> bool {
        self.tail == b"data: [DONE]\n\n"
    }

    fn after_payload(&self, left: u64) -> State {
        match (self.state, left) {
            (State::Body(_), 0) => State::Done,
            (State::Body(_), left) => State::Body(left),
            (_, 0) => State::ChunkEnd,
            (_, left) => State::Chunk(left),
        }
    }

    fn keep(&mut self, payload: &[u8]) {
        self.payload_bytes += payload.len() as u64;
        self.tail.extend_from_slice(&payload[payload.len().saturating_sub(TAIL_BYTES)..]);
        let surplus = self.tail.len().saturating_sub(TAIL_BYTES);
        self.tail.drain(..surplus);
    }

    fn end_of_line(&mut self) -> Result<()> {
        if self.state == State::Head {
            // The head is read as one piece, which ends with an empty line.
            if self.line.ends_with(b"\r\n\r\n") {
                self.state = self.read_head()?;
                self.line.clear();
            }
            return Ok(());
        }
        let line = std::str::from_utf8(&self.line)?.trim_end();
        self.state = match self.state {
            State::ChunkSize => {
                let digits = line.split(';').next().unwrap_or_default();
                match u64::from_str_radix(digits, 16).with_context(|| format!("chunk size {line:?}"))? {
                    0 => State::Trailers,
                    size => State::Chunk(size),
                }
            }
            State::ChunkEnd => State::ChunkSize,
            State::Trailers if line.is_empty() => State::Done,
            state => state,
        };
        self.line.clear();
        Ok(())
    }

    fn read_head(&mut self) -> Result<State> {
        let head = std::str::from_utf8(&self.line)?;
        let status = head.split(' ').nth(1).context("a status line has a status")?;
        self.status = status.parse().with_context(|| format!("status {status:?}"))?;
        let mut length = None;
        for line in head.lines().skip(1) {
            let Some((name, value)) = line.split_once(':') else { continue };
            if name.eq_ignore_ascii_case("content-length") {
                length = Some(value.trim().parse().context("content-length")?);
            } else if name.eq_ignore_ascii_case("transfer-encoding") {
                return Ok(State::ChunkSize);
            }
        }
        match length.context("a response has a length or is chunked")? {
            0 => Ok(State::Done),
            length => Ok(State::Body(length)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &[u8] = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\
        9\r\ndata: a\n\n\r\ne\r\ndata: [DONE]\n\n\r\n0\r\n\r\n";

    #[test]
    fn a_chunked_stream_is_read_the_same_however_it_is_cut() {
        for size in 1..STREAM.len() {
            let mut response = Response::default();
            for piece in STREAM.chunks(size) {
                assert!(!response.is_done());
                response.feed(piece).unwrap();
            }
            assert!(response.is_done() && response.ends_with_done(), "pieces of {size}");
            assert_eq!((response.status(), response.payload_bytes()), (200, 23));
        }
    }

    #[test]
    fn a_body_of_known_length_ends_with_its_last_byte() {
        let mut response = Response::default();
        response.feed(b"HTTP/1.1 503 Busy\r\ncontent-length: 4\r\n\r\nbus").unwrap();
        assert!(!response.is_done());
        response.feed(b"y").unwrap();
        assert!(response.is_done() && !response.ends_with_done());
        assert_eq!(response.status(), 503);
        assert!(response.feed(b"HTTP").is_err(), "nothing follows unasked");
    }

    #[test]
    fn what_is_not_http_is_an_error() {
        assert!(Response::default().feed(b"SSH-2.0\r\n\r\n").is_err());
        assert!(Response::default().feed(&[b'x'; HEAD_BYTES_MAX + 1]).is_err());
        let mut response = Response::default();
        assert!(response.feed(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n").is_err());
    }
}
