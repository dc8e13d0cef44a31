//! What the kubelet, Prometheus and curious people ask.

use std::time::Instant;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::app::{App, Health};
use crate::lifecycle::Stage;
use crate::queue::tier::TIERS;

/// `GET /healthz`: whether work that there is gets done.
pub async fn healthz(State(app): State<App>) -> Response {
    match app.health(Instant::now()) {
        Health::Alive => (StatusCode::OK, Json(json!({"status": "ok"}))),
        Health::Stalled => (StatusCode::SERVICE_UNAVAILABLE, Json(json!({"status": "engine stalled"}))),
        Health::NotRecovering => (StatusCode::SERVICE_UNAVAILABLE, Json(json!({"status": "engine lost"}))),
    }
    .into_response()
}

/// `GET /readyz`: whether requests should be sent here.
pub async fn readyz(State(app): State<App>) -> Response {
    let status = match app.lifecycle.stage() {
        Stage::Starting => "loading",
        Stage::Serving if app.is_ready(Instant::now()) => "ready",
        Stage::Serving => "recovering",
        Stage::Leaving | Stage::Draining => "draining",
    };
    let code = if status == "ready" { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (code, Json(json!({"status": status}))).into_response()
}

/// `GET /metrics`.
pub async fn metrics(State(app): State<App>) -> Response {
    let source = &app.source;
    let text = source.metrics.render(&source.engine.stats(), app.settings.slots, &source.queue.snapshot());
    match text {
        Ok(text) => ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Err(error) => {
            tracing::error!(%error, "metrics cannot be written");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

/// `GET /metrics/queue/status`.
pub async fn queue_status(State(app): State<App>) -> Json<Value> {
    let queue = &app.source.queue;
    let (snapshot, limits) = (queue.snapshot(), queue.limits());
    let tiers = TIERS.into_iter().map(|tier| {
        let status = json!({"queued": snapshot.by_tier[tier.index()], "weight": tier.weight()});
        (tier.name().to_owned(), status)
    });
    Json(json!({
        "queued": snapshot.requests,
        "tiers": tiers.collect::<serde_json::Map<_, _>>(),
        "promptTokens": snapshot.prompt_tokens,
        "bytes": snapshot.bytes,
        "oldestMilliseconds": u64::try_from(snapshot.oldest.as_millis()).unwrap_or(u64::MAX),
        "drainSeconds": if snapshot.requests == 0 { 0.0 } else { queue.drain_time().as_secs_f64() },
        "running": app.source.engine.stats().busy_slots,
        "slots": app.settings.slots,
        "limits": {
            "requests": limits.requests,
            "promptTokens": limits.prompt_tokens,
            "bytes": limits.bytes,
            "ageSeconds": limits.age.as_secs(),
        },
    }))
}
