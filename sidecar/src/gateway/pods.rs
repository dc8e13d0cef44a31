//! Connections to pods: kept for the next request, given up soon when the other side has gone.
//!
//! A connection has no task of its own. Whoever waits for its answer drives it, so that an event which passes from a pod
//! to a client is the work of one task, and events that have come together leave together.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant};

use http_body::{Body, Frame, SizeHint};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{Builder, Connection, SendRequest};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use rustix::net::sockopt;
use tokio::net::TcpStream;

/// A pod that is there answers within milliseconds; one lost segment costs a second.
const CONNECT_MAX: Duration = Duration::from_secs(2);

/// A pod whose node has gone is noticed after this and [`PROBES`] of [`PROBE_EVERY`].
const PROBE_AFTER: Duration = Duration::from_secs(10);
/// See [`PROBE_AFTER`].
const PROBE_EVERY: Duration = Duration::from_secs(5);
/// See [`PROBE_AFTER`].
const PROBES: u32 = 3;

/// The same for a node that goes while a request is on its way to it: milliseconds.
const UNACKNOWLEDGED_MS_MAX: u32 = 20_000;

/// Idle connections are kept for the next requests.
const IDLE_MAX: Duration = Duration::from_secs(60);

/// Idle connections to one pod: as many as requests of a burst.
const IDLE_PER_POD_MAX: usize = 256;

/// What is kept of a pod's answer while its client does not read, and the longest head of an answer.
const BUFFER_BYTES_MAX: usize = 64 << 10;

/// What goes to pods.
pub type PodRequest = Request<Full<Bytes>>;

/// Connections to pods; clones share them.
#[derive(Clone, Default)]
pub struct Pods {
    idle: Arc<Mutex<Idle>>,
}

#[derive(Default)]
struct Idle {
    /// The one that was used last is the last.
    links: HashMap<SocketAddr, Vec<(Box<Link>, Instant)>>,
    swept: Option<Instant>,
}

/// One connection.
struct Link {
    sender: SendRequest<Full<Bytes>>,
    connection: Connection<TokioIo<TcpStream>, Full<Bytes>>,
    has_ended: bool,
}

/// Why there is no response.
#[derive(Debug, thiserror::Error)]
pub enum Lost {
    /// There is no connection; the pod knows nothing of the request.
    #[error("the pod cannot be connected to")]
    Unreached(#[source] io::Error),
    /// The connection broke before the head of the response.
    #[error("the connection broke before the answer")]
    Reset(#[source] Option<hyper::Error>),
}

/// What became of a request that was given to a connection.
enum Sent {
    Answered(Response<Incoming>),
    /// The connection had ended before.
    Unsent(Box<PodRequest>),
    Broken(Option<hyper::Error>),
}

/// The body of a pod's answer. Dropping it before its end closes the connection, by which the pod knows that nobody
/// waits any more.
pub struct PodBody {
    body: Incoming,
    link: Option<Box<Link>>,
    address: SocketAddr,
    pods: Pods,
}

// === impl Pods ===

impl Pods {
    /// Sends a request, over an idle connection if there is one, and waits for the head of the response.
    pub async fn ask(&self, address: SocketAddr, mut request: PodRequest) -> Result<Response<PodBody>, Lost> {
        while let Some(mut link) = self.take(address) {
            match link.send(request).await {
                Sent::Answered(response) => return Ok(self.answered(address, response, Some(link))),
                Sent::Unsent(unsent) => request = *unsent,
                Sent::Broken(error) => return Err(Lost::Reset(error)),
            }
        }
        let mut link = Box::new(Link::open(address).await.map_err(Lost::Unreached)?);
        match link.send(request).await {
            Sent::Answered(response) => Ok(self.answered(address, response, Some(link))),
            Sent::Unsent(_) => Err(Lost::Reset(None)),
            Sent::Broken(error) => Err(Lost::Reset(error)),
        }
    }

    /// The same for a request that asks for another protocol; its connection is its own.
    pub async fn ask_to_upgrade(
        &self,
        address: SocketAddr,
        request: PodRequest,
    ) -> Result<Response<PodBody>, Lost> {
        let Link { mut sender, connection, .. } = Link::open(address).await.map_err(Lost::Unreached)?;
        tokio::spawn(connection.with_upgrades());
        let response = sender.send_request(request).await.map_err(|error| Lost::Reset(Some(error)))?;
        Ok(self.answered(address, response, None))
    }

    fn answered(
        &self,
        address: SocketAddr,
        response: Response<Incoming>,
        link: Option<Box<Link>>,
    ) -> Response<PodBody> {
        response.map(|body| {
            let mut body = PodBody { body, link, address, pods: self.clone() };
            if body.body.is_end_stream() {
                body.give_back(&mut Context::from_waker(Waker::noop()));
            }
            body
        })
    }

    /// An idle connection that still stands.
    fn take(&self, address: SocketAddr) -> Option<Box<Link>> {
        let mut idle = self.idle.lock().expect("nobody panics with this lock");
        let links = idle.links.get_mut(&address)?;
        while let Some((mut link, _)) = links.pop() {
            if link.is_idle(&mut Context::from_waker(Waker::noop())) {
                return Some(link);
            }
        }
        None
    }

    fn put(&self, address: SocketAddr, link: Box<Link>, now: Instant) {
        let mut idle = self.idle.lock().expect("nobody panics with this lock");
        let links = idle.links.entry(address).or_default();
        if links.len() < IDLE_PER_POD_MAX {
            links.push((link, now));
        }
        idle.sweep(now);
    }
}

// === impl Idle ===

impl Idle {
    /// Closes what has been idle for long, also to pods that have gone.
    fn sweep(&mut self, now: Instant) {
        if self.swept.is_some_and(|swept| now.saturating_duration_since(swept) < IDLE_MAX / 4) {
            return;
        }
        self.swept = Some(now);
        self.links.retain(|_, links| {
            links.retain(|(_, since)| now.saturating_duration_since(*since) < IDLE_MAX);
            !links.is_empty()
        });
    }
}

// === impl Link ===

impl Link {
    async fn open(address: SocketAddr) -> io::Result<Self> {
        let connecting = tokio::time::timeout(CONNECT_MAX, TcpStream::connect(address));
        let stream = connecting.await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        stream.set_nodelay(true)?;
        sockopt::set_socket_keepalive(&stream, true)?;
        sockopt::set_tcp_keepidle(&stream, PROBE_AFTER)?;
        sockopt::set_tcp_keepintvl(&stream, PROBE_EVERY)?;
        sockopt::set_tcp_keepcnt(&stream, PROBES)?;
        sockopt::set_tcp_user_timeout(&stream, UNACKNOWLEDGED_MS_MAX)?;
        let opening = Builder::new().max_buf_size(BUFFER_BYTES_MAX).handshake(TokioIo::new(stream));
        let (sender, connection) = opening.await.map_err(io::Error::other)?;
        Ok(Self { sender, connection, has_ended: false })
    }

    async fn send(&mut self, request: PodRequest) -> Sent {
        let mut sending = pin!(self.sender.try_send_request(request));
        let (connection, has_ended) = (&mut self.connection, &mut self.has_ended);
        let sent = std::future::poll_fn(|context| {
            *has_ended = *has_ended || Pin::new(&mut *connection).poll(context).is_ready();
            match sending.as_mut().poll(context) {
                Poll::Pending if *has_ended => Poll::Ready(None),
                sent => sent.map(Some),
            }
        });
        match sent.await {
            Some(Ok(response)) => Sent::Answered(response),
            Some(Err(mut error)) => match error.take_message() {
                Some(unsent) => Sent::Unsent(Box::new(unsent)),
                None => Sent::Broken(Some(error.into_error())),
            },
            None => Sent::Broken(None),
        }
    }

    /// Lets it make progress. Once it has ended there is none.
    fn drive(&mut self, context: &mut Context<'_>) {
        self.has_ended = self.has_ended || Pin::new(&mut self.connection).poll(context).is_ready();
    }

    /// Whether it stands and waits for a request.
    fn is_idle(&mut self, context: &mut Context<'_>) -> bool {
        self.drive(context);
        !self.has_ended && self.sender.is_ready()
    }
}

// === impl PodBody ===

impl PodBody {
    /// The answer is complete: its connection is for others.
    fn give_back(&mut self, context: &mut Context<'_>) {
        let Some(mut link) = self.link.take() else { return };
        if link.is_idle(context) {
            self.pods.put(self.address, link, Instant::now());
        }
    }

    fn poll_coming(&mut self, context: &mut Context<'_>) -> Poll<Option<hyper::Result<Frame<Bytes>>>> {
        // What has come already needs no look at the connection.
        let coming = Pin::new(&mut self.body).poll_frame(context);
        let (Poll::Pending, Some(link)) = (&coming, &mut self.link) else { return coming };
        link.drive(context);
        Pin::new(&mut self.body).poll_frame(context)
    }
}

impl Body for PodBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<hyper::Result<Frame<Bytes>>>> {
        let this = self.get_mut();
        let frame = ready!(this.poll_coming(context));
        match &frame {
            Some(Ok(_)) if this.body.is_end_stream() => this.give_back(context),
            Some(Ok(_)) => {}
            Some(Err(_)) => this.link = None,
            None => this.give_back(context),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
