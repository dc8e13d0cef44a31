//! Canaries that never get ready: they get no traffic, the status says why, and they are not tried again.

use serde_json::{Value, json};
use tests::models::aborting_demo_model;

use crate::faulty_canaries::assert_given_up;
use crate::rollouts::{driven, phase, stable, weight};
use crate::scene::{READY_LIMIT, Scene};

#[test]
fn a_canary_that_cannot_load_never_gets_traffic_and_is_not_tried_again() {
    check("unfit", |source| source["sha256"] = json!("f".repeat(64)), &["spec.source.sha256"]);
}

#[test]
fn a_canary_whose_engine_crashes_while_it_loads_never_gets_traffic() {
    let causes = [
        "the engine ended 3 times while it loaded the model",
        "signal 6",
        "llama-model.cpp",
        "GGML_ASSERT(n_expert_used_max <= hparams.n_expert) failed",
    ];
    check("crashing", |source| *source = aborting_demo_model(), &causes);
}

/// Spoils the source of a model that serves, and expects that its canary is given up for these causes.
fn check(name: &str, spoil: impl FnOnce(&mut Value), causes: &[&str]) {
    let scene = Scene::beside_others(name, &driven());
    let before = scene.ready();
    let traffic = scene.traffic();
    let mut broken = driven();
    spoil(&mut broken["source"]);
    scene.apply(&broken);
    let ended = scene.wait("given up", READY_LIMIT, |model| {
        assert_eq!(weight(model), 0, "it never gets traffic");
        phase(model) == "Aborted"
    });
    assert_given_up(&scene, broken, &before, &ended, "RolloutAborted", causes);
    let served = traffic.stop();
    served.assert_all_answered("a canary that never gets ready");
    assert_eq!(served.revisions().keys().copied().collect::<Vec<_>>(), [stable(&before)]);
}
