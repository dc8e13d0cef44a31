//! How fast pods may be taken away, and how small a rise is not made: what a
//! `HorizontalPodAutoscaler` calls behavior.

use serde::{Deserialize, Serialize};

use super::history::History;
use super::time::Millis;

/// Without rules scale-downs are at least this far apart.
const USUAL_MS: u64 = 15_000;

/// Rules at most.
pub const RULES_MAX: usize = 4;

/// The longest period of a rule, seconds: as long as history.
pub const PERIOD_SECONDS_MAX: u32 = super::history::SECONDS_MAX;

/// How many pods may be taken away in a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum ScaleDown {
    /// A third of them, at least one, and not before 15 s after the last time. To zero all at once.
    #[default]
    Usual,
    /// None.
    Never,
    /// As many as the rule allows that allows most.
    Most(Rules),
    /// As many as all rules allow.
    Least(Rules),
}

/// The user's rules; an array, so that a policy is copied like a number.
pub type Rules = [Option<Rule>; RULES_MAX];

/// Within any `period_seconds` no more than `portion` goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// How many.
    pub portion: Portion,
    /// In how long, seconds; at most [`PERIOD_SECONDS_MAX`].
    pub period_seconds: u32,
}

/// A part of a fleet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Portion {
    /// So many pods.
    Pods(u32),
    /// So many percent of the pods that there were when the period began, rounded up.
    Percent(u32),
}

/// What may go now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pace {
    /// At most so many pods.
    pub(super) pods: u32,
    /// When one may go at the earliest, if none may now.
    pub(super) until: Option<Millis>,
}

impl ScaleDown {
    /// How many of `replicas` may go at once when none has gone before: so far down counts are priced. Also where none
    /// may go, to know what would do.
    pub(super) fn step(&self, replicas: u32) -> u32 {
        let step = match self {
            Self::Usual | Self::Never => replicas / 3,
            Self::Most(rules) => portions(rules, replicas).max().unwrap_or(0),
            Self::Least(rules) => portions(rules, replicas).min().unwrap_or(0),
        };
        step.max(1).min(replicas)
    }

    /// How many of `replicas` may go now.
    pub(super) fn pace(&self, history: &History, replicas: u32, now: Millis) -> Pace {
        match self {
            Self::Usual => {
                let until = history.last_down().map(|at| at + USUAL_MS).filter(|until| *until > now);
                Pace { pods: if until.is_some() { 0 } else { replicas }, until }
            }
            Self::Never => Pace { pods: 0, until: None },
            Self::Most(rules) => {
                let paces = || rules.iter().flatten().map(|rule| rule.pace(history, replicas, now));
                let pods = paces().map(|pace| pace.pods).max().unwrap_or(0);
                let first = paces().filter_map(|pace| pace.until).min();
                Pace { pods, until: first.filter(|_| pods == 0) }
            }
            Self::Least(rules) => {
                let paces = || rules.iter().flatten().map(|rule| rule.pace(history, replicas, now));
                let pods = paces().map(|pace| pace.pods).min().unwrap_or(0);
                let last = paces().filter_map(|pace| pace.until).max();
                Pace { pods, until: last.filter(|_| pods == 0) }
            }
        }
    }
}

fn portions(rules: &Rules, replicas: u32) -> impl Iterator<Item = u32> {
    rules.iter().flatten().map(move |rule| rule.portion.of(replicas))
}

impl Rule {
    fn pace(self, history: &History, replicas: u32, now: Millis) -> Pace {
        let period_ms = 1_000 * u64::from(self.period_seconds);
        let (gone, first) = history.gone(now, period_ms);
        let allowed = self.portion.of(replicas.saturating_add(gone)).saturating_sub(gone).min(replicas);
        let until = first.map(|at| at + period_ms).filter(|_| allowed == 0);
        Pace { pods: allowed, until }
    }
}

impl Portion {
    /// Of so many pods.
    fn of(self, pods: u32) -> u32 {
        match self {
            Self::Pods(count) => count.min(pods),
            Self::Percent(percent) => {
                let part = (u64::from(pods) * u64::from(percent.min(100))).div_ceil(100);
                u32::try_from(part).unwrap_or(pods)
            }
        }
    }
}

/// Whether a rise is too small to be made: to `wanted` from `replicas`, with a tolerance in thousandths of these.
pub(super) fn is_tolerable(wanted: u32, replicas: u32, tolerance_thousandths: u32) -> bool {
    let bound = u64::from(replicas) * (1_000 + u64::from(tolerance_thousandths));
    wanted > replicas && u64::from(wanted) * 1_000 <= bound
}
