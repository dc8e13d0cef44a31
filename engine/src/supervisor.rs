//! Keeps one worker process alive and talks to it: spawn, read its frames, hand them on, replace it when it is
//! lost. Must not know what the frames' tokens mean.

use std::{
    os::unix::net::UnixStream as StdUnixStream,
    process::{ExitStatus, Stdio},
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use tokio::{
    io::BufReader,
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    process::{Child, Command},
    sync::watch,
    time::timeout,
};

use crate::{
    client::{EngineState, Link, Outbox, Reply, Shared, lock},
    last_words::{LastWords, overhear},
    protocol::{self, FromWorker, ToWorker},
    request::{EngineConfig, FlashAttention, KvCacheType, LoadFailure, LoadFailureKind, ModelFacts},
};

/// How long the end of a dead worker's standard error is awaited: it is there, unless a grandchild holds it open.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// How long a worker may take to end by itself after its socket was closed: one decode step and freeing memory.
const FAREWELL: Duration = Duration::from_secs(5);

/// The exit status of a worker that has said `Failed`, or whose command line was refused (clap's own status).
/// Anything else is a crash, after which another worker is tried.
pub(crate) const EXIT_LOAD_FAILED: i32 = 3;
const EXIT_USAGE: i32 = 2;

/// How often a worker may crash while it loads before the model is held to be the cause.
const LOAD_CRASHES_MAX: u32 = 3;

/// Runs until the handle is stopped or dropped, or the model turns out to be impossible.
pub(crate) async fn supervise(config: EngineConfig, shared: Arc<Shared>, mut stop: watch::Receiver<bool>) {
    let last = serve(&config, &shared, &mut stop).await;
    shared.state.send_replace(last);
}

/// One worker after another; returns the final state.
async fn serve(config: &EngineConfig, shared: &Arc<Shared>, stop: &mut watch::Receiver<bool>) -> EngineState {
    let mut restarts = Restarts::default();
    for incarnation in 1.. {
        lock(&shared.totals).begin(incarnation);
        shared.state.send_replace(EngineState::Loading { percent: 0 });
        let (end, served) = run_worker(config, shared, stop).await;
        lock(&shared.totals).worker_is_gone();
        let reason = match end {
            WorkerEnd::Stopped => break,
            WorkerEnd::Failed(reason) => return failed(reason),
            WorkerEnd::Lost(reason) => reason,
        };
        let Next::Restart { attempt, pause } = restarts.next(served) else {
            return failed(crashed_while_loading(&reason));
        };
        tracing::warn!(attempt, %reason, pause_ms = pause.as_millis(), "engine worker was lost");
        shared.state.send_replace(EngineState::Restarting { attempt, reason });
        if timeout(pause, stop_requested(stop)).await.is_ok() {
            break;
        }
    }
    EngineState::Stopped
}

fn failed(reason: LoadFailure) -> EngineState {
    tracing::error!(kind = ?reason.kind, message = %reason.message, "engine cannot load the model");
    EngineState::Failed { reason }
}

fn crashed_while_loading(reason: &str) -> LoadFailure {
    let message =
        format!("the engine ended {LOAD_CRASHES_MAX} times while it loaded the model; the last: {reason}");
    // The kernel's OOM killer is the usual sender of signal 9 to a process that is allocating.
    let kind =
        if reason.contains("signal 9") { LoadFailureKind::DoesNotFit } else { LoadFailureKind::Program };
    LoadFailure { kind, message }
}

/// When to start the next worker: at once, then after 1, 2, 4 … 30 s; from the beginning again after a worker
/// that has served for 60 s.
#[derive(Debug, Default)]
struct Restarts {
    attempt: u32,
    load_crashes: u32,
}

#[derive(Debug, PartialEq, Eq)]
enum Next {
    Restart { attempt: u32, pause: Duration },
    GiveUp,
}

impl Restarts {
    const GOOD_SERVICE: Duration = Duration::from_secs(60);
    const PAUSE_MAX: Duration = Duration::from_secs(30);

    /// `served`: how long the lost worker had a model loaded, `None` if it never had.
    fn next(&mut self, served: Option<Duration>) -> Next {
        match served {
            Some(time) if time >= Self::GOOD_SERVICE => *self = Restarts::default(),
            Some(_) => self.load_crashes = 0,
            None => self.load_crashes += 1,
        }
        if self.load_crashes >= LOAD_CRASHES_MAX {
            return Next::GiveUp;
        }
        self.attempt += 1;
        let pause = match self.attempt {
            1 => Duration::ZERO,
            attempt => Duration::from_secs(1 << (attempt - 2).min(5)).min(Self::PAUSE_MAX),
        };
        Next::Restart { attempt: self.attempt, pause }
    }
}

enum WorkerEnd {
    Stopped,
    Failed(LoadFailure),
    Lost(String),
}

/// One worker from birth to death; also says how long it served.
async fn run_worker(
    config: &EngineConfig,
    shared: &Arc<Shared>,
    stop: &mut watch::Receiver<bool>,
) -> (WorkerEnd, Option<Duration>) {
    let (mut child, socket) = match spawn(config) {
        Ok(pair) => pair,
        Err(error) => {
            let message = format!("the engine program cannot be started: {error}");
            return (WorkerEnd::Failed(LoadFailure { kind: LoadFailureKind::Program, message }), None);
        }
    };
    shared.pid.store(child.id().unwrap_or(0), Ordering::Relaxed);
    let overhearing = child.stderr.take().map(|stderr| tokio::spawn(overhear(stderr)));
    let (reader, writer) = socket.into_split();
    let mut session = Session { shared, writer: Some(writer), sender: None, ready_at: None };
    let conversation = tokio::select! {
        end = session.listen(reader) => end,
        () = stop_requested(stop) => Conversation::Stopped,
    };
    let served = session.close();
    // What ran is lost from this moment, whatever the child still does.
    let status = end_child(&mut child).await;
    shared.pid.store(0, Ordering::Relaxed);
    let end = match conversation {
        Conversation::Stopped => WorkerEnd::Stopped,
        Conversation::Failed(reason) => WorkerEnd::Failed(reason),
        Conversation::Broken(how) => match status.and_then(|status| status.code()) {
            Some(EXIT_USAGE) => never("the engine program refused its command line"),
            Some(EXIT_LOAD_FAILED) => never("the engine cannot load the model; its log says why"),
            // Only of one that has never served: what a later one says may be about somebody's request.
            _ if served.is_none() => {
                WorkerEnd::Lost(with_last_words(describe(status, &how), last_words(overhearing).await))
            }
            _ => WorkerEnd::Lost(describe(status, &how)),
        },
    };
    (end, served)
}

async fn last_words(overhearing: Option<tokio::task::JoinHandle<LastWords>>) -> Option<String> {
    timeout(LAST_WORDS, overhearing?).await.ok()?.ok()?.told()
}

fn with_last_words(end: String, said: Option<String>) -> String {
    match said {
        Some(said) => format!("{end}, and the last it said was: {said}"),
        None => end,
    }
}

fn never(message: &str) -> WorkerEnd {
    WorkerEnd::Failed(LoadFailure { kind: LoadFailureKind::Program, message: message.to_owned() })
}

/// How talking to one worker ended.
enum Conversation {
    Stopped,
    Failed(LoadFailure),
    Broken(String),
}

struct Session<'a> {
    shared: &'a Arc<Shared>,
    writer: Option<OwnedWriteHalf>,
    sender: Option<tokio::task::JoinHandle<()>>,
    ready_at: Option<Instant>,
}

impl Session<'_> {
    async fn listen(&mut self, reader: OwnedReadHalf) -> Conversation {
        let mut reader = BufReader::with_capacity(64 << 10, reader);
        loop {
            match protocol::receive(&mut reader).await {
                Ok(FromWorker::Failed(reason)) => return Conversation::Failed(reason),
                Ok(frame) => self.take(frame),
                Err(error) => return Conversation::Broken(error.to_string()),
            }
        }
    }

    fn take(&mut self, frame: FromWorker) {
        match frame {
            FromWorker::Loading { percent } => {
                self.shared.state.send_replace(EngineState::Loading { percent });
            }
            FromWorker::Ready(facts) => self.open(facts),
            FromWorker::Step { outputs, stats } => {
                // Counters first, so that who has seen an end also sees it counted.
                if let Some(stats) = stats {
                    lock(&self.shared.totals).update(stats);
                }
                if let Some(link) = self.shared.link().as_mut() {
                    link.deliver(outputs, Instant::now());
                }
            }
            FromWorker::Tokens { id, tokens } => self.answer(id, Reply::Tokens(tokens)),
            FromWorker::Text { id, text } => self.answer(id, Reply::Text(text)),
            FromWorker::Refused { id, why } => self.answer(id, Reply::Rejected(why)),
            FromWorker::Failed(_) => unreachable!("`listen` ends at this frame"),
        }
    }

    fn open(&mut self, facts: ModelFacts) {
        let Some(writer) = self.writer.take() else { return };
        let now = Instant::now();
        let (link, outbox) = Link::new(now);
        *self.shared.link() = Some(link);
        self.sender = Some(tokio::spawn(send_requests(self.shared.clone(), outbox, writer)));
        self.ready_at = Some(now);
        tracing::info!(architecture = %facts.architecture, slots = facts.parallel_slots, "engine is ready");
        self.shared.state.send_replace(EngineState::Ready(Arc::new(facts)));
    }

    fn answer(&self, id: u64, reply: Reply) {
        if let Some(link) = self.shared.link().as_mut() {
            link.answer(id, reply);
        }
    }

    /// Ends every wait and closes the socket, which tells the worker to end.
    fn close(self) -> Option<Duration> {
        let link = self.shared.link().take();
        if let Some(link) = link {
            link.lose();
        }
        if let Some(sender) = self.sender {
            sender.abort();
        }
        self.ready_at.map(|at| at.elapsed())
    }
}

/// Writes what handles ask. Cancels go first: they are short and make room.
async fn send_requests(shared: Arc<Shared>, mut outbox: Outbox, mut writer: OwnedWriteHalf) {
    loop {
        let request = tokio::select! {
            biased;
            Some(id) = outbox.cancels.recv() => ToWorker::Cancel { id },
            Some(request) = outbox.requests.recv() => request,
            else => return,
        };
        let is_wanted = shared.link().as_ref().is_some_and(|link| link.is_wanted(&request));
        if is_wanted && let Err(error) = send_one(&shared, &mut writer, request).await {
            // The reading side sees the same broken socket and ends the session.
            tracing::debug!(%error, "engine worker does not read");
            return;
        }
    }
}

async fn send_one(
    shared: &Shared,
    writer: &mut OwnedWriteHalf,
    request: ToWorker,
) -> Result<(), protocol::FrameError> {
    match protocol::send(writer, &request).await {
        Err(error @ protocol::FrameError::TooLarge { .. }) => {
            if let Some(link) = shared.link().as_mut() {
                link.reject(&request, &error.to_string());
            }
            Ok(())
        }
        result => result,
    }
}

fn spawn(config: &EngineConfig) -> std::io::Result<(Child, UnixStream)> {
    let (ours, theirs) = StdUnixStream::pair()?;
    ours.set_nonblocking(true)?;
    let child = Command::new(&config.binary)
        .args(arguments(config))
        .arg("--model")
        .arg(&config.model)
        .stdin(Stdio::from(std::os::fd::OwnedFd::from(theirs)))
        // On an abort llama.cpp would look for a debugger and write frames without names; both delay the next worker.
        .env("GGML_NO_BACKTRACE", "1")
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    Ok((child, UnixStream::from_std(ours)?))
}

fn arguments(config: &EngineConfig) -> Vec<String> {
    let flash_attention = match config.flash_attention {
        FlashAttention::Auto => "auto",
        FlashAttention::On => "on",
        FlashAttention::Off => "off",
    };
    let kv_cache_type = match config.kv_cache_type {
        KvCacheType::F16 => "f16",
        KvCacheType::Q8_0 => "q8_0",
        KvCacheType::Q4_0 => "q4_0",
    };
    let gpu_layers = if config.gpu_layers == u32::MAX { "all".into() } else { config.gpu_layers.to_string() };
    [
        ("--context-length", config.context_length.to_string()),
        ("--parallel-slots", config.parallel_slots.to_string()),
        ("--gpu-layers", gpu_layers),
        ("--flash-attention", flash_attention.into()),
        ("--kv-cache-type", kv_cache_type.into()),
        ("--threads", config.threads.to_string()),
    ]
    .into_iter()
    .flat_map(|(name, value)| [name.to_owned(), value])
    .collect()
}

/// Waits a moment for the child to end by itself, then kills it. `None` if not even that could be observed.
async fn end_child(child: &mut Child) -> Option<ExitStatus> {
    if let Ok(status) = timeout(FAREWELL, child.wait()).await {
        return status.ok();
    }
    tracing::warn!("engine worker does not end by itself and is killed");
    child.start_kill().ok()?;
    child.wait().await.ok()
}

fn describe(status: Option<ExitStatus>, how: &str) -> String {
    use std::os::unix::process::ExitStatusExt;
    match status {
        Some(status) if status.signal().is_some() => {
            format!("the engine was ended by signal {}", status.signal().unwrap_or_default())
        }
        Some(status) => format!("the engine exited with status {}", status.code().unwrap_or_default()),
        None => format!("the engine does not answer: {how}"),
    }
}

/// Returns when the handle was stopped or its last clone is gone.
async fn stop_requested(stop: &mut watch::Receiver<bool>) {
    // An error means that every handle is gone.
    let _ = stop.wait_for(|is_stopped| *is_stopped).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pauses(served: &[Option<u64>]) -> Vec<Option<u64>> {
        let mut restarts = Restarts::default();
        served
            .iter()
            .map(|served| match restarts.next(served.map(Duration::from_secs)) {
                Next::Restart { pause, .. } => Some(pause.as_secs()),
                Next::GiveUp => None,
            })
            .collect()
    }

    #[test]
    fn the_first_restart_is_at_once_and_later_ones_wait_up_to_thirty_seconds() {
        let short = [Some(1); 8];
        assert_eq!(pauses(&short), [0, 1, 2, 4, 8, 16, 30, 30].map(Some));
    }

    #[test]
    fn good_service_forgives_earlier_crashes() {
        assert_eq!(pauses(&[Some(1), Some(1), Some(60), Some(1)]), [0, 1, 0, 1].map(Some));
    }

    #[test]
    fn three_crashes_in_a_row_while_loading_end_the_attempts() {
        assert_eq!(pauses(&[None, None, None]), [Some(0), Some(1), None]);
        assert_eq!(pauses(&[None, None, Some(1), None, None]), [0, 1, 2, 4, 8].map(Some));
    }

    #[test]
    fn a_killed_loader_is_held_to_be_out_of_memory() {
        assert_eq!(
            crashed_while_loading("the engine was ended by signal 9").kind,
            LoadFailureKind::DoesNotFit
        );
        assert_eq!(crashed_while_loading("the engine was ended by signal 6").kind, LoadFailureKind::Program);
    }
}
