//! Consistent hashing: each endpoint stands at many points of a circle, and a key belongs to the first point at or after
//! its own. When an endpoint comes or goes, only the keys that it gets or had move. The same endpoints give the same
//! ring in every gateway. Pure.

use crate::gateway::ask::hash;

/// Points of each endpoint. The shares of the keys then differ by about 1/√256 = 6 %, well inside what the bound on the
/// load evens out, at 4 KiB per endpoint.
const POINTS: u16 = 256;

/// The circle.
#[derive(Debug, Default)]
pub struct Ring {
    /// Place and index of the endpoint, by place.
    points: Vec<(u64, u32)>,
}

impl Ring {
    /// A ring of endpoints, each given by what tells it from the others. Walks yield their indices.
    pub fn new<'id>(ids: impl IntoIterator<Item = &'id [u8]>) -> Self {
        let mut points = Vec::new();
        for (index, id) in (0_u32..).zip(ids) {
            let mut name = id.to_vec();
            for point in 0..POINTS {
                name.truncate(id.len());
                name.extend_from_slice(&point.to_le_bytes());
                points.push((hash(&name), index));
            }
        }
        points.sort_unstable();
        Self { points }
    }

    /// The endpoints from `key` on, once around; each appears as often as it has points, its first time being what
    /// counts.
    pub fn walk(&self, key: u64) -> impl Iterator<Item = usize> {
        let start = self.points.partition_point(|(place, _)| *place < key);
        let (before, after) = self.points.split_at(start);
        after.iter().chain(before).map(|(_, index)| *index as usize)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KEYS: u64 = 4_000;

    /// The owner of each of many keys.
    fn owners(ids: &[String]) -> Vec<String> {
        let ring = Ring::new(ids.iter().map(String::as_bytes));
        let owner = |key: u64| ring.walk(hash(&key.to_le_bytes())).next();
        (0..KEYS).map(|key| ids[owner(key).unwrap()].clone()).collect()
    }

    #[test]
    fn an_empty_ring_owns_nothing() {
        assert_eq!(Ring::default().walk(7).next(), None);
    }

    #[test]
    fn shares_are_about_equal_and_the_order_of_endpoints_does_not_matter() {
        let mut ids: Vec<_> = (0..10).map(|pod| format!("10.0.0.{pod}:8080/pod-{pod}")).collect();
        let before = owners(&ids);
        for id in &ids {
            let share = before.iter().filter(|owner| *owner == id).count();
            assert!((280..=520).contains(&share), "{id}: {share} of 4000, should be 400");
        }
        ids.reverse();
        assert_eq!(owners(&ids), before);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn only_the_keys_of_the_endpoint_that_goes_or_comes_move(pods in 2_usize..20, which: prop::sample::Index) {
            let with: Vec<_> = (0..pods).map(|pod| format!("pod-{pod}")).collect();
            let mut without = with.clone();
            let gone = without.remove(which.index(pods));
            let (before, after) = (owners(&with), owners(&without));
            let mut moved = 0_u32;
            for (before, after) in before.iter().zip(&after) {
                if before == &gone {
                    moved += 1;
                } else {
                    prop_assert_eq!(before, after);
                }
            }
            // 1/n of the keys, and what 256 points differ by: five standard deviations.
            prop_assert!(f64::from(moved) <= KEYS as f64 / pods as f64 * (1.0 + 5.0 / 16.0), "{} moved", moved);
        }

        #[test]
        fn a_walk_goes_once_around(pods in 1_usize..8, key: u64) {
            let ids: Vec<_> = (0..pods).map(|pod| vec![u8::try_from(pod).unwrap()]).collect();
            let ring = Ring::new(ids.iter().map(Vec::as_slice));
            let mut seen = vec![0; pods];
            ring.walk(key).for_each(|index| seen[index] += 1);
            prop_assert_eq!(seen, vec![usize::from(POINTS); pods]);
        }
    }
}
