//! One pod as a queueing system: slots, one prompt at a time, decode steps whose time depends on the batch and its
//! context, a prefix cache by conversation. Between two events everything is a closed formula. Times are milliseconds.

use std::collections::VecDeque;

use judgement::rollout::{Arm, CountTotals, DecodeTotal, FinishedRequest};

/// Milliseconds of a decode step without any sequence.
const STEP_MS: f64 = 18.0;
/// More per sequence.
const PER_SEQUENCE_MS: f64 = 1.2;
/// More per context token.
const PER_KV_MS: f64 = 0.6e-3;
/// Decode steps are slower by this while a prompt is processed.
const DECODE_BESIDE_PREFILL: f64 = 2.5;
/// A prompt is slower by this while others decode.
const PREFILL_BESIDE_DECODE: f64 = 1.33;
/// Slots of an engine.
pub const SLOTS: usize = 8;

/// How an engine differs from the plain one.
#[derive(Debug, Clone, Copy)]
pub struct Engine {
    /// Slots.
    pub slots: usize,
    /// Time of a decode call, as a factor.
    pub decode: f64,
    /// Time of a prompt, as a factor.
    pub prefill: f64,
    /// Whether it disobeys the judge's cost model.
    pub is_misfit: bool,
}

/// A request on its way.
#[derive(Debug, Clone, Copy, Default)]
pub struct Request {
    /// Whose it is.
    pub conversation: u32,
    /// Earlier attempts of it.
    pub attempt: u8,
    /// Whether it is answered, failed or given up.
    pub is_done: bool,
    /// Whether its answer has begun.
    pub has_first_token: bool,
    /// Where it is.
    pub pod: u32,
    /// When it came there.
    pub arrived_ms: f64,
    /// When its answer began.
    pub first_token_ms: f64,
    /// Tokens of the prompt.
    pub prompt: u32,
    /// Tokens of the answer.
    pub output: u32,
    /// Work of this request, as a factor: 5 for those in the tail.
    pub work: f64,
    /// Time added before the first token, outside the engine.
    pub outside_ms: f64,
    /// What its pod's report will say of it, as far as that is known.
    pub seen: FinishedRequest,
}

/// A prompt being processed.
#[derive(Debug, Clone, Copy)]
pub struct Prefill {
    /// Whose.
    pub request: u32,
    /// Work left, in milliseconds alone.
    pub left_ms: f64,
    /// When it began.
    pub began_ms: f64,
    /// For how long others were decoding meanwhile.
    pub beside_ms: f64,
}

/// A sequence being decoded.
#[derive(Debug, Clone, Copy)]
pub struct Active {
    /// Whose.
    pub request: u32,
    /// Steps left.
    pub left: f64,
    /// Tokens that it attends to.
    pub context: f64,
}

/// One conversation in a prefix cache.
#[derive(Debug, Clone, Copy)]
struct Cached {
    conversation: u32,
    tokens: u32,
    used: u64,
}

/// A prefix cache: least recently used conversations go first.
#[derive(Debug, Clone, Default)]
pub struct Cache {
    entries: Vec<Cached>,
    held: u64,
    clock: u64,
    /// Tokens of all prompts and answers ever served from it: what lies above a conversation that was not served since.
    pub touched: u64,
}

impl Cache {
    /// Tokens held of a conversation.
    pub fn held(&self, conversation: u32) -> u32 {
        self.entries.iter().find(|entry| entry.conversation == conversation).map_or(0, |entry| entry.tokens)
    }

    /// Holds `tokens` of a conversation, of which `served` were not yet counted.
    pub fn put(&mut self, conversation: u32, tokens: u32, served: u32, capacity: u64) {
        self.clock += 1;
        self.touched += u64::from(served);
        let used = self.clock;
        if let Some(entry) = self.entries.iter_mut().find(|entry| entry.conversation == conversation) {
            self.held = self.held - u64::from(entry.tokens) + u64::from(tokens);
            (entry.tokens, entry.used) = (tokens, used);
        } else {
            self.held += u64::from(tokens);
            self.entries.push(Cached { conversation, tokens, used });
        }
        while self.held > capacity && self.entries.len() > 1 {
            let oldest = (0..self.entries.len()).min_by_key(|&at| self.entries[at].used).expect("not empty");
            self.held -= u64::from(self.entries.swap_remove(oldest).tokens);
        }
    }
}

/// What happened on a pod by itself.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Happened {
    /// The prompt is done: first token.
    FirstToken(u32),
    /// All tokens are out.
    Finished(u32),
}

/// One pod.
#[derive(Debug, Clone)]
pub struct Pod {
    /// Whose revision it runs.
    pub arm: Arm,
    /// What it runs.
    pub engine: Engine,
    /// ln slowness of its node.
    pub effect: f64,
    /// ln slowness of the moment.
    clock: f64,
    /// Both as a factor: they change once per tick and are wanted at every event.
    pace: f64,
    /// When it became ready, or will.
    pub ready_ms: f64,
    /// Restarts so far.
    pub incarnation: u32,
    /// Whether it serves.
    pub is_up: bool,
    /// Gets no more requests.
    pub is_draining: bool,
    /// Requests without a slot.
    pub waiting: VecDeque<u32>,
    /// Requests with a slot whose prompt has not begun.
    pub prompts: VecDeque<u32>,
    /// The prompt in work.
    pub prefill: Option<Prefill>,
    /// Sequences being decoded.
    pub active: Vec<Active>,
    /// Prefixes that it remembers.
    pub cache: Cache,
    /// Requests that finished since the last report.
    pub rows: Vec<FinishedRequest>,
    /// What it has counted since it started.
    pub counts: CountTotals,
    /// By batch size: calls, milliseconds, context tokens.
    decode: Vec<[f64; 3]>,
    kv: f64,
    at_ms: f64,
}

impl Pod {
    /// A pod that becomes ready at `ready_ms`.
    pub fn new(arm: Arm, engine: Engine, effect: f64, ready_ms: f64) -> Self {
        Self {
            arm,
            engine,
            effect,
            clock: 0.0,
            pace: effect.exp(),
            ready_ms,
            incarnation: 0,
            is_up: false,
            is_draining: false,
            waiting: VecDeque::new(),
            prompts: VecDeque::new(),
            prefill: None,
            active: Vec::new(),
            cache: Cache::default(),
            rows: Vec::new(),
            counts: CountTotals::default(),
            decode: vec![[0.0; 3]; SLOTS + 1],
            kv: 0.0,
            at_ms: ready_ms,
        }
    }

    /// Requests on it.
    pub fn in_flight(&self) -> usize {
        self.waiting.len() + self.held()
    }

    /// Slots in use.
    pub fn held(&self) -> usize {
        self.prompts.len() + usize::from(self.prefill.is_some()) + self.active.len()
    }

    /// The clock of the moment wanders: it keeps the share `keep` of what it was and gets `fresh` on top.
    pub fn wander(&mut self, keep: f64, fresh: f64) {
        self.clock = keep * self.clock + fresh;
        self.pace = (self.effect + self.clock).exp();
    }

    /// How much slower than nominal everything is now, as a factor.
    fn slowness(&self, now_ms: f64) -> f64 {
        if !self.engine.is_misfit {
            return self.pace;
        }
        let load = 0.05 * self.active.len() as f64 / SLOTS as f64;
        let youth = 0.06 * (-(now_ms - self.ready_ms) / 60_000.0).exp();
        self.pace * (load + youth).exp()
    }

    /// First and second coefficient of the time of n steps: a·n + b·n²/2.
    fn step(&self, now_ms: f64) -> (f64, f64) {
        let batch = self.active.len() as f64;
        let kink = if self.engine.is_misfit { 1.5 * (batch - 4.0).max(0.0) } else { 0.0 };
        let beside = if self.prefill.is_some() { DECODE_BESIDE_PREFILL } else { 1.0 };
        let factor = beside * self.engine.decode * self.slowness(now_ms);
        (
            factor * (STEP_MS + PER_SEQUENCE_MS * batch + kink + PER_KV_MS * self.kv),
            factor * PER_KV_MS * batch,
        )
    }

    /// Lets time pass until `now_ms`, with no event in between.
    pub fn pass(&mut self, now_ms: f64) {
        let elapsed = now_ms - self.at_ms;
        if elapsed <= 0.0 {
            return;
        }
        let batch = self.active.len();
        if batch > 0 {
            let (first, second) = self.step(self.at_ms);
            let steps = ((first * first + 2.0 * second * elapsed).sqrt() - first) / second;
            if self.prefill.is_none() {
                let sums = &mut self.decode[batch];
                sums[0] += steps;
                sums[1] += elapsed;
                sums[2] += steps * self.kv + 0.5 * steps * steps * batch as f64;
            }
            for active in &mut self.active {
                active.left -= steps;
                active.context += steps;
            }
            self.kv += steps * batch as f64;
        }
        if let Some(prefill) = &mut self.prefill {
            if batch > 0 {
                prefill.left_ms -= elapsed / PREFILL_BESIDE_DECODE;
                prefill.beside_ms += elapsed;
            } else {
                prefill.left_ms -= elapsed;
            }
        }
        self.at_ms = now_ms;
    }

    /// When something happens next by itself, after [`Self::pass`] to now.
    pub fn next_ms(&self) -> Option<f64> {
        let beside = if self.active.is_empty() { 1.0 } else { PREFILL_BESIDE_DECODE };
        let prefill = self.prefill.map(|prefill| prefill.left_ms.max(0.0) * beside);
        let left = self.active.iter().map(|active| active.left).fold(f64::INFINITY, f64::min);
        let decode = left.is_finite().then(|| {
            let (first, second) = self.step(self.at_ms);
            let left = left.max(0.0);
            first * left + 0.5 * second * left * left
        });
        let soonest = prefill.into_iter().chain(decode).fold(f64::INFINITY, f64::min);
        soonest.is_finite().then_some(self.at_ms + soonest)
    }

    /// Takes what has just happened, if anything has.
    pub fn take(&mut self) -> Option<Happened> {
        // A thousandth of a step or of a millisecond is rounding.
        if self.prefill.is_some_and(|prefill| prefill.left_ms <= 1e-3) {
            return self.prefill.map(|prefill| Happened::FirstToken(prefill.request));
        }
        let at = self.active.iter().position(|active| active.left <= 1e-3)?;
        let done = self.active.swap_remove(at);
        self.kv -= done.context;
        Some(Happened::Finished(done.request))
    }

    /// The prompt becomes a sequence with `left` steps to go.
    pub fn begin_decode(&mut self, left: f64, context: f64) -> Option<Prefill> {
        let prefill = self.prefill.take()?;
        self.active.push(Active { request: prefill.request, left, context });
        self.kv += context;
        Some(prefill)
    }

    /// Begins the prompt of `request`, which takes `work_ms` alone on a nominal node.
    pub fn begin_prefill(&mut self, request: u32, work_ms: f64, now_ms: f64) {
        let left_ms = work_ms * self.engine.prefill * self.slowness(now_ms);
        self.prefill = Some(Prefill { request, left_ms, began_ms: now_ms, beside_ms: 0.0 });
    }

    /// Forgets `request`, wherever it is before its first token.
    pub fn forget(&mut self, request: u32) {
        self.waiting.retain(|&other| other != request);
        self.prompts.retain(|&other| other != request);
        if self.prefill.is_some_and(|prefill| prefill.request == request) {
            self.prefill = None;
        }
    }

    /// Ends at once. Returns what was on it.
    pub fn crash(&mut self, ready_ms: f64) -> Vec<u32> {
        let mut lost: Vec<u32> = self.waiting.drain(..).chain(self.prompts.drain(..)).collect();
        lost.extend(self.prefill.take().map(|prefill| prefill.request));
        lost.extend(self.active.drain(..).map(|active| active.request));
        self.kv = 0.0;
        self.cache = Cache::default();
        self.counts = CountTotals::default();
        self.decode = vec![[0.0; 3]; SLOTS + 1];
        self.rows.clear();
        self.incarnation += 1;
        self.is_up = false;
        self.ready_ms = ready_ms;
        lost
    }

    /// The decode counters, as a report has them.
    pub fn decode_totals(&self) -> Vec<DecodeTotal> {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "sums are positive and small"
        )]
        let whole = |value: f64| value as u64;
        (1_u32..)
            .zip(&self.decode[1..])
            .filter(|(_, sums)| sums[0] >= 1.0)
            .map(|(batch, sums)| DecodeTotal {
                batch,
                calls: whole(sums[0]),
                micros: whole(1_000.0 * sums[1]),
                kv_tokens: whole(sums[2]),
            })
            .collect()
    }
}
