//! A revision that was promoted over: how long its pods stay, who gets their room, and the way back to it.

use crds::model::{CanaryPhase, RolloutPhase};
use judgement::rollout::Outcome;
use operator::capacity::Claim;
use serde_json::{Value, json};

use super::scene::*;
use super::world::*;

/// A world just after a promotion.
fn promoted(changes: Value, max_replicas: i32) -> World {
    let mut rollout = json!({"rollbackWindowSeconds": 600});
    for (key, value) in changes.as_object().unwrap() {
        rollout[key] = value.clone();
    }
    let mut world = World::in_pool(driven(2, rollout), max_replicas, None);
    world.verdict = Some(Outcome::Pass);
    let old = world.old();
    while world.stable() == old {
        world.turn(2);
        assert!(world.now < NOW + 900, "{:#?}", world.plan.status);
    }
    world
}

fn former(world: &World) -> Option<&str> {
    world.rollout().former.as_ref().map(|former| former.revision.as_str())
}

fn notices(world: &World) -> String {
    let told = world.plan.notices.iter().map(|notice| format!("{}: {}\n", notice.reason, notice.message));
    told.collect()
}

#[test]
fn the_pods_of_a_former_revision_stay_for_a_while_and_get_nothing() {
    let mut world = promoted(json!({}), 4);
    let (old, promotion) = (world.old(), world.now);
    assert!(notices(&world).contains("stay without traffic until"), "{}", notices(&world));
    for seconds in [2, 500, 90] {
        world.turn(seconds);
        assert_eq!((former(&world), world.told[&old], world.told.len()), (Some(old.as_str()), 2, 2));
        assert_eq!((world.weight(), world.rollout().rollback_seconds), (0, Some(0)));
        assert_eq!((world.phase(), world.plan.status.canary_revision.as_ref()), (RolloutPhase::Stable, None));
        assert!(world.plan.requeue.as_secs() <= 60);
    }
    let until = world.rollout().former.as_ref().unwrap().until.0;
    assert_eq!(until.as_second(), promotion + 600);
    world.turn(8);
    assert_eq!((former(&world), world.told.len(), world.rollout().rollback_seconds), (None, 1, None));
    assert!(notices(&world).contains("RolloutSettled"), "{}", notices(&world));
}

#[test]
fn a_spec_that_goes_back_to_it_gets_it_at_once() {
    let mut world = promoted(json!({}), 4);
    let (old, bad) = (world.old(), world.target());
    world.turn(100);
    world.model.spec.aliases = vec!["old".to_owned()];
    world.turn(2);
    assert_eq!((world.stable(), world.weight()), (old.as_str(), 0));
    assert_eq!(world.plan.prune, [bad], "after the status is written");
    assert_eq!((world.told.len(), world.told[&old], world.ready().0.as_str()), (1, 2, "ServedToken"));
    world.turn(2).turn(1_000);
    assert_eq!((world.phase(), former(&world), world.told.len()), (RolloutPhase::Stable, None, 1));
}

#[test]
fn one_that_has_lost_its_pods_or_whose_time_is_over_is_tried_like_any_other() {
    let mut world = promoted(json!({}), 4);
    world.failing = Some((world.old(), "EngineLost"));
    world.model.spec.aliases = vec!["old".to_owned()];
    let serving = world.stable().to_owned();
    assert_eq!(world.turn(2).stable(), serving);
    let mut late = promoted(json!({}), 4);
    late.model.spec.aliases = vec!["old".to_owned()];
    let serving = late.stable().to_owned();
    assert_eq!(late.turn(600).stable(), serving);
    assert_eq!(late.course().phase, CanaryPhase::Loading);
}

#[test]
fn whoever_needs_their_room_has_it() {
    let goes = |what: &str, change: &dyn Fn(&mut World)| {
        let mut world = promoted(json!({}), 4);
        assert!(former(world.turn(2)).is_some());
        change(&mut world);
        world.turn(2);
        assert_eq!(former(&world), None, "{what}");
        assert!(!world.told.contains_key(&world.old()), "{what}: {:?}", world.told);
    };
    goes("a fleet that grows", &|world| world.model.spec.replicas = 3);
    goes("a model at rest", &|world| world.model.spec.suspend = Some(true));
    goes("a shorter window", &|world| {
        world.model.spec.rollout.as_mut().unwrap().rollback_window_seconds = Some(1);
    });
    goes("the next rollout", &|world| world.model.spec.aliases = vec!["third".to_owned()]);
    goes("another model", &|world| world.others = vec![other(1, 0)]);
    goes("another former revision", &|world| world.others = vec![other(0, 1)]);
}

fn other(replicas: i32, kept: i32) -> Claim {
    Claim { created: None, model: "other".into(), replicas, kept }
}

#[test]
fn nothing_stays_where_there_was_no_room_beside_it_and_the_cost_of_a_return_is_told() {
    for (changes, max_replicas) in [
        (json!({"rollbackWindowSeconds": 0}), 9),
        (json!({}), 3),
        (json!({"capacityStrategy": "InPlace"}), 9),
    ] {
        let seconds = json!({"schedule": 0, "image": 0, "download": 0, "load": 9, "total": 50});
        let mut world = promoted(changes, max_replicas);
        world.model.status.as_mut().unwrap().cold_start = serde_json::from_value(
            json!({"lastSeconds": seconds, "p50TotalSeconds": 50, "recentTotalSeconds": [50]}),
        )
        .unwrap();
        assert_eq!((former(&world), world.told.len()), (None, 1));
        assert!(notices(&world).contains("is removed"), "{}", notices(&world));
        assert_eq!(world.turn(2).rollout().rollback_seconds, Some(50));
    }
}
