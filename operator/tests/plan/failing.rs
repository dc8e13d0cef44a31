//! What the pods say when they fail.

use crds::model::RolloutPhase;
use serde_json::json;

use super::scene::*;

#[test]
fn a_failed_first_start_says_why() {
    let model = model(json!({}));
    let target = revision(&model);
    let scene = scene(model).deployment(&target, 1, 0).failed_pod(&target, "DigestMismatch");
    let plan = scene.check(
        &expected(("False", "DigestMismatch"), "DigestMismatch")
            .applied(&target, 1)
            .message("spec.source.sha256"),
    );
    assert_eq!(plan.status.rollout.unwrap().phase, RolloutPhase::Failed);
    assert!(plan.notices.iter().any(|notice| notice.is_warning && notice.reason == "DigestMismatch"));
}

#[test]
fn the_same_failure_is_announced_once() {
    let model = model(json!({}));
    let target = revision(&model);
    let scene = scene(model).deployment(&target, 1, 0).failed_pod(&target, "DigestMismatch");
    let status = json!(scene.plan().status);
    assert_eq!(scene.after(status).plan().notices, vec![]);
}

#[test]
fn an_edit_after_a_failure_starts_anew_and_removes_the_failed_revision() {
    let wrong = revision(&model(json!({"aliases": ["wrong"]})));
    let model = model(json!({}));
    let target = revision(&model);
    scene(model)
        .deployment(&wrong, 1, 0)
        .failed_pod(&wrong, "DigestMismatch")
        .check(&expected(("False", "Starting"), "Starting").applied(&target, 1).prune(vec![&wrong]));
}

#[test]
fn pods_that_cannot_be_created_are_told() {
    let model = model(json!({}));
    let target = revision(&model);
    let mut scene = scene(model).deployment(&target, 1, 0);
    scene.observed.deployments[0].status.as_mut().unwrap().conditions = Some(vec![
        serde_json::from_value(
            json!({"type": "ReplicaFailure", "status": "True", "message": "exceeded quota: gpus"}),
        )
        .unwrap(),
    ]);
    scene.check(
        &expected(("False", "PodsRefused"), "PodsRefused").applied(&target, 1).message("exceeded quota"),
    );
}
