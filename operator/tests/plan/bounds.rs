//! How many pods a canary may have beside the fleet and in the place of stable ones, and what is said where that is too few.

use crds::model::{ChosenCapacity, RolloutPhase};
use judgement::rollout::Outcome;
use serde_json::{Value, json};

use super::scene::*;
use super::world::*;

/// A rollout of a revision that passes, from its beginning to its promotion: the shares that it had, and the most pods that
/// both revisions had together.
fn promoted(mut world: World) -> (Vec<i32>, i32) {
    let (old, mut weights, mut most) = (world.old(), vec![], 0);
    world.verdict = Some(Outcome::Pass);
    while world.stable() == old {
        world.turn(2);
        most = most.max(world.told.values().sum());
        if world.stable() == old && weights.last() != Some(&world.weight()) {
            weights.push(world.weight());
        }
        assert!(world.now < NOW + 1_800, "{:#?}", world.plan.status);
    }
    (weights, most)
}

fn bounded(replicas: i32, bounds: Value, demand: Option<f64>) -> World {
    let mut world = World::in_pool(driven(replicas, bounds), 4 * replicas, demand);
    world.turn(2);
    world
}

#[test]
fn no_more_pods_than_allowed_run_beside_the_fleet_and_the_share_is_what_they_carry() {
    let (weights, most) = promoted(bounded(4, json!({"maxSurge": 1}), None));
    assert_eq!(most, 5);
    assert_eq!(
        weights,
        [0, 1_000, 2_500, 5_000, 7_500],
        "a quarter at 50% too; then one place after the other"
    );
    let (weights, most) = promoted(bounded(4, json!({"maxSurge": "75%"}), None));
    assert_eq!((weights, most), (vec![0, 1_000, 2_500, 5_000, 7_500], 7), "three pods carry 50% of four");
    let (_, most) = promoted(bounded(4, json!({}), None));
    assert_eq!(most, 8, "without a bound there is room for all");
}

#[test]
fn a_step_that_its_pods_do_not_carry_goes_on_and_says_why() {
    let mut world = bounded(4, json!({"steps": [{"weightPercent": 50}], "maxSurge": 1}), None);
    world.until(RolloutPhase::Analysing);
    assert_eq!((world.weight(), world.told[&world.target()]), (2_500, 1));
    let (_, message) = world.ready();
    assert!(message.contains("gets 25% of the keys"), "{message}");
    assert!(
        message.contains("its pods do not carry the 50% of this step: spec.rollout.maxSurge allows 1"),
        "{message}"
    );
    world.model.spec.rollout.as_mut().unwrap().max_surge = serde_json::from_value(json!(3)).unwrap();
    world.turn(2);
    assert_eq!((world.weight(), world.told[&world.target()]), (2_500, 3), "their pods first");
    world.turn(2);
    assert_eq!(world.weight(), 5_000, "the share follows, in the same step");
    assert!(!world.ready().1.contains("maxSurge"), "{:?}", world.ready());
    world.model.spec.rollout.as_mut().unwrap().max_surge = serde_json::from_value(json!(1)).unwrap();
    world.turn(2).turn(2);
    assert_eq!((world.weight(), world.told[&world.target()]), (5_000, 3), "who runs already stays");
}

#[test]
fn without_a_pod_beside_the_fleet_stable_pods_make_room_or_the_field_is_named() {
    let mut world = bounded(2, json!({"maxSurge": 0}), Some(0.8));
    assert_eq!(world.rollout().capacity_strategy, Some(ChosenCapacity::InPlace));
    world.until(RolloutPhase::Analysing);
    assert_eq!(world.told[&world.old()], 1);
    let waits = |replicas, demand, bounds: Value, named: &str| {
        let mut world = bounded(replicas, bounds, demand);
        world.turn(2);
        assert_eq!(world.phase(), RolloutPhase::CapacityCheck);
        assert!(world.ready().1.contains(named), "{:?} lacks {named}", world.ready());
        world.until(RolloutPhase::Aborted);
        assert!(world.ready().1.contains(named), "{:?} lacks {named}", world.ready());
    };
    waits(2, Some(1.9), json!({"maxSurge": 0}), "spec.rollout.maxSurge is 0");
    waits(2, Some(1.9), json!({"maxSurge": 0}), "1.9 pods' worth of work arrives");
    waits(2, None, json!({"maxSurge": 0}), "how much work arrives is not known");
    waits(1, None, json!({"maxSurge": 0}), "a single pod has no place to give up");
    let none = "spec.rollout.maxUnavailable allows none of the 2 pods";
    waits(2, Some(0.1), json!({"maxSurge": 0, "maxUnavailable": "10%"}), none);
    waits(2, Some(0.1), json!({"capacityStrategy": "InPlace", "maxUnavailable": "10%"}), none);
}

#[test]
fn no_more_stable_pods_make_room_than_allowed() {
    let fewest = |bounds: Value| {
        let mut world = World::in_pool(driven(4, bounds), 4, Some(0.5));
        let mut fewest = 4;
        world.verdict = Some(Outcome::Pass);
        world.until(RolloutPhase::Analysing);
        while world.phase() != RolloutPhase::Promoting {
            fewest = fewest.min(world.told[&world.old()]);
            world.turn(2);
        }
        (fewest, world)
    };
    assert_eq!(fewest(json!({"steps": [{"weightPercent": 50}]})).0, 1, "the load allows it");
    assert_eq!(fewest(json!({"steps": [{"weightPercent": 50}], "maxUnavailable": 2})).0, 2);
    assert_eq!(fewest(json!({"steps": [{"weightPercent": 50}], "maxUnavailable": "49%"})).0, 3);
    let mut one = World::in_pool(
        driven(4, json!({"steps": [{"weightPercent": 50}], "maxUnavailable": 1})),
        4,
        Some(0.5),
    );
    one.until(RolloutPhase::Analysing);
    assert_eq!(one.weight(), 2_500);
    assert!(one.ready().1.contains("spec.rollout.maxUnavailable allows 1 in the place"), "{:?}", one.ready());
}

// === a lone pod that looks slow ===

/// Worlds with one canary pod and no place for another one, and what is said of it.
fn alone() -> Vec<(World, &'static str)> {
    let in_place = || json!({"capacityStrategy": "InPlace"});
    vec![
        (bounded(4, json!({"maxSurge": 1}), None), "spec.rollout.maxSurge allows 1"),
        (World::in_pool(driven(3, in_place()), 3, None), "how much work arrives is not known"),
        (World::in_pool(driven(3, in_place()), 3, Some(2.5)), "leaves no further stable pod"),
    ]
}

#[test]
fn a_suspect_without_a_place_for_a_second_pod_is_told_and_has_an_end() {
    for (mut world, why) in alone() {
        world.until(RolloutPhase::Analysing).verdict = Some(Outcome::Suspect);
        world.turn(2);
        let (_, message) = world.ready();
        assert!(message.contains("one of its pods looks slow") && message.contains(why), "{message}");
        assert_eq!(world.told[&world.target()], 1);
        world.turn(1_700);
        assert_eq!((world.phase(), world.weight()), (RolloutPhase::Analysing, 1_000), "the share is frozen");
        world.turn(101);
        assert_eq!(world.phase(), RolloutPhase::Inconclusive);
        assert!(world.ready().1.contains("no other one came that would tell"), "{:?}", world.ready());
        assert_eq!(world.until(RolloutPhase::Aborted).weight(), 0, "nobody decides");
    }
}

#[test]
fn a_suspect_gets_another_stable_pods_place_as_soon_as_the_load_allows_it() {
    let mut world = World::in_pool(driven(3, json!({})), 3, Some(1.7));
    world.until(RolloutPhase::Analysing).verdict = Some(Outcome::Suspect);
    world.turn(2).turn(2);
    assert_eq!(world.told[&world.target()], 1);
    world.demand = Some(0.8);
    world.turn(2).turn(2);
    assert_eq!((world.told[&world.old()], world.told[&world.target()]), (1, 2));
    assert!(
        !world.ready().1.contains("no place") && !world.ready().1.contains("leaves no"),
        "{:?}",
        world.ready()
    );
    world.turn(1_000).verdict = Some(Outcome::Continue);
    world.turn(2).verdict = Some(Outcome::Suspect);
    world.turn(2).turn(1_000);
    assert_eq!(world.phase(), RolloutPhase::Analysing, "a doubt that comes again begins anew");
}
