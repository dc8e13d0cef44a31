//! One pod as this gateway sees it, and the right to send it a request. Counters are atomic, so that choosing takes no
//! lock; the breaker's lock is taken only while something is wrong.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use super::breaker::{Breaker, Passage};
use crate::gateway::view::EndpointView;

/// Part of the newest measurement in the rate: the last ten or so answers count.
const RATE_NEW: f64 = 0.2;

/// A pod.
#[derive(Debug)]
pub(super) struct Endpoint {
    pub(super) address: SocketAddr,
    pub(super) pod: String,
    /// Whether the latest view gives it new requests.
    pub(super) is_ready: AtomicBool,
    /// Whether any view has.
    pub(super) was_ready: AtomicBool,
    tokens: AtomicU64,
    requests: AtomicU64,
    /// Bits of an `f64`, tokens per second; zero before the first measurement.
    rate: AtomicU64,
    /// Whether the breaker lets everything through; follows `breaker`.
    is_free: AtomicBool,
    breaker: Mutex<Breaker>,
}

/// The right to send one request to an endpoint. It carries the request's work: dropping it, whenever and wherever that
/// happens, gives the work back. Without a verdict ([`Self::answered`], [`Self::succeeded`], [`Self::failed`]) it says
/// nothing about the pod: its client has left.
#[derive(Debug)]
pub struct Lease {
    endpoint: Arc<Endpoint>,
    work: u64,
    /// Requests there when it began, with this one.
    requests_before: u64,
    /// Whether it probes an open breaker and the verdict is still out.
    is_probe: bool,
}

impl Endpoint {
    pub(super) fn new(view: &EndpointView) -> Self {
        Self {
            address: view.address,
            pod: view.pod.clone(),
            is_ready: AtomicBool::new(view.is_ready),
            was_ready: AtomicBool::new(view.is_ready),
            tokens: AtomicU64::new(0),
            requests: AtomicU64::new(0),
            rate: AtomicU64::new(0),
            is_free: AtomicBool::new(true),
            breaker: Mutex::default(),
        }
    }

    /// Whether this is the pod of the view: the next pod on the same address is another one.
    pub(super) fn is(&self, view: &EndpointView) -> bool {
        self.address == view.address && self.pod == view.pod
    }

    /// What tells it from all others, the same in every gateway.
    pub(super) fn id(&self) -> Vec<u8> {
        format!("{}/{}", self.address, self.pod).into_bytes()
    }

    /// Tokens of work in flight.
    pub(super) fn tokens(&self) -> u64 {
        self.tokens.load(Ordering::Relaxed)
    }

    /// Requests in flight.
    pub(super) fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// Measured tokens per second.
    pub(super) fn rate(&self) -> Option<f64> {
        Some(f64::from_bits(self.rate.load(Ordering::Relaxed))).filter(|rate| *rate > 0.0)
    }

    /// What the breaker lets through.
    pub(super) fn passage(&self, now: Instant) -> Passage {
        if self.is_free.load(Ordering::Relaxed) { Passage::Free } else { self.breaker().passage(now) }
    }

    /// A request of so much work goes there.
    pub(super) fn lease(self: Arc<Self>, work: u64, now: Instant) -> Lease {
        let is_probe = !self.is_free.load(Ordering::Relaxed) && self.breaker().enter(now);
        self.tokens.fetch_add(work, Ordering::Relaxed);
        let requests_before = self.requests.fetch_add(1, Ordering::Relaxed) + 1;
        Lease { endpoint: self, work, requests_before, is_probe }
    }

    fn breaker(&self) -> MutexGuard<'_, Breaker> {
        self.breaker.lock().expect("no code that holds this lock can panic half-way through a change")
    }

    fn with_breaker(&self, change: impl FnOnce(&mut Breaker)) {
        let mut breaker = self.breaker();
        change(&mut breaker);
        self.is_free.store(breaker.is_closed(), Ordering::Relaxed);
    }

    /// By Little's law the pod's rate is that of one request times the requests beside which it ran.
    fn measure(&self, work: u64, took: Duration, side_by_side: f64) {
        if took.is_zero() {
            return;
        }
        let newest = work as f64 / took.as_secs_f64() * side_by_side;
        let rate = self.rate().map_or(newest, |rate| rate + RATE_NEW * (newest - rate));
        // Two answers in the same instant may lose one measurement.
        self.rate.store(rate.to_bits(), Ordering::Relaxed);
    }
}

impl Lease {
    /// Where to send.
    pub fn address(&self) -> SocketAddr {
        self.endpoint.address
    }

    /// Which pod that is.
    pub fn pod(&self) -> &str {
        &self.endpoint.pod
    }

    /// Whether the pod has left or is leaving by the latest view.
    pub fn is_draining(&self) -> bool {
        !self.endpoint.is_ready.load(Ordering::Relaxed)
    }

    /// The pod's answer has begun, whatever its status, unless it blames the pod.
    pub fn answered(&mut self, _now: Instant) {
        if std::mem::take(&mut self.is_probe) {
            self.endpoint.with_breaker(|breaker| breaker.succeeded(true));
        }
    }

    /// The answer is complete, `took` since the request was sent.
    pub fn succeeded(&mut self, now: Instant, took: Duration) {
        self.answered(now);
        let side_by_side = (self.requests_before + self.endpoint.requests().max(1)) as f64 / 2.0;
        self.endpoint.measure(self.work, took, side_by_side);
    }

    /// No connection, a reset, a broken answer, or one that blames the pod.
    pub fn failed(&mut self, now: Instant) {
        let is_probe = std::mem::take(&mut self.is_probe);
        self.endpoint.with_breaker(|breaker| breaker.failed(is_probe, now));
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.endpoint.tokens.fetch_sub(self.work, Ordering::Relaxed);
        self.endpoint.requests.fetch_sub(1, Ordering::Relaxed);
        if self.is_probe {
            self.endpoint.with_breaker(Breaker::probe_left);
        }
    }
}
