//! A pod's answer on its way to the client, frame by frame as it comes: nothing is copied, kept or timed while all is
//! well. A stream that ends without its end announced, or breaks, is asked for again elsewhere as long as only comments
//! came; then it ends with an error frame and a cut connection, never cleanly.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, Collected, Limited};
use hyper::body::Bytes;
use hyper::header::{self, HeaderValue};
use hyper::http::response::Parts;
use hyper::{Response, StatusCode};
use tokio::time::{Sleep, sleep};

use super::account::Account;
use super::envelope::strip;
use super::forward::Exchange;
use super::pods::PodBody;
use super::scan::Scan;
use super::trouble::{Answer, ERROR_BYTES_MAX, Failure, Opened, Trouble, error_code};
use super::waiting::Comments;
use crate::http::ApiError;
use crate::http::headers::REVISION;

/// Between an error frame and the cut, so that the frame is on its way when the socket goes.
const CUT_AFTER: Duration = Duration::from_millis(50);

/// The type of event streams.
pub const EVENT_STREAM: &str = "text/event-stream";

/// The body of every response of the gateway.
pub enum Outgoing {
    /// In one piece.
    Whole(Option<Bytes>),
    /// From a pod.
    Relayed(Box<Relay>),
}

/// An exchange that looks for an answer, and what it has found.
pub type Looking = Pin<Box<dyn Future<Output = (Box<Exchange>, Result<Opened, Failure>)> + Send>>;

/// An answer on its way.
pub struct Relay {
    source: Source,
    account: Account,
    /// Of event streams.
    events: Option<Events>,
}

/// What is known of an event stream.
struct Events {
    scan: Scan,
    /// Whether the stream is one of those that end with `[DONE]`: of OpenAI's two older routes. The others have closing
    /// events of their own.
    announces_end: bool,
    /// For asking again; until content comes.
    exchange: Option<Box<Exchange>>,
}

/// Where frames come from.
enum Source {
    /// A pod.
    Pod(PodBody),
    /// What was read already.
    Read(Bytes),
    /// None yet; the client reads comments meanwhile.
    Looking(Looking, Comments),
    /// An error was told; the cut follows.
    Cutting(Pin<Box<Sleep>>),
    /// The end.
    Ended,
}

// === impl Outgoing ===

impl Outgoing {
    /// In one piece.
    pub fn whole(bytes: impl Into<Bytes>) -> Self {
        Self::Whole(Some(bytes.into()))
    }
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match self.get_mut() {
            Self::Whole(bytes) => Poll::Ready(
                bytes.take().filter(|bytes| !bytes.is_empty()).map(|bytes| Ok(Frame::data(bytes))),
            ),
            Self::Relayed(relay) => relay.poll(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(bytes) => bytes.as_ref().is_none_or(Bytes::is_empty),
            Self::Relayed(relay) => matches!(relay.source, Source::Ended),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, Bytes::len) as u64),
            Self::Relayed(relay) => relay.size_hint(),
        }
    }
}

// === impl Relay ===

impl Relay {
    /// The response to a client whose exchange found this answer. Without an exchange no other pod is asked.
    pub fn response(
        opened: Opened,
        mut exchange: Option<Box<Exchange>>,
        mut account: Account,
    ) -> Response<Outgoing> {
        let Opened { mut parts, body, arm, lease, sent } = opened;
        strip(&mut parts.headers);
        if !parts.headers.contains_key(REVISION)
            && let Ok(revision) = HeaderValue::from_str(&arm.revision)
        {
            parts.headers.insert(REVISION, revision);
        }
        account.is_answered_by(arm, lease, sent, parts.status);
        account.is_told(&parts.headers);
        account.mark(&mut parts.headers);
        account.is_heard_by(exchange.as_mut().and_then(|exchange| exchange.ear.take()));
        let events = is_event_stream(&parts).then(|| {
            // An error frame may follow.
            parts.headers.remove(header::CONTENT_LENGTH);
            let announces_end = exchange.as_ref().is_some_and(|exchange| exchange.ask.is_generation);
            Events { scan: Scan::default(), announces_end, exchange }
        });
        let source = match body {
            Answer::Coming(body) => Source::Pod(body),
            Answer::Read(bytes) => Source::Read(bytes),
        };
        if source.is_at_end() {
            account.completed();
        }
        let relay = Self { source, account, events };
        Response::from_parts(parts, Outgoing::Relayed(Box::new(relay)))
    }

    /// The response to a client whose exchange goes on looking for an answer while the client reads comments.
    pub fn waiting(looking: Looking, comments: Comments, account: Account) -> Response<Outgoing> {
        let events = Events { scan: Scan::default(), announces_end: true, exchange: None };
        let mut response = Response::new(());
        let headers = response.headers_mut();
        account.mark(headers);
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(EVENT_STREAM));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
        let relay = Self { source: Source::Looking(looking, comments), account, events: Some(events) };
        response.map(|()| Outgoing::Relayed(Box::new(relay)))
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        loop {
            match &mut self.source {
                Source::Pod(body) => match ready!(Pin::new(&mut *body).poll_frame(context)) {
                    Some(Ok(frame)) => {
                        // The server does not ask for more than the announced length.
                        let is_last = body.is_end_stream();
                        if let Some(frame) = self.pass(frame) {
                            if is_last && self.is_whole() {
                                self.account.completed();
                            }
                            return Poll::Ready(Some(Ok(frame)));
                        }
                    }
                    Some(Err(error)) => {
                        tracing::debug!(%error, "a pod's answer broke off");
                        if let Some(result) = self.broke() {
                            return Poll::Ready(Some(result));
                        }
                    }
                    None => {
                        if self.is_whole() {
                            self.account.completed();
                            self.source = Source::Ended;
                        } else if let Some(result) = self.broke() {
                            return Poll::Ready(Some(result));
                        }
                    }
                },
                Source::Read(bytes) => {
                    let frame = Frame::data(std::mem::take(bytes));
                    self.source = Source::Ended;
                    return Poll::Ready(Some(Ok(frame)));
                }
                Source::Looking(looking, comments) => match looking.as_mut().poll(context) {
                    Poll::Ready((exchange, found)) => {
                        if let Some(frame) = self.found(exchange, found) {
                            return Poll::Ready(Some(Ok(frame)));
                        }
                    }
                    Poll::Pending => {
                        let comment = ready!(comments.poll_next(context));
                        return Poll::Ready(Some(Ok(Frame::data(comment))));
                    }
                },
                Source::Cutting(sleep) => {
                    ready!(sleep.as_mut().poll(context));
                    self.source = Source::Ended;
                    return Poll::Ready(Some(Err(cut())));
                }
                Source::Ended => return Poll::Ready(None),
            }
        }
    }

    /// A frame from the pod. `None`: it must not reach the client, because another pod is asked.
    fn pass(&mut self, frame: Frame<Bytes>) -> Option<Frame<Bytes>> {
        let (Some(data), Some(events)) = (frame.data_ref(), &mut self.events) else {
            frame.data_ref().into_iter().for_each(|data| self.account.passes(data));
            self.account.has_content();
            return Some(frame);
        };
        if let Some(content_at) = events.scan.feed(data) {
            if events.exchange.is_some() && events.scan.has_error && is_worth_another(&data[content_at..]) {
                return self.look_again().or_else(|| Some(frame));
            }
            events.exchange = None;
            self.account.has_content();
        }
        self.account.passes(data);
        Some(frame)
    }

    /// Whether the pod's answer may end here.
    fn is_whole(&self) -> bool {
        self.events.as_ref().is_none_or(|events| events.scan.is_done || !events.announces_end)
    }

    /// The pod's answer broke off. `None`: another pod is asked, or the cut follows what was passed already.
    fn broke(&mut self) -> Option<io::Result<Frame<Bytes>>> {
        let Some(events) = &self.events else {
            self.account.broke();
            self.source = Source::Cutting(Box::pin(sleep(CUT_AFTER)));
            return None;
        };
        if events.scan.is_done {
            self.account.completed();
            self.source = Source::Ended;
            return None;
        }
        if events.scan.has_error {
            // The pod itself has told what happened; the cut waits until that is on its way.
            self.account.broke();
            self.source = Source::Cutting(Box::pin(sleep(CUT_AFTER)));
            return None;
        }
        if let Some(frame) = self.look_again() {
            return Some(Ok(frame));
        }
        let frame = ApiError::PodLost.body().to_string();
        self.account.broke();
        Some(Ok(self.fail(frame.as_bytes())))
    }

    /// Asks another pod, if nothing but comments came; the frame says so.
    fn look_again(&mut self) -> Option<Frame<Bytes>> {
        let events = self.events.as_mut()?;
        let mut exchange = events.exchange.take()?;
        let address = self.account.lose();
        exchange.avoid(address);
        let comments = Comments::new(&mut exchange);
        // What the lost pod has begun to say ends here, also in the middle of a line.
        events.scan = Scan::default();
        let looking = async move {
            let found = exchange.open_after(Trouble::Reset).await;
            (exchange, found)
        };
        self.source = Source::Looking(Box::pin(looking), comments);
        let said = b"\n\n: asking another pod\n\n";
        self.account.passes(said);
        Some(Frame::data(Bytes::from_static(said)))
    }

    /// The exchange has found an answer, or none. The frame is the first that the client gets of it, if there is one.
    fn found(&mut self, mut exchange: Box<Exchange>, found: Result<Opened, Failure>) -> Option<Frame<Bytes>> {
        self.account.is_heard_by(exchange.ear.take());
        let error = match found {
            Ok(opened) if is_event_stream(&opened.parts) && matches!(opened.body, Answer::Coming(_)) => {
                let Answer::Coming(body) = opened.body else { return None };
                let revision = format!(": served by {}\n\n", opened.arm.revision);
                self.account.is_answered_by(opened.arm, opened.lease, opened.sent, opened.parts.status);
                self.source = Source::Pod(body);
                if let Some(events) = &mut self.events {
                    events.announces_end = exchange.ask.is_generation;
                    events.exchange = Some(exchange);
                }
                return Some(Frame::data(Bytes::from(revision)));
            }
            Ok(opened) => return self.read_error(exchange, opened),
            Err(Failure::Pods(opened)) => return self.read_error(exchange, *opened),
            Err(Failure::Ours(error)) => error.body().to_string(),
        };
        self.account.broke();
        Some(self.fail(error.as_bytes()))
    }

    /// The pod answers with something else than a stream to a client that has been promised one.
    fn read_error(&mut self, mut exchange: Box<Exchange>, opened: Opened) -> Option<Frame<Bytes>> {
        let Opened { parts, body, arm, lease, sent } = opened;
        let bytes = match body {
            Answer::Coming(body) => {
                let comments = Comments::new(&mut exchange);
                let looking = async move {
                    let body = Limited::new(body, ERROR_BYTES_MAX).collect().await;
                    let bytes = body.map(Collected::to_bytes).unwrap_or_default();
                    let opened = Opened { parts, body: Answer::Read(bytes), arm, lease, sent };
                    (exchange, Ok(opened))
                };
                self.source = Source::Looking(Box::pin(looking), comments);
                return None;
            }
            Answer::Read(bytes) => bytes,
        };
        self.account.is_answered_by(arm, lease, sent, parts.status);
        self.account.completed();
        let error = match serde_json::from_slice::<serde_json::Value>(&bytes) {
            Ok(error) if error.get("error").is_some() => error.to_string(),
            _ => ApiError::PodLost.body().to_string(),
        };
        Some(self.fail(error.as_bytes()))
    }

    /// The frame of this error; the cut follows it.
    fn fail(&mut self, error: &[u8]) -> Frame<Bytes> {
        let between = match &self.events {
            Some(events) if !events.scan.is_between_lines() => "\n\n",
            _ => "",
        };
        self.source = Source::Cutting(Box::pin(sleep(CUT_AFTER)));
        Frame::data(Bytes::from([between.as_bytes(), b"data: ", error, b"\n\n"].concat()))
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Pod(body) if self.events.is_none() => body.size_hint(),
            Source::Read(bytes) if self.events.is_none() => SizeHint::with_exact(bytes.len() as u64),
            Source::Ended => SizeHint::with_exact(0),
            _ => SizeHint::default(),
        }
    }
}

// === impl Source ===

impl Source {
    /// Whether all of the answer is here, or there is none beyond its head.
    fn is_at_end(&self) -> bool {
        match self {
            Self::Pod(body) => body.is_end_stream(),
            Self::Read(_) => true,
            _ => false,
        }
    }
}

fn is_event_stream(parts: &Parts) -> bool {
    let kind = parts.headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let is_stream = kind
        .and_then(|kind| kind.split(';').next())
        .is_some_and(|kind| kind.trim().eq_ignore_ascii_case(EVENT_STREAM));
    parts.status == StatusCode::OK && is_stream
}

/// Whether the error frame that begins here says that another pod should be asked. Pods write a frame in one piece.
fn is_worth_another(frame: &[u8]) -> bool {
    let Some(data) = frame.strip_prefix(b"data:") else { return false };
    let end = memchr::memchr(b'\n', data).unwrap_or(data.len());
    matches!(error_code(&data[..end]).as_deref(), Some("draining" | "model_loading" | "engine_lost"))
}

fn cut() -> io::Error {
    io::Error::other("the answer is cut")
}
