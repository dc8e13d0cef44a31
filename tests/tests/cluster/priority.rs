//! The priority queue, seen from outside.

use serde_json::{Value, json};
use tests::client::{Answer, Client, long_chat};
use tests::pods::SERVING_PORT;

use crate::scene::{Scene, block_on, client, demo_spec};

const LOW: usize = 100;
const SLOTS: usize = 2;

#[test]
fn a_vip_behind_a_hundred_low_requests_goes_before_ninety_five_of_them() {
    let mut spec = demo_spec();
    spec["engine"] = json!({"parallelSlots": SLOTS, "contextLength": 2048});
    let scene = Scene::start("queued", &spec);
    scene.ready();
    let pod = Client::new(format!("{}/v1", scene.pods()[0].url(SERVING_PORT).unwrap())).unwrap();
    let (vip, low) = block_on(vip_behind_low(client(), pod));

    assert_eq!(low.len(), LOW, "every Low request finishes");
    let overtaken = low.iter().filter(|answer| answer.first_token > vip.first_token).count();
    assert!(overtaken >= 95, "the VIP overtook {overtaken} of {LOW}");
}

/// Fills the slots with long generations, queues the Low ones behind them, and only then sends the VIP; the pod says when.
async fn vip_behind_low(client: Client, pod: Client) -> (Answer, Vec<Answer>) {
    let mut running = tokio::task::JoinSet::new();
    for _ in 0..SLOTS {
        // Twice the queue's filling time at least: a few hundred tokens per second, 1,900 tokens.
        let body = request("low", 1900);
        let client = client.clone();
        running.spawn(async move { client.stream(&body).await.map(|answer| (false, answer)) });
    }
    until_queued(&pod, |status| status["running"] == SLOTS).await;
    for _ in 0..LOW {
        let client = client.clone();
        running.spawn(async move { client.stream(&request("low", 16)).await.map(|answer| (true, answer)) });
    }
    until_queued(&pod, |status| status["queued"] == LOW).await;
    let vip = client.stream(&request("vip", 16)).await.unwrap();
    let answers: Vec<(bool, Answer)> = running.join_all().await.into_iter().map(Result::unwrap).collect();
    (vip, answers.into_iter().filter_map(|(is_counted, answer)| is_counted.then_some(answer)).collect())
}

/// Asks the queue's status until it is as wanted; the long generations' end bounds the wait.
pub(crate) async fn until_queued(pod: &Client, is_there: impl Fn(&Value) -> bool) {
    let limit = std::time::Instant::now() + std::time::Duration::from_secs(30);
    let mut last = Value::Null;
    while std::time::Instant::now() < limit {
        last = serde_json::from_str(&pod.get("/metrics/queue/status").await.unwrap()).unwrap();
        if is_there(&last) {
            return;
        }
    }
    panic!("the queue was not filled in time: {last:#}");
}

fn request(priority: &str, max_tokens: usize) -> Value {
    let mut body = long_chat("queued", "Tell me a story.", max_tokens);
    body["priority"] = json!(priority);
    body
}
