//! Pods as a test sees them: where they are reached, and how they come to their end.

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::kubectl::{NAMESPACE, command, create_raw, kubectl, list};
use crate::release::api_proxy;

/// Port on which sidecars and gateways serve.
pub const SERVING_PORT: u16 = 8080;

/// Port of a gateway's administration.
pub const ADMIN_PORT: u16 = 8081;

/// A pod that is not about to leave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pod {
    /// Its name.
    pub name: String,
    /// Its address; empty until it has one.
    pub address: String,
    /// Its containers, as the node's runtime names them.
    pub containers: Vec<String>,
    /// Whether it is Ready.
    pub is_ready: bool,
}

/// The pods that a label selector finds and nobody has deleted.
///
/// # Errors
/// The API server does not answer.
pub fn pods(selector: &str) -> Result<Vec<Pod>> {
    let objects = list("pods", selector)?;
    let staying = objects.iter().filter(|pod| pod["metadata"]["deletionTimestamp"].is_null());
    Ok(staying.map(Pod::read).collect())
}

impl Pod {
    fn read(object: &Value) -> Self {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let containers = object["status"]["containerStatuses"].as_array();
        let ids = containers.into_iter().flatten().filter_map(|status| status["containerID"].as_str());
        Self {
            name: text(&object["metadata"]["name"]),
            address: text(&object["status"]["podIP"]),
            containers: ids.filter_map(|id| id.strip_prefix("containerd://")).map(str::to_owned).collect(),
            is_ready: crate::kubectl::condition(object, "Ready").0 == "True",
        }
    }

    /// `http://…` without a slash at its end: the pod's own address inside the sandbox, and the API server's proxy on a
    /// foreign cluster.
    ///
    /// # Errors
    /// The proxy does not start.
    pub fn url(&self, port: u16) -> Result<String> {
        if std::env::var_os("INFERNO_TEST_KUBECONFIG").is_none() {
            return Ok(format!("http://{}:{port}", self.address));
        }
        let proxy = api_proxy()?;
        Ok(format!("{proxy}/api/v1/namespaces/{NAMESPACE}/pods/{}:{port}/proxy", self.name))
    }

    /// Asks for its eviction, as a node's drain does.
    ///
    /// # Errors
    /// It is refused, for instance by a disruption budget.
    pub fn evict(&self) -> Result<()> {
        let body = serde_json::json!({
            "apiVersion": "policy/v1", "kind": "Eviction",
            "metadata": {"name": self.name, "namespace": NAMESPACE},
        });
        create_raw(
            &format!("/api/v1/namespaces/{NAMESPACE}/pods/{}/eviction", self.name),
            &body.to_string(),
        )?;
        Ok(())
    }
}

/// Whether the processes inside pods can be reached: in the sandbox they can, elsewhere the node is out of reach.
pub fn can_signal() -> bool {
    std::env::var_os("INFERNO_SANDBOX").is_some()
}

/// Sends a signal, named as `kill` names it, to the engines of these pods, which are processes of their own beside their
/// sidecars. Returns how many got it: an engine that has just died has no successor yet.
///
/// # Errors
/// The runtime does not answer.
pub fn signal_engines(pods: &[Pod], signal: &str) -> Result<usize> {
    let mut signalled = 0;
    for container in pods.iter().flat_map(|pod| &pod.containers) {
        let listed = command("ctr", &["tasks", "ps", container])?;
        let ids = listed.lines().filter_map(|line| line.split_whitespace().next());
        let is_engine = |id: &&str| {
            let name = std::fs::read_to_string(format!("/proc/{id}/comm"));
            name.is_ok_and(|name| name.trim() == "inferno-engine")
        };
        for id in ids.filter(is_engine) {
            signalled += usize::from(command("kill", &["-s", signal, id]).is_ok());
        }
    }
    Ok(signalled)
}

/// Ends pods without warning: in the sandbox their processes are killed, so that no signal handler runs; elsewhere, where
/// the node is out of reach, they are deleted without grace. Then the objects are removed, so that others replace them
/// at once and without the delay of a crash loop.
///
/// # Errors
/// The runtime or the API server does not answer.
pub fn kill(pods: &[Pod]) -> Result<()> {
    if can_signal() {
        for container in pods.iter().flat_map(|pod| &pod.containers) {
            command("ctr", &["tasks", "kill", "--all", "--signal", "SIGKILL", container])
                .with_context(|| format!("killing {container}"))?;
        }
    }
    let mut arguments = vec!["delete", "pods", "--grace-period", "0", "--force", "--wait=false"];
    arguments.extend(pods.iter().map(|pod| pod.name.as_str()));
    kubectl(&arguments).map(drop)
}
