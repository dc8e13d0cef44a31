//! Many runs: every rule over every scenario, load time and seed, and their means.

use judgement::autoscale::{PodModel, Policy};

use super::super::parallel;
use super::super::trace::Traces;
use super::fleet::LoadTime;
use super::ours::{Checks, Faults};
use super::run::{Decider, Outcome, Place, Watch, run};
use super::scenario::Scenario;

/// The pod of the published figures: 8 slots, 3 000 prompt tokens per second, steps of 18 + 2·batch ms.
pub const POD: PodModel = PodModel {
    slots: 8,
    prefill_tokens_per_second: 3_000,
    step_base_us: 18_000,
    step_per_request_us: 2_000,
    kv_tokens: None,
};

/// A pod that the rule was not tuned on: 4 slots, 1 800 tokens per second, 22 + 4·batch ms.
pub const HELD_OUT_POD: PodModel = PodModel {
    slots: 4,
    prefill_tokens_per_second: 1_800,
    step_base_us: 22_000,
    step_per_request_us: 4_000,
    kv_tokens: None,
};

/// Pods that a step to 8 conversations per second needs at 80 %: 8 · 1.09 / 0.8.
pub const STEP_NEED: f64 = 11.0;

/// One point of a study.
#[derive(Debug, Clone, Copy)]
pub struct Cell {
    /// Who decides.
    pub decider: Decider,
    /// Where.
    pub place: Place,
    /// Under which load.
    pub scenario: Scenario,
}

/// Means over seeds.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Summary {
    /// The load.
    pub scenario: Scenario,
    /// Requests in time, percent.
    pub attainment: f64,
    /// Pod-hours per run.
    pub gpu_hours: f64,
    /// The most pods of each run.
    pub pods_max: Vec<u32>,
    /// Changes of direction per hour.
    pub turns: f64,
    /// Pods ordered per hour.
    pub starts: f64,
    /// Requests that were left unanswered although there was time.
    pub lost: usize,
    /// The most pods ordered at once in the first 20 s from zero, all runs together.
    pub orders_from_zero: Vec<u32>,
    /// What our rule was watched for, all runs together.
    pub checks: Checks,
}

/// Several scenarios of one rule at one load time.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Row {
    /// The rule.
    pub rule: String,
    /// How long pods load.
    pub load_time: LoadTime,
    /// One for each scenario.
    pub scenarios: Vec<Summary>,
}

/// What a study runs over.
#[derive(Debug)]
pub struct Study<'a> {
    /// The traces.
    pub traces: &'a Traces,
    /// The seeds.
    pub seeds: &'a [u64],
    /// The scenarios.
    pub scenarios: &'a [Scenario],
    /// Threads.
    pub threads: usize,
    /// Replays every decision of ours.
    pub replays: bool,
}

/// A place of the published figures.
pub fn place(load_s: f64) -> Place {
    Place { pod: POD, load_time: LoadTime::constant(load_s), max: 24, min: 1 }
}

/// Our rule with its defaults and nothing going wrong.
pub fn ours() -> Decider {
    ours_under(Faults::NONE)
}

/// Our rule with its defaults.
pub fn ours_under(faults: Faults) -> Decider {
    // The place's bounds replace these.
    Decider::Ours(Policy::between(1, 24), faults)
}

impl Study<'_> {
    /// Runs all of `deciders` at all of `places`; one row for each pair, places first.
    pub fn rows(&self, label: &str, places: &[Place], deciders: &[Decider]) -> Vec<Row> {
        let pairs: Vec<(Place, Decider)> =
            places.iter().flat_map(|place| deciders.iter().map(|decider| (*place, *decider))).collect();
        let jobs: Vec<(Cell, u64)> = pairs
            .iter()
            .flat_map(|&(place, decider)| {
                let cell = move |scenario: &Scenario| Cell { decider, place, scenario: *scenario };
                self.scenarios.iter().map(cell)
            })
            .flat_map(|cell| self.seeds.iter().map(move |seed| (cell, *seed)))
            .collect();
        let watch = Watch { replays: self.replays, course: false };
        let outcomes = parallel::run(label, self.threads, &jobs, |(cell, seed)| {
            run(&cell.scenario.load(self.traces, *seed), &cell.place, cell.decider, *seed, watch)
        });
        let per_row = self.scenarios.len() * self.seeds.len();
        let row = |((place, decider), outcomes): (&(Place, Decider), &[Outcome])| Row {
            rule: decider.name(),
            load_time: place.load_time,
            scenarios: self
                .scenarios
                .iter()
                .zip(outcomes.chunks(self.seeds.len()))
                .map(|(scenario, outcomes)| summarize(*scenario, outcomes))
                .collect(),
        };
        pairs.iter().zip(outcomes.chunks(per_row.max(1))).map(row).collect()
    }
}

fn summarize(scenario: Scenario, outcomes: &[Outcome]) -> Summary {
    let mut checks = Checks::default();
    for outcome in outcomes {
        checks.add(&outcome.checks);
    }
    Summary {
        scenario,
        attainment: mean(outcomes.iter().map(Outcome::attainment)),
        gpu_hours: mean(outcomes.iter().map(|outcome| outcome.gpu_hours)),
        pods_max: outcomes.iter().map(|outcome| outcome.pods_max).collect(),
        turns: mean(outcomes.iter().map(|outcome| outcome.turns)),
        starts: mean(outcomes.iter().map(|outcome| outcome.starts)),
        lost: outcomes.iter().map(|outcome| outcome.lost).sum(),
        orders_from_zero: outcomes.iter().flat_map(|outcome| outcome.orders_from_zero.clone()).collect(),
        checks,
    }
}

impl Summary {
    /// The most pods over the need of the step, mean over seeds.
    pub fn overshoot(&self) -> f64 {
        mean(self.pods_max.iter().map(|pods| f64::from(*pods) / STEP_NEED))
    }

    /// The same of the worst seed.
    pub fn overshoot_worst(&self) -> f64 {
        self.pods_max.iter().map(|pods| f64::from(*pods) / STEP_NEED).fold(0.0, f64::max)
    }
}

impl Row {
    /// Mean attainment over the scenarios, percent.
    pub fn attainment(&self) -> f64 {
        mean(self.scenarios.iter().map(|summary| summary.attainment))
    }

    /// Mean pod-hours over the scenarios.
    pub fn gpu_hours(&self) -> f64 {
        mean(self.scenarios.iter().map(|summary| summary.gpu_hours))
    }

    /// Mean changes of direction per hour over the scenarios.
    pub fn turns(&self) -> f64 {
        mean(self.scenarios.iter().map(|summary| summary.turns))
    }

    /// One scenario of it.
    pub fn of(&self, scenario: Scenario) -> Option<&Summary> {
        self.scenarios.iter().find(|summary| summary.scenario == scenario)
    }

    /// What our rule was watched for, all scenarios together.
    pub fn checks(&self) -> Checks {
        let mut sum = Checks::default();
        self.scenarios.iter().for_each(|summary| sum.add(&summary.checks));
        sum
    }
}

/// The mean; 0 of nothing.
pub fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (count, sum) = values.fold((0.0, 0.0), |(count, sum), value| (count + 1.0, sum + value));
    if count > 0.0 { sum / count } else { 0.0 }
}
