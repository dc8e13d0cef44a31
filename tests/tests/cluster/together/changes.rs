//! Changes of a served model: replicas, spec, deletion. None of them may fail a request.

use std::time::Duration;

use serde_json::json;
use tests::kubectl::{get, is, kubectl, list, wait_gone};

use crate::scene::{READY_LIMIT, Scene, demo_spec};

#[test]
fn kubectl_scale_changes_the_number_of_pods() {
    let scene = Scene::beside_others("scaled", &demo_spec());
    scene.ready();
    kubectl(&["scale", "imodel", "scaled", "--replicas", "2"]).unwrap();
    let model = scene.wait("at 2 replicas", READY_LIMIT, |object| object["status"]["readyReplicas"] == 2);
    assert_eq!(model["status"]["selector"], "inferno.ai/model=scaled");
    kubectl(&["scale", "imodel", "scaled", "--replicas", "1"]).unwrap();
    scene.wait("at 1 replica", READY_LIMIT, |object| object["status"]["replicas"] == 1);
}

#[test]
fn deleting_a_model_removes_everything_it_owned() {
    let scene = Scene::beside_others("deleted", &demo_spec());
    scene.ready();
    let owned = "deployments,replicasets,services,pods,configmaps,poddisruptionbudgets";
    assert!(list(owned, &scene.selector()).unwrap().len() >= 4);
    kubectl(&["delete", "imodel", "deleted"]).unwrap();
    wait_gone(owned, &scene.selector(), Duration::from_secs(90)).unwrap();
    assert!(list(owned, &scene.selector()).unwrap().is_empty());
}

#[test]
fn editing_the_context_length_rolls_the_pods_without_a_failed_request() {
    let mut spec = demo_spec();
    let scene = Scene::beside_others("edited", &spec);
    let before = scene.ready();
    let traffic = scene.traffic();

    spec["engine"] = json!({"contextLength": 1024});
    scene.apply(&spec);
    let first = before["status"]["stableRevision"].clone();
    let after = scene.wait("on the new revision", READY_LIMIT, |object| {
        is(object, "Ready", "True") && object["status"]["stableRevision"] != first
    });
    wait_gone("pods", &format!("inferno.ai/revision={}", first.as_str().unwrap()), READY_LIMIT).unwrap();

    traffic.after(10).assert_all_answered("after the roll");
    traffic.stop().assert_all_answered("a roll");
    assert_eq!(after["status"]["model"]["contextLength"], 1024);
}

#[test]
fn a_spec_taken_back_in_mid_roll_keeps_the_serving_pods() {
    let mut spec = demo_spec();
    let scene = Scene::beside_others("reverted", &spec);
    let before = scene.ready();
    let pods = scene.pods();
    let traffic = scene.traffic();

    spec["engine"] = json!({"contextLength": 1024});
    scene.apply(&spec);
    scene.wait("rolling", READY_LIMIT, |object| {
        object["status"]["targetRevision"] != before["status"]["stableRevision"]
            && is(object, "Accepted", "True")
    });
    scene.apply(&demo_spec());
    let after = scene.ready();

    assert_eq!(after["status"]["stableRevision"], before["status"]["stableRevision"]);
    assert!(pods.iter().all(|pod| get("pod", &pod.name).unwrap().is_some()), "{pods:?} still serve");
    traffic.stop().assert_all_answered("a roll and its return");
}
