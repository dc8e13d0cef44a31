//! One request's generations from the queue to the last token. Each choice is a task that waits for its turn, runs
//! and is put back once if the engine is lost before it said anything. Dropping [`Answering`] ends them all and frees
//! their places and slots. Knows no wire format.

use std::time::{Duration, Instant};

use engine::{Engine, EngineError, Event, FinishReason, Generation, Running, TokenOutput, Usage};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::metrics::Metrics;
use crate::queue::{Admission, Expired, Id, Queue, Queued, Tier};
use crate::work::Stay;

/// Steps that may wait for the client's socket before the generation does; the engine's own stream buffer comes after.
const STEPS_BUFFERED: usize = 64;

/// What a choice needs.
#[derive(Clone)]
pub struct Source {
    /// Who generates.
    pub engine: Engine,
    /// Who says when.
    pub queue: Queue,
    /// Where times are counted.
    pub metrics: Metrics,
}

/// A choice that is to be generated.
pub struct Wanted {
    /// What.
    pub generation: Generation,
    /// Its place in the queue.
    pub queued: Queued,
    /// 1 is the client's first attempt.
    pub attempt: u8,
}

/// One thing that happened to a choice.
#[derive(Debug)]
pub enum Step {
    /// It has a slot.
    Admitted {
        /// The tier that it counted as.
        tier: Tier,
        /// How long it had waited.
        waited: Duration,
    },
    /// It was put back and begins anew: forget what it said.
    Restarted,
    /// It said something.
    Text {
        /// The text.
        text: String,
        /// The tokens behind it.
        tokens: Vec<TokenOutput>,
    },
    /// It came to its end.
    Finished {
        /// Why.
        reason: FinishReason,
        /// What it cost.
        usage: Usage,
    },
}

/// Why a choice ended before its end.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Interrupted {
    /// It waited too long.
    #[error("the request waited too long for a free slot")]
    Expired(Expired),
    /// The engine was lost while it ran.
    #[error("the engine was lost while the answer was generated")]
    EngineLost,
    /// The engine did not take it.
    #[error("{0}")]
    Rejected(String),
    /// The client did not read.
    #[error("the answer was not read fast enough")]
    ClientTooSlow,
}

/// When the engine is lost: what may be begun anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Restart {
    /// Only what has said nothing yet: the client sees each step.
    Silent,
    /// Anything: the client sees the end only.
    Anything,
}

/// A request's choices under way.
pub struct Answering {
    steps: mpsc::Receiver<(usize, Result<Step, Interrupted>)>,
    queue: Queue,
    first: Option<Id>,
    _choices: JoinSet<()>,
}

/// Starts all choices of a request.
pub fn begin(source: &Source, choices: Vec<Wanted>, arrived: Instant, restart: Restart) -> Answering {
    let (sender, steps) = mpsc::channel(STEPS_BUFFERED);
    let first = choices.first().map(|wanted| wanted.queued.id());
    // They were queued a moment ago, all at once.
    let queued_at = Instant::now();
    let mut tasks = JoinSet::new();
    for (index, Wanted { generation, queued, attempt }) in choices.into_iter().enumerate() {
        let steps = Steps { index, sender: sender.clone() };
        let prompt_tokens = u32::try_from(generation.prompt.len()).unwrap_or(u32::MAX);
        let stay = source.metrics.work.enter(attempt, prompt_tokens, queued_at);
        let choice = Choice { source: source.clone(), generation, arrived, restart, steps };
        tasks.spawn(choice.run(queued, stay));
    }
    Answering { steps, queue: source.queue.clone(), first, _choices: tasks }
}

// === impl Answering ===

impl Answering {
    /// The next step of any choice, with the choice's index; `None` after all have ended. Cancel-safe.
    pub async fn next(&mut self) -> Option<(usize, Result<Step, Interrupted>)> {
        self.steps.recv().await
    }

    /// How many requests are probably served before the first choice.
    pub fn ahead(&self) -> usize {
        self.first.and_then(|id| self.queue.ahead_of(id)).unwrap_or(0)
    }
}

struct Choice {
    source: Source,
    generation: Generation,
    arrived: Instant,
    restart: Restart,
    steps: Steps,
}

struct Steps {
    index: usize,
    sender: mpsc::Sender<(usize, Result<Step, Interrupted>)>,
}

impl Steps {
    /// An error means that nobody listens any more, and then this task is about to be aborted.
    async fn say(&self, step: Result<Step, Interrupted>) {
        drop(self.sender.send((self.index, step)).await);
    }
}

/// How one run of a generation ended.
enum End {
    Over(Result<Step, Interrupted>),
    Lost { was_silent: bool },
}

// === impl Choice ===

impl Choice {
    async fn run(self, mut queued: Queued, mut stay: Stay) {
        let mut has_restarted = false;
        let last = loop {
            let admission = match queued.admitted().await {
                Ok(admission) => admission,
                Err(expired) => break Err(Interrupted::Expired(expired)),
            };
            stay.has_slot(Instant::now());
            let running = match self.source.engine.generate(self.generation.clone()).await {
                Ok(running) => running,
                // It went away after this request was chosen: no attempt was made, so none is counted.
                Err(EngineError::NotReady | EngineError::Lost | EngineError::Full) => {
                    queued = self.source.queue.resubmit(admission);
                    tokio::task::yield_now().await;
                    continue;
                }
                Err(error) => {
                    stay.has_failed(Instant::now());
                    break Err(interruption(error));
                }
            };
            self.steps.say(Ok(Step::Admitted { tier: admission.tier, waited: admission.waited })).await;
            let mut service = Service::new(&self.source, admission, &mut stay);
            match self.listen(running, &mut service).await {
                End::Over(last) => break last,
                End::Lost { was_silent } => {
                    let may_restart = was_silent || self.restart == Restart::Anything;
                    if has_restarted || !may_restart {
                        break Err(Interrupted::EngineLost);
                    }
                    has_restarted = true;
                    self.source.metrics.requeued.inc();
                    self.steps.say(Ok(Step::Restarted)).await;
                    let Some(admission) = service.admission.take() else {
                        break Err(Interrupted::EngineLost);
                    };
                    drop(service);
                    queued = self.source.queue.resubmit(admission);
                    stay.begins_anew(Instant::now());
                }
            }
        };
        // The slot is free; who comes now does not find this one, however long its client takes to read.
        drop(stay);
        self.steps.say(last).await;
    }

    async fn listen(&self, mut running: Running, service: &mut Service<'_>) -> End {
        let mut last_text_at: Option<Instant> = None;
        loop {
            match running.next().await {
                Some(Ok(Event::Started { usage })) => {
                    service.cached_tokens = usage.cached_tokens.into();
                    service.stay.has_begun(&usage, self.arrived.elapsed(), Instant::now());
                }
                Some(Ok(Event::Delta { text, tokens })) => {
                    let now = Instant::now();
                    self.measure(last_text_at.replace(now), now, tokens.len());
                    service.output_tokens += tokens.len() as u64;
                    service.stay.has_said(tokens.len(), now);
                    self.steps.say(Ok(Step::Text { text, tokens })).await;
                }
                Some(Ok(Event::Finished { reason: FinishReason::Cancelled, .. })) => {
                    return End::Over(Err(Interrupted::Rejected(
                        "the engine cancelled the generation".into(),
                    )));
                }
                Some(Ok(Event::Finished { reason, usage })) => {
                    service.output_tokens = usage.completion_tokens.into();
                    service.cached_tokens = usage.cached_tokens.into();
                    service.stay.has_finished(&usage, Instant::now());
                    return End::Over(Ok(Step::Finished { reason, usage }));
                }
                Some(Err(EngineError::Lost | EngineError::NotReady)) | None => {
                    service.stay.has_failed(Instant::now());
                    return End::Lost { was_silent: last_text_at.is_none() };
                }
                Some(Err(error)) => {
                    // The request itself was checked before it was queued, so a refusal is the engine's failure too.
                    if matches!(error, EngineError::Rejected(_)) {
                        service.stay.has_failed(Instant::now());
                    }
                    return End::Over(Err(interruption(error)));
                }
            }
        }
    }

    fn measure(&self, last_text_at: Option<Instant>, now: Instant, tokens: usize) {
        let metrics = &self.source.metrics;
        if let Some(before) = last_text_at {
            // Several tokens may come as one piece of text; each took its share of the time.
            metrics.inter_token.observe((now - before).as_secs_f64() / tokens.max(1) as f64);
        } else {
            metrics.time_to_first_token.observe((now - self.arrived).as_secs_f64());
        }
    }
}

fn interruption(error: EngineError) -> Interrupted {
    match error {
        EngineError::Lost | EngineError::NotReady | EngineError::Full => Interrupted::EngineLost,
        EngineError::Rejected(why) => Interrupted::Rejected(why),
        EngineError::SlowConsumer => Interrupted::ClientTooSlow,
    }
}

/// A slot in use. However it ends, the tenant's account is settled with what was used.
struct Service<'a> {
    source: &'a Source,
    admission: Option<Admission>,
    stay: &'a mut Stay,
    output_tokens: u64,
    cached_tokens: u64,
}

impl<'a> Service<'a> {
    fn new(source: &'a Source, admission: Admission, stay: &'a mut Stay) -> Self {
        source.metrics.queue_wait.observe(admission.waited.as_secs_f64());
        Self { source, admission: Some(admission), stay, output_tokens: 0, cached_tokens: 0 }
    }
}

impl Drop for Service<'_> {
    fn drop(&mut self) {
        if let Some(admission) = &self.admission {
            self.source.queue.settle(admission, self.output_tokens, self.cached_tokens);
        }
    }
}
