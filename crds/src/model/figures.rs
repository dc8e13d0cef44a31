//! Statistics as every status tells them: one measure, and the same measure of two sides compared. For people.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One measure over many answers.
#[derive(JsonSchema, Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Figures {
    /// Answers.
    pub samples: i64,
    /// Their mean.
    pub mean: i64,
    /// Half of them have less.
    pub p50: i64,
    /// 95 of 100 have less.
    pub p95: i64,
    /// 99 of 100 have less.
    pub p99: i64,
}

/// One side against another by Welch's test, at one time chosen before: looking again and again overstates it.
#[derive(JsonSchema, Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Comparison {
    /// How much more it has: of geometric means in hundredths of a percent, of errors in hundredths of a point.
    pub difference_basis_points: i64,
    /// Lower end of the 95% interval of the difference.
    pub lower_basis_points: i64,
    /// Upper end of it.
    pub upper_basis_points: i64,
    /// Welch's t, in thousandths.
    pub t_thousandths: i64,
    /// Its degrees of freedom.
    pub degrees_of_freedom: i64,
    /// How often chance alone would give as large a difference, of a million times.
    pub p_millionths: i64,
    /// Cohen's d, in thousandths: 200 is small, 800 large.
    pub cohens_d_thousandths: i64,
    /// Answers that the smaller of both has.
    pub samples: i64,
    /// Answers that it should have before the interval is looked at, once: enough to find in four of five cases a
    /// difference of what a canary is forgiven, in an experiment of 5% (of errors, of one point), if answers were
    /// independent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recommended_samples: Option<i64>,
}

/// What is compared.
#[derive(JsonSchema, Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum ComparedMetric {
    /// Time to the first token.
    #[default]
    FirstToken,
    /// Mean time between the tokens of an answer.
    InterToken,
    /// Time to the end of the answer.
    Duration,
    /// Tokens of the answer.
    OutputTokens,
    /// Share of requests that ended with an error.
    Errors,
}
