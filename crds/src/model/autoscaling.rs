//! How many pods serve a model, when somebody else than `spec.replicas` says it.
#![expect(unreachable_pub, reason = "the derive of KubeSchema repeats each struct inside a function")]

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::amount::{ByteSize, Fraction};

/// How many pods serve a model. The operator replays the last half hour of the model's load, prices every number of
/// pods by the work that would be late with it, and takes the cheapest; status.autoscaling says why.
#[derive(KubeSchema, Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("(has(self.minReplicas) ? self.minReplicas : 1) <= self.maxReplicas").message("spec.autoscaling.minReplicas must not exceed maxReplicas; lower the one or raise the other"))]
#[x_kube(validation = Rule::new("!has(self.scaleToZero) || (has(self.minReplicas) && self.minReplicas == 0)").message("spec.autoscaling.scaleToZero needs minReplicas 0; set spec.autoscaling.minReplicas to 0, or leave scaleToZero out"))]
pub struct AutoscalingPolicy {
    /// Never fewer pods. 0 lets the model go to zero when it is idle; the gateway holds requests until a pod is ready.
    /// Default: 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub min_replicas: Option<i32>,
    /// Never more pods.
    #[schemars(range(min = 1, max = 100))]
    pub max_replicas: i32,
    /// Who decides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<AutoscalingMode>,
    /// How much of the past is replayed. Default: 1800.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 300, max = 1_800))]
    pub history_seconds: Option<i32>,
    /// The price of a pod: late pod-seconds that it must save for each second that it runs, in percent. Half of it keeps
    /// more pods and fewer late requests, twice of it the other way round. Default: 5.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub late_price_percent: Option<i32>,
    /// How far a rise may go beyond the demand that is proven, in percent of it; 0 sets no bound. From zero, where the
    /// first seconds prove little, it is at least 200. Default: 130.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1_000))]
    #[x_kube(validation = Rule::new("self == 0 || self >= 100").message("spec.autoscaling.surgePercent must be 0 (no bound) or at least 100 (the proven demand itself)"))]
    pub surge_percent: Option<i32>,
    /// Share of a pod that the bound on a rise plans with, in percent. Default: 80.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 10, max = 100))]
    pub target_utilization_percent: Option<i32>,
    /// What answers should be like.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub objectives: Option<Objectives>,
    /// What holds changes back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub behavior: Option<ScaleBehavior>,
    /// When the last pod goes, and who may wait for the next one; needs minReplicas 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scale_to_zero: Option<ScaleToZero>,
    /// Times with other bounds. While several are active, the highest of their bounds count.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub schedules: Vec<ScaleSchedule>,
}

/// Who decides how many pods there are. Default: Auto.
#[derive(JsonSchema, Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum AutoscalingMode {
    /// The operator.
    #[default]
    Auto,
    /// `spec.replicas`; the operator says in status.autoscaling what it would do.
    Observe,
    /// Nobody: the number stays as it was when this was set. Bounds still count.
    Paused,
    /// `spec.replicas`, within the bounds, for `kubectl scale`, a `HorizontalPodAutoscaler` or KEDA on the scale
    /// subresource.
    External,
}

/// What answers should be like. A goal that a pod misses even for a single request is told in the condition
/// `ObjectiveInfeasible` and not pursued, because more pods would not meet it.
#[derive(KubeSchema, Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.ttftMilliseconds) || has(self.interTokenMilliseconds)").message("spec.autoscaling.objectives must set ttftMilliseconds, interTokenMilliseconds or both"))]
pub struct Objectives {
    /// From a request's arrival to the first token of its answer. A third of it may be spent waiting; whatever waits
    /// longer is late. Default: no goal, and 700 ms of waiting.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 50, max = 600_000))]
    pub ttft_milliseconds: Option<i32>,
    /// From one token of an answer to the next. A pod is planned with as many requests at once as it can answer at this
    /// pace, at most engine.parallelSlots. Default: no goal, and all slots.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 60_000))]
    pub inter_token_milliseconds: Option<i32>,
    /// So many of the answers should come in time: the condition `ObjectivesMet` compares the last five minutes with it.
    /// It orders no pods. Default: 95.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub attainment_percent: Option<i32>,
}

/// What holds changes back.
#[derive(JsonSchema, Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ScaleBehavior {
    /// Before pods are added.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scale_up: Option<ScaleUpRules>,
    /// Before pods are taken away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scale_down: Option<ScaleDownRules>,
}

/// Before pods are added.
#[derive(JsonSchema, Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ScaleUpRules {
    /// More pods must be right by more than this part of the present ones, written as text: `"0.1"`. A model at zero, or
    /// one whose requests wait while no pod is ready, gets them all the same. Default: 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tolerance: Option<Fraction>,
}

/// Before pods are taken away.
#[derive(JsonSchema, Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ScaleDownRules {
    /// Fewer pods must have been enough for so long. Default: 90.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 300))]
    pub stabilization_window_seconds: Option<i32>,
    /// How fast pods go, as a `HorizontalPodAutoscaler` writes it. Default: a third of them, at least one, per 15 s, and to
    /// zero all at once.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4), extend("x-kubernetes-list-type" = "atomic"))]
    pub policies: Vec<ScaleDownPolicy>,
    /// Which of the policies counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub select_policy: Option<SelectPolicy>,
}

/// How many pods may go in a time.
#[derive(KubeSchema, Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.type != 'Percent' || self.value <= 100").message("in spec.autoscaling.behavior.scaleDown.policies a value of type Percent is at most 100"))]
pub struct ScaleDownPolicy {
    /// What `value` counts.
    #[serde(rename = "type")]
    pub type_: ScaleDownUnit,
    /// So many at most.
    #[schemars(range(min = 1, max = 1_000))]
    pub value: i32,
    /// Within any time of this length.
    #[schemars(range(min = 1, max = 1_800))]
    pub period_seconds: i32,
}

/// What a policy counts.
#[derive(JsonSchema, Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ScaleDownUnit {
    /// Pods.
    Pods,
    /// Percent of the pods that there were when the period began, rounded up to whole pods.
    Percent,
}

/// Which of several policies counts. Default: Max.
#[derive(JsonSchema, Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum SelectPolicy {
    /// The one that allows most.
    #[default]
    Max,
    /// The one that allows least.
    Min,
    /// None: no pod is ever taken away, except by a lower maximum.
    Disabled,
}

/// When the last pod goes, and who may wait for the next one.
#[derive(JsonSchema, Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ScaleToZero {
    /// Whether it may go. Default: true, as minReplicas 0 says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// After so long without a request, and never before three times what a start takes. Default: 300.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 60, max = 86_400))]
    pub idle_seconds: Option<i32>,
    /// How long a request that names no deadline waits for a pod. Default: gateway.holdTimeoutSeconds of the pool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 86_400))]
    pub hold_timeout_seconds: Option<i32>,
    /// Requests that wait in one gateway while no pod is ready; one more is refused with 429. Default:
    /// gateway.maxHeldRequests of the pool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100_000))]
    pub max_held_requests: Option<i32>,
    /// Bytes of their bodies. Default: gateway.maxHeldBytes of the pool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_held_bytes: Option<ByteSize>,
}

/// A time with other bounds, every time that its `schedule` says so.
#[derive(KubeSchema, Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.minReplicas) || has(self.maxReplicas)").message("each of spec.autoscaling.schedules must set minReplicas, maxReplicas or both"))]
#[x_kube(validation = Rule::new("!has(self.minReplicas) || !has(self.maxReplicas) || self.minReplicas <= self.maxReplicas").message("in spec.autoscaling.schedules minReplicas must not exceed maxReplicas"))]
pub struct ScaleSchedule {
    /// For people.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// When it begins, as a `CronJob` writes it: minute, hour, day of month, month, day of week.
    #[schemars(length(min = 9, max = 128))]
    pub schedule: String,
    /// In which time zone, by its IANA name: `Europe/Berlin`. Default: UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub time_zone: Option<String>,
    /// For how long it holds.
    #[schemars(range(min = 60, max = 604_800))]
    pub duration_seconds: i32,
    /// Instead of spec.autoscaling.minReplicas.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub min_replicas: Option<i32>,
    /// Instead of spec.autoscaling.maxReplicas.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub max_replicas: Option<i32>,
}
