//! Traffic beside a disruption: requests at a fixed rate, every other one a stream, whatever becomes of them. Each is
//! noted with its time and its end; none is tried again.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::client::{Client, chat};

/// Longest wait for requests to end: an answer takes a fraction of a second, a held one as long as a start.
const PATIENCE: Duration = Duration::from_secs(120);

/// Running traffic.
#[derive(Debug)]
pub struct Traffic {
    shared: Arc<Shared>,
    thread: std::thread::JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Shared {
    is_over: AtomicBool,
    log: Mutex<Log>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Log {
    sent: usize,
    ended: Vec<Request>,
}

/// A request that has ended.
#[derive(Debug, Clone)]
pub struct Request {
    /// In the order of sending, from 0.
    pub number: usize,
    /// Since the traffic began.
    pub sent_after: Duration,
    /// How long it took.
    pub took: Duration,
    /// The revision that answered, or why there is no answer.
    pub end: Result<String, String>,
}

/// What became of all requests.
#[derive(Debug, Default)]
pub struct Served {
    /// Those that ended.
    pub requests: Vec<Request>,
}

impl Served {
    /// One line for each request that failed, with its time.
    pub fn failures(&self) -> Vec<String> {
        let failed = |request: &Request| {
            let cause = request.end.as_ref().err()?;
            let at = request.sent_after.as_secs_f64();
            Some(format!("{at:.1} s: request {} after {:?}: {cause}", request.number, request.took))
        };
        self.requests.iter().filter_map(failed).collect()
    }

    /// Answers by revision.
    pub fn revisions(&self) -> BTreeMap<&str, usize> {
        let mut counts = BTreeMap::new();
        for revision in self.requests.iter().filter_map(|request| request.end.as_deref().ok()) {
            *counts.entry(revision).or_default() += 1;
        }
        counts
    }

    /// Says how many requests there were and fails if one of them did.
    pub fn assert_all_answered(&self, through: &str) {
        let failures = self.failures();
        let slowest = self.requests.iter().map(|request| request.took).max().unwrap_or_default();
        println!(
            "{through}: {} requests, {} failed, slowest {slowest:?}, by revision {:?}",
            self.requests.len(),
            failures.len(),
            self.revisions()
        );
        assert!(
            failures.is_empty(),
            "{through}: of {} requests failed:\n{}",
            self.requests.len(),
            failures.join("\n")
        );
    }
}

impl Traffic {
    /// Asks `model` so many times per second, each time in another conversation, so that all pods and all revisions get
    /// some. Streams and plain requests alternate.
    pub fn start(client: Client, model: &str, per_second: u32) -> Self {
        let shared = Arc::new(Shared::default());
        let (for_thread, model) = (shared.clone(), model.to_owned());
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime
                .expect("a runtime needs two descriptors")
                .block_on(drive(client, model, per_second, for_thread));
        });
        Self { shared, thread }
    }

    /// Waits until so many requests have ended that were sent from now on, and returns them.
    pub fn after(&self, count: usize) -> Served {
        let log = self.shared.log.lock().expect("nobody panics with this lock");
        let first = log.sent;
        let is_waiting =
            |log: &mut Log| log.ended.iter().filter(|request| request.number >= first).count() < count;
        let (log, timeout) = self
            .shared
            .changed
            .wait_timeout_while(log, PATIENCE, is_waiting)
            .expect("nobody panics with this lock");
        assert!(!timeout.timed_out(), "{count} requests did not end in {PATIENCE:?}");
        let requests = log.ended.iter().filter(|request| request.number >= first).cloned().collect();
        Served { requests }
    }

    /// Sends no more, waits for the last end and returns everything.
    pub fn stop(self) -> Served {
        self.shared.is_over.store(true, Ordering::Relaxed);
        self.thread.join().expect("the traffic panicked");
        let mut log = self.shared.log.lock().expect("nobody panics with this lock");
        Served { requests: std::mem::take(&mut log.ended) }
    }
}

async fn drive(client: Client, model: String, per_second: u32, shared: Arc<Shared>) {
    let began = Instant::now();
    let mut beat = tokio::time::interval(Duration::from_secs(1) / per_second);
    let mut running = tokio::task::JoinSet::new();
    for number in 0.. {
        beat.tick().await;
        if shared.is_over.load(Ordering::Relaxed) {
            break;
        }
        shared.log.lock().expect("nobody panics with this lock").sent = number + 1;
        let (client, body, shared) = (client.clone(), body(&model, number), shared.clone());
        running.spawn(async move {
            let sent = Instant::now();
            let answer =
                if number.is_multiple_of(2) { client.stream(&body).await } else { client.ask(&body).await };
            let end = answer.map(|answer| answer.revision).map_err(|failure| failure.to_string());
            let (sent_after, took) = (sent.duration_since(began), sent.elapsed());
            let mut log = shared.log.lock().expect("nobody panics with this lock");
            log.ended.push(Request { number, sent_after, took, end });
            shared.changed.notify_all();
        });
    }
    running.join_all().await;
}

/// A short answer to a question that nobody has asked before.
fn body(model: &str, number: usize) -> Value {
    let mut body = chat(model, &format!("hello number {number}"));
    body["max_tokens"] = json!(16);
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(number: usize, end: Result<&str, &str>) -> Request {
        let end = end.map(str::to_owned).map_err(str::to_owned);
        Request { number, sent_after: Duration::from_secs(1), took: Duration::ZERO, end }
    }

    #[test]
    fn failures_and_revisions_are_told_apart() {
        let served =
            Served { requests: vec![request(0, Ok("a")), request(1, Err("reset")), request(2, Ok("a"))] };
        assert_eq!(served.revisions(), BTreeMap::from([("a", 2)]));
        assert_eq!(served.failures(), ["1.0 s: request 1 after 0ns: reset"]);
    }

    #[test]
    fn a_refused_connection_is_a_failure_that_is_noted() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let client = Client::new(format!("http://{address}/v1")).unwrap();
        let traffic = Traffic::start(client, "any", 100);
        let served = traffic.after(3);
        assert!(served.requests.len() >= 3);
        assert_eq!(served.failures().len(), served.requests.len());
        assert!(traffic.stop().failures().len() >= 3);
    }
}
