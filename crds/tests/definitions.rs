//! The generated YAML is what the types say, in both places where it is kept. `UPDATE=1` rewrites it.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on should stop right there")]

use std::path::Path;

use crds::definitions::{definitions, quoted};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::JSONSchemaProps;

const FOLDERS: [&str; 2] = ["yaml", "../charts/inferno/crds"];

fn check(folder: &str, file: &str, expected: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder).join(file);
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, expected).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(found == expected, "{} is out of date; run the test with UPDATE=1", path.display());
}

#[test]
fn yaml_is_what_the_types_say() {
    for (file, definition) in definitions() {
        let yaml = quoted(&serde_yaml::to_string(&definition).unwrap());
        for folder in FOLDERS {
            check(folder, file, &yaml);
        }
    }
}

#[test]
fn no_word_of_an_enumeration_is_a_boolean_to_kubernetes() {
    assert_eq!(quoted("a:\n  - Off\n  - Official\n"), "a:\n  - 'Off'\n  - Official\n");
}

/// Calls `visit` with each schema below `schema` and its path.
fn walk(path: &str, schema: &JSONSchemaProps, visit: &mut dyn FnMut(&str, &JSONSchemaProps)) {
    visit(path, schema);
    for (name, property) in schema.properties.iter().flatten() {
        walk(&format!("{path}.{name}"), property, visit);
    }
    let value = serde_json::to_value(schema).unwrap();
    for key in ["items", "additionalProperties"] {
        if let Some(inner) = value.get(key).filter(|inner| inner.is_object()) {
            let inner: JSONSchemaProps = serde_json::from_value(inner.clone()).unwrap();
            walk(&format!("{path}[]"), &inner, visit);
        }
    }
}

/// Kubernetes' own types come without bounds; they are passed through to Kubernetes, which checks them.
const FOREIGN: [&str; 1] = [".spec.tolerations[]"];

#[test]
fn everything_in_a_spec_has_a_bound() {
    for (file, definition) in definitions() {
        let schema = definition.spec.versions[0].schema.clone().unwrap().open_api_v3_schema.unwrap();
        let spec = &schema.properties.as_ref().unwrap()["spec"];
        let mut unbounded = Vec::new();
        walk(".spec", spec, &mut |path, schema| {
            if FOREIGN.iter().any(|foreign| path.starts_with(foreign)) {
                return;
            }
            let is_bounded = match schema.type_.as_deref() {
                Some("string") => schema.max_length.is_some() || schema.enum_.is_some(),
                Some("integer") => schema.minimum.is_some() && schema.maximum.is_some(),
                Some("array") => schema.max_items.is_some(),
                Some("object") => schema.additional_properties.is_none() || schema.max_properties.is_some(),
                Some("boolean") => true,
                _ => schema.max_length.is_some(),
            };
            if !is_bounded {
                unbounded.push(path.to_owned());
            }
        });
        assert!(unbounded.is_empty(), "{file}: {unbounded:?}");
    }
}

/// kubectl and helm read YAML 1.1, in which these words are booleans however they are spelt.
#[test]
fn no_word_of_an_enum_is_a_boolean_to_older_yaml() {
    let booleans = ["y", "yes", "n", "no", "on", "off", "true", "false"];
    for (file, definition) in definitions() {
        let schema = definition.spec.versions[0].schema.clone().unwrap().open_api_v3_schema.unwrap();
        walk("", &schema, &mut |path, schema| {
            for word in schema.enum_.iter().flatten() {
                let word = word.0.as_str().unwrap_or_default().to_lowercase();
                assert!(!booleans.contains(&word.as_str()), "{file}: {path} may be {word}");
            }
        });
    }
}

#[test]
fn every_field_is_described() {
    for (file, definition) in definitions() {
        let schema = definition.spec.versions[0].schema.clone().unwrap().open_api_v3_schema.unwrap();
        let mut silent = Vec::new();
        walk("", &schema, &mut |path, schema| {
            let is_ours = path.starts_with(".spec") || path.starts_with(".status");
            if is_ours && !path.ends_with("[]") && schema.description.is_none() {
                silent.push(path.to_owned());
            }
        });
        assert!(silent.is_empty(), "{file}: {silent:?}");
    }
}
