//! Two revisions side by side, and who gets which.

use serde_json::{Value, json};
use tests::kubectl::patch;
use tests::models::larger_demo_model;

use crate::scene::{READY_LIMIT, Scene, demo_spec};

/// With 100 conversations at 50 %, fewer than 30 or more than 70 on one side happen in four of 100,000 runs.
const ASKED: usize = 100;
const SIDE_MIN: usize = 30;

#[test]
fn weights_of_zero_fifty_and_zero_fail_no_request_and_are_what_is_served() {
    let (scene, stable, canary) = side_by_side(Scene::beside_others, "split", 0);
    let traffic = scene.traffic();
    let served = traffic.after(20);
    assert_eq!(served.revisions().keys().copied().collect::<Vec<_>>(), [stable.as_str()]);

    weigh(&scene, 50);
    let served = traffic.after(ASKED);
    println!("at 50 %: {:?}", served.revisions());
    for revision in [&stable, &canary] {
        let count = served.revisions().get(revision.as_str()).copied().unwrap_or_default();
        assert!(count >= SIDE_MIN, "{revision} got {count}: {:?}", served.revisions());
    }

    weigh(&scene, 0);
    let served = traffic.after(20);
    assert_eq!(served.revisions().keys().copied().collect::<Vec<_>>(), [stable.as_str()]);
    traffic.stop().assert_all_answered("weights of 0, 50 and 0 %");
}

#[test]
fn copies_are_compared_and_a_larger_model_is_seen_to_say_the_same() {
    let mut spec = demo_spec();
    spec["rollout"] = json!({"strategy": "Canary", "traffic": {"canaryPercent": 0, "mirrorPercent": 100}});
    let scene = Scene::beside_others("copied", &spec);
    scene.ready();
    spec["source"] = larger_demo_model();
    scene.apply(&spec);
    let traffic = scene.traffic();
    let told = scene.wait("compared with its canary", READY_LIMIT, |model| {
        model["status"]["rollout"]["shadow"]["deterministicSameText"].as_i64() >= Some(20)
    });
    traffic.stop().assert_all_answered("copies");
    let shadow = &told["status"]["rollout"]["shadow"];
    println!("{shadow:#}");
    assert_eq!(told["status"]["rollout"]["weightBasisPoints"], 0, "nobody is answered by the canary");
    assert_eq!(shadow["lengthBasisPoints"], 0, "{shadow:#}");
    assert!(
        shadow["durationBasisPoints"].as_i64().is_some() && shadow["firstTextBasisPoints"].as_i64().is_some()
    );
}

/// Sets the canary's weight and waits until the operator says that it holds.
fn weigh(scene: &Scene, percent: u32) {
    let change = json!({"spec": {"rollout": {"traffic": {"canaryPercent": percent}}}});
    patch("imodel", &scene.model, &change.to_string()).unwrap();
    scene.wait("at its new weight", READY_LIMIT, |model| {
        weight(model) == u64::from(percent) * 100
            && model["status"]["observedGeneration"] == model["metadata"]["generation"]
    });
}

fn weight(model: &Value) -> u64 {
    model["status"]["rollout"]["weightBasisPoints"].as_u64().unwrap_or_default()
}

/// A model with two revisions that are both ready; the second gets so many percent. Returns both revisions' names.
pub(crate) fn side_by_side(
    start: fn(&str, &Value) -> Scene,
    name: &str,
    percent: u32,
) -> (Scene, String, String) {
    let mut spec = demo_spec();
    spec["rollout"] = json!({"strategy": "Canary", "traffic": {"canaryPercent": percent}});
    let scene = start(name, &spec);
    let before = scene.ready();
    spec["engine"] = json!({"contextLength": 1024});
    scene.apply(&spec);
    let canary = |model: &Value| model["status"]["canaryRevision"].as_str().map(str::to_owned);
    let after = scene.wait("beside its canary", READY_LIMIT, |model| canary(model).is_some());
    let canary = canary(&after).unwrap();
    let stable = before["status"]["stableRevision"].as_str().unwrap().to_owned();
    crate::scene::wait_for_pods(&format!("inferno.ai/revision={canary}"), 1, &[]);
    (scene, stable, canary)
}
