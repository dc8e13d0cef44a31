//! The requests that wait, as a pure structure: it decides who goes next, who is too late and who is not let in.
//! `now` is an argument; nothing here knows a clock, a task or the engine.
//!
//! Three levels of sharing, each by [`Fair`]: tiers by weight, counted in requests; inside a tier tenants equally,
//! counted in tokens (a prompt token is 1, a generated one 2); inside a tenant its original tiers by weight again, so
//! that a VIP request does not stand behind the same tenant's Low ones that age has lifted beside it. Inside such a
//! lane the order is that of arrival.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::{Duration, Instant};

use super::fair::Fair;
use super::tier::{self, TIERS, Tier};

/// Generated tokens weigh this many prompt tokens (the ratio of the virtual token counter's paper).
pub const OUTPUT_WEIGHT: u64 = 2;

/// Departures over which the drain time is measured.
const DEPARTURES: usize = 32;

/// The longest Retry-After: clients of the OpenAI SDKs ignore longer ones.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(120);

/// A request's place of arrival; earlier ones are smaller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id(u64);

/// What may wait at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Requests.
    pub requests: usize,
    /// Prompt tokens of all of them.
    pub prompt_tokens: u64,
    /// Bytes that all of them hold.
    pub bytes: u64,
    /// How long one may wait, however late its deadline is.
    pub age: Duration,
}

/// What the queue must know of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket {
    /// How urgent it was born.
    pub tier: Tier,
    /// Whose it is.
    pub tenant: u64,
    /// Tokens of its prompt.
    pub prompt_tokens: u64,
    /// Bytes it holds while it waits.
    pub bytes: u64,
    /// When it came.
    pub arrived: Instant,
    /// When waiting is no longer worth it.
    pub deadline: Instant,
}

/// Which limit a request met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FullLimit {
    /// [`Limits::requests`].
    Requests,
    /// [`Limits::prompt_tokens`].
    PromptTokens,
    /// [`Limits::bytes`].
    Bytes,
}

impl FullLimit {
    /// The name in messages and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::PromptTokens => "prompt_tokens",
            Self::Bytes => "bytes",
        }
    }
}

/// The request was not let in.
#[derive(Debug, PartialEq, Eq)]
pub struct Full {
    /// The limit that it met.
    pub which: FullLimit,
    /// When there will probably be room, by how fast the queue has been draining; without jitter.
    pub retry_after: Duration,
}

/// Why a request left without being served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expired {
    /// Its deadline passed.
    Deadline,
    /// It waited as long as anybody may.
    Age,
}

/// Figures for people and metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Snapshot {
    /// Requests by the tier that they count as now; order of [`TIERS`].
    pub by_tier: [usize; 4],
    /// Requests.
    pub requests: usize,
    /// Prompt tokens of all.
    pub prompt_tokens: u64,
    /// Bytes of all.
    pub bytes: u64,
    /// How long the oldest has waited.
    pub oldest: Duration,
    /// For how long nobody has waited, since the queue was made.
    pub empty: Duration,
}

/// A request that leaves to be served.
#[derive(Debug, PartialEq, Eq)]
pub struct Popped<T> {
    /// Which.
    pub id: Id,
    /// The tier that it counted as.
    pub tier: Tier,
    /// What was put in.
    pub ticket: Ticket,
    /// What was put in.
    pub item: T,
}

/// The waiting requests.
#[derive(Debug)]
pub struct Waiting<T> {
    limits: Limits,
    /// Canonical: everything else indexes these.
    entries: BTreeMap<Id, Entry<T>>,
    shares: Fair<Tier>,
    levels: [Level; 4],
    /// When an entry's effective tier changes next.
    changes: BTreeSet<(Instant, Id)>,
    /// When an entry has to leave.
    ends: BTreeSet<(Instant, Id)>,
    prompt_tokens: u64,
    bytes: u64,
    next_id: u64,
    pace: Pace,
    quiet: Quiet,
}

/// For how long nobody has waited.
#[derive(Debug, Default)]
struct Quiet {
    /// Since when nobody waits; `None` while somebody does, and before the first call that names the time.
    since: Option<Instant>,
    /// Before that.
    before: Duration,
}

/// How fast the queue drains while somebody waits. Idle time does not count.
#[derive(Debug, Default)]
struct Pace {
    /// When the queue last became busy, or an older departure; then the departures since.
    marks: VecDeque<Instant>,
    /// Time per departure, from the last busy time that was long enough to tell.
    before: Option<Duration>,
}

#[derive(Debug)]
struct Entry<T> {
    ticket: Ticket,
    item: T,
    /// The tier that it is filed under.
    tier: Tier,
    change_at: Option<Instant>,
    end_at: Instant,
}

/// Requests of one effective tier.
#[derive(Debug, Default)]
struct Level {
    tenants: Fair<u64>,
    waiting: HashMap<u64, Tenant>,
    count: usize,
}

/// Requests of one tenant in one effective tier.
#[derive(Debug, Default)]
struct Tenant {
    lanes: Fair<Tier>,
    ids: [BTreeSet<Id>; 4],
}

// === impl Waiting ===

impl<T> Waiting<T> {
    /// An empty queue.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            entries: BTreeMap::new(),
            shares: Fair::default(),
            levels: std::array::from_fn(|_| Level::default()),
            changes: BTreeSet::new(),
            ends: BTreeSet::new(),
            prompt_tokens: 0,
            bytes: 0,
            next_id: 0,
            pace: Pace::default(),
            quiet: Quiet::default(),
        }
    }

    /// The limits.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Lets a request in, or says which limit it met.
    pub fn push(&mut self, ticket: Ticket, item: T, now: Instant) -> Result<Id, Full> {
        if let Some(which) = self.limit_met_by(&ticket) {
            return Err(Full { which, retry_after: self.room_after(&ticket, which, now) });
        }
        let id = Id(self.next_id);
        self.next_id += 1;
        self.insert(id, ticket, item, now);
        Ok(id)
    }

    /// Takes a request back that had been popped and could not be served. It keeps its place of arrival, and no
    /// limit is asked: it had been let in.
    pub fn put_back(&mut self, id: Id, ticket: Ticket, item: T, now: Instant) {
        self.insert(id, ticket, item, now);
    }

    /// The request whose turn it is. Call [`Self::expire`] first: what is too late is not skipped here.
    pub fn pop(&mut self, now: Instant) -> Option<Popped<T>> {
        self.refile(now);
        let tier = self.shares.first()?;
        let level = &mut self.levels[tier.index()];
        let tenant = level.tenants.first()?;
        let lanes = level.waiting.get_mut(&tenant)?;
        let lane = lanes.lanes.first()?;
        let id = *lanes.ids[lane.index()].first()?;
        lanes.lanes.charge(lane, 1, lane.weight());
        let entry = self.remove(id)?;
        self.shares.charge(tier, 1, tier.weight());
        self.levels[tier.index()].tenants.charge(tenant, entry.ticket.prompt_tokens.max(1), 1);
        self.pace.departed(now);
        self.note_quiet(now);
        Some(Popped { id, tier, ticket: entry.ticket, item: entry.item })
    }

    /// Corrects a tenant's account when a request has ended: what it generated, less what a cache saved.
    pub fn settle(&mut self, tier: Tier, tenant: u64, output_tokens: u64, cached_tokens: u64) {
        let cost = (output_tokens * OUTPUT_WEIGHT).saturating_sub(cached_tokens);
        self.levels[tier.index()].tenants.charge(tenant, cost, 1);
    }

    /// Removes a request whose client has gone.
    pub fn cancel(&mut self, id: Id) -> Option<T> {
        self.remove(id).map(|entry| entry.item)
    }

    /// Removes the requests that are too late.
    pub fn expire(&mut self, now: Instant) -> Vec<(T, Expired)> {
        let mut expired = Vec::new();
        while let Some((end_at, id)) = self.ends.first().copied().filter(|(end_at, _)| *end_at <= now) {
            let Some(entry) = self.remove(id) else { break };
            let why = if entry.ticket.deadline <= end_at { Expired::Deadline } else { Expired::Age };
            expired.push((entry.item, why));
        }
        self.note_quiet(now);
        expired
    }

    /// When [`Self::expire`] has something to do next.
    pub fn next_end(&self) -> Option<Instant> {
        self.ends.first().map(|(end_at, _)| *end_at)
    }

    /// How many requests would go before this one if nobody else came and no weights were at work: those in more
    /// urgent tiers and the earlier ones of its own. An estimate for the client, not a promise.
    pub fn ahead_of(&self, id: Id) -> Option<usize> {
        let tier = self.entries.get(&id)?.tier;
        let urgent: usize = self.levels[..tier.index()].iter().map(|level| level.count).sum();
        let earlier = self.entries.range(..id).filter(|(_, entry)| entry.tier == tier).count();
        Some(urgent + earlier)
    }

    /// Figures at `now`.
    pub fn snapshot(&mut self, now: Instant) -> Snapshot {
        self.refile(now);
        self.note_quiet(now);
        let oldest = self.entries.values().map(|entry| entry.ticket.arrived).min();
        Snapshot {
            by_tier: std::array::from_fn(|index| self.levels[index].count),
            requests: self.entries.len(),
            prompt_tokens: self.prompt_tokens,
            bytes: self.bytes,
            oldest: oldest.map_or(Duration::ZERO, |arrived| now.saturating_duration_since(arrived)),
            empty: self.quiet.so_far(now),
        }
    }

    /// The last one has left. A client that leaves names no time; the next look does.
    fn note_quiet(&mut self, now: Instant) {
        if self.entries.is_empty() {
            self.quiet.begins(now);
        }
    }

    /// How long it takes until so many requests have left, by the recent pace; between 1 s and
    /// [`RETRY_AFTER_MAX`].
    pub fn drain_time(&self, requests: usize, now: Instant) -> Duration {
        let estimate =
            self.pace.per_departure(now).saturating_mul(u32::try_from(requests).unwrap_or(u32::MAX));
        estimate.clamp(Duration::from_secs(1), RETRY_AFTER_MAX)
    }

    fn limit_met_by(&self, ticket: &Ticket) -> Option<FullLimit> {
        if self.entries.len() >= self.limits.requests {
            Some(FullLimit::Requests)
        } else if self.prompt_tokens + ticket.prompt_tokens > self.limits.prompt_tokens {
            Some(FullLimit::PromptTokens)
        } else if self.bytes + ticket.bytes > self.limits.bytes {
            Some(FullLimit::Bytes)
        } else {
            None
        }
    }

    /// Room for one more comes with one departure; room for many tokens or bytes with as many of average size.
    fn room_after(&self, ticket: &Ticket, which: FullLimit, now: Instant) -> Duration {
        let count = self.entries.len().max(1) as u64;
        let needed = match which {
            FullLimit::Requests => 1,
            FullLimit::PromptTokens => ticket.prompt_tokens.div_ceil((self.prompt_tokens / count).max(1)),
            FullLimit::Bytes => ticket.bytes.div_ceil((self.bytes / count).max(1)),
        };
        // Everyone who is turned away now comes back for the same place, so half of the queue should have gone.
        let needed = needed.max(count / 2);
        self.drain_time(usize::try_from(needed).unwrap_or(usize::MAX), now)
    }

    fn insert(&mut self, id: Id, ticket: Ticket, item: T, now: Instant) {
        if self.entries.is_empty() {
            self.pace.became_busy(now);
            self.quiet.ends(now);
        }
        let tier = tier::effective(ticket.tier, ticket.arrived, ticket.deadline, now);
        let change_at = tier::next_change(ticket.tier, ticket.arrived, ticket.deadline, now);
        let end_at = ticket.deadline.min(ticket.arrived + self.limits.age);
        self.prompt_tokens += ticket.prompt_tokens;
        self.bytes += ticket.bytes;
        self.ends.insert((end_at, id));
        if let Some(change_at) = change_at {
            self.changes.insert((change_at, id));
        }
        self.file(id, &ticket, tier);
        self.entries.insert(id, Entry { ticket, item, tier, change_at, end_at });
    }

    fn remove(&mut self, id: Id) -> Option<Entry<T>> {
        let entry = self.entries.remove(&id)?;
        self.prompt_tokens -= entry.ticket.prompt_tokens;
        self.bytes -= entry.ticket.bytes;
        self.ends.remove(&(entry.end_at, id));
        if let Some(change_at) = entry.change_at {
            self.changes.remove(&(change_at, id));
        }
        self.unfile(id, &entry.ticket, entry.tier);
        Some(entry)
    }

    /// Moves what has become more urgent.
    fn refile(&mut self, now: Instant) {
        while let Some((change_at, id)) = self.changes.first().copied().filter(|(at, _)| *at <= now) {
            self.changes.remove(&(change_at, id));
            let Some(entry) = self.entries.get_mut(&id) else { continue };
            let ticket = entry.ticket;
            let before = entry.tier;
            entry.tier = tier::effective(ticket.tier, ticket.arrived, ticket.deadline, now);
            entry.change_at = tier::next_change(ticket.tier, ticket.arrived, ticket.deadline, now);
            let after = entry.tier;
            if let Some(change_at) = entry.change_at {
                self.changes.insert((change_at, id));
            }
            if before != after {
                self.unfile(id, &ticket, before);
                self.file(id, &ticket, after);
            }
        }
    }

    fn file(&mut self, id: Id, ticket: &Ticket, tier: Tier) {
        let level = &mut self.levels[tier.index()];
        let tenant = level.waiting.entry(ticket.tenant).or_default();
        tenant.ids[ticket.tier.index()].insert(id);
        tenant.lanes.join(ticket.tier);
        level.tenants.join(ticket.tenant);
        level.count += 1;
        self.shares.join(tier);
    }

    fn unfile(&mut self, id: Id, ticket: &Ticket, tier: Tier) {
        let level = &mut self.levels[tier.index()];
        let Some(tenant) = level.waiting.get_mut(&ticket.tenant) else { return };
        let lane = &mut tenant.ids[ticket.tier.index()];
        if lane.remove(&id) {
            level.count -= 1;
        }
        if lane.is_empty() {
            tenant.lanes.leave(ticket.tier);
        }
        if TIERS.into_iter().all(|lane| tenant.ids[lane.index()].is_empty()) {
            level.waiting.remove(&ticket.tenant);
            level.tenants.leave(ticket.tenant);
        }
        if level.count == 0 {
            self.shares.leave(tier);
        }
    }
}

// === impl Quiet ===

impl Quiet {
    fn begins(&mut self, now: Instant) {
        self.since.get_or_insert(now);
    }

    fn ends(&mut self, now: Instant) {
        self.before = self.so_far(now);
        self.since = None;
    }

    fn so_far(&self, now: Instant) -> Duration {
        let current = self.since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        self.before + current
    }
}

// === impl Pace ===

impl Pace {
    fn became_busy(&mut self, now: Instant) {
        if let (Some(last), true) = (self.marks.back().copied(), self.is_measured()) {
            self.before = Some(self.per_departure(last));
        }
        self.marks.clear();
        self.marks.push_back(now);
    }

    fn departed(&mut self, now: Instant) {
        if self.marks.len() > DEPARTURES {
            self.marks.pop_front();
        }
        self.marks.push_back(now);
    }

    /// Three departures at least: the first ones of a busy time leave at once, into idle slots.
    fn is_measured(&self) -> bool {
        self.marks.len() > 3
    }

    fn per_departure(&self, now: Instant) -> Duration {
        match self.marks.front() {
            Some(first) if self.is_measured() => {
                let departures = u32::try_from(self.marks.len() - 1).unwrap_or(u32::MAX);
                now.saturating_duration_since(*first) / departures
            }
            // Nothing measured yet: a second per request is what a small model on a CPU needs.
            _ => self.before.unwrap_or(Duration::from_secs(1)),
        }
    }
}

#[cfg(test)]
mod tests;
