//! Reports of a gateway to the operator: every two seconds, and at once when a first request has to wait, because its
//! replica starts only when the operator knows.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crds::report::{ArmCounts, GATEWAY_REPORT_PATH, GatewayModel, GatewayReport};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::app::{App, Arm, ModelBoard};
use super::recent::Recent;
use crate::push::Push;

/// The pace of reports: one older than three of these counts as unknown.
const EVERY: Duration = Duration::from_secs(2);

/// Requests that begin to wait within this time are one report.
const TOGETHER: Duration = Duration::from_millis(50);

/// What arrived lately is told of each model in every fifth report: an operator that has just started waits for it at
/// most 10 s, and it is most of a report.
const RECENT_EVERY: usize = 5;

/// Models of which one report tells what arrived lately, 3 KiB each; with more models it takes more reports.
const RECENT_MODELS_MAX: usize = 64;

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
    let mut recent = HashMap::new();
    for sequence in 1.. {
        let report = reading(&app, &identity, sequence, began, &mut recent);
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

fn reading(
    app: &App,
    identity: &Identity,
    sequence: u64,
    began: Instant,
    recent: &mut HashMap<String, Recent>,
) -> GatewayReport {
    let now = Instant::now();
    let uptime_ms = u64::try_from(now.saturating_duration_since(began).as_millis()).unwrap_or(u64::MAX);
    let board = app.board();
    recent.retain(|model, _| board.named(model).is_some());
    let every = RECENT_EVERY.max(board.models.len().div_ceil(RECENT_MODELS_MAX));
    let turn = usize::try_from(sequence).unwrap_or(0);
    let read = |(place, model): (usize, &Arc<ModelBoard>)| {
        let recent = recent.entry(model.view.name.clone()).or_default();
        recent.note(model.arrivals.sums(), uptime_ms);
        let reading = model_reading(app, model, now);
        // Who is waited for is about to be decided upon, and that needs all there is to know.
        let is_due = (turn + place).is_multiple_of(every) || reading.held != [0; 4];
        GatewayModel { recent_arrivals: is_due.then(|| recent.newest_first()), ..reading }
    };
    GatewayReport {
        namespace: identity.namespace.clone(),
        pool: identity.pool.clone(),
        pod: identity.pod.clone(),
        pod_uid: identity.pod_uid.clone(),
        sequence,
        uptime_ms,
        models: board.models.iter().enumerate().map(read).collect(),
    }
}

fn model_reading(app: &App, model: &ModelBoard, now: Instant) -> GatewayModel {
    let held = app.room.counts(&model.view.name, now);
    let [arrivals_total, arrived_prompt_tokens_total, arrived_output_tokens_total] = model.arrivals.sums();
    GatewayModel {
        model: model.view.name.clone(),
        held: held.by_tier,
        held_bytes: held.bytes,
        oldest_ms: held.oldest_ms,
        held_prompt_tokens: held.prompt_tokens,
        held_output_tokens: held.output_tokens,
        arrivals_total,
        arrived_prompt_tokens_total,
        arrived_output_tokens_total,
        recent_arrivals: None,
        arms: model.arms.iter().map(|arm| counts(arm)).collect(),
    }
}

fn counts(arm: &Arm) -> ArmCounts {
    ArmCounts {
        revision: arm.revision.clone(),
        requests_total: arm.requests.load(Ordering::Relaxed),
        new_conversations_total: arm.new_conversations.load(Ordering::Relaxed),
        failures_total: arm.failures.load(Ordering::Relaxed),
        shadow: arm.shadow_counts(),
    }
}
