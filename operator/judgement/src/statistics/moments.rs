//! Count, mean and sum of squares, updated one value at a time without losing digits.

use serde::{Deserialize, Serialize};

/// Running moments of a sample.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Moments {
    /// Values seen.
    pub count: u64,
    /// Their mean.
    pub mean: f64,
    /// Sum of squared distances from the mean.
    pub squares: f64,
}

impl Moments {
    /// Adds one value.
    pub fn push(&mut self, value: f64) {
        self.count += 1;
        let before = value - self.mean;
        self.mean += before / self.count as f64;
        self.squares += before * (value - self.mean);
    }

    /// Unbiased variance; `None` below two values.
    pub fn variance(&self) -> Option<f64> {
        (self.count >= 2).then(|| self.squares / (self.count - 1) as f64)
    }
}

impl FromIterator<f64> for Moments {
    fn from_iter<I: IntoIterator<Item = f64>>(values: I) -> Self {
        let mut moments = Self::default();
        values.into_iter().for_each(|value| moments.push(value));
        moments
    }
}

/// The variance inside groups that may differ in their mean: all squares over all degrees of freedom. `None` when
/// no group has two values.
pub fn pooled_variance<'a>(groups: impl IntoIterator<Item = &'a Moments>) -> Option<f64> {
    let (squares, freedom) = groups
        .into_iter()
        .filter(|group| group.count >= 2)
        .fold((0.0, 0), |(squares, freedom), group| (squares + group.squares, freedom + group.count - 1));
    (freedom > 0).then(|| squares / freedom as f64)
}
