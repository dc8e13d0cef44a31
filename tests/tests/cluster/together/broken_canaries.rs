//! Canaries that never get ready: they get no traffic, the status says why, and they are not tried again.

use serde_json::json;
use tests::kubectl::{condition, get, wait_gone};
use tests::models::aborting_demo_model;

use crate::faulty_canaries::assert_given_up;
use crate::rollouts::{driven, looked_at_again, phase, stable, weight};
use crate::scene::{READY_LIMIT, Scene};

#[test]
fn a_canary_that_cannot_load_never_gets_traffic_and_is_not_tried_again() {
    let scene = Scene::beside_others("unfit", &driven());
    let before = scene.ready();
    let traffic = scene.traffic();
    let mut bad = driven();
    bad["source"]["sha256"] = json!("f".repeat(64));
    scene.apply(&bad);
    let ended = scene.wait("given up", READY_LIMIT, |model| {
        assert_eq!(weight(model), 0, "it never gets traffic");
        phase(model) == "Aborted"
    });
    let (_, reason, message) = condition(&ended, "Ready");
    println!("{reason}: {message}");
    assert_eq!(reason, "RolloutAborted");
    assert!(message.contains("spec.source.sha256"), "the cause is told: {message}");
    let failed = ended["status"]["rollout"]["failedRevisions"][0]["revision"].as_str().unwrap();
    wait_gone("pods", &format!("inferno.ai/revision={failed}"), READY_LIMIT).unwrap();

    let again = looked_at_again(&scene, bad);
    assert_eq!(phase(&again), "Aborted");
    assert_eq!(get("deployment", failed).unwrap(), None, "it is not started again");
    assert_eq!(stable(&again), stable(&before));
    traffic.stop().assert_all_answered("a canary that cannot load");
}

#[test]
fn a_canary_whose_engine_crashes_while_it_loads_never_gets_traffic() {
    let scene = Scene::beside_others("crashing", &driven());
    let before = scene.ready();
    let traffic = scene.traffic();
    let mut crashing = driven();
    crashing["source"] = aborting_demo_model();
    scene.apply(&crashing);
    let ended = scene.wait("given up", READY_LIMIT, |model| {
        assert_eq!(weight(model), 0, "it never gets traffic");
        phase(model) == "Aborted"
    });
    assert_given_up(
        &scene,
        crashing,
        &before,
        &ended,
        "RolloutAborted",
        &[
            "the engine ended 3 times while it loaded the model",
            "signal 6",
            "llama-model.cpp",
            "GGML_ASSERT(n_expert_used_max <= hparams.n_expert) failed",
        ],
    );
    let served = traffic.stop();
    served.assert_all_answered("a canary whose engine crashes while it loads");
    assert_eq!(served.revisions().keys().copied().collect::<Vec<_>>(), [stable(&before)]);
}
