//! The model's server from start to end: wires the parts, warms the model up, drains on SIGTERM.

use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use axum::Router;
use crds::report::{OpenedModel, Phase};
use engine::{
    Engine, EngineConfig, EngineState, FlashAttention, Generation, KvCacheType, LoadFailure, ModelFacts,
    Sampling,
};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;

use crate::dispatch::{becomes_ready, dispatch};
use crate::generate::Source;
use crate::http::{App, Settings, router};
use crate::lifecycle::{Lifecycle, Stage};
use crate::metrics::Metrics;
use crate::queue::{Limits, Queue, Tier};
use crate::report::{Identity, Reading, load, report};
use crate::termination;

/// After the last answer: how long connections may take to close.
const CLOSE_MAX: Duration = Duration::from_secs(3);

/// `inferno-sidecar serve`.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// The GGUF file; of a split model the first part.
    #[arg(long, env = "INFERNO_MODEL_PATH")]
    pub model: PathBuf,
    /// The model's name on the API.
    #[arg(long, env = "INFERNO_MODEL_NAME")]
    pub model_name: String,
    /// Further names of the model.
    #[arg(long = "alias", env = "INFERNO_ALIASES", value_delimiter = ',')]
    pub aliases: Vec<String>,
    /// Where to listen.
    #[arg(long, env = "INFERNO_LISTEN", default_value = "0.0.0.0:8080")]
    pub listen: SocketAddr,
    /// The engine's program.
    #[arg(long, env = "INFERNO_ENGINE_BINARY", default_value = "/usr/local/bin/inferno-engine")]
    pub engine_binary: PathBuf,
    /// Tokens of context per slot; 0 is the length that the model was trained with.
    #[arg(long, env = "INFERNO_CONTEXT_LENGTH", default_value_t = 0)]
    pub context_length: u32,
    /// Generations side by side.
    #[arg(long, env = "INFERNO_PARALLEL_SLOTS", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=256))]
    pub parallel_slots: u32,
    /// Layers on the accelerator, a number or "all".
    #[arg(long, env = "INFERNO_GPU_LAYERS", default_value = "0", value_parser = gpu_layers)]
    pub gpu_layers: u32,
    /// Flash attention: auto, on, off.
    #[arg(long, env = "INFERNO_FLASH_ATTENTION", default_value = "auto", value_parser = flash_attention)]
    pub flash_attention: FlashAttention,
    /// Number format of the key-value cache: `f16`, `q8_0`, `q4_0`.
    #[arg(long, env = "INFERNO_KV_CACHE_TYPE", default_value = "f16", value_parser = kv_cache_type)]
    pub kv_cache_type: KvCacheType,
    /// Threads for decoding; 0 is as many as there are processors.
    #[arg(long, env = "INFERNO_THREADS", default_value_t = 0)]
    pub threads: u32,
    /// Requests that may wait.
    #[arg(long, env = "INFERNO_MAX_QUEUED_REQUESTS", default_value_t = 1_000)]
    pub max_queued_requests: usize,
    /// Bytes that waiting requests may hold.
    #[arg(long, env = "INFERNO_MAX_QUEUED_BYTES", default_value_t = 256 << 20)]
    pub max_queued_bytes: u64,
    /// Prompt tokens of all waiting requests.
    #[arg(long, env = "INFERNO_MAX_QUEUED_PROMPT_TOKENS", default_value_t = 4_000_000)]
    pub max_queued_prompt_tokens: u64,
    /// How long a request waits that names no deadline; also the longest that any may wait is an hour.
    #[arg(long, env = "INFERNO_DEFAULT_TIMEOUT_SECONDS", default_value_t = 300)]
    pub default_timeout_seconds: u32,
    /// Urgency of requests that name none: vip, high, normal, low.
    #[arg(long, env = "INFERNO_DEFAULT_PRIORITY", default_value = "normal", value_parser = tier)]
    pub default_priority: Tier,
    /// The longest answer in tokens; 0 is what fits.
    #[arg(long, env = "INFERNO_MAX_OUTPUT_TOKENS", default_value_t = 0)]
    pub max_output_tokens: u32,
    /// How long requests may take to end after SIGTERM.
    #[arg(long, env = "INFERNO_DRAIN_SECONDS", default_value_t = 45)]
    pub drain_seconds: u32,
    /// How long requests are still accepted after SIGTERM, until nobody is sent here any more.
    #[arg(long, env = "INFERNO_ENDPOINT_PROPAGATION_SECONDS", default_value_t = 5)]
    pub endpoint_propagation_seconds: u32,
    /// The operator's intake for reports; none outside a cluster.
    #[arg(long, env = "INFERNO_REPORT_URL")]
    pub report_url: Option<reqwest::Url>,
}

/// The longest that any request may wait; longer ones are jobs.
const AGE_MAX: Duration = Duration::from_secs(3_600);

fn tier(name: &str) -> Result<Tier, String> {
    Tier::named(name).ok_or_else(|| "one of vip, high, normal, low".to_owned())
}

fn gpu_layers(text: &str) -> Result<u32, String> {
    if text == "all" {
        Ok(u32::MAX)
    } else {
        u32::from_str(text).map_err(|_| "a number or \"all\"".to_owned())
    }
}

fn flash_attention(name: &str) -> Result<FlashAttention, String> {
    match name {
        "auto" => Ok(FlashAttention::Auto),
        "on" => Ok(FlashAttention::On),
        "off" => Ok(FlashAttention::Off),
        _ => Err("one of auto, on, off".to_owned()),
    }
}

fn kv_cache_type(name: &str) -> Result<KvCacheType, String> {
    match name {
        "f16" => Ok(KvCacheType::F16),
        "q8_0" => Ok(KvCacheType::Q8_0),
        "q4_0" => Ok(KvCacheType::Q4_0),
        _ => Err("one of f16, q8_0, q4_0".to_owned()),
    }
}

// === impl Options ===

impl Options {
    fn engine(&self) -> EngineConfig {
        EngineConfig {
            binary: self.engine_binary.clone(),
            model: self.model.clone(),
            context_length: self.context_length,
            parallel_slots: self.parallel_slots,
            gpu_layers: self.gpu_layers,
            flash_attention: self.flash_attention,
            kv_cache_type: self.kv_cache_type,
            threads: self.threads,
        }
    }

    fn limits(&self) -> Limits {
        Limits {
            requests: self.max_queued_requests,
            prompt_tokens: self.max_queued_prompt_tokens,
            bytes: self.max_queued_bytes,
            age: AGE_MAX,
        }
    }

    fn settings(&self, revision: &str) -> Settings {
        Settings {
            model_name: self.model_name.clone(),
            aliases: self.aliases.clone(),
            revision: Some(revision.to_owned()).filter(|revision| !revision.is_empty()),
            output_tokens_max: if self.max_output_tokens == 0 { u32::MAX } else { self.max_output_tokens },
            default_priority: self.default_priority,
            default_timeout: Duration::from_secs(self.default_timeout_seconds.into()),
            slots: self.parallel_slots,
        }
    }
}

/// A server that listens; ends when its engine can never serve, or after [`Server::drain`].
pub struct Server {
    /// Where it listens.
    pub address: SocketAddr,
    /// What its handlers share.
    pub app: App,
    listening: JoinHandle<std::io::Result<()>>,
    closing: Arc<tokio::sync::Notify>,
    tasks: Vec<JoinHandle<()>>,
}

/// Serves until SIGTERM, then drains. An error means that the model can never be served.
pub async fn run(options: Options) -> anyhow::Result<()> {
    let end = told_to_end()?;
    let propagation = Duration::from_secs(options.endpoint_propagation_seconds.into());
    let drain_max = Duration::from_secs(options.drain_seconds.into());
    let server = Server::start(options, Identity::from_environment()).await?;
    tokio::select! {
        failure = server.fails() => {
            let failure = termination::failure_of(&failure);
            termination::write(&termination::log_path(), &failure);
            server.stop().await;
            bail!("{:?}: {}", failure.reason, failure.message)
        }
        () = end => {
            server.drain(propagation, drain_max).await;
            Ok(())
        }
    }
}

/// Completes at SIGTERM or at Ctrl-C.
pub fn told_to_end() -> anyhow::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate()).context("SIGTERM cannot be listened for")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT cannot be listened for")?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

// === impl Server ===

impl Server {
    /// Listens at once, so that probes and early requests get an answer, and loads the model meanwhile.
    pub async fn start(options: Options, identity: Identity) -> anyhow::Result<Self> {
        let began = Instant::now();
        let listener =
            TcpListener::bind(options.listen).await.context("the listen address cannot be used")?;
        let address = listener.local_addr()?;
        let source = Source {
            engine: Engine::start(options.engine()),
            queue: Queue::new(options.limits()),
            metrics: Metrics::new(&options.model_name)?,
        };
        let app = App::new(source.clone(), Lifecycle::default(), options.settings(&identity.revision));
        let slots = Arc::new(Semaphore::new(options.parallel_slots as usize));
        let (wake, woken) = watch::channel(0);
        let opened = Arc::new(watch::Sender::new(None));
        let mut tasks = vec![
            tokio::spawn(dispatch(source.queue.clone(), slots, source.engine.state())),
            tokio::spawn({
                let queue = source.queue.clone();
                async move { queue.expire_late().await }
            }),
            tokio::spawn({
                let app = app.clone();
                async move { app.watch_engine().await }
            }),
            tokio::spawn(begin_serving(app.clone(), opened.clone(), began)),
            tokio::spawn(wake_on_changes(app.clone(), wake)),
        ];
        if let Some(url) = options.report_url {
            let app = app.clone();
            tasks.push(tokio::spawn(report(url, identity, woken, move || reading(&app, &opened))));
        }
        let closing = Arc::new(tokio::sync::Notify::new());
        let listening = tokio::spawn(listen(listener, router(app.clone()), closing.clone()));
        tracing::info!(%address, model = options.model_name, "listening");
        Ok(Self { address, app, listening, closing, tasks })
    }

    /// Waits until the engine turns out to be unable to serve, ever.
    pub async fn fails(&self) -> LoadFailure {
        let mut engine = self.app.source.engine.state();
        let failed = engine.wait_for(|state| matches!(state, EngineState::Failed { .. })).await;
        if let Ok(EngineState::Failed { reason }) = failed.as_deref() {
            return reason.clone();
        }
        drop(failed);
        // The engine is gone without having failed: it was stopped, and that is not for us to report.
        std::future::pending().await
    }

    /// Announces the end, serves what comes until that is known everywhere, turns away what comes then, and lets the
    /// rest finish. What has not ended after `drain_max` ends with an error.
    pub async fn drain(self, propagation: Duration, drain_max: Duration) {
        self.app.lifecycle.drain(propagation, drain_max, CLOSE_MAX).await;
        self.stop().await;
    }

    /// Closes connections and ends the engine.
    pub async fn stop(self) {
        self.closing.notify_one();
        drop(tokio::time::timeout(CLOSE_MAX, self.listening).await);
        self.tasks.iter().for_each(JoinHandle::abort);
        self.app.source.engine.stop().await;
    }
}

async fn listen(
    listener: TcpListener,
    router: Router,
    closing: Arc<tokio::sync::Notify>,
) -> std::io::Result<()> {
    axum::serve(listener, router).with_graceful_shutdown(async move { closing.notified().await }).await
}

/// Generates one token, and only then lets requests in.
async fn begin_serving(app: App, opened: Arc<watch::Sender<Option<OpenedModel>>>, began: Instant) {
    let engine = &app.source.engine;
    let mut state = engine.state();
    while becomes_ready(&mut state).await {
        let EngineState::Ready(facts) = state.borrow().clone() else { continue };
        match warm_up(engine).await {
            Ok(()) => {
                let load_seconds = u32::try_from(began.elapsed().as_secs()).unwrap_or(u32::MAX);
                tracing::info!(load_seconds, architecture = facts.architecture, "serving");
                opened.send_replace(Some(opened_model(&facts, load_seconds)));
                app.lifecycle.advance(Stage::Serving);
                return;
            }
            Err(error) => {
                tracing::warn!(%error, "the warm-up failed");
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
    }
}

async fn warm_up(engine: &Engine) -> anyhow::Result<()> {
    let prompt = engine.tokenize("Hello".to_owned(), false).await?;
    let sampling = Sampling {
        temperature: 0.0,
        top_p: 1.0,
        top_k: 0,
        min_p: 0.0,
        frequency_penalty: 0.0,
        presence_penalty: 0.0,
        repeat_penalty: 1.0,
        logit_bias: Vec::new(),
        seed: 0,
    };
    let generation = Generation {
        prompt,
        max_tokens: 1,
        sampling,
        stop: Vec::new(),
        ignore_end: true,
        logprobs: None,
        cache_key: 0,
    };
    let mut running = engine.generate(generation).await?;
    while let Some(event) = running.next().await {
        event?;
    }
    Ok(())
}

fn opened_model(facts: &ModelFacts, load_seconds: u32) -> OpenedModel {
    OpenedModel {
        architecture: facts.architecture.clone(),
        quantization: facts.quantization.clone(),
        size_bytes: facts.size_bytes,
        trained_context_length: facts.trained_context_length,
        context_length: facts.context_length,
        // The init container has compared it with the declared one; reading a large file again would delay the start.
        sha256: None,
        layers_total: facts.layers,
        layers_offloaded: facts.layers_offloaded,
        load_seconds,
    }
}

/// Wakes the reporter when the phase changes.
async fn wake_on_changes(app: App, wake: watch::Sender<u64>) {
    let mut engine = app.source.engine.state();
    let mut stages = app.lifecycle.stages();
    let mut told = None;
    loop {
        // A percentage more is not a change of phase; it goes with the next report.
        let now = std::mem::discriminant(&phase(*stages.borrow_and_update(), &engine.borrow_and_update()));
        if told.replace(now) != Some(now) {
            wake.send_modify(|count| *count += 1);
        }
        let changed = tokio::select! {
            changed = engine.changed() => changed,
            changed = stages.changed() => changed,
        };
        if changed.is_err() {
            return;
        }
    }
}

fn reading(app: &App, opened: &watch::Sender<Option<OpenedModel>>) -> Reading {
    let phase = phase(app.lifecycle.stage(), &app.source.engine.state().borrow());
    let source = &app.source;
    let has_load = app.lifecycle.stage() > Stage::Starting;
    let (stats, queue) = (source.engine.stats(), source.queue.snapshot());
    let load = has_load.then(|| load(&stats, app.settings.slots, &queue, &source.metrics, Instant::now()));
    Reading { phase, opened: opened.borrow().clone(), load }
}

fn phase(stage: Stage, engine: &EngineState) -> Phase {
    match (stage, engine) {
        (Stage::Leaving | Stage::Draining, _) => Phase::Draining,
        (Stage::Starting, EngineState::Loading { percent }) => Phase::Loading { percent: *percent },
        (Stage::Starting, EngineState::Ready(_)) => Phase::WarmingUp,
        (Stage::Serving, EngineState::Ready(_)) => Phase::Serving,
        (_, _) => Phase::Recovering,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_engine_is_told_from_one_that_loads_for_the_first_time() {
        let loading = EngineState::Loading { percent: 40 };
        assert_eq!(phase(Stage::Starting, &loading), Phase::Loading { percent: 40 });
        assert_eq!(phase(Stage::Serving, &loading), Phase::Recovering);
        assert_eq!(phase(Stage::Leaving, &loading), Phase::Draining);
    }

    #[test]
    fn flags_say_what_they_accept() {
        assert_eq!(gpu_layers("all"), Ok(u32::MAX));
        assert_eq!(gpu_layers("12"), Ok(12));
        assert!(gpu_layers("most").is_err() && tier("first").is_err() && kv_cache_type("q5").is_err());
        assert_eq!(flash_attention("on"), Ok(FlashAttention::On));
    }
}
