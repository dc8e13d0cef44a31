//! The HTTP face: routes, and what every answer has. A function returns the router, so tests call it without a port.
//!
//! In reading order: [`app`] (what handlers share), [`error`] (the only file with status codes of failures),
//! [`prepare`] (a body becomes generations), [`answer`] (generations become a response), [`sse`] (frames of a stream), [`discard`] (what becomes of a body that nobody wants),
//! [`probes`] (health, metrics, queue status), [`headers`] (ids and times on every answer).

use axum::Router;
use axum::middleware;
use axum::routing::{get, post};

pub mod answer;
pub mod app;
pub mod discard;
pub mod error;
pub mod headers;
pub mod models;
pub mod prepare;
pub mod probes;
pub mod sse;

pub use app::{App, Settings};
pub use error::ApiError;

/// A body may hold this much: the longest prompt of a context of a million tokens, twice.
pub const BODY_BYTES_MAX: usize = 8 << 20;

/// All routes.
pub fn router(app: App) -> Router {
    Router::new()
        .route("/v1/chat/completions", post(answer::chat))
        .route("/v1/completions", post(answer::completion))
        .route("/v1/models", get(models::list))
        .route("/v1/models/{*id}", get(models::retrieve))
        .route("/healthz", get(probes::healthz))
        .route("/health", get(probes::healthz))
        .route("/readyz", get(probes::readyz))
        .route("/metrics", get(probes::metrics))
        .route("/metrics/queue/status", get(probes::queue_status))
        .fallback(async || ApiError::NoSuchRoute)
        .method_not_allowed_fallback(async || ApiError::MethodNotAllowed)
        .layer(middleware::from_fn_with_state(app.clone(), headers::decorate))
        .with_state(app)
}
