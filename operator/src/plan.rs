//! What should be done about one model, decided from its spec, from what was observed, and from the time. Pure.
//!
//! Every revision of a model is a Deployment of its own. A new one starts beside the old one; the old one goes when
//! the new one has all its pods ready and has generated a token. So a revision that cannot start never takes a
//! serving one down, and going back to an earlier spec is just another target.

use std::collections::HashMap;
use std::time::Duration;

use crds::model::{InferenceModel, InferenceModelStatus, RolloutPhase};
use crds::pool::InferencePool;
use crds::report::Report;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;

use crate::blame::name_field;
use crate::capacity::{Claim, allot};
use crate::objects::{self, Installation, POD_PORT, REVISION_LABEL};
use crate::pod::{self, Reading, Stage};
use crate::policy::check_source;
use crate::problem::{Problem, Reason};
use crate::status::{self, Situation};

/// A proven revision is asked for a token again after this long: rarely enough to cost nothing, often enough that a
/// dead Service is noticed before people do.
const PROBE_EVERY: i64 = 60;
/// After a failed probe.
const PROBE_RETRY: i64 = 3;
/// While something moves, its progress is shown as often as pods report it.
const WHILE_MOVING: Duration = Duration::from_secs(2);
/// Pods that failed wake us when they change; this is only the safety net.
const WHILE_FAILED: Duration = Duration::from_secs(15);
/// The same when nothing moves.
const WHILE_STABLE: Duration = Duration::from_secs(30);

/// Everything that was read for one model.
#[derive(Debug, Clone, Default)]
pub struct Observed {
    /// The pool that the model names.
    pub pool: Option<InferencePool>,
    /// What all models of that pool ask for.
    pub claims: Vec<Claim>,
    /// The Service with the name that the model's would have.
    pub service: Option<Service>,
    /// Deployments with the model's label, and the one with the name of the revision asked for.
    pub deployments: Vec<Deployment>,
    /// Pods with the model's label.
    pub pods: Vec<Pod>,
    /// Fresh reports by pod UID.
    pub reports: HashMap<String, Report>,
    /// Results of the tokens asked for.
    pub proofs: Vec<Proof>,
    /// Whether tokens are asked for at all; without it, ready pods count as serving.
    pub is_probing: bool,
}

/// The way a token was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Route {
    /// From one pod, while another revision still answers behind the Service.
    Pod,
    /// Through the Service, as clients do.
    Service,
}

/// What came of asking a revision for one token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proof {
    /// Whom.
    pub revision: String,
    /// How.
    pub route: Route,
    /// When it was last tried.
    pub tried_at: Timestamp,
    /// Failures since the last success.
    pub failures: u32,
    /// Whether it ever succeeded.
    pub has_succeeded: bool,
    /// What the last failure was.
    pub error: Option<String>,
}

/// A token to ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeRequest {
    /// Whose proof it is.
    pub revision: String,
    /// How.
    pub route: Route,
    /// Base URL, ending in `/v1`.
    pub base_url: String,
    /// Value of `model` in the request.
    pub model_name: String,
}

/// Something to tell in an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// Whether somebody should look.
    pub is_warning: bool,
    /// One word, as Kubernetes writes them.
    pub reason: String,
    /// For people.
    pub message: String,
}

/// What should be done.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// Applied first.
    pub service: Option<Service>,
    /// Applied second: the revision that the spec asks for.
    pub deployment: Option<Deployment>,
    /// Revisions that keep running and how many replicas they should have.
    pub scale: Vec<(String, i32)>,
    /// Deployments to delete, last.
    pub prune: Vec<String>,
    /// The status to be written if it differs.
    pub status: InferenceModelStatus,
    /// Events to publish.
    pub notices: Vec<Notice>,
    /// A token to ask for.
    pub probe: Option<ProbeRequest>,
    /// When to look again without being woken.
    pub requeue: Duration,
}

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

/// Decides what should be done about `model`.
pub fn plan(
    model: &InferenceModel,
    observed: &Observed,
    installation: &Installation,
    now: Timestamp,
) -> Plan {
    let now = Timestamp::from_second(now.as_second()).unwrap_or(now);
    match accept(model, observed, installation) {
        Ok(accepted) => roll(model, observed, installation, &accepted, now),
        Err(problem) => hold(model, observed, &problem, now),
    }
}

/// The plan when the API server has refused an object of it: the same, but the status says so.
pub fn refused(model: &InferenceModel, observed: &Observed, problem: &Problem, now: Timestamp) -> Plan {
    hold(model, observed, problem, now)
}

/// A spec that can be acted on.
struct Accepted<'observed> {
    pool: &'observed InferencePool,
    target: String,
}

fn accept<'observed>(
    model: &InferenceModel,
    observed: &'observed Observed,
    installation: &Installation,
) -> Result<Accepted<'observed>, Problem> {
    let pool_name = &model.spec.pool_ref.name;
    let pool = observed.pool.as_ref().ok_or_else(|| {
        Problem::new(
            Reason::PoolNotFound,
            format!(
                "spec.poolRef.name is {pool_name}, but namespace {} has no such InferencePool; create it or name \
                 another",
                model.namespace().unwrap_or_default()
            ),
        )
    })?;
    check_source(&model.spec.source, pool.spec.source_policy.as_ref(), pool_name)?;
    let target = objects::revision_name(model, pool, installation);
    if let Some(service) = &observed.service {
        check_owner(model, &service.metadata, "Service")?;
    }
    for deployment in observed.deployments.iter().filter(|each| each.name_any() == target) {
        check_owner(model, &deployment.metadata, "Deployment")?;
    }
    Ok(Accepted { pool, target })
}

/// An object of a name that we need must be ours. One of a deleted model with our name is about to be collected.
fn check_owner(model: &InferenceModel, object: &ObjectMeta, kind: &str) -> Result<(), Problem> {
    if is_owned(model, object) {
        return Ok(());
    }
    let name = object.name.as_deref().unwrap_or_default();
    let is_of_a_namesake = object
        .owner_references
        .iter()
        .flatten()
        .any(|owner| owner.kind == "InferenceModel" && owner.name == model.name_any());
    if is_of_a_namesake {
        return Err(Problem::new(
            Reason::WaitingForDeletion,
            format!("{kind} {name} of a deleted InferenceModel of this name is still being removed"),
        ));
    }
    Err(Problem::new(
        Reason::NameConflict,
        format!(
            "{kind} {name} exists and does not belong to this model; rename this InferenceModel or delete that {kind}"
        ),
    ))
}

fn is_owned(model: &InferenceModel, object: &ObjectMeta) -> bool {
    object.owner_references.iter().flatten().any(|owner| Some(&owner.uid) == model.metadata.uid.as_ref())
}

/// Nothing is changed: what serves, serves on, and the status says why nothing else happens.
fn hold(model: &InferenceModel, observed: &Observed, problem: &Problem, now: Timestamp) -> Plan {
    let revisions = revisions(model, observed);
    let status = status::held(model, &revisions, problem, now);
    let requeue = match problem.reason {
        Reason::WaitingForDeletion => Duration::from_secs(1),
        _ => WHILE_FAILED,
    };
    Plan {
        service: None,
        deployment: None,
        scale: Vec::new(),
        prune: Vec::new(),
        notices: notices(model, &status),
        status,
        probe: None,
        requeue,
    }
}

fn roll(
    model: &InferenceModel,
    observed: &Observed,
    installation: &Installation,
    accepted: &Accepted<'_>,
    now: Timestamp,
) -> Plan {
    let Accepted { pool, target } = accepted;
    let replicas_max = pool.spec.limits.as_ref().and_then(|limits| limits.max_replicas);
    let granted = match replicas_max {
        Some(replicas_max) => allot(&observed.claims, &model.name_any(), replicas_max),
        None => model.spec.replicas,
    };
    let wanted = if model.spec.suspend == Some(true) { 0 } else { granted };

    let all = revisions(model, observed);
    let (current, others): (Vec<&Revision>, Vec<&Revision>) =
        all.iter().partition(|each| each.name == *target);
    let current = current.first().copied();
    let is_complete = current.is_some_and(|current| {
        current.is_current && wanted > 0 && current.replicas_told == wanted && current.ready >= wanted
    });
    let previous_stable = model.status.as_ref().and_then(|status| status.stable_revision.as_deref());
    let was_stable = previous_stable == Some(target.as_str());
    let is_stable = was_stable || (is_complete && is_proven(observed, target));
    let keeper = keeper(previous_stable, current, &others, is_stable);

    let readings = readings(model, observed, pool, target);
    let situation = Situation {
        target,
        current,
        keeper,
        all: &all,
        wanted,
        granted,
        replicas_max,
        is_complete,
        is_stable,
        readings: &readings,
        opened: opened(observed, target),
        start: latest_start(observed, target),
        proof: proof(observed, target, Route::Service),
        pod_proof: proof(observed, target, Route::Pod),
        is_probing: observed.is_probing,
    };
    let status = status::rolling(model, &situation, now);
    Plan {
        service: Some(objects::service(model)),
        deployment: Some(objects::deployment(model, pool, installation, target, wanted)),
        scale: keeper
            .filter(|keeper| keeper.replicas_told != wanted)
            .map(|keeper| (keeper.name.clone(), wanted))
            .into_iter()
            .collect(),
        prune: others
            .iter()
            .filter(|other| keeper.is_none_or(|keeper| keeper.name != other.name))
            .map(|other| other.name.clone())
            .collect(),
        notices: notices(model, &status),
        probe: probe(model, observed, &situation, now),
        requeue: requeue(&status),
        status,
    }
}

/// The one other revision that stays until the target has proved itself: the stable one, or, if that serves nothing,
/// the one that serves most. All others are leftovers of earlier edits.
fn keeper<'all>(
    stable: Option<&str>,
    current: Option<&Revision>,
    others: &[&'all Revision],
    is_stable: bool,
) -> Option<&'all Revision> {
    let serves = current.is_some_and(|current| current.ready > 0);
    let stable = others.iter().copied().find(|other| Some(other.name.as_str()) == stable);
    if is_stable && serves {
        return None;
    }
    let serving = others.iter().copied().filter(|other| other.ready > 0).max_by_key(|other| {
        (Some(&other.name) == stable.map(|stable| &stable.name), other.ready, other.created)
    });
    serving.or(stable)
}

fn is_proven(observed: &Observed, revision: &str) -> bool {
    !observed.is_probing
        || observed.proofs.iter().any(|proof| proof.revision == revision && proof.has_succeeded)
}

fn proof<'observed>(observed: &'observed Observed, revision: &str, route: Route) -> Option<&'observed Proof> {
    observed.proofs.iter().find(|proof| proof.revision == revision && proof.route == route)
}

/// The Deployments that are ours.
fn revisions(model: &InferenceModel, observed: &Observed) -> Vec<Revision> {
    let ours = observed.deployments.iter().filter(|deployment| is_owned(model, &deployment.metadata));
    ours.filter(|deployment| deployment.metadata.deletion_timestamp.is_none()).map(revision).collect()
}

fn revision(deployment: &Deployment) -> Revision {
    let status = deployment.status.clone().unwrap_or_default();
    let refusal = status
        .conditions
        .iter()
        .flatten()
        .find(|condition| condition.type_ == "ReplicaFailure" && condition.status == "True");
    Revision {
        name: deployment.name_any(),
        ready: status.ready_replicas.unwrap_or(0),
        replicas: status.replicas.unwrap_or(0),
        replicas_told: deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1),
        is_current: status.observed_generation >= deployment.metadata.generation,
        created: deployment.metadata.creation_timestamp.as_ref().map(|time| time.0),
        refusal: refusal.map(|condition| condition.message.clone().unwrap_or_default()),
    }
}

/// Pods of a revision that are to stay, oldest first, so that the first problem is the same each time.
fn pods_of<'observed>(observed: &'observed Observed, revision: &str) -> Vec<&'observed Pod> {
    let mut pods: Vec<&Pod> = observed
        .pods
        .iter()
        .filter(|pod| pod.labels().get(REVISION_LABEL).is_some_and(|label| label == revision))
        .filter(|pod| !pod::is_leaving(pod))
        .collect();
    pods.sort_by_key(|pod| (pod.creation_timestamp().map(|time| time.0), pod.name_any()));
    pods
}

fn report_of<'observed>(observed: &'observed Observed, pod: &Pod) -> Option<&'observed Report> {
    observed.reports.get(pod.metadata.uid.as_deref()?)
}

fn readings(
    model: &InferenceModel,
    observed: &Observed,
    pool: &InferencePool,
    revision: &str,
) -> Vec<Reading> {
    let pods = pods_of(observed, revision);
    let readings = pods.iter().map(|pod| pod::read(pod, report_of(observed, pod), pool));
    readings
        .map(|reading| Reading {
            problem: reading.problem.map(|problem| name_field(problem, &model.spec.source)),
            ..reading
        })
        .collect()
}

fn opened<'observed>(
    observed: &'observed Observed,
    revision: &str,
) -> Option<&'observed crds::report::OpenedModel> {
    pods_of(observed, revision).iter().rev().find_map(|pod| report_of(observed, pod)?.opened.as_ref())
}

fn latest_start(observed: &Observed, revision: &str) -> Option<crds::model::StartSeconds> {
    pods_of(observed, revision).iter().rev().find_map(|pod| pod::start_seconds(pod))
}

fn probe(
    model: &InferenceModel,
    observed: &Observed,
    situation: &Situation<'_>,
    now: Timestamp,
) -> Option<ProbeRequest> {
    if !observed.is_probing || !situation.is_complete {
        return None;
    }
    // While another revision answers behind the Service too, only the pod itself can prove the new one.
    let route = if situation.is_stable || situation.keeper.is_none() { Route::Service } else { Route::Pod };
    let is_due = match proof(observed, situation.target, route) {
        None => true,
        Some(proof) => {
            let pause = if proof.error.is_none() { PROBE_EVERY } else { PROBE_RETRY };
            now.as_second() - proof.tried_at.as_second() >= pause
        }
    };
    if !is_due {
        return None;
    }
    let base_url = match route {
        Route::Service => objects::base_url(model),
        Route::Pod => {
            let pods = pods_of(observed, situation.target);
            let address = pods
                .iter()
                .filter(|pod| pod::is_ready(pod))
                .find_map(|pod| pod.status.as_ref()?.pod_ip.clone());
            pod_url(&address?)
        }
    };
    Some(ProbeRequest {
        revision: situation.target.to_owned(),
        route,
        base_url,
        model_name: objects::served_name(model),
    })
}

fn pod_url(address: &str) -> String {
    if address.contains(':') {
        format!("http://[{address}]:{POD_PORT}/v1")
    } else {
        format!("http://{address}:{POD_PORT}/v1")
    }
}

fn requeue(status: &InferenceModelStatus) -> Duration {
    match status.rollout.as_ref().map(|rollout| rollout.phase) {
        Some(RolloutPhase::Stable | RolloutPhase::Suspended) => WHILE_STABLE,
        Some(RolloutPhase::Failed | RolloutPhase::Pending) => WHILE_FAILED,
        _ => WHILE_MOVING,
    }
}

/// What has changed between the last status and this one that people should be told.
fn notices(model: &InferenceModel, status: &InferenceModelStatus) -> Vec<Notice> {
    let mut notices = Vec::new();
    let before = model.status.clone().unwrap_or_default();
    if status.target_revision != before.target_revision
        && let (Some(target), Some(stable)) = (&status.target_revision, &status.stable_revision)
    {
        notices.push(Notice {
            is_warning: false,
            reason: "RolloutStarted".to_owned(),
            message: format!("revision {target} starts beside {stable}"),
        });
    }
    if status.stable_revision != before.stable_revision
        && let Some(stable) = &status.stable_revision
    {
        let message = match &before.stable_revision {
            Some(old) => format!("revision {stable} serves; {old} is removed"),
            None => format!("revision {stable} serves at {}", objects::base_url(model)),
        };
        notices.push(Notice { is_warning: false, reason: "RolloutFinished".to_owned(), message });
    }
    let ready = |status: &InferenceModelStatus| {
        status.conditions.iter().find(|condition| condition.type_ == status::READY).cloned()
    };
    if let Some(now) = ready(status)
        && ready(&before).is_none_or(|then| then.reason != now.reason)
        && is_alarming(status)
    {
        notices.push(Notice { is_warning: true, reason: now.reason, message: now.message });
    }
    notices
}

fn is_alarming(status: &InferenceModelStatus) -> bool {
    let phase = status.rollout.as_ref().map(|rollout| rollout.phase);
    matches!(phase, Some(RolloutPhase::Failed | RolloutPhase::Pending))
}

/// The furthest stage of the pods that do not serve yet; what people wait for.
pub fn furthest(readings: &[Reading]) -> Option<Stage> {
    readings.iter().map(|reading| reading.stage).filter(|stage| *stage != Stage::Ready).max()
}
