//! The requests that wait for one model's pods, as a pure structure. `now` is an argument; nothing here knows a clock, a
//! task or a pod.
//!
//! A request *waits*, is let go and is then *going* until it leaves (its answer has begun, or its client has left) or
//! comes back (its pod was lost first). Going ones keep their place and count against the limits, so that any number of
//! flaps cannot make more requests than the limits allow.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::gateway::view::HoldLimits;
use crate::queue::Tier;
use crate::queue::tier::effective;

/// A request that came back although pods are ready tries again after this time, doubled with each return up to
/// [`PAUSE_MAX`]: the view may be behind the pods, and no message will come when it was right all the time.
pub const PAUSE_MIN: Duration = Duration::from_millis(250);

/// See [`PAUSE_MIN`].
pub const PAUSE_MAX: Duration = Duration::from_secs(2);

/// A request's place: earlier ones are smaller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HeldId(u64);

/// What became of a wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// Choose an endpoint now.
    Go,
    /// The deadline passed. The place is gone.
    Expired,
}

/// Which limit a request met.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HoldRefusal {
    /// `maxHeldRequests`.
    #[error(
        "as many requests wait for this model as may (its spec.autoscaling.scaleToZero.maxHeldRequests, else \
         spec.gateway.maxHeldRequests of the pool)"
    )]
    Requests,
    /// `maxHeldBytes`.
    #[error(
        "the requests that wait for this model hold as many bytes as they may (its \
         spec.autoscaling.scaleToZero.maxHeldBytes, else spec.gateway.maxHeldBytes of the pool)"
    )]
    Bytes,
}

/// What the room must know of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeldRequest {
    /// How urgent it was born; waiting and a near deadline lift it as in the pods' queues.
    pub tier: Tier,
    /// Bytes of its body.
    pub bytes: u64,
    /// Estimated tokens of its prompt.
    pub prompt_tokens: u32,
    /// Tokens that it may generate.
    pub output_tokens: u32,
    /// When it came.
    pub arrived: Instant,
    /// When waiting is no longer worth it.
    pub deadline: Instant,
}

/// Figures for the operator, of those that wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HeldCounts {
    /// Requests by the tier they were born with, most urgent first.
    pub by_tier: [u32; 4],
    /// Bytes of their bodies.
    pub bytes: u64,
    /// Tokens of their prompts.
    pub prompt_tokens: u64,
    /// Tokens that they may generate.
    pub output_tokens: u64,
    /// How long the oldest has waited.
    pub oldest_ms: u64,
}

/// The requests of one model. `T` is whom to tell.
#[derive(Debug)]
pub struct Held<T> {
    /// Requests that may be going at once; 0 while no pod is ready.
    places: usize,
    entries: BTreeMap<HeldId, Entry<T>>,
    /// Deadlines of those that wait.
    ends: BTreeSet<(Instant, HeldId)>,
    /// Bytes of all entries.
    bytes: u64,
    /// Entries without an item.
    going: usize,
    next_id: u64,
}

#[derive(Debug)]
struct Entry<T> {
    request: HeldRequest,
    /// `None` while it is going.
    item: Option<T>,
    returns: u32,
    /// Not to be let go before.
    not_before: Option<Instant>,
}

impl<T> Default for Held<T> {
    fn default() -> Self {
        Self { places: 0, entries: BTreeMap::new(), ends: BTreeSet::new(), bytes: 0, going: 0, next_id: 0 }
    }
}

impl<T> Held<T> {
    /// Lets a request in, or says which limit it met. Call [`Self::turns`] afterwards: its turn may have come.
    pub fn enter(
        &mut self,
        request: HeldRequest,
        item: T,
        limits: &HoldLimits,
    ) -> Result<HeldId, HoldRefusal> {
        if self.entries.len() >= limits.requests_max {
            return Err(HoldRefusal::Requests);
        }
        if self.bytes.saturating_add(request.bytes) > limits.bytes_max {
            return Err(HoldRefusal::Bytes);
        }
        let id = HeldId(self.next_id);
        self.next_id += 1;
        self.bytes += request.bytes;
        self.ends.insert((request.deadline, id));
        self.entries.insert(id, Entry { request, item: Some(item), returns: 0, not_before: None });
        Ok(id)
    }

    /// So many requests may be going from now on; 0 when no pod is ready. Those that pause after a return are let go
    /// too: that pods have become ready is what they waited for.
    pub fn open(&mut self, places: usize) {
        if self.places == 0 {
            self.entries.values_mut().for_each(|entry| entry.not_before = None);
        }
        self.places = places;
    }

    /// A request that was let go waits again, in its old place. `false`: it is not going.
    pub fn back(&mut self, id: HeldId, item: T, now: Instant) -> bool {
        let is_open = self.places > 0;
        let Some(entry) = self.entries.get_mut(&id).filter(|entry| entry.item.is_none()) else {
            return false;
        };
        entry.item = Some(item);
        entry.not_before = is_open.then(|| now + pause(entry.returns));
        entry.returns = entry.returns.saturating_add(1);
        self.ends.insert((entry.request.deadline, id));
        self.going -= 1;
        true
    }

    /// A request leaves: its answer has begun or its client is gone. Its place is free for the next.
    pub fn leave(&mut self, id: HeldId) {
        if let Some(entry) = self.entries.remove(&id) {
            self.bytes -= entry.request.bytes;
            self.ends.remove(&(entry.request.deadline, id));
            self.going -= usize::from(entry.item.is_none());
        }
    }

    /// Whose wait is over: the late ones, then as many as there are free places, the most urgent first.
    pub fn turns(&mut self, now: Instant) -> Vec<(T, Turn)> {
        let mut turns = self.expire(now);
        let free = self.places.saturating_sub(self.going);
        if free == 0 || self.entries.len() == self.going {
            return turns;
        }
        let mut waiting: Vec<_> = self
            .entries
            .iter()
            .filter(|(_, entry)| entry.item.is_some() && entry.not_before.is_none_or(|at| at <= now))
            .map(|(id, Entry { request, .. })| {
                (effective(request.tier, request.arrived, request.deadline, now), *id)
            })
            .collect();
        waiting.sort_unstable();
        for (_, id) in waiting.into_iter().take(free) {
            let Some(entry) = self.entries.get_mut(&id) else { continue };
            self.ends.remove(&(entry.request.deadline, id));
            turns.extend(entry.item.take().map(|item| (item, Turn::Go)));
            self.going += 1;
        }
        turns
    }

    /// When this request's own turn may come without anybody's doing: the end of its pause or its deadline. `None` while
    /// it does not wait.
    pub fn next_at(&self, id: HeldId, now: Instant) -> Option<Instant> {
        let entry = self.entries.get(&id).filter(|entry| entry.item.is_some())?;
        let pause = entry.not_before.filter(|at| *at > now);
        Some(pause.map_or(entry.request.deadline, |at| at.min(entry.request.deadline)))
    }

    /// Whether somebody waits.
    pub fn has_waiting(&self) -> bool {
        self.entries.len() > self.going
    }

    /// Whether nobody waits or is going.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Requests that may be going at once.
    pub fn places(&self) -> usize {
        self.places
    }

    /// Figures at `now`.
    pub fn counts(&self, now: Instant) -> HeldCounts {
        let mut counts = HeldCounts::default();
        let waiting =
            || self.entries.values().filter(|entry| entry.item.is_some()).map(|entry| entry.request);
        for request in waiting() {
            counts.by_tier[request.tier.index()] += 1;
            counts.bytes += request.bytes;
            counts.prompt_tokens += u64::from(request.prompt_tokens);
            counts.output_tokens += u64::from(request.output_tokens);
        }
        let oldest = waiting().map(|request| request.arrived).min();
        let waited = oldest.map_or(Duration::ZERO, |arrived| now.saturating_duration_since(arrived));
        counts.oldest_ms = u64::try_from(waited.as_millis()).unwrap_or(u64::MAX);
        counts
    }

    fn expire(&mut self, now: Instant) -> Vec<(T, Turn)> {
        let mut expired = Vec::new();
        while let Some((_, id)) = self.ends.first().copied().filter(|(end_at, _)| *end_at <= now) {
            let item = self.entries.get_mut(&id).and_then(|entry| entry.item.take());
            // Counted as going until it leaves in the next line.
            self.going += usize::from(item.is_some());
            self.leave(id);
            expired.extend(item.map(|item| (item, Turn::Expired)));
        }
        expired
    }
}

fn pause(returns: u32) -> Duration {
    PAUSE_MIN.saturating_mul(1 << returns.min(8)).min(PAUSE_MAX)
}

#[cfg(test)]
mod tests;
