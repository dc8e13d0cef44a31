//! Everything that is known about a rollout, as one value that can be stored, sent and replayed. It changes only by
//! [`Evidence::observe`]; what it amounts to is for [`super::judge`] to say.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::gates::{CountGate, RecentMisses, SplitGate, Tally};
use super::observation::{FinishedRequest, Observation, Part, PodReport};
use super::people::StepReport;
use super::pods::{PodEvidence, close_block};
use super::policy::{Analysis, Method, Objectives};
use super::work::CostModels;

/// Traffic that has just moved is unlike itself (caches are cold, connections new): this long after the canary's
/// first request nothing about speed counts.
const WARM_MS: u64 = 30_000;
/// A pod is slower while it is young: clocks, page tables, allocator.
const POD_AGE_MS: u64 = 60_000;
/// Pods kept per rollout; reports of further ones are dropped. No pool of ours has as many, and each costs about 4 kB.
const PODS_MAX: usize = 2_000;
/// Reports of steps kept.
const STEPS_MAX: usize = 20;
/// More work than this many times the prediction is in the tail.
const TAIL: f64 = 2.0;
/// Prompts faster than this are never in the tail: their time is one scheduling hiccup.
const TAIL_PREFILL_MICROS: u64 = 30_000;
/// Looks of a group-sequential analysis, evenly spaced over the expected requests.
pub(super) const GROUP_LOOKS: u32 = 5;

/// The running state of one rollout's analysis.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Evidence {
    pub(super) analysis: Analysis,
    /// The kind of node that is compared; pods on others are only counted.
    node_class: String,
    models: CostModels,
    pub(super) pods: BTreeMap<String, PodEvidence>,
    /// When the block that is filling began; `None` before the first observation.
    block_began_ms: Option<u64>,
    /// When the canary first had traffic.
    pub(super) exposed_ms: Option<u64>,
    pub(super) seen_ms: u64,
    pub(super) errors: CountGate,
    pub(super) engine_tail: CountGate,
    pub(super) cache_reuse: CountGate,
    pub(super) slot_wait: CountGate,
    pub(super) slo_miss: CountGate,
    pub(super) recent_misses: RecentMisses,
    pub(super) split: SplitGate,
    /// Shares of the planned information at which tests at fixed times have looked, the latest last.
    pub(super) looks: Vec<f64>,
    /// Whether such a test may look now.
    pub(super) is_look: bool,
    steps: Vec<StepReport>,
}

impl Evidence {
    /// Nothing is known yet. `node_class` is the kind of node that the canary's pods run on.
    pub fn new(analysis: Analysis, node_class: &str) -> Self {
        Self {
            models: CostModels::new(analysis.stable_slots),
            analysis,
            node_class: node_class.to_owned(),
            pods: BTreeMap::new(),
            block_began_ms: None,
            exposed_ms: None,
            seen_ms: 0,
            errors: CountGate::worse(),
            engine_tail: CountGate::far_more(),
            cache_reuse: CountGate::twice(),
            slot_wait: CountGate::twice(),
            slo_miss: CountGate::worse(),
            recent_misses: RecentMisses::default(),
            split: SplitGate::new(),
            looks: Vec::new(),
            is_look: false,
            steps: Vec::new(),
        }
    }

    /// What users of each step saw, the running one last.
    pub fn steps(&self) -> &[StepReport] {
        &self.steps
    }

    /// What the verdict is made by.
    pub fn analysis(&self) -> &Analysis {
        &self.analysis
    }

    /// Since when the canary has had traffic.
    pub fn exposed_ms(&self) -> Option<u64> {
        self.exposed_ms
    }

    /// Whether a block has just ended: between two such moments the gates on speed do not change.
    pub fn has_block_ended(&self) -> bool {
        self.block_began_ms == Some(self.seen_ms)
    }

    /// Takes in what arrived since the last call. Begin some minutes before the canary gets traffic: the cost models
    /// learn from control meanwhile. An observation older than the last is dropped.
    pub fn observe(&mut self, observation: &Observation) {
        if observation.at_ms < self.seen_ms {
            return;
        }
        self.begin(observation);
        self.seen_ms = observation.at_ms;
        self.is_look = false;
        let had_traffic = self.exposed_ms.is_some();
        let mut misses = [Tally::default(); 2];
        for report in &observation.pods {
            self.take_in(report, had_traffic, &mut misses);
        }
        if had_traffic {
            self.errors.close(f64::from(observation.weight_basis_points) / 10_000.0);
            for gate in
                [&mut self.engine_tail, &mut self.cache_reuse, &mut self.slot_wait, &mut self.slo_miss]
            {
                gate.close(0.0);
            }
            self.recent_misses.push(observation.at_ms, misses);
            self.split.observe(observation.new_conversations, observation.weight_basis_points);
        } else {
            self.errors.set_aside();
            self.engine_tail.set_aside();
        }
        self.end_block(observation.at_ms);
        self.look(observation.ends_step);
        if observation.ends_step && had_traffic && self.steps.len() < STEPS_MAX {
            self.steps.push(StepReport::new(observation.at_ms));
        }
    }

    /// Blocks and steps count from the canary's first traffic.
    fn begin(&mut self, observation: &Observation) {
        if self.block_began_ms.is_none() {
            self.seen_ms = observation.at_ms;
            self.block_began_ms = Some(observation.at_ms);
        }
        if self.exposed_ms.is_none() && observation.weight_basis_points > 0 {
            // The weight is that since the last observation: the canary's traffic began there.
            self.exposed_ms = Some(self.seen_ms);
            self.steps.push(StepReport::new(self.seen_ms));
            self.close(self.seen_ms);
        }
    }

    fn take_in(&mut self, report: &PodReport, had_traffic: bool, misses: &mut [Tally; 2]) {
        let Self { pods, models, node_class, analysis, .. } = self;
        if pods.len() >= PODS_MAX && !pods.contains_key(&report.pod) {
            return;
        }
        let is_of_the_class = report.node_class == *node_class;
        if !pods.contains_key(&report.pod) {
            pods.insert(report.pod.clone(), PodEvidence::new(report, is_of_the_class));
        }
        let Some(pod) = pods.get_mut(&report.pod) else { return };
        let counts = pod.observe(report, models);
        let mut tail = Tally::default();
        let mut waits = Tally::default();
        let mut slo = Tally::default();
        for request in &report.requests {
            tail.trials += u64::from(request.has_prompt());
            tail.events += u64::from(is_in_the_tail(models, request));
            pod.observe_request(request, models);
            if request.has_prompt() {
                waits.trials += 1;
                waits.events +=
                    u64::from(request.has_waited && request.in_flight_before < analysis.stable_slots);
            }
            if request.has_ended() {
                let is_missed = misses_objective(analysis.objectives, request);
                slo.trials += u64::from(is_missed.is_some());
                slo.events += u64::from(is_missed == Some(true));
                if had_traffic && let Some(step) = self.steps.last_mut() {
                    step.observe(report.arm, request);
                }
            }
        }
        if let Some(step) = self.steps.last_mut() {
            step.until_ms = self.seen_ms;
        }
        let attempts = Tally { trials: counts.first_attempts, events: counts.first_attempt_errors };
        self.errors.add(report.arm, &report.pod, attempts.trials, attempts.events);
        self.engine_tail.add(report.arm, &report.pod, tail.trials, tail.events);
        if !had_traffic {
            return;
        }
        let misses = &mut misses[report.arm as usize];
        misses.trials += slo.trials;
        misses.events += slo.events;
        let add = |gate: &mut CountGate, tally: Tally| {
            gate.add(report.arm, &report.pod, tally.trials, tally.events);
        };
        let lost = counts.reuse_eligible.saturating_sub(counts.reuse_hits);
        add(&mut self.cache_reuse, Tally { trials: counts.reuse_eligible, events: lost });
        add(&mut self.slot_wait, waits);
        add(&mut self.slo_miss, slo);
    }

    fn end_block(&mut self, at_ms: u64) {
        let began = self.block_began_ms.unwrap_or(at_ms);
        if at_ms.saturating_sub(began) >= self.analysis.block_ms {
            self.close(at_ms);
        }
    }

    fn close(&mut self, at_ms: u64) {
        let began = self.block_began_ms.replace(at_ms).unwrap_or(at_ms);
        let counts = self.exposed_ms.is_some_and(|exposed| began >= exposed + WARM_MS);
        // Pods that were old enough when the block began.
        close_block(&mut self.pods, counts, began.saturating_sub(POD_AGE_MS));
        self.models.refit();
    }

    /// Notes the moments at which a test at fixed times may look.
    fn look(&mut self, ends_step: bool) {
        match self.analysis.method {
            Method::WorkNormalised => {}
            Method::FixedHorizonWelch { steps } => {
                if ends_step && self.looks.len() < steps as usize {
                    self.looks.push((self.looks.len() + 1) as f64 / f64::from(steps));
                    self.is_look = true;
                }
            }
            Method::GroupSequential { expected_requests } => {
                let information = self.errors.canary.trials as f64 / expected_requests.max(1) as f64;
                let next = (self.looks.len() + 1) as f64 / f64::from(GROUP_LOOKS);
                if self.looks.len() < GROUP_LOOKS as usize && information >= next {
                    self.looks.push(information.min(1.0));
                    self.is_look = true;
                }
            }
        }
    }
}

/// Whether a row tells for the first time that a request needed far more work than it should: a slow prompt, or many
/// steps per token after a prompt that was not slow.
fn is_in_the_tail(models: &CostModels, request: &FinishedRequest) -> bool {
    let has_slow_prompt = request.prefill_micros > TAIL_PREFILL_MICROS
        && models
            .predicted_prefill_ms(request)
            .is_some_and(|predicted| request.prefill_micros as f64 / 1_000.0 > TAIL * predicted);
    let has_many_steps = f64::from(request.decode_steps) > TAIL * f64::from(request.output_tokens.max(1));
    match request.part {
        _ if request.has_failed => false,
        Part::Whole => has_slow_prompt || has_many_steps,
        Part::Prompt => has_slow_prompt,
        Part::Answer => has_many_steps && !has_slow_prompt,
    }
}

/// Whether a user would call a request slow. One that left before its first token had waited too long. `None`: its pod
/// does not tell what that depends on.
fn misses_objective(objectives: Objectives, request: &FinishedRequest) -> Option<bool> {
    let has_left = request.was_cancelled && request.ttft_micros == 0;
    let is_all_the_same = request.ttft_micros == 0 || objectives.inter_token_micros == u64::MAX;
    let inter_token_micros = request.inter_token_micros.or(is_all_the_same.then_some(0))?;
    Some(
        has_left
            || request.ttft_micros > objectives.ttft_micros
            || inter_token_micros > objectives.inter_token_micros,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_pod_does_not_tell_is_neither_kept_nor_missed() {
        let objectives = Objectives { ttft_micros: 1_000, inter_token_micros: 50 };
        let check = |objectives, ttft_micros, inter_token_micros| {
            let row = FinishedRequest { ttft_micros, inter_token_micros, ..FinishedRequest::default() };
            misses_objective(objectives, &row)
        };
        assert_eq!(check(objectives, 900, Some(50)), Some(false));
        assert_eq!(check(objectives, 900, Some(51)), Some(true));
        assert_eq!(check(objectives, 900, None), None);
        assert_eq!(check(objectives, 1_100, None), None, "or only those that miss would count");
        assert_eq!(check(objectives, 0, None), Some(false), "it failed before there was anything to time");
        let unlimited = Objectives { inter_token_micros: u64::MAX, ..objectives };
        assert_eq!((check(unlimited, 900, None), check(unlimited, 1_100, None)), (Some(false), Some(true)));
    }
}
