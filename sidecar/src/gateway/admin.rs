//! The admin port: what the kubelet, Prometheus and curious people ask.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};

use super::app::App;
use super::view::View;
use crate::lifecycle::Stage;

/// All its routes.
pub fn router(app: Arc<App>) -> Router {
    Router::new()
        .route("/healthz", get(async || Json(json!({"status": "ok"}))))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/view", get(async |State(app): State<Arc<App>>| Json::<View>(app.board().view())))
        .with_state(app)
}

async fn readyz(State(app): State<Arc<App>>) -> (StatusCode, Json<Value>) {
    let (code, status) = match app.lifecycle.stage() {
        Stage::Starting => (StatusCode::SERVICE_UNAVAILABLE, "waiting for the first view"),
        Stage::Serving => (StatusCode::OK, "ready"),
        Stage::Leaving | Stage::Draining => (StatusCode::SERVICE_UNAVAILABLE, "draining"),
    };
    (code, Json(json!({"status": status})))
}

async fn metrics(State(app): State<Arc<App>>) -> Response {
    match app.render(Instant::now()) {
        Ok(text) => ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Err(error) => {
            tracing::error!(%error, "metrics cannot be written");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}
