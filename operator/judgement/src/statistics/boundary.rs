//! The normal-mixture boundary: how far an estimate may lie from its truth at *any* time one looks.
//!
//! A test at a fixed time errs more often the more often one looks. This boundary averages the likelihood ratio over
//! a normal prior of effects, which makes it a martingale under "no change": by Ville's inequality it is ever crossed
//! with probability at most alpha, however often and whenever somebody looks.

use super::distribution::normal_quantile_upper;

/// Power at which the boundary is at its tightest, as a normal quantile: Φ⁻¹(0.80).
const POWER_QUANTILE: f64 = 0.842;
/// Level at which the boundary is at its tightest: Φ⁻¹(0.95).
const LEVEL_QUANTILE: f64 = 1.645;

/// Half width of the one-sided confidence sequence for an estimate of variance `variance` at level `alpha`
/// (0 < alpha < ½), tightest when there is just enough information to see an effect of `effect` (> 0, in the
/// estimate's unit). At that point and alpha = 5 % it is 2.76 standard errors, against 1.645 at a fixed time.
pub fn half_width(variance: f64, alpha: f64, effect: f64) -> f64 {
    let information = 1.0 / variance;
    let level = -2.0 * (2.0 * alpha).ln();
    let best = ((LEVEL_QUANTILE + POWER_QUANTILE) / effect).powi(2);
    let ratio = (level + level.ln_1p()) / best * information;
    (variance * (1.0 + ratio) / ratio * (level + ratio.ln_1p())).sqrt()
}

/// Widens a normal half width when the variance was estimated with `dof` degrees of freedom: the first term of the
/// Cornish-Fisher expansion of Student's quantile at `alpha`.
pub fn student_factor(alpha: f64, dof: f64) -> f64 {
    let quantile = normal_quantile_upper(alpha);
    1.0 + (quantile * quantile + 1.0) / (4.0 * dof)
}

/// The e-value that belongs to [`half_width`]: it reaches 1/alpha exactly where `estimate` reaches the half width.
/// 0 for estimates on the harmless side, where the one-sided bet has lost; at most 10¹².
pub fn e_value(estimate: f64, variance: f64, alpha: f64, effect: f64) -> f64 {
    if estimate <= 0.0 {
        return 0.0;
    }
    let level = -2.0 * (2.0 * alpha).ln();
    let best = ((LEVEL_QUANTILE + POWER_QUANTILE) / effect).powi(2);
    let ratio = (level + level.ln_1p()) / best / variance;
    let log = estimate * estimate / variance * ratio / (1.0 + ratio) / 2.0 - 0.5 * ratio.ln_1p();
    2.0 * log.min(27.0).exp()
}
