//! Specs that cannot be acted on.

use k8s_openapi::api::core::v1::Service;
use serde_json::json;

use super::scene::*;

#[test]
fn a_missing_pool_is_told_and_changes_nothing() {
    let model = model(json!({}));
    let old = revision(&model);
    let mut scene = scene(model).after(stable_status(&old)).deployment(&old, 1, 1);
    scene.observed.pool = None;
    let plan = scene.check(
        &expected(("False", "PoolNotFound"), "PoolNotFound").available().message("spec.poolRef.name is cpu"),
    );
    assert_eq!(condition(&plan, "Accepted").0, "False");
    assert_eq!(plan.status.stable_revision, Some(old));
}

#[test]
fn a_source_that_the_pool_forbids_is_not_fetched() {
    scene(model(json!({}))).in_pool(json!({"sourcePolicy": {"requireDigest": true}})).check(
        &expected(("False", "DigestRequired"), "DigestRequired").message("spec.source.sha256 is missing"),
    );
}

#[test]
fn a_strangers_service_or_deployment_is_not_taken_over() {
    let model = model(json!({}));
    let target = revision(&model);
    let mut with_service = scene(model.clone());
    let stranger: Service = serde_json::from_value(json!({"metadata": {"name": target}})).unwrap();
    with_service.observed.services = vec![stranger];
    let message = format!("Service {target}");
    with_service.check(&expected(("False", "NameConflict"), "NameConflict").message(&message));

    let mut with_deployment = scene(model).deployment_of(&target, 1, 1, "somebody");
    with_deployment.observed.deployments[0].metadata.owner_references = None;
    with_deployment.check(&expected(("False", "NameConflict"), "NameConflict").message(&target));
}

#[test]
fn a_leftover_of_a_deleted_namesake_is_waited_for() {
    let model = model(json!({}));
    let target = revision(&model);
    let plan = scene(model)
        .deployment_of(&target, 1, 1, "uid-of-the-deleted-model")
        .check(&expected(("False", "WaitingForDeletion"), "WaitingForDeletion").message(&target));
    assert_eq!(plan.requeue.as_secs(), 1);
}
