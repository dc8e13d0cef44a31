//! Kubernetes objects become a [`View`]. Pure.

mod draws;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use crds::amount::ByteSize;
use crds::model::{AutoscalingMode, InferenceModelStatus, Priority, RolloutPhase, RolloutStatus};
use crds::pool::{Gateway, LoadBalancing};
use crds::split::{Arm, BUCKETS, Table};
use crds::{InferenceModel, InferenceModelSpec, InferencePool, model};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use kube::ResourceExt;

use crate::gateway::view::{
    EndpointView, Failure, HoldLimits, KillSwitch, Mirror, ModelView, RevisionView, Start, StickyKey,
    Strategy, Traffic, View,
};
use crate::queue::Tier;

/// On the endpoints of a revision: its model.
pub const MODEL_LABEL: &str = "inferno.ai/model";
/// On the endpoints of a revision: its name.
pub const REVISION_LABEL: &str = "inferno.ai/revision";
/// On the endpoints of a revision: the pool.
pub const POOL_LABEL: &str = "inferno.ai/pool";
/// Name of the port that pods serve on.
const PORT: &str = "http";

/// Endpoints by model and revision.
type Endpoints = BTreeMap<(String, String), Vec<EndpointView>>;

/// The view of the pool called `pool_name`. A pool that is not there has all defaults.
pub fn view<'objects>(
    pool: Option<&InferencePool>,
    pool_name: &str,
    models: impl Iterator<Item = &'objects InferenceModel>,
    slices: impl Iterator<Item = &'objects EndpointSlice>,
) -> View {
    let gateway = pool.and_then(|pool| pool.spec.gateway.clone()).unwrap_or_default();
    let timeout_seconds = pool.and_then(|pool| pool.spec.queue.as_ref()?.default_timeout_seconds);
    let hold = pool_hold(&gateway);
    let mut endpoints = endpoints(slices);
    let models = models
        .filter(|model| model.spec.pool_ref.name == pool_name)
        .map(|model| ModelView {
            hold: model_hold(&model.spec, hold),
            ..model_view(model, timeout_seconds, &mut endpoints)
        })
        .collect();
    View { strategy: strategy(gateway.load_balancing), hold, models }
}

fn strategy(load_balancing: Option<LoadBalancing>) -> Strategy {
    match load_balancing.unwrap_or_default() {
        LoadBalancing::PrefixAware => Strategy::PrefixAware,
        LoadBalancing::LeastLoad => Strategy::LeastLoad,
        LoadBalancing::RoundRobin => Strategy::RoundRobin,
        LoadBalancing::SessionAffinity => Strategy::SessionAffinity,
    }
}

fn pool_hold(gateway: &Gateway) -> HoldLimits {
    let Gateway { max_held_requests, max_held_bytes, hold_timeout_seconds, .. } = gateway;
    hold((*max_held_requests, max_held_bytes.as_ref(), *hold_timeout_seconds), HoldLimits::default())
}

/// What may wait for this model, if it says any of it itself.
fn model_hold(spec: &InferenceModelSpec, of_pool: HoldLimits) -> Option<HoldLimits> {
    let zero = spec.autoscaling.as_ref()?.scale_to_zero.as_ref()?;
    let own =
        hold((zero.max_held_requests, zero.max_held_bytes.as_ref(), zero.hold_timeout_seconds), of_pool);
    (own != of_pool).then_some(own)
}

/// Declared limits: requests, bytes and seconds; what is not declared is as in `usual`.
fn hold(
    (requests, bytes, seconds): (Option<i32>, Option<&ByteSize>, Option<i32>),
    usual: HoldLimits,
) -> HoldLimits {
    let requests = requests.and_then(|requests| usize::try_from(requests).ok());
    HoldLimits {
        requests_max: requests.unwrap_or(usual.requests_max),
        bytes_max: bytes.and_then(ByteSize::bytes).unwrap_or(usual.bytes_max),
        timeout_ms: seconds.map_or(usual.timeout_ms, milliseconds),
    }
}

fn milliseconds(seconds: i32) -> u64 {
    u64::from(seconds.unsigned_abs()) * 1_000
}

fn model_view(object: &InferenceModel, pool_timeout: Option<i32>, endpoints: &mut Endpoints) -> ModelView {
    let name = object.name_any();
    let (spec, status) = (&object.spec, object.status.clone().unwrap_or_default());
    let policy = spec.request_policy.clone().unwrap_or_default();
    let priority = policy.default_priority.map_or("", |priority| tier(priority).name());
    ModelView {
        served_name: spec.model_name.clone().unwrap_or_else(|| name.clone()),
        aliases: spec.aliases.clone(),
        created: object.creation_timestamp().map_or(0, |time| time.0.as_second()),
        default_priority: priority.to_owned(),
        timeout_ms: policy.timeout_seconds.or(pool_timeout).map_or(0, milliseconds),
        hold: None,
        kill_switch: kill_switch(spec.kill_switch),
        is_suspended: spec.suspend.unwrap_or(false),
        traffic: traffic(object, &status),
        draws: draws::draws(object),
        revisions: revisions(&name, &status, slots(spec), endpoints),
        start: start(object, &status),
        name,
    }
}

fn tier(priority: Priority) -> Tier {
    match priority {
        Priority::Vip => Tier::Vip,
        Priority::High => Tier::High,
        Priority::Normal => Tier::Normal,
        Priority::Low => Tier::Low,
    }
}

fn kill_switch(switch: Option<model::KillSwitch>) -> KillSwitch {
    match switch.unwrap_or_default() {
        model::KillSwitch::Off => KillSwitch::Off,
        model::KillSwitch::Rollout => KillSwitch::Rollout,
        model::KillSwitch::Model => KillSwitch::Model,
    }
}

/// Who gets which revision: the canary as much as the operator says, everybody else the stable one, or before there is
/// one the declared one.
fn traffic(object: &InferenceModel, status: &InferenceModelStatus) -> Traffic {
    let declared =
        object.spec.rollout.as_ref().and_then(|rollout| rollout.traffic.clone()).unwrap_or_default();
    let stable =
        status.stable_revision.clone().or_else(|| status.target_revision.clone()).unwrap_or_default();
    let canary = status.canary_revision.clone().filter(|canary| *canary != stable);
    let weight = status.rollout.as_ref().and_then(|rollout| rollout.weight_basis_points).unwrap_or(0);
    let weight_basis_points = u16::try_from(weight.clamp(0, i32::from(BUCKETS))).unwrap_or(0);
    let mirror_percent = u8::try_from(declared.mirror_percent.unwrap_or(0).clamp(0, 100)).unwrap_or(0);
    let mirror = canary.clone().filter(|_| mirror_percent > 0);
    let salt = format!("{}/{}", object.uid().unwrap_or_default(), canary.as_deref().unwrap_or_default());
    Traffic {
        table: Table {
            salt,
            stable,
            others: canary.into_iter().map(|revision| Arm { revision, weight_basis_points }).collect(),
        },
        sticky_key: sticky_key(declared.sticky_key),
        may_override: declared.header_override.unwrap_or(true),
        mirror: mirror.map(|revision| Mirror { revision, percent: mirror_percent }),
    }
}

fn sticky_key(declared: Option<model::StickyKey>) -> StickyKey {
    match declared.unwrap_or_default() {
        model::StickyKey::Conversation => StickyKey::Conversation,
        model::StickyKey::User => StickyKey::User,
        model::StickyKey::APIKey => StickyKey::APIKey,
        model::StickyKey::Request => StickyKey::Request,
    }
}

/// What each pod works on at once, as far as the spec says; of an older revision that may differ a little.
fn slots(spec: &InferenceModelSpec) -> u32 {
    let slots = spec.engine.as_ref().and_then(|engine| engine.parallel_slots);
    slots.and_then(|slots| u32::try_from(slots).ok()).unwrap_or(0)
}

/// All revisions that the status names or that have endpoints.
fn revisions(
    model: &str,
    status: &InferenceModelStatus,
    slots: u32,
    endpoints: &mut Endpoints,
) -> Vec<RevisionView> {
    let named = [&status.stable_revision, &status.target_revision, &status.canary_revision];
    for revision in named.into_iter().flatten() {
        endpoints.entry((model.to_owned(), revision.clone())).or_default();
    }
    let of_model = endpoints.iter().filter(|((owner, _), _)| owner == model);
    of_model
        .map(|((_, revision), endpoints)| RevisionView {
            name: revision.clone(),
            slots,
            endpoints: endpoints.iter().map(|endpoint| drained(endpoint, status)).collect(),
        })
        .collect()
}

/// The endpoint as it is to be used: a pod that drains finishes what it has and gets nothing new.
fn drained(endpoint: &EndpointView, status: &InferenceModelStatus) -> EndpointView {
    let is_draining = status.draining.iter().any(|draining| draining.pod == endpoint.pod);
    EndpointView {
        is_ready: endpoint.is_ready && !is_draining,
        is_leaving: endpoint.is_leaving || is_draining,
        ..endpoint.clone()
    }
}

fn start(object: &InferenceModel, status: &InferenceModelStatus) -> Start {
    let is_suspended = object.spec.suspend.unwrap_or(false);
    let wanted = if is_suspended { 0 } else { u32::try_from(replicas(object, status)).unwrap_or(0) };
    let Some(rollout) = &status.rollout else { return Start { wanted, ..Start::default() } };
    let percent = rollout.percent.and_then(|percent| u8::try_from(percent).ok());
    Start {
        wanted,
        phase: words(rollout.phase).to_owned(),
        percent,
        ready_at_ms: rollout.ready_at.as_ref().and_then(|time| u64::try_from(time.0.as_millisecond()).ok()),
        failure: failure(status, rollout),
    }
}

/// Replicas that there shall be.
fn replicas(object: &InferenceModel, status: &InferenceModelStatus) -> i32 {
    let policy = object.spec.autoscaling.as_ref();
    let is_told = policy.is_some_and(|policy| policy.mode.unwrap_or_default() != AutoscalingMode::Observe);
    let told = status.autoscaling.as_ref().filter(|_| is_told);
    told.map_or(object.spec.replicas, |told| told.desired_replicas)
}

/// What is being done; empty while nothing starts.
fn words(phase: RolloutPhase) -> &'static str {
    match phase {
        RolloutPhase::Pending
        | RolloutPhase::Suspended
        | RolloutPhase::Stable
        | RolloutPhase::Canary
        | RolloutPhase::CapacityCheck
        | RolloutPhase::Analysing
        | RolloutPhase::Paused
        | RolloutPhase::Inconclusive
        | RolloutPhase::Promoting
        | RolloutPhase::RollingBack
        | RolloutPhase::RolledBack
        | RolloutPhase::Aborted
        | RolloutPhase::Killed
        | RolloutPhase::Failed => "",
        RolloutPhase::Scheduling => "scheduling",
        RolloutPhase::Starting => "pulling the image",
        RolloutPhase::Downloading => "downloading",
        RolloutPhase::Verifying => "verifying",
        RolloutPhase::Loading => "loading",
        RolloutPhase::WarmingUp => "warming up",
        RolloutPhase::Proving => "proving",
        RolloutPhase::Scaling => "scaling",
    }
}

/// Reasons of a model that is not as it should be although its pods can start: not for us to turn anybody away by.
const STARTING_ALL_THE_SAME: [&str; 3] = ["GatewayUnavailable", "KillSwitch", "ProbeFailed"];

/// What the Ready condition says when the declared revision cannot start.
fn failure(status: &InferenceModelStatus, rollout: &RolloutStatus) -> Option<Failure> {
    let ready = status.conditions.iter().find(|condition| condition.type_ == "Ready")?;
    let has_failed = rollout.phase == RolloutPhase::Failed && ready.status == "False";
    let stops_a_start = has_failed && !STARTING_ALL_THE_SAME.contains(&ready.reason.as_str());
    stops_a_start.then(|| Failure { reason: ready.reason.clone(), message: ready.message.clone() })
}

fn endpoints<'objects>(slices: impl Iterator<Item = &'objects EndpointSlice>) -> Endpoints {
    let mut endpoints = Endpoints::new();
    for slice in slices {
        let labels = slice.labels();
        let (Some(model), Some(revision)) = (labels.get(MODEL_LABEL), labels.get(REVISION_LABEL)) else {
            continue;
        };
        let of_revision = endpoints.entry((model.clone(), revision.clone())).or_default();
        let Some(port) = port(slice) else { continue };
        for endpoint in slice.endpoints.iter().flatten().filter_map(|endpoint| endpoint_view(endpoint, port))
        {
            merge(of_revision, endpoint);
        }
    }
    // The order of the slices means nothing; views of the same endpoints are equal.
    for endpoints in endpoints.values_mut() {
        endpoints.sort_by_key(|endpoint| endpoint.address);
    }
    endpoints
}

fn port(slice: &EndpointSlice) -> Option<u16> {
    let ports = slice.ports.as_deref().unwrap_or_default();
    let port = ports.iter().find(|port| port.name.as_deref() == Some(PORT)).or_else(|| ports.first())?;
    u16::try_from(port.port?).ok()
}

fn endpoint_view(endpoint: &Endpoint, port: u16) -> Option<EndpointView> {
    let address: IpAddr = endpoint.addresses.first()?.parse().ok()?;
    let conditions = endpoint.conditions.clone().unwrap_or_default();
    // An absent `ready` means ready, an absent `terminating` means staying: that is how the API defines them.
    let is_leaving = conditions.terminating.unwrap_or(false);
    let is_ready = conditions.ready.unwrap_or(true) && !is_leaving;
    let pod = endpoint.target_ref.as_ref().and_then(|target| target.name.clone());
    Some(EndpointView {
        address: SocketAddr::new(address, port),
        pod: pod.unwrap_or_else(|| address.to_string()),
        is_ready,
        is_leaving,
    })
}

/// A pod has one endpoint, also when it is in two slices: while slices are rearranged, or with an address of each
/// family.
fn merge(endpoints: &mut Vec<EndpointView>, endpoint: EndpointView) {
    match endpoints.iter_mut().find(|known| known.pod == endpoint.pod) {
        None => endpoints.push(endpoint),
        Some(known) if known.address == endpoint.address => {
            known.is_ready &= endpoint.is_ready;
            known.is_leaving |= endpoint.is_leaving;
        }
        Some(known) if known.address.is_ipv6() && endpoint.address.is_ipv4() => *known = endpoint,
        Some(_) => {}
    }
}

#[cfg(test)]
mod tests;
