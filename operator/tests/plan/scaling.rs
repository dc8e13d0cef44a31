//! How many pods there are when somebody else than `spec.replicas` says it.

use crds::model::RolloutPhase;
use judgement::autoscale::{Millis, Portion, Rule, ScaleDown, Winner};
use judgement::rollout::Outcome;
use k8s_openapi::jiff::SignedDuration;
use kube::ResourceExt;
use operator::autoscale::{asked, may_rest, standing};
use operator::capacity::Claim;
use operator::drain::DELETION_COST;
use operator::inventory::Room;
use operator::load::objectives::{Aim, Aims};
use operator::load::{Attained, Standing};
use operator::plan::{Plan, Route};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::scene::{
    Scene, asked as probed, condition, container, expected, full, model, now, revision, scene, stable_status,
};
use crate::world::{World, driven, with_alias};

fn scaled(autoscaling: Value) -> crds::model::InferenceModel {
    model(json!({"autoscaling": autoscaling}))
}

/// A model of which `told` pods are wanted and `ready` serve; it has proved itself.
fn serving(autoscaling: Value, told: i32, ready: i32) -> Scene {
    let model = scaled(autoscaling);
    let name = revision(&model);
    let mut scene = scene(model).deployment(&name, told, ready);
    for _ in 0..ready {
        scene = scene.ready_pod(&name);
    }
    scene.after(stable_status(&name)).proof(&name, Route::Gateway, 0, true)
}

fn auto() -> Value {
    json!({"minReplicas": 0, "maxReplicas": 9})
}

#[test]
fn a_decision_is_carried_out_and_told_and_the_model_stays_ready() {
    let scene = serving(auto(), 1, 1).decided(1, 3);
    let name = revision(&scene.model);
    let plan = scene.check(&expected(("True", "ServedToken"), "Stable").available().applied(&name, 3));
    let status = plan.status.autoscaling.as_ref().unwrap();
    assert_eq!((status.desired_replicas, status.decisions.len()), (3, 1));
    let last = status.last_decision.as_ref().unwrap();
    assert_eq!((last.current, last.desired, last.winner.as_str()), (1, 3, "Level"));
    assert_eq!(last.time.0.as_second(), now().as_second() - 1);
    assert_eq!(plan.status.summary.as_ref().unwrap().replicas, "1/3");
    assert_eq!(plan.notices.iter().map(|notice| notice.reason.as_str()).collect::<Vec<_>>(), ["ScaledUp"]);
    assert_eq!(plan.notices[0].message, "from 1 to 3 pods: 3 pods are right.");
    let active = condition(&plan, "ScalingActive");
    assert_eq!((active.0.as_str(), active.1.as_str()), ("True", "Deciding"));
    assert_eq!(active.2, "3 pods are right.");
    assert_eq!(condition(&plan, "ScalingLimited").0, "False");
    assert_eq!(condition(&plan, "TelemetryFresh").0, "True");
}

#[test]
fn a_model_at_zero_is_ready_for_the_first_request_and_is_not_woken_by_us() {
    let scene = serving(auto(), 0, 0).decided(0, 0);
    let name = revision(&scene.model);
    let plan = scene.check(&expected(("True", "ScaledToZero"), "At zero").applied(&name, 0));
    assert_eq!(probed(&plan), vec![]);
    // Nor while it serves: our own question would be the one request that keeps it from resting.
    let mut awake = serving(auto(), 1, 1).decided(1, 1);
    awake.observed.proofs[0].tried_at = "2026-01-01T00:00:00Z".parse().unwrap();
    assert_eq!(probed(&awake.plan()), vec![]);
    let mut kept = serving(json!({"maxReplicas": 9}), 1, 1).decided(1, 1);
    kept.observed.proofs[0].tried_at = "2026-01-01T00:00:00Z".parse().unwrap();
    assert_eq!(probed(&kept.plan()).len(), 1);
}

#[test]
fn only_the_modes_that_decide_follow_a_decision() {
    let with = |mode: &str, last: i32| {
        let mut scaling = auto();
        scaling["mode"] = json!(mode);
        let mut scene = serving(scaling, 2, 2).decided(2, 5);
        scene.model.spec.replicas = 12;
        if !matches!(mode, "Auto" | "Observe") {
            scene.observed.scaling = None;
        }
        let mut status = json!(scene.model.status);
        status["autoscaling"] = json!({"desiredReplicas": last});
        let plan = scene.after(status).plan();
        let told = plan.deployment.unwrap().spec.unwrap().replicas.unwrap();
        let events: Vec<String> = plan.notices.into_iter().map(|notice| notice.reason).collect();
        (told, plan.status.autoscaling.unwrap().desired_replicas, events)
    };
    assert_eq!(with("Auto", 2), (5, 5, vec!["ScaledUp".to_owned()]));
    assert_eq!(with("Observe", 2), (12, 5, vec!["ScalingAdvised".to_owned()]));
    assert_eq!(with("Paused", 4), (4, 4, vec![]));
    assert_eq!(with("Paused", 40), (9, 9, vec![]));
    assert_eq!(with("External", 2), (9, 9, vec![]));
}

#[test]
fn a_pool_gives_what_it_has() {
    let mut scene = serving(auto(), 1, 1).in_pool(json!({"limits": {"maxReplicas": 4}})).decided(1, 6);
    let claim = |model: &str, second, replicas| Claim {
        created: Some(k8s_openapi::jiff::Timestamp::from_second(second).unwrap()),
        model: model.to_owned(),
        replicas,
        kept: 0,
    };
    scene.observed.claims = vec![claim("older", 1, 1), claim("tiny", 2, 1)];
    let told = |scene: &Scene| scene.plan().deployment.unwrap().spec.unwrap().replicas.unwrap();
    assert_eq!(told(&scene), 3);
    assert_eq!(stands(&scene).policy.capacity_replicas, Some(3));
}

fn stands(scene: &Scene) -> Standing {
    let target = revision(&scene.model);
    standing(&scene.model, &scene.observed, &target, now(), Millis(50_000_000)).unwrap()
}

#[test]
fn where_a_model_stands_is_read_from_its_pods() {
    let scene = serving(auto(), 3, 2);
    let standing = stands(&scene);
    assert_eq!((standing.ready, standing.pending.len()), (2, 1));
    assert_eq!(standing.pending[0], Millis(50_060_000), "nothing is known of starts yet: a minute");
    assert_eq!(standing.pods.len(), 2);
    assert_eq!((standing.policy.min_replicas, standing.policy.max_replicas), (0, 9));
    let leaving = serving(auto(), 1, 2);
    assert_eq!((stands(&leaving).ready, stands(&leaving).pending.len()), (1, 0));
}

#[test]
fn a_canary_in_the_place_of_stable_pods_counts_with_them() {
    let mut scene = serving(auto(), 1, 1).deployment("tiny-canary", 1, 1).ready_pod("tiny-canary");
    let mut status = json!(scene.model.status);
    status["canaryRevision"] = json!("tiny-canary");
    status["rollout"] = json!({"phase": "Analysing", "summary": "", "capacityStrategy": "InPlace"});
    scene = scene.after(status.clone());
    assert_eq!((stands(&scene).ready, stands(&scene).policy.min_replicas), (2, 1));
    status["rollout"]["capacityStrategy"] = json!("Surge");
    assert_eq!(stands(&scene.after(status)).ready, 1);
}

#[test]
fn whoever_has_not_served_yet_is_not_taken_away() {
    assert_eq!(stands(&serving(auto(), 0, 0)).policy.min_replicas, 0);
    assert_eq!(stands(&serving(auto(), 1, 1)).policy.min_replicas, 0);
    assert_eq!(stands(&serving(auto(), 1, 0)).policy.min_replicas, 1, "it is on its way");
    let mut fresh = serving(auto(), 1, 1);
    let ready_since = |scene: &mut Scene, seconds: i64| {
        let conditions = scene.observed.pods[0].status.as_mut().unwrap().conditions.as_mut().unwrap();
        let since = k8s_openapi::jiff::Timestamp::from_second(now().as_second() - seconds).unwrap();
        conditions[1].last_transition_time =
            Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(since));
    };
    ready_since(&mut fresh, 299);
    assert_eq!(stands(&fresh).policy.min_replicas, 1, "nobody can have asked it yet");
    ready_since(&mut fresh, 300);
    assert_eq!(stands(&fresh).policy.min_replicas, 0);
    let mut unproven = serving(auto(), 0, 0);
    unproven.model.status = None;
    assert_eq!(stands(&unproven).policy.min_replicas, 1, "a new revision proves itself once");
    let name = revision(&scaled(auto()));
    let failing = serving(auto(), 1, 0).failed_pod(&name, "DigestMismatch");
    let standing = stands(&failing);
    assert_eq!(standing.policy.min_replicas, 0, "what cannot start may go");
    assert_eq!(standing.policy.capacity_replicas, Some(1), "and more of it would fail too");
}

#[test]
fn how_fast_pods_come_and_go_is_read_as_a_pod_autoscaler_does() {
    let read = |behavior: Value| {
        let policy = stands(&serving(json!({"maxReplicas": 9, "behavior": behavior}), 1, 1)).policy;
        (policy.scale_down, policy.rise_tolerance_thousandths)
    };
    let one = json!({"type": "Pods", "value": 1, "periodSeconds": 60});
    let tenth = json!({"type": "Percent", "value": 10, "periodSeconds": 300});
    let rules = [
        Some(Rule { portion: Portion::Pods(1), period_seconds: 60 }),
        Some(Rule { portion: Portion::Percent(10), period_seconds: 300 }),
        None,
        None,
    ];
    let down = |rules: Value| read(json!({"scaleDown": rules})).0;
    assert_eq!(read(json!({})), (ScaleDown::Usual, 0));
    assert_eq!(down(json!({"selectPolicy": "Min"})), ScaleDown::Usual);
    assert_eq!(down(json!({"policies": [one, tenth]})), ScaleDown::Most(rules));
    assert_eq!(down(json!({"policies": [one, tenth], "selectPolicy": "Min"})), ScaleDown::Least(rules));
    assert_eq!(down(json!({"policies": [one], "selectPolicy": "Disabled"})), ScaleDown::Never);
    assert_eq!(read(json!({"scaleUp": {"tolerance": "0.15"}})).1, 150);
}

#[test]
fn no_more_pods_wait_for_a_node_than_one() {
    let name = revision(&scaled(auto()));
    let unplaced = |scene: Scene| {
        scene.pod(
            &name,
            json!({"conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable",
                                   "message": "0/1 nodes are available"}]}),
        )
    };
    let scene = unplaced(unplaced(serving(auto(), 5, 2)));
    assert_eq!(stands(&scene).policy.capacity_replicas, Some(3));
}

#[test]
fn no_more_pods_are_ordered_than_nodes_have_room_for_and_one() {
    let capacity = |room: Room, told: i32, bound: i32| {
        let mut scene = serving(auto(), told, bound);
        for pod in &mut scene.observed.pods {
            pod.spec.as_mut().unwrap().node_name = Some("n".to_owned());
        }
        scene.observed.room = room;
        stands(&scene).policy.capacity_replicas
    };
    assert_eq!(capacity(Room::Unknown, 3, 3), None);
    assert_eq!(capacity(Room::For(2), 3, 3), Some(6));
    assert_eq!(capacity(Room::For(2), 5, 3), Some(6), "two of them have no node yet");
    assert_eq!(capacity(full(1), 3, 3), Some(4));
    assert_eq!(capacity(full(1), 0, 0), Some(1), "one waits, so that a node may come for it");
    assert_eq!(capacity(full(1), 6, 3), Some(6), "what was ordered is not taken away");
    assert_eq!(capacity(Room::For(5), 3, 3), None, "the user's own bound comes first");
    assert_eq!(capacity(Room::For(u32::MAX), 3, 3), None);
}

#[test]
fn a_pod_that_drains_needs_no_room_to_come_back() {
    let mut scene = shrinking(Some("pod-1"), [0, 0]);
    for pod in &mut scene.observed.pods {
        pod.spec.as_mut().unwrap().node_name = Some("n".to_owned());
    }
    scene.observed.room = full(1);
    let standing = stands(&scene);
    assert_eq!((standing.ready, standing.policy.capacity_replicas), (1, Some(3)));
}

#[test]
fn which_resource_is_short_is_told() {
    let mut scene = serving(auto(), 3, 3).decided(3, 4);
    scene.observed.room = full(2);
    scene.observed.scaling.as_mut().unwrap().look.decision.winner = Winner::Capacity;
    let limited = condition(&scene.plan(), "ScalingLimited");
    assert_eq!((limited.0.as_str(), limited.1.as_str()), ("True", "CapacityLimited"));
    let message = "more than 4 pods would pay, but nvidia.com/gpu is used up on nodes accelerator=l40s (needed 2 more); \
                   add nodes to pool cpu";
    assert_eq!(limited.2, message);
    scene.observed.room = Room::For(1);
    let limited = condition(&scene.plan(), "ScalingLimited");
    assert!(limited.2.contains("raise its spec.limits.maxReplicas or add nodes"), "{}", limited.2);
}

#[test]
fn starts_that_were_measured_are_expected() {
    let mut scene = serving(auto(), 2, 1);
    let seconds = json!({"schedule": 0, "image": 0, "download": 0, "load": 9, "total": 20});
    let mut status = json!(scene.model.status);
    status["coldStart"] =
        json!({"lastSeconds": seconds, "recentTotalSeconds": [10, 11, 12, 13, 14, 15, 16, 17, 18, 90]});
    scene = scene.after(status);
    assert_eq!(stands(&scene).load_ms, 18_000);
    let name = revision(&scene.model);
    let on_its_way = scene.pod(
        &name,
        json!({"conditions": [{"type": "PodScheduled", "status": "True"}],
               "initContainerStatuses": [container("fetch", json!({"running": {}}))]}),
    );
    // It was made long ago: any moment.
    assert!(stands(&on_its_way).pending[0] <= Millis(50_018_000));
}

#[test]
fn decisions_are_remembered_once_each_and_ten_of_them() {
    let mut scene = serving(auto(), 1, 1).decided(1, 3);
    let first = scene.plan();
    scene.model.status = Some(first.status.clone());
    let again = scene.plan();
    assert_eq!(again.status.autoscaling, first.status.autoscaling);
    assert_eq!(again.notices, vec![]);
    let mut status = json!(first.status);
    let past = status["autoscaling"]["decisions"][0].clone();
    status["autoscaling"]["decisions"] = json!(vec![past; 10]);
    let scene = scene.after(status).decided(3, 2);
    let plan = scene.plan();
    let told = &plan.status.autoscaling.unwrap().decisions;
    assert_eq!((told.len(), told[0].current, told[0].desired), (10, 3, 2));
    assert_eq!(plan.notices[0].reason, "ScaledDown");
}

/// A model with goals, whose pod takes `least_us` for a prompt and as much for a token.
fn aiming(least_us: Option<u64>) -> Scene {
    let objectives = json!({"ttftMilliseconds": 600, "interTokenMilliseconds": 30});
    let mut scene = serving(json!({"maxReplicas": 9, "objectives": objectives}), 1, 1).decided(1, 3);
    let seen = scene.observed.scaling.as_mut().unwrap();
    let is_out = |goal_us| least_us.is_some_and(|least_us| least_us > goal_us);
    let aim = |goal_us| Some(Aim { goal_us, least_us, is_out_of_reach: is_out(goal_us) });
    seen.look.aims = Aims { first_token: aim(600_000), inter_token: aim(30_000) };
    seen.look.decision.inputs.policy.late_ms = 200;
    seen.look.decision.inputs.current.pod.slots = 2;
    scene
}

#[test]
fn what_goals_do_is_told() {
    let plan = aiming(Some(25_000)).plan();
    let told = plan.status.autoscaling.as_ref().unwrap();
    let objectives = told.objectives.unwrap();
    assert_eq!((objectives.late_milliseconds, objectives.planned_slots), (200, 2));
    assert_eq!(told.pod.unwrap().slots, 4, "measured is the whole pod");
    let found = condition(&plan, "ObjectiveInfeasible");
    assert_eq!((found.0.as_str(), found.1.as_str()), ("False", "GoalsWithinReach"));
    assert_eq!(
        found.2,
        "a request that waits more than 200 ms counts as late, and a pod is planned with 2 of its 4 slots"
    );
    assert_eq!(condition(&aiming(None).plan(), "ObjectiveInfeasible").0, "Unknown");
    let without = serving(auto(), 1, 1).decided(1, 3).plan();
    assert!(without.status.conditions.iter().all(|condition| condition.type_ != "ObjectiveInfeasible"));
    assert_eq!(without.status.autoscaling.unwrap().objectives, None);
}

#[test]
fn how_many_answers_come_in_time_is_told_and_compared_with_what_is_wanted() {
    let found = |first_token_percent, inter_token_percent| {
        let mut scene = aiming(Some(25_000));
        let seen = scene.observed.scaling.as_mut().unwrap();
        seen.look.attained = Attained { first_token_percent, inter_token_percent };
        let plan = scene.plan();
        let told = plan.status.autoscaling.as_ref().unwrap().objectives.unwrap();
        assert_eq!(
            told.ttft_attained_percent,
            first_token_percent.map(|percent| percent.try_into().unwrap())
        );
        condition(&plan, "ObjectivesMet")
    };
    assert_eq!(found(None, None).0, "Unknown");
    assert_eq!(found(Some(95), None).0, "True");
    let (status, reason, message) = found(Some(97), Some(94));
    assert_eq!((status.as_str(), reason.as_str()), ("False", "GoalsMissed"));
    let expected = "in the last five minutes 97% of first tokens within 600 ms and 94% of further tokens within 30 ms; \
                    wanted are 95%";
    assert!(message.starts_with(expected), "{message}");
}

#[test]
fn a_goal_that_no_number_of_pods_can_meet_is_named_with_its_figures() {
    let found = condition(&aiming(Some(31_449)).plan(), "ObjectiveInfeasible");
    assert_eq!((found.0.as_str(), found.1.as_str()), ("True", "GoalOutOfReach"));
    let expected = "spec.autoscaling.objectives.interTokenMilliseconds is 30, but a pod alone takes 31 ms for each token";
    assert!(found.2.starts_with(expected), "{}", found.2);
    let both = condition(&aiming(Some(1_240_000)).plan(), "ObjectiveInfeasible").2;
    let expected =
        "ttftMilliseconds is 600, but a pod alone takes 1200 ms to read an average prompt, and spec";
    assert!(both.contains(expected), "{both}");
    let mut nearly = aiming(Some(29_000));
    nearly.observed.scaling.as_mut().unwrap().look.aims.inter_token.as_mut().unwrap().is_out_of_reach = true;
    let nearly = condition(&nearly.plan(), "ObjectiveInfeasible").2;
    let expected = "takes 29 ms for each token of a single request (longer before; a tenth to spare is wanted); no number";
    assert!(nearly.contains(expected), "{nearly}");
}

#[test]
fn a_schedule_that_cannot_be_read_changes_nothing_and_is_named() {
    let mut scaling = auto();
    scaling["schedules"] =
        json!([{"name": "day", "schedule": "0 25 * * *", "durationSeconds": 3600, "minReplicas": 2}]);
    let scene = serving(scaling, 1, 1).decided(1, 3);
    let plan = scene.plan();
    assert!(plan.deployment.is_none());
    let accepted = condition(&plan, "Accepted");
    assert_eq!((accepted.0.as_str(), accepted.1.as_str()), ("False", "InvalidSchedule"));
    assert!(accepted.2.contains("spec.autoscaling.schedules[day]"), "{}", accepted.2);
}

#[test]
fn without_autoscaling_nothing_is_decided_or_told() {
    let model = model(json!({"replicas": 2}));
    let name = revision(&model);
    let scene = scene(model).deployment(&name, 2, 2).after(stable_status(&name));
    let plan = scene.plan();
    assert_eq!(plan.status.autoscaling, None);
    assert!(plan.status.conditions.iter().all(|condition| !condition.type_.starts_with("Scaling")));
    assert!(standing(&scene.model, &scene.observed, &name, now(), Millis(0)).is_none());
}

proptest! {
    #[test]
    fn whatever_is_declared_the_number_is_within_the_bounds(
        min in 0_i32..9,
        more in 0_i32..9,
        replicas in 0_i32..20,
        last in proptest::option::of(0_i32..20),
        is_awake in any::<bool>(),
        mode in proptest::sample::select(vec!["Paused", "External", "Auto"]),
    ) {
        let max = (min + more).max(1);
        let mut scaling = json!({"minReplicas": min, "maxReplicas": max, "mode": mode});
        if min == 0 {
            scaling["scaleToZero"] = json!({"enabled": !is_awake});
        }
        let mut model = scaled(scaling);
        model.spec.replicas = replicas;
        model.status = last.map(|last| {
            serde_json::from_value(json!({"autoscaling": {"desiredReplicas": last}})).unwrap()
        });
        let count = asked(&model, None, now());
        let fewest = if min == 0 && is_awake { 1 } else { min };
        prop_assert!((fewest..=max).contains(&count), "{} of {}..={}", count, fewest, max);
        prop_assert_eq!(may_rest(&model.spec), mode == "Auto" && fewest == 0);
    }
}

#[test]
fn a_spec_edited_while_the_model_sleeps_is_tried_when_the_first_request_has_woken_it() {
    let mut model = driven(1, json!({}));
    model.spec.autoscaling = serde_json::from_value(auto()).unwrap();
    let mut world = World::new(with_alias(model.clone(), "old"));
    world.wanted = Some(1);
    world.until(RolloutPhase::Stable).turn(2);
    let old = world.target();
    // Its last pod has drained and gone.
    world.wanted = Some(0);
    world.told.insert(old.clone(), 0);
    world.turn(2).turn(2);
    assert_eq!((world.told[&old], world.ready().0.as_str()), (0, "ScaledToZero"));

    world.model.spec = model.spec;
    let target = world.target();
    for _ in 0..100 {
        world.turn(60);
        assert!(world.told.values().all(|told| *told == 0), "nobody is woken: {:?}", world.told);
    }
    assert_eq!((world.stable(), world.weight()), (old.as_str(), 0));
    assert_eq!(condition(&world.plan, "Available").0, "False");
    let scene = world.scene();
    let standing = standing(&scene.model, &scene.observed, &target, now(), Millis(50_000_000)).unwrap();
    assert_eq!(standing.policy.min_replicas, 0, "the rollout alone is no reason to start a pod");

    world.wanted = Some(2);
    world.turn(2);
    assert_eq!(world.told[&old], 2, "the first requests are answered by what has proved itself");
    world.until(RolloutPhase::Analysing);
    assert_eq!((world.stable(), world.told[&old]), (old.as_str(), 2));
    world.verdict = Some(Outcome::Pass);
    world.until(RolloutPhase::Stable);
    assert_eq!(world.stable(), target);
}

/// A model with two pods that serve, of which one is wanted; `draining` since ten seconds before now.
fn shrinking(draining: Option<&str>, in_flight: [u32; 2]) -> Scene {
    let mut scene = serving(json!({"maxReplicas": 9}), 2, 2).decided(2, 1);
    let mut status = json!(scene.model.status);
    if let Some(pod) = draining {
        status["draining"] =
            json!([{"pod": pod, "since": (now() - SignedDuration::from_secs(10)).to_string()}]);
    }
    scene.model.status = serde_json::from_value(status).unwrap();
    for (number, in_flight) in in_flight.into_iter().enumerate() {
        scene.observed.in_flight.insert(format!("uid-{number}"), in_flight);
    }
    scene
}

fn draining(plan: &Plan) -> Vec<&str> {
    plan.status.draining.iter().map(|draining| draining.pod.as_str()).collect()
}

fn told(plan: &Plan) -> Option<i32> {
    plan.deployment.as_ref().unwrap().spec.as_ref().unwrap().replicas
}

#[test]
fn a_pod_that_is_not_wanted_gets_nothing_new_before_it_goes() {
    let plan = shrinking(None, [3, 1]).plan();
    assert_eq!((draining(&plan), told(&plan), plan.marks.clone()), (vec!["pod-1"], Some(2), vec![]));
    assert_eq!(condition(&plan, "Ready").0, "True");
    assert_eq!(plan.requeue.as_secs(), 2);
    let busy = shrinking(Some("pod-1"), [0, 1]).plan();
    assert_eq!((draining(&busy), told(&busy), busy.marks.clone()), (vec!["pod-1"], Some(2), vec![]));
    let mut idle = shrinking(Some("pod-1"), [3, 0]);
    let marked = idle.plan();
    assert_eq!(marked.marks, [("pod-1".to_owned(), Some("-1"))]);
    assert_eq!(told(&marked), Some(2), "the mark must be seen first");
    idle.observed.pods[1].annotations_mut().insert(DELETION_COST.into(), "-1".into());
    let gone = idle.plan();
    assert_eq!((told(&gone), gone.marks.clone()), (Some(1), vec![]));
}

#[test]
fn pods_that_drain_are_not_counted_and_the_first_to_come_back() {
    let scene = shrinking(Some("pod-1"), [3, 0]);
    let standing = standing(&scene.model, &scene.observed, &revision(&scene.model), now(), Millis(9_000_000));
    let standing = standing.unwrap();
    assert_eq!((standing.ready, standing.pending.len()), (1, 0));
    let back = scene.decided(1, 2).plan();
    assert_eq!((draining(&back), told(&back)), (vec![], Some(2)));
}

#[test]
fn while_nothing_can_be_decided_who_was_to_leave_serves_again() {
    let mut scene = shrinking(Some("pod-1"), [3, 0]);
    scene.observed.pool = None;
    let held = scene.plan();
    assert_eq!((draining(&held), held.deployment.clone()), (vec![], None));
}

#[test]
fn a_pod_that_the_deployment_does_not_count_any_more_is_not_subtracted_twice() {
    let mut scene = shrinking(Some("pod-1"), [3, 0]);
    scene.observed.deployments[0].spec.as_mut().unwrap().replicas = Some(1);
    let standing = standing(&scene.model, &scene.observed, &revision(&scene.model), now(), Millis(9_000_000));
    let standing = standing.unwrap();
    assert_eq!((standing.ready, standing.pending.len()), (1, 0));
}
