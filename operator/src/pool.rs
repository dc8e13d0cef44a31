//! What should be done about one pool: its gateway, and what its status says. Pure.

use std::time::Duration;

use crds::model::InferenceModel;
use crds::pool::{GatewayStatus, InferencePool, InferencePoolStatus, ModelCacheMode};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;

use crate::gateway::{self, Gateway, ObservedGateway};
use crate::inventory::Usage;
use crate::objects::Installation;
use crate::plan::Notice;
use crate::problem::{Problem, Reason};
use crate::status::{READY, Verdict};

/// Pools change when their models and their gateways do; this is the safety net.
const WHILE_READY: Duration = Duration::from_secs(60);
/// While the gateway starts or something is wrong.
const WHILE_UNREADY: Duration = Duration::from_secs(5);

/// Everything that was read for one pool.
#[derive(Debug, Clone, Default)]
pub struct ObservedPool {
    /// The models of the pool's namespace.
    pub models: Vec<InferenceModel>,
    /// Whether the claim that the pool names exists; `None` if it names none.
    pub has_claim: Option<bool>,
    /// What there is of the gateway.
    pub gateway: ObservedGateway,
    /// How many of its devices are taken, if it has any and somebody knows.
    pub accelerators: Option<Usage>,
}

/// What should be done.
#[derive(Debug, Clone, PartialEq)]
pub struct PoolPlan {
    /// Applied, unless the same has been applied to the same objects before.
    pub gateway: Option<Gateway>,
    /// Name of a disruption budget to delete.
    pub prune_disruption_budget: Option<String>,
    /// The status to be written if it differs.
    pub status: InferencePoolStatus,
    /// Events to publish.
    pub notices: Vec<Notice>,
    /// When to look again without being woken.
    pub requeue: Duration,
}

/// The claim that a pool names.
pub fn claim_name(pool: &InferencePool) -> Option<&str> {
    let cache = pool.spec.model_cache.as_ref()?;
    cache.claim_name.as_deref().filter(|_| cache.mode == ModelCacheMode::PersistentVolumeClaim)
}

/// Decides what should be done about `pool`.
pub fn plan_pool(
    pool: &InferencePool,
    observed: &ObservedPool,
    installation: &Installation,
    now: Timestamp,
) -> PoolPlan {
    if let Err(problem) = observed.gateway.check_owner(pool) {
        return refused_pool(pool, observed, &problem, now);
    }
    let gateway = gateway::gateway(pool, installation);
    PoolPlan {
        prune_disruption_budget: observed.gateway.surplus_disruption_budget(pool, &gateway),
        gateway: Some(gateway),
        ..told(pool, observed, verdict(pool, observed), now)
    }
}

/// The plan when a gateway cannot be made: nothing is changed, and the status says why.
pub fn refused_pool(
    pool: &InferencePool,
    observed: &ObservedPool,
    problem: &Problem,
    now: Timestamp,
) -> PoolPlan {
    told(pool, observed, Verdict::no(problem.reason, &problem.message), now)
}

fn verdict(pool: &InferencePool, observed: &ObservedPool) -> Verdict {
    if let (Some(false), Some(claim)) = (observed.has_claim, claim_name(pool)) {
        return Verdict::no(
            Reason::ClaimUnavailable,
            format!(
                "spec.modelCache.claimName is {claim}, but namespace {} has no such PersistentVolumeClaim; create it",
                pool.namespace().unwrap_or_default()
            ),
        );
    }
    if observed.gateway.ready() == 0 {
        let name = gateway::name(&pool.name_any());
        let message = match observed.gateway.obstacle() {
            Some(obstacle) => format!("no pod of gateway {name} is ready: {obstacle}"),
            None => format!("no pod of gateway {name} is ready; it is being started"),
        };
        return Verdict::no(Reason::GatewayUnavailable, message);
    }
    Verdict::yes(Reason::Valid, "models can be placed here, and the gateway answers")
}

fn told(pool: &InferencePool, observed: &ObservedPool, verdict: Verdict, now: Timestamp) -> PoolPlan {
    let now = Timestamp::from_second(now.as_second()).unwrap_or(now);
    let name = pool.name_any();
    let models: Vec<&InferenceModel> =
        observed.models.iter().filter(|model| model.spec.pool_ref.name == name).collect();
    let statuses = || models.iter().filter_map(|model| model.status.as_ref());
    let before = pool.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    let status = InferencePoolStatus {
        observed_generation: pool.metadata.generation,
        url: Some(gateway::url(&name, &pool.namespace().unwrap_or_default())),
        gateway: Some(GatewayStatus {
            replicas: gateway::replicas(pool),
            ready_replicas: observed.gateway.ready(),
        }),
        models: i32::try_from(models.len()).unwrap_or(i32::MAX),
        replicas: statuses().map(|status| status.replicas).sum(),
        ready_replicas: statuses().map(|status| status.ready_replicas).sum(),
        accelerators: observed
            .accelerators
            .map(|Usage { used, allocatable }| format!("{used}/{allocatable}")),
        conditions: vec![verdict.condition(READY, before, pool.metadata.generation, now)],
    };
    let is_ready = is_ready(&status);
    PoolPlan {
        gateway: None,
        prune_disruption_budget: None,
        notices: notice(pool, &status).into_iter().collect(),
        status,
        requeue: if is_ready { WHILE_READY } else { WHILE_UNREADY },
    }
}

fn is_ready(status: &InferencePoolStatus) -> bool {
    status.conditions.iter().any(|condition| condition.type_ == READY && condition.status == "True")
}

/// What has changed that people should be told. A gateway that is being started for the first time is no warning.
fn notice(pool: &InferencePool, status: &InferencePoolStatus) -> Option<Notice> {
    let before = pool.status.clone().unwrap_or_default();
    let now = status.conditions.iter().find(|condition| condition.type_ == READY)?;
    let then = before.conditions.iter().find(|condition| condition.type_ == READY);
    if then.is_some_and(|then| (&then.status, &then.reason) == (&now.status, &now.reason)) {
        return None;
    }
    if is_ready(status) {
        let url = status.url.as_deref().unwrap_or_default();
        let message = format!("the gateway answers at {url}");
        return Some(Notice { is_warning: false, reason: "GatewayReady".to_owned(), message });
    }
    let is_first = then.is_none() && now.reason == Reason::GatewayUnavailable.to_string();
    (!is_first).then(|| Notice { is_warning: true, reason: now.reason.clone(), message: now.message.clone() })
}
