//! Nodes and pods of Kubernetes as figures. Pure. What cannot be read counts as if it were not there.

use std::collections::BTreeMap;

use crds::amount::Amount;
use crds::pool::InferencePool;
use k8s_openapi::api::core::v1::{self, Container, PodSpec, ResourceRequirements, Taint};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::{Amounts, Bound, Need, Node, PODS, Place, UNIT};

type Quantities = BTreeMap<String, Quantity>;

impl Node {
    /// What matters of a node.
    pub fn of(node: &v1::Node) -> Self {
        let spec = node.spec.as_ref();
        let status = node.status.as_ref();
        let conditions = status.and_then(|status| status.conditions.as_deref()).unwrap_or_default();
        let is_ready =
            conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True");
        let is_cordoned = spec.and_then(|spec| spec.unschedulable).unwrap_or(false);
        let taints = spec.and_then(|spec| spec.taints.as_deref()).unwrap_or_default();
        let keeps_away = |taint: &&Taint| taint.effect != "PreferNoSchedule";
        Self {
            is_open: is_ready && !is_cordoned,
            labels: node.metadata.labels.clone().unwrap_or_default(),
            taints: taints.iter().filter(keeps_away).cloned().collect(),
            allocatable: amounts(status.and_then(|status| status.allocatable.as_ref())),
        }
    }
}

impl Bound {
    /// What matters of a pod, if it has a node and has not ended.
    pub fn of(pod: &v1::Pod) -> Option<Self> {
        let spec = pod.spec.as_ref()?;
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
        let has_ended = matches!(phase, Some("Succeeded" | "Failed"));
        let node = spec.node_name.clone().filter(|node| !node.is_empty() && !has_ended)?;
        Some(Self { node, requests: requests(spec) })
    }
}

impl Place {
    /// Where the pods of a pool go.
    pub fn of(pool: &InferencePool) -> Self {
        Self { node_selector: pool.spec.node_selector.clone(), tolerations: pool.spec.tolerations.clone() }
    }
}

impl Need {
    /// What a pod needs that is made like this.
    pub fn of(spec: &PodSpec) -> Self {
        Self {
            place: Place {
                node_selector: spec.node_selector.clone().unwrap_or_default(),
                tolerations: spec.tolerations.clone().unwrap_or_default(),
            },
            requests: requests(spec),
        }
    }
}

/// What the scheduler sets aside for a pod. Containers run together, and with them those init containers that stay; the
/// others run before them, one after the other. What is said of the pod as a whole replaces what its containers say.
fn requests(spec: &PodSpec) -> Amounts {
    let mut together = Amounts::new();
    for container in &spec.containers {
        add(&mut together, &of_container(container));
    }
    let (mut staying, mut most) = (Amounts::new(), Amounts::new());
    for container in spec.init_containers.iter().flatten() {
        let mut own = of_container(container);
        add(&mut own, &staying);
        raise(&mut most, &own);
        if container.restart_policy.as_deref() == Some("Always") {
            add(&mut together, &of_container(container));
            staying = own;
        }
    }
    raise(&mut together, &most);
    together.extend(spec.resources.as_ref().map(of_resources).unwrap_or_default());
    add(&mut together, &amounts(spec.overhead.as_ref()));
    together.insert(PODS.to_owned(), UNIT);
    together
}

fn of_container(container: &Container) -> Amounts {
    container.resources.as_ref().map(of_resources).unwrap_or_default()
}

/// Where only a limit is given, that is also the request.
fn of_resources(resources: &ResourceRequirements) -> Amounts {
    let mut all = amounts(resources.limits.as_ref());
    all.extend(amounts(resources.requests.as_ref()));
    all
}

fn amounts(quantities: Option<&Quantities>) -> Amounts {
    let read = |(name, quantity): (&String, &Quantity)| {
        Some((name.clone(), Amount(quantity.0.clone()).thousandths()?))
    };
    quantities.into_iter().flatten().filter_map(read).collect()
}

fn add(to: &mut Amounts, more: &Amounts) {
    for (resource, amount) in more {
        *to.entry(resource.clone()).or_default() += amount;
    }
}

fn raise(to: &mut Amounts, at_least: &Amounts) {
    for (resource, amount) in at_least {
        let value = to.entry(resource.clone()).or_default();
        *value = (*value).max(*amount);
    }
}
