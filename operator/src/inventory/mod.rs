//! What the nodes have room for: how many more pods of a kind they take, and which resource is short. Pure; what is
//! known of nodes and pods is kept in `watch`, and read from Kubernetes' objects in `figures`.
//!
//! It is a preference and never a verdict: the scheduler knows more (volumes, affinities, pods that are about to be
//! placed), and room that several models see at once is there only once. So what nobody knows, and what turns out
//! otherwise, sets no bound.

mod figures;
mod watch;

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Taint, Toleration};

pub use watch::Inventory;

/// The resource of which every pod takes one.
const PODS: &str = "pods";
/// Amounts are counted in thousandths, as `500m` is written.
const UNIT: i128 = 1_000;

/// Amounts by the name of the resource, in thousandths of its unit. A slice of a device is a name like any other.
pub type Amounts = BTreeMap<String, i128>;

/// A node as far as it matters to pods that look for one.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Node {
    /// Whether it is ready and not cordoned.
    pub is_open: bool,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its taints that keep pods away.
    pub taints: Vec<Taint>,
    /// What it has for pods.
    pub allocatable: Amounts,
}

/// A pod that has a node and has not ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Bound {
    /// The node.
    pub node: String,
    /// What is set aside for it there.
    pub requests: Amounts,
}

/// Which nodes a pod accepts.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Place {
    /// Labels that the node must have.
    pub node_selector: BTreeMap<String, String>,
    /// Taints that it may have.
    pub tolerations: Vec<Toleration>,
}

/// What a pod needs of a node.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Need {
    /// Which nodes it accepts.
    pub place: Place,
    /// What must be free there.
    pub requests: Amounts,
}

/// Room for more pods of one kind.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Room {
    /// Nobody knows: the operator may not look, has not seen everything yet, or has lost sight of it.
    #[default]
    Unknown,
    /// So many more fit, at least one.
    For(u32),
    /// None fits.
    Full(Shortage),
}

/// Why no node takes one more pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shortage {
    /// What most nodes lack, and how much of it a pod needs; `None` if there is no node to lack it.
    resource: Option<(String, i128)>,
    /// The nodes in question, as labels.
    nodes: String,
}

/// How much of a resource is taken, and how much there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Set aside for pods, in whole units.
    pub used: i128,
    /// For pods at all.
    pub allocatable: i128,
}

impl Room {
    /// Pods that still fit, if that is known.
    pub fn pods(&self) -> Option<u32> {
        match self {
            Self::Unknown => None,
            Self::For(pods) => Some(*pods),
            Self::Full(_) => Some(0),
        }
    }

    /// Why none fits, if that is so.
    pub fn shortage(&self) -> Option<&Shortage> {
        match self {
            Self::Full(shortage) => Some(shortage),
            Self::Unknown | Self::For(_) => None,
        }
    }
}

impl Shortage {
    /// What is short where, for so many pods more.
    pub fn sentence(&self, pods: usize) -> String {
        let Some((resource, per_pod)) = &self.resource else {
            let with = if self.nodes.is_empty() { String::new() } else { format!(" with {}", self.nodes) };
            return format!("no node{with} is ready and takes the pods");
        };
        let nodes =
            if self.nodes.is_empty() { "all nodes".to_owned() } else { format!("nodes {}", self.nodes) };
        // Devices are counted; bytes and parts of a core would say less than the pods that need them.
        let needed = if resource.contains('/') {
            let pods = i128::try_from(pods).unwrap_or(i128::MAX);
            format!("needed {} more", pods.saturating_mul(*per_pod) / UNIT)
        } else {
            format!("needed for {pods} more")
        };
        format!("{resource} is used up on {nodes} ({needed})")
    }
}

impl Node {
    /// Whether pods of this kind may be placed here, if there is room.
    fn is_for(&self, place: &Place) -> bool {
        let has = |(name, value): (&String, &String)| self.labels.get(name) == Some(value);
        let is_tolerated = |taint: &Taint| place.tolerations.iter().any(|each| tolerates(each, taint));
        self.is_open && place.node_selector.iter().all(has) && self.taints.iter().all(is_tolerated)
    }
}

fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    let (key, effect) = (text(&toleration.key), text(&toleration.effect));
    let is_same_value = match toleration.operator.as_deref() {
        Some("Exists") => true,
        None | Some("" | "Equal") => !key.is_empty() && text(&toleration.value) == text(&taint.value),
        Some(_) => false,
    };
    is_same_value && (key.is_empty() || key == taint.key) && (effect.is_empty() || effect == taint.effect)
}

/// How many more pods with this need the nodes take.
pub fn room<'seen>(
    nodes: &BTreeMap<String, Node>,
    pods: impl Iterator<Item = &'seen Bound>,
    need: &Need,
) -> Room {
    let free: Vec<Amounts> = free(nodes, pods, &need.place);
    let fitting: i128 = free.iter().map(|free| fits(free, &need.requests)).sum();
    match u32::try_from(fitting) {
        Ok(0) => Room::Full(Shortage { resource: short(&free, need), nodes: labels(&need.place) }),
        fitting => Room::For(fitting.unwrap_or(u32::MAX)),
    }
}

/// How much of a resource is taken on the nodes that pods of this kind accept.
pub fn usage<'seen>(
    nodes: &BTreeMap<String, Node>,
    pods: impl Iterator<Item = &'seen Bound>,
    place: &Place,
    resource: &str,
) -> Usage {
    let amount = |amounts: &Amounts| amounts.get(resource).copied().unwrap_or(0);
    let allocatable = nodes.values().filter(|node| node.is_for(place)).map(|node| amount(&node.allocatable));
    let allocatable: i128 = allocatable.sum();
    let free: i128 = free(nodes, pods, place).iter().map(amount).sum();
    Usage { used: (allocatable - free) / UNIT, allocatable: allocatable / UNIT }
}

/// What is left on each node that pods of this kind accept; less than nothing where somebody has overbooked it.
fn free<'seen>(
    nodes: &BTreeMap<String, Node>,
    pods: impl Iterator<Item = &'seen Bound>,
    place: &Place,
) -> Vec<Amounts> {
    let open = nodes.iter().filter(|(_, node)| node.is_for(place));
    let mut free: BTreeMap<&str, Amounts> =
        open.map(|(name, node)| (name.as_str(), node.allocatable.clone())).collect();
    for pod in pods {
        let Some(left) = free.get_mut(pod.node.as_str()) else { continue };
        for (resource, amount) in &pod.requests {
            *left.entry(resource.clone()).or_default() -= amount;
        }
    }
    free.into_values().collect()
}

/// Pods that fit into what is left of one node. Every pod takes one of `pods`, so there is always a bound.
fn fits(free: &Amounts, requests: &Amounts) -> i128 {
    let of = |(resource, amount): (&String, &i128)| {
        let free = free.get(resource).copied().unwrap_or(0).max(0);
        free.checked_div(*amount)
    };
    requests.iter().filter_map(of).min().unwrap_or(0)
}

/// The resource of which most nodes have less than a pod needs; of several the device, which is rarest.
fn short(free: &[Amounts], need: &Need) -> Option<(String, i128)> {
    let lacking = |resource: &str, amount: i128| {
        free.iter().filter(|free| free.get(resource).copied().unwrap_or(0) < amount).count()
    };
    let all = need.requests.iter().map(|(resource, amount)| (lacking(resource, *amount), resource, amount));
    let worst = all.max_by_key(|(nodes, resource, _)| (*nodes, resource.contains('/')));
    worst.filter(|_| !free.is_empty()).map(|(_, resource, amount)| (resource.clone(), *amount))
}

fn labels(place: &Place) -> String {
    let labels: Vec<String> =
        place.node_selector.iter().map(|(name, value)| format!("{name}={value}")).collect();
    labels.join(",")
}

#[cfg(test)]
mod tests;
