//! The two custom resource definitions as they are installed. The YAML beside this crate and in the chart is
//! generated from here; a test keeps them equal.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;
use serde_json::Value;

use crate::{InferenceModel, InferencePool};

/// Both definitions with the names of their files.
pub fn definitions() -> [(&'static str, CustomResourceDefinition); 2] {
    [
        ("inferencepools.yaml", without_null(InferencePool::crd())),
        ("inferencemodels.yaml", without_null(InferenceModel::crd())),
    ]
}

/// The derived schema lets every optional field be null. A null would satisfy `has()` in the validation rules and
/// mean nothing to us; without `nullable` the API server drops it as if the field had not been written.
fn without_null(definition: CustomResourceDefinition) -> CustomResourceDefinition {
    let mut value = serde_json::to_value(definition).expect("a definition is JSON");
    drop_nullable(&mut value);
    serde_json::from_value(value).expect("dropping an optional key keeps a definition")
}

/// `yaml` with its words quoted that Kubernetes reads as YAML 1.1, where they are no strings: a bare `Off` is a boolean,
/// and no value would then match the enumeration that it stands in.
pub fn quoted(yaml: &str) -> String {
    yaml.split_inclusive('\n').map(quoted_line).collect()
}

fn quoted_line(line: &str) -> String {
    let (content, indent) = (line.trim(), line.len() - line.trim_start().len());
    match content.strip_prefix("- ") {
        Some(word @ ("Off" | "On" | "No" | "Yes")) => format!("{}- '{word}'\n", &line[..indent]),
        _ => line.to_owned(),
    }
}

fn drop_nullable(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.remove("nullable");
            map.values_mut().for_each(drop_nullable);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_nullable),
        _ => {}
    }
}
