//! How much of its share a new endpoint gets. Pure.
//!
//! A pod that has just become ready has an empty prefix cache and cold pages of its weights; its full share at once would
//! make its first requests the slowest of all. Weights only compare endpoints, so a fleet whose pods are all equally
//! new, or a lone pod, is not held back.

use std::time::Duration;

/// A new endpoint has its full weight after this time: as long as a few dozen short requests, which warm it.
pub const SLOW_START: Duration = Duration::from_secs(10);

/// Where the weight begins: not at zero, or nothing would ever warm the pod.
const WEIGHT_MIN: f64 = 0.1;

/// The weight of an endpoint that has its full weight after so long, between 0.1 and 1.
pub fn weight(left: Duration) -> f64 {
    let missing = left.as_secs_f64() / SLOW_START.as_secs_f64();
    1.0 - (1.0 - WEIGHT_MIN) * missing.min(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_weight_grows_to_one_over_ten_seconds() {
        let check = |left_ms: u64, expected: f64| {
            let got = weight(Duration::from_millis(left_ms));
            assert!((got - expected).abs() < 1e-9, "{left_ms} ms: {got}");
        };
        check(3_600_000, 0.1);
        check(10_000, 0.1);
        check(5_000, 0.55);
        check(0, 1.0);
    }
}
