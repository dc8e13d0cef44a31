//! Which revision gets which share of a model's traffic, and which revisions stay. Pure.
//!
//! A new revision runs beside the one that serves and takes over when it is complete, proven, and declared to have
//! everything. Until then it gets its declared share (strategy Canary), or nothing (`BlueGreen`). Going back to the
//! serving revision is just another target. Of a canary that the operator drives, and with strategy Recreate, `conduct`
//! decides instead, as long as there is a stable revision.
//!
//! | stable | target | declared | complete, proven | gets | then |
//! |---|---|---|---|---|---|
//! | — | a | any | no | all there is | a is stable once it is proven |
//! | a | a | any | any | all | everything else goes |
//! | a | b | 25 % | no | 0 | both stay |
//! | a | b | 25 % | yes | 25 % | both stay |
//! | a | b | 100 % | yes | all | b is stable, a goes |
//! | a | c, while b runs | any | no | 0 | a and c stay, b goes |

use crds::model::{InferenceModelSpec, KillSwitch, RolloutStrategy};

use crate::conduct::conducts;
use crate::revision::Revision;

/// All traffic, in basis points.
pub const ALL: i32 = 10_000;

/// A share in basis points for people: `25%`, `0.25%`.
pub fn percent(basis_points: i32) -> String {
    format!("{}%", f64::from(basis_points) / 100.0)
}

/// What the roles of the revisions depend on.
#[derive(Debug, Clone, Copy)]
pub struct Standing<'seen> {
    /// The revision that the spec asks for.
    pub target: &'seen str,
    /// All revisions that exist.
    pub revisions: &'seen [Revision],
    /// The revision that was stable until now.
    pub stable: Option<&'seen str>,
    /// What the target is declared to get, in basis points.
    pub share: i32,
    /// Whether all wanted pods of the target are ready.
    pub is_complete: bool,
    /// Whether the target has given a token.
    pub is_proven: bool,
}

/// What the revisions are to each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Roles<'seen> {
    /// Whether the target could take everything: it is complete and proven.
    pub is_able: bool,
    /// Whether the target is the stable revision, from now on or since long.
    pub is_stable: bool,
    /// Whether the target is to run: not if it has failed, or waits.
    pub runs: bool,
    /// The one other revision that stays, and gets whatever the target does not.
    pub keeper: Option<&'seen Revision>,
    /// One more that stays and gets nothing, for the case that the spec goes back to it.
    pub former: Option<&'seen Revision>,
    /// What the target gets beside the keeper, in basis points.
    pub weight: i32,
    /// Those that go: leftovers of earlier edits, and whoever has been replaced.
    pub leavers: Vec<&'seen Revision>,
}

/// What the target is declared to get beside a stable revision, in basis points.
pub fn declared_share(spec: &InferenceModelSpec) -> i32 {
    if spec.kill_switch == Some(KillSwitch::Rollout) {
        return 0;
    }
    match strategy(spec) {
        RolloutStrategy::BlueGreen | RolloutStrategy::Recreate => ALL,
        // Nobody serves whom it could be compared with: a canary that the operator drives takes over.
        RolloutStrategy::Canary if conducts(spec) => ALL,
        RolloutStrategy::Canary => declared_percent(spec) * 100,
    }
}

/// The strategy that the spec declares.
pub fn strategy(spec: &InferenceModelSpec) -> RolloutStrategy {
    spec.rollout.as_ref().and_then(|rollout| rollout.strategy).unwrap_or_default()
}

/// `spec.rollout.traffic.canaryPercent`.
pub fn declared_percent(spec: &InferenceModelSpec) -> i32 {
    let traffic = spec.rollout.as_ref().and_then(|rollout| rollout.traffic.as_ref());
    traffic.and_then(|traffic| traffic.canary_percent).unwrap_or(0).clamp(0, 100)
}

/// Decides who is what.
pub fn roles<'seen>(standing: &Standing<'seen>) -> Roles<'seen> {
    let Standing { target, revisions, stable, share, is_complete, is_proven } = *standing;
    let current = revisions.iter().find(|revision| revision.name == target);
    let others: Vec<&Revision> = revisions.iter().filter(|revision| revision.name != target).collect();
    let standby = standby(stable, &others);
    let is_able = is_complete && is_proven;
    let is_stable = stable == Some(target) || (is_able && (share >= ALL || standby.is_none()));
    let serves = current.is_some_and(|current| current.ready > 0);
    let keeper = standby.filter(|_| !(is_stable && serves));
    Roles {
        is_able,
        is_stable,
        runs: true,
        keeper,
        former: None,
        weight: if is_able && !is_stable && keeper.is_some() { share } else { 0 },
        leavers: others
            .into_iter()
            .filter(|other| keeper.is_none_or(|keeper| keeper.name != other.name))
            .collect(),
    }
}

/// The one other revision that stays until the target has proved itself: the stable one, or, if that serves nothing,
/// the one that serves most.
fn standby<'seen>(stable: Option<&str>, others: &[&'seen Revision]) -> Option<&'seen Revision> {
    let is_stable = |other: &Revision| Some(other.name.as_str()) == stable;
    let serving = others.iter().copied().filter(|other| other.ready > 0);
    serving
        .max_by_key(|other| (is_stable(other), other.ready, other.created))
        .or_else(|| others.iter().copied().find(|other| is_stable(other)))
}
