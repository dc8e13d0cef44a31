//! Autoscaling as a reconcile sees it: what the spec wants of the judgement, where the model stands, and how many
//! replicas follow. Pure; the load and the decisions are kept in `load`.
//!
//! | mode | who says how many | status.autoscaling |
//! |---|---|---|
//! | none | `spec.replicas` | — |
//! | Auto | the decision | the decision |
//! | Observe | `spec.replicas` | the decision |
//! | Paused | the last word before, within the bounds | stays as it was |
//! | External | `spec.replicas`, within the bounds | — |

pub mod schedule;
pub mod tell;

use std::collections::BTreeSet;

use crds::model::{
    AutoscalingMode, AutoscalingPolicy, AutoscalingStatus, ChosenCapacity, ColdStart, InferenceModel,
    InferenceModelSpec, PodMeasure, ScaleDownPolicy, ScaleDownRules, ScaleDownUnit, SelectPolicy,
};
use crds::pool::InferencePool;
use judgement::autoscale::pace::Rules;
use judgement::autoscale::{Limit, Millis, PodModel, Policy, Portion, Rule, ScaleDown, ScheduleBounds};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;

use crate::autoscale::tell::Seen;
use crate::capacity::{Claim, allot};
use crate::conduct::conducts;
use crate::inventory::Room;
use crate::load::Standing;
use crate::load::objectives::Objectives;
use crate::objects::REVISION_LABEL;
use crate::plan::Observed;
use crate::pod::{self, Reading, Stage, unplaced};
use crate::revision::{Revision, revisions};
use crate::start;

/// A start takes this long as long as none has been measured.
const LOAD_MS: u64 = 60_000;
/// After a start of the operator all gateways and pods must have reported, and a minute and a half been seen: the time
/// for which nothing is scaled down either.
const KNOWN_AFTER_MS: u64 = 120_000;
/// Nearest rank of the starts that the rule reckons with.
const LOAD_PERCENT: usize = 90;
/// A pod that nobody has measured: a small model on a fast device.
const GUESS: PodModel = PodModel {
    slots: SLOTS,
    prefill_tokens_per_second: 10_000,
    step_base_us: 2_000,
    step_per_request_us: 250,
    kv_tokens: KV_TOKENS,
};
/// No floor: in our engine each slot has a cache of its own for a whole context, so slots run out first.
const KV_TOKENS: Option<u64> = None;
/// Slots of a pod that the spec does not name.
const SLOTS: u32 = 4;
/// From zero a rise may go at least so far beyond what is proven, in percent: the first seconds prove little.
const SURGE_FROM_ZERO_PERCENT: u32 = 200;

/// Who decides; `None` without spec.autoscaling.
pub fn mode(spec: &InferenceModelSpec) -> Option<AutoscalingMode> {
    spec.autoscaling.as_ref().map(|policy| policy.mode.unwrap_or_default())
}

/// Whether decisions are made for the model.
pub fn is_decided(spec: &InferenceModelSpec) -> bool {
    let is_wanted = matches!(mode(spec), Some(AutoscalingMode::Auto | AutoscalingMode::Observe));
    is_wanted && spec.suspend != Some(true)
}

/// Whether the operator may take the last pod away.
pub fn may_rest(spec: &InferenceModelSpec) -> bool {
    let is_zero_allowed = |policy: &AutoscalingPolicy| {
        let schedules = policy.schedules.iter().filter_map(|schedule| schedule.min_replicas);
        let mut bounds = std::iter::once(policy.min_replicas.unwrap_or(1)).chain(schedules);
        awake(policy) == 0 && bounds.any(|min| min == 0)
    };
    mode(spec) == Some(AutoscalingMode::Auto) && spec.autoscaling.as_ref().is_some_and(is_zero_allowed)
}

/// Pods that must be ready for a model with `wanted` of them to be as it should, if somebody else than the user says
/// how many: those that come and go with the load are on their way again and again. `None`: all that are wanted.
pub fn needed(spec: &InferenceModelSpec, wanted: i32) -> Option<i32> {
    let policy = spec.autoscaling.as_ref().filter(|_| mode(spec) == Some(AutoscalingMode::Auto))?;
    Some(policy.min_replicas.unwrap_or(1).max(1).min(wanted))
}

/// Fewest and most replicas, schedules left out.
fn own_bounds(policy: &AutoscalingPolicy) -> (u32, u32) {
    let count = |count: i32| u32::try_from(count).unwrap_or(0);
    (count(policy.min_replicas.unwrap_or(1)).max(awake(policy)), count(policy.max_replicas))
}

/// 1 if the last pod stays whatever the bounds say.
fn awake(policy: &AutoscalingPolicy) -> u32 {
    let enabled = policy.scale_to_zero.as_ref().and_then(|zero| zero.enabled);
    u32::from(enabled == Some(false))
}

/// Bounds of the active schedules.
fn scheduled_bounds(policy: &AutoscalingPolicy, now: Timestamp) -> Option<ScheduleBounds> {
    let bounds = schedule::bounds(policy, now)?;
    let min_replicas = bounds.min_replicas.map(|min| min.max(awake(policy)));
    Some(ScheduleBounds { min_replicas, ..bounds })
}

/// Fewest and most replicas at `now`.
fn bounds(policy: &AutoscalingPolicy, now: Timestamp) -> (u32, u32) {
    let (own_min, own_max) = own_bounds(policy);
    let scheduled = scheduled_bounds(policy, now);
    let max = scheduled.and_then(|bounds| bounds.max_replicas).unwrap_or(own_max);
    (scheduled.and_then(|bounds| bounds.min_replicas).unwrap_or(own_min).min(max), max)
}

/// Replicas that the model is to have, before its pool is asked. `desired` is what was decided.
pub fn asked(model: &InferenceModel, desired: Option<u32>, now: Timestamp) -> i32 {
    let spec = &model.spec;
    let Some(policy) = &spec.autoscaling else { return spec.replicas };
    let (min, max) = bounds(policy, now);
    let within = |count: i32| u32::try_from(count).unwrap_or(0).clamp(min, max);
    let last = status(model).map(|status| status.desired_replicas);
    let count = match policy.mode.unwrap_or_default() {
        AutoscalingMode::Observe => return spec.replicas,
        AutoscalingMode::External => within(spec.replicas),
        AutoscalingMode::Paused => within(last.unwrap_or(spec.replicas)),
        // Without a decision: the last one, which a new operator has found in the status.
        AutoscalingMode::Auto => desired.unwrap_or_else(|| within(last.unwrap_or(spec.replicas))),
    };
    i32::try_from(count).unwrap_or(i32::MAX)
}

/// Pods' worth of work that arrives, or has in 97% of the replayed time, whichever is more. Nobody knows before pods
/// were measured, while somebody is silent, and shortly after a start.
pub fn demand(model: &InferenceModel, seen: Option<&Seen>) -> Option<f64> {
    let Seen { look, now_ms } = seen?;
    let figures = &look.decision.figures;
    let demand = figures.demand.max(figures.high);
    let was_measured = status(model).and_then(|status| status.pod).is_some_and(|pod| pod.is_measured);
    let is_measured = look.is_measured || was_measured || demand <= 0.0;
    let has_begun = now_ms.since(look.decision.inputs.current.started_at) >= KNOWN_AFTER_MS;
    let is_fresh = !look.decision.limits.contains(&Limit::Stale);
    (is_measured && has_begun && is_fresh).then_some(demand)
}

fn status(model: &InferenceModel) -> Option<&AutoscalingStatus> {
    model.status.as_ref()?.autoscaling.as_ref()
}

/// What the judgement is told of the spec.
pub fn policy(spec: &AutoscalingPolicy, now: Timestamp) -> Policy {
    let (min_replicas, max_replicas) = own_bounds(spec);
    let count =
        |value: Option<i32>, default: u32| value.and_then(|n| u32::try_from(n).ok()).unwrap_or(default);
    let defaults = Policy::between(min_replicas, max_replicas);
    let surge_percent = count(spec.surge_percent, defaults.surge_percent);
    let down = spec.behavior.as_ref().and_then(|behavior| behavior.scale_down.as_ref());
    let up = spec.behavior.as_ref().and_then(|behavior| behavior.scale_up.as_ref());
    let zero = spec.scale_to_zero.as_ref();
    Policy {
        schedule: scheduled_bounds(spec, now),
        late_price_percent: count(spec.late_price_percent, defaults.late_price_percent),
        surge_percent,
        surge_from_zero_percent: match surge_percent {
            0 => 0,
            percent => percent.max(SURGE_FROM_ZERO_PERCENT),
        },
        target_utilization_percent: count(
            spec.target_utilization_percent,
            defaults.target_utilization_percent,
        ),
        history_seconds: count(spec.history_seconds, defaults.history_seconds),
        hold_seconds: count(down.and_then(|rules| rules.stabilization_window_seconds), defaults.hold_seconds),
        idle_seconds: count(zero.and_then(|zero| zero.idle_seconds), defaults.idle_seconds),
        scale_down: down.map_or(defaults.scale_down, scale_down),
        rise_tolerance_thousandths: up
            .and_then(|rules| rules.tolerance.as_ref()?.thousandths())
            .unwrap_or(defaults.rise_tolerance_thousandths),
        ..defaults
    }
}

/// How fast pods may go.
fn scale_down(declared: &ScaleDownRules) -> ScaleDown {
    let count = |value: i32| u32::try_from(value).unwrap_or(0);
    let rule = |policy: &ScaleDownPolicy| Rule {
        portion: match policy.type_ {
            ScaleDownUnit::Pods => Portion::Pods(count(policy.value)),
            ScaleDownUnit::Percent => Portion::Percent(count(policy.value)),
        },
        period_seconds: count(policy.period_seconds),
    };
    let mut rules = Rules::default();
    for (place, policy) in rules.iter_mut().zip(&declared.policies) {
        *place = Some(rule(policy));
    }
    match declared.select_policy.unwrap_or_default() {
        SelectPolicy::Disabled => ScaleDown::Never,
        _ if declared.policies.is_empty() => ScaleDown::Usual,
        SelectPolicy::Max => ScaleDown::Most(rules),
        SelectPolicy::Min => ScaleDown::Least(rules),
    }
}

/// What answers should be like.
pub fn objectives(spec: &AutoscalingPolicy) -> Objectives {
    let goal = |milliseconds: Option<i32>| milliseconds.and_then(|goal| u32::try_from(goal).ok());
    let none = Objectives::default();
    spec.objectives.as_ref().map_or(none, |declared| Objectives {
        ttft_ms: goal(declared.ttft_milliseconds),
        inter_token_ms: goal(declared.inter_token_milliseconds),
        attainment_percent: goal(declared.attainment_percent).unwrap_or(none.attainment_percent),
    })
}

/// Where the model stands, if decisions are made for it and its pool is there. `now_ms` is the same moment on the clock
/// of the load.
pub fn standing(
    model: &InferenceModel,
    observed: &Observed,
    target: &str,
    now: Timestamp,
    now_ms: Millis,
) -> Option<Standing> {
    let spec = model.spec.autoscaling.as_ref().filter(|_| is_decided(&model.spec))?;
    let pool = observed.pool.as_ref()?;
    let serving = Serving::of(model, observed, pool, target);
    let history = starts(model, target);
    let load_ms = load_ms(history.as_ref());
    let on_the_clock = |time: Timestamp| {
        let distance = now.as_millisecond() - time.as_millisecond();
        if distance >= 0 { now_ms - distance.unsigned_abs() } else { now_ms + distance.unsigned_abs() }
    };
    let on_their_way = serving.readings.iter().filter(|reading| reading.stage != Stage::Ready);
    let expected = on_their_way.map(|reading| {
        let expected = start::pod_expected_at(reading, history.as_ref(), now).map(on_the_clock);
        // Later than all before it: any moment.
        expected.unwrap_or_else(|| reading.created.map_or(now_ms, on_the_clock) + load_ms)
    });
    let ready = serving.ready.min(serving.told);
    let ordered = usize::try_from(serving.told - ready).unwrap_or(usize::MAX);
    let mut pending: Vec<Millis> = expected.chain(std::iter::repeat_n(now_ms + load_ms, ordered)).collect();
    pending.truncate(ordered);
    pending.sort_unstable();

    let mut policy = policy(spec, now);
    policy.capacity_replicas = capacity(model, observed, pool, &serving, bounds(spec, now).1);
    if serving.must_stay(model, target, now, policy.idle_seconds) {
        policy.min_replicas = policy.min_replicas.max(1);
        if let Some(schedule) = &mut policy.schedule {
            schedule.min_replicas = schedule.min_replicas.map(|min| min.max(1));
        }
    }
    let (assumed, is_guess) = assumed(model);
    Some(Standing {
        policy,
        objectives: objectives(spec),
        ready,
        pending,
        last_ready_at: serving.last_ready_at.map(on_the_clock),
        load_ms,
        is_canary_judged: is_canary_judged(model),
        assumed,
        is_guess,
        pods: observed.pods.iter().filter_map(ResourceExt::uid).collect::<BTreeSet<String>>(),
    })
}

/// The revision that serves, or is to; with it the one that takes its place pod by pod, or after it. Without the pods
/// that drain: they serve nobody new.
struct Serving {
    told: u32,
    ready: u32,
    readings: Vec<Reading>,
    /// Pods that have a node, those that drain included.
    bound: u32,
    last_ready_at: Option<Timestamp>,
    is_replaced: bool,
}

impl Serving {
    fn of(model: &InferenceModel, observed: &Observed, pool: &InferencePool, target: &str) -> Self {
        let all = revisions(model, &observed.deployments);
        let named = |name: &str| all.iter().find(|revision| revision.name == name);
        let stable = model.status.as_ref().and_then(|status| status.stable_revision.as_deref());
        let successor = successor(model);
        let revision = stable.and_then(named).or_else(|| named(target));
        let serving: Vec<&Revision> = revision.into_iter().chain(successor.and_then(named)).collect();
        let is_of = |pod: &&Pod| {
            let label = pod.labels().get(REVISION_LABEL);
            !pod::is_leaving(pod) && serving.iter().any(|revision| label == Some(&revision.name))
        };
        let draining = model.status.as_ref().map(|status| status.draining.as_slice()).unwrap_or_default();
        let is_draining = |pod: &&Pod| draining.iter().any(|draining| draining.pod == pod.name_any());
        let (gone, pods): (Vec<&Pod>, Vec<&Pod>) = observed.pods.iter().filter(is_of).partition(is_draining);
        let has_node = |pod: &&&Pod| pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some());
        let bound = gone.iter().chain(&pods).filter(has_node).count();
        let report = |pod: &Pod| observed.reports.get(pod.metadata.uid.as_deref()?);
        let became_ready = |pod: &&Pod| {
            let ready = pod::condition(pod, "Ready").filter(|_| pod::is_ready(pod))?;
            Some(ready.last_transition_time.as_ref()?.0)
        };
        let sum = |count: fn(&Revision) -> i32| -> u32 {
            serving.iter().map(|revision| u32::try_from(count(revision)).unwrap_or(0)).sum()
        };
        let less = |all: u32, gone: usize| all.saturating_sub(u32::try_from(gone).unwrap_or(u32::MAX));
        let gone_ready = gone.iter().filter(|pod| pod::is_ready(pod)).count();
        let told = sum(|revision| revision.replicas_told);
        // Pods beyond what the Deployment is told are about to be deleted: it does not count them any more.
        let beyond = (gone.len() + pods.len()).saturating_sub(usize::try_from(told).unwrap_or(usize::MAX));
        Self {
            told: less(told, gone.len().saturating_sub(beyond)),
            ready: less(sum(|revision| revision.ready), gone_ready),
            is_replaced: successor.is_some(),
            bound: u32::try_from(bound).unwrap_or(u32::MAX),
            readings: pods.iter().map(|pod| pod::read(pod, report(pod), pool)).collect(),
            last_ready_at: pods.iter().filter_map(became_ready).max(),
        }
    }

    /// Whether the last pod has to stay: a revision must prove itself once, and whoever was ordered must have been there
    /// for a while before it is found idle. What cannot start may go.
    fn must_stay(&self, model: &InferenceModel, target: &str, now: Timestamp, idle_seconds: u32) -> bool {
        let stable = model.status.as_ref().and_then(|status| status.stable_revision.as_deref());
        let is_starting = self.told > 0 && self.ready == 0 && !self.has_failed();
        let has_just_come = self.told > 0
            && self
                .last_ready_at
                .is_some_and(|at| now.as_second() - at.as_second() < i64::from(idle_seconds));
        // A canary that the operator drives waits while the model sleeps: there is nothing to compare it with.
        let has_to_prove = stable.is_none() || (stable != Some(target) && !conducts(&model.spec));
        has_to_prove || is_starting || has_just_come || self.is_replaced
    }

    fn has_failed(&self) -> bool {
        self.readings.iter().any(|reading| reading.problem.is_some())
    }

    /// Pods for which there is room by what is known of nodes, and one more: it waits, so that whoever adds nodes sees
    /// what for. What was ordered before stays, because the scheduler may know better.
    fn fitting(&self, room: &Room) -> Option<u32> {
        let placeable = self.bound.saturating_add(room.pods()?).saturating_add(1);
        Some(placeable.max(self.told))
    }
}

/// The canary whose pods take the place of stable ones: both together are what was asked for.
fn successor(model: &InferenceModel) -> Option<&str> {
    let status = model.status.as_ref()?;
    let strategy = status.rollout.as_ref()?.capacity_strategy?;
    status.canary_revision.as_deref().filter(|_| strategy != ChosenCapacity::Surge)
}

/// Pods for which there is room: what the pool grants, and one more than the nodes take, by what is known of them and by
/// what the scheduler says. While none has ever started and one cannot, more of them would only fail too.
fn capacity(
    model: &InferenceModel,
    observed: &Observed,
    pool: &InferencePool,
    serving: &Serving,
    replicas_max: u32,
) -> Option<u32> {
    let limit = pool.spec.limits.as_ref().and_then(|limits| limits.max_replicas);
    let granted = limit.map(|limit| {
        let most = i32::try_from(replicas_max).unwrap_or(i32::MAX);
        let claims = claims_with(&observed.claims, &model.name_any(), most);
        u32::try_from(allot(&claims, &model.name_any(), limit)).unwrap_or(0)
    });
    let unplaced = unplaced(&serving.readings);
    let placed = serving.readings.len().saturating_sub(unplaced);
    let placeable = (unplaced > 0).then(|| u32::try_from(placed + 1).unwrap_or(u32::MAX));
    let is_failing = serving.has_failed() && serving.ready == 0 && unplaced == 0;
    let failing = is_failing.then_some(1);
    // A bound beyond the user's own would only make decisions differ that say the same.
    let fitting = serving.fitting(&observed.room).filter(|fitting| *fitting < replicas_max);
    [granted, placeable, fitting, failing].into_iter().flatten().min()
}

/// The claims with another number for this model.
pub fn claims_with(claims: &[Claim], model: &str, replicas: i32) -> Vec<Claim> {
    let own = |claim: &Claim| {
        if claim.model == model { Claim { replicas, ..claim.clone() } } else { claim.clone() }
    };
    claims.iter().map(own).collect()
}

/// What starts of the revision have taken that serves, or is to.
fn starts(model: &InferenceModel, target: &str) -> Option<ColdStart> {
    let status = model.status.as_ref()?;
    Some(start::of(status.cold_start.as_ref()?, status.stable_revision.as_deref().unwrap_or(target)))
}

/// What 90 % of the recent starts took at most.
fn load_ms(history: Option<&ColdStart>) -> u64 {
    let seconds = history.map(|history| start::percentile(&history.recent_total_seconds, LOAD_PERCENT));
    let seconds = seconds.and_then(|seconds| u64::try_from(seconds).ok()).filter(|seconds| *seconds > 0);
    seconds.map_or(LOAD_MS, |seconds| seconds * 1_000)
}

/// Whether a canary gets a share: its pods and those of the stable revision must not change under it.
fn is_canary_judged(model: &InferenceModel) -> bool {
    model.status.as_ref().is_some_and(|status| {
        let weight = status.rollout.as_ref().and_then(|rollout| rollout.weight_basis_points);
        status.canary_revision.is_some() && weight.unwrap_or(0) > 0
    })
}

/// What a pod can do before it has been measured since this operator began, and whether that is a guess. It is what was
/// measured earlier, or else a pod as fast as they get: a few seconds of work measure it, and until then too many pods
/// would be worse than too few.
fn assumed(model: &InferenceModel) -> (PodModel, bool) {
    let engine = model.spec.engine.as_ref();
    let slots = engine.and_then(|engine| engine.parallel_slots).and_then(|slots| u32::try_from(slots).ok());
    let slots = slots.unwrap_or(SLOTS);
    let measured = status(model).and_then(|status| status.pod).filter(|pod| pod.is_measured);
    measured.map_or((PodModel { slots, ..GUESS }, true), |measured| {
        (PodModel { slots, ..pod_model(&measured) }, false)
    })
}

fn pod_model(measure: &PodMeasure) -> PodModel {
    let count = |value: i32| u32::try_from(value).unwrap_or(0);
    PodModel {
        slots: count(measure.slots),
        prefill_tokens_per_second: count(measure.prefill_tokens_per_second).max(1),
        step_base_us: count(measure.step_base_microseconds),
        step_per_request_us: count(measure.step_per_request_microseconds),
        kv_tokens: KV_TOKENS,
    }
}
