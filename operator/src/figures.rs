//! Statistics in the whole numbers of a status: one measure, and the same measure of two sides compared. Pure.

use crds::model::{Comparison, Figures};
use judgement::statistics::welch::Welch;

/// Microseconds of a millisecond: status fields are whole numbers.
pub const MICROSECONDS: f64 = 1_000.0;

/// What a difference of means is for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scale {
    /// Of logarithms: a share of the whole.
    Logarithms,
    /// Of shares: points.
    Shares,
}

impl Scale {
    /// The difference as a share.
    pub fn share(self, difference: f64) -> f64 {
        match self {
            Self::Logarithms => difference.exp_m1(),
            Self::Shares => difference,
        }
    }
}

/// A measure over `samples` answers, in units of which `scale` are one of what was measured.
pub fn figures(samples: u64, mean: f64, percentiles: [f64; 3], scale: f64) -> Figures {
    let [mean, p50, p95, p99] = [mean, percentiles[0], percentiles[1], percentiles[2]];
    let [mean, p50, p95, p99] = [mean, p50, p95, p99].map(|value| rounded(scale * value));
    Figures { samples: whole(samples), mean, p50, p95, p99 }
}

/// What a test found, where the smaller side has `samples` answers.
pub fn comparison(found: &Welch, scale: Scale, samples: u64, recommended: Option<u64>) -> Comparison {
    let basis_points = |difference| rounded(scale.share(difference) * 10_000.0);
    Comparison {
        difference_basis_points: basis_points(found.difference),
        lower_basis_points: basis_points(found.interval.0),
        upper_basis_points: basis_points(found.interval.1),
        t_thousandths: rounded(found.t * 1_000.0),
        degrees_of_freedom: rounded(found.degrees_of_freedom),
        p_millionths: rounded(chance(found) * 1e6),
        cohens_d_thousandths: rounded(found.cohens_d * 1_000.0),
        samples: whole(samples),
        recommended_samples: recommended.map(whole),
    }
}

/// How often chance alone would give as large a difference, either way.
pub fn chance(found: &Welch) -> f64 {
    2.0 * found.p_greater.min(1.0 - found.p_greater)
}

/// The nearest whole number; what is none is 0.
#[expect(clippy::cast_possible_truncation, reason = "the cast saturates")]
pub fn rounded(value: f64) -> i64 {
    value.round() as i64
}

/// A count.
pub fn whole(count: u64) -> i64 {
    // Far from what an i64 cannot hold, also times eleven.
    i64::try_from(count).unwrap_or(i64::MAX).min(i64::MAX / 100)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comparison_is_told_as_a_share_of_the_whole_or_in_points() {
        let found = Welch {
            difference: 0.1,
            standard_error: 0.05,
            t: 2.0,
            degrees_of_freedom: 99.6,
            p_greater: 0.02,
            interval: (0.0, 0.2),
            cohens_d: 0.25,
        };
        let told = comparison(&found, Scale::Logarithms, 50, Some(200));
        assert_eq!((told.lower_basis_points, told.difference_basis_points), (0, 1_052));
        assert_eq!(
            (told.upper_basis_points, told.t_thousandths, told.degrees_of_freedom),
            (2_214, 2_000, 100)
        );
        assert_eq!((told.p_millionths, told.cohens_d_thousandths), (40_000, 250), "two-sided");
        assert_eq!((told.samples, told.recommended_samples), (50, Some(200)));
        assert_eq!(comparison(&found, Scale::Shares, 50, None).difference_basis_points, 1_000);
        let measured = figures(3, 1.5, [1.0, 2.0, 2.5], MICROSECONDS);
        assert_eq!((measured.samples, measured.mean, measured.p50, measured.p99), (3, 1_500, 1_000, 2_500));
        assert_eq!((rounded(f64::NAN), whole(u64::MAX) * 11 > 0), (0, true));
    }
}
