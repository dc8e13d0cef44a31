//! A model at zero: requests wait at the gateway, and the first pod serves them all.

use std::time::{Duration, Instant};

use futures::future::join_all;
use serde_json::json;
use tests::client::{Answer, Client, Failure, Heard, chat};
use tests::kubectl::{condition, kubectl, wait_gone, watch_until};
use tests::pods::{ADMIN_PORT, pods};
use tests::release::POOL;
use tokio::sync::mpsc;

use crate::scene::{READY_LIMIT, Scene, block_on, client, demo_spec};

/// Half of them are streams.
const HELD: usize = 20;

/// From a pod's readiness to the first byte of an answer.
const FIRST_BYTE_LIMIT: Duration = Duration::from_millis(100);

#[test]
fn requests_held_at_zero_are_all_served_by_the_first_pod() {
    let scene = Scene::start("sleeping", &demo_spec());
    scene.ready();
    kubectl(&["scale", "imodel", "sleeping", "--replicas", "0"]).unwrap();
    wait_gone("pods", &scene.selector(), READY_LIMIT).unwrap();

    let ready = Ready::watch(&scene.selector());
    let answers = block_on(async {
        let (sender, mut comments) = mpsc::unbounded_channel();
        let requests: Vec<_> =
            (0..HELD).map(|number| tokio::spawn(ask(client(), number, sender.clone()))).collect();
        for _ in 0..HELD / 2 {
            comments.recv().await.unwrap();
        }
        until_held(HELD).await;
        tokio::task::spawn_blocking(|| kubectl(&["scale", "imodel", "sleeping", "--replicas", "1"]).unwrap());
        join_all(requests).await
    });
    let ready = ready.time();

    let answers: Vec<Answer> = answers.into_iter().map(|answer| answer.unwrap().unwrap()).collect();
    assert_eq!(answers.len(), HELD);
    let streams: Vec<&Answer> = answers.iter().step_by(2).collect();
    for answer in &streams {
        let is_told = answer.comments.iter().any(|comment| comment.starts_with("starting a replica"));
        assert!(is_told, "a stream that waits is told why: {:?}", answer.comments);
    }
    println!("told while waiting: {:?}", streams[0].comments);
    let first = answers.iter().map(|answer| answer.first_token).min().unwrap();
    let last = answers.iter().map(|answer| answer.first_token).max().unwrap();
    let after = |at: Instant| at.saturating_duration_since(ready);
    println!("first byte {:?} after the pod was ready, the last request's {:?}", after(first), after(last));
    assert!(after(first) < FIRST_BYTE_LIMIT, "first byte {:?} after the pod was ready", after(first));

    // And back: the model is at zero again, and still in the list.
    kubectl(&["scale", "imodel", "sleeping", "--replicas", "0"]).unwrap();
    wait_gone("pods", &scene.selector(), READY_LIMIT).unwrap();
    let models = block_on(client().get("/v1/models")).unwrap();
    assert!(models.contains("\"sleeping\"") && models.contains("\"zero\""), "{models}");
}

/// Even numbers are streams; `comments` hears of each one's first.
async fn ask(client: Client, number: usize, comments: mpsc::UnboundedSender<()>) -> Result<Answer, Failure> {
    let mut body = chat("sleeping", &format!("hello number {number}"));
    body["max_tokens"] = json!(16);
    if !number.is_multiple_of(2) {
        return client.ask(&body).await;
    }
    let mut is_told = false;
    let tell = |heard: Heard<'_>| {
        if matches!(heard, Heard::Comment(_)) && !is_told {
            is_told = true;
            let _ = comments.send(());
        }
    };
    client.stream_and_tell(&body, tell).await
}

/// Reads the gateways' figures until all of them together hold so many requests.
async fn until_held(count: usize) {
    let gateways = pods(&format!("inferno.ai/pool={POOL},app.kubernetes.io/component=gateway")).unwrap();
    let clients: Vec<Client> = gateways
        .iter()
        .map(|pod| Client::new(format!("{}/v1", pod.url(ADMIN_PORT).unwrap())).unwrap())
        .collect();
    let limit = Instant::now() + Duration::from_secs(10);
    let mut held = 0;
    while Instant::now() < limit {
        held = 0;
        for client in &clients {
            let metrics = client.get("/metrics").await.unwrap();
            held += metrics.lines().filter_map(held_count).sum::<usize>();
        }
        if held == count {
            return;
        }
    }
    panic!("{held} requests are held instead of {count}");
}

/// The value of a line `inferno_gateway_held{…model="sleeping"…} N`.
fn held_count(line: &str) -> Option<usize> {
    let rest = line.strip_prefix("inferno_gateway_held{")?;
    let (labels, value) = rest.rsplit_once("} ")?;
    labels.contains("model=\"sleeping\"").then(|| value.parse().ok())?
}

/// Notes when the first pod is Ready.
struct Ready(std::thread::JoinHandle<Instant>);

impl Ready {
    fn watch(selector: &str) -> Self {
        let selector = selector.to_owned();
        Self(std::thread::spawn(move || {
            watch_until(&["pods", "--selector", &selector], READY_LIMIT, "ready", |pod| {
                condition(pod, "Ready").0 == "True"
            })
            .unwrap();
            Instant::now()
        }))
    }

    fn time(self) -> Instant {
        self.0.join().unwrap()
    }
}
