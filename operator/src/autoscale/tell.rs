//! A decision as people and other programs read it: status, conditions, events. Pure.

use crds::model::{
    AutoscalingMode, AutoscalingStatus, InferenceModel, InferenceModelStatus, ObjectivesStatus, PastDecision,
    PodMeasure, PricedCount, ScalingDecision, ScalingFigures,
};
use judgement::autoscale::{Decision, Figures, Limit, Millis, Price, Winner};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::{SignedDuration, Timestamp};

use super::{may_rest, mode, objectives};
use crate::load::Look;
use crate::load::objectives::{Aim, Aims, Objectives};
use crate::plan::Notice;
use crate::problem::Reason;
use crate::status::Verdict;

/// The operator decides how many pods there are.
pub const SCALING_ACTIVE: &str = "ScalingActive";
/// A bound keeps the number from what it would be.
pub const SCALING_LIMITED: &str = "ScalingLimited";
/// All who report on the model have done so lately.
pub const TELEMETRY_FRESH: &str = "TelemetryFresh";

/// A goal of spec.autoscaling.objectives is one that no number of pods can meet.
pub const OBJECTIVE_INFEASIBLE: &str = "ObjectiveInfeasible";
/// As many answers as wanted meet the goals of spec.autoscaling.objectives.
pub const OBJECTIVES_MET: &str = "ObjectivesMet";

/// Decisions that are remembered.
const DECISIONS_MAX: usize = 10;
/// Counts whose prices are told.
const PRICES_MAX: usize = 16;
/// A decision that says the same in other figures is told after this time.
const REFRESH_SECONDS: i64 = 30;
/// The same change wanted again within this time is the same decision, which has not come through yet.
const SAME_SECONDS: i64 = 15;

/// A look, and the moment `now` on both clocks.
#[derive(Debug, Clone, PartialEq)]
pub struct Seen {
    /// What was decided.
    pub look: Look,
    /// Now, on the clock of the load.
    pub now_ms: Millis,
}

impl Seen {
    fn time(&self, of: Millis, now: Timestamp) -> Time {
        let ago = i64::try_from(self.now_ms.since(of)).unwrap_or(0);
        let ahead = i64::try_from(of.since(self.now_ms)).unwrap_or(0);
        let at = now.checked_add(SignedDuration::from_millis(ahead - ago)).unwrap_or(now);
        Time(Timestamp::from_second(at.as_second()).unwrap_or(at))
    }
}

// === status ===

/// What `status.autoscaling` says; none without spec.autoscaling. `asked` is the number that holds.
pub fn status(
    model: &InferenceModel,
    asked: i32,
    seen: Option<&Seen>,
    now: Timestamp,
) -> Option<AutoscalingStatus> {
    let mode = mode(&model.spec)?;
    let before = model.status.as_ref().and_then(|status| status.autoscaling.clone()).unwrap_or_default();
    let Some(seen) = seen else {
        let last_decision = before.last_decision.filter(|_| mode == AutoscalingMode::Paused);
        return Some(AutoscalingStatus {
            desired_replicas: asked,
            last_decision,
            objectives: None,
            ..before
        });
    };
    let decision = &seen.look.decision;
    let told = scaling_decision(seen, now);
    Some(AutoscalingStatus {
        desired_replicas: count(decision.desired),
        decisions: remembered(before.decisions, &told),
        last_decision: Some(before.last_decision.filter(|last| is_same(last, &told)).unwrap_or(told)),
        pod: Some(pod(&seen.look, before.pod)),
        objectives: goals(model).map(|_| reckoned(&seen.look)),
    })
}

/// What the goals have made of the reckoning.
fn reckoned(look: &Look) -> ObjectivesStatus {
    let inputs = &look.decision.inputs;
    ObjectivesStatus {
        late_milliseconds: count(inputs.policy.late_ms),
        planned_slots: count(inputs.current.pod.slots),
        ttft_attained_percent: look.attained.first_token_percent.map(count),
        inter_token_attained_percent: look.attained.inter_token_percent.map(count),
    }
}

/// The goals for answers, if there are any.
fn goals(model: &InferenceModel) -> Option<Objectives> {
    model.spec.autoscaling.as_ref().map(objectives).filter(|goals| !goals.is_empty())
}

/// Whether what was told still says it.
fn is_same(before: &ScalingDecision, now: &ScalingDecision) -> bool {
    let gist = |decision: &ScalingDecision| (decision.current, decision.desired, decision.limits.clone());
    let age = now.time.0.as_second() - before.time.0.as_second();
    gist(before) == gist(now) && (0..REFRESH_SECONDS).contains(&age)
}

fn remembered(mut before: Vec<PastDecision>, told: &ScalingDecision) -> Vec<PastDecision> {
    let is_known = before.first().is_some_and(|last| {
        let age = told.time.0.as_second() - last.time.0.as_second();
        (last.current, last.desired) == (told.current, told.desired) && age < SAME_SECONDS
    });
    if told.current != told.desired && !is_known {
        let past = PastDecision {
            time: told.time.clone(),
            current: told.current,
            desired: told.desired,
            winner: told.winner.clone(),
            sentence: told.sentence.clone(),
        };
        before.insert(0, past);
        before.truncate(DECISIONS_MAX);
    }
    before
}

fn scaling_decision(seen: &Seen, now: Timestamp) -> ScalingDecision {
    let decision = &seen.look.decision;
    ScalingDecision {
        time: seen.time(decision.at, now),
        current: count(decision.current),
        desired: count(decision.desired),
        winner: format!("{:?}", decision.winner),
        sentence: decision.sentence.clone(),
        limits: decision.limits.iter().map(|limit| format!("{limit:?}")).collect(),
        no_scale_down_before: decision.no_scale_down_before.map(|until| seen.time(until, now)),
        figures: figures(&decision.figures),
        prices: prices(decision),
    }
}

fn figures(figures: &Figures) -> ScalingFigures {
    ScalingFigures {
        demand_millipods: thousandths(figures.demand),
        proven_millipods: thousandths(figures.proven),
        high_millipods: thousandths(figures.high),
        slope_millipods_per_minute: thousandths(figures.slope * 60.0),
        queue_pod_milliseconds: thousandths(figures.queue),
        calibration_percent: thousandths(figures.calibration / 10.0),
        load_seconds: thousandths(figures.load_s / 1_000.0),
        horizon_seconds: thousandths(figures.horizon_s / 1_000.0),
        like_moments: i64::try_from(figures.like_moments).unwrap_or(i64::MAX),
        bursts: i64::try_from(figures.bursts).unwrap_or(i64::MAX),
    }
}

/// The prices around the chosen number.
fn prices(decision: &Decision) -> Vec<PricedCount> {
    let all = &decision.figures.prices;
    let chosen = all.iter().position(|price| price.replicas == decision.wanted).unwrap_or(0);
    let first = chosen.saturating_sub(PRICES_MAX / 2).min(all.len().saturating_sub(PRICES_MAX));
    let told = |price: &Price| PricedCount {
        replicas: count(price.replicas),
        late_pod_milliseconds: thousandths(price.late),
        total_pod_milliseconds: thousandths(price.total),
    };
    all.iter().skip(first).take(PRICES_MAX).map(told).collect()
}

/// What was measured; of what changes by less than a tenth the earlier value, so that noise writes no status.
fn pod(look: &Look, before: Option<PodMeasure>) -> PodMeasure {
    let pod = &look.pod;
    let is_measured = look.is_measured || before.is_some_and(|before| before.is_measured);
    let measure = PodMeasure {
        slots: count(pod.slots),
        prefill_tokens_per_second: count(pod.prefill_tokens_per_second),
        step_base_microseconds: count(pod.step_base_us),
        step_per_request_microseconds: count(pod.step_per_request_us),
        is_measured,
    };
    let is_near = |now: i32, then: i32| (i64::from(now) - i64::from(then)).abs() * 10 <= i64::from(then);
    before
        .filter(|before| {
            let step = |of: &PodMeasure| of.step_base_microseconds + of.step_per_request_microseconds;
            before.slots == measure.slots
                && before.is_measured == measure.is_measured
                && is_near(measure.prefill_tokens_per_second, before.prefill_tokens_per_second)
                && is_near(step(&measure), step(before))
        })
        .unwrap_or(measure)
}

fn count(count: u32) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

/// In thousandths, rounded.
#[expect(clippy::cast_possible_truncation, reason = "rounded, and the cast saturates")]
fn thousandths(value: f64) -> i64 {
    (value * 1_000.0).round() as i64
}

// === conditions ===

/// The conditions of a model with spec.autoscaling; none without.
pub fn verdicts(
    model: &InferenceModel,
    status: Option<&AutoscalingStatus>,
    seen: Option<&Seen>,
    shortage: Option<&str>,
) -> Vec<(&'static str, Verdict)> {
    let Some(mode) = mode(&model.spec) else { return Vec::new() };
    let last = status.and_then(|status| status.last_decision.as_ref());
    let sentence = last.map_or("nothing is decided yet", |last| last.sentence.as_str());
    let active = match mode {
        _ if model.spec.suspend == Some(true) => {
            Verdict::no(Reason::Suspended, "spec.suspend is true; set it to false to serve")
        }
        AutoscalingMode::Auto => Verdict::yes(Reason::Deciding, sentence),
        AutoscalingMode::Observe => Verdict::no(
            Reason::Observing,
            format!("spec.replicas says how many pods there are (mode Observe); with mode Auto: {sentence}"),
        ),
        AutoscalingMode::Paused => Verdict::no(
            Reason::Paused,
            "spec.autoscaling.mode is Paused: the number of pods stays; set it to Auto to go on",
        ),
        AutoscalingMode::External => Verdict::no(
            Reason::External,
            "spec.replicas says how many pods there are (mode External), within minReplicas and maxReplicas",
        ),
    };
    let Some(seen) = seen else {
        let unknown = || Verdict::unknown("nothing is decided");
        let goals =
            goals(model).map(|_| [OBJECTIVE_INFEASIBLE, OBJECTIVES_MET].map(|type_| (type_, unknown())));
        let usual = [(SCALING_ACTIVE, active), (SCALING_LIMITED, unknown()), (TELEMETRY_FRESH, unknown())];
        return usual.into_iter().chain(goals.into_iter().flatten()).collect();
    };
    let usual = [
        (SCALING_ACTIVE, active),
        (SCALING_LIMITED, limited(&seen.look.decision, model, shortage)),
        (TELEMETRY_FRESH, fresh(&seen.look.decision)),
    ];
    let look = &seen.look;
    let goals = goals(model)
        .map(|goals| [(OBJECTIVE_INFEASIBLE, infeasible(look)), (OBJECTIVES_MET, met(goals, look))]);
    usual.into_iter().chain(goals.into_iter().flatten()).collect()
}

fn infeasible(look: &Look) -> Verdict {
    let Aims { first_token, inter_token } = look.aims;
    let told = [
        (first_token, "ttftMilliseconds", "to read an average prompt"),
        (inter_token, "interTokenMilliseconds", "for each token of a single request"),
    ];
    let missed = told.into_iter().filter_map(|(aim, field, work)| {
        let Aim { goal_us, least_us, .. } = aim.filter(|aim| aim.is_out_of_reach)?;
        let (goal_ms, least) = (goal_us / 1_000, milliseconds(least_us?));
        let spare = if least_us? > goal_us { "" } else { " (longer before; a tenth to spare is wanted)" };
        Some(format!(
            "spec.autoscaling.objectives.{field} is {goal_ms}, but a pod alone takes {least} ms {work}{spare}"
        ))
    });
    let missed: Vec<String> = missed.collect();
    if !missed.is_empty() {
        let message = format!(
            "{}; no number of pods changes that, and none is added for it: raise the goal, or take a smaller model or a \
             faster device",
            missed.join(", and ")
        );
        return Verdict::yes(Reason::GoalOutOfReach, message);
    }
    let ObjectivesStatus { late_milliseconds, planned_slots, .. } = reckoned(look);
    let reckoned = format!(
        "a request that waits more than {late_milliseconds} ms counts as late, and a pod is planned with {planned_slots} \
         of its {} slots",
        look.pod.slots
    );
    let is_known = [first_token, inter_token].into_iter().flatten().all(|aim| aim.least_us.is_some());
    if is_known {
        Verdict::no(Reason::GoalsWithinReach, reckoned)
    } else {
        Verdict::unknown(format!("no pod has done enough work to be measured; meanwhile {reckoned}"))
    }
}

fn met(goals: Objectives, look: &Look) -> Verdict {
    let told = [
        (look.attained.first_token_percent, goals.ttft_ms, "first"),
        (look.attained.inter_token_percent, goals.inter_token_ms, "further"),
    ];
    let known = told.into_iter().filter_map(|(percent, goal_ms, which)| Some((percent?, goal_ms?, which)));
    let Some(least) = known.clone().map(|(percent, ..)| percent).min() else {
        return Verdict::unknown("nobody was answered in the last five minutes");
    };
    let told: Vec<String> = known
        .map(|(percent, goal_ms, which)| format!("{percent}% of {which} tokens within {goal_ms} ms"))
        .collect();
    let wanted = goals.attainment_percent;
    let message = format!(
        "in the last five minutes {}; wanted are {wanted}% (spec.autoscaling.objectives.attainmentPercent)",
        told.join(" and ")
    );
    if least >= wanted {
        Verdict::yes(Reason::GoalsMet, message)
    } else {
        Verdict::no(Reason::GoalsMissed, message)
    }
}

/// In milliseconds with two significant digits: more would be noise, and write a status each time.
fn milliseconds(micros: u64) -> String {
    let unit = 10_u64.pow(micros.checked_ilog10().unwrap_or(0).saturating_sub(1));
    let rounded = (micros + unit / 2) / unit * unit;
    if rounded >= 10_000 { (rounded / 1_000).to_string() } else { (rounded as f64 / 1_000.0).to_string() }
}

fn limited(decision: &Decision, model: &InferenceModel, shortage: Option<&str>) -> Verdict {
    let pool = &model.spec.pool_ref.name;
    let desired = decision.desired;
    match (decision.winner, shortage) {
        (Winner::Capacity, Some(shortage)) => Verdict::yes(
            Reason::CapacityLimited,
            format!("more than {desired} pods would pay, but {shortage}; add nodes to pool {pool}"),
        ),
        (Winner::Capacity, None) => Verdict::yes(
            Reason::CapacityLimited,
            format!(
                "more than {desired} pods would pay, but pool {pool} has no room for them; raise its \
                 spec.limits.maxReplicas or add nodes"
            ),
        ),
        (Winner::MaxReplicas, _) => Verdict::yes(
            Reason::MaxReplicasReached,
            format!("more than {desired} pods would pay; raise spec.autoscaling.maxReplicas to have them"),
        ),
        (Winner::SurgeLimit, _) => Verdict::yes(
            Reason::SurgeLimited,
            format!(
                "more than {desired} pods would pay if the load stays, which is not proven yet; raise \
                 spec.autoscaling.surgePercent to have them sooner"
            ),
        ),
        // The last pod of a model that may go to zero is there until it is idle, and no bound of the user's keeps it.
        (Winner::MinReplicas, _) if !may_rest(&model.spec) => Verdict::yes(
            Reason::MinReplicasReached,
            format!("fewer than {desired} pods would do; lower spec.autoscaling.minReplicas to save them"),
        ),
        (Winner::Schedule, _) => Verdict::yes(
            if decision.limits.contains(&Limit::MaxReplicas) {
                Reason::MaxReplicasReached
            } else {
                Reason::MinReplicasReached
            },
            format!("a schedule of spec.autoscaling holds the number at {desired}"),
        ),
        _ => Verdict::no(Reason::WithinBounds, "no bound keeps the number of pods from what it should be"),
    }
}

fn fresh(decision: &Decision) -> Verdict {
    if decision.limits.contains(&Limit::Stale) {
        Verdict::no(
            Reason::ReportsStale,
            "a gateway or a pod has been silent for more than 6 s, or none has reported yet; no pod is taken away",
        )
    } else {
        Verdict::yes(Reason::ReportsFresh, "all gateways and pods have reported within 6 s")
    }
}

// === events ===

/// What `status` decided that `before` had not.
pub fn notice(
    model: &InferenceModel,
    before: &InferenceModelStatus,
    status: &InferenceModelStatus,
) -> Option<Notice> {
    let newest = |status: &InferenceModelStatus| status.autoscaling.as_ref()?.decisions.first().cloned();
    let decision = newest(status).filter(|decision| Some(decision) != newest(before).as_ref())?;
    let PastDecision { current, desired, sentence, .. } = &decision;
    let reason = match mode(&model.spec)? {
        AutoscalingMode::Observe => "ScalingAdvised",
        _ if desired > current => "ScaledUp",
        _ => "ScaledDown",
    };
    let message = format!("from {current} to {desired} pods: {sentence}");
    Some(Notice { is_warning: false, reason: reason.to_owned(), message })
}
