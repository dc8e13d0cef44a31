//! What a gateway knows of its pool: a plain value, made from Kubernetes objects by `kubernetes` or read from a file,
//! and replaced as a whole. Everything else in the gateway is decided from it, so it is tested without a cluster.

use std::net::SocketAddr;
use std::time::Duration;

use crds::report::DrawKind;
use crds::split::Table;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Everything that is served, at one moment.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct View {
    /// How endpoints are chosen.
    pub strategy: Strategy,
    /// What may wait for a replica of a model that does not say it itself.
    pub hold: HoldLimits,
    /// The models of the pool.
    pub models: Vec<ModelView>,
}

/// How an endpoint is chosen among the ready ones of a revision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Strategy {
    /// The session's endpoint, else the one that holds the prompt's beginning in its cache, unless it is overloaded.
    #[default]
    PrefixAware,
    /// The better of two random ones by the time that their work will take.
    LeastLoad,
    /// One after the other.
    RoundRobin,
    /// The session's (or user's) endpoint, as long as it is ready.
    SessionAffinity,
}

/// Limits on requests that wait because no replica is ready; per model and gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HoldLimits {
    /// Requests.
    pub requests_max: usize,
    /// Bytes of their bodies.
    pub bytes_max: u64,
    /// Longest wait in milliseconds of a request that names no deadline.
    pub timeout_ms: u64,
}

impl Default for HoldLimits {
    /// 256 requests, 64 MiB and five minutes: a burst of users and a long cold start, in memory that a gateway has.
    fn default() -> Self {
        Self { requests_max: 256, bytes_max: 64 * 1024 * 1024, timeout_ms: 300_000 }
    }
}

impl HoldLimits {
    /// Longest wait of a request that names no deadline.
    pub fn timeout(&self) -> Duration {
        Duration::from_millis(self.timeout_ms)
    }
}

/// One model.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ModelView {
    /// Name of the InferenceModel.
    pub name: String,
    /// The name that clients send.
    pub served_name: String,
    /// More names that clients may send.
    pub aliases: Vec<String>,
    /// When it was declared, in seconds since 1970.
    pub created: i64,
    /// Tier of requests that name none: `vip`, `high`, `normal` or `low`. Empty: normal.
    pub default_priority: String,
    /// Deadline in milliseconds of requests that name none; 0: the hold limit's.
    pub timeout_ms: u64,
    /// What may wait for a replica of it, instead of what the view says.
    pub hold: Option<HoldLimits>,
    /// Whether all traffic is turned away on request, or all of it goes to the stable revision.
    pub kill_switch: KillSwitch,
    /// Whether all pods are taken away on request.
    pub is_suspended: bool,
    /// Who gets which revision.
    pub traffic: Traffic,
    /// Flags and experiments.
    pub draws: Vec<DrawView>,
    /// Revisions that have or expect pods.
    pub revisions: Vec<RevisionView>,
    /// How a start is getting on, while there is one.
    pub start: Start,
}

/// Turns traffic away at once, from the last view, also without the API server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum KillSwitch {
    /// Nothing is turned away.
    #[default]
    Off,
    /// Everybody gets the stable revision, nobody is mirrored.
    Rollout,
    /// Every request of the model is refused.
    Model,
}

/// Who gets which revision.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Traffic {
    /// Weights by revision.
    pub table: Table,
    /// What keeps a client on its revision.
    pub sticky_key: StickyKey,
    /// Whether a request may name its revision in the header `x-inferno-revision`.
    pub may_override: bool,
    /// A revision that gets copies of requests whose answers nobody sees.
    pub mirror: Option<Mirror>,
}

/// What keeps a client on its revision. Each falls back to the ones below it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum StickyKey {
    /// The header `x-inferno-session`, else the beginning of the conversation.
    #[default]
    Conversation,
    /// The body's `user` or `safety_identifier`.
    User,
    /// The API key of the request.
    APIKey,
    /// Every request by itself.
    Request,
}

/// Copies of requests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Mirror {
    /// The revision that gets them.
    pub revision: String,
    /// Of how many requests in a hundred.
    pub percent: u8,
}

/// A flag or an experiment: who gets which lot.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DrawView {
    /// Which of both.
    pub kind: DrawKind,
    /// Its name.
    pub name: String,
    /// Of its own, so that those who are first in one draw are not first in another.
    pub salt: String,
    /// What keeps a client with its lot.
    pub sticky_key: StickyKey,
    /// Tells this definition of it from others.
    pub definition: String,
    /// The lots in the order of their ranges: `on` and `off` of a flag, the variants of an experiment.
    pub lots: Vec<LotView>,
}

/// What a request may draw.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LotView {
    /// Its name.
    pub name: String,
    /// Its share, in 1/10 000 of the keys.
    pub weight_basis_points: u16,
    /// Name of the InferenceModel that answers instead.
    pub model: Option<String>,
    /// Fields of the body that it fills in, by their names there.
    pub parameters: Map<String, Value>,
    /// The system message of a chat that has none.
    pub system_prompt: Option<String>,
}

/// One revision with its endpoints.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RevisionView {
    /// Its name.
    pub name: String,
    /// Requests that each of its pods works on at once (`engine.parallelSlots`); 0: unknown, counted as
    /// [`DEFAULT_SLOTS`].
    pub slots: u32,
    /// Its pods.
    pub endpoints: Vec<EndpointView>,
}

/// What a pod works on at once unless its model says otherwise: the default of `engine.parallelSlots`.
pub const DEFAULT_SLOTS: u32 = 4;

/// One pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EndpointView {
    /// Where it listens.
    pub address: SocketAddr,
    /// The pod's name; with the address it tells one pod from the next on the same address.
    pub pod: String,
    /// Whether new requests may go there: ready, and not about to leave.
    pub is_ready: bool,
    /// Whether it is about to leave.
    #[serde(default)]
    pub is_leaving: bool,
}

/// How a start is getting on.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Start {
    /// Replicas that are wanted.
    pub wanted: u32,
    /// In words, such as `downloading 43%`; empty while nothing starts.
    pub phase: String,
    /// How far the phase is, where that is known.
    pub percent: Option<u8>,
    /// When a replica is expected to be ready, in milliseconds since 1970.
    pub ready_at_ms: Option<u64>,
    /// Why it cannot start: reason and message of the model's `Ready` condition.
    pub failure: Option<Failure>,
}

/// Why a model cannot start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Failure {
    /// From the operator's closed list.
    pub reason: String,
    /// For people.
    pub message: String,
}

impl View {
    /// The model that clients know by `name`.
    pub fn find(&self, name: &str) -> Option<&ModelView> {
        self.models
            .iter()
            .find(|model| model.served_name == name || model.aliases.iter().any(|alias| alias == name))
    }
}

impl RevisionView {
    /// Whether any of its pods takes requests.
    pub fn is_ready(&self) -> bool {
        self.endpoints.iter().any(|endpoint| endpoint.is_ready)
    }
}

impl ModelView {
    /// The revision with this name.
    pub fn revision(&self, name: &str) -> Option<&RevisionView> {
        self.revisions.iter().find(|revision| revision.name == name)
    }

    /// Whether any pod of any revision takes requests.
    pub fn is_ready(&self) -> bool {
        self.revisions.iter().any(RevisionView::is_ready)
    }
}
