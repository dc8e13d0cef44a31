//! All writes of a reconcile: server-side apply with one field manager, then the status if it differs, then what is
//! not needed any more is deleted. Decides nothing.

use crds::model::InferenceModel;
use crds::pool::{InferencePool, InferencePoolStatus};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::{DeleteParams, Patch, PatchParams};
use kube::core::NamespaceResourceScope;
use kube::runtime::events::{Event, EventType, Recorder};
use kube::{Api, Client, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::drain::DELETION_COST;
use crate::gateway::Gateway;
use crate::objects::MANAGER;
use crate::plan::{Notice, Plan};
use crate::problem::{Problem, Reason};

/// Writes that went wrong.
#[derive(Debug, thiserror::Error)]
#[error("{act} {kind} {name}")]
pub struct Error {
    act: &'static str,
    kind: String,
    name: String,
    #[source]
    source: kube::Error,
}

/// Writes the objects of a plan. `Some` is the API server's refusal of one of them: the spec holds something that
/// only the API server could judge, and nothing more was written.
pub async fn apply(client: &Client, model: &InferenceModel, plan: &Plan) -> Result<Option<Problem>, Error> {
    let namespace = model.namespace().unwrap_or_default();
    let pods: Api<Pod> = Api::namespaced(client.clone(), &namespace);
    for (name, cost) in &plan.marks {
        let patch = json!({"metadata": {"annotations": {DELETION_COST: cost}}});
        ignoring_missing(pods.patch(name, &as_manager(), &Patch::Merge(&patch)).await)
            .map_err(|source| error("mark", "Pod", name, source))?;
    }
    for service in &plan.services {
        if let Some(problem) = apply_object(client, &namespace, service).await? {
            return Ok(Some(problem));
        }
    }
    if let Some(deployment) = &plan.deployment
        && let Some(problem) = apply_object(client, &namespace, deployment).await?
    {
        return Ok(Some(problem));
    }
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), &namespace);
    for (name, replicas) in &plan.scale {
        let patch = json!({"spec": {"replicas": replicas}});
        ignoring_missing(deployments.patch(name, &as_manager(), &Patch::Merge(&patch)).await)
            .map_err(|source| error("scale", "Deployment", name, source))?;
    }
    Ok(None)
}

fn as_manager() -> PatchParams {
    PatchParams { field_manager: Some(MANAGER.to_owned()), ..Default::default() }
}

/// Deletes what a plan does not need any more.
pub async fn prune(client: &Client, model: &InferenceModel, plan: &Plan) -> Result<(), Error> {
    let namespace = model.namespace().unwrap_or_default();
    for name in &plan.prune {
        delete::<Deployment>(client, &namespace, name).await?;
    }
    for name in &plan.prune_services {
        delete::<Service>(client, &namespace, name).await?;
    }
    Ok(())
}

/// Writes the objects of a gateway, rights before pods, and deletes what it does not need any more. `Some` is the
/// API server's refusal of one of them.
pub async fn apply_gateway(
    client: &Client,
    namespace: &str,
    gateway: &Gateway,
    prune_disruption_budget: Option<&str>,
) -> Result<Option<Problem>, Error> {
    let refusal = apply_in_order(client, namespace, gateway).await?;
    if let Some(name) = prune_disruption_budget.filter(|_| refusal.is_none()) {
        delete::<PodDisruptionBudget>(client, namespace, name).await?;
    }
    Ok(refusal)
}

/// The first refusal ends it: pods without rights would only fail.
async fn apply_in_order(
    client: &Client,
    namespace: &str,
    gateway: &Gateway,
) -> Result<Option<Problem>, Error> {
    macro_rules! applied_or_refused {
        ($($object:expr),+) => {
            $(if let Some(problem) = apply_object(client, namespace, $object).await? {
                return Ok(Some(problem));
            })+
        };
    }
    applied_or_refused!(&gateway.service_account, &gateway.role, &gateway.role_binding);
    applied_or_refused!(&gateway.service, &gateway.deployment);
    match &gateway.disruption_budget {
        Some(budget) => apply_object(client, namespace, budget).await,
        None => Ok(None),
    }
}

async fn delete<K>(client: &Client, namespace: &str, name: &str) -> Result<(), Error>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + std::fmt::Debug
        + DeserializeOwned,
{
    let api: Api<K> = Api::namespaced(client.clone(), namespace);
    ignoring_missing(api.delete(name, &DeleteParams::background()).await)
        .map_err(|source| error("delete", &K::kind(&()), name, source))
}

/// Writes a model's status, if it differs from the one that was read.
pub async fn write_status(client: &Client, model: &InferenceModel, plan: &Plan) -> Result<bool, Error> {
    if model.status.as_ref() == Some(&plan.status) {
        return Ok(false);
    }
    write_status_of(client, model, json!(plan.status)).await?;
    Ok(true)
}

/// Writes a pool's status, if it differs from the one that was read.
pub async fn write_pool_status(
    client: &Client,
    pool: &InferencePool,
    status: &InferencePoolStatus,
) -> Result<bool, Error> {
    if pool.status.as_ref() == Some(status) {
        return Ok(false);
    }
    write_status_of(client, pool, json!(status)).await?;
    Ok(true)
}

async fn write_status_of<K>(client: &Client, object: &K, status: Value) -> Result<(), Error>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + std::fmt::Debug
        + DeserializeOwned,
{
    let api: Api<K> = Api::namespaced(client.clone(), &object.namespace().unwrap_or_default());
    let name = object.name_any();
    // The UID keeps us from writing to a namesake that was made after this object was read.
    let patch = json!({
        "apiVersion": K::api_version(&()),
        "kind": K::kind(&()),
        "metadata": {"name": name, "uid": object.uid()},
        "status": status,
    });
    let written = api.patch_status(&name, &PatchParams::apply(MANAGER).force(), &Patch::Apply(&patch)).await;
    ignoring_missing(written).map_err(|source| error("write status of", &K::kind(&()), &name, source))
}

/// Publishes the events of a plan. They are a courtesy: a failure is logged and forgotten.
pub async fn publish<K>(recorder: &Recorder, object: &K, notices: &[Notice])
where
    K: Resource<DynamicType = ()>,
{
    for notice in notices {
        let event = Event {
            type_: if notice.is_warning { EventType::Warning } else { EventType::Normal },
            reason: notice.reason.clone(),
            note: Some(notice.message.clone()),
            action: "Reconcile".to_owned(),
            secondary: None,
        };
        if let Err(error) = recorder.publish(&event, &object.object_ref(&())).await {
            tracing::debug!(%error, reason = %notice.reason, "event not published");
        }
    }
}

async fn apply_object<K>(client: &Client, namespace: &str, object: &K) -> Result<Option<Problem>, Error>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + std::fmt::Debug
        + DeserializeOwned
        + Serialize,
{
    let api: Api<K> = Api::namespaced(client.clone(), namespace);
    let name = object.name_any();
    let kind = K::kind(&());
    let applied = api.patch(&name, &PatchParams::apply(MANAGER).force(), &Patch::Apply(object)).await;
    match applied {
        Ok(_) => Ok(None),
        Err(kube::Error::Api(status)) if is_refusal(status.code, &status.message) => Ok(Some(Problem::new(
            Reason::Rejected,
            format!("the API server refuses {kind} {name}: {}", status.message),
        ))),
        Err(source) => Err(error("apply", &kind, &name, source)),
    }
}

/// Whether the API server will say the same for as long as the spec stays: invalid, or forbidden by a policy. A
/// namespace that is being deleted and rights that we lack are no fault of the spec.
fn is_refusal(code: u16, message: &str) -> bool {
    let is_ours = message.contains("being terminated") || message.contains("cannot patch resource");
    matches!(code, 400 | 403 | 422) && !is_ours
}

fn ignoring_missing<T>(result: Result<T, kube::Error>) -> Result<(), kube::Error> {
    match result {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        other => other.map(|_| ()),
    }
}

fn error(act: &'static str, kind: &str, name: &str, source: kube::Error) -> Error {
    Error { act, kind: kind.to_owned(), name: name.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(code: u16, message: &str, expected: bool) {
        assert_eq!(is_refusal(code, message), expected, "{code} {message}");
    }

    #[test]
    fn only_what_the_spec_causes_is_a_refusal() {
        check(
            422,
            "Deployment \"x\" is invalid: spec.template.spec.tolerations[0].operator: Invalid value",
            true,
        );
        check(403, "deployments.apps \"x\" is forbidden: exceeded quota", true);
        check(403, "unable to create new content in namespace a because it is being terminated", false);
        check(
            403,
            "deployments.apps \"x\" is forbidden: User \"u\" cannot patch resource \"deployments\"",
            false,
        );
        check(409, "conflict", false);
        check(500, "internal", false);
    }
}
