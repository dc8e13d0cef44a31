//! Middle and spread that one bad value cannot move.

/// Makes the median absolute deviation of a normal sample its standard deviation: 1/Φ⁻¹(¾).
const MAD_TO_SD: f64 = 1.482_602_218_505_602;

/// The mean of all but the ⌈`dropped` · n⌉ highest values; of a single one that one. With two values and any share it
/// is the lower, so a single bad one among them cannot speak for both. Never more than the mean. `None` when empty.
pub fn mean_of_lower(values: &[f64], dropped: f64) -> Option<f64> {
    let sorted = sorted(values);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of few values")]
    let high = (dropped * sorted.len() as f64).ceil() as usize;
    let kept = &sorted[..sorted.len() - high.min(sorted.len().saturating_sub(1))];
    (!kept.is_empty()).then(|| kept.iter().sum::<f64>() / kept.len() as f64)
}

/// The usual median. `None` when empty.
pub fn median(values: &[f64]) -> Option<f64> {
    let sorted = sorted(values);
    let upper = *sorted.get(sorted.len() / 2)?;
    Some(0.5 * (sorted[(sorted.len() - 1) / 2] + upper))
}

/// Robust standard deviation: 1.4826 times the median distance from the median. `None` when empty.
pub fn robust_sd(values: &[f64]) -> Option<f64> {
    let middle = median(values)?;
    let distances: Vec<f64> = values.iter().map(|value| (value - middle).abs()).collect();
    median(&distances).map(|mad| MAD_TO_SD * mad)
}

fn sorted(values: &[f64]) -> Vec<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted
}
