//! What is planned for a pool: its gateway, and what its status says.
#![expect(clippy::needless_pass_by_value, reason = "samples are written where they are used")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on should stop right there")]

use crds::model::InferenceModel;
use crds::pool::{ImagePullPolicy, InferencePool};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use operator::gateway::{ObservedGateway, fingerprint, gateway};
use operator::inventory::Usage;
use operator::objects::Installation;
use operator::pool::{ObservedPool, PoolPlan, plan_pool};
use serde_json::{Value, json};

fn installation() -> Installation {
    Installation {
        sidecar_image: "sidecar:dev".into(),
        sidecar_pull_policy: ImagePullPolicy::IfNotPresent,
        report_url: Some("http://reports:8090".into()),
    }
}

fn pool(spec: Value) -> InferencePool {
    serde_json::from_value(json!({
        "metadata": {"name": "cpu", "namespace": "ml", "uid": "pool-uid", "generation": 3}, "spec": spec,
    }))
    .unwrap()
}

fn model(name: &str, pool: &str, replicas: i32, ready: i32) -> InferenceModel {
    serde_json::from_value(json!({
        "metadata": {"name": name},
        "spec": {"poolRef": {"name": pool}, "source": {"http": {"url": "http://a/b"}}},
        "status": {"replicas": replicas, "readyReplicas": ready},
    }))
    .unwrap()
}

/// An object of ours, as far as its owner tells.
fn metadata() -> Value {
    let owner = json!({"apiVersion": "inferno.ai/v1alpha1", "kind": "InferencePool", "name": "cpu", "uid": "pool-uid"});
    json!({"name": "cpu-gateway", "resourceVersion": "1", "ownerReferences": [owner]})
}

/// A gateway with so many ready pods.
fn found(ready: i32) -> ObservedGateway {
    let deployment = json!({
        "metadata": metadata(),
        "spec": {"selector": {}, "template": {}},
        "status": {"readyReplicas": ready},
    });
    ObservedGateway { deployment: serde_json::from_value(deployment).unwrap(), ..Default::default() }
}

fn planned(pool: &InferencePool, observed: &ObservedPool) -> PoolPlan {
    plan_pool(pool, observed, &installation(), Timestamp::from_second(1_800_000_000).unwrap())
}

fn check(pool: &InferencePool, observed: &ObservedPool, ready: (&str, &str), message: &str) -> PoolPlan {
    let plan = planned(pool, observed);
    let condition = &plan.status.conditions[0];
    assert_eq!((condition.status.as_str(), condition.reason.as_str()), ready, "{}", condition.message);
    assert!(condition.message.contains(message), "{:?} lacks {message:?}", condition.message);
    assert_eq!(condition.observed_generation, Some(3));
    plan
}

#[test]
fn a_pool_is_ready_when_its_gateway_answers() {
    let pool = pool(json!({}));
    let plan = check(
        &pool,
        &ObservedPool::default(),
        ("False", "GatewayUnavailable"),
        "no pod of gateway cpu-gateway is ready; it is being started",
    );
    assert_eq!(plan.notices, [], "a first start is no warning");
    let observed = ObservedPool { gateway: found(1), ..Default::default() };
    let plan = check(&pool, &observed, ("True", "Valid"), "");
    assert_eq!(plan.status.url.as_deref(), Some("http://cpu-gateway.ml.svc"));
    let gateway = plan.status.gateway.unwrap();
    assert_eq!((gateway.replicas, gateway.ready_replicas), (2, 1));
    assert_eq!(plan.notices[0].reason, "GatewayReady");
}

#[test]
fn a_lost_gateway_is_a_warning_once() {
    let mut pool = pool(json!({}));
    let answering = ObservedPool { gateway: found(2), ..Default::default() };
    pool.status = Some(planned(&pool, &answering).status);
    let lost = ObservedPool { gateway: found(0), ..Default::default() };
    let plan = check(&pool, &lost, ("False", "GatewayUnavailable"), "");
    assert!(plan.notices[0].is_warning);
    pool.status = Some(plan.status);
    assert_eq!(planned(&pool, &lost).notices, []);
}

#[test]
fn the_kubelet_and_the_scheduler_are_quoted() {
    let with = |status: Value| {
        let pod =
            json!({"metadata": {"name": "cpu-gateway-x"}, "spec": {"containers": []}, "status": status});
        let gateway = ObservedGateway { pods: vec![serde_json::from_value(pod).unwrap()], ..found(0) };
        ObservedPool { gateway, ..Default::default() }
    };
    let container = |state: Value, last: Value| {
        json!({"containerStatuses": [{"name": "gateway", "image": "i", "imageID": "", "ready": false,
               "restartCount": 1, "state": state, "lastState": last}]})
    };
    let cases = [
        (
            json!({"conditions": [{"type": "PodScheduled", "status": "False", "message": "0/1 nodes are available"}]}),
            "pod cpu-gateway-x has no node: 0/1 nodes are available",
        ),
        (
            container(json!({"waiting": {"reason": "ErrImagePull", "message": "no such image"}}), json!({})),
            "pod cpu-gateway-x: ErrImagePull: no such image",
        ),
        (
            container(
                json!({"waiting": {"reason": "CrashLoopBackOff"}}),
                json!({"terminated": {"exitCode": 2}}),
            ),
            "pod cpu-gateway-x ended with code 2",
        ),
    ];
    for (status, message) in cases {
        check(&pool(json!({})), &with(status), ("False", "GatewayUnavailable"), message);
    }
}

#[test]
fn counts_only_its_own_models() {
    let models = vec![model("a", "cpu", 2, 1), model("b", "gpu", 5, 5), model("c", "cpu", 1, 1)];
    let status = planned(&pool(json!({})), &ObservedPool { models, ..Default::default() }).status;
    assert_eq!((status.models, status.replicas, status.ready_replicas), (2, 3, 2));
}

#[test]
fn devices_in_use_are_told_if_somebody_knows() {
    let told = |accelerators| {
        let observed = ObservedPool { accelerators, ..Default::default() };
        planned(&pool(json!({})), &observed).status.accelerators
    };
    assert_eq!(told(Some(Usage { used: 3, allocatable: 8 })).as_deref(), Some("3/8"));
    assert_eq!(told(None), None);
}

#[test]
fn a_missing_claim_is_told_and_the_gateway_runs_nevertheless() {
    let pool = pool(json!({"modelCache": {"mode": "PersistentVolumeClaim", "claimName": "weights"}}));
    let with =
        |has_claim| ObservedPool { has_claim: Some(has_claim), gateway: found(2), ..Default::default() };
    let plan =
        check(&pool, &with(false), ("False", "ClaimUnavailable"), "spec.modelCache.claimName is weights");
    assert!(plan.gateway.is_some());
    check(&pool, &with(true), ("True", "Valid"), "");
}

#[test]
fn a_strangers_object_is_not_taken_over() {
    let mut observed = ObservedPool { gateway: found(2), ..Default::default() };
    let stranger = json!({"metadata": {"name": "cpu-gateway"}});
    observed.gateway.service = serde_json::from_value(stranger).unwrap();
    let plan = check(&pool(json!({})), &observed, ("False", "NameConflict"), "Service cpu-gateway exists");
    assert_eq!((plan.gateway, plan.prune_disruption_budget), (None, None));
}

#[test]
fn one_pod_has_no_disruption_budget_and_one_of_before_goes() {
    let mut observed = ObservedPool { gateway: found(1), ..Default::default() };
    let budget = json!({"metadata": metadata()});
    observed.gateway.disruption_budget = serde_json::from_value(budget).unwrap();
    let plan = planned(&pool(json!({"gateway": {"replicas": 1}})), &observed);
    assert_eq!(plan.gateway.unwrap().disruption_budget, None);
    assert_eq!(plan.prune_disruption_budget.as_deref(), Some("cpu-gateway"));
    let plan = planned(&pool(json!({"gateway": {"replicas": 2}})), &observed);
    assert_eq!(plan.gateway.unwrap().disruption_budget.unwrap().name_any(), "cpu-gateway");
    assert_eq!(plan.prune_disruption_budget, None);
}

#[test]
fn nothing_is_applied_twice_to_what_has_not_changed() {
    let of =
        |spec: Value, found: &ObservedGateway| fingerprint(&gateway(&pool(spec), &installation()), found);
    let settled = of(json!({}), &found(2));
    assert_eq!(of(json!({}), &found(2)), settled);
    assert_eq!(of(json!({"limits": {"maxReplicas": 3}}), &found(2)), settled, "the gateway is the same");
    assert_ne!(of(json!({"gateway": {"replicas": 3}}), &found(2)), settled);
    assert_ne!(of(json!({}), &ObservedGateway::default()), settled);
    let mut touched = found(2);
    touched.deployment.as_mut().unwrap().metadata.resource_version = Some("2".into());
    assert_ne!(of(json!({}), &touched), settled);
}

#[test]
fn running_requests_get_as_long_to_end_as_they_may_take() {
    let grace = |spec: Value| {
        let template = gateway(&pool(spec), &installation()).deployment.spec.unwrap().template;
        template.spec.unwrap().termination_grace_period_seconds.unwrap()
    };
    assert_eq!(grace(json!({})), 315);
    assert_eq!(grace(json!({"queue": {"defaultTimeoutSeconds": 600}})), 615);
    assert_eq!(grace(json!({"queue": {"defaultTimeoutSeconds": 86_400}})), 3_615);
}
