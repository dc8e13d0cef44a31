//! From one revision to the next, with strategy `BlueGreen`.

use kube::ResourceExt;
use operator::plan::Route;
use serde_json::json;

use super::scene::*;

#[test]
fn an_edit_starts_the_new_revision_beside_the_old_one() {
    let old = revision(&model(json!({"aliases": ["old"]})));
    let model = model(json!({}));
    let target = revision(&model);
    let scene = scene(model).after(stable_status(&old)).deployment(&old, 1, 1).ready_pod(&old);
    let summary = format!("{}: Starting", short(&target));
    let plan = scene.check(
        &expected(("False", "Starting"), &summary).available().applied(&target, 1).message("keeps serving"),
    );
    assert_eq!(plan.status.stable_revision.as_ref(), Some(&old));
    assert_eq!(plan.status.target_revision.as_ref(), Some(&target));
    assert_eq!(plan.status.summary.unwrap().revision, format!("{}→{}", short(&old), short(&target)));
    assert_eq!(plan.notices[0].reason, "RolloutStarted");
}

#[test]
fn a_new_revision_that_fails_leaves_the_old_one_serving() {
    let old = revision(&model(json!({"aliases": ["old"]})));
    let model = model(json!({}));
    let target = revision(&model);
    let message = format!("revision {old} keeps serving");
    let summary = format!("{}: NotGGUF", short(&target));
    scene(model)
        .after(stable_status(&old))
        .deployment(&old, 1, 1)
        .ready_pod(&old)
        .deployment(&target, 1, 0)
        .failed_pod(&target, "NotGGUF")
        .check(&expected(("False", "NotGGUF"), &summary).available().applied(&target, 1).message(&message));
}

#[test]
fn a_new_revision_is_proved_by_its_own_pod_before_the_old_one_goes() {
    let old = revision(&model(json!({"aliases": ["old"]})));
    let model = model(json!({}));
    let target = revision(&model);
    let rolling = || {
        scene(model.clone())
            .after(stable_status(&old))
            .deployment(&old, 1, 1)
            .ready_pod(&old)
            .deployment(&target, 1, 1)
            .ready_pod(&target)
    };
    let summary = format!("{}: Proving", short(&target));
    let plan = rolling().check(&expected(("False", "Proving"), &summary).available().applied(&target, 1));
    assert_eq!(asked(&plan), [(Route::Pod, "http://10.0.0.7:8080/v1")]);

    let proved = rolling().proof(&target, Route::Pod, 0, true);
    let plan = proved.plan();
    assert_eq!(plan.prune, [old.as_str()]);
    assert_eq!(plan.status.stable_revision.as_ref(), Some(&target));
    assert_eq!(asked(&plan)[0].0, Route::Gateway, "Ready is what clients get");
}

#[test]
fn a_new_revision_whose_pod_gives_no_token_does_not_replace_the_old_one() {
    let old = revision(&model(json!({"aliases": ["old"]})));
    let model = model(json!({}));
    let target = revision(&model);
    let summary = format!("{}: Proving", short(&target));
    scene(model)
        .after(stable_status(&old))
        .deployment(&old, 1, 1)
        .deployment(&target, 1, 1)
        .ready_pod(&target)
        .proof(&target, Route::Pod, 5, false)
        .check(
            &expected(("False", "Proving"), &summary)
                .available()
                .applied(&target, 1)
                .message("connection refused"),
        );
}

#[test]
fn all_wanted_replicas_of_the_new_revision_must_be_ready() {
    let old = revision(&model(json!({"aliases": ["old"]})));
    let model = model(json!({"replicas": 3}));
    let target = revision(&model);
    let summary = format!("{}: 2/3 ready, Downloading 43% (12 s left)", short(&target));
    scene(model)
        .after(stable_status(&old))
        .deployment(&old, 3, 3)
        .deployment(&target, 3, 2)
        .downloading_pod(&target)
        .proof(&target, Route::Pod, 0, true)
        .check(&expected(("False", "Scaling"), &summary).available().applied(&target, 3));
}

#[test]
fn going_back_keeps_the_serving_revision_and_drops_the_new_one() {
    let new = revision(&model(json!({"aliases": ["new"]})));
    let model = model(json!({}));
    let old = revision(&model);
    scene(model)
        .after(json!({"stableRevision": old, "targetRevision": new}))
        .deployment(&old, 1, 1)
        .ready_pod(&old)
        .deployment(&new, 1, 0)
        .proof(&old, Route::Gateway, 0, true)
        .check(&expected(("True", "ServedToken"), "Stable").available().applied(&old, 1).prune(vec![&new]));
}

#[test]
fn a_second_edit_replaces_the_first_and_not_the_serving_revision() {
    let old = revision(&model(json!({"aliases": ["old"]})));
    let first = revision(&model(json!({"aliases": ["first"]})));
    let model = model(json!({}));
    let target = revision(&model);
    let summary = format!("{}: Starting", short(&target));
    scene(model).after(stable_status(&old)).deployment(&old, 1, 1).deployment(&first, 1, 0).check(
        &expected(("False", "Starting"), &summary).available().applied(&target, 1).prune(vec![&first]),
    );
}

#[test]
fn whoever_serves_is_kept_even_if_it_never_became_stable() {
    let first = revision(&model(json!({"aliases": ["first"]})));
    let model = model(json!({"replicas": 3}));
    let target = revision(&model);
    let summary = format!("{}: Starting", short(&target));
    scene(model)
        .deployment(&first, 3, 1)
        .check(&expected(("False", "Starting"), &summary).available().applied(&target, 3));
}

#[test]
fn scaling_during_a_rollout_scales_the_serving_revision_too() {
    let old = revision(&model(json!({"aliases": ["old"]})));
    let model = model(json!({"replicas": 4}));
    let target = revision(&model);
    let summary = format!("{}: Starting", short(&target));
    scene(model).after(stable_status(&old)).deployment(&old, 1, 1).check(
        &expected(("False", "Starting"), &summary).available().applied(&target, 4).scale(vec![(&old, 4)]),
    );
}

#[test]
fn services_come_and_go_with_their_revisions() {
    let old = revision(&model(json!({"aliases": ["old"]})));
    let gone = revision(&model(json!({"aliases": ["gone"]})));
    let model = model(json!({}));
    let target = revision(&model);
    let plan = scene(model)
        .after(stable_status(&old))
        .deployment(&old, 1, 1)
        .service(&old)
        .service(&gone)
        .service("tiny-server")
        .plan();
    let names: Vec<String> = plan.services.iter().map(ResourceExt::name_any).collect();
    assert_eq!(names, [target, old], "the old one's as well: it may come from a version without");
    assert_eq!(plan.prune_services, [gone, "tiny-server".to_owned()]);
}
