//! What a verdict on a canary was made from, for people.

use std::fmt;

use super::Trial;
use super::table::Table;
use crate::rollout::{ArmFigures, Evidence, UserMetric, Verdict};
use crate::statistics::welch::Welch;

/// A verdict that was made again and is the same.
pub(super) struct Told<'a>(pub(super) &'a Trial);

impl fmt::Display for Told<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Trial { evidence, verdict } = self.0;
        writeln!(out, "{:?} ({:?}). {}", verdict.outcome, verdict.reason, verdict.sentence)?;
        writeln!(out, "Judged again from its stored evidence: the same, bit for bit.\n")?;
        writeln!(out, "{}", gates(verdict))?;
        let used = 100.0 * verdict.budget_used;
        writeln!(out, "permitted chance of a false rollback used up: {used:.1} %")?;
        if let (Some(sd), Some(pods)) = (verdict.pod_sd, verdict.pods_needed) {
            let sd = 100.0 * sd;
            writeln!(
                out,
                "pods differ by {sd:.1} % (standard deviation); {pods} canary pods could prove a pass"
            )?;
        }
        writeln!(out, "\nWhat users saw, for people; no verdict is made from it:\n")?;
        write!(out, "{}", users(evidence))
    }
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
    let of_welch = |show: &dyn Fn(Welch) -> String| welch.map_or_else(String::new, show);
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
