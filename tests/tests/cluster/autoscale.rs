//! Models whose number of pods changes, and which need the machine for it: driven by a real autoscaler, and deaf for a while.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tests::kubectl::{apply, command, condition, get, kubectl, patch};
use tests::release::SYSTEM_NAMESPACE;
use tests::traffic::Traffic;

use crate::demand::Crowd;
use crate::scene::{READY_LIMIT, Scene, client, demo_spec};

/// An operator takes no pod away in its first two minutes, and keeps in its first ten what the last half hour needed;
/// with five minutes of history that is at most five, and the tests before may just have restarted it.
pub(crate) const DOWN_LIMIT: Duration = Duration::from_secs(480);

pub(crate) fn scaled(autoscaling: &Value) -> Value {
    let mut spec = demo_spec();
    spec["autoscaling"] = autoscaling.clone();
    // One request at a time and one thread, so that a few clients are a load on this machine.
    spec["engine"] = json!({"parallelSlots": 1, "threads": 1});
    spec
}

/// The sentences of all decisions that changed the number, the oldest first, and how many changed its direction.
pub(crate) fn decisions(object: &Value) -> (Vec<String>, usize) {
    let mut decisions = object["status"]["autoscaling"]["decisions"].as_array().cloned().unwrap_or_default();
    decisions.reverse();
    let is_up = |decision: &Value| decision["desired"].as_i64() > decision["current"].as_i64();
    let changes = decisions.windows(2).filter(|pair| is_up(&pair[0]) != is_up(&pair[1])).count();
    let told = decisions.iter().map(|decision| {
        format!(
            "{} {}→{}: {}",
            decision["time"], decision["current"], decision["desired"], decision["sentence"]
        )
    });
    (told.collect(), changes)
}

/// What the operator says of its last judgements, made again from what it keeps.
pub(crate) fn explained(model: &str) -> String {
    let asked = ["exec", "deployment/inferno-operator", "--", "inferno-operator", "explain", model];
    kubectl(&[&["--namespace", SYSTEM_NAMESPACE], &asked[..]].concat()).unwrap()
}

/// A `HorizontalPodAutoscaler` looks every quarter of a minute at figures that are up to as old, and takes away once what it
/// saw for so long.
const DRIVEN_LIMIT: Duration = Duration::from_secs(240);

#[test]
fn a_horizontal_pod_autoscaler_drives_it_up_and_down() {
    if let Some(script) = std::env::var_os("INFERNO_TESTBED_METRICS") {
        command(&script.to_string_lossy(), &[]).unwrap();
    } else if kubectl(&["get", "--raw", "/apis/metrics.k8s.io/v1beta1"]).is_err() {
        println!(
            "left out: this cluster has no metrics API, and nothing is installed in a cluster that is not ours"
        );
        return;
    }
    let spec = scaled(&json!({"mode": "External", "minReplicas": 1, "maxReplicas": 3}));
    let scene = Scene::start("steered", &spec);
    scene.ready();
    let autoscaler = Autoscaler::of("steered");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let crowd = runtime.block_on(async { Crowd::start("steered") });
    let up = scene
        .wait("with two pods", DRIVEN_LIMIT, |object| object["status"]["readyReplicas"].as_i64() > Some(1));
    println!("busy: {}", autoscaler.told());
    let (answered, failures) = runtime.block_on(crowd.stop());
    assert_eq!(condition(&up, "ScalingActive").1, "External");
    assert!(up["spec"]["replicas"].as_i64() > Some(1), "the autoscaler has written /scale");

    let traffic = Traffic::start(client(), "steered", 1);
    let down = scene.wait("with one pod again", DRIVEN_LIMIT, |object| object["status"]["replicas"] == 1);
    println!("idle: {}\n{answered} long answers", autoscaler.told());
    traffic.stop().assert_all_answered("going down");
    assert!(failures.is_empty(), "{failures:?}");
    assert_eq!(down["spec"]["replicas"], 1);
}

/// A `HorizontalPodAutoscaler`, until it is dropped: as many pods as use a fifth of a core each. A pod that works without a
/// pause uses up to one, an idle one next to nothing.
struct Autoscaler {
    model: String,
}

impl Autoscaler {
    fn of(model: &str) -> Self {
        let object = json!({
            "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": model},
            "spec": {
                "scaleTargetRef": {"apiVersion": "inferno.ai/v1alpha1", "kind": "InferenceModel", "name": model},
                "minReplicas": 1, "maxReplicas": 3,
                "metrics": [{"type": "Resource", "resource": {
                    "name": "cpu", "target": {"type": "AverageValue", "averageValue": "200m"}}}],
                "behavior": {"scaleDown": {"stabilizationWindowSeconds": 0}},
            },
        });
        apply(&object.to_string()).unwrap();
        Self { model: model.to_owned() }
    }

    /// What it says of itself.
    fn told(&self) -> Value {
        let object = get("horizontalpodautoscaler", &self.model).unwrap().unwrap();
        json!({"desired": object["status"]["desiredReplicas"], "metrics": object["status"]["currentMetrics"]})
    }
}

impl Drop for Autoscaler {
    fn drop(&mut self) {
        kubectl(&["delete", "horizontalpodautoscaler", &self.model]).unwrap();
    }
}

#[test]
fn without_reports_for_a_minute_no_pod_is_taken_away() {
    let bounds = |min| {
        json!({"minReplicas": min, "maxReplicas": 2,
                              "behavior": {"scaleDown": {"stabilizationWindowSeconds": 15}}})
    };
    let scene = Scene::start("deaf", &scaled(&bounds(2)));
    scene.ready();
    scene.wait("with two pods", READY_LIMIT, |object| object["status"]["readyReplicas"] == 2);

    let reports = Reports::cut();
    scene.wait("deaf", READY_LIMIT, |object| condition(object, "TelemetryFresh").1 == "ReportsStale");
    patch("imodel", "deaf", &json!({"spec": {"autoscaling": bounds(1)}}).to_string()).unwrap();
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(60) {
        let object = get("imodel", "deaf").unwrap().unwrap();
        assert_eq!(object["status"]["replicas"], 2, "{:?} after the cut", began.elapsed());
        std::thread::sleep(Duration::from_millis(500));
    }
    drop(reports);
    scene.wait("heard again", READY_LIMIT, |object| condition(object, "TelemetryFresh").0 == "True");
    let object = scene.wait("with one pod", DOWN_LIMIT, |object| object["status"]["replicas"] == 1);
    println!("{}", decisions(&object).0.join("\n"));
}

/// The Service to which gateways and pods report is away while this is held.
pub(crate) struct Reports {
    service: Value,
}

impl Reports {
    const NAME: &str = "inferno-operator-reports";

    pub(crate) fn cut() -> Self {
        let told = |arguments: &[&str]| {
            command("kubectl", &[&["--namespace", SYSTEM_NAMESPACE], arguments].concat()).unwrap()
        };
        let text = told(&["get", "service", Self::NAME, "--output", "json"]);
        let mut service: Value = serde_json::from_str(&text).unwrap();
        let metadata = service["metadata"].as_object_mut().unwrap();
        for made_by_the_server in ["uid", "resourceVersion", "creationTimestamp", "managedFields"] {
            metadata.remove(made_by_the_server);
        }
        told(&["delete", "service", Self::NAME]);
        Self { service }
    }
}

impl Drop for Reports {
    fn drop(&mut self) {
        let path = format!("/api/v1/namespaces/{SYSTEM_NAMESPACE}/services");
        tests::kubectl::create_raw(&path, &self.service.to_string()).unwrap();
    }
}
