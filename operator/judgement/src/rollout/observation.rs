//! What pods and gateways tell the judge. Plain values; the operator fills them from reports.
//!
//! Counters are sums since the pod's process began, so that a lost report only delays. Finished requests travel once.

use serde::{Deserialize, Serialize};

/// Which revision a pod runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Arm {
    /// The stable one.
    Control,
    /// The new one.
    Canary,
}

/// Everything that arrived since the last observation.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Observation {
    /// When it was taken, in milliseconds of any clock that does not jump.
    pub at_ms: u64,
    /// The canary's share of the keys since the last one.
    pub weight_basis_points: u16,
    /// Whether a step of the rollout ends here: the moment at which a fixed-horizon test may look.
    pub ends_step: bool,
    /// Conversations whose first request was routed since the last one, by arm.
    pub new_conversations: ArmCounts,
    /// One entry per pod that was heard of.
    pub pods: Vec<PodReport>,
}

/// A count for each arm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ArmCounts {
    /// Of the canary.
    pub canary: u64,
    /// Of stable.
    pub control: u64,
}

/// What one pod reported.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodReport {
    /// Its UID.
    pub pod: String,
    /// What it runs.
    pub arm: Arm,
    /// Its kind of node (accelerator and machine): only pods on the same kind are compared.
    pub node_class: String,
    /// ln of how much slower this very node is known to be than its class, from earlier revisions; 0 when unknown.
    pub known_slowness: f64,
    /// Since when it serves.
    pub ready_at_ms: u64,
    /// Decode calls that carried no prompt token, by batch size; cumulative.
    pub decode: Vec<DecodeTotal>,
    /// Outcomes; cumulative.
    pub counts: CountTotals,
    /// Requests that finished since the last report.
    pub requests: Vec<FinishedRequest>,
}

/// Decode calls of one batch size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DecodeTotal {
    /// Sequences in the batch.
    pub batch: u32,
    /// Calls.
    pub calls: u64,
    /// Their time in microseconds.
    pub micros: u64,
    /// Context tokens attended to, summed over calls.
    pub kv_tokens: u64,
}

/// Outcomes of one pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CountTotals {
    /// First attempts of requests that got a first token or an error; a conversation that has had its error no longer
    /// counts, so retries and poisoned conversations weigh once.
    pub first_attempts: u64,
    /// Those that got an error of ours.
    pub first_attempt_errors: u64,
    /// Turns whose prefix this process had computed and has had no reason to drop.
    pub reuse_eligible: u64,
    /// Those of them that found at least half of it.
    pub reuse_hits: u64,
}

/// Which part of a request a row tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Part {
    /// All of it, at its end.
    #[default]
    Whole,
    /// Its prompt, sent with the first token: a slow prompt is known half a minute earlier.
    Prompt,
    /// The rest, at its end, when the prompt was sent before.
    Answer,
}

/// One request that finished, or the prompt of one that goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(clippy::struct_excessive_bools, reason = "independent facts of one request, as measured")]
pub struct FinishedRequest {
    /// What the row tells. Rows of an answer repeat the figures of the prompt.
    #[serde(default)]
    pub part: Part,
    /// Prompt tokens that no cache held.
    pub uncached_tokens: u32,
    /// All prompt tokens.
    pub prompt_tokens: u32,
    /// Time on the prompt.
    pub prefill_micros: u64,
    /// Share of that time in which other requests decoded, in 1/1000.
    pub overlap_permille: u16,
    /// From arrival at the pod to the first token.
    pub ttft_micros: u64,
    /// Mean time between tokens; 0 when there was at most one, `None` when the pod does not tell.
    pub inter_token_micros: Option<u64>,
    /// Tokens generated.
    pub output_tokens: u32,
    /// Decode steps that took.
    pub decode_steps: u32,
    /// Requests in flight on the pod when it came, itself not counted.
    pub in_flight_before: u16,
    /// Whether it found a free slot and no prefill ahead of it.
    pub is_unqueued: bool,
    /// Whether it waited for a slot.
    pub has_waited: bool,
    /// Whether it ended with an error of ours.
    pub has_failed: bool,
    /// Whether its client left before the end.
    pub was_cancelled: bool,
}

impl FinishedRequest {
    /// Whether the prompt is told here (for the first time).
    pub fn has_prompt(&self) -> bool {
        self.part != Part::Answer && !self.has_failed
    }

    /// Whether the request is over.
    pub fn has_ended(&self) -> bool {
        self.part != Part::Prompt
    }
}
