//! Measures the gateway beside other routers: prints a table, writes `gateway.json`, and says which goals are met.
//! A missed goal is a figure; only what could not be measured at all is an error.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use clap::Parser;
use tests::bench::goals::{goals, json, table};
use tests::bench::router::{Kind, Programs};
use tests::bench::scenario::{BACKENDS, IDLE_ENDPOINTS, Measured, crowd, idle, paced, saturated};
use tests::bench::stub::{Stubs, serve_backends};

#[derive(Debug, Parser)]
struct Settings {
    /// Our gateway's program, built for release.
    #[arg(long)]
    gateway: PathBuf,
    /// Folder with the peers' environments; the report and the routers' logs go there.
    #[arg(long)]
    folder: PathBuf,
    /// Only scenarios that begin so: `paced`, `crowd`, `idle`, `saturated`.
    #[arg(long, default_value = "")]
    only: String,
    /// Only this router.
    #[arg(long)]
    router: Option<String>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    // As its own child, this program is the backends.
    if let Some(count) = std::env::var_os(BACKENDS_VARIABLE) {
        return serve_backends(count.to_string_lossy().parse()?).await;
    }
    let settings = Settings::parse();
    tokio::task::LocalSet::new().run_until(run(&settings)).await
}

/// Number of backends to serve instead of measuring.
const BACKENDS_VARIABLE: &str = "BENCH_GATEWAY_BACKENDS";

fn start_backends(folder: &Path, count: usize) -> Result<Stubs> {
    let mut command = Command::new(std::env::current_exe()?);
    Stubs::start(
        command.env(BACKENDS_VARIABLE, count.to_string()),
        &folder.join(format!("stubs-{count}.log")),
    )
}

async fn run(settings: &Settings) -> Result<()> {
    let programs = Programs { gateway: settings.gateway.clone(), folder: settings.folder.clone() };
    let kinds: Vec<Kind> = Kind::ALL
        .into_iter()
        .filter(|kind| settings.router.as_deref().is_none_or(|wanted| wanted == kind.name()))
        .filter(|kind| {
            let is_there = programs.path(*kind).is_some();
            if !is_there {
                println!("{} is not there and is left out", kind.name());
            }
            is_there
        })
        .collect();
    let stubs = start_backends(&settings.folder, BACKENDS)?;
    let wants = |scenario: &str| scenario.starts_with(&settings.only);
    let mut measured: Vec<Measured> = Vec::new();
    for tokens_per_event in [1, 5] {
        for kind in kinds.iter().filter(|_| wants("paced")) {
            measured.push(note(paced(*kind, &programs, &stubs, tokens_per_event).await?));
        }
    }
    for kind in kinds.iter().filter(|_| wants("crowd")) {
        measured.extend(crowd(*kind, &programs, &stubs).await?.into_iter().map(note));
    }
    if wants("idle") {
        let many = start_backends(&settings.folder, IDLE_ENDPOINTS)?;
        measured.extend(idle(&kinds, &programs, &many).await?.into_iter().map(note));
    }
    if wants("saturated") {
        keep_off_the_routers_core(&stubs)?;
        for tokens_per_event in [1, 5] {
            let all = saturated(&kinds, &programs, &stubs, tokens_per_event, ROUTERS_CORE).await?;
            measured.extend(all.into_iter().map(note));
        }
    }
    report(settings, &measured)
}

/// Says that a measurement is done, for whoever waits for the table.
fn note(measured: Measured) -> Measured {
    eprintln!("measured: {} · {}", measured.scenario, measured.router.name());
    measured
}

fn report(settings: &Settings, measured: &[Measured]) -> Result<()> {
    let goals = goals(measured);
    println!("{}", table(measured));
    for goal in &goals {
        println!("{} {}: {}", if goal.is_met { "met   " } else { "missed" }, goal.goal, goal.figure);
    }
    let file = settings.folder.join("gateway.json");
    std::fs::write(&file, format!("{:#}\n", json(measured, &goals)))
        .with_context(|| file.display().to_string())?;
    println!("written to {}", file.display());
    Ok(())
}

/// The core that a router has for itself while it is saturated.
const ROUTERS_CORE: usize = 1;

/// Load generator and backends go to the first core.
fn keep_off_the_routers_core(stubs: &Stubs) -> Result<()> {
    for process in [std::process::id(), stubs.process.id()] {
        let status = Command::new("taskset")
            .args(["--all-tasks", "--cpu-list", "--pid", "0", &process.to_string()])
            .stdout(std::process::Stdio::null())
            .status()
            .context("taskset")?;
        anyhow::ensure!(status.success(), "taskset: {status}");
    }
    Ok(())
}
