//! The loop in the child, on the one thread that owns the context: take what arrived, place sequences into slots,
//! run a batch, choose tokens, tell. Never waits for a reader. Must not know sockets; it is given an inbox and a
//! place to put its outputs.

use std::{
    collections::VecDeque,
    sync::mpsc::{Receiver, TryRecvError},
    time::{Duration, Instant},
};

use crate::{
    batch::{self, PromptBudget, Share},
    call::Call,
    llama::{Context, ContextSize, DecodeError, Entry, Model},
    prefix::{Place, Prefixes},
    protocol::Output,
    request::{EngineStats, Event, Generation},
    reuse::Continuations,
    sequence::{Beginning, Sequence},
};

/// Sequences that may wait for a slot. The sidecar sends one per slot; a few more are on the way when one ends.
const WAITING_MAX: usize = 1024;

/// The time between two tokens that prompts beside a running stream may cost: 20 tokens per second, several times
/// faster than people read.
const INTER_TOKEN_GOAL_US: u64 = 50_000;

/// How often counters are told while nothing ends.
const STATS_EVERY_US: u64 = 100_000;

/// What arrives for the loop.
#[derive(Debug)]
pub(crate) enum Task {
    Start { id: u64, generation: Generation, arrived: Instant },
    Cancel { id: u64 },
}

/// What one step has to tell.
#[derive(Debug, Default)]
pub(crate) struct Told {
    pub(crate) outputs: Vec<(u64, Output)>,
    pub(crate) stats: Option<EngineStats>,
}

/// A sequence without a slot.
struct Waiting {
    sequence: Sequence,
    arrival: Arrival,
}

/// When a sequence came. Times are in microseconds since the loop began.
#[derive(Debug, Clone, Copy)]
struct Arrival {
    /// When it was read from the socket.
    at_us: u64,
    /// Calls of the model that had been made when the loop took it.
    calls: u64,
}

pub(crate) struct Decoding<'model> {
    model: &'model Model,
    context: Context<'model>,
    size: ContextSize,
    slots: Vec<Option<Sequence>>,
    /// Busy slots in order of arrival.
    order: Vec<usize>,
    waiting: VecDeque<Waiting>,
    prefixes: Prefixes,
    continuations: Continuations,
    budget: PromptBudget,
    stats: EngineStats,
    told_at_us: u64,
    began: Instant,
    /// Calls of the model so far.
    calls: u64,
    /// When the last of them ended that held prompt tokens.
    prompt_call_ended_us: u64,
    entries: Vec<Entry>,
}

impl<'model> Decoding<'model> {
    pub(crate) fn new(model: &'model Model, context: Context<'model>, size: ContextSize) -> Decoding<'model> {
        let slots = size.slots as usize;
        let stats = EngineStats {
            kv_tokens_total: u64::from(size.context_length) * u64::from(size.slots),
            decode_by_batch: vec![(0, 0, 0); slots],
            ..EngineStats::default()
        };
        Decoding {
            model,
            context,
            size,
            slots: std::iter::repeat_with(|| None).take(slots).collect(),
            order: Vec::with_capacity(slots),
            waiting: VecDeque::new(),
            prefixes: Prefixes::new(slots, model.can_cut_memory()),
            continuations: Continuations::new(slots, size.context_length),
            budget: PromptBudget::new(size.batch_tokens, INTER_TOKEN_GOAL_US),
            stats,
            told_at_us: 0,
            began: Instant::now(),
            calls: 0,
            prompt_call_ended_us: 0,
            entries: Vec::new(),
        }
    }

    /// Runs until the inbox is closed.
    pub(crate) fn run(
        mut self,
        inbox: &Receiver<Task>,
        mut tell: impl FnMut(Told),
    ) -> Result<(), DecodeError> {
        loop {
            let mut told = Told::default();
            if self.order.is_empty() && self.waiting.is_empty() {
                let Ok(task) = inbox.recv() else { return Ok(()) };
                self.take(task, &mut told);
            }
            loop {
                match inbox.try_recv() {
                    Ok(task) => self.take(task, &mut told),
                    Err(TryRecvError::Empty) => break,
                    Err(TryRecvError::Disconnected) => return Ok(()),
                }
            }
            self.place_waiting();
            self.step(&mut told)?;
            told.stats = self.stats_if_due(&told);
            if !told.outputs.is_empty() || told.stats.is_some() {
                tell(told);
            }
        }
    }

    fn take(&mut self, task: Task, told: &mut Told) {
        match task {
            Task::Start { id, generation, arrived } => {
                if let Err(why) = self.queue(id, generation, arrived) {
                    told.outputs.push((id, Output::Rejected(why)));
                }
            }
            Task::Cancel { id } => self.cancel(id),
        }
    }

    fn queue(&mut self, id: u64, generation: Generation, arrived: Instant) -> Result<(), String> {
        if self.waiting.len() >= WAITING_MAX {
            return Err(format!("{WAITING_MAX} generations wait for a slot already"));
        }
        let sequence = Sequence::new(id, generation, self.size.context_length, self.model)?;
        let at_us = micros(arrived.saturating_duration_since(self.began));
        self.waiting.push_back(Waiting { sequence, arrival: Arrival { at_us, calls: self.calls } });
        Ok(())
    }

    fn cancel(&mut self, id: u64) {
        self.waiting.retain(|waiting| waiting.sequence.id() != id);
        let slot =
            self.slots.iter().position(|slot| slot.as_ref().is_some_and(|sequence| sequence.id() == id));
        if let Some(slot) = slot {
            self.vacate(slot);
        }
    }

    fn vacate(&mut self, slot: usize) {
        self.order.retain(|busy| *busy != slot);
        let sequence = self.slots[slot].take().expect("only busy slots are vacated");
        self.continuations.end(slot, sequence.fed());
        self.prefixes.give_back(slot, sequence.into_memory());
    }

    fn place_waiting(&mut self) {
        while let Some(Waiting { sequence, .. }) = self.waiting.front() {
            let Some(place) = self.prefixes.take(sequence.prompt(), sequence.cache_key()) else { return };
            let Waiting { mut sequence, arrival } = self.waiting.pop_front().expect("looked at above");
            let is_kept = self.context.forget(place.slot, place.reused);
            let reused = if is_kept { place.reused } else { 0 };
            let place = Place { reused, ..place };
            sequence.begin(Beginning {
                reused,
                is_unqueued: self.meets_nothing(arrival),
                reuse: self.continuations.begin(place, sequence.prompt(), sequence.cache_key()),
            });
            self.stats.cached_tokens_total += reused as u64;
            self.slots[place.slot] = Some(sequence);
            self.order.push(place.slot);
        }
    }

    /// Whether a sequence that is placed now neither waited for a slot nor finds a prompt before its own.
    fn meets_nothing(&self, arrival: Arrival) -> bool {
        let has_prompt_ahead = self.order.iter().any(|slot| sequence(&self.slots, *slot).is_in_prompt());
        !has_prompt_ahead && came_freely(arrival, self.calls, self.prompt_call_ended_us)
    }

    fn step(&mut self, told: &mut Told) -> Result<(), DecodeError> {
        let needs: Vec<_> = self.order.iter().map(|slot| sequence(&self.slots, *slot).need(*slot)).collect();
        if needs.is_empty() {
            return Ok(());
        }
        let has_decodes = needs.iter().any(|need| !need.is_prompt);
        let shares = batch::plan(&needs, self.budget.tokens(has_decodes), self.size.batch_tokens);
        self.fill_entries(&shares);
        let began = Instant::now();
        self.context.decode(&self.entries)?;
        self.calls += 1;
        let call = Call::of(self.calls, &shares, micros(began.elapsed()));
        self.count(&shares, &call);
        self.choose(&shares, &call, told);
        Ok(())
    }

    fn fill_entries(&mut self, shares: &[Share]) {
        self.entries.clear();
        for share in shares {
            let sequence = sequence(&self.slots, share.slot);
            let count = share.tokens as usize;
            let (position, tokens) = sequence.next_tokens(count);
            let completes = sequence.completes(count);
            self.entries.extend(tokens.iter().enumerate().map(|(index, token)| Entry {
                token: *token,
                position: position + index,
                slot: share.slot,
                wants_logits: completes && index + 1 == count,
            }));
        }
    }

    fn count(&mut self, shares: &[Share], call: &Call) {
        let decodes = shares.iter().filter(|share| !share.is_prompt);
        let kv_tokens: usize = decodes.map(|share| sequence(&self.slots, share.slot).fed() + 1).sum();
        call.count(kv_tokens as u64, &mut self.stats);
        if call.prompt_tokens > 0 {
            self.prompt_call_ended_us = micros(self.began.elapsed());
        }
        if call.is_mixed() {
            self.budget.observe(call.prompt_tokens, call.us);
        }
    }

    fn choose(&mut self, shares: &[Share], call: &Call, told: &mut Told) {
        let mut end = 0;
        for share in shares {
            end += share.tokens as usize;
            let now_us = micros(self.began.elapsed());
            let sequence = self.slots[share.slot].as_mut().expect("planned slots are busy");
            let completes = sequence.completes(share.tokens as usize);
            sequence.advance(share.tokens as usize, call);
            if !completes {
                continue;
            }
            self.stats.output_tokens_total += 1;
            let id = sequence.id();
            let is_over = match sequence.choose(self.context.logits(end - 1), self.model, now_us) {
                Ok(events) => {
                    let is_over = matches!(events.last(), Some(Event::Finished { .. }));
                    told.outputs.extend(events.into_iter().map(|event| (id, Output::Event(event))));
                    is_over
                }
                Err(why) => {
                    told.outputs.push((id, Output::Rejected(why)));
                    true
                }
            };
            if is_over {
                self.vacate(share.slot);
            }
        }
    }

    fn stats_if_due(&mut self, told: &Told) -> Option<EngineStats> {
        let now_us = micros(self.began.elapsed());
        let is_end =
            |output: &Output| matches!(output, Output::Event(Event::Finished { .. }) | Output::Rejected(_));
        let something_ended = told.outputs.iter().any(|(_, output)| is_end(output));
        if !something_ended && !self.order.is_empty() && now_us - self.told_at_us < STATS_EVERY_US {
            return None;
        }
        self.told_at_us = now_us;
        self.stats.busy_slots = u32::try_from(self.order.len()).unwrap_or(u32::MAX);
        let busy: usize = self.order.iter().map(|slot| sequence(&self.slots, *slot).fed()).sum();
        self.stats.kv_tokens_used = busy as u64 + self.prefixes.idle_tokens();
        Some(self.stats.clone())
    }
}

fn sequence(slots: &[Option<Sequence>], slot: usize) -> &Sequence {
    slots[slot].as_ref().expect("slots in order are busy")
}

/// Whether a sequence that is placed after so many `calls` was placed as soon as it came. One that came during a call
/// with prompt tokens had that prompt before it, though it is over by now.
fn came_freely(arrival: Arrival, calls: u64, prompt_call_ended_us: u64) -> bool {
    arrival.calls == calls && arrival.at_us >= prompt_call_ended_us
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waited_for_a_slot_or_behind_a_prompt_did_not_come_freely() {
        let arrival = Arrival { at_us: 500, calls: 7 };
        assert!(came_freely(arrival, 7, 0) && came_freely(arrival, 7, 500));
        assert!(!came_freely(arrival, 8, 0), "a call was made before there was a slot");
        assert!(!came_freely(arrival, 7, 501), "a prompt was being fed when it came");
    }
}
