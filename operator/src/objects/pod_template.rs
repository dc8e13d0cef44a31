//! The pods of a revision: an init container that fetches the model, and the one that serves. Pure.

use std::collections::BTreeMap;

use crds::amount::Amount;
use crds::model::InferenceModel;
use crds::pool::InferencePool;
use k8s_openapi::api::core::v1::{
    Container, EnvVar, EnvVarSource, PodSpec, PodTemplateSpec, ResourceRequirements, SecretKeySelector,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt;

use super::arguments::{fetch_arguments, serve_arguments};
use super::parts::{
    container_port, container_security, http_probe, own_identity, pod_security, pull_policy, quantities,
    spread_over_nodes,
};
use super::volumes::{model_path, model_volume, mount, scratch_volume};
use super::{
    FETCH_CONTAINER, Installation, MODEL_VOLUME, POD_PORT, SERVE_CONTAINER, revision_labels,
    revision_selector,
};

/// The kubelet kills after this: drain, propagation, and 10 s for the engine to end.
const GRACE_SECONDS: i64 = 60;
/// The server may take this long to answer at all: 150 × 2 s. Loading happens behind `/readyz` and has no limit.
const STARTUP_TRIES: i32 = 150;

/// The pods of one revision. With an empty `revision` it is what the revision's name is a hash of.
pub(super) fn pod_template(
    model: &InferenceModel,
    pool: &InferencePool,
    installation: &Installation,
    revision: &str,
) -> PodTemplateSpec {
    let path = model_path(model, pool);
    PodTemplateSpec {
        metadata: Some(ObjectMeta {
            labels: Some(revision_labels(model, &pool.name_any(), revision)),
            ..Default::default()
        }),
        spec: Some(PodSpec {
            automount_service_account_token: Some(false),
            enable_service_links: Some(false),
            termination_grace_period_seconds: Some(GRACE_SECONDS),
            node_selector: Some(pool.spec.node_selector.clone()).filter(|labels| !labels.is_empty()),
            tolerations: Some(pool.spec.tolerations.clone()).filter(|tolerations| !tolerations.is_empty()),
            topology_spread_constraints: Some(vec![spread_over_nodes(revision_selector(model, revision))]),
            security_context: Some(pod_security()),
            init_containers: Some(vec![fetch_container(model, pool, installation, revision, &path)]),
            containers: vec![serve_container(model, pool, installation, revision, &path)],
            volumes: Some(vec![model_volume(pool), scratch_volume()]),
            ..Default::default()
        }),
    }
}

fn fetch_container(
    model: &InferenceModel,
    pool: &InferencePool,
    installation: &Installation,
    revision: &str,
    path: &str,
) -> Container {
    let mut environment = environment(model, revision);
    if let Some(secret) = &model.spec.source.secret_ref {
        environment.push(EnvVar {
            name: "INFERNO_SOURCE_TOKEN".into(),
            value_from: Some(EnvVarSource {
                secret_key_ref: Some(SecretKeySelector {
                    name: secret.name.clone(),
                    key: secret.key.clone(),
                    optional: Some(false),
                }),
                ..Default::default()
            }),
            ..Default::default()
        });
    }
    Container {
        name: FETCH_CONTAINER.into(),
        args: Some(fetch_arguments(model, installation, path)),
        env: Some(environment),
        resources: Some(ResourceRequirements {
            requests: Some(quantities([("cpu", "50m"), ("memory", "64Mi")])),
            ..Default::default()
        }),
        volume_mounts: Some(vec![mount(MODEL_VOLUME, "/models", false), mount("tmp", "/tmp", false)]),
        ..container(pool, installation)
    }
}

fn serve_container(
    model: &InferenceModel,
    pool: &InferencePool,
    installation: &Installation,
    revision: &str,
    path: &str,
) -> Container {
    Container {
        name: SERVE_CONTAINER.into(),
        args: Some(serve_arguments(model, pool, installation, path)),
        env: Some(environment(model, revision)),
        ports: Some(vec![container_port("http", POD_PORT)]),
        resources: Some(serve_resources(pool)),
        startup_probe: Some(http_probe("http", "/healthz", 2, 5, STARTUP_TRIES)),
        readiness_probe: Some(http_probe("http", "/readyz", 1, 2, 2)),
        liveness_probe: Some(http_probe("http", "/healthz", 10, 5, 6)),
        volume_mounts: Some(vec![mount(MODEL_VOLUME, "/models", true), mount("tmp", "/tmp", false)]),
        ..container(pool, installation)
    }
}

/// What both containers have in common.
fn container(pool: &InferencePool, installation: &Installation) -> Container {
    let runtime = pool.spec.runtime.as_ref();
    let image = runtime.and_then(|runtime| runtime.image.clone());
    let policy = runtime.and_then(|runtime| runtime.image_pull_policy);
    Container {
        image: Some(image.unwrap_or_else(|| installation.sidecar_image.clone())),
        image_pull_policy: Some(pull_policy(policy.unwrap_or(installation.sidecar_pull_policy)).to_owned()),
        security_context: Some(container_security()),
        ..Default::default()
    }
}

fn environment(model: &InferenceModel, revision: &str) -> Vec<EnvVar> {
    let own =
        |name: &str, value: String| EnvVar { name: name.into(), value: Some(value), ..Default::default() };
    let mut variables: Vec<EnvVar> = own_identity().into();
    variables.push(own("INFERNO_MODEL", model.name_any()));
    variables.push(own("INFERNO_REVISION", revision.to_owned()));
    variables
}

/// Small requests, so that a first model fits everywhere; no CPU limit, because decoding uses what is free.
fn serve_resources(pool: &InferencePool) -> ResourceRequirements {
    let given = pool.spec.runtime.as_ref().and_then(|runtime| runtime.resources.clone()).unwrap_or_default();
    let mut requests = quantities([("cpu", "100m"), ("memory", "256Mi")]);
    // A default request above the user's limit would make the pod invalid.
    requests.retain(|name, _| !given.limits.contains_key(name));
    requests.extend(given.requests.iter().map(quantity));
    let mut limits: BTreeMap<String, Quantity> = given.limits.iter().map(quantity).collect();
    if let Some((name, count)) = accelerator(pool) {
        limits.insert(name.to_owned(), Quantity(count.to_string()));
    }
    ResourceRequirements {
        requests: Some(requests).filter(|requests| !requests.is_empty()),
        limits: Some(limits).filter(|limits| !limits.is_empty()),
        ..Default::default()
    }
}

/// The device of the pool's pods and how many each gets, if they get any.
pub fn accelerator(pool: &InferencePool) -> Option<(&str, i32)> {
    let accelerator = pool.spec.accelerator.as_ref().filter(|accelerator| accelerator.count > 0)?;
    Some((accelerator.resource_name.as_deref().unwrap_or("nvidia.com/gpu"), accelerator.count))
}

fn quantity((name, amount): (&String, &Amount)) -> (String, Quantity) {
    (name.clone(), Quantity(amount.0.clone()))
}
#[cfg(test)]
mod tests {
    use super::super::arguments::{DRAIN_SECONDS, ENDPOINT_PROPAGATION_SECONDS};
    use super::*;

    #[test]
    fn the_grace_period_covers_drain_and_propagation() {
        assert!(GRACE_SECONDS >= i64::from(DRAIN_SECONDS + ENDPOINT_PROPAGATION_SECONDS + 10));
    }
}
