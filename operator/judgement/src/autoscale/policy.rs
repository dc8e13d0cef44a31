//! What the user wants, and what is there now.

use serde::{Deserialize, Serialize};

use super::pace::ScaleDown;
use super::time::Millis;
use super::work::PodModel;

/// What the user wants. Integers, so that a stored decision reads back exactly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// Never fewer, except by [`ScheduleBounds`]. 0 lets the model scale to zero.
    pub min_replicas: u32,
    /// Never more.
    pub max_replicas: u32,
    /// Bounds of the schedule that is active now; they replace the two above.
    pub schedule: Option<ScheduleBounds>,
    /// Pods for which there is hardware, those that run included; `None` while unknown, which sets no bound.
    pub capacity_replicas: Option<u32>,
    /// The price of a pod: late pod-seconds that a pod-second must save, in percent. 5 is worth about one point of
    /// attainment per pod-hour at five pods of demand; half or twice of it moves along the same front.
    pub late_price_percent: u32,
    /// How far beyond the proven need a rise may go, in percent; 0 means no bound. 130 keeps a step's overshoot at 1.6
    /// for a load time of 180 s, 140 does not. It is a rule for shared hardware and not an optimum.
    pub surge_percent: u32,
    /// The same while no pod is ready, when the first seconds of arrivals prove little.
    pub surge_from_zero_percent: u32,
    /// Share of a pod that the bounds plan with, in percent; 1 to 100.
    pub target_utilization_percent: u32,
    /// How much history is replayed, seconds; at most [`super::history::SECONDS_MAX`].
    pub history_seconds: u32,
    /// A scale-down must have been right for this long, seconds.
    pub hold_seconds: u32,
    /// To zero after this long without work, seconds, and never before three load times.
    pub idle_seconds: u32,
    /// Work that waits longer than this is late, milliseconds: about a third of the goal for a first token, since the
    /// rest is the prompt itself. 700 to 1 300 gave the same.
    #[serde(default = "late_ms")]
    pub late_ms: u32,
    /// How fast pods may be taken away.
    #[serde(default)]
    pub scale_down: ScaleDown,
    /// A rise is made only beyond so many thousandths of the present pods: 0 makes every one. It holds back no pod that
    /// somebody waits for in vain.
    #[serde(default)]
    pub rise_tolerance_thousandths: u32,
}

/// A third of a goal of 2 s. A decision that was stored before there was a choice was reckoned with it.
const LATE_MS: u32 = 700;

const fn late_ms() -> u32 {
    LATE_MS
}

impl Policy {
    /// The defaults of the API between `min_replicas` and `max_replicas`.
    pub const fn between(min_replicas: u32, max_replicas: u32) -> Self {
        Self {
            min_replicas,
            max_replicas,
            schedule: None,
            capacity_replicas: None,
            late_price_percent: 5,
            surge_percent: 130,
            surge_from_zero_percent: 200,
            target_utilization_percent: 80,
            history_seconds: 1_800,
            hold_seconds: 90,
            idle_seconds: 300,
            late_ms: LATE_MS,
            scale_down: ScaleDown::Usual,
            rise_tolerance_thousandths: 0,
        }
    }

    /// The minimum that holds now; never above [`Self::max`].
    pub(super) fn min(&self) -> u32 {
        let min = self.schedule.and_then(|schedule| schedule.min_replicas).unwrap_or(self.min_replicas);
        min.min(self.max())
    }

    /// The maximum that holds now, hardware not counted.
    pub(super) fn max(&self) -> u32 {
        self.schedule.and_then(|schedule| schedule.max_replicas).unwrap_or(self.max_replicas)
    }
}

/// Bounds of an active schedule; `None` leaves the policy's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScheduleBounds {
    /// Never fewer.
    pub min_replicas: Option<u32>,
    /// Never more.
    pub max_replicas: Option<u32>,
}

/// What is there now. Pods that drain are not counted: they serve nobody new, and are the first to come back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Current {
    /// What one pod can do.
    pub pod: PodModel,
    /// Pods that serve.
    pub ready: u32,
    /// When each ordered pod will probably be ready; a time that has passed means any moment.
    pub pending: Vec<Millis>,
    /// When a pod last became ready.
    pub last_ready_at: Option<Millis>,
    /// 90 % of loads take at most this long, milliseconds. More than 900 s count as 900 s.
    pub load_ms: u64,
    /// When this controller started.
    pub started_at: Millis,
    /// A canary is being judged: its pods' shares must not change by a scale-down.
    pub is_canary_judged: bool,
}

impl Current {
    /// Pods that serve or are ordered.
    pub fn replicas(&self) -> u32 {
        self.ready.saturating_add(u32::try_from(self.pending.len()).unwrap_or(u32::MAX))
    }
}
