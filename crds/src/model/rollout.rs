//! How a new revision takes over from the serving one, and how traffic is turned away.
#![expect(unreachable_pub, reason = "the derive of KubeSchema repeats each struct inside a function")]

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How a new revision takes over from the serving one.
#[derive(KubeSchema, Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.traffic) || (has(self.strategy) && self.strategy == 'Canary')").message("spec.rollout.traffic splits traffic with a canary; set spec.rollout.strategy to Canary, or leave traffic out"))]
#[x_kube(validation = Rule::new("!has(self.analysis) || (has(self.strategy) && self.strategy == 'Canary')").message("spec.rollout.analysis judges a canary; set spec.rollout.strategy to Canary, or leave analysis out"))]
pub struct RolloutPolicy {
    /// How.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strategy: Option<RolloutStrategy>,
    /// Who gets the canary.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traffic: Option<TrafficPolicy>,
    /// By what a canary is judged. A canary with a share of the traffic always is; status.rollout.analysis has the verdict.
    /// A change begins the analysis anew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub analysis: Option<AnalysisPolicy>,
    /// Questions with known answers that a new revision must pass before it gets its first request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub golden_prompts: Option<GoldenPrompts>,
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

/// By what a canary is judged: its pods' work against that of stable pods, per unit of work.
#[derive(KubeSchema, Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AnalysisPolicy {
    /// What follows from a verdict.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<AnalysisMode>,
    /// Slower by less than this is accepted: time per decode call, per prompt, and to the first token without a queue.
    /// Default: 5.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub regression_tolerance_percent: Option<i32>,
    /// Canary pods below which speed is judged only by a slowdown of more than 50%, because it may be the node.
    /// Default: 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub min_canary_pods: Option<i32>,
    /// How much pods of one revision differ in speed, as a standard deviation, until it is measured. Default: 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 20))]
    pub pod_variation_percent: Option<i32>,
}

/// What follows from a verdict. Default: Observe.
#[derive(JsonSchema, Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum AnalysisMode {
    /// Nothing: it is told in the status, in a condition and in events.
    #[default]
    Observe,
}

/// `BlueGreen`: when the new revision is complete and proven, it gets all traffic and the old one goes. `Canary`: it
/// runs beside the old one and gets the share that `traffic` says. Default: `BlueGreen`.
#[derive(JsonSchema, Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum RolloutStrategy {
    /// All traffic at once.
    #[default]
    BlueGreen,
    /// A share of the traffic.
    Canary,
}

/// Who gets the canary.
#[derive(KubeSchema, Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TrafficPolicy {
    /// Share of the keys that the canary gets while all its pods are ready. At 100 it is promoted and the old
    /// revision goes. Default: 0, so it runs and gets nothing.
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
    /// The canary's: everybody gets the stable revision, and nothing is mirrored.
    Rollout,
    /// All: every request of the model is refused with 503.
    Model,
}
