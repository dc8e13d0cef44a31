#![expect(clippy::needless_pass_by_value, reason = "samples are written where they are used")]

use k8s_openapi::api::core::v1;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

const GPU: &str = "nvidia.com/gpu";

fn node(changes: Value) -> Node {
    let mut object = json!({
        "metadata": {"name": "n", "labels": {"accelerator": "l40s"}},
        "spec": {},
        "status": {
            "allocatable": {"cpu": "8", "memory": "64Gi", "pods": "110", GPU: "4"},
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    });
    merge(&mut object, &changes);
    Node::of(&serde_json::from_value::<v1::Node>(object).unwrap())
}

fn merge(into: &mut Value, changes: &Value) {
    match changes {
        Value::Object(fields) => {
            for (name, value) in fields {
                merge(&mut into[name.as_str()], value);
            }
        }
        value => *into = value.clone(),
    }
}

fn spec(value: Value) -> v1::PodSpec {
    serde_json::from_value(value).unwrap()
}

/// A pod with one container that asks for this.
fn asking(requests: Value) -> v1::PodSpec {
    spec(json!({"containers": [{"name": "serve", "resources": {"requests": requests}}]}))
}

fn bound(node: &str, requests: Value) -> Bound {
    let pod = v1::Pod {
        spec: Some(v1::PodSpec { node_name: Some(node.to_owned()), ..asking(requests) }),
        ..Default::default()
    };
    Bound::of(&pod).unwrap()
}

fn nodes(all: Vec<Node>) -> BTreeMap<String, Node> {
    all.into_iter().enumerate().map(|(number, node)| (format!("n{number}"), node)).collect()
}

#[track_caller]
fn check(nodes: &BTreeMap<String, Node>, pods: &[Bound], need: &v1::PodSpec, expected: u32) -> Room {
    let found = room(nodes, pods.iter(), &Need::of(need));
    assert_eq!(found.pods(), Some(expected));
    found
}

#[test]
fn the_scarcest_resource_of_each_node_counts() {
    let two = nodes(vec![node(json!({})), node(json!({"status": {"allocatable": {"cpu": "1500m"}}}))]);
    check(&two, &[], &asking(json!({GPU: "1", "cpu": "500m"})), 4 + 3);
    check(&two, &[bound("n0", json!({GPU: "3"}))], &asking(json!({GPU: "1", "cpu": "500m"})), 1 + 3);
    check(&two, &[bound("elsewhere", json!({GPU: "3"}))], &asking(json!({GPU: "2"})), 4);
    check(&two, &[], &asking(json!({"nvidia.com/mig-1g.5gb": "1"})), 0);
    check(&two, &[], &asking(json!({})), 220);
    let overbooked = [bound("n0", json!({GPU: "9"})), bound("n1", json!({"cpu": "1"}))];
    check(&two, &overbooked, &asking(json!({GPU: "1", "cpu": "1"})), 0);
}

#[test]
fn every_pod_takes_one_of_the_nodes_places() {
    let small = nodes(vec![node(json!({"status": {"allocatable": {"pods": "3"}}}))]);
    check(&small, &[bound("n0", json!({})), bound("n0", json!({}))], &asking(json!({"cpu": "1m"})), 1);
}

#[test]
fn only_nodes_that_take_pods_count() {
    let gpu = asking(json!({GPU: "4"}));
    let selecting = |label: &str| {
        spec(json!({"nodeSelector": {"accelerator": label}, "containers": gpu.containers, "tolerations": [
            {"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}, {"key": "team", "value": "ml"}]}))
    };
    let tainted = |taints: Value| nodes(vec![node(json!({"spec": {"taints": taints}}))]);
    check(&nodes(vec![node(json!({}))]), &[], &selecting("l40s"), 1);
    check(&nodes(vec![node(json!({}))]), &[], &selecting("h100"), 0);
    check(&nodes(vec![node(json!({"spec": {"unschedulable": true}}))]), &[], &gpu, 0);
    check(&nodes(vec![node(json!({"status": {"conditions": []}}))]), &[], &gpu, 0);
    check(&tainted(json!([{"key": "gpu", "effect": "NoSchedule"}])), &[], &gpu, 0);
    check(&tainted(json!([{"key": "gpu", "effect": "PreferNoSchedule"}])), &[], &gpu, 1);
    let both = json!([{"key": "gpu", "effect": "NoSchedule"}, {"key": "team", "value": "ml", "effect": "NoExecute"}]);
    check(&tainted(both), &[], &selecting("l40s"), 1);
    check(&tainted(json!([{"key": "gpu", "effect": "NoExecute"}])), &[], &selecting("l40s"), 0);
    check(
        &tainted(json!([{"key": "team", "value": "web", "effect": "NoSchedule"}])),
        &[],
        &selecting("l40s"),
        0,
    );
    let anything = spec(json!({"containers": gpu.containers, "tolerations": [{"operator": "Exists"}]}));
    check(&tainted(json!([{"key": "any", "effect": "NoExecute"}])), &[], &anything, 1);
}

#[test]
fn a_pod_needs_what_the_scheduler_sets_aside_for_it() {
    let container = |resources: Value| json!({"name": "c", "resources": resources});
    let cpu = |amount: &str| container(json!({"requests": {"cpu": amount}}));
    let mut stays = cpu("300m");
    stays["restartPolicy"] = json!("Always");
    let needs = |spec_: Value, expected: i128| {
        assert_eq!(Need::of(&spec(spec_.clone())).requests["cpu"], expected, "{spec_}");
    };
    needs(json!({"containers": [cpu("100m"), cpu("200m")], "initContainers": [cpu("250m")]}), 300);
    needs(json!({"containers": [cpu("100m")], "initContainers": [cpu("250m"), cpu("1")]}), 1_000);
    needs(json!({"containers": [cpu("100m")], "initContainers": [cpu("350m"), stays.clone()]}), 400);
    needs(json!({"containers": [cpu("100m")], "initContainers": [stays.clone(), cpu("350m")]}), 650);
    needs(json!({"containers": [cpu("100m")], "overhead": {"cpu": "50m"}}), 150);
    needs(json!({"containers": [cpu("1")], "resources": {"requests": {"cpu": "3"}}}), 3_000);
    needs(json!({"containers": [container(json!({"limits": {"cpu": "2"}}))]}), 2_000);
    needs(
        json!({"containers": [container(json!({"limits": {"cpu": "2"}, "requests": {"cpu": "1"}}))]}),
        1_000,
    );
    let strange = Need::of(&spec(json!({"containers": [cpu("many")]}))).requests;
    assert_eq!(strange, [(PODS.to_owned(), UNIT)].into(), "what cannot be read is not there");
}

#[test]
fn what_is_short_is_named_with_the_nodes_and_how_much_more_is_needed() {
    let full = nodes(vec![node(json!({}))]);
    let says = |need: &v1::PodSpec, pods: &[Bound], expected: &str| {
        let found = check(&full, pods, need, 0);
        assert_eq!(found.shortage().unwrap().sentence(2), expected);
    };
    let taken = [bound("n0", json!({GPU: "3", "cpu": "7"}))];
    let l40s = |requests: Value| v1::PodSpec {
        node_selector: Some([("accelerator".to_owned(), "l40s".to_owned())].into()),
        ..asking(requests)
    };
    says(
        &l40s(json!({GPU: "2"})),
        &taken,
        "nvidia.com/gpu is used up on nodes accelerator=l40s (needed 4 more)",
    );
    says(
        &asking(json!({GPU: "2", "cpu": "2"})),
        &taken,
        "nvidia.com/gpu is used up on all nodes (needed 4 more)",
    );
    says(&asking(json!({GPU: "1", "cpu": "2"})), &taken, "cpu is used up on all nodes (needed for 2 more)");
    let mut other = l40s(json!({}));
    other.node_selector = Some([("accelerator".to_owned(), "h100".to_owned())].into());
    says(&other, &[], "no node with accelerator=h100 is ready and takes the pods");
    let nowhere = room(&BTreeMap::new(), [].into_iter(), &Need::of(&asking(json!({}))));
    assert_eq!(nowhere.shortage().unwrap().sentence(1), "no node is ready and takes the pods");
}

#[test]
fn devices_in_use_are_counted_where_the_pools_pods_go() {
    let mut cluster = nodes(vec![node(json!({})), node(json!({}))]);
    cluster.insert("other".to_owned(), node(json!({"metadata": {"labels": {"accelerator": "h100"}}})));
    let pods = [bound("n1", json!({GPU: "3"})), bound("other", json!({GPU: "4"}))];
    let place =
        Place { node_selector: [("accelerator".to_owned(), "l40s".to_owned())].into(), ..Place::default() };
    let used = |resource| usage(&cluster, pods.iter(), &place, resource);
    assert_eq!(used(GPU), Usage { used: 3, allocatable: 8 });
    assert_eq!(used("amd.com/gpu"), Usage { used: 0, allocatable: 0 });
}

proptest! {
    /// Placing one pod after the other, wherever one fits, ends after exactly as many.
    #[test]
    fn as_many_fit_as_can_be_placed_one_by_one(
        sizes in prop::collection::vec((0..9_i128, 0..9_i128, 0..6_i128), 0..5),
        taken in prop::collection::vec((0..5_usize, 0..4_i128, 0..4_i128), 0..8),
        (cpu, gpu) in (0..4_i128, 0..4_i128),
    ) {
        let amounts = |cpu: i128, gpu: i128, pods: i128| -> Amounts {
            [("cpu", cpu), (GPU, gpu), (PODS, pods)].map(|(name, n)| (name.to_owned(), n * UNIT)).into()
        };
        let cluster = nodes(sizes.iter().map(|(cpu, gpu, pods)| Node {
            is_open: true, allocatable: amounts(*cpu, *gpu, *pods), ..Node::default()
        }).collect());
        let mut pods: Vec<Bound> = taken.iter().map(|(node, cpu, gpu)| Bound {
            node: format!("n{node}"), requests: amounts(*cpu, *gpu, 1),
        }).collect();
        let need = Need { requests: amounts(cpu, gpu, 1), ..Need::default() };
        let promised = room(&cluster, pods.iter(), &need);
        let mut placed = 0;
        for (name, node) in &cluster {
            loop {
                let left = |resource: &str| {
                    let used = pods.iter().filter(|pod| pod.node == *name).map(|pod| pod.requests[resource]);
                    node.allocatable[resource] - used.sum::<i128>()
                };
                if need.requests.iter().any(|(resource, amount)| *amount > 0 && left(resource) < *amount) {
                    break;
                }
                pods.push(Bound { node: name.clone(), requests: need.requests.clone() });
                placed += 1;
            }
        }
        prop_assert_eq!(promised.pods(), Some(placed));
        prop_assert_eq!(promised.shortage().is_some(), placed == 0);
    }
}
