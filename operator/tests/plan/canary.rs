//! From one revision to the next, with strategy Canary.

use crds::model::RolloutPhase;
use operator::plan::{Plan, Route};
use serde_json::{Value, json};

use super::scene::*;

pub(crate) fn canary_model(percent: i32) -> crds::model::InferenceModel {
    model(json!({"rollout": {"strategy": "Canary", "traffic": {"canaryPercent": percent}}}))
}

pub(crate) fn old_revision() -> String {
    revision(&model(json!({"aliases": ["old"]})))
}

/// Stable and canary with all their pods, and both proven.
pub(crate) fn both(model: crds::model::InferenceModel, status: Value) -> Scene {
    let (old, target) = (old_revision(), revision(&model));
    scene(model)
        .after(status)
        .deployment(&old, 1, 1)
        .ready_pod(&old)
        .deployment(&target, 1, 1)
        .ready_pod(&target)
        .proof(&old, Route::Gateway, 0, true)
        .proof(&target, Route::Pod, 0, true)
}

/// The status while the canary has `basis_points`.
pub(crate) fn split_status(canary: &str, basis_points: i32) -> Value {
    let mut status = stable_status(&old_revision());
    status["targetRevision"] = json!(canary);
    status["canaryRevision"] = json!(canary);
    status["rollout"] = json!({"phase": "Canary", "summary": "", "weightBasisPoints": basis_points});
    status
}

/// What a gateway goes by: stable revision, canary, weight.
fn table(plan: &Plan) -> (Option<&str>, Option<&str>, Option<i32>) {
    let status = &plan.status;
    let weight = status.rollout.as_ref().and_then(|rollout| rollout.weight_basis_points);
    (status.stable_revision.as_deref(), status.canary_revision.as_deref(), weight)
}

#[test]
fn a_canary_gets_nothing_until_it_is_complete_and_proven() {
    let (model, old) = (canary_model(25), old_revision());
    let target = revision(&model);
    let summary = format!("{}: Downloading 43% (12 s left)", short(&target));
    let starting = scene(model.clone()).after(stable_status(&old)).deployment(&old, 1, 1).ready_pod(&old);
    let plan = starting.deployment(&target, 1, 0).downloading_pod(&target).check(
        &expected(("False", "Downloading"), &summary)
            .available()
            .applied(&target, 1)
            .message("keeps serving"),
    );
    assert_eq!(table(&plan), (Some(old.as_str()), Some(target.as_str()), Some(0)));

    let mut unproven = both(model, stable_status(&old));
    unproven.observed.proofs.pop();
    let plan = unproven.plan();
    assert_eq!(table(&plan), (Some(old.as_str()), Some(target.as_str()), Some(0)));
    assert_eq!(asked(&plan), [(Route::Pod, "http://10.0.0.7:8080/v1")]);
}

#[test]
fn a_proven_canary_gets_its_share_and_both_stay() {
    let (model, old) = (canary_model(25), old_revision());
    let target = revision(&model);
    let summary = format!("{} 25%", short(&target));
    let plan = both(model, stable_status(&old)).check(
        &expected(("True", "ServedToken"), &summary)
            .available()
            .applied(&target, 1)
            .message("gets 25% of the keys"),
    );
    assert_eq!(table(&plan), (Some(old.as_str()), Some(target.as_str()), Some(2_500)));
    assert_eq!(condition(&plan, "Progressing").1, "CanaryServing");
    assert_eq!(plan.status.rollout.as_ref().unwrap().phase, RolloutPhase::Canary);
    assert!(plan.notices.iter().any(|notice| notice.reason == "CanaryWeightChanged"), "{:?}", plan.notices);
}

#[test]
fn a_share_of_nothing_is_a_share() {
    let (model, old) = (canary_model(0), old_revision());
    let target = revision(&model);
    let summary = format!("{} 0%", short(&target));
    let plan = both(model, stable_status(&old))
        .check(&expected(("True", "ServedToken"), &summary).available().applied(&target, 1));
    assert_eq!(table(&plan), (Some(old.as_str()), Some(target.as_str()), Some(0)));
}

#[test]
fn the_stable_revision_is_asked_through_the_gateway_and_the_canary_at_its_pod() {
    let (model, old) = (canary_model(25), old_revision());
    let target = revision(&model);
    let mut scene = both(model, split_status(&target, 2_500));
    scene.observed.proofs.clear();
    let plan = scene.plan();
    let whom: Vec<(Route, &str)> =
        plan.probes.iter().map(|probe| (probe.route, probe.revision.as_str())).collect();
    assert_eq!(whom, [(Route::Gateway, old.as_str()), (Route::Pod, target.as_str())]);
    assert_eq!(table(&plan).2, Some(2_500), "a restarted operator takes nothing away");
    assert_eq!(condition(&plan, "Ready").0, "True");
}

#[test]
fn a_canary_that_loses_a_pod_or_falls_silent_gets_nothing() {
    let (model, old) = (canary_model(25), old_revision());
    let target = revision(&model);
    let mut lost = both(model.clone(), split_status(&target, 2_500));
    lost.observed.deployments[1].status.as_mut().unwrap().ready_replicas = Some(0);
    let plan = lost.plan();
    assert_eq!(table(&plan), (Some(old.as_str()), Some(target.as_str()), Some(0)));
    assert_eq!(condition(&plan, "Available").0, "True");

    let silent = |failures| {
        let mut scene = both(model.clone(), split_status(&target, 2_500));
        scene.observed.proofs.pop();
        table(&scene.proof(&target, Route::Pod, failures, true).plan()).2
    };
    assert_eq!((silent(2), silent(3)), (Some(2_500), Some(0)));
}

#[test]
fn at_a_hundred_percent_it_is_promoted() {
    let (model, old) = (canary_model(100), old_revision());
    let target = revision(&model);
    let plan = both(model, split_status(&target, 5_000)).check(
        &expected(("True", "ServedToken"), "Stable").available().applied(&target, 1).prune(vec![&old]),
    );
    assert_eq!(table(&plan), (Some(target.as_str()), None, None));
    assert_eq!(plan.notices[0].reason, "RolloutFinished");
    assert!(plan.notices.iter().all(|notice| notice.reason != "CanaryRemoved"));
}

#[test]
fn going_back_removes_the_canary() {
    let first = canary_model(25);
    let canary = revision(&first);
    let back = model(
        json!({"aliases": ["old"], "rollout": {"strategy": "Canary", "traffic": {"canaryPercent": 25}}}),
    );
    let old = revision(&back);
    assert_eq!(old, old_revision(), "how it is rolled out is not part of a revision");
    let plan = scene(back)
        .after(split_status(&canary, 2_500))
        .deployment(&old, 1, 1)
        .ready_pod(&old)
        .deployment(&canary, 1, 1)
        .proof(&old, Route::Gateway, 0, true)
        .check(
            &expected(("True", "ServedToken"), "Stable").available().applied(&old, 1).prune(vec![&canary]),
        );
    assert_eq!(table(&plan), (Some(old.as_str()), None, None));
    assert_eq!(plan.notices[0].reason, "CanaryRemoved");
}

#[test]
fn a_third_revision_replaces_the_canary() {
    let canary = revision(&model(json!({"aliases": ["first"]})));
    let (model, old) = (canary_model(25), old_revision());
    let target = revision(&model);
    let summary = format!("{}: Starting", short(&target));
    let plan = scene(model)
        .after(split_status(&canary, 2_500))
        .deployment(&old, 1, 1)
        .ready_pod(&old)
        .deployment(&canary, 1, 1)
        .check(
            &expected(("False", "Starting"), &summary).available().applied(&target, 1).prune(vec![&canary]),
        );
    assert_eq!(table(&plan), (Some(old.as_str()), Some(target.as_str()), Some(0)));
}

#[test]
fn the_kill_switch_stops_a_rollout_and_leaves_the_stable_revision_ready() {
    let mut model = canary_model(100);
    model.spec.kill_switch = Some(crds::model::KillSwitch::Rollout);
    let (old, target) = (old_revision(), revision(&model));
    let summary = format!("{} 0%, kill switch", short(&target));
    let plan = both(model, split_status(&target, 5_000)).check(
        &expected(("True", "ServedToken"), &summary)
            .available()
            .applied(&target, 1)
            .message("spec.killSwitch is Rollout"),
    );
    assert_eq!(table(&plan), (Some(old.as_str()), Some(target.as_str()), Some(0)));
}

#[test]
fn a_first_revision_needs_no_share() {
    let model = canary_model(0);
    let target = revision(&model);
    let plan = scene(model)
        .deployment(&target, 1, 1)
        .ready_pod(&target)
        .proof(&target, Route::Gateway, 0, true)
        .check(&expected(("True", "ServedToken"), "Stable").available().applied(&target, 1));
    assert_eq!(table(&plan), (Some(target.as_str()), None, None));
}

#[test]
fn a_missing_pool_changes_no_weight() {
    let model = canary_model(25);
    let target = revision(&model);
    let mut scene = both(model, split_status(&target, 2_500));
    scene.observed.pool = None;
    assert_eq!(table(&scene.plan()).2, Some(2_500));
}
