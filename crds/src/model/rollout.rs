//! How a new revision takes over from the serving one, and how traffic is turned away.
#![expect(unreachable_pub, reason = "the derive of KubeSchema repeats each struct inside a function")]

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::pod_count::PodCount;

/// How a new revision takes over from the serving one.
#[derive(KubeSchema, Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.traffic) || (has(self.strategy) && self.strategy == 'Canary')").message("spec.rollout.traffic splits traffic with a canary; set spec.rollout.strategy to Canary, or leave traffic out"))]
#[x_kube(validation = Rule::new("!has(self.analysis) || (has(self.strategy) && self.strategy == 'Canary')").message("spec.rollout.analysis judges a canary; set spec.rollout.strategy to Canary, or leave analysis out"))]
#[x_kube(validation = Rule::new("!(has(self.steps) || has(self.warmupSeconds) || has(self.capacityStrategy) || has(self.capacityDeadlineSeconds) || has(self.rollbackWindowSeconds) || has(self.maxSurge) || has(self.maxUnavailable)) || (has(self.strategy) && self.strategy == 'Canary' && !(has(self.traffic) && has(self.traffic.canaryPercent)))").message("spec.rollout: steps, warmupSeconds, capacityStrategy, maxSurge, maxUnavailable, capacityDeadlineSeconds and rollbackWindowSeconds are for a canary that the operator drives; set strategy to Canary and leave traffic.canaryPercent out, with which you drive it yourself"))]
#[x_kube(validation = Rule::new("!(has(self.action) || has(self.retryToken) || has(self.loadDeadlineSeconds) || has(self.progressDeadlineSeconds)) || (has(self.strategy) && (self.strategy == 'Recreate' || (self.strategy == 'Canary' && !(has(self.traffic) && has(self.traffic.canaryPercent)))))").message("spec.rollout: action, retryToken, loadDeadlineSeconds and progressDeadlineSeconds are for strategy Recreate and for a canary that the operator drives; set strategy to one of them and leave traffic.canaryPercent out, with which you drive it yourself"))]
#[x_kube(validation = Rule::new("!(has(self.traffic) && has(self.traffic.canaryPercent) && has(self.analysis)) || !((has(self.analysis.mode) && self.analysis.mode == 'Enforce') || has(self.analysis.inconclusivePolicy) || has(self.analysis.underpoweredPolicy))").message("spec.rollout.analysis: mode Enforce, inconclusivePolicy and underpoweredPolicy are for a canary that the operator drives; leave them out, or traffic.canaryPercent"))]
#[x_kube(validation = Rule::new("!(has(self.maxSurge) && self.maxSurge == 0 && has(self.maxUnavailable) && self.maxUnavailable == 0)").message("spec.rollout: with maxSurge and maxUnavailable both 0 no pod of a canary has a place; raise one of them"))]
#[x_kube(validation = Rule::new("!has(self.capacityStrategy) || !((self.capacityStrategy == 'Surge' && has(self.maxSurge) && self.maxSurge == 0) || (self.capacityStrategy == 'InPlace' && has(self.maxUnavailable) && self.maxUnavailable == 0) || (self.capacityStrategy == 'Recreate' && (has(self.maxSurge) || has(self.maxUnavailable))))").message("spec.rollout: capacityStrategy Surge needs a maxSurge of 1 or more, InPlace a maxUnavailable of 1 or more, and Recreate goes with neither; raise it, or leave it out"))]
pub struct RolloutPolicy {
    /// How.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strategy: Option<RolloutStrategy>,
    /// Who gets the canary.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traffic: Option<TrafficPolicy>,
    /// The shares that the canary gets one after the other; after the last it is promoted. Default: 10, 25, 50, 100%.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 20))]
    #[x_kube(validation = Rule::new("self.map(step, (has(step.weightPercent) ? step.weightPercent * 100 : (has(step.weightBasisPoints) ? step.weightBasisPoints : 0))).isSorted() && self.all(one, self.exists_one(other, (has(other.weightPercent) ? other.weightPercent * 100 : (has(other.weightBasisPoints) ? other.weightBasisPoints : 0)) == (has(one.weightPercent) ? one.weightPercent * 100 : (has(one.weightBasisPoints) ? one.weightBasisPoints : 0))))").message("spec.rollout.steps: each share (weightPercent or weightBasisPoints) must be more than the one before"))]
    pub steps: Vec<RolloutStep>,
    /// By what a canary is judged, and what follows. A canary with a share of the traffic always is judged;
    /// status.rollout.analysis has the verdict. A change of a tolerance begins the analysis anew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub analysis: Option<AnalysisPolicy>,
    /// Questions with known answers that a new revision must pass before it gets its first request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub golden_prompts: Option<GoldenPrompts>,
    /// Where the canary's pods find room; status.rollout.capacityStrategy is what was chosen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capacity_strategy: Option<CapacityStrategy>,
    /// Pods that may run beside the fleet while the operator drives a canary: a number, or a percentage of the fleet, rounded
    /// up. What they carry bounds the canary's share. 0: never Surge. Default: as many as there is room for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_surge: Option<PodCount>,
    /// Stable pods that may give up their places with `InPlace`: a number, or a percentage of the fleet, rounded down. 0: never
    /// `InPlace`. Default: as many as the load allows, and at least one where `InPlace` is asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_unavailable: Option<PodCount>,
    /// How long the canary may wait for room, which spec.limits.maxReplicas of the pool sets. Default: 1800.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 86_400))]
    pub capacity_deadline_seconds: Option<i32>,
    /// How long its pods may take to be ready and to give a token. Default: 1200.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 10, max = 86_400))]
    pub load_deadline_seconds: Option<i32>,
    /// How long they then stay without traffic. Default: 30.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 3_600))]
    pub warmup_seconds: Option<i32>,
    /// How long a promotion may take, a paused rollout wait for a person, and a step go on while nothing is reported that
    /// could be judged. Default: 7200.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 10, max = 604_800))]
    pub progress_deadline_seconds: Option<i32>,
    /// How long after a promotion the pods of the revision before stay without traffic: a spec that goes back to it in
    /// this time gets it at once, without a canary. They stay only beside all pods of the new one, and whoever needs
    /// their room has it; status.rollout.former names them. 0: they go at once. Default: 600.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 86_400))]
    pub rollback_window_seconds: Option<i32>,
    /// Any text. Another one lets a revision that has failed be tried again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub retry_token: Option<String>,
    /// What a person tells a canary. It is obeyed once: status.rollout.acknowledgedAction is the last that was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action: Option<RolloutAction>,
}

/// Questions with known answers.
#[derive(KubeSchema, Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GoldenPrompts {
    /// The ConfigMap that holds them, in the same namespace: each entry is a YAML document with one prompt.
    pub config_map_ref: ConfigMapRef,
    /// Share of them that must be answered as expected. Default: 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub minimum_pass_percent: Option<i32>,
}

/// A ConfigMap by name.
#[derive(JsonSchema, Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConfigMapRef {
    /// Name of a ConfigMap.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// A share that a canary gets, and for how long.
#[derive(KubeSchema, Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("(has(self.minDurationSeconds) ? self.minDurationSeconds : 120) <= (has(self.maxDurationSeconds) ? self.maxDurationSeconds : 1800)").message("in spec.rollout.steps minDurationSeconds (default 120) must not exceed maxDurationSeconds (default 1800)"))]
#[x_kube(validation = Rule::new("has(self.weightPercent) != has(self.weightBasisPoints)").message("in spec.rollout.steps set exactly one of weightPercent and weightBasisPoints (25 is 0.25%)"))]
pub struct RolloutStep {
    /// Share of the keys. 100 is promotion: nothing is left to compare with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub weight_percent: Option<i32>,
    /// The same in hundredths of a percent, instead: 25 is 0.25%, for a first exposure of few users of a large fleet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10_000))]
    pub weight_basis_points: Option<i32>,
    /// The step does not end before. Default: 120.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 604_800))]
    pub min_duration_seconds: Option<i32>,
    /// With nothing against it and nothing proven for it the step ends here, as analysis.underpoweredPolicy says.
    /// Default: 1800.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 604_800))]
    pub max_duration_seconds: Option<i32>,
    /// Who opens the way to the next step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gate: Option<StepGate>,
}

/// Who opens the way from a step to the next. Default: Auto.
#[derive(JsonSchema, Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum StepGate {
    /// The verdict, or the step's time.
    #[default]
    Auto,
    /// The same, and then a person: see `action`. A pause that was asked for has no end by itself.
    Manual,
}

/// What a person tells a canary.
#[derive(JsonSchema, Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RolloutAction {
    /// What to do.
    pub command: RolloutCommand,
    /// The canary that is meant, as status.canaryRevision names it. Another one does not obey.
    #[schemars(length(min = 1, max = 63))]
    pub revision: String,
    /// Any text. Another one gives the same command to the same revision once more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub id: Option<String>,
}

/// What to do with a canary.
#[derive(JsonSchema, Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum RolloutCommand {
    /// On to the next step, whatever the analysis lacks.
    Promote,
    /// All traffic, now.
    PromoteFull,
    /// Stay at this step until the next command.
    Pause,
    /// Back to the stable revision. The revision counts as failed.
    #[default]
    Abort,
}

/// By what a canary is judged: its pods' work against that of stable pods, per unit of work.
#[derive(KubeSchema, Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("(has(self.method) && self.method == 'GroupSequential') == has(self.expectedRequests)").message("spec.rollout.analysis: method GroupSequential spends its errors over expectedRequests; set both, or neither"))]
#[x_kube(validation = Rule::new("(has(self.criticalRegressionPercent) ? self.criticalRegressionPercent : 50) >= (has(self.regressionTolerancePercent) ? self.regressionTolerancePercent : 5)").message("spec.rollout.analysis: criticalRegressionPercent (default 50) must not be less than regressionTolerancePercent (default 5)"))]
pub struct AnalysisPolicy {
    /// When it may be judged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<AnalysisMethod>,
    /// First attempts that the canary is expected to see in the whole rollout; with method `GroupSequential`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 100, max = 1_000_000_000))]
    pub expected_requests: Option<i64>,
    /// What follows from a verdict.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<AnalysisMode>,
    /// Slower by less than this is accepted: time per decode call, per prompt, and to the first token without a queue.
    /// Default: 5.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub regression_tolerance_percent: Option<i32>,
    /// A single canary pod, which may just be on a slow node, leads to a rollback only beyond this. Default: 50.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 5, max = 1_000))]
    pub critical_regression_percent: Option<i32>,
    /// How often a healthy canary may be rolled back, over its whole rollout. Less takes longer to be sure. Default: 5.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 20))]
    pub max_false_rollback_percent: Option<i32>,
    /// What a revision that is heavier by intent may cost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tolerance: Option<TolerancePolicy>,
    /// Canary pods below which speed is judged only by a slowdown of more than 50%, because it may be the node.
    /// Default: 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub min_canary_pods: Option<i32>,
    /// How much pods of one revision differ in speed, as a standard deviation, until it is measured. Default: what earlier
    /// rollouts have shown on this kind of node (status.rollout.podVariations), else 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 20))]
    pub pod_variation_percent: Option<i32>,
    /// Respects that are told in the status and decide nothing, because a change in them is meant. With `Decode` and
    /// `Prefill` nothing about speed need be proven.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 9), extend("x-kubernetes-list-type" = "set"))]
    pub report_only: Vec<JudgedMetric>,
    /// What follows when the evidence contradicts itself or there is nothing to compare with; in mode Enforce.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inconclusive_policy: Option<InconclusivePolicy>,
    /// What follows when a step ends with nothing against the canary and nothing proven for it; in mode Enforce.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub underpowered_policy: Option<UnderpoweredPolicy>,
}

/// What is accepted of a canary: slower by less than this, instead of regressionTolerancePercent, and more errors.
#[derive(JsonSchema, Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TolerancePolicy {
    /// Time per decode call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000))]
    pub decode_percent: Option<i32>,
    /// Time per prompt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000))]
    pub prefill_percent: Option<i32>,
    /// Points by which more of the first attempts may fail: a canary is promoted when more is ruled out. Whether more fail at
    /// all, which leads to a rollback, is another question and always asked. Default: 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 50))]
    pub error_points: Option<i32>,
}

/// A respect in which a canary is judged.
#[derive(JsonSchema, Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum JudgedMetric {
    /// Time per decode call.
    Decode,
    /// Time per prompt.
    Prefill,
    /// Time to the first token of requests that met no queue.
    UnqueuedTtft,
    /// Tokens per answer.
    OutputLength,
    /// Errors of first attempts.
    ErrorRate,
    /// Requests that took twice the work they should.
    EngineTail,
    /// Cached prefixes that were owed and missed.
    CacheReuse,
    /// Requests that waited though a slot should be free.
    SlotWait,
    /// Answers that miss spec.autoscaling.objectives.
    SloMiss,
}

/// When a canary may be judged. Default: `WorkNormalised`.
#[derive(JsonSchema, Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum AnalysisMethod {
    /// At any time: a bad canary goes as soon as that is proven.
    #[default]
    WorkNormalised,
    /// Once, at the end of each step, by Welch's test over pods: what statisticians expect, and later.
    FixedHorizonWelch,
    /// Five times, as `expectedRequests` come in.
    GroupSequential,
}

/// What follows from a verdict. Default: Enforce; Observe with traffic.canaryPercent, where nothing can follow.
#[derive(JsonSchema, Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum AnalysisMode {
    /// A worse canary goes back, a better-known one gets more.
    #[default]
    Enforce,
    /// Nothing: it is told in the status, in a condition and in events, and each step lasts maxDurationSeconds.
    Observe,
}

/// What follows from evidence that cannot decide. Default: Pause.
#[derive(JsonSchema, Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum InconclusivePolicy {
    /// The share stays, and a person is asked.
    #[default]
    Pause,
    /// On to the next step.
    Promote,
    /// Back to the stable revision.
    Rollback,
}

/// What follows when too little was seen for a proof. Default: Promote.
#[derive(JsonSchema, Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum UnderpoweredPolicy {
    /// On to the next step.
    #[default]
    Promote,
    /// The share stays, and a person is asked.
    Pause,
}

/// `BlueGreen`: when the new revision is complete and proven, it gets all traffic and the old one goes. `Canary`: it
/// runs beside the old one, gets more and more of the traffic, and is judged; a worse one goes back by itself.
/// `Recreate`: the old one ends before the new one begins, for a device that holds one of them only; requests wait at
/// the gateway meanwhile, and a new one that cannot start makes room for the old one again. Default: `BlueGreen`.
#[derive(JsonSchema, Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum RolloutStrategy {
    /// All traffic at once.
    #[default]
    BlueGreen,
    /// A growing share of the traffic.
    Canary,
    /// All traffic at once, after a gap.
    Recreate,
}

/// Where the pods of a canary that the operator drives find room. `Surge`: beside all stable pods. `InPlace`: stable
/// pods give up their places, at least one, and the canary's share stays within its part of the pods; going back takes
/// one start. `Recreate`: all stable pods end before the canary begins; requests wait at the gateway, nothing is
/// compared, and the canary gets everything with its first token. `Auto`: Surge where there is room, else `InPlace` if
/// spec.autoscaling knows the load and the other pods carry it at 90% of what they can. Default: Auto.
#[derive(JsonSchema, Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum CapacityStrategy {
    /// Surge, else `InPlace`; never Recreate.
    #[default]
    Auto,
    /// Beside all stable pods.
    Surge,
    /// In the place of some stable pods.
    InPlace,
    /// After all stable pods have ended.
    Recreate,
}

/// Who gets the canary.
#[derive(KubeSchema, Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TrafficPolicy {
    /// With this you drive the canary yourself: its share of the keys while all its pods are ready. At 100 it is promoted
    /// and the old revision goes. Default: the operator drives it, by spec.rollout.steps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub canary_percent: Option<i32>,
    /// What keeps a client on its revision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sticky_key: Option<StickyKey>,
    /// Whether a request may name its revision in the header x-inferno-revision. Default: true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub header_override: Option<bool>,
    /// Share of the stable revision's requests of which the canary gets a copy; its answers are compared with those to
    /// clients (status.rollout.shadow) and thrown away. Default: 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub mirror_percent: Option<i32>,
}

/// What keeps a client on its revision; each falls back to the ones below it. Default: Conversation.
#[derive(JsonSchema, Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum StickyKey {
    /// The header x-inferno-session, else the beginning of the conversation.
    #[default]
    Conversation,
    /// The request's user.
    User,
    /// The request's API key.
    APIKey,
    /// Nothing: every request by itself.
    Request,
}

/// Turns traffic away at once, without stopping a pod; gateways obey within a second, also while the API server is
/// away. Default: None. (Not `Off`: YAML reads that as a boolean.)
#[derive(JsonSchema, Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum KillSwitch {
    /// No traffic.
    #[default]
    #[serde(rename = "None")]
    Off,
    /// The canary's: everybody gets the stable revision, nothing is mirrored, and flags and experiments are off.
    Rollout,
    /// All: every request of the model is refused with 503.
    Model,
}
