//! Gates on counts: things that happen to single requests and do not depend on load.

use std::collections::{BTreeSet, VecDeque};

use serde::{Deserialize, Serialize};

use super::observation::{Arm, ArmCounts};
use crate::statistics::counts::{EProcess, ODDS_EITHER_WAY, ODDS_TWICE, ODDS_UNHEARD_OF, ODDS_WORSE};

/// Names of pods kept per gate: enough to tell one bad pod from a bad revision.
const PODS_KEPT: usize = 8;
/// Intervals from before the canary's traffic that one of its intervals is compared with beside control's present one,
/// for events that are hardly ever seen. With a tenth of the traffic three such events are needed to be sure by
/// control's present alone; if control had none in three times as many requests either, two are: five times the work
/// on 3 % of requests is then found in two minutes where it took three. The price: should such events begin in both
/// arms with the canary's traffic, the first two are both the canary's in s² of rollouts, 1 % at a tenth.
const RESERVE_PER_INTERVAL: usize = 2;
/// Intervals kept: five minutes of reports every two seconds.
const RESERVE_MAX: usize = 150;
/// Standard deviations by which a canary must be behind before its weight counts instead of its answers: chance alone
/// brings it so far once in 700 looks.
const BEHIND: f64 = 3.0;
/// Over how long the hold gate looks at misses.
const MISSES_OVER_MS: u64 = 300_000;
/// Observations kept for that, should they come faster than expected.
const MISSES_KEPT: usize = 600;
/// Finished requests per arm below which a share of misses says nothing: with 50, five points are 2.5 requests.
const MISSES_FINISHED_MIN: u64 = 50;

/// Trials and events of one arm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct Tally {
    pub(super) trials: u64,
    pub(super) events: u64,
}

impl Tally {
    fn add(&mut self, more: Self) {
        self.trials += more.trials;
        self.events += more.events;
    }

    pub(super) fn share(&self) -> f64 {
        if self.trials == 0 { 0.0 } else { self.events as f64 / self.trials as f64 }
    }
}

/// Events of one kind in both arms.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct CountGate {
    pub(super) process: EProcess,
    pub(super) canary: Tally,
    pub(super) control: Tally,
    /// What control did before the canary had traffic.
    pub(super) before: Tally,
    /// Canary pods that had an event; at most [`PODS_KEPT`].
    pub(super) pods: BTreeSet<String>,
    open: [Tally; 2],
    /// Answers that the canary should have given by its weight, and their variance.
    expected: f64,
    variance: f64,
    /// Intervals of control from before the canary's traffic that are still to be compared with; the oldest first.
    /// Empty for gates that compare with the same moment only.
    reserve: VecDeque<Tally>,
    keeps_reserve: bool,
}

impl CountGate {
    /// Any excess counts.
    pub(super) fn worse() -> Self {
        Self::with(&ODDS_WORSE, false)
    }

    /// Only twice as many or more count.
    pub(super) fn twice() -> Self {
        Self::with(&ODDS_TWICE, false)
    }

    /// Only far more count: events that a healthy revision hardly ever has. What control did in the minutes before
    /// counts too ([`RESERVE_PER_INTERVAL`]).
    pub(super) fn far_more() -> Self {
        Self::with(&ODDS_UNHEARD_OF, true)
    }

    fn with(odds: &[f64], keeps_reserve: bool) -> Self {
        Self {
            process: EProcess::new(odds),
            canary: Tally::default(),
            control: Tally::default(),
            before: Tally::default(),
            pods: BTreeSet::new(),
            open: Default::default(),
            expected: 0.0,
            variance: 0.0,
            reserve: VecDeque::new(),
            keeps_reserve,
        }
    }

    /// Adds what happened on one pod.
    pub(super) fn add(&mut self, arm: Arm, pod: &str, trials: u64, events: u64) {
        let tally = &mut self.open[arm as usize];
        tally.trials += trials;
        tally.events += events;
        if arm == Arm::Canary && events > 0 && self.pods.len() < PODS_KEPT && !self.pods.contains(pod) {
            self.pods.insert(pod.to_owned());
        }
    }

    /// Ends an interval before the canary had traffic.
    pub(super) fn set_aside(&mut self) {
        let [control, _] = std::mem::take(&mut self.open);
        self.before.add(control);
        if self.keeps_reserve {
            self.reserve.push_back(control);
            if self.reserve.len() > RESERVE_MAX {
                self.reserve.pop_front();
            }
        }
    }

    /// Ends the interval: all that was added since the last call happened at one share of the traffic: that of what was
    /// answered, or `weight`, which gateways were told, while fewer were answered than that by more than chance. Errors come
    /// at once, first tokens after a queue: an arm whose pods have just filled up has its errors before the answers that they
    /// are a share of. (By answers alone, one in fifty healthy canaries of 50 requests per second was rolled back for errors
    /// in its first minute if its pods were late. By the weight always, errors of slow models were found a tenth later.)
    pub(super) fn close(&mut self, weight: f64) {
        let [control, canary] = std::mem::take(&mut self.open);
        if canary.trials + control.trials == 0 {
            return;
        }
        self.canary.add(canary);
        self.control.add(control);
        let mut compared = control;
        // Whoever has seen an event of control has no more need of older intervals, which may be unlike today's.
        if canary.trials > 0 && self.control.events == 0 {
            let older = self.reserve.len().min(RESERVE_PER_INTERVAL);
            self.reserve.drain(..older).for_each(|interval| compared.add(interval));
        }
        if compared.events > 0 {
            self.reserve.clear();
        }
        let share = canary.trials as f64 / (canary.trials + compared.trials) as f64;
        let share =
            if self.is_behind(canary.trials + control.trials, weight) { share.max(weight) } else { share };
        self.process.observe(canary.events, compared.events, share);
    }

    /// Whether the canary has answered fewer than its weight says, of all until now and `more`.
    fn is_behind(&mut self, more: u64, weight: f64) -> bool {
        self.expected += weight * more as f64;
        self.variance += weight * (1.0 - weight) * more as f64;
        self.expected - self.canary.trials as f64 > BEHIND * self.variance.sqrt()
    }

    /// Whether the events come from more than one canary pod, or are too many for a bad pod to explain, or there are so
    /// few pods (up to `few`) that waiting for a second one would take longer than it is worth.
    pub(super) fn is_spread(&self, canary_pods: usize, few: usize) -> bool {
        canary_pods <= few || self.pods.len() >= 2 || self.canary.share() >= 0.1
    }
}

/// Whether the gateway splits as it was told.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct SplitGate {
    pub(super) process: EProcess,
}

impl SplitGate {
    pub(super) fn new() -> Self {
        Self { process: EProcess::new(&ODDS_EITHER_WAY) }
    }

    pub(super) fn observe(&mut self, counts: ArmCounts, weight_basis_points: u16) {
        self.process.observe(counts.canary, counts.control, f64::from(weight_basis_points) / 10_000.0);
    }
}

/// Missed objectives of the last minutes, by arm.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(super) struct RecentMisses {
    entries: VecDeque<(u64, [Tally; 2])>,
}

impl RecentMisses {
    pub(super) fn push(&mut self, at_ms: u64, tallies: [Tally; 2]) {
        self.entries.push_back((at_ms, tallies));
        while self.entries.len() > MISSES_KEPT
            || self.entries.front().is_some_and(|(then, _)| at_ms.saturating_sub(*then) > MISSES_OVER_MS)
        {
            self.entries.pop_front();
        }
    }

    /// How many more of the canary's requests missed than of control's, as a share; `None` on too few.
    pub(super) fn gap(&self) -> Option<f64> {
        let [control, canary] = self.entries.iter().fold([Tally::default(); 2], |mut sums, (_, tallies)| {
            sums.iter_mut().zip(tallies).for_each(|(sum, tally)| sum.add(*tally));
            sums
        });
        (canary.trials.min(control.trials) >= MISSES_FINISHED_MIN).then(|| canary.share() - control.share())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_that_come_before_their_answers_are_not_more_errors() {
        // Both fail in 1 of 225; of what the canary was sent, hardly anything has been answered yet.
        let evidence = |weight| {
            let mut gate = CountGate::worse();
            for interval in 0..100 {
                gate.add(Arm::Control, "old", 450, 2);
                gate.add(Arm::Canary, "new", 5, u64::from(interval % 5 == 0));
                gate.close(weight);
            }
            gate.process.e()
        };
        assert!(evidence(0.0) > 1_000.0, "{}", evidence(0.0));
        assert!(evidence(0.1) < 2.0, "{}", evidence(0.1));
    }
}
