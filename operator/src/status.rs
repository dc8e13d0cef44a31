//! The status of a model: conditions, summaries, and the facts that pods have reported. Pure.
//!
//! `Ready` is about the declared revision only; `Available` is about whoever serves.

use crds::model::{
    ColdStart, InferenceModel, InferenceModelStatus, ModelFacts, Placement, RolloutPhase, RolloutStatus,
    StartSeconds, Summary,
};
use crds::report::OpenedModel;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;

use crate::objects;
use crate::plan::{Proof, Revision, furthest};
use crate::pod::{Reading, Stage};
use crate::problem::{Problem, Reason, one_line};

/// The spec can be acted on.
pub const ACCEPTED: &str = "Accepted";
/// The model's file is where the pods need it.
pub const MODEL_AVAILABLE: &str = "ModelAvailable";
/// The pods have nodes.
pub const SCHEDULED: &str = "Scheduled";
/// The declared revision is on its way.
pub const PROGRESSING: &str = "Progressing";
/// Somebody serves.
pub const AVAILABLE: &str = "Available";
/// The declared revision serves as declared, proved by one token.
pub const READY: &str = "Ready";

/// A model that was proved keeps its word for so many failed probes: a busy queue or a lost packet is no outage.
const PROBE_FAILURES_MAX: u32 = 3;

/// Where the declared revision stands, as `plan` sees it.
#[derive(Debug, Clone)]
pub struct Situation<'seen> {
    /// Name of the revision asked for.
    pub target: &'seen str,
    /// It, if it exists.
    pub current: Option<&'seen Revision>,
    /// The other revision that stays for now.
    pub keeper: Option<&'seen Revision>,
    /// All revisions that exist.
    pub all: &'seen [Revision],
    /// Replicas that it should have now.
    pub wanted: i32,
    /// Replicas that the pool grants.
    pub granted: i32,
    /// The pool's limit.
    pub replicas_max: Option<i32>,
    /// All wanted pods are ready.
    pub is_complete: bool,
    /// It has been proved, now or earlier.
    pub is_stable: bool,
    /// Its pods.
    pub readings: &'seen [Reading],
    /// The model as one of its pods opened it.
    pub opened: Option<&'seen OpenedModel>,
    /// How long its youngest pod took to start.
    pub start: Option<StartSeconds>,
    /// What came of asking it for a token through the Service.
    pub proof: Option<&'seen Proof>,
    /// The same from one of its pods.
    pub pod_proof: Option<&'seen Proof>,
    /// Whether tokens are asked for.
    pub is_probing: bool,
}

/// One condition without its history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    status: &'static str,
    reason: Reason,
    message: String,
}

impl Verdict {
    /// It is so.
    pub fn yes(reason: Reason, message: impl Into<String>) -> Self {
        Self { status: "True", reason, message: message.into() }
    }

    /// It is not so.
    pub fn no(reason: Reason, message: impl Into<String>) -> Self {
        Self { status: "False", reason, message: message.into() }
    }

    /// Nobody knows yet.
    pub fn unknown(message: impl Into<String>) -> Self {
        Self { status: "Unknown", reason: Reason::Unknown, message: message.into() }
    }

    /// The condition of type `type_`; its transition time is kept while its status stays.
    pub fn condition(
        self,
        type_: &str,
        before: &[Condition],
        generation: Option<i64>,
        now: Timestamp,
    ) -> Condition {
        let unchanged =
            before.iter().find(|condition| condition.type_ == type_ && condition.status == self.status);
        Condition {
            type_: type_.to_owned(),
            status: self.status.to_owned(),
            reason: self.reason.to_string(),
            message: one_line(&self.message),
            observed_generation: generation,
            last_transition_time: unchanged
                .map_or(Time(now), |condition| condition.last_transition_time.clone()),
        }
    }
}

/// The status while nothing can be done because of `problem`.
pub fn held(
    model: &InferenceModel,
    revisions: &[Revision],
    problem: &Problem,
    now: Timestamp,
) -> InferenceModelStatus {
    let before = model.status.clone().unwrap_or_default();
    let ready: i32 = revisions.iter().map(|revision| revision.ready).sum();
    let serving =
        revisions.iter().filter(|revision| revision.ready > 0).max_by_key(|revision| revision.ready);
    let message = keeps_serving(&problem.message, serving);
    let no = || Verdict::no(problem.reason, message.clone());
    let mut status = InferenceModelStatus {
        target_revision: None,
        rollout: Some(RolloutStatus { phase: RolloutPhase::Pending, summary: problem.reason.to_string() }),
        summary: Some(Summary {
            model: objects::served_name(model),
            replicas: format!("{ready}/{}", model.spec.replicas),
            revision: before.stable_revision.as_deref().map(short).unwrap_or_default().to_owned(),
            digest: before.summary.as_ref().and_then(|summary| summary.digest.clone()),
        }),
        ..common(model, revisions, before)
    };
    status.conditions = conditions(
        model,
        now,
        [
            (ACCEPTED, no()),
            (MODEL_AVAILABLE, Verdict::unknown("")),
            (SCHEDULED, Verdict::unknown("")),
            (PROGRESSING, no()),
            (AVAILABLE, available(ready)),
            (READY, no()),
        ],
    );
    status
}

/// The status of a model whose spec is being acted on.
pub fn rolling(model: &InferenceModel, situation: &Situation<'_>, now: Timestamp) -> InferenceModelStatus {
    let before = model.status.clone().unwrap_or_default();
    let Progress { phase, summary, ready } = progress(model, situation);
    let ready_pods: i32 = situation.all.iter().map(|revision| revision.ready).sum();
    let stable_revision = if situation.is_stable {
        Some(situation.target.to_owned())
    } else {
        situation.keeper.map(|keeper| keeper.name.clone())
    };
    let facts = situation.opened.map(|opened| facts(model, opened)).or_else(|| before.model.clone());
    let placement = situation.opened.map(placement).or(before.placement);
    let cold_start = situation.start.map(|last_seconds| ColdStart { last_seconds }).or(before.cold_start);
    let mut status = InferenceModelStatus {
        target_revision: (!situation.is_stable).then(|| situation.target.to_owned()),
        placement,
        cold_start,
        rollout: Some(RolloutStatus { phase, summary: with_revision(summary, situation) }),
        summary: Some(Summary {
            model: objects::served_name(model),
            replicas: replicas_summary(model, situation),
            revision: revision_summary(situation, stable_revision.as_deref()),
            digest: facts
                .as_ref()
                .and_then(|facts| facts.sha256.as_ref())
                .map(|hex| hex.chars().take(12).collect()),
        }),
        model: facts,
        stable_revision,
        ..common(model, situation.all, before)
    };
    status.conditions = conditions(
        model,
        now,
        [
            (ACCEPTED, Verdict::yes(Reason::Valid, "the spec is acted on")),
            (MODEL_AVAILABLE, model_available(model, situation)),
            (SCHEDULED, scheduled(situation)),
            (PROGRESSING, progressing(phase, &ready)),
            (AVAILABLE, available(ready_pods)),
            (READY, ready),
        ],
    );
    status
}

/// What does not depend on the situation.
fn common(
    model: &InferenceModel,
    revisions: &[Revision],
    before: InferenceModelStatus,
) -> InferenceModelStatus {
    InferenceModelStatus {
        observed_generation: model.metadata.generation,
        url: Some(objects::base_url(model)),
        replicas: revisions.iter().map(|revision| revision.replicas).sum(),
        ready_replicas: revisions.iter().map(|revision| revision.ready).sum(),
        selector: Some(objects::pod_selector(model)),
        ..before
    }
}

fn conditions<const COUNT: usize>(
    model: &InferenceModel,
    now: Timestamp,
    verdicts: [(&str, Verdict); COUNT],
) -> Vec<Condition> {
    let before = model.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    verdicts.map(|(type_, verdict)| verdict.condition(type_, before, model.metadata.generation, now)).into()
}

// === how far the declared revision is ===

struct Progress {
    phase: RolloutPhase,
    summary: String,
    ready: Verdict,
}

fn progress(model: &InferenceModel, situation: &Situation<'_>) -> Progress {
    if situation.wanted == 0 {
        return at_rest(model, situation);
    }
    if situation.is_complete {
        return complete(model, situation);
    }
    match problem(situation) {
        Some(problem) => failed(situation, &problem),
        None => moving(situation),
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
    if situation.granted < model.spec.replicas {
        return Progress {
            phase: RolloutPhase::Failed,
            summary: Reason::CapacityLimited.to_string(),
            ready: limited(model, situation),
        };
    }
    Progress {
        phase: RolloutPhase::Suspended,
        summary: "No replicas".to_owned(),
        ready: Verdict::no(Reason::NoReplicas, "spec.replicas is 0; set it to at least 1 to serve"),
    }
}

fn complete(model: &InferenceModel, situation: &Situation<'_>) -> Progress {
    let proving = |error: Option<&String>| Progress {
        phase: RolloutPhase::Proving,
        summary: "Proving".to_owned(),
        ready: Verdict::no(
            Reason::Proving,
            keeps_serving(
                &match error {
                    Some(error) => {
                        format!("all pods are ready, but one token was asked for in vain: {error}")
                    }
                    None => "all pods are ready; one token is asked for".to_owned(),
                },
                situation.keeper,
            ),
        ),
    };
    if !situation.is_stable {
        let proof = situation.pod_proof.or(situation.proof);
        return proving(proof.and_then(|proof| proof.error.as_ref()));
    }
    let served = Progress {
        phase: RolloutPhase::Stable,
        summary: "Stable".to_owned(),
        ready: Verdict::yes(
            Reason::ServedToken,
            format!("revision {} served one token through {}", situation.target, objects::base_url(model)),
        ),
    };
    let verdict = match situation.proof {
        _ if !situation.is_probing => Progress {
            ready: Verdict::yes(Reason::PodsReady, "all pods are ready; no token is asked for (--probe off)"),
            ..served
        },
        Some(proof) if proof.error.is_none() => served,
        // A restarted operator has forgotten its proofs. Until it has a new one, the last word holds.
        None if was_ready(model) => served,
        Some(proof) if proof.failures < PROBE_FAILURES_MAX && (proof.has_succeeded || was_ready(model)) => {
            served
        }
        Some(proof) if proof.failures >= PROBE_FAILURES_MAX => Progress {
            phase: RolloutPhase::Failed,
            summary: Reason::ProbeFailed.to_string(),
            ready: Verdict::no(
                Reason::ProbeFailed,
                format!(
                    "all pods are ready, but {} gives no token: {}",
                    objects::base_url(model),
                    proof.error.as_deref().unwrap_or("unknown")
                ),
            ),
        },
        other => proving(other.and_then(|proof| proof.error.as_ref())),
    };
    if verdict.phase == RolloutPhase::Stable && situation.granted < model.spec.replicas {
        return Progress { ready: limited(model, situation), ..verdict };
    }
    verdict
}

fn was_ready(model: &InferenceModel) -> bool {
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
            model.spec.replicas,
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
        return Progress {
            phase: RolloutPhase::Scaling,
            summary: format!("{ready}/{} ready, {}", situation.wanted, Reason::CapacityLimited),
            ready: Verdict::no(
                Reason::CapacityLimited,
                keeps_serving(
                    &format!("{ready} of {} replicas run; {}", situation.wanted, problem.message),
                    situation.keeper,
                ),
            ),
        };
    }
    Progress {
        phase: RolloutPhase::Failed,
        summary: problem.reason.to_string(),
        ready: Verdict::no(problem.reason, keeps_serving(&problem.message, situation.keeper)),
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
        let summary = format!("{ready}/{} ready, {}", situation.wanted, stage.summary());
        (RolloutPhase::Scaling, Reason::Scaling, summary)
    } else {
        (stage_phase, reason, stage.summary())
    };
    let message = format!("revision {}: {summary}", situation.target);
    let message = keeps_serving(&message, situation.keeper);
    Progress { phase, ready: Verdict::no(reason, message), summary }
}

fn keeps_serving(message: &str, keeper: Option<&Revision>) -> String {
    match keeper.filter(|keeper| keeper.ready > 0) {
        Some(keeper) => format!("{message}; revision {} keeps serving", keeper.name),
        None => message.to_owned(),
    }
}

// === the other conditions ===

fn available(ready_pods: i32) -> Verdict {
    if ready_pods > 0 {
        Verdict::yes(Reason::PodsReady, "at least one pod serves")
    } else {
        Verdict::no(Reason::PodsNotReady, "no pod serves")
    }
}

fn progressing(phase: RolloutPhase, ready: &Verdict) -> Verdict {
    let reason = ready.reason;
    match phase {
        RolloutPhase::Stable => Verdict::no(Reason::Stable, "the declared revision serves alone"),
        RolloutPhase::Suspended => Verdict::no(reason, "nothing is to run"),
        RolloutPhase::Failed => Verdict::no(reason, "the declared revision cannot start; pods keep trying"),
        _ => Verdict::yes(reason, "the declared revision is on its way"),
    }
}

fn scheduled(situation: &Situation<'_>) -> Verdict {
    if situation.readings.is_empty() {
        return Verdict::unknown("there are no pods");
    }
    let waiting = situation.readings.iter().filter(|reading| !reading.is_scheduled).count();
    if waiting == 0 {
        return Verdict::yes(Reason::PodsScheduled, "all pods have nodes");
    }
    let mut unplaced = situation.readings.iter().filter(|reading| !reading.is_scheduled);
    match unplaced.find_map(|reading| reading.problem.as_ref()) {
        Some(problem) => Verdict::no(problem.reason, &problem.message),
        None => Verdict::no(Reason::Scheduling, "pods wait for nodes"),
    }
}

fn model_available(model: &InferenceModel, situation: &Situation<'_>) -> Verdict {
    if situation.readings.iter().any(|reading| reading.has_model) {
        return match model.spec.source.sha256 {
            Some(_) => Verdict::yes(Reason::DigestVerified, "the file has the declared sha256"),
            None => Verdict::yes(Reason::Fetched, "the file is complete; spec.source.sha256 is not set"),
        };
    }
    let stage = furthest(situation.readings);
    match (situation.readings.iter().find_map(|reading| reading.problem.as_ref()), stage) {
        (Some(problem), Some(Stage::Downloading { .. } | Stage::Verifying)) => {
            Verdict::no(problem.reason, &problem.message)
        }
        (_, Some(Stage::Downloading { .. } | Stage::Verifying)) => {
            Verdict::no(Reason::Downloading, "the file is being fetched")
        }
        _ => Verdict::unknown("no pod has begun to fetch the file"),
    }
}

// === facts and short strings ===

/// A server does not hash what it opens. But it has only been started because the declared digest was found.
fn facts(model: &InferenceModel, opened: &OpenedModel) -> ModelFacts {
    ModelFacts {
        architecture: one_line(&opened.architecture),
        quantization: one_line(&opened.quantization),
        size_bytes: i64::try_from(opened.size_bytes).unwrap_or(i64::MAX),
        trained_context_length: i64::from(opened.trained_context_length),
        context_length: i64::from(opened.context_length),
        sha256: opened.sha256.as_deref().map(one_line).or_else(|| model.spec.source.sha256.clone()),
    }
}

fn placement(opened: &OpenedModel) -> Placement {
    Placement {
        layers_total: i32::try_from(opened.layers_total).unwrap_or(i32::MAX),
        layers_offloaded: i32::try_from(opened.layers_offloaded).unwrap_or(i32::MAX),
    }
}

/// The hash at the end of a revision's name.
fn short(revision: &str) -> &str {
    revision.rsplit('-').next().unwrap_or(revision)
}

fn revision_summary(situation: &Situation<'_>, stable: Option<&str>) -> String {
    match stable.filter(|stable| *stable != situation.target) {
        Some(stable) => format!("{}→{}", short(stable), short(situation.target)),
        None => short(situation.target).to_owned(),
    }
}

fn with_revision(summary: String, situation: &Situation<'_>) -> String {
    match situation.keeper {
        Some(_) => format!("{}: {summary}", short(situation.target)),
        None => summary,
    }
}

fn replicas_summary(model: &InferenceModel, situation: &Situation<'_>) -> String {
    let of = |revision: Option<&Revision>| revision.map_or(0, |revision| revision.ready);
    let serving = of(situation.current).max(of(situation.keeper));
    let asked = if model.spec.suspend == Some(true) { 0 } else { model.spec.replicas };
    format!("{serving}/{asked}")
}
