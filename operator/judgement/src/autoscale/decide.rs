//! The decision: price every count between the bounds, take the cheapest, and let nothing be taken away in a hurry.

use super::decision::{Decision, Figures, Inputs, Limit, Price, Winner};
use super::demand::Demand;
use super::future::{Futures, Late};
use super::history::History;
use super::hold::{Reasons, against_fewer};
use super::pace;
use super::policy::{Current, Policy};
use super::sentence;
use super::time::Millis;

/// After a start this long more is kept than so short a history can justify: a third of the half hour that is replayed.
const COLD_START_MS: u64 = 600_000;

/// Load of a pod that still serves in time, for needs that were seen and not guessed.
const FULL: f64 = 0.95;
/// The part of a pod by which a need may exceed whole pods without asking for another: rounding to the nearest would
/// be 0.5, never missing anything 0.
const ROUND: f64 = 0.15;

/// Share of key-value cache that may be planned with; the rest is fragments and growth.
const KV_USABLE: f64 = 0.9;

/// A queue of more seconds than this on every ready pod is a backlog.
const BACKLOG_S: f64 = 1.5;

/// To zero only after this many load times without work: what a cold start costs the next user, thrice.
const IDLE_LOADS: u64 = 3;

/// A pod that is taken away and missed must be loaded again, which costs its load time and a fifth for the time in which
/// it is not yet missed; at least what a hold of 90 s costs. With the load time alone a pod that loads in 30 s comes and
/// goes for every ripple (10.5 changes of direction per hour instead of 8.5, and 0.3 points less in time); twice the load
/// time keeps 13 % more pods at 90 s.
const AGAIN_LOADS: f64 = 1.2;
const AGAIN_S_MIN: f64 = 90.0;

/// Counts that are priced one by one; a wider range is looked through in equal steps first.
const PRICES: u32 = 64;

/// How many replicas there shall be, and why.
///
/// `now` is on the same clock as the samples. Pure: call [`History::calibrate`] before and [`History::settle`] after.
pub fn decide(policy: &Policy, history: &History, current: &Current, now: Millis) -> Decision {
    let look = Look::new(policy, history, current, now);
    let bounds = look.bounds();
    let prices = look.prices(&bounds);
    let choice = look.choose(&bounds, &prices);
    let held = look.hold(&bounds, choice);
    let figures = look.figures(prices, held.desired);
    let inputs = Inputs { policy: *policy, history: history.clone(), current: current.clone() };
    let mut decision = Decision {
        at: now,
        current: look.replicas,
        desired: held.desired,
        wanted: held.wanted,
        winner: held.winner,
        limits: held.limits,
        no_scale_down_before: held.no_scale_down_before,
        figures,
        sentence: String::new(),
        inputs,
    };
    decision.sentence = sentence::of(&decision);
    decision
}

/// Decides again from what a decision has stored. The answer is equal to it, bit for bit.
pub fn replay(decision: &Decision) -> Decision {
    let inputs = &decision.inputs;
    decide(&inputs.policy, &inputs.history, &inputs.current, decision.at)
}

/// What pod-seconds of lateness a pod must save to be worth one look ahead.
fn price_of_a_pod(policy: &Policy, horizon_s: f64) -> f64 {
    f64::from(policy.late_price_percent) / 100.0 * horizon_s
}

struct Look<'a> {
    policy: &'a Policy,
    history: &'a History,
    current: &'a Current,
    now: Millis,
    replicas: u32,
    queue: f64,
    demand: Demand,
    futures: Futures,
}

/// Between which counts is searched.
struct Bounds {
    low: u32,
    high: u32,
    /// The hard ones.
    min: u32,
    max: u32,
    is_idle: bool,
}

/// A choice before anything holds it back.
struct Choice {
    wanted: u32,
    winner: Winner,
    limits: Vec<Limit>,
}

struct Held {
    desired: u32,
    wanted: u32,
    winner: Winner,
    limits: Vec<Limit>,
    no_scale_down_before: Option<Millis>,
}

impl<'a> Look<'a> {
    fn new(policy: &'a Policy, history: &'a History, current: &'a Current, now: Millis) -> Self {
        let demand = Demand::measure(policy, history, current);
        let queue = current.pod.work(history.levels().queued.amount()) / history.calibration();
        let futures = Futures::gather(policy, &demand, current, now, queue);
        Self { policy, history, current, now, replicas: current.replicas(), queue, demand, futures }
    }

    fn utilization(&self) -> f64 {
        f64::from(self.policy.target_utilization_percent.clamp(1, 100)) / 100.0
    }

    fn bounds(&self) -> Bounds {
        let is_idle = self.is_idle();
        let max = self.policy.max().min(self.policy.capacity_replicas.unwrap_or(u32::MAX));
        // Whoever comes finds at least one pod, unless nobody has come for long.
        let min = self.policy.min().max(u32::from(!is_idle)).min(max);
        let low = min.max(self.replicas - self.policy.scale_down.step(self.replicas));
        let high = self.ceiling().max(self.replicas).max(min).min(max);
        Bounds { low: low.min(high), high, min, max, is_idle }
    }

    /// The most that the arrivals have proven a need for.
    fn ceiling(&self) -> u32 {
        let surge = if self.current.ready == 0 {
            self.policy.surge_from_zero_percent
        } else {
            self.policy.surge_percent
        };
        if surge == 0 {
            return u32::MAX;
        }
        let growth = self.demand.slope * self.futures.trend_s();
        let proven = f64::from(surge) / 100.0 * (self.demand.low + growth) / self.utilization();
        whole(proven).max(self.need(self.demand.fast))
    }

    /// Pods for a demand as it is, or as its highest 3 % were.
    fn need(&self, demand: f64) -> u32 {
        pods_for(demand.max(self.demand.high))
    }

    /// Pods that so short a history justifies to have: for the present demand, and of those that are there what its highest
    /// 3 % needed. These order nothing: as quiet minutes leave the history, they rise without anybody asking for more.
    fn cold_need(&self) -> u32 {
        let present = FULL * self.demand.fast / self.utilization();
        pods_for(present).max(self.need(present).min(self.replicas))
    }

    fn is_idle(&self) -> bool {
        let levels = self.history.levels();
        if self.policy.min() > 0 || !levels.queued.is_empty() || levels.in_flight > 0 {
            return false;
        }
        if self.replicas == 0 {
            return self.demand.fast <= 0.0;
        }
        let idle_ms = (1_000 * u64::from(self.policy.idle_seconds)).max(IDLE_LOADS * self.current.load_ms);
        let since = self.history.last_busy().unwrap_or(self.current.started_at).max(self.current.started_at);
        self.now.since(since) >= idle_ms
    }

    /// What a pod that is taken away costs, in seconds of a pod; always less than the horizon.
    fn again_s(&self) -> f64 {
        AGAIN_S_MIN.max(AGAIN_LOADS * self.futures.load_s)
    }

    fn price(&self, replicas: u32) -> Price {
        let late = self.futures.late(replicas).mean;
        let rate = f64::from(self.policy.late_price_percent) / 100.0;
        let again = f64::from(self.replicas.saturating_sub(replicas)) * self.again_s();
        let pods = rate * (f64::from(replicas) * self.futures.horizon_s + again);
        Price { replicas, late, total: late + pods }
    }

    /// The price of each count in the range; of a very wide one, of some and of all around the best of those.
    fn prices(&self, bounds: &Bounds) -> Vec<Price> {
        let step = (bounds.high - bounds.low) / PRICES + 1;
        let mut counts: Vec<u32> = (bounds.low..=bounds.high).step_by(step as usize).collect();
        if step > 1 {
            let coarse: Vec<Price> = counts.iter().map(|count| self.price(*count)).collect();
            let near = cheapest(&coarse);
            counts.extend(near.saturating_sub(step).max(bounds.low)..=(near + step).min(bounds.high));
            counts.sort_unstable();
            counts.dedup();
        }
        let mut prices: Vec<Price> = Vec::new();
        for count in counts {
            let price = self.price(count);
            let is_last = prices.last().is_some_and(|before| self.is_enough(before));
            prices.push(price);
            if is_last {
                // One more is shown, to say what it would have saved.
                break;
            }
        }
        prices
    }

    /// Whether so little is late that not even all of it would pay for one more pod.
    fn is_enough(&self, price: &Price) -> bool {
        price.late <= price_of_a_pod(self.policy, self.futures.horizon_s - self.again_s())
    }

    /// The cheapest count, unless a floor is above it.
    fn choose(&self, bounds: &Bounds, prices: &[Price]) -> Choice {
        if bounds.is_idle {
            return Choice { wanted: 0, winner: Winner::Idle, limits: Vec::new() };
        }
        let best = cheapest(prices);
        let mut choice = Choice { wanted: best, winner: self.margin(bounds, best), limits: Vec::new() };
        if best == bounds.high && self.price(best + 1).total < prices.last().map_or(0.0, |price| price.total)
        {
            self.meet_ceiling(bounds, &mut choice);
        }
        if self.age_ms() < COLD_START_MS {
            choice.raise(self.cold_need().min(bounds.high), Winner::ColdStart, Limit::ColdStart);
        }
        choice.raise(self.cache_need().min(bounds.max), Winner::KvCache, Limit::KvCache);
        choice
    }

    /// Why the last of `best` pods is there.
    fn margin(&self, bounds: &Bounds, best: u32) -> Winner {
        if best <= bounds.low {
            let is_minimum = best == bounds.min;
            return match self.policy.schedule.and_then(|schedule| schedule.min_replicas) {
                Some(_) if is_minimum => Winner::Schedule,
                None if is_minimum => Winner::MinReplicas,
                _ => Winner::Price,
            };
        }
        let (without, with): (Late, Late) = (self.futures.late(best - 1), self.futures.late(best));
        let present = without.present - with.present;
        if without.mean - with.mean - present > present {
            Winner::History
        } else if self.queue > BACKLOG_S * f64::from(self.current.ready) {
            Winner::Backlog
        } else if self.demand.slope > 0.0 {
            Winner::Trend
        } else {
            Winner::Level
        }
    }

    /// One more would pay: which bound is it that forbids it?
    fn meet_ceiling(&self, bounds: &Bounds, choice: &mut Choice) {
        let (winner, limit) = if bounds.high < bounds.max {
            (Winner::SurgeLimit, Limit::Surge)
        } else if bounds.max < self.policy.max() {
            (Winner::Capacity, Limit::Capacity)
        } else if self.policy.schedule.is_some_and(|schedule| schedule.max_replicas.is_some()) {
            choice.limits.push(Limit::Schedule);
            (Winner::Schedule, Limit::MaxReplicas)
        } else {
            (Winner::MaxReplicas, Limit::MaxReplicas)
        };
        choice.limits.push(limit);
        choice.winner = winner;
    }

    /// Pods whose caches hold what is there and what waits.
    fn cache_need(&self) -> u32 {
        let Some(per_pod) = self.current.pod.kv_tokens.filter(|tokens| *tokens > 0) else { return 0 };
        let levels = self.history.levels();
        let need = levels.kv_tokens + levels.queued.prompt + levels.queued.output;
        whole((need as f64 / (KV_USABLE * per_pod as f64)).ceil())
    }

    fn age_ms(&self) -> u64 {
        self.now.since(self.current.started_at)
    }

    /// Up at once; down only when nothing speaks against it.
    fn hold(&self, bounds: &Bounds, choice: Choice) -> Held {
        let Choice { wanted, mut winner, mut limits } = choice;
        let Reasons { limits: reasons, mut until, most } =
            against_fewer(self.policy, self.history, self.current, self.now, bounds.is_idle);
        let hold_ms = 1_000 * u64::from(self.policy.hold_seconds);
        // What has been wanted lately still counts; idleness has waited long enough.
        let recent = if bounds.is_idle { 0 } else { self.history.wanted_max(self.now, hold_ms) };
        let mut desired = wanted.max(recent.min(self.replicas));
        if wanted < self.replicas {
            if !reasons.is_empty() {
                desired = self.replicas;
            } else if desired < self.replicas.saturating_sub(most) {
                desired = self.replicas - most;
                limits.push(Limit::ScaleDownRules);
            }
            if desired > wanted {
                winner = if reasons.contains(&Limit::Canary) { Winner::Canary } else { Winner::Hold };
            }
            limits.extend(reasons);
        } else {
            until = None;
            // A stale look is not remembered, whatever it says.
            limits.extend(reasons.into_iter().filter(|limit| *limit == Limit::Stale));
        }
        if self.is_tolerable(wanted) && bounds.min < wanted {
            desired = self.replicas.max(bounds.min);
            winner = Winner::Tolerance;
            limits.push(Limit::Tolerance);
        }
        if self.replicas > bounds.max && desired >= bounds.max {
            // The user's or the hardware's word, which nothing holds back.
            desired = bounds.max;
            let is_hardware = bounds.max < self.policy.max();
            winner = if is_hardware { Winner::Capacity } else { Winner::MaxReplicas };
            limits.push(if is_hardware { Limit::Capacity } else { Limit::MaxReplicas });
        }
        Held { desired, wanted, winner, limits, no_scale_down_before: until }
    }

    /// Whether it is a rise that the user does not care for. Whoever waits while no pod is ready is not kept waiting.
    fn is_tolerable(&self, wanted: u32) -> bool {
        let is_waited_for = self.current.ready == 0 && !self.history.levels().queued.is_empty();
        !is_waited_for && pace::is_tolerable(wanted, self.replicas, self.policy.rise_tolerance_thousandths)
    }

    fn figures(&self, prices: Vec<Price>, desired: u32) -> Figures {
        let price = price_of_a_pod(self.policy, self.futures.horizon_s);
        Figures {
            demand: self.demand.fast,
            proven: self.demand.low,
            slope: self.demand.slope,
            dispersion: self.demand.dispersion,
            high: self.demand.high,
            calibration: self.history.calibration(),
            queue: self.queue,
            load_s: self.futures.load_s,
            horizon_s: self.futures.horizon_s,
            like_moments: self.futures.like_moments(),
            bursts: self.futures.bursts(desired, price),
            prices,
        }
    }
}

impl Choice {
    /// Not fewer than `floor`, which `winner` asks for.
    fn raise(&mut self, floor: u32, winner: Winner, limit: Limit) {
        if self.wanted < floor {
            self.wanted = floor;
            self.winner = winner;
            self.limits.push(limit);
        }
    }
}

/// Pods that serve a demand in time.
fn pods_for(demand: f64) -> u32 {
    whole((demand / FULL - ROUND).ceil())
}

/// The count with the lowest total; of equals the smallest.
fn cheapest(prices: &[Price]) -> u32 {
    let cheapest = prices.iter().reduce(|best, price| if price.total < best.total { price } else { best });
    cheapest.map_or(0, |price| price.replicas)
}

/// A count that is never negative and never more than fits.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "floored, and the cast saturates"
)]
fn whole(count: f64) -> u32 {
    count.max(0.0).floor() as u32
}
