//! What may follow, and how much work would then be late with `n` pods.
//!
//! The futures are the present level going on, and everything that followed a moment of the replayed time; a moment
//! counts the more, the more its level was like now. Each is put through a fluid queue.

use super::demand::{BIN_MS, Demand};
use super::policy::{Current, Policy};
use super::time::{Millis, seconds};

/// An ordered pod must work for at least as long as it loads, and for no less than this.
const HORIZON_MIN_S: f64 = 180.0;

/// A trend is not extrapolated further: 180 and 300 s gave the same.
const TREND_S_MAX: f64 = 240.0;

/// Loads longer than this are reckoned as this: twice it is all the history there is.
const LOAD_S_MAX: f64 = 900.0;

/// The present counts like this many moments that were exactly like it; 4 to 12 gave the same.
const PRESENT_WEIGHT: f64 = 7.0;

/// Moments are taken every 20 s: half of the time over which their level is measured, rounded up to bins.
const START_BINS: usize = 2;
/// The level of a moment is the mean of 30 s, as that of the present.
const LEVEL_BINS: usize = 3;

/// A moment that counts less than this is left out; it is 3 standard deviations away.
const WEIGHT_MIN: f64 = 0.01;

/// Above this load a queue forms by chance now and then, which a fluid does not show; this share of the work meets it.
const BUSY: f64 = 0.9;
const BUSY_LATE: f64 = 0.02;

/// A queue that is left at the end of a future goes on being late, at most for this long, seconds.
const LEFT_S_MAX: f64 = 600.0;

/// Everything that may follow.
#[derive(Debug)]
pub(super) struct Futures {
    pub(super) load_s: f64,
    pub(super) horizon_s: f64,
    /// A queue of more seconds than this is late.
    late_s: f64,
    queue: f64,
    replicas: u32,
    /// What is ready in each bin if nothing is ordered or taken away, pods; pending pods count from their times on.
    ready: Vec<f64>,
    /// Seconds from now at which each pending pod will be ready, the earliest first.
    pending_s: Vec<f64>,
    present: Path,
    history: Vec<Path>,
}

#[derive(Debug)]
struct Path {
    weight: f64,
    /// Arriving work in each bin, pods.
    load: Vec<f64>,
    mean: f64,
    highest: f64,
}

/// Late work, pod-seconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Late {
    /// Over all futures, by their weights.
    pub(super) mean: f64,
    /// The part of the present going on: its weight times its late work, over all weights.
    pub(super) present: f64,
}

impl Futures {
    pub(super) fn gather(
        policy: &Policy,
        demand: &Demand,
        current: &Current,
        now: Millis,
        queue: f64,
    ) -> Self {
        let load_s = seconds(current.load_ms).min(LOAD_S_MAX);
        let horizon_s = HORIZON_MIN_S.max(2.0 * load_s);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "18 to 180")]
        let bins = (horizon_s / seconds(BIN_MS)).ceil() as usize;
        let mut pending_s: Vec<f64> = current.pending.iter().map(|at| seconds(at.since(now))).collect();
        pending_s.sort_unstable_by(f64::total_cmp);
        let mut futures = Self {
            load_s,
            horizon_s,
            late_s: f64::from(policy.late_ms) / 1_000.0,
            queue,
            replicas: current.replicas(),
            ready: Vec::new(),
            pending_s,
            present: present(demand, load_s, bins),
            history: history(demand, bins),
        };
        futures.ready = (0..bins).map(|_| f64::from(current.ready)).collect();
        futures
    }

    /// How far the trend is followed, seconds.
    pub(super) fn trend_s(&self) -> f64 {
        self.load_s.min(TREND_S_MAX)
    }

    /// Moments that were like now.
    pub(super) fn like_moments(&self) -> usize {
        self.history.len()
    }

    /// Work that would be late with `replicas` pods.
    pub(super) fn late(&self, replicas: u32) -> Late {
        let capacity = self.capacity(replicas);
        let weigh = |path: &Path| path.weight * self.late_on(path, &capacity);
        let weights = self.present.weight + self.history.iter().map(|path| path.weight).sum::<f64>();
        let present = weigh(&self.present);
        let history = self.history.iter().map(weigh).sum::<f64>();
        Late { mean: (present + history) / weights, present: present / weights }
    }

    /// Of the like moments, those in whose future the last of `replicas` pods saves more than `price` pod-seconds.
    pub(super) fn bursts(&self, replicas: u32, price: f64) -> usize {
        let (with, without) = (self.capacity(replicas), self.capacity(replicas.saturating_sub(1)));
        let saves = |path: &&Path| self.late_on(path, &without) - self.late_on(path, &with) > price;
        self.history.iter().filter(saves).count()
    }

    fn late_on(&self, path: &Path, capacity: &[f64]) -> f64 {
        late(path, self.queue, capacity, self.late_s)
    }

    /// Pods that serve in each bin if there shall be `replicas`: ordered ones from their load time on; of those to take
    /// away, the pending ones that would come last go first.
    fn capacity(&self, replicas: u32) -> Vec<f64> {
        let more = f64::from(replicas.saturating_sub(self.replicas));
        let mut fewer = self.replicas.saturating_sub(replicas) as usize;
        let kept = self.pending_s.len().saturating_sub(fewer);
        fewer -= self.pending_s.len() - kept;
        let width_s = seconds(BIN_MS);
        let here = |(bin, ready): (usize, &f64)| {
            let end_s = (bin + 1) as f64 * width_s;
            // A pod counts for the share of the bin in which it serves.
            let share = |from_s: f64| ((end_s - from_s) / width_s).clamp(0.0, 1.0);
            let pending: f64 = self.pending_s[..kept].iter().map(|from_s| share(*from_s)).sum();
            ready + pending + more * share(self.load_s) - fewer as f64
        };
        self.ready.iter().enumerate().map(here).collect()
    }
}

fn present(demand: &Demand, load_s: f64, bins: usize) -> Path {
    let until_s = load_s.min(TREND_S_MAX);
    let load = |bin: usize| demand.fast + demand.slope * (bin as f64 * seconds(BIN_MS)).min(until_s);
    Path::new(PRESENT_WEIGHT, (0..bins).map(load).collect())
}

fn history(demand: &Demand, bins: usize) -> Vec<Path> {
    // The noise of a 30 s mean, but never finer than a fifth of the level.
    let level_s = LEVEL_BINS as f64 * seconds(BIN_MS);
    let noise = (demand.dispersion * demand.fast / level_s).sqrt();
    let unit = (0.2 * demand.fast).max(noise);
    // `start` bins ago something followed of which at least half is known; on a grid of the clock, so that from one look
    // to the next the moments stay the same.
    let first = bins.div_ceil(2);
    let first = first + (first + demand.newest) % START_BINS;
    let starts = (first..demand.bins.len()).step_by(START_BINS);
    let path = |start: usize| {
        let before = &demand.bins[start..demand.bins.len().min(start + LEVEL_BINS)];
        let level = before.iter().sum::<f64>() / before.len() as f64;
        let weight = likeness(level - demand.fast, unit);
        // Newest first: what followed lies before `start`; beyond the present the last bin goes on.
        let load = |bin: usize| demand.bins[start.saturating_sub(bin + 1)];
        (weight >= WEIGHT_MIN).then(|| Path::new(weight, (0..bins).map(load).collect()))
    };
    starts.filter_map(path).collect()
}

/// 1 for the same level, a quarter one unit away.
fn likeness(difference: f64, unit: f64) -> f64 {
    if unit <= 0.0 {
        // Now nothing arrives: only moments of nothing are like it.
        return if difference == 0.0 { 1.0 } else { 0.0 };
    }
    let z = difference / unit;
    let tail = 1.0 + z * z;
    1.0 / (tail * tail)
}

impl Path {
    fn new(weight: f64, load: Vec<f64>) -> Self {
        let mean = load.iter().sum::<f64>() / load.len().max(1) as f64;
        let highest = load.iter().copied().fold(0.0, f64::max);
        Self { weight, load, mean, highest }
    }
}

/// Late work of one path, pod-seconds: in each bin the work that comes while the queue is longer than `late_s`, and
/// what is left undone at the end. Without the second part a fleet that must not grow to its demand would be taken away
/// altogether: all work is late with any number of pods, and only its amount tells them apart.
fn late(path: &Path, queue: f64, capacity: &[f64], late_s: f64) -> f64 {
    if queue <= 0.0 && capacity.iter().all(|capacity| path.highest <= BUSY * capacity) {
        return 0.0;
    }
    let width_s = seconds(BIN_MS);
    let mut queue = queue;
    let mut late = 0.0;
    for (load, capacity) in path.load.iter().zip(capacity) {
        let end = queue + (load - capacity) * width_s;
        let mut share = share_above(queue, end, late_s * capacity);
        if share < BUSY_LATE && *load > BUSY * capacity {
            share = BUSY_LATE;
        }
        late += load * width_s * share;
        queue = end.max(0.0);
    }
    let capacity = capacity.last().copied().unwrap_or(0.0);
    let drain = capacity - path.mean;
    let left_s = if queue <= 0.0 {
        0.0
    } else if drain <= 0.0 {
        LEFT_S_MAX
    } else {
        LEFT_S_MAX.min(queue / drain)
    };
    late + path.mean * left_s + queue
}

/// The share of a straight line from `start` to `end` that lies above `limit`.
fn share_above(start: f64, end: f64, limit: f64) -> f64 {
    match (start > limit, end > limit) {
        (true, true) => 1.0,
        (false, false) => 0.0,
        (true, false) => (start - limit) / (start - end),
        (false, true) => (end - limit) / (end - start),
    }
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "inputs are such that results are exact")]
mod tests {
    use super::*;

    fn check(load: &[f64], queue: f64, capacity: f64, expected: f64) {
        let path = Path::new(1.0, load.to_vec());
        let found = late(&path, queue, &vec![capacity; load.len()], 0.7);
        assert!(
            (found - expected).abs() < 1e-9,
            "{load:?} with {capacity} pods: {found} late, not {expected}"
        );
    }

    #[test]
    fn work_is_late_while_the_queue_is_long() {
        check(&[2.0, 2.0], 0.0, 4.0, 0.0);
        // 1.9 of 2 pods busy: 2 % of 19 pod-seconds.
        check(&[1.9], 0.0, 2.0, 0.38);
        // Nobody serves: everything is late, stays so for the ten minutes that are looked at, and is left undone.
        check(&[1.0], 0.0, 0.0, 10.0 + 600.0 + 10.0);
        // 10 s of queue drain at 2 pods net: above 0.7·4 pod-seconds for (20 − 2.8)/20 of the first bin.
        check(&[2.0, 2.0], 20.0, 4.0, 20.0 * 17.2 / 20.0);
        // At the end 10 pod-seconds wait, and drain at 2 pods: 5 s more of 2 pods are late.
        check(&[2.0], 30.0, 4.0, 20.0 + 10.0 + 10.0);
    }

    #[test]
    fn a_moment_counts_less_the_less_it_was_like_now() {
        assert_eq!(likeness(0.0, 1.0), 1.0);
        assert_eq!(likeness(1.0, 1.0), 0.25);
        assert!(likeness(3.0, 1.0) < WEIGHT_MIN + 1e-9);
        assert_eq!(likeness(0.0, 0.0), 1.0);
        assert_eq!(likeness(0.1, 0.0), 0.0);
    }
}
