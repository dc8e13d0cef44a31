//! Where a rollout stands, what is told to it, and what it asks for.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::capacity::{Capacity, Strategy};
use super::verdict::{Reason, Verdict};

/// The phases of a rollout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Phase {
    /// One revision serves and no other is asked for. → `CapacityCheck`
    Stable,
    /// Looking for room. → `Loading`, `Aborted`
    CapacityCheck,
    /// Canary pods start. → `Warmup`, `Promoting` (nothing to compare with), `RollingBack`
    Loading,
    /// They are ready and still without traffic. → `Analysing`, `RollingBack`
    Warmup,
    /// They serve a share and are judged. → `Paused`, `Inconclusive`, `Promoting`, `RollingBack`
    Analysing,
    /// A person is asked to say go on. → `Analysing`, `Promoting`, `RollingBack`
    Paused,
    /// The evidence cannot decide. → `Analysing`, `Promoting`, `RollingBack`
    Inconclusive,
    /// The canary takes all traffic. → `Completed`, `RollingBack`
    Promoting,
    /// The canary is the stable revision now. → `CapacityCheck`
    Completed,
    /// All traffic is back on stable; the canary's pods finish what they have. → the three below, `Stable`
    RollingBack,
    /// The revision was judged worse. → `CapacityCheck` for another revision or retry token
    RolledBack,
    /// A person, a deadline or a failed start ended it. → as `RolledBack`
    Aborted,
    /// The kill switch ended it. → as `RolledBack`, once the switch is off
    Killed,
}

impl Phase {
    /// Whether a canary exists that may get traffic.
    pub const fn is_running(self) -> bool {
        matches!(
            self,
            Self::CapacityCheck
                | Self::Loading
                | Self::Warmup
                | Self::Analysing
                | Self::Paused
                | Self::Inconclusive
                | Self::Promoting
        )
    }
}

/// A revision that is not tried again by itself.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Failed {
    /// Its hash.
    pub revision: String,
    /// The retry token of that attempt: another one lets it be tried again.
    pub retry_token: String,
}

/// Where a rollout stands. Enough to go on after a restart.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct State {
    /// The phase.
    pub phase: Phase,
    /// Since when, in milliseconds of the caller's clock.
    pub since_ms: u64,
    /// The revision that serves everybody else.
    pub stable: String,
    /// The one on trial.
    pub canary: Option<String>,
    /// Index of the step.
    pub step: usize,
    /// Since when the step's weight and pods have been in place.
    pub step_since_ms: Option<u64>,
    /// The canary's share now.
    pub weight_basis_points: u16,
    /// How the canary gets its pods.
    pub strategy: Option<Strategy>,
    /// Canary pods beyond what the step needs.
    pub extra_pods: u32,
    /// Since when the present hold lasts.
    pub hold_since_ms: Option<u64>,
    /// Since when a lone pod has looked slow.
    pub suspect_since_ms: Option<u64>,
    /// Steps back so far because users of the canary waited longer.
    pub steps_back: u8,
    /// Reasons for which a person has said go on.
    pub accepted: BTreeSet<Reason>,
    /// The phase that follows `RollingBack`.
    pub ending: Phase,
    /// Whether a step ended quietly without proof, and none with one since.
    pub is_underpowered: bool,
    /// Revisions that are not tried again, the latest last.
    pub failed: Vec<Failed>,
    /// Generation of the last command that was obeyed or refused.
    pub acknowledged: u64,
    /// Why the phase is what it is, for people.
    pub message: String,
    /// The verdict that ended the rollout; it does not change any more.
    pub verdict: Option<Verdict>,
}

impl State {
    /// `stable` serves alone.
    pub fn new(stable: &str, now_ms: u64) -> Self {
        Self {
            phase: Phase::Stable,
            since_ms: now_ms,
            stable: stable.to_owned(),
            canary: None,
            step: 0,
            step_since_ms: None,
            weight_basis_points: 0,
            strategy: None,
            extra_pods: 0,
            hold_since_ms: None,
            suspect_since_ms: None,
            steps_back: 0,
            accepted: BTreeSet::new(),
            ending: Phase::Stable,
            is_underpowered: false,
            failed: Vec::new(),
            acknowledged: 0,
            message: String::new(),
            verdict: None,
        }
    }
}

/// What a person tells a rollout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Command {
    /// Go on to the next step.
    Promote,
    /// Go on to all traffic.
    PromoteFull,
    /// Stay where you are.
    Pause,
    /// Back to stable.
    Abort,
}

/// A command, and what it is about.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Action {
    /// What to do.
    pub command: Command,
    /// The canary that is meant; a command for another revision is refused.
    pub revision: String,
    /// Grows with each command: one is obeyed once.
    pub generation: u64,
}

/// The switch for emergencies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum KillSwitch {
    /// Nothing.
    #[default]
    Off,
    /// No canary gets traffic.
    Rollout,
    /// Nobody is served.
    Model,
}

/// What is true now.
#[derive(Debug, Clone, PartialEq)]
pub struct Facts {
    /// The revision that the spec asks for.
    pub wanted: String,
    /// The spec's retry token.
    pub retry_token: String,
    /// The last command.
    pub action: Option<Action>,
    /// The switch.
    pub kill_switch: KillSwitch,
    /// Room and size.
    pub capacity: Capacity,
    /// Ready pods of the canary.
    pub canary_ready: u32,
    /// All pods of the canary, ready or not.
    pub canary_pods: u32,
    /// Why the canary can never start, if that is known.
    pub canary_refusal: Option<String>,
    /// The verdict, with the revision it is about.
    pub verdict: Option<(String, Verdict)>,
}

/// Who gets what share.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Split {
    /// The revision that serves the rest.
    pub stable: String,
    /// The one on trial.
    pub canary: Option<String>,
    /// Its share.
    pub weight_basis_points: u16,
    /// Whether requests are refused instead.
    pub is_rejecting: bool,
}

/// What follows.
#[derive(Debug, Clone, PartialEq)]
pub struct Next {
    /// To be stored.
    pub state: State,
    /// To be told to the gateways, before anything else is done.
    pub split: Split,
    /// Pods that the canary should have.
    pub canary_pods: u32,
    /// Whether a step has just ended: the moment for tests at fixed times.
    pub ends_step: bool,
    /// When to look again without being woken, in milliseconds.
    pub requeue_ms: u64,
}
