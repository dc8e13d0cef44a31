//! How many replicas? Every count is priced against what happened before.
//!
//! The rule, called *Replay*: take the moments of the last half hour that looked like now, let what followed each of
//! them happen again to `n` pods, and see how much work would be late. Keep adding pods while the next one saves more
//! late work than it costs. [`decide`] is the whole of it; everything else here feeds it or is shown by it.
//!
//! In reading order: [`time`] and [`work`] (what a pod can do, what a request costs), [`history`] (what was seen, from
//! cumulative counters), [`policy`] (what the user wants), `demand` (how much work arrives now), `future` (what may
//! follow, and how late it would be), [`pace`] (how fast pods may go), `hold` (what speaks against fewer), [`decision`]
//! (the answer with its reasons), `decide`.
//!
//! The rule was first published with a table of its own; where the simulator showed a better form, that was taken:
//!
//! | first form | now | why |
//! |---|---|---|
//! | late work is what waits too long | and what is left undone at the end | a maximum below the demand made all counts equally late, and the cheapest of them the smallest |
//! | ceiling from windows of 6 to 120 s less 1.0 standard deviations | 10 to 120 s less 0.7 | at 180 s of loading the mean overshoot of a step stays below 1.6, and the step within 3 points of a clairvoyant |
//! | a pod that goes costs a load time | 1.2 load times, at least 90 s | 8 instead of 10 changes of direction per hour at 30 s |
//! | bins end with the last report | bins of the clock | a bin that mixes two looks calmer than the load is, and bins that move make the answer waver |
//! | in the first ten minutes the highest 3 % order pods | they only keep pods | they rise as quiet minutes leave so short a history, and a pod came, went and came again for one step (seen on a cluster) |
//! | a hold needs no witnesses | looks of half a hold | after a silence the first look could have taken pods away |
//!
//! Arithmetic is + − × ÷ √ floor and ceil on inputs that are integers, so a stored decision replays to the same bits on
//! every machine ([`replay`]).

pub mod decision;
pub mod history;
pub mod pace;
pub mod policy;
pub mod time;
pub mod work;

mod decide;
mod demand;
mod future;
mod hold;
mod ring;
mod sentence;
#[cfg(test)]
mod tests;

pub use decide::{decide, replay};
pub use decision::{Decision, Figures, Inputs, Limit, Price, Winner};
pub use history::{Counters, History, Levels, Recollection, Sample};
pub use pace::{Portion, Rule, ScaleDown};
pub use policy::{Current, Policy, ScheduleBounds};
pub use time::Millis;
pub use work::{OutputLengths, PodModel, Tokens};
