//! What the operator has seen of a model.
#![expect(unreachable_pub, reason = "the derive of KubeSchema repeats each struct inside a function")]

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

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
    /// Short strings for people, shown by kubectl get.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub summary: Option<Summary>,
    /// `Accepted`, `ModelAvailable`, `Scheduled`, `Progressing`, `Available`, `Ready`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".to_owned()]))]
    pub conditions: Vec<Condition>,
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
    /// Share of the keys that the canary gets now, in 1/10 000: the declared share, or 0 while it is not complete and
    /// proven.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight_basis_points: Option<i32>,
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
    /// It is complete and proven, and serves its share beside the stable revision.
    Canary,
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
