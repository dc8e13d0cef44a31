//! Rest and limits.

use operator::capacity::Claim;
use operator::plan::Route;
use serde_json::json;

use super::scene::*;

#[test]
fn a_suspended_model_has_no_pods_and_keeps_its_revision() {
    let model = model(json!({"suspend": true}));
    let target = revision(&model);
    let plan = scene(model).after(stable_status(&target)).deployment(&target, 1, 1).check(
        &expected(("False", "Suspended"), "Suspended")
            .available()
            .applied(&target, 0)
            .message("spec.suspend"),
    );
    assert_eq!(plan.status.stable_revision, Some(target));
}

#[test]
fn suspending_during_a_rollout_rests_both_revisions_and_forgets_neither() {
    let old = revision(&model(json!({"aliases": ["old"]})));
    let model = model(json!({"suspend": true}));
    let target = revision(&model);
    let summary = format!("{}: Suspended", short(&target));
    scene(model)
        .after(stable_status(&old))
        .deployment(&old, 1, 1)
        .deployment(&target, 1, 1)
        .proof(&target, Route::Pod, 0, true)
        .check(
            &expected(("False", "Suspended"), &summary)
                .available()
                .applied(&target, 0)
                .scale(vec![(&old, 0)]),
        );
}

#[test]
fn no_replicas_is_said_in_those_words() {
    let model = model(json!({"replicas": 0}));
    let target = revision(&model);
    scene(model).check(
        &expected(("False", "NoReplicas"), "No replicas").applied(&target, 0).message("spec.replicas is 0"),
    );
}

#[test]
fn a_pools_limit_caps_replicas_and_says_so() {
    let model = model(json!({"replicas": 5}));
    let target = revision(&model);
    let mut scene = scene(model)
        .in_pool(json!({"limits": {"maxReplicas": 3}}))
        .after(stable_status(&target))
        .deployment(&target, 3, 3)
        .ready_pod(&target)
        .proof(&target, Route::Gateway, 0, true);
    scene.observed.claims = vec![Claim { created: None, model: "tiny".into(), replicas: 5, kept: 0 }];
    scene.check(
        &expected(("False", "CapacityLimited"), "Stable")
            .available()
            .applied(&target, 3)
            .message("3 of 5 replicas run; spec.limits.maxReplicas of pool cpu is 3"),
    );
}

#[test]
fn pods_without_room_are_told_beside_those_that_run() {
    let model = model(json!({"replicas": 2}));
    let target = revision(&model);
    let refused = json!({"conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable",
        "message": "0/1 nodes are available: 1 Insufficient cpu."}]});
    let mut scene = scene(model)
        .after(stable_status(&target))
        .deployment(&target, 2, 1)
        .ready_pod(&target)
        .pod(&target, refused);
    let told = |scene: &Scene, message| {
        let limited = expected(("False", "CapacityLimited"), "1/2 ready, CapacityLimited");
        scene.check(&limited.available().applied(&target, 2).message(message));
    };
    told(&scene, "1 of 2 replicas run; no node can take the pod: 0/1 nodes are available");
    scene.observed.room = full(4);
    told(
        &scene,
        "1 of 2 replicas run; nvidia.com/gpu is used up on nodes accelerator=l40s (needed 4 more); no node can take",
    );
}
