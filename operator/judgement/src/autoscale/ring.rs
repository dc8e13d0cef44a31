//! Tokens by time in bins of one width; the oldest bin falls out when a new one comes.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::time::Millis;
use super::work::{Amount, Tokens};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Ring {
    width_ms: u64,
    limit: usize,
    /// Number of the first bin, counted in widths from the beginning of the clock.
    first: u64,
    bins: VecDeque<Tokens>,
}

impl Ring {
    pub(super) fn new(width_ms: u64, limit: usize) -> Self {
        Self { width_ms, limit, first: 0, bins: VecDeque::new() }
    }

    /// Spreads `tokens` evenly over the time after `from` up to `to`. What is older than the ring is dropped.
    pub(super) fn spread(&mut self, tokens: Tokens, from: Millis, to: Millis) {
        let to = to.max(from + 1);
        self.reach(from.0 / self.width_ms, to.0 / self.width_ms);
        let whole = to.since(from);
        let mut before = Tokens::default();
        let first = (from.0 / self.width_ms).max(self.first);
        if first > from.0 / self.width_ms {
            before = tokens.first(Millis(first * self.width_ms).since(from).min(whole), whole);
        }
        for number in first..=to.0 / self.width_ms {
            let end = Millis((number + 1) * self.width_ms);
            let until = tokens.first(end.since(from).min(whole), whole);
            if let Some(bin) = self.bin(number) {
                *bin += until - before;
            }
            before = until;
        }
    }

    /// Makes the ring begin at the bin of `start` or earlier, with empty bins, as far as its limit allows.
    pub(super) fn reach_back(&mut self, start: Millis) {
        let Some(last) = self.bins.len().checked_sub(1).map(|last| self.first + last as u64) else { return };
        let oldest = (last + 1).saturating_sub(self.limit as u64);
        while self.first > oldest.max(start.0 / self.width_ms) {
            self.bins.push_front(Tokens::default());
            self.first -= 1;
        }
    }

    /// What arrived between the two times, given that nothing is known before `since` or after `until`: a bin at
    /// either end is as wide as its known part.
    pub(super) fn sum(&self, from: Millis, to: Millis, since: Millis, until: Millis) -> Amount {
        let mut sum = Amount::default();
        if to <= from {
            return sum;
        }
        for number in from.0 / self.width_ms..=to.0 / self.width_ms {
            let start = Millis(number * self.width_ms).max(since);
            let end = Millis((number + 1) * self.width_ms).min(until);
            let covered = end.min(to).since(start.max(from));
            let Some(bin) = self.index(number).and_then(|index| self.bins.get(index)) else { continue };
            if covered > 0 {
                sum.add(*bin, covered as f64 / end.since(start) as f64);
            }
        }
        sum
    }

    fn index(&self, number: u64) -> Option<usize> {
        usize::try_from(number.checked_sub(self.first)?).ok()
    }

    fn bin(&mut self, number: u64) -> Option<&mut Tokens> {
        let index = self.index(number)?;
        self.bins.get_mut(index)
    }

    /// Adds empty bins up to `last`; an empty ring begins at `first`.
    fn reach(&mut self, first: u64, last: u64) {
        let oldest = (last + 1).saturating_sub(self.limit as u64);
        if self.first + (self.bins.len() as u64) <= oldest {
            // Nothing there yet, or a pause so long that nothing of it is left.
            self.bins.clear();
        }
        if self.bins.is_empty() {
            self.first = first.max(oldest);
        }
        while self.first + (self.bins.len() as u64) <= last {
            self.bins.push_back(Tokens::default());
        }
        while self.bins.len() > self.limit {
            self.bins.pop_front();
            self.first += 1;
        }
    }
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "inputs are such that results are exact")]
mod tests {
    use super::*;

    fn prompt(tokens: u64) -> Tokens {
        Tokens { requests: 1, prompt: tokens, output: 0 }
    }

    fn sum(ring: &Ring, from: u64, to: u64) -> f64 {
        ring.sum(Millis(from), Millis(to), Millis(0), Millis(u64::MAX)).prompt
    }

    #[test]
    fn tokens_are_spread_over_the_time_in_which_they_came() {
        let mut ring = Ring::new(1_000, 5);
        ring.spread(prompt(400), Millis(500), Millis(2_500));
        assert_eq!(sum(&ring, 0, 1_000), 100.0);
        assert_eq!(sum(&ring, 1_000, 2_000), 200.0);
        assert_eq!(sum(&ring, 0, 10_000), 400.0);
        assert_eq!(sum(&ring, 1_000, 1_500), 100.0, "half a bin");
    }

    #[test]
    fn a_half_known_bin_is_as_wide_as_its_known_part() {
        let mut ring = Ring::new(5_000, 5);
        ring.spread(prompt(100), Millis(10_000), Millis(12_000));
        let known = ring.sum(Millis(11_000), Millis(12_000), Millis(0), Millis(12_000));
        assert_eq!(known.prompt, 50.0);
    }

    #[test]
    fn the_oldest_falls_out() {
        let mut ring = Ring::new(1_000, 3);
        for second in 0..10 {
            ring.spread(prompt(1), Millis(second * 1_000), Millis(second * 1_000 + 900));
        }
        assert_eq!(ring.bins.len(), 3);
        assert_eq!(sum(&ring, 0, 20_000), 3.0);
        ring.spread(prompt(9), Millis(0), Millis(9_000));
        assert_eq!(sum(&ring, 0, 20_000), 3.0 + 2.0, "what belongs before the ring is dropped");
        ring.spread(prompt(5), Millis(1_000_000), Millis(1_000_100));
        assert_eq!(sum(&ring, 0, 2_000_000), 5.0, "after a long pause nothing old is left");
    }
}
