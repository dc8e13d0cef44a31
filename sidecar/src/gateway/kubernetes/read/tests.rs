use serde_json::{Value, json};

use super::*;

fn model(name: &str, spec: &Value, status: &Value) -> InferenceModel {
    let mut object = json!({
        "apiVersion": "inferno.ai/v1alpha1",
        "kind": "InferenceModel",
        "metadata": {"name": name, "uid": "u-1", "creationTimestamp": "2026-01-02T03:04:05Z"},
        "spec": {"poolRef": {"name": "cpu"}, "source": {}, "replicas": 2},
        "status": status,
    });
    object["spec"].as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    serde_json::from_value(object).unwrap()
}

fn slice(revision: &str, endpoints: &Value) -> EndpointSlice {
    let labels = json!({POOL_LABEL: "cpu", MODEL_LABEL: "tiny", REVISION_LABEL: revision});
    let object = json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": revision, "labels": labels},
        "addressType": "IPv4",
        "ports": [{"name": "other", "port": 1}, {"name": "http", "port": 8080}],
        "endpoints": endpoints,
    });
    serde_json::from_value(object).unwrap()
}

fn read(spec: &Value, status: &Value, slices: &[EndpointSlice]) -> ModelView {
    let view = view(None, "cpu", [model("tiny", spec, status)].iter(), slices.iter());
    view.models.into_iter().next().unwrap()
}

#[test]
fn a_pool_says_how_requests_are_spread_and_held() {
    let pool = json!({
        "apiVersion": "inferno.ai/v1alpha1",
        "kind": "InferencePool",
        "metadata": {"name": "cpu"},
        "spec": {
            "queue": {"defaultTimeoutSeconds": 60},
            "gateway": {
                "loadBalancing": "LeastLoad",
                "maxHeldRequests": 7,
                "maxHeldBytes": "1Mi",
                "holdTimeoutSeconds": 9,
            },
        },
    });
    let pool: InferencePool = serde_json::from_value(pool).unwrap();
    let models = [
        model("tiny", &json!({}), &json!({})),
        model("own", &json!({"requestPolicy": {"timeoutSeconds": 5}}), &json!({})),
        model("elsewhere", &json!({"poolRef": {"name": "gpu"}}), &json!({})),
    ];
    let view = view(Some(&pool), "cpu", models.iter(), [].iter());
    assert_eq!(view.strategy, Strategy::LeastLoad);
    assert_eq!(view.hold, HoldLimits { requests_max: 7, bytes_max: 1 << 20, timeout_ms: 9_000 });
    let models: Vec<_> = view.models.iter().map(|model| (model.name.as_str(), model.timeout_ms)).collect();
    assert_eq!(models, [("tiny", 60_000), ("own", 5_000)]);
}

#[test]
fn a_model_says_itself_how_many_wait_for_it() {
    let pool = json!({
        "apiVersion": "inferno.ai/v1alpha1",
        "kind": "InferencePool",
        "metadata": {"name": "cpu"},
        "spec": {"gateway": {"maxHeldRequests": 7, "holdTimeoutSeconds": 9}},
    });
    let pool: InferencePool = serde_json::from_value(pool).unwrap();
    let zero =
        |fields: Value| json!({"autoscaling": {"minReplicas": 0, "maxReplicas": 2, "scaleToZero": fields}});
    let check = |fields: Value, expected: Option<HoldLimits>| {
        let found = view(Some(&pool), "cpu", [model("tiny", &zero(fields), &json!({}))].iter(), [].iter());
        assert_eq!(found.models[0].hold, expected);
    };
    let of_pool = HoldLimits { requests_max: 7, timeout_ms: 9_000, ..HoldLimits::default() };
    check(json!({"idleSeconds": 60}), None);
    check(json!({"maxHeldRequests": 2}), Some(HoldLimits { requests_max: 2, ..of_pool }));
    check(
        json!({"maxHeldBytes": "1Ki", "holdTimeoutSeconds": 30}),
        Some(HoldLimits { bytes_max: 1_024, timeout_ms: 30_000, ..of_pool }),
    );
}

#[test]
fn without_a_pool_and_without_a_status_everything_has_its_default() {
    let found = view(None, "cpu", [model("tiny", &json!({}), &Value::Null)].iter(), [].iter());
    assert_eq!((found.strategy, found.hold), (Strategy::PrefixAware, HoldLimits::default()));
    let model = &found.models[0];
    assert_eq!((model.served_name.as_str(), model.created), ("tiny", 1_767_323_045));
    assert_eq!(model.start, Start { wanted: 2, ..Start::default() });
    assert!(model.traffic.may_override && model.traffic.table.others.is_empty());
}

#[test]
fn a_spec_says_names_tier_switches_and_slots() {
    let spec = json!({
        "modelName": "org/tiny:1",
        "aliases": ["small"],
        "requestPolicy": {"defaultPriority": "VIP"},
        "engine": {"parallelSlots": 8},
        "suspend": true,
        "killSwitch": "Rollout",
    });
    let model = read(&spec, &json!({"stableRevision": "tiny-a"}), &[]);
    assert_eq!(
        (model.served_name.as_str(), model.aliases.as_slice()),
        ("org/tiny:1", &["small".to_owned()][..])
    );
    assert_eq!((model.default_priority.as_str(), model.kill_switch), ("vip", KillSwitch::Rollout));
    assert!(model.is_suspended);
    assert_eq!((model.start.wanted, model.revisions[0].slots), (0, 8));
}

#[test]
fn the_effective_weight_is_the_statuss_and_the_rest_the_specs() {
    let traffic =
        json!({"canaryPercent": 90, "stickyKey": "APIKey", "headerOverride": false, "mirrorPercent": 5});
    let spec = json!({"rollout": {"strategy": "Canary", "traffic": traffic}});
    let status = json!({
        "stableRevision": "tiny-a",
        "targetRevision": "tiny-b",
        "canaryRevision": "tiny-b",
        "rollout": {"phase": "Canary", "summary": "", "weightBasisPoints": 1_000},
    });
    let traffic = read(&spec, &status, &[]).traffic;
    let canary = Arm { revision: "tiny-b".to_owned(), weight_basis_points: 1_000 };
    assert_eq!(
        traffic.table,
        Table { salt: "u-1/tiny-b".to_owned(), stable: "tiny-a".to_owned(), others: vec![canary] }
    );
    assert_eq!((traffic.sticky_key, traffic.may_override), (StickyKey::APIKey, false));
    assert_eq!(traffic.mirror, Some(Mirror { revision: "tiny-b".to_owned(), percent: 5 }));
}

#[test]
fn before_there_is_a_stable_revision_the_declared_one_serves() {
    let model = read(&json!({}), &json!({"targetRevision": "tiny-a"}), &[]);
    assert_eq!(model.traffic.table.stable, "tiny-a");
    let blue_green = json!({"stableRevision": "tiny-a", "targetRevision": "tiny-b"});
    let model = read(&json!({}), &blue_green, &[]);
    assert_eq!((model.traffic.table.stable.as_str(), model.traffic.table.others.len()), ("tiny-a", 0));
    let names: Vec<_> = model.revisions.iter().map(|revision| revision.name.as_str()).collect();
    assert_eq!(names, ["tiny-a", "tiny-b"]);
}

#[test]
fn an_endpoint_is_ready_unless_it_says_otherwise_or_leaves() {
    let endpoint = |number: u8, conditions: Value| {
        json!({
            "addresses": [format!("10.0.0.{number}")],
            "conditions": conditions,
            "targetRef": {"kind": "Pod", "name": format!("pod-{number}")},
        })
    };
    let first = slice(
        "tiny-a",
        &json!([
            endpoint(1, json!({})),
            endpoint(2, json!({"ready": false})),
            endpoint(3, json!({"ready": true, "serving": true, "terminating": true})),
            endpoint(4, json!({"ready": true})),
        ]),
    );
    // While slices are rearranged a pod may be in two.
    let second = slice("tiny-a", &json!([endpoint(4, json!({"ready": false})), endpoint(5, json!({}))]));
    let model = read(&json!({}), &json!({"stableRevision": "tiny-a"}), &[first, second]);
    let found: Vec<_> = model.revisions[0]
        .endpoints
        .iter()
        .map(|endpoint| (endpoint.address.to_string(), endpoint.pod.clone(), endpoint.is_ready))
        .collect();
    let expected = [(1, true), (2, false), (3, false), (4, false), (5, true)];
    assert_eq!(
        found,
        expected.map(|(number, is_ready)| {
            (format!("10.0.0.{number}:8080"), format!("pod-{number}"), is_ready)
        })
    );
}

#[test]
fn a_start_says_phase_percent_time_and_failure() {
    let status = json!({
        "targetRevision": "tiny-a",
        "rollout": {"phase": "Downloading", "summary": "", "percent": 43, "readyAt": "1970-01-01T00:01:00Z"},
    });
    assert_eq!(
        read(&json!({}), &status, &[]).start,
        Start {
            wanted: 2,
            phase: "downloading".to_owned(),
            percent: Some(43),
            ready_at_ms: Some(60_000),
            failure: None,
        }
    );
    let ready = json!({
        "type": "Ready",
        "status": "False",
        "reason": "ImagePullFailed",
        "message": "details",
        "lastTransitionTime": "2026-01-02T03:04:05Z",
    });
    let status = json!({"rollout": {"phase": "Failed", "summary": ""}, "conditions": [ready]});
    let failure = Failure { reason: "ImagePullFailed".to_owned(), message: "details".to_owned() };
    assert_eq!(read(&json!({}), &status, &[]).start.failure, Some(failure));
    let mut on_its_way = status.clone();
    on_its_way["rollout"]["phase"] = "Loading".into();
    assert_eq!(read(&json!({}), &on_its_way, &[]).start.failure, None);
    let mut unproven = status;
    unproven["conditions"][0]["reason"] = "ProbeFailed".into();
    assert_eq!(read(&json!({}), &unproven, &[]).start.failure, None, "its pods start all the same");
}

#[test]
fn how_many_replicas_are_wanted_is_what_the_autoscaler_says_unless_it_only_observes() {
    let wanted = |mode: &str| {
        let spec = json!({"autoscaling": {"maxReplicas": 9, "mode": mode}});
        read(&spec, &json!({"autoscaling": {"desiredReplicas": 5}}), &[]).start.wanted
    };
    assert_eq!((wanted("Auto"), wanted("Paused"), wanted("Observe")), (5, 5, 2));
}

#[test]
fn a_pod_that_drains_gets_nothing_new() {
    let endpoint = |name: &str, address: &str| json!({"addresses": [address], "targetRef": {"name": name}});
    let slices = [slice("tiny-a", &json!([endpoint("p-1", "10.0.0.1"), endpoint("p-2", "10.0.0.2")]))];
    let status = json!({
        "stableRevision": "tiny-a",
        "draining": [{"pod": "p-2", "since": "2026-01-02T03:04:05Z"}],
    });
    let model = read(&json!({}), &status, &slices);
    let found = model.revisions[0].endpoints.iter();
    let found: Vec<_> =
        found.map(|endpoint| (endpoint.pod.as_str(), endpoint.is_ready, endpoint.is_leaving)).collect();
    assert_eq!(found, [("p-1", true, false), ("p-2", false, true)]);
}

#[test]
fn flags_and_experiments_are_draws_with_salts_of_their_own() {
    let spec = json!({
        "featureFlags": [
            {"name": "warm", "enabledPercent": 30, "stickyKey": "User", "parameters": {
                "temperature": "0.7", "topP": "0.9", "topK": 0, "minP": "0.05", "frequencyPenalty": "-0.5",
                "presencePenalty": "1", "repeatPenalty": "1.1", "maxTokens": 64, "systemPrompt": "Be brief.",
            }},
        ],
        "experiments": [
            {"name": "warm", "variants": [
                {"name": "big", "weightPercent": 60},
                {"name": "small", "weightPercent": 20, "model": "tiny-small"},
            ]},
        ],
    });
    let draws = read(&spec, &json!({}), &[]).draws;
    let [flag, experiment] = draws.as_slice() else { panic!("{draws:?}") };
    assert_eq!((flag.salt.as_str(), experiment.salt.as_str()), ("u-1/flag/warm", "u-1/experiment/warm"));
    assert_eq!((flag.sticky_key, experiment.sticky_key), (StickyKey::User, StickyKey::Conversation));
    let lots = |draw: &crate::gateway::view::DrawView| -> Vec<(String, u16, Option<String>)> {
        let lots = draw.lots.iter();
        lots.map(|lot| (lot.name.clone(), lot.weight_basis_points, lot.model.clone())).collect()
    };
    assert_eq!(lots(flag), [("on".into(), 3_000, None), ("off".into(), 7_000, None)]);
    assert_eq!(
        lots(experiment),
        [("big".into(), 6_000, None), ("small".into(), 2_000, Some("tiny-small".into()))]
    );
    let expected = json!({
        "temperature": 0.7, "top_p": 0.9, "top_k": 0, "min_p": 0.05, "frequency_penalty": -0.5, "presence_penalty": 1.0,
        "repeat_penalty": 1.1, "max_tokens": 64,
    });
    assert_eq!(json!(flag.lots[0].parameters), expected);
    assert_eq!(flag.lots[0].system_prompt.as_deref(), Some("Be brief."));
    let mut other = spec.clone();
    other["featureFlags"][0]["enabledPercent"] = json!(31);
    let changed = read(&other, &json!({}), &[]).draws;
    assert_ne!(changed[0].definition, flag.definition);
    assert_eq!(changed[1].definition, experiment.definition);
}
