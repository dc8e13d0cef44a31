//! How many of the last five minutes' answers came in time, from the buckets in which pods count them. Pure.

use std::collections::VecDeque;

use crds::report::{LATENCY_BOUNDS_MS, Load};
use judgement::autoscale::Millis;

use super::objectives::Objectives;

/// Width of a bin: five reports.
const BIN_MS: u64 = 10_000;
/// Bins that are kept: five minutes.
const BINS: u64 = 30;

/// Answers by how long they took, in the buckets of [`LATENCY_BOUNDS_MS`] and one for the rest.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Answered {
    first_tokens: Vec<u64>,
    further_tokens: Vec<u64>,
}

/// The answers of the last five minutes.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Recent {
    /// The oldest first; each with its number on the clock.
    bins: VecDeque<(u64, Answered)>,
}

/// What part came in time, percent rounded down; `None` without a goal, or when there was no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Attained {
    /// Of first tokens.
    pub first_token_percent: Option<u32>,
    /// Of further tokens.
    pub inter_token_percent: Option<u32>,
}

impl Answered {
    /// What a pod has counted since it began.
    pub(super) fn of(load: &Load) -> Self {
        let bounded = |counts: &[u64]| counts.iter().take(LATENCY_BOUNDS_MS.len() + 1).copied().collect();
        Self {
            first_tokens: bounded(&load.ttft_ms_buckets_total),
            further_tokens: bounded(&load.inter_token_ms_buckets_total),
        }
    }

    /// What came to it since `before`; what has gone back is a new process, and counts from zero.
    pub(super) fn since(&self, before: &Self) -> Self {
        let has_gone_back = |now: &[u64], then: &[u64]| then.iter().zip(now).any(|(then, now)| then > now);
        if has_gone_back(&self.first_tokens, &before.first_tokens)
            || has_gone_back(&self.further_tokens, &before.further_tokens)
        {
            return self.clone();
        }
        let less = |now: &[u64], then: &[u64]| {
            let then = then.iter().copied().chain(std::iter::repeat(0));
            now.iter().zip(then).map(|(now, then)| now - then).collect()
        };
        Self {
            first_tokens: less(&self.first_tokens, &before.first_tokens),
            further_tokens: less(&self.further_tokens, &before.further_tokens),
        }
    }

    fn add(&mut self, other: &Self) {
        add(&mut self.first_tokens, &other.first_tokens);
        add(&mut self.further_tokens, &other.further_tokens);
    }
}

fn add(sums: &mut Vec<u64>, counts: &[u64]) {
    sums.resize(sums.len().max(counts.len()), 0);
    for (sum, count) in sums.iter_mut().zip(counts) {
        *sum = sum.saturating_add(*count);
    }
}

impl Recent {
    /// So much was answered now.
    pub(super) fn add(&mut self, answered: &Answered, now: Millis) {
        let number = now.0 / BIN_MS;
        match self.bins.back_mut().filter(|(last, _)| *last == number) {
            Some((_, bin)) => bin.add(answered),
            None => self.bins.push_back((number, answered.clone())),
        }
        while self.bins.front().is_some_and(|(first, _)| number.saturating_sub(*first) >= BINS) {
            self.bins.pop_front();
        }
    }

    /// What part came in time.
    pub(super) fn attained(&self, goals: &Objectives, now: Millis) -> Attained {
        let number = now.0 / BIN_MS;
        let mut sum = Answered::default();
        for (_, bin) in self.bins.iter().filter(|(bin, _)| number.saturating_sub(*bin) < BINS) {
            sum.add(bin);
        }
        Attained {
            first_token_percent: goals.ttft_ms.and_then(|goal_ms| percent_within(&sum.first_tokens, goal_ms)),
            inter_token_percent: goals
                .inter_token_ms
                .and_then(|goal_ms| percent_within(&sum.further_tokens, goal_ms)),
        }
    }
}

/// The share of the counted within `goal_ms`; in the bucket that the goal lies in they are spread evenly.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 100")]
fn percent_within(counts: &[u64], goal_ms: u32) -> Option<u32> {
    let all: u64 = counts.iter().sum();
    let mut lower = 0;
    let mut within = 0.0;
    for (upper, count) in LATENCY_BOUNDS_MS.iter().zip(counts) {
        let share = f64::from(goal_ms.saturating_sub(lower)) / f64::from(upper - lower);
        within += *count as f64 * share.min(1.0);
        lower = *upper;
    }
    (all > 0).then(|| (100.0 * within / all as f64).floor() as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Millis = Millis(10_000_000);

    /// So many in the bucket that ends at `bound_ms`.
    fn counted(cells: &[(u32, u64)]) -> Vec<u64> {
        let mut counts = vec![0; LATENCY_BOUNDS_MS.len() + 1];
        for (bound_ms, count) in cells {
            let bucket = LATENCY_BOUNDS_MS.iter().position(|bound| bound == bound_ms);
            counts[bucket.unwrap_or(LATENCY_BOUNDS_MS.len())] += count;
        }
        counts
    }

    fn answered(cells: &[(u32, u64)]) -> Answered {
        Answered { first_tokens: counted(cells), further_tokens: Vec::new() }
    }

    #[test]
    fn buckets_below_the_goal_are_in_time_and_its_own_in_part() {
        let check = |goal_ms, expected| {
            assert_eq!(
                percent_within(&counted(&[(256, 50), (512, 30), (1_024, 10), (0, 10)]), goal_ms),
                expected
            );
        };
        check(512, Some(80));
        check(362, Some(50));
        check(437, Some(65));
        check(600_000, Some(90));
        check(1, Some(0));
        assert_eq!(percent_within(&counted(&[]), 512), None);
    }

    #[test]
    fn five_minutes_count_and_a_new_process_counts_from_zero() {
        let goals = Objectives { ttft_ms: Some(512), ..Objectives::default() };
        let mut recent = Recent::default();
        recent.add(&answered(&[(1_024, 10)]), START);
        recent.add(&answered(&[(256, 30)]), START + 100_000);
        let at = |recent: &Recent, after| recent.attained(&goals, START + after).first_token_percent;
        assert_eq!(at(&recent, 100_000), Some(75));
        assert_eq!(at(&recent, 300_000), Some(100));
        assert_eq!(at(&recent, 400_000), None);
        for second in 0..10_000 {
            recent.add(&answered(&[(256, 1)]), START + 1_000 * second);
        }
        assert!(recent.bins.len() <= 30, "{}", recent.bins.len());
        let (before, now) = (answered(&[(256, 30)]), answered(&[(256, 40), (512, 2)]));
        assert_eq!(now.since(&before), answered(&[(256, 10), (512, 2)]));
        assert_eq!(before.since(&now), before, "a new process");
    }
}
