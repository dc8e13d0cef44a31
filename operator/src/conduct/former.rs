//! The revision that was promoted over last. For a while its pods stay without traffic, and a spec that goes back to it
//! gets it at once: it has proved itself, so it is not on trial again. Pure.
//!
//! Its pods stay only beside all pods of its successor. Whoever wants their room has it: its successor when that grows,
//! other models of the pool, a pod that finds no node, the next rollout.

use crds::model::{InferenceModelSpec, InferenceModelStatus};
use judgement::rollout::{Phase, State};

use super::{Scene, find, room};

/// How long the pods of a former revision stay: long enough for people to notice what a verdict could not, and short
/// enough that a rollout costs twice the pods for minutes only.
const WINDOW_SECONDS: i32 = 600;

/// A former revision whose pods stay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Former {
    /// Its name.
    pub revision: String,
    /// Until when, in milliseconds since 1970.
    pub until_ms: u64,
}

/// The former revision whose pods stay from now on, or still.
pub(super) fn former(
    spec: &InferenceModelSpec,
    status: &InferenceModelStatus,
    (before, after): (&State, &State),
    scene: &Scene<'_>,
    now_ms: u64,
) -> Option<Former> {
    let is_over = after.phase != Phase::Completed || after.stable != scene.target || scene.fleet == 0;
    let is_new = before.phase == Phase::Promoting;
    let revision = if is_new { Some(&before.stable) } else { told(status) };
    let revision = find(scene, revision?).filter(|revision| !is_over && revision.name != after.stable)?;
    let is_whole = !is_new || revision.replicas_told >= scene.fleet;
    let has_room = room::room(scene).is_none_or(|room| room >= scene.fleet);
    let until_ms = after.since_ms.saturating_add(window_ms(spec));
    (is_whole && has_room && now_ms < until_ms).then(|| Former { revision: revision.name.clone(), until_ms })
}

/// Where the rollout stands when the spec has gone back to a former revision that could take all traffic: there.
pub(super) fn returned(
    before: State,
    spec: &InferenceModelSpec,
    status: &InferenceModelStatus,
    scene: &Scene<'_>,
    now_ms: u64,
) -> State {
    let is_kept = before.phase == Phase::Completed
        && told(status).map(String::as_str) == Some(scene.target)
        && now_ms < before.since_ms.saturating_add(window_ms(spec));
    let is_whole = find(scene, scene.target)
        .is_some_and(|former| former.ready >= former.replicas_told.min(scene.fleet).max(1));
    if !(is_kept && is_whole) {
        return before;
    }
    State {
        phase: Phase::Completed,
        failed: before.failed,
        acknowledged: before.acknowledged,
        message: format!("back from revision {}", before.stable),
        ..State::new(scene.target, now_ms)
    }
}

fn told(status: &InferenceModelStatus) -> Option<&String> {
    Some(&status.rollout.as_ref()?.former.as_ref()?.revision)
}

fn window_ms(spec: &InferenceModelSpec) -> u64 {
    let declared = spec.rollout.as_ref().and_then(|rollout| rollout.rollback_window_seconds);
    u64::try_from(declared.unwrap_or(WINDOW_SECONDS)).unwrap_or(0) * 1_000
}
