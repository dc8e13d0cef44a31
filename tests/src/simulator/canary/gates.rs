//! What is claimed about the judge of a canary, checked: the figure, the threshold, and whether it was met.
//!
//! The reduced set has few rollouts per cell. A share is then compared by its exact binomial bound: the gate fails
//! when the claim, if true, would give so many failures in less than one of a thousand checks; a median is half of the
//! rollouts in time, a ninth decile nine tenths.

use anyhow::Result;
use judgement::rollout::{Evidence, Outcome, Reason, judge};

use super::super::cli::Common;
use super::super::gates::{Gate, Scale};
use super::cells::{self, Cell, Claim};
use super::closed::Ending;
use super::table::{Effort, Row, Share, closed_loop, minutes, on_rails, quantile};
use super::world::{Change, Material, World};

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
            let row = on_rails(&cell, self.material, self.effort(1_000, 12));
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
            "canary, same revision, pods alike, 10 rps: passes within 15 min",
            share,
            100.0,
        ));
        let row = {
            let mut effort = self.effort(1_000, 12);
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
            let row = on_rails(&cell, self.material, self.effort(400, 20));
            let name = format!("canary, {}", cell.world.name);
            match cell.claim {
                Claim::FalseAlarms { .. } => {}
                Claim::NeverSlow => {
                    let is_slow = |reason: Reason| {
                        matches!(
                            reason,
                            Reason::DecodeSlower | Reason::PrefillSlower | Reason::UnqueuedTtftSlower
                        )
                    };
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
        let cell = |world: World, pod_sd| Cell { world, pod_sd, claim: Claim::NeverSlow };
        let change = |name, change| cell(World { change, ..World::plain(name) }, 0.02);
        let same = Change::NOTHING;
        let effort = self.effort(400, 20);
        let run = |cell: &Cell| closed_loop(cell, self.material, effort);
        let promoted = |endings: &[Ending]| Share::of(endings, |ending| ending.promoted_minutes.is_some());
        let median = |endings: &[Ending]| {
            quantile(endings.iter().filter_map(|ending| ending.promoted_minutes).collect(), 0.5)
        };

        let healthy = run(&cell(World::plain("driven: same revision"), 0.02));
        gates.push(self.at_least("canary, driven, same revision: promoted", promoted(&healthy), 99.0));
        gates.push(Gate::at_most("canary, driven, same revision: median", median(&healthy), 10.0, " min"));
        for (name, change_of) in [
            ("driven: decode +10 %", Change { decode: 1.1, ..same }),
            ("driven: prefill +10 %", Change { prefill: 1.1, ..same }),
        ] {
            gates.push(self.at_most(
                &format!("canary, {name}, promoted"),
                promoted(&run(&change(name, change_of))),
                1.0,
            ));
        }
        let errors = run(&change("driven: errors 0.5 → 2 %", Change { error_rate: Some(0.02), ..same }));
        gates.push(self.at_most("canary, driven: errors 0.5 → 2 %, promoted", promoted(&errors), 5.0));
        let slow = run(&change("driven: decode +20 %", Change { decode: 1.2, ..same }));
        let exposure = quantile(slow.iter().map(|ending| ending.exposure as f64).collect(), 0.5);
        gates.push(Gate::at_most(
            "canary, driven: decode +20 %, median exposure",
            exposure,
            100.0,
            " requests",
        ));
        let small = World { rate: 2.0, pods: 4, ..World::plain("driven: 2 rps, same revision") };
        let small = run(&cell(small, 0.01));
        gates.push(self.at_least("canary, driven, 2 rps, same revision: promoted", promoted(&small), 85.0));
        gates.push(Gate::at_most(
            "canary, driven, 2 rps, same revision: median",
            median(&small),
            18.0,
            " min",
        ));
        let talks = run(&change("driven: talks 20 % longer", Change { length: 1.2, ..same }));
        let blamed = Share::of(&talks, |ending| {
            ending.rollback_minutes.is_some() && ending.reason != Some(Reason::MoreErrors)
        });
        gates.push(self.at_most("canary, driven: talks 20 % longer, called slow", blamed, 1.0));
        gates.push(replay(healthy.iter().chain(&errors).chain(&slow)));
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

/// Every verdict comes out again from its stored evidence, read anew.
fn replay<'ending>(endings: impl Iterator<Item = &'ending Ending>) -> Gate {
    let (mut all, mut differ) = (0, 0);
    for ending in endings {
        let Some(verdict) = &ending.verdict else { continue };
        all += 1;
        let again = serde_json::to_string(&ending.evidence)
            .ok()
            .and_then(|stored| serde_json::from_str::<Evidence>(&stored).ok())
            .map(|evidence| judge(&evidence));
        differ += usize::from(
            again.as_ref() != Some(verdict) || verdict.outcome == Outcome::Continue && again.is_none(),
        );
    }
    Gate::never("canary: verdicts that differ when replayed from storage", differ, all)
}
