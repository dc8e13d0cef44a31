//! The load generator: raw sockets, requests made before the run, one thread.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use super::process::{Clocks, Cores, Group};
use super::response::Response;
use super::samples::Samples;
use super::stub::{MODEL, Pace, Stubs};

/// Different conversations; every sixteenth shares its system prompt, so that routers with prefix affinity have both
/// something to find and something to spread.
const CONVERSATIONS: usize = 512;

/// Longest exchange; the slowest stream of any scenario takes ten seconds.
const EXCHANGE_LIMIT: Duration = Duration::from_secs(60);

/// A connection unused for longer is not used again: the other side may be closing it.
const IDLE_MAX: Duration = Duration::from_secs(5);

/// Most requests at once; a router that falls so far behind the arrivals fails the rest. Each needs two
/// descriptors in the router, of 20,000 that a process has here.
const RUNNING_MAX: usize = 6000;

/// Errors kept with their words; the others are only counted.
const ERRORS_KEPT: usize = 5;

thread_local! {
    static BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; 64 * 1024].into_boxed_slice());
}

/// Requests, connections and what came of them.
#[derive(Debug)]
pub struct Load {
    requests: Vec<Vec<u8>>,
    idle: RefCell<HashMap<SocketAddr, Vec<(TcpStream, Instant)>>>,
    running: RefCell<Running>,
    expected_bytes: u64,
}

#[derive(Debug, Default)]
struct Running {
    now: usize,
    peak: usize,
    finished: u64,
    errors: Errors,
}

impl Running {
    /// Whether one more may run.
    fn begin(&mut self) -> bool {
        if self.now >= RUNNING_MAX {
            self.fail(format!("not sent: {RUNNING_MAX} are running"));
            return false;
        }
        self.now += 1;
        self.peak = self.peak.max(self.now);
        true
    }

    fn end(&mut self, result: Result<Exchange>) -> Option<Exchange> {
        self.now -= 1;
        match result {
            Ok(exchange) => {
                self.finished += 1;
                Some(exchange)
            }
            Err(error) => {
                self.fail(format!("{error:#}"));
                None
            }
        }
    }

    fn fail(&mut self, error: String) {
        self.errors.count += 1;
        if self.errors.first.len() < ERRORS_KEPT {
            self.errors.first.push(error);
        }
    }
}

/// Failed requests.
#[derive(Debug, Clone, Default)]
pub struct Errors {
    /// How many.
    pub count: u64,
    /// The first few, in words.
    pub first: Vec<String>,
}

/// What one request took.
#[derive(Debug, Clone, Copy)]
pub struct Exchange {
    /// Microseconds from the start to the first byte of the body.
    pub first_byte_micros: u64,
    /// Length of the body.
    pub payload_bytes: u64,
}

/// What a run showed.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// Times to the first byte through the router.
    pub routed: Samples,
    /// The same past the router, at the same time.
    pub direct: Samples,
    /// How late requests were sent, in microseconds.
    pub late: Samples,
    /// Requests that ended well within the window.
    pub finished: u64,
    /// Length of the window in seconds.
    pub seconds: f64,
    /// Most requests at once.
    pub peak: usize,
    /// Requests that failed.
    pub errors: Errors,
    /// What was used within the window.
    pub cores: Cores,
    /// Most resident memory of the router seen, in KiB.
    pub resident_kib: u64,
}

/// Requests at a fixed average rate, whatever becomes of them.
#[derive(Debug, Clone, Copy)]
pub struct OpenLoop {
    /// Requests per second through the router.
    pub routed_per_second: f64,
    /// Requests per second past it.
    pub direct_per_second: f64,
    /// Before anything is measured.
    pub warm_up: Duration,
    /// What is measured.
    pub window: Duration,
}

/// A router among its backends.
#[derive(Debug, Clone, Copy)]
pub struct UnderTest<'a> {
    /// Where it listens.
    pub address: SocketAddr,
    /// Its processes.
    pub process: &'a Group,
    /// The backends.
    pub stubs: &'a Stubs,
}

impl UnderTest<'_> {
    /// The clocks now.
    pub fn clocks(&self) -> Clocks {
        Clocks::read(self.process, &self.stubs.process)
    }
}

impl Load {
    /// A generator that takes answers of another length than this for failures; 0 takes any.
    pub fn new(pace: Pace, expected_bytes: u64) -> Rc<Self> {
        let requests = (0..CONVERSATIONS).map(|number| request(number, pace)).collect();
        Rc::new(Self { requests, idle: RefCell::default(), running: RefCell::default(), expected_bytes })
    }

    /// Arrivals with exponential gaps, from a fixed seed. Must run in a `LocalSet`.
    pub async fn open_loop(self: &Rc<Self>, plan: OpenLoop, under_test: UnderTest<'_>) -> Outcome {
        let mut random = fastrand::Rng::with_seed(7);
        let samples: Rc<RefCell<Outcome>> = Rc::default();
        let rate = plan.routed_per_second + plan.direct_per_second;
        let began = Instant::now();
        let mut due = began;
        let mut first_clocks = None;
        let mut tasks = tokio::task::JoinSet::new();
        for number in 0.. {
            due += Duration::from_secs_f64(-(1.0 - random.f64()).ln() / rate);
            tokio::time::sleep_until(due.into()).await;
            let is_measured = due.duration_since(began) >= plan.warm_up;
            if is_measured && first_clocks.is_none() {
                first_clocks = Some(under_test.clocks());
            }
            if due.duration_since(began) >= plan.warm_up + plan.window {
                break;
            }
            let is_direct = random.f64() * rate < plan.direct_per_second;
            let backends = &under_test.stubs.addresses;
            let address = if is_direct { backends[number % backends.len()] } else { under_test.address };
            let (load, samples) = (self.clone(), samples.clone());
            let request = random.usize(..CONVERSATIONS);
            tasks.spawn_local(async move {
                let late = due.elapsed();
                let Some(exchange) = load.count(address, request).await else { return };
                if is_measured {
                    let mut samples = samples.borrow_mut();
                    samples.late.add(micros(late));
                    if is_direct { &mut samples.direct } else { &mut samples.routed }
                        .add(exchange.first_byte_micros);
                }
            });
        }
        let cores = first_clocks.map(|first| under_test.clocks().since(&first)).unwrap_or_default();
        let resident_kib = under_test.process.resident_kib();
        tasks.join_all().await;
        let mut outcome = samples.take();
        outcome.finished = outcome.routed.count() as u64;
        self.finish(Outcome { cores, resident_kib, seconds: plan.window.as_secs_f64(), ..outcome })
    }

    /// So many streams at once, each following the one before it. Must run in a `LocalSet`.
    pub async fn closed_loop(
        self: &Rc<Self>,
        streams: usize,
        warm_up: Duration,
        window: Duration,
        under_test: UnderTest<'_>,
    ) -> Outcome {
        let end = Instant::now() + warm_up + window;
        let address = under_test.address;
        let mut tasks = tokio::task::JoinSet::new();
        for stream in 0..streams {
            let load = self.clone();
            tasks.spawn_local(async move {
                let mut number = stream;
                while Instant::now() < end {
                    load.count(address, number % CONVERSATIONS).await;
                    number += streams;
                }
            });
        }
        tokio::time::sleep(warm_up).await;
        let (first, finished_before) = (under_test.clocks(), self.running.borrow().finished);
        tokio::time::sleep(window).await;
        let last = under_test.clocks();
        let finished = self.running.borrow().finished - finished_before;
        let resident_kib = under_test.process.resident_kib();
        tasks.join_all().await;
        self.finish(Outcome {
            finished,
            cores: last.since(&first),
            resident_kib,
            seconds: window.as_secs_f64(),
            ..Outcome::default()
        })
    }

    /// Starts so many streams, evenly over `ramp`, and waits for the last one's end. Must run in a `LocalSet`.
    pub async fn burst(
        self: &Rc<Self>,
        streams: usize,
        ramp: Duration,
        under_test: UnderTest<'_>,
    ) -> Outcome {
        let first = under_test.clocks();
        let began = Instant::now();
        let address = under_test.address;
        let mut tasks = tokio::task::JoinSet::new();
        for number in 0..streams {
            let due = began + ramp.mul_f64(number as f64 / streams as f64);
            tokio::time::sleep_until(due.into()).await;
            let load = self.clone();
            tasks.spawn_local(async move { load.count(address, number % CONVERSATIONS).await.is_some() });
        }
        let mut resident_kib = 0;
        let mut finished = 0;
        let mut reading = tokio::time::interval(Duration::from_millis(250));
        loop {
            tokio::select! {
                _ = reading.tick() => resident_kib = resident_kib.max(under_test.process.resident_kib()),
                ended = tasks.join_next() => match ended {
                    Some(is_well) => finished += u64::from(is_well.is_ok_and(|is_well| is_well)),
                    None => break,
                },
            }
        }
        let last = under_test.clocks();
        let seconds = began.elapsed().as_secs_f64();
        self.finish(Outcome {
            finished,
            cores: last.since(&first),
            resident_kib,
            seconds,
            ..Outcome::default()
        })
    }

    /// One request. Its failure is counted and gives `None`.
    async fn count(&self, address: SocketAddr, request: usize) -> Option<Exchange> {
        if !self.running.borrow_mut().begin() {
            return None;
        }
        let result = tokio::time::timeout(EXCHANGE_LIMIT, self.exchange(address, request)).await;
        self.running.borrow_mut().end(result.context("no end in a minute").flatten())
    }

    /// One request, read to its end.
    ///
    /// # Errors
    /// Everything but a complete stream of the expected length.
    pub async fn exchange(&self, address: SocketAddr, request: usize) -> Result<Exchange> {
        let began = Instant::now();
        let mut stream = self.connection(address).await?;
        stream.write_all(&self.requests[request]).await?;
        let mut response = Response::default();
        let mut first_byte_micros = None;
        while !response.is_done() {
            stream.readable().await?;
            let count = BUFFER.with_borrow_mut(|buffer| {
                let count = match stream.try_read(buffer) {
                    Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Ok(None),
                    count => count?,
                };
                response.feed(&buffer[..count])?;
                anyhow::Ok(Some(count))
            })?;
            ensure!(count != Some(0), "the answer broke off after {} bytes", response.payload_bytes());
            if response.payload_bytes() > 0 {
                first_byte_micros.get_or_insert_with(|| micros(began.elapsed()));
            }
        }
        ensure!(response.status() == 200, "status {}", response.status());
        ensure!(response.ends_with_done(), "the stream ended without [DONE]");
        let payload_bytes = response.payload_bytes();
        ensure!(
            self.expected_bytes == 0 || payload_bytes == self.expected_bytes,
            "{payload_bytes} bytes instead of {}",
            self.expected_bytes
        );
        self.idle.borrow_mut().entry(address).or_default().push((stream, Instant::now()));
        Ok(Exchange { first_byte_micros: first_byte_micros.context("an empty answer")?, payload_bytes })
    }

    async fn connection(&self, address: SocketAddr) -> Result<TcpStream> {
        let pooled = self.idle.borrow_mut().get_mut(&address).and_then(Vec::pop);
        if let Some((stream, since)) = pooled
            && since.elapsed() < IDLE_MAX
        {
            return Ok(stream);
        }
        // The last one used was too old, so all below it are.
        self.idle.borrow_mut().remove(&address);
        let stream = TcpStream::connect(address).await.context("connecting")?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    fn finish(&self, outcome: Outcome) -> Outcome {
        let running = self.running.take();
        Outcome { peak: running.peak, errors: running.errors, ..outcome }
    }
}

/// A streamed chat of about 200 tokens (at four to five bytes each).
fn request(conversation: usize, pace: Pace) -> Vec<u8> {
    let system = format!("You are assistant number {} and answer in one paragraph.", conversation / 16);
    let question = format!("Question {conversation}: ") + &"what is the time of day in the city ".repeat(24);
    let body = serde_json::json!({
        "model": MODEL, "stream": true, "max_tokens": super::stub::TOKENS, "user": pace.write(),
        "messages": [{"role": "system", "content": system}, {"role": "user", "content": question}],
    })
    .to_string();
    format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: bench\r\nauthorization: Bearer key-{conversation}\r\n\
         content-type: application/json\r\naccept: text/event-stream\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
