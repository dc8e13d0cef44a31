//! The objects of a pool's gateway: the front door that gives all models of the pool one address. Pure.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use crds::pool::InferencePool;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec};
use k8s_openapi::api::core::v1::{
    Container, Pod, PodSpec, PodTemplateSpec, ResourceRequirements, Service, ServiceAccount, ServiceSpec,
};
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec};
use k8s_openapi::api::rbac::v1::{PolicyRule, Role, RoleBinding, RoleRef, Subject};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::{Resource, ResourceExt};

use crate::objects::parts::{
    self, container_port, container_security, http_port, http_probe, one_more_at_a_time, own_identity,
    pod_security, pull_policy, quantities, spread_over_nodes,
};
use crate::objects::{Installation, POOL_LABEL};
use crate::pod;
use crate::problem::Problem;
use crate::revision::{check_owner, is_owned, refusal};

/// Value of the label `app.kubernetes.io/component` on everything of a gateway.
pub const COMPONENT: &str = "gateway";
/// Label whose value [`COMPONENT`] is.
pub const COMPONENT_LABEL: &str = "app.kubernetes.io/component";
/// Name of the container.
pub const CONTAINER: &str = "gateway";
/// Where the sidecar's image has the program.
const PROGRAM: &str = "/usr/local/bin/inferno-gateway";
/// Port for clients.
const PORT: i32 = 8080;
/// Port for metrics, probes and the view; not in the Service.
const ADMIN_PORT: i32 = 8081;
/// Pods of a gateway whose pool does not say: one may be lost.
const REPLICAS: i32 = 2;

/// A pod that is told to stop serves on for this long, because clients learn of it only after its endpoint has been
/// taken out everywhere.
const ENDPOINT_PROPAGATION_SECONDS: i32 = 5;
/// Running requests get as long to finish as requests take at most, unless the pool says: the default of
/// `spec.queue.defaultTimeoutSeconds`.
const DRAIN_SECONDS: i32 = 300;
/// Longest drain whatever the pool's requests may take: beyond it an upgrade would never end.
const DRAIN_SECONDS_MAX: i32 = 3_600;
/// After drain and propagation, for an error frame to every stream that is left.
const SLACK_SECONDS: i32 = 10;

/// Everything that a gateway consists of, in the order in which it is applied: rights before pods.
#[derive(Debug, Clone, PartialEq)]
pub struct Gateway {
    /// Who the pods are.
    pub service_account: ServiceAccount,
    /// What they may do: read models, pools and endpoints of their namespace.
    pub role: Role,
    /// That they may.
    pub role_binding: RoleBinding,
    /// The address.
    pub service: Service,
    /// The pods.
    pub deployment: Deployment,
    /// Keeps all but one of them when nodes are drained; without a second pod it would only block the drain.
    pub disruption_budget: Option<PodDisruptionBudget>,
}

/// The objects with the names of the gateway's that were found, and its pods.
#[derive(Debug, Clone, Default)]
pub struct ObservedGateway {
    /// See [`Gateway::service_account`].
    pub service_account: Option<ServiceAccount>,
    /// See [`Gateway::role`].
    pub role: Option<Role>,
    /// See [`Gateway::role_binding`].
    pub role_binding: Option<RoleBinding>,
    /// See [`Gateway::service`].
    pub service: Option<Service>,
    /// See [`Gateway::deployment`].
    pub deployment: Option<Deployment>,
    /// See [`Gateway::disruption_budget`].
    pub disruption_budget: Option<PodDisruptionBudget>,
    /// Its pods, read only while none of them is ready.
    pub pods: Vec<Pod>,
}

impl ObservedGateway {
    /// Pods that are ready.
    pub fn ready(&self) -> i32 {
        let status = self.deployment.as_ref().and_then(|deployment| deployment.status.as_ref());
        status.and_then(|status| status.ready_replicas).unwrap_or(0)
    }

    /// Refuses when an object of a name that we need belongs to somebody else.
    pub fn check_owner(&self, pool: &InferencePool) -> Result<(), Problem> {
        self.metadata().into_iter().try_for_each(|(kind, metadata)| match metadata {
            Some(metadata) => check_owner(pool, metadata, kind),
            None => Ok(()),
        })
    }

    /// The disruption budget, if it is ours and not wanted any more.
    pub fn surplus_disruption_budget(&self, pool: &InferencePool, wanted: &Gateway) -> Option<String> {
        let budget = self.disruption_budget.as_ref().filter(|_| wanted.disruption_budget.is_none())?;
        is_owned(pool, &budget.metadata).then(|| budget.name_any())
    }

    /// Why no pod is ready, as far as the objects say.
    pub fn obstacle(&self) -> Option<String> {
        let refusal = self.deployment.as_ref().and_then(refusal);
        let refused = refusal.map(|refusal| format!("pods cannot be created: {refusal}"));
        refused.or_else(|| self.pods.iter().find_map(|pod| pod::obstacle(pod, CONTAINER)))
    }

    fn metadata(&self) -> [(&'static str, Option<&ObjectMeta>); 6] {
        fn of<K: Resource>(object: Option<&K>) -> Option<&ObjectMeta> {
            object.map(Resource::meta)
        }
        [
            ("ServiceAccount", of(self.service_account.as_ref())),
            ("Role", of(self.role.as_ref())),
            ("RoleBinding", of(self.role_binding.as_ref())),
            ("Service", of(self.service.as_ref())),
            ("Deployment", of(self.deployment.as_ref())),
            ("PodDisruptionBudget", of(self.disruption_budget.as_ref())),
        ]
    }
}

/// Changes when something else is wanted or anything of what is there has changed. What was applied under the same
/// fingerprint need not be applied again.
pub fn fingerprint(wanted: &Gateway, found: &ObservedGateway) -> u64 {
    let mut hasher = DefaultHasher::new();
    format!("{wanted:?}").hash(&mut hasher);
    for (_, metadata) in found.metadata() {
        metadata.map(|metadata| (&metadata.uid, &metadata.resource_version)).hash(&mut hasher);
    }
    hasher.finish()
}

/// The name of every object of the gateway of pool `pool`.
pub fn name(pool: &str) -> String {
    format!("{pool}-gateway")
}

/// The address of the gateway inside the cluster.
pub fn url(pool: &str, namespace: &str) -> String {
    format!("http://{}.{namespace}.svc", name(pool))
}

/// Selects the pods of the gateway.
pub fn pod_selector(pool: &str) -> String {
    format!("{POOL_LABEL}={pool},{COMPONENT_LABEL}={COMPONENT}")
}

/// Pods that the gateway should have.
pub fn replicas(pool: &InferencePool) -> i32 {
    pool.spec.gateway.as_ref().and_then(|gateway| gateway.replicas).unwrap_or(REPLICAS)
}

/// The gateway of `pool`.
pub fn gateway(pool: &InferencePool, installation: &Installation) -> Gateway {
    Gateway {
        service_account: ServiceAccount {
            metadata: metadata(pool),
            // The pods ask for the token themselves, so nothing else that names this account gets one.
            automount_service_account_token: Some(false),
            ..Default::default()
        },
        role: Role { metadata: metadata(pool), rules: Some(rules()) },
        role_binding: role_binding(pool),
        service: service(pool),
        deployment: deployment(pool, installation),
        disruption_budget: (replicas(pool) >= 2).then(|| disruption_budget(pool)),
    }
}

fn metadata(pool: &InferencePool) -> ObjectMeta {
    ObjectMeta {
        name: Some(name(&pool.name_any())),
        namespace: pool.namespace(),
        labels: Some(labels(pool)),
        owner_references: pool.controller_owner_ref(&()).map(|owner| vec![owner]),
        ..Default::default()
    }
}

fn labels(pool: &InferencePool) -> BTreeMap<String, String> {
    let mut labels = parts::labels(COMPONENT, &pool.name_any());
    labels.insert(POOL_LABEL.to_owned(), pool.name_any());
    labels
}

fn selector(pool: &InferencePool) -> BTreeMap<String, String> {
    [(POOL_LABEL.to_owned(), pool.name_any()), (COMPONENT_LABEL.to_owned(), COMPONENT.to_owned())].into()
}

fn label_selector(pool: &InferencePool) -> LabelSelector {
    LabelSelector { match_labels: Some(selector(pool)), ..Default::default() }
}

/// The operator holds these rights too, so it may grant them.
fn rules() -> Vec<PolicyRule> {
    let read = |group: &str, resources: &[&str]| PolicyRule {
        api_groups: Some(vec![group.to_owned()]),
        resources: Some(resources.iter().map(|resource| (*resource).to_owned()).collect()),
        verbs: ["get", "list", "watch"].map(str::to_owned).into(),
        ..Default::default()
    };
    vec![
        read("inferno.ai", &["inferencepools", "inferencemodels"]),
        read("discovery.k8s.io", &["endpointslices"]),
    ]
}

fn role_binding(pool: &InferencePool) -> RoleBinding {
    RoleBinding {
        metadata: metadata(pool),
        role_ref: RoleRef {
            api_group: Some("rbac.authorization.k8s.io".into()),
            kind: "Role".into(),
            name: name(&pool.name_any()),
        },
        subjects: Some(vec![Subject {
            kind: "ServiceAccount".into(),
            name: name(&pool.name_any()),
            namespace: pool.namespace(),
            ..Default::default()
        }]),
    }
}

fn service(pool: &InferencePool) -> Service {
    Service {
        metadata: metadata(pool),
        spec: Some(ServiceSpec {
            selector: Some(selector(pool)),
            ports: Some(vec![http_port(80)]),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn deployment(pool: &InferencePool, installation: &Installation) -> Deployment {
    Deployment {
        metadata: metadata(pool),
        spec: Some(DeploymentSpec {
            replicas: Some(replicas(pool)),
            revision_history_limit: Some(1),
            selector: label_selector(pool),
            strategy: Some(one_more_at_a_time()),
            template: PodTemplateSpec {
                metadata: Some(ObjectMeta { labels: Some(labels(pool)), ..Default::default() }),
                spec: Some(pod(pool, installation)),
            },
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// Neither the nodes nor the tolerations of the pool: those are where its accelerators are.
fn pod(pool: &InferencePool, installation: &Installation) -> PodSpec {
    let grace = ENDPOINT_PROPAGATION_SECONDS + drain_seconds(pool) + SLACK_SECONDS;
    PodSpec {
        service_account_name: Some(name(&pool.name_any())),
        automount_service_account_token: Some(true),
        enable_service_links: Some(false),
        termination_grace_period_seconds: Some(i64::from(grace)),
        topology_spread_constraints: Some(vec![spread_over_nodes(label_selector(pool))]),
        security_context: Some(pod_security()),
        containers: vec![container(pool, installation)],
        ..Default::default()
    }
}

fn container(pool: &InferencePool, installation: &Installation) -> Container {
    Container {
        name: CONTAINER.into(),
        image: Some(installation.sidecar_image.clone()),
        image_pull_policy: Some(pull_policy(installation.sidecar_pull_policy).to_owned()),
        command: Some(vec![PROGRAM.to_owned()]),
        args: Some(arguments(pool, installation)),
        env: Some(own_identity().into()),
        ports: Some(vec![container_port("http", PORT), container_port("admin", ADMIN_PORT)]),
        // No limits: what waits is bounded by spec.gateway, and a kill would cost every stream that runs through.
        resources: Some(ResourceRequirements {
            requests: Some(quantities([("cpu", "50m"), ("memory", "64Mi")])),
            ..Default::default()
        }),
        readiness_probe: Some(http_probe("admin", "/readyz", 1, 2, 2)),
        liveness_probe: Some(http_probe("admin", "/healthz", 10, 5, 6)),
        security_context: Some(container_security()),
        ..Default::default()
    }
}

fn arguments(pool: &InferencePool, installation: &Installation) -> Vec<String> {
    let mut arguments = vec![
        ("--pool", pool.name_any()),
        ("--namespace", pool.namespace().unwrap_or_default()),
        ("--listen", format!("0.0.0.0:{PORT}")),
        ("--admin-listen", format!("0.0.0.0:{ADMIN_PORT}")),
        ("--endpoint-propagation-seconds", ENDPOINT_PROPAGATION_SECONDS.to_string()),
        ("--drain-seconds", drain_seconds(pool).to_string()),
    ];
    arguments.extend(installation.report_url.clone().map(|url| ("--report-url", url)));
    arguments.into_iter().flat_map(|(flag, value)| [flag.to_owned(), value]).collect()
}

fn drain_seconds(pool: &InferencePool) -> i32 {
    let timeout = pool.spec.queue.as_ref().and_then(|queue| queue.default_timeout_seconds);
    timeout.unwrap_or(DRAIN_SECONDS).clamp(1, DRAIN_SECONDS_MAX)
}

fn disruption_budget(pool: &InferencePool) -> PodDisruptionBudget {
    PodDisruptionBudget {
        metadata: metadata(pool),
        spec: Some(PodDisruptionBudgetSpec {
            max_unavailable: Some(IntOrString::Int(1)),
            selector: Some(label_selector(pool)),
            // A pod that is not ready serves nobody: it must not keep a node from being drained.
            unhealthy_pod_eviction_policy: Some("AlwaysAllow".into()),
            ..Default::default()
        }),
        ..Default::default()
    }
}
