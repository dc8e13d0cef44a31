//! Copies of requests for a canary that is only watched. Their answers are read to the end and thrown away. A client
//! never waits for a copy: when too many are under way, none is made.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http_body_util::BodyExt;

use super::app::{App, Arm};
use super::ask::Ask;
use super::envelope::Envelope;
use super::pods::Pods;

/// Longer than any answer is expected to take; then the copy is given up.
const ANSWER_WITHIN: Duration = Duration::from_secs(600);

/// Sends a copy of a request to this model's revision, if there is room for one.
pub fn copy(app: &Arc<App>, pods: &Pods, (model, arm): (&str, Arc<Arm>), ask: &Ask, envelope: &Envelope) {
    let count = |app: &App, model: &str, outcome| {
        app.metrics.mirrored.with_label_values(&[model, outcome]).inc();
    };
    let Ok(room) = app.shadows.clone().try_acquire_owned() else {
        return count(app, model, "no_room");
    };
    let Some(mut lease) = arm.fleet.choose(ask, &[], Instant::now(), fastrand::u64(..)) else {
        return count(app, model, "no_pod");
    };
    let (address, request) = (lease.address(), envelope.mirrored().to(lease.address(), 1));
    let (app, pods, model) = (app.clone(), pods.clone(), model.to_owned());
    tokio::spawn(async move {
        let sent = Instant::now();
        let reading = async {
            let response = pods.ask(address, request).await.ok()?;
            lease.answered(Instant::now());
            let (status, mut body) = (response.status(), response.into_body());
            while let Some(frame) = body.frame().await {
                frame.ok()?;
            }
            Some(status)
        };
        let outcome = match tokio::time::timeout(ANSWER_WITHIN, reading).await {
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
        count(&app, &model, outcome);
        drop(room);
    });
}
