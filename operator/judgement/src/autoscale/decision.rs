//! The answer with its reasons: everything that went in, what won, every bound that was met, and one sentence.

use serde::{Deserialize, Serialize};

use super::history::History;
use super::policy::{Current, Policy};
use super::time::Millis;

/// One answer. Equal inputs give an equal decision, bit for bit ([`super::replay`]).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Decision {
    /// When it was made.
    pub at: Millis,
    /// Pods that served or were ordered.
    pub current: u32,
    /// Pods that there shall be.
    pub desired: u32,
    /// What was right by price and bounds, before anything held a scale-down back.
    pub wanted: u32,
    /// What decided.
    pub winner: Winner,
    /// Every bound that was met, the winner's included.
    pub limits: Vec<Limit>,
    /// When fewer pods may be considered at the earliest, if something holds them now.
    pub no_scale_down_before: Option<Millis>,
    /// What was reckoned.
    pub figures: Figures,
    /// All of it for people.
    pub sentence: String,
    /// What it was reckoned from.
    pub inputs: Inputs,
}

/// What decided. A closed list: it is a label of metrics and a field of the status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Winner {
    /// The last pod is paid by what followed moments like now.
    History,
    /// The last pod is paid by the present demand.
    Level,
    /// The last pod is paid by the present demand, which is growing.
    Trend,
    /// The last pod is paid by what already waits.
    Backlog,
    /// The key-value caches would not hold what is there.
    KvCache,
    /// No pod above the fewest that were looked at pays for itself.
    Price,
    /// Shortly after a start more is kept than history can justify.
    ColdStart,
    /// One more would pay but is not proven yet.
    SurgeLimit,
    /// Fewer would do, but not for long enough or not for certain yet.
    Hold,
    /// A bound of the active schedule.
    Schedule,
    /// The minimum.
    MinReplicas,
    /// The maximum.
    MaxReplicas,
    /// There is no hardware for more.
    Capacity,
    /// Fewer would do, but a canary is being judged.
    Canary,
    /// Nothing has come for so long that no pod is needed.
    Idle,
    /// More would pay, but so few more that the user does not care.
    Tolerance,
}

/// A bound that was met.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Limit {
    /// Not fewer: the policy's or the schedule's minimum.
    MinReplicas,
    /// Not more: the policy's or the schedule's maximum.
    MaxReplicas,
    /// One of the two above comes from the active schedule.
    Schedule,
    /// Not more: no hardware.
    Capacity,
    /// Not more: the rise is not proven.
    Surge,
    /// Not fewer: history is too short.
    ColdStart,
    /// Not fewer: key-value caches.
    KvCache,
    /// Not fewer yet: more was wanted a moment ago.
    Hold,
    /// Not fewer yet: the last scale-down was a moment ago.
    Pace,
    /// Not fewer: the controller has just started.
    Start,
    /// Not fewer: some source is silent.
    Stale,
    /// Not fewer: a canary is being judged.
    Canary,
    /// Not so few yet: the user's rules on how fast pods may go.
    ScaleDownRules,
    /// Not more: the rise is within the user's tolerance.
    Tolerance,
}

/// What was reckoned. Pods of demand are pod-seconds of work per second.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Figures {
    /// Demand as soon as it is proven, pods.
    pub demand: f64,
    /// Demand that is proven for the surge bound, pods.
    pub proven: f64,
    /// Growth of demand, pods per second.
    pub slope: f64,
    /// Variance of work over its mean, pod-seconds.
    pub dispersion: f64,
    /// 97 % of the replayed 10 s had at most this demand, pods.
    pub high: f64,
    /// What a pod really does of its model, 1 if exactly.
    pub calibration: f64,
    /// What waits, pod-seconds.
    pub queue: f64,
    /// How long a pod loads, seconds.
    pub load_s: f64,
    /// How far was looked ahead, seconds.
    pub horizon_s: f64,
    /// Moments that were like now.
    pub like_moments: usize,
    /// Those of them after which the last pod would have paid.
    pub bursts: usize,
    /// What each number of pods costs, the fewest first.
    pub prices: Vec<Price>,
}

/// The price of a number of pods.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Price {
    /// Pods.
    pub replicas: u32,
    /// Late work that is to be expected, pod-seconds.
    pub late: f64,
    /// Late work and what the pods cost, pod-seconds.
    pub total: f64,
}

/// Everything that went in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inputs {
    /// What the user wants.
    pub policy: Policy,
    /// What was seen.
    pub history: History,
    /// What is there.
    pub current: Current,
}
