//! What the binary `simulate` understands. Each judgement brings its own options and its own gates.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use clap::{Args, Parser, Subcommand};
use judgement::explain::Record;

use super::gates::{self, Judgement, Scale};
use super::trace::{Service, Trace, Traces};
use super::{autoscale, canary, parallel};

/// Simulates the judgements of Inferno: how many replicas, and is the canary well.
#[derive(Debug, Parser)]
#[command(name = "simulate")]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// How many replicas: runs policies over scenarios and prints attainment against GPU-hours.
    Autoscale(autoscale::Options),
    /// Is the canary well: runs judges over rollouts and prints who rolls back what, and when.
    Canary(canary::Options),
    /// Replays a stored decision or verdict and prints its reasoning.
    Explain {
        /// JSON as the simulator stores it, and as `inferno-operator explain --output json` prints it.
        file: PathBuf,
    },
    /// Checks what the project claims about its judgements; fails when a claim falls short.
    Gates(GateOptions),
    /// Makes the extract of the Azure traces that ships with the project from the full files.
    Extract {
        /// Folder with `conv.csv` and `code.csv`.
        traces: PathBuf,
        /// Where the extract goes.
        #[arg(long, default_value = "tests/data/azure-llm")]
        out: PathBuf,
    },
}

#[derive(Debug, Args)]
struct GateOptions {
    /// Fewer seeds and wider tolerances, for continuous integration.
    #[arg(long)]
    reduced: bool,
    /// One judgement only.
    #[arg(long, value_enum)]
    only: Option<Judgement>,
    #[command(flatten)]
    common: Common,
}

/// Options that every simulation has.
#[derive(Debug, Clone, Args)]
pub struct Common {
    /// Threads; default: one per core.
    #[arg(long)]
    pub threads: Option<usize>,
    /// Folder with the full Azure traces `conv.csv` and `code.csv`; default: the extract that ships with the project.
    #[arg(long)]
    pub traces: Option<PathBuf>,
    /// Where tables, JSON and plots go.
    #[arg(long, default_value = "target/simulation")]
    pub out: PathBuf,
}

impl Common {
    /// The number of threads to use.
    pub fn threads(&self) -> usize {
        self.threads.unwrap_or_else(parallel::cores)
    }

    /// The traces to use.
    pub fn traces(&self) -> Result<Traces> {
        Traces::open(self.traces.as_deref())
    }
}

impl Cli {
    /// Does what was asked.
    pub fn run(self) -> Result<()> {
        match self.command {
            Command::Autoscale(options) => autoscale::run(&options),
            Command::Canary(options) => canary::run(&options),
            Command::Explain { file } => explain(&file),
            Command::Gates(options) => check_gates(&options),
            Command::Extract { traces, out } => {
                for service in [Service::Conversation, Service::Code] {
                    let file = traces.join(format!("{}.csv", service.name()));
                    Trace::read(&file)?.write_extract(service, &out)?;
                }
                Ok(())
            }
        }
    }
}

fn explain(file: &Path) -> Result<()> {
    let text = fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
    let replay = || anyhow::Ok(serde_json::from_str::<Record>(&text)?.explain()?);
    println!("{}", replay().with_context(|| format!("replay {}", file.display()))?);
    Ok(())
}

fn check_gates(options: &GateOptions) -> Result<()> {
    let scale = if options.reduced { Scale::Reduced } else { Scale::Full };
    let wanted = |judgement| options.only.is_none_or(|only| only == judgement);
    let mut found = Vec::new();
    if wanted(Judgement::Autoscale) {
        found.extend(autoscale::gates(scale, &options.common)?);
    }
    if wanted(Judgement::Canary) {
        found.extend(canary::gates::gates(scale, &options.common)?);
    }
    println!("{}", gates::table(&found));
    let short: Vec<&str> = found.iter().filter(|gate| !gate.is_met).map(|gate| gate.name.as_str()).collect();
    if !short.is_empty() {
        bail!("{} of {} gates fall short: {}", short.len(), found.len(), short.join("; "));
    }
    println!("all {} gates are met", found.len());
    Ok(())
}

#[cfg(test)]
mod tests {
    use judgement::explain::Trial;
    use judgement::rollout::{Analysis, Outcome, Verdict};

    use super::canary::closed;
    use super::canary::world::World;
    use super::*;

    #[test]
    fn a_stored_verdict_is_explained_and_a_changed_one_is_refused() {
        let material = canary::material(&Traces::open(None).unwrap());
        let world = World { rate: 2.0, pods: 4, ..World::plain("small") };
        let ending = closed::run(&world, &material, 1, &Analysis::default());
        let trial = Trial { evidence: ending.evidence, verdict: ending.verdict.unwrap() };
        let explain = |trial: Trial| {
            let record = Record { trial: Some(trial), ..Record::default() };
            let text = serde_json::to_string(&record).unwrap();
            serde_json::from_str::<Record>(&text).unwrap().explain()
        };
        let text = explain(trial.clone()).unwrap();
        let is_whole = ["bit for bit", "| Decode", "| Ttft", &trial.verdict.sentence];
        assert!(is_whole.iter().all(|part| text.contains(part)), "{text}");

        let verdict = Verdict { outcome: Outcome::Suspect, ..trial.verdict };
        let refusal = explain(Trial { verdict, ..trial }).unwrap_err().to_string();
        assert!(refusal.contains("the replay differs"), "{refusal}");
    }
}
