//! What should be done about one model, decided from its spec, from what was observed, and from the time. Pure.
//!
//! Every revision of a model is a Deployment of its own, with a Service of its name for the gateway to read. A new one
//! starts beside the old one; how it takes over is decided in `rollout`. So a revision that cannot start never takes
//! a serving one down.

mod notices;
mod probes;

use std::collections::HashMap;
use std::time::Duration;

use crds::model::{ColdStart, InferenceModel, InferenceModelStatus, RolloutPhase};
use crds::pool::InferencePool;
use crds::report::{DrawSums, Report};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;

use crate::autoscale::tell::Seen;
use crate::autoscale::{self, claims_with};
use crate::blame::name_field;
use crate::capacity::{Claim, allot};
use crate::conduct::{Scene, conduct};
use crate::drain::{self, Drain, Member, drain};
use crate::golden;
use crate::inventory::Room;
use crate::notify::condition::condition;
use crate::notify::receivers::Known;
use crate::objects::{self, Installation, REVISION_LABEL};
use crate::pod::{self, Reading, unplaced};
use crate::policy::check_source;
use crate::problem::{Problem, Reason};
use crate::revision::{check_owner, is_owned, revisions};
use crate::rollout::{self, Roles, Standing};
use crate::start::{self, Start};
use crate::status::{self, PROBE_FAILURES_MAX, Situation};
use crate::trial;

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
    /// Services with the model's label, and those with the names of its revisions.
    pub services: Vec<Service>,
    /// Deployments with the model's label, and the one with the name of the revision asked for.
    pub deployments: Vec<Deployment>,
    /// Pods with the model's label.
    pub pods: Vec<Pod>,
    /// Fresh reports by pod UID.
    pub reports: HashMap<String, Report>,
    /// Requests in slots and queue by pod UID, of pods that have said so in the last seconds.
    pub in_flight: HashMap<String, u32>,
    /// Results of the tokens asked for.
    pub proofs: Vec<Proof>,
    /// Whether tokens are asked for at all; without it, ready pods count as serving.
    pub is_probing: bool,
    /// The golden prompts that the declared revision has to pass, if there are any.
    pub golden: Option<golden::standing::Seen>,
    /// Who can be told, if the model names anybody.
    pub receivers: Known,
    /// Room on the nodes for more pods of the declared revision.
    pub room: Room,
    /// How many replicas the load asks for, if decisions are made for the model.
    pub scaling: Option<Seen>,
    /// The last verdict on the canary, if there is one.
    pub trial: Option<trial::tell::Seen>,
    /// What came of copies that the canary got, if there were any.
    pub shadow: Option<trial::shadow::Seen>,
    /// What came of feature flags and experiments as they are declared.
    pub draws: Vec<DrawSums>,
}

/// The way a token was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Route {
    /// From one pod, while the gateway sends it nothing.
    Pod,
    /// Through the pool's gateway, as clients do.
    Gateway,
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
    /// Whether nobody listened the last time: the way was broken, and the model is not to blame.
    pub is_unreached: bool,
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
    /// Applied first: one for each revision that stays.
    pub services: Vec<Service>,
    /// Applied second: the revision that the spec asks for.
    pub deployment: Option<Deployment>,
    /// Revisions that keep running and how many replicas they should have.
    pub scale: Vec<(String, i32)>,
    /// Pods whose cost of deletion has to be another, before anything has fewer of them; `None` takes it away.
    pub marks: Vec<(String, Option<&'static str>)>,
    /// Deployments to delete, last.
    pub prune: Vec<String>,
    /// Services to delete with them.
    pub prune_services: Vec<String>,
    /// The status to be written if it differs.
    pub status: InferenceModelStatus,
    /// Events to publish.
    pub notices: Vec<Notice>,
    /// Tokens to ask for.
    pub probes: Vec<ProbeRequest>,
    /// Golden prompts to ask.
    pub golden: Option<golden::runner::Request>,
    /// When to look again without being woken.
    pub requeue: Duration,
}

/// Decides what should be done about `model`.
pub fn plan(
    model: &InferenceModel,
    observed: &Observed,
    installation: &Installation,
    now: Timestamp,
) -> Plan {
    let now = Timestamp::from_second(now.as_second()).unwrap_or(now);
    let mut plan = match accept(model, observed, installation, now) {
        Ok(accepted) => roll(model, observed, installation, &accepted, now),
        Err(problem) => return refused(model, observed, &problem, now),
    };
    plan.status.conditions.extend(condition(model, &observed.receivers, now));
    plan
}

/// The plan when the API server has refused an object of it: the same, but the status says so.
pub fn refused(model: &InferenceModel, observed: &Observed, problem: &Problem, now: Timestamp) -> Plan {
    let mut plan = hold(model, observed, problem, now);
    plan.status.conditions.extend(condition(model, &observed.receivers, now));
    plan
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
    now: Timestamp,
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
    if let Some(Err(problem)) = observed.golden.as_ref().map(|golden| &golden.set) {
        return Err(problem.clone());
    }
    check_source(&model.spec.source, pool.spec.source_policy.as_ref(), pool_name)?;
    if let Some(policy) = &model.spec.autoscaling {
        autoscale::schedule::check(policy, now)?;
    }
    let target = objects::revision_name(model, pool, installation);
    for service in observed.services.iter().filter(|each| each.name_any() == target) {
        check_owner(model, &service.metadata, "Service")?;
    }
    for deployment in observed.deployments.iter().filter(|each| each.name_any() == target) {
        check_owner(model, &deployment.metadata, "Deployment")?;
    }
    Ok(Accepted { pool, target })
}

/// Nothing is changed: what serves, serves on, and the status says why nothing else happens.
fn hold(model: &InferenceModel, observed: &Observed, problem: &Problem, now: Timestamp) -> Plan {
    let revisions = revisions(model, &observed.deployments);
    let status = status::held(model, &revisions, problem, now);
    let requeue = match problem.reason {
        Reason::WaitingForDeletion => Duration::from_secs(1),
        _ => WHILE_FAILED,
    };
    Plan {
        services: Vec::new(),
        deployment: None,
        scale: Vec::new(),
        marks: Vec::new(),
        prune: Vec::new(),
        prune_services: Vec::new(),
        notices: notices::notices(model, &status),
        status,
        probes: Vec::new(),
        golden: None,
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
    let seen = observed.scaling.as_ref();
    let asked = autoscale::asked(model, seen.map(|seen| seen.look.decision.desired), now);
    let granted = replicas_max.map_or(asked, |max| granted(observed, model, asked, max));
    let wanted = if model.spec.suspend == Some(true) { 0 } else { granted };

    let all = revisions(model, &observed.deployments);
    let current = all.iter().find(|each| each.name == *target);
    let stable = model.status.as_ref().and_then(|status| status.stable_revision.as_deref());
    // A model that serves stays Ready while its autoscaler adds pods; a new revision takes over with all of them.
    let needed = autoscale::needed(&model.spec, wanted).filter(|_| stable == Some(target.as_str()));
    let golden = golden::standing::standing(model, observed.golden.as_ref(), target);
    let readings = readings(model, observed, pool, target);
    let is_proven = is_proven(model, observed, target) && may_serve(model, golden.as_ref(), target);
    let cold_start = cold_start(model, observed);
    let scene = Scene {
        target,
        revisions: &all,
        fleet: wanted,
        spare: replicas_max.map(|max| spare(observed, model, asked, max)),
        replicas_max,
        fitting: observed.room.pods(),
        demand: autoscale::demand(model, seen),
        start_seconds: cold_start.as_ref().and_then(|history| start_seconds(history, stable)),
        stable_pods: stable.map_or(0, |stable| running_pods(observed, stable)),
        is_proven,
        proof: proof(observed, target, Route::Pod),
        golden: golden.as_ref(),
        readings: &readings,
        is_stable_failing: stable.is_some_and(|stable| is_failing(observed, pool, stable)),
        canary_pods: canary_pods(model, observed),
        verdict: observed.trial.as_ref(),
    };
    let conducted = conduct(model, &scene, now);
    let target_pods = conducted.as_ref().map_or(wanted, |conducted| conducted.target_pods);
    let stable_pods = conducted.as_ref().map_or(wanted, |conducted| conducted.stable_pods);
    let drain = drained(model, observed, accepted, target_pods, now);
    let is_complete = current.is_some_and(|current| {
        let is_told = current.replicas_told == drain.replicas || needed.is_some();
        current.is_current && target_pods > 0 && is_told && current.ready >= needed.unwrap_or(target_pods)
    });
    let roles = match &conducted {
        Some(conducted) => conducted.roles(&scene, is_complete),
        None => rollout::roles(&Standing {
            target,
            revisions: &all,
            stable,
            share: rollout::declared_share(&model.spec),
            is_complete,
            is_proven,
        }),
    };
    let mut situation = Situation {
        target,
        current,
        all: &all,
        roles: &roles,
        asked,
        wanted,
        target_pods,
        stable_pods,
        granted,
        replicas_max,
        is_complete,
        draining: &drain.draining,
        conducted: conducted.as_ref(),
        readings: &readings,
        shortage: observed.room.shortage().map(|shortage| shortage.sentence(unplaced(&readings).max(1))),
        opened: opened(observed, target),
        cold_start,
        gateway_proof: None,
        pod_proof: scene.proof,
        is_probing: observed.is_probing,
        golden: golden.as_ref(),
        has_gateway: has_gateway(pool),
        seen,
        trial: observed.trial.as_ref(),
        shadow: observed.shadow.as_ref(),
        draws: &observed.draws,
    };
    situation.gateway_proof = proof(observed, situation.spokesman(), Route::Gateway);
    let status = status::rolling(model, &situation, now);
    let services = staying(target, &roles).map(|revision| objects::service(model, revision)).collect();
    Plan {
        services,
        deployment: roles
            .runs
            .then(|| objects::deployment(model, pool, installation, target, drain.replicas)),
        scale: scaled(&roles, stable_pods, wanted),
        marks: drain.marks,
        prune: roles.leavers.iter().map(|leaver| leaver.name.clone()).collect(),
        prune_services: unneeded_services(model, observed, target, &roles),
        notices: notices::notices(model, &status),
        probes: probes::probes(model, observed, &situation, now),
        golden: probes::golden(model, observed, &situation, now),
        requeue: conducted
            .as_ref()
            .map_or(WHILE_STABLE, |conducted| Duration::from_millis(conducted.requeue_ms))
            .min(requeue(&status)),
        status,
    }
}

/// Replicas that the pool grants of those that are asked for.
fn granted(observed: &Observed, model: &InferenceModel, asked: i32, replicas_max: i32) -> i32 {
    let name = model.name_any();
    allot(&claims_with(&observed.claims, &name, asked), &name, replicas_max)
}

/// How the target gets down to `wanted` pods: where it serves alone, they drain first.
fn drained(
    model: &InferenceModel,
    observed: &Observed,
    accepted: &Accepted<'_>,
    wanted: i32,
    now: Timestamp,
) -> Drain {
    let Accepted { pool, target } = accepted;
    let stable = model.status.as_ref().and_then(|status| status.stable_revision.as_ref());
    if stable != Some(target) || model.spec.suspend == Some(true) {
        return Drain { replicas: wanted, ..Drain::default() };
    }
    let in_flight = |pod: &Pod| observed.in_flight.get(pod.metadata.uid.as_deref()?).copied();
    let pods = pods_of(observed, target);
    let members: Vec<Member> = pods.iter().map(|pod| Member::of(pod, in_flight(pod))).collect();
    let before = model.status.as_ref().map(|status| status.draining.as_slice()).unwrap_or_default();
    drain(&members, wanted, before, drain::deadline(model, pool), now)
}

/// Pods that the pool's limit leaves beyond what all its models have, and beyond those of former revisions that stay for
/// other models.
fn spare(observed: &Observed, model: &InferenceModel, asked: i32, replicas_max: i32) -> i32 {
    let name = model.name_any();
    let claims = claims_with(&observed.claims, &name, asked);
    let taken = claims.iter().map(|claim| {
        let kept = if claim.model == name { 0 } else { claim.kept };
        claim.replicas.saturating_add(kept)
    });
    (replicas_max - taken.fold(0, i32::saturating_add)).max(0)
}

/// Pods of the revision that still hold memory and devices, those that leave included.
fn running_pods(observed: &Observed, revision: &str) -> usize {
    let is_of_it = |pod: &&Pod| pod.labels().get(REVISION_LABEL).is_some_and(|label| label == revision);
    observed.pods.iter().filter(is_of_it).filter(|pod| !pod::has_ended(pod)).count()
}

/// What a start of this revision takes: the median of those that were measured.
fn start_seconds(history: &ColdStart, revision: Option<&str>) -> Option<i32> {
    let known = revision.map(|revision| start::of(history, revision).p50_total_seconds);
    Some(known.unwrap_or(history.p50_total_seconds)).filter(|seconds| *seconds > 0)
}

/// Whether a pod of the revision says that it cannot go on.
fn is_failing(observed: &Observed, pool: &InferencePool, revision: &str) -> bool {
    let pods = pods_of(observed, revision);
    pods.iter().any(|pod| pod::read(pod, report_of(observed, pod), pool).problem.is_some())
}

/// Pods of the canary in the status, those that leave included.
fn canary_pods(model: &InferenceModel, observed: &Observed) -> usize {
    let canary = model.status.as_ref().and_then(|status| status.canary_revision.as_ref());
    let is_of_it = |pod: &&Pod| canary.is_some() && pod.labels().get(REVISION_LABEL) == canary;
    observed.pods.iter().filter(is_of_it).count()
}

/// Names of the revisions that stay.
fn staying<'names>(target: &'names str, roles: &'names Roles<'_>) -> impl Iterator<Item = &'names str> {
    let others = roles.keeper.into_iter().chain(roles.former);
    roles.runs.then_some(target).into_iter().chain(others.map(|other| other.name.as_str()))
}

/// Revisions beside the target that are to have another number of pods.
fn scaled(roles: &Roles<'_>, stable_pods: i32, former_pods: i32) -> Vec<(String, i32)> {
    let keeper = roles.keeper.map(|keeper| (keeper, stable_pods));
    let others = keeper.into_iter().chain(roles.former.map(|former| (former, former_pods)));
    let changed = others.filter(|(revision, pods)| revision.replicas_told != *pods);
    changed.map(|(revision, pods)| (revision.name.clone(), pods)).collect()
}

/// Services of revisions that go or have gone.
fn unneeded_services(
    model: &InferenceModel,
    observed: &Observed,
    target: &str,
    roles: &Roles<'_>,
) -> Vec<String> {
    observed
        .services
        .iter()
        .filter(|service| is_owned(model, &service.metadata))
        .filter(|service| service.metadata.deletion_timestamp.is_none())
        .map(ResourceExt::name_any)
        .filter(|name| staying(target, roles).all(|stays| stays != name))
        .collect()
}

/// Whether the revision has given a token and still does when asked. A restarted operator has forgotten that; what
/// serves a share of the traffic has proved itself before.
fn is_proven(model: &InferenceModel, observed: &Observed, revision: &str) -> bool {
    if !observed.is_probing {
        return true;
    }
    let proofs = || observed.proofs.iter().filter(|proof| proof.revision == revision);
    if proofs().any(|proof| proof.failures >= PROBE_FAILURES_MAX && !proof.is_unreached) {
        return false;
    }
    proofs().any(|proof| proof.has_succeeded) || has_weight(model, revision)
}

/// Whether golden prompts let the revision have traffic. What has a share passed them before a restart made us forget.
fn may_serve(model: &InferenceModel, golden: Option<&golden::standing::Standing>, revision: &str) -> bool {
    match golden {
        None | Some(golden::standing::Standing::Passed) => true,
        Some(golden::standing::Standing::Failed(_)) => false,
        Some(golden::standing::Standing::Asking(_)) => has_weight(model, revision),
    }
}

fn has_weight(model: &InferenceModel, revision: &str) -> bool {
    model.status.as_ref().is_some_and(|status| {
        let weight = status.rollout.as_ref().and_then(|rollout| rollout.weight_basis_points);
        status.canary_revision.as_deref() == Some(revision) && weight > Some(0)
    })
}

fn has_gateway(pool: &InferencePool) -> bool {
    let gateway = pool.status.as_ref().and_then(|status| status.gateway.as_ref());
    gateway.is_some_and(|gateway| gateway.ready_replicas > 0)
}

fn proof<'observed>(observed: &'observed Observed, revision: &str, route: Route) -> Option<&'observed Proof> {
    observed.proofs.iter().find(|proof| proof.revision == revision && proof.route == route)
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

/// What starts have taken, with those that have just ended; of whichever revision they were.
fn cold_start(model: &InferenceModel, observed: &Observed) -> Option<ColdStart> {
    let starts: Vec<Start> =
        observed.pods.iter().filter(|pod| !pod::is_leaving(pod)).filter_map(start::measure).collect();
    let names: Vec<String> = observed.pods.iter().map(ResourceExt::name_any).collect();
    start::remember(model.status.as_ref().and_then(|status| status.cold_start.clone()), &starts, &names)
}

fn requeue(status: &InferenceModelStatus) -> Duration {
    if !status.draining.is_empty() {
        return WHILE_MOVING;
    }
    match status.rollout.as_ref().map(|rollout| rollout.phase) {
        Some(
            RolloutPhase::Stable
            | RolloutPhase::Suspended
            | RolloutPhase::RolledBack
            | RolloutPhase::Aborted
            | RolloutPhase::Killed,
        ) => WHILE_STABLE,
        Some(RolloutPhase::Failed | RolloutPhase::Pending) => WHILE_FAILED,
        _ => WHILE_MOVING,
    }
}
