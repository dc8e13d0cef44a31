//! Our rule as the operator runs it: reports come in, every four seconds [`judgement::autoscale::decide`] is asked, and
//! what can go wrong on the way does.

use std::collections::VecDeque;
use std::time::Instant;

use judgement::autoscale::{
    Counters, Current, Decision, History, Levels, Millis, OutputLengths, PodModel, Policy, Sample, Tokens,
    decide, replay,
};
use rand::RngExt as _;

use super::super::arrivals::Request;
use super::super::random::{Random, stream};
use super::fleet::{Fleet, LoadTime};

/// Seconds between two reports.
pub const REPORT_S: f64 = 2.0;
/// Seconds between two looks.
pub const LOOK_S: f64 = 4.0;

/// `max_tokens` that every simulated request allows; the traces' longest answers are shorter.
const MAX_TOKENS: u32 = 2_048;

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct Faults {
    /// Share of reports that are lost.
    pub loss: f64,
    /// Seconds by which reports come late.
    pub delay_s: f64,
    /// Nothing is reported for the second number of seconds, every first number of seconds.
    pub blackout_s: Option<(f64, f64)>,
    /// The controller restarts after so many seconds, its history lost.
    pub restart_s: Option<f64>,
    /// What a pod is believed to do, as a multiple of what it does.
    pub belief: f64,
    /// Answers' lengths are learned and not known.
    pub learns_lengths: bool,
}

impl Faults {
    /// Nothing goes wrong.
    pub const NONE: Self = Self {
        loss: 0.0,
        delay_s: 0.0,
        blackout_s: None,
        restart_s: None,
        belief: 1.0,
        learns_lengths: false,
    };
}

/// What must never happen, counted, and what the decisions cost.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize)]
pub struct Checks {
    /// Decisions made.
    pub decisions: usize,
    /// Decisions that were replayed, from JSON, by a fresh function.
    pub replayed: usize,
    /// Of those, how many came out different.
    pub replay_differences: usize,
    /// Scale-downs within 120 s of a start.
    pub early_downs: usize,
    /// Scale-downs on reports older than 6 s.
    pub stale_downs: usize,
    /// The longest decision, microseconds.
    pub longest_us: f64,
    /// All decisions together, microseconds.
    pub total_us: f64,
}

impl Checks {
    /// Adds those of another run.
    pub fn add(&mut self, other: &Self) {
        self.decisions += other.decisions;
        self.replayed += other.replayed;
        self.replay_differences += other.replay_differences;
        self.early_downs += other.early_downs;
        self.stale_downs += other.stale_downs;
        self.longest_us = self.longest_us.max(other.longest_us);
        self.total_us += other.total_us;
    }
}

/// The controller.
#[derive(Debug)]
pub struct Ours {
    policy: Policy,
    faults: Faults,
    believed: PodModel,
    load_ms: u64,
    random: Random,
    history: History,
    started_at: Millis,
    sequence: u64,
    arrived: Tokens,
    lengths: OutputLengths,
    /// Expected answers of all requests that came, by their place.
    expected: Vec<u32>,
    /// Reports on their way.
    late: VecDeque<(f64, Sample)>,
    newest_report: Option<Millis>,
    replays_each: bool,
    /// What was counted.
    pub checks: Checks,
    /// The last decision.
    pub last: Option<Decision>,
}

/// The simulation begins an hour into its clock, so that nothing runs into its beginning.
fn clock(now_s: f64) -> Millis {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "seconds of a few hours")]
    Millis(3_600_000 + (now_s * 1_000.0).round() as u64)
}

impl Ours {
    /// Starts at time 0. With `replays_each` every decision is replayed, which doubles the time it takes.
    pub fn new(
        policy: Policy,
        pod: PodModel,
        load_time: LoadTime,
        faults: Faults,
        seed: u64,
        replays_each: bool,
    ) -> Self {
        Self {
            policy,
            faults,
            believed: believe(pod, faults.belief),
            load_ms: millis(load_time.p90_s()),
            random: stream(seed, "faults"),
            history: History::default(),
            started_at: clock(0.0),
            sequence: 0,
            arrived: Tokens::default(),
            lengths: OutputLengths::default(),
            expected: Vec::new(),
            late: VecDeque::new(),
            newest_report: None,
            replays_each,
            checks: Checks::default(),
            last: None,
        }
    }

    /// A request has come to the gateway.
    pub fn arrived(&mut self, request: &Request) {
        let output =
            if self.faults.learns_lengths { self.lengths.expect(MAX_TOKENS) } else { request.output_tokens };
        self.expected.push(output);
        self.arrived += Tokens { requests: 1, prompt: request.prompt_tokens.into(), output: output.into() };
    }

    /// A request has been answered.
    pub fn finished(&mut self, request: &Request) {
        self.lengths.finished(MAX_TOKENS, request.output_tokens);
    }

    /// The gateway reports, if nothing goes wrong.
    pub fn report(&mut self, now_s: f64, fleet: &Fleet, requests: &[Request]) {
        let sample = self.sample(now_s, fleet, requests);
        let dark =
            self.faults.blackout_s.is_some_and(|(every_s, length_s)| now_s % every_s > every_s - length_s);
        if !dark && self.random.random::<f64>() >= self.faults.loss {
            self.late.push_back((now_s + self.faults.delay_s, sample));
        }
        while self.late.front().is_some_and(|(due_s, _)| *due_s <= now_s)
            && let Some((_, sample)) = self.late.pop_front()
        {
            self.newest_report = self.newest_report.max(Some(sample.at));
            self.history.observe(sample);
        }
    }

    fn sample(&mut self, now_s: f64, fleet: &Fleet, requests: &[Request]) -> Sample {
        self.sequence += 1;
        let queued = fleet.queue().fold(Tokens::default(), |sum, index| {
            let prompt = requests[index].prompt_tokens.into();
            sum + Tokens { requests: 1, prompt, output: self.expected[index].into() }
        });
        let (prompt, output) = fleet.done();
        let done = Tokens { requests: 0, prompt: whole(prompt), output: whole(output) };
        let counters = Counters { arrived: self.arrived, done, no_queue_ms: millis(fleet.no_queue_s) };
        let levels = Levels { queued, in_flight: fleet.in_flight().into(), kv_tokens: 0 };
        Sample {
            source: 0,
            started_at: clock(0.0),
            sequence: self.sequence,
            at: clock(now_s),
            counters,
            levels,
        }
    }

    /// Decides how many replicas there shall be.
    pub fn look(&mut self, now_s: f64, fleet: &Fleet) -> u32 {
        let now = clock(now_s);
        let is_over = |every_s| now.since(self.started_at) >= millis(every_s);
        if self.faults.restart_s.is_some_and(is_over) {
            self.history = History::default();
            self.started_at = now;
        }
        let current = Current {
            pod: self.believed,
            ready: fleet.ready(),
            pending: fleet.expected_s().into_iter().map(clock).collect(),
            last_ready_at: fleet.last_ready_s.map(clock),
            load_ms: self.load_ms,
            started_at: self.started_at,
            is_canary_judged: false,
        };
        let begin = Instant::now();
        self.history.calibrate(&current);
        let decision = decide(&self.policy, &self.history, &current, now);
        self.history.settle(&decision);
        let us = begin.elapsed().as_secs_f64() * 1e6;
        self.check(&decision, now, us);
        let desired = decision.desired;
        self.last = Some(decision);
        desired
    }

    fn check(&mut self, decision: &Decision, now: Millis, us: f64) {
        let checks = &mut self.checks;
        checks.decisions += 1;
        checks.total_us += us;
        checks.longest_us = checks.longest_us.max(us);
        if decision.desired < decision.current {
            checks.early_downs += usize::from(now.since(self.started_at) < 120_000);
            let age_ms = self.newest_report.map_or(u64::MAX, |at| now.since(at));
            checks.stale_downs += usize::from(age_ms > 6_000);
        }
        // One in ten of them also goes through JSON, as it is stored.
        if self.replays_each {
            checks.replayed += 1;
            let again = if checks.decisions.is_multiple_of(10) { stored(decision) } else { None };
            let is_same = replay(again.as_ref().unwrap_or(decision)) == *decision;
            checks.replay_differences += usize::from(!is_same);
        }
    }
}

/// The decision after a journey through JSON.
fn stored(decision: &Decision) -> Option<Decision> {
    serde_json::to_string(decision).ok().and_then(|text| serde_json::from_str(&text).ok())
}

/// What is believed of a pod that really does what `pod` says.
fn believe(pod: PodModel, factor: f64) -> PodModel {
    let less = |us: u32| whole_u32(f64::from(us) / factor);
    PodModel {
        prefill_tokens_per_second: whole_u32(f64::from(pod.prefill_tokens_per_second) * factor),
        step_base_us: less(pod.step_base_us),
        step_per_request_us: less(pod.step_per_request_us),
        ..pod
    }
}

fn millis(seconds: f64) -> u64 {
    whole(seconds * 1_000.0)
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "counts of one run")]
fn whole(count: f64) -> u64 {
    count.round() as u64
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "microseconds and rates of a pod"
)]
fn whole_u32(count: f64) -> u32 {
    count.round() as u32
}
