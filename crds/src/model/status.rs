//! What the operator has seen of a model.
#![expect(unreachable_pub, reason = "the derive of KubeSchema repeats each struct inside a function")]

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::experiment_status::ExperimentStatus;
use super::rollout::RolloutAction;
use crate::notification::Severity;

/// What the operator has seen of a model.
#[derive(KubeSchema, Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InferenceModelStatus {
    /// The generation of the spec that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The OpenAI base URL: that of the pool's gateway.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Pods that exist, of all revisions.
    #[serde(default)]
    pub replicas: i32,
    /// Those that serve.
    #[serde(default)]
    pub ready_replicas: i32,
    /// Label selector of the pods, for the scale subresource.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,
    /// The revision that has been proven to serve.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stable_revision: Option<String>,
    /// The revision that the spec asks for, while it is not the stable one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_revision: Option<String>,
    /// The revision that runs beside the stable one and gets a share of its traffic, with strategy Canary.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canary_revision: Option<String>,
    /// The file as the pods opened it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<ModelFacts>,
    /// Where its layers are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub placement: Option<Placement>,
    /// How long starts take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cold_start: Option<ColdStart>,
    /// How far the declared revision is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<RolloutStatus>,
    /// What somebody should look at. It is told once and stays until the model is Ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alarm: Option<Alarm>,
    /// Pods that get no new requests because fewer are wanted. They stay until they have nothing in flight, and are the
    /// first to come back.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub draining: Vec<DrainingPod>,
    /// How many pods the autoscaler wants, and why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub autoscaling: Option<AutoscalingStatus>,
    /// What was found of spec.experiments, as far as it has been answered.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".to_owned()]))]
    pub experiments: Vec<ExperimentStatus>,
    /// The same of spec.featureFlags: variant `on` against variant `off`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".to_owned()]))]
    pub feature_flags: Vec<ExperimentStatus>,
    /// Short strings for people, shown by kubectl get.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub summary: Option<Summary>,
    /// `Accepted`, `ModelAvailable`, `Scheduled`, `Progressing`, `Available`, `Ready`; with
    /// spec.autoscaling also `ScalingActive`, `ScalingLimited`, `TelemetryFresh`; while a canary runs also
    /// `AnalysisConclusive`; with spec.notifications also `ReceiversKnown`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".to_owned()]))]
    pub conditions: Vec<Condition>,
}

/// A pod that gets no new requests.
#[derive(JsonSchema, Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DrainingPod {
    /// Its name.
    pub pod: String,
    /// Since when.
    pub since: Time,
}

/// What somebody should look at.
#[derive(JsonSchema, Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Alarm {
    /// Why the model is not Ready.
    pub reason: String,
    /// How much it matters.
    pub severity: Severity,
    /// Since when.
    pub since: Time,
}

/// The file as the pods opened it.
#[derive(JsonSchema, Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ModelFacts {
    /// Such as `llama` or `qwen3`.
    pub architecture: String,
    /// Such as `Q4_K_M`.
    pub quantization: String,
    /// Size of the file.
    pub size_bytes: i64,
    /// Context length that it was trained with.
    pub trained_context_length: i64,
    /// Context length of each slot.
    pub context_length: i64,
    /// SHA-256 of the file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
}

/// Where a model's layers are.
#[derive(JsonSchema, Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Placement {
    /// Layers that there are.
    pub layers_total: i32,
    /// Layers on accelerators.
    pub layers_offloaded: i32,
}

/// How long starts take.
#[derive(JsonSchema, Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ColdStart {
    /// The last start.
    pub last_seconds: StartSeconds,
    /// Median of the recent starts.
    #[serde(default)]
    pub p50_total_seconds: i32,
    /// 95th percentile of the recent starts: with ten of them the longest.
    #[serde(default)]
    pub p95_total_seconds: i32,
    /// The last starts, at most ten, the newest last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub recent_total_seconds: Vec<i32>,
    /// Pods of now whose start is among them or was, so that each is counted once, also when its readiness flaps.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub counted_pods: Vec<String>,
}

/// Parts of one pod's start in seconds.
#[derive(JsonSchema, Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StartSeconds {
    /// Until a node was found.
    pub schedule: i32,
    /// Until volumes and image were there.
    pub image: i32,
    /// Until the model was on the volume.
    pub download: i32,
    /// Until the first token of the warm-up.
    pub load: i32,
    /// All of it.
    pub total: i32,
}

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
    /// Steps back so far for that reason.
    #[serde(default)]
    pub steps_back: i32,
    /// Findings for which a person has said go on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub accepted_reasons: Vec<String>,
    /// The phase after `RollingBack`.
    pub ending: CanaryPhase,
    /// Whether a step ended with nothing against the canary and nothing proven for it.
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
    /// Canary pods with which it could be proven that nothing is slower; nothing when unknown or more than 100.
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
    /// `FirstToken`, or `InterToken`: the mean of a request.
    pub name: String,
    /// Of the canary.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canary_milliseconds: Option<Percentiles>,
    /// Of the stable revision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stable_milliseconds: Option<Percentiles>,
    /// Welch's test of the logarithms, as soon as both have two requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub welch: Option<WelchFigures>,
    /// Requests of the canary.
    pub samples: i64,
    /// Requests with which one look would see a difference of the tolerance, if requests were independent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recommended_samples: Option<i64>,
    /// Seconds until there are as many, at the step's rate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds_left: Option<i64>,
}

/// Half, 95 and 99 of 100 are below.
#[derive(JsonSchema, Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Percentiles {
    /// The median.
    pub p50: i64,
    /// 95 of 100.
    pub p95: i64,
    /// 99 of 100.
    pub p99: i64,
}

/// The canary against the stable revision, at one time chosen before: looking again and again overstates it.
#[derive(JsonSchema, Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WelchFigures {
    /// How much longer it takes, in the geometric mean; in hundredths of a percent, as all three.
    pub difference_basis_points: i64,
    /// Lower end of the 95% interval.
    pub lower_basis_points: i64,
    /// Upper end of it.
    pub upper_basis_points: i64,
    /// The statistic, in thousandths.
    pub t_thousandths: i64,
    /// Its degrees of freedom.
    pub degrees_of_freedom: i64,
    /// Cohen's d, in thousandths: 200 is small, 800 large.
    pub cohens_d_thousandths: i64,
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

/// Short strings for people, shown by kubectl get.
#[derive(JsonSchema, Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    /// The name that clients send.
    pub model: String,
    /// Ready and wanted replicas: `2/3`.
    pub replicas: String,
    /// The serving revision, and the one that replaces it.
    pub revision: String,
    /// First digits of the file's SHA-256.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
}

/// How many pods the autoscaler wants, and why.
#[derive(JsonSchema, Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AutoscalingStatus {
    /// Pods that there shall be; with mode Observe, pods that the autoscaler would have.
    #[serde(default)]
    pub desired_replicas: i32,
    /// The last decision, refreshed when it changes something and otherwise every 30 s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_decision: Option<ScalingDecision>,
    /// The last ten decisions that wanted another number of pods than there was, the newest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub decisions: Vec<PastDecision>,
    /// What one pod does, as it was last measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<PodMeasure>,
}

/// One decision with what it was reckoned from.
#[derive(JsonSchema, Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ScalingDecision {
    /// When it was made.
    pub time: Time,
    /// Pods that served or were on their way.
    pub current: i32,
    /// Pods that there shall be.
    pub desired: i32,
    /// What decided: `History`, `Level`, `Trend`, `Backlog`, `Price`, `Hold`, and so on.
    pub winner: String,
    /// All of it for people.
    pub sentence: String,
    /// Bounds that were met.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub limits: Vec<String>,
    /// Before this no pod is taken away, if something holds them now that ends by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub no_scale_down_before: Option<Time>,
    /// What was reckoned.
    pub figures: ScalingFigures,
    /// The price of each number of pods that was looked at, the fewest pods first; at most 16 around the chosen one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub prices: Vec<PricedCount>,
}

/// What was reckoned for a decision. A demand of 1000 millipods keeps one pod busy.
#[derive(JsonSchema, Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ScalingFigures {
    /// Demand as soon as it is proven.
    pub demand_millipods: i64,
    /// Demand that is proven for the bound on a rise.
    pub proven_millipods: i64,
    /// Demand that 97% of the replayed time did not exceed.
    pub high_millipods: i64,
    /// Growth of demand per minute.
    pub slope_millipods_per_minute: i64,
    /// What waits, in milliseconds of work of one pod.
    pub queue_pod_milliseconds: i64,
    /// What a pod really does of what was measured of it.
    pub calibration_percent: i64,
    /// How long a start takes.
    pub load_seconds: i64,
    /// How far was looked ahead.
    pub horizon_seconds: i64,
    /// Moments of the past that were like now.
    pub like_moments: i64,
    /// Those of them after which the last pod would have paid.
    pub bursts: i64,
}

/// What a number of pods costs.
#[derive(JsonSchema, Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PricedCount {
    /// Pods.
    pub replicas: i32,
    /// Work that is expected to be late with them, in milliseconds of work of one pod.
    pub late_pod_milliseconds: i64,
    /// That and what the pods cost.
    pub total_pod_milliseconds: i64,
}

/// One decision in short.
#[derive(JsonSchema, Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PastDecision {
    /// When it was made.
    pub time: Time,
    /// Pods that served or were on their way.
    pub current: i32,
    /// Pods that there should be.
    pub desired: i32,
    /// What decided.
    pub winner: String,
    /// All of it for people.
    pub sentence: String,
}

/// What one pod does.
#[derive(JsonSchema, Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodMeasure {
    /// Requests that it decodes at the same time.
    pub slots: i32,
    /// Prompt tokens per second while nothing else runs.
    pub prefill_tokens_per_second: i32,
    /// A step that decodes for nobody.
    pub step_base_microseconds: i32,
    /// What each request adds to a step.
    pub step_per_request_microseconds: i32,
    /// Whether pods have done enough work to measure it; otherwise it is assumed.
    pub is_measured: bool,
}
