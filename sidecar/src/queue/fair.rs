//! Sharing one resource among keys by weight: the key whose account stands lowest goes first, and each service
//! raises its account by cost ÷ weight. Knows nothing of requests, tiers or tenants.
//!
//! A key that was away is lifted to where the others stand, so absence saves nothing up; a key that is in debt keeps
//! its debt while it is away, so leaving for a moment forgives nothing.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;

/// Accounts are kept in units of cost × this ÷ weight, so that small costs do not vanish in the division.
const SCALE: u64 = 1 << 10;

/// Accounts of absent keys that are remembered. A tenant's debt is forgotten only when more tenants than this come
/// and go within the time it takes the others to catch up.
const ABSENT_MAX: usize = 4_096;

/// The accounts.
#[derive(Debug)]
pub struct Fair<K> {
    /// Keys that want service, lowest account first.
    present: BTreeSet<(u64, K)>,
    /// The account of every present key and of absent keys in debt.
    accounts: HashMap<K, Account>,
    /// Accounts of the absent keys in order, so that the oldest debts can be dropped.
    absent: BTreeSet<(u64, K)>,
    /// Where the key served last stood: a newcomer starts here.
    floor: u64,
}

#[derive(Debug, Clone, Copy)]
struct Account {
    stands_at: u64,
    is_present: bool,
}

impl<K> Default for Fair<K> {
    fn default() -> Self {
        Self { present: BTreeSet::new(), accounts: HashMap::new(), absent: BTreeSet::new(), floor: 0 }
    }
}

impl<K: Ord + Hash + Copy> Fair<K> {
    /// The key wants service from now on.
    pub fn join(&mut self, key: K) {
        let known = self.accounts.get(&key).copied();
        if known.is_some_and(|account| account.is_present) {
            return;
        }
        if let Some(account) = known {
            self.absent.remove(&(account.stands_at, key));
        }
        let lowest = self.present.first().map_or(self.floor, |(stands_at, _)| *stands_at);
        let stands_at = known.map_or(lowest, |account| account.stands_at.max(lowest));
        self.accounts.insert(key, Account { stands_at, is_present: true });
        self.present.insert((stands_at, key));
    }

    /// The key wants nothing more for now.
    pub fn leave(&mut self, key: K) {
        let Some(account) = self.accounts.get_mut(&key).filter(|account| account.is_present) else { return };
        account.is_present = false;
        let stands_at = account.stands_at;
        self.present.remove(&(stands_at, key));
        self.absent.insert((stands_at, key));
        self.forget();
    }

    /// The key whose turn it is.
    pub fn first(&self) -> Option<K> {
        self.present.first().map(|(_, key)| *key)
    }

    /// The key has been served at `cost`, or has cost more than thought.
    pub fn charge(&mut self, key: K, cost: u64, weight: u64) {
        let lowest = self.present.first().map_or(self.floor, |(stands_at, _)| *stands_at);
        let account = self.accounts.entry(key).or_insert(Account { stands_at: lowest, is_present: false });
        let set = if account.is_present { &mut self.present } else { &mut self.absent };
        set.remove(&(account.stands_at, key));
        self.floor = self.floor.max(lowest.min(account.stands_at));
        account.stands_at = account.stands_at.saturating_add(cost.saturating_mul(SCALE) / weight.max(1));
        set.insert((account.stands_at, key));
        self.forget();
    }

    /// Drops absent keys without debt, and the smallest debts beyond the limit.
    fn forget(&mut self) {
        let lowest = self.present.first().map_or(self.floor, |(stands_at, _)| *stands_at);
        while let Some((stands_at, key)) = self.absent.first().copied() {
            if stands_at > lowest && self.absent.len() <= ABSENT_MAX {
                break;
            }
            self.absent.remove(&(stands_at, key));
            self.accounts.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn service_follows_the_weights() {
        let mut fair = Fair::default();
        let weights = [8, 4, 2, 1];
        (0..4usize).for_each(|key| fair.join(key));
        let mut served = [0; 4];
        for _ in 0..1_500 {
            let key = fair.first().unwrap();
            served[key] += 1;
            fair.charge(key, 1, weights[key]);
        }
        for (key, weight) in weights.into_iter().enumerate() {
            let share = 100 * i64::try_from(weight).unwrap();
            assert!((served[key] - share).abs() <= 8, "{served:?}");
        }
    }

    #[test]
    fn a_newcomer_saves_nothing_up_by_being_away() {
        let mut fair = Fair::default();
        fair.join("old");
        fair.charge("old", 1_000, 1);
        fair.join("new");
        fair.charge("new", 1, 1);
        assert_eq!(fair.first(), Some("old"), "the newcomer started where the other stood");
    }

    #[test]
    fn debt_survives_a_short_absence() {
        let mut fair = Fair::default();
        fair.join("greedy");
        fair.join("modest");
        fair.charge("greedy", 1_000, 1);
        fair.leave("greedy");
        fair.join("greedy");
        assert_eq!(fair.first(), Some("modest"));
        fair.charge("modest", 10, 1);
        assert_eq!(fair.first(), Some("modest"), "990 still to go");
    }

    #[test]
    fn accounts_of_the_absent_are_bounded() {
        let mut fair = Fair::default();
        fair.join(u64::MAX);
        for key in 0..3 * ABSENT_MAX as u64 {
            fair.join(key);
            fair.charge(key, 5, 1);
            fair.leave(key);
        }
        assert!(fair.accounts.len() <= ABSENT_MAX + 1);
    }
}
