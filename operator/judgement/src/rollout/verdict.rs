//! The answer, with the numbers that made it.

use serde::{Deserialize, Serialize};

/// Is the canary well?
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Verdict {
    /// What should follow.
    pub outcome: Outcome,
    /// Why.
    pub reason: Reason,
    /// The same for people, in one sentence.
    pub sentence: String,
    /// Each gate.
    pub metrics: Vec<MetricVerdict>,
    /// Whether "one point more errors" is ruled out, which promotion to all traffic needs.
    pub is_error_rate_proven: bool,
    /// How much of the permitted chance of a false rollback is used up, from 0 to 1. At 1 of any gate's own share it
    /// fires.
    pub budget_used: f64,
    /// Measured standard deviation of ln speed between pods.
    pub pod_sd: Option<f64>,
    /// Canary pods with which this rollout could prove that nothing is slower.
    pub pods_needed: Option<u32>,
    /// Control pods that stand apart and were left out: to be replaced, not judged by.
    pub outliers: Vec<String>,
}

impl Verdict {
    /// Whether it is proven that the revision is not slower, whatever else there is to say: users of a canary whose pods
    /// come later than its traffic wait, and the weight is held, though every unit of work takes as long as it should.
    pub fn is_speed_proven(&self) -> bool {
        let is_passing = |wanted| {
            self.metrics.iter().any(|gate| gate.metric == wanted && gate.standing == Standing::Passing)
        };
        is_passing(Metric::Decode) && is_passing(Metric::Prefill)
    }
}

/// What should follow from a verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Outcome {
    /// Nothing is wrong, nothing is proven: keep watching.
    Continue,
    /// Slower by the tolerance or more is ruled out: the step may end.
    Pass,
    /// The revision is worse: all traffic back to stable.
    Rollback,
    /// The only canary pod looks slow; so might its node. Start one more on another node and freeze the weight.
    Suspect,
    /// Canary users miss more objectives while the revision itself is quiet: freeze the weight and add a pod.
    Hold,
    /// The revision does something else than stable: a person should know.
    Pause,
    /// The evidence contradicts itself or cannot be compared.
    Inconclusive,
}

/// Why; one word per case, for conditions and metric labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Reason {
    /// Nothing to say.
    Watching,
    /// Decode and prefill are proven to be within tolerance.
    WithinTolerance,
    /// Tokens take longer to generate.
    DecodeSlower,
    /// Prompts take longer.
    PrefillSlower,
    /// The first token comes later though nothing was ahead of it.
    UnqueuedTtftSlower,
    /// More first attempts fail.
    MoreErrors,
    /// More requests need over twice the work predicted.
    EngineTail,
    /// Cached prefixes are missed though they were owed.
    CacheReuseLost,
    /// Requests wait for a slot though one should be free.
    FewerSlots,
    /// A single pod is slow.
    ConfirmingPod,
    /// Canary users miss more objectives.
    UnequalExperience,
    /// Answers are longer or shorter.
    OutputLengthChanged,
    /// The canary gets another share than it should.
    TrafficSkew,
    /// No ready stable pod on the same kind of node.
    NoComparableControl,
}

/// What a gate looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Metric {
    /// Time per decode call against its prediction.
    Decode,
    /// Time per prompt against its prediction.
    Prefill,
    /// Time to first token of requests that met no queue, against its prediction.
    UnqueuedTtft,
    /// Tokens per answer.
    OutputLength,
    /// Errors of first attempts.
    ErrorRate,
    /// Requests over twice their predicted work.
    EngineTail,
    /// Missed cached prefixes.
    CacheReuse,
    /// Needless waits for a slot.
    SlotWait,
    /// Missed objectives.
    SloMiss,
    /// The split itself.
    TrafficSplit,
}

/// Where a gate stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Standing {
    /// Too little was seen.
    TooFewSamples,
    /// Neither good nor bad is proven.
    Undecided,
    /// Good is proven.
    Passing,
    /// Bad is proven.
    Failing,
}

/// One gate in numbers.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MetricVerdict {
    /// Which.
    pub metric: Metric,
    /// Canary against stable: the relative change (0.1 is 10 % more) of work, the difference of shares of counts.
    pub estimate: f64,
    /// It is at least this, as sure as the gate's part of the budget allows; −1 when nothing is known.
    pub lower: f64,
    /// It is at most this.
    pub upper: f64,
    /// Evidence against "no change"; it fires at 1/alpha of the gate.
    pub e_value: f64,
    /// Canary pod-blocks, or trials of counts.
    pub samples_canary: u64,
    /// The same of stable.
    pub samples_control: u64,
    /// Where it stands.
    pub standing: Standing,
}
