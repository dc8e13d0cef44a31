//! A canary that a person drives, and what the operator says of it.

use std::time::Duration;

use serde_json::Value;

use super::canary::side_by_side;
use crate::autoscale::explained;
use crate::scene::Scene;

/// A canary counts after half a minute of traffic, pods after a minute, and two half minutes make a sample.
const JUDGED_LIMIT: Duration = Duration::from_secs(180);

#[test]
fn a_canary_with_the_same_model_is_judged_and_not_accused() {
    let (scene, _, canary) = side_by_side(Scene::beside_others, "judged", 50);
    let traffic = scene.traffic();
    let judged = scene.wait("judged with samples of both", JUDGED_LIMIT, |model| {
        let metrics = model["status"]["rollout"]["analysis"]["metrics"].as_array();
        metrics.is_some_and(|metrics| metrics.iter().any(has_samples_of_both))
    });
    let why = explained("default/judged");
    traffic.stop().assert_all_answered("a verdict");
    assert!(why.contains("bit for bit") && why.contains("e-value") && why.contains("Cohen's d"), "{why}");
    let analysis = &judged["status"]["rollout"]["analysis"];
    println!("{analysis:#}");
    assert_ne!(analysis["outcome"], "Rollback", "{analysis:#}");
    assert_eq!(judged["status"]["canaryRevision"], canary, "nothing follows from a verdict");
    let (status, reason, _) = tests::kubectl::condition(&judged, "AnalysisConclusive");
    assert!(!status.is_empty() && !reason.is_empty(), "{judged:#}");
}

fn has_samples_of_both(metric: &Value) -> bool {
    ["samplesCanary", "samplesStable"].iter().all(|of| metric[of].as_u64().is_some_and(|count| count > 0))
}
