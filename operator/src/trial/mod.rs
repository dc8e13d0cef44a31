//! Is the canary well? From reports to observations every 10 s, and from those to a verdict; `conduct` acts on it.
//!
//! The leader's reconcile says where a model stands, and reports of models that nobody has asked about are not kept. Who
//! does not lead watches models and pods itself (`standby`) and hears the same reports, so that it has the same evidence
//! when it takes over. An operator that was alone begins anew; until it has a verdict the last one stays in the status. How
//! much pods differ, finished rollouts have written into the status: every operator begins with it.
//!
//! In reading order: `heard` (from reports to what is new in them), `course` (the evidence of one canary), `tell` (the
//! verdict for people), `clients` (what clients notice), `shadow` (copies of requests), `standby`, and here where a model
//! stands, its state, and the handle on all of them.

mod clients;
mod course;
mod heard;
pub mod shadow;
pub mod standby;
pub mod tell;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use crds::model::{
    AnalysisMethod, AnalysisPolicy, InferenceModel, InferenceModelSpec, JudgedMetric, PodVariation,
    RolloutStrategy,
};
use crds::report::{GatewayModel, GatewayReport, Report};
use crds::split::BUCKETS;
use judgement::autoscale::Millis;
use judgement::explain;
use judgement::rollout::{
    Analysis, Arm, ArmCounts, Method, Metric, Objectives, Observation, Outcome, PodReport, Tolerances,
    Verdict,
};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;

use crate::conduct::{conducts, steps};
use crate::held::ModelKey;
use crate::objects::REVISION_LABEL;
use crate::pod;
use crate::report::Wake;
use crate::rollout;
use course::{Course, Subject};
use heard::{Gateways, Pods};
use shadow::Shadows;
use tell::Seen;

/// Pace of observations: the judgement was proven with one about as fast.
const OBSERVE_EVERY_MS: u64 = 10_000;
/// One that comes a little early is still one of the pace.
const EARLY_MS: u64 = 500;
/// Where a model stands is told at least every half minute; who was not spoken of for four times as long is forgotten.
const STANDING_MS_MAX: u64 = 120_000;
/// Gateways follow a new weight within a second and report every two: before that nobody knows who was sent where by it.
const SETTLE_MS: u64 = 5_000;
/// Models that are judged; of more, the one that was longest not spoken of makes room. Each takes some 100 KiB.
const MODELS_MAX: usize = 1_000;
/// Pods that differ by less, or by more, are not believed in: 0.5% is what identical boards show, 20% the most that a spec
/// can say.
const VARIATION_MIN: i64 = 50;
const VARIATION_MAX: i64 = 2_000;
/// Slots of a stable pod that has not been heard of.
const SLOTS: u16 = 8;

/// Where a model stands, as the last reconcile saw it, or who stands by.
#[derive(Debug, Clone, PartialEq)]
pub struct Standing {
    /// The stable revision.
    pub stable: String,
    /// The one beside it.
    pub canary: Option<String>,
    /// The share that it gets.
    pub weight_basis_points: u16,
    /// When its step is over at the latest, while it is at one.
    pub step_ends: Option<Millis>,
    /// By what it is judged.
    pub analysis: Analysis,
    /// How much pods differ by what earlier rollouts have shown; nothing if the spec says it.
    pub variations: Vec<PodVariation>,
    /// Ready pods of both, by UID.
    pub pods: BTreeMap<String, ReadyPod>,
}

impl Standing {
    /// Whether no pod of the canary is ready: what it should get goes to the stable revision, and no gateway is to blame.
    fn is_canary_away(&self) -> bool {
        let has_pods = |canary: &String| self.pods.values().any(|pod| pod.revision == *canary);
        self.canary.as_ref().is_some_and(|canary| !has_pods(canary))
    }
}

/// A pod that is ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadyPod {
    /// Name of its revision.
    pub revision: String,
    /// Its kind of node, as far as its spec says it: node selector and devices.
    pub node_class: String,
    /// Since when.
    pub ready_at: Millis,
}

/// By what the spec wants a canary to be judged.
pub fn analysis(spec: &InferenceModelSpec) -> Analysis {
    let policy = spec.rollout.as_ref().and_then(|rollout| rollout.analysis.clone()).unwrap_or_default();
    let declared = policy.tolerance.unwrap_or_default();
    let defaults = Analysis::default();
    let share =
        |percent: Option<i32>, default: f64| percent.map_or(default, |percent| f64::from(percent) / 100.0);
    let tolerance = share(policy.regression_tolerance_percent, defaults.tolerances.decode);
    let prefill = share(declared.prefill_percent, tolerance);
    Analysis {
        method: method(spec, &policy),
        critical: share(policy.critical_regression_percent, defaults.critical),
        false_rollback: share(policy.max_false_rollback_percent, defaults.false_rollback),
        tolerances: Tolerances {
            decode: share(declared.decode_percent, tolerance),
            prefill,
            // Whose prompts may take longer, may come later.
            unqueued_ttft: tolerance.max(prefill),
            errors: share(declared.error_points, defaults.tolerances.errors),
        },
        min_canary_pods: policy
            .min_canary_pods
            .and_then(|pods| usize::try_from(pods).ok())
            .unwrap_or(defaults.min_canary_pods),
        pod_sd: share(policy.pod_variation_percent, defaults.pod_sd),
        objectives: objectives(spec),
        report_only: policy.report_only.iter().copied().map(metric).collect(),
        ..defaults
    }
}

/// What counts as a good answer; without a goal all do.
fn objectives(spec: &InferenceModelSpec) -> Objectives {
    let declared = spec.autoscaling.as_ref().and_then(|policy| policy.objectives.clone()).unwrap_or_default();
    let micros = |goal: Option<i32>| {
        goal.and_then(|goal| u64::try_from(goal).ok()).map_or(u64::MAX, |milliseconds| 1_000 * milliseconds)
    };
    Objectives {
        ttft_micros: micros(declared.ttft_milliseconds),
        inter_token_micros: micros(declared.inter_token_milliseconds),
    }
}

fn metric(named: JudgedMetric) -> Metric {
    match named {
        JudgedMetric::Decode => Metric::Decode,
        JudgedMetric::Prefill => Metric::Prefill,
        JudgedMetric::UnqueuedTtft => Metric::UnqueuedTtft,
        JudgedMetric::OutputLength => Metric::OutputLength,
        JudgedMetric::ErrorRate => Metric::ErrorRate,
        JudgedMetric::EngineTail => Metric::EngineTail,
        JudgedMetric::CacheReuse => Metric::CacheReuse,
        JudgedMetric::SlotWait => Metric::SlotWait,
        JudgedMetric::SloMiss => Metric::SloMiss,
    }
}

/// When the verdict is made. A canary that a person drives is at one step all the time, as far as anybody can know.
fn method(spec: &InferenceModelSpec, policy: &AnalysisPolicy) -> Method {
    match policy.method.unwrap_or_default() {
        AnalysisMethod::WorkNormalised => Method::WorkNormalised,
        AnalysisMethod::FixedHorizonWelch => {
            let policy = spec.rollout.as_ref().filter(|_| conducts(spec));
            let steps = policy.map(steps).unwrap_or_default();
            let compared = steps.iter().filter(|step| step.weight_basis_points < BUCKETS).count();
            Method::FixedHorizonWelch { steps: u32::try_from(compared.max(1)).unwrap_or(1) }
        }
        AnalysisMethod::GroupSequential => Method::GroupSequential {
            expected_requests: policy
                .expected_requests
                .and_then(|count| u64::try_from(count).ok())
                .unwrap_or(1),
        },
    }
}

/// Where the model stands, if it has canaries and a stable revision. `now_ms` is the same moment on the clock of reports.
pub fn standing<'pods>(
    model: &InferenceModel,
    pods: impl Iterator<Item = &'pods Pod>,
    now: Timestamp,
    now_ms: Millis,
) -> Option<Standing> {
    let is_wanted =
        rollout::strategy(&model.spec) == RolloutStrategy::Canary && model.spec.suspend != Some(true);
    let status = model.status.as_ref().filter(|_| is_wanted)?;
    let stable = status.stable_revision.clone()?;
    let canary = status.canary_revision.clone();
    let weight = status.rollout.as_ref().and_then(|rollout| rollout.weight_basis_points);
    let weight = weight.filter(|_| canary.is_some()).and_then(|weight| u16::try_from(weight).ok());
    let pods = pods.filter_map(|pod| {
        let revision = pod.labels().get(REVISION_LABEL)?.clone();
        let is_arm = revision == stable || Some(&revision) == canary.as_ref();
        let ready = pod::condition(pod, "Ready").filter(|_| is_arm && pod::is_ready(pod))?;
        let since = now.as_millisecond() - ready.last_transition_time.as_ref()?.0.as_millisecond();
        let ready_at = now_ms - u64::try_from(since).unwrap_or(0);
        Some((pod.uid()?, ReadyPod { revision, node_class: pod::node_class(pod), ready_at }))
    });
    Some(Standing {
        weight_basis_points: weight.unwrap_or(0),
        step_ends: step_ends(model, now, now_ms),
        analysis: analysis(&model.spec),
        variations: variations(model),
        pods: pods.collect(),
        stable,
        canary,
    })
}

/// What earlier rollouts have shown, unless the spec knows better.
fn variations(model: &InferenceModel) -> Vec<PodVariation> {
    let analysis = model.spec.rollout.as_ref().and_then(|rollout| rollout.analysis.as_ref());
    let is_declared = analysis.is_some_and(|analysis| analysis.pod_variation_percent.is_some());
    let status = model.status.as_ref().filter(|_| !is_declared);
    let known =
        status.and_then(|status| status.rollout.as_ref()).map(|rollout| rollout.pod_variations.clone());
    known.unwrap_or_default()
}

/// How much pods of one revision differ on the kind of nodes where they differ most, as a standard deviation of ln speed, if
/// earlier rollouts have shown it and the spec does not say.
pub fn known_variation(model: &InferenceModel) -> Option<f64> {
    variations(model).iter().map(variation).max().map(share_of)
}

fn share_of(basis_points: i64) -> f64 {
    basis_points as f64 / 10_000.0
}

/// As much of what was measured as is believed, in 1/10 000.
fn variation(known: &PodVariation) -> i64 {
    known.basis_points.clamp(VARIATION_MIN, VARIATION_MAX)
}

/// When the step is over at the latest that the operator has a canary at.
fn step_ends(model: &InferenceModel, now: Timestamp, now_ms: Millis) -> Option<Millis> {
    let rollout = model.status.as_ref()?.rollout.as_ref()?;
    let policy = model.spec.rollout.as_ref().filter(|_| conducts(&model.spec))?;
    let began = rollout.course.as_ref()?.step_since.as_ref()?.0;
    let index = usize::try_from(rollout.step?).ok()?.checked_sub(1)?;
    let lasts_ms = steps(policy).get(index)?.max_duration_ms;
    let age_ms = u64::try_from(now.as_millisecond() - began.as_millisecond()).unwrap_or(0);
    Some(Millis((now_ms.0 + lasts_ms).saturating_sub(age_ms)))
}

/// One model.
#[derive(Debug)]
struct Trial {
    told: Millis,
    standing: Standing,
    /// When the canary's share changed last, or could not be given to it, because none of its pods was ready.
    weighed: Millis,
    /// The canary's share at the last observation.
    share: u16,
    /// The share of the last step whose end an observation has told.
    ended: u16,
    pods: Pods,
    gateways: Gateways,
    shadows: Shadows,
    observed: Option<Millis>,
    course: Option<Course>,
    verdict: Option<Verdict>,
    /// Since when its outcome has been this one.
    found: Millis,
}

impl Trial {
    fn new(standing: Standing, now: Millis) -> Self {
        Self {
            told: now,
            standing,
            weighed: now,
            share: 0,
            ended: 0,
            pods: Pods::default(),
            gateways: Gateways::default(),
            shadows: Shadows::default(),
            observed: None,
            course: None,
            verdict: None,
            found: now,
        }
    }

    fn hear_gateway(&mut self, report: &GatewayReport, model: &GatewayModel, now: Millis) {
        let of_canary = |arm: &&crds::report::ArmCounts| Some(&arm.revision) == self.standing.canary.as_ref();
        let counts = model.arms.iter().find(of_canary).and_then(|arm| arm.shadow);
        if self.gateways.hear(report, model, now)
            && let Some(counts) = counts
        {
            self.shadows.hear(&report.pod_uid, counts);
        }
    }

    /// Observes, if it is time.
    fn turn(&mut self, now: Millis) {
        if self.observed.is_some_and(|at| now.since(at) + EARLY_MS < OBSERVE_EVERY_MS) {
            return;
        }
        let since = self.observed.replace(now);
        let ends_step = self.ends_step(now);
        let observation = self.observation(since, ends_step, now);
        let Some(subject) = self.subject() else { return };
        let mut course = match self.course.take().map(|mut course| (course.goes_on(&subject), course)) {
            Some((true, course)) => course,
            _ => Course::new(subject, self.slots(), now),
        };
        course.observe(&observation, now);
        self.verdict = course.verdict();
        self.course = Some(course);
    }

    /// Who is compared now; nobody while no pod is ready. The canary's kind of nodes counts, and that of most stable pods
    /// as long as it has none.
    fn subject(&self) -> Option<Subject> {
        let Standing { stable, canary, analysis, variations, pods, .. } = &self.standing;
        let class_of = |revision: &str| {
            let mut classes: BTreeMap<&str, usize> = BTreeMap::new();
            for pod in pods.values().filter(|pod| pod.revision == revision) {
                *classes.entry(&pod.node_class).or_default() += 1;
            }
            classes.into_iter().max_by_key(|(_, count)| *count).map(|(class, _)| class.to_owned())
        };
        let node_class = canary.as_deref().and_then(class_of).or_else(|| class_of(stable))?;
        let known = variations.iter().find(|known| known.node_class == node_class);
        Some(Subject {
            stable: stable.clone(),
            canary: canary.clone(),
            variation: known.map(variation),
            node_class,
            analysis: analysis.clone(),
        })
    }

    /// Whether this observation is the last of a step: the next would come too late for it, or its share has changed.
    fn ends_step(&mut self, now: Millis) -> bool {
        let Standing { weight_basis_points: share, step_ends, .. } = self.standing;
        let before = std::mem::replace(&mut self.share, share);
        let is_over = step_ends.is_some_and(|ends| now.0 + OBSERVE_EVERY_MS >= ends.0);
        let ending = match before {
            0 => return false,
            before if before != share || is_over => before,
            _ => return false,
        };
        std::mem::replace(&mut self.ended, ending) != ending
    }

    fn outcome(&self) -> Option<Outcome> {
        Some(self.verdict.as_ref()?.outcome)
    }

    fn slots(&self) -> u16 {
        let slots = self.pods.slots(&self.standing.stable).filter(|slots| *slots > 0);
        slots.and_then(|slots| u16::try_from(slots).ok()).unwrap_or(SLOTS)
    }

    /// What arrived since the last one, which was at `since`. A pod that the last reconcile has not seen ready waits with its rows.
    fn observation(&mut self, since: Option<Millis>, ends_step: bool, now: Millis) -> Observation {
        let Standing { canary, stable, weight_basis_points, pods, .. } = &self.standing;
        let heard = self.pods.take(|uid| pods.contains_key(uid));
        let reports = heard.into_iter().filter_map(|(uid, heard)| {
            let ready = pods.get(&uid)?;
            let arm = match &heard.revision {
                revision if revision == stable => Arm::Control,
                revision if Some(revision) == canary.as_ref() => Arm::Canary,
                _ => return None,
            };
            Some(PodReport {
                pod: uid,
                arm,
                node_class: ready.node_class.clone(),
                known_slowness: 0.0,
                ready_at_ms: ready.ready_at.0,
                decode: heard.decode,
                counts: heard.counts,
                requests: heard.rows,
            })
        });
        let is_settled = since.is_some_and(|since| since.0 >= self.weighed.0 + SETTLE_MS);
        let new = Some(self.gateways.take()).filter(|_| is_settled).unwrap_or_default();
        let of = |revision: &str| new.get(revision).copied().unwrap_or(0);
        Observation {
            at_ms: now.0,
            weight_basis_points: *weight_basis_points,
            ends_step,
            new_conversations: ArmCounts { canary: canary.as_deref().map_or(0, of), control: of(stable) },
            pods: reports.collect(),
        }
    }
}

/// What has come of a turn.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Turn {
    /// How many canaries have each outcome.
    pub outcomes: HashMap<Outcome, i64>,
    /// Models of which another outcome was found: it holds from now on.
    pub wake: Vec<Wake>,
}

/// The canaries of all models. A handle: clones share it.
#[derive(Debug, Clone, Default)]
pub struct Trials {
    models: Arc<Mutex<HashMap<ModelKey, Trial>>>,
}

impl Trials {
    /// Takes in a report of a pod.
    pub fn hear_pod(&self, report: &Report, now: Millis) {
        let key = (report.namespace.clone(), report.model.clone());
        self.with(|models| {
            if let Some(trial) = models.get_mut(&key) {
                trial.pods.hear(report, now);
            }
        });
    }

    /// Takes in a report of a gateway.
    pub fn hear_gateway(&self, report: &GatewayReport, now: Millis) {
        self.with(|models| {
            for of_model in &report.models {
                let key = (report.namespace.clone(), of_model.model.clone());
                if let Some(trial) = models.get_mut(&key) {
                    trial.hear_gateway(report, of_model, now);
                }
            }
        });
    }

    /// The last verdict on the canary of a model that stands so now, if there is one.
    pub fn look(&self, key: ModelKey, standing: Standing, now: Millis) -> Option<Seen> {
        self.with(|models| {
            let trial = entry(models, key, &standing, now);
            let is_other =
                (&trial.standing.stable, &trial.standing.canary) != (&standing.stable, &standing.canary);
            if is_other {
                trial.shadows = Shadows::default();
                (trial.share, trial.ended) = (0, 0);
                trial.verdict = None;
                // Should the same revision come again, nothing is held against it.
                trial.course = trial.course.take().filter(|_| trial.standing.canary.is_none());
            }
            let is_weighed_anew = trial.standing.weight_basis_points != standing.weight_basis_points;
            if is_other || is_weighed_anew || standing.is_canary_away() {
                trial.weighed = now;
            }
            (trial.told, trial.standing) = (now, standing);
            let verdict = trial.verdict.clone()?;
            let age_ms = now.since(trial.found);
            let clients = trial.course.as_ref().map(Course::clients).unwrap_or_default();
            let learned = trial.course.as_ref().and_then(Course::learned);
            Some(Seen { canary: trial.standing.canary.clone()?, verdict, clients, learned, age_ms })
        })
    }

    /// The last verdict on the canary of a model, and what it was made from.
    pub fn trial(&self, key: &ModelKey) -> Option<explain::Trial> {
        self.with(|models| {
            let trial = models.get(key)?;
            let evidence = trial.course.as_ref()?.evidence().clone();
            Some(explain::Trial { evidence, verdict: trial.verdict.clone()? })
        })
    }

    /// What came of the copies that the canary of a model got, as far as gateways have told.
    pub fn shadow(&self, key: &ModelKey) -> Option<shadow::Seen> {
        self.with(|models| {
            let trial = models.get(key)?;
            Some(shadow::Seen { canary: trial.standing.canary.clone()?, counts: trial.shadows.sum()? })
        })
    }

    /// Nobody wants to know of this model any more.
    pub fn rest(&self, key: &ModelKey) {
        self.with(|models| models.remove(key));
    }

    /// Observes each model whose turn it is.
    pub fn turn(&self, now: Millis) -> Turn {
        self.with(|models| {
            models.retain(|_, trial| now.since(trial.told) <= STANDING_MS_MAX);
            let mut turn = Turn::default();
            for ((namespace, model), trial) in models {
                let before = trial.outcome();
                trial.turn(now);
                if let Some(outcome) = trial.outcome() {
                    *turn.outcomes.entry(outcome).or_default() += 1;
                }
                if trial.outcome() != before {
                    trial.found = now;
                    turn.wake.push(Wake { namespace: namespace.clone(), model: model.clone() });
                }
            }
            turn
        })
    }

    fn with<T>(&self, act: impl FnOnce(&mut HashMap<ModelKey, Trial>) -> T) -> T {
        act(&mut self.models.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The model, known from now on.
fn entry<'models>(
    models: &'models mut HashMap<ModelKey, Trial>,
    key: ModelKey,
    standing: &Standing,
    now: Millis,
) -> &'models mut Trial {
    if models.len() >= MODELS_MAX && !models.contains_key(&key) {
        let silent = models.iter().min_by_key(|(_, trial)| trial.told).map(|(key, _)| key.clone());
        silent.and_then(|silent| models.remove(&silent));
    }
    models.entry(key).or_insert_with(|| Trial::new(standing.clone(), now))
}
