//! What speaks against taking pods away now. Missing them costs a load time, having them a moment longer costs little.

use super::decision::Limit;
use super::history::History;
use super::pace::{Pace, ScaleDown};
use super::policy::{Current, Policy};
use super::time::Millis;

/// After a start nothing is taken away for this long: a hold of 90 s, and half a minute until all sources have reported.
const START_MS: u64 = 120_000;

/// All that speaks against it.
pub(super) struct Reasons {
    pub(super) limits: Vec<Limit>,
    /// When the last of those that end by themselves ends.
    pub(super) until: Option<Millis>,
    /// If nothing does: so many may go at most.
    pub(super) most: u32,
}

/// Why none of the present pods may be taken away now; nothing if they may. Idleness has waited long enough by itself.
pub(super) fn against_fewer(
    policy: &Policy,
    history: &History,
    current: &Current,
    now: Millis,
    is_idle: bool,
) -> Reasons {
    let Pace { pods, until } = policy.scale_down.pace(history, current.replicas(), now);
    let mut reasons = Reasons { limits: Vec::new(), until: None, most: pods };
    if history.is_stale(now) {
        reasons.limits.push(Limit::Stale);
    }
    if current.is_canary_judged {
        reasons.limits.push(Limit::Canary);
    }
    reasons.end(now, Limit::Start, Some(current.started_at + START_MS));
    if policy.scale_down == ScaleDown::Usual {
        reasons.end(now, Limit::Pace, until);
    } else if pods == 0 {
        reasons.limits.push(Limit::ScaleDownRules);
        reasons.until = reasons.until.max(until);
    }
    if !is_idle {
        let hold_ms = 1_000 * u64::from(policy.hold_seconds);
        let wanted_until = history.wanted_until(current.replicas(), now, hold_ms);
        // After a silence the looks of half a hold must be there again: what was wanted meanwhile is unknown, not less.
        let watched_from = history.watched_since(now, hold_ms).unwrap_or(now) + hold_ms / 2;
        reasons.end(now, Limit::Hold, wanted_until.max(Some(watched_from)));
    }
    reasons
}

impl Reasons {
    /// Adds a reason that holds until `end`.
    fn end(&mut self, now: Millis, limit: Limit, end: Option<Millis>) {
        if let Some(end) = end.filter(|end| *end > now) {
            self.limits.push(limit);
            self.until = self.until.max(Some(end));
        }
    }
}
