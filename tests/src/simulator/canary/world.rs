//! What is simulated: the fleet, its load, what goes wrong, and what is different about the canary.

use super::super::trace::Sizes;

/// How stable pods and canary pods share the room while the weight rises.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// Stable keeps all its pods; the weight waits for canary pods.
    Surge,
    /// Stable keeps all its pods; the weight rises at once, the pods come a minute later.
    LatePods,
    /// Stable serves from a subset, so that each pod carries about the same.
    Matched,
    /// Stable pods become canary pods.
    InPlace,
}

/// When conversations begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrivals {
    /// At random, at an even rate.
    Poisson,
    /// From 0.6 to 1.3 of the rate in the half hour.
    Ramp,
    /// The logarithm of the rate wanders (AR(1) by minute, ρ = 0.63, σ = 0.3).
    Wandering,
    /// The bursts of the code trace, and its sizes.
    CodeTrace,
}

/// Which reports are lost.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Loss {
    /// None.
    Nothing,
    /// This share of all.
    Share(f64),
    /// Nine of ten while requests wait on the pod, one of five else.
    UnderQueueing,
    /// Three of five, of stable pods only.
    StableOnly,
}

/// How the clocks and nodes of pods differ.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Nodes {
    /// Standard deviation of ln speed between pods.
    pub sd: f64,
    /// Whether the differences have heavy tails (Student's t with 3 degrees of freedom).
    pub is_heavy_tailed: bool,
    /// ln slowness of the first canary pod's node.
    pub bad_canary: f64,
    /// ln slowness of the first stable pod's node.
    pub bad_stable: f64,
    /// ln slowness of all canary pods.
    pub canary_class: f64,
    /// Standard deviation of a pod's own clock over time (AR(1), 60 s).
    pub clock_sd: f64,
}

/// What the revision on trial does differently. Everything 1, 0 or nothing: it is the same.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Change {
    /// Time of a decode call, as a factor.
    pub decode: f64,
    /// Time of a prompt, as a factor.
    pub prefill: f64,
    /// Share of first tokens that are errors; stable has [`World::error_rate`].
    pub error_rate: Option<f64>,
    /// Share of requests that take five times the work.
    pub tail: f64,
    /// Whether prefixes are never reused.
    pub loses_cache: bool,
    /// Milliseconds added before the first token, outside the engine.
    pub outside_ms: f64,
    /// Slots, when they are not the stable revision's.
    pub slots: Option<usize>,
    /// Length of answers, as a factor.
    pub length: f64,
}

impl Change {
    /// No change at all.
    pub const NOTHING: Self = Self {
        decode: 1.0,
        prefill: 1.0,
        error_rate: None,
        tail: 0.0,
        loses_cache: false,
        outside_ms: 0.0,
        slots: None,
        length: 1.0,
    };
}

/// One situation. Times are seconds; the canary first gets traffic at 0.
#[derive(Debug, Clone, PartialEq)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts of one situation")]
pub struct World {
    /// For tables.
    pub name: &'static str,
    /// Requests per second, in the mean.
    pub rate: f64,
    /// Pods that carry them.
    pub pods: u32,
    /// How the room is shared.
    pub layout: Layout,
    /// When conversations begin.
    pub arrivals: Arrivals,
    /// Which reports are lost.
    pub loss: Loss,
    /// Seconds by which reports of canary pods are late.
    pub late_s: f64,
    /// Speed of pods.
    pub nodes: Nodes,
    /// Whether the engine disobeys the judge's cost model: a kink in the batch size, 5 % slower at full load, fresh
    /// pods 6 % slower.
    pub is_misfit: bool,
    /// Tokens that a pod's prefix cache holds.
    pub cache_tokens: u64,
    /// Share of users who give up, and after how many seconds.
    pub impatience: (f64, f64),
    /// Share of first tokens that are errors.
    pub error_rate: f64,
    /// Whether errors belong to conversations (which then always fail) instead of to chance.
    pub is_poisoned: bool,
    /// Whether the first canary pod restarts after five minutes.
    pub restarts: bool,
    /// Canary pods at each step, when not by share of the fleet.
    pub canary_pods: Option<u32>,
    /// Whether a canary pod is added when the only one is suspect.
    pub confirms: bool,
    /// What differs.
    pub change: Change,
    /// Canary pods beyond ⌈w·N⌉, as the operator starts them.
    pub spare_canary_pods: u32,
    /// Pods that find room beside the fleet when the operator drives; nothing bounds them when `None`. One that a hold
    /// asks for finds room always.
    pub room: Option<u32>,
}

impl World {
    /// Ten requests per second on 14 pods, nothing special.
    pub fn plain(name: &'static str) -> Self {
        Self {
            name,
            rate: 10.0,
            pods: 14,
            layout: Layout::Surge,
            arrivals: Arrivals::Poisson,
            loss: Loss::Nothing,
            late_s: 0.0,
            nodes: Nodes {
                sd: 0.01,
                is_heavy_tailed: false,
                bad_canary: 0.0,
                bad_stable: 0.0,
                canary_class: 0.0,
                clock_sd: 0.02,
            },
            is_misfit: false,
            cache_tokens: 120_000,
            impatience: (0.3, 8.0),
            error_rate: 0.005,
            is_poisoned: false,
            restarts: false,
            canary_pods: None,
            confirms: false,
            change: Change::NOTHING,
            spare_canary_pods: 0,
            room: None,
        }
    }

    /// Canary pods for a share of the traffic.
    pub fn canary_pods_for(&self, weight: f64) -> u32 {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of few pods")]
        let share = (weight * f64::from(self.pods)).ceil() as u32;
        self.canary_pods.unwrap_or(share) + self.spare_canary_pods
    }
}

/// The sizes that requests are drawn from, and the burst pattern of the code trace.
#[derive(Debug, Clone)]
pub struct Material {
    /// Sizes of conversations.
    pub conversation: Sizes,
    /// Sizes of code completion.
    pub code: Sizes,
    /// Arrival times of the code trace in seconds, from 0.
    pub code_times: Vec<f64>,
}
