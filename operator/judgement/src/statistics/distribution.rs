//! Distributions that the other statistics need: normal, Student's t, binomial bounds.

use std::f64::consts::{PI, SQRT_2};

use statrs::function::beta::beta_reg;
use statrs::function::erf::{erfc, erfc_inv};

/// P(Z > `z`) of a standard normal Z.
pub fn normal_upper(z: f64) -> f64 {
    0.5 * erfc(z / SQRT_2)
}

/// Density of a standard normal at `z`.
pub fn normal_density(z: f64) -> f64 {
    (-0.5 * z * z).exp() / (2.0 * PI).sqrt()
}

/// The z above which lies the share `alpha` of a standard normal; `alpha` in (0, 1).
pub fn normal_quantile_upper(alpha: f64) -> f64 {
    SQRT_2 * erfc_inv(2.0 * alpha)
}

/// P(T > `t`) of Student's t with `dof` degrees of freedom (need not be whole).
pub fn student_upper(t: f64, dof: f64) -> f64 {
    let half = 0.5 * beta_reg(0.5 * dof, 0.5, dof / (dof + t * t));
    if t >= 0.0 { half } else { 1.0 - half }
}

/// The t above which lies the share `alpha` ≤ ½ of Student's t with `dof` degrees of freedom.
pub fn student_quantile_upper(alpha: f64, dof: f64) -> f64 {
    let mut high = 1.0;
    while student_upper(high, dof) > alpha && high < 1e12 {
        high *= 2.0;
    }
    bisect(0.0, high, |t| student_upper(t, dof) > alpha)
}

/// Clopper and Pearson: the largest share under which `hits` or fewer of `trials` still have probability `alpha`.
/// One-sided; 1 when every trial hit or there was none.
pub fn binomial_upper(hits: u64, trials: u64, alpha: f64) -> f64 {
    if hits >= trials {
        return 1.0;
    }
    bisect(0.0, 1.0, |share| binomial_at_most(hits, trials, share) > alpha)
}

/// The smallest share under which `hits` or more of `trials` still have probability `alpha`; one-sided.
pub fn binomial_lower(hits: u64, trials: u64, alpha: f64) -> f64 {
    if hits == 0 || trials == 0 {
        return 0.0;
    }
    bisect(0.0, 1.0, |share| 1.0 - binomial_at_most(hits - 1, trials, share) < alpha)
}

/// P(at most `hits` of `trials`) when each hits with probability `share`; `hits` < `trials`.
fn binomial_at_most(hits: u64, trials: u64, share: f64) -> f64 {
    beta_reg((trials - hits) as f64, hits as f64 + 1.0, 1.0 - share)
}

/// Where `is_below` turns from true to false between `low` and `high`, to the last bits.
pub(crate) fn bisect(mut low: f64, mut high: f64, is_below: impl Fn(f64) -> bool) -> f64 {
    // 100 halvings exhaust the 53 bits of any interval above 10⁻¹⁴ of its end.
    for _ in 0..100 {
        let middle = 0.5 * (low + high);
        if is_below(middle) {
            low = middle;
        } else {
            high = middle;
        }
    }
    0.5 * (low + high)
}
