//! The gates of this half: what the project claims of its rule, checked.

use anyhow::{Context as _, Result};
use judgement::autoscale::PodModel;

use super::super::cli::Common;
use super::super::gates::{Gate, Scale};
use super::super::report::Folder;
use super::super::trace::Traces;
use super::fleet::LoadTime;
use super::ours::Faults;
use super::run::{Decider, Place};
use super::scenario::{HELD_OUT, Scenario, TUNING};
use super::study::{HELD_OUT_POD, Row, Study, mean, ours, ours_under, place};
use super::tables;

/// Load times of the published figures, seconds.
const LOADS_S: [f64; 3] = [30.0, 90.0, 180.0];

/// The prototype of the rule at those load times: attainment in percent, GPU-hours.
const PROTOTYPE: [(f64, f64); 3] = [(94.5, 9.62), (92.8, 9.92), (90.5, 10.36)];

/// Pods of the clairvoyant that a step is measured against: 1.55 times its need.
const CLAIRVOYANT_PODS: u32 = 17;

/// Something that goes wrong, and what it may cost.
struct Case {
    name: &'static str,
    faults: Faults,
    /// Points of attainment.
    points_max: f64,
    /// Percent of the pod-hours; `None` where losing is the danger and not paying.
    cost_max: Option<f64>,
}

const FAULTS: [Case; 6] = [
    Case {
        name: "a pod does 30 % less than believed",
        faults: Faults { belief: 1.0 / 0.7, ..Faults::NONE },
        points_max: 2.5,
        cost_max: None,
    },
    Case {
        name: "a pod does 30 % more than believed",
        faults: Faults { belief: 1.0 / 1.3, ..Faults::NONE },
        points_max: 0.3,
        cost_max: Some(25.0),
    },
    Case {
        name: "half of the reports lost",
        faults: Faults { loss: 0.5, ..Faults::NONE },
        points_max: 1.0,
        cost_max: None,
    },
    Case {
        name: "a dark minute every 15 min",
        faults: Faults { blackout_s: Some((900.0, 60.0)), ..Faults::NONE },
        points_max: 1.0,
        cost_max: None,
    },
    Case {
        name: "reports 5 s late",
        faults: Faults { delay_s: 5.0, ..Faults::NONE },
        points_max: 1.5,
        cost_max: None,
    },
    Case {
        name: "restart every 30 min, history lost",
        faults: Faults { restart_s: Some(1_800.0), ..Faults::NONE },
        points_max: 2.0,
        cost_max: None,
    },
];

struct Check<'a> {
    common: &'a Common,
    traces: Traces,
    folder: Folder,
    scale: Scale,
    gates: Vec<Gate>,
}

/// Runs all of it.
pub fn check(scale: Scale, common: &Common) -> Result<Vec<Gate>> {
    let folder = Folder::create(&common.out)?;
    let mut check = Check { common, traces: common.traces()?, folder, scale, gates: Vec::new() };
    let sets: &[(&str, Vec<u64>)] = &match scale {
        Scale::Full => vec![("seeds 1-20", (1..=20).collect()), ("seeds 101-120", (101..=120).collect())],
        Scale::Reduced => vec![("seeds 1-2", vec![1, 2])],
    };
    for (name, seeds) in sets {
        check.comparison(name, seeds)?;
    }
    let seeds = &sets.first().context("no seeds")?.1;
    check.faults(seeds);
    check.zero(seeds);
    if scale == Scale::Full {
        check.held_out(&sets.last().context("no seeds")?.1)?;
    }
    check.folder.json("autoscale-gates.json", &check.gates)?;
    Ok(check.gates)
}

impl Check<'_> {
    fn study<'s>(&'s self, seeds: &'s [u64], scenarios: &'s [Scenario], replays: bool) -> Study<'s> {
        Study { traces: &self.traces, seeds, scenarios, threads: self.common.threads(), replays }
    }

    /// Few seeds scatter: their gates are as wide as two standard errors of two seeds' mean.
    fn slack(&self, full: f64, reduced: f64) -> f64 {
        if self.scale == Scale::Full { full } else { reduced }
    }

    fn comparison(&mut self, set: &str, seeds: &[u64]) -> Result<()> {
        let places = LOADS_S.map(place);
        let others = [
            Decider::Hpa(6),
            Decider::WvaTokens,
            Decider::Kpa,
            Decider::KubeAi,
            Decider::WvaSpare,
            Decider::Hpa(4),
        ];
        let study = self.study(seeds, &TUNING, true);
        let mine = study.rows(&format!("ours, {set}"), &places, &[ours()]);
        let study = Study { replays: false, ..study };
        let theirs = study.rows(&format!("others, {set}"), &places, &others);
        let step = Study { scenarios: &[Scenario::Step], ..study };
        let bound = step.rows("clairvoyant", &places, &[Decider::Clairvoyant(CLAIRVOYANT_PODS)]);
        let all: Vec<Row> = mine.iter().chain(&theirs).cloned().collect();
        println!("{set}\n\n{}\n{}", tables::means(&all), tables::by_scenario(&all));
        let file = format!("autoscale-{}", set.replace(' ', "-"));
        self.folder.json(&format!("{file}.json"), &all)?;
        tables::draw_front(&self.folder, &format!("{file}.svg"), &all)?;
        for (index, row) in mine.iter().enumerate() {
            let theirs: Vec<&Row> = theirs.iter().filter(|other| other.load_time == row.load_time).collect();
            let at = format!("{:.0} s, {set}", LOADS_S[index]);
            self.beats(&at, row, &theirs);
            self.reaches(&at, row, PROTOTYPE[index]);
            self.steps(&at, row, &bound[index]);
        }
        self.at_ninety(set, &mine[1], &theirs.iter().filter(|row| is_load(row, 90.0)).collect::<Vec<_>>());
        self.calm(set, &mine);
        self.exact(set, &mine);
        Ok(())
    }

    /// More in time for less than the good ones; far more in time than the cheap ones.
    fn beats(&mut self, at: &str, row: &Row, theirs: &[&Row]) {
        for other in theirs.iter().filter(|other| matches!(other.rule.as_str(), "HPA-6" | "WVA v2")) {
            let (points, cost) = gap(row, other);
            self.gates.push(Gate {
                name: format!("more in time for less than {}, {at}", other.rule),
                figure: format!("{points:+.1} points, {cost:+.1} % cost"),
                threshold: "> 0, < 0".to_owned(),
                is_met: points > 0.0 && cost < 0.0,
            });
        }
        for other in theirs.iter().filter(|other| matches!(other.rule.as_str(), "KPA" | "KubeAI" | "WVA v1"))
        {
            let name = format!("in time above {}, {at}", other.rule);
            self.gates.push(Gate::at_least(name, gap(row, other).0, 12.0, " points"));
        }
    }

    fn reaches(&mut self, at: &str, row: &Row, (attainment, hours): (f64, f64)) {
        let least = attainment - self.slack(0.3, 1.5);
        let most = hours * self.slack(1.02, 1.08);
        self.gates.push(Gate::at_least(format!("in time, {at}"), row.attainment(), least, " %"));
        self.gates.push(Gate::at_most(format!("GPU-hours, {at}"), row.gpu_hours(), most, " h"));
    }

    fn steps(&mut self, at: &str, row: &Row, bound: &Row) {
        let (Some(step), Some(bound)) = (row.of(Scenario::Step), bound.of(Scenario::Step)) else { return };
        let slack = self.slack(0.0, 0.15);
        self.gates.push(Gate::at_most(
            format!("step overshoot, mean, {at}"),
            step.overshoot(),
            1.6 + slack,
            "",
        ));
        self.gates.push(Gate::at_most(
            format!("step overshoot, worst, {at}"),
            step.overshoot_worst(),
            1.9,
            "",
        ));
        let behind = bound.attainment - step.attainment;
        let name = format!("step behind a clairvoyant with {CLAIRVOYANT_PODS} pods, {at}");
        self.gates.push(Gate::at_most(name, behind, 3.0 + 10.0 * slack, " points"));
    }

    /// Where the good ones win a scenario, they win little.
    fn at_ninety(&mut self, set: &str, row: &Row, theirs: &[&Row]) {
        let good: Vec<&&Row> =
            theirs.iter().filter(|other| matches!(other.rule.as_str(), "HPA-6" | "WVA v2")).collect();
        let mut won = 0;
        let (mut points, mut cost) = (0.0_f64, 0.0_f64);
        for mine in &row.scenarios {
            let beside = good.iter().filter_map(|other| other.of(mine.scenario));
            let pairs: Vec<(f64, f64)> = beside
                .map(|other| {
                    (mine.attainment - other.attainment, 100.0 * (mine.gpu_hours / other.gpu_hours - 1.0))
                })
                .collect();
            won += usize::from(pairs.iter().any(|(points, cost)| *points >= 0.0 && *cost <= 0.0));
            for (less, more) in pairs.into_iter().filter(|(points, cost)| *points <= 0.0 && *cost >= 0.0) {
                points = points.max(-less);
                cost = cost.max(more);
            }
        }
        let name = |what: &str| format!("{what}, 90 s, {set}");
        self.gates.push(Gate::at_least(name("scenarios won outright"), won as f64, 4.0, " of 8"));
        self.gates.push(Gate::at_most(
            name("a lost scenario's gap"),
            points,
            self.slack(0.5, 1.0),
            " points",
        ));
        self.gates.push(Gate::at_most(name("a lost scenario's cost"), cost, self.slack(6.0, 10.0), " %"));
    }

    fn calm(&mut self, set: &str, rows: &[Row]) {
        let turns = mean(rows.iter().map(Row::turns));
        self.gates.push(Gate::at_most(
            format!("changes of direction per hour, {set}"),
            turns,
            8.0 + self.slack(0.0, 0.5),
            "",
        ));
        let starts = rows.iter().filter_map(|row| row.of(Scenario::Steady)).map(|summary| summary.starts);
        let most = starts.fold(0.0, f64::max);
        self.gates.push(Gate::at_most(format!("pod starts per hour on steady load, {set}"), most, 10.0, ""));
    }

    fn exact(&mut self, set: &str, rows: &[Row]) {
        let mut sum = super::ours::Checks::default();
        for row in rows {
            sum.add(&row.checks());
        }
        self.gates.push(Gate::never(
            format!("decisions that replay differently, {set}"),
            sum.replay_differences,
            sum.replayed,
        ));
        self.gates.push(Gate::never(
            format!("scale-downs within 120 s of a start, {set}"),
            sum.early_downs,
            sum.decisions,
        ));
        let each = sum.total_us / sum.decisions.max(1) as f64;
        self.gates.push(Gate::at_most(format!("time of a decision, mean, {set}"), each, 1_000.0, " µs"));
    }

    fn faults(&mut self, seeds: &[u64]) {
        let places = LOADS_S.map(place);
        let deciders: Vec<Decider> =
            [Faults::NONE].into_iter().chain(FAULTS.map(|case| case.faults)).map(ours_under).collect();
        let rows = self.study(seeds, &TUNING, false).rows("faults", &places, &deciders);
        for rows in rows.chunks(deciders.len()) {
            let load_s = rows[0].load_time.median_s;
            for (case, row) in FAULTS.iter().zip(&rows[1..]) {
                let (points, cost) = gap(row, &rows[0]);
                let slack = self.slack(0.0, 1.0);
                let name = |what: &str| format!("{what}: {}, {load_s:.0} s", case.name);
                self.gates.push(Gate::at_most(name("loss"), -points, case.points_max + slack, " points"));
                if let Some(cost_max) = case.cost_max {
                    self.gates.push(Gate::at_most(name("cost"), cost, cost_max, " %"));
                }
            }
        }
        let mut sum = super::ours::Checks::default();
        for row in &rows {
            sum.add(&row.checks());
        }
        self.gates.push(Gate::never(
            "scale-downs within 120 s of a start, all faults",
            sum.early_downs,
            sum.decisions,
        ));
        self.gates.push(Gate::never(
            "scale-downs on reports older than 6 s, all faults",
            sum.stale_downs,
            sum.decisions,
        ));
    }

    /// From zero: nobody is lost, and pods are ordered for what waits, not one by one.
    fn zero(&mut self, seeds: &[u64]) {
        let at = Place { min: 0, ..place(90.0) };
        let rows = self.study(seeds, &[Scenario::OnOff], true).rows("from zero", &[at], &[ours()]);
        let Some(summary) = rows.first().and_then(|row| row.of(Scenario::OnOff)) else { return };
        let orders = &summary.orders_from_zero;
        println!(
            "from zero: {:.1} % in time @{:.2} h, most pods ordered at once {orders:?}\n",
            summary.attainment, summary.gpu_hours
        );
        self.gates.push(Gate::never("requests lost on activation", summary.lost, orders.len()));
        let least = orders.iter().min().copied().unwrap_or(0);
        self.gates.push(Gate::at_least("pods ordered at once from zero, least", least.into(), 2.0, ""));
        self.gates.push(Gate::never(
            "decisions that replay differently, from zero",
            summary.checks.replay_differences,
            summary.checks.replayed,
        ));
    }

    /// Another pod, other loads, load times that scatter, answers of unknown length. Reported, and against one gate.
    fn held_out(&mut self, seeds: &[u64]) -> Result<()> {
        let pod: PodModel = HELD_OUT_POD;
        let place = |median_s| Place { pod, load_time: LoadTime { median_s, sigma: 0.3 }, max: 48, min: 1 };
        let places = [place(60.0), place(120.0)];
        let learns = ours_under(Faults { learns_lengths: true, ..Faults::NONE });
        let deciders = [learns, Decider::WvaTokens, Decider::Hpa(3), Decider::Hpa(2), Decider::Kpa];
        let rows = self.study(seeds, &HELD_OUT, false).rows("held out", &places, &deciders);
        println!("held-out pod and loads\n\n{}\n{}", tables::means(&rows), tables::by_scenario(&rows));
        self.folder.json("autoscale-held-out.json", &rows)?;
        for rows in rows.chunks(deciders.len()) {
            let load_s = rows[0].load_time.median_s;
            for other in rows.iter().filter(|row| matches!(row.rule.as_str(), "HPA-3" | "WVA v2")) {
                let (points, cost) = gap(&rows[0], other);
                self.gates.push(Gate {
                    name: format!("more in time for less than {}, held-out pod, {load_s:.0} s", other.rule),
                    figure: format!("{points:+.1} points, {cost:+.1} % cost"),
                    threshold: "> 0, < 0".to_owned(),
                    is_met: points > 0.0 && cost < 0.0,
                });
            }
        }
        Ok(())
    }
}

fn is_load(row: &Row, load_s: f64) -> bool {
    (row.load_time.median_s - load_s).abs() < 0.5
}

/// Points in time above `other`, and cost above it in percent.
fn gap(row: &Row, other: &Row) -> (f64, f64) {
    (row.attainment() - other.attainment(), 100.0 * (row.gpu_hours() / other.gpu_hours() - 1.0))
}
