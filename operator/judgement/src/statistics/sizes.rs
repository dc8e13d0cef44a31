//! How many samples a question needs.

use super::boundary;
use super::distribution::normal_quantile_upper;

/// Samples that the smaller arm needs for a one-sided test at a fixed time to see a difference of `effect` between
/// samples of standard deviation `sd`, at level `alpha` and with probability `power`, when the other arm gets
/// `ratio` times as many.
pub fn fixed_horizon(effect: f64, sd: f64, alpha: f64, power: f64, ratio: f64) -> f64 {
    let reach = normal_quantile_upper(alpha) + normal_quantile_upper(1.0 - power);
    (reach * sd / effect).powi(2) * (1.0 + 1.0 / ratio)
}

/// The smallest number of canary pods, up to `pods_max`, with which a rollout among `control_pods` can prove a
/// canary that is not slower to be within `effect`: the boundary and one standard error of room fit below it when pods differ
/// by a standard deviation of `pod_sd` and have been watched for long. `None` when no such number will do.
pub fn pods_to_pass(pod_sd: f64, control_pods: u32, effect: f64, alpha: f64, pods_max: u32) -> Option<u32> {
    (1..=pods_max).find(|&pods| {
        let variance = pod_sd * pod_sd * (1.0 / f64::from(pods) + 1.0 / f64::from(control_pods.max(1)));
        boundary::half_width(variance, alpha, effect) + variance.sqrt() <= effect
    })
}
