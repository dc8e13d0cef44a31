//! Durations in microseconds and their percentiles.

use serde_json::{Value, json};

/// Measured durations.
#[derive(Debug, Clone, Default)]
pub struct Samples(Vec<u64>);

impl Samples {
    /// Adds one, in microseconds.
    pub fn add(&mut self, micros: u64) {
        self.0.push(micros);
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// The 50th, 95th and 99th percentile, in microseconds; zeros when there are none.
    pub fn percentiles(&self) -> Percentiles {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        Percentiles { p50: nearest(&sorted, 50), p95: nearest(&sorted, 95), p99: nearest(&sorted, 99) }
    }
}

/// Three percentiles in microseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Percentiles {
    /// Half are faster.
    pub p50: i64,
    /// One in twenty is slower.
    pub p95: i64,
    /// One in a hundred is slower.
    pub p99: i64,
}

impl Percentiles {
    /// How much later than `direct` each percentile is; noise can make it negative.
    #[must_use]
    pub fn added_to(self, direct: Self) -> Self {
        Self { p50: self.p50 - direct.p50, p95: self.p95 - direct.p95, p99: self.p99 - direct.p99 }
    }

    /// For the report, in milliseconds.
    pub fn json(self) -> Value {
        json!({"p50Ms": millis(self.p50), "p95Ms": millis(self.p95), "p99Ms": millis(self.p99)})
    }
}

/// Microseconds as milliseconds.
pub fn millis(micros: i64) -> f64 {
    micros as f64 / 1000.0
}

/// The nearest-rank percentile of sorted values.
fn nearest(sorted: &[u64], percent: usize) -> i64 {
    let rank = (sorted.len() * percent).div_ceil(100);
    let value = sorted.get(rank.saturating_sub(1)).copied().unwrap_or_default();
    i64::try_from(value).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let mut samples = Samples::default();
        assert_eq!(samples.percentiles(), Percentiles::default());
        for micros in (1..=200).rev() {
            samples.add(micros);
        }
        assert_eq!(samples.percentiles(), Percentiles { p50: 100, p95: 190, p99: 198 });
        let slower = Percentiles { p50: 150, p95: 180, p99: 300 };
        assert_eq!(slower.added_to(samples.percentiles()), Percentiles { p50: 50, p95: -10, p99: 102 });
    }
}
