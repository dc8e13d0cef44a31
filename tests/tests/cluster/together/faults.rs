//! Mishaps of one model, and rights that nobody needs: what serves goes on serving.

use std::time::Duration;

use serde_json::json;
use tests::client::chat;
use tests::kubectl::{command, condition, get, kubectl, list};
use tests::release::SYSTEM_NAMESPACE;

use crate::scene::{Scene, block_on, client, demo_spec};

#[test]
fn a_deleted_pod_is_replaced() {
    let scene = Scene::beside_others("replaced", &demo_spec());
    scene.ready();
    let pods = list("pods", &scene.selector()).unwrap();
    let pod = pods[0]["metadata"]["name"].as_str().unwrap();
    kubectl(&["delete", "pod", pod]).unwrap();
    kubectl(&["wait", "--for=condition=Ready", "pod", "--selector", &scene.selector(), "--timeout=90s"])
        .unwrap();
    let answer = block_on(client().ask(&chat("replaced", "hello"))).unwrap();
    assert_eq!(answer.finish_reason, "stop");
}

#[test]
fn the_operator_needs_no_right_that_it_does_not_have() {
    let scene = Scene::beside_others("rights", &demo_spec());
    scene.ready();
    let logs = command(
        "kubectl",
        &["--namespace", SYSTEM_NAMESPACE, "logs", "deployment/inferno-operator", "--tail", "-1"],
    )
    .unwrap();
    let refused: Vec<&str> =
        logs.lines().filter(|line| line.contains("is forbidden") || line.contains("Forbidden")).collect();
    assert!(refused.is_empty(), "{refused:#?}");
    let secrets = kubectl(&[
        "auth",
        "can-i",
        "get",
        "secrets",
        "--as",
        &format!("system:serviceaccount:{SYSTEM_NAMESPACE}:inferno-operator"),
    ]);
    assert!(secrets.is_err(), "the operator must not read Secrets");
}

#[test]
fn a_bad_edit_never_takes_down_what_serves() {
    let mut spec = demo_spec();
    let scene = Scene::beside_others("guarded", &spec);
    let before = scene.ready();
    spec["source"]["sha256"] = json!("f".repeat(64));
    scene.apply(&spec);
    let revision = before["status"]["stableRevision"].as_str().unwrap();
    // A pod whose probe comes late on a busy machine is unready for a moment, and then the message says that nobody serves.
    let failed = scene.wait("DigestMismatch, and what serves", Duration::from_secs(60), |object| {
        let (_, reason, message) = condition(object, "Ready");
        reason == "DigestMismatch" && message.contains(revision)
    });
    assert_eq!(condition(&failed, "Available").0, "True");
    let answer = block_on(client().ask(&chat("guarded", "hello"))).unwrap();
    assert_eq!(answer.revision, revision);

    scene.apply(&demo_spec());
    let after = scene.ready();
    assert_eq!(after["status"]["stableRevision"], before["status"]["stableRevision"]);
    assert!(get("deployment", revision).unwrap().is_some());
}

#[test]
fn an_eviction_fails_no_request() {
    let mut spec = demo_spec();
    spec["replicas"] = json!(2);
    let scene = Scene::beside_others("evicted", &spec);
    scene.ready();
    let before = scene.pods();
    let traffic = scene.traffic();
    traffic.after(20);
    before[0].evict().unwrap();
    kubectl(&["wait", "--for", "delete", "pod", &before[0].name, "--timeout", "90s"]).unwrap();
    scene.new_pods_ready(1, &before);
    traffic.after(20);
    traffic.stop().assert_all_answered("an eviction");
}
