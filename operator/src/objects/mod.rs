//! The Kubernetes objects of a model, and the name of its revision. Pure and infallible: whatever could be wrong was
//! refused before.

mod arguments;
pub mod parts;
mod pod_template;
mod volumes;

use std::collections::BTreeMap;

use crds::model::InferenceModel;
use crds::pool::{ImagePullPolicy, InferencePool};
use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec};
use k8s_openapi::api::core::v1::{Service, ServiceSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use kube::{Resource, ResourceExt};
use sha2::{Digest, Sha256};

use crate::gateway;
use crate::inventory::Need;
use parts::{http_port, one_more_at_a_time};
pub use pod_template::accelerator;
use pod_template::pod_template;

/// Label with the model's name, on everything that belongs to a model.
pub const MODEL_LABEL: &str = "inferno.ai/model";
/// Label with the revision's name, on its Deployment, Service and pods.
pub const REVISION_LABEL: &str = "inferno.ai/revision";
/// Label with the pool's name, on everything that belongs to a pool or runs in it.
pub const POOL_LABEL: &str = "inferno.ai/pool";
/// Who applies: field manager, and value of `app.kubernetes.io/managed-by`.
pub const MANAGER: &str = "inferno-operator";
/// Name of the init container that fetches the model.
pub const FETCH_CONTAINER: &str = "fetch";
/// Name of the container that serves.
pub const SERVE_CONTAINER: &str = "server";
/// Name of the volume with the model.
pub const MODEL_VOLUME: &str = "models";
/// Port of the pods.
pub const POD_PORT: i32 = 8080;

/// Digits of the hash in a revision's name: 32 bits, among the handful of revisions that one model has at a time.
const REVISION_DIGITS: usize = 8;

/// What the installation gives to every pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installation {
    /// Image with inferno-sidecar and inferno-engine.
    pub sidecar_image: String,
    /// Its pull policy.
    pub sidecar_pull_policy: ImagePullPolicy,
    /// Where pods send their reports, if the operator takes any.
    pub report_url: Option<String>,
}

/// The model's name towards clients.
pub fn served_name(model: &InferenceModel) -> String {
    model.spec.model_name.clone().unwrap_or_else(|| model.name_any())
}

/// The OpenAI base URL of the model: that of its pool's gateway.
pub fn base_url(model: &InferenceModel) -> String {
    format!("{}/v1", gateway::url(&model.spec.pool_ref.name, &model.namespace().unwrap_or_default()))
}

/// Selects all pods of the model, of every revision.
pub fn pod_selector(model: &InferenceModel) -> String {
    format!("{MODEL_LABEL}={}", model.name_any())
}

/// The name of the revision that the spec asks for: a hash over the pod that would serve it. So exactly what changes
/// a pod changes the revision, and scaling, suspending or relabelling does not.
pub fn revision_name(model: &InferenceModel, pool: &InferencePool, installation: &Installation) -> String {
    let template = pod_template(model, pool, installation, "");
    let text = serde_json::to_vec(&template).expect("a pod template is JSON");
    let digest = hex::encode(Sha256::digest(text));
    format!("{}-{}", model.name_any(), &digest[..REVISION_DIGITS])
}

/// What every pod of the revision that the spec asks for needs of a node.
pub fn need(model: &InferenceModel, pool: &InferencePool, installation: &Installation) -> Need {
    let template = pod_template(model, pool, installation, "");
    Need::of(&template.spec.unwrap_or_default())
}

/// The Service of one revision, of the revision's name. It has no address of its own: the pool's gateway reads its
/// endpoints and chooses among them.
pub fn service(model: &InferenceModel, revision: &str) -> Service {
    let labels = revision_labels(model, &model.spec.pool_ref.name, revision);
    Service {
        metadata: metadata(model, revision.to_owned(), labels),
        spec: Some(ServiceSpec {
            cluster_ip: Some("None".into()),
            selector: revision_selector(model, revision).match_labels,
            ports: Some(vec![http_port(POD_PORT)]),
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// The Deployment of one revision.
pub fn deployment(
    model: &InferenceModel,
    pool: &InferencePool,
    installation: &Installation,
    revision: &str,
    replicas: i32,
) -> Deployment {
    Deployment {
        metadata: metadata(model, revision.to_owned(), revision_labels(model, &pool.name_any(), revision)),
        spec: Some(DeploymentSpec {
            replicas: Some(replicas),
            revision_history_limit: Some(1),
            selector: revision_selector(model, revision),
            strategy: Some(one_more_at_a_time()),
            template: pod_template(model, pool, installation, revision),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn metadata(model: &InferenceModel, name: String, labels: BTreeMap<String, String>) -> ObjectMeta {
    ObjectMeta {
        name: Some(name),
        namespace: model.namespace(),
        labels: Some(labels),
        owner_references: model.controller_owner_ref(&()).map(|owner| vec![owner]),
        ..Default::default()
    }
}

fn model_labels(model: &InferenceModel) -> BTreeMap<String, String> {
    let mut labels = parts::labels("model-server", &model.name_any());
    labels.insert(MODEL_LABEL.to_owned(), model.name_any());
    labels
}

fn revision_labels(model: &InferenceModel, pool: &str, revision: &str) -> BTreeMap<String, String> {
    let mut labels = model_labels(model);
    labels.insert(POOL_LABEL.to_owned(), pool.to_owned());
    labels.insert(REVISION_LABEL.to_owned(), revision.to_owned());
    labels
}

fn revision_selector(model: &InferenceModel, revision: &str) -> LabelSelector {
    LabelSelector {
        match_labels: Some(
            [(MODEL_LABEL.to_owned(), model.name_any()), (REVISION_LABEL.to_owned(), revision.to_owned())]
                .into(),
        ),
        ..Default::default()
    }
}
