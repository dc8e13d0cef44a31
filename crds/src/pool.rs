//! `InferencePool`: capacity and policy that its models share.
#![expect(unreachable_pub, reason = "the derive of KubeSchema repeats each struct inside a function")]

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Toleration;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::amount::{Amount, ByteSize};

/// Where models run, with how much, and from which sources they may come.
#[derive(CustomResource, KubeSchema, Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "inferno.ai",
    version = "v1alpha1",
    kind = "InferencePool",
    plural = "inferencepools",
    shortname = "ipool",
    category = "inferno",
    namespaced,
    doc = "Where models run, with how much, and from which sources they may come.",
    status = "InferencePoolStatus",
    derive = "PartialEq",
    derive = "Default",
    validation = Rule::new("self.metadata.name.size() <= 50 && self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')").message("metadata.name becomes the name of the gateway's Service and a label of pods: use at most 50 lower-case letters, digits and '-', beginning with a letter"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Gateway", type_ = "string", json_path = ".status.url"),
    printcolumn(name = "Models", type_ = "integer", json_path = ".status.models"),
    printcolumn(name = "Replicas", type_ = "integer", json_path = ".status.replicas"),
    printcolumn(name = "Accelerators", type_ = "string", json_path = ".status.accelerators"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason", priority = 1)
)]
#[serde(rename_all = "camelCase")]
pub struct InferencePoolSpec {
    /// Labels that a node must have to run the pool's pods.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32, "additionalProperties" = {"type": "string", "maxLength": 63}))]
    pub node_selector: BTreeMap<String, String>,
    /// Taints that the pool's pods tolerate.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub tolerations: Vec<Toleration>,
    /// Devices that each replica gets. Without it replicas run on the CPU.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accelerator: Option<Accelerator>,
    /// The container that serves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime: Option<Runtime>,
    /// Where a pod keeps its model file. Default: an ephemeral volume.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model_cache: Option<ModelCache>,
    /// Where models may come from. Default: from everywhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_policy: Option<SourcePolicy>,
    /// How much the pool's models may use together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<Limits>,
    /// How many requests may wait in each replica.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<Queue>,
    /// The front door of the pool: one address for all its models.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<Gateway>,
}

/// The front door of a pool. Changing it restarts no pod that serves a model.
#[derive(KubeSchema, Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Gateway {
    /// Pods of the gateway. Two or more survive the loss of a node. Default: 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 20))]
    pub replicas: Option<i32>,
    /// How a pod is chosen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load_balancing: Option<LoadBalancing>,
    /// Requests of one model that wait in one gateway while no pod is ready; one more is refused with 429. Default: 256.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100_000))]
    pub max_held_requests: Option<i32>,
    /// Bytes of their bodies. Default: 64Mi.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_held_bytes: Option<ByteSize>,
    /// How long a request that names no deadline waits for a pod. Default: 300.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 86_400))]
    pub hold_timeout_seconds: Option<i32>,
}

/// How a pod is chosen among the ready ones of a revision. Default: `PrefixAware`.
#[derive(JsonSchema, Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum LoadBalancing {
    /// The session's pod, else the one that has the prompt's beginning in its cache, unless it is overloaded.
    #[default]
    PrefixAware,
    /// The better of two random ones by the time that their work will take.
    LeastLoad,
    /// One after the other.
    RoundRobin,
    /// The session's (or user's) pod, as long as it is ready.
    SessionAffinity,
}

/// Devices of one replica.
#[derive(KubeSchema, Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Accelerator {
    /// The extended resource that the device plugin offers. Default: `nvidia.com/gpu`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 3, max = 253))]
    #[x_kube(validation = Rule::new("self.matches('^[a-z0-9]([-a-z0-9.]*[a-z0-9])?/[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$')").message("spec.accelerator.resourceName must be an extended resource such as nvidia.com/gpu"))]
    pub resource_name: Option<String>,
    /// Devices per replica; 0 means the CPU.
    #[schemars(range(min = 0, max = 16))]
    pub count: i32,
}

/// The container that serves.
#[derive(KubeSchema, Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Runtime {
    /// Image that holds inferno-sidecar and inferno-engine. Default: the one that the operator was installed with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub image: Option<String>,
    /// When the kubelet pulls the image. Default: the one that the operator was installed with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_pull_policy: Option<ImagePullPolicy>,
    /// Requests and limits of the serving container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
    /// CPU threads of the engine, unless the model says. Default: the CPU limit of `resources`, else its CPU request,
    /// in whole cores; 1 without either. More threads than free cores make each other wait: ask for the cores.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 512))]
    pub threads: Option<i32>,
}

/// When the kubelet pulls an image.
#[derive(JsonSchema, Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ImagePullPolicy {
    /// At each start.
    Always,
    /// When the node does not have it.
    IfNotPresent,
    /// Never: it must be on the node.
    Never,
}

/// Requests and limits of a container.
#[derive(JsonSchema, Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Resources {
    /// What the scheduler sets aside.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 16))]
    pub requests: BTreeMap<String, Amount>,
    /// What the container may use at most.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 16))]
    pub limits: BTreeMap<String, Amount>,
}

/// Where a pod keeps its model file.
#[derive(KubeSchema, Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("(self.mode == 'PersistentVolumeClaim') == has(self.claimName)").message("spec.modelCache.claimName is required with mode PersistentVolumeClaim and only allowed there"))]
#[x_kube(validation = Rule::new("self.mode == 'Ephemeral' || !has(self.size)").message("spec.modelCache.size limits the volume of mode Ephemeral; a claim has its own size, so leave it out"))]
pub struct ModelCache {
    /// `Ephemeral`: each pod downloads into a volume of its own. `PersistentVolumeClaim`: pods share the claim's
    /// files and download only what is missing.
    pub mode: ModelCacheMode,
    /// Size limit of the ephemeral volume. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<ByteSize>,
    /// The claim, in the pool's namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub claim_name: Option<String>,
}

/// See [`ModelCache::mode`].
#[derive(JsonSchema, Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ModelCacheMode {
    /// A volume that lives and dies with its pod.
    Ephemeral,
    /// A claim that the user made.
    PersistentVolumeClaim,
}

/// Where models may come from.
#[derive(KubeSchema, Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SourcePolicy {
    /// Kinds of sources that are allowed. Empty: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 3), extend("x-kubernetes-list-type" = "set"))]
    pub allowed_schemes: Vec<SourceScheme>,
    /// Hosts that are allowed: `models.example.com`, or `*.example.com` for everything below. Empty: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 253)), extend("x-kubernetes-list-type" = "set"))]
    #[x_kube(validation = Rule::new("self.all(host, host.matches('^([*][.])?[a-z0-9]([-a-z0-9.]*[a-z0-9])?$'))").message("spec.sourcePolicy.allowedHosts takes lower-case host names without scheme, port and path, such as models.example.com or *.example.com"))]
    pub allowed_hosts: Vec<String>,
    /// Whether a model must name its sha256. Default: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub require_digest: Option<bool>,
}

/// Kinds of sources.
#[derive(JsonSchema, Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum SourceScheme {
    /// `spec.source.http` with an `http://` URL.
    #[serde(rename = "HTTP")]
    Http,
    /// `spec.source.http` with an `https://` URL.
    #[serde(rename = "HTTPS")]
    Https,
    /// `spec.source.huggingFace`.
    HuggingFace,
}

/// How much the pool's models may use together.
#[derive(KubeSchema, Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Limits {
    /// Replicas of all models together; older models are served first. Default: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 10_000))]
    pub max_replicas: Option<i32>,
}

/// How many requests may wait in each replica.
#[derive(KubeSchema, Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Queue {
    /// Waiting requests; one more is refused with 429. Default: 1000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000))]
    pub max_queued_requests: Option<i32>,
    /// Bytes of all waiting requests. Default: 256Mi.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_queued_bytes: Option<ByteSize>,
    /// After how long a request that names no deadline is given up, unless the model says. Default: 300.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 86_400))]
    pub default_timeout_seconds: Option<i32>,
}

/// What the operator has seen of a pool.
#[derive(KubeSchema, Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InferencePoolStatus {
    /// The generation of the spec that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Base address of the gateway; the OpenAI base URL is this and `/v1`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Pods of the gateway.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<GatewayStatus>,
    /// Models that name this pool.
    #[serde(default)]
    pub models: i32,
    /// Their replicas that exist.
    #[serde(default)]
    pub replicas: i32,
    /// Their replicas that are ready.
    #[serde(default)]
    pub ready_replicas: i32,
    /// Devices of `spec.accelerator` that pods of anybody hold, of those on the ready nodes that the pool's pods may use:
    /// `3/8`. Absent without accelerator, and while the operator does not look at nodes, which it does where it looks
    /// after all namespaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accelerators: Option<String>,
    /// `Ready`: models can be placed here, and at least one pod of the gateway answers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".to_owned()]))]
    pub conditions: Vec<Condition>,
}

/// Pods of a pool's gateway.
#[derive(JsonSchema, Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GatewayStatus {
    /// Pods that there should be.
    pub replicas: i32,
    /// Those that answer.
    pub ready_replicas: i32,
}
