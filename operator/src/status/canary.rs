//! How far a canary is that the operator drives, and whether it is Ready. Pure.

use crds::model::{CanaryPhase, InferenceModel, KillSwitch, RolloutPhase};
use judgement::rollout::Phase;

use super::progress::{Progress, keeps_serving, sharing, starting, unproven};
use super::{Situation, Verdict};
use crate::conduct::{Conducted, Left};
use crate::problem::Reason;
use crate::rollout::percent;

/// How far the target is, which is not the stable revision.
pub(super) fn progress(model: &InferenceModel, situation: &Situation<'_>, conducted: &Conducted) -> Progress {
    let state = &conducted.state;
    let share = |phase, how: &str| shared(model, situation, conducted, phase, how);
    match state.phase {
        Phase::Loading if conducted.is_in_the_gap() => in_the_gap(situation),
        Phase::Loading if situation.is_complete => unproven(situation),
        Phase::Loading => starting(situation),
        Phase::Warmup => warming(model, situation),
        Phase::Analysing => share(RolloutPhase::Analysing, &left(conducted)),
        Phase::Paused => share(RolloutPhase::Paused, "paused"),
        Phase::Inconclusive => share(RolloutPhase::Inconclusive, "inconclusive"),
        Phase::Promoting => share(RolloutPhase::Promoting, "promoting"),
        Phase::RollingBack if state.canary.as_deref() != Some(situation.target) => {
            leaving(situation, conducted)
        }
        _ => match conducted.failure(situation.target) {
            Some(failed) => ended(situation, state.phase, failed.ending, &failed.message),
            None => waiting(model, situation, conducted),
        },
    }
}

/// Nobody serves before it does. What hinders its pods now is not final, so nobody who waits is turned away for it.
fn in_the_gap(situation: &Situation<'_>) -> Progress {
    if situation.target_pods == 0 {
        return Progress {
            phase: RolloutPhase::Scheduling,
            summary: "waits for the old pods to end".to_owned(),
            ready: Verdict::no(
                Reason::Scheduling,
                format!(
                    "revision {} starts when the pods of {} have ended",
                    situation.target,
                    situation.spokesman()
                ),
            ),
        };
    }
    let progress = if situation.is_complete { unproven(situation) } else { starting(situation) };
    match progress.phase {
        RolloutPhase::Failed => Progress { phase: RolloutPhase::Starting, ..progress },
        _ => progress,
    }
}

fn warming(model: &InferenceModel, situation: &Situation<'_>) -> Progress {
    let summary = "Warming up".to_owned();
    sharing(model, situation, RolloutPhase::WarmingUp, summary, "is ready and gets nothing yet")
}

/// `25% (2/4), 140 s left`
fn shared(
    model: &InferenceModel,
    situation: &Situation<'_>,
    conducted: &Conducted,
    phase: RolloutPhase,
    how: &str,
) -> Progress {
    let percent = percent(situation.roles.weight);
    let (step, steps) = conducted.step().unwrap_or_default();
    let why = conducted.hindrance.as_deref().or(Some(&conducted.state.message)).filter(|why| !why.is_empty());
    let why = why.map(|why| format!(": {why}")).unwrap_or_default();
    let next = match phase {
        RolloutPhase::Paused | RolloutPhase::Inconclusive => {
            "; spec.rollout.action with command Promote or Abort decides"
        }
        _ => "",
    };
    let share = format!("gets {percent} of the keys (step {step} of {steps}){why}{next}");
    let summary = format!("{percent} ({step}/{steps}), {how}");
    sharing(model, situation, phase, summary, &share)
}

fn left(conducted: &Conducted) -> String {
    match conducted.left_ms() {
        Some(Left::AtLeast(ms)) => format!("{} left", duration(ms)),
        Some(Left::AtMost(ms)) => format!("at most {} left", duration(ms)),
        None => "waits for pods".to_owned(),
    }
}

/// Rounded up, so that a status is not rewritten every second.
fn duration(ms: u64) -> String {
    match ms.div_ceil(1_000) {
        seconds @ 0..=300 => format!("{} s", seconds.next_multiple_of(20)),
        seconds => format!("{} min", seconds.div_ceil(60)),
    }
}

/// The target has failed, and why.
fn ended(situation: &Situation<'_>, phase: Phase, ending: CanaryPhase, why: &str) -> Progress {
    let (ended, reason, what, summary) = match ending {
        CanaryPhase::RolledBack => {
            (RolloutPhase::RolledBack, Reason::RolledBack, "was rolled back", "rolled back")
        }
        CanaryPhase::Killed => (RolloutPhase::Killed, Reason::RolloutKilled, "was stopped", "stopped"),
        _ => (RolloutPhase::Aborted, Reason::RolloutAborted, "was given up", "given up"),
    };
    let message = format!(
        "revision {} {what}: {why}; edit the spec, or change spec.rollout.retryToken to try it again",
        situation.target
    );
    Progress {
        phase: if phase == Phase::RollingBack { RolloutPhase::RollingBack } else { ended },
        summary: summary.to_owned(),
        ready: Verdict::no(reason, keeps_serving(&message, situation.roles.keeper)),
    }
}

/// An earlier revision goes first.
fn leaving(situation: &Situation<'_>, conducted: &Conducted) -> Progress {
    let canary = conducted.state.canary.as_deref().unwrap_or_default();
    let message = format!("revision {canary} goes first; then revision {} starts", situation.target);
    Progress {
        phase: RolloutPhase::RollingBack,
        summary: "waits for the earlier revision to go".to_owned(),
        ready: Verdict::no(Reason::RollingBack, keeps_serving(&message, situation.roles.keeper)),
    }
}

/// It has not begun.
fn waiting(model: &InferenceModel, situation: &Situation<'_>, conducted: &Conducted) -> Progress {
    if model.spec.kill_switch.unwrap_or_default() != KillSwitch::Off {
        let message = "spec.killSwitch is on; set it to None to start the rollout";
        return Progress {
            phase: RolloutPhase::Killed,
            summary: "kill switch".to_owned(),
            ready: Verdict::no(Reason::RolloutKilled, keeps_serving(message, situation.roles.keeper)),
        };
    }
    let begins = || format!("the rollout of revision {} begins", situation.target);
    let message = conducted.obstacle.clone().unwrap_or_else(begins);
    Progress {
        phase: RolloutPhase::CapacityCheck,
        summary: "looks for room".to_owned(),
        ready: Verdict::no(Reason::CapacityUnavailable, keeps_serving(&message, situation.roles.keeper)),
    }
}
