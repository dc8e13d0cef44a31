//! The intake of what pods say about themselves. Keeps the latest report of each pod, for as long as it is fresh, and
//! wakes the model's reconcile when a pod's phase changes. Decides nothing.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::extract::{DefaultBodyLimit, Json, State};
use axum::http::StatusCode;
use axum::routing::post;
use crds::report::{REPORT_BYTES_MAX, REPORT_PATH, Report};
use k8s_openapi::jiff::Timestamp;
use tokio::sync::broadcast;

use crate::load::Loads;
use crate::metrics::Metrics;
use crate::trial::Trials;

/// Pods report every 2 s. One that has been silent for seven of those has nothing to say about now.
const FRESH_SECONDS: i64 = 15;
/// A load that is older is unknown: two lost reports, and the third late.
pub const LOAD_SECONDS: i64 = 6;
/// Reports kept at once; more pods than one operator can look after anyway.
const PODS_MAX: usize = 20_000;
/// Names in Kubernetes are at most this long.
pub const NAME_BYTES_MAX: usize = 253;

/// A model that somebody should look at: namespace and name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wake {
    /// The model's namespace.
    pub namespace: String,
    /// The model's name.
    pub model: String,
}

/// The latest report of each pod. A handle: clones share it.
#[derive(Clone)]
pub struct Reports {
    latest: Arc<Mutex<HashMap<String, Received>>>,
    wake: broadcast::Sender<Wake>,
}

struct Received {
    report: Report,
    at: Timestamp,
}

/// What became of a report, of a pod or of a gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Intake {
    /// Kept.
    Kept,
    /// Names that no pod can have.
    Malformed,
    /// No room: too many pods report.
    Full,
}

impl Intake {
    /// Label in metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::Kept => "kept",
            Self::Malformed => "malformed",
            Self::Full => "full",
        }
    }

    /// What the sender is told.
    pub fn status(self) -> StatusCode {
        match self {
            Self::Kept => StatusCode::NO_CONTENT,
            Self::Malformed => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Full => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

impl Reports {
    /// An empty intake that wakes through `wake`.
    pub fn new(wake: broadcast::Sender<Wake>) -> Self {
        Self { latest: Arc::default(), wake }
    }

    /// Takes one report in. The last to arrive counts: a pod sends one after the other, its two containers number
    /// theirs independently, and one that comes late is put right two seconds after.
    pub fn accept(&self, report: Report, now: Timestamp) -> Intake {
        if !has_possible_names(&report) {
            return Intake::Malformed;
        }
        let wake = Wake { namespace: report.namespace.clone(), model: report.model.clone() };
        let has_moved = {
            let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
            if !latest.contains_key(&report.pod_uid) && latest.len() >= PODS_MAX {
                latest.retain(|_, received| is_fresh(received.at, now));
                if latest.len() >= PODS_MAX {
                    return Intake::Full;
                }
            }
            let has_moved = has_moved(latest.get(&report.pod_uid), &report);
            latest.insert(report.pod_uid.clone(), Received { report, at: now });
            has_moved
        };
        if has_moved {
            // Nobody listens on a standby, and who listens too slowly looks again by itself.
            let _ = self.wake.send(wake);
        }
        Intake::Kept
    }

    /// Requests in the slots and the queue of the pod with this UID, if it has said so within the last seconds.
    pub fn in_flight(&self, pod_uid: &str, now: Timestamp) -> Option<u32> {
        let latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        let received = latest.get(pod_uid)?;
        let load = received.report.load.as_ref()?;
        let is_of_now = now.as_second() - received.at.as_second() <= LOAD_SECONDS;
        is_of_now.then(|| load.queued.iter().fold(load.slots_busy, |sum, queued| sum.saturating_add(*queued)))
    }

    /// The fresh report of the pod with this UID. A pod of the same name with another UID has not said it.
    pub fn latest(&self, pod_uid: &str, now: Timestamp) -> Option<Report> {
        let latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        latest
            .get(pod_uid)
            .filter(|received| is_fresh(received.at, now))
            .map(|received| received.report.clone())
    }
}

fn has_possible_names(report: &Report) -> bool {
    let names = [&report.namespace, &report.pod, &report.pod_uid, &report.model, &report.revision];
    names.iter().all(|name| !name.is_empty() && name.len() <= NAME_BYTES_MAX)
}

/// Whether the report says something that nobody has acted on yet.
fn has_moved(before: Option<&Received>, report: &Report) -> bool {
    before.is_none_or(|Received { report: before, .. }| {
        std::mem::discriminant(&before.phase) != std::mem::discriminant(&report.phase)
            || before.opened.is_some() != report.opened.is_some()
    })
}

/// Whether what was received at `at` still speaks of now.
pub fn is_fresh(at: Timestamp, now: Timestamp) -> bool {
    now.as_second() - at.as_second() <= FRESH_SECONDS
}

/// The HTTP face of the intake.
pub fn router(reports: Reports, loads: Loads, trials: Trials, metrics: Metrics) -> Router {
    Router::new()
        .route(REPORT_PATH, post(receive))
        .layer(DefaultBodyLimit::max(REPORT_BYTES_MAX))
        .with_state((reports, loads, trials, metrics))
}

async fn receive(
    State((reports, loads, trials, metrics)): State<(Reports, Loads, Trials, Metrics)>,
    Json(report): Json<Report>,
) -> StatusCode {
    if has_possible_names(&report) {
        let now = loads.clock().now();
        loads.hear_pod(&report, now);
        trials.hear_pod(&report, now);
    }
    let intake = reports.accept(report, Timestamp::now());
    metrics.reports_total.with_label_values(&[intake.label()]).inc();
    intake.status()
}

#[cfg(test)]
mod tests {
    use crds::report::Phase;

    use super::*;

    fn report(uid: &str, sequence: u64, phase: Phase) -> Report {
        Report {
            namespace: "default".into(),
            pod: "tiny-1".into(),
            pod_uid: uid.into(),
            model: "tiny".into(),
            revision: "tiny-a".into(),
            sequence,
            uptime_ms: sequence * 1_000,
            phase,
            opened: None,
            load: None,
        }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    #[test]
    fn a_report_is_forgotten_when_the_pod_falls_silent() {
        let reports = Reports::new(broadcast::channel(8).0);
        assert_eq!(reports.accept(report("u1", 1, Phase::Verifying), at(0)), Intake::Kept);
        assert!(reports.latest("u1", at(15)).is_some());
        assert!(reports.latest("u1", at(16)).is_none());
        assert!(reports.latest("u2", at(0)).is_none());
    }

    #[test]
    fn wakes_only_when_the_phase_changes() {
        let (wake, mut woken) = broadcast::channel(8);
        let reports = Reports::new(wake);
        reports.accept(report("u1", 1, Phase::Loading { percent: 1 }), at(0));
        reports.accept(report("u1", 2, Phase::Loading { percent: 50 }), at(2));
        reports.accept(report("u1", 3, Phase::WarmingUp), at(4));
        let expected = Wake { namespace: "default".into(), model: "tiny".into() };
        assert_eq!(woken.try_recv().unwrap(), expected);
        assert_eq!(woken.try_recv().unwrap(), expected);
        assert!(woken.try_recv().is_err());
    }

    #[test]
    fn memory_is_bounded_and_the_silent_make_room() {
        let reports = Reports::new(broadcast::channel(8).0);
        for pod in 0..PODS_MAX {
            assert_eq!(reports.accept(report(&pod.to_string(), 1, Phase::Serving), at(0)), Intake::Kept);
        }
        assert_eq!(reports.accept(report("one-more", 1, Phase::Serving), at(1)), Intake::Full);
        assert_eq!(reports.accept(report("one-more", 1, Phase::Serving), at(16)), Intake::Kept);
    }

    #[test]
    fn names_that_no_pod_can_have_are_refused() {
        let reports = Reports::new(broadcast::channel(8).0);
        assert_eq!(reports.accept(report("", 1, Phase::Serving), at(0)), Intake::Malformed);
        assert_eq!(reports.accept(report(&"u".repeat(254), 1, Phase::Serving), at(0)), Intake::Malformed);
    }
}
