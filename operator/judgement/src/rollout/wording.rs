//! A verdict in one English sentence, with the numbers and, where there is one, the field to change.

use super::evidence::Evidence;
use super::gates::CountGate;
use super::verdict::{Metric, MetricVerdict, Outcome, Reason};

/// What `outcome` for `reason` means, by the figures in `metrics`.
pub(super) fn sentence(
    evidence: &Evidence,
    outcome: Outcome,
    reason: Reason,
    metrics: &[MetricVerdict],
) -> String {
    match outcome {
        Outcome::Rollback => accusation(evidence, reason, metrics),
        Outcome::Pass => proof(evidence),
        Outcome::Suspect => {
            "the only canary pod looks slow; one more on another node will show whether it is the revision"
                .to_owned()
        }
        Outcome::Hold => format!(
            "canary users missed {:.0} points more objectives in the last five minutes, though the revision does its \
             work as fast: it needs more pods",
            100.0 * evidence.recent_misses.gap().unwrap_or(0.0)
        ),
        Outcome::Pause => format!(
            "answers changed in length by {:+.0} %: not slower, but another behaviour and another need of pods",
            100.0 * estimate(metrics, Metric::OutputLength)
        ),
        Outcome::Inconclusive if reason == Reason::TrafficSkew => {
            "the canary gets another share of new conversations than it was given; look at the gateways"
                .to_owned()
        }
        Outcome::Inconclusive => {
            "no ready stable pod runs on the canary's kind of node, so there is nothing to compare with"
                .to_owned()
        }
        Outcome::Continue => format!(
            "nothing is wrong so far; canary pods have been compared for {} blocks",
            metrics
                .iter()
                .find(|found| found.metric == Metric::Decode)
                .map_or(0, |found| found.samples_canary)
        ),
    }
}

/// What a pass rules out.
fn proof(evidence: &Evidence) -> String {
    let (decode, prefill) =
        (100.0 * evidence.analysis.tolerances.decode, 100.0 * evidence.analysis.tolerances.prefill);
    match [Metric::Decode, Metric::Prefill].map(|metric| evidence.analysis.decides(metric)) {
        [true, true] => {
            format!("decode and prefill are proven to be less than {decode:.0} % and {prefill:.0} % slower")
        }
        [true, false] => format!("decode is proven to be less than {decode:.0} % slower"),
        [false, true] => format!("prefill is proven to be less than {prefill:.0} % slower"),
        [false, false] => "nothing is wrong, and how fast it is decides nothing".to_owned(),
    }
}

fn accusation(evidence: &Evidence, reason: Reason, metrics: &[MetricVerdict]) -> String {
    let slower = |what: &str, metric, field: &str| {
        format!(
            "{what} {:.0} % slower per unit of work; if that is meant, raise spec.rollout.analysis.{field}",
            100.0 * estimate(metrics, metric)
        )
    };
    match reason {
        Reason::DecodeSlower => slower("tokens are generated", Metric::Decode, "tolerance.decodePercent"),
        Reason::PrefillSlower => slower("prompts are read", Metric::Prefill, "tolerance.prefillPercent"),
        Reason::UnqueuedTtftSlower => format!(
            "the first token comes {:.0} % later although nothing was ahead of the request{}",
            100.0 * estimate(metrics, Metric::UnqueuedTtft),
            cure(Metric::UnqueuedTtft)
        ),
        Reason::EngineTail => {
            let found = counted("requests that took twice the work they should", &evidence.engine_tail);
            found + &cure(Metric::EngineTail)
        }
        Reason::CacheReuseLost => {
            let found = counted("cached prefixes that were owed and missed", &evidence.cache_reuse);
            found + &cure(Metric::CacheReuse)
        }
        Reason::FewerSlots => {
            let found = counted("requests that waited though a slot should be free", &evidence.slot_wait);
            found + &cure(Metric::SlotWait)
        }
        _ => counted("errors of first attempts", &evidence.errors),
    }
}

fn cure(metric: Metric) -> String {
    format!("; if that is meant, add {metric:?} to spec.rollout.analysis.reportOnly")
}

fn estimate(metrics: &[MetricVerdict], metric: Metric) -> f64 {
    metrics.iter().find(|found| found.metric == metric).map_or(0.0, |found| found.estimate)
}

fn counted(what: &str, gate: &CountGate) -> String {
    format!(
        "{what}: {} of {} in the canary against {} of {} in stable",
        gate.canary.events, gate.canary.trials, gate.control.events, gate.control.trials
    )
}
