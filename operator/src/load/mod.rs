//! What models are asked for and what their pods do, as reports tell it; and how many replicas follow from that.
//!
//! Every operator replica takes in all reports and keeps one history per model, so that whoever becomes the leader
//! knows the last half hour; what a new process has missed, the gateways remember for it. Only the leader decides.
//!
//! In reading order: `learned` (what requests turn out to be), `sources` (from reports to samples), `measure` (what a
//! pod can do), [`objectives`] (what goals for answers make of it), `attained` (how many answers meet them), and here one
//! model's state and the handle on all of them.

mod attained;
mod learned;
mod measure;
pub mod objectives;
mod sources;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use crds::report::{GatewayModel, GatewayReport, Report};
use judgement::autoscale::{Current, Decision, History, Limit, Millis, PodModel, Policy, decide};
use k8s_openapi::jiff::Timestamp;
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{GaugeVec, IntCounterVec, IntGaugeVec, Opts};

use crate::held::ModelKey;
use crate::report::Wake;
pub use attained::Attained;
use learned::Learned;
use objectives::{Aims, Objectives};
use sources::{Gateway, Pods};

/// Pace of decisions: the rule and its constants were proven with it.
pub const LOOK_EVERY_MS: u64 = 4_000;
/// A look that comes a little early is still one of the pace.
const EARLY_MS: u64 = 500;
/// Where a model stands is told at least every half minute; what is four times older is not acted on.
const STANDING_MS_MAX: u64 = 120_000;
/// Models with a history of some 20 KiB each; the one that was silent longest makes room.
const MODELS_MAX: usize = 4_000;
/// Gateways of one pool that are listened to.
const GATEWAYS_MAX: usize = 64;
/// A gateway that was silent for longer is gone from the history, and a newcomer when it comes back.
const GATEWAY_GONE_MS: u64 = 60_000;
/// But it is known until its last arrivals have left the history, so that it does not tell them a second time.
const GATEWAY_FORGOTTEN_MS: u64 = 2_000_000;
/// Series of one metric family.
const SERIES_MAX: usize = 5_000;

/// Where a model stands, as the leader's last reconcile saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// What the user wants, and what the hardware allows.
    pub policy: Policy,
    /// What answers should be like.
    pub objectives: Objectives,
    /// Pods that serve.
    pub ready: u32,
    /// When each pod on its way will probably be ready.
    pub pending: Vec<Millis>,
    /// When a pod last became ready.
    pub last_ready_at: Option<Millis>,
    /// What a start takes.
    pub load_ms: u64,
    /// Whether a canary is being judged.
    pub is_canary_judged: bool,
    /// What one pod can do, as long as nobody has measured it.
    pub assumed: PodModel,
    /// Whether that was never measured either.
    pub is_guess: bool,
    /// UIDs of all pods of the model that exist.
    pub pods: BTreeSet<String>,
}

/// A decision and the pod that it was reckoned with.
#[derive(Debug, Clone, PartialEq)]
pub struct Look {
    /// How many replicas, and why.
    pub decision: Decision,
    /// What one pod can do with all its slots; the decision may have been reckoned with fewer.
    pub pod: PodModel,
    /// The goals for answers.
    pub aims: Aims,
    /// How many answers met them lately.
    pub attained: Attained,
    /// Whether pods have done enough work to measure them since this process began.
    pub is_measured: bool,
}

/// The clock of all samples: milliseconds that never go back.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    began: Instant,
    began_ms: u64,
}

impl Clock {
    /// A clock that shows the time since 1970 now, and goes on by itself.
    pub fn start() -> Self {
        let now = Timestamp::now().as_millisecond();
        Self { began: Instant::now(), began_ms: u64::try_from(now).unwrap_or(0) }
    }

    /// What it shows.
    pub fn now(&self) -> Millis {
        Millis(self.began_ms) + u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// One model.
#[derive(Debug, Default)]
struct Model {
    history: History,
    gateways: HashMap<String, Gateway>,
    gateways_seen: u64,
    pods: Pods,
    learned: Learned,
    measured: Option<PodModel>,
    /// When anybody last said anything of it.
    heard: Millis,
    standing: Option<(Millis, Standing)>,
    calibrated: Option<Millis>,
    last: Option<Decision>,
    /// The goals at the last look.
    aims: Aims,
    /// What the last reconcile was told.
    told: Option<Told>,
}

/// What a reconcile acts on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Told {
    desired: u32,
    is_stale: bool,
}

impl Told {
    fn of(decision: &Decision) -> Self {
        Self { desired: decision.desired, is_stale: decision.limits.contains(&Limit::Stale) }
    }
}

/// The loads of all models. A handle: clones share it.
#[derive(Clone)]
pub struct Loads {
    models: Arc<Mutex<HashMap<ModelKey, Model>>>,
    /// Since when this process leads.
    led_since: Arc<AtomicU64>,
    clock: Clock,
    /// Decisions by what decided.
    decisions: IntCounterVec,
    descriptions: Arc<Vec<Desc>>,
}

// === impl Model ===

impl Model {
    fn hear_gateway(&mut self, report: &GatewayReport, model: &GatewayModel, now: Millis) {
        self.heard = now;
        self.gateways.retain(|_, gateway| now.since(gateway.last()) <= GATEWAY_FORGOTTEN_MS);
        let known = self.gateways.get_mut(&report.pod_uid);
        let missed_ms = known.as_ref().map_or(u64::MAX, |gateway| now.since(gateway.last()));
        if let Some(gateway) = known.filter(|_| missed_ms <= GATEWAY_GONE_MS) {
            if let Some(sample) = gateway.next(report, model, &mut self.learned, now) {
                self.history.observe(sample);
            }
        } else {
            let id = self.gateways_seen + 1;
            let first = Gateway::first(id, report, model, missed_ms, &self.learned, now);
            if let Some((gateway, recollection)) = first {
                self.gateways_seen = id;
                self.make_room_for(&report.pod_uid);
                self.gateways.insert(report.pod_uid.clone(), gateway);
                self.history.recall(&recollection);
            }
        }
        // While there are no pods nobody else tells that there are none.
        self.sample_pods(now);
    }

    /// Of more gateways than are listened to the one that was silent longest goes.
    fn make_room_for(&mut self, uid: &str) {
        if self.gateways.len() >= GATEWAYS_MAX && !self.gateways.contains_key(uid) {
            let silent = self.gateways.iter().min_by_key(|(_, gateway)| gateway.last());
            let silent = silent.map(|(uid, _)| uid.clone());
            silent.and_then(|uid| self.gateways.remove(&uid));
        }
    }

    fn hear_pod(&mut self, report: &Report, now: Millis) {
        self.heard = now;
        self.pods.take(report, &mut self.learned, now);
        self.measured = self.pods.measured().pod().or(self.measured);
        self.sample_pods(now);
    }

    fn sample_pods(&mut self, now: Millis) {
        if let Some(sample) = self.pods.sample(&self.learned, now) {
            self.history.observe(sample);
        }
    }

    /// The decision that holds now: the last one, unless it is old or was made for another standing, or somebody waits
    /// and there is no pod.
    fn look(&mut self, standing: Standing, led_since: Millis, now: Millis) -> Look {
        self.pods.keep(&standing.pods, now);
        let current = self.current(&standing, led_since);
        let (replicas, pod, aims) = (current.replicas(), current.pod, self.aims(&standing));
        let attained = self.pods.attained(&standing.objectives, now);
        let is_new = self.last.as_ref().is_none_or(|last| {
            let is_other = last.inputs.policy != aims.policy(standing.policy) || last.current != replicas;
            let is_waited_for = replicas == 0 && !self.history.levels().queued.is_empty();
            is_other || is_waited_for || now.since(last.at) > LOOK_EVERY_MS
        });
        self.standing = Some((now, standing));
        self.aims = aims;
        let decision = match self.last.clone().filter(|_| !is_new) {
            Some(last) => Some(last),
            None => self.decide(led_since, now),
        };
        let decision = decision.expect("a model that stands somewhere is decided upon");
        self.told = Some(Told::of(&decision));
        Look { decision, pod, aims, attained, is_measured: self.measured.is_some() }
    }

    fn decide(&mut self, led_since: Millis, now: Millis) -> Option<Decision> {
        let (_, standing) = self.standing.as_ref()?;
        let (current, aims) = (self.current(standing, led_since), self.aims(standing));
        // How far a guess is off says nothing about pods.
        if self.is_known(standing)
            && self.calibrated.is_none_or(|at| now.since(at) + EARLY_MS >= LOOK_EVERY_MS)
        {
            // Under a queue a pod fills all its slots, whatever it is planned with.
            self.history.calibrate(&current);
            self.calibrated = Some(now);
        }
        let planned = Current { pod: aims.planned(current.pod), ..current };
        let decision = decide(&aims.policy(standing.policy), &self.history, &planned, now);
        self.history.settle(&decision);
        self.aims = aims;
        self.last = Some(decision.clone());
        Some(decision)
    }

    /// Whether a pod was measured, now or earlier.
    fn is_known(&self, standing: &Standing) -> bool {
        self.measured.is_some() || !standing.is_guess
    }

    fn aims(&self, standing: &Standing) -> Aims {
        let pod = self.measured.unwrap_or(standing.assumed);
        let pod = Some(&pod).filter(|_| self.is_known(standing));
        standing.objectives.aims(pod, self.learned.uncached_prompt(), self.aims)
    }

    fn last_at(&self) -> Option<Millis> {
        self.last.as_ref().map(|last| last.at)
    }

    fn current(&self, standing: &Standing, led_since: Millis) -> Current {
        Current {
            pod: self.measured.unwrap_or(standing.assumed),
            ready: standing.ready,
            pending: standing.pending.clone(),
            last_ready_at: standing.last_ready_at,
            load_ms: standing.load_ms,
            started_at: led_since,
            is_canary_judged: standing.is_canary_judged,
        }
    }

    /// Looks again, if somebody wants it and it is time. Whether the reconcile should know.
    fn turn(&mut self, led_since: Millis, now: Millis) -> bool {
        let is_asked = self.standing.as_ref().is_some_and(|(at, _)| now.since(*at) <= STANDING_MS_MAX);
        let is_time = self.last.as_ref().is_none_or(|last| now.since(last.at) + EARLY_MS >= LOOK_EVERY_MS);
        if !is_asked || !is_time {
            return false;
        }
        let decision = self.decide(led_since, now);
        decision.is_some_and(|decision| self.told != Some(Told::of(&decision)))
    }
}

// === impl Loads ===

impl Loads {
    /// Nothing is known yet.
    pub fn new(clock: Clock) -> prometheus::Result<Self> {
        let families = Families::new()?;
        let help = "Decisions on how many pods a model should have, by what decided";
        let opts = Opts::new("inferno_operator_autoscale_decisions_total", help);
        let decisions = IntCounterVec::new(opts, &["winner"])?;
        let descriptions = families.desc().into_iter().chain(decisions.desc()).cloned().collect();
        Ok(Self {
            decisions,
            models: Arc::default(),
            led_since: Arc::new(AtomicU64::new(clock.now().0)),
            clock,
            descriptions: Arc::new(descriptions),
        })
    }

    /// Its clock.
    pub fn clock(&self) -> Clock {
        self.clock
    }

    /// This process leads from now on.
    pub fn leads(&self, now: Millis) {
        self.led_since.store(now.0, Ordering::Relaxed);
    }

    /// Takes in a report of a gateway.
    pub fn hear_gateway(&self, report: &GatewayReport, now: Millis) {
        self.with(|models| {
            for of_model in &report.models {
                let key = (report.namespace.clone(), of_model.model.clone());
                entry(models, key).hear_gateway(report, of_model, now);
            }
        });
    }

    /// Takes in a report of a pod.
    pub fn hear_pod(&self, report: &Report, now: Millis) {
        let key = (report.namespace.clone(), report.model.clone());
        self.with(|models| entry(models, key).hear_pod(report, now));
    }

    /// How many replicas a model that stands so should have.
    pub fn look(&self, key: ModelKey, standing: Standing, now: Millis) -> Look {
        let led_since = self.led_since();
        self.with(|models| {
            let model = entry(models, key);
            model.heard = now;
            let before = model.last_at();
            let look = model.look(standing, led_since, now);
            self.count(before, model);
            look
        })
    }

    /// The last decision on a model, if this process decides for it.
    pub fn decision(&self, key: &ModelKey) -> Option<Decision> {
        self.with(|models| models.get(key)?.last.clone())
    }

    /// Nobody wants to know how many replicas this model should have any more.
    pub fn rest(&self, key: &ModelKey) {
        self.with(|models| {
            if let Some(model) = models.get_mut(key) {
                (model.standing, model.last, model.told) = (None, None, None);
            }
        });
    }

    /// Looks at each model whose turn it is; returns those for which the answer has changed.
    pub fn turn(&self, now: Millis) -> Vec<Wake> {
        let led_since = self.led_since();
        self.with(|models| {
            let changed = models.iter_mut().filter_map(|(key, model)| {
                let before = model.last_at();
                let has_changed = model.turn(led_since, now);
                self.count(before, model);
                has_changed.then_some(key)
            });
            changed
                .map(|(namespace, model)| Wake { namespace: namespace.clone(), model: model.clone() })
                .collect()
        })
    }

    /// Counts the last decision, if there was another before.
    fn count(&self, before: Option<Millis>, model: &Model) {
        if let Some(last) = model.last.as_ref().filter(|last| Some(last.at) != before) {
            self.decisions.with_label_values(&[format!("{:?}", last.winner).as_str()]).inc();
        }
    }

    fn led_since(&self) -> Millis {
        Millis(self.led_since.load(Ordering::Relaxed))
    }

    fn with<T>(&self, act: impl FnOnce(&mut HashMap<ModelKey, Model>) -> T) -> T {
        act(&mut self.models.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The model, known from now on.
fn entry(models: &mut HashMap<ModelKey, Model>, key: ModelKey) -> &mut Model {
    if models.len() >= MODELS_MAX && !models.contains_key(&key) {
        let silent = models.iter().min_by_key(|(_, model)| model.heard).map(|(key, _)| key.clone());
        silent.and_then(|silent| models.remove(&silent));
    }
    models.entry(key).or_default()
}

// === as metrics ===

struct Families {
    current: IntGaugeVec,
    desired: IntGaugeVec,
    demand: GaugeVec,
    queue: GaugeVec,
}

impl Families {
    fn new() -> prometheus::Result<Self> {
        let labels = &["namespace", "model"];
        let opts = |name: &str, help: &str| Opts::new(format!("inferno_operator_autoscale_{name}"), help);
        Ok(Self {
            current: IntGaugeVec::new(
                opts("current_replicas", "Pods that serve or are on their way"),
                labels,
            )?,
            desired: IntGaugeVec::new(opts("desired_replicas", "Pods that the autoscaler wants"), labels)?,
            demand: GaugeVec::new(opts("demand_pods", "Proven demand, in pods that it keeps busy"), labels)?,
            queue: GaugeVec::new(
                opts("queue_pod_seconds", "Work that waits, in seconds of one pod"),
                labels,
            )?,
        })
    }

    fn desc(&self) -> Vec<&Desc> {
        [self.current.desc(), self.desired.desc(), self.demand.desc(), self.queue.desc()].concat()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        [self.current.collect(), self.desired.collect(), self.demand.collect(), self.queue.collect()].concat()
    }
}

impl Collector for Loads {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let Ok(families) = Families::new() else { return Vec::new() };
        self.with(|models| {
            let decided = models.iter().filter_map(|(key, model)| Some((key, model.last.as_ref()?)));
            for ((namespace, model), last) in decided.take(SERIES_MAX) {
                let labels = [namespace.as_str(), model.as_str()];
                families.current.with_label_values(&labels).set(last.current.into());
                families.desired.with_label_values(&labels).set(last.desired.into());
                families.demand.with_label_values(&labels).set(last.figures.demand);
                families.queue.with_label_values(&labels).set(last.figures.queue);
            }
        });
        [families.collect(), self.decisions.collect()].concat()
    }
}
