//! What the operator counts about itself. One struct, made in `main` and handed down.

use std::collections::HashMap;

use judgement::rollout::Outcome;
use prometheus::{
    HistogramOpts, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};

/// All metrics of the operator. A handle: clones count into the same.
#[derive(Clone)]
pub struct Metrics {
    registry: Registry,
    /// Reconciles by kind and outcome.
    pub reconciles_total: IntCounterVec,
    /// Time of a reconcile by kind.
    pub reconcile_seconds: HistogramVec,
    /// Statuses written by kind.
    pub status_writes_total: IntCounterVec,
    /// Reports by what became of them.
    pub reports_total: IntCounterVec,
    /// Reports of gateways by what became of them.
    pub gateway_reports_total: IntCounterVec,
    /// Tokens asked for by outcome.
    pub probes_total: IntCounterVec,
    /// Notifications by receiver and outcome.
    pub notifications_total: IntCounterVec,
    /// Canaries by the last verdict on them.
    canaries: IntGaugeVec,
    /// 1 while this process leads.
    pub is_leader: IntGauge,
}

impl Metrics {
    /// Registers everything.
    pub fn new() -> prometheus::Result<Self> {
        let registry = Registry::new();
        let counter = |name: &str, help: &str, labels: &[&str]| {
            let counter = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(counter.clone()))?;
            Ok::<_, prometheus::Error>(counter)
        };
        let reconciles_total = counter(
            "inferno_operator_reconciles_total",
            "Reconciles by kind and outcome",
            &["kind", "outcome"],
        )?;
        let status_writes_total =
            counter("inferno_operator_status_writes_total", "Statuses written by kind", &["kind"])?;
        let reports_total =
            counter("inferno_operator_reports_total", "Reports of pods by outcome", &["outcome"])?;
        let gateway_reports_total = counter(
            "inferno_operator_gateway_reports_total",
            "Reports of gateways by outcome",
            &["outcome"],
        )?;
        let probes_total =
            counter("inferno_operator_probes_total", "Tokens asked for by outcome", &["outcome"])?;
        let notifications_total = counter(
            "inferno_operator_notifications_total",
            "Notifications by receiver and outcome: sent, failed, dropped",
            &["receiver", "outcome"],
        )?;
        let reconcile_seconds = HistogramVec::new(
            HistogramOpts::new("inferno_operator_reconcile_seconds", "Time of a reconcile by kind"),
            &["kind"],
        )?;
        registry.register(Box::new(reconcile_seconds.clone()))?;
        let canaries = IntGaugeVec::new(
            Opts::new("inferno_operator_canaries", "Canaries by the last verdict on them"),
            &["outcome"],
        )?;
        registry.register(Box::new(canaries.clone()))?;
        let is_leader = IntGauge::new("inferno_operator_leader", "1 while this process leads")?;
        registry.register(Box::new(is_leader.clone()))?;
        Ok(Self {
            registry,
            reconciles_total,
            reconcile_seconds,
            status_writes_total,
            reports_total,
            gateway_reports_total,
            probes_total,
            notifications_total,
            canaries,
            is_leader,
        })
    }

    /// Shows what `collector` knows beside all else.
    pub fn show(&self, collector: impl prometheus::core::Collector + 'static) -> prometheus::Result<()> {
        self.registry.register(Box::new(collector))
    }

    /// Shows how many canaries have each outcome.
    pub fn show_canaries(&self, outcomes: &HashMap<Outcome, i64>) {
        self.canaries.reset();
        for (outcome, count) in outcomes {
            self.canaries.with_label_values(&[format!("{outcome:?}").as_str()]).set(*count);
        }
    }

    /// Everything in the text format of Prometheus.
    pub fn render(&self) -> String {
        TextEncoder::new().encode_to_string(&self.registry.gather()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_counted_is_shown() {
        let metrics = Metrics::new().unwrap();
        metrics.reconciles_total.with_label_values(&["InferenceModel", "done"]).inc();
        metrics.is_leader.set(1);
        metrics.show_canaries(&[(Outcome::Pass, 2)].into());
        metrics.show_canaries(&[(Outcome::Continue, 1)].into());
        let text = metrics.render();
        assert!(
            text.contains(r#"inferno_operator_reconciles_total{kind="InferenceModel",outcome="done"} 1"#)
        );
        assert!(text.contains("inferno_operator_leader 1"));
        assert!(text.contains(r#"inferno_operator_canaries{outcome="Continue"} 1"#));
        assert!(!text.contains("Pass"), "nobody has that outcome any more");
    }
}
