//! Where a rollout stands, to and from the status: the same status gives the same state back, also to another operator.
//! Times are of the wall clock, in whole seconds. The verdict that ended a rollout stays in its words only, and which
//! command was obeyed stands beside the state. Pure.

use crds::model::{CanaryCourse, CanaryPhase, FailedRevision, InferenceModelStatus, RolloutStatus};
use judgement::rollout::{Failed, Phase, State};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::problem::one_line;

/// Where the rollout stands by `status`, if there is a stable revision.
pub fn state(status: &InferenceModelStatus, now_ms: u64) -> Option<State> {
    let new = State::new(status.stable_revision.as_deref()?, now_ms);
    let Some(rollout) = &status.rollout else { return Some(new) };
    let failed = rollout
        .failed_revisions
        .iter()
        .map(|failed| Failed { revision: failed.revision.clone(), retry_token: failed.retry_token.clone() });
    let new = State { failed: failed.collect(), ..new };
    let Some(course) = &rollout.course else { return Some(new) };
    let phase = |phase: CanaryPhase| renamed(&phase).unwrap_or(Phase::Stable);
    Some(State {
        phase: phase(course.phase),
        since_ms: millis(course.since.0),
        canary: status.canary_revision.clone(),
        step: rollout.step.and_then(|step| usize::try_from(step).ok()).unwrap_or(1).saturating_sub(1),
        step_since_ms: course.step_since.as_ref().map(|time| millis(time.0)),
        weight_basis_points: rollout
            .weight_basis_points
            .and_then(|weight| u16::try_from(weight).ok())
            .unwrap_or(0),
        strategy: rollout.capacity_strategy.as_ref().and_then(renamed),
        extra_pods: u32::try_from(course.extra_pods).unwrap_or(0),
        hold_since_ms: course.hold_since.as_ref().map(|time| millis(time.0)),
        suspect_since_ms: course.suspect_since.as_ref().map(|time| millis(time.0)),
        steps_back: u8::try_from(course.steps_back).unwrap_or(0),
        accepted: course.accepted_reasons.iter().filter_map(renamed).collect(),
        ending: phase(course.ending),
        is_underpowered: course.is_underpowered,
        message: course.message.clone(),
        ..new
    })
}

/// Writes where the rollout stands into `rollout`; a revision that serves alone needs no word. Which revisions it is about stands beside it in the status.
pub fn store(rollout: &mut RolloutStatus, state: &State) {
    let phase = |phase: Phase| renamed(&phase).unwrap_or(CanaryPhase::Stable);
    if state.phase == Phase::Stable {
        return;
    }
    rollout.step = i32::try_from(state.step + 1).ok();
    rollout.weight_basis_points = state.canary.as_ref().map(|_| i32::from(state.weight_basis_points));
    rollout.capacity_strategy = state.strategy.as_ref().and_then(renamed);
    rollout.course = Some(CanaryCourse {
        phase: phase(state.phase),
        since: time(state.since_ms),
        message: one_line(&state.message),
        step_since: state.step_since_ms.map(time),
        extra_pods: i32::try_from(state.extra_pods).unwrap_or(i32::MAX),
        hold_since: state.hold_since_ms.map(time),
        suspect_since: state.suspect_since_ms.map(time),
        steps_back: i32::from(state.steps_back),
        accepted_reasons: state.accepted.iter().filter_map(renamed).collect(),
        ending: phase(state.ending),
        is_underpowered: state.is_underpowered,
    });
}

/// The revisions that are not tried again: those that `status` knows keep their reasons.
pub(super) fn failed(status: &InferenceModelStatus, state: &State) -> Vec<FailedRevision> {
    let known =
        status.rollout.as_ref().map(|rollout| rollout.failed_revisions.as_slice()).unwrap_or_default();
    let tell = |failed: &Failed| {
        let is_it = |known: &&FailedRevision| {
            (&known.revision, &known.retry_token) == (&failed.revision, &failed.retry_token)
        };
        known.iter().find(is_it).cloned().unwrap_or_else(|| FailedRevision {
            revision: failed.revision.clone(),
            retry_token: failed.retry_token.clone(),
            ending: renamed(&state.ending).unwrap_or(CanaryPhase::Aborted),
            message: one_line(&state.message),
        })
    };
    state.failed.iter().map(tell).collect()
}

/// The same word in another type.
fn renamed<From: Serialize, To: DeserializeOwned>(word: &From) -> Option<To> {
    serde_json::from_value(serde_json::to_value(word).ok()?).ok()
}

pub(super) fn millis(time: Timestamp) -> u64 {
    u64::try_from(time.as_millisecond()).unwrap_or(0)
}

fn time(millis: u64) -> Time {
    let second = i64::try_from(millis / 1_000).unwrap_or(i64::MAX);
    Time(Timestamp::from_second(second).unwrap_or(Timestamp::MAX))
}
