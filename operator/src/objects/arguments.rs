//! The command lines of the two containers. What a spec does not set stays the sidecar's default. Pure.

use crds::amount::{Amount, ByteSize};
use crds::model::{FlashAttention, GpuLayers, InferenceModel, KvCacheType, Priority};
use crds::pool::InferencePool;

use super::{Installation, served_name};

/// Running requests get this long to finish after SIGTERM.
pub(super) const DRAIN_SECONDS: i32 = 45;
/// A pod that is told to stop serves on for this long, because clients learn of it only after its endpoint has
/// been taken out everywhere.
pub(super) const ENDPOINT_PROPAGATION_SECONDS: i32 = 5;

/// Of the init container, whose file goes to `path`.
pub(super) fn fetch_arguments(
    model: &InferenceModel,
    installation: &Installation,
    path: &str,
) -> Vec<String> {
    let source = &model.spec.source;
    let mut arguments = vec!["fetch".to_owned()];
    let mut add = |flag: &str, value: &str| arguments.extend([flag.to_owned(), value.to_owned()]);
    if let Some(http) = &source.http {
        add("--url", &http.url);
    }
    if let Some(hub) = &source.hugging_face {
        add("--repository", &hub.repository);
        add("--revision", hub.revision.as_deref().unwrap_or("main"));
        for file in &hub.files {
            add("--file", file);
        }
        add("--endpoint", hub.endpoint.as_deref().unwrap_or(crate::policy::DEFAULT_ENDPOINT));
    }
    if let Some(sha256) = &source.sha256 {
        add("--sha256", sha256);
    }
    add("--output", path);
    if let Some(url) = &installation.report_url {
        add("--report-url", url);
    }
    arguments
}

/// Of the container that serves the file at `path`.
pub(super) fn serve_arguments(
    model: &InferenceModel,
    pool: &InferencePool,
    installation: &Installation,
    path: &str,
) -> Vec<String> {
    let spec = &model.spec;
    let engine = spec.engine.clone().unwrap_or_default();
    let requests = spec.request_policy.clone().unwrap_or_default();
    let queue = pool.spec.queue.clone().unwrap_or_default();
    let accelerators = pool.spec.accelerator.as_ref().map_or(0, |accelerator| accelerator.count);
    let gpu_layers =
        engine.gpu_layers.unwrap_or(if accelerators > 0 { GpuLayers::All } else { GpuLayers::Count(0) });
    let threads = engine.threads.map_or_else(|| pool_threads(pool), i32::unsigned_abs);
    let timeout = requests.timeout_seconds.or(queue.default_timeout_seconds);
    let queued_bytes = queue.max_queued_bytes.as_ref().and_then(ByteSize::bytes);

    let mut arguments = Arguments(vec!["serve".to_owned()]);
    arguments.add("--model", path);
    arguments.add("--model-name", &served_name(model));
    for alias in &spec.aliases {
        arguments.add("--alias", alias);
    }
    arguments.add_some("--context-length", engine.context_length);
    arguments.add_some("--parallel-slots", engine.parallel_slots);
    arguments.add("--gpu-layers", &gpu_layers_flag(gpu_layers));
    arguments.add_some("--flash-attention", engine.flash_attention.map(flash_attention_flag));
    arguments.add_some("--kv-cache-type", engine.kv_cache_type.map(kv_cache_flag));
    arguments.add("--threads", &threads);
    arguments.add_some("--max-queued-requests", queue.max_queued_requests);
    arguments.add_some("--max-queued-bytes", queued_bytes);
    arguments.add_some("--default-timeout-seconds", timeout);
    arguments.add_some("--default-priority", requests.default_priority.map(priority_flag));
    arguments.add_some("--max-output-tokens", requests.max_output_tokens);
    arguments.add("--drain-seconds", &DRAIN_SECONDS);
    arguments.add("--endpoint-propagation-seconds", &ENDPOINT_PROPAGATION_SECONDS);
    arguments.add_some("--report-url", installation.report_url.as_ref());
    arguments.0
}

/// A command line; what is not set stays the sidecar's default.
struct Arguments(Vec<String>);

impl Arguments {
    fn add<Value: ToString + ?Sized>(&mut self, flag: &str, value: &Value) {
        self.0.extend([flag.to_owned(), value.to_string()]);
    }

    fn add_some(&mut self, flag: &str, value: Option<impl ToString>) {
        if let Some(value) = value {
            self.add(flag, &value);
        }
    }
}

fn gpu_layers_flag(layers: GpuLayers) -> String {
    match layers {
        GpuLayers::All => "all".to_owned(),
        GpuLayers::Count(count) => count.to_string(),
    }
}

fn flash_attention_flag(choice: FlashAttention) -> &'static str {
    match choice {
        FlashAttention::Auto => "auto",
        FlashAttention::Enabled => "on",
        FlashAttention::Disabled => "off",
    }
}

fn kv_cache_flag(kind: KvCacheType) -> &'static str {
    match kind {
        KvCacheType::F16 => "f16",
        KvCacheType::Q8 => "q8_0",
        KvCacheType::Q4 => "q4_0",
    }
}

fn priority_flag(priority: Priority) -> &'static str {
    match priority {
        Priority::Vip => "vip",
        Priority::High => "high",
        Priority::Normal => "normal",
        Priority::Low => "low",
    }
}

/// As many threads as cores were asked for. All cores of the node would be too many beside other pods: threads of one
/// step wait for each other, and two on one free core have been measured a hundred times slower than one.
fn pool_threads(pool: &InferencePool) -> u32 {
    let Some(runtime) = &pool.spec.runtime else { return 1 };
    let resources = runtime.resources.clone().unwrap_or_default();
    let cores = resources.limits.get("cpu").or(resources.requests.get("cpu")).and_then(Amount::whole_cores);
    runtime.threads.map(i32::unsigned_abs).or(cores).unwrap_or(1)
}
