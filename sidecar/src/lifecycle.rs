//! Where the process stands between its start and its end, and what is still in flight. Handles only; decides nothing.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

/// Stages of the process's life, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// The model has not yet given its first token.
    Starting,
    /// Requests are served.
    Serving,
    /// The end is announced, so that nobody is sent here any more; who comes all the same is served.
    Leaving,
    /// New requests are turned away; the others finish.
    Draining,
}

/// A handle on the process's stage; clones share it.
#[derive(Clone)]
pub struct Lifecycle {
    stage: Arc<watch::Sender<Stage>>,
    in_flight: TaskTracker,
    cut: CancellationToken,
}

impl Default for Lifecycle {
    fn default() -> Self {
        Self {
            stage: Arc::new(watch::Sender::new(Stage::Starting)),
            in_flight: TaskTracker::new(),
            cut: CancellationToken::new(),
        }
    }
}

impl Lifecycle {
    /// The stage now.
    pub fn stage(&self) -> Stage {
        *self.stage.borrow()
    }

    /// The stage now and its changes.
    pub fn stages(&self) -> watch::Receiver<Stage> {
        self.stage.subscribe()
    }

    /// Goes on to a later stage; going back is not possible and does nothing.
    pub fn advance(&self, to: Stage) {
        self.stage.send_if_modified(|stage| {
            let is_later = to > *stage;
            *stage = (*stage).max(to);
            is_later
        });
    }

    /// A request is in flight while this token lives.
    pub fn enter(&self) -> TaskTrackerToken {
        self.in_flight.token()
    }

    /// Requests in flight.
    pub fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// Waits until nothing is in flight.
    pub async fn emptied(&self) {
        self.in_flight.close();
        self.in_flight.wait().await;
    }

    /// Announces the end, serves what comes until that is known everywhere, turns away what comes then, and lets the
    /// rest finish. What has not ended `drain_max` after the beginning is cut, and gets `close_max` to say so.
    pub async fn drain(&self, propagation: Duration, drain_max: Duration, close_max: Duration) {
        let began = Instant::now();
        self.advance(Stage::Leaving);
        tracing::info!(in_flight = self.in_flight(), "draining");
        tokio::time::sleep(propagation.min(drain_max)).await;
        self.advance(Stage::Draining);
        let left = drain_max.saturating_sub(began.elapsed());
        if tokio::time::timeout(left, self.emptied()).await.is_err() {
            tracing::warn!(in_flight = self.in_flight(), "cutting what has not ended in time");
            self.cut();
            drop(tokio::time::timeout(close_max, self.emptied()).await);
        }
        tracing::info!(seconds = began.elapsed().as_secs(), "drained");
    }

    /// What is in flight has to end now, with an error.
    pub fn cut(&self) {
        self.cut.cancel();
    }

    /// Waits until [`Self::cut`] is called.
    pub async fn is_cut(&self) {
        self.cut.cancelled().await;
    }
}
