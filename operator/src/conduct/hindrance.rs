//! Why a canary on trial has less than it should, for people: a share below its step's, or no second pod for one that looks
//! slow. Pure.

use judgement::rollout::{Capacity, Outcome, Phase, Plan, State, Strategy, in_place_pods};

use super::bounds::Bounds;
use super::{Scene, find, room};
use crate::rollout::percent;

/// What keeps the canary from what `plan` says; `wanted` pods should run, and `target_pods` may.
pub(super) fn hindrance(
    state: &State,
    plan: &Plan,
    capacity: &Capacity,
    scene: &Scene<'_>,
    (bounds, wanted, target_pods): (Bounds, u32, i32),
) -> Option<String> {
    let step = plan.steps.get(state.step).filter(|_| state.phase == Phase::Analysing)?;
    let verdict = scene.verdict.filter(|seen| Some(&seen.canary) == state.canary.as_ref());
    let is_suspect = verdict.is_some_and(|seen| seen.verdict.outcome == Outcome::Suspect);
    let has = usize::try_from(target_pods).unwrap_or(0);
    let lacks_pods = has < plan.analysis.min_canary_pods && i64::from(wanted) > i64::from(target_pods);
    let limit = || limit(state, capacity, scene, bounds);
    if is_suspect && lacks_pods {
        return Some(format!(
            "one of its pods looks slow, or its node, and another one that would tell has no place: {}",
            limit()
        ));
    }
    let is_coming = find(scene, scene.target).is_none_or(|target| target.ready < target_pods);
    let is_below = state.step_since_ms.is_some() && state.weight_basis_points < step.weight_basis_points;
    let declared = percent(i32::from(step.weight_basis_points));
    (is_below && !is_coming)
        .then(|| format!("its pods do not carry the {declared} of this step: {}", limit()))
}

/// What keeps it from more pods.
fn limit(state: &State, capacity: &Capacity, scene: &Scene<'_>, bounds: Bounds) -> String {
    if state.strategy == Some(Strategy::InPlace) {
        let places = i32::try_from(in_place_pods(capacity)).unwrap_or(i32::MAX);
        return match bounds.unavailable.filter(|unavailable| *unavailable <= places) {
            Some(unavailable) => {
                format!("spec.rollout.maxUnavailable allows {unavailable} in the place of stable ones")
            }
            None if scene.demand.is_none() => {
                "how much work arrives is not known, so no further stable pod makes room".to_owned()
            }
            None => "the work that arrives leaves no further stable pod to make room".to_owned(),
        };
    }
    let room = room::room(scene);
    match bounds.surge.filter(|surge| room.is_none_or(|room| *surge <= room)) {
        Some(surge) => format!("spec.rollout.maxSurge allows {surge} beside the fleet"),
        None => "there is no room for more of them".to_owned(),
    }
}
