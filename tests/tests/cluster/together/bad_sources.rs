//! Bad sources: each gives its own reason within a minute, and correcting the field is all it takes.

use std::time::Duration;

use serde_json::{Value, json};
use tests::kubectl::{apply, condition, kubectl};
use tests::release::repository;

use crate::scene::{Scene, demo_spec};

const VERDICT_LIMIT: Duration = Duration::from_secs(60);

#[test]
fn a_wrong_digest_is_named_and_correcting_it_recovers() {
    check("wrong-digest", "DigestMismatch", "spec.source.sha256", |source| {
        source["sha256"] = json!("0".repeat(64));
    });
}

#[test]
fn an_unreachable_url_is_named_and_correcting_it_recovers() {
    check("unreachable", "SourceUnreachable", "spec.source.http.url", |source| {
        source["http"]["url"] = json!("http://inferno-nowhere.default.svc/tiny.gguf");
    });
}

#[test]
fn a_missing_file_is_named_and_correcting_it_recovers() {
    check("missing", "SourceNotFound", "spec.source.http.url", |source| {
        source["http"]["url"] = json!("http://inferno-demo-model.inferno-system.svc/none.gguf");
    });
}

#[test]
fn a_truncated_model_is_named_and_correcting_it_recovers() {
    check("truncated", "ModelTruncated", "truncated.gguf", |source| {
        *source = json!({"http": {"url": "http://bad-models.default.svc/truncated.gguf"}});
    });
}

#[test]
fn a_text_file_named_gguf_is_named_and_correcting_it_recovers() {
    check("text", "NotGGUF", "text.gguf", |source| {
        *source = json!({"http": {"url": "http://bad-models.default.svc/text.gguf"}});
    });
}

/// Applies the demo model with a spoiled source, expects the reason and that the message says where to look, then
/// applies the right source over it.
fn check(name: &str, reason: &str, named: &str, spoil: impl Fn(&mut Value)) {
    let mut spec = demo_spec();
    spoil(&mut spec["source"]);
    let scene = Scene::beside_others(name, &demo_spec_suspended());
    serve_bad_models();
    scene.apply(&spec);
    let model = scene.wait(reason, VERDICT_LIMIT, |object| {
        let (status, found, _) = condition(object, "Ready");
        status == "False" && found == reason
    });
    let (_, _, message) = condition(&model, "Ready");
    assert!(message.contains(named), "the message says where to look ({named}): {message}");

    scene.apply(&demo_spec());
    scene.ready();
}

/// The pool and the namespace exist, no pod runs yet.
fn demo_spec_suspended() -> Value {
    let mut spec = demo_spec();
    spec["suspend"] = json!(true);
    spec
}

/// A file server in the cluster with a cut-off model and a text, built from what a cluster offers: a ConfigMap and
/// the sidecar's own image.
fn serve_bad_models() {
    let folder = tempfile::tempdir().unwrap();
    let model = std::fs::read(repository().join("examples/model/tiny.gguf")).unwrap();
    let (truncated, text) = (folder.path().join("truncated.gguf"), folder.path().join("text.gguf"));
    std::fs::write(&truncated, &model[..512 << 10]).unwrap();
    std::fs::write(&text, "<!DOCTYPE html><title>Not Found</title>").unwrap();
    let from_file = |path: &std::path::Path| format!("--from-file={}", path.display());
    let manifest = kubectl(&[
        "create",
        "configmap",
        "bad-models",
        &from_file(&truncated),
        &from_file(&text),
        "--dry-run=client",
        "--output",
        "json",
    ]);
    apply(&manifest.unwrap()).unwrap();
    let image =
        std::env::var("INFERNO_TEST_SIDECAR_IMAGE").unwrap_or("registry.test/inferno-sidecar:dev".into());
    apply(&include_str!("bad-models.yaml").replace("SIDECAR_IMAGE", &image)).unwrap();
    kubectl(&["rollout", "status", "deployment/bad-models", "--timeout", "60s"]).unwrap();
}
