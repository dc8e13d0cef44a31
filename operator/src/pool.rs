//! What should be said about one pool. Pure. A pool owns no objects: its models do.

use crds::model::InferenceModel;
use crds::pool::{InferencePool, InferencePoolStatus, ModelCacheMode};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;

use crate::problem::Reason;
use crate::status::{READY, Verdict};

/// Everything that was read for one pool.
#[derive(Debug, Clone, Default)]
pub struct ObservedPool {
    /// The models of the pool's namespace.
    pub models: Vec<InferenceModel>,
    /// Whether the claim that the pool names exists; `None` if it names none.
    pub has_claim: Option<bool>,
}

/// The claim that a pool names.
pub fn claim_name(pool: &InferencePool) -> Option<&str> {
    let cache = pool.spec.model_cache.as_ref()?;
    cache.claim_name.as_deref().filter(|_| cache.mode == ModelCacheMode::PersistentVolumeClaim)
}

/// Decides the status of `pool`.
pub fn pool_status(pool: &InferencePool, observed: &ObservedPool, now: Timestamp) -> InferencePoolStatus {
    let now = Timestamp::from_second(now.as_second()).unwrap_or(now);
    let name = pool.name_any();
    let models: Vec<&InferenceModel> =
        observed.models.iter().filter(|model| model.spec.pool_ref.name == name).collect();
    let statuses = || models.iter().filter_map(|model| model.status.as_ref());
    let verdict = match (observed.has_claim, claim_name(pool)) {
        (Some(false), Some(claim)) => Verdict::no(
            Reason::ClaimUnavailable,
            format!(
                "spec.modelCache.claimName is {claim}, but namespace {} has no such PersistentVolumeClaim; create it",
                pool.namespace().unwrap_or_default()
            ),
        ),
        _ => Verdict::yes(Reason::Valid, "models can be placed here"),
    };
    let before = pool.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    InferencePoolStatus {
        observed_generation: pool.metadata.generation,
        models: i32::try_from(models.len()).unwrap_or(i32::MAX),
        replicas: statuses().map(|status| status.replicas).sum(),
        ready_replicas: statuses().map(|status| status.ready_replicas).sum(),
        conditions: vec![verdict.condition(READY, before, pool.metadata.generation, now)],
    }
}

#[cfg(test)]
#[expect(clippy::needless_pass_by_value, reason = "samples are written where they are used")]
mod tests {
    use serde_json::json;

    use super::*;

    fn model(name: &str, pool: &str, replicas: i32, ready: i32) -> InferenceModel {
        serde_json::from_value(json!({
            "metadata": {"name": name},
            "spec": {"poolRef": {"name": pool}, "source": {"http": {"url": "http://a/b"}}},
            "status": {"replicas": replicas, "readyReplicas": ready},
        }))
        .unwrap()
    }

    fn check(
        spec: serde_json::Value,
        observed: &ObservedPool,
        numbers: (i32, i32, i32),
        ready: (&str, &str),
    ) {
        let pool: InferencePool =
            serde_json::from_value(json!({"metadata": {"name": "cpu", "generation": 3}, "spec": spec}))
                .unwrap();
        let status = pool_status(&pool, observed, Timestamp::from_second(1_800_000_000).unwrap());
        assert_eq!((status.models, status.replicas, status.ready_replicas), numbers);
        let condition = &status.conditions[0];
        assert_eq!((condition.status.as_str(), condition.reason.as_str()), ready);
        assert_eq!(condition.observed_generation, Some(3));
    }

    #[test]
    fn counts_only_its_own_models() {
        let models = vec![model("a", "cpu", 2, 1), model("b", "gpu", 5, 5), model("c", "cpu", 1, 1)];
        check(json!({}), &ObservedPool { models, has_claim: None }, (2, 3, 2), ("True", "Valid"));
    }

    #[test]
    fn a_missing_claim_is_told() {
        let spec = json!({"modelCache": {"mode": "PersistentVolumeClaim", "claimName": "weights"}});
        let observed = |has_claim| ObservedPool { models: vec![], has_claim };
        check(spec.clone(), &observed(Some(false)), (0, 0, 0), ("False", "ClaimUnavailable"));
        check(spec, &observed(Some(true)), (0, 0, 0), ("True", "Valid"));
    }
}
