//! A first start.

use crds::model::RolloutPhase;
use kube::ResourceExt;
use operator::plan::Route;
use serde_json::json;

use super::scene::*;

#[test]
fn a_new_model_gets_a_headless_service_and_a_deployment() {
    let model = model(json!({}));
    let target = revision(&model);
    let plan = scene(model).check(&expected(("False", "Starting"), "Starting").applied(&target, 1));
    let [service] = plan.services.as_slice() else { panic!("{:?}", plan.services) };
    assert_eq!(service.name_any(), target);
    assert_eq!(service.labels()["inferno.ai/pool"], "cpu");
    assert_eq!(service.spec.as_ref().unwrap().cluster_ip.as_deref(), Some("None"));
    assert_eq!(plan.status.url.as_deref(), Some("http://cpu-gateway.default.svc/v1"));
    assert_eq!(plan.status.selector.as_deref(), Some("inferno.ai/model=tiny"));
    assert_eq!(plan.status.target_revision.as_ref(), Some(&target));
    assert_eq!(plan.status.stable_revision, None);
    assert_eq!(plan.status.observed_generation, Some(7));
    assert_eq!(plan.probes, []);
}

#[test]
fn a_download_is_shown_while_it_runs() {
    let model = model(json!({}));
    let target = revision(&model);
    let scene = scene(model).deployment(&target, 1, 0).downloading_pod(&target);
    let plan = scene.check(
        &expected(("False", "Downloading"), "Downloading 43% (12 s left)")
            .applied(&target, 1)
            .message(&target),
    );
    assert_eq!(condition(&plan, "ModelAvailable").1, "Downloading");
    let rollout = plan.status.rollout.unwrap();
    assert_eq!((rollout.phase, rollout.percent), (RolloutPhase::Downloading, Some(43)));
    assert_eq!(rollout.ready_at.unwrap().0.as_second(), NOW + 12);
    assert_eq!(rollout.weight_basis_points, None, "there is no canary");
}

#[test]
fn ready_pods_alone_do_not_make_a_model_ready() {
    let model = model(json!({}));
    let target = revision(&model);
    let scene = scene(model).deployment(&target, 1, 1).ready_pod(&target);
    let plan = scene.check(&expected(("False", "Proving"), "Proving").available().applied(&target, 1));
    assert_eq!(asked(&plan), [(Route::Gateway, "http://cpu-gateway.default.svc/v1")]);
    assert_eq!(
        (plan.probes[0].revision.as_str(), plan.probes[0].model_name.as_str()),
        (target.as_str(), "tiny")
    );
}

#[test]
fn one_token_makes_it_ready() {
    let model = model(json!({}));
    let target = revision(&model);
    let scene =
        scene(model).deployment(&target, 1, 1).ready_pod(&target).proof(&target, Route::Gateway, 0, true);
    let plan = scene.check(&expected(("True", "ServedToken"), "Stable").available().applied(&target, 1));
    assert_eq!(plan.status.stable_revision, Some(target));
    assert_eq!(plan.status.target_revision, None);
    assert_eq!(condition(&plan, "ModelAvailable").0, "True");
    assert_eq!(condition(&plan, "Progressing").0, "False");
    assert_eq!(plan.status.summary.unwrap().replicas, "1/1");
    assert_eq!(plan.probes, [], "a proof of ten seconds ago is fresh");
}

#[test]
fn without_probing_ready_pods_are_enough() {
    let model = model(json!({}));
    let target = revision(&model);
    let mut scene = scene(model).deployment(&target, 1, 1).ready_pod(&target);
    scene.observed.is_probing = false;
    let plan = scene.check(&expected(("True", "PodsReady"), "Stable").available().applied(&target, 1));
    assert_eq!(plan.probes, []);
}

#[test]
fn a_deployment_whose_status_is_old_is_not_complete() {
    let model = model(json!({}));
    let target = revision(&model);
    let mut scene =
        scene(model).deployment(&target, 1, 1).ready_pod(&target).proof(&target, Route::Gateway, 0, true);
    scene.observed.deployments[0].metadata.generation = Some(2);
    assert_ne!(condition(&scene.plan(), "Ready").0, "True");
}

#[test]
fn a_gateway_that_is_not_ready_is_not_the_models_fault() {
    let model = model(json!({}));
    let target = revision(&model);
    let complete = || scene(model.clone()).deployment(&target, 1, 1).ready_pod(&target).without_gateway();
    let plan = complete().check(&expected(("False", "Proving"), "Proving").available().applied(&target, 1));
    assert_eq!(asked(&plan), [(Route::Pod, "http://10.0.0.7:8080/v1")], "the pod can prove itself meanwhile");

    let plan = complete().proof(&target, Route::Pod, 0, true).check(
        &expected(("False", "GatewayUnavailable"), "GatewayUnavailable")
            .available()
            .applied(&target, 1)
            .message("no pod of gateway cpu-gateway is; the Ready condition of InferencePool cpu says why"),
    );
    assert_eq!(plan.status.stable_revision.as_ref(), Some(&target));
    assert_eq!(plan.status.rollout.as_ref().unwrap().phase, RolloutPhase::Proving, "it is awaited");
    assert!(plan.notices.iter().all(|notice| !notice.is_warning));
    assert_eq!(plan.probes, []);
}

#[test]
fn a_gateway_that_nobody_reaches_is_told_as_such() {
    let model = model(json!({}));
    let target = revision(&model);
    let mut scene = scene(model)
        .after(stable_status(&target))
        .deployment(&target, 1, 1)
        .ready_pod(&target)
        .proof(&target, Route::Gateway, 3, true);
    scene.observed.proofs[0].is_unreached = true;
    let plan = scene.check(
        &expected(("False", "GatewayUnavailable"), "GatewayUnavailable")
            .available()
            .applied(&target, 1)
            .message("connection refused"),
    );
    assert!(plan.notices.iter().any(|notice| notice.is_warning), "it had served");
}

#[test]
fn starts_are_remembered_once_per_pod() {
    let model = model(json!({}));
    let target = revision(&model);
    let ready = json!({
        "conditions": [
            {"type": "PodScheduled", "status": "True", "lastTransitionTime": "2026-11-21T10:00:03Z"},
            {"type": "Ready", "status": "True", "lastTransitionTime": "2026-11-21T10:00:51Z"},
        ],
        "initContainerStatuses": [container("fetch", json!({"terminated": {"exitCode": 0,
            "startedAt": "2026-11-21T10:00:04Z", "finishedAt": "2026-11-21T10:00:44Z"}}))],
        "containerStatuses": [container("server", json!({"running": {}}))],
    });
    let started = scene(model).deployment(&target, 1, 1).pod(&target, ready);
    let first = started.plan().status;
    let again = started.after(json!(first)).plan().status;
    let cold_start = again.cold_start.unwrap();
    assert_eq!(
        (cold_start.recent_total_seconds.as_slice(), cold_start.p95_total_seconds),
        ([51].as_slice(), 51)
    );
    assert_eq!(cold_start.counted_pods, ["pod-0"]);
}
