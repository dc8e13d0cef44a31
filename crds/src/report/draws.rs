//! What gateways have counted of flags and experiments. A flag is a draw with the lots `on` and `off`, an experiment one
//! with a lot for each variant.

use serde::{Deserialize, Serialize};

/// Lots of one draw at most.
pub const LOTS_MAX: usize = 4;

/// Draws of one model at most: 16 flags and 4 experiments.
pub const DRAWS_MAX: usize = 20;

/// What is drawn for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum DrawKind {
    /// Whether a flag is on.
    #[default]
    Flag,
    /// The variant of an experiment.
    Experiment,
}

/// One draw, as one gateway has counted it since it knows this definition of it.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DrawSums {
    /// What is drawn for.
    pub kind: DrawKind,
    /// Name of the flag or the experiment.
    pub name: String,
    /// Which definition of it.
    pub definition: String,
    /// At most [`LOTS_MAX`].
    pub lots: Vec<LotSums>,
}

/// One lot. Requests are counted when they end; their clients' own retries are not.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LotSums {
    /// Its name.
    pub name: String,
    /// Requests that drew it.
    pub requests_total: u64,
    /// Those of them that ended with a status from 500, with 429, or broke off.
    pub errors_total: u64,
    /// Those of them whose client left.
    pub cancelled_total: u64,
    /// Those of them that another model should have answered and could not.
    pub fallbacks_total: u64,
    /// Milliseconds to the first token, of streams.
    pub first_token: Sample,
    /// Mean milliseconds between tokens, of streams.
    pub inter_token: Sample,
    /// Milliseconds to the end.
    pub duration: Sample,
    /// Tokens.
    pub output_tokens: Sample,
}

/// One positive measure of many answers: sums, and a sketch of its distribution.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Sample {
    /// Answers.
    pub count: u64,
    /// Sum of the measure.
    pub sum: f64,
    /// Sum of its natural logarithm.
    pub log_sum: f64,
    /// Sum of the square of that.
    pub log_square_sum: f64,
    /// Means and counts of values near one another, at most [`CENTROIDS_MAX`].
    pub centroids: Vec<(f32, f32)>,
}

/// Entries of [`Sample::centroids`] at most.
pub const CENTROIDS_MAX: usize = 128;

impl LotSums {
    /// Both together, under the name of the first.
    #[must_use]
    pub fn plus(&self, other: &Self) -> Self {
        let sum = |read: fn(&Self) -> u64| read(self).saturating_add(read(other));
        Self {
            name: self.name.clone(),
            requests_total: sum(|lot| lot.requests_total),
            errors_total: sum(|lot| lot.errors_total),
            cancelled_total: sum(|lot| lot.cancelled_total),
            fallbacks_total: sum(|lot| lot.fallbacks_total),
            first_token: self.first_token.plus(&other.first_token),
            inter_token: self.inter_token.plus(&other.inter_token),
            duration: self.duration.plus(&other.duration),
            output_tokens: self.output_tokens.plus(&other.output_tokens),
        }
    }
}

impl Sample {
    /// Both together. Centroids stand beside one another; a digest merges them.
    #[must_use]
    pub fn plus(&self, other: &Self) -> Self {
        Self {
            count: self.count.saturating_add(other.count),
            sum: self.sum + other.sum,
            log_sum: self.log_sum + other.log_sum,
            log_square_sum: self.log_square_sum + other.log_square_sum,
            centroids: [self.centroids.as_slice(), other.centroids.as_slice()].concat(),
        }
    }
}
