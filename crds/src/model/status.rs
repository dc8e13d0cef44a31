//! What the operator has seen of a model.
#![expect(unreachable_pub, reason = "the derive of KubeSchema repeats each struct inside a function")]

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::experiment_status::ExperimentStatus;
use super::rollout_status::RolloutStatus;
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
    /// spec.autoscaling also `ScalingActive`, `ScalingLimited`, `TelemetryFresh`, and with its objectives
    /// `ObjectiveInfeasible` and `ObjectivesMet`; while a canary runs also `AnalysisConclusive`, and
    /// `AnalysisUnderpowered` while it does or after it was promoted without a proof; with spec.notifications also `ReceiversKnown`.
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
    /// The same of each revision on each kind of node, the one that started last at the end; at most eight.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kinds: Vec<StartsOfKind>,
    /// Pods of now whose start is among them or was, so that each is counted once, also when its readiness flaps.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub counted_pods: Vec<String>,
}

/// Starts of one revision on one kind of node.
#[derive(JsonSchema, Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StartsOfKind {
    /// Name of the revision.
    pub revision: String,
    /// Node selector and devices of its pods; empty where the pool names none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub node_class: String,
    /// The last starts, at most ten, the newest last.
    pub recent_total_seconds: Vec<i32>,
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
    /// What spec.autoscaling.objectives has made of the last decision; none without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub objectives: Option<ObjectivesStatus>,
}

/// What goals for answers have made of a decision.
#[derive(JsonSchema, Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ObjectivesStatus {
    /// A request that waits longer counts as late.
    pub late_milliseconds: i32,
    /// Slots that a pod is planned with, so that its tokens come in time.
    pub planned_slots: i32,
    /// First tokens of the last five minutes that came within the goal; none while there were none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttft_attained_percent: Option<i32>,
    /// Further tokens of the last five minutes that came within the goal; none while there were none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inter_token_attained_percent: Option<i32>,
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
