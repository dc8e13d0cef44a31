//! What a pod tells the operator: where it stands while it starts, why it failed, and its load.
//!
//! Counters are sums since the process began and never rates, so a lost, late or doubled report only delays.

use serde::{Deserialize, Serialize};

/// Path of the operator's intake, below the address in `--report-url`.
pub const REPORT_PATH: &str = "/v1/reports";

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
    /// Context tokens in use.
    pub kv_tokens_used: u64,
    /// Context tokens there are.
    pub kv_tokens_total: u64,
    /// Time to first token, counts per bucket of [`LATENCY_BOUNDS_MS`].
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
    /// Requests that had waited in the queue.
    pub waited: u64,
    /// Requests that ended with an error.
    pub errors: u64,
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
