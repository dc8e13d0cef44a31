//! Load that comes in steps: pods are added, and go again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures::future::join_all;
use serde_json::json;
use tests::client::long_chat;
use tests::kubectl::{condition, kubectl};
use tokio::task::JoinHandle;

use crate::autoscale::{DOWN_LIMIT, decisions, explained, scaled};
use crate::scene::{READY_LIMIT, Scene, client};

/// Clients that ask again as soon as they are answered: more than one slot can serve in time.
const CLIENTS: usize = 8;

/// Clients that never pause until they are told to stop.
pub(crate) struct Crowd {
    is_over: Arc<AtomicBool>,
    clients: Vec<JoinHandle<(usize, Vec<String>)>>,
}

impl Crowd {
    pub(crate) fn start(model: &str) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let ask = |number| {
            let (is_over, model) = (is_over.clone(), model.to_owned());
            tokio::spawn(async move {
                let client = client();
                let (mut answered, mut failures) = (0, Vec::new());
                while !is_over.load(Ordering::Relaxed) {
                    let question = format!("tell a long story, number {number} {answered}");
                    match client.ask(&long_chat(&model, &question, 400)).await {
                        Ok(_) => answered += 1,
                        Err(failure) => failures.push(format!("{failure:?}")),
                    }
                }
                (answered, failures)
            })
        };
        Self { clients: (0..CLIENTS).map(ask).collect(), is_over }
    }

    /// Stops; how many answers there were, and what failed.
    pub(crate) async fn stop(self) -> (usize, Vec<String>) {
        self.is_over.store(true, Ordering::Relaxed);
        let ends = join_all(self.clients).await.into_iter().map(Result::unwrap);
        ends.fold((0, Vec::new()), |(sum, all), (answered, failures)| {
            (sum + answered, [all, failures].concat())
        })
    }
}

/// It comes behind other tests that take minutes and leave the operator alone: a young one keeps pods for longer.
#[test]
fn steps_of_load_add_pods_that_go_again_without_a_failed_request() {
    let spec = scaled(&json!({
        "minReplicas": 1, "maxReplicas": 3, "historySeconds": 300, "latePricePercent": 30,
        "behavior": {"scaleDown": {"stabilizationWindowSeconds": 15}},
    }));
    let scene = Scene::start("stepping", &spec);
    scene.ready();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let began = Instant::now();
    let crowd = runtime.block_on(async { Crowd::start("stepping") });
    let up = scene
        .wait("with more pods", READY_LIMIT, |object| object["status"]["readyReplicas"].as_i64() > Some(1));
    println!("{:?} after the step there are {} pods", began.elapsed(), up["status"]["readyReplicas"]);
    assert_eq!(condition(&up, "ScalingActive").0, "True");
    let why = explained("default/stepping");
    assert!(why.contains("bit for bit") && why.contains("| late pod-seconds |"), "{why}");
    std::thread::sleep(Duration::from_secs(20));
    let (answered, mut failures) = runtime.block_on(crowd.stop());

    // Somebody asks now and then while pods go.
    let traffic = scene.traffic();
    let ended = Instant::now();
    let down = scene.wait("with one pod again", DOWN_LIMIT, |object| object["status"]["replicas"] == 1);
    let served = traffic.stop();
    failures.extend(served.failures());
    let (told, changes) = decisions(&down);
    println!(
        "{answered} long answers; {:?} after the end there is one pod again\n{}",
        ended.elapsed(),
        told.join("\n")
    );
    println!("measured: {}", down["status"]["autoscaling"]["pod"]);
    assert!(failures.is_empty(), "{failures:?}");
    assert!(changes <= 2, "{changes} changes of direction");
    assert_eq!(down["status"]["autoscaling"]["pod"]["isMeasured"], true);
    let described = kubectl(&["describe", "imodel", "stepping"]).unwrap();
    assert!(described.contains("ScaledUp") && described.contains("ScaledDown"), "{described}");
}
