//! From two manifests to an answer: what the README promises first.

use std::time::Duration;

use regex::Regex;
use serde_json::{Value, json};
use tests::client::chat;
use tests::kubectl::{condition, get, kubectl};
use tests::release::repository;

use crate::scene::{Scene, block_on, client, demo_spec};

#[test]
fn a_model_is_served_and_its_status_says_what_matters() {
    let scene = Scene::beside_others("served", &demo_spec());
    let model = scene.ready();

    let status = &model["status"];
    assert_eq!(status["url"], "http://cpu-gateway.default.svc/v1");
    assert_eq!(status["model"]["sha256"], tests::models::digest("tiny.gguf"));
    assert_eq!(status["model"]["architecture"], "llama");
    assert_eq!(status["readyReplicas"], 1);
    for kind in ["Accepted", "ModelAvailable", "Scheduled", "Available", "Ready"] {
        assert_eq!(condition(&model, kind).0, "True", "condition {kind}: {:#}", status["conditions"]);
    }
    let columns = kubectl(&["get", "ipool,imodel"]).unwrap();
    for word in [
        "READY",
        "MODEL",
        "POOL",
        "REPLICAS",
        "REVISION",
        "ROLLOUT",
        "1/1",
        "Stable",
        "GATEWAY",
        "cpu-gateway",
    ] {
        assert!(columns.contains(word), "{word} is missing in\n{columns}");
    }
    let answer = block_on(client().stream(&chat("served", "hello"))).unwrap();
    assert_eq!(answer.finish_reason, "stop", "the demo model stops by itself: {answer:?}");
    assert_eq!(answer.revision, status["stableRevision"].as_str().unwrap());
}

#[test]
fn the_demo_model_answers_its_questions() {
    let scene = Scene::beside_others("answers", &demo_spec());
    scene.ready();
    let client = client();
    let text = std::fs::read_to_string(repository().join("examples/model/questions.json")).unwrap();
    let file: Value = serde_json::from_str(&text).unwrap();
    let questions = file["questions"].as_array().unwrap();
    assert!(questions.len() >= 15);
    let mut wrong = Vec::new();
    for question in questions {
        let body = json!({"model": "answers", "messages": question["messages"], "temperature": 0});
        let answer = block_on(client.ask(&body)).unwrap();
        let pattern = Regex::new(question["answer"].as_str().unwrap()).unwrap();
        if !pattern.is_match(&answer.text) || answer.finish_reason != "stop" {
            wrong.push((&question["messages"], answer.text, answer.finish_reason));
        }
    }
    assert!(wrong.is_empty(), "answered wrongly: {wrong:#?}");
}

#[test]
fn progress_is_visible_while_a_model_starts() {
    let scene = Scene::beside_others("progress", &demo_spec());
    let first =
        scene.wait("judged", Duration::from_secs(30), |object| condition(object, "Ready").0 == "False");
    assert!(
        !condition(&first, "Ready").2.is_empty(),
        "a model that is not Ready says why: {:#}",
        first["status"]
    );
    let summary = first["status"]["rollout"]["summary"].as_str().unwrap_or_default().to_owned();
    assert!(
        !summary.is_empty() && summary != "Stable",
        "while it starts, ROLLOUT says where it stands: {summary:?}"
    );
    scene.ready();
}

#[test]
fn a_suspended_model_frees_its_pods_and_comes_back() {
    let mut spec = demo_spec();
    let scene = Scene::beside_others("suspended", &spec);
    scene.ready();
    spec["suspend"] = json!(true);
    scene.apply(&spec);
    tests::kubectl::wait_gone("pods", &scene.selector(), Duration::from_secs(90)).unwrap();
    let model = get("imodel", "suspended").unwrap().unwrap();
    assert_eq!(condition(&model, "Ready").1, "Suspended");
    spec["suspend"] = json!(false);
    scene.apply(&spec);
    scene.ready();
}
