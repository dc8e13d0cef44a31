//! What somebody should look at. It is kept in the status, so that a pod that fails, tries again and fails again is told
//! once, and so that the next operator knows what has been told. Pure.

use crds::model::{Alarm, InferenceModelStatus, RolloutPhase};
use crds::notification::Severity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

use super::Verdict;
use crate::problem::Reason;

/// What is alarming now. An alarm ends when the model is Ready or meant to rest; while it is on its way there, it stays.
pub(super) fn alarm(
    before: &InferenceModelStatus,
    phase: RolloutPhase,
    ready: &Verdict,
    ready_pods: i32,
    now: Timestamp,
) -> Option<Alarm> {
    if ready.status == "True" || phase == RolloutPhase::Suspended {
        return None;
    }
    let known = before.alarm.clone();
    if !is_alarming(phase) {
        return known;
    }
    let found = Alarm {
        reason: ready.reason.to_string(),
        severity: severity(before, ready.reason, ready_pods),
        since: Time(now),
    };
    let is_known =
        known.as_ref().is_some_and(|known| known.reason == found.reason && known.severity >= found.severity);
    if is_known { known } else { Some(found) }
}

/// Whether the declared revision does not serve and will not without somebody's help.
fn is_alarming(phase: RolloutPhase) -> bool {
    use RolloutPhase::{Aborted, Failed, Killed, Pending, RolledBack, RollingBack};
    matches!(phase, Failed | Pending | RollingBack | RolledBack | Aborted | Killed)
}

/// What was served and is not any more is critical.
fn severity(before: &InferenceModelStatus, reason: Reason, ready_pods: i32) -> Severity {
    let is_unreached = matches!(reason, Reason::GatewayUnavailable | Reason::ProbeFailed);
    if before.stable_revision.is_some() && (ready_pods == 0 || is_unreached) {
        Severity::Critical
    } else {
        Severity::Warning
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Phase, reason, ready pods, then the alarm.
    type Moment<'moment> = (RolloutPhase, Reason, i32, Option<(&'moment str, Severity)>);

    /// What became of each moment, one after another.
    fn check(is_served: bool, moments: &[Moment<'_>]) {
        let mut status = InferenceModelStatus {
            stable_revision: is_served.then(|| "tiny-a".to_owned()),
            ..Default::default()
        };
        for (second, (phase, reason, pods, expected)) in moments.iter().enumerate() {
            let is_ready = *reason == Reason::ServedToken;
            let verdict = if is_ready { Verdict::yes(*reason, "") } else { Verdict::no(*reason, "") };
            let now = Timestamp::from_second(second.try_into().unwrap()).unwrap();
            status.alarm = alarm(&status, *phase, &verdict, *pods, now);
            let found = status.alarm.as_ref().map(|alarm| (alarm.reason.as_str(), alarm.severity));
            assert_eq!(found, *expected, "at {second}: {phase:?}");
        }
    }

    #[test]
    fn a_crash_loop_is_one_alarm_until_the_model_is_ready() {
        let lost = Some(("EngineLost", Severity::Warning));
        check(
            false,
            &[
                (RolloutPhase::Loading, Reason::Loading, 0, None),
                (RolloutPhase::Failed, Reason::EngineLost, 0, lost),
                (RolloutPhase::Loading, Reason::Loading, 0, lost),
                (RolloutPhase::Failed, Reason::EngineLost, 0, lost),
                (RolloutPhase::Failed, Reason::DoesNotFit, 0, Some(("DoesNotFit", Severity::Warning))),
                (RolloutPhase::Stable, Reason::ServedToken, 1, None),
            ],
        );
    }

    #[test]
    fn what_serves_no_longer_is_critical_and_a_worse_turn_is_a_new_alarm() {
        check(
            true,
            &[
                (
                    RolloutPhase::Failed,
                    Reason::DigestMismatch,
                    1,
                    Some(("DigestMismatch", Severity::Warning)),
                ),
                (
                    RolloutPhase::Failed,
                    Reason::DigestMismatch,
                    0,
                    Some(("DigestMismatch", Severity::Critical)),
                ),
                (
                    RolloutPhase::Failed,
                    Reason::DigestMismatch,
                    1,
                    Some(("DigestMismatch", Severity::Critical)),
                ),
                (RolloutPhase::Suspended, Reason::Suspended, 0, None),
                (RolloutPhase::Failed, Reason::ProbeFailed, 2, Some(("ProbeFailed", Severity::Critical))),
            ],
        );
    }
}
