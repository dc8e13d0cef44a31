//! inferno-operator: parses, builds, joins.
#![forbid(unsafe_code)]

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, bail};
use axum::Router;
use clap::Parser;
use k8s_openapi::jiff::Timestamp;
use kube::{Api, Client};
use operator::controller::{self, Shared, recorder};
use operator::endpoints::{self, Health};
use operator::experiment::Experiments;
use operator::explain;
use operator::golden::runner::Runner;
use operator::held::{self, GatewayReports};
use operator::inventory::Inventory;
use operator::leader::{Election, lead, win};
use operator::load::{Clock, Loads};
use operator::metrics::Metrics;
use operator::notify::pace::Pace;
use operator::notify::receivers::Receivers;
use operator::notify::sender::Notifier;
use operator::probe::Prober;
use operator::report::{self, Reports};
use operator::settings::{Command, CommandLine, Probe, Settings};
use operator::trial::Trials;
use operator::trial::standby::stand_by;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{broadcast, oneshot};

/// Models that wait to be looked at; more than this many at once are found by the next requeue.
const WAKES_MAX: usize = 1_024;
/// What is queued at the end gets so long to be sent, of the 20 s that Kubernetes gives us.
const LAST_WORDS: Duration = Duration::from_secs(5);

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt()
        .json()
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into()),
        )
        .init();
    let _ = rustls::crypto::ring::default_provider().install_default();
    match CommandLine::parse().command {
        Command::Run(settings) => run(*settings).await,
        Command::Crd => print_definitions(),
        Command::Explain(options) => explain::run(options).await,
    }
}

fn print_definitions() -> anyhow::Result<()> {
    for (_, definition) in crds::definitions::definitions() {
        println!("---\n{}", crds::definitions::quoted(&serde_yaml::to_string(&definition)?));
    }
    Ok(())
}

async fn run(settings: Settings) -> anyhow::Result<()> {
    let (metrics, health) = (Metrics::new()?, Health::default());
    health.turned(Timestamp::now());
    let client = Client::try_default().await.context("find the cluster")?;
    // Reports go to every operator, so that whoever becomes the leader knows the last half hour.
    let wake = broadcast::channel(WAKES_MAX).0;
    let reports = Reports::new(wake.clone());
    let gateways = GatewayReports::new(wake.clone())?;
    let loads = Loads::new(Clock::start())?;
    let (trials, experiments) = (Trials::default(), Experiments::default());
    metrics.show(gateways.clone())?;
    metrics.show(loads.clone())?;
    let own = endpoints::router(health.clone(), metrics.clone()).merge(explain::router(
        loads.clone(),
        trials.clone(),
        metrics.clone(),
    ));
    serve(settings.listen, own).await?;
    let intake = report::router(reports.clone(), loads.clone(), trials.clone(), metrics.clone())
        .merge(held::router(gateways, loads.clone(), trials.clone(), experiments.clone(), metrics.clone()));
    serve(settings.reports_listen, intake).await?;

    let namespace = settings.namespace.clone().unwrap_or_else(|| client.default_namespace().to_owned());
    let leases = Api::namespaced(client.clone(), &namespace);
    let mut election = Election::new(leases, &settings.lease_name, &settings.name);
    let mut terminate = signal(SignalKind::terminate())?;
    let scopes = settings.scope(&namespace).namespaces();
    tokio::select! {
        () = win(&mut election, &health) => tracing::info!(name = settings.name, "leads"),
        () = stand_by(client.clone(), scopes, trials.clone(), loads.clock()) => {}
        _ = terminate.recv() => return Ok(()),
    }
    metrics.is_leader.set(1);

    let probe_client = (settings.probe == Probe::Gateway).then(Prober::client).transpose()?;
    let receivers = Receivers::in_directory(settings.receivers_directory.clone());
    let cluster = settings.cluster_name.clone().filter(|name| !name.is_empty());
    let notifier = Notifier::new(receivers, cluster, Pace::default(), metrics.clone())?;
    let shared = Shared {
        recorder: recorder(client.clone(), Some(settings.name.clone())),
        installation: settings.installation(),
        prober: Prober::new(probe_client, wake.clone(), metrics.clone()),
        golden: Runner::new(wake.clone())?,
        inventory: Inventory::default(),
        notifier: notifier.clone(),
        client,
        reports,
        loads,
        trials,
        experiments,
        wake,
        metrics,
    };
    let (stop, stopped) = oneshot::channel::<()>();
    let stopped = async move { drop(stopped.await) };
    let controllers = tokio::spawn(controller::run(shared, settings.scope(&namespace), stopped));
    tokio::select! {
        () = lead(&mut election, &health) => bail!("the lease is lost"),
        _ = terminate.recv() => {}
    }
    drop(stop);
    controllers.await?;
    notifier.finish(LAST_WORDS).await;
    election.resign().await.context("give the lease back")
}

async fn serve(address: SocketAddr, router: Router) -> anyhow::Result<()> {
    let listener =
        tokio::net::TcpListener::bind(address).await.with_context(|| format!("listen on {address}"))?;
    tokio::spawn(async move { axum::serve(listener, router).await });
    Ok(())
}
