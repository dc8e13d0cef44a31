//! What the status says of flags and experiments. Pure.

use crds::model::{ExperimentStatus, Figures, VariantComparison, VariantStatus};
use crds::report::{DrawKind, DrawSums, LotSums, Sample};
use judgement::statistics::digest::Digest;

use super::DrawKey;
use super::compare::compare;
use crate::figures::{self, MICROSECONDS, whole};

/// What `status.experiments`, or with the other kind `status.featureFlags`, says of what is declared. Each is rewritten
/// when a tenth more has been answered: until then, and while a new operator knows less, it stays.
pub fn status(
    kind: DrawKind,
    declared: &[DrawKey],
    told: &[ExperimentStatus],
    sums: &[DrawSums],
) -> Vec<ExperimentStatus> {
    let declared = declared.iter().filter(|key| key.kind == kind);
    declared
        .filter_map(|key| {
            let is_it = |name: &str, definition: &str| (&*key.name, &*key.definition) == (name, definition);
            let told = told.iter().find(|told| is_it(&told.name, &told.definition));
            let now = sums.iter().find(|sums| sums.kind == kind && is_it(&sums.name, &sums.definition));
            match (told, now.map(found)) {
                (Some(told), Some(now)) if now.requests * 10 < told.requests * 11 => Some(told.clone()),
                (told, now) => now.or_else(|| told.cloned()),
            }
        })
        .collect()
}

fn found(draw: &DrawSums) -> ExperimentStatus {
    let variants: Vec<VariantStatus> = draw.lots.iter().map(variant).collect();
    ExperimentStatus {
        name: draw.name.clone(),
        definition: draw.definition.clone(),
        requests: variants.iter().map(|variant| variant.requests).sum(),
        variants,
        comparisons: comparisons(draw),
    }
}

/// Each other variant against the first; of a flag `on`, which is the first, against `off`.
fn comparisons(draw: &DrawSums) -> Vec<VariantComparison> {
    match (draw.kind, draw.lots.as_slice()) {
        (DrawKind::Flag, [on, off, ..]) => compare(on, off),
        (DrawKind::Experiment, [first, others @ ..]) => {
            others.iter().flat_map(|other| compare(other, first)).collect()
        }
        _ => Vec::new(),
    }
}

fn variant(lot: &LotSums) -> VariantStatus {
    VariantStatus {
        name: lot.name.clone(),
        requests: whole(lot.requests_total),
        errors: whole(lot.errors_total),
        cancelled: whole(lot.cancelled_total),
        fallbacks: whole(lot.fallbacks_total),
        first_token_microseconds: figures(&lot.first_token, MICROSECONDS),
        inter_token_microseconds: figures(&lot.inter_token, MICROSECONDS),
        duration_microseconds: figures(&lot.duration, MICROSECONDS),
        output_tokens: figures(&lot.output_tokens, 1.0),
    }
}

/// A measure in units of which `scale` are one of the report's; nothing before the first answer.
fn figures(sample: &Sample, scale: f64) -> Option<Figures> {
    let centroids = sample.centroids.iter().map(|(mean, count)| (f64::from(*mean), f64::from(*count)));
    let digest = Digest::of(centroids);
    let percentiles = [digest.quantile(0.5)?, digest.quantile(0.95)?, digest.quantile(0.99)?];
    Some(figures::figures(sample.count, sample.sum / sample.count as f64, percentiles, scale))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(kind: DrawKind, name: &str, definition: &str) -> DrawKey {
        DrawKey { kind, name: name.into(), definition: definition.into() }
    }

    fn sample(values: &[f32]) -> Sample {
        let all = || values.iter().map(|value| f64::from(*value));
        Sample {
            count: values.len() as u64,
            sum: all().sum(),
            log_sum: all().map(f64::ln).sum(),
            log_square_sum: all().map(|value| value.ln().powi(2)).sum(),
            centroids: values.iter().map(|value| (*value, 1.0)).collect(),
        }
    }

    fn draw(kind: DrawKind, definition: &str, requests: u64) -> DrawSums {
        let lot = |name: &str| LotSums {
            name: name.into(),
            requests_total: requests,
            duration: sample(&[100.0, 200.0, 300.0]),
            ..LotSums::default()
        };
        let lots = ["a", "b", "c"].map(lot).to_vec();
        DrawSums { kind, name: "size".into(), definition: definition.into(), lots }
    }

    #[test]
    fn an_experiment_is_told_with_each_variant_against_the_first() {
        let kind = DrawKind::Experiment;
        let found = status(kind, &[key(kind, "size", "x")], &[], &[draw(kind, "x", 10)]);
        let [size] = found.as_slice() else { panic!("{found:?}") };
        assert_eq!((size.requests, size.variants.len()), (30, 3));
        let duration = size.variants[0].duration_microseconds.unwrap();
        assert_eq!((duration.samples, duration.mean, duration.p50), (3, 200_000, 200_000));
        assert_eq!(size.variants[0].first_token_microseconds, None);
        let compared: Vec<_> =
            size.comparisons.iter().map(|found| (found.variant.as_str(), found.against.as_str())).collect();
        assert_eq!(compared, [("b", "a"), ("c", "a")]);
        assert_eq!(status(DrawKind::Flag, &[key(kind, "size", "x")], &[], &[draw(kind, "x", 10)]), []);
    }

    #[test]
    fn of_a_flag_on_is_compared_with_off() {
        let mut flag = draw(DrawKind::Flag, "x", 10);
        flag.lots.truncate(2);
        let found = status(DrawKind::Flag, &[key(DrawKind::Flag, "size", "x")], &[], &[flag]);
        assert_eq!(
            (found[0].comparisons[0].variant.as_str(), found[0].comparisons[0].against.as_str()),
            ("a", "b")
        );
    }

    #[test]
    fn it_is_rewritten_for_a_tenth_more_and_begins_anew_with_its_definition() {
        let kind = DrawKind::Experiment;
        let requests = |before: u64, definition: &str, now: Option<u64>| {
            let before = status(kind, &[key(kind, "size", "x")], &[], &[draw(kind, "x", before)]);
            let now: Vec<DrawSums> = now.map(|now| draw(kind, definition, now)).into_iter().collect();
            let found = status(kind, &[key(kind, "size", definition)], &before, &now);
            found.first().map(|found| found.requests / 3)
        };
        assert_eq!(requests(100, "x", Some(109)), Some(100));
        assert_eq!(requests(100, "x", Some(110)), Some(110));
        assert_eq!(requests(100, "x", Some(7)), Some(100), "a new operator knows less");
        assert_eq!(requests(100, "x", None), Some(100));
        assert_eq!(requests(100, "y", Some(7)), Some(7));
        assert_eq!(requests(100, "y", None), None);
    }
}
