//! The queue for async callers: a request waits by holding a [`Queued`] and leaves by dropping it; the dispatcher
//! takes the next one when it has a slot for it. Knows clocks and tasks, neither HTTP nor the engine.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, OwnedSemaphorePermit, oneshot};

use super::tier::Tier;
use super::waiting::{Expired, Full, Id, Limits, Popped, Snapshot, Ticket, Waiting};

/// A handle on the queue; clones share it.
#[derive(Clone)]
pub struct Queue {
    shared: Arc<Shared>,
}

struct Shared {
    waiting: Mutex<Waiting<Waiter>>,
    /// Told when something came in, so that the dispatcher looks again.
    arrived: Notify,
    /// The same for whoever watches the deadlines.
    ends_changed: Notify,
}

type Waiter = oneshot::Sender<Result<Admission, Expired>>;

/// A request's turn has come. It holds the slot: drop it when the generation has ended.
#[derive(Debug)]
pub struct Admission {
    /// The tier that the request counted as in the end.
    pub tier: Tier,
    /// How long it had waited since it arrived.
    pub waited: Duration,
    id: Id,
    ticket: Ticket,
    slot: OwnedSemaphorePermit,
}

/// A waiting request. Dropping it removes the request.
pub struct Queued {
    queue: Queue,
    id: Id,
    answer: oneshot::Receiver<Result<Admission, Expired>>,
    /// The queue has let go of it; its id may by now stand for the same request put back.
    has_left: bool,
}

// === impl Queue ===

impl Queue {
    /// An empty queue.
    pub fn new(limits: Limits) -> Self {
        let shared = Shared {
            waiting: Mutex::new(Waiting::new(limits)),
            arrived: Notify::new(),
            ends_changed: Notify::new(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Lets a request in, or says which limit it met.
    pub fn submit(&self, ticket: Ticket) -> Result<Queued, Full> {
        let (waiter, answer) = oneshot::channel();
        let id = self.lock().push(ticket, waiter, Instant::now())?;
        Ok(self.queued(id, answer))
    }

    /// Puts a request back whose generation could not begin; it keeps its place.
    pub fn resubmit(&self, admission: Admission) -> Queued {
        let (waiter, answer) = oneshot::channel();
        let Admission { id, ticket, slot, .. } = admission;
        self.lock().put_back(id, ticket, waiter, Instant::now());
        // Not before: whoever gets this slot must be chosen among all, this request included.
        drop(slot);
        self.queued(id, answer)
    }

    fn queued(&self, id: Id, answer: oneshot::Receiver<Result<Admission, Expired>>) -> Queued {
        self.shared.arrived.notify_one();
        self.shared.ends_changed.notify_one();
        Queued { queue: self.clone(), id, answer, has_left: false }
    }

    /// Waits until somebody waits, and hands the slot to whose turn it is. Requests that are too late leave on the
    /// way, and those whose client has just gone are skipped.
    pub async fn admit_next(&self, slot: OwnedSemaphorePermit) {
        let mut slot = slot;
        loop {
            let arrived = self.shared.arrived.notified();
            let Some(popped) = self.pop() else {
                arrived.await;
                continue;
            };
            match hand_over(popped, slot) {
                Ok(()) => return,
                Err(returned) => slot = returned,
            }
        }
    }

    /// Tells requests that they are too late, for ever. Runs beside the dispatcher, because a deadline also passes
    /// while no slot is free or the engine is away.
    pub async fn expire_late(&self) {
        loop {
            self.expire(Instant::now());
            let next_end = self.lock().next_end();
            let changed = self.shared.ends_changed.notified();
            match next_end {
                // Either way, look again.
                Some(end) => drop(tokio::time::timeout_at(end.into(), changed).await),
                None => changed.await,
            }
        }
    }

    /// Corrects a tenant's account when a generation has ended.
    pub fn settle(&self, admission: &Admission, output_tokens: u64, cached_tokens: u64) {
        self.lock().settle(admission.tier, admission.ticket.tenant, output_tokens, cached_tokens);
    }

    /// Figures of now.
    pub fn snapshot(&self) -> Snapshot {
        self.lock().snapshot(Instant::now())
    }

    /// How many are probably served before this one; `None` once it has left.
    pub fn ahead_of(&self, id: Id) -> Option<usize> {
        self.lock().ahead_of(id)
    }

    /// The limits.
    pub fn limits(&self) -> Limits {
        self.lock().limits()
    }

    /// How long it takes until everybody who waits now has been admitted.
    pub fn drain_time(&self) -> Duration {
        let mut waiting = self.lock();
        let now = Instant::now();
        let requests = waiting.snapshot(now).requests;
        waiting.drain_time(requests, now)
    }

    fn pop(&self) -> Option<Popped<Waiter>> {
        let now = Instant::now();
        self.expire(now);
        self.lock().pop(now)
    }

    fn expire(&self, now: Instant) {
        let expired = self.lock().expire(now);
        for (waiter, why) in expired {
            // A client that has gone at this very moment needs no answer.
            drop(waiter.send(Err(why)));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting<Waiter>> {
        self.shared.waiting.lock().expect("no code that holds this lock can panic half-way through a change")
    }
}

/// Gives the slot to the request, or back when its client has gone.
fn hand_over(popped: Popped<Waiter>, slot: OwnedSemaphorePermit) -> Result<(), OwnedSemaphorePermit> {
    let Popped { id, tier, ticket, item } = popped;
    let waited = ticket.arrived.elapsed();
    match item.send(Ok(Admission { tier, waited, id, ticket, slot })) {
        Ok(()) => Ok(()),
        Err(Ok(admission)) => Err(admission.slot),
        Err(Err(_)) => unreachable!("what was sent is an admission"),
    }
}

// === impl Queued ===

impl Queued {
    /// The request's turn, or why it never came.
    pub async fn admitted(&mut self) -> Result<Admission, Expired> {
        // The sender is dropped unanswered only when the whole queue goes, at the end of the process.
        let answer = (&mut self.answer).await.unwrap_or(Err(Expired::Age));
        self.has_left = true;
        answer
    }

    /// Which one it is, for [`Queue::ahead_of`].
    pub fn id(&self) -> Id {
        self.id
    }
}

impl Drop for Queued {
    fn drop(&mut self) {
        if !self.has_left {
            self.queue.lock().cancel(self.id);
        }
    }
}
