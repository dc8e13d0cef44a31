//! What was seen. Sources (gateways and pods) report cumulative counters with a sequence number, so a report that is lost
//! costs resolution and not truth, and one that comes twice or late changes nothing.
//!
//! Bounded: 120 bins of a second, 360 bins of five, [`SOURCES`] sources, [`WANTED`] earlier answers, [`DOWNS`]
//! scale-downs.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use super::decision::{Decision, Limit};
use super::pace::PERIOD_SECONDS_MAX;
use super::policy::Current;
use super::ring::Ring;
use super::time::{Millis, seconds};
use super::work::{Amount, Tokens};

/// The longest history, seconds: long enough to have seen a burst twice (20 min apart), and 360 bins.
pub const SECONDS_MAX: u32 = 1_800;

/// A source that was silent for longer is unknown: three reports of 2 s were missed.
pub const FRESH_MS: u64 = 6_000;

/// A source that was silent for longer is gone: ten times [`FRESH_MS`].
const GONE_MS: u64 = 60_000;

/// Sources kept at most; the one that was silent longest leaves.
const SOURCES: usize = 512;

/// Earlier answers kept at most: 300 s of hold at one per second.
const WANTED: usize = 300;

/// Scale-downs kept at most; later ones are added to the last. One look each 4 s could make 450, but no fleet shrinks so
/// often.
const DOWNS: usize = 128;

/// The share of the difference that one look closes (one look each 4 s: two thirds after 44 s under a queue).
const CALIBRATION_GAIN: f64 = 0.1;

/// After a pod became ready the batches fill: work done per pod says nothing for this long.
const SETTLE_MS: u64 = 15_000;

/// One in millionths, the unit of [`History::calibration_millionths`].
const ONE: u32 = 1_000_000;

/// Cumulative counters of one source since it started. A source leaves at zero what it does not see.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Counters {
    /// What arrived, held requests included.
    pub arrived: Tokens,
    /// What was done: requests finished, prompt tokens computed, tokens generated.
    pub done: Tokens,
    /// Milliseconds in which nobody waited here.
    pub no_queue_ms: u64,
}

/// How things stand at one source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Levels {
    /// What waits here.
    pub queued: Tokens,
    /// Requests that are being served here.
    pub in_flight: u64,
    /// Tokens in key-value caches here.
    pub kv_tokens: u64,
}

/// One report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sample {
    /// Who reports; any number that stays the same.
    pub source: u64,
    /// When its counters were zero. A restarted source has another one.
    pub started_at: Millis,
    /// Grows with each report of one start.
    pub sequence: u64,
    /// When this was true.
    pub at: Millis,
    /// Since the start.
    pub counters: Counters,
    /// At that time.
    pub levels: Levels,
}

/// What a source remembers of the time before this controller knew it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recollection {
    /// How things are there now.
    pub sample: Sample,
    /// Arrivals in bins of ten seconds, the newest first; its newest bin ends with the sample.
    pub bins: Vec<Tokens>,
}

/// What was seen of one model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// From when on arrivals are known.
    since: Option<Millis>,
    sources: BTreeMap<u64, Seen>,
    /// Seconds, for the windows that see a step.
    fine: Ring,
    /// Five seconds, for everything older.
    coarse: Ring,
    /// When something last arrived or was in flight.
    last_busy: Option<Millis>,
    /// What was wanted at earlier looks, stale ones left out.
    wanted: VecDeque<(Millis, u32)>,
    last_down: Option<Millis>,
    /// When how many pods were taken away, as far back as rules on that may look.
    #[serde(default)]
    downs: VecDeque<(Millis, u32)>,
    /// How much of its model a pod really does.
    calibration_millionths: u32,
    done: Tokens,
    /// When the calibration last looked, and what had been done by then.
    mark: Option<(Millis, Tokens)>,
}

/// The last report of a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Seen {
    sample: Sample,
    /// Since when somebody has always been waiting here.
    queued_since: Option<Millis>,
}

impl Default for History {
    fn default() -> Self {
        Self {
            since: None,
            sources: BTreeMap::new(),
            fine: Ring::new(1_000, 121),
            coarse: Ring::new(5_000, SECONDS_MAX as usize / 5 + 1),
            last_busy: None,
            wanted: VecDeque::new(),
            last_down: None,
            downs: VecDeque::new(),
            calibration_millionths: ONE,
            done: Tokens::default(),
            mark: None,
        }
    }
}

impl History {
    /// Takes in one report. Old, repeated and impossible ones change nothing.
    pub fn observe(&mut self, sample: Sample) {
        let since = *self.since.get_or_insert(sample.at);
        let seen = self.sources.get(&sample.source).copied();
        if seen.is_some_and(|seen| !is_news(&seen.sample, &sample)) {
            return;
        }
        let same_start = seen.filter(|seen| seen.sample.started_at == sample.started_at);
        let base = match (same_start, seen) {
            (Some(seen), _) => Some((seen.sample.counters, seen.sample.at)),
            // It started under our eyes: all that it counted is new.
            (None, _) if sample.started_at >= since => Some((Counters::default(), sample.started_at)),
            // Its counters began before we looked: what they grew by is unknown, not zero, and so is no demand.
            (None, _) => None,
        };
        if let Some((counters, from)) = base {
            self.count(&sample, counters, from);
        }
        let still_queued = same_start.and_then(|seen| {
            seen.queued_since.filter(|_| seen.sample.counters.no_queue_ms == sample.counters.no_queue_ms)
        });
        let queued_since = (!sample.levels.queued.is_empty()).then(|| still_queued.unwrap_or(sample.at));
        if sample.levels.in_flight > 0 || queued_since.is_some() {
            self.last_busy = self.last_busy.max(Some(sample.at));
        }
        self.sources.insert(sample.source, Seen { sample, queued_since });
        self.forget_sources();
    }

    /// Takes in what a source remembers, once, when it connects. Sources that are known already only report.
    pub fn recall(&mut self, recollection: &Recollection) {
        let sample = recollection.sample;
        if self.sources.contains_key(&sample.source) {
            self.observe(sample);
            return;
        }
        self.observe(sample);
        let bins = recollection.bins.iter().take(SECONDS_MAX as usize / 10);
        let start = sample.at - 10_000 * bins.len() as u64;
        for ring in [&mut self.fine, &mut self.coarse] {
            ring.spread(Tokens::default(), sample.at, sample.at);
            ring.reach_back(start);
            for (age, tokens) in (0_u64..).zip(bins.clone()) {
                let end = sample.at - 10_000 * age;
                ring.spread(*tokens, end - 10_000, end);
            }
        }
        self.since = self.since.min(Some(start));
    }

    fn count(&mut self, sample: &Sample, before: Counters, from: Millis) {
        let arrived = sample.counters.arrived - before.arrived;
        self.done += sample.counters.done - before.done;
        self.fine.spread(arrived, from, sample.at);
        self.coarse.spread(arrived, from, sample.at);
        if !arrived.is_empty() {
            self.last_busy = self.last_busy.max(Some(sample.at));
        }
    }

    fn forget_sources(&mut self) {
        let newest = self.newest();
        self.sources.retain(|_, seen| newest.since(seen.sample.at) <= GONE_MS);
        while self.sources.len() > SOURCES {
            let oldest =
                self.sources.iter().min_by_key(|(_, seen)| seen.sample.at).map(|(source, _)| *source);
            oldest.and_then(|source| self.sources.remove(&source));
        }
    }

    /// Learns how much of its model a pod really does, from the time since the last call: only if somebody waited the
    /// whole time and the same pods served. Call it once before each [`super::decide`].
    pub fn calibrate(&mut self, current: &Current) {
        let until = self.until();
        let before = self.mark.replace((until, self.done));
        let Some((from, done)) = before else { return };
        let elapsed_ms = until.since(from);
        let waited = self.sources.values().any(|seen| seen.queued_since.is_some_and(|since| since <= from));
        let settled = current.last_ready_at.is_none_or(|at| until.since(at) >= SETTLE_MS);
        if elapsed_ms == 0 || !waited || !settled || current.ready == 0 {
            return;
        }
        let work = current.pod.work((self.done - done).amount());
        let found = work / (f64::from(current.ready) * seconds(elapsed_ms));
        let next = self.calibration() + CALIBRATION_GAIN * (found - self.calibration());
        // A pod that does less than a fifth or more than five times of its model has a wrong model.
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "clamped to 200 000…5 000 000"
        )]
        let millionths = (next.clamp(0.2, 5.0) * f64::from(ONE)).floor() as u32;
        self.calibration_millionths = millionths;
    }

    /// Remembers a decision that was carried out: what was wanted, and whether pods were taken away.
    pub fn settle(&mut self, decision: &Decision) {
        if !decision.limits.contains(&Limit::Stale) {
            self.wanted.push_back((decision.at, decision.wanted));
        }
        if decision.desired < decision.current {
            self.last_down = Some(decision.at);
            self.remember_down(decision.at, decision.current - decision.desired);
        }
        let hold_ms = 1_000 * u64::from(decision.inputs.policy.hold_seconds);
        while self.wanted.len() > WANTED
            || self.wanted.front().is_some_and(|(at, _)| decision.at.since(*at) > hold_ms)
        {
            self.wanted.pop_front();
        }
    }

    fn remember_down(&mut self, at: Millis, pods: u32) {
        let period_ms = 1_000 * u64::from(PERIOD_SECONDS_MAX);
        while self.downs.front().is_some_and(|(first, _)| at.since(*first) >= period_ms) {
            self.downs.pop_front();
        }
        let more = if self.downs.len() < DOWNS { None } else { self.downs.pop_back() };
        self.downs.push_back((at, pods.saturating_add(more.map_or(0, |(_, pods)| pods))));
    }

    /// How many pods were taken away in the last `period_ms`, and when the first of them.
    pub(super) fn gone(&self, now: Millis, period_ms: u64) -> (u32, Option<Millis>) {
        let mut recent = self.downs.iter().filter(|(at, _)| now.since(*at) < period_ms).peekable();
        let first = recent.peek().map(|(at, _)| *at);
        (recent.fold(0, |sum, (_, pods)| sum.saturating_add(*pods)), first)
    }

    /// The most that was wanted in the last `hold_ms`.
    pub(super) fn wanted_max(&self, now: Millis, hold_ms: u64) -> u32 {
        let recent = self.wanted.iter().filter(|(at, _)| now.since(*at) <= hold_ms);
        recent.map(|(_, wanted)| *wanted).max().unwrap_or(0)
    }

    /// When the last look that wanted at least `replicas` leaves the hold, if one is in it.
    pub(super) fn wanted_until(&self, replicas: u32, now: Millis, hold_ms: u64) -> Option<Millis> {
        let mut recent = self.wanted.iter().rev().take_while(|(at, _)| now.since(*at) <= hold_ms);
        recent.find(|(_, wanted)| *wanted >= replicas).map(|(at, _)| *at + hold_ms + 1)
    }

    /// When the first look of the last `hold_ms` was.
    pub(super) fn watched_since(&self, now: Millis, hold_ms: u64) -> Option<Millis> {
        self.wanted.iter().map(|(at, _)| *at).find(|at| now.since(*at) <= hold_ms)
    }

    pub(super) fn last_down(&self) -> Option<Millis> {
        self.last_down
    }

    pub(super) fn last_busy(&self) -> Option<Millis> {
        self.last_busy
    }

    fn newest(&self) -> Millis {
        self.sources.values().map(|seen| seen.sample.at).max().unwrap_or_default()
    }

    /// The end of the known time: the oldest last report among sources that are not silent beside the newest.
    pub(super) fn until(&self) -> Millis {
        let newest = self.newest();
        let fresh =
            self.sources.values().map(|seen| seen.sample.at).filter(|at| newest.since(*at) <= FRESH_MS);
        fresh.min().unwrap_or_default()
    }

    /// Whether some source has been silent for more than [`FRESH_MS`], or nobody has reported yet.
    pub(super) fn is_stale(&self, now: Millis) -> bool {
        self.sources.is_empty() || self.sources.values().any(|seen| now.since(seen.sample.at) > FRESH_MS)
    }

    pub(super) fn since(&self) -> Millis {
        self.since.unwrap_or_default()
    }

    /// What a pod really does of its model, 1 if exactly.
    pub(super) fn calibration(&self) -> f64 {
        f64::from(self.calibration_millionths) / f64::from(ONE)
    }

    /// How things stand, all sources together; a silent one stands as it did.
    pub fn levels(&self) -> Levels {
        self.sources.values().fold(Levels::default(), |sum, seen| {
            let levels = seen.sample.levels;
            Levels {
                queued: sum.queued + levels.queued,
                in_flight: sum.in_flight.saturating_add(levels.in_flight),
                kv_tokens: sum.kv_tokens.saturating_add(levels.kv_tokens),
            }
        })
    }

    /// What arrived from `from` to `to`, milliseconds before the end of the known time.
    pub(super) fn arrived(&self, from_ago_ms: u64, to_ago_ms: u64) -> Amount {
        let (until, since) = (self.until(), self.since());
        // Seconds reach back two minutes.
        let ring = if from_ago_ms <= 120_000 { &self.fine } else { &self.coarse };
        ring.sum((until - from_ago_ms).max(since), until - to_ago_ms, since, until)
    }

    /// The next report of each source, of nothing new.
    #[cfg(test)]
    pub(super) fn quiet_reports(&self, at: Millis) -> Vec<Sample> {
        let next = |seen: &Seen| Sample {
            sequence: seen.sample.sequence + 1,
            at,
            levels: Levels::default(),
            ..seen.sample
        };
        self.sources.values().map(next).collect()
    }

    /// How much time is known, milliseconds.
    pub(super) fn known_ms(&self) -> u64 {
        self.until().since(self.since()).min(u64::from(SECONDS_MAX) * 1_000)
    }
}

/// Whether `sample` is later than `last` of the same source: of a later start, or further in the same one.
fn is_news(last: &Sample, sample: &Sample) -> bool {
    (sample.started_at, sample.sequence) > (last.started_at, last.sequence) && sample.at >= last.at
}
