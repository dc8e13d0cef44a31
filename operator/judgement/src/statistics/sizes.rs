//! How many samples a question needs.

use super::boundary;
use super::distribution::normal_quantile_upper;
use super::moments::Moments;

/// How often a difference should be found with the recommended size.
const POWER: f64 = 0.8;

/// Samples that the smaller arm needs for a one-sided test at a fixed time to see a difference of `effect` between
/// samples of standard deviation `sd`, at level `alpha` and with probability `power`, when the other arm gets
/// `ratio` times as many.
pub fn fixed_horizon(effect: f64, sd: f64, alpha: f64, power: f64, ratio: f64) -> f64 {
    let reach = normal_quantile_upper(alpha) + normal_quantile_upper(1.0 - power);
    (reach * sd / effect).powi(2) * (1.0 + 1.0 / ratio)
}

/// Values that `one` should have before a single one-sided test at level `alpha` looks for a difference of `effect`, at the
/// present ratio of both; `None` below two values in either.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a size is positive")]
pub fn recommended(one: &Moments, other: &Moments, effect: f64, alpha: f64) -> Option<u64> {
    let sd = one.variance()?.max(other.variance()?).sqrt();
    let ratio = (other.count as f64 / one.count.max(1) as f64).max(0.01);
    Some(fixed_horizon(effect, sd, alpha, POWER, ratio).ceil() as u64)
}

/// The smallest difference that a confidence sequence at level `alpha`, tightest for `effect`, separates from none between so
/// many canary and control pods that differ by a standard deviation of `pod_sd` and have been watched for long: its half
/// width, and one standard error of room.
pub fn smallest_seen(pod_sd: f64, (canary_pods, control_pods): (u32, u32), effect: f64, alpha: f64) -> f64 {
    let share = |pods: u32| 1.0 / f64::from(pods.max(1));
    let variance = pod_sd * pod_sd * (share(canary_pods) + share(control_pods));
    boundary::half_width(variance, alpha, effect) + variance.sqrt()
}
