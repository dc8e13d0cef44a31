//! Whether an endpoint that has failed lately gets requests. Pure; `now` is an argument.
//!
//! Closed: everything goes through and failures are counted. Open: nothing goes. Then one probe goes; its success
//! closes, its failure opens again, and a client that leaves before the verdict makes room for the next probe.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// So many failures within [`WINDOW`] open. One is no evidence (a pod that is replaced resets a connection or two); five
/// within half a minute are a pod that Kubernetes will notice a probe period or two later than we do.
const FAILURES_MAX: usize = 5;

/// See [`FAILURES_MAX`].
const WINDOW: Duration = Duration::from_secs(30);

/// How long nothing goes, and how long a probe may be without verdict before another one goes: the kubelet's default
/// probe period, after which the view may know more.
const OPEN_FOR: Duration = Duration::from_secs(10);

/// One endpoint's breaker.
#[derive(Debug, Default)]
pub struct Breaker {
    /// Failures within the window, oldest first; fewer than [`FAILURES_MAX`].
    failures: VecDeque<Instant>,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum State {
    /// → Open.
    #[default]
    Closed,
    /// → Probing, after that time.
    Open { until: Instant },
    /// → Closed, Open, or Probing again.
    Probing { since: Instant },
}

/// What a breaker lets through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Passage {
    /// Everything.
    Free,
    /// One probe.
    Probe,
    /// Nothing.
    Barred,
}

impl Breaker {
    /// What goes through at `now`.
    pub fn passage(&self, now: Instant) -> Passage {
        match self.state {
            State::Closed => Passage::Free,
            State::Open { until } if now >= until => Passage::Probe,
            State::Probing { since } if now >= since + OPEN_FOR => Passage::Probe,
            State::Open { .. } | State::Probing { .. } => Passage::Barred,
        }
    }

    /// A request goes. Returns whether it is the probe.
    pub fn enter(&mut self, now: Instant) -> bool {
        let is_probe = self.passage(now) == Passage::Probe;
        if is_probe {
            self.state = State::Probing { since: now };
        }
        is_probe
    }

    /// A request was answered. Only the probe's answer closes: others were sent before the trouble.
    pub fn succeeded(&mut self, is_probe: bool) {
        if is_probe {
            *self = Self::default();
        }
    }

    /// A request failed.
    pub fn failed(&mut self, is_probe: bool, now: Instant) {
        match self.state {
            State::Closed => {
                while self.failures.front().is_some_and(|at| now.saturating_duration_since(*at) > WINDOW) {
                    self.failures.pop_front();
                }
                self.failures.push_back(now);
                if self.failures.len() >= FAILURES_MAX {
                    self.open(now);
                }
            }
            State::Probing { .. } if is_probe => self.open(now),
            State::Open { .. } | State::Probing { .. } => {}
        }
    }

    /// The probe's client left before there was a verdict: the next request is the probe.
    pub fn probe_left(&mut self) {
        if let State::Probing { since } = self.state {
            self.state = State::Open { until: since };
        }
    }

    /// Whether nothing is wrong: requests go through and none has failed lately.
    pub fn is_closed(&self) -> bool {
        self.state == State::Closed
    }

    fn open(&mut self, now: Instant) {
        self.failures.clear();
        self.state = State::Open { until: now + OPEN_FOR };
    }
}

#[cfg(test)]
mod tests {
    use super::Passage::{Barred, Free, Probe};
    use super::*;

    /// Failures at the given seconds; what goes at `at_ms`.
    fn check(failures_s: &[u64], at_ms: u64, expected: Passage) {
        let start = Instant::now();
        let mut breaker = Breaker::default();
        for second in failures_s {
            breaker.failed(false, start + Duration::from_secs(*second));
        }
        assert_eq!(breaker.passage(start + Duration::from_millis(at_ms)), expected, "{failures_s:?} {at_ms}");
    }

    fn opened(start: Instant) -> Breaker {
        let mut breaker = Breaker::default();
        (0..5).for_each(|_| breaker.failed(false, start));
        breaker
    }

    #[test]
    fn five_failures_in_thirty_seconds_open_for_ten() {
        check(&[0, 1, 2, 3], 3_000, Free);
        check(&[0, 1, 2, 3, 4], 4_000, Barred);
        check(&[0, 1, 2, 3, 4], 13_999, Barred);
        check(&[0, 1, 2, 3, 4], 14_000, Probe);
        check(&[0, 10, 20, 30, 30], 30_000, Barred);
        check(&[0, 10, 20, 30, 31], 31_000, Free);
    }

    #[test]
    fn one_probe_goes_and_its_verdict_decides() {
        let start = Instant::now();
        let later = start + Duration::from_secs(10);
        let mut breaker = opened(start);
        assert!(!breaker.enter(start), "nothing is a probe while it is open");
        assert!(breaker.enter(later));
        assert_eq!(breaker.passage(later), Barred, "one probe at a time");
        breaker.succeeded(false);
        breaker.failed(false, later);
        assert_eq!(breaker.passage(later), Barred, "requests from before say nothing");
        breaker.failed(true, later);
        assert_eq!(breaker.passage(later + Duration::from_secs(9)), Barred);
        assert!(breaker.enter(later + Duration::from_secs(10)));
        breaker.succeeded(true);
        assert_eq!(breaker.passage(later), Free);
        breaker.failed(false, later);
        assert_eq!(breaker.passage(later), Free, "old failures are forgotten");
    }

    #[test]
    fn a_probe_that_leaves_or_hangs_makes_room_for_another() {
        let start = Instant::now();
        let later = start + Duration::from_secs(10);
        let mut breaker = opened(start);
        breaker.enter(later);
        breaker.probe_left();
        assert_eq!(breaker.passage(later), Probe);
        breaker.enter(later);
        assert_eq!(breaker.passage(later + Duration::from_secs(9)), Barred);
        assert_eq!(breaker.passage(later + Duration::from_secs(10)), Probe);
    }
}
