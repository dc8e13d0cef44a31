//! The command line of this half.

use anyhow::{Context as _, Result, bail, ensure};
use clap::{Args, ValueEnum};
use judgement::autoscale::{PodModel, Policy};
use judgement::explain::Record;

use super::super::cli::Common;
use super::super::report::Folder;
use super::fleet::LoadTime;
use super::ours::Faults;
use super::run::{Decider, Outcome, Place, Watch, run as run_one};
use super::scenario::{HELD_OUT, Scenario, TUNING};
use super::study::Study;
use super::tables;

/// Who decides, by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum RuleName {
    /// Ours.
    Replay,
    /// Kubernetes on requests in slots and waiting: three quarters of the slots.
    Hpa,
    /// The same with half of the slots.
    HpaTight,
    /// Knative.
    Kpa,
    /// `KubeAI`.
    Kubeai,
    /// llm-d's first analyzer.
    WvaV1,
    /// llm-d's second analyzer.
    WvaV2,
    /// A fixed number (`--static-pods`).
    Static,
    /// Knows the step (`--static-pods` at once); a bound.
    Clairvoyant,
}

/// Options of `simulate autoscale`.
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// Seeds: numbers and ranges, as in 1-3,101.
    #[arg(long, default_value = "1-3")]
    seeds: String,
    /// How long pods load, seconds.
    #[arg(long, value_delimiter = ',', default_values_t = [30.0, 90.0, 180.0])]
    load_seconds: Vec<f64>,
    /// How much that scatters: standard deviation of its logarithm.
    #[arg(long, default_value_t = 0.0)]
    load_sigma: f64,
    /// Loads; default: the eight of the published figures.
    #[arg(long, value_enum, value_delimiter = ',')]
    scenario: Vec<Scenario>,
    /// The loads that the rule was not tuned on.
    #[arg(long, conflicts_with = "scenario")]
    held_out: bool,
    /// Rules; default: all but the fixed ones.
    #[arg(long, value_enum, value_delimiter = ',')]
    rule: Vec<RuleName>,
    /// A pod: slots, prompt tokens per second, step base in ms, step per request in ms.
    #[arg(long, default_value = "8,3000,18,2")]
    pod: String,
    /// The fewest pods.
    #[arg(long, default_value_t = 1)]
    min: u32,
    /// The most pods.
    #[arg(long, default_value_t = 24)]
    max: u32,
    /// Pods of the fixed and the clairvoyant rule.
    #[arg(long, default_value_t = 12)]
    static_pods: u32,
    /// Our price of a pod, percent.
    #[arg(long, default_value_t = 5)]
    late_price_percent: u32,
    /// Our surge bound, percent; 0 for none.
    #[arg(long, default_value_t = 130)]
    surge_percent: u32,
    #[command(flatten)]
    faults: FaultOptions,
    #[command(flatten)]
    common: Common,
}

/// What goes wrong for our rule.
#[derive(Debug, Clone, Copy, Args)]
struct FaultOptions {
    /// Share of reports that are lost, 0 to 1.
    #[arg(long, default_value_t = 0.0)]
    loss: f64,
    /// Seconds by which reports are late.
    #[arg(long, default_value_t = 0.0)]
    delay_seconds: f64,
    /// Seconds without reports every 15 min.
    #[arg(long, default_value_t = 0.0)]
    blackout_seconds: f64,
    /// The controller restarts every so many seconds, its history lost.
    #[arg(long)]
    restart_seconds: Option<f64>,
    /// What a pod is believed to do, as a multiple of what it does.
    #[arg(long, default_value_t = 1.0)]
    belief: f64,
    /// Answers' lengths are learned and not known.
    #[arg(long)]
    learn_lengths: bool,
}

impl FaultOptions {
    fn faults(self) -> Faults {
        Faults {
            loss: self.loss,
            delay_s: self.delay_seconds,
            blackout_s: (self.blackout_seconds > 0.0).then_some((900.0, self.blackout_seconds)),
            restart_s: self.restart_seconds,
            belief: self.belief,
            learns_lengths: self.learn_lengths,
        }
    }
}

/// `simulate autoscale`: tables on standard output; the same, plots and one decision in the folder.
pub fn run(options: &Options) -> Result<()> {
    let traces = options.common.traces()?;
    let folder = Folder::create(&options.common.out)?;
    let seeds = seeds(&options.seeds)?;
    let pod = pod(&options.pod)?;
    let places: Vec<Place> = options.load_seconds.iter().map(|load_s| options.place(pod, *load_s)).collect();
    let scenarios = options.scenarios();
    let deciders = options.deciders(pod);
    let study = Study {
        traces: &traces,
        seeds: &seeds,
        scenarios: &scenarios,
        threads: options.common.threads(),
        replays: false,
    };
    let rows = study.rows("autoscale", &places, &deciders);
    let text = format!("{}\n{}", tables::means(&rows), tables::by_scenario(&rows));
    println!("{text}");
    folder.text("autoscale.md", &text)?;
    folder.json("autoscale.json", &rows)?;
    tables::draw_front(&folder, "autoscale-front.svg", &rows)?;
    let (Some(place), Some(seed)) = (places.get(places.len() / 2), seeds.first()) else { return Ok(()) };
    for scenario in &scenarios {
        let load = scenario.load(&traces, *seed);
        let watch = Watch { replays: false, course: true };
        let course = |decider: &Decider| (decider.name(), run_one(&load, place, *decider, *seed, watch));
        let runs: Vec<(String, Outcome)> = deciders.iter().map(course).collect();
        let title = format!("{scenario:?}, pods load for {:.0} s, seed {seed}", place.load_time.median_s);
        let need = tables::need(&load, &place.pod);
        tables::draw_course(
            &folder,
            &format!("autoscale-{scenario:?}.svg").to_lowercase(),
            &title,
            need,
            &runs,
        )?;
        if let Some(decision) = runs.iter().find_map(|(_, outcome)| outcome.last.clone()) {
            let record = Record { decision: Some(decision), ..Record::default() };
            folder.json("autoscale-decision.json", &record)?;
        }
    }
    println!("tables, plots and a decision to explain are in {}", options.common.out.display());
    Ok(())
}

impl Options {
    fn place(&self, pod: PodModel, load_s: f64) -> Place {
        let load_time = LoadTime { median_s: load_s, sigma: self.load_sigma };
        Place { pod, load_time, max: self.max, min: self.min }
    }

    fn scenarios(&self) -> Vec<Scenario> {
        if self.held_out {
            HELD_OUT.to_vec()
        } else if self.scenario.is_empty() {
            TUNING.to_vec()
        } else {
            self.scenario.clone()
        }
    }

    fn deciders(&self, pod: PodModel) -> Vec<Decider> {
        let policy = Policy {
            late_price_percent: self.late_price_percent,
            surge_percent: self.surge_percent,
            ..Policy::between(self.min, self.max)
        };
        let usual = [
            RuleName::Replay,
            RuleName::Hpa,
            RuleName::HpaTight,
            RuleName::WvaV2,
            RuleName::WvaV1,
            RuleName::Kpa,
            RuleName::Kubeai,
        ];
        let names = if self.rule.is_empty() { &usual[..] } else { &self.rule };
        let decider = |name: &RuleName| match name {
            RuleName::Replay => Decider::Ours(policy, self.faults.faults()),
            RuleName::Hpa => Decider::Hpa((pod.slots * 3 / 4).max(1)),
            RuleName::HpaTight => Decider::Hpa((pod.slots / 2).max(1)),
            RuleName::Kpa => Decider::Kpa,
            RuleName::Kubeai => Decider::KubeAi,
            RuleName::WvaV1 => Decider::WvaSpare,
            RuleName::WvaV2 => Decider::WvaTokens,
            RuleName::Static => Decider::Static(self.static_pods),
            RuleName::Clairvoyant => Decider::Clairvoyant(self.static_pods),
        };
        names.iter().map(decider).collect()
    }
}

/// Seeds as in `1-3,101`.
fn seeds(text: &str) -> Result<Vec<u64>> {
    let mut seeds = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let number = |text: &str| {
            text.trim().parse::<u64>().with_context(|| format!("--seeds: {part} is not a seed or a range"))
        };
        seeds.extend(number(first)?..=number(last)?);
        // More than a thousand is a slip of the keyboard, and a day of work.
        ensure!(seeds.len() <= 1_000, "--seeds: at most 1000 seeds");
    }
    Ok(seeds)
}

fn pod(text: &str) -> Result<PodModel> {
    let numbers: Vec<f64> = text
        .split(',')
        .map(|number| number.trim().parse().with_context(|| format!("--pod: {number} is not a number")))
        .collect::<Result<_>>()?;
    let [slots, rate, base_ms, step_ms] = numbers[..] else {
        bail!("--pod: expected slots,prompt tokens per second,step base ms,step per request ms");
    };
    ensure!(
        slots >= 1.0 && rate >= 1.0 && base_ms > 0.0 && step_ms >= 0.0,
        "--pod: numbers must be positive"
    );
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "positive; the cast saturates"
    )]
    let whole = |number: f64| number.round() as u32;
    Ok(PodModel {
        slots: whole(slots),
        prefill_tokens_per_second: whole(rate),
        step_base_us: whole(base_ms * 1_000.0),
        step_per_request_us: whole(step_ms * 1_000.0),
        kv_tokens: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_numbers_and_ranges() {
        assert_eq!(seeds("1-3,101").unwrap(), [1, 2, 3, 101]);
        assert!(seeds("one").unwrap_err().to_string().contains("--seeds"));
        assert!(seeds("1-99999").is_err());
    }

    #[test]
    fn a_pod_is_four_positive_numbers() {
        assert_eq!(pod("4,1800,22,4").unwrap(), super::super::study::HELD_OUT_POD);
        assert!(pod("4,1800").is_err());
        assert!(pod("0,1,1,1").is_err());
    }
}
