//! Where canary pods find room, and how much traffic they may carry.

use serde::{Deserialize, Serialize};

/// Utilisation up to which a fleet may shrink by the pods that a canary takes: above it, users queue.
pub const LOAD_MAX: f64 = 0.9;

/// How the canary gets its pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Strategy {
    /// Beside all stable pods.
    Surge,
    /// In the place of some of them.
    InPlace,
    /// In the same process or on the same device.
    HotSwap,
    /// Stable ends before the canary begins; nothing can be compared.
    Recreate,
}

/// What room there is.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Capacity {
    /// Pods of this model that would still find a place; `None` when nobody knows.
    pub spare_pods: Option<u32>,
    /// Pods that carry all traffic.
    pub fleet_pods: u32,
    /// Pods' worth of work that arrives.
    pub demand_pods: f64,
    /// Whether two revisions fit one device.
    pub fits_beside: bool,
    /// Whether the owner accepts a gap in service.
    pub allows_recreate: bool,
}

/// The strategy, or `None` when there is no room yet. Unknown room is taken to be there: a pod that then stays
/// pending is reported, a rollout that never starts is not.
pub fn choose(capacity: &Capacity) -> Option<Strategy> {
    if capacity.spare_pods.is_none_or(|spare| spare >= 1) {
        Some(Strategy::Surge)
    } else if in_place_pods(capacity) >= 1 {
        Some(Strategy::InPlace)
    } else if capacity.fits_beside {
        Some(Strategy::HotSwap)
    } else if capacity.fleet_pods == 1 && capacity.allows_recreate {
        Some(Strategy::Recreate)
    } else {
        None
    }
}

/// Stable pods that may be converted: what remains carries the work at nine tenths of its capacity.
pub fn in_place_pods(capacity: &Capacity) -> u32 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "pods are few and positive")]
    let needed = (capacity.demand_pods.max(0.0) / LOAD_MAX).ceil() as u32;
    capacity.fleet_pods.saturating_sub(needed.max(1))
}

/// The share of a canary that takes the place of stable pods, of which `ready` serve, while it is promoted: the next
/// pods are given up only when those that stay carry what is left, so its share rises first, and is rounded up.
pub fn in_place_weight(ready: u32, capacity: &Capacity) -> u16 {
    let serving = capacity.fleet_pods.saturating_sub(in_place_pods(capacity).max(1)).max(1);
    u16::try_from((10_000 * ready).div_ceil(serving).min(10_000)).unwrap_or(10_000)
}

/// Canary pods for the share `weight_basis_points` of a fleet: ⌈w·N⌉ + 1, because a small arm queues more at equal
/// load; fewer where there is no room for more.
///
/// 10 % of 14 pods: 3; 50 % of 4: 3; 10 % of 1: 2; 100 % of 4: 4.
pub fn canary_pods(weight_basis_points: u16, capacity: &Capacity, strategy: Strategy) -> u32 {
    let share = (u32::from(weight_basis_points) * capacity.fleet_pods).div_ceil(10_000);
    let wanted = (share + 1).min(capacity.fleet_pods.max(2));
    let room = match strategy {
        Strategy::Surge => capacity.spare_pods.unwrap_or(u32::MAX),
        Strategy::InPlace => in_place_pods(capacity),
        Strategy::HotSwap | Strategy::Recreate => 1,
    };
    wanted.min(room.max(1))
}

/// The share that `ready` canary pods may carry towards `weight_basis_points`, as soon as those that there is room for are
/// ready: nothing beyond their part of the fleet, which is all of it where room is not short.
pub fn weight_for(
    ready: u32,
    weight_basis_points: u16,
    capacity: &Capacity,
    strategy: Strategy,
) -> Option<u16> {
    if ready < canary_pods(weight_basis_points, capacity, strategy) {
        return None;
    }
    let fleet = capacity.fleet_pods.max(1);
    let part = u16::try_from((10_000 * ready / fleet).min(10_000)).unwrap_or(10_000);
    Some(match strategy {
        Strategy::Surge | Strategy::InPlace => weight_basis_points.min(part),
        Strategy::HotSwap | Strategy::Recreate => weight_basis_points,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_stays_within_what_its_pods_carry() {
        let check = |spare_pods, fleet_pods, ready, weight, expected| {
            let demand_pods = f64::from(fleet_pods);
            let capacity =
                Capacity { spare_pods, fleet_pods, demand_pods, fits_beside: false, allows_recreate: false };
            let found = weight_for(ready, weight, &capacity, Strategy::Surge);
            assert_eq!(found, expected, "{ready} pods for {weight} with room for {spare_pods:?}");
        };
        check(None, 10, 3, 2_000, Some(2_000));
        check(None, 10, 2, 2_000, None);
        check(Some(1), 10, 1, 500, Some(500));
        check(Some(1), 10, 1, 5_000, Some(1_000));
        check(Some(2), 10, 1, 5_000, None);
        check(Some(1), 1, 1, 5_000, Some(5_000));
    }

    #[test]
    fn where_room_is_not_short_a_step_gets_all_of_its_share() {
        for (fleet_pods, weight) in (1..=60).flat_map(|pods| (1..=100).map(move |step| (pods, step * 100))) {
            let capacity = Capacity {
                spare_pods: None,
                fleet_pods,
                demand_pods: 1.0,
                fits_beside: false,
                allows_recreate: false,
            };
            let ready = canary_pods(weight, &capacity, Strategy::Surge);
            assert_eq!(
                weight_for(ready, weight, &capacity, Strategy::Surge),
                Some(weight),
                "of {fleet_pods}"
            );
        }
    }
}
