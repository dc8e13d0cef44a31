//! Who is told what: the same in both kinds.
#![expect(unreachable_pub, reason = "the derive of KubeSchema repeats each struct inside a function")]

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Whom to tell of what.
#[derive(KubeSchema, Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Notification {
    /// Name of a receiver: a key of the Secret that the installation names in its value notifications.secretName.
    #[schemars(length(min = 1, max = 63))]
    #[x_kube(validation = Rule::new("self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')").message("spec.notifications[].receiver is the name of a receiver: lower-case letters, digits and '-'; addresses and keys belong into the installation's Secret"))]
    pub receiver: String,
    /// What is less severe is not told. Default: Warning.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_severity: Option<Severity>,
    /// What is told. Default: everything.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4), extend("x-kubernetes-list-type" = "set"))]
    pub events: Vec<NotificationEvent>,
}

/// How much something matters.
#[derive(JsonSchema, Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Severity {
    /// Good to know.
    Info,
    /// Somebody should look.
    Warning,
    /// What was served is not served any more.
    Critical,
}

/// What a notification is about.
#[derive(JsonSchema, Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum NotificationEvent {
    /// The model cannot be served as declared, or can again.
    Serving,
    /// A revision starts, gets its share, takes over, or is taken back.
    Rollout,
    /// The verdict on a canary has changed.
    Verdict,
    /// The number of pods changes.
    Scaling,
}
