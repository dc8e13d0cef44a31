//! What all pods that we make have in common: labels, the restricted pod security standard, probes. Pure.

use std::collections::BTreeMap;

use crds::pool::ImagePullPolicy;
use k8s_openapi::api::apps::v1::{DeploymentStrategy, RollingUpdateDeployment};
use k8s_openapi::api::core::v1::{
    Capabilities, ContainerPort, EnvVar, EnvVarSource, HTTPGetAction, ObjectFieldSelector,
    PodSecurityContext, Probe, SeccompProfile, SecurityContext, ServicePort, TopologySpreadConstraint,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::MANAGER;

/// User and group of our images.
const USER_ID: i64 = 10_001;

/// Labels as Kubernetes recommends them.
pub fn labels(component: &str, instance: &str) -> BTreeMap<String, String> {
    [
        ("app.kubernetes.io/name", "inferno"),
        ("app.kubernetes.io/component", component),
        ("app.kubernetes.io/instance", instance),
        ("app.kubernetes.io/managed-by", MANAGER),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .into()
}

/// The restricted standard, for a pod.
pub fn pod_security() -> PodSecurityContext {
    PodSecurityContext {
        run_as_non_root: Some(true),
        run_as_user: Some(USER_ID),
        run_as_group: Some(USER_ID),
        fs_group: Some(USER_ID),
        fs_group_change_policy: Some("OnRootMismatch".into()),
        seccomp_profile: Some(SeccompProfile { type_: "RuntimeDefault".into(), ..Default::default() }),
        ..Default::default()
    }
}

/// The restricted standard, for a container; its root file system is read-only as well.
pub fn container_security() -> SecurityContext {
    SecurityContext {
        allow_privilege_escalation: Some(false),
        read_only_root_filesystem: Some(true),
        capabilities: Some(Capabilities { drop: Some(vec!["ALL".into()]), add: None }),
        ..Default::default()
    }
}

/// A new pod is ready before an old one goes.
pub fn one_more_at_a_time() -> DeploymentStrategy {
    DeploymentStrategy {
        type_: Some("RollingUpdate".into()),
        rolling_update: Some(RollingUpdateDeployment {
            max_unavailable: Some(IntOrString::Int(0)),
            max_surge: Some(IntOrString::Int(1)),
        }),
    }
}

/// On different nodes where there are several.
pub fn spread_over_nodes(selector: LabelSelector) -> TopologySpreadConstraint {
    TopologySpreadConstraint {
        max_skew: 1,
        topology_key: "kubernetes.io/hostname".into(),
        when_unsatisfiable: "ScheduleAnyway".into(),
        label_selector: Some(selector),
        ..Default::default()
    }
}

/// Name, namespace and UID of the pod itself, for its reports.
pub fn own_identity() -> [EnvVar; 3] {
    [("POD_NAME", "metadata.name"), ("POD_NAMESPACE", "metadata.namespace"), ("POD_UID", "metadata.uid")].map(
        |(name, field)| EnvVar {
            name: name.into(),
            value_from: Some(EnvVarSource {
                field_ref: Some(ObjectFieldSelector {
                    api_version: Some("v1".into()),
                    field_path: field.into(),
                }),
                ..Default::default()
            }),
            ..Default::default()
        },
    )
}

/// Port `port` of a Service, which leads to the pods' port `http`.
pub fn http_port(port: i32) -> ServicePort {
    ServicePort {
        name: Some("http".into()),
        port,
        protocol: Some("TCP".into()),
        target_port: Some(IntOrString::String("http".into())),
        ..Default::default()
    }
}

/// A port of a container.
pub fn container_port(name: &str, port: i32) -> ContainerPort {
    ContainerPort {
        name: Some(name.into()),
        container_port: port,
        protocol: Some("TCP".into()),
        ..Default::default()
    }
}

/// Asks `path` on the port called `port` every `period_seconds`.
pub fn http_probe(
    port: &str,
    path: &str,
    period_seconds: i32,
    timeout_seconds: i32,
    failure_threshold: i32,
) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.into()),
            port: IntOrString::String(port.into()),
            ..Default::default()
        }),
        period_seconds: Some(period_seconds),
        timeout_seconds: Some(timeout_seconds),
        failure_threshold: Some(failure_threshold),
        ..Default::default()
    }
}

/// Amounts of resources by their names.
pub fn quantities<const COUNT: usize>(pairs: [(&str, &str); COUNT]) -> BTreeMap<String, Quantity> {
    pairs.map(|(name, amount)| (name.to_owned(), Quantity(amount.to_owned()))).into()
}

/// As Kubernetes writes it.
pub fn pull_policy(policy: ImagePullPolicy) -> &'static str {
    match policy {
        ImagePullPolicy::Always => "Always",
        ImagePullPolicy::IfNotPresent => "IfNotPresent",
        ImagePullPolicy::Never => "Never",
    }
}
