//! Middle and spread that one bad value cannot move.

/// Makes the median absolute deviation of a normal sample its standard deviation: 1/Φ⁻¹(¾).
const MAD_TO_SD: f64 = 1.482_602_218_505_602;

/// The lower median: the smaller of the two middle values of an even sample. With two pods it is the better one, so
/// a single bad node among two cannot speak for the revision. `None` when empty.
pub fn lower_median(values: &[f64]) -> Option<f64> {
    let sorted = sorted(values);
    sorted.get(sorted.len().saturating_sub(1) / 2).copied()
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
