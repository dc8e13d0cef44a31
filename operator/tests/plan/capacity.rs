//! Canaries that find no room beside the stable pods: those make room, or end first, or the canary waits.

use crds::model::{ChosenCapacity, RolloutPhase};
use judgement::rollout::Outcome;
use kube::ResourceExt;
use operator::inventory::Room;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::scene::*;
use super::world::*;

fn in_place() -> Value {
    json!({"capacityStrategy": "InPlace"})
}

fn recreated(mut world: World) -> World {
    world.model.spec.rollout.as_mut().unwrap().warmup_seconds = None;
    world
}

/// How many pods each revision is told to have, the stable one first.
fn told(world: &World) -> (i32, i32) {
    let of = |name: &str| world.told.get(name).copied().unwrap_or(0);
    (of(&world.old()), of(&world.target()))
}

#[test]
fn stable_pods_make_room_in_a_full_pool_that_is_not_busy() {
    let mut world = World::in_pool(driven(2, json!({})), 2, Some(0.8));
    let (old, target) = (world.old(), world.target());
    world.turn(2);
    assert_eq!(told(&world), (1, 0), "a stable pod goes first");
    assert_eq!(world.rollout().capacity_strategy, Some(ChosenCapacity::InPlace));
    world.verdict = Some(Outcome::Pass);
    let mut weights = vec![];
    while world.stable() == old {
        let before = world.weight();
        world.turn(2);
        let (stable, canary) = told(&world);
        assert!(stable + canary <= 2, "{:?}", world.told);
        assert!(stable > 0 || before == 10_000, "gateways know before the last stable pod goes");
        if world.stable() == old && weights.last() != Some(&world.weight()) {
            weights.push(world.weight());
        }
        assert!(world.now < NOW + 900, "{:#?}", world.plan.status);
    }
    assert_eq!(weights, [0, 1_000, 2_500, 5_000, 10_000]);
    assert_eq!(world.told, [(target, 2)].into());
    assert_eq!(world.turn(2).phase(), RolloutPhase::Stable);
}

#[test]
fn the_share_stays_within_the_canarys_part_of_the_pods() {
    let steps = json!([{"weightPercent": 10}, {"weightPercent": 90}]);
    let mut world = World::in_pool(driven(4, json!({"steps": steps})), 4, Some(2.5));
    world.verdict = Some(Outcome::Pass);
    world.until(RolloutPhase::Analysing).turn(200).turn(2);
    assert_eq!((world.rollout().step, world.weight(), told(&world)), (Some(2), 2_500, (3, 1)));
}

#[test]
fn a_canary_without_room_waits_and_the_ways_out_are_named() {
    let waits = |replicas, demand, changes: Value, named: &str| {
        let mut world = World::in_pool(driven(replicas, changes), replicas, demand);
        world.turn(2).turn(2);
        assert_eq!((world.phase(), told(&world)), (RolloutPhase::CapacityCheck, (replicas, 0)));
        assert!(world.ready().1.contains(named), "{:?} lacks {named}", world.ready());
        world.until(RolloutPhase::Aborted);
        assert!(world.ready().1.contains("before the capacity deadline"), "{:?}", world.ready());
        assert!(world.ready().1.contains(named), "{:?} lacks {named}", world.ready());
    };
    waits(2, None, json!({}), "spec.limits.maxReplicas of pool cpu is 2");
    waits(2, None, json!({}), "set spec.rollout.capacityStrategy to InPlace");
    waits(2, Some(1.0), json!({}), "1.0 pods' worth of work arrives");
    waits(1, Some(0.1), json!({}), "capacityStrategy to Recreate, which accepts a gap");
    waits(2, Some(0.1), json!({"capacityStrategy": "Surge"}), "maxReplicas");
    waits(1, Some(0.1), in_place(), "spec.rollout.capacityStrategy is InPlace, and a single pod");
}

#[test]
fn who_asks_for_it_gives_one_pod_up_whatever_the_load_and_however_much_room_there_is() {
    let mut world = World::in_pool(driven(3, in_place()), 9, Some(3.0));
    world.until(RolloutPhase::Analysing);
    assert_eq!((told(&world), world.weight()), ((2, 1), 1_000));
}

#[test]
fn what_a_rollback_costs_is_told_before_a_stable_pod_ends() {
    let mut world = World::in_pool(driven(2, in_place()), 2, None);
    let seconds = json!({"schedule": 0, "image": 0, "download": 0, "load": 9, "total": 50});
    world.model.status.as_mut().unwrap().cold_start = serde_json::from_value(
        json!({"lastSeconds": seconds, "p50TotalSeconds": 50, "recentTotalSeconds": [50]}),
    )
    .unwrap();
    world.turn(2);
    let notice = world.plan.notices.iter().find(|notice| notice.reason == "CanaryCapacity").unwrap();
    assert!(notice.message.ends_with("a rollback takes one start (about 50 s)"), "{}", notice.message);
    assert!(world.course().message.contains("about 50 s"), "{}", world.course().message);
    assert_eq!(world.rollout().rollback_seconds, Some(50));
    world.turn(2);
    assert!(world.plan.notices.iter().all(|notice| notice.reason != "CanaryCapacity"), "once");
    let mut beside = World::new(driven(2, json!({})));
    assert_eq!(beside.until(RolloutPhase::Analysing).rollout().rollback_seconds, Some(0));
}

#[test]
fn a_worse_canary_gives_its_places_back() {
    let mut world = World::in_pool(driven(3, in_place()), 3, None);
    world.until(RolloutPhase::Analysing).verdict = Some(Outcome::Rollback);
    world.turn(2);
    assert_eq!((world.weight(), told(&world)), (0, (3, 0)));
    assert_eq!(world.until(RolloutPhase::RolledBack).told.len(), 1);
}

#[test]
fn a_canary_with_all_places_gives_them_back_although_it_alone_serves() {
    let mut world = World::in_pool(driven(4, in_place()), 4, Some(0.1));
    world.until(RolloutPhase::Analysing).command("PromoteFull", "1");
    while told(&world).0 > 0 {
        assert!(world.turn(2).now < NOW + 900, "{:#?}", world.plan.status);
    }
    let canary = world.target();
    world.model.spec.aliases = vec!["old".to_owned()];
    world.turn(2);
    assert_eq!((told(&world).0, world.told.get(&canary)), (4, None));
}

#[test]
fn where_no_node_takes_a_canary_pod_a_stable_one_makes_room() {
    let unplaced = |demand| {
        let mut world = World::new(driven(2, json!({})));
        world.demand = Some(demand);
        let target = world.target();
        let mut scene = world.scene();
        for pod in &mut scene.observed.pods {
            if pod.labels()["inferno.ai/revision"] == target {
                pod.status = serde_json::from_value(json!({"conditions": [{"type": "PodScheduled",
                    "status": "False", "reason": "Unschedulable", "message": "0/1 nodes are available"}]}))
                .unwrap();
            }
        }
        let deployments = &mut scene.observed.deployments;
        let deployment = deployments.iter_mut().find(|each| each.name_any() == target).unwrap();
        deployment.status.as_mut().unwrap().ready_replicas = Some(0);
        let plan = scene.plan();
        (plan.status.rollout.unwrap().capacity_strategy, plan.scale.first().map(|(_, pods)| *pods))
    };
    assert_eq!(unplaced(0.8), (Some(ChosenCapacity::InPlace), Some(1)));
    assert_eq!(unplaced(1.8), (Some(ChosenCapacity::Surge), None));
}

#[test]
fn where_nodes_are_full_a_stable_pod_makes_room_before_a_canary_pod_waits_in_vain() {
    let begins = |fleet, changes: Value, demand, room: &Room| {
        let mut world = World::in_pool(driven(fleet, changes), 99, demand);
        world.room = room.clone();
        world.turn(2);
        (world.rollout().capacity_strategy.unwrap(), told(&world))
    };
    let full = full(1);
    let in_place = (ChosenCapacity::InPlace, (1, 0));
    let beside = |fleet| (ChosenCapacity::Surge, (fleet, 2));
    assert_eq!(begins(2, json!({}), Some(0.8), &full), in_place);
    assert_eq!(begins(2, json!({}), Some(0.8), &Room::For(1)), beside(2));
    assert_eq!(begins(2, json!({}), Some(0.8), &Room::Unknown), beside(2));
    // Where stable pods cannot make room, or must not, a pod that waits may bring a node.
    assert_eq!(begins(2, json!({}), Some(1.8), &full), beside(2));
    assert_eq!(begins(2, json!({}), None, &full), beside(2));
    assert_eq!(begins(1, json!({}), Some(0.1), &full), beside(1));
    assert_eq!(begins(2, json!({"capacityStrategy": "Surge"}), Some(0.8), &full), beside(2));
}

#[test]
fn a_canary_in_a_full_cluster_is_promoted_pod_by_pod() {
    let mut world = World::in_pool(driven(3, json!({})), 99, Some(1.0));
    (world.room, world.verdict) = (full(1), Some(Outcome::Pass));
    let old = world.stable().to_owned();
    while world.stable() == old {
        world.turn(2);
        assert!(world.told.values().sum::<i32>() <= 3, "{:?}", world.told);
        assert!(world.now < NOW + 1_800, "{:#?}", world.plan.status);
    }
    let target = world.target();
    assert_eq!(world.until(RolloutPhase::Stable).told, [(target, 3)].into());
}

// === the old pods end first ===

/// Both ways to ask for it.
fn recreates() -> [World; 2] {
    let mut whole = driven(1, json!({"strategy": "Recreate"}));
    whole.spec.rollout.as_mut().unwrap().warmup_seconds = None;
    [
        World::in_pool(driven(1, json!({"capacityStrategy": "Recreate"})), 1, None),
        World::in_pool(whole, 9, None),
    ]
}

#[test]
fn the_old_pods_end_before_the_new_ones_begin_and_a_token_is_still_asked_for() {
    for mut world in recreates().map(recreated) {
        let old = world.old();
        world.turn(2);
        assert_eq!((told(&world), world.weight(), world.stable()), ((0, 0), 0, old.as_str()));
        assert_eq!(world.rollout().capacity_strategy, Some(ChosenCapacity::Recreate));
        assert!(world.ready().1.contains("have ended"), "{:?}", world.ready());
        let mut leaving = world.scene().ready_pod(&old);
        leaving.observed.pods.last_mut().unwrap().metadata.deletion_timestamp =
            Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(now()));
        assert_eq!(leaving.plan().deployment, None, "one still holds the device");
        world.turn(2);
        assert_eq!((told(&world), world.stable()), ((0, 1), old.as_str()));
        let mut silent = world.scene();
        silent.observed.proofs.clear();
        assert_eq!(silent.plan().status.rollout.unwrap().weight_basis_points, Some(0), "no token yet");
        world.turn(2).turn(2);
        assert_eq!((world.stable(), world.told.len()), (world.target().as_str(), 1));
        assert_eq!(world.turn(2).ready().0, "ServedToken");
    }
}

#[test]
fn the_old_revision_comes_back_when_the_new_one_cannot_start() {
    for mut world in recreates().map(recreated) {
        world.failing = Some((world.target(), "ModelInvalid"));
        world.turn(2).turn(2).turn(2);
        assert_eq!((world.phase(), told(&world)), (RolloutPhase::RollingBack, (1, 0)));
        world.until(RolloutPhase::Aborted).turn(100);
        assert_eq!((told(&world), world.stable()), ((1, 0), world.old().as_str()));
        assert!(world.ready().1.contains("sha256 is wrong"), "{:?}", world.ready());
    }
}

#[test]
fn what_is_not_on_trial_is_not_called_a_canary() {
    let check = |world: &World| {
        let conditions = &world.plan.status.conditions;
        let told = conditions.iter().map(|condition| condition.message.clone());
        let told = told.chain(world.plan.notices.iter().map(|notice| notice.message.clone()));
        let course = world.rollout().course.as_ref().map(|course| course.message.clone());
        let told: Vec<String> = told.chain(course).chain([world.rollout().summary.clone()]).collect();
        assert!(told.iter().all(|message| !message.to_lowercase().contains("canary")), "{told:#?}");
        assert!(
            conditions.iter().all(|condition| condition.type_ != "AnalysisConclusive"),
            "nothing is compared"
        );
    };
    for failing in [None, Some("ModelInvalid"), Some("SourceUnreachable")] {
        for mut world in recreates().map(recreated) {
            world.failing = failing.map(|reason| (world.target(), reason));
            for turn in 0..120 {
                // Back in the middle, and on again.
                world.model.spec.aliases = if turn == 3 { vec!["old".to_owned()] } else { vec![] };
                check(world.turn(20));
            }
        }
    }
}

#[test]
fn nobody_who_waits_is_turned_away_for_what_may_pass() {
    for mut world in recreates().map(recreated) {
        world.failing = Some((world.target(), "SourceUnreachable"));
        world.turn(2).turn(2).turn(2);
        assert_ne!(world.phase(), RolloutPhase::Failed, "gateways refuse what waits for one that has failed");
        assert_eq!(told(&world), (0, 1));
        assert_eq!(world.until(RolloutPhase::Aborted).told.len(), 1);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whatever_happens_the_pods_carry_the_work_that_they_are_given(
        events in prop::collection::vec((0..9_u8, 0..200_i64), 1..60), fleet in 2..6_i32, load in 0..=100_i32,
    ) {
        // What all pods but one carry at nine tenths of their capacity.
        let demand = 0.9 * f64::from(fleet - 1) * f64::from(load) / 100.0;
        let mut world = World::in_pool(driven(fleet, json!({})), fleet, Some(demand));
        for (event, seconds) in events {
            match event {
                0 => world.model.spec.aliases = vec!["old".to_owned()],
                1 => world.model.spec.aliases = vec!["third".to_owned()],
                2 => world.model.spec.aliases = vec![],
                3 | 4 => world.verdict = Some(Outcome::Pass),
                5 => world.verdict = Some(Outcome::Rollback),
                6 => world.verdict = None,
                7 => drop(world.command("PromoteFull", &seconds.to_string())),
                _ => {}
            }
            let (ready, weight) = (world.told.clone(), world.weight());
            world.turn(seconds);
            let (stable, canary) = (world.stable().to_owned(), world.plan.status.canary_revision.clone());
            let share = f64::from(world.weight()) / 10_000.0;
            let pods = |of: &std::collections::BTreeMap<String, i32>, name: &str| {
                f64::from(of.get(name).copied().unwrap_or(0)) + 1e-9
            };
            let needed = |share: f64| (share * demand / 0.9) - 0.001 * demand;
            prop_assert!(world.told.values().sum::<i32>() <= fleet, "{:?}", world.told);
            // Gateways that have not heard of a larger share yet send more to the stable pods.
            let told_share = f64::from(weight.min(world.weight())) / 10_000.0;
            prop_assert!(pods(&world.told, &stable) >= needed(1.0 - told_share), "{:?} {told_share}", world.told);
            if let Some(canary) = canary.filter(|_| share > 0.0) {
                prop_assert!(pods(&ready, &canary) >= needed(share), "{ready:?} {share}");
            } else {
                let is_waiting = matches!(world.phase(), RolloutPhase::Stable | RolloutPhase::RolledBack
                    | RolloutPhase::Aborted | RolloutPhase::RollingBack);
                prop_assert!(!is_waiting || world.told[&stable] == fleet, "{:?}", world.told);
            }
        }
    }
}
