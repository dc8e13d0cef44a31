//! The endpoints of a revision at one moment; replaced as a whole with each view. Those that stay keep their counters.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Instant;

use super::endpoint::Endpoint;
use super::ring::Ring;
use super::slow_start::{self, SLOW_START};
use crate::gateway::view::{DEFAULT_SLOTS, EndpointView, RevisionView, Strategy};

/// What a choice is made from.
#[derive(Debug)]
pub(super) struct Members {
    pub(super) strategy: Strategy,
    /// Requests that each works on at once; at least 1.
    pub(super) slots: u32,
    /// Those that may get requests: the ready ones, or the doubtful ones.
    pub(super) open: Vec<Member>,
    /// Whether `open` are all unready now, though not leaving, and have been ready before. Kubernetes believes so of all
    /// pods of a node from which it has heard nothing for a while, also after the API server was away: mostly they are
    /// well. Each is asked until its breaker bars it.
    pub(super) is_doubtful: bool,
    /// Listed, but not to get new requests.
    pub(super) closed: Vec<Arc<Endpoint>>,
    /// Of `open`, by index.
    pub(super) ring: Arc<Ring>,
}

/// An endpoint that may get requests.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) endpoint: Arc<Endpoint>,
    /// When it has its full weight: so long after it became ready, if it stays that.
    warm_at: Instant,
}

impl Member {
    /// Its weight among the others, above 0 and at most 1.
    pub(super) fn weight(&self, now: Instant) -> f64 {
        if now >= self.warm_at { 1.0 } else { slow_start::weight(self.warm_at - now) }
    }
}

impl Members {
    /// None yet.
    pub(super) fn none() -> Self {
        Self {
            strategy: Strategy::default(),
            slots: DEFAULT_SLOTS,
            open: Vec::new(),
            is_doubtful: false,
            closed: Vec::new(),
            ring: Arc::default(),
        }
    }

    /// The members by a new view. `gone` has those that have left with work in flight; a view may list them again.
    pub(super) fn by_view(
        &self,
        strategy: Strategy,
        revision: &RevisionView,
        gone: &[Weak<Endpoint>],
        now: Instant,
    ) -> Self {
        let known = |view: &EndpointView| {
            let here = self.all().find(|endpoint| endpoint.is(view)).cloned();
            here.or_else(|| gone.iter().filter_map(Weak::upgrade).find(|endpoint| endpoint.is(view)))
        };
        let is_doubtful = revision.endpoints.iter().all(|view| !view.is_ready);
        let (mut open, mut closed) = (Vec::new(), Vec::new());
        for view in &revision.endpoints {
            let endpoint = known(view).unwrap_or_else(|| Arc::new(Endpoint::new(view)));
            endpoint.was_ready.fetch_or(view.is_ready, Ordering::Relaxed);
            let is_worth_a_try =
                is_doubtful && !view.is_leaving && endpoint.was_ready.load(Ordering::Relaxed);
            if view.is_ready || is_worth_a_try {
                let warm_at = self.warm_at(&endpoint).unwrap_or(now + SLOW_START);
                open.push(Member { endpoint, warm_at });
            } else {
                closed.push(endpoint);
            }
        }
        Self {
            strategy,
            slots: if revision.slots == 0 { DEFAULT_SLOTS } else { revision.slots },
            ring: self.ring_for(&open),
            open,
            is_doubtful,
            closed,
        }
    }

    /// All that the view listed.
    pub(super) fn all(&self) -> impl Iterator<Item = &Arc<Endpoint>> {
        self.open.iter().map(|member| &member.endpoint).chain(&self.closed)
    }

    /// Those that the view says are ready.
    pub(super) fn ready(&self) -> &[Member] {
        if self.is_doubtful { &[] } else { &self.open }
    }

    fn warm_at(&self, endpoint: &Arc<Endpoint>) -> Option<Instant> {
        let member = self.open.iter().find(|member| Arc::ptr_eq(&member.endpoint, endpoint))?;
        Some(member.warm_at)
    }

    /// Views change more often than their open endpoints do.
    fn ring_for(&self, open: &[Member]) -> Arc<Ring> {
        let is_same = self.open.len() == open.len()
            && self.open.iter().zip(open).all(|(old, new)| Arc::ptr_eq(&old.endpoint, &new.endpoint));
        if is_same {
            return self.ring.clone();
        }
        let ids: Vec<_> = open.iter().map(|member| member.endpoint.id()).collect();
        Arc::new(Ring::new(ids.iter().map(Vec::as_slice)))
    }
}
