//! The tallies as metrics, by flag or experiment and variant. They are made from what is counted anyway when somebody
//! asks for them: a request pays nothing for them, and what is declared no more leaves no series behind.

use crds::report::{DrawKind, DrawSums, LotSums, Sample};
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{CounterVec, Error, IntCounterVec, Opts};

/// What tells one series from another.
const LABELS: [&str; 4] = ["model", "kind", "name", "variant"];

/// The families of one moment.
pub(in crate::gateway) struct Families {
    requests: IntCounterVec,
    errors: IntCounterVec,
    cancelled: IntCounterVec,
    fallbacks: IntCounterVec,
    output_tokens: CounterVec,
    seconds: CounterVec,
    measured: IntCounterVec,
}

impl Families {
    /// Without a series.
    pub(in crate::gateway) fn new() -> Result<Self, Error> {
        let opts = |name: &str, help: &str| Opts::new(name, help).namespace("inferno_gateway_variant");
        let counters = |name, help| IntCounterVec::new(opts(name, help), &LABELS);
        let by_until = [&LABELS[..], &["until"]].concat();
        Ok(Self {
            requests: counters("requests_total", "Requests that ended, by what they drew.")?,
            errors: counters(
                "errors_total",
                "Those of them with a status from 500, with 429, or broken off.",
            )?,
            cancelled: counters("cancelled_total", "Those of them whose client left.")?,
            fallbacks: counters(
                "fallbacks_total",
                "Those of them that the variant's own model could not answer.",
            )?,
            output_tokens: CounterVec::new(
                opts("output_tokens_total", "Tokens of measured answers."),
                &LABELS,
            )?,
            seconds: CounterVec::new(
                opts("seconds_total", "Time to the first token, of streams, and to the end of answers."),
                &by_until,
            )?,
            measured: IntCounterVec::new(
                opts("measured_total", "Answers that these times are of."),
                &by_until,
            )?,
        })
    }

    /// Adds what one draw of this model has come to.
    pub(in crate::gateway) fn add(&self, model: &str, draw: &DrawSums) {
        let kind = match draw.kind {
            DrawKind::Flag => "flag",
            DrawKind::Experiment => "experiment",
        };
        draw.lots.iter().for_each(|lot| self.add_lot([model, kind, &draw.name, &lot.name], lot));
    }

    fn add_lot(&self, labels: [&str; 4], lot: &LotSums) {
        for (family, count) in [
            (&self.requests, lot.requests_total),
            (&self.errors, lot.errors_total),
            (&self.cancelled, lot.cancelled_total),
            (&self.fallbacks, lot.fallbacks_total),
        ] {
            family.with_label_values(&labels).inc_by(count);
        }
        self.output_tokens.with_label_values(&labels).inc_by(lot.output_tokens.sum);
        for (until, sample) in [("first_token", &lot.first_token), ("end", &lot.duration)] {
            self.add_times(labels, until, sample);
        }
    }

    fn add_times(&self, [model, kind, name, variant]: [&str; 4], until: &str, times: &Sample) {
        let labels = [model, kind, name, variant, until];
        self.seconds.with_label_values(&labels).inc_by(times.sum / 1_000.0);
        self.measured.with_label_values(&labels).inc_by(times.count);
    }

    fn all(&self) -> [&dyn Collector; 7] {
        [
            &self.requests,
            &self.errors,
            &self.cancelled,
            &self.fallbacks,
            &self.output_tokens,
            &self.seconds,
            &self.measured,
        ]
    }
}

impl Collector for Families {
    fn desc(&self) -> Vec<&Desc> {
        self.all().into_iter().flat_map(Collector::desc).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let families = self.all().into_iter().flat_map(Collector::collect);
        families.filter(|family| !family.get_metric().is_empty()).collect()
    }
}
