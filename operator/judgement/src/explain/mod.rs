//! A judgement that was stored with what it was made from: made again, compared, and told with its figures. The operator
//! keeps the last ones of each model, the simulator writes some of its own; both explain them with this.

mod decision;
pub mod table;
mod verdict;

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::autoscale::{Decision, replay};
use crate::rollout::{Evidence, Verdict, judge};

/// The last judgements of one model.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Record {
    /// How many replicas; nothing while nobody asks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decision: Option<Decision>,
    /// Whether the canary is well; nothing without one that has had traffic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trial: Option<Trial>,
}

/// A verdict with what it was made from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Trial {
    /// What was known.
    pub evidence: Evidence,
    /// What it amounted to.
    pub verdict: Verdict,
}

/// A judgement that does not follow from what was stored with it: another version made it, or somebody changed it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Differs(String);

impl fmt::Display for Differs {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "the replay differs: {}", self.0)
    }
}

impl std::error::Error for Differs {}

impl Record {
    /// Makes each judgement again, bit for bit, and tells what it was made from; Markdown that reads well in a terminal.
    pub fn explain(&self) -> Result<String, Differs> {
        let decision = self.decision.as_ref().map(explain_decision).transpose()?;
        let trial = self.trial.as_ref().map(explain_trial).transpose()?;
        Ok([decision, trial].into_iter().flatten().collect::<Vec<_>>().join("\n"))
    }
}

fn explain_decision(stored: &Decision) -> Result<String, Differs> {
    let again = replay(stored);
    if again != *stored {
        let (now, then) = (again.desired, stored.desired);
        return Err(Differs(format!("it wants {now} pods instead of {then}: {}", again.sentence)));
    }
    Ok(decision::Told(stored).to_string())
}

fn explain_trial(stored: &Trial) -> Result<String, Differs> {
    let again = judge(&stored.evidence);
    if again != stored.verdict {
        return Err(Differs(format!("the verdict is {:?} ({})", again.outcome, again.sentence)));
    }
    Ok(verdict::Told(stored).to_string())
}
