//! Reports of a gateway to the operator: every two seconds, and at once when a first request has to wait, because its
//! replica starts only when the operator knows.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crds::report::{ArmCounts, GATEWAY_REPORT_PATH, GatewayModel, GatewayReport};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::app::{App, Arm, ModelBoard};
use crate::push::Push;

/// The pace of reports: one older than three of these counts as unknown.
const EVERY: Duration = Duration::from_secs(2);

/// Requests that begin to wait within this time are one report.
const TOGETHER: Duration = Duration::from_millis(50);

/// Who reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The pool's namespace.
    pub namespace: String,
    /// The pool.
    pub pool: String,
    /// The gateway's pod.
    pub pod: String,
    /// The pod's UID.
    pub pod_uid: String,
}

impl Identity {
    /// Of a gateway of this pool, by the environment that the operator gives to the pod.
    pub fn from_environment(namespace: &str, pool: &str) -> Self {
        let read = |name| std::env::var(name).unwrap_or_default();
        Self {
            namespace: namespace.to_owned(),
            pool: pool.to_owned(),
            pod: read("POD_NAME"),
            pod_uid: read("POD_UID"),
        }
    }
}

/// Sends reports for ever.
pub async fn report(push: Push, identity: Identity, app: Arc<App>) {
    let began = Instant::now();
    let mut changed = app.room.changed();
    let mut sending = JoinSet::new();
    let mut waited = Vec::new();
    for sequence in 1.. {
        let report = reading(&app, &identity, sequence, began);
        waited.clone_from(&waiting_models(&app));
        while sending.try_join_next().is_some() {}
        // Behind a slow resolver the next report replaces the one that is not yet sent; it holds the same sums.
        if sending.is_empty() {
            let push = push.clone();
            sending.spawn(async move { push.send(&report).await });
        }
        tokio::select! {
            () = sleep(EVERY) => {}
            () = somebody_new_waits(&app, &mut changed, &waited) => {
                sleep(TOGETHER).await;
                // The news must not wait for a report under way, and holds all that it says.
                sending.shutdown().await;
            }
        }
    }
}

/// Path of the operator's intake for these reports.
pub const PATH: &str = GATEWAY_REPORT_PATH;

/// Completes when requests wait for a model for which none waited.
async fn somebody_new_waits(app: &App, changed: &mut watch::Receiver<u64>, waited: &[String]) {
    loop {
        changed.mark_unchanged();
        if waiting_models(app).iter().any(|model| !waited.contains(model)) {
            return;
        }
        if changed.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

fn waiting_models(app: &App) -> Vec<String> {
    let board = app.board();
    let names = board.models.iter().map(|model| &model.view.name);
    names.filter(|model| app.room.has_waiting(model)).cloned().collect()
}

fn reading(app: &App, identity: &Identity, sequence: u64, began: Instant) -> GatewayReport {
    let now = Instant::now();
    let board = app.board();
    GatewayReport {
        namespace: identity.namespace.clone(),
        pool: identity.pool.clone(),
        pod: identity.pod.clone(),
        pod_uid: identity.pod_uid.clone(),
        sequence,
        uptime_ms: u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
        models: board.models.iter().map(|model| model_reading(app, model, now)).collect(),
    }
}

fn model_reading(app: &App, model: &ModelBoard, now: Instant) -> GatewayModel {
    let held = app.room.counts(&model.view.name, now);
    GatewayModel {
        model: model.view.name.clone(),
        held: held.by_tier,
        held_bytes: held.bytes,
        oldest_ms: held.oldest_ms,
        arrivals_total: model.arrivals.load(Ordering::Relaxed),
        arms: model.arms.iter().map(|arm| counts(arm)).collect(),
    }
}

fn counts(arm: &Arm) -> ArmCounts {
    ArmCounts {
        revision: arm.revision.clone(),
        requests_total: arm.requests.load(Ordering::Relaxed),
        new_conversations_total: arm.new_conversations.load(Ordering::Relaxed),
        failures_total: arm.failures.load(Ordering::Relaxed),
    }
}
