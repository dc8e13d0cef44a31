//! The volumes of a pod, and where its model file lies. Pure.

use crds::model::InferenceModel;
use crds::pool::{InferencePool, ModelCacheMode};
use k8s_openapi::api::core::v1::{
    EmptyDirVolumeSource, PersistentVolumeClaimVolumeSource, Volume, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use sha2::{Digest, Sha256};

use super::MODEL_VOLUME;

/// Where the model's file is kept.
pub(super) fn model_volume(pool: &InferencePool) -> Volume {
    let cache = pool.spec.model_cache.as_ref();
    let claim = cache.filter(|cache| cache.mode == ModelCacheMode::PersistentVolumeClaim);
    let mut volume = Volume { name: MODEL_VOLUME.into(), ..Default::default() };
    match claim.and_then(|cache| cache.claim_name.clone()) {
        Some(claim_name) => {
            volume.persistent_volume_claim =
                Some(PersistentVolumeClaimVolumeSource { claim_name, read_only: None });
        }
        None => {
            volume.empty_dir = Some(EmptyDirVolumeSource {
                size_limit: cache.and_then(|cache| cache.size.as_ref()).map(|size| Quantity(size.0.clone())),
                ..Default::default()
            });
        }
    }
    volume
}

/// The only place that a container may write to.
pub(super) fn scratch_volume() -> Volume {
    Volume {
        name: "tmp".into(),
        empty_dir: Some(EmptyDirVolumeSource {
            size_limit: Some(Quantity("256Mi".into())),
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// A volume at a path.
pub(super) fn mount(name: &str, path: &str, is_read_only: bool) -> VolumeMount {
    VolumeMount {
        name: name.into(),
        mount_path: path.into(),
        read_only: Some(is_read_only),
        ..Default::default()
    }
}

/// Where the (first) file lies. On a shared claim each source has a folder of its own, so two models never write the
/// same path with different content.
pub(super) fn model_path(model: &InferenceModel, pool: &InferencePool) -> String {
    let source = &model.spec.source;
    let name = match (&source.hugging_face, &source.http) {
        (Some(hub), _) => hub.files.first().map(|file| file_name(file)),
        (None, Some(http)) => Some(file_name(&http.url)),
        (None, None) => None,
    };
    let name = name.unwrap_or_else(|| "model.gguf".to_owned());
    let is_shared = pool
        .spec
        .model_cache
        .as_ref()
        .is_some_and(|cache| cache.mode == ModelCacheMode::PersistentVolumeClaim);
    if !is_shared {
        return format!("/models/{name}");
    }
    let text = serde_json::to_vec(source).expect("a source is JSON");
    let folder = &hex::encode(Sha256::digest(text))[..16];
    format!("/models/{folder}/{name}")
}

/// The last part of a URL's path, reduced to characters that mean nothing to anybody.
fn file_name(location: &str) -> String {
    let path = location.split(['?', '#']).next().unwrap_or_default();
    let last = path.rsplit('/').next().unwrap_or_default();
    let plain: String =
        last.chars().filter(|each| each.is_ascii_alphanumeric() || "._-".contains(*each)).take(128).collect();
    let plain = plain.trim_start_matches('.');
    if plain.is_empty() { "model.gguf".to_owned() } else { plain.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(location: &str, expected: &str) {
        assert_eq!(file_name(location), expected, "{location}");
    }

    #[test]
    fn file_names_are_harmless() {
        check("http://models.default.svc/tiny.gguf", "tiny.gguf");
        check("https://h/a/b.gguf?download=true#x", "b.gguf");
        check("Q4/model-00001-of-00002.gguf", "model-00001-of-00002.gguf");
        check("http://h/../..", "model.gguf");
        check("http://h/", "model.gguf");
        check("http://h/%2e%2e%2fetc", "2e2e2fetc");
    }
}
