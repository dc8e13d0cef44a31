//! What is claimed about the judge of a canary, checked: the figure, the threshold, and whether it was met.
//!
//! The reduced set has few rollouts per cell. A share is then compared by its exact binomial bound: the gate fails
//! when the claim, if true, would give so many failures in less than one of a thousand checks; a median is half of the
//! rollouts in time, a ninth decile nine tenths.

use anyhow::Result;
use judgement::rollout::{Evidence, Reason, judge};

use super::super::cli::Common;
use super::super::gates::{Gate, Scale};
use super::cells::{self, Asked, Cell, Claim, Driven};
use super::closed::Ending;
use super::table::{Effort, Row, Share, closed_loop, minutes, on_rails, quantile};
use super::world::Material;

/// Chance with which a true claim may fail a reduced gate.
const CHANCE: f64 = 0.001;
/// The first seed of the published tables.
pub const SEED: u64 = 1;

/// Checks all gates of the canary's judge.
pub fn gates(scale: Scale, common: &Common) -> Result<Vec<Gate>> {
    let material = super::material(&common.traces()?);
    let check = Check { scale, material: &material, threads: common.threads() };
    let mut gates = Vec::new();
    check.false_alarms(&mut gates);
    check.detection(&mut gates);
    check.closed_loop(&mut gates);
    Ok(gates)
}

struct Check<'material> {
    scale: Scale,
    material: &'material Material,
    threads: usize,
}

impl Check<'_> {
    fn effort(&self, full: u64, reduced: u64) -> Effort {
        let runs = if self.scale == Scale::Full { full } else { reduced };
        Effort { runs, seed: SEED, threads: self.threads, with_others: false, with_nodes: false }
    }

    fn false_alarms(&self, gates: &mut Vec<Gate>) {
        let mut cells = cells::same_at_10();
        cells.extend(cells::unequal_at_10());
        cells.push(cells::hardest());
        cells.extend(cells::same_at_2());
        if self.scale == Scale::Full {
            cells.extend(cells::same_at_50());
        }
        let mut pooled: Vec<Row> = Vec::new();
        for cell in cells {
            let row = on_rails(&cell, self.material, self.effort(1_000, 40));
            let Claim::FalseAlarms { at_most, passes } = cell.claim else { continue };
            let name = format!("canary, same revision: {}", cell.world.name);
            let share = Share::of(&row.runs, |run| run.ours.rollback_minutes.is_some());
            gates.push(self.at_most(&name, share, 100.0 * at_most));
            if passes {
                pooled.push(row);
            }
        }
        let runs: Vec<_> = pooled.into_iter().flat_map(|row| row.runs).collect();
        let share = Share::of(&runs, |run| run.ours.pass_minutes.is_some_and(|minutes| minutes <= 15.0));
        gates.push(self.at_least(
            "canary, same revision, pods alike, 10 rps: proven within 15 min",
            share,
            100.0,
        ));
        let row = {
            let mut effort = self.effort(1_000, 40);
            effort.with_nodes = true;
            on_rails(&cells::hardest(), self.material, effort)
        };
        let share =
            Share::of(&row.runs, |run| run.with_nodes.is_some_and(|said| said.rollback_minutes.is_some()));
        gates.push(self.at_most("canary, same revision: the hardest, nodes known", share, 2.0));
    }

    fn detection(&self, gates: &mut Vec<Gate>) {
        let cells: Vec<Cell> = cells::changes_at_10().into_iter().chain(cells::changes_at_2()).collect();
        for cell in cells {
            let row = on_rails(&cell, self.material, self.effort(1_000, 60));
            let name = format!("canary, {}", cell.world.name);
            match cell.claim {
                Claim::FalseAlarms { .. } => {}
                Claim::NeverSlow => {
                    let share = Share::of(&row.runs, |run| run.ours.reason.is_some_and(is_slow));
                    gates.push(self.at_most(&format!("{name}: called slow"), share, 1.0));
                }
                Claim::Found { share, minutes: limits } => self.found(gates, &name, &row, share, limits),
            }
        }
    }

    fn found(&self, gates: &mut Vec<Gate>, name: &str, row: &Row, share: f64, (median, ninth): (f64, f64)) {
        let found = Share::of(&row.runs, |run| run.ours.rollback_minutes.is_some());
        gates.push(self.at_least(&format!("{name}: found"), found, 100.0 * share));
        if median >= 30.0 {
            return;
        }
        // Times come in ticks of a sixth of a minute.
        let rounding = 0.05;
        if self.scale == Scale::Full {
            let minutes = minutes(row, |run| Some(run.ours));
            let gate = |what, share, limit| {
                Gate::at_most(
                    format!("{name}: {what}"),
                    quantile(minutes.clone(), share),
                    limit + rounding,
                    " min",
                )
            };
            gates.extend([gate("median", 0.5, median), gate("p90", 0.9, ninth)]);
            return;
        }
        for (share, limit) in [(50.0, median), (90.0, ninth)] {
            let is_in_time =
                |run: &super::ramp::Run| run.ours.rollback_minutes.is_some_and(|at| at <= limit + rounding);
            let in_time = Share::of(&row.runs, is_in_time);
            gates.push(self.at_least(&format!("{name}: within {limit} min"), in_time, share));
        }
    }

    fn closed_loop(&self, gates: &mut Vec<Gate>) {
        let mut verdicts = Replayed::default();
        for Driven { cell, asked } in cells::driven() {
            let endings = closed_loop(&cell, self.material, self.effort(1_000, 60));
            verdicts.check(&endings);
            let name = format!("canary, {}", cell.world.name);
            self.driven(gates, &name, &endings, asked);
        }
        gates.push(Gate::never(
            "canary: verdicts that differ when replayed from storage",
            verdicts.differ,
            verdicts.all,
        ));
    }

    fn driven(&self, gates: &mut Vec<Gate>, name: &str, endings: &[Ending], asked: Asked) {
        let promoted = Share::of(endings, |ending| ending.promoted_minutes.is_some());
        let median =
            |of: &dyn Fn(&Ending) -> Option<f64>| quantile(endings.iter().filter_map(of).collect(), 0.5);
        match asked {
            Asked::Promoted { share, minutes } => {
                gates.push(self.at_least(&format!("{name}: promoted"), promoted, 100.0 * share));
                let found = median(&|ending| ending.promoted_minutes);
                gates.push(Gate::at_most(format!("{name}: median"), found, minutes, " min"));
            }
            Asked::NotPromoted { at_most } => {
                gates.push(self.at_most(&format!("{name}: promoted"), promoted, 100.0 * at_most));
            }
            Asked::Exposure { at_most } => {
                let found = median(&|ending| Some(ending.exposure as f64));
                gates.push(Gate::at_most(format!("{name}: median exposure"), found, at_most, " requests"));
            }
            Asked::NeverSlow { at_most } => {
                let slow = Share::of(endings, |ending| ending.reason.is_some_and(is_slow));
                gates.push(self.at_most(&format!("{name}: called slow"), slow, 100.0 * at_most));
            }
            Asked::Held { share, points } => {
                gates.push(self.at_least(&format!("{name}: promoted"), promoted, 100.0 * share));
                let found = median(&|ending| Some(100.0 * (ending.misses.0 - ending.misses.1)));
                gates.push(Gate::at_most(
                    format!("{name}: canary misses more objectives by"),
                    found,
                    100.0 * points,
                    " points",
                ));
            }
        }
    }

    /// The upper 95 % bound must not exceed `limit` percent; with few runs, the claim must not be refuted.
    fn at_most(&self, name: &str, share: Share, limit: f64) -> Gate {
        if self.scale == Scale::Full {
            return Gate::at_most(format!("{name} (upper 95 %)"), share.upper(), limit, " %");
        }
        Gate {
            name: name.to_owned(),
            figure: format!("{} of {}", share.hits, share.of),
            threshold: format!("not refuting ≤ {limit:.0} %"),
            is_met: share.lower(CHANCE) <= limit,
        }
    }

    /// The share itself must reach `limit` percent; with few runs, the claim must not be refuted.
    fn at_least(&self, name: &str, share: Share, limit: f64) -> Gate {
        if self.scale == Scale::Full {
            // "All" of a thousand is 99.5 %: one rollout more or less is not a claim.
            return Gate::at_least(name, share.percent(), limit.min(99.5), " %");
        }
        Gate {
            name: name.to_owned(),
            figure: format!("{} of {}", share.hits, share.of),
            threshold: format!("not refuting ≥ {limit:.0} %"),
            is_met: share.upper_at(CHANCE) >= limit.min(99.0),
        }
    }
}

/// Reasons that call a revision slow.
fn is_slow(reason: Reason) -> bool {
    matches!(reason, Reason::DecodeSlower | Reason::PrefillSlower | Reason::UnqueuedTtftSlower)
}

/// Every verdict must come out again from its stored evidence, read anew.
#[derive(Debug, Clone, Copy, Default)]
struct Replayed {
    all: usize,
    differ: usize,
}

impl Replayed {
    fn check(&mut self, endings: &[Ending]) {
        for ending in endings {
            let Some(verdict) = &ending.verdict else { continue };
            let again = serde_json::to_string(&ending.evidence)
                .ok()
                .and_then(|stored| serde_json::from_str::<Evidence>(&stored).ok())
                .map(|evidence| judge(&evidence));
            self.all += 1;
            self.differ += usize::from(again.as_ref() != Some(verdict));
        }
    }
}
