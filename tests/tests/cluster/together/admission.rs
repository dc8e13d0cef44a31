//! What can be known to be wrong at once is refused at once, by the API server, in words that name the field.

use serde_json::{Value, json};
use tests::kubectl::{apply, kubectl};

use crate::scene::{Scene, demo_spec};

#[test]
fn the_api_server_refuses_what_can_never_work() {
    let _scene = Scene::beside_others("admitted", &demo_spec());
    let mut accepted = Vec::new();
    let cases = [cases_of_models(), cases_of_rollouts(), cases_of_autoscaling()];
    for (what, spoil, named) in cases.into_iter().flatten() {
        let mut spec = demo_spec();
        spoil(&mut spec);
        let object = json!({
            "apiVersion": "inferno.ai/v1alpha1", "kind": "InferenceModel",
            "metadata": {"name": "refused"}, "spec": spec,
        });
        match apply(&object.to_string()) {
            Ok(_) => accepted.push(what),
            Err(error) => {
                assert!(error.to_string().contains(named), "{what}: the answer names {named}: {error}");
            }
        }
    }
    kubectl(&["delete", "imodel", "refused", "--ignore-not-found"]).unwrap();
    assert!(accepted.is_empty(), "accepted: {accepted:?}");
}

type Case = (&'static str, fn(&mut Value), &'static str);

fn cases_of_models() -> Vec<Case> {
    vec![
        ("no pool", |spec| drop(spec.as_object_mut().unwrap().remove("poolRef")), "poolRef"),
        ("no source", |spec| spec["source"] = json!({}), "source"),
        (
            "two sources",
            |spec| spec["source"]["huggingFace"] = json!({"repository": "a/b", "files": ["c.gguf"]}),
            "source",
        ),
        ("a short digest", |spec| spec["source"]["sha256"] = json!("abc"), "sha256"),
        ("an ftp source", |spec| spec["source"]["http"]["url"] = json!("ftp://models/tiny.gguf"), "url"),
        ("negative replicas", |spec| spec["replicas"] = json!(-1), "replicas"),
        ("no slots", |spec| spec["engine"] = json!({"parallelSlots": 0}), "parallelSlots"),
        ("an unknown cache type", |spec| spec["engine"] = json!({"kvCacheType": "Q9"}), "kvCacheType"),
        ("an unknown switch", |spec| spec["killSwitch"] = json!("Everything"), "killSwitch"),
        ("an unknown field", |spec| spec["replicaz"] = json!(1), "replicaz"),
    ]
}

fn cases_of_rollouts() -> Vec<Case> {
    vec![
        (
            "a share without a canary",
            |spec| spec["rollout"] = json!({"traffic": {"canaryPercent": 25}}),
            "spec.rollout.strategy to Canary",
        ),
        (
            "more than everything",
            |spec| spec["rollout"] = json!({"strategy": "Canary", "traffic": {"canaryPercent": 101}}),
            "canaryPercent",
        ),
        (
            "shares that fall",
            |spec| {
                spec["rollout"] =
                    json!({"strategy": "Canary", "steps": [{"weightPercent": 25}, {"weightPercent": 10}]});
            },
            "must be more than the one before",
        ),
        (
            "shares that fall from percent to basis points",
            |spec| {
                let steps = json!([{"weightPercent": 1}, {"weightBasisPoints": 25}]);
                spec["rollout"] = json!({"strategy": "Canary", "steps": steps});
            },
            "must be more than the one before",
        ),
        (
            "a share that is given twice",
            |spec| {
                let steps = json!([{"weightPercent": 1, "weightBasisPoints": 100}]);
                spec["rollout"] = json!({"strategy": "Canary", "steps": steps});
            },
            "exactly one of weightPercent and weightBasisPoints",
        ),
        (
            "steps for a canary that a person drives",
            |spec| {
                spec["rollout"] = json!({"strategy": "Canary", "steps": [{"weightPercent": 25}],
                                         "traffic": {"canaryPercent": 10}});
            },
            "leave traffic.canaryPercent out",
        ),
        (
            "a verdict to be enforced on a canary that a person drives",
            |spec| {
                spec["rollout"] = json!({"strategy": "Canary", "analysis": {"mode": "Enforce"},
                                         "traffic": {"canaryPercent": 10}});
            },
            "spec.rollout.analysis: mode Enforce",
        ),
        (
            "a canary without a place",
            |spec| spec["rollout"] = json!({"strategy": "Canary", "maxSurge": 0, "maxUnavailable": 0}),
            "maxSurge and maxUnavailable both 0",
        ),
        (
            "beside the fleet without a pod beside it",
            |spec| {
                spec["rollout"] = json!({"strategy": "Canary", "capacityStrategy": "Surge", "maxSurge": 0});
            },
            "Surge needs a maxSurge of 1 or more",
        ),
        (
            "less than none beside the fleet",
            |spec| spec["rollout"] = json!({"strategy": "Canary", "maxSurge": -1}),
            "maxSurge",
        ),
        (
            "a part of the fleet without a unit",
            |spec| spec["rollout"] = json!({"strategy": "Canary", "maxSurge": "25"}),
            "maxSurge",
        ),
        (
            "bounds without a canary",
            |spec| spec["rollout"] = json!({"maxSurge": "25%"}),
            "maxSurge, maxUnavailable, capacityDeadlineSeconds",
        ),
        (
            "a step that ends before it may",
            |spec| {
                let step = json!({"weightPercent": 25, "maxDurationSeconds": 60});
                spec["rollout"] = json!({"strategy": "Canary", "steps": [step]});
            },
            "must not exceed maxDurationSeconds",
        ),
    ]
}

fn cases_of_autoscaling() -> Vec<Case> {
    vec![
        (
            "more at least than at most",
            |spec| spec["autoscaling"] = json!({"minReplicas": 3, "maxReplicas": 2}),
            "spec.autoscaling.minReplicas must not exceed maxReplicas",
        ),
        (
            "to zero with one pod at least",
            |spec| spec["autoscaling"] = json!({"maxReplicas": 2, "scaleToZero": {"idleSeconds": 60}}),
            "set spec.autoscaling.minReplicas to 0",
        ),
        (
            "a surge below what is proven",
            |spec| spec["autoscaling"] = json!({"maxReplicas": 2, "surgePercent": 50}),
            "spec.autoscaling.surgePercent must be 0",
        ),
        (
            "a schedule without bounds",
            |spec| {
                let schedule = json!({"name": "day", "schedule": "0 8 * * *", "durationSeconds": 3600});
                spec["autoscaling"] = json!({"maxReplicas": 2, "schedules": [schedule]});
            },
            "must set minReplicas, maxReplicas or both",
        ),
    ]
}
