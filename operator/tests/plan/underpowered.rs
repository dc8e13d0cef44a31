//! What an analysis cannot prove is told before the canary gets anything, and that nothing was proven as long as it matters.

use crds::model::{PodVariation, RolloutPhase};
use judgement::rollout::Outcome;
use serde_json::{Value, json};

use super::scene::*;
use super::world::*;

const CONDITION: &str = "AnalysisUnderpowered";

/// Status and reason of the condition; nothing without it.
fn found(world: &World) -> String {
    let has_it = world.plan.status.conditions.iter().any(|found| found.type_ == CONDITION);
    let found = has_it.then(|| condition(&world.plan, CONDITION));
    found.map(|(status, reason, _)| format!("{status} {reason}")).unwrap_or_default()
}

fn is_told(world: &World) -> bool {
    world.plan.notices.iter().any(|notice| notice.reason == CONDITION && !notice.is_warning)
}

/// A canary that is about to get its first share.
fn warming(replicas: i32, changes: Value) -> World {
    let mut world = World::new(driven(replicas, changes));
    world.until(RolloutPhase::WarmingUp);
    world
}

#[test]
fn what_so_few_pods_cannot_show_is_told_once_and_before_the_first_request() {
    let mut world = World::new(driven(1, json!({})));
    let mut told = 0;
    while world.phase() != RolloutPhase::Analysing {
        world.turn(2);
        told += i32::from(is_told(&world));
    }
    assert_eq!((told, world.weight()), (1, 1_000));
    assert_eq!(found(&world), "True TooFewPods");
    let message = condition(&world.plan, CONDITION).2;
    assert!(
        message.starts_with("with 2 canary pods beside 1 it can hardly be proven that nothing is 5 %"),
        "{message}"
    );
    world.turn(30).turn(30);
    assert!(!is_told(&world), "nothing new");
}

#[test]
fn a_lone_pod_is_no_match_for_a_slow_node() {
    let world = warming(1, json!({"maxSurge": 1}));
    let message = condition(&world.plan, CONDITION).2;
    assert!(
        message.contains("1 canary pod a slowdown below 50 % cannot be told from a slow node"),
        "{message}"
    );
    let world = warming(1, json!({"maxSurge": 1, "analysis": {"criticalRegressionPercent": 80}}));
    assert!(condition(&world.plan, CONDITION).2.contains("below 80 %"), "{:?}", world.plan.status.conditions);
}

#[test]
fn pods_that_make_room_are_not_there_to_be_compared_with() {
    for wish in ["Auto", "InPlace"] {
        let model = driven(4, json!({"capacityStrategy": wish}));
        let mut world = World::in_pool(model, 4, Some(1.0));
        let mut told = Vec::new();
        while world.phase() != RolloutPhase::Analysing {
            world.turn(2);
            let notices = world.plan.notices.iter().filter(|notice| notice.reason == CONDITION);
            told.extend(notices.map(|notice| notice.message.clone()));
        }
        let [message] = told.as_slice() else { panic!("{told:?}") };
        assert!(message.starts_with("with 2 canary pods beside 2 it can hardly"), "{wish}: {message}");
        assert_eq!(condition(&world.plan, CONDITION).2, *message, "{wish}");
    }
}

#[test]
fn enough_pods_are_enough_and_so_are_pods_that_are_known_to_be_alike() {
    assert_eq!(found(&warming(20, json!({}))), "False EnoughPods");
    assert_eq!(found(&warming(4, json!({}))), "True TooFewPods");
    let alike = json!({"analysis": {"podVariationPercent": 1}});
    assert_eq!(found(&warming(4, alike)), "False EnoughPods");
    let mut shown = World::new(driven(4, json!({})));
    let rollout = shown.model.status.as_mut().and_then(|status| status.rollout.as_mut()).unwrap();
    rollout.pod_variations = vec![PodVariation { node_class: "cpu".to_owned(), basis_points: 100 }];
    assert_eq!(found(shown.until(RolloutPhase::WarmingUp)), "False EnoughPods");
    let tolerant = json!({"analysis": {"regressionTolerancePercent": 20}});
    assert_eq!(found(&warming(4, tolerant)), "False EnoughPods");
    let by_hand = json!({"traffic": {"canaryPercent": 50}});
    let mut world = World::new(driven(2, by_hand));
    assert_eq!(found(world.turn(60).turn(2)), "", "nothing follows from the analysis");
}

#[test]
fn a_promotion_without_a_proof_is_remembered_until_the_next_rollout() {
    let mut world = warming(1, json!({}));
    world.until(RolloutPhase::Analysing).verdict = Some(Outcome::Continue);
    world.turn(1_800);
    assert!(is_told(&world), "another reason than before the start");
    world.turn(2);
    assert_eq!((world.weight(), found(&world).as_str()), (2_500, "True StepUnproven"));
    world.turn(1_800).turn(1_800);
    world.until(RolloutPhase::Stable).turn(60);
    assert_eq!(found(&world), "True StepUnproven");
    let message = condition(&world.plan, CONDITION).2;
    assert!(message.starts_with(&format!("revision {} was promoted", world.stable())), "{message}");
    world.model = with_alias(world.model.clone(), "another");
    world.verdict = None;
    world.until(RolloutPhase::WarmingUp);
    assert_eq!(found(&world), "True TooFewPods");
}

#[test]
fn a_proof_counts_for_the_steps_before_it() {
    let mut world = warming(1, json!({}));
    world.until(RolloutPhase::Analysing).verdict = Some(Outcome::Continue);
    world.turn(1_800).turn(2);
    assert!(world.course().is_underpowered);
    world.verdict = Some(Outcome::Pass);
    world.turn(2).turn(120).turn(2);
    assert_eq!((world.weight(), found(&world).as_str()), (5_000, "False WithinTolerance"));
    world.until(RolloutPhase::Stable);
    assert_eq!(found(&world), "");
}

#[test]
fn steps_of_an_analysis_that_only_observes_end_by_time_and_that_says_nothing() {
    let mut world = warming(1, json!({"analysis": {"mode": "Observe"}}));
    world.until(RolloutPhase::Analysing).turn(1_800).turn(2);
    assert_eq!((world.weight(), found(&world).as_str()), (2_500, "True TooFewPods"));
}
