//! Canaries that the operator drives: turn after turn of planning, carrying out, and time that passes.

use crds::model::{CanaryPhase, InferenceModelStatus, KillSwitch, RolloutPhase, RolloutStatus};
use judgement::rollout::{Outcome, Reason, State};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use operator::conduct;
use operator::plan::Route;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::scene::*;
use super::world::*;

#[test]
fn a_proven_canary_gets_more_and_more_and_is_promoted_with_its_pods() {
    let mut world = World::new(driven(2, json!({})));
    let (old, target) = (world.old(), world.target());
    world.verdict = Some(Outcome::Pass);
    let mut weights = vec![];
    while world.stable() == old {
        world.turn(2);
        assert!(world.told.get(&old).is_none_or(|told| *told == 2), "stable keeps what was asked for");
        assert!(world.weight() == 0 || world.told[&target] == 2);
        if world.stable() == old && weights.last() != Some(&world.weight()) {
            weights.push(world.weight());
        }
        assert!(world.now < NOW + 600, "{:#?}", world.plan.status);
    }
    assert_eq!(weights, [0, 1_000, 2_500, 5_000]);
    assert_eq!(world.told, [(target.clone(), 2)].into(), "the canary's pods are the stable ones now");
    assert!(world.now >= NOW + 10 + 3 * 120);
    let plan = &world.plan;
    assert!(plan.notices.iter().any(|notice| notice.reason == "RolloutFinished"), "{:?}", plan.notices);
    world.turn(2);
    assert_eq!((world.phase(), world.ready().0.as_str()), (RolloutPhase::Stable, "ServedToken"));
    assert_eq!(world.plan.status.canary_revision, None);
}

#[test]
fn what_is_going_on_is_told() {
    let mut world = World::new(driven(1, json!({})));
    assert_eq!(world.plan.status.canary_revision, Some(world.target()));
    world.until(RolloutPhase::WarmingUp).until(RolloutPhase::Analysing);
    let short = short(&world.target()).to_owned();
    assert_eq!(world.rollout().summary, format!("{short} 10% (1/4), 120 s left"));
    assert_eq!((world.rollout().step, world.rollout().steps), (Some(1), Some(4)));
    assert_eq!(world.ready().0, "ServedToken");
    assert!(world.ready().1.contains("gets 10% of the keys (step 1 of 4)"), "{:?}", world.ready());
    assert_eq!(condition(&world.plan, "Progressing").1, "CanaryAnalysing");
    world.turn(101);
    assert_eq!(world.rollout().summary, format!("{short} 10% (1/4), 20 s left"));
    world.turn(20);
    assert_eq!(world.rollout().summary, format!("{short} 10% (1/4), at most 28 min left"));
    assert_eq!(world.told[&world.target()], 2, "one pod alone could not be told from a slow node");
}

#[test]
fn a_large_fleet_may_begin_with_a_fraction_of_a_percent() {
    let steps = json!([{"weightBasisPoints": 25}, {"weightPercent": 1}, {"weightBasisPoints": 5_000}]);
    let mut world = World::new(driven(400, json!({"steps": steps})));
    world.until(RolloutPhase::Analysing);
    let short = short(&world.target()).to_owned();
    assert_eq!((world.weight(), world.told[&world.target()]), (25, 2), "one pod's worth, and one more");
    assert_eq!(world.rollout().summary, format!("{short} 0.25% (1/3), 120 s left"));
    assert!(world.ready().1.contains("gets 0.25% of the keys (step 1 of 3)"), "{:?}", world.ready());
    world.verdict = Some(Outcome::Pass);
    world.turn(120).turn(2);
    assert_eq!((world.weight(), world.told[&world.target()]), (100, 5));
    let told = world.plan.notices.iter().find(|notice| notice.reason == "CanaryWeightChanged").unwrap();
    assert!(told.message.ends_with("gets 1% of the keys; it had 0.25%"), "{}", told.message);
    world.turn(120).turn(2);
    assert_eq!(world.weight(), 5_000);
}

#[test]
fn nothing_moves_forward_without_a_verdict_and_in_the_end_a_person_is_asked() {
    let mut world = World::new(driven(1, json!({})));
    world.until(RolloutPhase::Analysing).turn(7_000).turn(2);
    assert_eq!((world.phase(), world.weight()), (RolloutPhase::Analysing, 1_000));
    world.turn(200);
    assert_eq!((world.phase(), world.weight()), (RolloutPhase::Inconclusive, 1_000));
    assert!(
        world.plan.notices.iter().any(|notice| notice.reason == "CanaryWaits"),
        "{:?}",
        world.plan.notices
    );
    world.turn(7_200).turn(2);
    assert_eq!((world.phase(), world.weight(), world.told.len()), (RolloutPhase::Aborted, 0, 1));
}

#[test]
fn a_worse_canary_goes_back_and_is_not_tried_again_before_somebody_says_so() {
    let mut world = World::new(driven(1, json!({})));
    let (old, target) = (world.old(), world.target());
    world.until(RolloutPhase::Analysing);
    world.verdict = Some(Outcome::Rollback);
    world.turn(2);
    assert_eq!((world.phase(), world.weight()), (RolloutPhase::RollingBack, 0));
    assert_eq!(world.told, [(old.clone(), 1)].into(), "its pods go");
    let (reason, message) = world.ready();
    assert_eq!(reason, "RolledBack");
    assert!(message.contains("Rollback by 15 %") && message.contains("retryToken"), "{message}");
    let warning = world.plan.notices.iter().find(|notice| notice.reason == "RolledBack").unwrap();
    assert!(warning.is_warning && warning.message.contains("15 %"));
    world.until(RolloutPhase::RolledBack).turn(1_000).turn(100_000);
    assert_eq!(world.phase(), RolloutPhase::RolledBack);
    assert_eq!((world.stable(), &world.told), (old.as_str(), &[(old.clone(), 1)].into()));
    assert_eq!(world.ready().0, "RolledBack");
    assert_eq!(condition(&world.plan, "Available").0, "True");
    let outcome = world.rollout().analysis.as_ref().map(|analysis| analysis.reason.clone());
    assert_eq!(outcome.as_deref(), Some("DecodeSlower"), "its figures can be looked at");
    assert_eq!(world.rollout().failed_revisions[0].revision, target);
    assert_eq!(world.rollout().failed_revisions[0].ending, CanaryPhase::RolledBack);

    world.verdict = None;
    world.model.spec.rollout.as_mut().unwrap().retry_token = Some("again".to_owned());
    world.until(RolloutPhase::Analysing);
}

#[test]
fn a_spec_taken_back_after_a_rollback_is_well_and_its_failure_is_remembered() {
    let mut world = World::new(driven(1, json!({})));
    world.until(RolloutPhase::Analysing).verdict = Some(Outcome::Rollback);
    world.until(RolloutPhase::RolledBack);
    let (failed, old) = (world.model.spec.clone(), with_alias(world.model.clone(), "old").spec);
    world.model.spec = old;
    world.until(RolloutPhase::Stable).turn(2);
    assert_eq!(world.ready().0, "ServedToken");
    world.model.spec = failed;
    world.turn(2).turn(60);
    assert_eq!((world.phase(), world.ready().0.as_str()), (RolloutPhase::RolledBack, "RolledBack"));
    assert_eq!(world.told.len(), 1, "it does not start again");
}

#[test]
fn a_canary_that_cannot_start_is_given_up_at_once_and_the_cause_is_told() {
    let mut world = World::new(driven(1, json!({})));
    let (old, target) = (world.old(), world.target());
    world.failing = Some((target.clone(), "DigestMismatch"));
    for _ in 0..200 {
        world.turn(5);
        assert_eq!(world.weight(), 0);
        assert_eq!(world.told[&old], 1);
    }
    assert_eq!((world.phase(), world.ready().0.as_str()), (RolloutPhase::Aborted, "RolloutAborted"));
    assert!(world.ready().1.contains("spec.source.sha256"), "{}", world.ready().1);
    assert!(!world.told.contains_key(&target), "it is not retried");
}

#[test]
fn what_may_pass_is_waited_for_until_the_deadline_and_then_named() {
    let mut world = World::new(driven(1, json!({"loadDeadlineSeconds": 300})));
    world.failing = Some((world.target(), "SourceUnreachable"));
    world.turn(2).turn(2).turn(250);
    assert_eq!(world.phase(), RolloutPhase::Failed);
    assert!(world.told.contains_key(&world.target()), "pods keep trying");
    world.until(RolloutPhase::Aborted);
    let message = world.ready().1;
    assert!(message.contains("load deadline") && message.contains("sha256 is wrong"), "{message}");
}

#[test]
fn a_canary_without_a_token_gets_nothing() {
    let world = World::new(driven(1, json!({})));
    let target = world.target();
    let mut silent = world.scene();
    silent.observed.proofs.retain(|proof| proof.revision != target);
    let plan = silent.plan();
    assert_eq!(condition(&plan, "Ready").1, "Proving");
    assert_eq!(asked(&plan)[0].0, Route::Pod);
    let plan = silent.proof(&target, Route::Pod, 3, false).plan();
    assert_eq!(plan.status.rollout.as_ref().unwrap().phase, RolloutPhase::RollingBack);
    assert!(condition(&plan, "Ready").2.contains("give no token: connection refused"));
}

#[test]
fn a_spec_taken_back_in_mid_canary_leaves_the_stable_pods_alone() {
    let mut world = World::new(driven(2, json!({})));
    let old = world.old();
    world.until(RolloutPhase::Analysing);
    world.model = with_alias(world.model.clone(), "old");
    world.turn(2);
    assert_eq!((world.weight(), world.stable(), world.told[&old]), (0, old.as_str(), 2));
    assert_eq!(world.ready().0, "ServedToken");
    world.turn(5).turn(5);
    assert_eq!((world.phase(), world.told.len()), (RolloutPhase::Stable, 1));
    assert_eq!(world.rollout().failed_revisions, [], "nothing was wrong with it");
}

#[test]
fn a_third_revision_waits_for_the_second_to_go_and_begins_anew() {
    let mut world = World::new(driven(1, json!({})));
    let (old, second) = (world.old(), world.target());
    world.until(RolloutPhase::Analysing);
    world.model = with_alias(world.model.clone(), "third");
    let third = world.target();
    world.turn(2);
    assert_eq!((world.phase(), world.weight()), (RolloutPhase::RollingBack, 0));
    assert!(!world.told.contains_key(&second) && !world.told.contains_key(&third));
    assert!(world.ready().1.contains(&second), "{:?}", world.ready());
    world.until(RolloutPhase::Analysing);
    assert_eq!(world.plan.status.canary_revision.as_deref(), Some(third.as_str()));
    assert_eq!((world.weight(), world.stable()), (1_000, old.as_str()));
}

#[test]
fn who_only_observes_goes_on_by_time_and_never_back() {
    let steps = json!([{"weightPercent": 20, "minDurationSeconds": 10, "maxDurationSeconds": 60}]);
    let mut world = World::new(driven(1, json!({"steps": steps, "analysis": {"mode": "Observe"}})));
    let target = world.target();
    world.verdict = Some(Outcome::Rollback);
    world.until(RolloutPhase::Analysing).turn(58);
    assert_eq!((world.phase(), world.weight()), (RolloutPhase::Analysing, 2_000));
    assert!(condition(&world.plan, "AnalysisConclusive").2.contains("mode Observe"));
    world.turn(2);
    assert_eq!(world.phase(), RolloutPhase::Promoting);
    world.turn(2);
    assert_eq!(world.stable(), target);
}

#[test]
fn a_command_is_obeyed_once() {
    let steps =
        json!([{"weightPercent": 10, "gate": "Manual", "maxDurationSeconds": 120}, {"weightPercent": 50}]);
    let mut world = World::new(driven(1, json!({"steps": steps})));
    world.verdict = Some(Outcome::Continue);
    world.until(RolloutPhase::Paused);
    assert!(world.plan.notices.iter().any(|notice| notice.reason == "CanaryWaits" && notice.is_warning));
    assert!(world.ready().1.contains("spec.rollout.action"), "{:?}", world.ready());
    world.turn(1_000_000);
    assert_eq!(world.phase(), RolloutPhase::Paused, "a gate that was asked for stays shut");

    world.command("Promote", "1").turn(2);
    assert_eq!((world.phase(), world.weight()), (RolloutPhase::Analysing, 5_000));
    assert_eq!(world.rollout().acknowledged_action, world.model.spec.rollout.as_ref().unwrap().action);
    world.turn(2).turn(2);
    assert_eq!((world.phase(), world.weight()), (RolloutPhase::Analysing, 5_000));
    world.command("Pause", "1").turn(2);
    assert_eq!(world.phase(), RolloutPhase::Paused);
    world.command("Abort", "1").turn(2);
    assert_eq!((world.phase(), world.weight()), (RolloutPhase::RollingBack, 0));
    world.until(RolloutPhase::Aborted);
    assert!(world.ready().1.contains("a person ended the rollout"), "{:?}", world.ready());
}

#[test]
fn a_command_for_another_revision_is_not_obeyed() {
    let mut world = World::new(driven(1, json!({})));
    world.until(RolloutPhase::Analysing).command("Abort", "1");
    world.model.spec.rollout.as_mut().unwrap().action.as_mut().unwrap().revision = "tiny-other".to_owned();
    world.turn(2);
    assert_eq!(world.phase(), RolloutPhase::Analysing);
    world.command("PromoteFull", "1").turn(2);
    assert_eq!(world.phase(), RolloutPhase::Promoting);
}

#[test]
fn the_kill_switch_goes_back_to_the_stable_revision() {
    let mut world = World::new(driven(1, json!({})));
    world.until(RolloutPhase::Analysing).model.spec.kill_switch = Some(KillSwitch::Rollout);
    world.turn(2);
    assert_eq!(world.weight(), 0);
    world.until(RolloutPhase::Killed);
    assert_eq!((world.told.len(), world.ready().0.as_str()), (1, "RolloutKilled"));
    let mut shut = World::new(driven(1, json!({})));
    shut.model = with_alias(shut.model.clone(), "old");
    shut.until(RolloutPhase::Stable).model.spec.kill_switch = Some(KillSwitch::Rollout);
    shut.model.spec.aliases = vec!["new".to_owned()];
    shut.turn(2).turn(60);
    assert_eq!((shut.phase(), shut.told.len()), (RolloutPhase::Killed, 1), "nothing starts");
}

#[test]
fn what_contradicts_itself_waits_for_a_person_unless_told_otherwise() {
    let end = |policy: Value| {
        let mut world = World::new(driven(1, json!({"analysis": policy})));
        world.until(RolloutPhase::Analysing).verdict = Some(Outcome::Inconclusive);
        world.turn(2).phase()
    };
    assert_eq!(end(json!({})), RolloutPhase::Inconclusive);
    assert_eq!(end(json!({"inconclusivePolicy": "Rollback"})), RolloutPhase::RollingBack);
    assert_eq!(end(json!({"inconclusivePolicy": "Promote"})), RolloutPhase::Analysing);
}

#[test]
fn a_quiet_step_that_proves_nothing_ends_as_the_owner_wants() {
    let end = |policy: &str| {
        let mut world = World::new(driven(1, json!({"analysis": {"underpoweredPolicy": policy}})));
        world.until(RolloutPhase::Analysing).verdict = Some(Outcome::Continue);
        world.turn(1_798);
        assert_eq!(world.weight(), 1_000);
        world.turn(2);
        assert!(world.course().is_underpowered);
        (world.phase(), world.weight())
    };
    assert_eq!(end("Promote"), (RolloutPhase::Analysing, 2_500));
    assert_eq!(end("Pause"), (RolloutPhase::Paused, 1_000));
}

#[test]
fn a_pool_without_room_is_waited_for_and_then_named() {
    let mut world = World::new(driven(2, json!({"capacityDeadlineSeconds": 600})));
    world.model = with_alias(world.model.clone(), "old");
    world.until(RolloutPhase::Stable).turn(2);
    world.pool = json!({"limits": {"maxReplicas": 2}});
    world.model.spec.aliases = vec!["new".to_owned()];
    let claim = operator::capacity::Claim { created: None, model: "tiny".into(), replicas: 2, kept: 0 };
    let mut full = world.scene();
    full.observed.claims = vec![claim];
    let plan = full.plan();
    assert_eq!(plan.status.rollout.as_ref().unwrap().phase, RolloutPhase::CapacityCheck);
    assert!(condition(&plan, "Ready").2.contains("spec.limits.maxReplicas of pool cpu is 2"));
    assert_eq!(plan.deployment, None);
    let mut late = full;
    late.model.status = Some(plan.status);
    let course = late.model.status.as_mut().unwrap().rollout.as_mut().unwrap().course.as_mut().unwrap();
    course.since.0 = Timestamp::from_second(NOW - 600).unwrap();
    assert!(
        condition(&late.plan(), "Ready").2.contains("no room for a canary pod before the capacity deadline")
    );
}

#[test]
fn a_sleeping_model_has_nothing_to_compare_with_so_its_canary_waits() {
    let mut world = World::new(driven(1, json!({})));
    let (old, target) = (world.old(), world.target());
    world.until(RolloutPhase::Analysing).model.spec.suspend = Some(true);
    world.turn(2).turn(100_000);
    assert_eq!((world.phase(), world.stable()), (RolloutPhase::Suspended, old.as_str()));
    assert_eq!(world.told, [(old.clone(), 0)].into());
    world.model.spec.suspend = None;
    world.turn(2);
    assert_eq!(world.told[&old], 1, "the stable revision serves again");
    world.until(RolloutPhase::Analysing);
    assert_eq!((world.weight(), world.told[&target]), (1_000, 2), "and the canary begins anew");
}

#[test]
fn a_stable_revision_that_cannot_start_is_replaced_as_soon_as_possible() {
    let mut world = World::new(driven(1, json!({})));
    let (old, target) = (world.old(), world.target());
    world.model.status = Some(serde_json::from_value(stable_status(&old)).unwrap());
    world.told.remove(&target);
    world.failing = Some((old, "ModelInvalid"));
    world.turn(2).turn(2);
    assert_eq!(world.stable(), target);
}

#[test]
fn a_pod_without_a_node_is_not_taken_away_and_those_that_have_one_are_used() {
    let mut world = World::new(driven(1, json!({})));
    let target = world.target();
    world.turn(2);
    let mut scene = world.scene();
    let pod =
        scene.observed.pods.iter_mut().rfind(|pod| pod.labels()["inferno.ai/revision"] == target).unwrap();
    pod.status = serde_json::from_value(json!({"conditions": [{"type": "PodScheduled", "status": "False",
        "reason": "Unschedulable", "message": "0/1 nodes are available"}]}))
    .unwrap();
    let deployment = scene.observed.deployments.iter_mut().find(|each| each.name_any() == target).unwrap();
    deployment.status.as_mut().unwrap().ready_replicas = Some(1);
    let plan = scene.plan();
    assert_eq!(plan.status.rollout.as_ref().unwrap().phase, RolloutPhase::WarmingUp);
    assert_eq!(plan.deployment.unwrap().spec.unwrap().replicas, Some(2));
}

// === state and status ===

fn states() -> impl Strategy<Value = State> {
    use judgement::rollout::{Failed, Phase, Strategy as Room};
    let phases = prop::sample::select(vec![
        Phase::CapacityCheck,
        Phase::Loading,
        Phase::Warmup,
        Phase::Analysing,
        Phase::Paused,
        Phase::Inconclusive,
        Phase::Promoting,
        Phase::Completed,
        Phase::RollingBack,
        Phase::RolledBack,
        Phase::Aborted,
        Phase::Killed,
    ]);
    let reasons = prop::sample::subsequence(
        vec![
            Reason::OutputLengthChanged,
            Reason::TrafficSkew,
            Reason::UnequalExperience,
            Reason::NoComparableControl,
        ],
        0..=4,
    );
    let time = || (0..4_000_000_000_u64).prop_map(|second| second * 1_000);
    let failed =
        ("[a-z]{1,8}", "[a-z]{0,3}").prop_map(|(revision, retry_token)| Failed { revision, retry_token });
    let first =
        (phases.clone(), time(), prop::option::of("[a-z]{1,8}"), 0..20_usize, prop::option::of(time()));
    let rooms = prop::sample::select(vec![Room::Surge, Room::InPlace, Room::Recreate]);
    let second =
        (0..=10_000_u16, prop::option::of(rooms), 0..4_u32, prop::option::of(time()), 0..3_u8, reasons);
    let text = "[a-z ]{0,8}[a-z]";
    let third = (phases, any::<bool>(), prop::collection::vec(failed, 0..3), text, prop::option::of(time()));
    (first, second, third).prop_map(|(first, second, third)| {
        let (phase, since_ms, canary, step, step_since_ms) = first;
        let (weight, strategy, extra_pods, hold_since_ms, steps_back, accepted) = second;
        let (ending, is_underpowered, failed, message, suspect_since_ms) = third;
        State {
            phase,
            since_ms,
            // Only a canary has a share.
            weight_basis_points: if canary.is_some() { weight } else { 0 },
            canary,
            step,
            step_since_ms,
            strategy,
            extra_pods,
            hold_since_ms,
            suspect_since_ms,
            steps_back,
            accepted: accepted.into_iter().collect(),
            ending,
            is_underpowered,
            failed,
            message: message.trim().to_owned(),
            ..State::new("stable", 0)
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_same_status_gives_the_same_state_back(state in states()) {
        let mut rollout: RolloutStatus = serde_json::from_value(json!({"phase": "Stable", "summary": ""})).unwrap();
        conduct::store(&mut rollout, &state);
        rollout.failed_revisions = state.failed.iter().map(|failed| crds::model::FailedRevision {
            revision: failed.revision.clone(),
            retry_token: failed.retry_token.clone(),
            ending: CanaryPhase::RolledBack,
            message: String::new(),
        }).collect();
        let status = InferenceModelStatus {
            stable_revision: Some(state.stable.clone()),
            canary_revision: state.canary.clone(),
            rollout: Some(rollout),
            ..InferenceModelStatus::default()
        };
        let written = serde_json::to_string(&status).unwrap();
        let read: InferenceModelStatus = serde_json::from_str(&written).unwrap();
        prop_assert_eq!(conduct::state(&read, 5), Some(state));
    }

    #[test]
    fn whatever_happens_stable_serves_and_two_revisions_are_the_most(
        events in prop::collection::vec((0..12_u8, 0..200_i64), 1..60), replicas in 1..4_i32,
        window in prop::sample::select(vec![0, 300]),
    ) {
        let mut world = World::new(driven(replicas, json!({"rollbackWindowSeconds": window})));
        for (event, seconds) in events {
            match event {
                0 => world.model.spec.aliases = vec!["old".to_owned()],
                1 => world.model.spec.aliases = vec!["third".to_owned()],
                2 => world.model.spec.aliases = vec![],
                3 => world.verdict = Some(Outcome::Pass),
                4 => world.verdict = Some(Outcome::Rollback),
                5 => world.verdict = None,
                6 => world.failing = Some((world.target(), "ModelInvalid")).filter(|(name, _)| name != world.stable()),
                7 => world.failing = None,
                8 => world.model.spec.kill_switch = Some(KillSwitch::Rollout),
                9 => world.model.spec.kill_switch = None,
                10 => drop(world.command("Promote", &seconds.to_string())),
                _ => {}
            }
            let before = world.told.clone();
            world.turn(seconds);
            let stable = world.stable().to_owned();
            prop_assert!(world.told.len() <= 2, "{:?}", world.told);
            prop_assert_eq!(world.told[&stable], replicas);
            if world.plan.status.canary_revision.is_none() {
                prop_assert_eq!(world.weight(), 0);
            }
            if world.weight() > 0 {
                let canary = world.plan.status.canary_revision.clone().unwrap();
                prop_assert!(before.contains_key(&canary), "{canary} gets traffic before it has pods");
                prop_assert!(world.verdict != Some(Outcome::Rollback));
                prop_assert_eq!(world.model.spec.kill_switch, None);
            }
        }
    }
}
