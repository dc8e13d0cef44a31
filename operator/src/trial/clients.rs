//! What clients of both revisions notice in a step, in figures that statisticians expect. Pure; no verdict is made of it.

use crds::model::{ClientFigures, Percentiles, WelchFigures};
use judgement::rollout::{ArmFigures, StepReport, Tolerances, UserMetric};
use judgement::statistics::welch::Welch;

/// The figures of a step; the recommended size is for the slowdown that is tolerated.
pub(super) fn figures(step: &StepReport, tolerances: Tolerances) -> Vec<ClientFigures> {
    let metrics = [
        ("FirstToken", UserMetric::Ttft, tolerances.unqueued_ttft),
        ("InterToken", UserMetric::InterToken, tolerances.decode),
    ];
    let all = metrics.map(|(name, metric, tolerance)| told(name, &step.figures(metric, tolerance)));
    all.into_iter().filter(|told| told.samples > 0).collect()
}

fn told(name: &str, found: &ArmFigures) -> ClientFigures {
    ClientFigures {
        name: name.to_owned(),
        canary_milliseconds: found.canary_ms.map(percentiles),
        stable_milliseconds: found.control_ms.map(percentiles),
        welch: found.welch.map(welch),
        samples: whole(found.achieved),
        recommended_samples: found.recommended.map(whole),
        seconds_left: found.seconds_to_go.map(|seconds| rounded(seconds.ceil())),
    }
}

fn percentiles([p50, p95, p99]: [f64; 3]) -> Percentiles {
    Percentiles { p50: rounded(p50), p95: rounded(p95), p99: rounded(p99) }
}

fn welch(found: Welch) -> WelchFigures {
    let (lower, upper) = found.interval;
    let [difference, lower, upper] =
        [found.difference, lower, upper].map(|log| rounded(log.exp_m1() * 10_000.0));
    WelchFigures {
        difference_basis_points: difference,
        lower_basis_points: lower,
        upper_basis_points: upper,
        t_thousandths: rounded(found.t * 1_000.0),
        degrees_of_freedom: rounded(found.degrees_of_freedom),
        cohens_d_thousandths: rounded(found.cohens_d * 1_000.0),
    }
}

/// The nearest whole number; beyond all of them the last one.
#[expect(clippy::cast_possible_truncation, reason = "the cast saturates")]
fn rounded(value: f64) -> i64 {
    value.round() as i64
}

fn whole(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
