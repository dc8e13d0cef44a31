//! What clients of both revisions notice in a step, in figures that statisticians expect. Pure; no verdict is made of it.

use crds::model::{ClientFigures, ComparedMetric};
use judgement::rollout::{ArmFigures, StepReport, Tolerances, UserMetric};

use crate::figures::{self, MICROSECONDS, Scale, comparison, rounded};

/// The figures of a step; the recommended size is for the slowdown that is tolerated.
pub(super) fn clients(step: &StepReport, tolerances: Tolerances) -> Vec<ClientFigures> {
    let metrics = [
        (ComparedMetric::FirstToken, UserMetric::Ttft, tolerances.unqueued_ttft),
        (ComparedMetric::InterToken, UserMetric::InterToken, tolerances.decode),
    ];
    let all = metrics.map(|(name, metric, tolerance)| (name, step.figures(metric, tolerance)));
    let noticed = all.into_iter().filter(|(_, found)| found.achieved > 0);
    noticed.map(|(name, found)| told(name, &found)).collect()
}

fn told(metric: ComparedMetric, found: &ArmFigures) -> ClientFigures {
    let figures = |samples, mean: Option<f64>, percentiles: Option<[f64; 3]>| {
        Some(figures::figures(samples, mean?, percentiles?, MICROSECONDS))
    };
    let [canary_mean, stable_mean] = found.means_ms;
    let samples = found.achieved.min(found.control);
    ClientFigures {
        metric,
        canary_microseconds: figures(found.achieved, canary_mean, found.canary_ms),
        stable_microseconds: figures(found.control, stable_mean, found.control_ms),
        comparison: found
            .welch
            .map(|welch| comparison(&welch, Scale::Logarithms, samples, found.recommended)),
        seconds_left: found.seconds_to_go.map(|seconds| rounded(seconds.ceil())),
    }
}
