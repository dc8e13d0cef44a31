//! The endpoints of a revision at one moment; replaced as a whole with each view. Those that stay keep their counters.

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
    pub(super) ready: Vec<Member>,
    /// Listed, but not to get new requests.
    pub(super) unready: Vec<Arc<Endpoint>>,
    /// Of `ready`, by index.
    pub(super) ring: Arc<Ring>,
}

/// A ready endpoint.
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
            ready: Vec::new(),
            unready: Vec::new(),
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
        let (mut ready, mut unready) = (Vec::new(), Vec::new());
        for view in &revision.endpoints {
            let endpoint = known(view).unwrap_or_else(|| Arc::new(Endpoint::new(view)));
            let is_same = |member: &&Member| Arc::ptr_eq(&member.endpoint, &endpoint);
            if view.is_ready {
                let warm_at =
                    self.ready.iter().find(is_same).map_or(now + SLOW_START, |member| member.warm_at);
                ready.push(Member { endpoint, warm_at });
            } else {
                unready.push(endpoint);
            }
        }
        Self {
            strategy,
            slots: if revision.slots == 0 { DEFAULT_SLOTS } else { revision.slots },
            ring: self.ring_for(&ready),
            ready,
            unready,
        }
    }

    /// All that the view listed.
    pub(super) fn all(&self) -> impl Iterator<Item = &Arc<Endpoint>> {
        self.ready.iter().map(|member| &member.endpoint).chain(&self.unready)
    }

    /// Views change more often than their ready endpoints do.
    fn ring_for(&self, ready: &[Member]) -> Arc<Ring> {
        let is_same = self.ready.len() == ready.len()
            && self.ready.iter().zip(ready).all(|(old, new)| Arc::ptr_eq(&old.endpoint, &new.endpoint));
        if is_same {
            return self.ring.clone();
        }
        let ids: Vec<_> = ready.iter().map(|member| member.endpoint.id()).collect();
        Arc::new(Ring::new(ids.iter().map(Vec::as_slice)))
    }
}
