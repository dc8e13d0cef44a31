//! Users, routing and pods as one event-driven system. Deterministic for a world and a seed. Times are milliseconds
//! from the canary's first traffic; before it lies the warm-up.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use judgement::rollout::{Arm, ArmCounts, FinishedRequest, Part};
use rand::RngExt;
use rand_distr::{Distribution, Exp1, StandardNormal, StudentT};

use super::super::arrivals;
use super::super::random::{Random, stream};
use super::pod::{Engine, Happened, Pod, Request, SLOTS};
use super::world::{Arrivals, Material, World};

/// Turns of a conversation, in the mean.
const TURNS: f64 = 4.0;
/// Median and spread of the time between an answer and the next turn.
const THINK_MS: (f64, f64) = (25_000.0, 1.0);
/// Median and spread (of the logarithm) of a later turn's own text, in tokens.
const TEXT: (f64, f64) = (20.0, 0.8);
/// A context beyond is cut at its beginning, as clients do.
const CONTEXT_MAX: u32 = 16_000;
/// Requests in flight beyond the least loaded pod's at which a conversation leaves its pod.
const AFFINITY: usize = 3;
/// How long before the first traffic the simulation begins.
pub const WARM_UP_S: f64 = 600.0;
/// How often pod clocks move and reports are sent.
pub const TICK_MS: f64 = 10_000.0;
/// Share of a cache that others may have touched since, up to which a prefix is owed.
const OWED: f64 = 0.4;

/// A user.
#[derive(Debug, Clone, Copy, Default)]
struct Conversation {
    bucket: u16,
    turns_left: u16,
    context: u32,
    pod: Option<(u32, u32)>,
    /// What the pod's cache had served when it last served this, and the prompt that it had then.
    touched: u64,
    last_prompt: u32,
    has_begun: bool,
    has_erred: bool,
    is_poisoned: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Turn(u32),
    Retry(u32),
    GiveUp(u32),
    Pod(u32),
}

/// Everything that moves.
pub struct Fleet<'world> {
    world: &'world World,
    material: &'world Material,
    /// The time.
    pub now_ms: f64,
    /// All pods there ever were, in the order of their start.
    pub pods: Vec<Pod>,
    /// The canary's share of buckets.
    pub weight_basis_points: u16,
    /// Conversations that began since the last report.
    pub new_conversations: ArmCounts,
    /// Requests of the canary that finished or failed.
    pub canary_requests: u64,
    conversations: Vec<Conversation>,
    requests: Vec<Request>,
    /// First turns that are still to come, the next one last: kept apart, they need not be sifted through the heap.
    coming: Vec<(f64, u32)>,
    /// When each pod does something by itself, unless something else happens to it first.
    planned_ms: Vec<f64>,
    events: BinaryHeap<Reverse<(u64, u32, Event)>>,
    sequence: u32,
    random: Random,
    nodes: Random,
}

impl<'world> Fleet<'world> {
    /// The fleet at the beginning of its warm-up; `until_s` bounds the arrivals.
    pub fn new(world: &'world World, material: &'world Material, seed: u64, until_s: f64) -> Self {
        let mut fleet = Self {
            world,
            material,
            now_ms: -1_000.0 * WARM_UP_S,
            pods: Vec::new(),
            weight_basis_points: 0,
            new_conversations: ArmCounts::default(),
            canary_requests: 0,
            conversations: Vec::new(),
            requests: Vec::new(),
            coming: Vec::new(),
            planned_ms: Vec::new(),
            events: BinaryHeap::new(),
            sequence: 0,
            random: stream(seed, "canary users"),
            nodes: stream(seed, "canary nodes"),
        };
        for _ in 0..world.pods {
            fleet.start(Arm::Control, fleet.now_ms);
        }
        fleet.users(seed, until_s);
        fleet
    }

    /// Draws all conversations.
    fn users(&mut self, seed: u64, until_s: f64) {
        let random = &mut stream(seed, "canary arrivals");
        let (span, rate) = (WARM_UP_S + until_s, self.world.rate / TURNS);
        let times = match self.world.arrivals {
            Arrivals::Poisson => arrivals::poisson(|_| rate, rate, span, random),
            Arrivals::Ramp => {
                let level = |at: f64| 0.6 + 0.7 * ((at - WARM_UP_S) / 1_800.0).clamp(0.0, 1.0);
                arrivals::poisson(|at| rate * level(at), 1.3 * rate, span, random)
            }
            Arrivals::Wandering => arrivals::autoregressive(rate, 0.3, 0.63, 60.0, span, random),
            Arrivals::CodeTrace => {
                // The trace turned to another beginning by each seed, at its own rate (2.6 per second).
                let times = &self.material.code_times;
                let length = times.last().copied().unwrap_or(1.0);
                let begin = random.random::<f64>() * length;
                let mut turned: Vec<f64> = times.iter().map(|at| (at - begin).rem_euclid(length)).collect();
                turned.sort_by(f64::total_cmp);
                turned.retain(|&at| at < span);
                turned
            }
        };
        for at in times {
            let id = number(self.conversations.len());
            let mut turns_left = 1;
            while turns_left < 40 && self.random.random::<f64>() < 1.0 - 1.0 / TURNS {
                turns_left += 1;
            }
            self.conversations.push(Conversation {
                bucket: self.random.random_range(0..10_000),
                turns_left,
                is_poisoned: self.world.is_poisoned && self.random.random::<f64>() < self.world.error_rate,
                ..Conversation::default()
            });
            self.coming.push((1_000.0 * (at - WARM_UP_S), id));
        }
        self.coming.reverse();
    }

    /// Starts a pod that is ready at `ready_ms`. Returns its index.
    pub fn start(&mut self, arm: Arm, ready_ms: f64) -> usize {
        let (nodes, change) = (self.world.nodes, self.world.change);
        let random = &mut self.nodes;
        let mut effect = if nodes.is_heavy_tailed {
            nodes.sd * StudentT::new(3.0).expect("3 is positive").sample(random)
        } else {
            let normal: f64 = StandardNormal.sample(random);
            nodes.sd * normal
        };
        let is_first = !self.pods.iter().any(|pod| pod.arm == arm);
        let mut engine = Engine { slots: SLOTS, decode: 1.0, prefill: 1.0, is_misfit: self.world.is_misfit };
        match arm {
            Arm::Canary => {
                effect += nodes.canary_class + if is_first { nodes.bad_canary } else { 0.0 };
                engine.slots = change.slots.unwrap_or(SLOTS);
                (engine.decode, engine.prefill) = (change.decode, change.prefill);
            }
            Arm::Control => effect += if is_first { nodes.bad_stable } else { 0.0 },
        }
        let mut pod = Pod::new(arm, engine, effect, ready_ms);
        pod.is_up = ready_ms <= self.now_ms;
        self.pods.push(pod);
        self.planned_ms.push(f64::INFINITY);
        self.pods.len() - 1
    }

    /// Lets time pass until `until_ms`.
    pub fn run_until(&mut self, until_ms: f64) {
        while let Some((at_ms, event)) = self.next(until_ms) {
            self.now_ms = self.now_ms.max(at_ms);
            self.handle(event);
        }
        self.now_ms = until_ms;
    }

    /// Takes the next event that is due by `until_ms`.
    fn next(&mut self, until_ms: f64) -> Option<(f64, Event)> {
        let first_turn_ms = self.coming.last().map_or(f64::INFINITY, |coming| coming.0);
        let user_ms = self.events.peek().map_or(f64::INFINITY, |Reverse((at, ..))| time(*at));
        // A fleet has few pods, and each changes its plan several times before it comes to pass: looking at all of them
        // is cheaper than sorting them.
        let pod_ms = self.planned_ms.iter().copied().fold(f64::INFINITY, f64::min);
        let at_ms = first_turn_ms.min(user_ms).min(pod_ms);
        if at_ms > until_ms || at_ms == f64::INFINITY {
            None
        } else if at_ms >= pod_ms {
            let pod = self.planned_ms.iter().position(|&planned_ms| planned_ms <= at_ms)?;
            self.planned_ms[pod] = f64::INFINITY;
            Some((at_ms, Event::Pod(number(pod))))
        } else if at_ms >= first_turn_ms {
            self.coming.pop().map(|(_, id)| (at_ms, Event::Turn(id)))
        } else {
            self.events.pop().map(|Reverse((_, _, event))| (at_ms, event))
        }
    }

    /// Moves the clocks of pods, and brings up those whose time has come.
    pub fn tick(&mut self) {
        let keep = (-TICK_MS / 60_000.0).exp();
        let fresh = self.world.nodes.clock_sd * (1.0 - keep * keep).sqrt();
        for at in 0..self.pods.len() {
            let normal: f64 = StandardNormal.sample(&mut self.nodes);
            let pod = &mut self.pods[at];
            pod.pass(self.now_ms);
            pod.wander(keep, fresh * normal);
            pod.is_up |= pod.ready_ms <= self.now_ms;
            self.plan(at);
        }
    }

    /// Ends a pod's process; it is back at `ready_ms`. Its requests go elsewhere.
    pub fn crash(&mut self, at: usize, ready_ms: f64) {
        let lost = self.pods[at].crash(ready_ms);
        self.plan(at);
        for request in lost {
            self.requests[request as usize].is_done = true;
            self.retry(request, 0.0);
        }
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Turn(conversation) => self.turn(conversation),
            Event::Retry(request) => self.submit(request),
            Event::GiveUp(request) => self.give_up(request),
            Event::Pod(pod) => self.serve(pod as usize),
        }
    }

    fn turn(&mut self, id: u32) {
        let is_code = self.world.arrivals == Arrivals::CodeTrace;
        let sizes = if is_code { &self.material.code } else { &self.material.conversation };
        let (prompt, output) = sizes.draw(&mut self.random);
        let text = lognormal(&mut self.random, TEXT);
        let conversation = &mut self.conversations[id as usize];
        conversation.turns_left = conversation.turns_left.saturating_sub(1);
        let own = if conversation.context == 0 { f64::from(prompt) } else { text };
        conversation.context = (conversation.context + whole(own).max(1)).min(CONTEXT_MAX);
        let request = Request {
            conversation: id,
            prompt: conversation.context,
            output: output.max(2),
            ..Request::default()
        };
        self.requests.push(request);
        self.submit(number(self.requests.len() - 1));
    }

    /// A request goes to a pod.
    fn submit(&mut self, id: u32) {
        let request = self.requests[id as usize];
        let conversation = self.conversations[request.conversation as usize];
        let Some(at) = self.route(&conversation) else {
            // Nobody is up: tries again.
            self.push(self.now_ms + 1_000.0, Event::Retry(id));
            return;
        };
        let (arm, change) = (self.pods[at].arm, self.world.change);
        let is_canary = arm == Arm::Canary;
        if !conversation.has_begun {
            self.conversations[request.conversation as usize].has_begun = true;
            let counts = &mut self.new_conversations;
            *(if is_canary { &mut counts.canary } else { &mut counts.control }) += 1;
        }
        let rate = if is_canary {
            change.error_rate.unwrap_or(self.world.error_rate)
        } else {
            self.world.error_rate
        };
        let is_error = if self.world.is_poisoned && (!is_canary || change.error_rate.is_none()) {
            conversation.is_poisoned
        } else {
            self.random.random::<f64>() < rate
        };
        if is_error {
            self.fail(id, at);
            return;
        }
        let length = if is_canary && request.attempt == 0 { change.length } else { 1.0 };
        let work = if is_canary && self.random.random::<f64>() < change.tail { 5.0 } else { 1.0 };
        let outside_ms = if is_canary { change.outside_ms } else { 0.0 } + self.network();
        let patience = self.patience();
        self.pods[at].pass(self.now_ms);
        let pod = &mut self.pods[at];
        let has_slot = pod.held() < pod.engine.slots;
        let request = &mut self.requests[id as usize];
        request.output = whole(f64::from(request.output) * length).max(2);
        (request.work, request.outside_ms) = (work, outside_ms);
        (request.pod, request.arrived_ms) = (number(at), self.now_ms);
        request.seen = FinishedRequest {
            in_flight_before: u16::try_from(pod.in_flight()).unwrap_or(u16::MAX),
            is_unqueued: has_slot
                && pod.prefill.is_none()
                && pod.prompts.is_empty()
                && pod.waiting.is_empty(),
            has_waited: !has_slot,
            ..FinishedRequest::default()
        };
        if has_slot {
            pod.prompts.push_back(id);
        } else {
            pod.waiting.push_back(id);
        }
        if let Some(patience) = patience {
            self.push(self.now_ms + patience, Event::GiveUp(id));
        }
        self.serve(at);
    }

    /// Which pod: the conversation's, unless it is much busier than another of its arm.
    fn route(&mut self, conversation: &Conversation) -> Option<usize> {
        let has_canary = self.pods.iter().any(|pod| pod.arm == Arm::Canary && pod.is_up);
        let is_canary = conversation.bucket < self.weight_basis_points && has_canary;
        let arm = if is_canary { Arm::Canary } else { Arm::Control };
        let first = self.random.random_range(0..self.pods.len());
        let mut best: Option<(usize, usize)> = None;
        for offset in 0..self.pods.len() {
            let at = (first + offset) % self.pods.len();
            let pod = &self.pods[at];
            if pod.arm == arm && pod.is_up && !pod.is_draining {
                let load = pod.in_flight();
                if best.is_none_or(|(_, least)| load < least) {
                    best = Some((at, load));
                }
            }
        }
        let (best, least) = best?;
        if let Some((home, _)) = conversation.pod {
            let pod = &self.pods[home as usize];
            if pod.arm == arm && pod.is_up && !pod.is_draining && pod.in_flight() <= least + AFFINITY {
                return Some(home as usize);
            }
        }
        Some(best)
    }

    /// An error instead of a first token.
    fn fail(&mut self, id: u32, at: usize) {
        let request = &mut self.requests[id as usize];
        request.is_done = true;
        let (attempt, conversation) = (request.attempt, request.conversation);
        let pod = &mut self.pods[at];
        self.canary_requests += u64::from(pod.arm == Arm::Canary);
        let conversation = &mut self.conversations[conversation as usize];
        if attempt == 0 && !conversation.has_erred {
            pod.counts.first_attempts += 1;
            pod.counts.first_attempt_errors += 1;
        }
        conversation.has_erred = true;
        pod.rows.push(FinishedRequest { has_failed: true, ..FinishedRequest::default() });
        if attempt < 3 && self.random.random::<f64>() < 0.7 {
            self.retry(id, 1_000.0);
        }
    }

    /// The same request once more, as another attempt.
    fn retry(&mut self, id: u32, after_ms: f64) {
        let Request { conversation, attempt, prompt, output, .. } = self.requests[id as usize];
        let again = Request { conversation, attempt: attempt + 1, prompt, output, ..Request::default() };
        self.requests.push(again);
        self.push(self.now_ms + after_ms, Event::Retry(number(self.requests.len() - 1)));
    }

    /// A user who has no first token yet leaves, or tries again.
    fn give_up(&mut self, id: u32) {
        let request = self.requests[id as usize];
        if request.is_done || request.has_first_token {
            return;
        }
        self.requests[id as usize].is_done = true;
        let at = request.pod as usize;
        self.pods[at].pass(self.now_ms);
        self.pods[at].forget(id);
        self.canary_requests += u64::from(self.pods[at].arm == Arm::Canary);
        let row = FinishedRequest { was_cancelled: true, prompt_tokens: request.prompt, ..request.seen };
        self.pods[at].rows.push(row);
        self.serve(at);
        if self.random.random::<f64>() < 0.5 && request.attempt < 3 {
            self.retry(id, 500.0);
        }
    }

    /// Does what is due on a pod, and plans its next event.
    fn serve(&mut self, at: usize) {
        self.pods[at].pass(self.now_ms);
        while let Some(happened) = self.pods[at].take() {
            match happened {
                Happened::FirstToken(request) => self.first_token(at, request),
                Happened::Finished(request) => self.finish(at, request),
            }
        }
        while self.pods[at].held() < self.pods[at].engine.slots {
            let Some(next) = self.pods[at].waiting.pop_front() else { break };
            self.pods[at].prompts.push_back(next);
        }
        if self.pods[at].prefill.is_none()
            && let Some(next) = self.pods[at].prompts.pop_front()
        {
            self.begin(at, next);
        }
        self.plan(at);
    }

    /// A prompt's turn has come.
    fn begin(&mut self, at: usize, id: u32) {
        let normal: f64 = StandardNormal.sample(&mut self.random);
        let request = &mut self.requests[id as usize];
        let conversation = &self.conversations[request.conversation as usize];
        let pod = &mut self.pods[at];
        let loses_cache = pod.arm == Arm::Canary && self.world.change.loses_cache;
        let reused =
            if loses_cache { 0 } else { pod.cache.held(request.conversation).min(request.prompt - 1) };
        let is_owed = conversation.pod == Some((number(at), pod.incarnation))
            && (pod.cache.touched - conversation.touched) as f64 <= OWED * self.world.cache_tokens as f64;
        pod.counts.reuse_eligible += u64::from(is_owed);
        pod.counts.reuse_hits += u64::from(is_owed && 2 * reused >= conversation.last_prompt);
        let uncached = request.prompt - reused;
        request.seen.uncached_tokens = uncached;
        request.seen.prompt_tokens = request.prompt;
        let tokens = f64::from(uncached) / 3.0 * (1.0 + f64::from(request.prompt) / 20_000.0);
        pod.begin_prefill(id, (10.0 + tokens) * (0.05 * normal).exp() * request.work, self.now_ms);
    }

    fn first_token(&mut self, at: usize, id: u32) {
        let request = &mut self.requests[id as usize];
        let pod = &mut self.pods[at];
        let steps = f64::from(request.output) * request.work;
        let Some(prefill) = pod.begin_decode(steps, f64::from(request.prompt)) else { return };
        let took = self.now_ms - prefill.began_ms;
        request.has_first_token = true;
        request.first_token_ms = self.now_ms;
        request.seen.prefill_micros = u64::from(whole(1_000.0 * took));
        request.seen.overlap_permille =
            u16::try_from(whole(1_000.0 * prefill.beside_ms / took.max(1e-6))).unwrap_or(1_000);
        request.seen.ttft_micros =
            u64::from(whole(1_000.0 * (self.now_ms - request.arrived_ms + request.outside_ms)));
        pod.rows.push(FinishedRequest { part: Part::Prompt, ..request.seen });
        let conversation = &mut self.conversations[request.conversation as usize];
        pod.counts.first_attempts += u64::from(request.attempt == 0 && !conversation.has_erred);
        pod.cache.put(request.conversation, request.prompt, request.prompt, self.world.cache_tokens);
    }

    fn finish(&mut self, at: usize, id: u32) {
        let request = &mut self.requests[id as usize];
        request.is_done = true;
        let pod = &mut self.pods[at];
        self.canary_requests += u64::from(pod.arm == Arm::Canary);
        let took = self.now_ms - request.first_token_ms;
        let mut row = FinishedRequest { part: Part::Answer, ..request.seen };
        row.output_tokens = request.output;
        row.decode_steps = whole(f64::from(request.output) * request.work);
        row.inter_token_micros = Some(u64::from(whole(1_000.0 * took / f64::from(request.output))));
        pod.rows.push(row);
        let context = (request.prompt + request.output).min(CONTEXT_MAX);
        pod.cache.put(request.conversation, context, request.output, self.world.cache_tokens);
        let conversation = &mut self.conversations[request.conversation as usize];
        conversation.context = context;
        conversation.pod = Some((number(at), pod.incarnation));
        conversation.touched = pod.cache.touched;
        conversation.last_prompt = request.prompt;
        if conversation.turns_left > 0 {
            let id = request.conversation;
            let think = lognormal(&mut self.random, THINK_MS);
            self.push(self.now_ms + think, Event::Turn(id));
        }
    }

    /// Time on the way: 30 ms, and now and then half a second.
    fn network(&mut self) -> f64 {
        let hiccup: f64 = Exp1.sample(&mut self.random);
        let usual = lognormal(&mut self.random, (30.0, 0.5));
        if self.random.random::<f64>() < 0.02 { usual + 500.0 * hiccup } else { usual }
    }

    /// When this user will give up, if ever.
    fn patience(&mut self) -> Option<f64> {
        let (share, seconds) = self.world.impatience;
        (self.random.random::<f64>() < share).then(|| lognormal(&mut self.random, (1_000.0 * seconds, 0.2)))
    }

    fn plan(&mut self, at: usize) {
        self.planned_ms[at] = self.pods[at].next_ms().unwrap_or(f64::INFINITY);
    }

    fn push(&mut self, at_ms: f64, event: Event) {
        self.sequence += 1;
        // Times from the beginning of the warm-up are positive, and bits of positive numbers sort like the numbers.
        let at = (at_ms + 1_000.0 * WARM_UP_S).max(0.0).to_bits();
        self.events.push(Reverse((at, self.sequence, event)));
    }
}

/// An index as it is kept in requests and events.
fn number(index: usize) -> u32 {
    u32::try_from(index).expect("a rollout has some ten thousand requests")
}

fn time(bits: u64) -> f64 {
    f64::from_bits(bits) - 1_000.0 * WARM_UP_S
}

/// A lognormal number with a median and a spread of its logarithm.
fn lognormal(random: &mut Random, (median, sd): (f64, f64)) -> f64 {
    let normal: f64 = StandardNormal.sample(random);
    median * (sd * normal).exp()
}

/// Down to whole tokens or microseconds.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates, which is meant")]
fn whole(value: f64) -> u32 {
    value as u32
}
