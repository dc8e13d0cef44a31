//! Quantiles of a stream in a few kilobytes: a merging t-digest (Dunning and Ertl). For display only; no verdict is
//! made from it.

use std::f64::consts::PI;

use serde::{Deserialize, Serialize};

/// Compression: at most this many centroids, and about 1/(4·100) of rank error at the median, far less at the ends.
const COMPRESSION: f64 = 100.0;
/// Values kept raw until they are merged. Five times the compression makes a merge rare and the buffer small.
const BUFFER_MAX: usize = 500;

/// Values near one another, as their mean.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
struct Centroid {
    mean: f64,
    count: f64,
}

/// A sketch of a distribution.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Digest {
    centroids: Vec<Centroid>,
    buffer: Vec<f64>,
    smallest: f64,
    largest: f64,
}

impl Digest {
    /// Adds one finite value; others are passed over.
    pub fn push(&mut self, value: f64) {
        if !value.is_finite() {
            return;
        }
        let is_first = self.centroids.is_empty() && self.buffer.is_empty();
        self.smallest = if is_first { value } else { self.smallest.min(value) };
        self.largest = if is_first { value } else { self.largest.max(value) };
        self.buffer.push(value);
        if self.buffer.len() >= BUFFER_MAX {
            self.centroids = self.merged();
            self.buffer.clear();
        }
    }

    /// The value below which lies the share `quantile` (0 to 1); `None` when nothing was added.
    pub fn quantile(&self, quantile: f64) -> Option<f64> {
        let centroids = self.merged();
        let last = centroids.last()?;
        let total: f64 = centroids.iter().map(|centroid| centroid.count).sum();
        let rank = quantile.clamp(0.0, 1.0) * total;
        // A centroid stands at the middle of its ranks; between two middles the value is interpolated, and between
        // an outermost middle and the end of the ranks towards the exact extreme.
        let (mut at, mut value, mut before) = (0.0, self.smallest, 0.0);
        for centroid in &centroids {
            let middle = before + 0.5 * centroid.count;
            if rank < middle {
                return Some(value + (centroid.mean - value) * (rank - at) / (middle - at));
            }
            (at, value, before) = (middle, centroid.mean, before + centroid.count);
        }
        let width = (0.5 * last.count).max(f64::MIN_POSITIVE);
        Some(value + (self.largest - value) * ((rank - at) / width).min(1.0))
    }

    /// The mean of all values; `None` when nothing was added.
    pub fn mean(&self) -> Option<f64> {
        let (sum, count) =
            self.centroids().fold((0.0, 0.0), |(sum, all), (mean, count)| (sum + mean * count, all + count));
        (count > 0.0).then(|| sum / count)
    }

    /// Means and counts of values near one another, in their order: the whole distribution, as far as it is known.
    pub fn centroids(&self) -> impl Iterator<Item = (f64, f64)> + use<> {
        self.merged().into_iter().map(|centroid| (centroid.mean, centroid.count))
    }

    /// The digest of what others have gathered: of their centroids, in any order.
    pub fn of(centroids: impl Iterator<Item = (f64, f64)>) -> Self {
        let centroids: Vec<Centroid> = centroids
            .filter(|(mean, count)| mean.is_finite() && count.is_finite() && *count > 0.0)
            .map(|(mean, count)| Centroid { mean, count })
            .collect();
        let means = || centroids.iter().map(|centroid| centroid.mean);
        let (smallest, largest) = (means().reduce(f64::min), means().reduce(f64::max));
        Self {
            smallest: smallest.unwrap_or_default(),
            largest: largest.unwrap_or_default(),
            centroids,
            buffer: Vec::new(),
        }
    }

    fn merged(&self) -> Vec<Centroid> {
        let raw = self.buffer.iter().map(|&mean| Centroid { mean, count: 1.0 });
        let mut all: Vec<Centroid> = self.centroids.iter().copied().chain(raw).collect();
        all.sort_by(|one, other| one.mean.total_cmp(&other.mean));
        let total: f64 = all.iter().map(|centroid| centroid.count).sum();
        let mut merged: Vec<Centroid> = Vec::new();
        let (mut before, mut limit) = (0.0, rank_limit(0.0));
        for centroid in all {
            match merged.last_mut() {
                Some(last) if (before + last.count + centroid.count) / total <= limit => {
                    last.count += centroid.count;
                    last.mean += (centroid.mean - last.mean) * centroid.count / last.count;
                }
                last => {
                    before += last.map_or(0.0, |last| last.count);
                    limit = rank_limit(before / total);
                    merged.push(centroid);
                }
            }
        }
        merged
    }
}

/// Up to which share a centroid may reach that begins at `from`: one unit further on the scale
/// k(q) = δ/2π · arcsin(2q−1), which is fine at both ends.
fn rank_limit(from: f64) -> f64 {
    let angle = (2.0 * from - 1.0).clamp(-1.0, 1.0).asin() + 2.0 * PI / COMPRESSION;
    if angle >= 0.5 * PI { 1.0 } else { 0.5 * (angle.sin() + 1.0) }
}
