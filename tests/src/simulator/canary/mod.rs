//! Is the canary well? A fleet with slots, prefix caches, queues and users, and the judges on top of it.
//!
//! In reading order: [`world`] says what is simulated, [`pod`] and [`fleet`] simulate it, [`telemetry`] shows it to
//! judges, [`ramp`] lets all judges watch the same rollout, [`closed`] lets ours drive one, [`cells`] are the
//! situations, [`table`] sums up, [`gates`] checks.

pub mod cells;
pub mod closed;
pub mod fleet;
pub mod gates;
pub mod others;
pub mod pod;
pub mod ramp;
pub mod table;
pub mod telemetry;
pub mod world;

use anyhow::Result;
use clap::{Args, ValueEnum};
use judgement::explain::{Record, Trial};
use serde::Serialize;

use super::cli::Common;
use super::plot::{Frame, Line, draw};
use super::random::stream;
use super::report::Folder;
use super::trace::Traces;
use cells::Cell;
use table::{Effort, Row};
use world::Material;

/// Which situations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Set {
    /// The same revision, 10 requests per second, pods alike.
    Same,
    /// The same revision, pods that differ.
    Unequal,
    /// The same revision, 2 requests per second.
    SameSmall,
    /// The same revision, 50 requests per second.
    SameLarge,
    /// True changes, 10 requests per second.
    Changes,
    /// True changes, 2 requests per second.
    ChangesSmall,
    /// The verdict drives the weight.
    Driven,
}

/// Options of `simulate canary`.
#[derive(Debug, Args)]
pub struct Options {
    /// Which situations; default: all but the large fleet.
    #[arg(long, value_enum)]
    set: Vec<Set>,
    /// Only situations whose name contains this.
    #[arg(long, default_value = "")]
    only: String,
    /// Rollouts per situation.
    #[arg(long, default_value_t = 100)]
    runs: u64,
    /// The first seed; the others follow.
    #[arg(long, default_value_t = gates::SEED)]
    seed: u64,
    /// Lets the judges that others use watch too.
    #[arg(long)]
    others: bool,
    /// Lets ours judge a second time, knowing from an earlier rollout how fast each node is.
    #[arg(long)]
    nodes: bool,
    /// How much pods differ in speed, as a standard deviation in percent; default: as the situation says.
    #[arg(long)]
    pod_sd_percent: Option<f64>,
    #[command(flatten)]
    common: Common,
}

/// What the sizes and bursts are drawn from.
pub fn material(traces: &Traces) -> Material {
    let code_times =
        traces.code.requests(&mut stream(0, "code trace")).iter().map(|request| request.at_s).collect();
    Material { conversation: traces.conversation.sizes.clone(), code: traces.code.sizes.clone(), code_times }
}

/// Runs `simulate canary`: prints the table, writes it with JSON and plots.
pub fn run(options: &Options) -> Result<()> {
    let material = material(&options.common.traces()?);
    let effort = Effort {
        runs: options.runs,
        seed: options.seed,
        threads: options.common.threads(),
        with_others: options.others,
        with_nodes: options.nodes,
    };
    let cells = chosen(options);
    let rows: Vec<Row> = cells.iter().map(|cell| table::on_rails(cell, &material, effort)).collect();
    let folder = Folder::create(&options.common.out)?;
    if !rows.is_empty() {
        let text = table::table(&rows, effort).to_string();
        println!("{text}");
        folder.text("canary.md", &text)?;
        folder.json("canary.json", &rows.iter().map(Written::from).collect::<Vec<_>>())?;
    }
    let driven = driven(options, &material, effort);
    if !driven.is_empty() {
        let text = table::driven(&driven).to_string();
        println!("{text}");
        folder.text("canary-driven.md", &text)?;
    }
    if let Some(cell) = cells.first() {
        let analysis = table::analysis(cell);
        let ending = closed::run(&cell.world, &material, options.seed, &analysis);
        if let Some(verdict) = ending.verdict {
            let trial = Trial { evidence: ending.evidence, verdict };
            folder.json("canary-verdict.json", &Record { trial: Some(trial), ..Record::default() })?;
        }
    }
    plot(
        &folder,
        "canary-same.svg",
        "Healthy rollouts rolled back: the new revision is the old one",
        &rows,
        |row| matches!(row.cell.claim, cells::Claim::FalseAlarms { .. }),
    )?;
    plot(&folder, "canary-changes.svg", "True changes found", &rows, |row| {
        matches!(row.cell.claim, cells::Claim::Found { .. })
    })
}

fn chosen(options: &Options) -> Vec<Cell> {
    let all = [Set::Same, Set::Unequal, Set::SameSmall, Set::Changes, Set::ChangesSmall];
    let sets = if options.set.is_empty() { &all[..] } else { &options.set[..] };
    let mut found: Vec<Cell> = sets.iter().flat_map(|set| cells_of(*set)).collect();
    found.retain(|cell| cell.world.name.contains(&options.only));
    if let Some(percent) = options.pod_sd_percent {
        for cell in &mut found {
            cell.world.nodes.sd = percent / 100.0;
        }
    }
    found
}

/// The rollouts that the verdict drives, where they are asked for.
fn driven(
    options: &Options,
    material: &Material,
    effort: Effort,
) -> Vec<(&'static str, Vec<closed::Ending>)> {
    if !options.set.is_empty() && !options.set.contains(&Set::Driven) {
        return Vec::new();
    }
    let mut wanted = cells::driven();
    wanted.retain(|driven| driven.cell.world.name.contains(&options.only));
    let run =
        |driven: cells::Driven| (driven.cell.world.name, table::closed_loop(&driven.cell, material, effort));
    wanted.into_iter().map(run).collect()
}

fn cells_of(set: Set) -> Vec<Cell> {
    match set {
        Set::Same => cells::same_at_10(),
        Set::Unequal => cells::unequal_at_10().into_iter().chain([cells::hardest()]).collect(),
        Set::SameSmall => cells::same_at_2(),
        Set::SameLarge => cells::same_at_50(),
        Set::Changes => cells::changes_at_10(),
        Set::ChangesSmall => cells::changes_at_2(),
        Set::Driven => Vec::new(),
    }
}

/// One situation's rollouts, as the JSON has them.
#[derive(Serialize)]
struct Written<'row> {
    name: &'row str,
    claim: String,
    ours: Vec<ramp::Said>,
    with_nodes: Vec<ramp::Said>,
    others: Vec<(&'static str, Vec<ramp::Said>)>,
}

impl<'row> From<&'row Row> for Written<'row> {
    fn from(row: &'row Row) -> Self {
        let other = |at: usize| row.runs.iter().filter_map(|run| run.others.get(at).copied()).collect();
        Self {
            name: row.cell.world.name,
            claim: table::claim(row.cell.claim),
            ours: row.runs.iter().map(|run| run.ours).collect(),
            with_nodes: row.runs.iter().filter_map(|run| run.with_nodes).collect(),
            others: others::NAMES.iter().enumerate().map(|(at, name)| (*name, other(at))).collect(),
        }
    }
}

/// Share rolled back over time, one line per judge, over all rollouts of the rows that `is_wanted`.
fn plot(
    folder: &Folder,
    file: &str,
    title: &str,
    rows: &[Row],
    is_wanted: impl Fn(&Row) -> bool,
) -> Result<()> {
    let runs: Vec<&ramp::Run> = rows.iter().filter(|row| is_wanted(row)).flat_map(|row| &row.runs).collect();
    if runs.is_empty() {
        return Ok(());
    }
    let line = |name: &str, of: &dyn Fn(&ramp::Run) -> Option<f64>| {
        let share = |minute: f64| {
            let hits = runs.iter().filter(|run| of(run).is_some_and(|at| at <= minute)).count();
            (minute, 100.0 * hits as f64 / runs.len() as f64)
        };
        Line {
            name: name.to_owned(),
            points: (0..=60).map(|half| share(0.5 * f64::from(half))).collect(),
            is_scatter: false,
        }
    };
    let mut lines = vec![line("ours", &|run| run.ours.rollback_minutes)];
    if runs.iter().all(|run| run.others.len() == others::NAMES.len()) {
        lines.extend(
            others::NAMES
                .iter()
                .enumerate()
                .map(|(at, name)| line(name, &move |run| run.others[at].rollback_minutes)),
        );
    }
    let frame = Frame { title, x: "minutes with canary traffic", y: "rolled back, %", from_zero: true };
    draw(&folder.file(file), &frame, &lines)
}
