//! Many rollouts of a cell, summed up.

use std::collections::BTreeMap;

use judgement::explain::table::Table;
use judgement::rollout::{Analysis, Reason};
use judgement::statistics::distribution::{binomial_lower, binomial_upper};

use super::super::parallel;
use super::cells::{Cell, Claim};
use super::closed::{self, Ending};
use super::others;
use super::ramp::{self, Bench, Run, Said};
use super::world::Material;

/// Results of one cell.
#[derive(Debug, Clone)]
pub struct Row {
    /// The cell.
    pub cell: Cell,
    /// Its rollouts.
    pub runs: Vec<Run>,
}

/// How to run cells.
#[derive(Debug, Clone, Copy)]
pub struct Effort {
    /// Rollouts per cell.
    pub runs: u64,
    /// The first seed; the others follow.
    pub seed: u64,
    /// Threads.
    pub threads: usize,
    /// Whether the others judge too.
    pub with_others: bool,
    /// Whether ours judges a second time with known nodes.
    pub with_nodes: bool,
}

/// What the judge is told for `cell`.
pub fn analysis(cell: &Cell) -> Analysis {
    Analysis { pod_sd: cell.pod_sd, ..Analysis::default() }
}

/// Runs `cell` on rails.
pub fn on_rails(cell: &Cell, material: &Material, effort: Effort) -> Row {
    let bench = Bench {
        analysis: analysis(cell),
        with_nodes: effort.with_nodes,
        with_others: effort.with_others,
        to_the_end: effort.with_others,
    };
    let seeds: Vec<u64> = (effort.seed..effort.seed + effort.runs).collect();
    let one = |seed: &u64| ramp::run(&cell.world, material, *seed, &bench);
    Row { cell: cell.clone(), runs: parallel::run(cell.world.name, effort.threads, &seeds, one) }
}

/// Rollouts that the verdict drives of which the evidence is kept, for replay.
pub const REPLAYED: usize = 20;

/// Runs `cell` as the operator would. The first [`REPLAYED`] rollouts keep their evidence.
pub fn closed_loop(cell: &Cell, material: &Material, effort: Effort) -> Vec<Ending> {
    let analysis = analysis(cell);
    let seeds: Vec<u64> = (effort.seed..effort.seed + effort.runs).collect();
    let one = |seed: &u64| {
        let ending = closed::run(&cell.world, material, *seed, &analysis);
        let is_kept = seed - effort.seed < REPLAYED as u64;
        if is_kept { ending } else { ending.without_evidence() }
    };
    parallel::run(cell.world.name, effort.threads, &seeds, one)
}

/// A share of rollouts.
#[derive(Debug, Clone, Copy)]
pub struct Share {
    /// Rollouts that did.
    pub hits: u64,
    /// All.
    pub of: u64,
}

impl Share {
    /// Of `runs`, those for which `is_one` holds.
    pub fn of<T>(runs: &[T], is_one: impl Fn(&T) -> bool) -> Self {
        let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
        Self { hits: count(runs.iter().filter(|run| is_one(run)).count()), of: count(runs.len()) }
    }

    /// In percent.
    pub fn percent(self) -> f64 {
        100.0 * self.hits as f64 / self.of.max(1) as f64
    }

    /// One-sided upper 95 % bound, in percent (Clopper and Pearson).
    pub fn upper(self) -> f64 {
        100.0 * binomial_upper(self.hits, self.of, 0.05)
    }

    /// One-sided lower bound at `alpha`, in percent.
    pub fn lower(self, alpha: f64) -> f64 {
        100.0 * binomial_lower(self.hits, self.of, alpha)
    }

    /// One-sided upper bound at `alpha`, in percent.
    pub fn upper_at(self, alpha: f64) -> f64 {
        100.0 * binomial_upper(self.hits, self.of, alpha)
    }
}

/// The `share` quantile of `values` by the next higher rank; infinite when there are none.
pub fn quantile(mut values: Vec<f64>, share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rank")]
    let rank = (share * values.len() as f64).ceil() as usize;
    values.get(rank.saturating_sub(1)).copied().unwrap_or(f64::INFINITY)
}

/// Minutes until `of` rolled back, in those rollouts in which it did.
pub fn minutes(row: &Row, of: impl Fn(&Run) -> Option<Said>) -> Vec<f64> {
    row.runs.iter().filter_map(|run| of(run)?.rollback_minutes).collect()
}

fn cell_text(row: &Row, of: impl Fn(&Run) -> Option<Said>) -> String {
    let share = Share::of(&row.runs, |run| of(run).is_some_and(|said| said.rollback_minutes.is_some()));
    let found = minutes(row, of);
    if found.is_empty() {
        "0".to_owned()
    } else {
        format!("{:.1} @{:.1}", share.percent(), quantile(found, 0.5))
    }
}

/// One line per cell: rolled back in % @ median minute, by ours, ours with known nodes, and the others.
pub fn table(rows: &[Row], effort: Effort) -> Table {
    let mut header =
        vec!["situation", "runs", "ours", "95 % ≤", "p90 min", "requests", "passes % @max min", "why"];
    if effort.with_nodes {
        header.push("ours, nodes known");
    }
    if effort.with_others {
        header.extend(others::NAMES);
    }
    let mut table = Table::new(header);
    for row in rows {
        let share = Share::of(&row.runs, |run| run.ours.rollback_minutes.is_some());
        let exposure = row.runs.iter().filter(|run| run.ours.rollback_minutes.is_some());
        let exposure: Vec<f64> = exposure.map(|run| run.ours.exposure as f64).collect();
        let passes: Vec<f64> = row.runs.iter().filter_map(|run| run.ours.pass_minutes).collect();
        let share_passed = 100.0 * passes.len() as f64 / row.runs.len().max(1) as f64;
        let or_dash = |value: f64, digits: usize| {
            if value.is_finite() { format!("{value:.digits$}") } else { "–".to_owned() }
        };
        let mut cells = vec![
            row.cell.world.name.to_owned(),
            row.runs.len().to_string(),
            cell_text(row, |run| Some(run.ours)),
            format!("{:.1}", share.upper()),
            or_dash(quantile(minutes(row, |run| Some(run.ours)), 0.9), 1),
            or_dash(quantile(exposure, 0.5), 0),
            format!("{share_passed:.0} @{}", or_dash(quantile(passes, 1.0), 1)),
            why(&row.runs),
        ];
        if effort.with_nodes {
            cells.push(cell_text(row, |run| run.with_nodes));
        }
        if effort.with_others {
            cells
                .extend((0..others::NAMES.len()).map(|at| cell_text(row, |run| run.others.get(at).copied())));
        }
        table.row(cells);
    }
    table
}

/// One line per situation in which the verdict drives the weight.
pub fn driven(rows: &[(&str, Vec<Ending>)]) -> Table {
    let mut table = Table::new([
        "situation",
        "runs",
        "promoted % @min",
        "rolled back % @min",
        "person asked %",
        "canary requests",
        "got more pods %",
        "stepped back %",
        "objectives missed, canary/stable %",
    ]);
    for (name, endings) in rows {
        let at = |of: &dyn Fn(&Ending) -> Option<f64>| {
            let share = Share::of(endings, |ending| of(ending).is_some());
            let median = quantile(endings.iter().filter_map(of).collect(), 0.5);
            if median.is_finite() { format!("{:.1} @{median:.1}", share.percent()) } else { "0".to_owned() }
        };
        let share = |is_one: &dyn Fn(&Ending) -> bool| format!("{:.1}", Share::of(endings, is_one).percent());
        let median = |of: &dyn Fn(&Ending) -> f64| quantile(endings.iter().map(of).collect(), 0.5);
        table.row([
            (*name).to_owned(),
            endings.len().to_string(),
            at(&|ending| ending.promoted_minutes),
            at(&|ending| ending.rollback_minutes),
            share(&|ending| ending.asked_minutes.is_some()),
            format!("{:.0}", median(&|ending| ending.exposure as f64)),
            share(&|ending| ending.extra_pods > 0),
            share(&|ending| ending.steps_back > 0),
            format!(
                "{:.1}/{:.1}",
                median(&|ending| 100.0 * ending.misses.0),
                median(&|ending| 100.0 * ending.misses.1)
            ),
        ]);
    }
    table
}

fn why(runs: &[Run]) -> String {
    let mut counts: BTreeMap<Reason, usize> = BTreeMap::new();
    for reason in runs.iter().filter_map(|run| run.ours.reason) {
        *counts.entry(reason).or_default() += 1;
    }
    let words: Vec<String> = counts.iter().map(|(reason, count)| format!("{reason:?} {count}")).collect();
    words.join(", ")
}

/// What a cell claims, in words.
pub fn claim(claim: Claim) -> String {
    match claim {
        Claim::FalseAlarms { at_most, .. } => format!("rolled back ≤ {:.0} %", 100.0 * at_most),
        Claim::Found { share, minutes: (median, ninth) } => {
            format!("≥ {:.0} % found, median ≤ {median} min, p90 ≤ {ninth} min", 100.0 * share)
        }
        Claim::NeverSlow => "never called slow".to_owned(),
    }
}
