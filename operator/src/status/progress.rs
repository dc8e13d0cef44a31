//! How far the declared revision is, and whether it is Ready. Pure.

use crds::model::{InferenceModel, KillSwitch, RolloutPhase};

use super::canary;
use super::facts::short;
use super::{PROBE_FAILURES_MAX, READY, Situation, Verdict};
use crate::autoscale;
use crate::gateway;
use crate::golden::standing::Standing;
use crate::objects;
use crate::plan::Proof;
use crate::pod::{Reading, Stage};
use crate::problem::{Problem, Reason};
use crate::revision::Revision;
use crate::rollout::percent;

/// How far the declared revision is, and whether it is Ready.
pub(super) struct Progress {
    /// For machines.
    pub(super) phase: RolloutPhase,
    /// For people.
    pub(super) summary: String,
    /// The Ready condition.
    pub(super) ready: Verdict,
}

/// Decides how far the declared revision is.
pub(super) fn progress(model: &InferenceModel, situation: &Situation<'_>) -> Progress {
    let progress = if situation.wanted == 0 {
        at_rest(model, situation)
    } else if let Some(conducted) = situation.conducted.filter(|_| !situation.roles.is_stable) {
        canary::progress(model, situation, conducted)
    } else if situation.is_complete {
        complete(model, situation)
    } else {
        starting(situation)
    };
    Progress { summary: summary(situation, &progress), ..progress }
}

/// Some pods are not ready yet.
pub(super) fn starting(situation: &Situation<'_>) -> Progress {
    match problem(situation) {
        Some(problem) => failed(situation, &problem),
        None => moving(situation),
    }
}

/// `8f2aa 25%` of a canary that gets its share; `8f2aa: Loading 80%` of any revision that replaces another.
fn summary(situation: &Situation<'_>, progress: &Progress) -> String {
    let target = short(situation.target);
    match (progress.phase, situation.roles.keeper) {
        (
            RolloutPhase::Canary
            | RolloutPhase::Analysing
            | RolloutPhase::Paused
            | RolloutPhase::Inconclusive
            | RolloutPhase::Promoting,
            _,
        ) => format!("{target} {}", progress.summary),
        (_, Some(_)) => format!("{target}: {}", progress.summary),
        (_, None) => progress.summary.clone(),
    }
}

fn at_rest(model: &InferenceModel, situation: &Situation<'_>) -> Progress {
    if model.spec.suspend == Some(true) {
        let message = "spec.suspend is true; set it to false to serve";
        return Progress {
            phase: RolloutPhase::Suspended,
            summary: "Suspended".to_owned(),
            ready: Verdict::no(Reason::Suspended, message),
        };
    }
    if situation.granted < situation.asked {
        return Progress {
            phase: RolloutPhase::Failed,
            summary: Reason::CapacityLimited.to_string(),
            ready: limited(model, situation),
        };
    }
    if autoscale::may_rest(&model.spec) && situation.roles.is_stable {
        let message = "no pod runs, because nothing has come for so long; the first request starts one";
        return Progress {
            phase: RolloutPhase::Stable,
            summary: "At zero".to_owned(),
            ready: Verdict::yes(Reason::ScaledToZero, message),
        };
    }
    if autoscale::may_rest(&model.spec) && situation.conducted.is_some() {
        let message = format!(
            "no pod runs, because nothing has come for so long; the first request starts revision {}, and then {} \
             beside it",
            situation.spokesman(),
            situation.target
        );
        return Progress {
            phase: RolloutPhase::Stable,
            summary: "At zero".to_owned(),
            ready: Verdict::no(Reason::ScaledToZero, message),
        };
    }
    Progress {
        phase: RolloutPhase::Suspended,
        summary: "No replicas".to_owned(),
        ready: Verdict::no(Reason::NoReplicas, "spec.replicas is 0; set it to at least 1 to serve"),
    }
}

fn complete(model: &InferenceModel, situation: &Situation<'_>) -> Progress {
    let progress = if situation.roles.is_stable {
        served(model, situation, stable(model, situation))
    } else if situation.roles.is_able && situation.roles.keeper.is_some() {
        beside(model, situation)
    } else {
        return unproven(situation);
    };
    let is_well = matches!(progress.phase, RolloutPhase::Stable | RolloutPhase::Canary);
    if is_well && situation.granted < situation.asked {
        return Progress { ready: limited(model, situation), ..progress };
    }
    progress
}

fn stable(model: &InferenceModel, situation: &Situation<'_>) -> Progress {
    let message =
        format!("revision {} served one token through {}", situation.target, objects::base_url(model));
    Progress {
        phase: RolloutPhase::Stable,
        summary: "Stable".to_owned(),
        ready: Verdict::yes(Reason::ServedToken, message),
    }
}

/// The target is proven and runs beside the stable revision with its share of the traffic.
fn beside(model: &InferenceModel, situation: &Situation<'_>) -> Progress {
    let percent = percent(situation.roles.weight);
    let is_stopped = model.spec.kill_switch == Some(KillSwitch::Rollout);
    let summary = if is_stopped { "0%, kill switch".to_owned() } else { percent.clone() };
    let share = if is_stopped {
        "gets nothing while spec.killSwitch is Rollout".to_owned()
    } else {
        format!("gets {percent} of the keys")
    };
    sharing(model, situation, RolloutPhase::Canary, summary, &share)
}

/// The target has `share` beside the stable revision; both are as they should be if that one is.
pub(super) fn sharing(
    model: &InferenceModel,
    situation: &Situation<'_>,
    phase: RolloutPhase,
    summary: String,
    share: &str,
) -> Progress {
    let stable = situation.spokesman();
    let wanting = situation.roles.keeper.filter(|keeper| keeper.ready < situation.stable_pods);
    let canary = Progress {
        phase,
        summary,
        ready: Verdict::yes(
            Reason::ServedToken,
            format!(
                "revision {stable} served one token through {}; revision {} {share}",
                objects::base_url(model),
                situation.target
            ),
        ),
    };
    match wanting {
        Some(keeper) => Progress {
            ready: Verdict::no(
                Reason::Scaling,
                format!(
                    "{} of {} pods of stable revision {stable} are ready",
                    keeper.ready, situation.stable_pods
                ),
            ),
            ..canary
        },
        None => served(model, situation, canary),
    }
}

/// `so_far`, if a token comes through the gateway.
fn served(model: &InferenceModel, situation: &Situation<'_>, so_far: Progress) -> Progress {
    let gateway = gateway::name(&model.spec.pool_ref.name);
    if !situation.has_gateway {
        let message = format!(
            "all pods are ready, but no pod of gateway {gateway} is; the Ready condition of InferencePool {} says why",
            model.spec.pool_ref.name
        );
        return without_gateway(model, message);
    }
    if model.spec.kill_switch == Some(KillSwitch::Model) {
        let message = "spec.killSwitch is Model: every request is refused; set it to None to serve";
        return Progress { ready: Verdict::no(Reason::KillSwitch, message), ..so_far };
    }
    if !situation.is_probing {
        let message = "all pods are ready; no token is asked for (--probe off)";
        return Progress { ready: Verdict::yes(Reason::PodsReady, message), ..so_far };
    }
    match situation.gateway_proof {
        Some(proof) if proof.error.is_none() => so_far,
        // A restarted operator has forgotten its proofs. Until it has a new one, the last word holds.
        None if was_ready(model) => so_far,
        Some(proof) if proof.failures < PROBE_FAILURES_MAX && (proof.has_succeeded || was_ready(model)) => {
            so_far
        }
        Some(proof) if proof.failures >= PROBE_FAILURES_MAX => silent(model, proof),
        other => proving(situation, other.and_then(|proof| proof.error.as_ref())),
    }
}

/// No token has come for some time. If nobody listened at all, that is the gateway's fault and not the model's.
fn silent(model: &InferenceModel, proof: &Proof) -> Progress {
    let error = proof.error.as_deref().unwrap_or("unknown");
    let message = format!("all pods are ready, but {} gives no token: {error}", objects::base_url(model));
    if proof.is_unreached {
        return without_gateway(model, message);
    }
    Progress {
        phase: RolloutPhase::Failed,
        summary: Reason::ProbeFailed.to_string(),
        ready: Verdict::no(Reason::ProbeFailed, message),
    }
}

/// A gateway that is just being started is awaited; one that is gone is alarming.
fn without_gateway(model: &InferenceModel, message: String) -> Progress {
    let is_lost = was_ready(model) || has_reason(model, Reason::GatewayUnavailable, RolloutPhase::Failed);
    Progress {
        phase: if is_lost { RolloutPhase::Failed } else { RolloutPhase::Proving },
        summary: Reason::GatewayUnavailable.to_string(),
        ready: Verdict::no(Reason::GatewayUnavailable, message),
    }
}

fn has_reason(model: &InferenceModel, reason: Reason, phase: RolloutPhase) -> bool {
    model.status.as_ref().is_some_and(|status| {
        let is_in_phase = status.rollout.as_ref().is_some_and(|rollout| rollout.phase == phase);
        let is_for_reason = status
            .conditions
            .iter()
            .any(|condition| condition.type_ == READY && condition.reason == reason.to_string());
        is_in_phase && is_for_reason
    })
}

/// It is asked for a token, and then its golden prompts.
pub(super) fn unproven(situation: &Situation<'_>) -> Progress {
    let proof = situation.pod_proof.or(situation.gateway_proof);
    let error = proof.and_then(|proof| proof.error.as_ref());
    let has_token = error.is_none() && (proof.is_some() || !situation.is_probing);
    match situation.golden {
        Some(Standing::Failed(message)) => failed(
            situation,
            &Problem::new(
                Reason::GoldenPromptsFailed,
                format!("{message}; revision {} gets no traffic", situation.target),
            ),
        ),
        Some(Standing::Asking(obstacle)) if has_token => {
            let message = match obstacle {
                Some(obstacle) => format!("all pods are ready, but {obstacle}"),
                None => "all pods are ready; golden prompts are asked".to_owned(),
            };
            Progress {
                phase: RolloutPhase::Proving,
                summary: "Proving".to_owned(),
                ready: Verdict::no(Reason::Proving, keeps_serving(&message, situation.roles.keeper)),
            }
        }
        _ => proving(situation, error),
    }
}

pub(super) fn proving(situation: &Situation<'_>, error: Option<&String>) -> Progress {
    let message = match error {
        Some(error) => format!("all pods are ready, but one token was asked for in vain: {error}"),
        None => "all pods are ready; one token is asked for".to_owned(),
    };
    Progress {
        phase: RolloutPhase::Proving,
        summary: "Proving".to_owned(),
        ready: Verdict::no(Reason::Proving, keeps_serving(&message, situation.roles.keeper)),
    }
}

/// Whether the model was Ready by the status before, with a token for proof.
pub(crate) fn was_ready(model: &InferenceModel) -> bool {
    model.status.iter().flat_map(|status| &status.conditions).any(|condition| {
        condition.type_ == READY
            && condition.status == "True"
            && condition.reason == Reason::ServedToken.to_string()
    })
}

fn limited(model: &InferenceModel, situation: &Situation<'_>) -> Verdict {
    let ready = situation.current.map_or(0, |current| current.ready);
    Verdict::no(
        Reason::CapacityLimited,
        format!(
            "{ready} of {} replicas run; spec.limits.maxReplicas of pool {} is {} for all its models together; raise \
             it or lower spec.replicas",
            situation.asked,
            model.spec.pool_ref.name,
            situation.replicas_max.unwrap_or_default(),
        ),
    )
}

/// The first thing that hinders a pod of the declared revision.
fn problem(situation: &Situation<'_>) -> Option<Problem> {
    let of_pods = situation.readings.iter().find_map(|reading| reading.problem.clone());
    of_pods.or_else(|| {
        let refusal = situation.current?.refusal.as_ref()?;
        Some(Problem::new(Reason::PodsRefused, format!("pods cannot be created: {refusal}")))
    })
}

fn failed(situation: &Situation<'_>, problem: &Problem) -> Progress {
    let ready = situation.current.map_or(0, |current| current.ready);
    if problem.reason == Reason::InsufficientCapacity && ready > 0 {
        let shortage =
            situation.shortage.as_ref().map(|shortage| format!("{shortage}; ")).unwrap_or_default();
        let message =
            format!("{ready} of {} replicas run; {shortage}{}", situation.target_pods, problem.message);
        return Progress {
            phase: RolloutPhase::Scaling,
            summary: format!("{ready}/{} ready, {}", situation.target_pods, Reason::CapacityLimited),
            ready: Verdict::no(Reason::CapacityLimited, keeps_serving(&message, situation.roles.keeper)),
        };
    }
    Progress {
        phase: RolloutPhase::Failed,
        summary: problem.reason.to_string(),
        ready: Verdict::no(problem.reason, keeps_serving(&problem.message, situation.roles.keeper)),
    }
}

fn moving(situation: &Situation<'_>) -> Progress {
    let stage = furthest(situation.readings).unwrap_or(Stage::Starting);
    let (stage_phase, reason) = match stage {
        Stage::Scheduling => (RolloutPhase::Scheduling, Reason::Scheduling),
        Stage::Starting => (RolloutPhase::Starting, Reason::Starting),
        Stage::Downloading { .. } => (RolloutPhase::Downloading, Reason::Downloading),
        Stage::Verifying => (RolloutPhase::Verifying, Reason::Verifying),
        Stage::Loading { .. } => (RolloutPhase::Loading, Reason::Loading),
        Stage::WarmingUp | Stage::Ready => (RolloutPhase::WarmingUp, Reason::WarmingUp),
    };
    let ready = situation.current.map_or(0, |current| current.ready);
    let (phase, reason, summary) = if ready > 0 {
        let summary = format!("{ready}/{} ready, {}", situation.target_pods, stage.summary());
        (RolloutPhase::Scaling, Reason::Scaling, summary)
    } else {
        (stage_phase, reason, stage.summary())
    };
    let message = format!("revision {}: {summary}", situation.target);
    let message = keeps_serving(&message, situation.roles.keeper);
    Progress { phase, ready: Verdict::no(reason, message), summary }
}

/// The message, and who serves meanwhile.
pub(super) fn keeps_serving(message: &str, keeper: Option<&Revision>) -> String {
    match keeper.filter(|keeper| keeper.ready > 0) {
        Some(keeper) => format!("{message}; revision {} keeps serving", keeper.name),
        None => message.to_owned(),
    }
}

/// The furthest stage of the pods that do not serve yet; what people wait for.
pub(super) fn furthest(readings: &[Reading]) -> Option<Stage> {
    readings.iter().map(|reading| reading.stage).filter(|stage| *stage != Stage::Ready).max()
}
