//! A verdict as people and other programs read it: status, condition, event. Pure.

use crds::model::{
    AnalysisMetric, AnalysisOutcome, AnalysisStanding, AnalysisStatus, ClientFigures, InferenceModel,
    InferenceModelStatus, PodVariation,
};
use judgement::rollout::{self, Metric, MetricVerdict, Outcome, Verdict};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::{SignedDuration, Timestamp};

use crate::plan::Notice;
use crate::problem::{Reason, one_line};
use crate::status;

/// It is known whether the canary is well.
pub const ANALYSIS_CONCLUSIVE: &str = "AnalysisConclusive";

/// Kinds of nodes that are remembered: more than one model is likely to run on.
const VARIATIONS_MAX: usize = 8;

/// The last verdict, and on whom.
#[derive(Debug, Clone, PartialEq)]
pub struct Seen {
    /// The canary.
    pub canary: String,
    /// What was found.
    pub verdict: Verdict,
    /// What clients of both revisions notice in the present step.
    pub clients: Vec<ClientFigures>,
    /// What it teaches the next rollout, so far.
    pub learned: Option<PodVariation>,
    /// For how long the outcome has been this one, in milliseconds.
    pub age_ms: u64,
}

// === status ===

/// What `status.rollout.analysis` says of `canary`. What was told stays while it still says the same, and while nothing
/// is known yet of a canary that was judged before.
pub fn status(
    model: &InferenceModel,
    canary: Option<&str>,
    seen: Option<&Seen>,
    now: Timestamp,
) -> Option<AnalysisStatus> {
    let canary = canary?;
    let before = told(model.status.as_ref()?, canary);
    let Some(seen) = seen.filter(|seen| seen.canary == canary) else { return before.cloned() };
    let outcome = outcome(seen.verdict.outcome);
    let found = || Time(now - SignedDuration::from_millis(i64::try_from(seen.age_ms).unwrap_or(0)));
    let since =
        before.filter(|before| before.outcome == outcome).map_or_else(found, |before| before.since.clone());
    let status = analysis(seen, outcome, since);
    Some(before.filter(|before| is_same(before, &status)).cloned().unwrap_or(status))
}

/// What is known of each kind of node, now that `canary` is on trial, or nobody is: one that was, and was compared, has
/// taught something, however its rollout ended.
pub fn variations(model: &InferenceModel, canary: Option<&str>, seen: Option<&Seen>) -> Vec<PodVariation> {
    let Some(before) = &model.status else { return Vec::new() };
    let known = before.rollout.as_ref().map(|rollout| rollout.pod_variations.clone()).unwrap_or_default();
    let gone = before.canary_revision.as_deref().filter(|gone| Some(*gone) != canary);
    let learned =
        seen.filter(|seen| Some(seen.canary.as_str()) == gone).and_then(|seen| seen.learned.clone());
    let Some(learned) = learned else { return known };
    let mut others: Vec<_> =
        known.into_iter().filter(|known| known.node_class != learned.node_class).collect();
    others.drain(..(others.len() + 1).saturating_sub(VARIATIONS_MAX));
    others.into_iter().chain([learned]).collect()
}

/// What `status` says of `canary`.
fn told<'status>(status: &'status InferenceModelStatus, canary: &str) -> Option<&'status AnalysisStatus> {
    let is_of_it = status.canary_revision.as_deref() == Some(canary);
    status.rollout.as_ref().filter(|_| is_of_it)?.analysis.as_ref()
}

fn analysis(seen: &Seen, outcome: AnalysisOutcome, since: Time) -> AnalysisStatus {
    let Seen { verdict, clients, .. } = seen;
    let told = verdict.metrics.iter().filter(|found| is_told(found.metric));
    AnalysisStatus {
        outcome,
        reason: reason(verdict.reason).to_string(),
        message: one_line(&verdict.sentence),
        since,
        metrics: told.map(metric).collect(),
        budget_used_percent: i32::try_from(basis_points(verdict.budget_used) / 100).unwrap_or(100),
        pods_needed: verdict.pods_needed.and_then(|pods| i32::try_from(pods).ok()),
        clients: clients.clone(),
    }
}

/// Whether the gate means something to whoever reads the status: nobody has declared objectives.
fn is_told(metric: Metric) -> bool {
    !matches!(metric, Metric::SloMiss | Metric::TrafficSplit)
}

fn metric(found: &MetricVerdict) -> AnalysisMetric {
    let is_known = found.samples_canary > 0 && found.samples_control > 0;
    let has_bounds = matches!(
        found.metric,
        Metric::Decode | Metric::Prefill | Metric::UnqueuedTtft | Metric::OutputLength
    );
    let bound = |value: f64| Some(value).filter(|_| is_known && has_bounds).filter(|value| value.is_finite());
    let samples = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
    AnalysisMetric {
        name: format!("{:?}", found.metric),
        estimate_basis_points: Some(found.estimate).filter(|_| is_known).map(basis_points),
        lower_basis_points: bound(found.lower).map(basis_points),
        upper_basis_points: bound(found.upper).map(basis_points),
        samples_canary: samples(found.samples_canary),
        samples_stable: samples(found.samples_control),
        standing: match found.standing {
            rollout::Standing::TooFewSamples => AnalysisStanding::TooFewSamples,
            rollout::Standing::Undecided => AnalysisStanding::Undecided,
            rollout::Standing::Passing => AnalysisStanding::Passing,
            rollout::Standing::Failing => AnalysisStanding::Failing,
        },
    }
}

/// In 1/10 000, rounded.
#[expect(clippy::cast_possible_truncation, reason = "rounded, and the cast saturates")]
fn basis_points(share: f64) -> i64 {
    (share * 10_000.0).round() as i64
}

/// Whether what was told still says it: same outcome, same standings, same figures in whole percent, and samples that
/// have not doubled.
fn is_same(before: &AnalysisStatus, now: &AnalysisStatus) -> bool {
    let percent = |basis_points: Option<i64>| basis_points.map(|value| (value + 50).div_euclid(100));
    let doublings = |samples: i64| samples.max(0).checked_ilog2();
    let gist = |metric: &AnalysisMetric| {
        let figures = [metric.estimate_basis_points, metric.lower_basis_points, metric.upper_basis_points];
        let samples = [metric.samples_canary, metric.samples_stable].map(doublings);
        (metric.name.clone(), metric.standing, figures.map(percent), samples)
    };
    let whole = |status: &AnalysisStatus| {
        let metrics: Vec<_> = status.metrics.iter().map(gist).collect();
        (status.outcome, status.reason.clone(), status.budget_used_percent, status.pods_needed, metrics)
    };
    whole(before) == whole(now)
}

/// The same word in the status.
pub fn outcome(outcome: Outcome) -> AnalysisOutcome {
    match outcome {
        Outcome::Continue => AnalysisOutcome::Continue,
        Outcome::Pass => AnalysisOutcome::Pass,
        Outcome::Rollback => AnalysisOutcome::Rollback,
        Outcome::Suspect => AnalysisOutcome::Suspect,
        Outcome::Hold => AnalysisOutcome::Hold,
        Outcome::Pause => AnalysisOutcome::Pause,
        Outcome::Inconclusive => AnalysisOutcome::Inconclusive,
    }
}

fn reason(reason: rollout::Reason) -> Reason {
    match reason {
        rollout::Reason::Watching => Reason::Watching,
        rollout::Reason::WithinTolerance => Reason::WithinTolerance,
        rollout::Reason::DecodeSlower => Reason::DecodeSlower,
        rollout::Reason::PrefillSlower => Reason::PrefillSlower,
        rollout::Reason::UnqueuedTtftSlower => Reason::UnqueuedTtftSlower,
        rollout::Reason::MoreErrors => Reason::MoreErrors,
        rollout::Reason::EngineTail => Reason::EngineTail,
        rollout::Reason::CacheReuseLost => Reason::CacheReuseLost,
        rollout::Reason::FewerSlots => Reason::FewerSlots,
        rollout::Reason::ConfirmingPod => Reason::ConfirmingPod,
        rollout::Reason::UnequalExperience => Reason::UnequalExperience,
        rollout::Reason::OutputLengthChanged => Reason::OutputLengthChanged,
        rollout::Reason::TrafficSkew => Reason::TrafficSkew,
        rollout::Reason::NoComparableControl => Reason::NoComparableControl,
    }
}

// === condition ===

/// The condition of a model with a canary; none without. A verdict that came before a restart has only its words left.
pub fn verdict(
    canary: Option<&str>,
    told: Option<&AnalysisStatus>,
    seen: Option<&Seen>,
    is_enforced: bool,
) -> Option<(&'static str, status::Verdict)> {
    let canary = canary?;
    let verdict = match (told, seen) {
        (Some(told), Some(seen)) if seen.canary == canary => {
            let reason = reason(seen.verdict.reason);
            let follows = if is_enforced { "" } else { "; nothing follows by itself (mode Observe)" };
            let message = format!("{}{follows}", told.message);
            if is_conclusive(told.outcome) {
                status::Verdict::yes(reason, message)
            } else {
                status::Verdict::no(reason, message)
            }
        }
        (Some(told), _) => {
            status::Verdict::unknown(format!("the analysis begins anew; before, {}", told.message))
        }
        (None, _) => status::Verdict::unknown("the canary has not had traffic for long enough to be judged"),
    };
    Some((ANALYSIS_CONCLUSIVE, verdict))
}

/// Whether it says that the revision is well, or that it is not.
fn is_conclusive(outcome: AnalysisOutcome) -> bool {
    matches!(outcome, AnalysisOutcome::Pass | AnalysisOutcome::Rollback | AnalysisOutcome::Pause)
}

// === events ===

/// Another outcome than `before` has told of the same canary; that watching has begun is none.
pub fn notice(before: &InferenceModelStatus, status: &InferenceModelStatus) -> Option<Notice> {
    let canary = status.canary_revision.as_deref()?;
    let now = told(status, canary)?;
    let then = told(before, canary).map_or(AnalysisOutcome::Continue, |then| then.outcome);
    (now.outcome != then).then(|| Notice {
        is_warning: !matches!(now.outcome, AnalysisOutcome::Continue | AnalysisOutcome::Pass),
        reason: "CanaryVerdictChanged".to_owned(),
        message: format!("canary {canary}: {:?} ({}): {}", now.outcome, now.reason, now.message),
    })
}
