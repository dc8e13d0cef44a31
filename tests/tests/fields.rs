//! No field is inert: every leaf of both specs, changed, changes what the operator plans or what a gateway goes by. A
//! new field without a reader, or without a place in the samples below, fails here.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on should stop right there")]

use std::collections::BTreeSet;
use std::sync::Arc;

use crds::definitions::definitions;
use crds::model::InferenceModel;
use crds::pool::{ImagePullPolicy, InferencePool};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::JSONSchemaProps;
use k8s_openapi::jiff::Timestamp;
use operator::autoscale::{asked, objectives, policy};
use operator::capacity::Claim;
use operator::conduct;
use operator::golden::Outcome;
use operator::golden::set::parse;
use operator::golden::standing::{FIRST_STEP, Finding, Seen, standing};
use operator::notify::message::{Message, messages};
use operator::notify::routing::letters;
use operator::objects::{Installation, revision_name};
use operator::plan::{Notice, Observed, plan};
use operator::pool::{ObservedPool, plan_pool};
use operator::trial;
use serde_json::{Value, json};
use sidecar::gateway::kubernetes::read::view;

/// One step from a value into a part of it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Key(String),
    FirstItem,
    AnyEntry,
}

type Path = Vec<Step>;

fn leaves(schema: &Value, path: &Path, found: &mut BTreeSet<Path>) {
    let below = |step: Step| [path.clone(), vec![step]].concat();
    if let Some(properties) = schema["properties"].as_object() {
        for (name, property) in properties {
            leaves(property, &below(Step::Key(name.clone())), found);
        }
    } else if schema["items"].is_object() {
        leaves(&schema["items"], &below(Step::FirstItem), found);
    } else if schema["additionalProperties"].is_object() {
        leaves(&schema["additionalProperties"], &below(Step::AnyEntry), found);
    } else if schema["enum"].as_array().is_none_or(|choices| choices.len() != 1) {
        // A field with one value has nothing to be changed to.
        found.insert(path.clone());
    }
}

fn leaves_of_spec(file: &str) -> BTreeSet<Path> {
    let (_, definition) = definitions().into_iter().find(|(name, _)| *name == file).unwrap();
    let schema: JSONSchemaProps =
        definition.spec.versions[0].schema.clone().unwrap().open_api_v3_schema.unwrap();
    let mut found = BTreeSet::new();
    leaves(&json!(schema.properties.unwrap()["spec"]), &vec![], &mut found);
    found
}

fn part<'value>(value: &'value mut Value, path: &[Step]) -> Option<&'value mut Value> {
    let Some((step, rest)) = path.split_first() else { return Some(value) };
    let inner = match step {
        Step::Key(name) => value.get_mut(name)?,
        Step::FirstItem => value.get_mut(0)?,
        Step::AnyEntry => value.as_object_mut()?.values_mut().next()?,
    };
    part(inner, rest)
}

/// Another value of the same kind. `choices` are the words that enums here have.
fn changed(value: &Value) -> Value {
    const CHOICES: [[&str; 2]; 25] = [
        ["HTTP", "HTTPS"],
        ["HuggingFace", "HTTP"],
        ["Ephemeral", "PersistentVolumeClaim"],
        ["PersistentVolumeClaim", "Ephemeral"],
        ["Always", "Never"],
        ["Auto", "Disabled"],
        ["F16", "Q8_0"],
        ["Normal", "VIP"],
        ["PrefixAware", "RoundRobin"],
        ["Conversation", "User"],
        ["Canary", "BlueGreen"],
        ["None", "Model"],
        ["External", "Observe"],
        ["Info", "Critical"],
        ["Scaling", "Rollout"],
        ["Enforce", "Observe"],
        ["Manual", "Auto"],
        ["Surge", "InPlace"],
        ["Pause", "Abort"],
        ["Rollback", "Promote"],
        ["Promote", "Pause"],
        ["GroupSequential", "WorkNormalised"],
        ["CacheReuse", "SlotWait"],
        ["Min", "Max"],
        ["Percent", "Pods"],
    ];
    match value {
        Value::Bool(flag) => json!(!flag),
        Value::Number(number) => json!(number.as_i64().unwrap() + 1),
        Value::String(text) => match CHOICES.iter().find(|[from, _]| from == text) {
            Some([_, to]) => json!(to),
            None if text.ends_with("Gi") || text.ends_with("Mi") => json!(format!("1{text}")),
            None => json!(format!("{text}x")),
        },
        other => panic!("not a leaf: {other}"),
    }
}

/// What the operator plans for both objects and what a gateway goes by, in a form that can be compared.
fn done(pool: &Value, model: &Value) -> Option<String> {
    let pool: InferencePool =
        serde_json::from_value(json!({"metadata": {"name": "cpu", "namespace": "default"}, "spec": pool}))
            .ok()?;
    // A canary runs, so that what is declared of one matters.
    let model: InferenceModel = serde_json::from_value(json!({
        "metadata": {"name": "tiny", "namespace": "default", "uid": "u", "generation": 1},
        "spec": model,
        "status": {"stableRevision": "tiny-a", "canaryRevision": "tiny-b"},
    }))
    .ok()?;
    let driven = is_conducted(&model).then(|| on_trial(&model, &pool));
    let now = Timestamp::from_second(1_800_000_000).unwrap();
    let seen = view(Some(&pool), "cpu", std::iter::once(&model), std::iter::empty());
    let of_pool = plan_pool(&pool, &ObservedPool::default(), &installation(), now);
    // The end of the sample's schedule, and inside of it.
    let earlier = Timestamp::from_second(1_800_000_000 - 1_800).unwrap();
    let of_load = [now, earlier].map(|at| model.spec.autoscaling.as_ref().map(|of_load| policy(of_load, at)));
    let goals = model.spec.autoscaling.as_ref().map(objectives);
    let replicas = asked(&model, None, now);
    let of_trial = trial::analysis(&model.spec);
    let of_news = letters(&model.spec.notifications, &news(&model));
    let of_golden = standing(&model, Some(&half_passed()), "tiny-b");
    let of_model = plan(&model, &observed(&model, pool), &installation(), now);
    Some(format!(
        "{of_model:#?} {of_pool:#?} {seen:#?} {of_load:#?} {goals:?} {replicas} {of_trial:#?} {driven:?} {of_news:#?} {of_golden:#?}"
    ))
}

fn is_conducted(model: &InferenceModel) -> bool {
    conduct::conducts(&model.spec)
}

/// What is declared of a canary that the operator drives, and what is planned before it starts, while it is on trial, after it failed, and
/// after it was promoted.
fn on_trial(model: &InferenceModel, pool: &InferencePool) -> String {
    let target = revision_name(model, pool, &installation());
    let status = |phase: &str| {
        let is_running = matches!(phase, "CapacityCheck" | "Analysing");
        let (stable, former) = match phase {
            "Completed" => {
                (target.as_str(), Some(json!({"revision": "tiny-a", "until": "2027-01-15T09:00:00Z"})))
            }
            _ => ("tiny-a", None),
        };
        json!({
            "stableRevision": stable,
            "canaryRevision": is_running.then_some(&target),
            "rollout": {
                "former": former,
                "phase": if phase == "Completed" { "Stable" } else { phase },
                "summary": "", "weightBasisPoints": 1000, "step": 1, "steps": 2,
                "course": {"phase": phase, "since": "2027-01-15T07:00:00Z", "ending": "RolledBack"},
                "failedRevisions": [{"revision": target, "retryToken": "again", "ending": "RolledBack", "message": ""}],
            },
        })
    };
    let plans = ["CapacityCheck", "Analysing", "RolledBack", "Completed"].map(|phase| {
        let mut model = model.clone();
        model.status = Some(serde_json::from_value(status(phase)).unwrap());
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        plan(&model, &observed(&model, pool.clone()), &installation(), now)
    });
    let declared = [0, 1].map(|step| conduct::declared(&model.spec, step));
    format!("{declared:#?} {} {plans:#?}", conduct::is_enforced(&model.spec))
}

fn installation() -> Installation {
    Installation {
        sidecar_image: "sidecar:dev".into(),
        sidecar_pull_policy: ImagePullPolicy::IfNotPresent,
        report_url: None,
    }
}

/// One of two golden prompts was answered otherwise.
fn half_passed() -> Seen {
    let entry = "{prompt: a, expect: {contains: [a]}}".to_owned();
    let set = parse(&[("a".to_owned(), entry)].into()).unwrap();
    let finding = Finding {
        revision: "tiny-b".into(),
        step: FIRST_STEP,
        set_hash: set.hash.clone(),
        tried_at: Timestamp::UNIX_EPOCH,
        result: Ok(Outcome::new(2, vec!["a: wrong".into()])),
    };
    Seen { set: Ok(Arc::new(set)), findings: vec![finding] }
}

/// Something that a receiver of a model may be told.
fn news(model: &InferenceModel) -> Vec<Message> {
    let notice = Notice { is_warning: false, reason: "ScaledUp".into(), message: "because".into() };
    let status = model.status.clone().unwrap_or_default();
    messages(model, &status, &[notice], None, Timestamp::UNIX_EPOCH)
}

/// The declared revision with all its pods beside an older one, so that how it takes over matters.
fn observed(model: &InferenceModel, pool: InferencePool) -> Observed {
    let owner =
        json!({"apiVersion": "inferno.ai/v1alpha1", "kind": "InferenceModel", "name": "tiny", "uid": "u"});
    let deployment = |name: &str| {
        serde_json::from_value(json!({
            "metadata": {"name": name, "generation": 1, "ownerReferences": [owner]},
            "spec": {"replicas": model.spec.replicas, "selector": {}, "template": {}},
            "status": {"observedGeneration": 1, "replicas": 3, "readyReplicas": 3},
        }))
        .unwrap()
    };
    let target = revision_name(model, &pool, &installation());
    Observed {
        claims: vec![Claim { created: None, model: "tiny".into(), replicas: model.spec.replicas, kept: 0 }],
        deployments: vec![deployment("tiny-a"), deployment(&target)],
        pool: (model.spec.pool_ref.name == "cpu").then_some(pool),
        ..Default::default()
    }
}

/// Samples of pools; together they have every field.
fn pools() -> Vec<Value> {
    let full = json!({
        "nodeSelector": {"disk": "ssd"},
        "tolerations": [
            {"key": "gpu", "operator": "Equal", "value": "yes", "effect": "NoExecute", "tolerationSeconds": 5},
        ],
        "accelerator": {"resourceName": "nvidia.com/gpu", "count": 1},
        "runtime": {
            "image": "other:1", "imagePullPolicy": "Always", "threads": 4,
            "resources": {"requests": {"memory": "1Gi"}, "limits": {"memory": "2Gi"}},
        },
        "modelCache": {"mode": "Ephemeral", "size": "5Gi"},
        "sourcePolicy": {"allowedSchemes": ["HTTP"], "allowedHosts": ["models.default.svc"], "requireDigest": false},
        "limits": {"maxReplicas": 2},
        "queue": {"maxQueuedRequests": 10, "maxQueuedBytes": "1Gi", "defaultTimeoutSeconds": 30},
        "gateway": {"replicas": 3, "loadBalancing": "PrefixAware", "maxHeldRequests": 9, "maxHeldBytes": "64Mi",
                    "holdTimeoutSeconds": 60},
    });
    vec![full, json!({"modelCache": {"mode": "PersistentVolumeClaim", "claimName": "weights"}})]
}

/// Samples of models; together they have every field.
fn models() -> Vec<Value> {
    let full = json!({
        "poolRef": {"name": "cpu"},
        "modelName": "tiny-model",
        "aliases": ["small"],
        "source": {
            "http": {"url": "http://models.default.svc/tiny.gguf"},
            "sha256": "ab",
            "secretRef": {"name": "token", "key": "token"},
        },
        "engine": {"contextLength": 512, "parallelSlots": 2, "gpuLayers": 3, "flashAttention": "Auto",
                   "kvCacheType": "F16", "threads": 2},
        "replicas": 3,
        "requestPolicy": {"defaultPriority": "Normal", "timeoutSeconds": 60, "maxOutputTokens": 100},
        "suspend": false,
        "killSwitch": "None",
        "featureFlags": [{
            "name": "warm", "enabledPercent": 20, "stickyKey": "Conversation",
            "parameters": {"temperature": "0.7", "topP": "0.9", "topK": 20, "minP": "0.1", "frequencyPenalty": "0.1",
                           "presencePenalty": "0.2", "repeatPenalty": "1.1", "maxTokens": 64, "systemPrompt": "Be brief."},
        }],
        "experiments": [{
            "name": "size", "stickyKey": "Conversation",
            "variants": [{
                "name": "big", "weightPercent": 30, "model": "other",
                "parameters": {"temperature": "0.7", "topP": "0.9", "topK": 20, "minP": "0.1", "frequencyPenalty": "0.1",
                               "presencePenalty": "0.2", "repeatPenalty": "1.1", "maxTokens": 64,
                               "systemPrompt": "Be brief."},
            }],
        }],
        "notifications": [{"receiver": "chat", "minSeverity": "Info", "events": ["Scaling"]}],
        "rollout": {
            "strategy": "Canary",
            "traffic": {"canaryPercent": 25, "stickyKey": "Conversation", "headerOverride": true, "mirrorPercent": 5},
            "goldenPrompts": {"configMapRef": {"name": "smoke"}, "minimumPassPercent": 60},
            "analysis": {"mode": "Observe", "regressionTolerancePercent": 4, "minCanaryPods": 3, "podVariationPercent": 1},
        },
    });
    let driven = json!({
        "poolRef": {"name": "cpu"},
        "source": {"http": {"url": "http://models.default.svc/tiny.gguf"}},
        "replicas": 3,
        "rollout": {
            "strategy": "Canary",
            "steps": [
                {"weightPercent": 10, "minDurationSeconds": 30, "maxDurationSeconds": 60, "gate": "Manual"},
                {"weightPercent": 50},
            ],
            "capacityDeadlineSeconds": 100, "loadDeadlineSeconds": 100, "warmupSeconds": 10,
            "progressDeadlineSeconds": 100, "retryToken": "again", "capacityStrategy": "Surge",
            "rollbackWindowSeconds": 4000,
            "action": {"command": "Pause", "revision": "tiny-x", "id": "1"},
            "analysis": {"mode": "Enforce", "reportOnly": ["CacheReuse"], "tolerance": {"decodePercent": 10, "prefillPercent": 20, "errorPoints": 2},
                         "method": "GroupSequential", "expectedRequests": 5_000,
                         "criticalRegressionPercent": 60, "maxFalseRollbackPercent": 2,
                         "inconclusivePolicy": "Rollback", "underpoweredPolicy": "Promote"},
        },
    });
    let mut careful = driven.clone();
    careful["rollout"]["steps"] = json!([{"weightBasisPoints": 25}, {"weightPercent": 50}]);
    careful["rollout"]["maxSurge"] = json!(1);
    let mut crowded = driven.clone();
    crowded["rollout"]["capacityStrategy"] = json!("InPlace");
    crowded["rollout"]["maxUnavailable"] = json!(0);
    // 1_800_000_000 is a Friday, 08:00 in UTC.
    let scaled = json!({
        "poolRef": {"name": "cpu"},
        "source": {"http": {"url": "http://models.default.svc/tiny.gguf"}},
        "replicas": 9,
        "autoscaling": {
            "minReplicas": 0, "maxReplicas": 5, "mode": "External", "historySeconds": 900, "latePricePercent": 4,
            "surgePercent": 150, "targetUtilizationPercent": 70,
            "objectives": {"ttftMilliseconds": 1_500, "interTokenMilliseconds": 40, "attainmentPercent": 90},
            "behavior": {
                "scaleDown": {"stabilizationWindowSeconds": 60, "selectPolicy": "Min",
                              "policies": [{"type": "Percent", "value": 50, "periodSeconds": 60}]},
                "scaleUp": {"tolerance": "0.1"},
            },
            "scaleToZero": {"enabled": true, "idleSeconds": 600, "holdTimeoutSeconds": 90, "maxHeldRequests": 20,
                            "maxHeldBytes": "8Mi"},
            "schedules": [{"name": "day", "timeZone": "UTC", "schedule": "0 7 * * *", "durationSeconds": 3600,
                           "minReplicas": 2, "maxReplicas": 7}],
        },
    });
    let mut misread = scaled.clone();
    misread["autoscaling"]["schedules"][0]["schedule"] = json!("sometimes x x x x");
    let from_hub = json!({
        "poolRef": {"name": "cpu"},
        "source": {"huggingFace": {"repository": "a/b", "revision": "main", "files": ["c.gguf"], "endpoint": "http://hub.svc"}},
        "replicas": 3,
    });
    let plain = json!({
        "poolRef": {"name": "cpu"},
        "source": {"http": {"url": "http://models.default.svc/tiny.gguf"}},
        "replicas": 3,
    });
    vec![full, driven, careful, crowded, from_hub, plain, scaled, misread]
}

/// Whether changing the leaf changes what is done in any sample that has it.
fn is_read(path: &Path, samples: &[Value], done_with: impl Fn(&Value) -> Vec<Option<String>>) -> bool {
    samples.iter().any(|sample| {
        let mut other = sample.clone();
        let Some(leaf) = part(&mut other, path) else { return false };
        *leaf = changed(leaf);
        done_with(sample)
            .iter()
            .zip(done_with(&other))
            .any(|(before, after)| before.is_some() && after.is_some() && *before != after)
    })
}

#[test]
fn every_field_of_a_pool_is_read() {
    let inert: Vec<Path> = leaves_of_spec("inferencepools.yaml")
        .into_iter()
        .filter(|path| {
            !is_read(path, &pools(), |pool| models().iter().map(|model| done(pool, model)).collect())
        })
        .collect();
    assert!(inert.is_empty(), "nothing changes with {inert:#?}");
}

#[test]
fn every_field_of_a_model_is_read() {
    let inert: Vec<Path> = leaves_of_spec("inferencemodels.yaml")
        .into_iter()
        .filter(|path| {
            !is_read(path, &models(), |model| pools().iter().map(|pool| done(pool, model)).collect())
        })
        .collect();
    assert!(inert.is_empty(), "nothing changes with {inert:#?}");
}
