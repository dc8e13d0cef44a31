//! Watches, and the order of a reconcile: observe → plan → apply. What is decided lives in `plan`, how it is read and
//! written in `observe` and `apply`.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crds::model::InferenceModel;
use crds::pool::InferencePool;
use futures::{FutureExt, Stream, StreamExt};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::jiff::Timestamp;
use kube::core::DeserializeGuard;
use kube::runtime::controller::{self, Action, Config, Controller};
use kube::runtime::events::Recorder;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::watcher;
use kube::{Api, Client, Resource, ResourceExt};
use tokio::sync::broadcast;
use tokio_stream::wrappers::BroadcastStream;

use crate::apply;
use crate::autoscale;
use crate::autoscale::tell::Seen;
use crate::experiment::{Experiments, declared};
use crate::gateway::{COMPONENT, COMPONENT_LABEL, fingerprint};
use crate::golden::runner::Runner;
use crate::held::ModelKey;
use crate::inventory::Inventory;
use crate::load::Loads;
use crate::metrics::Metrics;
use crate::notify::sender::Notifier;
use crate::objects::{self, Installation, MANAGER, MODEL_LABEL};
use crate::observe::{self, Sources};
use crate::plan::{self, Observed, Plan};
use crate::pool::{PoolPlan, plan_pool, refused_pool};
use crate::probe::{Prober, Subject};
use crate::report::{Reports, Wake};
use crate::trial::{self, Trials};

type Model = DeserializeGuard<InferenceModel>;
type Pool = DeserializeGuard<InferencePool>;

/// Changes within this time are one reconcile: a pod's start alone is half a dozen of them.
const DEBOUNCE: Duration = Duration::from_millis(200);
/// Models worked on at once; one slow one does not stop the others.
const CONCURRENCY: u16 = 16;
/// After an error somebody should look at, and until somebody does.
const ERROR_RETRY: Duration = Duration::from_secs(5);
/// How often it is asked whose turn it is; each model's comes every [`LOOK_EVERY_MS`](crate::load::LOOK_EVERY_MS).
const LOADS_EVERY: Duration = Duration::from_secs(1);
/// Pools whose gateways are known to be as they should; more pools than one operator can look after anyway.
const SETTLED_MAX: usize = 10_000;

/// Where the operator looks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// In every namespace.
    Cluster,
    /// In these, each with a Role of its own.
    Namespaces(BTreeSet<String>),
}

impl Scope {
    /// The name of each namespace, or `None` for all of them.
    pub fn namespaces(self) -> Vec<Option<String>> {
        match self {
            Self::Cluster => vec![None],
            Self::Namespaces(names) => names.into_iter().map(Some).collect(),
        }
    }
}

/// What all controllers share.
#[derive(Clone)]
pub struct Shared {
    /// The API server.
    pub client: Client,
    /// What every pod gets.
    pub installation: Installation,
    /// What pods have reported.
    pub reports: Reports,
    /// What models are asked for.
    pub loads: Loads,
    /// Whether canaries are well.
    pub trials: Trials,
    /// What came of feature flags and experiments.
    pub experiments: Experiments,
    /// What came of asking for tokens.
    pub prober: Prober,
    /// What came of asking golden prompts.
    pub golden: Runner,
    /// What the nodes have room for.
    pub inventory: Inventory,
    /// Who is told when something changes.
    pub notifier: Notifier,
    /// Models that somebody should look at.
    pub wake: broadcast::Sender<Wake>,
    /// Events.
    pub recorder: Recorder,
    /// Counters.
    pub metrics: Metrics,
}

/// What one reconcile gets.
struct Context {
    shared: Shared,
    sources: Sources,
    /// By pool UID, the fingerprint under which its gateway was last applied. A pool is woken by every change of its
    /// models, and its gateway's six objects hardly ever change.
    settled: Mutex<HashMap<String, u64>>,
}

/// Why a reconcile failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A read.
    #[error("observe")]
    Observe(#[from] observe::Error),
    /// A write.
    #[error("apply")]
    Apply(#[from] apply::Error),
}

/// Runs until `stop` completes.
pub async fn run(shared: Shared, scope: Scope, stop: impl Future<Output = ()> + Send + 'static) {
    let stop = stop.shared();
    // Nodes, and pods of others, are seen by whoever may see all namespaces.
    let inventory = (scope == Scope::Cluster)
        .then(|| tokio::spawn(shared.inventory.clone().watch(shared.client.clone())));
    let controllers =
        scope.namespaces().into_iter().map(|namespace| run_in(shared.clone(), namespace, stop.clone()));
    let controllers = futures::future::join_all(controllers);
    shared.loads.leads(shared.loads.clock().now());
    let loads = tokio::spawn(watch_loads(shared.clone()));
    controllers.await;
    loads.abort();
    if let Some(inventory) = inventory {
        inventory.abort();
    }
}

/// The two controllers of one namespace, or of all.
async fn run_in(
    shared: Shared,
    namespace: Option<String>,
    stop: impl Future<Output = ()> + Clone + Send + Sync + 'static,
) {
    let models =
        Controller::new(api::<Model>(&shared.client, namespace.as_deref()), watcher::Config::default());
    let store = models.store();
    let context = Arc::new(Context {
        sources: Sources {
            client: shared.client.clone(),
            models: store.clone(),
            reports: shared.reports.clone(),
            prober: shared.prober.clone(),
            golden: shared.golden.clone(),
            receivers: shared.notifier.receivers().clone(),
            inventory: shared.inventory.clone(),
        },
        shared: shared.clone(),
        settled: Mutex::default(),
    });
    let ours = watcher::Config::default().labels(MODEL_LABEL);
    let models = models
        .with_config(Config::default().debounce(DEBOUNCE).concurrency(CONCURRENCY))
        .owns(api::<Deployment>(&shared.client, namespace.as_deref()), ours.clone())
        .owns(api::<Service>(&shared.client, namespace.as_deref()), ours.clone())
        .watches(api::<Pod>(&shared.client, namespace.as_deref()), ours, |pod| model_of(&pod))
        .watches(
            api::<Pool>(&shared.client, namespace.as_deref()),
            watcher::Config::default(),
            models_in(store),
        )
        .reconcile_on(woken(&shared.wake, namespace.clone()))
        .graceful_shutdown_on(stop.clone())
        .run(
            reconcile_model,
            |_, error, context| on_error("InferenceModel", error, &context),
            context.clone(),
        )
        .for_each(|result| {
            part_from_deleted(result.as_ref().err(), &shared);
            tell_broken_watches(result.err());
            futures::future::ready(())
        });
    let gateways = watcher::Config::default().labels(&format!("{COMPONENT_LABEL}={COMPONENT}"));
    let pools =
        Controller::new(api::<Pool>(&shared.client, namespace.as_deref()), watcher::Config::default())
            .with_config(Config::default().debounce(DEBOUNCE).concurrency(CONCURRENCY))
            .owns(api::<Deployment>(&shared.client, namespace.as_deref()), gateways.clone())
            .owns(api::<Service>(&shared.client, namespace.as_deref()), gateways)
            .watches(
                api::<Model>(&shared.client, namespace.as_deref()),
                watcher::Config::default(),
                |model| pool_of(&model),
            )
            .graceful_shutdown_on(stop)
            .run(reconcile_pool, |_, error, context| on_error("InferencePool", error, &context), context)
            .for_each(|result| {
                tell_broken_watches(result.err());
                futures::future::ready(())
            });
    futures::join!(models, pools);
}

fn api<K>(client: &Client, namespace: Option<&str>) -> Api<K>
where
    K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
{
    match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    }
}

// === which model an event is about ===

fn model_of(pod: &Pod) -> Option<ObjectRef<Model>> {
    let model = pod.labels().get(MODEL_LABEL)?;
    Some(ObjectRef::new(model).within(&pod.namespace()?))
}

fn pool_of(model: &Model) -> Option<ObjectRef<Pool>> {
    let spec = &model.0.as_ref().ok()?.spec;
    Some(ObjectRef::new(&spec.pool_ref.name).within(&model.namespace()?))
}

fn models_in(store: Store<Model>) -> impl Fn(Pool) -> Vec<ObjectRef<Model>> {
    move |pool| {
        let (name, namespace) = (pool.name_any(), pool.namespace());
        store
            .state()
            .iter()
            .filter(|model| model.namespace() == namespace)
            .filter(|model| model.0.as_ref().is_ok_and(|model| model.spec.pool_ref.name == name))
            .map(|model| ObjectRef::from_obj(&**model))
            .collect()
    }
}

fn woken(
    wake: &broadcast::Sender<Wake>,
    namespace: Option<String>,
) -> impl Stream<Item = ObjectRef<Model>> + use<> {
    BroadcastStream::new(wake.subscribe()).filter_map(move |wake| {
        // Whoever is too slow for the channel looks again by itself.
        let wake =
            wake.ok().filter(|wake| namespace.as_ref().is_none_or(|namespace| *namespace == wake.namespace));
        futures::future::ready(wake.map(|wake| ObjectRef::new(&wake.model).within(&wake.namespace)))
    })
}

// === the reconciles ===

async fn reconcile_model(guarded: Arc<Model>, context: Arc<Context>) -> Result<Action, Error> {
    let began = Instant::now();
    let model = match &guarded.0 {
        Ok(model) => model,
        Err(invalid) => {
            tracing::warn!(name = guarded.name_any(), error = %invalid, "model cannot be read; it is left alone");
            return Ok(Action::await_change());
        }
    };
    if model.metadata.deletion_timestamp.is_some() {
        part(&context.shared, &(model.namespace().unwrap_or_default(), model.name_any()));
        // Everything of a model is owned by it, so the garbage collector does the rest.
        return Ok(Action::await_change());
    }
    let metrics = &context.shared.metrics;
    let requeue = act_on_model(model, &context).await?;
    metrics.reconciles_total.with_label_values(&["InferenceModel", "done"]).inc();
    metrics.reconcile_seconds.with_label_values(&["InferenceModel"]).observe(began.elapsed().as_secs_f64());
    Ok(Action::requeue(requeue))
}

async fn act_on_model(model: &InferenceModel, context: &Context) -> Result<Duration, Error> {
    let shared = &context.shared;
    let mut observed =
        observe::observe(&context.sources, model, &shared.installation, Timestamp::now()).await?;
    observed.scaling = look(model, &observed, shared, Timestamp::now());
    observed.trial = look_at_canary(model, &observed, shared, Timestamp::now());
    let key = (model.namespace().unwrap_or_default(), model.name_any());
    observed.shadow = shared.trials.shadow(&key);
    observed.draws = shared.experiments.look(&key, &declared(&model.spec));
    let mut plan = plan::plan(model, &observed, &shared.installation, Timestamp::now());
    if let Some(problem) = apply::apply(&shared.client, model, &plan).await? {
        plan = plan::refused(model, &observed, &problem, Timestamp::now());
    }
    if apply::write_status(&shared.client, model, &plan).await? {
        shared.metrics.status_writes_total.with_label_values(&["InferenceModel"]).inc();
    }
    // Once the status says it, nobody finds the same change again.
    shared.notifier.tell(model, &plan, Timestamp::now());
    apply::prune(&shared.client, model, &plan).await?;
    apply::publish(&shared.recorder, model, &plan.notices).await;
    follow_up(model, &observed, &plan, shared);
    Ok(plan.requeue)
}

/// How many replicas the load asks for, if decisions are made for the model.
fn look(model: &InferenceModel, observed: &Observed, shared: &Shared, now: Timestamp) -> Option<Seen> {
    let key = (model.namespace().unwrap_or_default(), model.name_any());
    let now_ms = shared.loads.clock().now();
    let pool = observed.pool.as_ref()?;
    let target = objects::revision_name(model, pool, &shared.installation);
    let Some(standing) = autoscale::standing(model, observed, &target, now, now_ms) else {
        shared.loads.rest(&key);
        return None;
    };
    let look = shared.loads.look(key, standing, now_ms);
    tracing::debug!(
        model = model.name_any(),
        current = look.decision.current,
        desired = look.decision.desired,
        winner = ?look.decision.winner,
        sentence = look.decision.sentence,
        "decided"
    );
    Some(Seen { look, now_ms })
}

/// The last verdict on the model's canary.
fn look_at_canary(
    model: &InferenceModel,
    observed: &Observed,
    shared: &Shared,
    now: Timestamp,
) -> Option<trial::tell::Seen> {
    let key = (model.namespace().unwrap_or_default(), model.name_any());
    let now_ms = shared.loads.clock().now();
    let Some(standing) = trial::standing(model, observed.pods.iter(), now, now_ms) else {
        shared.trials.rest(&key);
        return None;
    };
    shared.trials.look(key, standing, now_ms)
}

/// Looks at each model's load and canary when it is time, and wakes the reconciles of those for which another number of
/// pods is right now, or whose canary has another verdict.
async fn watch_loads(Shared { loads, trials, wake, metrics, .. }: Shared) {
    let mut pace = tokio::time::interval(LOADS_EVERY);
    pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        pace.tick().await;
        let now = loads.clock().now();
        for model in loads.turn(now) {
            // Nobody listens only at the very end.
            let _ = wake.send(model);
        }
        let turn = trials.turn(now);
        metrics.show_canaries(&turn.outcomes);
        for model in turn.wake {
            let _ = wake.send(model);
        }
    }
}

fn follow_up(model: &InferenceModel, observed: &Observed, plan: &Plan, shared: &Shared) {
    let uid = model.uid().unwrap_or_default();
    for revision in &plan.prune {
        tracing::info!(model = model.name_any(), revision, "revision removed");
        shared.prober.forget(&uid, revision);
        shared.golden.forget(&uid, revision);
    }
    for notice in &plan.notices {
        tracing::info!(
            model = model.name_any(),
            reason = notice.reason,
            message = notice.message,
            "model changed"
        );
    }
    let wake = Wake { namespace: model.namespace().unwrap_or_default(), model: model.name_any() };
    for request in &plan.probes {
        shared.prober.ask(Subject { uid: uid.clone(), wake: wake.clone() }, request.clone());
    }
    let set = observed.golden.as_ref().and_then(|golden| golden.set.as_ref().ok());
    if let (Some(request), Some(set)) = (&plan.golden, set) {
        shared.golden.ask(&uid, wake, request.clone(), set.clone());
    }
}

async fn reconcile_pool(guarded: Arc<Pool>, context: Arc<Context>) -> Result<Action, Error> {
    let began = Instant::now();
    let Ok(pool) = &guarded.0 else { return Ok(Action::await_change()) };
    if pool.metadata.deletion_timestamp.is_some() {
        // Everything of a gateway is owned by its pool, so the garbage collector does the rest.
        return Ok(Action::await_change());
    }
    // Six kinds of objects pass through it: too large for the stack of every caller.
    let plan = Box::pin(act_on_pool(pool, &context)).await?;
    let metrics = &context.shared.metrics;
    metrics.reconciles_total.with_label_values(&["InferencePool", "done"]).inc();
    metrics.reconcile_seconds.with_label_values(&["InferencePool"]).observe(began.elapsed().as_secs_f64());
    Ok(Action::requeue(plan.requeue))
}

async fn act_on_pool(pool: &InferencePool, context: &Context) -> Result<PoolPlan, Error> {
    let shared = &context.shared;
    let observed = observe::observe_pool(&context.sources, pool).await?;
    let mut plan = plan_pool(pool, &observed, &shared.installation, Timestamp::now());
    if let Some(gateway) = &plan.gateway {
        let fingerprint = fingerprint(gateway, &observed.gateway);
        let prune = plan.prune_disruption_budget.as_deref();
        let uid = pool.uid().unwrap_or_default();
        if prune.is_some() || !context.is_settled(&uid, fingerprint) {
            let namespace = pool.namespace().unwrap_or_default();
            match apply::apply_gateway(&shared.client, &namespace, gateway, prune).await? {
                Some(problem) => plan = refused_pool(pool, &observed, &problem, Timestamp::now()),
                None => context.settle(uid, fingerprint),
            }
        }
    }
    if apply::write_pool_status(&shared.client, pool, &plan.status).await? {
        shared.metrics.status_writes_total.with_label_values(&["InferencePool"]).inc();
    }
    apply::publish(&shared.recorder, pool, &plan.notices).await;
    for notice in &plan.notices {
        tracing::info!(
            pool = pool.name_any(),
            reason = notice.reason,
            message = notice.message,
            "pool changed"
        );
    }
    Ok(plan)
}

impl Context {
    fn is_settled(&self, uid: &str, fingerprint: u64) -> bool {
        self.settled.lock().unwrap_or_else(PoisonError::into_inner).get(uid) == Some(&fingerprint)
    }

    fn settle(&self, uid: String, fingerprint: u64) {
        let mut settled = self.settled.lock().unwrap_or_else(PoisonError::into_inner);
        if settled.len() >= SETTLED_MAX {
            settled.clear();
        }
        settled.insert(uid, fingerprint);
    }
}

fn on_error(kind: &'static str, error: &Error, context: &Context) -> Action {
    context.shared.metrics.reconciles_total.with_label_values(&[kind, error.label()]).inc();
    let causes = std::iter::successors(Some(error as &dyn std::error::Error), |error| error.source());
    let text: Vec<String> = causes.map(ToString::to_string).collect();
    tracing::warn!(kind, error = text.join(": "), "reconcile failed");
    Action::requeue(ERROR_RETRY)
}

impl Error {
    fn label(&self) -> &'static str {
        match self {
            Self::Observe(_) => "observe_failed",
            Self::Apply(_) => "apply_failed",
        }
    }
}

/// Nobody is woken by the deletion of a model, but by that of what it owned, and then it is not there.
fn part_from_deleted(error: Option<&controller::Error<Error, watcher::Error>>, shared: &Shared) {
    if let Some(controller::Error::ObjectNotFound(model)) = error {
        part(shared, &(model.namespace.clone().unwrap_or_default(), model.name.clone()));
    }
}

/// Nothing is said or done about a model any more.
fn part(shared: &Shared, key: &ModelKey) {
    shared.loads.rest(key);
    shared.trials.rest(key);
    shared.experiments.rest(key);
    shared.notifier.part(&key.0, &key.1, Timestamp::now());
}

/// A watch that fails is tried again by the library, with growing pauses; but somebody should know. Reconciles that
/// failed have been told already.
fn tell_broken_watches(error: Option<controller::Error<Error, watcher::Error>>) {
    if let Some(controller::Error::QueueError(error)) = error {
        tracing::warn!(%error, "a watch is broken; it is tried again");
    }
}

/// The name under which the operator writes and publishes.
pub fn recorder(client: Client, instance: Option<String>) -> Recorder {
    Recorder::new(client, kube::runtime::events::Reporter { controller: MANAGER.to_owned(), instance })
}
