//! Whether an analysis can prove what is asked of it: told before the canary gets anything, and when a step has ended
//! without a proof. Pure.

use crds::model::{AnalysisOutcome, AnalysisStatus};
use judgement::rollout::Phase;

use super::Verdict;
use crate::conduct::Conducted;
use crate::problem::Reason;

/// More is asked of the analysis of a canary than it can prove, or has proven.
pub const ANALYSIS_UNDERPOWERED: &str = "AnalysisUnderpowered";

/// The condition while something is compared, and after a promotion for which nothing was proven. `analysis` is what was
/// found so far; steps end without a proof by design where nothing follows from it.
pub(super) fn verdict(
    conducted: &Conducted,
    analysis: Option<&AnalysisStatus>,
    is_enforced: bool,
) -> Option<(&'static str, Verdict)> {
    let is_unproven = conducted.state.is_underpowered && is_enforced;
    let is_proven = analysis.is_some_and(|analysis| analysis.outcome == AnalysisOutcome::Pass);
    let verdict = match (&conducted.foresight, conducted.state.phase) {
        (_, Phase::Completed) if is_unproven => Verdict::yes(
            Reason::StepUnproven,
            format!(
                "revision {} was promoted after a step that ended by its time: nothing was wrong with it, and nothing was proven",
                conducted.state.stable
            ),
        ),
        (_, Phase::Promoting) if is_unproven => {
            Verdict::yes(Reason::StepUnproven, "a step has ended by its time and not by a proof")
        }
        (Some(foresight), _) if is_unproven => Verdict::yes(
            Reason::StepUnproven,
            format!("a step has ended by its time and not by a proof: {foresight}"),
        ),
        (Some(_), _) if is_proven => {
            Verdict::no(Reason::WithinTolerance, "it is proven that nothing is slower than tolerated")
        }
        (Some(foresight), _) if foresight.is_blind() => {
            Verdict::yes(Reason::TooFewPods, foresight.to_string())
        }
        (Some(foresight), _) => Verdict::no(Reason::EnoughPods, foresight.to_string()),
        (None, _) => return None,
    };
    Some((ANALYSIS_UNDERPOWERED, verdict))
}
