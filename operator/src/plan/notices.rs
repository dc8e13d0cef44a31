//! What has changed between the last status and this one that people should be told. Pure.

use crds::model::{CanaryPhase, InferenceModel, InferenceModelStatus, RolloutPhase};

use super::Notice;
use crate::autoscale::tell;
use crate::objects;
use crate::status;
use crate::trial;

/// The events that `status` is worth, compared with the one that `model` has.
pub(super) fn notices(model: &InferenceModel, status: &InferenceModelStatus) -> Vec<Notice> {
    let before = model.status.clone().unwrap_or_default();
    let changes = [
        started(&before, status),
        weighed(&before, status),
        finished(model, &before, status),
        removed(&before, status),
        paused(&before, status),
        alarm(&before, status),
        tell::notice(model, &before, status),
        trial::tell::notice(&before, status),
    ];
    changes.into_iter().flatten().collect()
}

fn notice(reason: &str, message: String) -> Notice {
    Notice { is_warning: false, reason: reason.to_owned(), message }
}

fn started(before: &InferenceModelStatus, status: &InferenceModelStatus) -> Option<Notice> {
    let (target, stable) = (status.target_revision.as_ref()?, status.stable_revision.as_ref()?);
    (before.target_revision.as_ref() != Some(target))
        .then(|| notice("RolloutStarted", format!("revision {target} starts beside {stable}")))
}

fn weighed(before: &InferenceModelStatus, status: &InferenceModelStatus) -> Option<Notice> {
    let weight = |status: &InferenceModelStatus| status.rollout.as_ref()?.weight_basis_points;
    let (canary, now) = (status.canary_revision.as_ref()?, weight(status)?);
    let then = if before.canary_revision.as_ref() == Some(canary) { weight(before).unwrap_or(0) } else { 0 };
    let percent = |basis_points: i32| f64::from(basis_points) / 100.0;
    (now != then).then(|| {
        notice(
            "CanaryWeightChanged",
            format!("canary {canary} gets {}% of the keys; it had {}%", percent(now), percent(then)),
        )
    })
}

fn finished(
    model: &InferenceModel,
    before: &InferenceModelStatus,
    status: &InferenceModelStatus,
) -> Option<Notice> {
    let stable = status.stable_revision.as_ref()?;
    (before.stable_revision.as_ref() != Some(stable)).then(|| {
        let message = match &before.stable_revision {
            Some(old) => format!("revision {stable} serves; {old} is removed"),
            None => format!("revision {stable} serves at {}", objects::base_url(model)),
        };
        notice("RolloutFinished", message)
    })
}

/// The spec went back to the stable revision, or on to a third one.
fn removed(before: &InferenceModelStatus, status: &InferenceModelStatus) -> Option<Notice> {
    let (canary, stable) = (before.canary_revision.as_ref()?, status.stable_revision.as_ref()?);
    let is_still_there = status.target_revision.as_ref() == Some(canary) || stable == canary;
    (!is_still_there && before.stable_revision.as_ref() == Some(stable))
        .then(|| notice("CanaryRemoved", format!("canary {canary} is removed; {stable} serves on")))
}

/// A person is asked to decide about a canary.
fn paused(before: &InferenceModelStatus, status: &InferenceModelStatus) -> Option<Notice> {
    let phase = |status: &InferenceModelStatus| Some(status.rollout.as_ref()?.course.as_ref()?.phase);
    let is_waiting = |status| matches!(phase(status), Some(CanaryPhase::Paused | CanaryPhase::Inconclusive));
    let (canary, course) = (status.canary_revision.as_ref()?, status.rollout.as_ref()?.course.as_ref()?);
    (is_waiting(status) && phase(before) != phase(status)).then(|| Notice {
        is_warning: true,
        reason: "CanaryWaits".to_owned(),
        message: format!("canary {canary} waits for a person: {}", course.message),
    })
}

fn alarm(before: &InferenceModelStatus, status: &InferenceModelStatus) -> Option<Notice> {
    let ready = |status: &InferenceModelStatus| {
        status.conditions.iter().find(|condition| condition.type_ == status::READY).cloned()
    };
    let now = ready(status)?;
    let is_new = ready(before).is_none_or(|then| then.reason != now.reason);
    (is_new && is_alarming(status)).then_some(Notice {
        is_warning: true,
        reason: now.reason,
        message: now.message,
    })
}

fn is_alarming(status: &InferenceModelStatus) -> bool {
    let phase = status.rollout.as_ref().map(|rollout| rollout.phase);
    let has_ended = |phase| {
        use RolloutPhase::{Aborted, Killed, RolledBack, RollingBack};
        matches!(phase, RollingBack | RolledBack | Aborted | Killed)
    };
    matches!(phase, Some(RolloutPhase::Failed | RolloutPhase::Pending)) || phase.is_some_and(has_ended)
}
