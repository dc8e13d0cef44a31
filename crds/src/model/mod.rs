//! `InferenceModel`: one model file, how it is served, and what the operator has seen of it.
#![expect(unreachable_pub, reason = "the derive of KubeSchema repeats each struct inside a function")]

mod autoscaling;
pub mod experiment;
mod experiment_status;
mod figures;
mod rollout;
mod rollout_status;
mod status;

use std::borrow::Cow;

use kube::{CustomResource, KubeSchema};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use crate::notification::Notification;

pub use autoscaling::{
    AutoscalingMode, AutoscalingPolicy, Objectives, ScaleBehavior, ScaleDownPolicy, ScaleDownRules,
    ScaleDownUnit, ScaleSchedule, ScaleToZero, ScaleUpRules, SelectPolicy,
};
pub use experiment::{Experiment, FeatureFlag, RequestParameters, Variant};
pub use experiment_status::{ExperimentStatus, VariantComparison, VariantStatus};
pub use figures::{ComparedMetric, Comparison, Figures};
pub use rollout::{
    AnalysisMethod, AnalysisMode, AnalysisPolicy, CapacityStrategy, ConfigMapRef, GoldenPrompts,
    InconclusivePolicy, JudgedMetric, KillSwitch, RolloutAction, RolloutCommand, RolloutPolicy, RolloutStep,
    RolloutStrategy, StepGate, StickyKey, TolerancePolicy, TrafficPolicy, UnderpoweredPolicy,
};
pub use rollout_status::{
    AnalysisMetric, AnalysisOutcome, AnalysisStanding, AnalysisStatus, CanaryCourse, CanaryPhase,
    ChosenCapacity, ClientFigures, FailedRevision, FormerRevision, PodVariation, RolloutPhase, RolloutStatus,
    ShadowStatus,
};
pub use status::{
    Alarm, AutoscalingStatus, ColdStart, DrainingPod, InferenceModelStatus, ModelFacts, ObjectivesStatus,
    PastDecision, Placement, PodMeasure, PricedCount, ScalingDecision, ScalingFigures, StartSeconds,
    StartsOfKind, Summary,
};

/// One model, served by pods of a pool.
#[derive(CustomResource, KubeSchema, Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "inferno.ai",
    version = "v1alpha1",
    kind = "InferenceModel",
    plural = "inferencemodels",
    shortname = "imodel",
    category = "inferno",
    namespaced,
    doc = "One model, served by pods of a pool.",
    status = "InferenceModelStatus",
    derive = "PartialEq",
    derive = "Default",
    scale(
        spec_replicas_path = ".spec.replicas",
        status_replicas_path = ".status.replicas",
        label_selector_path = ".status.selector"
    ),
    validation = Rule::new("self.metadata.name.size() <= 50 && self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')").message("metadata.name becomes the name of a Service and of Deployments: use at most 50 lower-case letters, digits and '-', beginning with a letter; clients see spec.modelName"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Model", type_ = "string", json_path = ".status.summary.model"),
    printcolumn(name = "Pool", type_ = "string", json_path = ".spec.poolRef.name"),
    printcolumn(name = "Replicas", type_ = "string", json_path = ".status.summary.replicas"),
    printcolumn(name = "Revision", type_ = "string", json_path = ".status.summary.revision"),
    printcolumn(name = "Rollout", type_ = "string", json_path = ".status.rollout.summary"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason", priority = 1),
    printcolumn(name = "Quant", type_ = "string", json_path = ".status.model.quantization", priority = 1),
    printcolumn(name = "Context", type_ = "integer", json_path = ".status.model.contextLength", priority = 1),
    printcolumn(name = "Digest", type_ = "string", json_path = ".status.summary.digest", priority = 1)
)]
#[serde(rename_all = "camelCase")]
pub struct InferenceModelSpec {
    /// The pool, in the same namespace.
    pub pool_ref: PoolRef,
    /// The name that clients send as `model`. Default: metadata.name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    #[x_kube(validation = Rule::new("self.matches('^[A-Za-z0-9]([-A-Za-z0-9._:/]*[A-Za-z0-9])?$') && !self.contains('..')").message("spec.modelName may have letters, digits and . _ - : / between letters or digits, and no '..'"))]
    pub model_name: Option<String>,
    /// More names under which clients find the model.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 128)), extend("x-kubernetes-list-type" = "set"))]
    #[x_kube(validation = Rule::new("self.all(name, name.matches('^[A-Za-z0-9]([-A-Za-z0-9._:/]*[A-Za-z0-9])?$') && !name.contains('..'))").message("spec.aliases may have letters, digits and . _ - : / between letters or digits, and no '..'"))]
    pub aliases: Vec<String>,
    /// Where the GGUF file comes from.
    pub source: Source,
    /// How llama.cpp runs it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine: Option<EngineSpec>,
    /// Pods that serve it. With spec.autoscaling this counts in mode External only, and in mode Observe.
    #[serde(default = "one_replica")]
    #[schemars(range(min = 0, max = 100))]
    pub replicas: i32,
    /// Who decides how many pods serve it, and within which bounds. Default: `replicas` says it. Changing it restarts
    /// nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub autoscaling: Option<AutoscalingPolicy>,
    /// What holds for requests that do not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_policy: Option<RequestPolicy>,
    /// How a new revision takes over from the serving one. Changing it restarts nothing. Default: `BlueGreen`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<RolloutPolicy>,
    /// Whether all pods are taken away while the model stays declared. Default: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspend: Option<bool>,
    /// Which traffic is turned away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kill_switch: Option<KillSwitch>,
    /// What a share of the requests has and the others have not. Gateways follow a change within a second; it restarts
    /// nothing. killSwitch turns all of them off.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".to_owned()]))]
    pub feature_flags: Vec<FeatureFlag>,
    /// Variants that are compared with one another in status.experiments. Gateways follow a change within a second; it
    /// restarts nothing and begins the comparison anew. killSwitch ends all of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".to_owned()]))]
    #[x_kube(validation = Rule::new("self.filter(experiment, experiment.variants.exists(variant, has(variant.model))).size() <= 1").message("spec.experiments: only one experiment may have variants with a model, because one request has one answer"))]
    pub experiments: Vec<Experiment>,
    /// Who is told when something changes. Changing it restarts nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["receiver".to_owned()]))]
    pub notifications: Vec<Notification>,
}

fn one_replica() -> i32 {
    1
}

/// A pool by name.
#[derive(JsonSchema, Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PoolRef {
    /// Name of an InferencePool.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
}

/// Where the GGUF file comes from: exactly one of `http` and `huggingFace`.
#[derive(KubeSchema, Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.http) != has(self.huggingFace)").message("spec.source: exactly one of http and huggingFace must be set"))]
pub struct Source {
    /// A plain URL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpSource>,
    /// A repository of a Hugging Face-type hub.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hugging_face: Option<HuggingFaceSource>,
    /// SHA-256 of the file (of the first, if there are several). Pods refuse another content.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    #[x_kube(validation = Rule::new("self.matches('^[0-9a-f]{64}$')").message("spec.source.sha256 must be 64 lower-case hex digits, as sha256sum prints them"))]
    pub sha256: Option<String>,
    /// A bearer token for the source, in a Secret of the same namespace. Only the downloading container sees it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<SecretRef>,
}

/// A plain URL.
#[derive(KubeSchema, Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HttpSource {
    /// `http://…` or `https://…`.
    #[schemars(length(min = 1, max = 2048))]
    #[x_kube(validation = Rule::new("isURL(self) && url(self).getScheme() in ['http', 'https'] && url(self).getHostname() != ''").message("spec.source.http.url must begin with http:// or https:// and name a host"))]
    #[x_kube(validation = Rule::new("!self.matches('^[^/?#]*//[^/?#]*@')").message("spec.source.http.url must not contain credentials; put a token into a Secret and name it in spec.source.secretRef"))]
    pub url: String,
}

/// A repository of a Hugging Face-type hub.
#[derive(KubeSchema, Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HuggingFaceSource {
    /// `owner/name`.
    #[schemars(length(min = 3, max = 200))]
    #[x_kube(validation = Rule::new("self.matches('^[A-Za-z0-9][-A-Za-z0-9._]*/[A-Za-z0-9][-A-Za-z0-9._]*$') && !self.contains('..')").message("spec.source.huggingFace.repository must be owner/name, such as Qwen/Qwen3-8B-GGUF"))]
    pub repository: String,
    /// Branch, tag or commit. Default: main. A commit never changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    #[x_kube(validation = Rule::new("self.matches('^[A-Za-z0-9][-A-Za-z0-9._/]*$') && !self.contains('..')").message("spec.source.huggingFace.revision must be a branch, a tag or a commit"))]
    pub revision: Option<String>,
    /// The GGUF file, or all parts of a split one, the first part first.
    #[schemars(length(min = 1, max = 64), inner(length(min = 6, max = 255)), extend("x-kubernetes-list-type" = "set"))]
    #[x_kube(validation = Rule::new("self.all(file, file.matches('^[A-Za-z0-9][-A-Za-z0-9._/]*[.]gguf$') && !file.contains('..') && !file.contains('//'))").message("spec.source.huggingFace.files must be paths of .gguf files inside the repository"))]
    pub files: Vec<String>,
    /// Address of the hub. Default: `https://huggingface.co`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    #[x_kube(validation = Rule::new("isURL(self) && url(self).getScheme() in ['http', 'https'] && url(self).getHostname() != '' && !self.contains('@') && !self.contains('?') && !self.contains('#')").message("spec.source.huggingFace.endpoint must begin with http:// or https://, name a host, and have neither credentials nor a query"))]
    pub endpoint: Option<String>,
}

/// One key of a Secret.
#[derive(KubeSchema, Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SecretRef {
    /// Name of the Secret.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Its key that holds the token.
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

/// How llama.cpp runs the model.
#[derive(KubeSchema, Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EngineSpec {
    /// Tokens of prompt and answer together, for each slot. Default: what the model was trained with, at most 8192.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 64, max = 1_048_576))]
    pub context_length: Option<i32>,
    /// Requests that one pod decodes at the same time. Default: 4.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 256))]
    pub parallel_slots: Option<i32>,
    /// Layers on the accelerator: a number, or All. Default: All if the pool has accelerators, otherwise 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("type(self) == int || self == 'All'").message("spec.engine.gpuLayers must be a number of layers or All"))]
    pub gpu_layers: Option<GpuLayers>,
    /// Default: Auto.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flash_attention: Option<FlashAttention>,
    /// Number format of the attention cache. Default: F16.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kv_cache_type: Option<KvCacheType>,
    /// CPU threads. Default: the pool's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 512))]
    pub threads: Option<i32>,
}

/// How many layers go to the accelerator; `All` or a number on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GpuLayers {
    /// Every layer.
    All,
    /// So many of them.
    Count(i32),
}

impl Serialize for GpuLayers {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::All => serializer.serialize_str("All"),
            Self::Count(count) => serializer.serialize_i32(*count),
        }
    }
}

impl<'de> Deserialize<'de> for GpuLayers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Value::deserialize(deserializer)? {
            Value::String(text) if text == "All" => Ok(Self::All),
            Value::Number(number) => number
                .as_i64()
                .and_then(|count| i32::try_from(count).ok())
                .map(Self::Count)
                .ok_or_else(|| serde::de::Error::custom("gpuLayers is out of range")),
            _ => Err(serde::de::Error::custom("gpuLayers must be a number or All")),
        }
    }
}

impl JsonSchema for GpuLayers {
    fn schema_name() -> Cow<'static, str> {
        "GpuLayers".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "x-kubernetes-int-or-string": true,
            "minimum": 0,
            "maximum": 1000,
            "maxLength": 16,
        })
    }
}

/// Whether the fused attention kernel is used. (Not `On` and `Off`: YAML reads those as booleans.)
#[derive(JsonSchema, Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum FlashAttention {
    /// Where the backend has it for the model.
    Auto,
    /// Always.
    Enabled,
    /// Never.
    Disabled,
}

/// Number formats of the attention cache.
#[derive(JsonSchema, Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum KvCacheType {
    /// 16 bit.
    F16,
    /// 8 bit.
    #[serde(rename = "Q8_0")]
    Q8,
    /// 4 bit.
    #[serde(rename = "Q4_0")]
    Q4,
}

/// What holds for requests that do not say.
#[derive(KubeSchema, Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RequestPolicy {
    /// Tier of a request that names none. Default: Normal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_priority: Option<Priority>,
    /// After how long a request that names no deadline is given up. Default: the pool's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 86_400))]
    pub timeout_seconds: Option<i32>,
    /// Most tokens that one request may generate. Default: what the context holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_048_576))]
    pub max_output_tokens: Option<i32>,
}

/// Tiers of the priority queue.
#[derive(JsonSchema, Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Priority {
    /// Weight 8.
    #[serde(rename = "VIP")]
    Vip,
    /// Weight 4.
    High,
    /// Weight 2.
    Normal,
    /// Weight 1.
    Low,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(json: &str, expected: Option<GpuLayers>) {
        let read = serde_json::from_str::<GpuLayers>(json).ok();
        assert_eq!(read, expected, "{json}");
        if let Some(layers) = read {
            assert_eq!(serde_json::to_string(&layers).unwrap(), json);
        }
    }

    #[test]
    fn gpu_layers_are_a_number_or_all() {
        check("\"All\"", Some(GpuLayers::All));
        check("20", Some(GpuLayers::Count(20)));
        check("\"20\"", None);
        check("99999999999", None);
    }
}
