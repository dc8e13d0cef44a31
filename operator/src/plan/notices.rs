//! What has changed between the last status and this one that people should be told. Pure.

use crds::model::{CanaryPhase, ChosenCapacity, InferenceModel, InferenceModelStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use super::Notice;
use crate::autoscale::tell;
use crate::objects;
use crate::rollout::percent;
use crate::status;
use crate::trial;

/// The events that `status` is worth, compared with the one that `model` has.
pub(super) fn notices(model: &InferenceModel, status: &InferenceModelStatus) -> Vec<Notice> {
    let before = model.status.clone().unwrap_or_default();
    let changes = [
        started(&before, status),
        warned(&before, status),
        weighed(&before, status),
        finished(model, &before, status),
        parted(&before, status),
        removed(&before, status),
        paused(&before, status),
        unproven(&before, status),
        alarm(&before, status),
        cleared(&before, status),
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
    let strategy = status.rollout.as_ref().and_then(|rollout| rollout.capacity_strategy);
    let how = match strategy {
        Some(ChosenCapacity::Recreate) => "starts when the pods of",
        _ => "starts beside",
    };
    let end = if strategy == Some(ChosenCapacity::Recreate) { " have ended" } else { "" };
    (before.target_revision.as_ref() != Some(target))
        .then(|| notice("RolloutStarted", format!("revision {target} {how} {stable}{end}")))
}

/// A revision on trial; where the stable pods end first, nothing is on trial.
fn word(status: &InferenceModelStatus) -> &'static str {
    let strategy = status.rollout.as_ref().and_then(|rollout| rollout.capacity_strategy);
    if strategy == Some(ChosenCapacity::Recreate) { "revision" } else { "canary" }
}

/// Pods of the stable revision end for the canary's: what that means for a way back is told before.
fn warned(before: &InferenceModelStatus, status: &InferenceModelStatus) -> Option<Notice> {
    let makes_room = |status: &InferenceModelStatus| {
        let strategy = status.rollout.as_ref()?.capacity_strategy?;
        let canary = status.canary_revision.clone()?;
        (strategy != ChosenCapacity::Surge).then_some((canary, strategy))
    };
    let (canary, _) = makes_room(status).filter(|now| makes_room(before).as_ref() != Some(now))?;
    let message = &status.rollout.as_ref()?.course.as_ref()?.message;
    Some(notice("CanaryCapacity", format!("{} {canary}: {message}", word(status))))
}

fn weighed(before: &InferenceModelStatus, status: &InferenceModelStatus) -> Option<Notice> {
    let weight = |status: &InferenceModelStatus| status.rollout.as_ref()?.weight_basis_points;
    let (canary, now) = (status.canary_revision.as_ref()?, weight(status)?);
    let then = if before.canary_revision.as_ref() == Some(canary) { weight(before).unwrap_or(0) } else { 0 };
    (now != then).then(|| {
        notice(
            "CanaryWeightChanged",
            format!("{} {canary} gets {} of the keys; it had {}", word(status), percent(now), percent(then)),
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
            Some(old) => format!("revision {stable} serves; {}", replaced(old, status)),
            None => format!("revision {stable} serves at {}", objects::base_url(model)),
        };
        notice("RolloutFinished", message)
    })
}

/// What becomes of the revision before, and what a return to it costs.
fn replaced(old: &str, status: &InferenceModelStatus) -> String {
    let rollout = status.rollout.as_ref();
    match rollout.and_then(|rollout| rollout.former.as_ref()) {
        Some(former) => format!("the pods of {old} stay without traffic until {}", former.until.0),
        None => match rollout.and_then(|rollout| rollout.rollback_seconds) {
            Some(seconds) => {
                format!("{old} is removed, and a return to it takes one start (about {seconds} s)")
            }
            None => format!("{old} is removed"),
        },
    }
}

/// The pods of a former revision have stayed for long enough, or others need their room.
fn parted(before: &InferenceModelStatus, status: &InferenceModelStatus) -> Option<Notice> {
    let former =
        |status: &InferenceModelStatus| Some(status.rollout.as_ref()?.former.as_ref()?.revision.clone());
    let gone = former(before).filter(|_| former(status).is_none())?;
    (before.stable_revision == status.stable_revision)
        .then(|| notice("RolloutSettled", format!("the pods of revision {gone} are removed")))
}

/// The spec went back to the stable revision, or on to a third one.
fn removed(before: &InferenceModelStatus, status: &InferenceModelStatus) -> Option<Notice> {
    let (canary, stable) = (before.canary_revision.as_ref()?, status.stable_revision.as_ref()?);
    let is_still_there = status.target_revision.as_ref() == Some(canary) || stable == canary;
    (!is_still_there && before.stable_revision.as_ref() == Some(stable))
        .then(|| notice("CanaryRemoved", format!("{} {canary} is removed; {stable} serves on", word(before))))
}

/// A person is asked to decide about a canary.
fn paused(before: &InferenceModelStatus, status: &InferenceModelStatus) -> Option<Notice> {
    let phase = |status: &InferenceModelStatus| Some(status.rollout.as_ref()?.course.as_ref()?.phase);
    let is_waiting = |status| matches!(phase(status), Some(CanaryPhase::Paused | CanaryPhase::Inconclusive));
    let (canary, course) = (status.canary_revision.as_ref()?, status.rollout.as_ref()?.course.as_ref()?);
    (is_waiting(status) && phase(before) != phase(status)).then(|| Notice {
        is_warning: true,
        reason: "CanaryWaits".to_owned(),
        message: format!("{} {canary} waits for a person: {}", word(status), course.message),
    })
}

/// What cannot be proven is told before the canary gets anything, and that a step has ended without a proof, as it does.
fn unproven(before: &InferenceModelStatus, status: &InferenceModelStatus) -> Option<Notice> {
    let told = |status: &InferenceModelStatus| {
        let of_type = |condition: &&Condition| condition.type_ == status::ANALYSIS_UNDERPOWERED;
        status.conditions.iter().find(of_type).filter(|condition| condition.status == "True").cloned()
    };
    let now = told(status)?;
    let is_new = told(before).is_none_or(|then| then.reason != now.reason);
    is_new.then(|| notice(status::ANALYSIS_UNDERPOWERED, now.message))
}

/// An alarm that has not been told, in the words of the Ready condition.
fn alarm(before: &InferenceModelStatus, status: &InferenceModelStatus) -> Option<Notice> {
    let alarm = status.alarm.as_ref().filter(|alarm| before.alarm.as_ref() != Some(*alarm))?;
    Some(Notice { is_warning: true, reason: alarm.reason.clone(), message: ready_message(status) })
}

/// An alarm that is over.
fn cleared(before: &InferenceModelStatus, status: &InferenceModelStatus) -> Option<Notice> {
    let alarm = before.alarm.as_ref().filter(|_| status.alarm.is_none())?;
    Some(notice("AlarmCleared", format!("{} is over: {}", alarm.reason, ready_message(status))))
}

fn ready_message(status: &InferenceModelStatus) -> String {
    let ready = status.conditions.iter().find(|condition| condition.type_ == status::READY);
    ready.map(|condition| condition.message.clone()).unwrap_or_default()
}
