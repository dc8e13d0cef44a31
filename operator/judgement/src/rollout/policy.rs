//! What the owner of a model may say about a rollout, with the defaults.

use serde::{Deserialize, Serialize};

use super::verdict::Metric;

/// How a rollout goes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Plan {
    /// The steps, in order; the last has weight 10 000.
    pub steps: Vec<Step>,
    /// What the verdict is made by.
    pub analysis: Analysis,
    /// What to do with contradictory evidence.
    pub inconclusive: InconclusivePolicy,
    /// What to do when nothing is wrong but too little could be seen.
    pub underpowered: UnderpoweredPolicy,
    /// How long to wait for room for canary pods.
    pub capacity_deadline_ms: u64,
    /// How long canary pods may take to become ready.
    pub load_deadline_ms: u64,
    /// How long they stay without traffic after that.
    pub warmup_ms: u64,
    /// How long promotion or rollback may take, or a step go on without any verdict, before somebody is called.
    pub progress_deadline_ms: u64,
}

impl Default for Plan {
    fn default() -> Self {
        let step = |weight_basis_points| Step { weight_basis_points, ..Step::default() };
        Self {
            steps: [1_000, 2_500, 5_000, 10_000].map(step).to_vec(),
            analysis: Analysis::default(),
            inconclusive: InconclusivePolicy::Pause,
            underpowered: UnderpoweredPolicy::Promote,
            capacity_deadline_ms: 1_800_000,
            load_deadline_ms: 1_200_000,
            warmup_ms: 30_000,
            progress_deadline_ms: 7_200_000,
        }
    }
}

/// One step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Step {
    /// The canary's share of the keys.
    pub weight_basis_points: u16,
    /// A step does not end before.
    pub min_duration_ms: u64,
    /// A step that proved nothing ends here.
    pub max_duration_ms: u64,
    /// Who opens the way to the next one.
    pub gate: Gate,
}

impl Default for Step {
    fn default() -> Self {
        Self {
            weight_basis_points: 1_000,
            min_duration_ms: 120_000,
            max_duration_ms: 1_800_000,
            gate: Gate::Auto,
        }
    }
}

/// Who opens the way from a step to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Gate {
    /// The verdict.
    Auto,
    /// The verdict, and then a person.
    Manual,
}

/// What to do with contradictory evidence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum InconclusivePolicy {
    /// Keep the weight and call somebody.
    Pause,
    /// Go on.
    Promote,
    /// Go back.
    Rollback,
}

/// What to do when a step ends quietly but proved nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum UnderpoweredPolicy {
    /// Go on, and say so.
    Promote,
    /// Keep the weight and call somebody.
    Pause,
}

/// What the verdict is made by.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Analysis {
    /// How.
    pub method: Method,
    /// Slower by less than this is accepted, as a share (0.05).
    pub tolerances: Tolerances,
    /// With a single canary pod only a change beyond this leads to a rollback, as a share (0.5): it may be the node.
    pub critical: f64,
    /// How often a healthy revision may be rolled back, over the whole rollout, as a share (0.05).
    pub false_rollback: f64,
    /// Canary pods below which there is no verdict on speed, but the critical one.
    pub min_canary_pods: usize,
    /// Blocks that a pod must have been seen for.
    pub min_pod_blocks: u64,
    /// Length of a block.
    pub block_ms: u64,
    /// How much pods of one node class differ, as a standard deviation of ln speed (0.02), until measured.
    pub pod_sd: f64,
    /// Slots of a stable pod: a request that waits although fewer are in use waits without need.
    pub stable_slots: u16,
    /// What counts as a good request, for [`super::Outcome::Hold`].
    pub objectives: Objectives,
    /// Respects that are told and decide nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub report_only: Vec<Metric>,
}

impl Default for Analysis {
    fn default() -> Self {
        Self {
            method: Method::WorkNormalised,
            tolerances: Tolerances::default(),
            critical: 0.5,
            false_rollback: 0.05,
            min_canary_pods: 2,
            min_pod_blocks: 2,
            block_ms: 30_000,
            pod_sd: 0.02,
            stable_slots: 8,
            objectives: Objectives::default(),
            report_only: Vec::new(),
        }
    }
}

impl Analysis {
    /// Whether anything may follow from how the canary is in this respect.
    pub(super) fn decides(&self, metric: Metric) -> bool {
        !self.report_only.contains(&metric)
    }
}

/// How the verdict is made.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Method {
    /// Work per unit of work, by pod, at any time. The default.
    WorkNormalised,
    /// One Welch test over pods at the end of each of so many steps, at an equal share of alpha each.
    FixedHorizonWelch {
        /// Steps that will be tested.
        steps: u32,
    },
    /// Five looks as the expected canary requests come in, by Lan and DeMets with O'Brien-Fleming-like spending.
    GroupSequential {
        /// First attempts that the canary is expected to see in the whole rollout.
        expected_requests: u64,
    },
}

/// Which slowdown is accepted, as shares.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Tolerances {
    /// Of a decode call. Raise it for a model that is heavier by intent.
    pub decode: f64,
    /// Of the prompt's tokens.
    pub prefill: f64,
    /// Of the time to first token of requests that met no queue.
    pub unqueued_ttft: f64,
    /// More errors per first attempt that promotion must rule out (0.01 is one point).
    pub errors: f64,
}

impl Default for Tolerances {
    fn default() -> Self {
        Self { decode: 0.05, prefill: 0.05, unqueued_ttft: 0.05, errors: 0.01 }
    }
}

/// What counts as a good request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Objectives {
    /// To the first token.
    pub ttft_micros: u64,
    /// Between tokens, in the mean of a request.
    pub inter_token_micros: u64,
}

impl Default for Objectives {
    fn default() -> Self {
        Self { ttft_micros: 2_000_000, inter_token_micros: 60_000 }
    }
}
