//! What the chart installs, as `helm template` renders it: the operator's rights stay as small as they are.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

use std::collections::BTreeSet;
use std::process::Command;

use serde_yaml::Value;
use tests::release::repository;

/// All that any installation may grant, as "group/resource: verbs". A line more is a decision, not an accident.
const RIGHTS: [&str; 15] = [
    "apps/deployments: create delete get list patch watch",
    "coordination.k8s.io/leases: create",
    "coordination.k8s.io/leases: get update",
    "discovery.k8s.io/endpointslices: get list watch",
    "events.k8s.io/events: create patch",
    "inferno.ai/inferencemodels inferencepools: get list watch",
    "inferno.ai/inferencemodels/finalizers: update",
    "inferno.ai/inferencemodels/status inferencepools/status: patch",
    "policy/poddisruptionbudgets: create delete get patch",
    "rbac.authorization.k8s.io/rolebindings roles: create get patch",
    "/configmaps: get",
    "/persistentvolumeclaims: get",
    "/pods: get list patch watch",
    "/serviceaccounts: create get patch",
    "/services: create delete get list patch watch",
];

/// What comes with the right to look after all namespaces. Whoever may see everybody's pods learns from nodes what they have
/// room for, and little that those pods do not tell. Read only, and nobody who asks for a few namespaces grants it.
const RIGHTS_OF_ALL: [&str; 1] = ["/nodes: list watch"];

/// Renders the chart with the given values. The helm of the test bed is taken, else the one on PATH.
fn render(values: &[&str]) -> Vec<Value> {
    let built = repository().join("target/testbed/bin/helm");
    let helm = if built.exists() { built } else { "helm".into() };
    let mut command = Command::new(helm);
    command.args(["template", "inferno", "charts/inferno", "--namespace", "inferno-system"]);
    command.args(values.iter().flat_map(|value| ["--set", value]));
    let output = command.current_dir(repository()).output().expect("helm; `make prepare` builds it");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let documents = serde_yaml::Deserializer::from_str(&text);
    let objects = documents.map(|document| serde::Deserialize::deserialize(document).unwrap());
    objects.filter(|object: &Value| !object.is_null()).collect()
}

fn words(list: &Value) -> String {
    let words: BTreeSet<&str> =
        list.as_sequence().unwrap().iter().map(|word| word.as_str().unwrap()).collect();
    words.into_iter().collect::<Vec<_>>().join(" ")
}

fn rights(objects: &[Value]) -> BTreeSet<String> {
    objects
        .iter()
        .filter(|object| matches!(object["kind"].as_str(), Some("Role" | "ClusterRole")))
        .flat_map(|role| role["rules"].as_sequence().unwrap())
        .map(|rule| {
            format!("{}/{}: {}", words(&rule["apiGroups"]), words(&rule["resources"]), words(&rule["verbs"]))
        })
        .collect()
}

#[test]
fn every_way_to_install_grants_the_same_small_rights() {
    for values in [
        &[][..],
        &["watchNamespaces={default,ml}"],
        &["watchNamespaces={*}"],
        &["replicas=2", "demoModel.enabled=true"],
        &["notifications.secretName=receivers"],
    ] {
        let of_all = RIGHTS_OF_ALL.iter().filter(|_| values == ["watchNamespaces={*}"]);
        let expected = RIGHTS.iter().chain(of_all).map(|right| (*right).to_owned()).collect();
        assert_eq!(rights(&render(values)), expected, "with {values:?}");
    }
}

#[test]
fn receivers_reach_the_operator_as_files_that_the_kubelet_mounts() {
    let pod = |values: &[&str]| {
        let objects = render(values);
        let operator = objects.iter().find(|object| object["kind"] == "Deployment").unwrap();
        operator["spec"]["template"]["spec"].clone()
    };
    assert!(pod(&[])["volumes"].is_null());
    let pod = pod(&["notifications.secretName=receivers", "notifications.clusterName=north"]);
    assert_eq!(pod["volumes"][0]["secret"]["secretName"], "receivers");
    let container = &pod["containers"][0];
    assert_eq!(container["volumeMounts"][0]["readOnly"], Value::Bool(true));
    let variable = |name: &str| {
        let variables = container["env"].as_sequence().unwrap();
        variables.iter().find(|variable| variable["name"] == name).map(|found| found["value"].clone())
    };
    assert_eq!(
        variable("INFERNO_RECEIVERS_DIRECTORY"),
        Some(container["volumeMounts"][0]["mountPath"].clone())
    );
    assert_eq!(variable("INFERNO_CLUSTER_NAME"), Some("north".into()));
}

#[test]
fn only_a_star_makes_rights_cluster_wide() {
    let is_cluster_wide =
        |values: &[&str]| render(values).iter().any(|object| object["kind"] == "ClusterRole");
    assert!(!is_cluster_wide(&["watchNamespaces={default}"]));
    assert!(is_cluster_wide(&["watchNamespaces={*}"]));
}

#[test]
fn every_container_meets_the_restricted_standard() {
    let objects = render(&["demoModel.enabled=true"]);
    let deployments: Vec<&Value> = objects.iter().filter(|object| object["kind"] == "Deployment").collect();
    assert_eq!(deployments.len(), 2, "the operator and the demo model's file server");
    for deployment in deployments {
        let pod = &deployment["spec"]["template"]["spec"];
        let name = &deployment["metadata"]["name"];
        assert_eq!(pod["securityContext"]["runAsNonRoot"], Value::Bool(true), "{name:?}");
        for container in pod["containers"].as_sequence().unwrap() {
            let context = &container["securityContext"];
            assert_eq!(context["allowPrivilegeEscalation"], Value::Bool(false), "{name:?}");
            assert_eq!(context["readOnlyRootFilesystem"], Value::Bool(true), "{name:?}");
            assert_eq!(context["capabilities"]["drop"][0], "ALL", "{name:?}");
        }
    }
}
