//! What has been observed, built up one thing at a time, and what is expected of the plan.

use crds::model::InferenceModel;
use crds::pool::{ImagePullPolicy, InferencePool};
use judgement::autoscale::{Current, Decision, History, Millis, PodModel, Policy, Winner, decide};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use operator::autoscale::tell::Seen;
use operator::inventory::{self, Need, Node, Room};
use operator::load::objectives::Aims;
use operator::load::{Attained, Look};
use operator::objects::{self, Installation};
use operator::plan::{Observed, Plan, ProbeRequest, Proof, Route, plan};
use serde_json::{Value, json};

pub(crate) const NOW: i64 = 1_800_000_000;

pub(crate) fn now() -> Timestamp {
    Timestamp::from_second(NOW).unwrap()
}

pub(crate) fn installation() -> Installation {
    Installation {
        sidecar_image: "sidecar:dev".into(),
        sidecar_pull_policy: ImagePullPolicy::IfNotPresent,
        report_url: Some("http://reports:8090".into()),
    }
}

pub(crate) fn pool(spec: Value) -> InferencePool {
    serde_json::from_value(json!({
        "metadata": {"name": "cpu", "namespace": "default"},
        "spec": spec,
        "status": {"gateway": {"replicas": 2, "readyReplicas": 2}},
    }))
    .unwrap()
}

pub(crate) fn model(changes: Value) -> InferenceModel {
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

/// Nodes with all the devices that their pods already hold, as seen by one that needs as many more.
pub(crate) fn full(devices: i64) -> Room {
    let object = json!({
        "metadata": {"name": "n", "labels": {"accelerator": "l40s"}},
        "status": {"allocatable": {"pods": "110"}, "conditions": [{"type": "Ready", "status": "True"}]},
    });
    let node = Node::of(&serde_json::from_value(object).unwrap());
    let pod = json!({
        "nodeSelector": {"accelerator": "l40s"},
        "containers": [{"name": "server", "resources": {"limits": {"nvidia.com/gpu": devices.to_string()}}}],
    });
    let need = Need::of(&serde_json::from_value(pod).unwrap());
    inventory::room(&[("n".to_owned(), node)].into(), [].into_iter(), &need)
}

/// The name of the revision that `model` asks for in a plain pool.
pub(crate) fn revision(model: &InferenceModel) -> String {
    objects::revision_name(model, &pool(json!({})), &installation())
}

/// What has been observed, built up one thing at a time.
pub(crate) struct Scene {
    pub(crate) model: InferenceModel,
    pub(crate) observed: Observed,
}

pub(crate) fn scene(model: InferenceModel) -> Scene {
    let observed = Observed { pool: Some(pool(json!({}))), is_probing: true, ..Default::default() };
    Scene { model, observed }
}

impl Scene {
    pub(crate) fn in_pool(mut self, spec: Value) -> Self {
        self.observed.pool = Some(pool(spec));
        self
    }

    pub(crate) fn deployment(self, name: &str, told: i32, ready: i32) -> Self {
        self.deployment_of(name, told, ready, "model-uid")
    }

    pub(crate) fn deployment_of(mut self, name: &str, told: i32, ready: i32, owner: &str) -> Self {
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

    pub(crate) fn pod(mut self, revision: &str, status: Value) -> Self {
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

    pub(crate) fn ready_pod(self, revision: &str) -> Self {
        self.pod(
            revision,
            json!({
                "podIP": "10.0.0.7",
                "conditions": [{"type": "PodScheduled", "status": "True"}, {"type": "Ready", "status": "True"}],
                "initContainerStatuses": [container("fetch", json!({"terminated": {"exitCode": 0}}))],
            }),
        )
    }

    pub(crate) fn failed_pod(self, revision: &str, reason: &str) -> Self {
        let message = format!(r#"{{"reason": "{reason}", "message": "spec.source.sha256 is wrong"}}"#);
        self.pod(
            revision,
            json!({
                "conditions": [{"type": "PodScheduled", "status": "True"}],
                "initContainerStatuses": [container("fetch", json!({"terminated": {"exitCode": 1, "message": message}}))],
            }),
        )
    }

    pub(crate) fn downloading_pod(mut self, revision: &str) -> Self {
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

    pub(crate) fn proof(mut self, revision: &str, route: Route, failures: u32, has_succeeded: bool) -> Self {
        self.observed.proofs.push(Proof {
            revision: revision.to_owned(),
            route,
            tried_at: Timestamp::from_second(NOW - 10).unwrap(),
            failures,
            has_succeeded,
            error: (failures > 0).then(|| "connection refused".to_owned()),
            is_unreached: false,
        });
        self
    }

    /// A Service of the model's, as an earlier reconcile has left it.
    pub(crate) fn service(mut self, name: &str) -> Self {
        let service: Service = serde_json::from_value(json!({
            "metadata": {"name": name, "ownerReferences": [owner_reference("model-uid")]},
        }))
        .unwrap();
        self.observed.services.push(service);
        self
    }

    /// No pod of the gateway is ready.
    pub(crate) fn without_gateway(mut self) -> Self {
        self.observed.pool.as_mut().unwrap().status = None;
        self
    }

    /// The load asks for another number of pods than there are.
    pub(crate) fn decided(mut self, current: u32, desired: u32) -> Self {
        let policy = Policy::between(0, 9);
        let pod = PodModel {
            slots: 4,
            prefill_tokens_per_second: 1_000,
            step_base_us: 20_000,
            step_per_request_us: 5_000,
            kv_tokens: None,
        };
        let now = Millis(5_000_000);
        let current_pods = Current {
            pod,
            ready: current,
            pending: vec![],
            last_ready_at: None,
            load_ms: 30_000,
            started_at: now,
            is_canary_judged: false,
        };
        let decision = decide(&policy, &History::default(), &current_pods, now);
        let sentence = format!("{desired} pods are right.");
        let decision = Decision { desired, limits: vec![], winner: Winner::Level, sentence, ..decision };
        self.observed.scaling = Some(Seen {
            look: Look {
                decision,
                pod,
                aims: Aims::default(),
                attained: Attained::default(),
                is_measured: true,
            },
            now_ms: now + 1_000,
        });
        self
    }

    /// So many pods' worth of work arrives, and has been watched for a while.
    pub(crate) fn busy(self, demand: f64) -> Self {
        let mut found = self.decided(1, 1);
        let seen = found.observed.scaling.as_mut().unwrap();
        seen.look.decision.figures.demand = demand;
        seen.now_ms = seen.now_ms + 1_000_000;
        found
    }

    /// The status that a plan has written before.
    pub(crate) fn after(mut self, status: Value) -> Self {
        self.model.status = Some(serde_json::from_value(status).unwrap());
        self
    }

    pub(crate) fn plan(&self) -> Plan {
        plan(&self.model, &self.observed, &installation(), now())
    }

    pub(crate) fn check(&self, expected: &Expected<'_>) -> Plan {
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

pub(crate) struct Expected<'names> {
    pub(crate) ready: (&'names str, &'names str),
    pub(crate) message: &'names str,
    pub(crate) available: &'names str,
    pub(crate) summary: &'names str,
    pub(crate) applied: Option<(&'names str, i32)>,
    pub(crate) scale: Vec<(&'names str, i32)>,
    pub(crate) prune: Vec<&'names str>,
}

pub(crate) fn expected<'names>(ready: (&'names str, &'names str), summary: &'names str) -> Expected<'names> {
    Expected { ready, message: "", available: "False", summary, applied: None, scale: vec![], prune: vec![] }
}

impl<'names> Expected<'names> {
    pub(crate) fn message(self, message: &'names str) -> Self {
        Self { message, ..self }
    }
    pub(crate) fn available(self) -> Self {
        Self { available: "True", ..self }
    }
    pub(crate) fn applied(self, name: &'names str, replicas: i32) -> Self {
        Self { applied: Some((name, replicas)), ..self }
    }
    pub(crate) fn scale(self, scale: Vec<(&'names str, i32)>) -> Self {
        Self { scale, ..self }
    }
    pub(crate) fn prune(self, prune: Vec<&'names str>) -> Self {
        Self { prune, ..self }
    }
}

pub(crate) fn owner_reference(uid: &str) -> Value {
    json!({"apiVersion": "inferno.ai/v1alpha1", "kind": "InferenceModel", "name": "tiny", "uid": uid, "controller": true})
}

pub(crate) fn container(name: &str, state: Value) -> Value {
    json!({"name": name, "image": "i", "imageID": "", "ready": false, "restartCount": 0, "state": state})
}

pub(crate) fn condition(plan: &Plan, type_: &str) -> (String, String, String) {
    let found = plan.status.conditions.iter().find(|condition| condition.type_ == type_).unwrap();
    assert_eq!(found.observed_generation, Some(7));
    (found.status.clone(), found.reason.clone(), found.message.clone())
}

/// Whom a plan asks, and how.
pub(crate) fn asked(plan: &Plan) -> Vec<(Route, &str)> {
    plan.probes.iter().map(|probe: &ProbeRequest| (probe.route, probe.base_url.as_str())).collect()
}

/// A status as it is while `stable` serves alone and well.
pub(crate) fn stable_status(stable: &str) -> Value {
    json!({"stableRevision": stable, "conditions": [
        {"type": "Ready", "status": "True", "reason": "ServedToken", "message": "", "lastTransitionTime": "2026-11-21T09:00:00Z"},
    ]})
}

pub(crate) fn short(revision: &str) -> &str {
    revision.rsplit('-').next().unwrap()
}
