//! What a request meets when no pod is ready: what to tell its client, and whether waiting is worth it. Pure.
//!
//! Early and honest: who would wait in vain is told so at once, with the cause and when to come back, instead of being
//! held until its own deadline.

use std::time::Duration;

use super::view::{Failure, KillSwitch, ModelView};
use crate::queue::waiting::RETRY_AFTER_MAX;

/// Reasons of the operator that say: no room, rather than something wrong with the model.
const CAPACITY_REASONS: [&str; 3] = ["InsufficientCapacity", "CapacityLimited", "PodsRefused"];

/// What people have to change is worth another look after half a minute; about as long as a corrected object takes to
/// become a started pod.
const RETRY_AFTER_CHANGE: Duration = Duration::from_secs(30);

/// What a request that meets no ready pod has to expect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outlook {
    /// For people: `starting a replica: downloading 43%, ready in about 12 s`.
    pub text: String,
    /// When a replica is expected to be ready, from now; `None` when that is not known or the time has passed.
    pub eta: Option<Duration>,
    /// Why nothing will come.
    pub obstacle: Option<Cause>,
}

/// Why there is no answer. Its text is for the client.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Cause {
    /// The kill switch is on `Model`.
    #[error("this model is switched off (spec.killSwitch is Model)")]
    Disabled,
    /// Suspended on request.
    #[error("this model is suspended (spec.suspend is true)")]
    Suspended,
    /// No node, quota or device takes a pod.
    #[error("no replica can be placed: {}: {}", .0.reason, .0.message)]
    NoCapacity(Failure),
    /// It cannot start.
    #[error("no replica can start: {}: {}", .0.reason, .0.message)]
    Failed(Failure),
    /// It will not be ready in time; with the outlook's text.
    #[error("no replica is ready within the request's time: {0}")]
    Starting(String),
}

impl Cause {
    /// The code in the error's body and in metrics.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Disabled => "model_disabled",
            Self::Suspended => "model_suspended",
            Self::NoCapacity(_) => "no_capacity",
            Self::Failed(_) => "model_failed",
            Self::Starting(_) => "model_starting",
        }
    }
}

/// A refusal, before the request has waited in vain.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{cause}")]
pub struct Unavailable {
    /// Why.
    pub cause: Cause,
    /// When another try is worth it, between one second and two minutes; without jitter.
    pub retry_after: Duration,
}

/// What a request to this model has to expect at `now_ms` (milliseconds since 1970). While a pod is ready, only the kill
/// switch is an obstacle.
pub fn outlook(model: &ModelView, now_ms: u64) -> Outlook {
    let obstacle = obstacle(model);
    let ready_in = model.start.ready_at_ms.and_then(|at| at.checked_sub(now_ms)).filter(|left| *left > 0);
    let eta = ready_in.map(Duration::from_millis).filter(|_| obstacle.is_none());
    let text = match &obstacle {
        Some(cause) => cause.to_string(),
        None if model.is_ready() => "a replica is ready".to_owned(),
        None => progress(model, eta),
    };
    Outlook { text, eta, obstacle }
}

/// Whether waiting is worth it for a request with so much time left.
pub fn admit(outlook: &Outlook, time_left: Duration) -> Result<(), Unavailable> {
    if let Some(cause) = &outlook.obstacle {
        return Err(Unavailable { cause: cause.clone(), retry_after: RETRY_AFTER_CHANGE });
    }
    match outlook.eta {
        Some(eta) if eta > time_left => Err(Unavailable {
            cause: Cause::Starting(outlook.text.clone()),
            retry_after: eta.clamp(Duration::from_secs(1), RETRY_AFTER_MAX),
        }),
        _ => Ok(()),
    }
}

fn obstacle(model: &ModelView) -> Option<Cause> {
    if model.kill_switch == KillSwitch::Model {
        return Some(Cause::Disabled);
    }
    if model.is_ready() {
        return None;
    }
    if model.is_suspended {
        return Some(Cause::Suspended);
    }
    let failure = model.start.failure.clone()?;
    let is_capacity = CAPACITY_REASONS.contains(&failure.reason.as_str());
    Some(if is_capacity { Cause::NoCapacity(failure) } else { Cause::Failed(failure) })
}

fn progress(model: &ModelView, eta: Option<Duration>) -> String {
    let start = &model.start;
    let act = if start.wanted == 0 { "asking for a replica" } else { "starting a replica" };
    let phase = match start.percent.filter(|_| !start.phase.contains('%')) {
        _ if start.phase.is_empty() => String::new(),
        Some(percent) => format!(": {} {percent}%", start.phase),
        None => format!(": {}", start.phase),
    };
    let ready = eta.map(|eta| format!(", ready in about {} s", eta.as_millis().div_ceil(1_000)));
    format!("{act}{phase}{}", ready.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::view::{EndpointView, RevisionView, Start};

    const NOW_MS: u64 = 1_800_000_000_000;

    fn starting(phase: &str, ready_in_ms: Option<i64>) -> ModelView {
        let ready_at_ms = ready_in_ms.map(|ms| NOW_MS.saturating_add_signed(ms));
        let start = Start { wanted: 1, phase: phase.into(), ready_at_ms, ..Start::default() };
        ModelView { start, ..ModelView::default() }
    }

    fn failing(reason: &str) -> ModelView {
        let failure = Some(Failure { reason: reason.into(), message: "because".into() });
        ModelView { start: Start { failure, ..Start::default() }, ..ModelView::default() }
    }

    fn refused(model: &ModelView, time_left_s: u64) -> Option<(&'static str, u64)> {
        let refusal = admit(&outlook(model, NOW_MS), Duration::from_secs(time_left_s)).err()?;
        Some((refusal.cause.code(), refusal.retry_after.as_secs()))
    }

    #[test]
    fn the_text_says_phase_percent_and_time() {
        let text = |model: &ModelView| outlook(model, NOW_MS).text;
        assert_eq!(
            text(&starting("downloading 43%", Some(11_500))),
            "starting a replica: downloading 43%, ready in about 12 s"
        );
        let mut model = starting("downloading", None);
        model.start.percent = Some(7);
        assert_eq!(text(&model), "starting a replica: downloading 7%");
        assert_eq!(text(&starting("", None)), "starting a replica");
        assert_eq!(text(&ModelView::default()), "asking for a replica");
        assert_eq!(
            text(&starting("loading", Some(-5))),
            "starting a replica: loading",
            "it is late: no figure"
        );
    }

    #[test]
    fn who_cannot_wait_long_enough_is_told_at_once() {
        let model = starting("loading", Some(40_000));
        assert_eq!(refused(&model, 39), Some(("model_starting", 40)));
        assert_eq!(refused(&model, 40), None);
        assert_eq!(refused(&starting("loading", Some(-1)), 1), None, "nobody knows when: wait");
        assert_eq!(refused(&starting("loading", Some(900_000)), 300), Some(("model_starting", 120)));
        assert_eq!(refused(&starting("loading", Some(1)), 0), Some(("model_starting", 1)));
    }

    #[test]
    fn what_will_not_come_is_refused_with_its_cause() {
        assert_eq!(refused(&failing("InsufficientCapacity"), 300), Some(("no_capacity", 30)));
        assert_eq!(refused(&failing("ImagePullFailed"), 300), Some(("model_failed", 30)));
        let text = outlook(&failing("DigestMismatch"), NOW_MS).text;
        assert_eq!(text, "no replica can start: DigestMismatch: because");
        let model = ModelView { is_suspended: true, ..failing("EngineLost") };
        assert_eq!(refused(&model, 300), Some(("model_suspended", 30)));
        let model = ModelView { kill_switch: KillSwitch::Model, ..model };
        assert_eq!(refused(&model, 300), Some(("model_disabled", 30)));
    }

    #[test]
    fn with_a_ready_pod_only_the_kill_switch_stands_in_the_way() {
        let endpoint = EndpointView {
            address: ([10, 0, 0, 1], 80).into(),
            pod: "p".into(),
            is_ready: true,
            is_leaving: false,
        };
        let revisions = vec![RevisionView { endpoints: vec![endpoint], ..RevisionView::default() }];
        let model = ModelView { revisions, is_suspended: true, ..failing("EngineLost") };
        assert_eq!(outlook(&model, NOW_MS).text, "a replica is ready");
        assert_eq!(refused(&model, 0), None);
        let model = ModelView { kill_switch: KillSwitch::Rollout, ..model };
        assert_eq!(refused(&model, 0), None);
        let model = ModelView { kill_switch: KillSwitch::Model, ..model };
        assert_eq!(refused(&model, 300), Some(("model_disabled", 30)));
    }
}
