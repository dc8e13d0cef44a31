//! The routers under test, each as its users start it: prefix or cache affinity on, access logs off.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use super::load::{Load, UnderTest};
use super::process::Group;
use super::stub::{MODEL, Pace, Stubs};

/// A router that answers nothing for so long is not measured.
const START_LIMIT: Duration = Duration::from_secs(60);

/// A router that can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Ours.
    Inferno,
    /// `smg` from the Python package index.
    Smg,
    /// `vllm-router` from the Python package index.
    VllmRouter,
}

impl Kind {
    /// All of them, ours first.
    pub const ALL: [Self; 3] = [Self::Inferno, Self::Smg, Self::VllmRouter];

    /// Its name in the report.
    pub fn name(self) -> &'static str {
        match self {
            Self::Inferno => "inferno-gateway",
            Self::Smg => "smg",
            Self::VllmRouter => "vllm-router",
        }
    }
}

/// Where the programs lie.
#[derive(Debug, Clone)]
pub struct Programs {
    /// Our gateway.
    pub gateway: PathBuf,
    /// The folder with the peers' environments, logs and the view.
    pub folder: PathBuf,
}

impl Programs {
    /// The program of a router, or `None` if it is not there.
    pub fn path(&self, kind: Kind) -> Option<PathBuf> {
        let path = match kind {
            Kind::Inferno => self.gateway.clone(),
            peer => self.folder.join(format!("{0}/bin/{0}", peer.name())),
        };
        path.exists().then_some(path)
    }
}

/// A router that takes requests.
#[derive(Debug)]
pub struct Router {
    /// Which one.
    pub kind: Kind,
    /// Makes its load.
    pub load: Rc<Load>,
    address: SocketAddr,
    process: Group,
}

impl Router {
    /// Starts a router in front of the backends, on one core if `core` is given, and returns when a stream came
    /// through it.
    ///
    /// # Errors
    /// It does not start, or answers no stream within a minute.
    pub async fn start(
        kind: Kind,
        programs: &Programs,
        stubs: &Stubs,
        pace: Pace,
        core: Option<usize>,
    ) -> Result<Self> {
        let address = free_address()?;
        let program = programs.path(kind).with_context(|| format!("{} is not installed", kind.name()))?;
        let mut command = match core {
            Some(core) => pinned(&program, core),
            None => Command::new(&program),
        };
        arguments(&mut command, kind, address, &stubs.addresses, &programs.folder)?;
        let log = programs.folder.join(format!("{}.log", kind.name()));
        let mut process = Group::start(&mut command, &log)?;
        let stream_bytes = first_stream(address, pace, &mut process)
            .await
            .with_context(|| format!("{} does not serve, see {}", kind.name(), log.display()))?;
        Ok(Self { kind, address, process, load: Load::new(pace, stream_bytes) })
    }

    /// Among its backends.
    pub fn before<'a>(&'a self, stubs: &'a Stubs) -> UnderTest<'a> {
        UnderTest { address: self.address, process: &self.process, stubs }
    }
}

fn pinned(program: &Path, core: usize) -> Command {
    let mut command = Command::new("taskset");
    command.args(["--cpu-list", &core.to_string()]).arg(program);
    command
}

fn arguments(
    command: &mut Command,
    kind: Kind,
    address: SocketAddr,
    backends: &[SocketAddr],
    folder: &Path,
) -> Result<()> {
    let urls = backends.iter().map(|backend| format!("http://{backend}"));
    let (host, port) = (address.ip().to_string(), address.port().to_string());
    let metrics_port = free_address()?.port().to_string();
    match kind {
        Kind::Inferno => {
            let file = folder.join(format!("view-{port}.json"));
            std::fs::write(&file, view(backends).to_string())?;
            command.arg("--view-file").arg(file).args(["--listen", &address.to_string()]);
            command.args(["--admin-listen", &format!("{host}:{metrics_port}")]);
        }
        Kind::Smg => {
            command.args(["launch", "--host", &host, "--port", &port, "--log-level", "warn"]);
            command.args(["--policy", "cache_aware", "--backend", "vllm", "--disable-tokenizer-autoload"]);
            command.args(["--prometheus-port", &metrics_port, "--max-concurrent-requests", "32768"]);
            command.arg("--worker-urls").args(urls);
        }
        Kind::VllmRouter => {
            command.args(["--host", &host, "--port", &port, "--log-level", "warning"]);
            command.args(["--policy", "cache_aware", "--worker-startup-check-interval", "1"]);
            command.args(["--prometheus-port", &metrics_port]);
            command.arg("--worker-urls").args(urls);
        }
    }
    Ok(())
}

/// What our gateway serves: one model with one revision on all backends.
fn view(backends: &[SocketAddr]) -> Value {
    let endpoints: Vec<Value> = backends
        .iter()
        .map(
            |address| json!({"address": address, "pod": format!("stub-{}", address.port()), "isReady": true}),
        )
        .collect();
    json!({"models": [{
        "name": MODEL, "servedName": MODEL, "created": 1,
        "traffic": {"table": {"salt": "bench", "stable": "stub-1"}},
        "revisions": [{"name": "stub-1", "endpoints": endpoints}],
    }]})
}

/// Asks until one stream came through whole; its length is what every other must have.
async fn first_stream(address: SocketAddr, pace: Pace, process: &mut Group) -> Result<u64> {
    let load = Load::new(pace, 0);
    let limit = Instant::now() + START_LIMIT;
    loop {
        match load.exchange(address, 0).await {
            Ok(exchange) => return Ok(exchange.payload_bytes),
            Err(error) if Instant::now() > limit => return Err(error),
            Err(_) if process.has_ended() => bail!("the process has ended"),
            // There is nothing to watch in a foreign program; starting is not what is measured.
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}
