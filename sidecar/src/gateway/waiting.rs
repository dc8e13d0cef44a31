//! What the client of a stream reads while no pod has answered: comments with phase, percent and time, never content.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::body::Bytes;
use tokio::sync::watch;
use tokio::time::{Instant, Sleep, sleep_until};

use super::app::App;
use super::forward::{Exchange, now_ms};
use super::outlook::outlook;

/// A change is told within this time.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Proxies cut a silent connection after 60 s, some after 30.
const COMMENT_EVERY: Duration = Duration::from_secs(15);

/// Comments about one request.
pub struct Comments {
    app: Arc<App>,
    model: String,
    is_held: watch::Receiver<bool>,
    look: Pin<Box<Sleep>>,
    told: String,
    told_at: Option<Instant>,
}

impl Comments {
    /// Of a request that looks for a pod. The first comes at once if the request waits.
    pub fn new(exchange: &mut Exchange) -> Self {
        Self {
            app: exchange.app.clone(),
            model: exchange.model.clone(),
            is_held: exchange.is_held(),
            look: Box::pin(sleep_until(Instant::now())),
            told: String::new(),
            told_at: None,
        }
    }

    /// The next comment.
    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Bytes> {
        loop {
            ready!(self.look.as_mut().poll(context));
            let now = Instant::now();
            self.look.as_mut().reset(now + LOOK_EVERY);
            if let Some(comment) = self.due(now) {
                return Poll::Ready(comment);
            }
        }
    }

    fn due(&mut self, now: Instant) -> Option<Bytes> {
        let text = self.text();
        let is_late = self.told_at.is_none_or(|at| now.duration_since(at) >= COMMENT_EVERY);
        if !is_late && text == self.told {
            return None;
        }
        self.told_at = Some(now);
        self.told = text;
        Some(Bytes::from(format!(": {}\n\n", self.told)))
    }

    fn text(&self) -> String {
        if !*self.is_held.borrow() {
            return "asking a pod".to_owned();
        }
        let board = self.app.board();
        let text = board.named(&self.model).map(|model| outlook(&model.view, now_ms()).text);
        // Parts of it come from pods; a comment is one line.
        text.unwrap_or_default().replace(['\r', '\n'], " ")
    }
}
