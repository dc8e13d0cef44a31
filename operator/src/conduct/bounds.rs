//! How many pods the spec allows beside the fleet, and how many stable ones may give up their places. Pure.

use crds::model::{CapacityStrategy, InferenceModelSpec};

use super::Scene;

/// What the spec allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Bounds {
    /// Pods beside the fleet: spec.rollout.maxSurge.
    pub(super) surge: Option<i32>,
    /// Stable pods that give up their places: spec.rollout.maxUnavailable.
    pub(super) unavailable: Option<i32>,
}

impl Bounds {
    /// Those of a fleet of so many pods.
    pub(super) fn of(spec: &InferenceModelSpec, fleet: i32) -> Self {
        let policy = spec.rollout.as_ref();
        let surge = policy.and_then(|policy| policy.max_surge.as_ref());
        let unavailable = policy.and_then(|policy| policy.max_unavailable.as_ref());
        Self {
            surge: surge.map(|count| count.rounded_up(fleet)),
            unavailable: unavailable.map(|count| count.rounded_down(fleet)),
        }
    }

    /// Pods beside the fleet where there is `room` for so many. Who runs already stays when less is allowed.
    pub(super) fn beside(self, room: Option<i32>, running: i32) -> Option<i32> {
        let allowed = self.surge.map(|surge| surge.max(running));
        [room, allowed].into_iter().flatten().min()
    }

    /// Pods in the place of stable ones. Who runs already stays when less is allowed.
    pub(super) fn in_place(self, running: i32) -> Option<i32> {
        self.unavailable.map(|unavailable| unavailable.max(running))
    }

    /// Why the spec itself leaves a canary no place, if it does.
    pub(super) fn forbidden(self, wish: CapacityStrategy, scene: &Scene<'_>) -> Option<String> {
        let fleet = scene.fleet;
        let is_fixed = self.unavailable == Some(0) && fleet > 1;
        let none = || format!("spec.rollout.maxUnavailable allows none of the {fleet} pods to make room");
        match wish {
            CapacityStrategy::InPlace if is_fixed => Some(format!("{}; raise it", none())),
            CapacityStrategy::Auto if self.surge == Some(0) => Some(format!(
                "spec.rollout.maxSurge is 0, so that no canary pod runs beside the stable ones, and {}; raise maxSurge",
                match scene.demand {
                    _ if fleet < 2 => "a single pod has no place to give up".to_owned(),
                    _ if is_fixed => none(),
                    Some(demand) => format!(
                        "{demand:.1} pods' worth of work arrives, which leaves none of the {fleet} pods to make room"
                    ),
                    None => "how much work arrives is not known, so that no stable pod makes room".to_owned(),
                }
            )),
            _ => None,
        }
    }
}
