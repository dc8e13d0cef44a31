//! The handle that the sidecar holds: start, ask, listen, stop. Everything here returns at once or waits without
//! blocking a thread. Must not know how the child is spawned (`supervisor`) nor what it does (`worker`).

use std::{
    collections::HashMap,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Instant,
};

use tokio::sync::{mpsc, oneshot, watch};

use crate::{
    protocol::{Output, ToWorker},
    request::{EngineConfig, EngineStats, Event, Generation, LoadFailure, ModelFacts, Token},
    supervisor,
};

/// What a stream may hold for a reader that does not read. Then the sequence is cancelled: the decode loop serves
/// others and cannot wait. 256 KiB are some 60,000 tokens of plain text.
pub const STREAM_BYTES_MAX: usize = 256 << 10;

/// Generations and calls that may be under way at once; the sidecar dispatches one per slot, so this is a fuse.
pub const IN_FLIGHT_MAX: usize = 4096;

/// Frames that may wait for the socket; beyond that the caller waits.
const REQUESTS_WAITING_MAX: usize = 64;

/// A handle on the engine. Clones are cheap and equal; when the last one is dropped the child is ended.
#[derive(Clone)]
pub struct Engine {
    shared: Arc<Shared>,
    stop: Arc<watch::Sender<bool>>,
}

/// What the engine is doing.
#[derive(Debug, Clone, PartialEq)]
pub enum EngineState {
    /// A child process loads the model. Next: `Ready`, `Failed`, `Restarting`, `Stopped`.
    Loading {
        /// 0..=100.
        percent: u8,
    },
    /// Generations are accepted. Next: `Restarting`, `Stopped`.
    Ready(Arc<ModelFacts>),
    /// The child was lost and another one is started after a pause. Next: `Loading`, `Failed`, `Stopped`.
    Restarting {
        /// 1 for the first restart since the engine last served well.
        attempt: u32,
        /// How the last child ended.
        reason: String,
    },
    /// The model can never be served. Final.
    Failed {
        /// Why.
        reason: LoadFailure,
    },
    /// `stop` was called. Final.
    Stopped,
}

/// Why the engine did not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EngineError {
    /// The child process ended while it worked on this.
    #[error("the engine was lost while it worked on this")]
    Lost,
    /// No model is loaded at the moment.
    #[error("the engine is not ready")]
    NotReady,
    /// The request itself cannot be served; the text says why.
    #[error("the engine refused the request: {0}")]
    Rejected(String),
    /// The reader left more than `STREAM_BYTES_MAX` unread, so the generation was cancelled.
    #[error("the reader was too slow and the generation was cancelled")]
    SlowConsumer,
    /// `IN_FLIGHT_MAX` things are under way already.
    #[error("too many requests are in flight at the engine")]
    Full,
}

impl Engine {
    /// Starts the child process and a task that keeps one alive. Must be called inside a tokio runtime.
    pub fn start(config: EngineConfig) -> Engine {
        let (stop, stopped) = watch::channel(false);
        let shared = Arc::new(Shared::new());
        tokio::spawn(supervisor::supervise(config, shared.clone(), stopped));
        Engine { shared, stop: Arc::new(stop) }
    }

    /// The state now and its changes.
    pub fn state(&self) -> watch::Receiver<EngineState> {
        self.shared.state.subscribe()
    }

    /// Turns text into tokens, without the beginning-of-sequence token. With `parse_special` the text of a control
    /// token becomes that token: for templates, never for what a user wrote.
    pub async fn tokenize(&self, text: String, parse_special: bool) -> Result<Vec<Token>, EngineError> {
        match self.call(|id| ToWorker::Tokenize { id, text, parse_special }).await? {
            Reply::Tokens(tokens) => Ok(tokens),
            Reply::Rejected(why) => Err(EngineError::Rejected(why)),
            Reply::Text(_) => Err(EngineError::Lost),
        }
    }

    /// Turns tokens into text, control tokens included.
    pub async fn detokenize(&self, tokens: Vec<Token>) -> Result<String, EngineError> {
        match self.call(|id| ToWorker::Detokenize { id, tokens }).await? {
            Reply::Text(text) => Ok(text),
            Reply::Rejected(why) => Err(EngineError::Rejected(why)),
            Reply::Tokens(_) => Err(EngineError::Lost),
        }
    }

    /// Begins a generation. More generations than slots are allowed: the rest wait inside, first come first served.
    pub async fn generate(&self, generation: Generation) -> Result<Running, EngineError> {
        let (events, receiver) = mpsc::unbounded_channel();
        let buffered = Arc::new(AtomicUsize::new(0));
        let id = self.shared.next_id.fetch_add(1, Ordering::Relaxed);
        let requests = {
            let mut link = self.shared.link();
            let link = link.as_mut().ok_or(EngineError::NotReady)?;
            if link.streams.len() >= IN_FLIGHT_MAX {
                return Err(EngineError::Full);
            }
            if link.streams.is_empty() {
                link.progress_at = Instant::now();
            }
            link.streams.insert(id, Feed { events, buffered: buffered.clone() });
            link.requests.clone()
        };
        // From here on, dropping `running` (also by dropping this future) takes the sequence back.
        let running = Running { id, receiver, buffered, shared: self.shared.clone() };
        requests.send(ToWorker::Start { id, generation }).await.map_err(|_| EngineError::Lost)?;
        Ok(running)
    }

    /// The latest figures; counters never shrink, also when a worker was replaced.
    pub fn stats(&self) -> EngineStats {
        let mut stats = lock(&self.shared.totals).latest();
        stats.stalled_us = self.shared.link().as_ref().and_then(|link| link.stalled_us(Instant::now()));
        stats
    }

    /// The child's process id, while there is a child.
    pub fn pid(&self) -> Option<u32> {
        Some(self.shared.pid.load(Ordering::Relaxed)).filter(|pid| *pid != 0)
    }

    /// Ends the child and waits until it is gone. What still runs ends with `Lost`.
    pub async fn stop(&self) {
        self.stop.send_replace(true);
        let mut state = self.state();
        // An error means that the supervisor is gone, which is what we wait for.
        let _ =
            state.wait_for(|state| matches!(state, EngineState::Stopped | EngineState::Failed { .. })).await;
    }

    async fn call(&self, frame: impl FnOnce(u64) -> ToWorker) -> Result<Reply, EngineError> {
        let (sender, receiver) = oneshot::channel();
        let id = self.shared.next_id.fetch_add(1, Ordering::Relaxed);
        let requests = {
            let mut link = self.shared.link();
            let link = link.as_mut().ok_or(EngineError::NotReady)?;
            // A caller that went away leaves its entry behind until the answer comes; those do not count.
            if link.calls.len() >= IN_FLIGHT_MAX {
                return Err(EngineError::Full);
            }
            link.calls.insert(id, sender);
            link.requests.clone()
        };
        let call = Call { id, shared: &self.shared };
        requests.send(frame(id)).await.map_err(|_| EngineError::Lost)?;
        let reply = receiver.await.map_err(|_| EngineError::Lost);
        drop(call);
        reply
    }
}

/// A generation under way. Yields events up to and including `Finished`, or one error, and then ends.
/// Dropping it cancels the generation within one step.
#[derive(Debug)]
pub struct Running {
    id: u64,
    receiver: mpsc::UnboundedReceiver<Result<Event, EngineError>>,
    buffered: Arc<AtomicUsize>,
    shared: Arc<Shared>,
}

impl Running {
    /// The next event; `None` after the end.
    pub async fn next(&mut self) -> Option<Result<Event, EngineError>> {
        std::future::poll_fn(|context| self.poll_event(context)).await
    }

    fn poll_event(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Event, EngineError>>> {
        let polled = self.receiver.poll_recv(context);
        if let Poll::Ready(Some(Ok(event))) = &polled {
            self.buffered.fetch_sub(cost(event), Ordering::Relaxed);
        }
        polled
    }
}

impl tokio_stream::Stream for Running {
    type Item = Result<Event, EngineError>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.get_mut().poll_event(context)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(link) = self.shared.link().as_mut() {
            link.cancel(self.id);
        }
    }
}

/// Forgets a call when its caller gives up.
struct Call<'a> {
    id: u64,
    shared: &'a Shared,
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        if let Some(link) = self.shared.link().as_mut() {
            link.calls.remove(&self.id);
        }
    }
}

/// What handles, streams and the supervisor have in common.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) state: watch::Sender<EngineState>,
    pub(crate) totals: Mutex<Totals>,
    pub(crate) pid: AtomicU32,
    link: Mutex<Option<Link>>,
    next_id: AtomicU64,
}

impl Shared {
    pub(crate) fn new() -> Shared {
        Shared {
            state: watch::Sender::new(EngineState::Loading { percent: 0 }),
            totals: Mutex::default(),
            pid: AtomicU32::new(0),
            link: Mutex::new(None),
            next_id: AtomicU64::new(1),
        }
    }

    /// The link to the present worker, `None` unless a model is loaded.
    pub(crate) fn link(&self) -> MutexGuard<'_, Option<Link>> {
        lock(&self.link)
    }
}

/// The ends of the supervisor's channels to one worker.
#[derive(Debug)]
pub(crate) struct Outbox {
    pub(crate) requests: mpsc::Receiver<ToWorker>,
    pub(crate) cancels: mpsc::UnboundedReceiver<u64>,
}

/// Who waits for what from the present worker. Dropping it, with the worker gone, ends every wait with `Lost`.
#[derive(Debug)]
pub(crate) struct Link {
    requests: mpsc::Sender<ToWorker>,
    cancels: mpsc::UnboundedSender<u64>,
    streams: HashMap<u64, Feed>,
    calls: HashMap<u64, oneshot::Sender<Reply>>,
    progress_at: Instant,
}

#[derive(Debug)]
struct Feed {
    events: mpsc::UnboundedSender<Result<Event, EngineError>>,
    buffered: Arc<AtomicUsize>,
}

/// Answer to a call.
#[derive(Debug)]
pub(crate) enum Reply {
    Tokens(Vec<Token>),
    Text(String),
    Rejected(String),
}

impl Link {
    pub(crate) fn new(now: Instant) -> (Link, Outbox) {
        let (requests, requests_out) = mpsc::channel(REQUESTS_WAITING_MAX);
        // Holds at most one id per stream that was begun, and those are counted.
        let (cancels, cancels_out) = mpsc::unbounded_channel();
        let link =
            Link { requests, cancels, streams: HashMap::new(), calls: HashMap::new(), progress_at: now };
        (link, Outbox { requests: requests_out, cancels: cancels_out })
    }

    /// Whether somebody still waits for this request; otherwise it need not be sent.
    pub(crate) fn is_wanted(&self, request: &ToWorker) -> bool {
        match request {
            ToWorker::Start { id, .. } => self.streams.contains_key(id),
            ToWorker::Cancel { .. } => true,
            ToWorker::Tokenize { id, .. } | ToWorker::Detokenize { id, .. } => self.calls.contains_key(id),
        }
    }

    /// Hands the outputs of one step to their readers, without ever waiting for one of them.
    pub(crate) fn deliver(&mut self, outputs: Vec<(u64, Output)>, now: Instant) {
        self.progress_at = now;
        for (id, output) in outputs {
            match output {
                Output::Event(event) => self.deliver_event(id, event),
                Output::Rejected(why) => self.end(id, EngineError::Rejected(why)),
            }
        }
    }

    /// Hands an answer to its caller, if that one still waits.
    pub(crate) fn answer(&mut self, id: u64, reply: Reply) {
        if let Some(caller) = self.calls.remove(&id) {
            let _ = caller.send(reply);
        }
    }

    /// A request that cannot be sent.
    pub(crate) fn reject(&mut self, request: &ToWorker, why: &str) {
        match request {
            ToWorker::Start { id, .. } => self.end(*id, EngineError::Rejected(why.to_owned())),
            ToWorker::Tokenize { id, .. } | ToWorker::Detokenize { id, .. } => {
                self.answer(*id, Reply::Rejected(why.to_owned()));
            }
            ToWorker::Cancel { .. } => {}
        }
    }

    /// The worker is gone.
    pub(crate) fn lose(mut self) {
        for (_, feed) in self.streams.drain() {
            let _ = feed.events.send(Err(EngineError::Lost));
        }
    }

    fn deliver_event(&mut self, id: u64, event: Event) {
        let is_last = matches!(event, Event::Finished { .. });
        // An unknown id belongs to a reader that left; its cancel is already on the way.
        let Some(feed) = self.streams.get(&id) else { return };
        let bytes = cost(&event);
        let held = feed.buffered.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if held > STREAM_BYTES_MAX && !is_last {
            self.end(id, EngineError::SlowConsumer);
            let _ = self.cancels.send(id);
            return;
        }
        let _ = feed.events.send(Ok(event));
        if is_last {
            self.streams.remove(&id);
        }
    }

    fn end(&mut self, id: u64, error: EngineError) {
        if let Some(feed) = self.streams.remove(&id) {
            let _ = feed.events.send(Err(error));
        }
    }

    fn cancel(&mut self, id: u64) {
        if self.streams.remove(&id).is_some() {
            let _ = self.cancels.send(id);
        }
    }

    fn stalled_us(&self, now: Instant) -> Option<u64> {
        let since = now.saturating_duration_since(self.progress_at);
        (!self.streams.is_empty()).then(|| u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
    }
}

/// The counters of all workers so far.
#[derive(Debug, Default)]
pub(crate) struct Totals {
    before: EngineStats,
    now: EngineStats,
}

impl Totals {
    /// A new worker counts from zero; what its predecessor had counted is kept.
    pub(crate) fn begin(&mut self, incarnation: u64) {
        self.before = self.latest();
        self.now = EngineStats { incarnation, ..EngineStats::default() };
    }

    pub(crate) fn update(&mut self, stats: EngineStats) {
        let incarnation = self.now.incarnation;
        self.now = EngineStats { incarnation, ..stats };
    }

    /// A lost worker holds no slots and no memory.
    pub(crate) fn worker_is_gone(&mut self) {
        self.now.busy_slots = 0;
        self.now.kv_tokens_used = 0;
    }

    fn latest(&self) -> EngineStats {
        let (before, now) = (&self.before, &self.now);
        let batches = before.decode_by_batch.len().max(now.decode_by_batch.len());
        let at = |list: &[(u64, u64, u64)], index: usize| list.get(index).copied().unwrap_or_default();
        EngineStats {
            prompt_tokens_total: before.prompt_tokens_total + now.prompt_tokens_total,
            cached_tokens_total: before.cached_tokens_total + now.cached_tokens_total,
            output_tokens_total: before.output_tokens_total + now.output_tokens_total,
            prefill_us_total: before.prefill_us_total + now.prefill_us_total,
            decode_by_batch: (0..batches)
                .map(|index| {
                    let (a, b) = (at(&before.decode_by_batch, index), at(&now.decode_by_batch, index));
                    (a.0 + b.0, a.1 + b.1, a.2 + b.2)
                })
                .collect(),
            ..now.clone()
        }
    }
}

/// What an event holds in memory, roughly; never zero, so that the number of events is bounded too.
fn cost(event: &Event) -> usize {
    const EACH: usize = 32;
    match event {
        Event::Delta { text, tokens } => {
            let of_tokens = tokens.iter().map(|token| {
                EACH + token.bytes.len()
                    + token.top.iter().map(|(_, bytes, _)| EACH + bytes.len()).sum::<usize>()
            });
            EACH + text.len() + of_tokens.sum::<usize>()
        }
        Event::Started { .. } | Event::Finished { .. } => EACH,
    }
}

/// A panic in another holder leaves these maps and counters usable.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::{FinishReason, TokenOutput, Usage};

    fn delta(bytes: usize) -> Event {
        Event::Delta { text: "x".repeat(bytes), tokens: Vec::new() }
    }

    fn running(shared: &Arc<Shared>, id: u64) -> Running {
        let (events, receiver) = mpsc::unbounded_channel();
        let buffered = Arc::new(AtomicUsize::new(0));
        let feed = Feed { events, buffered: buffered.clone() };
        shared.link().as_mut().unwrap().streams.insert(id, feed);
        Running { id, receiver, buffered, shared: shared.clone() }
    }

    fn linked() -> (Arc<Shared>, Outbox) {
        let shared = Arc::new(Shared::new());
        let (link, outbox) = Link::new(Instant::now());
        *shared.link() = Some(link);
        (shared, outbox)
    }

    fn deliver(shared: &Shared, id: u64, event: Event) {
        shared.link().as_mut().unwrap().deliver(vec![(id, Output::Event(event))], Instant::now());
    }

    #[tokio::test]
    async fn a_reader_that_does_not_read_loses_its_generation_and_is_told() {
        let (shared, mut outbox) = linked();
        let mut slow = running(&shared, 1);
        for _ in 0..300 {
            deliver(&shared, 1, delta(1024));
        }
        assert_eq!(outbox.cancels.try_recv(), Ok(1));
        let mut held = 0;
        loop {
            match slow.next().await.unwrap() {
                Ok(event) => held += cost(&event),
                Err(error) => break assert_eq!(error, EngineError::SlowConsumer),
            }
        }
        assert!(held <= STREAM_BYTES_MAX && held > STREAM_BYTES_MAX / 2, "held {held}");
        assert!(slow.next().await.is_none());
    }

    #[tokio::test]
    async fn a_reader_that_keeps_up_gets_any_amount() {
        let (shared, mut outbox) = linked();
        let mut reader = running(&shared, 1);
        for _ in 0..1000 {
            deliver(&shared, 1, delta(1024));
            assert!(reader.next().await.unwrap().is_ok());
        }
        assert!(outbox.cancels.try_recv().is_err());
    }

    #[tokio::test]
    async fn losing_the_worker_ends_every_stream_with_an_error() {
        let (shared, _outbox) = linked();
        let mut first = running(&shared, 1);
        let mut second = running(&shared, 2);
        deliver(&shared, 1, delta(1));
        shared.link().take().unwrap().lose();
        assert_eq!(first.next().await, Some(Ok(delta(1))));
        assert_eq!(first.next().await, Some(Err(EngineError::Lost)));
        assert_eq!(first.next().await, None);
        assert_eq!(second.next().await, Some(Err(EngineError::Lost)));
    }

    #[test]
    fn dropping_a_stream_cancels_it_once_and_a_finished_one_not_at_all() {
        let (shared, mut outbox) = linked();
        drop(running(&shared, 1));
        assert_eq!(outbox.cancels.try_recv(), Ok(1));
        let finished = running(&shared, 2);
        deliver(&shared, 2, Event::Finished { reason: FinishReason::Stop, usage: Usage::default() });
        drop(finished);
        assert!(outbox.cancels.try_recv().is_err());
    }

    #[test]
    fn a_stall_is_seen_only_while_something_runs() {
        let (shared, _outbox) = linked();
        let later = Instant::now() + std::time::Duration::from_secs(30);
        assert_eq!(shared.link().as_ref().unwrap().stalled_us(later), None);
        let _running = running(&shared, 1);
        assert!(shared.link().as_ref().unwrap().stalled_us(later) >= Some(29_000_000));
    }

    #[test]
    fn counters_go_on_when_a_worker_is_replaced() {
        let mut totals = Totals::default();
        totals.begin(1);
        totals.update(EngineStats {
            output_tokens_total: 5,
            busy_slots: 2,
            decode_by_batch: vec![(1, 10, 100)],
            ..EngineStats::default()
        });
        totals.worker_is_gone();
        assert_eq!(totals.latest().busy_slots, 0);
        totals.begin(2);
        totals.update(EngineStats {
            output_tokens_total: 3,
            decode_by_batch: vec![(1, 1, 1), (2, 2, 2)],
            ..EngineStats::default()
        });
        let latest = totals.latest();
        assert_eq!((latest.incarnation, latest.output_tokens_total), (2, 8));
        assert_eq!(latest.decode_by_batch, vec![(2, 11, 101), (2, 2, 2)]);
    }

    #[test]
    fn tokens_with_alternatives_count_towards_the_limit() {
        let token =
            TokenOutput { token: 1, bytes: vec![0; 4], logprob: None, top: vec![(1, vec![0; 4], 0.0); 20] };
        let event = Event::Delta { text: String::new(), tokens: vec![token] };
        assert!(cost(&event) > 20 * 36);
    }
}
