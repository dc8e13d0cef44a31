//! Where canary pods find room, and what each revision is to have for it. Pure.
//!
//! | strategy | stable pods | canary pods |
//! |---|---|---|
//! | Surge | all | beside them |
//! | InPlace | all but those that made room; the last goes when the canary has all traffic | in the place of those |
//! | Recreate | none | all, once the last stable pod has ended |

use crds::model::{CapacityStrategy, InferenceModel, InferenceModelSpec, RolloutStrategy};
use judgement::rollout::{Capacity, LOAD_MAX, Phase, State, Strategy, choose, in_place_pods};

use super::bounds::Bounds;
use super::{Scene, find};
use crate::pod::unplaced;
use crate::rollout;

/// The strategy that the spec asks for.
pub(super) fn wish(spec: &InferenceModelSpec) -> CapacityStrategy {
    let declared = spec.rollout.as_ref().and_then(|rollout| rollout.capacity_strategy);
    match rollout::strategy(spec) {
        RolloutStrategy::Recreate => CapacityStrategy::Recreate,
        _ => declared.unwrap_or_default(),
    }
}

/// What room there is, in the words of the judgement. A strategy that is asked for, or was chosen earlier, is told as
/// room that leaves no other choice.
pub(super) fn capacity(
    wish: CapacityStrategy,
    before: &State,
    scene: &Scene<'_>,
    bounds: Bounds,
) -> Capacity {
    let beside = Capacity {
        spare_pods: bounds.beside(room(scene), running(before, scene)).map(count),
        fleet_pods: count(scene.fleet),
        demand_pods: f64::from(scene.fleet),
        fits_beside: false,
        allows_recreate: false,
    };
    let in_place = |held, places| Capacity {
        spare_pods: Some(0),
        demand_pods: bounded(demand(scene).min(work_of(scene.fleet - held)), places, scene),
        ..beside
    };
    let chosen = before.strategy.filter(|_| before.phase.is_running());
    match (chosen, wish) {
        // One after the other, whatever the load is: it may grow while they start.
        (Some(Strategy::InPlace), _) if before.phase == Phase::Promoting => {
            Capacity { spare_pods: Some(0), demand_pods: work_of(scene.fleet - 1), ..beside }
        }
        (Some(Strategy::InPlace), _) => in_place(held(scene), bounds.in_place(held(scene))),
        // The first pod that serves ends the gap; the others follow as those of any stable revision.
        (Some(Strategy::Recreate), _) | (None, CapacityStrategy::Recreate) => {
            Capacity { spare_pods: Some(0), fleet_pods: 1, allows_recreate: true, ..beside }
        }
        (Some(_), _) | (None, CapacityStrategy::Surge) => beside,
        (None, CapacityStrategy::InPlace) => in_place(1, bounds.in_place(0)),
        (None, CapacityStrategy::Auto) => {
            let demand_pods = bounded(demand(scene), bounds.in_place(0), scene);
            preferred(Capacity { demand_pods, ..beside }, scene)
        }
    }
}

/// Where no node has room for a canary pod, stable ones rather make room at once than after one has waited in vain. Where
/// they cannot, the canary is tried beside them all the same: a node may come for it.
fn preferred(beside: Capacity, scene: &Scene<'_>) -> Capacity {
    let is_full = scene.fitting == Some(0) && in_place_pods(&beside) >= 1;
    if is_full { Capacity { spare_pods: Some(0), ..beside } } else { beside }
}

/// The work, or as much as leaves no more than `places` to give up.
fn bounded(work: f64, places: Option<i32>, scene: &Scene<'_>) -> f64 {
    places.map_or(work, |places| work.max(work_of(scene.fleet - places)))
}

/// Canary pods that run beside the fleet. While it is promoted, they take the places of stable ones.
fn running(before: &State, scene: &Scene<'_>) -> i32 {
    let is_beside =
        before.phase.is_running() && !matches!(before.phase, Phase::CapacityCheck | Phase::Promoting);
    find(scene, scene.target).filter(|_| is_beside).map_or(0, |target| target.replicas_told)
}

/// Places that the canary has already: taking them back would cost a start.
fn held(scene: &Scene<'_>) -> i32 {
    let told = find(scene, scene.target).map_or(0, |target| target.replicas_told);
    told.clamp(1, (scene.fleet - 1).max(1))
}

/// Work that arrives, in pods; without knowledge as much as the fleet can do.
fn demand(scene: &Scene<'_>) -> f64 {
    scene.demand.unwrap_or_else(|| f64::from(scene.fleet))
}

/// Work that needs exactly so many pods.
fn work_of(pods: i32) -> f64 {
    (f64::from(pods) - 0.5).max(0.0) * LOAD_MAX
}

/// A rollout whose canary was to run beside the stable pods, and no node takes any of its pods: they make room instead,
/// where that is allowed.
pub(super) fn reconsidered(
    before: State,
    wish: CapacityStrategy,
    scene: &Scene<'_>,
    bounds: Bounds,
) -> State {
    let is_beside = before.phase == Phase::Loading && before.strategy == Some(Strategy::Surge);
    let has_no_node = is_beside && unplaced(scene.readings) > 0 && room(scene) == Some(0);
    if !has_no_node || wish != CapacityStrategy::Auto {
        return before;
    }
    let undecided = State { strategy: None, ..before.clone() };
    let strategy = choose(&capacity(wish, &undecided, scene, bounds)).or(before.strategy);
    State { strategy, ..before }
}

/// What a person should know before pods of the stable revision end.
pub(super) fn warning(strategy: Strategy, scene: &Scene<'_>) -> Option<String> {
    let start = match scene.start_seconds {
        Some(seconds) => format!("one start (about {seconds} s)"),
        None => "one start".to_owned(),
    };
    match strategy {
        Strategy::Surge | Strategy::HotSwap => None,
        Strategy::InPlace => {
            Some(format!("canary pods take the place of stable ones; a rollback takes {start}"))
        }
        Strategy::Recreate => Some(format!(
            "the stable pods end before the new ones begin; requests wait at the gateway for {start}, and as long again \
             for a rollback"
        )),
    }
}

/// Why there is no room, and what to do about it.
pub(super) fn obstacle(model: &InferenceModel, scene: &Scene<'_>) -> String {
    let wish = wish(&model.spec);
    let bounds = Bounds::of(&model.spec, scene.fleet);
    if let Some(obstacle) = bounds.forbidden(wish, scene) {
        return obstacle;
    }
    if wish == CapacityStrategy::InPlace {
        return "spec.rollout.capacityStrategy is InPlace, and a single pod has no place to give up; raise the number of \
                pods to 2, or set capacityStrategy to Recreate, which accepts a gap"
            .to_owned();
    }
    let cure = match (wish, scene.demand) {
        (_, _) if scene.fleet < 2 => {
            ", or set spec.rollout.capacityStrategy to Recreate, which accepts a gap".to_owned()
        }
        (CapacityStrategy::Auto, _) if bounds.unavailable == Some(0) => {
            ", or raise spec.rollout.maxUnavailable, with which stable pods make room".to_owned()
        }
        (CapacityStrategy::Auto, Some(demand)) => format!(
            "; {demand:.1} pods' worth of work arrives, which leaves none of the {} pods to make room; with \
             spec.rollout.capacityStrategy InPlace one does all the same",
            scene.fleet
        ),
        _ => {
            ", or set spec.rollout.capacityStrategy to InPlace, with which a stable pod makes room".to_owned()
        }
    };
    match scene.replicas_max {
        Some(max) => format!(
            "no room for a canary pod: spec.limits.maxReplicas of pool {} is {max} for all its models together; raise \
             it, or lower spec.replicas{cure}",
            model.spec.pool_ref.name
        ),
        None => format!("no room for a canary pod: no node takes it; add one{cure}"),
    }
}

/// Pods of the target and of the stable revision, when `canary_pods` are right for the share of the former.
pub(super) fn pods(
    (before, state): (&State, &State),
    capacity: &Capacity,
    scene: &Scene<'_>,
    (canary_pods, bounds): (u32, Bounds),
) -> (i32, i32) {
    if state.stable == scene.target {
        return (scene.fleet, scene.fleet);
    }
    if state.canary.as_deref() != Some(scene.target) || canary_pods == 0 {
        return (0, scene.fleet);
    }
    let wanted = i32::try_from(canary_pods).unwrap_or(i32::MAX);
    match state.strategy {
        Some(Strategy::InPlace) => pods_in_place((before, state), capacity, scene, wanted),
        Some(Strategy::Recreate) => pods_recreated(scene),
        _ => pods_beside(state, scene, wanted, bounds),
    }
}

/// Where room is short, stable pods make room for a promoted revision as it grows; and a pod that no node can take is
/// not taken away, so that it is there when room comes.
fn pods_beside(state: &State, scene: &Scene<'_>, wanted: i32, bounds: Bounds) -> (i32, i32) {
    let (told, ready) =
        find(scene, scene.target).map_or((0, 0), |target| (target.replicas_told, target.ready));
    let stable = find(scene, &state.stable);
    let (stable_told, stable_now) = stable.map_or((0, 0), |stable| (stable.replicas_told, stable.replicas));
    let pending = if unplaced(scene.readings) > 0 { told } else { 0 };
    if state.phase != Phase::Promoting {
        let allowed = bounds.beside(None, told.max(1));
        return (wanted.min(allowed.unwrap_or(wanted)).max(pending), scene.fleet);
    }
    let needed = (scene.fleet - ready).max(0);
    match bounds.beside(room(scene), 0).filter(|room| *room < scene.fleet) {
        Some(room) => {
            let target = scene.fleet.min(scene.fleet + room - stable_now).max(ready);
            (target.max(pending).max(1), needed)
        }
        None => (wanted, stable_told.min(scene.fleet).max(needed)),
    }
}

/// Both revisions together have as many pods as the fleet. Stable pods go first, and the canary's begin when those have
/// ended. While it is promoted, stable pods go only as far as gateways have been told of the share that they lose.
fn pods_in_place(
    (before, state): (&State, &State),
    capacity: &Capacity,
    scene: &Scene<'_>,
    wanted: i32,
) -> (i32, i32) {
    let fleet = scene.fleet;
    let (told, ready) =
        find(scene, scene.target).map_or((0, 0), |target| (target.replicas_told, target.ready));
    let making_room = i32::try_from(in_place_pods(capacity).max(1)).unwrap_or(i32::MAX);
    let (wanted, stable) = match (before.phase, state.phase) {
        (Phase::Promoting, Phase::Promoting) => {
            let wanted = fleet.min(ready + making_room).max(told);
            let stable_told = find(scene, &state.stable).map_or(0, |stable| stable.replicas_told);
            let needed = still_needed(before, fleet - making_room).min(stable_told);
            (wanted, (fleet - wanted).max(needed))
        }
        (_, Phase::Promoting) => (told.max(1), (fleet - told).max(1)),
        _ => {
            let wanted = wanted.min(making_room);
            (wanted, (fleet - wanted).max(1))
        }
    };
    let left = i32::try_from(scene.stable_pods).unwrap_or(i32::MAX);
    (wanted.min(told.max(fleet - left)), stable)
}

/// Stable pods for the share that they have by the last status, where `serving` pods carry everything.
fn still_needed(before: &State, serving: i32) -> i32 {
    let share = 10_000 - i32::from(before.weight_basis_points);
    (share * serving.max(1) + 9_999) / 10_000
}

/// Nobody serves until the target does.
fn pods_recreated(scene: &Scene<'_>) -> (i32, i32) {
    let told = find(scene, scene.target).map_or(0, |target| target.replicas_told);
    (if scene.stable_pods == 0 { scene.fleet } else { told.min(scene.fleet) }, 0)
}

/// Pods beyond the stable ones that there is room for, if that is known: by the pool's limit, or because a canary pod
/// finds no node.
pub(super) fn room(scene: &Scene<'_>) -> Option<i32> {
    let unplaced = unplaced(scene.readings);
    let placed = i32::try_from(scene.readings.len() - unplaced).unwrap_or(i32::MAX);
    [scene.spare, (unplaced > 0).then_some(placed)].into_iter().flatten().min()
}

fn count(count: i32) -> u32 {
    u32::try_from(count).unwrap_or(0)
}
