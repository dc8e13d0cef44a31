//! Is the canary well, and what follows from the answer?
//!
//! Two questions are kept apart. *Is the revision slower or worse per unit of work?* is answered by [`judge`] and
//! leads to a rollback. *Do its users wait longer?* is mostly a matter of how many pods we gave it and leads to a
//! hold. [`advance`] turns verdicts, readiness and commands into the next phase and the split of the traffic.

mod advance;
mod budget;
mod capacity;
mod evidence;
mod foresight;
mod gates;
mod judge;
mod observation;
mod people;
mod pods;
mod policy;
mod state;
mod verdict;
mod wording;
mod work;

pub use advance::advance;
pub use budget::Budget;
pub use capacity::{
    Capacity, LOAD_MAX, Strategy, canary_pods, choose, in_place_pods, in_place_weight, weight_for,
};
pub use evidence::Evidence;
pub use foresight::{Foresight, foresee};
pub use judge::{Learned, judge, learned};
pub use observation::{
    Arm, ArmCounts, CountTotals, DecodeTotal, FinishedRequest, Observation, Part, PodReport,
};
pub use people::{ArmFigures, StepReport, UserMetric};
pub use policy::{
    Analysis, Gate, InconclusivePolicy, Method, Objectives, Plan, Step, Tolerances, UnderpoweredPolicy,
};
pub use state::{Action, Command, Facts, Failed, KillSwitch, Next, Phase, Split, State};
pub use verdict::{Metric, MetricVerdict, Outcome, Reason, Standing, Verdict};
