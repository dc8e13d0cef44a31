//! Named situations of one model, and what is planned in each: values in, values out.
#![expect(clippy::needless_pass_by_value, reason = "samples are written where they are used")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on should stop right there")]

use std::collections::HashMap;

use crds::model::{InferenceModel, RolloutPhase};
use crds::pool::{ImagePullPolicy, InferencePool};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use operator::capacity::Claim;
use operator::objects::{self, Installation};
use operator::plan::{Observed, Plan, Proof, Route, plan};
use serde_json::{Value, json};

const NOW: i64 = 1_800_000_000;

fn now() -> Timestamp {
    Timestamp::from_second(NOW).unwrap()
}

fn installation() -> Installation {
    Installation {
        sidecar_image: "sidecar:dev".into(),
        sidecar_pull_policy: ImagePullPolicy::IfNotPresent,
        report_url: Some("http://reports:8090".into()),
    }
}

fn pool(spec: Value) -> InferencePool {
    serde_json::from_value(json!({"metadata": {"name": "cpu", "namespace": "default"}, "spec": spec}))
        .unwrap()
}

fn model(changes: Value) -> InferenceModel {
    let mut spec = json!({
        "poolRef": {"name": "cpu"},
        "source": {"http": {"url": "http://models.default.svc/tiny.gguf"}},
        "replicas": 1,
    });
    for (key, value) in changes.as_object().unwrap() {
        spec[key] = value.clone();
    }
    serde_json::from_value(json!({
        "metadata": {"name": "tiny", "namespace": "default", "uid": "model-uid", "generation": 7},
        "spec": spec,
    }))
    .unwrap()
}

/// The name of the revision that `model` asks for in a plain pool.
fn revision(model: &InferenceModel) -> String {
    objects::revision_name(model, &pool(json!({})), &installation())
}

/// What has been observed, built up one thing at a time.
struct Scene {
    model: InferenceModel,
    observed: Observed,
}

fn scene(model: InferenceModel) -> Scene {
    let observed = Observed { pool: Some(pool(json!({}))), is_probing: true, ..Default::default() };
    Scene { model, observed }
}

impl Scene {
    fn in_pool(mut self, spec: Value) -> Self {
        self.observed.pool = Some(pool(spec));
        self
    }

    fn deployment(self, name: &str, told: i32, ready: i32) -> Self {
        self.deployment_of(name, told, ready, "model-uid")
    }

    fn deployment_of(mut self, name: &str, told: i32, ready: i32, owner: &str) -> Self {
        let deployment: Deployment = serde_json::from_value(json!({
            "metadata": {"name": name, "generation": 1, "creationTimestamp": "2026-11-21T10:00:00Z",
                         "ownerReferences": [owner_reference(owner)]},
            "spec": {"replicas": told, "selector": {}, "template": {}},
            "status": {"observedGeneration": 1, "replicas": told, "readyReplicas": ready, "updatedReplicas": told},
        }))
        .unwrap();
        self.observed.deployments.push(deployment);
        self
    }

    fn pod(mut self, revision: &str, status: Value) -> Self {
        let number = self.observed.pods.len();
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": format!("pod-{number}"), "uid": format!("uid-{number}"),
                         "creationTimestamp": "2026-11-21T10:00:00Z",
                         "labels": {"inferno.ai/model": "tiny", "inferno.ai/revision": revision}},
            "spec": {"containers": []},
            "status": status,
        }))
        .unwrap();
        self.observed.pods.push(pod);
        self
    }

    fn ready_pod(self, revision: &str) -> Self {
        self.pod(
            revision,
            json!({
                "podIP": "10.0.0.7",
                "conditions": [{"type": "PodScheduled", "status": "True"}, {"type": "Ready", "status": "True"}],
                "initContainerStatuses": [container("fetch", json!({"terminated": {"exitCode": 0}}))],
            }),
        )
    }

    fn failed_pod(self, revision: &str, reason: &str) -> Self {
        let message = format!(r#"{{"reason": "{reason}", "message": "spec.source.sha256 is wrong"}}"#);
        self.pod(
            revision,
            json!({
                "conditions": [{"type": "PodScheduled", "status": "True"}],
                "initContainerStatuses": [container("fetch", json!({"terminated": {"exitCode": 1, "message": message}}))],
            }),
        )
    }

    fn downloading_pod(mut self, revision: &str) -> Self {
        let uid = format!("uid-{}", self.observed.pods.len());
        let report = serde_json::from_value(json!({
            "namespace": "default", "pod": "pod", "podUid": uid, "model": "tiny", "revision": revision,
            "sequence": 1, "uptimeMs": 1,
            "phase": {"name": "downloading", "bytesDone": 43, "bytesTotal": 100, "secondsLeft": 12},
        }))
        .unwrap();
        self.observed.reports.insert(uid, report);
        self.pod(
            revision,
            json!({
                "conditions": [{"type": "PodScheduled", "status": "True"}],
                "initContainerStatuses": [container("fetch", json!({"running": {}}))],
            }),
        )
    }

    fn proof(mut self, revision: &str, route: Route, failures: u32, has_succeeded: bool) -> Self {
        self.observed.proofs.push(Proof {
            revision: revision.to_owned(),
            route,
            tried_at: Timestamp::from_second(NOW - 10).unwrap(),
            failures,
            has_succeeded,
            error: (failures > 0).then(|| "connection refused".to_owned()),
        });
        self
    }

    /// The status that a plan has written before.
    fn after(mut self, status: Value) -> Self {
        self.model.status = Some(serde_json::from_value(status).unwrap());
        self
    }

    fn plan(&self) -> Plan {
        plan(&self.model, &self.observed, &installation(), now())
    }

    fn check(&self, expected: &Expected<'_>) -> Plan {
        let plan = self.plan();
        let ready = condition(&plan, "Ready");
        assert_eq!((ready.0.as_str(), ready.1.as_str()), expected.ready, "{}", ready.2);
        assert!(ready.2.contains(expected.message), "{:?} lacks {:?}", ready.2, expected.message);
        assert_eq!(condition(&plan, "Available").0, expected.available);
        assert_eq!(plan.status.rollout.as_ref().unwrap().summary, expected.summary);
        assert_eq!(plan.prune, expected.prune);
        assert_eq!(
            plan.scale,
            expected.scale.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect::<Vec<_>>()
        );
        let applied = plan.deployment.as_ref().map(|deployment| {
            (deployment.name_any(), deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap())
        });
        assert_eq!(applied.as_ref().map(|(name, count)| (name.as_str(), *count)), expected.applied);
        plan
    }
}

struct Expected<'names> {
    ready: (&'names str, &'names str),
    message: &'names str,
    available: &'names str,
    summary: &'names str,
    applied: Option<(&'names str, i32)>,
    scale: Vec<(&'names str, i32)>,
    prune: Vec<&'names str>,
}

fn expected<'names>(ready: (&'names str, &'names str), summary: &'names str) -> Expected<'names> {
    Expected { ready, message: "", available: "False", summary, applied: None, scale: vec![], prune: vec![] }
}

impl<'names> Expected<'names> {
    fn message(self, message: &'names str) -> Self {
        Self { message, ..self }
    }
    fn available(self) -> Self {
        Self { available: "True", ..self }
    }
    fn applied(self, name: &'names str, replicas: i32) -> Self {
        Self { applied: Some((name, replicas)), ..self }
    }
    fn scale(self, scale: Vec<(&'names str, i32)>) -> Self {
        Self { scale, ..self }
    }
    fn prune(self, prune: Vec<&'names str>) -> Self {
        Self { prune, ..self }
    }
}

fn owner_reference(uid: &str) -> Value {
    json!({"apiVersion": "inferno.ai/v1alpha1", "kind": "InferenceModel", "name": "tiny", "uid": uid, "controller": true})
}

fn container(name: &str, state: Value) -> Value {
    json!({"name": name, "image": "i", "imageID": "", "ready": false, "restartCount": 0, "state": state})
}

fn condition(plan: &Plan, type_: &str) -> (String, String, String) {
    let found = plan.status.conditions.iter().find(|condition| condition.type_ == type_).unwrap();
    assert_eq!(found.observed_generation, Some(7));
    (found.status.clone(), found.reason.clone(), found.message.clone())
}

/// A status as it is while `stable` serves alone and well.
fn stable_status(stable: &str) -> Value {
    json!({"stableRevision": stable, "conditions": [
        {"type": "Ready", "status": "True", "reason": "ServedToken", "message": "", "lastTransitionTime": "2026-11-21T09:00:00Z"},
    ]})
}

// === a first start ===

#[test]
fn a_new_model_gets_a_service_and_a_deployment() {
    let model = model(json!({}));
    let target = revision(&model);
    let plan = scene(model).check(&expected(("False", "Starting"), "Starting").applied(&target, 1));
    assert_eq!(plan.service.unwrap().name_any(), "tiny-server");
    assert_eq!(plan.status.url.as_deref(), Some("http://tiny-server.default.svc/v1"));
    assert_eq!(plan.status.selector.as_deref(), Some("inferno.ai/model=tiny"));
    assert_eq!(plan.status.target_revision.as_ref(), Some(&target));
    assert_eq!(plan.status.stable_revision, None);
    assert_eq!(plan.status.observed_generation, Some(7));
    assert_eq!(plan.probe, None);
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
    assert_eq!(plan.status.rollout.unwrap().phase, RolloutPhase::Downloading);
}

#[test]
fn ready_pods_alone_do_not_make_a_model_ready() {
    let model = model(json!({}));
    let target = revision(&model);
    let scene = scene(model).deployment(&target, 1, 1).ready_pod(&target);
    let plan = scene.check(&expected(("False", "Proving"), "Proving").available().applied(&target, 1));
    let probe = plan.probe.unwrap();
    assert_eq!((probe.route, probe.base_url.as_str()), (Route::Service, "http://tiny-server.default.svc/v1"));
    assert_eq!(probe.model_name, "tiny");
}

#[test]
fn one_token_makes_it_ready() {
    let model = model(json!({}));
    let target = revision(&model);
    let scene =
        scene(model).deployment(&target, 1, 1).ready_pod(&target).proof(&target, Route::Service, 0, true);
    let plan = scene.check(&expected(("True", "ServedToken"), "Stable").available().applied(&target, 1));
    assert_eq!(plan.status.stable_revision, Some(target));
    assert_eq!(plan.status.target_revision, None);
    assert_eq!(condition(&plan, "ModelAvailable").0, "True");
    assert_eq!(condition(&plan, "Progressing").0, "False");
    assert_eq!(plan.status.summary.unwrap().replicas, "1/1");
    assert_eq!(plan.probe, None, "a proof of ten seconds ago is fresh");
}

#[test]
fn without_probing_ready_pods_are_enough() {
    let model = model(json!({}));
    let target = revision(&model);
    let mut scene = scene(model).deployment(&target, 1, 1).ready_pod(&target);
    scene.observed.is_probing = false;
    let plan = scene.check(&expected(("True", "PodsReady"), "Stable").available().applied(&target, 1));
    assert_eq!(plan.probe, None);
}

#[test]
fn a_deployment_whose_status_is_old_is_not_complete() {
    let model = model(json!({}));
    let target = revision(&model);
    let mut scene =
        scene(model).deployment(&target, 1, 1).ready_pod(&target).proof(&target, Route::Service, 0, true);
    scene.observed.deployments[0].metadata.generation = Some(2);
    assert_ne!(condition(&scene.plan(), "Ready").0, "True");
}

// === what the pods say when they fail ===

#[test]
fn a_failed_first_start_says_why() {
    let model = model(json!({}));
    let target = revision(&model);
    let scene = scene(model).deployment(&target, 1, 0).failed_pod(&target, "DigestMismatch");
    let plan = scene.check(
        &expected(("False", "DigestMismatch"), "DigestMismatch")
            .applied(&target, 1)
            .message("spec.source.sha256"),
    );
    assert_eq!(plan.status.rollout.unwrap().phase, RolloutPhase::Failed);
    assert!(plan.notices.iter().any(|notice| notice.is_warning && notice.reason == "DigestMismatch"));
}

#[test]
fn the_same_failure_is_announced_once() {
    let model = model(json!({}));
    let target = revision(&model);
    let scene = scene(model).deployment(&target, 1, 0).failed_pod(&target, "DigestMismatch");
    let status = json!(scene.plan().status);
    assert_eq!(scene.after(status).plan().notices, vec![]);
}

#[test]
fn an_edit_after_a_failure_starts_anew_and_removes_the_failed_revision() {
    let wrong = revision(&model(json!({"aliases": ["wrong"]})));
    let model = model(json!({}));
    let target = revision(&model);
    scene(model)
        .deployment(&wrong, 1, 0)
        .failed_pod(&wrong, "DigestMismatch")
        .check(&expected(("False", "Starting"), "Starting").applied(&target, 1).prune(vec![&wrong]));
}

#[test]
fn pods_that_cannot_be_created_are_told() {
    let model = model(json!({}));
    let target = revision(&model);
    let mut scene = scene(model).deployment(&target, 1, 0);
    scene.observed.deployments[0].status.as_mut().unwrap().conditions = Some(vec![
        serde_json::from_value(
            json!({"type": "ReplicaFailure", "status": "True", "message": "exceeded quota: gpus"}),
        )
        .unwrap(),
    ]);
    scene.check(
        &expected(("False", "PodsRefused"), "PodsRefused").applied(&target, 1).message("exceeded quota"),
    );
}

// === from one revision to the next ===

#[test]
fn an_edit_starts_the_new_revision_beside_the_old_one() {
    let old = revision(&model(json!({"aliases": ["old"]})));
    let model = model(json!({}));
    let target = revision(&model);
    let scene = scene(model).after(stable_status(&old)).deployment(&old, 1, 1).ready_pod(&old);
    let summary = format!("{}: Starting", short(&target));
    let plan = scene.check(
        &expected(("False", "Starting"), &summary).available().applied(&target, 1).message("keeps serving"),
    );
    assert_eq!(plan.status.stable_revision.as_ref(), Some(&old));
    assert_eq!(plan.status.target_revision.as_ref(), Some(&target));
    assert_eq!(plan.status.summary.unwrap().revision, format!("{}→{}", short(&old), short(&target)));
    assert_eq!(plan.notices[0].reason, "RolloutStarted");
}

#[test]
fn a_new_revision_that_fails_leaves_the_old_one_serving() {
    let old = revision(&model(json!({"aliases": ["old"]})));
    let model = model(json!({}));
    let target = revision(&model);
    let message = format!("revision {old} keeps serving");
    let summary = format!("{}: NotGGUF", short(&target));
    scene(model)
        .after(stable_status(&old))
        .deployment(&old, 1, 1)
        .ready_pod(&old)
        .deployment(&target, 1, 0)
        .failed_pod(&target, "NotGGUF")
        .check(&expected(("False", "NotGGUF"), &summary).available().applied(&target, 1).message(&message));
}

#[test]
fn a_new_revision_is_proved_by_its_own_pod_before_the_old_one_goes() {
    let old = revision(&model(json!({"aliases": ["old"]})));
    let model = model(json!({}));
    let target = revision(&model);
    let rolling = || {
        scene(model.clone())
            .after(stable_status(&old))
            .deployment(&old, 1, 1)
            .ready_pod(&old)
            .deployment(&target, 1, 1)
            .ready_pod(&target)
    };
    let summary = format!("{}: Proving", short(&target));
    let plan = rolling().check(&expected(("False", "Proving"), &summary).available().applied(&target, 1));
    let probe = plan.probe.unwrap();
    assert_eq!((probe.route, probe.base_url.as_str()), (Route::Pod, "http://10.0.0.7:8080/v1"));

    let proved = rolling().proof(&target, Route::Pod, 0, true);
    let plan = proved.plan();
    assert_eq!(plan.prune, [old.as_str()]);
    assert_eq!(plan.status.stable_revision.as_ref(), Some(&target));
    assert_eq!(plan.probe.map(|probe| probe.route), Some(Route::Service), "Ready is what clients get");
}

#[test]
fn a_new_revision_whose_pod_gives_no_token_does_not_replace_the_old_one() {
    let old = revision(&model(json!({"aliases": ["old"]})));
    let model = model(json!({}));
    let target = revision(&model);
    let summary = format!("{}: Proving", short(&target));
    scene(model)
        .after(stable_status(&old))
        .deployment(&old, 1, 1)
        .deployment(&target, 1, 1)
        .ready_pod(&target)
        .proof(&target, Route::Pod, 5, false)
        .check(
            &expected(("False", "Proving"), &summary)
                .available()
                .applied(&target, 1)
                .message("connection refused"),
        );
}

#[test]
fn all_wanted_replicas_of_the_new_revision_must_be_ready() {
    let old = revision(&model(json!({"aliases": ["old"]})));
    let model = model(json!({"replicas": 3}));
    let target = revision(&model);
    let summary = format!("{}: 2/3 ready, Downloading 43% (12 s left)", short(&target));
    scene(model)
        .after(stable_status(&old))
        .deployment(&old, 3, 3)
        .deployment(&target, 3, 2)
        .downloading_pod(&target)
        .proof(&target, Route::Pod, 0, true)
        .check(&expected(("False", "Scaling"), &summary).available().applied(&target, 3));
}

#[test]
fn going_back_keeps_the_serving_revision_and_drops_the_new_one() {
    let new = revision(&model(json!({"aliases": ["new"]})));
    let model = model(json!({}));
    let old = revision(&model);
    scene(model)
        .after(json!({"stableRevision": old, "targetRevision": new}))
        .deployment(&old, 1, 1)
        .ready_pod(&old)
        .deployment(&new, 1, 0)
        .proof(&old, Route::Service, 0, true)
        .check(&expected(("True", "ServedToken"), "Stable").available().applied(&old, 1).prune(vec![&new]));
}

#[test]
fn a_second_edit_replaces_the_first_and_not_the_serving_revision() {
    let old = revision(&model(json!({"aliases": ["old"]})));
    let first = revision(&model(json!({"aliases": ["first"]})));
    let model = model(json!({}));
    let target = revision(&model);
    let summary = format!("{}: Starting", short(&target));
    scene(model).after(stable_status(&old)).deployment(&old, 1, 1).deployment(&first, 1, 0).check(
        &expected(("False", "Starting"), &summary).available().applied(&target, 1).prune(vec![&first]),
    );
}

#[test]
fn whoever_serves_is_kept_even_if_it_never_became_stable() {
    let first = revision(&model(json!({"aliases": ["first"]})));
    let model = model(json!({"replicas": 3}));
    let target = revision(&model);
    let summary = format!("{}: Starting", short(&target));
    scene(model)
        .deployment(&first, 3, 1)
        .check(&expected(("False", "Starting"), &summary).available().applied(&target, 3));
}

#[test]
fn scaling_during_a_rollout_scales_the_serving_revision_too() {
    let old = revision(&model(json!({"aliases": ["old"]})));
    let model = model(json!({"replicas": 4}));
    let target = revision(&model);
    let summary = format!("{}: Starting", short(&target));
    scene(model).after(stable_status(&old)).deployment(&old, 1, 1).check(
        &expected(("False", "Starting"), &summary).available().applied(&target, 4).scale(vec![(&old, 4)]),
    );
}

// === a serving model ===

#[test]
fn a_restarted_operator_does_not_unready_a_serving_model() {
    let model = model(json!({}));
    let target = revision(&model);
    let scene = scene(model).after(stable_status(&target)).deployment(&target, 1, 1).ready_pod(&target);
    let plan = scene.check(&expected(("True", "ServedToken"), "Stable").available().applied(&target, 1));
    assert!(plan.probe.is_some(), "but it asks again at once");
    let since = &plan
        .status
        .conditions
        .iter()
        .find(|condition| condition.type_ == "Ready")
        .unwrap()
        .last_transition_time;
    assert_eq!(since.0.to_string(), "2026-11-21T09:00:00Z");
}

#[test]
fn one_failed_probe_is_no_outage_and_three_are() {
    let model = model(json!({}));
    let target = revision(&model);
    let serving =
        || scene(model.clone()).after(stable_status(&target)).deployment(&target, 1, 1).ready_pod(&target);
    serving()
        .proof(&target, Route::Service, 2, true)
        .check(&expected(("True", "ServedToken"), "Stable").available().applied(&target, 1));
    serving().proof(&target, Route::Service, 3, true).check(
        &expected(("False", "ProbeFailed"), "ProbeFailed")
            .available()
            .applied(&target, 1)
            .message("connection refused"),
    );
}

#[test]
fn a_lost_pod_is_told_although_others_serve() {
    let model = model(json!({"replicas": 2}));
    let target = revision(&model);
    scene(model)
        .after(stable_status(&target))
        .deployment(&target, 2, 1)
        .ready_pod(&target)
        .downloading_pod(&target)
        .check(
            &expected(("False", "Scaling"), "1/2 ready, Downloading 43% (12 s left)")
                .available()
                .applied(&target, 2),
        );
}

// === rest and limits ===

#[test]
fn a_suspended_model_has_no_pods_and_keeps_its_revision() {
    let model = model(json!({"suspend": true}));
    let target = revision(&model);
    let plan = scene(model).after(stable_status(&target)).deployment(&target, 1, 1).check(
        &expected(("False", "Suspended"), "Suspended")
            .available()
            .applied(&target, 0)
            .message("spec.suspend"),
    );
    assert_eq!(plan.status.stable_revision, Some(target));
}

#[test]
fn suspending_during_a_rollout_rests_both_revisions_and_forgets_neither() {
    let old = revision(&model(json!({"aliases": ["old"]})));
    let model = model(json!({"suspend": true}));
    let target = revision(&model);
    let summary = format!("{}: Suspended", short(&target));
    scene(model)
        .after(stable_status(&old))
        .deployment(&old, 1, 1)
        .deployment(&target, 1, 1)
        .proof(&target, Route::Pod, 0, true)
        .check(
            &expected(("False", "Suspended"), &summary)
                .available()
                .applied(&target, 0)
                .scale(vec![(&old, 0)]),
        );
}

#[test]
fn no_replicas_is_said_in_those_words() {
    let model = model(json!({"replicas": 0}));
    let target = revision(&model);
    scene(model).check(
        &expected(("False", "NoReplicas"), "No replicas").applied(&target, 0).message("spec.replicas is 0"),
    );
}

#[test]
fn a_pools_limit_caps_replicas_and_says_so() {
    let model = model(json!({"replicas": 5}));
    let target = revision(&model);
    let mut scene = scene(model)
        .in_pool(json!({"limits": {"maxReplicas": 3}}))
        .after(stable_status(&target))
        .deployment(&target, 3, 3)
        .ready_pod(&target)
        .proof(&target, Route::Service, 0, true);
    scene.observed.claims = vec![Claim { created: None, model: "tiny".into(), replicas: 5 }];
    scene.check(
        &expected(("False", "CapacityLimited"), "Stable")
            .available()
            .applied(&target, 3)
            .message("3 of 5 replicas run; spec.limits.maxReplicas of pool cpu is 3"),
    );
}

#[test]
fn pods_without_room_are_told_beside_those_that_run() {
    let model = model(json!({"replicas": 2}));
    let target = revision(&model);
    let refused = json!({"conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable",
        "message": "0/1 nodes are available: 1 Insufficient cpu."}]});
    scene(model)
        .after(stable_status(&target))
        .deployment(&target, 2, 1)
        .ready_pod(&target)
        .pod(&target, refused)
        .check(
            &expected(("False", "CapacityLimited"), "1/2 ready, CapacityLimited")
                .available()
                .applied(&target, 2)
                .message("1 of 2 replicas run; no node can take the pod: 0/1 nodes are available"),
        );
}

// === specs that cannot be acted on ===

#[test]
fn a_missing_pool_is_told_and_changes_nothing() {
    let model = model(json!({}));
    let old = revision(&model);
    let mut scene = scene(model).after(stable_status(&old)).deployment(&old, 1, 1);
    scene.observed.pool = None;
    let plan = scene.check(
        &expected(("False", "PoolNotFound"), "PoolNotFound").available().message("spec.poolRef.name is cpu"),
    );
    assert_eq!(condition(&plan, "Accepted").0, "False");
    assert_eq!(plan.status.stable_revision, Some(old));
}

#[test]
fn a_source_that_the_pool_forbids_is_not_fetched() {
    scene(model(json!({}))).in_pool(json!({"sourcePolicy": {"requireDigest": true}})).check(
        &expected(("False", "DigestRequired"), "DigestRequired").message("spec.source.sha256 is missing"),
    );
}

#[test]
fn a_strangers_service_or_deployment_is_not_taken_over() {
    let model = model(json!({}));
    let target = revision(&model);
    let mut with_service = scene(model.clone());
    with_service.observed.service =
        Some(serde_json::from_value::<Service>(json!({"metadata": {"name": "tiny-server"}})).unwrap());
    with_service.check(&expected(("False", "NameConflict"), "NameConflict").message("Service tiny-server"));

    let mut with_deployment = scene(model).deployment_of(&target, 1, 1, "somebody");
    with_deployment.observed.deployments[0].metadata.owner_references = None;
    with_deployment.check(&expected(("False", "NameConflict"), "NameConflict").message(&target));
}

#[test]
fn a_leftover_of_a_deleted_namesake_is_waited_for() {
    let model = model(json!({}));
    let target = revision(&model);
    let plan = scene(model)
        .deployment_of(&target, 1, 1, "uid-of-the-deleted-model")
        .check(&expected(("False", "WaitingForDeletion"), "WaitingForDeletion").message(&target));
    assert_eq!(plan.requeue.as_secs(), 1);
}

// === which revision ===

#[test]
fn a_revision_is_named_by_what_serves_and_nothing_else() {
    let base = revision(&model(json!({})));
    for same in [json!({"replicas": 9}), json!({"suspend": true}), json!({"modelName": "tiny"})] {
        assert_eq!(revision(&model(same.clone())), base, "{same}");
    }
    let mut touched = model(json!({}));
    touched.metadata.generation = Some(99);
    touched.metadata.uid = Some("other".into());
    touched.metadata.labels = Some([("team".to_owned(), "a".to_owned())].into());
    touched.status = Some(serde_json::from_value(stable_status("x")).unwrap());
    assert_eq!(revision(&touched), base);
    for other in [
        json!({"aliases": ["other"]}),
        json!({"modelName": "other"}),
        json!({"engine": {"contextLength": 512}}),
        json!({"requestPolicy": {"maxOutputTokens": 5}}),
        json!({"source": {"http": {"url": "http://models.default.svc/other.gguf"}}}),
    ] {
        assert_ne!(revision(&model(other.clone())), base, "{other}");
    }
}

proptest::proptest! {
    #[test]
    fn no_number_that_only_scales_or_limits_names_another_revision(
        replicas in 0_i32..=100,
        is_suspended in proptest::bool::ANY,
        generation in 1_i64..1_000,
        replicas_max in 0_i32..10_000,
        host in "[a-z]{1,20}",
        label in "[a-z]{1,20}",
    ) {
        let mut model = model(json!({"replicas": replicas, "suspend": is_suspended}));
        model.metadata.generation = Some(generation);
        model.metadata.labels = Some([(label.clone(), label.clone())].into());
        model.metadata.annotations = Some([(label.clone(), label)].into());
        let limited = pool(json!({"limits": {"maxReplicas": replicas_max}, "sourcePolicy": {"allowedHosts": [host]}}));
        let name = objects::revision_name(&model, &limited, &installation());
        proptest::prop_assert_eq!(name, revision(&self::model(json!({}))));
    }

    #[test]
    fn every_setting_of_the_engine_names_a_revision_of_its_own(
        a in (64_i32..=1_048_576, 1_i32..=256, 1_i32..=512),
        b in (64_i32..=1_048_576, 1_i32..=256, 1_i32..=512),
    ) {
        let of = |(context, slots, threads): (i32, i32, i32)| {
            let engine = json!({"contextLength": context, "parallelSlots": slots, "threads": threads});
            revision(&model(json!({"engine": engine})))
        };
        proptest::prop_assert_eq!(a == b, of(a) == of(b));
    }
}

#[test]
fn facts_come_from_the_pod_that_opened_the_model() {
    let model = model(json!({}));
    let target = revision(&model);
    let mut scene = scene(model).deployment(&target, 1, 1).ready_pod(&target);
    let report = serde_json::from_value(json!({
        "namespace": "default", "pod": "pod-0", "podUid": "uid-0", "model": "tiny", "revision": target,
        "sequence": 1, "uptimeMs": 1, "phase": {"name": "serving"},
        "opened": {"architecture": "llama", "quantization": "Q8_0", "sizeBytes": 5_000_000,
                   "trainedContextLength": 512, "contextLength": 512, "sha256": "ab".repeat(32),
                   "layersTotal": 6, "layersOffloaded": 0, "loadSeconds": 1},
    }))
    .unwrap();
    scene.observed.reports = HashMap::from([("uid-0".to_owned(), report)]);
    let status = scene.plan().status;
    let facts = status.model.unwrap();
    assert_eq!(
        (facts.architecture.as_str(), facts.quantization.as_str(), facts.size_bytes),
        ("llama", "Q8_0", 5_000_000)
    );
    assert_eq!(status.placement.unwrap().layers_total, 6);
    assert_eq!(status.summary.unwrap().digest.as_deref(), Some("abababababab"));
}

fn short(revision: &str) -> &str {
    revision.rsplit('-').next().unwrap()
}
