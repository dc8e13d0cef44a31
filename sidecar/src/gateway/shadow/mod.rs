//! Copies of requests for a canary that is only watched. Their answers are compared with those that clients get, and
//! thrown away. A client never waits for a copy: when too many are under way, none is made. In reading order: [`reading`]
//! (what an answer says, from its bytes), [`compare`] (two answers beside each other), and here what acts.

pub mod compare;
pub mod reading;

use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use crds::report::ShadowCounts;
use http_body_util::BodyExt;
use hyper::StatusCode;
use tokio::sync::oneshot;
use tokio::time::timeout;

use self::compare::{Ending, Heard, compare, is_deterministic};
use self::reading::Reading;
use super::app::{App, Arm};
use super::ask::Ask;
use super::envelope::Envelope;
use super::pods::Pods;

/// Longer than any answer is expected to take; then the copy is given up, and its client's answer is not waited for.
const ANSWER_WITHIN: Duration = Duration::from_secs(600);

/// One answer as it comes.
struct Listener {
    sent: Instant,
    reading: Reading,
}

/// Listens to what a client gets of whose request there is a copy. Dropped before the end, it has heard nothing: its
/// client has left.
pub struct Ear {
    listener: Listener,
    teller: oneshot::Sender<Ending>,
}

// === impl Listener ===

impl Listener {
    fn hear(&mut self, data: &[u8]) {
        self.reading.feed(data, Instant::now());
    }

    /// The end; without a status it was cut.
    fn end(self, status: Option<StatusCode>) -> Ending {
        let now = Instant::now();
        let since = |at: Instant| at.saturating_duration_since(self.sent);
        match status {
            Some(status) if status.is_success() => {
                let first = self.reading.first.map(since);
                self.reading
                    .text(now)
                    .map_or(Ending::Unread, |text| Ending::Answered(Heard { first, whole: since(now), text }))
            }
            // The pod has no room; that is not the client's fault.
            Some(StatusCode::TOO_MANY_REQUESTS) | None => Ending::Failed,
            Some(status) if status.is_client_error() => Ending::Refused,
            Some(_) => Ending::Failed,
        }
    }
}

// === impl Ear ===

impl Ear {
    /// The client gets this.
    pub fn hear(&mut self, data: &[u8]) {
        self.listener.hear(data);
    }

    /// The client has got all of it; without a status it was cut.
    pub fn end(self, status: Option<StatusCode>) {
        // If the copy was given up, nobody wants to know.
        let _ = self.teller.send(self.listener.end(status));
    }
}

/// Sends a copy of a request to this model's revision, if there is room for one. Then somebody has to listen to what the
/// client gets.
pub fn copy(
    app: &Arc<App>,
    pods: &Pods,
    (model, arm): (&str, Arc<Arm>),
    ask: &Ask,
    envelope: &Envelope,
) -> Option<Box<Ear>> {
    let Ok(room) = app.shadows.clone().try_acquire_owned() else {
        count(app, model, "no_room");
        return None;
    };
    let Some(mut lease) = arm.fleet.choose(ask, &[], Instant::now(), fastrand::u64(..)) else {
        count(app, model, "no_pod");
        return None;
    };
    let (address, request) = (lease.address(), envelope.mirrored().to(lease.address(), 1));
    let (app, pods, model) = (app.clone(), pods.clone(), model.to_owned());
    let (teller, original) = oneshot::channel();
    let sent = Instant::now();
    let (is_stream, is_deterministic) = (ask.is_stream, is_deterministic(envelope.body()));
    let listener = || Listener { sent, reading: Reading::new(is_stream) };
    let (ear, mut listener) = (Ear { listener: listener(), teller }, listener());
    tokio::spawn(async move {
        let reading = async {
            let response = pods.ask(address, request).await.ok()?;
            lease.answered(Instant::now());
            let (status, mut body) = (response.status(), response.into_body());
            while let Some(frame) = body.frame().await {
                if let Some(data) = frame.ok()?.data_ref() {
                    listener.hear(data);
                }
            }
            Some(status)
        };
        let read = timeout(ANSWER_WITHIN, reading).await;
        let ending = listener.end(read.as_ref().ok().copied().flatten());
        let outcome = match read {
            Ok(Some(status)) => {
                lease.succeeded(Instant::now(), sent.elapsed());
                if status.is_success() { "answered" } else { "refused" }
            }
            Ok(None) => {
                lease.failed(Instant::now());
                "failed"
            }
            Err(_) => "too_slow",
        };
        drop(lease);
        count(&app, &model, outcome);
        if let Ok(Ok(original)) = timeout(ANSWER_WITHIN, original).await
            && let Some(pair) = compare(original, ending, is_deterministic)
        {
            app.metrics.count_pair(&model, &pair);
            arm.compared(&pair);
        }
        drop(room);
    });
    Some(Box::new(ear))
}

fn count(app: &App, model: &str, outcome: &str) {
    app.metrics.mirrored.with_label_values(&[model, outcome]).inc();
}

// === impl Arm ===

impl Arm {
    /// A copy that it got was compared.
    fn compared(&self, pair: &ShadowCounts) {
        let mut counts = self.shadow.lock().unwrap_or_else(PoisonError::into_inner);
        *counts = counts.plus(pair);
    }

    /// What came of the copies that it got; `None` before the first.
    pub fn shadow_counts(&self) -> Option<ShadowCounts> {
        let counts = *self.shadow.lock().unwrap_or_else(PoisonError::into_inner);
        (counts.compared_total > 0).then_some(counts)
    }
}
