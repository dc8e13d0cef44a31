//! What the nodes have room for, as an operator knows it that looks after all namespaces.

use std::time::Duration;

use serde_json::{Value, json};
use tests::kubectl::{NAMESPACE, apply, kubectl, wait_until};
use tests::release::{POOL, install_for};
use tests::traffic::Traffic;

use crate::scene::{READY_LIMIT, Scene, client, demo_spec};

/// A device of which the node says that it has two; nobody asks it what it is.
const DEVICE: &str = "example.com/accelerator";
const DEVICES: &str = "2";

/// Nothing is advised before an operator has watched for two minutes.
const KNOWN_LIMIT: Duration = Duration::from_secs(240);

/// An operator for all namespaces, and a node with devices; until it is dropped.
struct Devices {
    node: String,
}

impl Devices {
    fn offer() -> Self {
        install_for("*").unwrap();
        let name = kubectl(&["get", "nodes", "--output", "jsonpath={.items[0].metadata.name}"]).unwrap();
        let devices = Self { node: name };
        devices.patch("add").unwrap();
        devices
    }

    /// As devices are offered by hand: in the node's own status.
    fn patch(&self, operation: &str) -> anyhow::Result<String> {
        let change = |field: &str| {
            let path = format!("/status/{field}/{}", DEVICE.replace('/', "~1"));
            json!({"op": operation, "path": path, "value": DEVICES})
        };
        let patch = json!([change("capacity"), change("allocatable")]).to_string();
        kubectl(&[
            "patch",
            "node",
            &self.node,
            "--subresource",
            "status",
            "--type",
            "json",
            "--patch",
            &patch,
        ])
    }
}

impl Drop for Devices {
    fn drop(&mut self) {
        for error in [self.patch("remove").err(), install_for(NAMESPACE).err()].into_iter().flatten() {
            eprintln!("the cluster is not as it was: {error:#}");
        }
    }
}

/// A pool whose pods hold a device each.
fn pool_of_devices() {
    let pool = json!({
        "apiVersion": "inferno.ai/v1alpha1", "kind": "InferencePool", "metadata": {"name": POOL},
        "spec": {"gateway": {"replicas": 2}, "accelerator": {"resourceName": DEVICE, "count": 1}},
    });
    apply(&pool.to_string()).unwrap();
}

/// Two pods that compute on the CPU all the same, and an autoscaler that only looks.
fn spec(context_length: u32) -> Value {
    let mut spec = demo_spec();
    spec["replicas"] = json!(2);
    spec["engine"] = json!({"gpuLayers": 0, "contextLength": context_length});
    spec["autoscaling"] = json!({"mode": "Observe", "maxReplicas": 2});
    spec["rollout"] = json!({"strategy": "Canary", "warmupSeconds": 5, "steps": [{"weightPercent": 10}]});
    spec
}

/// Pods of the model for which the scheduler has found no node, now or earlier.
fn unplaced(model: &str) -> Vec<String> {
    let events =
        kubectl(&["get", "events", "--field-selector", "reason=FailedScheduling", "--output", "json"]);
    let events: Value = serde_json::from_str(&events.unwrap()).unwrap();
    let names = events["items"].as_array().unwrap().iter().map(|event| &event["involvedObject"]["name"]);
    let names = names.map(|name| name.as_str().unwrap().to_owned());
    names.filter(|name| name.starts_with(&format!("{model}-"))).collect()
}

#[test]
fn where_all_devices_are_taken_a_stable_pod_makes_room_at_once_and_no_pod_waits_for_a_node() {
    let mut suspended = spec(2048);
    suspended["suspend"] = json!(true);
    let scene = Scene::start("roomy", &suspended);
    let _devices = Devices::offer();
    pool_of_devices();
    scene.apply(&spec(2048));
    scene.ready();
    let traffic = Traffic::start(client(), &scene.model, 5);
    wait_until("ipool", POOL, READY_LIMIT, "full", |pool| pool["status"]["accelerators"] == "2/2").unwrap();
    println!("{}", kubectl(&["get", "ipool", POOL]).unwrap());
    scene.wait("not busy", KNOWN_LIMIT, |model| model["status"]["autoscaling"]["desiredReplicas"] == 1);

    scene.apply(&spec(1024));
    scene.wait("serving a canary", READY_LIMIT, |model| {
        let status = &model["status"];
        assert!(status["replicas"].as_i64() <= Some(2), "{status:#}");
        let strategy = status["rollout"]["capacityStrategy"].as_str();
        assert!(matches!(strategy, None | Some("InPlace")), "{status:#}");
        status["rollout"]["weightBasisPoints"].as_i64() > Some(0)
    });
    traffic.after(20).assert_all_answered("beside the canary");
    traffic.stop().assert_all_answered("a canary in the place of a stable pod");
    assert_eq!(unplaced(&scene.model), Vec::<String>::new());
}
