//! Pods that die in the middle of a stream: the client is told, every time.

use std::collections::BTreeMap;

use futures::future::join_all;
use serde_json::json;
use tests::client::{Client, End, Failure, Heard, long_chat};
use tests::pods::{SERVING_PORT, kill};
use tokio::sync::mpsc;

use crate::scene::{Scene, block_on, client, demo_spec};

const PODS: usize = 5;
/// Two streams for each pod, so that hardly one is left without.
const STREAMS: usize = 10;
const KILLS: usize = 50;
/// If a round kills only half of the pods in mid-stream, the test still ends.
const ROUNDS_MAX: usize = 20;

#[test]
fn fifty_pods_killed_in_mid_stream_give_an_error_frame_each_time() {
    let mut spec = demo_spec();
    spec["replicas"] = json!(PODS);
    spec["engine"] = json!({"parallelSlots": 4, "contextLength": 2048});
    let scene = Scene::start("killed", &spec);
    scene.ready();
    let mut kills = 0;
    let mut ends: BTreeMap<String, usize> = BTreeMap::new();
    for round in 0..ROUNDS_MAX {
        if kills >= KILLS {
            break;
        }
        let pods = scene.pods();
        let clients: Vec<Client> = pods
            .iter()
            .map(|pod| Client::new(format!("{}/v1", pod.url(SERVING_PORT).unwrap())).unwrap())
            .collect();
        let (busy, failures) = block_on(async {
            let (sender, mut texts) = mpsc::unbounded_channel();
            let streams: Vec<_> = (0..STREAMS)
                .map(|number| tokio::spawn(watch(client(), round, number, sender.clone())))
                .collect();
            for _ in 0..STREAMS {
                texts.recv().await.unwrap();
            }
            let busy = busy(&clients).await;
            kill(&pods).unwrap();
            let ended = join_all(streams).await;
            (busy, ended.into_iter().map(|ended| ended.unwrap()).collect::<Vec<_>>())
        });
        kills += busy;
        // Who has a whole answer had it before the pod was killed.
        for failure in failures.into_iter().flatten() {
            *ends.entry(format!("{:?} {}", failure.end, failure.code())).or_default() += 1;
        }
        scene.new_pods_ready(PODS, &pods);
    }
    println!("{kills} pods killed in mid-stream; their streams ended so: {ends:?}");
    let expected = format!("{:?} pod_lost", End::ErrorFrame { is_broken_off: true });
    assert!(kills >= KILLS, "{kills} kills in {ROUNDS_MAX} rounds");
    assert_eq!(ends.keys().collect::<Vec<_>>(), [&expected], "every one ended with an error frame: {ends:?}");
    assert!(ends[&expected] >= KILLS, "at least one for each kill: {ends:?}");
}

/// A stream that is far from its end when its pod dies; `None` if it came to its end nevertheless, with a reason for it.
async fn watch(
    client: Client,
    round: usize,
    number: usize,
    texts: mpsc::UnboundedSender<()>,
) -> Option<Failure> {
    let body = long_chat("killed", &format!("Tell me story {number} of day {round}."), 1900);
    let told = |heard: Heard<'_>| {
        if heard == Heard::Text {
            let _ = texts.send(());
        }
    };
    client.stream_and_tell(&body, told).await.err()
}

/// How many pods are working on a request.
async fn busy(pods: &[Client]) -> usize {
    let texts = join_all(pods.iter().map(|pod| pod.get("/metrics/queue/status"))).await;
    let is_busy = |text: String| {
        let status: serde_json::Value = serde_json::from_str(&text).unwrap();
        status["running"].as_u64() > Some(0)
    };
    texts.into_iter().filter(|text| is_busy(text.as_ref().unwrap().clone())).count()
}
