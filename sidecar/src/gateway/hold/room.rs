//! The hold room for async callers: a request waits by holding a [`Ticket`] and leaves by dropping it. Knows clocks and
//! tasks, neither HTTP nor endpoints.
//!
//! No wake-up can be lost: whether a model is open is a state and not an event, so a request that enters just after its
//! pod became ready finds the model open and goes at once; and whoever comes back while the model is open tries again
//! after a pause, message or not.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use tokio::sync::{oneshot, watch};

use super::held::{Held, HeldCounts, HeldId, HeldRequest, HoldRefusal, Turn};
use crate::gateway::view::HoldLimits;

/// The waiting requests of all models; clones share it.
#[derive(Clone, Debug, Default)]
pub struct HoldRoom {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    /// Models that are open or have requests here; as many as a view has models.
    models: Mutex<HashMap<Arc<str>, Held<Waiter>>>,
    /// Counts what happened.
    changed: watch::Sender<u64>,
}

type Waiter = oneshot::Sender<Turn>;

/// A request's place. Keep it until the answer's first byte of content came, or the request is given up: should the pod
/// be lost before, [`Self::back`] takes the old place again. Dropping it leaves the room and lets the next one go.
#[derive(Debug)]
pub struct Ticket {
    room: HoldRoom,
    model: Arc<str>,
    id: HeldId,
    answer: oneshot::Receiver<Turn>,
    /// What was answered, once it was.
    turn: Option<Turn>,
}

// === impl HoldRoom ===

impl HoldRoom {
    /// An empty room, all models closed.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes a place for a request to `model`. If the model is open and has a free place, the turn comes at once.
    pub fn enter(
        &self,
        model: &str,
        request: HeldRequest,
        limits: &HoldLimits,
        now: Instant,
    ) -> Result<Ticket, HoldRefusal> {
        let (waiter, answer) = oneshot::channel();
        let model: Arc<str> = model.into();
        let mut models = self.lock();
        let held = models.entry(model.clone()).or_default();
        let entered = held.enter(request, waiter, limits);
        settle(&mut models, &model, now);
        drop(models);
        self.tell_change();
        Ok(Ticket { room: self.clone(), model, id: entered?, answer, turn: None })
    }

    /// Endpoints are ready that work on `places` requests at once. Call it for each view in which any are, after the
    /// fleets have taken the view.
    pub fn wake(&self, model: &str, places: usize, now: Instant) {
        self.open(model, places.max(1), now);
    }

    /// No endpoint is ready. Call it for each view in which none is, and for models that are gone.
    pub fn rest(&self, model: &str, now: Instant) {
        self.open(model, 0, now);
    }

    /// Whether requests of this model wait for a place. New ones should enter too then, lest they overtake.
    pub fn has_waiting(&self, model: &str) -> bool {
        self.lock().get(model).is_some_and(Held::has_waiting)
    }

    /// Figures of a model; zeros when nothing waits.
    pub fn counts(&self, model: &str, now: Instant) -> HeldCounts {
        self.lock().get(model).map(|held| held.counts(now)).unwrap_or_default()
    }

    /// Changes whenever somebody enters, goes, comes back or leaves.
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.shared.changed.subscribe()
    }

    fn open(&self, model: &str, places: usize, now: Instant) {
        let mut models = self.lock();
        match models.get_mut(model) {
            Some(held) => held.open(places),
            None if places == 0 => return,
            None => models.entry(model.into()).or_default().open(places),
        }
        settle(&mut models, model, now);
        drop(models);
        self.tell_change();
    }

    /// Lets go whose time has come. Returns when this request's own time comes next.
    fn settle(&self, model: &str, id: HeldId, now: Instant) -> Option<Instant> {
        let mut models = self.lock();
        let had_turns = settle(&mut models, model, now);
        let next_at = models.get(model).and_then(|held| held.next_at(id, now));
        drop(models);
        if had_turns {
            self.tell_change();
        }
        next_at
    }

    fn tell_change(&self) {
        self.shared.changed.send_modify(|count| *count = count.wrapping_add(1));
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<str>, Held<Waiter>>> {
        self.shared.models.lock().expect("no code that holds this lock can panic half-way through a change")
    }
}

/// Tells those whose wait is over, and forgets a closed model that nobody waits for. Returns whether anybody was told.
fn settle(models: &mut HashMap<Arc<str>, Held<Waiter>>, model: &str, now: Instant) -> bool {
    let Some(held) = models.get_mut(model) else { return false };
    let turns = held.turns(now);
    if held.is_empty() && held.places() == 0 {
        models.remove(model);
    }
    let had_turns = !turns.is_empty();
    for (waiter, turn) in turns {
        // A client that has gone at this very moment drops its ticket, which gives the place to the next.
        let _unread = waiter.send(turn);
    }
    had_turns
}

// === impl Ticket ===

impl Ticket {
    /// Waits for the turn. Cancel-safe, so it can stand in a `select!` beside the next progress comment; once answered it
    /// answers the same until [`Self::back`].
    pub async fn wait(&mut self) -> Turn {
        loop {
            if let Some(turn) = self.turn {
                return turn;
            }
            let next_at = self.room.settle(&self.model, self.id, tokio_now());
            let answer = &mut self.answer;
            let answered = match next_at {
                Some(at) => tokio::time::timeout_at(at.into(), answer).await.ok(),
                None => Some(answer.await),
            };
            // The sender is dropped unanswered only with the room itself, which this ticket holds.
            self.turn = answered.map(|turn| turn.unwrap_or(Turn::Expired));
        }
    }

    /// The pod was lost before the answer's first byte, or none could be chosen: waits again, in the old place. After
    /// [`Turn::Expired`], or before any turn, it does nothing.
    pub fn back(&mut self, now: Instant) {
        if self.turn != Some(Turn::Go) {
            return;
        }
        let (waiter, answer) = oneshot::channel();
        let mut models = self.room.lock();
        let is_back = models.get_mut(&self.model).is_some_and(|held| held.back(self.id, waiter, now));
        if is_back {
            self.answer = answer;
            self.turn = None;
            settle(&mut models, &self.model, now);
        }
        drop(models);
        self.room.tell_change();
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut models = self.room.lock();
        if let Some(held) = models.get_mut(&self.model) {
            held.leave(self.id);
        }
        settle(&mut models, &self.model, tokio_now());
        drop(models);
        self.room.tell_change();
    }
}

/// The clock of the timers.
fn tokio_now() -> Instant {
    tokio::time::Instant::now().into_std()
}

#[cfg(test)]
mod tests;
