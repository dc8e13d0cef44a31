//! The revisions of a model as its Deployments show them, and whose an object is. Pure.

use crds::model::InferenceModel;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::Timestamp;
use kube::{Resource, ResourceExt};

use crate::problem::{Problem, Reason};

/// One Deployment of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revision {
    /// Its name.
    pub name: String,
    /// Pods that are ready.
    pub ready: i32,
    /// Pods that exist.
    pub replicas: i32,
    /// Pods that it is told to have.
    pub replicas_told: i32,
    /// Whether its status speaks of its latest spec.
    pub is_current: bool,
    /// When it was made.
    pub created: Option<Timestamp>,
    /// Why its pods cannot even be made.
    pub refusal: Option<String>,
}

/// The revisions among `deployments` that belong to `model` and are to stay.
pub fn revisions(model: &InferenceModel, deployments: &[Deployment]) -> Vec<Revision> {
    let ours = deployments.iter().filter(|deployment| is_owned(model, &deployment.metadata));
    ours.filter(|deployment| deployment.metadata.deletion_timestamp.is_none()).map(revision).collect()
}

fn revision(deployment: &Deployment) -> Revision {
    let status = deployment.status.clone().unwrap_or_default();
    Revision {
        name: deployment.name_any(),
        ready: status.ready_replicas.unwrap_or(0),
        replicas: status.replicas.unwrap_or(0),
        replicas_told: deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1),
        is_current: status.observed_generation >= deployment.metadata.generation,
        created: deployment.metadata.creation_timestamp.as_ref().map(|time| time.0),
        refusal: refusal(deployment),
    }
}

/// Why the pods of a Deployment cannot even be made: a quota, an admission policy, pod security.
pub fn refusal(deployment: &Deployment) -> Option<String> {
    let conditions = deployment.status.as_ref()?.conditions.as_ref()?;
    let failure = conditions
        .iter()
        .find(|condition| condition.type_ == "ReplicaFailure" && condition.status == "True")?;
    Some(failure.message.clone().unwrap_or_default())
}

/// An object of a name that we need must be ours. One of a deleted owner with our name is about to be collected.
pub fn check_owner<K>(owner: &K, object: &ObjectMeta, kind: &str) -> Result<(), Problem>
where
    K: Resource<DynamicType = ()>,
{
    if is_owned(owner, object) {
        return Ok(());
    }
    let name = object.name.as_deref().unwrap_or_default();
    let our_kind = K::kind(&());
    let is_of_a_namesake = object
        .owner_references
        .iter()
        .flatten()
        .any(|reference| reference.kind == our_kind && reference.name == owner.name_any());
    if is_of_a_namesake {
        return Err(Problem::new(
            Reason::WaitingForDeletion,
            format!("{kind} {name} of a deleted {our_kind} of this name is still being removed"),
        ));
    }
    Err(Problem::new(
        Reason::NameConflict,
        format!(
            "{kind} {name} exists and does not belong to {our_kind} {}; rename this {our_kind} or delete that {kind}",
            owner.name_any()
        ),
    ))
}

/// Whether `owner` is among the owners of the object.
pub fn is_owned<K: Resource>(owner: &K, object: &ObjectMeta) -> bool {
    object
        .owner_references
        .iter()
        .flatten()
        .any(|reference| Some(&reference.uid) == owner.meta().uid.as_ref())
}
