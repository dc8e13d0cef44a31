//! The status of a model: conditions, summaries, and the facts that pods have reported. Pure.
//!
//! `Ready` is about the declared revision only; `Available` is about whoever serves.

mod alarm;
mod canary;
mod facts;
mod progress;
mod underpowered;

use crds::model::{
    AnalysisStatus, ChosenCapacity, ColdStart, DrainingPod, FormerRevision, InferenceModel,
    InferenceModelStatus, RolloutPhase, RolloutStatus, RolloutStrategy, Summary,
};
use crds::report::{DrawKind, DrawSums, OpenedModel};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;

use crate::autoscale;
use crate::autoscale::tell::{self, Seen};
use crate::conduct::{self, Conducted, Former, conducts};
use crate::experiment;
use crate::golden;
use crate::objects;
use crate::plan::Proof;
use crate::pod::{Reading, Stage};
use crate::problem::{Problem, Reason, one_line};
use crate::revision::Revision;
use crate::rollout::{self, Roles};
use crate::start;
use crate::trial;
use facts::{facts, placement, replicas_summary, revision_summary, short};
pub(crate) use progress::was_ready;
use progress::{Progress, keeps_serving, progress};
pub use underpowered::ANALYSIS_UNDERPOWERED;

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
pub const PROBE_FAILURES_MAX: u32 = 3;

/// Where the declared revision stands, as `plan` sees it.
#[derive(Debug, Clone)]
pub struct Situation<'seen> {
    /// Name of the revision asked for.
    pub target: &'seen str,
    /// It, if it exists.
    pub current: Option<&'seen Revision>,
    /// All revisions that exist.
    pub all: &'seen [Revision],
    /// What they are to each other.
    pub roles: &'seen Roles<'seen>,
    /// Replicas that are asked for, by the user or by the autoscaler.
    pub asked: i32,
    /// Replicas that the model should have now.
    pub wanted: i32,
    /// Pods that the revision asked for should have now.
    pub target_pods: i32,
    /// Pods that a revision beside it should have now.
    pub stable_pods: i32,
    /// Replicas that the pool grants.
    pub granted: i32,
    /// The pool's limit.
    pub replicas_max: Option<i32>,
    /// All wanted pods are ready.
    pub is_complete: bool,
    /// Its pods that leave.
    pub draining: &'seen [DrainingPod],
    /// Where its rollout stands, if the operator drives it.
    pub conducted: Option<&'seen Conducted>,
    /// Its pods.
    pub readings: &'seen [Reading],
    /// What the nodes lack for one more of them, if that is known.
    pub shortage: Option<String>,
    /// The model as one of its pods opened it.
    pub opened: Option<&'seen OpenedModel>,
    /// How long starts have taken.
    pub cold_start: Option<ColdStart>,
    /// What came of asking the [`spokesman`](Self::spokesman) for a token through the gateway.
    pub gateway_proof: Option<&'seen Proof>,
    /// What came of asking one of the target's pods.
    pub pod_proof: Option<&'seen Proof>,
    /// Whether tokens are asked for.
    pub is_probing: bool,
    /// Where the target stands with its golden prompts, if it has to pass any.
    pub golden: Option<&'seen golden::standing::Standing>,
    /// Whether a pod of the pool's gateway is ready.
    pub has_gateway: bool,
    /// How many replicas the load asks for, if decisions are made.
    pub seen: Option<&'seen Seen>,
    /// The last verdict on the canary, if there is one.
    pub trial: Option<&'seen trial::tell::Seen>,
    /// What came of copies that the canary got, if there were any.
    pub shadow: Option<&'seen trial::shadow::Seen>,
    /// What came of feature flags and experiments as they are declared.
    pub draws: &'seen [DrawSums],
}

impl Situation<'_> {
    /// Whether gateways are to know nothing of the target yet: they send a first revision whatever comes, and this one
    /// has golden prompts to pass. Requests are held meanwhile.
    pub fn is_withheld(&self) -> bool {
        self.golden.is_some() && !self.roles.is_stable && self.roles.keeper.is_none()
    }

    /// The revision that stands for the model towards clients: the one that gets what no other revision gets.
    pub fn spokesman(&self) -> &str {
        self.roles.keeper.filter(|_| !self.roles.is_stable).map_or(self.target, |keeper| &keeper.name)
    }
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
        // Nobody knows the target now. But gateways go on sending a first revision what it was sent before.
        target_revision: before.target_revision.clone().filter(|_| before.stable_revision.is_none()),
        // Who was to leave stays, so it serves.
        draining: Vec::new(),
        rollout: Some(RolloutStatus {
            phase: RolloutPhase::Pending,
            summary: problem.reason.to_string(),
            percent: None,
            ready_at: None,
            ..before.rollout.clone().unwrap_or_else(pending)
        }),
        summary: Some(Summary {
            model: objects::served_name(model),
            replicas: format!("{ready}/{}", autoscale::asked(model, None, now)),
            revision: before.stable_revision.as_deref().map(short).unwrap_or_default().to_owned(),
            digest: before.summary.as_ref().and_then(|summary| summary.digest.clone()),
        }),
        ..common(model, revisions, before)
    };
    let verdicts = vec![
        (ACCEPTED, no()),
        (MODEL_AVAILABLE, Verdict::unknown("")),
        (SCHEDULED, Verdict::unknown("")),
        (PROGRESSING, no()),
        (AVAILABLE, available(ready)),
        (READY, no()),
    ];
    status.alarm = alarm::alarm(&status, RolloutPhase::Pending, &no(), ready, now);
    // Nothing is decided about how many pods there are, either.
    let scaling = autoscale::mode(&model.spec).map(|_| (tell::SCALING_ACTIVE, no()));
    status.conditions = conditions(model, now, verdicts.into_iter().chain(scaling));
    status
}

/// Nothing of a rollout.
fn pending() -> RolloutStatus {
    RolloutStatus {
        phase: RolloutPhase::Pending,
        summary: String::new(),
        percent: None,
        ready_at: None,
        weight_basis_points: None,
        analysis: None,
        shadow: None,
        step: None,
        steps: None,
        capacity_strategy: None,
        former: None,
        rollback_seconds: None,
        course: None,
        failed_revisions: Vec::new(),
        pod_variations: Vec::new(),
        acknowledged_action: None,
    }
}

/// When the next pod of the target is expected.
fn ready_at(situation: &Situation<'_>, now: Timestamp) -> Option<Timestamp> {
    let history = situation.cold_start.as_ref().map(|history| start::of(history, situation.target));
    start::expected_at(situation.readings, history.as_ref(), now)
}

/// The status of a model whose spec is being acted on.
pub fn rolling(model: &InferenceModel, situation: &Situation<'_>, now: Timestamp) -> InferenceModelStatus {
    let before = model.status.clone().unwrap_or_default();
    let Progress { phase, summary, ready } = progress(model, situation);
    let ready_pods: i32 = situation.all.iter().map(|revision| revision.ready).sum();
    let Roles { is_stable, keeper, weight, .. } = *situation.roles;
    let stable_revision = match keeper {
        _ if is_stable => Some(situation.target.to_owned()),
        keeper => keeper.map(|keeper| keeper.name.clone()),
    };
    let canary_revision = match situation.conducted {
        Some(conducted) => conducted.state.canary.clone(),
        None => (rollout::strategy(&model.spec) == RolloutStrategy::Canary)
            .then(|| situation.target.to_owned())
            .filter(|_| keeper.is_some() && !is_stable),
    };
    let alarm = alarm::alarm(&before, phase, &ready, ready_pods, now);
    let declared = experiment::declared(&model.spec);
    let drawn = |kind, told: &[_]| experiment::tell::status(kind, &declared, told, situation.draws);
    let facts = situation.opened.map(|opened| facts(model, opened)).or_else(|| before.model.clone());
    let placement = situation.opened.map(placement).or(before.placement);
    let mut status = InferenceModelStatus {
        alarm,
        target_revision: (!is_stable && !situation.is_withheld()).then(|| situation.target.to_owned()),
        placement,
        cold_start: situation.cold_start.clone(),
        rollout: Some(RolloutStatus {
            phase,
            summary,
            percent: percent(phase, situation),
            ready_at: ready_at(situation, now).map(Time),
            weight_basis_points: canary_revision.as_ref().map(|_| weight),
            analysis: analysis(model, situation, canary_revision.as_deref(), now),
            shadow: trial::shadow::status(
                model.status.as_ref(),
                canary_revision.as_deref(),
                situation.shadow,
            ),
            pod_variations: trial::tell::variations(model, canary_revision.as_deref(), situation.trial),
            ..of_canary(model, situation)
        }),
        canary_revision,
        draining: situation.draining.to_vec(),
        experiments: drawn(DrawKind::Experiment, &before.experiments),
        feature_flags: drawn(DrawKind::Flag, &before.feature_flags),
        autoscaling: tell::status(model, situation.asked, situation.seen, now),
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
    let verdicts = vec![
        (ACCEPTED, Verdict::yes(Reason::Valid, "the spec is acted on")),
        (MODEL_AVAILABLE, model_available(model, situation)),
        (SCHEDULED, scheduled(situation)),
        (PROGRESSING, progressing(phase, &ready)),
        (AVAILABLE, available(ready_pods)),
        (READY, ready),
    ];
    let scaling =
        tell::verdicts(model, status.autoscaling.as_ref(), situation.seen, situation.shortage.as_deref());
    let analysis = status.rollout.as_ref().and_then(|rollout| rollout.analysis.as_ref());
    let is_enforced = conduct::is_enforced(&model.spec);
    // Where the stable pods end first, nothing is compared.
    let is_recreated = status.rollout.as_ref().and_then(|rollout| rollout.capacity_strategy)
        == Some(ChosenCapacity::Recreate);
    let judged = status.canary_revision.as_deref().filter(|_| !is_recreated);
    let trial = trial::tell::verdict(judged, analysis, situation.trial, is_enforced);
    let power =
        situation.conducted.and_then(|conducted| underpowered::verdict(conducted, analysis, is_enforced));
    status.conditions = conditions(model, now, verdicts.into_iter().chain(scaling).chain(trial).chain(power));
    status
}

/// What is kept of a canary that the operator drives.
fn of_canary(model: &InferenceModel, situation: &Situation<'_>) -> RolloutStatus {
    let Some(conducted) = situation.conducted else {
        let before = model.status.as_ref().and_then(|status| status.rollout.clone());
        let before = before.filter(|_| conducts(&model.spec)).unwrap_or_else(pending);
        let RolloutStatus { failed_revisions, acknowledged_action, .. } = before;
        return RolloutStatus { failed_revisions, acknowledged_action, ..pending() };
    };
    let mut rollout = RolloutStatus {
        failed_revisions: conducted.failed.clone(),
        acknowledged_action: conducted.acknowledged.clone(),
        former: conducted.former.as_ref().map(told),
        rollback_seconds: conducted.rollback_seconds,
        ..pending()
    };
    conduct::store(&mut rollout, &conducted.state);
    rollout.steps = rollout.step.and_then(|_| i32::try_from(conducted.declared.steps.len()).ok());
    rollout
}

fn told(former: &Former) -> FormerRevision {
    let until = i64::try_from(former.until_ms / 1_000).ok();
    let until = until.and_then(|second| Timestamp::from_second(second).ok()).unwrap_or(Timestamp::MAX);
    FormerRevision { revision: former.revision.clone(), until: Time(until) }
}

/// The verdict on `canary`; what was found of one that has gone stays while its revision is asked for.
fn analysis(
    model: &InferenceModel,
    situation: &Situation<'_>,
    canary: Option<&str>,
    now: Timestamp,
) -> Option<AnalysisStatus> {
    let has_failed = situation
        .conducted
        .is_some_and(|conducted| conducted.failed.iter().any(|failed| failed.revision == situation.target));
    if canary.is_none() && has_failed {
        return model.status.as_ref()?.rollout.as_ref()?.analysis.clone();
    }
    trial::tell::status(model, canary, situation.trial, now)
}

/// Progress of the phase, where the pod that is furthest has said it.
fn percent(phase: RolloutPhase, situation: &Situation<'_>) -> Option<i32> {
    match (phase, progress::furthest(situation.readings)?) {
        (RolloutPhase::Downloading, Stage::Downloading { percent, .. })
        | (RolloutPhase::Loading, Stage::Loading { percent }) => percent.map(i32::from),
        _ => None,
    }
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

fn conditions(
    model: &InferenceModel,
    now: Timestamp,
    verdicts: impl Iterator<Item = (&'static str, Verdict)>,
) -> Vec<Condition> {
    let before = model.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    verdicts
        .map(|(type_, verdict)| verdict.condition(type_, before, model.metadata.generation, now))
        .collect()
}

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
        RolloutPhase::Canary => {
            Verdict::yes(Reason::CanaryServing, "two revisions share the traffic as declared")
        }
        RolloutPhase::Analysing => {
            Verdict::yes(Reason::CanaryAnalysing, "the canary serves its share and is judged")
        }
        RolloutPhase::Paused | RolloutPhase::Inconclusive => {
            Verdict::yes(Reason::CanaryPaused, "the canary serves its share until a person decides")
        }
        RolloutPhase::Promoting => {
            Verdict::yes(Reason::CanaryPromoting, "the declared revision takes all traffic")
        }
        RolloutPhase::Suspended => Verdict::no(reason, "nothing is to run"),
        RolloutPhase::Failed => Verdict::no(reason, "the declared revision cannot start; pods keep trying"),
        RolloutPhase::RolledBack | RolloutPhase::Aborted | RolloutPhase::Killed => {
            Verdict::no(reason, "the declared revision is not tried again")
        }
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
    let stage = progress::furthest(situation.readings);
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
