//! Reports of a gateway to the operator: every two seconds, and at once when a first request has to wait, because its
//! replica starts only when the operator knows.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crds::report::{ArmCounts, DrawSums, GATEWAY_REPORT_PATH, GatewayModel, GatewayReport};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::app::{App, Arm, Board, ModelBoard};
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

/// Flags and experiments are told of in every fifth report, because people look at their figures.
const DRAWS_EVERY: u64 = 5;

/// Flags and experiments of which one report tells, some 10 KiB each; with more it takes more reports.
const DRAWS_TOLD_MAX: usize = 16;

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
    let mut draws = draws(&board, sequence);
    let read = |(place, model): (usize, &Arc<ModelBoard>)| {
        let recent = recent.entry(model.view.name.clone()).or_default();
        recent.note(model.arrivals.sums(), uptime_ms);
        let reading = model_reading(app, model, now);
        // Who is waited for is about to be decided upon, and that needs all there is to know.
        let is_due = (turn + place).is_multiple_of(every) || reading.held != [0; 4];
        let draws = draws.remove(&place).unwrap_or_default();
        GatewayModel { recent_arrivals: is_due.then(|| recent.newest_first()), draws, ..reading }
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

/// The figures of those flags and experiments whose turn it is, by the place of their model.
fn draws(board: &Board, sequence: u64) -> HashMap<usize, Vec<DrawSums>> {
    let mut told: HashMap<usize, Vec<DrawSums>> = HashMap::new();
    if !sequence.is_multiple_of(DRAWS_EVERY) {
        return told;
    }
    let of_model = |(place, model): (usize, &Arc<ModelBoard>)| {
        model.tallies.iter().map(|tally| (place, tally.clone())).collect::<Vec<_>>()
    };
    let all: Vec<_> = board.models.iter().enumerate().flat_map(of_model).collect();
    let turn = usize::try_from(sequence / DRAWS_EVERY).unwrap_or(0);
    let first =
        (turn * DRAWS_TOLD_MAX).checked_rem(all.len()).filter(|_| all.len() > DRAWS_TOLD_MAX).unwrap_or(0);
    for (place, tally) in all.iter().cycle().skip(first).take(DRAWS_TOLD_MAX.min(all.len())) {
        if let Some(sums) = tally.sums() {
            told.entry(*place).or_default().push(sums);
        }
    }
    told
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
        draws: Vec::new(),
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::gateway::draw::tally::Ended;
    use crate::gateway::view::{DrawView, LotView, ModelView, View};

    /// A board with so many models that have so many flags each, all of which have been used.
    fn board(models: usize, flags: usize) -> Arc<Board> {
        let lot = |name: &str| LotView { name: name.into(), ..LotView::default() };
        let draw = |number: usize| DrawView {
            name: format!("flag-{number}"),
            lots: vec![lot("on"), lot("off")],
            ..DrawView::default()
        };
        let model = |number: usize| ModelView {
            name: format!("model-{number}"),
            draws: (0..flags).map(draw).collect(),
            ..ModelView::default()
        };
        let app = App::new().unwrap();
        app.take(View { models: (0..models).map(model).collect(), ..View::default() });
        let board = app.board();
        let tallies = board.models.iter().flat_map(|model| &model.tallies);
        tallies.for_each(|tally| tally.note(0, Ended::Left, false));
        board
    }

    #[test]
    fn all_draws_are_told_of_in_turn_and_few_at_once() {
        for (models, flags, reports) in [(1, 3, 1), (4, 4, 1), (7, 5, 3), (0, 0, 1)] {
            let board = board(models, flags);
            let mut told = BTreeSet::new();
            for report in 1..=reports {
                let found = draws(&board, DRAWS_EVERY * report);
                let found = found
                    .iter()
                    .flat_map(|(place, draws)| draws.iter().map(|draw| (*place, draw.name.clone())));
                let found: Vec<_> = found.collect();
                assert!(found.len() <= DRAWS_TOLD_MAX, "{}", found.len());
                told.extend(found);
            }
            assert_eq!(told.len(), models * flags, "{models} models of {flags} flags");
            assert!(draws(&board, DRAWS_EVERY + 1).is_empty());
        }
    }
}
