//! A gateway in this process, pods and clients as bare sockets. Waits for bytes and conditions, never for time.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crds::split::{Arm, Table};
use serde_json::{Value, json};
use sidecar::gateway::app::App;
use sidecar::gateway::serve::Gateway;
use sidecar::gateway::view::{EndpointView, ModelView, RevisionView, Start, Traffic, View};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::timeout;

/// Nothing in these tests takes this long unless it hangs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Waits for something that must come.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("waited in vain for {what}"))
}

/// Waits until a condition holds that nobody announces.
pub(crate) async fn until(what: &str, condition: impl Fn() -> bool) {
    let mut ticks = tokio::time::interval(Duration::from_millis(2));
    soon(what, async {
        while !condition() {
            ticks.tick().await;
        }
    })
    .await;
}

/// A model called `tiny` whose stable revision is `tiny-a`.
pub(crate) fn tiny(pods: &[&Pod]) -> ModelView {
    let mut model = model("tiny", &[("tiny-a", pods)]);
    model.aliases = vec!["family/small:1".to_owned()];
    model
}

/// A model whose first revision is the stable one.
pub(crate) fn model(name: &str, revisions: &[(&str, &[&Pod])]) -> ModelView {
    let revision = |(name, pods): &(&str, &[&Pod])| RevisionView {
        name: (*name).to_owned(),
        endpoints: pods.iter().map(|pod| pod.endpoint()).collect(),
        ..RevisionView::default()
    };
    let stable = revisions.first().map(|(name, _)| (*name).to_owned()).unwrap_or_default();
    ModelView {
        name: name.to_owned(),
        served_name: name.to_owned(),
        created: 1_700_000_000,
        traffic: Traffic {
            table: Table { salt: "salt".to_owned(), stable, others: Vec::new() },
            may_override: true,
            ..Traffic::default()
        },
        revisions: revisions.iter().map(revision).collect(),
        start: Start { wanted: 1, ..Start::default() },
        ..ModelView::default()
    }
}

/// The second revision as a canary with this share.
pub(crate) fn with_canary(mut model: ModelView, weight_basis_points: u16) -> ModelView {
    let revision = model.revisions[1].name.clone();
    model.traffic.table.others = vec![Arm { revision, weight_basis_points }];
    model
}

/// A view of these models.
pub(crate) fn view(models: impl IntoIterator<Item = ModelView>) -> View {
    View { models: models.into_iter().collect(), ..View::default() }
}

/// A gateway under test.
pub(crate) struct Front {
    pub(crate) gateway: Gateway,
}

impl Front {
    /// One that serves this view.
    pub(crate) async fn new(view: View) -> Self {
        let front = Self::without_view().await;
        front.app().take(view);
        front
    }

    /// One that knows nothing yet.
    pub(crate) async fn without_view() -> Self {
        let app = Arc::new(App::new().unwrap());
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        Self { gateway: Gateway::start(app, any, any, 2).await.unwrap() }
    }

    pub(crate) fn app(&self) -> &Arc<App> {
        &self.gateway.app
    }

    /// A connection.
    pub(crate) async fn connect(&self) -> Line {
        Line::new(TcpStream::connect(self.gateway.address).await.unwrap())
    }

    /// A connection on which a chat request was sent.
    pub(crate) async fn chat(&self, fields: Value) -> Line {
        let mut line = self.connect().await;
        line.post("/v1/chat/completions", "", &chat(fields)).await;
        line
    }

    /// The answer to a chat request, in one piece.
    pub(crate) async fn reply(&self, fields: Value) -> Reply {
        self.chat(fields).await.reply().await
    }

    /// The answer of the admin port.
    pub(crate) async fn admin(&self, path: &str) -> Reply {
        let mut line = Line::new(TcpStream::connect(self.gateway.admin_address).await.unwrap());
        line.write(format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes()).await;
        line.reply().await
    }

    /// The value of a counter with these labels.
    pub(crate) fn metric(&self, line: &str) -> u64 {
        let text = self.app().render(std::time::Instant::now()).unwrap();
        let value = text.lines().find_map(|found| found.strip_prefix(line)?.strip_prefix(' '));
        value.map_or(0, |value| value.parse().unwrap())
    }

    /// No pod has any work of ours, and nothing is in flight.
    pub(crate) async fn is_idle(&self) {
        let app = self.app();
        until("nothing is in flight", || app.lifecycle.in_flight() == 0).await;
        let now = std::time::Instant::now();
        let board = app.board();
        let all = board.models.iter().flat_map(|model| &model.arms);
        let busy: Vec<_> = all
            .flat_map(|arm| arm.fleet.states(now))
            .filter(|pod| pod.requests != 0 || pod.tokens != 0)
            .collect();
        assert!(busy.is_empty(), "leases were not given back: {busy:?}");
    }
}

/// The body of a chat request for `tiny`, with these fields beside the necessary ones.
pub(crate) fn chat(fields: Value) -> String {
    let mut body = json!({"model": "tiny", "messages": [{"role": "user", "content": "Hello"}]});
    let Value::Object(fields) = fields else { panic!("fields are an object") };
    body.as_object_mut().unwrap().extend(fields);
    body.to_string()
}

/// One side of a connection, byte by byte.
pub(crate) struct Line {
    stream: TcpStream,
    /// What came and was not taken yet.
    received: Vec<u8>,
}

/// A response.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    head: String,
    pub(crate) body: String,
    /// The body came to the end that its head or chunks say.
    pub(crate) is_whole: bool,
}

impl Line {
    pub(crate) fn new(stream: TcpStream) -> Self {
        stream.set_nodelay(true).unwrap();
        Self { stream, received: Vec::new() }
    }

    pub(crate) async fn write(&mut self, bytes: &[u8]) {
        soon("the other side to take bytes", self.stream.write_all(bytes)).await.unwrap();
    }

    pub(crate) async fn post(&mut self, path: &str, headers: &str, body: &str) {
        let length = body.len();
        let head =
            format!("POST {path} HTTP/1.1\r\nhost: gateway\r\n{headers}content-length: {length}\r\n\r\n");
        self.write(&[head.as_bytes(), body.as_bytes()].concat()).await;
    }

    /// All up to this text and with it. The text must come.
    pub(crate) async fn read_to(&mut self, text: &str) -> String {
        self.take_to(text).await.unwrap_or_else(|seen| panic!("no {text:?} in {seen:?}"))
    }

    /// All that comes until the other side closes or cuts.
    pub(crate) async fn read_all(&mut self) -> String {
        while self.more().await {}
        String::from_utf8(std::mem::take(&mut self.received)).unwrap()
    }

    /// A whole response, or as much as comes of it.
    pub(crate) async fn reply(&mut self) -> Reply {
        let head = self.read_to("\r\n\r\n").await;
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let (body, is_whole) = match header_in(&head, "content-length") {
            Some(length) => self.read_length(length.parse().unwrap()).await,
            None if header_in(&head, "transfer-encoding").is_some() => self.read_chunks().await,
            None => (Vec::new(), true),
        };
        Reply { status, head, body: String::from_utf8(body).unwrap(), is_whole }
    }

    /// A request that is whole, as its head and body.
    async fn request(&mut self) -> Option<(String, String)> {
        let head = self.take_to("\r\n\r\n").await.ok()?;
        let length = header_in(&head, "content-length").map_or(0, |length| length.parse().unwrap());
        let (body, _) = self.read_length(length).await;
        Some((head, String::from_utf8(body).unwrap()))
    }

    async fn take_to(&mut self, text: &str) -> Result<String, String> {
        loop {
            let found = self.received.windows(text.len()).position(|window| window == text.as_bytes());
            if let Some(at) = found {
                let taken: Vec<u8> = self.received.drain(..at + text.len()).collect();
                return Ok(String::from_utf8(taken).unwrap());
            }
            if !self.more().await {
                return Err(String::from_utf8_lossy(&self.received).into_owned());
            }
        }
    }

    async fn read_length(&mut self, length: usize) -> (Vec<u8>, bool) {
        while self.received.len() < length && self.more().await {}
        let read = length.min(self.received.len());
        (self.received.drain(..read).collect(), read == length)
    }

    async fn read_chunks(&mut self) -> (Vec<u8>, bool) {
        let mut body = Vec::new();
        loop {
            let Ok(size) = self.take_to("\r\n").await else { return (body, false) };
            let size = usize::from_str_radix(size.trim(), 16).unwrap();
            while self.received.len() < size + 2 {
                if !self.more().await {
                    body.append(&mut self.received);
                    return (body, false);
                }
            }
            body.extend(self.received.drain(..size));
            self.received.drain(..2);
            if size == 0 {
                return (body, true);
            }
        }
    }

    /// Whether more has come.
    async fn more(&mut self) -> bool {
        let read = soon("bytes", self.stream.read_buf(&mut self.received)).await;
        read.is_ok_and(|count| count > 0)
    }
}

impl Reply {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        header_in(&self.head, name)
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("JSON: {self:?}"))
    }

    /// The code of the error that it is.
    pub(crate) fn code(&self) -> String {
        self.json()["error"]["code"].as_str().unwrap_or_else(|| panic!("an error: {self:?}")).to_owned()
    }
}

fn header_in<'head>(head: &'head str, name: &str) -> Option<&'head str> {
    let (_, value) = head
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(found, _)| found.eq_ignore_ascii_case(name))?;
    Some(value.trim())
}

/// A socket that plays a pod.
pub(crate) struct Pod {
    pub(crate) address: SocketAddr,
    name: String,
    asked: mpsc::UnboundedReceiver<Asked>,
    accepting: tokio::task::JoinHandle<()>,
    /// How often somebody connected.
    pub(crate) connections: Arc<AtomicUsize>,
}

/// A request that a pod has got.
pub(crate) struct Asked {
    pub(crate) head: String,
    pub(crate) body: String,
    line: Line,
    next: mpsc::UnboundedSender<Asked>,
}

impl Pod {
    pub(crate) async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self::at(listener)
    }

    fn at(listener: TcpListener) -> Self {
        let address = listener.local_addr().unwrap();
        let (next, asked) = mpsc::unbounded_channel();
        let connections = Arc::new(AtomicUsize::new(0));
        let counted = connections.clone();
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::Relaxed);
                tokio::spawn(Asked::read(Line::new(stream), next.clone()));
            }
        });
        Self { address, name: format!("pod-{}", address.port()), asked, accepting, connections }
    }

    /// One that answers everything at once with its name.
    pub(crate) async fn echo() -> (Self, SocketAddr) {
        let mut pod = Self::new().await;
        let address = pod.address;
        let (_, never) = mpsc::unbounded_channel();
        let mut asked = std::mem::replace(&mut pod.asked, never);
        tokio::spawn(async move {
            while let Some(request) = asked.recv().await {
                let body = json!({"pod": address.to_string()}).to_string();
                request.answer(200, &body).await;
            }
        });
        (pod, address)
    }

    pub(crate) fn endpoint(&self) -> EndpointView {
        EndpointView { address: self.address, pod: self.name.clone(), is_ready: true, is_leaving: false }
    }

    /// The next request.
    pub(crate) async fn asked(&mut self) -> Asked {
        soon("a request at the pod", self.asked.recv()).await.unwrap()
    }

    /// The next request, for as long as the test runs.
    pub(crate) async fn next(&mut self) -> Option<Asked> {
        self.asked.recv().await
    }

    /// A request that has come already.
    pub(crate) fn asked_before(&mut self) -> Option<Asked> {
        self.asked.try_recv().ok()
    }

    /// Nobody can connect any more.
    pub(crate) async fn closes(&mut self) {
        self.accepting.abort();
        drop((&mut self.accepting).await);
    }
}

impl Asked {
    async fn read(mut line: Line, next: mpsc::UnboundedSender<Asked>) {
        if let Some((head, body)) = line.request().await {
            // A test that has ended asks for nothing.
            drop(next.clone().send(Asked { head, body, line, next }));
        }
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        header_in(&self.head, name)
    }

    /// Writes these bytes.
    pub(crate) async fn say(&mut self, bytes: &str) {
        self.line.write(bytes.as_bytes()).await;
    }

    /// Writes the head of a stream of events.
    pub(crate) async fn streams(&mut self) {
        let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
        self.say(head).await;
    }

    /// Writes one chunk.
    pub(crate) async fn chunk(&mut self, text: &str) {
        self.say(&format!("{:x}\r\n{text}\r\n", text.len())).await;
    }

    /// Ends a stream as it should end.
    pub(crate) async fn done(mut self) {
        self.chunk("data: [DONE]\n\n").await;
        self.say("0\r\n\r\n").await;
        self.keep();
    }

    /// Answers in one piece.
    pub(crate) async fn answer(mut self, status: u16, body: &str) {
        self.say(&whole(status, body)).await;
        self.keep();
    }

    /// Answers and closes the connection, which it has not announced.
    pub(crate) async fn answer_and_close(mut self, body: &str) {
        self.say(&whole(200, body)).await;
    }

    /// Answers with an error of this code.
    pub(crate) async fn refuses(self, status: u16, code: &str) {
        self.answer(status, &error(code)).await;
    }

    /// Writes if the other side is still there.
    pub(crate) async fn try_say(&mut self, bytes: &str) -> bool {
        self.line.stream.write_all(bytes.as_bytes()).await.is_ok()
    }

    /// Answers if the other side is still there.
    pub(crate) async fn try_answer(mut self, status: u16, body: &str) {
        if self.try_say(&whole(status, body)).await {
            self.keep();
        }
    }

    /// Refuses if the other side is still there.
    pub(crate) async fn try_refuse(self, status: u16, code: &str) {
        self.try_answer(status, &error(code)).await;
    }

    /// Waits until the other side closes.
    pub(crate) async fn until_left(mut self) {
        soon("the gateway to leave", async { while self.line.more().await {} }).await;
    }

    /// The connection as it is.
    pub(crate) fn into_line(self) -> Line {
        self.line
    }

    /// Reads the next request of the connection.
    pub(crate) fn keep(self) {
        tokio::spawn(Self::read(self.line, self.next));
    }
}

fn whole(status: u16, body: &str) -> String {
    let length = body.len();
    let head = "content-type: application/json\r\ncontent-length";
    format!("HTTP/1.1 {status} X\r\n{head}: {length}\r\n\r\n{body}")
}

fn error(code: &str) -> String {
    json!({"error": {"message": "no", "type": "server_error", "param": null, "code": code}}).to_string()
}
