//! Two variants beside each other: Welch's test at one time, with what it needs to mean something. Times and lengths are
//! skewed, their logarithms hardly, so geometric means are compared. Pure.

use crds::model::{ComparedMetric, VariantComparison};
use crds::report::{LotSums, Sample};
use judgement::statistics::moments::Moments;
use judgement::statistics::sizes;
use judgement::statistics::welch::{Welch, welch};

use crate::figures::{Scale, chance, comparison};

/// The interval is of 95 %, so 2.5 % are on either side.
const ALPHA: f64 = 0.025;
/// The smallest difference of times and lengths that the recommended size is for: what a canary is forgiven by default.
const EFFECT: f64 = 0.05;
/// The same of errors, as a share: one point, as for canaries.
const ERRORS_EFFECT: f64 = 0.01;

/// A measure of two variants, ready to be compared.
struct Pair {
    metric: ComparedMetric,
    variant: Moments,
    against: Moments,
}

/// All that can be compared of two variants.
pub(super) fn compare(variant: &LotSums, against: &LotSums) -> Vec<VariantComparison> {
    let of = |metric, read: fn(&LotSums) -> Moments| {
        let pair = Pair { metric, variant: read(variant), against: read(against) };
        pair.compared(&variant.name, &against.name)
    };
    let all = [
        of(ComparedMetric::FirstToken, |lot| logarithms(&lot.first_token)),
        of(ComparedMetric::InterToken, |lot| logarithms(&lot.inter_token)),
        of(ComparedMetric::Duration, |lot| logarithms(&lot.duration)),
        of(ComparedMetric::OutputTokens, |lot| logarithms(&lot.output_tokens)),
        of(ComparedMetric::Errors, errors),
    ];
    all.into_iter().flatten().collect()
}

fn logarithms(sample: &Sample) -> Moments {
    let count = sample.count as f64;
    let mean = sample.log_sum / count.max(1.0);
    let squares = (sample.log_square_sum - sample.log_sum * mean).max(0.0);
    Moments { count: sample.count, mean, squares }
}

/// Each request is 1 if it failed and 0 otherwise. Those whose client left say nothing.
fn errors(lot: &LotSums) -> Moments {
    let count = lot.requests_total.saturating_sub(lot.cancelled_total);
    let failed = lot.errors_total.min(count) as f64;
    let mean = failed / (count as f64).max(1.0);
    Moments { count, mean, squares: failed * (1.0 - mean) }
}

impl Pair {
    /// `None` while there is too little of either, or nothing varies.
    fn compared(&self, variant: &str, against: &str) -> Option<VariantComparison> {
        let found = welch(&self.variant, &self.against)?;
        let recommended = self.recommended();
        let samples = self.variant.count.min(self.against.count);
        let message = Sentence { pair: self, variant, against, found: &found, samples, recommended };
        Some(VariantComparison {
            variant: variant.to_owned(),
            against: against.to_owned(),
            metric: self.metric,
            comparison: comparison(&found, self.scale(), samples, recommended),
            message: message.text(),
        })
    }

    fn scale(&self) -> Scale {
        if self.metric == ComparedMetric::Errors { Scale::Shares } else { Scale::Logarithms }
    }

    /// Answers that the smaller of both needs.
    fn recommended(&self) -> Option<u64> {
        let mut sides = [&self.variant, &self.against];
        sides.sort_by_key(|side| side.count);
        let effect = if self.metric == ComparedMetric::Errors { ERRORS_EFFECT } else { EFFECT.ln_1p() };
        sizes::recommended(sides[0], sides[1], effect, ALPHA).map(|size| size.max(2))
    }
}

/// A comparison for people.
struct Sentence<'a> {
    pair: &'a Pair,
    variant: &'a str,
    against: &'a str,
    found: &'a Welch,
    samples: u64,
    recommended: Option<u64>,
}

impl Sentence<'_> {
    fn text(&self) -> String {
        let (lower, upper) = self.found.interval;
        let [difference, lower, upper] =
            [self.found.difference, lower, upper].map(|value| self.figure(value));
        let Self { variant, against, samples, .. } = self;
        let (p, d) = (self.p_text(), self.found.cohens_d);
        let what = self.what();
        let verdict = match self.recommended {
            Some(recommended) if *samples < recommended => {
                format!("too early to tell, with {samples} of {recommended} recommended answers")
            }
            _ if chance(self.found) < 2.0 * ALPHA => format!("more than chance, with {samples} answers"),
            _ => format!("not more than chance, with {samples} answers"),
        };
        format!(
            "{variant} against {against}: {what} {difference} (95% interval {lower} to {upper}, {p}, d = {d:.2}); {verdict}"
        )
    }

    fn what(&self) -> &'static str {
        match self.pair.metric {
            ComparedMetric::FirstToken => "time to the first token",
            ComparedMetric::InterToken => "time between tokens",
            ComparedMetric::Duration => "time to the end",
            ComparedMetric::OutputTokens => "tokens of an answer",
            ComparedMetric::Errors => "errors",
        }
    }

    fn figure(&self, difference: f64) -> String {
        let percent = 100.0 * self.pair.scale().share(difference);
        let unit = if self.pair.metric == ComparedMetric::Errors { " points" } else { "%" };
        format!("{percent:+.1}{unit}")
    }

    fn p_text(&self) -> String {
        let p = chance(self.found);
        if p < 0.001 { "p < 0.001".to_owned() } else { format!("p = {p:.3}") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(values: impl Iterator<Item = f64>) -> Sample {
        values.fold(Sample::default(), |sample, value: f64| Sample {
            count: sample.count + 1,
            sum: sample.sum + value,
            log_sum: sample.log_sum + value.ln(),
            log_square_sum: sample.log_square_sum + value.ln().powi(2),
            centroids: Vec::new(),
        })
    }

    /// Durations that are `factor` times those around 100 ms.
    fn lot(name: &str, count: u32, factor: f64) -> LotSums {
        let values = (0..count).map(|number| factor * 100.0 * (0.3 * f64::from(number % 7) - 0.9).exp());
        LotSums {
            name: name.into(),
            requests_total: count.into(),
            duration: sample(values),
            ..LotSums::default()
        }
    }

    fn duration(variant: &LotSums, against: &LotSums) -> VariantComparison {
        let found = compare(variant, against);
        found.into_iter().find(|found| found.metric == ComparedMetric::Duration).unwrap()
    }

    #[test]
    fn a_difference_is_found_with_the_recommended_size_and_not_before() {
        let VariantComparison { comparison: found, message, .. } =
            duration(&lot("small", 7_000, 0.8), &lot("big", 7_000, 1.0));
        assert_eq!(found.difference_basis_points, -2_000);
        assert!(found.lower_basis_points < -2_000 && found.upper_basis_points > -2_000, "{found:?}");
        assert!(found.upper_basis_points < 0 && found.p_millionths < 1_000, "{found:?}");
        assert!(found.t_thousandths < -10_000 && found.cohens_d_thousandths < -300, "{found:?}");
        assert!(
            found.recommended_samples.is_some_and(|samples| (1_000..7_000).contains(&samples)),
            "{found:?}"
        );
        assert_eq!(
            message,
            "small against big: time to the end -20.0% (95% interval -21.6% to -18.4%, p < 0.001, d = -0.37); more than \
             chance, with 7000 answers"
        );
        let early = duration(&lot("small", 70, 0.8), &lot("big", 7_000, 1.0));
        assert!(early.message.contains("too early to tell, with 70 of "), "{}", early.message);
        let same = duration(&lot("small", 7_000, 1.0), &lot("big", 7_000, 1.0));
        let told = same.comparison;
        assert_eq!((told.difference_basis_points, told.p_millionths), (0, 1_000_000));
        assert!(same.message.ends_with("not more than chance, with 7000 answers"), "{}", same.message);
    }

    #[test]
    fn errors_are_compared_in_points() {
        let lot = |errors_total| LotSums {
            requests_total: 1_100,
            cancelled_total: 100,
            errors_total,
            ..lot("x", 0, 1.0)
        };
        let found = compare(&lot(100), &lot(50));
        assert_eq!(found.len(), 1, "nothing was answered: {found:?}");
        let told = found[0].comparison;
        assert_eq!((found[0].metric, told.difference_basis_points), (ComparedMetric::Errors, 500));
        assert!(told.lower_basis_points > 200 && told.upper_basis_points < 800, "{found:?}");
        assert!(found[0].message.contains("errors +5.0 points (95% interval +2."), "{}", found[0].message);
        assert_eq!(compare(&lot(0), &lot(0)), [], "without any error there is nothing to compare");
    }
}
