//! What a client must not notice: ten requests per second through the gateway, half of them streams, and none fails.

use std::time::Duration;

use serde_json::json;
use tests::client::{Client, chat, long_chat};
use tests::kubectl::{command, kubectl, wait_gone};
use tests::pods::{Pod, SERVING_PORT, kill, pods};
use tests::release::{POOL, SYSTEM_NAMESPACE};

use crate::priority::until_queued;
use crate::scene::{READY_LIMIT, Scene, Turn, block_on, client, demo_spec, wait_for_pods};

/// From the API server's return until all that is ready counts as ready again.
const RECOVERY_LIMIT: Duration = Duration::from_secs(150);
const RECOVERY_TIMEOUT: &str = "--timeout=150s";

/// Requests that prove that all is well again.
const AFTERWARDS: usize = 20;

#[test]
fn a_pod_killed_before_the_first_byte_fails_no_request() {
    let mut spec = demo_spec();
    spec["replicas"] = json!(2);
    spec["engine"] = json!({"parallelSlots": 1, "contextLength": 2048});
    let scene = Scene::start("early", &spec);
    scene.ready();
    let pods = scene.pods();
    // With its only slot busy, a pod has given no byte to any of the requests that follow.
    let busy: Vec<_> = pods.iter().map(occupy).collect();
    let traffic = scene.traffic();
    block_on(until_queued(&pod_client(&pods[0]), |status| status["queued"].as_u64() > Some(3)));
    kill(&pods[..1]).unwrap();

    traffic.after(AFTERWARDS).assert_all_answered("after the kill");
    traffic.stop().assert_all_answered("a pod killed before the first byte");
    for thread in busy {
        // The killed pod's own long requests failed, as they must: they were not sent through the gateway.
        thread.join().unwrap();
    }
}

/// Fills a pod's slot, and its queue with one more of the highest tier, past the gateway.
fn occupy(pod: &Pod) -> std::thread::JoinHandle<()> {
    let client = pod_client(pod);
    let asking = client.clone();
    let thread = std::thread::spawn(move || {
        let mut body = long_chat("early", "Tell me a story.", 1900);
        body["priority"] = json!("vip");
        block_on(async {
            let _ = tokio::join!(asking.stream(&body), asking.stream(&body));
        });
    });
    block_on(until_queued(&client, |status| status["running"] == 1 && status["queued"] == 1));
    thread
}

fn pod_client(pod: &Pod) -> Client {
    Client::new(format!("{}/v1", pod.url(SERVING_PORT).unwrap())).unwrap()
}

#[test]
fn a_rolling_restart_of_the_gateway_fails_no_request() {
    let scene = Scene::start("gated", &demo_spec());
    scene.ready();
    let selector = gateway_selector();
    let before = pods(&selector).unwrap();
    let traffic = scene.traffic();
    traffic.after(AFTERWARDS);
    kubectl(&["rollout", "restart", &format!("deployment/{POOL}-gateway")]).unwrap();
    wait_for_pods(&selector, before.len(), &before);
    for pod in &before {
        kubectl(&["wait", "--for", "delete", "pod", &pod.name, "--timeout", "90s"]).unwrap();
    }
    traffic.after(AFTERWARDS);
    traffic.stop().assert_all_answered("a rolling restart of the gateway");
}

#[test]
fn a_restart_of_the_operator_fails_no_request() {
    let scene = Scene::start("unguided", &demo_spec());
    scene.ready();
    let traffic = scene.traffic();
    traffic.after(AFTERWARDS);
    restart_operator();
    traffic.after(AFTERWARDS);
    traffic.stop().assert_all_answered("a restart of the operator");
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

fn restart_operator() {
    for what in ["restart", "status"] {
        let arguments = ["--namespace", SYSTEM_NAMESPACE, "rollout", what, "deployment/inferno-operator"];
        command("kubectl", &arguments).unwrap();
    }
}

#[test]
fn a_minute_without_the_api_server_fails_no_request() {
    if std::env::var_os("INFERNO_TESTBED_APISERVER").is_none() {
        println!("left out: the API server of a cluster that is not ours is not stopped");
        return;
    }
    let scene = Scene::start("headless", &demo_spec());
    scene.ready();
    let traffic = scene.traffic();
    traffic.after(AFTERWARDS);
    {
        let _outage = Outage::begin();
        // Ten per second.
        traffic.after(600).assert_all_answered("a minute without the API server");
    }
    // The node has missed its heartbeats, so it counts as lost, with all pods on it, until the kubelet's next word: a
    // minute or more. Requests are served all the while.
    scene.wait("served again", RECOVERY_LIMIT, |model| model["status"]["readyReplicas"] == 1);
    kubectl(&["wait", "--for=condition=Ready", "node", "--all", RECOVERY_TIMEOUT]).unwrap();
    traffic.after(AFTERWARDS);
    traffic.stop().assert_all_answered("an outage of the API server and its return");
    // In its first second an API server forbids everything; other tests want an operator that was forbidden nothing.
    restart_operator();
    kubectl(&["scale", "imodel", "headless", "--replicas", "2"]).unwrap();
    scene.wait("at 2 replicas", READY_LIMIT, |object| object["status"]["readyReplicas"] == 2);
}

/// There is no API server while this lives; also a panic brings it back.
struct Outage;

impl Outage {
    fn begin() -> Self {
        control("stop");
        Self
    }
}

impl Drop for Outage {
    fn drop(&mut self) {
        control("start");
    }
}

fn control(what: &str) {
    let script = std::env::var("INFERNO_TESTBED_APISERVER").unwrap();
    command(&script, &[what]).unwrap();
}

fn gateway_selector() -> String {
    format!("inferno.ai/pool={POOL},app.kubernetes.io/component=gateway")
}

#[test]
fn a_deleted_pool_takes_its_gateway_along() {
    let scene = Scene::start("orphaned", &demo_spec());
    scene.ready();
    drop(scene);
    let _turn = Turn::alone();
    kubectl(&["delete", "ipool", POOL]).unwrap();
    wait_gone("deployments,services,pods,serviceaccounts", &gateway_selector(), READY_LIMIT).unwrap();
}
