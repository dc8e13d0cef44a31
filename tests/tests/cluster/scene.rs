//! A model of one test: created with the test's settings, deleted with everything it owned at the test's end.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use serde_json::{Value, json};
use tests::client::Client;
use tests::kubectl::{apply, condition, get, is, kubectl, wait_gone, wait_until, watch_until};
use tests::models::demo_model;
use tests::pods::{Pod, pods};
use tests::release::{POOL, base_url, install};
use tests::traffic::Traffic;

/// A cold pod on two busy cores: image start, download of a few MB, load and warm-up take under 20 s when alone.
pub(crate) const READY_LIMIT: Duration = Duration::from_secs(120);

static CLUSTER: RwLock<()> = RwLock::new(());

/// The right to use the cluster, alone or beside others. Whoever waits for his turn waits here.
pub(crate) enum Turn {
    Alone { _guard: RwLockWriteGuard<'static, ()> },
    Beside { _guard: RwLockReadGuard<'static, ()> },
}

impl Turn {
    pub(crate) fn alone() -> Self {
        Self::Alone { _guard: CLUSTER.write().unwrap_or_else(PoisonError::into_inner) }
    }

    fn beside_others() -> Self {
        Self::Beside { _guard: CLUSTER.read().unwrap_or_else(PoisonError::into_inner) }
    }
}

/// A model under test.
pub(crate) struct Scene {
    pub(crate) model: String,
    _turn: Turn,
}

impl Scene {
    /// Alone on the cluster: installs the chart if needed and applies a pool and a model with the given spec.
    pub(crate) fn start(model: &str, spec: &Value) -> Self {
        Self::begin(Turn::alone(), model, spec)
    }

    /// The same beside other tests that bear it.
    pub(crate) fn beside_others(model: &str, spec: &Value) -> Self {
        Self::begin(Turn::beside_others(), model, spec)
    }

    fn begin(turn: Turn, model: &str, spec: &Value) -> Self {
        install();
        limit_pool(None);
        let scene = Self { model: model.to_owned(), _turn: turn };
        scene.apply(spec);
        scene
    }

    /// Applies the model with another spec.
    pub(crate) fn apply(&self, spec: &Value) {
        let object = json!({
            "apiVersion": "inferno.ai/v1alpha1", "kind": "InferenceModel",
            "metadata": {"name": self.model}, "spec": spec,
        });
        apply(&object.to_string()).unwrap();
    }

    /// Waits until the model, as it is declared now, is Ready.
    pub(crate) fn ready(&self) -> Value {
        self.wait("Ready", READY_LIMIT, |object| is(object, "Ready", "True"))
    }

    /// Waits for a state of the model.
    pub(crate) fn wait(&self, what: &str, limit: Duration, is_there: impl Fn(&Value) -> bool) -> Value {
        wait_until("imodel", &self.model, limit, what, is_there).unwrap()
    }

    /// Ten requests per second at the model, through the gateway.
    pub(crate) fn traffic(&self) -> Traffic {
        Traffic::start(client(), &self.model, 10)
    }

    /// The model's pods that nobody has deleted.
    pub(crate) fn pods(&self) -> Vec<Pod> {
        pods(&self.selector()).unwrap()
    }

    /// Waits until so many pods are Ready that are none of `old`.
    pub(crate) fn new_pods_ready(&self, count: usize, old: &[Pod]) {
        wait_for_pods(&self.selector(), count, old);
    }

    /// Selects everything that belongs to the model.
    pub(crate) fn selector(&self) -> String {
        format!("inferno.ai/model={}", self.model)
    }
}

/// Applies the pool of the tests, in which so many pods may run until the next scene, if that is limited.
pub(crate) fn limit_pool(replicas_max: Option<u32>) {
    let mut pool = json!({
        "apiVersion": "inferno.ai/v1alpha1", "kind": "InferencePool",
        "metadata": {"name": POOL}, "spec": {"gateway": {"replicas": 2}},
    });
    if let Some(replicas_max) = replicas_max {
        pool["spec"]["limits"] = json!({"maxReplicas": replicas_max});
    }
    apply(&pool.to_string()).unwrap();
}

/// A client of the pool's gateway.
pub(crate) fn client() -> Client {
    Client::new(base_url().unwrap()).unwrap()
}

/// Waits until so many pods that a selector finds are Ready and none of `old`.
pub(crate) fn wait_for_pods(selector: &str, count: usize, old: &[Pod]) {
    let ready = RefCell::new(BTreeSet::new());
    watch_until(&["pods", "--selector", selector], READY_LIMIT, &format!("{count} ready"), |object| {
        let name = object["metadata"]["name"].as_str().unwrap().to_owned();
        let is_staying = object["metadata"]["deletionTimestamp"].is_null();
        if is_staying && condition(object, "Ready").0 == "True" && old.iter().all(|pod| pod.name != name) {
            ready.borrow_mut().insert(name);
        } else {
            ready.borrow_mut().remove(&name);
        }
        ready.borrow().len() >= count
    })
    .unwrap();
}

impl Drop for Scene {
    fn drop(&mut self) {
        if std::thread::panicking() {
            explain(&self.model);
        }
        let _ = kubectl(&["delete", "imodel", &self.model, "--ignore-not-found", "--wait=false"]);
        let _ = wait_gone("pods", &self.selector(), Duration::from_secs(90));
    }
}

/// What a person would look at first when a model is not as it should be.
fn explain(model: &str) {
    let selector = format!("inferno.ai/model={model}");
    eprintln!("status: {:#}", get("imodel", model).ok().flatten().unwrap_or_default()["status"]);
    for arguments in [
        vec!["get", "pods", "--selector", &selector, "--output", "wide"],
        vec!["logs", "--selector", &selector, "--all-containers", "--tail", "40", "--prefix"],
        vec!["logs", "--selector", "app.kubernetes.io/component=gateway", "--tail", "20", "--prefix"],
        vec!["get", "events", "--sort-by", ".lastTimestamp"],
        vec!["logs", "--namespace", "inferno-system", "deployment/inferno-operator", "--tail", "40"],
    ] {
        eprintln!(
            "$ kubectl {}\n{}",
            arguments.join(" "),
            kubectl(&arguments).unwrap_or_else(|error| error.to_string())
        );
    }
}

/// A spec that serves the demo model from inside the cluster.
pub(crate) fn demo_spec() -> Value {
    json!({
        "poolRef": {"name": "cpu"},
        "source": demo_model(),
    })
}

/// Runs async code of a test to its end.
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Runtime::new().unwrap().block_on(future)
}
