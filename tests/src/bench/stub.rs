//! Backends that answer any chat at once with 100 tokens at a fixed pace. Written for one thing only: to cost as little
//! as possible per event, so that the two cores are left to the router.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::process::Group;

/// Name of the model that the backends serve.
pub const MODEL: &str = "stub";

/// Tokens of every answer.
pub const TOKENS: usize = 100;

/// Longest request head and body that are read, in bytes; ours are about 1.5 KB.
const REQUEST_BYTES_MAX: usize = 64 * 1024;

/// How a stream is answered; it travels in the request, so that backends keep no state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// Tokens of each event.
    pub tokens_per_event: usize,
    /// Time between two events.
    pub gap: Duration,
}

impl Pace {
    /// As the request's field `user`.
    pub fn write(self) -> String {
        format!("{MARK}{}-{}.", self.tokens_per_event, self.gap.as_micros())
    }

    fn read(body: &[u8]) -> Option<Self> {
        let start = body.windows(MARK.len()).position(|bytes| bytes == MARK.as_bytes())? + MARK.len();
        let length = body[start..].iter().position(|byte| *byte == b'.')?;
        let (tokens, gap) = std::str::from_utf8(&body[start..start + length]).ok()?.split_once('-')?;
        let tokens_per_event = tokens.parse().ok().filter(|tokens| (1..=TOKENS).contains(tokens))?;
        Some(Self { tokens_per_event, gap: Duration::from_micros(gap.parse().ok()?) })
    }
}

/// What a pace begins with in a request.
const MARK: &str = "pace-";

/// Running backends, in a process of their own; they end with this value.
#[derive(Debug)]
pub struct Stubs {
    /// Where they listen.
    pub addresses: Vec<SocketAddr>,
    /// Their process.
    pub process: Group,
}

impl Stubs {
    /// Starts `program`, which must call [`serve_backends`], and reads their addresses from `log`.
    ///
    /// # Errors
    /// The program does not start, or ends.
    pub fn start(program: &mut Command, log: &Path) -> Result<Self> {
        let mut process = Group::start(program, log)?;
        loop {
            let text = std::fs::read_to_string(log)?;
            if let Some((line, _)) = text.split_once('\n') {
                let addresses = line.split(' ').map(str::parse).collect::<Result<_, _>>()?;
                return Ok(Self { addresses, process });
            }
            ensure!(!process.has_ended(), "the backends did not start: {text}");
            std::thread::yield_now();
        }
    }
}

/// Serves so many backends for ever; their addresses are printed in one line.
///
/// # Errors
/// No port.
pub async fn serve_backends(count: usize) -> Result<()> {
    let mut addresses = Vec::new();
    for _ in 0..count {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        addresses.push(listener.local_addr()?.to_string());
        tokio::spawn(accept(listener));
    }
    println!("{}", addresses.join(" "));
    std::future::pending().await
}

async fn accept(listener: TcpListener) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // Descriptors have run out: others come free when streams end.
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        let _ = stream.set_nodelay(true);
        tokio::spawn(async move {
            // A connection that breaks is the other side's business: it counts its errors.
            let _ = serve(stream).await;
        });
    }
}

async fn serve(mut stream: TcpStream) -> Result<()> {
    let mut received = Vec::new();
    loop {
        let Some(request) = read_request(&mut stream, &mut received).await? else { return Ok(()) };
        match request {
            Request::Health => stream.write_all(&plain("200 OK", "")).await?,
            Request::Models => stream.write_all(&plain("200 OK", MODELS)).await?,
            Request::Other => stream.write_all(&plain("404 Not Found", "{}")).await?,
            Request::Chat(None) => stream.write_all(&plain("200 OK", &answer())).await?,
            Request::Chat(Some(pace)) => write_stream(&mut stream, pace).await?,
        }
    }
}

/// The head and the first event go out at once: whatever time passes till the client has them is the way's.
async fn write_stream(stream: &mut TcpStream, pace: Pace) -> Result<()> {
    let event = chunk(&event(pace.tokens_per_event));
    stream.write_all(&[STREAM_HEAD, &event].concat()).await?;
    let mut due = tokio::time::Instant::now();
    for _ in 1..TOKENS / pace.tokens_per_event {
        due += pace.gap;
        tokio::time::sleep_until(due).await;
        stream.write_all(&event).await?;
    }
    stream.write_all(&[&chunk(LAST_EVENT), b"0\r\n\r\n".as_slice()].concat()).await?;
    Ok(())
}

#[derive(Debug, PartialEq, Eq)]
enum Request {
    Health,
    Models,
    /// Streamed at a pace, or at once.
    Chat(Option<Pace>),
    Other,
}

/// The next request of a connection, or `None` when it was closed between two.
async fn read_request(stream: &mut TcpStream, received: &mut Vec<u8>) -> Result<Option<Request>> {
    loop {
        if let Some((request, length)) = parse(received)? {
            received.drain(..length);
            return Ok(Some(request));
        }
        ensure!(received.len() < REQUEST_BYTES_MAX, "a request of more than {REQUEST_BYTES_MAX} bytes");
        if stream.read_buf(received).await? == 0 {
            return Ok(None);
        }
    }
}

/// A request and its length in bytes, once all of it is there.
fn parse(received: &[u8]) -> Result<Option<(Request, usize)>> {
    let Some(end) = received.windows(4).position(|bytes| bytes == b"\r\n\r\n") else { return Ok(None) };
    let head = std::str::from_utf8(&received[..end])?;
    let mut body_length = 0;
    for line in head.lines().skip(1) {
        let Some((name, value)) = line.split_once(':') else { continue };
        if name.eq_ignore_ascii_case("content-length") {
            body_length = value.trim().parse::<usize>().context("content-length")?;
        }
        ensure!(!name.eq_ignore_ascii_case("transfer-encoding"), "chunked requests are not understood");
    }
    let length = end + 4 + body_length;
    if received.len() < length {
        return Ok(None);
    }
    let path = head.split(' ').nth(1).context("a request line has a path")?;
    let request = match path {
        "/v1/chat/completions" => Request::Chat(Pace::read(&received[end..length])),
        "/v1/models" => Request::Models,
        path if path.starts_with("/health") => Request::Health,
        _ => Request::Other,
    };
    Ok(Some((request, length)))
}

const STREAM_HEAD: &[u8] =
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncache-control: no-cache\r\n\
    x-inferno-revision: stub-1\r\ntransfer-encoding: chunked\r\n\r\n";

const MODELS: &str = r#"{"object":"list","data":[{"id":"stub","object":"model","created":1,"owned_by":"vllm","root":"stub","max_model_len":4096}]}"#;

const LAST_EVENT: &str = concat!(
    r#"data: {"id":"chatcmpl-0123456789abcdef","object":"chat.completion.chunk","created":1700000000,"model":"stub","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#,
    "\n\ndata: [DONE]\n\n"
);

/// One event of a stream, as an engine writes it.
fn event(tokens: usize) -> String {
    let text = " token".repeat(tokens);
    format!(
        r#"data: {{"id":"chatcmpl-0123456789abcdef","object":"chat.completion.chunk","created":1700000000,"model":"stub","choices":[{{"index":0,"delta":{{"content":"{text}"}},"finish_reason":null}}]}}"#
    ) + "\n\n"
}

fn answer() -> String {
    let text = " token".repeat(TOKENS);
    format!(
        r#"{{"id":"chatcmpl-0123456789abcdef","object":"chat.completion","created":1700000000,"model":"stub","choices":[{{"index":0,"message":{{"role":"assistant","content":"{text}"}},"finish_reason":"stop"}}],"usage":{{"prompt_tokens":200,"completion_tokens":100,"total_tokens":300}}}}"#
    )
}

fn chunk(payload: &str) -> Vec<u8> {
    format!("{:x}\r\n{payload}\r\n", payload.len()).into_bytes()
}

fn plain(status: &str, body: &str) -> Vec<u8> {
    format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_taken_one_after_the_other() {
        let pace = Pace { tokens_per_event: 5, gap: Duration::from_millis(10) };
        let body = format!(r#"{{"user":"{}"}}"#, pace.write());
        let one =
            format!("POST /v1/chat/completions HTTP/1.1\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        let two = [one.as_bytes(), b"GET /health HTTP/1.1\r\n\r\n"].concat();
        assert_eq!(parse(&two[..one.len() - 1]).unwrap(), None);
        let (first, length) = parse(&two).unwrap().unwrap();
        assert_eq!((first, length), (Request::Chat(Some(pace)), one.len()));
        assert_eq!(parse(&two[length..]).unwrap().unwrap().0, Request::Health);
    }

    #[test]
    fn every_part_of_an_answer_is_json() {
        for text in [MODELS, &answer()] {
            serde_json::from_str::<serde_json::Value>(text).unwrap();
        }
        for event in [event(5), LAST_EVENT.to_owned()] {
            let json = event.lines().next().unwrap().strip_prefix("data: ").unwrap();
            serde_json::from_str::<serde_json::Value>(json).unwrap();
        }
    }
}
