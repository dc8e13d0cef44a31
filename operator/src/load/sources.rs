//! From what gateways and pods report to samples of a history. Arrivals are counted at gateways, held requests
//! included; pods tell what was done, what is queued and what runs. Pure: `now` is an argument.
//!
//! Each gateway is a source of its own, because each remembers its own past. All pods together are one source: they
//! come and go all the time, and one that has gone must not look like one that has fallen silent.

use std::collections::{BTreeMap, BTreeSet};

use crds::report::{
    ARRIVAL_BIN_MS, ARRIVAL_BINS_MAX, DecodeWork, GatewayModel, GatewayReport, Load, Phase, Report,
};
use judgement::autoscale::{Counters, Levels, Millis, Recollection, Sample, Tokens};

use super::attained::{Answered, Attained, Recent};
use super::learned::{Expected, Finished, Learned};
use super::measure::Measured;
use super::objectives::Objectives;

/// A pod that was silent for longer is unknown: three reports of 2 s were missed.
const FRESH_MS: u64 = 6_000;
/// A pod that was silent for longer is gone, whatever it has said.
const GONE_MS: u64 = 60_000;
/// A pod that has just begun to report may be missing in a list that was read before.
const NEW_MS: u64 = 10_000;
/// Pods of one model that are listened to.
const PODS_MAX: usize = 512;
/// Batch sizes that an engine can have.
const BATCHES_MAX: usize = 256;

/// The source that all pods are together; gateways are numbered from 1.
const PODS: u64 = 0;

// === gateways ===

/// One gateway as far as one model is concerned. It is one source from its first report on: what it counted before is
/// in its bins.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Gateway {
    id: u64,
    first: Millis,
    last: Millis,
    uptime_ms: u64,
    sequence: u64,
    /// Requests, prompt tokens and the most that may be generated, as it has counted them.
    counted: [u64; 3],
    arrived: Expected,
}

impl Gateway {
    /// From its first report that tells of its past; without one nothing is known of it yet. Of its past only what was
    /// missed is taken.
    pub(super) fn first(
        id: u64,
        report: &GatewayReport,
        model: &GatewayModel,
        missed_ms: u64,
        learned: &Learned,
        now: Millis,
    ) -> Option<(Self, Recollection)> {
        let bins = model.recent_arrivals.as_ref()?;
        let gateway = Self {
            id,
            first: now,
            last: now,
            uptime_ms: report.uptime_ms,
            sequence: 0,
            counted: counted(model),
            arrived: Expected::default(),
        };
        let missed = usize::try_from(missed_ms.div_ceil(ARRIVAL_BIN_MS)).unwrap_or(usize::MAX);
        let bins =
            bins.iter().take(missed.min(ARRIVAL_BINS_MAX)).map(|bin| learned.expect(*bin).tokens()).collect();
        let sample = gateway.sample(model, learned);
        Some((gateway, Recollection { sample, bins }))
    }

    /// The next report; `None` if it is an old one that comes late.
    pub(super) fn next(
        &mut self,
        report: &GatewayReport,
        model: &GatewayModel,
        learned: &mut Learned,
        now: Millis,
    ) -> Option<Sample> {
        let has_restarted = report.uptime_ms < self.uptime_ms;
        if has_restarted && report.uptime_ms > now.since(self.last) + FRESH_MS {
            return None;
        }
        let counted = counted(model);
        let before = if has_restarted { [0; 3] } else { self.counted };
        let new: [u64; 3] = std::array::from_fn(|field| counted[field].saturating_sub(before[field]));
        learned.arrived(new[0], new[1]);
        self.arrived.add(learned.expect(new));
        (self.counted, self.uptime_ms, self.last) = (counted, report.uptime_ms, now);
        self.sequence += 1;
        Some(self.sample(model, learned))
    }

    /// When it last said something.
    pub(super) fn last(&self) -> Millis {
        self.last
    }

    fn sample(&self, model: &GatewayModel, learned: &Learned) -> Sample {
        let held: u64 = model.held.iter().map(|count| u64::from(*count)).sum();
        let queued = learned.expect([held, model.held_prompt_tokens, model.held_output_tokens]).tokens();
        Sample {
            source: self.id,
            started_at: self.first,
            sequence: self.sequence,
            at: self.last,
            // Held requests say nothing about how fast pods are, so this never claims that a queue lasted.
            counters: Counters {
                arrived: self.arrived.tokens(),
                no_queue_ms: self.last.0,
                ..Counters::default()
            },
            levels: Levels { queued, ..Levels::default() },
        }
    }
}

fn counted(model: &GatewayModel) -> [u64; 3] {
    [model.arrivals_total, model.arrived_prompt_tokens_total, model.arrived_output_tokens_total]
}

// === pods ===

/// All pods of one model.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Pods {
    by_uid: BTreeMap<String, Pod>,
    first: Option<Millis>,
    sequence: u64,
    done: Tokens,
    no_queue_ms: u64,
    answered: Recent,
}

/// One pod.
#[derive(Debug, Clone, PartialEq)]
struct Pod {
    first: Millis,
    last: Millis,
    is_leaving: bool,
    sums: Sums,
    answered: Answered,
    slots: u32,
    decode: Vec<DecodeWork>,
    prompt_micros: u64,
    queued: [u64; 2],
    in_flight: u64,
    kv_tokens: u64,
}

/// What grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Sums {
    done_prompt: u64,
    done_output: u64,
    no_queue_ms: u64,
    finished: Finished,
}

impl Sums {
    fn of(load: &Load) -> Self {
        let work = &load.work;
        Self {
            done_prompt: load.prompt_tokens_total.saturating_sub(load.cached_tokens_total),
            done_output: load.output_tokens_total,
            no_queue_ms: load.no_queue_ms_total,
            finished: Finished {
                requests: work.requests,
                prompt: work.prompt_tokens,
                uncached: work.uncached_tokens,
                // The first token of each answer is not among the decoded ones.
                output: work.decoded_tokens.saturating_add(work.requests),
            },
        }
    }

    /// What came to it since `before`; what has gone back is a new process, and counts from zero.
    fn since(self, before: Self) -> Self {
        let before =
            if self.done_output < before.done_output || self.finished.requests < before.finished.requests {
                Self::default()
            } else {
                before
            };
        Self {
            done_prompt: self.done_prompt.saturating_sub(before.done_prompt),
            done_output: self.done_output.saturating_sub(before.done_output),
            no_queue_ms: self.no_queue_ms.saturating_sub(before.no_queue_ms),
            finished: Finished {
                requests: self.finished.requests.saturating_sub(before.finished.requests),
                prompt: self.finished.prompt.saturating_sub(before.finished.prompt),
                uncached: self.finished.uncached.saturating_sub(before.finished.uncached),
                output: self.finished.output.saturating_sub(before.finished.output),
            },
        }
    }
}

impl Pods {
    /// Takes in a report of one pod; one that does not serve yet says nothing here.
    pub(super) fn take(&mut self, report: &Report, learned: &mut Learned, now: Millis) {
        let Some(load) = &report.load else { return };
        self.forget_silent(now);
        let before = self.by_uid.get(&report.pod_uid);
        if before.is_none() && self.by_uid.len() >= PODS_MAX {
            return;
        }
        let (sums, answered) = (Sums::of(load), Answered::of(load));
        if let Some(before) = before {
            let new = sums.since(before.sums);
            learned.finished(&new.finished);
            self.answered.add(&answered.since(&before.answered), now);
            self.no_queue_ms += new.no_queue_ms;
            self.done +=
                Tokens { requests: new.finished.requests, prompt: new.done_prompt, output: new.done_output };
        }
        let queued = load.queued.iter().map(|count| u64::from(*count)).sum();
        let pod = Pod {
            first: before.map_or(now, |before| before.first),
            last: now,
            is_leaving: matches!(report.phase, Phase::Draining),
            sums,
            answered,
            slots: load.slots,
            decode: load.work.decode.iter().take(BATCHES_MAX).copied().collect(),
            prompt_micros: load.work.prefill_us,
            queued: [queued, load.queued_prompt_tokens],
            in_flight: load.slots_busy.into(),
            kv_tokens: load.kv_tokens_used,
        };
        self.by_uid.insert(report.pod_uid.clone(), pod);
        self.first.get_or_insert(now);
    }

    /// Forgets pods that the API server does not know any more.
    pub(super) fn keep(&mut self, existing: &BTreeSet<String>, now: Millis) {
        self.by_uid.retain(|uid, pod| existing.contains(uid) || now.since(pod.first) < NEW_MS);
    }

    /// How the pods stand, if all of them have been heard of lately.
    pub(super) fn sample(&mut self, learned: &Learned, now: Millis) -> Option<Sample> {
        self.forget_silent(now);
        let first = self.first?;
        if self.by_uid.values().any(|pod| now.since(pod.last) > FRESH_MS) {
            return None;
        }
        self.sequence += 1;
        let mut queued = Expected::default();
        let mut levels = Levels::default();
        for pod in self.by_uid.values() {
            let [requests, prompt] = pod.queued;
            queued.add(learned.expect_queued(requests, prompt));
            levels.in_flight += pod.in_flight;
            levels.kv_tokens += pod.kv_tokens;
        }
        levels.queued = queued.tokens();
        let counters =
            Counters { done: self.done, no_queue_ms: self.no_queue_ms, arrived: Tokens::default() };
        Some(Sample { source: PODS, started_at: first, sequence: self.sequence, at: now, counters, levels })
    }

    /// How many of their answers met the goals lately.
    pub(super) fn attained(&self, goals: &Objectives, now: Millis) -> Attained {
        self.answered.attained(goals, now)
    }

    /// Their work.
    pub(super) fn measured(&self) -> Measured {
        let mut measured = Measured::default();
        for pod in self.by_uid.values() {
            measured.add(pod.slots, &pod.decode, pod.sums.finished.uncached, pod.prompt_micros);
        }
        measured
    }

    fn forget_silent(&mut self, now: Millis) {
        self.by_uid.retain(|_, pod| {
            let limit_ms = if pod.is_leaving { FRESH_MS } else { GONE_MS };
            now.since(pod.last) <= limit_ms
        });
    }
}
