//! Figures of the process: own families, and four gauges under the names by which endpoint pickers know vLLM's.
//! One struct, built in `serve`. Reading it never waits for the engine.

use std::sync::Arc;

use crds::report::LATENCY_BOUNDS_MS;
use engine::EngineStats;
use prometheus::core::Metric;
use prometheus::{
    Gauge, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder,
};

use crate::queue::{Snapshot, tier::TIERS};
use crate::work::Ledger;

/// How a request ended, for counting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// With an answer.
    Completed,
    /// The request itself was wrong.
    Refused,
    /// The queue was full.
    QueueFull,
    /// It waited too long.
    Expired,
    /// The client left.
    Cancelled,
    /// We failed.
    Failed,
    /// We were loading or draining.
    Unavailable,
}

impl Outcome {
    /// The label's value.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Refused => "refused",
            Self::QueueFull => "queue_full",
            Self::Expired => "expired",
            Self::Cancelled => "cancelled",
            Self::Failed => "failed",
            Self::Unavailable => "unavailable",
        }
    }
}

/// The metrics; clones share them.
#[derive(Clone)]
pub struct Metrics {
    registry: Registry,
    /// Requests that arrived.
    pub arrivals: IntCounter,
    /// Requests that ended, by how.
    pub requests: IntCounterVec,
    /// Choices put back because the engine was lost.
    pub requeued: IntCounter,
    /// Seconds from arrival to the first token.
    pub time_to_first_token: Histogram,
    /// Seconds between tokens.
    pub inter_token: Histogram,
    /// Seconds in the queue.
    pub queue_wait: Histogram,
    /// What choices cost.
    pub work: Arc<Ledger>,
    engine: EngineFamilies,
    queue: QueueFamilies,
}

#[derive(Clone)]
struct EngineFamilies {
    restarts: IntCounter,
    prompt_tokens: IntCounter,
    cached_tokens: IntCounter,
    output_tokens: IntCounter,
    slots: IntGauge,
    slots_busy: IntGauge,
    kv_used: IntGauge,
    kv_total: IntGauge,
    vllm_running: IntGauge,
    vllm_kv_usage: Gauge,
    vllm_cache_config: IntGaugeVec,
}

#[derive(Clone)]
struct QueueFamilies {
    requests: IntGaugeVec,
    prompt_tokens: IntGauge,
    bytes: IntGauge,
    oldest: Gauge,
    vllm_waiting: IntGauge,
}

impl Metrics {
    /// All families, for a model by this name.
    pub fn new(model_name: &str) -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let new = Families { registry: &registry, model_name };
        Ok(Self {
            arrivals: new.counter("inferno_arrivals_total", "Requests that arrived.")?,
            requests: new.counters("inferno_requests_total", "Requests that ended, by how.", &["outcome"])?,
            requeued: new
                .counter("inferno_requeued_total", "Choices put back because the engine was lost.")?,
            time_to_first_token: new
                .latency("inferno_time_to_first_token_seconds", "From arrival to the first token.")?,
            inter_token: new.latency("inferno_inter_token_seconds", "Between two tokens of a choice.")?,
            queue_wait: new.latency("inferno_queue_wait_seconds", "From arrival to a slot.")?,
            work: Arc::new(Ledger::new(&new)?),
            engine: EngineFamilies::new(&new)?,
            queue: QueueFamilies::new(&new)?,
            registry,
        })
    }

    /// Requests that ended in one of these ways.
    pub fn ended(&self, outcomes: &[Outcome]) -> u64 {
        outcomes.iter().map(|outcome| self.requests.with_label_values(&[outcome.name()]).get()).sum()
    }

    /// The text that Prometheus reads, with the engine's and the queue's figures of now.
    pub fn render(
        &self,
        stats: &EngineStats,
        slots: u32,
        queue: &Snapshot,
    ) -> Result<String, prometheus::Error> {
        self.engine.update(stats, slots);
        self.queue.update(queue);
        TextEncoder::new().encode_to_string(&self.registry.gather())
    }
}

/// Counts per bucket of [`LATENCY_BOUNDS_MS`], and one more for the rest.
pub fn bucket_counts(histogram: &Histogram) -> Vec<u64> {
    let metric = histogram.metric();
    let histogram = metric.get_histogram();
    let mut counts = Vec::with_capacity(LATENCY_BOUNDS_MS.len() + 1);
    let mut below = 0;
    for bucket in histogram.get_bucket() {
        counts.push(bucket.cumulative_count() - below);
        below = bucket.cumulative_count();
    }
    counts.push(histogram.get_sample_count().saturating_sub(below));
    counts
}

/// Raises a counter to a sum that is kept elsewhere.
fn raise(counter: &IntCounter, sum: u64) {
    counter.inc_by(sum.saturating_sub(counter.get()));
}

fn as_gauge(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

impl EngineFamilies {
    fn new(new: &Families<'_>) -> Result<Self, prometheus::Error> {
        Ok(Self {
            restarts: new.counter("inferno_engine_restarts_total", "Engines that replaced a lost one.")?,
            prompt_tokens: new.counter("inferno_prompt_tokens_total", "Prompt tokens processed.")?,
            cached_tokens: new
                .counter("inferno_cached_tokens_total", "Prompt tokens found in a cached prefix.")?,
            output_tokens: new.counter("inferno_output_tokens_total", "Tokens generated.")?,
            slots: new.gauge("inferno_slots", "Generations that can run side by side.")?,
            slots_busy: new.gauge("inferno_slots_busy", "Generations that run.")?,
            kv_used: new
                .gauge("inferno_kv_tokens_used", "Context tokens in use, cached prefixes included.")?,
            kv_total: new.gauge("inferno_kv_tokens", "Context tokens there are.")?,
            vllm_running: new.gauge("vllm:num_requests_running", "Generations that run.")?,
            vllm_kv_usage: new
                .fraction("vllm:kv_cache_usage_perc", "Share of the context in use, 1 is all.")?,
            vllm_cache_config: new.gauges(
                "vllm:cache_config_info",
                "Shape of the context memory.",
                &["block_size", "num_gpu_blocks"],
            )?,
        })
    }

    fn update(&self, stats: &EngineStats, slots: u32) {
        raise(&self.restarts, stats.incarnation.saturating_sub(1));
        raise(&self.prompt_tokens, stats.prompt_tokens_total);
        raise(&self.cached_tokens, stats.cached_tokens_total);
        raise(&self.output_tokens, stats.output_tokens_total);
        self.slots.set(slots.into());
        self.slots_busy.set(stats.busy_slots.into());
        self.kv_used.set(as_gauge(stats.kv_tokens_used));
        self.kv_total.set(as_gauge(stats.kv_tokens_total));
        self.vllm_running.set(stats.busy_slots.into());
        self.vllm_kv_usage.set(stats.kv_tokens_used as f64 / stats.kv_tokens_total.max(1) as f64);
        if stats.kv_tokens_total > 0 {
            // One token is one block here; pickers multiply the two to learn how many tokens fit.
            self.vllm_cache_config.reset();
            self.vllm_cache_config.with_label_values(&["1", &stats.kv_tokens_total.to_string()]).set(1);
        }
    }
}

impl QueueFamilies {
    fn new(new: &Families<'_>) -> Result<Self, prometheus::Error> {
        Ok(Self {
            requests: new.gauges(
                "inferno_queue_requests",
                "Queued requests by the tier they count as.",
                &["tier"],
            )?,
            prompt_tokens: new.gauge("inferno_queue_prompt_tokens", "Prompt tokens of queued requests.")?,
            bytes: new.gauge("inferno_queue_bytes", "Bytes that queued requests hold.")?,
            oldest: new
                .fraction("inferno_queue_oldest_seconds", "How long the oldest queued request has waited.")?,
            vllm_waiting: new.gauge("vllm:num_requests_waiting", "Queued requests.")?,
        })
    }

    fn update(&self, queue: &Snapshot) {
        for tier in TIERS {
            let count = as_gauge(queue.by_tier[tier.index()] as u64);
            self.requests.with_label_values(&[tier.name()]).set(count);
        }
        self.prompt_tokens.set(as_gauge(queue.prompt_tokens));
        self.bytes.set(as_gauge(queue.bytes));
        self.oldest.set(queue.oldest.as_secs_f64());
        self.vllm_waiting.set(as_gauge(queue.requests as u64));
    }
}

/// Makes families and registers them.
pub(crate) struct Families<'a> {
    registry: &'a Registry,
    model_name: &'a str,
}

impl Families<'_> {
    fn opts(&self, name: &str, help: &str) -> Opts {
        Opts::new(name, help).const_label("model_name", self.model_name)
    }

    fn register<T: prometheus::core::Collector + Clone + 'static>(
        &self,
        family: Result<T, prometheus::Error>,
    ) -> Result<T, prometheus::Error> {
        let family = family?;
        self.registry.register(Box::new(family.clone()))?;
        Ok(family)
    }

    pub(crate) fn counter(&self, name: &str, help: &str) -> Result<IntCounter, prometheus::Error> {
        self.register(IntCounter::with_opts(self.opts(name, help)))
    }

    fn counters(&self, name: &str, help: &str, labels: &[&str]) -> Result<IntCounterVec, prometheus::Error> {
        self.register(IntCounterVec::new(self.opts(name, help), labels))
    }

    fn gauge(&self, name: &str, help: &str) -> Result<IntGauge, prometheus::Error> {
        self.register(IntGauge::with_opts(self.opts(name, help)))
    }

    fn fraction(&self, name: &str, help: &str) -> Result<Gauge, prometheus::Error> {
        self.register(Gauge::with_opts(self.opts(name, help)))
    }

    fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> Result<IntGaugeVec, prometheus::Error> {
        self.register(IntGaugeVec::new(self.opts(name, help), labels))
    }

    fn latency(&self, name: &str, help: &str) -> Result<Histogram, prometheus::Error> {
        let buckets = LATENCY_BOUNDS_MS.iter().map(|bound_ms| f64::from(*bound_ms) / 1_000.0).collect();
        let opts = HistogramOpts::from(self.opts(name, help)).buckets(buckets);
        self.register(Histogram::with_opts(opts))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_that_endpoint_pickers_read_are_there() {
        let metrics = Metrics::new("tiny").unwrap();
        let stats = EngineStats { kv_tokens_used: 25, kv_tokens_total: 100, ..EngineStats::default() };
        let text = metrics.render(&stats, 4, &Snapshot { requests: 3, ..Snapshot::default() }).unwrap();
        for line in [
            "vllm:num_requests_waiting{model_name=\"tiny\"} 3",
            "vllm:num_requests_running{model_name=\"tiny\"} 0",
            "vllm:kv_cache_usage_perc{model_name=\"tiny\"} 0.25",
            "vllm:cache_config_info{block_size=\"1\",model_name=\"tiny\",num_gpu_blocks=\"100\"} 1",
            "inferno_queue_requests{model_name=\"tiny\",tier=\"vip\"} 0",
        ] {
            assert!(text.contains(line), "{line} in\n{text}");
        }
    }

    #[test]
    fn counters_follow_the_engines_sums() {
        let metrics = Metrics::new("tiny").unwrap();
        for sum in [5, 9] {
            let stats = EngineStats { output_tokens_total: sum, ..EngineStats::default() };
            let text = metrics.render(&stats, 4, &Snapshot::default()).unwrap();
            assert!(
                text.contains(&format!("inferno_output_tokens_total{{model_name=\"tiny\"}} {sum}")),
                "{text}"
            );
        }
    }

    #[test]
    fn every_observation_falls_into_one_bucket() {
        let metrics = Metrics::new("tiny").unwrap();
        for seconds in [0.0005, 0.005, 1_000.0] {
            metrics.inter_token.observe(seconds);
        }
        let counts = bucket_counts(&metrics.inter_token);
        assert_eq!(counts.len(), LATENCY_BOUNDS_MS.len() + 1);
        assert_eq!((counts[0], counts[4], counts[counts.len() - 1]), (1, 1, 1));
        assert_eq!(counts.iter().sum::<u64>(), 3);
    }
}
