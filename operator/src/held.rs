//! The intake of what gateways say: who waits for which model, and which revision was sent how much. Keeps the latest
//! report of each gateway for as long as it is fresh, and wakes a model's reconcile when requests begin to wait for
//! it. Decides nothing.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::extract::{DefaultBodyLimit, Json, State};
use axum::http::StatusCode;
use axum::routing::post;
use crds::report::{ArmCounts, GATEWAY_REPORT_PATH, GatewayModel, GatewayReport};
use k8s_openapi::jiff::Timestamp;
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{IntGaugeVec, Opts};
use tokio::sync::broadcast;

use crate::experiment::Experiments;
use crate::load::Loads;
use crate::metrics::Metrics;
use crate::report::{Intake, NAME_BYTES_MAX, Wake, is_fresh};
use crate::trial::Trials;

/// Gateways of all pools together; 20 of each of a hundred pools.
const GATEWAYS_MAX: usize = 2_000;
/// Models that one gateway may tell of. A pool with more is told of in part.
const MODELS_MAX: usize = 1_000;
/// Revisions of one model; there are two at a time, and a few that have just gone.
const ARMS_MAX: usize = 16;
/// Series of one metric family: what is beyond is left out, and a person looks at the gateways' own metrics.
const SERIES_MAX: usize = 5_000;
/// A model takes some hundred bytes.
const BODY_BYTES_MAX: usize = 1024 * 1024;

/// The latest report of each gateway. A handle: clones share it.
#[derive(Clone)]
pub struct GatewayReports {
    latest: Arc<Mutex<HashMap<String, Received>>>,
    wake: broadcast::Sender<Wake>,
    descriptions: Arc<Vec<Desc>>,
}

struct Received {
    report: GatewayReport,
    at: Timestamp,
}

/// Namespace and name of a model.
pub type ModelKey = (String, String);

impl GatewayReports {
    /// An empty intake that wakes through `wake`.
    pub fn new(wake: broadcast::Sender<Wake>) -> prometheus::Result<Self> {
        let descriptions =
            [held_family()?, arms_family()?].iter().flat_map(Collector::desc).cloned().collect();
        Ok(Self { latest: Arc::default(), wake, descriptions: Arc::new(descriptions) })
    }

    /// Takes one report in. The last to arrive counts: a gateway sends one after the other.
    pub fn accept(&self, mut report: GatewayReport, now: Timestamp) -> Intake {
        if !has_possible_names(&report) {
            return Intake::Malformed;
        }
        report.models.truncate(MODELS_MAX);
        for model in &mut report.models {
            model.arms.truncate(ARMS_MAX);
        }
        let namespace = report.namespace.clone();
        let woken = {
            let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
            if !latest.contains_key(&report.pod_uid) && latest.len() >= GATEWAYS_MAX {
                latest.retain(|_, received| is_fresh(received.at, now));
                if latest.len() >= GATEWAYS_MAX {
                    return Intake::Full;
                }
            }
            let before = latest.get(&report.pod_uid).filter(|received| is_fresh(received.at, now));
            let woken = newly_held(before.map(|before| &before.report), &report);
            latest.insert(report.pod_uid.clone(), Received { report, at: now });
            woken
        };
        for model in woken {
            // Nobody listens on a standby, and who listens too slowly looks again by itself.
            let _ = self.wake.send(Wake { namespace: namespace.clone(), model });
        }
        Intake::Kept
    }

    /// Requests that wait at all gateways together, by model and tier; models for which nobody waits included.
    pub fn held(&self, now: Timestamp) -> BTreeMap<ModelKey, [u64; 4]> {
        let mut held: BTreeMap<ModelKey, [u64; 4]> = BTreeMap::new();
        self.for_each(now, |key, model| {
            let sums = held.entry(key).or_default();
            for (sum, count) in sums.iter_mut().zip(model.held) {
                *sum += u64::from(count);
            }
        });
        held
    }

    /// What the gateways of now have sent to each revision of each model.
    pub fn arms(&self, now: Timestamp) -> BTreeMap<ModelKey, Vec<ArmCounts>> {
        let mut arms: BTreeMap<ModelKey, BTreeMap<String, ArmCounts>> = BTreeMap::new();
        self.for_each(now, |key, model| {
            let by_revision = arms.entry(key).or_default();
            for arm in &model.arms {
                let sum = by_revision.entry(arm.revision.clone()).or_default();
                sum.revision.clone_from(&arm.revision);
                sum.requests_total = sum.requests_total.saturating_add(arm.requests_total);
                sum.new_conversations_total =
                    sum.new_conversations_total.saturating_add(arm.new_conversations_total);
                sum.failures_total = sum.failures_total.saturating_add(arm.failures_total);
            }
        });
        arms.into_iter().map(|(key, by_revision)| (key, by_revision.into_values().collect())).collect()
    }

    fn for_each(&self, now: Timestamp, mut visit: impl FnMut(ModelKey, &GatewayModel)) {
        let latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        for Received { report, .. } in latest.values().filter(|received| is_fresh(received.at, now)) {
            for model in &report.models {
                visit((report.namespace.clone(), model.model.clone()), model);
            }
        }
    }
}

/// What arrived lately and what came of experiments is kept elsewhere by now, and is most of what would be kept here.
fn forget_histories(report: &mut GatewayReport) {
    for model in &mut report.models {
        (model.recent_arrivals, model.draws) = (None, Vec::new());
    }
}

fn has_possible_names(report: &GatewayReport) -> bool {
    let of_models = report
        .models
        .iter()
        .flat_map(|model| std::iter::once(&model.model).chain(model.arms.iter().map(|arm| &arm.revision)));
    [&report.namespace, &report.pool, &report.pod, &report.pod_uid]
        .into_iter()
        .chain(of_models)
        .all(|name| !name.is_empty() && name.len() <= NAME_BYTES_MAX)
}

/// Models for which requests have begun to wait.
fn newly_held(before: Option<&GatewayReport>, report: &GatewayReport) -> Vec<String> {
    let waits = |model: &&GatewayModel| model.held.iter().any(|count| *count > 0);
    let waited = |name: &str| {
        before.is_some_and(|before| before.models.iter().filter(waits).any(|model| model.model == name))
    };
    let waiting = report.models.iter().filter(waits).filter(|model| !waited(&model.model));
    waiting.map(|model| model.model.clone()).collect()
}

// === as metrics ===

fn held_family() -> prometheus::Result<IntGaugeVec> {
    let opts = Opts::new("inferno_operator_held_requests", "Requests that wait at gateways for a replica");
    IntGaugeVec::new(opts, &["namespace", "model"])
}

fn arms_family() -> prometheus::Result<IntGaugeVec> {
    let help = "Requests that the gateways of now have sent to a revision since they began";
    let opts = Opts::new("inferno_operator_arm_requests", help);
    IntGaugeVec::new(opts, &["namespace", "model", "revision"])
}

impl Collector for GatewayReports {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let now = Timestamp::now();
        let (Ok(held), Ok(arms)) = (held_family(), arms_family()) else { return Vec::new() };
        for ((namespace, model), by_tier) in self.held(now).iter().take(SERIES_MAX) {
            held.with_label_values(&[namespace, model]).set(gauge(by_tier.iter().sum()));
        }
        let by_model = self.arms(now);
        let each = by_model.iter().flat_map(|(key, arms)| arms.iter().map(move |arm| (key, arm)));
        for ((namespace, model), arm) in each.take(SERIES_MAX) {
            arms.with_label_values(&[namespace, model, &arm.revision]).set(gauge(arm.requests_total));
        }
        [held.collect(), arms.collect()].concat()
    }
}

fn gauge(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// The HTTP face of the intake.
pub fn router(
    reports: GatewayReports,
    loads: Loads,
    trials: Trials,
    experiments: Experiments,
    metrics: Metrics,
) -> Router {
    Router::new()
        .route(GATEWAY_REPORT_PATH, post(receive))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state((reports, loads, trials, experiments, metrics))
}

async fn receive(
    State((reports, loads, trials, experiments, metrics)): State<(
        GatewayReports,
        Loads,
        Trials,
        Experiments,
        Metrics,
    )>,
    Json(mut report): Json<GatewayReport>,
) -> StatusCode {
    report.models.truncate(MODELS_MAX);
    if has_possible_names(&report) {
        // Before the wake: whoever looks then must know what the report says.
        let now = loads.clock().now();
        loads.hear_gateway(&report, now);
        trials.hear_gateway(&report, now);
        experiments.hear(&report, now);
        forget_histories(&mut report);
    }
    let intake = reports.accept(report, Timestamp::now());
    metrics.gateway_reports_total.with_label_values(&[intake.label()]).inc();
    intake.status()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn arm(revision: &str, requests_total: u64) -> ArmCounts {
        ArmCounts { revision: revision.to_owned(), requests_total, ..ArmCounts::default() }
    }

    fn model(name: &str, held: [u32; 4]) -> GatewayModel {
        let arms = vec![arm("tiny-a", 30), arm("tiny-b", 10)];
        GatewayModel { model: name.to_owned(), held, arms, ..GatewayModel::default() }
    }

    fn report(uid: &str, models: Vec<GatewayModel>) -> GatewayReport {
        GatewayReport {
            namespace: "default".into(),
            pool: "cpu".into(),
            pod: "cpu-gateway-1".into(),
            pod_uid: uid.into(),
            sequence: 1,
            uptime_ms: 1_000,
            models,
        }
    }

    fn key(model: &str) -> ModelKey {
        ("default".to_owned(), model.to_owned())
    }

    #[test]
    fn a_model_is_woken_when_requests_begin_to_wait_and_not_again_while_they_do() {
        let (wake, mut woken) = broadcast::channel(8);
        let reports = GatewayReports::new(wake).unwrap();
        let mut says = |held, second| {
            let report = report("g1", vec![model("tiny", held), model("other", [0; 4])]);
            assert_eq!(reports.accept(report, at(second)), Intake::Kept);
            woken.try_recv().ok().map(|wake| wake.model)
        };
        assert_eq!(says([0; 4], 0), None);
        assert_eq!(says([0, 1, 0, 0], 1), Some("tiny".to_owned()));
        assert_eq!(says([0, 9, 0, 0], 2), None);
        assert_eq!(says([0; 4], 3), None);
        assert_eq!(says([0, 0, 1, 0], 4), Some("tiny".to_owned()));
        assert_eq!(
            says([0, 0, 1, 0], 60),
            Some("tiny".to_owned()),
            "the earlier report is not fresh any more"
        );
    }

    #[test]
    fn what_gateways_say_is_summed_while_it_is_fresh() {
        let reports = GatewayReports::new(broadcast::channel(8).0).unwrap();
        reports.accept(report("g1", vec![model("tiny", [1, 0, 2, 0])]), at(0));
        reports.accept(report("g2", vec![model("tiny", [1, 0, 0, 4])]), at(10));
        assert_eq!(reports.held(at(15)), [(key("tiny"), [2, 0, 2, 4])].into());
        let requests = |second| -> Vec<u64> {
            reports.arms(at(second)).into_values().flatten().map(|arm| arm.requests_total).collect()
        };
        assert_eq!(requests(15), [60, 20]);
        assert_eq!(requests(16), [30, 10], "one gateway has fallen silent");
        assert_eq!(reports.held(at(26)), BTreeMap::new());
    }

    #[test]
    fn memory_is_bounded_and_the_silent_make_room() {
        let reports = GatewayReports::new(broadcast::channel(8).0).unwrap();
        for gateway in 0..GATEWAYS_MAX {
            assert_eq!(reports.accept(report(&gateway.to_string(), vec![]), at(0)), Intake::Kept);
        }
        assert_eq!(reports.accept(report("one-more", vec![]), at(1)), Intake::Full);
        assert_eq!(reports.accept(report("one-more", vec![]), at(16)), Intake::Kept);
        let crowd = (0..MODELS_MAX + 5).map(|n| model(&n.to_string(), [0; 4])).collect();
        assert_eq!(reports.accept(report("crowded", crowd), at(16)), Intake::Kept);
        assert_eq!(reports.held(at(16)).len(), MODELS_MAX);
    }

    #[test]
    fn names_that_nothing_can_have_are_refused() {
        let reports = GatewayReports::new(broadcast::channel(8).0).unwrap();
        assert_eq!(reports.accept(report("", vec![]), at(0)), Intake::Malformed);
        assert_eq!(reports.accept(report("g", vec![model("", [0; 4])]), at(0)), Intake::Malformed);
        let long = model(&"m".repeat(254), [0; 4]);
        assert_eq!(reports.accept(report("g", vec![long]), at(0)), Intake::Malformed);
    }

    #[test]
    fn what_is_held_is_a_metric() {
        let (reports, metrics) =
            (GatewayReports::new(broadcast::channel(8).0).unwrap(), Metrics::new().unwrap());
        metrics.show(reports.clone()).unwrap();
        reports.accept(report("g1", vec![model("tiny", [1, 0, 2, 0])]), Timestamp::now());
        let text = metrics.render();
        let held = r#"inferno_operator_held_requests{model="tiny",namespace="default"} 3"#;
        assert!(text.contains(held), "{text}");
        let arms = r#"inferno_operator_arm_requests{model="tiny",namespace="default",revision="tiny-a"} 30"#;
        assert!(text.contains(arms), "{text}");
    }
}
