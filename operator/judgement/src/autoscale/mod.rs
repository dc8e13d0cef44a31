//! How many replicas? Every count is priced against what happened before.
//!
//! The rule, called *Replay*: take the moments of the last half hour that looked like now, let what followed each of
//! them happen again to `n` pods, and see how much work would be late. Keep adding pods while the next one saves more
//! late work than it costs. [`decide`] is the whole of it; everything else here feeds it or is shown by it.
//!
//! In reading order: [`time`] and [`work`] (what a pod can do, what a request costs), [`history`] (what was seen, from
//! cumulative counters), [`policy`] (what the user wants), `demand` (how much work arrives now), `future` (what may
//! follow, and how late it would be), [`decision`] (the answer with its reasons), `decide`.
//!
//! Arithmetic is + − × ÷ √ floor and ceil on inputs that are integers, so a stored decision replays to the same bits on
//! every machine ([`replay`]).

pub mod decision;
pub mod history;
pub mod policy;
pub mod time;
pub mod work;

mod decide;
mod demand;
mod future;
mod ring;
mod sentence;
#[cfg(test)]
mod tests;

pub use decide::{decide, replay};
pub use decision::{Decision, Figures, Inputs, Limit, Price, Winner};
pub use history::{Counters, History, Levels, Recollection, Sample};
pub use policy::{Current, Policy, ScheduleBounds};
pub use time::Millis;
pub use work::{OutputLengths, PodModel, Tokens};
