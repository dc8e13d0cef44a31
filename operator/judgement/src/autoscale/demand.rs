//! How much work arrives now, in pods, with what can be said against it: noise, and whether it is rising.
//!
//! All windows end with the known time: what has not been reported is unknown and not zero.

use super::history::History;
use super::policy::{Current, Policy};
use super::time::seconds;

/// Windows in which a rise is looked for, seconds: the shortest is three reports, the longest still says "now".
const RISE_WINDOWS_S: [u64; 5] = [6, 10, 15, 20, 30];

/// Windows in which a level is proven for the ceiling, seconds: up to the 2 min of the fine bins. Not the 6 s of a rise:
/// while pods load for 180 s, the highest of its many values took the overshoot of a step from 1.57 to 1.62.
const PROOF_WINDOWS_S: [u64; 8] = [10, 15, 20, 30, 45, 60, 90, 120];

/// Standard deviations below a window's mean that still count as arrived when pods are ordered: 5 % one-sided.
const RISE_Z: f64 = 1.6;

/// The same for the ceiling, 24 % one-sided: it says how far may be gone and not whether to go. On a step (seeds 1-10, 180 s
/// of loading) the overshoot is 1.51/1.53/1.55 at 1.0/0.8/0.7, and the step is 3.3/2.5/2.2 points behind a clairvoyant.
/// A stricter proof with more room behind it, 1.6 with a surge of 150 %, does the same (1.58 and 2.0).
const PROOF_Z: f64 = 0.7;

/// Bins of the dispersion: 5 s over ten minutes.
const DISPERSION_BIN_MS: u64 = 5_000;
const DISPERSION_BINS: u64 = 120;
/// Fewer bins say nothing; requests of very different size in small groups give about 2.
const DISPERSION_BINS_MIN: usize = 10;
const DISPERSION_UNKNOWN: f64 = 2.0;

/// Bins of the trend and of what is replayed.
pub(super) const BIN_MS: u64 = 10_000;
/// Bins of the trend: four minutes, as far as it is extrapolated at most.
const TREND_BINS: usize = 24;

/// The demand at the end of the known time.
#[derive(Debug, Clone)]
pub(super) struct Demand {
    /// Work per second as soon as it is proven (`D_f`), pods.
    pub(super) fast: f64,
    /// Work per second that is proven for the ceiling (`D_low`), pods.
    pub(super) low: f64,
    /// Growth of it, pods per second; 0 unless proven and not a step.
    pub(super) slope: f64,
    /// Variance of the work in a window over its mean (φ), pod-seconds; 1 is regular.
    pub(super) dispersion: f64,
    /// 97 % of the last 10 s bins had at most this, pods.
    pub(super) high: f64,
    /// The 10 s bins of the replayed time, pods; the newest first.
    pub(super) bins: Vec<f64>,
    /// Number of the newest of them on the clock; only its remainders matter.
    pub(super) newest: usize,
}

impl Demand {
    pub(super) fn measure(policy: &Policy, history: &History, current: &Current) -> Self {
        let look = Look { history, current, known_ms: history.known_ms() };
        let dispersion = look.dispersion();
        let sd = |window_s: u64, mean: f64| (dispersion * mean / window_s as f64).sqrt();
        let above = |windows: &[u64], z: f64| {
            let bound = |&window_s: &u64| {
                let mean = look.mean(window_s * 1_000, 0);
                mean - z * sd(window_s, mean)
            };
            windows.iter().map(bound).fold(0.0, f64::max)
        };
        let bins = look.bins(BIN_MS, u64::from(policy.history_seconds) * 1_000);
        Self {
            fast: look.mean(30_000, 0).max(above(&RISE_WINDOWS_S, RISE_Z)),
            low: above(&PROOF_WINDOWS_S, PROOF_Z),
            slope: slope(&bins, dispersion),
            dispersion,
            high: quantile_97(&bins),
            bins,
            newest: usize::try_from(history.until().0 / BIN_MS).unwrap_or(0),
        }
    }
}

struct Look<'a> {
    history: &'a History,
    current: &'a Current,
    known_ms: u64,
}

impl Look<'_> {
    /// Mean work per second between two times before the end of the known time, pods. Of a longer window than is known,
    /// the known part.
    fn mean(&self, from_ago_ms: u64, to_ago_ms: u64) -> f64 {
        let from_ago_ms = from_ago_ms.min(self.known_ms);
        if from_ago_ms <= to_ago_ms {
            return 0.0;
        }
        let work = self.current.pod.work(self.history.arrived(from_ago_ms, to_ago_ms));
        work / seconds(from_ago_ms - to_ago_ms) / self.history.calibration()
    }

    /// Half the mean squared change from bin to bin over the mean: as blind to a change of level as can be.
    fn dispersion(&self) -> f64 {
        let means = self.bins(DISPERSION_BIN_MS, DISPERSION_BINS * DISPERSION_BIN_MS);
        if means.len() < DISPERSION_BINS_MIN {
            return DISPERSION_UNKNOWN;
        }
        let work: Vec<f64> = means.into_iter().map(|mean| mean * seconds(DISPERSION_BIN_MS)).collect();
        let mean = work.iter().sum::<f64>() / work.len() as f64;
        let changes = work.windows(2).map(|pair| (pair[1] - pair[0]) * (pair[1] - pair[0])).sum::<f64>();
        if mean > 0.0 { (0.5 * changes / (work.len() - 1) as f64 / mean).max(1.0) } else { 1.0 }
    }

    /// Means of whole bins on the clock's grid, pods, the newest first. Bins beside the grid would mix two bins of the
    /// ring each, and look calmer than the load is.
    fn bins(&self, width_ms: u64, history_ms: u64) -> Vec<f64> {
        let begun_ms = self.history.until().0 % width_ms;
        let count = self.known_ms.saturating_sub(begun_ms).min(history_ms) / width_ms;
        let mean = |bin: u64| self.mean(begun_ms + (bin + 1) * width_ms, begun_ms + bin * width_ms);
        (0..count).map(mean).collect()
    }
}

/// Growth in pods per second over the last [`TREND_BINS`], less its standard error; 0 if that is not proven, or if a
/// single step explains the bins better by two variances of a bin (a step must not be extrapolated).
fn slope(bins: &[f64], dispersion: f64) -> f64 {
    let Some(recent) = bins.get(..TREND_BINS) else { return 0.0 };
    // Oldest first.
    let values: Vec<f64> = recent.iter().rev().copied().collect();
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let variance = dispersion * mean / seconds(BIN_MS);
    let centre = (count - 1.0) / 2.0;
    let (mut spread, mut product, mut total) = (0.0, 0.0, 0.0);
    for (place, value) in values.iter().enumerate() {
        let offset = place as f64 - centre;
        spread += offset * offset;
        product += offset * (value - mean);
        total += (value - mean) * (value - mean);
    }
    let rise = product / spread;
    let error = (variance / spread).sqrt();
    let line_misses = total - rise * product;
    if rise <= error || line_misses - best_step(&values, mean, total) > 2.0 * variance {
        return 0.0;
    }
    (rise - error) / seconds(BIN_MS)
}

/// The least squared error that one step leaves.
fn best_step(values: &[f64], mean: f64, total: f64) -> f64 {
    let count = values.len() as f64;
    let mut best = total;
    let mut left = 0.0;
    for (place, value) in values.iter().enumerate().take(values.len() - 1) {
        left += value - mean;
        let before = (place + 1) as f64;
        // Splitting into two means takes the squared sum of a part times n/(k·(n−k)) out of the total.
        best = best.min(total - left * left * count / (before * (count - before)));
    }
    best
}

fn quantile_97(bins: &[f64]) -> f64 {
    let mut sorted = bins.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    // Nearest rank: of 180 bins the 175th.
    let rank = (sorted.len() * 97).div_ceil(100);
    rank.checked_sub(1).map_or(0.0, |index| sorted[index])
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "inputs are such that results are exact")]
mod tests {
    use super::*;

    fn newest_first(values: impl DoubleEndedIterator<Item = f64>) -> Vec<f64> {
        values.rev().collect()
    }

    #[test]
    fn a_ramp_has_a_slope_and_a_step_has_none() {
        let ramp = newest_first((0..24).map(|bin| 2.0 + 0.2 * f64::from(bin)));
        let found = slope(&ramp, 1.0);
        assert!(found > 0.015 && found < 0.02, "0.02 pods per second less one error: {found}");
        let step = newest_first((0..24).map(|bin| if bin < 15 { 2.0 } else { 8.0 }));
        assert_eq!(slope(&step, 1.0), 0.0);
        assert_eq!(slope(&[3.0; 24], 1.0), 0.0);
        assert_eq!(slope(&[3.0; 10], 1.0), 0.0, "too short to tell");
    }

    #[test]
    fn the_quantile_is_a_value_that_was_seen() {
        let bins: Vec<f64> = (1..=100).map(f64::from).collect();
        assert_eq!(quantile_97(&bins), 97.0);
        assert_eq!(quantile_97(&[4.0]), 4.0);
        assert_eq!(quantile_97(&[]), 0.0);
    }
}
