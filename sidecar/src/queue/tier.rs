//! Tiers of urgency, their shares, and how waiting and a near deadline lift a request. Pure; `now` is an argument.

use std::time::{Duration, Instant};

/// Urgency of a request, most urgent first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tier {
    /// Somebody important waits for it.
    Vip,
    /// Before normal ones.
    High,
    /// What a request is unless it says otherwise.
    Normal,
    /// Bulk work.
    Low,
}

/// All tiers, most urgent first; a tier's place here is its index everywhere.
pub const TIERS: [Tier; 4] = [Tier::Vip, Tier::High, Tier::Normal, Tier::Low];

/// Waiting this long lifts a request by one tier: a Low one reaches the top after 30 s, half of the shortest
/// time-outs that proxies have.
pub const BOOST_EVERY: Duration = Duration::from_secs(10);

/// With less time left than this a request is at least High.
pub const DEADLINE_HIGH: Duration = Duration::from_secs(30);

/// With less time left than this a request is VIP.
pub const DEADLINE_VIP: Duration = Duration::from_secs(10);

impl Tier {
    /// Share of admissions while every tier has requests waiting.
    pub const fn weight(self) -> u64 {
        match self {
            Self::Vip => 8,
            Self::High => 4,
            Self::Normal => 2,
            Self::Low => 1,
        }
    }

    /// Place in [`TIERS`].
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The name in requests, headers and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Vip => "vip",
            Self::High => "high",
            Self::Normal => "normal",
            Self::Low => "low",
        }
    }

    /// The tier with this name, in any case.
    pub fn named(name: &str) -> Option<Self> {
        TIERS.into_iter().find(|tier| tier.name().eq_ignore_ascii_case(name))
    }

    /// This tier lifted by `steps`, at most to VIP.
    #[must_use]
    pub fn lifted(self, steps: u32) -> Self {
        TIERS[self.index().saturating_sub(steps as usize)]
    }
}

/// The tier that a request counts as at `now`.
pub fn effective(base: Tier, arrived: Instant, deadline: Instant, now: Instant) -> Tier {
    let waited = now.saturating_duration_since(arrived);
    let steps = u32::try_from(waited.as_secs() / BOOST_EVERY.as_secs()).unwrap_or(u32::MAX);
    let left = deadline.saturating_duration_since(now);
    let by_deadline = if left < DEADLINE_VIP {
        Tier::Vip
    } else if left < DEADLINE_HIGH {
        Tier::High
    } else {
        Tier::Low
    };
    base.lifted(steps).min(by_deadline)
}

/// The first moment after `now` at which [`effective`] may answer something else; `None` once it is VIP.
pub fn next_change(base: Tier, arrived: Instant, deadline: Instant, now: Instant) -> Option<Instant> {
    if effective(base, arrived, deadline, now) == Tier::Vip {
        return None;
    }
    let waited = now.saturating_duration_since(arrived);
    let boosts = waited.as_secs() / BOOST_EVERY.as_secs() + 1;
    let boost_at = arrived + BOOST_EVERY * u32::try_from(boosts).unwrap_or(u32::MAX);
    // "Less than 30 s left" is first true a moment after the point at which exactly 30 s are left.
    let tick = Duration::from_nanos(1);
    let by_deadline = [DEADLINE_HIGH, DEADLINE_VIP]
        .into_iter()
        .filter_map(|margin| deadline.checked_sub(margin))
        .map(|at| at + tick)
        .filter(|at| *at > now);
    by_deadline.chain([boost_at]).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(base: Tier, waited_s: u64, left_s: u64, expected: Tier) {
        let arrived = Instant::now();
        let now = arrived + Duration::from_secs(waited_s);
        assert_eq!(effective(base, arrived, now + Duration::from_secs(left_s), now), expected);
    }

    #[test]
    fn waiting_lifts_one_tier_each_ten_seconds() {
        check(Tier::Low, 9, 300, Tier::Low);
        check(Tier::Low, 10, 300, Tier::Normal);
        check(Tier::Low, 20, 300, Tier::High);
        check(Tier::Low, 30, 300, Tier::Vip);
        check(Tier::Normal, 3_000, 300, Tier::Vip);
    }

    #[test]
    fn a_near_deadline_lifts_to_high_and_then_to_vip() {
        check(Tier::Low, 0, 30, Tier::Low);
        check(Tier::Low, 0, 29, Tier::High);
        check(Tier::Low, 0, 9, Tier::Vip);
        check(Tier::Vip, 0, 29, Tier::Vip);
    }

    #[test]
    fn the_next_change_is_the_moment_of_the_change() {
        let arrived = Instant::now();
        let deadline = arrived + Duration::from_secs(35);
        let change = next_change(Tier::Low, arrived, deadline, arrived).unwrap();
        assert_eq!(effective(Tier::Low, arrived, deadline, change), Tier::High);
        let before = change.checked_sub(Duration::from_nanos(1)).unwrap();
        assert_eq!(effective(Tier::Low, arrived, deadline, before), Tier::Low);
    }
}
