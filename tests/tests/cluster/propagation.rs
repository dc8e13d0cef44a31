//! How soon twenty gateways act on a change.

use std::time::{Duration, Instant};

use futures::future::join_all;
use serde_json::{Value, json};
use tests::client::{Client, End, chat, http};
use tests::kubectl::{NAMESPACE, apply};
use tests::pods::{ADMIN_PORT, Pod, SERVING_PORT, pods};
use tests::release::{POOL, api_proxy};

use crate::scene::{Scene, block_on, client, wait_for_pods};
use crate::together::canary::side_by_side;

const GATEWAYS: usize = 20;
const CHANGES: usize = 10;
const LIMIT: Duration = Duration::from_secs(1);
/// How often each gateway's view is read: a twentieth of what is measured.
const SAMPLED_EVERY: Duration = Duration::from_millis(50);

#[test]
fn weights_and_kill_switches_reach_twenty_gateways_within_a_second() {
    let (scene, _, canary) = side_by_side(Scene::start, "told", 0);
    scale_gateways(GATEWAYS);
    let selector = format!("inferno.ai/pool={POOL},app.kubernetes.io/component=gateway");
    wait_for_pods(&selector, GATEWAYS, &[]);
    let gateways = pods(&selector).unwrap();
    assert_eq!(gateways.len(), GATEWAYS);

    let mut took = Vec::new();
    for number in 1..=CHANGES {
        let percent = if number.is_multiple_of(2) { 10 } else { 50 };
        let change = json!({"rollout": {"traffic": {"canaryPercent": percent}}});
        let weight = percent * 100;
        took.extend(block_on(reach(&scene, &gateways, &change, |model| {
            let others = model["traffic"]["table"]["others"].as_array().cloned().unwrap_or_default();
            others.iter().any(|arm| arm["revision"] == canary.as_str() && arm["weightBasisPoints"] == weight)
        })));
    }
    check("weights", took);

    let mut took = Vec::new();
    for switch in ["Rollout", "Model"] {
        let seen = |model: &Value| model["killSwitch"] == switch;
        took.extend(block_on(reach(&scene, &gateways, &json!({"killSwitch": switch}), seen)));
    }
    check("kill switches", took);
    block_on(join_all(gateways.iter().map(|pod| expect_refusal(pod, &scene.model))));

    let seen = |model: &Value| model["killSwitch"] == "Off";
    block_on(reach(&scene, &gateways, &json!({"killSwitch": "None"}), seen));
    block_on(client().ask(&chat(&scene.model, "hello"))).unwrap();
    scale_gateways(2);
}

fn scale_gateways(replicas: usize) {
    let pool = json!({
        "apiVersion": "inferno.ai/v1alpha1", "kind": "InferencePool",
        "metadata": {"name": POOL}, "spec": {"gateway": {"replicas": replicas}},
    });
    apply(&pool.to_string()).unwrap();
}

/// Changes the model's spec and returns how long each gateway took to have it in its view, counted from the sending of
/// the change.
async fn reach(
    scene: &Scene,
    gateways: &[Pod],
    spec: &Value,
    is_seen: impl Fn(&Value) -> bool + Copy,
) -> Vec<Duration> {
    let url = format!(
        "{}/apis/inferno.ai/v1alpha1/namespaces/{NAMESPACE}/inferencemodels/{}",
        api_proxy().unwrap(),
        scene.model
    );
    let api = http().unwrap();
    let change = api
        .patch(url)
        .header("content-type", "application/merge-patch+json")
        .body(json!({"spec": spec}).to_string());
    let clients: Vec<Client> = gateways
        .iter()
        .map(|pod| Client::new(format!("{}/v1", pod.url(ADMIN_PORT).unwrap())).unwrap())
        .collect();
    let began = Instant::now();
    let (response, took) = tokio::join!(
        change.send(),
        join_all(clients.iter().map(|client| seen(client, &scene.model, began, is_seen)))
    );
    let response = response.unwrap();
    assert!(response.status().is_success(), "{}", response.text().await.unwrap());
    took
}

async fn seen(client: &Client, model: &str, began: Instant, is_seen: impl Fn(&Value) -> bool) -> Duration {
    let mut sampled = tokio::time::interval(SAMPLED_EVERY);
    loop {
        sampled.tick().await;
        let view: Value = serde_json::from_str(&client.get("/view").await.unwrap()).unwrap();
        let ours = view["models"].as_array().unwrap().iter().find(|other| other["name"] == model);
        if ours.is_some_and(&is_seen) {
            return began.elapsed();
        }
        assert!(began.elapsed() < LIMIT * 20, "never seen: {view:#}");
    }
}

fn check(what: &str, mut took: Vec<Duration>) {
    took.sort_unstable();
    let at = |percent: usize| took[(took.len() * percent).div_ceil(100) - 1];
    println!(
        "{what}: {} changes seen by {GATEWAYS} gateways: P50 {:?}, P99 {:?}, at most {:?}",
        took.len() / GATEWAYS,
        at(50),
        at(99),
        at(100)
    );
    assert!(at(99) <= LIMIT, "{what}: P99 {:?}", at(99));
}

async fn expect_refusal(gateway: &Pod, model: &str) {
    let client = Client::new(format!("{}/v1", gateway.url(SERVING_PORT).unwrap())).unwrap();
    let failure = client.ask(&chat(model, "hello")).await.unwrap_err();
    assert_eq!((failure.end, failure.code().as_str()), (End::Status(503), "model_disabled"), "{failure}");
}
