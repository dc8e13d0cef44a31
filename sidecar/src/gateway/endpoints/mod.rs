//! Which pod of a revision gets a request.
//!
//! [`Fleet`] is the revision's endpoints; [`Fleet::choose`] gives a [`Lease`], the right to send one request to one of
//! them. How the choice is made and why: `choice`; its parts: [`ring`] (homes of keys), [`popularity`] (which key),
//! [`breaker`] (who has failed), [`slow_start`] (who is new); the counters: `endpoint`; the list of the moment: `members`.
//! Nothing here knows HTTP; `now` and chance are arguments.
//!
//! To readers who know llm-d or Envoy's endpoint pickers: there is no scraping of the pods. A gateway counts the work it
//! has given and measures how fast it comes back, which is never old, needs no other component, and is enough: pods
//! queue by themselves, and the retry takes what a wrong guess leaves.

mod choice;
mod endpoint;
mod members;

pub mod breaker;
pub mod popularity;
pub mod ring;
pub mod slow_start;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, RwLock, Weak};
use std::time::Instant;

pub use self::endpoint::Lease;

use self::breaker::Passage;
use self::choice::Choice;
use self::endpoint::Endpoint;
use self::members::Members;
use self::popularity::Popularity;
use super::ask::Ask;
use super::view::{RevisionView, Strategy};

/// The endpoints of one revision. All methods take `&self`; choosing never waits for an update.
#[derive(Debug)]
pub struct Fleet {
    /// Read for the time of one clone.
    members: RwLock<Arc<Members>>,
    /// Endpoints that have left with requests in flight. Held through an update, so that updates come one by one.
    gone: Mutex<Vec<Weak<Endpoint>>>,
    popularity: Popularity,
    /// For `RoundRobin`.
    next: AtomicUsize,
}

/// What is known of an endpoint, for metrics and people.
#[derive(Debug, Clone, PartialEq)]
pub struct EndpointState {
    /// Where it listens.
    pub address: SocketAddr,
    /// Its pod.
    pub pod: String,
    /// Whether it gets new requests by the view.
    pub is_ready: bool,
    /// Requests in flight.
    pub requests: u64,
    /// Tokens of work in flight.
    pub tokens: u64,
    /// Measured tokens per second; `None` before the first answer.
    pub rate: Option<f64>,
    /// What its breaker lets through.
    pub passage: Passage,
}

impl Default for Fleet {
    fn default() -> Self {
        Self::new()
    }
}

impl Fleet {
    /// A fleet without endpoints.
    pub fn new() -> Self {
        Self {
            members: RwLock::new(Arc::new(Members::none())),
            gone: Mutex::default(),
            popularity: Popularity::default(),
            next: AtomicUsize::new(0),
        }
    }

    /// Takes the revision as it is now. Endpoints that stay (the same pod on the same address) keep their load, rate
    /// and breaker; those that are not ready or no longer listed get nothing new, and their leases finish.
    pub fn update(&self, strategy: Strategy, revision: &RevisionView, now: Instant) {
        let mut gone = self.gone.lock().expect("no update panics");
        let old = self.members();
        let new = Arc::new(old.by_view(strategy, revision, &gone, now));
        old.all().for_each(|endpoint| endpoint.is_ready.store(false, Ordering::Relaxed));
        new.ready().iter().for_each(|member| member.endpoint.is_ready.store(true, Ordering::Relaxed));
        *self.members.write().expect("no update panics") = new.clone();
        gone.extend(old.all().map(Arc::downgrade));
        drop(old);
        let is_listed = |endpoint: &Arc<Endpoint>| new.all().any(|other| Arc::ptr_eq(endpoint, other));
        gone.retain(|endpoint| endpoint.upgrade().is_some_and(|endpoint| !is_listed(&endpoint)));
    }

    /// An endpoint for the request, none of `avoid`, with the request's work already counted; `None` when none is left
    /// that is ready or worth a try. `random` is 64 random bits.
    pub fn choose(&self, ask: &Ask, avoid: &[SocketAddr], now: Instant, random: u64) -> Option<Lease> {
        let members = self.members();
        // With every breaker open none counts: a pod that has failed is a better bet than no pod, if it is ready.
        let heeding: &[bool] = if members.is_doubtful { &[true] } else { &[true, false] };
        let index = heeding.iter().find_map(|&heeds_breakers| {
            let choice = Choice::new(&members, avoid, ask.work(), now, heeds_breakers);
            self.by_strategy(&choice, &members, ask).or_else(|| choice.better_of_two(random))
        })?;
        Some(members.open[index].endpoint.clone().lease(ask.work(), now))
    }

    /// Whether no endpoint takes new requests.
    pub fn is_empty_of_ready(&self) -> bool {
        self.members().ready().is_empty()
    }

    /// Requests that the ready endpoints work on at once: what to wake the hold room with.
    pub fn places(&self) -> usize {
        let members = self.members();
        members.ready().len().saturating_mul(usize::try_from(members.slots).unwrap_or(usize::MAX))
    }

    /// Each listed endpoint as it is.
    pub fn states(&self, now: Instant) -> Vec<EndpointState> {
        let state = |endpoint: &Arc<Endpoint>| EndpointState {
            address: endpoint.address,
            pod: endpoint.pod.clone(),
            is_ready: endpoint.is_ready.load(Ordering::Relaxed),
            requests: endpoint.requests(),
            tokens: endpoint.tokens(),
            rate: endpoint.rate(),
            passage: endpoint.passage(now),
        };
        self.members().all().map(state).collect()
    }

    /// `None`: no key, no place below the bound, or no candidates.
    fn by_strategy(&self, choice: &Choice<'_>, members: &Members, ask: &Ask) -> Option<usize> {
        match members.strategy {
            Strategy::PrefixAware => self.by_prefix(choice, ask, members.open.len()),
            Strategy::SessionAffinity => client_key(ask).and_then(|key| choice.home(key)),
            Strategy::RoundRobin => {
                let turn = self.next.fetch_add(1, Ordering::Relaxed);
                choice.next_from(turn.checked_rem(members.open.len())?)
            }
            Strategy::LeastLoad => None,
        }
    }

    /// The session's home, else the popular or the rare prompt's; `None` without keys, or with everything overloaded.
    fn by_prefix(&self, choice: &Choice<'_>, ask: &Ask, endpoints: usize) -> Option<usize> {
        if let Some(session) = ask.session_key() {
            return choice.nearest(session);
        }
        let (deep, shallow) = (ask.deep?, ask.shallow?);
        let is_popular = self.popularity.note(shallow, endpoints);
        let rare_home = if is_popular { None } else { choice.free_home(shallow) };
        rare_home.or_else(|| choice.nearest(deep))
    }

    fn members(&self) -> Arc<Members> {
        self.members.read().expect("no update panics").clone()
    }
}

/// Who asks, by the most particular of his names.
fn client_key(ask: &Ask) -> Option<u64> {
    let user = || ask.user.as_ref().map(|user| super::ask::hash(user.as_bytes()));
    ask.session_key().or_else(user).or(ask.api_key)
}

#[cfg(test)]
mod tests;
