//! What arrived for one model in the last half hour, in bins: a gateway remembers it for the operator, which may have
//! just started. Pure.

use std::collections::VecDeque;

use crds::report::{ARRIVAL_BIN_MS, ARRIVAL_BINS_MAX};

/// Requests, estimated tokens of their prompts, and tokens that they may generate.
type Sums = [u64; 3];

/// The bins of one model.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Recent {
    /// The newest first; never more than [`ARRIVAL_BINS_MAX`].
    bins: VecDeque<Sums>,
    /// Number of the newest bin on the process's clock.
    newest: u64,
    /// What had arrived in all by the last call.
    before: Sums,
}

impl Recent {
    /// So much has arrived in all by now; `uptime_ms` does not go back.
    pub fn note(&mut self, sums: Sums, uptime_ms: u64) {
        let bin = uptime_ms / ARRIVAL_BIN_MS;
        let new_bins = if self.bins.is_empty() { 1 } else { bin.saturating_sub(self.newest) };
        for _ in 0..new_bins.min(ARRIVAL_BINS_MAX as u64) {
            self.bins.push_front([0; 3]);
        }
        self.bins.truncate(ARRIVAL_BINS_MAX);
        self.newest = self.newest.max(bin);
        if let Some(newest) = self.bins.front_mut() {
            for ((count, sum), before) in newest.iter_mut().zip(sums).zip(self.before) {
                *count += sum.saturating_sub(before);
            }
        }
        self.before = sums;
    }

    /// The bins, the newest first.
    pub fn newest_first(&self) -> Vec<Sums> {
        self.bins.iter().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(notes: &[(u64, u64)], expected: &[u64]) {
        let mut recent = Recent::default();
        for (sum, uptime_ms) in notes {
            recent.note([*sum, 10 * *sum, 0], *uptime_ms);
        }
        let bins = recent.newest_first();
        assert_eq!(bins.iter().map(|[requests, ..]| *requests).collect::<Vec<_>>(), expected);
        assert!(bins.iter().all(|[requests, prompt, _]| *prompt == 10 * requests));
    }

    #[test]
    fn arrivals_are_in_the_bin_in_which_they_were_noticed() {
        check(&[(3, 1_000), (5, 9_000)], &[5]);
        check(&[(3, 9_000), (5, 11_000), (6, 19_999)], &[3, 3]);
        check(&[(3, 9_000), (5, 31_000)], &[2, 0, 0, 3]);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut recent = Recent::default();
        recent.note([1; 3], 0);
        recent.note([2; 3], 1_000_000_000);
        assert_eq!(recent.newest_first().len(), ARRIVAL_BINS_MAX);
        assert_eq!(recent.newest_first()[0], [1; 3]);
        for second in 0..100_000 {
            recent.note([2 + second; 3], 1_000_000_000 + 1_000 * second);
        }
        let bins = recent.newest_first();
        assert_eq!(bins.len(), ARRIVAL_BINS_MAX);
        assert!(bins[1..].iter().all(|bin| *bin == [10; 3]), "{bins:?}");
    }
}
