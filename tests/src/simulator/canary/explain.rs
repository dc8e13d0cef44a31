//! A stored verdict, made again from its stored evidence, and what it was made from.

use std::fmt::Write as _;

use anyhow::{Context as _, Result, ensure};
use judgement::rollout::{ArmFigures, Evidence, UserMetric, Verdict, judge};
use serde::{Deserialize, Serialize};

use super::super::table::Table;

/// A verdict with its evidence, as `simulate canary` writes it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Stored {
    /// What was known.
    pub evidence: Evidence,
    /// What it amounted to.
    pub verdict: Verdict,
}

/// Judges the evidence that `text` stores once more, and says what the verdict was made from.
pub fn explain(text: &str) -> Result<String> {
    let Stored { evidence, verdict } =
        serde_json::from_str(text).context("not a verdict with its evidence")?;
    let again = judge(&evidence);
    ensure!(again == verdict, "the replay differs: it says {:?} ({})", again.outcome, again.sentence);
    let mut out = String::new();
    writeln!(out, "{:?} ({:?}). {}", verdict.outcome, verdict.reason, verdict.sentence)?;
    writeln!(out, "Judged again from its stored evidence: the same, bit for bit.\n")?;
    writeln!(out, "{}", gates(&verdict))?;
    writeln!(out, "permitted chance of a false rollback used up: {:.1} %", 100.0 * verdict.budget_used)?;
    if let (Some(sd), Some(pods)) = (verdict.pod_sd, verdict.pods_needed) {
        writeln!(
            out,
            "pods differ by {:.1} % (standard deviation); {pods} canary pods could prove a pass",
            100.0 * sd
        )?;
    }
    writeln!(out, "\nWhat users saw, for people; no verdict is made from it:\n")?;
    write!(out, "{}", users(&evidence))?;
    Ok(out)
}

fn gates(verdict: &Verdict) -> Table {
    let mut table =
        Table::new(["gate", "change", "at least", "at most", "e-value", "canary", "stable", "stands"]);
    for gate in &verdict.metrics {
        let percent = |share: f64| format!("{:+.1} %", 100.0 * share);
        table.row([
            format!("{:?}", gate.metric),
            percent(gate.estimate),
            percent(gate.lower),
            percent(gate.upper),
            format!("{:.2e}", gate.e_value),
            gate.samples_canary.to_string(),
            gate.samples_control.to_string(),
            format!("{:?}", gate.standing),
        ]);
    }
    table
}

fn users(evidence: &Evidence) -> Table {
    let mut table = Table::new([
        "step",
        "metric",
        "canary P50/P95/P99 ms",
        "stable P50/P95/P99 ms",
        "Welch t",
        "d.o.f.",
        "95 % of the change",
        "Cohen's d",
        "requests",
        "recommended",
        "to go",
    ]);
    let tolerance = evidence.analysis().tolerances.unqueued_ttft;
    for (number, step) in (1..).zip(evidence.steps()) {
        for metric in [UserMetric::Ttft, UserMetric::InterToken] {
            let figures = step.figures(metric, tolerance);
            let first = [format!("{number}"), format!("{metric:?}")];
            table.row(first.into_iter().chain(figures_row(&figures)));
        }
    }
    table
}

fn figures_row(figures: &ArmFigures) -> [String; 9] {
    let percentiles = |of: Option<[f64; 3]>| {
        of.map_or_else(String::new, |[middle, high, top]| format!("{middle:.0}/{high:.0}/{top:.0}"))
    };
    let welch = figures.welch;
    let of_welch =
        |show: &dyn Fn(judgement::statistics::welch::Welch) -> String| welch.map_or_else(String::new, show);
    [
        percentiles(figures.canary_ms),
        percentiles(figures.control_ms),
        of_welch(&|welch| format!("{:.2}", welch.t)),
        of_welch(&|welch| format!("{:.0}", welch.degrees_of_freedom)),
        of_welch(&|welch| {
            let (low, high) = welch.interval;
            format!("{:+.1} … {:+.1} %", 100.0 * low.exp_m1(), 100.0 * high.exp_m1())
        }),
        of_welch(&|welch| format!("{:.2}", welch.cohens_d)),
        figures.achieved.to_string(),
        figures.recommended.map_or_else(String::new, |size| size.to_string()),
        figures.seconds_to_go.map_or_else(String::new, |seconds| format!("{seconds:.0} s")),
    ]
}

#[cfg(test)]
mod tests {
    use judgement::rollout::{Analysis, Outcome};

    use super::super::super::trace::Traces;
    use super::super::closed;
    use super::super::world::World;
    use super::*;

    #[test]
    fn a_stored_verdict_is_explained_and_a_changed_one_is_refused() {
        let material = super::super::material(&Traces::open(None).unwrap());
        let world = World { rate: 2.0, pods: 4, ..World::plain("small") };
        let ending = closed::run(&world, &material, 1, &Analysis::default());
        let stored = Stored { evidence: ending.evidence, verdict: ending.verdict.unwrap() };
        let text = explain(&serde_json::to_string(&stored).unwrap()).unwrap();
        assert!(
            text.contains("bit for bit") && text.contains("| Decode") && text.contains("| Ttft"),
            "{text}"
        );
        assert!(text.contains(&stored.verdict.sentence), "{text}");

        let verdict = Verdict { outcome: Outcome::Suspect, ..stored.verdict };
        let changed = serde_json::to_string(&Stored { verdict, ..stored }).unwrap();
        let refusal = explain(&changed).unwrap_err().to_string();
        assert!(refusal.contains("the replay differs"), "{refusal}");
        assert!(explain("{}").is_err());
    }
}
