//! The Kubernetes objects of a model, and the name of its revision. Pure and infallible: whatever could be wrong was
//! refused before.

use std::collections::BTreeMap;

use crds::amount::{Amount, ByteSize};
use crds::model::{FlashAttention, GpuLayers, InferenceModel, KvCacheType, Priority};
use crds::pool::{ImagePullPolicy, InferencePool, ModelCacheMode};
use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, DeploymentStrategy, RollingUpdateDeployment};
use k8s_openapi::api::core::v1::{
    Capabilities, Container, ContainerPort, EmptyDirVolumeSource, EnvVar, EnvVarSource, HTTPGetAction,
    ObjectFieldSelector, PersistentVolumeClaimVolumeSource, PodSecurityContext, PodSpec, PodTemplateSpec,
    Probe, ResourceRequirements, SeccompProfile, SecretKeySelector, SecurityContext, Service, ServicePort,
    ServiceSpec, TopologySpreadConstraint, Volume, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::{Resource, ResourceExt};
use sha2::{Digest, Sha256};

/// Label with the model's name, on everything that belongs to a model.
pub const MODEL_LABEL: &str = "inferno.ai/model";
/// Label with the revision's name, on its Deployment and pods.
pub const REVISION_LABEL: &str = "inferno.ai/revision";
/// Label with the pool's name, on Deployments and pods.
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

/// Running requests get this long to finish after SIGTERM.
const DRAIN_SECONDS: i32 = 45;
/// A pod that is told to stop serves on for this long, because clients learn of it only after its endpoint has
/// been taken out everywhere.
const ENDPOINT_PROPAGATION_SECONDS: i32 = 5;
/// The kubelet kills after this: drain, propagation, and 10 s for the engine to end.
const GRACE_SECONDS: i64 = 60;
/// The server may take this long to answer at all: 150 × 2 s. Loading happens behind `/readyz` and has no limit.
const STARTUP_TRIES: i32 = 150;
/// User and group of our images.
const USER_ID: i64 = 10_001;
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

/// The name of the model's Service.
pub fn service_name(model: &InferenceModel) -> String {
    format!("{}-server", model.name_any())
}

/// The OpenAI base URL of the model.
pub fn base_url(model: &InferenceModel) -> String {
    format!("http://{}.{}.svc/v1", service_name(model), model.namespace().unwrap_or_default())
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

/// The Service in front of all ready pods of the model.
pub fn service(model: &InferenceModel) -> Service {
    Service {
        metadata: metadata(model, service_name(model), model_labels(model)),
        spec: Some(ServiceSpec {
            selector: Some([(MODEL_LABEL.to_owned(), model.name_any())].into()),
            ports: Some(vec![ServicePort {
                name: Some("http".into()),
                port: 80,
                protocol: Some("TCP".into()),
                target_port: Some(IntOrString::String("http".into())),
                ..Default::default()
            }]),
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
        metadata: metadata(model, revision.to_owned(), pod_labels(model, pool, revision)),
        spec: Some(DeploymentSpec {
            replicas: Some(replicas),
            revision_history_limit: Some(1),
            selector: revision_selector(model, revision),
            strategy: Some(DeploymentStrategy {
                type_: Some("RollingUpdate".into()),
                rolling_update: Some(RollingUpdateDeployment {
                    max_unavailable: Some(IntOrString::Int(0)),
                    max_surge: Some(IntOrString::Int(1)),
                }),
            }),
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
    [
        ("app.kubernetes.io/name", "inferno".to_owned()),
        ("app.kubernetes.io/component", "model-server".to_owned()),
        ("app.kubernetes.io/instance", model.name_any()),
        ("app.kubernetes.io/managed-by", MANAGER.to_owned()),
        (MODEL_LABEL, model.name_any()),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .into()
}

fn pod_labels(model: &InferenceModel, pool: &InferencePool, revision: &str) -> BTreeMap<String, String> {
    let mut labels = model_labels(model);
    labels.insert(POOL_LABEL.to_owned(), pool.name_any());
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

fn pod_template(
    model: &InferenceModel,
    pool: &InferencePool,
    installation: &Installation,
    revision: &str,
) -> PodTemplateSpec {
    let path = model_path(model, pool);
    PodTemplateSpec {
        metadata: Some(ObjectMeta { labels: Some(pod_labels(model, pool, revision)), ..Default::default() }),
        spec: Some(PodSpec {
            automount_service_account_token: Some(false),
            enable_service_links: Some(false),
            termination_grace_period_seconds: Some(GRACE_SECONDS),
            node_selector: Some(pool.spec.node_selector.clone()).filter(|labels| !labels.is_empty()),
            tolerations: Some(pool.spec.tolerations.clone()).filter(|tolerations| !tolerations.is_empty()),
            topology_spread_constraints: Some(vec![spread_over_nodes(model, revision)]),
            security_context: Some(PodSecurityContext {
                run_as_non_root: Some(true),
                run_as_user: Some(USER_ID),
                run_as_group: Some(USER_ID),
                fs_group: Some(USER_ID),
                fs_group_change_policy: Some("OnRootMismatch".into()),
                seccomp_profile: Some(SeccompProfile {
                    type_: "RuntimeDefault".into(),
                    ..Default::default()
                }),
                ..Default::default()
            }),
            init_containers: Some(vec![fetch_container(model, pool, installation, revision, &path)]),
            containers: vec![serve_container(model, pool, installation, revision, &path)],
            volumes: Some(vec![model_volume(pool), scratch_volume()]),
            ..Default::default()
        }),
    }
}

fn spread_over_nodes(model: &InferenceModel, revision: &str) -> TopologySpreadConstraint {
    TopologySpreadConstraint {
        max_skew: 1,
        topology_key: "kubernetes.io/hostname".into(),
        when_unsatisfiable: "ScheduleAnyway".into(),
        label_selector: Some(revision_selector(model, revision)),
        ..Default::default()
    }
}

// === the two containers ===

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
        ports: Some(vec![ContainerPort {
            name: Some("http".into()),
            container_port: POD_PORT,
            protocol: Some("TCP".into()),
            ..Default::default()
        }]),
        resources: Some(serve_resources(pool)),
        startup_probe: Some(http_probe("/healthz", 2, 5, STARTUP_TRIES)),
        readiness_probe: Some(http_probe("/readyz", 1, 2, 2)),
        liveness_probe: Some(http_probe("/healthz", 10, 5, 6)),
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
        security_context: Some(SecurityContext {
            allow_privilege_escalation: Some(false),
            read_only_root_filesystem: Some(true),
            capabilities: Some(Capabilities { drop: Some(vec!["ALL".into()]), add: None }),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn fetch_arguments(model: &InferenceModel, installation: &Installation, path: &str) -> Vec<String> {
    let source = &model.spec.source;
    let mut arguments = vec!["fetch".to_owned()];
    let mut add = |flag: &str, value: &str| arguments.extend([flag.to_owned(), value.to_owned()]);
    if let Some(http) = &source.http {
        add("--url", &http.url);
    }
    if let Some(hub) = &source.hugging_face {
        add("--repository", &hub.repository);
        add("--revision", hub.revision.as_deref().unwrap_or("main"));
        for file in &hub.files {
            add("--file", file);
        }
        add("--endpoint", hub.endpoint.as_deref().unwrap_or(crate::policy::DEFAULT_ENDPOINT));
    }
    if let Some(sha256) = &source.sha256 {
        add("--sha256", sha256);
    }
    add("--output", path);
    if let Some(url) = &installation.report_url {
        add("--report-url", url);
    }
    arguments
}

fn serve_arguments(
    model: &InferenceModel,
    pool: &InferencePool,
    installation: &Installation,
    path: &str,
) -> Vec<String> {
    let spec = &model.spec;
    let engine = spec.engine.clone().unwrap_or_default();
    let requests = spec.request_policy.clone().unwrap_or_default();
    let queue = pool.spec.queue.clone().unwrap_or_default();
    let accelerators = pool.spec.accelerator.as_ref().map_or(0, |accelerator| accelerator.count);
    let gpu_layers =
        engine.gpu_layers.unwrap_or(if accelerators > 0 { GpuLayers::All } else { GpuLayers::Count(0) });
    let threads = engine.threads.map_or_else(|| pool_threads(pool), i32::unsigned_abs);
    let timeout = requests.timeout_seconds.or(queue.default_timeout_seconds);
    let queued_bytes = queue.max_queued_bytes.as_ref().and_then(ByteSize::bytes);

    let mut arguments = Arguments(vec!["serve".to_owned()]);
    arguments.add("--model", path);
    arguments.add("--model-name", &served_name(model));
    for alias in &spec.aliases {
        arguments.add("--alias", alias);
    }
    arguments.add_some("--context-length", engine.context_length);
    arguments.add_some("--parallel-slots", engine.parallel_slots);
    arguments.add("--gpu-layers", &gpu_layers_flag(gpu_layers));
    arguments.add_some("--flash-attention", engine.flash_attention.map(flash_attention_flag));
    arguments.add_some("--kv-cache-type", engine.kv_cache_type.map(kv_cache_flag));
    arguments.add("--threads", &threads);
    arguments.add_some("--max-queued-requests", queue.max_queued_requests);
    arguments.add_some("--max-queued-bytes", queued_bytes);
    arguments.add_some("--default-timeout-seconds", timeout);
    arguments.add_some("--default-priority", requests.default_priority.map(priority_flag));
    arguments.add_some("--max-output-tokens", requests.max_output_tokens);
    arguments.add("--drain-seconds", &DRAIN_SECONDS);
    arguments.add("--endpoint-propagation-seconds", &ENDPOINT_PROPAGATION_SECONDS);
    arguments.add_some("--report-url", installation.report_url.as_ref());
    arguments.0
}

/// A command line; what is not set stays the sidecar's default.
struct Arguments(Vec<String>);

impl Arguments {
    fn add<Value: ToString + ?Sized>(&mut self, flag: &str, value: &Value) {
        self.0.extend([flag.to_owned(), value.to_string()]);
    }

    fn add_some(&mut self, flag: &str, value: Option<impl ToString>) {
        if let Some(value) = value {
            self.add(flag, &value);
        }
    }
}

fn gpu_layers_flag(layers: GpuLayers) -> String {
    match layers {
        GpuLayers::All => "all".to_owned(),
        GpuLayers::Count(count) => count.to_string(),
    }
}

fn flash_attention_flag(choice: FlashAttention) -> &'static str {
    match choice {
        FlashAttention::Auto => "auto",
        FlashAttention::Enabled => "on",
        FlashAttention::Disabled => "off",
    }
}

fn kv_cache_flag(kind: KvCacheType) -> &'static str {
    match kind {
        KvCacheType::F16 => "f16",
        KvCacheType::Q8 => "q8_0",
        KvCacheType::Q4 => "q4_0",
    }
}

fn priority_flag(priority: Priority) -> &'static str {
    match priority {
        Priority::Vip => "vip",
        Priority::High => "high",
        Priority::Normal => "normal",
        Priority::Low => "low",
    }
}

fn pull_policy(policy: ImagePullPolicy) -> &'static str {
    match policy {
        ImagePullPolicy::Always => "Always",
        ImagePullPolicy::IfNotPresent => "IfNotPresent",
        ImagePullPolicy::Never => "Never",
    }
}

fn environment(model: &InferenceModel, revision: &str) -> Vec<EnvVar> {
    let own =
        |name: &str, value: String| EnvVar { name: name.into(), value: Some(value), ..Default::default() };
    let from_pod = |name: &str, field: &str| EnvVar {
        name: name.into(),
        value_from: Some(EnvVarSource {
            field_ref: Some(ObjectFieldSelector { api_version: Some("v1".into()), field_path: field.into() }),
            ..Default::default()
        }),
        ..Default::default()
    };
    vec![
        from_pod("POD_NAME", "metadata.name"),
        from_pod("POD_NAMESPACE", "metadata.namespace"),
        from_pod("POD_UID", "metadata.uid"),
        own("INFERNO_MODEL", model.name_any()),
        own("INFERNO_REVISION", revision.to_owned()),
    ]
}

/// As many threads as cores were asked for. All cores of the node would be too many beside other pods: threads of one
/// step wait for each other, and two on one free core have been measured a hundred times slower than one.
fn pool_threads(pool: &InferencePool) -> u32 {
    let Some(runtime) = &pool.spec.runtime else { return 1 };
    let resources = runtime.resources.clone().unwrap_or_default();
    let cores = resources.limits.get("cpu").or(resources.requests.get("cpu")).and_then(Amount::whole_cores);
    runtime.threads.map(i32::unsigned_abs).or(cores).unwrap_or(1)
}

/// Small requests, so that a first model fits everywhere; no CPU limit, because decoding uses what is free.
fn serve_resources(pool: &InferencePool) -> ResourceRequirements {
    let given = pool.spec.runtime.as_ref().and_then(|runtime| runtime.resources.clone()).unwrap_or_default();
    let mut requests = quantities([("cpu", "100m"), ("memory", "256Mi")]);
    // A default request above the user's limit would make the pod invalid.
    requests.retain(|name, _| !given.limits.contains_key(name));
    requests.extend(given.requests.iter().map(quantity));
    let mut limits: BTreeMap<String, Quantity> = given.limits.iter().map(quantity).collect();
    if let Some(accelerator) = pool.spec.accelerator.as_ref().filter(|accelerator| accelerator.count > 0) {
        let name = accelerator.resource_name.clone().unwrap_or_else(|| "nvidia.com/gpu".to_owned());
        limits.insert(name, Quantity(accelerator.count.to_string()));
    }
    ResourceRequirements {
        requests: Some(requests).filter(|requests| !requests.is_empty()),
        limits: Some(limits).filter(|limits| !limits.is_empty()),
        ..Default::default()
    }
}

fn quantities<const COUNT: usize>(pairs: [(&str, &str); COUNT]) -> BTreeMap<String, Quantity> {
    pairs.map(|(name, amount)| (name.to_owned(), Quantity(amount.to_owned()))).into()
}

fn quantity((name, amount): (&String, &Amount)) -> (String, Quantity) {
    (name.clone(), Quantity(amount.0.clone()))
}

fn http_probe(path: &str, period_seconds: i32, timeout_seconds: i32, failure_threshold: i32) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.into()),
            port: IntOrString::String("http".into()),
            ..Default::default()
        }),
        period_seconds: Some(period_seconds),
        timeout_seconds: Some(timeout_seconds),
        failure_threshold: Some(failure_threshold),
        ..Default::default()
    }
}

// === the model's file ===

fn model_volume(pool: &InferencePool) -> Volume {
    let cache = pool.spec.model_cache.as_ref();
    let claim = cache.filter(|cache| cache.mode == ModelCacheMode::PersistentVolumeClaim);
    let mut volume = Volume { name: MODEL_VOLUME.into(), ..Default::default() };
    match claim.and_then(|cache| cache.claim_name.clone()) {
        Some(claim_name) => {
            volume.persistent_volume_claim =
                Some(PersistentVolumeClaimVolumeSource { claim_name, read_only: None });
        }
        None => {
            volume.empty_dir = Some(EmptyDirVolumeSource {
                size_limit: cache.and_then(|cache| cache.size.as_ref()).map(|size| Quantity(size.0.clone())),
                ..Default::default()
            });
        }
    }
    volume
}

fn scratch_volume() -> Volume {
    Volume {
        name: "tmp".into(),
        empty_dir: Some(EmptyDirVolumeSource {
            size_limit: Some(Quantity("256Mi".into())),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn mount(name: &str, path: &str, is_read_only: bool) -> VolumeMount {
    VolumeMount {
        name: name.into(),
        mount_path: path.into(),
        read_only: Some(is_read_only),
        ..Default::default()
    }
}

/// Where the (first) file lies. On a shared claim each source has a folder of its own, so two models never write the
/// same path with different content.
fn model_path(model: &InferenceModel, pool: &InferencePool) -> String {
    let source = &model.spec.source;
    let name = match (&source.hugging_face, &source.http) {
        (Some(hub), _) => hub.files.first().map(|file| file_name(file)),
        (None, Some(http)) => Some(file_name(&http.url)),
        (None, None) => None,
    };
    let name = name.unwrap_or_else(|| "model.gguf".to_owned());
    let is_shared = pool
        .spec
        .model_cache
        .as_ref()
        .is_some_and(|cache| cache.mode == ModelCacheMode::PersistentVolumeClaim);
    if !is_shared {
        return format!("/models/{name}");
    }
    let text = serde_json::to_vec(source).expect("a source is JSON");
    let folder = &hex::encode(Sha256::digest(text))[..16];
    format!("/models/{folder}/{name}")
}

/// The last part of a URL's path, reduced to characters that mean nothing to anybody.
fn file_name(location: &str) -> String {
    let path = location.split(['?', '#']).next().unwrap_or_default();
    let last = path.rsplit('/').next().unwrap_or_default();
    let plain: String =
        last.chars().filter(|each| each.is_ascii_alphanumeric() || "._-".contains(*each)).take(128).collect();
    let plain = plain.trim_start_matches('.');
    if plain.is_empty() { "model.gguf".to_owned() } else { plain.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(location: &str, expected: &str) {
        assert_eq!(file_name(location), expected, "{location}");
    }

    #[test]
    fn file_names_are_harmless() {
        check("http://models.default.svc/tiny.gguf", "tiny.gguf");
        check("https://h/a/b.gguf?download=true#x", "b.gguf");
        check("Q4/model-00001-of-00002.gguf", "model-00001-of-00002.gguf");
        check("http://h/../..", "model.gguf");
        check("http://h/", "model.gguf");
        check("http://h/%2e%2e%2fetc", "2e2e2fetc");
    }

    #[test]
    fn the_grace_period_covers_drain_and_propagation() {
        assert!(GRACE_SECONDS >= i64::from(DRAIN_SECONDS + ENDPOINT_PROPAGATION_SECONDS + 10));
    }
}
