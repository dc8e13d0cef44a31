//! The choice among the endpoints of a revision, for one request.
//!
//! # Why these rules
//!
//! What a choice can save is prefill: a conversation's earlier turns are in the cache of the pod that had them. So its
//! requests go to its *home* on a ring of hashes, which every gateway computes alike, without any memory to share or
//! lose. A home that is overloaded is passed over (consistent hashing with bounded loads): what counts is the work in
//! flight, in tokens, and the bound is 1.25 times the mean. A pod with a free slot is never overloaded: with a handful of
//! requests around, the mean says little, and prefilling a conversation elsewhere costs more than decoding beside others.
//!
//! # Two depths
//!
//! The *deep* key is the conversation's beginning, the *shallow* one the beginning of its system prompt. Deep keys spread
//! conversations evenly, but each pod must prefill a long system prompt that only a few conversations have. Shallow keys
//! keep these together, but a prompt that everybody has would fill one pod to the bound, and who overflows would change
//! with every request. Which wins is therefore decided by the shallow key's part of the traffic: above an eighth of a pod's
//! fair share it is popular, soon in every cache, and the deep key alone decides; below, its home comes first and the deep
//! key's second. Gateways see samples of the same traffic and agree, but for keys close to the mark.
//!
//! Whoever finds no home below the bound walks on from it, so that the same second choice is found next time; who has no
//! key (or cannot walk) gets the better of two random pods by the time that their work will take.

use std::cell::OnceCell;
use std::net::SocketAddr;
use std::time::Instant;

use super::breaker::Passage;
use super::members::Members;

/// The load that an endpoint may have, as a multiple of the mean: at 1 keys move all the time, at 2 half of the pods may
/// stand idle; 1.25 costs little of either.
const BOUND: f64 = 1.25;

/// Points of the ring that are looked at. At least a fifth of equal endpoints is below the bound at any time, so that
/// fifty points miss all of them once in 70,000 times, and chance decides then.
const WALK_MAX: usize = 50;

/// One choice.
pub(super) struct Choice<'a> {
    members: &'a Members,
    avoid: &'a [SocketAddr],
    now: Instant,
    /// Tokens of the request.
    work: f64,
    heeds_breakers: bool,
    /// Made when the first home without a free slot is met: most requests need it not.
    sums: OnceCell<Sums>,
}

/// Of all candidates.
#[derive(Clone, Copy)]
struct Sums {
    /// Tokens in flight.
    tokens: f64,
    weights: f64,
}

impl<'a> Choice<'a> {
    /// Among the members but those to avoid, and those whose breakers bar requests if that is heeded.
    pub(super) fn new(
        members: &'a Members,
        avoid: &'a [SocketAddr],
        work: u64,
        now: Instant,
        heeds_breakers: bool,
    ) -> Self {
        Self { members, avoid, now, work: work as f64, heeds_breakers, sums: OnceCell::new() }
    }

    /// The first candidate from a place in the list on.
    pub(super) fn next_from(&self, start: usize) -> Option<usize> {
        let count = self.members.open.len();
        (start..start + count).map(|index| index % count).find(|index| self.is_candidate(*index))
    }

    /// The key's home, however loaded.
    pub(super) fn home(&self, key: u64) -> Option<usize> {
        self.members.ring.walk(key).find(|index| self.is_candidate(*index))
    }

    /// The key's home, unless it is overloaded.
    pub(super) fn free_home(&self, key: u64) -> Option<usize> {
        self.home(key).filter(|index| !self.is_overloaded(*index))
    }

    /// The first endpoint from the key's home on that is not overloaded.
    pub(super) fn nearest(&self, key: u64) -> Option<usize> {
        let mut walk = self.members.ring.walk(key).take(WALK_MAX);
        walk.find(|index| self.is_candidate(*index) && !self.is_overloaded(*index))
    }

    /// The one of two random candidates that is done earlier.
    pub(super) fn better_of_two(&self, random: u64) -> Option<usize> {
        let count = self.members.open.len();
        // 32 random bits, spread evenly over so many numbers.
        let pick = |bits: u64, among: usize| ((bits & 0xFFFF_FFFF) * among as u64) >> 32;
        let pick = |bits: u64, among: usize| usize::try_from(pick(bits, among)).expect("below an usize");
        let one = self.next_from(pick(random, count))?;
        let offset = pick(random >> 32, count.saturating_sub(1));
        let other = self.next_from((one + 1 + offset) % count)?;
        Some(if self.is_done_earlier(other, one) { other } else { one })
    }

    fn sums(&self) -> Sums {
        *self.sums.get_or_init(|| {
            let mut sums = Sums { tokens: 0.0, weights: 0.0 };
            for index in (0..self.members.open.len()).filter(|index| self.is_candidate(*index)) {
                sums.tokens += self.members.open[index].endpoint.tokens() as f64;
                sums.weights += self.weight(index);
            }
            sums
        })
    }

    fn is_candidate(&self, index: usize) -> bool {
        let endpoint = &self.members.open[index].endpoint;
        let is_barred = || self.heeds_breakers && endpoint.passage(self.now) == Passage::Barred;
        !self.avoid.contains(&endpoint.address) && !is_barred()
    }

    fn weight(&self, index: usize) -> f64 {
        self.members.open[index].weight(self.now)
    }

    fn is_overloaded(&self, index: usize) -> bool {
        let endpoint = &self.members.open[index].endpoint;
        let weight = self.weight(index);
        if (endpoint.requests() as f64) < (f64::from(self.members.slots) * weight).max(1.0) {
            return false;
        }
        let sums = self.sums();
        let bound = BOUND * (sums.tokens + self.work) * weight / sums.weights;
        endpoint.tokens() as f64 + self.work > bound
    }

    /// Compares (work in flight and this request) ÷ (measured rate × weight); rates only where both have one.
    fn is_done_earlier(&self, one: usize, other: usize) -> bool {
        let endpoint = |index: usize| &self.members.open[index].endpoint;
        let rates = endpoint(one).rate().zip(endpoint(other).rate()).unwrap_or((1.0, 1.0));
        let time = |index: usize, rate: f64| {
            (endpoint(index).tokens() as f64 + self.work) / (rate * self.weight(index))
        };
        time(one, rates.0) < time(other, rates.1)
    }
}
