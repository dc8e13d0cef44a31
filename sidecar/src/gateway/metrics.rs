//! Figures of a gateway. One struct, built once; gauges are set when they are asked for.

use std::time::Duration;

use crds::report::ShadowCounts;
use prometheus::core::Collector;
use prometheus::proto::MetricFamily;
use prometheus::{
    CounterVec, Gauge, Histogram, HistogramOpts, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry, TextEncoder,
};

use super::app::Board;
use super::draw;
use super::endpoints::breaker::Passage;
use super::hold::HeldCounts;
use crate::queue::tier::TIERS;

/// Seconds in the gateway before a request leaves: a millisecond is the promise, so it lies in the middle.
const ADDED_SECONDS: [f64; 12] =
    [0.000_05, 0.000_1, 0.000_2, 0.000_3, 0.000_5, 0.000_75, 0.001, 0.002, 0.005, 0.01, 0.05, 0.25];

/// Seconds to the first token: from a cached prompt on an accelerator to a start from zero.
const TTFT_SECONDS: [f64; 14] =
    [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0];

/// The metrics; clones share them.
#[derive(Clone)]
pub struct Metrics {
    registry: Registry,
    /// Requests that ended, by model, revision and status; 499: the client left, `broken`: cut after it had begun.
    pub requests: IntCounterVec,
    /// Requests that had to wait for a replica, by model and how the wait ended.
    pub held_total: IntCounterVec,
    /// Requests that were sent again, by model and cause.
    pub retries: IntCounterVec,
    /// Copies of requests, by model and what became of them.
    pub mirrored: IntCounterVec,
    shadow_compared: IntCounterVec,
    shadow_characters: IntCounterVec,
    shadow_seconds: CounterVec,
    /// Seconds in the gateway before a request left.
    pub added_latency: Histogram,
    /// Seconds from arrival to the first content, by model and revision.
    pub ttft: HistogramVec,
    held: IntGaugeVec,
    breaker: IntGaugeVec,
    in_flight: IntGauge,
    view_age: Gauge,
}

/// What the gauges are set to.
pub struct Now<'now> {
    /// Models and their revisions.
    pub board: &'now Board,
    /// Waiting requests by the model's name.
    pub held: Vec<(&'now str, HeldCounts)>,
    /// Requests in flight.
    pub in_flight: usize,
    /// For how long the view has had no source.
    pub view_age: Duration,
    /// The time.
    pub at: std::time::Instant,
}

impl Metrics {
    /// All families.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let new = Families { registry: &registry };
        Ok(Self {
            requests: new.counters(
                "requests_total",
                "Requests that ended.",
                &["model", "revision", "code"],
            )?,
            held_total: new.counters(
                "held_total",
                "Waits for a replica that ended.",
                &["model", "outcome"],
            )?,
            retries: new.counters("retries_total", "Requests that were sent again.", &["model", "cause"])?,
            mirrored: new.counters("mirrored_total", "Copies of requests.", &["model", "outcome"])?,
            shadow_compared: new.counters(
                "shadow_compared_total",
                "Copies of requests whose answer was compared with the client's.",
                &["model", "outcome", "deterministic"],
            )?,
            shadow_characters: new.counters(
                "shadow_characters_total",
                "Characters of compared answers.",
                &["model", "answer"],
            )?,
            shadow_seconds: new.sums(
                "shadow_seconds_total",
                "Time to the first text and to the end of compared answers.",
                &["model", "answer", "until"],
            )?,
            added_latency: new.histogram(
                "added_latency_seconds",
                "Time in the gateway before a request left.",
                &ADDED_SECONDS,
            )?,
            ttft: new.histograms(
                "ttft_seconds",
                "Time from arrival to the first content.",
                &["model", "revision"],
                &TTFT_SECONDS,
            )?,
            held: new.gauges("held", "Requests that wait for a replica.", &["model", "tier"])?,
            breaker: new.gauges(
                "breaker_state",
                "0 closed, 1 lets one request through, 2 open.",
                &["model", "revision", "pod"],
            )?,
            in_flight: new.gauge("in_flight", "Requests in flight.")?,
            view_age: new.fraction("view_age_seconds", "For how long the view has had no source.")?,
            registry,
        })
    }

    /// The text that Prometheus reads.
    pub fn render(&self, now: &Now<'_>) -> Result<String, prometheus::Error> {
        self.in_flight.set(i64::try_from(now.in_flight).unwrap_or(i64::MAX));
        self.view_age.set(now.view_age.as_secs_f64());
        self.held.reset();
        for (model, counts) in &now.held {
            for tier in TIERS {
                self.held.with_label_values(&[model, tier.name()]).set(counts.by_tier[tier.index()].into());
            }
        }
        // Pods come and go; the labels are those of now.
        self.breaker.reset();
        for model in &now.board.models {
            for arm in &model.arms {
                for endpoint in arm.fleet.states(now.at) {
                    let labels = [&model.view.name, &arm.revision, &endpoint.pod];
                    self.breaker.with_label_values(&labels).set(match endpoint.passage {
                        Passage::Free => 0,
                        Passage::Probe => 1,
                        Passage::Barred => 2,
                    });
                }
            }
        }
        let variants = variants(now.board)?;
        TextEncoder::new().encode_to_string(&[self.registry.gather(), variants].concat())
    }

    /// A copy was compared.
    pub fn count_pair(&self, model: &str, pair: &ShadowCounts) {
        let outcome = match (pair.stable_errors_total > 0, pair.canary_errors_total > 0) {
            (true, true) => "both_failed",
            (true, false) => "stable_failed",
            (false, true) => "canary_failed",
            (false, false) if pair.same_text_total > 0 => "same_text",
            (false, false) => "other_text",
        };
        let deterministic = if pair.deterministic_total > 0 { "true" } else { "false" };
        self.shadow_compared.with_label_values(&[model, outcome, deterministic]).inc();
        for (answer, characters, whole, first) in [
            (
                "stable",
                pair.stable_characters_total,
                pair.stable_micros_total,
                pair.stable_first_micros_total,
            ),
            (
                "canary",
                pair.canary_characters_total,
                pair.canary_micros_total,
                pair.canary_first_micros_total,
            ),
        ] {
            self.shadow_characters.with_label_values(&[model, answer]).inc_by(characters);
            let seconds = |micros: u64| Duration::from_micros(micros).as_secs_f64();
            self.shadow_seconds.with_label_values(&[model, answer, "end"]).inc_by(seconds(whole));
            self.shadow_seconds.with_label_values(&[model, answer, "first_text"]).inc_by(seconds(first));
        }
    }

    /// Forgets a revision that has gone; what counted it has been read many times.
    pub fn forget(&self, model: &str, revision: &str) {
        // A label that was never used is no error worth telling.
        drop(self.ttft.remove_label_values(&[model, revision]));
    }
}

/// What has become of flags and experiments.
fn variants(board: &Board) -> Result<Vec<MetricFamily>, prometheus::Error> {
    let families = draw::metrics::Families::new()?;
    for model in &board.models {
        let sums = model.tallies.iter().filter_map(|tally| tally.sums());
        sums.for_each(|sums| families.add(&model.view.name, &sums));
    }
    Ok(families.collect())
}

/// Makes families and registers them.
struct Families<'registry> {
    registry: &'registry Registry,
}

impl Families<'_> {
    fn register<T: Collector + Clone + 'static>(
        &self,
        family: Result<T, prometheus::Error>,
    ) -> Result<T, prometheus::Error> {
        let family = family?;
        self.registry.register(Box::new(family.clone()))?;
        Ok(family)
    }

    fn counters(&self, name: &str, help: &str, labels: &[&str]) -> Result<IntCounterVec, prometheus::Error> {
        self.register(IntCounterVec::new(opts(name, help), labels))
    }

    fn sums(&self, name: &str, help: &str, labels: &[&str]) -> Result<CounterVec, prometheus::Error> {
        self.register(CounterVec::new(opts(name, help), labels))
    }

    fn gauge(&self, name: &str, help: &str) -> Result<IntGauge, prometheus::Error> {
        self.register(IntGauge::with_opts(opts(name, help)))
    }

    fn fraction(&self, name: &str, help: &str) -> Result<Gauge, prometheus::Error> {
        self.register(Gauge::with_opts(opts(name, help)))
    }

    fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> Result<IntGaugeVec, prometheus::Error> {
        self.register(IntGaugeVec::new(opts(name, help), labels))
    }

    fn histogram(&self, name: &str, help: &str, bounds: &[f64]) -> Result<Histogram, prometheus::Error> {
        let opts = HistogramOpts::from(opts(name, help)).buckets(bounds.to_vec());
        self.register(Histogram::with_opts(opts))
    }

    fn histograms(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
        bounds: &[f64],
    ) -> Result<HistogramVec, prometheus::Error> {
        let opts = HistogramOpts::from(opts(name, help)).buckets(bounds.to_vec());
        self.register(HistogramVec::new(opts, labels))
    }
}

fn opts(name: &str, help: &str) -> Opts {
    Opts::new(name, help).namespace("inferno_gateway")
}
