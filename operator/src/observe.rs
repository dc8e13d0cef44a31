//! All reads of a reconcile. Knows nothing of what is decided with them.

use std::collections::HashMap;
use std::sync::Arc;

use crds::model::InferenceModel;
use crds::pool::InferencePool;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Pod, Service};
use k8s_openapi::jiff::Timestamp;
use kube::api::ListParams;
use kube::core::DeserializeGuard;
use kube::runtime::reflector::Store;
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;

use crate::autoscale;
use crate::capacity::Claim;
use crate::gateway::{self, ObservedGateway};
use crate::golden::runner::Runner;
use crate::golden::set;
use crate::golden::standing::{Seen, declared};
use crate::inventory::{Inventory, Place, Room};
use crate::notify::receivers::{Known, Receivers};
use crate::objects::{self, Installation, pod_selector};
use crate::plan::Observed;
use crate::pool::{ObservedPool, claim_name};
use crate::probe::Prober;
use crate::report::Reports;

/// Reads that went wrong.
#[derive(Debug, thiserror::Error)]
#[error("read {kind} {name}")]
pub struct Error {
    kind: String,
    name: String,
    #[source]
    source: kube::Error,
}

/// Where reads come from.
#[derive(Clone)]
pub struct Sources {
    /// The API server.
    pub client: Client,
    /// All models that this operator sees.
    pub models: Store<DeserializeGuard<InferenceModel>>,
    /// What pods have reported.
    pub reports: Reports,
    /// What came of asking for tokens.
    pub prober: Prober,
    /// What came of asking golden prompts.
    pub golden: Runner,
    /// Who can be told.
    pub receivers: Receivers,
    /// What the nodes have room for.
    pub inventory: Inventory,
}

/// Reads everything that is needed to decide about `model`.
pub async fn observe(
    sources: &Sources,
    model: &InferenceModel,
    installation: &Installation,
    now: Timestamp,
) -> Result<Observed, Error> {
    let namespace = model.namespace().unwrap_or_default();
    let client = &sources.client;
    let pool_name = &model.spec.pool_ref.name;
    let pool: Option<InferencePool> = get(client, &namespace, pool_name).await?;
    let mut deployments: Vec<Deployment> = list(client, &namespace, &pod_selector(model)).await?;
    let (mut golden, mut room) = (None, Room::Unknown);
    if let Some(pool) = &pool {
        // Before the pods: one that is placed meanwhile counts as placed, and its room as free, rather than as neither.
        room = sources.inventory.room(&objects::need(model, pool, installation));
        let target = objects::revision_name(model, pool, installation);
        // A stranger's Deployment of that name need not have our label.
        if deployments.iter().all(|deployment| deployment.name_any() != target) {
            deployments.extend(get::<Deployment>(client, &namespace, &target).await?);
        }
        golden = golden_prompts(sources, model, &target).await?;
    }
    let services = services(client, &namespace, model, &deployments).await?;
    let pods: Vec<Pod> = list(client, &namespace, &pod_selector(model)).await?;
    let reports = pods
        .iter()
        .filter_map(|pod| pod.metadata.uid.as_deref())
        .filter_map(|uid| Some((uid.to_owned(), sources.reports.latest(uid, now)?)))
        .collect::<HashMap<_, _>>();
    let in_flight = pods
        .iter()
        .filter_map(|pod| pod.metadata.uid.clone())
        .filter_map(|uid| Some((uid.clone(), sources.reports.in_flight(&uid, now)?)))
        .collect::<HashMap<_, _>>();
    Ok(Observed {
        claims: claims(&sources.models, &namespace, pool_name, now),
        pool,
        services,
        deployments,
        pods,
        reports,
        in_flight,
        proofs: sources.prober.proofs(model.metadata.uid.as_deref().unwrap_or_default()),
        is_probing: sources.prober.is_on(),
        receivers: match model.spec.notifications.as_slice() {
            [] => Known::new(),
            _ => sources.receivers.known(),
        },
        golden,
        room,
        scaling: None,
        trial: None,
        shadow: None,
        draws: Vec::new(),
    })
}

/// The golden prompts of a model, as long as its declared revision has to pass them: the one that serves has.
async fn golden_prompts(
    sources: &Sources,
    model: &InferenceModel,
    target: &str,
) -> Result<Option<Seen>, Error> {
    let stable = model.status.as_ref().and_then(|status| status.stable_revision.as_deref());
    let Some(declared) = declared(model).filter(|_| stable != Some(target)) else { return Ok(None) };
    let (name, namespace) = (&declared.config_map_ref.name, model.namespace().unwrap_or_default());
    let config_map: Option<ConfigMap> = get(&sources.client, &namespace, name).await?;
    Ok(Some(Seen {
        set: set::read(name, &namespace, config_map.as_ref()).map(Arc::new),
        findings: sources.golden.findings(model.metadata.uid.as_deref().unwrap_or_default()),
    }))
}

/// The model's Services, and whatever has the name of one that it needs.
async fn services(
    client: &Client,
    namespace: &str,
    model: &InferenceModel,
    deployments: &[Deployment],
) -> Result<Vec<Service>, Error> {
    let mut services: Vec<Service> = list(client, namespace, &pod_selector(model)).await?;
    for name in deployments.iter().map(ResourceExt::name_any) {
        if services.iter().all(|service| service.name_any() != name) {
            services.extend(get::<Service>(client, namespace, &name).await?);
        }
    }
    Ok(services)
}

/// Reads everything that is needed to decide about `pool`.
pub async fn observe_pool(sources: &Sources, pool: &InferencePool) -> Result<ObservedPool, Error> {
    let namespace = pool.namespace().unwrap_or_default();
    let has_claim = match claim_name(pool) {
        Some(name) => Some(get::<PersistentVolumeClaim>(&sources.client, &namespace, name).await?.is_some()),
        None => None,
    };
    let gateway = observe_gateway(&sources.client, &namespace, &pool.name_any()).await?;
    let accelerator = objects::accelerator(pool);
    let accelerators = accelerator.and_then(|(name, _)| sources.inventory.usage(&Place::of(pool), name));
    Ok(ObservedPool { models: models_of(&sources.models, &namespace), has_claim, gateway, accelerators })
}

async fn observe_gateway(client: &Client, namespace: &str, pool: &str) -> Result<ObservedGateway, Error> {
    let name = gateway::name(pool);
    let found = ObservedGateway {
        service_account: get(client, namespace, &name).await?,
        role: get(client, namespace, &name).await?,
        role_binding: get(client, namespace, &name).await?,
        service: get(client, namespace, &name).await?,
        deployment: get(client, namespace, &name).await?,
        disruption_budget: get(client, namespace, &name).await?,
        pods: Vec::new(),
    };
    let pods = match found.ready() {
        0 => list(client, namespace, &gateway::pod_selector(pool)).await?,
        _ => Vec::new(),
    };
    Ok(ObservedGateway { pods, ..found })
}

fn claims(
    models: &Store<DeserializeGuard<InferenceModel>>,
    namespace: &str,
    pool: &str,
    now: Timestamp,
) -> Vec<Claim> {
    models_of(models, namespace)
        .iter()
        .filter(|model| model.spec.pool_ref.name == pool && model.spec.suspend != Some(true))
        .map(|model| {
            let replicas = autoscale::asked(model, None, now);
            let rollout = model.status.as_ref().and_then(|status| status.rollout.as_ref());
            let has_former = rollout.is_some_and(|rollout| rollout.former.is_some());
            Claim {
                created: model.creation_timestamp().map(|time| time.0),
                model: model.name_any(),
                replicas,
                kept: if has_former { replicas } else { 0 },
            }
        })
        .collect()
}

fn models_of(models: &Store<DeserializeGuard<InferenceModel>>, namespace: &str) -> Vec<InferenceModel> {
    models
        .state()
        .iter()
        .filter_map(|guarded| guarded.0.as_ref().ok())
        .filter(|model| model.namespace().as_deref() == Some(namespace))
        .filter(|model| model.metadata.deletion_timestamp.is_none())
        .cloned()
        .collect()
}

async fn get<K>(client: &Client, namespace: &str, name: &str) -> Result<Option<K>, Error>
where
    K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
        + Clone
        + std::fmt::Debug
        + DeserializeOwned,
{
    let api: Api<K> = Api::namespaced(client.clone(), namespace);
    api.get_opt(name).await.map_err(|source| Error {
        kind: K::kind(&()).into_owned(),
        name: name.to_owned(),
        source,
    })
}

async fn list<K>(client: &Client, namespace: &str, selector: &str) -> Result<Vec<K>, Error>
where
    K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
        + Clone
        + std::fmt::Debug
        + DeserializeOwned,
{
    let api: Api<K> = Api::namespaced(client.clone(), namespace);
    let found = api.list(&ListParams::default().labels(selector)).await;
    found.map(|list| list.items).map_err(|source| Error {
        kind: K::kind(&()).into_owned(),
        name: selector.to_owned(),
        source,
    })
}
