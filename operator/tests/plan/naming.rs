//! Which revision a spec asks for, and what is known of it.

use std::collections::HashMap;

use operator::objects;
use serde_json::json;

use super::scene::*;

#[test]
fn a_revision_is_named_by_what_serves_and_nothing_else() {
    let base = revision(&model(json!({})));
    for same in [
        json!({"replicas": 9}),
        json!({"suspend": true}),
        json!({"modelName": "tiny"}),
        json!({"killSwitch": "Model"}),
        json!({"rollout": {"strategy": "Canary", "traffic": {"canaryPercent": 9}}}),
    ] {
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
