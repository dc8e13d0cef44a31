//! How far a rollout is, and what was found of its canary.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::figures::{ComparedMetric, Comparison, Figures};
use super::rollout::RolloutAction;

/// How far the declared revision is.
#[derive(JsonSchema, Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RolloutStatus {
    /// For machines.
    pub phase: RolloutPhase,
    /// For people: `Downloading 43% (12 s left)`.
    pub summary: String,
    /// Progress of the phase, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub percent: Option<i32>,
    /// When a pod is expected to be ready, from its download and from earlier starts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready_at: Option<Time>,
    /// Share of the keys that the canary gets now, in 1/10 000; 0 while it is not complete and proven.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight_basis_points: Option<i32>,
    /// Whether the canary is well, since it gets traffic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub analysis: Option<AnalysisStatus>,
    /// What came of the copies that the canary got (spec.rollout.traffic.mirrorPercent), beside the answers to clients.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shadow: Option<ShadowStatus>,
    /// The step of spec.rollout.steps that the canary is at, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<i32>,
    /// How many steps there are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub steps: Option<i32>,
    /// Where the pods of the canary find room that the operator drives, or did when it was promoted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capacity_strategy: Option<ChosenCapacity>,
    /// The revision before, while its pods stay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub former: Option<FormerRevision>,
    /// What a return to the revision before costs: 0 while its pods run, else the seconds that a start takes, which is
    /// the median of the recent ones. Nothing when no start was measured, or nothing is there to return to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollback_seconds: Option<i32>,
    /// Where the canary stands that the operator drives: with it, another operator goes on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub course: Option<CanaryCourse>,
    /// Revisions that are not tried again before spec.rollout.retryToken changes; at most ten, the latest last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failed_revisions: Vec<FailedRevision>,
    /// What finished rollouts have shown of each kind of node; at most eight, the latest last. The next rollout begins with
    /// it, and so does an operator that has just started.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pod_variations: Vec<PodVariation>,
    /// The last spec.rollout.action that was looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acknowledged_action: Option<RolloutAction>,
}

/// Copies of requests that the canary answered, compared with the answers that clients got. Rewritten when a tenth more
/// has been compared.
#[derive(JsonSchema, Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ShadowStatus {
    /// Copies of which both answers have come or failed to.
    pub compared: i64,
    /// Those of them that the canary gave no whole answer to.
    pub canary_errors: i64,
    /// Those of them whose client got none.
    pub stable_errors: i64,
    /// Those of them with both answers; all that follows is of these.
    pub answered: i64,
    /// The same text twice.
    pub same_text: i64,
    /// Requests that should get the same text each time: with temperature 0 or with a seed.
    pub deterministic: i64,
    /// Those of them that did.
    pub deterministic_same_text: i64,
    /// How much longer the canary's answers are, in hundredths of a percent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub length_basis_points: Option<i64>,
    /// How much later the first text of its streams comes, in hundredths of a percent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_text_basis_points: Option<i64>,
    /// How much longer its answers take, in hundredths of a percent. Its pods may have more or less to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_basis_points: Option<i64>,
}

/// Where a canary stands that the operator drives. Which it is, its share and its step stand beside this.
#[derive(JsonSchema, Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CanaryCourse {
    /// The phase.
    pub phase: CanaryPhase,
    /// Since when.
    pub since: Time,
    /// Why, for people.
    #[serde(default)]
    pub message: String,
    /// Since when the step has had its share and its pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step_since: Option<Time>,
    /// Pods beyond what the step needs.
    #[serde(default)]
    pub extra_pods: i32,
    /// Since when its share is frozen because its users wait longer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold_since: Option<Time>,
    /// Since when one of its pods looks slow, or its node, and another one is awaited that would tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspect_since: Option<Time>,
    /// Steps back so far for that reason: its users wait longer.
    #[serde(default)]
    pub steps_back: i32,
    /// Findings for which a person has said go on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub accepted_reasons: Vec<String>,
    /// The phase after `RollingBack`.
    pub ending: CanaryPhase,
    /// Whether a step ended with nothing against the canary and nothing proven for it, and none with a proof since.
    #[serde(default)]
    pub is_underpowered: bool,
}

/// The phases of a canary that the operator drives.
#[derive(JsonSchema, Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum CanaryPhase {
    /// One revision serves and no other is asked for.
    Stable,
    /// Room is looked for.
    CapacityCheck,
    /// Its pods start and have to give a token.
    Loading,
    /// They are ready and still without traffic.
    Warmup,
    /// They have a share and are judged.
    Analysing,
    /// A person is asked to say go on.
    Paused,
    /// The evidence cannot decide.
    Inconclusive,
    /// It takes all traffic.
    Promoting,
    /// It is the stable revision now.
    Completed,
    /// All traffic is back; its pods finish what they have.
    RollingBack,
    /// It was judged worse.
    RolledBack,
    /// A person, a deadline or a failed start has ended it.
    Aborted,
    /// The kill switch has ended it.
    Killed,
}

/// Where canary pods have found room.
#[derive(JsonSchema, Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ChosenCapacity {
    /// Beside all stable pods.
    Surge,
    /// In the place of some stable pods.
    InPlace,
    /// After all stable pods have ended.
    Recreate,
}

/// A revision that was promoted over, and whose pods stay without traffic.
#[derive(JsonSchema, Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FormerRevision {
    /// Its name.
    pub revision: String,
    /// Until when: spec.rollout.rollbackWindowSeconds after the promotion.
    pub until: Time,
}

/// How much pods of one revision were measured to differ in speed on one kind of node.
#[derive(JsonSchema, Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodVariation {
    /// The pods' node selector and devices; empty without any.
    pub node_class: String,
    /// Their standard deviation in hundredths of a percent: 150 is 1.5%. What earlier rollouts have shown weighs as much in
    /// it as five pods.
    pub basis_points: i64,
}

/// A revision that is not tried again by itself.
#[derive(JsonSchema, Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FailedRevision {
    /// Its name.
    pub revision: String,
    /// spec.rollout.retryToken of that attempt.
    #[serde(default)]
    pub retry_token: String,
    /// `RolledBack`, `Aborted` or `Killed`.
    pub ending: CanaryPhase,
    /// Why, with the figures that were measured.
    pub message: String,
}

/// Whether the canary is well. Rewritten when the outcome, a gate or a figure in whole percent changes, or samples have
/// doubled; at most every 10 s.
#[derive(JsonSchema, Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AnalysisStatus {
    /// What should follow.
    pub outcome: AnalysisOutcome,
    /// Why, in one word: `Watching`, `WithinTolerance`, `DecodeSlower`, `MoreErrors`, and so on.
    pub reason: String,
    /// The same for people.
    pub message: String,
    /// Since when the outcome has been this one.
    pub since: Time,
    /// What was compared.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub metrics: Vec<AnalysisMetric>,
    /// How much of the permitted chance of accusing a healthy revision (5% over the whole rollout) is used up.
    #[serde(default)]
    pub budget_used_percent: i32,
    /// Canary pods with which it can be proven in four of five rollouts that nothing is slower; nothing when unknown or more
    /// than 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pods_needed: Option<i32>,
    /// What clients of both revisions notice in the present step. For people: no verdict is made from it, because a busier
    /// pod answers later than a better one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub clients: Vec<ClientFigures>,
}

/// A time that clients notice, of both revisions, in one step.
#[derive(JsonSchema, Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClientFigures {
    /// `FirstToken` or `InterToken`.
    #[serde(default)]
    pub metric: ComparedMetric,
    /// Of the canary.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canary_microseconds: Option<Figures>,
    /// Of the stable revision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stable_microseconds: Option<Figures>,
    /// The canary against the stable revision, as soon as both have two requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comparison: Option<Comparison>,
    /// Seconds until there are as many requests as are recommended, at the step's rate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds_left: Option<i64>,
}

/// What should follow from a verdict.
#[derive(JsonSchema, Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum AnalysisOutcome {
    /// Nothing is wrong and nothing is proven: keep watching.
    Continue,
    /// Slower by the tolerance or more is ruled out: it may get more.
    Pass,
    /// The revision is worse: everything back to the stable one.
    Rollback,
    /// The only canary pod looks slow, or its node: another pod would tell.
    Suspect,
    /// Its users wait longer though the revision is as fast: it needs more pods.
    Hold,
    /// The revision does something else than the stable one: a person should look.
    Pause,
    /// The evidence contradicts itself or there is nothing to compare with.
    Inconclusive,
}

/// Canary against stable in one respect. Estimate and bounds are in hundredths of a percent: of `Decode`, `Prefill`,
/// `UnqueuedTtft` and `OutputLength` the relative change (150 is 1.5% slower or longer), of `ErrorRate`, `EngineTail`,
/// `CacheReuse` and `SlotWait` the difference of shares (150 is 1.5 points more).
#[derive(JsonSchema, Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AnalysisMetric {
    /// Which.
    pub name: String,
    /// The best guess; nothing before both have samples.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub estimate_basis_points: Option<i64>,
    /// It is at least this, as sure as a rollback must be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lower_basis_points: Option<i64>,
    /// It is at most this, as sure as a pass must be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upper_basis_points: Option<i64>,
    /// Half minutes of canary pods, or requests of `ErrorRate`, `EngineTail`, `CacheReuse` and `SlotWait`.
    pub samples_canary: i64,
    /// The same of stable pods.
    pub samples_stable: i64,
    /// Where it stands.
    pub standing: AnalysisStanding,
}

/// Where the comparison in one respect stands.
#[derive(JsonSchema, Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum AnalysisStanding {
    /// Too little was seen.
    TooFewSamples,
    /// Neither good nor bad is proven.
    Undecided,
    /// Good is proven.
    Passing,
    /// Bad is proven.
    Failing,
}

/// Where the declared revision stands.
#[derive(JsonSchema, Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum RolloutPhase {
    /// Nothing of it runs: the spec cannot be acted on, or something is being waited for.
    Pending,
    /// All replicas are taken away on request.
    Suspended,
    /// Pods wait for a node.
    Scheduling,
    /// Volumes are mounted and images pulled.
    Starting,
    /// The model is fetched.
    Downloading,
    /// Digest and structure are checked.
    Verifying,
    /// The engine loads the model.
    Loading,
    /// The first token is generated.
    WarmingUp,
    /// Pods are ready, and one token is awaited.
    Proving,
    /// Some of the wanted replicas serve.
    Scaling,
    /// It is complete and proven, and serves its share beside the stable revision, as a person drives it.
    Canary,
    /// It waits for room.
    CapacityCheck,
    /// It serves its share beside the stable revision and is judged.
    Analysing,
    /// The same, and a person is asked to say go on.
    Paused,
    /// The same, and the evidence cannot decide.
    Inconclusive,
    /// It takes all traffic.
    Promoting,
    /// A canary gives its traffic back and goes.
    RollingBack,
    /// It was judged worse than the stable revision, which serves.
    RolledBack,
    /// A person, a deadline or a failed start has ended it; the stable revision serves.
    Aborted,
    /// The kill switch has ended it; the stable revision serves.
    Killed,
    /// It serves, and nothing else does.
    Stable,
    /// It cannot start; the Ready condition says why.
    Failed,
}
