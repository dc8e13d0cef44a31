//! Changes of a served model: replicas, spec, deletion. None of them may fail a request.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tests::client::{Client, chat};
use tests::kubectl::{get, is, kubectl, list, wait_gone};

use crate::scene::{READY_LIMIT, Scene, block_on, demo_spec};

#[test]
fn kubectl_scale_changes_the_number_of_pods() {
    let scene = Scene::start("scaled", &demo_spec());
    scene.ready();
    kubectl(&["scale", "imodel", "scaled", "--replicas", "2"]).unwrap();
    let model = scene.wait("at 2 replicas", READY_LIMIT, |object| object["status"]["readyReplicas"] == 2);
    assert_eq!(model["status"]["selector"], "inferno.ai/model=scaled");
    kubectl(&["scale", "imodel", "scaled", "--replicas", "1"]).unwrap();
    scene.wait("at 1 replica", READY_LIMIT, |object| object["status"]["replicas"] == 1);
}

#[test]
fn deleting_a_model_removes_everything_it_owned() {
    let scene = Scene::start("deleted", &demo_spec());
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
    let scene = Scene::start("edited", &spec);
    let before = scene.ready();
    let traffic = Traffic::start(scene.client(), chat("edited", "hello"));

    spec["engine"] = json!({"contextLength": 1024});
    scene.apply(&spec);
    let first = before["status"]["stableRevision"].clone();
    let after = scene.wait("on the new revision", READY_LIMIT, |object| {
        is(object, "Ready", "True") && object["status"]["stableRevision"] != first
    });
    wait_gone("pods", &format!("inferno.ai/revision={}", first.as_str().unwrap()), READY_LIMIT).unwrap();

    let served = traffic.stop();
    assert_eq!(served.failures, Vec::<String>::new(), "of {} requests", served.requests);
    assert!(
        served.requests >= 10,
        "the roll took {} requests at 2 per second: too few to mean much",
        served.requests
    );
    assert_eq!(after["status"]["model"]["contextLength"], 1024);
}

#[test]
fn a_spec_taken_back_in_mid_roll_keeps_the_serving_pods() {
    let mut spec = demo_spec();
    let scene = Scene::start("reverted", &spec);
    let before = scene.ready();
    let pods = pod_names(&scene);
    let traffic = Traffic::start(scene.client(), chat("reverted", "hello"));

    spec["engine"] = json!({"contextLength": 1024});
    scene.apply(&spec);
    scene.wait("rolling", READY_LIMIT, |object| {
        object["status"]["targetRevision"] != before["status"]["stableRevision"]
            && is(object, "Accepted", "True")
    });
    scene.apply(&demo_spec());
    let after = scene.ready();

    assert_eq!(after["status"]["stableRevision"], before["status"]["stableRevision"]);
    assert!(pods.iter().all(|pod| get("pod", pod).unwrap().is_some()), "{pods:?} still serve");
    let served = traffic.stop();
    assert_eq!(served.failures, Vec::<String>::new(), "of {} requests", served.requests);
}

fn pod_names(scene: &Scene) -> Vec<String> {
    let pods = list("pods", &scene.selector()).unwrap();
    pods.iter().filter_map(|pod| pod["metadata"]["name"].as_str().map(str::to_owned)).collect()
}

/// Two requests per second, every other one a stream, until stopped.
struct Traffic {
    is_over: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<Served>,
}

#[derive(Default)]
struct Served {
    requests: usize,
    failures: Vec<String>,
}

impl Traffic {
    fn start(client: Client, body: Value) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let flag = is_over.clone();
        let thread = std::thread::spawn(move || block_on(drive(client, body, &flag)));
        Self { is_over, thread }
    }

    fn stop(self) -> Served {
        self.is_over.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

async fn drive(client: Client, body: Value, is_over: &AtomicBool) -> Served {
    let mut beat = tokio::time::interval(Duration::from_millis(500));
    let mut running = tokio::task::JoinSet::new();
    let sent = AtomicUsize::new(0);
    while !is_over.load(Ordering::Relaxed) {
        beat.tick().await;
        let (client, body) = (client.clone(), body.clone());
        let number = sent.fetch_add(1, Ordering::Relaxed);
        running.spawn(async move {
            let result =
                if number.is_multiple_of(2) { client.stream(&body).await } else { client.ask(&body).await };
            result.map_err(|error| format!("request {number}: {error:#}"))
        });
    }
    let results = running.join_all().await;
    Served { requests: results.len(), failures: results.into_iter().filter_map(Result::err).collect() }
}
