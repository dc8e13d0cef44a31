//! Welch's t test: do two samples of unequal variance have the same mean, at one time chosen before.

use serde::{Deserialize, Serialize};

use super::distribution::{student_quantile_upper, student_upper};
use super::moments::Moments;

/// What the test says of `canary − control`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Welch {
    /// Difference of the means.
    pub difference: f64,
    /// Its standard error.
    pub standard_error: f64,
    /// The statistic.
    pub t: f64,
    /// Welch and Satterthwaite's degrees of freedom.
    pub degrees_of_freedom: f64,
    /// P(T ≥ t): small when the canary's mean is the larger.
    pub p_greater: f64,
    /// 95 % interval of the difference.
    pub interval: (f64, f64),
    /// Cohen's d with the pooled standard deviation: 0.2 is small, 0.8 large.
    pub cohens_d: f64,
}

/// Compares two samples; `None` below two values in either, or when neither varies.
pub fn welch(canary: &Moments, control: &Moments) -> Option<Welch> {
    let canary_error = canary.variance()? / canary.count as f64;
    let control_error = control.variance()? / control.count as f64;
    let squared_error = canary_error + control_error;
    if squared_error <= 0.0 {
        return None;
    }
    let freedom = |error: f64, count: u64| error * error / (count - 1) as f64;
    let degrees_of_freedom =
        squared_error.powi(2) / (freedom(canary_error, canary.count) + freedom(control_error, control.count));
    let difference = canary.mean - control.mean;
    let standard_error = squared_error.sqrt();
    let t = difference / standard_error;
    let reach = student_quantile_upper(0.025, degrees_of_freedom) * standard_error;
    let pooled = (canary.squares + control.squares) / (canary.count + control.count - 2) as f64;
    Some(Welch {
        difference,
        standard_error,
        t,
        degrees_of_freedom,
        p_greater: student_upper(t, degrees_of_freedom),
        interval: (difference - reach, difference + reach),
        cohens_d: difference / pooled.sqrt(),
    })
}
