//! Fewer pods: the one that goes gets nothing new, finishes what it has, and comes back first.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use tests::client::{Client, long_chat};
use tests::kubectl::{kubectl, watch_until};
use tests::pods::SERVING_PORT;

use crate::priority::until_queued;
use crate::scene::{READY_LIMIT, Scene, block_on, demo_spec};

/// Longer than a pod waits before it goes, whatever it does.
const TOKENS: usize = 1_900;

fn draining(model: &Value) -> Option<&str> {
    model["status"]["draining"][0]["pod"].as_str()
}

fn names(scene: &Scene) -> BTreeSet<String> {
    scene.pods().into_iter().map(|pod| pod.name).collect()
}

fn scale(scene: &Scene, replicas: u32) {
    kubectl(&["scale", "imodel", &scene.model, &format!("--replicas={replicas}")]).unwrap();
}

#[test]
fn a_pod_that_is_not_wanted_any_more_drains_comes_back_first_and_fails_no_request() {
    let mut spec = demo_spec();
    spec["replicas"] = json!(2);
    spec["engine"] = json!({"parallelSlots": 1, "contextLength": 2048});
    let scene = Scene::start("shrinking", &spec);
    scene.ready();
    let both = names(&scene);
    let streams: Vec<_> = scene.pods().iter().map(|pod| occupy(&scene.model, pod)).collect();
    scale(&scene, 1);
    let shrunk = scene.wait("draining", READY_LIMIT, |model| draining(model).is_some());
    println!("draining: {}", shrunk["status"]["draining"]);
    scale(&scene, 2);
    scene.wait("whole again", READY_LIMIT, |model| draining(model).is_none());
    assert_eq!(names(&scene), both, "the pod that was to go is back");
    for stream in streams {
        stream.join().unwrap();
    }

    let traffic = scene.traffic();
    traffic.after(20);
    scale(&scene, 1);
    let shrunk = scene.wait("draining", READY_LIMIT, |model| draining(model).is_some());
    let goes = draining(&shrunk).unwrap();
    watch_until(&["pods", goes], READY_LIMIT, "its end", |pod| {
        !pod["metadata"]["deletionTimestamp"].is_null()
    })
    .unwrap();
    scene.wait("one pod", READY_LIMIT, |model| draining(model).is_none());
    let left: BTreeSet<String> = both.iter().filter(|pod| *pod != goes).cloned().collect();
    assert_eq!(names(&scene), left);
    traffic.after(20).assert_all_answered("after the pod's end");
    traffic.stop().assert_all_answered("a model with one pod less");
}

/// A long answer from a pod, asked past the gateway; it must come to its end.
fn occupy(model: &str, pod: &tests::pods::Pod) -> std::thread::JoinHandle<()> {
    // Each has a client of its own: a connection ends with the runtime that opened it, whoever uses it then.
    let client = || Client::new(format!("{}/v1", pod.url(SERVING_PORT).unwrap())).unwrap();
    let (asking, body) = (client(), long_chat(model, "Tell me a story.", TOKENS));
    let thread = std::thread::spawn(move || {
        let answer = block_on(asking.stream(&body)).unwrap();
        assert_eq!(answer.finish_reason, "length");
    });
    block_on(until_queued(&client(), |status| status["running"] == 1));
    thread
}
