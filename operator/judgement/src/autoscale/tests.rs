//! What the tests of the judgement share: reports as they come, and what they make of a history.

mod properties;
mod situations;

use super::*;

/// A pod of 8 slots; a mean conversation of 1 155 + 211 tokens is 1.09 pod-seconds there.
const POD: PodModel = PodModel {
    slots: 8,
    prefill_tokens_per_second: 3_000,
    step_base_us: 18_000,
    step_per_request_us: 2_000,
    kv_tokens: None,
};

const START: Millis = Millis(1_000_000);

fn requests(count: u64) -> Tokens {
    Tokens { requests: count, prompt: 1_155 * count, output: 211 * count }
}

/// Reports every 2 s of so many arrivals each, and how things stand at the last.
fn reports(arrivals: &[u64], last: Levels) -> Vec<Sample> {
    let mut counters = Counters::default();
    let mut samples = Vec::new();
    for (index, count) in (0..).zip(arrivals) {
        counters.arrived += requests(*count);
        let levels = if index + 1 == arrivals.len() as u64 { last } else { Levels::default() };
        samples.push(Sample {
            source: 1,
            started_at: Millis(0),
            sequence: index,
            at: START + 2_000 * index,
            counters,
            levels,
        });
    }
    samples
}

fn seen(samples: &[Sample]) -> History {
    let mut history = History::default();
    for sample in samples {
        history.observe(*sample);
    }
    history
}

fn steady(reports_count: usize, arrivals: u64) -> History {
    steady_of(&vec![arrivals; reports_count])
}

/// So many arrivals in each report, and nobody waits.
fn steady_of(arrivals: &[u64]) -> History {
    seen(&reports(arrivals, Levels::default()))
}

/// The looks of the last 90 s wanted nothing, so that nothing but what a test is about holds a scale-down back.
fn watched(mut history: History, now: Millis) -> History {
    let look = decide(&Policy::between(0, 1), &History::default(), &ready(0), now);
    for age in (1..=22).rev() {
        let limits = Vec::new();
        history.settle(&Decision { at: now - 4_000 * age, wanted: 0, limits, ..look.clone() });
    }
    history
}

/// So many ready pods that load in 90 s; the controller is old.
fn ready(pods: u32) -> Current {
    Current {
        pod: POD,
        ready: pods,
        pending: Vec::new(),
        last_ready_at: None,
        load_ms: 90_000,
        started_at: Millis(0),
        is_canary_judged: false,
    }
}

fn end(reports_count: usize) -> Millis {
    START + 2_000 * (reports_count as u64 - 1)
}
