//! Faults of our own processes on the cluster: what serves goes on serving.

use std::time::Duration;

use tests::client::chat;
use tests::kubectl::{command, get, kubectl, list};
use tests::release::SYSTEM_NAMESPACE;

use crate::scene::{READY_LIMIT, Scene, block_on, client, demo_spec};

#[test]
fn a_deleted_pod_is_replaced() {
    let scene = Scene::start("replaced", &demo_spec());
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
fn the_operator_may_die_and_comes_back_to_the_same_world() {
    let scene = Scene::start("unattended", &demo_spec());
    let before = scene.ready();
    let operator = |arguments: &[&str]| {
        let mut all = vec!["--namespace", SYSTEM_NAMESPACE];
        all.extend(arguments);
        command("kubectl", &all).unwrap()
    };
    let selector = "app.kubernetes.io/name=inferno-operator";
    let killed = operator(&["delete", "pod", "--selector", selector, "--grace-period", "0", "--force"]);
    assert!(killed.contains("deleted"), "{killed}");
    let answer = block_on(client().ask(&chat("unattended", "hello"))).unwrap();
    assert_eq!(answer.finish_reason, "stop", "serving does not need the operator");

    operator(&["rollout", "status", "deployment/inferno-operator", "--timeout", "90s"]);
    kubectl(&["scale", "imodel", "unattended", "--replicas", "2"]).unwrap();
    let after = scene.wait("at 2 replicas", READY_LIMIT, |object| object["status"]["readyReplicas"] == 2);
    assert_eq!(after["status"]["stableRevision"], before["status"]["stableRevision"]);
}

#[test]
fn the_operator_needs_no_right_that_it_does_not_have() {
    let scene = Scene::start("rights", &demo_spec());
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
    let scene = Scene::start("guarded", &spec);
    let before = scene.ready();
    spec["source"]["sha256"] = serde_json::json!("f".repeat(64));
    scene.apply(&spec);
    let revision = before["status"]["stableRevision"].as_str().unwrap();
    // A pod whose probe comes late on a busy machine is unready for a moment, and then the message says that nobody serves.
    let failed = scene.wait("DigestMismatch, and what serves", Duration::from_secs(60), |object| {
        let (_, reason, message) = tests::kubectl::condition(object, "Ready");
        reason == "DigestMismatch" && message.contains(revision)
    });
    assert_eq!(tests::kubectl::condition(&failed, "Available").0, "True");
    let answer = block_on(client().ask(&chat("guarded", "hello"))).unwrap();
    assert_eq!(answer.revision, revision);

    scene.apply(&demo_spec());
    let after = scene.ready();
    assert_eq!(after["status"]["stableRevision"], before["status"]["stableRevision"]);
    assert!(get("deployment", revision).unwrap().is_some());
}
