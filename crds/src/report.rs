//! What a pod tells the operator: where it stands while it starts, why it failed, and its load; and what a gateway
//! tells: who waits for a model, and who was sent where.
//!
//! Counters are sums since the process began and never rates, so a lost, late or doubled report only delays.

use serde::{Deserialize, Serialize};

mod draws;
mod rows;
mod shadow;

pub use draws::{CENTROIDS_MAX, DRAWS_MAX, DrawKind, DrawSums, LOTS_MAX, LotSums, Sample};
pub use shadow::ShadowCounts;

/// Path of the operator's intake, below the address in `--report-url`.
pub const REPORT_PATH: &str = "/v1/reports";

/// The longest report that the operator takes, in bytes. A busy pod's has some 8 KiB; the largest possible one (256
/// batch sizes, [`RECENT_MAX`] rows, every number as long as it can be) fits too.
pub const REPORT_BYTES_MAX: usize = 128 * 1024;

/// Rows in [`Work::recent`] at most: two each of 25 requests per second, several times what one pod of eight slots ends.
pub const RECENT_MAX: usize = 512;

/// One report of one pod; sent when the phase changes and every two seconds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub pod: String,
    /// The pod's UID: a report whose UID is not that of the pod the operator sees is dropped.
    pub pod_uid: String,
    /// Name of the InferenceModel.
    pub model: String,
    /// Name of the revision.
    pub revision: String,
    /// Grows by one with each report of one process.
    pub sequence: u64,
    /// Milliseconds since the process began, by its monotonic clock.
    pub uptime_ms: u64,
    /// Where the pod stands.
    pub phase: Phase,
    /// The model as opened, once it is loaded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub opened: Option<OpenedModel>,
    /// The load, once the server runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load: Option<Load>,
}

/// Path of the operator's intake for gateways, below the address in `--report-url`.
pub const GATEWAY_REPORT_PATH: &str = "/v1/gateway-reports";

/// One report of one gateway; sent at once when a first request has to wait, and every two seconds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GatewayReport {
    /// The pool's namespace.
    pub namespace: String,
    /// Name of the InferencePool.
    pub pool: String,
    /// The gateway's pod.
    pub pod: String,
    /// The pod's UID; together with `sequence` it tells a restarted gateway, whose sums begin at zero, from a late report.
    pub pod_uid: String,
    /// Grows by one with each report of one process.
    pub sequence: u64,
    /// Milliseconds since the process began, by its monotonic clock.
    pub uptime_ms: u64,
    /// The models of the pool that the gateway knows.
    pub models: Vec<GatewayModel>,
}

/// What one gateway knows of one model's traffic. Gauges are of now; everything that ends in `_total` only grows.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GatewayModel {
    /// Name of the InferenceModel.
    pub model: String,
    /// Requests that wait for a replica, by tier: vip, high, normal, low.
    pub held: [u32; 4],
    /// Bytes of their bodies.
    pub held_bytes: u64,
    /// Age of the oldest of them in milliseconds.
    pub oldest_ms: u64,
    /// Estimated prompt tokens of those that wait.
    #[serde(default)]
    pub held_prompt_tokens: u64,
    /// Tokens that those that wait may generate, as far as that is believable.
    #[serde(default)]
    pub held_output_tokens: u64,
    /// Requests that arrived, held or not.
    pub arrivals_total: u64,
    /// Estimated prompt tokens of those that arrived.
    #[serde(default)]
    pub arrived_prompt_tokens_total: u64,
    /// Tokens that those that arrived may generate, as far as that is believable.
    #[serde(default)]
    pub arrived_output_tokens_total: u64,
    /// What arrived in the last half hour, so that an operator that has just started knows it: bins of
    /// [`ARRIVAL_BIN_MS`], the newest first and still open, at most [`ARRIVAL_BINS_MAX`]; requests, prompt tokens, and
    /// tokens that they may generate. In some reports only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recent_arrivals: Option<Vec<[u64; 3]>>,
    /// Requests that were sent to a revision.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub arms: Vec<ArmCounts>,
    /// What came of flags and experiments. In some reports only, and then of some of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub draws: Vec<DrawSums>,
}

/// Width of a bin of [`GatewayModel::recent_arrivals`].
pub const ARRIVAL_BIN_MS: u64 = 10_000;

/// Bins of [`GatewayModel::recent_arrivals`] at most: half an hour.
pub const ARRIVAL_BINS_MAX: usize = 180;

/// Requests of one revision.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ArmCounts {
    /// Name of the revision.
    pub revision: String,
    /// Requests that it answered or should have answered; copies whose answers nobody sees are not among them.
    pub requests_total: u64,
    /// Those of them that begin a conversation: what the share of a revision is judged by, because a client that
    /// leaves or comes back counts once.
    pub new_conversations_total: u64,
    /// Those of them that failed by the revision's fault: a status from 500, or a stream that broke.
    pub failures_total: u64,
    /// What came of copies that it got of other revisions' requests, if any were compared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shadow: Option<ShadowCounts>,
}

/// Where a pod stands on its way to serving.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Phase {
    /// The init container fetches the model.
    Downloading {
        /// Bytes on disk.
        bytes_done: u64,
        /// Bytes of the whole, when the source says.
        bytes_total: Option<u64>,
        /// Estimated seconds left, when the rate is known.
        seconds_left: Option<u64>,
        /// The last problem, while it is being retried.
        last_error: Option<String>,
    },
    /// Digest and structure are checked.
    Verifying,
    /// The engine loads the model.
    Loading {
        /// Progress from 0 to 100.
        percent: u8,
    },
    /// One token is generated before the pod calls itself ready.
    WarmingUp,
    /// Requests are served.
    Serving,
    /// No new requests; running ones finish.
    Draining,
    /// The engine is being restarted after it was lost.
    Recovering,
}

/// The model as the pod opened it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OpenedModel {
    /// `general.architecture`.
    pub architecture: String,
    /// Of most tensors: `Q8_0`.
    pub quantization: String,
    /// Size of the files.
    pub size_bytes: u64,
    /// Context length that it was trained with.
    pub trained_context_length: u32,
    /// Context length of each slot.
    pub context_length: u32,
    /// SHA-256 of the (first) file in hex, when it was computed.
    pub sha256: Option<String>,
    /// Layers, and how many are offloaded.
    pub layers_total: u32,
    /// See `layers_total`.
    pub layers_offloaded: u32,
    /// Seconds from the process's start to the first token of the warm-up.
    pub load_seconds: u32,
}

/// The load of one pod. Gauges are of now; everything that ends in `_total` only grows.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Load {
    /// Requests that arrived.
    pub arrivals_total: u64,
    /// Prompt tokens processed.
    pub prompt_tokens_total: u64,
    /// Those of them that came from a cached prefix.
    pub cached_tokens_total: u64,
    /// Tokens generated.
    pub output_tokens_total: u64,
    /// Requests that ended well.
    pub completed_total: u64,
    /// Requests that ended with an error of ours.
    pub errors_total: u64,
    /// Requests whose client left.
    pub cancelled_total: u64,
    /// Slots in use.
    pub slots_busy: u32,
    /// Slots.
    pub slots: u32,
    /// Queued requests by tier: vip, high, normal, low.
    pub queued: [u32; 4],
    /// Prompt tokens of all queued requests.
    pub queued_prompt_tokens: u64,
    /// Age of the oldest queued request in milliseconds.
    pub oldest_ms: u64,
    /// Milliseconds since the process began in which nobody was queued.
    #[serde(default)]
    pub no_queue_ms_total: u64,
    /// Context tokens in use.
    pub kv_tokens_used: u64,
    /// Context tokens there are.
    pub kv_tokens_total: u64,
    /// Time to first token, counts per bucket of [`LATENCY_BOUNDS_MS`]. Hits and misses of an objective need no counters
    /// of their own: the buckets above any goal, here and in `inter_token_ms_buckets_total`, are its misses.
    pub ttft_ms_buckets_total: Vec<u64>,
    /// Time between tokens, counts per bucket of [`LATENCY_BOUNDS_MS`].
    pub inter_token_ms_buckets_total: Vec<u64>,
    /// The work done, for comparing revisions per unit of work.
    pub work: Work,
}

/// Upper bounds of the latency buckets in milliseconds: from 1 ms up by √2 per step to beyond a minute, so a
/// percentile read from them is at most 41 % off and usually half of that. One more bucket holds the rest.
pub const LATENCY_BOUNDS_MS: [u32; 33] = [
    1, 2, 3, 4, 6, 8, 11, 16, 23, 32, 45, 64, 91, 128, 181, 256, 362, 512, 724, 1_024, 1_448, 2_048, 2_896,
    4_096, 5_793, 8_192, 11_585, 16_384, 23_170, 32_768, 46_341, 65_536, 92_682,
];

/// Work counters of one engine; sums since the pod's first engine.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Work {
    /// Decode calls without prompt tokens, by batch size.
    pub decode: Vec<DecodeWork>,
    /// Sums over finished requests.
    pub requests: u64,
    /// Prompt tokens of those.
    pub prompt_tokens: u64,
    /// Prompt tokens of those that no cache held.
    pub uncached_tokens: u64,
    /// Time on their prompts.
    pub prefill_us: u64,
    /// Requests that had waited for a slot.
    pub waited: u64,
    /// Requests that ended with an error.
    pub errors: u64,
    /// First attempts that gave a first token or failed before it.
    pub first_attempts: u64,
    /// First attempts that failed, before or after their first token.
    pub first_attempt_errors: u64,
    /// Requests for which the cache should have held the prompt before theirs; see [`RequestWork::is_reuse_eligible`].
    pub reuse_eligible: u64,
    /// Those of them for which it did.
    pub reuse_hits: u64,
    /// Calls of the engine from requests' first tokens to their last.
    pub decode_steps: u64,
    /// Tokens that requests got after their first ones; as many as `decode_steps` if none was ever left out of a call.
    pub decoded_tokens: u64,
    /// What of `prefill_us` was in calls in which other requests were decoding, in microseconds.
    pub overlap_micros: u64,
    /// What happened to requests within the last 10 s, oldest first, at most [`RECENT_MAX`] rows. Each is in several
    /// reports.
    /// On the wire one list per field, because as many names as numbers would be most of the report.
    #[serde(default, with = "rows", skip_serializing_if = "Vec::is_empty")]
    pub recent: Vec<RequestWork>,
}

/// Which part of a generation a row tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Part {
    /// All of it, at its end: it never had a first token, or the pod is of a version that tells ends only.
    #[default]
    Whole,
    /// Its prompt, with its first token: a slow prompt is known before its answer, which may take a minute.
    Prompt,
    /// The rest, at its end. The figures of the prompt are repeated.
    Answer,
}

/// One generation that has its first token, came to its end, failed or was given up; a request with several choices
/// has rows for each. `None`: the pod is of a version that does not tell it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts of one request, as measured")]
pub struct RequestWork {
    /// 1, 2, 3… in the order of rows within one process: a receiver drops what it has seen.
    pub ordinal: u64,
    /// What the row tells.
    pub part: Part,
    /// Tokens of the prompt that no cache held. Of a request without a first token this and all measures of its work
    /// are zero.
    pub uncached_tokens: u32,
    /// Tokens of the prompt.
    pub prompt_tokens: u32,
    /// Time on its prompt in microseconds: its part, by tokens, of the calls that held some of it.
    pub prefill_micros: u64,
    /// The share of that time during which other requests were decoding in the same calls, in thousandths.
    pub overlap_permille: u16,
    /// From its arrival to its first token in microseconds; 0 without one.
    pub ttft_micros: u64,
    /// Mean time between its tokens in microseconds; 0 as long as there is at most one.
    pub inter_token_micros: Option<u64>,
    /// Tokens that it got, the model's end included.
    pub output_tokens: u32,
    /// Calls of the engine after the one that gave its first token, up to the one that gave its last. One less than
    /// `output_tokens` if it was left out of none.
    pub decode_steps: u32,
    /// Generations in the queue or in a slot of the pod when it came, itself not counted.
    pub in_flight_before: Option<u16>,
    /// It found a free slot and no prompt before its own.
    pub is_unqueued: bool,
    /// It waited for a slot.
    pub has_waited: bool,
    /// Its prompt goes on from one that the same engine process has served, and less than 40 % of the cache was written
    /// since; a slot that went to another prompt counts as written from end to end.
    pub is_reuse_eligible: bool,
    /// At least half of that earlier prompt came from the cache.
    pub is_reuse_hit: bool,
    /// 1 is the first. Counts the retries of gateways and clients that say so, and the ones that the pod makes itself
    /// when its engine is lost.
    pub attempt: u8,
    /// It ended with an error of ours.
    pub has_failed: bool,
    /// Nobody wanted its end: the client left, or did not read, or had set a deadline that came first.
    pub was_cancelled: bool,
}

/// Decode calls of one batch size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DecodeWork {
    /// Sequences in the batch.
    pub batch: u32,
    /// Calls.
    pub calls: u64,
    /// Time of those calls.
    pub micros: u64,
    /// Sum of the context tokens attended to.
    pub kv_tokens: u64,
}

/// Why a pod could not start; the content of its termination message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Failure {
    /// From a closed list.
    pub reason: Reason,
    /// For the person who wrote the spec: what was found, and the cure. Never credentials.
    pub message: String,
}

/// Reasons for which a pod cannot serve its model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Reason {
    /// No answer from the source.
    SourceUnreachable,
    /// The source answered that there is no such file.
    SourceNotFound,
    /// The source refused, or its address is one that may not be asked.
    SourceForbidden,
    /// The file is something else.
    NotGGUF,
    /// The file ends before its tensors do.
    ModelTruncated,
    /// The file is a GGUF that cannot be loaded.
    ModelInvalid,
    /// The file has another SHA-256 than declared.
    DigestMismatch,
    /// Weights, cache and buffers need more memory than there is.
    DoesNotFit,
    /// The model volume is full.
    StorageFull,
    /// The engine keeps dying.
    EngineLost,
}
