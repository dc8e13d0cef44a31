//! What the handlers share, and what it says about the server's state.

use std::sync::Arc;
use std::time::{Duration, Instant};

use engine::{EngineError, EngineState, ModelFacts, Token};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use super::BODY_BYTES_MAX;
use super::error::ApiError;
use crate::dispatch::becomes_ready;
use crate::generate::Source;
use crate::lifecycle::{Lifecycle, Stage};
use crate::queue::{FullLimit, Tier};

/// An engine that is being restarted does not yet make the pod unready: its requests wait here for a moment.
const RECOVERY_UNNOTICED: Duration = Duration::from_secs(10);

/// An engine that has not come back by then is a case for the kubelet.
const RECOVERY_MAX: Duration = Duration::from_secs(60);

/// Texts at the engine's tokenizer at once. It works on one at a time, beside decoding, and refuses the seventeenth.
const TOKENIZING_MAX: usize = 4;

/// A decode step or a chunk of a prompt takes seconds at worst; no progress for this long while work is pending is a
/// hang.
const STALL_MAX: Duration = Duration::from_secs(60);

/// What the command line decides about requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The model's name on the API.
    pub model_name: String,
    /// Further names.
    pub aliases: Vec<String>,
    /// The revision, for a header.
    pub revision: Option<String>,
    /// Upper bound of an answer's tokens.
    pub output_tokens_max: u32,
    /// Urgency of requests that do not say.
    pub default_priority: Tier,
    /// How long a request may wait that does not say.
    pub default_timeout: Duration,
    /// Generations side by side.
    pub slots: u32,
}

/// The handlers' state; clones share it.
#[derive(Clone)]
pub struct App {
    /// Engine, queue and metrics.
    pub source: Source,
    /// The process's stage.
    pub lifecycle: Lifecycle,
    /// See there.
    pub settings: Arc<Settings>,
    /// Seconds since 1970 at which this process began to serve the model.
    pub created: i64,
    /// Requests that are read and prepared; as many as may be queued.
    arriving: Arc<Semaphore>,
    /// KiB of the bodies of those; as many as queued requests may hold.
    arriving_kib: Arc<Semaphore>,
    /// Turns at the engine's tokenizer.
    tokenizing: Arc<Semaphore>,
    last_ready: Arc<watch::Sender<Instant>>,
}

/// Room taken by a request that is read and prepared.
pub struct Arriving {
    _request: OwnedSemaphorePermit,
    _body: OwnedSemaphorePermit,
}

/// How the pod is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// Work that there is gets done.
    Alive,
    /// The engine has not made a step for too long while it had work.
    Stalled,
    /// The engine was lost and did not come back.
    NotRecovering,
}

impl App {
    /// For a process that begins now.
    pub fn new(source: Source, lifecycle: Lifecycle, settings: Settings) -> Self {
        let limits = source.queue.limits();
        let arriving = limits.requests.min(Semaphore::MAX_PERMITS);
        // Room for one body at least, or nothing could ever come in.
        let arriving_kib = limits.bytes.max(BODY_BYTES_MAX as u64).div_ceil(1 << 10);
        let arriving_kib = usize::try_from(arriving_kib).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
        Self {
            source,
            lifecycle,
            settings: Arc::new(settings),
            created: jiff::Timestamp::now().as_second(),
            arriving: Arc::new(Semaphore::new(arriving)),
            arriving_kib: Arc::new(Semaphore::new(arriving_kib)),
            tokenizing: Arc::new(Semaphore::new(TOKENIZING_MAX)),
            last_ready: Arc::new(watch::Sender::new(Instant::now())),
        }
    }

    /// Notes the moments at which the engine stops being ready. Runs as long as the engine.
    pub async fn watch_engine(&self) {
        let mut engine = self.source.engine.state();
        loop {
            let was_ready = matches!(*engine.borrow_and_update(), EngineState::Ready(_));
            let changed = engine.changed().await;
            if was_ready {
                self.last_ready.send_replace(Instant::now());
            }
            if changed.is_err() {
                return;
            }
        }
    }

    /// Room to read and prepare one more request with a body of so many bytes.
    pub fn arrive(&self, body_bytes: u64) -> Result<Arriving, ApiError> {
        match self.lifecycle.stage() {
            Stage::Starting => return Err(ApiError::Loading),
            Stage::Draining => return Err(ApiError::Draining),
            Stage::Serving | Stage::Leaving => {}
        }
        if body_bytes > BODY_BYTES_MAX as u64 {
            return Err(ApiError::BodyTooLarge);
        }
        let full = |which: FullLimit| ApiError::QueueFull {
            which: which.name(),
            retry_after: self.source.queue.drain_time(),
        };
        let kib = u32::try_from(body_bytes.div_ceil(1 << 10)).unwrap_or(u32::MAX);
        let request = self.arriving.clone().try_acquire_owned();
        let body = self.arriving_kib.clone().try_acquire_many_owned(kib);
        Ok(Arriving {
            _request: request.map_err(|_| full(FullLimit::Requests))?,
            _body: body.map_err(|_| full(FullLimit::Bytes))?,
        })
    }

    /// The model's facts; waits for an engine that is being restarted, until the request's deadline.
    pub async fn facts(&self, deadline: Instant) -> Result<Arc<ModelFacts>, ApiError> {
        let mut engine = self.source.engine.state();
        match tokio::time::timeout_at(deadline.into(), becomes_ready(&mut engine)).await {
            Ok(true) => match &*engine.borrow() {
                EngineState::Ready(facts) => Ok(facts.clone()),
                _ => Err(ApiError::EngineLost),
            },
            Ok(false) => Err(ApiError::EngineLost),
            Err(_) => Err(ApiError::Expired(crate::queue::Expired::Deadline)),
        }
    }

    /// The text in tokens, in turn. The turn lasts until the engine has answered, also when nobody waits for it any more.
    pub async fn tokenize(&self, text: String, parse_special: bool) -> Result<Vec<Token>, EngineError> {
        let turn = self.tokenizing.clone().acquire_owned().await.map_err(|_| EngineError::NotReady)?;
        let engine = self.source.engine.clone();
        let asking = tokio::spawn(async move {
            let tokens = engine.tokenize(text, parse_special).await;
            drop(turn);
            tokens
        });
        asking.await.unwrap_or(Err(EngineError::Lost))
    }

    /// Whether the process is worth keeping.
    pub fn health(&self, now: Instant) -> Health {
        let stats = self.source.engine.stats();
        if stats.stalled_us.is_some_and(|stalled_us| Duration::from_micros(stalled_us) > STALL_MAX) {
            return Health::Stalled;
        }
        let is_restarting = matches!(*self.source.engine.state().borrow(), EngineState::Restarting { .. });
        if is_restarting && self.away(now) > RECOVERY_MAX {
            return Health::NotRecovering;
        }
        Health::Alive
    }

    /// Whether requests should be sent here.
    pub fn is_ready(&self, now: Instant) -> bool {
        let is_loaded = matches!(*self.source.engine.state().borrow(), EngineState::Ready(_));
        self.lifecycle.stage() == Stage::Serving && (is_loaded || self.away(now) <= RECOVERY_UNNOTICED)
    }

    /// Whether this is one of the model's names.
    pub fn serves(&self, name: &str) -> bool {
        self.settings.model_name == name || self.settings.aliases.iter().any(|alias| alias == name)
    }

    fn away(&self, now: Instant) -> Duration {
        now.saturating_duration_since(*self.last_ready.borrow())
    }
}
