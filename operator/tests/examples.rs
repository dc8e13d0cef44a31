//! The manifests in `examples/` say only what the types know, and what they lead to is written down beside this
//! file. `UPDATE=1` rewrites it.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on should stop right there")]

use std::path::{Path, PathBuf};

use crds::model::InferenceModel;
use crds::pool::{ImagePullPolicy, InferencePool};
use k8s_openapi::api::core::v1::ConfigMap;
use operator::gateway::{Gateway, gateway};
use operator::golden;
use operator::objects::{self, Installation};
use serde::Deserialize;
use serde_json::{Value, json};

const EXAMPLES: [&str; 8] = [
    "quickstart",
    "gpu",
    "huggingface",
    "canary",
    "autoscaling",
    "notifications",
    "golden-prompts",
    "experiment",
];

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn documents(example: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(repository().join(format!("examples/{example}.yaml"))).unwrap();
    serde_yaml::Deserializer::from_str(&text).map(|document| Value::deserialize(document).unwrap()).collect()
}

fn read(example: &str) -> (InferencePool, InferenceModel) {
    let of_kind = |kind: &str| {
        let mut document = documents(example).into_iter().find(|document| document["kind"] == kind).unwrap();
        document["metadata"]["namespace"] = json!("default");
        document["metadata"]["uid"] = json!("uid");
        document
    };
    let pool = serde_json::from_value(of_kind("InferencePool")).unwrap();
    (pool, serde_json::from_value(of_kind("InferenceModel")).unwrap())
}

/// Keys that are in `written` and not in `understood`.
fn lost(path: &str, written: &Value, understood: &Value) -> Vec<String> {
    match (written, understood) {
        (Value::Object(written), Value::Object(understood)) => written
            .iter()
            .flat_map(|(key, value)| {
                let path = format!("{path}.{key}");
                match understood.get(key) {
                    Some(found) => lost(&path, value, found),
                    None => vec![path],
                }
            })
            .collect(),
        (Value::Array(written), Value::Array(understood)) => {
            written.iter().zip(understood).flat_map(|(a, b)| lost(&format!("{path}[]"), a, b)).collect()
        }
        _ => vec![],
    }
}

#[test]
fn examples_have_no_unknown_fields() {
    for example in EXAMPLES {
        for document in documents(example) {
            let understood = match document["kind"].as_str().unwrap() {
                "InferencePool" => json!(serde_json::from_value::<InferencePool>(document.clone()).unwrap()),
                "InferenceModel" => {
                    json!(serde_json::from_value::<InferenceModel>(document.clone()).unwrap())
                }
                "ConfigMap" => {
                    let prompts: ConfigMap = serde_json::from_value(document.clone()).unwrap();
                    golden::set::parse(prompts.data.as_ref().unwrap()).unwrap();
                    json!(prompts)
                }
                other => panic!("{other} in {example}"),
            };
            assert_eq!(lost("", &document, &understood), Vec::<String>::new(), "{example}");
        }
    }
}

#[test]
fn the_quickstart_names_the_demo_models_digest() {
    let (_, model) = read("quickstart");
    let found = model.spec.source.sha256.unwrap();
    let file = std::fs::read_to_string(repository().join("examples/model/tiny.gguf.sha256")).unwrap();
    let expected = file.split_whitespace().next().unwrap();
    if std::env::var_os("UPDATE").is_some() {
        let path = repository().join("examples/quickstart.yaml");
        let text = std::fs::read_to_string(&path).unwrap().replace(&found, expected);
        std::fs::write(&path, text).unwrap();
    } else {
        assert_eq!(found, expected, "the demo model was trained anew; run the test with UPDATE=1");
    }
}

#[test]
fn examples_lead_to_the_objects_written_down() {
    let installation = Installation {
        sidecar_image: "registry.example.com/inferno-sidecar:0.1.0".into(),
        sidecar_pull_policy: ImagePullPolicy::IfNotPresent,
        report_url: Some("http://inferno-operator-reports.inferno-system.svc:8090".into()),
    };
    for example in EXAMPLES {
        let (pool, mut model) = read(example);
        // The demo model is trained anew now and then; what is written down here need not follow.
        model.spec.source.sha256 = Some("0".repeat(64));
        let revision = objects::revision_name(&model, &pool, &installation);
        let deployment = objects::deployment(&model, &pool, &installation, &revision, model.spec.replicas);
        let objects = [json!(objects::service(&model, &revision)), json!(deployment)];
        check(&format!("tests/golden/{example}.yaml"), &yaml(&objects));
        let Gateway { service_account, role, role_binding, service, deployment, disruption_budget } =
            gateway(&pool, &installation);
        let objects = [
            json!(service_account),
            json!(role),
            json!(role_binding),
            json!(service),
            json!(deployment),
            json!(disruption_budget),
        ];
        check(&format!("tests/golden/{example}-gateway.yaml"), &yaml(&objects));
    }
}

fn yaml(objects: &[Value]) -> String {
    let documents: Vec<String> =
        objects.iter().map(|object| serde_yaml::to_string(object).unwrap()).collect();
    documents.join("---\n")
}

fn check(path: &str, expected: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    if std::env::var_os("UPDATE").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, expected).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(found == expected, "{} is out of date; run the test with UPDATE=1", path.display());
}
