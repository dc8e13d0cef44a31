//! A model that serves.

use operator::plan::Route;
use serde_json::json;

use super::scene::*;

#[test]
fn a_restarted_operator_does_not_unready_a_serving_model() {
    let model = model(json!({}));
    let target = revision(&model);
    let scene = scene(model).after(stable_status(&target)).deployment(&target, 1, 1).ready_pod(&target);
    let plan = scene.check(&expected(("True", "ServedToken"), "Stable").available().applied(&target, 1));
    assert_eq!(plan.probes.len(), 1, "but it asks again at once");
    let since = &plan
        .status
        .conditions
        .iter()
        .find(|condition| condition.type_ == "Ready")
        .unwrap()
        .last_transition_time;
    assert_eq!(since.0.to_string(), "2026-11-21T09:00:00Z");
}

#[test]
fn one_failed_probe_is_no_outage_and_three_are() {
    let model = model(json!({}));
    let target = revision(&model);
    let serving =
        || scene(model.clone()).after(stable_status(&target)).deployment(&target, 1, 1).ready_pod(&target);
    serving()
        .proof(&target, Route::Gateway, 2, true)
        .check(&expected(("True", "ServedToken"), "Stable").available().applied(&target, 1));
    serving().proof(&target, Route::Gateway, 3, true).check(
        &expected(("False", "ProbeFailed"), "ProbeFailed")
            .available()
            .applied(&target, 1)
            .message("connection refused"),
    );
}

#[test]
fn a_lost_pod_is_told_although_others_serve() {
    let model = model(json!({"replicas": 2}));
    let target = revision(&model);
    scene(model)
        .after(stable_status(&target))
        .deployment(&target, 2, 1)
        .ready_pod(&target)
        .downloading_pod(&target)
        .check(
            &expected(("False", "Scaling"), "1/2 ready, Downloading 43% (12 s left)")
                .available()
                .applied(&target, 2),
        );
}

#[test]
fn a_kill_switch_of_the_model_is_told_and_nothing_is_asked() {
    let model = model(json!({"killSwitch": "Model"}));
    let target = revision(&model);
    let plan = scene(model)
        .after(stable_status(&target))
        .deployment(&target, 1, 1)
        .ready_pod(&target)
        .proof(&target, Route::Gateway, 9, true)
        .check(
            &expected(("False", "KillSwitch"), "Stable")
                .available()
                .applied(&target, 1)
                .message("spec.killSwitch is Model"),
        );
    assert_eq!(plan.probes, []);
}
